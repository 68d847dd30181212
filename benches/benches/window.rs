//! The keyed operators: windows over a stream of sensor rows, from the first row to the end of time, and grouped
//! aggregation in its steady state.

use arrow_array::RecordBatch;
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use ef_benches::stage::{Count, Stage, count, scope, store, stream};
use ef_benches::{sensor, sql};
use ef_proto::plan::{OperatorKind, Time};
use ef_worker::config::Backend;
use ef_worker::operator::Operator;
use ef_worker::state::Store;
use std::time::Duration;

const ROWS: u64 = 300_000;
/// Batches between two checkpoints, or two spills.
const BATCHES: usize = 8;

fn windows(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = sensor::file(folder.path(), ROWS).expect("a sensor file");
    let mut group = c.benchmark_group("window");
    group.sampling_mode(SamplingMode::Flat);
    for (name, query) in [("tumble 5 s", "tumble"), ("hop 1 min by 5 s", "hop"), ("session 10 s of silence", "session")]
    {
        let text = sql::sensor(&path.to_string_lossy(), query).expect("a query of the workload");
        let stage = Stage::new(&text, |kind| matches!(kind, OperatorKind::WindowAggregate(_)));
        let OperatorKind::WindowAggregate(spec) = stage.kind() else { unreachable!("picked above") };
        let Time::Event { column } = spec.time else { panic!("the workload runs by event time") };
        let rows = stage.rows();
        group.throughput(Throughput::Elements(count(&rows)));
        group.bench_function(name, |b| {
            b.iter(|| assert_ne!(stream(stage.operator().as_mut(), &rows, column, 2000), 0));
        });
    }
    group.finish();
}

/// The next [`BATCHES`] of `rows`, which go round.
fn feed(operator: &mut dyn Operator, rows: &[RecordBatch], next: &mut usize, store: &mut dyn Store) -> usize {
    let mut out = Count::default();
    for _ in 0..BATCHES {
        let batch = rows[*next % rows.len()].clone();
        *next += 1;
        operator.on_batch(0, batch, &mut scope(&mut out, store)).expect("state in reach");
    }
    out.0
}

/// What happens between two stretches of rows.
#[derive(Clone, Copy)]
enum Between {
    Nothing,
    Checkpoint,
    /// Memory is short: all tables go to disk, and every key is looked up again.
    Spill,
}

fn groups(c: &mut Criterion) {
    let mut group = c.benchmark_group("group aggregate");
    group.sampling_mode(SamplingMode::Flat);
    for (name, keys, backend, between) in [
        ("1 k keys, memory", 1_000, Backend::Memory, Between::Nothing),
        ("1 M keys, memory", 1_000_000, Backend::Memory, Between::Nothing),
        ("1 k keys, rocksdb, checkpoints", 1_000, Backend::RocksDb, Between::Checkpoint),
        ("1 M keys, rocksdb, checkpoints", 1_000_000, Backend::RocksDb, Between::Checkpoint),
        ("1 M keys, rocksdb, spills", 1_000_000, Backend::RocksDb, Between::Spill),
    ] {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let stage =
            Stage::new(&sql::keys(2 * keys.max(200_000), keys), |kind| matches!(kind, OperatorKind::GroupAggregate(_)));
        let rows = stage.rows();
        let mut store = store(backend, &folder.path().join("db"));
        let mut operator = stage.operator();
        operator.restore(store.as_mut(), &[]).expect("nothing to restore");
        let mut next = 0;
        while next < rows.len() {
            feed(operator.as_mut(), &rows, &mut next, store.as_mut());
        }
        group.throughput(Throughput::Elements((BATCHES * rows[0].num_rows()) as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                let emitted = feed(operator.as_mut(), &rows, &mut next, store.as_mut());
                match between {
                    Between::Nothing => {}
                    Between::Checkpoint => {
                        operator.snapshot(store.as_mut()).expect("a store that can be written");
                        drop(store.snapshot().expect("a snapshot"));
                    }
                    Between::Spill => operator.spill(store.as_mut()).expect("a store that can be written"),
                }
                emitted
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = keyed;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = windows, groups
}
criterion_main!(keyed);
