//! What a node of a compiled expression yields: a column, or one value that stands for every row. Also the few ways
//! in which all kernels read and make columns. Constants are never repeated per row unless a caller needs a column.

use arrow_array::builder::{BinaryBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::*;
use arrow_buffer::{BooleanBuffer, IntervalMonthDayNano, NullBuffer, OffsetBuffer};
use ef_proto::expr::Scalar;
use ef_proto::schema::{DataType, Unit};
use std::sync::Arc;

/// The computation of one node: arguments and the number of rows to a column of that many rows. When all arguments
/// are constants it is called for one row. The message of an error names the offending value.
pub(crate) type Kernel = Box<dyn Fn(&[Value], usize) -> Result<ArrayRef, String> + Send + Sync>;

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Array(ArrayRef),
    /// An array of one row.
    Constant(ArrayRef),
}

impl Value {
    pub fn array(&self) -> &ArrayRef {
        match self {
            Value::Array(array) | Value::Constant(array) => array,
        }
    }

    pub fn is_constant(&self) -> bool {
        matches!(self, Value::Constant(_))
    }

    pub fn is_null_constant(&self) -> bool {
        self.is_constant() && (self.array().is_null(0) || self.array().data_type() == &arrow_schema::DataType::Null)
    }

    /// As a column of `rows` rows.
    pub fn to_array(&self, rows: usize) -> ArrayRef {
        match self {
            Value::Array(array) => array.clone(),
            Value::Constant(array) if rows == 1 => array.clone(),
            Value::Constant(array) if array.is_null(0) => new_null_array(array.data_type(), rows),
            Value::Constant(array) => arrow_select::take::take(array, &UInt32Array::from(vec![0; rows]), None)
                .expect("index 0 of an array of one row is in range"),
        }
    }

    pub fn primitive<T: ArrowPrimitiveType>(&self) -> &PrimitiveArray<T> {
        self.array().as_primitive::<T>()
    }

    pub fn cells<'a, A: Array + 'static>(&'a self) -> Cells<&'a A>
    where
        &'a A: ArrayAccessor,
    {
        let array = self.array().as_any().downcast_ref::<A>().expect("the compiler checked the argument's type");
        Cells { array, constant: self.is_constant() }
    }

    pub fn texts(&self) -> Cells<&StringArray> {
        self.cells::<StringArray>()
    }
}

/// Reads rows of a column or of a constant alike.
pub(crate) struct Cells<A> {
    array: A,
    constant: bool,
}

impl<A: ArrayAccessor> Cells<A> {
    #[inline]
    pub fn get(&self, row: usize) -> Option<A::Item> {
        let row = if self.constant { 0 } else { row };
        self.array.is_valid(row).then(|| self.array.value(row))
    }
}

pub(crate) fn nulls(ty: &DataType, rows: usize) -> ArrayRef {
    new_null_array(&ty.to_arrow(), rows)
}

/// The column with the Arrow type that carries `ty` (a zone, a decimal's scale); the physical type is right already.
pub(crate) fn typed<T: ArrowPrimitiveType>(array: PrimitiveArray<T>, ty: &DataType) -> ArrayRef {
    Arc::new(array.with_data_type(ty.to_arrow()))
}

/// `f` of every pair; it must not fail on the leftovers under NULLs.
pub(crate) fn zip<A, B, O>(
    left: &Value,
    right: &Value,
    ty: &DataType,
    rows: usize,
    f: impl Fn(A::Native, B::Native) -> O::Native,
) -> ArrayRef
where
    A: ArrowPrimitiveType,
    B: ArrowPrimitiveType,
    O: ArrowPrimitiveType,
{
    let (l, r) = (left.primitive::<A>(), right.primitive::<B>());
    if left.is_null_constant() || right.is_null_constant() {
        return nulls(ty, rows);
    }
    let array: PrimitiveArray<O> = match (left.is_constant(), right.is_constant()) {
        (false, true) => {
            let r = r.value(0);
            l.unary(|l| f(l, r))
        }
        (true, false) => {
            let l = l.value(0);
            r.unary(|r| f(l, r))
        }
        _ => {
            let values: Vec<O::Native> = l.values().iter().zip(r.values()).map(|(l, r)| f(*l, *r)).collect();
            PrimitiveArray::new(values.into(), NullBuffer::union(l.nulls(), r.nulls()))
        }
    };
    typed(array, ty)
}

/// `f` of every pair of non-NULLs; the first error ends it.
pub(crate) fn try_zip<A, B, O>(
    left: &Value,
    right: &Value,
    ty: &DataType,
    rows: usize,
    f: impl Fn(A::Native, B::Native) -> Result<O::Native, String>,
) -> Result<ArrayRef, String>
where
    A: ArrowPrimitiveType,
    B: ArrowPrimitiveType,
    O: ArrowPrimitiveType,
{
    let (l, r) = (left.primitive::<A>(), right.primitive::<B>());
    if left.is_null_constant() || right.is_null_constant() {
        return Ok(nulls(ty, rows));
    }
    let array: PrimitiveArray<O> = match (left.is_constant(), right.is_constant()) {
        (false, true) => {
            let r = r.value(0);
            l.try_unary(|l| f(l, r))?
        }
        (true, false) => {
            let l = l.value(0);
            r.try_unary(|r| f(l, r))?
        }
        _ => {
            let validity = NullBuffer::union(l.nulls(), r.nulls());
            let mut out = vec![O::Native::default(); rows];
            let (l, r) = (l.values(), r.values());
            for (row, slot) in out.iter_mut().enumerate() {
                if validity.as_ref().is_none_or(|v| v.is_valid(row)) {
                    *slot = f(l[row], r[row])?;
                }
            }
            PrimitiveArray::new(out.into(), validity)
        }
    };
    Ok(typed(array, ty))
}

/// `f` of every value, and which values it refuses. It is asked about the leftovers under NULLs too.
pub(crate) fn try_map<A: ArrowPrimitiveType, B: ArrowPrimitiveType>(
    array: &PrimitiveArray<A>,
    f: impl Fn(A::Native) -> Option<B::Native>,
) -> (PrimitiveArray<B>, Option<BooleanBuffer>) {
    let mut total = true;
    let take = |value: &A::Native| {
        let value = f(*value);
        total &= value.is_some();
        value.unwrap_or_default()
    };
    let values: Vec<B::Native> = array.values().iter().map(take).collect();
    let refused = (!total).then(|| {
        let refused = |row| array.is_valid(row) && f(array.value(row)).is_none();
        BooleanBuffer::collect_bool(array.len(), refused)
    });
    let refused = refused.filter(|rows| rows.count_set_bits() > 0);
    (PrimitiveArray::new(values.into(), array.nulls().cloned()), refused)
}

/// A text per row; the closure writes into the buffer and says whether the row has a value.
pub(crate) fn build_texts(
    rows: usize,
    mut write: impl FnMut(usize, &mut Vec<u8>) -> Result<bool, String>,
) -> Result<ArrayRef, String> {
    let mut builder = StringBuilder::with_capacity(rows, rows * 16);
    let mut text = Vec::new();
    for row in 0..rows {
        text.clear();
        if write(row, &mut text)? {
            // Offsets of a column have 31 bits.
            if builder.values_slice().len() + text.len() > i32::MAX as usize {
                return Err("the texts of one batch are longer than 2 GiB".into());
            }
            builder.append_value(std::str::from_utf8(&text).map_err(|_| "bytes that are not UTF-8".to_string())?);
        } else {
            builder.append_null();
        }
    }
    Ok(Arc::new(builder.finish()))
}

/// A value per row of a primitive type.
pub(crate) fn build<T: ArrowPrimitiveType>(
    rows: usize,
    ty: &DataType,
    mut value: impl FnMut(usize) -> Result<Option<T::Native>, String>,
) -> Result<ArrayRef, String> {
    let mut builder = PrimitiveArray::<T>::builder(rows);
    for row in 0..rows {
        builder.append_option(value(row)?);
    }
    Ok(typed(builder.finish(), ty))
}

/// Signed integers, dates, times and timestamps as 64-bit numbers: unit, calendar and zone stay with the type.
pub(crate) struct Longs<'a> {
    values: LongValues<'a>,
    nulls: Option<&'a NullBuffer>,
    constant: bool,
}

enum LongValues<'a> {
    I8(&'a [i8]),
    I16(&'a [i16]),
    I32(&'a [i32]),
    I64(&'a [i64]),
}

impl<'a> Longs<'a> {
    /// None when the value's type is not carried by an integer.
    pub fn of(value: &'a Value, ty: &DataType) -> Option<Longs<'a>> {
        let array = value.array();
        let values = match ty {
            DataType::Int8 => LongValues::I8(array.as_primitive::<Int8Type>().values()),
            DataType::Int16 => LongValues::I16(array.as_primitive::<Int16Type>().values()),
            DataType::Int32 | DataType::Date | DataType::Time => LongValues::I32(i32s(array, ty)),
            DataType::Int64 | DataType::Timestamp(_) | DataType::TimestampLtz(_) => LongValues::I64(i64s(array, ty)),
            _ => return None,
        };
        Some(Longs { values, nulls: array.nulls(), constant: value.is_constant() })
    }

    #[inline]
    pub fn get(&self, row: usize) -> Option<i64> {
        let row = if self.constant { 0 } else { row };
        if self.nulls.is_some_and(|nulls| nulls.is_null(row)) {
            return None;
        }
        Some(match self.values {
            LongValues::I8(values) => values[row] as i64,
            LongValues::I16(values) => values[row] as i64,
            LongValues::I32(values) => values[row] as i64,
            LongValues::I64(values) => values[row],
        })
    }
}

pub(crate) fn i32s<'a>(array: &'a ArrayRef, ty: &DataType) -> &'a [i32] {
    match ty {
        DataType::Date => array.as_primitive::<Date32Type>().values(),
        DataType::Time => array.as_primitive::<Time32MillisecondType>().values(),
        _ => array.as_primitive::<Int32Type>().values(),
    }
}

pub(crate) fn i64s<'a>(array: &'a ArrayRef, ty: &DataType) -> &'a [i64] {
    match ty {
        DataType::Timestamp(unit) | DataType::TimestampLtz(unit) => match unit {
            Unit::Milli => array.as_primitive::<TimestampMillisecondType>().values(),
            Unit::Micro => array.as_primitive::<TimestampMicrosecondType>().values(),
            Unit::Nano => array.as_primitive::<TimestampNanosecondType>().values(),
        },
        _ => array.as_primitive::<Int64Type>().values(),
    }
}

/// The ticks of a date, time or timestamp as 64-bit numbers; None for other types.
pub(crate) fn ticks(array: &ArrayRef, ty: &DataType) -> Option<Int64Array> {
    let values = match ty {
        DataType::Date | DataType::Time => i32s(array, ty).iter().map(|v| *v as i64).collect::<Vec<_>>().into(),
        DataType::Timestamp(Unit::Milli) | DataType::TimestampLtz(Unit::Milli) => {
            array.as_primitive::<TimestampMillisecondType>().values().clone()
        }
        DataType::Timestamp(Unit::Micro) | DataType::TimestampLtz(Unit::Micro) => {
            array.as_primitive::<TimestampMicrosecondType>().values().clone()
        }
        DataType::Timestamp(Unit::Nano) | DataType::TimestampLtz(Unit::Nano) => {
            array.as_primitive::<TimestampNanosecondType>().values().clone()
        }
        _ => return None,
    };
    Some(Int64Array::new(values, array.nulls().cloned()))
}

/// A date, time or timestamp from ticks that fit it.
pub(crate) fn of_ticks(ticks: Int64Array, ty: &DataType) -> Result<ArrayRef, String> {
    Ok(match ty {
        DataType::Date => typed(ticks.unary::<_, Date32Type>(|v| v as i32), ty),
        DataType::Time => typed(ticks.unary::<_, Time32MillisecondType>(|v| v as i32), ty),
        DataType::Timestamp(unit) | DataType::TimestampLtz(unit) => match unit {
            Unit::Milli => typed(ticks.reinterpret_cast::<TimestampMillisecondType>(), ty),
            Unit::Micro => typed(ticks.reinterpret_cast::<TimestampMicrosecondType>(), ty),
            Unit::Nano => typed(ticks.reinterpret_cast::<TimestampNanosecondType>(), ty),
        },
        other => return Err(format!("{other} has no ticks")),
    })
}

/// A column of an integer-carried type from 64-bit values that fit it.
pub(crate) fn from_longs(
    rows: usize,
    ty: &DataType,
    mut value: impl FnMut(usize) -> Result<Option<i64>, String>,
) -> Result<ArrayRef, String> {
    match ty {
        DataType::Int8 => build::<Int8Type>(rows, ty, |row| Ok(value(row)?.map(|v| v as i8))),
        DataType::Int16 => build::<Int16Type>(rows, ty, |row| Ok(value(row)?.map(|v| v as i16))),
        DataType::Int32 => build::<Int32Type>(rows, ty, |row| Ok(value(row)?.map(|v| v as i32))),
        DataType::Date => build::<Date32Type>(rows, ty, |row| Ok(value(row)?.map(|v| v as i32))),
        DataType::Time => build::<Time32MillisecondType>(rows, ty, |row| Ok(value(row)?.map(|v| v as i32))),
        DataType::Int64 => build::<Int64Type>(rows, ty, value),
        DataType::Timestamp(unit) | DataType::TimestampLtz(unit) => match unit {
            Unit::Milli => build::<TimestampMillisecondType>(rows, ty, value),
            Unit::Micro => build::<TimestampMicrosecondType>(rows, ty, value),
            Unit::Nano => build::<TimestampNanosecondType>(rows, ty, value),
        },
        other => Err(format!("{other} is not carried by an integer")),
    }
}

/// An array of one row that holds `value`.
pub(crate) fn constant(value: &Scalar, ty: &DataType) -> Result<ArrayRef, String> {
    let mismatch = || format!("literal {value} is not of type {ty}");
    Ok(match (value, ty) {
        (Scalar::Null, _) => nulls(ty, 1),
        (Scalar::Boolean(v), DataType::Boolean) => Arc::new(BooleanArray::from(vec![*v])),
        (Scalar::Int(v), DataType::Int8) if i8::try_from(*v).is_err() => return Err(mismatch()),
        (Scalar::Int(v), DataType::Int16) if i16::try_from(*v).is_err() => return Err(mismatch()),
        (Scalar::Int(v), DataType::Int32 | DataType::Date | DataType::Time) if i32::try_from(*v).is_err() => {
            return Err(mismatch());
        }
        (Scalar::Int(v), DataType::Float64) => Arc::new(Float64Array::from(vec![*v as f64])),
        (Scalar::Int(v), DataType::Float32) => Arc::new(Float32Array::from(vec![*v as f32])),
        (Scalar::Int(v), _) => from_longs(1, ty, |_| Ok(Some(*v))).map_err(|_| mismatch())?,
        (Scalar::Float(v), DataType::Float64) => Arc::new(Float64Array::from(vec![*v])),
        (Scalar::Float(v), DataType::Float32) => Arc::new(Float32Array::from(vec![*v as f32])),
        (Scalar::Decimal(v), DataType::Decimal { .. }) => typed(Decimal128Array::from(vec![*v]), ty),
        (Scalar::String(v), DataType::String) => Arc::new(StringArray::from(vec![v.as_str()])),
        (Scalar::Bytes(v), DataType::Bytes) => {
            let mut builder = BinaryBuilder::new();
            builder.append_value(v);
            Arc::new(builder.finish())
        }
        (Scalar::Interval { months, days, nanos }, DataType::Interval) => {
            Arc::new(IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano::new(*months, *days, *nanos)]))
        }
        (Scalar::List(items), DataType::Array(item)) => {
            let values = items.iter().map(|v| constant(v, item)).collect::<Result<Vec<_>, _>>()?;
            let arrow_schema::DataType::List(field) = ty.to_arrow() else { return Err(mismatch()) };
            let values = concat(&values, item)?;
            Arc::new(ListArray::new(field, OffsetBuffer::from_lengths([values.len()]), values, None))
        }
        (Scalar::List(items), DataType::Row(fields)) if items.len() == fields.len() => {
            let columns = items.iter().zip(fields).map(|(v, f)| constant(v, &f.ty)).collect::<Result<Vec<_>, _>>()?;
            row_of(ty, columns, None, 1)?
        }
        _ => return Err(mismatch()),
    })
}

pub(crate) fn concat(parts: &[ArrayRef], ty: &DataType) -> Result<ArrayRef, String> {
    if parts.is_empty() {
        return Ok(new_empty_array(&ty.to_arrow()));
    }
    let parts: Vec<&dyn Array> = parts.iter().map(|p| p.as_ref()).collect();
    arrow_select::concat::concat(&parts).map_err(|e| e.to_string())
}

/// A ROW column from its fields.
pub(crate) fn row_of(
    ty: &DataType,
    columns: Vec<ArrayRef>,
    nulls: Option<NullBuffer>,
    rows: usize,
) -> Result<ArrayRef, String> {
    let arrow_schema::DataType::Struct(fields) = ty.to_arrow() else { return Err(format!("{ty} is not a ROW")) };
    if fields.is_empty() {
        return Ok(Arc::new(StructArray::new_empty_fields(rows, nulls)));
    }
    StructArray::try_new(fields, columns, nulls).map(|a| Arc::new(a) as ArrayRef).map_err(|e| e.to_string())
}
