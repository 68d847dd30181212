//! Changes as rows of a changelog: what Debezium writes, what is refused, and that nothing half-read stays.

use crate::format::decode::{Decoder, Nulled, Stop};
use crate::format::encode::encoder;
use crate::format::{DecodeError, decoder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int8Type, Int64Type};
use arrow_array::{Array, RecordBatch};
use ef_proto::connector::{DebeziumJson, Format, Json, OnError, TimestampFormat};
use ef_proto::schema::{DataType, Field, RowKind, Schema};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn format(on_error: OnError, schema_include: bool) -> Format {
    Format::DebeziumJson(DebeziumJson { json: Json { on_error, timestamps: TimestampFormat::Sql }, schema_include })
}

fn columns() -> Schema {
    Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::String, true),
        Field::new("tags", DataType::Array(Box::new(DataType::Int64)), true),
    ])
}

fn reader(on_error: OnError, schema_include: bool) -> Box<dyn Decoder> {
    decoder(&format(on_error, schema_include), &columns().with_op()).unwrap()
}

fn rows(batch: &RecordBatch) -> Vec<String> {
    let (ids, names) = (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_string::<i32>());
    let ops = batch.column(3).as_primitive::<Int8Type>();
    let name = |row| if names.is_null(row) { "NULL" } else { names.value(row) };
    let kind = |row| RowKind::from_i8(ops.value(row)).unwrap().short();
    (0..batch.num_rows()).map(|row| format!("{} {} {}", kind(row), ids.value(row), name(row))).collect()
}

fn read(decoder: &mut dyn Decoder, payload: &str) -> Result<usize, Box<DecodeError>> {
    decoder.decode_record(payload.as_bytes(), &mut Nulled::default())
}

const UPDATE: &str = r#"{"before":{"id":1,"name":"a","tags":[1]},"after":{"id":1,"name":"b","tags":null},
  "source":{"version":"2.5","ts_ms":17,"nested":[{"x":[]}]},"op":"u","ts_ms":1589362330904,"transaction":null}"#;

#[test]
fn operations_become_rows_of_a_changelog() {
    let mut decoder = reader(OnError::Fail, false);
    let messages = [
        r#"{"before":null,"after":{"id":1,"name":"a","other":{"x":1}},"op":"c"}"#,
        r#"{"op":"r","after":{"id":2}}"#,
        UPDATE,
        "",
        "  ",
        r#"{"before":{"id":2,"name":null},"after":null,"op":"d"}"#,
    ];
    let counts: Vec<usize> = messages.iter().map(|message| read(decoder.as_mut(), message).unwrap()).collect();
    assert_eq!(counts, [1, 1, 2, 0, 0, 1]);
    assert_eq!(rows(&decoder.take().unwrap()), ["+I 1 a", "+I 2 NULL", "-U 1 a", "+U 1 b", "-D 2 NULL"]);
}

#[test]
fn the_schema_beside_the_payload_is_passed_over() {
    let mut decoder = reader(OnError::Fail, true);
    let message = format!(r#"{{"schema":{{"type":"struct","fields":[{{"op":"x"}}]}},"payload":{UPDATE}}}"#);
    assert_eq!(read(decoder.as_mut(), &message), Ok(2));
    assert_eq!(read(decoder.as_mut(), r#"{"schema":{},"payload":null}"#), Ok(0));
    assert_eq!(rows(&decoder.take().unwrap()), ["-U 1 a", "+U 1 b"]);
    let error = read(decoder.as_mut(), UPDATE).unwrap_err();
    assert!(error.reason.contains("no `payload`"), "{error}");
    let error = read(reader(OnError::Fail, false).as_mut(), &message).unwrap_err();
    assert!(error.reason.contains("'debezium-json.schema-include' = 'true'"), "{error}");
}

#[test]
fn what_is_no_change_is_refused_with_its_field_and_leaves_nothing() {
    let mut decoder = reader(OnError::Skip, false);
    for (message, column, says) in [
        (r#"{"before":{"id":1},"after":{"id":"x"},"op":"u"}"#, Some("after.id"), "expected a whole number"),
        (r#"{"before":{"id":1},"after":{"id":2,"tags":[1,"a"]},"op":"u"}"#, Some("after.tags[1]"), "found \"a\""),
        (r#"{"before":null,"after":{"id":1},"op":"u"}"#, Some("before"), "REPLICA IDENTITY FULL"),
        (r#"{"before":{"id":1},"op":"u"}"#, Some("after"), "brings a row"),
        (r#"{"after":{"id":1},"op":"d"}"#, Some("before"), "takes a row away"),
        (r#"{"after":{"name":"a"},"op":"c"}"#, Some("after.id"), "NOT NULL"),
        (r#"{"after":{"id":1},"op":"t"}"#, Some("op"), "found 't', expected 'c', 'r', 'u' or 'd'"),
        (r#"{"after":{"id":1},"op":7}"#, Some("op"), "expected a string"),
        (r#"{"after":[1],"op":"c"}"#, Some("after"), "expected an object or null"),
        (r#"{"after":{"id":1}}"#, None, "no `op`"),
        (r#"{"after":{"id":1},"op":"c"} x"#, None, "expected one JSON object"),
        (r#"{"after":{"id":1},"op":"c""#, None, "comma or }"),
        ("[1]", None, "expected a JSON object"),
        (r#"{"source":{"a":01},"after":{"id":1},"op":"c"}"#, None, "may not begin with 0"),
    ] {
        let error = read(decoder.as_mut(), message).expect_err(message);
        assert_eq!(error.column.as_deref(), column, "{message}: {error}");
        assert!(error.reason.contains(says), "{message}: {error}");
        assert_eq!(decoder.rows(), 0, "{message}");
    }
    assert_eq!(read(decoder.as_mut(), r#"{"after":{"id":5,"tags":[3]},"op":"c"}"#), Ok(1));
    assert_eq!(rows(&decoder.take().unwrap()), ["+I 5 NULL"]);
}

#[test]
fn lines_of_a_file_are_messages_and_a_bad_one_is_told_by_its_line() {
    let mut decoder = reader(OnError::Skip, false);
    let file = "{\"op\":\"c\",\"after\":{\"id\":1}}\n\n{\"op\":\"c\"}\r\n{\"op\":\"d\",\"before\":{\"id\":1}}";
    let first = decoder.decode(file.as_bytes(), true);
    let Stop::Bad(error) = &first.stop else { panic!("{first:?}") };
    assert_eq!((error.line, error.raw.as_str(), first.lines), (2, r#"{"op":"c"}"#, 3));
    let rest = decoder.decode(&file.as_bytes()[first.consumed..], true);
    assert!(matches!(rest.stop, Stop::Input));
    assert_eq!(rows(&decoder.take().unwrap()), ["+I 1 NULL", "-D 1 NULL"]);
}

#[test]
fn with_ignored_errors_a_bad_field_is_null_and_counted() {
    let mut decoder = reader(OnError::Null, false);
    let mut nulled = Nulled::default();
    let message = r#"{"before":{"id":1,"name":"a","tags":7},"after":{"id":1,"tags":"x"},"op":"u"}"#;
    assert_eq!(decoder.decode_record(message.as_bytes(), &mut nulled), Ok(2));
    assert_eq!((nulled.fields, nulled.first.unwrap().column.as_deref()), (2, Some("before.tags")));
}

/// The table that a changelog adds up to: rows with their counts.
fn fold(table: &mut BTreeMap<(i64, String), i64>, batch: &RecordBatch) {
    let (ids, names) = (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_string::<i32>());
    for (row, op) in batch.column(3).as_primitive::<Int8Type>().values().iter().enumerate() {
        let step = if RowKind::from_i8(*op).unwrap().retracts() { -1 } else { 1 };
        let key = (ids.value(row), names.value(row).to_string());
        *table.entry(key.clone()).or_default() += step;
        if table[&key] == 0 {
            table.remove(&key);
        }
    }
}

proptest! {
    /// What is written for a changelog adds up to the same table when it is read back.
    #[test]
    fn a_changelog_that_is_written_reads_back_to_the_same_table(
        changes in proptest::collection::vec((0i64..8, "[a-z\"\\\\é]{0,6}", 0u8..4), 0..60)
    ) {
        let mut decoder = reader(OnError::Fail, false);
        for (id, name, op) in &changes {
            let row = serde_json::json!({"id": id, "name": name, "tags": [1, null]});
            let message = match op {
                0 => serde_json::json!({"op": "c", "after": row}),
                1 => serde_json::json!({"op": "d", "before": row}),
                2 => serde_json::json!({"op": "u", "before": row, "after": {"id": id, "name": "z"}}),
                _ => serde_json::json!({"op": "r", "after": row}),
            };
            prop_assert!(read(decoder.as_mut(), &message.to_string()).is_ok());
        }
        let batch = decoder.take().unwrap();
        let mut encoder = encoder(&format(OnError::Fail, false), &columns(), true).unwrap();
        let (mut out, mut ends) = (Vec::new(), Vec::new());
        encoder.encode_rows(&batch, &mut out, &mut ends).unwrap();
        let mut start = 0;
        for end in ends {
            let text = std::str::from_utf8(&out[start..end]).unwrap();
            let value: serde_json::Value = serde_json::from_str(text).unwrap();
            prop_assert!(value["op"] == "c" && value["before"].is_null() || value["op"] == "d" && value["after"].is_null());
            prop_assert_eq!(read(decoder.as_mut(), text), Ok(1));
            start = end;
        }
        let (mut first, mut again) = (BTreeMap::new(), BTreeMap::new());
        fold(&mut first, &batch);
        fold(&mut again, &decoder.take().unwrap());
        prop_assert_eq!(first, again);
    }

    /// Cut and flipped messages leave whole rows only.
    #[test]
    fn a_poisoned_message_never_panics_and_leaves_whole_rows(at in 0usize..300, with in any::<u8>(), cut in 0usize..300) {
        let mut bytes = UPDATE.as_bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] = with;
        bytes.truncate(cut.max(1));
        for on_error in [OnError::Skip, OnError::Null] {
            let mut decoder = reader(on_error, false);
            let found = decoder.decode_record(&bytes, &mut Nulled::default());
            prop_assert_eq!(decoder.rows(), found.unwrap_or(0));
            prop_assert_eq!(read(decoder.as_mut(), r#"{"op":"c","after":{"id":9,"name":"end"}}"#), Ok(1));
            let batch = decoder.take().unwrap();
            let rows = rows(&batch);
            prop_assert_eq!(rows.last().unwrap().as_str(), "+I 9 end");
        }
    }
}
