//! Which messages have been seen: `'mqtt.dedup.key'`. Pure, and a function of the log's records alone, so that a
//! replay decides as the first reading did.
//!
//! What can come twice. (1) The broker sends again what it has no acknowledgement for: after a crash between fsync and
//! acknowledgement, after a cut. It never has more than the receive maximum of those (5; 65535 packet ids for 3.1.1),
//! and sends them before what is new, so the last `2 × receive maximum` distinct keys are enough, however long the
//! outage was; they are kept whatever the window and the budget say. (2) A device sends again what it got no
//! acknowledgement for, at any time: that is what the window is for. Keys leave it by age, or when the budget is used up,
//! which is counted. A key that comes again is young again. The log has the last word: what it cannot hold is forgotten, and
//! counted too ([`Dedup::forget_before`]).

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

/// Of an entry, in both containers.
const ENTRY_BYTES: u64 = 96;

pub struct Dedup {
    /// Two, for 128 bits: with 64 a false match would come up in a busy year.
    hashers: [RandomState; 2],
    /// Key to the number of the last record that had it.
    seen: HashMap<u128, u64>,
    /// In order of numbers; entries that are not a key's last are skipped.
    order: VecDeque<(u64, i64, u128)>,
    /// Kept in any case.
    least: usize,
    most: usize,
    window_ms: i64,
    /// Keys that had to go before their time.
    evicted: u64,
}

impl Dedup {
    pub fn new(inflight: u16, window_ms: u64, bytes: u64) -> Dedup {
        let least = 2 * usize::from(inflight);
        let most = usize::try_from(bytes / ENTRY_BYTES).unwrap_or(usize::MAX).max(least);
        let window_ms = i64::try_from(window_ms).unwrap_or(i64::MAX);
        let hashers = [RandomState::new(), RandomState::new()];
        Dedup { hashers, seen: HashMap::new(), order: VecDeque::new(), least, most, window_ms, evicted: 0 }
    }

    /// Whether the record's key is new. Records come in the order of their numbers.
    pub fn is_new(&mut self, key: &[u8], number: u64, received_ms: i64) -> bool {
        let [high, low] = [0, 1].map(|which| u128::from(self.hashers[which].hash_one(key)));
        let key = high << 64 | low;
        let before = self.seen.insert(key, number);
        self.order.push_back((number, received_ms, key));
        self.forget(received_ms);
        before.is_none()
    }

    fn forget(&mut self, now_ms: i64) {
        while let Some((number, received_ms, key)) = self.order.front().copied() {
            if self.seen.get(&key) == Some(&number) {
                let old = now_ms.saturating_sub(received_ms) > self.window_ms;
                let over = self.seen.len() > self.most;
                if self.seen.len() <= self.least || !(old || over) {
                    break;
                }
                self.evicted += u64::from(!old);
                self.seen.remove(&key);
            }
            self.order.pop_front();
        }
        if self.order.len() > 2 * self.seen.len() + 64 {
            self.order.retain(|(number, _, key)| self.seen.get(key) == Some(number));
        }
    }

    /// The records below this one will not be there for a replay.
    pub fn forget_before(&mut self, first: u64) {
        while let Some((number, _, key)) = self.order.front().copied().filter(|(number, ..)| *number < first) {
            if self.seen.get(&key) == Some(&number) {
                self.evicted += 1;
                self.seen.remove(&key);
            }
            self.order.pop_front();
        }
    }

    /// The oldest record that still matters; None: none does.
    pub fn oldest(&self) -> Option<u64> {
        self.order.front().map(|(number, ..)| *number)
    }

    pub fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redelivered_key_is_known_however_late() {
        let mut dedup = Dedup::new(10, 1_000, 0);
        for number in 0..20u64 {
            assert!(dedup.is_new(&number.to_le_bytes(), number, 0));
        }
        let three_days = 3 * 86_400_000;
        for number in 0..20u64 {
            assert!(!dedup.is_new(&number.to_le_bytes(), 20 + number, three_days), "{number}");
        }
    }

    #[test]
    fn partial_redeliveries_push_no_outstanding_key_out() {
        let mut dedup = Dedup::new(10, 0, 0);
        (0..10u64).for_each(|key| assert!(dedup.is_new(&key.to_le_bytes(), key, 0)));
        // Nine of ten come again a hundred times, and the connection is lost each time.
        for number in 10..910u64 {
            assert!(!dedup.is_new(&(number % 9).to_le_bytes(), number, number as i64));
        }
        assert!(!dedup.is_new(&9u64.to_le_bytes(), 910, 910));
    }

    #[test]
    fn keys_beyond_the_window_and_the_budget_are_forgotten_and_counted_apart() {
        let mut dedup = Dedup::new(1, 1_000, 0);
        for number in 0..100u64 {
            dedup.is_new(&number.to_le_bytes(), number, number as i64 * 2_000);
        }
        assert_eq!(dedup.take_evicted(), 0, "all left by age");
        assert!(dedup.is_new(&5u64.to_le_bytes(), 100, 200_000));
        let mut small = Dedup::new(1, 1_000_000, 0);
        (0..100u64).for_each(|number| assert!(small.is_new(&number.to_le_bytes(), number, 0)));
        assert_eq!((small.take_evicted(), small.oldest()), (98, Some(98)));
    }

    #[test]
    fn what_the_log_cannot_hold_is_forgotten_and_counted() {
        let mut dedup = Dedup::new(100, 1_000_000, 1 << 20);
        (0..10u64).for_each(|number| assert!(dedup.is_new(&number.to_le_bytes(), number, 0)));
        assert!(!dedup.is_new(&3u64.to_le_bytes(), 10, 0));
        dedup.forget_before(5);
        assert_eq!((dedup.take_evicted(), dedup.oldest()), (4, Some(5)), "3 was seen later");
        assert!(dedup.is_new(&0u64.to_le_bytes(), 11, 0) && !dedup.is_new(&3u64.to_le_bytes(), 12, 0));
    }

    #[test]
    fn oldest_follows_the_keys_last_records() {
        let mut dedup = Dedup::new(1, 1_000, 1 << 20);
        dedup.is_new(b"a", 3, 0);
        dedup.is_new(b"b", 4, 0);
        dedup.is_new(b"a", 5, 900);
        assert_eq!(dedup.oldest(), Some(4), "`a` was seen later");
        dedup.is_new(b"c", 6, 1_100);
        assert_eq!(dedup.oldest(), Some(5), "the last two keys stay");
    }
}
