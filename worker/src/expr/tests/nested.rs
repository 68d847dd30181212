//! Maps, and what lies hidden in nested columns: under a NULL row or list, or outside of a slice.

use super::*;
use arrow_array::builder::{MapBuilder, MapFieldNames, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ListArray, StructArray};
use arrow_buffer::NullBuffer;
use std::sync::Arc;

fn map_type() -> DataType {
    DataType::Map(Box::new(DataType::String), Box::new(DataType::String))
}

/// A map a row; None is a NULL map.
fn maps(rows: &[Option<&[(&str, Option<&str>)]>]) -> ArrayRef {
    let names = MapFieldNames { entry: "entries".into(), key: "key".into(), value: "value".into() };
    let mut builder = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
    for row in rows {
        for (key, value) in row.unwrap_or_default() {
            builder.keys().append_value(key);
            builder.values().append_option(*value);
        }
        builder.append(row.is_some()).unwrap();
    }
    Arc::new(builder.finish())
}

/// The text of every row of `expr` over one column of the type.
fn over(ty: &DataType, values: &ArrayRef, expr: &Expr) -> Result<Vec<String>> {
    let (schema, rows) = batch(vec![(ty, values.clone())]);
    Ok(shown(&evaluate(expr, &schema, &rows)?, &expr.ty))
}

fn cast(from: &DataType, to: DataType, safe: bool) -> Expr {
    Expr { kind: ExprKind::Cast { input: Box::new(Expr::column(0, from.clone())), safe }, ty: to }
}

const ROWS: &[Option<&[(&str, Option<&str>)]>] = &[
    Some(&[("a", Some("x"))]),
    Some(&[("1", Some("10")), ("2", None)]),
    None,
    Some(&[]),
    Some(&[("2", Some("20")), ("1", Some("11"))]),
];

#[test]
fn a_value_of_a_map_is_found_by_its_key() {
    let element = |key: Expr| call(Builtin::ElementAt, vec![Expr::column(0, map_type()), key]);
    let rows = maps(ROWS);
    for (key, expected) in [
        (text("1"), ["NULL", "10", "NULL", "NULL", "11"]),
        (text("2"), ["NULL", "NULL", "NULL", "NULL", "20"]),
        (text(""), ["NULL"; 5]),
        (null(DataType::String), ["NULL"; 5]),
    ] {
        let expr = element(key);
        assert_eq!(over(&map_type(), &rows, &expr).unwrap(), expected, "{expr}");
        for start in 0..5 {
            let cut = rows.slice(start, 5 - start);
            assert_eq!(over(&map_type(), &cut, &expr).unwrap(), &expected[start..], "{expr} from row {start}");
        }
    }
    let keys = column(&DataType::String, &["a", "2", "1", "1", "1"].map(|key| Scalar::String(key.into())));
    let (schema, both) = batch(vec![(&map_type(), rows), (&DataType::String, keys)]);
    let found = evaluate(&element(Expr::column(1, DataType::String)), &schema, &both).unwrap();
    assert_eq!(shown(&found, &DataType::String), ["x", "NULL", "NULL", "NULL", "11"]);
}

#[test]
fn a_map_casts_key_by_key_and_value_by_value() {
    let numbers = DataType::Map(Box::new(DataType::Int32), Box::new(DataType::Float64));
    let rows = maps(ROWS).slice(1, 4);
    let to_numbers = cast(&map_type(), numbers, false);
    let expected = ["{1=10.0, 2=NULL}", "NULL", "{}", "{2=20.0, 1=11.0}"];
    assert_eq!(over(&map_type(), &rows, &to_numbers).unwrap(), expected, "row 0, which is not a number, is cut off");
    let error = over(&map_type(), &maps(ROWS), &to_numbers).unwrap_err();
    assert!(error.message.contains("'a' cannot be cast to INT"), "{error}");
    let values = DataType::Map(Box::new(DataType::String), Box::new(DataType::Int64));
    let safe = cast(&map_type(), values, true);
    assert_eq!(over(&map_type(), &maps(&ROWS[..1]), &safe).unwrap(), ["{a=NULL}"]);
    assert_eq!(over(&map_type(), &rows, &cast(&map_type(), DataType::String, false)).unwrap()[0], "{1=10, 2=NULL}");
}

#[test]
fn a_map_that_would_lose_a_key_to_try_cast_is_null() {
    let numbers = DataType::Map(Box::new(DataType::Int32), Box::new(DataType::String));
    let expected = ["NULL", "{1=10, 2=NULL}", "NULL", "{}", "{2=20, 1=11}"];
    assert_eq!(over(&map_type(), &maps(ROWS), &cast(&map_type(), numbers, true)).unwrap(), expected);
}

#[test]
fn what_no_row_shows_cannot_fail_a_cast() {
    let (list, small) = (DataType::Array(Box::new(DataType::Int64)), DataType::Array(Box::new(DataType::Int8)));
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([
        Some(vec![Some(1000)]),
        Some(vec![Some(1), None]),
        Some(vec![Some(2000)]),
        Some(vec![Some(3000)]),
    ]);
    let to_small = cast(&list, small, false);
    let middle: ArrayRef = Arc::new(lists.slice(1, 1));
    assert_eq!(over(&list, &middle, &to_small).unwrap(), ["[1, NULL]"]);
    let (field, offsets, values, _) = lists.into_parts();
    let hidden = NullBuffer::from(vec![false, true, false, false]);
    let masked: ArrayRef = Arc::new(ListArray::new(field, offsets, values, Some(hidden)));
    assert_eq!(over(&list, &masked, &to_small).unwrap(), ["NULL", "[1, NULL]", "NULL", "NULL"]);

    let row = |ty: DataType| DataType::Row(vec![Field::new("n", ty, true)]);
    let (wide, narrow) = (row(DataType::Int64), row(DataType::Int8));
    let rows = column(&wide, &[Scalar::List(vec![Scalar::Int(1000)]), Scalar::List(vec![Scalar::Int(1)])]);
    let (fields, columns, _) = rows.as_struct().clone().into_parts();
    let masked: ArrayRef = Arc::new(StructArray::new(fields, columns, Some(NullBuffer::from(vec![false, true]))));
    assert_eq!(over(&wide, &masked, &cast(&wide, narrow.clone(), false)).unwrap(), ["NULL", "(1)"]);
    assert!(over(&wide, &rows, &cast(&wide, narrow, false)).is_err());
}
