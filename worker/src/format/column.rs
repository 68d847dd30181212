//! Growing columns that can be taken back: what the decoders write and what becomes the arrays of a batch.
//!
//! A column of a bad row is cut back with [`Column::truncate`], so that no half row is ever delivered. Validity bits are
//! made only when the first NULL of a batch comes. Fields of ROWs are columns of their own; NULL rows are owed to them
//! and paid in bulk.

use super::json::Keys;
use crate::error::{Context, Result};
use arrow_array::types::*;
use arrow_array::{
    ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, ListArray, MapArray, NullArray, PrimitiveArray,
    StringArray, StructArray,
};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType as Arrow, Field as ArrowField, FieldRef};
use ef_proto::schema::{DataType, Field, Unit};
use std::sync::Arc;

/// Bits of which all are alike until one differs; most batches never allocate them.
#[derive(Debug, Default)]
pub(crate) struct Bits {
    bytes: Vec<u8>,
    len: usize,
}

impl Bits {
    #[inline]
    pub fn push(&mut self, bit: bool) {
        if self.len.is_multiple_of(8) {
            self.bytes.push(0);
        }
        self.bytes[self.len / 8] |= (bit as u8) << (self.len % 8);
        self.len += 1;
    }

    pub fn extend(&mut self, bit: bool, count: usize) {
        for _ in 0..count {
            self.push(bit);
        }
    }

    pub fn truncate(&mut self, len: usize) {
        if len < self.len {
            self.bytes.truncate(len.div_ceil(8));
            if !len.is_multiple_of(8) {
                self.bytes[len / 8] &= (1u8 << (len % 8)) - 1;
            }
            self.len = len;
        }
    }

    fn take(&mut self) -> BooleanBuffer {
        let bytes = std::mem::take(&mut self.bytes);
        BooleanBuffer::new(Buffer::from_vec(bytes), 0, std::mem::take(&mut self.len))
    }
}

/// Bytes of variable length behind each other.
#[derive(Debug)]
pub(crate) struct Var {
    pub offsets: Vec<i32>,
    pub bytes: Vec<u8>,
}

impl Var {
    fn new() -> Var {
        Var { offsets: vec![0], bytes: Vec::new() }
    }

    /// Ends the value whose bytes have been appended. Batches are closed far below 2 GiB (see `decode::LINE_BYTES`).
    #[inline]
    pub fn end(&mut self) {
        self.offsets.push(self.bytes.len() as i32);
    }

    /// Bytes of a value that was begun and not ended are dropped.
    #[inline]
    pub fn rewind(&mut self) {
        self.bytes.truncate(self.offsets[self.offsets.len() - 1] as usize);
    }

    fn truncate(&mut self, len: usize) {
        self.offsets.truncate(len + 1);
        self.rewind();
    }

    fn take(&mut self) -> (OffsetBuffer<i32>, Buffer) {
        let (rows, bytes) = (self.offsets.capacity(), self.bytes.capacity());
        let offsets = std::mem::replace(&mut self.offsets, Vec::with_capacity(rows));
        self.offsets.push(0);
        let bytes = std::mem::replace(&mut self.bytes, Vec::with_capacity(bytes.min(4 << 20)));
        (OffsetBuffer::new(ScalarBuffer::from(offsets)), Buffer::from_vec(bytes))
    }
}

/// The values of a column by physical type.
#[derive(Debug)]
pub(crate) enum Values {
    Null,
    Boolean(Bits),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Decimal {
        values: Vec<i128>,
        precision: u8,
        scale: i8,
    },
    String(Var),
    Bytes(Var),
    Date(Vec<i32>),
    Time(Vec<i32>),
    Timestamp {
        values: Vec<i64>,
        unit: Unit,
    },
    /// `owed`: NULL rows that the fields have not seen yet.
    Row {
        fields: Vec<Column>,
        keys: Keys,
        owed: usize,
    },
    Array {
        offsets: Vec<i32>,
        items: Box<Column>,
    },
    Map {
        offsets: Vec<i32>,
        keys: Box<Column>,
        values: Box<Column>,
    },
}

#[derive(Debug)]
pub(crate) struct Column {
    pub name: String,
    pub ty: DataType,
    pub nullable: bool,
    pub len: usize,
    /// Empty while no NULL has come.
    validity: Bits,
    pub values: Values,
    arrow: FieldRef,
}

impl Column {
    pub fn new(field: &Field) -> Result<Column> {
        Self::with(&field.name, &field.ty, field.nullable)
    }

    fn with(name: &str, ty: &DataType, nullable: bool) -> Result<Column> {
        let values = match ty {
            DataType::Null => Values::Null,
            DataType::Boolean => Values::Boolean(Bits::default()),
            DataType::Int8 => Values::Int8(Vec::new()),
            DataType::Int16 => Values::Int16(Vec::new()),
            DataType::Int32 => Values::Int32(Vec::new()),
            DataType::Int64 => Values::Int64(Vec::new()),
            DataType::Float32 => Values::Float32(Vec::new()),
            DataType::Float64 => Values::Float64(Vec::new()),
            DataType::Decimal { precision, scale } => {
                Values::Decimal { values: Vec::new(), precision: *precision, scale: *scale }
            }
            DataType::String => Values::String(Var::new()),
            DataType::Bytes => Values::Bytes(Var::new()),
            DataType::Date => Values::Date(Vec::new()),
            DataType::Time => Values::Time(Vec::new()),
            DataType::Timestamp(unit) | DataType::TimestampLtz(unit) => {
                Values::Timestamp { values: Vec::new(), unit: *unit }
            }
            DataType::Interval => {
                return Err(crate::error::Error::invalid(format!(
                    "column \"{name}\": a format cannot carry INTERVAL, use a number or a string"
                )));
            }
            DataType::Row(fields) => Values::Row {
                fields: fields.iter().map(Column::new).collect::<Result<_>>()?,
                keys: Keys::new(fields.iter().map(|f| f.name.as_str())),
                owed: 0,
            },
            DataType::Array(item) => {
                Values::Array { offsets: vec![0], items: Box::new(Column::with("item", item, true)?) }
            }
            DataType::Map(key, value) => Values::Map {
                offsets: vec![0],
                keys: Box::new(Column::with("key", key, false)?),
                values: Box::new(Column::with("value", value, true)?),
            },
        };
        let arrow = Arc::new(ArrowField::new(name, ty.to_arrow(), nullable));
        Ok(Column { name: name.into(), ty: ty.clone(), nullable, len: 0, validity: Bits::default(), values, arrow })
    }

    /// The value just appended to `values` counts.
    #[inline(always)]
    pub fn valid(&mut self) {
        if self.validity.len != 0 {
            self.validity.push(true);
        }
        self.len += 1;
    }

    /// Appends NULLs, with a value of zero below each. Whether the column may hold them is checked by the caller.
    pub fn nulls(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        if self.validity.len == 0 {
            self.validity.extend(true, self.len);
        }
        self.validity.extend(false, count);
        let len = self.len + count;
        match &mut self.values {
            Values::Null => {}
            Values::Boolean(v) => v.extend(false, count),
            Values::Int8(v) => v.resize(len, 0),
            Values::Int16(v) => v.resize(len, 0),
            Values::Int32(v) | Values::Date(v) | Values::Time(v) => v.resize(len, 0),
            Values::Int64(v) | Values::Timestamp { values: v, .. } => v.resize(len, 0),
            Values::Float32(v) => v.resize(len, 0.0),
            Values::Float64(v) => v.resize(len, 0.0),
            Values::Decimal { values: v, .. } => v.resize(len, 0),
            Values::String(v) | Values::Bytes(v) => v.offsets.resize(len + 1, v.bytes.len() as i32),
            Values::Row { owed, .. } => *owed += count,
            Values::Array { offsets, .. } | Values::Map { offsets, .. } => {
                let end = offsets[offsets.len() - 1];
                offsets.resize(len + 1, end);
            }
        }
        self.len = len;
    }

    /// Takes back everything behind the first `len` values, and what a value that was begun has left.
    pub fn truncate(&mut self, len: usize) {
        if self.validity.len != 0 {
            self.validity.truncate(len);
        }
        let len = len.min(self.len);
        match &mut self.values {
            Values::Null => {}
            Values::Boolean(v) => v.truncate(len),
            Values::Int8(v) => v.truncate(len),
            Values::Int16(v) => v.truncate(len),
            Values::Int32(v) | Values::Date(v) | Values::Time(v) => v.truncate(len),
            Values::Int64(v) | Values::Timestamp { values: v, .. } => v.truncate(len),
            Values::Float32(v) => v.truncate(len),
            Values::Float64(v) => v.truncate(len),
            Values::Decimal { values: v, .. } => v.truncate(len),
            Values::String(v) | Values::Bytes(v) => v.truncate(len),
            Values::Row { fields, owed, .. } => {
                // The fields hold the rows before the owed ones, and perhaps parts of one more.
                let paid = (self.len - *owed).min(len);
                fields.iter_mut().for_each(|field| field.truncate(paid));
                *owed = len - paid;
            }
            Values::Array { offsets, items } => {
                offsets.truncate(len + 1);
                items.truncate(offsets[len] as usize);
            }
            Values::Map { offsets, keys, values } => {
                offsets.truncate(len + 1);
                keys.truncate(offsets[len] as usize);
                values.truncate(offsets[len] as usize);
            }
        }
        self.len = len;
    }

    /// The array of what has been appended; the column is empty again and keeps room for as much.
    pub fn finish(&mut self) -> Result<ArrayRef> {
        let len = std::mem::take(&mut self.len);
        let nulls = match self.validity.len {
            0 => None,
            _ => Some(NullBuffer::new(self.validity.take())),
        };
        Ok(match &mut self.values {
            Values::Null => Arc::new(NullArray::new(len)),
            Values::Boolean(v) => Arc::new(BooleanArray::new(v.take(), nulls)),
            Values::Int8(v) => primitive::<Int8Type>(v, nulls),
            Values::Int16(v) => primitive::<Int16Type>(v, nulls),
            Values::Int32(v) => primitive::<Int32Type>(v, nulls),
            Values::Int64(v) => primitive::<Int64Type>(v, nulls),
            Values::Float32(v) => primitive::<Float32Type>(v, nulls),
            Values::Float64(v) => primitive::<Float64Type>(v, nulls),
            Values::Date(v) => primitive::<Date32Type>(v, nulls),
            Values::Time(v) => primitive::<Time32MillisecondType>(v, nulls),
            Values::Decimal { values, .. } => {
                Arc::new(take::<Decimal128Type>(values, nulls).with_data_type(self.ty.to_arrow()))
            }
            Values::Timestamp { values, unit } => {
                let ty = self.arrow.data_type().clone();
                match unit {
                    Unit::Milli => Arc::new(take::<TimestampMillisecondType>(values, nulls).with_data_type(ty)),
                    Unit::Micro => Arc::new(take::<TimestampMicrosecondType>(values, nulls).with_data_type(ty)),
                    Unit::Nano => Arc::new(take::<TimestampNanosecondType>(values, nulls).with_data_type(ty)),
                }
            }
            Values::String(v) => {
                let (offsets, bytes) = v.take();
                // SAFETY: every value appended to a String column has been checked to be UTF-8 by itself, and the
                // offsets are where values end; `OffsetBuffer::new` has checked that they grow.
                Arc::new(unsafe { StringArray::new_unchecked(offsets, bytes, nulls) })
            }
            Values::Bytes(v) => {
                let (offsets, bytes) = v.take();
                Arc::new(BinaryArray::new(offsets, bytes, nulls))
            }
            Values::Row { fields, owed, .. } => {
                let owed = std::mem::take(owed);
                let arrays = fields
                    .iter_mut()
                    .map(|field| {
                        field.nulls(owed);
                        field.finish()
                    })
                    .collect::<Result<Vec<_>>>()?;
                let Arrow::Struct(types) = self.arrow.data_type() else { unreachable!("a ROW is a struct") };
                let array = match arrays.is_empty() {
                    true => StructArray::new_empty_fields(len, nulls),
                    false => StructArray::try_new(types.clone(), arrays, nulls)
                        .internal(|| format!("column \"{}\"", self.name))?,
                };
                Arc::new(array)
            }
            Values::Array { offsets, items } => {
                let items = items.finish()?;
                let Arrow::List(item) = self.arrow.data_type() else { unreachable!("an ARRAY is a list") };
                Arc::new(
                    ListArray::try_new(item.clone(), take_offsets(offsets), items, nulls)
                        .internal(|| format!("column \"{}\"", self.name))?,
                )
            }
            Values::Map { offsets, keys, values } => {
                let (keys, values) = (keys.finish()?, values.finish()?);
                let Arrow::Map(entries, sorted) = self.arrow.data_type() else { unreachable!("a MAP is a map") };
                let Arrow::Struct(types) = entries.data_type() else { unreachable!("entries are structs") };
                let array = StructArray::try_new(types.clone(), vec![keys, values], None)
                    .and_then(|pairs| MapArray::try_new(entries.clone(), take_offsets(offsets), pairs, nulls, *sorted))
                    .internal(|| format!("column \"{}\"", self.name))?;
                Arc::new(array)
            }
        })
    }
}

fn take_offsets(offsets: &mut Vec<i32>) -> OffsetBuffer<i32> {
    let full = std::mem::replace(offsets, vec![0]);
    OffsetBuffer::new(ScalarBuffer::from(full))
}

fn take<T: ArrowPrimitiveType>(values: &mut Vec<T::Native>, nulls: Option<NullBuffer>) -> PrimitiveArray<T> {
    let room = values.capacity();
    let full = std::mem::replace(values, Vec::with_capacity(room));
    PrimitiveArray::new(ScalarBuffer::from(full), nulls)
}

fn primitive<T: ArrowPrimitiveType>(values: &mut Vec<T::Native>, nulls: Option<NullBuffer>) -> ArrayRef {
    Arc::new(take::<T>(values, nulls))
}
