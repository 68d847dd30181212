//! What a manifest holds, for people: operators, sizes, files, key groups.

use ef_proto::checkpoint::{Manifest, OperatorState, SubtaskState};
use ef_proto::wire::generated::control::{OperatorStateDescription, StateDescription};

/// The manifest knows neither where it lies nor the job's name: `path` and `job_name` are left to the caller. Rows are
/// not counted by it either.
pub fn describe(manifest: &Manifest) -> StateDescription {
    let operators: Vec<_> = manifest.operators.iter().map(operator).collect();
    StateDescription {
        path: String::new(),
        job: manifest.job.0.clone(),
        job_name: String::new(),
        epoch: manifest.epoch.0,
        triggered_at_ms: manifest.triggered_at_ms.max(0) as u64,
        max_parallelism: manifest.max_parallelism.into(),
        bytes: operators.iter().map(|operator| operator.bytes).sum(),
        files: operators.iter().map(|operator| operator.files).sum(),
        operators,
    }
}

fn operator(state: &OperatorState) -> OperatorStateDescription {
    OperatorStateDescription {
        id: state.id.to_string(),
        name: state.name.clone(),
        parallelism: state.parallelism,
        bytes: bytes(state),
        files: state.subtasks.iter().map(|subtask| subtask.keyed.len() as u64).sum(),
        key_groups: state.subtasks.iter().map(key_groups).collect(),
        rows: None,
    }
}

/// Of an operator's files and of what lies in the manifest itself.
pub(super) fn bytes(state: &OperatorState) -> u64 {
    let of =
        |subtask: &SubtaskState| subtask.blob.len() as u64 + subtask.keyed.iter().map(|file| file.bytes).sum::<u64>();
    state.subtasks.iter().map(of).sum()
}

/// First and last, both included; empty where there is no keyed state.
fn key_groups(subtask: &SubtaskState) -> String {
    match subtask.key_groups.is_empty() {
        true => String::new(),
        false => format!("{}..{}", subtask.key_groups.start, subtask.key_groups.end - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifests::tests::{file, manifest};

    #[test]
    fn description_adds_up_files_and_blobs_and_names_key_groups() {
        let mut manifest = manifest(9, 2, [file(1, 3, "a"), file(1, 9, "b")]);
        manifest.operators[0].subtasks[0].key_groups = 0..44;
        let blob = SubtaskState { index: 1, blob: vec![0; 5], ..SubtaskState::default() };
        manifest.operators[0].subtasks.push(blob);
        let described = describe(&manifest);
        assert_eq!((described.epoch, described.bytes, described.files, described.max_parallelism), (9, 11, 2, 128));
        assert_eq!(described.operators[0].key_groups, ["0..43", ""]);
        assert_eq!(described.operators[0].id, "0000000000000007");
    }
}
