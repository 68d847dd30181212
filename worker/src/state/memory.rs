//! State that its operator keeps in memory: the store only carries it from snapshot to snapshot.
//!
//! Every snapshot is complete; nothing is reused. What was restored is held, sorted, until the operator has taken it
//! over.

use super::{Content, Kind, Restored, Staged, StagedFile, Store, Visit, restore, snapshot::Writer};
use crate::error::Result;
use ef_proto::checkpoint::Layout;
use std::ops::Range;

pub struct MemoryStore {
    db_uid: String,
    key_groups: Range<u16>,
    /// By key, the newest value of each.
    restored: Vec<(Box<[u8]>, Box<[u8]>)>,
    writer: Option<Writer>,
    snapshots: u64,
}

impl MemoryStore {
    pub fn new(db_uid: String, key_groups: Range<u16>) -> MemoryStore {
        MemoryStore { db_uid, key_groups, restored: Vec::new(), writer: None, snapshots: 0 }
    }

    /// With the entries of `parents` that belong to `key_groups`.
    pub fn restore(db_uid: String, key_groups: Range<u16>, parents: &[Restored]) -> Result<MemoryStore> {
        let mut restored: Vec<(Box<[u8]>, Box<[u8]>)> = Vec::new();
        for parent in parents {
            restore::entries(parent, &key_groups, &mut |key, value| {
                restored.push((key.into(), value.into()));
                Ok(true)
            })?;
        }
        restored.sort_by(|a, b| a.0.cmp(&b.0)); // stable: the later of two equal keys stays the later
        restored.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
        Ok(MemoryStore { restored, ..MemoryStore::new(db_uid, key_groups) })
    }
}

impl Store for MemoryStore {
    fn kind(&self) -> Kind {
        Kind::Memory
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => none.insert(Writer::new()?),
        };
        writer.put(key, value)
    }

    fn delete(&mut self, _key: &[u8]) -> Result<()> {
        Ok(())
    }

    fn delete_range(&mut self, _from: &[u8], _to: &[u8]) -> Result<()> {
        Ok(())
    }

    fn get_many(&mut self, keys: &[&[u8]], each: &mut dyn FnMut(usize, Option<&[u8]>) -> Result<()>) -> Result<()> {
        for (i, key) in keys.iter().enumerate() {
            let found = self.restored.binary_search_by(|(held, _)| held.as_ref().cmp(key));
            each(i, found.ok().map(|at| self.restored[at].1.as_ref()))?;
        }
        Ok(())
    }

    fn scan(&mut self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()> {
        let start = self.restored.partition_point(|(key, _)| key.as_ref() < from);
        for (key, value) in self.restored[start..].iter().take_while(|(key, _)| key.as_ref() < to) {
            if !visit(key, value)? {
                break;
            }
        }
        Ok(())
    }

    fn forget_restored(&mut self) {
        self.restored = Vec::new();
    }

    fn snapshot(&mut self) -> Result<Staged> {
        let files = self.writer.take().map_or(Ok(Vec::new()), Writer::finish)?;
        self.snapshots += 1;
        let files = files.into_iter().enumerate();
        Ok(Staged {
            sequence: self.snapshots,
            db_uid: self.db_uid.clone(),
            layout: Layout::Entries,
            key_groups: self.key_groups.clone(),
            files: files
                .map(|(i, bytes)| StagedFile { name: format!("{i:06}.entries"), content: Content::Bytes(bytes) })
                .collect(),
            directory: None,
        })
    }

    fn confirm(&mut self, _sequence: u64) {}

    fn memory_bytes(&self) -> usize {
        let restored = self.restored.iter().map(|(key, value)| key.len() + value.len() + 32).sum::<usize>();
        restored + self.writer.as_ref().map_or(0, Writer::bytes)
    }
}
