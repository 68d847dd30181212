//! Faults by a seed against a cluster of real processes, and the checker's word on what the job wrote. `make chaos` runs
//! the long one; `EDGEFLOW_SEED` repeats a failed one. And builds with one bug switched on each: the checker must see it.

use ef_tests::faults::{Failure, Kind, Plan, Report, run, run_over};
use ef_tests::seed::seed;
use ef_tests::servers::kafka::{self, Kafka};
use ef_tests::shared::say;
use std::path::Path;
use std::time::Duration;

/// In CI, and whenever nobody says otherwise.
const FAULTS_SHORT: usize = 20;

fn plan(seed: u64) -> Plan {
    Plan {
        seed,
        faults: FAULTS_SHORT,
        kinds: Kind::ALL.to_vec(),
        workers: 3,
        parallelism: 3,
        // The heartbeat timeout is 2 s.
        freeze_ms: 3000..=6000,
        pause_ms: 200..=2500,
        feed_every: Duration::from_millis(250),
        checkpoint_interval: "200 ms".into(),
        in_s3: seed.is_multiple_of(2),
        backend: if (seed / 2).is_multiple_of(2) { "rocksdb".into() } else { "memory".into() },
        coordinator_flags: Vec::new(),
        worker_flags: Vec::new(),
    }
}

fn faults() -> usize {
    let faults = std::env::var("EDGEFLOW_CHAOS_FAULTS");
    faults.map_or(FAULTS_SHORT, |text| text.parse().expect("EDGEFLOW_CHAOS_FAULTS is a number"))
}

#[test]
fn whatever_fails_every_row_counts_once() {
    let (seed, faults) = (seed(), faults());
    let mut plan = Plan { faults, ..plan(seed) };
    if faults > FAULTS_SHORT {
        plan.freeze_ms = 3000..=30_000;
        // Every file that was ever read is looked at again and again.
        plan.feed_every = Duration::from_secs(1);
    }
    let work = tempfile::tempdir().expect("a temporary directory");
    assert_exact("chaos", &plan, run(work.path(), &plan));
}

/// With what a Kafka on both sides can do wrong, and without what has nothing to do with it.
fn plan_over_kafka(seed: u64) -> Plan {
    let kinds = [
        Kind::KillWorker,
        Kind::KillCoordinator,
        Kind::FreezeWorker,
        Kind::CutControl,
        Kind::DiskFull,
        Kind::Rescale,
        Kind::Upgrade,
        Kind::KillBroker,
        Kind::FreezeBroker,
    ];
    Plan { kinds: kinds.to_vec(), ..plan(seed) }
}

#[test]
fn whatever_fails_every_row_comes_from_kafka_and_goes_to_kafka_once() {
    let Some(kafka) = Kafka::start("chaos over Kafka", kafka::Options::default()) else { return };
    let (seed, faults) = (seed(), faults());
    // Commits of which nobody knows what has become of them are rare by themselves.
    let plan = Plan { faults, worker_flags: flag("--test-kafka-lose-answers"), ..plan_over_kafka(seed) };
    let work = tempfile::tempdir().expect("a temporary directory");
    assert_exact("chaos over Kafka", &plan, run_over(kafka, work.path(), &plan));
}

#[track_caller]
fn assert_exact(what: &str, plan: &Plan, ended: Result<Report, Failure>) {
    let seed = plan.seed;
    match ended {
        Ok(report) => {
            let checked = report.checked;
            say(&format!(
                "{what}: EDGEFLOW_SEED={seed}, {} faults, {} restarts, {} rows, {} changes, {} windows: exact",
                report.faults, report.restarts, checked.rows, checked.changes, checked.windows
            ));
            assert!(
                report.restarts > 0,
                "EDGEFLOW_SEED={seed}: faults that nobody noticed prove nothing\n{}",
                report.log
            );
        }
        Err(Failure::Output(what) | Failure::Job(what)) => panic!("{what}"),
    }
}

/// Series that a bug has to be seen in.
const SERIES: u64 = 12;

/// How a bug may show.
#[derive(PartialEq)]
enum Shows {
    InTheOutput,
    /// Also by a job that does not go on, because another rule has kept it from doing harm.
    SomehowLoudly,
}

/// Runs series of faults against a build with a bug in it, until one of them shows. Err: what they said, if none did.
fn caught(shows: Shows, kinds: &[Kind], change: impl Fn(&mut Plan)) -> Result<(), String> {
    caught_by(shows, kinds, change, |directory, plan| Some(run(directory, plan)))
}

/// The same over a broker of its own each; nothing where there is none.
fn caught_over_kafka(shows: Shows, kinds: &[Kind], change: impl Fn(&mut Plan)) -> Result<(), String> {
    caught_by(shows, kinds, change, |directory, plan| {
        let kafka = Kafka::start("bugs in a Kafka sink are seen", kafka::Options::default())?;
        Some(run_over(kafka, directory, plan))
    })
}

fn caught_by(
    shows: Shows,
    kinds: &[Kind],
    change: impl Fn(&mut Plan),
    run: impl Fn(&Path, &Plan) -> Option<Result<Report, Failure>>,
) -> Result<(), String> {
    let seed = seed();
    let mut told = format!("EDGEFLOW_SEED={seed}: {SERIES} series of faults were survived");
    for series in 0..SERIES {
        // Directories only: what is wrong with the store is not what is looked for.
        let mut plan = Plan {
            faults: 6,
            kinds: kinds.to_vec(),
            workers: 2,
            parallelism: 2,
            in_s3: false,
            freeze_ms: 3000..=4000,
            // There is always one in flight that a fault can hit.
            checkpoint_interval: "30 ms".into(),
            ..plan(seed.wrapping_add(series))
        };
        change(&mut plan);
        let work = tempfile::tempdir().expect("a temporary directory");
        let Some(ended) = run(work.path(), &plan) else { return Ok(()) };
        match ended {
            Err(Failure::Output(what)) => {
                println!("caught: {what}");
                return Ok(());
            }
            Err(Failure::Job(what)) if shows == Shows::SomehowLoudly => {
                println!("caught: {what}");
                return Ok(());
            }
            // A job that cannot go on has lost nothing silently, but that is not what was asked for.
            Err(Failure::Job(what)) => told += &format!("\nseries {series}: the job did not go on: {what}"),
            Ok(report) => told += &format!("\nseries {series}: exact\n{}", report.log),
        }
    }
    Err(told)
}

fn flag(flag: &str) -> Vec<String> {
    vec![flag.to_string()]
}

#[test]
fn sinks_that_publish_before_completion_are_caught() {
    // While the store is away no checkpoint completes, and what is published at a barrier is read again after a kill.
    let change = |plan: &mut Plan| plan.worker_flags = flag("--test-commit-before-completion");
    let kinds = [Kind::StoreDown, Kind::KillWorker];
    caught(Shows::InTheOutput, &kinds, change).unwrap_or_else(|told| panic!("{told}"));
}

#[test]
fn sources_that_do_not_read_again_are_caught() {
    let change = |plan: &mut Plan| {
        plan.worker_flags = flag("--test-skip-replay");
        // There is always something to be read again, and by a worker that lives on: the bug is in its memory.
        plan.checkpoint_interval = "1 s".into();
        plan.pause_ms = 1000..=2500;
        (plan.workers, plan.parallelism) = (3, 3);
    };
    caught(Shows::InTheOutput, &[Kind::KillWorker], change).unwrap_or_else(|told| panic!("{told}"));
}

#[test]
fn zombies_that_are_not_fenced_are_caught() {
    let change = |plan: &mut Plan| {
        plan.coordinator_flags = flag("--test-skip-fence");
        // All on one worker: with channels to others, which have left, the zombie's tasks would fail.
        plan.parallelism = 1;
    };
    caught(Shows::InTheOutput, &[Kind::FreezeWorker], change).unwrap_or_else(|told| panic!("{told}"));
}

#[test]
fn epochs_that_are_used_twice_are_caught() {
    let change = |plan: &mut Plan| plan.coordinator_flags = flag("--test-reuse-epoch");
    // Create-only puts refuse a second manifest of an epoch, which stops the job before anything is lost.
    caught(Shows::SomehowLoudly, &[Kind::KillWorker, Kind::KillCoordinator], change)
        .unwrap_or_else(|told| panic!("{told}"));
}

#[test]
fn markers_that_nobody_looks_at_are_missed() {
    let change = |plan: &mut Plan| plan.worker_flags = flag("--test-kafka-no-marker");
    caught_over_kafka(Shows::InTheOutput, &[Kind::KillWorker, Kind::FreezeBroker], change)
        .unwrap_or_else(|told| panic!("{told}"));
}

#[test]
fn unknown_outcomes_that_are_taken_for_failures_are_caught() {
    let change = |plan: &mut Plan| {
        plan.worker_flags = ["--test-kafka-blind-retry", "--test-kafka-lose-answers"].map(String::from).to_vec();
        // From the beginning of one fault to that of the next: in between commits have to come to their ends again.
        plan.pause_ms = 5000..=8000;
    };
    caught_over_kafka(Shows::InTheOutput, &[Kind::FreezeBroker], change).unwrap_or_else(|told| panic!("{told}"));
}

#[test]
fn slots_that_nobody_fences_after_scaling_in_are_caught() {
    let change = |plan: &mut Plan| {
        plan.worker_flags = flag("--test-kafka-no-fence");
        // Rows that their subtask could not send any more.
        plan.pause_ms = 200..=600;
    };
    caught_over_kafka(Shows::InTheOutput, &[Kind::FreezeBroker, Kind::Rescale, Kind::KillWorker], change)
        .unwrap_or_else(|told| panic!("{told}"));
}

#[test]
fn epochs_that_are_used_twice_are_caught_over_kafka() {
    let change = |plan: &mut Plan| plan.coordinator_flags = flag("--test-reuse-epoch");
    caught_over_kafka(Shows::SomehowLoudly, &[Kind::KillWorker, Kind::KillCoordinator], change)
        .unwrap_or_else(|told| panic!("{told}"));
}
