//! Workloads that the benches share: a sensor file, the SQL of each query, and single operators of a planned job.

pub mod sensor;
pub mod sql;
pub mod stage;
