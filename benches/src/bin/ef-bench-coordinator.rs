//! `ef-bench-coordinator [--workers N] [--jobs M] [--seconds S]`: the coordinator's cost with many workers and jobs. Starts
//! the real `ef-coordinator` beside this program; the workers are simulated: control streams of this process that say
//! Hello, send a heartbeat with the load of their tasks every second, and answer deployments, checkpoints and commits as
//! a worker would, with empty states. Prints one JSON line: the coordinator's share of one core, and its peak memory.

use anyhow::{Context, Result, bail};
use clap::Parser;
use ef_client::remote::Client;
use ef_proto::checkpoint::SubtaskState;
use ef_proto::ids::{DeploymentId, SubtaskId, WorkerId};
use ef_proto::place::Tier;
use ef_proto::plan::{OperatorKind, Plan};
use ef_proto::rpc::{Command, Event, Hello, Load, Order, OrderBody, Report, SubtaskLoad};
use ef_proto::wire::generated::agent::agents_client::AgentsClient;
use ef_proto::wire::generated::control::{ListJobsRequest, SubmitRequest};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

#[derive(Clone, Parser)]
struct Args {
    #[arg(long, default_value_t = 1000)]
    workers: u32,
    #[arg(long, default_value_t = 500)]
    jobs: u32,
    /// How long to measure, once all jobs run
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Of each job
    #[arg(long, default_value_t = 4)]
    parallelism: u32,
}

/// Killed when the value is dropped.
struct Coordinator(Child);

impl Drop for Coordinator {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(bench(args))
}

async fn bench(args: Args) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let program = std::env::current_exe()?.with_file_name("ef-coordinator");
    let child = std::process::Command::new(&program)
        .args(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir"])
        .arg(scratch.path().join("coordinator"))
        .arg("--state")
        .arg(scratch.path().join("state"))
        .env("RUST_LOG", "warn")
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}; `make build` makes it", program.display()))?;
    let mut coordinator = Coordinator(child);
    let mut ready = String::new();
    BufReader::new(coordinator.0.stdout.take().context("piped")?).read_line(&mut ready)?;
    let address = ready.split_whitespace().find_map(|word| word.strip_prefix("grpc=")).context("no ready line")?;
    let url = format!("http://{address}");
    let mut streams = Vec::new();
    for number in 0..args.workers {
        streams.push(tokio::spawn(worker(url.clone(), number)));
    }
    let client = Client::connect(&url, false)?;
    let sql = "CREATE TABLE s (k INT, v BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '10');
        CREATE TABLE o (k INT, n BIGINT) WITH ('connector' = 'blackhole');
        INSERT INTO o SELECT k, COUNT(*) FROM s GROUP BY k;";
    for number in 0..args.jobs {
        let (name, parallelism) = (format!("job-{number}"), Some(args.parallelism));
        let request = SubmitRequest { sql: sql.into(), name, parallelism, ..SubmitRequest::default() };
        client.submit(request).await?;
    }
    let pid = coordinator.0.id();
    await_running(&client, args.jobs).await?;
    let (before, began) = (cpu_seconds(pid)?, now());
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    let elapsed = began.elapsed().as_secs_f64();
    let cpu = cpu_seconds(pid)? - before;
    let jobs = client.list_jobs(ListJobsRequest {}).await?.jobs;
    let running = jobs.iter().filter(|job| job.state == "RUNNING").count();
    let epochs: u64 = jobs.iter().map(|job| job.last_checkpoint).sum();
    if streams.iter().any(tokio::task::JoinHandle::is_finished) {
        bail!("a worker's stream has ended");
    }
    let line = serde_json::json!({
        "bench": "coordinator", "workers": args.workers, "jobs": args.jobs, "jobs_running": running,
        "tasks": args.jobs * args.parallelism * 2, "checkpoints_in_all": epochs,
        "core_percent": (cpu / elapsed * 1000.0).round() / 10.0, "peak_rss_mb": peak_rss_mb(pid)?,
    });
    println!("{line}");
    Ok(())
}

async fn await_running(client: &Client, jobs: u32) -> Result<()> {
    for _ in 0..600 {
        let listed = client.list_jobs(ListJobsRequest {}).await?.jobs;
        if listed.iter().filter(|job| job.state == "RUNNING").count() == jobs as usize {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    bail!("the jobs do not come to run")
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a bench measures time")]
    Instant::now()
}

/// User and system time of a process.
fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after = stat.rsplit_once(')').context("no command in stat")?.1;
    let ticks: u64 = after.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / 100.0) // USER_HZ is 100 on every Linux
}

fn peak_rss_mb(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? / 1024)
}

/// What a simulated worker runs of one deployment.
struct Held {
    subtasks: Vec<SubtaskId>,
    sinks: Vec<SubtaskId>,
}

async fn worker(url: String, number: u32) -> Result<()> {
    let channel: Channel = Channel::from_shared(url)?.connect().await?;
    let (reports, outgoing) = mpsc::channel(256);
    let hello = Hello {
        worker: WorkerId(format!("worker-{number:04}")),
        boot: u64::from(number) + 1,
        version: "bench".into(),
        tier: Tier::Cloud,
        site: String::new(),
        labels: BTreeMap::new(),
        slots: 4,
        memory_bytes: 1 << 30,
        data_address: format!("127.0.0.1:{}", 20_000 + number),
        term: 0,
        deployments: Vec::new(),
    };
    reports.send((&Report::Hello(hello)).into()).await?;
    let mut client = AgentsClient::new(channel).max_decoding_message_size(64 << 20);
    let mut orders = client.session(ReceiverStream::new(outgoing)).await?.into_inner();
    let mut held: BTreeMap<DeploymentId, Held> = BTreeMap::new();
    let mut heartbeat = tokio::time::interval(Duration::from_secs(1));
    let mut rows = 0;
    loop {
        let answers = tokio::select! {
            order = orders.message() => match order? {
                Some(order) => obey(Order::try_from(order).map_err(|e| anyhow::anyhow!("{e}"))?, &mut held)?,
                None => bail!("the coordinator has closed the stream"),
            },
            _ = heartbeat.tick() => {
                rows += 10;
                vec![Report::Heartbeat(load(&held, rows))]
            }
        };
        for report in answers {
            reports.send((&report).into()).await?;
        }
    }
}

fn load(held: &BTreeMap<DeploymentId, Held>, rows: u64) -> Load {
    let of = |(deployment, held): (&DeploymentId, &Held)| {
        let subtask = |subtask: &SubtaskId| SubtaskLoad {
            deployment: deployment.clone(),
            subtask: *subtask,
            rows_in: rows,
            rows_out: rows,
            bytes: 0,
            late_rows: 0,
            dropped_rows: 0,
            error_rows: 0,
            watermark_ms: None,
            memory_bytes: 0,
        };
        held.subtasks.iter().map(subtask).collect::<Vec<_>>()
    };
    Load { cpu_millis: 100, resident_bytes: 64 << 20, subtasks: held.iter().flat_map(of).collect() }
}

fn obey(order: Order, held: &mut BTreeMap<DeploymentId, Held>) -> Result<Vec<Report>> {
    let OrderBody::Command { deployment, command } = order.body else { return Ok(Vec::new()) };
    let say = |event| Report::Event { deployment: deployment.clone(), event };
    Ok(match command {
        Command::Deploy(deploy) => {
            let plan = Plan::decode(&deploy.plan).map_err(|e| anyhow::anyhow!("{e}"))?;
            let mut here = Held { subtasks: Vec::new(), sinks: Vec::new() };
            for task in plan.tasks().tasks {
                for root in task.subtasks().filter(|root| deploy.placement.is_here(*root)) {
                    for operator in &task.operators {
                        let subtask = SubtaskId { operator: *operator, index: root.index };
                        here.subtasks.push(subtask);
                        if plan.operator(*operator).is_some_and(|op| matches!(op.kind, OperatorKind::Sink(_))) {
                            here.sinks.push(subtask);
                        }
                    }
                }
            }
            held.insert(deployment.clone(), here);
            vec![say(Event::Running)]
        }
        Command::Trigger { epoch } => {
            let ack = |subtask: &SubtaskId| {
                let state = SubtaskState { index: subtask.index, ..SubtaskState::default() };
                say(Event::Acked { epoch, subtask: *subtask, state })
            };
            held.get(&deployment).map(|held| held.subtasks.iter().map(ack).collect()).unwrap_or_default()
        }
        Command::Complete { epoch } => {
            let committed = |subtask: &SubtaskId| say(Event::Committed { epoch, subtask: *subtask });
            held.get(&deployment).map(|held| held.sinks.iter().map(committed).collect()).unwrap_or_default()
        }
        Command::Cancel => {
            held.remove(&deployment);
            vec![say(Event::Stopped)]
        }
        Command::Abort { .. } | Command::Stop { .. } => Vec::new(),
    })
}
