//! One slot's conversation with Kafka: fences, reads the marker, commits rows with it. Tells apart what may be different
//! next time and what a person has to change; knows nothing of when to do what.

use super::super::client::{self, Context};
use super::spool::Segment;
use crate::error::{Code, Error};
use ef_proto::connector::SinkPartitioner;
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

/// Calls that wait for a broker are made in such pieces, so that a task that leaves is not held up.
const PIECE: Duration = Duration::from_millis(250);

/// Pieces until a call that does not come to its end is given up: the producer is dropped, and the slot begins anew.
const PATIENCE: u32 = 240;

/// The same for the two calls that end a transaction.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub marker: u32,
    pub commit: u32,
}

impl Default for Patience {
    fn default() -> Patience {
        // Of all calls the marker's is the one that librdkafka lets no time limit end: while it looks for the coordinator of the
        // group it waits for a change of its connections, minutes long after the broker is well again.
        Patience { marker: 60, commit: PATIENCE }
    }
}

/// The group in which the marker of a transactional id lies.
pub fn marker_group(id: &str) -> String {
    format!("{id}.m")
}

/// Why an action has failed.
#[derive(Debug)]
pub enum Failed {
    /// It may work again, or nobody knows whether it has worked.
    ForNow(String),
    /// Not before a person has changed something.
    Forever(Error),
}

/// Whose requests these are, for messages.
#[derive(Clone)]
pub struct Whose {
    /// `table "t"`.
    pub name: String,
    pub topic: String,
    /// Transactional; empty without transactions.
    pub id: String,
    pub bootstrap: String,
    pub now_ms: i64,
}

impl Whose {
    pub fn explain(&self, error: &KafkaError, context: &Context) -> Error {
        let what = match cause(error, context) {
            Some(RDKafkaErrorCode::TransactionalIdAuthorizationFailed) => format!("transactional id \"{}\"", self.id),
            Some(RDKafkaErrorCode::GroupAuthorizationFailed) => format!("group \"{}\"", marker_group(&self.id)),
            _ => format!("topic \"{}\"", self.topic),
        };
        let error = client::explain(error, &what, &self.bootstrap, context.last().as_ref());
        Error::new(error.code, format!("{}: {}", self.name, error.message))
    }

    fn failed(&self, error: &KafkaError, context: &Context) -> Failed {
        let permanent = cause(error, context).is_some_and(is_permanent);
        match self.explain(error, context) {
            error if permanent => Failed::Forever(error),
            error => Failed::ForNow(error.message),
        }
    }

    /// Of a call that was given up.
    fn not_answered(&self, context: &Context, stop: &AtomicBool) -> Failed {
        if stop.load(Ordering::Relaxed) {
            return Failed::ForNow("the task has left".into());
        }
        let because = context.last().map_or(String::new(), |report| format!(": {}", report.reason));
        Failed::ForNow(format!("no broker of {} answered{because}", self.bootstrap))
    }
}

/// Of a call that nobody answered: what the client was told meanwhile.
fn cause(error: &KafkaError, context: &Context) -> Option<RDKafkaErrorCode> {
    let code = error.rdkafka_error_code()?;
    let refusal = context.last().filter(|report| client::is_silence(code) && report.is_refusal());
    Some(refusal.map_or(code, |report| report.code))
}

/// What no waiting mends.
fn is_permanent(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as E;
    matches!(
        code,
        E::TopicAuthorizationFailed
            | E::GroupAuthorizationFailed
            | E::ClusterAuthorizationFailed
            | E::TransactionalIdAuthorizationFailed
            | E::Authentication
            | E::SaslAuthenticationFailed
            | E::UnknownTopicOrPartition
            | E::UnknownTopic
            | E::InvalidTopic
            | E::MessageSizeTooLarge
            | E::InvalidRecord
            | E::InvalidTransactionTimeout
            | E::UnsupportedVersion
    )
}

/// What the broker has said of the rows that were sent, and all else that a client is told.
pub struct Deliveries {
    context: Context,
    delivered: AtomicU64,
    failures: AtomicU64,
    failed: Mutex<Option<KafkaError>>,
}

impl Deliveries {
    pub fn new(whose: &Whose) -> Deliveries {
        let context = Context::new(whose.name.clone(), whose.now_ms);
        Deliveries { context, delivered: AtomicU64::new(0), failures: AtomicU64::new(0), failed: Mutex::default() }
    }

    pub fn context(&self) -> &Context {
        &self.context
    }

    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Rows that were not delivered.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    pub fn failure(&self) -> Option<KafkaError> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What has failed so far counts, and stops nobody.
    pub fn forgive(&self) {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, fac: &str, message: &str) {
        self.context.log(level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        ClientContext::error(&self.context, error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => drop(self.delivered.fetch_add(1, Ordering::Relaxed)),
            Err((error, _)) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.get_or_insert_with(|| error.clone());
            }
        }
    }
}

/// How a record finds its partition where its key does not say it.
#[derive(Clone, Copy, Debug)]
pub struct Partitions {
    pub by: SinkPartitioner,
    /// For `fixed`.
    pub subtask: u32,
    /// Of the topic, once known.
    pub count: i32,
    next: i32,
}

impl Partitions {
    pub fn new(by: SinkPartitioner, subtask: u32) -> Partitions {
        Partitions { by, subtask, count: 0, next: 0 }
    }

    pub fn pick(&mut self) -> Option<i32> {
        match self.by {
            SinkPartitioner::Default => None,
            _ if self.count == 0 => None,
            SinkPartitioner::Fixed => Some((self.subtask % self.count as u32) as i32),
            SinkPartitioner::RoundRobin => {
                self.next = (self.next + 1) % self.count;
                Some(self.next)
            }
        }
    }
}

pub struct Transactions {
    whose: Whose,
    producer_config: ClientConfig,
    consumer_config: ClientConfig,
    partitions: Partitions,
    patience: Patience,
    /// Commits since the last whose answer got lost, if answers get lost.
    loses_after: Option<u32>,
    producer: Option<BaseProducer<Deliveries>>,
    group: Option<ConsumerGroupMetadata>,
}

impl Transactions {
    pub fn new(
        whose: Whose,
        mut producer: ClientConfig,
        mut consumer: ClientConfig,
        partitions: Partitions,
        patience: Patience,
    ) -> Transactions {
        producer.set("transactional.id", &whose.id);
        consumer.set("group.id", marker_group(&whose.id)).set("isolation.level", "read_committed");
        consumer.set("enable.auto.commit", "false");
        Transactions {
            whose,
            producer_config: producer,
            consumer_config: consumer,
            partitions,
            patience,
            loses_after: None,
            producer: None,
            group: None,
        }
    }

    /// A fault of the tests: every fifth commit succeeds, and nobody learns of it.
    pub fn losing_answers(mut self) -> Transactions {
        self.loses_after = Some(0);
        self
    }

    /// From here on nobody else under our id can do anything, until somebody fences us.
    pub fn fence(&mut self, stop: &AtomicBool) -> Done<()> {
        self.producer = None;
        let deliveries = Deliveries::new(&self.whose);
        let created = self.producer_config.create_with_context(deliveries);
        let producer: BaseProducer<Deliveries> = created.map_err(|e| Failed::Forever(client::not_created(&e)))?;
        self.insist(&producer, stop, || producer.init_transactions(PIECE))?;
        if self.partitions.by != SinkPartitioner::Default {
            let count = partition_count(&producer, &self.whose.topic, PIECE * 40);
            self.partitions.count = count.map_err(|e| self.whose.failed(&e, producer.context().context()))?;
        }
        self.producer = Some(producer);
        Ok(())
    }

    /// The newest epoch whose rows are in Kafka; None: none is.
    pub fn read_marker(&mut self) -> Done<Option<u64>> {
        // It never subscribes: it is in no group but by name.
        let context = Context::new(self.whose.name.clone(), self.whose.now_ms);
        let created = self.consumer_config.create_with_context(context);
        let consumer: BaseConsumer<Context> = created.map_err(|e| Failed::Forever(client::not_created(&e)))?;
        self.group = consumer.group_metadata();
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition(&self.whose.topic, 0);
        let failed = |error: KafkaError| {
            // What the library has to say of it waits where records would come.
            while let Some(polled) = consumer.poll(Duration::ZERO) {
                if let Err(told) = polled
                    && let Some(code) = told.rdkafka_error_code()
                {
                    consumer.context().trouble(code, &told.to_string());
                }
            }
            self.whose.failed(&error, consumer.context())
        };
        let found = consumer.committed_offsets(wanted, PIECE * 40).map_err(&failed)?;
        let marker = found.find_partition(&self.whose.topic, 0);
        let marker =
            marker.ok_or_else(|| Failed::ForNow(format!("no answer about the marker of `{}`", self.whose.id)))?;
        marker.error().map_err(&failed)?;
        match marker.offset() {
            Offset::Offset(epoch) => Ok(Some(epoch as u64)),
            Offset::Invalid => Ok(None),
            other => Err(Failed::ForNow(format!("the marker of `{}` is {other:?}", self.whose.id))),
        }
    }

    /// Its connections are of no use any more.
    pub fn close(&mut self) {
        (self.producer, self.group) = (None, None);
    }

    /// The rows and the marker, or neither. Err: nobody knows which.
    pub fn commit(&mut self, upto: u64, segments: &[Arc<Segment>], stop: &AtomicBool) -> Done<()> {
        let lost = || Failed::ForNow(format!("the producer of `{}` is not ready", self.whose.id));
        let producer = self.producer.take().ok_or_else(lost)?;
        let group = self.group.take().ok_or_else(lost)?;
        let mut marker = TopicPartitionList::new();
        let added = marker.add_partition_offset(&self.whose.topic, 0, Offset::Offset(upto as i64));
        added.map_err(|e| self.whose.failed(&e, producer.context().context()))?;
        self.send_rows(&producer, &group, &marker, segments, stop)?;
        let (producer, group) = self.send_marker(producer, group, marker, stop)?;
        insist(&self.whose, self.patience.commit, &producer, stop, || producer.commit_transaction(PIECE))?;
        if let Some(commits) = &mut self.loses_after {
            *commits = (*commits + 1) % 5;
            if *commits == 0 {
                return Err(Failed::ForNow("the answer got lost".into()));
            }
        }
        (self.producer, self.group) = (Some(producer), Some(group));
        Ok(())
    }

    /// Begins the transaction; all rows are with the broker when it returns.
    fn send_rows(
        &mut self,
        producer: &BaseProducer<Deliveries>,
        group: &ConsumerGroupMetadata,
        marker: &TopicPartitionList,
        segments: &[Arc<Segment>],
        stop: &AtomicBool,
    ) -> Done<()> {
        let deliveries = producer.context().clone();
        let failed = |whose: &Whose, error: KafkaError| whose.failed(&error, deliveries.context());
        let before = deliveries.delivered();
        producer.begin_transaction().map_err(|e| failed(&self.whose, e))?;
        let mut rows = 0;
        for segment in segments {
            let mut refused = None;
            let (partitions, topic) = (&mut self.partitions, &self.whose.topic);
            let sent = segment.each(|record| {
                rows += 1;
                send(producer, topic, partitions.pick(), record.key, record.value, stop).map_err(|error| {
                    let told = Error::new(Code::Unavailable, error.to_string());
                    refused = Some(error);
                    told
                })
            });
            match (sent, refused) {
                (_, Some(error)) => return Err(failed(&self.whose, error)),
                // Another attempt would not read the spool either; one from the checkpoint does.
                (Err(error), None) => return Err(Failed::Forever(error)),
                (Ok(()), None) => {}
            }
        }
        // However slow the link is: patience runs out where nothing moves.
        let mut seen = deliveries.delivered();
        loop {
            let flushed = self.insist(producer, stop, || match producer.flush(PIECE) {
                Err(KafkaError::Flush(_)) if deliveries.failure().is_some() => Ok(()),
                result => result,
            });
            match flushed {
                Err(_) if deliveries.delivered() > seen && !stop.load(Ordering::Relaxed) => {
                    seen = deliveries.delivered();
                }
                flushed => break flushed?,
            }
        }
        if let Some(error) = deliveries.failure() {
            // Rows of a transaction that has failed are purged; what it failed of is told to the next call, which does not
            // wait then.
            let purged = error.rdkafka_error_code() == Some(RDKafkaErrorCode::PurgeQueue);
            let cause = if purged { producer.send_offsets_to_transaction(marker, group, PIECE).err() } else { None };
            return Err(failed(&self.whose, cause.unwrap_or(error)));
        }
        let delivered = deliveries.delivered() - before;
        if delivered != rows {
            return Err(Failed::ForNow(format!("{delivered} of {rows} rows were delivered")));
        }
        Ok(())
    }

    /// Makes the marker part of the transaction. What the call needs goes with it to a thread of its own: where it does not
    /// come back in time it is left to itself, and so is the producer, which the next fence makes harmless. Both end when the
    /// library closes the connection, which it does to idle ones after four minutes.
    fn send_marker(
        &self,
        producer: BaseProducer<Deliveries>,
        group: ConsumerGroupMetadata,
        marker: TopicPartitionList,
        stop: &AtomicBool,
    ) -> Done<(BaseProducer<Deliveries>, ConsumerGroupMetadata)> {
        let deliveries = producer.context().clone();
        let (whose, given_up) = (self.whose.clone(), Arc::new(AtomicBool::new(false)));
        let (answer, answered) = mpsc::sync_channel(1);
        let call = {
            let given_up = given_up.clone();
            move || {
                let sent = insist(&whose, PATIENCE, &producer, &given_up, || {
                    producer.send_offsets_to_transaction(&marker, &group, PIECE)
                });
                // Nobody may be there any more.
                let _ = answer.send(sent.map(|()| (producer, group)));
            }
        };
        let thread = std::thread::Builder::new().name("commit marker".into()).spawn(call);
        thread.map_err(|e| Failed::ForNow(format!("cannot start a thread: {e}")))?;
        for _ in 0..self.patience.marker {
            match answered.recv_timeout(PIECE) {
                Ok(sent) => return sent,
                Err(mpsc::RecvTimeoutError::Timeout) if stop.load(Ordering::Relaxed) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(Failed::ForNow("the call that sends the marker has ended without an answer".into()));
                }
            }
        }
        given_up.store(true, Ordering::Relaxed);
        Err(self.whose.not_answered(deliveries.context(), stop))
    }

    /// Repeats a call as long as it says only that it has not come to its end.
    fn insist(
        &self,
        producer: &BaseProducer<Deliveries>,
        stop: &AtomicBool,
        call: impl FnMut() -> std::result::Result<(), KafkaError>,
    ) -> Done<()> {
        insist(&self.whose, PATIENCE, producer, stop, call)
    }
}

fn insist(
    whose: &Whose,
    pieces: u32,
    producer: &BaseProducer<Deliveries>,
    stop: &AtomicBool,
    mut call: impl FnMut() -> std::result::Result<(), KafkaError>,
) -> Done<()> {
    for _ in 0..pieces {
        let error = match call() {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let again = match &error {
            KafkaError::Transaction(error) => error.is_retriable(),
            KafkaError::Flush(code) => *code == RDKafkaErrorCode::OperationTimedOut,
            _ => false,
        };
        if !again {
            return Err(whose.failed(&error, producer.context().context()));
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    Err(whose.not_answered(producer.context().context(), stop))
}

type Done<T> = std::result::Result<T, Failed>;

/// Hands a record to the client; waits while its queue is full.
pub fn send(
    producer: &BaseProducer<Deliveries>,
    topic: &str,
    partition: Option<i32>,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    stop: &AtomicBool,
) -> std::result::Result<(), KafkaError> {
    let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic);
    (record.partition, record.key, record.payload) = (partition, key, value);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                if stop.load(Ordering::Relaxed) {
                    return Err(KafkaError::Canceled);
                }
                if let Some(error) = producer.context().failure() {
                    return Err(error);
                }
                producer.poll(Duration::from_millis(10));
                record = again;
            }
            Err((error, _)) => return Err(error),
        }
    }
}

/// Partitions of the topic; an error if there is no such topic.
pub fn partition_count(
    producer: &BaseProducer<Deliveries>,
    topic: &str,
    timeout: Duration,
) -> std::result::Result<i32, KafkaError> {
    let metadata = producer.client().fetch_metadata(Some(topic), timeout)?;
    let unknown = || KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition);
    let found = metadata.topics().iter().find(|found| found.name() == topic).ok_or_else(unknown)?;
    if let Some(error) = found.error() {
        return Err(KafkaError::MetadataFetch(error.into()));
    }
    match found.partitions().len() {
        0 => Err(unknown()),
        count => Ok(count as i32),
    }
}

#[cfg(test)]
mod tests;
