//! What the broker owes us: which messages it has not taken yet, and what is sent again after a reconnect. Pure.
//!
//! Rules. At most so many are under way as the broker allows. A message counts as taken when its PUBACK (QoS 1) or
//! PUBCOMP (QoS 2) says so: after the PUBREC alone a broker may still forget it, if it passes messages on only when they
//! are released and loses our session before. After a reconnect all that is not taken is sent again in order, marked as
//! such where the broker has our session; there only the release is of what it has received.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// A message as it is written: the packet with room for its id.
pub type Message = Arc<Vec<u8>>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// `max`: how many the broker takes at once.
    Connected {
        session: bool,
        max: u16,
    },
    Push(Message),
    /// PUBACK, or what refuses.
    Taken {
        pkid: u16,
    },
    /// PUBREC.
    Received {
        pkid: u16,
    },
    /// PUBCOMP.
    Completed {
        pkid: u16,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Send { message: Message, pkid: u16, dup: bool },
    Release { pkid: u16 },
}

#[derive(Debug)]
pub struct Outbox {
    qos: u8,
    waiting: VecDeque<Message>,
    /// Sent and not taken: by order of first sending.
    sent: BTreeMap<u64, Sent>,
    /// Where a packet id is in `sent`.
    by_id: BTreeMap<u16, u64>,
    /// Of a lost connection: to be sent again.
    again: VecDeque<u64>,
    /// The broker may know what is sent again.
    dup: bool,
    order: u64,
    last_id: u16,
    max: u16,
    bytes: usize,
}

#[derive(Debug)]
struct Sent {
    pkid: u16,
    message: Message,
    /// QoS 2: by the broker, in our session.
    received: bool,
}

impl Outbox {
    pub fn new(qos: u8) -> Outbox {
        Outbox {
            qos,
            waiting: VecDeque::new(),
            sent: BTreeMap::new(),
            by_id: BTreeMap::new(),
            again: VecDeque::new(),
            dup: false,
            order: 0,
            last_id: 0,
            max: 0,
            bytes: 0,
        }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Messages that the broker has not taken.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.sent.len()
    }

    pub fn step(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Connected { session, max } => {
                (self.max, self.dup) = (max.max(1), session);
                self.again.clear();
                let mut actions = Vec::new();
                for (order, sent) in &mut self.sent {
                    sent.received &= session;
                    if sent.received {
                        actions.push(Action::Release { pkid: sent.pkid });
                    } else {
                        self.again.push_back(*order);
                    }
                }
                actions.extend(self.send());
                actions
            }
            Event::Push(message) => {
                self.bytes += message.len();
                self.waiting.push_back(message);
                self.send()
            }
            Event::Taken { pkid } | Event::Completed { pkid } => {
                self.taken(pkid);
                self.send()
            }
            Event::Received { pkid } => {
                // Not known: it was taken on an earlier connection.
                let order = self.by_id.get(&pkid);
                if let Some(sent) = order.and_then(|order| self.sent.get_mut(order)) {
                    sent.received = true;
                }
                vec![Action::Release { pkid }]
            }
        }
    }

    fn taken(&mut self, pkid: u16) {
        let Some(order) = self.by_id.remove(&pkid) else { return };
        if let Some(sent) = self.sent.remove(&order) {
            self.bytes -= sent.message.len();
        }
    }

    /// As much as may be.
    fn send(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        let max = usize::from(self.max);
        // This broker may allow less than the last one did.
        while self.sent.len() < max + self.again.len() {
            let Some(order) = self.again.pop_front() else { break };
            if let Some(Sent { pkid, message, .. }) = self.sent.get(&order) {
                actions.push(Action::Send { message: message.clone(), pkid: *pkid, dup: self.dup });
            }
        }
        while self.qos == 0 || self.sent.len() < max {
            if self.max == 0 {
                break;
            }
            let Some(message) = self.waiting.pop_front() else { break };
            if self.qos == 0 {
                self.bytes -= message.len();
                actions.push(Action::Send { message, pkid: 0, dup: false });
                continue;
            }
            let pkid = self.free_id();
            self.by_id.insert(pkid, self.order);
            self.sent.insert(self.order, Sent { pkid, message: message.clone(), received: false });
            self.order += 1;
            actions.push(Action::Send { message, pkid, dup: false });
        }
        actions
    }

    /// There is one: fewer are under way than there are.
    fn free_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.by_id.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(n: u8) -> Message {
        Arc::new(vec![n; 10])
    }

    fn ids(actions: &[Action]) -> Vec<(u8, u16, bool)> {
        let sent = |action: &Action| match action {
            Action::Send { message, pkid, dup } => (message[0], *pkid, *dup),
            Action::Release { pkid } => (255, *pkid, false),
        };
        actions.iter().map(sent).collect()
    }

    #[test]
    fn no_more_are_under_way_than_the_broker_allows() {
        let mut outbox = Outbox::new(1);
        assert_eq!(outbox.step(Event::Push(message(1))), [], "there is no connection");
        assert_eq!(ids(&outbox.step(Event::Connected { session: false, max: 2 })), [(1, 1, false)]);
        assert_eq!(ids(&outbox.step(Event::Push(message(2)))), [(2, 2, false)]);
        assert_eq!(outbox.step(Event::Push(message(3))), []);
        assert_eq!(ids(&outbox.step(Event::Taken { pkid: 2 })), [(3, 3, false)]);
        assert_eq!((outbox.len(), outbox.bytes()), (2, 20));
        outbox.step(Event::Taken { pkid: 1 });
        outbox.step(Event::Taken { pkid: 3 });
        assert_eq!((outbox.len(), outbox.bytes()), (0, 0));
    }

    #[test]
    fn what_is_not_taken_is_sent_again_in_order() {
        let mut outbox = Outbox::new(1);
        outbox.step(Event::Connected { session: false, max: 10 });
        (1..=3).for_each(|n| drop(outbox.step(Event::Push(message(n)))));
        outbox.step(Event::Taken { pkid: 2 });
        let again = outbox.step(Event::Connected { session: true, max: 10 });
        assert_eq!(ids(&again), [(1, 1, true), (3, 3, true)]);
    }

    #[test]
    fn broker_that_allows_less_than_the_last_one_gets_it_bit_by_bit() {
        let mut outbox = Outbox::new(1);
        outbox.step(Event::Connected { session: false, max: 10 });
        (1..=5).for_each(|n| drop(outbox.step(Event::Push(message(n)))));
        assert_eq!(ids(&outbox.step(Event::Connected { session: false, max: 2 })), [(1, 1, false), (2, 2, false)]);
        outbox.step(Event::Push(message(6)));
        let next: Vec<_> = (1..=4).flat_map(|pkid| ids(&outbox.step(Event::Taken { pkid }))).collect();
        assert_eq!(next, [(3, 3, false), (4, 4, false), (5, 5, false), (6, 6, false)]);
    }

    #[test]
    fn received_message_of_qos_2_is_only_released_again_while_the_broker_knows_our_session() {
        let mut outbox = Outbox::new(2);
        outbox.step(Event::Connected { session: false, max: 10 });
        outbox.step(Event::Push(message(1)));
        outbox.step(Event::Push(message(2)));
        assert_eq!(ids(&outbox.step(Event::Received { pkid: 1 })), [(255, 1, false)]);
        let again = outbox.step(Event::Connected { session: true, max: 10 });
        assert_eq!(ids(&again), [(255, 1, false), (2, 2, true)]);
        outbox.step(Event::Completed { pkid: 1 });
        outbox.step(Event::Received { pkid: 2 });
        assert_eq!(outbox.len(), 1, "it is not complete");
        // A new session knows of nothing that was received in the old one.
        assert_eq!(ids(&outbox.step(Event::Connected { session: false, max: 10 })), [(2, 2, false)]);
        outbox.step(Event::Received { pkid: 2 });
        outbox.step(Event::Completed { pkid: 2 });
        assert_eq!((outbox.len(), outbox.bytes()), (0, 0));
    }
}
