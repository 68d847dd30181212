//! A coordinator and a worker in this process: the embedded default of `efctl run`. The same leader, agent, tasks
//! and checkpoint machine as in a cluster; only the channel between leader and agent is shorter.

use crate::output::tell;
use crate::summary::{Checkpoints, Late, Summary, Table};
use ef_coordinator::manifests::{self, Manifests};
use ef_coordinator::planner::{self, PlanOptions};
use ef_coordinator::solo::{Job, Leader, Outcome, Progress, Request};
use ef_proto::checkpoint::Manifest;
use ef_proto::connector::{DeliveryGuarantee, SinkConnector, SourceConnector, protobuf};
use ef_proto::ids::{DeploymentId, Epoch, JobId};
use ef_proto::job_config::JobConfig;
use ef_proto::machine::checkpoint::Config;
use ef_proto::plan::{Model, OperatorKind, Plan};
use ef_proto::rpc::Command;
use ef_proto::schema::Schema;
use ef_store::{Location, Lock, Options, Root};
use ef_worker::agent::Agent;
use ef_worker::clock::Clock;
pub use ef_worker::config::MEMORY_BYTES_MIN;
use ef_worker::config::{self, Bugs, WorkerConfig};
use ef_worker::metrics::{Metered, Role};
use ef_worker::model::Inspector;
use ef_worker::resources;
use ef_worker::secrets::Secrets;
use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

/// Interval of checkpoints with a state directory, or with sinks that publish by checkpoint, unless
/// `SET 'execution.checkpointing.interval'` says otherwise.
const CHECKPOINT_INTERVAL_DEFAULT_MS: u64 = 10_000;

/// How often a view of the running job is shown.
const VIEW: Duration = Duration::from_millis(500);

/// Where a run starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// The last completed checkpoint of the state directory, or empty if there is none.
    Last,
    /// This checkpoint.
    From(String),
    /// Empty, whatever the state directory holds.
    Fresh,
}

pub struct RunOptions {
    pub plan: Plan,
    /// A directory or an object store's URL. None: checkpoints go to a temporary directory and are gone with the
    /// process.
    pub state_dir: Option<String>,
    pub resume: Resume,
    /// None: `SET 'worker.memory'`, or half of the machine's memory up to 4 GiB.
    pub memory_bytes: Option<u64>,
    /// None: what EDGEFLOW_SECRETS_DIR names.
    pub secrets_dir: Option<PathBuf>,
    /// Negative control of the tests.
    pub commit_early: bool,
}

/// A look at the running job.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub rows_in_per_second: u64,
    pub rows_out_per_second: u64,
    pub watermark_delay_ms: Option<u64>,
    /// Epoch and age in ms.
    pub last_checkpoint: Option<(u64, u64)>,
    pub resident_bytes: u64,
}

#[derive(Debug)]
pub struct Ended {
    pub summary: Summary,
}

/// Plans a file; the error is a complete message with line and column.
pub fn plan(sql: &str, vars: &BTreeMap<String, String>, name: &str, parallelism: Option<u32>) -> Result<Plan, String> {
    plan_with_models(sql, vars, name, parallelism).map(|(plan, _)| plan)
}

/// What the files that the SQL names hold, for a planner that cannot read them.
#[derive(Debug, Default)]
pub struct Files {
    /// What the inference runtime says of the file of each declared model, by its path.
    pub models: Vec<(String, Model)>,
    /// Descriptors of protobuf messages, by `planner::descriptor_key`.
    pub descriptors: BTreeMap<String, String>,
}

/// As [`plan`], with what the files hold.
pub fn plan_with_models(
    sql: &str,
    vars: &BTreeMap<String, String>,
    name: &str,
    parallelism: Option<u32>,
) -> Result<(Plan, Files), String> {
    let options = PlanOptions { name: name.to_string(), parallelism, ..PlanOptions::default() };
    let models = Models::default();
    let plan = planner::plan(sql, vars, options, &models).map_err(|e| e.to_string())?;
    Ok((plan, models.0.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

/// Asks the worker's inference runtime and the file system, and writes down what they say.
#[derive(Default)]
struct Models(Mutex<Files>);

impl planner::ModelInspector for Models {
    fn inspect(
        &self,
        path: &str,
        inputs: &Schema,
        outputs: &Schema,
        options: &BTreeMap<String, String>,
    ) -> Result<Model, String> {
        let model = Inspector.inspect(path, inputs, outputs, options)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).models.push((path.to_string(), model.clone()));
        Ok(model)
    }

    fn descriptor(&self, path: &str, message: &str) -> Result<String, String> {
        let file = File::open(path).map_err(|e| e.to_string())?;
        let mut bytes = Vec::new();
        // One more tells that it is too long.
        file.take(protobuf::FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        let descriptor = protobuf::prune(&bytes, message)?;
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.descriptors.insert(planner::descriptor_key(path, message), descriptor.clone());
        Ok(descriptor)
    }
}

/// Runs a job to its end, or to Ctrl-C. Err: it could not be started.
pub fn run(options: RunOptions, show: &mut dyn FnMut(&View)) -> Result<Ended, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start the runtime: {e}"))?;
    let ended = runtime.block_on(run_async(options, show));
    // Uploads of an abandoned checkpoint may still be under way; nobody waits for them.
    runtime.shutdown_timeout(Duration::from_millis(200));
    ended
}

/// Names of work directories in a state directory. Hidden and ours: what is named so and left over is removed.
const WORK_PREFIX: &str = ".edgeflow-work-";

/// Directories of one run; temporary ones go with the value.
struct Directories {
    state: Location,
    work: PathBuf,
    /// What connectors keep from one run to the next; beside the checkpoints, if these are in a directory.
    durable: Option<PathBuf>,
    _temporary: tempfile::TempDir,
    /// Held while this process uses the state directory.
    _lock: Option<Lock>,
}

fn directories(state_dir: Option<&str>) -> Result<Directories, String> {
    let temporary = |e: std::io::Error| format!("cannot make a temporary directory: {e}");
    match state_dir.map(Location::parse).transpose().map_err(|e| e.message)? {
        // Live databases lie beside the checkpoints, so that snapshots and restores are on one disk.
        Some(Location::Directory(state)) => {
            let shown = state.display();
            ef_store::create_directory(&state).map_err(|e| format!("cannot make the state directory {shown}: {e}"))?;
            let lock = lock(&state)?;
            sweep_work_directories(&state);
            let holder = tempfile::Builder::new()
                .prefix(WORK_PREFIX)
                .tempdir_in(&state)
                .map_err(|e| format!("cannot write to the state directory {shown}: {e}"))?;
            let work = holder.path().to_path_buf();
            let durable = Some(state.join(".edgeflow-durable"));
            Ok(Directories { state: Location::Directory(state), work, durable, _temporary: holder, _lock: Some(lock) })
        }
        elsewhere => {
            let holder = tempfile::Builder::new().prefix("edgeflow-").tempdir().map_err(temporary)?;
            let work = holder.path().join("work");
            std::fs::create_dir_all(&work).map_err(temporary)?;
            let state = elsewhere.unwrap_or_else(|| Location::Directory(holder.path().join("state")));
            Ok(Directories { state, work, durable: None, _temporary: holder, _lock: None })
        }
    }
}

/// One process uses a state directory, also before it holds a job.
fn lock(state: &Path) -> Result<Lock, String> {
    let path = state.join(".edgeflow-lock");
    let lock =
        Lock::take(&path).map_err(|e| format!("cannot write to the state directory {}: {e}", state.display()))?;
    lock.ok_or_else(|| {
        format!("another process uses the state directory {}: `{}` is locked", state.display(), path.display())
    })
}

/// Of this process alone; the standard library's hasher keys are random for every process.
fn nonce() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// A state directory belongs to one job; its id is made at the first start, unique, because it names the files of
/// sinks that several jobs may share a directory of.
async fn job_id(state: &Root, location: &Location, name: &str) -> Result<JobId, String> {
    let mut found = manifests::jobs(state).await.map_err(|e| e.message)?;
    match found.len() {
        0 => {
            let kept: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(32).collect();
            Ok(JobId(format!("{}-{:016x}", if kept.is_empty() { "job" } else { &kept }, nonce())))
        }
        1 => Ok(found.swap_remove(0)),
        _ => {
            let found: Vec<String> = found.into_iter().map(|id| id.0).collect();
            Err(format!("the state directory {location} holds several jobs: {}; one is expected", found.join(", ")))
        }
    }
}

/// A killed run leaves its work directory behind; the state directory's lock is ours, so they are nobody's.
fn sweep_work_directories(state: &Path) {
    let Ok(entries) = std::fs::read_dir(state) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(WORK_PREFIX) {
            // What cannot be removed now is tried again at the next start.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

async fn run_async(options: RunOptions, show: &mut dyn FnMut(&View)) -> Result<Ended, String> {
    let RunOptions { plan, state_dir, resume, memory_bytes, secrets_dir, commit_early } = options;
    // First of all: a Ctrl-C while the job is being started is heard too.
    let (requests, requests_rx) = mpsc::channel(4);
    tokio::spawn(interrupts(requests)?);
    let clock = Arc::new(Clock::new());
    let directories = directories(state_dir.as_deref())?;
    let store = Options::parse(&plan.config).map_err(|e| e.message)?;
    let nonce = nonce();
    let state = Root::open_checked(&directories.state, &store, nonce).await.map_err(|e| e.message)?;
    let id = job_id(&state, &directories.state, &plan.name).await?;
    let manifests = Manifests::open(&state, id.clone()).map_err(|e| e.message)?;
    // Before anything is looked at: see `Manifests::put`.
    let incarnation = manifests.next_incarnation(nonce).await.map_err(|e| e.message)?;
    let restore = match &resume {
        Resume::Last => manifests.latest().await.map_err(|e| e.message)?,
        Resume::From(path) => Some(manifests.load(path, &directories.state, &store).await.map_err(|e| e.message)?),
        Resume::Fresh => None,
    };
    if let (Resume::From(_), Some(restored)) = (&resume, &restore)
        && restored.job == id
        && let Some(newest) = manifests.list().await.map_err(|e| e.message)?.last()
    {
        check_rewind(&plan, restored.epoch, *newest)?;
    }
    manifests.check_or_create_job(&plan, restore.as_ref(), clock.now_ms()).await.map_err(|e| e.message)?;
    let restored_epoch = restore.as_ref().map(|m| m.epoch.0);
    let name = plan.name.clone();
    if let Some(Manifest { terminal: true, epoch, .. }) = restore
        && resume == Resume::Last
        // Without the note the end may not be published yet: the job starts once more, from its end.
        && manifests.is_finished(epoch).await.map_err(|e| e.message)?
    {
        let summary = Summary { job: name, status: "finished".into(), restored_epoch, ..Summary::default() };
        tell("the job has finished already; --fresh runs it again");
        return Ok(Ended { summary });
    }
    let config = checkpoint_config(&plan, state_dir.is_some())?;
    let memory = match memory_bytes.or(set_memory(&plan)?) {
        Some(bytes) => bytes,
        None => config::memory_bytes(None, resources::machine_memory_bytes()).map_err(|e| e.message)?,
    };
    let bugs = Bugs { commit_early, ..Bugs::default() };
    let worker = WorkerConfig {
        memory_bytes: memory,
        slots: 1,
        work_dir: directories.work.clone(),
        secrets: Secrets::given(secrets_dir),
        durable_dir: directories.durable.clone(),
        bugs,
    };
    let root = manifests.root().clone();
    let time = clock.clone();
    let deployment = DeploymentId { job: id.clone(), region: 0, incarnation };
    let agent = Agent::start(deployment, worker, Arc::new(move || time.now_ms()), root);
    let commands: mpsc::Sender<Command> = agent.commands.clone();
    // First the list: a deposed process may still add to it, and what is retained has epochs up to the highest.
    let retained = manifests.list().await.map_err(|e| e.message)?;
    // Behind the checkpoint that it starts from, too, which may be another job's: what is permitted of one is permitted of all
    // before it.
    let highest = manifests.highest_epoch().await.map_err(|e| e.message)?;
    let last_epoch = highest.max(restore.as_ref().map(|manifest| manifest.epoch));
    let job = Job { id, incarnation, plan, restore, last_epoch, retained, config };
    let time = clock.clone();
    let (leader, progress) = Leader::new(job, Arc::new(manifests), commands, Arc::new(move || time.steady_ms()));
    #[expect(clippy::disallowed_methods, reason = "elapsed time for the person who runs the job")]
    let started = Instant::now();
    let mut running = tokio::spawn(leader.run(agent.events, requests_rx));
    let mut watcher = Watcher::new(agent.metered.clone(), progress.clone(), clock);
    let outcome = loop {
        tokio::select! {
            outcome = &mut running => break outcome.map_err(|e| format!("the leader failed: {e}"))?,
            () = tokio::time::sleep(VIEW) => show(&watcher.view()),
        }
    };
    let metered = agent.metered.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let progress = progress.borrow().clone();
    let mut summary = sum_up(name, &metered, &progress);
    summary.restored_epoch = restored_epoch;
    summary.elapsed_seconds = started.elapsed().as_secs_f64();
    (summary.status, summary.error) = match outcome {
        Outcome::Finished => ("finished".into(), None),
        Outcome::Stopped(Ok(_)) => ("stopped".into(), None),
        Outcome::Stopped(Err(reason)) => ("stopped".into(), Some(reason)),
        Outcome::Failed { error, .. } => ("failed".into(), Some(error.message)),
    };
    Ok(Ended { summary })
}

/// What a completed checkpoint let out to Kafka cannot be taken back: a start before it writes it again. Said before the new
/// checkpoints take the place of the newer ones, which need not be readable; a sink says the same where only Kafka knows.
fn check_rewind(plan: &Plan, restored: Epoch, newest: Epoch) -> Result<(), String> {
    if restored >= newest {
        return Ok(());
    }
    let topic = plan.operators.iter().find_map(|op| match &op.kind {
        OperatorKind::Sink(sink) => match &sink.connector {
            SinkConnector::Kafka(kafka) if kafka.guarantee == DeliveryGuarantee::ExactlyOnce && !kafka.allow_rewind => {
                Some(&kafka.topic)
            }
            _ => None,
        },
        _ => None,
    });
    topic.map_or(Ok(()), |topic| {
        Err(format!(
            "the checkpoint of epoch {restored} is older than the job's newest, {newest}: what came between may be in topic \
             `{topic}` already and would be written again; start from the newest, or set 'sink.allow-output-rewind' to 'true'"
        ))
    })
}

/// The first Ctrl-C (SIGTERM, or a terminal that is closed) asks for a last checkpoint, the second leaves at once. The handlers are in place when
/// this returns.
fn interrupts(requests: mpsc::Sender<Request>) -> Result<impl Future<Output = ()>, String> {
    let handler = |kind| signal(kind).map_err(|e| format!("cannot handle signals: {e}"));
    let (mut interrupt, mut terminate) = (handler(SignalKind::interrupt())?, handler(SignalKind::terminate())?);
    // `nohup` means it: the job outlives its terminal.
    let mut hangup = if resources::ignores(libc::SIGHUP) { None } else { Some(handler(SignalKind::hangup())?) };
    // With a handler a file that may grow no further is an error of the write, and not the end of the process.
    drop(handler(SignalKind::from_raw(libc::SIGXFSZ))?);
    Ok(async move {
        let mut request = Request::StopWithCheckpoint;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                Some(_) = async { hangup.as_mut()?.recv().await } => {}
            }
            if requests.send(request).await.is_err() {
                return;
            }
            if request == Request::StopWithCheckpoint {
                tell("\nstopping after a last checkpoint; once more to leave without");
            }
            request = Request::Cancel;
        }
    })
}

fn checkpoint_config(plan: &Plan, durable: bool) -> Result<Config, String> {
    // Their rows appear when a checkpoint has completed.
    let publishes = plan.operators.iter().any(|op| match &op.kind {
        OperatorKind::Sink(sink) => match &sink.connector {
            SinkConnector::Filesystem(_) => true,
            SinkConnector::Kafka(kafka) => kafka.guarantee == DeliveryGuarantee::ExactlyOnce,
            SinkConnector::Redis(redis) => redis.exactly_once,
            _ => false,
        },
        _ => false,
    });
    // What a device was not told of is acknowledged by checkpoints, or kept in a log that they trim.
    let acknowledges = plan
        .operators
        .iter()
        .any(|op| matches!(&op.kind, OperatorKind::Source(s) if matches!(s.connector, SourceConnector::Mqtt(_))));
    let default = (durable || publishes || acknowledges).then_some(CHECKPOINT_INTERVAL_DEFAULT_MS);
    let job = JobConfig::parse(&plan.config).map_err(|e| e.to_string())?;
    Ok(job.checkpoints.config(default))
}

fn set_memory(plan: &Plan) -> Result<Option<u64>, String> {
    plan.config
        .get("worker.memory")
        .map(|text| {
            ef_proto::connector::parse_memory_bytes(text).filter(|bytes| *bytes >= MEMORY_BYTES_MIN).ok_or_else(|| {
                format!("SET 'worker.memory' = '{text}': a size such as '256mb' is accepted, 1mb at least")
            })
        })
        .transpose()
}

/// Turns counters into rates.
struct Watcher {
    metered: Arc<Mutex<Vec<Metered>>>,
    progress: watch::Receiver<Progress>,
    clock: Arc<Clock>,
    last: (u64, u64, u64),
}

impl Watcher {
    fn new(metered: Arc<Mutex<Vec<Metered>>>, progress: watch::Receiver<Progress>, clock: Arc<Clock>) -> Watcher {
        let last = (clock.steady_ms(), 0, 0);
        Watcher { metered, progress, clock, last }
    }

    fn view(&mut self) -> View {
        let metered = self.metered.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let total = |wanted: fn(&Role) -> bool| -> u64 {
            metered.iter().filter(|m| wanted(&m.role)).map(|m| m.metrics.rows_in.load(Ordering::Relaxed)).sum()
        };
        let rows_in = total(|role| matches!(role, Role::Source { .. }));
        let rows_out = total(|role| matches!(role, Role::Sink { .. }));
        let (now, wall) = (self.clock.steady_ms(), self.clock.now_ms());
        let (then, in_before, out_before) = std::mem::replace(&mut self.last, (now, rows_in, rows_out));
        let elapsed = (now - then).max(1);
        let watermark = metered
            .iter()
            .filter(|m| matches!(m.role, Role::Source { .. }))
            .map(|m| m.metrics.watermark_ms.load(Ordering::Relaxed))
            .filter(|w| *w != i64::MIN && *w != i64::MAX)
            .min();
        let progress = self.progress.borrow();
        View {
            rows_in_per_second: rows_in.saturating_sub(in_before) * 1000 / elapsed,
            rows_out_per_second: rows_out.saturating_sub(out_before) * 1000 / elapsed,
            watermark_delay_ms: watermark.map(|w| wall.saturating_sub(w).max(0) as u64),
            last_checkpoint: progress
                .last_epoch
                .map(|epoch| (epoch.0, now.saturating_sub(progress.last_completed_at_ms))),
            resident_bytes: resources::resident_bytes(),
        }
    }
}

fn sum_up(job: String, metered: &[Metered], progress: &Progress) -> Summary {
    let mut summary = Summary { job, ..Summary::default() };
    for m in metered {
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let (tables, table) = match &m.role {
            Role::Source { table } => (&mut summary.sources, table),
            Role::Sink { table } => (&mut summary.sinks, table),
            Role::Operator => {
                summary.null_time_rows += load(&m.metrics.null_time_rows);
                let rows = load(&m.metrics.late_rows);
                if rows > 0 {
                    summary.late_rows += rows;
                    match summary.late.iter_mut().find(|late| late.operator == m.name) {
                        Some(late) => late.rows += rows,
                        None => summary.late.push(Late { operator: m.name.clone(), rows }),
                    }
                }
                continue;
            }
        };
        summary.failed_rows += load(&m.metrics.error_rows);
        summary.failed_fields += load(&m.metrics.field_errors);
        if summary.failed_field.is_none() {
            summary.failed_field = m.metrics.field_error.get().cloned();
        }
        summary.dropped_rows += load(&m.metrics.dropped_rows);
        summary.tombstones += load(&m.metrics.tombstones);
        summary.connection_errors += load(&m.metrics.connection_errors);
        summary.commit_failures += load(&m.metrics.commit_failures);
        summary.duplicates += load(&m.metrics.duplicates);
        summary.lost_messages += load(&m.metrics.lost);
        let (rows, bytes) = (load(&m.metrics.rows_in), load(&m.metrics.bytes));
        match tables.iter_mut().find(|t| t.table == *table) {
            Some(t) => (t.rows, t.bytes) = (t.rows + rows, t.bytes + bytes),
            None => tables.push(Table { table: table.clone(), rows, bytes }),
        }
    }
    let usage = resources::usage();
    summary.cpu_seconds = usage.cpu_seconds;
    summary.peak_rss_bytes = usage.peak_rss_bytes;
    summary.checkpoints = Checkpoints {
        completed: progress.completed,
        failed: progress.failed,
        last_epoch: progress.last_epoch.map(|e| e.0),
        last_duration_ms: progress.last_duration_ms,
        last_bytes: progress.last_bytes,
    };
    summary
}
