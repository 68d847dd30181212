//! The host against a coordinator that does what the test says: sessions, reconnects, checkpoints, and tasks that hang.

use super::*;
use crate::agent::testing::plan;
use crate::testing::Nobody;
use ef_proto::connector::{Compression, FilesystemSink, SinkConnector};
use ef_proto::ids::{Epoch, Incarnation, JobId, OperatorId, SubtaskId, WorkerId};
use ef_proto::place::Tier;
use ef_proto::plan::Plan;
use ef_proto::rpc::{Event, Order, OrderBody, Phase, Placement};
use ef_proto::wire::generated::agent as wire;
use ef_proto::wire::generated::agent::agents_server::{Agents, AgentsServer};
use std::sync::Condvar;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// Nothing here takes that long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: nothing for {PATIENCE:?}"))
}

/// One stream as the coordinator sees it. Dropping it cuts the stream.
struct Stream {
    reports: Streaming<wire::Report>,
    orders: mpsc::Sender<std::result::Result<wire::Order, Status>>,
}

struct Fake(mpsc::Sender<Stream>);

#[tonic::async_trait]
impl Agents for Fake {
    type SessionStream = ReceiverStream<std::result::Result<wire::Order, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<wire::Report>>,
    ) -> std::result::Result<Response<Self::SessionStream>, Status> {
        let (orders, receiver) = mpsc::channel(64);
        let stream = Stream { reports: request.into_inner(), orders };
        self.0.send(stream).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// Listens; the worker's streams come out of the receiver.
async fn coordinator() -> (String, mpsc::Receiver<Stream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let (streams, receiver) = mpsc::channel(4);
    let server = tonic::transport::Server::builder().add_service(AgentsServer::new(Fake(streams)));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (url, receiver)
}

impl Stream {
    async fn report(&mut self) -> Report {
        let report = soon("a report", self.reports.message()).await.expect("the stream holds");
        report.expect("the stream goes on").try_into().expect("well formed")
    }

    async fn hello(&mut self) -> Hello {
        match self.report().await {
            Report::Hello(hello) => hello,
            other => panic!("the first report is {other:?}"),
        }
    }

    /// The next event; heartbeats and logs are passed over.
    async fn event(&mut self) -> (u64, Event) {
        loop {
            if let Report::Event { deployment, event } = self.report().await {
                return (deployment.incarnation.0, event);
            }
        }
    }

    async fn send(&self, term: u64, body: OrderBody) {
        let order = Order { term, body };
        self.orders.send(Ok((&order).into())).await.expect("the worker listens");
    }

    async fn welcome(&self, term: u64) {
        self.send(term, OrderBody::Welcome { heartbeat_interval_ms: 50, heartbeat_timeout_ms: 10_000 }).await;
    }

    async fn order(&self, term: u64, incarnation: u64, command: Command) {
        self.send(term, OrderBody::Command { deployment: id(incarnation), command }).await;
    }
}

fn id(incarnation: u64) -> DeploymentId {
    DeploymentId { job: JobId("job".into()), region: 0, incarnation: Incarnation(incarnation) }
}

fn subtask(operator: u64, index: u32) -> SubtaskId {
    SubtaskId { operator: OperatorId(operator), index }
}

fn deploy(plan: &Plan, state: &str) -> Command {
    let placement = Placement::solo(plan);
    Command::Deploy(Box::new(Deploy {
        plan: plan.encode(),
        placement,
        restore: None,
        state: state.into(),
        slots: 1,
        stop: None,
    }))
}

/// A worker in this process.
struct Worker {
    scratch: tempfile::TempDir,
    shutdown: oneshot::Sender<()>,
    ready: oneshot::Receiver<()>,
    running: JoinHandle<Result<usize>>,
}

impl Worker {
    fn start(coordinators: Vec<String>) -> Worker {
        let clock = Clock::new();
        Worker::start_with(coordinators, Arc::new(move || clock.now_ms()))
    }

    fn start_with(coordinators: Vec<String>, task_clock: task::Clock) -> Worker {
        let scratch = tempfile::tempdir().expect("a directory");
        let home = Home::open(&scratch.path().join("data")).expect("opens");
        let identity = Hello {
            worker: WorkerId("w1".into()),
            boot: 7,
            version: "0".into(),
            tier: Tier::Gateway,
            site: "plant-a".into(),
            labels: BTreeMap::from([("line".to_string(), "3".to_string())]),
            slots: 2,
            memory_bytes: 64 << 20,
            data_address: "127.0.0.1:1".into(),
            term: 0,
            deployments: Vec::new(),
        };
        let clock = Arc::new(Clock::new());
        let logs = Logs::new(clock.clone());
        let exchange = crate::exchange::Exchange::start(([127, 0, 0, 1], 0).into()).expect("a free port");
        let host = Host {
            home,
            identity,
            coordinators,
            clock,
            task_clock,
            logs,
            exchange,
            secrets: Default::default(),
            bugs: Bugs::default(),
        };
        let (shutdown, told) = oneshot::channel();
        let (say, ready) = oneshot::channel();
        let mut say = Some(say);
        let running = tokio::spawn(async move {
            let mut ready = move || say.take().expect("once").send(()).expect("the test waits");
            host.run(&mut ready, async move { told.await.expect("the test says so") }).await
        });
        Worker { scratch, shutdown, ready, running }
    }

    fn state(&self) -> String {
        self.scratch.path().join("state").display().to_string()
    }

    async fn stop(self) -> usize {
        self.shutdown.send(()).expect("it runs");
        soon("the end", self.running).await.expect("no panic").expect("ends well")
    }
}

/// Takes the worker in, and has it run the plan.
async fn running(streams: &mut mpsc::Receiver<Stream>, worker: &Worker, plan: &Plan) -> Stream {
    let mut stream = soon("a stream", streams.recv()).await.expect("the worker dials");
    stream.hello().await;
    stream.welcome(1).await;
    stream.order(1, 1, deploy(plan, &worker.state())).await;
    assert_eq!(stream.event().await, (1, Event::Running));
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn deployment_runs_checkpoints_and_is_cancelled() {
    let (url, mut streams) = coordinator().await;
    let mut worker = Worker::start(vec![url]);
    let path = worker.scratch.path().join("out").display().to_string();
    let sink = FilesystemSink {
        path: path.clone(),
        rolling_bytes: 1 << 20,
        rolling_interval_ms: 60_000,
        compression: Compression::None,
    };
    let mut stream = soon("a stream", streams.recv()).await.expect("the worker dials");
    let hello = stream.hello().await;
    assert_eq!((hello.worker.0.as_str(), hello.tier, hello.site.as_str()), ("w1", Tier::Gateway, "plant-a"));
    assert_eq!((hello.term, hello.deployments.len(), hello.slots), (0, 0, 2));
    assert!(worker.ready.try_recv().is_err(), "not before the Welcome");
    stream.welcome(3).await;
    soon("ready", &mut worker.ready).await.expect("told");
    stream.order(3, 1, deploy(&plan(SinkConnector::Filesystem(sink)), &worker.state())).await;
    assert_eq!(stream.event().await, (1, Event::Running));
    let load = soon("rows at the sink", async {
        loop {
            if let Report::Heartbeat(load) = stream.report().await
                && load.subtasks.iter().any(|load| load.subtask == subtask(2, 0) && load.rows_in > 0)
            {
                return load;
            }
        }
    })
    .await;
    assert!(load.resident_bytes > 0 && load.subtasks.len() == 3, "{load:?}");
    stream.order(3, 1, Command::Trigger { epoch: Epoch(1) }).await;
    let mut acks = BTreeSet::new();
    while acks.len() < 3 {
        match stream.event().await {
            (1, Event::Acked { epoch: Epoch(1), subtask, .. }) => {
                assert!(acks.insert(subtask), "{subtask} acked twice")
            }
            other => panic!("{other:?}"),
        }
    }
    stream.order(3, 1, Command::Complete { epoch: Epoch(1) }).await;
    assert_eq!(stream.event().await, (1, Event::Committed { epoch: Epoch(1), subtask: subtask(2, 0) }));
    let published = std::fs::read_dir(&path).expect("made").flatten();
    assert!(published.into_iter().any(|file| file.file_name().to_string_lossy().starts_with("part-")));
    stream.order(3, 1, Command::Cancel).await;
    let stopped = timeout(4 * LEAVE, stream.event()).await.expect("tasks leave soon, also on a busy machine");
    assert_eq!(stopped, (1, Event::Stopped));
    assert_eq!(worker.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_stream_is_dialled_again_and_everything_is_repeated_while_tasks_go_on() {
    let (url, mut streams) = coordinator().await;
    // The first address leads nowhere: they are tried in turn.
    let nowhere = Nobody::here();
    let worker = Worker::start(vec![format!("http://{}", nowhere.address), url]);
    let mut stream = running(&mut streams, &worker, &plan(SinkConnector::Blackhole)).await;
    stream.order(1, 1, Command::Trigger { epoch: Epoch(1) }).await;
    for _ in 0..3 {
        assert!(matches!(stream.event().await, (1, Event::Acked { .. })));
    }
    drop(stream);
    let mut stream = soon("a second stream", streams.recv()).await.expect("the worker dials again");
    let hello = stream.hello().await;
    let held: Vec<_> = hello.deployments.iter().map(|held| (held.deployment.clone(), held.phase)).collect();
    assert_eq!((hello.term, held), (1, vec![(id(1), Phase::Running)]));
    stream.welcome(1).await;
    assert_eq!(stream.event().await, (1, Event::Running));
    let mut acks = BTreeSet::new();
    for _ in 0..3 {
        match stream.event().await {
            (1, Event::Acked { epoch: Epoch(1), subtask, .. }) => acks.insert(subtask),
            other => panic!("{other:?}"),
        };
    }
    assert_eq!(acks.len(), 3, "of all subtasks");
    // The same tasks: a deployment that was started anew would not know the epoch.
    stream.order(1, 1, Command::Complete { epoch: Epoch(1) }).await;
    assert_eq!(stream.event().await, (1, Event::Committed { epoch: Epoch(1), subtask: subtask(2, 0) }));
    assert_eq!(worker.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn older_term_is_refused_also_after_a_restart() {
    let (url, mut streams) = coordinator().await;
    let worker = Worker::start(vec![url]);
    let mut stream = soon("a stream", streams.recv()).await.expect("the worker dials");
    stream.hello().await;
    stream.welcome(9).await;
    let plan = plan(SinkConnector::Blackhole);
    stream.order(8, 1, deploy(&plan, &worker.state())).await;
    // What comes after it shows that it had no effect.
    stream.order(9, 2, Command::Cancel).await;
    assert_eq!(stream.event().await, (2, Event::Stopped));
    drop(stream);
    let mut stream = soon("a second stream", streams.recv()).await.expect("the worker dials again");
    let hello = stream.hello().await;
    assert_eq!((hello.term, hello.deployments.len()), (9, 0));
    stream.welcome(8).await;
    let mut stream = soon("a third stream", streams.recv()).await.expect("it left the one who is deposed");
    assert_eq!(stream.hello().await.term, 9);
    let directory = worker.scratch.path().join("data");
    worker.running.abort();
    assert!(worker.running.await.expect_err("aborted").is_cancelled());
    assert_eq!(Home::open(&directory).expect("free again").term(), Ok(9), "on disk");
}

#[tokio::test(flavor = "multi_thread")]
async fn state_that_cannot_be_opened_fails_the_deployment() {
    let (url, mut streams) = coordinator().await;
    let worker = Worker::start(vec![url]);
    let mut stream = soon("a stream", streams.recv()).await.expect("the worker dials");
    stream.hello().await;
    stream.welcome(1).await;
    stream.order(1, 1, deploy(&plan(SinkConnector::Blackhole), "nothing://known")).await;
    match stream.event().await {
        (1, Event::Failed { operator: OperatorId(0), error }) => {
            assert!(error.message.contains("nothing://"), "{error}")
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(stream.event().await, (1, Event::Stopped));
    assert_eq!(worker.stop().await, 0);
}

/// A clock that hangs the threads of a sink, as a system call on a dead disk would.
#[derive(Default)]
struct Hanging {
    state: Mutex<Hung>,
    changed: Condvar,
}

#[derive(Default)]
struct Hung {
    /// Threads that look at the clock now are caught.
    catching: bool,
    caught: usize,
    released: bool,
}

impl Hanging {
    fn clock(self: &Arc<Hanging>) -> task::Clock {
        let (hanging, clock) = (self.clone(), Clock::new());
        Arc::new(move || {
            let of_sink = std::thread::current().name().is_some_and(|name| name.starts_with("Sink"));
            let mut state = hanging.state.lock().unwrap_or_else(PoisonError::into_inner);
            if of_sink && state.catching {
                state.caught += 1;
                hanging.changed.notify_all();
                while !state.released {
                    state = hanging.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
            drop(state);
            clock.now_ms()
        })
    }

    /// Catches one thread; those that come later are let pass.
    async fn catch(self: &Arc<Hanging>) {
        let hanging = self.clone();
        let caught = tokio::task::spawn_blocking(move || {
            let mut state = hanging.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.catching = true;
            while state.caught == 0 {
                state = hanging.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.catching = false;
        });
        soon("a thread to catch", caught).await.expect("no panic");
    }

    fn release(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).released = true;
        self.changed.notify_all();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sink_that_hangs_delays_the_next_incarnation_by_a_second_and_no_more() {
    let (url, mut streams) = coordinator().await;
    let hanging = Arc::new(Hanging::default());
    let worker = Worker::start_with(vec![url], hanging.clock());
    let plan = plan(SinkConnector::Blackhole);
    let mut stream = running(&mut streams, &worker, &plan).await;
    hanging.catch().await;
    stream.order(1, 2, deploy(&plan, &worker.state())).await;
    assert_eq!(stream.event().await, (2, Event::Running), "beside the one that hangs");
    drop(stream);
    let mut stream = soon("a second stream", streams.recv()).await.expect("the worker dials again");
    let phases = |hello: Hello| hello.deployments.into_iter().map(|held| held.phase).collect::<Vec<_>>();
    assert_eq!(phases(stream.hello().await), [Phase::Leaving, Phase::Running]);
    stream.welcome(1).await;
    assert_eq!(stream.event().await, (2, Event::Running));
    hanging.release();
    assert_eq!(stream.event().await, (1, Event::Stopped), "its sources had left long ago");
    assert_eq!(worker.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_says_goodbye_and_does_not_wait_for_what_hangs() {
    let (url, mut streams) = coordinator().await;
    let hanging = Arc::new(Hanging::default());
    let worker = Worker::start_with(vec![url], hanging.clock());
    let mut stream = running(&mut streams, &worker, &plan(SinkConnector::Blackhole)).await;
    hanging.catch().await;
    let listen = async move {
        match stream.event().await {
            (1, Event::Failed { error, .. }) => assert!(error.message.contains("shutting down"), "{error}"),
            other => panic!("{other:?}"),
        }
        while soon("the end of the stream", stream.reports.message()).await.expect("closed, not broken").is_some() {}
    };
    let (left, ()) = tokio::join!(timeout(4 * LEAVE, worker.stop()), listen);
    assert_eq!(left, Ok(1), "in two seconds, or a few more on a busy machine, without the one that hangs");
    hanging.release();
}
