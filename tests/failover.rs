//! What a cluster promises when something is lost or changed while a job runs: a worker, a coordinator, the parallelism,
//! the SQL. Every row still counts once.

use ef_tests::cluster::{Options, Who};
use ef_tests::following::Following;
use ef_tests::rows::directory;
use ef_tests::seed::seed;
use ef_tests::table::objects;
use ef_tests::wait::PATIENCE;
use std::collections::BTreeMap;

/// The number of a worker that runs some of the job.
fn busy_worker(following: &Following) -> usize {
    following.cluster.busy_worker(&following.id).expect("somebody runs it")
}

#[test]
fn job_of_a_killed_worker_goes_on_from_the_last_checkpoint() {
    let seed = seed();
    for backend in ["memory", "rocksdb"] {
        let mut following = Following::start_with(seed, Options::workers(2), 2, |job| job.backend = backend.into());
        following.feed(4);
        let killed = busy_worker(&following);
        // In the middle of rows that no checkpoint holds yet.
        following.feeder.feed(4);
        following.cluster.kill(Who::Worker(killed));
        following.feed(4);
        let row = following.row();
        assert!(row["restarts"].as_u64() >= Some(1), "EDGEFLOW_SEED={seed} on {backend}: {row:#}");
        assert_eq!(row["workers"], 1, "{row:#}");
        following.finish();
    }
}

#[test]
fn worker_that_comes_back_under_its_name_starts_empty_handed() {
    let seed = seed();
    let mut following = Following::start(seed, Options::workers(1), 2);
    following.feed(4);
    following.cluster.kill(Who::Worker(0));
    // Sooner than its heartbeats are missed.
    following.cluster.restart(Who::Worker(0));
    following.feed(4);
    assert!(following.row()["restarts"].as_u64() >= Some(1));
    following.finish();
}

#[test]
fn tasks_go_on_while_the_coordinator_is_away_and_are_not_deployed_again() {
    let seed = seed();
    let mut following = Following::start(seed, Options::patient(2), 4);
    following.feed(4);
    let before = following.row();
    following.cluster.kill(Who::Coordinator);
    following.feeder.feed(4);
    following.cluster.restart(Who::Coordinator);
    following.cluster.await_ready(Who::Coordinator);
    following.cluster.wait_checkpoint(&following.id, before["last_checkpoint"].as_u64().expect("it had some"));
    following.feed(4);
    let after = following.row();
    for what in ["restarts", "submitted_at_ms", "parallelism"] {
        assert_eq!(after[what], before[what], "EDGEFLOW_SEED={seed}: {what}");
    }
    let incarnations = following.outputs.echo.incarnations();
    assert_eq!(incarnations.len(), 1, "EDGEFLOW_SEED={seed}: rows of the deployments {incarnations:?}");
    following.finish();
}

#[test]
fn frozen_worker_that_wakes_up_publishes_nothing_twice() {
    let seed = seed();
    let mut following = Following::start(seed, Options::workers(2), 2);
    following.feed(4);
    let frozen = busy_worker(&following);
    following.feeder.feed(4);
    following.cluster.freeze(Who::Worker(frozen));
    // The other one has taken over, and has published what the frozen one had read.
    following.feed(4);
    following.cluster.thaw(Who::Worker(frozen));
    following.feed(4);
    let id = following.cluster.worker_id(frozen).to_string();
    let placed = following.placement();
    assert!(placed.iter().all(|(_, workers)| !workers.contains(&id)), "EDGEFLOW_SEED={seed}: {placed:?}");
    following.finish();
}

#[test]
fn rescaled_job_counts_every_row_once() {
    let seed = seed();
    let mut options = Options::workers(2);
    options.workers.iter_mut().for_each(|worker| worker.slots = 3);
    let mut following = Following::start_with(seed, options, 2, |job| job.backend = "rocksdb".into());
    for parallelism in [5, 3] {
        following.feed(4);
        following.feeder.feed(2);
        let done = following.cluster.efctl(&["rescale", &following.id, "-p", &parallelism.to_string()]);
        assert_eq!(done.code, Some(0), "EDGEFLOW_SEED={seed}, to {parallelism}: {}", done.stderr);
        let is_it = |row: &serde_json::Value| row["state"] == "RUNNING" && row["parallelism"] == parallelism;
        following.cluster.wait_job(&following.id, &format!("parallelism {parallelism}"), PATIENCE, is_it);
        following.feed(4);
        let placed = following.placement();
        // One that has not been placed yet has no name.
        let on = |workers: &Vec<String>| workers.iter().filter(|worker| !worker.is_empty()).count();
        let widest = placed.iter().map(|(_, workers)| on(workers)).max();
        assert_eq!(widest, Some(parallelism), "EDGEFLOW_SEED={seed}: {placed:?}");
    }
    following.finish();
}

#[test]
fn next_version_of_the_sql_goes_on_from_a_savepoint_at_another_parallelism() {
    let seed = seed();
    let mut following = Following::start(seed, Options::workers(2), 2);
    following.feed(6);
    let savepoint = following.cluster.stop_with_savepoint(&following.id);
    let rows_before = following.feeder.fed.len();
    following.outputs.next_generation();
    let (sql, cluster) = (following.job.sql_version_2(), &following.cluster);
    let args = ["-p", "3", "--from-savepoint", &savepoint];
    // What would become of the state, before anything starts.
    let file = cluster.write_sql("version2", &sql);
    let dry = cluster.efctl(&[&["submit", &file, "--dry-run"], args.as_slice()].concat()).success();
    let line = dry.stdout.lines().find(|line| line.contains(" left behind, ")).expect("what becomes of the state");
    let counts: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert!(
        matches!(counts[..], [restored, 0, empty] if restored > 0 && empty > 0),
        "restored, left behind, empty: {}",
        dry.stdout
    );
    following.id = cluster.submit("version2", &sql, &args);
    following.feed(6);
    assert_eq!(following.describe()["restored_from"].as_str().map(|from| from.is_empty()), Some(false));
    let (counts, echo, fed) = (following.job.counts(), following.job.echo(), following.feeder.fed.len() + 2 * 200);
    following.end();
    // The column that was added, of the rows that came since.
    let twice = objects(&directory(&echo)).into_iter().filter(|row| row.contains_key("twice")).collect::<Vec<_>>();
    assert_eq!(twice.len(), fed - rows_before, "EDGEFLOW_SEED={seed}");
    assert!(twice.iter().all(|row| row["twice"].as_i64() == row["amount"].as_i64().map(|amount| amount * 2)));
    // The operator that was added has counted from then on.
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    for change in objects(&directory(&counts)).iter().filter(|change| change["op"] != "-U") {
        let n = change["data"]["n"].as_i64().expect("a count");
        let most = last.entry(change["data"]["source"].to_string()).or_default();
        *most = n.max(*most);
    }
    assert_eq!(last.into_values().sum::<i64>(), (fed - rows_before) as i64, "EDGEFLOW_SEED={seed}");
}

#[test]
fn savepoint_outlives_its_job_and_starts_it_again() {
    let seed = seed();
    let mut following = Following::start(seed, Options::workers(1), 2);
    following.feed(4);
    let cluster = &following.cluster;
    let savepoint = cluster.stop_with_savepoint(&following.id);
    // It is whole by itself: nothing of the job's own checkpoints is needed.
    std::fs::remove_dir_all(cluster.job_files(&following.id)).expect("the job has ended");
    following.outputs.next_generation();
    following.id = cluster.submit("again", &following.job.sql(), &["-p", "1", "--from-savepoint", &savepoint]);
    following.feed(4);
    following.finish();
}
