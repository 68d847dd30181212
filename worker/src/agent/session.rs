//! A worker's session with the coordinator, as a machine that `host` steps: no clock, no I/O.
//!
//! What it promises:
//! - An order of an older term than one seen, or for an older incarnation of a region than the one held, has no effect;
//!   an order of a new term has none before the term is written down.
//! - Events are kept as state until the coordinator has no more use for them. What goes out is pulled from that state
//!   ([`Session::pull`]), and all of it goes out again on every new stream: neither a lost stream nor a stuck one loses
//!   an ack. Bounded therefore by what is held; only that a deployment which is not held has stopped is kept nowhere
//!   else, and the coordinator asks again.
//! - A region has one agent. A higher incarnation first ends the older one, and starts when that has gone, or after
//!   [`LEAVE_MS`], because a task that hangs in a system call may never go.
//! - A deployment is forgotten once it was cancelled and its tasks have gone, not before: what failed is repeated until
//!   the coordinator has cancelled it.

mod deployment;
#[cfg(test)]
mod tests;

use deployment::{Deployment, Stage};
use ef_proto::error::{Code, Error};
use ef_proto::ids::{DeploymentId, Epoch, Incarnation, JobId, OperatorId, SubtaskId};
use ef_proto::rpc::{self, Command, Deploy, Held, Hello, Order, OrderBody, Report};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How long tasks may take to leave.
pub const LEAVE_MS: u64 = 1_000;

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A stream is open. The first report that is pulled from here on is the Hello.
    Connected,
    Disconnected,
    Order(Order),
    /// The term that `KeepTerm` named is on disk.
    TermKept,
    Agent {
        deployment: DeploymentId,
        event: rpc::Event,
    },
    /// The agent has ended without a word: a bug of ours.
    AgentLost(DeploymentId),
    /// The process is told to end: all tasks leave, and no order counts any more.
    Shutdown,
    /// Time has passed; needed at [`Session::wake_at`].
    Tick,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Write it down, then say `TermKept`; where that fails, say `Disconnected`.
    KeepTerm(u64),
    /// The coordinator has taken us.
    Welcomed {
        heartbeat_interval_ms: u64,
    },
    /// Close the stream and dial again.
    Hangup(String),
    StartAgent {
        deployment: DeploymentId,
        deploy: Box<Deploy>,
    },
    Command {
        deployment: DeploymentId,
        command: Command,
    },
    /// Its tasks have gone.
    DropAgent(DeploymentId),
    /// For a person.
    Warn {
        job: Option<JobId>,
        message: String,
    },
}

/// Something to be said, whose content is looked up when it is said.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    Running(DeploymentId),
    Ended(DeploymentId, SubtaskId),
    Committed(DeploymentId, SubtaskId),
    /// An ack, or that there will be none.
    Answer(DeploymentId, Epoch, SubtaskId),
    Failed(DeploymentId),
    Stopped(DeploymentId),
}

/// The stream, as far as the rules know it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stream {
    Down,
    /// The Hello is still to be said.
    Open,
    /// The Hello is said; nothing else before the Welcome.
    Greeted,
    Welcomed,
}

#[derive(Clone, Debug)]
pub struct Session {
    /// Without term and deployments.
    identity: Hello,
    /// The highest seen, and written down.
    term: u64,
    stream: Stream,
    /// Of a new term, which is being written down.
    waiting: Option<Order>,
    deployments: BTreeMap<DeploymentId, Deployment>,
    outbox: VecDeque<Item>,
    queued: BTreeSet<Item>,
    shutdown: bool,
}

impl Session {
    /// `identity` with the highest term that was written down.
    pub fn new(identity: Hello) -> Session {
        Session {
            term: identity.term,
            identity,
            stream: Stream::Down,
            waiting: None,
            deployments: BTreeMap::new(),
            outbox: VecDeque::new(),
            queued: BTreeSet::new(),
            shutdown: false,
        }
    }

    /// Takes one event. The actions are to be executed in order.
    pub fn step(&mut self, event: Event, now_ms: u64) -> Vec<Action> {
        let mut out = Vec::new();
        match event {
            Event::Connected => self.open(Stream::Open),
            Event::Disconnected => self.open(Stream::Down),
            // What the old stream still brings is said again on the next one.
            Event::Order(_) if self.stream == Stream::Down || self.shutdown => {}
            Event::Order(order) => self.order(order, now_ms, &mut out),
            Event::TermKept => {
                // None: the stream broke meanwhile.
                if let Some(order) = self.waiting.take() {
                    self.term = order.term;
                    self.obey(order.body, now_ms, &mut out);
                }
            }
            Event::Agent { deployment, event } => self.agent(&deployment, event, now_ms, &mut out),
            Event::AgentLost(deployment) => self.agent_lost(&deployment, now_ms, &mut out),
            Event::Shutdown => self.shut_down(now_ms, &mut out),
            Event::Tick => self.tick(now_ms, &mut out),
        }
        out
    }

    /// When a `Tick` is needed next.
    pub fn wake_at(&self) -> Option<u64> {
        self.deployments.values().filter_map(Deployment::late_at).min()
    }

    /// Deployments whose tasks have not gone yet.
    pub fn agents(&self) -> usize {
        self.deployments.values().filter(|held| held.has_agent()).count()
    }

    /// Whether [`Session::pull`] may have something.
    pub fn has_reports(&self) -> bool {
        match self.stream {
            Stream::Open => true,
            Stream::Welcomed => !self.outbox.is_empty(),
            Stream::Down | Stream::Greeted => false,
        }
    }

    /// The next report for the stream, which must have room for it.
    pub fn pull(&mut self) -> Option<Report> {
        match self.stream {
            Stream::Down | Stream::Greeted => None,
            Stream::Open => {
                self.stream = Stream::Greeted;
                Some(Report::Hello(self.hello()))
            }
            Stream::Welcomed => loop {
                let item = self.outbox.pop_front()?;
                self.queued.remove(&item);
                // What has been overtaken meanwhile need not be said.
                if let Some(report) = self.report(item) {
                    return Some(report);
                }
            },
        }
    }

    fn hello(&self) -> Hello {
        let held = |(id, held): (&DeploymentId, &Deployment)| Held { deployment: id.clone(), phase: held.phase() };
        Hello { term: self.term, deployments: self.deployments.iter().map(held).collect(), ..self.identity.clone() }
    }

    fn report(&self, item: Item) -> Option<Report> {
        let held = |id: &DeploymentId| self.deployments.get(id).map(|held| &held.said);
        let (deployment, event) = match item {
            Item::Running(id) => held(&id)?.running.then_some((id, rpc::Event::Running))?,
            Item::Ended(id, subtask) => {
                let ended = held(&id)?.ended.contains(&subtask);
                ended.then_some((id, rpc::Event::Ended { subtask }))?
            }
            Item::Committed(id, subtask) => {
                let epoch = *held(&id)?.committed.get(&subtask)?;
                (id, rpc::Event::Committed { epoch, subtask })
            }
            Item::Answer(id, epoch, subtask) => {
                let event = held(&id)?.answers.get(&(epoch, subtask))?.clone();
                (id, event)
            }
            Item::Failed(id) => {
                let (operator, error) = held(&id)?.failed.clone()?;
                (id, rpc::Event::Failed { operator, error })
            }
            // Also of those that are not held: that is the answer to a Cancel.
            Item::Stopped(id) => (id, rpc::Event::Stopped),
        };
        Some(Report::Event { deployment, event })
    }

    fn open(&mut self, stream: Stream) {
        self.stream = stream;
        self.waiting = None;
        self.outbox.clear();
        self.queued.clear();
    }

    /// Puts something on its way out. Without a stream there is no need: the next one gets everything.
    fn say(&mut self, item: Item) {
        if self.stream != Stream::Down && self.queued.insert(item.clone()) {
            self.outbox.push_back(item);
        }
    }

    fn order(&mut self, order: Order, now_ms: u64, out: &mut Vec<Action>) {
        assert!(self.waiting.is_none(), "the host writes a term down before it takes the next order");
        if let OrderBody::Refused(Error { message, .. }) = order.body {
            return out.push(Action::Hangup(message));
        }
        if order.term < self.term {
            let message = format!("an order of term {} is refused: term {} was seen", order.term, self.term);
            return out.push(match order.body {
                OrderBody::Welcome { .. } => Action::Hangup(message),
                OrderBody::Command { deployment, .. } => Action::Warn { job: Some(deployment.job), message },
                OrderBody::Refused(_) => unreachable!("handled above"),
            });
        }
        if order.term > self.term {
            out.push(Action::KeepTerm(order.term));
            self.waiting = Some(order);
            return;
        }
        self.obey(order.body, now_ms, out);
    }

    fn obey(&mut self, body: OrderBody, now_ms: u64, out: &mut Vec<Action>) {
        match body {
            OrderBody::Welcome { heartbeat_interval_ms, .. } => {
                self.stream = Stream::Welcomed;
                self.say_everything();
                out.push(Action::Welcomed { heartbeat_interval_ms });
            }
            OrderBody::Refused(Error { message, .. }) => out.push(Action::Hangup(message)),
            OrderBody::Command { deployment, command } => match command {
                Command::Deploy(deploy) => self.deploy(deployment, deploy, now_ms, out),
                Command::Cancel => self.cancel(&deployment, now_ms, out),
                command => {
                    let Some(held) = self.deployments.get_mut(&deployment) else { return };
                    if let Some(command) = held.command(command) {
                        out.push(Action::Command { deployment, command });
                    }
                }
            },
        }
    }

    fn say_everything(&mut self) {
        let items: Vec<Item> = self.deployments.iter().flat_map(|(id, held)| held.items(id)).collect();
        items.into_iter().for_each(|item| self.say(item));
    }

    fn deploy(&mut self, id: DeploymentId, deploy: Box<Deploy>, now_ms: u64, out: &mut Vec<Action>) {
        if self.deployments.contains_key(&id) {
            return; // said before
        }
        let older = self.region(&id);
        if let Some(newest) = older.last().filter(|newest| newest.incarnation > id.incarnation) {
            let message = format!("the deployment {id} is ignored: {newest} is held");
            return out.push(Action::Warn { job: Some(id.job), message });
        }
        for old in older {
            self.cancel(&old, now_ms, out);
        }
        self.deployments.insert(id.clone(), Deployment::queued(deploy));
        self.start_if_free(&id, now_ms, out);
    }

    /// The deployments held of the same region, the newest last.
    fn region(&self, id: &DeploymentId) -> Vec<DeploymentId> {
        let at = |incarnation| DeploymentId { incarnation: Incarnation(incarnation), ..id.clone() };
        self.deployments.range(at(0)..=at(u64::MAX)).map(|(id, _)| id.clone()).collect()
    }

    /// Starts the newest deployment of a region, unless an older one still has time to leave.
    fn start_if_free(&mut self, of: &DeploymentId, now_ms: u64, out: &mut Vec<Action>) {
        let mut region = self.region(of);
        let Some(newest) = region.pop() else { return };
        if region.iter().any(|old| self.deployments[old].may_leave_until() > now_ms) {
            return;
        }
        let held = self.deployments.get_mut(&newest).expect("just listed");
        if let Some(deploy) = held.start() {
            out.push(Action::StartAgent { deployment: newest, deploy });
        }
    }

    fn cancel(&mut self, id: &DeploymentId, now_ms: u64, out: &mut Vec<Action>) {
        let Some(held) = self.deployments.get_mut(id) else { return self.say(Item::Stopped(id.clone())) };
        let running = matches!(held.stage, Stage::Starting | Stage::Running);
        held.cancel(now_ms);
        if running {
            out.push(Action::Command { deployment: id.clone(), command: Command::Cancel });
        } else if !held.has_agent() {
            self.forget(id, now_ms, out);
        }
    }

    fn forget(&mut self, id: &DeploymentId, now_ms: u64, out: &mut Vec<Action>) {
        self.deployments.remove(id);
        self.say(Item::Stopped(id.clone()));
        self.start_if_free(id, now_ms, out);
    }

    fn agent(&mut self, id: &DeploymentId, event: rpc::Event, now_ms: u64, out: &mut Vec<Action>) {
        let Some(held) = self.deployments.get_mut(id) else { return };
        if event == rpc::Event::Stopped {
            if !held.has_agent() {
                return;
            }
            out.push(Action::DropAgent(id.clone()));
            if held.cancelled {
                return self.forget(id, now_ms, out);
            }
            held.stage = Stage::Gone;
            return self.say(Item::Stopped(id.clone()));
        }
        let started = held.stage == Stage::Starting && event == rpc::Event::Running;
        if let Some(item) = held.event(id, event, now_ms) {
            self.say(item);
        }
        if started {
            let commands = self.deployments.get_mut(id).map(Deployment::take_later).unwrap_or_default();
            out.extend(commands.into_iter().map(|command| Action::Command { deployment: id.clone(), command }));
        }
    }

    fn agent_lost(&mut self, id: &DeploymentId, now_ms: u64, out: &mut Vec<Action>) {
        let error = Error::new(Code::Internal, format!("the agent of {id} has ended by itself"));
        self.fail(id, error, now_ms);
        self.agent(id, rpc::Event::Stopped, now_ms, out);
    }

    fn fail(&mut self, id: &DeploymentId, error: Error, now_ms: u64) {
        let Some(held) = self.deployments.get_mut(id) else { return };
        let failed = rpc::Event::Failed { operator: OperatorId(0), error };
        if let Some(item) = held.event(id, failed, now_ms) {
            self.say(item);
        }
    }

    fn shut_down(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        self.shutdown = true;
        self.waiting = None;
        let ids: Vec<DeploymentId> = self.deployments.keys().cloned().collect();
        for id in ids {
            let held = &self.deployments[&id];
            let running = matches!(held.stage, Stage::Starting | Stage::Running);
            let error = format!("worker {} is shutting down", self.identity.worker);
            self.fail(&id, Error::new(Code::Unavailable, error), now_ms);
            if running {
                out.push(Action::Command { deployment: id, command: Command::Cancel });
            } else if !self.deployments[&id].has_agent() {
                self.say(Item::Stopped(id));
            }
        }
    }

    fn tick(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        let mut waiting = Vec::new();
        for (id, held) in &mut self.deployments {
            if held.late_at().is_some_and(|at| at <= now_ms) {
                held.told_late = true;
                let message = format!("tasks of {id} have not left {LEAVE_MS} ms after they were told to");
                out.push(Action::Warn { job: Some(id.job.clone()), message });
                waiting.push(id.clone());
            }
        }
        for id in waiting {
            self.start_if_free(&id, now_ms, out);
        }
    }
}
