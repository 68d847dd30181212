//! The rules that need code of their own: row by row, plainly, and by other ways than the evaluator goes. Those of
//! texts are in `texts`.

use super::translate::Physical;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, TimestampMicrosecondType, TimestampMillisecondType};
use arrow_array::{Array, ArrayRef, BooleanArray};
use arrow_buffer::IntervalMonthDayNano;
use arrow_schema::{DataType as Arrow, Field, TimeUnit};
use chrono::{DateTime, Datelike, Days, NaiveTime};
use datafusion_common::config::ConfigOptions;
use datafusion_common::{DataFusionError, ScalarValue};
use datafusion_expr::{ColumnarValue, Volatility, create_udf};
use datafusion_physical_expr::ScalarFunctionExpr;
use ef_proto::expr::{BinaryOp, Expr, ExprKind, Scalar};
use ef_proto::schema::{DataType, Unit};
use std::cmp::Ordering;
use std::sync::Arc;

type Row<'a> = &'a [ScalarValue];

/// A function of whole columns.
fn columns(
    args: Vec<Physical>,
    to: &Arrow,
    f: impl Fn(Vec<ArrayRef>) -> Result<ArrayRef, DataFusionError> + Send + Sync + 'static,
) -> Physical {
    let run = move |args: &[ColumnarValue]| {
        let scalar = args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let array = f(ColumnarValue::values_to_arrays(args)?)?;
        Ok(if scalar {
            ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?)
        } else {
            ColumnarValue::Array(array)
        })
    };
    let udf = create_udf("rule", vec![], to.clone(), Volatility::Immutable, Arc::new(run));
    let field = Arc::new(Field::new("rule", to.clone(), true));
    Arc::new(ScalarFunctionExpr::new("rule", Arc::new(udf), args, field, Arc::new(ConfigOptions::default())))
}

/// A function of rows; NULL where any argument is NULL or the function says None.
pub(super) fn rows(
    args: Vec<Physical>,
    to: &Arrow,
    f: impl Fn(Row) -> Result<Option<ScalarValue>, String> + Send + Sync + 'static,
) -> Physical {
    let ty = to.clone();
    columns(args, to, move |arrays| {
        if arrays[0].is_empty() {
            return Ok(arrow_array::new_empty_array(&ty));
        }
        let row = |row: usize| -> Result<ScalarValue, DataFusionError> {
            let values: Vec<ScalarValue> =
                arrays.iter().map(|a| ScalarValue::try_from_array(a, row)).collect::<Result<_, _>>()?;
            let value = if values.iter().any(ScalarValue::is_null) { Ok(None) } else { f(&values) };
            match value.map_err(DataFusionError::Execution)? {
                Some(value) => Ok(value),
                None => ScalarValue::try_from(&ty),
            }
        };
        ScalarValue::iter_to_array((0..arrays[0].len()).map(row).collect::<Result<Vec<_>, _>>()?)
    })
}

pub(super) fn text(value: &ScalarValue) -> &str {
    value.try_as_str().flatten().expect("a text")
}

pub(super) fn integer(value: &ScalarValue) -> i64 {
    match value {
        ScalarValue::Int32(Some(v)) | ScalarValue::Time32Millisecond(Some(v)) => *v as i64,
        ScalarValue::Int64(Some(v)) => *v,
        ScalarValue::TimestampMillisecond(Some(v), _)
        | ScalarValue::TimestampMicrosecond(Some(v), _)
        | ScalarValue::TimestampNanosecond(Some(v), _) => *v,
        other => unreachable!("{other} is not an integer"),
    }
}

pub fn canonical(input: Physical, ty: &Arrow) -> Physical {
    columns(vec![input], ty, |args| {
        Ok(match args[0].data_type() {
            Arrow::Float32 => Arc::new(
                args[0]
                    .as_primitive::<Float32Type>()
                    .unary::<_, Float32Type>(|v| if v.is_nan() { f32::NAN } else { v + 0.0 }),
            ),
            _ => Arc::new(
                args[0]
                    .as_primitive::<Float64Type>()
                    .unary::<_, Float64Type>(|v| if v.is_nan() { f64::NAN } else { v + 0.0 }),
            ),
        })
    })
}

/// True where no argument is NULL; all of them are evaluated.
pub fn all_known(args: Vec<Physical>) -> Physical {
    columns(args, &Arrow::Boolean, |args| {
        let known = |row| args.iter().all(|a| a.is_valid(row));
        Ok(Arc::new((0..args[0].len()).map(|row| Some(known(row))).collect::<BooleanArray>()))
    })
}

pub fn doubles(args: Vec<Physical>, f: impl Fn(&[f64]) -> f64 + Send + Sync + 'static) -> Physical {
    rows(args, &Arrow::Float64, move |row| {
        let values: Vec<f64> =
            row.iter().map(|v| if let ScalarValue::Float64(Some(v)) = v { *v } else { f64::NAN }).collect();
        Ok(Some(ScalarValue::from(f(&values))))
    })
}

pub fn java_comparison(op: BinaryOp, left: Physical, right: Physical) -> Physical {
    let double = |value: &ScalarValue| match value {
        ScalarValue::Float32(Some(v)) => f64::from(*v),
        ScalarValue::Float64(Some(v)) => *v,
        other => unreachable!("{other} is no float"),
    };
    rows(vec![left, right], &Arrow::Boolean, move |row| {
        let order = double(&row[0]).partial_cmp(&double(&row[1]));
        Ok(Some(ScalarValue::from(match op {
            BinaryOp::Eq => order.is_some_and(Ordering::is_eq),
            BinaryOp::NotEq => !order.is_some_and(Ordering::is_eq),
            BinaryOp::Lt => order.is_some_and(Ordering::is_lt),
            BinaryOp::LtEq => order.is_some_and(Ordering::is_le),
            BinaryOp::Gt => order.is_some_and(Ordering::is_gt),
            _ => order.is_some_and(Ordering::is_ge),
        })))
    })
}

pub fn floor_ticks(input: Physical, by: i64, unit: Unit) -> Physical {
    let to = DataType::Timestamp(unit).to_arrow();
    rows(vec![input], &to, move |row| {
        let ticks = Some(integer(&row[0]).div_euclid(by));
        Ok(Some(match unit {
            Unit::Milli => ScalarValue::TimestampMillisecond(ticks, None),
            _ => ScalarValue::TimestampMicrosecond(ticks, None),
        }))
    })
}

/// The start of the unit by chrono's calendar; weeks begin on Monday.
pub fn trunc(input: Physical, unit: &str, micros: bool) -> Physical {
    let unit = unit.to_string();
    let scale = if micros { Unit::Micro } else { Unit::Milli };
    let to = DataType::Timestamp(scale).to_arrow();
    columns(vec![input], &to, move |args| {
        let per_milli = scale.per_milli();
        let start = |ticks: i64| {
            let step = |millis: i64| Some(ticks - ticks.rem_euclid(millis * per_milli));
            let date = DateTime::from_timestamp_millis(ticks.div_euclid(per_milli))?.date_naive();
            let date = match unit.as_str() {
                "YEAR" => date.with_day(1)?.with_month(1),
                "QUARTER" => date.with_day(1)?.with_month(date.month0() / 3 * 3 + 1),
                "MONTH" => date.with_day(1),
                "WEEK" => Some(date - Days::new(date.weekday().num_days_from_monday().into())),
                "DAY" => Some(date),
                "HOUR" => return step(3_600_000),
                "MINUTE" => return step(60_000),
                "SECOND" => return step(1000),
                _ => return step(1),
            };
            Some(date?.and_time(NaiveTime::MIN).and_utc().timestamp_millis() * per_milli)
        };
        let start = |ticks| start(ticks).ok_or_else(|| DataFusionError::Execution(format!("{ticks} is beyond chrono")));
        Ok(match micros {
            true => Arc::new(
                args[0]
                    .as_primitive::<TimestampMicrosecondType>()
                    .try_unary::<_, TimestampMicrosecondType, _>(start)?,
            ),
            false => Arc::new(
                args[0]
                    .as_primitive::<TimestampMillisecondType>()
                    .try_unary::<_, TimestampMillisecondType, _>(start)?,
            ),
        })
    })
}

fn interval(value: &ScalarValue) -> IntervalMonthDayNano {
    match value {
        ScalarValue::IntervalMonthDayNano(Some(v)) => *v,
        other => unreachable!("{other} is not an interval"),
    }
}

/// Rule: a TIME moves round the clock; DataFusion has no such operator.
pub fn time_of_day(time: Physical, by: Physical, minus: bool) -> Physical {
    rows(vec![time, by], &Arrow::Time32(TimeUnit::Millisecond), move |row| {
        const DAY: i128 = 86_400_000_000_000;
        let by = interval(&row[1]).nanoseconds as i128;
        let nanos = integer(&row[0]) as i128 * 1_000_000 + if minus { -by } else { by };
        Ok(Some(ScalarValue::Time32Millisecond(Some((nanos.rem_euclid(DAY) / 1_000_000) as i32))))
    })
}

/// Rule: an interval times an integer, which DataFusion lacks.
pub fn interval_times(interval_: Physical, factor: Physical) -> Physical {
    rows(vec![interval_, factor], &DataType::Interval.to_arrow(), |row| {
        let (v, by) = (interval(&row[0]), integer(&row[1]));
        let narrow = |v: i64| i32::try_from(v as i128 * by as i128).map_err(|e| e.to_string());
        let nanos = i64::try_from(v.nanoseconds as i128 * by as i128).map_err(|e| e.to_string())?;
        let product = IntervalMonthDayNano::new(narrow(v.months.into())?, narrow(v.days.into())?, nanos);
        Ok(Some(ScalarValue::IntervalMonthDayNano(Some(product))))
    })
}

/// Rule: SUBSTRING's start 0 is 1, a negative one counts from the end, a negative length is NULL (Flink).
pub fn substring(args: Vec<Physical>) -> Physical {
    rows(args, &Arrow::Utf8, |row| {
        let chars: Vec<char> = text(&row[0]).chars().collect();
        let start = match integer(&row[1]) {
            0 => 0,
            start if start > 0 => start as i128 - 1,
            start => chars.len() as i128 + start as i128,
        };
        let length = row.get(2).map_or(i64::MAX, integer);
        let inside = |i: &usize| start >= 0 && *i as i128 >= start && (*i as i128) < start + length as i128;
        let part: String = (0..chars.len()).filter(inside).map(|i| chars[i]).collect();
        Ok((length >= 0).then(|| part.into()))
    })
}

/// Rule: SPLIT_INDEX counts from 0 and is NULL where there is no such part (Flink).
pub fn split_index(args: Vec<Physical>) -> Physical {
    rows(args, &Arrow::Utf8, |row| {
        // Rule: an empty text has no parts (commons-lang).
        let parts = text(&row[0]).split(text(&row[1])).filter(|_| !text(&row[0]).is_empty());
        let parts: Vec<&str> = parts.collect();
        let index = usize::try_from(integer(&row[2])).ok();
        Ok(index.and_then(|i| parts.get(i)).map(|part| ScalarValue::from(*part)))
    })
}

/// Rule: TO_TIMESTAMP_LTZ cuts towards zero (Java's cast) and is NULL outside of the years 0000 to 9999 (Flink).
pub fn epoch(args: Vec<Physical>) -> Physical {
    rows(args, &Arrow::Int64, |row| {
        let factor = if integer(&row[1]) == 0 { 1000 } else { 1 };
        let millis: i128 = match &row[0] {
            ScalarValue::Float64(Some(v)) => (v * factor as f64) as i64 as i128,
            ScalarValue::Decimal128(Some(v), _, scale) => v * factor / 10i128.pow(*scale as u32),
            other => integer(other) as i128 * factor,
        };
        let nan = matches!(row[0], ScalarValue::Float64(Some(v)) if v.is_nan());
        let range = -62_167_219_200_000..=253_402_300_799_999;
        Ok((range.contains(&millis) && !nan).then(|| ScalarValue::from(millis as i64)))
    })
}

pub fn unit(expr: &Expr) -> &str {
    match &expr.kind {
        ExprKind::Literal(Scalar::String(unit)) => unit,
        _ => unreachable!("units are literals"),
    }
}

/// The interval of one unit.
pub fn one(unit: &str) -> ScalarValue {
    const SECOND: i64 = 1_000_000_000;
    let (months, days, nanos) = match unit {
        "YEAR" => (12, 0, 0),
        "QUARTER" => (3, 0, 0),
        "MONTH" => (1, 0, 0),
        "WEEK" => (0, 7, 0),
        "DAY" => (0, 1, 0),
        "HOUR" => (0, 0, 3600 * SECOND),
        "MINUTE" => (0, 0, 60 * SECOND),
        "SECOND" => (0, 0, SECOND),
        _ => (0, 0, SECOND / 1000),
    };
    ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(months, days, nanos)))
}
