//! Batches on the wire: Arrow IPC record batch messages without their schema, which both sides know from the plan.
//!
//! Encoding copies each batch once, into its body. Decoding copies only buffers that have come to lie unaligned, and
//! trusts nothing: counts, lengths and sizes are checked before Arrow sees them, since Arrow asserts some of them.

use crate::error::{Code, Context, Error, Result};
use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::reader::RecordBatchDecoder;
use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_ipc::{CompressionType, MetadataVersion, root_as_message};
use arrow_schema::{DataType, Fields, IntervalUnit, SchemaRef, TimeUnit};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;

/// What a compressed message may grow to. One that was not compressed has the message's own bound.
const DECODED_BYTES_MAX: u64 = 1 << 30;

/// Every buffer of a body starts at a multiple of this: enough for Arrow's widest numbers.
const ALIGNMENT: usize = 16;

/// The fastest of zstd; a slow link gains more by a quick sender than by the last percent.
const ZSTD_LEVEL: i32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    None,
    Lz4,
    Zstd,
}

/// A batch as it travels.
#[derive(Clone, Debug)]
pub struct Payload {
    pub metadata: Bytes,
    pub body: Bytes,
}

/// Of one sending subtask and edge: its scratch space is used again for every batch.
pub struct Encoder {
    schema: SchemaRef,
    /// The last schema of a batch that was found to have these types.
    checked: SchemaRef,
    options: IpcWriteOptions,
    generator: IpcDataGenerator,
    tracker: DictionaryTracker,
    context: IpcWriteContext,
}

impl Encoder {
    /// Refuses a schema with types beyond those that `ef_proto::schema` knows: views and dictionaries would need
    /// messages of their own.
    pub fn new(schema: SchemaRef, compression: Compression) -> Result<Encoder> {
        check_types(schema.fields())?;
        let codec = match compression {
            Compression::None => None,
            Compression::Lz4 => Some(CompressionType::LZ4_FRAME),
            Compression::Zstd => Some(CompressionType::ZSTD),
        };
        let options = IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5)
            .and_then(|options| options.try_with_compression(codec))
            .and_then(|options| match compression {
                Compression::Zstd => options.try_with_compression_level(Some(ZSTD_LEVEL)),
                Compression::None | Compression::Lz4 => Ok(options),
            })
            .internal(|| "cannot set up the encoding of an exchange".into())?;
        Ok(Encoder {
            checked: schema.clone(),
            schema,
            options,
            generator: IpcDataGenerator::default(),
            tracker: DictionaryTracker::new(false),
            context: IpcWriteContext::default(),
        })
    }

    pub fn encode(&mut self, batch: &RecordBatch) -> Result<Payload> {
        if !Arc::ptr_eq(batch.schema_ref(), &self.checked) {
            self.check(batch)?;
            self.checked = batch.schema();
        }
        let (_, data) = self
            .generator
            .encode(batch, &mut self.tracker, &self.options, &mut self.context)
            .internal(|| "cannot encode a batch for another worker".into())?;
        Ok(Payload { metadata: data.ipc_message.into(), body: data.arrow_data.into() })
    }

    /// The receiver reads by the plan's types: other ones would not fail there, but be read as something else.
    fn check(&self, batch: &RecordBatch) -> Result<()> {
        let schema = batch.schema_ref();
        let (found, wanted) = (schema.fields(), self.schema.fields());
        if found.len() != wanted.len() || !found.iter().zip(wanted).all(|(a, b)| alike(a.data_type(), b.data_type())) {
            let message = format!("a batch of {} on a channel of {}", types(found), types(wanted));
            return Err(Error::new(Code::Internal, message));
        }
        Ok(())
    }
}

fn types(fields: &Fields) -> String {
    let types: Vec<String> = fields.iter().map(|field| field.data_type().to_string()).collect();
    format!("({})", types.join(", "))
}

/// Same buffers, same meaning. Names and nullability inside of a type do not travel.
fn alike(a: &DataType, b: &DataType) -> bool {
    match (a, b) {
        (DataType::List(a), DataType::List(b)) | (DataType::Map(a, _), DataType::Map(b, _)) => {
            alike(a.data_type(), b.data_type())
        }
        (DataType::Struct(a), DataType::Struct(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a.data_type(), b.data_type()))
        }
        (a, b) => a == b,
    }
}

/// What follows a column's validity in the body.
enum Buffers<'a> {
    None,
    Values,
    /// Offsets, then the bytes.
    Bytes,
    /// Offsets, then the items.
    Items(&'a DataType),
    Columns(&'a Fields),
}

/// None for a type that does not travel.
fn buffers(ty: &DataType) -> Option<Buffers<'_>> {
    Some(match ty {
        DataType::Null => Buffers::None,
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Decimal128(..)
        | DataType::Date32
        | DataType::Time32(TimeUnit::Millisecond)
        | DataType::Timestamp(..)
        | DataType::Interval(IntervalUnit::MonthDayNano) => Buffers::Values,
        DataType::Utf8 | DataType::Binary => Buffers::Bytes,
        DataType::List(item) | DataType::Map(item, _) => Buffers::Items(item.data_type()),
        DataType::Struct(fields) => Buffers::Columns(fields),
        _ => return None,
    })
}

fn check_types(fields: &Fields) -> Result<()> {
    match fields.iter().find(|field| !travels(field.data_type())) {
        Some(field) => Err(Error::invalid(format!(
            "column `{}` of type {} cannot be sent to another worker; the types of SQL can",
            field.name(),
            field.data_type()
        ))),
        None => Ok(()),
    }
}

fn travels(ty: &DataType) -> bool {
    match buffers(ty) {
        None => false,
        Some(Buffers::Items(item)) => travels(item),
        Some(Buffers::Columns(fields)) => fields.iter().all(|field| travels(field.data_type())),
        Some(Buffers::None | Buffers::Values | Buffers::Bytes) => true,
    }
}

/// Reads what [`Encoder::encode`] has written by the same schema. Anything else is an error, and never a panic.
pub fn decode(schema: &SchemaRef, payload: Payload) -> std::result::Result<RecordBatch, String> {
    let version = MetadataVersion::V5;
    let message = root_as_message(&payload.metadata).map_err(|e| format!("not an Arrow message: {e}"))?;
    if message.version() != version {
        return Err(format!("an Arrow message of version {:?}; V5 is accepted", message.version()));
    }
    let batch = message.header_as_record_batch().ok_or("an Arrow message that is no record batch")?;
    Shape::check(schema.fields(), &batch, &payload.body)?;
    let body = Buffer::from(payload.body);
    let dictionaries = HashMap::new();
    RecordBatchDecoder::try_new(&body, batch, schema.clone(), &dictionaries, &version)
        .map(|decoder| decoder.with_require_alignment(false))
        .and_then(RecordBatchDecoder::read_record_batch)
        .map_err(|e| format!("not a batch of the edge's schema: {e}"))
}

/// Walks a message's nodes and buffers along the schema, as Arrow will.
struct Shape<'a> {
    nodes: std::vec::IntoIter<(i64, i64)>,
    /// Offset and length in the body.
    buffers: std::vec::IntoIter<(i64, i64)>,
    body: &'a [u8],
    compressed: bool,
    decoded_bytes: u64,
}

impl Shape<'_> {
    fn check(fields: &Fields, batch: &arrow_ipc::RecordBatch<'_>, body: &[u8]) -> std::result::Result<(), String> {
        let rows = batch.length();
        if !(0..=i64::from(i32::MAX)).contains(&rows) {
            return Err(format!("a batch of {rows} rows"));
        }
        if batch.variadicBufferCounts().is_some_and(|counts| !counts.is_empty()) {
            return Err("a batch with views".into());
        }
        let nodes: Vec<_> =
            batch.nodes().into_iter().flatten().map(|node| (node.length(), node.null_count())).collect();
        let buffers: Vec<_> = batch.buffers().into_iter().flatten().map(|b| (b.offset(), b.length())).collect();
        let compressed = batch.compression().is_some();
        let mut shape =
            Shape { nodes: nodes.into_iter(), buffers: buffers.into_iter(), body, compressed, decoded_bytes: 0 };
        fields.iter().try_for_each(|field| shape.column(field.data_type()))
    }

    fn column(&mut self, ty: &DataType) -> std::result::Result<(), String> {
        let (length, nulls) = self.nodes.next().ok_or("a batch with too few columns")?;
        if !(0..=i64::from(i32::MAX)).contains(&length) || !(0..=length).contains(&nulls) {
            return Err(format!("a column of {length} values with {nulls} nulls"));
        }
        let rest = buffers(ty).ok_or_else(|| format!("a column of type {ty}"))?;
        if matches!(rest, Buffers::None) {
            return Ok(());
        }
        let validity = self.buffer()?;
        if nulls > 0 && validity < (length as u64).div_ceil(8) {
            return Err(format!("{validity} bytes of validity for {length} values"));
        }
        match rest {
            Buffers::None => Ok(()),
            Buffers::Values => self.buffer().map(|_| ()),
            Buffers::Bytes => {
                self.offsets()?;
                self.buffer().map(|_| ())
            }
            Buffers::Items(item) => {
                self.offsets()?;
                self.column(item)
            }
            Buffers::Columns(fields) => fields.iter().try_for_each(|field| self.column(field.data_type())),
        }
    }

    fn offsets(&mut self) -> std::result::Result<(), String> {
        let size = self.buffer()?;
        // Arrow reads the buffer as numbers before it looks at what they say.
        if size.is_multiple_of(size_of::<i32>() as u64) { Ok(()) } else { Err(format!("offsets of {size} bytes")) }
    }

    /// The next buffer's size when it is decompressed.
    fn buffer(&mut self) -> std::result::Result<u64, String> {
        let (offset, length) = self.buffers.next().ok_or("a batch with too few buffers")?;
        let outside = || format!("a buffer of {length} bytes at {offset} in a body of {}", self.body.len());
        let start = usize::try_from(offset).map_err(|_| outside())?;
        let end = usize::try_from(length).ok().and_then(|length| start.checked_add(length)).ok_or_else(outside)?;
        let bytes = self.body.get(start..end).ok_or_else(outside)?;
        if !self.compressed || bytes.is_empty() {
            return Ok(bytes.len() as u64);
        }
        let (prefix, rest) = bytes.split_first_chunk::<8>().ok_or("a compressed buffer without its size")?;
        let size = match i64::from_le_bytes(*prefix) {
            // So that it is not worth compressing.
            -1 => rest.len() as u64,
            size => u64::try_from(size).map_err(|_| format!("a compressed buffer of {size} bytes"))?,
        };
        self.decoded_bytes = self.decoded_bytes.saturating_add(size);
        if self.decoded_bytes > DECODED_BYTES_MAX {
            return Err(format!("a batch of more than {DECODED_BYTES_MAX} bytes when decompressed"));
        }
        Ok(size)
    }
}

#[cfg(test)]
pub(super) mod tests;
