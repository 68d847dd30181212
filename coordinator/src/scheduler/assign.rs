//! Slots to workers, as a matching: groups of slots, workers with so much room, and which fits which. Knows only numbers.
//!
//! First what stays, then the rest one by one where relatively most is free. A slot that finds no room takes the place of
//! another one that can go elsewhere, along the shortest such chain: an augmenting path. First only slots make room that
//! are new themselves; what runs already is moved only if there is no placement without. The slots of a group can stand in
//! for one another, so a chain visits each group once, and a failed search proves that there is no placement.

use std::collections::{BTreeSet, VecDeque};

pub struct Assignment {
    groups: Vec<Group>,
    workers: Vec<Worker>,
}

struct Group {
    /// For each worker.
    fits: Vec<bool>,
    /// Of each slot.
    at: Vec<Option<usize>>,
    kept: Vec<bool>,
}

struct Worker {
    slots: u32,
    /// For this region.
    room: u32,
    used: u32,
}

impl Worker {
    fn free(&self) -> u32 {
        self.room - self.used
    }
}

/// Which slots may make room.
#[derive(Clone, Copy, PartialEq)]
enum Movable {
    New,
    All,
}

impl Assignment {
    /// `groups`: slots, and which workers fit. `workers`: slots, and how many of them are to be had.
    pub fn new(groups: Vec<(u32, Vec<bool>)>, workers: Vec<(u32, u32)>) -> Assignment {
        let group = |(slots, fits): (u32, Vec<bool>)| {
            let slots = slots as usize;
            Group { fits, at: vec![None; slots], kept: vec![false; slots] }
        };
        Assignment {
            groups: groups.into_iter().map(group).collect(),
            workers: workers.into_iter().map(|(slots, room)| Worker { slots, room, used: 0 }).collect(),
        }
    }

    /// A slot that is to stay where it is, if it can.
    pub fn keep(&mut self, group: usize, slot: u32, worker: usize) {
        if self.groups[group].fits[worker] && self.workers[worker].free() > 0 {
            self.put(group, slot as usize, worker);
            self.groups[group].kept[slot as usize] = true;
        }
    }

    /// Places what has no place yet. Err: groups that together need more than all workers that fit any of them have.
    pub fn complete(&mut self) -> Result<(), Vec<usize>> {
        let count = |group: &Group| {
            group.fits.iter().zip(&self.workers).filter(|(fits, worker)| **fits && worker.room > 0).count()
        };
        // Those with the least choice first.
        let mut order: Vec<(usize, usize)> = self.groups.iter().map(count).zip(0..).collect();
        order.sort();
        let mut left = Vec::new();
        for (_, group) in order {
            for slot in 0..self.groups[group].at.len() {
                if self.groups[group].at[slot].is_some() {
                    continue;
                }
                match self.roomiest(group) {
                    Some(worker) => self.put(group, slot, worker),
                    None => left.push((group, slot)),
                }
            }
        }
        for movable in [Movable::New, Movable::All] {
            let mut still = Vec::new();
            for (group, slot) in left {
                match self.make_room(group, movable) {
                    Ok(worker) => self.put(group, slot, worker),
                    Err(short) if movable == Movable::All => return Err(short),
                    Err(_) => still.push((group, slot)),
                }
            }
            left = still;
        }
        Ok(())
    }

    /// (group, slot, worker) of each slot that has a place.
    pub fn placed(&self) -> impl Iterator<Item = (usize, u32, usize)> + '_ {
        let slots = |(g, group): (usize, &Group)| {
            let places = group.at.clone().into_iter().zip(0..);
            places.filter_map(move |(at, slot)| Some((g, slot, at?))).collect::<Vec<_>>()
        };
        self.groups.iter().enumerate().flat_map(slots)
    }

    fn put(&mut self, group: usize, slot: usize, worker: usize) {
        let from = self.groups[group].at[slot].replace(worker);
        if let Some(from) = from {
            self.workers[from].used -= 1;
        }
        self.workers[worker].used += 1;
        assert!(self.workers[worker].used <= self.workers[worker].room, "a slot goes only where there is room");
    }

    /// The worker with the largest share of its slots free, of equals the one with the fewest of this region.
    fn roomiest(&self, group: usize) -> Option<usize> {
        let open = (0..self.workers.len()).filter(|w| self.groups[group].fits[*w] && self.workers[*w].free() > 0);
        open.reduce(|best, other| {
            let (a, b) = (&self.workers[best], &self.workers[other]);
            let share = |worker: &Worker, of: &Worker| u64::from(worker.free()) * u64::from(of.slots);
            let better = (share(b, a), a.used) > (share(a, b), b.used);
            if better { other } else { best }
        })
    }

    /// Moves slots along the shortest chain so that a worker that fits the group has room. Err: the groups that such a
    /// chain could go through; all workers that fit one of them are full with their slots.
    fn make_room(&mut self, group: usize, movable: Movable) -> Result<usize, Vec<usize>> {
        // How the search came to a group: the group before it, which wants the worker that this one has a slot on.
        let mut from: Vec<Option<(usize, usize)>> = vec![None; self.groups.len()];
        let mut seen = BTreeSet::from([group]);
        let mut queue = VecDeque::from([group]);
        while let Some(here) = queue.pop_front() {
            if let Some(free) = self.roomiest(here) {
                return Ok(self.shift(here, free, &from, movable));
            }
            for worker in (0..self.workers.len()).filter(|w| self.groups[here].fits[*w]) {
                for (other, before) in from.iter_mut().enumerate() {
                    if !seen.contains(&other) && self.movable(other, worker, movable).is_some() {
                        seen.insert(other);
                        *before = Some((here, worker));
                        queue.push_back(other);
                    }
                }
            }
        }
        Err(seen.into_iter().collect())
    }

    /// Walks a chain back to its start: each group on it gives up a slot's place for one that has become free. Returns the
    /// place that is free at the start.
    fn shift(&mut self, end: usize, free: usize, from: &[Option<(usize, usize)>], movable: Movable) -> usize {
        let (mut here, mut free) = (end, free);
        while let Some((before, worker)) = from[here] {
            let slot =
                self.movable(here, worker, movable).expect("the search came by it, and a chain visits a group once");
            self.put(here, slot, free);
            self.groups[here].kept[slot] = false;
            (here, free) = (before, worker);
        }
        free
    }

    /// A slot of the group on the worker that may go elsewhere: the last one, new ones before those that run.
    fn movable(&self, group: usize, worker: usize, movable: Movable) -> Option<usize> {
        let Group { at, kept, .. } = &self.groups[group];
        let mut there = (0..at.len()).rev().filter(|slot| at[*slot] == Some(worker));
        there.clone().find(|slot| !kept[*slot]).or_else(|| there.find(|_| movable == Movable::All))
    }
}
