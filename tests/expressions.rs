//! What an expression gives does not depend on where it stands: a cast in WHERE, over a constant or in a column is the
//! same cast. And what a table declares NOT NULL stays so.

use ef_tests::Run;
use ef_tests::rows::directory;
use ef_tests::table::{json, objects};
use serde_json::{Value, json};
use std::path::Path;

const TABLE: &str =
    "CREATE TABLE t (x DECIMAL(5, 2), b BIGINT, i INT, f FLOAT, k STRING, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
     WITH ('connector' = 'filesystem', 'path' = 't.ndjson', 'format' = 'json');\n";

const ROWS: &str = r#"{"x":1.75,"b":5000000000,"i":1,"f":1.5,"k":"one","ts":"2024-01-01 00:00:01.500"}
{"x":0.25,"b":7,"i":2,"f":2.0,"k":"a%b","ts":"2024-01-01 00:00:02.250"}
{"x":-0.5,"b":5,"i":-6,"f":null,"k":null,"ts":"2024-01-01 00:00:03.000"}
"#;

fn work() -> tempfile::TempDir {
    let work = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(work.path().join("t.ndjson"), ROWS).expect("writable");
    work
}

fn rows(work: &Path, query: &str) -> Vec<serde_json::Map<String, Value>> {
    let done = Run::sql(work, &format!("{TABLE}{query};")).done().success();
    objects(&done.stdout)
}

#[test]
fn a_filter_keeps_the_rows_that_its_condition_shows_as_true() {
    let work = work();
    for condition in [
        "CAST(x AS INT) = 1",
        "CAST(x AS INT) <> 0",
        "CAST(x AS INT) > 0",
        "CAST(x AS INT) BETWEEN 0 AND 0",
        "CAST(x AS INT) IN (1, 3)",
        "CAST(x AS DECIMAL(4, 1)) = 1.8",
        "CAST(CAST(x AS INT) AS STRING) = '1'",
        "TRY_CAST(b AS INT) <> 5",
        "k LIKE 'a\\%b'",
        "k NOT LIKE 'o%'",
        "CAST(ts AS DATE) = DATE '2024-01-01' AND i > 1",
        "1 = 0",
    ] {
        let shown = rows(work.path(), &format!("SELECT i, {condition} AS c FROM t"));
        let expected: Vec<&Value> = shown.iter().filter(|row| row["c"] == json!(true)).map(|row| &row["i"]).collect();
        let kept = rows(work.path(), &format!("SELECT i FROM t WHERE {condition}"));
        assert_eq!(kept.iter().map(|row| &row["i"]).collect::<Vec<_>>(), expected, "{condition}");
    }
    assert_eq!(rows(work.path(), "SELECT i FROM t WHERE CAST(x AS INT) = 1").len(), 1);
}

#[test]
fn a_constant_is_cast_as_a_column_is() {
    let work = work();
    for (expr, expected) in [
        ("CAST(TIMESTAMP '2024-01-01 00:00:00.000' AS STRING)", json!("2024-01-01 00:00:00.000")),
        ("CAST(TRUE AS STRING)", json!("TRUE")),
        ("CAST(1e10 AS STRING)", json!("1.0E10")),
        ("'a%b' LIKE 'a\\%b'", json!(false)),
        ("CAST(CAST(' 2024-1-5 3:4:5' AS TIMESTAMP(3)) AS STRING)", json!("2024-01-05 03:04:05.000")),
        ("CASE WHEN k = 'zz' THEN CAST('x' AS INT) ELSE 0 END", json!(0)),
        ("CAST('abc' AS VARCHAR(2))", json!("ab")),
        ("CAST('a' AS CHAR(3))", json!("a  ")),
        ("CAST('abcd' AS CHAR(3))", json!("abc")),
        ("CAST(CAST(ts AS TIMESTAMP(0)) AS STRING)", json!("2024-01-01 00:00:01.000")),
    ] {
        let found = rows(work.path(), &format!("SELECT {expr} AS c FROM t WHERE i = 1"));
        assert_eq!(found[0]["c"], expected, "{expr}");
    }
}

#[test]
fn an_average_of_whole_numbers_is_cut_towards_zero() {
    let work = work();
    let average = |arg: &str| {
        let sql = format!(
            "SELECT AVG({arg}) AS a FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR)) GROUP BY window_start, window_end"
        );
        let done = Run::sql(work.path(), &format!("{TABLE}{sql};")).args(&["-p", "2"]).done().success();
        objects(&done.stdout)[0]["a"].clone()
    };
    for ty in ["TINYINT", "SMALLINT", "INT", "BIGINT"] {
        assert_eq!(average(&format!("CAST(0 - i * i AS {ty})")), json!(-13), "{ty}");
    }
    assert_eq!(average("f"), json!(1.75));
}

#[test]
fn null_for_a_not_null_column_fails_or_is_left_out_as_set() {
    let work = work();
    let work = work.path();
    let sql = |enforcer: &str| {
        format!(
            "{enforcer}{TABLE}CREATE TABLE o (i INT, k STRING NOT NULL) WITH ('connector' = 'filesystem', 'path' = 'o', 'format' = 'json');
             INSERT INTO o SELECT i, k FROM t;"
        )
    };
    let done = Run::sql(work, &sql("")).done();
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains("column `k` of table `o` is NOT NULL"), "{}", done.stderr);
    let drop = sql("SET 'table.exec.sink.not-null-enforcer' = 'DROP';\n");
    Run::sql(work, &drop).args(&["--summary-json", "summary.json"]).done().success();
    assert_eq!(objects(&directory(&work.join("o"))).len(), 2);
    assert_eq!(json(&work.join("summary.json"))["dropped_rows"], 1);
}
