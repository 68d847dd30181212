//! Functions of dates, times and timestamps, in UTC. Units are named as in SQL: YEAR to NANOSECOND.

use super::Literals;
use crate::expr::decimal;
use crate::expr::pattern::Pattern;
use crate::expr::value::{Kernel, Longs, Value, build, build_texts, from_longs};
use crate::time::civil::{self, Fraction, MILLIS_PER_DAY};
use arrow_array::types::*;
use arrow_array::{Decimal128Array, Float32Array, Float64Array};
use ef_proto::function::Builtin;
use ef_proto::schema::{DataType, Unit};

const NANOS_PER_SECOND: i64 = 1_000_000_000;
/// 0000-01-01 to 9999-12-31: the moments that TO_TIMESTAMP_LTZ knows.
const MILLIS_KNOWN: std::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;
const DEFAULT_PATTERN: &str = "yyyy-MM-dd HH:mm:ss";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Millennium,
    Century,
    Decade,
    Year,
    IsoYear,
    Quarter,
    Month,
    Week,
    Day,
    DayOfYear,
    DayOfWeek,
    IsoDayOfWeek,
    Hour,
    Minute,
    Second,
    Millisecond,
    Microsecond,
    Nanosecond,
    Epoch,
}

fn part(name: &str) -> Result<Part, String> {
    Ok(match name.to_ascii_uppercase().as_str() {
        "MILLENNIUM" => Part::Millennium,
        "CENTURY" => Part::Century,
        "DECADE" => Part::Decade,
        "YEAR" => Part::Year,
        "ISOYEAR" => Part::IsoYear,
        "QUARTER" => Part::Quarter,
        "MONTH" => Part::Month,
        "WEEK" => Part::Week,
        "DAY" => Part::Day,
        "DOY" => Part::DayOfYear,
        "DOW" => Part::DayOfWeek,
        "ISODOW" => Part::IsoDayOfWeek,
        "HOUR" => Part::Hour,
        "MINUTE" => Part::Minute,
        "SECOND" => Part::Second,
        "MILLISECOND" => Part::Millisecond,
        "MICROSECOND" => Part::Microsecond,
        "NANOSECOND" => Part::Nanosecond,
        "EPOCH" => Part::Epoch,
        other => {
            return Err(format!(
                "time unit '{other}' is not known; expected YEAR, QUARTER, MONTH, WEEK, DAY, \
                                     HOUR, MINUTE, SECOND, MILLISECOND, MICROSECOND, NANOSECOND, DOY, DOW, EPOCH…"
            ));
        }
    })
}

/// Seconds since the epoch and nanoseconds of a value of a time's type (a TIME is on 1970-01-01).
fn moment(value: i64, ty: &DataType) -> (i64, u32) {
    match ty {
        DataType::Date => (value * civil::SECONDS_PER_DAY, 0),
        DataType::Timestamp(unit) | DataType::TimestampLtz(unit) => civil::split(value, *unit),
        _ => civil::split(value, Unit::Milli),
    }
}

fn longs<'a>(value: &'a Value, ty: &DataType) -> Result<Longs<'a>, String> {
    Longs::of(value, ty).ok_or_else(|| format!("{ty} is not carried by an integer"))
}

/// The pattern as a literal is compiled once; else each time that it changes.
struct Patterns {
    fixed: Option<Pattern>,
}

impl Patterns {
    fn new(literal: Option<&str>, given: bool) -> Result<Patterns, String> {
        let literal = literal.or((!given).then_some(DEFAULT_PATTERN));
        Ok(Patterns { fixed: literal.map(Pattern::compile).transpose()? })
    }

    fn with<T>(&self, text: Option<&str>, f: impl FnOnce(&Pattern) -> T) -> Result<Option<T>, String> {
        match (&self.fixed, text) {
            (Some(pattern), _) => Ok(Some(f(pattern))),
            (None, Some(text)) => Ok(Some(f(&Pattern::compile(text)?))),
            (None, None) => Ok(None),
        }
    }
}

pub(super) fn kernel(
    function: Builtin,
    types: &[DataType],
    ty: &DataType,
    literals: &Literals,
) -> Result<Kernel, String> {
    let types = types.to_vec();
    let ty = ty.clone();
    Ok(match function {
        Builtin::ToTimestampLtz => to_timestamp_ltz(types, ty, literals)?,
        Builtin::ToTimestamp => {
            let patterns = Patterns::new(literals.text(1), types.len() > 1)?;
            let given = types.len() > 1;
            Box::new(move |args, rows| {
                let texts = args[0].texts();
                let pattern = args.get(1).map(Value::texts);
                build::<TimestampMillisecondType>(rows, &ty, |row| {
                    let Some(text) = texts.get(row) else { return Ok(None) };
                    if !given {
                        return Ok(civil::parse_timestamp(text.trim().as_bytes(), Unit::Milli));
                    }
                    let parsed = patterns.with(pattern.as_ref().and_then(|p| p.get(row)), |p| p.parse(text))?;
                    Ok(parsed.flatten().and_then(|(seconds, nanos)| civil::ticks(seconds, nanos, Unit::Milli)))
                })
            })
        }
        Builtin::ToDate => {
            let patterns = Patterns::new(literals.text(1), types.len() > 1)?;
            let given = types.len() > 1;
            Box::new(move |args, rows| {
                let texts = args[0].texts();
                let pattern = args.get(1).map(Value::texts);
                build::<Date32Type>(rows, &ty, |row| {
                    let Some(text) = texts.get(row) else { return Ok(None) };
                    if !given {
                        // A time behind the date is let pass.
                        let date = text.trim().split([' ', 'T']).next().unwrap_or_default();
                        return Ok(civil::parse_date(date.as_bytes()));
                    }
                    let parsed = patterns.with(pattern.as_ref().and_then(|p| p.get(row)), |p| p.parse(text))?;
                    let days = parsed.flatten().map(|(seconds, _)| seconds.div_euclid(civil::SECONDS_PER_DAY));
                    Ok(days.and_then(|days| i32::try_from(days).ok()))
                })
            })
        }
        Builtin::ConvertTz => {
            let fixed = |i| literals.text(i).map(zone).transpose();
            let (from, to) = (fixed(1)?, fixed(2)?);
            Box::new(move |args, rows| {
                let (texts, froms, tos) = (args[0].texts(), args[1].texts(), args[2].texts());
                build_texts(rows, |row, out| {
                    let (Some(text), Some(from_name), Some(to_name)) = (texts.get(row), froms.get(row), tos.get(row))
                    else {
                        return Ok(false);
                    };
                    let from = from.map_or_else(|| zone(from_name), Ok)?;
                    let to = to.map_or_else(|| zone(to_name), Ok)?;
                    let wall = civil::parse_timestamp(text.trim().as_bytes(), Unit::Milli);
                    let there = wall.and_then(|wall| convert(wall.div_euclid(1000), from, to));
                    if let Some(there) = there {
                        civil::write_timestamp(out, there * 1000, Unit::Milli, b' ', Fraction::Digits(0));
                    }
                    Ok(there.is_some())
                })
            })
        }
        Builtin::DateFormat => {
            let patterns = Patterns::new(literals.text(1), true)?;
            Box::new(move |args, rows| {
                let pattern = args[1].texts();
                let of_text = (types[0] == DataType::String).then(|| args[0].texts());
                let times = if of_text.is_none() { Some(longs(&args[0], &types[0])?) } else { None };
                build_texts(rows, |row, out| {
                    let moment = match (&of_text, &times) {
                        (Some(texts), _) => texts
                            .get(row)
                            .and_then(|t| civil::parse_timestamp(t.trim().as_bytes(), Unit::Milli))
                            .map(|t| civil::split(t, Unit::Milli)),
                        (_, Some(times)) => times.get(row).map(|t| moment(t, &types[0])),
                        _ => None,
                    };
                    let Some((seconds, nanos)) = moment else { return Ok(false) };
                    Ok(patterns.with(pattern.get(row), |p| p.format(seconds, nanos, out))?.is_some())
                })
            })
        }
        Builtin::FromUnixtime => {
            let patterns = Patterns::new(literals.text(1), types.len() > 1)?;
            Box::new(move |args, rows| {
                let seconds = longs(&args[0], &types[0])?;
                let pattern = args.get(1).map(Value::texts);
                build_texts(rows, |row, out| {
                    let Some(seconds) = seconds.get(row) else { return Ok(false) };
                    let text = pattern.as_ref().and_then(|p| p.get(row));
                    Ok(patterns.with(text, |p| p.format(seconds, 0, out))?.is_some())
                })
            })
        }
        Builtin::UnixTimestamp => {
            let patterns = Patterns::new(literals.text(1), types.len() > 1)?;
            let given = types.len() > 1;
            Box::new(move |args, rows| {
                if types[0] == DataType::String {
                    let texts = args[0].texts();
                    let pattern = args.get(1).map(Value::texts);
                    return build::<Int64Type>(rows, &ty, |row| {
                        let Some(text) = texts.get(row) else { return Ok(None) };
                        if !given {
                            let millis = civil::parse_timestamp(text.trim().as_bytes(), Unit::Milli);
                            return Ok(millis.map(|t| t.div_euclid(1000)));
                        }
                        let parsed = patterns.with(pattern.as_ref().and_then(|p| p.get(row)), |p| p.parse(text))?;
                        Ok(parsed.flatten().map(|(seconds, _)| seconds))
                    });
                }
                let times = longs(&args[0], &types[0])?;
                build::<Int64Type>(rows, &ty, |row| Ok(times.get(row).map(|t| moment(t, &types[0]).0)))
            })
        }
        Builtin::Extract => {
            let part = part(literals.text(0).ok_or("the unit must be a literal")?)?;
            Box::new(move |args, rows| {
                let times = longs(&args[1], &types[1])?;
                build::<Int64Type>(rows, &ty, |row| Ok(times.get(row).map(|t| extract(part, moment(t, &types[1])))))
            })
        }
        Builtin::FloorTime | Builtin::CeilTime => {
            let part = part(literals.text(0).ok_or("the unit must be a literal")?)?;
            let up = function == Builtin::CeilTime;
            floor(Part::Year, 0, 1).and(floor(part, 0, 1)).ok_or("a time cannot be rounded to this unit")?;
            Box::new(move |args, rows| {
                let times = longs(&args[1], &types[1])?;
                // Ticks of a second; a date is counted in its own milliseconds and goes back to days.
                let (per_second, back) = match &types[1] {
                    DataType::Date => (1000, MILLIS_PER_DAY),
                    DataType::Timestamp(unit) | DataType::TimestampLtz(unit) => (civil::ticks_per_second(*unit), 1),
                    _ => (1000, 1),
                };
                let beyond = |t: i64| format!("{t} of {ty} is too near the end of time to be rounded");
                from_longs(rows, &ty, |row| {
                    let Some(t) = times.get(row) else { return Ok(None) };
                    let at = t.checked_mul(back).ok_or_else(|| beyond(t))?;
                    let rounded = if up { ceil(part, at, per_second) } else { floor(part, at, per_second) };
                    Ok(Some(rounded.ok_or_else(|| beyond(t))?.div_euclid(back)))
                })
            })
        }
        Builtin::TimestampDiff => {
            let part = part(literals.text(0).ok_or("the unit must be a literal")?)?;
            difference(part, (0, 0), (0, 0)).ok_or("times have no difference in this unit")?;
            Box::new(move |args, rows| {
                let (a, b) = (longs(&args[1], &types[1])?, longs(&args[2], &types[2])?);
                build::<Int32Type>(rows, &ty, |row| {
                    let Some((a, b)) = a.get(row).zip(b.get(row)) else { return Ok(None) };
                    let count = difference(part, moment(a, &types[1]), moment(b, &types[2])).unwrap_or(0);
                    i32::try_from(count).map(Some).map_err(|_| format!("the difference {count} does not fit INT"))
                })
            })
        }
        other => return Err(format!("{} is not a function of times", other.name())),
    })
}

/// A zone by its name, or by its distance as in `GMT+8` and `GMT+05:30`.
fn zone(name: &str) -> Result<Zone, String> {
    if let Ok(zone) = name.parse::<chrono_tz::Tz>() {
        return Ok(Zone::Named(zone));
    }
    let unknown = || format!("time zone '{name}' is not known; expected a name as Europe/Berlin, or GMT+01:00");
    let distance = ["GMT", "UTC", ""].iter().find_map(|prefix| name.strip_prefix(prefix)).ok_or_else(unknown)?;
    let (sign, clock) = match distance.split_at_checked(1) {
        Some(("+", clock)) => (1, clock),
        Some(("-", clock)) => (-1, clock),
        _ => return Err(unknown()),
    };
    let (hours, minutes) = clock.split_once(':').unwrap_or((clock, "0"));
    match (hours.parse::<i64>(), minutes.parse::<i64>()) {
        (Ok(hours @ 0..=18), Ok(minutes @ 0..=59)) => Ok(Zone::Fixed(sign * (hours * 3600 + minutes * 60))),
        _ => Err(unknown()),
    }
}

#[derive(Clone, Copy)]
enum Zone {
    Named(chrono_tz::Tz),
    /// Seconds east of Greenwich.
    Fixed(i64),
}

/// The wall clock of one zone as that of another, in seconds. An hour that a zone skips is read with the offset before.
fn convert(wall: i64, from: Zone, to: Zone) -> Option<i64> {
    use chrono::{DateTime, Offset, TimeZone};
    let offset_at = |zone: chrono_tz::Tz, utc: i64| {
        let utc = DateTime::from_timestamp(utc, 0)?.naive_utc();
        Some(i64::from(zone.offset_from_utc_datetime(&utc).fix().local_minus_utc()))
    };
    let utc = match from {
        Zone::Fixed(offset) => wall - offset,
        Zone::Named(zone) => {
            let local = DateTime::from_timestamp(wall, 0)?.naive_utc();
            match zone.offset_from_local_datetime(&local).earliest() {
                Some(offset) => wall - i64::from(offset.fix().local_minus_utc()),
                None => wall - offset_at(zone, wall - civil::SECONDS_PER_DAY)?,
            }
        }
    };
    match to {
        Zone::Fixed(offset) => Some(utc + offset),
        Zone::Named(zone) => Some(utc + offset_at(zone, utc)?),
    }
}

/// As Flink has it: fractions of a millisecond are cut towards zero, and what is not in the years 0000 to 9999 is NULL.
fn to_timestamp_ltz(types: Vec<DataType>, ty: DataType, literals: &Literals) -> Result<Kernel, String> {
    let factor = match (types.len(), literals.int(1)) {
        (1, _) | (_, Some(3)) => 1i64,
        (_, Some(0)) => 1000,
        _ => return Err("the precision must be the literal 0 (seconds) or 3 (milliseconds)".into()),
    };
    let known = |millis: &i64| MILLIS_KNOWN.contains(millis);
    // NaN is zero to `as`, and no moment.
    let float = move |v: f64| Some((v * factor as f64) as i64).filter(|_| !v.is_nan()).filter(known);
    Ok(Box::new(move |args, rows| match &types[0] {
        DataType::Float64 => {
            let values = args[0].cells::<Float64Array>();
            build::<TimestampMillisecondType>(rows, &ty, |row| Ok(values.get(row).and_then(float)))
        }
        DataType::Float32 => {
            let values = args[0].cells::<Float32Array>();
            build::<TimestampMillisecondType>(rows, &ty, |row| Ok(values.get(row).and_then(|v| float(v as f64))))
        }
        DataType::Decimal { scale, .. } => {
            let values = args[0].cells::<Decimal128Array>();
            let power = decimal::POWERS[(*scale).clamp(0, 38) as usize];
            build::<TimestampMillisecondType>(rows, &ty, |row| {
                let millis = values.get(row).and_then(|v| i64::try_from(v.checked_mul(factor as i128)? / power).ok());
                Ok(millis.filter(known))
            })
        }
        integer => {
            let values = longs(&args[0], integer)?;
            build::<TimestampMillisecondType>(rows, &ty, |row| {
                Ok(values.get(row).and_then(|v| v.checked_mul(factor)).filter(known))
            })
        }
    }))
}

fn extract(part: Part, (seconds, nanos): (i64, u32)) -> i64 {
    let days = seconds.div_euclid(civil::SECONDS_PER_DAY);
    let of_day = seconds.rem_euclid(civil::SECONDS_PER_DAY);
    // Not for the parts of a day.
    let civil = || civil::civil_from_days(days);
    let year = || civil().0;
    let within_minute = (of_day % 60) * NANOS_PER_SECOND + nanos as i64;
    match part {
        // The first century began with the year 1 and the hundredth year was its last.
        Part::Millennium => (year() + 999).div_euclid(1000),
        Part::Century => (year() + 99).div_euclid(100),
        Part::Decade => year().div_euclid(10),
        Part::Year => year(),
        Part::IsoYear => civil::iso_week(days).0,
        Part::Quarter => (civil().1 as i64 - 1) / 3 + 1,
        Part::Month => civil().1 as i64,
        Part::Week => civil::iso_week(days).1 as i64,
        Part::Day => civil().2 as i64,
        Part::DayOfYear => days - civil::days_from_civil(year(), 1, 1) + 1,
        // Sunday is 1.
        Part::DayOfWeek => civil::iso_weekday(days) as i64 % 7 + 1,
        Part::IsoDayOfWeek => civil::iso_weekday(days) as i64,
        Part::Hour => of_day / 3600,
        Part::Minute => of_day / 60 % 60,
        Part::Second => of_day % 60,
        Part::Millisecond => within_minute / 1_000_000,
        Part::Microsecond => within_minute / 1000,
        Part::Nanosecond => within_minute,
        Part::Epoch => seconds,
    }
}

/// The start of the unit that holds `ticks`; None for units that are no stretch of time, and where the start is out of
/// range. Weeks begin on Sunday.
fn floor(part: Part, ticks: i64, per_second: i64) -> Option<i64> {
    let per_day = per_second * civil::SECONDS_PER_DAY;
    let days = ticks.div_euclid(per_day);
    let civil = || civil::civil_from_days(days);
    let year = || civil().0;
    let day = |days: i64| days.checked_mul(per_day);
    let step = |ticks_per_step: i64| ticks.div_euclid(ticks_per_step.max(1)).checked_mul(ticks_per_step.max(1));
    match part {
        Part::Millennium => day(civil::days_from_civil((year() - 1).div_euclid(1000) * 1000 + 1, 1, 1)),
        Part::Century => day(civil::days_from_civil((year() - 1).div_euclid(100) * 100 + 1, 1, 1)),
        Part::Decade => day(civil::days_from_civil(year().div_euclid(10) * 10, 1, 1)),
        Part::Year => day(civil::days_from_civil(year(), 1, 1)),
        Part::Quarter => day(civil::days_from_civil(year(), (civil().1 - 1) / 3 * 3 + 1, 1)),
        Part::Month => day(civil::days_from_civil(year(), civil().1, 1)),
        Part::Week => day(days - (days + 4).rem_euclid(7)),
        Part::Day => day(days),
        Part::Hour => step(3600 * per_second),
        Part::Minute => step(60 * per_second),
        Part::Second => step(per_second),
        Part::Millisecond => step(per_second / 1000),
        Part::Microsecond => step(per_second / 1_000_000),
        Part::Nanosecond => Some(ticks),
        Part::IsoYear | Part::DayOfYear | Part::DayOfWeek | Part::IsoDayOfWeek | Part::Epoch => None,
    }
}

/// The start itself where `ticks` is one, else the next start.
fn ceil(part: Part, ticks: i64, per_second: i64) -> Option<i64> {
    let start = floor(part, ticks, per_second)?;
    if start == ticks {
        return Some(ticks);
    }
    let per_day = per_second * civil::SECONDS_PER_DAY;
    let months = |n: i64| civil::add_months(start.div_euclid(per_day), n)?.checked_mul(per_day);
    match part {
        Part::Millennium => months(12_000),
        Part::Century => months(1200),
        Part::Decade => months(120),
        Part::Year => months(12),
        Part::Quarter => months(3),
        Part::Month => months(1),
        Part::Week => start.checked_add(7 * per_day),
        Part::Day => start.checked_add(per_day),
        Part::Hour => start.checked_add(3600 * per_second),
        Part::Minute => start.checked_add(60 * per_second),
        Part::Second => start.checked_add(per_second),
        Part::Millisecond => start.checked_add((per_second / 1000).max(1)),
        _ => start.checked_add((per_second / 1_000_000).max(1)),
    }
}

/// Whole units from `a` to `b`, cut towards zero.
fn difference(part: Part, a: (i64, u32), b: (i64, u32)) -> Option<i128> {
    let nanos = |(seconds, nanos): (i64, u32)| seconds as i128 * NANOS_PER_SECOND as i128 + nanos as i128;
    let between = nanos(b) - nanos(a);
    let second = NANOS_PER_SECOND as i128;
    Some(match part {
        Part::Nanosecond => between,
        Part::Microsecond => between / 1000,
        Part::Millisecond => between / 1_000_000,
        Part::Second => between / second,
        Part::Minute => between / (60 * second),
        Part::Hour => between / (3600 * second),
        Part::Day => between / (86_400 * second),
        Part::Week => between / (7 * 86_400 * second),
        Part::Month => months_between(a, b),
        Part::Quarter => months_between(a, b) / 3,
        Part::Year => months_between(a, b) / 12,
        Part::Decade => months_between(a, b) / 120,
        Part::Century => months_between(a, b) / 1200,
        _ => return None,
    })
}

fn months_between(a: (i64, u32), b: (i64, u32)) -> i128 {
    if b < a {
        return -months_between(b, a);
    }
    let split = |(seconds, nanos): (i64, u32)| {
        let (year, month, day) = civil::civil_from_days(seconds.div_euclid(civil::SECONDS_PER_DAY));
        (year * 12 + month as i64, (day, seconds.rem_euclid(civil::SECONDS_PER_DAY), nanos))
    };
    let ((from, from_rest), (to, to_rest)) = (split(a), split(b));
    (to - from - (to_rest < from_rest) as i64) as i128
}
