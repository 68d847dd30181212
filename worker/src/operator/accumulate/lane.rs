//! The three forms in which accumulators keep single values: an i64 whose order is SQL's order (integers, dates,
//! timestamps, booleans, floats), an i128 (decimals), bytes (strings). Plus their bytes in state.

use crate::error::{Code, Error, Result};
use crate::keys::{as_i64, from_i64};
use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Float32Array, Float64Array, StringArray,
};
use arrow_schema::DataType as Arrow;
use ef_proto::keys::float_bits;
use ef_proto::schema::DataType;
use std::sync::Arc;

/// The place of a double in SQL's order: NaN last, both zeros at 0. Its own inverse, on the bits.
#[inline(always)]
pub fn ordinal(value: f64) -> i64 {
    flip(float_bits(value) as i64)
}

#[inline(always)]
pub fn of_ordinal(ordinal: i64) -> f64 {
    f64::from_bits(flip(ordinal) as u64)
}

#[inline(always)]
const fn flip(bits: i64) -> i64 {
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

/// A value as an accumulator keeps it.
pub trait Lane: Ord + Clone + Default + Send + 'static {
    type View<'a>: Copy + Ord;

    fn own(view: Self::View<'_>) -> Self;
    /// Calls `each` for the rows of `column`, NULL or not: the caller's mask says which count.
    fn read(column: &ArrayRef, each: impl FnMut(usize, Self::View<'_>)) -> Result<()>;
    fn build(ty: &DataType, values: Vec<Option<Self>>) -> Result<ArrayRef>;
    fn put(&self, out: &mut Vec<u8>);
    fn get(input: &mut &[u8]) -> Result<Self>;
    fn heap_bytes(&self) -> usize {
        0
    }
    /// The value as a double; only for numbers.
    fn to_f64(&self, ty: &DataType) -> f64;
    fn to_i128(&self) -> i128;
}

impl Lane for i64 {
    type View<'a> = i64;

    #[inline(always)]
    fn own(view: i64) -> i64 {
        view
    }

    fn read(column: &ArrayRef, mut each: impl FnMut(usize, i64)) -> Result<()> {
        match column.data_type() {
            Arrow::Float64 => {
                column.as_primitive::<Float64Type>().values().iter().enumerate().for_each(|(i, v)| each(i, ordinal(*v)))
            }
            Arrow::Float32 => {
                let values = column.as_primitive::<Float32Type>().values();
                values.iter().enumerate().for_each(|(i, v)| each(i, ordinal(f64::from(*v))));
            }
            Arrow::Boolean => {
                let values = column.as_boolean().values();
                (0..column.len()).for_each(|i| each(i, i64::from(values.value(i))));
            }
            Arrow::Null => {}
            _ => as_i64(column, &mut Vec::new()).iter().enumerate().for_each(|(i, v)| each(i, *v)),
        }
        Ok(())
    }

    fn build(ty: &DataType, values: Vec<Option<i64>>) -> Result<ArrayRef> {
        Ok(match ty {
            DataType::Float64 => Arc::new(values.into_iter().map(|v| v.map(of_ordinal)).collect::<Float64Array>()),
            DataType::Float32 => {
                Arc::new(values.into_iter().map(|v| v.map(|v| of_ordinal(v) as f32)).collect::<Float32Array>())
            }
            DataType::Boolean => Arc::new(values.into_iter().map(|v| v.map(|v| v != 0)).collect::<BooleanArray>()),
            _ => {
                let valid = values.iter().map(Option::is_some).collect();
                from_i64(ty, values.into_iter().map(Option::unwrap_or_default).collect(), Some(valid))?
            }
        })
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }

    fn get(input: &mut &[u8]) -> Result<i64> {
        take(input).map(i64::from_le_bytes)
    }

    fn to_f64(&self, ty: &DataType) -> f64 {
        if matches!(ty, DataType::Float32 | DataType::Float64) { of_ordinal(*self) } else { *self as f64 }
    }

    fn to_i128(&self) -> i128 {
        i128::from(*self)
    }
}

impl Lane for i128 {
    type View<'a> = i128;

    #[inline(always)]
    fn own(view: i128) -> i128 {
        view
    }

    fn read(column: &ArrayRef, mut each: impl FnMut(usize, i128)) -> Result<()> {
        column.as_primitive::<Decimal128Type>().values().iter().enumerate().for_each(|(i, v)| each(i, *v));
        Ok(())
    }

    fn build(ty: &DataType, values: Vec<Option<i128>>) -> Result<ArrayRef> {
        Ok(Arc::new(values.into_iter().collect::<Decimal128Array>().with_data_type(ty.to_arrow())))
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }

    fn get(input: &mut &[u8]) -> Result<i128> {
        take(input).map(i128::from_le_bytes)
    }

    fn to_f64(&self, ty: &DataType) -> f64 {
        let scale = if let DataType::Decimal { scale, .. } = ty { i32::from(*scale) } else { 0 };
        *self as f64 / 10f64.powi(scale)
    }

    fn to_i128(&self) -> i128 {
        *self
    }
}

impl Lane for Box<[u8]> {
    type View<'a> = &'a [u8];

    fn own(view: &[u8]) -> Box<[u8]> {
        view.into()
    }

    fn read(column: &ArrayRef, mut each: impl FnMut(usize, &[u8])) -> Result<()> {
        match column.data_type() {
            Arrow::Utf8 => {
                let array = column.as_string::<i32>();
                (0..array.len()).for_each(|i| each(i, array.value(i).as_bytes()));
            }
            Arrow::Binary => {
                let array = column.as_binary::<i32>();
                (0..array.len()).for_each(|i| each(i, array.value(i)));
            }
            other => return Err(Error::new(Code::Internal, format!("no bytes in a column of type {other}"))),
        }
        Ok(())
    }

    fn build(ty: &DataType, values: Vec<Option<Box<[u8]>>>) -> Result<ArrayRef> {
        if *ty == DataType::Bytes {
            return Ok(Arc::new(values.iter().map(|v| v.as_deref()).collect::<BinaryArray>()));
        }
        let texts = values.iter().map(|v| v.as_deref().map(std::str::from_utf8).transpose());
        let array: StringArray = texts
            .collect::<std::result::Result<_, _>>()
            .map_err(|_| Error::corrupt("a string in the state is not UTF-8"))?;
        Ok(Arc::new(array))
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.len() as u32).to_le_bytes());
        out.extend_from_slice(self);
    }

    fn get(input: &mut &[u8]) -> Result<Box<[u8]>> {
        let len = u32::from_le_bytes(take(input)?) as usize;
        if input.len() < len {
            return Err(Error::corrupt("a value in the state is cut short"));
        }
        let (value, rest) = input.split_at(len);
        *input = rest;
        Ok(value.into())
    }

    fn heap_bytes(&self) -> usize {
        self.len() + 16
    }

    fn to_f64(&self, _ty: &DataType) -> f64 {
        0.0
    }

    fn to_i128(&self) -> i128 {
        0
    }
}

/// The next bytes of a state value.
pub fn take<const N: usize>(input: &mut &[u8]) -> Result<[u8; N]> {
    let (value, rest) =
        input.split_first_chunk::<N>().ok_or_else(|| Error::corrupt("a value in the state is cut short"))?;
    *input = rest;
    Ok(*value)
}
