//! The agent's loop, one for each deployment: commands in, task events in; control messages, uploads and coordinator
//! events out.
//!
//! A deployment that is told to leave does so at any time, also while its state is being restored. `Stopped` is said
//! once nobody is left who could do anything in its name: no thread of a task, and none that still builds them.

#[cfg(test)]
mod tests;

use super::deploy::{Deployment, Started, deploy};
use crate::config::WorkerConfig;
use crate::error::{Code, Error, Result};
use crate::exchange::Exchange;
use crate::metrics::Metered;
use crate::state::{Origin, Root, Staged, upload};
use crate::task::{Clock, Control, NodeSnapshot, TaskEvent};
use ef_proto::checkpoint::SubtaskState;
use ef_proto::ids::{DeploymentId, Epoch, OperatorId};
use ef_proto::plan::Plan;
use ef_proto::rpc::{Command, Deploy, Event};
use ef_store::{Location, Options, Patience};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};
use tracing::Instrument;

/// Commands and events that may wait. Each is small; the tasks' data does not pass here.
const MAILBOX: usize = 1024;

/// The coordinator's end.
pub struct AgentHandle {
    pub commands: mpsc::Sender<Command>,
    pub events: mpsc::Receiver<Event>,
    /// The deployed job's counters; empty until it is deployed.
    pub metered: Arc<Mutex<Vec<Metered>>>,
}

/// What an agent works with.
#[derive(Clone)]
pub struct Means {
    pub config: WorkerConfig,
    pub clock: Clock,
    /// Where the job's checkpoints lie. None: in `jobs/<job>` of the place that its `Deploy` names.
    pub root: Option<Root>,
    /// The way to other workers, which all deployments share; None: there are none.
    pub exchange: Option<Arc<Exchange>>,
}

pub struct Agent {
    id: DeploymentId,
    means: Means,
    events: mpsc::Sender<Event>,
    /// For the deployment, and through it for its tasks: once it has been given away, the channel closes when the last
    /// of them has gone.
    tasks: Option<mpsc::Sender<TaskEvent>>,
    metered: Arc<Mutex<Vec<Metered>>>,
    stage: Stage,
    /// A failure has been reported, or the deployment was cancelled: what follows is fallout.
    leaving: bool,
}

enum Stage {
    Idle,
    /// State is being restored and tasks are being started. Their events wait until all of them run.
    Starting(JoinHandle<std::result::Result<Deployed, Failed>>),
    Deployed {
        job: Deployed,
        /// Under way; one for every subtask of a checkpoint at most.
        uploads: Vec<(Epoch, AbortHandle)>,
    },
    /// Nothing is deployed any more, or never came to be.
    Gone,
}

struct Deployed {
    root: Root,
    started: Vec<Started>,
    metered: Vec<Metered>,
}

type Failed = (OperatorId, Error);

impl Agent {
    /// Starts the agent of one deployment on the current tokio runtime. `root`: where the job's checkpoints go.
    pub fn start(id: DeploymentId, config: WorkerConfig, clock: Clock, root: Root) -> AgentHandle {
        Agent::start_with(id, Means { config, clock, root: Some(root), exchange: None })
    }

    pub fn start_with(id: DeploymentId, means: Means) -> AgentHandle {
        let (commands, commands_rx) = mpsc::channel(MAILBOX);
        let (events, events_rx) = mpsc::channel(MAILBOX);
        let (tasks, tasks_rx) = mpsc::channel(MAILBOX);
        let metered = Arc::new(Mutex::new(Vec::new()));
        let span = tracing::info_span!("deployment", job = %id.job, region = id.region, incarnation = %id.incarnation);
        let counters = metered.clone();
        let agent =
            Agent { id, means, events, tasks: Some(tasks), metered: counters, stage: Stage::Idle, leaving: false };
        tokio::spawn(agent.run(commands_rx, tasks_rx).instrument(span));
        AgentHandle { commands, events: events_rx, metered }
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>, mut tasks: mpsc::Receiver<TaskEvent>) {
        let mut stopped = false;
        loop {
            let heard = self.hears_tasks() && !stopped;
            let out = tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.command(command),
                    // The coordinator, or the host, is gone. In one process that is the end.
                    None => break,
                },
                deployed = starting(&mut self.stage) => self.deployed(deployed),
                event = tasks.recv(), if heard => match event {
                    Some(event) => self.task_event(event),
                    None => {
                        stopped = true;
                        self.stage = Stage::Gone;
                        vec![Event::Stopped]
                    }
                },
            };
            for event in out {
                if self.events.send(event).await.is_err() {
                    break;
                }
            }
        }
        self.cancel();
    }

    /// Whether the tasks' events are to be heard: once all of them run, or none of them counts any more.
    fn hears_tasks(&self) -> bool {
        matches!(self.stage, Stage::Deployed { .. } | Stage::Gone)
    }

    fn control(&self, message: &Control) {
        if let Stage::Deployed { job, .. } = &self.stage {
            job.started.iter().for_each(|started| started.control.control(message.clone()));
        }
    }

    fn command(&mut self, command: Command) -> Vec<Event> {
        match command {
            Command::Deploy(deploy) => self.deploy(*deploy),
            // While the tasks are being started there is nobody to hear these, and nobody sends them.
            Command::Trigger { epoch } => self.control(&Control::Trigger(epoch)),
            Command::Complete { epoch } => self.control(&Control::Complete(epoch)),
            Command::Abort { epoch } => {
                self.abandon(epoch);
                self.control(&Control::Abort(epoch));
            }
            Command::Stop { drain } => self.control(&Control::Stop { drain }),
            Command::Cancel => self.cancel(),
        }
        Vec::new()
    }

    /// Tells everybody to leave.
    fn cancel(&mut self) {
        self.leaving = true;
        // Before its Deploy: the deployment will not come to be.
        self.tasks = None;
        match std::mem::replace(&mut self.stage, Stage::Gone) {
            // A download is given up. What is being built on a thread comes to its end, and its tasks leave at once,
            // because nobody takes them: see `Drop for Started`.
            Stage::Starting(starting) => starting.abort(),
            Stage::Deployed { job, uploads } => {
                uploads.iter().for_each(|(_, upload)| upload.abort());
                leave(&job.started);
                self.stage = Stage::Deployed { job, uploads: Vec::new() };
            }
            Stage::Idle | Stage::Gone => {}
        }
    }

    /// Nobody waits for these uploads any more: on a store that is out of reach they would pile up.
    fn abandon(&mut self, epoch: Epoch) {
        let Stage::Deployed { uploads, .. } = &mut self.stage else { return };
        for (_, upload) in uploads.extract_if(.., |(of, _)| *of <= epoch) {
            upload.abort();
        }
    }

    fn deploy(&mut self, command: Deploy) {
        // Said twice, it means the same deployment.
        let Some(tasks) = self.tasks.take() else { return };
        let (id, means) = (self.id.clone(), self.means.clone());
        self.stage = Stage::Starting(tokio::spawn(async move {
            let root = match means.root.clone() {
                Some(root) => root,
                None => open(&command, &id).await.map_err(|error| (OperatorId(0), error))?,
            };
            let (started, metered) = deploy(deployment(id, means, root.clone(), tasks), command).await?;
            Ok(Deployed { root, started, metered })
        }));
    }

    fn deployed(&mut self, deployed: std::result::Result<Deployed, Failed>) -> Vec<Event> {
        match deployed {
            Ok(mut job) => {
                *self.metered.lock().unwrap_or_else(PoisonError::into_inner) = std::mem::take(&mut job.metered);
                self.stage = Stage::Deployed { job, uploads: Vec::new() };
                vec![Event::Running]
            }
            Err((operator, error)) => {
                self.stage = Stage::Gone;
                self.leaving = true;
                vec![Event::Failed { operator, error }]
            }
        }
    }

    fn task_event(&mut self, event: TaskEvent) -> Vec<Event> {
        match event {
            TaskEvent::Failed { operator, error } => {
                let first = !self.leaving;
                self.cancel();
                if first { vec![Event::Failed { operator, error }] } else { Vec::new() }
            }
            // The end of them all is the end of the channel.
            TaskEvent::Exited => Vec::new(),
            _ if self.leaving => Vec::new(),
            TaskEvent::Snapshot { epoch, nodes } => {
                nodes.into_iter().filter_map(|node| self.acknowledge(epoch, node)).collect()
            }
            TaskEvent::Declined { epoch, subtask, reason } => vec![Event::Declined { epoch, subtask, reason }],
            TaskEvent::Committed { epoch, subtask } => vec![Event::Committed { epoch, subtask }],
            TaskEvent::Ended { subtasks } => subtasks.into_iter().map(|subtask| Event::Ended { subtask }).collect(),
        }
    }

    /// Stateless and blob-only snapshots are acked at once, others when their files are in the store.
    fn acknowledge(&mut self, epoch: Epoch, node: NodeSnapshot) -> Option<Event> {
        let Stage::Deployed { job, uploads } = &mut self.stage else { return None };
        let NodeSnapshot { subtask, blob, staged } = node;
        let Some(staged) = staged else {
            let state = SubtaskState { index: subtask.index, blob, ..SubtaskState::default() };
            return Some(Event::Acked { epoch, subtask, state });
        };
        let control = job.started.iter().find(|s| s.subtasks.contains(&subtask)).map(|s| s.control.clone());
        let (root, events) = (job.root.clone(), self.events.clone());
        let origin =
            Origin { operator: subtask.operator, subtask: subtask.index, incarnation: self.id.incarnation, epoch };
        let upload = tokio::spawn(async move {
            let sequence = staged.sequence;
            let event = match upload_boxed(root, staged, origin).await {
                Ok(mut state) => {
                    // Before the ack: the store must know the names when the checkpoint completes.
                    if let Some(control) = control {
                        control.control(Control::Uploaded { subtask, sequence, files: state.keyed.clone() });
                    }
                    state.blob = blob;
                    Event::Acked { epoch, subtask, state }
                }
                Err(error) => Event::Declined { epoch, subtask, reason: error.message },
            };
            // The coordinator may have gone; then nobody waits for this ack.
            let _ = events.send(event).await;
        });
        uploads.retain(|(_, upload)| !upload.is_finished());
        uploads.push((epoch, upload.abort_handle()));
        None
    }
}

/// All that a deployment is given, in one place.
fn deployment(id: DeploymentId, means: Means, root: Root, events: mpsc::Sender<TaskEvent>) -> Deployment {
    let Means { config, clock, root: _, exchange } = means;
    Deployment { id, config, clock, root, exchange, events }
}

/// The place of a job's checkpoints, as the coordinator named it.
async fn open(command: &Deploy, id: &DeploymentId) -> Result<Root> {
    let (plan, state, job) = (command.plan.clone(), command.state.clone(), id.job.0.clone());
    // A directory on a network's file system may take its time.
    let opening = tokio::task::spawn_blocking(move || {
        let options = Options::parse(&Plan::decode(&plan)?.config)?;
        Ok(Root::open(&Location::parse(&state)?, &options, Patience::Full)?.below("jobs").below(&job))
    });
    opening.await.map_err(|e| Error::new(Code::Internal, format!("opening `{}`: {e}", command.state)))?
}

/// Waits until the tasks run, or are known not to; for ever in any other stage.
async fn starting(stage: &mut Stage) -> std::result::Result<Deployed, Failed> {
    match stage {
        Stage::Starting(starting) => match starting.await {
            Ok(deployed) => deployed,
            Err(e) => Err((OperatorId(0), Error::new(Code::Internal, format!("deployment: {e}")))),
        },
        _ => std::future::pending().await,
    }
}

fn leave(started: &[Started]) {
    started.iter().for_each(|started| started.control.leave());
}

/// A task whose agent has no use for it, or has lost it, must not run on.
impl Drop for Started {
    fn drop(&mut self) {
        self.control.leave();
    }
}

/// Boxed, because the compiler cannot see through the streams in `upload` that the future is Send.
fn upload_boxed(
    root: Root,
    staged: Staged,
    origin: Origin,
) -> Pin<Box<dyn Future<Output = Result<SubtaskState>> + Send>> {
    Box::pin(async move { upload(&root, staged, origin).await })
}

/// A panic in a task is a bug of ours, and fails the job like any other error.
pub(super) fn panicked(payload: &(dyn std::any::Any + Send)) -> Error {
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    Error::new(Code::Internal, format!("a task panicked: {text}"))
}
