//! Formats of messages in files: what a database's changes add up to, through filters and aggregates, is what a naive
//! fold of them gives; and raw lines.

use ef_tests::Run;
use ef_tests::rows::{Row, assert_same, directory};
use ef_tests::seed::seed;
use ef_tests::table::{Object, add_up, changes, objects};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

const CHANGES: usize = 20_000;

const CDC: &str = "
CREATE TABLE cdc (id BIGINT, region STRING, amount BIGINT, note STRING)
WITH ('connector' = 'filesystem', 'path' = 'cdc.ndjson', 'format' = 'debezium-json', 'source.split-size' = '100kb');";

#[derive(Clone)]
struct Account {
    region: u32,
    amount: i64,
    note: Option<String>,
}

type Table = BTreeMap<i64, Account>;

/// Writes the changes of a table as Debezium does; what the table is in the end.
fn write_changes(work: &Path, seed: u64) -> Table {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut table = Table::new();
    let mut text = String::new();
    let row = |id: i64, a: &Account| json!({"id": id, "region": format!("r{}", a.region), "amount": a.amount, "note": a.note, "other": [1]});
    for step in 0..CHANGES {
        let id = rng.random_range(0..2_000);
        let note = (rng.random_range(0..3) > 0).then(|| format!("n{}\n\"", rng.random_range(0..5)));
        let new = Account { region: rng.random_range(0..8), amount: rng.random_range(-500..500), note };
        let (before, after, op) = match table.get(&id) {
            None => (None, Some(new), if step < 50 { "r" } else { "c" }),
            Some(old) if rng.random_range(0..4) == 0 => (Some(old.clone()), None, "d"),
            Some(old) => (Some(old.clone()), Some(new), "u"),
        };
        let shown = |account: &Option<Account>| account.as_ref().map_or(Value::Null, |account| row(id, account));
        let change = json!({"before": shown(&before), "after": shown(&after), "op": op, "source": {"table": "accounts", "ts_ms": step}});
        text.push_str(&format!("{change}\n"));
        match after {
            Some(after) => drop(table.insert(id, after)),
            None => drop(table.remove(&id)),
        }
        if op == "d" {
            // The tombstone behind a deletion.
            text.push('\n');
        }
    }
    std::fs::write(work.join("cdc.ndjson"), text).expect("writable");
    table
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), String::from)
}

fn rows(objects: Vec<Object>, columns: &[&str]) -> Vec<Row> {
    objects.iter().map(|object| columns.iter().map(|column| text(&object[*column])).collect()).collect()
}

/// Region, rows, sum and most of the amounts, of those with an amount above zero.
fn by_region(table: &Table) -> Vec<Row> {
    let mut regions: BTreeMap<u32, (u64, i64, i64)> = BTreeMap::new();
    for account in table.values().filter(|account| account.amount > 0) {
        let (n, sum, most) = regions.entry(account.region).or_insert((0, 0, i64::MIN));
        (*n, *sum, *most) = (*n + 1, *sum + account.amount, account.amount.max(*most));
    }
    let row = |(region, (n, sum, most)): (u32, (u64, i64, i64))| {
        vec![format!("r{region}"), n.to_string(), sum.to_string(), most.to_string()]
    };
    regions.into_iter().map(row).collect()
}

#[test]
fn an_aggregate_over_a_databases_changes_is_that_of_its_table() {
    let seed = seed();
    let work = tempfile::tempdir().expect("a temporary directory");
    let expected = by_region(&write_changes(work.path(), seed));
    for (parallelism, backend) in [("1", "memory"), ("4", "memory"), ("4", "rocksdb")] {
        let what = format!("EDGEFLOW_SEED={seed} at parallelism {parallelism} on {backend}");
        let sql = format!(
            "SET 'state.backend' = '{backend}';{CDC}
             SELECT region, COUNT(*) AS n, SUM(amount) AS total, MAX(amount) AS most FROM cdc WHERE amount > 0 GROUP BY region;"
        );
        let done = Run::sql(work.path(), &sql).args(&["-p", parallelism]).done().success();
        let table = add_up(changes(&done.stdout)).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_same(&what, rows(table, &["region", "n", "total", "most"]), expected.clone(), 0.0);
    }
}

#[test]
fn changes_that_pass_through_are_written_as_debezium_and_read_again() {
    let seed = seed();
    let what = format!("EDGEFLOW_SEED={seed}");
    let work = tempfile::tempdir().expect("a temporary directory");
    let table = write_changes(work.path(), seed);
    let sql = format!(
        "{CDC}
         CREATE TABLE copy (id BIGINT, twice BIGINT, note STRING) WITH ('connector' = 'filesystem', 'path' = 'copy', 'format' = 'debezium-json');
         INSERT INTO copy SELECT id, amount * 2, note FROM cdc WHERE region <> 'r3';"
    );
    Run::sql(work.path(), &sql).done().success();
    let written = objects(&directory(&work.path().join("copy")));
    assert!(
        written.iter().all(|change| change["op"] == "c" && change["before"].is_null()
            || change["op"] == "d" && change["after"].is_null())
    );
    let sql = "CREATE TABLE copy (id BIGINT, twice BIGINT, note STRING) WITH ('connector' = 'filesystem', 'path' = 'copy', 'format' = 'debezium-json');
               SELECT * FROM copy;";
    let done = Run::sql(work.path(), sql).done().success();
    let found = add_up(changes(&done.stdout)).unwrap_or_else(|e| panic!("{what}: {e}"));
    let expected = table.iter().filter(|(_, account)| account.region != 3);
    let expected =
        expected.map(|(id, a)| vec![id.to_string(), (a.amount * 2).to_string(), text(&json!(a.note))]).collect();
    assert_same(&what, rows(found, &["id", "twice", "note"]), expected, 0.0);
}

#[test]
fn a_bad_change_stops_the_job_with_its_line_or_goes_to_the_error_table() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let lines = "{\"op\":\"c\",\"after\":{\"id\":1}}\n{\"op\":\"u\",\"before\":null,\"after\":{\"id\":1}}\n{\"op\":\"d\",\"before\":{\"id\":1}}\n";
    std::fs::write(work.path().join("cdc.ndjson"), lines).expect("writable");
    let done = Run::sql(work.path(), &format!("{CDC} SELECT id FROM cdc;")).done();
    assert!(
        done.code == Some(1)
            && done.stderr.contains("line 2: column \"before\"")
            && done.stderr.contains("REPLICA IDENTITY"),
        "{done:?}"
    );
    let sql = format!(
        "{} CREATE TABLE dead (table_name STRING, file STRING, line BIGINT, raw STRING, error STRING) WITH ('connector' = 'filesystem', 'path' = 'dead', 'format' = 'json');
         SELECT id FROM cdc;",
        CDC.replace("'debezium-json',", "'debezium-json', 'error.table' = 'dead',")
    );
    let done = Run::sql(work.path(), &sql).done().success();
    assert_eq!(add_up(changes(&done.stdout)), Ok(vec![]));
    let dead = objects(&directory(&work.path().join("dead")));
    assert_eq!((dead.len(), &dead[0]["line"]), (1, &json!(2)));
}

#[test]
fn raw_lines_are_values_of_one_column() {
    let work = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(work.path().join("in.txt"), "one\r\n\ntwo, \"2\"\nlast").expect("writable");
    let sql = "CREATE TABLE lines (line STRING) WITH ('connector' = 'filesystem', 'path' = 'in.txt', 'format' = 'raw');
               CREATE TABLE o (line STRING) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'raw');
               INSERT INTO o SELECT UPPER(line) FROM lines;";
    Run::sql(work.path(), sql).done().success();
    assert_eq!(directory(&work.path().join("out")), "ONE\n\nTWO, \"2\"\nLAST\n");
}
