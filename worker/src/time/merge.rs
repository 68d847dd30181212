//! The watermark of a task is the smallest of its active channels' watermarks, and never goes back.
//!
//! An idle channel does not hold back the others; when all are idle the task is idle too. A channel that comes back
//! from idleness with an older watermark does not pull the result back: its rows are late.

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
    Idle,
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
        if std::mem::replace(&mut self.idle, true) { Change::None } else { Change::Idle }
    }

    fn merged(&mut self) -> Change {
        let open = || self.channels.iter().filter(|c| !c.closed);
        if open().next().is_some() && open().all(|c| c.idle) {
            return self.rest();
        }
        let Some(least) = open().filter(|c| !c.idle).map(|c| c.watermark).min() else { return Change::None };
        if least > self.current.unwrap_or(i64::MIN) {
            self.current = Some(least);
            return Change::Advanced(least);
        }
        Change::None
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
        assert_eq!(m.idle(1), Change::Idle);
        assert_eq!(m.idle(1), Change::None);
        assert_eq!(m.advance(0, 3), Change::Advanced(3));
    }

    #[test]
    fn back_from_idleness_it_says_where_it_is() {
        let mut m = Merge::new(1);
        assert_eq!(m.advance(0, 7), Change::Advanced(7));
        assert_eq!(m.idle(0), Change::Idle);
        assert_eq!(m.advance(0, 5), Change::Advanced(7));
        assert_eq!(m.advance(0, 6), Change::None);
    }

    #[test]
    fn without_channels_it_rests_until_one_advances() {
        let mut m = Merge::new(1);
        m.advance(0, 7);
        assert_eq!(m.close(0), Change::None);
        assert_eq!(m.rest(), Change::Idle);
        assert_eq!(m.rest(), Change::None);
        m.open(1);
        assert_eq!(m.advance(1, 3), Change::Advanced(7));
        assert_eq!(m.rest(), Change::Idle);
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
