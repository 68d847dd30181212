//! checkpoint, savepoint, get checkpoints and savepoints, describe checkpoint and savepoint.

use super::*;
use ef_proto::wire::generated::control::Checkpoint;

fn checkpoint(epoch: u64, state: &str, cause: &str) -> Checkpoint {
    Checkpoint {
        epoch,
        state: state.into(),
        cause: cause.into(),
        triggered_at_ms: 5_000,
        duration_ms: 120,
        bytes: 20_000,
        new_bytes: 500,
        retained: state == "COMPLETED",
        reason: if state == "FAILED" { "subtask a/0 did not ack".into() } else { String::new() },
        ..Checkpoint::default()
    }
}

fn with_checkpoint(world: &mut World) {
    small(world);
    world.checkpoints.push(checkpoint(6, "COMPLETED", "periodic"));
}

#[tokio::test]
async fn checkpoint_is_requested_and_waited_for() {
    let fake = Fake::start(with_checkpoint);
    assert_eq!(efctl(&fake, &["checkpoint", "pumps"]).await.done(), "checkpoint of job pumps-1 requested\n");
    fake.change(|world| world.next_checkpoint = Some(checkpoint(7, "COMPLETED", "requested")));
    let out = efctl(&fake, &["checkpoint", "pumps", "--wait"]).await.done();
    assert!(out.ends_with("checkpoint 7 of job pumps-1 completed in 120ms: 20.0kB, 500B of it new\n"), "{out}");
}

#[tokio::test]
async fn an_older_checkpoint_is_not_taken_for_the_requested_one() {
    let fake = Fake::start(with_checkpoint);
    let message = efctl(&fake, &["checkpoint", "pumps", "--wait=10ms"]).await.failed(4);
    assert_eq!(message, "the checkpoint of job pumps-1 is not complete after 10ms");
    // A periodic one that fails is not ours, the requested one is.
    fake.change(|world| {
        world.checkpoints.push(checkpoint(7, "FAILED", "periodic"));
        world.next_checkpoint = Some(checkpoint(9, "FAILED", "requested"));
    });
    let message = efctl(&fake, &["checkpoint", "pumps", "--wait"]).await.failed(1);
    assert_eq!(message, "checkpoint 9 of job pumps-1 failed: subtask a/0 did not ack");
    fake.change(|world| world.states.push_back("FAILED"));
    let message = efctl(&fake, &["checkpoint", "pumps", "--wait"]).await.failed(1);
    assert_eq!(message, "job pumps-1 has ended without the checkpoint");
}

#[tokio::test]
async fn checkpoints_are_listed_and_described() {
    let fake = Fake::start(with_checkpoint);
    let expected = "\
EPOCH   STATE       CAUSE      DURATION   SIZE     NEW    RETAINED   AGE
6       COMPLETED   periodic   120ms      20.0kB   500B   yes        5s
";
    assert_eq!(efctl(&fake, &["get", "chk", "pumps"]).await.done(), expected);
    let out = efctl(&fake, &["describe", "checkpoint", "pumps", "6"]).await.done();
    assert_has(&out, &["pumps-1 (pumps)", "Epoch:            6"]);
}

#[tokio::test]
async fn savepoints_are_made_listed_described_and_disposed_of() {
    let fake = Fake::start(|world| {
        small(world);
        world.savepoint_states.extend(["IN_PROGRESS", "COMPLETED"]);
    });
    let out = efctl(&fake, &["savepoint", "create", "pumps", "/save", "--wait"]).await.done();
    let expected = "\
savepoint sp-1 of job pumps-1 (pumps) started
savepoint sp-1 completed in 1.00s: 2000.0kB in /save/savepoint-pumps-1-sp-1
";
    assert_eq!(out, expected);
    for list in [["savepoint", "list", "pumps"], ["get", "savepoints", "pumps-1"]] {
        assert_has(
            &efctl(&fake, &list).await.done(),
            &["ID     JOB", "sp-1   pumps-1", "/save/savepoint-pumps-1-sp-1"],
        );
    }
    assert_has(&efctl(&fake, &["sp", "ls"]).await.done(), &["sp-1   pumps-1"]);
    let json = efctl(&fake, &["get", "sp", "-o", "json"]).await.done();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json).expect("JSON")[0]["epoch"], 7);
    let described = efctl(&fake, &["savepoint", "describe", "sp-1"]).await.done();
    assert_has(&described, &["State:    COMPLETED", "Epoch:            7"]);
    assert_eq!(efctl(&fake, &["describe", "savepoint", "sp-1"]).await.done(), described);
    assert_eq!(efctl(&fake, &["savepoint", "dispose", "sp-1"]).await.done(), "savepoint sp-1 disposed\n");
    assert_has(&efctl(&fake, &["savepoint", "describe", "sp-1"]).await.done(), &["State:    DISPOSED"]);
}

#[tokio::test]
async fn a_savepoint_that_takes_too_long_or_is_interrupted_goes_on() {
    let fake = Fake::start(small);
    let message = efctl(&fake, &["savepoint", "create", "pumps", "--wait=10ms"]).await.failed(4);
    assert_eq!(message, "savepoint sp-1 is IN_PROGRESS after 10ms");
    let efctl = Efctl::new();
    efctl.interrupt.notify_one();
    assert_eq!(efctl.run(&fake.url, &["savepoint", "create", "pumps", "--wait"]).await, Exit::Interrupted);
    assert_has(&efctl.err.text(), &["savepoint sp-2 goes on"]);
}

#[tokio::test]
async fn relative_places_are_sent_from_the_root_on() {
    let fake = Fake::start(small);
    efctl(&fake, &["savepoint", "create", "pumps", "saves"]).await.done();
    let here = std::env::current_dir().expect("a directory").join("saves");
    assert_has(fake.world().asked("create_savepoint")[0], &[&format!("directory: \"{}\"", here.display())]);
}
