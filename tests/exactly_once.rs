//! kill -9 at twenty random moments of a file-to-file window job, restarted each time: the output equals the uncut
//! run's, byte for byte after sorting. A build that publishes before its checkpoint has completed fails the same check.

use ef_tests::events::{readings, readings_ndjson};
use ef_tests::rows::directory;
use ef_tests::{Run, Running};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::path::Path;
use std::time::{Duration, Instant};

const KILLS: usize = 20;

fn job(backend: &str) -> String {
    format!(
        "SET 'execution.checkpointing.interval' = '200 ms';
         SET 'state.backend' = '{backend}';
         CREATE TABLE sensor (device_id STRING, ts TIMESTAMP(3), `value` DOUBLE,
           WATERMARK FOR ts AS ts - INTERVAL '3' SECOND
         ) WITH ('connector' = 'filesystem', 'path' = 'sensor', 'format' = 'json', 'source.split-size' = '256kb');
         CREATE TABLE result (device_id STRING, window_start TIMESTAMP(3), n BIGINT, total DECIMAL(38, 1), lo DOUBLE, hi DOUBLE)
         WITH ('connector' = 'filesystem', 'path' = '${{out}}', 'format' = 'json');
         CREATE TABLE kept (device_id STRING, ts TIMESTAMP(3), `value` DOUBLE)
         WITH ('connector' = 'filesystem', 'path' = '${{out}}-kept', 'format' = 'json');
         INSERT INTO result SELECT device_id, window_start, COUNT(*), SUM(CAST(`value` AS DECIMAL(12, 1))), MIN(`value`), MAX(`value`)
         FROM TABLE(TUMBLE(TABLE sensor, DESCRIPTOR(ts), INTERVAL '1' SECOND)) GROUP BY device_id, window_start, window_end;
         INSERT INTO kept SELECT device_id, ts, `value` FROM sensor WHERE `value` > 0;"
    )
}

fn sorted(path: &Path) -> Vec<String> {
    let mut lines: Vec<String> = directory(path).lines().map(String::from).collect();
    lines.sort();
    lines
}

/// What switches the bug on.
const EARLY: (&str, &str) = ("EDGEFLOW_TEST_COMMIT_BEFORE_COMPLETION", "1");

fn start(work: &Path, backend: &str, out: &str, bug: Option<(&str, &str)>) -> Running {
    let define = format!("out={out}");
    let state = format!("state-{out}");
    let run = Run::sql(work, &job(backend)).args(&["-D", &define, "--state-dir", &state, "-p", "2"]);
    bug.into_iter().fold(run, |run, (key, value)| run.env(key, value)).start().expect("efctl starts")
}

/// Kills the job at random moments and restarts it until it has ended, again from the start until there were `KILLS`
/// kills. Ok(how often it ended), or how the output differs from the uncut run's.
fn kill_and_compare(seed: u64, backend: &str, bug: Option<(&str, &str)>) -> Result<usize, String> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let work = tempfile::tempdir().expect("a temporary directory");
    let work = work.path();
    std::fs::create_dir(work.join("sensor")).expect("writable");
    // Two files of the same times, so that both subtasks and all lanes are in use.
    for (part, seed) in [("a", 31u64), ("b", 32)] {
        let text = readings_ndjson(&readings(seed, 700_000, 200, 1, 3000));
        std::fs::write(work.join(format!("sensor/{part}.ndjson")), text).expect("writable");
    }
    let began = Instant::now();
    let uncut = start(work, backend, "uncut", None).wait().expect("efctl runs").success();
    assert!(uncut.stdout.is_empty(), "nothing goes to stdout");
    let longest = (began.elapsed().as_millis() as u64 / 2).max(400);
    let expected = [sorted(&work.join("uncut")), sorted(&work.join("uncut-kept"))];
    assert!(expected[0].len() > 10_000 && expected[1].len() > 100_000, "the job must write enough to lose some");

    let (mut kills, mut ends) = (0, 0);
    while kills < KILLS {
        let out = format!("cut{ends}");
        loop {
            // Long enough to have started, short enough to hit the middle of what is left.
            let until = Instant::now() + Duration::from_millis(rng.random_range(50..longest));
            let mut running = start(work, backend, &out, bug);
            running.until(|| kills < KILLS && Instant::now() >= until).expect("it runs or ends");
            if running.ended() {
                let done = running.wait().expect("it has ended");
                if done.code != Some(0) {
                    return Err(format!("the last run failed: {}", done.stderr));
                }
                break;
            }
            running.signal(libc::SIGKILL);
            running.wait().expect("killed");
            kills += 1;
        }
        ends += 1;
        for (name, expected) in [out.clone(), format!("{out}-kept")].iter().zip(&expected) {
            let found = sorted(&work.join(name));
            if let Some(first) = first_difference(&found, expected) {
                return Err(format!("{name}: {} lines, {} expected; {first}", found.len(), expected.len()));
            }
        }
    }
    Ok(ends)
}

fn first_difference(found: &[String], expected: &[String]) -> Option<String> {
    let at = (0..found.len().max(expected.len())).find(|i| found.get(*i) != expected.get(*i))?;
    Some(format!("line {at} is {:?}, expected {:?}", found.get(at), expected.get(at)))
}

fn seed() -> u64 {
    let seed = match std::env::var("EDGEFLOW_SEED") {
        Ok(text) => text.parse().expect("EDGEFLOW_SEED is a number"),
        Err(_) => rand::rng().random(),
    };
    println!("EDGEFLOW_SEED={seed}");
    seed
}

#[test]
fn output_after_kills_equals_the_uncut_runs() {
    let seed = seed();
    for backend in ["memory", "rocksdb"] {
        match kill_and_compare(seed, backend, None) {
            Ok(ends) => println!("{backend}: {KILLS} kills, {ends} ends"),
            Err(difference) => panic!("EDGEFLOW_SEED={seed} on {backend}: {difference}"),
        }
    }
}

#[test]
fn publishing_before_completion_is_caught() {
    let seed = seed();
    // A kill between barrier and completion is a matter of luck; a few series of twenty make it certain enough.
    let caught = (0..5).any(|i| kill_and_compare(seed.wrapping_add(i), "memory", Some(EARLY)).is_err());
    assert!(caught, "EDGEFLOW_SEED={seed}: the checker did not see rows published twice");
}
