//! Windows against a naive recomputation over random rows, disorder, splits, watermarks, restarts and spills.

use super::*;
use crate::operator::testing::*;
use ef_proto::plan::Aggregate;
use ef_proto::schema::{Field, Unit};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

fn plan(window: &Window, keys: &[usize], phase: Phase, aggregates: &[Aggregate]) -> plan::WindowAggregate {
    plan::WindowAggregate {
        window: window.clone(),
        time: Time::Event { column: TIME },
        ltz: false,
        keys: keys.to_vec(),
        aggregates: aggregates.to_vec(),
        phase,
        late_output: phase == Phase::Single,
    }
}

const BOUNDS: [(&str, DataType); 3] = [
    ("window_start", DataType::Timestamp(Unit::Milli)),
    ("window_end", DataType::Timestamp(Unit::Milli)),
    ("window_time", DataType::Timestamp(Unit::Milli)),
];

/// Windows of a time, by definition, sorted by end.
fn windows_of(window: &Window, time: i64) -> Vec<(i64, i64)> {
    let mut all = Vec::new();
    match *window {
        Window::Tumble { size_ms, offset_ms } => {
            let start = (time - offset_ms).div_euclid(size_ms) * size_ms + offset_ms;
            all.push((start, start + size_ms));
        }
        Window::Hop { size_ms, slide_ms, offset_ms } => {
            let last = (time - offset_ms).div_euclid(slide_ms) * slide_ms + offset_ms;
            let mut start = last;
            while start + size_ms > time {
                all.push((start, start + size_ms));
                start -= slide_ms;
            }
        }
        Window::Cumulate { max_ms, step_ms, offset_ms } => {
            let start = (time - offset_ms).div_euclid(max_ms) * max_ms + offset_ms;
            all.extend((1..=max_ms / step_ms).map(|i| (start, start + i * step_ms)).filter(|(_, end)| *end > time));
        }
        _ => unreachable!(),
    }
    all.sort_by_key(|(_, end)| *end);
    all
}

struct Oracle {
    window: Window,
    keys: Vec<usize>,
    aggregates: Vec<Aggregate>,
    rows: Vec<(Vec<Value>, i64)>,
    watermark: i64,
    late: u64,
    /// The negative control: a row is late as soon as its first window has fired.
    broken: bool,
    out: Vec<Vec<Value>>,
}

impl Oracle {
    fn row(&mut self, row: &[Value]) {
        let Value::Int(time) = row[TIME] else { return };
        let windows = windows_of(&self.window, time);
        let verdict = if self.broken { windows.first() } else { windows.last() };
        match verdict {
            Some((_, end)) if *end - 1 <= self.watermark => self.late += 1,
            Some(_) => self.rows.push((row.to_vec(), time)),
            None => {}
        }
    }

    fn watermark(&mut self, watermark: i64) {
        let mut due: Vec<(i64, i64)> = self
            .rows
            .iter()
            .flat_map(|(_, time)| windows_of(&self.window, *time))
            .filter(|(_, end)| end - 1 > self.watermark && end - 1 <= watermark)
            .map(|(start, end)| (end, start))
            .collect();
        due.sort_unstable();
        due.dedup();
        for (end, start) in due {
            let inside: Vec<&Vec<Value>> =
                self.rows.iter().filter(|(_, time)| start <= *time && *time < end).map(|(row, _)| row).collect();
            for mut row in naive_groups(&self.keys, &self.aggregates, &inside) {
                row.extend([Value::Int(start), Value::Int(end), Value::Int(end - 1)]);
                self.out.push(row);
            }
        }
        self.watermark = watermark;
    }
}

/// Runs one random history; false where operator and oracle differ.
fn agrees(seed: u64, window: &Window, keys: &[usize], two_phase: bool, kind: Kind, broken: bool) -> bool {
    let mut rng = SmallRng::seed_from_u64(seed);
    let aggregates = aggregates(two_phase);
    let result = output(keys, &aggregates, &BOUNDS);
    let phase = if two_phase { Phase::Global } else { Phase::Single };
    // What the global phase reads: keys, states, slice_end, rows.
    let mut partial = output(keys, &[], &[]);
    for of in &aggregates {
        partial.fields.extend(of.state_types().into_iter().map(|ty| Field::new("state", ty, true)));
    }
    partial.fields.push(Field::new("slice_end", DataType::Int64, false));
    partial.fields.push(Field::new("rows", DataType::Int64, false));
    let global_keys: Vec<usize> = if two_phase { (0..keys.len()).collect() } else { keys.to_vec() };
    let global_input = if two_phase { partial.clone() } else { input() };
    let make = || {
        WindowAggregate::new(&plan(window, &global_keys, phase, &aggregates), &global_input, &result, 16, 0..16)
            .unwrap()
    };
    let mut local =
        WindowAggregate::new(&plan(window, keys, Phase::Local, &aggregates), &input(), &partial, 16, 0..16).unwrap();
    let mut between = World::new(Kind::Memory);
    let mut operator = make();
    let mut out = World::new(kind);
    operator.restore(&mut out.store, &[]).unwrap();
    let mut oracle = Oracle {
        window: window.clone(),
        keys: keys.to_vec(),
        aggregates: aggregates.clone(),
        rows: Vec::new(),
        watermark: i64::MIN,
        late: 0,
        broken,
        out: Vec::new(),
    };
    let (mut now, mut watermark, mut late) = (0i64, i64::MIN, 0);
    for _ in 0..30 {
        let rows: Vec<Vec<Value>> = (0..rng.random_range(0..40))
            .map(|_| {
                now += rng.random_range(0..3);
                let time = now - rng.random_range(0..25);
                let mut row = random_row(&mut rng, time);
                if rng.random_bool(0.03) {
                    row[TIME] = Value::Null;
                }
                row
            })
            .collect();
        rows.iter().for_each(|row| oracle.row(row));
        let batch = batch_of(&rows);
        if two_phase {
            local.on_batch(0, batch, &mut between.scope()).unwrap();
        } else {
            operator.on_batch(0, batch, &mut out.scope()).unwrap();
        }
        match rng.random_range(0..6) {
            0 | 1 => {
                watermark = watermark.max(now - rng.random_range(0..20));
                // The late rule is the global side's: what local still holds must be there before.
                if two_phase {
                    local.before_barrier(&mut between.scope()).unwrap();
                    for batch in std::mem::take(&mut between.sink.main) {
                        operator.on_batch(0, batch, &mut out.scope()).unwrap();
                    }
                    local.on_watermark(watermark, &mut between.scope()).unwrap();
                }
                operator.on_watermark(watermark, &mut out.scope()).unwrap();
                oracle.watermark(watermark);
            }
            2 => {
                if two_phase {
                    local.before_barrier(&mut between.scope()).unwrap();
                    for batch in std::mem::take(&mut between.sink.main) {
                        operator.on_batch(0, batch, &mut out.scope()).unwrap();
                    }
                }
                late += operator.late_rows();
                let mut fresh = make();
                restart(&mut operator, &mut fresh, &mut out);
                operator = fresh;
            }
            3 if kind == Kind::Disk => operator.spill(&mut out.store).unwrap(),
            4 if rng.random_bool(0.2) => now += 1_000_000,
            _ => {}
        }
    }
    if two_phase {
        local.on_watermark(END_OF_TIME, &mut between.scope()).unwrap();
        for batch in std::mem::take(&mut between.sink.main) {
            operator.on_batch(0, batch, &mut out.scope()).unwrap();
        }
    }
    operator.on_watermark(END_OF_TIME, &mut out.scope()).unwrap();
    oracle.watermark(END_OF_TIME);
    late += operator.late_rows();
    let got = rows_of(&out.sink.main);
    let ends: Vec<i64> = got.iter().map(|row| if let Value::Int(end) = row[row.len() - 2] { end } else { 0 }).collect();
    assert!(ends.is_sorted(), "windows must leave in order of their ends");
    if !two_phase {
        let late_rows: usize = out.sink.late.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(late_rows as u64, late, "every late row goes to the late output");
    }
    assert!(
        operator.panes.is_empty() && (kind == Kind::Memory || out.store.map.is_empty()),
        "fired windows leave nothing behind"
    );
    late == oracle.late && same_rows(&sorted(got), &sorted(oracle.out))
}

fn windows() -> Vec<Window> {
    vec![
        Window::Tumble { size_ms: 10, offset_ms: 3 },
        Window::Hop { size_ms: 12, slide_ms: 5, offset_ms: 0 },
        Window::Hop { size_ms: 20, slide_ms: 5, offset_ms: -2 },
        Window::Hop { size_ms: 4, slide_ms: 10, offset_ms: 0 },
        Window::Cumulate { max_ms: 20, step_ms: 5, offset_ms: 0 },
    ]
}

#[test]
fn windows_equal_a_naive_recomputation() {
    for window in windows() {
        for keys in [vec![], vec![0], vec![1], vec![0, 1], vec![3]] {
            for kind in [Kind::Memory, Kind::Disk] {
                for two_phase in [false, true] {
                    for seed in 0..6 {
                        assert!(
                            agrees(seed, &window, &keys, two_phase, kind, false),
                            "seed {seed}, {window:?}, keys {keys:?}, two phases {two_phase}, {kind:?}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn an_oracle_with_another_late_rule_is_noticed() {
    let window = Window::Hop { size_ms: 20, slide_ms: 5, offset_ms: 0 };
    assert!((0..6).any(|seed| !agrees(seed, &window, &[0], false, Kind::Memory, true)));
}

#[test]
fn late_row_within_open_window_is_counted_once() {
    let window = Window::Hop { size_ms: 10, slide_ms: 5, offset_ms: 0 };
    let count = aggregates(true).drain(..1).collect::<Vec<_>>();
    let mut operator = WindowAggregate::new(
        &plan(&window, &[0], Phase::Single, &count),
        &input(),
        &output(&[0], &count, &BOUNDS),
        16,
        0..16,
    )
    .unwrap();
    let mut out = World::new(Kind::Memory);
    let mut rng = SmallRng::seed_from_u64(1);
    let mut row = |time: i64| {
        let mut row = random_row(&mut rng, time);
        row[0] = Value::Int(1);
        row
    };
    operator.on_batch(0, batch_of(&[row(6)]), &mut out.scope()).unwrap();
    operator.on_watermark(9, &mut out.scope()).unwrap();
    assert_eq!(rows_of(&out.sink.main).len(), 1, "[0, 10) fires at its last millisecond");
    operator.on_batch(0, batch_of(&[row(7), row(4)]), &mut out.scope()).unwrap();
    assert_eq!(operator.late_rows(), 1, "4 is only in windows that have fired");
    operator.on_watermark(14, &mut out.scope()).unwrap();
    let expected = [Value::Int(1), Value::Int(2), Value::Int(5), Value::Int(15), Value::Int(14)];
    assert_eq!(rows_of(&out.sink.main)[1], expected, "7 still counts for [5, 15), and not again for [0, 10)");
}

#[test]
fn keys_that_come_and_go_are_counted_rightly_and_forgotten() {
    let window = Window::Hop { size_ms: 20, slide_ms: 10, offset_ms: 0 };
    let count = aggregates(true).drain(..1).collect::<Vec<_>>();
    let plan = plan(&window, &[0], Phase::Single, &count);
    let mut operator = WindowAggregate::new(&plan, &input(), &output(&[0], &count, &BOUNDS), 16, 0..16).unwrap();
    let mut out = World::new(Kind::Memory);
    let mut rng = SmallRng::seed_from_u64(1);
    let (slices, keys) = (12, 700);
    for slice in 0..slices {
        // Key -1 is always there, the others in one slice only.
        let own = (0..keys).map(|key| slice * keys + key);
        let rows: Vec<Vec<Value>> = own
            .chain([-1])
            .map(|key| {
                let mut row = random_row(&mut rng, slice * 10);
                row[0] = Value::Int(key);
                row
            })
            .collect();
        operator.on_batch(0, batch_of(&rows), &mut out.scope()).unwrap();
        operator.on_watermark(slice * 10, &mut out.scope()).unwrap();
        // A window has 2 * keys, of which as many again and a few may be stale.
        assert!(operator.merged.keys.bound() < 6 * keys as usize, "slice {slice}: keys of the past pile up");
    }
    operator.on_watermark(END_OF_TIME, &mut out.scope()).unwrap();
    let mut expected = Vec::new();
    for end in (10..=slices * 10 + 10).step_by(10) {
        let inside = (0..slices).filter(|slice| (end - 20..end).contains(&(slice * 10)));
        let row = |key: i64, n: i64| [key, n, end - 20, end, end - 1].map(Value::Int).to_vec();
        expected.push(row(-1, inside.clone().count() as i64));
        expected.extend(inside.flat_map(|slice| slice * keys..(slice + 1) * keys).map(|key| row(key, 1)));
    }
    assert!(same_rows(&sorted(rows_of(&out.sink.main)), &sorted(expected)));
}

/// A counting operator over tumbling windows, and rows of these (key, time).
fn counting(size_ms: i64, max_parallelism: u16) -> WindowAggregate {
    let count = aggregates(true).drain(..1).collect::<Vec<_>>();
    let plan = plan(&Window::Tumble { size_ms, offset_ms: 0 }, &[0], Phase::Single, &count);
    let output = output(&[0], &count, &BOUNDS);
    WindowAggregate::new(&plan, &input(), &output, max_parallelism, 0..max_parallelism).unwrap()
}

fn keyed_rows(rows: impl Iterator<Item = (i64, i64)>) -> RecordBatch {
    let row = |(key, time): (i64, i64)| {
        let mut row = vec![Value::Null; 8];
        (row[0], row[TIME]) = (Value::Int(key), Value::Int(time));
        row
    };
    batch_of(&rows.map(row).collect::<Vec<_>>())
}

#[test]
fn windows_of_few_keys_cost_few_reads_after_a_restore_and_delete_no_ranges() {
    let (windows, keys) = (200, 3);
    let mut operator = counting(10, 128);
    let mut out = World::new(Kind::Disk);
    operator.restore(&mut out.store, &[]).unwrap();
    let rows = (0..windows * keys).map(|i| (i % keys, i / keys * 10));
    operator.on_batch(0, keyed_rows(rows), &mut out.scope()).unwrap();
    let mut fresh = counting(10, 128);
    restart(&mut operator, &mut fresh, &mut out);
    fresh.on_watermark(END_OF_TIME, &mut out.scope()).unwrap();
    assert_eq!(rows_of(&out.sink.main).len() as i64, windows * keys);
    assert!(out.store.map.is_empty());
    assert!(out.store.scans as i64 <= windows * keys, "{} scans: most key groups hold nothing", out.store.scans);
    assert_eq!(out.store.range_deletes, 0);
}

#[test]
fn a_window_of_many_keys_is_deleted_by_ranges() {
    let mut operator = counting(10, 2);
    let mut out = World::new(Kind::Disk);
    operator.restore(&mut out.store, &[]).unwrap();
    operator.on_batch(0, keyed_rows((0..8000).map(|key| (key, key % 20))), &mut out.scope()).unwrap();
    operator.spill(&mut out.store).unwrap();
    operator.on_batch(0, keyed_rows((0..10).map(|key| (key, 1))), &mut out.scope()).unwrap();
    operator.on_watermark(9, &mut out.scope()).unwrap();
    assert_eq!((out.store.range_deletes, out.store.map.len()), (2, 4000), "the second window's are still there");
}

#[test]
fn spilling_frees_the_memory_of_all_slices() {
    let mut operator = counting(10, 16);
    let mut out = World::new(Kind::Disk);
    operator.restore(&mut out.store, &[]).unwrap();
    operator.on_batch(0, keyed_rows((0..8000).map(|i| (i, i % 8 * 10))), &mut out.scope()).unwrap();
    let full = operator.memory_bytes();
    operator.spill(&mut out.store).unwrap();
    assert!(operator.memory_bytes() * 10 < full, "{} of {full} bytes are left", operator.memory_bytes());
    operator.on_batch(0, keyed_rows((0..8).map(|i| (i, i * 10))), &mut out.scope()).unwrap();
    assert!(operator.memory_bytes() * 3 < full, "one batch later the tables are large again");
}

#[test]
fn attached_windows_fire_at_their_end_and_not_again() {
    let count = aggregates(true).drain(..1).collect::<Vec<_>>();
    let schema = Schema::new(BOUNDS.iter().map(|(name, ty)| Field::new(*name, ty.clone(), true)).collect());
    let mut attached = plan(&Window::Attached { start: 0, end: 1 }, &[], Phase::Single, &count);
    attached.time = Time::Event { column: 2 };
    let make = || WindowAggregate::new(&attached, &schema, &output(&[], &count, &BOUNDS), 16, 0..16).unwrap();
    for kind in [Kind::Memory, Kind::Disk] {
        let mut operator = make();
        let mut out = World::new(kind);
        operator.restore(&mut out.store, &[]).unwrap();
        let stamps = |times: &[i64]| -> ArrayRef { Arc::new(TimestampMillisecondArray::from(times.to_vec())) };
        let batch = |starts: &[i64], ends: &[i64]| {
            RecordBatch::try_new(schema.to_arrow(), vec![stamps(starts), stamps(ends), stamps(ends)]).unwrap()
        };
        operator.on_batch(0, batch(&[0, 5, 0, 5], &[10, 10, 10, 15]), &mut out.scope()).unwrap();
        let mut fresh = make();
        restart(&mut operator, &mut fresh, &mut out);
        fresh.on_watermark(9, &mut out.scope()).unwrap();
        fresh.on_batch(0, batch(&[0], &[10]), &mut out.scope()).unwrap();
        assert_eq!(fresh.late_rows(), 1);
        fresh.on_watermark(END_OF_TIME, &mut out.scope()).unwrap();
        let row = |n: i64, start: i64, end: i64| [n, start, end, end - 1].map(Value::Int).to_vec();
        assert_eq!(rows_of(&out.sink.main), [row(2, 0, 10), row(1, 5, 10), row(1, 5, 15)]);
    }
}

#[test]
fn processing_time_windows_follow_the_clock() {
    let count = aggregates(true).drain(..1).collect::<Vec<_>>();
    let mut plan = plan(&Window::Tumble { size_ms: 10, offset_ms: 0 }, &[], Phase::Single, &count);
    plan.time = Time::Processing;
    let mut operator = WindowAggregate::new(&plan, &input(), &output(&[], &count, &BOUNDS), 16, 0..16).unwrap();
    let mut out = World::new(Kind::Memory);
    let mut rng = SmallRng::seed_from_u64(1);
    operator.on_batch(0, batch_of(&[random_row(&mut rng, 0)]), &mut out.at(1001)).unwrap();
    operator.on_clock(&mut out.at(1004)).unwrap();
    operator.on_batch(0, batch_of(&[random_row(&mut rng, 0)]), &mut out.scope()).unwrap();
    operator.on_clock(&mut out.at(1009)).unwrap();
    assert!(out.sink.main.is_empty());
    operator.on_clock(&mut out.at(1010)).unwrap();
    assert_eq!(rows_of(&out.sink.main), [[2, 1000, 1010, 1009].map(Value::Int).to_vec()]);
    operator.on_batch(0, batch_of(&[random_row(&mut rng, 0)]), &mut out.scope()).unwrap();
    operator.on_watermark(END_OF_TIME, &mut out.scope()).unwrap();
    assert_eq!(rows_of(&out.sink.main)[1], [1, 1010, 1020, 1019].map(Value::Int).to_vec());
}
