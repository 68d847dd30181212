//! What the leader and an agent say to each other. In `efctl run` these values travel over a channel in the process;
//! in a cluster the same values travel over the agent's control stream.

use crate::checkpoint::{Manifest, SubtaskState};
use crate::error::Error;
use crate::ids::{Epoch, Incarnation, JobId, OperatorId, SubtaskId};
use serde::{Deserialize, Serialize};

/// Leader → agent.
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
    /// Sources stop reading and end their streams as if the input had ended here; open windows do not fire.
    Stop,
    /// Tasks end at once, without a checkpoint.
    Cancel,
}

/// Start a job's subtasks. In one process: all of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deploy {
    pub job: JobId,
    pub incarnation: Incarnation,
    /// As `Plan::encode` writes it: the worker checks what it was sent, in one process as in a cluster.
    pub plan: Vec<u8>,
    /// Restore from here; None: start empty.
    pub restore: Option<Manifest>,
}

/// Agent → leader.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// All tasks have restored their state and run.
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
