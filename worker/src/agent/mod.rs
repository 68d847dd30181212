//! The mailbox between the coordinator and this worker's tasks. An agent (`run`) deploys, carries checkpoint messages
//! both ways, uploads snapshots, cancels; it holds no rules: tasks align, the coordinator decides. In a cluster one
//! host (`host`) keeps the agents of a worker, by the rules of its session with the coordinator (`session`).

mod deploy;
mod home;
mod host;
mod link;
mod logs;
mod run;
mod scratch;
mod session;
#[cfg(test)]
mod testing;
mod wiring;

/// The session's rules, for the simulator.
pub mod rules {
    pub use super::session::{Action, Event, LEAVE_MS, Session};
}

pub use home::{Home, check_id, nonce};
pub use host::Host;
pub use logs::Logs;
pub use run::{Agent, AgentHandle, Means};
