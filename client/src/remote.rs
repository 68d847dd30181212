//! The library that programs use a cluster by: [`Client`] has one method for each call of the coordinator's API, streams
//! that outlive a lost connection, and waits with a limit. `efctl` is written on it.
//!
//! With several coordinators the one that answered last is asked first. A call that only reads is made again when the
//! connection breaks; one that changes something is made again only where it is certain that nobody has received it.
//! That is told in the error otherwise, because only the caller can find out.

mod address;
mod fault;
mod follow;
mod seen;
mod wait;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

pub use fault::{error_of, is_unreachable};
pub use follow::Follow;
pub use wait::Waited;

use address::Address;
use ef_proto::error::{Code, Error};
use ef_proto::wire::generated::control::control_client::ControlClient;
use ef_proto::wire::generated::control::*;
use fault::{Fault, fault};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

/// Where `efctl` looks for a coordinator unless it is told.
pub const URL_DEFAULT: &str = "http://127.0.0.1:7070";

/// States that a job does not leave.
pub const ENDED: [&str; 3] = ["FINISHED", "CANCELLED", "FAILED"];

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection on which nothing has come back for this long is dead: pulled cables send no farewell.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long to wait for coordinators that are there, but none of which leads, to elect one.
const ELECTION: Duration = Duration::from_secs(15);
/// Descriptions hold a job's plan and SQL, lists hold a cluster's jobs.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Whether a call may be made again if nobody knows how far it came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Change,
}

/// A cluster's coordinators. Cheap to clone; clones share the connections.
#[derive(Clone)]
pub struct Client {
    peers: Arc<[Peer]>,
    /// The peer that answered last.
    current: Arc<AtomicUsize>,
}

struct Peer {
    url: String,
    stub: ControlClient<Channel>,
}

/// The next pause between two looks at the same thing.
fn longer(pause: Duration) -> Duration {
    (pause * 3 / 2).min(PAUSE_MAX)
}

impl Client {
    /// `urls` are one or several of `http://HOST:PORT`, comma-separated. Connections are made when they are first used,
    /// so the error is one of the text. Must be called within a tokio runtime.
    ///
    /// Plain http to another machine is refused unless `insecure`: whoever is on the way could read and change
    /// everything.
    pub fn connect(urls: &str, insecure: bool) -> Result<Client, Error> {
        let mut peers = vec![];
        for text in urls.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            let address = Address::parse(text)?;
            if !insecure && !address.is_loopback() {
                return Err(Error::invalid(format!(
                    "`{text}` is on another machine, and connections are not encrypted yet; --insecure connects nevertheless"
                )));
            }
            let endpoint = Endpoint::from_shared(address.url())
                .map_err(|e| Error::invalid(format!("`{text}` is no URL of a coordinator: {e}")))?
                .connect_timeout(CONNECT_TIMEOUT)
                .tcp_keepalive(Some(KEEP_ALIVE))
                .http2_keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(KEEP_ALIVE);
            let stub = ControlClient::new(endpoint.connect_lazy())
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX);
            peers.push(Peer { url: address.url(), stub });
        }
        if peers.is_empty() {
            return Err(Error::invalid(format!(
                "no URL of a coordinator; one such as {URL_DEFAULT} would be accepted"
            )));
        }
        Ok(Client { peers: peers.into(), current: Arc::new(AtomicUsize::new(0)) })
    }

    /// The coordinators' URLs, comma-separated.
    pub fn urls(&self) -> String {
        self.peers.iter().map(|peer| peer.url.as_str()).collect::<Vec<_>>().join(",")
    }

    async fn call<T, F>(&self, kind: Kind, call: impl Fn(ControlClient<Channel>) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + ELECTION;
        let mut pause = PAUSE_MIN;
        // A connection may have gone stale since the last call; the first call to notice is made once more.
        let mut once_more = kind == Kind::Read;
        loop {
            let first = self.current.load(Ordering::Relaxed);
            let mut faults = vec![];
            for index in (0..self.peers.len()).map(|offset| (first + offset) % self.peers.len()) {
                let peer = &self.peers[index];
                let found = match timeout(CALL_TIMEOUT, call(peer.stub.clone())).await {
                    Ok(Ok(response)) => {
                        self.current.store(index, Ordering::Relaxed);
                        return Ok(response.into_inner());
                    }
                    Ok(Err(status)) => fault(&status),
                    Err(_) => Fault::Lost(format!("no answer within {} s", CALL_TIMEOUT.as_secs())),
                };
                match found {
                    Fault::Answer(error) => {
                        self.current.store(index, Ordering::Relaxed);
                        return Err(error);
                    }
                    Fault::Lost(reason) if kind == Kind::Change => {
                        let what = "the connection to the coordinator at";
                        let then = "it may or may not have done what was asked";
                        return Err(Error::new(
                            Code::Unavailable,
                            format!("{what} {} broke: {reason}; {then}", peer.url),
                        ));
                    }
                    found => faults.push((peer.url.as_str(), found)),
                }
            }
            let electing = faults.iter().any(|(_, fault)| matches!(fault, Fault::NotLeader(_)));
            let lost = faults.iter().any(|(_, fault)| matches!(fault, Fault::Lost(_)));
            if electing && Instant::now() < deadline {
                sleep(pause).await;
                pause = longer(pause);
            } else if lost && once_more {
                once_more = false;
            } else {
                return Err(fault::all_failed(&faults));
            }
        }
    }
}

/// One method for each call that has one answer.
macro_rules! calls {
    ($($(#[$doc:meta])* $kind:ident $name:ident($request:ty) -> $response:ty;)*) => {
        impl Client {
            $($(#[$doc])*
            pub async fn $name(&self, request: $request) -> Result<$response, Error> {
                self.call(Kind::$kind, |mut stub| {
                    let request = request.clone();
                    async move { stub.$name(request).await }
                })
                .await
            })*
        }
    };
}

calls! {
    /// Without `dry_run` the job is made and runs as soon as there are slots for it.
    Change submit(SubmitRequest) -> SubmitResponse;
    Read explain(ExplainRequest) -> ExplainResponse;
    Read list_jobs(ListJobsRequest) -> ListJobsResponse;
    Read describe_job(JobRequest) -> JobDescription;
    Change stop_job(StopJobRequest) -> StopJobResponse;
    Change cancel_job(CancelJobRequest) -> CancelJobResponse;
    Change rescale_job(RescaleJobRequest) -> RescaleJobResponse;
    Change trigger_checkpoint(TriggerCheckpointRequest) -> TriggerCheckpointResponse;
    Read list_checkpoints(JobRequest) -> ListCheckpointsResponse;
    Read describe_checkpoint(CheckpointRequest) -> StateDescription;
    /// Answers at once; [`Client::wait_savepoint`] waits for it to be there.
    Change create_savepoint(CreateSavepointRequest) -> Savepoint;
    Read get_savepoint(SavepointRequest) -> Savepoint;
    Read list_savepoints(ListSavepointsRequest) -> ListSavepointsResponse;
    Read describe_savepoint(SavepointRequest) -> StateDescription;
    Change dispose_savepoint(DisposeSavepointRequest) -> Savepoint;
    Read list_workers(ListWorkersRequest) -> ListWorkersResponse;
    Read describe_worker(WorkerRequest) -> WorkerDescription;
    Change cordon_worker(CordonWorkerRequest) -> Worker;
    Change drain_worker(DrainWorkerRequest) -> DrainWorkerResponse;
    Read cluster(ClusterRequest) -> ClusterResponse;
}
