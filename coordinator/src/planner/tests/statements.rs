//! Declarations, variables and queries that are right, and what they become.

use super::{AnyModel, TABLES, bound, kinds, planned, refused};
use crate::planner::{ColumnKind, PlanOptions, Target, plan};
use ef_proto::connector::{DatagenField, SourceConnector};
use ef_proto::expr::{Expr, ExprKind};
use ef_proto::plan::{OperatorKind, Output, Plan, Source, Window};
use ef_proto::schema::DataType;
use std::collections::BTreeMap;

fn source(plan: &Plan) -> &Source {
    match kinds(plan, "Source").as_slice() {
        [OperatorKind::Source(source)] => source,
        other => panic!("{} sources", other.len()),
    }
}

/// The types of the columns that a query over [`TABLES`] prints.
#[track_caller]
fn types(query: &str) -> Vec<DataType> {
    let plan = planned(&format!("{TABLES}{query}"), 1);
    let sink = plan.operators.iter().find(|op| op.kind.name() == "Sink").expect("a sink");
    sink.schema.fields.iter().map(|field| field.ty.clone()).collect()
}

/// The names of the same.
#[track_caller]
fn names(query: &str) -> Vec<String> {
    let plan = planned(&format!("{TABLES}{query}"), 1);
    let sink = plan.operators.iter().find(|op| op.kind.name() == "Sink").expect("a sink");
    sink.schema.fields.iter().map(|field| field.name.clone()).filter(|name| name != "_op").collect()
}

#[test]
fn columns_are_physical_computed_metadata_or_the_clock() {
    let sql = "CREATE TABLE t (a INT NOT NULL COMMENT 'first', file STRING METADATA FROM 'file.path' VIRTUAL, b AS a + 1, c AS b * 2,
        p AS PROCTIME(), ts TIMESTAMP(3), PRIMARY KEY (a) NOT ENFORCED, WATERMARK FOR ts AS ts - INTERVAL '90' SECOND)
        COMMENT 'a table' PARTITIONED BY (a) WITH ('connector' = 'filesystem', 'path' = 't',);";
    let bound = bound(sql);
    let table = &bound.catalog.tables["t"];
    let kinds: Vec<&str> = table
        .columns
        .iter()
        .map(|column| match &column.kind {
            ColumnKind::Physical => "physical",
            ColumnKind::Metadata { virtual_: true, .. } => "virtual",
            ColumnKind::Metadata { .. } => "metadata",
            ColumnKind::Computed { .. } => "computed",
            ColumnKind::Proctime => "proctime",
        })
        .collect();
    assert_eq!(kinds, ["physical", "virtual", "computed", "computed", "proctime", "physical"]);
    assert_eq!(table.watermark.as_ref().and_then(|watermark| watermark.delay_ms), Some(90_000));
    assert_eq!((table.primary_key.as_slice(), table.partitioned_by.as_slice()), (&["a".into()][..], &["a".into()][..]));
    assert_eq!(table.options["path"], "t");
    // An INSERT fills what the connector writes.
    let sink = table.sink_schema();
    let filled: Vec<&str> = sink.fields.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(filled, ["a", "ts"]);
}

#[test]
fn a_column_computed_from_a_computed_one_reads_physical_columns() {
    let plan = planned(
        "CREATE TABLE t (a INT, b AS a + 1, c AS b * 2, z INT) WITH ('connector' = 'filesystem', 'path' = 't', 'format' = 'json'); SELECT c FROM t;",
        1,
    );
    let source = source(&plan);
    assert_eq!(source.physical.fields.len(), 1);
    assert_eq!(source.project[0].to_string(), "(($0 + 1) * 2)");
}

#[test]
fn metadata_columns_come_by_their_keys() {
    let plan = planned(
        "CREATE TABLE t (a INT, at TIMESTAMP(3) METADATA FROM 'file.modification-time' VIRTUAL, `file.name` STRING METADATA VIRTUAL)
           WITH ('connector' = 'filesystem', 'path' = 't', 'format' = 'json');
         SELECT `file.name`, a FROM t;",
        1,
    );
    let source = source(&plan);
    assert_eq!(source.metadata, [(1, "file.name".to_string())]);
    assert_eq!(source.physical.fields.iter().map(|field| field.name.as_str()).collect::<Vec<_>>(), ["a", "file.name"]);
}

#[test]
fn what_nobody_reads_is_pruned_from_datagen_with_its_options() {
    let plan = planned(
        "CREATE TABLE t (a INT, b STRING, c BIGINT, d DOUBLE, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) WITH ('connector' = 'datagen',
           'fields.a.min' = '1', 'fields.b.length' = '7', 'fields.c.kind' = 'sequence', 'fields.c.start' = '5', 'fields.c.end' = '9',
           'fields.d.max' = '0.5');
         SELECT d, b FROM t;",
        1,
    );
    let source = source(&plan);
    let physical: Vec<&str> = source.physical.fields.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(physical, ["b", "d", "ts"]);
    let SourceConnector::Datagen(datagen) = &source.connector else { panic!("{:?}", source.connector) };
    assert_eq!(datagen.fields.len(), 3);
    assert!(matches!(datagen.fields[0], DatagenField::Text { length: 7, .. }), "{:?}", datagen.fields);
    assert!(matches!(datagen.fields[1], DatagenField::Float { max, .. } if max == 0.5), "{:?}", datagen.fields);
    // The sequence still ends the table, though its column is gone.
    assert_eq!(datagen.number_of_rows, Some(5));
}

#[test]
fn a_csv_source_keeps_every_column_for_their_positions() {
    let plan = planned(
        "CREATE TABLE t (a INT, b STRING, c BIGINT) WITH ('connector' = 'filesystem', 'path' = 't.csv', 'format' = 'csv'); SELECT b FROM t;",
        1,
    );
    assert_eq!(source(&plan).physical.len(), 3);
    assert_eq!(source(&plan).project.len(), 1);
}

#[test]
fn views_stand_for_their_queries() {
    let sql = format!(
        "{TABLES}CREATE TEMPORARY VIEW v (a, b) AS SELECT k, n FROM s WHERE n > 1;
         CREATE VIEW IF NOT EXISTS v AS SELECT no_such_column FROM s;
         CREATE VIEW w AS SELECT x.a FROM v AS x WHERE x.b < 5;
         SELECT a FROM w;"
    );
    let plan = planned(&sql, 1);
    let OperatorKind::Calc(calc) = kinds(&plan, "Calc")[0] else { unreachable!() };
    let filter = calc.filter.as_ref().expect("a filter").to_string();
    assert!(filter.contains("> 1") && filter.contains("< 5"), "{filter}");
}

#[test]
fn what_is_dropped_is_gone_and_may_be_declared_again() {
    let model = "CREATE MODEL m INPUT (x DOUBLE) OUTPUT (y DOUBLE) WITH ('provider' = 'onnx', 'path' = 'm.onnx');";
    planned(
        &format!(
            "{TABLES}{model} DROP MODEL m; {model} DROP MODEL IF EXISTS no_model;
             CREATE VIEW v AS SELECT k FROM s; DROP VIEW v; CREATE TABLE v (q INT) WITH ('connector' = 'datagen');
             DROP TABLE IF EXISTS nowhere; DROP TEMPORARY TABLE o; CREATE TABLE IF NOT EXISTS v (r INT);
             SELECT q FROM v;"
        ),
        1,
    );
    let error = refused(&format!("{TABLES}DROP TABLE s; SELECT k FROM s;"));
    assert!(error.message.contains("table `s` does not exist"), "{error}");
}

#[test]
fn settings_hold_until_they_are_reset() {
    let bound = bound(
        "SET 'pipeline.name' = 'a'; SET state.backend = rocksdb; SET 'pipeline.name' = 'b'; SET 'table.exec.state.ttl' = '1 h'; RESET 'table.exec.state.ttl';",
    );
    let found: Vec<(&str, &str)> =
        bound.config.iter().map(|(k, setting)| (k.as_str(), setting.value.as_str())).collect();
    assert_eq!(found, [("pipeline.name", "b"), ("state.backend", "rocksdb")]);
    assert!(super::bound("SET 'pipeline.name' = 'a'; RESET;").config.is_empty());
    let plan = planned(
        &format!("{TABLES}SET 'pipeline.name' = 'pumps'; SET 'pipeline.max-parallelism' = '256'; SELECT k FROM s;"),
        1,
    );
    assert_eq!((plan.name.as_str(), plan.max_parallelism), ("pumps", 256));
}

#[test]
fn variables_are_filled_in_everywhere_but_in_comments() {
    let sql = "CREATE TABLE t (a INT) WITH ('connector' = 'filesystem', 'path' = '${dir}/in', 'format' = 'json');
        -- ${unset} in a comment
        SELECT a AS ${name}, '${dir}' AS d FROM t WHERE a > ${least};";
    let vars: BTreeMap<String, String> =
        [("dir", "data"), ("name", "b"), ("least", "(1 + 2)")].map(|(k, v)| (k.into(), v.into())).into();
    let options = || PlanOptions { name: "test".into(), ..PlanOptions::default() };
    let planned = plan(sql, &vars, options(), &AnyModel).unwrap();
    let text = ef_proto::plan::text(&planned);
    assert!(
        text.contains("filesystem 'data/in'") && text.contains("columns=[b, d]") && text.contains("(a > 3)"),
        "{text}"
    );
    // The place is that of the file as written, whatever the value's length.
    let error = plan(&sql.replace("'${dir}' AS d", "'${dir}' AS d, wrong"), &vars, options(), &AnyModel).unwrap_err();
    assert_eq!((error.line, error.column), (3, 45), "{error}");
}

#[test]
fn inserts_fill_columns_by_position_or_by_name_and_cast_where_nothing_is_lost() {
    let table = "CREATE TABLE w (a BIGINT, b STRING, c DOUBLE, d AS a + 1) WITH ('connector' = 'blackhole');";
    let plan = planned(&format!("{TABLES}{table} INSERT INTO w (c, b) SELECT n, k FROM s;"), 1);
    let sink = plan.operators.iter().find(|op| op.kind.name() == "Sink").unwrap();
    assert_eq!(sink.schema.fields.iter().map(|field| field.name.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    let OperatorKind::Calc(calc) = kinds(&plan, "Calc").pop().unwrap() else { unreachable!() };
    let texts: Vec<String> = calc.project.iter().map(Expr::to_string).collect();
    assert!(texts[0] == "NULL" && texts[1].starts_with('$') && texts[2].starts_with("CAST($"), "{texts:?}");
    for (query, what) in
        [("SELECT v, k, v FROM s", "`a`"), ("SELECT n, n, v FROM s", "`b`"), ("SELECT n, k, k FROM s", "`c`")]
    {
        let error = refused(&format!("{TABLES}{table} INSERT INTO w {query};"));
        assert!(error.message.contains(what), "{query}: {error}");
        assert!(error.to_string().contains("accepted: CAST("), "{error}");
    }
    let error = refused(&format!(
        "{TABLES}CREATE TABLE x (a INT NOT NULL, b INT) WITH ('connector' = 'blackhole'); INSERT INTO x (b) SELECT n FROM s;"
    ));
    assert!(error.message.contains("column `a` is NOT NULL and gets no value"), "{error}");
}

#[test]
fn a_statement_set_is_its_inserts() {
    for (begin, end) in [("BEGIN STATEMENT SET;", "END;"), ("EXECUTE STATEMENT SET BEGIN", "END;")] {
        let bound = bound(&format!(
            "{TABLES}{begin} INSERT INTO o SELECT k, n FROM s; INSERT INTO o SELECT k, 1 FROM s WHERE n = CASE WHEN n > 1 THEN 1 END; {end}"
        ));
        let targets: Vec<&Target> = bound.inserts.iter().map(|insert| &insert.target).collect();
        assert_eq!(targets, [&Target::Table("o".into()), &Target::Table("o".into())]);
    }
}

#[test]
fn equal_parts_of_several_inserts_are_planned_once() {
    let windowed = "SELECT k, COUNT(*) AS c FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '1' HOUR)) GROUP BY k, window_start, window_end";
    let plan = planned(
        &format!(
            "{TABLES}CREATE TABLE o2 (k STRING, n BIGINT) WITH ('connector' = 'print');
             CREATE VIEW counted AS {windowed};
             INSERT INTO o SELECT k, c FROM counted WHERE c > 1; INSERT INTO o2 {windowed}; INSERT INTO o2 SELECT k, c FROM counted WHERE c > 1;"
        ),
        1,
    );
    assert_eq!(kinds(&plan, "Source").len(), 1);
    assert_eq!(kinds(&plan, "WindowAggregate").len(), 1);
    assert_eq!(kinds(&plan, "Sink").len(), 2);
}

#[test]
fn a_union_all_takes_columns_by_position_and_widens_types() {
    let query = "SELECT k AS a, n AS b FROM s UNION ALL SELECT place.site, v FROM s";
    assert_eq!(types(query), [DataType::String, DataType::Float64]);
    assert_eq!(names(query), ["a", "b"]);
    let error = refused(&format!("{TABLES}SELECT k FROM s UNION ALL\nSELECT k, n FROM s;"));
    assert!(error.message.contains("UNION queries have different number of columns"), "{error}");
}

#[test]
fn windows_are_as_the_arguments_say() {
    let hour = 3_600_000;
    let day = 24 * hour;
    for (call, expected) in [
        ("TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '1' HOUR)", Window::Tumble { size_ms: hour, offset_ms: 0 }),
        (
            "TUMBLE(DATA => TABLE s, TIMECOL => DESCRIPTOR(ts), SIZE => INTERVAL '1' DAY, `OFFSET` => INTERVAL '-8' HOUR)",
            Window::Tumble { size_ms: day, offset_ms: -8 * hour },
        ),
        (
            "HOP(TABLE s, DESCRIPTOR(ts), INTERVAL '30' MINUTE, INTERVAL '1' HOUR)",
            Window::Hop { slide_ms: hour / 2, size_ms: hour, offset_ms: 0 },
        ),
        (
            "CUMULATE(TABLE s, DESCRIPTOR(ts), INTERVAL '1' HOUR, INTERVAL '1' DAY)",
            Window::Cumulate { step_ms: hour, max_ms: day, offset_ms: 0 },
        ),
        (
            "SESSION(TABLE s PARTITION BY k, DESCRIPTOR(ts), INTERVAL '1:30' MINUTE TO SECOND)",
            Window::Session { gap_ms: 90_000 },
        ),
        (
            "TUMBLE((SELECT * FROM s WHERE n > 1), DESCRIPTOR(ts), INTERVAL '1' HOUR)",
            Window::Tumble { size_ms: hour, offset_ms: 0 },
        ),
    ] {
        for from in [format!("TABLE({call})"), call.to_string()] {
            let plan = planned(
                &format!(
                    "{TABLES}SELECT k, window_end, COUNT(*) AS c FROM {from} GROUP BY k, window_start, window_end;"
                ),
                1,
            );
            let OperatorKind::WindowAggregate(aggregate) = kinds(&plan, "WindowAggregate")[0] else { unreachable!() };
            assert_eq!(aggregate.window, expected, "{from}");
        }
    }
}

#[test]
fn distinct_is_a_group_by_and_inside_a_window_append_only() {
    let plan = planned(&format!("{TABLES}SELECT DISTINCT k, n FROM s;"), 1);
    assert_eq!(kinds(&plan, "GroupAggregate").len(), 1);
    let plan = planned(
        &format!(
            "{TABLES}SELECT DISTINCT k, window_start, window_end FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '1' HOUR));"
        ),
        1,
    );
    assert_eq!((kinds(&plan, "GroupAggregate").len(), kinds(&plan, "WindowAggregate").len()), (0, 1));
    let plan = planned(&format!("{TABLES}SELECT k, COUNT(DISTINCT n) AS c, SUM(n) AS t FROM s GROUP BY k;"), 1);
    let OperatorKind::GroupAggregate(group) = kinds(&plan, "GroupAggregate")[0] else { unreachable!() };
    assert_eq!(group.aggregates.iter().map(|call| call.distinct).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn late_rows_go_to_their_table_and_only_with_a_window_above() {
    let tables = "CREATE TABLE s (k STRING, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) WITH ('connector' = 'datagen', 'late.table' = 'late');
        CREATE TABLE late (ts TIMESTAMP(3), k STRING) WITH ('connector' = 'print');";
    let plan = planned(
        &format!(
            "{tables} SELECT k, COUNT(*) FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '1' HOUR)) GROUP BY k, window_start, window_end;"
        ),
        4,
    );
    assert_eq!(plan.edges.iter().filter(|edge| edge.output == Output::Late).count(), 1);
    let error = refused(&format!("{tables}\nSELECT k FROM s;"));
    assert!(error.message.contains("so no row can be late"), "{error}");
    assert_eq!((error.line, error.column), (1, 99), "{error}");
}

#[test]
fn fields_elements_and_entries_are_reached_by_name_position_and_key() {
    use DataType::*;
    assert_eq!(
        types("SELECT place.site, s.place.spot.x, tags[1], props['a'], place.spot, `place`.`spot`.`y` FROM s").len(),
        6
    );
    let query = "SELECT place.site, s.place.spot.x, tags[1], props['a'] FROM s";
    assert_eq!(types(query), [String, Float64, String, Int32]);
    assert_eq!(names(query)[..2], ["site", "x"]);
    let plan = planned(&format!("{TABLES}SELECT p.spot.x FROM (SELECT place AS p FROM s) AS q;"), 1);
    let calc = kinds(&plan, "Calc").into_iter().find_map(|kind| match kind {
        OperatorKind::Calc(calc) => Some(calc.project[0].clone()),
        _ => None,
    });
    let field = calc.unwrap_or_else(|| source(&plan).project[0].clone());
    assert!(matches!(field.kind, ExprKind::Field { .. }), "{field}");
}

#[test]
fn columns_without_a_name_get_flinks() {
    assert_eq!(
        names("SELECT k, n + 1, place.site, k, COUNT(*) FROM s GROUP BY k, n, place.site"),
        ["k", "EXPR$1", "site", "k0", "EXPR$4"]
    );
}

#[test]
fn literals_have_flinks_types() {
    use DataType::*;
    assert_eq!(
        types(
            "SELECT 1, 3000000000, 1.50, 1e3, 'a', TRUE, DATE '2026-03-14', TIMESTAMP '2026-03-14 00:00:00.123', n / 2, 0.5 * n FROM s"
        ),
        [
            Int32,
            Int64,
            Decimal { precision: 3, scale: 2 },
            Float64,
            String,
            Boolean,
            Date,
            Timestamp(ef_proto::schema::Unit::Milli),
            Int32,
            Decimal { precision: 13, scale: 1 }
        ]
    );
}
