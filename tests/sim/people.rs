//! The people of the cluster: they submit jobs, rescale them, take savepoints, stop jobs and go on from there, drain
//! workers, change their minds. They know what the log says, as if they had asked; answers they get may be lost.

use super::coordinator::ToCoordinator;
use super::jobs::{PIPELINES, SETTINGS, sql};
use super::world::{Event, World};
use crate::note;
use ef_coordinator::leader::rules::RequestId;
use ef_coordinator::leader::{Request, Response};
use ef_coordinator::meta::{Job, JobState, SavepointState};
use ef_proto::checkpoint::path;
use ef_proto::error::{Code, Error};
use ef_proto::ids::{JobId, WorkerId};
use ef_proto::plan::Plan;
use ef_proto::wire::generated::control::*;
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::BTreeMap;

/// After the last job has ended, the cluster has so long to become quiet.
const SETTLE_MS: u64 = 12_000;

pub struct People {
    pub lineages: Vec<Lineage>,
    /// Of each split.
    pub rows: u32,
    /// When all has been quiet for long enough.
    pub done_at_ms: Option<u64>,
    /// How often they do something, as a share of the times that they look.
    busy: f64,
    requests: u64,
}

/// A job, and those that go on from its savepoints.
pub struct Lineage {
    sql: String,
    pub regions: u32,
    pub parallelism_max: u32,
    generation: u32,
    from: String,
    /// The submission under way: by which life of the coordinator, and its number.
    asked: Option<(u64, RequestId)>,
    to_cancel: bool,
    pub end: Option<End>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// All rows have been read.
    Natural,
    /// Stopped where it was, and all windows fired.
    Drained(JobId),
    /// With the job whose drain was under way: it may have published its last rows.
    Cancelled(Option<JobId>),
}

/// The lineage that a job's name begins with.
pub fn lineage_of(job: &str) -> usize {
    job.split('-').next().and_then(|number| number.parse().ok()).expect("a job of ours")
}

impl People {
    pub fn draw(chance: &mut SmallRng) -> People {
        let count = if chance.random_bool(0.4) { 2 } else { 1 };
        let mut lineage = |number: usize| {
            let pipelines = chance.random_range(0..PIPELINES.len());
            Lineage {
                sql: sql(chance.random_range(0..SETTINGS.len()), pipelines),
                regions: PIPELINES[pipelines].len() as u32,
                parallelism_max: if number == 0 { 4 } else { 2 },
                generation: 0,
                from: String::new(),
                asked: None,
                to_cancel: number > 0 && chance.random_bool(0.5),
                end: None,
            }
        };
        let lineages = (0..count).map(&mut lineage).collect();
        let (rows, busy) = (chance.random_range(12..=40), chance.random_range(0.0..0.25));
        People { lineages, rows, done_at_ms: None, busy, requests: 0 }
    }

    /// So that every job fits at its greatest width.
    pub fn slots_needed(&self) -> u32 {
        self.lineages.iter().map(|lineage| lineage.regions * lineage.parallelism_max).sum()
    }
}

impl World {
    fn ask(&mut self, request: Request) -> RequestId {
        self.people.requests += 1;
        let id = RequestId(self.people.requests);
        let after = self.between(1, 20);
        self.tell_coordinator(after, ToCoordinator::Ask { id, request: Box::new(request) });
        id
    }

    /// They look at what there is, and do something now and then.
    pub fn look(&mut self) {
        for lineage in 0..self.people.lineages.len() {
            self.attend(lineage);
        }
        let busy = self.people.busy;
        if self.calm_at_ms.is_none() && self.chance(busy) {
            self.act();
        }
        if self.calm_at_ms.is_some() {
            let cordoned = self.coordinator.truth().cordoned.iter().next().cloned();
            cordoned.into_iter().for_each(|worker| self.cordon(worker, false));
            if self.people.done_at_ms.is_none() && self.people.lineages.iter().all(|lineage| lineage.end.is_some()) {
                note!(self, "all jobs have ended");
                self.people.done_at_ms = Some(self.now + SETTLE_MS);
            }
        }
        let after = self.between(100, 400);
        self.later(after, Event::Look);
    }

    fn name(&self, lineage: usize) -> String {
        format!("{lineage}-{}", self.people.lineages[lineage].generation)
    }

    /// The present job of a lineage.
    fn job_of(&self, lineage: usize) -> Option<&Job> {
        let name = self.name(lineage);
        self.coordinator.truth().jobs.values().find(|job| job.name == name)
    }

    fn attend(&mut self, number: usize) {
        if self.people.lineages[number].end.is_some() {
            return;
        }
        let Some(job) = self.job_of(number) else { return self.submit(number) };
        let (id, state, reason, stopping) = (job.id.clone(), job.state, job.reason.clone(), job.stopping.clone());
        let newest = job.newest().map(|record| record.epoch);
        match (state, stopping) {
            (JobState::Failed, _) => self.fail(format!("job {id} has failed: {reason}")),
            (JobState::Cancelled, stopping) => {
                let draining = stopping.is_some_and(|stopping| stopping.drain);
                self.people.lineages[number].end = Some(End::Cancelled(draining.then_some(id)));
            }
            (JobState::Finished, None) => self.people.lineages[number].end = Some(End::Natural),
            (JobState::Finished, Some(stopping)) if stopping.drain => {
                self.people.lineages[number].end = Some(End::Drained(id));
            }
            (JobState::Finished, Some(stopping)) => {
                let Some(newest) = newest else { return self.fail(format!("{id} stopped without a checkpoint")) };
                let retained = || format!("state/jobs/{id}/{}", path::manifest(newest).trim_end_matches("/manifest"));
                let from = match stopping.savepoint {
                    None => retained(),
                    Some(savepoint) => match self.coordinator.truth().savepoints.get(&savepoint) {
                        None => return self.fail(format!("{id} stopped without savepoint {savepoint}")),
                        Some(found) => match found.state {
                            SavepointState::InProgress => return,
                            SavepointState::Completed => found.path.clone(),
                            SavepointState::Failed | SavepointState::Disposed => retained(),
                        },
                    },
                };
                self.stats.resumed += 1;
                let lineage = &mut self.people.lineages[number];
                lineage.generation += 1;
                lineage.from = from;
                lineage.asked = None;
            }
            _ => {}
        }
    }

    fn submit(&mut self, number: usize) {
        let life = self.coordinator.life;
        let lineage = &self.people.lineages[number];
        // Once only, unless whoever was asked has gone, and what it decided is not in the log.
        if !self.coordinator.up || lineage.asked.is_some_and(|(by, _)| by == life) {
            return;
        }
        let (most, sql, from) = (lineage.parallelism_max, lineage.sql.clone(), lineage.from.clone());
        let parallelism = Some(self.between(1, u64::from(most)) as u32);
        let name = self.name(number);
        let request = SubmitRequest { sql, name, parallelism, from_savepoint: from, ..SubmitRequest::default() };
        note!(self, "people submit {} at {parallelism:?} from `{}`", request.name, request.from_savepoint);
        let id = self.ask(Request::Submit(request));
        self.people.lineages[number].asked = Some((life, id));
    }

    fn cordon(&mut self, worker: WorkerId, cordoned: bool) {
        let worker = worker.0;
        self.ask(Request::CordonWorker(CordonWorkerRequest { worker, cordoned, dry_run: false }));
    }

    fn act(&mut self) {
        let number = self.between(0, self.people.lineages.len() as u64 - 1) as usize;
        let Some(job) = self.job_of(number) else { return };
        let (job, id) = (job.clone(), job.id.0.clone());
        let most = u64::from(self.people.lineages[number].parallelism_max);
        let parallelism = self.between(1, most) as u32;
        let worker = self.between(0, self.workers.len() as u64 - 1) as usize;
        let worker = self.workers[worker].id.clone();
        let dry_run = false;
        let request = match self.between(0, 9) {
            0 | 1 => Request::RescaleJob(RescaleJobRequest {
                job: id,
                parallelism: Some(parallelism),
                operators: Default::default(),
                dry_run,
            }),
            2 => {
                let plan = Plan::decode(&job.plan).expect("the log's");
                let operators: Vec<String> = plan.operators.iter().map(|op| op.id.to_string()).collect();
                let at = self.between(0, operators.len() as u64 - 1) as usize;
                let operators = [(operators[at].clone(), parallelism)].into();
                Request::RescaleJob(RescaleJobRequest { job: id, parallelism: None, operators, dry_run })
            }
            3 => Request::CreateSavepoint(CreateSavepointRequest { job: id, directory: "sp".into(), dry_run }),
            4 if self.people.lineages[number].generation < 3 => {
                let savepoint = self.chance(0.7).then(|| "sp".to_string());
                Request::StopJob(StopJobRequest { job: id, savepoint, drain: self.chance(0.2), dry_run })
            }
            5 => Request::DrainWorker(DrainWorkerRequest { worker: worker.0, dry_run }),
            6 => return self.cordon(worker, false),
            7 if self.people.lineages[number].to_cancel => Request::CancelJob(CancelJobRequest { job: id, dry_run }),
            8 => Request::TriggerCheckpoint(TriggerCheckpointRequest { job: id, dry_run }),
            _ => {
                // They look at everything; nothing may come of it.
                self.ask(Request::ListJobs);
                self.ask(Request::ListWorkers);
                self.ask(Request::ListCheckpoints(JobRequest { job: id.clone() }));
                Request::DescribeJob(JobRequest { job: id })
            }
        };
        note!(self, "people ask: {request:?}");
        self.ask(request);
    }

    pub fn replied(&mut self, id: RequestId, result: Result<Response, Error>) {
        match &result {
            Err(error) => {
                note!(self, "request {}: {error}", id.0);
                if matches!(error.code, Code::Internal | Code::Corrupt) {
                    self.fail(format!("request {} is answered by {:?}: {error}", id.0, error.code));
                }
                for lineage in &mut self.people.lineages {
                    if lineage.asked.is_some_and(|(_, asked)| asked == id) {
                        lineage.asked = None; // again
                    }
                }
            }
            Ok(Response::RescaleJob(_)) => self.stats.rescales += 1,
            Ok(Response::DrainWorker(_)) => self.stats.moves += 1,
            Ok(_) => {}
        }
    }

    /// How many rows of each split a drained job has read, by region: as its last checkpoint says.
    pub fn drained_at(&self, job: &JobId) -> BTreeMap<u32, Vec<u32>> {
        let Some(meta) = self.coordinator.truth().jobs.get(job) else { return BTreeMap::new() };
        let planned = super::jobs::decode(&meta.plan);
        let newest = meta.newest().and_then(|record| self.read_manifest(job, record.epoch));
        let Some(manifest) = newest else { return BTreeMap::new() };
        let positions = |region: u32| {
            let source = planned.source_of(region)?;
            let state = manifest.operators.iter().find(|state| state.id == source)?;
            let mut upto = vec![0; super::jobs::SPLITS as usize];
            for (split, read) in state.subtasks.iter().flat_map(|state| super::nodes::positions(&state.blob)) {
                upto[split as usize] = read;
            }
            Some((region, upto))
        };
        (0..planned.tasks.regions).filter_map(positions).collect()
    }
}
