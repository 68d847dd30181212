//! How rows travel between tasks: partitioning by key group, bounded channels inside the process, and calls to other
//! workers with the same bound.
//!
//! [`Channel`] is what a task sends on and [`Gate`] what it receives from; whether there is a network in between is
//! nothing to it. `outlet` → `dial` … `service` → `inlet` is the way over the network, `codec` the form on it.

mod channel;
mod codec;
mod dial;
mod inlet;
mod link;
mod local;
mod outlet;
mod partition;
mod peers;
mod registry;
mod remote;
mod service;

pub use channel::{Channel, SendError};
pub use codec::{Compression, Encoder};
pub use inlet::Inlet;
pub use link::compression;
pub use local::{Closed, Gate, Received, Sender, gate};
pub use outlet::{Outlet, Remote};
pub use partition::Partitioner;
pub use registry::{Inbound, Incoming, Registration};
pub use remote::{Dial, Exchange};
pub use service::Timing;
