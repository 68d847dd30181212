//! Casts between numbers. Fractions are cut off on the way to integers (as Java does) and rounded half up on the way
//! to a decimal's scale.

use super::misfit;
use crate::expr::decimal::{self, POWERS};
use crate::expr::value::{Kernel, Longs, build, from_longs};
use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::{Array, Decimal128Array, Float32Array, Float64Array};
use ef_proto::schema::DataType;
use std::sync::Arc;

/// True if `value` fits the integer type.
pub(crate) fn fits(value: i64, ty: &DataType) -> bool {
    match ty {
        DataType::Int8 => i8::try_from(value).is_ok(),
        DataType::Int16 => i16::try_from(value).is_ok(),
        DataType::Int32 => i32::try_from(value).is_ok(),
        _ => true,
    }
}

fn integer(ty: &DataType) -> bool {
    matches!(ty, DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64)
}

/// The float without its fraction, if an i64 holds it.
pub(crate) fn truncate(value: f64) -> Option<i64> {
    // 2^63 itself is out of range, -2^63 is in.
    (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&value).then_some(value as i64)
}

fn decimal_to_float(value: i128, scale: i8) -> f64 {
    // Exact while both parts are exact; the text way is right for the rest.
    if value.unsigned_abs() < 1 << 53 && (0..=22).contains(&scale) {
        return value as f64 / POWERS[scale as usize] as f64;
    }
    let mut text = Vec::with_capacity(48);
    decimal::write(&mut text, value, scale);
    fast_float2::parse(&text).unwrap_or(f64::NAN)
}

fn float_to_decimal(value: f64, single: bool, precision: u8, scale: i8) -> Option<i128> {
    let mut buffer = ryu::Buffer::new();
    let text = if single { buffer.format(value as f32) } else { buffer.format(value) };
    decimal::parse(text.as_bytes(), precision, scale)
}

pub(super) fn kernel(from: &DataType, to: &DataType, safe: bool) -> Option<Kernel> {
    use DataType as T;
    let (from, to) = (from.clone(), to.clone());
    Some(match (&from, &to) {
        (a, b) if integer(a) && integer(b) => Box::new(move |args, rows| {
            let longs = Longs::of(&args[0], &from).ok_or("an integer is expected")?;
            from_longs(rows, &to, |row| {
                let Some(v) = longs.get(row) else { return Ok(None) };
                misfit(fits(v, &to).then_some(v), safe, || v.to_string(), &to)
            })
        }),
        (a, T::Float64) if integer(a) => Box::new(move |args, rows| {
            let longs = Longs::of(&args[0], &from).ok_or("an integer is expected")?;
            Ok(Arc::new((0..rows).map(|row| longs.get(row).map(|v| v as f64)).collect::<Float64Array>()))
        }),
        (a, T::Float32) if integer(a) => Box::new(move |args, rows| {
            let longs = Longs::of(&args[0], &from).ok_or("an integer is expected")?;
            Ok(Arc::new((0..rows).map(|row| longs.get(row).map(|v| v as f32)).collect::<Float32Array>()))
        }),
        (a, T::Decimal { precision, scale }) if integer(a) => {
            let (precision, scale) = (*precision, *scale);
            Box::new(move |args, rows| {
                let longs = Longs::of(&args[0], &from).ok_or("an integer is expected")?;
                build::<Decimal128Type>(rows, &to, |row| {
                    let Some(v) = longs.get(row) else { return Ok(None) };
                    let scaled = decimal::rescale(v as i128, 0, scale).filter(|v| decimal::fits(*v, precision));
                    misfit(scaled, safe, || v.to_string(), &to)
                })
            })
        }
        (T::Float32, T::Float64) => Box::new(move |args, _| {
            Ok(Arc::new(args[0].primitive::<Float32Type>().unary::<_, Float64Type>(|v| v as f64)))
        }),
        (T::Float64, T::Float32) => Box::new(move |args, _| {
            Ok(Arc::new(args[0].primitive::<Float64Type>().unary::<_, Float32Type>(|v| v as f32)))
        }),
        (T::Float32 | T::Float64, _) => {
            let single = from == T::Float32;
            let float = move |args: &[crate::expr::value::Value]| -> Float64Array {
                if single {
                    args[0].primitive::<Float32Type>().unary(|v| v as f64)
                } else {
                    args[0].primitive::<Float64Type>().clone()
                }
            };
            if let T::Decimal { precision, scale } = to {
                return Some(Box::new(move |args, rows| {
                    let floats = float(args);
                    build::<Decimal128Type>(rows, &to, |row| {
                        if floats.is_null(row) {
                            return Ok(None);
                        }
                        let v = floats.value(row);
                        misfit(float_to_decimal(v, single, precision, scale), safe, || v.to_string(), &to)
                    })
                }));
            }
            Box::new(move |args, rows| {
                let floats = float(args);
                from_longs(rows, &to, |row| {
                    if floats.is_null(row) {
                        return Ok(None);
                    }
                    let v = floats.value(row);
                    misfit(truncate(v).filter(|v| fits(*v, &to)), safe, || v.to_string(), &to)
                })
            })
        }
        (T::Decimal { scale: old, .. }, T::Decimal { precision, scale }) => {
            let (old, precision, scale) = (*old, *precision, *scale);
            Box::new(move |args, rows| {
                let decimals = args[0].array().as_primitive::<Decimal128Type>();
                build::<Decimal128Type>(rows, &to, |row| {
                    if decimals.is_null(row) {
                        return Ok(None);
                    }
                    let v = decimals.value(row);
                    let scaled = decimal::rescale(v, old, scale).filter(|v| decimal::fits(*v, precision));
                    misfit(scaled, safe, || shown(v, old), &to)
                })
            })
        }
        (T::Decimal { scale, .. }, T::Float64) => {
            let scale = *scale;
            Box::new(move |args, _| {
                let decimals: &Decimal128Array = args[0].primitive::<Decimal128Type>();
                Ok(Arc::new(decimals.unary::<_, Float64Type>(|v| decimal_to_float(v, scale))))
            })
        }
        (T::Decimal { scale, .. }, T::Float32) => {
            let scale = *scale;
            Box::new(move |args, _| {
                let decimals: &Decimal128Array = args[0].primitive::<Decimal128Type>();
                Ok(Arc::new(decimals.unary::<_, Float32Type>(|v| decimal_to_float(v, scale) as f32)))
            })
        }
        (T::Decimal { scale, .. }, _) => {
            let scale = *scale;
            Box::new(move |args, rows| {
                let decimals = args[0].array().as_primitive::<Decimal128Type>();
                from_longs(rows, &to, |row| {
                    if decimals.is_null(row) {
                        return Ok(None);
                    }
                    let v = decimals.value(row);
                    let whole = if scale >= 0 {
                        Some(v / POWERS[scale.min(38) as usize])
                    } else {
                        decimal::rescale(v, scale, 0)
                    };
                    let whole = whole.and_then(|v| i64::try_from(v).ok()).filter(|v| fits(*v, &to));
                    misfit(whole, safe, || shown(v, scale), &to)
                })
            })
        }
        _ => return None,
    })
}

fn shown(value: i128, scale: i8) -> String {
    let mut text = Vec::new();
    decimal::write(&mut text, value, scale);
    String::from_utf8_lossy(&text).into_owned()
}

/// Not zero is true.
pub(super) fn to_boolean(from: &DataType) -> Option<Kernel> {
    let from = from.clone();
    Some(match from {
        DataType::Float32 => Box::new(|args, rows| {
            let v = args[0].primitive::<Float32Type>();
            Ok(crate::expr::like::booleans(rows, |row| v.is_valid(row).then(|| v.value(row) != 0.0)))
        }),
        DataType::Float64 => Box::new(|args, rows| {
            let v = args[0].primitive::<Float64Type>();
            Ok(crate::expr::like::booleans(rows, |row| v.is_valid(row).then(|| v.value(row) != 0.0)))
        }),
        DataType::Decimal { .. } => Box::new(|args, rows| {
            let v = args[0].primitive::<Decimal128Type>();
            Ok(crate::expr::like::booleans(rows, |row| v.is_valid(row).then(|| v.value(row) != 0)))
        }),
        _ => Box::new(move |args, rows| {
            let longs = Longs::of(&args[0], &from).ok_or("an integer is expected")?;
            Ok(crate::expr::like::booleans(rows, |row| longs.get(row).map(|v| v != 0)))
        }),
    })
}
