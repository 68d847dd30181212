//! The source's subtask: reads the logs of its slots, decodes one row a message, leaves out what it has seen.
//!
//! A position is a record's number, so a restore reads on in the log. Files of the log go when a checkpoint that needs
//! none of their records has completed, and the one before it too: one that turns out to be damaged has a predecessor.
//! Where keys are compared, a restore first reads what was before its position, for the keys alone.

use super::dedup::Dedup;
use super::ingest::{SharedClock, Subscription};
use super::log::record::{self, Head, Kind, Record};
use super::metadata::Metadata;
use super::packet::{PACKET_BYTES, Properties, Value, property};
use super::position::{self, SlotPosition};
use super::slot::Slot;
use crate::connector::{Clock, Counts, Place, Polled, Source, SourceBatch};
use crate::error::{Code, Context, Error, Result};
use crate::format::{DecodeError, Decoder, ErrorRows, Nulled};
use crate::frame::{BATCH_BYTES, BATCH_ROWS};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int8Type, Int16Type, Int32Type, Int64Type};
use arrow_array::{Array, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow_schema::{DataType as Arrow, SchemaRef};
use ef_proto::connector::{MqttAck, MqttKey, MqttSource as Options, OnError};
use ef_proto::ids::Epoch;
use ef_proto::plan;
use ef_proto::schema::Schema;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

/// Longest answer of `Wait`.
const WAIT_MS: u64 = 5;

/// Completed checkpoints whose records stay.
const RETAINED: usize = 2;

/// Skipped rows that close a batch.
const ERRORS_MAX: usize = 1024;

/// Which key a record has.
enum Key {
    None,
    /// Position in the schema.
    Column(usize),
    Property(String),
}

pub struct MqttSource {
    table: String,
    ack: MqttAck,
    filters: Vec<String>,
    /// Of earlier versions of the job, which a session may still have.
    old_filters: Vec<String>,
    schema: SchemaRef,
    decoder: Box<dyn Decoder>,
    metadata: Metadata,
    key: Key,
    slots: Vec<Slot>,
    /// The slot that is read next.
    turn: usize,
    events: VecDeque<Polled>,
    /// Of the open batch: number and time of each row's record.
    rows: Vec<(u64, i64)>,
    errors: ErrorRows,
    nulled: Nulled,
    nulled_told: bool,
    /// To be returned by the next poll: what came before it has been delivered.
    failed: Option<Error>,
    duplicates: u64,
}

impl MqttSource {
    pub fn new(
        source: &plan::Source,
        options: &Options,
        place: &Place,
        restored: &[Vec<u8>],
        clock: Clock,
    ) -> Result<MqttSource> {
        let in_table = |error: Error| Error::new(error.code, format!("table \"{}\": {}", source.table, error.message));
        Self::open(source, options, place, restored, clock).map_err(in_table)
    }

    fn open(
        source: &plan::Source,
        options: &Options,
        place: &Place,
        restored: &[Vec<u8>],
        clock: Clock,
    ) -> Result<MqttSource> {
        let format = source.format.as_ref().ok_or_else(|| Error::invalid("an mqtt source needs a 'format'"))?;
        let is_metadata = |index: usize| source.metadata.iter().any(|(at, _)| *at == index);
        let fields = source.physical.fields.iter().enumerate();
        let decoded = fields.filter(|(index, _)| !is_metadata(*index)).map(|(_, field)| field.clone()).collect();
        let mut metadata: Vec<_> = source.metadata.iter().collect();
        metadata.sort_by_key(|(index, _)| *index);
        let column = |(index, key): &&(usize, String)| (*index, source.physical.fields[*index].clone(), key.clone());
        let metadata: Vec<_> = metadata.iter().map(column).collect();
        let key = match options.dedup.as_ref().map(|dedup| &dedup.key) {
            None => Key::None,
            Some(MqttKey::UserProperty(name)) => Key::Property(name.clone()),
            Some(MqttKey::Column(name)) => {
                let at = source.physical.index_of(name);
                Key::Column(at.ok_or_else(|| Error::new(Code::Internal, format!("column `{name}` was pruned")))?)
            }
        };
        let mut decoder = crate::connector::formats::decoder(format, &Schema::new(decoded), place)?;
        decoder.begin(false);
        // A process that keeps nothing has no log that outlives a deployment either.
        let options = &Options {
            ack: if place.durable.is_some() { options.ack } else { MqttAck::Checkpoint },
            ..options.clone()
        };
        let restored = position::read(restored, options.ack)?;
        let clock: SharedClock = Arc::new(Mutex::new(clock));
        let current = filters(options);
        let old_filters: Vec<String> = restored.filters.iter().filter(|old| !current.contains(old)).cloned().collect();
        let mut slots = Vec::new();
        for number in position::deal(&restored, options.group.is_some(), place.index, place.parallelism) {
            let old = restored.slots.get(&number);
            // Without a group every session with the filters gets every message: one is enough. In those of a group that was
            // given up, and in their logs, there may be messages yet.
            let (filters, others) = if options.group.is_some() || number == 0 {
                (current.clone(), old_filters.clone())
            } else {
                (Vec::new(), [&old_filters[..], &current].concat())
            };
            let subscription = Subscription { filters, old_filters: others, qos: options.qos };
            slots.push(Slot::open(number, slots.len(), options, place, old, subscription, &clock)?);
        }
        let mut events: VecDeque<_> = slots.iter().map(|slot| Polled::Opened(slot.lane)).collect();
        if slots.is_empty() {
            // Another subtask has the only connection.
            events.push_back(Polled::Idle);
        }
        Ok(MqttSource {
            table: source.table.clone(),
            ack: options.ack,
            filters: current,
            old_filters,
            schema: source.physical.to_arrow(),
            decoder,
            metadata: Metadata::new(&metadata)?,
            key,
            slots,
            turn: 0,
            events,
            rows: Vec::new(),
            errors: ErrorRows::default(),
            nulled: Nulled::default(),
            nulled_told: false,
            failed: None,
            duplicates: 0,
        })
    }

    /// Reads records of one slot into the open batch; true: some were there.
    fn read(&mut self, at: usize, bytes: &mut u64) -> Result<bool> {
        let slot = &mut self.slots[at];
        let mut any = false;
        while self.rows.len() < BATCH_ROWS && *bytes < BATCH_BYTES as u64 && self.errors.len() < ERRORS_MAX {
            let Some((chunk, mut from)) = slot.take_chunk()? else { break };
            any = true;
            while let Some((record, behind)) = record::record(&chunk, from) {
                if self.rows.len() >= BATCH_ROWS || *bytes >= BATCH_BYTES as u64 || self.errors.len() >= ERRORS_MAX {
                    break;
                }
                if self.ack == MqttAck::Checkpoint {
                    record.apply(&mut slot.outstanding);
                }
                let (number, emit) = (slot.next, slot.next >= slot.emit_from);
                if record.kind == Kind::Message {
                    let known = match (&self.key, &mut slot.dedup) {
                        (Key::Property(name), Some(dedup)) => user_property(&record, name)
                            .is_some_and(|key| !dedup.is_new(key, number, record.received_ms)),
                        _ => false,
                    };
                    if known {
                        self.duplicates += u64::from(emit);
                    } else if emit || matches!(self.key, Key::Column(_)) {
                        *bytes += record.payload.len() as u64;
                        if let Err(error) = decode(
                            self.decoder.as_mut(),
                            &mut self.metadata,
                            &mut self.nulled,
                            &mut self.rows,
                            &record,
                            number,
                        ) && emit
                        {
                            let topic = String::from_utf8_lossy(record.topic);
                            match self.decoder.on_error() {
                                OnError::Skip | OnError::Null if !error.fatal => {
                                    self.errors.push(&self.table, Some(&topic), Some(number), &error);
                                }
                                _ => {
                                    let what =
                                        format!("message {number} of `{}` on topic `{topic}`: {error}", slot.name);
                                    self.failed = Some(Error::invalid(what));
                                    // A restart meets it again.
                                    slot.chunk = None;
                                    return Ok(true);
                                }
                            }
                        }
                    }
                }
                slot.next += 1;
                from = behind;
            }
            slot.chunk = Head::read(&chunk).filter(|head| head.end() > slot.next).map(|_| (chunk, from));
        }
        Ok(any)
    }

    /// The open batch with its METADATA columns, without what has been seen, or was read for its keys alone.
    fn take_batch(&mut self, at: usize) -> Result<RecordBatch> {
        let batch = self.decoder.take()?;
        let mut columns = batch.columns().to_vec();
        for (position, column) in self.metadata.finish() {
            columns.insert(position, column);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options);
        let batch = batch.internal(|| "metadata columns".into())?;
        let rows = std::mem::take(&mut self.rows);
        let slot = &mut self.slots[at];
        let mut kept = Vec::with_capacity(rows.len());
        if let (Key::Column(column), Some(dedup)) = (&self.key, &mut slot.dedup) {
            let column = batch.column(*column);
            for (row, (number, received_ms)) in rows.iter().enumerate() {
                let emit = *number >= slot.emit_from;
                let new =
                    with_key(column.as_ref(), row, |key| dedup.is_new(key, *number, *received_ms)).unwrap_or(true);
                self.duplicates += u64::from(emit && !new);
                kept.push(emit && new);
            }
        }
        let evicted = slot.dedup.as_mut().map_or(0, Dedup::take_evicted);
        if evicted > 0 {
            tracing::warn!(
                "{}: {evicted} keys left 'mqtt.dedup.window' before their time; 'mqtt.dedup.max-size' is too small for it, or \
                 half of 'ingest.log.max-size', which holds the messages of all keys",
                slot.name
            );
        }
        self.rows = rows;
        self.rows.clear();
        if kept.iter().all(|kept| *kept) {
            return Ok(batch);
        }
        let kept = arrow_select::filter::filter_record_batch(&batch, &BooleanArray::from(kept));
        kept.internal(|| "new rows".into())
    }

    fn positions(&self) -> Vec<SlotPosition> {
        let slot = |slot: &Slot| SlotPosition {
            slot: slot.number,
            log: slot.log,
            next: slot.position(),
            keep: slot.floor(),
            outstanding: slot.outstanding.iter().copied().collect(),
        };
        self.slots.iter().map(slot).collect()
    }
}

/// As they are subscribed to.
fn filters(options: &Options) -> Vec<String> {
    let shared = |filter: &String| match &options.group {
        Some(group) => format!("$share/{group}/{filter}"),
        None => filter.clone(),
    };
    options.filters.iter().map(shared).collect()
}

/// One row, or more where the format makes more of a message.
fn decode(
    decoder: &mut dyn Decoder,
    metadata: &mut Metadata,
    nulled: &mut Nulled,
    rows: &mut Vec<(u64, i64)>,
    record: &Record,
    number: u64,
) -> std::result::Result<(), Box<DecodeError>> {
    if record.cut {
        let reason = format!("the message is longer than {} MiB", PACKET_BYTES >> 20);
        return Err(Box::new(DecodeError::new(0, 0, None, reason, record.payload)));
    }
    for _ in 0..decoder.decode_record(record.payload, nulled)? {
        metadata.push(record);
        rows.push((number, record.received_ms));
    }
    Ok(())
}

fn user_property<'a>(record: &Record<'a>, name: &str) -> Option<&'a [u8]> {
    let mut properties = Properties(record.properties);
    while let Ok(Some((id, value))) = properties.read() {
        if let (property::USER, Value::Pair(found, value)) = (id, value)
            && found == name.as_bytes()
        {
            return Some(value);
        }
    }
    None
}

/// None where the row has no key.
fn with_key<T>(column: &dyn Array, row: usize, take: impl FnOnce(&[u8]) -> T) -> Option<T> {
    if column.is_null(row) {
        return None;
    }
    Some(match column.data_type() {
        Arrow::Utf8 => take(column.as_string::<i32>().value(row).as_bytes()),
        Arrow::Binary => take(column.as_binary::<i32>().value(row)),
        Arrow::Int8 => take(&column.as_primitive::<Int8Type>().value(row).to_le_bytes()),
        Arrow::Int16 => take(&column.as_primitive::<Int16Type>().value(row).to_le_bytes()),
        Arrow::Int32 => take(&column.as_primitive::<Int32Type>().value(row).to_le_bytes()),
        Arrow::Int64 => take(&column.as_primitive::<Int64Type>().value(row).to_le_bytes()),
        _ => return None,
    })
}

impl Source for MqttSource {
    fn poll(&mut self, _watermarks: &[i64]) -> Result<Polled> {
        if let Some(event) = self.events.pop_front() {
            return Ok(event);
        }
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        for _ in 0..self.slots.len() {
            let at = self.turn % self.slots.len();
            self.turn = at + 1;
            let mut bytes = 0;
            if !self.read(at, &mut bytes)? && self.failed.is_none() {
                continue;
            }
            let batch = self.take_batch(at)?;
            let errors = self.errors.take()?;
            let nulled = std::mem::take(&mut self.nulled);
            let told = nulled.first.filter(|_| !std::mem::replace(&mut self.nulled_told, true));
            return Ok(Polled::Batch(SourceBatch {
                lane: self.slots[at].lane,
                batch,
                errors,
                field_errors: nulled.fields,
                field_error: told.map(|error| format!("a message of {}: {error}", self.slots[at].name)),
                bytes,
            }));
        }
        Ok(Polled::Wait(WAIT_MS))
    }

    fn position(&self) -> Result<Vec<u8>> {
        let mut filters = self.filters.clone();
        if !self.slots.iter().all(|slot| slot.ingest.shared.is_unsubscribed()) {
            filters.extend_from_slice(&self.old_filters);
        }
        position::write(self.ack, &filters, self.positions())
    }

    fn bounded(&self) -> bool {
        false
    }

    fn snapshot(&mut self, epoch: Epoch) -> Result<Vec<u8>> {
        for slot in &mut self.slots {
            let (position, floor) = (slot.position(), slot.floor());
            slot.snapshots.push_back((epoch, position, floor));
        }
        self.position()
    }

    fn completed(&mut self, epoch: Epoch) -> Result<()> {
        for slot in &mut self.slots {
            while let Some((_, position, floor)) = slot.snapshots.pop_front_if(|(of, ..)| *of <= epoch) {
                if slot.snapshots.front().is_some_and(|(of, ..)| *of <= epoch) {
                    continue;
                }
                slot.ingest.shared.cover(position);
                slot.floors.push_back(floor);
            }
            while slot.floors.len() > RETAINED {
                slot.floors.pop_front();
            }
            if let (RETAINED, Some(floor)) = (slot.floors.len(), slot.floors.front()) {
                slot.ingest.trim(*floor);
            }
        }
        Ok(())
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts { duplicates: self.duplicates, ..Counts::default() };
        for slot in &self.slots {
            let counters = &slot.ingest.shared.counters;
            counts.connection_errors += counters.troubles.load(Ordering::Relaxed);
            counts.lost += counters.lost.load(Ordering::Relaxed);
        }
        counts
    }
}
