//! Accumulators in columns: for each aggregate of the plan one vector of cells, indexed by group. Rows come in by
//! batches with their groups; results, partial results and state bytes go out by groups.
//!
//! SQL's rules: COUNT of nothing is 0, every other aggregate of nothing NULL; NULLs are skipped; integers wrap,
//! decimals fail on overflow. Which group a row belongs to is the caller's affair.

use crate::error::{Code, Error, Result};
use crate::keys::Selection;
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use arrow_buffer::BooleanBuffer;
use ef_proto::plan::{Aggregate, AggregateFunction as F};
use ef_proto::schema::DataType;
use std::any::Any;
use std::marker::PhantomData;

mod kinds;
mod lane;
mod numbers;
use kinds::{Arrivals, Bags, Counts, Extremes, Kind, RetractableSpread, Spread, Sums, Texts};
use numbers::{Cell, State};

/// The rows of one update: row i of the arguments goes to group `groups[i]`.
pub struct Rows<'a> {
    groups: &'a [u32],
    /// Rows that count: the argument is not NULL and the FILTER is TRUE. None: all.
    mask: Option<&'a BooleanBuffer>,
    /// 1 adds, -1 retracts. None: all add.
    signs: Option<&'a [i8]>,
    /// Number of the batch's first row in order of arrival, and where in the batch the rows were.
    first: u64,
    at: Selection<'a>,
}

impl Rows<'_> {
    #[inline(always)]
    fn counts(&self, i: usize) -> bool {
        self.mask.is_none_or(|mask| mask.value(i))
    }

    fn sequence(&self, i: usize) -> u64 {
        self.first + self.at.at(i) as u64
    }

    #[inline(always)]
    fn each<C>(&self, cells: &mut [C], mut visit: impl FnMut(&mut C, usize) -> Result<()>) -> Result<()> {
        match self.mask {
            None => {
                for (i, group) in self.groups.iter().enumerate() {
                    visit(&mut cells[*group as usize], i)?;
                }
            }
            Some(mask) => {
                for (i, group) in self.groups.iter().enumerate() {
                    if mask.value(i) {
                        visit(&mut cells[*group as usize], i)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds or retracts `value(i)` for every row that counts.
    #[inline(always)]
    fn fold<T, C: Cell<T>>(&self, cells: &mut [C], value: impl Fn(usize) -> T) -> Result<isize> {
        match self.signs {
            None => self.each(cells, |cell, i| cell.add(value(i)))?,
            Some(signs) => {
                self.each(cells, |cell, i| if signs[i] > 0 { cell.add(value(i)) } else { cell.retract(value(i)) })?
            }
        }
        Ok(0)
    }
}

/// One aggregate over all groups. Dispatched once a batch.
trait Accumulator: Send {
    fn resize(&mut self, groups: usize);
    fn update(&mut self, arg: Option<&ArrayRef>, rows: &Rows<'_>) -> Result<()>;
    fn merge(&mut self, groups: &[u32], other: &dyn Accumulator, from: Option<&[u32]>) -> Result<()>;
    fn merge_states(&mut self, groups: &[u32], states: &[ArrayRef]) -> Result<()>;
    fn states(&self, groups: &[u32]) -> Result<Vec<ArrayRef>>;
    fn finish(&self, groups: &[u32]) -> Result<ArrayRef>;
    fn put(&self, group: u32, out: &mut Vec<u8>);
    /// Merges what `put` wrote into the group; answers with its latest arrival.
    fn merge_bytes(&mut self, group: u32, input: &mut &[u8]) -> Result<u64>;
    fn reset(&mut self, group: u32);
    fn clear(&mut self);
    fn memory_bytes(&self) -> usize;
    fn as_any(&self) -> &dyn Any;
}

struct Column<K: Kind> {
    kind: K,
    cells: Vec<K::Cell>,
    /// The sum of the cells' heap bytes; kept as a sum, or else a rounding of any of its changes would add up.
    heap: usize,
}

impl<K: Kind> Column<K> {
    /// Merges into a cell; nothing but that where cells have no heap.
    #[inline(always)]
    fn merge_cell(&mut self, group: u32, other: &K::Cell) -> Result<()> {
        let cell = &mut self.cells[group as usize];
        let before = cell.heap_bytes();
        cell.merge(other)?;
        self.heap = self.heap + cell.heap_bytes() - before;
        Ok(())
    }
}

impl<K: Kind> Accumulator for Column<K> {
    fn resize(&mut self, groups: usize) {
        if self.cells.len() < groups {
            self.cells.resize(groups, K::Cell::default());
        }
    }

    fn update(&mut self, arg: Option<&ArrayRef>, rows: &Rows<'_>) -> Result<()> {
        let added = self.kind.update(&mut self.cells, arg, rows)?;
        self.heap = self.heap.saturating_add_signed(added);
        Ok(())
    }

    fn merge(&mut self, groups: &[u32], other: &dyn Accumulator, from: Option<&[u32]>) -> Result<()> {
        let other: &Column<K> = other.as_any().downcast_ref().expect("panes of one operator have the same aggregates");
        match from {
            None => groups.iter().zip(&other.cells).try_for_each(|(to, cell)| self.merge_cell(*to, cell)),
            Some(from) => {
                groups.iter().zip(from).try_for_each(|(to, from)| self.merge_cell(*to, &other.cells[*from as usize]))
            }
        }
    }

    fn merge_states(&mut self, groups: &[u32], states: &[ArrayRef]) -> Result<()> {
        let cells = self.kind.cells(states)?;
        groups.iter().zip(&cells).try_for_each(|(to, cell)| self.merge_cell(*to, cell))
    }

    fn states(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        self.kind.states(&mut groups.iter().map(|group| &self.cells[*group as usize]))
    }

    fn finish(&self, groups: &[u32]) -> Result<ArrayRef> {
        self.kind.finish(&mut groups.iter().map(|group| &self.cells[*group as usize]))
    }

    fn put(&self, group: u32, out: &mut Vec<u8>) {
        self.cells[group as usize].put(out);
    }

    fn merge_bytes(&mut self, group: u32, input: &mut &[u8]) -> Result<u64> {
        let cell = K::Cell::get(input)?;
        self.merge_cell(group, &cell)?;
        Ok(cell.sequence())
    }

    fn reset(&mut self, group: u32) {
        let cell = std::mem::take(&mut self.cells[group as usize]);
        self.heap = self.heap.saturating_sub(cell.heap_bytes());
    }

    fn clear(&mut self) {
        self.cells.clear();
        self.heap = 0;
    }

    fn memory_bytes(&self) -> usize {
        self.cells.capacity() * std::mem::size_of::<K::Cell>() + self.heap
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn column<K: Kind>(kind: K) -> Box<dyn Accumulator> {
    Box::new(Column { kind, cells: Vec::new(), heap: 0 })
}

/// The accumulator of one aggregate.
fn accumulator(of: &Aggregate, retracting: bool) -> Result<Box<dyn Accumulator>> {
    let bytes = matches!(of.arg_ty, DataType::String | DataType::Bytes);
    let decimal = matches!(of.arg_ty, DataType::Decimal { .. });
    let float = matches!(of.arg_ty, DataType::Float32 | DataType::Float64);
    let nested = matches!(of.arg_ty, DataType::Row(_) | DataType::Array(_) | DataType::Map(..) | DataType::Interval);
    let of = of.clone();
    let extreme = matches!(of.function, F::Min | F::Max);
    if nested && (of.distinct || of.function != F::Count) {
        return Err(Error::invalid(format!("{:?} does not take {}", of.function, of.arg_ty)));
    }
    if (of.distinct && !extreme && of.arg.is_some() && !matches!(of.function, F::FirstValue | F::LastValue))
        || (extreme && retracting)
    {
        return Ok(match (bytes, decimal) {
            (true, _) => column(Bags::<Box<[u8]>> { of, value: PhantomData }),
            (_, true) => column(Bags::<i128> { of, value: PhantomData }),
            _ => column(Bags::<i64> { of, value: PhantomData }),
        });
    }
    Ok(match of.function {
        F::Count => column(Counts),
        F::Sum | F::Avg if decimal => column(Sums::<i128> { of, sum: PhantomData }),
        F::Sum | F::Avg if float => column(Sums::<f64> { of, sum: PhantomData }),
        F::Sum | F::Avg => column(Sums::<i64> { of, sum: PhantomData }),
        F::StddevPop | F::StddevSamp | F::VarPop | F::VarSamp if retracting => column(RetractableSpread { of }),
        F::StddevPop | F::StddevSamp | F::VarPop | F::VarSamp => column(Spread { of }),
        F::Min if bytes => column(Texts::<false> { of }),
        F::Max if bytes => column(Texts::<true> { of }),
        F::Min if decimal => column(Extremes::<i128, false> { of, value: PhantomData }),
        F::Max if decimal => column(Extremes::<i128, true> { of, value: PhantomData }),
        F::Min => column(Extremes::<i64, false> { of, value: PhantomData }),
        F::Max => column(Extremes::<i64, true> { of, value: PhantomData }),
        F::FirstValue | F::LastValue if bytes => column(Arrivals::<Box<[u8]>> { of, retracting, value: PhantomData }),
        F::FirstValue | F::LastValue if decimal => column(Arrivals::<i128> { of, retracting, value: PhantomData }),
        F::FirstValue | F::LastValue => column(Arrivals::<i64> { of, retracting, value: PhantomData }),
    })
}

/// The accumulators of an operator's aggregates, over one set of groups.
pub struct Accumulators {
    list: Vec<(Aggregate, Box<dyn Accumulator>)>,
    len: usize,
}

impl Accumulators {
    pub fn new(aggregates: &[Aggregate], retracting: bool) -> Result<Accumulators> {
        let list = aggregates.iter().map(|of| Ok((of.clone(), accumulator(of, retracting)?))).collect::<Result<_>>()?;
        Ok(Accumulators { list, len: 0 })
    }

    /// Columns of the input that [`Accumulators::update`] reads.
    pub fn columns(aggregates: &[Aggregate]) -> Vec<usize> {
        let mut columns: Vec<usize> = aggregates.iter().flat_map(|of| of.arg.into_iter().chain(of.filter)).collect();
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    /// Makes room for groups below `groups`.
    pub fn resize(&mut self, groups: usize) {
        self.len = self.len.max(groups);
        self.list.iter_mut().for_each(|(_, accumulator)| accumulator.resize(groups));
    }

    /// Adds (or, by `signs`, retracts) row i of `columns` to group `groups[i]`. `first` numbers the batch's first
    /// row by arrival, `at` says where in that batch the rows were.
    pub fn update(
        &mut self,
        groups: &[u32],
        columns: &[ArrayRef],
        signs: Option<&[i8]>,
        first: u64,
        at: Selection<'_>,
    ) -> Result<()> {
        for (of, accumulator) in &mut self.list {
            let arg = of.arg.map(|arg| &columns[arg]);
            let nulls = match arg {
                // A column of type NULL has no null buffer, but no values either.
                Some(arg) if arg.data_type() == &arrow_schema::DataType::Null => {
                    Some(BooleanBuffer::new_unset(arg.len()))
                }
                Some(arg) => arg.nulls().filter(|nulls| nulls.null_count() > 0).map(|nulls| nulls.inner().clone()),
                None => None,
            };
            let filter = of.filter.map(|filter| {
                let filter = columns[filter].as_boolean();
                match filter.nulls() {
                    Some(nulls) => filter.values() & nulls.inner(),
                    None => filter.values().clone(),
                }
            });
            let mask = match (nulls, filter) {
                (Some(nulls), Some(filter)) => Some(&nulls & &filter),
                (nulls, filter) => nulls.or(filter),
            };
            accumulator.update(arg, &Rows { groups, mask: mask.as_ref(), signs, first, at })?;
        }
        Ok(())
    }

    /// Merges group `from[i]` of `other` (or i, where None) into group `groups[i]`.
    pub fn merge(&mut self, groups: &[u32], other: &Accumulators, from: Option<&[u32]>) -> Result<()> {
        self.list
            .iter_mut()
            .zip(&other.list)
            .try_for_each(|((_, mine), (_, theirs))| mine.merge(groups, theirs.as_ref(), from))
    }

    /// Merges partial results ([`Aggregate::state_types`] for each aggregate, in order) into the groups.
    pub fn merge_states(&mut self, groups: &[u32], mut states: &[ArrayRef]) -> Result<()> {
        for (of, accumulator) in &mut self.list {
            let width = of.state_types().len();
            if states.len() < width {
                return Err(Error::new(Code::Internal, "partial results have too few columns"));
            }
            accumulator.merge_states(groups, &states[..width])?;
            states = &states[width..];
        }
        Ok(())
    }

    /// Partial results of the groups.
    pub fn states(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let mut columns = Vec::new();
        for (_, accumulator) in &self.list {
            columns.extend(accumulator.states(groups)?);
        }
        Ok(columns)
    }

    /// Results of the groups, one column an aggregate.
    pub fn finish(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        self.list.iter().map(|(_, accumulator)| accumulator.finish(groups)).collect()
    }

    /// Appends the state of a group.
    pub fn put(&self, group: u32, out: &mut Vec<u8>) {
        self.list.iter().for_each(|(_, accumulator)| accumulator.put(group, out));
    }

    /// Merges a state that [`Accumulators::put`] wrote into a group (into a fresh one: restores it); answers with
    /// the latest arrival in it.
    pub fn merge_bytes(&mut self, group: u32, input: &mut &[u8]) -> Result<u64> {
        let mut latest = 0;
        for (_, accumulator) in &mut self.list {
            latest = latest.max(accumulator.merge_bytes(group, input)?);
        }
        Ok(latest)
    }

    /// The group as if new.
    pub fn reset(&mut self, group: u32) {
        self.list.iter_mut().for_each(|(_, accumulator)| accumulator.reset(group));
    }

    pub fn clear(&mut self) {
        self.len = 0;
        self.list.iter_mut().for_each(|(_, accumulator)| accumulator.clear());
    }

    pub fn memory_bytes(&self) -> usize {
        self.list.iter().map(|(_, accumulator)| accumulator.memory_bytes()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::StringArray;
    use std::sync::Arc;

    #[test]
    fn memory_of_retracted_values_is_given_back() {
        let call = |function, distinct| Aggregate {
            function,
            arg: Some(0),
            arg_ty: DataType::String,
            filter: None,
            distinct,
            ty: if function == F::Count { DataType::Int64 } else { DataType::String },
        };
        let calls = [call(F::Min, false), call(F::Count, true), call(F::FirstValue, false), call(F::LastValue, false)];
        let text = |i: usize| format!("a value of some length, number {i}");
        let column: ArrayRef = Arc::new(StringArray::from_iter_values((0..100).map(text)));
        let groups = vec![0; 100];
        for of in calls {
            let mut accumulators = Accumulators::new(std::slice::from_ref(&of), true).unwrap();
            accumulators.resize(1);
            let empty = accumulators.memory_bytes();
            for round in 0..10 {
                // Retractions before their rows too.
                for sign in if round % 2 == 0 { [1, -1] } else { [-1, 1] } {
                    let columns = std::slice::from_ref(&column);
                    let arrivals = matches!(of.function, F::FirstValue | F::LastValue);
                    let sign = if arrivals && round % 2 == 1 { -sign } else { sign };
                    accumulators.update(&groups, columns, Some(&[sign; 100]), 0, Selection::All(100)).unwrap();
                    if round == 0 && sign == 1 {
                        assert!(accumulators.memory_bytes() > empty + 100 * 30, "{:?}", of.function);
                    }
                }
            }
            assert_eq!(accumulators.memory_bytes(), empty, "{:?}", of.function);
        }
    }

    #[test]
    fn equal_values_of_many_slices_count_once_in_what_they_are_merged_to() {
        let of = Aggregate {
            function: F::Count,
            arg: Some(0),
            arg_ty: DataType::String,
            filter: None,
            distinct: true,
            ty: DataType::Int64,
        };
        let make = || {
            let mut accumulators = Accumulators::new(std::slice::from_ref(&of), false).unwrap();
            accumulators.resize(1);
            accumulators
        };
        let column: ArrayRef = Arc::new(StringArray::from_iter_values((0..100).map(|i| format!("value {i}"))));
        let mut slice = make();
        slice.update(&[0; 100], std::slice::from_ref(&column), None, 0, Selection::All(100)).unwrap();
        let mut merged = make();
        (0..800).for_each(|_| merged.merge(&[0], &slice, None).unwrap());
        assert_eq!(merged.memory_bytes(), slice.memory_bytes());
    }
}
