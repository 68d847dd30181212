//! Seeded test data of our own: sensor readings, and a small auction with persons, auctions and bids.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::fmt::Write;

/// 2026-03-14 00:00:00 UTC.
pub const BASE_MS: i64 = 1_773_446_400_000;

/// `yyyy-MM-dd HH:mm:ss.SSS` for times on the days from 2026-03-01 to 2026-03-31.
pub fn timestamp(ms: i64) -> String {
    let march_first = BASE_MS - 13 * 86_400_000;
    let day = (ms - march_first).div_euclid(86_400_000);
    let in_day = (ms - march_first).rem_euclid(86_400_000);
    assert!((0..31).contains(&day), "the generator stays in March");
    format!(
        "2026-03-{:02} {:02}:{:02}:{:02}.{:03}",
        day + 1,
        in_day / 3_600_000,
        in_day / 60_000 % 60,
        in_day / 1000 % 60,
        in_day % 1000
    )
}

/// One reading of one device.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    pub device: u32,
    pub ts: i64,
    pub value: f64,
}

/// `rows` readings, one every `step_ms` on average, out of order by less than `jitter_ms`.
pub fn readings(seed: u64, rows: usize, devices: u32, step_ms: i64, jitter_ms: i64) -> Vec<Reading> {
    let mut rng = SmallRng::seed_from_u64(seed);
    (0..rows)
        .map(|i| Reading {
            device: rng.random_range(0..devices),
            ts: BASE_MS + i as i64 * step_ms - rng.random_range(0..jitter_ms.max(1)),
            value: f64::from(rng.random_range(-200..3000)) / 10.0,
        })
        .collect()
}

pub fn readings_ndjson(readings: &[Reading]) -> String {
    let mut text = String::new();
    for r in readings {
        writeln!(text, r#"{{"device_id":"dev-{}","ts":"{}","value":{}}}"#, r.device, timestamp(r.ts), r.value)
            .expect("a string grows");
    }
    text
}

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Person { id: i64, name: String, state: &'static str, ts: i64 },
    Auction { id: i64, seller: i64, category: i64, ts: i64 },
    Bid { auction: i64, bidder: i64, price: i64, ts: i64 },
}

/// A small auction: of 20 events 1 person, 2 auctions, 17 bids; out of order by less than 2 s; a gap in the middle.
pub fn auction(seed: u64, events: usize) -> Vec<Event> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let (mut persons, mut auctions) = (0i64, 0i64);
    (0..events)
        .map(|i| {
            let gap = if i > events / 2 { 3_600_000 } else { 0 };
            let ts = BASE_MS + i as i64 * 7 + gap - rng.random_range(0..2000);
            match i % 20 {
                0 => {
                    persons += 1;
                    let state = ["OR", "ID", "CA", "WA"][rng.random_range(0..4)];
                    Event::Person { id: 1000 + persons, name: format!("Ada {persons}"), state, ts }
                }
                1 | 2 => {
                    auctions += 1;
                    let seller = 1000 + rng.random_range((persons - 3).max(1)..=persons);
                    Event::Auction { id: 1000 + auctions, seller, category: rng.random_range(10..15), ts }
                }
                _ => Event::Bid {
                    auction: 1000 + rng.random_range((auctions - 9).max(1)..=auctions),
                    bidder: 1000 + rng.random_range(1..=persons),
                    price: rng.random_range(100..1_000_000),
                    ts,
                },
            }
        })
        .collect()
}

pub fn auction_ndjson(events: &[Event]) -> String {
    let mut text = String::new();
    for event in events {
        match event {
            Event::Person { id, name, state, ts } => writeln!(
                text,
                r#"{{"event_type":0,"person":{{"id":{id},"name":"{name}","emailAddress":"a@b","creditCard":"1","city":"X","state":"{state}","dateTime":"{}","extra":""}},"auction":null,"bid":null}}"#,
                timestamp(*ts)
            ),
            Event::Auction { id, seller, category, ts } => writeln!(
                text,
                r#"{{"event_type":1,"person":null,"auction":{{"id":{id},"itemName":"i","description":"d","initialBid":1,"reserve":2,"dateTime":"{0}","expires":"{0}","seller":{seller},"category":{category},"extra":""}},"bid":null}}"#,
                timestamp(*ts)
            ),
            Event::Bid { auction, bidder, price, ts } => writeln!(
                text,
                r#"{{"event_type":2,"person":null,"auction":null,"bid":{{"auction":{auction},"bidder":{bidder},"price":{price},"channel":"c","url":"u","dateTime":"{}","extra":"x y"}}}}"#,
                timestamp(*ts)
            ),
        }
        .expect("a string grows");
    }
    text
}
