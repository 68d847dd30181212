//! Sinks that are kept by their primary key: which rows meet in which subtask, and what cannot be kept so.

use super::*;

fn table(name: &str, columns: &str, mode: &str) -> String {
    format!("CREATE TABLE {name} ({columns}) WITH ('connector' = 'redis', 'url' = 'redis://cache', 'mode' = '{mode}');")
}

fn totals() -> String {
    table("totals", "device STRING, n BIGINT, PRIMARY KEY (device) NOT ENFORCED", "hash")
}

/// The exchange in front of the sink, at parallelism 4.
fn exchanges(sql: &str) -> Vec<Exchange> {
    let plan = planned(sql, 4);
    let sink = plan.operators.iter().find(|op| matches!(op.kind, OperatorKind::Sink(_))).expect("a sink");
    plan.inputs_of(sink.id).map(|edge| edge.exchange.clone()).collect()
}

#[test]
fn upserting_sinks_are_as_the_golden_file_says() {
    golden(
        "upsert",
        &format!(
            "{SENSOR} {} {} INSERT INTO totals SELECT device_id, COUNT(*) FROM nab GROUP BY device_id;
             INSERT INTO latest SELECT ts, device_id, `value` FROM nab;",
            totals(),
            table("latest", "ts TIMESTAMP(3), device STRING, v DOUBLE, PRIMARY KEY (device) NOT ENFORCED", "hash"),
        ),
    );
}

#[test]
fn rows_of_a_key_meet_in_one_subtask_of_the_sink() {
    let hourly =
        table("hourly", "device STRING, at TIMESTAMP(3), n BIGINT, PRIMARY KEY (device, at) NOT ENFORCED", "hash");
    let tumbled = "SELECT device_id, window_start, COUNT(*) FROM TABLE(TUMBLE(TABLE nab, DESCRIPTOR(ts), INTERVAL '1' HOUR)) \
                   GROUP BY device_id, window_start, window_end;";
    for (declared, insert, expected) in [
        // Dealt by the key, or by a part of it, already.
        (totals(), "totals SELECT device_id, COUNT(*) FROM nab GROUP BY device_id;", vec![Exchange::Forward]),
        (hourly, &format!("hourly {tumbled}"), vec![Exchange::Forward]),
        // By nothing, and by something else.
        (totals(), "totals SELECT device_id, CAST(`value` AS BIGINT) FROM nab;", vec![Exchange::Hash(vec![0])]),
        (
            totals(),
            "totals SELECT UPPER(device_id), COUNT(*) FROM nab GROUP BY device_id;",
            vec![Exchange::Hash(vec![0])],
        ),
        // One input alone would do.
        (
            totals(),
            "totals SELECT device_id, COUNT(*) FROM nab GROUP BY device_id; INSERT INTO totals SELECT device_id, 1 FROM nab;",
            vec![Exchange::Hash(vec![0]), Exchange::Hash(vec![0])],
        ),
    ] {
        let sql = format!("{SENSOR} {declared} INSERT INTO {insert}");
        assert_eq!(exchanges(&sql), expected, "{sql}");
    }
}

#[test]
fn sinks_without_a_key_are_fed_as_before() {
    let stream = "CREATE TABLE s (d STRING, v DOUBLE) WITH ('connector' = 'redis', 'url' = 'redis://cache', 'mode' = 'stream', 'key' = 's');";
    let sql = format!("{SENSOR} {stream} INSERT INTO s SELECT device_id, `value` FROM nab;");
    assert_eq!(exchanges(&sql), [Exchange::Forward]);
}

#[test]
fn an_upserting_sink_may_have_a_parallelism_of_its_own() {
    let sql =
        format!("{SENSOR} {} INSERT INTO totals SELECT device_id, COUNT(*) FROM nab GROUP BY device_id;", totals());
    let plain = planned(&sql, 2);
    let sink = plain.operators.iter().find(|op| op.name.starts_with("Sink")).expect("a sink").id;
    let overrides = BTreeMap::from([(sink, 3)]);
    let options = PlanOptions { name: "test".into(), parallelism: Some(2), overrides };
    let plan = plan(&sql, &BTreeMap::new(), options, &NoModels).expect("any parallelism is possible");
    assert_eq!(plan.inputs_of(sink).next().expect("it is fed").exchange, Exchange::Hash(vec![0]));
}

const CDC: &str = "CREATE TABLE cdc (id BIGINT, region STRING, PRIMARY KEY (id) NOT ENFORCED)
    WITH ('connector' = 'filesystem', 'path' = 'cdc', 'format' = 'debezium-json');";

#[test]
fn changes_that_are_read_by_a_key_can_be_kept_by_it() {
    let sql = format!("{SENSOR} {} {CDC} INSERT INTO totals SELECT CAST(id AS STRING), id + 1 FROM cdc;", totals());
    assert_eq!(exchanges(&sql), [Exchange::Hash(vec![0])]);
}

#[test]
fn updates_that_a_sink_cannot_keep_are_refused_where_they_are_inserted() {
    let stream = table("totals", "device STRING, n BIGINT, PRIMARY KEY (device) NOT ENFORCED", "stream");
    let hook = "CREATE TABLE totals (device STRING, n BIGINT) WITH ('connector' = 'http', 'url' = 'http://hook', 'format' = 'json');";
    let grouped = "SELECT device_id, COUNT(*) FROM nab GROUP BY device_id;";
    for (declared, query, expected) in [
        (stream.as_str(), grouped, "table `totals` takes only inserted rows and this query updates rows"),
        (hook, grouped, "table `totals` takes only inserted rows and this query updates rows"),
        (
            &totals(),
            "SELECT device_id, COUNT(*) FROM nab GROUP BY device_id, `value`;",
            "the query updates rows by value, which the PRIMARY KEY (device) of table `totals` does not tell apart",
        ),
        (
            &totals(),
            "SELECT MAX(device_id), COUNT(*) FROM nab GROUP BY `value`;",
            "the query updates rows by value, which the PRIMARY KEY (device)",
        ),
        // Two orders of a region would delete each other.
        (
            &format!("{} {CDC}", totals()),
            "SELECT region, id FROM cdc;",
            "the query updates rows by id, which the PRIMARY KEY (device) of table `totals` does not tell apart",
        ),
        (&format!("{} {CDC}", totals()), "SELECT region, 1 FROM cdc;", "the query updates rows by id"),
    ] {
        let error =
            try_plan(&format!("{SENSOR} {declared} INSERT INTO totals {query}"), 2).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
}
