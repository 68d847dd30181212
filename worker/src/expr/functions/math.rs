//! Numeric functions on the core's types. ROUND is half up and TRUNCATE cuts on the decimal text of a float, as
//! Flink's are. A decimal result has the scale that the tree says; one that its type cannot hold is NULL.

use crate::expr::arithmetic::map;
use crate::expr::cast;
use crate::expr::decimal::{self, POWERS};
use crate::expr::value::{Kernel, Longs, Value, build, build_texts, from_longs};
use arrow_array::Decimal128Array;
use arrow_array::types::*;
use ef_proto::function::Builtin;
use ef_proto::schema::DataType;

pub(super) fn kernel(function: Builtin, types: &[DataType], ty: &DataType) -> Result<Kernel, String> {
    let ty = ty.clone();
    match function {
        Builtin::Sqrt => floats(&types[0], f64::sqrt),
        Builtin::Exp => floats(&types[0], f64::exp),
        Builtin::Ln => floats(&types[0], f64::ln),
        Builtin::Power => {
            let (base, exponent) = (to_double(&types[0])?, to_double(&types[1])?);
            Ok(Box::new(move |args, rows| {
                let one = |kernel: &Kernel, value: &Value| -> Result<Value, String> {
                    Ok(if value.is_constant() {
                        Value::Constant(kernel(std::slice::from_ref(value), 1)?)
                    } else {
                        Value::Array(kernel(std::slice::from_ref(value), rows)?)
                    })
                };
                let (base, exponent) = (one(&base, &args[0])?, one(&exponent, &args[1])?);
                Ok(crate::expr::value::zip::<Float64Type, Float64Type, Float64Type>(
                    &base,
                    &exponent,
                    &DataType::Float64,
                    rows,
                    f64::powf,
                ))
            }))
        }
        Builtin::Abs => Ok(match ty {
            DataType::Int8 => Box::new(move |args, _| Ok(map::<Int8Type>(&args[0], &ty, i8::wrapping_abs))),
            DataType::Int16 => Box::new(move |args, _| Ok(map::<Int16Type>(&args[0], &ty, i16::wrapping_abs))),
            DataType::Int32 => Box::new(move |args, _| Ok(map::<Int32Type>(&args[0], &ty, i32::wrapping_abs))),
            DataType::Int64 => Box::new(move |args, _| Ok(map::<Int64Type>(&args[0], &ty, i64::wrapping_abs))),
            DataType::Float32 => Box::new(move |args, _| Ok(map::<Float32Type>(&args[0], &ty, f32::abs))),
            DataType::Float64 => Box::new(move |args, _| Ok(map::<Float64Type>(&args[0], &ty, f64::abs))),
            _ => Box::new(move |args, _| Ok(map::<Decimal128Type>(&args[0], &ty, i128::abs))),
        }),
        Builtin::Sign => Ok(match ty {
            DataType::Int8 => Box::new(move |args, _| Ok(map::<Int8Type>(&args[0], &ty, i8::signum))),
            DataType::Int16 => Box::new(move |args, _| Ok(map::<Int16Type>(&args[0], &ty, i16::signum))),
            DataType::Int32 => Box::new(move |args, _| Ok(map::<Int32Type>(&args[0], &ty, i32::signum))),
            DataType::Int64 => Box::new(move |args, _| Ok(map::<Int64Type>(&args[0], &ty, i64::signum))),
            DataType::Float32 => {
                Box::new(move |args, _| Ok(map::<Float32Type>(&args[0], &ty, |v| sign(v.into()) as f32)))
            }
            DataType::Float64 => Box::new(move |args, _| Ok(map::<Float64Type>(&args[0], &ty, sign))),
            DataType::Decimal { precision, scale } => {
                // One has no place in DECIMAL(2, 2).
                let one = POWERS[scale.max(0) as usize];
                Box::new(move |args, rows| {
                    let values = args[0].cells::<Decimal128Array>();
                    build::<Decimal128Type>(rows, &ty, |row| {
                        Ok(values.get(row).map(|v| v.signum() * one).filter(|v| decimal::fits(*v, precision)))
                    })
                })
            }
            other => return Err(format!("{other} is no number")),
        }),
        Builtin::Bin => {
            let ty = types[0].clone();
            Ok(Box::new(move |args, rows| {
                let values = Longs::of(&args[0], &ty).ok_or("an integer is expected")?;
                build_texts(rows, |row, out| {
                    let Some(value) = values.get(row) else { return Ok(false) };
                    out.extend_from_slice(format!("{value:b}").as_bytes());
                    Ok(true)
                })
            }))
        }
        Builtin::Floor => whole(&types[0], ty, f64::floor, |v, unit| v.div_euclid(unit) * unit),
        Builtin::Ceil => whole(&types[0], ty, f64::ceil, |v, unit| -((-v).div_euclid(unit) * unit)),
        Builtin::Round => rounded(types, ty, false),
        Builtin::Truncate => rounded(types, ty, true),
        other => Err(format!("{} is not a numeric function", other.name())),
    }
}

fn to_double(from: &DataType) -> Result<Kernel, String> {
    cast::kernel(from, &DataType::Float64, false)
}

fn floats(from: &DataType, f: fn(f64) -> f64) -> Result<Kernel, String> {
    let double = to_double(from)?;
    Ok(Box::new(move |args, rows| {
        let doubles = Value::Array(double(args, rows)?);
        Ok(map::<Float64Type>(&doubles, &DataType::Float64, f))
    }))
}

/// -1, 0 or 1; a zero keeps its sign, as Java's Math.signum has it.
fn sign(value: f64) -> f64 {
    if value == 0.0 || value.is_nan() { value } else { value.signum() }
}

/// FLOOR and CEIL: a number keeps its type but for a decimal, which loses its fraction.
fn whole(
    from: &DataType,
    ty: DataType,
    float: fn(f64) -> f64,
    exact: fn(i128, i128) -> i128,
) -> Result<Kernel, String> {
    Ok(match (from, &ty) {
        (_, DataType::Float32) => {
            Box::new(move |args, _| Ok(map::<Float32Type>(&args[0], &ty, |v| float(v as f64) as f32)))
        }
        (_, DataType::Float64) => Box::new(move |args, _| Ok(map::<Float64Type>(&args[0], &ty, float))),
        (DataType::Decimal { scale: from, .. }, DataType::Decimal { precision, scale: to }) => {
            let (from, to, precision) = (*from, *to, *precision);
            let unit = POWERS[from.clamp(0, 38) as usize];
            Box::new(move |args, rows| {
                let values = args[0].cells::<Decimal128Array>();
                build::<Decimal128Type>(rows, &ty, |row| {
                    let Some(value) = values.get(row) else { return Ok(None) };
                    Ok(decimal::rescale(exact(value, unit), from, to).filter(|v| decimal::fits(*v, precision)))
                })
            })
        }
        _ => Box::new(|args, rows| Ok(args[0].to_array(rows))),
    })
}

/// The unscaled value of a decimal's or of a text's digits at a scale.
type Rescale = fn(i128, i8, i8) -> Option<i128>;

/// By the shortest decimal text: ROUND(1.005, 2) is 1.01 though the double is a little less.
fn round_float(value: f64, digits: i64, rescale: Rescale) -> f64 {
    // The digits behind the 17th are zeros, unless the number is small.
    if !value.is_finite() || digits > 340 {
        return value;
    }
    if digits < -340 {
        return 0.0;
    }
    let mut buffer = ryu::Buffer::new();
    let text = buffer.format_finite(value.abs());
    let (mantissa, exponent) = match text.split_once('e') {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().unwrap_or(0)),
        None => (text, 0),
    };
    let fraction = mantissa.split_once('.').map_or(0, |(_, fraction)| fraction.len() as i64);
    let whole: i128 = mantissa.bytes().filter(u8::is_ascii_digit).fold(0, |n, b| n * 10 + (b - b'0') as i128);
    // The number is `whole` at this scale.
    let scale = fraction - exponent;
    if digits >= scale {
        return value;
    }
    // At most 17 digits and the zero of `1.0`: what is cut further up is nothing.
    let down = (scale - digits).min(38) as i8;
    let rounded = rescale(whole, down, 0).unwrap_or(0);
    let text = format!("{}{rounded}e{}", if value.is_sign_negative() { "-" } else { "" }, -digits);
    fast_float2::parse(&text).unwrap_or(value)
}

/// ROUND and TRUNCATE.
fn rounded(types: &[DataType], ty: DataType, truncate: bool) -> Result<Kernel, String> {
    let rescale: Rescale = if truncate { decimal::cut } else { decimal::rescale };
    let (from, digits_ty) = (types[0].clone(), types.get(1).cloned());
    Ok(Box::new(move |args, rows| {
        let digits = match &digits_ty {
            None => None,
            Some(t) => Some(Longs::of(&args[1], t).ok_or("the number of digits must be an integer")?),
        };
        let digits = |row| digits.as_ref().map_or(Some(0), |d| d.get(row));
        match &ty {
            DataType::Float64 => {
                let values = args[0].cells::<arrow_array::Float64Array>();
                build::<Float64Type>(rows, &ty, |row| {
                    Ok(values.get(row).zip(digits(row)).map(|(v, d)| round_float(v, d, rescale)))
                })
            }
            DataType::Float32 => {
                let values = args[0].cells::<arrow_array::Float32Array>();
                build::<Float32Type>(rows, &ty, |row| {
                    let widened = |v: f32| v.to_string().parse::<f64>().unwrap_or(v as f64);
                    Ok(values.get(row).zip(digits(row)).map(|(v, d)| round_float(widened(v), d, rescale) as f32))
                })
            }
            DataType::Decimal { precision, scale } => {
                let DataType::Decimal { scale: from, .. } = from else {
                    return Err("a decimal is expected".into());
                };
                let values = args[0].cells::<Decimal128Array>();
                build::<Decimal128Type>(rows, &ty, |row| {
                    let Some((v, d)) = values.get(row).zip(digits(row)) else { return Ok(None) };
                    if d < -38 {
                        return Ok(Some(0));
                    }
                    let at = d.min(from as i64) as i8;
                    let rounded = rescale(v, from, at).and_then(|v| decimal::rescale(v, at, *scale));
                    Ok(rounded.filter(|v| decimal::fits(*v, *precision)))
                })
            }
            ty => {
                let values = Longs::of(&args[0], ty).ok_or("a number is expected")?;
                from_longs(rows, ty, |row| {
                    let Some((v, d)) = values.get(row).zip(digits(row)) else { return Ok(None) };
                    if d >= 0 {
                        return Ok(Some(v));
                    }
                    if d < -19 {
                        return Ok(Some(0));
                    }
                    let unit = 10i128.pow(-d as u32);
                    let half = if truncate { 0 } else { v.signum() as i128 * unit / 2 };
                    let rounded = (v as i128 + half) / unit * unit;
                    let narrow = i64::try_from(rounded).ok().filter(|v| match ty {
                        DataType::Int8 => i8::try_from(*v).is_ok(),
                        DataType::Int16 => i16::try_from(*v).is_ok(),
                        DataType::Int32 => i32::try_from(*v).is_ok(),
                        _ => true,
                    });
                    narrow.map(Some).ok_or_else(|| format!("{v} rounded does not fit {ty}"))
                })
            }
        }
    }))
}
