//! A transactional producer, step by step, with the epoch marker of an exactly-once sink: an offset that is committed
//! for a group without members in the same transaction as the rows.

use super::client::{CALL_MAX, Client, Deliveries, Row, send};
use anyhow::{Context, Result};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::KafkaResult;
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::util::Timeout;
use rdkafka::{Offset, TopicPartitionList};

pub struct Transactions {
    producer: BaseProducer<Deliveries>,
    /// Generation -1 and no member: that of a consumer that never subscribes, given without a word to the broker.
    group: ConsumerGroupMetadata,
}

impl Client {
    /// Initialised: earlier producers of this id are fenced, and what they left open is aborted. Markers go to `group`.
    pub fn transactions(&self, id: &str, group: &str) -> Result<Transactions> {
        let mut config = self.config();
        config.set("transactional.id", id);
        let producer: BaseProducer<Deliveries> = config.create_with_context(Deliveries::default())?;
        producer.init_transactions(CALL_MAX).with_context(|| format!("`{id}` cannot be initialised"))?;
        let idle: BaseConsumer = self.config().set("group.id", group).create()?;
        let group = idle.group_metadata().context("a consumer with a group has its metadata")?;
        Ok(Transactions { producer, group })
    }
}

/// The library's own results, because tests look at what kind of error came.
impl Transactions {
    pub fn begin(&self) -> KafkaResult<()> {
        self.producer.begin_transaction()
    }

    /// Queues a row; [`Transactions::flush`] and [`Transactions::commit`] bring it to the broker.
    pub fn send(&self, topic: &str, row: &Row) -> KafkaResult<()> {
        send(&self.producer, topic, row)
    }

    /// All rows are at the broker, in a transaction that is still open.
    pub fn flush(&self) -> KafkaResult<()> {
        self.producer.flush(CALL_MAX)?;
        self.producer.context().failure().map_or(Ok(()), Err)
    }

    /// The topic must exist.
    pub fn mark(&self, topic: &str, partition: i32, epoch: i64, metadata: &str) -> KafkaResult<()> {
        let mut offsets = TopicPartitionList::new();
        let mut marker = offsets.add_partition(topic, partition);
        marker.set_offset(Offset::Offset(epoch))?;
        marker.set_metadata(metadata);
        self.producer.send_offsets_to_transaction(&offsets, &self.group, CALL_MAX)
    }

    /// Waits for the broker as long as it takes: a limit would leave the outcome open.
    pub fn commit(&self) -> KafkaResult<()> {
        self.producer.commit_transaction(Timeout::Never)
    }

    pub fn abort(&self) -> KafkaResult<()> {
        self.producer.abort_transaction(CALL_MAX)
    }
}
