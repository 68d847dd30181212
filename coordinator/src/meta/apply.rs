//! A command → the new state. Commands about what is no longer there change nothing: they were decided before it went.

use super::job::{Job, JobState, Pending, Rescale};
use super::{Command, ENDED_MAX, Meta, Savepoint, SavepointState, Submitted};
use ef_proto::ids::{Epoch, Incarnation, JobId};
use std::collections::{BTreeMap, VecDeque};

impl Meta {
    pub fn apply(&mut self, command: Command) {
        match command {
            Command::Submit(submitted) => self.submit(*submitted),
            Command::Cordon { worker, cordoned } => {
                if cordoned {
                    self.cordoned.insert(worker);
                } else {
                    self.cordoned.remove(&worker);
                }
            }
            Command::CreateSavepoint { id, job, path, at_ms } => self.create_savepoint(id, job, path, at_ms),
            Command::SavepointEpoch { id, epoch } => {
                if let Some(savepoint) = self.savepoints.get_mut(&id) {
                    savepoint.epoch = Some(epoch);
                }
            }
            Command::SavepointDone { id, at_ms, bytes } => {
                self.end_savepoint(&id, at_ms, SavepointState::Completed, bytes, String::new());
            }
            Command::SavepointFailed { id, at_ms, reason } => {
                self.end_savepoint(&id, at_ms, SavepointState::Failed, 0, reason);
            }
            Command::SavepointDisposed { id, at_ms } => {
                if let Some(savepoint) = self.savepoints.remove(&id) {
                    self.event(&savepoint.job, at_ms, "SAVEPOINT", format!("savepoint {id} is disposed of"));
                }
            }
            Command::Deploy { job, at_ms, regions, restore } => {
                let Some(job) = self.running(&job) else { return };
                let numbers: Vec<String> = regions.keys().map(u32::to_string).collect();
                for (region, deployed) in regions {
                    job.incarnation = job.incarnation.max(deployed.incarnation);
                    job.regions.insert(region, deployed);
                }
                let from = restore.map_or("empty".to_string(), |epoch| format!("from checkpoint {epoch}"));
                job.event(at_ms, "DEPLOY", format!("region {} is deployed {from}", numbers.join(", ")));
                if job.state != JobState::Stopping {
                    set(job, at_ms, JobState::Deploying, String::new());
                }
            }
            Command::State { job, at_ms, state, reason } => self.set_state(&job, at_ms, state, reason),
            Command::Restart { job, at_ms, regions, cause, delay_ms } => {
                let Some(job) = self.running(&job) else { return };
                for region in &regions {
                    job.regions.remove(region);
                }
                job.restarts += 1;
                job.event(at_ms, "FAILURE", format!("{cause}; restarts in {delay_ms} ms"));
                if job.cause.is_empty() {
                    job.cause = cause.clone();
                }
                if job.state != JobState::Stopping {
                    // Said already, by the failure.
                    if job.state != JobState::Restarting {
                        job.since_ms = at_ms;
                    }
                    (job.state, job.reason) = (JobState::Restarting, cause);
                }
            }
            Command::Reserve { job, upto } => {
                if let Some(job) = self.jobs.get_mut(&job) {
                    job.reserved = job.reserved.max(upto);
                }
            }
            Command::Complete { job, at_ms, checkpoint } => {
                // Of a job that has ended meanwhile everything may have been swept already.
                let Some(job) = self.running(&job) else { return };
                let message = format!("checkpoint {} is complete: {} bytes", checkpoint.epoch, checkpoint.bytes);
                if checkpoint.cause != "periodic" {
                    job.event(at_ms, "CHECKPOINT", message);
                }
                job.completed += 1;
                job.checkpoints.push(checkpoint);
            }
            Command::Retire { job, epochs } => {
                if let Some(job) = self.jobs.get_mut(&job) {
                    job.checkpoints.retain(|record| !epochs.contains(&record.epoch));
                }
            }
            Command::Stop { job, at_ms, stopping, path } => {
                if let (Some(id), Some(path)) = (&stopping.savepoint, path) {
                    self.create_savepoint(id.clone(), job.clone(), path, at_ms);
                }
                let Some(job) = self.running(&job) else { return };
                if job.stopping.is_some() {
                    // Sources have ended by the first; a second savepoint is taken with it.
                    return job.event(at_ms, "STATE", "is to stop already");
                }
                job.stopping = Some(stopping);
                job.pending = None;
                set(job, at_ms, JobState::Stopping, "takes its last checkpoint".into());
            }
            Command::Cancel { job, at_ms } => {
                self.set_state(&job, at_ms, JobState::Cancelled, "cancelled".into());
            }
            Command::Rescale { job, at_ms, plan, parallelism, overrides, regions, message } => {
                let Some(job) = self.running(&job) else { return };
                if job.stopping.is_some() {
                    return job.event(at_ms, "RESCALE", format!("given up: {message}: the job is to stop"));
                }
                job.event(at_ms, "RESCALE", format!("{message}; after the next checkpoint"));
                let rescale = Some(Rescale { plan, parallelism, overrides });
                job.pend(Pending { regions, rescale, message });
            }
            Command::Move { job, at_ms, regions, reason } => {
                let Some(job) = self.running(&job) else { return };
                if job.stopping.is_some() {
                    return job.event(at_ms, "MOVE", format!("given up: {reason}: the job is to stop"));
                }
                job.event(at_ms, "MOVE", format!("{reason}; after the next checkpoint"));
                job.pend(Pending { regions, rescale: None, message: reason });
            }
            Command::GiveUp { job, at_ms, reason } => {
                let Some(job) = self.running(&job) else { return };
                if let Some(pending) = job.pending.take() {
                    job.event(at_ms, "RESCALE", format!("given up: {}: {reason}", pending.message));
                }
            }
            Command::Proceed { job, at_ms, epoch } => {
                let Some(job) = self.running(&job) else { return };
                let Some(pending) = job.pending.take() else { return };
                for region in &pending.regions {
                    job.regions.remove(region);
                }
                if let Some(rescale) = pending.rescale {
                    job.plan = rescale.plan;
                    job.parallelism = rescale.parallelism;
                    job.overrides = rescale.overrides;
                }
                let from = if epoch == Epoch(0) { "empty".into() } else { format!("from checkpoint {epoch}") };
                job.event(at_ms, "RESCALE", format!("{}: {from}", pending.message));
            }
        }
    }

    fn submit(&mut self, submitted: Submitted) {
        let Submitted { job: id, at_ms, name, sql, vars, models, parallelism, plan, state, restore } = submitted;
        let (restored_from, checkpoints) = match restore {
            Some((from, record)) => (from, vec![record]),
            None => (String::new(), Vec::new()),
        };
        let mut job = Job {
            id: id.clone(),
            name,
            sql,
            vars,
            models,
            parallelism,
            overrides: BTreeMap::new(),
            plan,
            state_root: state,
            state: JobState::Pending,
            reason: "is to be placed".into(),
            submitted_at_ms: at_ms,
            since_ms: at_ms,
            regions: BTreeMap::new(),
            incarnation: Incarnation(0),
            reserved: checkpoints.last().map_or(Epoch(0), |record| record.epoch),
            checkpoints,
            completed: 0,
            restarts: 0,
            cause: String::new(),
            stopping: None,
            pending: None,
            restored_from,
            events: VecDeque::new(),
            sequence: 0,
        };
        let from = if job.restored_from.is_empty() { String::new() } else { format!(" from {}", job.restored_from) };
        job.event(at_ms, "STATE", format!("submitted{from}"));
        self.jobs.insert(id, job);
        self.forget_old_jobs();
    }

    fn forget_old_jobs(&mut self) {
        let mut ended: Vec<(u64, JobId)> =
            self.jobs.values().filter(|job| job.state.has_ended()).map(|job| (job.since_ms, job.id.clone())).collect();
        ended.sort();
        for (_, job) in ended.iter().take(ended.len().saturating_sub(ENDED_MAX)) {
            self.jobs.remove(job);
        }
    }

    /// A job that has not ended.
    fn running(&mut self, job: &JobId) -> Option<&mut Job> {
        self.jobs.get_mut(job).filter(|job| !job.state.has_ended())
    }

    fn event(&mut self, job: &JobId, at_ms: u64, kind: &str, message: String) {
        if let Some(job) = self.jobs.get_mut(job) {
            job.event(at_ms, kind, message);
        }
    }

    fn set_state(&mut self, job: &JobId, at_ms: u64, state: JobState, reason: String) {
        let Some(job) = self.running(job) else { return };
        if state == JobState::Running {
            job.cause.clear();
        }
        if state.has_ended() {
            job.regions.clear();
            job.pending = None;
        }
        set(job, at_ms, state, reason);
    }

    fn create_savepoint(&mut self, id: String, job: JobId, path: String, at_ms: u64) {
        let Some(of) = self.jobs.get_mut(&job) else { return };
        of.event(at_ms, "SAVEPOINT", format!("savepoint {id} is taken"));
        let savepoint = Savepoint {
            id: id.clone(),
            job_name: of.name.clone(),
            job,
            path,
            state: SavepointState::InProgress,
            created_at_ms: at_ms,
            completed_at_ms: 0,
            epoch: None,
            bytes: 0,
            reason: String::new(),
        };
        self.savepoints.insert(id, savepoint);
    }

    fn end_savepoint(&mut self, id: &str, at_ms: u64, state: SavepointState, bytes: u64, reason: String) {
        let Some(savepoint) = self.savepoints.get_mut(id) else { return };
        if savepoint.state != SavepointState::InProgress {
            return;
        }
        let said = match state {
            SavepointState::Completed => format!("savepoint {id} is complete: `{}`, {bytes} bytes", savepoint.path),
            _ => format!("savepoint {id} has failed: {reason}"),
        };
        (savepoint.state, savepoint.bytes, savepoint.completed_at_ms, savepoint.reason) = (state, bytes, at_ms, reason);
        let job = savepoint.job.clone();
        self.event(&job, at_ms, "SAVEPOINT", said);
    }
}

fn set(job: &mut Job, at_ms: u64, state: JobState, reason: String) {
    if job.state != state || job.reason != reason {
        let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        job.event(at_ms, "STATE", format!("{}{why}", state.name()));
    }
    if job.state != state {
        job.since_ms = at_ms;
    }
    (job.state, job.reason) = (state, reason);
}
