//! `efctl cancel JOB`: all tasks end at once. What the last checkpoint covers stays published; later rows are lost to
//! the job unless it is submitted again from that checkpoint.

use super::exit::Exit;
use super::session::Session;
use super::wait::{self, Wait};
use ef_proto::wire::generated::control::CancelJobRequest;

#[derive(clap::Args)]
pub struct Args {
    /// Id or name
    job: String,
    /// Let the coordinator check whether it could, and cancel nothing
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    #[command(flatten)]
    wait: Wait,
}

pub async fn run(args: Args, session: &mut Session) -> Result<(), Exit> {
    let Args { job, dry_run, wait } = args;
    let events = if wait.is_wanted() { Some(wait::events_to_come(session, &job).await?) } else { None };
    let job = session.client.cancel_job(CancelJobRequest { job, dry_run }).await?.job;
    session.line(format_args!("job {job} cancelling{}", wait::dry(dry_run)))?;
    let Some(events) = events else { return Ok(()) };
    let ended = wait::job_end(session, &job, wait, events).await?;
    match ended.state.as_str() {
        "CANCELLED" => session.line(format_args!("job {} cancelled", wait::named(&ended))),
        // It was faster.
        "FINISHED" => session.line(format_args!("job {} had finished", wait::named(&ended))),
        _ => Err(wait::not_as_wanted(&ended)),
    }
}
