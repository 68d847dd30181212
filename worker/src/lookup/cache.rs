//! Answers by key: the least recently used go first, when there are too many rows or bytes; the old ones count as gone.
//! Flink's partial cache. Time comes in with each call.
//!
//! A hit costs one hash and moves four numbers; nothing is allocated for it.

use ef_proto::connector::lookup::LookupCache;
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::sync::Arc;

/// The rows of one key, each in Arrow's row format; none: there is no such row.
pub type Rows = Arc<[Box<[u8]>]>;

/// What an entry costs beside its key and rows: its slot, its place in the map, the boxes.
const ENTRY_BYTES: usize = 160;
const ROW_BYTES: usize = 32;

const NONE: u32 = u32::MAX;

pub struct Cache {
    limits: LookupCache,
    places: HashMap<Arc<[u8]>, u32, RandomState>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Most and least recently used.
    first: u32,
    last: u32,
    rows: u64,
    bytes: usize,
}

struct Slot {
    key: Arc<[u8]>,
    rows: Rows,
    written_ms: i64,
    used_ms: i64,
    /// Used more recently, and less.
    before: u32,
    behind: u32,
}

impl Cache {
    pub fn new(limits: &LookupCache) -> Cache {
        Cache {
            limits: limits.clone(),
            places: HashMap::default(),
            slots: Vec::new(),
            free: Vec::new(),
            first: NONE,
            last: NONE,
            rows: 0,
            bytes: 0,
        }
    }

    /// The answer that is kept for this key.
    pub fn get(&mut self, key: &[u8], now_ms: i64) -> Option<Rows> {
        let at = *self.places.get(key)?;
        let slot = &mut self.slots[at as usize];
        let over = |since: i64, limit: Option<u64>| limit.is_some_and(|ms| now_ms.saturating_sub(since) >= ms as i64);
        if over(slot.written_ms, self.limits.expire_after_write_ms)
            || over(slot.used_ms, self.limits.expire_after_access_ms)
        {
            self.remove(at);
            return None;
        }
        slot.used_ms = now_ms;
        let rows = slot.rows.clone();
        self.unlink(at);
        self.link(at);
        Some(rows)
    }

    /// Keeps an answer in the place of an older one; what is larger than the whole cache is not kept.
    pub fn put(&mut self, key: &[u8], rows: Rows, now_ms: i64) {
        if let Some(at) = self.places.get(key) {
            self.remove(*at);
        }
        let bytes = cost(key, &rows);
        let too_many = self.limits.rows_max.is_some_and(|max| count(&rows) > max);
        if rows.is_empty() && !self.limits.missing_keys || bytes as u64 > self.limits.bytes_max || too_many {
            return;
        }
        self.rows += count(&rows);
        self.bytes += bytes;
        let key: Arc<[u8]> = key.into();
        let slot = Slot { key: key.clone(), rows, written_ms: now_ms, used_ms: now_ms, before: NONE, behind: NONE };
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = slot;
                at
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        };
        self.places.insert(key, at);
        self.link(at);
        while self.bytes as u64 > self.limits.bytes_max || self.limits.rows_max.is_some_and(|max| self.rows > max) {
            self.remove(self.last);
        }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn remove(&mut self, at: u32) {
        self.unlink(at);
        let slot = &mut self.slots[at as usize];
        let (key, rows) = (std::mem::take(&mut slot.key), std::mem::take(&mut slot.rows));
        self.places.remove(&key);
        self.rows -= count(&rows);
        self.bytes -= cost(&key, &rows);
        self.free.push(at);
    }

    fn unlink(&mut self, at: u32) {
        let Slot { before, behind, .. } = self.slots[at as usize];
        match before {
            NONE => self.first = behind,
            before => self.slots[before as usize].behind = behind,
        }
        match behind {
            NONE => self.last = before,
            behind => self.slots[behind as usize].before = before,
        }
    }

    /// As the most recently used.
    fn link(&mut self, at: u32) {
        let first = std::mem::replace(&mut self.first, at);
        let slot = &mut self.slots[at as usize];
        (slot.before, slot.behind) = (NONE, first);
        match first {
            NONE => self.last = at,
            first => self.slots[first as usize].before = at,
        }
    }
}

/// Rows for `max-rows`: that there is none is an entry too.
fn count(rows: &Rows) -> u64 {
    rows.len().max(1) as u64
}

fn cost(key: &[u8], rows: &Rows) -> usize {
    ENTRY_BYTES + key.len() + rows.iter().map(|row| ROW_BYTES + row.len()).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    fn rows(sizes: &[usize]) -> Rows {
        sizes.iter().map(|size| vec![*size as u8; *size].into_boxed_slice()).collect()
    }

    fn limits() -> LookupCache {
        LookupCache {
            rows_max: None,
            bytes_max: 1 << 20,
            expire_after_write_ms: None,
            expire_after_access_ms: None,
            missing_keys: true,
        }
    }

    /// By definition: a list, most recently used first.
    struct Naive {
        limits: LookupCache,
        entries: Vec<(Vec<u8>, Rows, i64, i64)>,
    }

    impl Naive {
        fn get(&mut self, key: &[u8], now_ms: i64) -> Option<Rows> {
            let at = self.entries.iter().position(|entry| entry.0 == key)?;
            let mut entry = self.entries.remove(at);
            let old = |since: i64, limit: Option<u64>| limit.is_some_and(|ms| now_ms - since >= ms as i64);
            if old(entry.2, self.limits.expire_after_write_ms) || old(entry.3, self.limits.expire_after_access_ms) {
                return None;
            }
            entry.3 = now_ms;
            let rows = entry.1.clone();
            self.entries.insert(0, entry);
            Some(rows)
        }

        fn put(&mut self, key: &[u8], rows: Rows, now_ms: i64) {
            self.entries.retain(|entry| entry.0 != key);
            let fits = |entries: &[(Vec<u8>, Rows, i64, i64)], limits: &LookupCache| {
                let bytes: usize = entries.iter().map(|entry| cost(&entry.0, &entry.1)).sum();
                let count: u64 = entries.iter().map(|entry| count(&entry.1)).sum();
                bytes as u64 <= limits.bytes_max && limits.rows_max.is_none_or(|max| count <= max)
            };
            let entry = (key.to_vec(), rows, now_ms, now_ms);
            let kept = !entry.1.is_empty() || self.limits.missing_keys;
            if !kept || !fits(std::slice::from_ref(&entry), &self.limits) {
                return;
            }
            self.entries.insert(0, entry);
            while !fits(&self.entries, &self.limits) {
                self.entries.pop();
            }
        }
    }

    #[test]
    fn answers_are_those_of_a_list_in_order_of_use() {
        for seed in 0..300 {
            let rng = &mut SmallRng::seed_from_u64(seed);
            let some = |rng: &mut SmallRng, max: u64| rng.random_bool(0.5).then(|| rng.random_range(1..max));
            let limits = LookupCache {
                rows_max: some(rng, 12),
                bytes_max: rng.random_range(200..4_000),
                expire_after_write_ms: some(rng, 60),
                expire_after_access_ms: some(rng, 40),
                missing_keys: rng.random_bool(0.5),
            };
            let mut cache = Cache::new(&limits);
            let mut naive = Naive { limits: limits.clone(), entries: vec![] };
            let mut now_ms = 1_000;
            for step in 0..400 {
                now_ms += rng.random_range(0..4);
                let key = vec![rng.random_range(0..20u8); rng.random_range(0..3)];
                if rng.random_bool(0.6) {
                    assert_eq!(cache.get(&key, now_ms), naive.get(&key, now_ms), "seed {seed}, step {step}");
                } else {
                    let count = rng.random_range(0..3);
                    let sizes: Vec<usize> = (0..count).map(|_| rng.random_range(0..600)).collect();
                    cache.put(&key, rows(&sizes), now_ms);
                    naive.put(&key, rows(&sizes), now_ms);
                }
                let bytes: usize = naive.entries.iter().map(|entry| cost(&entry.0, &entry.1)).sum();
                assert_eq!((cache.len(), cache.bytes()), (naive.entries.len(), bytes), "seed {seed}, step {step}");
                assert!(cache.bytes() as u64 <= limits.bytes_max, "seed {seed}, step {step}");
            }
        }
    }

    #[test]
    fn an_answer_is_asked_for_again_when_it_is_old() {
        let mut cache = Cache::new(&LookupCache { expire_after_write_ms: Some(10), ..limits() });
        cache.put(b"k", rows(&[1]), 0);
        assert!(cache.get(b"k", 9).is_some());
        assert!(cache.get(b"k", 10).is_none() && cache.is_empty());
    }

    #[test]
    fn that_there_is_no_row_is_kept_only_if_wanted() {
        for missing_keys in [false, true] {
            let mut cache = Cache::new(&LookupCache { missing_keys, ..limits() });
            cache.put(b"k", rows(&[]), 0);
            assert_eq!(cache.get(b"k", 1), missing_keys.then(|| rows(&[])));
        }
    }

    #[test]
    fn slots_of_what_has_gone_are_used_again() {
        let mut cache = Cache::new(&LookupCache { rows_max: Some(8), ..limits() });
        for key in 0..10_000u32 {
            cache.put(&key.to_be_bytes(), rows(&[4]), 0);
        }
        assert_eq!((cache.len(), cache.slots.len()), (8, 9));
    }
}
