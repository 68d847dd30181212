//! Rows that go out as they come. At least once: a barrier waits until the brokers have acknowledged all before it. None:
//! nobody waits, and what could not be delivered is counted and told.

use super::committer::{Committer, State};
use super::rows::Rows;
use super::transaction::{Deliveries, Partitions, Whose, partition_count, send};
use super::{START, client};
use crate::connector::{CommitPermit, Published, Sink};
use crate::error::{Code, Error, Result};
use arrow_array::RecordBatch;
use ef_proto::connector::SinkPartitioner;
use ef_proto::ids::Epoch;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, Producer};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub struct Direct {
    rows: Rows,
    producer: BaseProducer<Deliveries>,
    whose: Whose,
    partitions: Partitions,
    lossy: bool,
    /// Rows that the client did not even take; where they may be lost.
    refused: u64,
    /// Brings what a checkpoint of exactly-once times holds into Kafka: our rows come behind that.
    before: Option<Committer>,
    left: Arc<AtomicBool>,
    bytes: u64,
}

const FLUSH_PIECE: Duration = Duration::from_millis(100);

/// So long a barrier waits even where rows may be lost: a job that ends well takes none with it.
const LOSSY_PIECES: u32 = 100;

impl Direct {
    pub fn open(
        rows: Rows,
        mut config: ClientConfig,
        whose: Whose,
        mut partitions: Partitions,
        lossy: bool,
        before: Option<Committer>,
    ) -> Result<Direct> {
        if !lossy {
            // Rows of a partition stay in order and are not repeated by the client's own retries.
            config.set("enable.idempotence", "true").set("acks", "all");
            if config.get("delivery.timeout.ms").is_none() {
                // It waits for its brokers for as long as it takes; the barrier does, too, and its checkpoint says so.
                config.set("message.timeout.ms", "0");
            }
        }
        let created = config.create_with_context(Deliveries::new(&whose));
        let producer: BaseProducer<Deliveries> = created.map_err(|e| client::not_created(&e))?;
        let count = partition_count(&producer, &whose.topic, START);
        let count = count.map_err(|e| whose.explain(&e, producer.context().context()))?;
        if partitions.by != SinkPartitioner::Default {
            partitions.count = count;
        }
        Ok(Direct { rows, producer, whose, partitions, lossy, refused: 0, before, left: Arc::default(), bytes: 0 })
    }

    fn settle(&mut self) -> Result<()> {
        let Some(before) = &self.before else { return Ok(()) };
        before.wait(&self.left, State::restored_is_settled)?;
        self.before = None;
        Ok(())
    }

    /// Err: rows are lost, and nobody has allowed that.
    fn check(&self) -> Result<()> {
        match self.producer.context().failure() {
            Some(error) if !self.lossy => Err(self.whose.explain(&error, self.producer.context().context())),
            _ => Ok(()),
        }
    }
}

impl Sink for Direct {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.settle()?;
        if self.lossy {
            // It is counted; the next rows have a chance of their own.
            self.producer.context().forgive();
        }
        let (producer, whose, partitions) = (&self.producer, &self.whose, &mut self.partitions);
        let (left, lossy, bytes, refused) = (&self.left, self.lossy, &mut self.bytes, &mut self.refused);
        self.rows.each(batch, |record| {
            *bytes += record.bytes() as u64;
            let sent = send(producer, &whose.topic, partitions.pick(), record.key, record.value, left);
            match sent {
                Err(error) if !lossy => Err(whose.explain(&error, producer.context().context())),
                Err(_) => {
                    *refused += 1;
                    Ok(())
                }
                Ok(()) => Ok(()),
            }
        })?;
        self.producer.poll(Duration::ZERO);
        self.check()
    }

    fn prepare(&mut self, _epoch: Epoch) -> Result<Vec<u8>> {
        self.settle()?;
        let mut pieces = 0;
        while self.producer.flush(FLUSH_PIECE).is_err() && !(self.lossy && pieces == LOSSY_PIECES) {
            pieces += 1;
            self.check()?;
            if self.left.load(Ordering::Relaxed) {
                return Err(Error::new(Code::Unavailable, "the task was told to leave while it waited for Kafka"));
            }
        }
        self.check()?;
        Ok(Vec::new())
    }

    fn commit(&mut self, _permit: &CommitPermit) -> Result<()> {
        Ok(())
    }

    fn published(&mut self) -> Result<Published> {
        self.before.as_ref().map_or(Ok(Published::All), |before| before.state().published())
    }

    fn on_clock(&mut self, now_ms: i64) -> Result<()> {
        self.producer.context().context().at(now_ms);
        self.producer.poll(Duration::ZERO);
        self.check()
    }

    fn interrupt(&self) -> Option<Box<dyn FnOnce() + Send>> {
        let left = self.left.clone();
        Some(Box::new(move || left.store(true, Ordering::Relaxed)))
    }

    fn bytes_written(&self) -> u64 {
        self.bytes
    }

    fn rows_dropped(&self) -> u64 {
        if self.lossy { self.refused + self.producer.context().failures() } else { 0 }
    }
}
