//! Text to typed values: the content of CSV fields, and of JSON strings that stand for numbers.
//!
//! Exact or refused: a number that the column cannot hold is an error, never another number.

use super::column::{Column, Values};
use crate::time::civil;
use ef_proto::schema::DataType;

/// What a column accepts, for messages: `expected a timestamp, found …`.
pub(crate) fn expected(ty: &DataType) -> &'static str {
    match ty {
        DataType::Null => "null",
        DataType::Boolean => "true or false",
        DataType::Int8 => "a whole number from -128 to 127",
        DataType::Int16 => "a whole number from -32768 to 32767",
        DataType::Int32 => "a whole number from -2147483648 to 2147483647",
        DataType::Int64 => "a whole number of at most 64 bits",
        DataType::Float32 | DataType::Float64 => "a number",
        DataType::Decimal { .. } => "a decimal number that fits the column",
        DataType::String => "a string",
        DataType::Bytes => "a base64 string",
        DataType::Date => "a date yyyy-MM-dd",
        DataType::Time => "a time HH:mm:ss",
        DataType::Timestamp(_) | DataType::TimestampLtz(_) => "a timestamp",
        DataType::Interval => "an interval",
        DataType::Row(_) => "an object",
        DataType::Array(_) => "an array",
        DataType::Map(..) => "an object",
    }
}

/// Appends the value that `text` stands for. False: it stands for none, and the column is as it was.
pub(crate) fn append(column: &mut Column, text: &[u8]) -> bool {
    match &mut column.values {
        Values::String(v) => {
            if std::str::from_utf8(text).is_err() {
                return false;
            }
            v.bytes.extend_from_slice(text);
            v.end();
        }
        Values::Bytes(v) => {
            if !base64(text, &mut v.bytes) {
                v.rewind();
                return false;
            }
            v.end();
        }
        _ => return append_scalar(column, text.trim_ascii()),
    }
    column.valid();
    true
}

fn append_scalar(column: &mut Column, text: &[u8]) -> bool {
    fn keep<T>(into: &mut Vec<T>, value: Option<T>) -> bool {
        value.map(|value| into.push(value)).is_some()
    }
    let integer = || integer(text);
    let kept = match &mut column.values {
        Values::Boolean(v) => match boolean(text) {
            Some(value) => {
                v.push(value);
                true
            }
            None => false,
        },
        Values::Int8(v) => keep(v, integer().and_then(|n| n.try_into().ok())),
        Values::Int16(v) => keep(v, integer().and_then(|n| n.try_into().ok())),
        Values::Int32(v) => keep(v, integer().and_then(|n| n.try_into().ok())),
        Values::Int64(v) => keep(v, integer()),
        Values::Float32(v) => keep(v, float::<f32>(text)),
        Values::Float64(v) => keep(v, float::<f64>(text)),
        Values::Decimal { values, precision, scale } => keep(values, decimal(text, *precision, *scale)),
        Values::Date(v) => keep(v, civil::parse_date(text)),
        Values::Time(v) => keep(v, civil::parse_time(text)),
        Values::Timestamp { values, unit } => keep(
            values,
            civil::parse_timestamp(text, *unit)
                .or_else(|| integer().and_then(|millis| millis.checked_mul(unit.per_milli()))),
        ),
        _ => false,
    };
    if kept {
        column.valid();
    }
    kept
}

fn boolean(text: &[u8]) -> Option<bool> {
    if text.eq_ignore_ascii_case(b"true") {
        Some(true)
    } else if text.eq_ignore_ascii_case(b"false") {
        Some(false)
    } else {
        None
    }
}

/// Sign, digits, power of ten of a number in decimal notation; digits at most 38 significant ones.
struct Parts {
    negative: bool,
    /// Digits without leading zeros.
    mantissa: u128,
    exponent: i64,
    /// A digit other than zero fell behind the 38th place.
    inexact: bool,
}

fn parts(text: &[u8]) -> Option<Parts> {
    let (negative, rest) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        (b'+', rest) => (false, rest),
        _ => (false, text),
    };
    let mut parts = Parts { negative, mantissa: 0, exponent: 0, inexact: false };
    let (mut digits, mut at, mut point) = (0usize, 0usize, false);
    while at < rest.len() {
        match rest[at] {
            byte @ b'0'..=b'9' => {
                let digit = (byte - b'0') as u128;
                digits += 1;
                if parts.mantissa < 10u128.pow(37) {
                    parts.mantissa = parts.mantissa * 10 + digit;
                    parts.exponent -= point as i64;
                } else {
                    parts.inexact |= digit != 0;
                    parts.exponent += !point as i64;
                }
            }
            b'.' if !point => point = true,
            b'e' | b'E' => {
                let text = std::str::from_utf8(&rest[at + 1..]).ok()?;
                let power: i64 = text.parse().ok().or_else(|| far_power(text))?;
                parts.exponent = parts.exponent.saturating_add(power);
                return (digits > 0).then_some(parts);
            }
            _ => return None,
        }
        at += 1;
    }
    (digits > 0).then_some(parts)
}

/// An exponent of more digits than 64 bits hold is as good as the largest.
fn far_power(text: &str) -> Option<i64> {
    let digits = text.trim_start_matches(['+', '-']);
    let all = !digits.is_empty() && text.len() - digits.len() <= 1 && digits.bytes().all(|b| b.is_ascii_digit());
    all.then_some(if text.starts_with('-') { i64::MIN / 4 } else { i64::MAX / 4 })
}

/// A whole number; `1.0` and `1e3` are ones, `1.5` is none.
pub(crate) fn integer(text: &[u8]) -> Option<i64> {
    i64::try_from(decimal_parts(parts(text)?, 0, true)?).ok()
}

/// The unscaled value of a DECIMAL(precision, scale), rounded half up as Flink does.
pub(crate) fn decimal(text: &[u8], precision: u8, scale: i8) -> Option<i128> {
    let value = decimal_parts(parts(text)?, scale as i64, false)?;
    (value.unsigned_abs() < 10u128.pow(precision as u32)).then_some(value)
}

fn decimal_parts(parts: Parts, scale: i64, exact: bool) -> Option<i128> {
    let shift = parts.exponent.saturating_add(scale);
    let magnitude = if parts.mantissa == 0 {
        0
    } else if shift >= 0 {
        if parts.inexact {
            return None;
        }
        parts.mantissa.checked_mul(10u128.checked_pow(u32::try_from(shift).ok()?)?)?
    } else {
        let divisor = if shift >= -38 { 10u128.pow(-shift as u32) } else { 0 };
        let (quotient, rest) = match divisor {
            0 => (0, parts.mantissa),
            _ => (parts.mantissa / divisor, parts.mantissa % divisor),
        };
        if exact && (rest != 0 || parts.inexact) {
            return None;
        }
        quotient + (divisor != 0 && rest >= divisor / 2) as u128
    };
    let magnitude = i128::try_from(magnitude).ok()?;
    Some(if parts.negative { -magnitude } else { magnitude })
}

/// A finite number, or `NaN`, `Infinity`, `-Infinity` in words; digits that overflow the type are refused.
pub(crate) fn float<T: fast_float2::FastFloat + Into<f64>>(text: &[u8]) -> Option<T> {
    let value: T = fast_float2::parse(text).ok()?;
    let wide: f64 = value.into();
    (wide.is_finite() || !text.iter().any(u8::is_ascii_digit)).then_some(value)
}

/// Standard alphabet, padding optional.
pub(crate) fn base64(text: &[u8], out: &mut Vec<u8>) -> bool {
    let text = text.strip_suffix(b"==").or(text.strip_suffix(b"=")).unwrap_or(text);
    let (mut bits, mut count) = (0u32, 0u32);
    for byte in text {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return false,
        };
        bits = bits << 6 | value as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    // Six bits left over are a character too few, other bits must be padding.
    count < 6 && bits & ((1 << count) - 1) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_exact_or_refused() {
        for (text, value) in [
            ("0", Some(0)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("1.0", Some(1)),
            ("12e2", Some(1200)),
            ("1200e-2", Some(12)),
            ("1.5", None),
            ("1e-1", None),
            ("1e99999999999999999999", None),
            ("0e99999999999999999999", Some(0)),
            ("+7", Some(7)),
            ("", None),
            ("-", None),
            (".", None),
            ("1e", None),
            ("0x1", None),
        ] {
            assert_eq!(integer(text.as_bytes()), value, "{text}");
        }
    }

    #[test]
    fn decimals_round_half_up_and_refuse_overflow() {
        for (text, value) in [
            ("1.005", Some(101)),
            ("-1.005", Some(-101)),
            ("1.0049999999999999999999", Some(100)),
            ("999.99", Some(99999)),
            ("999.995", None),
            ("1e2", Some(10000)),
            ("1e3", None),
            ("1e-30", Some(0)),
            ("0.00000000000000000000000000000000000000000000001", Some(0)),
        ] {
            assert_eq!(decimal(text.as_bytes(), 5, 2), value, "{text}");
        }
    }

    #[test]
    fn base64_needs_whole_groups() {
        let decode = |text: &str| {
            let mut out = Vec::new();
            base64(text.as_bytes(), &mut out).then_some(out)
        };
        assert_eq!(decode("aGVsbG8=").as_deref(), Some(&b"hello"[..]));
        assert_eq!(decode("aGVsbG8").as_deref(), Some(&b"hello"[..]));
        assert_eq!(decode(""), Some(vec![]));
        assert_eq!(decode("a"), None);
        assert_eq!(decode("a-b_"), None);
    }
}
