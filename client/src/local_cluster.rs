//! A cluster on this machine: one `ef-coordinator` and some `ef-worker` processes, on loopback ports, with everything
//! they write below one directory. For trying things out, for development and for tests.
//!
//! No process outlives the value, nor the process that holds it, however that ends. A process that dies is reported,
//! not started again: whoever tries out what happens when a worker is killed wants to see just that.

mod process;
#[cfg(test)]
mod tests;

use crate::remote::Client;
use crate::show::tiers::is_ready;
use ef_proto::wire::generated::control::ListWorkersRequest;
use ef_store::Lock;
use process::Process;
use std::ops::ControlFlow::{Break, Continue};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long processes may take to be ready; the first start of a worker on a busy machine takes seconds.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long processes may take to end when asked to.
const END_LIMIT: Duration = Duration::from_secs(5);
/// How often to look.
const LOOK: Duration = Duration::from_millis(20);

pub struct Options {
    /// Where `ef-coordinator` and `ef-worker` are.
    pub binaries: PathBuf,
    pub workers: usize,
    pub slots: u32,
    /// Of all workers together.
    pub memory_bytes: u64,
    /// 0: a free one.
    pub port: u16,
    /// None: a temporary directory, which is removed at the end.
    pub data_dir: Option<PathBuf>,
    /// Tier and site of the workers, in turn; empty: `cloud`.
    pub tiers: Vec<(String, Option<String>)>,
}

pub struct Cluster {
    /// The coordinator first. Before the directories, so that it goes before them.
    processes: Vec<Process>,
    pub url: String,
    /// Of the web interface and the metrics.
    pub http: String,
    pub data_dir: PathBuf,
    _temporary: Option<tempfile::TempDir>,
    _lock: Lock,
}

/// A process that has ended by itself.
#[derive(Debug, PartialEq, Eq)]
pub struct Death {
    pub is_coordinator: bool,
    /// What ended, how, and the last lines that it wrote to its log.
    pub report: String,
}

impl Cluster {
    /// Starts all processes and returns when all workers are ready.
    pub async fn start(options: Options) -> Result<Cluster, String> {
        let program = |name: &str| {
            let path = options.binaries.join(name);
            let missing = || format!("`{name}` is not beside efctl in {}", options.binaries.display());
            if path.is_file() { Ok(path) } else { Err(missing()) }
        };
        let (coordinator, worker) = (program("ef-coordinator")?, program("ef-worker")?);
        check_port(options.port)?;
        let (data_dir, temporary) = match &options.data_dir {
            Some(given) => (std::path::absolute(given).map_err(|e| format!("{}: {e}", given.display()))?, None),
            None => {
                let temporary = tempfile::Builder::new().prefix("edgeflow-cluster-").tempdir();
                let temporary = temporary.map_err(|e| format!("cannot make a temporary directory: {e}"))?;
                (temporary.path().to_path_buf(), Some(temporary))
            }
        };
        for name in ["logs", "state"] {
            let path = data_dir.join(name);
            std::fs::create_dir_all(&path).map_err(|e| format!("cannot make {}: {e}", path.display()))?;
        }
        let lock = lock(&data_dir)?;
        let logs = data_dir.join("logs");

        let text = |path: &Path| path.display().to_string();
        // Beside the API's port, so that it can be guessed; free if that is.
        let http = if options.port == 0 { 0 } else { options.port.checked_add(1).unwrap_or(0) };
        let args = [
            ("--listen", format!("127.0.0.1:{}", options.port)),
            ("--http", format!("127.0.0.1:{http}")),
            ("--data-dir", text(&data_dir.join("coordinator"))),
            ("--state", text(&data_dir.join("state"))),
        ];
        let mut first = Process::start("coordinator", &coordinator, &args, &logs)?;
        let ready = first.ready(START_LIMIT).await?;
        let address = |key: &str| {
            let found = ready.get(key).map(|address| format!("http://{address}"));
            found.ok_or_else(|| format!("the coordinator is ready, but did not say its address for {key}"))
        };
        let (url, http) = (address("grpc")?, address("http")?);
        let mut processes = vec![first];

        for index in 0..options.workers {
            let name = format!("worker-{}", index + 1);
            let (tier, site) = match options.tiers.len() {
                0 => ("cloud".to_string(), None),
                count => options.tiers[index % count].clone(),
            };
            let mut args = vec![
                ("--coordinator", url.clone()),
                ("--id", name.clone()),
                ("--data-dir", text(&data_dir.join(&name))),
                ("--data-listen", "127.0.0.1:0".to_string()),
                ("--slots", options.slots.to_string()),
                ("--memory", (options.memory_bytes / options.workers as u64).to_string()),
                ("--tier", tier),
            ];
            args.extend(site.map(|site| ("--site", site)));
            processes.push(Process::start(&name, &worker, &args, &logs)?);
        }
        let mut ids = vec![];
        for process in &mut processes[1..] {
            let ready = process.ready(START_LIMIT).await?;
            ids.push(ready.get("worker").cloned().unwrap_or_else(|| process.name.clone()));
        }
        workers_ready(&url, &ids).await?;
        Ok(Cluster { processes, url, http, data_dir, _temporary: temporary, _lock: lock })
    }

    /// Processes that have ended since the last call.
    pub fn deaths(&mut self) -> Vec<Death> {
        let mut deaths = vec![];
        for (index, process) in self.processes.iter_mut().enumerate() {
            if let Some(report) = process.died() {
                deaths.push(Death { is_coordinator: index == 0, report });
            }
        }
        deaths
    }

    /// Name and process id of all, the coordinator first.
    pub fn processes(&self) -> Vec<(String, u32)> {
        self.processes.iter().map(|process| (process.name.clone(), process.id())).collect()
    }

    /// Asks all processes to end, and ends those that have not after a while.
    pub async fn stop(mut self) {
        for process in &mut self.processes {
            process.terminate();
        }
        let all_ended = async {
            while self.processes.iter_mut().any(|process| process.runs()) {
                tokio::time::sleep(LOOK).await;
            }
        };
        // What remains is killed as the value goes.
        let _ = tokio::time::timeout(END_LIMIT, all_ended).await;
    }
}

/// The coordinator must know the workers, too: what is submitted now finds them.
async fn workers_ready(url: &str, ids: &[String]) -> Result<(), String> {
    let client = Client::connect(url, false).map_err(|e| e.message)?;
    let looked = client.until(Some(START_LIMIT), async |client| {
        let workers = client.list_workers(ListWorkersRequest {}).await?.workers;
        let missing = ids.iter().filter(|id| !workers.iter().any(|worker| worker.id == **id && is_ready(worker)));
        let missing: Vec<&str> = missing.map(String::as_str).collect();
        Ok(if missing.is_empty() { Break(String::new()) } else { Continue(missing.join(", ")) })
    });
    match looked.await.map_err(|e| e.message)? {
        crate::remote::Waited::Done(_) => Ok(()),
        crate::remote::Waited::Limit(missing) => {
            Err(format!("the coordinator does not know these workers after {} s: {missing}", START_LIMIT.as_secs()))
        }
    }
}

/// Says clearly what a coordinator's own complaint about its port would hide in a log.
fn check_port(port: u16) -> Result<(), String> {
    match std::net::TcpListener::bind(("127.0.0.1", port)) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!(
            "port {port} is not free ({error}); perhaps another cluster is running; --port 0 takes a free port"
        )),
    }
}

/// Two clusters in one directory would take each other's state and logs.
fn lock(data_dir: &Path) -> Result<Lock, String> {
    let lock = Lock::take(&data_dir.join(".edgeflow-cluster-lock"));
    let lock = lock.map_err(|e| format!("cannot write to {}: {e}", data_dir.display()))?;
    lock.ok_or_else(|| format!("another cluster is running in {}", data_dir.display()))
}
