//! Batches to bytes, appended to a buffer that the sink owns: one row a line for files, one row a record for messages.
//!
//! Encoders keep no rows back; where a file begins is the sink's business, which asks for the [`Encoder::header`].

use super::avro::schema::derive;
use super::decode::NO_REGISTRY;
use crate::error::{Error, Result};
use arrow_array::RecordBatch;
use ef_proto::connector::{Avro, Format};
use ef_proto::error::Code;
use ef_proto::schema::{RowKind, Schema};

mod avro;
mod changelog;
mod csv;
mod debezium;
mod json;
mod protobuf;
mod raw;
#[cfg(test)]
mod tests;
pub(crate) mod text;
pub(crate) mod view;

pub trait Encoder: Send {
    /// What a file of this format opens with.
    fn header(&mut self, _out: &mut Vec<u8>) {}

    /// Appends every row of the batch and calls `end` behind each. After an error what has been appended is of no use.
    fn write(&mut self, batch: &RecordBatch, out: &mut Vec<u8>, end: &mut dyn FnMut(&mut Vec<u8>)) -> Result<()>;

    /// Appends every row of the batch as one line.
    fn encode(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        self.write(batch, out, &mut |out| out.push(b'\n'))
    }

    /// Appends every row of the batch, without line ends, and where each of them ends in `out`: row i is
    /// `out[ends[i - 1]..ends[i]]`, when both were empty before.
    fn encode_rows(&mut self, batch: &RecordBatch, out: &mut Vec<u8>, ends: &mut Vec<usize>) -> Result<()> {
        self.write(batch, out, &mut |out| ends.push(out.len()))
    }
}

/// `schema` without `_op`; `changelog`: batches carry `_op` as their last column.
pub fn encoder(format: &Format, schema: &Schema, changelog: bool) -> Result<Box<dyn Encoder>> {
    Ok(match format {
        Format::Json(options) => Box::new(json::Encoder::new(options, schema)),
        Format::ChangelogJson(options) => Box::new(changelog::Encoder::new(options, schema, changelog)),
        Format::Csv(options) => Box::new(csv::Encoder::new(options, schema)),
        Format::Raw(options) => Box::new(raw::Encoder::new(options, schema)),
        Format::DebeziumJson(options) => Box::new(debezium::Encoder::new(options, schema, changelog)),
        Format::Protobuf(options) => Box::new(protobuf::Encoder::new(options, schema)?),
        Format::Avro(_) => Box::new(avro::Encoder::new(schema)),
        Format::AvroConfluent(_) => return Err(Error::new(Code::Internal, NO_REGISTRY)),
    })
}

/// Of `avro-confluent`: `id` is what the registry calls the schema that [`avro_schema`] gives.
pub fn registered(schema: &Schema, id: u32) -> Box<dyn Encoder> {
    Box::new(avro::Encoder::registered(schema, id))
}

/// What is registered for rows of these columns, as JSON.
pub fn avro_schema(schema: &Schema, options: &Avro) -> String {
    derive(schema, options.legacy_timestamps)
}

/// The kinds of a changelog batch's rows.
pub(crate) fn row_kinds(batch: &RecordBatch) -> Result<Vec<RowKind>> {
    json::kinds(batch)?.iter().map(|op| json::kind(*op)).collect()
}

/// NDJSON with SQL timestamps, `_op` first when the rows are a changelog: what the bare SELECT prints.
pub fn lines(schema: &Schema, changelog: bool) -> Box<dyn Encoder> {
    Box::new(json::Encoder::for_people(schema, changelog))
}
