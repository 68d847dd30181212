//! One simulated cluster: virtual time, one queue of events, one source of chance. No threads, no clock.
//!
//! A process (the coordinator, a worker) has a number of its life: what was meant for an earlier one is dropped. One that
//! is frozen takes no events until it goes on, and then all at once.

use super::agent::ToAgent;
use super::coordinator::{Coordinator, ToCoordinator};
use super::faults::{Fault, Weather};
use super::net::{Link, Wire};
use super::people::People;
use super::sink::Outside;
use super::store::{Answered, Asker, Op, Store};
use super::worker::{ToWorker, Worker};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

pub const HEARTBEAT_MS: u64 = 400;
pub const TIMEOUT_MS: u64 = 2_000;
/// When the world begins.
const START_MS: u64 = 1_000_000;
/// After the last fault, all must have come to its end within this time.
const PATIENCE_MS: u64 = 240_000;
/// Lines of the trace that a failure shows.
const TRACE_LINES: usize = 120;

/// What is switched off on purpose: the simulator must notice each of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bugs {
    /// The coordinator's own: events of replaced deployments count, and nobody is told to leave.
    pub skip_fence: bool,
    /// The coordinator's own: a new leader gives epochs out a second time.
    pub reuse_epoch: bool,
    /// Sinks publish at the barrier, before the checkpoint is recorded.
    pub publish_at_barrier: bool,
    /// Sources go on where they were, not where the checkpoint was.
    pub no_rewind: bool,
    /// Stores reuse files of snapshots that are still on their way, or never arrive.
    pub reuse_unconfirmed: bool,
    /// Sweeps delete files of the checkpoint in flight as well.
    pub gc_ignores_in_flight: bool,
    /// Workers ack before their files are in the store.
    pub ack_before_upload: bool,
    /// The coordinator's disk forgets, at a crash, what it said was durable.
    pub lying_log: bool,
    /// Event time passes channels that were stopped, so that windows fire which a later run goes on with.
    pub stopped_channels_close: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    pub seed: u64,
    pub bugs: Bugs,
    /// Keeps what happens in words, the last of it or all.
    pub trace: bool,
    pub whole_trace: bool,
    /// The checks that look into the coordinator's decisions are left out: only what users see counts.
    pub outside_only: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub events: u64,
    pub faults: u64,
    pub checkpoints: u64,
    pub deployments: u64,
    pub rescales: u64,
    pub moves: u64,
    pub savepoints: u64,
    pub resumed: u64,
    pub deleted: u64,
    pub virtual_ms: u64,
}

impl Stats {
    pub fn add(&mut self, other: Stats) {
        self.events += other.events;
        self.faults += other.faults;
        self.checkpoints += other.checkpoints;
        self.deployments += other.deployments;
        self.rescales += other.rescales;
        self.moves += other.moves;
        self.savepoints += other.savepoints;
        self.resumed += other.resumed;
        self.deleted += other.deleted;
        self.virtual_ms += other.virtual_ms;
    }
}

thread_local! {
    /// The last of what happened, in words. Not in the world, which a panic takes with it.
    static TRACE: RefCell<VecDeque<String>> = const { RefCell::new(VecDeque::new()) };
}

/// What was written down on this thread.
pub fn trace() -> String {
    TRACE.with_borrow(|trace| trace.iter().map(|line| format!("{line}\n")).collect())
}

pub enum Event {
    Coordinator {
        life: u64,
        what: ToCoordinator,
    },
    Worker {
        worker: usize,
        boot: u64,
        what: ToWorker,
    },
    Agent {
        worker: usize,
        boot: u64,
        agent: u64,
        what: ToAgent,
    },
    Store {
        op: Op,
        asker: Asker,
    },
    Answer {
        asker: Asker,
        answered: Answered,
    },
    Fault,
    Heal(Fault),
    /// No more faults from here on.
    Calm,
    /// People look, and do something.
    Look,
}

struct Entry {
    at: Reverse<(u64, u64)>,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.at == other.at
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

pub struct World {
    pub now: u64,
    pub options: Options,
    pub weather: Weather,
    pub coordinator: Coordinator,
    pub workers: Vec<Worker>,
    pub links: BTreeMap<u64, Link>,
    pub wires: BTreeMap<u64, Wire>,
    /// Pairs of places that do not reach each other, the smaller one first.
    pub partitions: BTreeSet<(usize, usize)>,
    pub store: Store,
    pub outside: Outside,
    pub people: People,
    pub stats: Stats,
    pub calm_at_ms: Option<u64>,
    numbers: u64,
    chance: SmallRng,
    queue: BinaryHeap<Entry>,
    sequence: u64,
    failure: Option<String>,
}

/// Says what happens, if anybody listens.
#[macro_export]
macro_rules! note {
    ($world:expr, $($words:tt)*) => {
        if $world.listens() {
            let words = format!($($words)*);
            $world.write_down(words);
        }
    };
}

impl World {
    pub fn new(options: Options) -> World {
        TRACE.with_borrow_mut(VecDeque::clear);
        let mut chance = SmallRng::seed_from_u64(options.seed);
        let weather = Weather::draw(&mut chance);
        let people = People::draw(&mut chance);
        let workers = chance.random_range(3..=5);
        let mut world = World {
            now: START_MS,
            options,
            weather,
            coordinator: Coordinator::default(),
            workers: Vec::new(),
            links: BTreeMap::new(),
            wires: BTreeMap::new(),
            partitions: BTreeSet::new(),
            store: Store::default(),
            outside: Outside::default(),
            people,
            stats: Stats::default(),
            calm_at_ms: None,
            numbers: 0,
            chance,
            queue: BinaryHeap::new(),
            sequence: 0,
            failure: None,
        };
        let slots = world.people.slots_needed().div_ceil(workers) + world.between(0, 1) as u32;
        world.workers = (0..workers as usize).map(|number| Worker::new(number, slots)).collect();
        world.start_coordinator();
        (0..workers as usize).for_each(|worker| world.start_worker(worker));
        world.later(50, Event::Look);
        let (first, last) = (world.between(500, 3_000), world.weather.lasts_ms);
        world.later(first, Event::Fault);
        world.later(last, Event::Calm);
        world
    }

    /// Until all jobs have come to their end, or something is wrong.
    pub fn run(mut self) -> Result<Stats, String> {
        while self.failure.is_none() {
            let Some(Entry { at: Reverse((at, _)), event }) = self.queue.pop() else {
                self.fail("nothing happens any more");
                break;
            };
            self.now = at;
            self.stats.events += 1;
            self.handle(event);
            if self.people.done_at_ms.is_some_and(|done| self.now >= done) {
                self.check_end();
                break;
            }
            if self.calm_at_ms.is_some_and(|calm| self.now > calm + PATIENCE_MS) {
                let jobs = self.describe_jobs();
                self.fail(format!("not at its end {PATIENCE_MS} ms after the last fault: {jobs}"));
            }
        }
        self.stats.virtual_ms = self.now - START_MS;
        self.failure.map_or(Ok(self.stats), Err)
    }

    pub fn handle(&mut self, event: Event) {
        match event {
            Event::Coordinator { life, what } => {
                if life == self.coordinator.life {
                    if self.coordinator.frozen {
                        self.coordinator.stash.push_back(Event::Coordinator { life, what });
                    } else {
                        self.coordinator_hears(what);
                    }
                }
            }
            Event::Worker { worker, boot, what } => {
                let process = &mut self.workers[worker];
                if process.up && process.boot == boot {
                    if process.frozen {
                        process.stash.push_back(Event::Worker { worker, boot, what });
                    } else {
                        self.worker_hears(worker, what);
                    }
                }
            }
            Event::Agent { worker, boot, agent, what } => {
                let process = &mut self.workers[worker];
                if process.up && process.boot == boot {
                    if process.frozen {
                        process.stash.push_back(Event::Agent { worker, boot, agent, what });
                    } else {
                        self.agent_hears(worker, agent, what);
                    }
                }
            }
            Event::Store { op, asker } => self.store(op, asker),
            Event::Answer { asker, answered } => match asker {
                Asker::Coordinator { life, work } => {
                    self.handle(Event::Coordinator { life, what: ToCoordinator::Answer { work, answered } });
                }
                Asker::Agent { worker, boot, agent, work } => {
                    self.handle(Event::Agent { worker, boot, agent, what: ToAgent::Answer { work, answered } });
                }
            },
            Event::Fault => self.fault(),
            Event::Heal(fault) => self.heal(fault),
            Event::Calm => self.calm(),
            Event::Look => self.look(),
        }
    }

    pub fn later(&mut self, after_ms: u64, event: Event) {
        self.at(self.now + after_ms, event);
    }

    pub fn at(&mut self, at_ms: u64, event: Event) {
        self.sequence += 1;
        self.queue.push(Entry { at: Reverse((at_ms, self.sequence)), event });
    }

    pub fn tell_coordinator(&mut self, after_ms: u64, what: ToCoordinator) {
        let life = self.coordinator.life;
        self.later(after_ms, Event::Coordinator { life, what });
    }

    pub fn tell_worker(&mut self, worker: usize, after_ms: u64, what: ToWorker) {
        let boot = self.workers[worker].boot;
        self.later(after_ms, Event::Worker { worker, boot, what });
    }

    pub fn tell_agent(&mut self, worker: usize, agent: u64, after_ms: u64, what: ToAgent) {
        let boot = self.workers[worker].boot;
        self.later(after_ms, Event::Agent { worker, boot, agent, what });
    }

    /// Whether the process that has asked is still there.
    pub fn is_there(&self, asker: Asker) -> bool {
        match asker {
            Asker::Coordinator { life, .. } => self.coordinator.life == life,
            Asker::Agent { worker, boot, .. } => self.workers[worker].up && self.workers[worker].boot == boot,
        }
    }

    pub fn chance(&mut self, of: f64) -> bool {
        of > 0.0 && self.chance.random_bool(of)
    }

    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        self.chance.random_range(least..=most.max(least))
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        if of.is_empty() {
            return None;
        }
        let at = self.between(0, of.len() as u64 - 1) as usize;
        Some(of[at])
    }

    pub fn seed(&mut self) -> u64 {
        self.chance.random()
    }

    pub fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Something is wrong; the first counts.
    pub fn fail(&mut self, message: impl Into<String>) {
        let message = message.into();
        note!(self, "FAILURE: {message}");
        self.failure.get_or_insert(message);
    }

    pub fn listens(&self) -> bool {
        self.options.trace
    }

    pub fn write_down(&mut self, words: String) {
        let at = self.now - START_MS;
        TRACE.with_borrow_mut(|trace| {
            if trace.len() >= TRACE_LINES && !self.options.whole_trace {
                trace.pop_front();
            }
            trace.push_back(format!("{at:>7} {words}"));
        });
    }
}
