//! A coordinator for tests of the client's side: it answers from a [`World`] that the test sets up, writes down what it
//! was asked, and can be stopped and started again on its port. It schedules and runs nothing.
//!
//! It lives on a thread of its own, so that stopping it closes every connection, as the end of a process does.
#![allow(dead_code, reason = "the library's tests and those of efctl each use a part of it")]

use ef_proto::wire::generated::control::control_server::{Control, ControlServer};
use ef_proto::wire::generated::control::*;
use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status};

/// All that the fake coordinator knows, and what it is to do wrong.
#[derive(Default)]
pub struct World {
    pub jobs: Vec<JobDescription>,
    /// The states that jobs go through, one for each description of any job that is asked for.
    pub states: VecDeque<&'static str>,
    pub workers: Vec<WorkerDescription>,
    pub checkpoints: Vec<Checkpoint>,
    /// What a triggered checkpoint becomes.
    pub next_checkpoint: Option<Checkpoint>,
    pub savepoints: Vec<Savepoint>,
    /// As `states`, for savepoints.
    pub savepoint_states: VecDeque<&'static str>,
    pub events: Vec<JobEvent>,
    pub logs: Vec<LogLine>,
    pub mapping: Vec<StateMapping>,
    pub rescaled: Vec<Rescaled>,
    /// Streams end with an error after this many items, once for each number.
    pub cuts: VecDeque<usize>,
    /// Errors of the next calls.
    pub failures: VecDeque<Status>,
    /// Method and request of each call.
    pub calls: Vec<(&'static str, String)>,
}

impl World {
    pub fn job(&mut self, id: &str, name: &str, state: &str) -> &mut JobDescription {
        let job = Job {
            id: id.into(),
            name: name.into(),
            state: state.into(),
            parallelism: 2,
            workers: 1,
            submitted_at_ms: 1_000,
            since_ms: 2_000,
            ..Job::default()
        };
        self.jobs.push(JobDescription { job: Some(job), plan: format!("Job {name}"), ..JobDescription::default() });
        self.jobs.last_mut().expect("just pushed")
    }

    pub fn worker(&mut self, id: &str, tier: &str) -> &mut WorkerDescription {
        let worker = Worker {
            id: id.into(),
            state: "READY".into(),
            tier: tier.into(),
            slots: 4,
            slots_free: 4,
            memory_bytes: 512 << 20,
            seen_at_ms: 9_000,
            ..Worker::default()
        };
        self.workers.push(WorkerDescription { worker: Some(worker), tasks: vec![] });
        self.workers.last_mut().expect("just pushed")
    }

    pub fn event(&mut self, sequence: u64, kind: &str, message: &str) {
        let event = JobEvent { at_ms: 1_000 * sequence, sequence, kind: kind.into(), message: message.into() };
        self.events.push(event);
    }

    pub fn log(&mut self, at_ms: u64, worker: &str, message: &str) {
        let line = LogLine { at_ms, worker: worker.into(), level: "INFO".into(), message: message.into() };
        self.logs.push(line);
    }

    /// The requests of one method.
    pub fn asked(&self, method: &str) -> Vec<&str> {
        self.calls.iter().filter(|(name, _)| *name == method).map(|(_, request)| request.as_str()).collect()
    }

    fn find(&mut self, wanted: &str) -> Result<&mut JobDescription, Status> {
        let is = |description: &&mut JobDescription| {
            description.job.as_ref().is_some_and(|job| job.id == wanted || job.name == wanted)
        };
        self.jobs.iter_mut().find(is).ok_or_else(|| Status::not_found(format!("there is no job `{wanted}`")))
    }

    fn find_worker(&mut self, wanted: &str) -> Result<&mut WorkerDescription, Status> {
        let is = |description: &&mut WorkerDescription| {
            description.worker.as_ref().is_some_and(|worker| worker.id == wanted)
        };
        self.workers.iter_mut().find(is).ok_or_else(|| Status::not_found(format!("there is no worker `{wanted}`")))
    }

    fn find_savepoint(&mut self, wanted: &str) -> Result<&mut Savepoint, Status> {
        let is = |savepoint: &&mut Savepoint| savepoint.id == wanted || savepoint.path == wanted;
        self.savepoints
            .iter_mut()
            .find(is)
            .ok_or_else(|| Status::not_found(format!("there is no savepoint `{wanted}`")))
    }

    fn new_savepoint(&mut self, job: &str, directory: &str) -> Savepoint {
        let id = format!("sp-{}", self.savepoints.len() + 1);
        let below = if directory.is_empty() { "/state/savepoints" } else { directory };
        let savepoint = Savepoint {
            path: format!("{below}/savepoint-{job}-{id}"),
            id,
            job: job.into(),
            job_name: "pumps".into(),
            state: "IN_PROGRESS".into(),
            created_at_ms: 8_000,
            bytes: 2_000_000,
            epoch: 7,
            ..Savepoint::default()
        };
        self.savepoints.push(savepoint.clone());
        savepoint
    }
}

/// A running fake coordinator.
pub struct Fake {
    pub url: String,
    address: SocketAddr,
    shared: Arc<Shared>,
    running: Option<(oneshot::Sender<()>, std::thread::JoinHandle<()>)>,
}

struct Shared {
    world: Mutex<World>,
    /// Counts changes, for streams that follow.
    changed: watch::Sender<u64>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the call down, and fails it if it is to fail.
    fn called<T: std::fmt::Debug>(&self, method: &'static str, request: &T) -> Result<MutexGuard<'_, World>, Status> {
        let mut world = self.lock();
        world.calls.push((method, format!("{request:?}")));
        match world.failures.pop_front() {
            Some(status) => Err(status),
            None => Ok(world),
        }
    }
}

/// The port of a listener that was closed is free when the last copy of it is: a process that another test is just
/// starting has one until its program begins.
fn bind(address: SocketAddr) -> TcpListener {
    let attempt = |_| {
        let listener = TcpListener::bind(address);
        if listener.is_err() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        listener.ok()
    };
    (0..2000).find_map(attempt).unwrap_or_else(|| panic!("cannot listen on {address}"))
}

impl Fake {
    pub fn start(set_up: impl FnOnce(&mut World)) -> Fake {
        let mut world = World::default();
        set_up(&mut world);
        let shared = Arc::new(Shared { world: Mutex::new(world), changed: watch::Sender::new(0) });
        let address = "127.0.0.1:0".parse().expect("an address");
        let mut fake = Fake { url: String::new(), address, shared, running: None };
        fake.restart();
        fake
    }

    /// Stops it, closing all connections, as if its process had ended.
    pub fn stop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            // Fails if the thread has ended, which is what is wanted.
            let _ = stop.send(());
            thread.join().expect("the fake coordinator did not panic");
        }
    }

    /// Starts it again where it was.
    pub fn restart(&mut self) {
        self.stop();
        let listener = bind(self.address);
        listener.set_nonblocking(true).expect("a socket");
        self.address = listener.local_addr().expect("bound");
        self.url = format!("http://{}", self.address);
        let (stop, stopped) = oneshot::channel();
        let shared = self.shared.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("within the runtime");
                let server = tonic::transport::Server::builder()
                    .add_service(ControlServer::new(Service { shared }))
                    .serve_with_incoming(TcpListenerStream::new(listener));
                tokio::select! {
                    served = server => served.expect("the fake coordinator serves"),
                    _ = stopped => {}
                }
            });
            // The runtime goes, and all connections' tasks with it.
        });
        self.running = Some((stop, thread));
    }

    pub fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let changed = change(&mut self.shared.lock());
        self.shared.changed.send_modify(|count| *count += 1);
        changed
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.shared.lock()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Service {
    shared: Arc<Shared>,
}

type Answer<T> = Result<Response<T>, Status>;

impl Service {
    /// All items from the first on and, when following, those to come until the job has ended.
    fn stream<T: Clone + Send + 'static>(
        &self,
        follow: bool,
        items: impl Fn(&World) -> Vec<T> + Send + 'static,
    ) -> ReceiverStream<Result<T, Status>> {
        let (sender, receiver) = mpsc::channel(16);
        let shared = self.shared.clone();
        let cut = shared.lock().cuts.pop_front();
        tokio::spawn(async move {
            let mut changes = shared.changed.subscribe();
            let mut sent = 0;
            loop {
                let (new, ended) = {
                    let world = shared.lock();
                    let ended = world
                        .jobs
                        .iter()
                        .flat_map(|job| &job.job)
                        .all(|job| ["FINISHED", "CANCELLED", "FAILED"].contains(&job.state.as_str()));
                    (items(&world)[sent..].to_vec(), ended)
                };
                for item in new {
                    if cut == Some(sent) {
                        let _ = sender.send(Err(Status::unavailable("cut"))).await;
                        return;
                    }
                    sent += 1;
                    if sender.send(Ok(item)).await.is_err() {
                        return;
                    }
                }
                if !follow || ended || changes.changed().await.is_err() {
                    return;
                }
            }
        });
        ReceiverStream::new(receiver)
    }
}

#[tonic::async_trait]
impl Control for Service {
    async fn submit(&self, request: Request<SubmitRequest>) -> Answer<SubmitResponse> {
        let request = request.into_inner();
        let mut world = self.shared.called("submit", &request)?;
        if !request.from_savepoint.is_empty() {
            world.find_savepoint(&request.from_savepoint)?;
        }
        let mut response = SubmitResponse {
            name: request.name.clone(),
            plan: format!("Job {}\nSink(out)", request.name),
            mapping: world.mapping.clone(),
            ..SubmitResponse::default()
        };
        if !request.dry_run {
            response.job = format!("{}-1", request.name);
            world.job(&response.job, &request.name, "PENDING");
        }
        Ok(Response::new(response))
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Answer<ExplainResponse> {
        let request = request.into_inner();
        drop(self.shared.called("explain", &request)?);
        Ok(Response::new(ExplainResponse { text: format!("Job {}", request.name) }))
    }

    async fn list_jobs(&self, request: Request<ListJobsRequest>) -> Answer<ListJobsResponse> {
        let world = self.shared.called("list_jobs", request.get_ref())?;
        Ok(Response::new(ListJobsResponse { jobs: world.jobs.iter().flat_map(|job| job.job.clone()).collect() }))
    }

    async fn describe_job(&self, request: Request<JobRequest>) -> Answer<JobDescription> {
        let mut world = self.shared.called("describe_job", request.get_ref())?;
        let next = world.states.pop_front();
        let description = world.find(&request.get_ref().job)?;
        if let (Some(next), Some(job)) = (next, &mut description.job) {
            job.state = next.into();
        }
        let answer = description.clone();
        drop(world);
        self.shared.changed.send_modify(|count| *count += 1);
        Ok(Response::new(answer))
    }

    async fn stop_job(&self, request: Request<StopJobRequest>) -> Answer<StopJobResponse> {
        let request = request.into_inner();
        let mut world = self.shared.called("stop_job", &request)?;
        let id = world.find(&request.job)?.job.clone().unwrap_or_default().id;
        let savepoint = match &request.savepoint {
            Some(directory) if !request.dry_run => world.new_savepoint(&id, directory).id,
            _ => String::new(),
        };
        Ok(Response::new(StopJobResponse { job: id, savepoint }))
    }

    async fn cancel_job(&self, request: Request<CancelJobRequest>) -> Answer<CancelJobResponse> {
        let mut world = self.shared.called("cancel_job", request.get_ref())?;
        let job = world.find(&request.get_ref().job)?.job.clone().unwrap_or_default();
        Ok(Response::new(CancelJobResponse { job: job.id }))
    }

    async fn rescale_job(&self, request: Request<RescaleJobRequest>) -> Answer<RescaleJobResponse> {
        let request = request.into_inner();
        let mut world = self.shared.called("rescale_job", &request)?;
        let operators = world.rescaled.clone();
        let description = world.find(&request.job)?;
        if !request.dry_run {
            let now = |operator: &Rescaled| OperatorStatus {
                id: operator.id.clone(),
                name: operator.name.clone(),
                parallelism: operator.new_parallelism,
                ..OperatorStatus::default()
            };
            description.operators = operators.iter().map(now).collect();
        }
        let job = description.job.clone().unwrap_or_default().id;
        Ok(Response::new(RescaleJobResponse { job, operators, restarting: 6, untouched: 2 }))
    }

    type WatchEventsStream = ReceiverStream<Result<JobEvent, Status>>;

    async fn watch_events(&self, request: Request<WatchEventsRequest>) -> Answer<Self::WatchEventsStream> {
        let request = request.into_inner();
        self.shared.called("watch_events", &request)?.find(&request.job)?;
        Ok(Response::new(self.stream(request.follow, |world| world.events.clone())))
    }

    type LogsStream = ReceiverStream<Result<LogLine, Status>>;

    async fn logs(&self, request: Request<LogsRequest>) -> Answer<Self::LogsStream> {
        let request = request.into_inner();
        self.shared.called("logs", &request)?.find(&request.job)?;
        let worker = request.worker;
        let lines = move |world: &World| {
            let of = |line: &&LogLine| worker.is_empty() || line.worker == worker;
            world.logs.iter().filter(of).cloned().collect()
        };
        Ok(Response::new(self.stream(request.follow, lines)))
    }

    async fn trigger_checkpoint(
        &self,
        request: Request<TriggerCheckpointRequest>,
    ) -> Answer<TriggerCheckpointResponse> {
        let request = request.into_inner();
        let mut world = self.shared.called("trigger_checkpoint", &request)?;
        let job = world.find(&request.job)?.job.clone().unwrap_or_default();
        if let Some(checkpoint) = world.next_checkpoint.take_if(|_| !request.dry_run) {
            world.checkpoints.push(checkpoint);
        }
        Ok(Response::new(TriggerCheckpointResponse { job: job.id }))
    }

    async fn list_checkpoints(&self, request: Request<JobRequest>) -> Answer<ListCheckpointsResponse> {
        let mut world = self.shared.called("list_checkpoints", request.get_ref())?;
        world.find(&request.get_ref().job)?;
        Ok(Response::new(ListCheckpointsResponse { checkpoints: world.checkpoints.clone() }))
    }

    async fn describe_checkpoint(&self, request: Request<CheckpointRequest>) -> Answer<StateDescription> {
        let request = request.into_inner();
        let mut world = self.shared.called("describe_checkpoint", &request)?;
        let job = world.find(&request.job)?.job.clone().unwrap_or_default();
        if !world.checkpoints.iter().any(|checkpoint| checkpoint.epoch == request.epoch) {
            return Err(Status::not_found(format!("job `{}` has no checkpoint {}", job.id, request.epoch)));
        }
        Ok(Response::new(StateDescription {
            job: job.id,
            job_name: job.name,
            epoch: request.epoch,
            ..StateDescription::default()
        }))
    }

    async fn create_savepoint(&self, request: Request<CreateSavepointRequest>) -> Answer<Savepoint> {
        let request = request.into_inner();
        let mut world = self.shared.called("create_savepoint", &request)?;
        let job = world.find(&request.job)?.job.clone().unwrap_or_default();
        if request.dry_run {
            return Ok(Response::new(Savepoint { job: job.id, job_name: job.name, ..Savepoint::default() }));
        }
        Ok(Response::new(world.new_savepoint(&job.id, &request.directory)))
    }

    async fn get_savepoint(&self, request: Request<SavepointRequest>) -> Answer<Savepoint> {
        let mut world = self.shared.called("get_savepoint", request.get_ref())?;
        let next = world.savepoint_states.pop_front();
        let savepoint = world.find_savepoint(&request.get_ref().savepoint)?;
        if let Some(next) = next {
            savepoint.state = next.into();
            savepoint.completed_at_ms = 9_000;
        }
        Ok(Response::new(savepoint.clone()))
    }

    async fn list_savepoints(&self, request: Request<ListSavepointsRequest>) -> Answer<ListSavepointsResponse> {
        let mut world = self.shared.called("list_savepoints", request.get_ref())?;
        let job = request.get_ref().job.clone();
        if !job.is_empty() {
            world.find(&job)?;
        }
        let of = |savepoint: &&Savepoint| job.is_empty() || savepoint.job == job || savepoint.job_name == job;
        let savepoints = world.savepoints.iter().filter(of).cloned().collect();
        Ok(Response::new(ListSavepointsResponse { savepoints }))
    }

    async fn describe_savepoint(&self, request: Request<SavepointRequest>) -> Answer<StateDescription> {
        let mut world = self.shared.called("describe_savepoint", request.get_ref())?;
        let savepoint = world.find_savepoint(&request.get_ref().savepoint)?;
        Ok(Response::new(StateDescription {
            path: savepoint.path.clone(),
            job: savepoint.job.clone(),
            job_name: savepoint.job_name.clone(),
            epoch: savepoint.epoch,
            bytes: savepoint.bytes,
            ..StateDescription::default()
        }))
    }

    async fn dispose_savepoint(&self, request: Request<DisposeSavepointRequest>) -> Answer<Savepoint> {
        let request = request.into_inner();
        let mut world = self.shared.called("dispose_savepoint", &request)?;
        let savepoint = world.find_savepoint(&request.savepoint)?;
        if !request.dry_run {
            savepoint.state = "DISPOSED".into();
        }
        Ok(Response::new(savepoint.clone()))
    }

    async fn list_workers(&self, request: Request<ListWorkersRequest>) -> Answer<ListWorkersResponse> {
        let world = self.shared.called("list_workers", request.get_ref())?;
        Ok(Response::new(ListWorkersResponse {
            workers: world.workers.iter().flat_map(|w| w.worker.clone()).collect(),
        }))
    }

    async fn describe_worker(&self, request: Request<WorkerRequest>) -> Answer<WorkerDescription> {
        let mut world = self.shared.called("describe_worker", request.get_ref())?;
        Ok(Response::new(world.find_worker(&request.get_ref().worker)?.clone()))
    }

    async fn cordon_worker(&self, request: Request<CordonWorkerRequest>) -> Answer<Worker> {
        let request = request.into_inner();
        let mut world = self.shared.called("cordon_worker", &request)?;
        let worker = world.find_worker(&request.worker)?.worker.get_or_insert_default();
        if !request.dry_run {
            worker.cordoned = request.cordoned;
        }
        Ok(Response::new(Worker { cordoned: request.cordoned, ..worker.clone() }))
    }

    async fn drain_worker(&self, request: Request<DrainWorkerRequest>) -> Answer<DrainWorkerResponse> {
        let request = request.into_inner();
        let mut world = self.shared.called("drain_worker", &request)?;
        let found = world.find_worker(&request.worker)?;
        let jobs: Vec<String> = found.tasks.iter().map(|task| task.job.clone()).collect();
        if !request.dry_run {
            found.tasks.clear();
        }
        Ok(Response::new(DrainWorkerResponse { worker: found.worker.clone(), jobs }))
    }

    async fn cluster(&self, request: Request<ClusterRequest>) -> Answer<ClusterResponse> {
        drop(self.shared.called("cluster", request.get_ref())?);
        Ok(Response::new(ClusterResponse {
            version: "0.1.0".into(),
            term: 3,
            started_at_ms: 1_000,
            state: "/state".into(),
        }))
    }
}
