//! Rows and what is sent for them.

use super::*;
use arrow_array::{ArrayRef, Float64Array, Int8Array, Int64Array, StringArray};
use ef_proto::connector::{Json, OnError, RedisServer, TimestampFormat};
use ef_proto::schema::{DataType, Field};
use std::sync::Arc;

pub(in crate::connector::redis) fn options(mode: RedisMode) -> RedisSink {
    let server = RedisServer {
        host: "127.0.0.1".into(),
        port: 1,
        database: 0,
        tls: false,
        username: None,
        password: None,
        connect_timeout_ms: 1_000,
        command_timeout_ms: 1_000,
    };
    RedisSink {
        server,
        mode,
        key: None,
        key_prefix: "p:".into(),
        key_separator: "/".into(),
        ttl_ms: None,
        stream_maxlen: None,
        exactly_once: false,
        flush_rows: 100,
        flush_interval_ms: 1_000,
        max_retries: None,
    }
}

fn schema() -> Schema {
    let field = |name: &str, ty| Field::new(name, ty, true);
    Schema::new(vec![
        field("plant", DataType::String),
        field("id", DataType::Int64),
        field("v", DataType::Float64),
        field("note", DataType::String),
    ])
}

/// Rows (id, v, note, kind) of plant `a`.
pub(in crate::connector::redis) fn batch(rows: &[(i64, Option<f64>, Option<&str>, i8)]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["a"; rows.len()])),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))),
        Arc::new(Float64Array::from_iter(rows.iter().map(|row| row.1))),
        Arc::new(StringArray::from_iter(rows.iter().map(|row| row.2))),
        Arc::new(Int8Array::from_iter_values(rows.iter().map(|row| row.3))),
    ];
    RecordBatch::try_new(schema().with_op().to_arrow(), columns).expect("columns match")
}

fn json() -> Format {
    Format::Json(Json { on_error: OnError::Fail, timestamps: TimestampFormat::Sql })
}

/// The commands as lines of words.
fn sent(options: &RedisSink, format: Option<&Format>, keys: &[usize], batch: &RecordBatch) -> Result<Vec<String>> {
    let mut rows = Rows::new(options, format, &schema(), keys, true, "t")?;
    let mut pending = Pending::new(options.mode.upserts());
    let prepared = rows.prepare(batch)?;
    for row in 0..batch.num_rows() {
        rows.put(&prepared, row, &mut pending)?;
    }
    let batch = pending.take();
    let text = String::from_utf8(batch.commands).expect("text");
    let (mut parts, mut lines) = (text.split_terminator("\r\n"), Vec::new());
    while let Some(head) = parts.next() {
        let count: usize = head.strip_prefix('*').and_then(|n| n.parse().ok()).expect("the head of a command");
        let words: Vec<&str> = parts.by_ref().take(2 * count).skip(1).step_by(2).collect();
        lines.push(words.join(" "));
    }
    assert_eq!(lines.len(), batch.count);
    Ok(lines)
}

#[test]
fn a_hash_has_a_field_for_each_value_and_loses_those_that_are_null() {
    let rows =
        batch(&[(1, Some(1.5), Some("x"), 0), (2, Some(2.0), None, 0), (3, None, None, 0), (4, None, Some("y"), 3)]);
    let expected = ["HSET p:a/1 v 1.5 note x", "HDEL p:a/2 note", "HSET p:a/2 v 2.0", "DEL p:a/3", "DEL p:a/4"];
    assert_eq!(sent(&options(RedisMode::Hash), None, &[0, 1], &rows).expect("writes"), expected);
    let options = RedisSink { ttl_ms: Some(5_000), ..options(RedisMode::Hash) };
    let found = sent(&options, None, &[0, 1], &batch(&[(1, Some(1.0), Some("x"), 0)])).expect("writes");
    assert_eq!(found, ["HSET p:a/1 v 1.0 note x", "PEXPIRE p:a/1 5000"]);
}

#[test]
fn of_several_changes_of_a_key_the_last_is_sent() {
    let rows = batch(&[
        (1, Some(1.0), Some("x"), 0),
        (2, Some(1.0), Some("x"), 0),
        (1, Some(1.0), Some("x"), 1),
        (1, Some(2.0), Some("x"), 2),
        (2, Some(1.0), Some("x"), 3),
        (3, Some(1.0), Some("x"), 1),
    ]);
    let expected = ["HSET p:a/1 v 2.0 note x", "DEL p:a/2", "DEL p:a/3"];
    assert_eq!(sent(&options(RedisMode::Hash), None, &[0, 1], &rows).expect("writes"), expected);
}

#[test]
fn a_string_is_the_row_in_its_format_or_the_one_value() {
    let rows = batch(&[(1, Some(1.5), Some("x"), 0), (2, None, None, 2), (1, None, None, 3)]);
    let expected = ["DEL p:a/1", "SET p:a/2 {\"plant\":\"a\",\"id\":2,\"v\":null,\"note\":null}"];
    assert_eq!(sent(&options(RedisMode::String), Some(&json()), &[0, 1], &rows).expect("writes"), expected);
    let options = RedisSink { ttl_ms: Some(9), ..options(RedisMode::String) };
    let found = sent(&options, None, &[0, 1, 3], &batch(&[(1, Some(1.5), Some("x"), 0), (2, None, Some("y"), 0)]));
    assert_eq!(found.expect("writes"), ["SET p:a/1/x 1.5 PX 9", "DEL p:a/2/y"]);
}

#[test]
fn a_stream_gets_every_row_whole() {
    let mut options = RedisSink { key: Some("s".into()), stream_maxlen: Some(10), ..options(RedisMode::Stream) };
    let rows = batch(&[(1, Some(1.5), None, 0), (1, Some(1.5), None, 0)]);
    let entry = "XADD p:s MAXLEN ~ 10 * plant a id 1 v 1.5";
    assert_eq!(sent(&options, None, &[], &rows).expect("writes"), [entry, entry]);
    options.stream_maxlen = None;
    let whole = "XADD p:s * value {\"plant\":\"a\",\"id\":1,\"v\":1.5,\"note\":null}";
    assert_eq!(sent(&options, Some(&json()), &[], &rows).expect("writes"), [whole, whole]);
    options.key = None;
    assert_eq!(sent(&options, None, &[0], &rows).expect("writes")[0], "XADD p:a * plant a id 1 v 1.5");
}

#[test]
fn a_channel_gets_messages() {
    let options = RedisSink { key: Some("c".into()), ..options(RedisMode::Pubsub) };
    let found = sent(&options, Some(&json()), &[], &batch(&[(1, None, None, 0)])).expect("writes");
    assert_eq!(found, ["PUBLISH p:c {\"plant\":\"a\",\"id\":1,\"v\":null,\"note\":null}"]);
}

#[test]
fn an_entry_without_fields_is_an_error_that_names_the_table() {
    let schema = Schema::new(vec![Field::new("x", DataType::String, true)]);
    let column: ArrayRef = Arc::new(StringArray::from(vec![None::<&str>]));
    let batch = RecordBatch::try_new(schema.to_arrow(), vec![column]).expect("columns match");
    let options = RedisSink { key: Some("s".into()), ..options(RedisMode::Stream) };
    let mut rows = Rows::new(&options, None, &schema, &[], false, "t").expect("no format");
    let prepared = rows.prepare(&batch).expect("types match");
    let error = rows.put(&prepared, 0, &mut Pending::new(false)).expect_err("nothing to write");
    assert!(error.message.contains("table `t`: a row of NULLs only"), "{error}");
}
