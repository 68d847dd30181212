//! JSON objects to columns, by a schema known beforehand: one a line in files, one a message from brokers.
//!
//! One strict parser: it expects the keys in the order seen last (a compare of 16 bytes a key), reads digits eight at a
//! time, and leaves all that is rare (escapes, exponents, numbers in strings, unknown keys) to cold functions. What it
//! accepts beyond plain types, as Flink does: numbers and booleans as strings, anything as the text of a STRING column,
//! the last of several equal keys, missing fields as NULL. By [`OnError::Null`] a value that its column cannot hold is NULL
//! too, the innermost one that may be. Timestamps are SQL or ISO-8601 text or epoch milliseconds,
//! whatever the precision of the column. Whole numbers may be written `1.0` or `1e3`.

mod cursor;
pub(crate) mod debezium;
mod keys;
#[cfg(test)]
mod tests;
mod value;

pub(crate) use keys::Keys;

use super::column::Column;
use super::decode::{DecodeError, Decoded, Decoder, Nulled, Stop};
use crate::error::{Context, Result};
use crate::frame::{BATCH_BYTES, BATCH_ROWS};
use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;
use cursor::{Cursor, Fault};
use ef_proto::connector::{Json, OnError};
use ef_proto::schema::Schema;

pub struct JsonDecoder {
    schema: SchemaRef,
    columns: Vec<Column>,
    keys: Keys,
    rows: usize,
    /// Of input in the open batch.
    bytes: usize,
    /// Unescaped strings on their way to a value.
    scratch: Vec<u8>,
    on_error: OnError,
}

impl JsonDecoder {
    pub fn new(schema: &Schema, options: &Json) -> Result<JsonDecoder> {
        Ok(JsonDecoder {
            schema: schema.to_arrow(),
            columns: schema.fields.iter().map(Column::new).collect::<Result<_>>()?,
            keys: Keys::new(schema.fields.iter().map(|f| f.name.as_str())),
            rows: 0,
            bytes: 0,
            scratch: Vec::new(),
            on_error: options.on_error,
        })
    }

    /// One line: an object, or nothing.
    #[inline]
    fn line(&mut self, cursor: &mut Cursor) -> std::result::Result<(), Box<Fault>> {
        cursor.space();
        if cursor.peek() == b'{' {
            value::object(&mut self.columns, &mut self.keys, self.rows, cursor, &mut self.scratch, 1)?;
            self.rows += 1;
            cursor.space();
        }
        match cursor.peek() {
            b'\n' => {
                cursor.at += 1;
                Ok(())
            }
            _ => Err(cursor.unexpected("a JSON object on a line of its own")),
        }
    }

    #[inline]
    fn message(&mut self, cursor: &mut Cursor) -> std::result::Result<(), Box<Fault>> {
        cursor.space();
        if cursor.peek() != b'{' {
            return Err(cursor.unexpected("a JSON object"));
        }
        value::object(&mut self.columns, &mut self.keys, self.rows, cursor, &mut self.scratch, 1)?;
        cursor.space();
        if cursor.at < cursor.input.len() {
            return Err(cursor.unexpected("nothing behind the JSON object"));
        }
        Ok(())
    }
}

impl Decoder for JsonDecoder {
    fn begin(&mut self, _from_start: bool) {}

    fn decode(&mut self, input: &[u8], last: bool) -> Decoded {
        let end = if last { input.len() } else { memchr::memrchr(b'\n', input).map_or(0, |at| at + 1) };
        let mut cursor = Cursor { lenient: self.on_error == OnError::Null, ..Cursor::new(&input[..end]) };
        let mut lines = 0;
        let mut nulled = Nulled::default();
        let stop = loop {
            let start = cursor.at;
            if start >= end {
                break Stop::Input;
            }
            if self.rows >= BATCH_ROWS || self.bytes + start >= BATCH_BYTES {
                break Stop::Full;
            }
            let rows = self.rows;
            cursor.nulled = 0;
            if let Err(fault) = self.line(&mut cursor) {
                self.rows = rows;
                self.columns.iter_mut().for_each(|column| column.truncate(rows));
                let after = memchr::memchr(b'\n', &input[start..end]).map_or(end, |at| start + at + 1);
                cursor.at = after;
                let (column, reason) = fault.into_parts();
                let error = DecodeError::new(start, lines, column, reason, &input[start..after]);
                lines += 1;
                break Stop::Bad(error);
            }
            if cursor.nulled > 0 {
                nulled.fields += cursor.nulled;
                let fault = cursor.first_nulled.take().filter(|_| nulled.first.is_none());
                if let Some((column, reason)) = fault.map(|fault| fault.into_parts()) {
                    nulled.first =
                        Some(DecodeError::new(start, lines, column, reason, &input[start..cursor.at.min(end)]));
                }
            }
            lines += 1;
        };
        // A last line without its end moves the cursor one behind the input, and is no line end.
        let consumed = cursor.at.min(end);
        if consumed > 0 && consumed == end && input[end - 1] != b'\n' && lines > 0 {
            lines -= 1;
        }
        self.bytes += consumed;
        Decoded { consumed, lines, stop, nulled }
    }

    /// Exactly one object, over as many lines as it likes.
    #[inline]
    fn decode_record(&mut self, payload: &[u8], nulled: &mut Nulled) -> std::result::Result<usize, Box<DecodeError>> {
        let lenient = self.on_error == OnError::Null;
        let mut cursor = Cursor { lenient, multiline: true, ..Cursor::new(payload) };
        if let Err(fault) = self.message(&mut cursor) {
            self.columns.iter_mut().for_each(|column| column.truncate(self.rows));
            let (column, reason) = fault.into_parts();
            return Err(Box::new(DecodeError::new(0, 0, column, reason, payload)));
        }
        self.rows += 1;
        self.bytes += payload.len();
        if cursor.nulled > 0 {
            let (column, reason) = cursor.first_nulled.map_or_else(Default::default, |fault| fault.into_parts());
            let first = nulled.first.is_none().then(|| DecodeError::new(0, 0, column, reason, payload));
            nulled.add(Nulled { fields: cursor.nulled, first });
        }
        Ok(1)
    }

    fn rows(&self) -> usize {
        self.rows
    }

    fn take(&mut self) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        let columns = self.columns.iter_mut().map(Column::finish).collect::<Result<Vec<_>>>()?;
        self.rows = 0;
        self.bytes = 0;
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).internal(|| "decoded rows".into())
    }

    fn on_error(&self) -> OnError {
        self.on_error
    }
}
