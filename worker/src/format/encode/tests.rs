//! Encoded lines read back, by serde_json, as what the arrays hold.

use super::*;
use arrow_array::types::Int32Type;
use arrow_array::*;
use arrow_buffer::NullBuffer;
use ef_proto::connector::{Csv, Json, OnError, TimestampFormat};
use ef_proto::schema::{DataType, Field, Unit};
use serde_json::{Value, json};
use std::sync::Arc;

fn text(format: &Format, fields: Vec<Field>, columns: Vec<ArrayRef>, changelog: bool) -> String {
    let schema = Schema::new(fields);
    let arrow = if changelog { schema.with_op() } else { schema.clone() }.to_arrow();
    let batch = RecordBatch::try_new(arrow, columns).expect("columns match the schema");
    let mut encoder = encoder(format, &schema, changelog).expect("a format with an encoder");
    let mut out = Vec::new();
    encoder.header(&mut out);
    encoder.encode(&batch, &mut out).expect("encodes");
    String::from_utf8(out).expect("text")
}

fn json(timestamps: TimestampFormat) -> Format {
    Format::Json(Json { on_error: OnError::Fail, timestamps })
}

fn csv() -> Csv {
    Csv {
        on_error: OnError::Fail,
        delimiter: b',',
        quote: Some(b'"'),
        escape: None,
        null_literal: None,
        comments: false,
        header: false,
    }
}

fn field(name: &str, ty: DataType) -> Field {
    Field::new(name, ty, true)
}

#[test]
fn every_type_reads_back_from_json() {
    let row_type = vec![field("a", DataType::Int32), field("b", DataType::String)];
    let row = StructArray::new(
        match DataType::Row(row_type.clone()).to_arrow() {
            arrow_schema::DataType::Struct(fields) => fields,
            _ => panic!("rows are structs"),
        },
        vec![Arc::new(Int32Array::from(vec![Some(1), None])), Arc::new(StringArray::from(vec![Some("x"), None]))],
        Some(NullBuffer::from(vec![true, false])),
    );
    let list_type = DataType::Array(Box::new(DataType::Int32));
    let list =
        ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), None, Some(-3)]), Some(vec![])]);
    let arrow_schema::DataType::List(item) = list_type.to_arrow() else { panic!("arrays are lists") };
    let (_, offsets, values, nulls) = list.into_parts();
    let list = ListArray::new(item, offsets, values, nulls);
    let fields = vec![
        field("bool", DataType::Boolean),
        field("i8", DataType::Int8),
        field("i64", DataType::Int64),
        field("f32", DataType::Float32),
        field("f64", DataType::Float64),
        field("dec", DataType::Decimal { precision: 38, scale: 3 }),
        field("s", DataType::String),
        field("b", DataType::Bytes),
        field("d", DataType::Date),
        field("t", DataType::Time),
        field("ts3", DataType::Timestamp(Unit::Milli)),
        field("ts6", DataType::Timestamp(Unit::Micro)),
        field("ltz", DataType::TimestampLtz(Unit::Milli)),
        field("row", DataType::Row(row_type)),
        field("list", list_type),
    ];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(BooleanArray::from(vec![Some(true), None])),
        Arc::new(Int8Array::from(vec![Some(-128), Some(127)])),
        Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(i64::MAX)])),
        Arc::new(Float32Array::from(vec![Some(0.1), Some(f32::NAN)])),
        Arc::new(Float64Array::from(vec![Some(1.0), Some(f64::NEG_INFINITY)])),
        Arc::new(
            Decimal128Array::from(vec![Some(-5), Some(12_345_678_901_234_567_890_123_456_789)])
                .with_precision_and_scale(38, 3)
                .expect("fits"),
        ),
        Arc::new(StringArray::from(vec![Some("a\"b\\c\n\u{1}é"), Some("")])),
        Arc::new(BinaryArray::from(vec![Some(&b"\xff\x00a"[..]), Some(b"ab")])),
        Arc::new(Date32Array::from(vec![Some(20_526), Some(-1)])),
        Arc::new(Time32MillisecondArray::from(vec![Some(3_661_000), Some(1)])),
        Arc::new(TimestampMillisecondArray::from(vec![Some(1_773_471_540_000), Some(-1)])),
        Arc::new(TimestampMicrosecondArray::from(vec![Some(1_773_471_540_000_270), Some(0)])),
        Arc::new(TimestampMillisecondArray::from(vec![Some(1_773_471_540_273), None]).with_timezone("UTC")),
        Arc::new(row),
        Arc::new(list),
    ];
    let out = text(&json(TimestampFormat::Sql), fields.clone(), columns.clone(), false);
    let lines: Vec<&str> = out.lines().collect();
    let rows: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).expect("json")).collect();
    assert!(lines[0].contains(r#""f64":1.0,"#) && lines[0].contains(r#""dec":-0.005,"#), "{}", lines[0]);
    assert!(lines[1].contains(r#""dec":12345678901234567890123456.789,"#), "{}", lines[1]);
    let mut first = rows[0].clone();
    assert!((first["f32"].take().as_f64().expect("number") - 0.1).abs() < 1e-12, "shortest text of the float");
    first["dec"].take();
    assert_eq!(
        first,
        json!({"bool": true, "i8": -128, "i64": i64::MIN, "f32": null, "f64": 1.0, "dec": null, "s": "a\"b\\c\n\u{1}é",
            "b": "/wBh", "d": "2026-03-14", "t": "01:01:01", "ts3": "2026-03-14 06:59:00.000",
            "ts6": "2026-03-14 06:59:00.000270", "ltz": "2026-03-14 06:59:00.273Z", "row": {"a": 1, "b": "x"},
            "list": [1, null, -3]})
    );
    assert_eq!(rows[1]["f32"], "NaN");
    assert_eq!(rows[1]["f64"], "-Infinity");
    assert_eq!((&rows[1]["row"], &rows[1]["list"], &rows[1]["bool"]), (&Value::Null, &json!([]), &Value::Null));
    assert_eq!(
        (&rows[1]["b"], &rows[1]["d"], &rows[1]["t"]),
        (&json!("YWI="), &json!("1969-12-31"), &json!("00:00:00.001"))
    );
    let iso = text(&json(TimestampFormat::Iso8601), fields, columns, false);
    assert!(
        iso.contains(r#""ts3":"2026-03-14T06:59:00.000","#) && iso.contains(r#""ltz":"2026-03-14T06:59:00.273Z","#)
    );
}

#[test]
fn maps_have_string_keys() {
    let mut builder = builder::MapBuilder::new(None, builder::Int64Builder::new(), builder::StringBuilder::new());
    builder.keys().append_value(7);
    builder.values().append_value("seven");
    builder.keys().append_value(8);
    builder.values().append_null();
    builder.append(true).expect("as many keys as values");
    let (_, offsets, entries, nulls, _) = builder.finish().into_parts();
    let ty = DataType::Map(Box::new(DataType::Int64), Box::new(DataType::String));
    let arrow_schema::DataType::Map(field_of_entries, sorted) = ty.to_arrow() else { panic!("maps are maps") };
    let arrow_schema::DataType::Struct(kv) = field_of_entries.data_type() else { panic!("entries are structs") };
    let entries = StructArray::new(kv.clone(), entries.columns().to_vec(), None);
    let map = MapArray::new(field_of_entries.clone(), offsets, entries, nulls, sorted);
    let out = text(&json(TimestampFormat::Sql), vec![field("m", ty)], vec![Arc::new(map)], false);
    assert_eq!(out, "{\"m\":{\"7\":\"seven\",\"8\":null}}\n");
}

#[test]
fn changelog_rows_carry_their_kind() {
    let format = Format::ChangelogJson(Json { on_error: OnError::Fail, timestamps: TimestampFormat::Sql });
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 1, 2]));
    let ops: ArrayRef = Arc::new(Int8Array::from(vec![1, 2, 3]));
    let out = text(&format, vec![field("id", DataType::Int64)], vec![ids.clone(), ops], true);
    assert_eq!(
        out,
        "{\"op\":\"-U\",\"data\":{\"id\":1}}\n{\"op\":\"+U\",\"data\":{\"id\":1}}\n{\"op\":\"-D\",\"data\":{\"id\":2}}\n"
    );
    assert!(text(&format, vec![field("id", DataType::Int64)], vec![ids], false).starts_with("{\"op\":\"+I\","));
}

#[test]
fn csv_quotes_what_would_not_read_back() {
    let strings: ArrayRef = Arc::new(StringArray::from(vec![
        Some("plain"),
        Some("a,b"),
        Some("say \"hi\""),
        Some(""),
        None,
        Some("n/a"),
        Some("two\nlines"),
        Some(" x"),
    ]));
    let numbers: ArrayRef =
        Arc::new(Int32Array::from(vec![Some(1), None, Some(3), Some(4), Some(5), Some(6), Some(7), Some(8)]));
    let fields = vec![field("s", DataType::String), field("n", DataType::Int32)];
    let options = Csv { null_literal: Some("n/a".into()), header: true, ..csv() };
    let out = text(&Format::Csv(options), fields.clone(), vec![strings.clone(), numbers.clone()], false);
    assert_eq!(
        out,
        "s,n\nplain,1\n\"a,b\",n/a\n\"say \"\"hi\"\"\",3\n\"\",4\nn/a,5\n\"n/a\",6\n\"two\nlines\",7\n\" x\",8\n"
    );
    let escaped = Csv { escape: Some(b'\\'), delimiter: b';', ..csv() };
    let out = text(&Format::Csv(escaped), fields.clone(), vec![strings.clone(), numbers.clone()], false);
    assert!(out.contains("\"say \\\"hi\\\"\";3\n") && out.contains("a,b;\n"), "{out}");
    let schema = Schema::new(fields);
    let batch = RecordBatch::try_new(schema.to_arrow(), vec![strings, numbers]).expect("columns match");
    let bare = Format::Csv(Csv { quote: None, ..csv() });
    let mut bare = encoder(&bare, &schema, false).expect("a format with an encoder");
    let error = bare.encode(&batch, &mut Vec::new()).expect_err("a delimiter in a value");
    assert!(error.message.contains("column `s` needs quotes"), "{error}");
}

#[test]
fn rows_of_messages_end_where_they_are_said_to_and_carry_no_line_end() {
    let fields = vec![field("id", DataType::Int64), field("s", DataType::String)];
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a\nb"), None, Some("")]));
    let schema = Schema::new(fields);
    let batch = RecordBatch::try_new(schema.to_arrow(), vec![ids, texts]).expect("columns match");
    let changelog = Format::ChangelogJson(Json { on_error: OnError::Fail, timestamps: TimestampFormat::Sql });
    let expected: [(Format, [&str; 3]); 3] = [
        (json(TimestampFormat::Sql), [r#"{"id":1,"s":"a\nb"}"#, r#"{"id":2,"s":null}"#, r#"{"id":3,"s":""}"#]),
        (Format::Csv(csv()), ["1,\"a\nb\"", "2,", "3,\"\""]),
        (
            changelog,
            [
                r#"{"op":"+I","data":{"id":1,"s":"a\nb"}}"#,
                r#"{"op":"+I","data":{"id":2,"s":null}}"#,
                r#"{"op":"+I","data":{"id":3,"s":""}}"#,
            ],
        ),
    ];
    for (format, expected) in expected {
        let mut encoder = encoder(&format, &schema, false).expect("a format with an encoder");
        let (mut out, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            encoder.encode_rows(&batch, &mut out, &mut ends).expect("encodes");
        }
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let rows: Vec<&str> =
            starts.zip(&ends).map(|(from, to)| std::str::from_utf8(&out[from..*to]).expect("text")).collect();
        assert_eq!(rows, [expected, expected].concat());
    }
}
