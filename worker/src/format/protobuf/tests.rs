//! Messages against prost-reflect's: as it writes them, two of them behind each other (which must merge), cut and flipped.

use crate::format::decode::{DecodeError, Decoder, Nulled};
use crate::format::decoder;
use crate::format::encode::{encoder, view};
use arrow_array::RecordBatch;
use ef_proto::connector::{Format, Json, OnError, Protobuf, TimestampFormat, protobuf};
use ef_proto::schema::{DataType, Field, Schema, Unit};
use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage, Value as Dynamic,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::collections::HashMap;

const PROTO3: &str = r#"
syntax = "proto3";
package shop.v1;
import "google/protobuf/timestamp.proto";
message Order {
  // Not in the order of their numbers, and with a gap.
  int64 id = 3;
  string name = 1;
  double price = 2;
  optional int32 count = 4;
  bool paid = 5;
  repeated sint64 deltas = 6;
  repeated string tags = 7;
  map<string, int32> stock = 8;
  map<int32, Item> items = 9;
  Item main = 10;
  repeated Item all = 11;
  Color color = 12;
  repeated Color colors = 13;
  bytes raw = 14;
  float ratio = 15;
  uint32 u32 = 16;
  fixed32 f32 = 17;
  sfixed64 sf64 = 18;
  repeated double doubles = 19 [packed = false];
  oneof choice {
    string text = 20;
    int32 number = 21;
    Item item = 22;
    bool not_a_column = 23;
  }
  google.protobuf.Timestamp at = 5000;
  string unread = 30;
  Item unread_item = 31;
  sint32 s32 = 32;
  uint64 u64 = 33;
}
message Item { string sku = 1; int32 n = 2; Item child = 3; repeated int32 sizes = 4; }
enum Color { NONE = 0; RED = 1; GREEN = 2; MINUS = -1; }
"#;

const PROTO2: &str = r#"
syntax = "proto2";
message Old {
  required int32 id = 1;
  optional string name = 2 [default = "no\"name"];
  optional bytes raw = 3 [default = "a\001\xffz"];
  optional Kind kind = 4 [default = BIG];
  optional double ratio = 5 [default = -1.5];
  optional uint32 u = 6 [default = 4000000000];
  optional bool on = 7 [default = true];
  repeated int32 list = 8;
  optional Inner inner = 9;
  message Inner { optional sint32 n = 1 [default = -3]; }
  enum Kind { SMALL = 1; BIG = 2; }
}
"#;

fn descriptor_set(source: &str) -> Vec<u8> {
    struct One(String);
    impl protox::file::FileResolver for One {
        fn open_file(&self, name: &str) -> Result<protox::file::File, protox::Error> {
            match name {
                "one.proto" => protox::file::File::from_source(name, &self.0),
                other => protox::file::GoogleFileResolver::new().open_file(other),
            }
        }
    }
    let mut compiler = protox::Compiler::with_file_resolver(One(source.into()));
    compiler.include_imports(true).include_source_info(true);
    compiler.open_file("one.proto").expect("the test's own source");
    compiler.encode_file_descriptor_set()
}

fn options(source: &str, message: &str) -> Protobuf {
    Protobuf {
        on_error: OnError::Skip,
        message: message.into(),
        descriptor: protobuf::prune(&descriptor_set(source), message).expect("the message is there"),
        read_defaults: false,
        null_string: "nil".into(),
    }
}

fn descriptor(source: &str, message: &str) -> MessageDescriptor {
    let pool = DescriptorPool::decode(descriptor_set(source).as_slice()).expect("a descriptor set");
    pool.get_message_by_name(message).expect("it is there")
}

fn field(name: &str, ty: DataType) -> Field {
    Field::new(name, ty, true)
}

fn array(item: DataType) -> DataType {
    DataType::Array(Box::new(item))
}

fn map(key: DataType, value: DataType) -> DataType {
    DataType::Map(Box::new(key), Box::new(value))
}

/// Not in the order of the message, either.
fn orders() -> Schema {
    let leaf = DataType::Row(vec![field("sizes", array(DataType::Int32)), field("sku", DataType::String)]);
    let item = DataType::Row(vec![
        field("sku", DataType::String),
        field("n", DataType::Int32),
        field("child", leaf),
        field("sizes", array(DataType::Int32)),
    ]);
    Schema::new(vec![
        field("name", DataType::String),
        field("id", DataType::Int64),
        field("price", DataType::Float64),
        field("count", DataType::Int32),
        field("paid", DataType::Boolean),
        field("deltas", array(DataType::Int64)),
        field("tags", array(DataType::String)),
        field("stock", map(DataType::String, DataType::Int32)),
        field("items", map(DataType::Int32, item.clone())),
        field("main", item.clone()),
        field("all", array(item.clone())),
        field("color", DataType::String),
        field("colors", array(DataType::Int32)),
        field("raw", DataType::Bytes),
        field("ratio", DataType::Float32),
        field("u32", DataType::Int64),
        field("f32", DataType::Int64),
        field("sf64", DataType::Int64),
        field("doubles", array(DataType::Float64)),
        field("text", DataType::String),
        field("number", DataType::Int32),
        field("item", item),
        field("at", DataType::Row(vec![field("seconds", DataType::Int64), field("nanos", DataType::Int32)])),
        field("s32", DataType::Int32),
    ])
}

fn old() -> Schema {
    Schema::new(vec![
        field("id", DataType::Int32),
        field("name", DataType::String),
        field("raw", DataType::Bytes),
        field("kind", DataType::String),
        field("ratio", DataType::Float64),
        field("u", DataType::Int64),
        field("on", DataType::Boolean),
        field("list", array(DataType::Int32)),
        field("inner", DataType::Row(vec![field("n", DataType::Int32)])),
    ])
}

fn reader(options: &Protobuf, schema: &Schema) -> Box<dyn Decoder> {
    decoder(&Format::Protobuf(options.clone()), schema).expect("the columns fit")
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

/// A field of the oracle's message, as it is to be read.
fn wanted(message: &DynamicMessage, field: &FieldDescriptor, ty: &DataType) -> Value {
    let value = message.get_field(field);
    let gone =
        if field.is_list() || field.is_map() || field.supports_presence() { !message.has_field(field) } else { false };
    if gone { Value::Null } else { value_of(&value, &field.kind(), ty) }
}

fn row_of(message: &DynamicMessage, fields: &[Field]) -> Value {
    let descriptor = message.descriptor();
    let one = |field: &Field| {
        let found = descriptor.get_field_by_name(&field.name).expect("it is there");
        (field.name.clone(), wanted(message, &found, &field.ty))
    };
    // Through text, as what it is compared with: serde_json reads some numbers off by the last bit.
    let row = Value::Object(fields.iter().map(one).collect());
    serde_json::from_str(&row.to_string()).expect("it is JSON")
}

fn float(value: f64, json: Value) -> Value {
    match value {
        value if value.is_nan() => json!("NaN"),
        value if value.is_infinite() => json!(if value > 0.0 { "Infinity" } else { "-Infinity" }),
        _ => json,
    }
}

fn value_of(value: &Dynamic, kind: &Kind, ty: &DataType) -> Value {
    match (value, ty) {
        (Dynamic::Bool(v), _) => json!(v),
        (Dynamic::I32(v), _) => json!(v),
        (Dynamic::I64(v), _) => json!(v),
        (Dynamic::U32(v), _) => json!(v),
        (Dynamic::U64(v), _) => json!(v),
        // The shortest text of a float is what our JSON has.
        (Dynamic::F32(v), _) => float(f64::from(*v), v.to_string().parse::<f64>().map_or(Value::Null, |v| json!(v))),
        (Dynamic::F64(v), _) => float(*v, json!(v)),
        (Dynamic::String(v), _) => json!(v),
        (Dynamic::Bytes(v), _) => {
            let mut out = Vec::new();
            view::write_base64(&mut out, v);
            json!(String::from_utf8(out).unwrap())
        }
        (Dynamic::EnumNumber(v), DataType::String) => {
            let name = kind.as_enum().and_then(|e| e.get_value(*v).map(|value| value.name().to_owned()));
            json!(name.unwrap_or(v.to_string()))
        }
        (Dynamic::EnumNumber(v), _) => json!(v),
        (Dynamic::Message(message), DataType::Row(fields)) => row_of(message, fields),
        (Dynamic::List(items), DataType::Array(item)) => items.iter().map(|v| value_of(v, kind, item)).collect(),
        (Dynamic::Map(entries), DataType::Map(_, to)) => {
            let key = |key: &MapKey| match key {
                MapKey::String(text) => text.clone(),
                MapKey::I32(number) => number.to_string(),
                other => panic!("no key {other:?} in these tests"),
            };
            let kind = kind.as_message().expect("an entry").map_entry_value_field().kind();
            Value::Object(entries.iter().map(|(k, v)| (key(k), value_of(v, &kind, to))).collect())
        }
        other => panic!("no {other:?} in these tests"),
    }
}

fn text(rng: &mut SmallRng) -> String {
    let most = if rng.random_range(0..20) == 0 { 300 } else { 6 };
    let length = rng.random_range(0..most);
    (0..length).map(|_| ['a', 'é', '\0', '"', '😀', 'z'][rng.random_range(0..6)]).collect()
}

fn whole(rng: &mut SmallRng) -> i64 {
    match rng.random_range(0..4) {
        0 => 0,
        1 => rng.random_range(-3..300),
        2 => [i64::MIN, i64::MAX, i64::from(i32::MIN), 1 << 35][rng.random_range(0..4)],
        _ => rng.random(),
    }
}

fn random_value(rng: &mut SmallRng, kind: &Kind, depth: u32) -> Dynamic {
    match kind {
        Kind::Double => Dynamic::F64([0.0, -0.0, 1.5, f64::NAN, f64::MIN, rng.random()][rng.random_range(0..6)]),
        Kind::Float => Dynamic::F32([0.0, -2.25, f32::INFINITY, rng.random()][rng.random_range(0..4)]),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Dynamic::I32(whole(rng) as i32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Dynamic::I64(whole(rng)),
        Kind::Uint32 | Kind::Fixed32 => Dynamic::U32(whole(rng) as u32),
        Kind::Uint64 | Kind::Fixed64 => Dynamic::U64(whole(rng) as u64),
        Kind::Bool => Dynamic::Bool(rng.random()),
        Kind::String => Dynamic::String(text(rng)),
        Kind::Bytes => Dynamic::Bytes(text(rng).into_bytes().into()),
        Kind::Enum(_) => Dynamic::EnumNumber([0, 1, 2, -1, 77][rng.random_range(0..5)]),
        Kind::Message(message) => Dynamic::Message(random_message(rng, message, depth + 1)),
    }
}

fn random_message(rng: &mut SmallRng, descriptor: &MessageDescriptor, depth: u32) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields() {
        if rng.random_range(0..3) == 0 || (depth > 3 && matches!(field.kind(), Kind::Message(_))) {
            continue;
        }
        let most = if rng.random_range(0..10) == 0 { 30 } else { 4 };
        let few = rng.random_range(0..most);
        let value = if field.is_map() {
            let kind = field.kind();
            let entry = kind.as_message().expect("an entry");
            let mut entries = HashMap::new();
            for _ in 0..few {
                let key = match entry.map_entry_key_field().kind() {
                    Kind::String => MapKey::String(text(rng)),
                    _ => MapKey::I32(rng.random_range(-2..20)),
                };
                entries.insert(key, random_value(rng, &entry.map_entry_value_field().kind(), depth));
            }
            Dynamic::Map(entries)
        } else if field.is_list() {
            Dynamic::List((0..few).map(|_| random_value(rng, &field.kind(), depth)).collect())
        } else {
            random_value(rng, &field.kind(), depth)
        };
        message.set_field(&field, value);
    }
    message
}

#[test]
fn messages_read_as_the_oracle_reads_them_also_when_they_come_in_parts() {
    let (options, schema, descriptor) =
        (options(PROTO3, "shop.v1.Order"), orders(), descriptor(PROTO3, "shop.v1.Order"));
    let mut decoder = reader(&options, &schema);
    let mut expected = Vec::new();
    for seed in 0..3_000 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut bytes = Vec::new();
        // Encodings behind each other are one message.
        for _ in 0..[1, 1, 2, 3][rng.random_range(0..4)] {
            bytes.extend(random_message(&mut rng, &descriptor, 0).encode_to_vec());
        }
        let oracle = DynamicMessage::decode(descriptor.clone(), bytes.as_slice()).expect("it wrote that");
        expected.push((seed, row_of(&oracle, &schema.fields)));
        assert_eq!(read(decoder.as_mut(), &bytes), Ok(1), "seed {seed}");
    }
    let found = shown(&decoder.take().unwrap(), &schema);
    for (found, (seed, expected)) in found.iter().zip(&expected) {
        assert_eq!(found, expected, "seed {seed}");
    }
    assert_eq!(found.len(), expected.len());
}

#[test]
fn what_is_written_reads_back_here_and_in_the_oracle() {
    let (options, schema, descriptor) =
        (options(PROTO3, "shop.v1.Order"), orders(), descriptor(PROTO3, "shop.v1.Order"));
    let mut decoder = reader(&options, &schema);
    for seed in 0..1_000 {
        let mut rng = SmallRng::seed_from_u64(seed);
        assert_eq!(read(decoder.as_mut(), &random_message(&mut rng, &descriptor, 0).encode_to_vec()), Ok(1));
    }
    let batch = decoder.take().unwrap();
    let (mut out, mut ends) = (Vec::new(), Vec::new());
    encoder(&Format::Protobuf(options), &schema, false).unwrap().encode_rows(&batch, &mut out, &mut ends).unwrap();
    let mut start = 0;
    for (row, (end, expected)) in ends.iter().zip(shown(&batch, &schema)).enumerate() {
        assert_eq!(read(decoder.as_mut(), &out[start..*end]), Ok(1), "row {row}");
        let oracle = DynamicMessage::decode(descriptor.clone(), &out[start..*end]).expect("whole messages");
        assert_eq!(row_of(&oracle, &schema.fields), expected, "row {row}");
        start = *end;
    }
    assert_eq!(shown(&decoder.take().unwrap(), &schema), shown(&batch, &schema));
}

#[test]
fn a_field_that_was_not_set_is_null_or_its_default() {
    let schema = old();
    let plain = options(PROTO2, "Old");
    let mut decoder = reader(&plain, &schema);
    assert_eq!(read(decoder.as_mut(), &[]), Ok(1));
    let nulls = shown(&decoder.take().unwrap(), &schema);
    assert!(nulls[0].as_object().unwrap().values().all(Value::is_null), "{nulls:?}");
    let mut decoder = reader(&Protobuf { read_defaults: true, ..plain.clone() }, &schema);
    assert_eq!(read(decoder.as_mut(), &[]), Ok(1));
    let expected = json!({"id": 0, "name": "no\"name", "raw": "YQH/eg==", "kind": "BIG", "ratio": -1.5, "u": 4000000000u64,
        "on": true, "list": [], "inner": {"n": -3}});
    assert_eq!(shown(&decoder.take().unwrap(), &schema), [expected]);
    let required = Schema::new(vec![Field::new("id", DataType::Int32, false)]);
    let error = read(reader(&plain, &required).as_mut(), &[]).unwrap_err();
    assert_eq!(error.to_string(), "column \"id\": missing, and the column is NOT NULL");
    // A plain field of proto3 has always a value.
    let schema = Schema::new(vec![field("id", DataType::Int64), field("count", DataType::Int32)]);
    let mut decoder = reader(&options(PROTO3, "shop.v1.Order"), &schema);
    assert_eq!(read(decoder.as_mut(), &[]), Ok(1));
    assert_eq!(shown(&decoder.take().unwrap(), &schema), [json!({"id": 0, "count": null})]);
}

#[test]
fn timestamps_become_timestamps() {
    let schema = Schema::new(vec![field("at", DataType::TimestampLtz(Unit::Micro))]);
    let options = options(PROTO3, "shop.v1.Order");
    let mut decoder = reader(&options, &schema);
    let descriptor = descriptor(PROTO3, "shop.v1.Order");
    let at = descriptor.get_field_by_name("at").unwrap();
    let message = |seconds: i64, nanos: i32| {
        let mut time = DynamicMessage::new(at.kind().as_message().unwrap().clone());
        time.set_field_by_name("seconds", Dynamic::I64(seconds));
        time.set_field_by_name("nanos", Dynamic::I32(nanos));
        let mut message = DynamicMessage::new(descriptor.clone());
        message.set_field(&at, Dynamic::Message(time));
        message.encode_to_vec()
    };
    for (seconds, nanos) in [(1_773_471_540, 273_000_999), (0, 0), (-1, 999_999_000)] {
        assert_eq!(read(decoder.as_mut(), &message(seconds, nanos)), Ok(1));
    }
    let batch = decoder.take().unwrap();
    let found: Vec<String> = shown(&batch, &schema).iter().map(|row| row["at"].as_str().unwrap().to_owned()).collect();
    assert_eq!(found, ["2026-03-14 06:59:00.273000Z", "1970-01-01 00:00:00.000000Z", "1969-12-31 23:59:59.999999Z"]);
    let (mut out, mut ends) = (Vec::new(), Vec::new());
    encoder(&Format::Protobuf(options), &schema, false).unwrap().encode_rows(&batch, &mut out, &mut ends).unwrap();
    assert_eq!(&out[..ends[0]], message(1_773_471_540, 273_000_000).as_slice());
    let error = read(decoder.as_mut(), &message(0, -1)).unwrap_err();
    assert!(error.to_string().starts_with("column \"at\": 0 s and -1 ns"), "{error}");
}

#[test]
fn bad_messages_are_told_by_field_and_reason() {
    let schema = Schema::new(vec![
        field("name", DataType::String),
        field("deltas", array(DataType::Int8)),
        field("main", DataType::Row(vec![field("sku", DataType::String), field("n", DataType::Int32)])),
        field("u64", DataType::Int64),
        field("stock", map(DataType::String, DataType::Int32)),
    ]);
    let mut decoder = reader(&options(PROTO3, "shop.v1.Order"), &schema);
    for (bytes, says) in [
        (&[0x0a, 5, b'a'][..], "column \"name\": cut off: 5 bytes are announced and 1 are left"),
        (&[0x0a, 2, 0xff, 0xfe], "column \"name\": expected UTF-8: invalid utf-8 sequence"),
        (&[0x08, 1], "column \"name\": expected a span of bytes, found a varint"),
        (&[0x0b], "column \"name\": expected a span of bytes, found a group"),
        (&[0x32, 3, 2, 0x80, 0x02], "column \"deltas[1]\": 128 does not fit TINYINT"),
        (&[0x52, 4, 0x10, 1, 0x0a, 9], "column \"main.sku\": cut off: 9 bytes"),
        (
            &[0x88, 0x02, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            "column \"u64\": 18446744073709551615 does not fit BIGINT",
        ),
        (&[0x42, 2, 0x10, 0x80], "column \"stock.value\": cut off in a varint"),
        (&[0xf3, 1], "column \"#30\": a group, which is not supported"),
        (&[0xf2, 1, 0x80], "column \"#30\": cut off in a varint"),
        (&[0x00], "0 is no number of a field"),
        (&[0x80], "cut off in a varint"),
        (&[0xff; 12], "a varint has more than 10 bytes"),
    ] {
        let error = read(decoder.as_mut(), bytes).expect_err(says);
        assert!(error.to_string().starts_with(says), "{error}, expected {says}");
        assert_eq!(decoder.rows(), 0);
    }
    assert_eq!(read(decoder.as_mut(), &[0x0a, 1, b'x']), Ok(1));
    let rows = shown(&decoder.take().unwrap(), &schema);
    assert_eq!(rows, [json!({"name": "x", "deltas": null, "main": null, "u64": 0, "stock": null})]);
}

#[test]
fn equal_keys_of_a_map_leave_the_last_value() {
    let schema = Schema::new(vec![field("stock", map(DataType::String, DataType::Int32))]);
    for count in [3, 40] {
        let mut decoder = reader(&options(PROTO3, "shop.v1.Order"), &schema);
        let bytes: Vec<u8> = (0..count).flat_map(|n| [0x42, 5, 0x0a, 1, b'a' + n % 2, 0x10, n]).collect();
        assert_eq!(read(decoder.as_mut(), &bytes), Ok(1));
        let batch = decoder.take().unwrap();
        assert_eq!(shown(&batch, &schema), [json!({"stock": {"a": (count - 1) / 2 * 2, "b": count / 2 * 2 - 1}})]);
        assert_eq!(arrow_array::cast::AsArray::as_map(batch.column(0)).keys().len(), 2);
    }
}

#[test]
fn null_in_a_list_of_strings_is_the_literal() {
    let schema = Schema::new(vec![
        field("tags", array(DataType::String)),
        field("stock", map(DataType::String, DataType::Int32)),
    ]);
    let json = Format::Json(Json { on_error: OnError::Fail, timestamps: TimestampFormat::Sql });
    let mut lines = decoder(&json, &schema).unwrap();
    lines.decode(br#"{"tags":["a",null],"stock":{"x":null}}"#, true);
    let options = options(PROTO3, "shop.v1.Order");
    let mut out = Vec::new();
    let batch = lines.take().unwrap();
    encoder(&Format::Protobuf(options.clone()), &schema, false)
        .unwrap()
        .encode_rows(&batch, &mut out, &mut vec![])
        .unwrap();
    let mut decoder = reader(&options, &schema);
    assert_eq!(read(decoder.as_mut(), &out), Ok(1));
    assert_eq!(shown(&decoder.take().unwrap(), &schema), [json!({"tags": ["a", "nil"], "stock": {"x": 0}})]);
}

proptest! {
    /// What we read of a damaged message is what the oracle reads; what we refuse leaves nothing.
    #[test]
    fn damaged_messages_never_panic_and_leave_nothing_half_read(
        seed in 0u64..1_000_000,
        damage in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..4),
        cut in proptest::option::of(any::<u16>()),
        noise in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..80)),
    ) {
        let (options, schema) = (options(PROTO3, "shop.v1.Order"), orders());
        let descriptor = descriptor(PROTO3, "shop.v1.Order");
        let mut bytes = noise.unwrap_or_else(|| {
            random_message(&mut SmallRng::seed_from_u64(seed), &descriptor, 0).encode_to_vec()
        });
        for (at, with) in damage {
            let length = bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(at as usize % length) {
                *byte = with;
            }
        }
        if let Some(cut) = cut {
            bytes.truncate(cut as usize % (bytes.len() + 1));
        }
        let mut decoder = reader(&options, &schema);
        let found = read(decoder.as_mut(), &bytes);
        prop_assert_eq!(decoder.rows(), found.clone().unwrap_or(0));
        if found.is_ok() {
            let oracle = DynamicMessage::decode(descriptor, bytes.as_slice());
            let found = decoder.take().unwrap();
            // It refuses more: of a value that a later one replaces it looks at what is inside, too.
            if let Ok(oracle) = oracle {
                prop_assert_eq!(&shown(&found, &schema)[0], &row_of(&oracle, &schema.fields));
            }
        }
        prop_assert_eq!(read(decoder.as_mut(), &[0x0a, 1, b'x']), Ok(1));
        prop_assert_eq!(&shown(&decoder.take().unwrap(), &schema)[0]["name"], "x");
    }
}
