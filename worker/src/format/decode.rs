//! What every decoder of rows promises to the connector that feeds it.
//!
//! The reader hands over whatever lies in its buffer; the decoder takes whole rows from the front, says how far it got
//! (so that the reader knows byte offset and line number behind every row), and stops when the batch is full, when the
//! input is used up, or behind a row that it could not decode. A bad row leaves nothing in the columns; whether the
//! job stops for it is decided by the reader, from [`Decoder::on_error`]. Only where bad fields become NULL does the
//! decoder itself go on behind them.

use super::csv::CsvDecoder;
use super::json::{JsonDecoder, debezium};
use super::{avro, protobuf, raw};
use crate::error::{Context, Error, Result};
use arrow_array::builder::{Int64Builder, StringBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use ef_proto::connector::{AvroConfluent, Format, OnError};
use ef_proto::error::Code;
use ef_proto::plan::error_schema;
use ef_proto::schema::Schema;
use std::fmt;
use std::sync::Arc;

/// Longest row in bytes: a file without line ends must not fill the memory.
pub const LINE_BYTES: usize = 16 << 20;

/// Bytes of a bad row that are kept for the error table.
pub const RAW_BYTES: usize = 4096;

/// `connector::formats` opens it.
pub(super) const NO_REGISTRY: &str = "format 'avro-confluent' is opened with its registry";

/// How far a call of [`Decoder::decode`] got.
#[derive(Debug)]
pub struct Decoded {
    /// Bytes of `input` that need not be given again: whole rows, bad ones included.
    pub consumed: usize,
    /// Line ends among them.
    pub lines: u64,
    pub stop: Stop,
    pub nulled: Nulled,
}

/// Fields that could not be read and are NULL instead, by [`OnError::Null`].
#[derive(Debug, Default)]
pub struct Nulled {
    pub fields: u64,
    /// The first row with one.
    pub first: Option<DecodeError>,
}

impl Nulled {
    pub(crate) fn add(&mut self, other: Nulled) {
        self.fields += other.fields;
        if self.first.is_none() {
            self.first = other.first;
        }
    }
}

#[derive(Debug)]
pub enum Stop {
    /// All whole rows of the input are decoded: give more, with the rest of this input in front.
    Input,
    /// The batch has reached `frame::BATCH_ROWS` rows or `frame::BATCH_BYTES` bytes: take it.
    Full,
    /// A row could not be decoded; the next call goes on behind it.
    Bad(DecodeError),
}

/// Why a row could not be decoded, and where it is in the input of that call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// Where the row begins.
    pub offset: usize,
    /// Line ends before it.
    pub line: u64,
    /// Dotted, with indexes of arrays: `bid.tags[2]`.
    pub column: Option<String>,
    pub reason: String,
    /// The row, cut to [`RAW_BYTES`].
    pub raw: String,
    /// The whole file is another than the schema says (its header): fail, whatever the policy for rows.
    pub fatal: bool,
}

impl DecodeError {
    pub(crate) fn new(offset: usize, line: u64, column: Option<String>, reason: String, row: &[u8]) -> DecodeError {
        let row = row.strip_suffix(b"\n").unwrap_or(row);
        let row = row.strip_suffix(b"\r").unwrap_or(row);
        let raw = String::from_utf8_lossy(&row[..row.len().min(RAW_BYTES)]).into_owned();
        DecodeError { offset, line, column, reason, raw, fatal: false }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.column {
            Some(column) => write!(f, "column \"{column}\": {}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

pub trait Decoder: Send {
    /// A new file begins: `from_start` false when the next byte is not its first (then there is no header to check).
    fn begin(&mut self, from_start: bool);

    /// Decodes rows from the front of `input`. `last`: nothing follows `input`, so a row without line end is whole.
    fn decode(&mut self, input: &[u8], last: bool) -> Decoded;

    /// Decodes one message, all of which is `payload`; says how many rows it made (one, for most formats). Fields that
    /// became NULL are added to `nulled`. Not to be called when the batch has its fill of rows or bytes. Those whose
    /// messages are not as good as the lines of a file have a body of their own.
    fn decode_record(&mut self, payload: &[u8], nulled: &mut Nulled) -> std::result::Result<usize, Box<DecodeError>> {
        let before = self.rows();
        let decoded = self.decode(payload, true);
        nulled.add(decoded.nulled);
        match decoded.stop {
            Stop::Bad(error) => Err(Box::new(error)),
            _ => Ok(self.rows() - before),
        }
    }

    /// Rows in the open batch.
    fn rows(&self) -> usize;

    /// The open batch, perhaps of no rows; the next one begins.
    fn take(&mut self) -> Result<RecordBatch>;

    fn on_error(&self) -> OnError;
}

/// The decoder of a source's format. `schema`: the columns to materialise, METADATA columns not among them.
pub fn decoder(format: &Format, schema: &Schema) -> Result<Box<dyn Decoder>> {
    Ok(match format {
        Format::Json(options) => Box::new(JsonDecoder::new(schema, options)?),
        Format::Csv(options) => Box::new(CsvDecoder::new(schema, options)?),
        Format::ChangelogJson(_) => {
            return Err(Error::invalid("format 'changelog-json' can be written, not read; use 'json'"));
        }
        Format::Raw(options) => Box::new(raw::decoder(schema, options)?),
        Format::DebeziumJson(options) => Box::new(debezium::decoder(schema, options)?),
        Format::Protobuf(options) => Box::new(protobuf::decoder(schema, options)?),
        Format::Avro(options) => Box::new(avro::decoder(schema, options)?),
        Format::AvroConfluent(_) => return Err(Error::new(Code::Internal, NO_REGISTRY)),
    })
}

/// Of `avro-confluent`, with the registry that has the schemas of its messages.
pub fn registered(
    options: &AvroConfluent,
    schema: &Schema,
    registry: Box<dyn avro::SchemaRegistry>,
) -> Result<Box<dyn Decoder>> {
    Ok(Box::new(avro::registered(schema, options, registry)?))
}

/// The bad rows that a source skipped since its last batch: rows of `plan::error_schema`.
#[derive(Debug, Default)]
pub struct ErrorRows {
    table: StringBuilder,
    file: StringBuilder,
    line: Int64Builder,
    raw: StringBuilder,
    error: StringBuilder,
    len: usize,
}

impl ErrorRows {
    pub fn push(&mut self, table: &str, file: Option<&str>, line: Option<u64>, error: &DecodeError) {
        self.table.append_value(table);
        self.file.append_option(file);
        self.line.append_option(line.map(|line| line as i64));
        self.raw.append_value(&error.raw);
        self.error.append_value(error.to_string());
        self.len += 1;
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn take(&mut self) -> Result<Option<RecordBatch>> {
        if std::mem::take(&mut self.len) == 0 {
            return Ok(None);
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.table.finish()),
            Arc::new(self.file.finish()),
            Arc::new(self.line.finish()),
            Arc::new(self.raw.finish()),
            Arc::new(self.error.finish()),
        ];
        RecordBatch::try_new(error_schema().to_arrow(), columns).map(Some).internal(|| "error rows".into())
    }
}
