//! The gRPC service of efctl and other tools: each method checks sizes, makes one call of the leader and encodes the
//! answer. Holds no state and knows no rules.

use super::ask::ask;
use super::{follow, limits};
use crate::leader::{Handle, Request as Ask, Response as Answer};
use ef_proto::error::Error;
use ef_proto::wire::generated::control::control_server;
use ef_proto::wire::generated::control::*;
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

type Result<T> = std::result::Result<Response<T>, Status>;

#[derive(Clone, Debug)]
pub struct Control {
    handle: Handle,
    closing: watch::Receiver<bool>,
}

impl Control {
    /// Streams end when `closing` becomes true.
    pub fn new(handle: Handle, closing: watch::Receiver<bool>) -> Control {
        Control { handle, closing }
    }

    /// The id of a job that is followed: its name may mean another one later.
    async fn job_id(&self, job: String) -> std::result::Result<String, Error> {
        let request = Ask::DescribeJob(JobRequest { job });
        let id = ask!(self.handle, request, Answer::Job(description) => description.job.map(|job| job.id))?;
        id.ok_or_else(|| Error::new(ef_proto::error::Code::Internal, "the coordinator described a job without its id"))
    }
}

#[tonic::async_trait]
impl control_server::Control for Control {
    async fn submit(&self, request: Request<SubmitRequest>) -> Result<SubmitResponse> {
        let request = request.into_inner();
        limits::submit(&request)?;
        Ok(Response::new(ask!(self.handle, Ask::Submit(request), Answer::Submit(answer) => answer)?))
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Result<ExplainResponse> {
        let request = request.into_inner();
        limits::explain(&request)?;
        Ok(Response::new(ask!(self.handle, Ask::Explain(request), Answer::Explain(answer) => answer)?))
    }

    async fn list_jobs(&self, _: Request<ListJobsRequest>) -> Result<ListJobsResponse> {
        Ok(Response::new(ask!(self.handle, Ask::ListJobs, Answer::Jobs(answer) => answer)?))
    }

    async fn describe_job(&self, request: Request<JobRequest>) -> Result<JobDescription> {
        let request = request.into_inner();
        limits::named("job", &request.job)?;
        Ok(Response::new(ask!(self.handle, Ask::DescribeJob(request), Answer::Job(answer) => *answer)?))
    }

    async fn stop_job(&self, request: Request<StopJobRequest>) -> Result<StopJobResponse> {
        let request = request.into_inner();
        limits::named("job", &request.job)?;
        limits::path("savepoint's directory", request.savepoint.as_deref().unwrap_or_default())?;
        Ok(Response::new(ask!(self.handle, Ask::StopJob(request), Answer::StopJob(answer) => answer)?))
    }

    async fn cancel_job(&self, request: Request<CancelJobRequest>) -> Result<CancelJobResponse> {
        let request = request.into_inner();
        limits::named("job", &request.job)?;
        Ok(Response::new(ask!(self.handle, Ask::CancelJob(request), Answer::CancelJob(answer) => answer)?))
    }

    async fn rescale_job(&self, request: Request<RescaleJobRequest>) -> Result<RescaleJobResponse> {
        let request = request.into_inner();
        limits::named("job", &request.job)?;
        Ok(Response::new(ask!(self.handle, Ask::RescaleJob(request), Answer::RescaleJob(answer) => answer)?))
    }

    type WatchEventsStream = ReceiverStream<std::result::Result<JobEvent, Status>>;

    async fn watch_events(&self, request: Request<WatchEventsRequest>) -> Result<Self::WatchEventsStream> {
        let WatchEventsRequest { job, follow } = request.into_inner();
        limits::named("job", &job)?;
        let job = self.job_id(job).await?;
        Ok(Response::new(follow::events(self.handle.clone(), job, follow, self.closing.clone())))
    }

    type LogsStream = ReceiverStream<std::result::Result<LogLine, Status>>;

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Self::LogsStream> {
        let LogsRequest { job, worker, follow } = request.into_inner();
        limits::named("job", &job)?;
        limits::name("worker", &worker)?;
        let job = self.job_id(job).await?;
        Ok(Response::new(follow::logs(self.handle.clone(), job, worker, follow, self.closing.clone())))
    }

    async fn trigger_checkpoint(
        &self,
        request: Request<TriggerCheckpointRequest>,
    ) -> Result<TriggerCheckpointResponse> {
        let request = request.into_inner();
        limits::named("job", &request.job)?;
        let request = Ask::TriggerCheckpoint(request);
        Ok(Response::new(ask!(self.handle, request, Answer::TriggerCheckpoint(answer) => answer)?))
    }

    async fn list_checkpoints(&self, request: Request<JobRequest>) -> Result<ListCheckpointsResponse> {
        let request = request.into_inner();
        limits::named("job", &request.job)?;
        Ok(Response::new(ask!(self.handle, Ask::ListCheckpoints(request), Answer::Checkpoints(answer) => answer)?))
    }

    async fn describe_checkpoint(&self, request: Request<CheckpointRequest>) -> Result<StateDescription> {
        let request = request.into_inner();
        limits::named("job", &request.job)?;
        Ok(Response::new(ask!(self.handle, Ask::DescribeCheckpoint(request), Answer::State(answer) => answer)?))
    }

    async fn create_savepoint(&self, request: Request<CreateSavepointRequest>) -> Result<Savepoint> {
        let request = request.into_inner();
        limits::named("job", &request.job)?;
        limits::path("savepoint's directory", &request.directory)?;
        Ok(Response::new(ask!(self.handle, Ask::CreateSavepoint(request), Answer::Savepoint(answer) => answer)?))
    }

    async fn get_savepoint(&self, request: Request<SavepointRequest>) -> Result<Savepoint> {
        let request = request.into_inner();
        limits::savepoint(&request.savepoint)?;
        Ok(Response::new(ask!(self.handle, Ask::GetSavepoint(request), Answer::Savepoint(answer) => answer)?))
    }

    async fn list_savepoints(&self, request: Request<ListSavepointsRequest>) -> Result<ListSavepointsResponse> {
        let request = request.into_inner();
        limits::name("job", &request.job)?;
        Ok(Response::new(ask!(self.handle, Ask::ListSavepoints(request), Answer::Savepoints(answer) => answer)?))
    }

    async fn describe_savepoint(&self, request: Request<SavepointRequest>) -> Result<StateDescription> {
        let request = request.into_inner();
        limits::savepoint(&request.savepoint)?;
        Ok(Response::new(ask!(self.handle, Ask::DescribeSavepoint(request), Answer::State(answer) => answer)?))
    }

    async fn dispose_savepoint(&self, request: Request<DisposeSavepointRequest>) -> Result<Savepoint> {
        let request = request.into_inner();
        limits::savepoint(&request.savepoint)?;
        Ok(Response::new(ask!(self.handle, Ask::DisposeSavepoint(request), Answer::Savepoint(answer) => answer)?))
    }

    async fn list_workers(&self, _: Request<ListWorkersRequest>) -> Result<ListWorkersResponse> {
        Ok(Response::new(ask!(self.handle, Ask::ListWorkers, Answer::Workers(answer) => answer)?))
    }

    async fn describe_worker(&self, request: Request<WorkerRequest>) -> Result<WorkerDescription> {
        let request = request.into_inner();
        limits::named("worker", &request.worker)?;
        let request = Ask::DescribeWorker(request);
        Ok(Response::new(ask!(self.handle, request, Answer::WorkerDescription(answer) => answer)?))
    }

    async fn cordon_worker(&self, request: Request<CordonWorkerRequest>) -> Result<Worker> {
        let request = request.into_inner();
        limits::named("worker", &request.worker)?;
        Ok(Response::new(ask!(self.handle, Ask::CordonWorker(request), Answer::Worker(answer) => answer)?))
    }

    async fn drain_worker(&self, request: Request<DrainWorkerRequest>) -> Result<DrainWorkerResponse> {
        let request = request.into_inner();
        limits::named("worker", &request.worker)?;
        Ok(Response::new(ask!(self.handle, Ask::DrainWorker(request), Answer::DrainWorker(answer) => answer)?))
    }

    async fn cluster(&self, _: Request<ClusterRequest>) -> Result<ClusterResponse> {
        Ok(Response::new(ask!(self.handle, Ask::Cluster, Answer::Cluster(answer) => answer)?))
    }
}
