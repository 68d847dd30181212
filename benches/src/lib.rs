//! Workloads that the benches share: a sensor file and the SQL of each query.

pub mod sensor;
pub mod sql;
