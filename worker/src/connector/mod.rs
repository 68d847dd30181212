//! Sources and sinks. One folder or file a connector; `source` and `sink` below are the registry.
//!
//! A source decodes into the plan's `physical` schema; computed columns and watermarks are the task's work. Both
//! traits are called from one task thread; a connector with async I/O runs it elsewhere behind a bounded queue.

use crate::error::Result;
use crate::secrets::Secrets;
use crate::state::{Restored, Staged};
use arrow_array::RecordBatch;
use ef_proto::checkpoint::StateFile;
use ef_proto::ids::{Epoch, OperatorId};
use std::path::PathBuf;

mod blackhole;
pub mod datagen;
#[cfg(any(feature = "redis", feature = "http"))]
mod delivery;
pub mod filesystem;
pub mod formats;
mod generate;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "kafka")]
mod kafka;
mod lookup;
#[cfg(feature = "mqtt")]
pub mod mqtt;
#[cfg(any(feature = "redis", feature = "http", feature = "mqtt", feature = "schema-registry"))]
mod net;
pub mod nexmark;
mod not_null;
mod print;
#[cfg(feature = "redis")]
mod redis;
mod registry;
mod sinks;
mod stdout;

pub use generate::Clock;
pub use lookup::lookup;
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
    /// There is no lane, and there may be none for long: nobody is to wait for this subtask's event time.
    Idle,
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

/// What a source has met besides rows, since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records without a value, which are no rows.
    pub tombstones: u64,
    /// Errors of connections and requests, after which it went on trying.
    pub connection_errors: u64,
    /// Offsets of checkpoints that a group was not told.
    pub commit_failures: u64,
    /// Messages left out, because their key had been there before.
    pub duplicates: u64,
    /// Messages that nobody will send again, lost by a log that could not be written.
    pub lost: u64,
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

    /// The barrier of `epoch`: the position. A source that tells others how far it is remembers it until then.
    fn snapshot(&mut self, _epoch: Epoch) -> Result<Vec<u8>> {
        self.position()
    }

    /// The epoch is recorded, and so are those before it: nobody will ever go back behind its positions but by hand.
    fn completed(&mut self, _epoch: Epoch) -> Result<()> {
        Ok(())
    }

    fn counts(&self) -> Counts {
        Counts::default()
    }
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// Whatever `commit` was called for.
    All,
    UpTo(Epoch),
}

/// What a sink goes on from.
#[derive(Debug, Default)]
pub struct SinkRestore<'a> {
    /// Of all old subtasks of the checkpoint that `permit` is for; a fresh start has neither.
    pub blobs: &'a [Vec<u8>],
    pub permit: Option<CommitPermit>,
    /// Staged files of those old subtasks whose index is this one's, modulo the parallelism.
    pub files: Vec<Restored>,
}

/// A sink's subtask. Rows become visible by `commit` (transactional) or by `write` (print, stdout).
pub trait Sink: Send {
    /// Rows of the sink's input schema (`_op` last when the plan's sink is a changelog).
    fn write(&mut self, batch: &RecordBatch) -> Result<()>;

    /// The barrier of `epoch`: make all rows written so far durable, and return what it takes to commit them later,
    /// all earlier uncommitted epochs included. Opaque; given back to `connector::sink` at a restore.
    fn prepare(&mut self, epoch: Epoch) -> Result<Vec<u8>>;

    /// As `prepare`, for a sink that keeps unpublished rows in files: they travel to the checkpoint's store like any
    /// other state.
    fn stage(&mut self, epoch: Epoch) -> Result<(Vec<u8>, Option<Staged>)> {
        Ok((self.prepare(epoch)?, None))
    }

    /// What was staged with this sequence number is in the store, as these files. They are not reused before it is
    /// confirmed.
    fn uploaded(&mut self, _sequence: u64, _files: Vec<StateFile>) {}

    /// The checkpoint of what was staged with this number is complete: its files may be reused.
    fn confirm(&mut self, _sequence: u64) {}

    /// Publish everything prepared up to the permit's epoch. Idempotent. A sink whose target is out in a network gives the
    /// permit to a thread of its own, and tells by `published` when that is done.
    fn commit(&mut self, permit: &CommitPermit) -> Result<()>;

    /// How far it has published what `commit` was called for. Asked now and then until that is done. Err: it cannot be.
    fn published(&mut self) -> Result<Published> {
        Ok(Published::All)
    }

    /// About every 100 ms: flush what people wait for, roll files by time.
    fn on_clock(&mut self, _now_ms: i64) -> Result<()> {
        Ok(())
    }

    /// Ends every wait inside of `write` and `prepare`, which then fail: the task is told to leave. None: this sink waits
    /// for nobody.
    fn interrupt(&self) -> Option<Box<dyn FnOnce() + Send>> {
        None
    }

    /// Bytes written so far, after encoding; 0 for sinks that write none.
    fn bytes_written(&self) -> u64 {
        0
    }

    /// Rows left out: a NOT NULL column of theirs was NULL, or a server refused them for good.
    fn rows_dropped(&self) -> u64 {
        0
    }
}
