//! Tables in a real Redis: after kills of the job and of the server they hold what the changes of the query add up to.

use ef_tests::Run;
use ef_tests::events::{Reading, readings, readings_ndjson};
use ef_tests::seed::seed;
use ef_tests::servers::redis::{Options, Redis, Reply};
use ef_tests::wait;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// Every write is on its disk before its answer. None, and it is said, where the machine has no Redis.
#[track_caller]
fn start(password: Option<&'static str>) -> Option<Redis> {
    Redis::start("tables in Redis", Options { password, durable: true, ..Options::default() })
}

/// One command to a server that is there.
#[track_caller]
fn ask(redis: &Redis, words: &[&str]) -> Reply {
    redis.ask(words).expect("it answers")
}

/// What follows the prefix of each key.
fn keys(redis: &Redis, prefix: &str) -> Vec<String> {
    let keys = ask(redis, &["KEYS", &format!("{prefix}*")]).list();
    keys.into_iter().map(|key| key.text()[prefix.len()..].to_owned()).collect()
}

fn strings(redis: &Redis, prefix: &str) -> BTreeMap<String, String> {
    let value = |key: String| (key.clone(), ask(redis, &["GET", &format!("{prefix}{key}")]).text());
    keys(redis, prefix).into_iter().map(value).collect()
}

fn hashes(redis: &Redis, prefix: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let fields = |key: &str| -> BTreeMap<String, String> {
        let flat = ask(redis, &["HGETALL", &format!("{prefix}{key}")]).list();
        flat.chunks(2).map(|pair| (pair[0].clone().text(), pair[1].clone().text())).collect()
    };
    keys(redis, prefix).into_iter().map(|key| (key.clone(), fields(&key))).collect()
}

const SENSOR: &str = "
CREATE TABLE sensor (device_id STRING, ts TIMESTAMP(3), `value` DOUBLE)
WITH ('connector' = 'filesystem', 'path' = 'sensor.ndjson', 'format' = 'json', 'source.split-size' = '100kb');";

fn input(work: &Path, readings: &[Reading]) {
    std::fs::write(work.join("sensor.ndjson"), readings_ndjson(readings)).expect("writable");
}

/// A table in `redis`: `more` are its options besides the address.
fn table(redis: &Redis, name: &str, columns: &str, more: &str) -> String {
    format!(
        "CREATE TABLE {name} ({columns}) WITH ('connector' = 'redis', 'url' = 'redis://127.0.0.1:{}', {more});",
        redis.port()
    )
}

/// Counts by device, and how many devices have which count: the second loses a row whenever the last device of a count
/// moves on, and another run may never come by that count; so it is written with its checkpoints. Slow enough to be hit:
/// each row pays for a long checksum.
fn totals(redis: &Redis) -> String {
    let counts = table(
        redis,
        "counts",
        "device STRING, n BIGINT, most DOUBLE, PRIMARY KEY (device) NOT ENFORCED",
        "'mode' = 'hash', 'key.prefix' = 'counts:', 'sink.buffer-flush.max-rows' = '50'",
    );
    let sizes = table(
        redis,
        "sizes",
        "n BIGINT, devices BIGINT, PRIMARY KEY (n) NOT ENFORCED",
        "'mode' = 'string', 'key.prefix' = 'sizes:', 'sink.delivery-guarantee' = 'exactly-once'",
    );
    format!(
        "SET 'execution.checkpointing.interval' = '50 ms';
         {SENSOR} {counts} {sizes}
         CREATE VIEW slow AS SELECT * FROM sensor WHERE MD5(REPEAT(device_id, 3000)) <> '';
         INSERT INTO counts SELECT device_id, COUNT(*), MAX(`value`) FROM slow GROUP BY device_id;
         INSERT INTO sizes SELECT n, COUNT(*) FROM (SELECT COUNT(*) AS n FROM slow GROUP BY device_id) GROUP BY n;"
    )
}

/// What `totals` must leave.
fn assert_totals(what: &str, redis: &Redis, readings: &[Reading]) {
    let mut devices: BTreeMap<String, (u64, f64)> = BTreeMap::new();
    for r in readings {
        let (count, most) = devices.entry(format!("dev-{}", r.device)).or_insert((0, f64::MIN));
        (*count, *most) = (*count + 1, most.max(r.value));
    }
    let mut sizes: BTreeMap<String, u64> = BTreeMap::new();
    devices.values().for_each(|(count, _)| *sizes.entry(count.to_string()).or_default() += 1);
    let sizes: BTreeMap<String, String> = sizes.into_iter().map(|(n, devices)| (n, devices.to_string())).collect();
    let fields = |(count, most): (u64, f64)| {
        BTreeMap::from([("n".to_owned(), count.to_string()), ("most".to_owned(), format!("{most:?}"))])
    };
    let devices: BTreeMap<_, _> = devices.into_iter().map(|(device, row)| (device, fields(row))).collect();
    assert_eq!(hashes(redis, "counts:"), devices, "{what}");
    assert_eq!(strings(redis, "sizes:"), sizes, "{what}");
}

#[test]
fn updated_and_deleted_rows_leave_the_table_of_the_query() {
    let Some(redis) = start(None) else { return };
    let seed = seed();
    let readings = readings(seed, 20_000, 60, 1, 500);
    let work = tempfile::tempdir().expect("a temporary directory");
    input(work.path(), &readings);
    for parallelism in ["1", "3"] {
        ask(&redis, &["FLUSHALL"]);
        Run::sql(work.path(), &totals(&redis)).args(&["-p", parallelism]).done().success();
        assert_totals(&format!("EDGEFLOW_SEED={seed} at {parallelism}"), &redis, &readings);
    }
}

#[test]
fn whatever_is_killed_the_tables_are_those_of_an_uncut_run() {
    let Some(mut redis) = start(None) else { return };
    let seed = seed();
    let mut rng = SmallRng::seed_from_u64(seed);
    let readings = readings(seed, 60_000, 80, 1, 500);
    let work = tempfile::tempdir().expect("a temporary directory");
    input(work.path(), &readings);
    let sql = totals(&redis);
    let (mut job_kills, mut server_kills) = (0, 0);
    let begin = || {
        let run = Run::sql(work.path(), &sql).args(&["-p", "2", "--state-dir", "state"]);
        run.start().expect("efctl starts")
    };
    let mut running = begin();
    loop {
        // In the end both are left in peace.
        let peace = job_kills + server_kills >= 10;
        // The first before a quick job has ended.
        let longest = if job_kills + server_kills == 0 { 300 } else { 800 };
        let until = Instant::now() + Duration::from_millis(rng.random_range(100..longest));
        running.until(|| !peace && Instant::now() >= until).expect("it runs or ends");
        if running.ended() {
            running.wait().expect("it has ended").success();
            break;
        }
        if rng.random_range(0..2) == 0 {
            running.signal(libc::SIGKILL);
            running.wait().expect("killed");
            running = begin();
            job_kills += 1;
        } else {
            redis.kill();
            wait::lasting(Duration::from_millis(rng.random_range(0..500)));
            redis.start_again().expect("it starts again");
            server_kills += 1;
        }
    }
    println!("EDGEFLOW_SEED={seed}: {job_kills} kills of the job, {server_kills} of the server");
    assert!(job_kills + server_kills > 0, "the job is too quick to be hit");
    assert_totals(&format!("EDGEFLOW_SEED={seed}"), &redis, &readings);
}

#[test]
fn server_that_is_away_at_the_start_is_waited_for() {
    let Some(mut redis) = start(None) else { return };
    redis.kill();
    let readings = readings(seed(), 2_000, 20, 1, 500);
    let work = tempfile::tempdir().expect("a temporary directory");
    input(work.path(), &readings);
    let mut running = Run::sql(work.path(), &totals(&redis)).env("RUST_LOG", "warn").start().expect("efctl starts");
    let said = || std::fs::read_to_string(work.path().join(".stderr")).unwrap_or_default();
    running.until(|| said().contains("attempts have failed")).expect("it says that it waits");
    assert!(!running.ended(), "a server that is away is no failure: {}", said());
    redis.start_again().expect("it starts again");
    running.wait().expect("it ends").success();
    assert_totals("after a late start", &redis, &readings);
}

#[test]
fn streams_and_channels_get_every_row() {
    let Some(redis) = start(Some("t0p-secret")) else { return };
    let seed = seed();
    let readings = readings(seed, 3_000, 20, 1, 500);
    let work = tempfile::tempdir().expect("a temporary directory");
    input(work.path(), &readings);
    let with = |mode: &str| format!("'password' = '${{secret:redis-pw}}', 'mode' = '{mode}'");
    let columns = "device STRING, v DOUBLE";
    let fields = table(&redis, "fields", columns, &format!("{}, 'key' = 'all'", with("stream")));
    let few = table(&redis, "few", columns, &format!("{}, 'key' = 'few', 'stream.maxlen' = '100'", with("stream")));
    let channel = table(&redis, "channel", columns, &format!("{}, 'key' = 'ch', 'format' = 'json'", with("pubsub")));
    let select = "SELECT device_id, `value` FROM sensor;";
    let sql = format!(
        "{SENSOR} {fields} {few} {channel} INSERT INTO fields {select} INSERT INTO few {select} INSERT INTO channel {select}"
    );
    let mut listener = redis.connect().expect("it is there");
    listener.ask(&["SUBSCRIBE", "ch"]).expect("it answers");
    let done = Run::sql(work.path(), &sql).env("EDGEFLOW_SECRET_REDIS_PW", "t0p-secret").done().success();
    assert!(!done.stderr.contains("t0p-secret"), "{}", done.stderr);
    let pair = |device: String, value: String| (device, value);
    let mut expected: Vec<_> =
        readings.iter().map(|r| pair(format!("dev-{}", r.device), format!("{:?}", r.value))).collect();
    expected.sort();
    let entry = |entry: Reply| {
        let words: Vec<String> = entry.list().swap_remove(1).list().into_iter().map(Reply::text).collect();
        assert_eq!((words[0].as_str(), words[2].as_str()), ("device", "v"), "{words:?}");
        pair(words[1].clone(), words[3].clone())
    };
    let mut found: Vec<_> = ask(&redis, &["XRANGE", "all", "-", "+"]).list().into_iter().map(entry).collect();
    found.sort();
    assert_eq!(found, expected, "EDGEFLOW_SEED={seed}");
    let Reply::Number(kept) = ask(&redis, &["XLEN", "few"]) else { panic!("a length") };
    assert!((100..400).contains(&kept), "about a hundred of {} are kept, not {kept}", readings.len());
    let mut heard: Vec<_> = (0..readings.len())
        .map(|_| {
            let text = listener.hear().expect("a message").list().swap_remove(2).text();
            let row: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            pair(row["device"].as_str().expect("text").into(), row["v"].to_string())
        })
        .collect();
    heard.sort();
    assert_eq!(heard, expected, "EDGEFLOW_SEED={seed}");
}

#[test]
fn what_the_server_refuses_for_good_fails_the_job_with_key_and_reason() {
    let Some(redis) = start(Some("t0p-secret")) else { return };
    let work = tempfile::tempdir().expect("a temporary directory");
    input(work.path(), &readings(7, 10, 1, 1, 500));
    ask(&redis, &["SET", "taken:dev-0", "x"]);
    ask(&redis, &["CONFIG", "SET", "maxmemory", "1"]);
    for (memory, password, expected) in [
        ("1", "t0p-secret", "OOM command not allowed"),
        ("0", "t0p-secret", "HSET of key `taken:dev-0`: WRONGTYPE"),
        ("0", "wr0ng-secret", "authentication failed"),
        ("0", "", "secret 'redis-pw'"),
    ] {
        ask(&redis, &["CONFIG", "SET", "maxmemory", memory]);
        let columns = "device STRING, v DOUBLE, PRIMARY KEY (device) NOT ENFORCED";
        let options = "'mode' = 'hash', 'key.prefix' = 'taken:', 'password' = '${secret:redis-pw}'";
        let taken = table(&redis, "taken", columns, options);
        let sql = format!(
            "SET 'restart-strategy.type' = 'none'; {SENSOR} {taken} INSERT INTO taken SELECT device_id, `value` FROM sensor;"
        );
        let run = Run::sql(work.path(), &sql);
        let run = if password.is_empty() { run } else { run.env("EDGEFLOW_SECRET_REDIS_PW", password) };
        let done = run.done();
        assert_ne!(done.code, Some(0), "{expected}");
        assert!(done.stderr.contains(expected) && done.stderr.contains("Sink(taken)"), "{expected}: {}", done.stderr);
        assert!(!done.stderr.contains("0p-secret") && !done.stderr.contains("wr0ng"), "{}", done.stderr);
    }
}
