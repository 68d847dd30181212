//! Owners of one slot that crash, hang and come back, against a model of Kafka's transactions in which replies get lost
//! and requests arrive late: every row is in the log once, in order. Each bug that can be switched on is caught.

use super::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// What Kafka keeps of a transactional id.
#[derive(Default)]
struct Kafka {
    /// Rows that readers with read_committed see.
    log: Vec<u64>,
    marker: Option<u64>,
    /// Grows with every initialisation; requests of older ones are refused.
    producer: u64,
    open: Option<Open>,
    /// A commit that is still on its way, of that producer: it ends whatever transaction it meets.
    late: Vec<u64>,
}

#[derive(Default)]
struct Open {
    rows: Vec<u64>,
    marker: Option<u64>,
}

impl Kafka {
    fn fence(&mut self) -> u64 {
        self.open = None;
        self.producer += 1;
        self.producer
    }

    fn end(&mut self, by: u64) {
        if by != self.producer {
            return;
        }
        if let Some(open) = self.open.take() {
            self.log.extend(open.rows);
            self.marker = open.marker.or(self.marker);
        }
    }
}

/// A checkpoint: what a new owner starts from.
#[derive(Clone, Default)]
struct Checkpoint {
    epoch: u64,
    committed: Option<u64>,
    segments: Vec<(u64, Vec<u64>)>,
    unchecked: Option<u64>,
    /// The next row of the source.
    next_row: u64,
}

struct Owner {
    slot: Slot,
    segments: Vec<(u64, Vec<u64>)>,
    next_row: u64,
    unsealed: Vec<u64>,
    permitted: u64,
    producer: u64,
}

impl Owner {
    fn new(from: &Checkpoint, bugs: Bugs) -> Owner {
        let unchecked = Some(from.unchecked.unwrap_or(from.epoch));
        let mut slot = Slot::new(from.committed, OnLost::Fail, bugs).restored_from(from.epoch, unchecked);
        from.segments.iter().for_each(|(epoch, rows)| slot.add(*epoch, rows.len() as u64));
        Owner {
            slot,
            segments: from.segments.clone(),
            next_row: from.next_row,
            unsealed: Vec::new(),
            permitted: from.epoch,
            producer: 0,
        }
    }

    fn checkpoint(&mut self, epoch: u64) -> Checkpoint {
        if !self.unsealed.is_empty() {
            self.slot.add(epoch, self.unsealed.len() as u64);
            self.segments.push((epoch, std::mem::take(&mut self.unsealed)));
        }
        Checkpoint {
            epoch,
            committed: self.slot.committed(),
            segments: self.segments.clone(),
            unchecked: self.slot.unchecked(),
            next_row: self.next_row,
        }
    }

    /// One action, if there is one. Err: the slot cannot go on.
    fn act(&mut self, kafka: &mut Kafka, now: u64, chance: &mut SmallRng, healthy: bool) -> Result<(), Outcome> {
        let Some(action) = self.slot.next(self.permitted, now) else { return Ok(()) };
        let mut fails = |percent: u32| !healthy && chance.random_range(0..100) < percent;
        let event = match action {
            Action::Fence if fails(20) => Event::Unknown,
            Action::Fence => {
                self.producer = kafka.fence();
                if fails(20) { Event::Unknown } else { Event::Fenced }
            }
            Action::ReadMarker if fails(20) => Event::Unknown,
            Action::ReadMarker => Event::Marker(kafka.marker),
            Action::Commit { .. } if self.producer != kafka.producer => Event::Unknown,
            Action::Commit { upto } => {
                // A begin behind an abort: what was open under this producer is gone.
                kafka.open = Some(Open::default());
                let rows: Vec<u64> =
                    self.segments.iter().filter(|(e, _)| *e <= upto).flat_map(|(_, rows)| rows.clone()).collect();
                let part = if fails(15) { Some(rows.len() / 2) } else { None };
                let open = kafka.open.as_mut().expect("just begun");
                open.rows.extend(rows.iter().take(part.unwrap_or(rows.len())));
                if part.is_some() {
                    Event::Unknown
                } else {
                    open.marker = Some(upto);
                    match () {
                        () if fails(15) => {
                            kafka.late.push(self.producer);
                            Event::Unknown
                        }
                        () => {
                            kafka.end(self.producer);
                            if fails(15) { Event::Unknown } else { Event::Committed }
                        }
                    }
                }
            }
        };
        match self.slot.step(action, event, now) {
            Outcome::Nothing => Ok(()),
            Outcome::Stored(upto) => {
                self.segments.retain(|(epoch, _)| *epoch > upto);
                Ok(())
            }
            stopped => Err(stopped),
        }
    }
}

/// Everything that went wrong with this seed.
fn run(seed: u64, bugs: Bugs) -> Result<(), String> {
    let mut chance = SmallRng::seed_from_u64(seed);
    let mut kafka = Kafka::default();
    let mut last = Checkpoint::default();
    let mut owners = vec![Owner::new(&last, bugs)];
    let (mut epoch, mut now) = (0, 0);
    for _ in 0..300 {
        now += chance.random_range(0..2000);
        // The youngest is the one that the job believes in; others are zombies.
        let youngest = owners.len() - 1;
        match chance.random_range(0..100) {
            0..25 => {
                let owner = &mut owners[youngest];
                for _ in 0..chance.random_range(1..4) {
                    owner.unsealed.push(owner.next_row);
                    owner.next_row += 1;
                }
            }
            25..45 => {
                epoch += 1;
                let checkpoint = owners[youngest].checkpoint(epoch);
                // Else it is aborted: its rows are part of the next.
                if chance.random_range(0..4) > 0 {
                    last = checkpoint;
                    // The word that it is complete may never come to its owner.
                    if chance.random_range(0..4) > 0 {
                        owners[youngest].permitted = epoch;
                    }
                }
            }
            45..48 => {
                if chance.random_range(0..2) == 0 {
                    owners.remove(youngest);
                }
                owners.push(Owner::new(&last, bugs));
            }
            48..52 if !kafka.late.is_empty() => {
                let by = kafka.late.remove(0);
                kafka.end(by);
            }
            _ => {
                let which = chance.random_range(0..owners.len());
                match owners[which].act(&mut kafka, now, &mut chance, false) {
                    Ok(()) => {}
                    // It learns that it is one.
                    Err(Outcome::Rewound { .. }) if which < youngest => drop(owners.remove(which)),
                    Err(stopped) => return Err(format!("{stopped:?}")),
                }
            }
        }
    }
    // All is well from here on: the rest comes in.
    let mut owner = Owner::new(&last, bugs);
    for _ in 0..100 {
        now += 60_000;
        owner.act(&mut kafka, now, &mut chance, true).map_err(|stopped| format!("{stopped:?}"))?;
        while let Some(by) = kafka.late.pop() {
            kafka.end(by);
        }
    }
    let expected: Vec<u64> = (0..last.next_row).collect();
    if kafka.log != expected {
        return Err(format!("the log holds {:?}, expected the rows up to {}", kafka.log, last.next_row));
    }
    Ok(())
}

const SEEDS: std::ops::Range<u64> = 0..3000;

#[test]
fn every_row_is_in_the_log_once_whatever_happens_to_its_owners() {
    for seed in SEEDS {
        run(seed, Bugs::default()).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
}

#[test]
fn each_bug_is_caught() {
    for bugs in [Bugs { no_marker: true, ..Bugs::default() }, Bugs { blind_retry: true, ..Bugs::default() }] {
        let caught = SEEDS.filter(|seed| run(*seed, bugs).is_err()).count();
        assert!(caught > 100, "{bugs:?} is seen by {caught} seeds");
    }
}

#[test]
fn lost_marker_stops_the_slot_only_if_rows_depend_on_it() {
    let lost = |pending: &[u64], on_lost| {
        let mut slot = Slot::new(Some(5), on_lost, Bugs::default()).restored_from(6, Some(6));
        pending.iter().for_each(|epoch| slot.add(*epoch, 1));
        assert_eq!(slot.next(9, 0), Some(Action::Fence));
        slot.step(Action::Fence, Event::Fenced, 0);
        assert_eq!(slot.next(9, 0), Some(Action::ReadMarker));
        (slot.step(Action::ReadMarker, Event::Marker(None), 0), slot)
    };
    assert_eq!(lost(&[6], OnLost::Fail).0, Outcome::MarkerLost { known: 5, found: None });
    assert_eq!(lost(&[], OnLost::Fail).0, Outcome::Nothing);
    assert_eq!(lost(&[6], OnLost::AssumeCommitted).0, Outcome::Stored(6));
    let (outcome, slot) = lost(&[6, 7], OnLost::AssumeLost);
    assert_eq!((outcome, slot.next(6, 0)), (Outcome::Nothing, Some(Action::Commit { upto: 6 })));
    // Rows of this life nobody has sent.
    assert_eq!(lost(&[7], OnLost::Fail).0, Outcome::Nothing);
    let (outcome, mut slot) = lost(&[6, 7], OnLost::AssumeCommitted);
    assert_eq!((outcome, slot.oldest(), slot.committed()), (Outcome::Stored(6), Some(7), None));
    // Nor does a failed attempt bring the question up again: what Kafka says then is true.
    slot.step(Action::Commit { upto: 7 }, Event::Unknown, 0);
    slot.step(Action::Fence, Event::Fenced, 0);
    assert_eq!(slot.step(Action::ReadMarker, Event::Marker(None), 0), Outcome::Nothing);
    assert_eq!(slot.oldest(), Some(7));
}

#[test]
fn marker_of_what_was_staged_before_the_first_look_is_ours() {
    let mut slot = Slot::new(None, OnLost::Fail, Bugs::default()).restored_from(6, Some(5));
    slot.add(6, 1);
    slot.step(Action::Fence, Event::Fenced, 0);
    assert_eq!(slot.step(Action::ReadMarker, Event::Marker(Some(6)), 0), Outcome::Stored(6));
}

#[test]
fn backlog_that_does_not_get_through_goes_in_smaller_transactions() {
    let mut slot = Slot::new(None, OnLost::Fail, Bugs::default());
    (1..=256).for_each(|epoch| slot.add(epoch, TRANSACTION_BYTES / 256));
    let (mut now, mut sizes) = (0, Vec::new());
    let mut next = 1u64;
    while let Some(action) = slot.next(256, now) {
        let event = match action {
            Action::Fence => Event::Fenced,
            Action::ReadMarker => Event::Marker(next.checked_sub(1).filter(|upto| *upto > 0)),
            Action::Commit { upto } => {
                sizes.push(upto + 1 - next);
                // Sixty at once are too many.
                if upto + 1 - next < 60 {
                    next = upto + 1;
                    Event::Committed
                } else {
                    Event::Unknown
                }
            }
        };
        slot.step(action, event, now);
        now += BACKOFF_MAX_MS;
        if slot.is_settled(256) {
            break;
        }
    }
    assert_eq!(sizes[..4], [256, 128, 64, 32]);
    assert!(slot.oldest().is_none() && sizes.len() < 20, "{sizes:?}");
}

#[test]
fn quiet_slot_refreshes_its_marker_soon_after_a_start() {
    let mut slot = Slot::new(Some(5), OnLost::Fail, Bugs::default()).restored_from(5, Some(5));
    slot.step(Action::Fence, Event::Fenced, 0);
    slot.step(Action::ReadMarker, Event::Marker(Some(5)), 0);
    assert_eq!(slot.next(9, REFRESH_FIRST_MS - 1), None);
    assert_eq!(slot.next(9, REFRESH_FIRST_MS), Some(Action::Commit { upto: 5 }));
    slot.step(Action::Commit { upto: 5 }, Event::Committed, REFRESH_FIRST_MS);
    assert_eq!(slot.wakes_at_ms(9), Some(REFRESH_FIRST_MS + REFRESH_MS));
}

#[test]
fn what_is_permitted_goes_in_transactions_of_bounded_size_and_attempts_back_off() {
    let mut slot = Slot::new(None, OnLost::Fail, Bugs::default());
    for (epoch, bytes) in [(1, TRANSACTION_BYTES + 1), (2, 1), (3, TRANSACTION_BYTES), (5, 1)] {
        slot.add(epoch, bytes);
    }
    slot.step(Action::Fence, Event::Fenced, 0);
    slot.step(Action::ReadMarker, Event::Marker(None), 0);
    for (permitted, expected) in [(0, None), (4, Some(1)), (4, Some(2)), (4, Some(3)), (4, None), (5, Some(5))] {
        let action = slot.next(permitted, 0);
        assert_eq!(action, expected.map(|upto| Action::Commit { upto }));
        if let Some(action) = action {
            slot.step(action, Event::Committed, 0);
        }
    }
    assert!(slot.is_settled(9));
    // A day later the marker is written anew, or it would expire.
    assert_eq!(slot.next(9, REFRESH_MS - 1), None);
    let refresh = Action::Commit { upto: 5 };
    assert_eq!(slot.next(9, REFRESH_MS), Some(refresh));
    slot.step(refresh, Event::Unknown, REFRESH_MS);
    let mut now = REFRESH_MS;
    for backoff in [100, 200, 400] {
        assert_eq!(slot.next(9, now + backoff - 1), None);
        now += backoff;
        assert_eq!(slot.next(9, now), Some(Action::Fence));
        slot.step(Action::Fence, Event::Unknown, now);
    }
}

#[test]
fn going_back_behind_what_kafka_has_is_refused_until_a_marker_was_seen_that_is_not_newer() {
    let start = |found| {
        let mut slot = Slot::new(Some(4), OnLost::Fail, Bugs::default()).restored_from(5, Some(5));
        slot.step(Action::Fence, Event::Fenced, 0);
        assert_eq!(slot.unchecked(), Some(5), "a checkpoint before the look says so");
        (slot.step(Action::ReadMarker, Event::Marker(found), 0), slot)
    };
    let (outcome, slot) = start(Some(7));
    assert_eq!(outcome, Outcome::Rewound { restored: 5, found: 7 });
    assert_eq!((slot.unchecked(), slot.is_settled(9)), (Some(5), false));
    for found in [Some(5), Some(4)] {
        let (outcome, mut slot) = start(found);
        assert_eq!((outcome, slot.unchecked()), (Outcome::Stored(found.expect("there")), None));
        // Its own are newer from here on.
        slot.add(6, 1);
        slot.step(Action::Commit { upto: 6 }, Event::Unknown, 0);
        slot.step(Action::Fence, Event::Fenced, 0);
        assert_eq!(slot.step(Action::ReadMarker, Event::Marker(Some(6)), 0), Outcome::Stored(6));
    }
}
