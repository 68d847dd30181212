//! The aggregate functions as kinds of accumulator: what a group keeps (a [`State`]), how rows change it, what
//! comes out. Each kind's `update` is one loop over a batch, specialised by type.

use super::Rows;
use super::lane::{Lane, take};
use super::numbers::{Cell, Count, Extreme, Moments, Powers, State, Sum, too_large};
use crate::error::{Code, Error, Result};
use crate::keys::{as_i64, from_i64};
use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, Float32Type, Float64Type};
use arrow_array::{Array, ArrayRef, Float32Array, Float64Array, Int64Array};
use arrow_schema::DataType as Arrow;
use ef_proto::plan::{Aggregate, AggregateFunction as F};
use ef_proto::schema::DataType;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

/// One way to aggregate.
pub trait Kind: Send + 'static {
    type Cell: State + 'static;

    /// Takes in the rows; answers with the heap bytes added, less those that went: the change of the sum of
    /// [`State::heap_bytes`] over the cells.
    fn update(&self, cells: &mut [Self::Cell], arg: Option<&ArrayRef>, rows: &Rows<'_>) -> Result<isize>;
    fn finish(&self, cells: &mut dyn Iterator<Item = &Self::Cell>) -> Result<ArrayRef>;

    /// The state columns of the plan ([`Aggregate::state_types`]).
    fn states(&self, _cells: &mut dyn Iterator<Item = &Self::Cell>) -> Result<Vec<ArrayRef>> {
        Err(Error::new(Code::Internal, "this aggregate has no partial result: the planner must use a single phase"))
    }

    fn cells(&self, _states: &[ArrayRef]) -> Result<Vec<Self::Cell>> {
        Err(Error::new(Code::Internal, "this aggregate has no partial result: the planner must use a single phase"))
    }
}

/// COUNT.
pub struct Counts;

impl Kind for Counts {
    type Cell = Count;

    fn update(&self, cells: &mut [Count], _arg: Option<&ArrayRef>, rows: &Rows<'_>) -> Result<isize> {
        match rows.signs {
            None => rows.each(cells, |cell, _| {
                cell.n += 1;
                Ok(())
            })?,
            Some(signs) => rows.each(cells, |cell, i| {
                cell.n += i64::from(signs[i]);
                Ok(())
            })?,
        }
        Ok(0)
    }

    fn finish(&self, cells: &mut dyn Iterator<Item = &Count>) -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from_iter_values(cells.map(|cell| cell.n))))
    }

    fn states(&self, cells: &mut dyn Iterator<Item = &Count>) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.finish(cells)?])
    }

    fn cells(&self, states: &[ArrayRef]) -> Result<Vec<Count>> {
        Ok(ints(&states[0])?.values().iter().map(|n| Count { n: *n }).collect())
    }
}

/// SUM and AVG; the type parameter is the sum's.
pub struct Sums<S> {
    pub of: Aggregate,
    pub sum: std::marker::PhantomData<S>,
}

impl<S> Sums<S> {
    fn avg(&self) -> bool {
        self.of.function == F::Avg
    }

    fn sum_type(&self) -> DataType {
        self.of.state_types().into_iter().next().unwrap_or(DataType::Null)
    }

    /// How many values each partial sum stands for; SUM only says whether there was one.
    fn counts(&self, states: &[ArrayRef]) -> Result<Vec<i64>> {
        if self.avg() {
            return Ok(ints(&states[1])?.values().to_vec());
        }
        Ok((0..states[0].len()).map(|i| i64::from(states[0].is_valid(i))).collect())
    }
}

fn counts_array<'a, S: 'a>(cells: impl Iterator<Item = &'a Sum<S>>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(cells.map(|cell| cell.n)))
}

impl Kind for Sums<i64> {
    type Cell = Sum<i64>;

    fn update(&self, cells: &mut [Sum<i64>], arg: Option<&ArrayRef>, rows: &Rows<'_>) -> Result<isize> {
        let mut wide = Vec::new();
        let values = as_i64(needed(arg)?, &mut wide);
        rows.fold(cells, |i| values[i])
    }

    fn finish(&self, cells: &mut dyn Iterator<Item = &Sum<i64>>) -> Result<ArrayRef> {
        if !self.avg() {
            return wrapped(&self.of.ty, cells.map(|cell| (cell.n != 0).then_some(cell.sum)));
        }
        match &self.of.ty {
            DataType::Float32 | DataType::Float64 | DataType::Decimal { .. } => {
                doubles(&self.of.ty, cells.map(|cell| (cell.n != 0).then(|| cell.sum as f64 / cell.n as f64)))
            }
            ty => wrapped(ty, cells.map(|cell| (cell.n != 0).then(|| cell.sum.wrapping_div(cell.n)))),
        }
    }

    fn states(&self, cells: &mut dyn Iterator<Item = &Sum<i64>>) -> Result<Vec<ArrayRef>> {
        let cells: Vec<&Sum<i64>> = cells.collect();
        let sums = wrapped(&self.sum_type(), cells.iter().map(|cell| (self.avg() || cell.n != 0).then_some(cell.sum)))?;
        Ok(if self.avg() { vec![sums, counts_array(cells.into_iter())] } else { vec![sums] })
    }

    fn cells(&self, states: &[ArrayRef]) -> Result<Vec<Sum<i64>>> {
        let counts = self.counts(states)?;
        let mut wide = Vec::new();
        let sums = as_i64(&states[0], &mut wide);
        Ok(counts.into_iter().zip(sums).map(|(n, sum)| Sum { sum: if n == 0 { 0 } else { *sum }, n }).collect())
    }
}

impl Kind for Sums<f64> {
    type Cell = Sum<f64>;

    fn update(&self, cells: &mut [Sum<f64>], arg: Option<&ArrayRef>, rows: &Rows<'_>) -> Result<isize> {
        let mut wide = Vec::new();
        let values = as_f64(needed(arg)?, &mut wide)?;
        rows.fold(cells, |i| values[i])
    }

    fn finish(&self, cells: &mut dyn Iterator<Item = &Sum<f64>>) -> Result<ArrayRef> {
        let avg = self.avg();
        doubles(
            &self.of.ty,
            cells.map(|cell| (cell.n != 0).then(|| if avg { cell.sum / cell.n as f64 } else { cell.sum })),
        )
    }

    fn states(&self, cells: &mut dyn Iterator<Item = &Sum<f64>>) -> Result<Vec<ArrayRef>> {
        let cells: Vec<&Sum<f64>> = cells.collect();
        let sums = doubles(&self.sum_type(), cells.iter().map(|cell| (self.avg() || cell.n != 0).then_some(cell.sum)))?;
        Ok(if self.avg() { vec![sums, counts_array(cells.into_iter())] } else { vec![sums] })
    }

    fn cells(&self, states: &[ArrayRef]) -> Result<Vec<Sum<f64>>> {
        let counts = self.counts(states)?;
        let mut wide = Vec::new();
        let sums = as_f64(&states[0], &mut wide)?;
        Ok(counts.into_iter().zip(sums).map(|(n, sum)| Sum { sum: if n == 0 { 0.0 } else { *sum }, n }).collect())
    }
}

impl Kind for Sums<i128> {
    type Cell = Sum<i128>;

    fn update(&self, cells: &mut [Sum<i128>], arg: Option<&ArrayRef>, rows: &Rows<'_>) -> Result<isize> {
        let array = decimals(needed(arg)?)?;
        let values = array.values();
        rows.fold(cells, |i| values[i])
    }

    fn finish(&self, cells: &mut dyn Iterator<Item = &Sum<i128>>) -> Result<ArrayRef> {
        if !self.avg() {
            return wide(&self.of.ty, cells.map(|cell| Ok((cell.n != 0).then_some(cell.sum))));
        }
        match self.of.ty {
            DataType::Decimal { scale, .. } => {
                let more = i32::from(scale) - i32::from(scale_of(&self.of.arg_ty));
                wide(&self.of.ty, cells.map(|cell| mean(cell, more)))
            }
            _ => {
                let unit = 10f64.powi(i32::from(scale_of(&self.of.arg_ty)));
                doubles(&self.of.ty, cells.map(|cell| (cell.n != 0).then(|| cell.sum as f64 / unit / cell.n as f64)))
            }
        }
    }

    fn states(&self, cells: &mut dyn Iterator<Item = &Sum<i128>>) -> Result<Vec<ArrayRef>> {
        let cells: Vec<&Sum<i128>> = cells.collect();
        let sums =
            wide(&self.sum_type(), cells.iter().map(|cell| Ok((self.avg() || cell.n != 0).then_some(cell.sum))))?;
        Ok(if self.avg() { vec![sums, counts_array(cells.into_iter())] } else { vec![sums] })
    }

    fn cells(&self, states: &[ArrayRef]) -> Result<Vec<Sum<i128>>> {
        let counts = self.counts(states)?;
        let sums = decimals(&states[0])?.values();
        Ok(counts.into_iter().zip(sums).map(|(n, sum)| Sum { sum: if n == 0 { 0 } else { *sum }, n }).collect())
    }
}

/// The mean of decimals with `more` digits of scale, rounded half up.
fn mean(cell: &Sum<i128>, more: i32) -> Result<Option<i128>> {
    if cell.n == 0 {
        return Ok(None);
    }
    let power = 10i128.checked_pow(more.unsigned_abs()).ok_or_else(too_large)?;
    let (sum, n) = if more >= 0 {
        (cell.sum.checked_mul(power).ok_or_else(too_large)?, i128::from(cell.n))
    } else {
        (cell.sum, i128::from(cell.n).checked_mul(power).ok_or_else(too_large)?)
    };
    let (whole, rest) = (sum / n, sum % n);
    Ok(Some(if rest.unsigned_abs() * 2 >= n.unsigned_abs() { whole + rest.signum() * n.signum() } else { whole }))
}

/// STDDEV and VAR.
pub struct Spread {
    pub of: Aggregate,
}

/// NULL without rows; the sample forms also with one row.
fn spread(function: F, cell: &Moments) -> Option<f64> {
    let sample = matches!(function, F::StddevSamp | F::VarSamp);
    if cell.n <= i64::from(sample) {
        return None;
    }
    // Retraction can leave a little below zero. Not `max`: a NaN must stay one.
    let m2 = if cell.m2 < 0.0 { 0.0 } else { cell.m2 };
    let variance = m2 / (cell.n - i64::from(sample)) as f64;
    Some(if matches!(function, F::StddevPop | F::StddevSamp) { variance.sqrt() } else { variance })
}

impl Kind for Spread {
    type Cell = Moments;

    fn update(&self, cells: &mut [Moments], arg: Option<&ArrayRef>, rows: &Rows<'_>) -> Result<isize> {
        let mut wide = Vec::new();
        let values = as_f64(needed(arg)?, &mut wide)?;
        rows.fold(cells, |i| values[i])
    }

    fn finish(&self, cells: &mut dyn Iterator<Item = &Moments>) -> Result<ArrayRef> {
        doubles(&self.of.ty, cells.map(|cell| spread(self.of.function, cell)))
    }

    fn states(&self, cells: &mut dyn Iterator<Item = &Moments>) -> Result<Vec<ArrayRef>> {
        let cells: Vec<&Moments> = cells.collect();
        Ok(vec![
            Arc::new(Int64Array::from_iter_values(cells.iter().map(|cell| cell.n))),
            Arc::new(Float64Array::from_iter_values(cells.iter().map(|cell| cell.mean))),
            Arc::new(Float64Array::from_iter_values(cells.iter().map(|cell| cell.m2))),
        ])
    }

    fn cells(&self, states: &[ArrayRef]) -> Result<Vec<Moments>> {
        let n = ints(&states[0])?;
        let mean = states[1].as_primitive::<Float64Type>();
        let m2 = states[2].as_primitive::<Float64Type>();
        Ok((0..n.len()).map(|i| Moments { n: n.value(i), mean: mean.value(i), m2: m2.value(i) }).collect())
    }
}

/// STDDEV and VAR over a changelog.
pub struct RetractableSpread {
    pub of: Aggregate,
}

impl Kind for RetractableSpread {
    type Cell = Powers;

    fn update(&self, cells: &mut [Powers], arg: Option<&ArrayRef>, rows: &Rows<'_>) -> Result<isize> {
        let mut wide = Vec::new();
        let values = as_f64(needed(arg)?, &mut wide)?;
        rows.fold(cells, |i| values[i])
    }

    fn finish(&self, cells: &mut dyn Iterator<Item = &Powers>) -> Result<ArrayRef> {
        doubles(&self.of.ty, cells.map(|cell| spread(self.of.function, &cell.moments())))
    }
}

/// MIN and MAX of words.
pub struct Extremes<T, const MAX: bool> {
    pub of: Aggregate,
    pub value: std::marker::PhantomData<T>,
}

impl<T: Lane + Copy, const MAX: bool> Kind for Extremes<T, MAX>
where
    for<'a> T: Lane<View<'a> = T>,
{
    type Cell = Extreme<T, MAX>;

    fn update(&self, cells: &mut [Extreme<T, MAX>], arg: Option<&ArrayRef>, rows: &Rows<'_>) -> Result<isize> {
        T::read(needed(arg)?, |i, value| {
            if rows.counts(i) {
                // Never fails: a comparison of words.
                let _ = cells[rows.groups[i] as usize].add(value);
            }
        })?;
        Ok(0)
    }

    fn finish(&self, cells: &mut dyn Iterator<Item = &Extreme<T, MAX>>) -> Result<ArrayRef> {
        T::build(&self.of.ty, cells.map(|cell| cell.some.then_some(cell.value)).collect())
    }

    fn states(&self, cells: &mut dyn Iterator<Item = &Extreme<T, MAX>>) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.finish(cells)?])
    }

    fn cells(&self, states: &[ArrayRef]) -> Result<Vec<Extreme<T, MAX>>> {
        let mut cells = vec![Extreme::default(); states[0].len()];
        T::read(&states[0], |i, value| {
            if states[0].is_valid(i) {
                cells[i] = Extreme { value, some: true };
            }
        })?;
        Ok(cells)
    }
}

/// MIN and MAX of strings and bytes.
pub struct Texts<const MAX: bool> {
    pub of: Aggregate,
}

#[derive(Clone, Default)]
pub struct Text<const MAX: bool>(Option<Box<[u8]>>);

impl<const MAX: bool> Text<MAX> {
    /// Answers with the heap bytes added.
    fn add(&mut self, value: &[u8]) -> isize {
        let before = self.heap_bytes() as isize;
        let better = self.0.as_deref().is_none_or(|now| if MAX { value > now } else { value < now });
        if !better {
            return 0;
        }
        self.0 = Some(value.into());
        self.heap_bytes() as isize - before
    }
}

impl<const MAX: bool> State for Text<MAX> {
    fn merge(&mut self, other: &Self) -> Result<()> {
        if let Some(value) = &other.0 {
            self.add(value);
        }
        Ok(())
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_option(&self.0, out);
    }

    fn get(input: &mut &[u8]) -> Result<Self> {
        get_option(input).map(Text)
    }

    fn heap_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, Lane::heap_bytes)
    }
}

fn put_option<L: Lane>(value: &Option<L>, out: &mut Vec<u8>) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        value.put(out);
    }
}

fn get_option<L: Lane>(input: &mut &[u8]) -> Result<Option<L>> {
    let [some] = take(input)?;
    if some == 0 { Ok(None) } else { L::get(input).map(Some) }
}

impl<const MAX: bool> Kind for Texts<MAX> {
    type Cell = Text<MAX>;

    fn update(&self, cells: &mut [Text<MAX>], arg: Option<&ArrayRef>, rows: &Rows<'_>) -> Result<isize> {
        let mut added = 0;
        <Box<[u8]>>::read(needed(arg)?, |i, value| {
            if rows.counts(i) {
                added += cells[rows.groups[i] as usize].add(value);
            }
        })?;
        Ok(added)
    }

    fn finish(&self, cells: &mut dyn Iterator<Item = &Text<MAX>>) -> Result<ArrayRef> {
        Lane::build(&self.of.ty, cells.map(|cell| cell.0.clone()).collect())
    }

    fn states(&self, cells: &mut dyn Iterator<Item = &Text<MAX>>) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.finish(cells)?])
    }

    fn cells(&self, states: &[ArrayRef]) -> Result<Vec<Text<MAX>>> {
        let mut cells = vec![Text::default(); states[0].len()];
        <Box<[u8]>>::read(&states[0], |i, value| {
            if states[0].is_valid(i) {
                cells[i] = Text(Some(value.into()));
            }
        })?;
        Ok(cells)
    }
}

/// FIRST_VALUE and LAST_VALUE: by arrival, which panes and retractions must not mix up, so values keep a sequence
/// number. Without retraction one value is kept.
pub struct Arrivals<L> {
    pub of: Aggregate,
    pub retracting: bool,
    pub value: std::marker::PhantomData<L>,
}

#[derive(Clone, Default)]
pub struct Arrived<L> {
    /// In order of arrival.
    values: Vec<(u64, L)>,
    last: bool,
    all: bool,
}

/// Bytes of a kept value.
fn arrival_bytes<L: Lane>(value: &L) -> isize {
    (value.heap_bytes() + 40) as isize
}

impl<L: Lane> State for Arrived<L> {
    fn merge(&mut self, other: &Self) -> Result<()> {
        if other.values.is_empty() {
            return Ok(());
        }
        (self.last, self.all) = (other.last, other.all);
        self.values.extend(other.values.iter().cloned());
        self.values.sort_by_key(|(sequence, _)| *sequence);
        if !self.all {
            if self.last {
                self.values.drain(..self.values.len() - 1);
            } else {
                self.values.truncate(1);
            }
        }
        Ok(())
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.last) | u8::from(self.all) << 1);
        out.extend_from_slice(&(self.values.len() as u32).to_le_bytes());
        for (sequence, value) in &self.values {
            out.extend_from_slice(&sequence.to_le_bytes());
            value.put(out);
        }
    }

    fn get(input: &mut &[u8]) -> Result<Self> {
        let [flags] = take(input)?;
        let len = u32::from_le_bytes(take(input)?);
        let mut values = Vec::new();
        for _ in 0..len {
            values.push((u64::from_le_bytes(take(input)?), L::get(input)?));
        }
        Ok(Arrived { values, last: flags & 1 != 0, all: flags & 2 != 0 })
    }

    fn heap_bytes(&self) -> usize {
        self.values.iter().map(|(_, value)| arrival_bytes(value) as usize).sum()
    }

    fn sequence(&self) -> u64 {
        self.values.last().map_or(0, |(sequence, _)| *sequence)
    }
}

impl<L: Lane> Kind for Arrivals<L> {
    type Cell = Arrived<L>;

    fn update(&self, cells: &mut [Arrived<L>], arg: Option<&ArrayRef>, rows: &Rows<'_>) -> Result<isize> {
        let last = self.of.function == F::LastValue;
        let mut added = 0;
        L::read(needed(arg)?, |i, value| {
            if !rows.counts(i) {
                return;
            }
            let cell = &mut cells[rows.groups[i] as usize];
            (cell.last, cell.all) = (last, self.retracting);
            if rows.signs.is_some_and(|signs| signs[i] < 0) {
                let gone = L::own(value);
                if let Some(at) = cell.values.iter().position(|(_, kept)| *kept == gone) {
                    added -= arrival_bytes(&cell.values.remove(at).1);
                }
                return;
            }
            if cell.values.is_empty() || self.retracting {
                let value = L::own(value);
                added += arrival_bytes(&value);
                cell.values.push((rows.sequence(i), value));
            } else if last {
                let value = L::own(value);
                added += arrival_bytes(&value);
                added -= arrival_bytes(&std::mem::replace(&mut cell.values[0], (rows.sequence(i), value)).1);
            }
        })?;
        Ok(added)
    }

    fn finish(&self, cells: &mut dyn Iterator<Item = &Arrived<L>>) -> Result<ArrayRef> {
        let last = self.of.function == F::LastValue;
        let pick =
            |cell: &Arrived<L>| if last { cell.values.last() } else { cell.values.first() }.map(|(_, v)| v.clone());
        L::build(&self.of.ty, cells.map(pick).collect())
    }
}

/// Every distinct value with its count: DISTINCT aggregates, and MIN and MAX that must forget.
pub struct Bags<L> {
    pub of: Aggregate,
    pub value: std::marker::PhantomData<L>,
}

#[derive(Clone, Default)]
pub struct Bag<L> {
    /// Counts below zero are of values whose retraction has overtaken their row; none is zero.
    counts: BTreeMap<L, i64>,
    /// Of all entries, so that it need not be counted again.
    heap: usize,
}

impl<L: Lane> State for Bag<L> {
    fn merge(&mut self, other: &Self) -> Result<()> {
        other.counts.iter().for_each(|(value, n)| self.add(value.clone(), *n));
        Ok(())
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.counts.len() as u32).to_le_bytes());
        for (value, n) in &self.counts {
            value.put(out);
            out.extend_from_slice(&n.to_le_bytes());
        }
    }

    fn get(input: &mut &[u8]) -> Result<Self> {
        let len = u32::from_le_bytes(take(input)?);
        let mut bag = Bag::default();
        for _ in 0..len {
            let value = L::get(input)?;
            bag.add(value, i64::from_le_bytes(take(input)?));
        }
        Ok(bag)
    }

    fn heap_bytes(&self) -> usize {
        self.heap
    }
}

impl<L: Lane> Bag<L> {
    fn add(&mut self, value: L, n: i64) {
        let bytes = value.heap_bytes() + std::mem::size_of::<L>() + 16;
        match self.counts.entry(value) {
            Entry::Vacant(entry) => {
                entry.insert(n);
                self.heap += bytes;
            }
            Entry::Occupied(mut entry) => {
                *entry.get_mut() += n;
                if *entry.get() == 0 {
                    entry.remove();
                    self.heap -= bytes;
                }
            }
        }
    }

    fn values(&self) -> impl DoubleEndedIterator<Item = &L> {
        self.counts.iter().filter(|(_, n)| **n > 0).map(|(value, _)| value)
    }

    fn moments(&self, ty: &DataType) -> Result<Moments> {
        let mut moments = Moments::default();
        self.values().try_for_each(|value| moments.add(value.to_f64(ty)))?;
        Ok(moments)
    }
}

impl<L: Lane> Kind for Bags<L> {
    type Cell = Bag<L>;

    fn update(&self, cells: &mut [Bag<L>], arg: Option<&ArrayRef>, rows: &Rows<'_>) -> Result<isize> {
        let mut added = 0;
        L::read(needed(arg)?, |i, value| {
            if !rows.counts(i) {
                return;
            }
            let bag = &mut cells[rows.groups[i] as usize];
            let before = bag.heap as isize;
            // A retraction may overtake its row: the count goes below zero until the row comes.
            bag.add(L::own(value), rows.signs.map_or(1, |signs| i64::from(signs[i])));
            added += bag.heap as isize - before;
        })?;
        Ok(added)
    }

    fn finish(&self, cells: &mut dyn Iterator<Item = &Bag<L>>) -> Result<ArrayRef> {
        let Aggregate { function, ty, arg_ty, .. } = &self.of;
        let exact = !matches!(arg_ty, DataType::Float32 | DataType::Float64);
        match function {
            F::Count => Ok(Arc::new(Int64Array::from_iter_values(cells.map(|bag| bag.values().count() as i64)))),
            F::Min => L::build(ty, cells.map(|bag| bag.values().next().cloned()).collect()),
            F::Max => L::build(ty, cells.map(|bag| bag.values().next_back().cloned()).collect()),
            F::Sum | F::Avg if exact && matches!(arg_ty, DataType::Decimal { .. }) => {
                let sums: Vec<Sum<i128>> = cells.map(exact_sum).collect::<Result<_>>()?;
                Sums::<i128> { of: self.of.clone(), sum: std::marker::PhantomData }.finish(&mut sums.iter())
            }
            F::Sum | F::Avg if exact => {
                let sums: Vec<Sum<i64>> = cells
                    .map(|bag| exact_sum(bag).map(|s| Sum { sum: s.sum as i64, n: s.n }))
                    .collect::<Result<_>>()?;
                Sums::<i64> { of: self.of.clone(), sum: std::marker::PhantomData }.finish(&mut sums.iter())
            }
            F::Sum | F::Avg => {
                let sum = |bag: &Bag<L>| Sum {
                    sum: bag.values().map(|v| v.to_f64(arg_ty)).sum(),
                    n: bag.values().count() as i64,
                };
                let sums: Vec<Sum<f64>> = cells.map(sum).collect();
                Sums::<f64> { of: self.of.clone(), sum: std::marker::PhantomData }.finish(&mut sums.iter())
            }
            F::StddevPop | F::StddevSamp | F::VarPop | F::VarSamp => {
                let moments: Vec<Moments> = cells.map(|bag| bag.moments(arg_ty)).collect::<Result<_>>()?;
                Spread { of: self.of.clone() }.finish(&mut moments.iter())
            }
            F::FirstValue | F::LastValue => Err(Error::invalid("FIRST_VALUE and LAST_VALUE do not take DISTINCT")),
        }
    }
}

fn exact_sum<L: Lane>(bag: &Bag<L>) -> Result<Sum<i128>> {
    let mut sum = Sum::default();
    bag.values().try_for_each(|value| sum.add(value.to_i128()))?;
    Ok(sum)
}

fn needed(arg: Option<&ArrayRef>) -> Result<&ArrayRef> {
    arg.ok_or_else(|| Error::new(Code::Internal, "an aggregate without its argument"))
}

fn ints(array: &ArrayRef) -> Result<&Int64Array> {
    array.as_any().downcast_ref().ok_or_else(|| Error::new(Code::Internal, "a partial count must be BIGINT"))
}

fn decimals(array: &ArrayRef) -> Result<&arrow_array::PrimitiveArray<Decimal128Type>> {
    array.as_any().downcast_ref().ok_or_else(|| Error::new(Code::Internal, "a DECIMAL was planned here"))
}

fn scale_of(ty: &DataType) -> i8 {
    if let DataType::Decimal { scale, .. } = ty { *scale } else { 0 }
}

/// The values of a numeric column as doubles: in place for DOUBLE, else through `wide`.
fn as_f64<'a>(column: &'a ArrayRef, wide: &'a mut Vec<f64>) -> Result<&'a [f64]> {
    match column.data_type() {
        Arrow::Float64 => return Ok(column.as_primitive::<Float64Type>().values()),
        Arrow::Float32 => wide.extend(column.as_primitive::<Float32Type>().values().iter().map(|v| f64::from(*v))),
        Arrow::Decimal128(_, scale) => {
            let unit = 10f64.powi(i32::from(*scale));
            wide.extend(decimals(column)?.values().iter().map(|v| *v as f64 / unit));
        }
        _ => wide.extend(as_i64(column, &mut Vec::new()).iter().map(|v| *v as f64)),
    }
    Ok(wide)
}

/// Integers of `ty`, wrapping as Flink's.
fn wrapped(ty: &DataType, values: impl Iterator<Item = Option<i64>>) -> Result<ArrayRef> {
    let cut = |value: i64| match ty {
        DataType::Int8 => i64::from(value as i8),
        DataType::Int16 => i64::from(value as i16),
        DataType::Int32 => i64::from(value as i32),
        _ => value,
    };
    let (valid, values): (Vec<bool>, Vec<i64>) = values.map(|v| (v.is_some(), v.map_or(0, cut))).unzip();
    match ty {
        DataType::Decimal { .. } => {
            let unit = 10i128.pow(scale_of(ty).max(0) as u32);
            wide(ty, valid.iter().zip(values).map(|(valid, v)| Ok(valid.then(|| i128::from(v) * unit))))
        }
        DataType::Float32 | DataType::Float64 => {
            doubles(ty, valid.iter().zip(values).map(|(valid, v)| valid.then_some(v as f64)))
        }
        _ => from_i64(ty, values, Some(valid)),
    }
}

/// Doubles as the numeric type `ty`.
fn doubles(ty: &DataType, values: impl Iterator<Item = Option<f64>>) -> Result<ArrayRef> {
    match ty {
        DataType::Float64 => Ok(Arc::new(values.collect::<Float64Array>())),
        DataType::Float32 => Ok(Arc::new(values.map(|v| v.map(|v| v as f32)).collect::<Float32Array>())),
        DataType::Decimal { scale, .. } => {
            let unit = 10f64.powi(i32::from(*scale));
            wide(ty, values.map(|v| Ok(v.map(|v| (v * unit).round() as i128))))
        }
        _ => wrapped(ty, values.map(|v| v.map(|v| v as i64)).collect::<Vec<_>>().into_iter()),
    }
}

/// Decimals of `ty`, checked against its digits.
fn wide(ty: &DataType, values: impl Iterator<Item = Result<Option<i128>>>) -> Result<ArrayRef> {
    let precision = if let DataType::Decimal { precision, .. } = ty { *precision } else { 38 };
    let limit = 10i128.checked_pow(u32::from(precision)).unwrap_or(i128::MAX);
    let values: Vec<Option<i128>> = values
        .map(|value| match value? {
            Some(value) if value.unsigned_abs() >= limit.unsigned_abs() => Err(too_large()),
            value => Ok(value),
        })
        .collect::<Result<_>>()?;
    <i128 as Lane>::build(ty, values)
}
