//! The mailbox between the coordinator and this worker's tasks: deploys, carries checkpoint messages both ways,
//! uploads snapshots, cancels. Holds no rules: tasks align, the coordinator decides.

mod deploy;
mod run;
mod scratch;
mod wiring;

pub use run::{Agent, AgentHandle};
