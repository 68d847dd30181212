//! Batches to Kafka records: which columns make the key and which the value, and what an upsert's changes become.

use super::record::Record;
use crate::connector::{Place, formats};
use crate::error::{Error, Result};
use crate::format::encode::{Encoder, row_kinds};
use arrow_array::RecordBatch;
use ef_proto::connector::{Format, KafkaSink};
use ef_proto::schema::{Field, RowKind, Schema};

pub struct Rows {
    key: Option<Part>,
    value: Part,
    /// A deleted row is a key without a value. So is one that an update takes away, unless what it becomes follows at once:
    /// behind a filter it may not follow at all.
    upsert: bool,
    /// Key and value of the largest record.
    bytes_max: usize,
    table: String,
}

/// One side of the records.
struct Part {
    /// None: all, `_op` too.
    columns: Option<Vec<usize>>,
    encoder: Box<dyn Encoder>,
    buffer: Vec<u8>,
    ends: Vec<usize>,
}

impl Part {
    fn new(
        format: &Format,
        schema: Schema,
        columns: Option<Vec<usize>>,
        changelog: bool,
        place: &Place,
    ) -> Result<Part> {
        let encoder = formats::encoder(format, &schema, changelog, place)?;
        Ok(Part { columns, encoder, buffer: Vec::new(), ends: Vec::new() })
    }

    fn encode(&mut self, batch: &RecordBatch) -> Result<()> {
        self.buffer.clear();
        self.ends.clear();
        match &self.columns {
            None => self.encoder.encode_rows(batch, &mut self.buffer, &mut self.ends),
            Some(columns) => {
                let part = batch.project(columns).map_err(|e| Error::invalid(format!("columns of a record: {e}")))?;
                self.encoder.encode_rows(&part, &mut self.buffer, &mut self.ends)
            }
        }
    }

    fn row(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.buffer[start..self.ends[row]]
    }
}

impl Rows {
    /// `schema` without `_op`; `changelog`: batches carry one.
    pub fn new(options: &KafkaSink, schema: &Schema, changelog: bool, bytes_max: usize, place: &Place) -> Result<Rows> {
        let table = &place.table;
        let at = |name: &String| {
            let found = schema.index_of(name);
            found.ok_or_else(|| Error::invalid(format!("table `{table}` has no column `{name}` for the key")))
        };
        let keys = options.key_fields.iter().map(at).collect::<Result<Vec<_>>>()?;
        let key = options.key_format.as_ref().map(|format| -> Result<Part> {
            let bare = |at: &usize| {
                let field = &schema.fields[*at];
                let name = field.name.strip_prefix(&options.key_prefix).unwrap_or(&field.name);
                Field::new(name, field.ty.clone(), field.nullable)
            };
            Part::new(format, Schema::new(keys.iter().map(bare).collect()), Some(keys.clone()), false, place)
        });
        let key = key.transpose()?;
        let inside = |at: &usize| options.value_has_key || !keys.contains(at);
        let columns: Vec<usize> = (0..schema.len()).filter(inside).collect();
        let fields = columns.iter().map(|at| schema.fields[*at].clone()).collect();
        // Formats of changelogs are given the kind of each row; for others it is no column.
        let with_op = changelog && !options.upsert;
        let whole = columns.len() == schema.len() && (with_op || !changelog);
        let value = Part::new(&options.value_format, Schema::new(fields), (!whole).then_some(columns), with_op, place)?;
        Ok(Rows { key, value, upsert: options.upsert, bytes_max, table: table.clone() })
    }

    /// Each record of the batch, in order.
    pub fn each(&mut self, batch: &RecordBatch, mut f: impl FnMut(Record<'_>) -> Result<()>) -> Result<()> {
        let kinds = if self.upsert && self.has_op(batch) { Some(row_kinds(batch)?) } else { None };
        if let Some(key) = &mut self.key {
            key.encode(batch)?;
        }
        self.value.encode(batch)?;
        for row in 0..batch.num_rows() {
            let kind = |row: usize| kinds.as_ref().and_then(|kinds| kinds.get(row).copied());
            let replaced = |key: &Part| kind(row + 1) == Some(RowKind::UpdateAfter) && key.row(row) == key.row(row + 1);
            let deleted = match (kind(row), &self.key) {
                (Some(RowKind::UpdateBefore), Some(key)) if replaced(key) => continue,
                (kind, _) => matches!(kind, Some(RowKind::Delete | RowKind::UpdateBefore)),
            };
            let value = (!deleted).then(|| self.value.row(row));
            let record = Record { key: self.key.as_ref().map(|key| key.row(row)), value };
            if record.bytes() > self.bytes_max {
                return Err(self.too_large(&record));
            }
            f(record)?;
        }
        Ok(())
    }

    fn has_op(&self, batch: &RecordBatch) -> bool {
        batch.schema_ref().fields().last().is_some_and(|field| field.name() == ef_proto::schema::OP_COLUMN)
    }

    #[cold]
    fn too_large(&self, record: &Record<'_>) -> Error {
        let beginning = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(100)]).into_owned();
        let shown = match (record.key, record.value) {
            (Some(key), _) => format!("with the key {}", beginning(key)),
            (None, value) => format!("that begins {}", beginning(value.unwrap_or_default())),
        };
        Error::invalid(format!(
            "table `{}`: a row {shown} makes a record of {} bytes, more than {}; 'properties.max.request.size' and the \
             topic's 'max.message.bytes' say how large one may be",
            self.table,
            record.bytes(),
            self.bytes_max
        ))
    }
}

#[cfg(test)]
mod tests;
