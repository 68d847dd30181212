//! Manifest and subtask states.

use super::generated::checkpoint as wire;
use crate::checkpoint::{Layout, Manifest, OperatorState, StateFile, SubtaskState};
use crate::error::Error;
use crate::ids::{Epoch, Incarnation, JobId, OperatorId};

impl From<&Manifest> for wire::Manifest {
    fn from(manifest: &Manifest) -> wire::Manifest {
        wire::Manifest {
            job: manifest.job.0.clone(),
            incarnation: manifest.incarnation.0,
            epoch: manifest.epoch.0,
            triggered_at_ms: manifest.triggered_at_ms,
            terminal: manifest.terminal,
            max_parallelism: manifest.max_parallelism.into(),
            operators: manifest.operators.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::Manifest> for Manifest {
    type Error = Error;

    fn try_from(manifest: wire::Manifest) -> Result<Manifest, Error> {
        Ok(Manifest {
            job: JobId(manifest.job),
            incarnation: Incarnation(manifest.incarnation),
            epoch: Epoch(manifest.epoch),
            triggered_at_ms: manifest.triggered_at_ms,
            terminal: manifest.terminal,
            max_parallelism: key_group(manifest.max_parallelism, "max_parallelism")?,
            operators: manifest.operators.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&OperatorState> for wire::OperatorState {
    fn from(operator: &OperatorState) -> wire::OperatorState {
        wire::OperatorState {
            id: operator.id.0,
            name: operator.name.clone(),
            parallelism: operator.parallelism,
            subtasks: operator.subtasks.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::OperatorState> for OperatorState {
    type Error = Error;

    fn try_from(operator: wire::OperatorState) -> Result<OperatorState, Error> {
        Ok(OperatorState {
            id: OperatorId(operator.id),
            name: operator.name,
            parallelism: operator.parallelism,
            subtasks: operator.subtasks.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&SubtaskState> for wire::SubtaskState {
    fn from(subtask: &SubtaskState) -> wire::SubtaskState {
        let layout = match subtask.layout {
            Layout::Entries => wire::Layout::Entries,
            Layout::RocksDb => wire::Layout::RocksDb,
        };
        wire::SubtaskState {
            index: subtask.index,
            key_groups_from: subtask.key_groups.start.into(),
            key_groups_to: subtask.key_groups.end.into(),
            layout: layout.into(),
            keyed: subtask.keyed.iter().map(Into::into).collect(),
            blob: subtask.blob.clone(),
            ended: subtask.ended,
        }
    }
}

impl TryFrom<wire::SubtaskState> for SubtaskState {
    type Error = Error;

    fn try_from(subtask: wire::SubtaskState) -> Result<SubtaskState, Error> {
        let layout = match wire::Layout::try_from(subtask.layout) {
            Ok(wire::Layout::Entries) => Layout::Entries,
            Ok(wire::Layout::RocksDb) => Layout::RocksDb,
            Ok(wire::Layout::Unknown) | Err(_) => {
                return Err(Error::corrupt(format!(
                    "layout {} of a subtask's state is not known; this version reads 1 (entries) and 2 (RocksDB)",
                    subtask.layout
                )));
            }
        };
        Ok(SubtaskState {
            index: subtask.index,
            key_groups: key_group(subtask.key_groups_from, "key_groups_from")?
                ..key_group(subtask.key_groups_to, "key_groups_to")?,
            layout,
            keyed: subtask.keyed.into_iter().map(Into::into).collect(),
            blob: subtask.blob,
            ended: subtask.ended,
        })
    }
}

impl From<&StateFile> for wire::StateFile {
    fn from(file: &StateFile) -> wire::StateFile {
        wire::StateFile { path: file.path.clone(), name: file.name.clone(), bytes: file.bytes, crc32: file.crc32 }
    }
}

impl From<wire::StateFile> for StateFile {
    fn from(file: wire::StateFile) -> StateFile {
        StateFile { path: file.path, name: file.name, bytes: file.bytes, crc32: file.crc32 }
    }
}

fn key_group(value: u32, field: &str) -> Result<u16, Error> {
    u16::try_from(value).map_err(|_| Error::corrupt(format!("{field} is {value}; at most {} is possible", u16::MAX)))
}
