//! Opens the stores of a job's subtasks in the worker's scratch directory, and divides `worker.memory` between them.

#[cfg(feature = "rocksdb")]
use super::rocks::{RocksShared, RocksStore};
use super::{MemoryStore, Restored, Store};
use crate::config::Backend;
use crate::error::Result;
use ef_proto::ids::{Incarnation, SubtaskId};
use std::ops::Range;
use std::path::{Path, PathBuf};
#[cfg(feature = "rocksdb")]
use std::sync::Arc;

pub struct Stores {
    backend: Backend,
    #[cfg_attr(not(feature = "rocksdb"), expect(dead_code, reason = "only databases need a place"))]
    work_dir: PathBuf,
    /// Names every store of this deployment: an incarnation is claimed once, so no two deployments share it.
    db_uid: String,
    #[cfg(feature = "rocksdb")]
    shared: Option<Arc<RocksShared>>,
}

impl Stores {
    /// `memory_bytes`: all of `worker.memory`.
    pub fn open(backend: Backend, work_dir: &Path, memory_bytes: u64, incarnation: Incarnation) -> Stores {
        #[cfg(feature = "rocksdb")]
        let shared = (backend == Backend::RocksDb).then(|| Arc::new(RocksShared::new((memory_bytes / 2) as usize)));
        #[cfg(not(feature = "rocksdb"))]
        let _ = memory_bytes;
        Stores {
            backend,
            work_dir: work_dir.to_path_buf(),
            db_uid: format!("i{incarnation}"),
            #[cfg(feature = "rocksdb")]
            shared,
        }
    }

    fn hot(backend: Backend, memory_bytes: u64) -> u64 {
        match backend {
            Backend::Memory => memory_bytes,
            // Half is the databases'; a sixth is what a spill takes while it sorts and the tables while they grow.
            Backend::RocksDb => memory_bytes / 3,
        }
    }

    /// What the operators' own tables may take in all; the rest is the databases'.
    pub fn hot_bytes(&self, memory_bytes: u64) -> u64 {
        Stores::hot(self.backend, memory_bytes)
    }

    /// For operators without keyed state.
    pub fn none(&self) -> Box<dyn Store> {
        Box::new(MemoryStore::new(String::new(), 0..0))
    }

    pub fn create(
        &self,
        subtask: SubtaskId,
        key_groups: Range<u16>,
        restored: Vec<Restored>,
    ) -> Result<Box<dyn Store>> {
        match self.backend {
            Backend::Memory if restored.is_empty() => Ok(Box::new(MemoryStore::new(self.db_uid.clone(), key_groups))),
            Backend::Memory => Ok(Box::new(MemoryStore::restore(self.db_uid.clone(), key_groups, &restored)?)),
            #[cfg(feature = "rocksdb")]
            Backend::RocksDb => {
                let directory = self.work_dir.join(format!("db-{}-{}", subtask.operator, subtask.index));
                let shared = self.shared.clone().expect("made when the backend is RocksDB");
                let store = if restored.is_empty() {
                    RocksStore::open(directory, self.db_uid.clone(), key_groups, shared)?
                } else {
                    RocksStore::restore(directory, self.db_uid.clone(), key_groups, shared, &restored)?
                };
                Ok(Box::new(store))
            }
            #[cfg(not(feature = "rocksdb"))]
            Backend::RocksDb => {
                let _ = subtask;
                Err(crate::error::Error::invalid("this build has no RocksDB"))
            }
        }
    }
}
