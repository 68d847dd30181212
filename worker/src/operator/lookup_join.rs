//! Join of a stream with a table outside: each row with the rows that the table has for its key as it passes.
//!
//! Rows leave in the order in which they came. Several batches may wait for their answers at a time, but nothing
//! overtakes them: before a watermark, a barrier, word of idleness and the end, all of them are answered and gone. So
//! there is no state to snapshot; what is kept of the answers is a cache, and starts empty.

mod pairs;
#[cfg(test)]
mod tests;

use super::{Operator, Scope};
use crate::error::{Code, Context, Error, Result};
use crate::expr::{EvalContext, Program};
use crate::frame::BATCH_ROWS;
use crate::lookup::{Answer, Cache, Lookup, REQUESTS_MAX, Rows};
use arrow_array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow_buffer::NullBuffer;
use arrow_row::{RowConverter, SortField};
use arrow_schema::SchemaRef;
use arrow_select::take::take;
use ef_proto::expr::Expr;
use ef_proto::plan::{self, JoinKind, LookupValue};
use ef_proto::schema::Schema;
use foldhash::fast::RandomState;
use pairs::Pairs;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Of rows that wait for answers; each batch is about a mebibyte at most.
const PENDING_BYTES: usize = 16 << 20;

/// Keys that are asked for at a time: one full batch is, while another is made ready.
const ASKED_MAX: usize = BATCH_ROWS;

/// A lone batch waits this long for an answer that is near, so that it need not wait for the next tick of the clock.
const NEAR: Duration = Duration::from_millis(2);

/// Between two looks at whether the task is told to leave.
const LOOK: Duration = Duration::from_millis(50);

pub struct LookupJoin {
    table: String,
    lookup: Box<dyn Lookup>,
    keys: Vec<Key>,
    key_schema: SchemaRef,
    /// Keys to bytes and answers to bytes.
    key_rows: RowConverter,
    pairs: Pairs,
    cache: Option<Cache>,
    /// With a cache: the keys that are being asked for, and who else waits for them (id, place).
    asking: HashMap<Box<[u8]>, Vec<(u64, u32)>, RandomState>,
    pending: VecDeque<Pending>,
    pending_bytes: usize,
    asked_keys: usize,
    next_id: u64,
    /// The task is told to leave.
    left: Arc<AtomicBool>,
}

enum Key {
    Column(usize),
    Constant(Box<Program>),
}

/// A batch on its way through.
struct Pending {
    id: u64,
    batch: RecordBatch,
    bytes: usize,
    /// Of each row of the batch.
    keys: Vec<ArrayRef>,
    /// Of each row: its key among the distinct ones; `NO_KEY` for one with a NULL.
    key_of: Vec<u32>,
    /// Of each distinct key. None: asked for.
    answers: Vec<Option<Rows>>,
    /// The keys that were asked for, in the order of the request, and their bytes for the cache.
    asked: Vec<(u32, Box<[u8]>)>,
    /// Keys that have no answer yet: those, and those that a batch before this one has asked for.
    missing: usize,
}

impl Pending {
    fn put(&mut self, place: u32, rows: Rows) {
        self.answers[place as usize] = Some(rows);
        self.missing -= 1;
    }
}

const NO_KEY: u32 = u32::MAX;

impl LookupJoin {
    /// `output`: the input's columns, then the table's.
    pub fn new(
        spec: &plan::LookupJoin,
        input: &Schema,
        output: &Schema,
        lookup: Box<dyn Lookup>,
    ) -> Result<LookupJoin> {
        let mut keys = Vec::with_capacity(spec.keys.len());
        for key in &spec.keys {
            keys.push(match &key.value {
                LookupValue::Column(column) if *column < input.len() => Key::Column(*column),
                LookupValue::Column(column) => {
                    return Err(Error::invalid(format!("key column {column} of an input with {}", input.len())));
                }
                LookupValue::Constant(scalar) => {
                    let literal = Expr::literal(scalar.clone(), key.field.ty.clone());
                    Key::Constant(Box::new(Program::compile(&literal, input)?))
                }
            });
        }
        let key_schema = Schema::new(spec.keys.iter().map(|key| key.field.clone()).collect()).to_arrow();
        let sorts = key_schema.fields().iter().map(|field| SortField::new(field.data_type().clone()));
        let key_rows = RowConverter::new(sorts.collect()).internal(|| "keys of a lookup".into())?;
        let outer = match spec.kind {
            JoinKind::Inner => false,
            JoinKind::Left => true,
            other => return Err(Error::invalid(format!("a lookup as {other:?} join"))),
        };
        Ok(LookupJoin {
            table: spec.table.clone(),
            lookup,
            keys,
            key_schema,
            key_rows,
            pairs: Pairs::new(spec, input, output, outer)?,
            cache: spec.options.cache.as_ref().map(Cache::new),
            asking: HashMap::default(),
            pending: VecDeque::new(),
            pending_bytes: 0,
            asked_keys: 0,
            next_id: 0,
            left: Arc::default(),
        })
    }

    /// Takes the batch in, and asks for those of its keys that the cache does not know.
    fn ask(&mut self, batch: RecordBatch, now_ms: i64) -> Result<()> {
        let rows = batch.num_rows();
        let mut keys = Vec::with_capacity(self.keys.len());
        for key in &mut self.keys {
            keys.push(match key {
                Key::Column(column) => batch.column(*column).clone(),
                Key::Constant(value) => value.evaluate(&batch, &EvalContext { now_ms })?,
            });
        }
        let nulls = keys
            .iter()
            .fold(None, |nulls, key: &ArrayRef| NullBuffer::union(nulls.as_ref(), key.logical_nulls().as_ref()));
        let encoded = self.key_rows.convert_columns(&keys).internal(|| "encoding keys of a lookup".into())?;
        let mut places: HashMap<&[u8], u32, RandomState> = HashMap::default();
        let (mut key_of, mut answers, mut asked, mut first_rows) = (Vec::with_capacity(rows), vec![], vec![], vec![]);
        let (id, mut missing) = (self.next_id, 0);
        self.next_id += 1;
        for row in 0..rows {
            if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                key_of.push(NO_KEY);
                continue;
            }
            let bytes = encoded.row(row).data();
            let next = answers.len() as u32;
            let place = *places.entry(bytes).or_insert(next);
            if place == next {
                let known = self.cache.as_mut().and_then(|cache| cache.get(bytes, now_ms));
                missing += usize::from(known.is_none());
                match self.asking.get_mut(bytes) {
                    _ if known.is_some() => {}
                    Some(others) => others.push((id, place)),
                    None => {
                        let mut kept: Box<[u8]> = Box::default();
                        if self.cache.is_some() {
                            kept = bytes.into();
                            self.asking.insert(kept.clone(), vec![]);
                        }
                        asked.push((place, kept));
                        first_rows.push(row as u32);
                    }
                }
                answers.push(known);
            }
            key_of.push(place);
        }
        if !asked.is_empty() {
            let first_rows = UInt32Array::from(first_rows);
            let columns = keys.iter().map(|key| take(key, &first_rows, None)).collect::<std::result::Result<_, _>>();
            let columns = columns.internal(|| "picking keys".into())?;
            let wanted = RecordBatch::try_new(self.key_schema.clone(), columns);
            self.lookup.request(id, wanted.internal(|| "keys of a lookup".into())?)?;
        }
        let bytes = batch.get_array_memory_size();
        self.pending_bytes += bytes;
        self.asked_keys += asked.len();
        self.pending.push_back(Pending { id, batch, bytes, keys, key_of, answers, asked, missing });
        Ok(())
    }

    /// Waits for at most one answer. True: there was one.
    fn poll(&mut self, wait: Duration, now_ms: i64) -> Result<bool> {
        let Some(Answer { id, rows, counts }) = self.lookup.poll(wait)? else { return Ok(false) };
        let wrong = |what: String| Error::new(Code::Internal, format!("lookup of table `{}`: {what}", self.table));
        let first = self.pending.front().map_or(self.next_id, |pending| pending.id);
        let at = |id: u64| id.checked_sub(first).map(|at| at as usize);
        let open = at(id).and_then(|at| self.pending.get_mut(at)).filter(|pending| !pending.asked.is_empty());
        let Some(pending) = open else {
            return Err(wrong(format!("an answer to request {id}, which is not open")));
        };
        let total: usize = counts.iter().map(|count| *count as usize).sum();
        if counts.len() != pending.asked.len() || total != rows.num_rows() {
            return Err(wrong(format!(
                "{} keys and {} rows, for {} keys and {total} rows",
                counts.len(),
                rows.num_rows(),
                pending.asked.len()
            )));
        }
        self.asked_keys -= counts.len();
        let mut found = self.pairs.encode(&rows)?.into_iter();
        for ((place, key), count) in std::mem::take(&mut pending.asked).into_iter().zip(counts) {
            let rows: Rows = found.by_ref().take(count as usize).collect();
            if let Some(cache) = &mut self.cache {
                cache.put(&key, rows.clone(), now_ms);
            }
            let others = self.asking.remove(&key).unwrap_or_default();
            for (id, place) in std::iter::once((id, place)).chain(others) {
                // Whoever waits for an answer is still there.
                if let Some(pending) = at(id).and_then(|at| self.pending.get_mut(at)) {
                    pending.put(place, rows.clone());
                }
            }
        }
        Ok(true)
    }

    fn is_waiting(&self) -> bool {
        self.pending.iter().any(|pending| pending.missing > 0)
    }

    /// Emits what is answered, up to the first batch that is not.
    fn release(&mut self, scope: &mut Scope<'_>) -> Result<()> {
        while self.pending.front().is_some_and(|pending| pending.missing == 0) {
            let Some(Pending { batch, bytes, keys, key_of, answers, .. }) = self.pending.pop_front() else { break };
            self.pending_bytes -= bytes;
            let answers: Vec<Rows> = answers.into_iter().map(|rows| rows.expect("answered")).collect();
            self.pairs.join(&batch, &keys, &key_of, &answers, scope)?;
        }
        Ok(())
    }

    /// Waits until at most `most` batches are still to be answered, and neither too many bytes nor keys.
    fn settle(&mut self, most: usize, scope: &mut Scope<'_>) -> Result<()> {
        self.release(scope)?;
        while self.pending.len() > most || self.pending_bytes > PENDING_BYTES || self.asked_keys > ASKED_MAX {
            if self.left.load(Ordering::Relaxed) {
                return Err(Error::new(Code::Unavailable, "the task is told to leave"));
            }
            if self.poll(LOOK, scope.now_ms)? {
                self.release(scope)?;
            }
        }
        Ok(())
    }
}

impl Operator for LookupJoin {
    fn on_batch(&mut self, _input: usize, batch: RecordBatch, scope: &mut Scope<'_>) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.ask(batch, scope.now_ms)?;
        let mut wait = if self.pending.len() == 1 { NEAR } else { Duration::ZERO };
        while self.is_waiting() && self.poll(wait, scope.now_ms)? {
            wait = Duration::ZERO;
        }
        self.settle(REQUESTS_MAX - 1, scope)
    }

    fn on_watermark(&mut self, _watermark: i64, scope: &mut Scope<'_>) -> Result<()> {
        self.settle(0, scope)
    }

    fn on_clock(&mut self, scope: &mut Scope<'_>) -> Result<()> {
        while self.is_waiting() && self.poll(Duration::ZERO, scope.now_ms)? {}
        self.release(scope)
    }

    fn clocked(&self) -> bool {
        true
    }

    fn before_barrier(&mut self, scope: &mut Scope<'_>) -> Result<()> {
        self.settle(0, scope)
    }

    fn on_end(&mut self, scope: &mut Scope<'_>) -> Result<()> {
        self.settle(0, scope)
    }

    fn memory_bytes(&self) -> usize {
        self.pending_bytes + self.cache.as_ref().map_or(0, Cache::bytes)
    }

    fn heed(&mut self, left: Arc<AtomicBool>) {
        self.left = left;
    }
}
