//! `efctl`: the only tool a user needs. One file a command; what a command ends with, and the exit code of that, is in
//! `exit.rs`.

mod cancel;
mod checkpoint;
#[cfg(feature = "embedded")]
mod cluster;
mod completion;
#[cfg(feature = "embedded")]
mod demo;
mod describe;
mod events;
mod exit;
#[cfg(feature = "embedded")]
mod explain;
mod get;
mod job;
#[cfg(feature = "embedded")]
mod live;
mod logs;
mod rescale;
#[cfg(feature = "embedded")]
mod run;
mod savepoint;
mod session;
mod stop;
mod submit;
#[cfg(all(test, feature = "embedded"))]
mod tests;
mod top;
mod version;
mod wait;
mod worker;

use clap::{Parser, Subcommand};
use exit::Exit;
use session::{Connection, Session};
use std::process::ExitCode;

/// A batch is a few large buffers that live for a millisecond: glibc's allocator gives them back to the kernel and takes
/// them again, at a third of the CPU time of a job.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "efctl", version, about = "EdgeFlow: stream processing from the edge to the cloud")]
struct Cli {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a SQL file in this process: coordinator and worker included
    #[cfg(feature = "embedded")]
    Run(run::Args),
    /// Show the operator graph of a SQL file without running it
    #[cfg(feature = "embedded")]
    Explain(explain::Args),
    /// Watch simulated pumps: cleaning, windows, a model, alerts
    #[cfg(feature = "embedded")]
    Demo(demo::Args),
    /// Start a cluster on this machine
    #[cfg(feature = "embedded")]
    Cluster(cluster::Args),
    #[command(flatten)]
    Remote(Remote),
    /// Print the version and what this build can do
    Version,
    /// Print a completion script for your shell
    Completion(completion::Args),
}

/// Commands that ask a coordinator.
#[derive(Subcommand)]
enum Remote {
    /// Run a SQL file as a job of the cluster
    Submit(submit::Args),
    /// List jobs, workers, tiers, checkpoints or savepoints
    Get(get::Args),
    /// Show all that is known of one job, worker, checkpoint or savepoint
    Describe(describe::Args),
    /// Show what has happened to a job
    Events(events::Args),
    /// Show the log lines of a job's workers
    Logs(logs::Args),
    /// Show what jobs and workers are doing, once a second
    Top(top::Args),
    /// Take a checkpoint of a job now
    Checkpoint(checkpoint::Args),
    /// Create, list, describe or dispose of savepoints
    #[command(visible_alias = "sp")]
    Savepoint(savepoint::Args),
    /// Change how many parallel subtasks a running job has
    Rescale(rescale::Args),
    /// End a job in order, after a last checkpoint, with a savepoint if asked for
    Stop(stop::Args),
    /// End a job at once, without a last checkpoint
    Cancel(cancel::Args),
    /// Give a worker no more tasks; those that it has go on
    Cordon(worker::Args),
    /// Give a cordoned worker tasks again
    Uncordon(worker::Args),
    /// Cordon a worker and move its tasks to others
    Drain(worker::DrainArgs),
}

impl Remote {
    async fn run(self, session: &mut Session) -> Result<(), Exit> {
        match self {
            Remote::Submit(args) => submit::run(args, session).await,
            Remote::Get(args) => get::run(args, session).await,
            Remote::Describe(args) => describe::run(args, session).await,
            Remote::Events(args) => events::run(args, session).await,
            Remote::Logs(args) => logs::run(args, session).await,
            Remote::Top(args) => top::run(args, session).await,
            Remote::Checkpoint(args) => checkpoint::run(args, session).await,
            Remote::Savepoint(args) => savepoint::run(args, session).await,
            Remote::Rescale(args) => rescale::run(args, session).await,
            Remote::Stop(args) => stop::run(args, session).await,
            Remote::Cancel(args) => cancel::run(args, session).await,
            Remote::Cordon(args) => worker::cordon(args, true, session).await,
            Remote::Uncordon(args) => worker::cordon(args, false, session).await,
            Remote::Drain(args) => worker::drain(args, session).await,
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let exit = match cli.command {
        #[cfg(feature = "embedded")]
        Command::Run(args) => run::run(args),
        #[cfg(feature = "embedded")]
        Command::Explain(args) => explain::run(args),
        #[cfg(feature = "embedded")]
        Command::Demo(args) => demo::run(args),
        #[cfg(feature = "embedded")]
        Command::Cluster(args) => cluster::run(args),
        Command::Remote(command) => remote(command, &cli.connection),
        Command::Version => version::run(),
        Command::Completion(args) => completion::run(args),
    };
    exit.report()
}

fn remote(command: Remote, connection: &Connection) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Exit::Failed(format!("cannot start the runtime: {error}")),
    };
    let ended = runtime.block_on(async {
        let mut session = Session::open(connection)?;
        command.run(&mut session).await
    });
    ended.err().unwrap_or(Exit::Done)
}
