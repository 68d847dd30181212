//! Checkpoints from trigger to retirement: steps the job's machine and executes its actions in order.

use super::run::{CheckpointView, InFlight, Rates};
use super::{Core, Effect};
use crate::meta::{CheckpointRecord, Command, JobState};
use ef_proto::checkpoint::{Manifest, OperatorState, StateFile};
use ef_proto::error::{Code, Error};
use ef_proto::ids::{Epoch, JobId, OperatorId};
use ef_proto::machine::checkpoint::{Action, Cause, Event as Step, Parts};
use ef_proto::rpc;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// Epochs are asked of the log in such blocks: one entry for many checkpoints, and at most so many numbers are skipped
/// when a leader is replaced.
const EPOCHS: u64 = 32;

/// Between two sweeps of jobs that ended under an earlier leader.
const SWEEP_ENDED_MS: u64 = 100;

/// Between two sweeps of a job's objects. Each lists them all.
const SWEEP_MS: u64 = 5000;

impl Core {
    /// Steps the machine and executes what it says.
    pub(super) fn step_machine(&mut self, job: &JobId, event: Step, now: u64) {
        let Some(run) = self.runs.get_mut(job) else { return };
        if run.ending {
            return;
        }
        let actions = run.machine.step(event, now);
        for action in actions {
            match action {
                Action::Trigger { epoch, cause } => self.triggered(job, epoch, cause, now),
                Action::PutManifest(parts) => self.put(job, parts),
                Action::Complete(epoch) => self.broadcast(job, &rpc::Command::Complete { epoch }),
                Action::Abort { epoch, reason } => self.aborted(job, epoch, reason, now),
                Action::FailJob { reason } => self.checkpoints_failed(job, reason, now),
                Action::Retire(epochs) => drop(self.propose(Command::Retire { job: job.clone(), epochs })),
                Action::Published(_) => {}
                Action::Final(epoch) => self.finished(job, epoch, now),
                Action::Ignore(event) => self.ignored(job, &event),
            }
        }
    }

    /// An ack of a checkpoint that nobody collects any more, from a task that does not know yet.
    fn ignored(&mut self, job: &JobId, event: &Step) {
        let Step::Acked { epoch, .. } = event else { return };
        let Some(run) = self.runs.get(job) else { return };
        let newest = self.meta.jobs.get(job).and_then(|job| job.newest()).map_or(Epoch(0), |record| record.epoch);
        if run.machine.in_flight() != Some(*epoch) && *epoch > newest {
            let epoch = *epoch;
            self.broadcast(job, &rpc::Command::Abort { epoch });
        }
    }

    fn triggered(&mut self, job: &JobId, epoch: Epoch, cause: Cause, now: u64) {
        let Some(run) = self.runs.get_mut(job) else { return };
        let savepoints = std::mem::take(&mut run.savepoints);
        run.in_flight = Some(InFlight { epoch, cause, triggered_at_ms: now, savepoints, manifest: None });
        run.remember(CheckpointView {
            epoch,
            cause,
            triggered_at_ms: now,
            duration_ms: 0,
            bytes: 0,
            new_bytes: 0,
            result: None,
        });
        let Some(meta) = self.meta.jobs.get(job) else { return };
        // Not by the last one: after that there is nothing to deploy anew.
        if meta.pending.is_some() && run.pending_epoch.is_none() && cause != Cause::Terminal {
            run.pending_epoch = Some(epoch);
        }
        let reserved = meta.reserved;
        run.held_trigger = Some(epoch);
        // Ahead of the need, so that triggers rarely wait for the log.
        if epoch.0 + EPOCHS / 4 > run.reserving.0 {
            run.reserving = Epoch(epoch.0 + EPOCHS);
            let upto = run.reserving;
            self.propose(Command::Reserve { job: job.clone(), upto });
        }
        if epoch <= reserved {
            self.release_trigger(job, now);
        }
    }

    /// Its epoch is this job's for ever: the workers may be told.
    pub(super) fn release_trigger(&mut self, job: &JobId, _now: u64) {
        let Some(reserved) = self.meta.jobs.get(job).map(|job| job.reserved) else { return };
        let Some(run) = self.runs.get_mut(job) else { return };
        if let Some(epoch) = run.held_trigger.take_if(|epoch| *epoch <= reserved) {
            self.broadcast(job, &rpc::Command::Trigger { epoch });
        }
    }

    pub(super) fn request_checkpoint(&mut self, job: &JobId, now: u64) {
        self.step_machine(job, Step::Request, now);
    }

    /// All acks are in.
    fn put(&mut self, job: &JobId, parts: Parts) {
        let Some(run) = self.runs.get_mut(job) else { return };
        let Parts { epoch, terminal, triggered_at_ms, states } = parts;
        let mut operators: BTreeMap<OperatorId, OperatorState> = BTreeMap::new();
        for (subtask, state) in states {
            let Some(op) = run.plan.operator(subtask.operator) else { continue };
            let (name, parallelism) = (op.name.clone(), op.parallelism);
            let empty = || OperatorState { id: subtask.operator, name, parallelism, subtasks: Vec::new() };
            operators.entry(subtask.operator).or_insert_with(empty).subtasks.push(state);
        }
        let manifest = Arc::new(Manifest {
            job: job.clone(),
            incarnation: self.meta.jobs.get(job).map(|job| job.incarnation).unwrap_or_default(),
            epoch,
            triggered_at_ms: triggered_at_ms as i64,
            terminal,
            max_parallelism: run.plan.max_parallelism,
            operators: operators.into_values().collect(),
        });
        if let Some(in_flight) = run.in_flight.as_mut().filter(|in_flight| in_flight.epoch == epoch) {
            in_flight.manifest = Some(manifest.clone());
        }
        self.out.push(Effect::Put { job: job.clone(), manifest });
    }

    pub(super) fn stored(&mut self, job: &JobId, epoch: Epoch, result: Result<(), Error>, now: u64) {
        if let Err(error) = result {
            let reason = error.message;
            if error.code == Code::Conflict {
                let reason = format!("the manifest of checkpoint {epoch}: {reason}");
                return self.end(job, JobState::Failed, reason, now);
            }
            return self.step_machine(job, Step::ManifestFailed { epoch, reason }, now);
        }
        let Some(run) = self.runs.get(job).filter(|run| !run.ending) else { return };
        let Some(in_flight) = run.in_flight.as_ref().filter(|in_flight| in_flight.epoch == epoch) else { return };
        let Some(manifest) = &in_flight.manifest else { return };
        let before: HashSet<&StateFile> = run.manifest.iter().flat_map(|manifest| manifest.files()).collect();
        let new_bytes = manifest.files().filter(|file| !before.contains(file)).map(|file| file.bytes).sum();
        let checkpoint = CheckpointRecord {
            epoch,
            cause: cause_name(in_flight.cause, !in_flight.savepoints.is_empty()).into(),
            triggered_at_ms: in_flight.triggered_at_ms,
            completed_at_ms: now,
            bytes: manifest.files().map(|file| file.bytes).sum(),
            new_bytes,
        };
        self.propose(Command::Complete { job: job.clone(), at_ms: now, checkpoint });
    }

    /// The checkpoint is recorded: the decision has fallen.
    pub(super) fn recorded(&mut self, job: &JobId, epoch: Epoch, now: u64) {
        // Of a job that has ended meanwhile nothing goes on.
        let Some(run) = self.runs.get_mut(job).filter(|run| !run.ending) else { return };
        let Some(in_flight) = run.in_flight.take_if(|in_flight| in_flight.epoch == epoch) else { return };
        run.manifest = in_flight.manifest;
        let record = self.meta.jobs.get(job).and_then(|job| job.newest());
        if let Some(record) = record.filter(|record| record.epoch == epoch) {
            run.remember(CheckpointView {
                epoch,
                cause: in_flight.cause,
                triggered_at_ms: record.triggered_at_ms,
                duration_ms: now.saturating_sub(record.triggered_at_ms),
                bytes: record.bytes,
                new_bytes: record.new_bytes,
                result: Some(Ok(())),
            });
        }
        for id in in_flight.savepoints {
            self.propose(Command::SavepointEpoch { id, epoch });
        }
        let proceeds = self.runs.get_mut(job).is_some_and(|run| {
            let proceeds = run.pending_epoch == Some(epoch);
            run.proceeding |= proceeds;
            proceeds
        });
        if proceeds {
            // No other checkpoint before the regions are deployed anew.
            let reason = "a part of the job is to be deployed anew".to_string();
            self.step_machine(job, Step::Restarting { subtasks: Vec::new(), reason }, now);
        }
        self.step_machine(job, Step::ManifestPut { epoch }, now);
        if proceeds {
            self.propose(Command::Proceed { job: job.clone(), at_ms: now, epoch });
        }
    }

    fn aborted(&mut self, job: &JobId, epoch: Epoch, reason: String, now: u64) {
        self.broadcast(job, &rpc::Command::Abort { epoch });
        let Some(run) = self.runs.get_mut(job) else { return };
        run.held_trigger = None;
        let Some(in_flight) = run.in_flight.take_if(|in_flight| in_flight.epoch == epoch) else { return };
        run.failed += 1;
        run.remember(CheckpointView {
            epoch,
            cause: in_flight.cause,
            triggered_at_ms: in_flight.triggered_at_ms,
            duration_ms: now.saturating_sub(in_flight.triggered_at_ms),
            bytes: 0,
            new_bytes: 0,
            result: Some(Err(reason.clone())),
        });
        let gives_up = run.pending_epoch.take_if(|pending| *pending == epoch).is_some();
        if !run.all_running() {
            // A part of the job starts again: what waited for this checkpoint waits for the next.
            let wanted = gives_up || !in_flight.savepoints.is_empty();
            run.savepoints.extend(in_flight.savepoints);
            if wanted {
                self.request_checkpoint(job, now);
            }
            return;
        }
        for id in in_flight.savepoints {
            let reason = format!("checkpoint {epoch} has failed: {reason}");
            self.propose(Command::SavepointFailed { id, at_ms: now, reason });
        }
        if gives_up {
            let reason = format!("checkpoint {epoch} has failed: {reason}");
            self.propose(Command::GiveUp { job: job.clone(), at_ms: now, reason });
        }
    }

    /// All sources have ended, and everything is published.
    fn finished(&mut self, job: &JobId, epoch: Epoch, now: u64) {
        let stopping = self.meta.jobs.get(job).and_then(|job| job.stopping.clone());
        let reason = match &stopping {
            None => "all inputs have ended".to_string(),
            Some(stopping) if stopping.drain => format!("stopped and drained, with checkpoint {epoch}"),
            Some(_) => format!("stopped, with checkpoint {epoch}"),
        };
        if let Some(id) = stopping.and_then(|stopping| stopping.savepoint) {
            self.propose(Command::SavepointEpoch { id, epoch });
        }
        self.end(job, JobState::Finished, reason, now);
    }

    pub(super) fn sweep_soon(&mut self, job: &JobId) {
        if let Some(run) = self.runs.get_mut(job) {
            run.sweep.wanted = true;
        }
    }

    pub(super) fn sweep_if_due(&mut self, job: &JobId, now: u64) {
        let Some(run) = self.runs.get_mut(job) else { return };
        if !run.sweep.wanted || run.sweep.under_way || now.saturating_sub(run.sweep.last_ms) < SWEEP_MS {
            return;
        }
        run.sweep.wanted = false;
        run.sweep.last_ms = now;
        self.sweep(job);
    }

    fn sweep(&mut self, id: &JobId) {
        let Some(job) = self.meta.jobs.get(id) else { return };
        let last_completed = job.newest().map(|newest| newest.epoch).filter(|_| !job.state.has_ended());
        if last_completed.is_none() && !job.state.has_ended() {
            return;
        }
        let kept = self.meta.kept(id).into_iter().collect();
        if let Some(run) = self.runs.get_mut(id) {
            run.sweep.under_way = true;
        }
        self.out.push(Effect::Sweep { job: id.clone(), kept, last_completed });
    }

    /// A store that was away is swept again when it may be back. So is that of an ended job in which there was something:
    /// late uploads of its last attempts may follow, and no checkpoint will come whose sweep takes them along.
    pub(super) fn swept(&mut self, job: JobId, result: &Result<usize, Error>, now: u64) {
        let ended = self.meta.jobs.get(&job).is_some_and(|job| job.state.has_ended());
        let again = match result {
            Ok(deleted) => ended && *deleted > 0,
            Err(_) => true,
        };
        match self.runs.get_mut(&job) {
            Some(run) => {
                run.sweep.under_way = false;
                run.sweep.wanted |= again;
            }
            None if ended && again => {
                self.unswept.insert(job);
                // Not at the pace at which those go that nobody has tried yet.
                self.swept_ms = now + SWEEP_MS;
            }
            None => {}
        }
    }

    /// One job at a time: there may be hundreds.
    pub(super) fn sweep_after_leaders(&mut self, now: u64) {
        if now.saturating_sub(self.swept_ms) >= SWEEP_ENDED_MS
            && let Some(job) = self.unswept.pop_first()
        {
            self.swept_ms = now;
            self.sweep(&job);
        }
    }

    /// Rows per second of a job, once a second.
    pub(super) fn measure(&mut self, job: &JobId, now: u64) {
        let Some(run) = self.runs.get_mut(job) else { return };
        let elapsed = now.saturating_sub(run.rates.at_ms);
        if elapsed < 1000 {
            return;
        }
        let (rows_in, rows_out) = run.rows();
        let rate = |now: u64, before: u64| now.saturating_sub(before) * 1000 / elapsed;
        let (in_per_second, out_per_second) = match run.rates.at_ms {
            0 => (0, 0),
            _ => (rate(rows_in, run.rates.rows_in), rate(rows_out, run.rates.rows_out)),
        };
        run.rates = Rates { at_ms: now, rows_in, rows_out, in_per_second, out_per_second };
    }
}

pub(super) fn cause_name(cause: Cause, savepoint: bool) -> &'static str {
    match cause {
        _ if savepoint => "savepoint",
        Cause::Periodic => "periodic",
        Cause::Requested => "requested",
        Cause::Terminal => "terminal",
    }
}
