//! Written casts and LIKE reach the worker as they were written: nothing is evaluated, compared or named without them.

use super::{kinds, planned, refused};
use ef_proto::plan::{OperatorKind, Plan, text};

const TABLE: &str = "CREATE TABLE t (x DECIMAL(5, 2), b BIGINT, i INT, k STRING, bo BOOLEAN, v DOUBLE, f FLOAT, ts TIMESTAMP(3), arr ARRAY<INT>, \
    r ROW<a INT>, m MAP<STRING, INT>, WATERMARK FOR ts AS ts) WITH ('connector' = 'filesystem', 'path' = 'm.json', 'format' = 'json');\n";

fn plan(query: &str) -> Plan {
    planned(&format!("{TABLE}{query};"), 1)
}

/// The filters of the job.
fn filters(query: &str) -> Vec<String> {
    let plan = plan(query);
    let calcs = kinds(&plan, "Calc").into_iter();
    calcs
        .filter_map(|kind| if let OperatorKind::Calc(calc) = kind { calc.filter.as_ref() } else { None })
        .map(ToString::to_string)
        .collect()
}

/// What is selected, from the only Calc.
fn selected(expr: &str) -> String {
    let plan = plan(&format!("SELECT {expr} AS x1 FROM t"));
    match kinds(&plan, "Calc")[..] {
        [OperatorKind::Calc(calc)] => calc.project[0].to_string(),
        _ => panic!("{}", text(&plan)),
    }
}

#[test]
fn a_comparison_with_a_narrowing_cast_keeps_the_cast() {
    for (condition, expected) in [
        ("CAST(x AS INT) = 1", "(CAST($0 AS INT) = 1)"),
        ("CAST(x AS INT) <> 0", "(CAST($0 AS INT) <> 0)"),
        ("CAST(x AS INT) > 1", "(CAST($0 AS INT) > 1)"),
        ("CAST(x AS DECIMAL(4, 1)) = 1.2", "(CAST($0 AS DECIMAL(4, 1)) = 1.2)"),
        ("CAST(CAST(x AS INT) AS STRING) = '1'", "(CAST(CAST($0 AS INT) AS STRING) = '1')"),
        ("TRY_CAST(x AS TINYINT) <> 5", "(TRY_CAST($0 AS TINYINT) <> 5)"),
    ] {
        assert_eq!(filters(&format!("SELECT x FROM t WHERE {condition}")), [expected], "{condition}");
    }
    for condition in ["CAST(x AS INT) BETWEEN 1 AND 2", "CAST(x AS INT) IN (1, 2)", "CAST(x AS INT) NOT IN (1, 2, 3)"] {
        let plan = text(&plan(&format!("SELECT x FROM t WHERE {condition}")));
        assert!(plan.contains("CAST(x AS INT)"), "{condition}\n{plan}");
    }
}

#[test]
fn constants_are_cast_by_the_rules_of_columns() {
    for (expr, expected) in [
        ("CAST(TIMESTAMP '2024-01-01 00:00:00' AS STRING)", "CAST(1704067200000 AS STRING)"),
        ("CAST(TRUE AS STRING)", "CAST(true AS STRING)"),
        ("CAST(' 2024-1-5 3:4:5' AS TIMESTAMP(3))", "CAST(' 2024-1-5 3:4:5' AS TIMESTAMP(3))"),
        (
            "CASE WHEN k = 'zz' THEN CAST('x' AS INT) ELSE 0 END",
            "CASE WHEN ($0 = 'zz') THEN CAST('x' AS INT) ELSE 0 END",
        ),
        ("'a%b' LIKE 'a\\%b'", "'a%b' LIKE 'a\\%b'"),
        ("k NOT LIKE 'a!%' ESCAPE '!'", "$0 NOT LIKE 'a!%'"),
    ] {
        assert_eq!(selected(expr), expected, "{expr}");
    }
    // What means the same to everybody is still a plain constant.
    assert_eq!(selected("CAST(5 AS BIGINT)"), "5");
    assert_eq!(selected("CAST(NULL AS INT)"), "NULL");
}

#[test]
fn a_cast_tells_aggregates_and_keys_apart() {
    for query in [
        "SELECT SUM(i), SUM(CAST(i AS BIGINT)) FROM t",
        "SELECT COUNT(DISTINCT CAST(ts AS DATE)), COUNT(DISTINCT ts) FROM t",
        "SELECT SUM(i) FROM t HAVING SUM(CAST(i AS BIGINT)) > 0",
        "SELECT i + 1, COUNT(*) FROM t GROUP BY i + 1, i + CAST(1 AS BIGINT)",
        "SELECT CAST(k AS INT), COUNT(*) FROM t GROUP BY CAST(k AS INT)",
    ] {
        plan(query);
    }
}

#[test]
fn messages_name_a_cast_as_it_was_written() {
    let error = refused(
        &format!(
            "{TABLE}SELECT window_start, COUNT(*) FROM TABLE(TUMBLE(TABLE v, DESCRIPTOR(at), INTERVAL '1' SECOND)) \
         GROUP BY window_start, window_end;"
        )
        .replace(
            "SELECT window",
            "CREATE VIEW v AS SELECT CAST(CAST(k AS DATE) AS TIMESTAMP(3)) AS at FROM t; SELECT window",
        ),
    );
    assert!(error.message.contains("`CAST(CAST(t.k AS DATE) AS TIMESTAMP(3))` is calculated"), "{error}");
}

#[test]
fn casts_to_a_length_keep_it() {
    for (expr, expected) in [
        ("CAST(k AS VARCHAR(2))", "ef_substring($0, 1, 2)"),
        ("CAST(i AS CHAR(3))", "ef_rpad(ef_substring(CAST($0 AS STRING), 1, 3), 3, ' ')"),
        ("CAST(ts AS TIMESTAMP(0))", "ef_floor_time('SECOND', $0)"),
        ("CAST(ts AS TIMESTAMP(6))", "CAST($0 AS TIMESTAMP(6))"),
    ] {
        assert_eq!(selected(expr), expected, "{expr}");
    }
}

#[test]
fn a_query_that_no_row_passes_is_planned_with_its_tables() {
    for condition in ["1 = 0", "FALSE", "NULL", "i > 1 AND 1 = 2", "CAST(NULL AS BOOLEAN)"] {
        assert_eq!(filters(&format!("SELECT i FROM t WHERE {condition}")).len(), 1, "{condition}");
        plan(&format!("SELECT COUNT(*) FROM t WHERE {condition}"));
        plan(&format!("SELECT i FROM t UNION ALL SELECT i FROM t WHERE {condition}"));
    }
    assert!(filters("SELECT i FROM t WHERE 1 = 1").is_empty());
}

#[test]
fn an_average_has_the_type_of_its_argument() {
    for ty in ["TINYINT", "SMALLINT", "INT", "BIGINT", "FLOAT", "DOUBLE"] {
        let plan = plan(&format!("SELECT AVG(CAST(i AS {ty})) FROM t"));
        let OperatorKind::GroupAggregate(group) = kinds(&plan, "GroupAggregate")[0] else { unreachable!() };
        assert_eq!(group.aggregates[0].ty.to_string(), ty);
    }
}

#[test]
fn what_cannot_be_evaluated_is_refused_at_its_place() {
    let mut wrong = String::new();
    for (expr, expected, column) in [
        ("CAST(ts AS BIGINT)", "there is no cast from TIMESTAMP(3) to BIGINT", 8),
        ("i, CAST(arr AS INT)", "there is no cast from ARRAY<INT> to INT", 11),
        ("TRY_CAST(bo AS DATE)", "there is no cast from BOOLEAN to DATE", 8),
        ("COUNT(DISTINCT arr)", "COUNT takes one value of each row, found (DISTINCT ARRAY<INT>)", 23),
        ("COUNT(DISTINCT r)", "ROW<a INT>", 23),
        ("FIRST_VALUE(m)", "FIRST_VALUE takes", 20),
        ("MIN(NULL)", "MIN takes", 1),
        ("COUNT(*) FILTER (WHERE k)", "FILTER takes a condition, found (STRING)", 31),
        ("TIMESTAMPDIFF(FOO, ts, ts)", "unit of time `FOO`", 27),
        ("REGEXP(k, '(')", "regular expression '('", 15),
        ("DATE_FORMAT(ts, 'yyyy-foo')", "`f` is not known", 20),
        ("INTERVAL '1' DAY", "is an INTERVAL", 1),
        ("i LIKE '1%'", "LIKE takes (string, pattern), found (INT, STRING)", 8),
        ("CAST(ts AS TIMESTAMP(4))", "unexpected `TIMESTAMP`", 19),
        ("SUM(k)", "SUM takes (number), found (STRING)", 8),
        ("i[1]", "array[i] takes (array, position) or (map, key), found (INT, INT)", 1),
        ("'a' 'b'", "unexpected `'b'` behind this", 8),
        ("i == 1", "unexpected `==`", 10),
        ("i <=> 1", "accepted: a IS NOT DISTINCT FROM b", 10),
        ("i ^ 1", "there are no operators on bits", 10),
        ("i::BIGINT", "accepted: CAST(x AS type)", 9),
        ("CAST(i AS DECIMAL(39, 1))", "unexpected `39`", 26),
    ] {
        let error = refused(&format!("{TABLE}SELECT {expr} FROM t;"));
        let text = error.to_string();
        let raw = ["rror during planning", "xecution error", "No function matches", "ef_"]
            .iter()
            .any(|raw| text.contains(raw));
        if !text.contains(expected) || (error.line, error.column) != (2, column) || raw {
            wrong += &format!("{expr}: {text}\n  not {column}: {expected}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn metadata_that_a_connector_does_not_have_is_refused_at_its_column() {
    let error = refused(
        "CREATE TABLE t (a INT,\n  b STRING METADATA FROM 'nope') WITH ('connector' = 'filesystem', 'path' = 't', 'format' = 'json');",
    );
    assert!(error.to_string().contains("'file.path'") && (error.line, error.column) == (2, 3), "{error}");
}

#[test]
fn a_view_may_comment_its_columns_and_a_window_may_read_a_query() {
    plan("CREATE VIEW v (a COMMENT 'first', b) COMMENT 'all' AS SELECT i, k FROM t; SELECT a FROM v");
    plan(
        "SELECT window_start, COUNT(*) FROM TABLE(TUMBLE(TABLE (SELECT i, ts FROM t), DESCRIPTOR(ts), INTERVAL '1' SECOND)) \
         GROUP BY window_start, window_end",
    );
}

#[test]
fn decimals_are_compared_with_doubles_as_doubles() {
    for condition in [
        "v > 0.9",
        "0.9 < v",
        "f = 0.5",
        "v BETWEEN 0.0 AND 100.5",
        "v IN (0.5, 1.5)",
        "CASE v WHEN 0.5 THEN TRUE ELSE FALSE END",
        "x < v",
    ] {
        let filters = filters(&format!("SELECT k FROM t WHERE {condition}"));
        assert_eq!(filters.len(), 1, "{condition}");
        assert!(!filters[0].contains("DECIMAL") || condition.contains('x'), "{condition}: {}", filters[0]);
        assert!(!filters[0].contains("(30, 15)"), "{condition}: {}", filters[0]);
    }
}
