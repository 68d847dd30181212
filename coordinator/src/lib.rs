//! EdgeFlow's JobManager: plans SQL into an operator graph, keeps the manifests of its checkpoints, and leads the job.
//! Knows no rows: what a worker runs is an `ef_proto::plan::Plan`.

pub mod api;
pub mod leader;
pub mod manifests;
pub mod planner;
pub mod solo;
pub mod workers;
