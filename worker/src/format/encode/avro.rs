//! `avro`: a row as a binary datum of the schema that follows from the columns; `avro-confluent`: behind the id that
//! the registry has given to that schema.

use super::view::{Values, View};
use crate::error::{Error, Result};
use crate::format::avro::MAGIC;
use crate::format::avro::wire::{write_bytes, write_long};
use arrow_array::RecordBatch;
use ef_proto::error::Code;
use ef_proto::schema::{DataType, Field, Schema};

pub(super) struct Encoder {
    /// What each record opens with.
    prefix: Vec<u8>,
    schema: Schema,
}

impl Encoder {
    pub fn new(schema: &Schema) -> Encoder {
        Encoder { prefix: Vec::new(), schema: schema.clone() }
    }

    pub fn registered(schema: &Schema, id: u32) -> Encoder {
        Encoder { prefix: [&[MAGIC][..], &id.to_be_bytes()].concat(), schema: schema.clone() }
    }
}

impl super::Encoder for Encoder {
    fn write(&mut self, batch: &RecordBatch, out: &mut Vec<u8>, end: &mut dyn FnMut(&mut Vec<u8>)) -> Result<()> {
        let columns = batch.columns().iter().zip(&self.schema.fields);
        let views: Vec<View> = columns.map(|(column, field)| View::new(column, &field.ty)).collect::<Result<_>>()?;
        for row in 0..batch.num_rows() {
            out.extend_from_slice(&self.prefix);
            write_row(&self.schema.fields, &views, row, out)?;
            end(out);
        }
        Ok(())
    }

    fn encode(&mut self, _: &RecordBatch, _: &mut Vec<u8>) -> Result<()> {
        Err(Error::invalid("format 'avro' is for messages, not for lines of files"))
    }
}

fn write_row(fields: &[Field], views: &[View], row: usize, out: &mut Vec<u8>) -> Result<()> {
    for (field, view) in fields.iter().zip(views) {
        if field.nullable {
            write_nullable(&field.ty, view, row, out)?;
        } else if view.is_null(row) {
            let what = format!("avro: column \"{}\": null, and the column is NOT NULL", field.name);
            return Err(Error::invalid(what));
        } else {
            write_value(&field.ty, view, row, out)?;
        }
    }
    Ok(())
}

/// A union of null and the type.
fn write_nullable(ty: &DataType, view: &View, row: usize, out: &mut Vec<u8>) -> Result<()> {
    if view.is_null(row) {
        out.push(0);
        return Ok(());
    }
    out.push(2);
    write_value(ty, view, row, out)
}

fn write_value(ty: &DataType, view: &View, row: usize, out: &mut Vec<u8>) -> Result<()> {
    match (&view.values, ty) {
        (Values::Boolean(v), _) => out.push(v.value(row) as u8),
        (Values::Int8(v), _) => write_long(out, v[row].into()),
        (Values::Int16(v), _) => write_long(out, v[row].into()),
        (Values::Int32(v) | Values::Date(v) | Values::Time(v), _) => write_long(out, v[row].into()),
        (Values::Int64(v) | Values::Timestamp(v, ..), _) => write_long(out, v[row]),
        (Values::Float32(v), _) => out.extend_from_slice(&v[row].to_le_bytes()),
        (Values::Float64(v), _) => out.extend_from_slice(&v[row].to_le_bytes()),
        (Values::Decimal(v, _), _) => write_bytes(out, shortest(&v[row].to_be_bytes())),
        (Values::String(v), _) => write_bytes(out, v.value(row).as_bytes()),
        (Values::Bytes(v), _) => write_bytes(out, v.value(row)),
        (Values::Row(views), DataType::Row(fields)) => return write_row(fields, views, row, out),
        (Values::Array(offsets, items), DataType::Array(item)) => {
            let range = offsets[row] as usize..offsets[row + 1] as usize;
            if !range.is_empty() {
                write_long(out, range.len() as i64);
                range.into_iter().try_for_each(|at| write_nullable(item, items, at, out))?;
            }
            out.push(0);
        }
        (Values::Map(offsets, keys, values), DataType::Map(key, value)) => {
            let range = offsets[row] as usize..offsets[row + 1] as usize;
            if !range.is_empty() {
                write_long(out, range.len() as i64);
                for at in range {
                    write_value(key, keys, at, out)?;
                    write_nullable(value, values, at, out)?;
                }
            }
            out.push(0);
        }
        _ => return Err(Error::new(Code::Internal, format!("format 'avro' cannot hold {ty}"))),
    }
    Ok(())
}

/// Without the bytes that only repeat the sign.
fn shortest(bytes: &[u8; 16]) -> &[u8] {
    let sign = if bytes[0] & 0x80 != 0 { 0xff } else { 0 };
    let spare = bytes.windows(2).take_while(|pair| pair[0] == sign && (pair[1] ^ sign) & 0x80 == 0).count();
    &bytes[spare..]
}
