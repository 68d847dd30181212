//! Filters and projections over batches of sensor rows, as the Calc operator runs them.

use arrow_array::{RecordBatch, StringArray};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use ef_benches::stage::{Count, Stage, count, scope, store};
use ef_benches::{sensor, sql};
use ef_proto::plan::OperatorKind;
use ef_worker::config::Backend;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const ROWS: u64 = 100_000;

fn calc(sql: &str) -> Stage {
    Stage::new(sql, |kind| matches!(kind, OperatorKind::Calc(_)))
}

fn bench(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, stage: &Stage, batches: &[RecordBatch]) {
    let mut operator = stage.operator();
    let mut store = store(Backend::Memory, Path::new(""));
    group.throughput(Throughput::Elements(count(batches)));
    group.bench_function(name, |b| {
        b.iter(|| {
            let mut out = Count::default();
            for batch in batches {
                operator.on_batch(0, batch.clone(), &mut scope(&mut out, store.as_mut())).expect("values that fit");
            }
            out.0
        })
    });
}

fn benches(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = sensor::file(folder.path(), ROWS).expect("a sensor file");
    let path = path.to_string_lossy();
    let mut group = c.benchmark_group("expressions");

    let filter = calc(&sql::sensor(&path, "filter").expect("a query of the workload"));
    bench(&mut group, "comparison filter", &filter, &filter.rows());
    for (name, columns, select) in [
        ("arithmetic", "a DOUBLE, b DOUBLE", "SELECT temperature * 1.8 + 32, vibration / (pressure + 1) FROM sensor"),
        ("LIKE prefix", "a STRING", "SELECT device_id FROM sensor WHERE device_id LIKE 'dev-1%'"),
        ("LIKE inside", "a STRING", "SELECT device_id FROM sensor WHERE device_id LIKE '%v-_7%'"),
        (
            "CASE",
            "a STRING",
            "SELECT CASE WHEN temperature > 90 THEN 'hot' WHEN temperature < 10 THEN 'cold' ELSE 'fine' END FROM sensor",
        ),
    ] {
        let stage = calc(&sql::over_sensor(&path, columns, select));
        bench(&mut group, name, &stage, &stage.rows());
    }

    let cast = calc(
        "CREATE TABLE texts (t STRING) WITH ('connector' = 'datagen', 'number-of-rows' = '1');
         CREATE TABLE result (t TIMESTAMP(3)) WITH ('connector' = 'blackhole');
         INSERT INTO result SELECT CAST(t AS TIMESTAMP(3)) FROM texts WHERE t <> '';",
    );
    let texts = (0..8192).map(|i| Some(format!("2026-03-14 07:{:02}:{:02}.{:03}", i / 60 % 60, i % 60, i % 1000)));
    let texts: StringArray = texts.collect();
    let batch = RecordBatch::try_from_iter([("t", Arc::new(texts) as _)]).expect("one column");
    bench(&mut group, "cast of a string to a timestamp", &cast, &vec![batch; 12]);
    group.finish();
}

criterion_group! {
    name = expressions;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = benches
}
criterion_main!(expressions);
