//! `'connector' = 'datagen'`: rows made column by column. A value follows from the seed, the column's name and the row
//! number alone, but for those that are told from the clock (`DatagenField::Past`).

use super::generate::{Clock, Generator, Rows, below, random, unit};
use super::{Place, Source};
use crate::error::{Code, Context, Error, Result};
use arrow_array::builder::{BinaryBuilder, BooleanBuilder, StringBuilder};
use arrow_array::types::*;
use arrow_array::{
    ArrayRef, ArrowPrimitiveType, Date32Array, Decimal128Array, ListArray, MapArray, NullArray, PrimitiveArray,
    RecordBatch, RecordBatchOptions, StructArray, Time32MillisecondArray,
};
use arrow_buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
use arrow_schema::{DataType as Arrow, SchemaRef};
use ef_proto::connector::{Datagen, DatagenField};
use ef_proto::keys::hash_bytes;
use ef_proto::schema::{DataType, Field, Schema, Unit};
use std::ops::Range;
use std::sync::Arc;

/// Length of strings inside rows, arrays and maps.
const NESTED_TEXT: u32 = 100;
const MILLIS_PER_DAY: i64 = 86_400_000;

/// Opens one subtask; `clock` is the processing clock, ms since the epoch.
pub fn source(
    spec: &Datagen,
    physical: &Schema,
    place: &Place,
    blobs: &[Vec<u8>],
    clock: Clock,
) -> Result<Box<dyn Source>> {
    if spec.fields.len() != physical.len() {
        let what = format!("datagen `{}`: {} columns for {} fields", place.table, physical.len(), spec.fields.len());
        return Err(Error::new(Code::Internal, what));
    }
    let seed = hash_bytes(&spec.seed.to_le_bytes());
    let columns = physical.fields.iter().zip(&spec.fields);
    let columns = columns.map(|(field, made)| Column {
        name: field.name.clone(),
        ty: field.ty.clone(),
        seed: seed ^ hash_bytes(field.name.as_bytes()),
        made: made.clone(),
    });
    let rows = Table { columns: columns.collect(), arrow: physical.to_arrow() };
    Ok(Box::new(Generator::new(rows, spec.number_of_rows, spec.rows_per_second, place, blobs, clock)?))
}

struct Table {
    columns: Vec<Column>,
    arrow: SchemaRef,
}

struct Column {
    name: String,
    ty: DataType,
    seed: u64,
    made: DatagenField,
}

impl Rows for Table {
    fn make(&mut self, rows: Range<u64>, started_ms: i64, now_ms: i64) -> Result<RecordBatch> {
        let columns =
            self.columns.iter().map(|column| column.make(&rows, started_ms, now_ms)).collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some((rows.end - rows.start) as usize));
        RecordBatch::try_new_with_options(self.arrow.clone(), columns, &options).internal(|| "datagen batch".to_owned())
    }
}

impl Column {
    fn make(&self, rows: &Range<u64>, started_ms: i64, now_ms: i64) -> Result<ArrayRef> {
        let seed = self.seed;
        match &self.made {
            DatagenField::Integer { min, max, distinct, null_rate } => {
                let nulls = self.nulls(rows, *null_rate);
                // 0 stands for all 2^64 values.
                let range = (*max as i128 - *min as i128 + 1) as u64;
                let range = distinct.map_or(range, |n| if range == 0 { n } else { n.min(range) });
                let value = |row| match (random(seed, row), range) {
                    (bits, 0) => bits as i64,
                    (bits, range) => min.wrapping_add(below(bits, range) as i64),
                };
                self.integers(rows, nulls, value)
            }
            DatagenField::Float { min, max, distinct, null_rate } => {
                let nulls = self.nulls(rows, *null_rate);
                let value = |row| {
                    let share = match distinct {
                        Some(n) => below(random(seed, row), *n) as f64 / *n as f64,
                        None => unit(random(seed, row)),
                    };
                    // Not min + (max - min) * share: the whole range of a DOUBLE would overflow.
                    min * (1.0 - share) + max * share
                };
                self.floats(rows, nulls, value)
            }
            DatagenField::Text { length, distinct, null_rate } => {
                let nulls = self.nulls(rows, *null_rate);
                let value = |row| {
                    let bits = random(seed, row);
                    distinct.map_or(bits, |n| random(seed ^ 2, below(bits, n)))
                };
                self.texts(rows, nulls, *length, value)
            }
            DatagenField::Past { max_past_ms, null_rate } => {
                let nulls = self.nulls(rows, *null_rate);
                let back = |row| match max_past_ms {
                    0 => 0,
                    past => below(random(seed, row), past.saturating_add(1)) as i64,
                };
                self.times(rows, nulls, |row| (now_ms - back(row)) as i128 * 1_000)
            }
            DatagenField::EventTime { start_ms, step_us, disorder_ms } => {
                let start_us = start_ms.unwrap_or(started_ms) as i128 * 1_000;
                let late =
                    |row| if *disorder_ms == 0 { 0 } else { below(random(seed, row), disorder_ms.saturating_add(1)) };
                self.times(rows, None, |row| start_us + row as i128 * *step_us as i128 - late(row) as i128 * 1_000)
            }
            DatagenField::Sequence { start, .. } => {
                let value = |row: u64| start.wrapping_add(row as i64);
                match &self.ty {
                    DataType::Float32 | DataType::Float64 => self.floats(rows, None, |row| value(row) as f64),
                    DataType::Decimal { precision, scale } => {
                        let unit = 10i128.pow((*scale).max(0) as u32);
                        let values = rows.clone().map(|row| value(row) as i128 * unit);
                        decimal(values.collect(), None, *precision, *scale)
                    }
                    DataType::String => {
                        let mut builder = StringBuilder::new();
                        let mut digits = itoa::Buffer::new();
                        rows.clone().for_each(|row| builder.append_value(digits.format(value(row))));
                        Ok(Arc::new(builder.finish()))
                    }
                    _ => self.integers(rows, None, value),
                }
            }
            DatagenField::Any { length, null_rate } => {
                let numbers: Vec<u64> = rows.clone().collect();
                any(&self.ty, seed, &numbers, *length, now_ms, self.nulls(rows, *null_rate))
            }
        }
    }

    fn nulls(&self, rows: &Range<u64>, rate: f64) -> Option<NullBuffer> {
        (rate > 0.0).then(|| {
            let length = (rows.end - rows.start) as usize;
            let there = |i| unit(random(self.seed ^ 1, rows.start + i as u64)) >= rate;
            NullBuffer::new(BooleanBuffer::collect_bool(length, there))
        })
    }

    fn integers(&self, rows: &Range<u64>, nulls: Option<NullBuffer>, value: impl Fn(u64) -> i64) -> Result<ArrayRef> {
        Ok(match &self.ty {
            DataType::Int8 => primitive::<Int8Type>(rows, nulls, |row| value(row) as i8),
            DataType::Int16 => primitive::<Int16Type>(rows, nulls, |row| value(row) as i16),
            DataType::Int32 => primitive::<Int32Type>(rows, nulls, |row| value(row) as i32),
            DataType::Int64 => primitive::<Int64Type>(rows, nulls, value),
            _ => return Err(self.unfit()),
        })
    }

    fn floats(&self, rows: &Range<u64>, nulls: Option<NullBuffer>, value: impl Fn(u64) -> f64) -> Result<ArrayRef> {
        Ok(match &self.ty {
            DataType::Float32 => primitive::<Float32Type>(rows, nulls, |row| value(row) as f32),
            DataType::Float64 => primitive::<Float64Type>(rows, nulls, value),
            DataType::Decimal { precision, scale } => {
                let limit = 10i128.pow(*precision as u32) - 1;
                let unit = 10f64.powi(*scale as i32);
                let values = rows.clone().map(|row| ((value(row) * unit).round() as i128).clamp(-limit, limit));
                return decimal(values.collect(), nulls, *precision, *scale);
            }
            _ => return Err(self.unfit()),
        })
    }

    fn texts(
        &self,
        rows: &Range<u64>,
        nulls: Option<NullBuffer>,
        length: u32,
        value: impl Fn(u64) -> u64,
    ) -> Result<ArrayRef> {
        let bits: Vec<u64> = rows.clone().map(value).collect();
        match &self.ty {
            DataType::String => Ok(strings(&bits, length, nulls)),
            DataType::Bytes => Ok(binaries(&bits, length, nulls)),
            _ => Err(self.unfit()),
        }
    }

    /// From microseconds since the epoch.
    fn times(&self, rows: &Range<u64>, nulls: Option<NullBuffer>, micros: impl Fn(u64) -> i128) -> Result<ArrayRef> {
        times(&self.ty, rows.clone().map(micros), nulls).ok_or_else(|| self.unfit())
    }

    fn unfit(&self) -> Error {
        let what = format!("datagen cannot make column `{}` of type {} as the plan says", self.name, self.ty);
        Error::new(Code::Internal, what)
    }
}

fn primitive<T: ArrowPrimitiveType>(
    rows: &Range<u64>,
    nulls: Option<NullBuffer>,
    value: impl Fn(u64) -> T::Native,
) -> ArrayRef {
    let values: Vec<T::Native> = rows.clone().map(value).collect();
    Arc::new(PrimitiveArray::<T>::new(values.into(), nulls))
}

fn decimal(values: Vec<i128>, nulls: Option<NullBuffer>, precision: u8, scale: i8) -> Result<ArrayRef> {
    let array = Decimal128Array::new(values.into(), nulls).with_precision_and_scale(precision, scale);
    Ok(Arc::new(array.internal(|| "datagen decimal".to_owned())?))
}

/// None: the type is no time.
fn times(ty: &DataType, micros: impl Iterator<Item = i128>, nulls: Option<NullBuffer>) -> Option<ArrayRef> {
    fn stamps<T: ArrowTimestampType>(values: Vec<i64>, nulls: Option<NullBuffer>, zone: bool) -> ArrayRef {
        let array = PrimitiveArray::<T>::new(values.into(), nulls);
        Arc::new(if zone { array.with_timezone("UTC") } else { array })
    }
    let millis = |us: i128| us.div_euclid(1_000) as i64;
    Some(match ty {
        DataType::Date => {
            let days: Vec<i32> = micros.map(|us| millis(us).div_euclid(MILLIS_PER_DAY) as i32).collect();
            Arc::new(Date32Array::new(days.into(), nulls))
        }
        DataType::Time => {
            let of_day: Vec<i32> = micros.map(|us| millis(us).rem_euclid(MILLIS_PER_DAY) as i32).collect();
            Arc::new(Time32MillisecondArray::new(of_day.into(), nulls))
        }
        DataType::Timestamp(unit) | DataType::TimestampLtz(unit) => {
            let zone = matches!(ty, DataType::TimestampLtz(_));
            match unit {
                Unit::Milli => stamps::<TimestampMillisecondType>(micros.map(millis).collect(), nulls, zone),
                Unit::Micro => stamps::<TimestampMicrosecondType>(micros.map(|us| us as i64).collect(), nulls, zone),
                Unit::Nano => {
                    stamps::<TimestampNanosecondType>(micros.map(|us| (us * 1000) as i64).collect(), nulls, zone)
                }
            }
        }
        _ => return None,
    })
}

/// `length` hexadecimal digits from each value's bits.
fn strings(bits: &[u64], length: u32, nulls: Option<NullBuffer>) -> ArrayRef {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut builder = StringBuilder::with_capacity(bits.len(), bits.len() * length as usize);
    let mut text = String::with_capacity(length as usize);
    for (i, bits) in bits.iter().enumerate() {
        if nulls.as_ref().is_some_and(|nulls| nulls.is_null(i)) {
            builder.append_null();
            continue;
        }
        text.clear();
        for word in 0..length.div_ceil(16) {
            let word_bits = random(*bits, word as u64);
            let digits = (length - word * 16).min(16);
            text.extend((0..digits).map(|place| DIGITS[(word_bits >> (4 * place)) as usize & 15] as char));
        }
        builder.append_value(&text);
    }
    Arc::new(builder.finish())
}

fn binaries(bits: &[u64], length: u32, nulls: Option<NullBuffer>) -> ArrayRef {
    let mut builder = BinaryBuilder::new();
    let mut bytes = Vec::with_capacity(length as usize + 8);
    for (i, bits) in bits.iter().enumerate() {
        if nulls.as_ref().is_some_and(|nulls| nulls.is_null(i)) {
            builder.append_null();
            continue;
        }
        bytes.clear();
        (0..length.div_ceil(8)).for_each(|word| bytes.extend_from_slice(&random(*bits, word as u64).to_le_bytes()));
        builder.append_value(&bytes[..length as usize]);
    }
    Arc::new(builder.finish())
}

/// Values of any type over its whole range, one for each number.
fn any(
    ty: &DataType,
    seed: u64,
    numbers: &[u64],
    length: u32,
    now_ms: i64,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef> {
    fn ints<T: ArrowPrimitiveType>(
        seed: u64,
        numbers: &[u64],
        nulls: Option<NullBuffer>,
        value: impl Fn(u64) -> T::Native,
    ) -> ArrayRef {
        let values: Vec<T::Native> = numbers.iter().map(|number| value(random(seed, *number))).collect();
        Arc::new(PrimitiveArray::<T>::new(values.into(), nulls))
    }
    // The elements of number n are those from n * length on.
    let elements = || -> Vec<u64> {
        let length = length as u64;
        numbers.iter().flat_map(|n| (0..length).map(move |i| n.wrapping_mul(length).wrapping_add(i))).collect()
    };
    let offsets = || OffsetBuffer::from_lengths(std::iter::repeat_n(length as usize, numbers.len()));
    let bits = || -> Vec<u64> { numbers.iter().map(|number| random(seed, *number)).collect() };
    Ok(match ty {
        DataType::Null => Arc::new(NullArray::new(numbers.len())),
        DataType::Boolean => {
            let mut builder = BooleanBuilder::with_capacity(numbers.len());
            for (i, number) in numbers.iter().enumerate() {
                let there = nulls.as_ref().is_none_or(|nulls| nulls.is_valid(i));
                builder.append_option(there.then(|| random(seed, *number) & 1 == 1));
            }
            Arc::new(builder.finish())
        }
        DataType::Int8 => ints::<Int8Type>(seed, numbers, nulls, |bits| bits as i8),
        DataType::Int16 => ints::<Int16Type>(seed, numbers, nulls, |bits| bits as i16),
        DataType::Int32 => ints::<Int32Type>(seed, numbers, nulls, |bits| bits as i32),
        DataType::Int64 => ints::<Int64Type>(seed, numbers, nulls, |bits| bits as i64),
        DataType::Float32 => ints::<Float32Type>(seed, numbers, nulls, |bits| unit(bits) as f32),
        DataType::Float64 => ints::<Float64Type>(seed, numbers, nulls, unit),
        DataType::Decimal { precision, scale } => {
            let limit = 10i128.pow((*precision).min(18) as u32) as u64;
            let values = numbers.iter().map(|number| below(random(seed, *number), limit) as i128);
            decimal(values.collect(), nulls, *precision, *scale)?
        }
        DataType::String => strings(&bits(), NESTED_TEXT, nulls),
        DataType::Bytes => binaries(&bits(), NESTED_TEXT, nulls),
        DataType::Date | DataType::Time | DataType::Timestamp(_) | DataType::TimestampLtz(_) => {
            let micros = numbers.iter().map(|_| now_ms as i128 * 1_000);
            times(ty, micros, nulls).expect("these types are times")
        }
        DataType::Row(fields) => {
            let column =
                |field: &Field| any(&field.ty, seed ^ hash_bytes(field.name.as_bytes()), numbers, length, now_ms, None);
            let columns = fields.iter().map(column).collect::<Result<Vec<_>>>()?;
            let arrow = fields.iter().map(Field::to_arrow).collect();
            let row = StructArray::try_new_with_length(arrow, columns, nulls, numbers.len());
            Arc::new(row.internal(|| "datagen row".to_owned())?)
        }
        DataType::Array(item) => {
            let Arrow::List(field) = ty.to_arrow() else { unreachable!("an ARRAY is carried by a list") };
            let items = any(item, seed ^ 3, &elements(), length, now_ms, None)?;
            Arc::new(ListArray::try_new(field, offsets(), items, nulls).internal(|| "datagen array".to_owned())?)
        }
        DataType::Map(key, value) => {
            let Arrow::Map(field, sorted) = ty.to_arrow() else { unreachable!("a MAP is carried by a map") };
            let Arrow::Struct(kv) = field.data_type() else { unreachable!("a map's entries are a struct") };
            let elements = elements();
            let keys = any(key, seed ^ 4, &elements, length, now_ms, None)?;
            let values = any(value, seed ^ 5, &elements, length, now_ms, None)?;
            let entries = StructArray::try_new(kv.clone(), vec![keys, values], None);
            let entries = entries.internal(|| "datagen map entries".to_owned())?;
            let map = MapArray::try_new(field.clone(), offsets(), entries, nulls, sorted);
            Arc::new(map.internal(|| "datagen map".to_owned())?)
        }
        DataType::Interval => {
            return Err(Error::new(Code::Internal, "datagen cannot make a column of type INTERVAL"));
        }
    })
}

#[cfg(test)]
mod tests;
