//! The changelog, applied row by row, must hold what a recomputation over all rows gives, after every batch.

use super::*;
use crate::operator::testing::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;

fn history(seed: u64, keys: &[usize], kind: Kind, retracting: bool, distinct: bool) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let context = format!("seed {seed}, keys {keys:?}, {kind:?}, retracting {retracting}, distinct {distinct}");
    let mut aggregates = if distinct { Vec::new() } else { aggregates(false) };
    // With retraction "first" and "last" depend on which of two equal rows goes: they have their own test.
    if retracting {
        aggregates.retain(|of| {
            !matches!(of.function, plan::AggregateFunction::FirstValue | plan::AggregateFunction::LastValue)
        });
    }
    let plan = plan::GroupAggregate { keys: keys.to_vec(), aggregates: aggregates.clone(), retracting, ttl_ms: None };
    let schema = if retracting { input().with_op() } else { input() };
    let make = || GroupAggregate::new(&plan, &schema, &output(keys, &aggregates, &[]).with_op(), 16).unwrap();
    let mut operator = make();
    let mut out = World::new(kind);
    operator.restore(&mut out.store, &[]).unwrap();
    let mut rows: Vec<Vec<Value>> = Vec::new();
    let mut shown: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for _ in 0..40 {
        let mut batch = Vec::new();
        for _ in 0..rng.random_range(1..12) {
            if retracting && !rows.is_empty() && rng.random_bool(0.5) {
                let mut row = rows.swap_remove(rng.random_range(0..rows.len()));
                row.push(Value::Int(RowKind::Delete as i64));
                batch.push(row);
            } else {
                let mut row = random_row(&mut rng, 0);
                rows.push(row.clone());
                if retracting {
                    row.push(Value::Int(RowKind::Insert as i64));
                }
                batch.push(row);
            }
        }
        operator.on_batch(0, batch_of(&batch), &mut out.scope()).unwrap();
        let mut seen: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for mut change in rows_of(&std::mem::take(&mut out.sink.main)) {
            let Some(Value::Int(op)) = change.pop() else { panic!("no _op") };
            let key = format!("{:?}", &change[..keys.len()]);
            seen.entry(key.clone()).or_default().push(op);
            match RowKind::from_i8(op as i8).unwrap() {
                RowKind::Insert => assert!(shown.insert(key, change).is_none(), "{context}: +I of a known key"),
                RowKind::UpdateAfter => assert!(shown.insert(key, change).is_none(), "{context}: +U without -U"),
                RowKind::UpdateBefore | RowKind::Delete => {
                    let before = shown.remove(&key).unwrap_or_else(|| panic!("{context}: {key} was not there"));
                    assert!(same_rows(&[before], &[change]), "{context}: what is taken back was shown");
                }
            }
        }
        assert!(seen.values().all(|ops| matches!(ops[..], [0] | [1, 2] | [3])), "{context}: {seen:?}");
        let expected = naive_groups(keys, &aggregates, &rows.iter().collect::<Vec<_>>());
        let now = sorted(shown.values().cloned().collect());
        assert!(same_rows(&now, &sorted(expected.clone())), "{context}:\n{now:?}\n{expected:?}");
        match rng.random_range(0..5) {
            0 => {
                let mut fresh = make();
                restart(&mut operator, &mut fresh, &mut out);
                operator = fresh;
            }
            1 if kind == Kind::Disk => operator.spill(&mut out.store).unwrap(),
            _ => {}
        }
    }
}

#[test]
fn the_changelog_adds_up_to_a_recomputation_after_every_batch() {
    for keys in [vec![0], vec![1], vec![0, 1], vec![]] {
        for kind in [Kind::Memory, Kind::Disk] {
            for retracting in [false, true] {
                for distinct in [false, true] {
                    for seed in 0..8 {
                        history(seed, &keys, kind, retracting, distinct);
                    }
                }
            }
        }
    }
}

#[test]
fn state_expires_by_the_clock() {
    let count = aggregates(true).drain(..1).collect::<Vec<_>>();
    let plan = plan::GroupAggregate { keys: vec![0], aggregates: count.clone(), retracting: false, ttl_ms: Some(1000) };
    for kind in [Kind::Memory, Kind::Disk] {
        let mut operator = GroupAggregate::new(&plan, &input(), &output(&[0], &count, &[]).with_op(), 16).unwrap();
        let mut out = World::new(kind);
        operator.restore(&mut out.store, &[]).unwrap();
        let row = vec![
            Value::Int(1),
            Value::Null,
            Value::Null,
            Value::Null,
            Value::Null,
            Value::Null,
            Value::Null,
            Value::Null,
        ];
        operator.on_clock(&mut out.at(10_000)).unwrap();
        operator.on_batch(0, batch_of(std::slice::from_ref(&row)), &mut out.scope()).unwrap();
        if kind == Kind::Disk {
            operator.spill(&mut out.store).unwrap();
        }
        operator.on_clock(&mut out.at(12_000)).unwrap();
        operator.on_batch(0, batch_of(&[row]), &mut out.scope()).unwrap();
        let insert = [1, 1, 0].map(Value::Int).to_vec();
        assert_eq!(rows_of(&out.sink.main), [insert.clone(), insert], "an expired key starts again, without a -D");
    }
}

fn row_of(key: i64) -> Vec<Value> {
    let mut row = vec![Value::Null; 8];
    row[0] = Value::Int(key);
    row
}

#[test]
fn rows_before_the_first_tick_of_the_clock_do_not_expire_at_it() {
    let count = aggregates(true).drain(..1).collect::<Vec<_>>();
    let plan = plan::GroupAggregate { keys: vec![0], aggregates: count.clone(), retracting: false, ttl_ms: Some(1000) };
    let make = || GroupAggregate::new(&plan, &input(), &output(&[0], &count, &[]).with_op(), 16).unwrap();
    for kind in [Kind::Memory, Kind::Disk] {
        let mut operator = make();
        let mut out = World::new(kind);
        operator.restore(&mut out.store, &[]).unwrap();
        operator.on_batch(0, batch_of(&[row_of(1)]), &mut out.at(10_000)).unwrap();
        operator.on_clock(&mut out.at(10_010)).unwrap();
        operator.on_batch(0, batch_of(&[row_of(1)]), &mut out.at(10_020)).unwrap();
        // After a restore too, and there a group that is touched first is kept by what it was touched at.
        let mut fresh = make();
        restart(&mut operator, &mut fresh, &mut out);
        fresh.on_batch(0, batch_of(&[row_of(1)]), &mut out.at(10_900)).unwrap();
        fresh.on_clock(&mut out.at(11_500)).unwrap();
        fresh.on_batch(0, batch_of(&[row_of(1)]), &mut out.at(11_600)).unwrap();
        let last = rows_of(&out.sink.main).pop();
        assert_eq!(last, Some([1, 4, 2].map(Value::Int).to_vec()), "{kind:?}: the fourth row updates the same count");
        // And one that had expired while the job was down starts again.
        let mut fresh = make();
        restart(&mut operator, &mut fresh, &mut out);
        fresh.on_clock(&mut out.at(20_000)).unwrap();
        fresh.on_batch(0, batch_of(&[row_of(1)]), &mut out.at(20_000)).unwrap();
        let last = rows_of(&out.sink.main).pop();
        assert_eq!(last, Some([1, 1, 0].map(Value::Int).to_vec()), "{kind:?}");
    }
}

#[test]
fn groups_that_are_in_the_store_only_expire_there_unless_they_were_updated_since() {
    let count = aggregates(true).drain(..1).collect::<Vec<_>>();
    let plan = plan::GroupAggregate { keys: vec![0], aggregates: count.clone(), retracting: false, ttl_ms: Some(1000) };
    let mut operator = GroupAggregate::new(&plan, &input(), &output(&[0], &count, &[]).with_op(), 16).unwrap();
    let mut out = World::new(Kind::Disk);
    operator.restore(&mut out.store, &[]).unwrap();
    let rows: Vec<Vec<Value>> = (0..100).map(row_of).collect();
    operator.on_batch(0, batch_of(&rows), &mut out.at(10_000)).unwrap();
    operator.spill(&mut out.store).unwrap();
    operator.on_clock(&mut out.at(10_500)).unwrap();
    assert_eq!(out.store.map.len(), 100, "none has expired");
    operator.on_batch(0, batch_of(&[row_of(7)]), &mut out.at(10_900)).unwrap();
    (11_000..13_000).step_by(10).for_each(|now| {
        operator.on_clock(&mut out.at(now)).unwrap();
        if now < 11_800 {
            operator.on_batch(0, batch_of(&[row_of(7)]), &mut out.at(now)).unwrap();
        }
        if now == 12_500 {
            operator.spill(&mut out.store).unwrap();
            assert_eq!(out.store.map.len(), 1, "the one that was updated is put again");
        }
    });
    let last = rows_of(&out.sink.main).pop().unwrap();
    assert_eq!(last[2], Value::Int(2), "it was never forgotten");
    (13_000..15_000).step_by(10).for_each(|now| operator.on_clock(&mut out.at(now)).unwrap());
    assert!(out.store.map.is_empty());
}

#[test]
fn spilling_frees_the_memory_of_the_table() {
    let mut aggregates = aggregates(false);
    aggregates.truncate(3);
    let plan = plan::GroupAggregate { keys: vec![0], aggregates: aggregates.clone(), retracting: false, ttl_ms: None };
    let mut operator = GroupAggregate::new(&plan, &input(), &output(&[0], &aggregates, &[]).with_op(), 16).unwrap();
    let mut out = World::new(Kind::Disk);
    operator.restore(&mut out.store, &[]).unwrap();
    let rows: Vec<Vec<Value>> = (0..5000).map(row_of).collect();
    operator.on_batch(0, batch_of(&rows), &mut out.scope()).unwrap();
    let full = operator.memory_bytes();
    operator.spill(&mut out.store).unwrap();
    assert!(operator.memory_bytes() * 10 < full, "{} of {full} bytes are left", operator.memory_bytes());
}
