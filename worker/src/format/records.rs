//! Decoders of one record after the other: what the formats of messages share.
//!
//! A [`Record`] appends the rows of one payload to the columns; whatever it leaves there when it fails is cut back
//! here, so that no half row is ever delivered. Formats whose records are lines read files too.

use super::column::Column;
use super::decode::{DecodeError, Decoded, Decoder, Nulled, Stop};
use crate::error::{Context, Result};
use crate::frame::{BATCH_BYTES, BATCH_ROWS};
use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;
use ef_proto::connector::OnError;
use ef_proto::schema::Schema;

/// What is wrong with a record: the field as a dotted path, and the reason.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub field: String,
    pub reason: String,
    /// No row is to blame: fail, whatever the policy for them.
    pub fatal: bool,
}

pub(crate) type Parse<T> = std::result::Result<T, Box<Problem>>;

#[cold]
pub(crate) fn problem(reason: impl Into<String>) -> Box<Problem> {
    Box::new(Problem { field: String::new(), reason: reason.into(), fatal: false })
}

impl Problem {
    /// The same, seen from the row that has the field in its `name`.
    #[cold]
    pub fn within(mut self: Box<Self>, name: &str) -> Box<Self> {
        let dot = if self.field.is_empty() || self.field.starts_with('[') { "" } else { "." };
        self.field = format!("{name}{dot}{}", self.field);
        self
    }

    #[cold]
    pub fn at_index(self: Box<Self>, index: usize) -> Box<Self> {
        self.within(&format!("[{index}]"))
    }
}

/// Fields that are NULL because they could not be read, and the first of them.
#[derive(Default)]
pub(crate) struct NulledFields {
    pub fields: u64,
    pub first: Option<(Option<String>, String)>,
}

pub(crate) trait Record: Send {
    /// Why files of lines cannot be read.
    const LINES: std::result::Result<(), &'static str>;

    /// Appends the rows of `payload` to the columns, which hold `rows` values each; how many these are.
    fn append(
        &mut self,
        payload: &[u8],
        columns: &mut [Column],
        rows: usize,
        nulled: &mut NulledFields,
    ) -> Parse<usize>;
}

/// The decoder made of one.
pub(crate) struct Records<R> {
    record: R,
    schema: SchemaRef,
    columns: Vec<Column>,
    rows: usize,
    bytes: usize,
    on_error: OnError,
}

impl<R: Record> Records<R> {
    pub fn new(record: R, schema: &Schema, on_error: OnError) -> Result<Records<R>> {
        Ok(Records {
            record,
            schema: schema.to_arrow(),
            columns: schema.fields.iter().map(Column::new).collect::<Result<_>>()?,
            rows: 0,
            bytes: 0,
            on_error,
        })
    }

    fn append(&mut self, payload: &[u8], nulled: &mut NulledFields) -> Parse<usize> {
        let rows = self.rows;
        match self.record.append(payload, &mut self.columns, rows, nulled) {
            Ok(appended) => {
                self.rows += appended;
                Ok(appended)
            }
            Err(problem) => {
                self.columns.iter_mut().for_each(|column| column.truncate(rows));
                Err(problem)
            }
        }
    }
}

fn error(offset: usize, line: u64, problem: Problem, payload: &[u8]) -> DecodeError {
    let column = (!problem.field.is_empty()).then_some(problem.field);
    DecodeError { fatal: problem.fatal, ..DecodeError::new(offset, line, column, problem.reason, payload) }
}

impl<R: Record> Decoder for Records<R> {
    fn begin(&mut self, _from_start: bool) {}

    fn decode(&mut self, input: &[u8], last: bool) -> Decoded {
        let (mut at, mut lines) = (0, 0);
        let mut nulled = Nulled::default();
        let stop = loop {
            if at == input.len() {
                break Stop::Input;
            }
            if let Err(reason) = R::LINES {
                let error = error(0, 0, *problem(reason), b"");
                break Stop::Bad(DecodeError { fatal: true, ..error });
            }
            if self.rows >= BATCH_ROWS || self.bytes + at >= BATCH_BYTES {
                break Stop::Full;
            }
            let rest = &input[at..];
            let (payload, end) = match memchr::memchr(b'\n', rest) {
                Some(end) => (&rest[..end], end + 1),
                None if last => (rest, rest.len()),
                None => break Stop::Input,
            };
            let payload = payload.strip_suffix(b"\r").unwrap_or(payload);
            let (start, line) = (at, lines);
            at += end;
            lines += (rest[end - 1] == b'\n') as u64;
            let mut fields = NulledFields::default();
            if let Err(problem) = self.append(payload, &mut fields) {
                break Stop::Bad(error(start, line, *problem, payload));
            }
            nulled.fields += fields.fields;
            if let (None, Some((column, reason))) = (&nulled.first, fields.first) {
                nulled.first = Some(DecodeError::new(start, line, column, reason, payload));
            }
        };
        self.bytes += at;
        Decoded { consumed: at, lines, stop, nulled }
    }

    fn decode_record(&mut self, payload: &[u8], nulled: &mut Nulled) -> std::result::Result<usize, Box<DecodeError>> {
        let mut fields = NulledFields::default();
        let appended = self.append(payload, &mut fields);
        let appended = appended.map_err(|problem| Box::new(error(0, 0, *problem, payload)))?;
        self.bytes += payload.len();
        if fields.fields > 0 {
            let first = fields.first.map(|(column, reason)| DecodeError::new(0, 0, column, reason, payload));
            nulled.add(Nulled { fields: fields.fields, first });
        }
        Ok(appended)
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
