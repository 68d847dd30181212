//! Keys in columns: their hashes (exactly those of `ef_proto::keys`, since state is laid out by them), their key
//! groups, and [`KeyTable`], which gives every distinct key a small dense number (its group) that accumulators are
//! indexed by. Equality is SQL's: NULL equals NULL, -0.0 equals 0.0, NaN equals NaN.
//!
//! Hashing and interning are a few nanoseconds a row: one loop per type, no allocation per row, prefetches when a
//! table is larger than the cache.

use crate::error::{Context, Error, Result};
use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, Float32Array, Float64Array, PrimitiveArray};
use arrow_row::{RowConverter, Rows, SortField};
use arrow_schema::{DataType as Arrow, TimeUnit};
use ef_proto::keys::{HASH_NULL, combine, float_bits, hash_bytes, hash_u64, key_group};
use ef_proto::schema::DataType;
use std::sync::Arc;

mod index;
use index::Index;

/// No group: the answer for a key that is not there.
pub const NO_GROUP: u32 = u32::MAX;

/// The hash of every row over `columns`, left to right; `out` is overwritten. Without columns `out` is left empty:
/// the caller knows that there is one group.
pub fn hash_rows(columns: &[ArrayRef], out: &mut Vec<u64>) -> Result<()> {
    out.clear();
    for (i, column) in columns.iter().enumerate() {
        hash_column(column, i == 0, out)?;
    }
    Ok(())
}

/// The key group of every hash; `out` is overwritten.
pub fn key_groups(hashes: &[u64], max_parallelism: u16, out: &mut Vec<u16>) {
    out.clear();
    out.extend(hashes.iter().map(|hash| key_group(*hash, max_parallelism)));
}

/// Appends the hashes of one column, or folds them into those of the columns before it.
fn fold_hashes(
    nulls: Option<&arrow_buffer::NullBuffer>,
    rows: usize,
    first: bool,
    out: &mut Vec<u64>,
    hash: impl Fn(usize) -> u64,
) {
    match (nulls, first) {
        (None, true) => out.extend((0..rows).map(hash)),
        (None, false) => out.iter_mut().enumerate().for_each(|(i, h)| *h = combine(*h, hash(i))),
        (Some(nulls), true) => out.extend((0..rows).map(|i| if nulls.is_null(i) { HASH_NULL } else { hash(i) })),
        (Some(nulls), false) => out
            .iter_mut()
            .enumerate()
            .for_each(|(i, h)| *h = combine(*h, if nulls.is_null(i) { HASH_NULL } else { hash(i) })),
    }
}

fn hash_column(column: &ArrayRef, first: bool, out: &mut Vec<u64>) -> Result<()> {
    fn ints<T: ArrowPrimitiveType>(column: &ArrayRef, first: bool, out: &mut Vec<u64>)
    where
        T::Native: Into<i64>,
    {
        let values = column.as_primitive::<T>().values();
        fold_hashes(column.nulls(), column.len(), first, out, |i| hash_u64(values[i].into() as u64));
    }
    let (nulls, rows) = (column.nulls(), column.len());
    match column.data_type() {
        Arrow::Int64 => ints::<Int64Type>(column, first, out),
        Arrow::Int32 => ints::<Int32Type>(column, first, out),
        Arrow::Int16 => ints::<Int16Type>(column, first, out),
        Arrow::Int8 => ints::<Int8Type>(column, first, out),
        Arrow::Date32 => ints::<Date32Type>(column, first, out),
        Arrow::Time32(TimeUnit::Millisecond) => ints::<Time32MillisecondType>(column, first, out),
        Arrow::Timestamp(TimeUnit::Millisecond, _) => ints::<TimestampMillisecondType>(column, first, out),
        Arrow::Timestamp(TimeUnit::Microsecond, _) => ints::<TimestampMicrosecondType>(column, first, out),
        Arrow::Timestamp(TimeUnit::Nanosecond, _) => ints::<TimestampNanosecondType>(column, first, out),
        Arrow::Boolean => {
            let values = column.as_boolean().values();
            fold_hashes(nulls, rows, first, out, |i| hash_u64(u64::from(values.value(i))));
        }
        Arrow::Float64 => {
            let values = column.as_primitive::<Float64Type>().values();
            fold_hashes(nulls, rows, first, out, |i| hash_u64(float_bits(values[i])));
        }
        Arrow::Float32 => {
            let values = column.as_primitive::<Float32Type>().values();
            fold_hashes(nulls, rows, first, out, |i| hash_u64(float_bits(f64::from(values[i]))));
        }
        Arrow::Decimal128(..) => {
            let values = column.as_primitive::<Decimal128Type>().values();
            fold_hashes(nulls, rows, first, out, |i| hash_bytes(&values[i].to_le_bytes()));
        }
        Arrow::Utf8 => {
            let array = column.as_string::<i32>();
            let (offsets, data) = (array.value_offsets(), array.value_data());
            fold_hashes(nulls, rows, first, out, |i| hash_bytes(&data[offsets[i] as usize..offsets[i + 1] as usize]));
        }
        Arrow::Binary => {
            let array = column.as_binary::<i32>();
            let (offsets, data) = (array.value_offsets(), array.value_data());
            fold_hashes(nulls, rows, first, out, |i| hash_bytes(&data[offsets[i] as usize..offsets[i + 1] as usize]));
        }
        Arrow::Null => fold_hashes(None, rows, first, out, |_| HASH_NULL),
        // ROW, ARRAY and MAP: the hash of their row encoding.
        other => {
            let rows_of = RowConverter::new(vec![SortField::new(other.clone())])
                .and_then(|converter| converter.convert_columns(std::slice::from_ref(column)))
                .invalid(|| format!("a column of type {other} cannot be a key"))?;
            fold_hashes(nulls, rows, first, out, |i| hash_bytes(rows_of.row(i).as_ref()));
        }
    }
    Ok(())
}

/// Interns keys: distinct key → group, dense from 0; groups of removed keys are used again.
pub struct KeyTable {
    types: Vec<DataType>,
    index: Index,
    keys: Keys,
    /// Groups of removed keys, to be given out again.
    free: Vec<u32>,
    /// Groups ever given out: every group is below this.
    bound: u32,
    /// (group, row) of the keys that the last `intern` made.
    fresh: Vec<(u32, u32)>,
}

/// The keys by group.
enum Keys {
    /// No key columns: one group.
    None,
    /// One column of a type that fits an i64; NULL is `null`.
    Int { values: Vec<i64>, null: u32, wide: Vec<i64> },
    /// One STRING or BYTES column; NULL is `null`.
    Bytes { arena: Arena, null: u32 },
    /// Anything else, in Arrow's row format.
    Rows { arena: Arena, converter: Arc<RowConverter>, rows: Rows, hashes: Vec<u64> },
}

/// Byte strings by group. Removed ones leave garbage until it is more than half.
#[derive(Default)]
struct Arena {
    bytes: Vec<u8>,
    spans: Vec<(u32, u32)>,
    garbage: usize,
}

/// Equality of byte strings. Short ones, as keys are, by two loads that may overlap: a call costs more.
#[inline(always)]
fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    fn words<const N: usize>(bytes: &[u8]) -> Option<(&[u8; N], &[u8; N])> {
        Some((bytes.first_chunk()?, bytes.last_chunk()?))
    }
    match a.len() {
        len if len != b.len() => false,
        4..=8 => words::<4>(a) == words::<4>(b),
        9..=16 => words::<8>(a) == words::<8>(b),
        _ => a == b,
    }
}

/// Length of a removed span.
const DEAD: u32 = u32::MAX;

impl Arena {
    #[inline(always)]
    fn get(&self, group: u32) -> &[u8] {
        let (start, len) = self.spans[group as usize];
        &self.bytes[start as usize..start as usize + len as usize]
    }

    fn set(&mut self, group: u32, bytes: &[u8]) -> Result<()> {
        if self.garbage > 4096 && self.garbage * 2 > self.bytes.len() {
            self.compact();
        }
        let start = u32::try_from(self.bytes.len())
            .ok()
            .filter(|start| start.checked_add(bytes.len() as u32).is_some())
            .ok_or_else(|| {
                Error::invalid(
                    "the keys of one subtask are over 4 GiB: use more parallelism or the rocksdb state backend",
                )
            })?;
        self.bytes.extend_from_slice(bytes);
        if self.spans.len() <= group as usize {
            self.spans.resize(group as usize + 1, (0, DEAD));
        }
        self.spans[group as usize] = (start, bytes.len() as u32);
        Ok(())
    }

    fn remove(&mut self, group: u32) {
        let span = &mut self.spans[group as usize];
        self.garbage += span.1 as usize;
        *span = (0, DEAD);
    }

    fn compact(&mut self) {
        let mut bytes = Vec::with_capacity(self.bytes.len());
        for span in self.spans.iter_mut().filter(|span| span.1 != DEAD) {
            let start = bytes.len() as u32;
            bytes.extend_from_slice(&self.bytes[span.0 as usize..span.0 as usize + span.1 as usize]);
            span.0 = start;
        }
        self.bytes = bytes;
        self.garbage = 0;
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.spans.clear();
        self.garbage = 0;
    }

    fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.spans.capacity() * 8
    }
}

fn fits_i64(ty: &DataType) -> bool {
    matches!(
        ty,
        DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Date
            | DataType::Time
            | DataType::Timestamp(_)
            | DataType::TimestampLtz(_)
    )
}

impl KeyTable {
    /// A table for keys of these column types.
    pub fn new(types: &[DataType]) -> Result<KeyTable> {
        let keys = match types {
            [] => Keys::None,
            [ty] if fits_i64(ty) => Keys::Int { values: Vec::new(), null: NO_GROUP, wide: Vec::new() },
            [DataType::String | DataType::Bytes] => Keys::Bytes { arena: Arena::default(), null: NO_GROUP },
            _ => {
                let fields = types.iter().map(|ty| SortField::new(ty.to_arrow())).collect();
                let converter = RowConverter::new(fields).invalid(|| "these columns cannot be a key".into())?;
                let rows = converter.empty_rows(0, 0);
                Keys::Rows { arena: Arena::default(), converter: Arc::new(converter), rows, hashes: Vec::new() }
            }
        };
        Ok(KeyTable {
            types: types.to_vec(),
            index: Index::default(),
            keys,
            free: Vec::new(),
            bound: 0,
            fresh: Vec::new(),
        })
    }

    /// Keys in the table.
    pub fn len(&self) -> usize {
        self.bound as usize - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every group is below this; accumulators are resized to it.
    pub fn bound(&self) -> usize {
        self.bound as usize
    }

    /// (group, row) of the keys that the last call of [`KeyTable::intern`] made.
    pub fn fresh(&self) -> &[(u32, u32)] {
        &self.fresh
    }

    /// The groups of the keys in `columns` (`rows` of them: all, or the given ones in order), made where they are
    /// new. `hashes` are those of all rows of the columns; `groups` is overwritten.
    pub fn intern(
        &mut self,
        columns: &[ArrayRef],
        hashes: &[u64],
        rows: Selection<'_>,
        groups: &mut Vec<u32>,
    ) -> Result<()> {
        groups.clear();
        self.fresh.clear();
        let KeyTable { index, keys, free, bound, fresh, .. } = self;
        let vacant = *bound == 0 || !free.is_empty();
        let mut allot = |row: usize| {
            let group = free.pop().unwrap_or_else(|| {
                *bound += 1;
                *bound - 1
            });
            fresh.push((group, row as u32));
            group
        };
        match keys {
            Keys::None => {
                // The one group there is without keys; the first one that was ever allotted.
                if vacant && !rows.is_empty() {
                    allot(0);
                }
                groups.resize(rows.len(), 0);
            }
            Keys::Int { values, null, wide } => {
                let column = &columns[0];
                let input = as_i64(column, wide);
                let nulls = column.nulls().filter(|nulls| nulls.null_count() > 0);
                let big = index.big();
                let n = rows.len();
                rows.each(|i, row| {
                    if big && i + AHEAD < n {
                        index.prefetch(hashes[rows.at(i + AHEAD)]);
                        if let Some(group) = index.peek(hashes[rows.at(i + AHEAD / 2)]) {
                            prefetch(values.as_ptr().wrapping_add(group as usize));
                        }
                    }
                    if nulls.is_some_and(|nulls| nulls.is_null(row)) {
                        if *null == NO_GROUP {
                            *null = allot(row);
                            if values.len() <= *null as usize {
                                values.resize(*null as usize + 1, 0);
                            }
                        }
                        groups.push(*null);
                        return Ok(());
                    }
                    let value = input[row];
                    let not_null = *null;
                    let group =
                        match index.find(hashes[row], |group| values[group as usize] == value && group != not_null) {
                            Some(group) => group,
                            None => {
                                let group = allot(row);
                                if values.len() <= group as usize {
                                    values.push(value);
                                } else {
                                    values[group as usize] = value;
                                }
                                index.insert(hashes[row], group);
                                group
                            }
                        };
                    groups.push(group);
                    Ok(())
                })?;
            }
            Keys::Bytes { arena, null } => {
                let column = &columns[0];
                let (offsets, data) = bytes_of(column)?;
                let nulls = column.nulls().filter(|nulls| nulls.null_count() > 0);
                let big = index.big();
                let n = rows.len();
                rows.each(|i, row| {
                    if big && i + AHEAD < n {
                        index.prefetch(hashes[rows.at(i + AHEAD)]);
                    }
                    if nulls.is_some_and(|nulls| nulls.is_null(row)) {
                        if *null == NO_GROUP {
                            *null = allot(row);
                            arena.set(*null, &[])?;
                        }
                        groups.push(*null);
                        return Ok(());
                    }
                    let value = &data[offsets[row] as usize..offsets[row + 1] as usize];
                    let group = match index.find(hashes[row], |group| same_bytes(arena.get(group), value)) {
                        Some(group) => group,
                        None => {
                            let group = allot(row);
                            arena.set(group, value)?;
                            index.insert(hashes[row], group);
                            group
                        }
                    };
                    groups.push(group);
                    Ok(())
                })?;
            }
            Keys::Rows { arena, converter, rows: encoded, hashes: stored } => {
                encoded.clear();
                let columns: Vec<ArrayRef> = columns.iter().map(normal_floats).collect();
                converter.append(encoded, &columns).invalid(|| "these columns cannot be a key".into())?;
                rows.each(|_, row| {
                    let value = encoded.row(row);
                    let value: &[u8] = value.as_ref();
                    let group = match index.find(hashes[row], |group| same_bytes(arena.get(group), value)) {
                        Some(group) => group,
                        None => {
                            let group = allot(row);
                            arena.set(group, value)?;
                            if stored.len() <= group as usize {
                                stored.resize(group as usize + 1, 0);
                            }
                            stored[group as usize] = hashes[row];
                            index.insert(hashes[row], group);
                            group
                        }
                    };
                    groups.push(group);
                    Ok(())
                })?;
            }
        }
        Ok(())
    }

    /// The hash of a group's key.
    pub fn hash_of(&self, group: u32) -> u64 {
        match &self.keys {
            Keys::None => 0,
            Keys::Int { null, .. } | Keys::Bytes { null, .. } if *null == group => HASH_NULL,
            Keys::Int { values, .. } => hash_u64(values[group as usize] as u64),
            Keys::Bytes { arena, .. } => hash_bytes(arena.get(group)),
            Keys::Rows { hashes, .. } => hashes[group as usize],
        }
    }

    /// Takes the key of `group` out; the group will be given to another key.
    pub fn remove(&mut self, group: u32) {
        let hash = self.hash_of(group);
        match &mut self.keys {
            Keys::None => {}
            Keys::Int { null, .. } if *null == group => *null = NO_GROUP,
            Keys::Bytes { null, arena } if *null == group => {
                *null = NO_GROUP;
                arena.remove(group);
            }
            Keys::Int { .. } => self.index.remove(hash, group),
            Keys::Bytes { arena, .. } | Keys::Rows { arena, .. } => {
                self.index.remove(hash, group);
                arena.remove(group);
            }
        }
        self.free.push(group);
    }

    /// Forgets all keys; keeps the memory for the next ones.
    pub fn clear(&mut self) {
        self.index.clear();
        self.free.clear();
        self.fresh.clear();
        self.bound = 0;
        match &mut self.keys {
            Keys::None => {}
            Keys::Int { values, null, .. } => {
                values.clear();
                *null = NO_GROUP;
            }
            Keys::Bytes { arena, null } => {
                arena.clear();
                *null = NO_GROUP;
            }
            Keys::Rows { arena, hashes, .. } => {
                arena.clear();
                hashes.clear();
            }
        }
    }

    /// The keys of these groups as columns again, in their order.
    pub fn export(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        match &self.keys {
            Keys::None => Ok(Vec::new()),
            Keys::Int { values, null, .. } => {
                let values = groups.iter().map(|group| values[*group as usize]).collect();
                let nulls =
                    groups.contains(null).then(|| groups.iter().map(|group| group != null).collect::<Vec<bool>>());
                Ok(vec![from_i64(&self.types[0], values, nulls)?])
            }
            Keys::Bytes { arena, null } => {
                let bytes = |group: &u32| (group != null).then(|| arena.get(*group));
                Ok(vec![bytes_array(&self.types[0], groups.iter().map(bytes))?])
            }
            Keys::Rows { arena, converter, .. } => {
                let parser = converter.parser();
                converter
                    .convert_rows(groups.iter().map(|group| parser.parse(arena.get(*group))))
                    .internal(|| "a key does not decode".into())
            }
        }
    }

    /// Appends the key of `group` as bytes for the store: distinct keys have distinct bytes.
    pub fn encode(&self, group: u32, out: &mut Vec<u8>) {
        match &self.keys {
            Keys::None => {}
            Keys::Int { null, .. } | Keys::Bytes { null, .. } if *null == group => out.push(0),
            Keys::Int { values, .. } => {
                out.push(1);
                out.extend_from_slice(&((values[group as usize] as u64) ^ (1 << 63)).to_be_bytes());
            }
            Keys::Bytes { arena, .. } => {
                out.push(1);
                out.extend_from_slice(arena.get(group));
            }
            Keys::Rows { arena, .. } => out.extend_from_slice(arena.get(group)),
        }
    }

    /// The groups of keys as [`KeyTable::encode`] wrote them, made where they are new; `hashes` is overwritten.
    pub fn intern_encoded(&mut self, keys: &[&[u8]], hashes: &mut Vec<u64>) -> Result<Vec<u32>> {
        let columns = self.decode(keys)?;
        hash_rows(&columns, hashes)?;
        let mut groups = Vec::new();
        self.intern(&columns, hashes, Selection::All(keys.len()), &mut groups)?;
        Ok(groups)
    }

    /// Keys as [`KeyTable::encode`] wrote them, as columns.
    pub fn decode(&self, keys: &[&[u8]]) -> Result<Vec<ArrayRef>> {
        let broken = || Error::corrupt("a key in the state does not decode");
        match &self.keys {
            Keys::None => Ok(Vec::new()),
            Keys::Int { .. } => {
                let mut values = Vec::with_capacity(keys.len());
                let mut valid = Vec::with_capacity(keys.len());
                for key in keys {
                    match key {
                        [0] => values.push(0),
                        [1, rest @ ..] => {
                            let bytes: [u8; 8] = (*rest).try_into().map_err(|_| broken())?;
                            values.push((u64::from_be_bytes(bytes) ^ (1 << 63)) as i64);
                        }
                        _ => return Err(broken()),
                    }
                    valid.push(key[0] == 1);
                }
                Ok(vec![from_i64(&self.types[0], values, Some(valid))?])
            }
            Keys::Bytes { .. } => {
                if keys.iter().any(|key| !matches!(key, [0] | [1, ..])) {
                    return Err(broken());
                }
                if self.types[0] == DataType::String && keys.iter().any(|key| std::str::from_utf8(&key[1..]).is_err()) {
                    return Err(broken());
                }
                Ok(vec![bytes_array(&self.types[0], keys.iter().map(|key| (key[0] == 1).then(|| &key[1..])))?])
            }
            Keys::Rows { converter, .. } => {
                let parser = converter.parser();
                converter
                    .convert_rows(keys.iter().map(|key| parser.parse(key)))
                    .corrupt(|| "a key in the state does not decode".into())
            }
        }
    }

    pub fn memory_bytes(&self) -> usize {
        let keys = match &self.keys {
            Keys::None => 0,
            Keys::Int { values, wide, .. } => (values.capacity() + wide.capacity()) * 8,
            Keys::Bytes { arena, .. } => arena.memory_bytes(),
            Keys::Rows { arena, rows, hashes, .. } => arena.memory_bytes() + rows.size() + hashes.capacity() * 8,
        };
        keys + self.index.memory_bytes() + (self.free.capacity() + self.fresh.capacity() * 2) * 4
    }
}

/// Rows of a batch: all, or some in a given order.
#[derive(Clone, Copy)]
pub enum Selection<'a> {
    All(usize),
    Some(&'a [u32]),
}

impl Selection<'_> {
    #[inline]
    pub fn len(&self) -> usize {
        match self {
            Selection::All(n) => *n,
            Selection::Some(rows) => rows.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline(always)]
    pub fn at(&self, i: usize) -> usize {
        match self {
            Selection::All(_) => i,
            Selection::Some(rows) => rows[i] as usize,
        }
    }

    #[inline(always)]
    fn each(&self, mut visit: impl FnMut(usize, usize) -> Result<()>) -> Result<()> {
        match self {
            Selection::All(n) => (0..*n).try_for_each(|i| visit(i, i)),
            Selection::Some(rows) => rows.iter().enumerate().try_for_each(|(i, row)| visit(i, *row as usize)),
        }
    }
}

/// Rows between a prefetch and its use.
const AHEAD: usize = 24;

/// Asks for the cache line at `pointer`, which may be any address.
#[inline(always)]
pub(crate) fn prefetch<T>(pointer: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint and never faults.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(pointer.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = pointer;
}

/// The values of an integer-like column as i64: in place when they are 64 bits wide, else through `wide`.
pub(crate) fn as_i64<'a>(column: &'a ArrayRef, wide: &'a mut Vec<i64>) -> &'a [i64] {
    fn widen<'a, T: ArrowPrimitiveType>(column: &ArrayRef, wide: &'a mut Vec<i64>) -> &'a [i64]
    where
        T::Native: Into<i64>,
    {
        wide.clear();
        wide.extend(column.as_primitive::<T>().values().iter().map(|value| (*value).into()));
        wide
    }
    match column.data_type() {
        Arrow::Int64 => column.as_primitive::<Int64Type>().values(),
        Arrow::Timestamp(TimeUnit::Millisecond, _) => column.as_primitive::<TimestampMillisecondType>().values(),
        Arrow::Timestamp(TimeUnit::Microsecond, _) => column.as_primitive::<TimestampMicrosecondType>().values(),
        Arrow::Timestamp(TimeUnit::Nanosecond, _) => column.as_primitive::<TimestampNanosecondType>().values(),
        Arrow::Int32 => widen::<Int32Type>(column, wide),
        Arrow::Int16 => widen::<Int16Type>(column, wide),
        Arrow::Int8 => widen::<Int8Type>(column, wide),
        Arrow::Date32 => widen::<Date32Type>(column, wide),
        Arrow::Time32(TimeUnit::Millisecond) => widen::<Time32MillisecondType>(column, wide),
        other => unreachable!("the planner gave a column of type {other} where an integer-like one belongs"),
    }
}

/// A column of an integer-like type from i64 values; `valid` false is NULL.
pub(crate) fn from_i64(ty: &DataType, values: Vec<i64>, valid: Option<Vec<bool>>) -> Result<ArrayRef> {
    fn narrow<T: ArrowPrimitiveType>(values: Vec<i64>, nulls: Option<arrow_buffer::NullBuffer>) -> Result<ArrayRef>
    where
        T::Native: TryFrom<i64> + Default,
    {
        // NULL slots hold anything; real values came from a column of this type.
        let values: Vec<T::Native> = values.into_iter().map(|v| T::Native::try_from(v).unwrap_or_default()).collect();
        Ok(Arc::new(PrimitiveArray::<T>::new(values.into(), nulls)))
    }
    let nulls = valid.map(arrow_buffer::NullBuffer::from).filter(|nulls| nulls.null_count() > 0);
    let arrow = ty.to_arrow();
    let array: ArrayRef = match &arrow {
        Arrow::Int64 => return narrow::<Int64Type>(values, nulls),
        Arrow::Int32 => return narrow::<Int32Type>(values, nulls),
        Arrow::Int16 => return narrow::<Int16Type>(values, nulls),
        Arrow::Int8 => return narrow::<Int8Type>(values, nulls),
        Arrow::Date32 => return narrow::<Date32Type>(values, nulls),
        Arrow::Time32(_) => return narrow::<Time32MillisecondType>(values, nulls),
        Arrow::Timestamp(TimeUnit::Millisecond, _) => Arc::new(
            PrimitiveArray::<TimestampMillisecondType>::new(values.into(), nulls).with_data_type(arrow.clone()),
        ),
        Arrow::Timestamp(TimeUnit::Microsecond, _) => Arc::new(
            PrimitiveArray::<TimestampMicrosecondType>::new(values.into(), nulls).with_data_type(arrow.clone()),
        ),
        Arrow::Timestamp(TimeUnit::Nanosecond, _) => {
            Arc::new(PrimitiveArray::<TimestampNanosecondType>::new(values.into(), nulls).with_data_type(arrow.clone()))
        }
        other => {
            return Err(Error::new(crate::error::Code::Internal, format!("no integers in a column of type {other}")));
        }
    };
    Ok(array)
}

fn bytes_of(column: &ArrayRef) -> Result<(&[i32], &[u8])> {
    match column.data_type() {
        Arrow::Utf8 => Ok((column.as_string::<i32>().value_offsets(), column.as_string::<i32>().value_data())),
        Arrow::Binary => Ok((column.as_binary::<i32>().value_offsets(), column.as_binary::<i32>().value_data())),
        other => Err(Error::new(
            crate::error::Code::Internal,
            format!("key column of type {other} where STRING or BYTES was planned"),
        )),
    }
}

/// A STRING or BYTES column.
fn bytes_array<'a>(ty: &DataType, values: impl Iterator<Item = Option<&'a [u8]>> + Clone) -> Result<ArrayRef> {
    let (mut bytes, mut offsets, mut valid) = (Vec::new(), vec![0i32], Vec::new());
    for value in values {
        valid.push(value.is_some());
        bytes.extend_from_slice(value.unwrap_or_default());
        offsets.push(i32::try_from(bytes.len()).map_err(|_| Error::invalid("one batch of keys is over 2 GiB"))?);
    }
    let nulls = Some(arrow_buffer::NullBuffer::from(valid)).filter(|nulls| nulls.null_count() > 0);
    let offsets = arrow_buffer::OffsetBuffer::new(offsets.into());
    if *ty == DataType::Bytes {
        return Ok(Arc::new(arrow_array::BinaryArray::new(offsets, bytes.into(), nulls)));
    }
    // SAFETY: the bytes came out of STRING columns value by value, or were checked by `decode`.
    Ok(Arc::new(unsafe { arrow_array::StringArray::new_unchecked(offsets, bytes.into(), nulls) }))
}

/// Floats with -0.0 and NaN in their one form; other columns as they are.
fn normal_floats(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        Arrow::Float64 => {
            let array: &Float64Array = column.as_primitive();
            Arc::new(array.unary::<_, Float64Type>(|value| f64::from_bits(float_bits(value))))
        }
        Arrow::Float32 => {
            let array: &Float32Array = column.as_primitive();
            Arc::new(array.unary::<_, Float32Type>(|value| {
                if value.is_nan() {
                    f32::NAN
                } else if value == 0.0 {
                    0.0
                } else {
                    value
                }
            }))
        }
        _ => column.clone(),
    }
}

#[cfg(test)]
mod tests;
