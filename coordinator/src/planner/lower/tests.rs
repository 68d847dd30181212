//! From SQL text to plans: golden explain texts, what is shared, what keeps its id, what is rejected.

use crate::planner::tests::{kinds, planned, try_plan};
use crate::planner::{ModelInspector, PlanOptions, plan};
use ef_proto::plan::{Exchange, Model, OperatorKind, Output, Phase, Time, Window, text};
use ef_proto::schema::Schema;
use std::collections::{BTreeMap, BTreeSet};

mod formats;
mod parallelism;
mod tiers;
mod upsert;

const NEXMARK: &str = "
CREATE TABLE events (
  event_type INT,
  person ROW<id BIGINT, name VARCHAR, emailAddress VARCHAR, creditCard VARCHAR, city VARCHAR, state VARCHAR, `dateTime` TIMESTAMP(3), extra VARCHAR>,
  auction ROW<id BIGINT, itemName VARCHAR, description VARCHAR, initialBid BIGINT, reserve BIGINT, `dateTime` TIMESTAMP(3), expires TIMESTAMP(3), seller BIGINT, category BIGINT, extra VARCHAR>,
  bid ROW<auction BIGINT, bidder BIGINT, price BIGINT, channel VARCHAR, url VARCHAR, `dateTime` TIMESTAMP(3), extra VARCHAR>,
  `dateTime` AS CASE event_type WHEN 0 THEN person.`dateTime` WHEN 1 THEN auction.`dateTime` ELSE bid.`dateTime` END,
  WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'events.ndjson', 'format' = 'json');
CREATE VIEW person AS SELECT person.id, person.name, person.city, person.state, `dateTime`, person.extra FROM events WHERE event_type = 0;
CREATE VIEW auction AS SELECT auction.id, auction.seller, auction.category, `dateTime`, auction.extra FROM events WHERE event_type = 1;
CREATE VIEW bid AS SELECT bid.auction, bid.bidder, bid.price, bid.channel, bid.url, `dateTime`, bid.extra FROM events WHERE event_type = 2;
";

const SENSOR: &str = "
CREATE TABLE nab (
  device_id VARCHAR,
  ts TIMESTAMP(3),
  `value` DOUBLE,
  WATERMARK FOR ts AS ts - INTERVAL '2' HOUR
) WITH ('connector' = 'filesystem', 'path' = 'nab.ndjson', 'format' = 'json');
";

const Q5: &str = "
SELECT c.auction, c.num, c.window_start, c.window_end
FROM (
  SELECT auction, COUNT(*) AS num, window_start, window_end
  FROM TABLE(HOP(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
  GROUP BY auction, window_start, window_end
) AS c
JOIN (
  SELECT MAX(k.num) AS top_num, k.window_start, k.window_end
  FROM (
    SELECT auction, COUNT(*) AS num, window_start, window_end
    FROM TABLE(HOP(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
    GROUP BY auction, window_start, window_end
  ) AS k
  GROUP BY k.window_start, k.window_end
) AS m
ON c.window_start = m.window_start AND c.window_end = m.window_end AND c.num >= m.top_num;
";

const Q7W: &str = "
SELECT b.auction, b.price, b.bidder, b.`dateTime`, b.extra, b.window_start
FROM (SELECT * FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND))) AS b
JOIN (
  SELECT MAX(price) AS top_price, window_start, window_end
  FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND))
  GROUP BY window_start, window_end
) AS m
ON b.window_start = m.window_start AND b.window_end = m.window_end AND b.price = m.top_price;
";

const Q8: &str = "
SELECT p.id, p.name, p.window_start AS stime
FROM (
  SELECT id, name, window_start, window_end
  FROM TABLE(TUMBLE(TABLE person, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND))
  GROUP BY id, name, window_start, window_end
) AS p
JOIN (
  SELECT seller, window_start, window_end
  FROM TABLE(TUMBLE(TABLE auction, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND))
  GROUP BY seller, window_start, window_end
) AS a
ON p.id = a.seller AND p.window_start = a.window_start AND p.window_end = a.window_end;
";

/// No test here declares a model.
struct NoModels;

impl ModelInspector for NoModels {
    fn inspect(&self, _: &str, _: &Schema, _: &Schema, _: &BTreeMap<String, String>) -> Result<Model, String> {
        Err("no models in these tests".into())
    }
}

/// Compares with `testdata/<name>.txt`; `UPDATE_GOLDEN=1` writes it.
#[track_caller]
fn golden(name: &str, sql: &str) {
    let texts: Vec<String> =
        [1, 4].map(|parallelism| format!("-- parallelism {parallelism}\n{}", text(&planned(sql, parallelism)))).into();
    let found = texts.join("\n");
    let path = format!("{}/src/planner/lower/testdata/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &found).expect("the golden file can be written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "{name}.txt differs (UPDATE_GOLDEN=1 writes it):\n{found}");
}

fn into(columns: &str, query: &str) -> String {
    format!(
        "{NEXMARK} CREATE TABLE out_table ({columns}) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json'); INSERT INTO out_table {query}"
    )
}

#[test]
fn nexmark_plans_are_as_the_golden_files_say() {
    golden(
        "q0",
        &into(
            "auction BIGINT, bidder BIGINT, price BIGINT, `dateTime` TIMESTAMP(3), extra VARCHAR",
            "SELECT auction, bidder, price, `dateTime`, extra FROM bid;",
        ),
    );
    golden(
        "q1",
        &into(
            "auction BIGINT, bidder BIGINT, price DECIMAL(23, 3), `dateTime` TIMESTAMP(3), extra VARCHAR",
            "SELECT auction, bidder, 0.908 * price AS price, `dateTime`, extra FROM bid;",
        ),
    );
    golden("q2", &into("auction BIGINT, price BIGINT", "SELECT auction, price FROM bid WHERE MOD(auction, 123) = 0;"));
    golden("q5", &into("auction BIGINT, num BIGINT, window_start TIMESTAMP(3), window_end TIMESTAMP(3)", Q5));
    golden(
        "q7w",
        &into(
            "auction BIGINT, price BIGINT, bidder BIGINT, `dateTime` TIMESTAMP(3), extra VARCHAR, window_start TIMESTAMP(3)",
            Q7W,
        ),
    );
    golden("q8", &into("id BIGINT, name VARCHAR, stime TIMESTAMP(3)", Q8));
}

#[test]
fn sensor_plans_are_as_the_golden_files_say() {
    let windowed = |window: &str| {
        format!(
            "{SENSOR} SELECT device_id, window_start, window_end, COUNT(*) AS n, AVG(`value`) AS mean, \
             STDDEV_SAMP(`value`) AS sd_samp, STDDEV_POP(`value`) AS sd_pop, MIN(`value`) AS lo, MAX(`value`) AS hi \
             FROM TABLE({window}) GROUP BY device_id, window_start, window_end;"
        )
    };
    golden("nab_tumble_1h", &windowed("TUMBLE(TABLE nab, DESCRIPTOR(ts), INTERVAL '1' HOUR)"));
    golden("nab_hop_1h_5min", &windowed("HOP(TABLE nab, DESCRIPTOR(ts), INTERVAL '5' MINUTE, INTERVAL '1' HOUR)"));
    golden("nab_session", &windowed("SESSION(TABLE nab PARTITION BY device_id, DESCRIPTOR(ts), INTERVAL '10' MINUTE)"));
    golden("filter", &format!("{SENSOR} SELECT device_id, `value` * 2 AS twice FROM nab WHERE `value` > 80.0;"));
    golden(
        "changelog",
        &format!("{SENSOR} SELECT device_id, COUNT(*) AS n, SUM(`value`) AS total FROM nab GROUP BY device_id;"),
    );
    golden(
        "cascade",
        &format!(
            "{SENSOR} CREATE VIEW minute AS SELECT device_id, window_time AS t, COUNT(*) AS n \
             FROM TABLE(TUMBLE(TABLE nab, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) \
             GROUP BY device_id, window_start, window_end, window_time; \
             SELECT window_start, SUM(n) AS rows_seen, COUNT(DISTINCT device_id) AS devices \
             FROM TABLE(TUMBLE(TABLE minute, DESCRIPTOR(t), INTERVAL '1' HOUR)) GROUP BY window_start, window_end;"
        ),
    );
    golden(
        "lookup",
        "CREATE TABLE orders (device_id INT, site STRING, amount DOUBLE, proc_time AS PROCTIME()) \
         WITH ('connector' = 'filesystem', 'path' = 'orders.ndjson', 'format' = 'json'); \
         CREATE TABLE devices (id INT, site STRING, room STRING, floor_no INT, spare STRING, \
         above AS COALESCE(floor_no, 0) + 1, PRIMARY KEY (id) NOT ENFORCED) \
         WITH ('connector' = 'redis', 'url' = 'redis://localhost', 'password' = '${secret:redis}', 'format' = 'json', \
         'lookup.cache' = 'PARTIAL', 'lookup.partial-cache.max-rows' = '1000', \
         'lookup.partial-cache.expire-after-write' = '1 h'); \
         CREATE TABLE owners (room STRING, floor_no INT, owner STRING) \
         WITH ('connector' = 'http', 'url' = 'https://owners/{floor_no}/{room}', 'format' = 'json'); \
         SELECT o.amount, d.room, d.above, w.owner FROM orders AS o \
         LEFT JOIN devices FOR SYSTEM_TIME AS OF o.proc_time AS d ON o.device_id = d.id AND o.site = d.site \
         JOIN owners FOR SYSTEM_TIME AS OF o.proc_time AS w ON w.room = d.room AND w.floor_no = 3 WHERE o.amount > 0;",
    );
    golden(
        "sides",
        "CREATE TABLE s (k STRING, ts TIMESTAMP(3), v DOUBLE, WATERMARK FOR ts AS ts) WITH ('connector' = 'filesystem', \
         'path' = 's.ndjson', 'format' = 'json', 'late.table' = 'late', 'error.table' = 'bad'); \
         CREATE TABLE late (ts TIMESTAMP(3), k STRING, why STRING) WITH ('connector' = 'print'); \
         CREATE TABLE bad (line BIGINT, raw STRING, error STRING) WITH ('connector' = 'print'); \
         SELECT k, window_end, MAX(v) AS top FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '10' SECOND)) \
         WHERE v > 0 GROUP BY k, window_start, window_end;",
    );
}

#[test]
fn equal_subqueries_are_computed_once() {
    for parallelism in [1, 4] {
        let plan = planned(&format!("{NEXMARK} {Q5}"), parallelism);
        assert_eq!(kinds(&plan, "Source").len(), 1);
        let hops = kinds(&plan, "WindowAggregate").into_iter().filter(|kind| {
            matches!(kind, OperatorKind::WindowAggregate(w) if matches!(w.window, Window::Hop { .. }) && w.phase != Phase::Local)
        });
        assert_eq!(hops.count(), 1);
    }
}

#[test]
fn one_source_serves_all_inserts_and_one_sink_all_that_write_to_it() {
    let sql = format!(
        "{SENSOR} CREATE TABLE out_table (d STRING) WITH ('connector' = 'print'); \
         INSERT INTO out_table SELECT device_id FROM nab WHERE `value` > 1; \
         INSERT INTO out_table SELECT CAST(ts AS STRING) FROM nab;"
    );
    let plan = planned(&sql, 2);
    assert_eq!((kinds(&plan, "Source").len(), kinds(&plan, "Sink").len()), (1, 1));
    let OperatorKind::Source(source) = kinds(&plan, "Source")[0] else { unreachable!() };
    assert_eq!(source.project.len(), 3);
}

#[test]
fn ids_survive_parallelism_settings_and_other_inserts() {
    let query = "INSERT INTO a SELECT device_id, COUNT(*) FROM TABLE(TUMBLE(TABLE nab, DESCRIPTOR(ts), INTERVAL '1' HOUR)) \
                 GROUP BY device_id, window_start, window_end;";
    let tables = format!(
        "{SENSOR} CREATE TABLE a (d STRING, n BIGINT) WITH ('connector' = 'blackhole'); \
         CREATE TABLE b (d STRING, v DOUBLE) WITH ('connector' = 'blackhole');"
    );
    let ids = |sql: &str, parallelism| -> BTreeSet<_> {
        let plan = planned(sql, parallelism);
        let lasting = plan
            .operators
            .iter()
            .filter(|op| !matches!(&op.kind, OperatorKind::WindowAggregate(w) if w.phase == Phase::Local));
        lasting.filter(|op| op.kind.name() != "Calc").map(|op| op.id).collect()
    };
    let alone = ids(&format!("{tables} {query}"), 1);
    assert_eq!(alone.len(), 3);
    assert_eq!(alone, ids(&format!("{tables} {query}"), 4));
    assert_eq!(
        alone,
        ids(&format!("SET 'table.exec.state.ttl' = '1 h'; SET 'state.backend' = 'rocksdb'; {tables} {query}"), 4)
    );
    let other = "INSERT INTO b SELECT device_id, `value` FROM nab;";
    let both = ids(&format!("{tables} {other} {query}"), 4);
    assert!(alone.is_subset(&both), "{alone:?} {both:?}");
    assert_eq!(both.len(), 4);
    let changed = query.replace("COUNT(*)", "COUNT(ts)");
    assert_ne!(alone, ids(&format!("{tables} {changed}"), 1));
}

#[test]
fn a_table_unioned_with_itself_comes_over_two_edges() {
    let plan = planned(&format!("{SENSOR} SELECT * FROM nab UNION ALL SELECT * FROM nab;"), 2);
    let mut seen = BTreeSet::new();
    for edge in &plan.edges {
        assert!(seen.insert((edge.from, edge.output, edge.to, edge.input)), "an edge twice");
    }
    let ids: BTreeSet<_> = plan.operators.iter().map(|op| op.id).collect();
    assert_eq!(ids.len(), plan.operators.len());
}

#[test]
fn windows_of_the_processing_clock_have_one_phase() {
    let sql = "CREATE TABLE s (k INT, at AS PROCTIME()) WITH ('connector' = 'datagen'); \
               SELECT k, COUNT(*) FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(at), INTERVAL '1' SECOND)) GROUP BY k, window_start, window_end;";
    let plan = planned(sql, 4);
    let [OperatorKind::WindowAggregate(window)] = kinds(&plan, "WindowAggregate")[..] else { panic!("one aggregate") };
    assert_eq!((window.time, window.phase), (Time::Processing, Phase::Single));
}

#[test]
fn rows_to_standard_output_never_interleave() {
    let plan = planned(&format!("{SENSOR} SELECT device_id FROM nab;"), 4);
    let sink = plan.operators.iter().find(|op| op.kind.name() == "Sink").unwrap();
    assert_eq!(sink.parallelism, 1);
    assert!(plan.inputs_of(sink.id).all(|edge| edge.exchange == Exchange::Gather));
}

#[test]
fn a_changelog_keeps_its_op_column_through_calcs_and_unions() {
    let sql = format!(
        "{SENSOR} CREATE TABLE out_table (d STRING, n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'o', 'format' = 'changelog-json'); \
         INSERT INTO out_table SELECT device_id, n + 1 FROM (SELECT device_id, COUNT(*) AS n FROM nab GROUP BY device_id) WHERE n > 3; \
         INSERT INTO out_table SELECT device_id, CAST(1 AS BIGINT) FROM nab;"
    );
    let plan = planned(&sql, 4);
    let sink = plan.operators.iter().find(|op| op.kind.name() == "Sink").unwrap();
    assert_eq!(sink.schema.fields.last().unwrap().name, "_op");
    assert_eq!(plan.inputs_of(sink.id).filter(|edge| edge.changelog).count(), 2);
}

#[test]
fn late_rows_reach_their_table_with_its_columns() {
    let sql = "CREATE TABLE s (k STRING, ts TIMESTAMP(3), v DOUBLE, WATERMARK FOR ts AS ts) WITH ('connector' = 'filesystem', \
               'path' = 's', 'format' = 'json', 'late.table' = 'late'); \
               CREATE TABLE late (ts TIMESTAMP(3), v DOUBLE) WITH ('connector' = 'print'); \
               CREATE VIEW w AS SELECT k, ts FROM s WHERE k <> 'x'; \
               SELECT k, COUNT(*) FROM TABLE(TUMBLE(TABLE w, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY k, window_start, window_end;";
    let plan = planned(sql, 4);
    let late: Vec<_> = plan.edges.iter().filter(|edge| edge.output == Output::Late).collect();
    assert_eq!(late.len(), 1);
    let OperatorKind::WindowAggregate(window) = kinds(&plan, "WindowAggregate")[0] else { unreachable!() };
    assert!(window.late_output && window.phase == Phase::Single);
}

#[test]
fn what_late_rows_need_is_no_column_of_other_queries() {
    let tables = "CREATE TABLE s (k STRING, ts TIMESTAMP(3), v DOUBLE, WATERMARK FOR ts AS ts) WITH ('connector' = 'filesystem', \
                  'path' = 's', 'format' = 'json', 'late.table' = 'late'); \
                  CREATE TABLE late (ts TIMESTAMP(3), v DOUBLE) WITH ('connector' = 'print'); \
                  CREATE TABLE counts (k STRING, n BIGINT) WITH ('connector' = 'print'); \
                  CREATE TABLE t (k STRING, ts TIMESTAMP(3), x DOUBLE, WATERMARK FOR ts AS ts) WITH ('connector' = 'filesystem', \
                  'path' = 't', 'format' = 'json'); \
                  INSERT INTO counts SELECT k, COUNT(*) FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '10' SECOND)) \
                  GROUP BY k, window_start, window_end;";
    let tumble = |table: &str| format!("TABLE(TUMBLE(TABLE {table}, DESCRIPTOR(ts), INTERVAL '10' SECOND))");
    let joined = format!(
        "SELECT l.k, r.x FROM {} AS l JOIN {} AS r ON l.k = r.k AND l.window_start = r.window_start AND l.window_end = r.window_end;",
        tumble("s"),
        tumble("t")
    );
    for query in ["SELECT k FROM s UNION ALL SELECT k FROM t;", &joined] {
        let plan = planned(&format!("{tables} {query}"), 2);
        let sinks = plan.operators.iter().filter(|op| op.kind.name() == "Sink");
        let columns: Vec<usize> = sinks.map(|sink| sink.schema.fields.len()).collect();
        let of_query = if query.contains("r.x") { 2 } else { 1 };
        assert!(columns.contains(&of_query) && columns.len() == 3, "{columns:?}: {query}");
    }
}

#[test]
fn model_arguments_are_cast_to_the_declared_types() {
    let sql = format!(
        "{SENSOR} CREATE MODEL m INPUT (x FLOAT) OUTPUT (score FLOAT) WITH ('provider' = 'onnx', 'path' = 'm.onnx'); \
         SELECT device_id, score FROM TABLE(ML_PREDICT(TABLE nab, MODEL m, DESCRIPTOR(`value`)));"
    );
    let plan = planned(&sql, 1);
    assert_eq!(kinds(&plan, "Predict").len(), 1);
}

#[test]
fn what_is_not_supported_is_rejected_by_name() {
    let two = "CREATE TABLE o (k STRING, t TIMESTAMP(3), WATERMARK FOR t AS t) WITH ('connector' = 'datagen');";
    let table: &[(&str, &str)] = &[
        ("SELECT n.device_id FROM nab n JOIN o ON n.device_id = o.k;", "a regular join is not supported"),
        ("SELECT n.device_id FROM nab n, o;", "a cross join is not supported"),
        ("SELECT * FROM nab ORDER BY ts;", "ORDER BY is not supported"),
        ("SELECT * FROM nab LIMIT 3;", "LIMIT is not supported"),
        ("SELECT SUM(`value`) OVER (PARTITION BY device_id ORDER BY ts) FROM nab;", "OVER"),
        ("SELECT 1;", "a query that reads no table is not supported"),
        ("SELECT device_id, COUNT(*) FROM nab GROUP BY ROLLUP(device_id);", "ROLLUP"),
        (
            "SELECT * FROM TABLE(SESSION(TABLE nab PARTITION BY device_id, DESCRIPTOR(ts), INTERVAL '1' MINUTE));",
            "SESSION without GROUP BY",
        ),
        (
            "SELECT window_start, COUNT(*) FROM TABLE(SESSION(TABLE nab PARTITION BY device_id, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) \
             GROUP BY window_start, window_end;",
            "SESSION is partitioned by `device_id`",
        ),
        (
            "SELECT a.device_id FROM (SELECT device_id, window_start, window_end FROM TABLE(TUMBLE(TABLE nab, DESCRIPTOR(ts), INTERVAL '1' MINUTE))) a \
             JOIN (SELECT k, window_start, window_end FROM TABLE(TUMBLE(TABLE o, DESCRIPTOR(t), INTERVAL '2' MINUTE))) b \
             ON a.window_start = b.window_start AND a.window_end = b.window_end AND a.device_id = b.k;",
            "a window join of different windows: TUMBLE(1 min) and TUMBLE(2 min)",
        ),
        ("SELECT SUM(DISTINCT `value`) FROM nab;", "SUM(DISTINCT …) is not supported"),
        ("SELECT MEDIAN(`value`) FROM nab;", "MEDIAN"),
        (
            "INSERT INTO json_out SELECT device_id, COUNT(*) FROM nab GROUP BY device_id;",
            "takes only inserted rows and this query updates rows",
        ),
        ("SET 'state.backends' = 'rocksdb'; SELECT * FROM nab;", "near: 'state.backend'"),
        ("SET 'table.local-time-zone' = 'Europe/Berlin'; SELECT * FROM nab;", "'UTC'"),
        ("SET 'parallelism.default' = '200'; SELECT * FROM nab;", "more than the 128 key groups"),
    ];
    let sink = "CREATE TABLE json_out (d STRING, n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'o', 'format' = 'json');";
    let mut wrong = String::new();
    for (query, expected) in table {
        match try_plan(&format!("{SENSOR}\n{two}\n{sink}\n{query}"), 2) {
            Ok(plan) => wrong += &format!("accepted: {query}\n{}\n", text(&plan)),
            Err(error) if !error.to_string().contains(expected) => {
                wrong += &format!("{query}\n  {error}\n  not: {expected}\n")
            }
            Err(error) if error.to_string().contains("internal error") => wrong += &format!("{query}\n  {error}\n"),
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_late_table_without_a_window_is_an_error() {
    let sql = "CREATE TABLE s (k STRING, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) WITH ('connector' = 'datagen', 'late.table' = 'late'); \
               CREATE TABLE late (ts TIMESTAMP(3)) WITH ('connector' = 'print'); SELECT k FROM s;";
    let error = try_plan(sql, 1).unwrap_err().to_string();
    assert!(error.contains("no GROUP BY over windows reads this table directly"), "{error}");
}

#[test]
fn no_models_are_looked_for_where_none_is_declared() {
    let options = PlanOptions { name: "test".into(), parallelism: Some(1), ..PlanOptions::default() };
    assert!(plan(&format!("{SENSOR} SELECT * FROM nab;"), &BTreeMap::new(), options, &NoModels).is_ok());
}

#[test]
fn only_the_fields_that_are_read_are_decoded() {
    let sql = "CREATE TABLE e (kind INT, bid ROW<auction BIGINT, price BIGINT, by_whom ROW<id BIGINT, name STRING>>, \
               ask ROW<id BIGINT>, dateTime AS bid.auction) \
               WITH ('connector' = 'filesystem', 'path' = 'e', 'format' = 'json'); \
               CREATE TABLE o (a BIGINT, b STRING, c ROW<id BIGINT>) WITH ('connector' = 'blackhole'); \
               INSERT INTO o SELECT dateTime, bid.by_whom.name, ask FROM e WHERE kind = 2;";
    let plan = planned(sql, 1);
    let OperatorKind::Source(source) = kinds(&plan, "Source")[0] else { unreachable!() };
    let types: Vec<String> =
        source.physical.fields.iter().map(|field| format!("{} {}", field.name, field.ty)).collect();
    assert_eq!(
        types,
        ["kind INT", "bid ROW<auction BIGINT, by_whom ROW<name STRING>>", "ask ROW<id BIGINT>"],
        "{}",
        text(&plan)
    );
    assert_eq!(plan.validate(), Ok(()));
}

/// DataFusion's planner takes more stack a level than a worker does, so it gets more than a test's thread has.
#[test]
fn a_chain_too_long_for_a_workers_stack_is_refused_with_its_place() {
    let chain = |terms: u32| {
        let chain: Vec<String> = (0..terms).map(|i| format!("`value` > {i}")).collect();
        format!("{SENSOR}{}", into("v DOUBLE", &format!("SELECT `value` FROM nab WHERE {}", chain.join(" OR "))))
    };
    let planning = std::thread::Builder::new().stack_size(64 << 20).spawn(move || {
        planned(&chain(200), 1);
        try_plan(&chain(300), 1).map(|_| ()).expect_err("too deep for a worker")
    });
    let error = planning.expect("a thread").join().expect("planned");
    assert!(error.message.contains("nests") && error.line > 0, "{error}");
}
