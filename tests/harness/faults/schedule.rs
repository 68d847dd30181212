//! Which faults come when: a pure function of the seed.

use crate::proxy::Direction;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

/// What can be drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    KillWorker,
    KillCoordinator,
    FreezeWorker,
    FreezeCoordinator,
    CutData,
    CutControl,
    StoreDown,
    DiskFull,
    Rescale,
    Upgrade,
    Drain,
    /// Only over Kafka, as the next one.
    KillBroker,
    FreezeBroker,
}

impl Kind {
    pub const BROKER: [Kind; 2] = [Kind::KillBroker, Kind::FreezeBroker];

    /// Of any cluster.
    pub const ALL: [Kind; 11] = [
        Kind::KillWorker,
        Kind::KillCoordinator,
        Kind::FreezeWorker,
        Kind::FreezeCoordinator,
        Kind::CutData,
        Kind::CutControl,
        Kind::StoreDown,
        Kind::DiskFull,
        Kind::Rescale,
        Kind::Upgrade,
        Kind::Drain,
    ];
}

/// How a link is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Connections are reset, and new ones too.
    Reset,
    /// Nothing gets through, and nobody is told.
    Silent,
    /// One direction is silent.
    HalfOpen(Direction),
}

/// Workers by their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// kill -9, and a new start after the time.
    KillWorker(usize),
    KillCoordinator,
    /// SIGSTOP for the time: longer than the heartbeat timeout makes it a zombie.
    FreezeWorker(usize),
    FreezeCoordinator,
    /// From the other workers to this one.
    CutData(usize, Cut),
    /// Between this worker and the coordinator.
    CutControl(usize, Cut),
    StoreDown,
    DiskFull(usize),
    /// To another parallelism, while it runs.
    Rescale(u32),
    /// A savepoint, the end of the job, and a new one from there at this parallelism.
    Upgrade(u32),
    /// Its tasks move away; it takes new ones after the time.
    Drain(usize),
    /// kill -9, and a new start after the time.
    KillBroker,
    FreezeBroker,
}

/// What only one fault at a time is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Coordinator,
    Worker(usize),
    Store,
    Job,
    Broker,
}

impl Fault {
    pub fn targets(&self) -> Vec<Target> {
        match self {
            Fault::KillWorker(n)
            | Fault::FreezeWorker(n)
            | Fault::CutData(n, _)
            | Fault::CutControl(n, _)
            | Fault::DiskFull(n)
            | Fault::Drain(n) => vec![Target::Worker(*n)],
            Fault::KillCoordinator | Fault::FreezeCoordinator => vec![Target::Coordinator],
            Fault::StoreDown => vec![Target::Store],
            Fault::Rescale(_) => vec![Target::Job],
            Fault::KillBroker | Fault::FreezeBroker => vec![Target::Broker],
            // A submission whose answer is lost cannot be told from one that did not come about.
            Fault::Upgrade(_) => vec![Target::Job, Target::Coordinator],
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let worker = |n: &usize| n + 1;
        match self {
            Fault::KillWorker(n) => write!(f, "kill -9 worker {}", worker(n)),
            Fault::KillCoordinator => write!(f, "kill -9 coordinator"),
            Fault::FreezeWorker(n) => write!(f, "SIGSTOP worker {}", worker(n)),
            Fault::FreezeCoordinator => write!(f, "SIGSTOP coordinator"),
            Fault::CutData(n, cut) => write!(f, "cut the others from worker {} ({cut:?})", worker(n)),
            Fault::CutControl(n, cut) => write!(f, "cut worker {} from the coordinator ({cut:?})", worker(n)),
            Fault::StoreDown => write!(f, "store down"),
            Fault::DiskFull(n) => write!(f, "disk full at worker {}", worker(n)),
            Fault::Rescale(to) => write!(f, "rescale to {to}"),
            Fault::Upgrade(to) => write!(f, "savepoint, stop, submit again at {to}"),
            Fault::Drain(n) => write!(f, "drain worker {}", worker(n)),
            Fault::KillBroker => write!(f, "kill -9 broker"),
            Fault::FreezeBroker => write!(f, "SIGSTOP broker"),
        }
    }
}

/// `pause` after the one before it began, or once its targets are free, `fault` begins; it ends after `lasts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub pause: Duration,
    pub fault: Fault,
    pub lasts: Duration,
}

#[derive(Clone, Debug)]
pub struct Menu {
    pub workers: usize,
    pub kinds: Vec<Kind>,
    pub parallelism: RangeInclusive<u32>,
    /// How long a worker stands still.
    pub freeze_ms: RangeInclusive<u64>,
    pub pause_ms: RangeInclusive<u64>,
}

/// `count` faults. Kinds come in rounds, each once a round, so that also a short schedule has of everything.
pub fn schedule(seed: u64, count: usize, menu: &Menu) -> Vec<Step> {
    assert!(!menu.kinds.is_empty(), "nothing to draw from");
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut round: Vec<Kind> = Vec::new();
    let mut parallelism = 0;
    (0..count)
        .map(|_| {
            if round.is_empty() {
                round = menu.kinds.clone();
                round.shuffle(&mut rng);
            }
            let kind = round.pop().expect("it was filled");
            draw(kind, menu, &mut parallelism, &mut rng)
        })
        .collect()
}

fn draw(kind: Kind, menu: &Menu, parallelism: &mut u32, rng: &mut SmallRng) -> Step {
    let worker = rng.random_range(0..menu.workers);
    let cut = match rng.random_range(0..4) {
        0 => Cut::Reset,
        1 => Cut::Silent,
        2 => Cut::HalfOpen(Direction::ToServer),
        _ => Cut::HalfOpen(Direction::ToClient),
    };
    // To where it is already would change nothing.
    let mut other = rng.random_range(menu.parallelism.clone());
    if other == *parallelism {
        other = if other == *menu.parallelism.end() { *menu.parallelism.start() } else { other + 1 };
    }
    let (fault, lasts) = match kind {
        Kind::KillWorker => (Fault::KillWorker(worker), 200..=3000),
        Kind::KillCoordinator => (Fault::KillCoordinator, 100..=2000),
        Kind::FreezeWorker => (Fault::FreezeWorker(worker), menu.freeze_ms.clone()),
        Kind::FreezeCoordinator => (Fault::FreezeCoordinator, 500..=4000),
        Kind::CutData => (Fault::CutData(worker, cut), 500..=5000),
        Kind::CutControl => (Fault::CutControl(worker, cut), 500..=5000),
        Kind::StoreDown => (Fault::StoreDown, 500..=4000),
        Kind::DiskFull => (Fault::DiskFull(worker), 500..=3000),
        Kind::Rescale => (Fault::Rescale(other), 0..=0),
        Kind::Upgrade => (Fault::Upgrade(other), 0..=0),
        Kind::Drain => (Fault::Drain(worker), 500..=3000),
        Kind::KillBroker => (Fault::KillBroker, 200..=3000),
        Kind::FreezeBroker => (Fault::FreezeBroker, 500..=6000),
    };
    if matches!(kind, Kind::Rescale | Kind::Upgrade) {
        *parallelism = other;
    }
    let pause = Duration::from_millis(rng.random_range(menu.pause_ms.clone()));
    Step { pause, fault, lasts: Duration::from_millis(rng.random_range(lasts)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn menu() -> Menu {
        Menu {
            workers: 3,
            kinds: Kind::ALL.to_vec(),
            parallelism: 1..=4,
            freeze_ms: 3000..=30_000,
            pause_ms: 200..=2000,
        }
    }

    #[test]
    fn same_seed_gives_the_same_faults() {
        assert_eq!(schedule(1, 100, &menu()), schedule(1, 100, &menu()));
        assert_ne!(schedule(1, 100, &menu()), schedule(2, 100, &menu()));
        // A longer one begins as the shorter one: a failure of the long run is found again in a shorter one.
        assert_eq!(schedule(1, 100, &menu())[..20], schedule(1, 20, &menu()));
    }

    #[test]
    fn each_round_has_of_everything() {
        for seed in 0..20 {
            let steps = schedule(seed, Kind::ALL.len(), &menu());
            let count = |is_it: fn(&Fault) -> bool| steps.iter().filter(|step| is_it(&step.fault)).count();
            assert_eq!(count(|f| matches!(f, Fault::KillWorker(_))), 1);
            assert_eq!(count(|f| matches!(f, Fault::KillCoordinator | Fault::FreezeCoordinator)), 2);
            assert_eq!(count(|f| matches!(f, Fault::CutData(..) | Fault::CutControl(..))), 2);
            assert_eq!(count(|f| matches!(f, Fault::Upgrade(_) | Fault::Rescale(_) | Fault::StoreDown)), 3);
        }
    }

    #[test]
    fn parallelism_always_changes_and_stays_in_its_range() {
        let mut last = 0;
        for step in schedule(5, 500, &menu()) {
            if let Fault::Rescale(to) | Fault::Upgrade(to) = step.fault {
                assert!((1..=4).contains(&to) && to != last, "{last} to {to}");
                last = to;
            }
            if let Fault::FreezeWorker(_) = step.fault {
                assert!((3000..=30_000).contains(&step.lasts.as_millis()));
            }
        }
        assert!(last > 0);
    }
}
