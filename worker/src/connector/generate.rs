//! What the sources that make their own rows share: which subtask makes which rows, how fast, and where it stands.
//!
//! Rows are numbered from 0 and dealt to the subtasks in blocks of [`BLOCK`], so that row i is the same row whatever
//! the parallelism. A position says which rows a subtask has still to make of those that were dealt; at a restore
//! every new subtask computes, from the positions of all old ones, the same list of what is left, and takes its share.

use super::{Place, Polled, Source, SourceBatch};
use crate::error::{Context, Error, Result};
use crate::frame::BATCH_ROWS;
use arrow_array::RecordBatch;
use ef_proto::keys::hash_u64;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Rows dealt to a subtask at a time.
const BLOCK: u64 = 1024;
/// A paced source makes its rows in slices of this time: a batch costs as much as a hundred rows.
const SLICE_MILLIS: u64 = 10;

/// The processing clock, ms since the epoch.
pub type Clock = Box<dyn Fn() -> i64 + Send>;

/// Makes rows by their numbers.
pub(super) trait Rows: Send {
    /// `now_ms`: the clock; `started_ms`: the clock when the job first started.
    fn make(&mut self, rows: Range<u64>, started_ms: i64, now_ms: i64) -> Result<RecordBatch>;
}

/// Which numbers are still to be made by one subtask: `left`, then every block from `origin` on that is dealt to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Share {
    index: u32,
    parallelism: u32,
    /// First block of the dealing.
    origin: u64,
    /// The next row of the dealing.
    next: u64,
    left: Vec<Range<u64>>,
    started_ms: i64,
}

impl Share {
    fn fresh(place: &Place) -> Share {
        Share::dealt(place.index, place.parallelism.max(1), 0, Vec::new(), place.now_ms)
    }

    fn dealt(index: u32, parallelism: u32, origin: u64, left: Vec<Range<u64>>, started_ms: i64) -> Share {
        Share { index, parallelism, origin, next: (origin + index as u64) * BLOCK, left, started_ms }
    }

    /// Up to `limit` rows that follow each other, below `total`. None: all are made.
    fn take(&mut self, limit: u64, total: u64) -> Option<Range<u64>> {
        while let Some(range) = self.left.first_mut() {
            let end = range.end.min(total);
            let taken = range.start..end.min(range.start + limit);
            range.start = taken.end.max(taken.start);
            if range.start >= end {
                self.left.remove(0);
            }
            if !taken.is_empty() {
                return Some(taken);
            }
        }
        let start = self.next;
        if start >= total {
            return None;
        }
        // Alone, the next block is ours too.
        let block_end = if self.parallelism == 1 { u64::MAX } else { (start / BLOCK + 1) * BLOCK };
        let end = block_end.min(total).min(start.saturating_add(limit));
        self.next = if end == block_end { end + (self.parallelism as u64 - 1) * BLOCK } else { end };
        Some(start..end)
    }

    /// The share of a new subtask of what the old ones have left.
    fn restored(place: &Place, blobs: &[Vec<u8>]) -> Result<Share> {
        let decode = |blob: &Vec<u8>| -> Result<Share> {
            serde_json::from_slice(blob)
                .corrupt(|| format!("the position of source `{}` does not read back", place.table))
        };
        let mut old: Vec<Share> = blobs.iter().filter(|blob| !blob.is_empty()).map(decode).collect::<Result<_>>()?;
        old.sort_by_key(|share| share.index);
        let Some(first) = old.first() else { return Ok(Share::fresh(place)) };
        let complete = old.len() == first.parallelism as usize
            && old.iter().enumerate().all(|(i, share)| share.index as usize == i && share.origin == first.origin);
        if !complete {
            let what = format!("source `{}`: {} positions of {} subtasks", place.table, old.len(), first.parallelism);
            return Err(Error::corrupt(what));
        }
        let started_ms = old.iter().map(|share| share.started_ms).min().expect("not empty");
        if old.len() == place.parallelism as usize {
            return Ok(Share { started_ms, ..old.swap_remove(place.index as usize) });
        }
        // What lies below the block that nobody has reached is listed; above it dealing begins anew.
        let origin = old.iter().map(|share| share.next.div_ceil(BLOCK)).max().expect("not empty");
        let mut left: Vec<Range<u64>> = Vec::new();
        for share in &old {
            left.extend(share.left.iter().cloned());
            let mut next = share.next;
            while next < origin * BLOCK {
                let end = (next / BLOCK + 1) * BLOCK;
                left.push(next..end);
                next = end + (share.parallelism as u64 - 1) * BLOCK;
            }
        }
        left.sort_by_key(|range| range.start);
        let mine = left.into_iter().skip(place.index as usize).step_by(place.parallelism.max(1) as usize).collect();
        Ok(Share::dealt(place.index, place.parallelism.max(1), origin, mine, started_ms))
    }
}

/// A source over [`Rows`]: one lane.
pub(super) struct Generator<R> {
    rows: R,
    share: Share,
    /// None: unbounded.
    total: Option<u64>,
    /// Rows per millisecond of this subtask.
    pace: Option<f64>,
    paced_from: Option<i64>,
    paced: u64,
    clock: Clock,
    phase: Phase,
}

enum Phase {
    Unopened,
    Running,
    Closed,
    Ended,
}

impl<R: Rows> Generator<R> {
    pub fn new(
        rows: R,
        total: Option<u64>,
        rows_per_second: Option<u64>,
        place: &Place,
        blobs: &[Vec<u8>],
        clock: Clock,
    ) -> Result<Generator<R>> {
        let pace = rows_per_second.map(|rate| rate as f64 / 1000.0 / place.parallelism.max(1) as f64);
        let share = Share::restored(place, blobs)?;
        Ok(Generator { rows, share, total, pace, paced_from: None, paced: 0, clock, phase: Phase::Unopened })
    }

    /// How many rows are due, or how long until one is.
    fn due(&mut self, now_ms: i64) -> std::result::Result<u64, u64> {
        let Some(pace) = self.pace else { return Ok(BATCH_ROWS as u64) };
        let elapsed = now_ms - *self.paced_from.get_or_insert(now_ms);
        let due = (elapsed as f64 * pace) as u64 + 1;
        if due > self.paced {
            return Ok((due - self.paced).min(BATCH_ROWS as u64));
        }
        Err(SLICE_MILLIS)
    }
}

impl<R: Rows> Source for Generator<R> {
    fn poll(&mut self, _watermarks: &[i64]) -> Result<Polled> {
        match self.phase {
            Phase::Unopened => {
                self.phase = Phase::Running;
                return Ok(Polled::Opened(0));
            }
            Phase::Running => {}
            Phase::Closed => {
                self.phase = Phase::Ended;
                return Ok(Polled::End);
            }
            Phase::Ended => return Ok(Polled::End),
        }
        let now_ms = (self.clock)();
        let limit = match self.due(now_ms) {
            Ok(limit) => limit,
            Err(wait) => return Ok(Polled::Wait(wait)),
        };
        let Some(range) = self.share.take(limit, self.total.unwrap_or(u64::MAX)) else {
            self.phase = Phase::Closed;
            return Ok(Polled::Closed(0));
        };
        self.paced += range.end - range.start;
        let batch = self.rows.make(range, self.share.started_ms, now_ms)?;
        Ok(Polled::Batch(SourceBatch { lane: 0, batch, errors: None, field_errors: 0, field_error: None, bytes: 0 }))
    }

    fn position(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(&self.share).internal(|| "a source position does not encode".to_owned())
    }

    fn bounded(&self) -> bool {
        self.total.is_some()
    }
}

/// Random bits that depend on the column and the row alone.
#[inline(always)]
pub(super) fn random(column: u64, row: u64) -> u64 {
    hash_u64(column.wrapping_add(row.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// Uniform in 0..n from 64 random bits.
#[inline(always)]
pub(super) fn below(bits: u64, n: u64) -> u64 {
    ((bits as u128 * n as u128) >> 64) as u64
}

/// Uniform in [0, 1).
#[inline(always)]
pub(super) fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use ef_proto::ids::OperatorId;
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    pub fn place(index: u32, parallelism: u32) -> Place {
        Place {
            table: "t".into(),
            index,
            parallelism,
            job: "j".into(),
            operator: OperatorId(1),
            incarnation: 1,
            now_ms: 5,
            secrets: Default::default(),
            scratch: Default::default(),
            durable: None,
        }
    }

    /// Every row number exactly once, through restores at random points and parallelisms.
    #[test]
    fn every_row_is_made_once_at_any_parallelism_and_restore_point() {
        for seed in 0..200 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let total = rng.random_range(0..40_000);
            let mut made: Vec<u64> = Vec::new();
            let mut blobs: Vec<Vec<u8>> = Vec::new();
            for round in 0..6 {
                let parallelism = rng.random_range(1..6);
                let shares =
                    (0..parallelism).map(|i| Share::restored(&place(i, parallelism), &blobs).expect("restores"));
                let mut shares: Vec<Share> = shares.collect();
                for _ in 0..rng.random_range(0..8) {
                    let share = rng.random_range(0..shares.len());
                    made.extend(shares[share].take(rng.random_range(1..3_000), total).into_iter().flatten());
                }
                if round == 5 {
                    for share in &mut shares {
                        while let Some(range) = share.take(8192, total) {
                            made.extend(range);
                        }
                    }
                }
                blobs = shares.iter().map(|share| serde_json::to_vec(share).expect("encodes")).collect();
            }
            made.retain(|row| *row < total);
            made.sort_unstable();
            assert!(made.iter().copied().eq(0..total), "seed {seed}: {} rows of {total}", made.len());
        }
    }
}
