//! The keys and accumulators of one slice (or one attached window), and how they go to and come from the store:
//! key group u16 BE, end and start i64 BE with flipped sign, the key's bytes → the accumulators' state.
//!
//! A slice knows in which key groups the store holds something of it, also after a restore. So taking it in costs one
//! short scan for each of them (some 5 µs in RocksDB, and at least one entry comes of it), and no scan meets the
//! remains of slices that went, which lie before it in every key group. What went is deleted key by key: each range
//! that is deleted costs every later scan, until the next flush, so a thousand windows of a few keys would make them
//! slower and slower. Only where a key group has many keys a range takes their place.

use crate::error::{Error, Result};
use crate::keys::{KeyTable, Selection, hash_rows};
use crate::operator::accumulate::Accumulators;
use crate::operator::group_set::GroupSet;
use crate::operator::store_keys::StoreKeys;
use crate::state::{Kind, Store};
use arrow_array::ArrayRef;
use ef_proto::keys::key_group;
use ef_proto::plan::Aggregate;
use ef_proto::schema::DataType;

/// Which slice: (end, start); sorted by end. A slice of a window TVF has its own start; attached windows differ there.
pub type Span = (i64, i64);

/// Changed since the last put.
const DIRTY: u8 = 1;
/// Holds all that the store knows about the group.
const COMPLETE: u8 = 2;
/// The store has an entry of the group.
const STORED: u8 = 4;

/// Keys of a key group from which on they are deleted as one range.
const RANGE_KEYS: usize = 1024;

/// Length of a store key before the user's key.
pub const PREFIX: usize = 18;

pub struct Pane {
    pub keys: KeyTable,
    pub accumulators: Accumulators,
    /// Input rows by group; only local aggregates count them.
    pub rows: Vec<i64>,
    /// Where the groups are in the operator's [`super::merged::Merged`]; of those that were merged so far.
    pub merged: Vec<u32>,
    flags: Vec<u8>,
    /// The store may know more about this slice than the tables here.
    pub spilled: bool,
    /// Where the store holds something of this slice, or the last snapshot did.
    pub stored: GroupSet,
}

pub fn prefix(group: u16, span: Span, out: &mut Vec<u8>) {
    out.extend_from_slice(&group.to_be_bytes());
    for time in [span.0, span.1] {
        out.extend_from_slice(&((time as u64) ^ (1 << 63)).to_be_bytes());
    }
}

pub fn parse(key: &[u8]) -> Result<(Span, &[u8])> {
    let time = |at: usize| {
        let bytes: Option<[u8; 8]> = key.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map(|bytes| (u64::from_be_bytes(bytes) ^ (1 << 63)) as i64)
    };
    match (time(2), time(10)) {
        (Some(end), Some(start)) => Ok(((end, start), &key[PREFIX..])),
        _ => Err(Error::corrupt("a key of a window's state is cut short")),
    }
}

impl Pane {
    pub fn new(types: &[DataType], aggregates: &[Aggregate]) -> Result<Pane> {
        Ok(Pane {
            keys: KeyTable::new(types)?,
            accumulators: Accumulators::new(aggregates, false)?,
            rows: Vec::new(),
            merged: Vec::new(),
            flags: Vec::new(),
            spilled: false,
            stored: GroupSet::default(),
        })
    }

    /// The groups of these rows, with room in the accumulators.
    pub fn intern(
        &mut self,
        columns: &[ArrayRef],
        hashes: &[u64],
        rows: Selection<'_>,
        groups: &mut Vec<u32>,
    ) -> Result<()> {
        self.keys.intern(columns, hashes, rows, groups)?;
        self.accumulators.resize(self.keys.bound());
        Ok(())
    }

    pub fn mark(&mut self, groups: &[u32]) {
        self.grow_flags();
        for group in groups {
            self.flags[*group as usize] |= DIRTY;
        }
    }

    fn grow_flags(&mut self) {
        let fresh = if self.spilled { 0 } else { COMPLETE };
        self.flags.resize(self.keys.bound().max(self.flags.len()), fresh);
    }

    pub fn clear(&mut self) {
        self.keys.clear();
        self.accumulators.clear();
        self.rows.clear();
        self.merged.clear();
        self.flags.clear();
        self.spilled = false;
        self.stored.clear();
    }

    /// Appends the group's key in the store; answers with its key group.
    fn store_key(&self, group: u32, span: Span, max_parallelism: u16, out: &mut Vec<u8>) -> u16 {
        let key_group = key_group(self.keys.hash_of(group), max_parallelism);
        prefix(key_group, span, out);
        self.keys.encode(group, out);
        key_group
    }

    /// Puts what changed. Over what was spilled, the store's part is taken in first. Into a memory store: all of it,
    /// in any order.
    pub fn put(&mut self, span: Span, max_parallelism: u16, store: &mut dyn Store) -> Result<()> {
        self.grow_flags();
        let groups = 0..self.keys.bound() as u32;
        let mut value = Vec::new();
        if store.kind() == Kind::Memory {
            let mut key = Vec::new();
            for group in groups {
                key.clear();
                value.clear();
                let key_group = self.store_key(group, span, max_parallelism, &mut key);
                self.stored.insert(key_group);
                self.accumulators.put(group, &mut value);
                store.put(&key, &value)?;
            }
            return Ok(());
        }
        let mut dirty = StoreKeys::with_common(2..PREFIX);
        let mut stored = std::mem::take(&mut self.stored);
        for group in groups.filter(|group| self.flags[*group as usize] & DIRTY != 0) {
            dirty.push(group, |out| stored.insert(self.store_key(group, span, max_parallelism, out)));
        }
        self.stored = stored;
        dirty.sort();
        if self.spilled {
            let unknown: Vec<(&[u8], u32)> =
                dirty.iter().filter(|(_, group)| self.flags[*group as usize] & COMPLETE == 0).collect();
            let keys: Vec<&[u8]> = unknown.iter().map(|(key, _)| *key).collect();
            let accumulators = &mut self.accumulators;
            store.get_many(&keys, &mut |i, value| match value {
                Some(mut value) => accumulators.merge_bytes(unknown[i].1, &mut value).map(|_| ()),
                None => Ok(()),
            })?;
        }
        for (key, group) in dirty.iter() {
            value.clear();
            self.accumulators.put(group, &mut value);
            store.put(key, &value)?;
            self.flags[group as usize] = COMPLETE | STORED;
        }
        Ok(())
    }

    /// This slice with the empty tables of `fresh`: all of it is in the store. The old tables are given back and not
    /// kept for what comes, or nothing would have been gained.
    pub fn spilled(&mut self, fresh: Pane) {
        let stored = std::mem::take(&mut self.stored);
        *self = Pane { spilled: true, stored, ..fresh };
    }

    /// Takes in what the store holds of this slice.
    pub fn unspill(&mut self, span: Span, store: &mut dyn Store) -> Result<u64> {
        if !self.spilled {
            return Ok(0);
        }
        self.grow_flags();
        let mut latest = 0;
        let (mut from, mut to) = (Vec::new(), Vec::new());
        let mut entries: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for group in self.stored.clone().iter() {
            range(group, span, &mut from, &mut to);
            store.scan(&from, &to, &mut |key, value| {
                entries.push((key[PREFIX..].to_vec(), value.to_vec()));
                if entries.len() == 4096 {
                    latest = latest.max(self.take_in(&entries)?);
                    entries.clear();
                }
                Ok(true)
            })?;
        }
        latest = latest.max(self.take_in(&entries)?);
        self.spilled = false;
        Ok(latest)
    }

    /// Deletes the slice from the store, whose keys are all in the table.
    pub fn delete(&self, span: Span, max_parallelism: u16, store: &mut dyn Store) -> Result<()> {
        assert!(!self.spilled, "a slice is taken in before it goes");
        let mut keys = StoreKeys::with_common(2..PREFIX);
        for (group, flags) in self.flags.iter().enumerate() {
            if flags & STORED != 0 {
                keys.push(group as u32, |out| {
                    self.store_key(group as u32, span, max_parallelism, out);
                });
            }
        }
        keys.sort();
        let keys: Vec<&[u8]> = keys.iter().map(|(key, _)| key).collect();
        let (mut from, mut to) = (Vec::new(), Vec::new());
        for of_group in keys.chunk_by(|a, b| a[..2] == b[..2]) {
            if of_group.len() < RANGE_KEYS {
                of_group.iter().try_for_each(|key| store.delete(key))?;
            } else {
                range(u16::from_be_bytes([of_group[0][0], of_group[0][1]]), span, &mut from, &mut to);
                store.delete_range(&from, &to)?;
            }
        }
        Ok(())
    }

    /// Merges entries of the store (user's key, state) into the groups that do not know them yet.
    pub fn take_in(&mut self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<u64> {
        if entries.is_empty() {
            return Ok(0);
        }
        let keys: Vec<&[u8]> = entries.iter().map(|(key, _)| key.as_slice()).collect();
        let columns = self.keys.decode(&keys)?;
        let (mut hashes, mut groups) = (Vec::new(), Vec::new());
        hash_rows(&columns, &mut hashes)?;
        self.intern(&columns, &hashes, Selection::All(entries.len()), &mut groups)?;
        let fresh = if self.spilled { 0 } else { COMPLETE };
        let known = self.flags.len();
        self.flags.resize(self.keys.bound().max(known), fresh);
        let mut latest = 0;
        for (group, (_, state)) in groups.iter().zip(entries) {
            let group_known = self.spilled && self.flags[*group as usize] & COMPLETE != 0;
            if !group_known {
                latest = latest.max(self.accumulators.merge_bytes(*group, &mut state.as_slice())?);
                self.flags[*group as usize] |= COMPLETE | STORED;
            }
        }
        Ok(latest)
    }

    pub fn memory_bytes(&self) -> usize {
        self.keys.memory_bytes()
            + self.accumulators.memory_bytes()
            + self.rows.capacity() * 8
            + self.merged.capacity() * 4
            + self.flags.capacity()
    }
}

/// The store's range of one slice in one key group.
pub fn range(group: u16, span: Span, from: &mut Vec<u8>, to: &mut Vec<u8>) {
    from.clear();
    prefix(group, span, from);
    to.clear();
    to.extend_from_slice(from);
    // The next prefix: add one at the end.
    for byte in to.iter_mut().rev() {
        let (next, carry) = byte.overflowing_add(1);
        *byte = next;
        if !carry {
            break;
        }
    }
}
