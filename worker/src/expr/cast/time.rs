//! Casts between dates, times and timestamps. Wall-clock timestamps and instants meet in UTC; finer digits are cut.

use super::misfit;
use crate::expr::value::{Kernel, Longs, from_longs};
use crate::time::civil::{self, MILLIS_PER_DAY};
use ef_proto::schema::{DataType, Unit};

fn rescale(ticks: i64, from: Unit, to: Unit) -> Option<i64> {
    let (a, b) = (from.per_milli(), to.per_milli());
    if b >= a { ticks.checked_mul(b / a) } else { Some(ticks.div_euclid(a / b)) }
}

pub(super) fn kernel(from: &DataType, to: &DataType, safe: bool) -> Option<Kernel> {
    use DataType as T;
    type Step = Box<dyn Fn(i64) -> Option<i64> + Send + Sync>;
    let step: Step = match (from, to) {
        (T::Timestamp(a) | T::TimestampLtz(a), T::Timestamp(b) | T::TimestampLtz(b)) => {
            let (a, b) = (*a, *b);
            Box::new(move |v| rescale(v, a, b))
        }
        (T::Timestamp(a) | T::TimestampLtz(a), T::Date) => {
            let per_day = civil::ticks_per_day(*a);
            Box::new(move |v| Some(v.div_euclid(per_day)).filter(|v| i32::try_from(*v).is_ok()))
        }
        (T::Timestamp(a) | T::TimestampLtz(a), T::Time) => {
            let a = *a;
            Box::new(move |v| Some(rescale(v, a, Unit::Milli)?.rem_euclid(MILLIS_PER_DAY)))
        }
        (T::Date, T::Timestamp(b) | T::TimestampLtz(b)) => {
            let per_day = civil::ticks_per_day(*b);
            Box::new(move |v| v.checked_mul(per_day))
        }
        _ => return None,
    };
    let (from, to) = (from.clone(), to.clone());
    Some(Box::new(move |args, rows| {
        let longs = Longs::of(&args[0], &from).ok_or("a time is expected")?;
        from_longs(rows, &to, |row| {
            let Some(v) = longs.get(row) else { return Ok(None) };
            misfit(step(v), safe, || format!("{v} of {from}"), &to)
        })
    }))
}
