//! What can be read over HTTP: whether the coordinator lives, figures for Prometheus, and the control messages as JSON.
//! Nothing can be changed here.

use super::ask::ask;
use super::limits;
use super::metrics::{self, Figures, JobFigures};
use super::process::Process;
use crate::leader::{Handle, Request, Response};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response as Page};
use axum::routing::get;
use axum::{Json, Router};
use ef_proto::error::{Code, Error};
use ef_proto::wire::code_name;
use ef_proto::wire::generated::control::*;
use serde::Deserialize;
use serde_json::json;
use std::future::Future;
use std::time::Duration;
use tokio::time::timeout;

/// A leader that is alive answers at once.
const ALIVE: Duration = Duration::from_secs(1);

/// For everything else; what is asked here needs no work.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn router(handle: Handle) -> Router {
    let api = Router::new()
        .route("/jobs", get(jobs))
        .route("/jobs/{job}", get(job))
        .route("/jobs/{job}/checkpoints", get(checkpoints))
        .route("/workers", get(workers))
        .route("/savepoints", get(savepoints));
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(figures))
        .nest("/api/v1", api)
        .fallback(|| async { Refusal(Error::new(Code::NotFound, "there is no such page")) })
        .with_state(handle)
}

/// An error as a page.
#[derive(Debug)]
struct Refusal(Error);

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Page {
        let status = match self.0.code {
            Code::Invalid => StatusCode::BAD_REQUEST,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::Conflict => StatusCode::CONFLICT,
            Code::NotLeader | Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Code::Corrupt | Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(json!({ "code": code_name(self.0.code), "message": self.0.message }))).into_response()
    }
}

type Answer<T> = Result<Json<T>, Refusal>;

async fn within<T>(limit: Duration, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Refusal> {
    let late = || Error::new(Code::Unavailable, format!("the coordinator did not answer within {} s", limit.as_secs()));
    Ok(timeout(limit, answer).await.unwrap_or_else(|_| Err(late()))?)
}

async fn cluster(handle: &Handle) -> Result<ClusterResponse, Error> {
    ask!(handle, Request::Cluster, Response::Cluster(answer) => answer)
}

/// Whether the process is worth keeping: one that answers that somebody else leads is.
async fn health(State(handle): State<Handle>) -> Answer<serde_json::Value> {
    match within(ALIVE, cluster(&handle)).await {
        Err(Refusal(error)) if error.code != Code::NotLeader => Err(Refusal(error)),
        _ => Ok(Json(json!({ "status": "ok" }))),
    }
}

/// Whether requests should be sent here.
async fn ready(State(handle): State<Handle>) -> Answer<ClusterResponse> {
    Ok(Json(within(ALIVE, cluster(&handle)).await?))
}

async fn jobs(State(handle): State<Handle>) -> Answer<ListJobsResponse> {
    Ok(Json(within(PATIENCE, list_jobs(&handle)).await?))
}

async fn list_jobs(handle: &Handle) -> Result<ListJobsResponse, Error> {
    ask!(handle, Request::ListJobs, Response::Jobs(answer) => answer)
}

async fn job(State(handle): State<Handle>, Path(job): Path<String>) -> Answer<JobDescription> {
    limits::named("job", &job)?;
    Ok(Json(within(PATIENCE, describe_job(&handle, job)).await?))
}

async fn describe_job(handle: &Handle, job: String) -> Result<JobDescription, Error> {
    ask!(handle, Request::DescribeJob(JobRequest { job }), Response::Job(answer) => *answer)
}

async fn checkpoints(State(handle): State<Handle>, Path(job): Path<String>) -> Answer<ListCheckpointsResponse> {
    limits::named("job", &job)?;
    Ok(Json(within(PATIENCE, list_checkpoints(&handle, job)).await?))
}

async fn list_checkpoints(handle: &Handle, job: String) -> Result<ListCheckpointsResponse, Error> {
    ask!(handle, Request::ListCheckpoints(JobRequest { job }), Response::Checkpoints(answer) => answer)
}

async fn workers(State(handle): State<Handle>) -> Answer<ListWorkersResponse> {
    Ok(Json(within(PATIENCE, list_workers(&handle)).await?))
}

async fn list_workers(handle: &Handle) -> Result<ListWorkersResponse, Error> {
    ask!(handle, Request::ListWorkers, Response::Workers(answer) => answer)
}

/// `?job=` narrows the list.
#[derive(Debug, Deserialize)]
struct OfJob {
    #[serde(default)]
    job: String,
}

async fn savepoints(State(handle): State<Handle>, Query(of): Query<OfJob>) -> Answer<ListSavepointsResponse> {
    limits::name("job", &of.job)?;
    let request = Request::ListSavepoints(ListSavepointsRequest { job: of.job });
    let answer = async { ask!(handle, request, Response::Savepoints(answer) => answer) };
    Ok(Json(within(PATIENCE, answer).await?))
}

async fn figures(State(handle): State<Handle>) -> Result<Page, Refusal> {
    let figures = within(PATIENCE, gather(&handle)).await?;
    #[expect(clippy::disallowed_methods, reason = "the age of a checkpoint is told to whoever asks now")]
    let now = std::time::SystemTime::now();
    let now_ms = now.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::render(&figures, now_ms)).into_response())
}

async fn gather(handle: &Handle) -> Result<Figures, Error> {
    let cluster = cluster(handle).await?;
    let workers = list_workers(handle).await?.workers;
    let mut jobs = Vec::new();
    for job in list_jobs(handle).await?.jobs {
        jobs.push(match job.ended_at_ms {
            0 => checkpoint_figures(handle, job).await?,
            _ => JobFigures { job, counts: None, last: None },
        });
    }
    Ok(Figures { cluster, jobs, workers, process: Process::read() })
}

/// Of a job that has not ended when it was listed.
async fn checkpoint_figures(handle: &Handle, job: Job) -> Result<JobFigures, Error> {
    let found = async {
        let counts = describe_job(handle, job.id.clone()).await?.checkpoints;
        let checkpoints = list_checkpoints(handle, job.id.clone()).await?.checkpoints;
        let complete = checkpoints.into_iter().filter(|checkpoint| checkpoint.state == "COMPLETED");
        Ok((counts, complete.max_by_key(|checkpoint| checkpoint.epoch)))
    };
    let found: Result<_, Error> = found.await;
    match found {
        Ok((counts, last)) => Ok(JobFigures { job, counts, last }),
        // Forgotten since it was listed.
        Err(e) if e.code == Code::NotFound => Ok(JobFigures { job, counts: None, last: None }),
        Err(e) => Err(e),
    }
}
