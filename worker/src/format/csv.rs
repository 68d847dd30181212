//! Delimited text to columns, in the order of the schema.
//!
//! A splitter of its own instead of a library's, because it must know which fields were quoted (an empty field is NULL
//! only without quotes) and where every record ends. Quoted fields may hold delimiters, line ends and doubled quotes;
//! values are read like text in JSON strings. A record with another number of fields than the schema is
//! an error; by [`OnError::Null`] missing fields are NULL and those too many are passed over, as unreadable ones are.

use super::column::{Column, Values};
use super::decode::{DecodeError, Decoded, Decoder, Nulled, Stop};
use super::scalar;
use crate::error::{Context, Error, Result};
use crate::frame::{BATCH_BYTES, BATCH_ROWS};
use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;
use ef_proto::connector::{Csv, OnError};
use ef_proto::schema::{DataType, Schema};

pub struct CsvDecoder {
    options: Csv,
    schema: SchemaRef,
    columns: Vec<Column>,
    rows: usize,
    bytes: usize,
    /// The next record is the header.
    header: bool,
    record: Record,
}

/// One record, split: the content of its fields behind each other.
#[derive(Default)]
struct Record {
    content: Vec<u8>,
    fields: Vec<Piece>,
}

struct Piece {
    end: usize,
    quoted: bool,
    /// It is the NULL literal, as it stands in the file: `\N` may begin with the escape character.
    null: bool,
}

impl Record {
    fn field(&self, index: usize) -> (&[u8], &Piece) {
        let start = if index == 0 { 0 } else { self.fields[index - 1].end };
        let piece = &self.fields[index];
        (&self.content[start..piece.end], piece)
    }
}

/// What lies at the front of the input.
enum Split {
    /// A record of so many bytes, its line end included.
    Record(usize),
    /// Not all of a record.
    Part,
    /// A record of so many bytes whose quotes are wrong.
    Broken(usize, &'static str),
}

impl CsvDecoder {
    pub fn new(schema: &Schema, options: &Csv) -> Result<CsvDecoder> {
        for field in &schema.fields {
            if matches!(field.ty, DataType::Row(_) | DataType::Array(_) | DataType::Map(..)) {
                return Err(Error::invalid(format!(
                    "column \"{}\": format 'csv' cannot hold {}, use format 'json' or a STRING column",
                    field.name, field.ty
                )));
            }
        }
        Ok(CsvDecoder {
            options: options.clone(),
            schema: schema.to_arrow(),
            columns: schema.fields.iter().map(Column::new).collect::<Result<_>>()?,
            rows: 0,
            bytes: 0,
            header: options.header,
            record: Record::default(),
        })
    }

    /// Splits the first record of `input` into `self.record`.
    fn split(&mut self, input: &[u8], last: bool) -> Split {
        let Csv { delimiter, quote, escape, .. } = self.options;
        let literal = self.options.null_literal.as_deref().map(str::as_bytes);
        let Record { content, fields } = &mut self.record;
        content.clear();
        fields.clear();
        let mut at = 0;
        loop {
            let begin = at;
            let mut quoted = false;
            if quote.is_some() && input.get(at).copied() == quote {
                quoted = true;
                let quote = input[at];
                at += 1;
                loop {
                    let rest = &input[at..];
                    let Some(run) = memchr::memchr2(quote, escape.unwrap_or(quote), rest) else {
                        return match last {
                            // Of all the lines that it makes one row of, only the first is surely bad.
                            true => Split::Broken(first_line(input), "a quoted field is never closed"),
                            false => Split::Part,
                        };
                    };
                    content.extend_from_slice(&rest[..run]);
                    at += run;
                    match (input[at], input.get(at + 1)) {
                        // Whether a quote or half of a doubled one, the next byte tells.
                        (_, None) if !last => return Split::Part,
                        (byte, Some(&next)) if escape == Some(byte) && (byte != quote || next == quote) => {
                            content.push(next);
                            at += 2;
                        }
                        (byte, Some(&next)) if byte == quote && next == quote => {
                            content.push(quote);
                            at += 2;
                        }
                        (byte, _) if byte == quote => {
                            at += 1;
                            break;
                        }
                        _ => return Split::Broken(first_line(input), "a quoted field ends behind an escape character"),
                    }
                }
            } else {
                loop {
                    let rest = &input[at..];
                    let stop = match escape {
                        None => memchr::memchr2(delimiter, b'\n', rest),
                        Some(escape) => memchr::memchr3(delimiter, b'\n', escape, rest),
                    };
                    let Some(run) = stop else {
                        if !last {
                            return Split::Part;
                        }
                        content.extend_from_slice(rest);
                        at = input.len();
                        break;
                    };
                    content.extend_from_slice(&rest[..run]);
                    at += run;
                    if escape != Some(input[at]) {
                        break;
                    }
                    match input.get(at + 1) {
                        Some(&next) => content.push(next),
                        None if last => {}
                        None => return Split::Part,
                    }
                    at = (at + 2).min(input.len());
                }
            }
            // Behind a field: the delimiter, the end of the line, or the end of the file.
            let carriage = input.get(at) == Some(&b'\r');
            let ends = match input.get(at + carriage as usize) {
                Some(b'\n') => Some(at + carriage as usize + 1),
                None if last => Some(input.len()),
                None if quoted => return Split::Part,
                _ => None,
            };
            if let Some(end) = ends {
                if !quoted
                    && content.len() > fields.last().map_or(0, |field| field.end)
                    && content.last() == Some(&b'\r')
                {
                    content.pop();
                }
                let null = !quoted && literal.is_some_and(|null| without_line_end(&input[begin..end]) == null);
                fields.push(Piece { end: content.len(), quoted, null });
                return Split::Record(end);
            }
            if input.get(at) != Some(&delimiter) {
                let end = memchr::memchr(b'\n', &input[at..]).map(|run| at + run + 1);
                return match end {
                    Some(end) => {
                        Split::Broken(end, "after a closing quote, expected a delimiter or the end of the line")
                    }
                    None if last => {
                        Split::Broken(input.len(), "after a closing quote, expected a delimiter or the end of the line")
                    }
                    None => Split::Part,
                };
            }
            let null = !quoted && literal == Some(&input[begin..at]);
            fields.push(Piece { end: content.len(), quoted, null });
            at += 1;
        }
    }

    fn check_header(&self) -> std::result::Result<(), String> {
        let found: Vec<_> = (0..self.record.fields.len())
            .map(|i| String::from_utf8_lossy(self.record.field(i).0).trim().to_string())
            .collect();
        let named =
            found.len() == self.columns.len() && found.iter().zip(&self.columns).all(|(name, c)| *name == c.name);
        let names: Vec<_> = self.columns.iter().map(|column| column.name.as_str()).collect();
        match named {
            true => Ok(()),
            false => Err(format!("expected the header {}, found {}", names.join(","), found.join(","))),
        }
    }

    /// The split record as the next row; how many of its fields are NULL because they could not be read, and what is
    /// wrong with the first. After an error the columns must be cut back.
    fn append(&mut self) -> std::result::Result<Option<(u64, Problem)>, Problem> {
        let lenient = self.options.on_error == OnError::Null;
        let mut nulled: Option<(u64, Problem)> = None;
        let mut null = |problem: Problem| match &mut nulled {
            Some((fields, _)) => *fields += 1,
            None => nulled = Some((1, problem)),
        };
        let (found, wanted) = (self.record.fields.len(), self.columns.len());
        if found != wanted {
            let columns = if wanted == 1 { "column" } else { "columns" };
            let problem = (None, format!("expected {wanted} {columns}, found {found}"));
            if !lenient {
                return Err(problem);
            }
            (0..found.abs_diff(wanted)).for_each(|_| null(problem.clone()));
        }
        for (index, column) in self.columns.iter_mut().enumerate() {
            if index >= found {
                if !column.nullable {
                    return Err((Some(column.name.clone()), "missing, and the column is NOT NULL".into()));
                }
                column.nulls(1);
                continue;
            }
            let (text, piece) = self.record.field(index);
            let is_text = matches!(column.values, Values::String(_));
            if piece.null || (text.is_empty() && !piece.quoted && !is_text) {
                if !column.nullable {
                    return Err((Some(column.name.clone()), "null, and the column is NOT NULL".into()));
                }
                column.nulls(1);
            } else if !scalar::append(column, text) {
                let shown: String = String::from_utf8_lossy(&text[..text.len().min(200)]).chars().take(40).collect();
                let expected = if is_text { "UTF-8" } else { scalar::expected(&column.ty) };
                let problem = (Some(column.name.clone()), format!("expected {expected}, found {shown:?}"));
                if !lenient || !column.nullable {
                    return Err(problem);
                }
                column.nulls(1);
                null(problem);
            }
        }
        Ok(nulled)
    }
}

/// A column, and what is wrong with it.
type Problem = (Option<String>, String);

/// Where the first line of the input ends.
fn first_line(input: &[u8]) -> usize {
    memchr::memchr(b'\n', input).map_or(input.len(), |at| at + 1)
}

fn without_line_end(text: &[u8]) -> &[u8] {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.strip_suffix(b"\r").unwrap_or(text)
}

fn line_ends(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

impl Decoder for CsvDecoder {
    fn begin(&mut self, from_start: bool) {
        self.header = self.options.header && from_start;
    }

    fn decode(&mut self, input: &[u8], last: bool) -> Decoded {
        let (mut at, mut lines) = (0, 0);
        let mut nulled = Nulled::default();
        let stop = loop {
            if at == input.len() {
                break Stop::Input;
            }
            if self.rows >= BATCH_ROWS || self.bytes + at >= BATCH_BYTES {
                break Stop::Full;
            }
            let rest = &input[at..];
            // Empty lines and comments are no records.
            let blank = if rest.starts_with(b"\n") {
                Some(1)
            } else if rest.starts_with(b"\r\n") {
                Some(2)
            } else if rest[0] == b'#' && self.options.comments {
                match memchr::memchr(b'\n', rest) {
                    Some(end) => Some(end + 1),
                    None if last => Some(rest.len()),
                    None => break Stop::Input,
                }
            } else {
                None
            };
            if let Some(length) = blank {
                lines += line_ends(&rest[..length]);
                at += length;
                continue;
            }
            let is_header = self.header;
            let (length, problem) = match self.split(rest, last) {
                Split::Part => break Stop::Input,
                Split::Broken(length, reason) => (length, Err((None, reason.to_string()))),
                Split::Record(length) if std::mem::take(&mut self.header) => {
                    (length, self.check_header().map_err(|reason| (None, reason)))
                }
                Split::Record(length) => {
                    let rows = self.rows;
                    let result = self.append();
                    match &result {
                        Ok(_) => self.rows += 1,
                        Err(_) => self.columns.iter_mut().for_each(|column| column.truncate(rows)),
                    }
                    let result = result.map(|row| {
                        let Some((fields, (column, reason))) = row else { return };
                        nulled.fields += fields;
                        nulled
                            .first
                            .get_or_insert_with(|| DecodeError::new(at, lines, column, reason, &rest[..length]));
                    });
                    (length, result)
                }
            };
            let record = &rest[..length];
            let start = at;
            let line = lines;
            at += length;
            lines += line_ends(record);
            if let Err((column, reason)) = problem {
                let error = DecodeError::new(start, line, column, reason, record);
                break Stop::Bad(DecodeError { fatal: is_header, ..error });
            }
        };
        self.bytes += at;
        Decoded { consumed: at, lines, stop, nulled }
    }

    /// Exactly one record, with or without a line end; a message has no header.
    fn decode_record(&mut self, payload: &[u8], nulled: &mut Nulled) -> std::result::Result<usize, Box<DecodeError>> {
        self.header = false;
        let rows = self.rows;
        let reason = match self.split(payload, true) {
            Split::Record(length) if length < payload.len() => {
                Err((None, "expected one record, found more behind its line end".to_string()))
            }
            Split::Record(_) => self.append(),
            Split::Broken(_, reason) => Err((None, reason.to_string())),
            Split::Part => Err((None, "expected a whole record".to_string())),
        };
        match reason {
            Ok(row) => {
                if let Some((fields, (column, reason))) = row {
                    nulled.add(Nulled { fields, first: Some(DecodeError::new(0, 0, column, reason, payload)) });
                }
                self.rows += 1;
                self.bytes += payload.len();
                Ok(1)
            }
            Err((column, reason)) => {
                self.columns.iter_mut().for_each(|column| column.truncate(rows));
                Err(Box::new(DecodeError::new(0, 0, column, reason, payload)))
            }
        }
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
        self.options.on_error
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ef_proto::schema::Field;

    #[test]
    fn a_message_is_exactly_one_record_without_a_header() {
        let fields = [("n", DataType::Int64), ("s", DataType::String)].map(|(name, ty)| Field::new(name, ty, true));
        let options = Csv {
            on_error: OnError::Skip,
            delimiter: b',',
            quote: Some(b'"'),
            escape: None,
            null_literal: None,
            comments: false,
            header: true,
        };
        let mut decoder = CsvDecoder::new(&Schema::new(fields.into()), &options).expect("valid");
        let mut decode = |text: &str| {
            let rows = decoder.rows();
            let decoded = decoder.decode_record(text.as_bytes(), &mut Nulled::default());
            assert_eq!(decoder.rows() - rows, decoded.is_ok() as usize, "a bad message leaves nothing");
            decoded.map_err(|error| error.to_string())
        };
        for text in ["1,a", "2,b\n", "3,\"two\nlines\"\r\n", ","] {
            assert_eq!(decode(text), Ok(1), "{text:?}");
        }
        for (text, expected) in [
            ("4,a\n5,b", "expected one record, found more behind its line end"),
            ("x,a", "column \"n\": expected"),
            ("6", "expected 2 columns, found 1"),
            ("7,\"a", "a quoted field is never closed"),
        ] {
            let error = decode(text).expect_err(text);
            assert!(error.contains(expected), "{text:?}: {error}");
        }
        assert_eq!(decoder.take().expect("columns").num_rows(), 4);
    }
}
