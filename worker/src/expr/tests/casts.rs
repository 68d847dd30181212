//! CAST and TRY_CAST, value by value.

use super::*;

fn try_cast(input: Expr, ty: DataType) -> Expr {
    Expr { kind: ExprKind::Cast { input: Box::new(input), safe: true }, ty }
}

/// The planner refuses what it does not allow, so neither may know a cast more than the other.
#[test]
fn the_table_of_casts_and_the_kernels_agree() {
    use DataType as T;
    let row = |ty: &T| T::Row(vec![ef_proto::schema::Field::new("a", ty.clone(), true)]);
    let plain = [
        T::Null,
        T::Boolean,
        T::Int8,
        T::Int16,
        T::Int32,
        T::Int64,
        T::Float32,
        T::Float64,
        T::Decimal { precision: 9, scale: 2 },
        T::String,
        T::Bytes,
        T::Date,
        T::Time,
        T::Timestamp(Unit::Nano),
        T::TimestampLtz(Unit::Milli),
        T::Interval,
    ];
    let nested = plain
        .iter()
        .flat_map(|ty| [row(ty), T::Array(Box::new(ty.clone())), T::Map(Box::new(T::String), Box::new(ty.clone()))]);
    let types: Vec<T> = plain.iter().cloned().chain(nested).collect();
    for from in &types {
        for to in &types {
            let kernel = crate::expr::cast::kernel(from, to, false).is_ok();
            assert_eq!(from.casts_to(to), kernel, "from {from} to {to}");
        }
    }
}

#[test]
fn values_cast_or_say_why_not() {
    use DataType as T;
    let dec = |precision, scale| T::Decimal { precision, scale };
    for (input, ty, expected) in [
        (int(127), T::Int8, Some("127")),
        (int(128), T::Int8, None),
        (int(3), T::Float64, Some("3.0")),
        (int(3), dec(5, 2), Some("3.00")),
        (int(3000), dec(5, 2), None),
        (int(0), T::Boolean, Some("FALSE")),
        (float(-2.9), T::Int32, Some("-2")),
        (float(3e10), T::Int32, None),
        (float(f64::NAN), T::Int64, None),
        (float(1.005), dec(5, 2), Some("1.01")),
        (float(1e-9), dec(5, 2), Some("0.00")),
        (float(1e10), T::String, Some("1.0E10")),
        (float(1234567.0), T::String, Some("1234567.0")),
        (float(0.001), T::String, Some("0.001")),
        (float(1.25e-5), T::String, Some("1.25E-5")),
        (float(-0.0), T::String, Some("-0.0")),
        (float(0.5), T::Float32, Some("0.5")),
        (decimal(-1250, 6, 3), T::Int32, Some("-1")),
        (decimal(-1250, 6, 3), dec(6, 1), Some("-1.3")),
        (decimal(125, 6, 2), T::Float64, Some("1.25")),
        (decimal(99999, 5, 0), dec(4, 0), None),
        (text(" 12 "), T::Int32, Some("12")),
        (text("12.9"), T::Int32, Some("12")),
        (text("-0.9"), T::Int8, Some("0")),
        (text("12.x"), T::Int32, None),
        (text("12x"), T::Int32, None),
        (text("1e3"), T::Float64, Some("1000.0")),
        (text("x"), T::Float64, None),
        (text("1.25"), dec(5, 1), Some("1.3")),
        (text("yes"), T::Boolean, Some("TRUE")),
        (text("maybe"), T::Boolean, None),
        (text("2026-03-14 06:59:00.5"), TS, Some("2026-03-14 06:59:00.500")),
        (text("2026-03-14T06:59:00Z"), T::TimestampLtz(Unit::Micro), Some("2026-03-14 06:59:00.000000")),
        (text("14.3.2026"), TS, None),
        (text("2026-02-29"), T::Date, None),
        (text("2026-3-1 7:05"), T::Date, Some("2026-03-01")),
        (text("2026-03-01 25:00"), T::Date, None),
        (text("2026-03-14"), T::Date, Some("2026-03-14")),
        (text("06:59"), T::Time, Some("06:59:00")),
        (text("ü"), T::Bytes, Some("ü")),
        (timestamp("1969-12-31 23:59:59.5"), T::Date, Some("1969-12-31")),
        (timestamp("1969-12-31 23:59:59.5"), T::Time, Some("23:59:59.5")),
        (timestamp("1969-12-31 23:59:59.5"), T::Timestamp(Unit::Nano), Some("1969-12-31 23:59:59.500000000")),
        (Expr::literal(Scalar::Int(1), T::Date), TS, Some("1970-01-02 00:00:00.000")),
        (Expr::literal(Scalar::Boolean(true), T::Boolean), T::Int64, Some("1")),
        (Expr::literal(Scalar::Boolean(true), T::Boolean), T::String, Some("TRUE")),
    ] {
        match expected {
            Some(expected) => check(input.clone().cast(ty.clone()), expected),
            None => check_fails(input.clone().cast(ty.clone()), &format!("cannot be cast to {ty}")),
        }
        check(try_cast(input.clone(), ty.clone()), expected.unwrap_or("NULL"));
        check(null(input.ty).cast(ty), "NULL");
    }
}

#[test]
fn nested_values_cast_item_by_item() {
    use DataType as T;
    let list = Expr::literal(Scalar::List(vec![Scalar::Int(1), Scalar::Null]), T::Array(Box::new(T::Int64)));
    check(list.clone().cast(T::Array(Box::new(T::String))), "[1, NULL]");
    check(list.cast(T::Array(Box::new(T::Float64))), "[1.0, NULL]");
}

#[test]
fn a_cast_that_does_not_exist_is_refused_at_the_start() {
    check_fails(
        Expr::literal(Scalar::Int(1), DataType::Date).cast(DataType::Float64),
        "there is no cast from DATE to DOUBLE",
    );
}
