//! From records to batches: the value's decoder, the key's, METADATA columns, and what is done about bad records.
//!
//! Payloads are decoded where they lie in librdkafka's buffers. A record is decoded value first, then key; one that
//! fails in its key has left a row in the value's columns, which is taken out when the batch is closed: that is rare.

use super::metadata::Metadata;
use super::queue::Record;
use crate::connector::{Place, formats};
use crate::error::{Context, Error, Result};
use crate::format::{DecodeError, Decoder, ErrorRows, Nulled};
use crate::frame::{BATCH_BYTES, BATCH_ROWS};
use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow_schema::SchemaRef;
use arrow_select::take::take;
use ef_proto::connector::{Format, KafkaKey, OnError};
use ef_proto::plan;
use ef_proto::schema::{Field, Schema};

/// Skipped records that close a batch.
const ERRORS_MAX: usize = 1024;

/// Where a column of the table comes from.
#[derive(Clone, Copy, Debug)]
enum From {
    Value(usize),
    Key(usize),
    Metadata(usize),
}

pub struct Rows {
    table: String,
    schema: SchemaRef,
    columns: Vec<From>,
    value: Box<dyn Decoder>,
    key: Option<Key>,
    metadata: Vec<Metadata>,
    /// Rows of the value's batch that were taken back.
    dropped: Vec<u32>,
    errors: ErrorRows,
    nulled: Nulled,
    field_error: Option<String>,
    field_error_told: bool,
    /// Of keys and values in the open batch.
    bytes: u64,
    tombstones: u64,
    /// Records since the batch began.
    passed: usize,
}

/// Of records that make no rows so many close a batch too: a task has others to listen to.
const PASSED_MAX: usize = 4 * BATCH_ROWS;

struct Key {
    decoder: Box<dyn Decoder>,
    /// A column that cannot be NULL, when a record has no key.
    not_null: Option<String>,
    /// The key's row of each row of the batch; None while they are the same.
    rows: Option<Vec<Option<u32>>>,
}

/// What is to be done about a record that cannot be decoded.
enum Bad {
    Skip,
    Fail,
}

impl Rows {
    pub fn new(source: &plan::Source, key: Option<&KafkaKey>, place: &Place) -> Result<Rows> {
        let format = source.format.as_ref().ok_or_else(|| Error::invalid("a Kafka source needs a 'format'"))?;
        let fields = &source.physical.fields;
        let mut metadata = Vec::new();
        let mut value_fields = Vec::new();
        let mut columns = Vec::with_capacity(fields.len());
        for (index, field) in fields.iter().enumerate() {
            if let Some((_, name)) = source.metadata.iter().find(|(at, _)| *at == index) {
                columns.push(From::Metadata(metadata.len()));
                metadata.push(Metadata::new(name, field)?);
            } else if let Some(at) = key.and_then(|key| key.columns.iter().position(|column| *column == index)) {
                columns.push(From::Key(at));
            } else {
                columns.push(From::Value(value_fields.len()));
                value_fields.push(field.clone());
            }
        }
        let key = match key {
            None => None,
            Some(key) => {
                // In the order of 'key.fields', which is that of its formats without names.
                let field = |column: &usize| {
                    let field = &fields[*column];
                    let name = field.name.strip_prefix(&key.prefix).unwrap_or(&field.name);
                    Field { name: name.to_owned(), ..field.clone() }
                };
                Some(Key::new(&key.format, key.columns.iter().map(field).collect(), place)?)
            }
        };
        let mut value = formats::decoder(format, &Schema::new(value_fields), place)?;
        value.begin(false);
        Ok(Rows {
            table: source.table.clone(),
            schema: source.physical.to_arrow(),
            columns,
            value,
            key,
            metadata,
            dropped: Vec::new(),
            errors: ErrorRows::default(),
            nulled: Nulled::default(),
            field_error: None,
            field_error_told: false,
            bytes: 0,
            tombstones: 0,
            passed: 0,
        })
    }

    /// Records without a value so far: they are no rows.
    pub fn tombstones(&self) -> u64 {
        self.tombstones
    }

    /// The open batch has its fill.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.value.rows() >= BATCH_ROWS
            || self.bytes >= BATCH_BYTES as u64
            || self.errors.len() >= ERRORS_MAX
            || self.passed >= PASSED_MAX
    }

    pub fn is_empty(&self) -> bool {
        self.passed == 0
    }

    /// Decodes a record into the open batch.
    #[inline]
    pub fn push(&mut self, topic: &str, partition: i32, record: &Record<'_>) -> Result<()> {
        self.passed += 1;
        let Some(payload) = record.value() else {
            self.tombstones += 1;
            return Ok(());
        };
        self.bytes += payload.len() as u64;
        let before = self.value.rows();
        let nulled = self.nulled.fields;
        let decoded = self.value.decode_record(payload, &mut self.nulled);
        if self.nulled.fields != nulled {
            self.note_nulled(topic, partition, record);
        }
        let rows = match decoded {
            Ok(rows) => rows,
            Err(error) => return self.bad(topic, partition, record, *error, self.value.on_error()),
        };
        if self.key.is_some() && !self.push_key(topic, partition, record, before, rows)? {
            return Ok(());
        }
        for column in &mut self.metadata {
            for _ in 0..rows {
                column.push(topic, partition, record);
            }
        }
        Ok(())
    }

    /// Whether the record's rows may stay.
    fn push_key(
        &mut self,
        topic: &str,
        partition: i32,
        record: &Record<'_>,
        before: usize,
        rows: usize,
    ) -> Result<bool> {
        let key = self.key.as_mut().expect("asked by the caller");
        let (bytes, on_error) = (record.key(), key.decoder.on_error());
        let nulled = self.nulled.fields;
        let decoded = key.decode(bytes, rows, before - self.dropped.len(), &mut self.nulled);
        self.bytes += bytes.map_or(0, |bytes| bytes.len() as u64);
        if self.nulled.fields != nulled {
            self.note_nulled(topic, partition, record);
        }
        let Err(error) = decoded else { return Ok(true) };
        self.dropped.extend((before..before + rows).map(|row| row as u32));
        self.bad(topic, partition, record, *error, on_error)?;
        Ok(false)
    }

    #[cold]
    fn bad(
        &mut self,
        topic: &str,
        partition: i32,
        record: &Record<'_>,
        error: DecodeError,
        on_error: OnError,
    ) -> Result<()> {
        let offset = record.offset();
        let bad = match on_error {
            OnError::Skip | OnError::Null if !error.fatal => Bad::Skip,
            _ => Bad::Fail,
        };
        match bad {
            Bad::Skip => {
                let file = format!("{topic}/{partition}");
                self.errors.push(&self.table, Some(&file), Some(offset as u64), &error);
                Ok(())
            }
            Bad::Fail => Err(Error::invalid(format!("topic {topic} partition {partition} offset {offset}: {error}"))),
        }
    }

    /// Keeps the first field that became NULL, with its place, to be told once.
    #[cold]
    fn note_nulled(&mut self, topic: &str, partition: i32, record: &Record<'_>) {
        let Some(first) = self.nulled.first.take() else { return };
        if !std::mem::replace(&mut self.field_error_told, true) {
            let offset = record.offset();
            self.field_error = Some(format!("topic {topic} partition {partition} offset {offset}: {first}"));
        }
    }

    /// The open batch; the next one begins.
    pub fn take(&mut self) -> Result<Taken> {
        self.passed = 0;
        let value = self.value.take()?;
        let keep = std::mem::take(&mut self.dropped);
        let keep = (!keep.is_empty()).then(|| {
            let mut dropped = keep.into_iter().peekable();
            let rows = (0..value.num_rows() as u32).filter(|row| dropped.next_if_eq(row).is_none());
            UInt32Array::from_iter_values(rows)
        });
        let rows = keep.as_ref().map_or(value.num_rows(), |keep| keep.len());
        let key = self.key.as_mut().map(Key::take).transpose()?;
        let mut metadata: Vec<ArrayRef> = self.metadata.iter_mut().map(Metadata::finish).collect::<Result<_>>()?;
        let mut columns = Vec::with_capacity(self.columns.len());
        for from in &self.columns {
            columns.push(match *from {
                From::Value(at) => match &keep {
                    None => value.column(at).clone(),
                    Some(keep) => take(value.column(at), keep, None).internal(|| "rows of a batch".into())?,
                },
                From::Key(at) => key.as_ref().expect("columns of the key").column(at).clone(),
                From::Metadata(at) => std::mem::replace(&mut metadata[at], value_less()),
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .internal(|| "columns of value, key and metadata".into())?;
        Ok(Taken {
            batch,
            errors: self.errors.take()?,
            field_errors: std::mem::take(&mut self.nulled).fields,
            field_error: self.field_error.take(),
            bytes: std::mem::take(&mut self.bytes),
        })
    }
}

/// Stands where an array was.
fn value_less() -> ArrayRef {
    std::sync::Arc::new(arrow_array::NullArray::new(0))
}

pub struct Taken {
    pub batch: RecordBatch,
    pub errors: Option<RecordBatch>,
    pub field_errors: u64,
    pub field_error: Option<String>,
    pub bytes: u64,
}

impl Key {
    fn new(format: &Format, fields: Vec<Field>, place: &Place) -> Result<Key> {
        let not_null = fields.iter().find(|field| !field.nullable).map(|field| field.name.clone());
        let mut decoder = formats::decoder(format, &Schema::new(fields), place)?;
        decoder.begin(false);
        Ok(Key { decoder, not_null, rows: None })
    }

    /// The key of a record of `rows` rows; `before`: rows of the batch so far.
    fn decode(
        &mut self,
        bytes: Option<&[u8]>,
        rows: usize,
        before: usize,
        nulled: &mut Nulled,
    ) -> std::result::Result<(), Box<DecodeError>> {
        let wrong = |column: Option<String>, reason: &str| {
            Err(Box::new(DecodeError::new(0, 0, column, reason.to_owned(), bytes.unwrap_or_default())))
        };
        let at = match bytes {
            None => match &self.not_null {
                Some(column) => {
                    return wrong(Some(column.clone()), "the record has no key, and the column is NOT NULL");
                }
                None => None,
            },
            Some(bytes) => {
                let at = self.decoder.rows();
                match self.decoder.decode_record(bytes, nulled)? {
                    1 => Some(at as u32),
                    _ => return wrong(None, "the key is not exactly one row"),
                }
            }
        };
        if rows == 1 && at == Some(before as u32) && self.rows.is_none() {
            return Ok(());
        }
        let of_rows = self.rows.get_or_insert_with(|| (0..before as u32).map(Some).collect());
        of_rows.extend(std::iter::repeat_n(at, rows));
        Ok(())
    }

    fn take(&mut self) -> Result<RecordBatch> {
        let batch = self.decoder.take()?;
        let Some(rows) = self.rows.take() else { return Ok(batch) };
        let rows = UInt32Array::from(rows);
        let columns = batch.columns().iter().map(|column| take(column, &rows, None));
        let columns = columns.collect::<std::result::Result<Vec<_>, _>>().internal(|| "keys of a batch".into())?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        RecordBatch::try_new_with_options(batch.schema(), columns, &options).internal(|| "keys of a batch".into())
    }
}
