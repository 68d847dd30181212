//! Window queries beyond plain counts, against a naive recomputation: UNION ALL, windows over windows, the aggregate
//! functions, joins of windows, and windows of the processing clock.

use ef_tests::Run;
use ef_tests::events::{BASE_MS, timestamp};
use ef_tests::rows::{Row, assert_same, ndjson};
use ef_tests::seed::seed;
use ef_tests::table::{json, objects};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

const SETTINGS: [(&str, &str); 4] = [("1", "memory"), ("4", "memory"), ("1", "rocksdb"), ("4", "rocksdb")];

#[derive(Clone, Debug)]
struct Event {
    id: usize,
    key: u32,
    ts: i64,
    value: Option<i64>,
    word: &'static str,
}

/// Events about 5 ms apart, out of order by less than the watermark's delay, some values NULL.
fn events(seed: u64, rows: usize, keys: u32) -> Vec<Event> {
    let mut rng = SmallRng::seed_from_u64(seed);
    (0..rows)
        .map(|id| Event {
            id,
            key: rng.random_range(0..keys),
            ts: BASE_MS + id as i64 * 5 - rng.random_range(0..2000),
            value: rng.random_bool(0.9).then(|| rng.random_range(-50..50)),
            word: ["alpha", "beta", "gamma", "delta"][rng.random_range(0..4)],
        })
        .collect()
}

fn write_events(path: &Path, events: &[Event]) {
    let mut text = String::new();
    for e in events {
        let value = e.value.map_or("null".into(), |v| v.to_string());
        let (id, key, ts, word) = (e.id, e.key, timestamp(e.ts), e.word);
        writeln!(text, r#"{{"id":{id},"key":"k{key}","ts":"{ts}","value":{value},"word":"{word}"}}"#).expect("memory");
    }
    std::fs::write(path, text).expect("writable");
}

/// Tables `a` and `b` over `a.ndjson` and `b.ndjson`.
fn ddl() -> String {
    ["a", "b"]
        .map(|name| {
            format!(
                "CREATE TABLE {name} (id BIGINT, `key` STRING, ts TIMESTAMP(3), `value` BIGINT, word STRING,
                   WATERMARK FOR ts AS ts - INTERVAL '3' SECOND)
                 WITH ('connector' = 'filesystem', 'path' = '{name}.ndjson', 'format' = 'json');"
            )
        })
        .concat()
}

fn start(ts: i64, size: i64) -> i64 {
    ts.div_euclid(size) * size
}

fn text(value: Option<impl std::fmt::Display>) -> String {
    value.map_or(String::new(), |v| v.to_string())
}

/// Runs a query over both tables in all settings.
fn check(query: &str, seed: u64, inputs: [&[Event]; 2], columns: &[&str], expected: &[Row]) {
    assert!(!expected.is_empty());
    let work = tempfile::tempdir().expect("a temporary directory");
    for (name, events) in ["a", "b"].into_iter().zip(inputs) {
        write_events(&work.path().join(format!("{name}.ndjson")), events);
    }
    let columns: Vec<String> = columns.iter().map(|c| c.to_string()).collect();
    for (parallelism, backend) in SETTINGS {
        let what = format!("EDGEFLOW_SEED={seed} at parallelism {parallelism} on {backend}: {query}");
        let sql = format!("SET 'state.backend' = '{backend}';{}{query}", ddl());
        let done =
            Run::sql(work.path(), &sql).args(&["-p", parallelism, "--summary-json", "summary.json"]).done().success();
        assert_same(&what, ndjson(&done.stdout, &columns), expected.to_vec(), 1e-9);
        assert_eq!(json(&work.path().join("summary.json"))["late_rows"], 0, "{what}");
    }
}

#[test]
fn union_all_of_two_files_holds_the_rows_of_both() {
    let seed = seed();
    // The second stream starts later: its file is over before the first one's middle is, or the other way round.
    let a = events(seed, 8000, 5);
    let b: Vec<Event> = events(seed ^ 1, 3000, 5).into_iter().map(|e| Event { ts: e.ts + 30_000, ..e }).collect();
    let mut windows: BTreeMap<(u32, i64, i64), (usize, usize)> = BTreeMap::new();
    for (at, e) in a.iter().map(|e| (0, e)).chain(b.iter().filter(|e| e.word != "beta").map(|e| (1, e))) {
        let first = start(e.ts, 6000);
        for end in (1..=3).map(|n| first + n * 2000).filter(|end| *end > e.ts) {
            let count = windows.entry((e.key, first, end)).or_default();
            *count = (count.0 + 1, count.1 + at);
        }
    }
    let expected: Vec<Row> = windows
        .into_iter()
        .map(|((key, start, end), (n, of_b))| {
            vec![format!("k{key}"), timestamp(start), timestamp(end), n.to_string(), of_b.to_string()]
        })
        .collect();
    let query = "CREATE VIEW both_tables AS SELECT `key`, ts, 0 AS of_b FROM a
                   UNION ALL SELECT `key`, ts, 1 AS of_b FROM b WHERE word <> 'beta';
                 SELECT `key`, window_start, window_end, COUNT(*) AS n, SUM(of_b) AS of_b
                 FROM TABLE(CUMULATE(TABLE both_tables, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '6' SECOND))
                 GROUP BY `key`, window_start, window_end;";
    check(query, seed, [&a, &b], &["key", "window_start", "window_end", "n", "of_b"], &expected);
}

#[test]
fn a_window_over_the_rows_of_a_window_adds_them_up() {
    let seed = seed();
    let a = events(seed, 10_000, 20);
    let mut small: BTreeMap<(i64, u32), i64> = BTreeMap::new();
    for e in &a {
        *small.entry((start(e.ts, 1000), e.key)).or_default() += 1;
    }
    let mut large: BTreeMap<i64, (i64, i64, BTreeSet<u32>)> = BTreeMap::new();
    for ((second, key), n) in small {
        let window = large.entry(start(second, 10_000)).or_default();
        window.0 += n;
        window.1 = window.1.max(n);
        window.2.insert(key);
    }
    let expected: Vec<Row> = large
        .into_iter()
        .map(|(start, (n, most, keys))| vec![timestamp(start), n.to_string(), most.to_string(), keys.len().to_string()])
        .collect();
    let query = "CREATE VIEW per_second AS SELECT `key`, window_time AS t, COUNT(*) AS n
                   FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(ts), INTERVAL '1' SECOND)) GROUP BY `key`, window_start, window_end, window_time;
                 SELECT window_start, SUM(n) AS n, MAX(n) AS most, COUNT(DISTINCT `key`) AS k
                 FROM TABLE(TUMBLE(TABLE per_second, DESCRIPTOR(t), INTERVAL '10' SECOND)) GROUP BY window_start, window_end;";
    check(query, seed, [&a, &[]], &["window_start", "n", "most", "k"], &expected);
}

#[test]
fn aggregate_functions_agree_with_their_definitions() {
    let seed = seed();
    let a = events(seed, 10_000, 5);
    let mut windows: BTreeMap<(u32, i64), Vec<&Event>> = BTreeMap::new();
    for e in &a {
        windows.entry((e.key, start(e.ts, 2000))).or_default().push(e);
    }
    let expected: Vec<Row> = windows
        .into_iter()
        .map(|((key, start), events)| {
            let values: Vec<i64> = events.iter().filter_map(|e| e.value).collect();
            let distinct = |all: Vec<i64>| all.into_iter().collect::<BTreeSet<_>>().len();
            let words: BTreeSet<&str> = events.iter().map(|e| e.word).collect();
            let positive: Vec<i64> = values.iter().copied().filter(|v| *v > 0).collect();
            let n = values.len() as f64;
            let mean = values.iter().sum::<i64>() as f64 / n;
            let squares: f64 = values.iter().map(|v| (*v as f64 - mean).powi(2)).sum();
            let some = |count: f64, x: f64| text((n >= count).then(|| format!("{x:?}")));
            vec![
                format!("k{key}"),
                timestamp(start),
                events.len().to_string(),
                values.len().to_string(),
                distinct(values.clone()).to_string(),
                words.len().to_string(),
                distinct(positive.clone()).to_string(),
                text((!positive.is_empty()).then(|| positive.iter().sum::<i64>())),
                text(values.first()),
                text(values.last()),
                text(words.first()),
                text(words.last()),
                some(1.0, squares / n),
                some(2.0, squares / (n - 1.0)),
                some(1.0, (squares / n).sqrt()),
                some(2.0, (squares / (n - 1.0)).sqrt()),
            ]
        })
        .collect();
    // The columns that hold doubles come last: rows are paired by those before them.
    let query = "SELECT `key`, window_start, COUNT(*) AS n, COUNT(`value`) AS n_values,
                   COUNT(DISTINCT `value`) AS d_values, COUNT(DISTINCT word) AS d_words,
                   COUNT(DISTINCT `value`) FILTER (WHERE `value` > 0) AS d_positive, SUM(`value`) FILTER (WHERE `value` > 0) AS positive,
                   FIRST_VALUE(`value`) AS first_one, LAST_VALUE(`value`) AS last_one, MIN(word) AS lo, MAX(word) AS hi,
                   VAR_POP(`value`) AS vp, VAR_SAMP(`value`) AS vs, STDDEV_POP(`value`) AS sp, STDDEV_SAMP(`value`) AS ss
                 FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(ts), INTERVAL '2' SECOND)) GROUP BY `key`, window_start, window_end;";
    let columns = [
        "key",
        "window_start",
        "n",
        "n_values",
        "d_values",
        "d_words",
        "d_positive",
        "positive",
        "first_one",
        "last_one",
        "lo",
        "hi",
        "vp",
        "vs",
        "sp",
        "ss",
    ];
    check(query, seed, [&a, &[]], &columns, &expected);
}

#[test]
fn window_joins_pair_the_rows_of_equal_windows() {
    let seed = seed();
    let a = events(seed, 3000, 40);
    let b: Vec<Event> = events(seed ^ 1, 2000, 40).into_iter().map(|e| Event { ts: e.ts + 1000, ..e }).collect();
    let window = |e: &Event| start(e.ts, 1000);
    // A key that is NULL pairs with nothing, as `value` is here.
    let equal =
        |l: &Event, r: &Event| window(l) == window(r) && l.key == r.key && l.value.is_some() && l.value == r.value;
    let kept = |l: &Event, r: &Event| equal(l, r) && l.word < r.word;
    let side = |e: Option<&Event>| [text(e.map(|e| e.id)), text(e.map(|e| e.word))];
    let row = |l: Option<&Event>, r: Option<&Event>| -> Row { [side(l), side(r)].concat() };
    let pairs = |outer_left: bool, outer_right: bool| {
        let mut rows: Vec<Row> = Vec::new();
        for l in &a {
            let matched: Vec<_> = b.iter().filter(|r| kept(l, r)).collect();
            rows.extend(matched.iter().map(|r| row(Some(l), Some(r))));
            if matched.is_empty() && outer_left {
                rows.push(row(Some(l), None));
            }
        }
        if outer_right {
            rows.extend(b.iter().filter(|r| !a.iter().any(|l| kept(l, r))).map(|r| row(None, Some(r))));
        }
        rows
    };
    let views = "CREATE VIEW l AS SELECT * FROM TABLE(TUMBLE(TABLE a, DESCRIPTOR(ts), INTERVAL '1' SECOND));
                 CREATE VIEW r AS SELECT * FROM TABLE(TUMBLE(TABLE b, DESCRIPTOR(ts), INTERVAL '1' SECOND));";
    let on = "l.window_start = r.window_start AND l.window_end = r.window_end AND l.`key` = r.`key` AND l.`value` = r.`value`";
    let columns = ["l_id", "l_word", "r_id", "r_word"];
    for (join, left, right) in [
        ("JOIN", false, false),
        ("LEFT JOIN", true, false),
        ("RIGHT JOIN", false, true),
        ("FULL OUTER JOIN", true, true),
    ] {
        let query = format!(
            "{views} SELECT l.id AS l_id, l.word AS l_word, r.id AS r_id, r.word AS r_word FROM l {join} r ON {on} AND l.word < r.word;"
        );
        check(&query, seed, [&a, &b], &columns, &pairs(left, right));
    }
    let ids = |keep: &dyn Fn(&Event) -> bool| -> Vec<Row> {
        a.iter().filter(|l| keep(l)).map(|l| vec![l.id.to_string(), timestamp(window(l))]).collect()
    };
    let semi = ids(&|l| b.iter().any(|r| equal(l, r)));
    let anti = ids(&|l| !b.iter().any(|r| equal(l, r)));
    // NOT IN is not true once either side is NULL, unless there is nothing to compare with.
    let not_in = ids(&|l| {
        b.iter().filter(|r| window(l) == window(r)).all(|r| matches!((l.value, r.value), (Some(x), Some(y)) if x != y))
    });
    let same_window = "r.window_start = l.window_start AND r.window_end = l.window_end";
    let select = format!("{views} SELECT l.id, l.window_start FROM l WHERE");
    let cases = [
        (format!("{select} EXISTS (SELECT 1 FROM r WHERE {on});"), &semi),
        (format!("{select} l.`value` IN (SELECT r.`value` FROM r WHERE {same_window} AND r.`key` = l.`key`);"), &semi),
        (format!("{select} NOT EXISTS (SELECT 1 FROM r WHERE {on});"), &anti),
        (format!("{select} l.`value` NOT IN (SELECT r.`value` FROM r WHERE {same_window});"), &not_in),
    ];
    for (query, expected) in cases {
        check(&query, seed, [&a, &b], &["id", "window_start"], expected);
    }
}

#[test]
fn processing_time_windows_hold_each_row_once() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let rows = 3000u64;
    for parallelism in ["1", "2"] {
        let sql = format!(
            "CREATE TABLE events (id BIGINT, device INT, at AS PROCTIME())
             WITH ('connector' = 'datagen', 'rows-per-second' = '2000', 'fields.device.min' = '0', 'fields.device.max' = '3',
                   'fields.id.kind' = 'sequence', 'fields.id.start' = '1', 'fields.id.end' = '{rows}');
             SELECT device, window_start, window_end, COUNT(*) AS n, SUM(id) AS ids
             FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(at), INTERVAL '0.2' SECOND)) GROUP BY device, window_start, window_end;"
        );
        let done = Run::sql(work.path(), &sql).args(&["-p", parallelism]).done().success();
        let found = objects(&done.stdout);
        let total = |column: &str| found.iter().map(|row| row[column].as_u64().expect("a number")).sum::<u64>();
        assert_eq!(total("n"), rows);
        assert_eq!(total("ids"), rows * (rows + 1) / 2);
        let windows: BTreeSet<(String, String)> =
            found.iter().map(|row| (row["window_start"].to_string(), row["window_end"].to_string())).collect();
        // 1.5 seconds of rows: more than one window, and no two overlap.
        assert!(windows.len() > 1, "{windows:?}");
        let in_order: Vec<_> = windows.iter().collect();
        assert!(in_order.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{windows:?}");
        let keys: BTreeSet<_> =
            found.iter().map(|row| (row["device"].to_string(), row["window_start"].to_string())).collect();
        assert_eq!(keys.len(), found.len(), "a window of a device came twice");
    }
}
