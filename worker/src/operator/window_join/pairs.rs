//! The join of one window: two sets of rows in, matching pairs and the rows without a partner out.
//!
//! A hash table over the right side, probed with the left. Rows with a NULL key match nothing; a pair counts as a
//! match only when the residual filter is TRUE for it.

use crate::error::{Context, Result};
use crate::frame::BATCH_ROWS;
use crate::operator::Emit;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array, new_null_array};
use arrow_buffer::NullBuffer;
use arrow_row::{RowConverter, SortField};
use arrow_schema::{ArrowError, DataType as Arrow, Schema as ArrowSchema, SchemaRef};
use arrow_select::filter::{filter_record_batch, prep_null_mask_filter};
use arrow_select::take::take;
use ef_proto::plan::JoinKind;
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// What else a pair must fulfil: TRUE, FALSE or NULL for each row of left columns and right columns.
pub type Filter = Box<dyn FnMut(&RecordBatch, i64) -> Result<BooleanArray> + Send>;

pub struct Pairs {
    pub kind: JoinKind,
    /// Key columns of the left and of the right side.
    pub keys: [Vec<usize>; 2],
    pub filter: Option<Filter>,
    pub left: SchemaRef,
    pub right: SchemaRef,
    /// Left columns and right columns, all nullable: what the filter reads and, but for Semi and Anti, the output.
    pub pair: SchemaRef,
    /// For the keys that are not one BIGINT.
    converter: Option<RowConverter>,
}

/// End of a chain of right rows with equal keys.
const NONE: u32 = u32::MAX;

impl Pairs {
    pub fn new(
        kind: JoinKind,
        keys: [Vec<usize>; 2],
        filter: Option<Filter>,
        left: SchemaRef,
        right: SchemaRef,
    ) -> Result<Pairs> {
        let fields = left.fields().iter().chain(right.fields().iter());
        let pair =
            Arc::new(ArrowSchema::new(fields.map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>()));
        let types: Vec<_> = keys[0].iter().map(|column| left.field(*column).data_type().clone()).collect();
        let converter = if types.is_empty() || types == [Arrow::Int64] {
            None
        } else {
            let fields = types.into_iter().map(SortField::new).collect();
            Some(RowConverter::new(fields).internal(|| "keys of a window join".into())?)
        };
        Ok(Pairs { kind, keys, filter, left, right, pair, converter })
    }

    /// Emits the join of the two sets, in batches of [`BATCH_ROWS`] at most.
    pub fn join(&mut self, left: &RecordBatch, right: &RecordBatch, now_ms: i64, out: &mut dyn Emit) -> Result<()> {
        if self.keys[0].is_empty() {
            let (l, r) = (vec![Some(()); left.num_rows()], vec![Some(()); right.num_rows()]);
            return self.join_by(left, right, &l, &r, now_ms, out);
        }
        let nulls = [null_keys(left, &self.keys[0]), null_keys(right, &self.keys[1])];
        let present = |side: usize, row: usize| nulls[side].as_ref().is_none_or(|nulls| nulls.is_valid(row));
        match &self.converter {
            None => {
                let keys = |side: usize, batch: &RecordBatch| -> Vec<Option<i64>> {
                    batch.column(self.keys[side][0]).as_primitive::<Int64Type>().iter().collect()
                };
                let (l, r) = (keys(0, left), keys(1, right));
                self.join_by(left, right, &l, &r, now_ms, out)
            }
            Some(converter) => {
                let rows = |side: usize, batch: &RecordBatch| {
                    let columns: Vec<_> = self.keys[side].iter().map(|c| canonical(batch.column(*c))).collect();
                    converter.convert_columns(&columns).internal(|| "encoding join keys".into())
                };
                let (l, r) = (rows(0, left)?, rows(1, right)?);
                let keys = |side: usize, rows: &arrow_row::Rows| -> Vec<Option<Box<[u8]>>> {
                    (0..rows.num_rows()).map(|i| present(side, i).then(|| rows.row(i).as_ref().into())).collect()
                };
                let (l, r) = (keys(0, &l), keys(1, &r));
                self.join_by(left, right, &l, &r, now_ms, out)
            }
        }
    }

    fn join_by<K: Hash + Eq>(
        &mut self,
        left: &RecordBatch,
        right: &RecordBatch,
        left_keys: &[Option<K>],
        right_keys: &[Option<K>],
        now_ms: i64,
        out: &mut dyn Emit,
    ) -> Result<()> {
        // Chains run through the right rows in order; built from behind, so that the head is the first.
        let mut heads: HashMap<&K, u32, RandomState> =
            HashMap::with_capacity_and_hasher(right_keys.len(), RandomState::default());
        let mut next = vec![NONE; right_keys.len()];
        for (row, key) in right_keys.iter().enumerate().rev() {
            if let Some(key) = key {
                next[row] = heads.insert(key, row as u32).unwrap_or(NONE);
            }
        }
        let mut matched = [vec![false; left.num_rows()], vec![false; right.num_rows()]];
        // For SEMI and ANTI without a filter one partner settles it.
        let first_only = self.filter.is_none() && matches!(self.kind, JoinKind::Semi | JoinKind::Anti);
        let (mut l, mut r) = (Vec::with_capacity(BATCH_ROWS), Vec::with_capacity(BATCH_ROWS));
        for (row, key) in left_keys.iter().enumerate() {
            let mut partner = key.as_ref().and_then(|key| heads.get(key)).copied().unwrap_or(NONE);
            if first_only {
                matched[0][row] = partner != NONE;
                continue;
            }
            while partner != NONE {
                l.push(row as u32);
                r.push(partner);
                partner = next[partner as usize];
                if l.len() == BATCH_ROWS {
                    self.flush(left, right, &mut l, &mut r, &mut matched, now_ms, out)?;
                }
            }
        }
        self.flush(left, right, &mut l, &mut r, &mut matched, now_ms, out)?;
        match self.kind {
            JoinKind::Inner => Ok(()),
            JoinKind::Left => self.emit_alone(left, &matched[0], 0, out),
            JoinKind::Right => self.emit_alone(right, &matched[1], 1, out),
            JoinKind::Full => {
                self.emit_alone(left, &matched[0], 0, out)?;
                self.emit_alone(right, &matched[1], 1, out)
            }
            JoinKind::Semi => emit_where(left, &matched[0], true, out),
            JoinKind::Anti => emit_where(left, &matched[0], false, out),
        }
    }

    /// Puts the candidate pairs through the filter, marks the rows that found a partner and emits the pairs.
    #[allow(clippy::too_many_arguments)]
    fn flush(
        &mut self,
        left: &RecordBatch,
        right: &RecordBatch,
        l: &mut Vec<u32>,
        r: &mut Vec<u32>,
        matched: &mut [Vec<bool>; 2],
        now_ms: i64,
        out: &mut dyn Emit,
    ) -> Result<()> {
        if l.is_empty() {
            return Ok(());
        }
        let (left_rows, right_rows) = (UInt32Array::from(std::mem::take(l)), UInt32Array::from(std::mem::take(r)));
        let mut columns = pick(left, &left_rows)?;
        columns.extend(pick(right, &right_rows)?);
        let mut pairs = RecordBatch::try_new(self.pair.clone(), columns).internal(|| "pairing rows".into())?;
        let mut mark = |i: usize| {
            matched[0][left_rows.value(i) as usize] = true;
            matched[1][right_rows.value(i) as usize] = true;
        };
        match &mut self.filter {
            None => (0..pairs.num_rows()).for_each(mark),
            Some(filter) => {
                let passes = filter(&pairs, now_ms)?;
                let passes = if passes.null_count() > 0 { prep_null_mask_filter(&passes) } else { passes };
                passes.values().set_indices().for_each(&mut mark);
                pairs = filter_record_batch(&pairs, &passes).internal(|| "filtering pairs".into())?;
            }
        }
        // The buffers went into the index arrays; new ones of the same size follow only when there is more to come.
        l.reserve(BATCH_ROWS.min(left_rows.len()));
        r.reserve(BATCH_ROWS.min(right_rows.len()));
        if matches!(self.kind, JoinKind::Semi | JoinKind::Anti) || pairs.num_rows() == 0 {
            return Ok(());
        }
        out.emit(pairs)
    }

    /// The rows of one side (0 left, 1 right) without a partner, NULLs in place of the other side.
    fn emit_alone(&self, batch: &RecordBatch, matched: &[bool], side: usize, out: &mut dyn Emit) -> Result<()> {
        each_piece(matched, false, |rows| {
            let other = if side == 0 { &self.right } else { &self.left };
            let nulls = other.fields().iter().map(|field| new_null_array(field.data_type(), rows.len()));
            let own = pick(batch, &rows)?;
            let columns: Vec<ArrayRef> =
                if side == 0 { own.into_iter().chain(nulls).collect() } else { nulls.chain(own).collect() };
            out.emit(RecordBatch::try_new(self.pair.clone(), columns).internal(|| "rows without a partner".into())?)
        })
    }
}

fn emit_where(batch: &RecordBatch, matched: &[bool], wanted: bool, out: &mut dyn Emit) -> Result<()> {
    each_piece(matched, wanted, |rows| {
        let columns = pick(batch, &rows)?;
        out.emit(RecordBatch::try_new(batch.schema(), columns).internal(|| "rows of a semi join".into())?)
    })
}

/// Calls back with the positions at which `matched` is `wanted`, [`BATCH_ROWS`] at a time.
fn each_piece(matched: &[bool], wanted: bool, mut each: impl FnMut(UInt32Array) -> Result<()>) -> Result<()> {
    let mut rows = (0..matched.len() as u32).filter(|row| matched[*row as usize] == wanted).peekable();
    while rows.peek().is_some() {
        each(UInt32Array::from_iter_values(rows.by_ref().take(BATCH_ROWS)))?;
    }
    Ok(())
}

fn pick(batch: &RecordBatch, rows: &UInt32Array) -> Result<Vec<ArrayRef>> {
    let picked: std::result::Result<Vec<_>, ArrowError> =
        batch.columns().iter().map(|column| take(column, rows, None)).collect();
    picked.internal(|| "picking rows".into())
}

/// Valid where all key columns are.
fn null_keys(batch: &RecordBatch, keys: &[usize]) -> Option<NullBuffer> {
    keys.iter()
        .fold(None, |nulls, column| NullBuffer::union(nulls.as_ref(), batch.column(*column).logical_nulls().as_ref()))
}

/// Doubles that SQL calls equal with equal bits: -0.0 as 0.0, every NaN as one.
fn canonical(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        Arrow::Float64 => {
            let values = column.as_primitive::<Float64Type>();
            Arc::new(values.unary::<_, Float64Type>(|v| if v.is_nan() { f64::NAN } else { v + 0.0 }))
        }
        Arrow::Float32 => {
            let values = column.as_primitive::<Float32Type>();
            Arc::new(values.unary::<_, Float32Type>(|v| if v.is_nan() { f32::NAN } else { v + 0.0 }))
        }
        _ => column.clone(),
    }
}
