//! The decisions that are replicated. Each carries all that its application needs, times included.

use super::job::{CheckpointRecord, Deployed, Stopping};
use super::{JobState, hex};
use ef_proto::ids::{Epoch, JobId, OperatorId, WorkerId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    Submit(Box<Submitted>),
    /// Regions of a job are to run as placed, from `restore` (None: empty).
    Deploy { job: JobId, at_ms: u64, regions: BTreeMap<u32, Deployed>, restore: Option<Epoch> },
    /// A state that the job has come to, with the reason in words.
    State { job: JobId, at_ms: u64, state: JobState, reason: String },
    /// A region has failed and is to be deployed again.
    Restart { job: JobId, at_ms: u64, regions: Vec<u32>, cause: String, delay_ms: u64 },
    /// Epochs up to this one may be given out.
    Reserve { job: JobId, upto: Epoch },
    /// The manifest is in the store: from now on this checkpoint is what a restart restores.
    Complete { job: JobId, at_ms: u64, checkpoint: CheckpointRecord },
    /// These checkpoints are no longer retained.
    Retire { job: JobId, epochs: Vec<Epoch> },
    /// With the place of its savepoint, if it takes one: a job that is to stop with a savepoint never stops without.
    Stop {
        job: JobId,
        at_ms: u64,
        stopping: Stopping,
        #[serde(default)]
        path: Option<String>,
    },
    Cancel { job: JobId, at_ms: u64 },
    /// The plan at another parallelism, which runs after the next checkpoint.
    Rescale {
        job: JobId,
        at_ms: u64,
        #[serde(with = "hex")]
        plan: Vec<u8>,
        parallelism: Option<u32>,
        overrides: BTreeMap<OperatorId, u32>,
        regions: Vec<u32>,
        message: String,
    },
    /// These regions move to other workers after the next checkpoint.
    Move { job: JobId, at_ms: u64, regions: Vec<u32>, reason: String },
    /// The checkpoint that a rescale or a move waited for is complete: its regions are to be deployed anew.
    Proceed { job: JobId, at_ms: u64, epoch: Epoch },
    /// The checkpoint that a rescale or a move waited for has failed.
    GiveUp { job: JobId, at_ms: u64, reason: String },
    CreateSavepoint { id: String, job: JobId, path: String, at_ms: u64 },
    /// The checkpoint that the savepoint becomes a copy of.
    SavepointEpoch { id: String, epoch: Epoch },
    SavepointDone { id: String, at_ms: u64, bytes: u64 },
    SavepointFailed { id: String, at_ms: u64, reason: String },
    SavepointDisposed { id: String, at_ms: u64 },
    Cordon { worker: WorkerId, cordoned: bool },
}

/// A job as it was submitted, planned and checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Submitted {
    pub job: JobId,
    pub at_ms: u64,
    pub name: String,
    pub sql: String,
    pub vars: BTreeMap<String, String>,
    /// What the submitter's inference runtime said of each model file, as `plan.v1.Model`, hexadecimal.
    pub models: BTreeMap<String, String>,
    pub parallelism: Option<u32>,
    #[serde(with = "hex")]
    pub plan: Vec<u8>,
    /// Where its checkpoints go: a directory or URL.
    pub state: String,
    /// The savepoint or checkpoint that it starts from, copied into the job's root under this epoch.
    pub restore: Option<(String, CheckpointRecord)>,
}
