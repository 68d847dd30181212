//! Counters of one operator's subtask: held by the task as fields, read by whoever shows them. Updated once a batch.

use ef_proto::ids::{DeploymentId, SubtaskId};
use ef_proto::rpc::SubtaskLoad;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Relaxed everywhere: each counter is read alone, and a reader may be a batch behind.
#[derive(Debug, Default)]
pub struct OperatorMetrics {
    pub rows_in: AtomicU64,
    pub rows_out: AtomicU64,
    /// Read by a source (before decompression), written by a sink (after encoding).
    pub bytes: AtomicU64,
    pub late_rows: AtomicU64,
    /// In no window, because their time was NULL.
    pub null_time_rows: AtomicU64,
    /// Left out by a sink: NULL in a NOT NULL column, or refused for good by a server.
    pub dropped_rows: AtomicU64,
    /// Undecodable rows of a source.
    pub error_rows: AtomicU64,
    /// Fields that a source could not read and made NULL, and where it met the first.
    pub field_errors: AtomicU64,
    pub field_error: OnceLock<String>,
    /// Records of a source without a value, which are no rows.
    pub tombstones: AtomicU64,
    /// Errors of a source's connections, after which it went on trying.
    pub connection_errors: AtomicU64,
    /// Offsets of checkpoints that a source's group was not told.
    pub commit_failures: AtomicU64,
    /// Messages that a source has left out, because their key had been there before.
    pub duplicates: AtomicU64,
    /// Messages that nobody will send again, lost by a source's log that could not be written.
    pub lost: AtomicU64,
    /// i64::MIN before the first.
    pub watermark_ms: AtomicI64,
    pub memory_bytes: AtomicU64,
}

/// What an operator's subtask is, for those who show its counters.
#[derive(Clone, Debug)]
pub struct Metered {
    pub subtask: SubtaskId,
    pub name: String,
    pub role: Role,
    pub metrics: Arc<OperatorMetrics>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    Source { table: String },
    Sink { table: String },
    Operator,
}

impl OperatorMetrics {
    pub fn new() -> Arc<OperatorMetrics> {
        let metrics = OperatorMetrics::default();
        metrics.watermark_ms.store(i64::MIN, Ordering::Relaxed);
        Arc::new(metrics)
    }

    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}

impl Metered {
    /// The counters as they are sent to the coordinator.
    pub fn load(&self, deployment: &DeploymentId) -> SubtaskLoad {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let watermark_ms = self.metrics.watermark_ms.load(Ordering::Relaxed);
        SubtaskLoad {
            deployment: deployment.clone(),
            subtask: self.subtask,
            rows_in: read(&self.metrics.rows_in),
            rows_out: read(&self.metrics.rows_out),
            bytes: read(&self.metrics.bytes),
            late_rows: read(&self.metrics.late_rows),
            dropped_rows: read(&self.metrics.dropped_rows),
            error_rows: read(&self.metrics.error_rows),
            watermark_ms: (watermark_ms != i64::MIN).then_some(watermark_ms),
            memory_bytes: read(&self.metrics.memory_bytes),
        }
    }
}
