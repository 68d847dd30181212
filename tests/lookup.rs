//! Lookup joins of the real `efctl` with a real Redis and a web service: what they find, what they do when the other
//! side is slow, wrong or away, and that no secret is shown.

use ef_tests::Run;
use ef_tests::servers::http::{Answer, Http};
use ef_tests::servers::redis::{Options, Redis};
use ef_tests::table::objects;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

const PASSWORD: &str = "pa55-of-the-test";

/// None, and it is said, where the machine has no Redis.
#[track_caller]
fn redis() -> Option<Redis> {
    Redis::start("lookups in Redis", Options { password: Some(PASSWORD), ..Options::default() })
}

/// Each is one command.
#[track_caller]
fn tell(redis: &Redis, commands: &[&[&str]]) {
    for words in commands {
        redis.ask(words).expect("it answers");
    }
}

const ORDERS: &str = "CREATE TABLE orders (id INT, device_id INT, site STRING, proc_time AS PROCTIME())
  WITH ('connector' = 'filesystem', 'path' = 'orders.ndjson', 'format' = 'json');\n";

/// Devices 1 to 4, twice round, and one that is NULL.
fn work() -> tempfile::TempDir {
    let work = tempfile::tempdir().expect("a temporary directory");
    let mut rows = String::new();
    for id in 0..8 {
        rows += &format!("{}\n", json!({"id": id, "device_id": id % 4 + 1, "site": "a/b"}));
    }
    rows += "{\"id\":8,\"device_id\":null,\"site\":\"x\"}\n";
    std::fs::write(work.path().join("orders.ndjson"), rows).expect("writable");
    work
}

fn redis_table(redis: &Redis, columns: &str, more: &str) -> String {
    format!(
        "{ORDERS}CREATE TABLE devices ({columns}, PRIMARY KEY (id) NOT ENFORCED)
         WITH ('connector' = 'redis', 'url' = 'redis://127.0.0.1:{}/0', 'password' = '${{secret:redis-password}}',
               'key.prefix' = 'device:'{more});\n",
        redis.port()
    )
}

fn run(work: &Path, sql: &str) -> Run {
    Run::sql(work, sql).env("EDGEFLOW_SECRET_REDIS_PASSWORD", PASSWORD)
}

/// By `id`.
fn rows(run: Run) -> Vec<Value> {
    let done = run.done().success();
    let mut rows: Vec<Value> = objects(&done.stdout).into_iter().map(Value::Object).collect();
    rows.sort_by_key(|row| row["id"].as_i64());
    rows
}

#[test]
fn rows_of_redis_strings_join_the_stream() {
    let (Some(redis), work) = (redis(), work()) else { return };
    tell(
        &redis,
        &[
            &["SET", "device:1", r#"{"room":"kitchen","floor_no":1}"#],
            &["SET", "device:2", r#"{"room":"attic","floor_no":7}"#],
            &["SET", "device:4", r#"{"room":"cellar","floor_no":-1,"more":[1,2]}"#],
        ],
    );
    let table = redis_table(&redis, "id INT, room STRING, floor_no INT", ", 'format' = 'json'");
    let inner = format!(
        "{table}SELECT o.id, d.id AS found, d.room FROM orders AS o
         JOIN devices FOR SYSTEM_TIME AS OF o.proc_time AS d ON o.device_id = d.id WHERE d.floor_no > 0;"
    );
    let expected = [(0, 1, "kitchen"), (1, 2, "attic"), (4, 1, "kitchen"), (5, 2, "attic")];
    let expected: Vec<Value> =
        expected.map(|(id, found, room)| json!({"id": id, "found": found, "room": room})).to_vec();
    for arguments in [&["-p", "1"], &["-p", "3"]] {
        assert_eq!(rows(run(work.path(), &inner).args(arguments)), expected);
    }
    let outer = format!(
        "{table}SELECT o.id, d.room FROM orders AS o LEFT JOIN devices FOR SYSTEM_TIME AS OF o.proc_time AS d
         ON o.device_id = d.id AND d.floor_no > 0;"
    );
    let found = rows(run(work.path(), &outer));
    let rooms: Vec<Value> = found.iter().map(|row| row["room"].clone()).collect();
    let none = Value::Null;
    let round = [json!("kitchen"), json!("attic"), none.clone(), none.clone()];
    assert_eq!(rooms, [&round[..], &round, &[none]].concat());
}

#[test]
fn rows_of_redis_hashes_and_plain_values_join_the_stream() {
    let (Some(redis), work) = (redis(), work()) else { return };
    tell(
        &redis,
        &[
            &["HSET", "device:1", "room", "kitchen", "area", "12.5", "seen", "2026-03-14 06:59:00.273"],
            &["HSET", "device:2", "room", "attic"],
            &["HSET", "device:3", "other", "x"],
            &["SET", "name:1", "lamp \"one\""],
        ],
    );
    let hash = redis_table(&redis, "id INT, room STRING, area DOUBLE, seen TIMESTAMP(3)", ", 'mode' = 'hash'");
    let found = rows(run(
        work.path(),
        &format!(
            "{hash}SELECT o.id, d.room, d.area, CAST(d.seen AS STRING) AS seen FROM orders AS o
             JOIN devices FOR SYSTEM_TIME AS OF o.proc_time AS d ON o.device_id = d.id WHERE o.id < 4;"
        ),
    ));
    let expected = [
        json!({"id": 0, "room": "kitchen", "area": 12.5, "seen": "2026-03-14 06:59:00.273"}),
        json!({"id": 1, "room": "attic", "area": null, "seen": null}),
        json!({"id": 2, "room": null, "area": null, "seen": null}),
    ];
    assert_eq!(found, expected);
    let plain = redis_table(&redis, "id INT, name STRING", "").replace("device:", "name:");
    let found = rows(run(
        work.path(),
        &format!(
            "{plain}SELECT o.id, name FROM orders AS o JOIN devices FOR SYSTEM_TIME AS OF o.proc_time AS d ON o.device_id = d.id;"
        ),
    ));
    assert_eq!(found, [json!({"id": 0, "name": "lamp \"one\""}), json!({"id": 4, "name": "lamp \"one\""})]);
    let there = rows(run(
        work.path(),
        &format!(
            "{hash}SELECT o.id FROM orders AS o JOIN devices FOR SYSTEM_TIME AS OF o.proc_time AS d ON o.device_id = d.id;"
        ),
    ));
    assert_eq!(there.len(), 6, "a hash without any of the columns is a row all the same");
}

#[test]
fn a_redis_that_fails_fails_the_job_with_the_key_and_without_the_password() {
    let (Some(mut redis), work) = (redis(), work()) else { return };
    let more = ", 'format' = 'json', 'lookup.max-retries' = '1'";
    let query = "SELECT o.id, d.room FROM orders AS o
        JOIN devices FOR SYSTEM_TIME AS OF o.proc_time AS d ON o.device_id = d.id WHERE o.id = 2;";
    let sql =
        format!("SET 'restart-strategy.type' = 'none';\n{}{query}", redis_table(&redis, "id INT, room STRING", more));
    let fails = |run: Run, words: &[&str]| {
        let done = run.done();
        assert_eq!(done.code, Some(1), "{}", done.stderr);
        for word in words {
            assert!(done.stderr.contains(word), "`{word}` is not in\n{}", done.stderr);
        }
        assert!(!done.stderr.contains(PASSWORD), "{}", done.stderr);
    };
    let key = "lookup of table `devices`, id = '3'";
    tell(&redis, &[&["SET", "device:3", "{\"room\": 5"]]);
    fails(run(work.path(), &sql), &[key]);
    tell(&redis, &[&["DEL", "device:3"], &["HSET", "device:3", "a", "b"]]);
    // MGET passes over what is no string, so there is no row.
    assert!(rows(run(work.path(), &sql)).is_empty());
    let hash = sql.replace(more, ", 'mode' = 'hash', 'lookup.max-retries' = '1'");
    tell(&redis, &[&["DEL", "device:3"], &["SET", "device:3", "text"]]);
    fails(run(work.path(), &hash), &[key, "WRONGTYPE"]);
    fails(Run::sql(work.path(), &sql).env("EDGEFLOW_SECRET_REDIS_PASSWORD", "wrong-one"), &[key, "redis"]);
    fails(Run::sql(work.path(), &sql), &["secret 'redis-password'"]);
    redis.kill();
    fails(run(work.path(), &sql), &[key, "after 2 attempts"]);
}

/// What a path with its query is answered with, in turn; the last one for ever.
type Answers = BTreeMap<&'static str, Vec<(u16, String)>>;

/// What has no answer is not there; redirects lead to the second room.
fn service(answers: Answers) -> Http {
    Http::start(move |before, request| {
        let turn = before.iter().filter(|other| other.target == request.target).count();
        let (status, body) = match answers.get(request.target.as_str()) {
            Some(list) => list[turn.min(list.len() - 1)].clone(),
            None => (404, "no such thing".into()),
        };
        let answer = Answer::new(status, body);
        Some(if (300..400).contains(&status) { answer.header("location", "/rooms/2") } else { answer })
    })
}

fn http_table(service: &Http, path: &str, more: &str) -> String {
    format!(
        "SET 'restart-strategy.type' = 'none';
         {ORDERS}CREATE TABLE rooms (device_id INT, site STRING, room STRING, area DOUBLE)
         WITH ('connector' = 'http', 'url' = '{}{path}', 'format' = 'json',
               'headers.X-Token' = '${{secret:redis-password}}'{more});\n",
        service.url()
    )
}

const JOIN: &str = "SELECT o.id, r.room, r.area FROM orders AS o
    LEFT JOIN rooms FOR SYSTEM_TIME AS OF o.proc_time AS r ON o.device_id = r.device_id";

#[test]
fn rows_of_a_web_service_join_the_stream() {
    let answers = Answers::from([
        ("/rooms/1", vec![(200, "{\n  \"room\": \"kitchen\",\n  \"area\": 12.5\n}\n".into())]),
        ("/rooms/2", vec![(503, "busy".into()), (429, "slowly".into()), (200, r#"{"room":"attic"}"#.into())]),
        ("/rooms/3", vec![(200, r#"[{"room":"a","area":1},{"room":"b","area":2}]"#.into())]),
    ]);
    let (service, work) = (service(answers), work());
    let found = rows(run(
        work.path(),
        &format!("{}{JOIN} WHERE o.id < 4 OR o.id = 8;", http_table(&service, "/rooms/{device_id}", "")),
    ));
    let expected = [
        json!({"id": 0, "room": "kitchen", "area": 12.5}),
        json!({"id": 1, "room": "attic", "area": null}),
        json!({"id": 2, "room": "a", "area": 1.0}),
        json!({"id": 2, "room": "b", "area": 2.0}),
        json!({"id": 3, "room": null, "area": null}),
        json!({"id": 8, "room": null, "area": null}),
    ];
    assert_eq!(found, expected);
    let seen = service.requests();
    assert_eq!(seen.len(), 6, "each key once, and twice again for the one that was busy: {seen:?}");
    assert!(seen.iter().all(|request| request.header("x-token") == PASSWORD));
}

#[test]
fn keys_are_encoded_and_those_without_a_place_are_parameters() {
    let answers = Answers::from([
        ("/d/a%2Fb?device_id=1", vec![(200, r#"{"room":"one"}"#.into())]),
        ("/q?lang=en&device_id=1&site=a%2Fb", vec![(200, r#"{"room":"two"}"#.into())]),
    ]);
    let (service, work) = (service(answers), work());
    let of = |path: &str| {
        let sql = format!("{}{JOIN} AND r.site = o.site WHERE o.id = 0;", http_table(&service, path, ""));
        rows(run(work.path(), &sql))[0]["room"].clone()
    };
    assert_eq!(of("/d/{site}?device_id={device_id}"), json!("one"));
    assert_eq!(of("/q?lang=en"), json!("two"));
}

#[test]
fn a_web_service_that_answers_wrongly_fails_the_job_with_the_key() {
    let big = format!("{{\"room\":\"{}\"}}", "x".repeat(5_000));
    let answers = Answers::from([
        ("/gone/1", vec![(500, "no".into())]),
        ("/forbidden/1", vec![(403, "no".into())]),
        ("/elsewhere/1", vec![(302, "no".into())]),
        ("/rooms/2", vec![(200, "{}".into())]),
        ("/broken/1", vec![(200, "{\"room\": ".into())]),
        ("/wrong/1", vec![(200, "{\"area\": \"wide\"}".into())]),
        ("/big/1", vec![(200, big)]),
    ]);
    let (service, work) = (service(answers), work());
    for (path, requests, word) in [
        ("/gone", 2, "500 Internal Server Error (after 2 attempts)"),
        ("/forbidden", 1, "403 Forbidden"),
        ("/elsewhere", 1, "redirects are not followed"),
        ("/broken", 1, "device_id = '1': "),
        ("/wrong", 1, "column \"area\""),
        ("/big", 1, "lookup.response.max-bytes"),
    ] {
        let more = ", 'lookup.max-retries' = '1', 'lookup.response.max-bytes' = '4 kb'";
        let table = http_table(&service, &format!("{path}/{{device_id}}"), more);
        let done = run(work.path(), &format!("{table}{JOIN} WHERE o.id = 0;")).done();
        assert_eq!(done.code, Some(1), "{path}: {}", done.stderr);
        for word in ["lookup of table `rooms`, device_id = '1'", word] {
            assert!(done.stderr.contains(word), "{path}: `{word}` is not in\n{}", done.stderr);
        }
        assert!(!done.stderr.contains(PASSWORD), "{}", done.stderr);
        let asked = service.requests().iter().filter(|request| request.target.starts_with(path)).count();
        assert_eq!(asked, requests, "{path}");
    }
    let seen = service.requests();
    assert!(seen.iter().all(|request| request.target != "/rooms/2"), "a redirect was followed");
}

#[test]
fn a_cached_answer_is_not_asked_for_again() {
    let answers = Answers::from([("/rooms/1", vec![(200, r#"{"room":"kitchen"}"#.into())])]);
    let (service, work) = (service(answers), work());
    // Rows that come in many batches: from files that follow each other.
    let more = ", 'lookup.cache' = 'PARTIAL', 'lookup.partial-cache.max-rows' = '100'";
    let row = |id: i32, device: i32| format!("{}\n", json!({"id": id, "device_id": device, "site": "x"}));
    std::fs::remove_file(work.path().join("orders.ndjson")).expect("ours");
    std::fs::create_dir(work.path().join("orders.ndjson")).expect("ours");
    for file in 0..20 {
        let text: String = (0..10).map(|n| row(file * 10 + n, n % 2 + 1)).collect();
        std::fs::write(work.path().join(format!("orders.ndjson/{file:02}.ndjson")), text).expect("ours");
    }
    let sql = format!("{}{JOIN};", http_table(&service, "/rooms/{device_id}", more));
    let found = rows(run(work.path(), &sql));
    let known = found.iter().filter(|row| row["room"] == "kitchen").count();
    assert_eq!((found.len(), known), (200, 100));
    assert_eq!(service.requests().len(), 2, "two keys, one of them without a row");
}

#[test]
fn a_lookup_passes_each_row_on_once_while_checkpoints_are_taken() {
    let Some(redis) = redis() else { return };
    let work = tempfile::tempdir().expect("a temporary directory");
    for device in 1..=4 {
        tell(&redis, &[&["SET", &format!("device:{device}"), &format!("{{\"room\":\"room {device}\"}}")]]);
    }
    let sql = format!(
        "SET 'execution.checkpointing.interval' = '50 ms';
         {}CREATE TABLE g (id BIGINT, device_id INT, proc_time AS PROCTIME())
         WITH ('connector' = 'datagen', 'number-of-rows' = '20000', 'rows-per-second' = '40000',
               'fields.id.kind' = 'sequence', 'fields.id.start' = '0', 'fields.id.end' = '19999',
               'fields.device_id.min' = '1', 'fields.device_id.max' = '5');
         CREATE TABLE o (id BIGINT, room STRING) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');
         INSERT INTO o SELECT g.id, d.room FROM g
         LEFT JOIN devices FOR SYSTEM_TIME AS OF g.proc_time AS d ON g.device_id = d.id;",
        redis_table(&redis, "id INT, room STRING", ", 'format' = 'json'")
    );
    run(work.path(), &sql).args(&["-p", "2"]).done().success();
    let out = ef_tests::rows::directory(&work.path().join("out"));
    let found = objects(&out);
    let mut ids: Vec<i64> = found.iter().filter_map(|row| row["id"].as_i64()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..20_000).collect::<Vec<i64>>());
    let without = found.iter().filter(|row| row["room"].is_null()).count();
    assert!((2_000..6_000).contains(&without), "one device in five is unknown: {without}");
}
