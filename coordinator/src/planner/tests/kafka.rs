//! Tables in Kafka: what their source reads after pruning, and what is refused, where.

use super::{planned, refused};
use ef_proto::connector::{KafkaSource, SourceConnector};
use ef_proto::plan::{OperatorKind, Plan, Source};

const WITH: &str = "'connector' = 'kafka', 'topic' = 't', 'properties.bootstrap.servers' = 'b:9092', \
     'scan.startup.mode' = 'earliest-offset'";

fn source(plan: &Plan) -> (&Source, &KafkaSource) {
    let source = plan.operators.iter().find_map(|op| match &op.kind {
        OperatorKind::Source(source) => Some(source),
        _ => None,
    });
    let source = source.expect("the plan has a source");
    let SourceConnector::Kafka(kafka) = &source.connector else { panic!("{:?}", source.connector) };
    (source, kafka)
}

fn names(source: &Source) -> Vec<&str> {
    source.physical.fields.iter().map(|field| field.name.as_str()).collect()
}

#[test]
fn columns_of_key_value_and_metadata_are_pruned_together() {
    let plan = planned(
        &format!(
            "CREATE TABLE t (k_a STRING, v INT, k_b INT, w INT, at BIGINT METADATA FROM 'offset', topic STRING METADATA)
             WITH ({WITH}, 'format' = 'json', 'key.format' = 'json', 'key.fields' = 'k_a;k_b',
                   'key.fields-prefix' = 'k_',
                   'value.fields-include' = 'EXCEPT_KEY');
             SELECT w, k_b, at FROM t;"
        ),
        1,
    );
    let (source, kafka) = source(&plan);
    assert_eq!(names(source), ["k_b", "w", "at"]);
    assert_eq!(kafka.key.as_ref().map(|key| key.columns.clone()), Some(vec![0]));
    assert_eq!(source.metadata, [(2, "offset".to_string())]);
}

#[test]
fn a_key_that_is_known_by_positions_stays_whole() {
    let plan = planned(
        &format!(
            "CREATE TABLE t (k_a STRING, v INT, k_b INT, w INT)
             WITH ({WITH}, 'format' = 'json', 'key.format' = 'csv', 'key.fields' = 'k_a;k_b',
                   'value.fields-include' = 'EXCEPT_KEY');
             SELECT k_b FROM t;"
        ),
        1,
    );
    let (source, kafka) = source(&plan);
    assert_eq!(names(source), ["k_a", "v", "k_b", "w"]);
    assert_eq!(kafka.key.as_ref().map(|key| key.columns.clone()), Some(vec![0, 2]));
}

#[test]
fn mistakes_are_shown_where_they_are_written() {
    for (columns, with, expected, line) in [
        (
            "a INT, topic INT METADATA",
            "'format' = 'json'",
            "metadata 'topic' of connector 'kafka' cannot be of type INT",
            1,
        ),
        ("a INT, key BYTES NOT NULL METADATA", "'format' = 'json'", "accepted: BYTES or STRING that may be NULL", 1),
        ("a INT, x INT METADATA FROM 'lag'", "'format' = 'json'", "connector 'kafka' has no metadata 'lag'", 1),
        ("a INT", "'format' = 'json',\n'properties.ssl.ca.location' = '/etc/ca'", "a table names no files", 4),
        ("a INT", "'format' = 'json',\n'scan.bounded.mode' = 'newest'", "found 'newest', expected 'unbounded'", 4),
        ("a INT", "'format' = 'json',\n'key.fields' = 'a'", "option 'key.format' is missing", 1),
    ] {
        let error = refused(&format!("CREATE TABLE t ({columns})\nWITH ({WITH},\n{with});\nSELECT a FROM t;"));
        let text = error.to_string();
        assert!(text.contains(expected), "{text}\nexpected {expected}");
        assert_eq!(error.line, line, "{text}");
    }
    let pattern = WITH.replace("'topic' = 't'", "'topic-pattern' = 'a('");
    let error = refused(&format!("CREATE TABLE t (a INT) WITH ({pattern}, 'format' = 'json'); SELECT a FROM t;"));
    assert!(error.to_string().contains("option 'topic-pattern': found 'a(', expected a regular expression"), "{error}");
}
