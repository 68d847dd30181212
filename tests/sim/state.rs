//! Keyed state as RocksDB keeps it: a table in memory, immutable files below it, snapshots that upload what is new and
//! reuse the files of the newest snapshot that is known to be complete.

use super::jobs::Row;
use super::store::{Entries, Key};
use ef_proto::checkpoint::{StateFile, SubtaskState};
use ef_proto::ids::Epoch;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

/// More files than this are merged into one.
const FILES_MAX: usize = 4;

/// A snapshot on its way: (name, a file that is there already or what is to be uploaded).
pub struct Staged {
    pub sequence: u64,
    pub db_uid: String,
    pub key_groups: Range<u16>,
    pub files: Vec<(String, Result<StateFile, Arc<Entries>>)>,
}

pub struct Keyed {
    key_groups: Range<u16>,
    db_uid: String,
    live: BTreeMap<Key, Row>,
    /// Changed since the last snapshot.
    changed: BTreeMap<Key, Option<Row>>,
    files: Vec<(String, Arc<Entries>)>,
    next_file: u64,
    sequence: u64,
    confirmed: BTreeMap<String, StateFile>,
    uploaded: BTreeMap<u64, Vec<StateFile>>,
    unconfirmed: VecDeque<(Epoch, u64)>,
}

impl Keyed {
    /// `db_uid` is fresh. `parents`: the old subtasks that hold a part of the key groups, with what is in their files.
    pub fn restore(
        key_groups: Range<u16>,
        db_uid: String,
        parents: &[SubtaskState],
        content: &BTreeMap<String, Arc<Entries>>,
    ) -> Keyed {
        let mut keyed = Keyed {
            key_groups: key_groups.clone(),
            db_uid,
            live: BTreeMap::new(),
            changed: BTreeMap::new(),
            files: Vec::new(),
            next_file: 1,
            sequence: 0,
            confirmed: BTreeMap::new(),
            uploaded: BTreeMap::new(),
            unconfirmed: VecDeque::new(),
        };
        let parents: Vec<&SubtaskState> = parents.iter().filter(|parent| !parent.keyed.is_empty()).collect();
        for parent in &parents {
            let mut live: BTreeMap<Key, Row> = BTreeMap::new();
            for file in &parent.keyed {
                apply(&mut live, &content[&file.path]);
            }
            keyed.live.extend(live.into_iter().filter(|((group, ..), _)| key_groups.contains(group)));
        }
        match parents[..] {
            // The same key groups of one parent: its files go on, and so do their numbers.
            [parent] if parent.key_groups == key_groups => {
                let there = |file: &StateFile| (file.name.clone(), content[&file.path].clone());
                keyed.files = parent.keyed.iter().map(there).collect();
                keyed.confirmed = by_name(parent.keyed.clone());
                let numbers = parent.keyed.iter().filter_map(|file| file.name[..6].parse::<u64>().ok());
                keyed.next_file = numbers.max().unwrap_or(0) + 1;
            }
            _ => keyed.changed = keyed.live.iter().map(|(key, row)| (*key, Some(*row))).collect(),
        }
        keyed
    }

    pub fn get(&self, key: &Key) -> Option<Row> {
        self.live.get(key).copied()
    }

    pub fn put(&mut self, key: Key, row: Row) {
        assert!(self.key_groups.contains(&key.0), "a row of another subtask's key group");
        self.live.insert(key, row);
        self.changed.insert(key, Some(row));
    }

    pub fn delete(&mut self, key: Key) {
        self.live.remove(&key);
        self.changed.insert(key, None);
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Row)> {
        self.live.iter()
    }

    pub fn snapshot(&mut self, epoch: Epoch) -> Staged {
        self.sequence += 1;
        self.unconfirmed.push_back((epoch, self.sequence));
        if !self.changed.is_empty() {
            let entries = std::mem::take(&mut self.changed).into_iter().collect();
            self.add(entries);
        }
        if self.files.len() > FILES_MAX {
            self.files.clear();
            let entries = self.live.iter().map(|(key, row)| (*key, Some(*row))).collect();
            self.add(entries);
        }
        let files = self
            .files
            .iter()
            .map(|(name, entries)| (name.clone(), self.confirmed.get(name).cloned().ok_or_else(|| entries.clone())));
        let files = files.collect();
        Staged { sequence: self.sequence, db_uid: self.db_uid.clone(), key_groups: self.key_groups.clone(), files }
    }

    fn add(&mut self, entries: Entries) {
        self.files.push((format!("{:06}.sst", self.next_file), Arc::new(entries)));
        self.next_file += 1;
    }

    /// `hasty`: takes them for good before their checkpoint is complete.
    pub fn uploaded(&mut self, sequence: u64, files: Vec<StateFile>, hasty: bool) {
        if hasty {
            self.confirmed.extend(by_name(files.clone()));
        }
        self.uploaded.insert(sequence, files);
    }

    pub fn complete(&mut self, epoch: Epoch) {
        while let Some((of, sequence)) = self.unconfirmed.front().copied().filter(|(of, _)| *of <= epoch) {
            self.unconfirmed.pop_front();
            // An older one that never completed is passed over: its files may not be reused.
            if of == epoch {
                let later = self.uploaded.split_off(&(sequence + 1));
                if let Some(files) = self.uploaded.remove(&sequence) {
                    self.confirmed = by_name(files);
                }
                self.uploaded = later;
            }
        }
    }

    pub fn abort(&mut self, epoch: Epoch) {
        self.unconfirmed.retain(|(of, _)| *of > epoch);
    }
}

fn by_name(files: Vec<StateFile>) -> BTreeMap<String, StateFile> {
    files.into_iter().map(|file| (file.name.clone(), file)).collect()
}

fn apply(live: &mut BTreeMap<Key, Row>, entries: &Entries) {
    for (key, row) in entries {
        match row {
            Some(row) => drop(live.insert(*key, *row)),
            None => drop(live.remove(key)),
        }
    }
}
