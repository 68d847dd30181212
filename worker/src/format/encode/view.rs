//! Typed views of a batch's columns: made once a batch, so that a cell costs a `match` and no downcast.

use crate::error::{Error, Result};
use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::{Array, BinaryArray, BooleanArray, PrimitiveArray, StringArray};
use arrow_buffer::NullBuffer;
use ef_proto::error::Code;
use ef_proto::schema::{DataType, Unit};

/// A column: where it is NULL, and its values.
pub(crate) struct View<'a> {
    pub nulls: Option<&'a NullBuffer>,
    pub values: Values<'a>,
}

pub(crate) enum Values<'a> {
    Null,
    Boolean(&'a BooleanArray),
    Int8(&'a [i8]),
    Int16(&'a [i16]),
    Int32(&'a [i32]),
    Int64(&'a [i64]),
    Float32(&'a [f32]),
    Float64(&'a [f64]),
    Decimal(&'a [i128], i8),
    String(&'a StringArray),
    Bytes(&'a BinaryArray),
    Date(&'a [i32]),
    Time(&'a [i32]),
    /// `true`: an instant (TIMESTAMP_LTZ).
    Timestamp(&'a [i64], Unit, bool),
    Row(Vec<View<'a>>),
    Array(&'a [i32], Box<View<'a>>),
    Map(&'a [i32], Box<View<'a>>, Box<View<'a>>),
}

impl<'a> View<'a> {
    pub fn new(array: &'a dyn Array, ty: &DataType) -> Result<View<'a>> {
        let mismatch = || {
            let message = format!("a column of type {ty} arrived at an encoder as {}", array.data_type());
            Error::new(Code::Internal, message)
        };
        fn ticks<T: ArrowPrimitiveType>(array: &dyn Array) -> Option<&[T::Native]> {
            array.as_primitive_opt::<T>().map(|a: &PrimitiveArray<T>| &a.values()[..])
        }
        let values = match ty {
            DataType::Null => Some(Values::Null),
            DataType::Boolean => array.as_boolean_opt().map(Values::Boolean),
            DataType::Int8 => ticks::<Int8Type>(array).map(Values::Int8),
            DataType::Int16 => ticks::<Int16Type>(array).map(Values::Int16),
            DataType::Int32 => ticks::<Int32Type>(array).map(Values::Int32),
            DataType::Int64 => ticks::<Int64Type>(array).map(Values::Int64),
            DataType::Float32 => ticks::<Float32Type>(array).map(Values::Float32),
            DataType::Float64 => ticks::<Float64Type>(array).map(Values::Float64),
            DataType::Decimal { scale, .. } => ticks::<Decimal128Type>(array).map(|v| Values::Decimal(v, *scale)),
            DataType::String => array.as_string_opt::<i32>().map(Values::String),
            DataType::Bytes => array.as_binary_opt::<i32>().map(Values::Bytes),
            DataType::Date => ticks::<Date32Type>(array).map(Values::Date),
            DataType::Time => ticks::<Time32MillisecondType>(array).map(Values::Time),
            DataType::Timestamp(unit) | DataType::TimestampLtz(unit) => match unit {
                Unit::Milli => ticks::<TimestampMillisecondType>(array),
                Unit::Micro => ticks::<TimestampMicrosecondType>(array),
                Unit::Nano => ticks::<TimestampNanosecondType>(array),
            }
            .map(|v| Values::Timestamp(v, *unit, matches!(ty, DataType::TimestampLtz(_)))),
            DataType::Row(fields) => match array.as_struct_opt() {
                Some(row) if row.num_columns() == fields.len() => {
                    let columns = row.columns().iter().zip(fields);
                    let views = columns.map(|(column, field)| View::new(column, &field.ty)).collect::<Result<_>>()?;
                    Some(Values::Row(views))
                }
                _ => None,
            },
            DataType::Array(item) => match array.as_list_opt::<i32>() {
                Some(list) => Some(Values::Array(list.value_offsets(), Box::new(View::new(list.values(), item)?))),
                None => None,
            },
            DataType::Map(key, value) => match array.as_map_opt() {
                Some(map) => Some(Values::Map(
                    map.value_offsets(),
                    Box::new(View::new(map.keys(), key)?),
                    Box::new(View::new(map.values(), value)?),
                )),
                None => None,
            },
            DataType::Interval => None,
        };
        Ok(View { nulls: array.nulls(), values: values.ok_or_else(mismatch)? })
    }

    #[inline(always)]
    pub fn is_null(&self, row: usize) -> bool {
        self.nulls.is_some_and(|nulls| nulls.is_null(row)) || matches!(self.values, Values::Null)
    }
}

#[inline]
pub(crate) fn write_integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// The shortest text that reads back as the value; `NaN`, `Infinity`, `-Infinity` without quotes.
#[inline]
pub(crate) fn write_double(out: &mut Vec<u8>, value: f64) {
    if value.is_finite() {
        out.extend_from_slice(ryu::Buffer::new().format(value).as_bytes());
    } else {
        out.extend_from_slice(unreal(value));
    }
}

#[inline]
pub(crate) fn write_float(out: &mut Vec<u8>, value: f32) {
    if value.is_finite() {
        out.extend_from_slice(ryu::Buffer::new().format(value).as_bytes());
    } else {
        out.extend_from_slice(unreal(value as f64));
    }
}

fn unreal(value: f64) -> &'static [u8] {
    if value.is_nan() {
        b"NaN"
    } else if value > 0.0 {
        b"Infinity"
    } else {
        b"-Infinity"
    }
}

/// All digits, never an exponent.
pub(crate) fn write_decimal(out: &mut Vec<u8>, unscaled: i128, scale: i8) {
    if unscaled < 0 {
        out.push(b'-');
    }
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(unscaled.unsigned_abs()).as_bytes();
    let scale = scale as isize;
    if scale <= 0 {
        out.extend_from_slice(digits);
        if unscaled != 0 {
            out.extend(std::iter::repeat_n(b'0', -scale as usize));
        }
        return;
    }
    let scale = scale as usize;
    if digits.len() > scale {
        out.extend_from_slice(&digits[..digits.len() - scale]);
        out.push(b'.');
        out.extend_from_slice(&digits[digits.len() - scale..]);
    } else {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', scale - digits.len()));
        out.extend_from_slice(digits);
    }
}

/// RFC 4648 with padding.
pub(crate) fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, b| word << 8 | *b as u32) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * place)) as usize & 63];
            out.push(if place <= chunk.len() { letter } else { b'=' });
        }
    }
}
