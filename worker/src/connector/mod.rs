//! Sources and sinks. One folder or file a connector; `source` and `sink` below are the registry.
//!
//! A source decodes into the plan's `physical` schema; computed columns and watermarks are the task's work. Both
//! traits are called from one task thread; a connector with async I/O runs it elsewhere behind a bounded queue.

use crate::error::Result;
use crate::secrets::Secrets;
use arrow_array::RecordBatch;
use ef_proto::ids::{Epoch, OperatorId};
use std::path::PathBuf;

mod blackhole;
pub mod datagen;
pub mod filesystem;
mod generate;
pub mod nexmark;
mod not_null;
mod print;
mod registry;
mod sinks;
mod stdout;

pub use generate::Clock;
pub use not_null::Enforcer;
pub use registry::source;
pub use sinks::sink;

/// Where a source's or sink's subtask stands.
#[derive(Clone, Debug)]
pub struct Place {
    pub table: String,
    pub index: u32,
    pub parallelism: u32,
    /// Distinguishes the files of one job from those of another in the same directory.
    pub job: String,
    /// Distinguishes the files of one operator from those of another that writes to the same table.
    pub operator: OperatorId,
    /// The job's deployment: grows with every start, so that no name of an earlier one is used again.
    pub incarnation: u64,
    /// Milliseconds since the epoch when the task started.
    pub now_ms: i64,
    /// Of this worker.
    pub secrets: Secrets,
    /// A directory for this subtask alone, on this worker; it is made by whoever needs it, and does not outlive the
    /// deployment.
    pub scratch: PathBuf,
    /// A directory of this operator of this job on this worker, that outlives deployments and restarts of the worker: for
    /// what was acknowledged to a device and is in no checkpoint yet. None: this process keeps nothing.
    pub durable: Option<PathBuf>,
}

/// What a source has for the task.
#[derive(Debug)]
pub enum Polled {
    /// A lane begins: a partition of the input with a watermark of its own, which holds back the task's watermark
    /// until its rows move it or it closes. Lane numbers count up from 0; the lowest one that is closed is
    /// used again, by another lane. All lanes that are known at the start are opened before the first batch.
    Opened(usize),
    Batch(SourceBatch),
    /// The lane has no more rows.
    Closed(usize),
    /// Nothing now; poll again after at most this many milliseconds.
    Wait(u64),
    /// All lanes are closed and nothing will follow.
    End,
}

#[derive(Debug)]
pub struct SourceBatch {
    pub lane: usize,
    /// Columns of `Source::physical`. May be empty of rows when all of them failed to decode.
    pub batch: RecordBatch,
    /// Undecodable rows, with `plan::error_schema`, when the format's policy is to skip them.
    pub errors: Option<RecordBatch>,
    /// Fields of these rows that could not be read and are NULL, when that is the format's policy.
    pub field_errors: u64,
    /// The first of them that this source met: its place and reason, told once.
    pub field_error: Option<String>,
    /// Bytes read for this batch, before decompression.
    pub bytes: u64,
}

/// A replayable source's subtask.
pub trait Source: Send {
    /// The next event. Returns soon (10 ms at most without data: `Wait`). `watermarks[lane]` is each open lane's
    /// watermark (i64::MIN before its first): a source with several lanes reads the one that is furthest behind, so
    /// that files of the same time range do not make each other late.
    fn poll(&mut self, watermarks: &[i64]) -> Result<Polled>;

    /// Where to go on after the rows returned so far: opaque bytes, given back to `connector::source` at a restore
    /// (the blobs of all old subtasks, from which each new one takes what is its own).
    fn position(&self) -> Result<Vec<u8>>;

    /// False for a source that never ends by itself.
    fn bounded(&self) -> bool;
}

/// The proof that an epoch's manifest is recorded; only then may a sink publish. Made by the agent from the
/// leader's `Complete`.
#[derive(Clone, Copy, Debug)]
pub struct CommitPermit {
    epoch: Epoch,
}

impl CommitPermit {
    /// Only for a recorded manifest: the agent, on the leader's `Complete`, and a restore from a manifest.
    pub fn for_recorded(epoch: Epoch) -> CommitPermit {
        CommitPermit { epoch }
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }
}

/// A sink's subtask. Rows become visible by `commit` (transactional) or by `write` (print, stdout).
pub trait Sink: Send {
    /// Rows of the sink's input schema (`_op` last when the plan's sink is a changelog).
    fn write(&mut self, batch: &RecordBatch) -> Result<()>;

    /// The barrier of `epoch`: make all rows written so far durable, and return what it takes to commit them later,
    /// all earlier uncommitted epochs included. Opaque; given back to `connector::sink` at a restore.
    fn prepare(&mut self, epoch: Epoch) -> Result<Vec<u8>>;

    /// Publish everything prepared up to the permit's epoch. Idempotent.
    fn commit(&mut self, permit: &CommitPermit) -> Result<()>;

    /// About every 100 ms: flush what people wait for, roll files by time.
    fn on_clock(&mut self, _now_ms: i64) -> Result<()> {
        Ok(())
    }

    /// Bytes written so far, after encoding; 0 for sinks that write none.
    fn bytes_written(&self) -> u64 {
        0
    }

    /// Rows left out because a NOT NULL column of theirs was NULL.
    fn rows_dropped(&self) -> u64 {
        0
    }
}
