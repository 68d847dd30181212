//! Reads partitions: a lane and a queue each, in the order of [`pace`].
//!
//! What a batch has taken is what the position says. A partition that is not read is paused: its queue fills up to its
//! share of [`BUFFER_BYTES`], and no more is fetched for it. The offsets of a checkpoint are told to the group when it
//! completes, for whoever watches the lag; nothing is ever read back from there but at the first start.

use super::super::{Clock, Counts, Place, Polled, Source, SourceBatch};
use super::assign;
use super::client::{self, Context};
use super::finder::{Answer, Finder, Topics};
use super::pace::{self, Choice, Pace, Standing, WAIT_MS};
use super::position::{self, Origin, Partition, Progress, Restored};
use super::queue::{Client, Queue};
use super::record::Rows;
use crate::error::{Code, Context as _, Error, Result};
use ef_proto::connector::kafka::For;
use ef_proto::connector::{KafkaBounded, KafkaReset, KafkaSource};
use ef_proto::ids::Epoch;
use ef_proto::plan;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::Offset;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

/// Of fetched records that a subtask has not read yet; half of it is on its way, at most. Many small partitions get
/// [`QUEUE_BYTES_MIN`] each in any case.
const BUFFER_BYTES: usize = 32 << 20;
const QUEUE_BYTES_MIN: usize = 64 << 10;
/// librdkafka keeps some 400 bytes with each record.
const BUFFER_RECORDS: usize = 64 << 10;
const QUEUE_RECORDS_MIN: usize = 128;

/// Checkpoints that may be under way; what is left of aborted ones is forgotten.
const SNAPSHOTS_MAX: usize = 64;

/// How long a task waits for its client to say goodbye, at its end.
const CLOSE: Duration = Duration::from_secs(1);

/// How long the failing source asks for the range of offsets.
const RANGE: Duration = Duration::from_secs(5);

pub fn source(
    source: &plan::Source,
    options: &KafkaSource,
    place: &Place,
    restored: &[Vec<u8>],
    clock: Clock,
) -> Result<Box<dyn Source>> {
    let name = format!("table \"{}\"", source.table);
    let reader = Reader::new(source, options, place, restored, clock, name.clone());
    reader.map(|reader| Box::new(reader) as Box<dyn Source>).map_err(|error| within(&name, error))
}

fn within(name: &str, error: Error) -> Error {
    Error::new(error.code, format!("{name}: {}", error.message))
}

struct Lane {
    of: Partition,
    progress: Progress,
    number: usize,
    /// None: read to its end.
    queue: Option<Queue>,
    pace: Pace,
}

struct Reader {
    name: String,
    options: KafkaSource,
    place: Place,
    rows: Rows,
    /// Without watermarks a batch may be of several partitions.
    mixes: bool,
    lanes: Vec<Lane>,
    /// Made when the partitions are known; gone after `lanes`, whose queues are parts of it.
    client: Option<Arc<Client>>,
    /// Until the first look has succeeded: what the checkpoint says.
    waiting: BTreeMap<Partition, Progress>,
    /// How far those before had come with looking for partitions.
    origin: Origin,
    /// This subtask has looked for partitions.
    found: bool,
    answers: Receiver<Answer>,
    /// Tells the finder, by being dropped.
    _gone: SyncSender<()>,
    events: VecDeque<Polled>,
    /// To be returned by the next poll: what came before it has been delivered.
    failed: Option<Error>,
    /// Offsets of checkpoints that are not complete yet.
    snapshots: VecDeque<(Epoch, Vec<(Partition, i64)>)>,
    served_at: i64,
    turns: u64,
    clock: Clock,
}

impl Reader {
    fn new(
        source: &plan::Source,
        options: &KafkaSource,
        place: &Place,
        blobs: &[Vec<u8>],
        clock: Clock,
        name: String,
    ) -> Result<Reader> {
        let restored = Restored::read(blobs)?;
        let topics = Topics::new(&options.topics)?;
        let mine = |of: &Partition| assign::owner(&of.topic, of.number, place.parallelism) == place.index;
        let waiting: BTreeMap<Partition, Progress> = restored
            .partitions
            .iter()
            .filter(|(of, _)| mine(of) && topics.contains(&of.topic))
            .map(|(of, progress)| (of.clone(), *progress))
            .collect();
        let origin = restored.origin.clone();
        // What is wrong with the properties is said now, before anything runs.
        client::config(&options.client, For::Consumer, &place.secrets)?;
        let now_ms = clock();
        let finder = Finder {
            options: options.clone(),
            secrets: place.secrets.clone(),
            name: name.clone(),
            index: place.index,
            parallelism: place.parallelism,
            restored,
            now_ms,
        };
        let (answer, answers) = sync_channel(1);
        let (_gone, gone) = sync_channel(0);
        std::thread::Builder::new()
            .name("kafka-finder".into())
            .spawn(move || finder.run(&answer, &gone))
            .unavailable(|| "a thread for Kafka".into())?;
        Ok(Reader {
            name,
            options: options.clone(),
            place: place.clone(),
            rows: Rows::new(source, options.key.as_ref(), place)?,
            mixes: source.watermark.is_none(),
            lanes: Vec::new(),
            client: None,
            waiting,
            origin,
            found: false,
            answers,
            _gone,
            events: VecDeque::new(),
            failed: None,
            snapshots: VecDeque::new(),
            served_at: now_ms,
            turns: 0,
            clock,
        })
    }

    /// A client whose queues together hold what one subtask may.
    fn connect(&self, partitions: usize, now_ms: i64) -> Result<Arc<Client>> {
        let mut config = client::config(&self.options.client, For::Consumer, &self.place.secrets)?;
        // Without a group nothing is committed, and librdkafka wants a name all the same.
        let group = self.options.group.clone();
        config.set("group.id", group.unwrap_or_else(|| format!("edgeflow-{}", self.place.job)));
        config.set("enable.auto.commit", "false");
        config.set("enable.auto.offset.store", "false");
        config.set("enable.partition.eof", "true");
        let reset = match self.options.reset {
            None => "error",
            Some(KafkaReset::Earliest) => "earliest",
            Some(KafkaReset::Latest) => "latest",
        };
        config.set("auto.offset.reset", reset);
        let partitions = partitions.max(1);
        let queue_bytes = (BUFFER_BYTES / 2 / partitions).max(QUEUE_BYTES_MIN);
        let records = (BUFFER_RECORDS / partitions).max(QUEUE_RECORDS_MIN);
        for (name, default) in [
            ("isolation.level", "read_committed".to_owned()),
            // These limits are per queue, and every partition has one.
            ("queued.max.messages.kbytes", (queue_bytes >> 10).to_string()),
            ("queued.min.messages", records.to_string()),
            ("max.partition.fetch.bytes", queue_bytes.min(1 << 20).to_string()),
            ("fetch.max.bytes", (BUFFER_BYTES / 2).to_string()),
            // A queue that was full is filled again soon, not in a second.
            ("fetch.queue.backoff.ms", "5".to_owned()),
            ("fetch.wait.max.ms", "100".to_owned()),
        ] {
            if config.get(name).is_none() {
                config.set(name, default);
            }
        }
        let context = Context::new(self.name.clone(), now_ms);
        config.create_with_context(context).map(Arc::new).map_err(|error| client::not_created(&error))
    }

    /// Partitions of this subtask begin.
    fn open(&mut self, found: BTreeMap<Partition, Progress>, now_ms: i64) -> Result<()> {
        let is_first = !std::mem::replace(&mut self.found, true);
        self.waiting.clear();
        let partitions = found.len();
        let mut list = TopicPartitionList::with_capacity(partitions);
        for (of, progress) in found {
            let done = progress.end.is_some_and(|end| progress.next >= end);
            let mut queue = None;
            // Its number is its place; lanes of unbounded sources are never closed, and others get none later.
            let number = self.lanes.iter().filter(|lane| lane.number != usize::MAX).count();
            if !done {
                if self.client.is_none() {
                    self.client = Some(self.connect(partitions, now_ms)?);
                }
                let client = self.client.as_ref().expect("made above");
                queue = Queue::of(client, &of.topic, of.number);
                if queue.is_none() {
                    return Err(Error::new(
                        Code::Internal,
                        format!("no queue for topic {} partition {}", of.topic, of.number),
                    ));
                }
                list.add_partition_offset(&of.topic, of.number, Offset::Offset(progress.next))
                    .internal(|| format!("topic {} partition {}", of.topic, of.number))?;
                self.events.push_back(Polled::Opened(number));
            }
            let number = if done { usize::MAX } else { number };
            let lane = Lane { of, progress, number, queue, pace: Pace::default() };
            self.lanes.push(lane);
        }
        if list.count() > 0 {
            let client = self.client.as_ref().expect("made for the first of them");
            client.incremental_assign(&list).internal(|| "partitions cannot be assigned".into())?;
        } else if is_first && self.options.bounded == KafkaBounded::Unbounded {
            // More subtasks than partitions: nobody waits for this one.
            self.events.push_back(Polled::Idle);
        }
        Ok(())
    }

    /// What the client has to tell: errors, logs, answers to commits. Records come by the queues of their partitions.
    fn serve(&mut self, now_ms: i64) -> Result<()> {
        let Some(client) = &self.client else { return Ok(()) };
        if now_ms == self.served_at {
            return Ok(());
        }
        self.served_at = now_ms;
        client.context().at(now_ms);
        while let Some(event) = client.poll(Duration::ZERO) {
            match event {
                Ok(message) => {
                    use rdkafka::Message;
                    let (topic, partition) = (message.topic(), message.partition());
                    return Err(Error::new(
                        Code::Internal,
                        format!("topic {topic} partition {partition}: a record in no queue"),
                    ));
                }
                Err(KafkaError::MessageConsumptionFatal(code)) => {
                    let last = client.context().last();
                    return Err(client::explain_code(
                        code,
                        "the client",
                        &self.options.client.bootstrap,
                        last.as_ref(),
                    ));
                }
                // Counted and logged by the context; librdkafka goes on trying.
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// The lane that is furthest behind of those that have records.
    fn choose(&mut self, watermarks: &[i64], now_ms: i64) -> Choice {
        let standings = self.lanes.iter_mut().enumerate().filter_map(|(lane, Lane { number, queue, pace, .. })| {
            let ready = queue.as_ref()?.ready();
            Some(Standing { lane, pace, ready, watermark: watermarks.get(*number).copied().unwrap_or(i64::MIN) })
        });
        pace::choose(standings, now_ms)
    }

    /// Decodes what a lane's queue has, until the batch is full.
    fn read(&mut self, index: usize, now_ms: i64) {
        let lane = &mut self.lanes[index];
        self.turns += 1;
        lane.pace.read(self.turns, now_ms);
        let Some(queue) = &mut lane.queue else { return };
        let Progress { next, end } = &mut lane.progress;
        let end = end.unwrap_or(i64::MAX);
        let mut trouble = None;
        while !self.rows.is_full() && *next < end {
            let Some(record) = queue.pop() else { break };
            match record.error() {
                None if record.offset() >= end => *next = end,
                None => {
                    lane.pace.at_end = false;
                    let pushed = self.rows.push(&lane.of.topic, lane.of.number, &record);
                    *next = record.offset() + 1;
                    if let Err(error) = pushed {
                        self.failed = Some(error);
                        break;
                    }
                }
                Some(RDKafkaErrorCode::PartitionEOF) => {
                    // Behind the last record there may be marks of transactions, and records of aborted ones.
                    *next = (*next).max(record.offset());
                    lane.pace.at_end = true;
                }
                Some(code) => {
                    trouble = Some((code, record.offset(), record.reason()));
                    break;
                }
            }
        }
        if *next >= end {
            self.close(index);
        }
        if let Some((code, offset, reason)) = trouble {
            self.failed = self.trouble(index, code, offset, &reason).err();
        }
    }

    /// Nothing more of this partition is wanted.
    fn close(&mut self, index: usize) {
        let lane = &mut self.lanes[index];
        lane.queue = None;
        self.events.push_back(Polled::Closed(lane.number));
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(&lane.of.topic, lane.of.number);
        if let Some(client) = &self.client
            && let Err(error) = client.incremental_unassign(&list)
        {
            // It goes on fetching until its buffer is full, that is all.
            client.context().warn(&format!("topic {} partition {}: {error}", lane.of.topic, lane.of.number));
        }
    }

    /// What librdkafka says about a partition. An error of ours if waiting does not help.
    fn trouble(&mut self, index: usize, code: RDKafkaErrorCode, offset: i64, reason: &str) -> Result<()> {
        use RDKafkaErrorCode as E;
        let lane = &self.lanes[index];
        let what = format!("topic {} partition {}", lane.of.topic, lane.of.number);
        let client = self.client.as_ref().expect("its queue had something to tell");
        match code {
            E::AutoOffsetReset | E::OffsetOutOfRange => {
                let wanted = if offset >= 0 { offset } else { lane.progress.next };
                let range = client.fetch_watermarks(&lane.of.topic, lane.of.number, RANGE);
                let range = range.map_or(reason.to_owned(), |(low, high)| {
                    if low == high {
                        format!("it is empty and goes on at {high}")
                    } else {
                        format!("it has {low} to {}", high - 1)
                    }
                });
                Err(Error::invalid(format!(
                    "{what}: offset {wanted} is out of range, {range}; to go on elsewhere set \
                     'properties.auto.offset.reset' to 'earliest' or 'latest'"
                )))
            }
            E::BadMessage | E::BadCompression | E::InvalidMessage => {
                Err(Error::corrupt(format!("{what} offset {}: {reason}", lane.progress.next)))
            }
            E::TopicAuthorizationFailed => Err(client::explain_code(code, &what, &self.options.client.bootstrap, None)),
            _ => {
                client.context().trouble(code, reason);
                client.context().warn(&format!("{what}: {reason}; it is tried again"));
                Ok(())
            }
        }
    }

    fn batch(&mut self, lane: usize) -> Result<Polled> {
        let taken = self.rows.take()?;
        Ok(Polled::Batch(SourceBatch {
            lane,
            batch: taken.batch,
            errors: taken.errors,
            field_errors: taken.field_errors,
            field_error: taken.field_error,
            bytes: taken.bytes,
        }))
    }
}

impl Source for Reader {
    fn poll(&mut self, watermarks: &[i64]) -> Result<Polled> {
        let polled = self.next(watermarks);
        polled.map_err(|error| within(&self.name, error))
    }

    fn position(&self) -> Result<Vec<u8>> {
        // The record that failed is taken already: a restart from here would not see it again.
        if let Some(error) = &self.failed {
            return Err(within(&self.name, error.clone()));
        }
        let read = self.lanes.iter().map(|lane| (&lane.of, lane.progress));
        let waiting = self.waiting.iter().map(|(of, progress)| (of, *progress));
        let subtask = (self.place.index, self.place.parallelism);
        position::write(subtask, self.found, &self.origin, read.chain(waiting))
    }

    fn bounded(&self) -> bool {
        self.options.bounded != KafkaBounded::Unbounded
    }

    fn snapshot(&mut self, epoch: Epoch) -> Result<Vec<u8>> {
        if self.options.group.is_some() {
            if self.snapshots.len() >= SNAPSHOTS_MAX {
                self.snapshots.pop_front();
            }
            let offsets = self.lanes.iter().map(|lane| (lane.of.clone(), lane.progress.next)).collect();
            self.snapshots.push_back((epoch, offsets));
        }
        self.position()
    }

    fn completed(&mut self, epoch: Epoch) -> Result<()> {
        let mut last = None;
        while self.snapshots.front().is_some_and(|(of, _)| *of <= epoch) {
            last = self.snapshots.pop_front();
        }
        let (Some((_, offsets)), Some(client)) = (last, &self.client) else { return Ok(()) };
        if offsets.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (of, next) in offsets {
            list.add_partition_offset(&of.topic, of.number, Offset::Offset(next))
                .internal(|| format!("topic {} partition {}", of.topic, of.number))?;
        }
        if let Err(error) = client.commit(&list, CommitMode::Async) {
            client.context().commit_failed(&error);
        }
        Ok(())
    }

    fn counts(&self) -> Counts {
        let context = self.client.as_ref().map(|client| client.context());
        Counts {
            tombstones: self.rows.tombstones(),
            connection_errors: context.map_or(0, |context| context.errors()),
            commit_failures: context.map_or(0, |context| context.commit_failures()),
            ..Counts::default()
        }
    }
}

impl Reader {
    fn next(&mut self, watermarks: &[i64]) -> Result<Polled> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            let now_ms = (self.clock)();
            self.serve(now_ms)?;
            match self.answers.try_recv() {
                Ok(Answer::Found(found)) => {
                    self.open(found, now_ms)?;
                    continue;
                }
                Ok(Answer::Failed(error)) => return Err(error),
                Err(TryRecvError::Disconnected) if !self.found => {
                    return Err(Error::new(Code::Internal, "nobody looks for partitions"));
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
            }
            if !self.found {
                return Ok(Polled::Wait(WAIT_MS as u64));
            }
            if self.bounded() && self.lanes.iter().all(|lane| lane.queue.is_none()) {
                return Ok(Polled::End);
            }
            let index = match self.choose(watermarks, now_ms) {
                Choice::Wait(ms) => return Ok(Polled::Wait(ms as u64)),
                Choice::Read(index) => index,
            };
            self.read(index, now_ms);
            while self.mixes && self.failed.is_none() && !self.rows.is_full() {
                let Choice::Read(other) = self.choose(watermarks, now_ms) else { break };
                self.read(other, now_ms);
            }
            if !self.rows.is_empty() {
                return self.batch(self.lanes[index].number);
            }
        }
    }
}

impl Drop for Reader {
    /// Its connections are closed by a thread that may wait for a broker; the task does so for a moment only.
    fn drop(&mut self) {
        self.lanes.clear();
        let Some(client) = self.client.take() else { return };
        let (done, closed) = sync_channel(1);
        let closing = std::thread::Builder::new().name("kafka-close".into()).spawn(move || {
            drop(client);
            let _ = done.send(());
        });
        if closing.is_ok() {
            let _ = closed.recv_timeout(CLOSE);
        }
    }
}
