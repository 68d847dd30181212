//! The watermark of a task is the smallest of its active channels' watermarks, and never goes back.
//!
//! An idle channel does not hold back the others; when all are idle the task is idle too. Then nothing will move the
//! slower ones any more, so event time first goes on to the greatest of their watermarks (as in Flink): what the
//! faster ones have completed fires. A channel that comes back from idleness with an older watermark does not pull
//! the result back: its rows are late.
//!
//! A channel at the end of time has no more rows and counts as closed, so that it cannot end the time of an idle one;
//! event time ends when all open channels, idle ones included, are there.

use crate::frame::END_OF_TIME;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Channel {
    watermark: i64,
    idle: bool,
    closed: bool,
}

/// What the merge has to say to those below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    None,
    Advanced(i64),
    /// Idle from now on, after event time has gone on to this.
    Idle(Option<i64>),
}

/// Merges the watermarks of a growing set of channels.
#[derive(Clone, Debug, Default)]
pub struct Merge {
    channels: Vec<Channel>,
    current: Option<i64>,
    idle: bool,
}

impl Merge {
    pub fn new(channels: usize) -> Merge {
        let mut merge = Merge::default();
        (0..channels).for_each(|i| merge.open(i));
        merge
    }

    /// A channel that holds back the result until it says something. Numbers may be opened in any order.
    /// After idleness the others count until then.
    pub fn open(&mut self, channel: usize) {
        if self.channels.len() <= channel {
            self.channels.resize(channel + 1, Channel { watermark: i64::MIN, idle: false, closed: true });
        }
        self.channels[channel] = Channel { watermark: i64::MIN, idle: false, closed: false };
    }

    /// The merged watermark, once there is one.
    pub fn current(&self) -> Option<i64> {
        self.current
    }

    pub fn advance(&mut self, channel: usize, watermark: i64) -> Change {
        let c = &mut self.channels[channel];
        c.watermark = c.watermark.max(watermark);
        c.idle = false;
        let was_idle = std::mem::replace(&mut self.idle, false);
        match (self.merged(), self.current) {
            // Those below count this task again, even where its watermark has not moved.
            (Change::None, Some(current)) if was_idle => Change::Advanced(current),
            // The channel ended; the others rest as before.
            (Change::Idle(None), _) if was_idle => Change::None,
            (change, _) => change,
        }
    }

    pub fn idle(&mut self, channel: usize) -> Change {
        self.channels[channel].idle = true;
        self.merged()
    }

    /// The channel ended: it no longer holds anything back. The end of the last one is no end of time: an unbounded
    /// source may open another.
    pub fn close(&mut self, channel: usize) -> Change {
        self.channels[channel].closed = true;
        self.merged()
    }

    /// No channel is open or all are idle, and that has lasted: the task is idle until a channel advances.
    pub fn rest(&mut self) -> Change {
        if std::mem::replace(&mut self.idle, true) { Change::None } else { Change::Idle(None) }
    }

    fn merged(&mut self) -> Change {
        let open = || self.channels.iter().filter(|c| !c.closed);
        let live = || open().filter(|c| c.watermark != END_OF_TIME);
        if live().next().is_none() {
            return if open().next().is_some() { self.reach(END_OF_TIME) } else { Change::None };
        }
        match live().filter(|c| !c.idle).map(|c| c.watermark).min() {
            Some(least) => self.reach(least),
            None => {
                let most = live().map(|c| c.watermark).max().unwrap_or(i64::MIN);
                match (self.reach(most), self.rest()) {
                    (Change::Advanced(watermark), _) => Change::Idle(Some(watermark)),
                    (_, rest) => rest,
                }
            }
        }
    }

    fn reach(&mut self, watermark: i64) -> Change {
        if watermark <= self.current.unwrap_or(i64::MIN) {
            return Change::None;
        }
        self.current = Some(watermark);
        Change::Advanced(watermark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_of_the_active_channels_and_never_back() {
        let mut m = Merge::new(2);
        assert_eq!(m.advance(0, 10), Change::None);
        assert_eq!(m.advance(1, 5), Change::Advanced(5));
        assert_eq!(m.idle(1), Change::Advanced(10));
        assert_eq!(m.advance(1, 7), Change::None);
        assert_eq!(m.current(), Some(10));
        assert_eq!(m.advance(1, 20), Change::None);
        assert_eq!(m.advance(0, 15), Change::Advanced(15));
    }

    #[test]
    fn all_idle_says_so_once() {
        let mut m = Merge::new(2);
        assert_eq!(m.idle(0), Change::None);
        assert_eq!(m.idle(1), Change::Idle(None));
        assert_eq!(m.idle(1), Change::None);
        assert_eq!(m.advance(0, 3), Change::Advanced(3));
    }

    #[test]
    fn back_from_idleness_it_says_where_it_is() {
        let mut m = Merge::new(1);
        assert_eq!(m.advance(0, 7), Change::Advanced(7));
        assert_eq!(m.idle(0), Change::Idle(None));
        assert_eq!(m.advance(0, 5), Change::Advanced(7));
        assert_eq!(m.advance(0, 6), Change::None);
    }

    #[test]
    fn when_the_last_active_channel_falls_idle_time_goes_on_to_the_furthest() {
        let mut m = Merge::new(2);
        m.advance(0, 100);
        assert_eq!(m.advance(1, 11), Change::Advanced(11));
        assert_eq!(m.idle(0), Change::None, "the other one is behind and active");
        assert_eq!(m.idle(1), Change::Idle(Some(100)));
        assert_eq!(m.current(), Some(100));
        assert_eq!(m.idle(0), Change::None);
        assert_eq!(m.advance(1, 50), Change::Advanced(100));
    }

    #[test]
    fn an_ended_channel_does_not_end_the_time_of_an_idle_one() {
        let mut m = Merge::new(2);
        m.advance(0, 10);
        assert_eq!(m.advance(1, 12), Change::Advanced(10));
        m.idle(1);
        assert_eq!(m.advance(0, END_OF_TIME), Change::Idle(Some(12)), "only an idle one is left");
        assert_eq!(m.close(0), Change::None);
        assert_eq!(m.advance(1, 20), Change::Advanced(20), "its rows are on time");
        assert_eq!(m.advance(1, END_OF_TIME), Change::Advanced(END_OF_TIME));
    }

    #[test]
    fn time_ends_when_all_open_channels_have_ended() {
        let mut m = Merge::new(3);
        m.close(2);
        m.advance(0, END_OF_TIME);
        assert_eq!(m.advance(1, 5), Change::Advanced(5), "an ended channel counts as closed");
        m.idle(1);
        assert_eq!(m.advance(1, END_OF_TIME), Change::Advanced(END_OF_TIME));
    }

    #[test]
    fn a_channel_that_ends_while_all_are_idle_wakes_nobody() {
        let mut m = Merge::new(2);
        m.idle(0);
        assert_eq!(m.idle(1), Change::Idle(None));
        assert_eq!(m.advance(0, END_OF_TIME), Change::None);
        assert_eq!(m.advance(1, 3), Change::Advanced(3));
    }

    #[test]
    fn without_channels_it_rests_until_one_advances() {
        let mut m = Merge::new(1);
        m.advance(0, 7);
        assert_eq!(m.close(0), Change::None);
        assert_eq!(m.rest(), Change::Idle(None));
        assert_eq!(m.rest(), Change::None);
        m.open(1);
        assert_eq!(m.advance(1, 3), Change::Advanced(7));
        assert_eq!(m.rest(), Change::Idle(None));
    }

    #[test]
    fn closed_channels_hold_nothing_back_and_a_new_one_goes_on_from_there() {
        let mut m = Merge::new(2);
        m.advance(0, 1);
        assert_eq!(m.close(1), Change::Advanced(1));
        assert_eq!(m.close(0), Change::None);
        m.open(2);
        assert_eq!(m.advance(2, 5), Change::Advanced(5));
    }
}
