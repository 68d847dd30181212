//! `ef-coordinator`: opens the log, leads the jobs, serves workers and people. Everything that it must not forget is in
//! its data directory and in the state store; killed at any moment, it goes on where it was.

use anyhow::{Context, bail};
use clap::Parser;
use ef_coordinator::leader::{Config, Leader, Options};
use ef_coordinator::{api, raft};
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(
    name = "ef-coordinator",
    version,
    about = "EdgeFlow's coordinator: plans jobs, places them on workers, drives checkpoints"
)]
struct Args {
    /// Where workers and efctl dial in; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7070")]
    listen: SocketAddr,
    /// Health, metrics and read-only JSON
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7071")]
    http: SocketAddr,
    /// What the coordinator must not forget
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Where checkpoints go: a directory that all workers see, or s3://, gs://, az://, abfs://
    #[arg(long, value_name = "DIR|URL")]
    state: String,
    /// How often workers say that they are there
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    heartbeat_interval: u64,
    /// After this long without a sign of life a worker is lost, and its tasks start elsewhere
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    heartbeat_timeout: u64,
    /// Listen on other addresses than this machine's own without TLS: in a network that you trust
    #[arg(long)]
    insecure: bool,
    /// For the project's own tests: do not end what a new deployment replaces
    #[arg(long, hide = true)]
    test_skip_fence: bool,
    /// For the project's own tests: give epochs out a second time
    #[arg(long, hide = true)]
    test_reuse_epoch: bool,
}

fn duration(text: &str) -> Result<u64, String> {
    let parsed = ef_proto::connector::parse_duration_ms(text).filter(|ms| *ms > 0);
    parsed.ok_or_else(|| format!("`{text}` is not a duration; `1s` and `500ms` are"))
}

fn main() -> std::process::ExitCode {
    let args = Args::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    // What cannot be written is let go: by default the library says so on standard error, and panics if it cannot.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    log.log_internal_errors(false).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime");
            return std::process::ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(run(args));
    runtime.shutdown_timeout(Duration::from_millis(500));
    match ended {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be listening any more.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    for address in [args.listen, args.http] {
        if !address.ip().is_loopback() && !args.insecure {
            bail!(
                "{address} is open to other machines, and there is no TLS yet; listen on 127.0.0.1, or say --insecure in \
                 a network that you trust"
            );
        }
    }
    if args.heartbeat_timeout <= args.heartbeat_interval {
        bail!("--heartbeat-timeout must be longer than --heartbeat-interval");
    }
    std::fs::create_dir_all(&args.data_dir)
        .with_context(|| format!("cannot make the data directory {}", args.data_dir.display()))?;
    let state = absolute(&args.state)?;
    let config = Config {
        heartbeat_interval_ms: args.heartbeat_interval,
        heartbeat_timeout_ms: args.heartbeat_timeout,
        state,
        skip_fence: args.test_skip_fence,
        reuse_epoch: args.test_reuse_epoch,
    };
    let clock = clock();
    let nonce = RandomState::new().hash_one(std::process::id());
    // Before the ports are open: a second coordinator in this directory is refused here.
    let (node, log) = raft::Node::start(&args.data_dir.join("log"), raft::Config::default())?;
    let options = Options { config, seed: nonce, clock: Arc::new(clock), nonce };
    let (leader, handle) = Leader::new(node, log, options);
    let bound = |what: &'static str| move || format!("cannot listen for {what}");
    let listener = TcpListener::bind(args.listen).await.with_context(bound("workers and efctl"))?;
    let http = TcpListener::bind(args.http).await.with_context(bound("HTTP"))?;
    let ready = format!("ready grpc={} http={}", listener.local_addr()?, http.local_addr()?);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let until = |mut stopped: tokio::sync::watch::Receiver<bool>| async move {
        // The sender lives as long as this function.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    let mut leading = tokio::spawn(leader.run(until(stopped.clone())));
    let mut serving = tokio::spawn(api::serve(listener, http, handle, until(stopped)));
    let _ = writeln!(std::io::stdout(), "{ready}").and_then(|()| std::io::stdout().flush());
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let ended = tokio::select! {
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        ended = &mut leading => ended.context("the leader has failed")?.map_err(anyhow::Error::from),
        ended = &mut serving => ended.context("the services have failed")?.map_err(anyhow::Error::from),
    };
    stop.send_replace(true);
    // Open streams end within a moment; what does not is left.
    let _ = tokio::time::timeout(Duration::from_secs(2), async {
        if !leading.is_finished() {
            let _ = leading.await;
        }
        if !serving.is_finished() {
            let _ = serving.await;
        }
    })
    .await;
    ended
}

/// A directory as workers in other working directories find it; a URL as it is.
fn absolute(state: &str) -> anyhow::Result<String> {
    if state.contains("://") {
        return Ok(state.to_string());
    }
    std::fs::create_dir_all(state).with_context(|| format!("cannot make the state directory {state}"))?;
    let path = std::fs::canonicalize(state).with_context(|| format!("cannot use the state directory {state}"))?;
    path.into_os_string().into_string().map_err(|path| anyhow::anyhow!("{} is not UTF-8", path.display()))
}

/// Milliseconds since the epoch as of the start, plus what has passed since: a step of the wall clock ends no time-out.
fn clock() -> impl Fn() -> u64 + Send + Sync {
    #[expect(clippy::disallowed_methods, reason = "the driver's clock, handed to everything below as an argument")]
    let (wall, started) = (SystemTime::now(), Instant::now());
    let wall = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    move || (wall + started.elapsed()).as_millis() as u64
}
