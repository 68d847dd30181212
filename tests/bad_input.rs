//! Bad input gets one clear message and the right exit code: 2 for what is wrong with the SQL or the call, 1 for what
//! is wrong with the data or the machine. The table below is the promise.

use ef_tests::Run;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;
use std::path::Path;

const SENSOR: &str =
    "CREATE TABLE sensor (device_id STRING, ts TIMESTAMP(3), v DOUBLE, WATERMARK FOR ts AS ts - INTERVAL '1' SECOND)
WITH ('connector' = 'filesystem', 'path' = 'sensor.ndjson', 'format' = 'json');\n";

struct Case {
    name: &'static str,
    sql: String,
    args: &'static [&'static str],
    code: i32,
    /// What the message must contain, in this order.
    says: &'static [&'static str],
}

fn case(name: &'static str, sql: impl Into<String>, code: i32, says: &'static [&'static str]) -> Case {
    Case { name, sql: sql.into(), args: &[], code, says }
}

fn over_sensor(name: &'static str, sql: &str, code: i32, says: &'static [&'static str]) -> Case {
    case(name, format!("{SENSOR}{sql}"), code, says)
}

fn reading(name: &'static str, file: &'static str, code: i32, says: &'static [&'static str]) -> Case {
    case(name, SENSOR.replace("sensor.ndjson", file) + "SELECT * FROM sensor;", code, says)
}

fn cases() -> Vec<Case> {
    let mut cases = vec![
        over_sensor("misspelt keyword", "SELEC device_id FROM sensor;", 2, &["line 3, column 1", "SELEC"]),
        over_sensor("unclosed quote", "SELECT 'abc FROM sensor;", 2, &["line 3"]),
        over_sensor("unknown column", "SELECT device_id, temprature FROM sensor;", 2, &["line 3", "temprature"]),
        over_sensor("unknown table", "SELECT * FROM senser;", 2, &["line 3", "senser", "sensor"]),
        over_sensor("unknown function", "SELECT FROBNICATE(v) FROM sensor;", 2, &["line 3", "FROBNICATE"]),
        over_sensor("wrong argument type", "SELECT SPLIT_INDEX(v, ',', 0) FROM sensor;", 2, &["line 3", "SPLIT_INDEX"]),
        over_sensor("unset variable", "SELECT * FROM sensor WHERE v > ${least};", 2, &["line 3, column 32", "least"]),
        over_sensor(
            "time column without watermark",
            "CREATE TABLE plain (ts TIMESTAMP(3)) WITH ('connector' = 'datagen');
             SELECT COUNT(*) FROM TABLE(TUMBLE(TABLE plain, DESCRIPTOR(ts), INTERVAL '1' SECOND)) GROUP BY window_start, window_end;",
            2,
            &["ts", "WATERMARK"],
        ),
        over_sensor("regular join", "SELECT a.v FROM sensor a JOIN sensor b ON a.device_id = b.device_id;", 2, &["join"]),
        over_sensor("order by", "SELECT * FROM sensor ORDER BY v;", 2, &["line 3", "ORDER BY"]),
        over_sensor("match_recognize", "SELECT * FROM sensor MATCH_RECOGNIZE (PATTERN (A) DEFINE A AS v > 1);", 2, &["line 3"]),
        over_sensor(
            "changelog into plain files",
            "CREATE TABLE out1 (d STRING, n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');
             INSERT INTO out1 SELECT device_id, COUNT(*) FROM sensor GROUP BY device_id;",
            2,
            &["out1", "changelog-json"],
        ),
        over_sensor(
            "insert of too few columns",
            "CREATE TABLE out1 (d STRING, n BIGINT) WITH ('connector' = 'blackhole'); INSERT INTO out1 SELECT device_id FROM sensor;",
            2,
            &["line 3", "out1"],
        ),
        over_sensor(
            "insert of a wrong type",
            "CREATE TABLE out1 (d BIGINT) WITH ('connector' = 'blackhole'); INSERT INTO out1 SELECT device_id FROM sensor;",
            2,
            &["line 3", "BIGINT", "STRING"],
        ),
        case("unknown connector", "CREATE TABLE t (a INT) WITH ('connector' = 'carrier-pigeon'); SELECT * FROM t;", 2, &["carrier-pigeon", "filesystem"]),
        case("unknown option", "CREATE TABLE t (a INT) WITH ('connector' = 'datagen', 'rows-per-secnd' = '5'); SELECT * FROM t;", 2, &["rows-per-secnd", "rows-per-second"]),
        case("bad option value", "CREATE TABLE t (a INT) WITH ('connector' = 'datagen', 'number-of-rows' = 'many'); SELECT * FROM t;", 2, &["number-of-rows", "many"]),
        over_sensor("bad SET", "SET 'state.backend' = 'tape'; SELECT * FROM sensor;", 2, &["state.backend", "tape", "rocksdb"]),
        case("empty file", "-- nothing\n", 2, &["nothing to run"]),
        reading("missing input", "no-such.ndjson", 1, &["no-such.ndjson"]),
        reading("broken JSON", "broken.ndjson", 1, &["broken.ndjson", "line 3"]),
        reading("wrong JSON type", "wrong-type.ndjson", 1, &["wrong-type.ndjson", "line 2", "v"]),
        reading("truncated gzip", "cut.ndjson.gz", 1, &["cut.ndjson.gz"]),
        over_sensor("division by zero", "SELECT 1 / CAST(v - v AS INT) FROM sensor;", 1, &["division by zero"]),
        over_sensor(
            "missing model file",
            "CREATE MODEL m INPUT (a FLOAT) OUTPUT (p FLOAT) WITH ('provider' = 'onnx', 'path' = 'no.onnx'); SELECT * FROM sensor;",
            2,
            &["no.onnx"],
        ),
        over_sensor(
            "model file that is no model",
            "CREATE MODEL m INPUT (a FLOAT) OUTPUT (p FLOAT) WITH ('provider' = 'onnx', 'path' = 'sensor.ndjson'); SELECT * FROM sensor;",
            2,
            &["sensor.ndjson"],
        ),
    ];
    let mut with_args = |name, args, code, says| {
        cases.push(Case { name, sql: format!("{SENSOR}SELECT * FROM sensor;"), args, code, says });
    };
    with_args("state directory that is a file", &["--state-dir", "sensor.ndjson/state"], 1, &["sensor.ndjson/state"]);
    with_args("corrupt manifest", &["--restore", "corrupt"], 1, &["corrupt"]);
    with_args("missing checkpoint", &["--restore", "nowhere"], 1, &["nowhere"]);
    with_args("state directory of a scheme that is not built in", &["--state-dir", "ftp://x/y"], 1, &["ftp"]);
    with_args("bad size", &["--memory", "lots"], 2, &["--memory"]);
    with_args("no parallelism", &["-p", "0"], 2, &["0"]);
    with_args("bad definition", &["-D", "novalue"], 2, &["KEY=VALUE"]);
    with_args("unwritable summary", &["--summary-json", "no/such/dir/s.json"], 1, &["no/such/dir/s.json"]);
    cases
}

fn inputs(work: &Path) {
    let good = r#"{"device_id":"a","ts":"2026-03-14 00:00:00.000","v":1.5}"#;
    let write = |name: &str, bytes: &[u8]| std::fs::write(work.join(name), bytes).expect("writable");
    write("sensor.ndjson", format!("{good}\n{good}\n").as_bytes());
    write("broken.ndjson", format!("{good}\n{good}\n{{\"device_id\":\"a\",\n").as_bytes());
    write("wrong-type.ndjson", format!("{good}\n{}\n", good.replace("1.5", "[1,2]")).as_bytes());
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    for _ in 0..5000 {
        writeln!(gzip, "{good}").expect("memory");
    }
    let packed = gzip.finish().expect("memory");
    write("cut.ndjson.gz", &packed[..packed.len() / 2]);
    std::fs::create_dir_all(work.join("corrupt")).expect("writable");
    write("corrupt/manifest", b"EFCKthis is not a manifest, or no longer one");
}

#[test]
fn each_bad_input_gets_one_clear_message_and_its_exit_code() {
    let mut wrong = Vec::new();
    let cases = cases();
    assert!(cases.len() >= 20);
    for Case { name, sql, args, code, says } in &cases {
        let work = tempfile::tempdir().expect("a temporary directory");
        inputs(work.path());
        let done = Run::sql(work.path(), sql).args(args).done();
        let mut complaints = Vec::new();
        if done.code != Some(*code) {
            complaints.push(format!("exit code {:?}, {code} expected", done.code));
        }
        let mut rest = done.stderr.as_str();
        for word in *says {
            match rest.find(word) {
                Some(at) => rest = &rest[at + word.len()..],
                None => complaints.push(format!("does not say `{word}`, in this order")),
            }
        }
        let errors = done.stderr.lines().filter(|line| line.starts_with("error:")).count();
        if errors != 1 {
            complaints.push(format!("{errors} error lines"));
        }
        if done.stderr.contains("panicked") {
            complaints.push("a panic".into());
        }
        if !complaints.is_empty() {
            wrong.push(format!("## {name}\n{}\n--- stderr\n{}", complaints.join("\n"), done.stderr));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn skipped_rows_are_counted_and_kept() {
    let work = tempfile::tempdir().expect("a temporary directory");
    inputs(work.path());
    let sql = "CREATE TABLE dead (table_name STRING, file STRING, line BIGINT, raw STRING, error STRING)
           WITH ('connector' = 'filesystem', 'path' = 'dead', 'format' = 'json');
         CREATE TABLE sensor (device_id STRING, ts TIMESTAMP(3), v DOUBLE)
           WITH ('connector' = 'filesystem', 'path' = 'wrong-type.ndjson', 'format' = 'json', 'error.table' = 'dead');
         SELECT device_id, v FROM sensor;";
    let done = Run::sql(work.path(), sql).args(&["--summary-json", "summary.json"]).done().success();
    assert_eq!(done.stdout.lines().count(), 1, "{}", done.stdout);
    let summary = std::fs::read_to_string(work.path().join("summary.json")).expect("written");
    let summary: serde_json::Value = serde_json::from_str(&summary).expect("JSON");
    assert_eq!(summary["failed_rows"], 1);
    let dead = ef_tests::rows::directory(&work.path().join("dead"));
    let dead: serde_json::Value = serde_json::from_str(dead.trim()).expect("one dead letter");
    assert_eq!(dead["line"], 2);
    assert!(dead["raw"].as_str().expect("text").contains("[1,2]"), "{dead}");
}
