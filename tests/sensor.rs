//! Windows over real sensor series give their recorded rows, and over generated ones those of a naive recomputation.

use ef_tests::events::{Reading, readings, readings_ndjson, timestamp};
use ef_tests::rows::{Row, assert_same, csv, ndjson};
use ef_tests::{Run, shared};
use std::collections::BTreeMap;

const SETTINGS: [(&str, &str); 4] = [("1", "memory"), ("4", "memory"), ("1", "rocksdb"), ("4", "rocksdb")];

#[test]
fn recorded_series_give_their_expected_windows() {
    let Some(shared) = shared::folder() else { return };
    let sensor = shared.join("sensor");
    let work = tempfile::tempdir().expect("a temporary directory");
    let data = work.path().join("shared/sensor");
    std::fs::create_dir_all(&data).expect("writable");
    std::fs::write(data.join("nab.ndjson"), shared::text(&sensor.join("nab.ndjson.gz"))).expect("writable");
    let mut ran = 0;
    for query in ["nab_tumble_5min", "nab_tumble_1h", "nab_hop_1h_5min"] {
        let text = shared::text(&sensor.join(format!("queries/{query}.sql")));
        let (columns, expected) = csv(&shared::text(&shared::either(&sensor, &format!("expected/{query}.csv"))));
        for (parallelism, backend) in SETTINGS {
            let sql = format!("SET 'state.backend' = '{backend}';\n{text}");
            let done = Run::sql(work.path(), &sql).args(&["-p", parallelism]).done().success();
            let what = format!("{query} at parallelism {parallelism} on {backend}");
            assert_same(&what, ndjson(&done.stdout, &columns), expected.clone(), 1e-9);
            ran += 1;
        }
    }
    shared::say(&format!("recorded cases: {ran} ran (sensor windows)"));
}

const DDL: &str = "
CREATE TABLE sensor (
  device_id STRING, ts TIMESTAMP(3), `value` DOUBLE,
  WATERMARK FOR ts AS ts - INTERVAL '3' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'sensor.ndjson', 'format' = 'json', 'source.split-size' = '32kb');
";

/// (device, window start, window end) → the values of the window.
type Windows = BTreeMap<(u32, i64, i64), Vec<f64>>;

fn check(name: &str, query_window: &str, windows: &Windows, readings: &[Reading]) {
    let work = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(work.path().join("sensor.ndjson"), readings_ndjson(readings)).expect("writable");
    let columns = ["device_id", "window_start", "window_end", "n", "mean", "sd", "lo", "hi"].map(String::from);
    let expected: Vec<Row> = windows
        .iter()
        .map(|((device, start, end), values)| {
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            vec![
                format!("dev-{device}"),
                timestamp(*start),
                timestamp(*end),
                values.len().to_string(),
                format!("{mean:?}"),
                format!("{:?}", variance.sqrt()),
                format!("{least:?}"),
                format!("{most:?}"),
            ]
        })
        .collect();
    for (parallelism, backend) in SETTINGS {
        let sql = format!(
            "SET 'state.backend' = '{backend}';\n{DDL}\nSELECT device_id, window_start, window_end, COUNT(*) AS n, \
             AVG(`value`) AS mean, STDDEV_POP(`value`) AS sd, MIN(`value`) AS lo, MAX(`value`) AS hi FROM TABLE({query_window}) \
             GROUP BY device_id, window_start, window_end;"
        );
        let done = Run::sql(work.path(), &sql).args(&["-p", parallelism]).done().success();
        let what = format!("{name} at parallelism {parallelism} on {backend}");
        assert_same(&what, ndjson(&done.stdout, &columns), expected.clone(), 1e-9);
    }
}

#[test]
fn tumbling_hopping_and_cumulating_windows_hold_exactly_their_rows() {
    let readings = readings(21, 30_000, 20, 5, 3000);
    let mut tumble = Windows::new();
    let mut hop = Windows::new();
    let mut cumulate = Windows::new();
    for r in &readings {
        let start = r.ts.div_euclid(5000) * 5000;
        tumble.entry((r.device, start, start + 5000)).or_default().push(r.value);
        let mut start = r.ts.div_euclid(2500) * 2500;
        while start + 10_000 > r.ts {
            hop.entry((r.device, start, start + 10_000)).or_default().push(r.value);
            start -= 2500;
        }
        let start = r.ts.div_euclid(20_000) * 20_000;
        let mut end = start + (r.ts - start).div_euclid(5000) * 5000 + 5000;
        while end <= start + 20_000 {
            cumulate.entry((r.device, start, end)).or_default().push(r.value);
            end += 5000;
        }
    }
    let window = |text: &str| text.replace("FROM", "TABLE sensor, DESCRIPTOR(ts)");
    check("tumble", &window("TUMBLE(FROM, INTERVAL '5' SECOND)"), &tumble, &readings);
    check("hop", &window("HOP(FROM, INTERVAL '2.5' SECOND, INTERVAL '10' SECOND)"), &hop, &readings);
    check("cumulate", &window("CUMULATE(FROM, INTERVAL '5' SECOND, INTERVAL '20' SECOND)"), &cumulate, &readings);
}

#[test]
fn sessions_end_after_the_gap() {
    let readings = readings(22, 20_000, 300, 10, 3000);
    let mut by_device: BTreeMap<u32, Vec<(i64, f64)>> = BTreeMap::new();
    for r in &readings {
        by_device.entry(r.device).or_default().push((r.ts, r.value));
    }
    let mut sessions = Windows::new();
    for (device, mut rows) in by_device {
        rows.sort_by_key(|row| row.0);
        let mut open: Vec<(i64, f64)> = Vec::new();
        for row in rows {
            // Windows that touch are one, as Flink's `TimeWindow::intersects` has it.
            if open.last().is_some_and(|last| row.0 > last.0 + 2000) {
                let closed = std::mem::take(&mut open);
                let key = (device, closed[0].0, closed[closed.len() - 1].0 + 2000);
                sessions.insert(key, closed.into_iter().map(|r| r.1).collect());
            }
            open.push(row);
        }
        let key = (device, open[0].0, open[open.len() - 1].0 + 2000);
        sessions.insert(key, open.into_iter().map(|r| r.1).collect());
    }
    let window = "SESSION(TABLE sensor PARTITION BY device_id, DESCRIPTOR(ts), INTERVAL '2' SECOND)";
    check("session", window, &sessions, &readings);
}
