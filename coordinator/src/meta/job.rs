//! One job, as it is remembered.

use super::hex;
use ef_proto::ids::{Epoch, Incarnation, JobId, OperatorId, SubtaskId, WorkerId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// Events kept of each job.
pub const EVENTS_MAX: usize = 200;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum JobState {
    /// Waits for workers that it fits on.
    Pending,
    Deploying,
    Running,
    /// Waits to be deployed again after a failure.
    Restarting,
    /// Takes its last checkpoint.
    Stopping,
    Finished,
    Cancelled,
    Failed,
}

impl JobState {
    pub fn name(self) -> &'static str {
        match self {
            JobState::Pending => "PENDING",
            JobState::Deploying => "DEPLOYING",
            JobState::Running => "RUNNING",
            JobState::Restarting => "RESTARTING",
            JobState::Stopping => "STOPPING",
            JobState::Finished => "FINISHED",
            JobState::Cancelled => "CANCELLED",
            JobState::Failed => "FAILED",
        }
    }

    pub fn has_ended(self) -> bool {
        matches!(self, JobState::Finished | JobState::Cancelled | JobState::Failed)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    pub id: JobId,
    pub name: String,
    pub sql: String,
    pub vars: BTreeMap<String, String>,
    pub models: BTreeMap<String, String>,
    pub parallelism: Option<u32>,
    #[serde(default)]
    pub overrides: BTreeMap<OperatorId, u32>,
    /// As `Plan::encode` writes it.
    #[serde(with = "hex")]
    pub plan: Vec<u8>,
    /// Where its checkpoints go: a directory or URL.
    pub state_root: String,
    pub state: JobState,
    /// Why it is in this state, in words.
    pub reason: String,
    pub submitted_at_ms: u64,
    pub since_ms: u64,
    /// By region. A region that is not here is not deployed.
    pub regions: BTreeMap<u32, Deployed>,
    /// The last one given out.
    pub incarnation: Incarnation,
    /// Epochs up to this one may have been given out.
    pub reserved: Epoch,
    /// Completed and retained, ascending.
    pub checkpoints: Vec<CheckpointRecord>,
    pub completed: u64,
    pub restarts: u32,
    /// Of the first failure since the job last ran well.
    #[serde(default)]
    pub cause: String,
    #[serde(default)]
    pub stopping: Option<Stopping>,
    #[serde(default)]
    pub pending: Option<Pending>,
    #[serde(default)]
    pub restored_from: String,
    pub events: VecDeque<JobEvent>,
    /// Number of the last event.
    pub sequence: u64,
}

/// A region as it was placed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployed {
    pub incarnation: Incarnation,
    /// Each subtask of each task's root, with its worker.
    #[serde(with = "placed")]
    pub tasks: BTreeMap<SubtaskId, WorkerId>,
    pub slots: BTreeMap<WorkerId, u32>,
    /// The checkpoint that it was started from.
    pub restore: Option<Epoch>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRecord {
    pub epoch: Epoch,
    pub cause: String,
    pub triggered_at_ms: u64,
    pub completed_at_ms: u64,
    /// That it refers to, and what of that was new.
    pub bytes: u64,
    pub new_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopping {
    pub drain: bool,
    /// The savepoint that its last checkpoint becomes.
    pub savepoint: Option<String>,
}

/// What is to happen after the next checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// These regions are deployed anew.
    pub regions: Vec<u32>,
    /// With this plan: parallelism, overrides.
    pub rescale: Option<Rescale>,
    pub message: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rescale {
    #[serde(with = "hex")]
    pub plan: Vec<u8>,
    pub parallelism: Option<u32>,
    pub overrides: BTreeMap<OperatorId, u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobEvent {
    pub sequence: u64,
    pub at_ms: u64,
    pub kind: String,
    pub message: String,
}

impl Job {
    /// The checkpoint that a restart restores.
    pub fn newest(&self) -> Option<&CheckpointRecord> {
        self.checkpoints.last()
    }

    /// Beside what waits already: a job that is rescaled may be moved as well. The later plan counts.
    pub fn pend(&mut self, more: Pending) {
        let Some(pending) = &mut self.pending else {
            self.pending = Some(more);
            return;
        };
        pending.regions.extend(more.regions);
        pending.regions.sort_unstable();
        pending.regions.dedup();
        pending.message = format!("{}, and {}", pending.message, more.message);
        if more.rescale.is_some() {
            pending.rescale = more.rescale;
        }
    }

    pub fn event(&mut self, at_ms: u64, kind: &str, message: impl Into<String>) {
        self.sequence += 1;
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        let (sequence, kind, message) = (self.sequence, kind.to_string(), message.into());
        self.events.push_back(JobEvent { sequence, at_ms, kind, message });
    }
}

/// Subtasks as keys of a JSON object: `00000000000000ab/3`.
mod placed {
    use super::*;
    use serde::{Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(tasks: &BTreeMap<SubtaskId, WorkerId>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(tasks.iter().map(|(task, worker)| (task.to_string(), worker)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<SubtaskId, WorkerId>, D::Error> {
        let tasks: BTreeMap<String, WorkerId> = BTreeMap::deserialize(deserializer)?;
        let subtask = |text: &str| {
            let (operator, index) = text.split_once('/')?;
            let operator = OperatorId(u64::from_str_radix(operator, 16).ok()?);
            Some(SubtaskId { operator, index: index.parse().ok()? })
        };
        let parsed = tasks.into_iter().map(|(task, worker)| {
            let id = subtask(&task).ok_or_else(|| D::Error::custom(format!("`{task}` is not a subtask")))?;
            Ok((id, worker))
        });
        parsed.collect()
    }
}
