//! Tells what a stream repeats from what is new. The coordinator replays what it has kept whenever a stream is opened,
//! and the numbers of events may begin again where a coordinator has forgotten them, so things are known by all that
//! they hold and not by number alone.

use std::collections::{HashMap, VecDeque};

/// More than a coordinator keeps of one job; half a megabyte.
const REMEMBERED_MAX: usize = 1 << 16;

#[derive(Debug, Default)]
pub(super) struct Seen {
    /// What was handed out, oldest first.
    handed_out: VecDeque<u64>,
    /// How often each may still come again in this stream.
    expected: HashMap<u64, u32>,
}

impl Seen {
    /// The stream is opened anew: all that was handed out may come once more.
    pub(super) fn restart(&mut self) {
        self.expected.clear();
        for id in &self.handed_out {
            *self.expected.entry(*id).or_default() += 1;
        }
    }

    /// Whether this one is to be handed out.
    pub(super) fn is_new(&mut self, id: u64) -> bool {
        if let Some(times) = self.expected.get_mut(&id) {
            *times -= 1;
            if *times == 0 {
                self.expected.remove(&id);
            }
            return false;
        }
        self.handed_out.push_back(id);
        if self.handed_out.len() > REMEMBERED_MAX {
            self.handed_out.pop_front();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handed_out(seen: &mut Seen, ids: &[u64]) -> Vec<u64> {
        ids.iter().copied().filter(|id| seen.is_new(*id)).collect()
    }

    #[test]
    fn a_replay_is_passed_over_and_nothing_else() {
        let mut seen = Seen::default();
        // The same thing twice in one stream is two things.
        assert_eq!(handed_out(&mut seen, &[1, 2, 2, 3]), [1, 2, 2, 3]);
        seen.restart();
        // The oldest is no longer kept; a third 2 is new.
        assert_eq!(handed_out(&mut seen, &[2, 2, 3, 2, 4]), [2, 4]);
        seen.restart();
        assert_eq!(handed_out(&mut seen, &[2, 2, 3, 2, 4]), Vec::<u64>::new());
        // Cut in the middle of the replay, and again.
        seen.restart();
        assert_eq!(handed_out(&mut seen, &[2, 2]), Vec::<u64>::new());
        seen.restart();
        assert_eq!(handed_out(&mut seen, &[2, 2, 3, 2, 4, 5]), [5]);
    }

    #[test]
    fn memory_is_bounded() {
        let mut seen = Seen::default();
        for id in 0..2 * REMEMBERED_MAX as u64 {
            assert!(seen.is_new(id));
        }
        assert_eq!(seen.handed_out.len(), REMEMBERED_MAX);
    }
}
