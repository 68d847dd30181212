//! What a worker is given to work with.

use ef_proto::error::Error;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// `worker.memory` when nobody says otherwise: half of the machine's memory, at most this.
pub const MEMORY_BYTES_MAX_DEFAULT: u64 = 4 << 30;

/// Bytes that may wait on one channel between two tasks before its sender waits.
pub const CHANNEL_CREDIT_BYTES: usize = 4 << 20;

#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// For state: hot tables, RocksDB's caches and memtables. Not for code, Arrow batches in flight and libraries.
    pub memory_bytes: u64,
    /// Shares that the memory is divided into; a deployment has as many as it takes slots.
    pub slots: u32,
    /// Scratch space of this process alone: live RocksDB directories, staged snapshots. Wiped at the start.
    pub work_dir: PathBuf,
    /// Negative control of the tests: sinks publish before their checkpoint has completed.
    pub commit_early: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Memory,
    RocksDb,
}

/// `SET 'state.backend'` of a job; memory unless set.
pub fn backend(config: &BTreeMap<String, String>) -> Result<Backend, Error> {
    match config.get("state.backend").map(String::as_str) {
        None | Some("memory" | "hashmap") => Ok(Backend::Memory),
        Some("rocksdb") if cfg!(feature = "rocksdb") => Ok(Backend::RocksDb),
        Some("rocksdb") => {
            Err(Error::invalid("'state.backend' = 'rocksdb': this build has no RocksDB; 'memory' is accepted"))
        }
        Some(other) => Err(Error::invalid(format!("'state.backend' = '{other}'; 'memory' and 'rocksdb' are accepted"))),
    }
}
