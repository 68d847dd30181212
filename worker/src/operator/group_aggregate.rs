//! GROUP BY without a window, and SELECT DISTINCT: a changelog. Per input batch and key at most one +I, one -U/+U
//! pair or one -D leaves, and nothing where nothing changed.
//!
//! The hot table is all there is over a memory store; over Disk it is a write-back cache: keys that it does not know
//! are looked up per batch, sorted. State: key group u16 BE, the key's bytes → input rows i64, last update i64, the
//! accumulators.

use super::accumulate::Accumulators;
use super::store_keys::StoreKeys;
use super::{Operator, Scope};
use crate::error::{Code, Context, Error, Result};
use crate::keys::{KeyTable, Selection, hash_rows};
use crate::state::{Kind, Store};
use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, Float32Type, Float64Type, Int8Type, Int64Type};
use arrow_array::{Array, ArrayRef, Int8Array, RecordBatch, UInt32Array};
use arrow_schema::{DataType as Arrow, SchemaRef};
use arrow_select::concat::concat;
use arrow_select::take::take;
use ef_proto::keys::{float_bits, key_group};
use ef_proto::plan;
use ef_proto::schema::{DataType, RowKind, Schema};

/// Changed since the last put.
const DIRTY: u8 = 1;
/// A +I of this key has left, and no -D since.
const EMITTED: u8 = 2;
/// In the table and in use (groups of removed keys are not).
const LIVE: u8 = 4;

pub struct GroupAggregate {
    plan: plan::GroupAggregate,
    schema: SchemaRef,
    max_parallelism: u16,
    key_types: Vec<DataType>,
    keys: KeyTable,
    accumulators: Accumulators,
    flags: Vec<u8>,
    /// Input rows by group; kept when rows can be retracted.
    rows: Vec<i64>,
    /// Time of the last update by group; kept when state expires.
    updated: Vec<i64>,
    now: i64,
    next_sweep: i64,
    /// Of the groups that are in the store only.
    store_sweep: StoreSweep,
    arrived: u64,
    disk: bool,
    /// The store may hold keys that the table does not.
    cold: bool,
    /// Store keys to delete at the next snapshot.
    deleted: Vec<Vec<u8>>,
    /// Batch in which a group was last touched: each is listed once.
    touched_in: Vec<u32>,
    batch: u32,
    touched: Vec<u32>,
    hashes: Vec<u64>,
    groups: Vec<u32>,
    signs: Vec<i8>,
}

impl GroupAggregate {
    pub fn new(
        plan: &plan::GroupAggregate,
        input: &Schema,
        output: &Schema,
        max_parallelism: u16,
    ) -> Result<GroupAggregate> {
        let missing = || Error::new(Code::Internal, "group aggregate: a key column is missing");
        let types: Vec<DataType> = plan
            .keys
            .iter()
            .map(|key| input.fields.get(*key).map(|field| field.ty.clone()).ok_or_else(missing))
            .collect::<Result<_>>()?;
        Ok(GroupAggregate {
            plan: plan.clone(),
            schema: output.to_arrow(),
            max_parallelism,
            keys: KeyTable::new(&types)?,
            key_types: types,
            accumulators: Accumulators::new(&plan.aggregates, plan.retracting)?,
            flags: Vec::new(),
            rows: Vec::new(),
            updated: Vec::new(),
            now: 0,
            next_sweep: 0,
            store_sweep: StoreSweep::default(),
            arrived: 0,
            disk: false,
            cold: false,
            deleted: Vec::new(),
            touched_in: Vec::new(),
            batch: 0,
            touched: Vec::new(),
            hashes: Vec::new(),
            groups: Vec::new(),
            signs: Vec::new(),
        })
    }

    /// Room for all groups of the table.
    fn resize(&mut self) {
        let bound = self.keys.bound();
        self.accumulators.resize(bound);
        if self.flags.len() < bound {
            self.flags.resize(bound, 0);
            self.touched_in.resize(bound, 0);
            if self.plan.retracting {
                self.rows.resize(bound, 0);
            }
            if self.plan.ttl_ms.is_some() {
                self.updated.resize(bound, 0);
            }
        }
    }

    fn store_key(&self, group: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(&key_group(self.keys.hash_of(group), self.max_parallelism).to_be_bytes());
        self.keys.encode(group, out);
    }

    fn put_state(&self, group: u32, out: &mut Vec<u8>) {
        let at = group as usize;
        out.extend_from_slice(&self.rows.get(at).copied().unwrap_or(1).to_le_bytes());
        out.extend_from_slice(&self.updated.get(at).copied().unwrap_or(0).to_le_bytes());
        self.accumulators.put(group, out);
    }

    /// Loads a group's state, unless it has expired.
    fn load(&mut self, group: u32, value: &[u8]) -> Result<()> {
        let broken = || Error::corrupt("a value of a group aggregate's state is cut short");
        let (rows, rest) = value.split_first_chunk::<8>().ok_or_else(broken)?;
        let updated = updated_of(value)?;
        let mut rest = rest.get(8..).ok_or_else(broken)?;
        let at = group as usize;
        if let Some(ttl) = self.plan.ttl_ms {
            if updated.saturating_add_unsigned(ttl) <= self.now {
                return Ok(());
            }
            self.updated[at] = updated;
        }
        if self.plan.retracting {
            self.rows[at] = i64::from_le_bytes(*rows);
        }
        self.arrived = self.arrived.max(1 + self.accumulators.merge_bytes(group, &mut rest)?);
        self.flags[at] |= EMITTED | LIVE;
        Ok(())
    }

    /// Reads the state of the keys that are new to the table.
    fn look_up(&mut self, scope: &mut Scope<'_>) -> Result<()> {
        let fresh: Vec<u32> = self.keys.fresh().iter().map(|(group, _)| *group).collect();
        if !self.cold || fresh.is_empty() {
            return Ok(());
        }
        let mut sorted = StoreKeys::default();
        for group in fresh {
            sorted.push(group, |out| self.store_key(group, out));
        }
        sorted.sort();
        let (keys, groups): (Vec<&[u8]>, Vec<u32>) = sorted.iter().unzip();
        let store = &mut *scope.store;
        store.get_many(&keys, &mut |i, value| value.map_or(Ok(()), |value| self.load(groups[i], value)))
    }

    fn remove(&mut self, group: u32) {
        let at = group as usize;
        if self.disk {
            let mut key = Vec::new();
            self.store_key(group, &mut key);
            self.deleted.push(key);
        }
        self.keys.remove(group);
        self.accumulators.reset(group);
        self.flags[at] = 0;
        if let Some(rows) = self.rows.get_mut(at) {
            *rows = 0;
        }
    }

    /// Deletes what went and puts the dirty groups in key order; into a memory store all groups, in any order.
    fn write(&mut self, store: &mut dyn Store) -> Result<()> {
        for key in self.deleted.drain(..) {
            store.delete(&key)?;
        }
        let live = |flags: u8, wanted: u8| flags & wanted == wanted;
        let groups = 0..self.flags.len() as u32;
        let mut value = Vec::new();
        if store.kind() == Kind::Memory {
            let mut key = Vec::new();
            for group in groups.filter(|group| live(self.flags[*group as usize], LIVE)) {
                key.clear();
                value.clear();
                self.store_key(group, &mut key);
                self.put_state(group, &mut value);
                store.put(&key, &value)?;
            }
            return Ok(());
        }
        let mut dirty = StoreKeys::default();
        for group in groups.filter(|group| live(self.flags[*group as usize], LIVE | DIRTY)) {
            dirty.push(group, |out| self.store_key(group, out));
        }
        dirty.sort();
        for (key, group) in dirty.iter() {
            value.clear();
            self.put_state(group, &mut value);
            store.put(key, &value)?;
            self.flags[group as usize] &= !DIRTY;
        }
        Ok(())
    }

    /// Forgets the groups that were not updated for the time to live; no row says so.
    fn sweep(&mut self, ttl: u64) {
        let expired: Vec<u32> = (0..self.flags.len() as u32)
            .filter(|group| {
                let at = *group as usize;
                self.flags[at] & LIVE != 0 && self.updated[at].saturating_add_unsigned(ttl) <= self.now
            })
            .collect();
        expired.into_iter().for_each(|group| self.remove(group));
    }
}

/// When the group of a state value was last updated.
fn updated_of(value: &[u8]) -> Result<i64> {
    let updated = value.get(8..16).and_then(|bytes| bytes.try_into().ok()).map(i64::from_le_bytes);
    updated.ok_or_else(|| Error::corrupt("a value of a group aggregate's state is cut short"))
}

/// A walk over the store that deletes what has expired, a step a second. A step reads some 20 ms, so that a store of
/// 100 million groups takes 25 minutes; the next walk begins a quarter of the time to live after the one before.
/// An entry whose group is in the table too may go: if the group has been updated since, it will be put again.
#[derive(Default)]
struct StoreSweep {
    /// Where to go on.
    cursor: Vec<u8>,
    next_step: i64,
    next_walk: i64,
}

/// Entries that a step reads.
const STEP_ENTRIES: usize = 1 << 16;

impl StoreSweep {
    fn step(&mut self, now: i64, ttl: u64, store: &mut dyn Store) -> Result<()> {
        if now < self.next_step {
            return Ok(());
        }
        if self.cursor.is_empty() {
            self.next_walk = now.saturating_add_unsigned((ttl / 4).max(1000));
        }
        let (mut seen, mut last, mut expired) = (0, Vec::new(), Vec::new());
        store.scan(&self.cursor, &[0xff; 32], &mut |key, value| {
            if updated_of(value)?.saturating_add_unsigned(ttl) <= now {
                expired.push(key.to_vec());
            }
            seen += 1;
            if seen == STEP_ENTRIES {
                last = key.to_vec();
            }
            Ok(seen < STEP_ENTRIES)
        })?;
        expired.iter().try_for_each(|key| store.delete(key))?;
        self.cursor = last;
        if self.cursor.is_empty() {
            self.next_step = self.next_walk;
        } else {
            // The first key after it.
            self.cursor.push(0);
            self.next_step = now.saturating_add(1000);
        }
        Ok(())
    }
}

impl Operator for GroupAggregate {
    fn on_batch(&mut self, _input: usize, batch: RecordBatch, scope: &mut Scope<'_>) -> Result<()> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        // Before the look-up, which asks what has expired: rows come before the first tick of the clock.
        self.now = self.now.max(scope.now_ms);
        let columns: Vec<ArrayRef> = self.plan.keys.iter().map(|key| batch.column(*key).clone()).collect();
        hash_rows(&columns, &mut self.hashes)?;
        let mut groups = std::mem::take(&mut self.groups);
        self.keys.intern(&columns, &self.hashes, Selection::All(rows), &mut groups)?;
        self.resize();
        self.look_up(scope)?;

        self.batch = self.batch.wrapping_add(1).max(1);
        if self.batch == 1 {
            self.touched_in.fill(0);
        }
        self.touched.clear();
        for group in &groups {
            let seen = &mut self.touched_in[*group as usize];
            if *seen != self.batch {
                *seen = self.batch;
                self.touched.push(*group);
            }
        }
        let touched = std::mem::take(&mut self.touched);
        // What the known keys showed so far.
        let known: Vec<u32> =
            touched.iter().copied().filter(|group| self.flags[*group as usize] & EMITTED != 0).collect();
        let old = self.accumulators.finish(&known)?;

        let signs = if self.plan.retracting {
            let ops = batch.column(batch.num_columns() - 1).as_primitive_opt::<Int8Type>();
            let ops = ops.ok_or_else(|| Error::new(Code::Internal, "a changelog without its `_op` column"))?;
            self.signs.clear();
            self.signs.extend(ops.values().iter().map(|op| {
                let retracts = *op == RowKind::UpdateBefore as i8 || *op == RowKind::Delete as i8;
                if retracts { -1 } else { 1 }
            }));
            for (group, sign) in groups.iter().zip(&self.signs) {
                self.rows[*group as usize] += i64::from(*sign);
            }
            Some(self.signs.as_slice())
        } else {
            None
        };
        self.accumulators.update(&groups, batch.columns(), signs, self.arrived, Selection::All(rows))?;
        self.arrived += rows as u64;
        let new = self.accumulators.finish(&touched)?;

        // Rows of the output: (position in `old` or, after those, in `new`; position in `touched`; kind).
        let mut changed = vec![false; known.len()];
        {
            let mut positions = Vec::with_capacity(known.len());
            for (i, group) in touched.iter().enumerate() {
                if self.flags[*group as usize] & EMITTED != 0 {
                    positions.push(i);
                }
            }
            for (old, new) in old.iter().zip(&new) {
                mark_changes(old, new, &positions, &mut changed)?;
            }
        }
        let (mut values, mut keys, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
        let mut at_old = 0u32;
        let mut gone = Vec::new();
        for (i, group) in touched.iter().enumerate() {
            let (i, at) = (i as u32, *group as usize);
            let emitted = self.flags[at] & EMITTED != 0;
            let exists = !self.plan.retracting || self.rows[at] > 0;
            let mut row = |position: u32, kind: RowKind| {
                values.push(position);
                keys.push(i);
                kinds.push(kind as i8);
            };
            let after = known.len() as u32 + i;
            match (emitted, exists) {
                (false, true) => row(after, RowKind::Insert),
                (true, true) if changed[at_old as usize] => {
                    row(at_old, RowKind::UpdateBefore);
                    row(after, RowKind::UpdateAfter);
                }
                (true, true) => {}
                (true, false) => row(at_old, RowKind::Delete),
                // A retraction of what is not there (its state had expired).
                (false, false) => {}
            }
            at_old += u32::from(emitted);
            if exists {
                self.flags[at] |= DIRTY | EMITTED | LIVE;
                if let Some(updated) = self.updated.get_mut(at) {
                    *updated = self.now;
                }
            } else {
                gone.push(*group);
            }
        }
        if !kinds.is_empty() {
            let keys = UInt32Array::from(keys);
            let values = UInt32Array::from(values);
            let plain = keys.len() == touched.len() && known.is_empty() && gone.is_empty();
            let mut columns = self.keys.export(&touched)?;
            if plain {
                columns.extend(new);
            } else {
                for column in &mut columns {
                    *column = take(column, &keys, None).internal(|| "keys of changes".into())?;
                }
                for (old, new) in old.iter().zip(&new) {
                    let both = concat(&[old, new]).internal(|| "values of changes".into())?;
                    columns.push(take(&both, &values, None).internal(|| "values of changes".into())?);
                }
            }
            columns.push(std::sync::Arc::new(Int8Array::from(kinds)));
            let batch =
                RecordBatch::try_new(self.schema.clone(), columns).internal(|| "group aggregate's output".into())?;
            scope.out.emit(batch)?;
        }
        gone.into_iter().for_each(|group| self.remove(group));
        if self.cold && !self.deleted.is_empty() {
            // Deleted keys must not be found by the next look-up.
            self.deleted.drain(..).try_for_each(|key| scope.store.delete(&key))?;
        }
        self.groups = groups;
        self.touched = touched;
        Ok(())
    }

    fn on_clock(&mut self, scope: &mut Scope<'_>) -> Result<()> {
        let now_ms = scope.now_ms;
        self.now = self.now.max(now_ms);
        if let Some(ttl) = self.plan.ttl_ms
            && self.now >= self.next_sweep
        {
            self.sweep(ttl);
            self.next_sweep = self.now.saturating_add_unsigned((ttl / 4).max(1000));
        }
        if let Some(ttl) = self.plan.ttl_ms
            && self.cold
        {
            self.store_sweep.step(self.now, ttl, scope.store)?;
        }
        Ok(())
    }

    fn clocked(&self) -> bool {
        self.plan.ttl_ms.is_some()
    }

    fn snapshot(&mut self, store: &mut dyn Store) -> Result<Vec<u8>> {
        self.write(store)?;
        Ok([&[VERSION][..], &self.arrived.to_le_bytes()].concat())
    }

    fn restore(&mut self, store: &mut dyn Store, blobs: &[Vec<u8>]) -> Result<()> {
        for blob in blobs {
            match blob.split_first() {
                Some((&VERSION, rest)) if rest.len() == 8 => {
                    let arrived = u64::from_le_bytes(rest.try_into().expect("8 bytes"));
                    self.arrived = self.arrived.max(arrived);
                }
                _ => return Err(Error::corrupt("the state of a group aggregate has an unknown form")),
            }
        }
        self.disk = store.kind() == Kind::Disk;
        if self.disk {
            self.cold = !blobs.is_empty();
            return Ok(());
        }
        let mut entries: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        store.scan(&[], &[0xff; 32], &mut |key, value| {
            let key = key.get(2..).ok_or_else(|| Error::corrupt("a key of a group aggregate's state is cut short"))?;
            entries.push((key.to_vec(), value.to_vec()));
            if entries.len() == 4096 {
                self.take_in(&entries)?;
                entries.clear();
            }
            Ok(true)
        })?;
        self.take_in(&entries)?;
        store.forget_restored();
        Ok(())
    }

    fn spill(&mut self, store: &mut dyn Store) -> Result<()> {
        self.write(store)?;
        // New tables: the old ones' room would count as memory in use, and the next batch spill again. That they have
        // to grow again is little beside the look-up that each of their keys now costs.
        self.keys = KeyTable::new(&self.key_types)?;
        self.accumulators = Accumulators::new(&self.plan.aggregates, self.plan.retracting)?;
        (self.flags, self.rows, self.updated, self.touched_in) = Default::default();
        self.cold = true;
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        let words = self.rows.capacity() + self.updated.capacity();
        self.keys.memory_bytes()
            + self.accumulators.memory_bytes()
            + self.flags.capacity()
            + words * 8
            + self.touched_in.capacity() * 4
    }

    fn keyed(&self) -> bool {
        true
    }
}

/// Version of the blob.
const VERSION: u8 = 1;

impl GroupAggregate {
    fn take_in(&mut self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let keys: Vec<&[u8]> = entries.iter().map(|(key, _)| key.as_slice()).collect();
        let groups = self.keys.intern_encoded(&keys, &mut self.hashes)?;
        self.resize();
        groups.iter().zip(entries).try_for_each(|(group, (_, value))| self.load(*group, value))
    }
}

/// Sets `changed[i]` where `old[i]` and `new[positions[i]]` differ. Floats compare by SQL's equality.
fn mark_changes(old: &ArrayRef, new: &ArrayRef, positions: &[usize], changed: &mut [bool]) -> Result<()> {
    fn mark(
        old: &ArrayRef,
        new: &ArrayRef,
        positions: &[usize],
        changed: &mut [bool],
        same: impl Fn(usize, usize) -> bool,
    ) {
        for (i, position) in positions.iter().enumerate() {
            let nulls = (old.is_null(i), new.is_null(*position));
            let equal = match nulls {
                (true, true) => true,
                (false, false) => same(i, *position),
                _ => false,
            };
            changed[i] |= !equal;
        }
    }
    match old.data_type() {
        Arrow::Int64 => {
            let (a, b) = (old.as_primitive::<Int64Type>().values(), new.as_primitive::<Int64Type>().values());
            mark(old, new, positions, changed, |i, j| a[i] == b[j]);
        }
        Arrow::Float64 => {
            let (a, b) = (old.as_primitive::<Float64Type>().values(), new.as_primitive::<Float64Type>().values());
            mark(old, new, positions, changed, |i, j| float_bits(a[i]) == float_bits(b[j]));
        }
        Arrow::Float32 => {
            let (a, b) = (old.as_primitive::<Float32Type>().values(), new.as_primitive::<Float32Type>().values());
            mark(old, new, positions, changed, |i, j| float_bits(a[i].into()) == float_bits(b[j].into()));
        }
        Arrow::Decimal128(..) => {
            let (a, b) = (old.as_primitive::<Decimal128Type>().values(), new.as_primitive::<Decimal128Type>().values());
            mark(old, new, positions, changed, |i, j| a[i] == b[j]);
        }
        Arrow::Utf8 => {
            let (a, b) = (old.as_string::<i32>(), new.as_string::<i32>());
            mark(old, new, positions, changed, |i, j| a.value(i) == b.value(j));
        }
        Arrow::Binary => {
            let (a, b) = (old.as_binary::<i32>(), new.as_binary::<i32>());
            mark(old, new, positions, changed, |i, j| a.value(i) == b.value(j));
        }
        Arrow::Boolean => {
            let (a, b) = (old.as_boolean(), new.as_boolean());
            mark(old, new, positions, changed, |i, j| a.value(i) == b.value(j));
        }
        _ => {
            let (mut wide_a, mut wide_b) = (Vec::new(), Vec::new());
            let a = crate::keys::as_i64(old, &mut wide_a);
            let b = crate::keys::as_i64(new, &mut wide_b);
            mark(old, new, positions, changed, |i, j| a[i] == b[j]);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
