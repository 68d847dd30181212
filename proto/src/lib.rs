//! What two EdgeFlow processes must agree on: ids, types, typed expressions, connector options, the operator
//! graph, key groups, the checkpoint manifest, a job's options and the pure checkpoint machine.
//!
//! Nothing here reads a clock, a file or the network. Every type that crosses a process has its protobuf
//! conversion in `wire`, and a round-trip test.

pub mod checkpoint;
pub mod connector;
pub mod error;
pub mod expr;
pub mod function;
pub mod ids;
pub mod job_config;
pub mod keys;
pub mod machine;
pub mod place;
pub mod plan;
pub mod rpc;
pub mod schema;
pub mod secret;
pub mod wire;
