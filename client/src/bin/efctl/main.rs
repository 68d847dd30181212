//! `efctl`: the only tool a user needs. One file a command; exit codes 0 done, 1 failed, 2 usage or SQL error,
//! 130 stopped by Ctrl-C after a last checkpoint.

mod completion;
#[cfg(feature = "embedded")]
mod demo;
#[cfg(feature = "embedded")]
mod explain;
#[cfg(feature = "embedded")]
mod live;
#[cfg(feature = "embedded")]
mod run;
mod version;

use clap::{Parser, Subcommand};
use ef_client::output;
use std::process::ExitCode;

/// A batch is a few large buffers that live for a millisecond: glibc's allocator gives them back to the kernel and takes
/// them again, at a third of the CPU time of a job.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "efctl", version, about = "EdgeFlow: stream processing from the edge to the cloud")]
struct Cli {
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
    /// Print the version and what this build can do
    Version,
    /// Print a completion script for your shell
    Completion(completion::Args),
}

/// What a command ends with.
enum Exit {
    Done,
    Failed(String),
    /// Bad usage or bad SQL; the message is complete.
    Usage(String),
    Interrupted,
}

impl Exit {
    fn printed(text: &str) -> Exit {
        match output::print(text) {
            Ok(()) => Exit::Done,
            Err(message) => Exit::Failed(message),
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
        Command::Version => version::run(),
        Command::Completion(args) => completion::run(args),
    };
    match exit {
        Exit::Done => ExitCode::SUCCESS,
        Exit::Failed(message) => {
            output::tell(format_args!("error: {message}"));
            ExitCode::from(1)
        }
        Exit::Usage(message) => {
            output::tell(format_args!("error: {message}"));
            ExitCode::from(2)
        }
        Exit::Interrupted => ExitCode::from(130),
    }
}
