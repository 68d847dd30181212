//! What a cluster promises while nothing is broken: a job runs over several workers as it would in one process; work
//! waits for workers, and goes where tables, cordons and drains say; commands take names and ids, dry runs change
//! nothing, and exit codes say how it went.

use ef_tests::checker::Checked;
use ef_tests::cluster::{Cluster, Options, Who, WorkerOptions};
use ef_tests::following::{Following, placement};
use ef_tests::rows::{assert_same, csv, directory, ndjson};
use ef_tests::seed::seed;
use ef_tests::shared;
use ef_tests::wait::{self, PATIENCE};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Runs until somebody ends it.
const ENDLESS: &str = "
SET 'execution.checkpointing.interval' = '200 ms';
CREATE TABLE numbers (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '100');
CREATE TABLE result (n BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO result SELECT n FROM numbers;";

/// The worker's line in `efctl get workers`.
#[track_caller]
fn worker(cluster: &Cluster, id: &str) -> Value {
    let workers = wait::found(PATIENCE, || cluster.workers_listed()).expect("the coordinator answers");
    workers.into_iter().find(|row| row["id"] == id).unwrap_or_else(|| panic!("no worker {id}"))
}

/// The workers that run something of a job.
fn workers_of(placement: &[(String, Vec<String>)]) -> BTreeSet<String> {
    placement.iter().flat_map(|(_, workers)| workers.iter().cloned()).collect()
}

#[test]
fn hot_items_over_two_workers_are_those_of_the_recording() {
    let Some(shared) = shared::folder() else { return };
    let nexmark = shared.join("nexmark");
    let work = tempfile::tempdir().expect("a temporary directory");
    let events = shared::text(&nexmark.join("events_100k.ndjson.gz"));
    std::fs::write(work.path().join("events.ndjson"), events).expect("writable");
    let (columns, expected) = csv(&shared::text(&shared::either(&nexmark, "expected/q5.csv")));
    let (ddl, query) = (shared::text(&nexmark.join("queries/ddl.sql")), shared::text(&nexmark.join("queries/q5.sql")));
    let cluster = Cluster::start(work.path(), Options::workers(2));
    let mut ran = 0;
    for backend in ["memory", "rocksdb"] {
        let _ = std::fs::remove_dir_all(work.path().join("out"));
        // Small splits, so that each subtask of the source has some.
        let ddl = ddl.replace("'format' = 'json'", "'format' = 'json', 'source.split-size' = '1mb'");
        let sql = format!("SET 'state.backend' = '{backend}';\n{ddl}\n{query}");
        let job = cluster.submit("q5", &sql, &["-p", "4"]);
        cluster.wait_state(&job, "FINISHED", PATIENCE);
        let found = ndjson(&directory(&work.path().join("out/q5")), &columns);
        assert_same(&format!("q5 over two workers on {backend}"), found, expected.clone(), 1e-9);
        for worker in ["w1", "w2"] {
            let log = std::fs::read_to_string(work.path().join(format!("logs/{worker}.err"))).expect("it has a log");
            assert!(log.contains(&format!("a deployment starts job={job}")), "{worker} ran nothing of it:\n{log}");
        }
        // Shorter than the time between two heartbeats, and counted all the same.
        let counted = || cluster.job(&job).is_some_and(|row| row["rows_in"] == 100_000);
        assert!(wait::until(PATIENCE, counted), "{:#}", cluster.job(&job).unwrap_or_default());
        ran += 1;
    }
    shared::say(&format!("recorded cases: {ran} ran (auction query over two workers)"));
}

#[test]
fn undisturbed_job_over_two_workers_counts_every_row_once_and_leaves_nothing_behind() {
    let seed = seed();
    let mut following = Following::start_with(seed, Options::patient(2), 4, |job| job.backend = "rocksdb".into());
    following.feed(10);
    assert_eq!(workers_of(&following.placement()).len(), 2);
    let rows = following.feeder.fed.len() + 2 * 200;
    let Checked { rows: found, leftovers, .. } = following.finish();
    assert_eq!((found, leftovers), (rows, 0), "EDGEFLOW_SEED={seed}");
}

/// A job is PENDING from its first moment; why it stays so is known when it could not be placed.
#[track_caller]
fn wait_pending(cluster: &Cluster, job: &str, reason: &str) {
    let is_it = |row: &Value| row["state"] == "PENDING" && row["reason"].as_str().is_some_and(|r| r.contains(reason));
    cluster.wait_job(job, &format!("PENDING for \"{reason}\""), PATIENCE, is_it);
}

#[test]
fn job_waits_with_a_reason_until_there_are_slots_for_it() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let mut cluster = Cluster::start(work.path(), Options::workers(0));
    let job = cluster.submit("waiting", ENDLESS, &["-p", "3"]);
    wait_pending(&cluster, &job, "slot");
    // Two slots are not enough for three subtasks.
    cluster.add_worker(WorkerOptions::new("w1"));
    cluster.await_ready(Who::Worker(0));
    assert_eq!(cluster.job_state(&job).as_deref(), Some("PENDING"));
    cluster.add_worker(WorkerOptions::new("w2"));
    cluster.wait_state(&job, "RUNNING", PATIENCE);
    cluster.wait_checkpoint(&job, 0);
    assert_eq!(
        worker(&cluster, "w1")["slots_free"]
            .as_u64()
            .zip(worker(&cluster, "w2")["slots_free"].as_u64())
            .map(|(a, b)| a + b),
        Some(1)
    );
}

#[test]
fn terminated_worker_exits_with_0_and_its_tasks_go_elsewhere() {
    let seed = seed();
    let mut following = Following::start(seed, Options::workers(2), 2);
    following.feed(2);
    let used = workers_of(&following.placement());
    let leaving = (0..2).find(|n| used.contains(following.cluster.worker_id(*n))).expect("one of them runs it");
    assert_eq!(following.cluster.terminate(Who::Worker(leaving)), Some(0));
    following.feed(4);
    following.finish();
}

#[test]
fn tables_say_on_which_tier_and_site_their_tasks_run() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let mut options = Options::workers(2);
    let gateway = &mut options.workers[1];
    (gateway.tier, gateway.site) = ("gateway".into(), "plant-a/line-1".into());
    gateway.labels = vec![("plant".into(), "a".into()), ("line".into(), "1".into())];
    let mut cluster = Cluster::start(work.path(), options);
    let sql = |selector: &str| {
        format!(
            "SET 'execution.checkpointing.interval' = '200 ms';
             CREATE TABLE readings (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '100',
               'tier' = 'gateway', 'site.selector' = '{selector}');
             CREATE TABLE verdict (n BIGINT) WITH ('connector' = 'blackhole', 'tier' = 'cloud');
             INSERT INTO verdict SELECT n FROM readings WHERE n > 0;"
        )
    };
    let here = cluster.submit("here", &sql("plant=a,line=*"), &[]);
    cluster.wait_state(&here, "RUNNING", PATIENCE);
    cluster.wait_checkpoint(&here, 0);
    let placement = placement(&cluster.json(&["describe", "job", &here]));
    let of = |table: &str| -> Vec<String> {
        let found = placement.iter().filter(|(name, _)| name.contains(table));
        found.flat_map(|(_, workers)| workers.clone()).collect()
    };
    assert_eq!((of("readings"), of("verdict")), (vec!["w2".to_string()], vec!["w1".to_string()]), "{placement:?}");
    let tasks = cluster.json(&["describe", "worker", "w2"])["tasks"].clone();
    assert!(
        tasks.as_array().is_some_and(|tasks| tasks.iter().all(|task| task["job"] == *here) && !tasks.is_empty()),
        "{tasks:#}"
    );
    // Nobody is there; once somebody is, it runs.
    let elsewhere = cluster.submit("elsewhere", &sql("plant=b"), &[]);
    wait_pending(&cluster, &elsewhere, "plant=b");
    let mut late = WorkerOptions::new("w3");
    (late.tier, late.site) = ("gateway".into(), "plant-b".into());
    late.labels = vec![("plant".into(), "b".into())];
    cluster.add_worker(late);
    cluster.wait_state(&elsewhere, "RUNNING", PATIENCE);
}

#[test]
fn drained_worker_has_no_tasks_and_cordoned_ones_get_none() {
    let seed = seed();
    let mut following = Following::start(seed, Options::workers(2), 2);
    following.feed(2);
    let used = workers_of(&following.placement());
    let (drained, other) = if used.contains("w1") { ("w1", "w2") } else { ("w2", "w1") };
    let done = following.cluster.efctl(&["drain", drained]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(wait::until(PATIENCE, || worker(&following.cluster, drained)["tasks"] == 0), "EDGEFLOW_SEED={seed}");
    assert_eq!(worker(&following.cluster, drained)["cordoned"], true);
    following.feed(2);
    assert_eq!(workers_of(&following.placement()), BTreeSet::from([other.to_string()]));
    // The other one is full, and this one takes nothing until it is told to.
    let second = following.cluster.submit("second", ENDLESS, &["-p", "2"]);
    wait_pending(&following.cluster, &second, "slot");
    following.cluster.efctl(&["uncordon", drained]).success();
    following.cluster.wait_state(&second, "RUNNING", PATIENCE);
    let placement = placement(&following.cluster.json(&["describe", "job", &second]));
    assert_eq!(workers_of(&placement), BTreeSet::from([drained.to_string()]));
    following.finish();
}

#[test]
fn cancelled_job_has_no_tasks_after_a_second() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let cluster = Cluster::start(work.path(), Options::workers(2));
    // What runs, not what is said to run.
    let tasks = || {
        let threads = (0..2).flat_map(|n| cluster.threads(Who::Worker(n)));
        threads.filter(|name| name.starts_with("Source(numb")).count()
    };
    let mut took = Vec::new();
    // Others use the same cores: one of three must be quick.
    for _ in 0..3 {
        let job = cluster.submit("endless", ENDLESS, &["-p", "4"]);
        cluster.wait_checkpoint(&job, 0);
        assert_eq!(tasks(), 4);
        let asked = Instant::now();
        cluster.efctl(&["cancel", &job]).success();
        assert!(wait::until(PATIENCE, || tasks() == 0));
        took.push(asked.elapsed());
        cluster.wait_state(&job, "CANCELLED", PATIENCE);
    }
    assert!(took.iter().any(|took| *took <= Duration::from_secs(1)), "from the command to the end: {took:?}");
}

#[test]
fn drain_fires_the_windows_that_are_open_and_a_plain_stop_does_not() {
    let seed = seed();
    let mut windows = Vec::new();
    for drain in [false, true] {
        let mut following = Following::start(seed, Options::workers(1), 2);
        following.feed(4);
        let args: &[&str] = if drain { &["--drain", "--wait"] } else { &["--wait"] };
        following.cluster.efctl(&[&["stop", following.id.as_str()], args].concat()).success();
        following.cluster.wait_state(&following.id, "FINISHED", PATIENCE);
        windows.push(directory(&following.job.windows()).lines().count());
        let checked = following.outputs.check(seed, &following.feeder.fed);
        match drain {
            true => drop(checked.unwrap_or_else(|wrong| panic!("{wrong}"))),
            // All rows are there, and only windows are missing.
            false => {
                let text = checked.expect_err("open windows have not fired");
                assert!(
                    text.contains("window lost") && !text.contains("row lost") && !text.contains("again"),
                    "{text}"
                );
            }
        }
    }
    assert!(windows[0] < windows[1], "EDGEFLOW_SEED={seed}: {windows:?}");
}

#[test]
fn commands_take_names_and_ids_and_say_by_exit_code_how_it_went() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let cluster = Cluster::start(work.path(), Options::workers(1));
    let id = cluster.submit("endless", ENDLESS, &[]);
    cluster.wait_checkpoint(&id, 0);
    for name in [id.as_str(), "endless"] {
        assert_eq!(cluster.json(&["describe", "job", name])["job"]["id"], *id);
        assert!(!cluster.checkpoints(name).expect("it has some").is_empty());
    }
    let code = |args: &[&str]| cluster.efctl(args).code;
    for args in [
        ["describe", "job", "nobody"].as_slice(),
        &["describe", "worker", "nobody"],
        &["get", "checkpoints", "nobody"],
        &["stop", "nobody"],
        &["cancel", "nobody"],
        &["rescale", "nobody", "-p", "2"],
        &["savepoint", "create", "nobody"],
        &["drain", "nobody"],
    ] {
        assert_eq!(code(args), Some(3), "{args:?}");
    }
    let file = cluster.write_sql("second", ENDLESS);
    assert_eq!(code(&["submit", &file, "--wait=300ms"]), Some(4), "it is still running");
    cluster.efctl(&["cancel", "second"]).success();
    let file = cluster.write_sql("broken", "SELECT nothing FROM nowhere;");
    let done = cluster.efctl(&["submit", &file]);
    assert!(done.code == Some(2) && done.stderr.contains("line 1"), "{done:?}");
    assert_eq!(code(&["stop", "endless", "--no-such-flag"]), Some(2));
    assert_eq!(code(&["cancel", "endless"]), Some(0));
    cluster.wait_state(&id, "CANCELLED", PATIENCE);
    assert_eq!(code(&["rescale", &id, "-p", "2"]), Some(1), "it has ended");
}

#[test]
fn dry_runs_change_nothing() {
    let seed = seed();
    let mut following = Following::start(seed, Options::patient(2), 2);
    following.feed(2);
    let file = following.cluster.write_sql("second", ENDLESS);
    let cluster = &following.cluster;
    let id = following.id.as_str();
    let used = workers_of(&following.placement()).pop_first().expect("somebody runs it");
    for args in [
        ["submit", &file].as_slice(),
        &["rescale", id, "-p", "4"],
        &["savepoint", "create", id],
        &["stop", id],
        &["stop", id, "--drain"],
        &["cancel", id],
        &["drain", &used],
        &["cordon", &used],
    ] {
        let done = cluster.efctl(&[args, &["--dry-run"]].concat());
        assert_eq!(done.code, Some(0), "{args:?}: {}", done.stderr);
    }
    let wrong = cluster.efctl(&["rescale", "nobody", "-p", "4", "--dry-run"]);
    assert_eq!(wrong.code, Some(3), "a dry run checks what the command would: {}", wrong.stderr);
    following.feed(2);
    let row = following.row();
    assert_eq!(
        (row["state"].as_str(), row["parallelism"].as_u64(), row["restarts"].as_u64()),
        (Some("RUNNING"), Some(2), Some(0))
    );
    let cluster = &following.cluster;
    assert_eq!(cluster.jobs().expect("it answers").len(), 1);
    assert_eq!(cluster.savepoints(&following.id).expect("it answers"), Vec::<Value>::new());
    assert!((1..=2).all(|n| worker(cluster, &format!("w{n}"))["cordoned"] == false));
    following.finish();
}

#[test]
fn after_hundreds_of_checkpoints_the_store_holds_what_the_last_one_needs() {
    const CHECKPOINTS: u64 = 500;
    let seed = seed();
    let mut following = Following::start_with(seed, Options::workers(2), 2, |job| {
        (job.backend, job.checkpoint_interval) = ("rocksdb".into(), "20 ms".into());
    });
    // Rows come all the while, so that every checkpoint has something new.
    let enough = wait::until(8 * PATIENCE, || {
        following.feeder.feed(1);
        wait::nap(Duration::from_millis(100));
        following.describe()["checkpoints"]["completed"].as_u64() >= Some(CHECKPOINTS)
    });
    assert!(enough, "EDGEFLOW_SEED={seed}: {:#}", following.describe()["checkpoints"]);
    following.finish();
}
