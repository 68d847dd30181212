//! Sessions that are in the store only, and how the store's keys look.
//!
//! Sessions: key group u16 BE ‖ 0 ‖ the key's bytes → how many, their first and last times, their accumulators.
//! Timers: key group ‖ 1 ‖ due i64 BE with flipped sign ‖ the key's bytes → nothing. Only a session that leaves
//! memory gets a timer in the store, and keeps it when it comes back: a timer may be stale, but a session that is in
//! the store only always has one. In memory stay the times at which something is due, and in which key groups: some
//! 32 times a gap, whatever the number of sessions.

use crate::error::{Error, Result};
use crate::operator::group_set::GroupSet;
use crate::state::Store;
use std::collections::BTreeMap;
use std::ops::Range;

/// Where the user's key begins in the key of a timer.
const TIMER_PREFIX: usize = 11;

const SESSIONS: u8 = 0;
const TIMERS: u8 = 1;

/// Appends the beginning of the store key of a key's sessions.
pub fn sessions_prefix(key_group: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(&key_group.to_be_bytes());
    out.push(SESSIONS);
}

/// The store's range of a key group's sessions.
pub fn sessions_range(key_group: u16) -> (Vec<u8>, Vec<u8>) {
    let [high, low] = key_group.to_be_bytes();
    (vec![high, low, SESSIONS], vec![high, low, TIMERS])
}

/// The user's key in the store key of its sessions; None for a timer.
pub fn sessions_key(key: &[u8]) -> Result<Option<&[u8]>> {
    match key {
        [_, _, SESSIONS, key @ ..] => Ok(Some(key)),
        [_, _, TIMERS, ..] => Ok(None),
        _ => Err(Error::corrupt("a key of a session's state is cut short")),
    }
}

fn timer_prefix(key_group: u16, due: i64, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&key_group.to_be_bytes());
    out.push(TIMERS);
    out.extend_from_slice(&((due as u64) ^ (1 << 63)).to_be_bytes());
}

#[derive(Default)]
pub struct Cold {
    due: BTreeMap<i64, GroupSet>,
    buffer: Vec<u8>,
}

impl Cold {
    /// No session is in the store only.
    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    /// A session of the key is about to leave memory.
    pub fn set_timer(&mut self, key_group: u16, due: i64, key: &[u8], store: &mut dyn Store) -> Result<()> {
        self.due.entry(due).or_default().insert(key_group);
        timer_prefix(key_group, due, &mut self.buffer);
        self.buffer.extend_from_slice(key);
        store.put(&self.buffer, &[])
    }

    /// The keys with timers up to `reach`; when there are many, the first `enough` of them or some more: a key group
    /// at a time. Their timers are gone. None left: no keys.
    pub fn take_due(&mut self, reach: i64, enough: usize, store: &mut dyn Store) -> Result<Vec<Vec<u8>>> {
        let mut keys = Vec::new();
        while keys.len() < enough
            && let Some(mut entry) = self.due.first_entry()
            && *entry.key() <= reach
        {
            let due = *entry.key();
            match entry.get_mut().pop() {
                Some(key_group) => {
                    timer_prefix(key_group, due, &mut self.buffer);
                    let mut to = vec![self.buffer[0], self.buffer[1], TIMERS + 1];
                    if let Some(next) = due.checked_add(1) {
                        timer_prefix(key_group, next, &mut to);
                    }
                    let first = keys.len();
                    store.scan(&self.buffer, &to, &mut |key, _| {
                        keys.push(key.to_vec());
                        Ok(true)
                    })?;
                    for key in &mut keys[first..] {
                        store.delete(key)?;
                        key.drain(..TIMER_PREFIX);
                    }
                }
                None => {
                    entry.remove();
                }
            }
        }
        Ok(keys)
    }

    /// Deletes the timers of an earlier run: they say nothing about the sessions that it had in memory.
    pub fn forget_timers(key_groups: Range<u16>, store: &mut dyn Store) -> Result<()> {
        for group in key_groups {
            let [high, low] = group.to_be_bytes();
            let mut keys: Vec<Vec<u8>> = Vec::new();
            store.scan(&[high, low, TIMERS], &[high, low, TIMERS + 1], &mut |key, _| {
                keys.push(key.to_vec());
                Ok(true)
            })?;
            keys.iter().try_for_each(|key| store.delete(key))?;
        }
        Ok(())
    }

    pub fn memory_bytes(&self) -> usize {
        self.due.values().map(|groups| groups.words().len() * 8 + 64).sum()
    }
}
