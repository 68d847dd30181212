//! Grouped aggregation per window. Rows go to one slice; when the watermark passes the last millisecond of a
//! window, its slices are merged per key and leave once, in order of window end.
//!
//! A row is late iff the last window of its slice has fired; until then it still counts for the open ones. Late
//! rows are counted and, where a late output is planned, passed on untouched. A jump of the watermark costs only the
//! windows that have rows.

use super::accumulate::Accumulators;
use super::group_set::GroupSet;
use super::{Operator, Scope};
use crate::error::{Code, Context, Error, Result};
use crate::frame::{BATCH_ROWS, END_OF_TIME};
use crate::keys::{KeyTable, Selection, as_i64, hash_rows};
use crate::state::{Kind, Store};
use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, TimestampMillisecondArray, UInt32Array};
use arrow_schema::{DataType as Arrow, SchemaRef, TimeUnit};
use ef_proto::plan::{self, Output, Phase, Time, Window};
use ef_proto::schema::{DataType, Schema};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

mod merged;
mod pane;
mod slicer;
use merged::Merged;
use pane::{Pane, Span};
use slicer::Slicer;

/// A local aggregate holds no more than this before it passes its partial results on.
const LOCAL_GROUPS: usize = 1 << 16;
const LOCAL_BYTES: usize = 8 << 20;

/// Panes kept for reuse.
const SPARE: usize = 16;

/// The operator. See the module.
pub struct WindowAggregate {
    plan: plan::WindowAggregate,
    key_types: Vec<DataType>,
    /// None for attached windows.
    slicer: Option<Slicer>,
    schema: SchemaRef,
    max_parallelism: u16,
    key_groups: Range<u16>,
    panes: BTreeMap<Span, Pane>,
    spare: Vec<Pane>,
    merged: Merged,
    /// Windows that end before or at this have fired.
    progress: i64,
    /// The processing clock, as far as windows follow it.
    now: i64,
    /// Rows so far: the number of the next one by arrival.
    arrived: u64,
    late: u64,
    null_time: u64,
    disk: bool,
    scratch: Scratch,
}

#[derive(Default)]
struct Scratch {
    hashes: Vec<u64>,
    groups: Vec<u32>,
    spans: Vec<Span>,
    order: Vec<u32>,
    wide: Vec<i64>,
}

impl WindowAggregate {
    pub fn new(
        plan: &plan::WindowAggregate,
        input: &Schema,
        output: &Schema,
        max_parallelism: u16,
        key_groups: Range<u16>,
    ) -> Result<WindowAggregate> {
        let broken = |what: &str| Error::new(Code::Internal, format!("window aggregate: {what}"));
        let slicer = Slicer::of(&plan.window);
        if matches!(plan.window, Window::Session { .. }) {
            return Err(broken("SESSION has its own operator"));
        }
        if slicer.is_none() && plan.phase != Phase::Single {
            return Err(broken("attached windows have no two phases"));
        }
        if plan.time == Time::Processing && plan.phase != Phase::Single {
            return Err(broken("windows of the processing clock have no two phases"));
        }
        let key_types: Vec<DataType> = plan
            .keys
            .iter()
            .map(|key| {
                input.fields.get(*key).map(|field| field.ty.clone()).ok_or_else(|| broken("a key column is missing"))
            })
            .collect::<Result<_>>()?;
        let merged = Merged::new(&key_types, &plan.aggregates)?;
        Ok(WindowAggregate {
            plan: plan.clone(),
            key_types,
            slicer,
            schema: output.to_arrow(),
            max_parallelism,
            key_groups,
            panes: BTreeMap::new(),
            spare: Vec::new(),
            merged,
            progress: i64::MIN,
            now: i64::MIN,
            arrived: 0,
            late: 0,
            null_time: 0,
            disk: false,
            scratch: Scratch::default(),
        })
    }

    fn processing(&self) -> bool {
        self.plan.time == Time::Processing
    }

    /// The clock may be set back; windows do not reopen.
    fn tick(&mut self, now_ms: i64) {
        if self.processing() {
            self.now = self.now.max(now_ms).max(self.progress.saturating_add(1));
        }
    }

    /// End of the last window that the slice belongs to.
    fn last_end(&self, span: Span) -> Option<i64> {
        self.slicer.map_or(Some(span.0), |slicer| slicer.last_window_end(span.0))
    }

    fn next_end(&self, span: Span) -> i64 {
        self.slicer.map_or(span.0, |slicer| slicer.next_window_end(span.0, self.progress))
    }

    fn is_late(&self, span: Span) -> bool {
        // Attached windows by the clock were complete before they came: they wait for the next tick.
        if self.processing() && self.slicer.is_none() {
            return false;
        }
        self.plan.phase != Phase::Local && self.last_end(span).is_some_and(|end| end - 1 <= self.progress)
    }

    /// Fills `scratch.spans` and `scratch.order` with the slices of the rows to add; returns the late rows.
    fn assign(&mut self, batch: &RecordBatch) -> Result<Vec<u32>> {
        let rows = batch.num_rows();
        let mut scratch = std::mem::take(&mut self.scratch);
        let (spans, order) = (&mut scratch.spans, &mut scratch.order);
        spans.clear();
        order.clear();
        let mut late = Vec::new();
        // The slice of the row before, and what became of it: rows come mostly in order.
        let mut last: Option<(Span, bool, bool)> = None;
        let mut place = |this: &mut Self, row: usize, span: Span, weight: u64| {
            let (is_late, in_window) = match last {
                Some((known, is_late, in_window)) if known == span => (is_late, in_window),
                _ => {
                    let verdict = (this.is_late(span), this.last_end(span).is_some());
                    last = Some((span, verdict.0, verdict.1));
                    verdict
                }
            };
            if is_late {
                this.late += weight;
                late.push(row as u32);
            } else if in_window {
                order.push(row as u32);
                spans.push(span);
            }
        };
        match (&self.plan.window, self.plan.phase, self.plan.time) {
            (_, Phase::Global, _) => {
                let slicer =
                    self.slicer.ok_or_else(|| Error::new(Code::Internal, "attached windows have no two phases"))?;
                let width = batch.num_columns();
                let ends = long(batch.column(width - 2))?;
                let counts = long(batch.column(width - 1))?;
                for row in 0..rows {
                    let end = ends.value(row);
                    place(self, row, (end, slicer.slice_start(end)), counts.value(row) as u64);
                }
            }
            (Window::Attached { start, end }, ..) => {
                let (starts, ends) = (batch.column(*start), batch.column(*end));
                let mut other = Vec::new();
                let (start_ms, end_ms) = (as_i64(starts, &mut scratch.wide), as_i64(ends, &mut other));
                let units = (per_milli(starts)?, per_milli(ends)?);
                let mut nulls = 0;
                for row in 0..rows {
                    if starts.is_null(row) || ends.is_null(row) {
                        nulls += 1;
                    } else {
                        place(self, row, (end_ms[row].div_euclid(units.1), start_ms[row].div_euclid(units.0)), 1);
                    }
                }
                self.null_time += nulls;
            }
            (_, _, Time::Processing) => {
                let slicer = self.slicer.expect("sliced windows");
                let end = slicer.slice_end(self.now);
                for row in 0..rows {
                    place(self, row, (end, slicer.slice_start(end)), 1);
                }
            }
            (_, _, Time::Event { column }) => {
                let slicer = self.slicer.expect("sliced windows");
                let times = batch.column(column);
                let unit = per_milli(times)?;
                let values = as_i64(times, &mut scratch.wide);
                let nulls = times.nulls().filter(|nulls| nulls.null_count() > 0);
                let (mut start, mut end) = (i64::MAX, i64::MIN);
                let mut skipped = 0;
                for (row, value) in values.iter().enumerate() {
                    if nulls.is_some_and(|nulls| nulls.is_null(row)) {
                        skipped += 1;
                        continue;
                    }
                    let time = if unit == 1 { *value } else { value.div_euclid(unit) };
                    if !(start <= time && time < end) {
                        end = slicer.slice_end(time);
                        start = slicer.slice_start(end);
                    }
                    place(self, row, (end, start), 1);
                }
                self.null_time += skipped;
            }
        }
        self.scratch = scratch;
        Ok(late)
    }

    fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let keys: Vec<ArrayRef> = self.plan.keys.iter().map(|key| batch.column(*key).clone()).collect();
        hash_rows(&keys, &mut scratch.hashes)?;
        let first = self.arrived;
        self.arrived += batch.num_rows() as u64;
        let whole = scratch.order.len() == batch.num_rows();
        if scratch.spans.is_empty() {
            self.scratch = scratch;
            return Ok(());
        }
        if whole && scratch.spans.iter().all(|span| *span == scratch.spans[0]) {
            let selection = Selection::All(batch.num_rows());
            self.add_slice(
                scratch.spans[0],
                batch.columns(),
                &keys,
                &scratch.hashes,
                selection,
                first,
                &mut scratch.groups,
            )?;
            self.scratch = scratch;
            return Ok(());
        }
        // Rows of several slices: sort them by slice (stable), take the argument columns once in that order, and
        // give every slice its stretch.
        let mut distinct: Vec<Span> = Vec::new();
        for span in &scratch.spans {
            if distinct.last() != Some(span) && !distinct.contains(span) {
                distinct.push(*span);
            }
        }
        let mut ends = vec![0usize; distinct.len() + 1];
        let ordinals: Vec<u32> = {
            let mut last = 0;
            scratch
                .spans
                .iter()
                .map(|span| {
                    if distinct[last] != *span {
                        last = distinct.iter().position(|known| known == span).expect("collected above");
                    }
                    ends[last + 1] += 1;
                    last as u32
                })
                .collect()
        };
        for i in 1..ends.len() {
            ends[i] += ends[i - 1];
        }
        let starts = ends.clone();
        let mut next = ends;
        let mut sorted = vec![0u32; scratch.order.len()];
        for (row, ordinal) in scratch.order.iter().zip(&ordinals) {
            sorted[next[*ordinal as usize]] = *row;
            next[*ordinal as usize] += 1;
        }
        let rows = UInt32Array::from(sorted.clone());
        let mut columns = batch.columns().to_vec();
        for index in self.read_columns(batch) {
            columns[index] =
                arrow_select::take::take(&columns[index], &rows, None).internal(|| "rows by slice".into())?;
        }
        for (i, span) in distinct.iter().enumerate() {
            let (from, len) = (starts[i], starts[i + 1] - starts[i]);
            let part: Vec<ArrayRef> = columns
                .iter()
                .map(|column| column.slice(from.min(column.len()), len.min(column.len().saturating_sub(from))))
                .collect();
            let selection = Selection::Some(&sorted[from..from + len]);
            self.add_slice(*span, &part, &keys, &scratch.hashes, selection, first, &mut scratch.groups)?;
        }
        self.scratch = scratch;
        Ok(())
    }

    /// The columns beyond the keys that `add_slice` reads.
    fn read_columns(&self, batch: &RecordBatch) -> Vec<usize> {
        match self.plan.phase {
            Phase::Global => (self.plan.keys.len()..batch.num_columns()).collect(),
            _ => Accumulators::columns(&self.plan.aggregates),
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn add_slice(
        &mut self,
        span: Span,
        columns: &[ArrayRef],
        keys: &[ArrayRef],
        hashes: &[u64],
        rows: Selection<'_>,
        first: u64,
        groups: &mut Vec<u32>,
    ) -> Result<()> {
        if !self.panes.contains_key(&span) {
            let pane = match self.spare.pop() {
                Some(pane) => pane,
                None => Pane::new(&self.key_types, &self.plan.aggregates)?,
            };
            self.panes.insert(span, pane);
        }
        let pane = self.panes.get_mut(&span).expect("inserted above");
        pane.intern(keys, hashes, rows, groups)?;
        match self.plan.phase {
            Phase::Global => pane.accumulators.merge_states(groups, &columns[self.plan.keys.len()..])?,
            _ => pane.accumulators.update(groups, columns, None, first, rows)?,
        }
        if self.plan.phase == Phase::Local {
            pane.rows.resize(pane.keys.bound(), 0);
            groups.iter().for_each(|group| pane.rows[*group as usize] += 1);
        } else if self.disk {
            pane.mark(groups);
        }
        Ok(())
    }

    /// Fires, in order, every window that ends by `time` (its last millisecond, end - 1, is reached).
    fn fire_until(&mut self, time: i64, scope: &mut Scope<'_>) -> Result<()> {
        while let Some(span) = self.panes.first_key_value().map(|(span, _)| *span) {
            let end = self.next_end(span);
            if end - 1 > time {
                break;
            }
            self.fire(span, end, scope)?;
            if self.slicer.is_some() {
                self.progress = self.progress.max(end - 1);
            }
        }
        self.progress = self.progress.max(time);
        Ok(())
    }

    /// Emits the window that ends at `end` and drops the slices that no later window needs.
    fn fire(&mut self, first: Span, end: i64, scope: &mut Scope<'_>) -> Result<()> {
        let (start, spans): (i64, Vec<Span>) = match self.slicer {
            None => (first.1, vec![first]),
            Some(slicer) => {
                let start = slicer.window_start(end);
                let inside = |span: &Span| span.0 > start && span.0 <= end;
                (start, self.panes.range(..=(end, i64::MAX)).map(|(span, _)| *span).filter(inside).collect())
            }
        };
        for span in &spans {
            let pane = self.panes.get_mut(span).expect("listed above");
            if pane.spilled {
                self.arrived = self.arrived.max(1 + pane.unspill(*span, scope.store)?);
            }
        }
        if let [span] = spans[..] {
            let pane = self.panes.get(&span).expect("listed above");
            let all: Vec<u32> = (0..pane.keys.bound() as u32).collect();
            self.emit_window(&pane.keys, &pane.accumulators, &all, (start, end), scope)?;
        } else if !spans.is_empty() {
            let groups = self.merged.merge(&mut self.panes, &spans)?;
            self.emit_window(&self.merged.keys, &self.merged.accumulators, &groups, (start, end), scope)?;
            self.merged.tidy(groups.len(), &mut self.panes);
        }
        // What no later window needs. The slices of a window are the first ones there are.
        while let Some(entry) = self.panes.first_entry() {
            let span = *entry.key();
            let last = self.slicer.map_or(Some(span.0), |slicer| slicer.last_window_end(span.0));
            if self.slicer.is_some() && last.is_some_and(|last| last > end) || (self.slicer.is_none() && span != first)
            {
                break;
            }
            let mut pane = entry.remove();
            if self.disk {
                pane.unspill(span, scope.store)?;
                pane.delete(span, self.max_parallelism, scope.store)?;
            }
            pane.clear();
            if self.spare.len() < SPARE {
                self.spare.push(pane);
            }
        }
        Ok(())
    }

    fn emit_window(
        &self,
        keys: &KeyTable,
        accumulators: &Accumulators,
        groups: &[u32],
        (start, end): (i64, i64),
        scope: &mut Scope<'_>,
    ) -> Result<()> {
        for groups in groups.chunks(BATCH_ROWS) {
            let mut columns = keys.export(groups)?;
            columns.extend(accumulators.finish(groups)?);
            for time in [start, end, end - 1] {
                columns.push(self.stamp(time, groups.len()));
            }
            let batch =
                RecordBatch::try_new(self.schema.clone(), columns).internal(|| "window aggregate's output".into())?;
            scope.out.emit(batch)?;
        }
        Ok(())
    }

    fn stamp(&self, time: i64, rows: usize) -> ArrayRef {
        let array = TimestampMillisecondArray::from(vec![time; rows]);
        Arc::new(if self.plan.ltz { array.with_timezone("UTC") } else { array })
    }

    /// A local aggregate passes on its slices up to `until`.
    fn flush(&mut self, until: i64, scope: &mut Scope<'_>) -> Result<()> {
        while let Some(entry) = self.panes.first_entry() {
            let span = *entry.key();
            if span.0.saturating_sub(1) > until {
                break;
            }
            let mut pane = entry.remove();
            let all: Vec<u32> = (0..pane.keys.bound() as u32).collect();
            for groups in all.chunks(BATCH_ROWS) {
                let mut columns = pane.keys.export(groups)?;
                columns.extend(pane.accumulators.states(groups)?);
                columns.push(Arc::new(Int64Array::from(vec![span.0; groups.len()])));
                columns.push(Arc::new(Int64Array::from_iter_values(
                    groups.iter().map(|group| pane.rows[*group as usize]),
                )));
                let batch = RecordBatch::try_new(self.schema.clone(), columns).internal(|| "partial results".into())?;
                scope.out.emit(batch)?;
            }
            pane.clear();
            if self.spare.len() < SPARE {
                self.spare.push(pane);
            }
        }
        Ok(())
    }
}

impl Operator for WindowAggregate {
    fn on_batch(&mut self, _input: usize, batch: RecordBatch, scope: &mut Scope<'_>) -> Result<()> {
        self.tick(scope.now_ms);
        let late = self.assign(&batch)?;
        if !late.is_empty() && self.plan.late_output {
            let rows = UInt32Array::from(late);
            let late = arrow_select::take::take_record_batch(&batch, &rows).internal(|| "late rows".into())?;
            scope.out.emit_to(Output::Late, late)?;
        }
        self.add(&batch)?;
        if self.plan.phase == Phase::Local {
            let groups: usize = self.panes.values().map(|pane| pane.keys.len()).sum();
            if groups > LOCAL_GROUPS || self.memory_bytes() > LOCAL_BYTES {
                self.flush(END_OF_TIME, scope)?;
            }
        }
        Ok(())
    }

    fn on_watermark(&mut self, watermark: i64, scope: &mut Scope<'_>) -> Result<()> {
        match (self.plan.phase, self.processing()) {
            (Phase::Local, _) => self.flush(watermark, scope),
            (_, false) => self.fire_until(watermark, scope),
            // The clock decides, but a bounded input gets its last windows.
            (_, true) if watermark == END_OF_TIME => {
                self.on_clock(scope)?;
                self.fire_until(END_OF_TIME, scope)
            }
            (_, true) => Ok(()),
        }
    }

    fn on_clock(&mut self, scope: &mut Scope<'_>) -> Result<()> {
        if !self.processing() {
            return Ok(());
        }
        self.tick(scope.now_ms);
        self.fire_until(scope.now_ms.saturating_sub(1), scope)
    }

    fn clocked(&self) -> bool {
        self.processing()
    }

    fn before_barrier(&mut self, scope: &mut Scope<'_>) -> Result<()> {
        if self.plan.phase == Phase::Local {
            self.flush(END_OF_TIME, scope)?;
        }
        Ok(())
    }

    fn snapshot(&mut self, store: &mut dyn Store) -> Result<Vec<u8>> {
        // A local aggregate has passed everything on: a job without a local phase may go on from here.
        if self.plan.phase == Phase::Local {
            return Ok(Vec::new());
        }
        for (span, pane) in &mut self.panes {
            pane.put(*span, self.max_parallelism, store)?;
        }
        Ok(self.blob())
    }

    fn restore(&mut self, store: &mut dyn Store, blobs: &[Vec<u8>]) -> Result<()> {
        self.disk = store.kind() == Kind::Disk;
        let mut spans = Vec::new();
        let mut progress: Option<i64> = None;
        for blob in blobs.iter().filter(|blob| !blob.is_empty()) {
            let (time, arrived, theirs) = parse_blob(blob, &self.key_groups)?;
            progress = Some(progress.map_or(time, |known| known.min(time)));
            self.arrived = self.arrived.max(arrived);
            spans.extend(theirs);
        }
        self.progress = progress.unwrap_or(i64::MIN);
        if self.disk {
            for (span, stored) in spans.into_iter().filter(|(_, stored)| !stored.is_empty()) {
                if !self.panes.contains_key(&span) {
                    self.panes.insert(span, Pane::new(&self.key_types, &self.plan.aggregates)?);
                }
                let pane = self.panes.get_mut(&span).expect("inserted above");
                pane.spilled = true;
                pane.stored.extend(&stored);
            }
            return Ok(());
        }
        let mut pending: (Option<Span>, Vec<(Vec<u8>, Vec<u8>)>) = (None, Vec::new());
        store.scan(&[], &[0xff; 32], &mut |key, value| {
            let (span, key) = pane::parse(key)?;
            if pending.0 != Some(span) || pending.1.len() == 4096 {
                self.take_in(&mut pending)?;
                pending.0 = Some(span);
            }
            pending.1.push((key.to_vec(), value.to_vec()));
            Ok(true)
        })?;
        self.take_in(&mut pending)?;
        store.forget_restored();
        Ok(())
    }

    fn spill(&mut self, store: &mut dyn Store) -> Result<()> {
        for (span, pane) in self.panes.iter_mut().filter(|(_, pane)| !pane.keys.is_empty()) {
            pane.put(*span, self.max_parallelism, store)?;
            pane.spilled(Pane::new(&self.key_types, &self.plan.aggregates)?);
        }
        self.spare.clear();
        self.merged = Merged::new(&self.key_types, &self.plan.aggregates)?;
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        self.panes.values().map(Pane::memory_bytes).sum::<usize>() + self.merged.memory_bytes()
    }

    fn keyed(&self) -> bool {
        self.plan.phase != Phase::Local
    }

    fn late_rows(&self) -> u64 {
        self.late
    }

    fn null_time_rows(&self) -> u64 {
        self.null_time
    }
}

/// Version of the blob.
const VERSION: u8 = 2;

impl WindowAggregate {
    fn take_in(&mut self, pending: &mut (Option<Span>, Vec<(Vec<u8>, Vec<u8>)>)) -> Result<()> {
        if let Some(span) = pending.0 {
            if !self.panes.contains_key(&span) {
                self.panes.insert(span, Pane::new(&self.key_types, &self.plan.aggregates)?);
            }
            let pane = self.panes.get_mut(&span).expect("inserted above");
            self.arrived = self.arrived.max(1 + pane.take_in(&pending.1)?);
            pending.1.clear();
        }
        Ok(())
    }

    /// Version, progress, rows arrived, words of a set of key groups; then of each slice end, start and the key groups
    /// in which the store holds something of it. All in 8 bytes, little endian, but for the version.
    fn blob(&self) -> Vec<u8> {
        let words = self.panes.values().map(|pane| pane.stored.words().len()).max().unwrap_or(0);
        let mut blob = vec![VERSION];
        let mut put = |number: u64| blob.extend_from_slice(&number.to_le_bytes());
        put(self.progress as u64);
        put(self.arrived);
        put(words as u64);
        for ((end, start), pane) in &self.panes {
            put(*end as u64);
            put(*start as u64);
            (0..words).for_each(|i| put(pane.stored.words().get(i).copied().unwrap_or(0)));
        }
        blob
    }
}

type Slices = Vec<(Span, GroupSet)>;

/// Progress, rows arrived, and the slices with their key groups, those in `range` only.
fn parse_blob(blob: &[u8], range: &Range<u16>) -> Result<(i64, u64, Slices)> {
    let broken = || Error::corrupt("the state of a window aggregate has an unknown form");
    let [VERSION, rest @ ..] = blob else { return Err(broken()) };
    let (numbers, []) = rest.as_chunks::<8>() else { return Err(broken()) };
    let numbers: Vec<u64> = numbers.iter().map(|number| u64::from_le_bytes(*number)).collect();
    let [progress, arrived, words, slices @ ..] = numbers.as_slice() else { return Err(broken()) };
    let width = usize::try_from(*words).ok().filter(|words| *words <= 1024).ok_or_else(broken)? + 2;
    if slices.len() % width != 0 {
        return Err(broken());
    }
    let slice = |slice: &[u64]| ((slice[0] as i64, slice[1] as i64), GroupSet::from_words(&slice[2..], range.clone()));
    Ok((*progress as i64, *arrived, slices.chunks_exact(width).map(slice).collect()))
}

fn long(column: &ArrayRef) -> Result<&Int64Array> {
    column
        .as_any()
        .downcast_ref()
        .ok_or_else(|| Error::new(Code::Internal, "partial results end in two BIGINT columns"))
}

/// Ticks of a timestamp column in a millisecond.
pub(super) fn per_milli(column: &ArrayRef) -> Result<i64> {
    match column.data_type() {
        Arrow::Timestamp(TimeUnit::Millisecond, _) => Ok(1),
        Arrow::Timestamp(TimeUnit::Microsecond, _) => Ok(1_000),
        Arrow::Timestamp(TimeUnit::Nanosecond, _) => Ok(1_000_000),
        other => Err(Error::new(Code::Internal, format!("a time column of type {other}"))),
    }
}

#[cfg(test)]
mod tests;
