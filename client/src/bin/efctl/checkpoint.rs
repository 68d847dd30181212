//! `efctl checkpoint JOB`: a checkpoint now, beside those of the interval.

use super::exit::Exit;
use super::session::Session;
use super::wait::{self, Wait};
use ef_client::remote::{Client, ENDED};
use ef_client::show::human;
use ef_proto::error::Error;
use ef_proto::wire::generated::control::{Checkpoint, JobRequest, TriggerCheckpointRequest};
use std::ops::ControlFlow::{self, Break, Continue};

#[derive(clap::Args)]
pub struct Args {
    /// Id or name
    job: String,
    /// Let the coordinator check whether it could, and take none
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    #[command(flatten)]
    wait: Wait,
}

pub async fn run(args: Args, session: &mut Session) -> Result<(), Exit> {
    let Args { job, dry_run, wait } = args;
    // Before it is triggered: what comes later has a higher epoch.
    let before = if wait.is_wanted() { highest(&session.client, &job).await? } else { 0 };
    let job = session.client.trigger_checkpoint(TriggerCheckpointRequest { job, dry_run }).await?.job;
    session.line(format_args!("checkpoint of job {job} requested{}", wait::dry(dry_run)))?;
    if !wait.is_wanted() {
        return Ok(());
    }
    let client = session.client.clone();
    let done = client.until(wait.limit(), async |client| look(client, &job, before).await);
    let goes_on = format!("the checkpoint of job {job} goes on");
    let waited = session.unless_interrupted(goes_on, done).await?;
    let checkpoint = wait::reached(waited, wait, |_| format!("the checkpoint of job {job} is not complete"))?;
    let checkpoint = checkpoint.ok_or_else(|| Exit::Failed(format!("job {job} has ended without the checkpoint")))?;
    let Checkpoint { epoch, duration_ms, bytes, new_bytes, reason, .. } = &checkpoint;
    if checkpoint.state == "FAILED" {
        return Err(Exit::Failed(format!("checkpoint {epoch} of job {job} failed: {reason}")));
    }
    let (took, size, new) = (human::duration(*duration_ms), human::size(*bytes), human::size(*new_bytes));
    session.line(format_args!("checkpoint {epoch} of job {job} completed in {took}: {size}, {new} of it new"))
}

async fn highest(client: &Client, job: &str) -> Result<u64, Error> {
    let list = client.list_checkpoints(JobRequest { job: job.into() }).await?;
    Ok(list.checkpoints.iter().map(|checkpoint| checkpoint.epoch).max().unwrap_or(0))
}

/// Any later checkpoint that is complete holds what the requested one would; only the requested one's failure is ours.
/// None: the job has ended, so that there will be none.
async fn look(
    client: &Client,
    job: &str,
    before: u64,
) -> Result<ControlFlow<Option<Checkpoint>, Option<Checkpoint>>, Error> {
    // In this order: a checkpoint that a job completes before it ends is seen.
    let description = client.describe_job(JobRequest { job: job.into() }).await?;
    let state = description.job.unwrap_or_default().state;
    let checkpoints = client.list_checkpoints(JobRequest { job: job.into() }).await?.checkpoints;
    let mut later = checkpoints.into_iter().filter(|checkpoint| checkpoint.epoch > before);
    let done = later.find(|checkpoint| match checkpoint.state.as_str() {
        "COMPLETED" => true,
        "FAILED" => checkpoint.cause == "requested",
        _ => false,
    });
    Ok(match done {
        Some(checkpoint) => Break(Some(checkpoint)),
        None if ENDED.contains(&state.as_str()) => Break(None),
        None => Continue(None),
    })
}
