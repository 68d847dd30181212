//! `ef-bench {sensor|nexmark|keys} --query Q --rows N [-p N]`: runs one workload in this process by the same code as
//! `efctl run`, and prints one JSON line: rows/s, cpu-seconds of the whole process per million rows, peak RSS.

use anyhow::{Context, Result, bail};
use clap::Parser;
use ef_benches::{sensor, sql};
use ef_client::embedded::{self, Resume, RunOptions};
use ef_client::resources::usage;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// As in efctl.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Args {
    /// sensor (from a file), nexmark (from its generator), keys (COUNT and SUM per key)
    workload: String,
    /// sensor: filter, tumble, hop, session; nexmark: q0, q1, q2, q5, q7w, q8; keys: memory, rocksdb
    #[arg(long)]
    query: String,
    #[arg(long, default_value_t = 10_000_000)]
    rows: u64,
    #[arg(short, long, default_value_t = 1)]
    parallelism: u32,
    /// Distinct keys of `keys`
    #[arg(long, default_value_t = 10_000_000)]
    keys: u64,
    /// memory or rocksdb
    #[arg(long, default_value = "memory")]
    backend: String,
    /// Checkpoint interval, as in '1 s'; none unless given
    #[arg(long)]
    checkpoint: Option<String>,
    /// Memory for state, as in 256mb
    #[arg(long)]
    memory: Option<String>,
    /// Where the generated input file is kept between runs
    #[arg(long)]
    data: Option<PathBuf>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let data = args.data.clone().unwrap_or_else(|| std::env::temp_dir().join("ef-bench"));
    let text = match args.workload.as_str() {
        "sensor" => {
            let path = sensor::file(&data, args.rows).context("cannot make the sensor file")?;
            sql::sensor(&path.to_string_lossy(), &args.query)
        }
        "nexmark" => sql::nexmark(args.rows, &args.query),
        "keys" => Some(sql::keys(args.rows, args.keys)),
        other => bail!("unknown workload `{other}`: sensor, nexmark or keys"),
    };
    let Some(mut text) = text else { bail!("unknown query `{}` of {}", args.query, args.workload) };
    let backend = if args.workload == "keys" { &args.query } else { &args.backend };
    text.insert_str(0, &format!("SET 'state.backend' = '{backend}';\n"));
    if let Some(interval) = &args.checkpoint {
        text.insert_str(0, &format!("SET 'execution.checkpointing.interval' = '{interval}';\n"));
    }
    let memory_bytes = args
        .memory
        .as_deref()
        .map(|m| ef_proto::connector::parse_memory_bytes(m).context("--memory: a size such as 256mb"))
        .transpose()?;
    let plan = embedded::plan(&text, &BTreeMap::new(), "bench", Some(args.parallelism)).map_err(anyhow::Error::msg)?;
    let before = usage();
    let options = RunOptions {
        plan,
        state_dir: None,
        resume: Resume::Fresh,
        memory_bytes,
        secrets_dir: None,
        commit_early: false,
    };
    let ended = embedded::run(options, &mut |_| {}).map_err(anyhow::Error::msg)?;
    let after = usage();
    let summary = ended.summary;
    if summary.status != "finished" {
        bail!("{}: {}", summary.status, summary.error.unwrap_or_default());
    }
    let rows: u64 = summary.sources.iter().map(|t| t.rows).sum();
    let cpu = after.cpu_seconds - before.cpu_seconds;
    let line = serde_json::json!({
        "workload": args.workload,
        "query": args.query,
        "parallelism": args.parallelism,
        "rows_in": rows,
        "rows_out": summary.sinks.iter().map(|t| t.rows).sum::<u64>(),
        "late_rows": summary.late_rows,
        "rows_per_second": (rows as f64 / summary.elapsed_seconds) as u64,
        "cpu_seconds_per_million_rows": (cpu / rows as f64 * 1e6 * 1e4).round() / 1e4,
        "elapsed_seconds": (summary.elapsed_seconds * 1e3).round() / 1e3,
        "peak_rss_mb": after.peak_rss_bytes / 1_000_000,
        "checkpoints": summary.checkpoints.completed,
    });
    println!("{line}");
    Ok(())
}
