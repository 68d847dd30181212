//! The alphabet of every stream between operators.

use arrow_array::RecordBatch;
use ef_proto::ids::Epoch;

/// Rows of a batch at most, and bytes roughly; a source closes a batch at whichever comes first, or after
/// [`BATCH_MILLIS`].
pub const BATCH_ROWS: usize = 8192;
pub const BATCH_BYTES: usize = 1 << 20;
pub const BATCH_MILLIS: u64 = 10;

/// Event time that no row reaches: the watermark at the end of a bounded input.
pub const END_OF_TIME: i64 = i64::MAX;

/// What travels on a channel, in order.
#[derive(Clone, Debug)]
pub enum Frame {
    Data(RecordBatch),
    /// No more rows with event time <= this, in ms since the epoch, except late ones.
    Watermark(i64),
    Barrier(Barrier),
    /// This channel holds back no watermark until its next Data or Watermark.
    Idle,
    /// Nothing follows.
    End,
}

/// Separates the rows of one checkpoint from those of the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Barrier {
    pub epoch: Epoch,
    /// The last checkpoint that the source knew to be complete when this one began. Word of that may come to a worker
    /// after the barrier does, over another worker's channel; what the snapshot reuses depends on it.
    pub completed: Epoch,
}
