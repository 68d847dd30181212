//! Against librdkafka's own mock of a broker, which can be told what to answer: what a real one answers for a moment only.

use super::*;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster() -> Cluster {
    let cluster = MockCluster::new(1).expect("the mock starts");
    cluster.create_topic("t", 1, 1).expect("the mock makes topics");
    cluster
}

fn transactions(cluster: &Cluster, patience: Patience) -> Transactions {
    let bootstrap = cluster.bootstrap_servers();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &bootstrap);
    let whose = Whose {
        name: "table \"t\"".into(),
        topic: "t".into(),
        id: "slot".into(),
        bootstrap,
        now_ms: 1_772_323_200_000,
    };
    Transactions::new(whose, config.clone(), config, Partitions::new(SinkPartitioner::Default, 0), patience)
}

/// A group's coordinator is away at the wrong moment, and no connection will change its state to say that it is back.
fn lose_the_coordinator(cluster: &Cluster) {
    cluster.request_errors(RDKafkaApiKey::FindCoordinator, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_COORDINATOR; 1]);
}

fn reason(done: Done<()>) -> String {
    match done {
        Err(Failed::ForNow(reason)) => reason,
        other => panic!("nobody knows what became of it, not {other:?}"),
    }
}

#[test]
fn a_marker_that_the_library_forgets_to_send_is_given_up_and_sent_by_the_next_producer() {
    let (cluster, stop) = (cluster(), AtomicBool::new(false));
    // On a slow machine the library may ask for the transaction's own coordinator then, and is none the worse.
    let forgotten = (0..20).find_map(|_| {
        let mut slot = transactions(&cluster, Patience { marker: 4, ..Patience::default() });
        slot.fence(&stop).expect("the first fence");
        assert_eq!(slot.read_marker().expect("no marker"), None);
        lose_the_coordinator(&cluster);
        let failed = slot.commit(7, &[], &stop).err()?;
        Some((slot, failed))
    });
    let (mut slot, failed) = forgotten.expect("it forgets one");
    let told = reason(Err(failed));
    assert!(told.contains("answered"), "{told}");

    slot.patience = Patience::default();
    slot.fence(&stop).expect("the second fence");
    assert_eq!(slot.read_marker().expect("still no marker"), None);
    // That it is there afterwards a mock does not know: `tests/kafka_sink.rs`.
    slot.commit(7, &[], &stop).expect("the second producer's commit");
}

#[test]
fn a_task_that_leaves_does_not_wait_for_a_marker() {
    let (cluster, stop) = (cluster(), AtomicBool::new(false));
    // An hour.
    let mut slot = transactions(&cluster, Patience { marker: 4 * 3600, ..Patience::default() });
    slot.fence(&stop).expect("the fence");
    slot.read_marker().expect("no marker");
    lose_the_coordinator(&cluster);
    stop.store(true, Ordering::Relaxed);
    assert_eq!(reason(slot.commit(7, &[], &stop)), "the task has left");
}
