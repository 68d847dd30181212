//! The JobManager as a library: the planner.

pub mod planner;
