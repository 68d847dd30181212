//! What people ask for: found by id or name, checked, and either answered from what is known or proposed.

use super::{Core, Described, Effect, Replan, RequestId};
use crate::leader::mailbox::{Request, Response};
use crate::meta::{Command, Job, JobState, Savepoint, SavepointState, Stopping, Submitted};
use ef_proto::error::{Code, Error};
use ef_proto::ids::{JobId, WorkerId};
use ef_proto::plan::Plan;
use ef_proto::wire::generated::control::*;
use rand::Rng;
use std::collections::BTreeMap;

type Result<T> = std::result::Result<T, Error>;

impl Core {
    pub(super) fn request(&mut self, id: RequestId, request: Request, now: u64) {
        if let Err(error) = self.try_request(id, request, now) {
            self.reply(id, Err(error));
        }
    }

    fn try_request(&mut self, id: RequestId, request: Request, now: u64) -> Result<()> {
        let response = match request {
            Request::Submit(request) => return self.submit(id, request),
            Request::Explain(request) => {
                self.out.push(Effect::Explain { id, request });
                return Ok(());
            }
            Request::ListJobs => Response::Jobs(self.list_jobs()),
            Request::DescribeJob(request) => Response::Job(Box::new(self.describe_job(&request.job)?)),
            Request::StopJob(request) => return self.stop_job(id, request, now),
            Request::CancelJob(request) => {
                let job = self.live(&request.job)?.id.clone();
                let response = Response::CancelJob(CancelJobResponse { job: job.0.clone() });
                if !request.dry_run {
                    self.propose_and_reply(Command::Cancel { job, at_ms: now }, id, response);
                    return Ok(());
                }
                response
            }
            Request::RescaleJob(request) => return self.rescale_job(id, request),
            Request::TriggerCheckpoint(request) => {
                let job = self.in_state(&request.job, &[JobState::Running], "take a checkpoint of")?.id.clone();
                if !request.dry_run {
                    self.request_checkpoint(&job, now);
                }
                Response::TriggerCheckpoint(TriggerCheckpointResponse { job: job.0 })
            }
            Request::ListCheckpoints(request) => Response::Checkpoints(self.list_checkpoints(&request.job)?),
            Request::DescribeCheckpoint(request) => {
                let job = self.job(&request.job)?;
                if !job.checkpoints.iter().any(|record| record.epoch.0 == request.epoch) {
                    let kept: Vec<String> = job.checkpoints.iter().map(|record| record.epoch.to_string()).collect();
                    let message = format!(
                        "checkpoint {} of job `{}` is not retained; there are: {}",
                        request.epoch,
                        job.id,
                        if kept.is_empty() { "none".into() } else { kept.join(", ") }
                    );
                    return Err(Error::new(Code::NotFound, message));
                }
                let place = Described::Checkpoint(request, job.id.clone());
                self.out.push(Effect::Describe { id, place });
                return Ok(());
            }
            Request::CreateSavepoint(request) => return self.create_savepoint(id, request, now),
            Request::GetSavepoint(request) => Response::Savepoint(super::view::savepoint(self.savepoint(&request.savepoint)?)),
            Request::ListSavepoints(request) => {
                let job = if request.job.is_empty() { None } else { Some(self.job(&request.job)?.id.clone()) };
                let of = |savepoint: &&Savepoint| job.as_ref().is_none_or(|job| savepoint.job == *job);
                let savepoints = self.meta.savepoints.values().filter(of).map(super::view::savepoint).collect();
                Response::Savepoints(ListSavepointsResponse { savepoints })
            }
            Request::DescribeSavepoint(request) => {
                let path = self.savepoint_path(&request.savepoint)?;
                self.out.push(Effect::Describe { id, place: Described::Savepoint(request, path) });
                return Ok(());
            }
            Request::DisposeSavepoint(request) => return self.dispose_savepoint(id, request),
            Request::ListWorkers => Response::Workers(self.list_workers()),
            Request::DescribeWorker(request) => Response::WorkerDescription(self.describe_worker(&request.worker)?),
            Request::CordonWorker(request) => return self.cordon(id, request),
            Request::DrainWorker(request) => return self.drain(id, request, now),
            Request::Cluster => Response::Cluster(ClusterResponse {
                version: env!("CARGO_PKG_VERSION").into(),
                term: self.term.unwrap_or_default(),
                started_at_ms: self.started_at_ms,
                state: self.config.state.clone(),
            }),
            Request::Events { job, after } => self.events(&job, after)?,
            Request::Logs { job, worker, after } => self.logs(&job, &worker, after)?,
        };
        self.reply(id, Ok(response));
        Ok(())
    }

    /// By id or by name; of several with one name the newest that has not ended, or else the newest.
    pub(super) fn job(&self, named: &str) -> Result<&Job> {
        if let Some(job) = self.meta.jobs.get(&JobId(named.to_string())) {
            return Ok(job);
        }
        let found = self.meta.jobs.values().filter(|job| job.name == named);
        let newest = found.max_by_key(|job| (!job.state.has_ended(), job.submitted_at_ms, job.id.clone()));
        newest.ok_or_else(|| Error::new(Code::NotFound, format!("there is no job `{named}`")))
    }

    fn live(&self, named: &str) -> Result<&Job> {
        let job = self.job(named)?;
        if job.state.has_ended() {
            let message = format!("job `{}` ({}) is {} already", job.name, job.id, job.state.name());
            return Err(Error::new(Code::Conflict, message));
        }
        Ok(job)
    }

    fn in_state(&self, named: &str, states: &[JobState], what: &str) -> Result<&Job> {
        let job = self.live(named)?;
        if states.contains(&job.state) {
            return Ok(job);
        }
        let accepted: Vec<&str> = states.iter().map(|state| state.name()).collect();
        let why = if job.reason.is_empty() { String::new() } else { format!(" ({})", job.reason) };
        let message =
            format!("cannot {what} job `{}`: it is {}{why}; it must be {}", job.name, job.state.name(), accepted.join(" or "));
        Err(Error::new(Code::Conflict, message))
    }

    fn new_id(&mut self) -> String {
        format!("{:08x}", self.chance.random::<u32>())
    }

    fn submit(&mut self, id: RequestId, request: SubmitRequest) -> Result<()> {
        let from = match request.from_savepoint.as_str() {
            "" => None,
            named => Some(self.savepoint_path(named)?),
        };
        let kept: String =
            request.name.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).take(40).collect();
        let mut job = JobId(format!("{}-{}", if kept.is_empty() { "job" } else { &kept }, self.new_id()));
        while self.meta.jobs.contains_key(&job) {
            job = JobId(format!("{}{}", job.0, self.new_id()));
        }
        let state = self.config.state.clone();
        self.out.push(Effect::Plan { id, request, job, from, state });
        Ok(())
    }

    pub(super) fn planned(&mut self, id: RequestId, submitted: Submitted, response: Response) {
        self.propose_and_reply(Command::Submit(Box::new(submitted)), id, response);
    }

    fn stop_job(&mut self, id: RequestId, request: StopJobRequest, now: u64) -> Result<()> {
        let job = self.in_state(&request.job, &[JobState::Running], "stop")?.clone();
        let savepoint = request.savepoint.as_ref().map(|_| self.new_id());
        let response = StopJobResponse { job: job.id.0.clone(), savepoint: savepoint.clone().unwrap_or_default() };
        if request.dry_run {
            self.reply(id, Ok(Response::StopJob(response)));
            return Ok(());
        }
        let stopping = Stopping { drain: request.drain, savepoint: savepoint.clone() };
        let place = savepoint.zip(request.savepoint);
        let path = place.map(|(name, directory)| self.savepoint_place(&job, &directory, &name));
        let stop = Command::Stop { job: job.id, at_ms: now, stopping, path };
        self.propose_and_reply(stop, id, Response::StopJob(response));
        Ok(())
    }

    /// Below the given directory, or that of the job, or of the cluster.
    fn savepoint_place(&self, job: &Job, directory: &str, id: &str) -> String {
        let configured = || {
            let plan = Plan::decode(&job.plan).ok()?;
            plan.config.get("execution.checkpointing.savepoint-dir").cloned()
        };
        let directory = match directory {
            "" => configured().unwrap_or_else(|| format!("{}/savepoints", job.state_root.trim_end_matches('/'))),
            given => given.to_string(),
        };
        format!("{}/savepoint-{}-{id}", directory.trim_end_matches('/'), job.id)
    }

    fn create_savepoint(&mut self, id: RequestId, request: CreateSavepointRequest, now: u64) -> Result<()> {
        let job = self.in_state(&request.job, &[JobState::Running], "take a savepoint of")?.clone();
        let name = self.new_id();
        let path = self.savepoint_place(&job, &request.directory, &name);
        let shown = ef_proto::wire::generated::control::Savepoint {
            id: if request.dry_run { String::new() } else { name.clone() },
            job: job.id.0.clone(),
            job_name: job.name.clone(),
            state: SavepointState::InProgress.name().into(),
            path: path.clone(),
            created_at_ms: now,
            ..Default::default()
        };
        if request.dry_run {
            self.reply(id, Ok(Response::Savepoint(shown)));
            return Ok(());
        }
        let command = Command::CreateSavepoint { id: name, job: job.id, path, at_ms: now };
        self.propose_and_reply(command, id, Response::Savepoint(shown));
        Ok(())
    }

    fn savepoint(&self, named: &str) -> Result<&Savepoint> {
        let by_path = |savepoint: &&Savepoint| savepoint.path.trim_end_matches('/') == named.trim_end_matches('/');
        let found = self.meta.savepoints.get(named).or_else(|| self.meta.savepoints.values().find(by_path));
        found.ok_or_else(|| Error::new(Code::NotFound, format!("there is no savepoint `{named}`")))
    }

    /// Of a savepoint that is known, or a path as it was given.
    fn savepoint_path(&self, named: &str) -> Result<String> {
        match self.savepoint(named) {
            Ok(savepoint) if savepoint.state == SavepointState::Completed => Ok(savepoint.path.clone()),
            Ok(savepoint) => {
                let state = savepoint.state.name();
                Err(Error::new(Code::Conflict, format!("savepoint `{named}` is {state}, and not COMPLETED")))
            }
            Err(_) if named.contains('/') => Ok(named.to_string()),
            Err(error) => Err(error),
        }
    }

    fn dispose_savepoint(&mut self, id: RequestId, request: DisposeSavepointRequest) -> Result<()> {
        let (name, path, shown) = match self.savepoint(&request.savepoint) {
            Ok(found) if found.state == SavepointState::InProgress => {
                return Err(Error::new(Code::Conflict, format!("savepoint `{}` is still being taken", found.id)));
            }
            Ok(found) => (found.id.clone(), found.path.clone(), super::view::savepoint(found)),
            Err(_) if request.savepoint.contains('/') => (String::new(), request.savepoint.clone(), Default::default()),
            Err(error) => return Err(error),
        };
        if request.dry_run {
            self.reply(id, Ok(Response::Savepoint(shown)));
        } else {
            self.out.push(Effect::Dispose { id, savepoint: name, path });
        }
        Ok(())
    }

    fn rescale_job(&mut self, id: RequestId, mut request: RescaleJobRequest) -> Result<()> {
        let job = self.in_state(&request.job, &[JobState::Running, JobState::Pending], "rescale")?;
        self.check_not_rescaled(job)?;
        if request.parallelism.is_none() && request.operators.is_empty() {
            return Err(Error::invalid("neither a parallelism nor an operator is given"));
        }
        // Names of operators become ids.
        let plan = Plan::decode(&job.plan)?;
        let mut operators = BTreeMap::new();
        for (named, parallelism) in std::mem::take(&mut request.operators) {
            let found: Vec<_> =
                plan.operators.iter().filter(|op| op.name == named || op.id.to_string() == named).collect();
            match found[..] {
                [op] => drop(operators.insert(op.id.to_string(), parallelism)),
                [] => {
                    let names: Vec<String> = plan.operators.iter().map(|op| format!("`{}`", op.name)).collect();
                    let message = format!("job `{}` has no operator `{named}`; it has {}", job.name, names.join(", "));
                    return Err(Error::new(Code::NotFound, message));
                }
                _ => {
                    let ids: Vec<String> = found.iter().map(|op| op.id.to_string()).collect();
                    let message = format!("several operators are called `{named}`; take one of the ids {}", ids.join(", "));
                    return Err(Error::invalid(message));
                }
            }
        }
        request.operators = operators;
        let job = job.id.clone();
        self.out.push(Effect::Replan { id, job, request });
        Ok(())
    }

    /// One at a time: what a rescale changes is found by comparing its plan with the present one.
    fn check_not_rescaled(&self, job: &Job) -> Result<()> {
        let waits = job.pending.as_ref().is_some_and(|pending| pending.rescale.is_some());
        if waits || self.runs.get(&job.id).is_some_and(|run| run.rescaling) {
            let message = format!("job `{}` is being rescaled already", job.name);
            return Err(Error::new(Code::Conflict, message));
        }
        Ok(())
    }

    pub(super) fn replanned(&mut self, id: RequestId, job: &JobId, dry_run: bool, replan: Replan, now: u64) {
        let result = self.rescale(id, job, dry_run, replan, now);
        if let Err(error) = result {
            self.reply(id, Err(error));
        }
    }

    fn rescale(&mut self, id: RequestId, job_id: &JobId, dry_run: bool, replan: Replan, now: u64) -> Result<()> {
        let job = self.live(&job_id.0)?;
        self.check_not_rescaled(job)?;
        let (old, new) = (Plan::decode(&job.plan)?, Plan::decode(&replan.plan)?);
        let tasks = new.tasks();
        let changed = |op: &&ef_proto::plan::Operator| {
            old.operator(op.id).is_none_or(|before| before.parallelism != op.parallelism)
        };
        let mut regions: Vec<u32> =
            new.operators.iter().filter(changed).filter_map(|op| Some(tasks.of(op.id)?.region)).collect();
        // A local phase may have gone.
        let before = old.tasks();
        let gone = old.operators.iter().filter(|op| new.operator(op.id).is_none());
        regions.extend(gone.filter_map(|op| Some(before.of(op.id)?.region)));
        regions.sort_unstable();
        regions.dedup();
        let rescaled = new.operators.iter().map(|op| Rescaled {
            id: op.id.to_string(),
            name: op.name.clone(),
            old_parallelism: old.operator(op.id).map_or(0, |op| op.parallelism),
            new_parallelism: op.parallelism,
        });
        let subtasks = |restarting: bool| -> u32 {
            let here = tasks.tasks.iter().filter(|task| regions.contains(&task.region) == restarting);
            here.map(|task| task.parallelism).sum()
        };
        let response = RescaleJobResponse {
            job: job.id.0.clone(),
            operators: rescaled.collect(),
            restarting: subtasks(true),
            untouched: subtasks(false),
        };
        if regions.is_empty() || dry_run {
            if !regions.is_empty() {
                self.could_place(job_id, &tasks, &regions).map_err(|reason| Error::new(Code::Conflict, reason))?;
            }
            self.reply(id, Ok(Response::RescaleJob(response)));
            return Ok(());
        }
        self.could_place(job_id, &tasks, &regions)
            .map_err(|reason| Error::new(Code::Conflict, format!("it would not fit: {reason}")))?;
        let Replan { plan, parallelism, overrides } = replan;
        let widest = |plan: &Plan| plan.operators.iter().map(|op| op.parallelism).max().unwrap_or(0);
        let message = format!("rescaled from parallelism {} to {}", widest(&old), widest(&new));
        let job = job_id.clone();
        if let Some(run) = self.runs.get_mut(job_id) {
            run.rescaling = true;
        }
        let command = Command::Rescale { job, at_ms: now, plan, parallelism, overrides, regions, message };
        self.propose_and_reply(command, id, Response::RescaleJob(response));
        Ok(())
    }

    pub(super) fn worker(&self, named: &str) -> Result<WorkerId> {
        let id = WorkerId(named.to_string());
        if self.workers.known.contains_key(&id) || self.meta.cordoned.contains(&id) {
            return Ok(id);
        }
        let known: Vec<String> = self.workers.known.keys().map(|id| format!("`{id}`")).collect();
        let known = if known.is_empty() { "none is known".into() } else { format!("there are {}", known.join(", ")) };
        Err(Error::new(Code::NotFound, format!("there is no worker `{named}`; {known}")))
    }

    fn cordon(&mut self, id: RequestId, request: CordonWorkerRequest) -> Result<()> {
        let worker = self.worker(&request.worker)?;
        let mut shown = self.show_worker(&worker);
        shown.cordoned = request.cordoned;
        if request.dry_run {
            self.reply(id, Ok(Response::Worker(shown)));
            return Ok(());
        }
        let command = Command::Cordon { worker, cordoned: request.cordoned };
        self.propose_and_reply(command, id, Response::Worker(shown));
        Ok(())
    }

    /// Nothing new goes there, and what runs there moves.
    fn drain(&mut self, id: RequestId, request: DrainWorkerRequest, now: u64) -> Result<()> {
        let worker = self.worker(&request.worker)?;
        let mut moves: BTreeMap<JobId, Vec<u32>> = BTreeMap::new();
        for (job, region) in self.regions_on(&worker) {
            moves.entry(job).or_default().push(region);
        }
        for (job, regions) in &moves {
            let Some(run) = self.runs.get(job) else { continue };
            let mut views = self.worker_views(Some((job, regions)));
            views.retain(|view| view.id != worker);
            for region in regions {
                let tasks: Vec<_> = run.tasks.in_region(*region).collect();
                if let Err(crate::scheduler::Unplaceable(reason)) =
                    crate::scheduler::place(&tasks, &views, &BTreeMap::new())
                {
                    let message = format!("job `{job}` would not fit on the other workers: {reason}");
                    return Err(Error::new(Code::Conflict, message));
                }
            }
        }
        let mut shown = self.show_worker(&worker);
        shown.cordoned = true;
        let jobs = moves.keys().map(|job| job.0.clone()).collect();
        let response = Response::DrainWorker(DrainWorkerResponse { worker: Some(shown), jobs });
        if request.dry_run {
            self.reply(id, Ok(response));
            return Ok(());
        }
        self.propose_and_reply(Command::Cordon { worker: worker.clone(), cordoned: true }, id, response);
        for (job, regions) in moves {
            let reason = format!("worker `{worker}` is drained");
            self.propose(Command::Move { job, at_ms: now, regions, reason });
        }
        Ok(())
    }

    fn events(&self, job: &str, after: u64) -> Result<Response> {
        let job = self.job(job)?;
        let events = job.events.iter().filter(|event| event.sequence > after).map(super::view::event).collect();
        Ok(Response::Events { events, ended: job.state.has_ended() })
    }

    fn logs(&self, job: &str, worker: &str, after: u64) -> Result<Response> {
        let job = self.job(job)?;
        if !worker.is_empty() {
            self.worker(worker)?;
        }
        let of = |line: &&(u64, WorkerId, ef_proto::rpc::LogLine)| {
            line.0 > after
                && line.2.job.as_ref().is_none_or(|of| *of == job.id.0)
                && (worker.is_empty() || line.1.0 == worker)
        };
        let lines = self.workers.logs.iter().filter(of).map(|(_, worker, line)| LogLine {
            at_ms: line.at_ms.max(0) as u64,
            worker: worker.0.clone(),
            level: line.level.clone(),
            message: line.message.clone(),
        });
        Ok(Response::Logs { lines: lines.collect(), upto: self.workers.log_number, ended: job.state.has_ended() })
    }
}
