//! What is known, as people are shown it.

use super::Core;
use super::finish::cause_name;
use super::run::{CheckpointView, Run};
use crate::meta::{self, CheckpointRecord, JobState};
use ef_proto::checkpoint::path;
use ef_proto::error::Error;
use ef_proto::ids::{OperatorId, SubtaskId, WorkerId};
use ef_proto::plan::{self, OperatorKind, Plan};
use ef_proto::wire::generated::control::*;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Events in a job's description; `efctl events` shows all that are kept.
const RECENT: usize = 20;

pub fn savepoint(savepoint: &meta::Savepoint) -> Savepoint {
    Savepoint {
        id: savepoint.id.clone(),
        job: savepoint.job.0.clone(),
        job_name: savepoint.job_name.clone(),
        state: savepoint.state.name().into(),
        path: savepoint.path.clone(),
        reason: savepoint.reason.clone(),
        created_at_ms: savepoint.created_at_ms,
        completed_at_ms: savepoint.completed_at_ms,
        bytes: savepoint.bytes,
        epoch: savepoint.epoch.map_or(0, |epoch| epoch.0),
    }
}

pub fn event(event: &meta::JobEvent) -> JobEvent {
    JobEvent { at_ms: event.at_ms, sequence: event.sequence, kind: event.kind.clone(), message: event.message.clone() }
}

impl Core {
    pub(super) fn list_jobs(&self) -> ListJobsResponse {
        let mut jobs: Vec<Job> = self.meta.jobs.values().map(|job| self.show_job(job)).collect();
        jobs.sort_by(|a, b| (a.submitted_at_ms, &a.id).cmp(&(b.submitted_at_ms, &b.id)));
        ListJobsResponse { jobs }
    }

    fn show_job(&self, job: &meta::Job) -> Job {
        let run = self.runs.get(&job.id);
        let newest = job.newest();
        let (rows_in, rows_out) = run.map(Run::rows).unwrap_or_default();
        let rates = run.map(|run| run.rates).unwrap_or_default();
        let workers: BTreeSet<&WorkerId> = job.regions.values().flat_map(|region| region.slots.keys()).collect();
        let widest = |plan: &Plan| plan.operators.iter().map(|op| op.parallelism).max().unwrap_or(0);
        let parallelism = match run {
            Some(run) => widest(&run.plan),
            None => Plan::decode(&job.plan).map_or(0, |plan| widest(&plan)),
        };
        let running = job.state == JobState::Running && !job.state.has_ended();
        Job {
            id: job.id.0.clone(),
            name: job.name.clone(),
            state: job.state.name().into(),
            reason: job.reason.clone(),
            parallelism,
            submitted_at_ms: job.submitted_at_ms,
            since_ms: job.since_ms,
            ended_at_ms: if job.state.has_ended() { job.since_ms } else { 0 },
            restarts: job.restarts,
            last_checkpoint: newest.map_or(0, |record| record.epoch.0),
            last_checkpoint_at_ms: newest.map_or(0, |record| record.completed_at_ms),
            rows_in,
            rows_out,
            rows_in_per_second: if running { rates.in_per_second } else { 0 },
            rows_out_per_second: if running { rates.out_per_second } else { 0 },
            cause: job.cause.clone(),
            workers: workers.len() as u32,
        }
    }

    pub(super) fn describe_job(&self, named: &str) -> Result<JobDescription, Error> {
        let job = self.job(named)?;
        let plan = Plan::decode(&job.plan)?;
        let run = self.runs.get(&job.id);
        let operators = plan.operators.iter().map(|op| self.show_operator(job, &plan, op, run)).collect();
        let checkpoints = CheckpointCounts {
            completed: job.completed,
            failed: run.map_or(0, |run| run.failed),
            in_flight: run.is_some_and(|run| run.machine.in_flight().is_some()).into(),
        };
        let events = job.events.iter().rev().take(RECENT).rev().map(event).collect();
        Ok(JobDescription {
            job: Some(self.show_job(job)),
            plan: plan::text(&plan),
            operators,
            checkpoints: Some(checkpoints),
            events,
            sql: job.sql.clone(),
            config: plan.config.clone(),
            restored_from: job.restored_from.clone(),
        })
    }

    fn show_operator(&self, job: &meta::Job, plan: &Plan, op: &plan::Operator, run: Option<&Run>) -> OperatorStatus {
        let tasks = run.map_or_else(|| plan.tasks(), |run| run.tasks.clone());
        let root = tasks.of(op.id).map_or(op.id, |task| task.root);
        let region = tasks.of(op.id).and_then(|task| job.regions.get(&task.region));
        let worker = |index| {
            let placed = region.and_then(|region| region.tasks.get(&SubtaskId { operator: root, index }));
            placed.map(|worker| worker.0.clone()).unwrap_or_default()
        };
        let loads = run.into_iter().flat_map(|run| run.loads.values()).filter(|load| load.subtask.operator == op.id);
        let mut status = OperatorStatus {
            id: op.id.to_string(),
            name: op.name.clone(),
            parallelism: op.parallelism,
            workers: (0..op.parallelism).map(worker).collect(),
            ..OperatorStatus::default()
        };
        for load in loads {
            status.rows_in += load.rows_in;
            status.rows_out += load.rows_out;
            status.bytes += load.bytes;
            status.late_rows += load.late_rows;
            status.dropped_rows += load.dropped_rows;
            status.error_rows += load.error_rows;
            status.memory_bytes += load.memory_bytes;
            status.watermark_ms = match (status.watermark_ms, load.watermark_ms) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        status
    }

    pub(super) fn list_checkpoints(&self, named: &str) -> Result<ListCheckpointsResponse, Error> {
        let job = self.job(named)?;
        let path =
            |epoch| format!("{}/jobs/{}/{}", job.state_root.trim_end_matches('/'), job.id, path::manifest(epoch));
        let retained = |record: &CheckpointRecord| Checkpoint {
            epoch: record.epoch.0,
            state: "COMPLETED".into(),
            cause: record.cause.clone(),
            triggered_at_ms: record.triggered_at_ms,
            duration_ms: record.completed_at_ms.saturating_sub(record.triggered_at_ms),
            bytes: record.bytes,
            new_bytes: record.new_bytes,
            retained: true,
            path: path(record.epoch),
            reason: String::new(),
        };
        let mut shown: BTreeMap<u64, Checkpoint> =
            job.checkpoints.iter().map(|record| (record.epoch.0, retained(record))).collect();
        for view in self.runs.get(&job.id).into_iter().flat_map(|run| &run.history) {
            shown.entry(view.epoch.0).or_insert_with(|| show_checkpoint(view));
        }
        Ok(ListCheckpointsResponse { checkpoints: shown.into_values().collect() })
    }

    pub(super) fn list_workers(&self) -> ListWorkersResponse {
        let ids: BTreeSet<&WorkerId> = self.workers.known.keys().collect();
        ListWorkersResponse { workers: ids.into_iter().map(|id| self.show_worker(id)).collect() }
    }

    pub(super) fn show_worker(&self, id: &WorkerId) -> Worker {
        let cordoned = self.meta.cordoned.contains(id);
        let Some(worker) = self.workers.known.get(id) else {
            return Worker { id: id.0.clone(), state: "LOST".into(), cordoned, ..Worker::default() };
        };
        let deployed =
            self.meta.jobs.values().filter(|job| !job.state.has_ended()).flat_map(|job| job.regions.values());
        let (mut taken, mut tasks) = (0, 0);
        for region in deployed {
            taken += region.slots.get(id).copied().unwrap_or(0);
            tasks += region.tasks.values().filter(|worker| *worker == id).count() as u32;
        }
        let hello = &worker.hello;
        Worker {
            id: id.0.clone(),
            state: if worker.session.is_some() { "READY" } else { "LOST" }.into(),
            tier: hello.tier.name().into(),
            site: hello.site.clone(),
            labels: hello.labels.clone(),
            slots: hello.slots,
            slots_free: hello.slots.saturating_sub(taken),
            memory_bytes: hello.memory_bytes,
            resident_bytes: worker.load.resident_bytes,
            cpu_millis: worker.load.cpu_millis,
            tasks,
            cordoned,
            seen_at_ms: worker.seen_ms,
            data_address: hello.data_address.clone(),
            version: hello.version.clone(),
            rows_in_per_second: worker.rows_in_per_second,
        }
    }

    pub(super) fn describe_worker(&self, named: &str) -> Result<WorkerDescription, Error> {
        let id = self.worker(named)?;
        let mut tasks = Vec::new();
        for job in self.meta.jobs.values().filter(|job| !job.state.has_ended()) {
            let plan = self.runs.get(&job.id).map(|run| run.plan.clone());
            let placed = job.regions.values().flat_map(|region| &region.tasks).filter(|(_, worker)| **worker == id);
            tasks.extend(placed.map(|(task, _)| {
                WorkerTask {
                    job: job.id.0.clone(),
                    job_name: job.name.clone(),
                    task: plan
                        .as_ref()
                        .and_then(|plan| plan.operator(task.operator))
                        .map(|op| op.name.clone())
                        .unwrap_or_default(),
                    index: task.index,
                }
            }));
        }
        Ok(WorkerDescription { worker: Some(self.show_worker(&id)), tasks })
    }

    /// Operators that read from outside, of all running jobs.
    pub(super) fn source_operators(&self) -> HashSet<OperatorId> {
        let operators = self.runs.values().flat_map(|run| &run.plan.operators);
        operators.filter(|op| matches!(op.kind, OperatorKind::Source(_))).map(|op| op.id).collect()
    }
}

fn show_checkpoint(view: &CheckpointView) -> Checkpoint {
    let (state, reason) = match &view.result {
        None => ("IN_PROGRESS", String::new()),
        Some(Ok(())) => ("COMPLETED", String::new()),
        Some(Err(reason)) => ("FAILED", reason.clone()),
    };
    Checkpoint {
        epoch: view.epoch.0,
        state: state.into(),
        cause: cause_name(view.cause, false).into(),
        triggered_at_ms: view.triggered_at_ms,
        duration_ms: view.duration_ms,
        bytes: view.bytes,
        new_bytes: view.new_bytes,
        retained: false,
        path: String::new(),
        reason,
    }
}
