//! What we owe the broker: which packet ids wait for their acknowledgement, and which of QoS 2 it has not released yet.
//! Pure.
//!
//! Rules. An acknowledgement goes out when its record is durable, in the order of receipt, and only on the connection
//! that brought the message: after a reconnect the broker sends again what it has no acknowledgement for, and what
//! is owed from before is forgotten. (Of a session that the broker has lost, the same id may be another message.)
//! A QoS 2 message that is sent again with an id that is not released yet is the one that we have: it is acknowledged again
//! and not recorded. So that this holds across a crash, the release is recorded too, and durable before it is answered.
//! When the broker has lost the session, its ids mean nothing any more: that is recorded, and no message is asked for
//! before the record is durable ([`Inbox::hold`]), or a crash would bring the old ids back beside new messages.

use super::packet::Ack;
use std::collections::{BTreeSet, VecDeque};

/// Far more than the 65535 packet ids: a broker that sends without waiting for anything is none.
const OWED_MAX: usize = 200_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Released {
        pkid: u16,
    },
    /// A connection is there. `session`: the broker knows us from before.
    Connected {
        session: bool,
    },
    Disconnected,
    /// All records below are durable.
    Durable(u64),
    /// The log has lost what came behind this number; the released ids are as they were there.
    Rewound {
        next: u64,
        outstanding: BTreeSet<u16>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Append the message to the log; it has the next number.
    Record,
    /// We have it.
    Known,
    RecordRelease(u16),
    RecordSessionLost,
    Send(Ack, u16),
    /// The broker does not keep to the protocol: hang up.
    HangUp,
}

#[derive(Debug, Default)]
pub struct Inbox {
    next: u64,
    outstanding: BTreeSet<u16>,
    /// With the number that must be durable.
    owed: VecDeque<(u64, Ack, u16)>,
    /// Behind the record of a lost session, until that is durable.
    unsettled: Option<u64>,
    /// That record was lost.
    stale: bool,
}

impl Inbox {
    pub fn new(next: u64, outstanding: BTreeSet<u16>) -> Inbox {
        Inbox { next, outstanding, ..Inbox::default() }
    }

    /// The number of the next record.
    pub fn next(&self) -> u64 {
        self.next
    }

    pub fn outstanding(&self) -> &BTreeSet<u16> {
        &self.outstanding
    }

    /// Nothing is to be subscribed to yet.
    pub fn hold(&self) -> bool {
        self.unsettled.is_some()
    }

    /// A message has come. Apart from `step`, for every one takes this way. `dup`: the broker has sent it before; one that it
    /// sends for the first time is new, whatever its id.
    #[inline]
    pub fn publish(&mut self, qos: u8, pkid: u16, dup: bool) -> Action {
        if self.owed.len() >= OWED_MAX {
            return Action::HangUp;
        }
        if qos == 2 && !self.outstanding.insert(pkid) && dup {
            self.owed.push_back((self.next, Ack::Pubrec, pkid));
            return Action::Known;
        }
        self.next += 1;
        match qos {
            0 => {}
            1 => self.owed.push_back((self.next, Ack::Puback, pkid)),
            _ => self.owed.push_back((self.next, Ack::Pubrec, pkid)),
        }
        Action::Record
    }

    pub fn step(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Released { pkid } if self.outstanding.remove(&pkid) => {
                self.next += 1;
                self.owed.push_back((self.next, Ack::Pubcomp, pkid));
                vec![Action::RecordRelease(pkid)]
            }
            // Answered before, and the answer was lost.
            Event::Released { pkid } => {
                self.owed.push_back((self.next, Ack::Pubcomp, pkid));
                vec![]
            }
            Event::Connected { session } if (!session || self.stale) && !self.outstanding.is_empty() => {
                self.outstanding.clear();
                self.stale = false;
                self.next += 1;
                self.unsettled = Some(self.next);
                vec![Action::RecordSessionLost]
            }
            Event::Connected { .. } => vec![],
            Event::Disconnected => {
                self.owed.clear();
                vec![]
            }
            Event::Durable(end) => {
                self.unsettled = self.unsettled.filter(|needs| *needs > end);
                let due = self.owed.iter().take_while(|(needs, ..)| *needs <= end).count();
                self.owed.drain(..due).map(|(_, ack, pkid)| Action::Send(ack, pkid)).collect()
            }
            Event::Rewound { next, outstanding } => {
                let stale = self.unsettled.is_some() || self.stale;
                *self = Inbox { stale, ..Inbox::new(next, outstanding) };
                vec![]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_acknowledged_before_it_is_durable_and_all_in_order() {
        let mut inbox = Inbox::new(10, BTreeSet::new());
        for (qos, pkid) in [(1, 5), (0, 0), (2, 9), (1, 4)] {
            assert_eq!(inbox.publish(qos, pkid, false), Action::Record);
        }
        assert_eq!(inbox.step(Event::Durable(10)), []);
        assert_eq!(inbox.step(Event::Durable(12)), [Action::Send(Ack::Puback, 5)]);
        assert_eq!(inbox.step(Event::Durable(14)), [Action::Send(Ack::Pubrec, 9), Action::Send(Ack::Puback, 4)]);
    }

    #[test]
    fn what_is_owed_from_an_old_connection_is_not_sent_on_a_new_one() {
        let mut inbox = Inbox::new(0, BTreeSet::new());
        inbox.publish(1, 1, false);
        inbox.step(Event::Disconnected);
        inbox.step(Event::Connected { session: false });
        assert_eq!(inbox.step(Event::Durable(1)), []);
    }

    #[test]
    fn qos_2_message_is_recorded_once_until_it_is_released() {
        let mut inbox = Inbox::new(0, BTreeSet::new());
        assert_eq!(inbox.publish(2, 7, false), Action::Record);
        inbox.step(Event::Disconnected);
        inbox.step(Event::Connected { session: true });
        assert_eq!(inbox.publish(2, 7, true), Action::Known);
        assert_eq!(inbox.step(Event::Durable(0)), [], "the record itself is not durable yet");
        assert_eq!(inbox.step(Event::Durable(1)), [Action::Send(Ack::Pubrec, 7)]);
        assert_eq!(inbox.step(Event::Released { pkid: 7 }), [Action::RecordRelease(7)]);
        assert_eq!(inbox.step(Event::Durable(1)), []);
        assert_eq!(inbox.step(Event::Durable(2)), [Action::Send(Ack::Pubcomp, 7)]);
        assert_eq!(inbox.publish(2, 7, true), Action::Record, "another message");
    }

    #[test]
    fn release_that_was_answered_is_answered_again() {
        let mut inbox = Inbox::new(3, BTreeSet::new());
        assert_eq!(inbox.step(Event::Released { pkid: 7 }), []);
        assert_eq!(inbox.step(Event::Durable(3)), [Action::Send(Ack::Pubcomp, 7)]);
    }

    #[test]
    fn broker_that_has_lost_the_session_may_use_the_ids_again() {
        let mut inbox = Inbox::new(0, BTreeSet::from([7]));
        assert_eq!(inbox.step(Event::Connected { session: false }), [Action::RecordSessionLost]);
        assert_eq!(inbox.publish(2, 7, false), Action::Record);
        assert_eq!(inbox.next(), 2);
    }

    #[test]
    fn ids_of_a_lost_session_do_not_come_back_with_a_log_that_could_not_be_written() {
        let known = BTreeSet::from([7]);
        let mut inbox = Inbox::new(5, known.clone());
        assert_eq!(inbox.step(Event::Connected { session: false }), [Action::RecordSessionLost]);
        assert!(inbox.hold(), "a crash now would bring 7 back");
        inbox.step(Event::Rewound { next: 5, outstanding: known });
        inbox.step(Event::Disconnected);
        // The broker has kept the session that it made a moment ago.
        assert_eq!(inbox.step(Event::Connected { session: true }), [Action::RecordSessionLost]);
        inbox.step(Event::Durable(5));
        assert!(inbox.hold());
        inbox.step(Event::Durable(6));
        assert!(!inbox.hold());
        assert_eq!(inbox.publish(2, 7, true), Action::Record);
    }

    #[test]
    fn message_that_is_sent_for_the_first_time_is_new_whatever_its_id() {
        let mut inbox = Inbox::new(0, BTreeSet::from([7]));
        inbox.step(Event::Connected { session: true });
        assert_eq!(inbox.publish(2, 7, true), Action::Known);
        assert_eq!(inbox.publish(2, 7, false), Action::Record);
    }

    #[test]
    fn lost_tail_of_the_log_is_owed_to_nobody() {
        let mut inbox = Inbox::new(0, BTreeSet::new());
        inbox.publish(2, 7, false);
        inbox.step(Event::Rewound { next: 0, outstanding: BTreeSet::new() });
        assert_eq!(inbox.step(Event::Durable(9)), []);
        assert_eq!(inbox.publish(2, 7, true), Action::Record);
    }
}
