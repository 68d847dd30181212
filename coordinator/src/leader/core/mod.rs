//! The leader's rules, without I/O: `step(event, now) -> effects`. Jobs' lives, checkpoints, placement, recovery.
//!
//! What must not be forgotten is in [`Meta`] and changes only when a command comes back from the log; everything else
//! here may be lost and is gathered again from the workers. So a leader that has just started knows the same as one that
//! has led for a year, once all workers have said Hello.
//!
//! The order of a checkpoint, which nothing may change: acks (files are durable) → manifest (create-only) → recorded in
//! the log → Complete to the workers (sinks publish) → retired ones leave the log → their objects are swept.

mod finish;
mod place;
mod recover;
mod requests;
mod run;
mod savepoints;
#[cfg(test)]
mod tests;
mod view;
mod workers;

pub use run::CheckpointView;

use super::mailbox::{Request, Response, SessionId};
use crate::meta::{Command, Meta, Submitted};
use ef_proto::checkpoint::Manifest;
use ef_proto::error::{Code, Error};
use ef_proto::ids::{Epoch, JobId, OperatorId, WorkerId};
use ef_proto::rpc::{Hello, Order, OrderBody, Report};
use ef_proto::wire::generated::control::{
    CheckpointRequest, ExplainRequest, RescaleJobRequest, SavepointRequest, SubmitRequest,
};
use rand::rngs::SmallRng;
use run::Run;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use workers::Workers;

/// Names an API call until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Names a proposal until it comes back from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProposalId(pub u64);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub heartbeat_interval_ms: u64,
    /// After this long without a sign of life a worker counts as lost.
    pub heartbeat_timeout_ms: u64,
    /// Where jobs keep their checkpoints, and below it savepoints without a place of their own.
    pub state: String,
    /// Negative control of the tests: a region's new deployment does not supersede the old one, which is told all that
    /// the new one is told.
    pub skip_fence: bool,
    /// Negative control of the tests: a new leader gives epochs out a second time.
    pub reuse_epoch: bool,
}

#[derive(Clone, Debug)]
pub enum Event {
    /// Time has passed; at least as often as a trigger or a time-out may be late.
    Tick,
    /// This process leads from now on; all that was decided before has been applied.
    Leader {
        term: u64,
    },
    /// At the start: the state that the log goes on from.
    Restored(Box<Meta>),
    /// Comes back from the log, in its order.
    Applied {
        id: ProposalId,
        command: Command,
    },
    Connected {
        session: SessionId,
        hello: Hello,
    },
    Report {
        worker: WorkerId,
        session: SessionId,
        report: Report,
    },
    Disconnected {
        worker: WorkerId,
        session: SessionId,
    },
    Request {
        id: RequestId,
        request: Request,
    },
    /// A submission has been planned and checked, and what it starts from is in its place.
    Planned {
        id: RequestId,
        dry_run: bool,
        submitted: Box<Submitted>,
        response: Response,
    },
    /// The answer to [`Effect::Replan`].
    Replanned {
        id: RequestId,
        job: JobId,
        dry_run: bool,
        replan: Box<Replan>,
    },
    /// A manifest is in the store, or is not.
    Stored {
        job: JobId,
        epoch: Epoch,
        result: Result<(), Error>,
    },
    Loaded {
        job: JobId,
        epoch: Epoch,
        result: Result<Arc<Manifest>, Error>,
    },
    /// A sweep has ended; how many objects it deleted.
    Swept {
        job: JobId,
        result: Result<usize, Error>,
    },
    Copied {
        savepoint: String,
        result: Result<u64, Error>,
    },
    Disposed {
        id: RequestId,
        savepoint: String,
        result: Result<(), Error>,
    },
}

/// A job's plan at another parallelism.
#[derive(Clone, Debug)]
pub struct Replan {
    pub plan: Vec<u8>,
    pub parallelism: Option<u32>,
    pub overrides: BTreeMap<OperatorId, u32>,
}

#[derive(Clone, Debug)]
pub enum Effect {
    Propose {
        id: ProposalId,
        command: Command,
    },
    /// To a worker's stream; lost if the stream is gone or does not take it, which its end will tell.
    Send {
        worker: WorkerId,
        session: SessionId,
        order: Order,
    },
    /// The stream is of no use any more.
    Close {
        session: SessionId,
    },
    Reply {
        id: RequestId,
        result: Result<Response, Error>,
    },
    /// Put it create-only; answered by `Stored`.
    Put {
        job: JobId,
        manifest: Arc<Manifest>,
    },
    /// Answered by `Loaded`.
    Load {
        job: JobId,
        epoch: Epoch,
    },
    /// Delete what no kept checkpoint needs; answered by `Swept`.
    Sweep {
        job: JobId,
        kept: Vec<Epoch>,
        /// None when the job has ended.
        last_completed: Option<Epoch>,
    },
    /// Copy a checkpoint to a savepoint's place; answered by `Copied`.
    Copy {
        savepoint: String,
        job: JobId,
        epoch: Epoch,
        path: String,
    },
    /// Remove a savepoint's objects; answered by `Disposed`.
    Dispose {
        id: RequestId,
        savepoint: String,
        path: String,
    },
    /// Plan and check a submission, copy what it starts from; answered by `Planned`, or directly. `from` is the place of
    /// the savepoint that it names.
    Plan {
        id: RequestId,
        request: SubmitRequest,
        job: JobId,
        from: Option<String>,
        state: String,
    },
    /// Plan a job again; answered by `Replanned`, or directly.
    Replan {
        id: RequestId,
        job: JobId,
        request: RescaleJobRequest,
    },
    /// Answered directly.
    Explain {
        id: RequestId,
        request: ExplainRequest,
    },
    /// Answered directly: what a savepoint or checkpoint consists of.
    Describe {
        id: RequestId,
        place: Described,
    },
}

#[derive(Clone, Debug)]
pub enum Described {
    Savepoint(SavepointRequest, /* its path */ String),
    Checkpoint(CheckpointRequest, JobId),
}

pub struct Core {
    config: Config,
    /// None: another process leads, or none is known to.
    term: Option<u64>,
    meta: Meta,
    /// Of every job that has not ended, and of those that ended under this leader.
    runs: BTreeMap<JobId, Run>,
    workers: Workers,
    proposals: u64,
    /// Answers that wait for their proposal.
    replies: HashMap<ProposalId, (RequestId, Response)>,
    chance: SmallRng,
    started_at_ms: u64,
    ticked_ms: u64,
    /// Jobs that ended under an earlier leader, which may not have come to clean up after them.
    unswept: BTreeSet<JobId>,
    swept_ms: u64,
    out: Vec<Effect>,
}

impl Core {
    /// `chance` makes ids and jitter.
    pub fn new(config: Config, chance: SmallRng, now: u64) -> Core {
        Core {
            config,
            term: None,
            meta: Meta::default(),
            runs: BTreeMap::new(),
            workers: Workers::default(),
            proposals: 0,
            replies: HashMap::new(),
            chance,
            started_at_ms: now,
            ticked_ms: 0,
            unswept: BTreeSet::new(),
            swept_ms: 0,
            out: Vec::new(),
        }
    }

    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Takes one event; the effects are to be executed in order.
    pub fn step(&mut self, event: Event, now: u64) -> Vec<Effect> {
        match event {
            Event::Restored(meta) => self.meta = *meta,
            Event::Applied { id, command } => self.applied(id, command, now),
            Event::Leader { term } => self.lead(term, now),
            // Nobody is served before this process leads: workers dial again, callers are told.
            Event::Connected { session, .. } if self.term.is_none() => self.out.push(Effect::Close { session }),
            Event::Request { id, .. } | Event::Planned { id, .. } | Event::Replanned { id, .. }
                if self.term.is_none() =>
            {
                self.reply(id, Err(Error::new(Code::Unavailable, "this coordinator does not lead yet; try again")));
            }
            Event::Tick => self.tick(now),
            Event::Connected { session, hello } => self.connected(session, hello, now),
            Event::Report { worker, session, report } => self.report(worker, session, report, now),
            Event::Disconnected { worker, session } => self.workers.disconnected(&worker, session, now),
            Event::Request { id, request } => self.request(id, request, now),
            Event::Planned { id, dry_run: true, response, .. } => self.reply(id, Ok(response)),
            Event::Planned { id, submitted, response, .. } => self.planned(id, *submitted, response),
            Event::Replanned { id, job, dry_run, replan } => self.replanned(id, &job, dry_run, *replan, now),
            Event::Stored { job, epoch, result } => self.stored(&job, epoch, result, now),
            Event::Loaded { job, epoch, result } => self.loaded(&job, epoch, result, now),
            Event::Swept { job, result } => self.swept(job, &result, now),
            Event::Copied { savepoint, result } => self.copied(savepoint, result, now),
            Event::Disposed { id, savepoint, result } => self.disposed(id, savepoint, result, now),
        }
        std::mem::take(&mut self.out)
    }

    fn lead(&mut self, term: u64, now: u64) {
        self.term = Some(term);
        self.runs.clear();
        self.workers.forget_sessions(&mut self.out);
        let jobs: Vec<JobId> =
            self.meta.jobs.values().filter(|job| !job.state.has_ended()).map(|job| job.id.clone()).collect();
        for job in jobs {
            self.adopt(&job, now);
        }
        self.adopt_savepoints(now);
        let ended = self.meta.jobs.values().filter(|job| job.state.has_ended());
        self.unswept = ended.map(|job| job.id.clone()).collect();
    }

    fn tick(&mut self, now: u64) {
        if self.term.is_none() {
            return;
        }
        self.allow_for_sleep(now);
        self.lose_silent_workers(now);
        self.sweep_after_leaders(now);
        let jobs: Vec<JobId> = self.runs.keys().cloned().collect();
        for job in jobs {
            self.tick_job(&job, now);
        }
        self.schedule(now);
    }

    fn propose(&mut self, command: Command) -> ProposalId {
        self.proposals += 1;
        let id = ProposalId(self.proposals);
        self.out.push(Effect::Propose { id, command });
        id
    }

    /// Answers when the command has come back from the log.
    fn propose_and_reply(&mut self, command: Command, request: RequestId, response: Response) {
        let id = self.propose(command);
        self.replies.insert(id, (request, response));
    }

    fn reply(&mut self, id: RequestId, result: Result<Response, Error>) {
        self.out.push(Effect::Reply { id, result });
    }

    /// To a worker, if it is connected.
    fn send(&mut self, worker: &WorkerId, body: OrderBody) {
        let (Some(term), Some(session)) = (self.term, self.workers.session(worker)) else { return };
        self.out.push(Effect::Send { worker: worker.clone(), session, order: Order { term, body } });
    }

    fn applied(&mut self, id: ProposalId, command: Command, now: u64) {
        let seen = command.clone();
        self.meta.apply(command);
        if self.term.is_none() {
            return; // replayed at the start, or decided by another leader
        }
        if let Some((request, response)) = self.replies.remove(&id) {
            self.reply(request, Ok(response));
        }
        self.follow(seen, now);
    }

    /// What a decision leads to, once it cannot be lost any more.
    fn follow(&mut self, command: Command, now: u64) {
        match command {
            Command::Submit(submitted) => {
                self.adopt(&submitted.job, now);
                self.schedule(now);
            }
            Command::Deploy { job, regions, .. } => self.deploy(&job, regions, now),
            Command::State { job, state, .. } if state.has_ended() => self.ended(&job, now),
            Command::Cancel { job, .. } => self.ended(&job, now),
            Command::Reserve { job, .. } => self.release_trigger(&job, now),
            Command::Complete { job, checkpoint, .. } => self.recorded(&job, checkpoint.epoch, now),
            Command::Retire { job, .. } => self.sweep_soon(&job),
            Command::Stop { job, stopping, .. } => self.stop(&job, stopping, now),
            Command::Rescale { job, .. } | Command::Move { job, .. } => self.begin_pending(&job, now),
            Command::Proceed { job, .. } => self.proceed(&job, now),
            Command::CreateSavepoint { id, job, .. } => self.savepoint_created(&id, &job, now),
            Command::SavepointEpoch { id, .. } => self.copy_savepoint(&id),
            Command::Cordon { .. }
            | Command::State { .. }
            | Command::Restart { .. }
            | Command::GiveUp { .. }
            | Command::SavepointDone { .. }
            | Command::SavepointFailed { .. }
            | Command::SavepointDisposed { .. } => {}
        }
    }
}
