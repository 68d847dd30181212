//! `+ - * / %` and the bit operators on numbers, and unary minus. Integers wrap as Java's do; an integer divided by
//! zero is an error; floats follow IEEE. Decimals are in `decimal`, times and intervals in `interval`.

use super::value::{Kernel, Value, try_zip, typed, zip};
use super::{decimal, interval};
use arrow_array::types::*;
use arrow_array::{ArrayRef, ArrowPrimitiveType};
use ef_proto::expr::BinaryOp;
use ef_proto::schema::DataType;

const ZERO: &str = "division by zero";

macro_rules! integer_op {
    ($op:expr, $ty:expr, $T:ty) => {{
        type N = <$T as ArrowPrimitiveType>::Native;
        let ty = $ty.clone();
        match $op {
            BinaryOp::Add => plain::<$T>(ty, N::wrapping_add),
            BinaryOp::Sub => plain::<$T>(ty, N::wrapping_sub),
            BinaryOp::Mul => plain::<$T>(ty, N::wrapping_mul),
            BinaryOp::BitAnd => plain::<$T>(ty, |a, b| a & b),
            BinaryOp::BitOr => plain::<$T>(ty, |a, b| a | b),
            BinaryOp::BitXor => plain::<$T>(ty, |a, b| a ^ b),
            BinaryOp::ShiftLeft => plain::<$T>(ty, |a, b| a.wrapping_shl(b as u32)),
            BinaryOp::ShiftRight => plain::<$T>(ty, |a, b| a.wrapping_shr(b as u32)),
            BinaryOp::Div => {
                checked::<$T>(
                    ty,
                    |a: N, b: N| {
                        if b == 0 { Err(format!("{a} / 0: {ZERO}")) } else { Ok(a.wrapping_div(b)) }
                    },
                )
            }
            BinaryOp::Mod => {
                checked::<$T>(
                    ty,
                    |a: N, b: N| {
                        if b == 0 { Err(format!("{a} % 0: {ZERO}")) } else { Ok(a.wrapping_rem(b)) }
                    },
                )
            }
            _ => return None,
        }
    }};
}

macro_rules! float_op {
    ($op:expr, $ty:expr, $T:ty) => {{
        let ty = $ty.clone();
        match $op {
            BinaryOp::Add => plain::<$T>(ty, |a, b| a + b),
            BinaryOp::Sub => plain::<$T>(ty, |a, b| a - b),
            BinaryOp::Mul => plain::<$T>(ty, |a, b| a * b),
            BinaryOp::Div => plain::<$T>(ty, |a, b| a / b),
            BinaryOp::Mod => plain::<$T>(ty, |a, b| a % b),
            _ => return None,
        }
    }};
}

fn plain<T: ArrowPrimitiveType>(
    ty: DataType,
    f: impl Fn(T::Native, T::Native) -> T::Native + Send + Sync + 'static,
) -> Kernel {
    Box::new(move |args, rows| Ok(zip::<T, T, T>(&args[0], &args[1], &ty, rows, &f)))
}

fn checked<T: ArrowPrimitiveType>(
    ty: DataType,
    f: impl Fn(T::Native, T::Native) -> Result<T::Native, String> + Send + Sync + 'static,
) -> Kernel {
    Box::new(move |args, rows| try_zip::<T, T, T>(&args[0], &args[1], &ty, rows, &f))
}

/// The kernel of `left op right`; None where these types have no such operator.
pub(crate) fn binary(op: BinaryOp, left: &DataType, right: &DataType, ty: &DataType) -> Option<Kernel> {
    if let (DataType::Decimal { .. }, DataType::Decimal { .. }) = (left, right) {
        return decimal::binary(op, left, right, ty);
    }
    if left != right || left != ty {
        return interval::binary(op, left, right, ty);
    }
    Some(match ty {
        DataType::Int8 => integer_op!(op, ty, Int8Type),
        DataType::Int16 => integer_op!(op, ty, Int16Type),
        DataType::Int32 => integer_op!(op, ty, Int32Type),
        DataType::Int64 => integer_op!(op, ty, Int64Type),
        DataType::Float32 => float_op!(op, ty, Float32Type),
        DataType::Float64 => float_op!(op, ty, Float64Type),
        _ => return interval::binary(op, left, right, ty),
    })
}

/// `f` of every value of a number's column, for functions of one argument.
pub(crate) fn map<T: ArrowPrimitiveType>(value: &Value, ty: &DataType, f: impl Fn(T::Native) -> T::Native) -> ArrayRef {
    typed(value.primitive::<T>().unary::<_, T>(f), ty)
}

/// Unary minus.
pub(crate) fn negate(ty: &DataType) -> Option<Kernel> {
    let ty = ty.clone();
    Some(match ty {
        DataType::Int8 => Box::new(move |args, _| Ok(map::<Int8Type>(&args[0], &ty, i8::wrapping_neg))),
        DataType::Int16 => Box::new(move |args, _| Ok(map::<Int16Type>(&args[0], &ty, i16::wrapping_neg))),
        DataType::Int32 => Box::new(move |args, _| Ok(map::<Int32Type>(&args[0], &ty, i32::wrapping_neg))),
        DataType::Int64 => Box::new(move |args, _| Ok(map::<Int64Type>(&args[0], &ty, i64::wrapping_neg))),
        DataType::Float32 => Box::new(move |args, _| Ok(map::<Float32Type>(&args[0], &ty, |v| -v))),
        DataType::Float64 => Box::new(move |args, _| Ok(map::<Float64Type>(&args[0], &ty, |v| -v))),
        DataType::Decimal { .. } => Box::new(move |args, _| Ok(map::<Decimal128Type>(&args[0], &ty, |v| -v))),
        DataType::Interval => {
            Box::new(move |args, _| Ok(map::<IntervalMonthDayNanoType>(&args[0], &ty, interval::negate)))
        }
        _ => return None,
    })
}
