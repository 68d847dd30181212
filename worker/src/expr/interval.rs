//! Times and intervals: timestamp, date or time ± interval, the difference of two of them, intervals among
//! themselves. Months are added first and keep to the end of a month, then days, then the rest.

use super::value::{Kernel, Longs, build, from_longs, of_ticks, ticks, try_map};
use crate::time::civil::{self, MILLIS_PER_DAY};
use arrow_array::types::{Int64Type, IntervalMonthDayNanoType};
use arrow_array::{Array, IntervalMonthDayNanoArray};
use arrow_buffer::IntervalMonthDayNano;
use ef_proto::expr::BinaryOp;
use ef_proto::schema::{DataType, Unit};

const NANOS_PER_MILLI: i64 = 1_000_000;
const NANOS_PER_DAY: i64 = MILLIS_PER_DAY * NANOS_PER_MILLI;

pub(crate) fn negate(v: IntervalMonthDayNano) -> IntervalMonthDayNano {
    IntervalMonthDayNano::new(v.months.wrapping_neg(), v.days.wrapping_neg(), v.nanoseconds.wrapping_neg())
}

/// Nanoseconds, with a month taken as 30 days: good for comparing, as PostgreSQL does.
pub(crate) fn length(v: IntervalMonthDayNano) -> i128 {
    (v.months as i128 * 30 + v.days as i128) * NANOS_PER_DAY as i128 + v.nanoseconds as i128
}

/// Ticks moved by an interval; None where the end is out of range, whatever lies on the way.
pub(crate) fn shift(ticks: i64, by: IntervalMonthDayNano, unit: Unit) -> Option<i64> {
    let per_day = civil::ticks_per_day(unit);
    let mut moved = ticks as i128;
    if by.months != 0 {
        let day = civil::add_months(ticks.div_euclid(per_day), by.months as i64)?;
        moved = day as i128 * per_day as i128 + ticks.rem_euclid(per_day) as i128;
    }
    moved += by.days as i128 * per_day as i128;
    moved += by.nanoseconds.div_euclid(NANOS_PER_MILLI / unit.per_milli()) as i128;
    i64::try_from(moved).ok()
}

fn unit_of(ty: &DataType) -> Unit {
    match ty {
        DataType::Timestamp(unit) | DataType::TimestampLtz(unit) => *unit,
        _ => Unit::Milli,
    }
}

/// The kernel of an operator that has a time or an interval on at least one side.
pub(crate) fn binary(op: BinaryOp, left: &DataType, right: &DataType, ty: &DataType) -> Option<Kernel> {
    let integer = |t: &DataType| matches!(t, DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64);
    let moment = |t: &DataType| t.is_timestamp() || matches!(t, DataType::Date | DataType::Time);
    match (left, op, right) {
        (t, BinaryOp::Add | BinaryOp::Sub, DataType::Interval) if moment(t) && moment(ty) => {
            Some(moved(t.clone(), ty.clone(), 0, op == BinaryOp::Sub))
        }
        (DataType::Interval, BinaryOp::Add, t) if moment(t) && moment(ty) => {
            Some(moved(t.clone(), ty.clone(), 1, false))
        }
        (a, BinaryOp::Sub, b) if moment(a) && moment(b) && *ty == DataType::Interval => {
            Some(difference(a.clone(), b.clone()))
        }
        (DataType::Date, BinaryOp::Sub, DataType::Date) if matches!(ty, DataType::Int32 | DataType::Int64) => {
            let ty = ty.clone();
            Some(Box::new(move |args, rows| {
                let (a, b) = (longs(&args[0], &DataType::Date)?, longs(&args[1], &DataType::Date)?);
                from_longs(rows, &ty, |row| Ok(a.get(row).zip(b.get(row)).map(|(a, b)| a - b)))
            }))
        }
        (DataType::Interval, BinaryOp::Add | BinaryOp::Sub, DataType::Interval) => {
            let minus = op == BinaryOp::Sub;
            Some(Box::new(move |args, rows| {
                let (a, b) =
                    (args[0].cells::<IntervalMonthDayNanoArray>(), args[1].cells::<IntervalMonthDayNanoArray>());
                build::<IntervalMonthDayNanoType>(rows, &DataType::Interval, |row| {
                    let Some((a, b)) = a.get(row).zip(b.get(row)) else { return Ok(None) };
                    let b = if minus { negate(b) } else { b };
                    let sum = || {
                        Some(IntervalMonthDayNano::new(
                            a.months.checked_add(b.months)?,
                            a.days.checked_add(b.days)?,
                            a.nanoseconds.checked_add(b.nanoseconds)?,
                        ))
                    };
                    sum().map(Some).ok_or_else(|| "the sum of the intervals is out of range".to_string())
                })
            }))
        }
        (DataType::Interval, BinaryOp::Mul, by) if integer(by) => scaled(0, right.clone()),
        (by, BinaryOp::Mul, DataType::Interval) if integer(by) => scaled(1, left.clone()),
        _ => None,
    }
}

fn longs<'a>(value: &'a super::value::Value, ty: &DataType) -> Result<Longs<'a>, String> {
    Longs::of(value, ty).ok_or_else(|| format!("{ty} is not carried by an integer"))
}

fn scaled(interval_at: usize, number: DataType) -> Option<Kernel> {
    Some(Box::new(move |args, rows| {
        let interval = args[interval_at].cells::<IntervalMonthDayNanoArray>();
        let factor = longs(&args[1 - interval_at], &number)?;
        build::<IntervalMonthDayNanoType>(rows, &DataType::Interval, |row| {
            let Some((v, by)) = interval.get(row).zip(factor.get(row)) else { return Ok(None) };
            let product = || {
                Some(IntervalMonthDayNano::new(
                    i32::try_from((v.months as i64).checked_mul(by)?).ok()?,
                    i32::try_from((v.days as i64).checked_mul(by)?).ok()?,
                    v.nanoseconds.checked_mul(by)?,
                ))
            };
            product().map(Some).ok_or_else(|| format!("the interval times {by} is out of range"))
        })
    }))
}

/// Ticks of `from` in the unit of `to`, which a date lacks.
fn moved(from: DataType, to: DataType, time_at: usize, minus: bool) -> Kernel {
    Box::new(move |args, rows| {
        let time = longs(&args[time_at], &from)?;
        let by = &args[1 - time_at];
        let interval = by.cells::<IntervalMonthDayNanoArray>();
        let unit = unit_of(&to);
        let simple = by.is_constant() && from == to && from.is_timestamp() && by.array().is_valid(0);
        if simple {
            // The common `ts - INTERVAL '5' SECOND`: one addition a row.
            let v = interval.get(0).unwrap_or_default();
            let v = if minus { negate(v) } else { v };
            if v.months == 0
                && let Some(delta) = shift(0, v, unit)
            {
                let input = ticks(args[time_at].array(), &from).ok_or("a timestamp is expected")?;
                let (output, refused) = try_map::<Int64Type, Int64Type>(&input, |t| t.checked_add(delta));
                return match refused.and_then(|rows| rows.set_indices().next()) {
                    Some(row) => Err(out_of_range(input.value(row), &to)),
                    None => of_ticks(output, &to),
                };
            }
        }
        from_longs(rows, &to, |row| {
            let Some((t, v)) = time.get(row).zip(interval.get(row)) else { return Ok(None) };
            let v = if minus { negate(v) } else { v };
            let moved = match (&from, &to) {
                (DataType::Date, DataType::Date) => t
                    .checked_mul(MILLIS_PER_DAY)
                    .and_then(|t| shift(t, v, Unit::Milli))
                    .map(|t| t.div_euclid(MILLIS_PER_DAY))
                    .filter(|t| i32::try_from(*t).is_ok()),
                (DataType::Date, _) => t.checked_mul(civil::ticks_per_day(unit)).and_then(|t| shift(t, v, unit)),
                (DataType::Time, _) => shift(t, v, Unit::Milli).map(|t| t.rem_euclid(MILLIS_PER_DAY)),
                _ => shift(t, v, unit),
            };
            moved.map(Some).ok_or_else(|| out_of_range(t, &to))
        })
    })
}

fn out_of_range(t: i64, ty: &DataType) -> String {
    format!("{t} moved by the interval is out of the range of {ty}")
}

/// Nanoseconds of a moment since the epoch (of a time: since midnight).
fn nanos(value: i64, ty: &DataType) -> i128 {
    match ty {
        DataType::Date => value as i128 * NANOS_PER_DAY as i128,
        other => value as i128 * (NANOS_PER_MILLI / unit_of(other).per_milli()) as i128,
    }
}

fn difference(a: DataType, b: DataType) -> Kernel {
    Box::new(move |args, rows| {
        let (left, right) = (longs(&args[0], &a)?, longs(&args[1], &b)?);
        build::<IntervalMonthDayNanoType>(rows, &DataType::Interval, |row| {
            let Some((l, r)) = left.get(row).zip(right.get(row)) else { return Ok(None) };
            let between = i64::try_from(nanos(l, &a) - nanos(r, &b));
            let between = between.map_err(|_| "the times are more than 292 years apart".to_string())?;
            Ok(Some(IntervalMonthDayNano::new(0, 0, between)))
        })
    })
}
