//! `ef-bench-exchange [--rows N] [--senders K] [--receivers K] [--compression C]`: a keyed exchange of sensor readings
//! between two processes over loopback, as tasks do it: partition by key, encode, send under credit; receive, decode.
//! Prints one JSON line: rows/s, and cpu-seconds of both processes per million rows.

use anyhow::{Context, Result, bail};
use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use clap::Parser;
use ef_client::resources::usage;
use ef_proto::ids::{DeploymentId, Incarnation, JobId, OperatorId, SubtaskId};
use ef_worker::config::CHANNEL_CREDIT_BYTES;
use ef_worker::exchange::{
    Channel, Compression, Dial, Encoder, Exchange, Gate, Inbound, Incoming, Partitioner, Received, SendError, gate,
};
use ef_worker::frame::{BATCH_ROWS, Frame};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// As in efctl.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Clone, Parser)]
struct Args {
    #[arg(long, default_value_t = 20_000_000)]
    rows: u64,
    /// Sending tasks, each with a channel to each receiving one
    #[arg(long, default_value_t = 2)]
    senders: u32,
    /// Receiving tasks
    #[arg(long, default_value_t = 2)]
    receivers: u32,
    /// none, lz4 or zstd
    #[arg(long, default_value = "none")]
    compression: String,
    /// Runs the receiving process
    #[arg(long, hide = true)]
    receive: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let _inside = runtime.enter();
    let exchange = Exchange::start(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    if args.receive { receive(&args, &exchange) } else { send(&args, &exchange) }
}

fn deployment() -> DeploymentId {
    DeploymentId { job: JobId("bench".into()), region: 0, incarnation: Incarnation(1) }
}

fn task(index: u32) -> SubtaskId {
    SubtaskId { operator: OperatorId(1), index }
}

/// `device_id STRING, ts TIMESTAMP(3), temperature DOUBLE`.
fn readings(rng: &mut SmallRng) -> RecordBatch {
    let devices = StringArray::from_iter_values((0..BATCH_ROWS).map(|_| format!("dev-{}", rng.random_range(0..1000))));
    let times = TimestampMillisecondArray::from_iter_values((0..BATCH_ROWS).map(|i| 1_700_000_000_000 + i as i64));
    let temperatures = Float64Array::from_iter_values((0..BATCH_ROWS).map(|_| rng.random_range(0.0..100.0)));
    let columns: [(&str, ArrayRef); 3] =
        [("device_id", Arc::new(devices)), ("ts", Arc::new(times)), ("temperature", Arc::new(temperatures))];
    RecordBatch::try_from_iter(columns).expect("three columns of one length")
}

/// The receiving process: tells where it listens, takes all, tells what it took.
fn receive(args: &Args, exchange: &Exchange) -> Result<()> {
    let schema = readings(&mut SmallRng::seed_from_u64(0)).schema();
    let gates: Vec<Gate<()>> = (0..args.receivers).map(|_| gate(args.senders as usize, CHANNEL_CREDIT_BYTES)).collect();
    let incoming = Some(Incoming { schema, from: "the sender".into() });
    let inbound = (0..).zip(&gates).map(|(index, gate)| {
        (task(index), Inbound { inlet: gate.inlet(), channels: vec![incoming.clone(); args.senders as usize] })
    });
    let _registration = exchange.register(&deployment(), inbound.collect())?;
    println!("{}", exchange.local_addr());
    let before = usage().cpu_seconds;
    let rows: Result<u64> = std::thread::scope(|scope| {
        let draining: Vec<_> = gates.into_iter().map(|gate| scope.spawn(move || drain(&gate, args.senders))).collect();
        draining.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    println!("{} {}", rows?, usage().cpu_seconds - before);
    Ok(())
}

fn drain(gate: &Gate<()>, mut open: u32) -> Result<u64> {
    let mut rows = 0;
    while open > 0 {
        match gate.receive(&|_| false, Duration::from_secs(1)) {
            Received::Frame(_, Frame::Data(batch)) => rows += batch.num_rows() as u64,
            Received::Frame(_, Frame::End) => open -= 1,
            Received::Failed(error) => bail!("{error}"),
            _ => {}
        }
    }
    Ok(rows)
}

fn send(args: &Args, exchange: &Exchange) -> Result<()> {
    let compression = match args.compression.as_str() {
        "none" => Compression::None,
        "lz4" => Compression::Lz4,
        "zstd" => Compression::Zstd,
        other => bail!("unknown compression `{other}`: none, lz4 or zstd"),
    };
    let mut child = Command::new(std::env::current_exe()?)
        .args(std::env::args().skip(1))
        .arg("--receive")
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the receiving process")?;
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut line = || lines.next().context("the receiving process has ended")?.context("cannot read its output");
    let address = line()?;
    // Made before the clock starts: the bench is of the exchange. More than any cache holds.
    let batches: Vec<Vec<RecordBatch>> = (0..args.senders)
        .map(|sender| {
            let rng = &mut SmallRng::seed_from_u64(u64::from(sender));
            (0..100).map(|_| readings(rng)).collect()
        })
        .collect();
    let before = usage().cpu_seconds;
    #[expect(clippy::disallowed_methods, reason = "a bench measures time")]
    let start = Instant::now();
    let sent: Result<u64> = std::thread::scope(|scope| {
        let sending: Vec<_> = (0..args.senders)
            .zip(&batches)
            .map(|(sender, batches)| {
                let encoder = Encoder::new(batches[0].schema(), compression).map(|e| Arc::new(Mutex::new(e)));
                let channels = encoder.map(|encoder| {
                    let dial = |index: u32| Dial {
                        deployment: deployment(),
                        to: task(index),
                        channel: sender as usize,
                        address: address.clone(),
                        name: "the receiver".into(),
                    };
                    let channel = |index| Channel::Remote(exchange.dial(dial(index), encoder.clone()));
                    (0..args.receivers).map(channel).collect::<Vec<Channel<()>>>()
                });
                scope.spawn(move || feed(&channels?, batches, args.rows / u64::from(args.senders)))
            })
            .collect();
        sending.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    let sent = sent?;
    let told = line()?;
    let elapsed = start.elapsed().as_secs_f64();
    let own = usage().cpu_seconds - before;
    let (rows, theirs) = told.split_once(' ').context("rows and cpu-seconds")?;
    let (rows, theirs): (u64, f64) = (rows.parse()?, theirs.parse()?);
    child.wait()?;
    if rows != sent {
        bail!("{sent} rows were sent and {rows} came");
    }
    let line = serde_json::json!({
        "workload": "exchange",
        "senders": args.senders,
        "receivers": args.receivers,
        "compression": args.compression,
        "rows": rows,
        "rows_per_second": (rows as f64 / elapsed) as u64,
        "cpu_seconds_per_million_rows": ((own + theirs) / rows as f64 * 1e6 * 1e4).round() / 1e4,
        "cpu_seconds_per_million_rows_sender": (own / rows as f64 * 1e6 * 1e4).round() / 1e4,
        "elapsed_seconds": (elapsed * 1e3).round() / 1e3,
    });
    println!("{line}");
    Ok(())
}

/// One sending task: whole batches, at least `rows` rows.
fn feed(channels: &[Channel<()>], batches: &[RecordBatch], rows: u64) -> Result<u64> {
    let failed = |error| match error {
        SendError::Closed => anyhow::anyhow!("the receiver has gone"),
        SendError::Failed(error) => error.into(),
    };
    let mut partitioner = Partitioner::new(vec![0], channels.len() as u32, 128);
    let mut sent = 0;
    for batch in batches.iter().cycle() {
        if sent >= rows {
            break;
        }
        let mut error = None;
        partitioner.split(batch, &mut |target, part| {
            error = error.take().or(channels[target].send(Frame::Data(part)).err());
            Ok(())
        })?;
        if let Some(error) = error {
            return Err(failed(error));
        }
        sent += batch.num_rows() as u64;
    }
    channels.iter().try_for_each(|channel| channel.send(Frame::End)).map_err(failed)?;
    Ok(sent)
}
