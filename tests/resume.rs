//! A job goes on from a checkpoint at another parallelism, in another state directory, on another state backend: what
//! it writes in all is what an uncut run writes.

use ef_tests::events::{Reading, readings, readings_ndjson, timestamp};
use ef_tests::rows::{Row, assert_same, directory, ndjson};
use ef_tests::seed::seed;
use ef_tests::table::json;
use ef_tests::{Done, Run};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Reads slowly enough to be cut in the middle: each row pays for a long checksum.
fn job(backend: &str) -> String {
    format!(
        "SET 'execution.checkpointing.interval' = '30 ms';
         SET 'state.backend' = '{backend}';
         CREATE TABLE sensor (device_id STRING, ts TIMESTAMP(3), `value` DOUBLE, WATERMARK FOR ts AS ts - INTERVAL '3' SECOND)
         WITH ('connector' = 'filesystem', 'path' = 'sensor', 'format' = 'json', 'source.split-size' = '100kb');
         CREATE TABLE result (device_id STRING, window_start TIMESTAMP(3), n BIGINT, mean DOUBLE)
         WITH ('connector' = 'filesystem', 'path' = 'result', 'format' = 'json');
         CREATE TABLE kept (device_id STRING, ts TIMESTAMP(3), `value` DOUBLE)
         WITH ('connector' = 'filesystem', 'path' = 'kept', 'format' = 'json');
         CREATE VIEW slow AS SELECT * FROM sensor WHERE MD5(REPEAT(device_id, 1000)) <> '';
         INSERT INTO result SELECT device_id, window_start, COUNT(*), AVG(`value`)
         FROM TABLE(TUMBLE(TABLE slow, DESCRIPTOR(ts), INTERVAL '1' SECOND)) GROUP BY device_id, window_start, window_end;
         INSERT INTO kept SELECT device_id, ts, `value` FROM slow;"
    )
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("writable");
    for entry in std::fs::read_dir(from).expect("readable").map(|entry| entry.expect("readable")) {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).expect("writable")),
        }
    }
}

/// The newest checkpoint below a state directory, relative to it.
fn newest_checkpoint(state: &Path) -> Option<PathBuf> {
    let entries = |folder: &Path| -> Vec<PathBuf> {
        let mut paths: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
        paths.sort();
        paths
    };
    let job = entries(&state.join("jobs")).pop()?;
    entries(&job.join("chk")).pop().filter(|checkpoint| checkpoint.join("manifest").exists())
}

/// What a run over two files left that was cut by Ctrl-C after its first checkpoints.
fn cut(readings: &[Reading], backend: &str, parallelism: &str) -> TempDir {
    for _ in 0..10 {
        let work = tempfile::tempdir().expect("a temporary directory");
        let done = try_cut(work.path(), readings, backend, parallelism);
        match done.code {
            Some(130) => return work,
            // On a machine with other things to do it may be through before we have seen a checkpoint.
            Some(0) => continue,
            code => panic!("exit code {code:?}: {}", done.stderr),
        }
    }
    panic!("no run was cut in ten attempts");
}

fn try_cut(work: &Path, readings: &[Reading], backend: &str, parallelism: &str) -> Done {
    std::fs::create_dir(work.join("sensor")).expect("writable");
    let half: [Vec<Reading>; 2] =
        [0, 1].map(|n| readings.iter().enumerate().filter(|(i, _)| i % 2 == n).map(|(_, r)| r.clone()).collect());
    for (name, rows) in ["a", "b"].iter().zip(half) {
        std::fs::write(work.join(format!("sensor/{name}.ndjson")), readings_ndjson(&rows)).expect("writable");
    }
    let args = ["--state-dir", "state", "-p", parallelism];
    let mut running = Run::sql(work, &job(backend)).args(&args).start().expect("efctl starts");
    let written = || !directory(&work.join("kept")).is_empty();
    running.until(|| newest_checkpoint(&work.join("state")).is_some() && written()).expect("a checkpoint comes");
    running.signal(libc::SIGINT);
    running.wait().expect("it stops")
}

fn assert_complete(what: &str, work: &Path, readings: &[Reading]) {
    let columns = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    let kept: Vec<Row> =
        readings.iter().map(|r| vec![format!("dev-{}", r.device), timestamp(r.ts), format!("{:?}", r.value)]).collect();
    let found = ndjson(&directory(&work.join("kept")), &columns(&["device_id", "ts", "value"]));
    assert_same(&format!("{what}, rows"), found, kept, 0.0);
    let mut windows: BTreeMap<(u32, i64), Vec<f64>> = BTreeMap::new();
    for r in readings {
        windows.entry((r.device, r.ts.div_euclid(1000) * 1000)).or_default().push(r.value);
    }
    let expected: Vec<Row> = windows
        .into_iter()
        .map(|((device, start), values)| {
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            vec![format!("dev-{device}"), timestamp(start), values.len().to_string(), format!("{mean:?}")]
        })
        .collect();
    let found = ndjson(&directory(&work.join("result")), &columns(&["device_id", "window_start", "n", "mean"]));
    assert_same(&format!("{what}, windows"), found, expected, 1e-9);
}

fn resume(what: &str, work: &Path, readings: &[Reading], backend: &str, args: &[&str]) {
    let done = Run::sql(work, &job(backend)).args(args).args(&["--summary-json", "summary.json"]).done();
    assert_eq!(done.code, Some(0), "{what}: {}", done.stderr);
    let summary = json(&work.join("summary.json"));
    assert!(summary["restored_epoch"].as_u64().is_some(), "{what}: {summary}");
    assert_eq!(summary["late_rows"], 0, "{what}: {summary}");
    assert_complete(what, work, readings);
}

#[test]
fn one_checkpoint_goes_on_at_any_parallelism_and_from_another_state_directory() {
    let seed = seed();
    let readings = readings(seed, 40_000, 50, 1, 2000);
    for (backend, parallelism) in [("memory", "1"), ("rocksdb", "1"), ("memory", "4")] {
        let origin = cut(&readings, backend, parallelism);
        let again = |what: &str, backend: &str, args: &[&str]| {
            let work = tempfile::tempdir().expect("a temporary directory");
            copy(origin.path(), work.path());
            let what = format!("EDGEFLOW_SEED={seed}, cut at {parallelism} on {backend}, {what}");
            resume(&what, work.path(), &readings, backend, args);
        };
        match (backend, parallelism) {
            (_, "1") => again("resumed at 4", backend, &["--state-dir", "state", "-p", "4"]),
            _ => again("resumed at 1", backend, &["--state-dir", "state", "-p", "1"]),
        }
        let checkpoint = newest_checkpoint(&origin.path().join("state")).expect("a checkpoint");
        let checkpoint = checkpoint.to_str().expect("text");
        again("restored elsewhere", backend, &["--state-dir", "other", "--restore", checkpoint, "-p", "2"]);
        // The restored state lies in the new directory whole: without the old one the job goes on as well.
        if parallelism == "1" {
            let other = if backend == "memory" { "rocksdb" } else { "memory" };
            again(&format!("resumed on {other}"), other, &["--state-dir", "state"]);
        }
    }
}

const BOUNDED: &str = "
CREATE TABLE numbers (n BIGINT) WITH ('connector' = 'datagen', 'fields.n.kind' = 'sequence', 'fields.n.start' = '1',
    'fields.n.end' = '1000');
CREATE TABLE result (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'result', 'format' = 'json');
INSERT INTO result SELECT n FROM numbers;";

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("readable").map(|entry| entry.expect("readable").file_name());
    let mut names: Vec<String> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn job_that_died_between_its_last_checkpoint_and_publishing_publishes_at_the_next_start() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let work = work.path();
    let run = || Run::sql(work, BOUNDED).args(&["--state-dir", "state"]).done().success();
    run();
    let result = work.join("result");
    let expected = directory(&result);
    assert_eq!(expected.lines().count(), 1000);
    // As a kill leaves it that comes right after the terminal manifest: nothing is renamed, nothing noted.
    let visible: Vec<String> = names(&result).into_iter().filter(|name| name.starts_with("part-")).collect();
    for name in names(&result) {
        match name.strip_suffix(".json") {
            Some(stem) => {
                std::fs::rename(result.join(&name), result.join(format!(".{stem}.inprogress"))).expect("ours")
            }
            None => std::fs::remove_file(result.join(&name)).expect("ours"),
        }
    }
    let job = work.join("state/jobs").join(names(&work.join("state/jobs")).pop().expect("a job"));
    std::fs::remove_dir_all(job.join("finished")).expect("it was noted");
    assert_eq!(directory(&result), "");
    run();
    assert_eq!(directory(&result), expected);
    assert_eq!(names(&result).into_iter().filter(|name| name.starts_with("part-")).collect::<Vec<_>>(), visible);
    let done = run();
    assert!(done.stderr.contains("finished already"), "{}", done.stderr);
    assert_eq!(directory(&result), expected);
}

#[test]
fn state_directory_may_hold_things_of_others() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let work = work.path();
    for path in ["work-projects", "jobs/.trash"] {
        std::fs::create_dir_all(work.join(path)).expect("writable");
        std::fs::write(work.join(path).join("kept"), "kept").expect("writable");
    }
    // Of a run that was killed.
    std::fs::create_dir(work.join(".edgeflow-work-left")).expect("writable");
    Run::sql(work, BOUNDED).args(&["--state-dir", "."]).done().success();
    assert_eq!(std::fs::read_to_string(work.join("work-projects/kept")).expect("still there"), "kept");
    assert_eq!(std::fs::read_to_string(work.join("jobs/.trash/kept")).expect("still there"), "kept");
    let left: Vec<String> = names(work).into_iter().filter(|name| name.starts_with(".edgeflow-work-")).collect();
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn job_stops_when_nobody_reads_what_it_says() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let work = work.path();
    let endless =
        BOUNDED.replace("'fields.n.end' = '1000'", "'fields.n.end' = '100000000', 'rows-per-second' = '1000'");
    for (signal, state) in [(libc::SIGTERM, "terminated"), (libc::SIGHUP, "hung-up")] {
        // Neither does anybody read its log, which has much to say.
        let run = Run::sql(work, &endless).args(&["--state-dir", state]).env("RUST_LOG", "trace");
        let mut running = run.unheard().start().expect("efctl starts");
        // Its handlers are in place before it touches the disk.
        running.until(|| work.join(state).exists()).expect("it starts");
        running.signal(signal);
        assert_eq!(running.wait().expect("it ends").code, Some(130));
    }
}
