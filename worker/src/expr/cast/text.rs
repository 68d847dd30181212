//! Casts to and from texts. Numbers print as Java prints them, timestamps as `yyyy-MM-dd HH:mm:ss.SSS` with the digits
//! of their unit; parsing takes what `time::civil` takes and numbers in the usual notations.

use super::misfit;
use crate::expr::decimal;
use crate::expr::value::{Kernel, build, build_texts, from_longs, i32s, i64s};
use crate::time::civil::{self, Fraction};
use arrow_array::builder::BinaryBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::{Array, ArrayRef};
use ef_proto::schema::{DataType, Unit};
use std::sync::Arc;

/// Appends the text of a row that is not NULL.
pub(crate) type Write = fn(&ArrayRef, usize, &DataType, &mut Vec<u8>);

/// Java's text of a double: plain from 0.001 to 10 million, `1.0E10` beyond, always with a fraction.
pub(crate) fn write_float(out: &mut Vec<u8>, value: f64, single: bool) {
    if value.is_nan() {
        return out.extend_from_slice(b"NaN");
    }
    if value.is_infinite() {
        return out.extend_from_slice(if value > 0.0 { b"Infinity" } else { b"-Infinity" });
    }
    if value.is_sign_negative() {
        out.push(b'-');
    }
    let magnitude = value.abs();
    let mut buffer = ryu::Buffer::new();
    let text = if single { buffer.format_finite(magnitude as f32) } else { buffer.format_finite(magnitude) };
    // ryu's `digits[.digits][e-exponent]` to the significant digits and the place of the point.
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let leading = digits.len() - digits.trim_start_matches('0').len();
    let point = whole.len() as i32 + exponent - leading as i32;
    let digits = digits.trim_start_matches('0').trim_end_matches('0').as_bytes();
    if digits.is_empty() {
        return out.extend_from_slice(b"0.0");
    }
    let or_zero = |digits: &[u8], out: &mut Vec<u8>| {
        if digits.is_empty() { out.push(b'0') } else { out.extend_from_slice(digits) }
    };
    if (1e-3..1e7).contains(&magnitude) {
        if point <= 0 {
            out.extend_from_slice(b"0.");
            out.extend(std::iter::repeat_n(b'0', -point as usize));
            out.extend_from_slice(digits);
        } else {
            let cut = digits.len().min(point as usize);
            out.extend_from_slice(&digits[..cut]);
            out.extend(std::iter::repeat_n(b'0', point as usize - cut));
            out.push(b'.');
            or_zero(&digits[cut..], out);
        }
    } else {
        out.push(digits[0]);
        out.push(b'.');
        or_zero(&digits[1..], out);
        out.push(b'E');
        out.extend_from_slice(itoa::Buffer::new().format(point - 1).as_bytes());
    }
}

fn put(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// How values of `ty` print.
pub(crate) fn writer(ty: &DataType) -> Option<Write> {
    use DataType as T;
    Some(match ty {
        T::Boolean => |a, row, _, out| {
            out.extend_from_slice(if a.as_boolean().value(row) { b"TRUE" } else { b"FALSE" });
        },
        T::Int8 => |a, row, _, out| put(out, a.as_primitive::<Int8Type>().value(row)),
        T::Int16 => |a, row, _, out| put(out, a.as_primitive::<Int16Type>().value(row)),
        T::Int32 => |a, row, _, out| put(out, a.as_primitive::<Int32Type>().value(row)),
        T::Int64 => |a, row, _, out| put(out, a.as_primitive::<Int64Type>().value(row)),
        T::Float32 => |a, row, _, out| write_float(out, a.as_primitive::<Float32Type>().value(row) as f64, true),
        T::Float64 => |a, row, _, out| write_float(out, a.as_primitive::<Float64Type>().value(row), false),
        T::Decimal { .. } => |a, row, ty, out| {
            if let DataType::Decimal { scale, .. } = ty {
                decimal::write(out, a.as_primitive::<Decimal128Type>().value(row), *scale);
            }
        },
        T::String => |a, row, _, out| out.extend_from_slice(a.as_string::<i32>().value(row).as_bytes()),
        T::Bytes => |a, row, _, out| {
            out.extend_from_slice(String::from_utf8_lossy(a.as_binary::<i32>().value(row)).as_bytes());
        },
        T::Date => |a, row, ty, out| civil::write_date(out, i32s(a, ty)[row] as i64),
        T::Time => |a, row, ty, out| civil::write_time(out, i32s(a, ty)[row], Fraction::Short),
        T::Timestamp(_) | T::TimestampLtz(_) => |a, row, ty, out| {
            if let DataType::Timestamp(unit) | DataType::TimestampLtz(unit) = ty {
                civil::write_timestamp(out, i64s(a, ty)[row], *unit, b' ', Fraction::Full);
            }
        },
        T::Row(fields) if fields.iter().all(|f| writer(&f.ty).is_some()) => |a, row, ty, out| {
            let DataType::Row(fields) = ty else { return };
            out.push(b'(');
            for (i, (field, column)) in fields.iter().zip(a.as_struct().columns()).enumerate() {
                separate(out, i);
                nested(column, row, &field.ty, out);
            }
            out.push(b')');
        },
        T::Array(item) if writer(item).is_some() => |a, row, ty, out| {
            let DataType::Array(item) = ty else { return };
            let items = a.as_list::<i32>().value(row);
            out.push(b'[');
            for i in 0..items.len() {
                separate(out, i);
                nested(&items, i, item, out);
            }
            out.push(b']');
        },
        T::Map(key, value) if writer(key).is_some() && writer(value).is_some() => |a, row, ty, out| {
            let DataType::Map(key, value) = ty else { return };
            let entries = a.as_map().value(row);
            out.push(b'{');
            for i in 0..entries.len() {
                separate(out, i);
                nested(entries.column(0), i, key, out);
                out.push(b'=');
                nested(entries.column(1), i, value, out);
            }
            out.push(b'}');
        },
        _ => return None,
    })
}

fn separate(out: &mut Vec<u8>, i: usize) {
    if i > 0 {
        out.extend_from_slice(b", ");
    }
}

fn nested(array: &ArrayRef, row: usize, ty: &DataType, out: &mut Vec<u8>) {
    match writer(ty) {
        Some(write) if array.is_valid(row) => write(array, row, ty, out),
        _ => out.extend_from_slice(b"NULL"),
    }
}

pub(super) fn to_text(from: &DataType) -> Option<Kernel> {
    let write = writer(from)?;
    let from = from.clone();
    Some(Box::new(move |args, rows| {
        let array = args[0].array();
        build_texts(rows, |row, out| {
            if array.is_null(row) {
                return Ok(false);
            }
            write(array, row, &from, out);
            Ok(true)
        })
    }))
}

pub(crate) fn parse_boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "1" => Some(true),
        "false" | "f" | "no" | "n" | "0" => Some(false),
        _ => None,
    }
}

/// A fraction is cut off, as Flink does.
fn parse_integer<T: std::str::FromStr>(text: &str) -> Option<T> {
    match text.split_once('.') {
        Some((whole, fraction)) if fraction.bytes().all(|b| b.is_ascii_digit()) => whole.parse().ok(),
        _ => text.parse().ok(),
    }
}

fn parse_float<T: fast_float2::FastFloat>(text: &str) -> Option<T> {
    let plain = text.strip_prefix(['+', '-']).unwrap_or(text);
    match plain {
        "NaN" | "Infinity" => fast_float2::parse(text).ok(),
        _ if plain.starts_with(|c: char| c.is_ascii_digit() || c == '.') => fast_float2::parse(text).ok(),
        _ => None,
    }
}

pub(super) fn parse(to: &DataType, safe: bool) -> Option<Kernel> {
    use DataType as T;
    let to = to.clone();
    type Long = Box<dyn Fn(&str) -> Option<i64> + Send + Sync>;
    let long: Long = match &to {
        T::Int8 => Box::new(|t| parse_integer::<i8>(t).map(i64::from)),
        T::Int16 => Box::new(|t| parse_integer::<i16>(t).map(i64::from)),
        T::Int32 => Box::new(|t| parse_integer::<i32>(t).map(i64::from)),
        T::Int64 => Box::new(parse_integer::<i64>),
        T::Date => Box::new(|t| {
            // A time behind the date must be one, and is left out.
            let date = match t.split_once([' ', 'T', 't']) {
                Some((date, _)) => {
                    civil::parse_timestamp(t.as_bytes(), Unit::Milli)?;
                    date
                }
                None => t,
            };
            civil::parse_date(date.as_bytes()).map(i64::from)
        }),
        T::Time => Box::new(|t| civil::parse_time(t.as_bytes()).map(i64::from)),
        T::Timestamp(unit) | T::TimestampLtz(unit) => {
            let unit = *unit;
            Box::new(move |t| civil::parse_timestamp(t.as_bytes(), unit))
        }
        T::Float64 => {
            return Some(Box::new(move |args, rows| {
                let texts = args[0].texts();
                build::<Float64Type>(rows, &to, |row| {
                    let Some(text) = texts.get(row) else { return Ok(None) };
                    misfit(parse_float(text.trim()), safe, || format!("'{text}'"), &to)
                })
            }));
        }
        T::Float32 => {
            return Some(Box::new(move |args, rows| {
                let texts = args[0].texts();
                build::<Float32Type>(rows, &to, |row| {
                    let Some(text) = texts.get(row) else { return Ok(None) };
                    misfit(parse_float(text.trim()), safe, || format!("'{text}'"), &to)
                })
            }));
        }
        T::Decimal { precision, scale } => {
            let (precision, scale) = (*precision, *scale);
            return Some(Box::new(move |args, rows| {
                let texts = args[0].texts();
                build::<Decimal128Type>(rows, &to, |row| {
                    let Some(text) = texts.get(row) else { return Ok(None) };
                    let value = decimal::parse(text.trim().as_bytes(), precision, scale);
                    misfit(value, safe, || format!("'{text}'"), &to)
                })
            }));
        }
        T::Boolean => {
            return Some(Box::new(move |args, rows| {
                let texts = args[0].texts();
                let mut out = arrow_array::BooleanArray::builder(rows);
                for row in 0..rows {
                    out.append_option(match texts.get(row) {
                        None => None,
                        Some(text) => misfit(parse_boolean(text.trim()), safe, || format!("'{text}'"), &to)?,
                    });
                }
                Ok(Arc::new(out.finish()))
            }));
        }
        T::Bytes => {
            return Some(Box::new(move |args, rows| {
                let texts = args[0].texts();
                let mut out = BinaryBuilder::new();
                (0..rows).for_each(|row| out.append_option(texts.get(row).map(str::as_bytes)));
                Ok(Arc::new(out.finish()))
            }));
        }
        _ => return None,
    };
    Some(Box::new(move |args, rows| {
        let texts = args[0].texts();
        from_longs(rows, &to, |row| {
            let Some(text) = texts.get(row) else { return Ok(None) };
            misfit(long(text.trim()), safe, || format!("'{text}'"), &to)
        })
    }))
}
