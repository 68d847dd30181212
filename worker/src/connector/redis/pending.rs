//! The commands of rows that are not yet sent. Where rows are known by their key, a later row of a key takes the place of
//! an earlier one: only what the batch leaves behind is sent.

use crate::connector::delivery::Parcel;
use ef_proto::keys::hash_bytes;
use hashbrown::HashTable;
use std::ops::Range;

#[derive(Default)]
pub struct Pending {
    folds: bool,
    /// Commands one after the other, those that have been replaced included.
    commands: Vec<u8>,
    keys: Vec<u8>,
    entries: Vec<Entry>,
    index: HashTable<usize>,
    /// Bytes of replaced commands.
    dead: usize,
}

/// Of replaced commands: more are not kept than there are others.
const DEAD_BYTES: usize = 256 << 10;

struct Entry {
    hash: u64,
    key: Range<usize>,
    commands: Range<usize>,
    count: usize,
}

/// Commands that are sent together.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    pub commands: Vec<u8>,
    pub count: usize,
    pub rows: u64,
}

impl Parcel for Batch {
    fn bytes(&self) -> usize {
        self.commands.len()
    }

    fn rows(&self) -> u64 {
        self.rows
    }
}

impl Pending {
    pub fn new(folds: bool) -> Pending {
        Pending { folds, ..Pending::default() }
    }

    /// A row's commands: `write` appends them and says how many they are.
    pub fn add(&mut self, key: &[u8], write: impl FnOnce(&mut Vec<u8>) -> usize) {
        let start = self.commands.len();
        let count = write(&mut self.commands);
        let commands = start..self.commands.len();
        if !self.folds {
            self.entries.push(Entry { hash: 0, key: 0..0, commands, count });
            return;
        }
        let hash = hash_bytes(key);
        let Pending { keys, entries, index, .. } = self;
        if let Some(at) = index.find(hash, |at| keys[entries[*at].key.clone()] == *key) {
            self.dead += entries[*at].commands.len();
            (entries[*at].commands, entries[*at].count) = (commands, count);
            if self.dead > DEAD_BYTES && self.dead > self.commands.len() / 2 {
                self.compact();
            }
            return;
        }
        let begin = keys.len();
        keys.extend_from_slice(key);
        entries.push(Entry { hash, key: begin..keys.len(), commands, count });
        index.insert_unique(hash, entries.len() - 1, |at| entries[*at].hash);
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Rows that will be sent.
    pub fn rows(&self) -> usize {
        self.entries.len()
    }

    /// Of memory.
    pub fn bytes(&self) -> usize {
        self.commands.len() + self.keys.len()
    }

    /// Leaves out what has been replaced.
    fn compact(&mut self) {
        let all = std::mem::take(&mut self.commands);
        self.commands.reserve(all.len() - self.dead);
        for entry in &mut self.entries {
            let start = self.commands.len();
            self.commands.extend_from_slice(&all[entry.commands.clone()]);
            entry.commands = start..self.commands.len();
        }
        self.dead = 0;
    }

    /// All of it; empty afterwards.
    pub fn take(&mut self) -> Batch {
        let (rows, count) = (self.entries.len() as u64, self.entries.iter().map(|entry| entry.count).sum());
        if self.dead > 0 {
            self.compact();
        }
        let commands = std::mem::take(&mut self.commands);
        self.keys.clear();
        self.entries.clear();
        self.index.clear();
        Batch { commands, count, rows }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn add(pending: &mut Pending, key: &str, value: &str) {
        pending.add(key.as_bytes(), |out| {
            out.extend_from_slice(format!("{key}={value};").as_bytes());
            1
        });
    }

    #[test]
    fn without_keys_every_row_is_sent_in_order() {
        let mut pending = Pending::new(false);
        for (key, value) in [("a", "1"), ("b", "2"), ("a", "3")] {
            add(&mut pending, key, value);
        }
        assert_eq!(pending.take(), Batch { commands: b"a=1;b=2;a=3;".to_vec(), count: 3, rows: 3 });
        assert!(pending.is_empty() && pending.bytes() == 0);
    }

    #[test]
    fn a_few_keys_that_change_all_the_time_take_little_room() {
        let mut pending = Pending::new(true);
        let value = "x".repeat(1_000);
        for row in 0..20_000 {
            add(&mut pending, &format!("key-{}", row % 10), &format!("{row}{value}"));
            assert!(pending.bytes() < 1 << 20, "{} bytes of ten rows", pending.bytes());
        }
        let mut sent = BTreeMap::new();
        apply(&pending.take(), &mut sent);
        assert_eq!((sent.len(), &sent["key-3"]), (10, &format!("19993{value}")));
    }

    proptest! {
        #[test]
        fn a_batch_leaves_what_all_its_rows_leave(
            rows in prop::collection::vec(("[a-e]{1,2}", 0..1000u32), 0..200),
            cuts in prop::collection::vec(0..40usize, 0..20),
        ) {
            let (mut pending, mut sent) = (Pending::new(true), BTreeMap::new());
            let mut expected = BTreeMap::new();
            let mut until = cuts.iter();
            let mut left = until.next().copied();
            for (key, value) in &rows {
                add(&mut pending, key, &value.to_string());
                expected.insert(key.clone(), value.to_string());
                left = left.map(|left| left.saturating_sub(1));
                if left == Some(0) {
                    apply(&pending.take(), &mut sent);
                    left = until.next().copied();
                }
            }
            apply(&pending.take(), &mut sent);
            prop_assert_eq!(sent, expected);
        }
    }

    /// Each key at most once in a batch.
    fn apply(batch: &Batch, to: &mut BTreeMap<String, String>) {
        let text = std::str::from_utf8(&batch.commands).expect("text");
        let pairs: Vec<_> = text.split_terminator(';').map(|pair| pair.split_once('=').expect("a pair")).collect();
        let keys: std::collections::BTreeSet<_> = pairs.iter().map(|pair| pair.0).collect();
        assert_eq!((keys.len(), pairs.len()), (batch.count, batch.count), "{text}");
        to.extend(pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())));
    }
}
