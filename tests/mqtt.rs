//! The `mqtt` connector against a real Mosquitto: nothing that was acknowledged is lost, whatever is killed or cut, and
//! with a key nothing is read twice.

mod publisher;

use ef_tests::proxy::Proxy;
use ef_tests::rows::directory;
use ef_tests::seed::seed;
use ef_tests::servers::mosquitto::{Login, Mosquitto, Options, Tls};
use ef_tests::shared::say;
use ef_tests::wait::{self, PATIENCE};
use ef_tests::{Run, Running};
use publisher::Publisher;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Its sessions survive when it is stopped. None, and it is said, where the machine has no Mosquitto.
#[track_caller]
fn start_broker(options: Options) -> Option<Mosquitto> {
    Mosquitto::start("MQTT jobs", Options { stores_at_end_only: true, ..options })
}

fn url(broker: &Mosquitto) -> String {
    format!("mqtt://127.0.0.1:{}", broker.port())
}

/// Waits until `count` have subscribed since the broker's last start.
fn subscribed(broker: &Mosquitto, count: usize) -> bool {
    wait::until(PATIENCE, || broker.said().matches("Sending SUBACK").count() >= count)
}

fn job(url: &str, options: &str) -> String {
    format!(
        "SET 'execution.checkpointing.interval' = '200 ms';
         CREATE TABLE message (id BIGINT, topic STRING METADATA VIRTUAL, qos INT METADATA VIRTUAL)
         WITH ('connector' = 'mqtt', 'url' = '{url}', 'format' = 'json'{options});
         CREATE TABLE kept (id BIGINT, topic STRING, qos INT)
         WITH ('connector' = 'filesystem', 'path' = 'kept', 'format' = 'json');
         INSERT INTO kept SELECT id, topic, qos FROM message;"
    )
}

fn start(work: &Path, sql: &str, args: &[&str]) -> Running {
    Run::sql(work, sql).args(&["--state-dir", "state"]).args(args).start().expect("efctl starts")
}

/// How often each id is in the output.
fn ids(work: &Path) -> BTreeMap<u64, usize> {
    let mut ids = BTreeMap::new();
    for line in directory(&work.join("kept")).lines() {
        let row: serde_json::Value = serde_json::from_str(line).expect("a row");
        *ids.entry(row["id"].as_u64().expect("an id")).or_default() += 1;
    }
    ids
}

fn wait_for(work: &Path, count: usize) -> bool {
    wait::until(PATIENCE, || ids(work).len() >= count)
}

fn errors(work: &Path) -> String {
    std::fs::read_to_string(work.join(".stderr")).unwrap_or_default()
}

/// Unless EDGEFLOW_CHAOS_FAULTS says otherwise.
const FAULTS: u64 = 12;
const PER_SECOND: u64 = 10_000;
/// More than come between two faults.
const PER_FAULT: u64 = PER_SECOND;

#[test]
fn nothing_acknowledged_is_lost_or_read_twice_whatever_is_killed_or_cut() {
    // Mosquitto writes down every two seconds what it has. What it took since then a kill -9 makes it forget, subscriptions
    // included; a device whose connection broke sends that again.
    let options = Options {
        stores_at_end_only: true,
        lines: ["autosave_interval 1", "autosave_on_changes false"].map(String::from).to_vec(),
        ..Options::default()
    };
    let Some(mut broker) = start_broker(options) else { return };
    let work = tempfile::tempdir().expect("a temporary directory");
    let proxy = Proxy::start(([127, 0, 0, 1], broker.port()).into(), 7);
    let url = format!("mqtt://{}", proxy.address());
    let sql = job(&url, ", 'topic' = 'sensors/#', 'mqtt.dedup.key' = 'id'");
    let mut running = start(work.path(), &sql, &[]);
    assert!(subscribed(&broker, 1), "{}", errors(work.path()));
    assert!(wait::until(wait::PATIENCE, || broker.has_stored(b"sensors/#")), "the subscription is written down");

    let wanted = std::env::var("EDGEFLOW_CHAOS_FAULTS");
    let wanted = wanted.map_or(FAULTS, |text| text.parse().expect("EDGEFLOW_CHAOS_FAULTS is a number"));
    let seed = seed();
    let mut rng = SmallRng::seed_from_u64(seed);
    let count = wanted * PER_FAULT;
    let publisher = Publisher::start(broker.port(), "sensors/a", count, PER_SECOND, 6 * PER_SECOND);
    let mut faults = Vec::new();
    while faults.len() < wanted as usize {
        wait::nap(Duration::from_millis(rng.random_range(150..650)));
        faults.push(match rng.random_range(0..5) {
            0 | 1 => {
                running.signal(libc::SIGKILL);
                running.wait().expect("it is gone");
                running = start(work.path(), &sql, &[]);
                "worker"
            }
            2 => {
                proxy.cut();
                wait::nap(Duration::from_millis(100));
                proxy.heal();
                "network"
            }
            3 => {
                broker.kill();
                broker.start_again().expect("it starts again");
                "broker"
            }
            _ => {
                broker.stop().expect("it ends");
                broker.start_again().expect("it starts again");
                "broker asked to end"
            }
        });
    }
    let taken = publisher.finish();
    assert_eq!(taken, count);
    let all = wait_for(work.path(), count as usize);
    running.signal(libc::SIGINT);
    let done = running.wait().expect("it stops");
    let found = ids(work.path());
    let missing: Vec<u64> = (0..count).filter(|id| !found.contains_key(id)).take(10).collect();
    assert!(
        all && missing.is_empty(),
        "EDGEFLOW_SEED={seed}: {} of {count}, missing {missing:?} after {faults:?}\n{}",
        found.len(),
        done.stderr
    );
    let twice: Vec<_> = found.iter().filter(|(_, times)| **times > 1).take(10).collect();
    assert!(twice.is_empty(), "EDGEFLOW_SEED={seed}: {twice:?} after {faults:?}");
    say(&format!("MQTT: EDGEFLOW_SEED={seed}, {count} messages, {} faults: each once", faults.len()));
}

#[test]
fn broker_that_is_away_at_the_start_is_waited_for() {
    let Some(mut broker) = start_broker(Options::default()) else { return };
    let work = tempfile::tempdir().expect("a temporary directory");
    broker.stop().expect("it ends");
    let sql = job(&url(&broker), ", 'topic' = 'a/+/c;b', 'protocol.version' = '3.1.1', 'qos' = '2'");
    let mut running = start(work.path(), &sql, &[]);
    running.until(|| errors(work.path()).contains("attempt 2")).expect("it tries");
    assert!(!running.ended(), "{}", errors(work.path()));
    broker.start_again().expect("it starts again");
    assert!(subscribed(&broker, 1));
    let mut publisher = broker.session(&Login::new("publisher")).expect("it connects");
    for (topic, id) in [("a/x/c", 1), ("a/x/d", 2), ("b", 3), ("a/y/c", 4)] {
        publisher.publish_once(topic, &format!("{{\"id\":{id}}}")).expect("it is taken");
    }
    assert!(wait_for(work.path(), 3), "{}", errors(work.path()));
    running.signal(libc::SIGINT);
    running.wait().expect("it stops");
    assert_eq!(ids(work.path()).into_keys().collect::<Vec<_>>(), [1, 3, 4]);
    let text = directory(&work.path().join("kept"));
    assert!(text.contains(r#""topic":"a/y/c","qos":2"#), "{text}");
}

#[test]
fn wrong_password_is_an_error_and_the_right_one_is_found_by_its_name() {
    let users = vec![("me", "s3cret")];
    let Some(broker) = start_broker(Options { users, ..Options::default() }) else { return };
    let options = ", 'topic' = 'a', 'username' = 'me', 'password' = '${secret:broker}'";
    let sql = job(&url(&broker), options);
    let work = tempfile::tempdir().expect("a temporary directory");
    let done = Run::sql(work.path(), &sql).env("EDGEFLOW_SECRET_BROKER", "wrong-w0rd").done();
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(
        done.stderr.contains("refused the connection") && done.stderr.contains("not authorized"),
        "{}",
        done.stderr
    );
    assert!(!done.stderr.contains("wrong-w0rd"), "{}", done.stderr);
    let mut running =
        Run::sql(work.path(), &sql).env("EDGEFLOW_SECRET_BROKER", "s3cret").start().expect("efctl starts");
    assert!(subscribed(&broker, 1), "{}", errors(work.path()));
    assert!(!running.ended());
}

#[test]
fn subtasks_share_the_messages_of_a_group() {
    let Some(broker) = start_broker(Options::default()) else { return };
    let work = tempfile::tempdir().expect("a temporary directory");
    let sql = job(&url(&broker), ", 'topic' = 'sensors/#', 'shared.group' = 'g', 'mqtt.dedup.key' = 'id'");
    let running = start(work.path(), &sql, &["-p", "2"]);
    assert!(subscribed(&broker, 2), "{}", broker.log_tail(30));
    let publisher = Publisher::start(broker.port(), "sensors/a", 10_000, 20_000, 0);
    assert_eq!(publisher.finish(), 10_000);
    assert!(wait_for(work.path(), 10_000), "{} came\n{}", ids(work.path()).len(), errors(work.path()));
    running.signal(libc::SIGINT);
    running.wait().expect("it stops");
    assert!(ids(work.path()).values().all(|times| *times == 1));
    let logs = std::fs::read_dir(work.path().join("state/.edgeflow-durable")).expect("a log").count();
    assert_eq!(logs, 1, "of one job");
}

#[test]
fn what_a_sink_writes_is_taken_by_the_broker_before_the_job_ends() {
    let Some(broker) = start_broker(Options::default()) else { return };
    let work = tempfile::tempdir().expect("a temporary directory");
    let mut listener = broker.listen("plants/#").expect("it subscribes");
    let sql = format!(
        "CREATE TABLE n (i BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '1000', 'fields.i.kind' = 'sequence',
                                         'fields.i.start' = '0', 'fields.i.end' = '999');
         CREATE TABLE o (plant BIGINT, i BIGINT) WITH ('connector' = 'mqtt', 'url' = '{}', 'qos' = '2',
             'topic' = 'plants/{{plant}}/out', 'format' = 'json', 'sink.user-properties' = 'line:7');
         INSERT INTO o SELECT i % 3, i FROM n;",
        url(&broker)
    );
    Run::sql(work.path(), &sql).done().success();
    let heard = listener.receive(1000).expect("all come");
    let mut lines: Vec<String> = heard
        .into_iter()
        .map(|message| {
            let properties: Vec<String> = message.user_properties.iter().map(|(k, v)| format!("{k}:{v}")).collect();
            format!("{} {} {}", message.topic, message.payload, properties.join(" "))
        })
        .collect();
    lines.sort_unstable();
    let mut expected: Vec<String> =
        (0..1000).map(|i| format!("plants/{}/out {{\"plant\":{},\"i\":{i}}} line:7", i % 3, i % 3)).collect();
    expected.sort_unstable();
    assert_eq!(lines, expected);
}

#[test]
fn broker_behind_tls_is_believed_by_its_certificate_only() {
    let Some(broker) = start_broker(Options { tls: Tls::OfServer, ..Options::default() }) else { return };
    let url = format!("mqtts://127.0.0.1:{}", broker.tls_port());
    let work = tempfile::tempdir().expect("a temporary directory");
    let done = Run::sql(work.path(), &job(&url, ", 'topic' = 'a'")).done();
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains("invalid peer certificate"), "{}", done.stderr);
    let authority = broker.certificates().expect("it has TLS").authority();
    let pem = std::fs::read_to_string(authority).expect("readable");
    let sql = job(&url, ", 'topic' = 'a', 'tls.ca.pem' = '${secret:ca}'");
    let running = Run::sql(work.path(), &sql).env("EDGEFLOW_SECRET_CA", &pem).start().expect("efctl starts");
    assert!(subscribed(&broker, 1), "{}", errors(work.path()));
    let mut publisher = broker.session(&Login::new("publisher")).expect("it connects");
    publisher.publish("a", &[b"{\"id\":7}".to_vec()]).expect("it is taken");
    assert!(wait_for(work.path(), 1), "{}", errors(work.path()));
    running.signal(libc::SIGINT);
    running.wait().expect("it stops");
}
