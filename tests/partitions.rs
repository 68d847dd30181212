//! A cluster on hosts of its own (network namespaces): whatever the network between them does, every row counts once and
//! the job goes on when it is healed.

use ef_tests::cluster::{Options, Who};
use ef_tests::following::Following;
use ef_tests::missing::missing;
use ef_tests::netns::Net;
use ef_tests::seed::seed;
use ef_tests::wait::{self, PATIENCE};
use std::time::Duration;

/// Hosts by what runs on them.
const COORDINATOR: usize = 0;
const W1: usize = 1;
const W2: usize = 2;

fn options(net: &Net) -> Options {
    let mut options = Options::workers(2);
    options.host = net.host(COORDINATOR);
    options.workers[0].host = net.host(W1);
    options.workers[1].host = net.host(W2);
    options
}

fn net(what: &str) -> Option<Net> {
    Net::new(3).map_err(|lack| missing(what, &lack)).ok()
}

#[test]
fn job_survives_every_kind_of_broken_network() {
    let Some(net) = net("a cluster over a broken network") else { return };
    let seed = seed();
    // Over both workers: two slots each, four subtasks.
    let mut following = Following::start(seed, options(&net), 4);
    following.feed(4);
    type Break = fn(&Net);
    let breaks: [(&str, Break); 6] = [
        ("workers cut from each other", |net| net.cut(W1, W2)),
        ("worker hears the other and is not heard", |net| net.cut_one_way(W1, W2)),
        ("worker cut from the coordinator", |net| net.cut(W1, COORDINATOR)),
        ("worker hears the coordinator and is not heard", |net| net.cut_one_way(W2, COORDINATOR)),
        ("a fifth of all packets between workers lost", |net| net.lose(W1, W2, 20)),
        ("connections between workers reset", |net| net.reset(W1, W2)),
    ];
    for (what, break_it) in breaks {
        println!("EDGEFLOW_SEED={seed}: {what}");
        break_it(&net);
        following.feeder.feed(4);
        // Longer than the heartbeat timeout: by then it is known, or will be noticed after the healing only.
        wait::lasting(Duration::from_secs(4));
        net.heal_all();
        following.feed(4);
        // Rows may have come before the last connection was given up.
        following.cluster.wait_state(&following.id, "RUNNING", wait::PATIENCE);
        following.feed(4);
    }
    following.finish();
}

#[test]
fn job_moves_away_from_a_worker_that_the_coordinator_cannot_reach() {
    let Some(net) = net("a job that moves away from a lost host") else { return };
    let seed = seed();
    let mut following = Following::start(seed, options(&net), 2);
    following.feed(4);
    let placed = following.placement();
    let runs = |id: &str| placed.iter().any(|(_, workers)| workers.iter().any(|worker| worker == id));
    let (lost, lost_id, other_id) = if runs("w1") { (W1, "w1", "w2") } else { (W2, "w2", "w1") };
    // It still reaches the other worker, the files, everything but the coordinator.
    net.cut(lost, COORDINATOR);
    following.feed(4);
    let placed = following.placement();
    assert!(placed.iter().all(|(_, workers)| workers.iter().all(|worker| worker == other_id)), "{placed:?}");
    let listed = following.cluster.workers_listed().expect("the coordinator answers");
    assert!(listed.iter().any(|row| row["id"] == lost_id && row["state"] == "LOST"), "{listed:?}");
    net.heal_all();
    // Back, and what it ran is cancelled: it is not in use any more.
    assert!(wait::until(PATIENCE, || {
        let workers = following.cluster.workers_listed().unwrap_or_default();
        workers.iter().any(|row| row["id"] == lost_id && row["state"] == "READY" && row["tasks"] == 0)
    }));
    assert!(following.cluster.is_up(Who::Worker(lost - 1)), "it has survived");
    following.feed(2);
    following.finish();
}
