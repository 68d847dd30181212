//! One task: a tree of fused operators on a thread of its own, from a source or a gate to sinks and exchanges.
//!
//! read → align → run the operators → emit; at a barrier, snapshot and pass it on. A task is driven by frames and by
//! [`Control`] messages, and answers with [`TaskEvent`]s; it never touches the network or the object store.

mod gated;
mod lanes;
mod node;
mod outputs;
mod row_time;
mod source;

pub use gated::GatedTask;
pub use node::{Body, Node};
pub use outputs::{ExchangeOutput, Out, Outputs, Target};
pub use row_time::RowTime;
pub use source::SourceTask;

use crate::error::Error;
use crate::state::Staged;
use ef_proto::checkpoint::StateFile;
use ef_proto::ids::{Epoch, OperatorId, SubtaskId};
use std::sync::Arc;

/// Milliseconds since the epoch.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Agent → task.
#[derive(Clone, Debug)]
pub enum Control {
    /// A checkpoint starts: sources emit its barrier, tasks that have ended answer for themselves.
    Trigger(Epoch),
    /// The epoch is recorded: sinks publish, stores may reuse its files.
    Complete(Epoch),
    Abort(Epoch),
    /// A snapshot's files are in the store, under these names.
    Uploaded {
        subtask: SubtaskId,
        sequence: u64,
        files: Vec<StateFile>,
    },
    /// Sources end their streams here; open windows fire only if `drain`.
    Stop {
        drain: bool,
    },
    /// Leave at once.
    Cancel,
}

/// Task → agent.
#[derive(Debug)]
pub enum TaskEvent {
    Snapshot {
        epoch: Epoch,
        nodes: Vec<NodeSnapshot>,
    },
    Declined {
        epoch: Epoch,
        subtask: SubtaskId,
        reason: String,
    },
    Committed {
        epoch: Epoch,
        subtask: SubtaskId,
    },
    Ended {
        subtasks: Vec<SubtaskId>,
    },
    Failed {
        operator: OperatorId,
        error: Error,
    },
    /// The thread has left.
    Exited,
}

/// The state of one operator's subtask at a barrier.
#[derive(Debug)]
pub struct NodeSnapshot {
    pub subtask: SubtaskId,
    pub blob: Vec<u8>,
    pub staged: Option<Staged>,
}

/// Where a task's events go. Bounded; a task waits when the agent is behind.
pub type Events = tokio::sync::mpsc::Sender<TaskEvent>;

/// The end of a task that was told to leave, as distinct from one that failed.
#[derive(Debug)]
pub enum Exit {
    Cancelled,
    Failed(OperatorId, Error),
}
