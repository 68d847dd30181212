//! Generated events: proportions, references, times; the same after a restart and for any split.

use super::*;
use crate::connector::Polled;
use crate::connector::generate::tests::place;
use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};

fn spec(table: Option<NexmarkTable>, events: u64) -> Nexmark {
    Nexmark {
        table,
        events: Some(events),
        event_rate: 1000,
        rows_per_second: None,
        seed: 7,
        base_time_ms: 1_000_000,
        disorder_ms: 50,
    }
}

fn all(spec: &Nexmark, physical: &Schema, parallelism: u32) -> Vec<String> {
    let mut lines = Vec::new();
    let mut encoder = crate::format::encode::lines(physical, false);
    for index in 0..parallelism {
        let mut source = source(spec, physical, &place(index, parallelism), &[], Box::new(|| 0)).expect("opens");
        loop {
            match source.poll(&[]).expect("polls") {
                Polled::Batch(batch) => {
                    let mut out = Vec::new();
                    encoder.encode(&batch.batch, &mut out).expect("encodes");
                    lines.extend(String::from_utf8(out).expect("text").lines().map(str::to_owned));
                }
                Polled::End => break,
                _ => {}
            }
        }
    }
    lines.sort();
    lines
}

#[test]
fn events_are_the_same_at_any_parallelism() {
    let physical = Schema::new(Nexmark::columns(None));
    let alone = all(&spec(None, 10_000), &physical, 1);
    assert_eq!(alone.len(), 10_000);
    assert_eq!(alone, all(&spec(None, 10_000), &physical, 3));
}

#[test]
fn a_flat_table_has_the_rows_of_the_nested_one() {
    let nested = all(&spec(None, 5_003), &Schema::new(Nexmark::columns(None)), 1);
    for (table, name) in
        [(NexmarkTable::Person, "person"), (NexmarkTable::Auction, "auction"), (NexmarkTable::Bid, "bid")]
    {
        let flat = all(&spec(Some(table), 5_003), &Schema::new(Nexmark::columns(Some(table))), 2);
        let mut objects: Vec<String> = Vec::new();
        for line in &nested {
            let event: serde_json::Value = serde_json::from_str(line).expect("json");
            assert_eq!(event[name].is_null(), event["event_type"] != table as i32);
            if !event[name].is_null() {
                objects.push(event[name].to_string());
            }
        }
        let reparse = |line: &String| serde_json::from_str::<serde_json::Value>(line).expect("json").to_string();
        let mut flat: Vec<String> = flat.iter().map(reparse).collect();
        objects.sort();
        flat.sort();
        assert_eq!(flat, objects, "{name}");
    }
}

#[test]
fn shares_of_events_bids_and_prices_follow_the_model() {
    let mut events = Events::new(&spec(None, 0), &Schema::new(Nexmark::columns(None))).expect("opens");
    let batch = events.make(100_000..200_000, 0, 0).expect("makes");
    let kinds = batch.column(0).as_primitive::<Int32Type>();
    let count = |kind| kinds.values().iter().filter(|k| **k == kind).count();
    assert_eq!((count(0), count(1), count(2)), (2_000, 6_000, 92_000));
    let bid = batch.column(3).as_struct();
    assert_eq!(bid.null_count(), 8_000);
    let bids: Vec<usize> = (0..batch.num_rows()).filter(|row| bid.is_valid(*row)).collect();
    let column = |name: &str| bid.column_by_name(name).expect("a column").as_primitive::<Int64Type>().clone();
    let (auction, price) = (column("auction"), column("price"));
    let hot = bids.iter().filter(|row| auction.value(**row) % 100 == 0).count() as f64 / bids.len() as f64;
    assert!((0.49..0.53).contains(&hot), "{hot} of the bids go to hot auctions");
    let below_10k = bids.iter().filter(|row| price.value(**row) < 100_000).count() as f64 / bids.len() as f64;
    assert!((0.49..0.51).contains(&below_10k), "the median price is 100,000, found a share of {below_10k}");
    assert!(bids.iter().all(|row| (100..=100_000_000).contains(&price.value(*row))));
}
