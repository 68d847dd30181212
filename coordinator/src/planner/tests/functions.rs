//! The types of calculations and calls, and which names there are.

use super::{TABLES, bound, planned, refused};
use ef_proto::schema::{DataType, Unit};

/// The type of an expression over a table with a column of each kind of type.
#[track_caller]
fn type_of(expr: &str) -> DataType {
    let columns = "t TINYINT, h SMALLINT, i INT, l BIGINT, f FLOAT, x DOUBLE, d DECIMAL(10, 3), w DECIMAL(38, 10), \
                   s STRING, dt DATE, tm TIME, ts TIMESTAMP(3), a ARRAY<INT>";
    let declared = bound(&format!("CREATE TABLE t ({columns}, c AS {expr});"));
    declared.catalog.tables["t"].columns.last().expect("the computed one").field.ty.clone()
}

fn decimal(precision: u8, scale: i8) -> DataType {
    DataType::Decimal { precision, scale }
}

#[test]
fn decimals_have_the_digits_that_flink_gives_them() {
    let table = [
        ("1 / 3.0", decimal(17, 6)),
        ("i / 2.0", decimal(17, 6)),
        ("d / 7", decimal(21, 14)),
        ("d + 1", decimal(14, 3)),
        ("d - l", decimal(23, 3)),
        ("d * t", decimal(14, 3)),
        ("d * d", decimal(21, 6)),
        ("w * w", decimal(38, 6)),
        ("d % 7", decimal(10, 3)),
        ("MOD(d, h)", decimal(8, 3)),
        ("0.05 * d", decimal(14, 5)),
        ("d + 0.5", decimal(11, 3)),
        ("ROUND(d, 2)", decimal(10, 2)),
        ("ROUND(d)", decimal(8, 0)),
        ("ROUND(d, -1)", decimal(8, 0)),
        ("TRUNCATE(d, 2)", decimal(10, 2)),
        ("ROUND(d, i)", decimal(10, 3)),
        ("CEIL(d)", decimal(10, 0)),
        ("FLOOR(d)", decimal(10, 0)),
        ("ABS(d)", decimal(10, 3)),
        ("SIGN(i)", DataType::Int32),
        ("d * x", DataType::Float64),
        ("d * f", DataType::Float64),
        ("i / 2", DataType::Int32),
        ("ARRAY[1, 2]", DataType::Array(Box::new(DataType::Int32))),
    ];
    for (expr, expected) in table {
        assert_eq!(type_of(expr), expected, "{expr}");
    }
}

#[test]
fn dates_stay_dates_when_days_and_months_are_added() {
    let table = [
        ("dt + INTERVAL '1' DAY", DataType::Date),
        ("INTERVAL '1' DAY + dt", DataType::Date),
        ("dt - INTERVAL '2' MONTH", DataType::Date),
        ("TIMESTAMPADD(DAY, 1, dt)", DataType::Date),
        ("TIMESTAMPADD(DAY, i, dt)", DataType::Date),
        ("dt + INTERVAL '1' HOUR", DataType::Timestamp(Unit::Milli)),
        ("ts + INTERVAL '1' HOUR", DataType::Timestamp(Unit::Milli)),
        ("ts + i * INTERVAL '1' SECOND", DataType::Timestamp(Unit::Milli)),
        ("TIMESTAMPADD(SECOND, l, ts)", DataType::Timestamp(Unit::Milli)),
        ("tm + INTERVAL '1' HOUR", DataType::Time),
        ("CASE WHEN i = 1 THEN dt ELSE ts END", DataType::Timestamp(Unit::Milli)),
        ("COALESCE(ts, dt)", DataType::Timestamp(Unit::Milli)),
        ("IF(dt < ts, dt, CURRENT_DATE)", DataType::Date),
        ("TO_DATE(s, 'dd/MM/yyyy')", DataType::Date),
        ("LOCALTIME", DataType::Time),
        ("CURRENT_TIME", DataType::Time),
        ("CURRENT_DATE", DataType::Date),
    ];
    for (expr, expected) in table {
        assert_eq!(type_of(expr), expected, "{expr}");
    }
}

#[test]
fn dates_beside_timestamps_are_timestamps_in_queries_too() {
    let plan = planned(
        "CREATE TABLE s (dt DATE, ts TIMESTAMP(3)) WITH ('connector' = 'filesystem', 'path' = 's.csv', 'format' = 'csv');
         CREATE TABLE o (ts TIMESTAMP(3)) WITH ('connector' = 'blackhole');
         INSERT INTO o SELECT CASE WHEN dt < ts THEN dt ELSE ts END FROM s;",
        1,
    );
    let text = ef_proto::plan::text(&plan);
    assert!(text.contains("TIMESTAMP(3)") && !text.contains("TIMESTAMP(9)"), "{text}");
}

#[test]
fn functions_have_flinks_names_and_no_others() {
    for call in [
        "OVERLAY(k PLACING 'x' FROM 2 FOR 1)",
        "CAST(LOCATE('a', k, 2) AS STRING)",
        "CAST(IS_ALPHA(k) AS STRING)",
        "TO_BASE64(k) || FROM_BASE64(k)",
        "SHA1(k) || SHA2(k, 256) || MD5(k) || SHA512(k)",
        "BIN(n) || HEX(n) || HEX(k)",
        "ELT(n, k, k)",
        "CONVERT_TZ(k, 'UTC', 'Europe/Berlin')",
        "PARSE_URL(k, 'QUERY', 'x')",
        "DECODE(ENCODE(k, 'UTF-16'), 'UTF-16')",
        "SPLIT_INDEX(k, 44, 1)",
        "LPAD(k, 5, '0') || RPAD(k, 5, '0') || LEFT(k, 1) || RIGHT(k, 1) || REPEAT(k, 2) || CHR(n)",
        "REGEXP_REPLACE(k, '(o)', '$1a')",
        "CAST(RAND_INTEGER(10) + UNIX_TIMESTAMP(k, 'yyyy') AS STRING)",
        "CAST(JSON_EXISTS(k, '$.a') OR ARRAY_CONTAINS(tags, 'x') AS STRING)",
        "JSON_QUERY(k, '$.a') || JSON_VALUE(k, '$.b')",
        "CAST(k SIMILAR TO '(a|b)%' OR k NOT SIMILAR TO 'x!%' ESCAPE '!' AS STRING)",
        "UPPER(TRIM(k)) || REVERSE(k) || REPLACE(k, 'a', 'b') || INITCAP(k) || TRANSLATE(k, 'a', 'b')",
    ] {
        planned(&format!("{TABLES} INSERT INTO o SELECT {call}, CAST(1 AS BIGINT) FROM s;"), 1);
    }
    for (call, expected) in [
        ("VERSION()", "function `VERSION` does not exist"),
        ("arrow_cast(n, 'Int8')", "function `arrow_cast` does not exist"),
        ("ARROW_TYPEOF(n)", "function `ARROW_TYPEOF` does not exist"),
        ("TO_CHAR(ts, 'yyyy')", "function `TO_CHAR` does not exist"),
        ("RANGE(1, 2)", "function `RANGE` does not exist"),
        ("ef_plus(n, n)", "function `ef_plus` does not exist"),
        ("JSON_STRING(k)", "function `JSON_STRING` does not exist"),
        ("RAND(7)", "RAND with a seed is not supported"),
        ("RAND_INTEGER(7, 10)", "RAND_INTEGER with a seed is not supported"),
        ("SHA2(k, 1)", "wrong arguments of SHA2"),
    ] {
        let error = refused(&format!("{TABLES} INSERT INTO o SELECT k, CAST({call} AS BIGINT) FROM s;"));
        assert!(error.to_string().contains(expected), "{call}: {error}");
    }
}
