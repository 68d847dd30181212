//! Workers as the leader sees them: who they are, whether they are there, what they carry.

use super::{Core, Effect};
use crate::leader::SessionId;
use crate::scheduler::WorkerView;
use ef_proto::error::{Code, Error};
use ef_proto::ids::{DeploymentId, JobId, WorkerId};
use ef_proto::rpc::{Command, Event, Held, Hello, Load, LogLine, OrderBody, Report};
use std::collections::{BTreeMap, VecDeque};

/// Log lines kept for `efctl logs`, of all workers together.
const LOG_LINES_MAX: usize = 20_000;

/// Between two ticks that are due many times a second.
const SLEEP_MS: u64 = 500;

/// A worker that has been lost for so long is forgotten.
const FORGET_MS: u64 = 24 * 3_600_000;

#[derive(Default)]
pub struct Workers {
    pub known: BTreeMap<WorkerId, Worker>,
    pub logs: VecDeque<(u64, WorkerId, LogLine)>,
    pub log_number: u64,
}

pub struct Worker {
    pub hello: Hello,
    /// Its stream; None between two of them.
    pub session: Option<SessionId>,
    /// When it last gave a sign of life.
    pub seen_ms: u64,
    /// Silent for longer than the time-out: its tasks have been given up.
    pub lost: bool,
    pub load: Load,
    pub loaded_ms: u64,
    /// Rows that its sources read per second, between the last two heartbeats.
    pub rows_in_per_second: u64,
}

impl Workers {
    pub fn session(&self, worker: &WorkerId) -> Option<SessionId> {
        self.known.get(worker)?.session
    }

    pub fn disconnected(&mut self, worker: &WorkerId, session: SessionId, now: u64) {
        if let Some(worker) = self.known.get_mut(worker)
            && worker.session == Some(session)
        {
            worker.session = None;
            worker.seen_ms = now; // the time-out counts from here: it may dial again
        }
    }

    /// A new leader starts with new streams.
    pub fn forget_sessions(&mut self, out: &mut Vec<Effect>) {
        for worker in self.known.values_mut() {
            out.extend(worker.session.take().map(|session| Effect::Close { session }));
        }
        self.known.clear();
    }

    fn log(&mut self, worker: &WorkerId, lines: Vec<LogLine>, lost: u64) {
        let at_ms = lines.last().map_or(0, |line| line.at_ms);
        let gap = (lost > 0).then(|| LogLine {
            at_ms,
            level: "WARN".into(),
            job: None,
            message: format!("{lost} lines did not fit into the worker's buffer"),
        });
        for line in lines.into_iter().chain(gap) {
            self.log_number += 1;
            if self.logs.len() == LOG_LINES_MAX {
                self.logs.pop_front();
            }
            self.logs.push_back((self.log_number, worker.clone(), line));
        }
    }
}

impl Core {
    /// What the scheduler may place on. `free_of`: regions of this job count as gone.
    pub(super) fn worker_views(&self, free_of: Option<(&JobId, &[u32])>) -> Vec<WorkerView> {
        let mut taken: BTreeMap<&WorkerId, u32> = BTreeMap::new();
        for job in self.meta.jobs.values().filter(|job| !job.state.has_ended()) {
            for (region, deployed) in &job.regions {
                if free_of.is_some_and(|(id, regions)| *id == job.id && regions.contains(region)) {
                    continue;
                }
                for (worker, slots) in &deployed.slots {
                    *taken.entry(worker).or_default() += slots;
                }
            }
        }
        for (worker, slots) in self.runs.values().filter_map(|run| run.deploying.as_ref()).flatten() {
            *taken.entry(worker).or_default() += slots;
        }
        let there = self.workers.known.iter().filter(|(_, worker)| worker.session.is_some());
        let view = |(id, worker): (&WorkerId, &Worker)| WorkerView {
            id: id.clone(),
            tier: worker.hello.tier,
            site: worker.hello.site.clone(),
            labels: worker.hello.labels.clone(),
            slots: worker.hello.slots,
            taken: taken.get(id).copied().unwrap_or(0),
            cordoned: self.meta.cordoned.contains(id),
        };
        there.map(view).collect()
    }

    pub(super) fn connected(&mut self, session: SessionId, hello: Hello, now: u64) {
        let id = hello.worker.clone();
        let Some(term) = self.term else { return };
        if let Some(worker) = self.workers.known.get_mut(&id)
            && let Some(old) = worker.session
        {
            if worker.hello.boot != hello.boot
                && !worker.lost
                && now < worker.seen_ms + self.config.heartbeat_timeout_ms
            {
                let message = format!("another worker with the id `{id}` is connected; each needs an id of its own");
                let body = OrderBody::Refused(Error::new(Code::Conflict, message));
                let order = ef_proto::rpc::Order { term, body };
                self.out.push(Effect::Send { worker: id, session, order });
                self.out.push(Effect::Close { session });
                return;
            }
            // The same process on a new stream: the old one is dead, and nobody has told us yet.
            self.out.push(Effect::Close { session: old });
        }
        let held = hello.deployments.clone();
        let boot = hello.boot;
        let (load, rows_in_per_second) = (Load::default(), 0);
        let worker = Worker {
            hello,
            session: Some(session),
            seen_ms: now,
            lost: false,
            load,
            loaded_ms: now,
            rows_in_per_second,
        };
        self.workers.known.insert(id.clone(), worker);
        let welcome = OrderBody::Welcome {
            heartbeat_interval_ms: self.config.heartbeat_interval_ms,
            heartbeat_timeout_ms: self.config.heartbeat_timeout_ms,
        };
        self.send(&id, welcome);
        self.cancel_unwanted(&id, &held);
        let jobs: Vec<JobId> = self.runs.keys().cloned().collect();
        for job in jobs {
            self.reconcile(&job, &id, boot, &held, now);
        }
        self.schedule(now);
    }

    /// Tasks of jobs that have ended, or of deployments that another one has replaced.
    fn cancel_unwanted(&mut self, worker: &WorkerId, held: &[Held]) {
        for Held { deployment, .. } in held {
            // Also one that is leaving: what failed is held until it is cancelled.
            if !self.is_wanted(deployment, worker) {
                self.send(worker, OrderBody::Command { deployment: deployment.clone(), command: Command::Cancel });
            }
        }
    }

    fn is_wanted(&self, deployment: &DeploymentId, worker: &WorkerId) -> bool {
        let job = self.meta.jobs.get(&deployment.job).filter(|job| !job.state.has_ended());
        let deployed = job.and_then(|job| job.regions.get(&deployment.region));
        deployed.is_some_and(|deployed| {
            let current = deployed.incarnation == deployment.incarnation && deployed.slots.contains_key(worker);
            current || self.config.skip_fence
        })
    }

    pub(super) fn report(&mut self, worker: WorkerId, session: SessionId, report: Report, now: u64) {
        let Some(known) = self.workers.known.get_mut(&worker) else { return };
        if known.session != Some(session) {
            return; // of a stream that has been replaced
        }
        known.seen_ms = now;
        match report {
            // The stream has said it before.
            Report::Hello(_) => {}
            Report::Heartbeat(load) => self.heartbeat(&worker, load, now),
            Report::Log { lines, lost } => self.workers.log(&worker, lines, lost),
            Report::Event { deployment, event } => self.deployment_event(&worker, &deployment, event, now),
        }
    }

    fn heartbeat(&mut self, worker: &WorkerId, load: Load, now: u64) {
        let sources = self.source_operators();
        let Some(known) = self.workers.known.get_mut(worker) else { return };
        let rows = |load: &Load| -> u64 {
            load.subtasks.iter().filter(|s| sources.contains(&s.subtask.operator)).map(|s| s.rows_in).sum()
        };
        let elapsed = now.saturating_sub(known.loaded_ms).max(1);
        known.rows_in_per_second = rows(&load).saturating_sub(rows(&known.load)) * 1000 / elapsed;
        for subtask in &load.subtasks {
            if let Some(run) = self.runs.get_mut(&subtask.deployment.job)
                && run.counts(subtask)
            {
                run.loads.insert(subtask.subtask, subtask.clone());
            }
        }
        (known.load, known.loaded_ms) = (load, now);
    }

    /// Whoever slept (a stopped process, a machine without time for it) has not heard what was said meanwhile, and blames
    /// nobody for that: it is in the mailbox by now.
    pub(super) fn allow_for_sleep(&mut self, now: u64) {
        let slept = now.saturating_sub(self.ticked_ms);
        if self.ticked_ms > 0 && slept > SLEEP_MS {
            for worker in self.workers.known.values_mut() {
                worker.seen_ms = now.min(worker.seen_ms + slept);
            }
        }
        self.ticked_ms = now;
    }

    pub(super) fn lose_silent_workers(&mut self, now: u64) {
        let timeout = self.config.heartbeat_timeout_ms;
        let silent = |worker: &Worker| !worker.lost && now.saturating_sub(worker.seen_ms) >= timeout;
        let lost: Vec<WorkerId> =
            self.workers.known.iter().filter(|(_, worker)| silent(worker)).map(|(id, _)| id.clone()).collect();
        for id in lost {
            if let Some(worker) = self.workers.known.get_mut(&id) {
                worker.lost = true;
                self.out.extend(worker.session.take().map(|session| Effect::Close { session }));
            }
            self.worker_lost(&id, now);
        }
        self.workers.known.retain(|_, worker| !worker.lost || now.saturating_sub(worker.seen_ms) < FORGET_MS);
    }

    /// All regions with a task there start again.
    fn worker_lost(&mut self, worker: &WorkerId, now: u64) {
        let cause = format!("worker `{worker}` is lost: no heartbeat for {} ms", self.config.heartbeat_timeout_ms);
        for (job, region) in self.regions_on(worker) {
            self.region_failed(&job, region, cause.clone(), now);
        }
    }

    /// Regions that are deployed on a worker.
    pub(super) fn regions_on(&self, worker: &WorkerId) -> Vec<(JobId, u32)> {
        let jobs = self.meta.jobs.values().filter(|job| !job.state.has_ended());
        let on = |job: &crate::meta::Job| {
            let regions = job.regions.iter().filter(|(_, deployed)| deployed.slots.contains_key(worker));
            regions.map(|(region, _)| (job.id.clone(), *region)).collect::<Vec<_>>()
        };
        jobs.flat_map(on).collect()
    }

    fn deployment_event(&mut self, worker: &WorkerId, deployment: &DeploymentId, event: Event, now: u64) {
        let run = self.runs.get(&deployment.job).filter(|run| !run.ending);
        let region = run.and_then(|run| run.regions.get(deployment.region as usize));
        let current = region.is_some_and(|region| {
            region.deployment.as_ref() == Some(deployment) && region.workers.contains_key(worker)
        });
        // Its tasks go on in vain, or are on their way out already.
        let leaving = matches!(event, Event::Stopped | Event::Failed { .. });
        if !current && (leaving || !self.config.skip_fence) {
            if !leaving {
                self.send(worker, OrderBody::Command { deployment: deployment.clone(), command: Command::Cancel });
            }
            return;
        }
        self.current_event(worker, deployment, event, now);
    }
}
