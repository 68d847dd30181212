//! `protobuf`: a row as a message. A NULL is a field that is left out; in arrays and maps, which have no place for it,
//! it is the default of its type, or the text of `'protobuf.write-null-string-literal'`.

use super::view::{Values, View};
use crate::error::{Error, Result};
use crate::format::protobuf::{compile, wire};
use crate::time::civil;
use arrow_array::RecordBatch;
use ef_proto::connector::Protobuf;
use ef_proto::connector::protobuf::{Kind, Message, MessageField, Shape};
use ef_proto::schema::{Schema, Unit};

pub(super) struct Encoder {
    message: Message,
    schema: Schema,
    null_string: String,
}

impl Encoder {
    pub fn new(options: &Protobuf, schema: &Schema) -> Result<Encoder> {
        let message = compile(schema, options)?;
        Ok(Encoder { message, schema: schema.clone(), null_string: options.null_string.clone() })
    }
}

impl super::Encoder for Encoder {
    fn write(&mut self, batch: &RecordBatch, out: &mut Vec<u8>, end: &mut dyn FnMut(&mut Vec<u8>)) -> Result<()> {
        let columns = batch.columns().iter().zip(&self.schema.fields);
        let views: Vec<View> = columns.map(|(column, field)| View::new(column, &field.ty)).collect::<Result<_>>()?;
        let writer = Writer { null_string: &self.null_string };
        for row in 0..batch.num_rows() {
            let written = writer.message(&self.message, &views, row, out);
            written
                .map_err(|Fault { field, reason }| Error::invalid(format!("protobuf: column \"{field}\": {reason}")))?;
            end(out);
        }
        Ok(())
    }

    fn encode(&mut self, _: &RecordBatch, _: &mut Vec<u8>) -> Result<()> {
        Err(Error::invalid("format 'protobuf' is for messages, not for lines of files"))
    }
}

struct Fault {
    field: String,
    reason: String,
}

type Written = std::result::Result<(), Fault>;

fn fault(reason: String) -> Fault {
    Fault { field: String::new(), reason }
}

struct Writer<'a> {
    null_string: &'a str,
}

impl Writer<'_> {
    fn message(&self, message: &Message, views: &[View], row: usize, out: &mut Vec<u8>) -> Written {
        for (field, view) in message.fields.iter().zip(views) {
            if view.is_null(row) {
                continue;
            }
            self.field(field, view, row, out).map_err(|Fault { field: below, reason }| {
                let dot = if below.is_empty() { "" } else { "." };
                Fault { field: format!("{}{dot}{below}", field.name), reason }
            })?;
        }
        Ok(())
    }

    fn field(&self, field: &MessageField, view: &View, row: usize, out: &mut Vec<u8>) -> Written {
        match &field.shape {
            Shape::Single { kind, presence, .. } => {
                let start = out.len();
                tag(field.number, kind, out);
                let value = out.len();
                self.value(kind, view, row, out)?;
                // A number of zero, an empty text: what it is when it is left out.
                if !presence && out[value..].iter().all(|byte| *byte == 0) {
                    out.truncate(start);
                }
            }
            Shape::Repeated { kind, packed } => {
                let Values::Array(offsets, items) = &view.values else { return Err(mismatch()) };
                let range = offsets[row] as usize..offsets[row + 1] as usize;
                if *packed {
                    if range.is_empty() {
                        return Ok(());
                    }
                    write_tag(field.number, wire::SPAN, out);
                    return spanned(out, |out| {
                        range.into_iter().try_for_each(|item| self.item(kind, items, item, out))
                    });
                }
                for item in range {
                    tag(field.number, kind, out);
                    self.item(kind, items, item, out)?;
                }
            }
            Shape::Map { key, value } => {
                let Values::Map(offsets, keys, values) = &view.values else { return Err(mismatch()) };
                for entry in offsets[row] as usize..offsets[row + 1] as usize {
                    write_tag(field.number, wire::SPAN, out);
                    spanned(out, |out| {
                        tag(1, key, out);
                        self.item(key, keys, entry, out)?;
                        tag(2, value, out);
                        self.item(value, values, entry, out)
                    })?;
                }
            }
        }
        Ok(())
    }

    /// A value that must be there.
    fn item(&self, kind: &Kind, view: &View, row: usize, out: &mut Vec<u8>) -> Written {
        if !view.is_null(row) {
            return self.value(kind, view, row, out);
        }
        match kind {
            Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => out.extend_from_slice(&[0; 8]),
            Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => out.extend_from_slice(&[0; 4]),
            Kind::String => {
                wire::write_varint(out, self.null_string.len() as u64);
                out.extend_from_slice(self.null_string.as_bytes());
            }
            Kind::Enum(values) => {
                let first = values.first().map_or(0, |(number, _)| *number);
                wire::write_varint(out, i64::from(first) as u64);
            }
            _ => out.push(0),
        }
        Ok(())
    }

    fn value(&self, kind: &Kind, view: &View, row: usize, out: &mut Vec<u8>) -> Written {
        match (kind, &view.values) {
            (Kind::Bool, Values::Boolean(v)) => out.push(v.value(row) as u8),
            (Kind::Double, Values::Float64(v)) => out.extend_from_slice(&v[row].to_le_bytes()),
            (Kind::Float, Values::Float32(v)) => out.extend_from_slice(&v[row].to_le_bytes()),
            (Kind::Float, Values::Float64(v)) => out.extend_from_slice(&(v[row] as f32).to_le_bytes()),
            (Kind::String, Values::String(v)) => {
                let text = v.value(row).as_bytes();
                wire::write_varint(out, text.len() as u64);
                out.extend_from_slice(text);
            }
            (Kind::Bytes, Values::Bytes(v)) => {
                let bytes = v.value(row);
                wire::write_varint(out, bytes.len() as u64);
                out.extend_from_slice(bytes);
            }
            (Kind::Enum(values), Values::String(v)) => {
                wire::write_varint(out, i64::from(number_of(values, v.value(row))?) as u64);
            }
            (Kind::Message(message), Values::Row(views)) => {
                return spanned(out, |out| self.message(message, views, row, out));
            }
            (Kind::Timestamp, Values::Timestamp(v, unit, _)) => {
                return spanned(out, |out| {
                    timestamp(v[row], *unit, out);
                    Ok(())
                });
            }
            (kind, values) => return integer(kind, whole(values, row).ok_or_else(mismatch)?, out),
        }
        Ok(())
    }
}

fn mismatch() -> Fault {
    fault("a column of another type arrived at the encoder".into())
}

fn whole(values: &Values, row: usize) -> Option<i64> {
    Some(match values {
        Values::Int8(v) => v[row].into(),
        Values::Int16(v) => v[row].into(),
        Values::Int32(v) => v[row].into(),
        Values::Int64(v) => v[row],
        _ => return None,
    })
}

fn integer(kind: &Kind, value: i64, out: &mut Vec<u8>) -> Written {
    let refused = |name: &str| fault(format!("{value} does not fit {name}"));
    let small = |name| i32::try_from(value).map_err(|_| refused(name));
    let unsigned = |name| u32::try_from(value).map_err(|_| refused(name));
    let positive = |name| u64::try_from(value).map_err(|_| refused(name));
    match kind {
        Kind::Int32 => wire::write_varint(out, i64::from(small("int32")?) as u64),
        Kind::Int64 => wire::write_varint(out, value as u64),
        Kind::Uint32 => wire::write_varint(out, unsigned("uint32")?.into()),
        Kind::Uint64 => wire::write_varint(out, positive("uint64")?),
        Kind::Sint32 => wire::write_varint(out, wire::zigzag(small("sint32")?.into())),
        Kind::Sint64 => wire::write_varint(out, wire::zigzag(value)),
        Kind::Fixed32 => out.extend_from_slice(&unsigned("fixed32")?.to_le_bytes()),
        Kind::Fixed64 => out.extend_from_slice(&positive("fixed64")?.to_le_bytes()),
        Kind::Sfixed32 => out.extend_from_slice(&small("sfixed32")?.to_le_bytes()),
        Kind::Sfixed64 => out.extend_from_slice(&value.to_le_bytes()),
        Kind::Enum(_) => wire::write_varint(out, i64::from(small("an enum")?) as u64),
        _ => return Err(mismatch()),
    }
    Ok(())
}

/// The number of an enum's name, or the number that the text is.
fn number_of(values: &[(i32, String)], text: &str) -> std::result::Result<i32, Fault> {
    let named = values.iter().find(|(_, name)| name == text).map(|(number, _)| *number);
    named.or_else(|| text.parse().ok()).ok_or_else(|| {
        let names: Vec<&str> = values.iter().map(|(_, name)| name.as_str()).take(20).collect();
        let shown: String = text.chars().take(40).collect();
        fault(format!("found '{shown}', expected {}", names.join(", ")))
    })
}

fn timestamp(ticks: i64, unit: Unit, out: &mut Vec<u8>) {
    let (seconds, nanos) = civil::split(ticks, unit);
    for (number, value) in [(1, seconds as u64), (2, u64::from(nanos))] {
        if value != 0 {
            write_tag(number, wire::VARINT, out);
            wire::write_varint(out, value);
        }
    }
}

fn tag(number: u32, kind: &Kind, out: &mut Vec<u8>) {
    let wire_type = match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => wire::FIXED64,
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => wire::FIXED32,
        Kind::String | Kind::Bytes | Kind::Message(_) | Kind::Timestamp => wire::SPAN,
        _ => wire::VARINT,
    };
    write_tag(number, wire_type, out);
}

fn write_tag(number: u32, wire_type: u8, out: &mut Vec<u8>) {
    wire::write_varint(out, u64::from(number) << 3 | u64::from(wire_type));
}

/// What `write` appends, with its length before it: in the one byte that is enough for most.
fn spanned(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Written) -> Written {
    let at = out.len();
    out.push(0);
    write(out)?;
    let length = out.len() - at - 1;
    if length < 0x80 {
        out[at] = length as u8;
        return Ok(());
    }
    let mut prefix = Vec::with_capacity(10);
    wire::write_varint(&mut prefix, length as u64);
    out.splice(at..at + 1, prefix);
    Ok(())
}
