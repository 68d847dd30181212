//! Queries that update their rows: the changes that leave add up to the table that a naive recomputation gives, and
//! of several updates of a key in one batch only the last leaves.

use ef_tests::Run;
use ef_tests::events::{Reading, readings, readings_ndjson};
use ef_tests::rows::{Row, assert_same, directory};
use ef_tests::seed::seed;
use ef_tests::table::{Object, add_up, changes, objects};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const ROWS: usize = 30_000;
const SETTINGS: [(&str, &str); 3] = [("1", "memory"), ("4", "memory"), ("4", "rocksdb")];

const SENSOR: &str = "
CREATE TABLE sensor (device_id STRING, ts TIMESTAMP(3), `value` DOUBLE)
WITH ('connector' = 'filesystem', 'path' = 'sensor.ndjson', 'format' = 'json', 'source.split-size' = '100kb');";

fn by_device(readings: &[Reading]) -> BTreeMap<u32, Vec<f64>> {
    let mut devices: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    for reading in readings {
        devices.entry(reading.device).or_default().push(reading.value);
    }
    devices
}

/// Values as text, in the order of `columns`.
#[track_caller]
fn rows(objects: Vec<Object>, columns: &[&str]) -> Vec<Row> {
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), String::from);
    let row = |object: Object| {
        assert_eq!(
            object.keys().collect::<BTreeSet<_>>(),
            columns.iter().map(|c| c.to_string()).collect::<Vec<_>>().iter().collect()
        );
        columns.iter().map(|column| text(&object[*column])).collect()
    };
    objects.into_iter().map(row).collect()
}

fn input(work: &Path, readings: &[Reading]) {
    std::fs::write(work.join("sensor.ndjson"), readings_ndjson(readings)).expect("writable");
}

/// Runs a query of `SENSOR` in all settings and compares what its changes add up to.
fn check(query: &str, seed: u64, readings: &[Reading], columns: &[&str], expected: &[Row]) {
    let work = tempfile::tempdir().expect("a temporary directory");
    input(work.path(), readings);
    for (parallelism, backend) in SETTINGS {
        let what = format!("EDGEFLOW_SEED={seed} at parallelism {parallelism} on {backend}: {query}");
        let sql = format!("SET 'state.backend' = '{backend}';{SENSOR}{query}");
        let done = Run::sql(work.path(), &sql).args(&["-p", parallelism]).done().success();
        let changes = changes(&done.stdout);
        let table = add_up(changes).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_same(&what, rows(table, columns), expected.to_vec(), 1e-9);
    }
}

#[test]
fn changes_of_a_group_by_add_up_to_its_table() {
    let seed = seed();
    let readings = readings(seed, ROWS, 50, 1, 500);
    let expected: Vec<Row> = by_device(&readings)
        .into_iter()
        .map(|(device, values)| {
            let sum: f64 = values.iter().sum();
            let most = values.iter().copied().fold(f64::MIN, f64::max);
            let high = values.iter().filter(|v| **v > 100.0).count();
            let mean = sum / values.len() as f64;
            vec![
                format!("dev-{device}"),
                values.len().to_string(),
                format!("{mean:?}"),
                format!("{most:?}"),
                high.to_string(),
            ]
        })
        .collect();
    // Names with and without AS.
    let query = "SELECT device_id, COUNT(*) n, AVG(`value`) AS mean, MAX(`value`) AS most, \
                 COUNT(*) FILTER (WHERE `value` > 100) AS high FROM sensor GROUP BY device_id;";
    check(query, seed, &readings, &["device_id", "n", "mean", "most", "high"], &expected);
}

#[test]
fn a_group_by_over_a_changelog_takes_back_what_it_counted() {
    let seed = seed();
    let readings = readings(seed, ROWS, 200, 1, 500);
    let mut sizes: BTreeMap<usize, (u64, u32)> = BTreeMap::new();
    for (device, values) in by_device(&readings) {
        let size = sizes.entry(values.len()).or_insert((0, 0));
        *size = (size.0 + 1, size.1.max(device));
    }
    let expected: Vec<Row> = sizes
        .into_iter()
        .map(|(n, (devices, last))| vec![n.to_string(), devices.to_string(), last.to_string()])
        .collect();
    let query = "SELECT n, COUNT(*) AS devices, MAX(device) AS last FROM (SELECT CAST(SUBSTRING(device_id FROM 5) AS INT) AS device, COUNT(*) AS n \
                 FROM sensor GROUP BY device_id) GROUP BY n;";
    check(query, seed, &readings, &["n", "devices", "last"], &expected);
}

#[test]
fn a_filter_over_a_changelog_keeps_the_rows_that_pass_in_the_end() {
    let seed = seed();
    // One device gets half of the rows, so that it alone passes.
    let mut readings = readings(seed, ROWS, 20, 1, 500);
    readings.iter_mut().step_by(2).for_each(|r| r.device = 7);
    let least = ROWS / 3;
    let counts = by_device(&readings).into_iter().map(|(device, values)| (device, values.len()));
    let expected: Vec<Row> =
        counts.filter(|(_, n)| *n > least).map(|(device, n)| vec![format!("dev-{device}"), n.to_string()]).collect();
    assert_eq!(expected.len(), 1);
    let query = format!("SELECT device_id, COUNT(*) AS n FROM sensor GROUP BY device_id HAVING COUNT(*) > {least};");
    check(&query, seed, &readings, &["device_id", "n"], &expected);
}

#[test]
fn select_distinct_gives_each_row_once() {
    let seed = seed();
    let readings = readings(seed, ROWS, 50, 1, 500);
    let distinct: BTreeSet<(String, i64)> =
        readings.iter().map(|r| (format!("dev-{}", r.device), (r.value / 100.0).floor() as i64)).collect();
    let expected: Vec<Row> = distinct.into_iter().map(|(device, hundred)| vec![device, hundred.to_string()]).collect();
    let query = "SELECT DISTINCT device_id, CAST(FLOOR(`value` / 100) AS BIGINT) AS hundred FROM sensor;";
    check(query, seed, &readings, &["device_id", "hundred"], &expected);
}

#[test]
fn updates_of_a_key_within_a_batch_leave_as_one() {
    let seed = seed();
    let work = tempfile::tempdir().expect("a temporary directory");
    input(work.path(), &readings(seed, ROWS, 5, 1, 500));
    let sql = format!("{SENSOR} SELECT device_id, COUNT(*) AS n FROM sensor GROUP BY device_id;");
    let done = Run::sql(work.path(), &sql).done().success();
    let found = done.stdout.lines().count();
    assert!((5..ROWS / 20).contains(&found), "EDGEFLOW_SEED={seed}: {found} changes of {ROWS} rows of 5 keys");
}

#[test]
fn a_changelog_goes_into_files_as_changelog_json() {
    let seed = seed();
    let readings = readings(seed, ROWS, 30, 1, 500);
    let work = tempfile::tempdir().expect("a temporary directory");
    input(work.path(), &readings);
    let sql = format!(
        "{SENSOR}
         CREATE TABLE totals (device STRING, n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'totals', 'format' = 'changelog-json');
         CREATE TABLE hot (device STRING, `value` DOUBLE) WITH ('connector' = 'filesystem', 'path' = 'hot', 'format' = 'changelog-json');
         INSERT INTO totals SELECT device_id, COUNT(*) FROM sensor GROUP BY device_id;
         INSERT INTO hot SELECT device_id, `value` FROM sensor WHERE `value` > 250;"
    );
    let done = Run::sql(work.path(), &sql).args(&["-p", "2"]).done().success();
    assert_eq!(done.stdout, "", "nothing goes to standard output");
    let read = |path: &str| -> Vec<(String, Object)> {
        let lines = objects(&directory(&work.path().join(path)));
        let change = |mut line: Object| {
            let data = line.remove("data").and_then(|data| data.as_object().cloned()).expect("`data`");
            let kind = line.remove("op").and_then(|op| Some(op.as_str()?.to_string())).expect("`op`");
            assert!(line.is_empty(), "{line:?}");
            (kind, data)
        };
        lines.into_iter().map(change).collect()
    };
    let totals: Vec<Row> = by_device(&readings)
        .into_iter()
        .map(|(device, values)| vec![format!("dev-{device}"), values.len().to_string()])
        .collect();
    let what = format!("EDGEFLOW_SEED={seed}");
    // Two subtasks write a file each; a key is always in the same one, so the order between files does not matter.
    let found = add_up(read("totals")).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_same(&what, rows(found, &["device", "n"]), totals, 0.0);
    let hot = read("hot");
    assert!(hot.iter().all(|(kind, _)| kind == "+I"), "{what}: rows that are only inserted are +I");
    let expected = readings.iter().filter(|r| r.value > 250.0);
    let expected = expected.map(|r| vec![format!("dev-{}", r.device), format!("{:?}", r.value)]).collect();
    assert_same(&what, rows(hot.into_iter().map(|(_, row)| row).collect(), &["device", "value"]), expected, 0.0);
}
