//! How often the log was written: for metrics, and for the tests that hold us to one synced write per round.

use std::sync::atomic::{AtomicU64, Ordering};

/// Since the start of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rounds of raft-rs: each is at most one synced write.
    pub readies: u64,
    /// Writes that waited for the disk, those of `compact` included.
    pub synced_writes: u64,
    /// Writes that did not: the commit index alone.
    pub commit_writes: u64,
}

/// Counted by the node's thread, read by others.
#[derive(Debug, Default)]
pub struct Counters {
    readies: AtomicU64,
    synced_writes: AtomicU64,
    commit_writes: AtomicU64,
}

impl Counters {
    pub fn ready(&self) {
        self.readies.fetch_add(1, Ordering::Relaxed);
    }

    pub fn write(&self, sync: bool) {
        let counter = if sync { &self.synced_writes } else { &self.commit_writes };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub fn read(&self) -> Counts {
        Counts {
            readies: self.readies.load(Ordering::Relaxed),
            synced_writes: self.synced_writes.load(Ordering::Relaxed),
            commit_writes: self.commit_writes.load(Ordering::Relaxed),
        }
    }
}
