//! The auction queries give their rows: at parallelism 1 and 4, on memory and on RocksDB. On recorded data where it
//! is there, on our own generator's with a naive recomputation everywhere.

use ef_tests::events::{Event, auction, auction_ndjson, timestamp};
use ef_tests::rows::{Row, assert_same, csv, directory, ndjson};
use ef_tests::{Run, shared};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// (parallelism, state backend).
const SETTINGS: [(&str, &str); 4] = [("1", "memory"), ("4", "memory"), ("1", "rocksdb"), ("4", "rocksdb")];

#[test]
fn recorded_queries_give_their_expected_rows() {
    let Some(shared) = shared::folder() else { return };
    let nexmark = shared.join("nexmark");
    let mut ran = 0;
    let work = tempfile::tempdir().expect("a temporary directory");
    let events = shared::text(&nexmark.join("events_100k.ndjson.gz"));
    std::fs::write(work.path().join("events.ndjson"), events).expect("writable");
    let ddl = shared::text(&nexmark.join("queries/ddl.sql"));
    for query in ["q0", "q1", "q2", "q5", "q7w", "q8"] {
        let text = shared::text(&nexmark.join(format!("queries/{query}.sql")));
        let expected = shared::text(&shared::either(&nexmark, &format!("expected/{query}.csv")));
        let (columns, expected) = csv(&expected);
        for (parallelism, backend) in SETTINGS {
            let what = format!("{query} at parallelism {parallelism} on {backend}");
            let _ = std::fs::remove_dir_all(work.path().join("out"));
            let sql = format!("SET 'state.backend' = '{backend}';\n{ddl}\n{text}");
            Run::sql(work.path(), &sql).args(&["-p", parallelism]).done().success();
            let found = ndjson(&directory(&work.path().join("out").join(query)), &columns);
            assert_same(&what, found, expected.clone(), 1e-9);
            ran += 1;
        }
    }
    shared::say(&format!("recorded cases: {ran} ran (auction queries)"));
}

const DDL: &str = "
CREATE TABLE events (
  event_type INT,
  person ROW<id BIGINT, name STRING, state STRING, `dateTime` TIMESTAMP(3)>,
  auction ROW<id BIGINT, seller BIGINT, category BIGINT, `dateTime` TIMESTAMP(3)>,
  bid ROW<auction BIGINT, bidder BIGINT, price BIGINT, `dateTime` TIMESTAMP(3)>,
  ts AS CASE event_type WHEN 0 THEN person.`dateTime` WHEN 1 THEN auction.`dateTime` ELSE bid.`dateTime` END,
  WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'events.ndjson', 'format' = 'json', 'source.split-size' = '64kb');
CREATE VIEW person AS SELECT person.id, person.name, ts FROM events WHERE event_type = 0;
CREATE VIEW auction AS SELECT auction.id, auction.seller, ts FROM events WHERE event_type = 1;
CREATE VIEW bid AS SELECT bid.auction, bid.bidder, bid.price, ts FROM events WHERE event_type = 2;
";

fn check(name: &str, events: &[Event], columns: &[&str], query: &str, expected: &[Row]) {
    assert!(!expected.is_empty(), "{name}: an oracle that expects nothing proves nothing");
    let work = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(work.path().join("events.ndjson"), auction_ndjson(events)).expect("writable");
    let columns: Vec<String> = columns.iter().map(|c| c.to_string()).collect();
    for (parallelism, backend) in SETTINGS {
        let sql = format!("SET 'state.backend' = '{backend}';\n{DDL}\n{query};");
        let done = Run::sql(work.path(), &sql).args(&["-p", parallelism]).done().success();
        let found = ndjson(&done.stdout, &columns);
        assert_same(&format!("{name} at parallelism {parallelism} on {backend}"), found, expected.to_vec(), 1e-9);
    }
}

fn bids(events: &[Event]) -> impl Iterator<Item = (i64, i64, i64, i64)> {
    events.iter().filter_map(|event| match event {
        Event::Bid { auction, bidder, price, ts } => Some((*auction, *bidder, *price, *ts)),
        _ => None,
    })
}

/// Starts of the windows of `size` every `slide` that hold `ts`.
fn windows(ts: i64, size: i64, slide: i64) -> impl Iterator<Item = i64> {
    let last = ts.div_euclid(slide) * slide;
    (0..size / slide).map(move |k| last - k * slide)
}

#[test]
fn projection_and_filter_keep_exactly_the_matching_bids() {
    let events = auction(11, 20_000);
    let expected: Vec<Row> = bids(&events)
        .filter(|(auction, ..)| auction % 7 == 0)
        .map(|(auction, _, price, _)| {
            vec![auction.to_string(), format!("{}.{:03}", price * 908 / 1000, price * 908 % 1000)]
        })
        .collect();
    let query = "SELECT auction, 0.908 * price AS euro FROM bid WHERE MOD(auction, 7) = 0";
    check("projection and filter", &events, &["auction", "euro"], query, &expected);
}

#[test]
fn hopping_counts_joined_with_their_maximum_are_the_hot_items() {
    let events = auction(12, 20_000);
    let mut counts: BTreeMap<(i64, i64), i64> = BTreeMap::new();
    for (auction, _, _, ts) in bids(&events) {
        for start in windows(ts, 10_000, 2000) {
            *counts.entry((start, auction)).or_default() += 1;
        }
    }
    let mut top: BTreeMap<i64, i64> = BTreeMap::new();
    for ((start, _), n) in &counts {
        let most = top.entry(*start).or_default();
        *most = (*most).max(*n);
    }
    let expected: Vec<Row> = counts
        .iter()
        .filter(|((start, _), n)| top[start] == **n)
        .map(|((start, auction), n)| {
            vec![auction.to_string(), n.to_string(), timestamp(*start), timestamp(start + 10_000)]
        })
        .collect();
    let query = "
        SELECT c.auction, c.num, c.window_start, c.window_end FROM (
          SELECT auction, COUNT(*) AS num, window_start, window_end
          FROM TABLE(HOP(TABLE bid, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
          GROUP BY auction, window_start, window_end) AS c
        JOIN (
          SELECT MAX(k.num) AS top, k.window_start, k.window_end FROM (
            SELECT auction, COUNT(*) AS num, window_start, window_end
            FROM TABLE(HOP(TABLE bid, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
            GROUP BY auction, window_start, window_end) AS k
          GROUP BY k.window_start, k.window_end) AS m
        ON c.window_start = m.window_start AND c.window_end = m.window_end AND c.num >= m.top";
    check("hot items", &events, &["auction", "num", "window_start", "window_end"], query, &expected);
}

#[test]
fn window_join_finds_persons_who_sold_in_the_window_they_came_in() {
    let events = auction(13, 20_000);
    let mut came: BTreeSet<(i64, i64, String)> = BTreeSet::new();
    let mut sold: BTreeSet<(i64, i64)> = BTreeSet::new();
    for event in &events {
        match event {
            Event::Person { id, name, ts, .. } => {
                came.insert((ts.div_euclid(10_000) * 10_000, *id, name.clone()));
            }
            Event::Auction { seller, ts, .. } => {
                sold.insert((ts.div_euclid(10_000) * 10_000, *seller));
            }
            Event::Bid { .. } => {}
        }
    }
    let rows = |keep: bool| -> Vec<Row> {
        came.iter()
            .filter(|(start, id, _)| sold.contains(&(*start, *id)) == keep)
            .map(|(start, id, name)| vec![id.to_string(), name.clone(), timestamp(*start)])
            .collect()
    };
    let sides = "
        (SELECT id, name, window_start, window_end
         FROM TABLE(TUMBLE(TABLE person, DESCRIPTOR(ts), INTERVAL '10' SECOND))
         GROUP BY id, name, window_start, window_end) AS p
        JOINED JOIN
        (SELECT seller, window_start, window_end
         FROM TABLE(TUMBLE(TABLE auction, DESCRIPTOR(ts), INTERVAL '10' SECOND))
         GROUP BY seller, window_start, window_end) AS a
        ON p.id = a.seller AND p.window_start = a.window_start AND p.window_end = a.window_end";
    let query =
        |kind: &str| format!("SELECT p.id, p.name, p.window_start AS stime FROM {}", sides.replace("JOINED", kind));
    let columns = ["id", "name", "stime"];
    check("inner window join", &events, &columns, &query("INNER"), &rows(true));
    check("left semi window join", &events, &columns, &query("LEFT SEMI"), &rows(true));
    check("left anti window join", &events, &columns, &query("LEFT ANTI"), &rows(false));
}

#[test]
fn changelog_folds_to_the_totals_of_each_key() {
    let events = auction(14, 20_000);
    let mut totals: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for (_, bidder, price, _) in bids(&events) {
        let total = totals.entry(bidder).or_default();
        *total = (total.0 + 1, total.1 + price);
    }
    let work = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(work.path().join("events.ndjson"), auction_ndjson(&events)).expect("writable");
    for (parallelism, backend) in SETTINGS {
        let query = "SELECT bidder, COUNT(*) AS n, SUM(price) AS total FROM bid GROUP BY bidder";
        let sql = format!("SET 'state.backend' = '{backend}';\n{DDL}\n{query};");
        let done = Run::sql(work.path(), &sql).args(&["-p", parallelism]).done().success();
        let columns = ["_op", "bidder", "n", "total"].map(String::from);
        let mut rows: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
        for row in ndjson(&done.stdout, &columns) {
            let value = |i: usize| row[i].parse::<i64>().expect("a number");
            let (key, value) = (value(1), (value(2), value(3)));
            // Each step of the changelog must fit what came before it.
            match row[0].as_str() {
                "+I" => assert_eq!(rows.insert(key, value), None, "+I of a key that is there: {row:?}"),
                "+U" => assert_eq!(rows.insert(key, value), None, "+U without -U: {row:?}"),
                "-U" | "-D" => assert_eq!(rows.remove(&key), Some(value), "retracts what is not there: {row:?}"),
                op => panic!("unknown _op {op}"),
            }
        }
        assert_eq!(rows, totals, "at parallelism {parallelism} on {backend}");
    }
}

#[test]
fn folder_of_the_checkout_is_never_written_to() {
    // The tests above run in temporary directories; a path that leaks would show here.
    assert!(!Path::new(env!("CARGO_MANIFEST_DIR")).join("out").exists());
}
