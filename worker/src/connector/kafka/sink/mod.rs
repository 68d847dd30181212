//! The sinks `kafka` and `upsert-kafka`.
//!
//! Exactly-once, unless set otherwise, by a write-ahead log: rows of an epoch wait in a [`spool`], which the checkpoint
//! holds; when the checkpoint has completed, [`committer`] brings them into Kafka by the rules of [`slot`], with a marker in
//! the same transaction. So a broker that is away fails no checkpoint, no transaction stays open between two of them,
//! and after any crash the marker tells what is left to send. Rows are visible to readers with read_committed one
//! checkpoint interval after they were made, and a moment.
//!
//! At least once: rows go out as they come, and a barrier waits until the brokers have them all. What a checkpoint of
//! exactly-once times has left comes before them.
//!
//! Who answers for what: subtask s of parallelism p owns what the old subtasks s, s + p, s + 2p … have left. Where that is more
//! than its own, or the parallelism is another one, keys have moved: it fences the transactional ids and sends the rows that
//! it was restored with before a checkpoint with rows of its own can complete, so rows of one key stay in order. A job that starts from another one's savepoint does the same under that
//! job's ids: rows that the other one has sent meanwhile are not sent again.

mod blob;
mod committer;
mod direct;
mod record;
mod rows;
mod slot;
mod spool;
mod transaction;

use super::client;
use crate::config::KafkaBugs as Bugs;
use crate::connector::{CommitPermit, Place, Published, Sink, SinkRestore};
use crate::error::{Error, Result};
use crate::state::{Content, Staged, StagedFile};
use arrow_array::RecordBatch;
use blob::{Blob, SlotState};
use committer::{Committer, Owned, State};
use direct::Direct;
use ef_proto::checkpoint::{Layout, StateFile};
use ef_proto::connector::kafka::For;
use ef_proto::connector::{DeliveryGuarantee, KafkaSink, MarkerLost};
use ef_proto::ids::Epoch;
use ef_proto::schema::Schema;
use rdkafka::config::ClientConfig;
use rows::Rows;
use slot::{OnLost, Slot};
use spool::{Held, Segment, Spool};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use transaction::{Deliveries, Partitions, Patience, Transactions, Whose};

/// Key and value of a record, unless 'properties.max.request.size' says otherwise: the client's and the broker's default,
/// less what a record has around them.
const RECORD_BYTES_MAX: usize = 1_000_000 - 512;

/// A transaction is under way only while its rows are sent; one that a crash leaves open ends when its slot is fenced, and
/// if nobody does that, then.
const TRANSACTION_TIMEOUT_MS: &str = "300000";

/// At a fresh start a broker and the topic must be there.
const START: Duration = Duration::from_secs(30);

/// Of rows that lie in memory and in the checkpoint's manifest; beyond it epochs go to files, however few their rows are.
const INLINE_BYTES_MAX: usize = 1 << 20;

/// Opens a subtask. `schema` without `_op`; `changelog`: rows carry one. `commit_early` is a negative control of the tests, as
/// `bugs` are.
pub fn sink(
    options: &KafkaSink,
    schema: &Schema,
    changelog: bool,
    place: &Place,
    restore: SinkRestore<'_>,
    commit_early: bool,
    bugs: Bugs,
) -> Result<Box<dyn Sink>> {
    let mut producer = client::config(&options.client, For::Producer, &place.secrets)?;
    let bytes_max = producer.get("message.max.bytes").and_then(|text| text.parse::<usize>().ok());
    let bytes_max = bytes_max.map_or(RECORD_BYTES_MAX, |bytes| bytes.saturating_sub(512));
    let rows = Rows::new(options, schema, changelog, bytes_max, place)?;
    let defaults = [
        // As Java's client picks it, so that others find a key where they would have put it.
        ("partitioner", "murmur2_random"),
        ("linger.ms", "5"),
        ("queue.buffering.max.kbytes", "16384"),
        ("compression.type", "lz4"),
    ];
    for (name, value) in defaults {
        if producer.get(name).is_none() {
            producer.set(name, value);
        }
    }
    let whose = Whose {
        name: format!("table \"{}\"", place.table),
        topic: options.topic.clone(),
        id: String::new(),
        bootstrap: options.client.bootstrap.clone(),
        now_ms: place.now_ms,
    };
    let direct = options.guarantee != DeliveryGuarantee::ExactlyOnce;
    let plain = producer.clone();
    if producer.get("transaction.timeout.ms").is_none() {
        producer.set("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS);
    }
    // Within a transaction rows are sent until it ends, one way or the other.
    producer.set("acks", "all");
    let consumer = client::config(&options.client, For::Consumer, &place.secrets)?;
    let held = Held::default();
    let directory = place.scratch.join("spool");
    let (mut slots, permitted) = owned(options, &restore, &directory, &held, place, bugs)?;
    if direct {
        slots.iter_mut().for_each(|slot| slot.inherited = true);
    }
    let partitioner = options.partitioner;
    let of_slot = whose.clone();
    let connect = move |slot: &Owned| {
        let whose = Whose { topic: slot.topic.clone(), id: slot.id.clone(), ..of_slot.clone() };
        let partitions = Partitions::new(partitioner, slot.subtask);
        let transactions =
            Transactions::new(whose, producer.clone(), consumer.clone(), partitions, Patience::default());
        if bugs.lose_answers { transactions.losing_answers() } else { transactions }
    };
    let name = format!("{}/{}", place.table, place.index);
    if direct {
        let left = if slots.iter().all(|slot| slot.segments.is_empty()) {
            None
        } else {
            let state = State { slots, permitted, restored: Some(permitted), failed: None };
            Some(Committer::start(state, &name, connect)?)
        };
        let partitions = Partitions::new(options.partitioner, place.index);
        let lossy = options.guarantee == DeliveryGuarantee::None;
        return Ok(Box::new(Direct::open(rows, plain, whose, partitions, lossy, left)?));
    }
    if restore.permit.is_none() {
        check(&plain, &whose)?;
    }
    if !slots.iter().any(|slot| !slot.inherited) {
        let id =
            format!("{}-{}-{}-{}-{}", options.id_prefix, place.job, place.operator, place.index, place.incarnation);
        slots.push(Owned {
            id,
            subtask: place.index,
            job: place.job.clone(),
            topic: options.topic.clone(),
            inherited: false,
            rules: Slot::new(None, on_lost(options), bugs),
            segments: VecDeque::new(),
        });
    }
    let moved = restore.blobs.len() as u32 != place.parallelism || slots.iter().any(|slot| slot.inherited);
    let restored = if moved && !restore.blobs.is_empty() { Some(permitted) } else { None };
    let state = State { slots, permitted, restored, failed: None };
    Ok(Box::new(ExactlyOnce {
        table: place.table.clone(),
        rows,
        spool: Spool::new(directory, held.clone()),
        held,
        spool_bytes_max: options.spool_bytes,
        committer: Committer::start(state, &name, connect)?,
        uid: format!("kafka-{}-{}", place.incarnation, place.index),
        sequence: 0,
        staged: BTreeMap::new(),
        reusable: HashMap::new(),
        commit_early,
        left: Arc::default(),
        bytes: 0,
    }))
}

/// What nobody has started yet must be told what is wrong with it; what runs waits for its brokers.
fn check(producer: &ClientConfig, whose: &Whose) -> Result<()> {
    let mut config = producer.clone();
    config.remove("transaction.timeout.ms");
    let created = config.create_with_context(Deliveries::new(whose)).map_err(|e| client::not_created(&e))?;
    let found = transaction::partition_count(&created, &whose.topic, START);
    found.map(drop).map_err(|e| {
        use rdkafka::producer::Producer;
        whose.explain(&e, created.context().context())
    })
}

struct ExactlyOnce {
    table: String,
    rows: Rows,
    spool: Spool,
    held: Held,
    spool_bytes_max: u64,
    committer: Committer,
    /// Fresh for every open, as part of the names of files in the store.
    uid: String,
    /// Counts what was staged.
    sequence: u64,
    /// Staged, not confirmed, by sequence.
    staged: BTreeMap<u64, Upload>,
    /// Files of completed checkpoints, by name.
    reusable: HashMap<String, StateFile>,
    commit_early: bool,
    left: Arc<AtomicBool>,
    bytes: u64,
}

/// Files on their way to the store.
enum Upload {
    /// Kafka may have their rows meanwhile: the files stay until the store has them.
    UnderWay(#[expect(dead_code, reason = "to hold them")] Vec<Arc<Segment>>),
    Stored(Vec<StateFile>),
}

impl ExactlyOnce {
    /// While more rows wait than there is room for, and only Kafka keeps them waiting.
    fn hold_back(&self) -> Result<()> {
        let full = || self.held.load(Ordering::Relaxed) > self.spool_bytes_max;
        if !full() {
            return Ok(());
        }
        self.committer.wait(&self.left, |state| !full() || !state.is_sending())
    }
}

fn on_lost(options: &KafkaSink) -> OnLost {
    match options.marker_lost {
        MarkerLost::Fail => OnLost::Fail,
        MarkerLost::AssumeCommitted => OnLost::AssumeCommitted,
        MarkerLost::AssumeLost => OnLost::AssumeLost,
    }
}

/// The slots of the checkpoint that this subtask answers for, and the checkpoint's epoch.
fn owned(
    options: &KafkaSink,
    restore: &SinkRestore<'_>,
    directory: &Path,
    held: &Held,
    place: &Place,
    bugs: Bugs,
) -> Result<(Vec<Owned>, u64)> {
    let permitted = restore.permit.as_ref().map_or(0, |permit| permit.epoch().0);
    let mut slots = Vec::new();
    for (number, state) in inheritance(restore, place)?.into_iter().enumerate() {
        let unchecked = (!options.allow_rewind).then(|| state.unchecked.unwrap_or(permitted));
        // Under another topic's marker nothing new may be written.
        let inherited = state.job != place.job || state.subtask != place.index || state.topic != options.topic;
        let SlotState { id, subtask, job, topic, committed, segments, unchecked: _ } = state;
        let rules = Slot::new(committed, on_lost(options), bugs).restored_from(permitted, unchecked);
        let mut slot = Owned { inherited, rules, segments: VecDeque::new(), id, subtask, job, topic };
        let directory = directory.join(format!("restored-{number}"));
        for (number, state) in segments.into_iter().enumerate() {
            // Names hold the slot's id, so they are found in one directory only.
            let downloaded = restore.files.iter().map(|old| old.directory.path());
            let downloaded = downloaded.into_iter().find(|path| path.join(&state.file).exists());
            let to = directory.join(format!("{number:08}.rows"));
            slot.add(Segment::restore(state, downloaded, to, held.clone())?);
        }
        slots.push(slot);
    }
    if bugs.no_fence {
        slots.retain(|slot| !slot.inherited);
    }
    Ok((slots, permitted))
}

/// The old subtasks' slots that this subtask answers for.
fn inheritance(restore: &SinkRestore<'_>, place: &Place) -> Result<Vec<SlotState>> {
    let mut slots = Vec::new();
    for blob in restore.blobs.iter().filter(|blob| !blob.is_empty()) {
        slots.extend(Blob::decode(blob)?.slots);
    }
    slots.retain(|slot| slot.subtask % place.parallelism.max(1) == place.index);
    Ok(slots)
}

impl Sink for ExactlyOnce {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.hold_back()?;
        let (spool, bytes) = (&mut self.spool, &mut self.bytes);
        self.rows.each(batch, |record| {
            *bytes += record.bytes() as u64;
            spool.append(record)
        })
    }

    fn prepare(&mut self, epoch: Epoch) -> Result<Vec<u8>> {
        self.stage(epoch).map(|(blob, _)| blob)
    }

    fn stage(&mut self, epoch: Epoch) -> Result<(Vec<u8>, Option<Staged>)> {
        // Were our checkpoint to complete before, our rows could overtake those that are left from before.
        self.committer.wait(&self.left, State::restored_is_settled)?;
        let state = self.committer.state();
        let inline: usize =
            state.slots.iter().flat_map(|slot| &slot.segments).map(|segment| segment.inline_bytes()).sum();
        drop(state);
        let segment = self.spool.seal(epoch.0, inline < INLINE_BYTES_MAX)?;
        let mut state = self.committer.state();
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        // What has been inherited is done with.
        let own = state.slots.iter_mut().find(|slot| !slot.inherited);
        let own = own.ok_or_else(|| Error::new(crate::error::Code::Internal, "a kafka sink without a slot"))?;
        if let Some(segment) = segment {
            own.add(segment);
        }
        let (mut files, mut uploads) = (Vec::new(), Vec::new());
        let mut segments = Vec::new();
        for segment in &own.segments {
            let name = format!("{}.{:020}.rows", own.id, segment.epoch);
            segments.push(segment.state(&name));
            if let Some(path) = segment.file() {
                let content = match self.reusable.get(&name) {
                    Some(file) => Content::Reused(file.clone()),
                    None => {
                        uploads.push(segment.clone());
                        Content::File(path.to_path_buf())
                    }
                };
                files.push(StagedFile { name, content });
            }
        }
        let slot = SlotState {
            id: own.id.clone(),
            subtask: own.subtask,
            job: own.job.clone(),
            topic: own.topic.clone(),
            committed: own.rules.committed(),
            segments,
            unchecked: own.rules.unchecked(),
        };
        if self.commit_early {
            state.permitted = state.permitted.max(epoch.0);
        }
        drop(state);
        self.committer.wake();
        let blob = Blob::new(vec![slot]).encode();
        if files.is_empty() {
            return Ok((blob, None));
        }
        let kept: Vec<&String> = files.iter().map(|file| &file.name).collect();
        self.reusable.retain(|name, _| kept.contains(&name));
        self.sequence += 1;
        self.staged.insert(self.sequence, Upload::UnderWay(uploads));
        let staged = Staged {
            sequence: self.sequence,
            db_uid: self.uid.clone(),
            layout: Layout::Entries,
            key_groups: 0..0,
            files,
            directory: None,
        };
        Ok((blob, Some(staged)))
    }

    fn uploaded(&mut self, sequence: u64, files: Vec<StateFile>) {
        self.staged.insert(sequence, Upload::Stored(files));
    }

    fn confirm(&mut self, sequence: u64) {
        let confirmed = match self.staged.remove(&sequence) {
            Some(Upload::Stored(files)) => files,
            Some(Upload::UnderWay(_)) | None => Vec::new(),
        };
        // Those before it that are not confirmed by now never will be.
        self.staged.retain(|of, _| *of > sequence);
        self.reusable.extend(confirmed.into_iter().map(|file| (file.name.clone(), file)));
    }

    fn commit(&mut self, permit: &CommitPermit) -> Result<()> {
        let mut state = self.committer.state();
        state.permitted = state.permitted.max(permit.epoch().0);
        drop(state);
        self.committer.wake();
        Ok(())
    }

    fn published(&mut self) -> Result<Published> {
        self.committer.state().published()
    }

    fn on_clock(&mut self, _now_ms: i64) -> Result<()> {
        let state = self.committer.state();
        state.failed.clone().map_or(Ok(()), Err)
    }

    fn interrupt(&self) -> Option<Box<dyn FnOnce() + Send>> {
        let left = self.left.clone();
        Some(Box::new(move || left.store(true, Ordering::Relaxed)))
    }

    fn bytes_written(&self) -> u64 {
        self.bytes
    }
}

impl Drop for ExactlyOnce {
    fn drop(&mut self) {
        tracing::debug!(table = self.table, "kafka sink leaves");
    }
}
