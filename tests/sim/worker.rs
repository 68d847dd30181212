//! A worker's process: the real session machine, and simulated agents behind it. Keeps on its disk the term it has seen.

use super::agent::{Agent, ToAgent};
use super::net;
use super::task::Frame;
use super::world::{Event, HEARTBEAT_MS, World};
use crate::note;
use ef_proto::ids::{DeploymentId, WorkerId};
use ef_proto::place::Tier;
use ef_proto::rpc::{self, Hello, Load, Order, Report};
use ef_worker::agent::rules::{Action, Event as Step, Session};
use std::collections::{BTreeMap, VecDeque};

pub enum ToWorker {
    Dial,
    Order {
        link: u64,
        order: Box<Order>,
    },
    Down {
        link: u64,
    },
    /// The stream has room for some reports.
    Pull {
        link: u64,
    },
    Heartbeat {
        link: u64,
    },
    /// Session's tick.
    Wake,
    Frame {
        wire: u64,
        frame: Frame,
    },
    /// A channel to a deployment here has broken.
    Broken {
        deployment: DeploymentId,
        peer: usize,
    },
}

pub struct Worker {
    pub id: WorkerId,
    pub slots: u32,
    pub up: bool,
    pub boot: u64,
    pub frozen: bool,
    pub stash: VecDeque<Event>,
    /// Events of its tasks take so much longer.
    pub slowness: u64,
    disk_term: u64,
    pub session: Session,
    pub link: Option<u64>,
    pulling: bool,
    backoff_ms: u64,
    pub agents: BTreeMap<u64, Agent>,
    pub numbers: BTreeMap<DeploymentId, u64>,
    woken_at: Option<u64>,
}

impl Worker {
    pub fn new(number: usize, slots: u32) -> Worker {
        let id = WorkerId(format!("w{number}"));
        Worker {
            session: Session::new(hello(&id, number, 0, slots, 0)),
            id,
            slots,
            up: false,
            boot: 0,
            frozen: false,
            stash: VecDeque::new(),
            slowness: 1,
            disk_term: 0,
            link: None,
            pulling: false,
            backoff_ms: 50,
            agents: BTreeMap::new(),
            numbers: BTreeMap::new(),
            woken_at: None,
        }
    }

    /// The agent of a deployment, if its gates are there.
    pub fn agent_of(&self, deployment: &DeploymentId) -> Option<u64> {
        let number = self.numbers.get(deployment)?;
        self.agents.get(number).filter(|agent| !agent.is_leaving()).map(|_| *number)
    }

    /// What it holds, as it would say now.
    pub fn held(&self) -> Vec<DeploymentId> {
        let mut session = self.session.clone();
        session.step(Step::Connected, 0);
        match session.pull() {
            Some(Report::Hello(hello)) => hello.deployments.into_iter().map(|held| held.deployment).collect(),
            other => unreachable!("the first report is a Hello, not {other:?}"),
        }
    }
}

fn hello(id: &WorkerId, number: usize, boot: u64, slots: u32, term: u64) -> Hello {
    Hello {
        worker: id.clone(),
        boot,
        version: "0".into(),
        tier: Tier::Cloud,
        site: "here".into(),
        labels: BTreeMap::new(),
        slots,
        memory_bytes: 1 << 30,
        data_address: net::address(number, boot),
        term,
        deployments: Vec::new(),
    }
}

impl World {
    pub fn start_worker(&mut self, worker: usize) {
        let process = &mut self.workers[worker];
        process.boot += 1;
        let (boot, slots, term) = (process.boot, process.slots, process.disk_term);
        process.session = Session::new(hello(&process.id.clone(), worker, boot, slots, term));
        (process.up, process.frozen, process.link, process.pulling) = (true, false, None, false);
        (process.backoff_ms, process.woken_at) = (50, None);
        note!(self, "w{worker} starts, boot {boot}");
        let after = self.between(1, 300);
        self.tell_worker(worker, after, ToWorker::Dial);
    }

    /// kill -9: all that it ran is lost.
    pub fn kill_worker(&mut self, worker: usize) {
        note!(self, "w{worker} is killed");
        for link in self.links_of(worker) {
            self.cut_link(link, true);
        }
        let within = if self.chance(0.8) { 300 } else { 6_000 };
        for wire in self.wires_of(worker, None) {
            self.cut_wire(wire, within);
        }
        let process = &mut self.workers[worker];
        process.up = false;
        process.boot += 1; // nothing that was meant for it reaches the next one
        process.stash.clear();
        process.agents.clear();
        process.numbers.clear();
        self.wires.retain(|_, wire| wire.from.0 != worker);
    }

    /// A frozen worker goes on: all that has come meanwhile comes now.
    pub fn thaw_worker(&mut self, worker: usize) {
        let process = &mut self.workers[worker];
        if !std::mem::replace(&mut process.frozen, false) {
            return;
        }
        note!(self, "w{worker} goes on");
        for event in std::mem::take(&mut self.workers[worker].stash) {
            self.handle(event);
        }
    }

    pub fn worker_hears(&mut self, worker: usize, what: ToWorker) {
        match what {
            ToWorker::Dial => self.dial(worker),
            ToWorker::Order { link, order } => {
                if self.workers[worker].link == Some(link) && self.links.get(&link).is_some_and(|link| !link.cut) {
                    note!(self, "w{worker} <- {}", words(&order));
                    self.step_session(worker, Step::Order(*order));
                }
            }
            ToWorker::Down { link } => {
                if self.workers[worker].link == Some(link) {
                    self.stream_ends(worker);
                    self.step_session(worker, Step::Disconnected);
                }
            }
            ToWorker::Pull { link } => self.pull(worker, link),
            ToWorker::Heartbeat { link } => {
                if self.workers[worker].link == Some(link) {
                    self.send_report(link, Report::Heartbeat(Load::default()));
                    self.tell_worker(worker, HEARTBEAT_MS, ToWorker::Heartbeat { link });
                }
            }
            ToWorker::Wake => {
                self.workers[worker].woken_at = None;
                self.step_session(worker, Step::Tick);
            }
            ToWorker::Frame { wire, frame } => {
                let Some(found) = self.wires.get(&wire).filter(|wire| !wire.cut) else { return };
                let (task, channel) = (found.task, found.channel);
                if let Some(agent) = self.workers[worker].agent_of(&found.deployment) {
                    self.agent_hears(worker, agent, ToAgent::Frame { task, channel, frame });
                }
            }
            ToWorker::Broken { deployment, peer } => {
                if let Some(agent) = self.workers[worker].agent_of(&deployment) {
                    self.agent_hears(worker, agent, ToAgent::Broken { peer });
                }
            }
        }
    }

    fn dial(&mut self, worker: usize) {
        if self.workers[worker].link.is_some() {
            return;
        }
        match self.open_link(worker) {
            Some(link) => {
                self.workers[worker].link = Some(link);
                self.step_session(worker, Step::Connected);
            }
            None => self.dial_again(worker),
        }
    }

    fn dial_again(&mut self, worker: usize) {
        let backoff = self.workers[worker].backoff_ms;
        self.workers[worker].backoff_ms = (backoff * 2).min(2_000);
        let after = self.between(backoff / 2, backoff);
        self.tell_worker(worker, after, ToWorker::Dial);
    }

    fn stream_ends(&mut self, worker: usize) {
        (self.workers[worker].link, self.workers[worker].pulling) = (None, false);
        self.dial_again(worker);
    }

    fn pull(&mut self, worker: usize, link: u64) {
        if self.workers[worker].link != Some(link) {
            return;
        }
        self.workers[worker].pulling = false;
        let room = self.between(1, 8);
        for _ in 0..room {
            let Some(report) = self.workers[worker].session.pull() else { break };
            note!(self, "w{worker} -> {}", said(&report));
            self.send_report(link, report);
        }
        self.pull_soon(worker);
    }

    fn pull_soon(&mut self, worker: usize) {
        let process = &self.workers[worker];
        let Some(link) = process.link.filter(|_| !process.pulling && process.session.has_reports()) else { return };
        self.workers[worker].pulling = true;
        // A stream that is full takes nothing for a while.
        let stuck = self.weather.stuck;
        let after = if self.chance(stuck) { self.between(100, 1_500) } else { self.between(0, 5) };
        self.tell_worker(worker, after, ToWorker::Pull { link });
    }

    /// Steps the session and executes what it says, as the worker's host does.
    pub fn step_session(&mut self, worker: usize, event: Step) {
        let now = self.now;
        let mut actions = VecDeque::from(self.workers[worker].session.step(event, now));
        while let Some(action) = actions.pop_front() {
            let consequence = match action {
                Action::KeepTerm(term) => {
                    if self.calm_at_ms.is_none() && self.chance(0.01) {
                        self.stream_hung_up(worker);
                        Some(Step::Disconnected)
                    } else {
                        self.workers[worker].disk_term = term;
                        Some(Step::TermKept)
                    }
                }
                Action::Welcomed { .. } => {
                    self.workers[worker].backoff_ms = 50;
                    let link = self.workers[worker].link.expect("a Welcome comes on a stream");
                    self.tell_worker(worker, 0, ToWorker::Heartbeat { link });
                    None
                }
                Action::Hangup(why) => {
                    note!(self, "w{worker} hangs up: {why}");
                    self.stream_hung_up(worker);
                    Some(Step::Disconnected)
                }
                Action::StartAgent { deployment, deploy } => {
                    self.start_agent(worker, deployment, *deploy);
                    None
                }
                Action::Command { deployment, command } => {
                    self.command_agent(worker, &deployment, command);
                    None
                }
                Action::DropAgent(deployment) => {
                    let process = &mut self.workers[worker];
                    if let Some(number) = process.numbers.remove(&deployment) {
                        process.agents.remove(&number);
                    }
                    None
                }
                Action::Warn { message, .. } => {
                    note!(self, "w{worker} warns: {message}");
                    None
                }
            };
            if let Some(event) = consequence {
                actions.extend(self.workers[worker].session.step(event, now));
            }
        }
        self.pull_soon(worker);
        let process = &mut self.workers[worker];
        if let Some(at) = process.session.wake_at()
            && process.woken_at.is_none_or(|known| at < known)
        {
            process.woken_at = Some(at);
            self.tell_worker(worker, at.saturating_sub(now), ToWorker::Wake);
        }
    }

    fn stream_hung_up(&mut self, worker: usize) {
        if let Some(link) = self.workers[worker].link {
            self.hang_up(link);
        }
        self.stream_ends(worker);
    }
}

fn words(order: &Order) -> String {
    match &order.body {
        rpc::OrderBody::Welcome { .. } => format!("term {}: welcome", order.term),
        rpc::OrderBody::Refused(error) => format!("term {}: refused: {error}", order.term),
        rpc::OrderBody::Command { deployment, command } => match command {
            rpc::Command::Deploy(deploy) => {
                let from = deploy.restore.as_ref().map(|manifest| manifest.epoch.0);
                format!("term {}: deploy {deployment} from {from:?}", order.term)
            }
            command => format!("term {}: {command:?} {deployment}", order.term),
        },
    }
}

fn said(report: &Report) -> String {
    match report {
        Report::Hello(hello) => format!("hello, boot {}, {:?}", hello.boot, hello.deployments),
        Report::Heartbeat(_) => "heartbeat".into(),
        Report::Event { deployment, event: rpc::Event::Acked { epoch, subtask, state } } => {
            format!("acked {epoch} {subtask}, {} files, of {deployment}", state.keyed.len())
        }
        Report::Event { deployment, event } => format!("{event:?} of {deployment}"),
        Report::Log { .. } => "log".into(),
    }
}
