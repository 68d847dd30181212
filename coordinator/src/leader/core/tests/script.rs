//! A scripted cluster around the rules: log and store answer at once unless they are told to stand still, workers do
//! what the test says, and time stands still unless it is moved. What happened is kept in words, in its order.

use super::super::{Config, Core, Effect, Event, ProposalId, Replan, RequestId};
use crate::leader::SessionId;
use crate::leader::mailbox::{Request, Response};
use crate::meta::{Command, Job, JobState, Submitted};
use crate::planner::{self, ModelInspector, PlanOptions};
use ef_proto::checkpoint::{Manifest, SubtaskState};
use ef_proto::error::{Code, Error};
use ef_proto::ids::{DeploymentId, Epoch, Incarnation, JobId, OperatorId, SubtaskId, WorkerId};
use ef_proto::place::Tier;
use ef_proto::plan::{Model, OperatorKind, Plan};
use ef_proto::rpc::{self, Deploy, Held, Hello, Order, OrderBody, Phase, Report};
use ef_proto::schema::Schema;
use ef_proto::wire::generated::control::SubmitResponse;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Two regions: one that counts by key, and one that only passes rows on.
pub const SQL: &str = "
CREATE TABLE a (k BIGINT, v BIGINT) WITH ('connector' = 'datagen');
CREATE TABLE counts (k BIGINT, n BIGINT) WITH ('connector' = 'blackhole');
CREATE TABLE b (k BIGINT, v BIGINT) WITH ('connector' = 'datagen');
CREATE TABLE copies (k BIGINT, v BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO counts SELECT k, COUNT(*) FROM a GROUP BY k;
INSERT INTO copies SELECT k, v FROM b;
";

pub const COUNTS: u32 = 0;
pub const COPIES: u32 = 1;

struct NoModels;

impl ModelInspector for NoModels {
    fn inspect(&self, _: &str, _: &Schema, _: &Schema, _: &BTreeMap<String, String>) -> Result<Model, String> {
        Err("there is no runtime".into())
    }
}

/// `overrides`: of operators by a part of their name.
pub fn plan(settings: &str, parallelism: u32, overrides: &[(&str, u32)]) -> Plan {
    let make = |overrides: BTreeMap<OperatorId, u32>| {
        let options = PlanOptions { name: "job".into(), parallelism: Some(parallelism), overrides };
        planner::plan(&format!("{settings}{SQL}"), &BTreeMap::new(), options, &NoModels).expect("plans")
    };
    let plain = make(BTreeMap::new());
    let id = |name: &str| plain.operators.iter().find(|op| op.name.contains(name)).expect("it is there").id;
    make(overrides.iter().map(|(name, parallelism)| (id(name), *parallelism)).collect())
}

#[derive(Default)]
pub struct Worker {
    pub session: Option<SessionId>,
    pub boot: u64,
    pub slots: u32,
    pub held: BTreeMap<DeploymentId, (Phase, Deploy)>,
    /// Says Running to a Deploy, acks a Trigger, commits a Complete.
    pub runs: bool,
    pub acks: bool,
    pub commits: bool,
}

const STEP_MS: u64 = 250;

pub struct Cluster {
    pub core: Core,
    pub now: u64,
    config: Config,
    term: u64,
    log: Vec<Command>,
    log_stands_still: bool,
    proposed: VecDeque<(ProposalId, Command)>,
    store_stands_still: bool,
    /// How many objects the next sweeps delete; None: the store is away. None left: nothing to delete.
    pub sweeps: VecDeque<Option<usize>>,
    puts: VecDeque<(JobId, Arc<Manifest>)>,
    pub store: BTreeMap<(JobId, Epoch), Arc<Manifest>>,
    pub workers: BTreeMap<&'static str, Worker>,
    pub replies: BTreeMap<RequestId, Result<Response, Error>>,
    /// Everything that went out, in words.
    pub said: Vec<String>,
    pub copies: Vec<(String, Epoch)>,
    /// What a rescale makes of the job.
    pub replan: Option<Plan>,
    sessions: u64,
    requests: u64,
}

impl Cluster {
    pub fn new() -> Cluster {
        Cluster::with(Config {
            heartbeat_interval_ms: 1_000,
            heartbeat_timeout_ms: 10_000,
            state: "state".into(),
            skip_fence: false,
            reuse_epoch: false,
        })
    }

    fn with(config: Config) -> Cluster {
        let now = 1_000_000;
        let mut cluster = Cluster {
            core: Core::new(config.clone(), SmallRng::seed_from_u64(1), now),
            now,
            config,
            term: 1,
            log: Vec::new(),
            log_stands_still: false,
            proposed: VecDeque::new(),
            store_stands_still: false,
            sweeps: VecDeque::new(),
            puts: VecDeque::new(),
            store: BTreeMap::new(),
            workers: BTreeMap::new(),
            replies: BTreeMap::new(),
            said: Vec::new(),
            copies: Vec::new(),
            replan: None,
            sessions: 0,
            requests: 0,
        };
        cluster.step(Event::Leader { term: 1 });
        cluster
    }

    /// With these workers of that many slots, and the job `j` running on them.
    pub fn running(settings: &str, parallelism: u32, workers: &[(&'static str, u32)]) -> Cluster {
        let mut cluster = Cluster::new();
        for (worker, slots) in workers {
            cluster.start(worker, *slots);
        }
        cluster.submit("j", &plan(settings, parallelism, &[]));
        assert_eq!(cluster.job("j").state, JobState::Running, "{:#?}", cluster.said);
        cluster
    }

    pub fn step(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for effect in self.core.step(event, self.now) {
                self.execute(effect, &mut events);
            }
        }
    }

    /// Lets time pass as the leader's loop sees it: in small steps, workers that are connected alive at each.
    pub fn pass(&mut self, ms: u64) {
        for _ in 0..ms / STEP_MS {
            self.moment(STEP_MS);
        }
        if !ms.is_multiple_of(STEP_MS) {
            self.moment(ms % STEP_MS);
        }
    }

    fn moment(&mut self, ms: u64) {
        self.now += ms;
        let alive: Vec<_> = self.workers.iter().filter_map(|(id, worker)| Some((*id, worker.session?))).collect();
        for (id, session) in alive {
            let report = Report::Heartbeat(rpc::Load::default());
            self.step(Event::Report { worker: WorkerId(id.into()), session, report });
        }
        self.step(Event::Tick);
    }

    fn execute(&mut self, effect: Effect, events: &mut VecDeque<Event>) {
        match effect {
            Effect::Propose { id, command } if self.log_stands_still => self.proposed.push_back((id, command)),
            Effect::Propose { id, command } => self.decide(id, command, events),
            Effect::Send { worker, session, order } => self.order(worker, session, order, events),
            Effect::Close { session } => {
                self.said.push(format!("close {}", session.0));
                for worker in self.workers.values_mut().filter(|worker| worker.session == Some(session)) {
                    worker.session = None;
                }
            }
            Effect::Reply { id, result } => drop(self.replies.insert(id, result)),
            Effect::Put { job, manifest } if self.store_stands_still => self.puts.push_back((job, manifest)),
            Effect::Put { job, manifest } => events.push_back(self.put(job, manifest)),
            Effect::Load { job, epoch } => {
                let found = self.store.get(&(job.clone(), epoch)).cloned();
                let result = found.ok_or_else(|| Error::new(Code::NotFound, "no such manifest"));
                events.push_back(Event::Loaded { job, epoch, result });
            }
            Effect::Sweep { job, kept, last_completed } => {
                let kept: Vec<u64> = kept.iter().map(|epoch| epoch.0).collect();
                let last = last_completed.map_or("the end".to_string(), |epoch| epoch.to_string());
                self.said.push(format!("sweep all but {kept:?} up to {last}"));
                let away = || Err(Error::new(Code::Unavailable, "the store is away"));
                let result = self.sweeps.pop_front().unwrap_or(Some(0)).map_or_else(away, Ok);
                events.push_back(Event::Swept { job, result });
            }
            Effect::Copy { savepoint, epoch, .. } => {
                self.copies.push((savepoint.clone(), epoch));
                events.push_back(Event::Copied { savepoint, result: Ok(7) });
            }
            Effect::Dispose { id, savepoint, .. } => {
                events.push_back(Event::Disposed { id, savepoint, result: Ok(()) })
            }
            Effect::Replan { id, job, request } => {
                let plan = self.replan.as_ref().expect("a test that rescales says to what").encode();
                let replan = Box::new(Replan { plan, parallelism: request.parallelism, overrides: BTreeMap::new() });
                events.push_back(Event::Replanned { id, job, dry_run: request.dry_run, replan });
            }
            Effect::Plan { .. } | Effect::Explain { .. } | Effect::Describe { .. } => {}
        }
    }

    fn decide(&mut self, id: ProposalId, command: Command, events: &mut VecDeque<Event>) {
        self.log.push(command.clone());
        self.said.push(match &command {
            Command::Complete { checkpoint, .. } => format!("record {}", checkpoint.epoch),
            Command::Reserve { upto, .. } => format!("reserve {upto}"),
            Command::Deploy { regions, .. } => format!("decide to deploy {:?}", regions.keys().collect::<Vec<_>>()),
            Command::Restart { regions, cause, .. } => format!("decide to restart {regions:?}: {cause}"),
            Command::Retire { epochs, .. } => format!("retire {:?}", epochs.iter().map(|e| e.0).collect::<Vec<_>>()),
            Command::State { state, .. } => format!("state {}", state.name()),
            _ => "decide".into(),
        });
        events.push_back(Event::Applied { id, command });
    }

    fn put(&mut self, job: JobId, manifest: Arc<Manifest>) -> Event {
        let epoch = manifest.epoch;
        self.said.push(format!("put {epoch}"));
        self.store.insert((job.clone(), epoch), manifest);
        Event::Stored { job, epoch, result: Ok(()) }
    }

    pub fn stop_log(&mut self) {
        self.log_stands_still = true;
    }

    /// What was proposed is decided now.
    pub fn start_log(&mut self) {
        self.log_stands_still = false;
        self.log_once();
    }

    /// What was proposed so far is decided; what follows from it waits.
    pub fn log_once(&mut self) {
        let mut events = VecDeque::new();
        for (id, command) in std::mem::take(&mut self.proposed) {
            self.decide(id, command, &mut events);
        }
        events.into_iter().for_each(|event| self.step(event));
    }

    pub fn stop_store(&mut self) {
        self.store_stands_still = true;
    }

    /// What waits for the store goes through, or fails.
    pub fn start_store(&mut self, result: Result<(), Error>) {
        self.store_stands_still = false;
        for (job, manifest) in std::mem::take(&mut self.puts) {
            let event = match &result {
                Ok(()) => self.put(job, manifest),
                Err(error) => Event::Stored { job, epoch: manifest.epoch, result: Err(error.clone()) },
            };
            self.step(event);
        }
    }

    fn order(&mut self, id: WorkerId, session: SessionId, order: Order, events: &mut VecDeque<Event>) {
        assert_eq!(order.term, self.term, "orders carry the leader's term");
        let to = id.0.clone();
        let (deployment, command) = match order.body {
            OrderBody::Welcome { .. } => return self.said.push(format!("{to}: welcome")),
            OrderBody::Refused(error) => return self.said.push(format!("{to}: refused: {error}")),
            OrderBody::Command { deployment, command } => (deployment, command),
        };
        let what = match &command {
            rpc::Command::Deploy(deploy) => match &deploy.restore {
                Some(manifest) => format!("deploy from {}", manifest.epoch),
                None => "deploy".into(),
            },
            rpc::Command::Trigger { epoch } => format!("trigger {epoch}"),
            rpc::Command::Complete { epoch } => format!("complete {epoch}"),
            rpc::Command::Abort { epoch } => format!("abort {epoch}"),
            rpc::Command::Stop { drain } => format!("stop, drain {drain}"),
            rpc::Command::Cancel => "cancel".into(),
        };
        self.said.push(format!("{to}: {what} {}#{}", deployment.region, deployment.incarnation));
        let (_, worker) = self.workers.iter_mut().find(|(name, _)| **name == to).expect("a worker of the test");
        if worker.session != Some(session) {
            return; // lost with its stream
        }
        for event in worker.obey(&deployment, command) {
            let report = Report::Event { deployment: deployment.clone(), event };
            events.push_back(Event::Report { worker: id.clone(), session, report });
        }
    }

    /// A worker that does everything it is told to.
    pub fn start(&mut self, id: &'static str, slots: u32) {
        let worker = Worker { boot: 1, slots, runs: true, acks: true, commits: true, ..Worker::default() };
        self.workers.insert(id, worker);
        self.dial(id);
    }

    fn hello(&self, id: &'static str) -> Hello {
        let worker = &self.workers[id];
        let held = |(id, (phase, _)): (&DeploymentId, &(Phase, Deploy))| Held { deployment: id.clone(), phase: *phase };
        Hello {
            worker: WorkerId(id.into()),
            boot: worker.boot,
            version: "0".into(),
            tier: Tier::Cloud,
            site: "here".into(),
            labels: BTreeMap::new(),
            slots: worker.slots,
            memory_bytes: 1 << 30,
            data_address: format!("{id}:{}", worker.boot),
            term: 0,
            deployments: worker.held.iter().map(held).collect(),
        }
    }

    /// Opens a stream, and repeats that what runs does run.
    pub fn dial(&mut self, id: &'static str) {
        self.sessions += 1;
        let session = SessionId(self.sessions);
        self.worker(id).session = Some(session);
        let hello = self.hello(id);
        let running: Vec<DeploymentId> =
            hello.deployments.iter().filter(|h| h.phase == Phase::Running).map(|h| h.deployment.clone()).collect();
        self.step(Event::Connected { session, hello });
        for deployment in running {
            self.says_of(id, deployment, rpc::Event::Running);
        }
    }

    /// The stream breaks, and the leader is told.
    pub fn hang_up(&mut self, id: &'static str) {
        if let Some(session) = self.worker(id).session.take() {
            self.step(Event::Disconnected { worker: WorkerId(id.into()), session });
        }
    }

    /// Everything it ran is lost; its stream breaks.
    pub fn kill(&mut self, id: &'static str) {
        self.hang_up(id);
        let worker = self.worker(id);
        worker.held.clear();
        worker.boot += 1;
    }

    pub fn worker(&mut self, id: &'static str) -> &mut Worker {
        self.workers.get_mut(id).expect("a worker of the test")
    }

    /// A report of the deployment that the worker holds of a region.
    pub fn says(&mut self, id: &'static str, region: u32, event: rpc::Event) {
        let held = self.workers[id].held.keys().rfind(|held| held.region == region);
        let deployment = held.expect("it holds one").clone();
        self.says_of(id, deployment, event);
    }

    pub fn says_of(&mut self, id: &'static str, deployment: DeploymentId, event: rpc::Event) {
        let Some(session) = self.workers[id].session else { return };
        let report = Report::Event { deployment, event };
        self.step(Event::Report { worker: WorkerId(id.into()), session, report });
    }

    pub fn fails(&mut self, id: &'static str, region: u32, message: &str) {
        let error = Error::new(Code::Unavailable, message);
        self.says(id, region, rpc::Event::Failed { operator: OperatorId(0), error });
    }

    /// All subtasks of a region have come to their end.
    pub fn ends(&mut self, region: u32) {
        let workers: Vec<&'static str> = self.workers.keys().copied().collect();
        for id in workers {
            let held = self.workers[id].held.iter().rfind(|(held, _)| held.region == region);
            let Some((deployment, (_, deploy))) = held else { continue };
            let deployment = deployment.clone();
            for subtask in here(deploy, region) {
                self.says_of(id, deployment.clone(), rpc::Event::Ended { subtask });
            }
        }
    }

    pub fn submit(&mut self, id: &str, plan: &Plan) {
        let submitted = Submitted {
            job: JobId(id.into()),
            at_ms: self.now,
            name: id.into(),
            sql: SQL.into(),
            vars: BTreeMap::new(),
            models: BTreeMap::new(),
            parallelism: None,
            plan: plan.encode(),
            state: "state".into(),
            restore: None,
        };
        self.requests += 1;
        let (id, submitted) = (RequestId(self.requests), Box::new(submitted));
        let response = Response::Submit(SubmitResponse::default());
        self.step(Event::Planned { id, dry_run: false, submitted, response });
    }

    pub fn ask(&mut self, request: Request) -> RequestId {
        self.requests += 1;
        let id = RequestId(self.requests);
        self.step(Event::Request { id, request });
        id
    }

    /// The leader's process is killed and starts anew; what was not decided is lost, streams break.
    pub fn restart_leader(&mut self) {
        self.proposed.clear();
        self.puts.clear();
        self.workers.values_mut().for_each(|worker| worker.session = None);
        self.core = Core::new(self.config.clone(), SmallRng::seed_from_u64(self.term), self.now);
        for command in &self.log {
            let effects = self.core.step(Event::Applied { id: ProposalId(0), command: command.clone() }, self.now);
            assert!(effects.is_empty(), "a replay has no effects: {effects:?}");
        }
        self.term += 1;
        self.step(Event::Leader { term: self.term });
    }

    pub fn job(&self, id: &str) -> &Job {
        &self.core.meta().jobs[&JobId(id.into())]
    }

    pub fn incarnation(&self, region: u32) -> Option<Incarnation> {
        self.job("j").regions.get(&region).map(|deployed| deployed.incarnation)
    }

    /// Workers of a region.
    pub fn places(&self, region: u32) -> BTreeSet<String> {
        let region = self.job("j").regions.get(&region);
        region.into_iter().flat_map(|deployed| deployed.slots.keys()).map(|worker| worker.0.clone()).collect()
    }

    /// The lines with these words, since the last call of `forget`.
    pub fn lines(&self, words: &str) -> Vec<&str> {
        self.said.iter().map(String::as_str).filter(|line| line.contains(words)).collect()
    }

    pub fn forget(&mut self) {
        self.said.clear();
    }

    /// Where in the history a line is.
    pub fn at(&self, line: &str) -> usize {
        let found = self.said.iter().position(|said| said == line);
        found.unwrap_or_else(|| panic!("`{line}` is not in {:#?}", self.said))
    }
}

impl Worker {
    fn obey(&mut self, id: &DeploymentId, command: rpc::Command) -> Vec<rpc::Event> {
        match command {
            rpc::Command::Deploy(deploy) => {
                self.held.retain(|held, _| (&held.job, held.region) != (&id.job, id.region));
                let phase = if self.runs { Phase::Running } else { Phase::Starting };
                // What the checkpoint holds is published first of all.
                let restored = deploy.restore.as_ref().map(|manifest| manifest.epoch).filter(|_| self.commits);
                let published = restored.map_or(Vec::new(), |epoch| commits(&deploy, id.region, epoch));
                self.held.insert(id.clone(), (phase, *deploy));
                if self.runs { [vec![rpc::Event::Running], published].concat() } else { Vec::new() }
            }
            rpc::Command::Cancel => {
                self.held.remove(id);
                vec![rpc::Event::Stopped]
            }
            rpc::Command::Trigger { epoch } if self.acks => {
                let Some((_, deploy)) = self.held.get(id) else { return Vec::new() };
                let ack = |subtask: SubtaskId| {
                    let state = SubtaskState { index: subtask.index, ..SubtaskState::default() };
                    rpc::Event::Acked { epoch, subtask, state }
                };
                here(deploy, id.region).into_iter().map(ack).collect()
            }
            rpc::Command::Complete { epoch } if self.commits => {
                let Some((_, deploy)) = self.held.get(id) else { return Vec::new() };
                commits(deploy, id.region, epoch)
            }
            _ => Vec::new(),
        }
    }
}

/// What its sinks say when they have published.
pub fn commits(deploy: &Deploy, region: u32, epoch: Epoch) -> Vec<rpc::Event> {
    let plan = Plan::decode(&deploy.plan).expect("the leader's");
    let is_sink = |op: OperatorId| matches!(plan.operator(op).map(|op| &op.kind), Some(OperatorKind::Sink(_)));
    let sinks = here(deploy, region).into_iter().filter(|subtask| is_sink(subtask.operator));
    sinks.map(|subtask| rpc::Event::Committed { epoch, subtask }).collect()
}

/// The subtasks of all operators of a region that are placed on the deployment's worker.
fn here(deploy: &Deploy, region: u32) -> Vec<SubtaskId> {
    let plan = Plan::decode(&deploy.plan).expect("the leader's");
    let tasks = plan.tasks();
    let placed =
        |task: &ef_proto::plan::Task, index| deploy.placement.is_here(SubtaskId { operator: task.root, index });
    let mut subtasks = Vec::new();
    for task in tasks.in_region(region) {
        for index in (0..task.parallelism).filter(|index| placed(task, *index)) {
            subtasks.extend(task.operators.iter().map(|operator| SubtaskId { operator: *operator, index }));
        }
    }
    subtasks
}
