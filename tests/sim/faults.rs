//! Faults and bad weather: drawn anew for each seed, some kinds of them left out, so that every mixture comes up.

use super::net::COORDINATOR;
use super::world::{Event, TIMEOUT_MS, World};
use crate::note;
use rand::Rng;
use rand::rngs::SmallRng;

/// How slow and how troubled everything is.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    pub message_ms: u64,
    pub frame_ms: u64,
    pub store_ms: u64,
    pub store_errors: f64,
    pub log_ms: u64,
    pub log_stalls: f64,
    /// Of streams that take nothing for a while.
    pub stuck: f64,
    pub tick_ms: u64,
    /// Between two batches of a source.
    pub pace_ms: u64,
    /// Until there are no more faults.
    pub lasts_ms: u64,
    /// Between two faults.
    every_ms: u64,
    /// Which kinds of faults come, by their bits.
    kinds: u32,
}

#[derive(Clone, Copy, Debug)]
pub enum Fault {
    CoordinatorKilled,
    CoordinatorFrozen,
    WorkerKilled(usize),
    WorkerFrozen(usize),
    WorkerSlow(usize),
    Partition(usize, usize),
    Outage,
}

const KINDS: u64 = 10;

impl Weather {
    pub fn draw(chance: &mut SmallRng) -> Weather {
        let bad = chance.random_bool(0.5);
        Weather {
            message_ms: if chance.random_bool(0.3) { 60 } else { 8 },
            frame_ms: if chance.random_bool(0.3) { 40 } else { 5 },
            store_ms: if chance.random_bool(0.3) { 250 } else { 20 },
            store_errors: if bad { 0.04 } else { 0.0 },
            log_ms: if chance.random_bool(0.3) { 80 } else { 10 },
            log_stalls: if bad { 0.05 } else { 0.0 },
            stuck: if bad { 0.02 } else { 0.0 },
            tick_ms: chance.random_range(20..=90),
            pace_ms: chance.random_range(60..=220),
            lasts_ms: chance.random_range(4_000..=16_000),
            every_ms: chance.random_range(400..=4_000),
            kinds: chance.random::<u32>() | chance.random::<u32>(),
        }
    }
}

impl World {
    /// Something goes wrong, and something else will.
    pub fn fault(&mut self) {
        if self.calm_at_ms.is_some() {
            return;
        }
        let every = self.weather.every_ms;
        let after = self.between(every / 4, every * 2);
        self.later(after, Event::Fault);
        let kind = self.between(0, KINDS - 1);
        if self.weather.kinds & (1 << kind) == 0 {
            return;
        }
        self.stats.faults += 1;
        let count = self.workers.len() as u64;
        let (worker, other) = (self.between(0, count - 1) as usize, self.between(0, count - 1) as usize);
        let up = self.workers[worker].up && !self.workers[worker].frozen;
        match kind {
            0 if self.coordinator.up => {
                self.kill_coordinator();
                let most = if self.chance(0.3) { 3 * TIMEOUT_MS } else { 500 };
                self.heal_later(most, Fault::CoordinatorKilled);
            }
            1 if self.coordinator.up && !self.coordinator.frozen => {
                note!(self, "the coordinator freezes");
                self.coordinator.frozen = true;
                self.heal_later(2 * TIMEOUT_MS, Fault::CoordinatorFrozen);
            }
            2 | 3 if up => {
                self.kill_worker(worker);
                let most = if self.chance(0.4) { 3 * TIMEOUT_MS } else { 300 };
                self.heal_later(most, Fault::WorkerKilled(worker));
            }
            4 if up => {
                note!(self, "w{worker} freezes");
                self.workers[worker].frozen = true;
                self.heal_later(3 * TIMEOUT_MS, Fault::WorkerFrozen(worker));
            }
            5 => {
                if let Some(link) = self.links_of(worker).pop() {
                    let quick = self.chance(0.5);
                    self.cut_link(link, quick);
                }
            }
            6 if self.reaches(worker, COORDINATOR) => {
                note!(self, "w{worker} does not reach the coordinator");
                self.partitions.insert((worker, COORDINATOR));
                for link in self.links_of(worker) {
                    self.cut_link(link, false);
                }
                self.heal_later(2 * TIMEOUT_MS, Fault::Partition(worker, COORDINATOR));
            }
            7 if worker != other => {
                note!(self, "w{worker} and w{other} do not reach each other");
                self.partitions.insert((worker.min(other), worker.max(other)));
                for wire in self.wires_of(worker, Some(other)) {
                    self.cut_wire(wire, 5_000);
                }
                self.heal_later(2 * TIMEOUT_MS, Fault::Partition(worker.min(other), worker.max(other)));
            }
            8 => {
                let lasts = self.between(200, 6_000);
                note!(self, "the store is out of reach for {lasts} ms");
                self.store.outage_until_ms = self.store.outage_until_ms.max(self.now + lasts);
            }
            9 if up && self.chance(0.5) => {
                self.workers[worker].slowness = 20;
                self.heal_later(TIMEOUT_MS, Fault::WorkerSlow(worker));
            }
            9 if up => {
                let agents: Vec<u64> = self.workers[worker].agents.keys().copied().collect();
                if let Some(agent) = self.pick(&agents) {
                    self.fail_agent(worker, agent, "a task failed".into());
                }
            }
            _ => {}
        }
    }

    fn heal_later(&mut self, most_ms: u64, fault: Fault) {
        let after = self.between(20, most_ms);
        self.later(after, Event::Heal(fault));
    }

    pub fn heal(&mut self, fault: Fault) {
        match fault {
            Fault::CoordinatorKilled => {
                if !self.coordinator.up {
                    self.start_coordinator();
                }
            }
            Fault::CoordinatorFrozen => self.thaw_coordinator(),
            Fault::WorkerKilled(worker) => {
                if !self.workers[worker].up {
                    self.start_worker(worker);
                }
            }
            Fault::WorkerFrozen(worker) => self.thaw_worker(worker),
            Fault::WorkerSlow(worker) => self.workers[worker].slowness = 1,
            Fault::Partition(a, b) => {
                self.partitions.remove(&(a, b));
            }
            Fault::Outage => self.store.outage_until_ms = self.now,
        }
    }

    /// From here on all is well: whatever is to happen must happen now.
    pub fn calm(&mut self) {
        note!(self, "all is well from here on");
        self.calm_at_ms = Some(self.now);
        let weather = &mut self.weather;
        (weather.store_errors, weather.log_stalls, weather.stuck) = (0.0, 0.0, 0.0);
        weather.pace_ms = weather.pace_ms.min(80);
        self.heal(Fault::Outage);
        self.partitions.clear();
        self.heal(Fault::CoordinatorKilled);
        self.heal(Fault::CoordinatorFrozen);
        for worker in 0..self.workers.len() {
            self.heal(Fault::WorkerKilled(worker));
            self.heal(Fault::WorkerFrozen(worker));
            self.heal(Fault::WorkerSlow(worker));
        }
    }
}
