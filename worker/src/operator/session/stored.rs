//! The way of sessions to the store and back.

use super::cold::{self, Cold};
use super::{DIRTY, STORED, Session, SessionAggregate};
use crate::error::{Error, Result};
use crate::keys::{KeyTable, NO_GROUP};
use crate::operator::Operator;
use crate::operator::accumulate::Accumulators;
use crate::operator::store_keys::StoreKeys;
use crate::state::{Kind, Store};
use ef_proto::keys::key_group;

impl SessionAggregate {
    fn key_group(&self, key: u32) -> u16 {
        key_group(self.keys.hash_of(key), self.max_parallelism)
    }

    pub(super) fn store_key(&self, key: u32, out: &mut Vec<u8>) {
        cold::sessions_prefix(self.key_group(key), out);
        self.keys.encode(key, out);
    }

    /// Reads the sessions of these keys, which are new to the table, from the store; if `due_by` is given, only those
    /// of keys with one that is due by then.
    pub(super) fn look_up(&mut self, keys: &[u32], due_by: Option<i64>, store: &mut dyn Store) -> Result<()> {
        // What went must not be found.
        self.deleted.drain(..).try_for_each(|key| store.delete(&key))?;
        let mut sorted = StoreKeys::default();
        for key in keys {
            sorted.push(*key, |out| self.store_key(*key, out));
        }
        sorted.sort();
        let (bytes, keys): (Vec<&[u8]>, Vec<u32>) = sorted.iter().unzip();
        store.get_many(&bytes, &mut |i, value| {
            let Some(value) = value else { return Ok(()) };
            if let Some(reach) = due_by
                && parse_times(value)?.0.iter().all(|(_, last)| self.due(*last) > reach)
            {
                return Ok(());
            }
            self.load(keys[i], value)
        })
    }

    fn load(&mut self, key: u32, value: &[u8]) -> Result<()> {
        let (times, mut rest) = parse_times(value)?;
        for (start, last) in times {
            let number = self.open(key, start, last);
            self.arrived = self.arrived.max(1 + self.accumulators.merge_bytes(number, &mut rest)?);
        }
        self.flags[key as usize] |= STORED;
        Ok(())
    }

    fn take_in(&mut self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let keys: Vec<&[u8]> = entries.iter().map(|(key, _)| key.as_slice()).collect();
        let groups = self.keys.intern_encoded(&keys, &mut self.hashes)?;
        self.resize_keys();
        groups.iter().zip(entries).try_for_each(|(key, (_, value))| self.load(*key, value))
    }

    /// Takes in the entries of `from..to`; answers with where to go on, if `bytes` of memory are in use before the
    /// end. Timers are passed over.
    fn take_range(&mut self, from: &[u8], to: &[u8], bytes: usize, store: &mut dyn Store) -> Result<Option<Vec<u8>>> {
        let mut entries: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut rest = None;
        store.scan(from, to, &mut |key, value| {
            let Some(user_key) = cold::sessions_key(key)? else { return Ok(true) };
            entries.push((user_key.to_vec(), value.to_vec()));
            if entries.len() == 4096 {
                self.take_in(&entries)?;
                entries.clear();
                if self.memory_bytes() > bytes {
                    // The first key after this one.
                    rest = Some([key, &[0]].concat());
                }
            }
            Ok(rest.is_none())
        })?;
        self.take_in(&entries)?;
        Ok(rest)
    }

    /// Deletes what went and puts what changed, in key order; into a memory store everything, in any order.
    pub(super) fn write(&mut self, store: &mut dyn Store) -> Result<()> {
        let all = store.kind() == Kind::Memory;
        for key in self.deleted.drain(..) {
            store.delete(&key)?;
        }
        let mut sorted = StoreKeys::default();
        for key in 0..self.heads.len() as u32 {
            let changed = self.flags[key as usize] & DIRTY != 0;
            self.flags[key as usize] &= !DIRTY;
            if self.heads[key as usize] != NO_GROUP && (all || changed) {
                sorted.push(key, |out| self.store_key(key, out));
            }
        }
        if !all {
            sorted.sort();
        }
        let (mut value, mut states) = (Vec::new(), Vec::new());
        for (bytes, key) in sorted.iter() {
            value.clear();
            states.clear();
            value.extend_from_slice(&[0; 4]);
            let (mut at, mut sessions) = (self.heads[key as usize], 0u32);
            while at != NO_GROUP {
                let session = self.sessions[at as usize];
                value.extend_from_slice(&session.start.to_le_bytes());
                value.extend_from_slice(&session.last.to_le_bytes());
                self.accumulators.put(at, &mut states);
                sessions += 1;
                at = session.next;
            }
            value[..4].copy_from_slice(&sessions.to_le_bytes());
            value.extend_from_slice(&states);
            store.put(bytes, &value)?;
            if !all {
                self.flags[key as usize] |= STORED;
            }
        }
        Ok(())
    }

    /// Brings the sessions of these keys to memory, where one of them is due by `reach`. The timers of the others
    /// were stale: there is a later one.
    pub(super) fn load_due(&mut self, keys: &[Vec<u8>], reach: i64, store: &mut dyn Store) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        self.keys.intern_encoded(&keys, &mut self.hashes)?;
        self.resize_keys();
        // The sessions of known keys are here already.
        let fresh: Vec<u32> = self.keys.fresh().iter().map(|(key, _)| *key).collect();
        self.look_up(&fresh, Some(reach), store)?;
        self.remove_empty(&fresh);
        Ok(())
    }

    /// A restore: all sessions to memory, or over Disk as many as there is room for.
    pub(super) fn take_all(&mut self, store: &mut dyn Store) -> Result<()> {
        if store.kind() == Kind::Memory {
            self.take_range(&[], &[0xff; 32], usize::MAX, store)?;
            store.forget_restored();
            return Ok(());
        }
        Cold::forget_timers(self.key_groups.clone(), store)?;
        for group in self.key_groups.clone() {
            let (from, to) = cold::sessions_range(group);
            let mut from = Some(from);
            while let Some(at) = from {
                from = self.take_range(&at, &to, self.restore_bytes, store)?;
                if self.memory_bytes() > self.restore_bytes {
                    self.move_out(store)?;
                }
            }
        }
        Ok(())
    }

    /// Everything to the store, with timers for the sessions.
    pub(super) fn move_out(&mut self, store: &mut dyn Store) -> Result<()> {
        self.write(store)?;
        let mut bytes = Vec::new();
        for key in 0..self.heads.len() as u32 {
            let mut at = self.heads[key as usize];
            if at != NO_GROUP {
                bytes.clear();
                self.keys.encode(key, &mut bytes);
            }
            while at != NO_GROUP {
                let Session { last, next, .. } = self.sessions[at as usize];
                self.cold.set_timer(self.key_group(key), self.due(last), &bytes, store)?;
                at = next;
            }
        }
        // New tables: the old ones' room would count as memory in use.
        self.keys = KeyTable::new(&self.key_types)?;
        self.accumulators = Accumulators::new(&self.plan.aggregates, false)?;
        (self.heads, self.flags, self.sessions, self.free, self.timers) = Default::default();
        Ok(())
    }
}

/// The first and last times of a state value's sessions, and the bytes of their accumulators.
fn parse_times(value: &[u8]) -> Result<(Vec<(i64, i64)>, &[u8])> {
    let broken = || Error::corrupt("a value of a session's state is cut short");
    let (sessions, rest) = value.split_first_chunk::<4>().ok_or_else(broken)?;
    let bytes = (u32::from_le_bytes(*sessions) as usize).checked_mul(16).ok_or_else(broken)?;
    let (times, rest) = rest.split_at_checked(bytes).ok_or_else(broken)?;
    let time = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().expect("8 bytes"));
    Ok((times.chunks_exact(16).map(|pair| (time(&pair[..8]), time(&pair[8..]))).collect(), rest))
}
