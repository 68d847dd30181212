//! `efctl run FILE`: plan, run, checkpoint, resume, in this process.

use super::Exit;
use super::job::{JobArgs, Read};
use super::live::Live;
use ef_client::embedded::{self, Ended, Resume, RunOptions};
use ef_client::output::tell;
use std::io::IsTerminal;
use std::path::PathBuf;

/// For the project's own tests: publish before the checkpoint has completed.
const TEST_COMMIT_EARLY: &str = "EDGEFLOW_TEST_COMMIT_BEFORE_COMPLETION";

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    job: JobArgs,
    /// Keep checkpoints here (a directory or s3://, gs://, az://, abfs://) and resume from the last one
    #[arg(long, value_name = "DIR|URL")]
    state_dir: Option<String>,
    /// Start from this checkpoint instead of the last one
    #[arg(long, value_name = "PATH", conflicts_with = "fresh")]
    restore: Option<String>,
    /// Ignore the checkpoints in the state directory and start empty
    #[arg(long)]
    fresh: bool,
    /// Write what the run did to this file as JSON
    #[arg(long, value_name = "FILE")]
    summary_json: Option<PathBuf>,
    /// Memory for state, as in 256mb (default: SET 'worker.memory', or half of the machine, 4 GiB at most)
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Where connectors find secrets, one a file (default: EDGEFLOW_SECRETS_DIR); then in variables EDGEFLOW_SECRET_<NAME>
    #[arg(long, value_name = "DIR")]
    secrets_dir: Option<PathBuf>,
    /// No live line and no summary table
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(args: Args) -> Exit {
    let Read { sql, name } = match args.job.read() {
        Ok(read) => read,
        Err(message) => return Exit::Usage(message),
    };
    let plan = match embedded::plan(&sql, &args.job.vars(), &name, args.job.parallelism) {
        Ok(plan) => plan,
        Err(message) => return Exit::Usage(message),
    };
    let memory_bytes = match args.memory.as_deref().map(ef_proto::connector::parse_memory_bytes) {
        None => None,
        Some(Some(bytes)) if bytes >= embedded::MEMORY_BYTES_MIN => Some(bytes),
        Some(_) => return Exit::Usage("--memory: a size such as 256mb or 1 GiB is accepted, 1mb at least".into()),
    };
    let resume = match args.restore {
        Some(path) => Resume::From(path),
        None if args.fresh => Resume::Fresh,
        None => Resume::Last,
    };
    let options = RunOptions {
        plan,
        state_dir: args.state_dir,
        resume,
        memory_bytes,
        secrets_dir: args.secrets_dir,
        commit_early: std::env::var_os(TEST_COMMIT_EARLY).is_some(),
    };
    start_log();
    let live = !args.quiet && std::io::stderr().is_terminal();
    let ended = embedded::run(options, &mut |view| {
        if live {
            Live::show(view)
        }
    });
    if live {
        Live::clear();
    }
    finish(ended, args.summary_json.as_deref(), args.quiet)
}

/// Warnings of the runtime go to stderr; RUST_LOG says otherwise.
pub fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    // What cannot be written is let go: by default the library says so on standard error, and panics if it cannot.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Fails only if a log is set up already.
    let _ = log.log_internal_errors(false).try_init();
}

pub fn finish(ended: Result<Ended, String>, summary_json: Option<&std::path::Path>, quiet: bool) -> Exit {
    let ended = match ended {
        Ok(ended) => ended,
        Err(message) => return Exit::Failed(message),
    };
    if let Some(path) = summary_json {
        let json = serde_json::to_vec_pretty(&ended.summary).expect("plain numbers and strings");
        if let Err(error) = std::fs::write(path, json) {
            return Exit::Failed(format!("cannot write {}: {error}", path.display()));
        }
    }
    if !quiet {
        tell(&ended.summary);
    }
    match (ended.summary.status.as_str(), ended.summary.error) {
        ("failed", error) => Exit::Failed(error.unwrap_or_else(|| "the job failed".into())),
        ("stopped", Some(error)) => Exit::Failed(format!("stopped without a last checkpoint: {error}")),
        ("stopped", None) => Exit::Interrupted,
        _ => Exit::Done,
    }
}
