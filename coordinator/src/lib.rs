//! EdgeFlow's JobManager: the planner, checkpoint manifests, the leader's mailbox.

pub mod manifests;
