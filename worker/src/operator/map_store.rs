//! A store for the operators' tests: both kinds, over a sorted map.

use crate::error::Result;
use crate::state::{Kind, Staged, Store, Visit};
use std::collections::BTreeMap;

/// A store as the trait describes it, both kinds.
pub struct Map {
    kind: Kind,
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    restored: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Map {
    pub fn new(kind: Kind, restored: BTreeMap<Vec<u8>, Vec<u8>>) -> Map {
        match kind {
            Kind::Memory => Map { kind, entries: BTreeMap::new(), restored },
            Kind::Disk => Map { kind, entries: restored, restored: BTreeMap::new() },
        }
    }

    /// What a checkpoint would hold.
    pub fn checkpoint(&mut self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        match self.kind {
            Kind::Memory => std::mem::take(&mut self.entries),
            Kind::Disk => self.entries.clone(),
        }
    }
}

impl Store for Map {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        assert!(self.entries.insert(key.to_vec(), value.to_vec()).is_none(), "chunks are only ever added");
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<()> {
        self.entries.remove(key);
        Ok(())
    }

    fn delete_range(&mut self, from: &[u8], to: &[u8]) -> Result<()> {
        self.entries.retain(|key, _| key.as_slice() < from || key.as_slice() >= to);
        Ok(())
    }

    fn get_many(&mut self, keys: &[&[u8]], each: &mut dyn FnMut(usize, Option<&[u8]>) -> Result<()>) -> Result<()> {
        keys.iter().enumerate().try_for_each(|(i, key)| each(i, self.entries.get(*key).map(Vec::as_slice)))
    }

    fn scan(&mut self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()> {
        let entries = if self.kind == Kind::Memory { &self.restored } else { &self.entries };
        for (key, value) in entries.range(from.to_vec()..to.to_vec()) {
            if !visit(key, value)? {
                break;
            }
        }
        Ok(())
    }

    fn forget_restored(&mut self) {
        self.restored.clear();
    }

    fn snapshot(&mut self) -> Result<Staged> {
        unreachable!("the task's business")
    }

    fn confirm(&mut self, _sequence: u64) {}

    fn memory_bytes(&self) -> usize {
        0
    }
}
