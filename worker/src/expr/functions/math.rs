//! Numeric functions on the core's types. ROUND is half up on the decimal text of a float, as Flink's is.

use crate::expr::arithmetic::map;
use crate::expr::cast;
use crate::expr::decimal::{self, POWERS};
use crate::expr::value::{Kernel, Longs, Value, build, from_longs};
use arrow_array::Array;
use arrow_array::cast::AsArray;
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
        Builtin::Floor => whole(ty, f64::floor, |v, unit| v.div_euclid(unit) * unit),
        Builtin::Ceil => whole(ty, f64::ceil, |v, unit| -((-v).div_euclid(unit) * unit)),
        Builtin::Round => round(types.get(1).cloned(), ty),
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

/// FLOOR and CEIL: the type stays, a decimal keeps its scale.
fn whole(ty: DataType, float: fn(f64) -> f64, exact: fn(i128, i128) -> i128) -> Result<Kernel, String> {
    Ok(match ty {
        DataType::Float32 => Box::new(move |args, _| Ok(map::<Float32Type>(&args[0], &ty, |v| float(v as f64) as f32))),
        DataType::Float64 => Box::new(move |args, _| Ok(map::<Float64Type>(&args[0], &ty, float))),
        DataType::Decimal { precision, scale } if scale > 0 => Box::new(move |args, rows| {
            let values = args[0].array().as_primitive::<Decimal128Type>();
            build::<Decimal128Type>(rows, &ty, |row| {
                if values.is_null(row) {
                    return Ok(None);
                }
                let whole = exact(values.value(row), POWERS[scale as usize]);
                in_range(whole, precision, &ty).map(Some)
            })
        }),
        _ => Box::new(|args, rows| Ok(args[0].to_array(rows))),
    })
}

fn in_range(value: i128, precision: u8, ty: &DataType) -> Result<i128, String> {
    if decimal::fits(value, precision) { Ok(value) } else { Err(format!("the result does not fit {ty}")) }
}

/// Half up on the shortest decimal text: ROUND(1.005, 2) is 1.01 though the double is a little less.
fn round_float(value: f64, digits: i64) -> f64 {
    if !value.is_finite() || digits > 17 {
        return value;
    }
    if digits < -308 {
        return 0.0;
    }
    let Ok(scale) = i8::try_from(digits) else {
        // Beyond the scales that `decimal` knows: the value is far below or far above half of such a power.
        return if value.abs() < 10f64.powi(-digits as i32) / 2.0 { 0.0 } else { value };
    };
    let mut buffer = ryu::Buffer::new();
    match decimal::parse(buffer.format_finite(value).as_bytes(), 38, scale) {
        None => value,
        Some(unscaled) => {
            let mut text = Vec::with_capacity(48);
            decimal::write(&mut text, unscaled, scale);
            fast_float2::parse(&text).unwrap_or(value)
        }
    }
}

fn round(digits_ty: Option<DataType>, ty: DataType) -> Result<Kernel, String> {
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
                    Ok(values.get(row).zip(digits(row)).map(|(v, d)| round_float(v, d)))
                })
            }
            DataType::Float32 => {
                let values = args[0].cells::<arrow_array::Float32Array>();
                build::<Float32Type>(rows, &ty, |row| {
                    let widened = |v: f32| v.to_string().parse::<f64>().unwrap_or(v as f64);
                    Ok(values.get(row).zip(digits(row)).map(|(v, d)| round_float(widened(v), d) as f32))
                })
            }
            DataType::Decimal { precision, scale } => {
                let values = args[0].cells::<arrow_array::Decimal128Array>();
                build::<Decimal128Type>(rows, &ty, |row| {
                    let Some((v, d)) = values.get(row).zip(digits(row)) else { return Ok(None) };
                    if d >= *scale as i64 {
                        return Ok(Some(v));
                    }
                    if d < -38 {
                        return Ok(Some(0));
                    }
                    let rounded =
                        decimal::rescale(v, *scale, d as i8).and_then(|v| decimal::rescale(v, d as i8, *scale));
                    let rounded = rounded.ok_or_else(|| format!("the result does not fit {ty}"))?;
                    in_range(rounded, *precision, &ty).map(Some)
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
                    let rounded = (v as i128 + v.signum() as i128 * unit / 2) / unit * unit;
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
