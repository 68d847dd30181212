//! Rows to a web service that is slow, refuses, breaks off and is away: each arrives at least once, in batches that a
//! service can tell apart by their key.

use ef_tests::Run;
use ef_tests::servers::http::{Answer, Http, Request};
use ef_tests::table::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Answers the request of a number and a body by `status`; 0 hangs up. Its address, and itself.
fn service(status: impl Fn(usize, &str) -> u16 + Send + Sync + 'static) -> (String, Http) {
    let http = Http::start(move |before, request| match status(before.len(), &request.body) {
        0 => None,
        status => Some(Answer::new(status, "").header("retry-after", "0")),
    });
    (format!("{}/rows", http.url()), http)
}

fn key(request: &Request) -> &str {
    request.header("idempotency-key")
}

/// Numbers from 1 to `rows`, so many a second, to the service.
fn job(url: &str, rows: u32, per_second: Option<u32>, options: &str) -> String {
    let pace = per_second.map(|n| format!(", 'rows-per-second' = '{n}'")).unwrap_or_default();
    format!(
        "SET 'execution.checkpointing.interval' = '50 ms'; SET 'restart-strategy.type' = 'none';
         CREATE TABLE numbers (n BIGINT) WITH ('connector' = 'datagen', 'fields.n.kind' = 'sequence', 'fields.n.start' = '1',
             'fields.n.end' = '{rows}'{pace});
         CREATE TABLE hook (n BIGINT) WITH ('connector' = 'http', 'url' = '{url}', 'format' = 'json'{options});
         INSERT INTO hook SELECT n FROM numbers;"
    )
}

fn numbers(body: &str) -> Vec<u64> {
    let rows: Vec<BTreeMap<String, u64>> = serde_json::from_str(body).expect("an array of rows");
    rows.into_iter().map(|row| row["n"]).collect()
}

/// What a service has that takes each key once.
fn kept(service: &Http) -> Vec<u64> {
    let mut keys = BTreeSet::new();
    let came = service.requests();
    let taken = came.iter().filter(|request| request.status == Some(200) && keys.insert(key(request).to_string()));
    taken.flat_map(|request| numbers(&request.body)).collect()
}

fn run(work: &Path, sql: &str) -> ef_tests::Done {
    Run::sql(work, sql).args(&["--summary-json", "summary.json"]).done()
}

#[test]
fn rows_arrive_once_and_in_order_at_a_service_that_heeds_the_key() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let (url, hook) = service(|count, _| [503, 200, 0, 429, 200, 500, 0, 200][count % 8]);
    run(work.path(), &job(&url, 2_000, None, ", 'sink.batch.max-rows' = '100'")).success();
    assert_eq!(kept(&hook), (1..=2_000).collect::<Vec<_>>());
    let came = hook.requests();
    let mut bodies: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for request in came.iter() {
        bodies.entry(key(request)).or_default().insert(&request.body);
    }
    assert!(bodies.values().all(|bodies| bodies.len() == 1), "a key is one body's, whatever the attempt");
    assert!(came.len() > bodies.len(), "there were retries");
}

#[test]
fn every_row_arrives_though_the_job_is_killed() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let (url, hook) = service(|count, _| [200, 200, 503, 200, 0][count % 5]);
    let sql = job(&url, 3_000, Some(1_000), ", 'sink.batch.interval' = '20 ms'");
    let mut kills = 0;
    loop {
        let mut running = Run::sql(work.path(), &sql).args(&["--state-dir", "state"]).start().expect("efctl starts");
        let before = hook.requests().len();
        // Some have got through, and there are more.
        running.until(|| kills < 4 && hook.requests().len() >= before + 10).expect("it runs");
        if running.ended() {
            running.wait().expect("it has ended").success();
            break;
        }
        running.signal(libc::SIGKILL);
        running.wait().expect("killed");
        kills += 1;
    }
    assert!(kills > 0, "the job is too quick to be hit");
    let kept = kept(&hook);
    let rows: BTreeSet<u64> = kept.iter().copied().collect();
    assert_eq!(rows, (1..=3_000).collect(), "at least once");
    println!("{kills} kills, {} rows arrived again under another key", kept.len() - rows.len());
}

#[test]
fn refused_rows_fail_the_job_or_are_counted_as_the_table_says() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let (url, hook) = service(|_, body| if numbers(body).contains(&15) { 422 } else { 200 });
    let options = ", 'sink.batch.max-rows' = '10'";
    let done = run(work.path(), &job(&url, 40, None, options));
    assert_ne!(done.code, Some(0));
    assert!(done.stderr.contains("in Sink(hook): POST 'http://127.0.0.1:"), "{}", done.stderr);
    assert!(done.stderr.contains("422 Unprocessable Entity"), "{}", done.stderr);
    hook.requests().clear();
    run(work.path(), &job(&url, 40, None, &format!("{options}, 'sink.on-client-error' = 'drop'"))).success();
    let expected: Vec<u64> = (1..=10).chain(21..=40).collect();
    assert_eq!(kept(&hook), expected);
    assert_eq!(json(&work.path().join("summary.json"))["dropped_rows"], 10);
}

#[test]
fn secrets_go_to_the_service_and_nowhere_else() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let (url, hook) = service(|_, _| 401);
    let options = ", 'headers.Authorization' = 'Bearer ${secret:hook}'";
    let sql = job(&format!("{url}/${{secret:hook}}"), 5, None, options);
    let done = Run::sql(work.path(), &sql).env("EDGEFLOW_SECRET_HOOK", "t0p-secret").env("RUST_LOG", "debug").done();
    assert_ne!(done.code, Some(0));
    assert_eq!(hook.requests().len(), 1, "a refusal is not tried again");
    assert!(done.stderr.contains("401 Unauthorized"), "{}", done.stderr);
    assert!(!done.stderr.contains("t0p-secret"), "{}", done.stderr);
    let denied = Run::sql(work.path(), &job(&url, 5, None, "")).env("EDGEFLOW_DENY_PRIVATE_ADDRESSES", "1").done();
    assert!(denied.stderr.contains("which this worker does not speak to"), "{}", denied.stderr);
}
