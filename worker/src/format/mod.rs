//! Bytes to columns and back. Decoders fill their own column builders straight from the input; what they read, and
//! from which file, is the connector's business.

pub mod encode;
