//! Barrier alignment of one task: which channels may be read, and when the task snapshots.
//!
//! Aligned barriers, exactly once: after a channel has delivered barrier E it is not read again until every live
//! channel has. A channel that ended counts as aligned. Pure: the task asks and obeys.

use ef_proto::ids::Epoch;

/// What the task does about the frame it has just taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: go on reading the channels that are not blocked.
    Continue,
    /// All live channels have delivered this barrier: snapshot, pass it on, then read all channels again.
    Snapshot(Epoch),
    /// The barrier is older than one already seen (its checkpoint was given up): drop it.
    Stale(Epoch),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// No barrier is under way.
    Open,
    /// Waiting for `epoch` on the channels that are not yet blocked.
    Aligning { epoch: Epoch, blocked: Vec<bool> },
}

/// The alignment of one task over its input channels.
#[derive(Clone, Debug)]
pub struct Alignment {
    state: State,
    ended: Vec<bool>,
    /// Highest epoch that was snapshotted or given up.
    done: Epoch,
}

impl Alignment {
    pub fn new(channels: usize) -> Alignment {
        Alignment { state: State::Open, ended: vec![false; channels], done: Epoch(0) }
    }

    pub fn is_blocked(&self, channel: usize) -> bool {
        matches!(&self.state, State::Aligning { blocked, .. } if blocked[channel])
    }

    pub fn all_ended(&self) -> bool {
        self.ended.iter().all(|ended| *ended)
    }

    /// Barrier `epoch` came out of `channel`.
    pub fn on_barrier(&mut self, channel: usize, epoch: Epoch) -> Step {
        assert!(!self.is_blocked(channel), "a blocked channel is not read");
        if epoch <= self.done {
            return Step::Stale(epoch);
        }
        match &mut self.state {
            State::Aligning { epoch: current, .. } if epoch < *current => return Step::Stale(epoch),
            State::Aligning { epoch: current, blocked } if epoch == *current => blocked[channel] = true,
            // A newer barrier overtakes: the older checkpoint has been given up, or its barrier would have come
            // first on this channel.
            State::Open | State::Aligning { .. } => {
                let mut blocked = vec![false; self.ended.len()];
                blocked[channel] = true;
                self.state = State::Aligning { epoch, blocked };
            }
        }
        self.complete()
    }

    /// `channel` has delivered its last frame.
    pub fn on_end(&mut self, channel: usize) -> Step {
        self.ended[channel] = true;
        self.complete()
    }

    /// The coordinator gave `epoch` up: unblock, and treat its barriers as stale.
    pub fn on_abort(&mut self, epoch: Epoch) {
        self.done = self.done.max(epoch);
        if matches!(&self.state, State::Aligning { epoch: current, .. } if *current <= epoch) {
            self.state = State::Open;
        }
    }

    fn complete(&mut self) -> Step {
        let State::Aligning { epoch, blocked } = &self.state else { return Step::Continue };
        if !blocked.iter().zip(&self.ended).all(|(blocked, ended)| *blocked || *ended) {
            return Step::Continue;
        }
        let epoch = *epoch;
        self.done = epoch;
        self.state = State::Open;
        Step::Snapshot(epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const E: fn(u64) -> Epoch = Epoch;

    #[test]
    fn snapshot_comes_with_the_last_live_channels_barrier() {
        let mut a = Alignment::new(3);
        assert_eq!(a.on_barrier(1, E(5)), Step::Continue);
        assert!(a.is_blocked(1) && !a.is_blocked(0));
        assert_eq!(a.on_end(0), Step::Continue);
        assert_eq!(a.on_barrier(2, E(5)), Step::Snapshot(E(5)));
        assert!(!a.is_blocked(1));
    }

    #[test]
    fn end_of_the_last_missing_channel_completes_the_alignment() {
        let mut a = Alignment::new(2);
        assert_eq!(a.on_barrier(0, E(1)), Step::Continue);
        assert_eq!(a.on_end(1), Step::Snapshot(E(1)));
    }

    #[test]
    fn newer_barrier_overtakes_and_the_older_one_is_stale() {
        let mut a = Alignment::new(2);
        assert_eq!(a.on_barrier(0, E(1)), Step::Continue);
        assert_eq!(a.on_barrier(1, E(2)), Step::Continue);
        assert!(!a.is_blocked(0) && a.is_blocked(1));
        assert_eq!(a.on_barrier(0, E(2)), Step::Snapshot(E(2)));
        assert_eq!(a.on_barrier(0, E(1)), Step::Stale(E(1)));
    }

    #[test]
    fn abort_unblocks_and_late_barriers_of_it_are_stale() {
        let mut a = Alignment::new(2);
        assert_eq!(a.on_barrier(0, E(3)), Step::Continue);
        a.on_abort(E(3));
        assert!(!a.is_blocked(0));
        assert_eq!(a.on_barrier(1, E(3)), Step::Stale(E(3)));
        assert_eq!(a.on_barrier(1, E(4)), Step::Continue);
    }
}
