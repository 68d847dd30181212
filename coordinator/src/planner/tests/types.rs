//! Flink's type names.

use super::{bound, refused};
use crate::planner::Bound;
use ef_proto::schema::{DataType, Field, Unit};

fn row(fields: &[(&str, DataType, bool)]) -> DataType {
    DataType::Row(fields.iter().map(|(name, ty, nullable)| Field::new(*name, ty.clone(), *nullable)).collect())
}

fn array(item: DataType) -> DataType {
    DataType::Array(Box::new(item))
}

fn map(key: DataType, value: DataType) -> DataType {
    DataType::Map(Box::new(key), Box::new(value))
}

fn decimal(precision: u8, scale: i8) -> DataType {
    DataType::Decimal { precision, scale }
}

fn column(bound: &Bound) -> &Field {
    &bound.catalog.tables["t"].columns[0].field
}

#[test]
fn type_names_mean_what_they_mean_in_flink() {
    use DataType::*;
    let table: Vec<(&str, DataType)> = vec![
        ("BOOLEAN", Boolean),
        ("TINYINT", Int8),
        ("SMALLINT", Int16),
        ("INT", Int32),
        ("INTEGER", Int32),
        ("BIGINT", Int64),
        ("FLOAT", Float32),
        ("DOUBLE", Float64),
        ("DOUBLE PRECISION", Float64),
        ("double precision", Float64),
        ("DECIMAL", decimal(10, 0)),
        ("DECIMAL(5)", decimal(5, 0)),
        ("DEC(5, 5)", decimal(5, 5)),
        ("NUMERIC(38, 18)", decimal(38, 18)),
        ("CHAR", String),
        ("CHAR(3)", String),
        ("CHARACTER VARYING(3)", String),
        ("VARCHAR", String),
        ("VARCHAR(2147483647)", String),
        ("STRING", String),
        ("BINARY(3)", Bytes),
        ("VARBINARY(3)", Bytes),
        ("BYTES", Bytes),
        ("DATE", Date),
        ("TIME", Time),
        ("TIME(3) WITHOUT TIME ZONE", Time),
        ("TIMESTAMP", Timestamp(Unit::Micro)),
        ("TIMESTAMP(0)", Timestamp(Unit::Milli)),
        ("TIMESTAMP(3)", Timestamp(Unit::Milli)),
        ("TIMESTAMP(4)", Timestamp(Unit::Micro)),
        ("TIMESTAMP(6) WITHOUT TIME ZONE", Timestamp(Unit::Micro)),
        ("TIMESTAMP(9)", Timestamp(Unit::Nano)),
        ("TIMESTAMP_LTZ", TimestampLtz(Unit::Micro)),
        ("TIMESTAMP_LTZ(3)", TimestampLtz(Unit::Milli)),
        ("TIMESTAMP(9) WITH LOCAL TIME ZONE", TimestampLtz(Unit::Nano)),
        ("ARRAY<INT>", array(Int32)),
        ("INT ARRAY", array(Int32)),
        ("ARRAY<ARRAY<STRING>>", array(array(String))),
        ("MAP<STRING, ARRAY<BIGINT>>", map(String, array(Int64))),
        ("ROW<a INT, b STRING>", row(&[("a", Int32, true), ("b", String, true)])),
        ("ROW(a INT, b STRING)", row(&[("a", Int32, true), ("b", String, true)])),
        ("ROW<a INT NOT NULL, `select` DATE 'a comment'>", row(&[("a", Int32, false), ("select", Date, true)])),
        (
            "ROW<a ROW<b MAP<STRING, ROW<c TIMESTAMP(3)>>>>",
            row(&[("a", row(&[("b", map(String, row(&[("c", Timestamp(Unit::Milli), true)])), true)]), true)]),
        ),
    ];
    for (sql, expected) in table {
        let declared = bound(&format!("CREATE TABLE t (c {sql});"));
        assert_eq!(column(&declared).ty, expected, "{sql}");
        assert!(column(&declared).nullable, "{sql}");
        // A computed column has its type from the expression: CAST knows the same names.
        let cast = bound(&format!("CREATE TABLE t (c AS CAST(NULL AS {sql}), d INT);"));
        let found = column(&cast).ty.to_arrow();
        assert!(found.equals_datatype(&expected.to_arrow()), "CAST to {sql}: {found} instead of {expected}");
    }
    assert!(!column(&bound("CREATE TABLE t (c INT NOT NULL);")).nullable);
    assert!(column(&bound("CREATE TABLE t (c INT NULL);")).nullable);
}

#[test]
fn what_is_no_type_is_refused_at_its_place() {
    let table = [
        ("DECIMAL(39, 0)", "DECIMAL(p, s) with 1 <= p <= 38"),
        ("DECIMAL(0)", "DECIMAL(p, s) with 1 <= p <= 38"),
        ("DECIMAL(5, 6)", "0 <= s <= p"),
        ("DECIMAL(1, 2, 3)", "at most 2 whole number(s)"),
        ("TIMESTAMP(10)", "a precision from 0 to 9"),
        ("TIME(4)", "a precision from 0 to 3"),
        ("TIMESTAMP WITH TIME ZONE", "WITH LOCAL TIME ZONE"),
        ("VARCHAR(x)", "at most 1 whole number(s)"),
        ("ARRAY", "ARRAY<type>"),
        ("ARRAY<>", "ARRAY<type>"),
        ("ARRAY<INT", ">"),
        ("MAP<STRING>", ","),
        ("ROW<>", "ROW<name type"),
        ("ROW<a>", "a type"),
        ("MULTISET<INT>", "one of the types"),
        ("`INT`", "one of the types"),
        ("TEXT", "one of the types"),
        ("42", "a type, such as BIGINT"),
    ];
    for (sql, expected) in table {
        let error = refused(&format!("CREATE TABLE t (\n  c {sql}\n);"));
        assert!(error.to_string().contains(expected), "{sql}: {error}");
        assert!(error.line >= 2 && (error.line, error.column) >= (2, 5), "{sql}: {error}");
    }
}
