//! Operators: synchronous, single-threaded, without channels or I/O. One file an operator; `build` is the registry.
//!
//! The task calls an operator with batches, watermarks and the clock; it answers through [`Emit`]. A task forwards
//! watermarks itself, after the operator has emitted what the watermark released.

use crate::error::Result;
use crate::state::Store;
use arrow_array::RecordBatch;
use ef_proto::plan::Output;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub mod accumulate;
mod build;
pub mod calc;
pub mod group_aggregate;
mod group_set;
pub mod lookup_join;
#[cfg(test)]
mod map_store;
pub mod predict;
pub mod session;
mod store_keys;
#[cfg(test)]
pub mod testing;
pub mod window_aggregate;
pub mod window_assign;
pub mod window_join;

pub use build::build;

/// Where an operator's rows go: the next operator of the chain, or an exchange.
pub trait Emit {
    fn emit_to(&mut self, output: Output, batch: RecordBatch) -> Result<()>;

    /// Rows to the main output. Empty batches are dropped by the receiver; do not bother to check.
    fn emit(&mut self, batch: RecordBatch) -> Result<()> {
        self.emit_to(Output::Main, batch)
    }
}

/// What an operator may use during one call.
pub struct Scope<'a> {
    pub out: &'a mut dyn Emit,
    /// The operator's own store (a [`crate::state::Kind::Memory`] one that is never snapshotted, if it is not keyed).
    pub store: &'a mut dyn Store,
    /// The processing clock, ms since the epoch, read once a batch.
    pub now_ms: i64,
}

/// One operator's subtask.
///
/// State rule: an operator whose store is [`crate::state::Kind::Memory`] keeps all its state in its own tables and
/// puts all of it in every [`Operator::snapshot`]; over a [`crate::state::Kind::Disk`] store its tables are a
/// write-back cache: it puts what changed since the last snapshot (deletes included) and may evict after a put.
pub trait Operator: Send {
    /// Rows of input `input`. `_op` is the last column on changelog edges.
    fn on_batch(&mut self, input: usize, batch: RecordBatch, scope: &mut Scope<'_>) -> Result<()>;

    /// Event time has reached `watermark` (ms); it only ever grows, and is `END_OF_TIME` when a bounded input ends.
    fn on_watermark(&mut self, _watermark: i64, _scope: &mut Scope<'_>) -> Result<()> {
        Ok(())
    }

    /// The processing clock has moved (`scope.now_ms`); called about every 10 ms, between batches, if
    /// [`Operator::clocked`].
    fn on_clock(&mut self, _scope: &mut Scope<'_>) -> Result<()> {
        Ok(())
    }

    fn clocked(&self) -> bool {
        false
    }

    /// A barrier is about to pass, or word that the input is idle: emit what must not stay behind it (a local
    /// aggregate's partial results).
    fn before_barrier(&mut self, _scope: &mut Scope<'_>) -> Result<()> {
        Ok(())
    }

    /// Put the state into the store (see the state rule) and return what belongs to no key (watermark, counters).
    fn snapshot(&mut self, _store: &mut dyn Store) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    /// Called once before anything else: the store as restored (empty at a fresh start), and the blobs of all old
    /// subtasks of this operator (all of them, also after a rescale).
    fn restore(&mut self, _store: &mut dyn Store, _blobs: &[Vec<u8>]) -> Result<()> {
        Ok(())
    }

    /// All inputs have ended; the last call but for snapshots. Windows have already fired by `END_OF_TIME`.
    fn on_end(&mut self, _scope: &mut Scope<'_>) -> Result<()> {
        Ok(())
    }

    /// Over memory: move state to `store` and free memory. Called by the task between batches when this operator's
    /// [`Operator::memory_bytes`] is over its share of `worker.memory` and the store is Disk.
    fn spill(&mut self, _store: &mut dyn Store) -> Result<()> {
        Ok(())
    }

    /// Bytes of state held in memory, roughly but not less than half of the truth.
    fn memory_bytes(&self) -> usize {
        0
    }

    /// Stateful operators have a store; others do not pay for one.
    fn keyed(&self) -> bool {
        false
    }

    /// Called once before the first batch: a call that waits for the world outside ends, with any error, soon after this
    /// is set.
    fn heed(&mut self, _left: Arc<AtomicBool>) {}

    /// Rows that came too late for every window. All counters are of this run: state does not carry them over a
    /// restore, just as rows in and out are not.
    fn late_rows(&self) -> u64 {
        0
    }

    /// Rows without a window because their time was NULL, in this run.
    fn null_time_rows(&self) -> u64 {
        0
    }
}
