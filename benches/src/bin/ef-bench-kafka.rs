//! `ef-bench-kafka [--rows N] [--flink] [--latency SECONDS]`: JSON from Kafka, a filter, 5 s windows, and back to Kafka exactly
//! once, by `efctl run -p 2` over three partitions of an Apache Kafka that is started here. With `--flink` the same SQL by
//! Flink (`benches/flink`) on the same broker and input. Prints a JSON line for each: rows per cpu-second of the engine's
//! process, its start included (Flink's is left out), and peak RSS; the results are compared. `--latency`: at a steady
//! rate, from the completion of a checkpoint until a reader of committed records has seen the last of its rows.

#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use ef_tests::servers::kafka::{Client, Isolation, Kafka, Options, Row, unique};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

#[derive(Parser)]
struct Args {
    #[arg(long, default_value_t = 5_000_000)]
    rows: u64,
    /// Runs Flink as well; Maven fetches it at the first time
    #[arg(long)]
    flink: bool,
    /// Measures commits for so many seconds instead
    #[arg(long)]
    latency: Option<u64>,
    /// Rows per second while commits are measured
    #[arg(long, default_value_t = 50_000)]
    rate: u64,
    /// Each is run so often, in turn
    #[arg(long, default_value_t = 1)]
    runs: u32,
}

const PARTITIONS: u32 = 3;
const DEVICES: u64 = 1000;
/// Rows per second of event time.
const ROWS_A_SECOND: u64 = 10_000;
const JITTER_MS: u64 = 1000;
const BASE_MS: i64 = ef_tests::events::BASE_MS;
/// Rows that are made at a time.
const CHUNK: u64 = 200_000;

fn main() -> Result<()> {
    let args = Args::parse();
    let java = vec!["-Xms1g", "-Xmx1g", "-XX:TieredStopAtLevel=4", "-XX:-UseSerialGC", "-XX:+UseParallelGC"];
    let kafka =
        Kafka::start("ef-bench-kafka", Options { java, ..Options::default() }).context("no Kafka can be started")?;
    let client = kafka.client();
    if let Some(seconds) = args.latency {
        println!("{}", latency(client, Duration::from_secs(seconds), args.rate)?);
        return Ok(());
    }
    let input = topic(client, "input")?;
    for from in (0..args.rows).step_by(CHUNK as usize) {
        client.produce(&input, &rows(from..args.rows.min(from + CHUNK)))?;
    }
    for _ in 0..args.runs {
        let output = topic(client, "edgeflow")?;
        let ours = edgeflow(client, &input, &output, args.rows)?;
        println!("{ours}");
        if args.flink {
            let other = topic(client, "flink")?;
            let theirs = flink(client, &input, &other)?;
            println!("{theirs}");
            ensure!(windows(client, &output)? == windows(client, &other)?, "the results differ");
            let speed = |line: &Value| line["rows_per_cpu_second"].as_f64().context("every line has it");
            println!(
                "{}",
                json!({"workload": "kafka", "same_results": true, "ratio": speed(&ours)? / speed(&theirs)?})
            );
        }
    }
    Ok(())
}

fn topic(client: &Client, name: &str) -> Result<String> {
    let topic = unique(name);
    client.create_topic(&topic, PARTITIONS as i32, &[])?;
    Ok(topic)
}

/// The same for the same numbers. One in ten is out of range; times are out of order by less than a second.
fn rows(numbers: std::ops::Range<u64>) -> Vec<Row> {
    let row = |n: u64| {
        let mut random = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        random = (random ^ random >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        random ^= random >> 32;
        let device = random % DEVICES;
        let value = ((random >> 10) % 11_111) as f64 / 100.0;
        let late = (random >> 30) % JITTER_MS;
        let ts = ef_tests::events::timestamp(BASE_MS + (n * 1000 / ROWS_A_SECOND) as i64 - late as i64);
        let text = format!(r#"{{"device_id":"dev-{device}","ts":"{ts}","value":{value}}}"#);
        Row::new(text).partition((device % u64::from(PARTITIONS)) as i32)
    };
    numbers.map(row).collect()
}

/// The job of both engines, without what only Flink needs.
fn sql() -> Result<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("flink/job.sql");
    let sql = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let ours = |line: &&str| !line.trim_start().starts_with("'scan.watermark.alignment.");
    Ok(sql.lines().filter(ours).collect::<Vec<_>>().join("\n"))
}

fn start(client: &Client, work: &Path, sql: &str, input: &str, output: &str) -> Result<Child> {
    let efctl = std::env::current_exe()?.with_file_name("efctl");
    std::fs::write(work.join("job.sql"), sql)?;
    let mut command = Command::new(&efctl);
    command.args(["run", "job.sql", "--quiet", "-p", "2", "--state-dir", "state"]).current_dir(work);
    for (name, value) in [("BOOTSTRAP", client.bootstrap()), ("IN_TOPIC", input), ("OUT_TOPIC", output)] {
        command.arg("-D").arg(format!("{name}={value}"));
    }
    command.stdin(Stdio::null()).spawn().with_context(|| efctl.display().to_string())
}

fn edgeflow(client: &Client, input: &str, output: &str, rows: u64) -> Result<Value> {
    let work = tempfile::tempdir()?;
    let sql = format!("SET 'execution.checkpointing.interval' = '1 s';\n{}", sql()?);
    let started = Instant::now();
    let (status, usage) = wait(start(client, work.path(), &sql, input, output)?)?;
    let elapsed = started.elapsed().as_secs_f64();
    ensure!(status == 0, "efctl has failed: wait status {status}");
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let cpu = seconds(usage.ru_utime) + seconds(usage.ru_stime);
    Ok(line("edgeflow", rows, cpu, elapsed, usage.ru_maxrss as u64 / 1000))
}

fn line(engine: &str, rows: u64, cpu: f64, elapsed: f64, rss_mb: u64) -> Value {
    json!({
        "workload": "kafka",
        "engine": engine,
        "rows": rows,
        "rows_per_cpu_second": (rows as f64 / cpu).round(),
        "cpu_seconds_per_million_rows": (cpu / rows as f64 * 1e9).round() / 1e3,
        "elapsed_seconds": (elapsed * 1e2).round() / 1e2,
        "peak_rss_mb": rss_mb,
    })
}

/// How it ended, and what it has used.
fn wait(child: Child) -> Result<(i32, libc::rusage)> {
    let (mut status, pid) = (0, child.id() as i32);
    // SAFETY: our own child, which nobody else waits for; both places live until the call returns.
    let (waited, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::wait4(pid, &mut status, 0, &mut usage), usage)
    };
    ensure!(waited == pid, "the engine cannot be waited for: {}", std::io::Error::last_os_error());
    Ok((status, usage))
}

fn flink(client: &Client, input: &str, output: &str) -> Result<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("flink/run.sh");
    let done =
        Command::new("sh").arg(&script).args([client.bootstrap(), input, output]).stderr(Stdio::inherit()).output()?;
    let said = String::from_utf8_lossy(&done.stdout);
    ensure!(done.status.success(), "{} has failed: {said}", script.display());
    let figures: BTreeMap<&str, f64> = said
        .split_whitespace()
        .filter_map(|pair| pair.split_once('='))
        .filter_map(|(name, value)| Some((name, value.parse().ok()?)))
        .collect();
    let of = |name: &str| figures.get(name).copied().with_context(|| format!("Flink says no {name}: {said}"));
    Ok(line("flink", of("rows")? as u64, of("cpu_s")?, of("wall_s")?, of("peak_rss_mb")? as u64))
}

/// Every window of every device: its count, and mean and deviation to nine digits.
fn windows(client: &Client, topic: &str) -> Result<BTreeMap<(String, String), (i64, String, String)>> {
    let mut windows = BTreeMap::new();
    for record in client.read_all(topic, Isolation::Committed)? {
        let row: Value = serde_json::from_str(record.text())?;
        let text = |name: &str| row[name].as_str().unwrap_or_default().trim_end_matches(".000").to_string();
        let number = |name: &str| format!("{:.9}", row[name].as_f64().unwrap_or(f64::NAN));
        let values = (row["n"].as_i64().unwrap_or(-1), number("mean"), number("sd"));
        if windows.insert((text("device_id"), text("window_start")), values).is_some() {
            bail!("a window of topic {topic} came twice: {row}");
        }
    }
    Ok(windows)
}

/// Between two looks at files and topic.
const LOOK: Duration = Duration::from_millis(1);

/// Of each checkpoint: from its manifest's time until the last record that was seen before the next one.
fn latency(client: &Client, seconds: Duration, rate: u64) -> Result<Value> {
    let (input, output) = (topic(client, "input")?, topic(client, "edgeflow")?);
    let work = tempfile::tempdir()?;
    // A window of a device ends every second, so that each checkpoint has rows.
    let sql = sql()?
        .replace("'scan.bounded.mode' = 'latest-offset',", "")
        .replace("INTERVAL '5' SECOND", "INTERVAL '1' SECOND");
    let sql = format!(
        "SET 'execution.checkpointing.interval' = '500 ms';\nSET 'state.checkpoints.num-retained' = '100000';\n{sql}"
    );
    let mut engine = start(client, work.path(), &sql, &input, &output)?;
    let (feeding, feeder) = (std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true)), client.clone());
    let fed = {
        let (feeding, input) = (feeding.clone(), input.clone());
        std::thread::spawn(move || feed(&feeder, &input, rate, &feeding))
    };
    let mut visible = client.counter(&output, Isolation::Committed)?;
    let (started, mut records) = (Instant::now(), 0);
    let mut seen: Vec<SystemTime> = Vec::new();
    while started.elapsed() < seconds {
        let now = visible.records();
        if now > records {
            records = now;
            seen.push(SystemTime::now());
        }
        ensure!(engine.try_wait()?.is_none(), "the job has ended");
        std::thread::sleep(LOOK);
    }
    feeding.store(false, std::sync::atomic::Ordering::Relaxed);
    let completed = manifests(&work.path().join("state"));
    engine.kill()?;
    engine.wait()?;
    fed.join().map_err(|_| anyhow::anyhow!("the feeder has panicked"))??;
    let mut commits: Vec<u64> = Vec::new();
    // The first are those of a start.
    for pair in completed.windows(2).skip(4) {
        let last = seen.iter().rfind(|at| pair[0] <= **at && **at < pair[1]);
        commits.extend(last.and_then(|at| at.duration_since(pair[0]).ok()).map(|time| time.as_millis() as u64));
    }
    commits.sort_unstable();
    ensure!(commits.len() >= 20, "{} checkpoints with rows are too few", commits.len());
    let quantile = |q: f64| commits[((commits.len() - 1) as f64 * q).round() as usize];
    Ok(json!({
        "workload": "kafka-commit",
        "rows_per_second": rate,
        "checkpoints": commits.len(),
        "output_records": records,
        "commit_ms": {"p50": quantile(0.5), "p90": quantile(0.9), "p99": quantile(0.99), "max": quantile(1.0)},
    }))
}

/// `rate` rows a second, in pieces of a hundredth.
fn feed(client: &Client, input: &str, rate: u64, feeding: &std::sync::atomic::AtomicBool) -> Result<()> {
    let (started, writer, mut next) = (Instant::now(), client.writer(input)?, 0);
    while feeding.load(std::sync::atomic::Ordering::Relaxed) {
        let due = started.elapsed().as_millis() as u64 * rate / 1000;
        rows(next..due).iter().try_for_each(|row| writer.write(row))?;
        next = due;
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// When they were written, in order.
fn manifests(state: &Path) -> Vec<SystemTime> {
    let mut times = Vec::new();
    let mut folders: Vec<PathBuf> = vec![state.into()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path if path.file_name().is_some_and(|name| name == "manifest") => {
                    times.extend(entry.metadata().and_then(|metadata| metadata.modified()).ok());
                }
                _ => {}
            }
        }
    }
    times.sort();
    times
}
