//! The log as raft-rs sees it (`Storage`), and the writes of the driver, each one batch.
//!
//! Entries are read straight from RocksDB: usually they were written a moment ago and are still in its memtable, and a
//! copy of the tail in memory would need a bound and a rule of its own for the rest. What is asked for all the time is
//! kept in memory: terms, bounds, hard state. Everything is read and checked once when the log is opened, so that
//! damage is an error then and not a panic later.

use super::super::counts::Counters;
use super::disk::Disk;
use super::terms::Terms;
use super::{entry, format, hard_state, snapshot};
use ef_proto::error::Error;
use raft::prelude::{ConfState, Entry, HardState, RaftState, Snapshot, SnapshotMetadata};
use raft::{GetEntriesContext, Storage, StorageError};
use rocksdb::WriteBatch;
use std::path::Path;
use std::sync::Arc;

pub struct Log {
    disk: Disk,
    hard_state: HardState,
    /// As of the snapshot.
    members: ConfState,
    terms: Terms,
    counters: Arc<Counters>,
}

/// What a `Ready` wants to be on disk.
#[derive(Default)]
pub struct Change<'a> {
    /// Replaces all there is.
    pub snapshot: Option<&'a Snapshot>,
    /// Replace those from their first index on.
    pub entries: &'a [Entry],
    pub hard_state: Option<&'a HardState>,
}

impl Log {
    /// The log of node `id`; made, with `id` as the only voter, if the directory is empty.
    pub fn open(directory: &Path, id: u64, counters: Arc<Counters>) -> Result<Log, Error> {
        let members = ConfState { voters: vec![id], ..ConfState::default() };
        let empty = SnapshotMetadata { conf_state: Some(members), ..SnapshotMetadata::default() };
        let disk = Disk::open(
            directory,
            &[
                (format::KEY, format::encode(id)),
                (hard_state::KEY, hard_state::encode(&HardState::default())),
                (snapshot::KEY, snapshot::encode(&empty, &[])),
            ],
        )?;
        let found = format::decode(&disk.read(format::KEY)?).map_err(|e| disk.locate(e))?;
        if found != id {
            return Err(disk.locate(Error::invalid(format!("it is that of node {found}, not of node {id}"))));
        }
        let hard_state = hard_state::decode(&disk.read(hard_state::KEY)?).map_err(|e| disk.locate(e))?;
        let snapshot = snapshot::decode(&disk.read(snapshot::KEY)?).map_err(|e| disk.locate(e))?;
        let metadata = snapshot.metadata.expect("decoded with it");
        let terms = check_entries(&disk, &metadata, hard_state.term)?;
        if !(terms.start()..=terms.last()).contains(&hard_state.commit) {
            let (start, last, commit) = (terms.start(), terms.last(), hard_state.commit);
            return Err(disk.damaged(format!("entry {commit} is committed, but the log is from {start} to {last}")));
        }
        Ok(Log { disk, hard_state, members: metadata.conf_state.unwrap_or_default(), terms, counters })
    }

    pub fn snapshot_index(&self) -> u64 {
        self.terms.start()
    }

    /// The consumer's state as of [`Log::snapshot_index`].
    pub fn snapshot_data(&self) -> Result<Vec<u8>, Error> {
        Ok(self.read_snapshot()?.data)
    }

    pub fn is_sole_voter(&self, id: u64) -> bool {
        self.members.voters == [id] && self.members.voters_outgoing.is_empty()
    }

    /// Writes what a `Ready` brings, if it brings anything. With `sync` it is on disk on return.
    pub fn save(&mut self, change: Change<'_>, sync: bool) -> Result<(), Error> {
        let mut batch = WriteBatch::default();
        let mut terms = self.terms.clone();
        let mut hard_state = change.hard_state.unwrap_or(&self.hard_state).clone();
        let mut members = None;
        if let Some(Snapshot { data, metadata }) = change.snapshot {
            let metadata = metadata.as_ref().expect("a snapshot that is not empty has an index");
            batch.put_cf(self.disk.meta(), snapshot::KEY, snapshot::encode(metadata, data));
            self.delete_entries(&mut batch, terms.start(), terms.last());
            terms = Terms::new(metadata.index, metadata.term);
            hard_state.commit = hard_state.commit.max(metadata.index);
            members = metadata.conf_state.clone();
        }
        if let Some(first) = change.entries.first() {
            self.delete_entries(&mut batch, first.index, terms.last());
        }
        for entry in change.entries {
            batch.put_cf(self.disk.log(), entry::key(entry.index), entry::encode(entry));
            terms.append(entry.index, entry.term);
        }
        if hard_state != self.hard_state {
            batch.put_cf(self.disk.meta(), hard_state::KEY, hard_state::encode(&hard_state));
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.write(batch, sync)?;
        (self.terms, self.hard_state) = (terms, hard_state);
        if let Some(members) = members {
            self.members = members;
        }
        Ok(())
    }

    /// Notes how far the log is committed. Not synced: after a power loss the entries say it again.
    pub fn commit(&mut self, index: u64) -> Result<(), Error> {
        let hard_state = HardState { commit: index, ..self.hard_state.clone() };
        self.save(Change { hard_state: Some(&hard_state), ..Change::default() }, false)
    }

    /// Puts the consumer's state as of `index` in the place of the entries up to there, in one synced batch.
    pub fn compact(&mut self, index: u64, state: &[u8]) -> Result<(), Error> {
        let (start, commit) = (self.terms.start(), self.hard_state.commit);
        if index <= start {
            tracing::debug!(index, start, "a snapshot that is not newer than the one there is changes nothing");
            return Ok(());
        }
        assert!(index <= commit, "a state as of index {index}, but only {commit} is committed");
        let term = self.terms.get(index).expect("committed entries are in the log");
        let metadata = SnapshotMetadata { conf_state: Some(self.members.clone()), index, term };
        let mut batch = WriteBatch::default();
        batch.put_cf(self.disk.meta(), snapshot::KEY, snapshot::encode(&metadata, state));
        self.delete_entries(&mut batch, start, index);
        self.write(batch, true)?;
        self.terms.compact(index);
        Ok(())
    }

    /// Deletes `from` to `to`, both included.
    fn delete_entries(&self, batch: &mut WriteBatch, from: u64, to: u64) {
        if from <= to {
            batch.delete_range_cf(self.disk.log(), entry::key(from), entry::key(to + 1));
        }
    }

    fn write(&self, batch: WriteBatch, sync: bool) -> Result<(), Error> {
        self.counters.write(sync);
        self.disk.write(batch, sync)
    }

    fn read_snapshot(&self) -> Result<Snapshot, Error> {
        snapshot::decode(&self.disk.read(snapshot::KEY)?).map_err(|e| self.disk.locate(e))
    }

    fn read_entries(&self, low: u64, high: u64, bytes_max: u64) -> Result<Vec<Entry>, Error> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        let mut next = low;
        self.disk.scan(&entry::key(low), &mut |key, value| {
            bytes += value.len() as u64;
            // One always, or raft would not get past an entry that is larger than what it reads at once.
            if next == high || (bytes > bytes_max && next > low) {
                return Ok(false);
            }
            let entry = entry::decode(key, value).map_err(|e| self.disk.locate(e))?;
            if entry.index != next {
                return Err(self.disk.damaged(format!("entry {next} is missing")));
            }
            entries.push(entry);
            next += 1;
            Ok(true)
        })?;
        if entries.is_empty() && low < high {
            return Err(self.disk.damaged(format!("entry {low} is missing")));
        }
        Ok(entries)
    }
}

/// Reads every entry once: there is no gap, terms do not fall, and none is later than the node's own.
fn check_entries(disk: &Disk, snapshot: &SnapshotMetadata, own_term: u64) -> Result<Terms, Error> {
    let mut terms = Terms::new(snapshot.index, snapshot.term);
    let mut term = snapshot.term;
    disk.scan(&[], &mut |key, value| {
        let entry = entry::decode(key, value).map_err(|e| disk.locate(e))?;
        let expected = terms.last() + 1;
        if entry.index != expected {
            return Err(disk.damaged(format!("entry {} is where entry {expected} should be", entry.index)));
        }
        if entry.term < term || entry.term > own_term {
            let (index, found) = (entry.index, entry.term);
            return Err(
                disk.damaged(format!("entry {index} has term {found}, which is not within {term} to {own_term}"))
            );
        }
        term = entry.term;
        terms.append(entry.index, term);
        Ok(true)
    })?;
    Ok(terms)
}

fn other(error: Error) -> raft::Error {
    raft::Error::Store(StorageError::Other(Box::new(error)))
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState { hard_state: self.hard_state.clone(), conf_state: self.members.clone() })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.first_index()? {
            return Err(StorageError::Compacted.into());
        }
        let last = self.terms.last();
        assert!(high <= last + 1, "entries up to {high} are asked for, but {last} is the last");
        self.read_entries(low, high, max_size.into().unwrap_or(u64::MAX)).map_err(other)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let absent = if index < self.terms.start() { StorageError::Compacted } else { StorageError::Unavailable };
        self.terms.get(index).ok_or(absent.into())
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.terms.start() + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.terms.last())
    }

    fn snapshot(&self, request_index: u64, _: u64) -> raft::Result<Snapshot> {
        if self.terms.start() < request_index.max(1) {
            // raft asks again; the consumer compacts some day.
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        self.read_snapshot().map_err(other)
    }
}
