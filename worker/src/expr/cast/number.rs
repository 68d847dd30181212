//! Casts between numbers. Fractions are cut off on the way to integers (as Java does) and rounded half up on the way
//! to a decimal's scale. Whole columns at a time: a second look is taken only where a value does not fit.

use super::{convert, each_integer};
use crate::expr::compare::pack;
use crate::expr::decimal::{self, POWERS};
use crate::expr::value::{Kernel, typed};
use arrow_array::types::*;
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, BooleanArray, PrimitiveArray};
use ef_proto::schema::DataType;
use std::sync::Arc;

fn integer(ty: &DataType) -> bool {
    matches!(ty, DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64)
}

fn narrow<A, B: TryFrom<A>>(value: A) -> Option<B> {
    B::try_from(value).ok()
}

/// The float without its fraction, if an i64 holds it.
fn truncate(value: f64) -> Option<i64> {
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

fn decimal_to_integer(value: i128, scale: i8) -> Option<i64> {
    let whole = if scale >= 0 { value / POWERS[scale.min(38) as usize] } else { decimal::rescale(value, scale, 0)? };
    i64::try_from(whole).ok()
}

/// A cast that every value survives.
fn total<A: ArrowPrimitiveType, B: ArrowPrimitiveType>(
    to: DataType,
    f: impl Fn(A::Native) -> B::Native + Send + Sync + 'static,
) -> Kernel {
    Box::new(move |args, _| Ok(typed(args[0].primitive::<A>().unary::<_, B>(&f), &to)))
}

/// A cast that a value may not survive; `show` is its text for the error.
fn partial<A: ArrowPrimitiveType, B: ArrowPrimitiveType>(
    to: DataType,
    safe: bool,
    f: impl Fn(A::Native) -> Option<B::Native> + Send + Sync + 'static,
    show: impl Fn(A::Native) -> String + Send + Sync + 'static,
) -> Kernel {
    Box::new(move |args, _| Ok(typed(convert::<A, B>(args[0].primitive(), &to, safe, &f, &show)?, &to)))
}

pub(super) fn kernel(from: &DataType, to: &DataType, safe: bool) -> Option<Kernel> {
    use DataType as T;
    let whole = to.clone();
    Some(match (from, to) {
        (a, b) if integer(a) && integer(b) => each_integer!(a, A => each_integer!(b, B => {
            partial::<A, B>(whole, safe, narrow, |v| v.to_string())
        })),
        (a, T::Float64) if integer(a) => each_integer!(a, A => total::<A, Float64Type>(whole, |v| v as f64)),
        (a, T::Float32) if integer(a) => each_integer!(a, A => total::<A, Float32Type>(whole, |v| v as f32)),
        (a, T::Decimal { precision, scale }) if integer(a) => {
            let (precision, scale) = (*precision, *scale);
            each_integer!(a, A => partial::<A, Decimal128Type>(
                whole,
                safe,
                move |v| decimal::rescale(v as i128, 0, scale).filter(|v| decimal::fits(*v, precision)),
                |v| v.to_string(),
            ))
        }
        (T::Float32, T::Float64) => total::<Float32Type, Float64Type>(whole, |v| v as f64),
        (T::Float64, T::Float32) => total::<Float64Type, Float32Type>(whole, |v| v as f32),
        (T::Float32, T::Decimal { precision, scale }) => {
            let (precision, scale) = (*precision, *scale);
            let f = move |v| decimal::parse(ryu::Buffer::new().format(v).as_bytes(), precision, scale);
            partial::<Float32Type, Decimal128Type>(whole, safe, f, |v| v.to_string())
        }
        (T::Float64, T::Decimal { precision, scale }) => {
            let (precision, scale) = (*precision, *scale);
            let f = move |v| decimal::parse(ryu::Buffer::new().format(v).as_bytes(), precision, scale);
            partial::<Float64Type, Decimal128Type>(whole, safe, f, |v| v.to_string())
        }
        (T::Float32, b) if integer(b) => each_integer!(b, B => {
            partial::<Float32Type, B>(whole, safe, |v| narrow(truncate(v as f64)?), |v| v.to_string())
        }),
        (T::Float64, b) if integer(b) => each_integer!(b, B => {
            partial::<Float64Type, B>(whole, safe, |v| narrow(truncate(v)?), |v| v.to_string())
        }),
        (T::Decimal { scale: old, .. }, T::Decimal { precision, scale }) => {
            let (old, precision, scale) = (*old, *precision, *scale);
            let f = move |v| decimal::rescale(v, old, scale).filter(|v| decimal::fits(*v, precision));
            partial::<Decimal128Type, Decimal128Type>(whole, safe, f, move |v| shown(v, old))
        }
        (T::Decimal { scale, .. }, T::Float64) => {
            let scale = *scale;
            total::<Decimal128Type, Float64Type>(whole, move |v| decimal_to_float(v, scale))
        }
        (T::Decimal { scale, .. }, T::Float32) => {
            let scale = *scale;
            total::<Decimal128Type, Float32Type>(whole, move |v| decimal_to_float(v, scale) as f32)
        }
        (T::Decimal { scale, .. }, b) if integer(b) => {
            let scale = *scale;
            each_integer!(b, B => {
                let f = move |v| narrow(decimal_to_integer(v, scale)?);
                partial::<Decimal128Type, B>(whole, safe, f, move |v| shown(v, scale))
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
    fn bits<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>) -> ArrayRef {
        let zero = T::Native::default();
        Arc::new(BooleanArray::new(pack(array.values(), |v| v != zero), array.nulls().cloned()))
    }
    Some(match from {
        DataType::Float32 => Box::new(|args, _| Ok(bits::<Float32Type>(args[0].primitive()))),
        DataType::Float64 => Box::new(|args, _| Ok(bits::<Float64Type>(args[0].primitive()))),
        DataType::Decimal { .. } => Box::new(|args, _| Ok(bits::<Decimal128Type>(args[0].primitive()))),
        from => each_integer!(from, A => Box::new(|args, _| Ok(bits::<A>(args[0].primitive())))),
    })
}

/// Ones and zeros.
pub(super) fn of_boolean(to: &DataType, safe: bool) -> Option<Kernel> {
    let number = if *to == DataType::Int8 { None } else { Some(kernel(&DataType::Int8, to, safe)?) };
    Some(Box::new(move |args, rows| {
        use arrow_array::cast::AsArray;
        let bits = args[0].array().as_boolean();
        let ones: Vec<i8> = bits.values().iter().map(|bit| bit as i8).collect();
        let ones: ArrayRef = Arc::new(PrimitiveArray::<Int8Type>::new(ones.into(), bits.nulls().cloned()));
        match &number {
            None => Ok(ones),
            Some(number) => number(&[crate::expr::value::Value::Array(ones)], rows),
        }
    }))
}
