//! The agent's loop: commands in, task events in; control messages, uploads and coordinator events out.

use super::deploy::{Deployment, Started, deploy};
use crate::config::WorkerConfig;
use crate::error::{Code, Error, Result};
use crate::exchange::Exchange;
use crate::metrics::Metered;
use crate::state::{Origin, Root, Staged, upload};
use crate::task::{Clock, Control, NodeSnapshot, TaskEvent};
use ef_proto::checkpoint::SubtaskState;
use ef_proto::ids::{DeploymentId, Epoch};
use ef_proto::rpc::{Command, Deploy, Event};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// Commands and events that may wait. Each is small; the tasks' data does not pass here.
const MAILBOX: usize = 1024;

/// The coordinator's end.
pub struct AgentHandle {
    pub commands: mpsc::Sender<Command>,
    pub events: mpsc::Receiver<Event>,
    /// The deployed job's counters; empty until it is deployed.
    pub metered: Arc<Mutex<Vec<Metered>>>,
}

pub struct Agent {
    id: DeploymentId,
    config: WorkerConfig,
    clock: Clock,
    /// Where the job's checkpoints lie.
    root: Root,
    /// The way to other workers; None: there are none.
    exchange: Option<Arc<Exchange>>,
    events: mpsc::Sender<Event>,
    tasks: mpsc::Sender<TaskEvent>,
    metered: Arc<Mutex<Vec<Metered>>>,
    job: Option<Job>,
}

struct Job {
    started: Vec<Started>,
    running: usize,
    /// Under way; one for every subtask of a checkpoint at most.
    uploads: Vec<(Epoch, AbortHandle)>,
    /// A failure has been reported, or the job was cancelled: what follows is fallout.
    leaving: bool,
}

impl Agent {
    /// Starts the agent of one deployment on the current tokio runtime. `root`: where the job's checkpoints go.
    pub fn start(
        id: DeploymentId,
        config: WorkerConfig,
        clock: Clock,
        root: Root,
        exchange: Option<Arc<Exchange>>,
    ) -> AgentHandle {
        let (commands, commands_rx) = mpsc::channel(MAILBOX);
        let (events, events_rx) = mpsc::channel(MAILBOX);
        let (tasks, tasks_rx) = mpsc::channel(MAILBOX);
        let metered = Arc::new(Mutex::new(Vec::new()));
        let agent = Agent { id, config, clock, root, exchange, events, tasks, metered: metered.clone(), job: None };
        tokio::spawn(agent.run(commands_rx, tasks_rx));
        AgentHandle { commands, events: events_rx, metered }
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>, mut tasks: mpsc::Receiver<TaskEvent>) {
        loop {
            let out = tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.command(command).await,
                    // The coordinator is gone. In one process that is the end.
                    None => break,
                },
                Some(event) = tasks.recv() => self.task_event(event),
            };
            for event in out {
                if self.events.send(event).await.is_err() {
                    break;
                }
            }
        }
        self.control(&Control::Cancel);
    }

    fn control(&self, message: &Control) {
        for started in self.job.iter().flat_map(|job| &job.started) {
            started.control.control(message.clone());
        }
    }

    async fn command(&mut self, command: Command) -> Vec<Event> {
        match command {
            Command::Deploy(deploy) => self.deploy(*deploy).await,
            Command::Trigger { epoch } => self.pass(Control::Trigger(epoch)),
            Command::Complete { epoch } => self.pass(Control::Complete(epoch)),
            Command::Abort { epoch } => {
                self.abandon(epoch);
                self.pass(Control::Abort(epoch))
            }
            Command::Stop { drain } => self.pass(Control::Stop { drain }),
            Command::Cancel => {
                if let Some(job) = &mut self.job {
                    job.leaving = true;
                    if job.running == 0 {
                        return vec![Event::Stopped];
                    }
                }
                self.pass(Control::Cancel)
            }
        }
    }

    fn pass(&self, message: Control) -> Vec<Event> {
        self.control(&message);
        Vec::new()
    }

    /// Nobody waits for these uploads any more: on a store that is out of reach they would pile up.
    fn abandon(&mut self, epoch: Epoch) {
        let Some(job) = &mut self.job else { return };
        for (_, upload) in job.uploads.extract_if(.., |(of, _)| *of <= epoch) {
            upload.abort();
        }
    }

    async fn deploy(&mut self, command: Deploy) -> Vec<Event> {
        let deployment = Deployment {
            id: self.id.clone(),
            config: self.config.clone(),
            clock: self.clock.clone(),
            root: self.root.clone(),
            exchange: self.exchange.clone(),
            events: self.tasks.clone(),
        };
        match deploy(deployment, command).await {
            Ok((started, metered)) => {
                *self.metered.lock().unwrap_or_else(PoisonError::into_inner) = metered;
                self.job = Some(Job { running: started.len(), started, uploads: Vec::new(), leaving: false });
                vec![Event::Running]
            }
            Err((operator, error)) => vec![Event::Failed { operator, error }, Event::Stopped],
        }
    }

    fn task_event(&mut self, event: TaskEvent) -> Vec<Event> {
        let Some(job) = &mut self.job else { return Vec::new() };
        match event {
            TaskEvent::Snapshot { epoch, nodes } => {
                nodes.into_iter().filter_map(|node| self.acknowledge(epoch, node)).collect()
            }
            TaskEvent::Declined { epoch, subtask, reason } => vec![Event::Declined { epoch, subtask, reason }],
            TaskEvent::Committed { epoch, subtask } => vec![Event::Committed { epoch, subtask }],
            TaskEvent::Ended { subtasks } => subtasks.into_iter().map(|subtask| Event::Ended { subtask }).collect(),
            TaskEvent::Failed { operator, error } => {
                let first = !std::mem::replace(&mut job.leaving, true);
                self.control(&Control::Cancel);
                if first { vec![Event::Failed { operator, error }] } else { Vec::new() }
            }
            TaskEvent::Exited => {
                job.running -= 1;
                if job.running == 0 { vec![Event::Stopped] } else { Vec::new() }
            }
        }
    }

    /// Stateless and blob-only snapshots are acked at once, others when their files are in the store.
    fn acknowledge(&mut self, epoch: Epoch, node: NodeSnapshot) -> Option<Event> {
        let job = self.job.as_mut().expect("snapshots come from tasks of a job");
        let NodeSnapshot { subtask, blob, staged } = node;
        let Some(staged) = staged else {
            let state = SubtaskState { index: subtask.index, blob, ..SubtaskState::default() };
            return Some(Event::Acked { epoch, subtask, state });
        };
        let control = job.started.iter().find(|s| s.subtasks.contains(&subtask)).map(|s| s.control.clone());
        let (root, events) = (self.root.clone(), self.events.clone());
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
        job.uploads.retain(|(_, upload)| !upload.is_finished());
        job.uploads.push((epoch, upload.abort_handle()));
        None
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
