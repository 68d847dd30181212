//! Rows that cannot be decoded: by default the job stops with file, line and reason; an error table gets them, with
//! the same; `ignore-parse-errors` makes bad fields NULL, skips what is no record, and counts both. The other rows are all there.

use ef_tests::Run;
use ef_tests::rows::{Row, assert_same, directory, ndjson};
use ef_tests::seed::seed;
use ef_tests::table::{json, objects};
use flate2::write::GzEncoder;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

const ROWS: usize = 20_000;

/// (line from 1, its text without the end, what the reason says)
type Bad = (usize, String, &'static str);

fn stream(seed: u64) -> (String, Vec<Row>, Vec<Bad>) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let (mut text, mut good, mut bad) = (String::new(), Vec::new(), Vec::new());
    for line in 1..=ROWS {
        let v = rng.random_range(-99..99);
        let (row, reason) = match rng.random_range(0..500) {
            0 => (format!(r#"{{"id":{line},"v":{v}"#), ""),
            1 => (format!(r#"{{"id":{line},"v":"high"}}"#), "`v`"),
            2 => (format!(r#"{{"id":{line}.5,"v":{v}}}"#), "`id`"),
            3 => ("# not a row at all".to_string(), ""),
            4 => (format!(r#"{{"v":{v}}}"#), "`id`"),
            _ => (format!(r#"{{"id":{line},"v":{v}}}"#), "good"),
        };
        if reason == "good" {
            good.push(vec![line.to_string(), v.to_string()]);
        } else {
            bad.push((line, row.clone(), reason.trim_matches('`')));
        }
        text.push_str(&row);
        text.push('\n');
    }
    (text, good, bad)
}

fn job(path: &str, more: &str) -> String {
    format!(
        "CREATE TABLE dead (table_name STRING, file STRING, line BIGINT, raw STRING, error STRING, note STRING)
           WITH ('connector' = 'filesystem', 'path' = 'dead', 'format' = 'json');
         CREATE TABLE sensor (id BIGINT NOT NULL, v INT)
           WITH ('connector' = 'filesystem', 'path' = '{path}', 'format' = 'json', 'source.split-size' = '20kb' {more});
         SELECT id, v FROM sensor;"
    )
}

fn columns() -> Vec<String> {
    ["id", "v"].map(String::from).into()
}

fn plain_and_packed(work: &Path, text: &str) {
    std::fs::write(work.join("sensor.ndjson"), text).expect("writable");
    let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).expect("memory");
    std::fs::write(work.join("sensor.ndjson.gz"), gzip.finish().expect("memory")).expect("writable");
}

#[test]
fn the_error_table_gets_each_bad_row_with_file_line_and_reason() {
    let seed = seed();
    let (text, good, bad) = stream(seed);
    assert!(bad.len() > 20, "EDGEFLOW_SEED={seed}");
    let work = tempfile::tempdir().expect("a temporary directory");
    let work = work.path();
    plain_and_packed(work, &text);
    for (path, parallelism) in [("sensor.ndjson", "1"), ("sensor.ndjson", "4"), ("sensor.ndjson.gz", "2")] {
        let what = format!("EDGEFLOW_SEED={seed}, {path} at parallelism {parallelism}");
        let sql = job(path, ", 'error.table' = 'dead'");
        let done = Run::sql(work, &sql).args(&["-p", parallelism, "--summary-json", "summary.json"]).done().success();
        assert_same(&what, ndjson(&done.stdout, &columns()), good.clone(), 0.0);
        let dead = objects(&directory(&work.join("dead")));
        assert_eq!(dead.len(), bad.len(), "{what}");
        let by_line: BTreeMap<_, _> =
            dead.iter().map(|row| (row["line"].as_u64().expect("a line") as usize, row)).collect();
        for (line, raw, reason) in &bad {
            let Some(row) = by_line.get(line) else { panic!("{what}: line {line} is missing: {raw}") };
            assert_eq!(row["table_name"], "sensor", "{what}");
            assert_eq!(row["file"], path, "{what}");
            assert_eq!(row["raw"], raw.as_str(), "{what}");
            let error = row["error"].as_str().expect("a reason");
            assert!(!error.is_empty() && error.contains(reason), "{what}: `{error}` does not say `{reason}`");
            assert!(row["note"].is_null(), "{what}");
        }
        let summary = json(&work.join("summary.json"));
        assert_eq!(summary["failed_rows"], bad.len(), "{what}");
        std::fs::remove_dir_all(work.join("dead")).expect("written");
    }
}

#[test]
fn ignored_parse_errors_are_null_fields_or_skipped_rows_and_counted() {
    let seed = seed();
    let (text, mut good, bad) = stream(seed);
    // `v` may be NULL, `id` may not.
    let (nulled, bad): (Vec<_>, Vec<_>) = bad.into_iter().partition(|(.., reason)| *reason == "v");
    good.extend(nulled.iter().map(|(line, ..)| vec![line.to_string(), String::new()]));
    let work = tempfile::tempdir().expect("a temporary directory");
    let work = work.path();
    plain_and_packed(work, &text);
    let sql = job("sensor.ndjson", ", 'json.ignore-parse-errors' = 'true'");
    let done = Run::sql(work, &sql).args(&["-p", "4", "--summary-json", "summary.json"]).done().success();
    let what = format!("EDGEFLOW_SEED={seed}");
    assert_same(&what, ndjson(&done.stdout, &columns()), good.clone(), 0.0);
    let summary = json(&work.join("summary.json"));
    assert_eq!(summary["failed_rows"], bad.len(), "{what}");
    assert_eq!(summary["failed_fields"], nulled.len(), "{what}");
    let first = summary["failed_field"].as_str().expect("at least one");
    assert!(first.contains("sensor.ndjson line") && first.contains("\"v\""), "{what}: {first}");
    assert_eq!(summary["sources"][0]["rows"], good.len(), "{what}");
}

#[test]
fn by_default_a_bad_row_stops_the_job_with_its_place() {
    let seed = seed();
    // Far behind the first split.
    let line = SmallRng::seed_from_u64(seed).random_range(ROWS / 2..ROWS);
    let row = |i: usize| format!("{{\"id\":{i},\"v\":{}}}\n", if i == line { "\"high\"" } else { "1" });
    let work = tempfile::tempdir().expect("a temporary directory");
    let work = work.path();
    plain_and_packed(work, &(1..=ROWS).map(row).collect::<String>());
    for (path, parallelism) in [("sensor.ndjson", "1"), ("sensor.ndjson", "4"), ("sensor.ndjson.gz", "1")] {
        let what = format!("EDGEFLOW_SEED={seed}, {path} at parallelism {parallelism}");
        let args = ["-p", parallelism, "--summary-json", "summary.json"];
        let done = Run::sql(work, &job(path, "")).args(&args).done();
        assert_eq!(done.code, Some(1), "{what}: {}", done.stderr);
        let error = done.stderr.lines().find(|line| line.starts_with("error:")).unwrap_or_default();
        for word in ["sensor", path, &format!("line {line}"), "v"] {
            assert!(error.contains(word), "{what}: `{error}` does not say `{word}`");
        }
        assert!(done.stdout.lines().count() < ROWS, "{what}");
        assert_eq!(json(&work.join("summary.json"))["status"], "failed", "{what}");
    }
}

#[test]
fn csv_counts_lines_over_quoted_newlines() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let text = "id,note\n1,\"two\nlines\"\nx,bad\n2,good\n3,too,many\n4,\"unclosed\n";
    std::fs::write(work.path().join("in.csv"), text).expect("writable");
    let sql = "CREATE TABLE dead (line BIGINT, raw STRING, error STRING) WITH ('connector' = 'print');
               CREATE TABLE t (id BIGINT, note STRING) WITH ('connector' = 'filesystem', 'path' = 'in.csv', 'format' = 'csv',
                 'csv.header' = 'true', 'error.table' = 'dead');
               CREATE TABLE result (id BIGINT, note STRING) WITH ('connector' = 'filesystem', 'path' = 'result', 'format' = 'json');
               INSERT INTO result SELECT * FROM t;";
    let done = Run::sql(work.path(), sql).done().success();
    let columns = ["id", "note"].map(String::from);
    let expected = [["1", "two\nlines"], ["2", "good"]].map(|row| row.map(String::from).to_vec());
    assert_same("good rows", ndjson(&directory(&work.path().join("result")), &columns), expected.to_vec(), 0.0);
    for dead in ["+I[4, x,bad, ", "+I[6, 3,too,many, ", "+I[7, 4,\"unclosed"] {
        assert!(done.stdout.contains(dead), "`{dead}` is not in {}", done.stdout);
    }
}
