//! What the coordinator and a worker say to each other. In `efctl run` these values travel over a channel in the process;
//! in a cluster the same values travel over the worker's control stream.
//!
//! The stream may break at any moment, so all of it may be said twice: commands and events are idempotent, and what a
//! worker holds is in its [`Hello`]. A worker refuses commands of an older term, and those of an older incarnation of a
//! region that it runs.

use crate::checkpoint::{Manifest, SubtaskState};
use crate::error::Error;
use crate::ids::{DeploymentId, Epoch, OperatorId, SubtaskId, WorkerId};
use crate::place::Tier;
use crate::plan::Plan;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Worker → coordinator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Report {
    /// The first on every stream. What follows are the events that may have been lost with the last stream.
    Hello(Hello),
    Heartbeat(Load),
    Event {
        deployment: DeploymentId,
        event: Event,
    },
    Log {
        lines: Vec<LogLine>,
        /// Lines that did not fit into the worker's buffer.
        lost: u64,
    },
}

/// Who a worker is, and what it holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    pub worker: WorkerId,
    /// Of this process: a worker that was restarted has another, and has lost all it ran.
    pub boot: u64,
    /// Of EdgeFlow.
    pub version: String,
    pub tier: Tier,
    pub site: String,
    pub labels: BTreeMap<String, String>,
    pub slots: u32,
    pub memory_bytes: u64,
    /// `host:port` at which other workers reach its tasks.
    pub data_address: String,
    /// The highest term it has seen.
    pub term: u64,
    pub deployments: Vec<Held>,
}

/// A deployment that a worker holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    pub deployment: DeploymentId,
    pub phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// State is being restored, tasks are being started.
    Starting,
    Running,
    /// Cancelled or failed; tasks are on their way out.
    Leaving,
}

/// What a worker's process uses and what its tasks did, every heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Thousandths of one core.
    pub cpu_millis: u32,
    pub resident_bytes: u64,
    pub subtasks: Vec<SubtaskLoad>,
}

/// Counters since the deployment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubtaskLoad {
    pub deployment: DeploymentId,
    pub subtask: SubtaskId,
    pub rows_in: u64,
    pub rows_out: u64,
    pub bytes: u64,
    pub late_rows: u64,
    pub dropped_rows: u64,
    pub error_rows: u64,
    /// None before the first.
    pub watermark_ms: Option<i64>,
    pub memory_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    pub at_ms: i64,
    pub level: String,
    /// None: of the worker itself.
    pub job: Option<String>,
    pub message: String,
}

/// Coordinator → worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// The leader's.
    pub term: u64,
    pub body: OrderBody,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum OrderBody {
    /// The answer to a Hello.
    Welcome {
        heartbeat_interval_ms: u64,
        /// After this long without a heartbeat the worker counts as lost.
        heartbeat_timeout_ms: u64,
    },
    /// The other answer; the stream ends.
    Refused(Error),
    Command {
        deployment: DeploymentId,
        command: Command,
    },
}

/// Leader → agent, for one deployment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    Deploy(Box<Deploy>),
    /// Start the checkpoint `epoch` at the sources.
    Trigger {
        epoch: Epoch,
    },
    /// `epoch` is durable and recorded: sinks may publish what they prepared up to it.
    Complete {
        epoch: Epoch,
    },
    /// `epoch` failed; what was uploaded for it may not be reused.
    Abort {
        epoch: Epoch,
    },
    /// Sources stop reading and end their streams as if the input had ended here. Open windows fire only if `drain`.
    Stop {
        drain: bool,
    },
    /// Tasks end at once, without a checkpoint.
    Cancel,
}

/// Start the subtasks of a region that are placed here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deploy {
    /// As `Plan::encode` writes it: the worker checks what it was sent, in one process as in a cluster.
    pub plan: Vec<u8>,
    pub placement: Placement,
    /// Restore from here; None: start empty.
    pub restore: Option<Manifest>,
    /// Where the cluster keeps checkpoints, a directory or URL; this job's are in `jobs/<job>` of it.
    pub state: String,
    /// How many of the worker's slots the deployment takes, which is its share of `worker.memory`.
    pub slots: u32,
    /// The job has been stopped: sources end where `restore` has them and read nothing more, for windows may have fired
    /// already. With true what is still open fires, as after `Command::Stop`.
    pub stop: Option<bool>,
}

/// Where the tasks of a region run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Placement {
    /// The worker that is told.
    pub here: WorkerId,
    /// `host:port` of the exchange of every worker involved.
    pub peers: BTreeMap<WorkerId, String>,
    /// Each subtask of each task's root operator.
    pub tasks: BTreeMap<SubtaskId, WorkerId>,
}

impl Placement {
    /// All in one process.
    pub fn solo(plan: &Plan) -> Placement {
        let here = WorkerId("local".into());
        let tasks = plan.tasks().tasks;
        let tasks = tasks.iter().flat_map(|task| task.subtasks()).map(|task| (task, here.clone())).collect();
        Placement { here, peers: BTreeMap::new(), tasks }
    }

    pub fn is_here(&self, task: SubtaskId) -> bool {
        self.tasks.get(&task) == Some(&self.here)
    }
}

/// Agent → leader, of one deployment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// All tasks that are placed here have restored their state and run.
    Running,
    /// A subtask has snapshotted for `epoch` and its files are in the store. One for every operator of the plan's
    /// subtasks, stateless ones included (with an empty state).
    Acked { epoch: Epoch, subtask: SubtaskId, state: SubtaskState },
    /// A subtask could not snapshot for `epoch`.
    Declined { epoch: Epoch, subtask: SubtaskId, reason: String },
    /// A sink subtask has published everything up to `epoch`.
    Committed { epoch: Epoch, subtask: SubtaskId },
    /// A subtask has reached the end of its inputs. Its last state goes into every later checkpoint.
    Ended { subtask: SubtaskId },
    /// A task has failed; the first of them is the job's cause.
    Failed { operator: OperatorId, error: Error },
    /// All tasks have gone (after Stop, Cancel, a failure or the end of all inputs).
    Stopped,
}
