//! The rules by which the rows of one slot come into Kafka exactly once. No I/O and no clock; `committer` executes.
//!
//! A slot is a transactional id. Its rows are sent only after the checkpoint that holds them has completed, all that may
//! be sent in one transaction, and with them an offset commit whose offset is the newest epoch among them: the marker.
//! Kafka shows both or neither. So whoever owns the slot, after whatever has happened,
//! 1. fences: initialises a producer with the slot's transactional id, which ends what others have under way;
//! 2. reads the marker, only now, when nobody else can move it, and stops if it is newer than the checkpoint that the slot comes
//!    from: then rows are in Kafka that the job is about to make again;
//! 3. drops the rows of epochs up to the marker, which are in Kafka, and sends the others.
//!
//! After any error the outcome of a transaction is unknown. It is then never aborted and repeated with the same producer:
//! a late request of the first attempt could take effect inside the second. The slot goes back to 1, with a new producer.

use crate::config::KafkaBugs as Bugs;
use std::collections::VecDeque;

/// Markers of groups without members expire after `offsets.retention.minutes`, a week unless set otherwise.
const REFRESH_MS: u64 = 24 * 3600 * 1000;

/// After a start: a job that is started daily and has nothing to send keeps its markers, too.
const REFRESH_FIRST_MS: u64 = 60 * 1000;

/// Of rows in one transaction, if they are of several epochs: at most, and what it goes down to where transactions fail. A
/// backlog that a slow link cannot carry in one transaction's time goes in several.
const TRANSACTION_BYTES: u64 = 256 << 20;
const TRANSACTION_BYTES_MIN: u64 = 1 << 20;

/// Between two attempts: doubles up to the second.
const BACKOFF_MS: u64 = 100;
const BACKOFF_MAX_MS: u64 = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Others may be writing under our id.
    Cold,
    /// Nobody else can move the marker.
    Fenced,
    /// The marker is known.
    Ready,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Drop the producer, if there is one; initialise the transactions of a new one.
    Fence,
    ReadMarker,
    /// Send the rows of all pending epochs up to this one, and the marker, in one transaction.
    Commit {
        upto: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Fenced,
    Marker(Option<u64>),
    Committed,
    /// The action has failed, or nobody knows.
    Unknown,
}

/// What became of an event.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Nothing,
    /// Rows of epochs up to this one are in Kafka.
    Stored(u64),
    /// Kafka has forgotten how far the slot had come (its group has expired, its topic was deleted): whether these epochs
    /// are there nobody can say.
    MarkerLost {
        known: u64,
        found: Option<u64>,
    },
    /// The job goes back behind what Kafka has, and would write it again.
    Rewound {
        restored: u64,
        found: u64,
    },
}

/// What is done about a lost marker. `'sink.marker-lost'`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLost {
    Fail,
    /// What is pending is in Kafka.
    AssumeCommitted,
    /// What is pending is not in Kafka.
    AssumeLost,
}

#[derive(Clone, Debug)]
pub struct Slot {
    phase: Phase,
    /// Epochs with rows that are not known to be in Kafka, ascending, and the bytes of each.
    pending: VecDeque<(u64, u64)>,
    /// The last marker that is known to have been written.
    committed: Option<u64>,
    /// It was fenced in this incarnation at least once.
    settled: bool,
    /// Of the checkpoint that it comes from, until a marker was seen that is not newer.
    unchecked: Option<u64>,
    on_lost: OnLost,
    /// Rows up to this epoch may be in Kafka without our knowing: somebody may have sent them.
    sent: Option<u64>,
    /// What a transaction may hold.
    bytes_max: u64,
    attempts: u32,
    not_before_ms: u64,
    refresh_at_ms: Option<u64>,
    bugs: Bugs,
}

impl Slot {
    /// `committed`: what the checkpoint knows of its marker.
    pub fn new(committed: Option<u64>, on_lost: OnLost, bugs: Bugs) -> Slot {
        Slot {
            phase: Phase::Cold,
            pending: VecDeque::new(),
            committed,
            settled: false,
            unchecked: None,
            on_lost,
            sent: None,
            bytes_max: TRANSACTION_BYTES,
            attempts: 0,
            not_before_ms: 0,
            refresh_at_ms: None,
            bugs,
        }
    }

    /// Comes from the checkpoint of this epoch. `unchecked`: it may not go back behind a later one than this; None: it may.
    pub fn restored_from(mut self, epoch: u64, unchecked: Option<u64>) -> Slot {
        (self.sent, self.unchecked) = (Some(epoch), unchecked);
        self
    }

    /// For the next checkpoint: what is not checked in this life is in the next.
    pub fn unchecked(&self) -> Option<u64> {
        self.unchecked
    }

    /// Rows of this epoch wait for its permit. Epochs ascend.
    pub fn add(&mut self, epoch: u64, bytes: u64) {
        assert!(self.pending.back().is_none_or(|(last, _)| *last < epoch), "epochs of a slot ascend");
        self.pending.push_back((epoch, bytes));
    }

    /// The oldest epoch with rows that are not known to be in Kafka.
    pub fn oldest(&self) -> Option<u64> {
        self.pending.front().map(|(epoch, _)| *epoch)
    }

    pub fn committed(&self) -> Option<u64> {
        self.committed
    }

    /// It has been fenced, and nothing that `permitted` allows is left to send.
    pub fn is_settled(&self, permitted: u64) -> bool {
        self.settled && !self.may_send(permitted)
    }

    fn may_send(&self, permitted: u64) -> bool {
        self.oldest().is_some_and(|epoch| epoch <= permitted)
    }

    /// Up to where the next transaction goes: as far as is permitted and of a size that it can be sent in its time.
    fn upto(&self, permitted: u64) -> Option<u64> {
        let mut bytes = 0;
        let fits = self.pending.iter().take_while(|(epoch, of)| {
            let first = bytes == 0;
            bytes += *of;
            *epoch <= permitted && (first || bytes <= self.bytes_max)
        });
        fits.last().map(|(epoch, _)| *epoch)
    }

    /// When there may be something to do again, if there is nothing now.
    pub fn wakes_at_ms(&self, permitted: u64) -> Option<u64> {
        if !self.settled || self.may_send(permitted) {
            return Some(self.not_before_ms);
        }
        self.refresh_at_ms
    }

    pub fn next(&self, permitted: u64, now_ms: u64) -> Option<Action> {
        if now_ms < self.not_before_ms {
            return None;
        }
        let refresh = self.committed.is_some() && self.refresh_at_ms.is_some_and(|at| at <= now_ms);
        let wanted = !self.settled || self.may_send(permitted) || refresh;
        match self.phase {
            _ if !wanted => None,
            Phase::Cold => Some(Action::Fence),
            Phase::Fenced => Some(Action::ReadMarker),
            Phase::Ready if self.may_send(permitted) || refresh => {
                self.upto(permitted).or(self.committed).map(|upto| Action::Commit { upto })
            }
            Phase::Ready => None,
        }
    }

    /// `action` is what [`Slot::next`] gave; one is under way at a time.
    pub fn step(&mut self, action: Action, event: Event, now_ms: u64) -> Outcome {
        match (action, event) {
            (_, Event::Unknown) => {
                self.phase = Phase::Cold;
                let backoff = (BACKOFF_MS << self.attempts.min(7)).min(BACKOFF_MAX_MS);
                self.attempts += 1;
                self.not_before_ms = now_ms + backoff;
                if let Action::Commit { upto } = action {
                    self.sent = self.sent.max(Some(upto));
                    self.bytes_max = (self.bytes_max / 2).max(TRANSACTION_BYTES_MIN);
                }
                Outcome::Nothing
            }
            (Action::Fence, Event::Fenced) => {
                self.phase = Phase::Fenced;
                Outcome::Nothing
            }
            (Action::ReadMarker, Event::Marker(found)) => self.marker(found, now_ms),
            (Action::Commit { upto }, Event::Committed) => {
                self.attempts = 0;
                self.bytes_max = (self.bytes_max + self.bytes_max / 4).min(TRANSACTION_BYTES);
                self.refresh_at_ms = Some(now_ms + REFRESH_MS);
                self.stored(upto)
            }
            (action, event) => unreachable!("{event:?} answers {action:?}"),
        }
    }

    fn marker(&mut self, found: Option<u64>, now_ms: u64) -> Outcome {
        self.phase = Phase::Ready;
        let known_before = std::mem::replace(&mut self.settled, true);
        // Bugs: what was left open is taken for aborted.
        if self.bugs.no_marker || (self.bugs.blind_retry && known_before) {
            return Outcome::Nothing;
        }
        // An epoch that is pending here was given out after the checkpoint, to us: it is not what others went on with.
        let ours = |found: u64| self.pending.iter().any(|(epoch, _)| *epoch == found);
        if let (Some(found), Some(restored)) = (found, self.unchecked)
            && found > restored
            && !ours(found)
        {
            (self.phase, self.settled) = (Phase::Cold, false);
            return Outcome::Rewound { restored, found };
        }
        self.unchecked = None;
        self.refresh_at_ms.get_or_insert(now_ms + REFRESH_FIRST_MS);
        match (found, self.committed) {
            (found, Some(known)) if found.is_none_or(|found| found < known) => {
                // Nobody can have sent what is newer than that.
                let doubtful = self.sent.filter(|sent| self.may_send(*sent));
                match (doubtful, self.on_lost) {
                    (Some(_), OnLost::Fail) => {
                        (self.phase, self.settled) = (Phase::Cold, false);
                        return Outcome::MarkerLost { known, found };
                    }
                    (Some(sent), OnLost::AssumeCommitted) => {
                        self.stored(sent);
                        // From now on the rest is what Kafka says.
                        self.committed = found;
                        return Outcome::Stored(sent);
                    }
                    (Some(_), OnLost::AssumeLost) | (None, _) => self.committed = found,
                }
                Outcome::Nothing
            }
            (Some(found), _) => self.stored(found),
            (None, _) => Outcome::Nothing,
        }
    }

    fn stored(&mut self, upto: u64) -> Outcome {
        while self.may_send(upto) {
            self.pending.pop_front();
        }
        self.committed = self.committed.max(Some(upto));
        Outcome::Stored(upto)
    }
}

#[cfg(test)]
mod tests;
