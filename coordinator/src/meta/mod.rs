//! What the cluster must not forget: jobs, where they run, their completed checkpoints, savepoints, cordoned workers.
//!
//! Changed by [`Command`]s alone, which are replicated first: `apply` only records what was decided before, so a replay
//! gives the same state. No clock, no chance, no I/O. Stored as JSON, which can be read at 3 a.m. with any tool; a new
//! field has a default.

mod apply;
mod command;
mod hex;
mod job;
#[cfg(test)]
mod tests;

pub use command::{Command, Submitted};
pub use job::{CheckpointRecord, Deployed, Job, JobEvent, JobState, Pending, Stopping};

use ef_proto::error::Error;
use ef_proto::ids::{Epoch, JobId, WorkerId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Jobs that have ended are forgotten beyond this number, the oldest first; their checkpoints stay.
pub const ENDED_MAX: usize = 200;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    pub jobs: BTreeMap<JobId, Job>,
    pub savepoints: BTreeMap<String, Savepoint>,
    /// Workers that take no new work.
    #[serde(default)]
    pub cordoned: BTreeSet<WorkerId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Savepoint {
    pub id: String,
    pub job: JobId,
    pub job_name: String,
    /// Its own directory or URL.
    pub path: String,
    pub state: SavepointState,
    pub created_at_ms: u64,
    #[serde(default)]
    pub completed_at_ms: u64,
    /// The checkpoint that it is a copy of, once one is found.
    #[serde(default)]
    pub epoch: Option<Epoch>,
    #[serde(default)]
    pub bytes: u64,
    /// Why it failed.
    #[serde(default)]
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SavepointState {
    InProgress,
    Completed,
    Failed,
    Disposed,
}

impl SavepointState {
    pub fn name(self) -> &'static str {
        match self {
            SavepointState::InProgress => "IN_PROGRESS",
            SavepointState::Completed => "COMPLETED",
            SavepointState::Failed => "FAILED",
            SavepointState::Disposed => "DISPOSED",
        }
    }
}

impl Meta {
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("maps with string keys, numbers and strings")
    }

    pub fn decode(bytes: &[u8]) -> Result<Meta, Error> {
        serde_json::from_slice(bytes)
            .map_err(|e| Error::corrupt(format!("the coordinator's state does not read back: {e}")))
    }

    /// Checkpoints of a job that must stay: those retained, and those that a savepoint is being copied from.
    pub fn kept(&self, job: &JobId) -> BTreeSet<Epoch> {
        let retained = self.jobs.get(job).into_iter().flat_map(|job| &job.checkpoints).map(|record| record.epoch);
        retained.chain(self.copied_from(job)).collect()
    }

    /// Checkpoints of a job that a savepoint is being copied from.
    pub fn copied_from(&self, job: &JobId) -> impl Iterator<Item = Epoch> {
        let copying = |savepoint: &&Savepoint| savepoint.job == *job && savepoint.state == SavepointState::InProgress;
        self.savepoints.values().filter(copying).filter_map(|savepoint| savepoint.epoch)
    }
}
