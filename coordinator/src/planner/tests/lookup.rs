//! Lookup joins: Flink's syntax, what makes the key, what is refused and where.

use super::{kinds, planned, try_plan};
use ef_proto::connector::lookup::LookupConnector;
use ef_proto::expr::Scalar;
use ef_proto::plan::{Exchange, JoinKind, LookupJoin, LookupValue, OperatorKind, Plan};

const TABLES: &str = "CREATE TABLE orders (
  device_id INT, site STRING, amount DOUBLE, ts TIMESTAMP(3), proc_time AS PROCTIME(),
  WATERMARK FOR ts AS ts - INTERVAL '1' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'o.ndjson', 'format' = 'json');
CREATE TABLE devices (
  id INT, site STRING, room STRING, floor_no INT, spare STRING, above AS COALESCE(floor_no, 0) + 1,
  PRIMARY KEY (id) NOT ENFORCED
) WITH ('connector' = 'redis', 'url' = 'redis://localhost', 'format' = 'json');
CREATE TABLE rooms (site STRING, room STRING, id INT, area DOUBLE, p AS PROCTIME())
WITH ('connector' = 'http', 'url' = 'http://localhost/{site}/{room}', 'format' = 'json', 'lookup.max-retries' = '1');
CREATE TABLE flat (id INT, name STRING) WITH ('connector' = 'redis', 'url' = 'redis://localhost', 'tier' = 'gateway');
CREATE TABLE hash (id INT, tags ARRAY<STRING>) WITH ('connector' = 'redis', 'url' = 'redis://localhost', 'mode' = 'hash');
CREATE VIEW named AS SELECT id FROM orders AS o JOIN flat FOR SYSTEM_TIME AS OF o.proc_time ON device_id = id;
";

fn lookups(plan: &Plan) -> Vec<&LookupJoin> {
    let all = kinds(plan, "LookupJoin").into_iter();
    all.map(|kind| match kind {
        OperatorKind::LookupJoin(join) => join,
        other => panic!("{other:?}"),
    })
    .collect()
}

#[track_caller]
fn one(query: &str) -> (Plan, LookupJoin) {
    let plan = planned(&format!("{TABLES}{query}"), 1);
    let found = lookups(&plan);
    assert_eq!(found.len(), 1, "{}", ef_proto::plan::text(&plan));
    let join = found[0].clone();
    (plan, join)
}

fn keys(join: &LookupJoin) -> Vec<(&str, &LookupValue)> {
    join.keys.iter().map(|key| (key.field.name.as_str(), &key.value)).collect()
}

fn right(join: &LookupJoin) -> Vec<&str> {
    join.right.fields.iter().map(|field| field.name.as_str()).collect()
}

#[test]
fn what_a_key_is_not_asked_by_is_a_condition_of_the_pair() {
    // No PRIMARY KEY, and none is named in the address: by what the rows are joined.
    for table in ["flat", "plain"] {
        let plain = "CREATE TABLE plain (id INT, name STRING)
            WITH ('connector' = 'http', 'url' = 'http://localhost/', 'format' = 'json');";
        let join =
            format!("FROM orders AS o JOIN {table} FOR SYSTEM_TIME AS OF o.proc_time AS t ON o.device_id = t.id");
        let (_, join) = one(&format!("{plain} SELECT o.amount, t.name {join} WHERE t.name = 'x';"));
        assert_eq!(keys(&join).iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["id"], "{table}");
        assert!(join.filter.is_some(), "{table}: the name is looked at in the answer");
        assert_eq!(join.values().fields.iter().map(|field| field.name.as_str()).collect::<Vec<_>>(), ["name"]);
    }
}

#[test]
fn a_lookup_asks_by_its_key_for_the_columns_that_are_used_and_the_key() {
    let (plan, join) = one("SELECT o.device_id, o.amount, d.room FROM orders AS o
        JOIN devices FOR SYSTEM_TIME AS OF o.proc_time AS d ON o.device_id = d.id;");
    assert_eq!((join.kind, right(&join)), (JoinKind::Inner, vec!["id", "room"]));
    assert_eq!(join.filter, None);
    let [(name, LookupValue::Column(column))] = keys(&join)[..] else { panic!("{join:?}") };
    let op = plan.operators.iter().find(|op| op.kind.name() == "LookupJoin").expect("there");
    assert_eq!((name, op.schema.fields[*column].name.as_str()), ("id", "device_id"));
    assert_eq!(op.name, "LookupJoin(devices on device_id = id)");
    assert!(plan.edges.iter().all(|edge| edge.exchange == Exchange::Forward || edge.exchange == Exchange::Gather));
}

#[test]
fn a_lookup_has_as_many_subtasks_as_its_input_and_no_exchange_before_it() {
    let sql = format!(
        "{TABLES}SELECT amount, room FROM orders AS o
        LEFT JOIN devices FOR SYSTEM_TIME AS OF o.proc_time AS d ON o.device_id = d.id;"
    );
    let plan = planned(&sql, 4);
    let op = plan.operators.iter().find(|op| op.kind.name() == "LookupJoin").expect("there");
    assert_eq!(op.parallelism, 4);
    assert!(plan.inputs_of(op.id).all(|edge| edge.exchange == Exchange::Forward));
    let one = planned(&sql, 1);
    assert_eq!(op.id, one.operators.iter().find(|op| op.kind.name() == "LookupJoin").expect("there").id);
}

#[test]
fn what_is_compared_beside_the_key_is_a_filter_over_the_pairs() {
    let (_, join) = one("SELECT o.amount FROM orders AS o LEFT JOIN devices FOR SYSTEM_TIME AS OF o.proc_time AS d
        ON o.device_id = d.id AND o.site = d.site AND d.floor_no > 3 AND o.amount > 1.5;");
    assert_eq!(keys(&join).len(), 1);
    assert_eq!(right(&join), ["id", "site", "floor_no"]);
    let filter = join.filter.expect("there").to_string();
    for part in ["> 3", "> 1.5"] {
        assert!(filter.contains(part), "{filter}");
    }
    assert!(join.right.fields.iter().all(|field| field.nullable), "{:?}", join.right);
}

#[test]
fn of_an_inner_join_conditions_on_the_stream_alone_are_checked_before_anything_is_asked() {
    let (plan, join) = one("SELECT o.amount FROM orders AS o JOIN devices FOR SYSTEM_TIME AS OF o.proc_time AS d
        ON o.device_id = d.id WHERE o.amount > 1.5 AND d.floor_no > 3;");
    assert_eq!(right(&join), ["id", "floor_no"]);
    assert!(!join.filter.expect("there").to_string().contains("1.5"));
    let calcs = kinds(&plan, "Calc");
    assert!(calcs.iter().any(|kind| matches!(kind, OperatorKind::Calc(calc) if calc.filter.is_some())), "{calcs:?}");
}

#[test]
fn constants_and_expressions_of_the_stream_can_be_keys() {
    let (_, join) = one("SELECT r.area FROM orders AS o JOIN rooms FOR SYSTEM_TIME AS OF o.proc_time AS r
        ON r.site = 'berlin' AND UPPER(o.site) = r.room AND r.id = o.device_id;");
    let [("site", LookupValue::Constant(constant)), ("room", LookupValue::Column(_))] = keys(&join)[..] else {
        panic!("{join:?}")
    };
    assert_eq!(*constant, Scalar::String("berlin".into()));
    assert_eq!(right(&join), ["room", "id", "area"]);
    assert!(join.filter.is_some());
    assert!(matches!(&join.connector, LookupConnector::Http(_)) && join.options.max_retries == 1);
}

#[test]
fn computed_columns_of_the_table_are_calculated_behind_the_lookup_and_null_without_a_match() {
    let query = |kind: &str| {
        format!(
            "SELECT o.amount, d.above FROM orders AS o
        {kind} JOIN devices FOR SYSTEM_TIME AS OF o.proc_time AS d ON o.device_id = d.id;"
        )
    };
    let (plan, join) = one(&query("LEFT"));
    assert_eq!(right(&join), ["id", "floor_no"]);
    assert!(ef_proto::plan::text(&plan).contains("CASE WHEN"), "{}", ef_proto::plan::text(&plan));
    assert_eq!(right(&one(&query("")).1), ["id", "floor_no"]);
}

#[test]
fn settings_are_those_of_tables_that_say_nothing() {
    let sql = "SET 'table.exec.async-lookup.buffer-capacity' = '7';
        SET 'table.exec.async-lookup.timeout' = '2 s';
        SELECT o.amount, name FROM orders AS o JOIN flat FOR SYSTEM_TIME AS OF o.proc_time ON device_id = id;";
    let (plan, join) = one(sql);
    assert_eq!((join.options.capacity, join.options.timeout_ms), (7, 2_000));
    assert_eq!(join.format, None);
    let op = plan.operators.iter().find(|op| op.kind.name() == "LookupJoin").expect("there");
    assert_eq!(op.constraint.tier, ef_proto::place::Tier::parse("gateway"));
}

#[test]
fn lookups_chain_and_stand_in_views_and_below_windows() {
    let plan = planned(
        &format!(
            "{TABLES}SELECT d.room, r.area, SUM(o.amount) AS total
            FROM (SELECT o.*, d.room, d.site AS device_site FROM orders AS o
                  JOIN devices FOR SYSTEM_TIME AS OF o.proc_time AS d ON o.device_id = d.id) AS o
            JOIN rooms FOR SYSTEM_TIME AS OF o.proc_time AS r ON r.site = o.device_site AND r.room = o.room
            JOIN devices FOR SYSTEM_TIME AS OF o.proc_time AS d ON d.id = r.id
            GROUP BY d.room, r.area;"
        ),
        2,
    );
    assert_eq!(
        lookups(&plan).iter().map(|join| join.table.as_str()).collect::<Vec<_>>(),
        ["devices", "rooms", "devices"]
    );
    let windowed = planned(
        &format!(
            "{TABLES}CREATE VIEW placed AS SELECT o.ts, o.amount, d.room FROM orders AS o
            LEFT JOIN devices FOR SYSTEM_TIME AS OF o.proc_time AS d ON o.device_id = d.id;
            SELECT room, window_start, SUM(amount) FROM TABLE(TUMBLE(TABLE placed, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
            GROUP BY room, window_start, window_end;"
        ),
        1,
    );
    assert_eq!((lookups(&windowed).len(), kinds(&windowed, "WindowAggregate").len()), (1, 1));
    assert_eq!(lookups(&planned(&format!("{TABLES}SELECT id FROM named;"), 1)).len(), 1);
}

#[test]
fn explain_shows_where_and_by_what_rows_are_looked_up() {
    let (plan, _) = one("SELECT o.amount, d.room FROM orders AS o
        LEFT JOIN devices FOR SYSTEM_TIME AS OF o.proc_time AS d ON o.device_id = d.id AND d.floor_no > 3;");
    let text = ef_proto::plan::text(&plan);
    let expected = "LookupJoin(Left, devices, redis 'redis://localhost:6379/0', json, on=[device_id = id], select=[id, room, floor_no], where=[";
    assert!(text.contains(expected), "{text}");
}

/// (query, what the message contains, line and column where they are sure).
const BAD: &[(&str, &str, Option<(u64, u64)>)] = &[
    (
        "SELECT room FROM orders AS o\nJOIN devices FOR SYSTEM_TIME AS OF o.ts AS d ON o.device_id = d.id;",
        "FOR SYSTEM_TIME AS OF `ts`, which is event time: a lookup join needs a processing-time attribute",
        Some((2, 36)),
    ),
    (
        "SELECT room FROM orders AS o\nJOIN devices FOR SYSTEM_TIME AS OF o.amount AS d ON o.device_id = d.id;",
        "`amount`, which is not a time attribute: the watermark of table `orders` is on `ts`",
        Some((2, 36)),
    ),
    (
        "SELECT area FROM orders AS o\nJOIN rooms FOR SYSTEM_TIME AS OF r.p AS r ON o.site = r.site AND r.room = 'x';",
        "which is no column of the left side of the join",
        Some((2, 34)),
    ),
    (
        "SELECT room FROM orders AS o JOIN devices FOR SYSTEM_TIME AS OF PROCTIME() AS d ON o.device_id = d.id;",
        "accepted: a column AS PROCTIME() of the left table",
        None,
    ),
    (
        "SELECT room FROM orders AS o JOIN devices FOR SYSTEM_TIME AS OF o.nothing AS d ON o.device_id = d.id;",
        "column `o.nothing` does not exist",
        Some((1, 65)),
    ),
    (
        "SELECT d.amount FROM orders AS o JOIN orders FOR SYSTEM_TIME AS OF o.proc_time AS d ON o.device_id = d.device_id;",
        "table `orders` with 'connector' = 'filesystem' cannot be looked up",
        Some((1, 39)),
    ),
    (
        "SELECT room FROM orders AS o JOIN device FOR SYSTEM_TIME AS OF o.proc_time AS d ON o.device_id = d.id;",
        "did you mean `devices`?",
        Some((1, 35)),
    ),
    (
        "SELECT d.id FROM orders AS o JOIN named FOR SYSTEM_TIME AS OF o.proc_time AS d ON o.device_id = d.id;",
        "`named` is no table that can be looked up",
        Some((1, 35)),
    ),
    (
        "SELECT room FROM orders AS o RIGHT JOIN devices FOR SYSTEM_TIME AS OF o.proc_time AS d ON o.device_id = d.id;",
        "RIGHT JOIN with FOR SYSTEM_TIME AS OF is not supported",
        None,
    ),
    (
        "SELECT room FROM orders AS o JOIN devices FOR SYSTEM_TIME AS OF o.proc_time AS d USING (site);",
        "USING with FOR SYSTEM_TIME AS OF is not supported",
        None,
    ),
    (
        "SELECT room FROM orders AS o CROSS JOIN devices FOR SYSTEM_TIME AS OF o.proc_time AS d;",
        "CROSS JOIN with FOR SYSTEM_TIME AS OF is not supported",
        None,
    ),
    (
        "SELECT room FROM orders AS o JOIN devices FOR SYSTEM_TIME AS OF o.proc_time AS d ON o.device_id > d.id;",
        "a lookup of table `devices` without an equality with one of its columns",
        None,
    ),
    (
        "SELECT room FROM orders AS o JOIN devices FOR SYSTEM_TIME AS OF o.proc_time AS d ON o.site = d.site;",
        "`id` is of the key of table `devices`, and the join does not compare it",
        None,
    ),
    (
        "SELECT area FROM orders AS o JOIN rooms FOR SYSTEM_TIME AS OF o.proc_time AS r ON o.site = r.site;",
        "`room` is of the key of table `rooms`",
        None,
    ),
    (
        "SELECT room FROM orders AS o JOIN devices FOR SYSTEM_TIME AS OF o.proc_time AS d ON o.amount = d.id;",
        "accepted: CAST(… AS INT) = id",
        None,
    ),
    (
        "SELECT room FROM orders AS o JOIN devices FOR SYSTEM_TIME AS OF o.proc_time AS d ON o.device_id = d.above;",
        "without an equality with one of its columns",
        None,
    ),
    (
        "SELECT r.p FROM orders AS o JOIN rooms FOR SYSTEM_TIME AS OF o.proc_time AS r ON o.site = r.site AND r.room = 'x';",
        "is PROCTIME()",
        None,
    ),
    (
        "SELECT tags FROM orders AS o JOIN hash FOR SYSTEM_TIME AS OF o.proc_time AS h ON o.device_id = h.id;",
        "column `tags` of type ARRAY<STRING> cannot be read from text",
        None,
    ),
    (
        "SELECT name FROM (SELECT device_id, proc_time, COUNT(*) AS n FROM orders GROUP BY device_id, proc_time) AS o
         JOIN flat FOR SYSTEM_TIME AS OF o.proc_time ON device_id = id;",
        "which is not a time attribute",
        None,
    ),
    ("SELECT room FROM devices;", "table `devices` with 'connector' = 'redis' is no stream to read", None),
    (
        "SELECT room FROM orders AS o JOIN devices AS d ON o.device_id = d.id;",
        "table `devices` with 'connector' = 'redis' is no stream to read",
        None,
    ),
    ("SET 'table.exec.async-lookup.output-mode' = 'NEVER'; SELECT k FROM s;", "'ORDERED', or 'ALLOW_UNORDERED'", None),
];

#[test]
fn lookups_that_cannot_be_are_refused_in_words_at_their_place() {
    let before = TABLES.lines().count() as u64;
    let mut wrong = String::new();
    for (sql, expected, place) in BAD {
        let sql = sql.replace("SELECT k FROM s;", "SELECT site FROM orders;");
        match try_plan(&format!("{TABLES}{sql}"), 1) {
            Ok(plan) => wrong += &format!("accepted: {sql}\n{}\n", ef_proto::plan::text(&plan)),
            Err(error) => {
                let text = error.to_string();
                let found = (error.line.wrapping_sub(before), error.column);
                let ours = !text.contains("nternal error") && !text.contains("__as_of");
                if !text.contains(expected) || place.is_some_and(|place| place != found) || !ours || error.line == 0 {
                    wrong += &format!("{sql}\n  {found:?}: {text}\n  not: {place:?}: {expected}\n\n");
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
