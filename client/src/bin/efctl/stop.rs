//! `efctl stop JOB`: the sources stop, what is under way is processed, a last checkpoint is taken, sinks publish.

use super::exit::Exit;
use super::savepoint;
use super::session::Session;
use super::submit::absolute_directory;
use super::wait::{self, Wait};
use ef_proto::wire::generated::control::{StopJobRequest, StopJobResponse};

#[derive(clap::Args)]
pub struct Args {
    /// Id or name
    job: String,
    /// Leave a savepoint, below DIR or beside the cluster's state
    #[arg(long, value_name = "DIR", num_args = 0..=1, default_missing_value = "")]
    savepoint: Option<String>,
    /// Fire all windows, as if the inputs had ended for good
    #[arg(long)]
    drain: bool,
    /// Let the coordinator check whether it could, and stop nothing
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    #[command(flatten)]
    wait: Wait,
}

pub async fn run(args: Args, session: &mut Session) -> Result<(), Exit> {
    let Args { job, savepoint, drain, dry_run, wait } = args;
    let savepoint = savepoint.as_deref().map(absolute_directory);
    let events = if wait.is_wanted() { Some(wait::events_to_come(session, &job).await?) } else { None };
    let request = StopJobRequest { job, savepoint, drain, dry_run };
    let StopJobResponse { job, savepoint } = session.client.stop_job(request).await?;
    let with = if savepoint.is_empty() { String::new() } else { format!(" with savepoint {savepoint}") };
    session.line(format_args!("job {job} stopping{with}{}", wait::dry(dry_run)))?;
    let Some(events) = events else { return Ok(()) };
    let ended = wait::job_end(session, &job, wait, events).await?;
    if ended.state != "FINISHED" {
        return Err(wait::not_as_wanted(&ended));
    }
    if !savepoint.is_empty() {
        savepoint::complete(&savepoint, wait, session).await?;
    }
    session.line(format_args!("job {} stopped", wait::named(&ended)))
}
