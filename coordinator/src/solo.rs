//! The leader of a lone job in one process (`efctl run`): agent's events in, commands and manifests out. Holds no rules: the checkpoint machine of
//! `ef_proto::machine` decides, the leader carries messages and executes its actions in order.
//!
//! One job from deployment to its end. In `efctl run` the agent is in the same process.

use crate::manifests::{Janitor, Manifests};
use ef_proto::checkpoint::{Manifest, OperatorState};
use ef_proto::error::{Code, Error};
use ef_proto::ids::{Epoch, Incarnation, JobId, OperatorId, SubtaskId};
use ef_proto::machine::checkpoint::{Action, Checkpoints, Event as Step, Parts};
use ef_proto::plan::{OperatorKind, Plan};
use ef_proto::rpc::{Command, Deploy, Event, Placement};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// How late a trigger or a timeout may be.
const TICK: Duration = Duration::from_millis(10);

/// How long a job that has ended waits for its tasks to leave. One that hangs in a system call never does.
const LEAVE: Duration = Duration::from_secs(10);

/// How long the note that a job has finished may take. Without it the next start publishes the last checkpoint again,
/// which changes nothing.
const NOTE: Duration = Duration::from_secs(5);

/// What people ask of a running job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Take a last checkpoint, then leave: what Ctrl-C means. The job can be resumed from it.
    StopWithCheckpoint,
    /// Leave at once.
    Cancel,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All inputs ended and everything is published.
    Finished,
    /// Stopped on request, after this checkpoint (None: it could not be taken, for this reason).
    Stopped(Result<Epoch, String>),
    Failed {
        operator: Option<String>,
        error: Error,
    },
}

/// What a person may want to see of a job's checkpoints.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    pub running: bool,
    pub completed: u64,
    pub failed: u64,
    pub last_epoch: Option<Epoch>,
    /// From trigger to record.
    pub last_duration_ms: u64,
    pub last_completed_at_ms: u64,
    /// Bytes that the last manifest refers to.
    pub last_bytes: u64,
}

/// Milliseconds since the epoch.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// One job as the leader runs it.
pub struct Job {
    pub id: JobId,
    pub incarnation: Incarnation,
    pub plan: Plan,
    pub restore: Option<Manifest>,
    /// The highest epoch ever given out, failed ones included.
    pub last_epoch: Option<Epoch>,
    /// Completed checkpoints that the store holds already, ascending.
    pub retained: Vec<Epoch>,
    pub config: ef_proto::machine::checkpoint::Config,
}

/// What became of a manifest.
struct Stored {
    epoch: Epoch,
    triggered_at_ms: u64,
    /// That it refers to.
    bytes: u64,
    result: Result<(), Error>,
}

pub struct Leader {
    job: Job,
    machine: Checkpoints,
    manifests: Arc<Manifests>,
    commands: mpsc::Sender<Command>,
    clock: Clock,
    progress: watch::Sender<Progress>,
    names: BTreeMap<OperatorId, (String, u32)>,
    ended: Option<Outcome>,
    /// When the tasks must have left; set by the end.
    leave_by: Option<Instant>,
    stopping: bool,
    /// Manifests are put beside the mailbox, so that a slow store holds up nothing but its checkpoint.
    stored: (mpsc::Sender<Stored>, mpsc::Receiver<Stored>),
    janitor: Janitor,
}

impl Leader {
    pub fn new(
        job: Job,
        manifests: Arc<Manifests>,
        commands: mpsc::Sender<Command>,
        clock: Clock,
    ) -> (Leader, watch::Receiver<Progress>) {
        let subtasks = |sinks_only: bool| -> BTreeSet<SubtaskId> {
            job.plan
                .operators
                .iter()
                .filter(|op| !sinks_only || matches!(op.kind, OperatorKind::Sink(_)))
                .flat_map(|op| (0..op.parallelism).map(|index| SubtaskId { operator: op.id, index }))
                .collect()
        };
        let machine = Checkpoints::new(job.config.clone(), subtasks(false), subtasks(true), job.last_epoch)
            .retaining(job.retained.iter().copied());
        let names = job.plan.operators.iter().map(|op| (op.id, (op.name.clone(), op.parallelism))).collect();
        let (progress, watch) = watch::channel(Progress::default());
        let janitor = Janitor::new(manifests.clone(), job.incarnation);
        let leader = Leader {
            job,
            machine,
            manifests,
            commands,
            clock,
            progress,
            names,
            ended: None,
            leave_by: None,
            stopping: false,
            stored: mpsc::channel(1), // one checkpoint is in flight at a time
            janitor,
        };
        (leader, watch)
    }

    /// Deploys the job and carries messages until it has ended and its tasks have gone.
    pub async fn run(mut self, mut events: mpsc::Receiver<Event>, mut requests: mpsc::Receiver<Request>) -> Outcome {
        let deploy = Deploy {
            plan: self.job.plan.encode(),
            placement: Placement::solo(&self.job.plan),
            restore: self.job.restore.take(),
            state: String::new(),
            slots: 1,
            stop: None,
        };
        self.send(Command::Deploy(Box::new(deploy))).await;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut running = false;
        let mut waiting: VecDeque<Request> = VecDeque::new();
        loop {
            tokio::select! {
                // Events first: acks that are here already must not lose to a timeout's tick.
                biased;
                event = events.recv() => match event {
                    Some(Event::Running) => {
                        running = true;
                        self.progress.send_modify(|p| p.running = true);
                        for request in waiting.drain(..) {
                            self.request(request).await;
                        }
                    }
                    Some(Event::Stopped) => break,
                    Some(event) => self.event(event).await,
                    None => {
                        let error = Error::new(Code::Internal, "the worker has gone");
                        self.ended.get_or_insert(Outcome::Failed { operator: None, error });
                        break;
                    }
                },
                Some(stored) = self.stored.1.recv(), if self.ended.is_none() => self.stored(stored).await,
                Some(request) = requests.recv() => {
                    // A checkpoint waits for the job to run; to leave at once waits for nothing.
                    if running || request == Request::Cancel {
                        self.request(request).await;
                    } else {
                        waiting.push_back(request);
                    }
                }
                _ = tick.tick(), if running && self.ended.is_none() => self.step(Step::Tick).await,
                () = leave(self.leave_by), if self.ended.is_some() => {
                    tracing::warn!("some tasks do not leave; they end with the process");
                    break;
                }
            }
        }
        self.janitor.finish().await;
        let gone = Error::new(Code::Internal, "the tasks left before the job had ended");
        self.ended.unwrap_or(Outcome::Failed { operator: None, error: gone })
    }

    async fn send(&mut self, command: Command) {
        if self.commands.send(command).await.is_err() && self.ended.is_none() {
            let error = Error::new(Code::Internal, "the worker has gone");
            self.ended = Some(Outcome::Failed { operator: None, error });
        }
    }

    async fn end(&mut self, outcome: Outcome) {
        if self.ended.is_none() {
            self.ended = Some(outcome);
        }
        self.leave_by.get_or_insert_with(|| Instant::now() + LEAVE);
        self.send(Command::Cancel).await;
    }

    async fn request(&mut self, request: Request) {
        match request {
            Request::Cancel => self.end(Outcome::Stopped(Err("cancelled without a checkpoint".into()))).await,
            Request::StopWithCheckpoint => {
                self.stopping = true;
                self.step(Step::Request).await;
            }
        }
    }

    async fn event(&mut self, event: Event) {
        let step = match event {
            Event::Acked { epoch, subtask, state } => Step::Acked { epoch, subtask, state },
            Event::Declined { epoch, subtask, reason } => Step::Declined { epoch, subtask, reason },
            Event::Committed { epoch, subtask } => Step::Committed { epoch, subtask },
            Event::Ended { subtask } => Step::SubtaskEnded { subtask },
            Event::Failed { operator, error } => {
                let operator = self.names.get(&operator).map(|(name, _)| name.clone());
                return self.end(Outcome::Failed { operator, error }).await;
            }
            Event::Running | Event::Stopped => return,
        };
        if self.ended.is_none() {
            self.step(step).await;
        }
    }

    /// Steps the machine and executes what it says, in order.
    async fn step(&mut self, event: Step) {
        let now = (self.clock)();
        let actions = self.machine.step(event, now);
        let finished = actions.iter().any(|action| matches!(action, Action::Final(_)));
        for action in actions {
            match action {
                Action::Trigger { epoch, .. } => self.send(Command::Trigger { epoch }).await,
                Action::PutManifest(parts) => self.put(parts),
                Action::Complete(epoch) => {
                    self.progress.send_modify(|p| {
                        p.completed += 1;
                        p.last_epoch = Some(epoch);
                    });
                    self.send(Command::Complete { epoch }).await;
                }
                Action::Abort { epoch, reason } => {
                    tracing::warn!(epoch = epoch.0, reason, "checkpoint failed");
                    self.progress.send_modify(|p| p.failed += 1);
                    self.send(Command::Abort { epoch }).await;
                    if self.stopping {
                        self.end(Outcome::Stopped(Err(reason))).await;
                    }
                }
                Action::FailJob { reason } => {
                    let error = Error::new(Code::Unavailable, reason);
                    self.end(Outcome::Failed { operator: None, error }).await;
                }
                Action::Retire(epochs) => {
                    if let Some(newest) = self.machine.newest_completed() {
                        self.janitor.retire(epochs, newest);
                    }
                }
                Action::Published(epoch) => {
                    // A job that has finished anyway was not stopped.
                    if self.stopping && !finished {
                        self.end(Outcome::Stopped(Ok(epoch))).await;
                    }
                }
                Action::Final(epoch) => {
                    match tokio::time::timeout(NOTE, self.manifests.finish(epoch)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::warn!(%error, "the end of the job could not be noted"),
                        Err(_) => tracing::warn!("the end of the job could not be noted: the store takes too long"),
                    }
                    self.end(Outcome::Finished).await;
                }
                Action::Ignore(event) => tracing::debug!(?event, "ignored"),
            }
        }
    }

    /// Writes the manifest: the decision that the epoch is complete.
    fn put(&self, parts: Parts) {
        let Parts { epoch, terminal, triggered_at_ms, states } = parts;
        let mut operators: BTreeMap<OperatorId, OperatorState> = BTreeMap::new();
        for (subtask, state) in states {
            let (name, parallelism) = self.names.get(&subtask.operator).cloned().unwrap_or_default();
            operators
                .entry(subtask.operator)
                .or_insert_with(|| OperatorState { id: subtask.operator, name, parallelism, subtasks: Vec::new() })
                .subtasks
                .push(state);
        }
        let manifest = Manifest {
            job: self.job.id.clone(),
            incarnation: self.job.incarnation,
            epoch,
            triggered_at_ms: triggered_at_ms as i64,
            terminal,
            max_parallelism: self.job.plan.max_parallelism,
            operators: operators.into_values().collect(),
        };
        let bytes = manifest.files().map(|file| file.bytes).sum();
        let (manifests, stored) = (self.manifests.clone(), self.stored.0.clone());
        tokio::spawn(async move {
            let result = manifests.put(&manifest).await;
            // A leader that has left has no use for it: the manifest is consistent, or is not there.
            let _ = stored.send(Stored { epoch, triggered_at_ms, bytes, result }).await;
        });
    }

    async fn stored(&mut self, stored: Stored) {
        let Stored { epoch, triggered_at_ms, bytes, result } = stored;
        match result {
            Ok(()) => {
                let now = (self.clock)();
                self.progress.send_modify(|p| {
                    p.last_duration_ms = now.saturating_sub(triggered_at_ms);
                    p.last_completed_at_ms = now;
                    p.last_bytes = bytes;
                });
                self.step(Step::ManifestPut { epoch }).await;
            }
            // Somebody else has the job: to try again would only publish rows twice.
            Err(error) if error.code == Code::Conflict => self.end(Outcome::Failed { operator: None, error }).await,
            Err(error) => self.step(Step::ManifestFailed { epoch, reason: error.message }).await,
        }
    }
}

async fn leave(by: Option<Instant>) {
    match by {
        Some(by) => tokio::time::sleep_until(by).await,
        None => std::future::pending().await,
    }
}
