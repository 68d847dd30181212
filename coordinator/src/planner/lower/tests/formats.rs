//! Formats of messages in plans: sources that are changelogs, columns that must stay, descriptors that travel.

use crate::planner::tests::{kinds, planned, refused, try_plan};
use crate::planner::{ModelInspector, PlanOptions, plan};
use ef_proto::connector::Format;
use ef_proto::plan::{Exchange, Model, OperatorKind, Plan, Source};
use ef_proto::schema::Schema;
use std::collections::BTreeMap;

const CDC: &str = "
CREATE TABLE cdc (
  id BIGINT, region STRING, amount DOUBLE, place ROW<x DOUBLE, y DOUBLE>, ts TIMESTAMP(3), path STRING METADATA FROM 'file.path' VIRTUAL,
  cents AS CAST(amount * 100 AS BIGINT), WATERMARK FOR ts AS ts - INTERVAL '5' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'cdc', 'format' = 'debezium-json');
";

fn source(plan: &Plan) -> &Source {
    let OperatorKind::Source(source) = kinds(plan, "Source")[0] else { unreachable!() };
    source
}

fn names(schema: &Schema) -> Vec<&str> {
    schema.fields.iter().map(|field| field.name.as_str()).collect()
}

#[test]
fn a_source_of_changes_carries_their_kinds_through_projections_to_a_retracting_aggregate() {
    let sql = format!(
        "{CDC} SELECT region, COUNT(*) AS n, SUM(cents) AS cents, MAX(path) AS p FROM cdc WHERE place.x > 1 GROUP BY region;"
    );
    for parallelism in [1, 4] {
        let plan = planned(&sql, parallelism);
        let source = source(&plan);
        assert!(source.is_changelog());
        assert_eq!(names(&source.physical), ["region", "amount", "place", "ts", "path", "_op"]);
        assert_eq!(source.metadata, [(4, "file.path".to_string())]);
        assert_eq!(names(&plan.operators[0].schema).last(), Some(&"_op"));
        let OperatorKind::GroupAggregate(group) = kinds(&plan, "GroupAggregate")[0] else { unreachable!() };
        assert!(group.retracting);
        assert!(plan.edges.iter().all(|edge| edge.changelog), "{:?}", plan.edges);
        // Changes of a row stay in their order: by its key, or all to one.
        assert!(plan.edges.iter().all(|edge| edge.exchange != Exchange::Rebalance), "{:?}", plan.edges);
    }
}

#[test]
fn changes_without_an_aggregate_reach_only_sinks_that_take_them() {
    let into = |format: &str| {
        format!(
            "{CDC} CREATE TABLE o (id BIGINT, cents BIGINT) WITH ('connector' = 'filesystem', 'path' = 'o', 'format' = '{format}'); \
             INSERT INTO o SELECT id, cents FROM cdc WHERE amount > 1;"
        )
    };
    for format in ["debezium-json", "changelog-json"] {
        let plan = planned(&into(format), 1);
        assert!(plan.edges.iter().all(|edge| edge.changelog));
    }
    for format in ["json", "csv"] {
        let error = refused(&into(format)).to_string();
        assert!(error.contains("`o`") && error.contains("'debezium-json'"), "{error}");
    }
    let plain = "CREATE TABLE s (id BIGINT) WITH ('connector' = 'datagen'); \
                 CREATE TABLE o (id BIGINT) WITH ('connector' = 'filesystem', 'path' = 'o', 'format' = 'debezium-json'); \
                 INSERT INTO o SELECT id FROM s;";
    let OperatorKind::Sink(sink) = kinds(&planned(plain, 1), "Sink")[0].clone() else { unreachable!() };
    assert!(sink.changelog, "rows that are only inserted are creations");
}

#[test]
fn operators_that_take_only_inserted_rows_refuse_a_source_of_changes() {
    let window = "SELECT COUNT(*) FROM TABLE(TUMBLE(TABLE cdc, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY window_start, window_end;";
    let error = refused(&format!("{CDC} {window}"));
    assert!(error.to_string().contains("TUMBLE over rows that are updated later is not supported"), "{error}");
    assert!(error.to_string().contains("line 6"), "{error}");
}

#[test]
fn columns_that_are_known_by_their_places_stay() {
    let table = |format: &str| {
        format!(
            "CREATE TABLE s (a BIGINT, b STRING, c DOUBLE) WITH ('connector' = 'filesystem', 'path' = 's', 'format' = '{format}'); SELECT c FROM s;"
        )
    };
    assert_eq!(names(&source(&planned(&table("csv"), 1)).physical), ["a", "b", "c"]);
    assert_eq!(names(&source(&planned(&table("json"), 1)).physical), ["c"]);
    for format in ["avro", "protobuf"] {
        let error = try_plan(&table(format), 1).unwrap_err().to_string();
        assert!(error.contains(format), "{error}");
    }
    let error = try_plan(&table("avro"), 1).unwrap_err().to_string();
    assert!(error.contains("'avro' is for messages, not for lines of files"), "{error}");
    let raw = "CREATE TABLE s (line STRING, n AS CHAR_LENGTH(line)) WITH ('connector' = 'filesystem', 'path' = 's', 'format' = 'raw'); SELECT n FROM s;";
    assert!(matches!(source(&planned(raw, 1)).format, Some(Format::Raw(_))));
    let error = refused(&raw.replace("line STRING, n AS CHAR_LENGTH(line)", "n INT")).to_string();
    assert!(error.contains("'raw' in files is a line a value"), "{error}");
}

/// Knows one file.
struct Files;

impl ModelInspector for Files {
    fn inspect(&self, _: &str, _: &Schema, _: &Schema, _: &BTreeMap<String, String>) -> Result<Model, String> {
        Err("no models in these tests".into())
    }

    fn descriptor(&self, path: &str, message: &str) -> Result<String, String> {
        match (path, message) {
            ("orders.desc", "shop.Order") => Ok("Cg==".into()),
            _ => Err(format!("no message '{message}'")),
        }
    }
}

#[test]
fn a_descriptor_file_is_read_when_its_table_is_declared_and_its_errors_point_there() {
    let plan = |path: &str| {
        let sql = format!(
            "CREATE TABLE s (id BIGINT) WITH (\n'connector' = 'filesystem', 'path' = 's', 'format' = 'protobuf',\n\
             'protobuf.message-class-name' = 'shop.Order',\n'protobuf.descriptor-file' = '{path}'); SELECT * FROM s;"
        );
        plan(&sql, &BTreeMap::new(), PlanOptions::default(), &Files).unwrap_err().to_string()
    };
    let error = plan("other.desc");
    assert!(error.contains("option 'protobuf.descriptor-file': file 'other.desc': no message 'shop.Order'"), "{error}");
    assert!(error.contains("line 4"), "{error}");
    // It has been read: what is in it is no descriptor.
    let error = plan("orders.desc");
    assert!(error.contains("option 'protobuf.message-class-name'") && !error.contains("is missing"), "{error}");
}
