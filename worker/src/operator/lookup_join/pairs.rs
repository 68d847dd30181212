//! The rows of one batch with the rows of their keys: pairs, the residual condition, and for LEFT joins the rows that
//! match nothing, all in the order of the batch.

use crate::error::{Context, Result};
use crate::expr::{EvalContext, Program};
use crate::frame::BATCH_ROWS;
use crate::lookup::Rows;
use crate::operator::Scope;
use arrow_array::{ArrayRef, RecordBatch, UInt32Array};
use arrow_row::{RowConverter, SortField};
use arrow_schema::{ArrowError, Schema as ArrowSchema, SchemaRef};
use arrow_select::take::take;
use ef_proto::plan::LookupJoin;
use ef_proto::schema::Schema;
use std::sync::Arc;

use super::NO_KEY;

/// Where a column of the table comes from.
#[derive(Clone, Copy)]
enum Origin {
    /// It is the n-th key column: the answer need not repeat it.
    Key(usize),
    /// The n-th column of the answers.
    Value(usize),
}

pub struct Pairs {
    outer: bool,
    right: Vec<Origin>,
    /// None: all columns of the table are of the key, and an answer says only whether there is a row.
    values: Option<RowConverter>,
    filter: Option<Program>,
    schema: SchemaRef,
    /// With all columns nullable, for the filter.
    pair: SchemaRef,
}

/// The columns that pairs are made of.
struct Sides<'a> {
    batch: &'a RecordBatch,
    keys: &'a [ArrayRef],
    /// Of all found rows.
    values: &'a [ArrayRef],
}

/// A row of the batch and one of the found ones; None: NULLs.
type Pair = (u32, Option<u32>);

impl Pairs {
    pub fn new(spec: &LookupJoin, input: &Schema, output: &Schema, outer: bool) -> Result<Pairs> {
        let values = spec.values();
        let origin = |name: &str| match spec.keys.iter().position(|key| key.field.name == name) {
            Some(key) => Origin::Key(key),
            None => Origin::Value(values.index_of(name).unwrap_or(0)),
        };
        let right = spec.right.fields.iter().map(|field| origin(&field.name)).collect();
        let sorts: Vec<SortField> =
            values.to_arrow().fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
        let converter = match sorts.is_empty() {
            true => None,
            false => Some(RowConverter::new(sorts).internal(|| "columns of a lookup".into())?),
        };
        let both = Schema::new(input.fields.iter().chain(&spec.right.fields).cloned().collect());
        let filter = spec.filter.as_ref().map(|filter| Program::compile(filter, &both)).transpose()?;
        let schema = output.to_arrow();
        let fields: Vec<_> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        Ok(Pairs { outer, right, values: converter, filter, schema, pair: Arc::new(ArrowSchema::new(fields)) })
    }

    /// The rows of an answer, as they are kept.
    pub fn encode(&self, rows: &RecordBatch) -> Result<Vec<Box<[u8]>>> {
        let Some(converter) = &self.values else { return Ok(vec![Box::default(); rows.num_rows()]) };
        let encoded = converter.convert_columns(rows.columns()).internal(|| "keeping answers of a lookup".into())?;
        Ok(encoded.iter().map(|row| row.data().into()).collect())
    }

    /// Emits the join of a batch. `keys`: the key columns of its rows; `key_of`: each row's key among the distinct
    /// ones; `answers`: of those.
    pub fn join(
        &mut self,
        batch: &RecordBatch,
        keys: &[ArrayRef],
        key_of: &[u32],
        answers: &[Rows],
        scope: &mut Scope<'_>,
    ) -> Result<()> {
        let mut first = Vec::with_capacity(answers.len());
        let mut found: Vec<&[u8]> = Vec::new();
        for rows in answers {
            first.push(found.len() as u32);
            found.extend(rows.iter().map(AsRef::as_ref));
        }
        let values = match &self.values {
            None => vec![],
            Some(converter) => {
                let parser = converter.parser();
                let rows = found.iter().map(|row| parser.parse(row));
                converter.convert_rows(rows).internal(|| "reading answers of a lookup".into())?
            }
        };
        let sides = Sides { batch, keys, values: &values };
        let mut pairs: Vec<Pair> = Vec::with_capacity(key_of.len().min(BATCH_ROWS));
        for (row, key) in key_of.iter().enumerate() {
            let matches = if *key == NO_KEY { 0 } else { answers[*key as usize].len() as u32 };
            if matches == 0 && self.outer {
                pairs.push((row as u32, None));
            }
            pairs.extend((0..matches).map(|n| (row as u32, Some(first[*key as usize] + n))));
            // Only behind all pairs of a row: whether it matches anything is known then.
            if pairs.len() >= BATCH_ROWS {
                self.emit(&sides, &mut pairs, scope)?;
            }
        }
        self.emit(&sides, &mut pairs, scope)
    }

    fn emit(&mut self, sides: &Sides<'_>, pairs: &mut Vec<Pair>, scope: &mut Scope<'_>) -> Result<()> {
        self.restrict(sides, pairs, scope.now_ms)?;
        for part in pairs.chunks(BATCH_ROWS) {
            let columns = self.columns(sides, part)?;
            let rows = RecordBatch::try_new(self.schema.clone(), columns).internal(|| "rows of a lookup".into())?;
            scope.out.emit(rows)?;
        }
        pairs.clear();
        Ok(())
    }

    /// Leaves out the pairs that the condition refuses; a row of which none is left matches nothing.
    fn restrict(&mut self, sides: &Sides<'_>, pairs: &mut Vec<Pair>, now_ms: i64) -> Result<()> {
        if self.filter.is_none() {
            return Ok(());
        }
        let candidates: Vec<Pair> = pairs.iter().copied().filter(|pair| pair.1.is_some()).collect();
        if candidates.is_empty() {
            return Ok(());
        }
        let columns = self.columns(sides, &candidates)?;
        let batch = RecordBatch::try_new(self.pair.clone(), columns).internal(|| "pairs of a lookup".into())?;
        let Some(filter) = &mut self.filter else { return Ok(()) };
        let passes = filter.passes(&batch, &EvalContext { now_ms })?;
        let mut passes = passes.values().iter();
        let all = std::mem::take(pairs);
        let mut at = 0;
        while at < all.len() {
            let row = all[at].0;
            let of_row = all[at..].iter().take_while(|pair| pair.0 == row).count();
            let before = pairs.len();
            for pair in &all[at..at + of_row] {
                if pair.1.is_some() && passes.next() == Some(true) {
                    pairs.push(*pair);
                }
            }
            if self.outer && pairs.len() == before {
                pairs.push((row, None));
            }
            at += of_row;
        }
        Ok(())
    }

    fn columns(&self, sides: &Sides<'_>, pairs: &[Pair]) -> Result<Vec<ArrayRef>> {
        let all = pairs.len() == sides.batch.num_rows() && pairs.iter().enumerate().all(|(i, p)| p.0 as usize == i);
        let left = UInt32Array::from_iter_values(pairs.iter().map(|pair| pair.0));
        let matched: UInt32Array = pairs.iter().map(|pair| pair.1.map(|_| pair.0)).collect();
        let found: UInt32Array = pairs.iter().map(|pair| pair.1).collect();
        let lefts = sides.batch.columns().iter().map(|column| match all {
            true => Ok(column.clone()),
            false => take(column, &left, None),
        });
        let rights = self.right.iter().map(|origin| match origin {
            Origin::Key(key) => take(&sides.keys[*key], &matched, None),
            Origin::Value(value) => take(&sides.values[*value], &found, None),
        });
        let columns: std::result::Result<Vec<ArrayRef>, ArrowError> = lefts.chain(rights).collect();
        columns.internal(|| "pairing rows of a lookup".into())
    }
}
