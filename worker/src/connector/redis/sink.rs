//! The sink: rows are gathered until there are enough, they have waited long enough, or a barrier comes; a barrier waits
//! until Redis has answered for all of them. What Redis has answered for is as durable as its own configuration makes it.

use super::epochs::{Epochs, HELD_BYTES_MAX, too_much, waits};
use super::pending::{Batch, Pending};
use super::row::Rows;
use super::server::Server;
use crate::connector::delivery::{Outbox, Parcel, start};
use crate::connector::net::retry::Policy;
use crate::connector::{CommitPermit, Place, Sink};
use crate::error::Result;
use arrow_array::RecordBatch;
use ef_proto::connector::{Format, RedisSink as Options};
use ef_proto::ids::Epoch;
use ef_proto::plan;
use ef_proto::schema::{RowKind, Schema};

/// A batch is sent when it has so many bytes, however few rows they are.
const BATCH_BYTES: usize = 1 << 20;

pub struct RedisSink {
    rows: Rows,
    pending: Pending,
    outbox: Outbox<Batch>,
    /// What waits for its checkpoint, where rows do.
    epochs: Option<Epochs>,
    table: String,
    flush_rows: usize,
    flush_interval_ms: u64,
    now_ms: i64,
    /// Since when the oldest row waits.
    since_ms: Option<i64>,
    bytes_written: u64,
}

impl RedisSink {
    /// `restored`: the parts of all old subtasks in the checkpoint that the job goes on from.
    pub fn open(
        options: &Options,
        sink: &plan::Sink,
        schema: &Schema,
        place: &Place,
        restored: &[Vec<u8>],
    ) -> Result<RedisSink> {
        let format: Option<&Format> = sink.format.as_ref();
        let server = Server::new(&options.server, place)?;
        let outbox = start(server, Policy { retries_max: options.max_retries }, place, "redis")?;
        // It is recorded, and may not have been written. Before the next checkpoint it is: no newer row overtakes it.
        let mine = restored.iter().skip(place.index as usize).step_by(place.parallelism.max(1) as usize);
        for blob in mine {
            outbox.preload(Epochs::decode(blob)?);
        }
        Ok(RedisSink {
            rows: Rows::new(options, format, schema, &sink.keys, sink.changelog, &sink.table)?,
            pending: Pending::new(options.mode.upserts()),
            outbox,
            epochs: waits(options).then(Epochs::default),
            table: sink.table.clone(),
            flush_rows: usize::try_from(options.flush_rows).unwrap_or(usize::MAX),
            flush_interval_ms: options.flush_interval_ms,
            now_ms: place.now_ms,
            since_ms: None,
            bytes_written: 0,
        })
    }

    fn is_full(&self) -> bool {
        self.epochs.is_none() && self.has_enough()
    }

    fn has_enough(&self) -> bool {
        self.pending.rows() >= self.flush_rows || self.pending.bytes() >= BATCH_BYTES
    }

    fn flush(&mut self) -> Result<()> {
        self.since_ms = None;
        if self.pending.is_empty() {
            return Ok(());
        }
        let batch = self.pending.take();
        self.send(batch)
    }

    fn send(&mut self, batch: Batch) -> Result<()> {
        self.bytes_written += batch.bytes() as u64;
        self.outbox.push(batch)
    }
}

impl Sink for RedisSink {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let prepared = self.rows.prepare(batch)?;
        for row in 0..batch.num_rows() {
            self.rows.put(&prepared, row, &mut self.pending)?;
            // Not between -U and +U: for that moment there would be no row.
            if self.is_full() && prepared.kind(row) != RowKind::UpdateBefore {
                self.flush()?;
            }
        }
        if let Some(epochs) = &self.epochs {
            let held = self.pending.bytes() + epochs.bytes();
            return if held > HELD_BYTES_MAX { Err(too_much(&self.table, held, HELD_BYTES_MAX)) } else { Ok(()) };
        }
        if !self.pending.is_empty() {
            self.since_ms.get_or_insert(self.now_ms);
        }
        Ok(())
    }

    fn prepare(&mut self, epoch: Epoch) -> Result<Vec<u8>> {
        if let Some(epochs) = &mut self.epochs {
            epochs.hold(epoch, self.pending.take());
        } else {
            self.flush()?;
        }
        self.outbox.settle()?;
        self.epochs.as_ref().map_or(Ok(Vec::new()), |epochs| epochs.encode(&self.table))
    }

    /// What is committed is written: the next checkpoint does not hold it any more.
    fn commit(&mut self, permit: &CommitPermit) -> Result<()> {
        let Some(epochs) = &mut self.epochs else { return Ok(()) };
        epochs.due(permit.epoch()).into_iter().try_for_each(|batch| self.send(batch))?;
        self.outbox.settle()
    }

    /// Never waits: a batch for which there is no room is sent at a later tick.
    fn on_clock(&mut self, now_ms: i64) -> Result<()> {
        self.now_ms = now_ms;
        let waited = self.since_ms.is_some_and(|since| now_ms - since >= self.flush_interval_ms as i64);
        let has_room = self.outbox.has_room(self.pending.bytes())?;
        if self.flush_interval_ms > 0 && waited && has_room { self.flush() } else { Ok(()) }
    }

    fn interrupt(&self) -> Option<Box<dyn FnOnce() + Send>> {
        Some(self.outbox.interrupt())
    }

    fn bytes_written(&self) -> u64 {
        self.bytes_written
    }
}
