//! Bytes to columns and back. Decoders fill their own column builders straight from the input; what they read, and
//! from which file, is the connector's business.

mod column;
pub mod csv;
pub mod decode;
pub mod encode;
pub mod json;
mod scalar;

use crate::error::{Error, Result};
use arrow_array::ArrayRef;
use ef_proto::schema::Field;

pub use decode::{DecodeError, Decoded, Decoder, ErrorRows, Nulled, Stop, decoder};

/// A column of `rows` times the value that `text` stands for: METADATA columns.
pub(crate) fn constant(field: &Field, text: &str, rows: usize) -> Result<ArrayRef> {
    let mut column = column::Column::new(field)?;
    for _ in 0..rows {
        if !scalar::append(&mut column, text.as_bytes()) {
            return Err(Error::invalid(format!("column \"{}\": {} cannot hold {text}", field.name, field.ty)));
        }
    }
    column.finish()
}
