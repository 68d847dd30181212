//! Datums against arrow-avro's: its own, ours read by it, writers' schemas resolved, cut and flipped.

use super::wire::{write_bytes, write_long};
use super::{RegistryError, SchemaRegistry, schema};
use crate::format::decode::{DecodeError, Decoder, Nulled};
use crate::format::encode::{self, encoder};
use crate::format::{decoder, registered};
use arrow_array::RecordBatch;
use arrow_avro::reader::ReaderBuilder;
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, FingerprintStrategy, SchemaStore};
use arrow_avro::writer::WriterBuilder;
use arrow_avro::writer::format::AvroSoeFormat;
use ef_proto::connector::{self, AvroConfluent, Format, Json, OnError, RegistryAuth, TimestampFormat};
use ef_proto::schema::{DataType, Field, Schema, Unit};
use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::collections::HashMap;

// TIMESTAMP and TIMESTAMP_LTZ differ, as they do for the oracle.
const OPTIONS: connector::Avro = connector::Avro { on_error: OnError::Skip, legacy_timestamps: false };

fn field(name: &str, ty: DataType) -> Field {
    Field::new(name, ty, true)
}

fn array(item: DataType) -> DataType {
    DataType::Array(Box::new(item))
}

fn map(value: DataType) -> DataType {
    DataType::Map(Box::new(DataType::String), Box::new(value))
}

fn columns() -> Schema {
    let row = DataType::Row(vec![
        field("a", DataType::Int32),
        Field::new("b", DataType::String, false),
        field("c", DataType::Row(vec![field("d", array(DataType::Float64))])),
    ]);
    Schema::new(vec![
        field("flag", DataType::Boolean),
        field("i32", DataType::Int32),
        Field::new("i64", DataType::Int64, false),
        field("f32", DataType::Float32),
        field("f64", DataType::Float64),
        field("dec", DataType::Decimal { precision: 20, scale: 3 }),
        field("text", DataType::String),
        field("raw", DataType::Bytes),
        field("day", DataType::Date),
        field("time", DataType::Time),
        field("ts3", DataType::Timestamp(Unit::Milli)),
        field("ts6", DataType::TimestampLtz(Unit::Micro)),
        field("row", row.clone()),
        field("rows", array(row.clone())),
        field("props", map(DataType::Int64)),
        field("deep", map(array(row))),
    ])
}

fn bare(schema: &Schema) -> Box<dyn Decoder> {
    decoder(&Format::Avro(OPTIONS), schema).expect("avro holds that")
}

fn read(decoder: &mut dyn Decoder, payload: &[u8]) -> Result<usize, Box<DecodeError>> {
    decoder.decode_record(payload, &mut Nulled::default())
}

/// Rows as JSON objects.
fn shown(batch: &RecordBatch, schema: &Schema) -> Vec<Value> {
    let json = Format::Json(Json { on_error: OnError::Fail, timestamps: TimestampFormat::Sql });
    let mut out = Vec::new();
    encoder(&json, schema, false).unwrap().encode(batch, &mut out).unwrap();
    String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text(rng: &mut SmallRng) -> String {
    let most = if rng.random_range(0..20) == 0 { 200 } else { 6 };
    let length = rng.random_range(0..most);
    (0..length).map(|_| ['a', 'é', '\0', '"', '😀', 'z'][rng.random_range(0..6)]).collect()
}

/// A value as JSON, of which columns are made.
fn random(rng: &mut SmallRng, ty: &DataType, nullable: bool) -> Value {
    if nullable && rng.random_range(0..4) == 0 {
        return Value::Null;
    }
    let most = if rng.random_range(0..10) == 0 { 20 } else { 3 };
    let few = rng.random_range(0..most);
    match ty {
        DataType::Boolean => json!(rng.random::<bool>()),
        DataType::Int32 => json!([i32::MIN, i32::MAX, 0, rng.random()][rng.random_range(0..4)]),
        DataType::Int64 => json!([i64::MIN, i64::MAX, 0, -1, rng.random()][rng.random_range(0..5)]),
        DataType::Float32 => json!([0.5, -0.25, rng.random::<f32>()][rng.random_range(0..3)]),
        DataType::Float64 => json!([1e300, -0.5, rng.random::<f64>()][rng.random_range(0..3)]),
        DataType::Decimal { .. } => {
            let unscaled: i128 = [0, 127, 128, -128, -129, 99_999_999_999_999_999_999, rng.random::<i64>().into()]
                [rng.random_range(0..7)];
            let mut text = Vec::new();
            encode::view::write_decimal(&mut text, unscaled, 3);
            json!(String::from_utf8(text).unwrap())
        }
        DataType::String => json!(text(rng)),
        DataType::Bytes => json!(["", "AAH/", "YQ=="][rng.random_range(0..3)]),
        DataType::Date => json!(format!("{:04}-03-14", rng.random_range(1700..2300))),
        DataType::Time => json!(format!("{:02}:59:00.{:03}", rng.random_range(0..24), rng.random_range(0..1000))),
        DataType::Timestamp(_) | DataType::TimestampLtz(_) => json!(rng.random_range(-1i64 << 40..1 << 42)),
        DataType::Row(fields) => {
            Value::Object(fields.iter().map(|f| (f.name.clone(), random(rng, &f.ty, f.nullable))).collect())
        }
        DataType::Array(item) => (0..few).map(|_| random(rng, item, true)).collect(),
        DataType::Map(_, value) => Value::Object((0..few).map(|_| (text(rng), random(rng, value, true))).collect()),
        other => panic!("no {other} in these tests"),
    }
}

fn batch(schema: &Schema, rows: impl Iterator<Item = Value>) -> RecordBatch {
    let json = Format::Json(Json { on_error: OnError::Fail, timestamps: TimestampFormat::Sql });
    let mut decoder = decoder(&json, schema).unwrap();
    for row in rows {
        let decoded = decoder.decode(format!("{row}\n").as_bytes(), true);
        assert!(matches!(decoded.stop, crate::format::Stop::Input), "{row}: {decoded:?}");
    }
    decoder.take().unwrap()
}

fn random_batch(schema: &Schema, seeds: std::ops::Range<u64>) -> RecordBatch {
    let row = DataType::Row(schema.fields.clone());
    batch(schema, seeds.map(|seed| random(&mut SmallRng::seed_from_u64(seed), &row, false)))
}

/// Rows as messages.
fn datums(schema: &Schema, batch: &RecordBatch) -> Vec<Vec<u8>> {
    let (mut out, mut ends) = (Vec::new(), Vec::new());
    encoder(&Format::Avro(OPTIONS), schema, false).unwrap().encode_rows(batch, &mut out, &mut ends).unwrap();
    let starts = std::iter::once(0).chain(ends.iter().copied());
    starts.zip(&ends).map(|(start, end)| out[start..*end].to_vec()).collect()
}

#[test]
fn datums_that_are_written_are_read_by_the_oracle_and_here() {
    let schema = columns();
    let batch = random_batch(&schema, 0..800);
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    store.set(Fingerprint::Id(1), AvroSchema::new(schema::derive(&schema, false))).unwrap();
    let mut oracle =
        ReaderBuilder::new().with_batch_size(4_000).with_writer_schema_store(store).build_decoder().unwrap();
    let mut decoder = bare(&schema);
    for (row, datum) in datums(&schema, &batch).iter().enumerate() {
        let message = framed(1, datum);
        assert_eq!(oracle.decode(&message).unwrap_or_else(|e| panic!("row {row}: {e}")), message.len(), "row {row}");
        assert_eq!(read(decoder.as_mut(), datum), Ok(1), "row {row}");
    }
    let expected = shown(&batch, &schema);
    let theirs = shown(&oracle.flush().unwrap().unwrap(), &schema);
    let ours = shown(&decoder.take().unwrap(), &schema);
    assert_eq!((theirs.len(), ours.len()), (expected.len(), expected.len()));
    for (row, expected) in expected.iter().enumerate() {
        assert_eq!((&theirs[row], &ours[row]), (expected, expected), "row {row}");
    }
}

#[test]
fn datums_of_the_oracle_are_read() {
    let schema = columns();
    let batch = random_batch(&schema, 5_000..5_800);
    let text = schema::derive(&schema, false);
    let metadata = HashMap::from([("avro.schema".to_string(), text.clone())]);
    let arrow = batch.schema().as_ref().clone().with_metadata(metadata);
    let mut writer = WriterBuilder::new(arrow.clone())
        .with_fingerprint_strategy(FingerprintStrategy::Id(9))
        .build_encoder::<AvroSoeFormat>()
        .unwrap();
    writer.encode(&RecordBatch::try_new(arrow.into(), batch.columns().to_vec()).unwrap()).unwrap();
    let (mut decoder, asked) = of_registry(&schema, &[(9, &text)]);
    for (row, message) in writer.flush().iter().enumerate() {
        assert_eq!(read(decoder.as_mut(), &message), Ok(1), "row {row}");
    }
    assert_eq!(shown(&decoder.take().unwrap(), &schema), shown(&batch, &schema));
    assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 1, "an id is asked for once");
}

#[test]
fn the_derived_schema_is_flinks() {
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        field("ts", DataType::Timestamp(Unit::Milli)),
        field("r", DataType::Row(vec![field("d", DataType::Decimal { precision: 5, scale: 2 })])),
    ]);
    let found: Value = serde_json::from_str(&schema::derive(&schema, true)).unwrap();
    let decimal = json!({"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2});
    let nested = json!({"type": "record", "name": "record_r", "namespace": "org.apache.flink.avro.generated",
        "fields": [{"name": "d", "type": ["null", decimal], "default": null}]});
    let fields = json!([
        {"name": "id", "type": "long"},
        {"name": "ts", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}], "default": null},
        {"name": "r", "type": ["null", nested], "default": null},
    ]);
    assert_eq!(
        found,
        json!({"type": "record", "name": "record", "namespace": "org.apache.flink.avro.generated", "fields": fields})
    );
    assert!(schema::derive(&schema, false).contains("local-timestamp-millis"));
}

/// A registry in memory, which counts what it is asked.
struct Memory {
    schemas: HashMap<u32, String>,
    asked: std::sync::Arc<std::sync::atomic::AtomicU32>,
}

impl SchemaRegistry for Memory {
    fn schema(&mut self, id: u32) -> Result<String, RegistryError> {
        self.asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        match self.schemas.get(&id) {
            Some(schema) => Ok(schema.clone()),
            None if id == 500 => Err(RegistryError::Unavailable("connection refused".into())),
            None => Err(RegistryError::Refused("there is none".into())),
        }
    }

    fn register(&mut self, _: &str, _: &str) -> Result<u32, RegistryError> {
        Ok(7)
    }
}

fn of_registry(
    schema: &Schema,
    schemas: &[(u32, &str)],
) -> (Box<dyn Decoder>, std::sync::Arc<std::sync::atomic::AtomicU32>) {
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let schemas = schemas.iter().map(|(id, schema)| (*id, schema.to_string())).collect();
    let url = "http://registry:8081".to_string();
    let options = AvroConfluent { avro: OPTIONS, url, subject: None, auth: RegistryAuth::None };
    (registered(&options, schema, Box::new(Memory { schemas, asked: asked.clone() })).unwrap(), asked)
}

fn framed(id: u32, datum: &[u8]) -> Vec<u8> {
    [&[0][..], &id.to_be_bytes(), datum].concat()
}

const WRITER: &str = r#"{"type": "record", "name": "Reading", "namespace": "plant", "doc": "as a device writes it", "fields": [
    {"name": "skipped", "type": {"type": "record", "name": "Tree", "fields": [
        {"name": "label", "type": "string"}, {"name": "left", "type": ["null", "Tree"]}, {"name": "all", "type": {"type": "array", "items": "plant.Tree"}}]}},
    {"name": "v", "type": ["null", "float"], "default": null},
    {"name": "id", "type": "int"},
    {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["OFF", "ON"]}},
    {"name": "hash", "type": {"type": "fixed", "name": "Hash", "size": 2}},
    {"name": "gone", "type": {"type": "map", "values": ["null", "long", "State"]}},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "price", "type": [{"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 1}, "null"]},
    {"name": "either", "type": ["string", "long"]}
]}"#;

#[test]
fn a_writers_schema_is_resolved_by_the_names_of_its_fields() {
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        field("new", DataType::String),
        field("v", DataType::Float64),
        field("state", DataType::String),
        field("hash", DataType::Bytes),
        field("at", DataType::TimestampLtz(Unit::Milli)),
        field("price", DataType::Decimal { precision: 10, scale: 3 }),
        field("either", DataType::String),
    ]);
    fn tree(out: &mut Vec<u8>, label: &str, left: bool, all: usize) {
        write_bytes(out, label.as_bytes());
        write_long(out, left as i64);
        if left {
            tree(out, "leaf", false, 0);
        }
        // As a block that tells its bytes, which nobody checks.
        if all > 0 {
            write_long(out, -(all as i64));
            write_long(out, 99);
            (0..all).for_each(|_| tree(out, "leaf", false, 0));
        }
        out.push(0);
    }
    let datum = |either: (i64, &dyn Fn(&mut Vec<u8>))| {
        let mut out = Vec::new();
        tree(&mut out, "root", true, 2);
        write_long(&mut out, 1);
        out.extend(1.5f32.to_le_bytes());
        write_long(&mut out, -7);
        write_long(&mut out, 1);
        out.extend([1, 2]);
        // One entry, `k`, a long.
        write_long(&mut out, 1);
        write_bytes(&mut out, b"k");
        write_long(&mut out, 1);
        write_long(&mut out, 5);
        out.push(0);
        write_long(&mut out, -1);
        write_long(&mut out, 0);
        write_bytes(&mut out, &[0xff, 0x85]);
        write_long(&mut out, either.0);
        either.1(&mut out);
        out
    };
    let good = framed(9, &datum((0, &|out| write_bytes(out, b"x"))));
    let (mut decoder, asked) = of_registry(&schema, &[(9, WRITER)]);
    assert_eq!(read(decoder.as_mut(), &good), Ok(1));
    let error = read(decoder.as_mut(), &framed(9, &datum((1, &|out| write_long(out, 5))))).unwrap_err();
    assert_eq!(error.to_string(), "column \"either\": a long cannot be in a column of STRING");
    assert_eq!(read(decoder.as_mut(), &good), Ok(1));
    let expected = json!({"id": -7, "new": null, "v": 1.5, "state": "ON", "hash": "AQI=",
        "at": "1969-12-31 23:59:59.999Z", "price": -12.3, "either": "x"});
    let found = shown(&decoder.take().unwrap(), &schema);
    assert_eq!(found[0]["price"].to_string(), "-12.3");
    assert_eq!(found, [expected.clone(), expected]);
    assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 1, "an id is asked for once");
}

#[test]
fn messages_that_do_not_resolve_say_which_schema_of_which_registry() {
    let schema = Schema::new(vec![field("id", DataType::Int32), Field::new("must", DataType::String, false)]);
    let record = |fields: &str| format!(r#"{{"type":"record","name":"r","fields":[{fields}]}}"#);
    let (long, less, good) = (
        record(r#"{"name":"id","type":"long"},{"name":"must","type":"string"}"#),
        record(r#"{"name":"id","type":"int"}"#),
        record(r#"{"name":"id","type":"int"},{"name":"must","type":"string"}"#),
    );
    let (mut decoder, _) = of_registry(
        &schema,
        &[
            (1, &long),
            (2, &less),
            (3, r#""string""#),
            (4, "{"),
            (5, r#"{"type":"record","name":"r","fields":[{"name":"id","type":"x"}]}"#),
            (6, &good),
        ],
    );
    for (payload, says) in [
        (
            framed(1, &[2, 0]),
            "schema 1 of registry http://registry:8081: field 'id': a long cannot be in a column of INT",
        ),
        (
            framed(2, &[2]),
            "schema 2 of registry http://registry:8081: column `must` is NOT NULL, and the writer's schema has no such field",
        ),
        (framed(3, &[0]), "schema 3 of registry http://registry:8081: the schema is of a string, expected a record"),
        (framed(4, &[0]), "schema 4 of registry http://registry:8081: the schema is no JSON"),
        (framed(5, &[0]), "schema 5 of registry http://registry:8081: field 'id': the schema has no type 'x'"),
        (framed(8, &[0]), "schema 8 of registry http://registry:8081: there is none"),
        (framed(6, &[2, 4, b'a']), "column \"must\": cut off: 2 bytes are announced and 1 are left"),
        (framed(6, &[2, 2, b'a', 0]), "1 bytes are left behind the record"),
        (framed(6, &[2, 1]), "column \"must\": a length of -1"),
        (framed(6, &[0xff, 0xff, 0xff, 0xff, 0x7f, 0]), "column \"id\": -17179869184 is no int"),
        (vec![], "empty, expected a byte 0 and the id of a schema"),
        (vec![0, 0, 0], "cut off in the id of its schema"),
        (b"{\"id\":1}".to_vec(), "it begins with a byte 123, expected 0 and the id of a schema"),
    ] {
        let error = read(decoder.as_mut(), &payload).expect_err(says);
        assert!(error.to_string().starts_with(says) && !error.fatal, "{error}, expected {says}");
        assert_eq!(decoder.rows(), 0);
    }
    let error = read(decoder.as_mut(), &framed(500, &[0])).unwrap_err();
    assert!(error.fatal && error.to_string().contains("connection refused"), "no message is to blame: {error}");
    assert_eq!(read(decoder.as_mut(), &framed(6, &[2, 2, b'a'])), Ok(1));
    assert_eq!(shown(&decoder.take().unwrap(), &schema), [json!({"id": 1, "must": "a"})]);
}

#[test]
fn an_int_is_a_small_number_where_it_fits() {
    let schema = Schema::new(vec![field("i8", DataType::Int8), field("i16", DataType::Int16)]);
    let mut decoder = bare(&schema);
    let batch = batch(&schema, [json!({"i8": -128, "i16": 32767}), json!({"i8": null, "i16": -1})].into_iter());
    for datum in datums(&schema, &batch) {
        assert_eq!(read(decoder.as_mut(), &datum), Ok(1));
    }
    assert_eq!(decoder.take().unwrap(), batch);
    let error = read(decoder.as_mut(), &[2, 0x80, 2, 0]).unwrap_err();
    assert_eq!(error.to_string(), "column \"i8\": 128 does not fit TINYINT");
}

#[test]
fn what_is_registered_is_written_behind_its_id() {
    let schema = Schema::new(vec![Field::new("id", DataType::Int32, false)]);
    let mut lines =
        decoder(&Format::Json(Json { on_error: OnError::Fail, timestamps: TimestampFormat::Sql }), &schema).unwrap();
    lines.decode(b"{\"id\":1}\n{\"id\":-1}\n", true);
    let (mut out, mut ends) = (Vec::new(), Vec::new());
    encode::registered(&schema, 258).encode_rows(&lines.take().unwrap(), &mut out, &mut ends).unwrap();
    assert_eq!((out, ends), (vec![0, 0, 0, 1, 2, 2, 0, 0, 0, 1, 2, 1], vec![6, 12]));
}

#[test]
fn equal_keys_of_a_map_leave_the_last_value() {
    let schema = Schema::new(vec![Field::new("m", map(DataType::Int64), false)]);
    for count in [3u8, 40] {
        let entries = (0..count).flat_map(|n| [2, b'a' + n % 2, 2, 2 * n]);
        let datum: Vec<u8> = [2 * count].into_iter().chain(entries).chain([0]).collect();
        let mut decoder = bare(&schema);
        assert_eq!(read(decoder.as_mut(), &datum), Ok(1));
        let batch = decoder.take().unwrap();
        assert_eq!(shown(&batch, &schema), [json!({"m": {"a": (count - 1) / 2 * 2, "b": count / 2 * 2 - 1}})]);
        assert_eq!(arrow_array::cast::AsArray::as_map(batch.column(0)).keys().len(), 2);
    }
}

#[test]
fn items_that_take_no_bytes_are_not_believed_by_the_billion() {
    let writer = r#"{"type":"record","name":"r","fields":[{"name":"n","type":{"type":"array","items":"null"}},{"name":"m","type":{"type":"array","items":"null"}}]}"#;
    let schema = Schema::new(vec![field("n", array(DataType::Int64))]);
    let (mut decoder, _) = of_registry(&schema, &[(1, writer)]);
    let mut billion = Vec::new();
    super::wire::write_long(&mut billion, 1 << 40);
    for datum in [[&billion[..], &[0, 0]].concat(), [&[0][..], &billion, &[0]].concat()] {
        let error = read(decoder.as_mut(), &framed(1, &datum)).unwrap_err();
        assert!(error.reason.contains("1099511627776 items are announced"), "{error}");
    }
    assert_eq!(read(decoder.as_mut(), &framed(1, &[4, 0, 0])), Ok(1));
    assert_eq!(shown(&decoder.take().unwrap(), &schema), [json!({"n": [null, null]})]);
}

proptest! {
    #[test]
    fn damaged_datums_never_panic_and_leave_nothing_half_read(
        seed in 0u64..1 << 60,
        damage in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..4),
        cut in proptest::option::of(any::<u16>()),
        noise in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..80)),
    ) {
        let schema = columns();
        let batch = random_batch(&schema, seed..seed + 1);
        let good = datums(&schema, &batch).remove(0);
        let mut bytes = noise.unwrap_or_else(|| good.clone());
        for (at, with) in damage {
            let length = bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(at as usize % length) {
                *byte = with;
            }
        }
        if let Some(cut) = cut {
            bytes.truncate(cut as usize % (bytes.len() + 1));
        }
        let mut decoder = bare(&schema);
        let found = read(decoder.as_mut(), &bytes);
        prop_assert_eq!(decoder.rows(), found.clone().unwrap_or(0));
        prop_assert_eq!(read(decoder.as_mut(), &good), Ok(1));
        let rows = shown(&decoder.take().unwrap(), &schema);
        prop_assert_eq!(rows.last().unwrap(), &shown(&batch, &schema)[0]);
    }

    /// Of a writer's schema that holds itself, too.
    #[test]
    fn damaged_datums_of_a_writer_are_passed_over_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let schema = Schema::new(vec![field("either", DataType::String), field("price", DataType::Decimal { precision: 10, scale: 3 })]);
        let (mut decoder, _) = of_registry(&schema, &[(1, WRITER)]);
        let found = read(decoder.as_mut(), &framed(1, &bytes));
        prop_assert_eq!(decoder.rows(), found.unwrap_or(0));
    }
}
