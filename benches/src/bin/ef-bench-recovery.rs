//! `ef-bench-recovery [--keys N] [--changed PERCENT]`: what a large state costs when little of it changes, and when its worker
//! dies. A real coordinator and workers with one slot each, on this machine; one task counts rows by key in RocksDB,
//! each key with a kilobyte that does not compress. Measured: bytes and time of a checkpoint of everything; new bytes of
//! those that take in a change of some keys; of those while nothing changes; and how long after kill -9 of the worker new
//! rows come to be seen in the output, from a checkpoint of the restored job. Prints one JSON line.

use anyhow::{Context, Result, bail};
use clap::Parser;
use ef_client::local_cluster::{Cluster, Options};
use ef_client::remote::Client;
use ef_proto::wire::generated::control::{Checkpoint, JobRequest, ListJobsRequest, ListWorkersRequest, SubmitRequest};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(Clone, Parser)]
struct Args {
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Of the keys, spread evenly
    #[arg(long, default_value_t = 1.0)]
    changed: f64,
    /// Times that the worker that runs the job is killed; there is one worker more
    #[arg(long, default_value_t = 3)]
    kills: u32,
    /// Of each worker
    #[arg(long, default_value_t = 512)]
    memory_mb: u64,
}

const INTERVAL: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(600);

fn main() -> Result<()> {
    let args = Args::parse();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(bench(args))
}

fn sql(directory: &Path) -> String {
    let path = |name: &str| directory.join(name).display().to_string();
    let payload: Vec<String> = ('a'..='h').map(|salt| format!("SHA512(id || '{salt}')")).collect();
    format!(
        "SET 'state.backend' = 'rocksdb';
SET 'execution.checkpointing.interval' = '{} ms';
SET 'execution.checkpointing.timeout' = '10 min';
CREATE TABLE input (id STRING) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'csv', 'source.monitor-interval' = '20 ms');
CREATE TABLE output (id STRING, n BIGINT) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'changelog-json');
INSERT INTO output SELECT id, n FROM (
  SELECT id, COUNT(*) AS n, MAX({}) AS payload FROM input GROUP BY id
) WHERE payload <> '';",
        INTERVAL.as_millis(),
        path("in"),
        path("out"),
        payload.join(" || "),
    )
}

/// What the job is fed, and what it has shown of that.
struct Job {
    client: Client,
    id: String,
    directory: PathBuf,
    files: u32,
    fed: u64,
}

impl Job {
    fn feed(&mut self, ids: impl Iterator<Item = u64>) -> Result<()> {
        let hidden = self.directory.join(".next");
        let mut file = std::io::BufWriter::new(std::fs::File::create(&hidden)?);
        for id in ids {
            writeln!(file, "{id}")?;
            self.fed += 1;
        }
        file.flush()?;
        self.files += 1;
        std::fs::rename(hidden, self.directory.join("in").join(format!("{:06}.csv", self.files)))?;
        Ok(())
    }

    async fn checkpoints(&self) -> Result<Vec<Checkpoint>> {
        let request = JobRequest { job: self.id.clone() };
        Ok(self.client.list_checkpoints(request).await?.checkpoints)
    }

    /// The completed checkpoints since this epoch, once `count` of them have completed.
    async fn completed_after(&self, epoch: u64, count: usize) -> Result<Vec<Checkpoint>> {
        let began = now();
        loop {
            let mut found = self.checkpoints().await?;
            found.retain(|checkpoint| checkpoint.epoch > epoch && checkpoint.state == "COMPLETED");
            found.sort_by_key(|checkpoint| checkpoint.epoch);
            if found.len() >= count {
                return Ok(found);
            }
            if began.elapsed() > PATIENCE {
                bail!("no checkpoint completes: {:?}", self.checkpoints().await?.last());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Bytes of the output that can be seen.
    fn shown(&self) -> Result<u64> {
        let mut bytes = 0;
        for entry in std::fs::read_dir(self.directory.join("out"))? {
            let entry = entry?;
            if !entry.file_name().to_string_lossy().starts_with('.') {
                bytes += entry.metadata()?.len();
            }
        }
        Ok(bytes)
    }

    async fn await_more(&self, than: u64) -> Result<u64> {
        let began = now();
        loop {
            let shown = self.shown()?;
            if shown > than {
                return Ok(shown);
            }
            if began.elapsed() > PATIENCE {
                bail!("nothing comes out: {:?}", self.client.list_jobs(ListJobsRequest {}).await?.jobs.first());
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

async fn bench(args: Args) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let binaries = std::env::current_exe()?.parent().context("a directory")?.to_path_buf();
    let cluster = Cluster::start(Options {
        binaries: binaries.clone(),
        workers: args.kills as usize + 1,
        slots: 1,
        memory_bytes: (args.memory_mb << 20) * (u64::from(args.kills) + 1),
        port: 0,
        data_dir: Some(scratch.path().join("cluster")),
        tiers: Vec::new(),
    })
    .await
    .map_err(anyhow::Error::msg)?;
    let client = Client::connect(&cluster.url, false)?;
    let directory = scratch.path().to_path_buf();
    for name in ["in", "out"] {
        std::fs::create_dir(directory.join(name))?;
    }
    let request =
        SubmitRequest { sql: sql(&directory), name: "large".into(), parallelism: Some(1), ..Default::default() };
    let mut job = Job { client, id: "large".into(), directory, files: 0, fed: 0 };
    job.feed(0..args.keys)?;
    job.client.submit(request).await?;

    // All keys are there when the output stands still and a checkpoint has new bytes no more.
    let mut last = 0;
    let (full, idle) = loop {
        let found = job.completed_after(last, 3).await?;
        last = found.last().map_or(last, |checkpoint| checkpoint.epoch);
        let listed = job.client.list_jobs(ListJobsRequest {}).await?.jobs;
        let read = listed.first().map_or(0, |job| job.rows_in);
        let [.., before, newest] = &found[..] else { continue };
        if read >= args.keys && before.bytes == newest.bytes && newest.new_bytes * 1000 < newest.bytes {
            break (newest.bytes, newest.clone());
        }
    };

    // A change of some keys.
    let every = (100.0 / args.changed).round() as u64;
    job.feed((0..args.keys).step_by(every as usize))?;
    let mut took_in = Vec::new();
    loop {
        let found = job.completed_after(last, 1).await?;
        last = found.last().map_or(last, |checkpoint| checkpoint.epoch);
        let quiet = found.iter().all(|checkpoint| checkpoint.new_bytes * 1000 < checkpoint.bytes);
        took_in.extend(found);
        if quiet && took_in.iter().any(|checkpoint| checkpoint.new_bytes * 1000 >= checkpoint.bytes) {
            break;
        }
    }
    let changed_bytes: u64 = took_in.iter().map(|checkpoint| checkpoint.new_bytes).sum();

    // The worker that runs it is killed, and another one takes over.
    let mut recovered_ms = Vec::new();
    for kill in 0..args.kills {
        let workers = job.client.list_workers(ListWorkersRequest {}).await?.workers;
        let busy = workers.iter().find(|worker| worker.slots_free < worker.slots && worker.state == "READY");
        let busy = busy.context("no worker runs the job")?.id.clone();
        let before = job.shown()?;
        let pid = cluster.processes().into_iter().find(|(name, _)| *name == busy).context("not one of ours")?.1;
        kill_9(pid)?;
        let killed = now();
        job.feed((0..10).map(|id| id + u64::from(kill)))?;
        job.await_more(before).await?;
        recovered_ms.push(killed.elapsed().as_millis() as u64);
    }
    let line = serde_json::json!({
        "bench": "recovery", "keys": args.keys, "state_bytes": full,
        "idle_checkpoint": { "new_bytes": idle.new_bytes, "ms": idle.duration_ms },
        "changed_percent": args.changed, "changed_new_bytes": changed_bytes,
        "changed_share_percent": (changed_bytes as f64 / full as f64 * 10_000.0).round() / 100.0,
        "checkpoints_that_took_it_in": took_in.len(), "kill_to_output_ms": recovered_ms,
    });
    println!("{line}");
    cluster.stop().await;
    Ok(())
}

fn kill_9(pid: u32) -> Result<()> {
    let done = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status()?;
    if done.success() { Ok(()) } else { bail!("cannot kill {pid}") }
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a bench measures time")]
    Instant::now()
}
