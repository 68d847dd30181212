//! Rows on their way between two tasks of one process: split by key, sent over a channel, and both.

use arrow_array::RecordBatch;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ef_benches::stage::{Stage, count, deliver};
use ef_benches::{sensor, sql};
use ef_worker::config::CHANNEL_CREDIT_BYTES;
use ef_worker::exchange::{Gate, Partitioner, Received, gate};
use ef_worker::frame::Frame;
use std::time::Duration;

const ROWS: u64 = 300_000;
const TARGETS: usize = 4;

/// Takes what comes until every channel has ended.
fn drain(gate: &Gate<()>, channels: usize) -> usize {
    let (mut open, mut rows) = (channels, 0);
    while open > 0 {
        match gate.receive(&|_| false, Duration::from_secs(1)) {
            Received::Frame(_, Frame::Data(batch)) => rows += batch.num_rows(),
            Received::Frame(_, Frame::End) => open -= 1,
            _ => {}
        }
    }
    rows
}

/// One thread sends what `send` makes of every batch, another receives it.
fn travel(batches: &[RecordBatch], channels: usize, mut send: impl FnMut(&RecordBatch, &Gate<()>) + Send) -> usize {
    let gate = gate::<()>(channels, CHANNEL_CREDIT_BYTES);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            batches.iter().for_each(|batch| send(batch, &gate));
            (0..channels).for_each(|channel| gate.sender(channel).send(Frame::End).expect("the receiver is there"));
        });
        drain(&gate, channels)
    })
}

fn benches(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = sensor::file(folder.path(), ROWS).expect("a sensor file");
    let text = sql::sensor(&path.to_string_lossy(), "filter").expect("a query of the workload");
    let batches = deliver(&Stage::source(&text).0);
    let mut partitioner = Partitioner::new(vec![0], TARGETS as u32, 128);

    let mut group = c.benchmark_group("exchange");
    group.throughput(Throughput::Elements(count(&batches)));
    group.bench_function("split by key into 4", |b| {
        b.iter(|| {
            let mut rows = 0;
            for batch in &batches {
                let mut each = |_, part: RecordBatch| {
                    rows += part.num_rows();
                    Ok(())
                };
                partitioner.split(batch, &mut each).expect("a key column");
            }
            rows
        })
    });
    group.bench_function("forward", |b| {
        b.iter(|| travel(&batches, 1, |batch, gate| gate.sender(0).send(Frame::Data(batch.clone())).expect("open")))
    });
    group.bench_function("hash to 4 channels", |b| {
        b.iter(|| {
            travel(&batches, TARGETS, |batch, gate| {
                let mut each = |target, part| {
                    gate.sender(target).send(Frame::Data(part)).expect("open");
                    Ok(())
                };
                partitioner.split(batch, &mut each).expect("a key column");
            })
        })
    });
    group.finish();
}

criterion_group! {
    name = exchange;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = benches
}
criterion_main!(exchange);
