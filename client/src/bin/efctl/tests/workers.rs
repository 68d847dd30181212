//! get workers and tiers, describe worker, cordon, uncordon, drain.

use super::*;
use ef_proto::wire::generated::control::WorkerTask;

fn fleet(world: &mut World) {
    world.job("pumps-1", "pumps", "RUNNING");
    let task = WorkerTask { job: "pumps-1".into(), job_name: "pumps".into(), task: "00ff".into(), index: 1 };
    world.worker("w1", "cloud").tasks.push(task);
    world.worker("g1", "gateway").worker.as_mut().expect("made with one").site = "hall-1".into();
    world.worker("g2", "gateway").worker.as_mut().expect("made with one").state = "LOST".into();
}

#[tokio::test]
async fn workers_and_tiers_are_listed() {
    let fake = Fake::start(fleet);
    let expected = "\
ID   STATE   TIER      SITE     FREE   SLOTS   TASKS   CPU   MEMORY   SEEN
w1   READY   cloud     -        4      4       0       0m    0B       1s
g1   READY   gateway   hall-1   4      4       0       0m    0B       1s
g2   LOST    gateway   -        4      4       0       0m    0B       1s
";
    assert_eq!(efctl(&fake, &["get", "workers"]).await.done(), expected);
    assert_eq!(efctl(&fake, &["get", "w", "w1"]).await.done().lines().count(), 2);
    let expected = "\
TIER      SITES   READY   FREE   JOBS
gateway   1       1/2     4/8    0
cloud     0       1/1     4/4    1
";
    assert_eq!(efctl(&fake, &["get", "tiers"]).await.done(), expected);
    let json = efctl(&fake, &["get", "tier", "-o", "json"]).await.done();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json).expect("JSON")[0]["sites"][0], "hall-1");
    assert_has(
        &efctl(&fake, &["describe", "worker", "w1"]).await.done(),
        &["4 of 4 free", "pumps-1   pumps   00ff   1"],
    );
}

#[tokio::test]
async fn cordon_and_uncordon_change_a_worker() {
    let fake = Fake::start(fleet);
    assert_eq!(efctl(&fake, &["cordon", "w1"]).await.done(), "worker w1 cordoned\n");
    assert_has(&efctl(&fake, &["get", "workers", "w1"]).await.done(), &["READY,CORDONED"]);
    assert_eq!(efctl(&fake, &["uncordon", "w1"]).await.done(), "worker w1 uncordoned\n");
    assert!(!efctl(&fake, &["get", "workers", "w1"]).await.done().contains("CORDONED"));
}

#[tokio::test]
async fn drain_says_which_jobs_move_and_waits_until_they_have() {
    let fake = Fake::start(fleet);
    let out = efctl(&fake, &["drain", "w1", "--dry-run"]).await.done();
    assert_eq!(out, "worker w1 draining: job pumps-1 moves (dry run)\n");
    assert_eq!(fake.world().workers[0].tasks.len(), 1);
    let out = efctl(&fake, &["drain", "w1", "--wait"]).await.done();
    assert_eq!(out, "worker w1 draining: job pumps-1 moves\nworker w1 drained\n");
    assert_eq!(efctl(&fake, &["drain", "w1"]).await.done(), "worker w1 draining: it has no tasks\n");
}
