//! EdgeFlow's TaskManager: runs the subtasks of an operator graph over Arrow batches, keeps their keyed state and
//! takes part in checkpoints. Knows no SQL; what to run comes as an `ef_proto::plan::Plan`.

pub mod agent;
pub mod barrier;
pub mod clock;
pub mod config;
pub mod connector;
pub mod error;
pub mod exchange;
pub mod expr;
pub mod format;
pub mod frame;
pub mod keys;
pub mod lookup;
pub mod metrics;
pub mod model;
pub mod operator;
pub mod resources;
pub mod secrets;
pub mod state;
pub mod task;
#[cfg(test)]
mod testing;
pub mod time;
