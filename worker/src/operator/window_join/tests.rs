//! The operator against a nested loop over all rows, with random splits, disorder, snapshots, spills and rescales.

use super::*;
use crate::error::Code;
use crate::operator::Emit;
use crate::operator::map_store::Map;
use arrow_array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray, TimestampMillisecondArray};
use ef_proto::plan::{JoinKind, Output};
use ef_proto::schema::{DataType, Field, Unit};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use std::sync::Arc;

const KINDS: [JoinKind; 6] =
    [JoinKind::Inner, JoinKind::Left, JoinKind::Right, JoinKind::Full, JoinKind::Semi, JoinKind::Anti];
const GROUPS: u16 = 16;

/// Collects output rows as text.
#[derive(Default)]
struct Rows(Vec<String>);

impl Emit for Rows {
    fn emit_to(&mut self, _output: Output, batch: RecordBatch) -> Result<()> {
        assert!(batch.num_rows() > 0 && batch.num_rows() <= crate::frame::BATCH_ROWS);
        let columns: Vec<Vec<String>> = batch.columns().iter().map(shown).collect();
        self.0.extend(
            (0..batch.num_rows())
                .map(|row| columns.iter().map(|column| column[row].clone()).collect::<Vec<_>>().join("|")),
        );
        Ok(())
    }
}

fn scope<'a>(rows: &'a mut Rows, store: &'a mut Map) -> Scope<'a> {
    Scope { out: rows, store, now_ms: 0 }
}

fn shown(column: &ArrayRef) -> Vec<String> {
    let show = |i: usize| match column.data_type() {
        Arrow::Int64 => column.as_primitive::<arrow_array::types::Int64Type>().value(i).to_string(),
        Arrow::Float64 => format!("{:?}", column.as_primitive::<arrow_array::types::Float64Type>().value(i)),
        Arrow::Utf8 => column.as_string::<i32>().value(i).to_string(),
        _ => column.as_primitive::<TimestampMillisecondType>().value(i).to_string(),
    };
    (0..column.len()).map(|i| if column.is_null(i) { "NULL".into() } else { show(i) }).collect()
}

#[derive(Clone, Debug)]
struct Row {
    id: i64,
    name: Option<&'static str>,
    score: Option<f64>,
    start: i64,
}

const SIZE: i64 = 10;

fn side_schema() -> Schema {
    Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("name", DataType::String, true),
        Field::new("score", DataType::Float64, true),
        Field::new("window_start", DataType::Timestamp(Unit::Milli), false),
        Field::new("window_end", DataType::Timestamp(Unit::Milli), false),
        Field::new("k", DataType::Int64, true),
    ])
}

impl Row {
    fn random(rng: &mut SmallRng, windows: i64) -> Row {
        Row {
            id: rng.random_range(0..6),
            name: [None, Some("a"), Some("b"), Some("")][rng.random_range(0..4)],
            score: [None, Some(0.0), Some(-0.0), Some(f64::NAN), Some(1.5)][rng.random_range(0..5)],
            start: rng.random_range(-windows..windows) * SIZE,
        }
    }

    /// The BIGINT key: NULL for one id.
    fn k(&self) -> Option<i64> {
        (self.id != 5).then_some(self.id / 2)
    }

    fn shown(row: Option<&Row>) -> String {
        let Some(row) = row else { return ["NULL"; 6].join("|") };
        let score = row.score.map_or("NULL".into(), |score| format!("{score:?}"));
        let k = row.k().map_or("NULL".into(), |k| k.to_string());
        format!("{}|{}|{score}|{}|{}|{k}", row.id, row.name.unwrap_or("NULL"), row.start, row.start + SIZE)
    }
}

fn batch(rows: &[Row]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.id))),
        Arc::new(StringArray::from_iter(rows.iter().map(|r| r.name))),
        Arc::new(Float64Array::from_iter(rows.iter().map(|r| r.score))),
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|r| r.start))),
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|r| r.start + SIZE))),
        Arc::new(Int64Array::from_iter(rows.iter().map(Row::k))),
    ];
    RecordBatch::try_new(side_schema().to_arrow(), columns).expect("columns fit")
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Keys {
    None,
    Bigint,
    NameAndScore,
}

impl Keys {
    fn pairs(self) -> Vec<(usize, usize)> {
        match self {
            Keys::None => vec![],
            Keys::Bigint => vec![(5, 5)],
            Keys::NameAndScore => vec![(1, 1), (2, 2)],
        }
    }

    /// The columns by which the plan spreads rows over subtasks.
    fn exchanged_by(self) -> Vec<usize> {
        match self {
            Keys::None => vec![3, 4],
            _ => self.pairs().iter().map(|(column, _)| *column).collect(),
        }
    }

    fn equal(self, l: &Row, r: &Row) -> bool {
        let scores = |l: f64, r: f64| l == r || (l.is_nan() && r.is_nan());
        match self {
            Keys::None => true,
            Keys::Bigint => l.k().is_some() && l.k() == r.k(),
            Keys::NameAndScore => {
                l.name.is_some() && l.name == r.name && l.score.zip(r.score).is_some_and(|(l, r)| scores(l, r))
            }
        }
    }
}

/// The residual filter of the tests: `left.id > right.id`, NULL when the left id is 0.
fn passes(l: i64, r: i64) -> Option<bool> {
    (l != 0).then_some(l > r)
}

fn filter() -> Filter {
    Box::new(|pairs, _now| {
        let id = |i: usize| pairs.column(i).as_primitive::<arrow_array::types::Int64Type>().values();
        Ok(BooleanArray::from_iter(id(0).iter().zip(id(6)).map(|(l, r)| passes(*l, *r))))
    })
}

fn oracle(kind: JoinKind, keys: Keys, filtered: bool, left: &[Row], right: &[Row]) -> Vec<String> {
    let is_match =
        |l: &Row, r: &Row| l.start == r.start && keys.equal(l, r) && (!filtered || passes(l.id, r.id) == Some(true));
    let mut rows = vec![];
    for l in left {
        let partners: Vec<&Row> = right.iter().filter(|r| is_match(l, r)).collect();
        let l = Row::shown(Some(l));
        match kind {
            JoinKind::Semi if !partners.is_empty() => rows.push(l),
            JoinKind::Anti if partners.is_empty() => rows.push(l),
            JoinKind::Semi | JoinKind::Anti => {}
            _ if partners.is_empty() => {
                if matches!(kind, JoinKind::Left | JoinKind::Full) {
                    rows.push(format!("{l}|{}", Row::shown(None)));
                }
            }
            _ => rows.extend(partners.iter().map(|r| format!("{l}|{}", Row::shown(Some(r))))),
        }
    }
    if matches!(kind, JoinKind::Right | JoinKind::Full) {
        for r in right.iter().filter(|r| !left.iter().any(|l| is_match(l, r))) {
            rows.push(format!("{}|{}", Row::shown(None), Row::shown(Some(r))));
        }
    }
    rows.sort();
    rows
}

fn operator(kind: JoinKind, keys: Keys, filtered: bool, groups: Range<u16>) -> WindowJoin {
    let spec = plan::WindowJoin { kind, keys: keys.pairs(), left_window: (3, 4), right_window: (3, 4), filter: None };
    let mut join = WindowJoin::new(&spec, &side_schema(), &side_schema(), GROUPS, groups).expect("valid join");
    if filtered {
        join.pairs.filter = Some(filter());
    }
    join
}

/// Runs a random history over one or two subtasks with the same snapshots; returns output rows and late rows.
fn run(
    seed: u64,
    kind: JoinKind,
    keys: Keys,
    filtered: bool,
    state: Kind,
    inputs: &[Vec<Row>; 2],
) -> (Vec<String>, u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut pending = inputs.clone();
    pending.iter_mut().for_each(|rows| rows.shuffle(&mut rng));
    let mut rows = Rows::default();
    let whole = 0..GROUPS;
    let mut subtasks = vec![(operator(kind, keys, filtered, whole.clone()), Map::new(state, BTreeMap::new()), whole)];
    for (join, store, _) in &mut subtasks {
        join.restore(store, &[]).expect("fresh start");
    }
    let mut watermark = i64::MIN;
    while pending.iter().any(|rows| !rows.is_empty()) {
        match rng.random_range(0..10) {
            0 => {
                // As far as the earliest pending row allows, so that nothing is late.
                let first = pending.iter().flatten().map(|row| row.start + SIZE - 2).min().unwrap_or(i64::MAX);
                watermark = watermark.max(first - rng.random_range(0..SIZE));
                for (join, store, _) in &mut subtasks {
                    join.on_watermark(watermark, &mut scope(&mut rows, store)).expect("fired");
                }
            }
            1 => {
                // A checkpoint; half of the times the job goes on from it, with another parallelism.
                let (mut entries, mut blobs) = (BTreeMap::new(), vec![]);
                for (join, store, groups) in &mut subtasks {
                    blobs.push(join.snapshot(store).expect("snapshot"));
                    for (key, value) in store.checkpoint() {
                        assert!(groups.contains(&u16::from_be_bytes([key[0], key[1]])));
                        entries.insert(key, value);
                    }
                }
                if rng.random_bool(0.5) {
                    let parallelism = rng.random_range(1..4);
                    subtasks = (0..parallelism)
                        .map(|i| {
                            let groups = ef_proto::keys::range_of(i, parallelism, GROUPS);
                            let owned = |key: &[u8]| groups.contains(&u16::from_be_bytes([key[0], key[1]]));
                            let own = entries.iter().filter(|(key, _)| owned(key));
                            let mut store = Map::new(state, own.map(|(k, v)| (k.clone(), v.clone())).collect());
                            let mut join = operator(kind, keys, filtered, groups.clone());
                            join.restore(&mut store, &blobs).expect("restored");
                            (join, store, groups)
                        })
                        .collect();
                }
            }
            2 if state == Kind::Disk => {
                for (join, store, _) in &mut subtasks {
                    join.spill(store).expect("spilled");
                    assert!(join.windows.values().flatten().all(|side| side.kept.is_empty() && side.fresh.is_empty()));
                }
            }
            _ => {
                let input = rng.random_range(0..2);
                let side = &mut pending[input];
                let mut taken: Vec<Row> = side.split_off(side.len().saturating_sub(rng.random_range(1..30)));
                if rng.random_bool(0.3) {
                    // As an aggregate below would send it: all rows of one window.
                    let start = taken.first().map_or(0, |row| row.start);
                    let (now, later) = taken.into_iter().partition(|row| row.start == start);
                    side.extend::<Vec<Row>>(later);
                    taken = now;
                }
                let batch = batch(&taken);
                let columns: Vec<ArrayRef> =
                    keys.exchanged_by().iter().map(|column| batch.column(*column).clone()).collect();
                let mut hashes = vec![];
                crate::keys::hash_rows(&columns, &mut hashes).expect("hashed");
                for (join, store, groups) in &mut subtasks {
                    let mine = hashes.iter().zip(0u32..);
                    let mine = mine.filter(|(hash, _)| groups.contains(&ef_proto::keys::key_group(**hash, GROUPS)));
                    let mine = UInt32Array::from_iter_values(mine.map(|(_, row)| row));
                    let part = take_record_batch(&batch, &mine).expect("part of a batch");
                    join.on_batch(input, part, &mut scope(&mut rows, store)).expect("buffered");
                }
            }
        }
    }
    let mut late = 0;
    for (join, store, _) in &mut subtasks {
        join.on_watermark(i64::MAX, &mut scope(&mut rows, store)).expect("fired");
        join.on_end(&mut scope(&mut rows, store)).expect("ended");
        assert!(join.windows.is_empty());
        late += join.late_rows();
        join.snapshot(store).expect("snapshot");
        assert!(store.checkpoint().is_empty(), "fired windows leave nothing behind");
    }
    rows.0.sort();
    (rows.0, late)
}

#[test]
fn every_join_kind_matches_a_nested_loop_over_any_history() {
    for seed in 0..120u64 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let sizes = [rng.random_range(0..150), rng.random_range(0..150)];
        let windows = rng.random_range(1..8);
        let inputs = sizes.map(|size| (0..size).map(|_| Row::random(&mut rng, windows)).collect::<Vec<_>>());
        let kind = KINDS[seed as usize % KINDS.len()];
        let keys = [Keys::Bigint, Keys::NameAndScore, Keys::None][rng.random_range(0..3)];
        let filtered = rng.random_bool(0.5);
        let expected = oracle(kind, keys, filtered, &inputs[0], &inputs[1]);
        for state in [Kind::Memory, Kind::Disk] {
            let (found, late) = run(seed, kind, keys, filtered, state, &inputs);
            assert_eq!(found, expected, "seed {seed}, {kind:?}, {keys:?}, filter {filtered}, {state:?}");
            assert_eq!(late, 0, "seed {seed}");
        }
    }
}

#[test]
fn a_window_with_more_pairs_than_a_batch_goes_out_in_pieces() {
    let row = Row { id: 1, name: None, score: None, start: 0 };
    let inputs = [vec![row.clone(); 150], vec![row; 150]];
    for kind in [JoinKind::Inner, JoinKind::Full] {
        let (found, _) = run(1, kind, Keys::Bigint, false, Kind::Memory, &inputs);
        assert_eq!(found.len(), 22_500);
    }
}

#[test]
fn rows_of_a_fired_window_are_counted_late_and_dropped_also_after_a_restore() {
    let row = |start| Row { id: 2, name: Some("a"), score: None, start };
    let (mut join, mut store) =
        (operator(JoinKind::Inner, Keys::Bigint, false, 0..GROUPS), Map::new(Kind::Memory, BTreeMap::new()));
    let mut rows = Rows::default();
    let feed = |join: &mut WindowJoin, store: &mut Map, input, start| {
        join.on_batch(input, batch(&[row(start)]), &mut scope(&mut Rows::default(), store)).expect("taken");
    };
    feed(&mut join, &mut store, 0, 0);
    // Still open: the watermark is one short of the window's last millisecond.
    join.on_watermark(8, &mut scope(&mut rows, &mut store)).expect("nothing fires");
    feed(&mut join, &mut store, 1, 0);
    assert_eq!((rows.0.len(), join.late_rows()), (0, 0));
    join.on_watermark(9, &mut scope(&mut rows, &mut store)).expect("fires");
    assert_eq!(rows.0.len(), 1);
    feed(&mut join, &mut store, 1, 0);
    assert_eq!(join.late_rows(), 1);
    let blob = join.snapshot(&mut store).expect("snapshot");
    let mut again = operator(JoinKind::Inner, Keys::Bigint, false, 0..GROUPS);
    again.restore(&mut Map::new(Kind::Memory, store.checkpoint()), &[blob]).expect("restored");
    feed(&mut again, &mut store, 0, 0);
    feed(&mut again, &mut store, 0, SIZE);
    assert_eq!(again.late_rows(), 1, "counters are of the run: the row before the restore is not in it");
}

/// One subtask of a join without keys, with what `entries` holds of its key groups.
fn keyless(
    index: u32,
    parallelism: u32,
    state: Kind,
    entries: &BTreeMap<Vec<u8>, Vec<u8>>,
    blobs: &[Vec<u8>],
) -> (WindowJoin, Map) {
    let groups = ef_proto::keys::range_of(index, parallelism, GROUPS);
    let owned = entries.range(groups.start.to_be_bytes().to_vec()..groups.end.to_be_bytes().to_vec());
    let mut store = Map::new(state, owned.map(|(k, v)| (k.clone(), v.clone())).collect());
    let mut join = operator(JoinKind::Inner, Keys::None, false, groups);
    join.restore(&mut store, blobs).expect("restored");
    (join, store)
}

#[test]
fn a_join_without_keys_keeps_its_rows_at_a_restore_also_with_another_parallelism() {
    let rows: Vec<Row> = (0..20).map(|i| Row { id: i, name: None, score: None, start: i * SIZE }).collect();
    let all = batch(&rows);
    let mut hashes = vec![];
    crate::keys::hash_rows(&[all.column(3).clone(), all.column(4).clone()], &mut hashes).expect("hashed");
    for state in [Kind::Memory, Kind::Disk] {
        for (before, after) in [(2, 2), (2, 1), (1, 2)] {
            let (mut entries, mut blobs) = (BTreeMap::new(), vec![]);
            for index in 0..before {
                let (mut join, mut store) = keyless(index, before, state, &BTreeMap::new(), &[]);
                let groups = ef_proto::keys::range_of(index, before, GROUPS);
                let mine = hashes.iter().zip(&rows);
                let mine = mine.filter(|(hash, _)| groups.contains(&ef_proto::keys::key_group(**hash, GROUPS)));
                let mine: Vec<Row> = mine.map(|(_, row)| row.clone()).collect();
                assert!(!mine.is_empty(), "every subtask has windows");
                for input in 0..2 {
                    join.on_batch(input, batch(&mine), &mut scope(&mut Rows::default(), &mut store)).expect("taken");
                }
                blobs.push(join.snapshot(&mut store).expect("snapshot"));
                entries.extend(store.checkpoint());
            }
            let mut found = Rows::default();
            for index in 0..after {
                let (mut join, mut store) = keyless(index, after, state, &entries, &blobs);
                join.on_watermark(i64::MAX, &mut scope(&mut found, &mut store)).expect("fired");
            }
            found.0.sort();
            let expected = oracle(JoinKind::Inner, Keys::None, false, &rows, &rows);
            assert_eq!(found.0, expected, "{before} to {after} subtasks, {state:?}");
        }
    }
}

#[test]
fn state_that_does_not_read_back_is_called_corrupt() {
    let mut join = operator(JoinKind::Inner, Keys::Bigint, false, 0..GROUPS);
    let short = BTreeMap::from([(vec![0, 1, 2], vec![])]);
    let error = join.restore(&mut Map::new(Kind::Memory, short), &[]).expect_err("key of 3 bytes");
    assert_eq!(error.code, Code::Corrupt);
    let key = join.codecs[0].key(3, (10, 0), 1).to_vec();
    let cut = BTreeMap::from([(key, vec![9, 0, 0, 0, 1])]);
    let error = join.restore(&mut Map::new(Kind::Memory, cut), &[]).expect_err("row of 9 bytes, 1 there");
    assert_eq!(error.code, Code::Corrupt);
}
