//! What the node's thread is asked to do: proposals to append, a snapshot to keep, the order to stop.
//!
//! Asking never waits. Proposals are bounded in bytes; of snapshots only the newest is kept. Whether we lead is known
//! here, under the same lock: a proposal that was taken in under one leadership is never appended under another.

use bytes::Bytes;
use ef_proto::error::{Code, Error};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use tokio::sync::Notify;

/// The largest proposal. What is bigger belongs into the object store, with its path in the log.
pub const PROPOSAL_BYTES_MAX: usize = 1 << 20;
/// Proposals that wait, with what each costs besides its bytes: a few of the largest, or many thousands of usual ones.
const QUEUE_BYTES_MAX: usize = 8 << 20;
const PROPOSAL_OVERHEAD_BYTES: usize = 64;

#[derive(Debug, Default)]
pub struct Inbox {
    state: Mutex<State>,
    changed: Notify,
    stopping: Notify,
}

#[derive(Debug, Default)]
struct State {
    leading: bool,
    /// The thread has ended, or is about to.
    ended: bool,
    proposals: VecDeque<Bytes>,
    proposal_bytes: usize,
    compaction: Option<(u64, Bytes)>,
}

/// What was in the inbox.
#[derive(Debug, Default)]
pub struct Work {
    pub proposals: Vec<Bytes>,
    /// Index and state of the consumer.
    pub compaction: Option<(u64, Bytes)>,
    pub stop: bool,
}

fn cost(proposal: &Bytes) -> usize {
    proposal.len() + PROPOSAL_OVERHEAD_BYTES
}

impl Inbox {
    pub fn propose(&self, data: Bytes) -> Result<(), Error> {
        if data.is_empty() || data.len() > PROPOSAL_BYTES_MAX {
            // Entries without data are raft's own, one per election.
            let bytes = data.len();
            return Err(Error::invalid(format!("a proposal has 1 to {PROPOSAL_BYTES_MAX} bytes, not {bytes}")));
        }
        let mut state = self.lock();
        if state.ended {
            return Err(Error::new(Code::Unavailable, "the replicated log has stopped"));
        }
        if !state.leading {
            return Err(Error::new(Code::NotLeader, "this node does not lead the replicated log"));
        }
        let bytes = state.proposal_bytes + cost(&data);
        if bytes > QUEUE_BYTES_MAX {
            let waiting = state.proposals.len();
            return Err(Error::new(
                Code::Unavailable,
                format!("{waiting} proposals wait for the disk already; try again later"),
            ));
        }
        state.proposal_bytes = bytes;
        state.proposals.push_back(data);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    pub fn compact(&self, index: u64, data: Bytes) {
        let mut state = self.lock();
        if state.compaction.as_ref().is_none_or(|(waiting, _)| *waiting < index) {
            state.compaction = Some((index, data));
        }
        drop(state);
        self.changed.notify_one();
    }

    pub fn stop(&self) {
        self.end();
        self.changed.notify_one();
        self.stopping.notify_one();
    }

    /// From now on nothing is taken in.
    pub fn end(&self) {
        self.lock().ended = true;
    }

    /// Begins to take proposals in.
    pub fn lead(&self) {
        self.lock().leading = true;
    }

    /// Takes no more proposals in. Returns how many are forgotten.
    pub fn follow(&self) -> usize {
        let mut state = self.lock();
        state.leading = false;
        state.proposal_bytes = 0;
        std::mem::take(&mut state.proposals).len()
    }

    /// Takes what is there, of proposals at most `bytes`. What remains is announced again, unless nothing fits: then it
    /// is for the caller to come back when there is room.
    pub fn take(&self, bytes: usize) -> Work {
        let mut state = self.lock();
        let mut work = Work { compaction: state.compaction.take(), stop: state.ended, ..Work::default() };
        let mut taken = 0;
        while let Some(next) = state.proposals.front()
            && taken + cost(next) <= bytes
        {
            taken += cost(next);
            work.proposals.extend(state.proposals.pop_front());
        }
        state.proposal_bytes -= taken;
        let remain = !state.proposals.is_empty();
        drop(state);
        if remain && taken > 0 {
            self.changed.notify_one();
        }
        work
    }

    /// Returns when there may be something to take.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Returns when the node is to stop. Only for the one thread that does.
    pub async fn stopping(&self) {
        self.stopping.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it is held")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proposals_are_taken_in_order_and_within_the_bytes() {
        let inbox = Inbox::default();
        inbox.lead();
        for data in ["a", "bb", "ccc"] {
            inbox.propose(Bytes::from(data)).expect("room");
        }
        assert_eq!(inbox.take(3 + 2 * PROPOSAL_OVERHEAD_BYTES).proposals, ["a", "bb"]);
        assert!(inbox.take(PROPOSAL_OVERHEAD_BYTES).proposals.is_empty());
        assert_eq!(inbox.take(usize::MAX).proposals, ["ccc"]);
        assert_eq!(inbox.lock().proposal_bytes, 0);
    }

    #[test]
    fn nothing_of_one_leadership_is_left_for_the_next() {
        let inbox = Inbox::default();
        assert_eq!(inbox.propose(Bytes::from("early")).map_err(|e| e.code), Err(Code::NotLeader));
        inbox.lead();
        inbox.propose(Bytes::from("old")).expect("leads");
        assert_eq!(inbox.follow(), 1);
        assert_eq!(inbox.propose(Bytes::from("between")).map_err(|e| e.code), Err(Code::NotLeader));
        inbox.lead();
        inbox.propose(Bytes::from("new")).expect("leads");
        assert_eq!(inbox.take(usize::MAX).proposals, ["new"]);
        assert_eq!(inbox.lock().proposal_bytes, 0);
    }

    #[test]
    fn only_the_newest_snapshot_waits() {
        let inbox = Inbox::default();
        for index in [3, 7, 5] {
            inbox.compact(index, Bytes::from(index.to_string()));
        }
        assert_eq!(inbox.take(0).compaction, Some((7, Bytes::from("7"))));
        assert_eq!(inbox.take(0).compaction, None);
    }
}
