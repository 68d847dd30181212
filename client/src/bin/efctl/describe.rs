//! `efctl describe job|worker|checkpoint|savepoint`: all that is known of one thing.

use super::exit::Exit;
use super::get::{Format, document, value};
use super::session::Session;
use super::submit::absolute;
use clap::{Subcommand, ValueEnum};
use ef_client::show::describe;
use ef_proto::error::Code;
use ef_proto::wire::generated::control::*;
use serde::Serialize;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
    #[arg(short, long, global = true, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
    Yaml,
}

#[derive(Subcommand)]
enum What {
    /// A job: its state, operators, checkpoints, plan and latest events
    #[command(visible_aliases = ["jobs", "j"])]
    Job { job: String },
    /// A worker: its place, its room and its tasks
    #[command(visible_aliases = ["workers", "w"])]
    Worker { worker: String },
    /// A checkpoint of a job: its operators and their state
    #[command(visible_aliases = ["checkpoints", "chk"])]
    Checkpoint { job: String, epoch: u64 },
    /// A savepoint, by id or path: its operators and their state
    #[command(visible_aliases = ["savepoints", "sp"])]
    Savepoint {
        #[arg(value_name = "ID|PATH")]
        savepoint: String,
    },
}

pub async fn run(args: Args, session: &mut Session) -> Result<(), Exit> {
    let now_ms = session.now_ms();
    let text = match args.what {
        What::Job { job } => {
            let found = session.client.describe_job(JobRequest { job }).await?;
            shown(&found, args.output, |found| describe::job(found, now_ms))
        }
        What::Worker { worker } => {
            let found = session.client.describe_worker(WorkerRequest { worker }).await?;
            shown(&found, args.output, |found| describe::worker(found, now_ms))
        }
        What::Checkpoint { job, epoch } => {
            let found = session.client.describe_checkpoint(CheckpointRequest { job, epoch }).await?;
            shown(&found, args.output, |found| describe::state(found, now_ms))
        }
        What::Savepoint { savepoint } => return self::savepoint(&savepoint, args.output, session).await,
    };
    session.print(&text)
}

fn shown<T: Serialize>(found: &T, output: Output, text: impl FnOnce(&T) -> String) -> String {
    match output {
        Output::Text => text(found),
        Output::Json => document(&value(found), Format::Json),
        Output::Yaml => document(&value(found), Format::Yaml),
    }
}

#[derive(Serialize)]
struct SavepointDescription {
    /// None for a path that the cluster did not make, such as one of another cluster.
    savepoint: Option<Savepoint>,
    state: StateDescription,
}

/// The cluster's record of it, if it has one, and what lies in its directory.
pub async fn savepoint(id: &str, output: Output, session: &mut Session) -> Result<(), Exit> {
    let request = SavepointRequest { savepoint: absolute(id) };
    let record = match session.client.get_savepoint(request.clone()).await {
        Ok(record) => Some(record),
        Err(error) if error.code == Code::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    // One that is not complete has nothing to describe, but a state and perhaps a reason.
    if let Some(record) = &record
        && record.state != "COMPLETED"
    {
        let now_ms = session.now_ms();
        return session.print(&shown(record, output, |record| describe::savepoint(record, now_ms)));
    }
    let state = session.client.describe_savepoint(request).await?;
    let found = SavepointDescription { savepoint: record, state };
    let now_ms = session.now_ms();
    let text = shown(&found, output, |found| {
        let record = found.savepoint.as_ref().map(|record| describe::savepoint(record, now_ms));
        format!("{}{}", record.unwrap_or_default(), describe::state(&found.state, now_ms))
    });
    session.print(&text)
}
