//! Streams of events and log lines that outlive a lost connection or a coordinator that is replaced: they are opened
//! again, and what has been handed out is passed over. In a stream nothing comes twice, and nothing that the
//! coordinator has kept is lost.

use super::fault::{Fault, fault};
use super::seen::Seen;
use super::{Client, Kind, PAUSE_MIN, longer, wait};
use ef_proto::error::{Code, Error};
use ef_proto::wire::generated::control::control_client::ControlClient;
use ef_proto::wire::generated::control::{JobEvent, LogLine, LogsRequest, WatchEventsRequest};
use std::hash::{DefaultHasher, Hash, Hasher};
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

/// What a stream is of.
pub trait Item: Sized + Send + 'static {
    type Request: Clone + Send + Sync;

    fn open(
        stub: ControlClient<Channel>,
        request: Self::Request,
    ) -> impl Future<Output = Result<Response<Streaming<Self>>, Status>> + Send;

    /// The same for what is the same in a replay.
    fn identity(&self) -> u64;
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl Item for JobEvent {
    type Request = WatchEventsRequest;

    async fn open(
        mut stub: ControlClient<Channel>,
        request: WatchEventsRequest,
    ) -> Result<Response<Streaming<JobEvent>>, Status> {
        stub.watch_events(request).await
    }

    fn identity(&self) -> u64 {
        hash((self.sequence, self.at_ms, &self.kind, &self.message))
    }
}

impl Item for LogLine {
    type Request = LogsRequest;

    async fn open(
        mut stub: ControlClient<Channel>,
        request: LogsRequest,
    ) -> Result<Response<Streaming<LogLine>>, Status> {
        stub.logs(request).await
    }

    fn identity(&self) -> u64 {
        hash((self.at_ms, &self.worker, &self.level, &self.message))
    }
}

/// A stream that is opened again as often as it takes.
pub struct Follow<T: Item> {
    client: Client,
    request: T::Request,
    stream: Option<Streaming<T>>,
    seen: Seen,
    /// Whether it has ever been open: what cannot be opened at all is not tried for long.
    opened: bool,
}

impl Client {
    /// A job's events, oldest first; with `follow` until the job has ended.
    pub fn watch_events(&self, job: &str, follow: bool) -> Follow<JobEvent> {
        self.follow(WatchEventsRequest { job: job.into(), follow })
    }

    /// A job's log lines; `worker` may be empty for all of them.
    pub fn logs(&self, job: &str, worker: &str, follow: bool) -> Follow<LogLine> {
        self.follow(LogsRequest { job: job.into(), worker: worker.into(), follow })
    }

    fn follow<T: Item>(&self, request: T::Request) -> Follow<T> {
        Follow { client: self.clone(), request, stream: None, seen: Seen::default(), opened: false }
    }
}

impl<T: Item> Follow<T> {
    /// Another stream of the same things takes their place: what has been handed out does not come again.
    pub fn go_on_with(mut self, request: T::Request) -> Follow<T> {
        self.stream = None;
        self.request = request;
        self
    }

    /// None at the end of the stream.
    pub async fn next(&mut self) -> Result<Option<T>, Error> {
        loop {
            let stream = match &mut self.stream {
                Some(stream) => stream,
                None => {
                    let stream = self.open().await?;
                    self.seen.restart();
                    self.stream.insert(stream)
                }
            };
            match stream.message().await {
                Ok(Some(item)) => {
                    if self.seen.is_new(item.identity()) {
                        return Ok(Some(item));
                    }
                }
                Ok(None) => return Ok(None),
                Err(status) => {
                    self.stream = None;
                    match fault(&status) {
                        Fault::Answer(error) if error.code != Code::Unavailable => return Err(error),
                        // So that a coordinator that breaks every stream at once is not asked without a pause.
                        _ => sleep(PAUSE_MIN).await,
                    }
                }
            }
        }
    }

    /// Once it has been open, a coordinator that is away is waited for.
    async fn open(&mut self) -> Result<Streaming<T>, Error> {
        let deadline = Instant::now() + wait::PATIENCE;
        let mut pause = PAUSE_MIN;
        loop {
            let request = &self.request;
            match self.client.call(Kind::Read, |stub| T::open(stub, request.clone())).await {
                Ok(stream) => {
                    self.opened = true;
                    return Ok(stream);
                }
                Err(error) if self.opened && wait::passes(&error) && Instant::now() < deadline => {
                    sleep(pause).await;
                    pause = longer(pause);
                }
                Err(error) => return Err(error),
            }
        }
    }
}
