//! Bytes to columns and back. Decoders fill their own column builders straight from the input; what they read, and
//! from which file, is the connector's business.

mod avro;
mod column;
pub mod csv;
pub mod decode;
pub mod encode;
pub mod json;
mod protobuf;
mod raw;
mod records;
mod scalar;

use crate::error::{Error, Result};
use arrow_array::ArrayRef;
use ef_proto::schema::Field;

pub use avro::{RegistryError, SchemaRegistry};
#[cfg(feature = "kafka")]
pub(crate) use column::{Column, Values};
pub use decode::{DecodeError, Decoded, Decoder, ErrorRows, Nulled, Stop, decoder, registered};

/// The column of the values that these texts stand for; None: NULL. Err: the place of the first that stands for none.
pub(crate) fn of_texts(field: &Field, texts: &[Option<&[u8]>]) -> Result<std::result::Result<ArrayRef, usize>> {
    let mut column = column::Column::new(field)?;
    for (at, text) in texts.iter().enumerate() {
        match text {
            Some(text) if scalar::append(&mut column, text) => {}
            None if field.nullable => column.nulls(1),
            _ => return Ok(Err(at)),
        }
    }
    column.finish().map(Ok)
}

/// What a value of this type is written as, for messages.
pub(crate) fn expected(ty: &ef_proto::schema::DataType) -> &'static str {
    scalar::expected(ty)
}

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
