//! `ef-bench-mqtt --messages N [--inflight N] [--payload BYTES]`: QoS 1 messages into the durable ingest log and on
//! into columns, by the source that a job runs. The publisher is a process of its own that speaks MQTT to the source as a
//! broker does, on another core, so that no broker's CPU is in the way. One JSON line: messages/s, cpu-seconds of this
//! process per million messages, syncs' share, peak RSS.

#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use anyhow::{Context, Result, bail};
use clap::Parser;
use ef_benches::stage::Stage;
use ef_client::resources::usage;
use ef_proto::ids::{Epoch, OperatorId};
use ef_worker::connector::{self, Place, Polled};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// As in efctl.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Args {
    #[arg(long, default_value_t = 2_000_000)]
    messages: u64,
    /// Messages without an acknowledgement: the source's receive maximum
    #[arg(long, default_value_t = 4_096)]
    inflight: u16,
    /// Bytes of a payload, at least
    #[arg(long, default_value_t = 120)]
    payload: usize,
    /// A column by which messages are told apart
    #[arg(long)]
    dedup: bool,
    /// Where the log is; by default a temporary directory
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Keep this process on one core
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    one_core: bool,
    /// Be the publisher
    #[arg(long, hide = true)]
    publisher: bool,
    /// Be the ingest process, with this source; planning is another one's, as in a cluster
    #[arg(long, hide = true)]
    source: Option<String>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    match &args.source {
        _ if args.publisher => publish(&args),
        Some(source) => ingest(&args, source),
        None => plan(&args),
    }
}

fn pin(core: usize) {
    // SAFETY: a mask of our own for this process.
    unsafe {
        let mut cores: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut cores);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &cores);
    }
}

/// Starts the publisher, plans for its port, and starts the ingest process, whose line is the answer.
fn plan(args: &Args) -> Result<()> {
    let own = std::env::current_exe()?;
    let numbers = ["--messages", &args.messages.to_string(), "--payload", &args.payload.to_string()].map(String::from);
    let mut publisher = std::process::Command::new(&own)
        .arg("--publisher")
        .args(&numbers)
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    let mut said = std::io::BufReader::new(publisher.stdout.take().context("it is piped")?);
    std::io::BufRead::read_line(&mut said, &mut line)?;
    let port: u16 = line.trim().parse().context("the publisher says its port")?;
    let dedup = if args.dedup { ", 'mqtt.dedup.key' = 'seq'" } else { "" };
    let sql = format!(
        "CREATE TABLE t (device STRING, seq BIGINT, ts TIMESTAMP(3), temperature DOUBLE, topic STRING METADATA VIRTUAL)
         WITH ('connector' = 'mqtt', 'url' = 'mqtt://127.0.0.1:{port}', 'topic' = 'sensors/#', 'format' = 'json',
               'max.inflight' = '{}'{dedup});
         SELECT device, seq, ts, temperature, topic FROM t;",
        args.inflight
    );
    let (source, _) = Stage::source(&sql);
    let mut ingest = std::process::Command::new(&own);
    ingest.args(&numbers).args(["--inflight", &args.inflight.to_string(), "--one-core", &args.one_core.to_string()]);
    ingest.args(args.dedup.then_some("--dedup")).arg("--source").arg(serde_json::to_string(&source)?);
    if let Some(directory) = &args.directory {
        ingest.arg("--directory").arg(directory);
    }
    let status = ingest.status()?;
    publisher.wait()?;
    if status.success() { Ok(()) } else { bail!("the ingest process: {status}") }
}

fn ingest(args: &Args, source: &str) -> Result<()> {
    if args.one_core {
        pin(0);
    }
    let own = tempfile::tempdir()?;
    let directory = args.directory.clone().unwrap_or_else(|| own.path().join("durable"));
    let source: ef_proto::plan::Source = serde_json::from_str(source)?;
    let place = Place {
        table: "t".into(),
        index: 0,
        parallelism: 1,
        job: "bench".into(),
        operator: OperatorId(1),
        incarnation: 1,
        now_ms: 0,
        secrets: Default::default(),
        scratch: own.path().join("scratch"),
        durable: Some(directory),
    };
    let since = Instant::now();
    let clock = Box::new(move || since.elapsed().as_millis() as i64);
    let mut reader = connector::source(&source, &place, &[], clock).map_err(|e| anyhow::anyhow!("{e}"))?;
    let mut rows = 0u64;
    let (mut started, mut before) = (None, usage());
    let mut epoch = 0;
    let mut checkpointed = Instant::now();
    while rows < args.messages {
        match reader.poll(&[]).map_err(|e| anyhow::anyhow!("{e}"))? {
            Polled::Batch(batch) => {
                if started.is_none() {
                    (started, before) = (Some(Instant::now()), usage());
                }
                rows += batch.batch.num_rows() as u64;
            }
            Polled::Wait(ms) => std::thread::sleep(Duration::from_millis(ms)),
            Polled::End => bail!("the source has ended"),
            Polled::Opened(_) | Polled::Closed(_) | Polled::Idle => {}
        }
        if checkpointed.elapsed() > Duration::from_secs(1) {
            epoch += 1;
            checkpointed = Instant::now();
            reader.snapshot(Epoch(epoch)).map_err(|e| anyhow::anyhow!("{e}"))?;
            reader.completed(Epoch(epoch)).map_err(|e| anyhow::anyhow!("{e}"))?;
        }
    }
    let seconds = started.context("there were rows")?.elapsed().as_secs_f64();
    let after = usage();
    drop(reader);
    let cpu = after.cpu_seconds - before.cpu_seconds;
    let line = serde_json::json!({
        "workload": "mqtt",
        "messages": rows,
        "payload_bytes": args.payload,
        "inflight": args.inflight,
        "dedup": args.dedup,
        "one_core": args.one_core,
        "messages_per_second": (rows as f64 / seconds) as u64,
        "messages_per_cpu_second": (rows as f64 / cpu) as u64,
        "cpu_seconds_per_million_messages": (cpu / rows as f64 * 1e6 * 1e4).round() / 1e4,
        "elapsed_seconds": (seconds * 1e3).round() / 1e3,
        "peak_rss_mb": after.peak_rss_bytes / 1_000_000,
    });
    println!("{line}");
    Ok(())
}

/// Speaks MQTT 5 as a broker to one client: as many messages at once as that takes, one for each acknowledgement.
fn publish(args: &Args) -> Result<()> {
    pin(1);
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    println!("{}", listener.local_addr()?.port());
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let connect = packet(&mut stream)?;
    // Behind protocol name, version, flags, keep alive, length of properties: session expiry, then receive maximum.
    let at = connect.windows(1).enumerate().skip(16).find(|(_, id)| id[0] == 33).map(|(at, _)| at).unwrap_or(0);
    let window = u64::from(u16::from_be_bytes([connect[at + 1], connect[at + 2]]));
    stream.write_all(&[0x20, 3, 0, 0, 0])?;
    let subscribe = packet(&mut stream)?;
    stream.write_all(&[0x90, 4, subscribe[0], subscribe[1], 0, 1])?;
    let (mut sent, mut taken, mut pkid) = (0u64, 0u64, 0u16);
    let mut out = Vec::with_capacity(1 << 20);
    let mut input = vec![0; 256 << 10];
    let mut held = 0;
    while taken < args.messages {
        out.clear();
        while sent < args.messages && sent - taken < window && out.len() < 256 << 10 {
            pkid = pkid.checked_add(1).unwrap_or(1);
            message(&mut out, sent, pkid, args.payload);
            sent += 1;
        }
        stream.write_all(&out)?;
        let more = sent < args.messages && sent - taken < window;
        if more {
            continue;
        }
        let read = stream.read(&mut input[held..])?;
        if read == 0 {
            return Ok(());
        }
        held += read;
        let mut at = 0;
        while held - at >= 2 && held - at >= 2 + usize::from(input[at + 1]) {
            if input[at] == 0xc0 {
                stream.write_all(&[0xd0, 0])?;
            }
            taken += u64::from(input[at] == 0x40);
            at += 2 + usize::from(input[at + 1]);
        }
        input.copy_within(at..held, 0);
        held -= at;
    }
    // The last word is the client's.
    while stream.read(&mut input)? > 0 {}
    Ok(())
}

/// The body of the next packet.
fn packet(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    let mut length = usize::from(head[1] & 0x7f);
    if head[1] & 0x80 != 0 {
        let mut more = [0];
        stream.read_exact(&mut more)?;
        length |= usize::from(more[0]) << 7;
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(body)
}

fn message(out: &mut Vec<u8>, number: u64, pkid: u16, bytes: usize) {
    let device = number % 1_000;
    let topic = format!("sensors/plant-{}/device-{device}", device % 10);
    let (minute, second, milli) = (number / 60_000 % 60, number / 1_000 % 60, number % 1_000);
    let ts = format!("2026-03-14 06:{minute:02}:{second:02}.{milli:03}");
    let temperature = format!("{}.{}", number % 100, number % 10);
    let mut payload =
        format!("{{\"device\":\"device-{device}\",\"seq\":{number},\"ts\":\"{ts}\",\"temperature\":{temperature}");
    while payload.len() + 1 < bytes {
        payload.push(' ');
    }
    payload.push('}');
    let body = 2 + topic.len() + 2 + 1 + payload.len();
    out.push(0x32);
    let mut rest = body;
    loop {
        let more = if rest > 0x7f { 0x80 } else { 0 };
        out.push((rest & 0x7f) as u8 | more);
        rest >>= 7;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&(topic.len() as u16).to_be_bytes());
    out.extend_from_slice(topic.as_bytes());
    out.extend_from_slice(&pkid.to_be_bytes());
    out.push(0);
    out.extend_from_slice(payload.as_bytes());
}
