//! `debezium-json`: changes of a database's rows, `{"before":…,"after":…,"op":"u"}`, as rows of a changelog.
//!
//! Operations `c` (insert) and `r` (snapshot) become +I, `u` becomes -U and +U, `d` becomes -D; an empty message (a
//! tombstone for the broker) becomes no row. The last column is `_op`. What else Debezium tells (`source`, `ts_ms`, …)
//! is checked to be JSON and passed over; the rows themselves are read as `json` does.

use super::super::column::{Column, Values};
use super::super::records::{NulledFields, Parse, Problem, Record, Records, problem};
use super::cursor::{self, Cursor};
use super::{Keys, value};
use crate::error::{Error, Result};
use ef_proto::connector::{DebeziumJson, OnError};
use ef_proto::schema::{OP_COLUMN, RowKind, Schema};
use std::ops::Range;

pub(crate) struct Debezium {
    keys: Keys,
    schema_include: bool,
    lenient: bool,
    scratch: Vec<u8>,
    /// A payload of several lines as one.
    line: Vec<u8>,
}

/// `schema` with `_op` as its last column.
pub(crate) fn decoder(schema: &Schema, options: &DebeziumJson) -> Result<Records<Debezium>> {
    let Some((op, columns)) = schema.fields.split_last().filter(|(op, _)| op.name == OP_COLUMN) else {
        return Err(Error::invalid(format!(
            "format 'debezium-json' delivers `{OP_COLUMN}`, and the plan has no place for it"
        )));
    };
    debug_assert!(!op.nullable);
    let debezium = Debezium {
        keys: Keys::new(columns.iter().map(|field| field.name.as_str())),
        schema_include: options.schema_include,
        lenient: options.json.on_error == OnError::Null,
        scratch: Vec::new(),
        line: Vec::new(),
    };
    Records::new(debezium, schema, options.json.on_error)
}

/// Where the parts of a change are; an empty range is `null` or nothing.
#[derive(Default)]
struct Change {
    before: Range<usize>,
    after: Range<usize>,
    op: Option<Range<usize>>,
    payload: Option<Range<usize>>,
}

fn change(input: &[u8], at: usize) -> cursor::Parse<(Change, usize)> {
    let mut cursor = Cursor { at, ..Cursor::new(input) };
    let mut change = Change::default();
    if cursor.peek() != b'{' {
        return Err(cursor.unexpected("a JSON object"));
    }
    cursor.open(1)?;
    let (mut first, mut name) = (true, Vec::new());
    while cursor.more(b'}', &mut first)? {
        if cursor.peek() != b'"' {
            return Err(cursor.unexpected("a key in double quotes"));
        }
        let key = match cursor.plain_string()? {
            Some(key) => key,
            None => {
                name.clear();
                cursor.escaped_string(&mut name)?;
                &name
            }
        };
        cursor.space();
        if cursor.peek() != b':' {
            return Err(cursor.unexpected("a colon after the key"));
        }
        cursor.at += 1;
        cursor.space();
        let from = cursor.at;
        let null = cursor.peek() == b'n';
        match key {
            b"before" | b"after" if !matches!(cursor.peek(), b'{' | b'n') => {
                let row = String::from_utf8_lossy(key).into_owned();
                return Err(cursor.unexpected("an object or null").within(&row));
            }
            b"op" if !matches!(cursor.peek(), b'"' | b'n') => return Err(cursor.unexpected("a string").within("op")),
            _ => cursor.skip(2)?,
        }
        let value = if null { from..from } else { from..cursor.at };
        match key {
            b"before" => change.before = value,
            b"after" => change.after = value,
            b"op" => change.op = Some(value).filter(|value| !value.is_empty()),
            b"payload" => change.payload = Some(value),
            _ => {}
        }
    }
    Ok((change, cursor.at))
}

#[expect(clippy::boxed_local, reason = "as the cursor gives it")]
fn told(fault: Box<cursor::Fault>) -> Box<Problem> {
    let (field, reason) = fault.into_parts();
    Box::new(Problem { field: field.unwrap_or_default(), reason, fatal: false })
}

impl Record for Debezium {
    const LINES: std::result::Result<(), &'static str> = Ok(());

    fn append(
        &mut self,
        payload: &[u8],
        columns: &mut [Column],
        rows: usize,
        nulled: &mut NulledFields,
    ) -> Parse<usize> {
        if memchr::memchr(b'\n', payload).is_none() {
            return self.change(payload, columns, rows, nulled);
        }
        // Between values a line end is a space, and nowhere else may one stand.
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        line.extend(payload.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }));
        let appended = self.change(&line, columns, rows, nulled);
        self.line = line;
        appended
    }
}

impl Debezium {
    fn change(&mut self, input: &[u8], columns: &mut [Column], rows: usize, nulled: &mut NulledFields) -> Parse<usize> {
        let mut start = Cursor::new(input);
        start.space();
        if start.at == input.len() {
            return Ok(0);
        }
        let (mut found, end) = change(input, start.at).map_err(told)?;
        let mut behind = Cursor { at: end, ..Cursor::new(input) };
        behind.space();
        if behind.at != input.len() {
            return Err(told(behind.unexpected("one JSON object")));
        }
        if self.schema_include {
            match found.payload {
                None => {
                    return Err(problem(
                        "there is no `payload`, expected one beside the `schema` by \
                                        'debezium-json.schema-include' = 'true'",
                    ));
                }
                Some(payload) if payload.is_empty() => return Ok(0),
                Some(payload) => found = change(input, payload.start).map_err(|fault| told(fault.within("payload")))?.0,
            }
        }
        let op = match &found.op {
            Some(op) => &input[op.start + 1..op.end - 1],
            None if found.payload.is_some() => {
                return Err(problem(
                    "there is no `op` but a `payload`, expected 'debezium-json.schema-include' = \
                                    'true' for messages that have their schema with them",
                ));
            }
            None => return Err(problem("there is no `op`, expected 'c', 'r', 'u' or 'd'")),
        };
        let Change { before, after, .. } = found;
        match op {
            b"c" | b"r" => {
                self.row(input, ("after", after), RowKind::Insert, columns, rows, nulled)?;
                Ok(1)
            }
            b"u" => {
                self.row(input, ("before", before), RowKind::UpdateBefore, columns, rows, nulled)?;
                self.row(input, ("after", after), RowKind::UpdateAfter, columns, rows + 1, nulled)?;
                Ok(2)
            }
            b"d" => {
                self.row(input, ("before", before), RowKind::Delete, columns, rows, nulled)?;
                Ok(1)
            }
            other => {
                let shown: String = String::from_utf8_lossy(other).chars().take(20).collect();
                Err(problem(format!("found '{shown}', expected 'c', 'r', 'u' or 'd'")).within("op"))
            }
        }
    }

    fn row(
        &mut self,
        input: &[u8],
        (name, at): (&str, Range<usize>),
        kind: RowKind,
        columns: &mut [Column],
        rows: usize,
        nulled: &mut NulledFields,
    ) -> Parse<()> {
        if at.is_empty() {
            let why = match kind {
                RowKind::UpdateBefore | RowKind::Delete => {
                    "null or missing, and the change takes a row away; a PostgreSQL table needs REPLICA IDENTITY FULL"
                }
                _ => "null or missing, and the change brings a row",
            };
            return Err(problem(why).within(name));
        }
        let Some((op, columns)) = columns.split_last_mut() else { return Err(problem("no columns")) };
        let mut cursor = Cursor { at: at.start, lenient: self.lenient, ..Cursor::new(&input[..at.end]) };
        value::object(columns, &mut self.keys, rows, &mut cursor, &mut self.scratch, 3)
            .map_err(|fault| told(fault.within(name)))?;
        if cursor.nulled > 0 {
            nulled.fields += cursor.nulled;
            let fault = cursor.first_nulled.take().filter(|_| nulled.first.is_none());
            nulled.first = fault.map(|fault| fault.within(name).into_parts()).or(nulled.first.take());
        }
        let Values::Int8(kinds) = &mut op.values else { return Err(problem("the kind of a row is no TINYINT")) };
        kinds.push(kind as i8);
        op.valid();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
