//! A row's commands.

use super::command::{begin, word};
use super::pending::Pending;
use crate::error::{Code, Error, Result};
use crate::format::encode::text::Texts;
use crate::format::encode::view::View;
use crate::format::encode::{Encoder, encoder, row_kinds};
use arrow_array::RecordBatch;
use ef_proto::connector::{Format, RedisMode, RedisSink};
use ef_proto::schema::{RowKind, Schema};

pub struct Rows {
    mode: RedisMode,
    table: String,
    texts: Texts,
    key: Key,
    /// The columns that are fields, with their names.
    fields: Vec<(usize, Vec<u8>)>,
    encoder: Option<Box<dyn Encoder>>,
    /// `PX`'s argument.
    ttl_ms: Option<Vec<u8>>,
    maxlen: Option<Vec<u8>>,
    changelog: bool,
    scratch: Scratch,
}

enum Key {
    Fixed(Vec<u8>),
    Columns { prefix: Vec<u8>, separator: Vec<u8>, columns: Vec<usize> },
}

/// Of one row; kept for their memory.
#[derive(Default)]
struct Scratch {
    key: Vec<u8>,
    value: Vec<u8>,
    /// Values one after the other, and where each field's is; None: NULL.
    values: Vec<Option<std::ops::Range<usize>>>,
}

/// What is known of a batch before its rows are looked at.
pub struct Prepared<'a> {
    views: Vec<View<'a>>,
    kinds: Option<Vec<RowKind>>,
    /// Encoded rows, and where each ends.
    encoded: Vec<u8>,
    ends: Vec<usize>,
}

impl Prepared<'_> {
    pub fn kind(&self, row: usize) -> RowKind {
        self.kinds.as_ref().map_or(RowKind::Insert, |kinds| kinds[row])
    }

    fn encoded(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.encoded[start..self.ends[row]]
    }
}

impl Rows {
    /// `schema` without `_op`; `keys`: positions of the PRIMARY KEY's columns.
    pub fn new(
        options: &RedisSink,
        format: Option<&Format>,
        schema: &Schema,
        keys: &[usize],
        changelog: bool,
        table: &str,
    ) -> Result<Rows> {
        let key = match &options.key {
            Some(key) => Key::Fixed(format!("{}{key}", options.key_prefix).into_bytes()),
            None => Key::Columns {
                prefix: options.key_prefix.clone().into_bytes(),
                separator: options.key_separator.clone().into_bytes(),
                columns: keys.to_vec(),
            },
        };
        // An entry of a stream tells its whole row, the others know the key by where it is.
        let is_field = |at: usize| options.mode == RedisMode::Stream || !keys.contains(&at);
        let fields = schema.fields.iter().enumerate().filter(|(at, _)| is_field(*at));
        Ok(Rows {
            mode: options.mode,
            table: table.to_owned(),
            texts: Texts::new(schema),
            key,
            fields: fields.map(|(at, field)| (at, field.name.clone().into_bytes())).collect(),
            encoder: format.map(|format| encoder(format, schema, false)).transpose()?,
            ttl_ms: options.ttl_ms.map(|ms| ms.to_string().into_bytes()),
            maxlen: options.stream_maxlen.map(|count| count.to_string().into_bytes()),
            changelog,
            scratch: Scratch::default(),
        })
    }

    pub fn prepare<'a>(&mut self, batch: &'a RecordBatch) -> Result<Prepared<'a>> {
        let (mut encoded, mut ends) = (Vec::new(), Vec::new());
        if let Some(encoder) = &mut self.encoder {
            encoder.encode_rows(batch, &mut encoded, &mut ends)?;
        }
        let kinds = if self.changelog { Some(row_kinds(batch)?) } else { None };
        Ok(Prepared { views: self.texts.views(batch)?, kinds, encoded, ends })
    }

    /// Appends a row's commands. -U takes the row away as -D does: its +U follows in the same batch, unless a filter has
    /// left that out.
    pub fn put(&mut self, batch: &Prepared<'_>, row: usize, into: &mut Pending) -> Result<()> {
        let Rows { key, texts, scratch, .. } = self;
        scratch.key.clear();
        match key {
            Key::Fixed(name) => scratch.key.extend_from_slice(name),
            Key::Columns { prefix, separator, columns } => {
                scratch.key.extend_from_slice(prefix);
                for (i, column) in columns.iter().enumerate() {
                    if i > 0 {
                        scratch.key.extend_from_slice(separator);
                    }
                    texts.write(&batch.views, *column, row, &mut scratch.key);
                }
            }
        }
        if batch.kind(row).retracts() {
            into.add(&scratch.key, |out| delete(out, &scratch.key));
            return Ok(());
        }
        match self.mode {
            RedisMode::String | RedisMode::Pubsub => self.put_value(batch, row, into),
            RedisMode::Hash => self.put_hash(batch, row, into),
            RedisMode::Stream => return self.put_entry(batch, row, into),
        }
        Ok(())
    }

    /// A string of NULL is none; a message of NULL is empty.
    fn put_value(&mut self, batch: &Prepared<'_>, row: usize, into: &mut Pending) {
        let Scratch { key, value, .. } = &mut self.scratch;
        let mut null = false;
        let value: &[u8] = if self.encoder.is_some() {
            batch.encoded(row)
        } else {
            value.clear();
            for (column, _) in &self.fields {
                null = batch.views[*column].is_null(row);
                self.texts.write(&batch.views, *column, row, value);
            }
            value
        };
        let (mode, ttl_ms) = (self.mode, self.ttl_ms.as_deref());
        into.add(key, |out| match (mode, ttl_ms) {
            (RedisMode::Pubsub, _) => command(out, &[b"PUBLISH", key, value]),
            _ if null => delete(out, key),
            (_, Some(ms)) => command(out, &[b"SET", key, value, b"PX", ms]),
            (_, None) => command(out, &[b"SET", key, value]),
        });
    }

    fn take_values(&mut self, batch: &Prepared<'_>, row: usize) {
        let Scratch { value, values, .. } = &mut self.scratch;
        value.clear();
        values.clear();
        for (column, _) in &self.fields {
            let start = value.len();
            self.texts.write(&batch.views, *column, row, value);
            values.push((!batch.views[*column].is_null(row)).then_some(start..value.len()));
        }
    }

    /// NULL columns are no fields, so those of an earlier row go; first, so that a hash never shows a mix of both as
    /// more than it is.
    fn put_hash(&mut self, batch: &Prepared<'_>, row: usize, into: &mut Pending) {
        self.take_values(batch, row);
        let Rows { fields, ttl_ms, scratch: Scratch { key, value, values }, .. } = self;
        let nulls = values.iter().filter(|value| value.is_none()).count();
        into.add(key, |out| {
            if nulls == values.len() {
                return delete(out, key);
            }
            let mut commands = 1;
            if nulls > 0 {
                begin(out, 2 + nulls);
                word(out, b"HDEL");
                word(out, key);
                let missing = fields.iter().zip(&*values).filter(|(_, value)| value.is_none());
                missing.for_each(|((_, name), _)| word(out, name));
                commands += 1;
            }
            begin(out, 2 + 2 * (values.len() - nulls));
            word(out, b"HSET");
            word(out, key);
            for ((_, name), range) in fields.iter().zip(&*values) {
                if let Some(range) = range {
                    word(out, name);
                    word(out, &value[range.clone()]);
                }
            }
            if let Some(ms) = ttl_ms {
                commands += command(out, &[b"PEXPIRE", key, ms]);
            }
            commands
        });
    }

    fn put_entry(&mut self, batch: &Prepared<'_>, row: usize, into: &mut Pending) -> Result<()> {
        let whole = self.encoder.is_some();
        if !whole {
            self.take_values(batch, row);
        }
        let Rows { fields, ttl_ms, maxlen, scratch: Scratch { key, value, values }, table, .. } = self;
        let present = if whole { 1 } else { values.iter().flatten().count() };
        if present == 0 {
            let what =
                format!("table `{table}`: a row of NULLs only has no fields for a stream's entry, expected a 'format'");
            return Err(Error::new(Code::Invalid, what));
        }
        into.add(key, |out| {
            begin(out, 3 + 2 * present + if maxlen.is_some() { 3 } else { 0 });
            word(out, b"XADD");
            word(out, key);
            if let Some(count) = maxlen {
                [&b"MAXLEN"[..], b"~", count].into_iter().for_each(|text| word(out, text));
            }
            word(out, b"*");
            if whole {
                word(out, b"value");
                word(out, batch.encoded(row));
            } else {
                for ((_, name), range) in fields.iter().zip(&*values) {
                    if let Some(range) = range {
                        word(out, name);
                        word(out, &value[range.clone()]);
                    }
                }
            }
            1 + ttl_ms.as_ref().map_or(0, |ms| command(out, &[b"PEXPIRE", key, ms]))
        });
        Ok(())
    }
}

fn command(out: &mut Vec<u8>, words: &[&[u8]]) -> usize {
    begin(out, words.len());
    words.iter().for_each(|text| word(out, text));
    1
}

fn delete(out: &mut Vec<u8>, key: &[u8]) -> usize {
    command(out, &[b"DEL", key])
}

#[cfg(test)]
pub(super) mod tests;
