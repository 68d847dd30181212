//! Which records rows become.

use super::*;
use arrow_array::{ArrayRef, Int8Array, Int64Array, StringArray};
use ef_proto::connector::{Options, SinkConnector};
use ef_proto::schema::DataType;
use std::sync::Arc;

fn schema() -> Schema {
    let field = |name: &str, ty, nullable| Field::new(name, ty, nullable);
    Schema::new(vec![field("k_id", DataType::Int64, false), field("name", DataType::String, true)])
}

fn options(connector: &str, more: &[(&str, &str)], changelog: bool) -> KafkaSink {
    let pairs = [("connector", connector), ("topic", "out"), ("properties.bootstrap.servers", "b:1")];
    let map = pairs.iter().chain(more).map(|(key, value)| (key.to_string(), value.to_string())).collect();
    let mut options = Options::new("t", map);
    let (connector, _) =
        SinkConnector::parse(&mut options, &schema(), &["k_id".to_string()], changelog).expect("valid");
    options.finish().expect("all known");
    match connector {
        SinkConnector::Kafka(sink) => *sink,
        other => panic!("{other:?}"),
    }
}

fn batch(ops: Option<[RowKind; 4]>) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 2, 3]));
    let names: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("b"), Some("c")]));
    match ops {
        None => RecordBatch::try_new(schema().to_arrow(), vec![ids, names]).expect("fits"),
        Some(ops) => {
            let ops: ArrayRef = Arc::new(Int8Array::from(ops.map(|op| op as i8).to_vec()));
            RecordBatch::try_new(schema().with_op().to_arrow(), vec![ids, names, ops]).expect("fits")
        }
    }
}

fn records(options: &KafkaSink, batch: &RecordBatch, bytes_max: usize) -> Result<Vec<(String, String)>> {
    let changelog = batch.num_columns() == 3;
    let mut rows = Rows::new(options, &schema(), changelog, bytes_max, &crate::connector::stdout::tests::place())?;
    let mut found = Vec::new();
    let text = |bytes: Option<&[u8]>| bytes.map_or("-".into(), |bytes| String::from_utf8_lossy(bytes).into_owned());
    rows.each(batch, |record| {
        found.push((text(record.key), text(record.value)));
        Ok(())
    })?;
    Ok(found)
}

fn expect(found: Result<Vec<(String, String)>>, expected: &[(&str, &str)]) {
    let expected: Vec<_> = expected.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    assert_eq!(found.expect("encodes"), expected);
}

#[test]
fn values_are_whole_rows_and_keys_are_their_columns() {
    let plain = options("kafka", &[("format", "json")], false);
    let whole = [
        ("-", "{\"k_id\":1,\"name\":\"a\"}"),
        ("-", "{\"k_id\":2,\"name\":null}"),
        ("-", "{\"k_id\":2,\"name\":\"b\"}"),
        ("-", "{\"k_id\":3,\"name\":\"c\"}"),
    ];
    expect(records(&plain, &batch(None), 1000), &whole);
    let keyed = [
        ("key.format", "csv"),
        ("key.fields", "k_id"),
        ("key.fields-prefix", "k_"),
        ("value.format", "json"),
        ("value.fields-include", "EXCEPT_KEY"),
    ];
    let parts =
        [("1", "{\"name\":\"a\"}"), ("2", "{\"name\":null}"), ("2", "{\"name\":\"b\"}"), ("3", "{\"name\":\"c\"}")];
    expect(records(&options("kafka", &keyed, false), &batch(None), 1000), &parts);
}

#[test]
fn upserts_write_what_a_key_has_become_and_tombstones_for_deleted_ones() {
    let upsert = options("upsert-kafka", &[("key.format", "json"), ("value.format", "json")], true);
    let ops = [RowKind::Insert, RowKind::UpdateBefore, RowKind::UpdateAfter, RowKind::Delete];
    let expected = [
        ("{\"k_id\":1}", "{\"k_id\":1,\"name\":\"a\"}"),
        ("{\"k_id\":2}", "{\"k_id\":2,\"name\":\"b\"}"),
        ("{\"k_id\":3}", "-"),
    ];
    expect(records(&upsert, &batch(Some(ops)), 1000), &expected);
    // What an update takes away behind a filter is gone, if nothing of its key follows.
    let ops = [RowKind::UpdateBefore, RowKind::UpdateBefore, RowKind::UpdateAfter, RowKind::UpdateBefore];
    let gone = [("{\"k_id\":1}", "-"), ("{\"k_id\":2}", "{\"k_id\":2,\"name\":\"b\"}"), ("{\"k_id\":3}", "-")];
    expect(records(&upsert, &batch(Some(ops)), 1000), &gone);
}

#[test]
fn row_that_no_broker_takes_is_refused_before_it_is_part_of_a_checkpoint() {
    let plain = options("kafka", &[("format", "json")], false);
    let error = records(&plain, &batch(None), 21).expect_err("too large");
    assert!(error.message.contains("a record of 22 bytes, more than 21"), "{error}");
    assert!(error.message.contains("{\"k_id\":2"), "{error}");
}
