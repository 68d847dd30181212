//! Texts that no person would write, and files as editors and generators leave them. Each works or gets a clear error;
//! none may take the process with it.

use super::{TABLES, planned, refused, try_plan};
use crate::planner::PlannerError;

const SOURCE: &str = "CREATE TABLE t (a INT, b INT) WITH ('connector' = 'datagen');\n";

fn place(error: &PlannerError) -> (u64, u64) {
    (error.line, error.column)
}

#[test]
fn a_file_without_statements_has_nothing_to_run() {
    for sql in
        ["", "\n\n", "-- only a comment", "/* one\n more */\n", ";;;", "\u{feff}", "SET 'state.backend' = 'memory';"]
    {
        let error = refused(sql);
        assert!(error.message.contains("nothing to run"), "{sql:?}: {error}");
    }
}

#[test]
fn what_is_not_closed_is_refused_where_it_opens() {
    for (sql, expected, at) in [
        ("SELECT 'abc FROM t;", "the string is not closed", (2, 8)),
        ("SELECT a, `abc FROM t;", "the name in backticks is not closed", (2, 11)),
        ("SELECT a /* FROM t;\n\n", "the comment is not closed", (2, 10)),
        ("SELECT \"abc FROM t;", "the double quotes are not closed", (2, 8)),
        ("SELECT (a FROM t;", "unexpected `FROM`", (2, 11)),
        ("SELECT a FROM (SELECT a FROM t", "unexpected `FROM`", (2, 25)),
        ("SELECT ${a FROM t;", "`${` is not closed", (2, 8)),
    ] {
        let error = refused(&format!("{SOURCE}{sql}"));
        assert!(error.message.contains(expected), "{sql}: {error}");
        assert_eq!(place(&error), at, "{sql}: {error}");
    }
}

#[test]
fn the_last_semicolon_may_be_missing() {
    planned("CREATE TABLE t (a INT) WITH ('connector' = 'datagen');;; SELECT a FROM t", 1);
    planned("CREATE TABLE t (a INT) WITH ('connector' = 'datagen'); SELECT a FROM t -- the end", 1);
}

#[test]
fn line_ends_tabs_and_a_byte_order_mark_change_no_place() {
    let windows = format!("\u{feff}{SOURCE}SELECT a, -- one\n\n  wrong\nFROM t;\n").replace('\n', "\r\n");
    let error = refused(&windows);
    assert_eq!(place(&error), (4, 3), "{error}");
    assert_eq!(error.fragment, "  wrong");
    planned(&windows.replace("wrong", "b"), 1);
    assert_eq!(place(&refused("\u{feff}SELEC 1;")), (1, 1));
    assert_eq!(place(&refused(&format!("{SOURCE}SELECT\ta,\twrong FROM t;"))), (2, 11));
}

#[test]
fn names_may_be_of_any_language_and_any_word_in_backticks() {
    let sql = "CREATE TABLE größe (`schlüssel` STRING, 温度 DOUBLE, `select` INT, `from` INT, `a b``c` INT) WITH ('connector' = 'datagen');
        CREATE TABLE `order` (`select` INT, `table` DOUBLE, `group` INT, key STRING) WITH ('connector' = 'blackhole');
        INSERT INTO `order` SELECT `select` + `from`, 温度, `a b``c` AS `where`, `schlüssel` FROM größe AS `join` WHERE `join`.温度 > 20;";
    let plan = planned(sql, 1);
    assert_eq!(plan.operators.last().unwrap().schema.fields[1].name, "table");
    let error = refused("CREATE TABLE größe (温度 INT) WITH ('connector' = 'datagen'); SELECT 温度, ärger FROM größe;");
    assert_eq!(place(&error), (1, 72), "{error}");
    let caret = error.to_string().lines().nth(2).unwrap().chars().count();
    assert_eq!(caret, 2 + 71 + "ärger".chars().count(), "{error}");
}

#[test]
fn names_keep_their_case() {
    planned("CREATE TABLE T (A INT, a INT) WITH ('connector' = 'datagen'); SELECT A, a FROM T;", 1);
    let error = refused(&format!("{SOURCE}SELECT A FROM t;"));
    assert!(error.to_string().contains("did you mean `a`?"), "{error}");
}

#[test]
fn deep_nesting_is_an_error() {
    let nested =
        |open: &str, inner: &str, close: &str, n: usize| format!("{}{inner}{}", open.repeat(n), close.repeat(n));
    for n in [60, 20_000] {
        for query in [
            format!("SELECT {} FROM t", nested("(", "a", ")", n)),
            format!("SELECT a FROM t WHERE {}", nested("NOT ", "a = 1", "", n)),
            format!("SELECT {}a FROM t", "- ".repeat(n)),
            format!("SELECT {} FROM t", nested("ABS(", "a", ")", n)),
            format!("SELECT {} FROM t", nested("FLOOR(", "a", ")", n)),
            format!("SELECT {} FROM t", nested("CASE WHEN a = 1 THEN ", "a", " END", n)),
            format!("SELECT {} FROM t", nested("CAST(", "a", " AS INT)", n)),
            format!("SELECT {} FROM t", nested("ARRAY[", "a", "]", n)),
            format!("SELECT a FROM {}", nested("(SELECT a FROM ", "t", ")", n)),
            format!("SELECT a FROM {}", nested("(", "t", ")", n)),
            nested("(", "SELECT a FROM t", ")", n),
            format!("SELECT {} FROM t", "(".repeat(n)),
            format!("SELECT a FROM {}", "(".repeat(n)),
        ] {
            let error = refused(&format!("{SOURCE}{query};"));
            assert!(error.line == 2, "{n} × {}: {error}", &query[..30]);
        }
        let error = refused(&format!("CREATE TABLE u (\n  a {}\n);", nested("ARRAY<", "INT", ">", n * 10)));
        assert!(error.message.contains("nested too deeply"), "{error}");
        let error = refused(&format!("CREATE TABLE u (\n  a {}\n);", nested("ROW<x INT, y ", "INT", ">", n * 10)));
        assert!(error.message.contains("nested too deeply"), "{error}");
    }
}

#[test]
fn long_chains_work_up_to_a_bound_and_are_an_error_beyond() {
    let chain = |part: &str, between: &str, n: usize| vec![part; n].join(between);
    for (works, refuses) in
        [(chain("a", " + ", 200), chain("a", " + ", 20_000)), (chain("'a'", " || ", 200), chain("'a'", " || ", 20_000))]
    {
        planned(&format!("{SOURCE}SELECT {works} FROM t;"), 1);
        let error = refused(&format!("{SOURCE}SELECT {refuses} FROM t;"));
        assert!(error.message.contains("nested too deeply") && error.line == 2, "{error}");
    }
    for operator in [" OR ", " AND "] {
        planned(&format!("{SOURCE}SELECT a FROM t WHERE {};", chain("a + b > 1", operator, 200)), 1);
        let error = refused(&format!("{SOURCE}SELECT a FROM t WHERE {};", chain("a = b", operator, 20_000)));
        assert!(error.message.contains("nested too deeply"), "{error}");
    }
    planned(&format!("{SOURCE}{};", chain("SELECT a, b FROM t", " UNION ALL ", 100)), 1);
    let error = refused(&format!("{SOURCE}{};", chain("SELECT a, b FROM t", " UNION ALL ", 5_000)));
    assert!(error.message.contains("nested too deeply"), "{error}");
    let error = refused(&format!("{SOURCE}SELECT 1 FROM {};", chain("t", ", ", 5_000)));
    assert!(error.message.contains("more than 100 tables"), "{error}");
}

#[test]
fn views_that_double_one_another_are_an_error() {
    let mut sql = format!("{SOURCE}CREATE VIEW v0 AS SELECT a FROM t;\n");
    for i in 0..40 {
        sql += &format!("CREATE VIEW v{} AS SELECT a FROM v{i} UNION ALL SELECT a FROM v{i};\n", i + 1);
    }
    let error = refused(&sql);
    assert!(error.message.contains("a query of more than 20000 operators"), "{error}");
    let mut sql = format!("{SOURCE}CREATE VIEW v0 AS SELECT a FROM t;\n");
    for i in 0..2_000 {
        sql += &format!("CREATE VIEW v{} AS SELECT a + 1 AS a FROM v{i};\n", i + 1);
    }
    assert!(refused(&sql).message.contains("on top of one another"));
}

#[test]
fn a_statement_of_a_megabyte_is_planned() {
    let list: Vec<String> = (0..160_000).map(|i| i.to_string()).collect();
    let sql = format!("{SOURCE}SELECT a FROM t WHERE a IN ({}) AND b > 0;", list.join(", "));
    assert!(sql.len() > 900_000);
    planned(&sql, 1);
    let comment = format!("{SOURCE}/* {} */ SELECT a FROM t;", "x".repeat(1 << 20));
    planned(&comment, 1);
    let literal = format!("{SOURCE}SELECT '{}' AS x FROM t;", "ä".repeat(1 << 19));
    planned(&literal, 1);
}

#[test]
fn any_prefix_of_a_file_works_or_is_an_error() {
    let sql = format!(
        "{TABLES}-- then\nINSERT INTO o (k, n) SELECT place.site, CASE WHEN n > 1 THEN COUNT(*) ELSE MAP['a', 1]['a'] END \
         FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '1' HOUR)) GROUP BY place.site, n, window_start, window_end;"
    );
    for (end, _) in sql.char_indices() {
        if let Err(error) = try_plan(&sql[..end], 1) {
            assert!(!error.message.is_empty() && !error.message.contains("nternal"), "{error}");
        }
    }
}
