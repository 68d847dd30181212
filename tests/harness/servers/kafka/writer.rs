//! Writes to a topic for as long as a test likes, and over a broker that goes and comes back: each row comes once and in order.

use super::client::{CALL_MAX, Client, Deliveries, Row};
use anyhow::{Context, Result};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{Producer, ThreadedProducer};
use std::time::Duration;

/// Rows that wait for a broker, at most.
const QUEUE: &str = "1000000";

/// Repeats what the broker has not acknowledged, for as long as it takes; the broker knows what it has already.
pub struct Writer {
    producer: ThreadedProducer<Deliveries>,
    topic: String,
}

impl Client {
    pub fn writer(&self, topic: &str) -> Result<Writer> {
        let mut config = self.config();
        config.set("enable.idempotence", "true").set("message.timeout.ms", "0").set("linger.ms", "5");
        config.set("queue.buffering.max.messages", QUEUE);
        let producer = config.create_with_context(Deliveries::default()).context("no producer")?;
        Ok(Writer { producer, topic: topic.into() })
    }
}

impl Writer {
    /// Waits only while very many wait already. Err: a row before it was refused.
    pub fn write(&self, row: &Row) -> Result<()> {
        let mut record = row.record(&self.topic);
        loop {
            record = match self.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => back,
                Err((e, _)) => return Err(e).with_context(|| format!("`{}` takes no row", self.topic)),
            };
            crate::wait::nap(Duration::from_millis(5));
        }
        let failed = self.producer.context().failure();
        failed.map_or(Ok(()), Err).with_context(|| format!("a row did not come to `{}`", self.topic))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // What is not there by then nobody waits for.
            let _ = self.producer.flush(CALL_MAX);
        }
    }
}
