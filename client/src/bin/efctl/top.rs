//! `efctl top`: what the cluster does, refreshed once a second on a terminal, once anywhere else.

use super::exit::Exit;
use super::session::Session;
use clap::ValueEnum;
use ef_client::show::human::{count, cpu, or_nothing, since, size};
use ef_client::show::table::Table;
use ef_client::show::{tiers, views};
use ef_client::terminal;
use ef_proto::error::{Code, Error};
use ef_proto::wire::generated::control::*;

/// Cursor to the corner; each line is cleared as it is written, and what is below the last one. Clearing all at once
/// would flicker.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K\n";
const CLEAR_BELOW: &str = "\x1b[J";

#[derive(clap::Args)]
pub struct Args {
    /// Only these
    #[arg(value_enum)]
    what: Option<What>,
    /// Print once and leave
    #[arg(long)]
    once: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    #[value(alias = "job", alias = "j")]
    Jobs,
    #[value(alias = "worker", alias = "w")]
    Workers,
}

pub async fn run(args: Args, session: &mut Session) -> Result<(), Exit> {
    if args.once || !session.terminal {
        let text = page(args.what, session).await?;
        return session.print(&text);
    }
    let mut text = page(args.what, session).await?;
    loop {
        let fitting = fit(&text, terminal::size());
        session.print(&format!("{HOME}{}{CLEAR_BELOW}", fitting.replace('\n', CLEAR_LINE)))?;
        tokio::time::sleep(session.refresh).await;
        text = match page(args.what, session).await {
            Ok(text) => text,
            // It stays on the screen until the coordinator is back.
            Err(error) if matches!(error.code, Code::Unavailable | Code::NotLeader) => format!("{error}\n"),
            Err(error) => return Err(error.into()),
        };
    }
}

/// What fits: a line that wraps, or one too many, would scroll away what the next page is to be written over.
fn fit(text: &str, size: Option<(usize, usize)>) -> String {
    let Some((columns, rows)) = size else { return text.into() };
    let lines = text.lines().take(rows.saturating_sub(1));
    lines.map(|line| line.chars().take(columns).chain(['\n']).collect::<String>()).collect()
}

async fn page(what: Option<What>, session: &Session) -> Result<String, Error> {
    let (client, now_ms) = (&session.client, session.now_ms());
    let mut parts = vec![];
    let cluster = client.cluster(ClusterRequest {}).await?;
    let workers = client.list_workers(ListWorkersRequest {}).await?.workers;
    let jobs = client.list_jobs(ListJobsRequest {}).await?.jobs;
    parts.push(summary(&cluster, &workers, &jobs, now_ms));
    if what != Some(What::Workers) {
        parts.push(busy_jobs(&jobs, now_ms).to_string());
    }
    if what != Some(What::Jobs) {
        parts.push(busy_workers(&workers, now_ms).to_string());
    }
    Ok(parts.join("\n"))
}

fn summary(cluster: &ClusterResponse, workers: &[Worker], jobs: &[Job], now_ms: u64) -> String {
    let ready = workers.iter().filter(|worker| tiers::is_ready(worker));
    let (slots, free) =
        ready.clone().fold((0, 0), |(slots, free), worker| (slots + worker.slots, free + worker.slots_free));
    let running = jobs.iter().filter(|job| job.state == "RUNNING");
    format!(
        "EdgeFlow {}, up {}, term {}: {} of {} workers ready, {free} of {slots} slots free, {} of {} jobs running\n",
        cluster.version,
        since(now_ms, cluster.started_at_ms),
        cluster.term,
        ready.count(),
        workers.len(),
        running.count(),
        jobs.len(),
    )
}

/// Those that do the most first; those that have ended are not shown.
fn busy_jobs(jobs: &[Job], now_ms: u64) -> Table {
    let mut found = Table::plain(&[
        "ID",
        "NAME",
        "STATE",
        "IN/S",
        "OUT/S",
        "ROWS-IN",
        "ROWS-OUT",
        "RESTARTS",
        "CHECKPOINTED",
        "AGE",
    ]);
    let mut jobs: Vec<&Job> =
        jobs.iter().filter(|job| !ef_client::remote::ENDED.contains(&job.state.as_str())).collect();
    jobs.sort_by_key(|job| (std::cmp::Reverse(job.rows_in_per_second), job.id.clone()));
    for job in jobs {
        found.push(
            &job.id,
            vec![
                job.id.clone(),
                job.name.clone(),
                job.state.clone(),
                count(job.rows_in_per_second),
                count(job.rows_out_per_second),
                count(job.rows_in),
                count(job.rows_out),
                job.restarts.to_string(),
                since(now_ms, job.last_checkpoint_at_ms),
                since(now_ms, job.submitted_at_ms),
            ],
        );
    }
    found
}

fn busy_workers(workers: &[Worker], now_ms: u64) -> Table {
    let mut found =
        Table::plain(&["ID", "STATE", "TIER", "SITE", "CPU", "MEMORY", "BUDGET", "FREE", "TASKS", "ROWS/S", "SEEN"]);
    let mut workers: Vec<&Worker> = workers.iter().collect();
    workers.sort_by_key(|worker| (std::cmp::Reverse(worker.cpu_millis), worker.id.clone()));
    for worker in workers {
        found.push(
            &worker.id,
            vec![
                worker.id.clone(),
                views::worker_state(worker),
                worker.tier.clone(),
                or_nothing(&worker.site),
                cpu(worker.cpu_millis),
                size(worker.resident_bytes),
                size(worker.memory_bytes),
                format!("{}/{}", worker.slots_free, worker.slots),
                worker.tasks.to_string(),
                count(worker.rows_in_per_second),
                since(now_ms, worker.seen_at_ms),
            ],
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_fits_its_terminal() {
        assert_eq!(fit("longer\nsecond\nthird\n", Some((4, 3))), "long\nseco\n");
        assert_eq!(fit("a\nb\n", Some((80, 24))), "a\nb\n");
        assert_eq!(fit("a\nb\n", None), "a\nb\n");
    }
}
