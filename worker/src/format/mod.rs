//! Bytes to columns and back. Decoders fill their own column builders straight from the input; what they read, and
//! from which file, is the connector's business.

mod column;
pub mod csv;
pub mod decode;
pub mod json;
mod scalar;

pub use decode::{DecodeError, Decoded, Decoder, ErrorRows, Stop, decoder};
