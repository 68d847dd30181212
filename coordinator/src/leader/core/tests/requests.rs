//! What people ask for: rescale, drain, cancel, stop, and what happens when these meet.

use super::script::{COPIES, COUNTS, Cluster, plan};
use crate::leader::mailbox::{Request, Response};
use crate::meta::JobState;
use ef_proto::error::Code;
use ef_proto::ids::{Incarnation, WorkerId};
use ef_proto::wire::generated::control::{
    CancelJobRequest, CordonWorkerRequest, DrainWorkerRequest, RescaleJobRequest, StopJobRequest,
};

const EVERY_SECOND: &str = "SET 'execution.checkpointing.interval' = '1 s';";
const TOLERANT: &str = "SET 'execution.checkpointing.interval' = '1 s';
SET 'execution.checkpointing.tolerable-failed-checkpoints' = '9';";

fn rescale(parallelism: u32) -> Request {
    let operators = Default::default();
    Request::RescaleJob(RescaleJobRequest {
        job: "j".into(),
        parallelism: Some(parallelism),
        operators,
        dry_run: false,
    })
}

fn drain(worker: &str) -> Request {
    Request::DrainWorker(DrainWorkerRequest { worker: worker.into(), dry_run: false })
}

fn stop() -> Request {
    Request::StopJob(StopJobRequest { job: "j".into(), savepoint: None, drain: false, dry_run: false })
}

/// Subtasks of a region's tasks.
fn width(cluster: &Cluster, region: u32) -> usize {
    let operators = cluster.job("j").regions[&region].tasks.keys().map(|task| task.index);
    operators.max().map_or(0, |index| index as usize + 1)
}

#[test]
fn rescale_restarts_only_what_changes_and_from_a_checkpoint_of_its_own() {
    let mut cluster = Cluster::running(EVERY_SECOND, 1, &[("w1", 4)]);
    cluster.replan = Some(plan(EVERY_SECOND, 1, &[("GroupAggregate", 2)]));
    cluster.pass(1_000);
    cluster.forget();
    let id = cluster.ask(rescale(2));
    let Some(Ok(Response::RescaleJob(response))) = cluster.replies.get(&id) else { panic!("{:?}", cluster.replies) };
    assert!(response.restarting > 0 && response.untouched > 0, "{response:?}");
    // The scripted cluster is as quick as it can be: the checkpoint and the deployment are done.
    assert!(cluster.at("record 2") < cluster.at("w1: deploy from 2 0#3"), "{:#?}", cluster.said);
    assert_eq!(cluster.lines("cancel"), ["w1: cancel 0#1"]);
    assert_eq!((width(&cluster, COUNTS), width(&cluster, COPIES)), (2, 1));
    assert_eq!(cluster.incarnation(COPIES), Some(Incarnation(2)), "untouched");
    assert_eq!((cluster.job("j").state, cluster.job("j").restarts), (JobState::Running, 0));
    cluster.pass(1_000);
    assert_eq!(cluster.lines("complete 3").len(), 2, "{:#?}", cluster.said);
}

#[test]
fn rescale_that_would_not_fit_is_refused() {
    let mut cluster = Cluster::running(EVERY_SECOND, 1, &[("w1", 4)]);
    cluster.replan = Some(plan(EVERY_SECOND, 3, &[]));
    let id = cluster.ask(rescale(3));
    let Some(Err(error)) = cluster.replies.get(&id) else { panic!("{:?}", cluster.replies) };
    assert_eq!(error.code, Code::Conflict);
    assert!(error.message.contains("would not fit"), "{error}");
}

#[test]
fn one_rescale_at_a_time() {
    let mut cluster = Cluster::running(EVERY_SECOND, 1, &[("w1", 8)]);
    cluster.worker("w1").acks = false;
    cluster.replan = Some(plan(EVERY_SECOND, 2, &[]));
    cluster.stop_log();
    let first = cluster.ask(rescale(2));
    let second = cluster.ask(rescale(2));
    cluster.start_log();
    let third = cluster.ask(rescale(2));
    assert!(cluster.replies[&first].is_ok());
    for id in [second, third] {
        assert_eq!(cluster.replies[&id].as_ref().expect_err("refused").code, Code::Conflict);
    }
}

#[test]
fn rescale_whose_checkpoint_fails_is_given_up_and_one_that_is_interrupted_is_not() {
    let mut cluster = Cluster::running(TOLERANT, 1, &[("w1", 4)]);
    cluster.replan = Some(plan(TOLERANT, 2, &[]));
    cluster.worker("w1").acks = false;
    cluster.ask(rescale(2));
    cluster.fails("w1", COPIES, "broken");
    assert!(cluster.job("j").pending.is_some());
    cluster.worker("w1").acks = true;
    cluster.pass(2_000);
    assert_eq!((width(&cluster, COUNTS), width(&cluster, COPIES)), (2, 2), "{:#?}", cluster.said);
    cluster.replan = Some(plan(TOLERANT, 1, &[]));
    cluster.worker("w1").acks = false;
    cluster.ask(rescale(1));
    let subtask = cluster.core.runs.values().next().expect("one job").machine.missing()[0];
    let epoch = cluster.core.runs.values().next().expect("one job").machine.last();
    let declined = ef_proto::rpc::Event::Declined { epoch, subtask, reason: "disk full".into() };
    cluster.says("w1", COPIES, declined);
    let job = cluster.job("j");
    assert!(job.pending.is_none(), "{:#?}", job.events);
    assert!(job.events.back().expect("some").message.contains("given up"), "{:#?}", job.events);
}

#[test]
fn rescale_outlives_the_leader_that_promised_it() {
    let mut cluster = Cluster::running(EVERY_SECOND, 1, &[("w1", 4)]);
    cluster.replan = Some(plan(EVERY_SECOND, 2, &[]));
    cluster.worker("w1").acks = false;
    cluster.ask(rescale(2));
    cluster.restart_leader();
    cluster.worker("w1").acks = true;
    cluster.dial("w1");
    assert_eq!((width(&cluster, COUNTS), width(&cluster, COPIES)), (2, 2), "{:#?}", cluster.said);
    assert_eq!(cluster.job("j").state, JobState::Running);
}

#[test]
fn job_that_does_not_fit_is_made_to_fit_by_a_rescale() {
    let mut cluster = Cluster::new();
    cluster.start("w1", 2);
    cluster.submit("j", &plan("", 2, &[]));
    cluster.pass(20);
    assert_eq!(cluster.job("j").state, JobState::Pending);
    cluster.replan = Some(plan("", 1, &[]));
    cluster.ask(rescale(1));
    assert_eq!(cluster.job("j").state, JobState::Running, "{:#?}", cluster.job("j").events);
}

#[test]
fn stop_overtakes_a_rescale_that_is_on_its_way() {
    for recorded in [false, true] {
        let mut cluster = Cluster::running(EVERY_SECOND, 1, &[("w1", 4)]);
        cluster.replan = Some(plan(EVERY_SECOND, 2, &[]));
        cluster.stop_store();
        cluster.ask(rescale(2));
        if recorded {
            // The stop is decided before the rescale proceeds, and was asked for when its checkpoint was complete.
            cluster.stop_log();
            cluster.ask(stop());
            cluster.start_store(Ok(()));
            cluster.start_log();
        } else {
            cluster.ask(stop());
            cluster.start_store(Ok(()));
        }
        assert_eq!(cluster.job("j").state, JobState::Stopping);
        cluster.ends(COUNTS);
        cluster.ends(COPIES);
        cluster.pass(20);
        assert_eq!(cluster.job("j").state, JobState::Finished, "{:#?}", cluster.said);
        assert_eq!(cluster.lines("cancel").len(), 2, "never deployed anew: {:#?}", cluster.said);
    }
}

#[test]
fn rescale_that_meets_the_last_checkpoint_is_forgotten_with_the_job() {
    let mut cluster = Cluster::running(EVERY_SECOND, 1, &[("w1", 4)]);
    cluster.replan = Some(plan(EVERY_SECOND, 2, &[]));
    cluster.worker("w1").commits = false;
    cluster.ends(COUNTS);
    cluster.stop_log();
    cluster.ask(rescale(2));
    cluster.ends(COPIES);
    cluster.start_log();
    cluster.pass(20);
    assert_eq!(cluster.lines("complete 1").len(), 2, "{:#?}", cluster.said);
    assert!(cluster.lines("deploy from").is_empty(), "nothing is published twice: {:#?}", cluster.said);
    cluster.kill("w1");
    cluster.worker("w1").commits = true;
    cluster.dial("w1");
    cluster.pass(2_000);
    assert_eq!(cluster.job("j").state, JobState::Finished, "{:#?}", cluster.said);
}

#[test]
fn drained_worker_gives_its_regions_to_others_and_gets_nothing_until_it_is_uncordoned() {
    let mut cluster = Cluster::running(EVERY_SECOND, 1, &[("w1", 2), ("w2", 2)]);
    let drained = if cluster.places(COUNTS).contains("w1") { "w1" } else { "w2" };
    let rest = if drained == "w1" { "w2" } else { "w1" };
    cluster.ask(drain(drained));
    assert_eq!(cluster.places(COUNTS), [rest.to_string()].into(), "{:#?}", cluster.said);
    assert_eq!(cluster.places(COPIES), [rest.to_string()].into());
    assert!(cluster.worker(drained).held.is_empty());
    assert_eq!(cluster.job("j").restarts, 0, "a move is no failure");
    let refused = cluster.ask(drain(rest));
    assert_eq!(cluster.replies[&refused].as_ref().expect_err("nowhere to go").code, Code::Conflict);
    let uncordon = CordonWorkerRequest { worker: drained.into(), cordoned: false, dry_run: false };
    cluster.ask(Request::CordonWorker(uncordon));
    assert!(!cluster.core.meta().cordoned.contains(&WorkerId(drained.into())));
    cluster.ask(drain(rest));
    assert_eq!(cluster.places(COUNTS), [drained.to_string()].into(), "{:#?}", cluster.said);
}

#[test]
fn drain_does_not_forget_the_rescale_that_waits() {
    let mut cluster = Cluster::running(EVERY_SECOND, 1, &[("w1", 4), ("w2", 4)]);
    cluster.replan = Some(plan(EVERY_SECOND, 1, &[("GroupAggregate", 2)]));
    cluster.worker("w1").acks = false;
    cluster.worker("w2").acks = false;
    cluster.ask(rescale(2));
    cluster.ask(drain("w1"));
    cluster.worker("w1").acks = true;
    cluster.worker("w2").acks = true;
    cluster.fails("w2", COPIES, "broken");
    cluster.pass(2_000);
    assert_eq!(cluster.job("j").state, JobState::Running, "{:#?}", cluster.said);
    assert_eq!(width(&cluster, COUNTS), 2);
    assert_eq!((cluster.places(COUNTS), cluster.places(COPIES)), (["w2".into()].into(), ["w2".into()].into()));
}

#[test]
fn cancelled_job_leaves_at_once_and_frees_its_slots() {
    let mut cluster = Cluster::running(EVERY_SECOND, 2, &[("w1", 2), ("w2", 2)]);
    cluster.submit("k", &plan("", 2, &[]));
    cluster.pass(20);
    assert_eq!(cluster.job("k").state, JobState::Pending);
    cluster.worker("w1").acks = false;
    cluster.pass(1_000);
    cluster.ask(Request::CancelJob(CancelJobRequest { job: "j".into(), dry_run: false }));
    assert_eq!(cluster.job("j").state, JobState::Cancelled);
    assert_eq!(cluster.job("k").state, JobState::Running, "{:#?}", cluster.said);
    let again = cluster.ask(Request::CancelJob(CancelJobRequest { job: "j".into(), dry_run: false }));
    assert_eq!(cluster.replies[&again].as_ref().expect_err("ended").code, Code::Conflict);
}

#[test]
fn rescale_whose_checkpoint_comes_after_the_cancel_is_forgotten() {
    let mut cluster = Cluster::running(EVERY_SECOND, 1, &[("w1", 4)]);
    cluster.replan = Some(plan(EVERY_SECOND, 2, &[]));
    cluster.stop_store();
    cluster.ask(rescale(2));
    cluster.stop_log();
    cluster.ask(Request::CancelJob(CancelJobRequest { job: "j".into(), dry_run: false }));
    cluster.start_store(Ok(()));
    cluster.start_log();
    assert_eq!(cluster.job("j").state, JobState::Cancelled);
    assert!(cluster.worker("w1").held.is_empty() && cluster.lines("deploy from").is_empty(), "{:#?}", cluster.said);
}

#[test]
fn worker_that_was_away_when_its_job_was_cancelled_is_told_when_it_comes_back() {
    let mut cluster = Cluster::running(EVERY_SECOND, 2, &[("w1", 2), ("w2", 2)]);
    cluster.hang_up("w2");
    cluster.ask(Request::CancelJob(CancelJobRequest { job: "j".into(), dry_run: false }));
    assert_eq!(cluster.worker("w2").held.len(), 2);
    cluster.restart_leader();
    cluster.dial("w2");
    assert!(cluster.worker("w2").held.is_empty(), "{:#?}", cluster.said);
}
