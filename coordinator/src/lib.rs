//! EdgeFlow's JobManager: plans SQL into an operator graph, keeps the manifests of its checkpoints, and leads the jobs.
//! Knows no rows: what a worker runs is an `ef_proto::plan::Plan`.

pub mod api;
pub mod leader;
pub mod manifests;
pub mod meta;
pub mod planner;
pub mod raft;
pub mod scheduler;
pub mod solo;
pub mod workers;
