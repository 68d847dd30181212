//! How rows travel between tasks: partitioning by key group, and bounded channels inside the process.

mod local;
mod partition;

pub use local::{Closed, Gate, Received, Sender, gate};
pub use partition::Partitioner;
