//! The lanes of a source: their watermarks, and which of them have had nothing to read for the idle timeout.
//!
//! Only the time in which the source had nothing to read at all counts: its lanes are read in turn, so while one has
//! rows another may just wait to be read, and a task that is held up by those below reads none. A lane is therefore
//! never called idle over rows that are already there. The price: beside a lane that never runs dry, an empty one
//! holds event time back until the source has caught up.

use crate::frame::END_OF_TIME;
use crate::time::{Change, Merge};

#[derive(Default)]
pub struct Lanes {
    merge: Merge,
    /// For the source: how far each lane is.
    watermarks: Vec<i64>,
    /// How long the source has had nothing to read, in all.
    dry_ms: u64,
    /// Where `dry_ms` was when the lane last had rows; None when it is closed or idle.
    active_at: Vec<Option<u64>>,
    /// Where `dry_ms` was when the last lane ceased to be active.
    quiet_since: Option<u64>,
}

impl Lanes {
    pub fn watermarks(&self) -> &[i64] {
        &self.watermarks
    }

    pub fn open(&mut self, lane: usize) {
        self.merge.open(lane);
        self.watermarks.resize(self.watermarks.len().max(lane + 1), i64::MIN);
        self.active_at.resize(self.watermarks.len(), None);
        self.watermarks[lane] = i64::MIN;
        self.active_at[lane] = Some(self.dry_ms);
    }

    pub fn close(&mut self, lane: usize) -> Change {
        self.watermarks[lane] = END_OF_TIME;
        self.active_at[lane] = None;
        self.merge.close(lane)
    }

    /// There is no lane, and there will be none soon.
    pub fn rest(&mut self) -> Change {
        if self.active_at.iter().any(Option::is_some) { Change::None } else { self.merge.rest() }
    }

    /// The lane had rows, whether or not they carry its watermark on.
    pub fn active(&mut self, lane: usize) {
        self.active_at[lane] = Some(self.dry_ms);
    }

    pub fn advance(&mut self, lane: usize, watermark: i64) -> Change {
        let reached = &mut self.watermarks[lane];
        *reached = watermark.max(*reached);
        self.merge.advance(lane, watermark)
    }

    /// The source has had nothing to read for another `ms`.
    pub fn dry(&mut self, ms: u64) {
        self.dry_ms += ms;
    }

    /// Lanes without rows for the idle timeout stop holding back the others; so does a source without lanes. To be
    /// called until it answers `None`.
    pub fn quiet(&mut self, timeout_ms: u64) -> Change {
        for (lane, active_at) in self.active_at.iter_mut().enumerate() {
            if active_at.is_some_and(|at| self.dry_ms - at >= timeout_ms) {
                *active_at = None;
                match self.merge.idle(lane) {
                    Change::None => {}
                    change => return change,
                }
            }
        }
        if self.active_at.iter().any(Option::is_some) {
            self.quiet_since = None;
        } else if self.dry_ms - *self.quiet_since.get_or_insert(self.dry_ms) >= timeout_ms {
            return self.merge.rest();
        }
        Change::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: u64 = 1000;

    #[test]
    fn lanes_that_wait_to_be_read_are_not_idle_however_long_it_takes() {
        let mut lanes = Lanes::default();
        (0..3).for_each(|lane| lanes.open(lane));
        // Reading lane 0 takes long, by itself or because those below are slow; no time of that is `dry`.
        for watermark in 0..10_000 {
            lanes.active(0);
            assert_eq!(lanes.advance(0, watermark), Change::None);
            assert_eq!(lanes.quiet(TIMEOUT), Change::None);
        }
        lanes.close(0);
        lanes.active(1);
        assert_eq!(lanes.advance(1, 20), Change::None, "lane 2 still holds it back");
        assert_eq!(lanes.advance(2, 7), Change::Advanced(7));
    }

    #[test]
    fn a_lane_beside_one_with_rows_now_and_then_is_idle_after_the_timeout() {
        let mut lanes = Lanes::default();
        lanes.open(0);
        lanes.open(1);
        for second in 0..9 {
            lanes.active(0);
            assert_eq!(lanes.advance(0, second), Change::None);
            lanes.dry(100);
            assert_eq!(lanes.quiet(TIMEOUT), Change::None);
        }
        lanes.active(0);
        lanes.dry(100);
        assert_eq!(lanes.quiet(TIMEOUT), Change::Advanced(8));
        assert_eq!(lanes.quiet(TIMEOUT), Change::None);
        // Rows that carry no time make it active again.
        lanes.active(1);
        lanes.dry(TIMEOUT);
        assert_eq!(lanes.quiet(TIMEOUT), Change::Idle(None), "both, and lane 0 was the furthest");
    }

    #[test]
    fn a_source_that_knows_of_no_lanes_holds_nobody_back_until_it_has_one() {
        let mut lanes = Lanes::default();
        assert_eq!(lanes.rest(), Change::Idle(None));
        assert_eq!(lanes.rest(), Change::None, "it has been said");
        lanes.open(0);
        assert_eq!(lanes.rest(), Change::None, "it has one now");
        assert_eq!(lanes.advance(0, 5), Change::Advanced(5));
    }

    #[test]
    fn a_source_without_lanes_is_idle_after_the_timeout() {
        let mut lanes = Lanes::default();
        assert_eq!(lanes.quiet(TIMEOUT), Change::None);
        lanes.dry(TIMEOUT - 1);
        assert_eq!(lanes.quiet(TIMEOUT), Change::None);
        lanes.dry(1);
        assert_eq!(lanes.quiet(TIMEOUT), Change::Idle(None));
        lanes.open(0);
        assert_eq!(lanes.quiet(TIMEOUT), Change::None);
        assert_eq!(lanes.advance(0, 5), Change::Advanced(5));
        lanes.dry(TIMEOUT);
        assert_eq!(lanes.quiet(TIMEOUT), Change::Idle(None));
    }
}
