//! What the exactly-once sink builds on, walked against a real Apache Kafka: transactions, the marker in them, fencing,
//! and what readers see of it; also after kill -9 of the broker, and for users who may not do everything.

use ef_tests::servers::kafka::{ADMIN, Isolation, Kafka, Options, Resource, Right, Row, Transactions, unique};
use ef_tests::wait;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use std::time::Duration;

/// As the sink will write it.
const METADATA: &str = "v1 lineage=5d1c9a rows=3 crc=0a1b2c3d";

fn texts(kafka: &Kafka, topic: &str, isolation: Isolation) -> Vec<String> {
    let records = kafka.client().read_all(topic, isolation).expect("the topic is read");
    records.iter().map(|record| record.text().to_string()).collect()
}

/// The epoch and the metadata of a slot's marker.
fn marker(kafka: &Kafka, group: &str, topic: &str) -> Option<(i64, String)> {
    let committed = kafka.client().committed(group, topic).expect("offsets are read");
    assert!(committed.keys().all(|partition| *partition == 0), "{committed:?}");
    committed.into_values().next().map(|marker| (marker.offset, marker.metadata))
}

fn code(error: &anyhow::Error) -> Option<RDKafkaErrorCode> {
    error.downcast_ref::<KafkaError>().and_then(KafkaError::rdkafka_error_code)
}

/// Rows and marker of an epoch are at the broker; nothing is decided.
fn prepare(transactions: &Transactions, topic: &str, epoch: i64, rows: &[&str]) {
    let prepare = || -> KafkaResult<()> {
        transactions.begin()?;
        for (partition, row) in rows.iter().enumerate() {
            transactions.send(topic, &Row::new(*row).partition(partition as i32 % 2))?;
        }
        transactions.flush()?;
        transactions.mark(topic, 0, epoch, METADATA)
    };
    prepare().expect("the broker takes rows and marker");
}

#[test]
fn committed_rows_and_their_marker_are_seen_and_aborted_ones_are_not() {
    let Some(kafka) = Kafka::shared("transactions with a marker") else { return };
    let (topic, id) = (unique("gate"), unique("slot"));
    kafka.client().create_topic(&topic, 2, &[]).expect("a topic is made");
    let slot = kafka.client().transactions(&id, &id).expect("it is initialised");
    assert_eq!(marker(kafka, &id, &topic), None);

    prepare(&slot, &topic, 7, &["a", "b", "c"]);
    assert_eq!(texts(kafka, &topic, Isolation::Committed), Vec::<String>::new(), "nothing is committed");
    assert_eq!(texts(kafka, &topic, Isolation::Raw), ["a", "c", "b"]);
    assert!(!kafka.client().lso_is_hw(&topic).expect("ends are read"), "a transaction is open");
    slot.commit().expect("it commits");
    kafka.client().wait_closed(&topic).expect("it is seen");
    assert_eq!(texts(kafka, &topic, Isolation::Committed), ["a", "c", "b"]);
    assert_eq!(marker(kafka, &id, &topic), Some((7, METADATA.to_string())));
    assert!(kafka.client().lso_is_hw(&topic).expect("ends are read"), "no transaction is open");

    prepare(&slot, &topic, 8, &["not", "this"]);
    slot.abort().expect("it aborts");
    kafka.client().wait_closed(&topic).expect("it is seen");
    assert_eq!(texts(kafka, &topic, Isolation::Committed), ["a", "c", "b"]);
    assert_eq!(texts(kafka, &topic, Isolation::Raw).len(), 5, "what was aborted stays in the log");
    assert_eq!(marker(kafka, &id, &topic), Some((7, METADATA.to_string())), "the marker was aborted with its rows");

    prepare(&slot, &topic, 9, &["d"]);
    slot.commit().expect("it commits");
    kafka.client().wait_closed(&topic).expect("it is seen");
    assert_eq!(texts(kafka, &topic, Isolation::Committed), ["a", "c", "d", "b"]);
    assert_eq!(marker(kafka, &id, &topic).map(|(epoch, _)| epoch), Some(9));
    assert!(kafka.client().lso_is_hw(&topic).expect("ends are read"), "no transaction is open");
}

#[test]
fn fenced_producer_commits_nothing() {
    let Some(kafka) = Kafka::shared("fencing") else { return };
    let (topic, id) = (unique("fence"), unique("slot"));
    kafka.client().create_topic(&topic, 2, &[]).expect("a topic is made");
    let zombie = kafka.client().transactions(&id, &id).expect("it is initialised");
    prepare(&zombie, &topic, 1, &["late"]);

    let owner = kafka.client().transactions(&id, &id).expect("it fences the other");
    kafka.client().wait_closed(&topic).expect("what the other left open was aborted");
    assert_eq!(marker(kafka, &id, &topic), None);
    let error = zombie.commit().expect_err("it is fenced");
    let KafkaError::Transaction(cause) = &error else { panic!("{error}") };
    assert!(cause.is_fatal(), "{error}");
    assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::Fenced), "{error}");

    prepare(&owner, &topic, 1, &["once"]);
    owner.commit().expect("it commits");
    kafka.client().wait_closed(&topic).expect("it is seen");
    assert_eq!(texts(kafka, &topic, Isolation::Committed), ["once"]);
    assert_eq!(marker(kafka, &id, &topic).map(|(epoch, _)| epoch), Some(1));
    assert!(zombie.begin().is_err(), "it never comes back");
}

#[test]
fn rows_come_back_as_they_were_written() {
    let Some(kafka) = Kafka::shared("rows of a topic") else { return };
    let (client, topic) = (kafka.client(), unique("rows"));
    client.create_topic(&topic, 1, &[("cleanup.policy", "compact")]).expect("a topic is made");
    client.add_partitions(&topic, 3).expect("there are more partitions");
    let full = Row::new("v").key("k").partition(2).timestamp(1_773_446_400_123).header("trace", "7f");
    let tombstone = Row::tombstone("k").partition(0).timestamp(5);
    client.produce(&topic, &[full.clone(), tombstone.clone()]).expect("rows are written");
    client.produce_committed(&unique("tx"), &topic, &[Row::new("w").key("q").partition(1)]).expect("it commits");
    let found = client.read_all(&topic, Isolation::Committed).expect("the topic is read");
    let back: Vec<Row> = found
        .into_iter()
        .map(|r| Row {
            key: r.key,
            value: r.value,
            partition: Some(r.partition),
            timestamp: r.timestamp.filter(|_| r.partition != 1),
            headers: r.headers,
        })
        .collect();
    assert_eq!(back, [tombstone, Row::new("w").key("q").partition(1), full]);
    client.delete_topic(&topic).expect("it is deleted");
    assert!(client.read_all(&topic, Isolation::Raw).is_err());
}

#[test]
fn kill_9_of_the_broker_loses_nothing_committed_and_users_may_do_what_they_were_given() {
    let user = ("ef", "ef-pw-77");
    let options = Options { users: vec![user], tls: true, message_bytes_max: Some(20_000), ..Options::default() };
    let Some(mut kafka) = Kafka::start("a broker that is killed, with users and TLS", options) else { return };
    let (topic, id) = ("orders", "slot-0");
    kafka.client().create_topic(topic, 2, &[]).expect("a topic is made");
    let patient = kafka.client().clone().login(user.0, user.1);
    let rows = [Row::new("by ef")];

    let error = patient.produce(topic, &rows).expect_err("the user may not write");
    assert_eq!(code(&error), Some(RDKafkaErrorCode::TopicAuthorizationFailed), "{error:#}");
    assert!(patient.read_all(topic, Isolation::Raw).is_err(), "the user may not read");
    let stranger = kafka.client().clone().login(ADMIN, "guessed");
    assert!(!stranger.answers(Duration::from_secs(2)), "the password is wrong");
    kafka.client().allow(user.0, Resource::Topic("ord*"), Right::Write).expect("a right is given");
    assert!(wait::until(wait::PATIENCE, || patient.produce(topic, &rows).is_ok()), "the user may write now");
    assert!(patient.read_all(topic, Isolation::Raw).is_err(), "but not read");
    let scram = patient.clone().set("sasl.mechanism", "SCRAM-SHA-256");
    scram.produce(topic, &rows).expect("the other mechanism knows the user, too");
    let large = [Row::new(vec![b'x'; 30_000])];
    let error = kafka.client().produce(topic, &large).expect_err("it is too large");
    assert_eq!(code(&error), Some(RDKafkaErrorCode::MessageSizeTooLarge), "{error:#}");

    let slot = kafka.client().transactions(id, id).expect("it is initialised");
    prepare(&slot, topic, 1, &["kept"]);
    slot.commit().expect("it commits");
    kafka.client().wait_closed(topic).expect("it is seen");
    prepare(&slot, topic, 2, &["open"]);
    let before = texts(&kafka, topic, Isolation::Committed);
    assert!(before.contains(&"kept".to_string()) && !before.contains(&"open".to_string()), "{before:?}");
    kafka.kill();
    assert!(!kafka.client().answers(Duration::from_secs(1)), "it is dead");
    kafka.start_again().expect("it starts again");

    // Another process took the slot over.
    let next = kafka.client().transactions(id, id).expect("it fences the other");
    assert_eq!(marker(&kafka, id, topic), Some((1, METADATA.to_string())));
    assert_eq!(texts(&kafka, topic, Isolation::Committed), before);
    kafka.client().wait_closed(topic).expect("what was open was aborted");
    assert!(slot.commit().is_err(), "the first owner was fenced");
    prepare(&next, topic, 2, &["redone"]);
    next.commit().expect("it commits");
    kafka.client().wait_closed(topic).expect("it is seen");
    assert_eq!(texts(&kafka, topic, Isolation::Committed).len(), before.len() + 1);
    assert_eq!(marker(&kafka, id, topic).map(|(epoch, _)| epoch), Some(2));

    kafka.freeze();
    assert!(!kafka.client().answers(Duration::from_secs(1)), "it is frozen");
    kafka.thaw();
    assert!(wait::until(wait::PATIENCE, || kafka.client().answers(Duration::from_secs(5))), "it goes on");
    kafka.stop().expect("it ends when it is asked to");
}
