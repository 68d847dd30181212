//! What tests write to a broker and read from it, over librdkafka: rows, everything in a topic with or without what is
//! not committed, offsets of groups with their metadata.

use crate::wait;
use anyhow::{Context, Result, bail, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext, Message, Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Of one call to the broker.
pub const CALL_MAX: Duration = Duration::from_secs(60);
/// A broker writes the end of a transaction into its topics within so long, whatever else it does.
const SETTLES: Duration = Duration::from_secs(30);

/// What goes into a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    pub key: Option<Vec<u8>>,
    /// None is a tombstone.
    pub value: Option<Vec<u8>>,
    /// None leaves it to the key's hash.
    pub partition: Option<i32>,
    /// Milliseconds since 1970; None is now.
    pub timestamp: Option<i64>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Row {
    pub fn new(value: impl Into<Vec<u8>>) -> Row {
        Row { value: Some(value.into()), ..Row::default() }
    }

    pub fn tombstone(key: impl Into<Vec<u8>>) -> Row {
        Row { key: Some(key.into()), ..Row::default() }
    }

    pub fn key(self, key: impl Into<Vec<u8>>) -> Row {
        Row { key: Some(key.into()), ..self }
    }

    pub fn partition(self, partition: i32) -> Row {
        Row { partition: Some(partition), ..self }
    }

    pub fn timestamp(self, timestamp: i64) -> Row {
        Row { timestamp: Some(timestamp), ..self }
    }

    /// Without its headers.
    pub fn record<'a>(&'a self, topic: &'a str) -> BaseRecord<'a, [u8], [u8]> {
        let mut record: BaseRecord<[u8], [u8]> = BaseRecord::to(topic);
        record.key = self.key.as_deref();
        record.payload = self.value.as_deref();
        record.partition = self.partition;
        record.timestamp = self.timestamp;
        record
    }

    pub fn header(mut self, key: &str, value: impl Into<Vec<u8>>) -> Row {
        self.headers.push((key.to_string(), Some(value.into())));
        self
    }
}

/// What is in a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub timestamp: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    /// The value as text; a tombstone is empty.
    pub fn text(&self) -> &str {
        std::str::from_utf8(self.value.as_deref().unwrap_or_default()).expect("the test wrote text")
    }
}

/// Whose rows a reader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// `read_committed`: up to the first transaction that is open, without what was aborted.
    Committed,
    /// `read_uncommitted`: all that was ever written.
    Raw,
}

/// What a group has committed for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    pub offset: i64,
    pub metadata: String,
}

/// One broker, as one user.
#[derive(Clone)]
pub struct Client {
    config: ClientConfig,
}

impl Client {
    /// Without user and TLS.
    pub fn new(bootstrap: &str) -> Client {
        let config = ClientConfig::new();
        // A broker that comes back is found at once.
        let quick = [("reconnect.backoff.ms", "50"), ("reconnect.backoff.max.ms", "500")];
        let client = Client { config }.set("bootstrap.servers", bootstrap);
        quick.iter().fold(client, |client, (key, value)| client.set(key, value))
    }

    /// One more property of librdkafka.
    pub fn set(mut self, key: &str, value: &str) -> Client {
        self.config.set(key, value);
        self
    }

    pub fn login(self, user: &str, password: &str) -> Client {
        self.set("sasl.mechanism", "PLAIN").set("sasl.username", user).set("sasl.password", password)
    }

    pub fn bootstrap(&self) -> &str {
        self.config.get("bootstrap.servers").expect("every client has it")
    }

    /// For a client that a test makes itself.
    pub fn config(&self) -> ClientConfig {
        self.config.clone()
    }

    /// Whether a broker says who is there.
    pub fn answers(&self, limit: Duration) -> bool {
        let looker = self.looker(Isolation::Raw);
        looker.is_ok_and(|looker| looker.fetch_metadata(None, limit).is_ok_and(|found| !found.brokers().is_empty()))
    }

    /// Returns when the broker has all of them.
    pub fn produce(&self, topic: &str, rows: &[Row]) -> Result<()> {
        let producer: BaseProducer<Deliveries> = self.config.create_with_context(Deliveries::default())?;
        for row in rows {
            send(&producer, topic, row).with_context(|| format!("cannot write to `{topic}`"))?;
        }
        producer.flush(CALL_MAX).with_context(|| format!("not everything came to `{topic}`"))?;
        producer.context().failure().map_or(Ok(()), Err).with_context(|| format!("`{topic}` refused a row"))
    }

    /// The same in a transaction of its own, committed.
    pub fn produce_committed(&self, id: &str, topic: &str, rows: &[Row]) -> Result<()> {
        let transactions = self.transactions(id, id)?;
        transactions.begin()?;
        rows.iter().try_for_each(|row| transactions.send(topic, row))?;
        transactions.commit()?;
        self.wait_closed(topic)
    }

    /// A broker answers a commit before it has written that to the topic: until readers see the end of all transactions.
    pub fn wait_closed(&self, topic: &str) -> Result<()> {
        if wait::until(SETTLES, || self.lso_is_hw(topic).is_ok_and(|closed| closed)) {
            return Ok(());
        }
        bail!("a transaction stays open in topic {topic}")
    }

    /// Everything up to where the topic ends now, by partition and offset.
    pub fn read_all(&self, topic: &str, isolation: Isolation) -> Result<Vec<Record>> {
        let reader = self.looker(isolation)?;
        let mut left: BTreeMap<i32, i64> = BTreeMap::new();
        let mut assignment = TopicPartitionList::new();
        for (partition, (low, high)) in watermarks(&reader, topic)? {
            if low < high {
                left.insert(partition, high);
                assignment.add_partition_offset(topic, partition, Offset::Offset(low))?;
            }
        }
        reader.assign(&assignment)?;
        let mut records = Vec::new();
        let mut deadline = Instant::now() + CALL_MAX;
        while !left.is_empty() {
            match reader.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    deadline = Instant::now() + CALL_MAX;
                    let (partition, offset) = (message.partition(), message.offset());
                    let Some(end) = left.get(&partition).copied() else { continue };
                    if offset < end {
                        records.push(record(&message));
                    }
                    if offset + 1 >= end {
                        left.remove(&partition);
                    }
                }
                // Behind the last row there may be marks of transactions and rows that are not for this reader.
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(left.remove(&partition)),
                // The library goes on by itself when the broker is back.
                Some(Err(e)) if e.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) => {}
                Some(Err(KafkaError::MessageConsumption(code))) if is_passing(code) => {}
                Some(Err(e)) => return Err(e).with_context(|| format!("cannot read `{topic}`")),
                None => ensure!(Instant::now() < deadline, "`{topic}`: nothing more came of partitions {left:?}"),
            }
        }
        records.sort_by_key(|record| (record.partition, record.offset));
        Ok(records)
    }

    /// Counts the records of a topic, from its beginning, as they become visible.
    pub fn counter(&self, topic: &str, isolation: Isolation) -> Result<Counter> {
        let reader = self.looker(isolation)?;
        let mut assignment = TopicPartitionList::new();
        // A broker that has been away has no leaders for a moment.
        let partitions = wait::found(wait::PATIENCE, || led(&reader, topic).ok());
        for partition in 0..partitions.with_context(|| format!("`{topic}` has no leaders"))? as i32 {
            assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        reader.assign(&assignment)?;
        Ok(Counter { reader, records: 0 })
    }

    /// Names of the groups that the broker knows.
    pub fn groups(&self) -> Result<Vec<String>> {
        let found = self.looker(Isolation::Raw)?.fetch_group_list(None, CALL_MAX)?;
        Ok(found.groups().iter().map(|group| group.name().to_string()).collect())
    }

    /// Where the partitions end, for a reader of this kind.
    pub fn ends(&self, topic: &str, isolation: Isolation) -> Result<Vec<i64>> {
        let ends = watermarks(&self.looker(isolation)?, topic)?;
        Ok(ends.into_values().map(|(_, high)| high).collect())
    }

    /// Whether no transaction is open in this topic: the last stable offset of each partition is its end. Only for a
    /// topic that nobody writes to: the two are asked for one after the other.
    pub fn lso_is_hw(&self, topic: &str) -> Result<bool> {
        Ok(self.ends(topic, Isolation::Committed)? == self.ends(topic, Isolation::Raw)?)
    }

    /// What a group has committed, by partition; not what an open transaction means to commit. While there is one the
    /// broker does not say, and this waits.
    pub fn committed(&self, group: &str, topic: &str) -> Result<BTreeMap<i32, Committed>> {
        let mut config = self.config_of(Isolation::Committed);
        let looker: BaseConsumer = config.set("group.id", group).create()?;
        let mut asked = TopicPartitionList::new();
        for partition in 0..led(&looker, topic)? as i32 {
            asked.add_partition(topic, partition);
        }
        let found =
            looker.committed_offsets(asked, CALL_MAX).with_context(|| format!("no offsets of group `{group}`"))?;
        let mut committed = BTreeMap::new();
        for element in found.elements() {
            element.error().with_context(|| format!("`{topic}` {}", element.partition()))?;
            if let Offset::Offset(offset) = element.offset() {
                let metadata = element.metadata().to_string();
                committed.insert(element.partition(), Committed { offset, metadata });
            }
        }
        Ok(committed)
    }

    pub(super) fn looker(&self, isolation: Isolation) -> Result<BaseConsumer> {
        self.config_of(isolation).create().context("no consumer")
    }

    fn config_of(&self, isolation: Isolation) -> ClientConfig {
        let mut config = self.config();
        // A group must be named, though nothing is committed to it.
        config.set("group.id", "ef-tests").set("enable.auto.commit", "false").set("enable.partition.eof", "true");
        config.set(
            "isolation.level",
            match isolation {
                Isolation::Committed => "read_committed",
                Isolation::Raw => "read_uncommitted",
            },
        );
        config
    }
}

/// Reads ahead by itself, and over a broker that goes and comes back.
pub struct Counter {
    reader: BaseConsumer,
    records: usize,
}

impl Counter {
    /// So far. Does not wait.
    pub fn records(&mut self) -> usize {
        while let Some(polled) = self.reader.poll(Duration::ZERO) {
            // What is no record is the end of a partition for now, or a broker that is away.
            self.records += usize::from(polled.is_ok());
        }
        self.records
    }
}

/// Of a broker that has just come back, or of a topic that it has just been told of.
fn is_passing(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::*;
    matches!(code, BrokerTransportFailure | NotLeaderForPartition | LeaderNotAvailable | OperationTimedOut)
}

/// How many partitions a topic has; an error while one of them has no leader.
pub(super) fn led(looker: &BaseConsumer, topic: &str) -> Result<usize> {
    let metadata = looker.fetch_metadata(Some(topic), CALL_MAX)?;
    let [found] = metadata.topics() else { bail!("the broker says nothing of `{topic}`") };
    match found.error().map(RDKafkaErrorCode::from) {
        // None, which is an answer, too.
        Some(RDKafkaErrorCode::UnknownTopicOrPartition) => return Ok(0),
        Some(code) => bail!("`{topic}`: {code}"),
        None => {}
    }
    let leaderless = found.partitions().iter().filter(|partition| partition.leader() < 0).count();
    ensure!(leaderless == 0, "{leaderless} partitions of `{topic}` have no leader");
    Ok(found.partitions().len())
}

/// Of each partition the first offset and the one behind the last. For a reader of what is committed that is the last
/// stable offset.
fn watermarks(looker: &BaseConsumer, topic: &str) -> Result<BTreeMap<i32, (i64, i64)>> {
    let partitions = led(looker, topic)? as i32;
    ensure!(partitions > 0, "there is no topic `{topic}`");
    let of = |partition| Ok((partition, looker.fetch_watermarks(topic, partition, CALL_MAX)?));
    (0..partitions).map(of).collect()
}

fn record(message: &rdkafka::message::BorrowedMessage) -> Record {
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    Record {
        partition: message.partition(),
        offset: message.offset(),
        timestamp: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.map(|header| (header.key.to_string(), header.value.map(<[u8]>::to_vec))).collect(),
    }
}

/// Waits while the producer's queue is full.
pub(super) fn send(producer: &BaseProducer<Deliveries>, topic: &str, row: &Row) -> KafkaResult<()> {
    let mut headers = OwnedHeaders::new_with_capacity(row.headers.len());
    for (key, value) in &row.headers {
        headers = headers.insert(Header { key, value: value.as_ref() });
    }
    let mut record = row.record(topic);
    record.headers = (!row.headers.is_empty()).then_some(headers);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                producer.poll(Duration::from_millis(50));
                record = back;
            }
            Err((e, _)) => return Err(e),
        }
    }
}

/// Keeps the first row that did not arrive.
#[derive(Default)]
pub struct Deliveries {
    failed: Mutex<Option<KafkaError>>,
}

impl Deliveries {
    pub fn failure(&self) -> Option<KafkaError> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((e, _)) = result {
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e.clone());
        }
    }
}
