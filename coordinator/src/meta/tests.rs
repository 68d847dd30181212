//! Replay, JSON round trip, and what late commands may not do.

use super::*;
use ef_proto::ids::Incarnation;
use std::collections::BTreeMap;

fn submitted(job: &str) -> Command {
    Command::Submit(Box::new(Submitted {
        job: JobId(job.into()),
        at_ms: 5,
        name: "orders".into(),
        sql: "SELECT 1".into(),
        vars: BTreeMap::new(),
        models: BTreeMap::new(),
        parallelism: Some(2),
        plan: vec![0, 127, 255],
        state: "state".into(),
        restore: None,
    }))
}

fn deploy(job: &str, incarnation: u64) -> Command {
    let task = ef_proto::ids::SubtaskId { operator: ef_proto::ids::OperatorId(0xab), index: 3 };
    let worker = WorkerId("w1".into());
    let deployed = Deployed {
        incarnation: Incarnation(incarnation),
        tasks: BTreeMap::from([(task, worker.clone())]),
        slots: BTreeMap::from([(worker, 1)]),
        restore: None,
    };
    Command::Deploy { job: JobId(job.into()), at_ms: 6, regions: BTreeMap::from([(0, deployed)]), restore: None }
}

fn complete(job: &str, epoch: u64) -> Command {
    let checkpoint = CheckpointRecord {
        epoch: Epoch(epoch),
        cause: "periodic".into(),
        triggered_at_ms: 7,
        completed_at_ms: 8,
        bytes: 10,
        new_bytes: 3,
    };
    Command::Complete { job: JobId(job.into()), at_ms: 8, checkpoint }
}

fn applied(commands: &[Command]) -> Meta {
    let mut meta = Meta::default();
    commands.iter().cloned().for_each(|command| meta.apply(command));
    meta
}

#[test]
fn checkpoint_that_completes_behind_the_end_of_its_job_is_none() {
    let cancel = Command::Cancel { job: JobId("a".into()), at_ms: 5 };
    let meta = applied(&[submitted("a"), complete("a", 1), cancel, complete("a", 2)]);
    assert_eq!(meta.kept(&JobId("a".into())), [Epoch(1)].into(), "its objects may be swept already");
    assert_eq!(meta.jobs[&JobId("a".into())].completed, 1);
}

#[test]
fn state_and_commands_read_back_from_json() {
    let commands = [
        submitted("a"),
        deploy("a", 1),
        complete("a", 4),
        Command::Reserve { job: JobId("a".into()), upto: Epoch(32) },
    ];
    for command in &commands {
        let json = serde_json::to_string(command).expect("plain data");
        assert_eq!(serde_json::from_str::<Command>(&json).expect("reads back"), *command, "{json}");
    }
    let meta = applied(&commands);
    assert_eq!(Meta::decode(&meta.encode()).expect("reads back"), meta);
    assert!(Meta::decode(b"{").is_err());
}

#[test]
fn snapshot_and_tail_give_what_the_whole_log_gives() {
    let commands = [submitted("a"), deploy("a", 1), submitted("b"), complete("a", 1), deploy("b", 1), complete("a", 2)];
    let whole = applied(&commands);
    for cut in 0..=commands.len() {
        let mut meta = Meta::decode(&applied(&commands[..cut]).encode()).expect("a snapshot");
        commands[cut..].iter().cloned().for_each(|command| meta.apply(command));
        assert_eq!(meta, whole, "cut at {cut}");
    }
}

#[test]
fn a_job_that_has_ended_stays_as_it_ended() {
    let ended = [submitted("a"), deploy("a", 1), Command::Cancel { job: JobId("a".into()), at_ms: 9 }];
    let meta = applied(&ended);
    let mut late = meta.clone();
    late.apply(deploy("a", 2));
    late.apply(Command::State { job: JobId("a".into()), at_ms: 10, state: JobState::Running, reason: String::new() });
    assert_eq!(late, meta);
    assert_eq!(meta.jobs[&JobId("a".into())].state, JobState::Cancelled);
    assert!(meta.jobs[&JobId("a".into())].regions.is_empty(), "it takes no slots any more");
}

#[test]
fn ended_jobs_beyond_the_limit_are_forgotten_oldest_first() {
    let mut meta = Meta::default();
    for n in 0..ENDED_MAX + 5 {
        let id = format!("{n:04}");
        meta.apply(submitted(&id));
        meta.apply(Command::State {
            job: JobId(id),
            at_ms: n as u64,
            state: JobState::Finished,
            reason: String::new(),
        });
    }
    meta.apply(submitted("new"));
    assert_eq!(meta.jobs.len(), ENDED_MAX + 1);
    assert!(!meta.jobs.contains_key(&JobId("0004".into())) && meta.jobs.contains_key(&JobId("0005".into())));
}

#[test]
fn a_checkpoint_that_a_savepoint_is_copied_from_is_kept_until_the_copy_is_there() {
    let job = JobId("a".into());
    let savepoint = Command::CreateSavepoint { id: "s".into(), job: job.clone(), path: "p".into(), at_ms: 1 };
    let epoch = Command::SavepointEpoch { id: "s".into(), epoch: Epoch(1) };
    let retire = Command::Retire { job: job.clone(), epochs: vec![Epoch(1)] };
    let mut meta = applied(&[submitted("a"), savepoint, complete("a", 1), epoch, complete("a", 2), retire]);
    assert_eq!(meta.kept(&job), BTreeSet::from([Epoch(1), Epoch(2)]));
    meta.apply(Command::SavepointDone { id: "s".into(), at_ms: 3, bytes: 1 });
    assert_eq!(meta.kept(&job), BTreeSet::from([Epoch(2)]));
}
