//! Checkpoints in S3: a killed job goes on from them; nothing unreachable is left behind; an outage costs checkpoints
//! and no rows; what is not safe or not reachable is refused at the start, without telling the secret.

use ef_tests::events::{readings, readings_ndjson};
use ef_tests::rows::directory;
use ef_tests::s3::{BUCKET, SECRET_KEY, Server};
use ef_tests::seed::seed;
use ef_tests::{Run, Running};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::path::Path;
use std::time::{Duration, Instant};

/// A few seconds of rows at the speed that is given, the same ones at every speed.
const JOB: &str = "
SET 'execution.checkpointing.interval' = '200 ms';
SET 'execution.checkpointing.tolerable-failed-checkpoints' = '100000';
SET 'state.backend' = '${backend}';
SET 'state.store.retry-timeout' = '${patience}';
CREATE TABLE sensor (device INT, ts TIMESTAMP(3), `value` BIGINT, WATERMARK FOR ts AS ts - INTERVAL '3' SECOND)
WITH ('connector' = 'datagen', 'number-of-rows' = '400000', 'rows-per-second' = '${speed}', 'seed' = '51',
      'fields.device.min' = '0', 'fields.device.max' = '199', 'fields.value.min' = '0', 'fields.value.max' = '1000',
      'fields.ts.event-time.start' = '2026-03-14 00:00:00', 'fields.ts.event-time.step' = '1 ms',
      'fields.ts.event-time.max-disorder' = '2 s');
CREATE TABLE result (device INT, window_start TIMESTAMP(3), n BIGINT, total BIGINT)
WITH ('connector' = 'filesystem', 'path' = '${out}', 'format' = 'json');
INSERT INTO result SELECT device, window_start, COUNT(*), SUM(`value`)
FROM TABLE(TUMBLE(TABLE sensor, DESCRIPTOR(ts), INTERVAL '1' SECOND)) GROUP BY device, window_start, window_end;";

/// A job that follows a directory until it is stopped.
const FOLLOW: &str = "
SET 'execution.checkpointing.interval' = '200 ms';
SET 'state.store.retry-timeout' = '10 s';
CREATE TABLE sensor (device_id STRING, ts TIMESTAMP(3), `value` DOUBLE)
WITH ('connector' = 'filesystem', 'path' = 'sensor', 'format' = 'json', 'source.monitor-interval' = '20 ms');
CREATE TABLE result (device_id STRING, ts TIMESTAMP(3))
WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');
INSERT INTO result SELECT device_id, ts FROM sensor;";

/// Reads one row.
const ONE_ROW: &str =
    "CREATE TABLE one (a INT) WITH ('connector' = 'datagen', 'number-of-rows' = '1'); SELECT a FROM one;";

fn sorted(path: &Path) -> Vec<String> {
    let mut lines: Vec<String> = directory(path).lines().map(String::from).collect();
    lines.sort();
    lines
}

fn at(server: &Server, work: &Path, sql: &str, prefix: &str) -> Run {
    let url = format!("s3://{BUCKET}/{prefix}");
    let run = Run::sql(work, &format!("{}{sql}", server.options())).args(&["--state-dir", &url]);
    server.environment().iter().fold(run, |run, (key, value)| run.env(key, value))
}

fn start(server: &Server, work: &Path, backend: &str, out: &str, patience: &str) -> Running {
    let defines = [("backend", backend), ("out", out), ("patience", patience), ("speed", "60000")];
    let defines = defines.map(|(key, value)| format!("{key}={value}"));
    let run = at(server, work, JOB, &format!("edge/{out}")).args(&["-p", "2", "--summary-json", "summary.json"]);
    defines.iter().fold(run, |run, define| run.args(&["-D", define])).start().expect("efctl starts")
}

/// The output of a run that nothing disturbs.
fn undisturbed(work: &Path) -> Vec<String> {
    let args = ["-D", "backend=memory", "-D", "out=undisturbed", "-D", "patience=1 s", "-D", "speed=100000000"];
    Run::sql(work, JOB).args(&args).done().success();
    let expected = sorted(&work.join("undisturbed"));
    assert!(expected.len() > 10_000, "the job must write enough to lose some");
    expected
}

/// The objects below this prefix that no retained manifest names, but for what is never deleted.
fn unreachable(server: &Server, prefix: &str) -> Vec<String> {
    let below: Vec<String> = server.objects().into_iter().filter(|key| key.starts_with(prefix)).collect();
    let manifests: Vec<Vec<u8>> = below
        .iter()
        .filter(|key| key.ends_with("/manifest"))
        .map(|key| std::fs::read(server.file(key)).expect("readable"))
        .collect();
    assert_eq!(manifests.len(), 1, "one checkpoint is retained: {below:?}");
    let named = |path: &str| manifests.iter().any(|m| m.windows(path.len()).any(|bytes| bytes == path.as_bytes()));
    below
        .into_iter()
        .filter(|key| {
            // `<prefix>/jobs/<job>/<path>`; a manifest names files by their path.
            let path = key[prefix.len()..].splitn(3, '/').nth(2).unwrap_or(key);
            let kept = path.starts_with("incarnations/")
                || path.starts_with("finished/")
                || path == "job.json"
                || path.starts_with("chk/");
            !kept && !named(path)
        })
        .collect()
}

#[test]
fn killed_job_goes_on_from_s3_and_leaves_only_reachable_objects() {
    let seed = seed();
    let mut rng = SmallRng::seed_from_u64(seed);
    let work = tempfile::tempdir().expect("a temporary directory");
    let work = work.path();
    let expected = undisturbed(work);
    let server = Server::start();
    for backend in ["memory", "rocksdb"] {
        let mut kills = 0;
        while kills < 5 {
            let mut running = start(&server, work, backend, backend, "30 s");
            // A kill before the first checkpoint of a run would test nothing.
            let newest = |server: &Server| server.objects().into_iter().rfind(|key| key.ends_with("/manifest"));
            let before = newest(&server);
            running.until(|| newest(&server) > before).expect("a checkpoint comes, or the job ends");
            let until = Instant::now() + Duration::from_millis(rng.random_range(0..400));
            running.until(|| Instant::now() >= until).expect("it runs or ends");
            if running.ended() {
                break;
            }
            running.signal(libc::SIGKILL);
            running.wait().expect("killed");
            kills += 1;
        }
        assert!(kills > 0, "EDGEFLOW_SEED={seed} on {backend}: the job ended before it could be killed");
        start(&server, work, backend, backend, "30 s").wait().expect("efctl runs").success();
        let found = sorted(&work.join(backend));
        assert!(found == expected, "EDGEFLOW_SEED={seed} on {backend}: {} lines, {}", found.len(), expected.len());
        let left = unreachable(&server, &format!("edge/{backend}/"));
        assert!(left.is_empty(), "EDGEFLOW_SEED={seed} on {backend}, after {kills} kills: {left:?}");
    }
}

#[test]
fn outage_of_the_store_costs_checkpoints_and_no_rows() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let work = work.path();
    let expected = undisturbed(work);
    let mut server = Server::start();
    let mut running = start(&server, work, "rocksdb", "out", "500 ms");
    running.until(|| server.objects().iter().any(|key| key.ends_with("/manifest"))).expect("a checkpoint comes");
    assert!(!running.ended(), "the outage must come before the end");
    server.down();
    let failed = || std::fs::read_to_string(work.join(".stderr")).is_ok_and(|text| text.contains("checkpoint failed"));
    running.until(failed).expect("a checkpoint fails");
    assert!(!running.ended(), "one failed checkpoint is not the end");
    server.up();
    running.wait().expect("it goes on").success();
    assert!(sorted(&work.join("out")) == expected, "rows were lost or came twice");
    let summary = std::fs::read_to_string(work.join("summary.json")).expect("written");
    let summary: serde_json::Value = serde_json::from_str(&summary).expect("JSON");
    assert!(summary["checkpoints"]["failed"].as_u64() >= Some(1), "{summary}");
}

#[test]
fn second_process_takes_the_job_over_and_the_first_leaves() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let work = work.path();
    std::fs::create_dir(work.join("sensor")).expect("writable");
    std::fs::write(work.join("sensor/a.ndjson"), readings_ndjson(&readings(52, 5000, 10, 1, 500))).expect("writable");
    std::fs::create_dir(work.join("out")).expect("writable");
    let server = Server::start();
    let newest = |server: &Server| server.objects().into_iter().rfind(|key| key.ends_with("/manifest"));
    let mut first = at(&server, work, FOLLOW, "edge").start().expect("efctl starts");
    first.until(|| newest(&server).is_some()).expect("a checkpoint comes");
    // Same state, same input and output, another directory for what it prints.
    let second = work.join("second");
    std::fs::create_dir(&second).expect("writable");
    for name in ["sensor", "out"] {
        std::os::unix::fs::symlink(work.join(name), second.join(name)).expect("writable");
    }
    let mut second = at(&server, &second, FOLLOW, "edge").start().expect("efctl starts");
    let first = first.wait().expect("it leaves");
    assert_eq!(first.code, Some(1), "{}", first.stderr);
    assert!(first.stderr.contains("another process"), "{}", first.stderr);
    let before = newest(&server);
    second.until(|| newest(&server) > before).expect("a checkpoint comes");
    second.signal(libc::SIGINT);
    let second = second.wait().expect("it stops");
    assert_eq!(second.code, Some(130), "{}", second.stderr);
}

#[test]
fn server_that_ignores_conditions_is_refused() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start_ignoring_conditions();
    let done = at(&server, work.path(), ONE_ROW, "edge").done();
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains("If-None-Match") && done.stderr.contains("s3://states/edge"), "{}", done.stderr);
    assert_eq!(server.objects(), Vec::<String>::new(), "the probe leaves nothing");
}

#[test]
fn wrong_access_is_told_in_one_line_without_the_secret() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let mut server = Server::start();
    let sql = ONE_ROW;
    let endpoint = server.options();
    let plain = format!("SET 'state.store.secret-key' = '{SECRET_KEY}';{sql}");
    let elsewhere = format!("SET 'state.store.endpoint' = 'http://minio.example:9000';{sql}");
    let url = format!("s3://{BUCKET}/edge");
    let with_user = format!("s3://{SECRET_KEY}@{BUCKET}/edge");
    // Each in its own directory: the SQL of a run lies there until it is started.
    let folder = |name: &str| {
        let folder = work.path().join(name);
        std::fs::create_dir(&folder).expect("writable");
        folder
    };
    let run = |name: &str, sql: &str, url: &str| Run::sql(&folder(name), sql).args(&["--state-dir", url]);
    let with_keys = |name: &str, url: &str| {
        let run = run(name, &format!("{endpoint}{sql}"), url);
        server.environment().iter().fold(run, |run, (key, value)| run.env(key, value))
    };
    let cases = [
        ("wrong secret", with_keys("wrong", &url).env("EF_TEST_SECRET", "wrong"), 1, "Signature"),
        ("unknown key", with_keys("unknown", &url).env("EF_TEST_ACCESS", "nobody"), 1, "403"),
        ("missing variable", run("variable", &format!("{endpoint}{sql}"), &url), 1, "EF_TEST_ACCESS"),
        ("secret in SQL", run("plain", &plain, &url), 2, "env:NAME"),
        ("secret in the URL", run("user", sql, &with_user), 1, "state.store.secret-key"),
        ("http elsewhere", run("http", &elsewhere, &url), 1, "state.store.allow-http"),
        ("missing bucket", with_keys("bucket", "s3://no-such-bucket/x"), 1, "NoSuchBucket"),
    ];
    let down = with_keys("down", &url);
    let check = |name: &str, run: Run, code: i32, says: &str| {
        let done = run.done();
        assert_eq!(done.code, Some(code), "{name}: {}", done.stderr);
        assert!(done.stderr.contains(says), "{name}: `{says}` expected in\n{}", done.stderr);
        assert_eq!(done.stderr.lines().filter(|line| line.starts_with("error:")).count(), 1, "{name}: {}", done.stderr);
        assert!(!done.stderr.contains(SECRET_KEY) && !done.stdout.contains(SECRET_KEY), "{name}: {}", done.stderr);
        if code == 1 {
            assert_eq!(done.stderr.trim().lines().count(), 1, "{name}: {}", done.stderr);
        }
    };
    for (name, run, code, says) in cases {
        check(name, run, code, says);
    }
    server.down();
    check("nobody there", down, 1, "refused");
}

#[test]
fn checkpoint_in_s3_is_restored_by_its_url() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let work = work.path();
    let server = Server::start();
    let define = ["-D", "backend=rocksdb", "-D", "patience=10 s", "-D", "speed=100000000", "-D"];
    at(&server, work, JOB, "old").args(&define).arg("out=out").done().success();
    assert_eq!(unreachable(&server, "old/"), Vec::<String>::new());
    let stray = server.objects()[0].rsplit_once("/chk/").map_or("old/jobs/x".into(), |(root, _)| root.to_string());
    let stray = format!("{stray}/shared/00000000000000000001-00000000000000000001-stray.sst");
    std::fs::create_dir_all(server.file(&stray).parent().expect("below the bucket")).expect("writable");
    std::fs::write(server.file(&stray), "nobody's").expect("writable");
    assert!(unreachable(&server, "old/") == [stray.as_str()], "the check sees what is left behind");
    std::fs::remove_file(server.file(&stray)).expect("writable");
    let objects = server.objects();
    let manifest = objects.iter().find(|key| key.ends_with("/manifest")).expect("a checkpoint");
    let first = sorted(&work.join("out"));
    assert!(!first.is_empty());
    // Into another prefix, and into a directory: nothing is left to do, and the state comes along.
    let url = format!("s3://{BUCKET}/{manifest}");
    at(&server, work, JOB, "new").args(&define).args(&["out=out", "--restore", &url]).done().success();
    let sql = format!("{}{JOB}", server.options());
    let run = Run::sql(work, &sql).args(&define).args(&["out=out", "--restore", &url, "--state-dir", "state"]);
    server.environment().iter().fold(run, |run, (key, value)| run.env(key, value)).done().success();
    assert_eq!(sorted(&work.join("out")), first);
}
