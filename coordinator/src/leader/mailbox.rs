//! What the leader is told, and how to tell it. The gRPC and HTTP services decode a request, make one call here, and
//! encode the answer.

use ef_proto::error::{Code, Error};
use ef_proto::ids::WorkerId;
use ef_proto::rpc::{Hello, Order, Report};
use ef_proto::wire::generated::control::*;
use tokio::sync::{mpsc, oneshot};

/// Counts the control streams that this process has accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// What a person or a tool asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    Submit(SubmitRequest),
    Explain(ExplainRequest),
    ListJobs,
    DescribeJob(JobRequest),
    StopJob(StopJobRequest),
    CancelJob(CancelJobRequest),
    RescaleJob(RescaleJobRequest),
    TriggerCheckpoint(TriggerCheckpointRequest),
    ListCheckpoints(JobRequest),
    DescribeCheckpoint(CheckpointRequest),
    CreateSavepoint(CreateSavepointRequest),
    GetSavepoint(SavepointRequest),
    ListSavepoints(ListSavepointsRequest),
    DescribeSavepoint(SavepointRequest),
    DisposeSavepoint(DisposeSavepointRequest),
    ListWorkers,
    DescribeWorker(WorkerRequest),
    CordonWorker(CordonWorkerRequest),
    DrainWorker(DrainWorkerRequest),
    Cluster,
    /// Events of a job with a sequence number above this; answered at once, also when there are none.
    Events {
        job: String,
        after: u64,
    },
    /// Log lines of a job (all workers, if `worker` is empty) above this number; answered at once.
    Logs {
        job: String,
        worker: String,
        after: u64,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    Submit(SubmitResponse),
    Explain(ExplainResponse),
    Jobs(ListJobsResponse),
    Job(Box<JobDescription>),
    StopJob(StopJobResponse),
    CancelJob(CancelJobResponse),
    RescaleJob(RescaleJobResponse),
    TriggerCheckpoint(TriggerCheckpointResponse),
    Checkpoints(ListCheckpointsResponse),
    State(StateDescription),
    Savepoint(Savepoint),
    Savepoints(ListSavepointsResponse),
    Workers(ListWorkersResponse),
    WorkerDescription(WorkerDescription),
    Worker(Worker),
    DrainWorker(DrainWorkerResponse),
    Cluster(ClusterResponse),
    Events {
        events: Vec<JobEvent>,
        /// The job has ended: no more will come.
        ended: bool,
    },
    Logs {
        lines: Vec<LogLine>,
        /// Number of the last of them.
        upto: u64,
        ended: bool,
    },
}

#[derive(Debug)]
pub enum Message {
    Request {
        request: Request,
        reply: oneshot::Sender<Result<Response, Error>>,
    },
    /// A worker has dialled in and said who it is. Orders for it go to `orders`; when that is dropped, its stream ends.
    Connected {
        session: SessionId,
        hello: Hello,
        orders: mpsc::Sender<Order>,
    },
    /// Anything but a Hello.
    Report {
        worker: WorkerId,
        session: SessionId,
        report: Report,
    },
    Disconnected {
        worker: WorkerId,
        session: SessionId,
    },
}

/// The way into the leader's mailbox.
#[derive(Clone, Debug)]
pub struct Handle {
    mailbox: mpsc::Sender<Message>,
}

impl Handle {
    pub fn new(mailbox: mpsc::Sender<Message>) -> Handle {
        Handle { mailbox }
    }

    pub async fn call(&self, request: Request) -> Result<Response, Error> {
        let gone = || Error::new(Code::Unavailable, "the coordinator is going down");
        let (reply, answer) = oneshot::channel();
        self.send(Message::Request { request, reply }).await?;
        answer.await.map_err(|_| gone())?
    }

    /// Waits while the mailbox is full.
    pub async fn send(&self, message: Message) -> Result<(), Error> {
        let gone = |_| Error::new(Code::Unavailable, "the coordinator is going down");
        self.mailbox.send(message).await.map_err(gone)
    }
}
