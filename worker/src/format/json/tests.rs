//! The decoder against serde_json over random objects and random cuts of the input, and its promises one by one.

use super::JsonDecoder;
use crate::format::decode::{Decoder, Nulled, Stop};
use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::{Array, ArrayRef, RecordBatch};
use ef_proto::connector::{Json, OnError, TimestampFormat};
use ef_proto::schema::{DataType, Field, Schema, Unit};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value, json};

fn decoder(fields: &[(&str, DataType, bool)]) -> JsonDecoder {
    let fields = fields.iter().map(|(name, ty, nullable)| Field::new(*name, ty.clone(), *nullable)).collect();
    JsonDecoder::new(&Schema::new(fields), &Json { on_error: OnError::Skip, timestamps: TimestampFormat::Sql }).unwrap()
}

/// All rows, and the errors as text, with their lines.
fn decode_all(decoder: &mut JsonDecoder, input: &[u8]) -> (RecordBatch, Vec<String>) {
    let (mut at, mut line, mut errors) = (0, 0, Vec::new());
    loop {
        let decoded = decoder.decode(&input[at..], true);
        if let Stop::Bad(error) = &decoded.stop {
            errors.push(format!("{}: {error}", line + error.line + 1));
        }
        at += decoded.consumed;
        line += decoded.lines;
        if let Stop::Input = decoded.stop {
            assert_eq!(at, input.len());
            return (decoder.take().unwrap(), errors);
        }
    }
}

fn one(ty: DataType, text: &str) -> Result<ArrayRef, String> {
    let (batch, errors) = decode_all(&mut decoder(&[("c", ty, true)]), format!("{{\"c\":{text}}}").as_bytes());
    match errors.into_iter().next() {
        Some(error) => Err(error),
        None => Ok(batch.column(0).clone()),
    }
}

/// What an array holds, as JSON; floats as their bits, so that -0.0 and the last digit count.
fn shown(array: &dyn Array, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        arrow_schema::DataType::Boolean => json!(array.as_boolean().value(row)),
        arrow_schema::DataType::Int32 => json!(array.as_primitive::<Int32Type>().value(row)),
        arrow_schema::DataType::Int64 => json!(array.as_primitive::<Int64Type>().value(row)),
        arrow_schema::DataType::Float64 => json!(array.as_primitive::<Float64Type>().value(row).to_bits()),
        arrow_schema::DataType::Utf8 => json!(array.as_string::<i32>().value(row)),
        arrow_schema::DataType::Struct(_) => {
            let array = array.as_struct();
            let fields = array.column_names().into_iter().zip(array.columns());
            Value::Object(fields.map(|(name, column)| (name.to_string(), shown(column, row))).collect())
        }
        arrow_schema::DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            Value::Array((0..items.len()).map(|item| shown(&items, item)).collect())
        }
        arrow_schema::DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let (keys, values) = (entries.column(0).as_string::<i32>().clone(), entries.column(1).clone());
            Value::Object((0..keys.len()).map(|at| (keys.value(at).to_string(), shown(&values, at))).collect())
        }
        other => panic!("no view of {other}"),
    }
}

/// The same view of what serde_json read.
fn wanted(ty: &DataType, value: Option<&Value>) -> Value {
    match (ty, value) {
        (_, None | Some(Value::Null)) => Value::Null,
        (DataType::Float64, Some(value)) => json!(value.as_f64().unwrap().to_bits()),
        (DataType::Row(fields), Some(Value::Object(object))) => {
            Value::Object(fields.iter().map(|f| (f.name.clone(), wanted(&f.ty, object.get(&f.name)))).collect())
        }
        (DataType::Array(item), Some(Value::Array(items))) => {
            Value::Array(items.iter().map(|value| wanted(item, Some(value))).collect())
        }
        (DataType::Map(_, ty), Some(Value::Object(object))) => {
            Value::Object(object.iter().map(|(key, value)| (key.clone(), wanted(ty, Some(value)))).collect())
        }
        (_, Some(value)) => value.clone(),
    }
}

fn string(rng: &mut SmallRng) -> String {
    let alphabet: Vec<char> = "abcxyz 0189\"\\/\u{8}\u{c}\n\r\t\u{1}\u{1f}äß€😀\u{fffd}{}[]:,".chars().collect();
    (0..rng.random_range(0..30)).map(|_| alphabet[rng.random_range(0..alphabet.len())]).collect()
}

/// A value of the type and, now and then, NULL.
fn random(ty: &DataType, rng: &mut SmallRng) -> Value {
    if rng.random_bool(0.1) {
        return Value::Null;
    }
    match ty {
        DataType::Boolean => json!(rng.random::<bool>()),
        DataType::Int32 => json!(rng.random::<i32>() >> rng.random_range(0..31)),
        DataType::Int64 => json!(rng.random::<i64>() >> rng.random_range(0..63)),
        DataType::Float64 => match rng.random_range(0..4) {
            0 => json!(rng.random_range(-2000..3000) as f64 / 10.0),
            1 => json!(f64::from_bits(rng.random::<u64>() & !(0x7ff << 52) | rng.random_range(1..2046u64) << 52)),
            2 => json!(rng.random::<i32>()),
            _ => json!(rng.random::<f64>()),
        },
        DataType::String => json!(string(rng)),
        DataType::Row(fields) => object(fields, rng),
        DataType::Array(item) => (0..rng.random_range(0..4)).map(|_| random(item, rng)).collect(),
        DataType::Map(_, value) => {
            Value::Object((0..rng.random_range(0..20)).map(|_| (string(rng), random(value, rng))).collect())
        }
        other => panic!("no random {other}"),
    }
}

fn anything(rng: &mut SmallRng, depth: u32) -> Value {
    match rng.random_range(0..if depth > 3 { 3 } else { 5 }) {
        0 => json!(rng.random::<f32>()),
        1 => json!(string(rng)),
        2 => Value::Null,
        3 => (0..rng.random_range(0..4)).map(|_| anything(rng, depth + 1)).collect(),
        _ => Value::Object((0..rng.random_range(0..4)).map(|_| (string(rng), anything(rng, depth + 1))).collect()),
    }
}

fn object(fields: &[Field], rng: &mut SmallRng) -> Value {
    let mut map = Map::new();
    for field in fields {
        if rng.random_bool(0.9) {
            map.insert(field.name.clone(), random(&field.ty, rng));
        }
        if rng.random_bool(0.1) {
            map.insert(format!("other {}", rng.random_range(0..5)), anything(rng, 0));
        }
    }
    Value::Object(map)
}

fn schema() -> Vec<Field> {
    let row = DataType::Row(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("inner", DataType::Row(vec![Field::new("s", DataType::String, true)]), true),
        Field::new("long name of a nested field", DataType::Float64, true),
    ]);
    vec![
        Field::new("device_id", DataType::String, true),
        Field::new("b", DataType::Boolean, true),
        Field::new("i", DataType::Int32, true),
        Field::new("big", DataType::Int64, true),
        Field::new("temperature", DataType::Float64, true),
        Field::new("row", row.clone(), true),
        Field::new("rows", DataType::Array(Box::new(row)), true),
        Field::new("map", DataType::Map(Box::new(DataType::String), Box::new(DataType::Float64)), true),
    ]
}

#[test]
fn random_objects_are_read_as_serde_json_reads_them_at_any_cut() {
    for seed in 0..60 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let fields = schema();
        let mut text = String::new();
        let mut rows = Vec::new();
        for _ in 0..rng.random_range(1..120) {
            let row = object(&fields, &mut rng);
            let line = if rng.random_bool(0.2) { format!("{row:#}").replace('\n', " ") } else { row.to_string() };
            text += &line;
            text += ["\n", "\r\n", " \n\n", "\n  \n"][rng.random_range(0..4)];
            // What was written, not what serde_json reads again: it may miss a double by its last bit.
            assert!(serde_json::from_str::<Value>(&line).is_ok());
            rows.push(row);
        }
        let options = Json { on_error: OnError::Fail, timestamps: TimestampFormat::Sql };
        let mut decoder = JsonDecoder::new(&Schema::new(fields.clone()), &options).unwrap();
        let (mut got, mut at, mut end) = (Vec::new(), 0, 0);
        while at < text.len() {
            end = (end.max(at) + rng.random_range(1..400)).min(text.len());
            let decoded = decoder.decode(&text.as_bytes()[at..end], end == text.len());
            assert!(!matches!(decoded.stop, Stop::Bad(_)), "seed {seed}: {:?}", decoded.stop);
            assert_eq!(decoded.lines, text[at..at + decoded.consumed].matches('\n').count() as u64);
            at += decoded.consumed;
            if rng.random_bool(0.1) || at == text.len() {
                let batch = decoder.take().unwrap();
                batch.columns().iter().for_each(|column| column.to_data().validate_full().unwrap());
                for row in 0..batch.num_rows() {
                    let named = fields.iter().zip(batch.columns());
                    got.push(Value::Object(named.map(|(f, c)| (f.name.clone(), shown(c, row))).collect()));
                }
            }
        }
        let root = DataType::Row(fields);
        assert_eq!(got.len(), rows.len());
        for (got, row) in got.iter().zip(&rows) {
            assert_eq!(got, &wanted(&root, Some(row)), "seed {seed}: {row}");
        }
    }
}

#[test]
fn damaged_lines_agree_with_serde_json_and_leave_nothing_behind() {
    for (seed, on_error) in (0..400).flat_map(|seed| [(seed, OnError::Skip), (seed, OnError::Null)]) {
        let mut rng = SmallRng::seed_from_u64(seed);
        let fields = schema();
        let good = |n: usize| format!("{{\"big\":{n},\"rows\":[{{\"id\":{n}}}],\"map\":{{\"k\":1}}}}\n");
        let mut line = object(&fields, &mut rng).to_string().into_bytes();
        for _ in 0..rng.random_range(1..3) {
            let at = rng.random_range(0..line.len());
            match rng.random_range(0..3) {
                0 => line[at] = b"{}[]:,\"\\0-.e \x01\xff1"[rng.random_range(0..16)],
                1 => drop(line.remove(at)),
                _ => line.insert(at, b"{}[]:,\"\\0-.e \x01\xc31"[rng.random_range(0..16)]),
            }
            if line.is_empty() {
                line.push(b'x');
            }
        }
        let blank = line.iter().all(|byte| b" ".contains(byte));
        let input = [good(1).as_bytes(), &line, b"\n", good(2).as_bytes()].concat();
        let mut decoder = decoder(&fields.iter().map(|f| (f.name.as_str(), f.ty.clone(), true)).collect::<Vec<_>>());
        decoder.on_error = on_error;
        let (batch, errors) = decode_all(&mut decoder, &input);
        batch.columns().iter().for_each(|column| column.to_data().validate_full().unwrap());
        // Not JSON is always refused; JSON may still have another type than the column.
        let parsed = serde_json::from_slice::<Map<String, Value>>(&line);
        // serde_json refuses numbers that no double holds, which are JSON all the same, unless something else is wrong.
        let too_large = parsed.as_ref().is_err_and(|error| error.to_string().contains("out of range"));
        if parsed.is_err() && !blank && !(too_large && on_error == OnError::Null) {
            assert_eq!(errors.len(), 1, "seed {seed}: {}", String::from_utf8_lossy(&line));
        } else if on_error == OnError::Null && !too_large {
            assert_eq!(errors.len(), 0, "seed {seed}: {}", String::from_utf8_lossy(&line));
        }
        assert_eq!(batch.num_rows(), 3 - errors.len() - blank as usize, "seed {seed}");
        let last = batch.num_rows() - 1;
        assert_eq!(shown(batch.column_by_name("big").unwrap(), last), json!(2));
        assert_eq!(shown(batch.column_by_name("rows").unwrap(), last)[0]["id"], json!(2));
        assert_eq!(shown(batch.column_by_name("i").unwrap(), last), Value::Null);
    }
}

#[test]
fn numbers_of_any_length_are_the_nearest_double() {
    let mut rng = SmallRng::seed_from_u64(7);
    for _ in 0..20_000 {
        let digits =
            |rng: &mut SmallRng, n: usize| (0..n).map(|_| rng.random_range(b'0'..=b'9') as char).collect::<String>();
        let n = rng.random_range(0..20);
        let mut text = format!("{}{}", rng.random_range(1..10), digits(&mut rng, n));
        if rng.random_bool(0.7) {
            let n = rng.random_range(1..22);
            text += &format!(".{}", digits(&mut rng, n));
        }
        if rng.random_bool(0.2) {
            text += &format!("e{}", rng.random_range(-300..280));
        }
        if rng.random_bool(0.5) {
            text.insert(0, '-');
        }
        let got = one(DataType::Float64, &text).unwrap();
        let got = got.as_primitive::<Float64Type>().value(0);
        assert_eq!(got.to_bits(), text.parse::<f64>().unwrap().to_bits(), "{text}");
        if let Ok(single) = one(DataType::Float32, &text) {
            let single = single.as_primitive::<Float32Type>().value(0);
            assert_eq!(single.to_bits(), text.parse::<f32>().unwrap().to_bits(), "{text}");
        }
    }
}

#[test]
fn timestamps_are_sql_iso_or_epoch_millis() {
    let at = 1_773_471_540_273i64;
    for text in [
        "\"2026-03-14 06:59:00.273\"",
        "\"2026-03-14T06:59:00.273Z\"",
        "\"2026-03-14T07:59:00.273+01:00\"",
        "1773471540273",
        "\"1773471540273\"",
    ] {
        let millis = one(DataType::Timestamp(Unit::Milli), text).unwrap();
        assert_eq!(millis.as_primitive::<TimestampMillisecondType>().value(0), at, "{text}");
        let micros = one(DataType::TimestampLtz(Unit::Micro), text).unwrap();
        assert_eq!(micros.as_primitive::<TimestampMicrosecondType>().value(0), at * 1000, "{text}");
    }
    assert_eq!(
        one(DataType::Timestamp(Unit::Milli), "true").unwrap_err(),
        "1: column \"c\": expected a timestamp, found true"
    );
}

#[test]
fn values_of_other_types_are_taken_where_flink_takes_them() {
    let text = |json: &str| one(DataType::String, json).map(|a| a.as_string::<i32>().value(0).to_string());
    assert_eq!(text("12.50").unwrap(), "12.50");
    assert_eq!(text("true").unwrap(), "true");
    assert_eq!(text(r#"{"a": [1, "x"]}"#).unwrap(), r#"{"a": [1, "x"]}"#);
    assert_eq!(text(r#""\ud83d\ude00\u00e4""#).unwrap(), "😀ä");
    assert!(text(r#""\ud83d""#).is_err());
    assert_eq!(one(DataType::Int32, "\" 12 \"").unwrap().as_primitive::<Int32Type>().value(0), 12);
    assert_eq!(one(DataType::Int32, "1e3").unwrap().as_primitive::<Int32Type>().value(0), 1000);
    assert!(one(DataType::Boolean, "\"True\"").unwrap().as_boolean().value(0));
    for (ty, json) in [
        (DataType::Int32, "2147483648"),
        (DataType::Int8, "-129"),
        (DataType::Int64, "1.5"),
        (DataType::Int64, "01"),
        (DataType::Int64, "\"\""),
        (DataType::Float64, "1e400"),
        (DataType::Float64, "NaN"),
        (DataType::Boolean, "1"),
        (DataType::Bytes, "1234"),
        (DataType::Date, "\"2026-02-30\""),
        (DataType::Row(vec![]), "[]"),
        (DataType::Array(Box::new(DataType::Int32)), "[1,]"),
    ] {
        assert!(one(ty.clone(), json).is_err(), "{ty} {json}");
    }
}

#[test]
fn by_null_a_value_that_does_not_fit_is_null_and_only_what_is_no_record_is_bad() {
    let bid = DataType::Row(vec![
        Field::new("price", DataType::Int32, true),
        Field::new("tags", DataType::Array(Box::new(DataType::Int32)), true),
        Field::new("map", DataType::Map(Box::new(DataType::String), Box::new(DataType::Int64)), true),
        Field::new("must", DataType::Int32, false),
    ]);
    let fields = vec![
        Field::new("i", DataType::Int32, true),
        Field::new("s", DataType::String, true),
        Field::new("bid", bid, true),
        Field::new("id", DataType::Int64, false),
    ];
    let options = Json { on_error: OnError::Null, timestamps: TimestampFormat::Sql };
    let mut decoder = JsonDecoder::new(&Schema::new(fields), &options).unwrap();
    let bid = |value: Value| json!([null, "s", value]);
    let cases = [
        (r#""i":"x","s":"s""#, Some(json!([null, "s", null])), 1),
        (r#""i":99999999999,"s":"\u0073""#, Some(json!([null, "s", null])), 1),
        (r#""i":{"a":[1]},"s":"s","bid":7"#, Some(json!([null, "s", null])), 2),
        (
            r#""s":"s","bid":{"price":1.5,"tags":[1,"x",3],"map":{"a":1,"b":[],"a":{}},"must":2}"#,
            Some(bid(json!({"price": null, "tags": [1, null, 3], "map": {"a": null, "b": null}, "must": 2}))),
            4,
        ),
        // NULL is the innermost field that may be.
        (r#""s":"s","bid":{"price":1,"must":"x"}"#, Some(bid(json!(null))), 1),
        (r#""i":1,"s":"s""#, Some(json!([1, "s", null])), 0),
        (
            r#""s":"s","bid":{"map":{"a":"x","a":1},"must":2}"#,
            Some(bid(json!({"price": null, "tags": null, "map": {"a": 1}, "must": 2}))),
            0,
        ),
        (r#""i":01"#, None, 0),
        (r#""i":"x","s":"not closed"#, None, 0),
        (r#""i":"x" "s":1"#, None, 0),
        (r#""i":"x","id":"y""#, None, 0),
    ];
    for (text, expected, nulled) in cases {
        let line = format!("{{\"id\":7,{text}}}\n");
        let decoded = decoder.decode(line.as_bytes(), true);
        let bad = matches!(decoded.stop, Stop::Bad(_));
        assert_eq!((bad, decoded.nulled.fields), (expected.is_none(), nulled), "{text}: {decoded:?}");
        assert_eq!(decoded.nulled.first.is_some(), nulled > 0);
        decoder.decode(b"{\"i\":5,\"s\":\"next\",\"id\":8}\n", true);
        let batch = decoder.take().unwrap();
        batch.columns().iter().for_each(|column| column.to_data().validate_full().unwrap());
        let row = |row: usize| Value::Array((0..3).map(|column| shown(batch.column(column), row)).collect());
        if let Some(expected) = expected {
            assert_eq!(row(0), expected, "{text}");
        }
        assert_eq!(row(batch.num_rows() - 1), json!([5, "next", null]), "{text}");
    }
    let decoded = decoder.decode(b"{\"id\":1}\n{\"id\":2,\"i\":true}\n{\"id\":3,\"i\":\"\"}\n", true);
    let first = decoded.nulled.first.unwrap();
    assert_eq!((first.line, first.raw.as_str()), (1, "{\"id\":2,\"i\":true}"));
    assert!(first.to_string().starts_with("column \"i\": expected a whole number"), "{first}");
}

#[test]
fn of_equal_keys_the_last_wins() {
    let map = DataType::Map(Box::new(DataType::String), Box::new(DataType::Int32));
    let line = br#"{"a":1,"m":{"x":1,"y":2,"x":3},"a":{"no":1},"a":"2"}"#;
    let mut decoder = decoder(&[("a", DataType::String, true), ("m", map, true)]);
    let (batch, errors) = decode_all(&mut decoder, line);
    assert_eq!(errors, [""; 0]);
    assert_eq!(shown(batch.column(0), 0), json!("2"));
    assert_eq!(shown(batch.column(1), 0), json!({"x": 3, "y": 2}));
    assert_eq!(batch.column(1).as_map().value(0).len(), 2);
}

#[test]
fn a_bad_row_is_told_with_line_and_path() {
    let bid = DataType::Row(vec![Field::new("tags", DataType::Array(Box::new(DataType::Int32)), true)]);
    let mut decoder = decoder(&[("bid", bid, true), ("id", DataType::Int64, false)]);
    let input = b"{\"id\":1}\n\n{\"bid\":{\"tags\":[1,2,\"x\"]},\"id\":2}\n{\"bid\":null}\n{\"id\":null}\n{\"id\":1} x\n[]\n{\"id\":5}";
    let (batch, errors) = decode_all(&mut decoder, input);
    assert_eq!(batch.num_rows(), 2);
    assert_eq!(
        errors,
        [
            "3: column \"bid.tags[2]\": expected a whole number from -2147483648 to 2147483647, found \"x\"",
            "4: column \"id\": missing, and the column is NOT NULL",
            "5: column \"id\": null, and the column is NOT NULL",
            "6: expected a JSON object on a line of its own, found x",
            "7: expected a JSON object on a line of its own, found an array",
        ]
    );
}

#[test]
fn nesting_has_a_limit_and_no_line_can_exhaust_the_stack() {
    let mut decoder = decoder(&[("a", DataType::Int32, true)]);
    for (depth, ok) in [(60, true), (70, false), (100_000, false)] {
        let line = format!("{{\"x\":{}1{},\"a\":1}}", "[".repeat(depth), "]".repeat(depth));
        let (batch, errors) = decode_all(&mut decoder, line.as_bytes());
        assert_eq!((batch.num_rows() == 1, errors.is_empty()), (ok, ok), "{depth}");
    }
}

/// What a message of a broker becomes: its row, or what is wrong.
fn message(text: &str) -> Result<i64, String> {
    let mut decoder = decoder(&[("n", DataType::Int64, false), ("s", DataType::String, true)]);
    let mut nulled = Nulled::default();
    match decoder.decode_record(text.as_bytes(), &mut nulled) {
        Ok(rows) => {
            assert_eq!(rows, 1);
            Ok(decoder.take().unwrap().column(0).as_primitive::<Int64Type>().value(0))
        }
        Err(error) => {
            assert_eq!(decoder.take().unwrap().num_rows(), 0, "a bad message leaves nothing");
            assert_eq!(error.raw, text.strip_suffix('\n').unwrap_or(text));
            Err(error.to_string())
        }
    }
}

#[test]
fn a_message_is_exactly_one_object_over_as_many_lines_as_it_likes() {
    for text in
        ["{\"n\":7}", " \n {\"n\": 7}\r\n\n", "{\n  \"s\" :\n\"x\",\n \"other\": [\n1,\n{}\n],\n  \"n\" :\n 7\n}"]
    {
        assert_eq!(message(text), Ok(7), "{text:?}");
    }
    for (text, expected) in [
        ("", "expected a JSON object, found the end of the message"),
        ("\n", "expected a JSON object, found the end of the message"),
        ("[]", "expected a JSON object, found an array"),
        ("null", "expected a JSON object, found null"),
        ("{\"n\":7}\n{\"n\":8}", "expected nothing behind the JSON object, found an object"),
        ("{\"n\":7} x", "expected nothing behind the JSON object, found x"),
        ("{\"n\":\n7", "found the end of the message"),
        ("{\"n\":7,\n\"s\":\"a\nb\"}", "a string is not closed before the end of the line"),
        ("{\"s\":\n\"x\"}", "column \"n\": missing, and the column is NOT NULL"),
    ] {
        let error = message(text).expect_err(text);
        assert!(error.contains(expected), "{text:?}: {error}");
    }
}

#[test]
fn messages_and_lines_make_the_same_rows() {
    let mut rng = SmallRng::seed_from_u64(7);
    let rows: Vec<String> = (0..500)
        .map(|_| {
            let s: String =
                (0..rng.random_range(0..20)).map(|_| ['a', '"', '\\', 'ö', ' '][rng.random_range(0..5)]).collect();
            json!({"n": rng.random::<i64>(), "s": if rng.random() { json!(s) } else { Value::Null }}).to_string()
        })
        .collect();
    let fields = [("n", DataType::Int64, false), ("s", DataType::String, true)];
    let (lines, errors) = decode_all(&mut decoder(&fields), rows.join("\n").as_bytes());
    assert_eq!(errors, Vec::<String>::new());
    let mut messages = decoder(&fields);
    for row in &rows {
        let value: Value = serde_json::from_str(row).unwrap();
        let text = if rng.random() { serde_json::to_string_pretty(&value).unwrap() } else { row.clone() };
        assert_eq!(messages.decode_record(text.as_bytes(), &mut Nulled::default()), Ok(1));
    }
    assert_eq!(messages.take().unwrap(), lines);
}
