//! `protobuf`: a message straight into columns, driven by the fields that the plan's descriptor has for them.
//!
//! One pass over the wire notes where the last value of every field is (items of ARRAYs are appended at once), a second
//! over the columns appends them: what comes twice, in any order, or not at all costs nothing extra. Fields without a
//! column are passed over; a field whose wire type is another than its own is an error, as are groups. Nothing is
//! allocated by what a length says before as many bytes have been seen.

use super::column::{Column, Values};
use super::records::{NulledFields, Parse, Record, Records, problem};
use crate::error::{Error, Result};
use crate::time::civil;
use ef_proto::connector::protobuf::{self, Message, Unset};
use ef_proto::connector::{OnError, Protobuf as Options};
use ef_proto::schema::{Schema, Unit};
use layout::{Layout, Target};
use std::collections::HashMap;
use wire::Wire;

mod layout;
#[cfg(test)]
mod tests;
pub(super) mod wire;

/// Entries of a MAP that are compared one with another; more are hashed.
const SMALL_MAP: usize = 8;

pub(crate) struct Protobuf {
    layout: Layout,
    scratch: Scratch,
}

pub(crate) fn decoder(schema: &Schema, options: &Options) -> Result<Records<Protobuf>> {
    let layout = Layout::new(&compile(schema, options)?, options.read_defaults);
    // Of a message with a bad field no other field can be trusted: there is nothing to make NULL.
    let on_error = if options.on_error == OnError::Null { OnError::Skip } else { options.on_error };
    Records::new(Protobuf { layout, scratch: Scratch::default() }, schema, on_error)
}

pub(super) fn compile(schema: &Schema, options: &Options) -> Result<Message> {
    protobuf::compile(&options.descriptor, &options.message, schema)
        .map_err(|what| Error::invalid(format!("protobuf message '{}': {what}", options.message)))
}

/// What a message has for a field.
#[derive(Clone, Copy, Debug, Default)]
enum Slot {
    #[default]
    Nothing,
    Number(u64),
    /// Of the message's bytes.
    Span(usize, usize),
    /// In `Scratch::merged`: a message that came in parts.
    Merged(usize),
}

/// An entry of a MAP: of which field, and where it is.
type Entry = (usize, usize, usize);

#[derive(Default)]
struct Scratch {
    slots: Vec<Slot>,
    entries: Vec<Entry>,
    merged: Vec<Vec<u8>>,
}

impl Record for Protobuf {
    const LINES: std::result::Result<(), &'static str> =
        Err("format 'protobuf' is for messages, not for lines of files");

    fn append(&mut self, payload: &[u8], columns: &mut [Column], rows: usize, _: &mut NulledFields) -> Parse<usize> {
        let Protobuf { layout, scratch } = self;
        scratch.slots.clear();
        scratch.entries.clear();
        scratch.merged.clear();
        message(layout, columns, rows, payload, scratch)?;
        Ok(1)
    }
}

/// `input` becomes row `row` of the columns, which hold `row` values each.
fn message(layout: &Layout, columns: &mut [Column], row: usize, input: &[u8], scratch: &mut Scratch) -> Parse<()> {
    let base = scratch.slots.len();
    let entries = scratch.entries.len();
    scratch.slots.resize(base + layout.fields.len(), Slot::Nothing);
    let mut wire = Wire::new(input);
    let mut expected = 0;
    while !wire.is_empty() {
        let (number, wire_type) = wire.tag()?;
        match layout.find(number, &mut expected) {
            Target::Field(index) => {
                let field = &layout.fields[index];
                let found = read(layout, index, wire_type, &mut wire, &mut columns[index], base, scratch);
                found.map_err(|problem| problem.within(&field.name))?;
            }
            Target::Rival(oneof) => {
                clear(layout, oneof, base, scratch);
                wire.skip(number, wire_type)?;
            }
            Target::Unknown => wire.skip(number, wire_type)?,
        }
    }
    if scratch.entries.len() > entries {
        // Those of one field together, in their order.
        scratch.entries[entries..].sort_by_key(|(field, ..)| *field);
    }
    let mut next = entries;
    for (index, (field, column)) in layout.fields.iter().zip(columns.iter_mut()).enumerate() {
        let slot = scratch.slots[base + index];
        debug_assert!(matches!(field.shape, layout::Shape::Repeated { .. }) || column.len == row);
        let first = next;
        while scratch.entries.get(next).is_some_and(|(of, ..)| *of == index) {
            next += 1;
        }
        field
            .write(column, slot, input, first..next, layout.read_defaults, scratch)
            .map_err(|problem| problem.within(&field.name))?;
    }
    scratch.slots.truncate(base);
    scratch.entries.truncate(entries);
    Ok(())
}

/// Other fields of the oneof have no value any more.
fn clear(layout: &Layout, oneof: u32, base: usize, scratch: &mut Scratch) {
    for (index, field) in layout.fields.iter().enumerate() {
        if field.oneof == Some(oneof) {
            scratch.slots[base + index] = Slot::Nothing;
        }
    }
}

/// One occurrence of a field.
#[inline]
fn read(
    layout: &Layout,
    index: usize,
    wire_type: u8,
    wire: &mut Wire,
    column: &mut Column,
    base: usize,
    scratch: &mut Scratch,
) -> Parse<()> {
    let field = &layout.fields[index];
    match &field.shape {
        layout::Shape::Single { kind, .. } => {
            let slot = one(kind, wire_type, wire)?;
            let before = scratch.slots[base + index];
            if let Some(oneof) = field.oneof {
                clear(layout, oneof, base, scratch);
            }
            scratch.slots[base + index] = match (kind, before, slot) {
                (layout::Kind::Message(_) | layout::Kind::Timestamp, Slot::Span(from, to), Slot::Span(start, end)) => {
                    // Else the second could complete what is cut off in the first.
                    Wire::within(wire.input, from, to).whole()?;
                    Wire::within(wire.input, start, end).whole()?;
                    scratch.merged.push([&wire.input[from..to], &wire.input[start..end]].concat());
                    Slot::Merged(scratch.merged.len() - 1)
                }
                (_, Slot::Merged(at), Slot::Span(start, end)) => {
                    // What was merged before has been looked at.
                    Wire::within(wire.input, start, end).whole()?;
                    scratch.merged[at].extend_from_slice(&wire.input[start..end]);
                    Slot::Merged(at)
                }
                _ => slot,
            };
        }
        layout::Shape::Repeated { kind } => {
            let Values::Array { offsets, items } = &mut column.values else { return Err(problem("no ARRAY")) };
            let from = offsets[offsets.len() - 1] as usize;
            if wire_type == wire::SPAN
                && let Some(width) = kind.packed_type()
            {
                let (start, end) = wire.span()?;
                let mut packed = Wire::within(wire.input, start, end);
                while !packed.is_empty() {
                    let index = items.len - from;
                    let value = packed.number(width)?;
                    kind.number(items, value).map_err(|problem| problem.at_index(index))?;
                }
                return Ok(());
            }
            let slot = one(kind, wire_type, wire)?;
            let index = items.len - from;
            kind.write(items, slot, wire.input, scratch).map_err(|problem| problem.at_index(index))?;
        }
        layout::Shape::Map { .. } => {
            if wire_type != wire::SPAN {
                return Err(wire::other_type(wire_type, wire::SPAN));
            }
            let (start, end) = wire.span()?;
            scratch.entries.push((index, start, end));
        }
    }
    Ok(())
}

/// The next value on the wire, of the kind.
#[inline]
fn one(kind: &layout::Kind, wire_type: u8, wire: &mut Wire) -> Parse<Slot> {
    let expected = kind.wire_type();
    if wire_type != expected {
        return Err(wire::other_type(wire_type, expected));
    }
    Ok(if expected == wire::SPAN {
        let (start, end) = wire.span()?;
        Slot::Span(start, end)
    } else {
        Slot::Number(wire.number(expected)?)
    })
}

impl layout::Field {
    /// The value of a row, appended.
    #[inline]
    fn write(
        &self,
        column: &mut Column,
        slot: Slot,
        input: &[u8],
        entries: std::ops::Range<usize>,
        read_defaults: bool,
        scratch: &mut Scratch,
    ) -> Parse<()> {
        match &self.shape {
            layout::Shape::Single { kind, presence, default } => match slot {
                Slot::Nothing if *presence && !read_defaults => missing(column),
                Slot::Nothing => kind.write_default(column, default, scratch),
                slot => kind.write(column, slot, input, scratch),
            },
            layout::Shape::Repeated { .. } => {
                let Values::Array { offsets, items } = &mut column.values else { return Err(problem("no ARRAY")) };
                let none = items.len == offsets[offsets.len() - 1] as usize;
                if none && !read_defaults && column.nullable {
                    column.nulls(1);
                    return Ok(());
                }
                offsets.push(items.len as i32);
                column.valid();
                Ok(())
            }
            layout::Shape::Map { key, value } => {
                if entries.is_empty() && !read_defaults && column.nullable {
                    column.nulls(1);
                    return Ok(());
                }
                let Values::Map { offsets, keys, values } = &mut column.values else { return Err(problem("no MAP")) };
                map((key, value), keys, values, input, entries, scratch)?;
                offsets.push(keys.len as i32);
                column.valid();
                Ok(())
            }
        }
    }
}

fn missing(column: &mut Column) -> Parse<()> {
    if !column.nullable {
        return Err(problem("missing, and the column is NOT NULL"));
    }
    column.nulls(1);
    Ok(())
}

/// Of equal keys the last one wins.
fn map(
    (key, value): (&layout::Kind, &layout::Kind),
    keys: &mut Column,
    values: &mut Column,
    input: &[u8],
    entries: std::ops::Range<usize>,
    scratch: &mut Scratch,
) -> Parse<()> {
    let mut found: Vec<(Slot, Slot)> = Vec::with_capacity(entries.len());
    for at in entries {
        let (_, start, end) = scratch.entries[at];
        let mut wire = Wire::within(input, start, end);
        let mut pair = (Slot::Nothing, Slot::Nothing);
        while !wire.is_empty() {
            match wire.tag()? {
                (1, wire_type) => pair.0 = one(key, wire_type, &mut wire).map_err(|problem| problem.within("key"))?,
                (2, wire_type) => {
                    let slot = one(value, wire_type, &mut wire).map_err(|problem| problem.within("value"))?;
                    pair.1 = match (value, pair.1, slot) {
                        (layout::Kind::Message(_) | layout::Kind::Timestamp, Slot::Span(a, b), Slot::Span(c, d)) => {
                            Wire::within(input, a, b).whole()?;
                            Wire::within(input, c, d).whole()?;
                            scratch.merged.push([&input[a..b], &input[c..d]].concat());
                            Slot::Merged(scratch.merged.len() - 1)
                        }
                        (_, Slot::Merged(at), Slot::Span(c, d)) => {
                            Wire::within(input, c, d).whole()?;
                            scratch.merged[at].extend_from_slice(&input[c..d]);
                            Slot::Merged(at)
                        }
                        (.., slot) => slot,
                    };
                }
                (number, wire_type) => wire.skip(number, wire_type)?,
            }
        }
        found.push(pair);
    }
    let same = |slot: &Slot| -> (u64, &[u8]) {
        match *slot {
            Slot::Number(number) => (key.normal(number), &[]),
            Slot::Span(start, end) => (0, &input[start..end]),
            Slot::Nothing | Slot::Merged(_) => (0, &[]),
        }
    };
    let last: Vec<usize> = if found.len() <= SMALL_MAP {
        let is_last = |at: &usize| found[at + 1..].iter().all(|(other, _)| same(other) != same(&found[*at].0));
        (0..found.len()).filter(is_last).collect()
    } else {
        let mut places: HashMap<(u64, &[u8]), usize, foldhash::fast::FixedState> = HashMap::default();
        places.extend(found.iter().enumerate().map(|(at, (key, _))| (same(key), at)));
        (0..found.len()).filter(|at| places.get(&same(&found[*at].0)) == Some(at)).collect()
    };
    for at in last {
        let (key_slot, value_slot) = found[at];
        match key_slot {
            Slot::Nothing => key.write_default(keys, &Unset::Zero, scratch),
            slot => key.write(keys, slot, input, scratch),
        }
        .map_err(|problem| problem.within("key"))?;
        match value_slot {
            Slot::Nothing => value.write_default(values, &value.zero(), scratch),
            slot => value.write(values, slot, input, scratch),
        }
        .map_err(|problem| problem.within("value"))?;
    }
    Ok(())
}

impl layout::Kind {
    /// A value that is there.
    #[inline]
    fn write(&self, column: &mut Column, slot: Slot, input: &[u8], scratch: &mut Scratch) -> Parse<()> {
        match slot {
            Slot::Nothing => Err(problem("no value")),
            Slot::Number(number) => self.number(column, number),
            Slot::Span(start, end) => self.span(column, &input[start..end], scratch),
            Slot::Merged(at) => {
                let merged = std::mem::take(&mut scratch.merged[at]);
                let written = self.span(column, &merged, scratch);
                scratch.merged[at] = merged;
                written
            }
        }
    }

    #[inline]
    fn number(&self, column: &mut Column, number: u64) -> Parse<()> {
        use layout::Kind as K;
        let whole = match self {
            K::Double => match &mut column.values {
                Values::Float64(values) => {
                    values.push(f64::from_bits(number));
                    column.valid();
                    return Ok(());
                }
                _ => return Err(problem("a double")),
            },
            K::Float => {
                let float = f32::from_bits(number as u32);
                match &mut column.values {
                    Values::Float32(values) => values.push(float),
                    Values::Float64(values) => values.push(f64::from(float)),
                    _ => return Err(problem("a float")),
                }
                column.valid();
                return Ok(());
            }
            K::Bool => {
                let Values::Boolean(bits) = &mut column.values else { return Err(problem("a bool")) };
                bits.push(number != 0);
                column.valid();
                return Ok(());
            }
            K::Enum(names) => match &mut column.values {
                Values::String(text) => {
                    let number = number as i32;
                    match names.binary_search_by_key(&number, |(number, _)| *number) {
                        Ok(at) => text.bytes.extend_from_slice(names[at].1.as_bytes()),
                        // A value of a newer schema.
                        Err(_) => text.bytes.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
                    }
                    text.end();
                    column.valid();
                    return Ok(());
                }
                _ => i64::from(number as i32),
            },
            K::Uint64 | K::Fixed64 => {
                i64::try_from(number).map_err(|_| problem(format!("{number} does not fit {}", column.ty)))?
            }
            K::Int64 | K::Sfixed64 => number as i64,
            K::Int32 | K::Sfixed32 => i64::from(number as i32),
            K::Uint32 | K::Fixed32 => i64::from(number as u32),
            K::Sint32 => i64::from(wire::unzigzag(u64::from(number as u32)) as i32),
            K::Sint64 => wire::unzigzag(number),
            K::String | K::Bytes | K::Message(_) | K::Timestamp => return Err(problem("a number")),
        };
        let fits = match &mut column.values {
            Values::Int64(values) => {
                values.push(whole);
                true
            }
            Values::Int32(values) => i32::try_from(whole).map(|value| values.push(value)).is_ok(),
            Values::Int16(values) => i16::try_from(whole).map(|value| values.push(value)).is_ok(),
            Values::Int8(values) => i8::try_from(whole).map(|value| values.push(value)).is_ok(),
            _ => false,
        };
        if !fits {
            return Err(problem(format!("{whole} does not fit {}", column.ty)));
        }
        column.valid();
        Ok(())
    }

    #[inline]
    fn span(&self, column: &mut Column, bytes: &[u8], scratch: &mut Scratch) -> Parse<()> {
        match (self, &mut column.values) {
            (layout::Kind::String, Values::String(text)) => {
                std::str::from_utf8(bytes).map_err(|e| problem(format!("expected UTF-8: {e}")))?;
                text.bytes.extend_from_slice(bytes);
                text.end();
            }
            (layout::Kind::Bytes, Values::Bytes(var)) => {
                var.bytes.extend_from_slice(bytes);
                var.end();
            }
            (layout::Kind::Message(layout), Values::Row { fields, owed, .. }) => {
                let nulls = std::mem::take(owed);
                if nulls > 0 {
                    fields.iter_mut().for_each(|field| field.nulls(nulls));
                }
                message(layout, fields, column.len, bytes, scratch)?;
            }
            (layout::Kind::Timestamp, Values::Timestamp { values, unit }) => values.push(timestamp(bytes, *unit)?),
            _ => return Err(problem(format!("cannot be in a column of {}", column.ty))),
        }
        column.valid();
        Ok(())
    }

    /// The value of a field that is not there.
    fn write_default(&self, column: &mut Column, default: &Unset, scratch: &mut Scratch) -> Parse<()> {
        match default {
            Unset::Bytes(bytes) => self.span(column, bytes, scratch),
            Unset::Zero if self.wire_type() == wire::SPAN => self.span(column, &[], scratch),
            Unset::Zero => self.number(column, 0),
            default => self.number(column, self.bits(default)),
        }
    }
}

/// `google.protobuf.Timestamp`.
fn timestamp(bytes: &[u8], unit: Unit) -> Parse<i64> {
    let (mut seconds, mut nanos) = (0i64, 0i32);
    let mut wire = Wire::new(bytes);
    while !wire.is_empty() {
        match wire.tag()? {
            (1, wire::VARINT) => seconds = wire.number(wire::VARINT)? as i64,
            (2, wire::VARINT) => nanos = wire.number(wire::VARINT)? as i32,
            (number @ (1 | 2), wire_type) => {
                let name = if number == 1 { "seconds" } else { "nanos" };
                return Err(wire::other_type(wire_type, wire::VARINT).within(name));
            }
            (number, wire_type) => wire.skip(number, wire_type)?,
        }
    }
    let shown = || problem(format!("{seconds} s and {nanos} ns are no timestamp"));
    let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000).ok_or_else(shown)?;
    civil::ticks(seconds, nanos, unit).ok_or_else(shown)
}
