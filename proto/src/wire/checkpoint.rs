//! Manifest and subtask states.

use super::enumeration::{Enumeration, enumeration, known};
use super::fault::{Fault, list, narrow};
use super::generated::checkpoint as wire;
use crate::checkpoint::{Layout, Manifest, OperatorState, StateFile, SubtaskState};
use crate::ids::{Epoch, Incarnation, JobId, OperatorId};

enumeration!(Layout: Entries, RocksDb);

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
    type Error = Fault;

    fn try_from(manifest: wire::Manifest) -> Result<Manifest, Fault> {
        Ok(Manifest {
            job: JobId(manifest.job),
            incarnation: Incarnation(manifest.incarnation),
            epoch: Epoch(manifest.epoch),
            triggered_at_ms: manifest.triggered_at_ms,
            terminal: manifest.terminal,
            max_parallelism: narrow(manifest.max_parallelism, "max_parallelism")?,
            operators: list(manifest.operators, "operators")?,
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
    type Error = Fault;

    fn try_from(operator: wire::OperatorState) -> Result<OperatorState, Fault> {
        Ok(OperatorState {
            id: OperatorId(operator.id),
            name: operator.name,
            parallelism: operator.parallelism,
            subtasks: list(operator.subtasks, "subtasks")?,
        })
    }
}

impl From<&SubtaskState> for wire::SubtaskState {
    fn from(subtask: &SubtaskState) -> wire::SubtaskState {
        wire::SubtaskState {
            index: subtask.index,
            key_groups_from: subtask.key_groups.start.into(),
            key_groups_to: subtask.key_groups.end.into(),
            layout: subtask.layout.number(),
            keyed: subtask.keyed.iter().map(Into::into).collect(),
            blob: subtask.blob.clone(),
            ended: subtask.ended,
        }
    }
}

impl TryFrom<wire::SubtaskState> for SubtaskState {
    type Error = Fault;

    fn try_from(subtask: wire::SubtaskState) -> Result<SubtaskState, Fault> {
        Ok(SubtaskState {
            index: subtask.index,
            key_groups: narrow(subtask.key_groups_from, "key_groups_from")?
                ..narrow(subtask.key_groups_to, "key_groups_to")?,
            layout: known(subtask.layout, "layout")?,
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
