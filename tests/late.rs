//! Rows behind the watermark: the late table gets exactly those, they are counted, and they are in no window.

use ef_tests::Run;
use ef_tests::events::{BASE_MS, Reading, readings, timestamp};
use ef_tests::rows::{Row, assert_same, directory, ndjson};
use ef_tests::seed::seed;
use ef_tests::table::{Object, json, objects};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

const ROWS: usize = 40_000;

/// A stream out of order by less than the watermark's delay; from the middle on, every tenth row comes a minute late.
fn stream(seed: u64) -> (Vec<Reading>, Vec<bool>) {
    let mut all = readings(seed, ROWS, 7, 5, 2000);
    let late: Vec<bool> = (0..ROWS).map(|i| i > ROWS / 2 && i % 10 == 0).collect();
    for (reading, _) in all.iter_mut().zip(&late).filter(|(_, late)| **late) {
        reading.ts -= 60_000;
    }
    (all, late)
}

fn write_rows(work: &Path, rows: &[Reading]) {
    let mut text = String::new();
    for (id, r) in rows.iter().enumerate() {
        let (device, ts, value) = (r.device, timestamp(r.ts), r.value);
        writeln!(text, r#"{{"id":{id},"device_id":"dev-{device}","ts":"{ts}","value":{value}}}"#).expect("memory");
    }
    std::fs::write(work.join("sensor.ndjson"), text).expect("writable");
}

fn job(backend: &str, window: &str, late: &str) -> String {
    format!(
        "SET 'state.backend' = '{backend}';
         CREATE TABLE late (why STRING, ts TIMESTAMP(3), id BIGINT, device_id STRING, twice DOUBLE)
           WITH ('connector' = 'filesystem', 'path' = 'late', 'format' = 'json');
         CREATE TABLE sensor (id BIGINT, device_id STRING, ts TIMESTAMP(3), `value` DOUBLE, twice AS `value` * 2,
           WATERMARK FOR ts AS ts - INTERVAL '3' SECOND)
           WITH ('connector' = 'filesystem', 'path' = 'sensor.ndjson', 'format' = 'json',
                 'source.split-size' = '100kb' {late});
         SELECT device_id, window_start, COUNT(*) AS n, SUM(id) AS ids
         FROM TABLE({window}) GROUP BY device_id, window_start, window_end;"
    )
}

/// The windows of the rows that are not late. `starts`: of the windows that a row is in.
fn expected(rows: &[Reading], late: &[bool], starts: &dyn Fn(i64) -> Vec<i64>) -> Vec<Row> {
    let mut windows: BTreeMap<(u32, i64), (u64, usize)> = BTreeMap::new();
    for (id, row) in rows.iter().enumerate().filter(|(id, _)| !late[*id]) {
        for start in starts(row.ts) {
            let window = windows.entry((row.device, start)).or_default();
            *window = (window.0 + 1, window.1 + id);
        }
    }
    let row = |((device, start), (n, ids)): ((u32, i64), (u64, usize))| {
        vec![format!("dev-{device}"), timestamp(start), n.to_string(), ids.to_string()]
    };
    windows.into_iter().map(row).collect()
}

fn columns() -> Vec<String> {
    ["device_id", "window_start", "n", "ids"].map(String::from).into()
}

fn late_table(work: &Path) -> BTreeMap<usize, Object> {
    let rows = objects(&directory(&work.join("late")));
    let count = rows.len();
    let by_id: BTreeMap<usize, Object> =
        rows.into_iter().map(|row| (row["id"].as_u64().expect("an id") as usize, row)).collect();
    assert_eq!(by_id.len(), count, "a late row came twice");
    by_id
}

#[test]
fn exactly_the_rows_behind_the_watermark_go_to_the_late_table() {
    let seed = seed();
    let (rows, late) = stream(seed);
    let tumble = |ts: i64| vec![ts.div_euclid(5000) * 5000];
    let hop = |ts: i64| {
        let last = ts.div_euclid(2000) * 2000;
        (0..3).map(|i| last - i * 2000).collect()
    };
    let cases: [(&str, &str, &dyn Fn(i64) -> Vec<i64>); 3] = [
        ("memory", "TUMBLE(TABLE sensor, DESCRIPTOR(ts), INTERVAL '5' SECOND)", &tumble),
        ("rocksdb", "TUMBLE(TABLE sensor, DESCRIPTOR(ts), INTERVAL '5' SECOND)", &tumble),
        ("memory", "HOP(TABLE sensor, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '6' SECOND)", &hop),
    ];
    for (backend, window, starts) in cases {
        let what = format!("EDGEFLOW_SEED={seed}, {window} on {backend}");
        let work = tempfile::tempdir().expect("a temporary directory");
        let work = work.path();
        write_rows(work, &rows);
        let sql = job(backend, window, ", 'late.table' = 'late'");
        let done = Run::sql(work, &sql).args(&["--summary-json", "summary.json"]).done().success();
        assert_same(&what, ndjson(&done.stdout, &columns()), expected(&rows, &late, starts), 0.0);
        let found = late_table(work);
        let ids: Vec<usize> = (0..ROWS).filter(|id| late[*id]).collect();
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), ids, "{what}: late rows");
        for (id, row) in &found {
            assert_eq!(row["ts"], timestamp(rows[*id].ts), "{what}");
            assert_eq!(row["device_id"], format!("dev-{}", rows[*id].device), "{what}");
            assert_eq!(row["twice"], rows[*id].value * 2.0, "{what}: a computed column");
            assert!(row["why"].is_null(), "{what}: a column that the source does not have");
        }
        assert_eq!(json(&work.join("summary.json"))["late_rows"], ids.len(), "{what}");
    }
}

#[test]
fn late_rows_without_a_late_table_are_counted() {
    let seed = seed();
    let (rows, late) = stream(seed);
    let work = tempfile::tempdir().expect("a temporary directory");
    let work = work.path();
    write_rows(work, &rows);
    let sql = job("memory", "TUMBLE(TABLE sensor, DESCRIPTOR(ts), INTERVAL '5' SECOND)", "");
    let done = Run::sql(work, &sql).args(&["--summary-json", "summary.json"]).done().success();
    let starts = |ts: i64| vec![ts.div_euclid(5000) * 5000];
    let what = format!("EDGEFLOW_SEED={seed}");
    assert_same(&what, ndjson(&done.stdout, &columns()), expected(&rows, &late, &starts), 0.0);
    let summary = json(&work.join("summary.json"));
    let count = late.iter().filter(|late| **late).count();
    assert_eq!(summary["late_rows"], count, "{what}");
    let by_operator = summary["late"].as_array().expect("a list");
    assert_eq!(by_operator.len(), 1, "{what}: {by_operator:?}");
    assert_eq!(by_operator[0]["rows"], count, "{what}");
}

/// With several subtasks their watermarks decide together, so which rows are late is theirs to say; but each row is
/// either in its window or in the late table.
#[test]
fn each_row_is_in_its_window_or_in_the_late_table_at_any_parallelism() {
    let seed = seed();
    let (rows, _) = stream(seed);
    let work = tempfile::tempdir().expect("a temporary directory");
    let work = work.path();
    write_rows(work, &rows);
    let window = "TUMBLE(TABLE sensor, DESCRIPTOR(ts), INTERVAL '5' SECOND)";
    for late_option in [", 'late.table' = 'late'", ""] {
        let sql = job("memory", window, late_option);
        let done = Run::sql(work, &sql).args(&["-p", "4", "--summary-json", "summary.json"]).done().success();
        let summary = json(&work.join("summary.json"));
        let what = format!("EDGEFLOW_SEED={seed}{late_option}");
        if late_option.is_empty() {
            let counted: u64 = objects(&done.stdout).iter().map(|row| row["n"].as_u64().expect("a count")).sum();
            assert_eq!(counted + summary["late_rows"].as_u64().expect("a count"), ROWS as u64, "{what}");
            continue;
        }
        let found = late_table(work);
        assert_eq!(summary["late_rows"], found.len(), "{what}");
        let late: Vec<bool> = (0..ROWS).map(|id| found.contains_key(&id)).collect();
        let starts = |ts: i64| vec![ts.div_euclid(5000) * 5000];
        assert_same(&what, ndjson(&done.stdout, &columns()), expected(&rows, &late, &starts), 0.0);
    }
}

#[test]
fn rows_without_a_time_are_in_no_window_and_are_counted() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let work = work.path();
    let time = |id: i64| if id % 4 == 0 { "null".into() } else { format!("\"{}\"", timestamp(BASE_MS + id)) };
    let text: String =
        (0..8000).map(|id| format!("{{\"id\":{id},\"device_id\":\"d\",\"ts\":{}}}\n", time(id))).collect();
    std::fs::write(work.join("sensor.ndjson"), text).expect("writable");
    for window in [
        "TUMBLE(TABLE sensor, DESCRIPTOR(ts), INTERVAL '1' MINUTE)",
        "SESSION(TABLE sensor PARTITION BY device_id, DESCRIPTOR(ts), INTERVAL '1' MINUTE)",
    ] {
        for parallelism in ["1", "3"] {
            let sql = job("memory", window, "");
            let args = ["-p", parallelism, "--summary-json", "summary.json"];
            let done = Run::sql(work, &sql).args(&args).done().success();
            let found = objects(&done.stdout);
            assert_eq!((found.len(), &found[0]["n"]), (1, &6000.into()), "{window} at {parallelism}");
            let summary = json(&work.join("summary.json"));
            assert_eq!((&summary["null_time_rows"], &summary["late_rows"]), (&2000.into(), &0.into()), "{summary}");
        }
    }
}
