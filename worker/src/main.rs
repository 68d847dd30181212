//! `ef-worker`: runs the tasks that a coordinator places on this machine. The flags are checked here and the parts put
//! together; when the coordinator has taken the worker, one line on standard output says so.

use clap::Parser;
use ef_proto::ids::WorkerId;
use ef_proto::place::Tier;
use ef_proto::rpc::Hello;
use ef_worker::agent::{Home, Host, Logs, check_id, nonce};
use ef_worker::clock::Clock;
use ef_worker::config::{Bugs, KafkaBugs, Positions};
use ef_worker::error::{Code, Context, Result};
use ef_worker::exchange::Exchange;
use ef_worker::secrets::Secrets;
use ef_worker::{config, resources};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, fmt};

/// A batch is a few large buffers that live for a millisecond: glibc's allocator gives them back to the kernel and takes
/// them again, at a third of the CPU time of a job.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is still under way when the worker has said goodbye.
const LEAVE: Duration = Duration::from_millis(200);

#[derive(Parser)]
#[command(name = "ef-worker", version, about = "EdgeFlow's worker: runs the tasks that a coordinator places on it")]
struct Args {
    /// Where the coordinator listens; several, for a coordinator of several processes, are tried in turn
    #[arg(long, value_name = "URL", required = true, value_delimiter = ',')]
    coordinator: Vec<String>,
    /// For this worker alone: its id, the highest term it has seen, live state. Created if need be
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Its name in the cluster (default: made at the first start and kept in the data directory)
    #[arg(long, value_name = "NAME", value_parser = id)]
    id: Option<String>,
    /// device, gateway, regional or cloud
    #[arg(long, value_name = "TIER", default_value = "cloud", value_parser = tier)]
    tier: Tier,
    /// Which of the places of its tier it is in
    #[arg(long, value_name = "SITE", default_value = "")]
    site: String,
    /// For site selectors; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    /// How many subtasks of a job may run here (default: the number of cores)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    slots: Option<u32>,
    /// Memory for state: 512MiB, or 60% of the machine's (default: half of it, 4 GiB at most)
    #[arg(long, value_name = "SIZE|SHARE")]
    memory: Option<String>,
    /// Where it listens for rows from other workers; port 0: any that is free
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    data_listen: SocketAddr,
    /// Where other workers reach it, if not at the address it listens at
    #[arg(long, value_name = "HOST:PORT")]
    data_address: Option<String>,
    /// Where connectors find secrets, one a file (default: EDGEFLOW_SECRETS_DIR); then in variables EDGEFLOW_SECRET_<NAME>
    #[arg(long, value_name = "DIR")]
    secrets_dir: Option<PathBuf>,
    /// Allow connections to other machines without encryption
    #[arg(long)]
    insecure: bool,
    /// For the project's own tests: publish before the checkpoint has completed
    #[arg(long, hide = true)]
    test_commit_before_completion: bool,
    /// For the project's own tests: sources do not go back to their checkpoint
    #[arg(long, hide = true)]
    test_skip_replay: bool,
    /// For the project's own tests: bugs of the exactly-once Kafka sink
    #[arg(long, hide = true)]
    test_kafka_no_marker: bool,
    #[arg(long, hide = true)]
    test_kafka_blind_retry: bool,
    #[arg(long, hide = true)]
    test_kafka_no_fence: bool,
    /// For the project's own tests: nobody learns of every fifth commit that it has succeeded
    #[arg(long, hide = true)]
    test_kafka_lose_answers: bool,
}

fn id(text: &str) -> std::result::Result<String, String> {
    check_id(text).map(|()| text.to_string())
}

fn tier(text: &str) -> std::result::Result<Tier, String> {
    Tier::parse(text).ok_or_else(|| "device, gateway, regional and cloud are accepted".into())
}

fn label(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok((key.to_string(), value.to_string())),
        _ => Err(format!("`{text}` is not KEY=VALUE")),
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let clock = Arc::new(Clock::new());
    let logs = Logs::new(clock.clone());
    start_log(logs.clone());
    match run(args, clock, logs) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(left) => {
            tracing::warn!("the tasks of {left} deployments have not left; they end with the process");
            // Not by `exit`, whose handlers would take away what those tasks' threads still use.
            // SAFETY: ends the process; standard output is flushed line by line.
            unsafe { libc::_exit(0) }
        }
        Err(error) => {
            // Standard error may be closed; there is nobody else to tell.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            // As clap does for flags that it refuses itself.
            ExitCode::from(if error.code == Code::Invalid { 2 } else { 1 })
        }
    }
}

/// To standard error by RUST_LOG, information and above unless it says otherwise; and to the coordinator.
fn start_log(logs: Logs) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    // What cannot be written is let go: by default the library says so on standard error, and panics if it cannot.
    let stderr = fmt::layer().with_writer(std::io::stderr).log_internal_errors(false).with_filter(filter);
    tracing_subscriber::registry().with(stderr).with(logs.with_filter(LevelFilter::INFO)).init();
}

fn run(args: Args, clock: Arc<Clock>, logs: Logs) -> Result<usize> {
    for url in &args.coordinator {
        config::check_coordinator(url, args.insecure)?;
    }
    config::check_data_listen(args.data_listen, args.insecure)?;
    let memory_bytes = config::memory_bytes(args.memory.as_deref(), resources::machine_memory_bytes())?;
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    let home = Home::open(&args.data_dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unavailable(|| "cannot start the runtime".into())?;
    let left = runtime.block_on(async {
        // First of all: a signal that comes while the worker starts is heard too.
        let shutdown = shutdown()?;
        let exchange = Exchange::start(args.data_listen)?;
        let worker = match args.id {
            Some(id) => WorkerId(id),
            None => home.id()?,
        };
        let identity = Hello {
            worker: worker.clone(),
            boot: nonce(),
            version: env!("CARGO_PKG_VERSION").into(),
            tier: args.tier,
            site: args.site,
            labels: args.label.into_iter().collect::<BTreeMap<_, _>>(),
            slots: args.slots.unwrap_or(cores),
            memory_bytes,
            data_address: config::data_address(args.data_address.as_deref(), exchange.local_addr())?,
            term: 0,
            deployments: Vec::new(),
        };
        let line = format!("ready worker={worker} data={}", identity.data_address);
        tracing::info!(worker = %worker, slots = identity.slots, memory_bytes, "dialling {}", args.coordinator.join(", "));
        let bugs = Bugs {
            commit_early: args.test_commit_before_completion,
            skip_replay: args.test_skip_replay.then(Positions::default),
            kafka: KafkaBugs {
                no_marker: args.test_kafka_no_marker,
                blind_retry: args.test_kafka_blind_retry,
                no_fence: args.test_kafka_no_fence,
                lose_answers: args.test_kafka_lose_answers,
            },
        };
        let secrets = Secrets::given(args.secrets_dir);
        let time = clock.clone();
        let task_clock = Arc::new(move || time.now_ms());
        let host = Host { home, identity, coordinators: args.coordinator, clock, task_clock, logs, exchange, secrets, bugs };
        host.run(&mut || say(&line), shutdown).await
    })?;
    // Uploads and downloads that nobody waits for any more.
    runtime.shutdown_timeout(LEAVE);
    Ok(left)
}

/// Whoever started us may have closed the pipe; the worker works on.
fn say(line: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Resolves at SIGTERM or SIGINT. The handlers are in place when this returns.
fn shutdown() -> Result<impl Future<Output = ()> + Send> {
    let handler = |kind| signal(kind).unavailable(|| "cannot handle signals".into());
    let (mut terminate, mut interrupt) = (handler(SignalKind::terminate())?, handler(SignalKind::interrupt())?);
    // With a handler a file that may grow no further is an error of the write, and not the end of the process.
    drop(handler(SignalKind::from_raw(libc::SIGXFSZ))?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("shutting down");
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn flags_are_what_the_help_says() {
        Args::command().debug_assert();
        let args = Args::try_parse_from([
            "ef-worker",
            "--coordinator",
            "http://127.0.0.1:1,http://127.0.0.1:2",
            "--data-dir",
            "d",
            "--tier",
            "Gateway",
            "--label",
            "plant=a",
            "--label",
            "line=3",
        ])
        .unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((args.coordinator.len(), args.tier, args.label.len()), (2, Tier::Gateway, 2));
        assert!(args.data_listen.ip().is_loopback());
        for wrong in [["--tier", "moon"], ["--label", "plant"], ["--slots", "0"], ["--id", "a b"]] {
            let base = ["ef-worker", "--coordinator", "http://127.0.0.1:1", "--data-dir", "d"];
            assert!(Args::try_parse_from(base.into_iter().chain(wrong)).is_err(), "{wrong:?}");
        }
    }
}
