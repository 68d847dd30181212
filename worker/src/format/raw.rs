//! `raw`: the payload is the value of the only column. Text is UTF-8, numbers have their width in either byte order,
//! and an empty payload is NULL where it is no value.

use super::column::{Column, Values};
use super::records::{NulledFields, Parse, Record, Records, problem};
use crate::error::{Error, Result};
use ef_proto::connector;
use ef_proto::schema::Schema;

pub(crate) struct Raw {
    big_endian: bool,
}

pub(crate) fn decoder(schema: &Schema, options: &connector::Raw) -> Result<Records<Raw>> {
    if schema.len() != 1 {
        return Err(Error::invalid(format!("format 'raw' is one column, found {}", schema.len())));
    }
    Records::new(Raw { big_endian: options.big_endian }, schema, options.on_error)
}

impl Record for Raw {
    const LINES: std::result::Result<(), &'static str> = Ok(());

    fn append(&mut self, payload: &[u8], columns: &mut [Column], _: usize, _: &mut NulledFields) -> Parse<usize> {
        let column = &mut columns[0];
        self.value(column, payload).map_err(|problem| problem.within(&column.name))?;
        Ok(1)
    }
}

impl Raw {
    fn value(&self, column: &mut Column, payload: &[u8]) -> Parse<()> {
        macro_rules! number {
            ($values:expr, $ty:ty) => {{
                let Ok(bytes) = payload.try_into() else {
                    let width = size_of::<$ty>();
                    let bytes = if width == 1 { "byte" } else { "bytes" };
                    return Err(problem(format!("expected {width} {bytes}, found {}", payload.len())));
                };
                $values.push(if self.big_endian { <$ty>::from_be_bytes(bytes) } else { <$ty>::from_le_bytes(bytes) });
            }};
        }
        if payload.is_empty() && column.nullable && !matches!(column.values, Values::String(_) | Values::Bytes(_)) {
            column.nulls(1);
            return Ok(());
        }
        match &mut column.values {
            Values::String(text) => {
                std::str::from_utf8(payload).map_err(|e| problem(format!("expected UTF-8: {e}")))?;
                text.bytes.extend_from_slice(payload);
                text.end();
            }
            Values::Bytes(bytes) => {
                bytes.bytes.extend_from_slice(payload);
                bytes.end();
            }
            Values::Boolean(bits) => match payload {
                [byte] => bits.push(*byte != 0),
                _ => return Err(problem(format!("expected 1 byte, found {}", payload.len()))),
            },
            Values::Int8(values) => number!(values, i8),
            Values::Int16(values) => number!(values, i16),
            Values::Int32(values) => number!(values, i32),
            Values::Int64(values) => number!(values, i64),
            Values::Float32(values) => number!(values, f32),
            Values::Float64(values) => number!(values, f64),
            _ => return Err(problem(format!("format 'raw' cannot hold {}", column.ty))),
        }
        column.valid();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
