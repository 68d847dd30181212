//! `source.monitor-interval`: a followed directory gives new files and appended lines while the job runs; Ctrl-C takes
//! a last checkpoint, and the next run loses and doubles nothing.

use ef_tests::events::timestamp;
use ef_tests::rows::directory;
use ef_tests::table::objects;
use ef_tests::{Run, Running};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

const JOB: &str = "
SET 'execution.checkpointing.interval' = '40 ms';
CREATE TABLE lines (id BIGINT) WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'json', 'source.monitor-interval' = '15 ms');
CREATE TABLE result (id BIGINT) WITH ('connector' = 'filesystem', 'path' = 'result', 'format' = 'json');
INSERT INTO result SELECT id FROM lines;";

fn ids(work: &Path) -> Vec<u64> {
    let rows = objects(&directory(&work.join("result")));
    let mut ids: Vec<u64> = rows.iter().map(|row| row["id"].as_u64().expect("an id")).collect();
    ids.sort();
    ids
}

fn lines(ids: std::ops::Range<u64>) -> String {
    ids.map(|id| format!("{{\"id\":{id}}}\n")).collect()
}

fn append(work: &Path, name: &str, text: &str) {
    let mut file = OpenOptions::new().append(true).create(true).open(work.join("in").join(name)).expect("writable");
    file.write_all(text.as_bytes()).expect("writable");
}

#[track_caller]
fn await_rows(running: &mut Running, work: &Path, count: usize) {
    running.until(|| ids(work).len() >= count).expect("rows come");
    assert!(!running.ended(), "the job ended: {}", std::fs::read_to_string(work.join(".stderr")).unwrap_or_default());
}

#[test]
fn new_files_and_appended_lines_come_once_across_ctrl_c() {
    for parallelism in ["1", "3"] {
        let work = tempfile::tempdir().expect("a temporary directory");
        let work = work.path();
        std::fs::create_dir_all(work.join("in/below")).expect("writable");
        let args = ["--state-dir", "state", "-p", parallelism];
        let start = || Run::sql(work, JOB).args(&args).start().expect("efctl starts");
        let mut running = start();
        append(work, "a", &lines(0..1000));
        await_rows(&mut running, work, 1000);
        append(work, "a", &lines(1000..1500));
        append(work, "below/b", &lines(1500..2000));
        await_rows(&mut running, work, 2000);
        // Half of a line is no row yet.
        append(work, "a", "{\"id\":");
        append(work, "c", &lines(2001..2500));
        await_rows(&mut running, work, 2499);
        running.signal(libc::SIGINT);
        assert_eq!(running.wait().expect("it stops").code, Some(130));
        let before = ids(work).len();
        assert_eq!(before, 2499);
        // While nobody looks: the rest of the line, more lines, a new file.
        append(work, "a", "2000}\n");
        append(work, "below/b", &lines(2500..3000));
        append(work, "d", &lines(3000..3500));
        let mut running = start();
        await_rows(&mut running, work, 3500);
        append(work, "d", &lines(3500..4000));
        await_rows(&mut running, work, 4000);
        running.signal(libc::SIGINT);
        let done = running.wait().expect("it stops");
        assert_eq!(done.code, Some(130), "{}", done.stderr);
        assert_eq!(ids(work), (0..4000).collect::<Vec<_>>(), "parallelism {parallelism}");
    }
}

/// A subtask without files has no event time to wait for, once the idle timeout has passed.
#[test]
fn subtasks_without_files_hold_back_no_window() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let work = work.path();
    std::fs::create_dir(work.join("in")).expect("writable");
    let base = ef_tests::events::BASE_MS;
    let row = |id: i64| format!("{{\"id\":{id},\"ts\":\"{}\"}}\n", timestamp(base + id * 100));
    append(work, "a", &(0..100).map(row).collect::<String>());
    let sql = "
        SET 'execution.checkpointing.interval' = '40 ms';
        CREATE TABLE lines (id BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
        WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'json', 'source.monitor-interval' = '15 ms',
              'scan.watermark.idle-timeout' = '50 ms');
        CREATE TABLE result (id BIGINT) WITH ('connector' = 'filesystem', 'path' = 'result', 'format' = 'json');
        INSERT INTO result SELECT COUNT(*) FROM TABLE(TUMBLE(TABLE lines, DESCRIPTOR(ts), INTERVAL '1' SECOND))
        GROUP BY window_start, window_end;";
    let mut running = Run::sql(work, sql).args(&["-p", "3"]).start().expect("efctl starts");
    // The watermark is at 9.9 s: nine windows are closed.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    running.until(|| ids(work).len() >= 9 || std::time::Instant::now() > deadline).expect("it runs");
    running.signal(libc::SIGINT);
    assert_eq!(running.wait().expect("it stops").code, Some(130));
    assert_eq!(ids(work), [10; 9]);
}
