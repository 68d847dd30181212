//! The worker's loop: carries orders from the link to the session, the session's actions to the agents, and the agents'
//! events back. The rules are the session's; here is what they need of the world: the stream, the disk, the clock.
//!
//! No queue waits for another: an agent that takes no command is given up, and reports leave the session's state only
//! when the stream has room for them.

#[cfg(test)]
mod tests;

use super::home::Home;
use super::link::{self, Line};
use super::logs::Logs;
use super::run::{Agent, Means};
use super::session::{self, Action, Session};
use crate::clock::Clock;
use crate::config::{Bugs, WorkerConfig};
use crate::error::{Code, Error, Result};
use crate::exchange::Exchange;
use crate::metrics::Metered;
use crate::secrets::Secrets;
use crate::{resources, task};
use ef_proto::ids::DeploymentId;
use ef_proto::rpc::{self, Command, Deploy, Hello, Load, Report};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::time::{Instant, sleep_until, timeout};

/// Events of all agents that may wait. Each agent has a mailbox of its own behind it.
const EVENTS: usize = 1024;

/// How long the tasks have when the process is told to end, and how long the last words may take.
const LEAVE: Duration = Duration::from_millis(session::LEAVE_MS);
const GOODBYE: Duration = Duration::from_millis(300);

/// However often a coordinator wants a heartbeat, it costs something here.
const HEARTBEAT_MIN_MS: u64 = 50;

/// Troubles with the coordinator are told once until it is back: this many different ones.
const TROUBLES: usize = 64;

/// What a worker is.
pub struct Host {
    pub home: Home,
    /// Without term and deployments.
    pub identity: Hello,
    /// URLs, checked.
    pub coordinators: Vec<String>,
    pub clock: Arc<Clock>,
    /// The same time, for the tasks.
    pub task_clock: task::Clock,
    pub logs: Logs,
    /// Listens at the identity's data address.
    pub exchange: Arc<Exchange>,
    pub secrets: Secrets,
    pub bugs: Bugs,
}

impl Host {
    /// Runs until `shutdown`; `ready` is called after the first Welcome. Answers with the number of deployments whose
    /// tasks have not left.
    pub async fn run(
        mut self,
        ready: &mut (dyn FnMut() + Send),
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<usize> {
        self.identity.term = self.home.term()?;
        let mut link = link::dial(self.coordinators.clone(), self.identity.boot);
        let (events, mut agents) = mpsc::channel(EVENTS);
        let mut run = Run::new(self, events, ready);
        let mut shutdown = std::pin::pin!(shutdown);
        let mut leave_by = None;
        while leave_by.is_none() || run.session.agents() > 0 {
            let (reports, wake_at) = (run.waiting_reports(), run.wake_at());
            tokio::select! {
                () = &mut shutdown, if leave_by.is_none() => {
                    leave_by = Some(Instant::now() + LEAVE);
                    run.step(session::Event::Shutdown).await;
                }
                () = at(leave_by) => break,
                Some(event) = link.recv() => run.link(event).await,
                Some(event) = agents.recv() => run.agent(event).await,
                room = room(reports) => run.report(room).await,
                () = at(wake_at) => run.wake().await,
            }
        }
        let left = run.session.agents();
        run.goodbye(&mut link).await;
        Ok(left)
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

type Reports = mpsc::Sender<ef_proto::wire::generated::agent::Report>;
type Room = OwnedPermit<ef_proto::wire::generated::agent::Report>;

/// Room for one report in the stream; None: the stream is closed. For ever, if there is nothing to say.
async fn room(reports: Option<Reports>) -> Option<Room> {
    match reports {
        Some(reports) => reports.reserve_owned().await.ok(),
        None => std::future::pending().await,
    }
}

/// An agent that has not been dropped.
struct Running {
    /// Tells it from an earlier one of the same deployment.
    number: u64,
    commands: mpsc::Sender<Command>,
    metered: Arc<Mutex<Vec<Metered>>>,
}

/// Of the agent of this number. None: it has ended.
type AgentEvent = (u64, DeploymentId, Option<rpc::Event>);

struct Run<'a> {
    home: Arc<Home>,
    /// What each agent is given.
    means: Means,
    clock: Arc<Clock>,
    logs: Logs,
    session: Session,
    agents: BTreeMap<DeploymentId, Running>,
    /// Agents started so far.
    started: u64,
    events: mpsc::Sender<AgentEvent>,
    line: Option<Line>,
    /// We closed the stream ourselves, and said why.
    hung_up: bool,
    heartbeat: Duration,
    /// None before the Welcome.
    heartbeat_at: Option<Instant>,
    /// CPU seconds, and when they were read.
    used: (f64, u64),
    troubles: BTreeSet<String>,
    ready: Option<&'a mut (dyn FnMut() + Send)>,
}

impl<'a> Run<'a> {
    fn new(host: Host, events: mpsc::Sender<AgentEvent>, ready: &'a mut (dyn FnMut() + Send)) -> Run<'a> {
        let Host { home, identity, coordinators: _, clock, task_clock, logs, exchange, secrets, bugs } = host;
        let config = WorkerConfig {
            memory_bytes: identity.memory_bytes,
            slots: identity.slots,
            work_dir: home.work.clone(),
            secrets,
            durable_dir: Some(home.durable()),
            bugs,
        };
        Run {
            home: Arc::new(home),
            means: Means { config, clock: task_clock, root: None, exchange: Some(exchange) },
            session: Session::new(identity),
            used: (resources::usage().cpu_seconds, clock.steady_ms()),
            clock,
            logs,
            agents: BTreeMap::new(),
            started: 0,
            events,
            line: None,
            hung_up: false,
            heartbeat: Duration::from_secs(1),
            heartbeat_at: None,
            troubles: BTreeSet::new(),
            ready: Some(ready),
        }
    }

    /// Steps the session and executes what it says, in order.
    async fn step(&mut self, event: session::Event) {
        let mut actions = VecDeque::from(self.session.step(event, self.clock.steady_ms()));
        while let Some(action) = actions.pop_front() {
            let consequence = match action {
                Action::KeepTerm(term) => Some(self.keep_term(term).await),
                Action::Welcomed { heartbeat_interval_ms } => {
                    self.welcomed(heartbeat_interval_ms);
                    None
                }
                Action::Hangup(reason) => {
                    self.trouble(reason);
                    Some(self.hang_up())
                }
                Action::StartAgent { deployment, deploy } => self.start(deployment, deploy),
                Action::Command { deployment, command } => self.command(deployment, command),
                Action::DropAgent(deployment) => {
                    self.drop_agent(&deployment);
                    None
                }
                Action::Warn { job: Some(job), message } => {
                    tracing::warn!(%job, "{message}");
                    None
                }
                Action::Warn { job: None, message } => {
                    tracing::warn!("{message}");
                    None
                }
            };
            if let Some(event) = consequence {
                actions.extend(self.session.step(event, self.clock.steady_ms()));
            }
        }
    }

    async fn keep_term(&mut self, term: u64) -> session::Event {
        let home = self.home.clone();
        let kept = tokio::task::spawn_blocking(move || home.keep_term(term)).await;
        let kept = kept.unwrap_or_else(|e| Err(Error::new(Code::Internal, e.to_string())));
        match kept {
            Ok(()) => session::Event::TermKept,
            Err(error) => {
                self.trouble(format!("the coordinator's term {term} cannot be kept: {error}"));
                self.hang_up()
            }
        }
    }

    fn welcomed(&mut self, heartbeat_interval_ms: u64) {
        tracing::info!("the coordinator has taken this worker");
        self.troubles.clear();
        self.heartbeat = Duration::from_millis(heartbeat_interval_ms.max(HEARTBEAT_MIN_MS));
        self.heartbeat_at = Some(Instant::now());
        if let Some(line) = &self.line {
            line.welcomed.store(true, Ordering::Relaxed);
        }
        if let Some(ready) = self.ready.take() {
            ready();
        }
    }

    /// Says what keeps us from the coordinator, once.
    fn trouble(&mut self, what: String) {
        if self.troubles.len() >= TROUBLES {
            self.troubles.clear();
        }
        if !self.troubles.contains(&what) {
            tracing::warn!("{what}; dialling on");
            self.troubles.insert(what);
        }
    }

    fn hang_up(&mut self) -> session::Event {
        self.hung_up = true;
        self.disconnected()
    }

    fn disconnected(&mut self) -> session::Event {
        self.line = None;
        self.heartbeat_at = None;
        session::Event::Disconnected
    }

    async fn link(&mut self, event: link::Event) {
        match event {
            link::Event::Open(line) => {
                self.line = Some(line);
                self.hung_up = false;
                self.step(session::Event::Connected).await;
            }
            link::Event::Order(order) => self.step(session::Event::Order(order)).await,
            link::Event::Down { url, reason } => {
                if !self.hung_up {
                    let was_there = self.heartbeat_at.is_some();
                    let what = if was_there { "the connection to the coordinator" } else { "no connection to" };
                    self.trouble(format!("{what} {url}: {reason}"));
                }
                let event = self.disconnected();
                self.step(event).await;
            }
        }
    }

    /// Where to, if something is to be said and there is a stream.
    fn waiting_reports(&self) -> Option<Reports> {
        self.line.as_ref().filter(|_| self.session.has_reports()).map(|line| line.reports.clone())
    }

    async fn report(&mut self, room: Option<Room>) {
        match room {
            Some(room) => {
                if let Some(report) = self.session.pull() {
                    room.send((&report).into());
                }
            }
            // The link will say why.
            None => {
                self.line = None;
                self.step(session::Event::Disconnected).await;
            }
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        let passed = |at_ms: u64| Duration::from_millis(at_ms.saturating_sub(self.clock.steady_ms()));
        let tick = self.session.wake_at().map(|at_ms| Instant::now() + passed(at_ms));
        tick.into_iter().chain(self.heartbeat_at).min()
    }

    async fn wake(&mut self) {
        let now = Instant::now();
        if self.heartbeat_at.is_some_and(|at| at <= now) {
            self.heartbeat_at = Some(now + self.heartbeat);
            self.heartbeat();
        }
        self.step(session::Event::Tick).await;
    }

    /// A stream without room gets no heartbeat now, and one with newer numbers later. Before the Welcome there is none: the
    /// first word on a stream is the Hello.
    fn heartbeat(&mut self) {
        if self.heartbeat_at.is_none() {
            return;
        }
        let Some(reports) = self.line.as_ref().map(|line| line.reports.clone()) else { return };
        let Ok(room) = reports.try_reserve() else { return };
        room.send((&Report::Heartbeat(self.load())).into());
        if let Ok(room) = reports.try_reserve()
            && let Some((lines, lost)) = self.logs.take()
        {
            room.send((&Report::Log { lines, lost }).into());
        }
    }

    fn load(&mut self) -> Load {
        let now = (resources::usage().cpu_seconds, self.clock.steady_ms());
        let then = std::mem::replace(&mut self.used, now);
        let elapsed_ms = now.1.saturating_sub(then.1).max(1) as f64;
        let subtasks = self.agents.iter().flat_map(|(id, agent)| {
            let metered = agent.metered.lock().unwrap_or_else(PoisonError::into_inner);
            metered.iter().map(|metered| metered.load(id)).collect::<Vec<_>>()
        });
        Load {
            // Seconds to thousandths of a core: a million over the milliseconds that have passed.
            cpu_millis: ((now.0 - then.0).max(0.0) * 1e6 / elapsed_ms) as u32,
            resident_bytes: resources::resident_bytes(),
            subtasks: subtasks.collect(),
        }
    }

    fn start(&mut self, id: DeploymentId, deploy: Box<Deploy>) -> Option<session::Event> {
        self.started += 1;
        let number = self.started;
        let (region, incarnation) = (id.region, id.incarnation);
        tracing::info!(job = %id.job, region, %incarnation, slots = deploy.slots, "a deployment starts");
        let mut agent = Agent::start_with(id.clone(), self.means.clone());
        let (events, of) = (self.events.clone(), id.clone());
        tokio::spawn(async move {
            while let Some(event) = agent.events.recv().await {
                if events.send((number, of.clone(), Some(event))).await.is_err() {
                    return;
                }
            }
            // The host may have gone; then nobody waits for this.
            let _ = events.send((number, of, None)).await;
        });
        let (commands, metered) = (agent.commands, agent.metered);
        self.agents.insert(id.clone(), Running { number, commands, metered });
        self.command(id, Command::Deploy(deploy))
    }

    fn command(&mut self, id: DeploymentId, command: Command) -> Option<session::Event> {
        let agent = self.agents.get(&id)?;
        if agent.commands.try_send(command).is_ok() {
            return None;
        }
        // Its mailbox is far larger than what is ever under way: it does not take anything any more.
        tracing::error!(job = %id.job, "the agent of {id} takes no commands");
        self.drop_agent(&id);
        Some(session::Event::AgentLost(id))
    }

    fn drop_agent(&mut self, id: &DeploymentId) {
        // None: it was lost, and dropped then.
        if self.agents.contains_key(id) {
            // Its last figures: a job may be shorter than the time between two heartbeats.
            self.heartbeat();
            self.agents.remove(id);
            tracing::info!(job = %id.job, region = id.region, incarnation = %id.incarnation, "a deployment has gone");
        }
    }

    async fn agent(&mut self, (number, deployment, event): AgentEvent) {
        if self.agents.get(&deployment).is_none_or(|agent| agent.number != number) {
            return; // the last words of one that was dropped
        }
        if let Some(rpc::Event::Failed { error, .. }) = &event {
            tracing::warn!(job = %deployment.job, "{deployment} has failed: {error}");
        }
        self.step(match event {
            Some(event) => session::Event::Agent { deployment, event },
            None => session::Event::AgentLost(deployment),
        })
        .await;
    }

    /// Says what is still to be said, and closes the stream from our side.
    async fn goodbye(mut self, link: &mut mpsc::Receiver<link::Event>) {
        let Some(Line { reports, hangup, .. }) = self.line.take() else { return };
        let words = async {
            while let Some(report) = self.session.pull() {
                if reports.send((&report).into()).await.is_err() {
                    return;
                }
            }
            drop(reports);
            // The coordinator closes its side when it has heard everything.
            while let Some(event) = link.recv().await {
                if matches!(event, link::Event::Down { .. }) {
                    return;
                }
            }
        };
        // Whoever does not listen will miss our heartbeats.
        let _ = timeout(GOODBYE, words).await;
        drop(hangup);
    }
}
