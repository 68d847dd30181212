//! One job on two workers of one process: two sources, and two sinks that get their rows by key.

use super::super::run::{Agent, AgentHandle, Means};
use super::*;
use ef_proto::connector::{Datagen, DatagenField, SinkConnector, SourceConnector};
use ef_proto::expr::Expr;
use ef_proto::ids::{Epoch, Incarnation, JobId, WorkerId};
use ef_proto::place::Constraint;
use ef_proto::plan::{Edge, Output, Sink};
use ef_proto::rpc::{Command, Event, Placement};
use ef_proto::schema::{DataType, Field, Schema};
use ef_store::{Location, Options, Patience};
use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

const SOURCE: OperatorId = OperatorId(1);
const SINK: OperatorId = OperatorId(2);
const EPOCH: Epoch = Epoch(1);

fn plan() -> Plan {
    let schema = Schema::new(vec![Field::new("id", DataType::Int64, true), Field::new("text", DataType::String, true)]);
    let operator = |id, name: &str, kind| Operator {
        id,
        name: name.into(),
        kind,
        parallelism: 2,
        schema: schema.clone(),
        constraint: Constraint::default(),
    };
    let fields = vec![
        DatagenField::Integer { min: 0, max: 1_000_000, distinct: None, null_rate: 0.0 },
        DatagenField::Text { length: 10, distinct: None, null_rate: 0.1 },
    ];
    let source = Source {
        table: "in".into(),
        connector: SourceConnector::Datagen(Datagen { rows_per_second: None, number_of_rows: None, seed: 1, fields }),
        format: None,
        physical: schema.clone(),
        metadata: vec![],
        project: vec![Expr::column(0, DataType::Int64), Expr::column(1, DataType::String)],
        watermark: None,
    };
    let sink =
        Sink { table: "out".into(), connector: SinkConnector::Blackhole, format: None, changelog: false, keys: vec![] };
    let edge = Edge {
        from: SOURCE,
        output: Output::Main,
        to: SINK,
        input: 0,
        exchange: plan::Exchange::Hash(vec![0]),
        changelog: false,
    };
    Plan {
        name: "two".into(),
        operators: vec![
            operator(SOURCE, "Source(in)", OperatorKind::Source(source)),
            operator(SINK, "Sink(out)", OperatorKind::Sink(sink)),
        ],
        edges: vec![edge],
        max_parallelism: 128,
        config: BTreeMap::from([("exchange.compression".into(), "lz4".into())]),
    }
}

fn worker(number: u32) -> WorkerId {
    WorkerId(format!("w{number}"))
}

fn subtask(operator: OperatorId, index: u32) -> SubtaskId {
    SubtaskId { operator, index }
}

/// Worker 0 has the first source and the second sink, worker 1 the others.
fn placement(here: u32, peers: &BTreeMap<WorkerId, String>) -> Placement {
    let tasks = [(SOURCE, 0, 0), (SOURCE, 1, 1), (SINK, 0, 1), (SINK, 1, 0)];
    let tasks = tasks.into_iter().map(|(operator, index, on)| (subtask(operator, index), worker(on))).collect();
    Placement { here: worker(here), peers: peers.clone(), tasks }
}

fn deploy_to(here: u32, peers: &BTreeMap<WorkerId, String>) -> Command {
    let placement = placement(here, peers);
    Command::Deploy(Box::new(Deploy {
        plan: plan().encode(),
        placement,
        restore: None,
        state: String::new(),
        slots: 1,
        stop: None,
    }))
}

fn id() -> DeploymentId {
    DeploymentId { job: JobId("two".into()), region: 0, incarnation: Incarnation(3) }
}

fn agent(work_dir: &std::path::Path, exchange: Option<Arc<Exchange>>) -> AgentHandle {
    let config = WorkerConfig {
        memory_bytes: 1 << 28,
        slots: 2,
        work_dir: work_dir.into(),
        secrets: Default::default(),
        durable_dir: None,
        bugs: crate::config::Bugs::default(),
    };
    let root = Root::open(&Location::Memory, &Options::default(), Patience::Full).expect("memory only");
    Agent::start_with(id(), Means { config, clock: Arc::new(|| 0), root: Some(root), exchange })
}

async fn next(agent: &mut AgentHandle) -> Event {
    let event = tokio::time::timeout(Duration::from_secs(20), agent.events.recv()).await;
    event.expect("something happens").expect("the agent is there")
}

/// The next `count` events that `pick` takes; panics when something fails.
async fn all<T>(agent: &mut AgentHandle, count: usize, pick: impl Fn(&Event) -> Option<T>) -> Vec<T> {
    let mut picked = Vec::new();
    while picked.len() < count {
        let event = next(agent).await;
        assert!(!matches!(event, Event::Failed { .. } | Event::Declined { .. }), "{event:?}");
        picked.extend(pick(&event));
    }
    picked
}

fn rows(agents: &[AgentHandle], of: OperatorId, counter: fn(&OperatorMetrics) -> u64) -> u64 {
    let metered = agents.iter().map(|agent| agent.metered.lock().unwrap_or_else(PoisonError::into_inner).clone());
    metered.flatten().filter(|m| m.subtask.operator == of).map(|m| counter(&m.metrics)).sum()
}

/// Both workers, with all their tasks running.
async fn running(work_dirs: &[tempfile::TempDir; 2]) -> Vec<AgentHandle> {
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let exchanges = [(); 2].map(|()| Exchange::start(listen).expect("a free port"));
    let addresses = exchanges.iter().map(|exchange| exchange.local_addr().to_string());
    let peers: BTreeMap<_, _> = (0..).map(worker).zip(addresses).collect();
    let mut agents: Vec<_> =
        work_dirs.iter().zip(&exchanges).map(|(work, exchange)| agent(work.path(), Some(exchange.clone()))).collect();
    for (here, agent) in (0..).zip(&mut agents) {
        agent.commands.send(deploy_to(here, &peers)).await.expect("the agent is there");
        all(agent, 1, |event| (*event == Event::Running).then_some(())).await;
    }
    agents
}

fn directories() -> [tempfile::TempDir; 2] {
    [(); 2].map(|()| tempfile::tempdir().expect("a temporary directory"))
}

async fn tell(agents: &[AgentHandle], command: Command) {
    for agent in agents {
        agent.commands.send(command.clone()).await.expect("the agent is there");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn job_on_two_workers_takes_checkpoints_ends_and_loses_no_row() {
    let work_dirs = directories();
    let mut agents = running(&work_dirs).await;
    let scratch = work_dirs[0].path().join("two-0-3");
    std::fs::create_dir_all(&scratch).expect("it may be written");
    tell(&agents, Command::Trigger { epoch: EPOCH }).await;
    for (here, agent) in (0..).zip(&mut agents) {
        let mut acked = all(agent, 2, |event| match event {
            Event::Acked { epoch: EPOCH, subtask, .. } => Some(*subtask),
            _ => None,
        })
        .await;
        acked.sort();
        assert_eq!(acked, [subtask(SOURCE, here), subtask(SINK, 1 - here)]);
    }
    tell(&agents, Command::Stop { drain: true }).await;
    for agent in &mut agents {
        all(agent, 2, |event| matches!(event, Event::Ended { .. }).then_some(())).await;
    }
    let sent = rows(&agents, SOURCE, |m| m.rows_out.load(Ordering::Relaxed));
    assert!(sent > 0);
    assert_eq!(rows(&agents, SINK, |m| m.rows_in.load(Ordering::Relaxed)), sent);
    assert!(scratch.exists());
    tell(&agents, Command::Cancel).await;
    for agent in &mut agents {
        all(agent, 1, |event| (*event == Event::Stopped).then_some(())).await;
    }
    assert!(!scratch.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_on_one_worker_is_no_failure_on_the_other() {
    let work_dirs = directories();
    let mut agents = running(&work_dirs).await;
    tell(&agents[..1], Command::Cancel).await;
    all(&mut agents[0], 1, |event| (*event == Event::Stopped).then_some(())).await;
    // The source cannot send any more; the sink hears nothing, and waits to be told.
    tell(&agents[1..], Command::Cancel).await;
    all(&mut agents[1], 1, |event| (*event == Event::Stopped).then_some(())).await;
}

#[tokio::test]
async fn placement_that_cannot_be_reached_fails_the_deployment_with_a_name() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let exchange = Exchange::start(listen).expect("a free port");
    for (exchange, expected) in [(None, "no way to other workers"), (Some(exchange), "w1 has tasks but no address")] {
        let mut agent = agent(work.path(), exchange);
        let peers = BTreeMap::from([(worker(0), "127.0.0.1:1".to_string())]);
        tell(std::slice::from_ref(&agent), deploy_to(0, &peers)).await;
        let Event::Failed { error, .. } = next(&mut agent).await else { panic!("it cannot run") };
        assert!(error.message.contains(expected), "{}", error.message);
        assert_eq!(next(&mut agent).await, Event::Stopped);
    }
}

#[test]
fn memory_is_divided_by_slots() {
    assert_eq!(share(1000, 1, 1), 1000);
    assert_eq!(share(1000, 1, 4), 250);
    assert_eq!(share(1000, 3, 4), 750);
    assert_eq!(share(u64::MAX, 2, 2), u64::MAX);
    // What makes no sense is taken for the least or the most there is.
    assert_eq!(share(1000, 0, 4), 250);
    assert_eq!(share(1000, 9, 4), 1000);
    assert_eq!(share(1000, 1, 0), 1000);
}
