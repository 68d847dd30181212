//! Bad SQL: what the message says, and at which line and column.

use super::{TABLES, try_plan};

/// (text, what the message contains, line, column). The line counts from the first line of the text, behind [`TABLES`].
const BAD: &[(&str, &str, u64, u64)] = &[
    // Statements.
    ("SELEC 1;", "did you mean SELECT?", 1, 1),
    ("FROBNICATE s;", "accepted: CREATE TABLE, CREATE VIEW", 1, 1),
    ("ALTER TABLE s RENAME TO r;", "ALTER is not supported", 1, 1),
    ("EXPLAIN SELECT k FROM s;", "use `efctl explain FILE`", 1, 1),
    ("SELECT k FROM s SELECT n FROM s;", "unexpected `SELECT`", 1, 17),
    ("SELECT k FROM s;\nSELECT k FROM s;", "a SELECT that is not the last statement", 1, 1),
    ("CREATE OR REPLACE TABLE s (k INT);", "CREATE OR REPLACE is not supported", 1, 1),
    ("CREATE FUNCTION f AS 'x';", "CREATE FUNCTION is not supported", 1, 8),
    ("DROP INDEX i;", "accepted: TABLE, VIEW or MODEL", 1, 6),
    ("INSERT OVERWRITE o SELECT k, 1 FROM s;", "INSERT OVERWRITE is not supported", 1, 8),
    ("BEGIN STATEMENT SET;\nINSERT INTO o SELECT k, 1 FROM s;", "the statement set is not closed", 1, 1),
    ("BEGIN STATEMENT SET;\nDROP TABLE s;\nEND;", "only INSERT INTO may stand in a statement set", 2, 1),
    // Declarations.
    ("CREATE TABLE s (k INT);", "table `s` is already there", 1, 14),
    ("CREATE VIEW o AS SELECT k FROM s;", "table `o` is already there", 1, 13),
    ("CREATE TABLE t ();", "unexpected `)`", 1, 17),
    ("CREATE TABLE t (a INT, b INT,\n  a INT);", "column `a` is declared twice", 2, 3),
    ("CREATE TABLE t (a ARRAY<INT NOT NULL>);", "without NOT NULL", 1, 25),
    ("CREATE TABLE t (a MAP<STRING NOT NULL, INT NOT NULL>);", "without NOT NULL", 1, 40),
    ("CREATE TABLE t (a WIBBLE);", "unexpected `WIBBLE`", 1, 19),
    ("CREATE TABLE t (a INT, PRIMARY KEY (a));", "a primary key that is enforced", 1, 39),
    ("CREATE TABLE t (a INT, PRIMARY KEY (b) NOT ENFORCED);", "column `b` does not exist", 1, 37),
    ("CREATE TABLE t (a INT,\n  WATERMARK FOR b AS b);", "column `b` does not exist", 2, 17),
    ("CREATE TABLE t (a INT, WATERMARK FOR a AS a);", "a watermark on `a`, which is INT", 1, 38),
    ("CREATE TABLE t (p AS PROCTIME(), WATERMARK FOR p AS p);", "which is PROCTIME()", 1, 48),
    ("CREATE TABLE t (a INT, b AS a + c);", "column `c` does not exist", 1, 33),
    ("CREATE TABLE t (a INT, b AS COUNT(a));", "the aggregate COUNT in a column definition", 1, 29),
    ("CREATE TABLE t (a INT) WITH ('x' = '1', 'x' = '2');", "each option once", 1, 41),
    ("CREATE TABLE t (a INT) WITH (\"x\" = '1');", "double quotes around x", 1, 30),
    ("CREATE VIEW v (a, b) AS SELECT k FROM s;", "view `v` names 2 columns, its query gives 1", 1, 16),
    ("CREATE MODEL m INPUT (x FLOAT) OUTPUT (y FLOAT) WITH ('path' = 'p');", "has no 'provider'", 1, 14),
    ("DROP TABLE t;", "table `t` does not exist", 1, 12),
    ("DROP VIEW s;", "view `s` does not exist", 1, 11),
    // Names.
    ("SELECT key FROM s;", "column `key` does not exist", 1, 8),
    ("SELECT k,\n  speed FROM s;", "column `speed` does not exist", 2, 3),
    ("SELECT a.speed FROM s AS a;", "column `a.speed` does not exist", 1, 8),
    ("SELECT k FROM s WHERE N > 1;", "did you mean `n`?", 1, 23),
    ("SELECT k\nFROM   sensors;", "table `sensors` does not exist", 2, 8),
    ("SELECT * FROM s AS a JOIN nowhere AS b ON a.k = b.k;", "table `nowhere` does not exist", 1, 27),
    ("SELECT k FROM s WHERE FROB(n) > 1;", "function `FROB` does not exist", 1, 23),
    ("SELECT k FROM s AS a JOIN s AS b ON a.k = b.k;", "column `k` is ambiguous", 1, 8),
    ("SELECT k, place.twon FROM s;", "`place.twon`: the column has no such field", 1, 1),
    ("SELECT s.place.spot.z FROM s;", "`s.place.spot.z`: the column has no such field", 1, 1),
    ("SELECT k FROM s WHERE n || v = '';", "`||` between INT and DOUBLE", 1, 23),
    ("INSERT INTO t SELECT k FROM s;", "table `t` does not exist", 1, 13),
    ("INSERT INTO o (k, m) SELECT k, 1 FROM s;", "column `m` does not exist", 1, 19),
    // Types.
    ("INSERT INTO o SELECT k FROM s;", "table `o` takes 2 columns, the query gives 1", 1, 13),
    ("INSERT INTO o (n) SELECT k, 1 FROM s;", "table `o` takes 1 columns, the query gives 2", 1, 13),
    ("INSERT INTO o (k, k) SELECT k, k FROM s;", "column `k` twice", 1, 19),
    (
        "INSERT INTO o SELECT n, v FROM s;",
        "column `k` of table `o` is STRING, column 1 of the query (`n`) is INT",
        1,
        13,
    ),
    ("SELECT k FROM s WHERE tags > 1;", "`>` between ARRAY<STRING> and INT", 1, 23),
    ("SELECT ts + 1 FROM s;", "accepted: a time and an INTERVAL", 1, 8),
    ("SELECT ts - ts FROM s;", "TIMESTAMPDIFF", 1, 8),
    ("SELECT k + n FROM s;", "`+` between STRING and INT", 1, 8),
    ("SELECT SPLIT_INDEX(v, ',', 0) FROM s;", "SPLIT_INDEX takes", 1, 8),
    ("SELECT SUM(k) FROM s;", "SUM takes (number), found (STRING)", 1, 8),
    ("SELECT MOD(n) FROM s;", "accepted: MOD(number, number)", 1, 8),
    ("SELECT k, n, COUNT(*) FROM s GROUP BY k;", "s.n", 1, 11),
    ("SELECT INTERVAL '1:2' SECOND FROM s;", "malformed", 1, 17),
    // Table functions.
    ("SELECT * FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(k), INTERVAL '1' SECOND));", "`k` is not a time attribute", 1, 48),
    ("SELECT * FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(tz), INTERVAL '1' SECOND));", "column `tz` does not exist", 1, 48),
    ("SELECT * FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts)));", "TUMBLE without its argument SIZE", 1, 21),
    ("SELECT * FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), 10));", "`10` is not an INTERVAL literal", 1, 53),
    (
        "SELECT * FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '1' MONTH));",
        "has no fixed length; use days or less",
        1,
        62,
    ),
    (
        "SELECT * FROM TABLE(HOP(TABLE s, DESCRIPTOR(ts), INTERVAL '3' SECOND, INTERVAL '10' SECOND));",
        "the size is not a multiple of the slide",
        1,
        80,
    ),
    ("SELECT * FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '0' SECOND));", "a length of zero or less", 1, 62),
    ("SELECT k,\n  TUMBLE_START(ts, INTERVAL '1' SECOND) FROM s;", "TUMBLE_START is not supported", 2, 3),
    ("SELECT * FROM TABLE(WOBBLE(TABLE s));", "table function `WOBBLE` does not exist", 1, 21),
    (
        "SELECT * FROM\n  TABLE(SESSION(TABLE s PARTITION BY k, DESCRIPTOR(ts), INTERVAL '1' MINUTE));",
        "SESSION without GROUP BY window_start, window_end directly above it is not supported",
        2,
        9,
    ),
    (
        "SELECT k, COUNT(*) FROM TABLE(SESSION(TABLE s PARTITION BY k, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY k;",
        "SESSION without GROUP BY window_start, window_end directly above it is not supported",
        1,
        31,
    ),
    (
        "SELECT n, COUNT(*) FROM TABLE(SESSION(TABLE s PARTITION BY k, DESCRIPTOR(ts), INTERVAL '1' MINUTE))\n\
         GROUP BY n, window_start, window_end;",
        "SESSION is partitioned by `k`, and its rows are grouped by (n)",
        1,
        31,
    ),
    ("SELECT * FROM TABLE(ML_PREDICT(TABLE s, MODEL m, DESCRIPTOR(v)));", "model `m` does not exist", 1, 47),
    // What is known and not supported.
    ("SELECT k FROM s ORDER BY k;", "ORDER BY is not supported", 1, 26),
    ("SELECT k FROM s LIMIT 3;", "LIMIT is not supported", 1, 23),
    ("SELECT COUNT(*) OVER (ORDER BY ts) FROM s;", "the OVER window of COUNT is not supported", 1, 8),
    ("SELECT k FROM s UNION ALL\nSELECT k FROM s EXCEPT SELECT k FROM o;", "EXCEPT is not supported", 2, 24),
    ("SELECT (SELECT MAX(n) FROM s) FROM s;", "a scalar subquery is not supported", 1, 9),
    (
        "SELECT k FROM s FOR SYSTEM_TIME AS OF ts;",
        "FOR SYSTEM_TIME AS OF a table that is not joined is not supported",
        1,
        15,
    ),
    ("SELECT /*+ OPTIONS('a'='b') */ k FROM s;", "hints `/*+ … */` are not supported", 1, 8),
    ("SELECT DISTINCT ON (k) k FROM s;", "DISTINCT ON is not supported", 1, 1),
    ("SELECT a.k FROM s AS a JOIN s AS b ON a.n = b.n;", "a regular join is not supported", 1, 39),
    ("SELECT k FROM s WHERE k SIMILAR TO k;", "SIMILAR TO without a literal pattern is not supported", 1, 23),
    // Options.
    (
        "CREATE TABLE t (a INT) WITH ('connector' = 'datagen',\n  'rows-per-secnd' = '5');\nSELECT * FROM t;",
        "rows-per-secnd",
        2,
        3,
    ),
    ("CREATE TABLE t (a INT) WITH ('connector' = 'pigeon');\nSELECT * FROM t;", "expected 'filesystem'", 1, 30),
    (
        "CREATE TABLE t (a INT) WITH ('connector' = 'datagen', 'late.table' = 'nowhere');\nSELECT * FROM t;",
        "side table `nowhere` does not exist",
        1,
        55,
    ),
    ("CREATE TABLE t (a INT) WITH ('number-of-rows' = '5');\nSELECT * FROM t;", "option 'connector' is missing", 1, 1),
    ("DROP TABLE o;\nSET 'state.backend' = 'tape'; SELECT k FROM s;", "'memory' or 'rocksdb'", 2, 1),
    ("SET 'state.backends' = 'rocksdb';\nSELECT k FROM s;", "near: 'state.backend'", 1, 1),
    ("SET 'parallelism.default' = '200';\nSELECT k FROM s;", "parallelism 200 is more than the 128 key groups", 1, 1),
    (
        "CREATE TABLE t (a INT) WITH ('connector' = 'datagen',\n  'tier' = 'moon');\nSELECT * FROM t;",
        "option 'tier': found 'moon', expected 'device', 'gateway', 'regional' or 'cloud'",
        2,
        3,
    ),
    (
        "CREATE TABLE t (k STRING) WITH ('connector' = 'print',\n 'site.selector' = 'plant');\nINSERT INTO t SELECT k FROM s;",
        "found 'plant', expected labels with their values like 'plant=a,line=*'",
        2,
        2,
    ),
    (
        "DROP TABLE o;\nSET 'tier' = 'moon';\nSELECT k FROM s;",
        "accepted: 'device', 'gateway', 'regional' or 'cloud'",
        2,
        1,
    ),
    ("SET 'restart-strategy.type' = 'never';\nSELECT k FROM s;", "'exponential-delay', 'fixed-delay' or 'none'", 1, 1),
    ("SET 'execution.checkpointing.mode' = 'AT_LEAST_ONCE';\nSELECT k FROM s;", "accepted: EXACTLY_ONCE", 1, 1),
    (
        "SET 'execution.checkpointing.num-retained' = '3';\nSET 'state.checkpoints.num-retained' = '2';\nSELECT k FROM s;",
        "which is the same option",
        2,
        1,
    ),
    ("SET 'exchange.compresion' = 'lz4';\nSELECT k FROM s;", "near: 'exchange.compression'", 1, 1),
    ("SELECT k FROM s WHERE v > ${least};", "variable `least` is not set", 1, 27),
];

#[test]
fn bad_sql_is_refused_in_words_at_its_place() {
    let before = TABLES.lines().count() as u64;
    let mut wrong = String::new();
    for (sql, expected, line, column) in BAD {
        match try_plan(&format!("{TABLES}{sql}"), 1) {
            Ok(_) => wrong += &format!("accepted: {sql}\n\n"),
            Err(error) => {
                let text = error.to_string();
                let place = (error.line.wrapping_sub(before), error.column);
                let ours = !text.contains("nternal error") && !text.contains("ef_");
                if !text.contains(expected) || place != (*line, *column) || !ours {
                    wrong +=
                        &format!("{sql}\n  {}:{}: {text}\n  not: {line}:{column}: {expected}\n\n", place.0, place.1);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_message_shows_the_line_and_what_is_meant() {
    let error = super::refused("CREATE TABLE t (a INT) WITH ('connector' = 'datagen');\nSELECT\ta,\n\tab FROM t;");
    assert_eq!(
        error.to_string(),
        "line 3, column 2: column `ab` does not exist\n  \tab FROM t;\n  \t^^\n  did you mean `a`?"
    );
}

#[test]
fn of_a_long_line_the_message_shows_the_part_around_its_place() {
    let long = format!("SELECT {}wrong, {}a FROM t;", "a, ".repeat(1_000), "a, ".repeat(1_000));
    let error = super::refused(&format!("CREATE TABLE t (a INT) WITH ('connector' = 'datagen');\n{long}"));
    assert_eq!((error.line, error.column), (2, 3_008));
    let text = error.to_string();
    let lines: Vec<Vec<char>> = text.lines().map(|line| line.chars().collect()).collect();
    assert!(text.len() < 1_000 && lines[1].starts_with(&[' ', ' ', '…']), "{text}");
    let caret = lines[2].iter().position(|c| *c == '^').expect("a caret");
    assert_eq!(lines[1][caret..caret + 5].iter().collect::<String>(), "wrong");
    assert_eq!(lines[2].len(), caret + 5, "{text}");
}
