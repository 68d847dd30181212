//! The checkpoint manifest: what a completed checkpoint consists of, and where its objects lie.
//!
//! A manifest is written once, by create-only put, after all its files; whoever reads it checks the crc in its last
//! four bytes. References for garbage collection are derived from manifests and from nothing else.

use crate::error::Error;
use crate::ids::{Epoch, Incarnation, JobId, OperatorId};
use crate::wire::generated::checkpoint as wire;
use crate::wire::{Fault, Frame};
use serde::{Deserialize, Serialize};
use std::ops::Range;

#[cfg(test)]
mod tests;

/// Everything that one completed checkpoint needs to be restored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub job: JobId,
    pub incarnation: Incarnation,
    pub epoch: Epoch,
    /// Milliseconds since the epoch at the trigger, for people and retention; nothing is ordered by it.
    pub triggered_at_ms: i64,
    /// The job's sources had all ended: restoring it finds nothing left to do.
    pub terminal: bool,
    pub max_parallelism: u16,
    pub operators: Vec<OperatorState>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperatorState {
    pub id: OperatorId,
    pub name: String,
    pub parallelism: u32,
    pub subtasks: Vec<SubtaskState>,
}

/// The state of one subtask of one operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SubtaskState {
    pub index: u32,
    /// The key groups that the keyed files hold; empty where there is no keyed state.
    pub key_groups: Range<u16>,
    /// How `keyed` is to be read.
    pub layout: Layout,
    pub keyed: Vec<StateFile>,
    /// State that belongs to no key: split offsets, pending sink files, watermarks. Opaque to all but its operator;
    /// on rescale every new subtask is given the blobs of all old ones.
    pub blob: Vec<u8>,
    /// The subtask had ended before the checkpoint.
    pub ended: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Layout {
    /// One file of key-value entries in `worker/src/state/snapshot.rs`'s format.
    #[default]
    Entries,
    /// RocksDB's files, by their names in the database directory.
    RocksDb,
}

/// One immutable object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StateFile {
    /// Path below the job's root in the store.
    pub path: String,
    /// Name under which the owner wants it back (RocksDB: `000012.sst`, `CURRENT`, …).
    pub name: String,
    pub bytes: u64,
    pub crc32: u32,
}

/// Paths below a job's root (`<state-dir>/jobs/<job>/` or the same in an object store).
pub mod path {
    use super::*;

    /// `chk/<epoch, 20 digits>/manifest`: listing sorts by epoch.
    pub fn manifest(epoch: Epoch) -> String {
        format!("chk/{:020}/manifest", epoch.0)
    }

    /// The epoch of a manifest's path; None for any other path.
    pub fn manifest_epoch(path: &str) -> Option<Epoch> {
        let digits = path.strip_prefix("chk/")?.strip_suffix("/manifest")?;
        (digits.len() == 20).then(|| digits.parse().ok().map(Epoch)).flatten()
    }

    /// `shared/<operator>/<subtask>/<db_uid>/<incarnation>-<epoch>-<name>`. `db_uid` is fresh at every open of a
    /// store, because two databases restored from one checkpoint go on with the same file numbers.
    pub fn state_file(
        operator: OperatorId,
        subtask: u32,
        db_uid: &str,
        incarnation: Incarnation,
        epoch: Epoch,
        name: &str,
    ) -> String {
        format!("shared/{operator}/{subtask}/{db_uid}/{}-{}-{name}", incarnation.0, epoch.0)
    }

    /// (incarnation, epoch) that created a state file; None for any other path.
    pub fn state_file_origin(path: &str) -> Option<(Incarnation, Epoch)> {
        let mut parts = path.strip_prefix("shared/")?.splitn(4, '/');
        let name = parts.nth(3)?;
        let mut numbers = name.splitn(3, '-');
        let incarnation = numbers.next()?.parse().ok()?;
        let epoch = numbers.next()?.parse().ok()?;
        numbers.next()?;
        Some((Incarnation(incarnation), Epoch(epoch)))
    }
}

impl Manifest {
    /// Every object that must exist for this manifest to be restored.
    pub fn files(&self) -> impl Iterator<Item = &StateFile> {
        self.operators.iter().flat_map(|op| &op.subtasks).flat_map(|subtask| &subtask.keyed)
    }

    /// As it is stored.
    pub fn encode(&self) -> Vec<u8> {
        FRAME.seal(&wire::Manifest::from(self))
    }

    /// Refuses everything that `encode` has not written in full.
    pub fn decode(bytes: &[u8]) -> Result<Manifest, Error> {
        let manifest: wire::Manifest = FRAME.open(bytes).map_err(Error::corrupt)?;
        manifest.try_into().map_err(|fault: Fault| Error::corrupt(format!("manifest.{fault}")))
    }
}

const FRAME: Frame = Frame { what: "checkpoint manifest", magic: "EFCK", version: 1 };
