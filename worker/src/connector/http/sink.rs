//! The sink: rows become JSON as they come, and requests when there are enough of them, they have waited long enough, or a
//! barrier comes; a barrier waits until the service has taken them all.

use super::body::{Batch, Request};
use super::post::Poster;
use crate::connector::delivery::{Outbox, Parcel, start};
use crate::connector::formats;
use crate::connector::net::guard::Guard;
use crate::connector::net::retry::Policy;
use crate::connector::{CommitPermit, Place, Sink};
use crate::error::{Code, Error, Result};
use crate::format::encode::Encoder;
use arrow_array::RecordBatch;
use ef_proto::connector::HttpSink as Options;
use ef_proto::ids::Epoch;
use ef_proto::plan;
use ef_proto::schema::Schema;

pub struct HttpSink {
    encoder: Box<dyn Encoder>,
    /// Encoded rows, and where each ends; kept for their memory.
    encoded: Vec<u8>,
    ends: Vec<usize>,
    batch: Batch,
    outbox: Outbox<Request>,
    interval_ms: u64,
    bytes_max: usize,
    now_ms: i64,
    /// Since when the oldest row waits.
    since_ms: Option<i64>,
    bytes_written: u64,
}

impl HttpSink {
    /// `restored`: the checkpoint that the job goes on from.
    pub fn open(
        options: &Options,
        sink: &plan::Sink,
        schema: &Schema,
        place: &Place,
        restored: Option<&CommitPermit>,
    ) -> Result<HttpSink> {
        let format = sink.format.as_ref();
        let format = format
            .ok_or_else(|| Error::new(Code::Internal, format!("the plan's sink `{}` has no format", sink.table)))?;
        let poster = Poster::new(options, place, Guard::of_process())?;
        let outbox = start(poster, Policy { retries_max: options.max_retries }, place, "http")?;
        let epoch = restored.map(CommitPermit::epoch);
        Ok(HttpSink {
            encoder: formats::encoder(format, schema, false, place)?,
            encoded: Vec::new(),
            ends: Vec::new(),
            batch: Batch::new(options.body, options.batch_rows, options.batch_bytes, place, epoch),
            outbox,
            interval_ms: options.batch_interval_ms,
            bytes_max: usize::try_from(options.batch_bytes).unwrap_or(usize::MAX),
            now_ms: place.now_ms,
            since_ms: None,
            bytes_written: 0,
        })
    }

    fn push(&mut self, request: Option<Request>) -> Result<()> {
        let Some(request) = request else { return Ok(()) };
        self.since_ms = None;
        self.bytes_written += request.bytes() as u64;
        self.outbox.push(request)
    }

    fn flush(&mut self) -> Result<()> {
        let request = self.batch.take();
        self.push(request)
    }
}

impl Sink for HttpSink {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.encoded.clear();
        self.ends.clear();
        self.encoder.encode_rows(batch, &mut self.encoded, &mut self.ends)?;
        let mut start = 0;
        for at in 0..self.ends.len() {
            let end = self.ends[at];
            for request in self.batch.push(&self.encoded[start..end]) {
                self.push(request)?;
            }
            start = end;
        }
        if !self.batch.is_empty() {
            self.since_ms.get_or_insert(self.now_ms);
        }
        Ok(())
    }

    fn prepare(&mut self, epoch: Epoch) -> Result<Vec<u8>> {
        self.flush()?;
        self.outbox.settle()?;
        self.batch.barrier(epoch);
        Ok(Vec::new())
    }

    fn commit(&mut self, _permit: &CommitPermit) -> Result<()> {
        Ok(())
    }

    /// Never waits: a request for which there is no room is sent at a later tick.
    fn on_clock(&mut self, now_ms: i64) -> Result<()> {
        self.now_ms = now_ms;
        let waited = self.since_ms.is_some_and(|since| now_ms - since >= self.interval_ms as i64);
        let has_room = self.outbox.has_room(self.bytes_max)?;
        if self.interval_ms > 0 && waited && has_room { self.flush() } else { Ok(()) }
    }

    fn interrupt(&self) -> Option<Box<dyn FnOnce() + Send>> {
        Some(self.outbox.interrupt())
    }

    fn bytes_written(&self) -> u64 {
        self.bytes_written
    }

    fn rows_dropped(&self) -> u64 {
        self.outbox.rows_dropped()
    }
}

#[cfg(test)]
mod tests;
