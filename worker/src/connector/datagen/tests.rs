//! Generated rows: ranges, distinct keys, sequences, disorder; the same after a restart.

use super::*;
use crate::connector::Polled;
use crate::connector::generate::tests::place;
use arrow_array::cast::AsArray;
use ef_proto::connector::{Options, SourceConnector};
use std::sync::atomic::{AtomicI64, Ordering};

fn field(name: &str, ty: DataType) -> Field {
    Field::new(name, ty, true)
}

fn parsed(physical: &Schema, pairs: &[(&str, &str)]) -> Datagen {
    let mut map: std::collections::BTreeMap<_, _> = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    map.insert("connector".into(), "datagen".into());
    let mut options = Options::new("t", map);
    match SourceConnector::parse(&mut options, physical).expect("options parse").0 {
        SourceConnector::Datagen(datagen) => datagen,
        other => panic!("{other:?}"),
    }
}

/// All rows of all subtasks as JSON lines, restarting from positions after every few batches.
fn lines(spec: &Datagen, physical: &Schema, parallelisms: &[u32]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut encoder = crate::format::encode::lines(physical, false);
    let mut blobs: Vec<Vec<u8>> = Vec::new();
    for (round, parallelism) in parallelisms.iter().enumerate() {
        let mut positions = Vec::new();
        for index in 0..*parallelism {
            let opened = source(spec, physical, &place(index, *parallelism), &blobs, Box::new(|| 1_000_000));
            let mut source = opened.expect("opens");
            let mut batches = 0;
            loop {
                match source.poll(&[]).expect("polls") {
                    Polled::Batch(batch) => {
                        let mut out = Vec::new();
                        encoder.encode(&batch.batch, &mut out).expect("encodes");
                        lines.extend(String::from_utf8(out).expect("text").lines().map(str::to_owned));
                        batches += 1;
                    }
                    Polled::End => break,
                    _ => {}
                }
                if batches == 1 + index && round + 1 < parallelisms.len() {
                    break;
                }
            }
            positions.push(source.position().expect("encodes"));
        }
        blobs = positions;
    }
    lines.sort();
    lines
}

#[test]
fn rows_of_every_type_are_the_same_at_any_parallelism_and_restore_point() {
    let row = DataType::Row(vec![field("a", DataType::Int32), field("b", DataType::Boolean)]);
    let physical = Schema::new(vec![
        field("id", DataType::Int64),
        field("tiny", DataType::Int8),
        field("real", DataType::Float64),
        field("money", DataType::Decimal { precision: 10, scale: 2 }),
        field("word", DataType::String),
        field("raw", DataType::Bytes),
        field("flag", DataType::Boolean),
        field("day", DataType::Date),
        field("ts", DataType::TimestampLtz(Unit::Micro)),
        field("row", row.clone()),
        field("list", DataType::Array(Box::new(row))),
        field("map", DataType::Map(Box::new(DataType::String), Box::new(DataType::Float32))),
    ]);
    let spec = parsed(
        &physical,
        &[
            ("number-of-rows", "20000"),
            ("seed", "3"),
            ("fields.id.kind", "sequence"),
            ("fields.id.start", "10"),
            ("fields.id.end", "1000000"),
            ("fields.word.length", "5"),
            ("fields.raw.length", "3"),
            ("fields.real.null-rate", "0.1"),
            ("fields.ts.event-time.start", "2026-03-14"),
            ("fields.ts.event-time.step", "250 us"),
            ("fields.ts.event-time.max-disorder", "2 s"),
        ],
    );
    let alone = lines(&spec, &physical, &[1]);
    assert_eq!(alone.len(), 20_000);
    assert_eq!(alone, lines(&spec, &physical, &[2, 3, 1, 4]));
}

#[test]
fn values_keep_to_their_ranges_and_pruning_changes_none() {
    let physical =
        Schema::new(vec![field("a", DataType::Int32), field("b", DataType::Float64), field("c", DataType::String)]);
    let spec = parsed(
        &physical,
        &[
            ("number-of-rows", "8000"),
            ("fields.a.min", "-5"),
            ("fields.a.max", "5"),
            ("fields.b.min", "1.5"),
            ("fields.b.max", "2.5"),
            ("fields.c.distinct", "7"),
            ("fields.c.length", "4"),
        ],
    );
    let whole = lines(&spec, &physical, &[1]);
    let mut seen = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    for line in &whole {
        let row: serde_json::Value = serde_json::from_str(line).expect("json");
        assert!((1.5..=2.5).contains(&row["b"].as_f64().expect("number")));
        seen.0.insert(row["a"].as_i64().expect("number"));
        seen.1.insert(row["c"].as_str().expect("text").to_owned());
    }
    assert!(seen.0.iter().copied().eq(-5..=5));
    assert_eq!(seen.1.len(), 7);
    let mut pruned = SourceConnector::Datagen(spec);
    pruned.prune(&[1]);
    let SourceConnector::Datagen(pruned) = pruned else { panic!("datagen stays datagen") };
    let only = lines(&pruned, &Schema::new(vec![physical.fields[1].clone()]), &[2]);
    let mut expected: Vec<String> = whole
        .iter()
        .map(|line| {
            let from = line.find("\"b\"").expect("column b");
            let to = line.find(",\"c\"").expect("column c");
            format!("{{{}}}", &line[from..to])
        })
        .collect();
    expected.sort();
    assert_eq!(only, expected);
}

#[test]
fn rows_per_second_follow_the_clock_over_all_subtasks() {
    let physical = Schema::new(vec![field("a", DataType::Int64)]);
    let spec = parsed(&physical, &[("rows-per-second", "1000"), ("fields.a.max", "9"), ("fields.a.min", "0")]);
    let now = Arc::new(AtomicI64::new(0));
    let mut made = 0;
    for index in 0..2 {
        let clock = now.clone();
        clock.store(0, Ordering::Relaxed);
        let opened = source(&spec, &physical, &place(index, 2), &[], Box::new(move || clock.load(Ordering::Relaxed)));
        let mut source = opened.expect("opens");
        assert!(!source.bounded());
        while now.load(Ordering::Relaxed) < 2_000 {
            match source.poll(&[]).expect("polls") {
                Polled::Batch(batch) => made += batch.batch.column(0).as_primitive::<Int64Type>().len(),
                Polled::Wait(ms) => {
                    assert!((1..=10).contains(&ms));
                    now.fetch_add(ms as i64, Ordering::Relaxed);
                }
                Polled::Opened(0) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert!((1_980..=2_020).contains(&made), "{made} rows in two seconds");
}
