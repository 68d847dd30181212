//! Casts between dates, times and timestamps. Wall-clock timestamps and instants meet in UTC; finer digits are cut.

use super::convert;
use crate::expr::value::{Kernel, of_ticks, ticks};
use crate::time::civil::{self, MILLIS_PER_DAY};
use arrow_array::types::Int64Type;
use ef_proto::schema::{DataType, Unit};

fn rescale(ticks: i64, from: Unit, to: Unit) -> Option<i64> {
    let (a, b) = (from.per_milli(), to.per_milli());
    if b >= a { ticks.checked_mul(b / a) } else { Some(ticks.div_euclid(a / b)) }
}

pub(super) fn kernel(from: &DataType, to: &DataType, safe: bool) -> Option<Kernel> {
    use DataType as T;
    match (from, to) {
        (T::Timestamp(a) | T::TimestampLtz(a), T::Timestamp(b) | T::TimestampLtz(b)) => {
            let (a, b) = (*a, *b);
            Some(stepwise(from, to, safe, move |v| rescale(v, a, b)))
        }
        (T::Timestamp(a) | T::TimestampLtz(a), T::Date) => {
            let per_day = civil::ticks_per_day(*a);
            let f = move |v: i64| Some(v.div_euclid(per_day)).filter(|v| i32::try_from(*v).is_ok());
            Some(stepwise(from, to, safe, f))
        }
        (T::Timestamp(a) | T::TimestampLtz(a), T::Time) => {
            let a = *a;
            Some(stepwise(from, to, safe, move |v| Some(rescale(v, a, Unit::Milli)?.rem_euclid(MILLIS_PER_DAY))))
        }
        (T::Date, T::Timestamp(b) | T::TimestampLtz(b)) => {
            let per_day = civil::ticks_per_day(*b);
            Some(stepwise(from, to, safe, move |v| v.checked_mul(per_day)))
        }
        _ => None,
    }
}

fn stepwise(
    from: &DataType,
    to: &DataType,
    safe: bool,
    f: impl Fn(i64) -> Option<i64> + Send + Sync + 'static,
) -> Kernel {
    let (from, to) = (from.clone(), to.clone());
    Box::new(move |args, _| {
        let input = ticks(args[0].array(), &from).ok_or("a time is expected")?;
        let output = convert::<Int64Type, Int64Type>(&input, &to, safe, &f, |v| format!("{v} of {from}"))?;
        of_ticks(output, &to)
    })
}
