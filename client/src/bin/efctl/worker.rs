//! `efctl cordon|uncordon|drain WORKER`: before a worker is taken away, and after it is back.

use super::exit::Exit;
use super::session::Session;
use super::wait::{self, Wait};
use ef_proto::wire::generated::control::*;
use std::ops::ControlFlow::{Break, Continue};

#[derive(clap::Args)]
pub struct Args {
    worker: String,
    /// Let the coordinator check whether it could, and change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(clap::Args)]
pub struct DrainArgs {
    worker: String,
    /// Show which jobs would move, and move none
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    #[command(flatten)]
    wait: Wait,
}

pub async fn cordon(args: Args, cordoned: bool, session: &mut Session) -> Result<(), Exit> {
    let Args { worker, dry_run } = args;
    let worker = session.client.cordon_worker(CordonWorkerRequest { worker, cordoned, dry_run }).await?;
    let verb = if cordoned { "cordoned" } else { "uncordoned" };
    session.line(format_args!("worker {} {verb}{}", worker.id, wait::dry(dry_run)))
}

pub async fn drain(args: DrainArgs, session: &mut Session) -> Result<(), Exit> {
    let DrainArgs { worker, dry_run, wait } = args;
    let response = session.client.drain_worker(DrainWorkerRequest { worker: worker.clone(), dry_run }).await?;
    let id = response.worker.map_or(worker, |worker| worker.id);
    let moved = match response.jobs.len() {
        0 => "it has no tasks".to_string(),
        1 => format!("job {} moves", response.jobs[0]),
        _ => format!("jobs {} move", response.jobs.join(", ")),
    };
    session.line(format_args!("worker {id} draining: {moved}{}", wait::dry(dry_run)))?;
    if !wait.is_wanted() {
        return Ok(());
    }
    let client = session.client.clone();
    let done = client.until(wait.limit(), async |client| {
        let tasks = client.describe_worker(WorkerRequest { worker: id.clone() }).await?.tasks.len();
        Ok(if tasks == 0 { Break(tasks) } else { Continue(tasks) })
    });
    let goes_on = format!("worker {id} stays cordoned and is drained further; `efctl uncordon {id}` takes it back");
    let waited = session.unless_interrupted(goes_on, done).await?;
    wait::reached(waited, wait, |tasks| format!("worker {id} still has {tasks} tasks"))?;
    session.line(format_args!("worker {id} drained"))
}
