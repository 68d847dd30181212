//! `efctl savepoint create|list|describe|dispose`: checkpoints that belong to the user, who decides how long they stay.

use super::describe::{self, Output};
use super::exit::Exit;
use super::get;
use super::session::Session;
use super::submit::{absolute, absolute_directory};
use super::wait::{self, Wait};
use clap::Subcommand;
use ef_client::show::{human, views};
use ef_proto::wire::generated::control::*;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Copy a job's state to where it stays until it is disposed of; the job goes on
    Create(Create),
    /// List savepoints, of all jobs or of one
    #[command(visible_alias = "ls")]
    List {
        job: Option<String>,
        #[arg(short, long, value_enum, default_value = "table")]
        output: get::Format,
    },
    /// Show what a savepoint holds
    Describe {
        #[arg(value_name = "ID|PATH")]
        savepoint: String,
        #[arg(short, long, value_enum, default_value = "text")]
        output: Output,
    },
    /// Delete a savepoint and its files
    #[command(visible_aliases = ["delete", "rm"])]
    Dispose {
        #[arg(value_name = "ID|PATH")]
        savepoint: String,
        /// Let the coordinator check whether it could, and delete nothing
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(clap::Args)]
struct Create {
    /// Id or name
    job: String,
    /// Directory or URL below which it is made (default: beside the cluster's state)
    #[arg(value_name = "DIR")]
    directory: Option<String>,
    /// Let the coordinator check whether it could, and make none
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    #[command(flatten)]
    wait: Wait,
}

pub async fn run(args: Args, session: &mut Session) -> Result<(), Exit> {
    match args.what {
        What::Create(args) => create(args, session).await,
        What::List { job, output } => list(job, output, session).await,
        What::Describe { savepoint, output } => describe::savepoint(&savepoint, output, session).await,
        What::Dispose { savepoint, dry_run } => {
            let request = DisposeSavepointRequest { savepoint: absolute(&savepoint), dry_run };
            let disposed = session.client.dispose_savepoint(request).await?;
            let name = if disposed.id.is_empty() { savepoint } else { disposed.id };
            session.line(format_args!("savepoint {name} disposed{}", wait::dry(dry_run)))
        }
    }
}

async fn create(args: Create, session: &mut Session) -> Result<(), Exit> {
    let Create { job, directory, dry_run, wait } = args;
    let directory = directory.as_deref().map_or_else(String::new, absolute_directory);
    let savepoint = session.client.create_savepoint(CreateSavepointRequest { job, directory, dry_run }).await?;
    let Savepoint { id, job, job_name, .. } = &savepoint;
    if dry_run {
        return session.line(format_args!("savepoint of job {job} ({job_name}) not created (dry run)"));
    }
    session.line(format_args!("savepoint {id} of job {job} ({job_name}) started"))?;
    if !wait.is_wanted() {
        return Ok(());
    }
    complete(id, wait, session).await
}

/// Waits until it is complete, and says where it is.
pub async fn complete(id: &str, wait: Wait, session: &mut Session) -> Result<(), Exit> {
    let client = session.client.clone();
    let goes_on = format!("savepoint {id} goes on; `efctl savepoint describe {id}` shows it");
    let waited = session.unless_interrupted(goes_on, client.wait_savepoint(id, wait.limit())).await?;
    let done = wait::reached(waited, wait, |savepoint| format!("savepoint {id} is {}", savepoint.state))?;
    match done.state.as_str() {
        "COMPLETED" => {
            let took = human::duration(done.completed_at_ms.saturating_sub(done.created_at_ms));
            let size = human::size(done.bytes);
            session.line(format_args!("savepoint {id} completed in {took}: {size} in {}", done.path))
        }
        state => Err(Exit::Failed(format!("savepoint {id} is {state}: {}", human::or_nothing(&done.reason)))),
    }
}

async fn list(job: Option<String>, output: get::Format, session: &mut Session) -> Result<(), Exit> {
    let request = ListSavepointsRequest { job: job.unwrap_or_default() };
    let savepoints = session.client.list_savepoints(request).await?.savepoints;
    if matches!(output, get::Format::Json | get::Format::Yaml) {
        return session.print(&get::document(&get::value(&savepoints), output));
    }
    if savepoints.is_empty() {
        session.tell("no savepoints found");
        return Ok(());
    }
    let table = views::savepoints(&savepoints, session.now_ms(), output == get::Format::Wide);
    session.print(&table.to_string())
}
