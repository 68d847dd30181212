//! `efctl` as a tool among others: what goes to standard output, the summary for scripts, `explain`, `version`,
//! `completion`; SET, `${name}` and several INSERTs in one file.

use ef_tests::Run;
use ef_tests::rows::{Row, assert_same, directory, ndjson};
use ef_tests::table::{json, objects};
use std::path::Path;
use std::process::Command;

const ROWS: usize = 5000;

const NUMBERS: &str =
    "CREATE TABLE numbers (n BIGINT) WITH ('connector' = 'filesystem', 'path' = '${input}', 'format' = 'json');";

fn sink(name: &str) -> String {
    format!("CREATE TABLE {name} (n BIGINT) WITH ('connector' = 'filesystem', 'path' = '{name}', 'format' = 'json');")
}

fn numbers(work: &Path) -> String {
    let text: String = (0..ROWS).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    std::fs::write(work.join("numbers.ndjson"), &text).expect("writable");
    text
}

fn rows(keep: impl Fn(usize) -> bool) -> Vec<Row> {
    (0..ROWS).filter(|n| keep(*n)).map(|n| vec![n.to_string()]).collect()
}

#[test]
fn several_inserts_of_one_file_are_one_job_that_reads_its_source_once() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let work = work.path();
    let text = numbers(work);
    let sql = format!(
        "SET 'pipeline.name' = 'three ways'; {NUMBERS} {} {}
         INSERT INTO even SELECT n FROM numbers WHERE MOD(n, 2) = 0;
         INSERT INTO few SELECT n FROM numbers WHERE n < ${{few}};
         INSERT INTO few SELECT n FROM numbers WHERE n >= 4000 AND MOD(n, 7) = 0;
         SELECT n AS `the number` FROM numbers WHERE n > 4990;",
        sink("even"),
        sink("few"),
    );
    let args = ["-D", "input=numbers.ndjson", "-D", "few=10", "--summary-json", "summary.json"];
    let done = Run::sql(work, &sql).args(&args).done().success();
    let n = ["n".to_string()];
    assert_same("even", ndjson(&directory(&work.join("even")), &n), rows(|n| n % 2 == 0), 0.0);
    let few = |n: usize| n < 10 || n >= 4000 && n.is_multiple_of(7);
    assert_same("few", ndjson(&directory(&work.join("few")), &n), rows(few), 0.0);
    // Standard output has the rows of the SELECT and nothing else.
    assert_same("printed", ndjson(&done.stdout, &["the number".into()]), rows(|n| n > 4990), 0.0);

    let summary = json(&work.join("summary.json"));
    assert_eq!(summary["job"], "three ways");
    assert_eq!(summary["status"], "finished");
    assert!(summary["error"].is_null() && summary["restored_epoch"].is_null(), "{summary}");
    let sources = summary["sources"].as_array().expect("a list");
    assert_eq!(sources.len(), 1, "{summary}");
    assert_eq!(
        (&sources[0]["table"], &sources[0]["rows"], &sources[0]["bytes"]),
        (&"numbers".into(), &ROWS.into(), &text.len().into())
    );
    let sinks = summary["sinks"].as_array().expect("a list");
    assert_eq!(sinks.len(), 3, "{summary}");
    for (name, count, bytes) in [
        ("even", ROWS / 2, directory(&work.join("even")).len()),
        ("few", rows(few).len(), directory(&work.join("few")).len()),
        ("stdout", 9, done.stdout.len()),
    ] {
        let table = sinks.iter().find(|table| table["table"] == name).expect("every sink is there");
        assert_eq!((&table["rows"], &table["bytes"]), (&count.into(), &bytes.into()), "{name}");
    }
    assert_eq!((&summary["late_rows"], &summary["failed_rows"]), (&0.into(), &0.into()));
    assert_eq!(summary["late"].as_array().map(Vec::len), Some(0));
    let figure = |name: &str| summary[name].as_f64().unwrap_or_else(|| panic!("no `{name}` in {summary}"));
    assert!(figure("elapsed_seconds") > 0.0 && figure("cpu_seconds") > 0.0);
    assert!(figure("peak_rss_bytes") > 1e6, "more than a megabyte");
    let checkpoints = &summary["checkpoints"];
    // Files become visible by checkpoints.
    assert!(checkpoints["completed"].as_u64() >= Some(1), "{summary}");
    assert_eq!(checkpoints["failed"], 0, "{summary}");
    for name in ["last_epoch", "last_duration_ms", "last_bytes"] {
        assert!(checkpoints[name].is_u64(), "no `{name}` in {summary}");
    }
}

#[test]
fn the_summary_table_goes_to_standard_error_unless_quiet() {
    let work = tempfile::tempdir().expect("a temporary directory");
    numbers(work.path());
    let sql = format!("{NUMBERS} SELECT n FROM numbers;");
    let quiet = Run::sql(work.path(), &sql).args(&["-D", "input=numbers.ndjson"]).done().success();
    assert_eq!(quiet.stderr, "");
    let loud = Run::new(work.path(), &["run", "job.sql", "-D", "input=numbers.ndjson"]).done().success();
    for word in ["job finished", "numbers", "5000", "checkpoints", "peak memory"] {
        assert!(loud.stderr.contains(word), "`{word}` is not in {}", loud.stderr);
    }
    assert_eq!(objects(&loud.stdout).len(), ROWS);
}

#[test]
fn the_parallelism_of_the_command_line_is_above_that_of_the_file() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let sql =
        format!("SET 'parallelism.default' = '3'; {NUMBERS} {} INSERT INTO even SELECT n FROM numbers;", sink("even"));
    std::fs::write(work.path().join("job.sql"), sql).expect("writable");
    let explain = |args: &[&str]| {
        let all = [&["explain", "job.sql", "-D", "input=x"], args].concat();
        Run::new(work.path(), &all).done().success().stdout
    };
    assert!(explain(&[]).contains("p=3"), "{}", explain(&[]));
    let given = explain(&["-p", "2"]);
    assert!(given.contains("p=2") && !given.contains("p=3"), "{given}");
}

#[test]
fn explain_writes_text_json_and_dot() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let sql = "CREATE TABLE sensor (`de\"vice` STRING, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND)
               WITH ('connector' = 'filesystem', 'path' = 'no such \"file', 'format' = 'json');
               CREATE TABLE result (device STRING, n BIGINT) WITH ('connector' = 'blackhole');
               INSERT INTO result SELECT `de\"vice`, COUNT(*) FROM TABLE(TUMBLE(TABLE sensor, DESCRIPTOR(ts), INTERVAL '1' SECOND))
               WHERE `de\"vice` <> 'a\\b' GROUP BY `de\"vice`, window_start, window_end;";
    std::fs::write(work.path().join("job.sql"), sql).expect("writable");
    let explain = |format: &str| {
        Run::new(work.path(), &["explain", "job.sql", "-p", "2", "--format", format]).done().success().stdout
    };
    let text = explain("text");
    for word in ["Sink(result", "WindowAggregate", "Source(sensor", "hash("] {
        assert!(text.contains(word), "`{word}` is not in {text}");
    }
    let plan: serde_json::Value = serde_json::from_str(&explain("json")).expect("JSON");
    let operators = plan["operators"].as_array().expect("operators");
    let edges = plan["edges"].as_array().expect("edges");
    let ids: Vec<_> = operators.iter().map(|operator| &operator["id"]).collect();
    assert!(
        operators.len() >= 3 && edges.iter().all(|edge| ids.contains(&&edge["from"]) && ids.contains(&&edge["to"])),
        "{plan}"
    );

    let dot = explain("dot");
    let (nodes, arrows) = parse_dot(&dot);
    assert_eq!(nodes.len(), operators.len(), "{dot}");
    assert_eq!(arrows.len(), edges.len(), "{dot}");
    assert!(arrows.iter().all(|(from, to)| nodes.contains(from) && nodes.contains(to)), "{dot}");
}

/// Names of nodes and pairs of names of edges, one statement a line. Panics at what dot would not read.
fn parse_dot(text: &str) -> (Vec<String>, Vec<(String, String)>) {
    let mut lines = text.lines().map(str::trim);
    assert!(lines.next().is_some_and(|line| line.starts_with("digraph") && line.ends_with('{')), "{text}");
    let (mut nodes, mut arrows, mut closed) = (vec![], vec![], false);
    for line in lines {
        assert!(!closed, "something follows the graph: {line}");
        let mut quoted = false;
        let mut escaped = false;
        for c in line.chars() {
            match c {
                '"' if !escaped => quoted = !quoted,
                _ => {}
            }
            escaped = c == '\\' && !escaped;
        }
        assert!(!quoted, "an open quote: {line}");
        let name = |text: &str| {
            text.trim().trim_end_matches(';').split(" [").next().unwrap_or_default().trim_matches('"').to_string()
        };
        let head = line.split(" [").next().unwrap_or_default();
        match head.split_once("->") {
            _ if line == "}" => closed = true,
            Some((from, to)) => arrows.push((name(from), name(to))),
            None if line.contains('[') && !head.starts_with("node") && !head.starts_with("edge") => {
                nodes.push(name(line))
            }
            None => {}
        }
    }
    assert!(closed, "{text}");
    (nodes, arrows)
}

#[test]
fn sql_comes_from_standard_input_too() {
    let work = tempfile::tempdir().expect("a temporary directory");
    numbers(work.path());
    let sql = format!("{NUMBERS} SELECT n FROM numbers WHERE n < 3;").replace("${input}", "numbers.ndjson");
    let file = work.path().join("given.sql");
    std::fs::write(&file, sql).expect("writable");
    let output = Command::new(ef_tests::efctl())
        .args(["run", "-", "--quiet"])
        .current_dir(work.path())
        .stdin(std::fs::File::open(file).expect("readable"))
        .output()
        .expect("efctl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "{\"n\":0}\n{\"n\":1}\n{\"n\":2}\n");
}

#[test]
fn version_and_completion_tell_about_this_build() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let version = Run::new(work.path(), &["version"]).done().success().stdout;
    assert!(version.starts_with(&format!("efctl {} (", env!("CARGO_PKG_VERSION"))), "{version}");
    let script = Run::new(work.path(), &["completion", "bash"]).done().success().stdout;
    for word in ["efctl", "explain", "--state-dir", "--summary-json"] {
        assert!(script.contains(word), "`{word}` is not in the script");
    }
    let file = work.path().join("efctl.bash");
    std::fs::write(&file, script).expect("writable");
    let checked = Command::new("bash").arg("-n").arg(&file).output().expect("bash is there");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
