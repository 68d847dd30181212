//! `'connector' = 'datagen'`: Flink's options (`rows-per-second`, `number-of-rows`, `fields.X.kind`, `.min`, `.max`,
//! `.length`, `.start`, `.end`, `.max-past`, `.null-rate`) and ours (`seed`, `fields.X.distinct`,
//! `fields.X.event-time.start`, `.step`, `.max-disorder`).

use super::options::{OptionError, Options};
use super::{Datagen, DatagenField, units};
use crate::schema::{DataType, Field, Schema};

const STRING_LENGTH: u32 = 100;
const COLLECTION_LENGTH: u32 = 3;
/// A string column longer than this in every row is a mistake.
const LENGTH_MAX: u32 = 1 << 20;

impl Datagen {
    pub(super) fn parse(options: &mut Options, physical: &Schema) -> Result<Datagen, OptionError> {
        let rows_per_second = options.positive("rows-per-second")?;
        let mut number_of_rows = options.number("number-of-rows", "a whole number")?;
        let seed = options.number("seed", "a whole number")?.unwrap_or(0);
        let fields: Vec<_> =
            physical.fields.iter().map(|field| parse_field(options, field)).collect::<Result<_, _>>()?;
        // As in Flink the shortest sequence ends the source. Kept here, so that pruning its column changes nothing.
        for field in &fields {
            if let DatagenField::Sequence { start, end } = field {
                let rows = (*end as i128 - *start as i128 + 1).min(u64::MAX as i128) as u64;
                number_of_rows = Some(number_of_rows.map_or(rows, |n: u64| n.min(rows)));
            }
        }
        Ok(Datagen { rows_per_second, number_of_rows, seed, fields })
    }
}

fn parse_field(options: &mut Options, field: &Field) -> Result<DatagenField, OptionError> {
    let key = |what: &str| format!("fields.{}.{what}", field.name);
    let kind = options.parsed(&key("kind"), "'random' or 'sequence'", |text| match text {
        "random" => Some(false),
        "sequence" => Some(true),
        _ => None,
    })?;
    if kind == Some(true) {
        return sequence(options, field);
    }
    if field.ty.is_timestamp() {
        let start = options.parsed(&key("event-time.start"), "'now' or a time like '2026-03-14 00:00:00'", |text| {
            if text == "now" { Some(None) } else { units::parse_instant_ms(text).map(Some) }
        })?;
        let step_us = options.parsed(
            &key("event-time.step"),
            "a duration like '10 ms', '250 us', '1 s'",
            units::parse_duration_us,
        )?;
        let disorder_ms = options.duration_ms(&key("event-time.max-disorder"))?;
        if start.is_some() || step_us.is_some() || disorder_ms.is_some() {
            return Ok(DatagenField::EventTime {
                start_ms: start.flatten(),
                step_us: step_us.unwrap_or(1_000),
                disorder_ms: disorder_ms.unwrap_or(0),
            });
        }
    }
    let null_rate = options.parsed(&key("null-rate"), "a number from 0 to 1", |text| {
        text.trim().parse().ok().filter(|rate| (0.0..=1.0).contains(rate))
    })?;
    let null_rate = null_rate.unwrap_or(0.0);
    if null_rate > 0.0 && !field.nullable {
        let name = key("null-rate");
        return Err(options.error(&name, format!("option '{name}': column `{}` is NOT NULL, expected 0", field.name)));
    }
    Ok(match &field.ty {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            let (low, high) = integer_range(&field.ty);
            let expected = format!("a whole number from {low} to {high}");
            let fits = |text: &str| text.trim().parse().ok().filter(|n| (low..=high).contains(n));
            let min = options.parsed(&key("min"), &expected, fits)?.unwrap_or(low);
            let max = options.parsed(&key("max"), &expected, fits)?.unwrap_or(high);
            let distinct = options.positive(&key("distinct"))?;
            ordered(options, &key("min"), &key("max"), min <= max)?;
            DatagenField::Integer { min, max, distinct, null_rate }
        }
        DataType::Float32 | DataType::Float64 | DataType::Decimal { .. } => {
            let (low, high) = match &field.ty {
                DataType::Float32 => (f32::MIN as f64, f32::MAX as f64),
                DataType::Decimal { precision, scale } => {
                    let limit = 10f64.powi(*precision as i32 - *scale as i32);
                    (-limit, limit)
                }
                _ => (f64::MIN, f64::MAX),
            };
            let fits =
                |text: &str| text.trim().parse().ok().filter(|n: &f64| n.is_finite() && (low..=high).contains(n));
            let expected = format!("a number of type {}", field.ty);
            let min = options.parsed(&key("min"), &expected, fits)?.unwrap_or(low);
            let max = options.parsed(&key("max"), &expected, fits)?.unwrap_or(high);
            let distinct = options.positive(&key("distinct"))?;
            ordered(options, &key("min"), &key("max"), min <= max)?;
            DatagenField::Float { min, max, distinct, null_rate }
        }
        DataType::String | DataType::Bytes => {
            let length = length(options, &key("length"))?.unwrap_or(STRING_LENGTH);
            let distinct = options.positive(&key("distinct"))?;
            DatagenField::Text { length, distinct, null_rate }
        }
        DataType::Date | DataType::Time | DataType::Timestamp(_) | DataType::TimestampLtz(_) => {
            let max_past_ms = options.duration_ms(&key("max-past"))?.unwrap_or(0);
            DatagenField::Past { max_past_ms, null_rate }
        }
        DataType::Array(_) | DataType::Map(..) => {
            let length = length(options, &key("length"))?.unwrap_or(COLLECTION_LENGTH);
            DatagenField::Any { length, null_rate }
        }
        DataType::Null | DataType::Boolean | DataType::Interval | DataType::Row(_) => {
            DatagenField::Any { length: COLLECTION_LENGTH, null_rate }
        }
    })
}

fn sequence(options: &mut Options, field: &Field) -> Result<DatagenField, OptionError> {
    let key = |what: &str| format!("fields.{}.{what}", field.name);
    let (low, high) = match &field.ty {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => integer_range(&field.ty),
        // Whole numbers that a float holds exactly.
        DataType::Float32 => (-(1 << 24), 1 << 24),
        DataType::Float64 => (-(1 << 53), 1 << 53),
        DataType::Decimal { precision, scale } => {
            let limit = 10i64.saturating_pow((*precision as i32 - *scale as i32).max(0) as u32) - 1;
            (-limit, limit)
        }
        DataType::String => (i64::MIN, i64::MAX),
        other => {
            let name = key("kind");
            let what = format!("option '{name}': a sequence cannot be of type {other}, expected 'random'");
            return Err(options.error(&name, what));
        }
    };
    let expected = format!("a whole number from {low} to {high}");
    let mut bound = |what: &str| {
        let name = key(what);
        let text = options.require(&name, &expected)?;
        let bound: Option<i64> = text.trim().parse().ok();
        bound.filter(|n| (low..=high).contains(n)).ok_or_else(|| options.unaccepted(&name, &text, &expected))
    };
    let start = bound("start")?;
    let end = bound("end")?;
    ordered(options, &key("start"), &key("end"), start <= end)?;
    Ok(DatagenField::Sequence { start, end })
}

fn length(options: &mut Options, key: &str) -> Result<Option<u32>, OptionError> {
    options.parsed(key, "a whole number from 1 to 1048576", |text| {
        text.trim().parse().ok().filter(|n| (1..=LENGTH_MAX).contains(n))
    })
}

fn ordered(options: &Options, low: &str, high: &str, in_order: bool) -> Result<(), OptionError> {
    if in_order {
        return Ok(());
    }
    Err(options.error(low, format!("option '{low}' is greater than '{high}', expected it to be at most that")))
}

fn integer_range(ty: &DataType) -> (i64, i64) {
    match ty {
        DataType::Int8 => (i8::MIN as i64, i8::MAX as i64),
        DataType::Int16 => (i16::MIN as i64, i16::MAX as i64),
        DataType::Int32 => (i32::MIN as i64, i32::MAX as i64),
        _ => (i64::MIN, i64::MAX),
    }
}
