//! Batches to bytes: one row a line, appended to a buffer that the sink owns.
//!
//! Encoders keep no rows back; where a file begins is the sink's business, which asks for the [`Encoder::header`].

use crate::error::Result;
use arrow_array::RecordBatch;
use ef_proto::connector::Format;
use ef_proto::schema::{RowKind, Schema};

mod changelog;
mod csv;
mod json;
#[cfg(test)]
mod tests;
pub(crate) mod view;

pub trait Encoder: Send {
    /// What a file of this format opens with.
    fn header(&mut self, _out: &mut Vec<u8>) {}

    /// Appends every row of the batch as one line.
    fn encode(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<()>;
}

/// `schema` without `_op`; `changelog`: batches carry `_op` as their last column.
pub fn encoder(format: &Format, schema: &Schema, changelog: bool) -> Box<dyn Encoder> {
    match format {
        Format::Json(options) => Box::new(json::Encoder::new(options, schema)),
        Format::ChangelogJson(options) => Box::new(changelog::Encoder::new(options, schema, changelog)),
        Format::Csv(options) => Box::new(csv::Encoder::new(options, schema)),
    }
}

/// The kinds of a changelog batch's rows.
pub(crate) fn row_kinds(batch: &RecordBatch) -> Result<Vec<RowKind>> {
    json::kinds(batch)?.iter().map(|op| json::kind(*op)).collect()
}

/// NDJSON with SQL timestamps, `_op` first when the rows are a changelog: what the bare SELECT prints.
pub fn lines(schema: &Schema, changelog: bool) -> Box<dyn Encoder> {
    Box::new(json::Encoder::for_people(schema, changelog))
}
