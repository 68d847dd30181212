//! `'connector' = 'kafka'` and `'upsert-kafka'` as sinks, against a real Apache Kafka: what a reader of committed records
//! sees is every row once and in order, through kill -9 of the job and of the broker, rescaling, and a broker that is away.

use ef_tests::servers::kafka::{Client, Isolation, Kafka, Options, Record, Resource, Right, Row, unique};
use ef_tests::{Done, Run, wait};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

fn work() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// From one topic to another; `with`: more options of the sink.
fn copy(client: &Client, topics: &Topics, source: &str, with: &str) -> String {
    let at = format!("'connector' = 'kafka', 'properties.bootstrap.servers' = '{}'", client.bootstrap());
    let Topics { input, output } = topics;
    format!(
        "SET 'execution.checkpointing.interval' = '50 ms';
         CREATE TABLE source (n BIGINT, k STRING) WITH ({at}, 'topic' = '{input}', 'properties.group.id' = '{input}',
           'scan.startup.mode' = 'earliest-offset', 'format' = 'json', {source});
         CREATE TABLE result (n BIGINT, k STRING) WITH ({at}, 'topic' = '{output}', 'key.format' = 'raw', 'key.fields' = 'k',
           'value.format' = 'json', 'sink.transactional-id-prefix' = '{output}', {with});
         INSERT INTO result SELECT n, k FROM source;"
    )
}

/// The same from another source.
fn with_source(sql: &str, source: &str) -> String {
    let (from, to) = (sql.find("CREATE TABLE source").expect("there"), sql.find("CREATE TABLE result").expect("there"));
    format!("{}{source}{}", &sql[..from], &sql[to..])
}

const BOUNDED: &str = "'scan.bounded.mode' = 'latest-offset'";
const FOLLOW: &str = "'scan.topic-partition-discovery.interval' = '10 s'";
const EXACTLY_ONCE: &str = "'sink.delivery-guarantee' = 'exactly-once'";

struct Topics {
    input: String,
    output: String,
}

/// Both with three partitions.
fn topics(client: &Client) -> Topics {
    let name = unique("sink");
    let topics = Topics { input: format!("{name}-in"), output: format!("{name}-out") };
    for topic in [&topics.input, &topics.output] {
        client.create_topic(topic, 3, &[]).expect("a topic is made");
    }
    topics
}

const KEYS: i64 = 50;

/// Rows of one key are in one partition, in order.
fn numbers(numbers: std::ops::Range<i64>) -> Vec<Row> {
    let row = |n: i64| {
        let key = n % KEYS;
        Row::new(format!("{{\"n\": {n}, \"k\": \"key-{key}\"}}")).partition((key % 3) as i32)
    };
    numbers.map(row).collect()
}

fn number(record: &Record) -> i64 {
    let row: Value = serde_json::from_str(record.text()).expect("it is JSON");
    row["n"].as_i64().expect("a number")
}

/// Each number once, those of a key in order and in one partition, and no transaction is open.
#[track_caller]
fn assert_exact(client: &Client, topic: &str, expected: std::ops::Range<i64>) {
    client.wait_closed(topic).expect("no transaction is open");
    let records = client.read_all(topic, Isolation::Committed).expect("it can be read");
    let mut reached: BTreeMap<String, (i32, i64)> = BTreeMap::new();
    for record in &records {
        let n = number(record);
        let key = String::from_utf8(record.key.clone().expect("it has a key")).expect("text");
        assert_eq!(key, format!("key-{}", n % KEYS));
        if let Some((partition, before)) = reached.insert(key.clone(), (record.partition, n)) {
            assert!(partition == record.partition, "{key} is in partitions {partition} and {}", record.partition);
            assert!(before < n, "{key}: {n} comes after {before}");
        }
    }
    let mut found: Vec<i64> = records.iter().map(number).collect();
    found.sort();
    let twice = found.windows(2).filter(|pair| pair[0] == pair[1]).count();
    let lost = expected.clone().filter(|n| found.binary_search(n).is_err()).count();
    assert_eq!(found.len(), expected.clone().count(), "{lost} lost, {twice} twice");
    assert_eq!((lost, twice), (0, 0));
}

fn error(done: Done) -> String {
    assert_eq!(done.code, Some(1), "it must fail\n{}\n{}", done.stdout, done.stderr);
    done.stderr
}

/// Directories of complete checkpoints by epoch.
fn checkpoints(state: &Path) -> BTreeMap<u64, PathBuf> {
    let mut found = BTreeMap::new();
    let mut folders = vec![state.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| name == "manifest") {
                let name = folder.file_name().and_then(|name| name.to_str());
                let epoch = name.and_then(|name| name.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().ok());
                found.insert(epoch.unwrap_or_default(), folder.clone());
            }
        }
    }
    found
}

fn newest_manifest(state: &Path) -> u64 {
    checkpoints(state).pop_last().map_or(0, |(epoch, _)| epoch)
}

#[test]
fn rows_of_a_bounded_job_are_all_committed_at_any_parallelism() {
    let Some(kafka) = Kafka::shared("a bounded job into Kafka") else { return };
    for parallelism in ["1", "2", "5"] {
        let (client, topics, work) = (kafka.client(), topics(kafka.client()), work());
        client.produce(&topics.input, &numbers(0..5000)).expect("rows are written");
        let sql = copy(client, &topics, BOUNDED, EXACTLY_ONCE);
        Run::sql(work.path(), &sql).args(&["-p", parallelism]).done().success();
        assert_exact(client, &topics.output, 0..5000);
        // Other clients of Kafka find a key in the same partition.
        let murmur = client.clone().set("partitioner", "murmur2_random");
        let keys: Vec<Row> = (0..KEYS).map(|key| Row::new("{}").key(format!("key-{key}"))).collect();
        let records = client.read_all(&topics.output, Isolation::Committed).expect("it can be read");
        murmur.produce(&topics.output, &keys).expect("rows are written");
        let after = client.read_all(&topics.output, Isolation::Committed).expect("it can be read");
        let place = |record: &Record| (record.key.clone(), record.partition);
        let ours: std::collections::BTreeSet<_> = records.iter().map(place).collect();
        let theirs = after.iter().filter(|record| record.text() == "{}").map(place).collect();
        assert_eq!(ours, theirs);
    }
}

#[test]
fn rows_of_a_checkpoint_that_a_crash_kept_from_kafka_come_after_it_once() {
    let Some(kafka) = Kafka::start("a crash before the commit", Options::default()) else { return };
    let (client, topics, work) = (kafka.client().clone(), topics(kafka.client()), work());
    let sql = copy(&client, &topics, FOLLOW, EXACTLY_ONCE);
    let start = |parallelism: &str| {
        let run = Run::sql(work.path(), &sql).args(&["--state-dir", "state", "-p", parallelism]);
        run.start().expect("efctl starts")
    };
    let mut all = 0;
    for (round, parallelism) in ["2", "3", "1", "2"].into_iter().enumerate() {
        client.produce(&topics.input, &numbers(all..all + 2000)).expect("rows are written");
        all += 2000;
        let mut running = start(parallelism);
        let mut visible = client.counter(&topics.output, Isolation::Committed).expect("it can be read");
        running.until(|| visible.records() as i64 >= all).expect("rows come");
        let state = work.path().join("state");
        let before = newest_manifest(&state);
        client.produce(&topics.input, &numbers(all..all + 2000)).expect("rows are written");
        all += 2000;
        if round % 2 == 0 {
            // A checkpoint has completed, and its rows may be on their way; no answer comes any more, and checkpoints go on.
            running.until(|| newest_manifest(&state) > before).expect("checkpoints go on");
            kafka.freeze();
            let before = newest_manifest(&state);
            running.until(|| newest_manifest(&state) > before + 3).expect("checkpoints go on");
        }
        assert!(!running.ended(), "it goes on");
        running.signal(libc::SIGKILL);
        running.wait().expect("it has ended");
        kafka.thaw();
    }
    let mut running = start("2");
    let mut visible = client.counter(&topics.output, Isolation::Committed).expect("it can be read");
    running.until(|| visible.records() as i64 >= all).expect("all rows come");
    running.signal(libc::SIGINT);
    running.wait().expect("it stops");
    assert_exact(&client, &topics.output, 0..all);
}

#[test]
fn while_the_broker_is_away_checkpoints_go_on_until_the_spool_is_full() {
    let Some(mut kafka) = Kafka::start("a broker that is away from a sink", Options::default()) else { return };
    let (client, topics, work) = (kafka.client().clone(), topics(kafka.client()), work());
    // The broker's first transaction takes seconds; this one's rows are not to wait for that.
    let warm_up = self::topics(&client);
    client.produce(&warm_up.input, &numbers(0..10)).expect("rows are written");
    Run::sql(work.path(), &copy(&client, &warm_up, BOUNDED, EXACTLY_ONCE)).done().success();
    // Input that needs no broker.
    let sql = copy(&client, &topics, FOLLOW, &format!("{EXACTLY_ONCE}, 'sink.spool.max-size' = '8 mb'"));
    let generated = "CREATE TABLE source (n BIGINT, k AS CONCAT('key-', CAST(n % 50 AS STRING)))
        WITH ('connector' = 'datagen', 'fields.n.kind' = 'sequence', 'fields.n.start' = '0', 'fields.n.end' = '479999',
              'rows-per-second' = '20000');";
    let mut running = Run::sql(work.path(), &with_source(&sql, generated))
        .args(&["--state-dir", "state", "--summary-json", "summary.json"])
        .start()
        .expect("efctl starts");
    let mut visible = client.counter(&topics.output, Isolation::Committed).expect("it can be read");
    running.until(|| visible.records() > 1000).expect("rows come");
    kafka.kill();
    let state = work.path().join("state");
    let before = newest_manifest(&state);
    running.until(|| newest_manifest(&state) > before + 5).expect("checkpoints go on");
    // At 20 000 rows a second of 40 bytes it is full within eleven seconds; the source would end within 24.
    wait::lasting(Duration::from_secs(25));
    assert!(!running.ended(), "it waits for the broker");
    kafka.start_again().expect("it comes back");
    running.wait().expect("it ends").success();
    assert_exact(&client, &topics.output, 0..480_000);
}

#[test]
fn changes_of_a_key_come_as_its_last_row_or_as_a_tombstone() {
    let Some(kafka) = Kafka::shared("tables in compacted topics") else { return };
    let (client, topics, work) = (kafka.client(), topics(kafka.client()), work());
    let at = format!("'properties.bootstrap.servers' = '{}'", client.bootstrap());
    let Topics { input, output } = &topics;
    // Keys come and go: a key is in the result while its count is not a multiple of seven.
    let sql = format!(
        "SET 'execution.checkpointing.interval' = '50 ms';
         CREATE TABLE source (n BIGINT, k STRING) WITH ('connector' = 'kafka', {at}, 'topic' = '{input}',
           'properties.group.id' = '{input}', 'scan.startup.mode' = 'earliest-offset', 'format' = 'json');
         CREATE TABLE result (k STRING, c BIGINT, total BIGINT, PRIMARY KEY (k) NOT ENFORCED) WITH (
           'connector' = 'upsert-kafka', {at}, 'topic' = '{output}', 'key.format' = 'json', 'value.format' = 'json',
           'sink.transactional-id-prefix' = '{output}');
         INSERT INTO result SELECT k, COUNT(*) AS c, SUM(n) FROM source GROUP BY k HAVING MOD(COUNT(*), 7) <> 0;"
    );
    let mut running =
        Run::sql(work.path(), &sql).args(&["-p", "2", "--state-dir", "state"]).start().expect("it starts");
    // The newest count of each key that is there.
    let counts = || {
        let mut newest = BTreeMap::new();
        for record in client.read_all(output, Isolation::Committed).expect("it can be read") {
            let row = record.value.as_ref().map(|_| serde_json::from_str::<Value>(record.text()).expect("it is JSON"));
            newest.insert(record.key, row.and_then(|row| row["c"].as_i64()));
        }
        newest.into_values().collect::<Vec<Option<i64>>>()
    };
    let mut feed_until = |rows: std::ops::Range<i64>, expected: Option<i64>| {
        client.produce(input, &numbers(rows)).expect("rows are written");
        running.until(|| counts() == vec![expected; KEYS as usize]).expect("all keys get there");
    };
    let step = 7 * KEYS;
    for round in 0..3 {
        let from = round * step;
        feed_until(from..from + step - KEYS, Some(round * 7 + 6));
        feed_until(from + step - KEYS..from + step, None);
    }
    feed_until(3 * step..3 * step + KEYS, Some(22));
    running.signal(libc::SIGINT);
    running.wait().expect("it stops");
    let mut table: BTreeMap<String, Option<(i64, i64)>> = BTreeMap::new();
    let mut tombstones = 0;
    for record in client.read_all(output, Isolation::Committed).expect("it can be read") {
        let json = |text: &[u8]| serde_json::from_slice::<Value>(text).expect("it is JSON");
        let key = json(record.key.as_deref().expect("a key"))["k"].as_str().expect("text").to_string();
        let row = record.value.as_deref().map(json);
        tombstones += usize::from(row.is_none());
        let values = row.map(|row| (row["c"].as_i64().expect("a number"), row["total"].as_i64().expect("a number")));
        let before = table.insert(key.clone(), values).flatten();
        assert!(values.is_none() || values > before, "{key} goes back from {before:?} to {values:?}");
    }
    assert_eq!(tombstones as i64, 3 * KEYS);
    let sum = |key: i64| (0..22).map(|i| key + i * KEYS).sum::<i64>();
    let expected = (0..KEYS).map(|key| (format!("key-{key}"), Some((22, sum(key))))).collect();
    assert_eq!(table, expected);
}

#[test]
fn rows_that_wait_for_nothing_arrive_at_least_once() {
    let Some(kafka) = Kafka::shared("weaker guarantees of a Kafka sink") else { return };
    for guarantee in ["at-least-once", "none"] {
        let (client, topics, work) = (kafka.client(), topics(kafka.client()), work());
        client.produce(&topics.input, &numbers(0..5000)).expect("rows are written");
        let sql = copy(client, &topics, BOUNDED, &format!("'sink.delivery-guarantee' = '{guarantee}'"));
        Run::sql(work.path(), &sql).args(&["-p", "2"]).done().success();
        // Nothing failed, so nothing came twice.
        assert_exact(client, &topics.output, 0..5000);
    }
}

/// Input that needs no broker.
const FILES: &str = "CREATE TABLE source (n BIGINT, k STRING) WITH ('connector' = 'filesystem', 'path' = 'input',
    'format' = 'json', 'source.monitor-interval' = '20 ms');";

fn put(work: &Path, name: &str, rows: &[Row]) {
    let lines = rows.iter().flat_map(|row| [row.value.as_deref().unwrap_or_default(), b"\n"].concat());
    std::fs::create_dir_all(work.join("input")).expect("writable");
    std::fs::write(work.join(name), lines.collect::<Vec<u8>>()).expect("writable");
    std::fs::rename(work.join(name), work.join("input").join(name)).expect("same disk");
}

#[test]
fn rows_that_wait_in_a_checkpoint_go_where_they_belong_when_the_table_is_changed() {
    let Some(kafka) = Kafka::start("a Kafka sink that is changed", Options::default()) else { return };
    let (client, first, work) = (kafka.client().clone(), topics(kafka.client()), work());
    let second = topics(&client);
    let state = work.path().join("state");
    let start = |to: &Topics, with: &str| {
        let sql = with_source(&copy(&client, to, FOLLOW, with), FILES);
        Run::sql(work.path(), &sql).args(&["--state-dir", "state"]).start().expect("efctl starts")
    };
    let visible = |topics: &Topics, rows: usize| {
        let mut counter = client.counter(&topics.output, Isolation::Committed).expect("it can be read");
        move || counter.records() >= rows
    };
    // Checkpoints complete with rows that Kafka does not take, until the job is killed.
    let hold = |mut running: ef_tests::Running, name: &str, rows: std::ops::Range<i64>| {
        kafka.freeze();
        put(work.path(), name, &numbers(rows));
        let before = newest_manifest(&state);
        running.until(|| newest_manifest(&state) > before + 20).expect("checkpoints go on");
        running.signal(libc::SIGKILL);
        running.wait().expect("it has ended");
        kafka.thaw();
    };
    put(work.path(), "a", &numbers(0..1000));
    let mut running = start(&first, EXACTLY_ONCE);
    running.until(visible(&first, 1000)).expect("rows come");
    hold(running, "b", 1000..2000);
    put(work.path(), "c", &numbers(2000..3000));
    let mut running = start(&second, EXACTLY_ONCE);
    running.until(visible(&first, 2000)).expect("those of before come to where they were to go");
    running.until(visible(&second, 1000)).expect("rows come");
    hold(running, "d", 3000..4000);
    put(work.path(), "e", &numbers(4000..5000));
    let mut running = start(&second, "'sink.delivery-guarantee' = 'at-least-once'");
    running.until(visible(&second, 3000)).expect("rows come");
    running.signal(libc::SIGINT);
    running.wait().expect("it stops");
    assert_exact(&client, &first.output, 0..2000);
    assert_exact(&client, &second.output, 2000..5000);
}

#[test]
fn rows_appear_though_nobody_has_said_a_word_about_checkpoints() {
    let Some(kafka) = Kafka::shared("a Kafka sink without settings") else { return };
    let (client, topics, work) = (kafka.client(), topics(kafka.client()), work());
    client.produce(&topics.input, &numbers(0..1000)).expect("rows are written");
    let sql = copy(client, &topics, FOLLOW, EXACTLY_ONCE);
    let sql = sql.replace("SET 'execution.checkpointing.interval' = '50 ms';", "");
    let mut running = Run::sql(work.path(), &sql).start().expect("efctl starts");
    let mut visible = client.counter(&topics.output, Isolation::Committed).expect("it can be read");
    running.until(|| visible.records() >= 1000).expect("rows come");
    assert!(!running.ended(), "it follows the topic");
}

#[test]
fn a_marker_that_kafka_has_forgotten_stops_the_job_until_somebody_decides() {
    let Some(kafka) = Kafka::start("a lost marker", Options::default()) else { return };
    let (client, topics, work) = (kafka.client().clone(), topics(kafka.client()), work());
    let put = |name: &str, rows: &[Row]| put(work.path(), name, rows);
    let run = |with: &str| {
        let sql = with_source(&copy(&client, &topics, FOLLOW, &format!("{EXACTLY_ONCE}{with}")), FILES);
        Run::sql(work.path(), &sql).args(&["--state-dir", "state"])
    };
    put("a.ndjson", &numbers(0..1000));
    let mut running = run("").start().expect("efctl starts");
    let mut visible = client.counter(&topics.output, Isolation::Committed).expect("it can be read");
    let state = work.path().join("state");
    running.until(|| visible.records() >= 1000).expect("rows come");
    // The checkpoint knows what is committed.
    let known = newest_manifest(&state);
    running.until(|| newest_manifest(&state) > known + 2).expect("checkpoints go on");
    kafka.freeze();
    put("b.ndjson", &numbers(1000..2000));
    let before = newest_manifest(&state);
    running.until(|| newest_manifest(&state) > before + 20).expect("checkpoints go on");
    running.signal(libc::SIGKILL);
    running.wait().expect("it has ended");
    kafka.thaw();
    // A broker that has slept for long is none to its controller for a moment.
    let deleted = wait::until(wait::PATIENCE, || {
        let groups = client.groups().unwrap_or_default();
        let markers: Vec<&String> = groups.iter().filter(|group| group.starts_with(&topics.output)).collect();
        !markers.is_empty() && client.delete_groups(&markers).is_ok()
    });
    assert!(deleted, "the markers are deleted");
    let failed = error(run("").done());
    assert!(failed.contains("set 'sink.marker-lost' to 'assume-committed'"), "{failed}");
    let mut running = run(", 'sink.marker-lost' = 'assume-lost'").start().expect("efctl starts");
    running.until(|| visible.records() >= 2000).expect("rows come");
    running.signal(libc::SIGINT);
    running.wait().expect("it stops");
    assert_exact(&client, &topics.output, 0..2000);
}

#[test]
fn a_start_from_before_what_kafka_has_is_refused_unless_it_is_wanted() {
    let Some(kafka) = Kafka::shared("a start from an old checkpoint") else { return };
    let (client, topics, work) = (kafka.client(), topics(kafka.client()), work());
    let run = |with: &str, args: &[&str]| {
        let sql = copy(client, &topics, FOLLOW, &format!("{EXACTLY_ONCE}{with}"));
        let sql = format!("SET 'execution.checkpointing.num-retained' = '10000'; {sql}");
        Run::sql(work.path(), &sql).args(&["-p", "2"]).args(args)
    };
    let mut visible = client.counter(&topics.output, Isolation::Committed).expect("it can be read");
    client.produce(&topics.input, &numbers(0..1000)).expect("rows are written");
    let mut running = run("", &["--state-dir", "state"]).start().expect("efctl starts");
    running.until(|| visible.records() >= 1000).expect("rows come");
    let (_, old) = checkpoints(&work.path().join("state")).pop_last().expect("rows are visible");
    client.produce(&topics.input, &numbers(1000..2000)).expect("rows are written");
    running.until(|| visible.records() >= 2000).expect("rows come");
    running.signal(libc::SIGINT);
    running.wait().expect("it stops");
    let old = old.to_str().expect("text");
    let failed = error(run("", &["--state-dir", "state", "--restore", old]).done());
    assert!(failed.contains("is older than the job's newest"), "{failed}");
    // Of another job: only Kafka knows.
    let failed = error(run("", &["--state-dir", "other", "--restore", old]).done());
    assert!(failed.contains("already and would be written again: start from a newer checkpoint"), "{failed}");
    assert_eq!(newest_manifest(&work.path().join("other")), 0, "what is refused leaves no checkpoint behind");
    assert_exact(client, &topics.output, 0..2000);
    // And the job itself is none the worse for it.
    client.produce(&topics.input, &numbers(2000..3000)).expect("rows are written");
    let mut running = run("", &["--state-dir", "state"]).start().expect("efctl starts");
    running.until(|| visible.records() >= 3000).expect("rows come");
    running.signal(libc::SIGINT);
    running.wait().expect("it stops");
    assert_exact(client, &topics.output, 0..3000);
    let allowed = run(", 'sink.allow-output-rewind' = 'true'", &["--state-dir", "third", "--restore", old]);
    let mut running = allowed.start().expect("efctl starts");
    // Two thousand of them for the second time.
    running.until(|| visible.records() >= 5000).expect("rows come");
    running.signal(libc::SIGINT);
    running.wait().expect("it stops");
    assert_eq!(visible.records(), 5000);
}

#[test]
fn mistakes_with_a_sink_are_said_before_a_row_is_read() {
    let Some(kafka) = Kafka::shared("mistakes with a Kafka sink") else { return };
    let (client, topics, work) = (kafka.client(), topics(kafka.client()), work());
    client.produce(&topics.input, &numbers(0..10)).expect("rows are written");
    let run = |sql: &str| {
        let done = Run::sql(work.path(), sql).done();
        assert!(matches!(done.code, Some(1 | 2)), "it must fail\n{}\n{}", done.stdout, done.stderr);
        done.stderr
    };
    let sql = copy(client, &topics, BOUNDED, EXACTLY_ONCE);
    let failed = run(&sql.replace(&format!("'topic' = '{}'", topics.output), "'topic' = 'no-such-topic'"));
    assert!(failed.contains("table \"result\": topic \"no-such-topic\" does not exist at"), "{failed}");
    let failed = run(&sql.replace("'exactly-once'", "'exactly_twice'"));
    assert!(failed.contains("expected 'exactly-once', 'at-least-once' or 'none'"), "{failed}");
    let failed = run(&sql.replace("'key.format' = 'raw', ", ""));
    assert!(failed.contains("'key.format' is missing"), "{failed}");
    // Half of the prefix is the part of this table only.
    let (head, tail) = sql.split_at(sql.find("CREATE TABLE result").expect("there"));
    let failed = run(&format!("{head}{}", tail.replace(client.bootstrap(), "127.0.0.1:1")));
    let nobody = format!("table \"result\": topic \"{}\": no broker of 127.0.0.1:1 answered", topics.output);
    assert!(failed.contains(&nobody), "{failed}");
}

#[test]
fn who_may_not_write_or_use_the_transactional_id_is_told_so() {
    let options = Options { users: vec![("writer", "t0p-secret")], ..Options::default() };
    let Some(kafka) = Kafka::start("rights of a Kafka sink", options) else { return };
    let (client, topics, work) = (kafka.client(), topics(kafka.client()), work());
    client.produce(&topics.input, &numbers(0..10)).expect("rows are written");
    let login = "'properties.security.protocol' = 'SASL_PLAINTEXT', 'properties.sasl.mechanism' = 'PLAIN',
                 'properties.sasl.username' = 'writer', 'properties.sasl.password' = '${secret:kafka}'";
    let sql = copy(client, &topics, &format!("{BOUNDED}, {login}"), &format!("{EXACTLY_ONCE}, {login}"));
    let run = || Run::sql(work.path(), &sql).env("EDGEFLOW_SECRET_KAFKA", "t0p-secret").done();
    let allow = |resource: Resource, right| client.allow("writer", resource, right).expect("a right is given");
    allow(Resource::Topic(&topics.input), Right::Read);
    allow(Resource::Group(&topics.input), Right::Read);
    allow(Resource::Topic(&topics.output), Right::Describe);
    let names = |what: &str| {
        let mut last = String::new();
        // A moment may pass until the broker minds a right.
        let said = wait::until(wait::PATIENCE, || {
            let done = run();
            last = done.stderr;
            done.code == Some(1) && last.contains(what)
        });
        assert!(said, "expected `{what}` in {last}");
    };
    names(&format!("transactional id \"{}-", topics.output));
    let ids = format!("{}*", topics.output);
    allow(Resource::TransactionalId(&ids), Right::All);
    names(&format!("group \"{}-", topics.output));
    allow(Resource::Group(&ids), Right::All);
    names(&format!("topic \"{}\": not authorised", topics.output));
    allow(Resource::Topic(&topics.output), Right::Write);
    allow(Resource::Topic(&topics.output), Right::Read);
    let mut last = String::new();
    let ran = wait::until(wait::PATIENCE, || {
        let done = run();
        last = done.stderr;
        done.code == Some(0)
    });
    assert!(ran, "{last}");
    assert_exact(client, &topics.output, 0..10);
}

#[test]
fn a_row_that_is_too_large_for_a_record_fails_the_job_by_name() {
    let Some(kafka) = Kafka::shared("large rows into Kafka") else { return };
    let (client, topics, work) = (kafka.client(), topics(kafka.client()), work());
    client.produce(&topics.input, &numbers(0..10)).expect("rows are written");
    let sql = copy(client, &topics, BOUNDED, EXACTLY_ONCE)
        .replace("SELECT n, k FROM", "SELECT n, CASE WHEN n = 7 THEN REPEAT('x', 2000000) ELSE k END FROM");
    let failed = error(Run::sql(work.path(), &sql).done());
    assert!(
        failed.contains("table `result`: a row with the key xxx") && failed.contains("'properties.max.request.size'"),
        "{failed}"
    );
}
