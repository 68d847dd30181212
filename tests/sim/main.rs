//! The cluster in one thread: the real rules of coordinator and workers over a simulated network, disk, store and clock,
//! with faults drawn from one seed. What sinks publish must be what a naive computation gives, each row once.
//!
//! `EDGEFLOW_SIM_SEEDS` seeds are run (and `EDGEFLOW_SIM_FROM` is the first); `EDGEFLOW_SEED` runs one of them and prints
//! what happens. Each bug that is switched on on purpose must be found, or the simulator itself is worth nothing.

mod agent;
mod check;
mod coordinator;
mod faults;
mod jobs;
mod net;
mod nodes;
mod people;
mod sink;
mod state;
mod store;
mod task;
mod work;
mod worker;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use world::{Bugs, Options, Stats, World, trace};

/// About a minute on one core.
const SEEDS: u64 = 3_000;

/// A bug that is not found within so many seeds is not going to be found. Each shows itself in one of two hundred, or more
/// often.
const SEEDS_TO_FIND: u64 = 3_000;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}: found `{text}`, expected a number")))
}

fn run(options: Options) -> Result<Stats, String> {
    catch_unwind(AssertUnwindSafe(|| World::new(options).run())).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
        Err(format!("a panic: {}", text.unwrap_or_default()))
    })
}

/// Once more, with its last events in words.
fn explained(options: Options) -> String {
    match run(Options { trace: true, ..options }) {
        Ok(_) => "when it was repeated, nothing was wrong: the simulator is not deterministic".into(),
        Err(message) => format!("{}{message}", trace()),
    }
}

#[test]
fn every_seed_keeps_all_promises() {
    if let Some(seed) = number("EDGEFLOW_SEED") {
        let result = run(Options { seed, trace: true, whole_trace: true, ..Options::default() });
        println!("{}", trace());
        match result {
            Ok(stats) => return println!("seed {seed}: nothing is wrong: {stats:?}"),
            Err(message) => panic!("seed {seed}: {message}"),
        }
    }
    let (from, seeds) = (number("EDGEFLOW_SIM_FROM").unwrap_or(1), number("EDGEFLOW_SIM_SEEDS").unwrap_or(SEEDS));
    #[expect(clippy::disallowed_methods, reason = "how many seeds a minute is told; nothing simulated looks at it")]
    let began = std::time::Instant::now();
    let mut total = Stats::default();
    for seed in from..from + seeds {
        let options = Options { seed, ..Options::default() };
        match run(options) {
            Ok(stats) => total.add(stats),
            Err(message) => {
                panic!("seed {seed}: {message}\n{}\nagain with EDGEFLOW_SEED={seed}", explained(options));
            }
        }
    }
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    println!("{seeds} seeds from {from}, {:.0} a minute: {total:?}", seeds as f64 / minutes);
    // A world in which nothing happens keeps all promises.
    let often = [total.faults, total.checkpoints, total.rescales, total.moves, total.savepoints, total.resumed];
    assert!(seeds < 100 || often.iter().all(|count| count * 20 > seeds), "too little happens: {total:?}");
}

#[test]
fn one_seed_is_one_history() {
    for seed in [3, 17] {
        let options = Options { seed, trace: true, ..Options::default() };
        let histories = [(run(options), trace()), (run(options), trace())];
        assert_eq!(histories[0], histories[1], "seed {seed}");
    }
}

/// The first seed that shows the bug, and how.
fn found(bugs: Bugs, outside_only: bool) -> Option<(u64, String)> {
    (1..=SEEDS_TO_FIND).find_map(|seed| {
        let options = Options { seed, bugs, outside_only, ..Options::default() };
        run(options).err().map(|message| (seed, message))
    })
}

/// `symptoms`: words of which one must be in what is found, so that it is this bug and not another.
fn is_found(what: &str, bugs: Bugs, outside_only: bool, symptoms: &[&str]) {
    let (seed, message) = found(bugs, outside_only).unwrap_or_else(|| panic!("{what}: not in {SEEDS_TO_FIND} seeds"));
    println!("{what}: seed {seed}: {message}");
    assert!(symptoms.iter().any(|symptom| message.contains(symptom)), "{what}, seed {seed}: {message}");
}

const WRONG_ROWS: &[&str] = &["are missing"];
const GONE: &[&str] = &["is gone", "not there", "needs it"];

#[test]
fn sinks_that_publish_at_the_barrier_are_found() {
    is_found("publish at the barrier", Bugs { publish_at_barrier: true, ..Bugs::default() }, true, WRONG_ROWS);
}

#[test]
fn sources_that_do_not_rewind_are_found() {
    is_found("no rewind", Bugs { no_rewind: true, ..Bugs::default() }, true, WRONG_ROWS);
}

#[test]
fn stores_that_reuse_what_is_not_confirmed_are_found() {
    is_found("reuse of unconfirmed files", Bugs { reuse_unconfirmed: true, ..Bugs::default() }, false, GONE);
}

#[test]
fn sweeps_that_forget_the_checkpoint_in_flight_are_found() {
    is_found("sweep of files in flight", Bugs { gc_ignores_in_flight: true, ..Bugs::default() }, false, GONE);
}

#[test]
fn acks_that_come_before_the_upload_are_found() {
    is_found("ack before the upload", Bugs { ack_before_upload: true, ..Bugs::default() }, false, GONE);
}

#[test]
fn disk_that_lies_to_the_log_is_found() {
    is_found("lying log", Bugs { lying_log: true, ..Bugs::default() }, false, &["second time", "are missing", "knows"]);
}

#[test]
fn event_time_that_passes_a_stopped_source_is_found() {
    is_found("stopped channels", Bugs { stopped_channels_close: true, ..Bugs::default() }, true, WRONG_ROWS);
}

/// Workers end an older deployment of a region by themselves when they are given a newer one, so that only a task whose
/// place has changed lives on: it publishes beside the new one, or its end ends the new one's job before its time.
#[test]
fn missing_fence_is_found() {
    let bugs = Bugs { skip_fence: true, ..Bugs::default() };
    is_found("no fence", bugs, false, &["publishes after", "holds", "are missing"]);
    is_found("no fence, from outside", bugs, true, WRONG_ROWS);
}

/// Seen from outside it does no harm until a manifest of the earlier leader is already there: the job then fails, which is
/// the second line of defence.
#[test]
fn epochs_that_are_given_out_twice_are_found() {
    let bugs = Bugs { reuse_epoch: true, ..Bugs::default() };
    is_found("epoch reuse", bugs, false, &["second time"]);
    is_found("epoch reuse, from outside", bugs, true, &["another content", "nothing names", "are missing"]);
}
