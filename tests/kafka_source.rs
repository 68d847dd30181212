//! `'connector' = 'kafka'` as a source, against a real Apache Kafka: every record that is committed counts exactly
//! once, through transactions, kill -9, rescaling and new partitions; and what is wrong is said in words.

use ef_tests::rows::directory;
use ef_tests::servers::kafka::{Committed, Kafka, Options, Resource, Right, Row, unique};
use ef_tests::table::{json, objects};
use ef_tests::{Done, Run, wait};
use std::path::Path;
use tempfile::TempDir;

fn numbers(numbers: std::ops::Range<i64>, partitions: i32) -> Vec<Row> {
    numbers
        .map(|n| Row::new(format!("{{\"n\": {n}}}")).key(format!("k{n}")).partition((n % partitions as i64) as i32))
        .collect()
}

/// Reads `topic` and writes it to files; `with`: more options of the source.
fn copy(kafka: &Kafka, topic: &str, with: &str, select: &str) -> String {
    format!(
        "SET 'execution.checkpointing.interval' = '100 ms';
         CREATE TABLE source (n BIGINT, at BIGINT METADATA FROM 'offset', `partition` INT METADATA)
         WITH ('connector' = 'kafka', 'topic' = '{topic}', 'properties.bootstrap.servers' = '{}', 'format' = 'json',
               'properties.group.id' = '{topic}', {with});
         CREATE TABLE result (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'result', 'format' = 'json');
         INSERT INTO result {select};",
        kafka.bootstrap()
    )
}

const EARLIEST: &str = "'scan.startup.mode' = 'earliest-offset'";
const BOUNDED: &str = "'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset'";
const ALL: &str = "SELECT n FROM source";
/// Slowly enough to be cut in the middle.
const SLOW: &str = "SELECT n FROM source WHERE MD5(REPEAT(CAST(n AS STRING), 5000)) <> ''";

fn work() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn written(work: &Path) -> Vec<i64> {
    let rows = objects(&directory(&work.join("result")));
    let mut numbers: Vec<i64> = rows.iter().map(|row| row["n"].as_i64().expect("a number")).collect();
    numbers.sort();
    numbers
}

#[track_caller]
fn assert_numbers(work: &Path, expected: std::ops::Range<i64>) {
    let found = written(work);
    let twice = found.windows(2).filter(|pair| pair[0] == pair[1]).count();
    let lost = expected.clone().filter(|n| found.binary_search(n).is_err()).count();
    assert!(
        found == expected.clone().collect::<Vec<_>>(),
        "{} of {expected:?}: {lost} lost, {twice} twice",
        found.len()
    );
}

fn error(done: Done) -> String {
    assert_eq!(done.code, Some(1), "it must fail\n{}\n{}", done.stdout, done.stderr);
    done.stderr
}

#[test]
fn a_bounded_source_reads_what_is_committed_and_ends_behind_aborted_records() {
    let Some(kafka) = Kafka::shared("a bounded Kafka source") else { return };
    let topic = unique("source");
    kafka.client().create_topic(&topic, 3, &[]).expect("a topic is made");
    kafka.client().produce(&topic, &numbers(0..3000, 3)).expect("rows are written");
    let slot = kafka.client().transactions(&unique("slot"), &unique("markers")).expect("it is initialised");
    slot.begin().expect("begins");
    numbers(100_000..101_000, 3).iter().for_each(|row| slot.send(&topic, row).expect("sent"));
    slot.flush().expect("at the broker");
    slot.abort().expect("aborts");
    kafka.client().produce_committed(&unique("other"), &topic, &numbers(3000..4000, 3)).expect("rows are written");
    // The last thing in each partition is aborted.
    slot.begin().expect("begins");
    numbers(200_000..200_300, 3).iter().for_each(|row| slot.send(&topic, row).expect("sent"));
    slot.flush().expect("at the broker");
    slot.abort().expect("aborts");
    for parallelism in ["1", "2", "5"] {
        let work = work();
        Run::sql(work.path(), &copy(kafka, &topic, BOUNDED, ALL)).args(&["-p", parallelism]).done().success();
        assert_numbers(work.path(), 0..4000);
    }
    // The last checkpoint has told the group where it ended: behind everything. Nobody has waited for the broker's answer.
    let ends = kafka.client().ends(&topic, ef_tests::servers::kafka::Isolation::Raw).expect("ends are read");
    let is_end = |(partition, at): (&i32, &Committed)| (1301..=ends[*partition as usize]).contains(&at.offset);
    let told = || kafka.client().committed(&topic, &topic);
    let all = || told().is_ok_and(|committed| committed.len() == 3 && committed.iter().all(is_end));
    assert!(wait::until(wait::PATIENCE, all), "{:?}, ends {ends:?}", told());
}

#[test]
fn after_kill_and_rescale_every_record_counts_once_new_partitions_included() {
    let Some(kafka) = Kafka::shared("a Kafka source that is killed") else { return };
    let topic = unique("killed");
    kafka.client().create_topic(&topic, 3, &[]).expect("a topic is made");
    let work = work();
    let with = format!("{EARLIEST}, 'scan.topic-partition-discovery.interval' = '200 ms'");
    let sql = copy(kafka, &topic, &with, SLOW);
    let mut all = 0;
    let mut feed = |rows: i64, partitions: std::ops::Range<i32>| {
        let there = all..all + rows;
        all = there.end;
        let placed = |row: Row| Row { partition: row.partition.map(|p| p + partitions.start), ..row };
        let rows: Vec<Row> = numbers(there, partitions.len() as i32).into_iter().map(placed).collect();
        kafka.client().produce(&topic, &rows).expect("rows are written");
    };
    for (round, parallelism) in ["2", "3", "1", "4"].into_iter().enumerate() {
        // Whatever the rounds before have left, there is enough to be cut in the middle.
        feed(25_000, 0..3);
        let before = written(work.path()).len();
        let mut running = Run::sql(work.path(), &sql)
            .args(&["--state-dir", "state", "-p", parallelism])
            .start()
            .expect("efctl starts");
        running.until(|| written(work.path()).len() > before + 3000).expect("rows come");
        if round == 1 {
            kafka.client().add_partitions(&topic, 5).expect("there are more");
            feed(2000, 3..5);
        }
        running.signal(libc::SIGKILL);
        running.wait().expect("it has ended");
    }
    let mut running =
        Run::sql(work.path(), &sql).args(&["--state-dir", "state", "-p", "2"]).start().expect("efctl starts");
    running.until(|| written(work.path()).len() >= all as usize).expect("all rows come");
    running.signal(libc::SIGINT);
    running.wait().expect("it stops");
    assert_numbers(work.path(), 0..all);
}

#[test]
fn pretty_json_tombstones_and_bad_records_are_what_they_are() {
    let Some(kafka) = Kafka::shared("odd records in Kafka") else { return };
    let topic = unique("odd");
    kafka.client().create_topic(&topic, 1, &[]).expect("a topic is made");
    let rows = ["{\n  \"n\": 0\n}\n", "{\"n\": 1}", "{\"n\": 1}{\"n\": 9}", "{\"n\": \"x\"}", "{\"n\": 2}"];
    kafka.client().produce(&topic, &rows.map(Row::new)).expect("rows are written");
    kafka.client().produce(&topic, &[Row::tombstone("gone"), Row::new("{\"n\": 3}")]).expect("rows are written");
    let work = work();
    let dead = "CREATE TABLE dead (`table` STRING, file STRING, line BIGINT, raw STRING, error STRING)
                WITH ('connector' = 'filesystem', 'path' = 'dead', 'format' = 'json');";
    let sql = copy(kafka, &topic, &format!("{BOUNDED}, 'error.table' = 'dead'"), ALL);
    let sql = sql.replacen("CREATE TABLE source", &format!("{dead} CREATE TABLE source"), 1);
    Run::sql(work.path(), &sql).args(&["--summary-json", "summary.json"]).done().success();
    assert_numbers(work.path(), 0..4);
    let dead = objects(&directory(&work.path().join("dead")));
    let places: Vec<_> = dead.iter().map(|row| (row["file"].as_str(), row["line"].as_i64())).collect();
    let file = format!("{topic}/0");
    assert_eq!(places, [(Some(file.as_str()), Some(2)), (Some(file.as_str()), Some(3))], "{dead:?}");
    let summary = json(&work.path().join("summary.json"));
    assert_eq!((summary["tombstones"].as_u64(), summary["failed_rows"].as_u64()), (Some(1), Some(2)), "{summary}");
    let failed = error(Run::sql(work.path(), &copy(kafka, &topic, BOUNDED, ALL)).done());
    assert!(
        failed.contains(&format!("topic {topic} partition 0 offset 2: expected nothing behind the JSON object")),
        "{failed}"
    );
}

#[test]
fn columns_of_a_key_come_in_the_order_of_key_fields() {
    let Some(kafka) = Kafka::shared("keys of several columns in Kafka") else { return };
    let topic = unique("keys");
    kafka.client().create_topic(&topic, 1, &[]).expect("a topic is made");
    kafka.client().produce(&topic, &[Row::new("{\"n\": 7}").key("second,first")]).expect("a row is written");
    let work = work();
    let sql = format!(
        "CREATE TABLE source (a STRING, b STRING, n BIGINT) WITH ('connector' = 'kafka', 'topic' = '{topic}',
           'properties.bootstrap.servers' = '{}', 'properties.group.id' = '{topic}', {BOUNDED}, 'value.format' = 'json',
           'key.format' = 'csv', 'key.fields' = 'b;a', 'value.fields-include' = 'EXCEPT_KEY');
         CREATE TABLE result (a STRING, b STRING, n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'result', 'format' = 'json');
         INSERT INTO result SELECT a, b, n FROM source;",
        kafka.bootstrap()
    );
    Run::sql(work.path(), &sql).done().success();
    let rows = objects(&directory(&work.path().join("result")));
    let found: Vec<_> = rows.iter().map(|row| (row["a"].as_str(), row["b"].as_str(), row["n"].as_i64())).collect();
    assert_eq!(found, [(Some("first"), Some("second"), Some(7))]);
}

#[test]
fn what_cannot_be_read_is_said_with_where_it_was_looked_for() {
    let Some(kafka) = Kafka::shared("mistakes with a Kafka source") else { return };
    let topic = unique("short");
    kafka.client().create_topic(&topic, 1, &[]).expect("a topic is made");
    kafka.client().produce(&topic, &numbers(0..10, 1)).expect("rows are written");
    let work = work();
    let run = |topic: &str, with: &str| error(Run::sql(work.path(), &copy(kafka, topic, with, ALL)).done());
    let absent = unique("absent");
    let failed = run(&absent, BOUNDED);
    assert!(
        failed.contains(&format!("table \"source\": topic \"{absent}\" does not exist at {}", kafka.bootstrap())),
        "{failed}"
    );
    let offsets = "'scan.startup.mode' = 'specific-offsets', 'scan.startup.specific-offsets' = 'partition:0,offset:42'";
    let failed = run(&topic, offsets);
    assert!(
        failed.contains(&format!("topic {topic} partition 0: offset 42 is out of range, it has 0 to 9")),
        "{failed}"
    );
    let failed = run(&topic, "'scan.bounded.mode' = 'latest-offset'");
    assert!(failed.contains("has committed no offset of topic"), "{failed}");
    let nowhere = copy(kafka, &topic, &format!("{BOUNDED}, 'properties.default.api.timeout.ms' = '2 s'"), ALL)
        .replace(kafka.bootstrap(), "127.0.0.1:1");
    let failed = error(Run::sql(work.path(), &nowhere).done());
    assert!(failed.contains("no broker of 127.0.0.1:1 answered: "), "{failed}");
}

#[test]
fn who_may_not_read_or_has_the_wrong_password_is_told_so() {
    let options = Options { users: vec![("reader", "t0p-secret")], ..Options::default() };
    let Some(kafka) = Kafka::start("rights of a Kafka source", options) else { return };
    let topic = unique("guarded");
    kafka.client().create_topic(&topic, 1, &[]).expect("a topic is made");
    kafka.client().produce(&topic, &numbers(0..10, 1)).expect("rows are written");
    let work = work();
    let login = "'properties.security.protocol' = 'SASL_PLAINTEXT', 'properties.sasl.mechanism' = 'PLAIN',
                 'properties.sasl.username' = 'reader', 'properties.sasl.password' = '${secret:kafka}'";
    let sql = copy(&kafka, &topic, &format!("{BOUNDED}, {login}"), ALL);
    let run = |password: &str| Run::sql(work.path(), &sql).env("EDGEFLOW_SECRET_KAFKA", password).done();
    let failed = error(run("wrong-canary"));
    assert!(failed.contains("authentication failed at") && !failed.contains("wrong-canary"), "{failed}");
    let failed = error(run("t0p-secret"));
    assert!(failed.contains(&format!("topic \"{topic}\": not authorised at")), "{failed}");
    kafka.client().allow("reader", Resource::Topic(&topic), Right::Read).expect("a right is given");
    kafka.client().allow("reader", Resource::Group(&topic), Right::Read).expect("a right is given");
    let mut last = String::new();
    let read = wait::until(wait::PATIENCE, || {
        let done = run("t0p-secret");
        last.clone_from(&done.stderr);
        done.code == Some(0)
    });
    assert!(read, "{last}");
    assert_numbers(work.path(), 0..10);
}

#[test]
fn a_broker_that_goes_away_is_waited_for() {
    let Some(mut kafka) = Kafka::start("a broker that goes away", Options::default()) else { return };
    let topic = unique("away");
    kafka.client().create_topic(&topic, 2, &[]).expect("a topic is made");
    kafka.client().produce(&topic, &numbers(0..1000, 2)).expect("rows are written");
    let work = work();
    let mut running = Run::sql(work.path(), &copy(&kafka, &topic, EARLIEST, ALL))
        .args(&["--state-dir", "state"])
        .start()
        .expect("efctl starts");
    running.until(|| written(work.path()).len() == 1000).expect("rows come");
    kafka.kill();
    kafka.start_again().expect("it comes back");
    kafka.client().produce(&topic, &numbers(1000..2000, 2)).expect("rows are written");
    running.until(|| written(work.path()).len() >= 2000).expect("rows come again");
    assert!(!running.ended(), "it goes on");
    running.signal(libc::SIGINT);
    running.wait().expect("it stops");
    assert_numbers(work.path(), 0..2000);
}
