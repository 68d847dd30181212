//! One JSON value into one column. The common forms first, everything else in [`rare`].

use super::super::column::{Column, Values};
use super::super::scalar;
use super::cursor::{Cursor, POW10, Parse, fault};
use super::keys::Keys;
use crate::time::civil;
use std::collections::HashMap;

/// Floats hold whole numbers up to here exactly, and powers of ten up to 10^22 (10^10): their quotient is then the
/// nearest float, as a full parser would find it.
const EXACT_F64: u64 = 1 << 53;
const EXACT_F32: u64 = 1 << 24;

/// Entries of a MAP that are compared one with another; larger ones are hashed.
const SMALL_MAP: usize = 16;

/// The object at the cursor becomes row `row` of the columns, which hold `row` values each. After a fault the columns
/// must be cut back by the caller.
#[inline]
pub(super) fn object(
    columns: &mut [Column],
    keys: &mut Keys,
    row: usize,
    cursor: &mut Cursor,
    scratch: &mut Vec<u8>,
    depth: u32,
) -> Parse<()> {
    cursor.open(depth)?;
    let (mut first, mut position, mut filled) = (true, 0, 0);
    while cursor.more(b'}', &mut first)? {
        match keys.next(cursor, position)? {
            Some(index) => {
                let column = &mut columns[index];
                if column.len > row {
                    // The same key again: the last one wins.
                    column.truncate(row);
                    filled -= 1;
                }
                value(column, cursor, scratch, depth).map_err(|fault| fault.within(&column.name))?;
                filled += 1;
            }
            None => cursor.skip(depth + 1)?,
        }
        position += 1;
    }
    if filled < columns.len() {
        for column in columns.iter_mut().filter(|column| column.len == row) {
            if !column.nullable {
                return Err(fault("missing, and the column is NOT NULL").within(&column.name));
            }
            column.nulls(1);
        }
    }
    Ok(())
}

#[inline(always)]
fn value(column: &mut Column, cursor: &mut Cursor, scratch: &mut Vec<u8>, depth: u32) -> Parse<()> {
    let start = cursor.at;
    match &mut column.values {
        Values::Float64(values) => {
            if let Some(short) = cursor.short()
                && short.mantissa <= EXACT_F64
            {
                let magnitude = short.mantissa as f64 / POW10[short.decimals] as f64;
                values.push(if short.negative { -magnitude } else { magnitude });
                column.valid();
                return Ok(());
            }
        }
        Values::String(var) => {
            if cursor.peek() == b'"'
                && let Some(text) = cursor.plain_string()?
            {
                var.bytes.extend_from_slice(text);
                var.end();
                column.valid();
                return Ok(());
            }
        }
        Values::Int64(values) => {
            if let Some(number) = whole(cursor) {
                values.push(number);
                column.valid();
                return Ok(());
            }
        }
        Values::Int32(values) => {
            if let Some(number) = whole(cursor).and_then(|number| i32::try_from(number).ok()) {
                values.push(number);
                column.valid();
                return Ok(());
            }
        }
        Values::Timestamp { values, unit } => {
            let ticks = match cursor.peek() {
                b'"' => cursor.plain_string()?.and_then(|text| civil::parse_timestamp(text, *unit)),
                _ => whole(cursor).and_then(|millis| millis.checked_mul(unit.per_milli())),
            };
            if let Some(ticks) = ticks {
                values.push(ticks);
                column.valid();
                return Ok(());
            }
        }
        Values::Float32(values) => {
            if let Some(short) = cursor.short()
                && short.mantissa <= EXACT_F32
                && short.decimals <= 10
            {
                let magnitude = short.mantissa as f32 / POW10[short.decimals] as f32;
                values.push(if short.negative { -magnitude } else { magnitude });
                column.valid();
                return Ok(());
            }
        }
        _ => {}
    }
    cursor.at = start;
    rare(column, cursor, scratch, depth)
}

#[inline(always)]
fn whole(cursor: &mut Cursor) -> Option<i64> {
    let short = cursor.short()?;
    let number = short.mantissa as i64;
    (short.decimals == 0).then_some(if short.negative { -number } else { number })
}

#[inline(never)]
fn rare(column: &mut Column, cursor: &mut Cursor, scratch: &mut Vec<u8>, depth: u32) -> Parse<()> {
    let (start, len, nulled) = (cursor.at, column.len, cursor.nulled);
    match exact(column, cursor, scratch, depth) {
        Err(fault) if cursor.lenient && column.nullable => {
            column.truncate(len);
            cursor.at = start;
            // What is no JSON is no value of another type: the row goes.
            cursor.skip(depth + 1)?;
            column.nulls(1);
            // Those within it are gone with it.
            cursor.keep_nulled(nulled);
            cursor.nulled += 1;
            cursor.first_nulled.get_or_insert_with(|| fault.within(&column.name));
            Ok(())
        }
        done => done,
    }
}

#[inline]
fn exact(column: &mut Column, cursor: &mut Cursor, scratch: &mut Vec<u8>, depth: u32) -> Parse<()> {
    let start = cursor.at;
    let is_string = matches!(column.values, Values::String(_));
    let kept = match cursor.peek() {
        b'n' if cursor.literal(b"null") => {
            if !column.nullable {
                return Err(fault("null, and the column is NOT NULL"));
            }
            column.nulls(1);
            true
        }
        b'"' => {
            let text = match cursor.plain_string()? {
                Some(text) => text,
                None => {
                    scratch.clear();
                    cursor.escaped_string(scratch)?;
                    scratch
                }
            };
            scalar::append(column, text)
        }
        b'-' | b'0'..=b'9' => {
            let text = cursor.number()?;
            !matches!(column.values, Values::Bytes(_)) && scalar::append(column, text)
        }
        b't' | b'f' if cursor.literal(b"true") || cursor.literal(b"false") => {
            matches!(column.values, Values::Boolean(_) | Values::String(_))
                && scalar::append(column, &cursor.input[start..cursor.at])
        }
        b'{' | b'[' if is_string => {
            cursor.skip(depth + 1)?;
            scalar::append(column, &cursor.input[start..cursor.at])
        }
        b'{' => {
            let len = column.len;
            match &mut column.values {
                Values::Row { fields, keys, owed } => {
                    let nulls = std::mem::take(owed);
                    if nulls > 0 {
                        fields.iter_mut().for_each(|field| field.nulls(nulls));
                    }
                    object(fields, keys, len, cursor, scratch, depth + 1)?;
                    column.valid();
                    true
                }
                Values::Map { offsets, keys, values } => {
                    map(keys, values, cursor, scratch, depth + 1)?;
                    offsets.push(keys.len as i32);
                    column.valid();
                    true
                }
                _ => false,
            }
        }
        b'[' => match &mut column.values {
            Values::Array { offsets, items } => {
                let before = items.len;
                cursor.open(depth + 1)?;
                let mut first = true;
                while cursor.more(b']', &mut first)? {
                    let index = items.len - before;
                    value(items, cursor, scratch, depth + 1).map_err(|fault| fault.at_index(index))?;
                }
                offsets.push(items.len as i32);
                column.valid();
                true
            }
            _ => false,
        },
        _ => false,
    };
    if kept {
        return Ok(());
    }
    cursor.at = start;
    Err(cursor.unexpected(scalar::expected(&column.ty)))
}

/// The object at the cursor becomes entries of a MAP; of equal keys the last one wins.
fn map(keys: &mut Column, values: &mut Column, cursor: &mut Cursor, scratch: &mut Vec<u8>, depth: u32) -> Parse<()> {
    let (start, before, nulled) = (cursor.at, keys.len, cursor.nulled);
    cursor.open(depth)?;
    let mut first = true;
    while cursor.more(b'}', &mut first)? {
        key(keys, cursor, scratch)?;
        let Values::String(texts) = &keys.values else {
            cursor.keep_nulled(nulled);
            return large_map(keys, values, before, start, cursor, scratch, depth);
        };
        let of = |index: usize| &texts.bytes[texts.offsets[index] as usize..texts.offsets[index + 1] as usize];
        let last = keys.len - 1;
        if last - before >= SMALL_MAP || (before..last).any(|index| of(index) == of(last)) {
            cursor.keep_nulled(nulled);
            return large_map(keys, values, before, start, cursor, scratch, depth);
        }
        let name = |keys: &Column| match &keys.values {
            Values::String(texts) => String::from_utf8_lossy(&texts.bytes[texts.offsets[last] as usize..]).into_owned(),
            _ => String::new(),
        };
        value(values, cursor, scratch, depth).map_err(|fault| fault.within(&name(keys)))?;
    }
    Ok(())
}

/// A key of a MAP and its colon.
fn key(keys: &mut Column, cursor: &mut Cursor, scratch: &mut Vec<u8>) -> Parse<()> {
    let start = cursor.at;
    if cursor.peek() != b'"' {
        return Err(cursor.unexpected("a key in double quotes"));
    }
    let text = match cursor.plain_string()? {
        Some(text) => text,
        None => {
            scratch.clear();
            cursor.escaped_string(scratch)?;
            scratch
        }
    };
    if !scalar::append(keys, text) {
        cursor.at = start;
        return Err(cursor.unexpected(&format!("a key that is {}", scalar::expected(&keys.ty))));
    }
    cursor.space();
    if cursor.peek() != b':' {
        return Err(cursor.unexpected("a colon after the key"));
    }
    cursor.at += 1;
    cursor.space();
    Ok(())
}

/// A MAP again from its `start`: first where the last value of each key is, then those values.
fn large_map(
    keys: &mut Column,
    values: &mut Column,
    before: usize,
    start: usize,
    cursor: &mut Cursor,
    scratch: &mut Vec<u8>,
    depth: u32,
) -> Parse<()> {
    keys.truncate(before);
    values.truncate(before);
    cursor.at = start;
    cursor.open(depth)?;
    let mut entries: Vec<(usize, usize)> = Vec::new();
    let mut places: HashMap<Vec<u8>, usize, foldhash::fast::FixedState> = HashMap::default();
    let mut first = true;
    while cursor.more(b'}', &mut first)? {
        let key_at = cursor.at;
        let mut name = Vec::new();
        if cursor.peek() == b'"' {
            cursor.escaped_string(&mut name)?;
            cursor.at = key_at;
        }
        key(keys, cursor, scratch)?;
        keys.truncate(before);
        let entry = (key_at, cursor.at);
        match places.get(&name) {
            Some(&place) => entries[place] = entry,
            None => {
                places.insert(name, entries.len());
                entries.push(entry);
            }
        }
        cursor.skip(depth + 1)?;
    }
    let end = cursor.at;
    for (key_at, value_at) in entries {
        cursor.at = key_at;
        key(keys, cursor, scratch)?;
        cursor.at = value_at;
        value(values, cursor, scratch, depth)?;
    }
    cursor.at = end;
    Ok(())
}
