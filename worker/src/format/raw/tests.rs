//! Values as payloads and back, in both byte orders, as messages and as lines.

use crate::format::decode::{Nulled, Stop};
use crate::format::decoder;
use crate::format::encode::encoder;
use arrow_array::*;
use ef_proto::connector::{Format, OnError, Raw};
use ef_proto::schema::{DataType, Field, Schema};
use std::sync::Arc;

fn raw(big_endian: bool) -> Format {
    Format::Raw(Raw { on_error: OnError::Skip, big_endian })
}

fn table(ty: DataType, nullable: bool) -> Schema {
    Schema::new(vec![Field::new("x", ty, nullable)])
}

/// Every row there and back; the payloads.
fn round(ty: DataType, column: ArrayRef, big_endian: bool) -> Vec<Vec<u8>> {
    let schema = table(ty, true);
    let batch = RecordBatch::try_new(schema.to_arrow(), vec![column]).unwrap();
    let (mut out, mut ends) = (Vec::new(), Vec::new());
    encoder(&raw(big_endian), &schema, false).unwrap().encode_rows(&batch, &mut out, &mut ends).unwrap();
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let payloads: Vec<Vec<u8>> = starts.zip(&ends).map(|(from, to)| out[from..*to].to_vec()).collect();
    let mut decoder = decoder(&raw(big_endian), &schema).unwrap();
    for payload in &payloads {
        assert_eq!(decoder.decode_record(payload, &mut Nulled::default()), Ok(1));
    }
    assert_eq!(decoder.take().unwrap(), batch);
    payloads
}

#[test]
fn every_type_is_its_bytes_in_either_order() {
    let int: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None, Some(-2)]));
    assert_eq!(round(DataType::Int32, int.clone(), true), [&[0, 0, 0, 1][..], &[], &[255, 255, 255, 254]]);
    assert_eq!(round(DataType::Int32, int, false)[0], [1, 0, 0, 0]);
    assert_eq!(round(DataType::Float64, Arc::new(Float64Array::from(vec![1.5])), true), [1.5f64.to_be_bytes()]);
    assert_eq!(round(DataType::Float32, Arc::new(Float32Array::from(vec![1.5])), false), [1.5f32.to_le_bytes()]);
    assert_eq!(round(DataType::Int64, Arc::new(Int64Array::from(vec![i64::MIN])), false), [i64::MIN.to_le_bytes()]);
    assert_eq!(round(DataType::Int16, Arc::new(Int16Array::from(vec![258])), true), [[1, 2]]);
    assert_eq!(round(DataType::Int8, Arc::new(Int8Array::from(vec![-1])), true), [[255]]);
    assert_eq!(round(DataType::Boolean, Arc::new(BooleanArray::from(vec![true, false])), true), [[1], [0]]);
    assert_eq!(round(DataType::String, Arc::new(StringArray::from(vec!["a\nb", ""])), true), [&b"a\nb"[..], b""]);
    assert_eq!(round(DataType::Bytes, Arc::new(BinaryArray::from(vec![&[0, 255][..]])), true), [[0, 255]]);
}

#[test]
fn payloads_of_another_width_are_refused_by_the_column() {
    for (ty, payload, says) in [
        (DataType::Int32, &[1, 2, 3][..], "column \"x\": expected 4 bytes, found 3"),
        (DataType::Int8, &[1, 2], "column \"x\": expected 1 byte, found 2"),
        (DataType::Boolean, &[1, 2], "column \"x\": expected 1 byte, found 2"),
        (DataType::Float64, &[], "column \"x\": expected 8 bytes, found 0"),
        (DataType::String, &[0xff], "column \"x\": expected UTF-8: invalid utf-8 sequence of 1 bytes from index 0"),
    ] {
        let mut decoder = decoder(&raw(true), &table(ty, false)).unwrap();
        let error = decoder.decode_record(payload, &mut Nulled::default()).unwrap_err();
        assert_eq!((error.to_string().as_str(), decoder.rows()), (says, 0));
    }
}

#[test]
fn lines_are_values_and_a_value_with_a_line_end_is_no_line() {
    let schema = table(DataType::String, true);
    let mut decoder = decoder(&raw(true), &schema).unwrap();
    let decoded = decoder.decode(b"a\r\n\nb c\nrest", false);
    assert!(matches!(decoded.stop, Stop::Input));
    assert_eq!((decoded.consumed, decoded.lines, decoder.rows()), (8, 3, 3));
    assert_eq!(decoder.decode(b"rest", true).consumed, 4);
    let batch = decoder.take().unwrap();
    let mut out = Vec::new();
    let mut encoder = encoder(&raw(true), &schema, false).unwrap();
    encoder.encode(&batch, &mut out).unwrap();
    assert_eq!(out, b"a\n\nb c\nrest\n");
    let broken = RecordBatch::try_new(schema.to_arrow(), vec![Arc::new(StringArray::from(vec!["a\nb"]))]).unwrap();
    assert!(encoder.encode(&broken, &mut Vec::new()).unwrap_err().message.contains("column `x` has a line end"));
}
