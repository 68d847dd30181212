//! The coordinator's process: the real rules over a log whose entries become durable late and in order. A crash loses what
//! was not durable, or was durable and not yet known to be.

use super::net::worker_number;
use super::store::Answered;
use super::world::{Event, HEARTBEAT_MS, TIMEOUT_MS, World};
use crate::note;
use ef_coordinator::leader::rules::{self, Config, Core, Effect, ProposalId, RequestId};
use ef_coordinator::leader::{Request, SessionId};
use ef_coordinator::meta::{Command, Meta};
use ef_proto::ids::{Epoch, JobId};
use ef_proto::rpc::{self, Order, OrderBody, Report};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub enum ToCoordinator {
    Tick,
    /// The disk has written some entries.
    Written,
    Applied {
        id: ProposalId,
        command: Box<Command>,
    },
    Lead,
    Report {
        link: u64,
        report: Box<Report>,
    },
    Down {
        link: u64,
    },
    Answer {
        work: u64,
        answered: Answered,
    },
    /// What ran beside the loop has come to its end.
    Done(Box<rules::Event>),
    Ask {
        id: RequestId,
        request: Box<Request>,
    },
}

#[derive(Default)]
pub struct Coordinator {
    pub up: bool,
    pub life: u64,
    pub frozen: bool,
    pub stash: VecDeque<Event>,
    core: Option<Core>,
    term: u64,
    /// Durable, whoever knows it.
    log: Vec<Command>,
    /// What the log says.
    truth: Meta,
    /// Up to an entry.
    snapshot: Option<(usize, Vec<u8>)>,
    proposed: VecDeque<(ProposalId, Command)>,
    writing: bool,
    applied_ms: u64,
    pub works: BTreeMap<u64, super::work::Work>,
    pub sweeping: BTreeSet<JobId>,
    /// The highest epoch triggered of each job, and by which life.
    triggered: BTreeMap<JobId, (Epoch, u64)>,
}

impl Coordinator {
    pub fn truth(&self) -> &Meta {
        &self.truth
    }

    /// What it knows itself, if it has applied all that is durable.
    pub fn knows(&self) -> Option<&Meta> {
        self.core.as_ref().map(Core::meta)
    }
}

impl World {
    pub fn start_coordinator(&mut self) {
        let config = Config {
            heartbeat_interval_ms: HEARTBEAT_MS,
            heartbeat_timeout_ms: TIMEOUT_MS,
            state: "state".into(),
            skip_fence: self.options.bugs.skip_fence,
            reuse_epoch: self.options.bugs.reuse_epoch,
        };
        let (now, seed) = (self.now, self.seed());
        let from_snapshot = self.chance(0.5);
        let coordinator = &mut self.coordinator;
        coordinator.life += 1;
        coordinator.term += 1;
        (coordinator.up, coordinator.frozen) = (true, false);
        let mut core = Core::new(config, SmallRng::seed_from_u64(seed), now);
        let mut from = 0;
        let mut silent = true;
        if let (true, Some((upto, bytes))) = (from_snapshot, &coordinator.snapshot) {
            from = *upto;
            let meta = Meta::decode(bytes).expect("encoded by the same");
            silent &= core.step(rules::Event::Restored(Box::new(meta)), now).is_empty();
        }
        for command in &coordinator.log[from..] {
            let event = rules::Event::Applied { id: ProposalId(0), command: command.clone() };
            silent &= core.step(event, now).is_empty();
        }
        let same = core.meta() == &coordinator.truth;
        coordinator.core = Some(core);
        note!(self, "the coordinator starts, term {}", self.coordinator.term);
        if !(silent && same) {
            self.fail("a replay has effects, or gives another state");
        }
        let after = self.between(20, 400);
        self.tell_coordinator(after, ToCoordinator::Lead);
        self.tell_coordinator(1, ToCoordinator::Tick);
    }

    pub fn kill_coordinator(&mut self) {
        note!(self, "the coordinator is killed");
        // Some entries had reached the disk, and nobody was told.
        let written = self.coordinator.proposed.len() as u64;
        let written = self.between(0, written);
        for _ in 0..written {
            self.write_one();
        }
        if self.options.bugs.lying_log {
            let lost = self.between(0, 3) as usize;
            let kept = self.coordinator.log.len().saturating_sub(lost);
            self.coordinator.log.truncate(kept);
            self.coordinator.snapshot = None;
            self.coordinator.truth = Meta::default();
            for command in self.coordinator.log.clone() {
                self.coordinator.truth.apply(command);
            }
        }
        let coordinator = &mut self.coordinator;
        coordinator.life += 1;
        (coordinator.up, coordinator.frozen, coordinator.writing) = (false, false, false);
        coordinator.core = None;
        coordinator.proposed.clear();
        coordinator.stash.clear();
        coordinator.works.clear();
        coordinator.sweeping.clear();
        coordinator.applied_ms = 0;
        let links: Vec<u64> = self.links.iter().filter(|(_, link)| !link.cut).map(|(id, _)| *id).collect();
        let quick = self.chance(0.8);
        links.into_iter().for_each(|link| self.cut_link(link, quick));
    }

    pub fn thaw_coordinator(&mut self) {
        if !std::mem::replace(&mut self.coordinator.frozen, false) {
            return;
        }
        note!(self, "the coordinator goes on");
        for event in std::mem::take(&mut self.coordinator.stash) {
            self.handle(event);
        }
    }

    pub fn coordinator_hears(&mut self, what: ToCoordinator) {
        match what {
            ToCoordinator::Tick => {
                self.step_core(rules::Event::Tick);
                let every = self.weather.tick_ms;
                self.tell_coordinator(every, ToCoordinator::Tick);
            }
            ToCoordinator::Written => {
                self.coordinator.writing = false;
                let waiting = self.coordinator.proposed.len() as u64;
                let written = self.between(1, waiting);
                for _ in 0..written {
                    let Some((id, command)) = self.write_one() else { break };
                    let delay = self.weather.log_ms / 2;
                    let at = self.now + self.between(0, delay);
                    self.coordinator.applied_ms = self.coordinator.applied_ms.max(at);
                    let after = self.coordinator.applied_ms - self.now;
                    self.tell_coordinator(after, ToCoordinator::Applied { id, command: Box::new(command) });
                }
                self.write_soon();
            }
            ToCoordinator::Applied { id, command } => {
                self.step_core(rules::Event::Applied { id, command: *command });
            }
            ToCoordinator::Lead => {
                let term = self.coordinator.term;
                self.step_core(rules::Event::Leader { term });
            }
            ToCoordinator::Report { link, report } => self.hears_report(link, *report),
            ToCoordinator::Down { link } => {
                let Some(found) = self.links.get_mut(&link) else { return };
                found.open = false;
                if found.greeted && !std::mem::replace(&mut found.ended, true) {
                    let worker = self.workers[found.worker].id.clone();
                    self.step_core(rules::Event::Disconnected { worker, session: SessionId(link) });
                }
            }
            ToCoordinator::Answer { work, answered } => self.work(work, answered),
            ToCoordinator::Done(event) => self.step_core(*event),
            ToCoordinator::Ask { id, request } => {
                self.step_core(rules::Event::Request { id, request: *request });
            }
        }
    }

    fn hears_report(&mut self, id: u64, report: Report) {
        let Some(link) = self.links.get_mut(&id).filter(|link| !link.cut) else { return };
        let (session, worker) = (SessionId(id), link.worker);
        match report {
            Report::Hello(hello) => {
                (link.open, link.greeted) = (true, true);
                self.step_core(rules::Event::Connected { session, hello });
            }
            report if link.open => {
                let worker = self.workers[worker].id.clone();
                self.step_core(rules::Event::Report { worker, session, report });
            }
            _ => {}
        }
    }

    fn write_soon(&mut self) {
        if self.coordinator.writing || self.coordinator.proposed.is_empty() {
            return;
        }
        self.coordinator.writing = true;
        let (usual, stalls) = (self.weather.log_ms, self.weather.log_stalls);
        let after = if self.chance(stalls) { self.between(100, 1_500) } else { self.between(1, usual) };
        self.tell_coordinator(after, ToCoordinator::Written);
    }

    /// The next entry is durable.
    fn write_one(&mut self) -> Option<(ProposalId, Command)> {
        let (id, command) = self.coordinator.proposed.pop_front()?;
        let command = if self.chance(0.1) {
            let json = serde_json::to_vec(&command).expect("plain data");
            serde_json::from_slice(&json).expect("reads back")
        } else {
            command
        };
        note!(self, "log: {}", shown(&command));
        self.coordinator.log.push(command.clone());
        self.coordinator.truth.apply(command.clone());
        if self.chance(0.03) {
            let coordinator = &mut self.coordinator;
            coordinator.snapshot = Some((coordinator.log.len(), coordinator.truth.encode()));
        }
        self.check_applied(&command);
        Some((id, command))
    }

    pub fn step_core(&mut self, event: rules::Event) {
        let now = self.now;
        let Some(core) = self.coordinator.core.as_mut() else { return };
        for effect in core.step(event, now) {
            self.execute(effect);
        }
    }

    fn execute(&mut self, effect: Effect) {
        match effect {
            Effect::Propose { id, command } => {
                self.coordinator.proposed.push_back((id, command));
                self.write_soon();
            }
            Effect::Send { session, order, .. } => {
                self.check_order(&order);
                self.send_order(session, order);
            }
            Effect::Close { session } => self.close_link(session),
            Effect::Reply { id, result } => self.replied(id, result),
            Effect::Put { .. }
            | Effect::Load { .. }
            | Effect::Sweep { .. }
            | Effect::Copy { .. }
            | Effect::Plan { .. }
            | Effect::Replan { .. } => self.begin_work(effect),
            // People of the simulator do not ask for these.
            Effect::Dispose { .. } | Effect::Explain { .. } | Effect::Describe { .. } => {}
        }
    }

    /// Epochs are given out once, by one leader, in ascending order.
    fn check_order(&mut self, order: &Order) {
        let OrderBody::Command { deployment, command: rpc::Command::Trigger { epoch } } = &order.body else { return };
        if self.options.outside_only {
            return;
        }
        let job = &deployment.job;
        let reserved = self.coordinator.truth.jobs.get(job).map(|job| job.reserved);
        let life = self.coordinator.life;
        let (last, by) = self.coordinator.triggered.entry(job.clone()).or_insert((*epoch, life));
        let again = epoch < last || (epoch == last && *by != life);
        (*last, *by) = (*epoch, life);
        if again {
            self.fail(format!("epoch {epoch} of {job} is given out a second time"));
        }
        if reserved.is_some_and(|reserved| reserved < *epoch) {
            self.fail(format!("epoch {epoch} of {job} is given out before it is reserved"));
        }
    }

    /// Whether the order to this worker could be carried out at all; for messages.
    pub fn describe_jobs(&self) -> String {
        let shown = self.coordinator.truth.jobs.values().filter(|job| !job.state.has_ended()).map(|job| {
            let regions: Vec<String> = job
                .regions
                .iter()
                .map(|(region, deployed)| {
                    let on: Vec<usize> = deployed.slots.keys().map(worker_number).collect();
                    format!("{region}#{} on {on:?}", deployed.incarnation)
                })
                .collect();
            format!("{} {} ({}) {}", job.id, job.state.name(), job.reason, regions.join(", "))
        });
        let shown: Vec<String> = shown.collect();
        shown.join("; ")
    }
}

fn shown(command: &Command) -> String {
    match command {
        Command::Submit(submitted) => format!("submit {}", submitted.job),
        Command::Deploy { job, regions, restore, .. } => {
            let regions: Vec<String> = regions.iter().map(|(r, d)| format!("{r}#{}", d.incarnation)).collect();
            format!("deploy {job} {} from {restore:?}", regions.join(", "))
        }
        Command::Rescale { job, regions, message, .. } => format!("rescale {job} {regions:?}: {message}"),
        command => format!("{command:?}"),
    }
}
