//! The rim over real connections, against a leader that answers what the test says.

use super::*;
use crate::leader::{Message, Request, Response};
use axum::body::Body;
use axum::http::StatusCode;
use ef_proto::rpc::Report;
use ef_proto::wire::generated::agent::agents_client::AgentsClient;
use ef_proto::wire::generated::control::control_client::ControlClient;
use ef_proto::wire::generated::control::*;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tower::ServiceExt;

type Asked = Arc<Mutex<Vec<Request>>>;

/// A leader that answers at once; what it was asked is kept.
fn leader(answer: impl Fn(Request) -> Result<Response, Error> + Send + 'static) -> (Handle, Asked) {
    let (sender, mut mailbox) = mpsc::channel(4);
    let asked = Asked::default();
    let kept = asked.clone();
    tokio::spawn(async move {
        while let Some(message) = mailbox.recv().await {
            if let Message::Request { request, reply } = message {
                kept.lock().expect("no panics").push(request.clone());
                // Whoever asked may have gone.
                let _ = reply.send(answer(request));
            }
        }
    });
    (Handle::new(sender), asked)
}

fn last(asked: &Asked) -> Option<Request> {
    asked.lock().expect("no panics").last().cloned()
}

/// The rim on free ports.
struct Rig {
    client: ControlClient<Channel>,
    asked: Asked,
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<Result<(), Error>>,
}

impl Rig {
    async fn new(answer: impl Fn(Request) -> Result<Response, Error> + Send + 'static) -> Rig {
        let (handle, asked) = leader(answer);
        let listen = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let http = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listen.local_addr().expect("bound"));
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(serve(listen, http, handle, async move { stopped.await.unwrap_or(()) }));
        let client = ControlClient::connect(address).await.expect("connects");
        Rig { client, asked, stop, served }
    }
}

/// An answer of each request's kind that carries something of the request.
fn echo(request: Request) -> Result<Response, Error> {
    let savepoint = |id: String| Response::Savepoint(Savepoint { id, ..Savepoint::default() });
    let state = |path: String| Response::State(StateDescription { path, ..StateDescription::default() });
    let job = |id: String| Job { id, ..Job::default() };
    let worker = |id: String| Worker { id, ..Worker::default() };
    Ok(match request {
        Request::Submit(r) => Response::Submit(SubmitResponse { name: r.name, ..SubmitResponse::default() }),
        Request::Explain(r) => Response::Explain(ExplainResponse { text: r.sql }),
        Request::ListJobs => Response::Jobs(ListJobsResponse { jobs: vec![job("a".into())] }),
        Request::DescribeJob(r) => {
            Response::Job(Box::new(JobDescription { job: Some(job(r.job)), ..JobDescription::default() }))
        }
        Request::StopJob(r) => Response::StopJob(StopJobResponse { job: r.job, savepoint: "s".into() }),
        Request::CancelJob(r) => Response::CancelJob(CancelJobResponse { job: r.job }),
        Request::RescaleJob(r) => Response::RescaleJob(RescaleJobResponse { job: r.job, ..Default::default() }),
        Request::TriggerCheckpoint(r) => Response::TriggerCheckpoint(TriggerCheckpointResponse { job: r.job }),
        Request::ListCheckpoints(r) => {
            let checkpoint = Checkpoint { path: r.job, ..Checkpoint::default() };
            Response::Checkpoints(ListCheckpointsResponse { checkpoints: vec![checkpoint] })
        }
        Request::DescribeCheckpoint(r) => state(format!("{}/{}", r.job, r.epoch)),
        Request::CreateSavepoint(r) => savepoint(r.directory),
        Request::GetSavepoint(r) => savepoint(r.savepoint),
        Request::DisposeSavepoint(r) => savepoint(r.savepoint),
        Request::ListSavepoints(r) => {
            let savepoint = Savepoint { job: r.job, ..Savepoint::default() };
            Response::Savepoints(ListSavepointsResponse { savepoints: vec![savepoint] })
        }
        Request::DescribeSavepoint(r) => state(r.savepoint),
        Request::ListWorkers => Response::Workers(ListWorkersResponse { workers: vec![worker("w".into())] }),
        Request::DescribeWorker(r) => {
            Response::WorkerDescription(WorkerDescription { worker: Some(worker(r.worker)), tasks: Vec::new() })
        }
        Request::CordonWorker(r) => Response::Worker(worker(r.worker)),
        Request::DrainWorker(r) => {
            Response::DrainWorker(DrainWorkerResponse { worker: Some(worker(r.worker)), jobs: Vec::new() })
        }
        Request::Cluster => Response::Cluster(ClusterResponse { term: 7, ..ClusterResponse::default() }),
        Request::Events { job, after } => {
            let event = JobEvent { sequence: after + 1, message: job, ..JobEvent::default() };
            Response::Events { events: vec![event], ended: false }
        }
        Request::Logs { job, worker, after } => {
            let line = LogLine { message: job, worker, ..LogLine::default() };
            Response::Logs { lines: vec![line], upto: after + 1, ended: false }
        }
    })
}

#[tokio::test]
async fn every_method_asks_the_leader_its_question_and_returns_its_answer() {
    let mut rig = Rig::new(echo).await;
    macro_rules! maps {
        ($method:ident($request:expr) => $ask:expr, $answer:pat if $right:expr) => {
            let answer = rig.client.$method($request).await.expect(stringify!($method)).into_inner();
            assert!(matches!(&answer, $answer if $right), "{answer:?}");
            assert_eq!(last(&rig.asked), Some($ask), stringify!($method));
        };
    }
    let job = || JobRequest { job: "j".into() };
    let savepoint = || SavepointRequest { savepoint: "/p".into() };
    let r = SubmitRequest { sql: "SELECT 1".into(), name: "n".into(), dry_run: true, ..Default::default() };
    maps!(submit(r.clone()) => Request::Submit(r), a if a.name == "n");
    let r = ExplainRequest { sql: "SELECT 1".into(), format: "dot".into(), ..Default::default() };
    maps!(explain(r.clone()) => Request::Explain(r), a if a.text == "SELECT 1");
    maps!(list_jobs(ListJobsRequest {}) => Request::ListJobs, a if a.jobs[0].id == "a");
    maps!(describe_job(job()) => Request::DescribeJob(job()), a if a.job.as_ref().is_some_and(|job| job.id == "j"));
    let r = StopJobRequest { job: "j".into(), savepoint: Some("/d".into()), drain: true, dry_run: false };
    maps!(stop_job(r.clone()) => Request::StopJob(r), a if a.job == "j" && a.savepoint == "s");
    let r = CancelJobRequest { job: "j".into(), dry_run: true };
    maps!(cancel_job(r.clone()) => Request::CancelJob(r), a if a.job == "j");
    let operators = BTreeMap::from([("o".into(), 2)]);
    let r = RescaleJobRequest { job: "j".into(), parallelism: Some(3), operators, dry_run: false };
    maps!(rescale_job(r.clone()) => Request::RescaleJob(r), a if a.job == "j");
    let r = TriggerCheckpointRequest { job: "j".into(), dry_run: false };
    maps!(trigger_checkpoint(r.clone()) => Request::TriggerCheckpoint(r), a if a.job == "j");
    maps!(list_checkpoints(job()) => Request::ListCheckpoints(job()), a if a.checkpoints[0].path == "j");
    let r = CheckpointRequest { job: "j".into(), epoch: 4 };
    maps!(describe_checkpoint(r.clone()) => Request::DescribeCheckpoint(r), a if a.path == "j/4");
    let r = CreateSavepointRequest { job: "j".into(), directory: "/d".into(), dry_run: false };
    maps!(create_savepoint(r.clone()) => Request::CreateSavepoint(r), a if a.id == "/d");
    maps!(get_savepoint(savepoint()) => Request::GetSavepoint(savepoint()), a if a.id == "/p");
    let r = ListSavepointsRequest { job: "j".into() };
    maps!(list_savepoints(r.clone()) => Request::ListSavepoints(r), a if a.savepoints[0].job == "j");
    maps!(describe_savepoint(savepoint()) => Request::DescribeSavepoint(savepoint()), a if a.path == "/p");
    let r = DisposeSavepointRequest { savepoint: "/p".into(), dry_run: true };
    maps!(dispose_savepoint(r.clone()) => Request::DisposeSavepoint(r), a if a.id == "/p");
    maps!(list_workers(ListWorkersRequest {}) => Request::ListWorkers, a if a.workers[0].id == "w");
    let r = WorkerRequest { worker: "w".into() };
    maps!(describe_worker(r.clone()) => Request::DescribeWorker(r), a if a.worker.is_some());
    let r = CordonWorkerRequest { worker: "w".into(), cordoned: true, dry_run: false };
    maps!(cordon_worker(r.clone()) => Request::CordonWorker(r), a if a.id == "w");
    let r = DrainWorkerRequest { worker: "w".into(), dry_run: true };
    maps!(drain_worker(r.clone()) => Request::DrainWorker(r), a if a.worker.is_some());
    maps!(cluster(ClusterRequest {}) => Request::Cluster, a if a.term == 7);
    rig.asked.lock().expect("no panics").clear();
    let r = WatchEventsRequest { job: "j".into(), follow: false };
    let mut events = rig.client.watch_events(r).await.expect("events").into_inner();
    let event = events.message().await.expect("no status").expect("an event");
    assert_eq!((event.message.as_str(), event.sequence), ("j", 1));
    assert_eq!(events.message().await.expect("no status"), None, "nobody follows");
    let r = LogsRequest { job: "j".into(), worker: "w".into(), follow: false };
    let mut lines = rig.client.logs(r).await.expect("logs").into_inner();
    let line = lines.message().await.expect("no status").expect("a line");
    assert_eq!((line.message.as_str(), line.worker.as_str()), ("j", "w"));
    assert_eq!(lines.message().await.expect("no status"), None, "nobody follows");
    let (j, w) = ("j".to_string(), "w".to_string());
    let asked = [
        Request::DescribeJob(job()),
        Request::Events { job: j.clone(), after: 0 },
        Request::DescribeJob(job()),
        Request::Logs { job: j, worker: w, after: 0 },
    ];
    assert_eq!(*rig.asked.lock().expect("no panics"), asked);
}

#[tokio::test]
async fn errors_of_every_code_reach_the_client_as_they_were() {
    use Code::*;
    let codes = [Invalid, NotFound, Conflict, NotLeader, Unavailable, Corrupt, Internal];
    let left = Mutex::new(codes.to_vec());
    let next = move || left.lock().expect("no panics").remove(0);
    let mut rig = Rig::new(move |_| Err(Error::new(next(), "line 1:\n`möglich`"))).await;
    for code in codes {
        let status = rig.client.cluster(ClusterRequest {}).await.expect_err("an error");
        assert_eq!(Error::from_status(&status), Error::new(code, "line 1:\n`möglich`"));
    }
}

#[tokio::test]
async fn requests_over_the_limits_are_refused_without_the_leader() {
    let mut rig = Rig::new(echo).await;
    macro_rules! refused {
        ($method:ident($request:expr), $named:expr) => {
            let error = Error::from_status(&rig.client.$method($request).await.map(drop).expect_err($named));
            assert!(error.code == Code::Invalid && error.message.contains($named), "{error}");
        };
    }
    let of_sql = |bytes: usize| SubmitRequest { sql: " ".repeat(bytes), ..Default::default() };
    refused!(submit(of_sql(limits::SQL_BYTES_MAX + 1)), "1048576");
    refused!(submit(of_sql(limits::REQUEST_BYTES_MAX)), "limit");
    refused!(submit(SubmitRequest { name: "é".repeat(254), ..Default::default() }), "254 characters");
    refused!(submit(SubmitRequest { from_savepoint: "/".repeat(4097), ..Default::default() }), "4097");
    refused!(explain(ExplainRequest { sql: " ".repeat(2 << 20), ..Default::default() }), "SQL");
    refused!(describe_job(JobRequest::default()), "no job");
    refused!(watch_events(WatchEventsRequest::default()), "no job");
    refused!(describe_worker(WorkerRequest::default()), "no worker");
    refused!(get_savepoint(SavepointRequest::default()), "no savepoint");
    assert_eq!(last(&rig.asked), None);
    rig.client.submit(of_sql(limits::SQL_BYTES_MAX)).await.expect("just within");
    rig.client.submit(SubmitRequest { name: "é".repeat(253), ..Default::default() }).await.expect("just within");
}

#[tokio::test]
async fn wrong_kind_of_answer_is_our_bug_and_no_panic() {
    let mut rig = Rig::new(|_| Ok(Response::Cluster(ClusterResponse::default()))).await;
    let error = Error::from_status(&rig.client.list_jobs(ListJobsRequest {}).await.expect_err("not jobs"));
    assert!(error.code == Code::Internal && error.message.contains("`Cluster`"), "{error}");
}

/// Events 1 and 2, then nothing, then 3 with the end.
fn history(polls: &Mutex<u32>, request: Request) -> Result<Response, Error> {
    let Request::Events { job, after } = request else {
        return echo(request).map(|response| renamed(response, "id-7"));
    };
    assert_eq!(job, "id-7", "the name may mean another job by now");
    let mut polls = polls.lock().expect("no panics");
    *polls += 1;
    let event = |sequence| JobEvent { sequence, ..JobEvent::default() };
    Ok(match (*polls, after) {
        (1, 0) => Response::Events { events: vec![event(1), event(2)], ended: false },
        (2, 2) => Response::Events { events: vec![], ended: false },
        (3, 2) => Response::Events { events: vec![event(3)], ended: true },
        other => panic!("asked {other:?}"),
    })
}

fn renamed(response: Response, id: &str) -> Response {
    match response {
        Response::Job(mut description) => {
            description.job = description.job.map(|job| Job { id: id.into(), ..job });
            Response::Job(description)
        }
        other => other,
    }
}

#[tokio::test]
async fn followed_events_come_once_each_until_the_job_has_ended() {
    let polls = Mutex::new(0);
    let mut rig = Rig::new(move |request| history(&polls, request)).await;
    let request = WatchEventsRequest { job: "pumps".into(), follow: true };
    let mut events = rig.client.watch_events(request).await.expect("events").into_inner();
    let mut sequences = Vec::new();
    while let Some(event) = events.message().await.expect("no status") {
        sequences.push(event.sequence);
    }
    assert_eq!(sequences, [1, 2, 3]);
}

#[tokio::test]
async fn stream_ends_with_its_error() {
    let mut rig = Rig::new(|request| match request {
        Request::Logs { after: 1, .. } => Err(Error::new(Code::NotLeader, "ask node 2")),
        request => echo(request),
    })
    .await;
    let request = LogsRequest { job: "j".into(), follow: true, ..Default::default() };
    let mut lines = rig.client.logs(request).await.expect("logs").into_inner();
    assert!(lines.message().await.expect("no status").is_some());
    let status = lines.message().await.expect_err("the leader has changed");
    assert_eq!(Error::from_status(&status), Error::new(Code::NotLeader, "ask node 2"));
}

#[tokio::test]
async fn nobody_asks_on_for_a_listener_that_has_gone() {
    let (sender, mut mailbox) = mpsc::channel(4);
    let (_close, closing) = watch::channel(false);
    let mut items = follow::events(Handle::new(sender), "j".into(), true, closing);
    let answer = |message: Option<Message>| match message {
        Some(Message::Request { request, reply }) => drop(reply.send(echo(request))),
        other => panic!("{other:?}"),
    };
    answer(mailbox.recv().await);
    assert!(tokio_stream::StreamExt::next(&mut items).await.is_some());
    drop(items);
    // The mailbox closes when the last one who could ask has gone; one question may have been under way.
    while let Some(message) = mailbox.recv().await {
        answer(Some(message));
    }
}

#[tokio::test]
async fn servers_end_when_told_and_their_streams_are_told_why() {
    let mut rig = Rig::new(echo).await;
    let request = LogsRequest { job: "j".into(), follow: true, ..Default::default() };
    let mut lines = rig.client.logs(request).await.expect("logs").into_inner();
    assert!(lines.message().await.expect("no status").is_some());
    rig.stop.send(()).expect("it serves");
    let status = loop {
        match lines.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the job has not ended"),
            Err(status) => break status,
        }
    };
    assert_eq!(Error::from_status(&status).code, Code::Unavailable);
    drop(rig.client);
    assert_eq!(rig.served.await.expect("no panics"), Ok(()));
}

async fn get(handle: &Handle, path: &str) -> (StatusCode, String, String) {
    let request = axum::http::Request::get(path).body(Body::empty()).expect("a request");
    let response = router(handle.clone()).oneshot(request).await.expect("infallible");
    let kind =
        response.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_string();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
    (status, kind, String::from_utf8(body.to_vec()).expect("utf-8"))
}

#[tokio::test]
async fn http_shows_the_control_messages_as_json() {
    let (handle, asked) = leader(echo);
    for (path, request, at) in [
        ("/api/v1/jobs", Request::ListJobs, "/jobs/0/id"),
        ("/api/v1/jobs/pumps%201", Request::DescribeJob(JobRequest { job: "pumps 1".into() }), "/job/id"),
        ("/api/v1/jobs/j/checkpoints", Request::ListCheckpoints(JobRequest { job: "j".into() }), "/checkpoints/0/path"),
        ("/api/v1/workers", Request::ListWorkers, "/workers/0/id"),
        ("/api/v1/savepoints", Request::ListSavepoints(ListSavepointsRequest::default()), "/savepoints/0/id"),
        (
            "/api/v1/savepoints?job=j",
            Request::ListSavepoints(ListSavepointsRequest { job: "j".into() }),
            "/savepoints/0/job",
        ),
        ("/ready", Request::Cluster, "/term"),
        ("/health", Request::Cluster, "/status"),
    ] {
        let (status, kind, body) = get(&handle, path).await;
        assert_eq!((status, kind.as_str()), (StatusCode::OK, "application/json"), "{path}");
        let json: serde_json::Value = serde_json::from_str(&body).expect("json");
        assert!(json.pointer(at).is_some(), "{path}: {body}");
        assert_eq!(last(&asked), Some(request), "{path}");
    }
    let (status, kind, body) = get(&handle, "/metrics").await;
    assert_eq!((status, kind.as_str()), (StatusCode::OK, metrics::CONTENT_TYPE));
    assert!(body.contains("edgeflow_job_rows_in_total{job=\"a\",name=\"\"} 0\n"), "{body}");
}

#[tokio::test]
async fn http_status_is_that_of_the_error() {
    for (code, expected) in [
        (Code::Invalid, 400),
        (Code::NotFound, 404),
        (Code::Conflict, 409),
        (Code::NotLeader, 503),
        (Code::Unavailable, 503),
        (Code::Corrupt, 500),
        (Code::Internal, 500),
    ] {
        let (handle, _) = leader(move |_| Err(Error::new(code, "because")));
        for path in ["/api/v1/jobs", "/metrics", "/ready"] {
            let (status, _, body) = get(&handle, path).await;
            assert_eq!(status.as_u16(), expected, "{path}");
            assert!(body.contains("because") && body.contains(ef_proto::wire::code_name(code)), "{body}");
        }
        // A follower is healthy, though not the one to ask.
        let healthy = code == Code::NotLeader;
        assert_eq!(get(&handle, "/health").await.0.is_success(), healthy, "{code}");
    }
    let (handle, asked) = leader(echo);
    assert_eq!(get(&handle, "/api/v2").await.0, StatusCode::NOT_FOUND);
    assert_eq!(get(&handle, &format!("/api/v1/jobs/{}", "x".repeat(254))).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(last(&asked), None);
}

#[tokio::test]
async fn leader_that_does_not_answer_is_not_healthy() {
    let (sender, _mailbox) = mpsc::channel(4);
    let handle = Handle::new(sender);
    for path in ["/health", "/ready"] {
        let (status, _, body) = get(&handle, path).await;
        assert!(status == StatusCode::SERVICE_UNAVAILABLE && body.contains("within 1 s"), "{body}");
    }
}

/// Between a worker and the coordinator; when frozen, it keeps both connections and passes nothing on, as a cut cable
/// does.
fn cable(to: std::net::SocketAddr, frozen: Arc<AtomicBool>) -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        let (near, _) = listener.accept().expect("the worker dials");
        let far = std::net::TcpStream::connect(to).expect("the coordinator listens");
        for (mut from, mut to) in [(&near, &far), (&far, &near)].map(|(a, b)| (a.try_clone(), b.try_clone())).map(both)
        {
            let frozen = frozen.clone();
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(bytes @ 1..) = from.read(&mut buffer) {
                    if !frozen.load(Ordering::SeqCst) && to.write_all(&buffer[..bytes]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

fn both<T>((a, b): (std::io::Result<T>, std::io::Result<T>)) -> (T, T) {
    (a.expect("a socket"), b.expect("a socket"))
}

#[tokio::test]
async fn session_over_a_dead_link_ends_by_itself() {
    let (sender, mut mailbox) = mpsc::channel(4);
    let (_close, closing) = watch::channel(false);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let keepalive = Keepalive { interval: Duration::from_millis(200), timeout: Duration::from_secs(1) };
    let server = grpc(Handle::new(sender), closing, keepalive);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    let frozen = Arc::new(AtomicBool::new(false));
    let address = cable(address, frozen.clone());
    let mut client = AgentsClient::connect(format!("http://{address}")).await.expect("connects");
    let (reports, stream) = mpsc::channel(4);
    let _orders = client.session(ReceiverStream::new(stream)).await.expect("the stream opens at once");
    let hello = Report::Hello(crate::workers::tests::hello("w"));
    reports.send((&hello).into()).await.expect("the stream is open");
    assert!(matches!(mailbox.recv().await, Some(Message::Connected { .. })));
    frozen.store(true, Ordering::SeqCst);
    assert!(matches!(mailbox.recv().await, Some(Message::Disconnected { .. })));
}
