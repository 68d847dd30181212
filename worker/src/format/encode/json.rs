//! One JSON object a row, with every column of the table: NULL is written as `null`.
//!
//! Decimals are written with all their digits as numbers, bytes as base64, NaN and the infinities as strings (as
//! Jackson does), map keys as strings.

use super::view::{self, Values, View};
use crate::error::{Error, Result};
use crate::time::civil::{Fraction, write_date, write_time, write_timestamp};
use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::Int8Type;
use ef_proto::connector::{Json, TimestampFormat};
use ef_proto::error::Code;
use ef_proto::schema::{DataType, Field, RowKind, Schema};

pub(super) struct Encoder {
    object: Object,
    /// `{"_op":"+I",` … for the row kinds, when `_op` is shown.
    with_op: bool,
}

impl Encoder {
    pub fn new(options: &Json, schema: &Schema) -> Encoder {
        Encoder { object: Object::new(options.timestamps, schema), with_op: false }
    }

    pub fn for_people(schema: &Schema, changelog: bool) -> Encoder {
        Encoder { object: Object::new(TimestampFormat::Sql, schema), with_op: changelog }
    }
}

impl super::Encoder for Encoder {
    fn write(&mut self, batch: &RecordBatch, out: &mut Vec<u8>, end: &mut dyn FnMut(&mut Vec<u8>)) -> Result<()> {
        let views = self.object.views(batch)?;
        let kinds = if self.with_op { Some(kinds(batch)?) } else { None };
        for row in 0..batch.num_rows() {
            let before = out.len();
            self.object.write(&views, row, out);
            if let Some(kinds) = kinds {
                // A row for people to read; the shift is cheap beside a terminal.
                let op =
                    format!("{{\"_op\":\"{}\"{}", kind(kinds[row])?.short(), if views.is_empty() { "" } else { "," });
                out.splice(before..before + 1, op.into_bytes());
            }
            end(out);
        }
        Ok(())
    }
}

/// The `_op` column of a changelog batch.
pub(crate) fn kinds(batch: &RecordBatch) -> Result<&[i8]> {
    let last = batch.columns().last().and_then(|column| column.as_primitive_opt::<Int8Type>());
    let last = last.ok_or_else(|| Error::new(Code::Internal, "a changelog batch has no `_op` column"))?;
    Ok(last.values())
}

pub(crate) fn kind(op: i8) -> Result<RowKind> {
    RowKind::from_i8(op).ok_or_else(|| Error::new(Code::Internal, format!("{op} is no row kind")))
}

/// A row's object: keys escaped once, values written by shape.
pub(super) struct Object {
    types: Vec<DataType>,
    shape: Shape,
    timestamps: TimestampFormat,
}

enum Shape {
    Scalar,
    /// `{"first":`, `,"second":` …
    Row(Vec<(Vec<u8>, Shape)>),
    Array(Box<Shape>),
    Map(Box<Shape>),
}

impl Shape {
    fn of(ty: &DataType) -> Shape {
        match ty {
            DataType::Row(fields) => Shape::row(fields),
            DataType::Array(item) => Shape::Array(Box::new(Shape::of(item))),
            DataType::Map(_, value) => Shape::Map(Box::new(Shape::of(value))),
            _ => Shape::Scalar,
        }
    }

    fn row(fields: &[Field]) -> Shape {
        let keys = fields.iter().enumerate().map(|(i, field)| {
            let mut key = vec![if i == 0 { b'{' } else { b',' }];
            write_string(&mut key, &field.name);
            key.push(b':');
            (key, Shape::of(&field.ty))
        });
        Shape::Row(keys.collect())
    }
}

impl Object {
    pub fn new(timestamps: TimestampFormat, schema: &Schema) -> Object {
        let types = schema.fields.iter().map(|field| field.ty.clone()).collect();
        Object { types, shape: Shape::row(&schema.fields), timestamps }
    }

    pub fn views<'a>(&self, batch: &'a RecordBatch) -> Result<Vec<View<'a>>> {
        batch.columns().iter().zip(&self.types).map(|(column, ty)| View::new(column, ty)).collect()
    }

    #[inline]
    pub fn write(&self, views: &[View<'_>], row: usize, out: &mut Vec<u8>) {
        self.write_row(views, &self.shape, row, out);
    }

    /// The value of one column, which `view` is of.
    pub fn write_field(&self, view: &View<'_>, column: usize, row: usize, out: &mut Vec<u8>) {
        let Shape::Row(columns) = &self.shape else { unreachable!("the shape of a row is made from its type") };
        self.write_value(view, &columns[column].1, row, out);
    }

    fn write_row(&self, views: &[View<'_>], shape: &Shape, row: usize, out: &mut Vec<u8>) {
        let Shape::Row(keys) = shape else { unreachable!("the shape of a row is made from its type") };
        if keys.is_empty() {
            out.push(b'{');
        }
        for (view, (key, shape)) in views.iter().zip(keys) {
            out.extend_from_slice(key);
            self.write_value(view, shape, row, out);
        }
        out.push(b'}');
    }

    #[inline]
    fn write_value(&self, view: &View<'_>, shape: &Shape, row: usize, out: &mut Vec<u8>) {
        if view.is_null(row) {
            return out.extend_from_slice(b"null");
        }
        match &view.values {
            Values::Null => out.extend_from_slice(b"null"),
            Values::Boolean(v) => out.extend_from_slice(if v.value(row) { b"true" } else { b"false" }),
            Values::Int8(v) => view::write_integer(out, v[row]),
            Values::Int16(v) => view::write_integer(out, v[row]),
            Values::Int32(v) => view::write_integer(out, v[row]),
            Values::Int64(v) => view::write_integer(out, v[row]),
            Values::Float32(v) => quoted(out, !v[row].is_finite(), |out| view::write_float(out, v[row])),
            Values::Float64(v) => quoted(out, !v[row].is_finite(), |out| view::write_double(out, v[row])),
            Values::Decimal(v, scale) => view::write_decimal(out, v[row], *scale),
            Values::String(v) => write_string(out, v.value(row)),
            Values::Bytes(v) => quoted(out, true, |out| view::write_base64(out, v.value(row))),
            Values::Date(v) => quoted(out, true, |out| write_date(out, v[row] as i64)),
            Values::Time(v) => quoted(out, true, |out| write_time(out, v[row], Fraction::Short)),
            Values::Timestamp(v, unit, instant) => quoted(out, true, |out| {
                let separator = if self.timestamps == TimestampFormat::Sql { b' ' } else { b'T' };
                write_timestamp(out, v[row], *unit, separator, Fraction::Full);
                if *instant {
                    out.push(b'Z');
                }
            }),
            Values::Row(columns) => self.write_row(columns, shape, row, out),
            Values::Array(offsets, items) => {
                let Shape::Array(shape) = shape else { unreachable!("the shape of an array is made from its type") };
                out.push(b'[');
                for item in offsets[row] as usize..offsets[row + 1] as usize {
                    if item > offsets[row] as usize {
                        out.push(b',');
                    }
                    self.write_value(items, shape, item, out);
                }
                out.push(b']');
            }
            Values::Map(offsets, keys, values) => {
                let Shape::Map(shape) = shape else { unreachable!("the shape of a map is made from its type") };
                out.push(b'{');
                for entry in offsets[row] as usize..offsets[row + 1] as usize {
                    if entry > offsets[row] as usize {
                        out.push(b',');
                    }
                    let start = out.len();
                    self.write_value(keys, &Shape::Scalar, entry, out);
                    if out[start] != b'"' {
                        out.insert(start, b'"');
                        out.push(b'"');
                    }
                    out.push(b':');
                    self.write_value(values, shape, entry, out);
                }
                out.push(b'}');
            }
        }
    }
}

#[inline(always)]
fn quoted(out: &mut Vec<u8>, quotes: bool, write: impl FnOnce(&mut Vec<u8>)) {
    if !quotes {
        return write(out);
    }
    out.push(b'"');
    write(out);
    out.push(b'"');
}

/// A JSON string with its quotes. Runs without anything to escape are copied whole.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    let mut copied = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[copied..at]);
        copied = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            other => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[(other >> 4) as usize], HEX[(other & 15) as usize]]);
            }
        }
    }
    out.extend_from_slice(&bytes[copied..]);
    out.push(b'"');
}
