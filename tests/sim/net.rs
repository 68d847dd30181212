//! The network: control streams between workers and the coordinator, channels between workers. In order, late, and broken
//! at any moment, which the two ends notice at different times; some only by hearing nothing.

use super::agent::ToAgent;
use super::coordinator::ToCoordinator;
use super::task::Frame;
use super::worker::ToWorker;
use super::world::World;
use crate::note;
use ef_coordinator::leader::SessionId;
use ef_proto::ids::{DeploymentId, SubtaskId, WorkerId};
use ef_proto::rpc::{Order, Report};
use std::collections::VecDeque;

/// The coordinator's number among the places that the network connects.
pub const COORDINATOR: usize = usize::MAX;

/// A sender waits so long for the other worker's tasks.
const CONNECT_MS: u64 = 6_000;

/// One control stream, from a worker's dial to its end.
pub struct Link {
    pub worker: usize,
    /// The coordinator has heard its Hello, and not yet of its end.
    pub open: bool,
    pub greeted: bool,
    /// The coordinator has heard of its end.
    pub ended: bool,
    /// Nothing passes any more, whatever its ends know.
    pub cut: bool,
    to_coordinator_ms: u64,
    to_worker_ms: u64,
}

/// One channel from a task to a task on another worker.
pub struct Wire {
    pub from: (usize, u64, u64),
    pub to: usize,
    /// The process that the sender was told of.
    to_boot: u64,
    pub deployment: DeploymentId,
    pub task: SubtaskId,
    pub channel: usize,
    connected: bool,
    pub cut: bool,
    waiting: VecDeque<Frame>,
    arrives_ms: u64,
    since_ms: u64,
}

impl World {
    pub fn reaches(&self, a: usize, b: usize) -> bool {
        !self.partitions.contains(&(a.min(b), a.max(b)))
    }

    /// A worker opens a stream; None: nobody answers.
    pub fn open_link(&mut self, worker: usize) -> Option<u64> {
        if !self.coordinator.up || !self.reaches(worker, COORDINATOR) {
            return None;
        }
        let id = self.number();
        let link = Link {
            worker,
            open: false,
            greeted: false,
            ended: false,
            cut: false,
            to_coordinator_ms: 0,
            to_worker_ms: 0,
        };
        self.links.insert(id, link);
        Some(id)
    }

    pub fn send_report(&mut self, id: u64, report: Report) {
        let delay = self.weather.message_ms;
        let at = self.now + self.between(1, delay);
        let Some(link) = self.links.get_mut(&id).filter(|link| !link.cut) else { return };
        link.to_coordinator_ms = link.to_coordinator_ms.max(at);
        let after = link.to_coordinator_ms - self.now;
        self.tell_coordinator(after, ToCoordinator::Report { link: id, report: Box::new(report) });
    }

    pub fn send_order(&mut self, session: SessionId, order: Order) {
        let delay = self.weather.message_ms;
        let at = self.now + self.between(1, delay);
        let Some(link) = self.links.get_mut(&session.0).filter(|link| link.open && !link.cut) else { return };
        link.to_worker_ms = link.to_worker_ms.max(at);
        let (worker, after) = (link.worker, link.to_worker_ms - self.now);
        self.tell_worker(worker, after, ToWorker::Order { link: session.0, order: Box::new(order) });
    }

    /// The coordinator wants no more of it: what was sent before still arrives.
    pub fn close_link(&mut self, session: SessionId) {
        let Some(link) = self.links.get_mut(&session.0) else { return };
        link.open = false;
        let (worker, cut, at) = (link.worker, link.cut, link.to_worker_ms.max(self.now));
        if !cut {
            self.tell_worker(worker, at - self.now + 1, ToWorker::Down { link: session.0 });
            self.tell_coordinator(1, ToCoordinator::Down { link: session.0 });
        }
    }

    /// It breaks. `quick`: both processes' kernels say so.
    pub fn cut_link(&mut self, id: u64, quick: bool) {
        let Some(link) = self.links.get_mut(&id).filter(|link| !link.cut) else { return };
        link.cut = true;
        let worker = link.worker;
        note!(self, "stream {id} of w{worker} is cut");
        let slow = |world: &mut World| if quick { 200 } else { world.between(100, 6_000) };
        let (first, second) = (slow(self), slow(self));
        let first = self.between(1, first);
        self.tell_worker(worker, first, ToWorker::Down { link: id });
        if !self.chance(0.2) {
            let second = self.between(1, second);
            self.tell_coordinator(second, ToCoordinator::Down { link: id });
        }
    }

    /// The worker ends it.
    pub fn hang_up(&mut self, id: u64) {
        if let Some(link) = self.links.get_mut(&id).filter(|link| !link.cut) {
            link.cut = true;
            self.tell_coordinator(5, ToCoordinator::Down { link: id });
        }
    }

    pub fn links_of(&self, worker: usize) -> Vec<u64> {
        self.links.iter().filter(|(_, link)| link.worker == worker && !link.cut).map(|(id, _)| *id).collect()
    }

    /// From a task to one on another worker, which may not be there yet. `address` is the other worker's.
    pub fn open_wire(
        &mut self,
        (worker, agent): (usize, u64),
        address: &str,
        deployment: &DeploymentId,
        task: SubtaskId,
        channel: usize,
    ) -> u64 {
        let (to, to_boot) = parse_address(address);
        let id = self.number();
        let wire = Wire {
            from: (worker, self.workers[worker].boot, agent),
            to,
            to_boot,
            deployment: deployment.clone(),
            task,
            channel,
            connected: false,
            cut: false,
            waiting: VecDeque::new(),
            arrives_ms: 0,
            since_ms: self.now,
        };
        self.wires.insert(id, wire);
        let after = self.between(0, 5);
        self.tell_agent(worker, agent, after, ToAgent::Connect { wire: id });
        id
    }

    /// The sender tries to find the receiving task.
    pub fn connect(&mut self, id: u64) {
        let Some(wire) = self.wires.get(&id).filter(|wire| !wire.cut) else { return };
        let (worker, _, agent) = wire.from;
        let to = &self.workers[wire.to];
        let there = to.up && to.boot == wire.to_boot && self.reaches(worker, wire.to);
        let gate = there.then(|| to.agent_of(&wire.deployment)).flatten();
        if gate.is_some() {
            let wire = self.wires.get_mut(&id).expect("just found");
            wire.connected = true;
            let waiting = std::mem::take(&mut wire.waiting);
            waiting.into_iter().for_each(|frame| self.send_frame(id, frame));
            return;
        }
        let gone = to.up && to.boot != wire.to_boot;
        let name = format!("{} of w{}", wire.deployment, wire.to);
        if gone || self.now > wire.since_ms + CONNECT_MS {
            return self.fail_agent(worker, agent, format!("cannot reach the tasks of {name}"));
        }
        let after = self.between(10, 120);
        self.tell_agent(worker, agent, after, ToAgent::Connect { wire: id });
    }

    pub fn send_frame(&mut self, id: u64, frame: Frame) {
        let delay = self.weather.frame_ms;
        let at = self.now + self.between(0, delay);
        let Some(wire) = self.wires.get_mut(&id).filter(|wire| !wire.cut) else { return };
        if !wire.connected {
            return wire.waiting.push_back(frame);
        }
        wire.arrives_ms = wire.arrives_ms.max(at);
        let (worker, boot, after) = (wire.to, wire.to_boot, wire.arrives_ms - self.now);
        // To the process; which agent it is for is found when it arrives.
        let event = super::world::Event::Worker { worker, boot, what: ToWorker::Frame { wire: id, frame } };
        self.later(after, event);
    }

    /// A channel breaks: both tasks fail, each in its own time, if they are still there.
    pub fn cut_wire(&mut self, id: u64, within_ms: u64) {
        let Some(wire) = self.wires.get_mut(&id).filter(|wire| !wire.cut) else { return };
        wire.cut = true;
        let (from, to, to_boot, deployment) = (wire.from, wire.to, wire.to_boot, wire.deployment.clone());
        let (first, second) = (self.between(1, within_ms), self.between(1, within_ms));
        let (worker, boot, agent) = from;
        let what = ToAgent::Broken { peer: to };
        self.later(first, super::world::Event::Agent { worker, boot, agent, what });
        let what = ToWorker::Broken { deployment, peer: worker };
        self.later(second, super::world::Event::Worker { worker: to, boot: to_boot, what });
    }

    /// The channels of an agent that has left in order: nobody fails for that.
    pub fn drop_wires(&mut self, worker: usize, agent: u64, deployment: &DeploymentId) {
        for wire in self.wires.values_mut() {
            let from_it = (wire.from.0, wire.from.2) == (worker, agent);
            wire.cut |= from_it || (wire.to == worker && wire.deployment == *deployment);
        }
        self.wires.retain(|_, wire| !wire.cut);
    }

    /// All channels from and to a worker, or between two.
    pub fn wires_of(&self, worker: usize, other: Option<usize>) -> Vec<u64> {
        let of = |wire: &Wire| {
            let (from, to) = (wire.from.0, wire.to);
            (from == worker && other.is_none_or(|other| to == other))
                || (to == worker && other.is_none_or(|other| from == other))
        };
        self.wires.iter().filter(|(_, wire)| of(wire)).map(|(id, _)| *id).collect()
    }
}

pub fn address(worker: usize, boot: u64) -> String {
    format!("{worker}:{boot}")
}

fn parse_address(address: &str) -> (usize, u64) {
    let (worker, boot) = address.split_once(':').expect("an address of ours");
    (worker.parse().expect("a number"), boot.parse().expect("a number"))
}

pub fn worker_number(id: &WorkerId) -> usize {
    id.0[1..].parse().expect("w and a number")
}
