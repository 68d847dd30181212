//! Sessions against a naive recomputation over random rows, disorder, watermarks and restarts.

use super::*;
use crate::operator::testing::*;
use crate::state::Kind;
use ef_proto::schema::Unit;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const BOUNDS: [(&str, DataType); 3] = [
    ("window_start", DataType::Timestamp(Unit::Milli)),
    ("window_end", DataType::Timestamp(Unit::Milli)),
    ("window_time", DataType::Timestamp(Unit::Milli)),
];
const GAP: i64 = 10;

/// The open sessions of one key's rows: runs of times at most `GAP` apart.
fn runs(rows: &[(Vec<Value>, i64)]) -> Vec<Vec<(Vec<Value>, i64)>> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|i| rows[*i].1);
    let mut runs: Vec<Vec<usize>> = Vec::new();
    for i in order {
        match runs.last_mut() {
            Some(run) if rows[i].1 - rows[*run.last().unwrap()].1 <= GAP => run.push(i),
            _ => runs.push(vec![i]),
        }
    }
    runs.into_iter()
        .map(|mut run| {
            run.sort_unstable();
            run.into_iter().map(|i| rows[i].clone()).collect()
        })
        .collect()
}

/// One random history; `broken`: a row that touches an open session is late by its own end.
fn agrees(seed: u64, keys: &[usize], kind: Kind, broken: bool) -> bool {
    let mut rng = SmallRng::seed_from_u64(seed);
    let aggregates = aggregates(false);
    let plan = plan::WindowAggregate {
        window: Window::Session { gap_ms: GAP },
        time: Time::Event { column: TIME },
        ltz: false,
        keys: keys.to_vec(),
        aggregates: aggregates.clone(),
        phase: Phase::Single,
        late_output: true,
    };
    let make = || SessionAggregate::new(&plan, &input(), &output(keys, &aggregates, &BOUNDS), 16, 0..16).unwrap();
    let mut operator = make();
    let mut out = World::new(kind);
    operator.restore(&mut out.store, &[]).unwrap();
    let mut open: BTreeMap<String, Vec<(Vec<Value>, i64)>> = BTreeMap::new();
    let mut expected: Vec<Vec<Value>> = Vec::new();
    let (mut now, mut watermark, mut late, mut late_expected) = (0i64, i64::MIN, 0, 0);
    for step in 0..41 {
        let rows: Vec<Vec<Value>> = (0..rng.random_range(0..30))
            .map(|_| {
                now += if rng.random_bool(0.1) { rng.random_range(0..40) } else { rng.random_range(0..4) };
                let time = now - rng.random_range(0..30);
                random_row(&mut rng, time)
            })
            .collect();
        for row in &rows {
            let Value::Int(time) = row[TIME] else { continue };
            let mine = open.entry(key_name(keys, row)).or_default();
            let mut with = mine.clone();
            with.push((row.clone(), time));
            let run = runs(&with).into_iter().find(|run| run.iter().any(|r| r == with.last().unwrap())).unwrap();
            let last = if broken { time } else { run.iter().map(|(_, time)| *time).max().unwrap() };
            if last + GAP - 1 <= watermark {
                late_expected += 1;
            } else {
                *mine = with;
            }
        }
        operator.on_batch(0, batch_of(&rows), &mut out.scope()).unwrap();
        match rng.random_range(0..5) {
            _ if step == 40 => watermark = END_OF_TIME,
            0 => watermark = watermark.max(now - rng.random_range(0..25)),
            1 => {
                late += operator.late_rows();
                let mut fresh = make();
                if rng.random_bool(0.5) {
                    fresh.restore_bytes = 0;
                }
                restart(&mut operator, &mut fresh, &mut out);
                operator = fresh;
                continue;
            }
            2 if kind == Kind::Disk => {
                operator.spill(&mut out.store).unwrap();
                assert!(operator.keys.is_empty());
                continue;
            }
            _ => continue,
        }
        operator.on_watermark(watermark, &mut out.scope()).unwrap();
        for mine in open.values_mut() {
            let (mut kept, all) = (Vec::new(), runs(mine));
            for run in all {
                let (start, end) =
                    (run.iter().map(|r| r.1).min().unwrap(), run.iter().map(|r| r.1).max().unwrap() + GAP);
                if end - 1 > watermark {
                    kept.extend(run);
                    continue;
                }
                let rows: Vec<&Vec<Value>> = run.iter().map(|(row, _)| row).collect();
                let mut row = naive_groups(keys, &aggregates, &rows).remove(0);
                row.extend([start, end, end - 1].map(Value::Int));
                expected.push(row);
            }
            // Arrival order was lost by the runs; put it back.
            let old = std::mem::take(mine);
            let mut left = kept;
            *mine = old
                .into_iter()
                .filter(|row| left.iter().position(|other| other == row).map(|at| left.swap_remove(at)).is_some())
                .collect();
        }
    }
    late += operator.late_rows();
    assert!(operator.keys.is_empty(), "keys without sessions are forgotten");
    operator.snapshot(&mut out.store).unwrap();
    assert!(kind == Kind::Memory || out.store.map.is_empty());
    let late_rows: usize = out.sink.late.iter().map(RecordBatch::num_rows).sum();
    assert_eq!(late_rows as u64, late);
    late == late_expected && same_rows(&sorted(rows_of(&out.sink.main)), &sorted(expected))
}

#[test]
fn sessions_equal_a_naive_recomputation() {
    for keys in [vec![], vec![0], vec![1], vec![0, 1]] {
        for kind in [Kind::Memory, Kind::Disk] {
            for seed in 0..30 {
                assert!(agrees(seed, &keys, kind, false), "seed {seed}, keys {keys:?}, {kind:?}");
            }
        }
    }
}

#[test]
fn an_oracle_with_another_late_rule_is_noticed() {
    assert!((0..30).any(|seed| !agrees(seed, &[0], Kind::Memory, true)));
}

/// A counting operator, and rows of these keys.
fn counting() -> (SessionAggregate, impl Fn(std::ops::Range<i64>, i64) -> RecordBatch) {
    let count = aggregates(true).drain(..1).collect::<Vec<_>>();
    let plan = plan::WindowAggregate {
        window: Window::Session { gap_ms: GAP },
        time: Time::Event { column: TIME },
        ltz: false,
        keys: vec![0],
        aggregates: count.clone(),
        phase: Phase::Single,
        late_output: false,
    };
    let operator = SessionAggregate::new(&plan, &input(), &output(&[0], &count, &BOUNDS), 16, 0..16).unwrap();
    let rows = |keys: std::ops::Range<i64>, time: i64| {
        let row = |key| {
            let mut row = vec![Value::Null; 8];
            (row[0], row[TIME]) = (Value::Int(key), Value::Int(time));
            row
        };
        batch_of(&keys.map(row).collect::<Vec<_>>())
    };
    (operator, rows)
}

#[test]
fn spilled_sessions_take_no_memory_and_fire_at_their_time() {
    let (mut operator, rows) = counting();
    let mut out = World::new(Kind::Disk);
    operator.restore(&mut out.store, &[]).unwrap();
    operator.on_batch(0, rows(0..20_000, 100), &mut out.scope()).unwrap();
    let full = operator.memory_bytes();
    operator.spill(&mut out.store).unwrap();
    assert!(operator.memory_bytes() * 100 < full, "{} of {full} bytes are left", operator.memory_bytes());
    // One grows, one begins; the others stay where they are.
    operator.on_batch(0, rows(7..8, 105), &mut out.scope()).unwrap();
    operator.on_batch(0, rows(-1..0, 105), &mut out.scope()).unwrap();
    operator.on_watermark(108, &mut out.scope()).unwrap();
    assert_eq!(operator.keys.len(), 2, "nothing else is near its end");
    operator.spill(&mut out.store).unwrap();
    operator.on_watermark(109, &mut out.scope()).unwrap();
    assert_eq!(rows_of(&out.sink.main).len(), 19_999);
    operator.on_watermark(113, &mut out.scope()).unwrap();
    assert_eq!(rows_of(&out.sink.main).len(), 19_999);
    operator.on_watermark(114, &mut out.scope()).unwrap();
    let last = sorted(rows_of(&out.sink.main).split_off(19_999));
    assert_eq!(last, [[-1, 1, 105, 115, 114].map(Value::Int).to_vec(), [7, 2, 100, 115, 114].map(Value::Int).to_vec()]);
    operator.snapshot(&mut out.store).unwrap();
    assert!(out.store.map.is_empty(), "no session, no timer is left");
}

#[test]
fn more_sessions_than_memory_holds_are_restored_from_either_store() {
    for old in [Kind::Memory, Kind::Disk] {
        let (mut operator, rows) = counting();
        let mut out = World::new(old);
        operator.restore(&mut out.store, &[]).unwrap();
        operator.on_batch(0, rows(0..50_000, 100), &mut out.scope()).unwrap();
        if old == Kind::Disk {
            operator.spill(&mut out.store).unwrap();
        }
        operator.on_batch(0, rows(0..10, 103), &mut out.scope()).unwrap();
        let (mut fresh, _) = counting();
        fresh.restore_bytes = 0;
        let blob = operator.snapshot(&mut out.store).unwrap();
        out.store.kind = Kind::Disk;
        fresh.restore(&mut out.store, &[blob]).unwrap();
        assert!(fresh.keys.len() < 4096 * 2, "{} keys are in memory", fresh.keys.len());
        fresh.on_watermark(109, &mut out.scope()).unwrap();
        assert_eq!(rows_of(&out.sink.main).len(), 49_990);
        fresh.on_watermark(END_OF_TIME, &mut out.scope()).unwrap();
        assert_eq!(rows_of(&out.sink.main).len(), 50_000);
        fresh.snapshot(&mut out.store).unwrap();
        assert!(out.store.map.is_empty());
    }
}
