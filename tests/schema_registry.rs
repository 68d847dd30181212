//! `'format' = 'avro-confluent'` over a real Kafka, with a schema registry as Confluent's answers: what is written is read
//! again, a registry that is away is said and loses nothing, and messages that are none go where they are to go.

use ef_tests::Run;
use ef_tests::rows::directory;
use ef_tests::servers::http::{Answer, Http};
use ef_tests::servers::kafka::{Isolation, Kafka, Row, unique};
use ef_tests::table::objects;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

struct Registry {
    http: Http,
    away: Arc<AtomicBool>,
}

/// Ids are given from 1, the same for the same schema.
fn registry() -> Registry {
    let (away, schemas) = (Arc::new(AtomicBool::new(false)), Mutex::new(Vec::<String>::new()));
    let is_away = away.clone();
    let http = Http::start(move |_, request| {
        if is_away.load(Ordering::Relaxed) {
            return Some(Answer::new(503, r#"{"error_code":50003,"message":"leader not available"}"#));
        }
        let mut schemas = schemas.lock().expect("no answer panicked");
        Some(match request.target.strip_prefix("/schemas/ids/") {
            Some(id) => match id.parse::<usize>().ok().and_then(|id| schemas.get(id.checked_sub(1)?)) {
                Some(schema) => Answer::new(200, json!({ "schema": schema }).to_string()),
                None => Answer::new(404, r#"{"error_code":40403,"message":"Schema not found"}"#),
            },
            None if request.target.starts_with("/subjects/") => {
                let body: Value = serde_json::from_str(&request.body).expect("a request has a JSON object");
                let schema = body["schema"].as_str().expect("with a schema").to_string();
                let known = schemas.iter().position(|known| *known == schema);
                let at = known.unwrap_or_else(|| {
                    schemas.push(schema);
                    schemas.len() - 1
                });
                Answer::new(200, json!({ "id": at + 1 }).to_string())
            }
            None => Answer::new(200, r#"["AVRO"]"#),
        })
    });
    Registry { http, away }
}

fn table(kafka: &Kafka, topic: &str, registry: &Registry, more: &str) -> String {
    format!(
        "'connector' = 'kafka', 'topic' = '{topic}', 'properties.bootstrap.servers' = '{}', 'format' = 'avro-confluent',
         'avro-confluent.url' = '{}'{more}",
        kafka.bootstrap(),
        registry.http.url()
    )
}

fn write(kafka: &Kafka, topic: &str, registry: &Registry) -> String {
    let with = table(kafka, topic, registry, &format!(", 'avro-confluent.subject' = '{topic}-value'"));
    format!(
        "CREATE TABLE source (n BIGINT) WITH ('connector' = 'datagen', 'fields.n.kind' = 'sequence',
           'fields.n.start' = '0', 'fields.n.end' = '999');
         CREATE TABLE target (n BIGINT, name STRING, half DOUBLE) WITH ({with});
         INSERT INTO target SELECT n, CASE WHEN MOD(n, 3) > 0 THEN CONCAT('row ', CAST(n AS STRING)) END, n / 2E0 FROM source;"
    )
}

/// The reader knows a column less, and one that the writer does not have.
fn read(kafka: &Kafka, topic: &str, registry: &Registry, more: &str) -> String {
    let bounds = "'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset'";
    let with = table(kafka, topic, registry, &format!(", {bounds}{more}"));
    format!(
        "CREATE TABLE dead (`table` STRING, file STRING, line BIGINT, raw STRING, error STRING)
           WITH ('connector' = 'filesystem', 'path' = 'dead', 'format' = 'json');
         CREATE TABLE source (name STRING, n BIGINT, later INT) WITH ({with});
         CREATE TABLE result (name STRING, n BIGINT, later INT)
           WITH ('connector' = 'filesystem', 'path' = 'result', 'format' = 'json');
         INSERT INTO result SELECT name, n, later FROM source;"
    )
}

/// Rows of [`write`], where every reader sees them.
#[track_caller]
fn written(kafka: &Kafka, topic: &str, registry: &Registry, work: &Path) {
    Run::sql(work, &write(kafka, topic, registry)).done().success();
    kafka.client().wait_closed(topic).expect("it was committed");
}

#[track_caller]
fn assert_read(work: &Path) {
    let mut found: Vec<Value> = objects(&directory(&work.join("result"))).into_iter().map(Value::Object).collect();
    found.sort_by_key(|row| row["n"].as_i64());
    let name = |n: i64| if n % 3 > 0 { json!(format!("row {n}")) } else { Value::Null };
    let expected: Vec<Value> = (0..1000).map(|n| json!({"name": name(n), "n": n, "later": null})).collect();
    assert_eq!(found, expected);
}

#[test]
fn what_is_written_with_a_registered_schema_is_read_with_another_one() {
    let Some(kafka) = Kafka::shared("Avro with a schema registry") else { return };
    let (topic, registry) = (unique("avro"), registry());
    kafka.client().create_topic(&topic, 2, &[]).expect("a topic is made");
    let work = tempfile::tempdir().expect("a temporary directory");
    written(kafka, &topic, &registry, work.path());
    let records = kafka.client().read_all(&topic, Isolation::Committed).expect("it can be read");
    let head = |record: &[u8]| record[..5] == [0, 0, 0, 0, 1];
    assert!(records.len() == 1000 && records.iter().all(|record| record.value.as_deref().is_some_and(head)));
    Run::sql(work.path(), &read(kafka, &topic, &registry, "")).done().success();
    assert_read(work.path());
}

#[test]
fn a_registry_that_is_away_is_said_and_what_it_was_asked_for_comes_later() {
    let Some(kafka) = Kafka::shared("a schema registry that is away") else { return };
    let (topic, registry) = (unique("away"), registry());
    kafka.client().create_topic(&topic, 1, &[]).expect("a topic is made");
    let work = tempfile::tempdir().expect("a temporary directory");
    let away = |is: bool| registry.away.store(is, Ordering::Relaxed);
    let fails = |sql: &str| {
        let done = Run::sql(work.path(), sql).done();
        assert_eq!(done.code, Some(1), "{}", done.stderr);
        let says = format!("schema registry {}: it answers 503", registry.http.url());
        assert!(done.stderr.contains(&says) && done.stderr.contains("leader not available"), "{}", done.stderr);
    };
    away(true);
    fails(&write(kafka, &topic, &registry));
    assert_eq!(kafka.client().read_all(&topic, Isolation::Committed).expect("it can be read"), []);
    away(false);
    written(kafka, &topic, &registry, work.path());
    away(true);
    fails(&read(kafka, &topic, &registry, ""));
    away(false);
    Run::sql(work.path(), &read(kafka, &topic, &registry, "")).done().success();
    assert_read(work.path());
}

#[test]
fn messages_that_are_none_stop_the_job_with_their_offset_or_go_to_the_error_table() {
    let Some(kafka) = Kafka::shared("poison in Avro") else { return };
    let (topic, registry) = (unique("poison"), registry());
    kafka.client().create_topic(&topic, 1, &[]).expect("a topic is made");
    let work = tempfile::tempdir().expect("a temporary directory");
    written(kafka, &topic, &registry, work.path());
    let poison: [&[u8]; 5] = [b"", b"plain text", &[0, 0, 0, 0, 9, 2, 4], &[0, 0, 0], &[0, 0, 0, 0, 1, 2]];
    kafka.client().produce(&topic, &poison.map(Row::new)).expect("rows are written");
    Run::sql(work.path(), &read(kafka, &topic, &registry, ", 'error.table' = 'dead'")).done().success();
    assert_read(work.path());
    let dead = objects(&directory(&work.path().join("dead")));
    assert_eq!(dead.len(), poison.len(), "{dead:?}");
    assert!(dead.iter().all(|row| row["file"] == format!("{topic}/0")), "{dead:?}");
    assert!(dead[2]["error"].as_str().is_some_and(|error| error.contains('9')), "{dead:?}");
    let done = Run::sql(work.path(), &read(kafka, &topic, &registry, "")).done();
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains(&format!("topic {topic} partition 0 offset")), "{}", done.stderr);
}
