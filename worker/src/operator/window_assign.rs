//! A window TVF whose rows are used as they are: every row once for each window that it belongs to, with
//! `window_start`, `window_end` and `window_time` appended.
//!
//! Rows are not repeated by copying: a batch goes out once per window of its rows, sharing the input's columns, and
//! only where some rows lack a k-th window (CUMULATE, NULL times) are the others picked out.

use super::{Operator, Scope};
use crate::error::{Context, Error, Result};
use arrow_array::cast::AsArray;
use arrow_array::types::{TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType};
use arrow_array::{Array, ArrayRef, RecordBatch, TimestampMillisecondArray, UInt32Array};
use arrow_schema::{DataType as Arrow, SchemaRef, TimeUnit};
use arrow_select::take::take;
use ef_proto::plan::{self, Time, Window};
use ef_proto::schema::{DataType, Schema, Unit};
use std::sync::Arc;

pub struct WindowAssign {
    windows: Windows,
    time: Time,
    /// Time zone of the appended columns: none for TIMESTAMP, UTC for TIMESTAMP_LTZ.
    zone: Option<Arc<str>>,
    schema: SchemaRef,
    dropped: u64,
    // Buffers, reused from batch to batch.
    times: Vec<Option<i64>>,
    rows: Vec<u32>,
}

/// The windows of a row, numbered: `nth(ts, k)` is the k-th.
#[derive(Clone, Copy)]
enum Windows {
    Hop { size: i64, slide: i64, offset: i64 },
    Cumulate { max: i64, step: i64, offset: i64 },
}

impl Windows {
    fn new(window: &Window) -> Result<Windows> {
        let (windows, lengths) = match *window {
            Window::Tumble { size_ms, offset_ms } => {
                (Windows::Hop { size: size_ms, slide: size_ms, offset: offset_ms }, [size_ms, size_ms])
            }
            Window::Hop { size_ms, slide_ms, offset_ms } => {
                (Windows::Hop { size: size_ms, slide: slide_ms, offset: offset_ms }, [size_ms, slide_ms])
            }
            Window::Cumulate { max_ms, step_ms, offset_ms } => {
                (Windows::Cumulate { max: max_ms, step: step_ms, offset: offset_ms }, [max_ms, step_ms])
            }
            Window::Session { .. } | Window::Attached { .. } => {
                return Err(Error::invalid(format!(
                    "rows cannot be assigned to {window:?}; TUMBLE, HOP or CUMULATE can"
                )));
            }
        };
        if lengths.iter().any(|ms| *ms <= 0) {
            return Err(Error::invalid(format!("window lengths must be positive, found {window:?}")));
        }
        Ok(windows)
    }

    /// How many windows a row has at most.
    fn count_max(self) -> i64 {
        match self {
            Windows::Hop { size, slide, .. } => size.saturating_add(slide - 1) / slide,
            Windows::Cumulate { max, step, .. } => max.saturating_add(step - 1) / step,
        }
    }

    /// Bounds of the k-th window of a row at `ts`, latest start first (HOP), shortest first (CUMULATE).
    #[inline]
    fn nth(self, ts: i64, k: i64) -> Option<(i64, i64)> {
        match self {
            Windows::Hop { size, slide, offset } => {
                let start = floor_to(ts, slide, offset)?.checked_sub(k * slide)?;
                let end = start.checked_add(size)?;
                (end > ts).then_some((start, end))
            }
            Windows::Cumulate { max, step, offset } => {
                let start = floor_to(ts, max, offset)?;
                let first = (ts - start) / step * step + step;
                let end = first.checked_add(k * step)?;
                // The last step may be cut short by the maximum.
                if end < max {
                    Some((start, start.checked_add(end)?))
                } else if end < max.saturating_add(step) {
                    Some((start, start.checked_add(max)?))
                } else {
                    None
                }
            }
        }
    }
}

/// The largest `offset + n * length` that is at most `ts`, for negative times too. None beyond the range of i64.
#[inline]
fn floor_to(ts: i64, length: i64, offset: i64) -> Option<i64> {
    // Reduced first, so that `ts - offset` overflows at the very ends of time only.
    let offset = offset.rem_euclid(length);
    ts.checked_sub(ts.checked_sub(offset)?.rem_euclid(length))
}

impl WindowAssign {
    /// `output` is the operator's schema: the input's columns, then the three window columns.
    pub fn new(spec: &plan::WindowAssign, input: &Schema, output: &Schema) -> Result<WindowAssign> {
        if let Time::Event { column } = spec.time
            && !input.fields.get(column).is_some_and(|field| field.ty.is_timestamp())
        {
            return Err(Error::invalid(format!(
                "time column {column} of a window is not a TIMESTAMP column of its input"
            )));
        }
        let zone: Option<Arc<str>> = match output.fields.get(input.len()).map(|field| &field.ty) {
            Some(DataType::Timestamp(Unit::Milli)) => None,
            Some(DataType::TimestampLtz(Unit::Milli)) => Some("UTC".into()),
            other => {
                return Err(Error::invalid(format!(
                    "window_start must be TIMESTAMP(3) or TIMESTAMP_LTZ(3), found {other:?}"
                )));
            }
        };
        Ok(WindowAssign {
            windows: Windows::new(&spec.window)?,
            time: spec.time,
            zone,
            schema: output.to_arrow(),
            dropped: 0,
            times: Vec::new(),
            rows: Vec::new(),
        })
    }

    fn column(&self, values: Vec<i64>) -> ArrayRef {
        Arc::new(TimestampMillisecondArray::from(values).with_timezone_opt(self.zone.clone()))
    }
}

impl Operator for WindowAssign {
    fn null_time_rows(&self) -> u64 {
        self.dropped
    }

    fn on_batch(&mut self, _input: usize, batch: RecordBatch, scope: &mut Scope<'_>) -> Result<()> {
        match self.time {
            Time::Event { column } => {
                times_ms(batch.column(column), &mut self.times)?;
                self.dropped += batch.column(column).null_count() as u64;
            }
            Time::Processing => {
                self.times.clear();
                self.times.resize(batch.num_rows(), Some(scope.now_ms));
            }
        }
        for k in 0..self.windows.count_max() {
            self.rows.clear();
            let (mut starts, mut ends) = (Vec::with_capacity(batch.num_rows()), Vec::with_capacity(batch.num_rows()));
            for (row, ts) in self.times.iter().enumerate() {
                if let Some((start, end)) = ts.and_then(|ts| self.windows.nth(ts, k)) {
                    self.rows.push(row as u32);
                    starts.push(start);
                    ends.push(end);
                }
            }
            if self.rows.is_empty() {
                continue;
            }
            let mut columns = if self.rows.len() == batch.num_rows() {
                batch.columns().to_vec()
            } else {
                let rows = UInt32Array::from(self.rows.clone());
                let picked: std::result::Result<Vec<_>, _> =
                    batch.columns().iter().map(|column| take(column, &rows, None)).collect();
                picked.internal(|| "picking the rows of a window".into())?
            };
            let times = ends.iter().map(|end| end - 1).collect();
            columns.extend([self.column(starts), self.column(ends), self.column(times)]);
            let batch =
                RecordBatch::try_new(self.schema.clone(), columns).internal(|| "appending window columns".into())?;
            scope.out.emit(batch)?;
        }
        Ok(())
    }
}

/// The column's times in milliseconds, rounded down; NULL as None.
fn times_ms(column: &ArrayRef, times: &mut Vec<Option<i64>>) -> Result<()> {
    times.clear();
    match column.data_type() {
        Arrow::Timestamp(TimeUnit::Millisecond, _) => times.extend(column.as_primitive::<TimestampMillisecondType>()),
        Arrow::Timestamp(TimeUnit::Microsecond, _) => times.extend(
            column.as_primitive::<TimestampMicrosecondType>().iter().map(|ts| ts.map(|ts| ts.div_euclid(1_000))),
        ),
        Arrow::Timestamp(TimeUnit::Nanosecond, _) => times.extend(
            column.as_primitive::<TimestampNanosecondType>().iter().map(|ts| ts.map(|ts| ts.div_euclid(1_000_000))),
        ),
        other => return Err(Error::invalid(format!("a window's time must be a TIMESTAMP, found {other}"))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::Emit;
    use crate::operator::map_store::Map;
    use crate::state::Kind;
    use arrow_array::{Int64Array, TimestampMicrosecondArray};
    use ef_proto::plan::Output;
    use ef_proto::schema::Field;
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    #[derive(Default)]
    struct Rows(Vec<(i64, i64, i64, i64)>);

    impl Emit for Rows {
        fn emit_to(&mut self, _output: Output, batch: RecordBatch) -> Result<()> {
            let id = batch.column(0).as_primitive::<arrow_array::types::Int64Type>();
            let bound = |i: usize| batch.column(i).as_primitive::<TimestampMillisecondType>();
            for row in 0..batch.num_rows() {
                self.0.push((id.value(row), bound(2).value(row), bound(3).value(row), bound(4).value(row)));
            }
            Ok(())
        }
    }

    fn feed(operator: &mut WindowAssign, batch: RecordBatch) -> Rows {
        let (mut rows, mut store) = (Rows::default(), Map::new(Kind::Memory, Default::default()));
        let mut scope = Scope { out: &mut rows, store: &mut store, now_ms: 0 };
        operator.on_batch(0, batch, &mut scope).expect("assigned");
        rows
    }

    fn schemas(unit: Unit) -> (Schema, Schema) {
        let input = Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("ts", DataType::Timestamp(unit), true),
        ]);
        let mut output = input.clone();
        for name in ["window_start", "window_end", "window_time"] {
            output.fields.push(Field::new(name, DataType::Timestamp(Unit::Milli), false));
        }
        (input, output)
    }

    fn assign(window: Window, times: Vec<Option<i64>>) -> (Vec<(i64, i64, i64, i64)>, u64) {
        let (input, output) = schemas(Unit::Micro);
        let spec = plan::WindowAssign { window, time: Time::Event { column: 1 } };
        let mut operator = WindowAssign::new(&spec, &input, &output).expect("valid window");
        let ids = Int64Array::from_iter_values(0..times.len() as i64);
        let batch = RecordBatch::try_new(
            input.to_arrow(),
            vec![Arc::new(ids), Arc::new(TimestampMicrosecondArray::from(times))],
        );
        let mut rows = feed(&mut operator, batch.expect("columns fit"));
        rows.0.sort();
        (rows.0, operator.null_time_rows())
    }

    /// Every window of the given kind that holds `ts`, by trying all of them.
    fn naive(window: &Window, ts: i64) -> Vec<(i64, i64)> {
        let mut found = vec![];
        match *window {
            Window::Tumble { size_ms: size, offset_ms: offset }
            | Window::Hop { size_ms: size, offset_ms: offset, .. } => {
                let slide = if let Window::Hop { slide_ms, .. } = window { *slide_ms } else { size };
                for n in -400..400 {
                    let start = offset + n * slide;
                    if start <= ts && ts < start + size {
                        found.push((start, start + size));
                    }
                }
            }
            Window::Cumulate { max_ms, step_ms, offset_ms } => {
                for n in -400..400 {
                    let start = offset_ms + n * max_ms;
                    let mut length = 0;
                    while length < max_ms {
                        length = (length + step_ms).min(max_ms);
                        if start <= ts && ts < start + length {
                            found.push((start, start + length));
                        }
                    }
                }
            }
            _ => unreachable!("not drawn"),
        }
        found
    }

    #[test]
    fn windows_match_a_search_over_all_windows_for_negative_times_and_offsets() {
        let mut rng = SmallRng::seed_from_u64(7);
        for _ in 0..200 {
            let (a, b) = (rng.random_range(1..40), rng.random_range(1..40));
            let offset_ms = rng.random_range(-50..50);
            let window = match rng.random_range(0..3) {
                0 => Window::Tumble { size_ms: a, offset_ms },
                1 => Window::Hop { size_ms: a, slide_ms: b, offset_ms },
                _ => Window::Cumulate { max_ms: a.max(b), step_ms: a.min(b), offset_ms },
            };
            let times: Vec<i64> = (0..20).map(|_| rng.random_range(-200_000..200_000)).collect();
            let mut expected = vec![];
            for (id, us) in times.iter().enumerate() {
                for (start, end) in naive(&window, us.div_euclid(1_000)) {
                    expected.push((id as i64, start, end, end - 1));
                }
            }
            expected.sort();
            let (found, _) = assign(window.clone(), times.into_iter().map(Some).collect());
            assert_eq!(found, expected, "{window:?}");
        }
    }

    #[test]
    fn rows_without_a_time_are_counted_and_reach_no_window() {
        let (rows, dropped) = assign(Window::Tumble { size_ms: 10, offset_ms: 0 }, vec![Some(1_000), None, Some(-1)]);
        assert_eq!(rows, vec![(0, 0, 10, 9), (2, -10, 0, -1)]);
        assert_eq!(dropped, 1);
    }

    #[test]
    fn times_at_the_ends_of_the_range_do_not_overflow() {
        let (input, output) = schemas(Unit::Milli);
        let spec = plan::WindowAssign {
            window: Window::Hop { size_ms: 60_000, slide_ms: 5_000, offset_ms: -3 },
            time: Time::Event { column: 1 },
        };
        let mut operator = WindowAssign::new(&spec, &input, &output).expect("valid window");
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![0, 1])),
            Arc::new(TimestampMillisecondArray::from(vec![i64::MIN, i64::MAX])),
        ];
        let batch = RecordBatch::try_new(input.to_arrow(), columns).expect("columns fit");
        feed(&mut operator, batch);
    }

    #[test]
    fn sessions_are_refused() {
        let (input, output) = schemas(Unit::Milli);
        let spec = plan::WindowAssign { window: Window::Session { gap_ms: 5 }, time: Time::Event { column: 1 } };
        assert!(WindowAssign::new(&spec, &input, &output).is_err());
    }
}
