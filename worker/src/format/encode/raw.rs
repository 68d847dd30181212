//! `raw`: the only column's value is the payload; NULL is an empty one.

use super::view::{Values, View};
use crate::error::{Error, Result};
use arrow_array::RecordBatch;
use ef_proto::connector::Raw;
use ef_proto::error::Code;
use ef_proto::schema::{Field, Schema};

pub(super) struct Encoder {
    big_endian: bool,
    fields: Vec<Field>,
}

impl Encoder {
    pub fn new(options: &Raw, schema: &Schema) -> Encoder {
        Encoder { big_endian: options.big_endian, fields: schema.fields.clone() }
    }
}

impl super::Encoder for Encoder {
    fn write(&mut self, batch: &RecordBatch, out: &mut Vec<u8>, end: &mut dyn FnMut(&mut Vec<u8>)) -> Result<()> {
        let [field] = &self.fields[..] else {
            return Err(Error::invalid(format!("format 'raw' is one column, found {}", self.fields.len())));
        };
        let view = View::new(batch.column(0), &field.ty)?;
        let big = self.big_endian;
        macro_rules! number {
            ($out:expr, $value:expr) => {
                $out.extend_from_slice(&if big { $value.to_be_bytes() } else { $value.to_le_bytes() })
            };
        }
        for row in 0..batch.num_rows() {
            if !view.is_null(row) {
                match &view.values {
                    Values::String(v) => out.extend_from_slice(v.value(row).as_bytes()),
                    Values::Bytes(v) => out.extend_from_slice(v.value(row)),
                    Values::Boolean(v) => out.push(v.value(row) as u8),
                    Values::Int8(v) => number!(out, v[row]),
                    Values::Int16(v) => number!(out, v[row]),
                    Values::Int32(v) => number!(out, v[row]),
                    Values::Int64(v) => number!(out, v[row]),
                    Values::Float32(v) => number!(out, v[row]),
                    Values::Float64(v) => number!(out, v[row]),
                    _ => {
                        let what = format!("column `{}`: format 'raw' cannot hold {}", field.name, field.ty);
                        return Err(Error::new(Code::Internal, what));
                    }
                }
            }
            end(out);
        }
        Ok(())
    }

    fn encode(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        let mut at = out.len();
        let mut broken = false;
        self.write(batch, out, &mut |out| {
            broken |= memchr::memchr(b'\n', &out[at..]).is_some();
            out.push(b'\n');
            at = out.len();
        })?;
        if broken {
            let what = format!("raw: a value of column `{}` has a line end, and is to be a line", self.fields[0].name);
            return Err(Error::new(Code::Invalid, what));
        }
        Ok(())
    }
}
