//! Join of two inputs that carry windows, on equal windows and equal keys.
//!
//! Both sides are kept per window until the watermark passes the window's last millisecond; then the window is
//! joined once, in order of window ends, and forgotten. Rows that come for a window that has fired are counted late.
//! State that was spilled comes back one key group at a time, so a window may be larger than memory.

use super::{Operator, Scope};
use crate::error::{Context, Error, Result};
use crate::expr::{EvalContext, Program};
use crate::state::{Kind, Store};
use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMillisecondType;
use arrow_array::{Array, RecordBatch, UInt32Array};
use arrow_schema::{DataType as Arrow, TimeUnit};
use arrow_select::concat::concat_batches;
use arrow_select::take::take_record_batch;
use ef_proto::plan;
use ef_proto::schema::Schema;
use pairs::{Filter, Pairs};
use side::{Codec, Key, Side, WindowId, parse_key};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

mod pairs;
mod side;
#[cfg(test)]
mod tests;

pub struct WindowJoin {
    pairs: Pairs,
    codecs: [Codec; 2],
    /// (start, end) columns of each input.
    window_columns: [(usize, usize); 2],
    windows: BTreeMap<WindowId, [Side; 2]>,
    key_groups: Range<u16>,
    kind: Kind,
    watermark: i64,
    late: u64,
    /// Of the next chunk put into the store.
    sequence: u64,
    /// Keys of fired windows, to be deleted from the store at the next opportunity.
    dead: Vec<Key>,
    /// Buffer: (window, row) of a batch.
    order: Vec<(WindowId, u32)>,
}

impl WindowJoin {
    pub fn new(
        spec: &plan::WindowJoin,
        left: &Schema,
        right: &Schema,
        max_parallelism: u16,
        key_groups: Range<u16>,
    ) -> Result<WindowJoin> {
        let both = Schema::new(left.fields.iter().chain(&right.fields).cloned().collect());
        let filter = match &spec.filter {
            None => None,
            Some(expr) => {
                let mut program = Program::compile(expr, &both)?;
                let filter: Filter = Box::new(move |batch, now_ms| program.passes(batch, &EvalContext { now_ms }));
                Some(filter)
            }
        };
        let (left_keys, right_keys): (Vec<_>, Vec<_>) = spec.keys.iter().copied().unzip();
        // Rows are stored under the key group by which the plan brings them here, or another subtask would be given
        // them at the next restore: without keys that is the window's.
        let stored_by = |keys: &[usize], window: (usize, usize)| {
            if keys.is_empty() { vec![window.0, window.1] } else { keys.to_vec() }
        };
        let (left, right) = (left.to_arrow(), right.to_arrow());
        Ok(WindowJoin {
            codecs: [
                Codec::new(0, stored_by(&left_keys, spec.left_window), left.clone(), max_parallelism)?,
                Codec::new(1, stored_by(&right_keys, spec.right_window), right.clone(), max_parallelism)?,
            ],
            pairs: Pairs::new(spec.kind, [left_keys, right_keys], filter, left, right)?,
            window_columns: [spec.left_window, spec.right_window],
            windows: BTreeMap::new(),
            key_groups,
            kind: Kind::Memory,
            watermark: i64::MIN,
            late: 0,
            sequence: 0,
            dead: Vec::new(),
            order: Vec::new(),
        })
    }

    fn buffer(&mut self, window: WindowId, input: usize, batch: RecordBatch) -> Result<()> {
        // The window's last millisecond has passed: it has fired, or would have, had it held rows.
        if window.0.saturating_sub(1) <= self.watermark {
            self.late += batch.num_rows() as u64;
            return Ok(());
        }
        self.windows.entry(window).or_default()[input].push(batch)
    }

    /// Puts what is not yet stored; `evict` frees what is.
    fn store(&mut self, store: &mut dyn Store, evict: bool) -> Result<()> {
        for key in self.dead.drain(..) {
            store.delete(&key)?;
        }
        for (window, sides) in &mut self.windows {
            for (side, codec) in sides.iter_mut().zip(&mut self.codecs) {
                for batch in std::mem::take(&mut side.fresh) {
                    let stored = &mut side.stored;
                    codec.put(&batch, *window, &mut self.sequence, store, |group, seq| stored.push((group, seq)))?;
                    side.kept.push(batch);
                }
                if evict {
                    side.evicted |= !side.kept.is_empty();
                    side.kept = Vec::new();
                    side.bytes = 0;
                }
            }
        }
        Ok(())
    }

    /// Joins a window whose rows are partly in the store only, one key group at a time.
    fn fire_stored(&mut self, window: WindowId, sides: &mut [Side; 2], scope: &mut Scope<'_>) -> Result<()> {
        for (side, codec) in sides.iter_mut().zip(&mut self.codecs) {
            for batch in std::mem::take(&mut side.fresh) {
                let stored = &mut side.stored;
                codec.put(&batch, window, &mut self.sequence, scope.store, |group, seq| stored.push((group, seq)))?;
            }
            side.kept = Vec::new();
        }
        let groups: BTreeSet<u16> = sides.iter().flat_map(|side| &side.stored).map(|(group, _)| *group).collect();
        for group in groups {
            let mut read = |codec: &Codec| {
                let mut chunks = Vec::new();
                let (from, to) = (codec.key(group, window, 0), codec.key(group, window, u64::MAX));
                scope.store.scan(&from, &to, &mut |_, value| {
                    chunks.extend_from_slice(value);
                    Ok(true)
                })?;
                concat_batches(&codec.schema, &codec.decode(&chunks)?).internal(|| "rows of a key group".into())
            };
            let (left, right) = (read(&self.codecs[0])?, read(&self.codecs[1])?);
            self.pairs.join(&left, &right, scope.now_ms, scope.out)?;
        }
        Ok(())
    }
}

impl Operator for WindowJoin {
    fn on_batch(&mut self, input: usize, batch: RecordBatch, _scope: &mut Scope<'_>) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let (start, end) = self.window_columns[input];
        let (starts, ends) = (times(&batch, start)?, times(&batch, end)?);
        let first = (ends[0], starts[0]);
        // Aggregates below us fire window by window: most batches are of one window and pass as they are.
        if starts.iter().all(|start| *start == first.1) && ends.iter().all(|end| *end == first.0) {
            return self.buffer(first, input, batch);
        }
        let mut order = std::mem::take(&mut self.order);
        order.clear();
        order.extend(ends.iter().copied().zip(starts.iter().copied()).zip(0u32..));
        order.sort_unstable();
        for run in order.chunk_by(|a, b| a.0 == b.0) {
            let rows = UInt32Array::from_iter_values(run.iter().map(|(_, row)| *row));
            let rows = take_record_batch(&batch, &rows).internal(|| "splitting rows by window".into())?;
            self.buffer(run[0].0, input, rows)?;
        }
        self.order = order;
        Ok(())
    }

    fn on_watermark(&mut self, watermark: i64, scope: &mut Scope<'_>) -> Result<()> {
        self.watermark = self.watermark.max(watermark);
        while let Some(entry) = self.windows.first_entry() {
            let window = *entry.key();
            if window.0.saturating_sub(1) > self.watermark {
                break;
            }
            let mut sides = entry.remove();
            if sides.iter().any(|side| side.evicted) {
                self.fire_stored(window, &mut sides, scope)?;
            } else {
                let [left, right] = &mut sides;
                let (left, right) = (left.take_rows(&self.codecs[0].schema)?, right.take_rows(&self.codecs[1].schema)?);
                self.pairs.join(&left, &right, scope.now_ms, scope.out)?;
            }
            for (side, codec) in sides.iter().zip(&self.codecs) {
                self.dead.extend(side.stored.iter().map(|(group, sequence)| codec.key(*group, window, *sequence)));
            }
        }
        Ok(())
    }

    fn snapshot(&mut self, store: &mut dyn Store) -> Result<Vec<u8>> {
        match self.kind {
            Kind::Disk => self.store(store, false)?,
            Kind::Memory => {
                let mut sequence = 0;
                for (window, sides) in &self.windows {
                    for (side, codec) in sides.iter().zip(&mut self.codecs) {
                        for batch in &side.fresh {
                            codec.put(batch, *window, &mut sequence, store, |_, _| {})?;
                        }
                    }
                }
            }
        }
        Ok(self.watermark.to_le_bytes().to_vec())
    }

    fn restore(&mut self, store: &mut dyn Store, blobs: &[Vec<u8>]) -> Result<()> {
        self.kind = store.kind();
        let mut watermark = None;
        for blob in blobs {
            let time = blob.as_slice().try_into().map(i64::from_le_bytes);
            let time =
                time.map_err(|_| Error::corrupt(format!("a window join's state is {} bytes, not 8", blob.len())))?;
            // Barriers are aligned, so the watermarks are equal; were they not, the least makes no row late wrongly.
            watermark = Some(watermark.map_or(time, |least: i64| least.min(time)));
        }
        self.watermark = watermark.unwrap_or(i64::MIN);
        let (from, to) = (self.key_groups.start.to_be_bytes(), self.key_groups.end.to_be_bytes());
        let mut values: HashMap<(WindowId, u8), Vec<u8>> = HashMap::new();
        store.scan(&from, &to, &mut |key, value| {
            let (group, side, window, sequence) = parse_key(key)?;
            match self.kind {
                Kind::Memory => values.entry((window, side)).or_default().extend_from_slice(value),
                Kind::Disk => {
                    let side = &mut self.windows.entry(window).or_default()[usize::from(side)];
                    side.stored.push((group, sequence));
                    side.evicted = true;
                    self.sequence = self.sequence.max(sequence + 1);
                }
            }
            Ok(true)
        })?;
        for ((window, side), value) in values {
            for batch in self.codecs[usize::from(side)].decode(&value)? {
                self.windows.entry(window).or_default()[usize::from(side)].push(batch)?;
            }
        }
        store.forget_restored();
        Ok(())
    }

    fn spill(&mut self, store: &mut dyn Store) -> Result<()> {
        self.store(store, true)
    }

    fn memory_bytes(&self) -> usize {
        let side = |side: &Side| side.bytes + side.stored.len() * size_of::<(u16, u64)>() + size_of::<Side>();
        self.windows.values().flatten().map(side).sum::<usize>() + self.dead.len() * size_of::<Key>()
    }

    fn keyed(&self) -> bool {
        true
    }

    fn late_rows(&self) -> u64 {
        self.late
    }
}

/// A window column in milliseconds.
fn times(batch: &RecordBatch, column: usize) -> Result<&[i64]> {
    let array = batch.column(column);
    if !matches!(array.data_type(), Arrow::Timestamp(TimeUnit::Millisecond, _)) {
        return Err(Error::invalid(format!("a window's bound must be TIMESTAMP(3), found {}", array.data_type())));
    }
    if array.null_count() > 0 {
        return Err(Error::invalid(format!(
            "column `{}` is NULL in a row that reached a window join; rows need a window to be joined",
            batch.schema_ref().field(column).name()
        )));
    }
    Ok(array.as_primitive::<TimestampMillisecondType>().values())
}
