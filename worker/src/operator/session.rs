//! Session windows: per key, rows whose gaps are at most the session gap share a window [first row, last row + gap).
//! Rows out of order extend, bridge and merge sessions; a session fires when the watermark passes its last
//! millisecond. A row is late iff the session that it would be in (open ones included) has ended by the watermark.
//!
//! A session has one timer, set to the end it had then; when the timer is due and the session has grown, it is set
//! again. So a row costs no timer work.
//!
//! Over Disk the tables here are a write-back cache: they may be spilled, and then a key's sessions come back when it
//! has a row, or when the time for which the store has a timer of it is near. [`cold`] has the layout of the state.

use super::accumulate::Accumulators;
use super::window_aggregate::per_milli;
use super::{Operator, Scope};
use crate::error::{Code, Context, Error, Result};
use crate::frame::{BATCH_ROWS, END_OF_TIME};
use crate::keys::{KeyTable, NO_GROUP, Selection, as_i64, hash_rows};
use crate::state::Store;
use arrow_array::{Array, ArrayRef, RecordBatch, TimestampMillisecondArray, UInt32Array};
use arrow_schema::SchemaRef;
use cold::Cold;
use ef_proto::plan::{self, Output, Phase, Time, Window};
use ef_proto::schema::{DataType, Schema};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

mod cold;
mod stored;

/// Changed since the last put.
const DIRTY: u8 = 1;
/// The store has an entry of the key.
const STORED: u8 = 2;

/// Restored sessions that are kept in memory over Disk; the others wait in the store.
const RESTORE_BYTES: usize = 16 << 20;

/// An open session; its number is also its group in the accumulators.
#[derive(Clone, Copy)]
struct Session {
    start: i64,
    /// Its last row's time; it ends `gap` later.
    last: i64,
    key: u32,
    /// The key's next session, in no order.
    next: u32,
    /// False once fired or merged into another: the timer only gives the number back.
    open: bool,
}

pub struct SessionAggregate {
    plan: plan::WindowAggregate,
    gap: i64,
    schema: SchemaRef,
    max_parallelism: u16,
    key_groups: Range<u16>,
    key_types: Vec<DataType>,
    keys: KeyTable,
    /// A key's first session, by the key's group.
    heads: Vec<u32>,
    /// By the key's group.
    flags: Vec<u8>,
    sessions: Vec<Session>,
    free: Vec<u32>,
    accumulators: Accumulators,
    /// Due time (rounded up to `grain`) → sessions.
    timers: BTreeMap<i64, Vec<u32>>,
    grain: i64,
    watermark: i64,
    /// The processing clock, as far as sessions follow it.
    now: i64,
    arrived: u64,
    late: u64,
    null_time: u64,
    cold: Cold,
    restore_bytes: usize,
    /// Store keys without sessions since the last write.
    deleted: Vec<Vec<u8>>,
    hashes: Vec<u64>,
    groups: Vec<u32>,
    wide: Vec<i64>,
}

/// Rows whose sessions are known and that have not been added to the accumulators yet.
#[derive(Default)]
struct Pending {
    rows: Vec<u32>,
    sessions: Vec<u32>,
}

impl SessionAggregate {
    pub fn new(
        plan: &plan::WindowAggregate,
        input: &Schema,
        output: &Schema,
        max_parallelism: u16,
        key_groups: Range<u16>,
    ) -> Result<SessionAggregate> {
        let broken = |what: &str| Error::new(Code::Internal, format!("session aggregate: {what}"));
        let Window::Session { gap_ms } = plan.window else { return Err(broken("not a SESSION window")) };
        if plan.phase != Phase::Single {
            return Err(broken("sessions have no two phases"));
        }
        let types: Vec<DataType> = plan
            .keys
            .iter()
            .map(|key| {
                input.fields.get(*key).map(|field| field.ty.clone()).ok_or_else(|| broken("a key column is missing"))
            })
            .collect::<Result<_>>()?;
        Ok(SessionAggregate {
            plan: plan.clone(),
            gap: gap_ms,
            schema: output.to_arrow(),
            max_parallelism,
            key_groups,
            keys: KeyTable::new(&types)?,
            key_types: types,
            heads: Vec::new(),
            flags: Vec::new(),
            sessions: Vec::new(),
            free: Vec::new(),
            accumulators: Accumulators::new(&plan.aggregates, false)?,
            timers: BTreeMap::new(),
            grain: (gap_ms / 32).max(1),
            watermark: i64::MIN,
            now: i64::MIN,
            arrived: 0,
            late: 0,
            null_time: 0,
            cold: Cold::default(),
            restore_bytes: RESTORE_BYTES,
            deleted: Vec::new(),
            hashes: Vec::new(),
            groups: Vec::new(),
            wide: Vec::new(),
        })
    }

    fn processing(&self) -> bool {
        self.plan.time == Time::Processing
    }

    fn end(&self, session: u32) -> i64 {
        self.sessions[session as usize].last.saturating_add(self.gap)
    }

    /// Where the timer of a session with this last row belongs: its end, rounded up.
    fn due(&self, last: i64) -> i64 {
        let end = last.saturating_add(self.gap);
        end.saturating_add(end.wrapping_neg().rem_euclid(self.grain))
    }

    fn set_timer(&mut self, session: u32) {
        let due = self.due(self.sessions[session as usize].last);
        self.timers.entry(due).or_default().push(session);
    }

    fn open(&mut self, key: u32, start: i64, last: i64) -> u32 {
        let session = Session { start, last, key, next: self.heads[key as usize], open: true };
        let number = match self.free.pop() {
            Some(number) => {
                self.sessions[number as usize] = session;
                number
            }
            None => {
                self.sessions.push(session);
                self.sessions.len() as u32 - 1
            }
        };
        self.accumulators.resize(self.sessions.len());
        self.heads[key as usize] = number;
        self.set_timer(number);
        number
    }

    /// Takes the session out of its key's list.
    fn unlink(&mut self, number: u32) {
        let Session { key, next, .. } = self.sessions[number as usize];
        let head = &mut self.heads[key as usize];
        if *head == number {
            *head = next;
            return;
        }
        let mut at = *head;
        while self.sessions[at as usize].next != number {
            at = self.sessions[at as usize].next;
        }
        self.sessions[at as usize].next = next;
    }

    /// The session of a row of `key` at `time`; None if it is late.
    #[inline]
    fn place(
        &mut self,
        key: u32,
        time: i64,
        pending: &mut Pending,
        columns: &[ArrayRef],
        first: u64,
    ) -> Result<Option<u32>> {
        // Nearly always: one session, which the row extends or falls into.
        let head = self.heads[key as usize];
        if head != NO_GROUP {
            let session = &mut self.sessions[head as usize];
            if session.next == NO_GROUP && time >= session.start && time <= session.last.saturating_add(self.gap) {
                session.last = session.last.max(time);
                return Ok(Some(head));
            }
        }
        let end = time.saturating_add(self.gap);
        let mut found: Option<u32> = None;
        let mut at = head;
        while at != NO_GROUP {
            let session = self.sessions[at as usize];
            if time <= session.last.saturating_add(self.gap) && end >= session.start {
                match found {
                    None => {
                        let session = &mut self.sessions[at as usize];
                        session.start = session.start.min(time);
                        session.last = session.last.max(time);
                        found = Some(at);
                    }
                    Some(into) => {
                        // The row bridges two sessions; what was meant for either must be in before they merge.
                        self.flush(pending, columns, first)?;
                        self.absorb(into, at)?;
                    }
                }
            }
            at = session.next;
        }
        if found.is_none() && end.saturating_sub(1) <= self.watermark && !self.processing() {
            return Ok(None);
        }
        Ok(Some(match found {
            Some(number) => number,
            None => self.open(key, time, time),
        }))
    }

    fn absorb(&mut self, into: u32, from: u32) -> Result<()> {
        self.unlink(from);
        let Session { start, last, .. } = self.sessions[from as usize];
        let session = &mut self.sessions[into as usize];
        session.start = session.start.min(start);
        session.last = session.last.max(last);
        self.sessions[from as usize].open = false;
        // A cell cannot be merged out of the vector that it is merged into: through bytes, as merges are rare.
        let mut bytes = Vec::new();
        self.accumulators.put(from, &mut bytes);
        self.accumulators.merge_bytes(into, &mut bytes.as_slice())?;
        self.accumulators.reset(from);
        Ok(())
    }

    fn flush(&mut self, pending: &mut Pending, columns: &[ArrayRef], first: u64) -> Result<()> {
        if pending.rows.is_empty() {
            return Ok(());
        }
        let rows = columns.iter().map(|c| c.len()).max().unwrap_or(pending.rows.len());
        let whole = pending.rows.len() == rows;
        if whole {
            self.accumulators.update(&pending.sessions, columns, None, first, Selection::All(rows))?;
        } else {
            let chosen = UInt32Array::from(pending.rows.clone());
            let mut part = columns.to_vec();
            for index in Accumulators::columns(&self.plan.aggregates) {
                part[index] =
                    arrow_select::take::take(&part[index], &chosen, None).internal(|| "rows of sessions".into())?;
            }
            self.accumulators.update(&pending.sessions, &part, None, first, Selection::Some(&pending.rows))?;
        }
        pending.rows.clear();
        pending.sessions.clear();
        Ok(())
    }

    fn fire_until(&mut self, time: i64, scope: &mut Scope<'_>) -> Result<()> {
        // Timers are rounded up: the buckets that may hold an end of time + 1 reach one grain further.
        let reach = time.saturating_add(1).saturating_add(self.grain - 1);
        loop {
            let keys = self.cold.take_due(reach, BATCH_ROWS, scope.store)?;
            self.load_due(&keys, reach, scope.store)?;
            self.fire_loaded(time, reach, scope)?;
            if keys.is_empty() {
                break;
            }
        }
        self.watermark = self.watermark.max(time);
        Ok(())
    }

    /// Forgets those of these keys that have no session here; they are new to the table.
    fn remove_empty(&mut self, keys: &[u32]) {
        for key in keys {
            if self.heads[*key as usize] == NO_GROUP {
                self.flags[*key as usize] = 0;
                self.keys.remove(*key);
            }
        }
    }

    /// Fires what is due by `time` of the sessions in memory.
    fn fire_loaded(&mut self, time: i64, reach: i64, scope: &mut Scope<'_>) -> Result<()> {
        let mut due: Vec<(i64, i64, u32)> = Vec::new();
        let mut again = Vec::new();
        while let Some(entry) = self.timers.first_entry() {
            if *entry.key() > reach {
                break;
            }
            for number in entry.remove() {
                let session = self.sessions[number as usize];
                if !session.open {
                    self.free.push(number);
                } else if self.end(number).saturating_sub(1) <= time {
                    due.push((self.end(number), session.start, number));
                } else {
                    again.push(number);
                }
            }
        }
        again.into_iter().for_each(|number| self.set_timer(number));
        due.sort_unstable();
        for chunk in due.chunks(BATCH_ROWS) {
            let numbers: Vec<u32> = chunk.iter().map(|(_, _, number)| *number).collect();
            let keys: Vec<u32> = numbers.iter().map(|number| self.sessions[*number as usize].key).collect();
            let mut columns = self.keys.export(&keys)?;
            columns.extend(self.accumulators.finish(&numbers)?);
            columns.push(self.stamps(chunk.iter().map(|(_, start, _)| *start)));
            columns.push(self.stamps(chunk.iter().map(|(end, ..)| *end)));
            columns.push(self.stamps(chunk.iter().map(|(end, ..)| *end - 1)));
            let batch =
                RecordBatch::try_new(self.schema.clone(), columns).internal(|| "session aggregate's output".into())?;
            scope.out.emit(batch)?;
        }
        for (_, _, number) in due {
            let key = self.sessions[number as usize].key;
            self.unlink(number);
            self.accumulators.reset(number);
            self.sessions[number as usize].open = false;
            self.free.push(number);
            self.flags[key as usize] |= DIRTY;
            if self.heads[key as usize] == NO_GROUP {
                self.forget_key(key);
            }
        }
        Ok(())
    }

    fn stamps(&self, times: impl Iterator<Item = i64>) -> ArrayRef {
        let array = TimestampMillisecondArray::from_iter_values(times);
        Arc::new(if self.plan.ltz { array.with_timezone("UTC") } else { array })
    }

    fn forget_key(&mut self, key: u32) {
        if self.flags[key as usize] & STORED != 0 {
            let mut bytes = Vec::new();
            self.store_key(key, &mut bytes);
            self.deleted.push(bytes);
        }
        self.flags[key as usize] = 0;
        self.keys.remove(key);
    }

    fn resize_keys(&mut self) {
        let bound = self.keys.bound().max(self.heads.len());
        self.heads.resize(bound, NO_GROUP);
        self.flags.resize(bound, 0);
    }
}

impl Operator for SessionAggregate {
    fn on_batch(&mut self, _input: usize, batch: RecordBatch, scope: &mut Scope<'_>) -> Result<()> {
        self.now = self.now.max(scope.now_ms);
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        let columns: Vec<ArrayRef> = self.plan.keys.iter().map(|key| batch.column(*key).clone()).collect();
        hash_rows(&columns, &mut self.hashes)?;
        let mut groups = std::mem::take(&mut self.groups);
        let hashes = std::mem::take(&mut self.hashes);
        self.keys.intern(&columns, &hashes, Selection::All(rows), &mut groups)?;
        self.resize_keys();
        let fresh: Vec<u32> = self.keys.fresh().iter().map(|(key, _)| *key).collect();
        if !self.cold.is_empty() {
            self.look_up(&fresh, None, scope.store)?;
        }

        let first = self.arrived;
        self.arrived += rows as u64;
        let mut wide = std::mem::take(&mut self.wide);
        let mut pending = Pending { rows: Vec::with_capacity(rows), sessions: Vec::with_capacity(rows) };
        let mut late = Vec::new();
        let now = self.now;
        {
            let (times, unit) = match self.plan.time {
                Time::Processing => (None, 1),
                Time::Event { column } => (Some(batch.column(column)), per_milli(batch.column(column))?),
            };
            let nulls = times.and_then(|times| times.nulls()).filter(|nulls| nulls.null_count() > 0);
            let values = times.map(|times| as_i64(times, &mut wide));
            for (row, key) in groups.iter().enumerate() {
                if nulls.is_some_and(|nulls| nulls.is_null(row)) {
                    self.null_time += 1;
                    continue;
                }
                let time =
                    values.map_or(now, |values| if unit == 1 { values[row] } else { values[row].div_euclid(unit) });
                match self.place(*key, time, &mut pending, batch.columns(), first)? {
                    Some(session) => {
                        self.flags[*key as usize] |= DIRTY;
                        pending.rows.push(row as u32);
                        pending.sessions.push(session);
                    }
                    None => late.push(row as u32),
                }
            }
        }
        self.flush(&mut pending, batch.columns(), first)?;
        // Keys that came with late rows only have no session.
        self.remove_empty(&fresh);
        self.late += late.len() as u64;
        if !late.is_empty() && self.plan.late_output {
            let late = arrow_select::take::take_record_batch(&batch, &UInt32Array::from(late))
                .internal(|| "late rows".into())?;
            scope.out.emit_to(Output::Late, late)?;
        }
        (self.groups, self.hashes, self.wide) = (groups, hashes, wide);
        Ok(())
    }

    fn on_watermark(&mut self, watermark: i64, scope: &mut Scope<'_>) -> Result<()> {
        if !self.processing() {
            return self.fire_until(watermark, scope);
        }
        if watermark == END_OF_TIME {
            self.on_clock(scope)?;
            return self.fire_until(END_OF_TIME, scope);
        }
        Ok(())
    }

    fn on_clock(&mut self, scope: &mut Scope<'_>) -> Result<()> {
        if !self.processing() {
            return Ok(());
        }
        self.now = self.now.max(scope.now_ms);
        self.fire_until(self.now.saturating_sub(1), scope)
    }

    fn clocked(&self) -> bool {
        self.processing()
    }

    fn snapshot(&mut self, store: &mut dyn Store) -> Result<Vec<u8>> {
        self.write(store)?;
        let mut blob = vec![VERSION];
        blob.extend_from_slice(&self.watermark.to_le_bytes());
        blob.extend_from_slice(&self.arrived.to_le_bytes());
        Ok(blob)
    }

    fn restore(&mut self, store: &mut dyn Store, blobs: &[Vec<u8>]) -> Result<()> {
        let mut watermark: Option<i64> = None;
        for blob in blobs {
            let broken = || Error::corrupt("the state of a session aggregate has an unknown form");
            let [VERSION, rest @ ..] = blob.as_slice() else { return Err(broken()) };
            let (time, arrived) = rest.split_first_chunk::<8>().ok_or_else(broken)?;
            let time = i64::from_le_bytes(*time);
            watermark = Some(watermark.map_or(time, |known| known.min(time)));
            self.arrived = self.arrived.max(u64::from_le_bytes(arrived.try_into().map_err(|_| broken())?));
        }
        self.watermark = watermark.unwrap_or(i64::MIN);
        self.take_all(store)
    }

    fn spill(&mut self, store: &mut dyn Store) -> Result<()> {
        self.move_out(store)
    }

    fn memory_bytes(&self) -> usize {
        let sessions = self.sessions.capacity() * std::mem::size_of::<Session>();
        let timers = (self.sessions.len() + self.timers.len() * 16) * 4;
        self.keys.memory_bytes()
            + self.accumulators.memory_bytes()
            + self.heads.capacity() * 5
            + sessions
            + timers
            + self.cold.memory_bytes()
    }

    fn keyed(&self) -> bool {
        true
    }

    fn late_rows(&self) -> u64 {
        self.late
    }

    fn null_time_rows(&self) -> u64 {
        self.null_time
    }
}

/// Version of the blob, and of the layout of the state.
const VERSION: u8 = 2;

#[cfg(test)]
mod tests;
