//! A cluster of real processes: one coordinator and any number of workers, on loopback or in network namespaces.
//!
//! A process that is restarted keeps its data directory and its ports, as a service on a host does. All of them run in
//! the test's directory, so that relative paths in SQL mean the same to each. When the test fails, what they said last
//! is printed.

use crate::gate::Permit;
use crate::process::{Host, Process, binary};
use crate::proxy::Proxy;
use crate::s3::{BUCKET, Server};
use crate::servers::ports;
use crate::wait::PATIENCE;
use std::cell::Cell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines of each process that a failed test shows.
const TAIL_LINES: usize = 40;

/// Where the cluster keeps checkpoints.
#[derive(Clone, Debug)]
pub enum StateAt {
    /// `state` in the test's directory.
    Directory,
    S3 {
        url: String,
        /// For coordinator and workers.
        environment: Vec<(String, String)>,
        /// Where the objects below the URL lie as files.
        files: PathBuf,
    },
}

impl StateAt {
    /// `prefix` of the server's bucket. The job's SQL needs [`Server::options`] as well.
    pub fn in_s3(server: &Server, prefix: &str) -> StateAt {
        let environment = server.environment().map(|(key, value)| (key.to_string(), value.to_string())).to_vec();
        StateAt::S3 { url: format!("s3://{BUCKET}/{prefix}"), environment, files: server.file(prefix) }
    }

    fn environment(&self) -> &[(String, String)] {
        match self {
            StateAt::Directory => &[],
            StateAt::S3 { environment, .. } => environment,
        }
    }
}

#[derive(Clone, Debug)]
pub struct WorkerOptions {
    pub id: String,
    pub tier: String,
    pub site: String,
    pub labels: Vec<(String, String)>,
    pub slots: u32,
    pub memory: String,
    pub host: Host,
    /// Proxies before its data port and between it and the coordinator; only on loopback.
    pub linked: bool,
    /// None: below the test's directory.
    pub data_dir: Option<PathBuf>,
    pub flags: Vec<String>,
}

impl WorkerOptions {
    /// Two slots in the cloud.
    pub fn new(id: &str) -> WorkerOptions {
        WorkerOptions {
            id: id.into(),
            tier: "cloud".into(),
            site: String::new(),
            labels: Vec::new(),
            slots: 2,
            memory: "256MiB".into(),
            host: Host::loopback(),
            linked: false,
            data_dir: None,
            flags: Vec::new(),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Options {
    pub workers: Vec<WorkerOptions>,
    pub state: StateAt,
    pub heartbeat_interval: String,
    pub heartbeat_timeout: String,
    /// The coordinator's.
    pub host: Host,
    pub flags: Vec<String>,
    /// Of the proxies' jitter.
    pub seed: u64,
}

impl Options {
    /// `count` workers of two slots: `w1`, `w2`, …
    pub fn workers(count: usize) -> Options {
        Options {
            workers: (1..=count).map(|n| WorkerOptions::new(&format!("w{n}"))).collect(),
            state: StateAt::Directory,
            heartbeat_interval: "200ms".into(),
            heartbeat_timeout: "2s".into(),
            host: Host::loopback(),
            flags: Vec::new(),
            seed: 0,
        }
    }

    /// The same, for a test that nothing may disturb: a worker that has had no processor for a while is not lost.
    pub fn patient(count: usize) -> Options {
        Options { heartbeat_timeout: "20s".into(), ..Options::workers(count) }
    }
}

/// One process of the cluster, workers by their number in the order they were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Who {
    Coordinator,
    Worker(usize),
}

/// The proxies of a linked worker.
pub struct Links {
    /// Between this worker, which dials, and the coordinator.
    pub control: Proxy,
    /// Between the other workers, which dial, and this one.
    pub data: Proxy,
}

struct Worker {
    options: WorkerOptions,
    /// None while it is down.
    process: Option<Process>,
    port: u16,
    links: Option<Links>,
}

pub struct Cluster {
    pub(crate) directory: PathBuf,
    options: Options,
    coordinator: Option<Process>,
    ports: Ports,
    workers: Vec<Worker>,
    /// `efctl` calls so far; each has files of its own.
    pub(crate) calls: Cell<u64>,
    _permit: Permit,
}

#[derive(Clone, Copy)]
struct Ports {
    grpc: u16,
    http: u16,
}

impl Cluster {
    /// Starts all processes and waits until each is ready.
    #[track_caller]
    pub fn start(directory: &Path, options: Options) -> Cluster {
        let mut cluster = Cluster::start_without_waiting(directory, options);
        cluster.await_ready(Who::Coordinator);
        (0..cluster.workers.len()).for_each(|n| cluster.await_ready(Who::Worker(n)));
        cluster
    }

    #[track_caller]
    fn start_without_waiting(directory: &Path, mut options: Options) -> Cluster {
        let permit = Permit::take();
        for folder in ["logs", "calls"] {
            std::fs::create_dir_all(directory.join(folder)).expect("the test's own directory is writable");
        }
        let ports = match options.host.ip.is_loopback() {
            true => Ports { grpc: free_port(), http: free_port() },
            // Alone in its namespace.
            false => Ports { grpc: 7070, http: 7071 },
        };
        let workers = std::mem::take(&mut options.workers);
        let directory = directory.to_path_buf();
        let calls = Cell::new(0);
        let mut cluster =
            Cluster { directory, options, coordinator: None, ports, workers: Vec::new(), calls, _permit: permit };
        cluster.restart(Who::Coordinator);
        for options in workers {
            cluster.add_worker(options);
        }
        cluster
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The coordinator's own address, past all proxies.
    pub fn url(&self) -> String {
        format!("http://{}:{}", self.options.host.ip, self.ports.grpc)
    }

    pub fn http(&self) -> SocketAddr {
        SocketAddr::from((self.options.host.ip, self.ports.http))
    }

    pub(crate) fn host(&self) -> &Host {
        &self.options.host
    }

    pub(crate) fn environment(&self) -> &[(String, String)] {
        self.options.state.environment()
    }

    /// The directory, or the folder that stands for the URL, below which all checkpoints lie.
    pub fn state_files(&self) -> PathBuf {
        match &self.options.state {
            StateAt::Directory => self.directory.join("state"),
            StateAt::S3 { files, .. } => files.clone(),
        }
    }

    /// What lies in the store of one job.
    pub fn job_files(&self, job: &str) -> PathBuf {
        self.state_files().join("jobs").join(job)
    }

    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    pub fn worker_id(&self, worker: usize) -> &str {
        &self.workers[worker].options.id
    }

    pub fn worker_data_dir(&self, worker: usize) -> PathBuf {
        let options = &self.workers[worker].options;
        options.data_dir.clone().unwrap_or_else(|| self.directory.join(format!("data-{}", options.id)))
    }

    /// Panics unless the worker is `linked`.
    #[track_caller]
    pub fn links(&self, worker: usize) -> &Links {
        self.workers[worker].links.as_ref().expect("the worker was started with `linked`")
    }

    /// Starts one more; it may not be ready yet.
    #[track_caller]
    pub fn add_worker(&mut self, options: WorkerOptions) -> usize {
        assert!(self.workers.iter().all(|worker| worker.options.id != options.id), "worker ids are unique");
        let loopback = options.host.ip.is_loopback();
        let port = if loopback { free_port() } else { 7072 };
        let number = self.workers.len();
        let links = options.linked.then(|| {
            assert!(loopback, "in a namespace there are better ways to cut a link");
            let seed = self.options.seed.wrapping_add(2 * number as u64);
            Links {
                control: Proxy::start(SocketAddr::from((self.options.host.ip, self.ports.grpc)), seed),
                data: Proxy::start(SocketAddr::from((options.host.ip, port)), seed.wrapping_add(1)),
            }
        });
        self.workers.push(Worker { options, process: None, port, links });
        self.restart(Who::Worker(number));
        number
    }

    /// Starts it (again), on its port and data directory. Does not wait until it is ready.
    #[track_caller]
    pub fn restart(&mut self, who: Who) {
        assert!(!self.is_up(who), "{who:?} is running");
        // One that ended by itself is still to be reaped.
        self.kill(who);
        let (name, command) = match who {
            Who::Coordinator => ("coordinator", self.coordinator_command()),
            Who::Worker(n) => (self.workers[n].options.id.as_str(), self.worker_command(n)),
        };
        let process = Process::start(name, command, &self.directory.join("logs")).unwrap_or_else(|e| panic!("{e:#}"));
        match who {
            Who::Coordinator => self.coordinator = Some(process),
            Who::Worker(n) => self.workers[n].process = Some(process),
        }
    }

    fn coordinator_command(&self) -> Command {
        let Options { host, state, heartbeat_interval, heartbeat_timeout, flags, .. } = &self.options;
        let mut command = host.command(&binary("ef-coordinator"));
        command.current_dir(&self.directory).envs(state.environment().iter().cloned());
        command.args(["--listen", &format!("{}:{}", host.ip, self.ports.grpc)]);
        command.args(["--http", &format!("{}:{}", host.ip, self.ports.http)]);
        command.arg("--data-dir").arg(self.directory.join("data-coordinator"));
        match state {
            StateAt::Directory => command.arg("--state").arg(self.state_files()),
            StateAt::S3 { url, .. } => command.args(["--state", url]),
        };
        command.args(["--heartbeat-interval", heartbeat_interval, "--heartbeat-timeout", heartbeat_timeout]);
        if !host.ip.is_loopback() {
            command.arg("--insecure");
        }
        command.args(flags);
        command
    }

    fn worker_command(&self, worker: usize) -> Command {
        let Worker { options, port, links, .. } = &self.workers[worker];
        let mut command = options.host.command(&binary("ef-worker"));
        command.current_dir(&self.directory).envs(self.environment().iter().cloned());
        let coordinator = links.as_ref().map_or(self.url(), |links| format!("http://{}", links.control.address()));
        command.args(["--coordinator", &coordinator, "--id", &options.id, "--tier", &options.tier]);
        command.arg("--data-dir").arg(self.worker_data_dir(worker));
        command.args(["--slots", &options.slots.to_string(), "--memory", &options.memory]);
        if !options.site.is_empty() {
            command.args(["--site", &options.site]);
        }
        for (key, value) in &options.labels {
            command.args(["--label", &format!("{key}={value}")]);
        }
        let listen = format!("{}:{port}", options.host.ip);
        command.args(["--data-listen", &listen]);
        if let Some(links) = links {
            command.args(["--data-address", &links.data.address().to_string()]);
        }
        if !options.host.ip.is_loopback() {
            command.args(["--data-address", &listen, "--insecure"]);
        }
        command.args(&options.flags);
        command
    }

    /// Waits for its `ready` line: the coordinator takes calls then, a worker has been welcomed.
    #[track_caller]
    pub fn await_ready(&mut self, who: Who) {
        let ports = self.ports;
        let process = self.process_mut(who).unwrap_or_else(|| panic!("{who:?} is not running"));
        let ready = process.ready(PATIENCE).unwrap_or_else(|e| panic!("{e:#}"));
        let says = |key: &str| ready.get(key).unwrap_or_else(|| panic!("{who:?} is ready without `{key}`: {ready:?}"));
        match who {
            Who::Coordinator => {
                let port = |key: &str| says(key).rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
                assert_eq!((port("grpc"), port("http")), (Some(ports.grpc), Some(ports.http)), "{ready:?}");
            }
            Who::Worker(n) => assert_eq!(says("worker"), &self.workers[n].options.id),
        }
    }

    fn process_mut(&mut self, who: Who) -> Option<&mut Process> {
        match who {
            Who::Coordinator => self.coordinator.as_mut(),
            Who::Worker(n) => self.workers[n].process.as_mut(),
        }
    }

    fn process(&self, who: Who) -> Option<&Process> {
        match who {
            Who::Coordinator => self.coordinator.as_ref(),
            Who::Worker(n) => self.workers[n].process.as_ref(),
        }
    }

    /// Started, and neither killed by the test nor ended by itself.
    pub fn is_up(&mut self, who: Who) -> bool {
        self.process_mut(who).is_some_and(|process| process.ended().is_none())
    }

    /// It has said so since its last start. Does not wait.
    pub fn is_ready(&self, who: Who) -> bool {
        self.process(who).is_some_and(|process| process.is_ready())
    }

    /// kill -9.
    pub fn kill(&mut self, who: Who) {
        match who {
            Who::Coordinator => drop(self.coordinator.take()),
            Who::Worker(n) => drop(self.workers[n].process.take()),
        }
    }

    #[track_caller]
    pub fn signal(&self, who: Who, signal: i32) {
        self.process(who).unwrap_or_else(|| panic!("{who:?} is not running")).signal(signal);
    }

    /// SIGSTOP: it stands still, its connections stay open, and it does not know.
    #[track_caller]
    pub fn freeze(&self, who: Who) {
        self.signal(who, libc::SIGSTOP);
    }

    #[track_caller]
    pub fn thaw(&self, who: Who) {
        self.signal(who, libc::SIGCONT);
    }

    /// SIGTERM, and its exit code once it has ended; None: not in time, or by a signal.
    #[track_caller]
    pub fn terminate(&mut self, who: Who) -> Option<i32> {
        self.signal(who, libc::SIGTERM);
        let process = self.process_mut(who).expect("it was there for the signal");
        let code = crate::wait::found(PATIENCE, || process.ended()).and_then(|status| status.code());
        self.kill(who);
        code
    }

    /// Names of its threads; those of tasks begin with the name of their first operator.
    pub fn threads(&self, who: Who) -> Vec<String> {
        self.process(who).map(Process::threads).unwrap_or_default()
    }

    /// The last lines of what all processes said.
    pub fn tails(&self) -> String {
        let all = self.coordinator.iter().chain(self.workers.iter().filter_map(|worker| worker.process.as_ref()));
        all.map(|process| process.tail(TAIL_LINES)).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.tails());
        }
    }
}

/// A port on loopback that nobody listens on: see [`ports`].
fn free_port() -> u16 {
    ports::free(1)[0]
}
