//! Keyed state of one operator's subtask: memory or RocksDB behind one trait.
//!
//! Keys start with the key group as u16 big endian, so that a range of key groups is a range of keys. State is only
//! ever rebuilt from a completed checkpoint, never from a live directory.

pub mod durable;
pub mod memory;
pub mod restore;
#[cfg(feature = "rocksdb")]
pub mod rocks;
pub mod snapshot;
mod stores;
pub mod upload;

pub use ef_store::Root;
pub use memory::MemoryStore;
pub use stores::Stores;
pub use upload::{Origin, download, upload};

use crate::error::Result;
use ef_proto::checkpoint::Layout;
use std::ops::Range;
use std::path::PathBuf;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Holds nothing between snapshots: `put` appends to the snapshot being taken; `scan` sees what was restored,
    /// until [`Store::forget_restored`].
    Memory,
    /// Holds the state; reads see all writes.
    Disk,
}

/// Calls back with each entry; return false to stop.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<bool>;

/// A sorted map from bytes to bytes, private to one operator's subtask.
pub trait Store: Send {
    fn kind(&self) -> Kind;

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()>;

    /// Memory: nothing to do.
    fn delete(&mut self, key: &[u8]) -> Result<()>;

    /// Deletes `from..to`.
    fn delete_range(&mut self, from: &[u8], to: &[u8]) -> Result<()>;

    /// Looks up many keys at once (sorted keys are faster); `each(i, value)` for every i in order.
    fn get_many(&mut self, keys: &[&[u8]], each: &mut dyn FnMut(usize, Option<&[u8]>) -> Result<()>) -> Result<()>;

    /// Entries of `from..to` in key order.
    fn scan(&mut self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()>;

    /// Memory: the operator has taken over what was restored.
    fn forget_restored(&mut self) {}

    /// The quick, synchronous part of a checkpoint: what is returned no longer changes while the store goes on.
    fn snapshot(&mut self) -> Result<Staged>;

    /// The snapshot `sequence` has been uploaded as these files. They are not reused before it is confirmed.
    fn uploaded(&mut self, _sequence: u64, _files: Vec<ef_proto::checkpoint::StateFile>) {}

    /// The checkpoint that took this snapshot (by order of `snapshot` calls: `sequence` of its Staged) completed:
    /// its files may be reused by later ones.
    fn confirm(&mut self, sequence: u64);

    /// Bytes of memory in use (memtables, caches).
    fn memory_bytes(&self) -> usize;

    /// What makes a call that waits inside the store return soon, with an error. Nothing is written after that.
    fn interrupt(&self) -> Option<Box<dyn FnOnce() + Send>> {
        None
    }
}

/// One old subtask's state, downloaded: its keyed files lie in `directory` under their names, and go with the value:
/// a store takes over what it needs of them.
#[derive(Debug)]
pub struct Restored {
    pub state: ef_proto::checkpoint::SubtaskState,
    pub directory: tempdir::Owned,
}

/// A snapshot on local disk or in memory, ready for upload. Dropping it removes the local files.
#[derive(Debug)]
pub struct Staged {
    /// Counts the snapshots of this store.
    pub sequence: u64,
    /// Identity of this open of the store; part of the uploaded files' paths.
    pub db_uid: String,
    pub layout: Layout,
    pub key_groups: Range<u16>,
    pub files: Vec<StagedFile>,
    /// Removed with everything in it when the value is dropped.
    pub directory: Option<tempdir::Owned>,
}

#[derive(Debug)]
pub struct StagedFile {
    /// Name under which the store wants it back.
    pub name: String,
    pub content: Content,
}

#[derive(Debug)]
pub enum Content {
    /// New since the last confirmed snapshot: upload these bytes.
    Bytes(bytes::Bytes),
    File(PathBuf),
    /// Already in the object store, by a confirmed checkpoint.
    Reused(ef_proto::checkpoint::StateFile),
}

/// A directory that is removed on drop.
pub mod tempdir {
    use std::path::{Path, PathBuf};

    #[derive(Debug)]
    pub struct Owned(PathBuf);

    impl Owned {
        pub fn new(path: PathBuf) -> Owned {
            Owned(path)
        }

        pub fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Owned {
        fn drop(&mut self) {
            // What is left behind is swept at the next start: the whole working directory is ours.
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}
