//! What happens when a task, a worker, a stream or the leader itself is lost.

use super::script::{COPIES, COUNTS, Cluster, plan};
use crate::meta::JobState;
use ef_proto::ids::{Epoch, Incarnation, JobId};
use ef_proto::rpc::{Event, Phase};

const EVERY_SECOND: &str = "SET 'execution.checkpointing.interval' = '1 s';";

fn two_workers() -> Cluster {
    Cluster::running(EVERY_SECOND, 2, &[("w1", 2), ("w2", 2)])
}

/// The regions on workers of their own.
fn apart() -> Cluster {
    let mut cluster = Cluster::running(EVERY_SECOND, 1, &[("w1", 1), ("w2", 1)]);
    assert_ne!(cluster.places(COUNTS), cluster.places(COPIES));
    cluster.forget();
    cluster
}

#[test]
fn job_waits_with_the_reason_until_a_worker_comes() {
    let mut cluster = Cluster::new();
    cluster.submit("j", &plan("", 2, &[]));
    cluster.pass(20);
    let job = cluster.job("j");
    assert_eq!(
        (job.state, job.reason.as_str()),
        (JobState::Pending, "needs 2 slots in any tier; there are no workers")
    );
    let events = job.sequence;
    cluster.pass(20);
    assert_eq!(cluster.job("j").sequence, events, "said once");
    cluster.start("w1", 3);
    assert!(cluster.job("j").reason.contains("1 is free on 1 matching worker"), "{}", cluster.job("j").reason);
    cluster.start("w2", 1);
    assert_eq!(cluster.job("j").state, JobState::Running);
}

#[test]
fn job_runs_once_all_its_workers_have_said_so() {
    let mut cluster = Cluster::new();
    cluster.start("w1", 2);
    cluster.start("w2", 2);
    cluster.worker("w2").runs = false;
    cluster.submit("j", &plan("", 2, &[]));
    assert_eq!(cluster.job("j").state, JobState::Deploying);
    cluster.says("w2", COUNTS, Event::Running);
    assert_eq!(cluster.job("j").state, JobState::Deploying);
    cluster.says("w2", COPIES, Event::Running);
    assert_eq!(cluster.job("j").state, JobState::Running);
}

#[test]
fn two_jobs_that_are_placed_at_once_do_not_get_the_same_slots() {
    let mut cluster = Cluster::new();
    cluster.start("w1", 3);
    cluster.stop_log();
    cluster.submit("j", &plan("", 1, &[]));
    cluster.submit("k", &plan("", 1, &[]));
    cluster.log_once();
    cluster.pass(20);
    cluster.start_log();
    let taken: u32 =
        ["j", "k"].iter().flat_map(|job| cluster.job(job).regions.values()).flat_map(|r| r.slots.values()).sum();
    assert_eq!(taken, 2, "each job needs two slots, and there are three");
    assert_eq!((cluster.job("j").state, cluster.job("k").state), (JobState::Running, JobState::Pending));
}

#[test]
fn region_whose_worker_went_while_it_was_placed_starts_again() {
    let mut cluster = Cluster::new();
    cluster.start("w1", 2);
    cluster.stop_log();
    cluster.submit("j", &plan("", 1, &[]));
    cluster.log_once();
    cluster.kill("w1");
    cluster.pass(10_000);
    cluster.start_log();
    assert_eq!(cluster.job("j").state, JobState::Deploying, "it was decided, and the worker has been given up already");
    cluster.start("w2", 2);
    cluster.pass(10_000);
    cluster.pass(2_000);
    assert_eq!(cluster.job("j").state, JobState::Running, "{:#?}", cluster.said);
}

#[test]
fn lost_worker_restarts_only_the_regions_that_ran_there() {
    let mut cluster = apart();
    cluster.pass(1_000);
    let (counts, copies) = (cluster.incarnation(COUNTS), cluster.incarnation(COPIES));
    let lost = if cluster.places(COUNTS).contains("w1") { "w1" } else { "w2" };
    cluster.start("w3", 1);
    cluster.forget();
    cluster.hang_up(lost);
    cluster.pass(9_000);
    assert_eq!(cluster.incarnation(COUNTS), counts, "it may dial again");
    cluster.pass(1_000);
    assert_eq!(cluster.job("j").state, JobState::Restarting);
    assert!(cluster.job("j").cause.contains("no heartbeat for 10000 ms"), "{}", cluster.job("j").cause);
    cluster.pass(2_000);
    assert_eq!(cluster.job("j").state, JobState::Running, "{:#?}", cluster.said);
    assert_eq!(cluster.places(COUNTS), ["w3".to_string()].into());
    assert_eq!(cluster.incarnation(COPIES), copies);
    let newest = cluster.lines("deploy from");
    assert_eq!(newest.len(), 1, "{:#?}", cluster.said);
    assert!(newest[0].ends_with("0#3"), "{newest:?}");
    assert_eq!(cluster.job("j").restarts, 1);
}

#[test]
fn first_cause_is_kept_until_the_job_runs_again() {
    let mut cluster = two_workers();
    cluster.fails("w1", COUNTS, "the disk is full");
    // What follows is fallout: the other worker's tasks lose their channels.
    cluster.fails("w2", COPIES, "a channel broke");
    let job = cluster.job("j");
    assert_eq!(job.state, JobState::Restarting);
    assert!(job.cause.contains("the disk is full") && job.cause.contains("w1"), "{}", job.cause);
    cluster.pass(2_000);
    assert_eq!((cluster.job("j").state, cluster.job("j").cause.as_str()), (JobState::Running, ""));
    cluster.fails("w2", COPIES, "another");
    assert!(cluster.job("j").cause.contains("another"));
}

#[test]
fn job_that_is_not_to_restart_fails_with_its_cause_and_leaves_its_slots() {
    let mut cluster = Cluster::running("SET 'restart-strategy.type' = 'none';", 2, &[("w1", 2), ("w2", 2)]);
    cluster.forget();
    cluster.fails("w1", COPIES, "the disk is full");
    let job = cluster.job("j");
    assert_eq!(job.state, JobState::Failed);
    assert!(job.reason.contains("the disk is full"), "{}", job.reason);
    assert!(cluster.workers.values().all(|worker| worker.held.is_empty()), "{:#?}", cluster.said);
    cluster.submit("k", &plan("", 2, &[]));
    assert_eq!(cluster.job("k").state, JobState::Running);
}

#[test]
fn new_leader_redeploys_nothing_that_still_runs_and_gives_up_what_was_in_flight() {
    let mut cluster = two_workers();
    cluster.pass(1_000);
    cluster.worker("w2").acks = false;
    cluster.pass(1_000);
    let before = (cluster.incarnation(COUNTS), cluster.incarnation(COPIES), cluster.job("j").restarts);
    cluster.restart_leader();
    cluster.forget();
    cluster.dial("w1");
    cluster.pass(1_000);
    assert!(cluster.lines("trigger").is_empty(), "w2 has not come back: {:#?}", cluster.said);
    cluster.worker("w2").acks = true;
    cluster.dial("w2");
    assert_eq!(before, (cluster.incarnation(COUNTS), cluster.incarnation(COPIES), cluster.job("j").restarts));
    assert!(cluster.lines("deploy").is_empty() && cluster.lines("cancel").is_empty(), "{:#?}", cluster.said);
    // Each worker learns what is complete, and that no epoch up to the reserved ones will be.
    for line in ["w1: complete 1 0#1", "w2: complete 1 1#2", "w1: abort 33 1#2", "w2: abort 33 0#1"] {
        cluster.at(line);
    }
    cluster.pass(1_000);
    assert_eq!(cluster.lines("complete 34").len(), 4, "2 may have been given out: {:#?}", cluster.said);
}

#[test]
fn no_two_leaders_give_out_the_same_epoch() {
    let mut cluster = two_workers();
    let mut given: Vec<u64> = Vec::new();
    for _ in 0..4 {
        cluster.worker("w1").acks = given.len().is_multiple_of(2);
        cluster.pass(1_000);
        let of = |line: &str| line.split(' ').nth(2).and_then(|epoch| epoch.parse::<u64>().ok());
        let mut epochs: Vec<u64> = cluster.lines("trigger").into_iter().filter_map(of).collect();
        epochs.dedup();
        assert!(!epochs.is_empty());
        assert!(given.iter().all(|old| epochs.iter().all(|new| new > old)), "{given:?}, then {epochs:?}");
        given.extend(epochs);
        cluster.restart_leader();
        cluster.forget();
        cluster.dial("w1");
        cluster.dial("w2");
    }
}

#[test]
fn worker_that_does_not_come_back_to_a_new_leader_is_lost() {
    let mut cluster = two_workers();
    cluster.restart_leader();
    cluster.dial("w1");
    cluster.pass(9_000);
    assert_eq!(cluster.job("j").restarts, 0);
    cluster.pass(1_000);
    assert_eq!(cluster.job("j").restarts, 2, "both regions ran there: {:#?}", cluster.said);
    cluster.pass(2_000);
    assert_eq!(cluster.job("j").state, JobState::Pending, "{:#?}", cluster.said);
    cluster.worker("w2").boot += 1;
    cluster.worker("w2").held.clear();
    cluster.dial("w2");
    assert_eq!(cluster.job("j").state, JobState::Running, "{:#?}", cluster.said);
}

#[test]
fn worker_whose_process_was_restarted_has_lost_its_tasks() {
    let mut cluster = apart();
    let copies = cluster.incarnation(COPIES);
    let lost = if cluster.places(COUNTS).contains("w1") { "w1" } else { "w2" };
    cluster.kill(lost);
    cluster.dial(lost);
    assert_eq!(cluster.job("j").state, JobState::Restarting);
    assert!(cluster.job("j").cause.contains("restarted"), "{}", cluster.job("j").cause);
    cluster.pass(2_000);
    assert_eq!((cluster.incarnation(COUNTS), cluster.incarnation(COPIES)), (Some(Incarnation(3)), copies));
}

#[test]
fn late_events_of_an_old_deployment_change_nothing() {
    let mut cluster = two_workers();
    cluster.pass(1_000);
    let old = cluster.workers["w2"].held.keys().find(|held| held.region == COUNTS).expect("runs").clone();
    let subtasks = cluster.core.runs[&JobId("j".into())].subtasks(Some(COUNTS));
    cluster.fails("w1", COUNTS, "broken");
    cluster.pass(2_000);
    assert_eq!(cluster.incarnation(COUNTS), Some(Incarnation(3)));
    cluster.ends(COPIES);
    let before = cluster.core.meta().clone();
    cluster.forget();
    // Were they heard, all subtasks would have ended, and the job would take its last checkpoint.
    for subtask in &subtasks {
        cluster.says_of("w2", old.clone(), Event::Ended { subtask: *subtask });
        cluster.says_of("w2", old.clone(), Event::Committed { epoch: Epoch(9), subtask: *subtask });
    }
    let error = ef_proto::error::Error::invalid("of the old one");
    cluster.says_of("w2", old.clone(), Event::Failed { operator: subtasks.first().expect("some").operator, error });
    cluster.says_of("w2", old.clone(), Event::Stopped);
    cluster.says_of("w2", old, Event::Running);
    assert_eq!(*cluster.core.meta(), before);
    assert!(cluster.lines("trigger").is_empty() && cluster.lines("deploy").is_empty(), "{:#?}", cluster.said);
    assert!(!cluster.lines("w2: cancel 0#1").is_empty(), "it is told that nobody wants it: {:#?}", cluster.said);
}

#[test]
fn worker_that_comes_back_in_time_keeps_its_tasks_and_learns_what_it_has_missed() {
    let mut cluster = two_workers();
    cluster.pass(1_000);
    cluster.hang_up("w2");
    // Triggered, and nobody has told w2.
    cluster.pass(1_000);
    cluster.forget();
    cluster.dial("w2");
    assert!(cluster.at("w2: complete 1 0#1") < cluster.at("w2: trigger 2 0#1"), "{:#?}", cluster.said);
    assert_eq!(cluster.lines("complete 2").len(), 4, "{:#?}", cluster.said);
    // One is given up while it is away.
    cluster.hang_up("w2");
    cluster.pass(1_000);
    let subtask = cluster.core.runs[&JobId("j".into())].machine.missing()[0];
    cluster.says("w1", COUNTS, Event::Declined { epoch: Epoch(3), subtask, reason: "disk full".into() });
    assert_eq!(cluster.job("j").restarts, 1, "one failed checkpoint is one too many here");
    cluster.forget();
    cluster.dial("w2");
    for held in ["w2: cancel 0#1", "w2: cancel 1#2"] {
        assert!(!cluster.lines(held).is_empty(), "{:#?}", cluster.said);
    }
}

#[test]
fn worker_that_was_away_when_a_checkpoint_failed_is_told() {
    let settings = format!("{EVERY_SECOND} SET 'execution.checkpointing.tolerable-failed-checkpoints' = '3';");
    let mut cluster = Cluster::running(&settings, 2, &[("w1", 2), ("w2", 2)]);
    cluster.hang_up("w2");
    cluster.pass(1_000);
    let subtask = cluster.core.runs[&JobId("j".into())].machine.missing()[0];
    cluster.says("w1", COUNTS, Event::Declined { epoch: Epoch(1), subtask, reason: "disk full".into() });
    cluster.forget();
    cluster.dial("w2");
    assert_eq!(cluster.lines("w2: abort 1").len(), 2, "{:#?}", cluster.said);
    assert!(cluster.lines("w2: cancel").is_empty() && cluster.lines("w2: trigger 1").is_empty());
}

#[test]
fn deploy_that_was_lost_with_its_stream_is_sent_again() {
    let mut cluster = Cluster::new();
    cluster.start("w1", 2);
    cluster.stop_log();
    cluster.submit("j", &plan("", 1, &[]));
    cluster.log_once();
    // The leader's order goes to a stream that nobody reads any more.
    let session = cluster.worker("w1").session.take();
    cluster.start_log();
    assert_eq!(cluster.lines("w1: deploy").len(), 2);
    assert!(cluster.worker("w1").held.is_empty() && session.is_some());
    cluster.dial("w1");
    assert_eq!(cluster.lines("w1: deploy").len(), 4);
    assert_eq!((cluster.job("j").state, cluster.job("j").restarts), (JobState::Running, 0));
}

#[test]
fn failed_tasks_whose_worker_missed_the_cancel_are_cancelled_when_it_comes_back() {
    let mut cluster = apart();
    let lost = if cluster.places(COUNTS).contains("w1") { "w1" } else { "w2" };
    cluster.hang_up(lost);
    // Its tasks fail while it is away, and it is away for too long.
    cluster.worker(lost).held.values_mut().for_each(|(phase, _)| *phase = Phase::Leaving);
    cluster.pass(10_000);
    cluster.forget();
    cluster.dial(lost);
    assert_eq!(cluster.lines(&format!("{lost}: cancel 0#1")).len(), 1, "{:#?}", cluster.said);
}

#[test]
fn second_worker_of_an_id_is_refused_while_the_first_is_there() {
    let mut cluster = two_workers();
    let first = cluster.worker("w1").session;
    let held = std::mem::take(&mut cluster.worker("w1").held);
    cluster.worker("w1").boot = 7;
    cluster.dial("w1");
    assert_eq!(cluster.lines("w1: refused").len(), 1, "{:#?}", cluster.said);
    assert_eq!(cluster.worker("w1").session, None, "its stream is closed");
    let first_worker = cluster.worker("w1");
    (first_worker.session, first_worker.held, first_worker.boot) = (first, held, 1);
    cluster.pass(1_000);
    assert_eq!(cluster.lines("complete 1").len(), 4, "the first goes on: {:#?}", cluster.said);
    // A new stream of the same process takes the place of the old one, which may be dead already.
    cluster.dial("w1");
    assert_eq!(cluster.lines(&format!("close {}", first.expect("connected").0)).len(), 1);
    assert_eq!((cluster.job("j").state, cluster.job("j").restarts), (JobState::Running, 0));
}
