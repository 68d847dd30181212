//! `efctl cluster start`: a coordinator and workers on this machine, in the foreground, until Ctrl-C.

use super::exit::Exit;
use clap::Subcommand;
use ef_client::local_cluster::{Cluster, Options};
use ef_client::output::{print, tell};
use ef_client::remote::URL_DEFAULT;
use ef_client::resources;
use ef_proto::connector::parse_memory_bytes;
use ef_proto::place::Tier;
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How often to look whether all processes still run.
const LOOK: Duration = Duration::from_millis(200);
/// The least memory of a worker.
const MEMORY_BYTES_MIN: u64 = 16 << 20;
/// Of each worker at most, unless it is given.
const MEMORY_BYTES_MAX_DEFAULT: u64 = 4 << 30;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Start a coordinator and workers on this machine; Ctrl-C ends them
    Start(Start),
}

#[derive(clap::Args)]
struct Start {
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(0..=64))]
    workers: u16,
    /// Slots of each worker
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    slots: u32,
    /// Memory of each worker, as in 512mb (default: half of the machine, divided by the workers, 4 GiB each at most)
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    memory: Option<u64>,
    /// Keep jobs, checkpoints and logs here, and go on with what is there (default: a temporary directory)
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Tier of the workers, with a site if it has sites; given several times, the workers take them in turn
    #[arg(long, value_name = "TIER[:SITE]", value_parser = tier)]
    tier: Vec<(String, Option<String>)>,
    /// Port of the coordinator; 0 for a free one
    #[arg(long, value_name = "PORT", default_value_t = 7070)]
    port: u16,
}

fn memory(text: &str) -> Result<u64, String> {
    let bytes = parse_memory_bytes(text).filter(|bytes| *bytes >= MEMORY_BYTES_MIN);
    bytes.ok_or_else(|| "a size such as 512mb or 1 GiB is accepted, 16mb at least".to_string())
}

fn tier(text: &str) -> Result<(String, Option<String>), String> {
    let (name, site) = text.split_once(':').map_or((text, None), |(name, site)| (name, Some(site)));
    let tier = Tier::parse(name).ok_or_else(|| {
        let all: Vec<&str> = Tier::ALL.iter().map(|tier| tier.name()).collect();
        format!("`{name}` is not one of {}", all.join(", "))
    })?;
    if site == Some("") {
        return Err("the name of the site is missing behind the colon".into());
    }
    Ok((tier.name().to_string(), site.map(str::to_string)))
}

pub fn run(args: Args) -> Exit {
    let What::Start(start) = args.what;
    // On this very thread: the kernel ends the processes with the thread that started them.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Exit::Failed(format!("cannot start the runtime: {error}")),
    };
    match runtime.block_on(serve(start)) {
        Ok(()) => Exit::Done,
        Err(exit) => exit,
    }
}

async fn serve(start: Start) -> Result<(), Exit> {
    let workers = u64::from(start.workers).max(1);
    let half = resources::machine_memory_bytes() / 2 / workers;
    let each = start.memory.unwrap_or_else(|| half.clamp(MEMORY_BYTES_MIN, MEMORY_BYTES_MAX_DEFAULT));
    let options = Options {
        binaries: binaries().map_err(Exit::Failed)?,
        workers: start.workers.into(),
        slots: start.slots,
        memory_bytes: each.saturating_mul(workers),
        port: start.port,
        data_dir: start.data_dir,
        tiers: start.tier,
    };
    let mut asked = Asked::new().map_err(Exit::Failed)?;
    let slots = u64::from(start.slots) * u64::from(start.workers);
    let mut cluster = tokio::select! {
        started = Cluster::start(options) => started.map_err(Exit::Failed)?,
        () = asked.until_ended() => return Err(Exit::Interrupted),
    };
    print(&greeting(&cluster, start.workers, slots)).map_err(Exit::Failed)?;
    let coordinator_died = loop {
        tokio::select! {
            () = asked.until_ended() => break None,
            () = tokio::time::sleep(LOOK) => {}
        }
        let mut died = None;
        for death in cluster.deaths() {
            if death.is_coordinator {
                died = Some(death.report);
            } else {
                tell(format_args!("{}\nthe cluster goes on without it", death.report));
            }
        }
        if died.is_some() {
            break died;
        }
    };
    tell("ending all processes; once more to kill them");
    tokio::select! {
        () = cluster.stop() => {}
        // They are killed as the cluster is dropped.
        () = asked.until_ended() => {}
    }
    match coordinator_died {
        Some(report) => Err(Exit::Failed(format!("{report}\nwithout it there is no cluster"))),
        None => Ok(()),
    }
}

/// The directory that this program is in.
fn binaries() -> Result<PathBuf, String> {
    let this = std::env::current_exe().map_err(|e| format!("cannot find out where efctl is: {e}"))?;
    this.parent().map(PathBuf::from).ok_or_else(|| "cannot find out where efctl is".into())
}

fn greeting(cluster: &Cluster, workers: u16, slots: u64) -> String {
    // Whoever types what is shown here shall reach this cluster and no other.
    let option = if cluster.url == URL_DEFAULT { String::new() } else { format!(" --coordinator {}", cluster.url) };
    let mut text = format!("the cluster is ready: workers {workers}, slots {slots}\n");
    for (name, value) in [
        ("coordinator", cluster.url.clone()),
        ("web", cluster.http.clone()),
        ("state", cluster.data_dir.join("state").display().to_string()),
        ("logs", cluster.data_dir.join("logs").display().to_string()),
    ] {
        text.push_str(&format!("  {name:<12}{value}\n"));
    }
    for (name, id) in cluster.processes() {
        text.push_str(&format!("  {name:<12}process {id}\n"));
    }
    text.push_str(&format!("submit a job from another terminal:\n  efctl submit job.sql{option}\n"));
    text.push_str("Ctrl-C ends the cluster\n");
    text
}

/// Ctrl-C, SIGTERM, or a terminal that is closed.
struct Asked {
    interrupt: Signal,
    terminate: Signal,
    /// None: `nohup` means it, the cluster outlives its terminal.
    hangup: Option<Signal>,
}

impl Asked {
    fn new() -> Result<Asked, String> {
        let handler = |kind| signal(kind).map_err(|e| format!("cannot handle signals: {e}"));
        let ignored = resources::ignores(libc::SIGHUP);
        Ok(Asked {
            interrupt: handler(SignalKind::interrupt())?,
            terminate: handler(SignalKind::terminate())?,
            hangup: if ignored { None } else { Some(handler(SignalKind::hangup())?) },
        })
    }

    async fn until_ended(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            Some(_) = async { self.hangup.as_mut()?.recv().await } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_are_given_with_or_without_a_site() {
        assert_eq!(tier("Gateway:hall-1"), Ok(("gateway".into(), Some("hall-1".into()))));
        assert_eq!(tier("cloud"), Ok(("cloud".into(), None)));
        assert!(tier("orbit").expect_err("unknown").contains("device, gateway, regional, cloud"));
        assert!(tier("gateway:").is_err());
    }
}
