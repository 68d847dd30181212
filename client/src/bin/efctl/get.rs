//! `efctl get jobs|workers|tiers|checkpoints|savepoints`: lists as tables, JSON or YAML, once or as they change.

use super::exit::Exit;
use super::session::Session;
use clap::{Subcommand, ValueEnum};
use ef_client::remote::Client;
use ef_client::show::table::{Table, Watched};
use ef_client::show::{tiers, views, yaml};
use ef_proto::error::{Code, Error};
use ef_proto::wire::generated::control::*;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
    #[arg(short, long, global = true, value_enum, default_value = "table")]
    output: Format,
    /// Go on, and print what changes as it changes
    #[arg(short, long, global = true)]
    watch: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    /// A table with more columns
    Wide,
    Json,
    Yaml,
}

#[derive(Subcommand)]
enum What {
    /// Jobs: what state they are in, and how they do
    #[command(visible_aliases = ["job", "j"])]
    Jobs {
        /// Only this one, by id or name
        job: Option<String>,
    },
    /// Workers: where they are, and what room they have
    #[command(visible_aliases = ["worker", "w"])]
    Workers {
        /// Only this one
        worker: Option<String>,
    },
    /// Tiers: devices, gateways, regional sites and the cloud, with their workers added up
    #[command(visible_aliases = ["tier", "t"])]
    Tiers,
    /// Checkpoints of a job
    #[command(visible_aliases = ["checkpoint", "chk"])]
    Checkpoints { job: String },
    /// Savepoints, of all jobs or of one
    #[command(visible_aliases = ["savepoint", "sp"])]
    Savepoints { job: Option<String> },
}

/// What a coordinator said.
enum Found {
    Jobs(Vec<Job>),
    Workers(Vec<Worker>),
    Tiers(Vec<tiers::Tier>),
    Checkpoints(Vec<Checkpoint>),
    Savepoints(Vec<Savepoint>),
}

pub async fn run(args: Args, session: &mut Session) -> Result<(), Exit> {
    let Args { what, output, watch } = args;
    let found = what.ask(&session.client).await?;
    if watch {
        return follow(&what, found, output, session).await;
    }
    match output {
        Format::Table | Format::Wide => {
            let table = found.table(session.now_ms(), output == Format::Wide);
            if table.rows.is_empty() {
                // On stderr, as kubectl does it, so that a script sees no rows.
                session.tell(format_args!("no {} found", what.name()));
                return Ok(());
            }
            session.print(&table.to_string())
        }
        Format::Json | Format::Yaml => {
            let mut documents = found.documents();
            let value = match what.is_one() {
                true => documents.pop().map_or(Value::Null, |(_, value)| value),
                false => documents.into_iter().map(|(_, value)| value).collect(),
            };
            session.print(&document(&value, output))
        }
    }
}

/// A value as JSON or YAML.
pub fn document(value: &Value, format: Format) -> String {
    match format {
        Format::Yaml => yaml::write(value),
        _ => format!("{value:#}\n"),
    }
}

/// Until nobody reads any more. A coordinator that is away is told once and waited for.
async fn follow(what: &What, mut found: Found, format: Format, session: &mut Session) -> Result<(), Exit> {
    let mut watched = Watched::default();
    let mut shown: BTreeMap<String, Value> = BTreeMap::new();
    let mut away = false;
    loop {
        match format {
            Format::Table | Format::Wide => {
                let text = watched.update(&found.table(session.now_ms(), format == Format::Wide));
                if !text.is_empty() {
                    session.print(&text)?;
                }
            }
            Format::Json | Format::Yaml => {
                for (key, value) in found.documents() {
                    if shown.get(&key) != Some(&value) {
                        let text = match format {
                            Format::Yaml => format!("---\n{}", yaml::write(&value)),
                            // One line each, so that a reader knows where one ends.
                            _ => format!("{value}\n"),
                        };
                        session.print(&text)?;
                        shown.insert(key, value);
                    }
                }
            }
        }
        found = loop {
            tokio::time::sleep(session.refresh).await;
            match what.ask(&session.client).await {
                Ok(found) => break found,
                Err(error) if matches!(error.code, Code::Unavailable | Code::NotLeader) => {
                    if !std::mem::replace(&mut away, true) {
                        session.tell(format_args!("{error}; trying again"));
                    }
                }
                Err(error) => return Err(error.into()),
            }
        };
        if std::mem::take(&mut away) {
            session.tell("the coordinator is back");
        }
    }
}

impl What {
    fn name(&self) -> &'static str {
        match self {
            What::Jobs { .. } => "jobs",
            What::Workers { .. } => "workers",
            What::Tiers => "tiers",
            What::Checkpoints { .. } => "checkpoints",
            What::Savepoints { .. } => "savepoints",
        }
    }

    /// Whether one thing was asked for by its name.
    fn is_one(&self) -> bool {
        matches!(self, What::Jobs { job: Some(_) } | What::Workers { worker: Some(_) })
    }

    async fn ask(&self, client: &Client) -> Result<Found, Error> {
        Ok(match self {
            What::Jobs { job: None } => Found::Jobs(client.list_jobs(ListJobsRequest {}).await?.jobs),
            What::Jobs { job: Some(job) } => {
                let description = client.describe_job(JobRequest { job: job.clone() }).await?;
                Found::Jobs(description.job.into_iter().collect())
            }
            What::Workers { worker: None } => Found::Workers(client.list_workers(ListWorkersRequest {}).await?.workers),
            What::Workers { worker: Some(worker) } => {
                let description = client.describe_worker(WorkerRequest { worker: worker.clone() }).await?;
                Found::Workers(description.worker.into_iter().collect())
            }
            What::Tiers => Found::Tiers(fleet(client).await?),
            What::Checkpoints { job } => {
                Found::Checkpoints(client.list_checkpoints(JobRequest { job: job.clone() }).await?.checkpoints)
            }
            What::Savepoints { job } => {
                let request = ListSavepointsRequest { job: job.clone().unwrap_or_default() };
                Found::Savepoints(client.list_savepoints(request).await?.savepoints)
            }
        })
    }
}

/// Only a worker's own description says which jobs it has tasks of.
async fn fleet(client: &Client) -> Result<Vec<tiers::Tier>, Error> {
    let mut descriptions = vec![];
    for worker in client.list_workers(ListWorkersRequest {}).await?.workers {
        match client.describe_worker(WorkerRequest { worker: worker.id.clone() }).await {
            Ok(description) => descriptions.push(description),
            // It has gone in the meantime.
            Err(error) if error.code == Code::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(tiers::tiers(&descriptions))
}

impl Found {
    fn table(&self, now_ms: u64, wide: bool) -> Table {
        match self {
            Found::Jobs(jobs) => views::jobs(jobs, now_ms, wide),
            Found::Workers(workers) => views::workers(workers, now_ms, wide),
            Found::Tiers(tiers) => views::tiers(tiers, wide),
            Found::Checkpoints(checkpoints) => views::checkpoints(checkpoints, now_ms, wide),
            Found::Savepoints(savepoints) => views::savepoints(savepoints, now_ms, wide),
        }
    }

    /// Each thing with its key.
    fn documents(&self) -> Vec<(String, Value)> {
        fn all<T: Serialize>(items: &[T], key: impl Fn(&T) -> String) -> Vec<(String, Value)> {
            items.iter().map(|item| (key(item), value(item))).collect()
        }
        match self {
            Found::Jobs(jobs) => all(jobs, |job| job.id.clone()),
            Found::Workers(workers) => all(workers, |worker| worker.id.clone()),
            Found::Tiers(tiers) => all(tiers, |tier| tier.tier.clone()),
            Found::Checkpoints(checkpoints) => all(checkpoints, |checkpoint| checkpoint.epoch.to_string()),
            Found::Savepoints(savepoints) => all(savepoints, |savepoint| savepoint.id.clone()),
        }
    }
}

/// A message as JSON.
pub fn value(message: &impl Serialize) -> Value {
    serde_json::to_value(message).expect("messages are made of text, numbers, lists and maps with text as keys")
}
