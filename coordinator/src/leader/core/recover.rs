//! A job's regions: taken over from an earlier leader, reconciled with what workers say they hold, restarted when a task
//! or a worker is lost.

use super::Core;
use super::run::{Rates, Region, RegionPhase, Run, Standing, Sweep, sinks, subtasks};
use crate::meta::{Command, JobState, Stopping};
use ef_proto::checkpoint::Manifest;
use ef_proto::error::Error;
use ef_proto::ids::{DeploymentId, Epoch, JobId, SubtaskId, WorkerId};
use ef_proto::job_config::{JobConfig, Restarts};
use ef_proto::machine::checkpoint::{Checkpoints, Event as Step};
use ef_proto::plan::Plan;
use ef_proto::rpc::{self, Event, Held, OrderBody, Phase};
use rand::Rng;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Interval of checkpoints unless `SET 'execution.checkpointing.interval'` says otherwise.
const CHECKPOINT_INTERVAL_DEFAULT_MS: u64 = 10_000;

/// Of what a task says of its failure.
const CAUSE_CHARS_MAX: usize = 600;

/// How long to wait before a manifest that could not be read is read again.
const LOAD_AGAIN_MS: u64 = 1000;

impl Core {
    /// Takes a job under this leader's wing: after its submission, or when this process has just become leader.
    pub(super) fn adopt(&mut self, id: &JobId, now: u64) {
        let Some(job) = self.meta.jobs.get(id) else { return };
        let parsed = Plan::decode(&job.plan).map_err(|error| error.message).and_then(|plan| {
            let config = JobConfig::parse(&plan.config).map_err(|error| error.to_string())?;
            let checkpoints = config.checkpoints.config(Some(CHECKPOINT_INTERVAL_DEFAULT_MS));
            Ok((plan, checkpoints, Restarts::new(config.restart)))
        });
        let (plan, config, restarts) = match parsed {
            Ok(parsed) => parsed,
            // It was checked at the submission; a newer version has written it.
            Err(error) => {
                let reason = format!("its plan cannot be read: {error}");
                let state = JobState::Failed;
                self.propose(Command::State { job: id.clone(), at_ms: now, state, reason });
                return;
            }
        };
        let tasks = plan.tasks();
        // Workers dial again within seconds; for one that does not, the time-out of its heartbeat is up.
        let by_ms = now + self.config.heartbeat_timeout_ms;
        let regions = (0..tasks.regions).map(|number| match job.regions.get(&number) {
            Some(deployed) => Region::deployed(id, number, deployed, by_ms),
            None => Region::waiting(),
        });
        let regions: Vec<Region> = regions.collect();
        // Epochs that an earlier leader may have given out are never given out again.
        let newest = job.newest().map_or(Epoch(0), |record| record.epoch);
        let last = if self.config.reuse_epoch { newest } else { job.reserved.max(newest) };
        let machine = Checkpoints::new(config.clone(), subtasks(&plan, |_| true), sinks(&plan), Some(last));
        let machine = machine.retaining(job.checkpoints.iter().map(|record| record.epoch)).paused();
        let run = Run {
            tasks,
            config,
            machine,
            restarts,
            regions,
            plan: Arc::new(plan),
            manifest: None,
            loading: false,
            load_at_ms: 0,
            deploying: None,
            rescaling: false,
            proceeding: false,
            ending: false,
            said: String::new(),
            in_flight: None,
            reserving: job.reserved,
            held_trigger: None,
            savepoints: Vec::new(),
            pending_epoch: None,
            history: VecDeque::new(),
            failed: 0,
            loads: BTreeMap::new(),
            sweep: Sweep { wanted: newest > Epoch(0), ..Sweep::default() },
            rates: Rates::default(),
        };
        self.runs.insert(id.clone(), run);
        self.begin_pending(id, now);
    }

    /// A worker has said what it holds: what it lacks it is sent, or is lost.
    pub(super) fn reconcile(&mut self, job: &JobId, worker: &WorkerId, boot: u64, held: &[Held], now: u64) {
        let Some(run) = self.runs.get(job) else { return };
        let restarted = format!("worker `{worker}` no longer runs its tasks: it was restarted");
        let leaving = format!("tasks on worker `{worker}` are leaving");
        let mut lost = Vec::new();
        let mut again = Vec::new();
        let mut there = Vec::new();
        for (number, region) in (0..).zip(&run.regions) {
            let (Some(deployment), Some(standing)) = (&region.deployment, region.workers.get(worker)) else { continue };
            match held.iter().find(|held| held.deployment == *deployment).map(|held| held.phase) {
                Some(Phase::Starting | Phase::Running) => there.push((number, deployment.clone())),
                // Told to by an earlier leader, or failed while nobody led.
                Some(Phase::Leaving) => lost.push((number, &leaving)),
                None if standing.boot == Some(boot) && !standing.running => again.push(number),
                None => lost.push((number, &restarted)),
            }
        }
        for number in again {
            self.send_deploy(job, number, worker);
        }
        for (_, deployment) in there {
            self.catch_up(job, worker, &deployment);
        }
        for (number, cause) in lost {
            self.region_failed(job, number, cause.clone(), now);
        }
    }

    /// What a worker may have missed: the newest completed checkpoint, and that nothing else of before will complete.
    fn catch_up(&mut self, job: &JobId, worker: &WorkerId, deployment: &DeploymentId) {
        let Some(run) = self.runs.get(job) else { return };
        let newest = self.meta.jobs.get(job).and_then(|job| job.newest()).map(|record| record.epoch);
        let in_flight = run.machine.in_flight();
        let triggered = in_flight.filter(|epoch| run.held_trigger != Some(*epoch));
        // Below the one in flight, or of all that were ever given out.
        let given_up = match in_flight {
            Some(epoch) => Epoch(epoch.0 - 1),
            None => run.machine.last(),
        };
        let complete = newest.map(|epoch| rpc::Command::Complete { epoch });
        let abort = (given_up > newest.unwrap_or_default()).then_some(rpc::Command::Abort { epoch: given_up });
        let trigger = triggered.filter(|_| !run.machine.is_publishing()).map(|epoch| rpc::Command::Trigger { epoch });
        let stopping = self.meta.jobs.get(job).and_then(|job| job.stopping.as_ref());
        let stop = stopping.map(|stopping| rpc::Command::Stop { drain: stopping.drain });
        for command in complete.into_iter().chain(abort).chain(trigger).chain(stop) {
            self.send(worker, OrderBody::Command { deployment: deployment.clone(), command });
        }
    }

    /// An event of a deployment that is as it should be.
    pub(super) fn current_event(&mut self, worker: &WorkerId, deployment: &DeploymentId, event: Event, now: u64) {
        let job = &deployment.job;
        let step = match event {
            Event::Running => return self.worker_runs(job, deployment.region, worker, now),
            Event::Failed { operator, error } => {
                let cause = self.named(job, worker, operator, &error);
                return self.region_failed(job, deployment.region, cause, now);
            }
            Event::Stopped => {
                let cause = format!("tasks on worker `{worker}` have left");
                return self.region_failed(job, deployment.region, cause, now);
            }
            Event::Acked { epoch, subtask, state } => Step::Acked { epoch, subtask, state },
            Event::Declined { epoch, subtask, reason } => Step::Declined { epoch, subtask, reason },
            Event::Committed { epoch, subtask } => Step::Committed { epoch, subtask },
            Event::Ended { subtask } => Step::SubtaskEnded { subtask },
        };
        self.step_machine(job, step, now);
    }

    fn named(&self, job: &JobId, worker: &WorkerId, operator: ef_proto::ids::OperatorId, error: &Error) -> String {
        let name = self.runs.get(job).and_then(|run| run.plan.operator(operator)).map(|op| op.name.clone());
        match name.filter(|name| !error.message.contains(name.as_str())) {
            Some(name) => format!("{name} on worker `{worker}`: {}", cut(&error.message)),
            None => format!("on worker `{worker}`: {}", cut(&error.message)),
        }
    }

    fn worker_runs(&mut self, job: &JobId, number: u32, worker: &WorkerId, now: u64) {
        let boot = self.workers.known.get(worker).map(|known| known.hello.boot);
        let Some(run) = self.runs.get_mut(job) else { return };
        let Some(region) = run.regions.get_mut(number as usize) else { return };
        let Some(standing) = region.workers.get_mut(worker) else { return };
        (standing.running, standing.boot) = (true, boot);
        let all = region.workers.values().all(|standing| standing.running);
        if !all || region.phase == RegionPhase::Running {
            return;
        }
        region.phase = RegionPhase::Running;
        if !run.all_running() {
            return;
        }
        let Some(meta) = self.meta.jobs.get(job) else { return };
        if meta.stopping.is_some() {
            self.stop_sources(job);
        } else if meta.state != JobState::Running {
            let (state, reason) = (JobState::Running, String::new());
            self.propose(Command::State { job: job.clone(), at_ms: now, state, reason });
        }
        // Not in the middle of a rescale: nothing may be in flight when the plan changes.
        if self.runs.get(job).is_some_and(|run| !run.proceeding) {
            self.step_machine(job, Step::Running, now);
        }
    }

    /// A region is lost: its tasks leave, and start again from the newest completed checkpoint after a while.
    pub(super) fn region_failed(&mut self, job: &JobId, number: u32, cause: String, now: u64) {
        self.regions_failed(job, &[number], cause, now);
    }

    fn regions_failed(&mut self, job: &JobId, numbers: &[u32], cause: String, now: u64) {
        let chance: f64 = self.chance.random();
        let Some(run) = self.runs.get_mut(job).filter(|run| !run.ending) else { return };
        let deployed = |number: &&u32| {
            let region = run.regions.get(**number as usize);
            region.is_some_and(|region| !matches!(region.phase, RegionPhase::Waiting { .. }))
        };
        let regions: Vec<u32> = numbers.iter().filter(deployed).copied().collect();
        if regions.is_empty() {
            return;
        }
        let delay = run.restarts.next(now, chance);
        let from_ms = delay.map_or(u64::MAX, |delay_ms| now + delay_ms);
        let mut leaving = Vec::new();
        let mut subtasks = Vec::new();
        for number in &regions {
            let of_region = run.subtasks(Some(*number));
            of_region.iter().for_each(|subtask| drop(run.loads.remove(subtask)));
            subtasks.extend(of_region);
            let region = &mut run.regions[*number as usize];
            region.phase = RegionPhase::Waiting { from_ms };
            let deployment = region.deployment.take();
            let workers = std::mem::take(&mut region.workers).into_keys();
            leaving.extend(workers.filter_map(|worker| Some((worker, deployment.clone()?))));
        }
        if !self.config.skip_fence {
            for (worker, deployment) in leaving {
                self.send(&worker, OrderBody::Command { deployment, command: rpc::Command::Cancel });
            }
        }
        self.step_machine(job, Step::Restarting { subtasks, reason: cause.clone() }, now);
        match delay {
            Some(delay_ms) => {
                self.propose(Command::Restart { job: job.clone(), at_ms: now, regions, cause, delay_ms });
            }
            None => self.end(job, JobState::Failed, cause, now),
        }
    }

    /// Too many checkpoints have failed in a row: the whole job starts again, with a fresh count.
    pub(super) fn checkpoints_failed(&mut self, job: &JobId, cause: String, now: u64) {
        let Some(run) = self.runs.get_mut(job) else { return };
        let Some(meta) = self.meta.jobs.get(job) else { return };
        let (all, sinks) = (run.subtasks(None), sinks(&run.plan));
        let machine = Checkpoints::new(run.config.clone(), all, sinks, Some(run.machine.last()));
        run.machine = machine.retaining(meta.checkpoints.iter().map(|record| record.epoch)).paused();
        let wanted = !run.savepoints.is_empty() || meta.pending.is_some();
        let regions: Vec<u32> = (0..run.tasks.regions).collect();
        if wanted {
            self.request_checkpoint(job, now); // the old machine's requests went with it
        }
        self.regions_failed(job, &regions, cause, now);
    }

    pub(super) fn tick_job(&mut self, job: &JobId, now: u64) {
        let Some(run) = self.runs.get(job) else { return };
        // One that is there and restores a large state has all the time it needs.
        let away = |(worker, standing): (&WorkerId, &Standing)| {
            (!standing.running && self.workers.session(worker).is_none()).then(|| worker.clone())
        };
        let overdue = |region: &Region| match region.phase {
            RegionPhase::Deploying { by_ms } if by_ms <= now => region.workers.iter().find_map(away),
            _ => None,
        };
        let overdue: Vec<(u32, WorkerId)> =
            (0..).zip(&run.regions).filter_map(|(number, region)| Some((number, overdue(region)?))).collect();
        for (number, worker) in overdue {
            let timeout = self.config.heartbeat_timeout_ms;
            let cause = format!("worker `{worker}` has not come to run its tasks within {timeout} ms");
            self.region_failed(job, number, cause, now);
        }
        self.step_machine(job, ef_proto::machine::checkpoint::Event::Tick, now);
        self.sweep_if_due(job, now);
        self.measure(job, now);
    }

    pub(super) fn loaded(&mut self, job: &JobId, epoch: Epoch, result: Result<Arc<Manifest>, Error>, now: u64) {
        let Some(run) = self.runs.get_mut(job) else { return };
        run.loading = false;
        match result {
            Ok(manifest) => {
                if run.manifest.as_ref().is_none_or(|known| known.epoch < manifest.epoch) {
                    run.manifest = Some(manifest);
                }
                self.schedule(now);
            }
            Err(error) => {
                run.load_at_ms = now + LOAD_AGAIN_MS;
                let reason = format!("checkpoint {epoch} cannot be read: {}", error.message);
                let known =
                    self.meta.jobs.get(job).is_none_or(|job| job.reason == reason || job.state == JobState::Stopping);
                if !known {
                    let state = JobState::Restarting;
                    self.propose(Command::State { job: job.clone(), at_ms: now, state, reason });
                }
            }
        }
    }

    /// A rescale or a move has been decided: it waits for a checkpoint, unless none of its regions runs. Then it comes at
    /// once, for it may be what makes the job fit on the workers that there are.
    pub(super) fn begin_pending(&mut self, job: &JobId, now: u64) {
        let (Some(run), Some(meta)) = (self.runs.get_mut(job), self.meta.jobs.get(job)) else { return };
        run.rescaling = false;
        let Some(pending) = &meta.pending else { return };
        let epoch = meta.newest().map_or(Epoch(0), |record| record.epoch);
        if run.machine.is_ending() {
            return; // and with the job's end it is forgotten
        }
        let waits = |number: &u32| {
            let region = run.regions.get(*number as usize);
            region.is_some_and(|region| matches!(region.phase, RegionPhase::Waiting { .. }))
        };
        let at_rest = run.deploying.is_none() && !run.proceeding && run.machine.in_flight().is_none();
        if at_rest && pending.regions.iter().all(waits) {
            run.proceeding = true;
            self.propose(Command::Proceed { job: job.clone(), at_ms: now, epoch });
        } else {
            self.request_checkpoint(job, now);
        }
    }

    /// The checkpoint that a rescale or a move waited for is recorded, and so is that its regions are deployed anew.
    pub(super) fn proceed(&mut self, id: &JobId, now: u64) {
        let Some(job) = self.meta.jobs.get(id) else { return };
        let Ok(plan) = Plan::decode(&job.plan) else { return };
        let deployed: Vec<u32> = job.regions.keys().copied().collect();
        let Some(run) = self.runs.get_mut(id).filter(|run| !run.ending) else { return };
        run.pending_epoch = None;
        run.proceeding = false;
        let tasks = plan.tasks();
        let mut orders = Vec::new();
        let old = std::mem::take(&mut run.regions).into_iter();
        let regions: Vec<Region> = (0..)
            .zip(old)
            .map(|(number, region)| {
                if deployed.contains(&number) || matches!(region.phase, RegionPhase::Waiting { .. }) {
                    return region;
                }
                let workers = region.workers.into_keys();
                orders.extend(workers.filter_map(|worker| Some((worker, region.deployment.clone()?))));
                Region { previous: region.previous, ..Region::waiting() }
            })
            .collect();
        let restarting: Vec<u32> =
            (0..).zip(&regions).filter(|(number, _)| !deployed.contains(number)).map(|(n, _)| n).collect();
        run.regions = regions;
        let gone: Vec<SubtaskId> = restarting.iter().flat_map(|region| run.subtasks(Some(*region))).collect();
        for subtask in &gone {
            run.loads.remove(subtask);
        }
        for (worker, deployment) in orders {
            self.send(&worker, OrderBody::Command { deployment, command: rpc::Command::Cancel });
        }
        let reason = "deployed anew".to_string();
        self.step_machine(id, Step::Restarting { subtasks: gone, reason }, now);
        if let Some(run) = self.runs.get_mut(id) {
            run.machine.rescale(subtasks(&plan, |_| true), sinks(&plan));
            (run.plan, run.tasks) = (Arc::new(plan), tasks);
        }
        // What was to be deployed anew was given up meanwhile (the job is to stop): it goes on as it is.
        if self.runs.get(id).is_some_and(Run::all_running) {
            self.step_machine(id, Step::Running, now);
        }
        self.schedule(now);
    }

    /// To all workers of a job, once for each deployment.
    pub(super) fn broadcast(&mut self, job: &JobId, command: &rpc::Command) {
        let Some(run) = self.runs.get(job) else { return };
        let to: Vec<(WorkerId, DeploymentId)> = run
            .regions
            .iter()
            .flat_map(|region| {
                let deployment = region.deployment.iter();
                deployment.flat_map(|id| region.workers.keys().map(|worker| (worker.clone(), id.clone())))
            })
            .collect();
        let replaced = if self.config.skip_fence { self.replaced(job) } else { Vec::new() };
        for (worker, deployment) in to.into_iter().chain(replaced) {
            self.send(&worker, OrderBody::Command { deployment, command: command.clone() });
        }
    }

    /// Deployments that workers came back with, and that others have taken the place of.
    fn replaced(&self, job: &JobId) -> Vec<(WorkerId, DeploymentId)> {
        let of = |deployment: &DeploymentId| {
            let current = self.runs.get(job).and_then(|run| run.regions.get(deployment.region as usize));
            deployment.job == *job && current.is_none_or(|region| region.deployment.as_ref() != Some(deployment))
        };
        let held = self.workers.known.iter().flat_map(|(id, worker)| {
            worker.hello.deployments.iter().map(move |held| (id.clone(), held.deployment.clone()))
        });
        held.filter(|(_, deployment)| of(deployment)).collect()
    }

    /// Decides that a job has ended, once.
    pub(super) fn end(&mut self, job: &JobId, state: JobState, reason: String, now: u64) {
        let Some(run) = self.runs.get_mut(job) else { return };
        if !std::mem::replace(&mut run.ending, true) {
            self.propose(Command::State { job: job.clone(), at_ms: now, state, reason });
        }
    }

    /// It has ended: its tasks leave.
    pub(super) fn ended(&mut self, job: &JobId, now: u64) {
        self.broadcast(job, &rpc::Command::Cancel);
        if let Some(run) = self.runs.get_mut(job) {
            run.ending = true;
            // Not at once: uploads of its last attempts may still be on their way.
            (run.sweep.wanted, run.sweep.last_ms) = (true, now);
            for region in &mut run.regions {
                region.phase = RegionPhase::Waiting { from_ms: u64::MAX };
                region.deployment = None;
                region.workers.clear();
            }
        }
        self.savepoints_of_ended(job, now);
        // Slots are free again.
        self.schedule(now);
        let meta = &self.meta;
        self.runs.retain(|id, _| meta.jobs.contains_key(id));
    }

    pub(super) fn stop(&mut self, job: &JobId, stopping: Stopping, now: u64) {
        self.stop_sources(job);
        // Fails if the job has ended meanwhile; otherwise it becomes a copy of the last checkpoint.
        if let Some(savepoint) = stopping.savepoint {
            self.savepoint_created(&savepoint, job, now);
        }
    }

    fn stop_sources(&mut self, job: &JobId) {
        let Some(stopping) = self.meta.jobs.get(job).and_then(|job| job.stopping.clone()) else { return };
        self.broadcast(job, &rpc::Command::Stop { drain: stopping.drain });
    }
}

/// A cause goes into the log, and is shown in tables: the whole of a long one is in the worker's log.
fn cut(message: &str) -> String {
    let kept: String = message.chars().take(CAUSE_CHARS_MAX).collect();
    if kept.len() < message.len() { format!("{kept}…") } else { kept }
}
