//! Counters of one operator's subtask: held by the task as fields, read by whoever shows them. Updated once a batch.

use ef_proto::ids::SubtaskId;
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
    /// Left out by a sink: NULL in a NOT NULL column.
    pub dropped_rows: AtomicU64,
    /// Undecodable rows of a source.
    pub error_rows: AtomicU64,
    /// Fields that a source could not read and made NULL, and where it met the first.
    pub field_errors: AtomicU64,
    pub field_error: OnceLock<String>,
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
