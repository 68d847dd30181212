//! Interning against a map of formatted keys; hashes against the scalar functions of the contract.

use super::*;
use arrow_array::{BooleanArray, Int32Array, Int64Array, StringArray};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::HashMap;

fn columns(kind: usize, rng: &mut SmallRng, rows: usize) -> (Vec<DataType>, Vec<ArrayRef>) {
    let ints: Int64Array = (0..rows).map(|_| (!rng.random_bool(0.05)).then(|| rng.random_range(-50..50))).collect();
    let text: StringArray =
        (0..rows).map(|_| (!rng.random_bool(0.05)).then(|| "x".repeat(rng.random_range(0..40)))).collect();
    let narrow: Int32Array = (0..rows).map(|_| Some(rng.random_range(-9..9))).collect();
    let floats: Float64Array =
        (0..rows).map(|_| Some([0.0, -0.0, f64::NAN, -f64::NAN, 1.5, f64::INFINITY][rng.random_range(0..6)])).collect();
    let flags: BooleanArray = (0..rows).map(|_| [None, Some(true), Some(false)][rng.random_range(0..3)]).collect();
    match kind {
        0 => (vec![DataType::Int64], vec![Arc::new(ints)]),
        1 => (vec![DataType::String], vec![Arc::new(text)]),
        2 => (vec![DataType::Int32], vec![Arc::new(narrow)]),
        3 => (vec![DataType::Float64], vec![Arc::new(floats)]),
        4 => (vec![DataType::Boolean, DataType::String], vec![Arc::new(flags), Arc::new(text)]),
        _ => (
            vec![DataType::Int64, DataType::Float64, DataType::Int32],
            vec![Arc::new(ints), Arc::new(floats), Arc::new(narrow)],
        ),
    }
}

/// A key as text under which equal keys are equal.
fn text_of(columns: &[ArrayRef], row: usize) -> String {
    columns
        .iter()
        .map(|column| {
            if column.is_null(row) {
                return "NULL;".to_string();
            }
            match column.data_type() {
                Arrow::Int64 => format!("{};", column.as_primitive::<Int64Type>().value(row)),
                Arrow::Int32 => format!("{};", column.as_primitive::<Int32Type>().value(row)),
                Arrow::Utf8 => format!("'{}';", column.as_string::<i32>().value(row)),
                Arrow::Boolean => format!("{};", column.as_boolean().value(row)),
                _ => format!("{:x};", float_bits(column.as_primitive::<Float64Type>().value(row))),
            }
        })
        .collect()
}

#[test]
fn equal_keys_share_a_group_and_groups_give_their_keys_back() {
    for seed in 0..4 {
        for kind in 0..6 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let (types, _) = columns(kind, &mut rng, 1);
            let mut table = KeyTable::new(&types).unwrap();
            let mut expected: HashMap<String, u32> = HashMap::new();
            let (mut hashes, mut groups) = (Vec::new(), Vec::new());
            for round in 0..20 {
                let (_, batch) = columns(kind, &mut rng, 200);
                hash_rows(&batch, &mut hashes).unwrap();
                let chosen: Vec<u32> = (0..200u32).rev().filter(|row| row % 3 != 0).collect();
                let selection = if round % 2 == 0 { Selection::All(200) } else { Selection::Some(&chosen) };
                table.intern(&batch, &hashes, selection, &mut groups).unwrap();
                assert_eq!(groups.len(), selection.len());
                for (i, group) in groups.iter().enumerate() {
                    let key = text_of(&batch, selection.at(i));
                    let known = *expected.entry(key.clone()).or_insert(*group);
                    assert_eq!(known, *group, "seed {seed}, kind {kind}, key {key}");
                    assert_eq!(table.hash_of(*group), hashes[selection.at(i)]);
                }
                assert_eq!(table.len(), expected.len());
                // Removed keys come back as new groups; the others stay where they are.
                let gone: Vec<String> = expected.keys().filter(|_| rng.random_bool(0.3)).cloned().collect();
                for key in gone {
                    table.remove(expected.remove(&key).unwrap());
                }
                let mut live: Vec<u32> = expected.values().copied().collect();
                live.sort_unstable();
                live.dedup();
                assert_eq!(live.len(), expected.len(), "two keys share a group");
                let exported = table.export(&live).unwrap();
                let encoded: Vec<Vec<u8>> = live
                    .iter()
                    .map(|group| {
                        let mut bytes = Vec::new();
                        table.encode(*group, &mut bytes);
                        bytes
                    })
                    .collect();
                let decoded = table.decode(&encoded.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
                for (i, group) in live.iter().enumerate() {
                    assert_eq!(expected[&text_of(&exported, i)], *group);
                    assert_eq!(expected[&text_of(&decoded, i)], *group);
                }
            }
            table.clear();
            assert!(table.is_empty());
        }
    }
}

#[test]
fn hashes_are_those_of_the_contract() {
    let ints: ArrayRef = Arc::new(Int32Array::from(vec![Some(-1), None]));
    let text: ArrayRef = Arc::new(StringArray::from(vec!["dev-17", "a"]));
    let floats: ArrayRef = Arc::new(Float32Array::from(vec![-0.0, 1.5]));
    let mut hashes = Vec::new();
    hash_rows(&[ints, text, floats], &mut hashes).unwrap();
    let first = combine(combine(hash_u64(-1i64 as u64), hash_bytes(b"dev-17")), hash_u64(0));
    let second = combine(combine(HASH_NULL, hash_bytes(b"a")), hash_u64(float_bits(1.5)));
    assert_eq!(hashes, [first, second]);
    let mut groups = Vec::new();
    key_groups(&hashes, 128, &mut groups);
    assert_eq!(groups, [key_group(first, 128), key_group(second, 128)]);
}

#[test]
fn many_keys_survive_growth() {
    let mut table = KeyTable::new(&[DataType::Int64]).unwrap();
    let (mut hashes, mut groups) = (Vec::new(), Vec::new());
    for round in 0..2 {
        for start in (0..400_000i64).step_by(8000) {
            let batch: Vec<ArrayRef> =
                vec![Arc::new(Int64Array::from_iter_values((start..start + 8000).map(|i| i * 31)))];
            hash_rows(&batch, &mut hashes).unwrap();
            table.intern(&batch, &hashes, Selection::All(8000), &mut groups).unwrap();
            assert!(groups.iter().enumerate().all(|(i, group)| i64::from(*group) == start + i as i64));
            assert_eq!(table.fresh().len(), if round == 0 { 8000 } else { 0 });
        }
    }
}
