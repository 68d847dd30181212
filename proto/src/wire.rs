//! Protobuf forms of the types that are stored or cross a process. Encoding cannot fail; decoding checks everything
//! that the types promise, and says which field is wrong.

mod checkpoint;
mod connector;
mod enumeration;
mod expr;
mod fault;
mod frame;
mod kafka;
mod kafka_sink;
mod lookup;
mod mqtt;
mod operator;
mod plan;
mod records;
mod rpc;
mod schema;
mod sinks;
mod status;
#[cfg(test)]
mod tests;
mod window;
pub use fault::Fault;
pub(crate) use frame::Frame;
pub use plan::BYTES_MAX;
pub use status::{CODE_KEY, code_name};

/// What prost makes of `proto/proto/*.proto`.
#[expect(clippy::large_enum_variant, reason = "what prost makes is not ours to box")]
pub mod generated {
    pub mod agent {
        include!(concat!(env!("OUT_DIR"), "/edgeflow.agent.v1.rs"));
    }
    pub mod checkpoint {
        include!(concat!(env!("OUT_DIR"), "/edgeflow.checkpoint.v1.rs"));
    }
    pub mod control {
        include!(concat!(env!("OUT_DIR"), "/edgeflow.control.v1.rs"));
    }
    pub mod exchange {
        include!(concat!(env!("OUT_DIR"), "/edgeflow.exchange.v1.rs"));
    }
    pub mod plan {
        include!(concat!(env!("OUT_DIR"), "/edgeflow.plan.v1.rs"));
    }
}
