//! Protobuf forms of the types that are stored or cross a process. Encoding cannot fail; decoding checks everything
//! that the types promise, and says which field is wrong.

mod checkpoint;

/// What prost makes of `proto/proto/*.proto`.
pub mod generated {
    pub mod checkpoint {
        include!(concat!(env!("OUT_DIR"), "/edgeflow.checkpoint.v1.rs"));
    }
}
