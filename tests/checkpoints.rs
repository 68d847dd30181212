//! Checkpoints of `efctl run`: Ctrl-C takes a last one and exits with 130, the next run goes on from it; `--restore`
//! and `--fresh` do what they say; old checkpoints and their files go.

use ef_tests::events::{readings, readings_ndjson};
use ef_tests::rows::directory;
use ef_tests::{Done, Run};
use std::path::{Path, PathBuf};

const JOB: &str = "
SET 'execution.checkpointing.interval' = '50 ms';
SET 'state.checkpoints.num-retained' = '2';
CREATE TABLE sensor (device_id STRING, ts TIMESTAMP(3), `value` DOUBLE, WATERMARK FOR ts AS ts - INTERVAL '3' SECOND)
WITH ('connector' = 'filesystem', 'path' = 'sensor', 'format' = 'json', 'source.monitor-interval' = '20 ms');
CREATE TABLE result (device_id STRING, window_start TIMESTAMP(3), n BIGINT)
WITH ('connector' = 'filesystem', 'path' = 'result', 'format' = 'json');
INSERT INTO result SELECT device_id, window_start, COUNT(*)
FROM TABLE(TUMBLE(TABLE sensor, DESCRIPTOR(ts), INTERVAL '1' SECOND)) GROUP BY device_id, window_start, window_end;";

fn manifests(state: &Path) -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.file_name().is_some_and(|name| name == "manifest") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(state, &mut found);
    found.sort();
    found
}

fn lines(path: &Path) -> usize {
    directory(path).lines().count()
}

/// Runs the following job until `enough`, then interrupts it.
fn follow(work: &Path, args: &[&str], enough: impl Fn() -> bool) -> Done {
    let mut running = Run::sql(work, JOB).args(&["--state-dir", "state"]).args(args).start().expect("efctl starts");
    running.until(enough).expect("the job gets that far");
    running.signal(libc::SIGINT);
    running.wait().expect("it stops")
}

#[test]
fn interrupted_job_exits_with_130_and_goes_on_where_it_was() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let work = work.path();
    std::fs::create_dir(work.join("sensor")).expect("writable");
    let all = readings(41, 60_000, 10, 1, 500);
    let (first, second) = all.split_at(30_000);
    let put = |name: &str, text: String| {
        // Appears in one step, as the source expects of new files.
        std::fs::write(work.join(name), text).expect("writable");
        std::fs::rename(work.join(name), work.join("sensor").join(name)).expect("same disk");
    };
    put("a.ndjson", readings_ndjson(first));
    let done = follow(work, &[], || lines(&work.join("result")) >= 200);
    assert_eq!(done.code, Some(130), "{}", done.stderr);
    let before = lines(&work.join("result"));
    put("b.ndjson", readings_ndjson(second));
    let done = follow(work, &[], || lines(&work.join("result")) >= before + 200);
    assert_eq!(done.code, Some(130), "{}", done.stderr);
    // Each window once, with all its rows: windows that closed hold 1000 rows of 10 devices.
    let mut counts = std::collections::BTreeMap::new();
    for line in directory(&work.join("result")).lines() {
        let row: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let key = (row["device_id"].to_string(), row["window_start"].to_string());
        assert_eq!(counts.insert(key, row["n"].as_i64().expect("a count")), None, "a window came twice: {line}");
    }
    let mut per_second = std::collections::BTreeMap::new();
    for reading in &all {
        let second = ef_tests::events::timestamp(reading.ts.div_euclid(1000) * 1000);
        *per_second.entry((format!("\"dev-{}\"", reading.device), format!("\"{second}\""))).or_insert(0i64) += 1;
    }
    for (key, n) in &counts {
        assert_eq!(per_second[key], *n, "window {key:?}");
    }
    assert!(manifests(&work.join("state")).len() <= 3, "two are retained, one may be on its way out");
}

#[test]
fn nothing_is_written_twice_and_fresh_starts_empty() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let work = work.path();
    std::fs::create_dir(work.join("sensor")).expect("writable");
    std::fs::write(work.join("sensor/a.ndjson"), readings_ndjson(&readings(42, 30_000, 10, 1, 500))).expect("writable");
    assert_eq!(follow(work, &[], || lines(&work.join("result")) >= 200).code, Some(130));
    let kept = work.join("kept");
    let newest = manifests(&work.join("state")).pop().expect("a checkpoint");
    let first = lines(&work.join("result"));
    // From the last checkpoint nothing is left to do: interrupted after a checkpoint more, no row is written again.
    let done = follow(work, &[], || manifests(&work.join("state")).pop().as_ref() > Some(&newest));
    assert_eq!(done.code, Some(130), "{}", done.stderr);
    assert_eq!(lines(&work.join("result")), first);
    // Fresh reads everything again.
    std::fs::rename(work.join("result"), &kept).expect("same disk");
    let done = follow(work, &["--fresh"], || lines(&work.join("result")) >= 200);
    assert_eq!(done.code, Some(130), "{}", done.stderr);
    assert!(lines(&work.join("result")) >= 200);
}

#[test]
fn finished_job_has_nothing_left_to_do() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let work = work.path();
    std::fs::create_dir(work.join("sensor")).expect("writable");
    std::fs::write(work.join("sensor/a.ndjson"), readings_ndjson(&readings(43, 5000, 10, 1, 500))).expect("writable");
    let job = JOB.replace(", 'source.monitor-interval' = '20 ms'", "");
    let run = || Run::sql(work, &job).args(&["--state-dir", "state"]).done().success();
    run();
    let first = lines(&work.join("result"));
    assert!(first > 0);
    let again = run();
    assert!(again.stderr.contains("finished already"), "{}", again.stderr);
    assert_eq!(lines(&work.join("result")), first);
}

#[test]
fn two_runs_do_not_share_a_state_directory() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let work = work.path();
    std::fs::create_dir(work.join("sensor")).expect("writable");
    std::fs::write(work.join("sensor/a.ndjson"), readings_ndjson(&readings(44, 30_000, 10, 1, 500))).expect("writable");
    let mut first = Run::sql(work, JOB).args(&["--state-dir", "state"]).start().expect("efctl starts");
    first.until(|| !manifests(&work.join("state")).is_empty()).expect("a checkpoint comes");
    // A directory of its own for what it prints; the same state directory.
    std::fs::create_dir(work.join("second")).expect("writable");
    let second = Run::sql(&work.join("second"), JOB).args(&["--state-dir", "../state"]).done();
    assert_eq!(second.code, Some(1), "{}", second.stderr);
    assert!(second.stderr.contains("state"), "{}", second.stderr);
    first.signal(libc::SIGINT);
    assert_eq!(first.wait().expect("it stops").code, Some(130));
}
