//! The rules of texts: how values print, which texts can be read as values, what stands in a pattern.

use super::rules::{integer, rows, text};
use super::translate::Physical;
use arrow_schema::DataType as Arrow;
use chrono::{DateTime, NaiveDate, NaiveTime, Timelike};
use datafusion_common::ScalarValue;
use ef_proto::expr::Scalar;
use ef_proto::schema::{DataType, Unit};
use regex::Regex;
use std::sync::LazyLock;

fn texts(input: Physical, f: impl Fn(&str) -> String + Send + Sync + 'static) -> Physical {
    rows(vec![input], &Arrow::Utf8, move |row| Ok(Some(f(text(&row[0])).into())))
}

/// Rule: LIKE has no escape character but the one that the statement names (Flink); DataFusion's is the backslash.
pub fn like_pattern(pattern: Physical, escape: Option<char>) -> Physical {
    texts(pattern, move |pattern| {
        let mut out = String::new();
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            match c {
                c if Some(c) == escape => out.extend(['\\'].into_iter().chain(chars.next())),
                '\\' => out.push_str("\\\\"),
                c => out.push(c),
            }
        }
        out
    })
}

/// Java's Double.toString from the digits that Rust prints.
pub fn java_float(input: Physical, from: &Arrow) -> Physical {
    let single = *from == Arrow::Float32;
    rows(vec![input], &Arrow::Utf8, move |row| {
        let (value, scientific) = match row[0] {
            ScalarValue::Float32(Some(v)) => (v as f64, format!("{v:e}")),
            ScalarValue::Float64(Some(v)) => (v, format!("{v:e}")),
            _ => unreachable!("a float"),
        };
        if !value.is_finite() {
            let name = if value.is_nan() { "NaN" } else { ["-Infinity", "Infinity"][(value > 0.0) as usize] };
            return Ok(Some(name.into()));
        }
        let magnitude = value.abs();
        let point = |text: String| if text.contains('.') { text } else { text + ".0" };
        let plain = magnitude == 0.0 || (1e-3..1e7).contains(&magnitude);
        Ok(Some(ScalarValue::from(match plain {
            true if single => point(format!("{}", value as f32)),
            true => point(format!("{value}")),
            false => {
                let (mantissa, exponent) = scientific.split_once('e').expect("an exponent");
                format!("{}E{exponent}", point(mantissa.into()))
            }
        })))
    })
}

/// All digits of a float, without an exponent.
pub fn plain_float(input: Physical) -> Physical {
    rows(vec![input], &Arrow::Utf8, |row| {
        Ok(Some(ScalarValue::from(match row[0] {
            ScalarValue::Float32(Some(v)) => cut(format!("{v}")),
            ScalarValue::Float64(Some(v)) => cut(format!("{v}")),
            _ => unreachable!("a float"),
        })))
    })
}

/// Without the digits that no scale reaches: DataFusion reads only so many.
fn cut(text: String) -> String {
    let end = text.find('.').map_or(text.len(), |point| text.len().min(point + 31));
    text[..end].into()
}

/// `1.5e3` as `1500`.
fn without_exponent(text: &str) -> String {
    let Some((mantissa, exponent)) = text.split_once(['e', 'E']) else { return cut(text.into()) };
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(mantissa) => ("-", mantissa),
        None => ("", mantissa.trim_start_matches('+')),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{}{whole}{fraction}{}", "0".repeat(400), "0".repeat(400));
    let point = 400 + whole.len() as i64 + exponent.parse::<i64>().unwrap_or(400).clamp(-400, 400);
    cut(format!("{sign}{}.{}", digits[..point as usize].trim_start_matches('0'), &digits[point as usize..]))
}

pub fn float_of_text(input: Physical) -> Physical {
    rows(vec![input], &Arrow::Float64, |row| Ok(text(&row[0]).parse::<f64>().ok().map(ScalarValue::from)))
}

pub fn lossy_text(input: Physical) -> Physical {
    rows(vec![input], &Arrow::Utf8, |row| {
        let ScalarValue::Binary(Some(bytes)) = &row[0] else { unreachable!("bytes") };
        Ok(Some(ScalarValue::from(String::from_utf8_lossy(bytes).into_owned())))
    })
}

pub fn formatted(input: Physical, unit: Unit, format: &'static str) -> Physical {
    rows(vec![input], &Arrow::Utf8, move |row| {
        let ticks = integer(&row[0]);
        let moment = match unit {
            Unit::Milli => DateTime::from_timestamp_millis(ticks),
            Unit::Micro => DateTime::from_timestamp_micros(ticks),
            Unit::Nano => Some(DateTime::from_timestamp_nanos(ticks)),
        };
        let moment = moment.ok_or("out of chrono's range")?;
        Ok(Some(ScalarValue::from(moment.format(format).to_string())))
    })
}

pub fn time_text(input: Physical) -> Physical {
    rows(vec![input], &Arrow::Utf8, |row| {
        let millis = integer(&row[0]);
        let clock = format!("{:02}:{:02}:{:02}", millis / 3_600_000, millis / 60_000 % 60, millis / 1000 % 60);
        let fraction = format!(".{:03}", millis % 1000);
        Ok(Some(ScalarValue::from(if millis % 1000 == 0 { clock } else { clock + fraction.trim_end_matches('0') })))
    })
}

static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^[+-]?(NaN|Infinity|([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?)$").expect("a pattern")
});
static MOMENT: LazyLock<Regex> = LazyLock::new(|| {
    let date = r"(-?[0-9]{4,9})-([0-9]{1,2})-([0-9]{1,2})";
    let clock = r"([0-9]{1,2}):([0-9]{1,2})(?::([0-9]{1,2})(?:\.([0-9]{1,9}))?)?";
    let zone = r"([Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)?";
    Regex::new(&format!("^(?:{date}(?:$|[ Tt]))?(?:{clock}{zone})?$")).expect("a pattern")
});

/// The text as DataFusion reads it, or one that it cannot read: trimmed; an integer's fraction cut off; NaN and
/// Infinity by these names only.
pub fn readable(input: Physical, to: &DataType) -> Physical {
    let to = to.clone();
    texts(input, move |text| {
        let text = text.trim();
        let read = match &to {
            DataType::Boolean => match text.to_lowercase().as_str() {
                "t" | "true" | "y" | "yes" | "1" => Some("true".into()),
                "f" | "false" | "n" | "no" | "0" => Some("false".into()),
                _ => None,
            },
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => match text.split_once('.') {
                Some((whole, fraction)) if fraction.bytes().all(|b| b.is_ascii_digit()) => Some(whole.to_string()),
                _ => Some(text.to_string()),
            },
            DataType::Decimal { .. } => NUMBER.is_match(text).then(|| without_exponent(text)),
            _ => NUMBER.is_match(text).then(|| text.to_string()),
        };
        read.unwrap_or_else(|| "unreadable".into())
    })
}

/// The ticks of a date, time or timestamp, as a text of digits; another text where it cannot be read. Dates and times
/// need no leading zeros, any year will do.
pub fn ticks_of_text(input: Physical, to: &DataType) -> Physical {
    let to = to.clone();
    texts(input, move |text| ticks(text.trim(), &to).map_or("unreadable".into(), |ticks| ticks.to_string()))
}

fn ticks(text: &str, to: &DataType) -> Option<i128> {
    let found = MOMENT.captures(text)?;
    let number = |i: usize| found.get(i).map_or(Some(0), |m| m.as_str().parse::<u32>().ok());
    let date = match found.get(1) {
        Some(year) => Some(NaiveDate::from_ymd_opt(year.as_str().parse().ok()?, number(2)?, number(3)?)?),
        None => None,
    };
    let fraction = found.get(7).map_or(String::new(), |m| m.as_str().to_string());
    let clock =
        NaiveTime::from_hms_nano_opt(number(4)?, number(5)?, number(6)?, format!("{fraction:0<9}").parse().ok()?)?;
    let zone = found.get(8).map(|m| m.as_str().replace(':', ""));
    if *to == DataType::Time {
        let bare = date.is_none() && zone.is_none() && found.get(4).is_some();
        return bare.then(|| clock.num_seconds_from_midnight() as i128 * 1000 + clock.nanosecond() as i128 / 1_000_000);
    }
    let date = date?;
    let seconds = match zone.as_deref() {
        None | Some("Z" | "z") => 0,
        Some(zone) => {
            let part =
                |range: std::ops::Range<usize>| zone.get(range).map_or(0, |text| text.parse::<i128>().unwrap_or(99));
            let (hours, minutes) = (part(1..3), part(3..5));
            if hours > 18 || minutes > 59 {
                return None;
            }
            (hours * 3600 + minutes * 60) * if zone.starts_with('-') { -1 } else { 1 }
        }
    };
    let moment = date.and_time(clock).and_utc();
    let nanos = (moment.timestamp() as i128 - seconds) * 1_000_000_000 + moment.timestamp_subsec_nanos() as i128;
    match to {
        // The date as it is written, whatever the zone.
        DataType::Date => Some(date.signed_duration_since(NaiveDate::default()).num_days() as i128),
        DataType::Timestamp(unit) | DataType::TimestampLtz(unit) => {
            Some(nanos.div_euclid(1_000_000 / unit.per_milli() as i128))
        }
        _ => None,
    }
}

/// Java's pattern in chrono's letters.
pub fn chrono_pattern(pattern: &Scalar) -> &'static str {
    let Scalar::String(pattern) = pattern else { unreachable!("patterns are texts") };
    match pattern.as_str() {
        "yyyy-MM-dd HH:mm:ss.SSS" => "%Y-%m-%d %H:%M:%S%.3f",
        "dd/MM/yyyy" => "%d/%m/%Y",
        "D HH 'o''clock'" => "%-j %H o'clock",
        "MMM EEEE hh a" => "%b %A %I %p",
        other => unreachable!("no chrono pattern for {other}"),
    }
}
