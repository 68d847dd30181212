//! The loop around the rules: one event at a time into [`Core`], its effects out to the log, the workers, the store and
//! the callers. Whatever may take a while runs beside it and comes back as an event.

use super::core::{Config, Core, Effect, Event, ProposalId, RequestId};
use super::mailbox::{Handle, Message, Response, SessionId};
use super::slow;
use super::stores::Stores;
use crate::manifests::savepoint::About;
use crate::meta::{Command, Meta};
use crate::raft::{Node, Output};
use bytes::Bytes;
use ef_proto::error::{Code, Error};
use ef_proto::rpc::Order;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How late a trigger, a time-out or a restart may be.
const TICK: Duration = Duration::from_millis(20);

/// Messages that may wait. A worker sends a handful a second; a full mailbox makes streams and callers wait.
const MAILBOX: usize = 8192;

/// Results of what runs beside the loop. Each belongs to an effect, of which there are few at a time.
const RESULTS: usize = 1024;

/// Entries after which the log is cut behind a snapshot.
const COMPACT_ENTRIES: u64 = 4096;

/// Milliseconds since the epoch, never going back.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

pub struct Options {
    pub config: Config,
    /// Makes ids and jitter.
    pub seed: u64,
    pub clock: Clock,
    /// Names this process where objects are created.
    pub nonce: u64,
}

/// What is replicated: a command, and who waits for it.
#[derive(Serialize, Deserialize)]
struct Entry {
    id: u64,
    /// Of the process that proposed it; another one's numbers mean nothing to us.
    by: u64,
    command: Command,
}

pub struct Leader {
    core: Core,
    node: Node,
    log: mpsc::Receiver<Output>,
    mailbox: mpsc::Receiver<Message>,
    results: (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    sessions: HashMap<SessionId, mpsc::Sender<Order>>,
    replies: HashMap<RequestId, oneshot::Sender<Result<Response, Error>>>,
    requests: u64,
    unproposed: VecDeque<Bytes>,
    stores: Arc<Stores>,
    options: Options,
    applied: u64,
    compacted: u64,
}

impl Leader {
    pub fn new(node: Node, log: mpsc::Receiver<Output>, options: Options) -> (Leader, Handle) {
        let (messages, mailbox) = mpsc::channel(MAILBOX);
        let core = Core::new(options.config.clone(), SmallRng::seed_from_u64(options.seed), (options.clock)());
        let leader = Leader {
            core,
            node,
            log,
            mailbox,
            results: mpsc::channel(RESULTS),
            sessions: HashMap::new(),
            replies: HashMap::new(),
            requests: 0,
            unproposed: VecDeque::new(),
            stores: Arc::new(Stores::new(options.nonce)),
            options,
            applied: 0,
            compacted: 0,
        };
        (leader, Handle::new(messages))
    }

    /// Until `stop` resolves, or the log has failed.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        let mut stop = std::pin::pin!(stop);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                () = &mut stop => break,
                output = self.log.recv() => match output {
                    Some(output) => self.output(output)?,
                    None => return Err(Error::new(Code::Internal, "the log's thread has ended")),
                },
                Some(event) = self.results.1.recv() => Some(event),
                Some(message) = self.mailbox.recv() => Some(self.message(message)),
                _ = tick.tick() => Some(Event::Tick),
            };
            if let Some(event) = event {
                self.step(event);
            }
        }
        self.node.stop();
        Ok(())
    }

    fn step(&mut self, event: Event) {
        self.hand_over();
        let now = (self.options.clock)();
        for effect in self.core.step(event, now) {
            self.execute(effect);
        }
    }

    fn output(&mut self, output: Output) -> Result<Option<Event>, Error> {
        Ok(match output {
            Output::Leader { term } => {
                tracing::info!(term, "this coordinator leads");
                Some(Event::Leader { term })
            }
            // With one voter nobody else leads; with three this process starts anew as a follower.
            Output::Follower { term } => {
                tracing::info!(term, "this coordinator follows");
                None
            }
            Output::Restored { index, data } => {
                (self.applied, self.compacted) = (index, index);
                Some(Event::Restored(Box::new(Meta::decode(&data)?)))
            }
            Output::Applied { index, data, .. } => {
                let entry: Entry = serde_json::from_slice(&data)
                    .map_err(|e| Error::corrupt(format!("log entry {index} does not read back: {e}")))?;
                self.applied = index;
                let id = if entry.by == self.options.nonce { entry.id } else { 0 };
                self.step(Event::Applied { id: ProposalId(id), command: entry.command });
                if self.applied - self.compacted >= COMPACT_ENTRIES {
                    self.node.compact(index, self.core.meta().encode().into());
                    self.compacted = index;
                }
                None
            }
        })
    }

    fn message(&mut self, message: Message) -> Event {
        match message {
            Message::Request { request, reply } => {
                self.requests += 1;
                let id = RequestId(self.requests);
                self.replies.insert(id, reply);
                Event::Request { id, request }
            }
            Message::Connected { session, hello, orders } => {
                self.sessions.insert(session, orders);
                Event::Connected { session, hello }
            }
            Message::Report { worker, session, report } => Event::Report { worker, session, report },
            Message::Disconnected { worker, session } => {
                self.sessions.remove(&session);
                Event::Disconnected { worker, session }
            }
        }
    }

    fn execute(&mut self, effect: Effect) {
        match effect {
            Effect::Propose { id, command } => self.propose(id, command),
            Effect::Send { worker, session, order } => {
                let taken = self.sessions.get(&session).map(|orders| orders.try_send(order));
                if let Some(Err(error)) = taken {
                    tracing::warn!(%worker, %error, "an order was not taken; the stream is closed");
                    self.sessions.remove(&session);
                }
            }
            Effect::Close { session } => drop(self.sessions.remove(&session)),
            Effect::Reply { id, result } => {
                if let Some(reply) = self.replies.remove(&id) {
                    // Whoever asked may have gone.
                    let _ = reply.send(result);
                }
            }
            Effect::Put { job, manifest } => {
                let (stores, place) = (self.stores.clone(), self.place(&job));
                let linger = self.options.config.reuse_epoch;
                self.beside(async move {
                    let epoch = manifest.epoch;
                    let result = async { stores.job(&job, place?).await?.put_recorded(&manifest).await }.await;
                    if linger {
                        // The negative control needs a crash between this and the log often enough.
                        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
                    }
                    Event::Stored { job, epoch, result }
                });
            }
            Effect::Load { job, epoch } => {
                let (stores, place) = (self.stores.clone(), self.place(&job));
                self.beside(async move {
                    let result = async { stores.job(&job, place?).await?.get(epoch).await.map(Arc::new) }.await;
                    Event::Loaded { job, epoch, result }
                });
            }
            Effect::Sweep { job, kept, last_completed } => {
                let (stores, place) = (self.stores.clone(), self.place(&job));
                self.beside(async move {
                    let result = async { stores.sweep(&job, place?, &kept, last_completed).await }.await;
                    if let Err(error) = &result {
                        tracing::warn!(job = %job, %error, "old checkpoints are not cleaned up yet");
                    }
                    Event::Swept { job, result }
                });
            }
            Effect::Copy { savepoint, job, epoch, path } => {
                let (stores, place) = (self.stores.clone(), self.place(&job));
                let about = self.core.meta().jobs.get(&job).map(|meta| About {
                    job_name: meta.name.clone(),
                    sql: meta.sql.clone(),
                    created_at_ms: self.core.meta().savepoints.get(&savepoint).map_or(0, |s| s.created_at_ms),
                });
                self.beside(async move {
                    let result = async { stores.copy_savepoint(&job, place?, epoch, &path, about).await }.await;
                    Event::Copied { savepoint, result }
                });
            }
            Effect::Dispose { id, savepoint, path } => {
                let stores = self.stores.clone();
                let job = self.core.meta().savepoints.get(&savepoint).map(|savepoint| savepoint.job.clone());
                let options = job.and_then(|job| self.place(&job).ok()).map(|place| place.options().clone());
                self.beside(async move {
                    let result = stores.dispose(&path, &options.unwrap_or_default()).await;
                    Event::Disposed { id, savepoint, result }
                });
            }
            Effect::Plan { id, request, job, from, state } => {
                let (stores, now) = (self.stores.clone(), (self.options.clock)());
                self.answer_or(id, async move { slow::submit(id, stores, request, job, from, state, now).await });
            }
            Effect::Replan { id, job, request } => match self.core.meta().jobs.get(&job).cloned() {
                Some(meta) => self.answer_or(id, async move { slow::replan(id, meta, request).await }),
                None => self.execute(Effect::Reply { id, result: Err(Error::new(Code::NotFound, "the job has gone")) }),
            },
            Effect::Explain { id, request } => self.answer(id, async move { slow::explain(request).await }),
            Effect::Describe { id, place } => {
                let stores = self.stores.clone();
                let job = match &place {
                    super::core::Described::Checkpoint(_, job) => Some(self.place(job)),
                    super::core::Described::Savepoint(..) => None,
                };
                let names = self.core.meta().jobs.iter().map(|(id, job)| (id.clone(), job.name.clone())).collect();
                self.answer(id, async move { slow::describe(stores, place, job, names).await });
            }
        }
    }

    /// Where a job keeps its checkpoints, and by which options.
    fn place(&self, job: &ef_proto::ids::JobId) -> Result<super::stores::Place, Error> {
        let meta = self.core.meta().jobs.get(job);
        let meta = meta.ok_or_else(|| Error::new(Code::NotFound, format!("there is no job `{job}`")))?;
        super::stores::Place::of(&meta.state_root, &meta.plan)
    }

    fn propose(&mut self, id: ProposalId, command: Command) {
        let entry = Entry { id: id.0, by: self.options.nonce, command };
        self.unproposed.push_back(serde_json::to_vec(&entry).expect("plain data").into());
        self.hand_over();
    }

    /// Decisions go to the log in their order; what it does not take now waits. Bounded by what is decided while the
    /// disk stands still: no reply, no checkpoint and no deployment goes on before its decision is back.
    fn hand_over(&mut self) {
        while let Some(bytes) = self.unproposed.front() {
            if let Err(error) = self.node.propose(bytes.clone()) {
                if error.code != Code::Unavailable {
                    tracing::error!(%error, "the log refuses a decision");
                    self.unproposed.pop_front();
                    continue;
                }
                return;
            }
            self.unproposed.pop_front();
        }
    }

    /// Runs beside the loop, and comes back.
    fn beside(&self, work: impl Future<Output = Event> + Send + 'static) {
        let results = self.results.0.clone();
        tokio::spawn(async move {
            // The loop has ended: so has the process.
            let _ = results.send(work.await).await;
        });
    }

    /// Runs beside the loop; an error answers the caller.
    fn answer_or(&mut self, id: RequestId, work: impl Future<Output = Result<Event, Error>> + Send + 'static) {
        let results = self.results.0.clone();
        let (reply, answer) = oneshot::channel();
        let Some(caller) = self.replies.insert(id, reply) else { return };
        tokio::spawn(async move {
            match work.await {
                Ok(event) => {
                    let _ = results.send(event).await;
                    let _ = match answer.await {
                        Ok(result) => caller.send(result),
                        Err(_) => caller.send(Err(Error::new(Code::Unavailable, "the coordinator is going down"))),
                    };
                }
                Err(error) => drop(caller.send(Err(error))),
            }
        });
    }

    /// Runs beside the loop and answers the caller.
    fn answer(&mut self, id: RequestId, work: impl Future<Output = Result<Response, Error>> + Send + 'static) {
        let Some(caller) = self.replies.remove(&id) else { return };
        tokio::spawn(async move {
            let _ = caller.send(work.await);
        });
    }
}
