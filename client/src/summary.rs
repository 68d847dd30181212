//! What a run did, for `--summary-json` and for the table at its end.

use serde::Serialize;
use std::fmt;

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    pub job: String,
    /// `finished`, `stopped` or `failed`.
    pub status: String,
    pub error: Option<String>,
    /// The checkpoint that the run started from.
    pub restored_epoch: Option<u64>,
    pub sources: Vec<Table>,
    pub sinks: Vec<Table>,
    /// Rows that came too late for every window, per operator that saw any.
    pub late: Vec<Late>,
    pub late_rows: u64,
    /// Rows in no window, because their time was NULL.
    pub null_time_rows: u64,
    /// Rows not written, because a NOT NULL column of theirs was NULL.
    pub dropped_rows: u64,
    /// Rows that could not be decoded.
    pub failed_rows: u64,
    /// Fields that could not be read and are NULL (`'ignore-parse-errors'`), and where the first of them is.
    pub failed_fields: u64,
    pub failed_field: Option<String>,
    /// Records of sources without a value: no rows.
    pub tombstones: u64,
    /// Errors of sources' connections, after which they went on trying.
    pub connection_errors: u64,
    /// Offsets of checkpoints that the group of a source was not told.
    pub commit_failures: u64,
    /// Messages left out, because their key had been there before (`'mqtt.dedup.key'`).
    pub duplicates: u64,
    /// Messages of QoS 0 that were lost with a log that could not be written.
    pub lost_messages: u64,
    pub elapsed_seconds: f64,
    pub cpu_seconds: f64,
    pub peak_rss_bytes: u64,
    pub checkpoints: Checkpoints,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Table {
    pub table: String,
    pub rows: u64,
    pub bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Late {
    pub operator: String,
    pub rows: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Checkpoints {
    pub completed: u64,
    pub failed: u64,
    pub last_epoch: Option<u64>,
    pub last_duration_ms: u64,
    pub last_bytes: u64,
}

/// `12.3 M`, `4.5 k`, `17`.
pub fn count(n: u64) -> String {
    match n {
        0..10_000 => n.to_string(),
        10_000..10_000_000 => format!("{:.1} k", n as f64 / 1e3),
        _ => format!("{:.1} M", n as f64 / 1e6),
    }
}

/// `12.3 MB`.
pub fn bytes(n: u64) -> String {
    match n {
        0..10_000 => format!("{n} B"),
        10_000..10_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} MB", n as f64 / 1e6),
        _ => format!("{:.1} GB", n as f64 / 1e9),
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.sources.iter().chain(&self.sinks).map(|t| t.table.len()).max().unwrap_or(0).max(8);
        writeln!(f, "{} {} in {:.2} s", self.job, self.status, self.elapsed_seconds)?;
        writeln!(f, "  {:<6} {:<width$} {:>12} {:>10}", "", "table", "rows", "bytes")?;
        for (kind, tables) in [("source", &self.sources), ("sink", &self.sinks)] {
            for table in tables {
                writeln!(f, "  {kind:<6} {:<width$} {:>12} {:>10}", table.table, table.rows, bytes(table.bytes))?;
            }
        }
        for late in &self.late {
            writeln!(f, "  late rows: {} in {}", late.rows, late.operator)?;
        }
        if self.null_time_rows > 0 {
            writeln!(f, "  rows without event time, in no window: {}", self.null_time_rows)?;
        }
        if self.dropped_rows > 0 {
            writeln!(
                f,
                "  rows not written (NULL in a NOT NULL column, or refused by a server): {}",
                self.dropped_rows
            )?;
        }
        if self.failed_rows > 0 {
            writeln!(f, "  rows that could not be decoded: {}", self.failed_rows)?;
        }
        if self.failed_fields > 0 {
            let first = self.failed_field.as_deref().unwrap_or_default();
            writeln!(f, "  fields that could not be read, and are NULL: {}; {first}", self.failed_fields)?;
        }
        if self.tombstones > 0 {
            writeln!(f, "  records without a value, no rows: {}", self.tombstones)?;
        }
        if self.connection_errors > 0 {
            writeln!(f, "  errors of sources' connections: {}", self.connection_errors)?;
        }
        if self.commit_failures > 0 {
            writeln!(f, "  checkpoints whose offsets a group was not told: {}", self.commit_failures)?;
        }
        if self.duplicates > 0 {
            writeln!(f, "  messages whose key had been there before: {}", self.duplicates)?;
        }
        if self.lost_messages > 0 {
            writeln!(f, "  messages lost with a log that could not be written: {}", self.lost_messages)?;
        }
        if let Some(epoch) = self.restored_epoch {
            writeln!(f, "  resumed from checkpoint {epoch}")?;
        }
        let c = &self.checkpoints;
        write!(f, "  checkpoints: {} completed, {} failed", c.completed, c.failed)?;
        if let Some(epoch) = c.last_epoch {
            write!(f, "; last {epoch}, {} ms, {}", c.last_duration_ms, bytes(c.last_bytes))?;
        }
        writeln!(f)?;
        write!(f, "  cpu {:.2} s, peak memory {}", self.cpu_seconds, bytes(self.peak_rss_bytes))
    }
}
