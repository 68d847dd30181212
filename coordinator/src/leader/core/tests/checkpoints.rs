//! Checkpoints: their order, what becomes of one that fails, savepoints.

use super::script::{COPIES, COUNTS, Cluster};
use crate::leader::mailbox::{Request, Response};
use crate::meta::{JobState, SavepointState};
use ef_proto::error::{Code, Error};
use ef_proto::ids::Epoch;
use ef_proto::rpc::{Event, Phase};
use ef_proto::wire::generated::control::{CreateSavepointRequest, StopJobRequest};

const EVERY_SECOND: &str = "SET 'execution.checkpointing.interval' = '1 s';
SET 'execution.checkpointing.timeout' = '5 s';";

fn two_workers() -> Cluster {
    Cluster::running(EVERY_SECOND, 2, &[("w1", 2), ("w2", 2)])
}

fn savepoint(cluster: &mut Cluster) -> String {
    let request = CreateSavepointRequest { job: "j".into(), directory: "place".into(), dry_run: false };
    let id = cluster.ask(Request::CreateSavepoint(request));
    match cluster.replies.remove(&id) {
        Some(Ok(Response::Savepoint(savepoint))) => savepoint.id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn complete_goes_out_after_the_manifest_is_stored_and_recorded() {
    let mut cluster = two_workers();
    cluster.pass(1_000);
    let order = ["w1: trigger 1 0#1", "put 1", "record 1", "w1: complete 1 0#1"];
    let places: Vec<usize> = order.iter().map(|line| cluster.at(line)).collect();
    assert!(places.is_sorted(), "{:#?}", cluster.said);
    for line in ["w2: complete 1 0#1", "w1: complete 1 1#2", "w2: complete 1 1#2"] {
        assert!(cluster.at(line) > cluster.at("record 1"));
    }
    assert_eq!(cluster.job("j").newest().map(|record| record.epoch), Some(Epoch(1)));
    cluster.pass(1_000);
    let retired = (cluster.at("record 2"), cluster.at("retire [1]"));
    assert!(retired.0 < retired.1, "the old one goes after the new one is recorded");
}

#[test]
fn nothing_is_told_of_a_checkpoint_that_is_stored_but_not_recorded() {
    let mut cluster = two_workers();
    cluster.pass(1_000);
    cluster.forget();
    cluster.stop_store();
    cluster.pass(1_000);
    assert_eq!(cluster.lines("trigger 2").len(), 4);
    cluster.stop_log();
    cluster.start_store(Ok(()));
    assert_eq!((cluster.lines("put 2").len(), cluster.lines("complete 2").len()), (1, 0), "{:#?}", cluster.said);
    cluster.start_log();
    assert_eq!(cluster.lines("complete 2").len(), 4, "{:#?}", cluster.said);
}

#[test]
fn trigger_goes_out_only_when_its_epoch_is_reserved() {
    let mut cluster = two_workers();
    cluster.stop_log();
    cluster.pass(1_000);
    assert!(cluster.lines("trigger").is_empty(), "{:#?}", cluster.said);
    cluster.start_log();
    assert_eq!(cluster.lines("trigger 1").len(), 4, "two regions on two workers");
    assert!(cluster.at("reserve 33") < cluster.at("w1: trigger 1 0#1"));
}

#[test]
fn checkpoint_that_fails_is_given_up_everywhere_and_the_next_has_another_epoch() {
    let settings = format!("{EVERY_SECOND} SET 'execution.checkpointing.tolerable-failed-checkpoints' = '3';");
    let mut cluster = Cluster::running(&settings, 2, &[("w1", 2), ("w2", 2)]);
    cluster.worker("w2").acks = false;
    cluster.pass(1_000);
    let subtask = cluster.core.runs.values().next().expect("one job").machine.missing()[0];
    cluster.says("w2", COUNTS, Event::Declined { epoch: Epoch(1), subtask, reason: "disk full".into() });
    assert_eq!(cluster.lines("abort 1").len(), 4, "{:#?}", cluster.said);
    // One that somebody does not answer runs out of time.
    cluster.pass(1_000);
    cluster.worker("w2").acks = true;
    cluster.pass(5_000);
    assert_eq!(cluster.lines("abort 2").len(), 4, "{:#?}", cluster.said);
    assert_eq!(cluster.lines("complete 3").len(), 4, "{:#?}", cluster.said);
    assert_eq!(cluster.job("j").restarts, 0);
}

#[test]
fn too_many_failed_checkpoints_restart_the_job_from_the_newest() {
    let mut cluster = two_workers();
    cluster.pass(1_000);
    cluster.worker("w2").acks = false;
    cluster.pass(1_000);
    cluster.forget();
    cluster.pass(5_000);
    assert_eq!(cluster.job("j").state, JobState::Restarting, "{:#?}", cluster.said);
    assert!(cluster.job("j").cause.contains("timed out"), "{}", cluster.job("j").cause);
    cluster.worker("w2").acks = true;
    cluster.pass(2_000);
    assert_eq!(cluster.lines("deploy from 1").len(), 4, "{:#?}", cluster.said);
    assert_eq!(cluster.job("j").state, JobState::Running);
    cluster.pass(1_000);
    assert_eq!(cluster.lines("complete 3").len(), 4, "with a fresh count: {:#?}", cluster.said);
}

#[test]
fn manifest_that_cannot_be_written_fails_its_checkpoint_only() {
    let settings = format!("{EVERY_SECOND} SET 'execution.checkpointing.tolerable-failed-checkpoints' = '3';");
    let mut cluster = Cluster::running(&settings, 1, &[("w1", 2)]);
    cluster.stop_store();
    cluster.pass(1_000);
    cluster.start_store(Err(Error::new(Code::Unavailable, "no answer")));
    assert_eq!(cluster.lines("abort 1").len(), 2, "{:#?}", cluster.said);
    cluster.pass(1_000);
    assert_eq!(cluster.lines("complete 2").len(), 2, "{:#?}", cluster.said);
}

#[test]
fn region_does_not_restart_from_behind_a_manifest_that_may_become_the_truth() {
    let mut cluster = two_workers();
    cluster.pass(1_000);
    cluster.stop_store();
    cluster.pass(1_000);
    cluster.forget();
    cluster.fails("w1", COUNTS, "broken");
    cluster.pass(5_000);
    assert!(cluster.lines("deploy").is_empty(), "{:#?}", cluster.said);
    cluster.start_store(Ok(()));
    cluster.pass(20);
    assert_eq!(cluster.lines("deploy from 2 0#3").len(), 2, "{:#?}", cluster.said);
}

#[test]
fn savepoint_is_a_copy_of_a_checkpoint_triggered_after_it_was_asked_for() {
    let mut cluster = two_workers();
    cluster.stop_store();
    cluster.pass(1_000);
    let id = savepoint(&mut cluster);
    cluster.start_store(Ok(()));
    assert_eq!(cluster.copies, [(id.clone(), Epoch(2))], "1 was under way already");
    let savepoint = &cluster.core.meta().savepoints[&id];
    assert_eq!((savepoint.state, savepoint.bytes), (SavepointState::Completed, 7));
}

#[test]
fn savepoint_outlives_a_restart_of_its_job_and_of_the_leader() {
    let mut cluster = two_workers();
    cluster.worker("w2").acks = false;
    let id = savepoint(&mut cluster);
    assert_eq!(cluster.lines("trigger 1").len(), 4);
    cluster.fails("w1", COUNTS, "broken");
    cluster.worker("w2").acks = true;
    cluster.pass(2_000);
    assert_eq!(cluster.copies, [(id.clone(), Epoch(2))], "{:#?}", cluster.said);
    // Again, and this time it is the leader that goes before the checkpoint has come to its end.
    cluster.worker("w2").acks = false;
    let id = savepoint(&mut cluster);
    cluster.restart_leader();
    cluster.worker("w2").acks = true;
    cluster.dial("w1");
    cluster.dial("w2");
    let (copied, epoch) = cluster.copies.last().expect("copied");
    assert_eq!((copied, *epoch > Epoch(2)), (&id, true), "{:#?}", cluster.said);
}

#[test]
fn savepoint_fails_with_its_checkpoint_and_with_its_job() {
    let settings = format!("{EVERY_SECOND} SET 'execution.checkpointing.tolerable-failed-checkpoints' = '3';");
    let mut cluster = Cluster::running(&settings, 1, &[("w1", 2)]);
    cluster.worker("w1").acks = false;
    let id = savepoint(&mut cluster);
    cluster.pass(5_000);
    let failed = &cluster.core.meta().savepoints[&id];
    assert_eq!(failed.state, SavepointState::Failed);
    assert!(failed.reason.contains("checkpoint 1 has failed"), "{}", failed.reason);
    let id = savepoint(&mut cluster);
    let cancel = ef_proto::wire::generated::control::CancelJobRequest { job: "j".into(), dry_run: false };
    cluster.ask(Request::CancelJob(cancel));
    assert_eq!(cluster.core.meta().savepoints[&id].state, SavepointState::Failed);
}

#[test]
fn stop_ends_the_sources_takes_the_last_checkpoint_and_keeps_it_as_a_savepoint() {
    for drain in [false, true] {
        let mut cluster = two_workers();
        cluster.pass(1_000);
        let savepoint = Some("place".to_string());
        let id = cluster.ask(Request::StopJob(StopJobRequest { job: "j".into(), savepoint, drain, dry_run: false }));
        let Some(Ok(Response::StopJob(stopping))) = cluster.replies.get(&id) else { panic!("{:?}", cluster.replies) };
        let id = stopping.savepoint.clone();
        assert_eq!(cluster.lines(&format!("stop, drain {drain}")).len(), 4, "{:#?}", cluster.said);
        assert_eq!(cluster.job("j").state, JobState::Stopping);
        assert_eq!(cluster.core.meta().savepoints[&id].state, SavepointState::InProgress, "decided with the stop");
        cluster.ends(COUNTS);
        assert!(cluster.lines("trigger 2").is_empty(), "not all have ended");
        cluster.ends(COPIES);
        cluster.pass(20);
        assert_eq!(cluster.job("j").state, JobState::Finished, "{:#?}", cluster.said);
        assert_eq!(cluster.copies, [(id.clone(), Epoch(2))]);
        assert_eq!(cluster.core.meta().savepoints[&id].state, SavepointState::Completed);
        assert!(cluster.store.values().any(|manifest| manifest.epoch == Epoch(2) && manifest.terminal));
        assert_eq!(cluster.lines("cancel").len(), 4, "lingering tasks leave: {:#?}", cluster.said);
    }
}

#[test]
fn first_of_two_stops_counts_and_both_get_their_savepoint() {
    let mut cluster = two_workers();
    cluster.stop_log();
    let stop = |drain| StopJobRequest { job: "j".into(), savepoint: Some("place".into()), drain, dry_run: false };
    cluster.ask(Request::StopJob(stop(false)));
    cluster.ask(Request::StopJob(stop(true)));
    cluster.start_log();
    assert!(cluster.lines("drain true").is_empty(), "sources have ended by the first: {:#?}", cluster.said);
    cluster.ends(COUNTS);
    cluster.ends(COPIES);
    cluster.pass(20);
    assert_eq!(cluster.job("j").state, JobState::Finished, "{:#?}", cluster.said);
    let savepoints = cluster.core.meta().savepoints.values();
    assert!(savepoints.clone().count() == 2 && savepoints.clone().all(|s| s.state == SavepointState::Completed));
}

#[test]
fn region_that_restarts_while_the_job_stops_is_stopped_again() {
    let mut cluster = two_workers();
    cluster.ask(Request::StopJob(StopJobRequest { job: "j".into(), savepoint: None, drain: true, dry_run: false }));
    cluster.ends(COPIES);
    cluster.fails("w1", COUNTS, "broken");
    cluster.forget();
    cluster.pass(2_000);
    assert!(cluster.lines("stop, drain true 0#3").len() == 2, "{:#?}", cluster.said);
    // Windows may have fired for what was read before the stop: not a row may follow.
    let stops =
        cluster.workers.values().flat_map(|worker| &worker.held).map(|(id, (_, deploy))| (id.region, deploy.stop));
    assert!(stops.into_iter().all(|(region, stop)| stop == (region == COUNTS).then_some(true)));
    assert_eq!(cluster.job("j").state, JobState::Stopping);
    cluster.ends(COUNTS);
    cluster.pass(20);
    assert_eq!(cluster.job("j").state, JobState::Finished, "{:#?}", cluster.said);
}

#[test]
fn job_has_finished_only_when_every_sink_has_published_its_last_checkpoint() {
    let mut cluster = two_workers();
    cluster.worker("w2").commits = false;
    cluster.ends(COUNTS);
    cluster.ends(COPIES);
    cluster.pass(20);
    assert_eq!(cluster.lines("complete 1").len(), 4);
    assert_eq!(cluster.job("j").state, JobState::Running, "{:#?}", cluster.said);
    // The worker goes before it has said so: its region restarts, and publishes when it does.
    cluster.kill("w2");
    cluster.worker("w2").commits = true;
    cluster.dial("w2");
    cluster.pass(2_000);
    assert_eq!(cluster.job("j").state, JobState::Finished, "{:#?}", cluster.said);
}

#[test]
fn restarted_region_has_published_when_its_sinks_say_so_and_not_when_it_runs() {
    let mut cluster = Cluster::running(EVERY_SECOND, 1, &[("w1", 4)]);
    cluster.worker("w1").commits = false;
    cluster.ends(COUNTS);
    cluster.ends(COPIES);
    cluster.pass(20);
    assert_eq!(cluster.lines("complete 1").len(), 2, "{:#?}", cluster.said);
    cluster.kill("w1");
    cluster.dial("w1");
    cluster.pass(2_000);
    assert_eq!(cluster.lines("deploy from 1").len(), 2, "{:#?}", cluster.said);
    assert_ne!(cluster.job("j").state, JobState::Finished, "nobody has its last rows yet: {:#?}", cluster.said);
    let deployed: Vec<_> =
        cluster.workers["w1"].held.iter().map(|(id, (_, deploy))| (id.clone(), deploy.clone())).collect();
    for (id, deploy) in deployed {
        let epoch = deploy.restore.as_ref().expect("from the last checkpoint").epoch;
        for event in super::script::commits(&deploy, id.region, epoch) {
            cluster.says_of("w1", id.clone(), event);
        }
    }
    assert_eq!(cluster.job("j").state, JobState::Finished, "{:#?}", cluster.said);
}

#[test]
fn old_objects_are_swept_after_a_retirement_and_what_a_savepoint_is_copied_from_stays() {
    let mut cluster = two_workers();
    for _ in 0..8 {
        cluster.pass(1_000);
    }
    let newest = cluster.job("j").newest().expect("some").epoch;
    let swept = cluster.lines("sweep all but");
    assert!(!swept.is_empty() && swept.len() <= 2, "not each time: {swept:?}");
    assert!(newest > Epoch(5));
}

#[test]
fn ended_job_is_swept_until_there_is_nothing_left_also_if_the_store_was_away() {
    let mut cluster = two_workers();
    cluster.pass(1_000);
    let cancel = ef_proto::wire::generated::control::CancelJobRequest { job: "j".into(), dry_run: false };
    cluster.ask(Request::CancelJob(cancel));
    cluster.forget();
    cluster.sweeps = [None, Some(3), Some(0)].into();
    cluster.pass(60_000);
    let swept = cluster.lines("sweep all but");
    assert_eq!(swept.len(), 3, "once in vain, once with late uploads, once without: {swept:?}");
    // So does the next leader, that has not seen its end.
    cluster.forget();
    cluster.sweeps = [None, Some(3), Some(0)].into();
    cluster.restart_leader();
    cluster.pass(60_000);
    let swept = cluster.lines("sweep all but");
    assert_eq!(swept.len(), 3, "{swept:?}");
}

#[test]
fn acks_of_tasks_that_do_not_run_yet_are_not_waited_for_while_a_region_restarts() {
    let mut cluster = two_workers();
    cluster.worker("w1").runs = false;
    cluster.fails("w1", COUNTS, "broken");
    cluster.pass(2_000);
    assert_eq!(cluster.worker("w1").held.values().filter(|(phase, _)| *phase == Phase::Starting).count(), 1);
    cluster.forget();
    cluster.pass(5_000);
    assert!(cluster.lines("trigger").is_empty(), "{:#?}", cluster.said);
    cluster.says("w1", COUNTS, Event::Running);
    cluster.pass(20);
    assert_eq!(cluster.lines("trigger").len(), 4, "{:#?}", cluster.said);
}
