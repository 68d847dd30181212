//! One slot of the source: its log, its connection, how far it is read, and which keys are known.

use super::dedup::Dedup;
use super::ingest::{Ingest, SharedClock, Subscription};
use super::link::Dialler;
use super::log::disk::Directory;
use super::log::record::{self, CHUNK_HEAD, Head};
use super::log::{Log, Reader};
use super::position::SlotPosition;
use super::shared::Taken;
use crate::connector::Place;
use crate::error::{Code, Context, Error, Result};
use ef_proto::connector::{MqttAck, MqttGap, MqttSource as Options};
use ef_proto::ids::Epoch;
use std::collections::{BTreeSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::Arc;

/// What a subtask reads of: see [`position`](super::position).
pub struct Slot {
    pub(super) number: u32,
    pub(super) name: String,
    pub(super) lane: usize,
    pub(super) log: Option<u64>,
    pub(super) ingest: Ingest,
    pub(super) reader: Option<Reader>,
    /// The next record to be read, and the first whose row counts.
    pub(super) next: u64,
    pub(super) emit_from: u64,
    /// From this record on, keys were needed at the position.
    pub(super) keep: u64,
    pub(super) chunk: Option<(Arc<Vec<u8>>, usize)>,
    pub(super) dedup: Option<Dedup>,
    /// First record and bytes of the chunks whose keys are kept, and the sum of the bytes.
    pub(super) spans: VecDeque<(u64, u64)>,
    pub(super) spans_bytes: u64,
    /// Of those at most.
    pub(super) spans_most: u64,
    pub(super) on_gap: MqttGap,
    /// Where there is no log.
    pub(super) outstanding: BTreeSet<u16>,
    /// Of checkpoints under way: position and floor.
    pub(super) snapshots: VecDeque<(Epoch, u64, u64)>,
    /// Floors of the last completed ones.
    pub(super) floors: VecDeque<u64>,
}

impl Slot {
    pub fn open(
        number: u32,
        lane: usize,
        options: &Options,
        place: &Place,
        old: Option<&SlotPosition>,
        subscription: Subscription,
        clock: &SharedClock,
    ) -> Result<Slot> {
        let client_id = client_id(options, place, number);
        let name = format!("mqtt client `{client_id}`");
        let dialler = Dialler { connection: options.connection.clone(), client_id, secrets: place.secrets.clone() };
        dialler.check()?;
        let position = old.map_or(0, |old| old.next);
        let (mut log, mut reader, mut keep) = (None, None, position);
        let mut start = (position, old.map(|old| old.outstanding.iter().copied().collect()).unwrap_or_default());
        let mut emit_from = position;
        if let (MqttAck::Log, Some(durable)) = (options.ack, &place.durable) {
            let directory = durable.join(format!("slot-{number}"));
            let opened = open_log(&name, &directory, options, old)?;
            emit_from = if old.is_some_and(|old| old.log == Some(opened.id())) {
                position.max(opened.first())
            } else {
                opened.first()
            };
            keep = old.map_or(opened.first(), |old| old.keep).clamp(opened.first(), emit_from);
            start = (opened.next(), opened.outstanding().clone());
            reader = Some(Reader::new(directory));
            log = Some(opened);
        }
        let id = log.as_ref().map(Log::id);
        let outstanding = if id.is_none() { start.1.clone() } else { BTreeSet::new() };
        let inflight = options.connection.redelivered() as u16;
        let dedup = options.dedup.as_ref().map(|dedup| Dedup::new(inflight, dedup.window_ms, dedup.bytes));
        let next = if dedup.is_some() && id.is_some() { keep } else { emit_from };
        let ingest = Ingest::start(&name, dialler, subscription, log, start, clock.clone())?;
        Ok(Slot {
            number,
            name,
            lane,
            log: id,
            ingest,
            reader,
            next,
            emit_from,
            keep,
            chunk: None,
            dedup,
            spans: VecDeque::new(),
            spans_bytes: 0,
            spans_most: options.log_bytes / ef_proto::connector::MQTT_KEYS_PART,
            on_gap: options.on_gap,
            outstanding,
            snapshots: VecDeque::new(),
            floors: VecDeque::new(),
        })
    }

    /// The chunk with the next record, and where in it that is.
    pub fn take_chunk(&mut self) -> Result<Option<(Arc<Vec<u8>>, usize)>> {
        if let Some(open) = self.chunk.take() {
            return Ok(Some(open));
        }
        let chunk = loop {
            let failed = match (self.ingest.shared.take(self.next)?, &mut self.reader) {
                (Taken::Nothing, _) => return Ok(None),
                (Taken::Chunk(chunk), _) => break chunk,
                (Taken::OnDisk, Some(reader)) => match reader.chunk(self.next) {
                    Ok(chunk) => break Arc::new(chunk),
                    Err(error) => error,
                },
                (Taken::OnDisk, None) => {
                    return Err(Error::new(Code::Internal, format!("{}: message {} is gone", self.name, self.next)));
                }
            };
            self.leap(failed)?;
        };
        let first = Head::read(&chunk).map_or(self.next, |head| head.first);
        self.count_span(first, chunk.len() as u64);
        let mut at = CHUNK_HEAD;
        for _ in first..self.next {
            at = record::record(&chunk, at).map_or(at, |(_, behind)| behind);
        }
        Ok(Some((chunk, at)))
    }

    /// Over records that the disk has lost, which `error` says: up to the checkpoint's position that costs keys, behind it
    /// messages.
    fn leap(&mut self, error: Error) -> Result<()> {
        let behind = self.reader.as_ref().map(|reader| reader.file_behind(self.next)).transpose()?.flatten();
        let from = self.next;
        let to = behind.unwrap_or(u64::MAX);
        if error.code == Code::Corrupt && from < self.emit_from {
            self.next = to.min(self.emit_from);
            let to = self.next;
            tracing::warn!("{}: {error}; the keys of messages {from} to {to} are not known any more", self.name);
            return Ok(());
        }
        match (error.code, self.on_gap, behind) {
            (Code::Corrupt, MqttGap::Continue, Some(to)) => {
                self.next = to;
                tracing::error!(
                    "{}: {error}; {} messages are lost, 'ingest.log.on-gap' is 'continue'",
                    self.name,
                    to - from
                );
                Ok(())
            }
            _ => Err(error),
        }
    }

    fn count_span(&mut self, first: u64, bytes: u64) {
        let Some(dedup) = &mut self.dedup else { return };
        self.spans.push_back((first, bytes));
        self.spans_bytes += bytes;
        while self.spans_bytes > self.spans_most && self.spans.len() > 1 {
            self.spans_bytes -= self.spans.pop_front().map_or(0, |(_, bytes)| bytes);
        }
        dedup.forget_before(self.spans.front().map_or(0, |(first, _)| *first));
    }

    pub fn position(&self) -> u64 {
        self.next.max(self.emit_from)
    }

    /// No record below is needed to go on from here.
    pub fn floor(&self) -> u64 {
        if self.next < self.emit_from {
            return self.keep;
        }
        let oldest = self.dedup.as_ref().and_then(Dedup::oldest);
        oldest.unwrap_or(self.next).min(self.next)
    }
}

/// With what the restored position asks of it checked.
fn open_log(name: &str, directory: &Path, options: &Options, old: Option<&SlotPosition>) -> Result<Log<Directory>> {
    let shown = || format!("{name}: ingest log `{}`", directory.display());
    let disk = Directory::open(directory).unavailable(shown)?;
    let in_log = |error: Error| Error::new(error.code, format!("{}: {}", shown(), error.message));
    let (mut log, opened) = Log::open(disk, RandomState::new().hash_one(name), options.log_bytes).map_err(in_log)?;
    if opened.cut > 0 {
        tracing::warn!("{}: {} bytes at its end were not synced, and are cut off", shown(), opened.cut);
    }
    let Some(old) = old else { return Ok(log) };
    let gap = if old.log != Some(log.id()) {
        let wanted = old.log.unwrap_or_default();
        let what = if opened.files == 0 { "there is none".into() } else { format!("here is log {:016x}", log.id()) };
        Some(format!(
            "the checkpoint reads log {wanted:016x} from message {} on, and {what}: it is on the disk of the worker that \
             ran this subtask before; what was acknowledged there and is in no checkpoint is only there",
            old.next
        ))
    } else if old.next < log.first() {
        Some(format!(
            "the checkpoint reads from message {} on, and the log begins with {}: {} messages are gone, because a later \
             checkpoint had completed",
            old.next,
            log.first(),
            log.first() - old.next
        ))
    } else {
        if old.next > log.next() {
            tracing::warn!(
                "{}: it ends with message {}, the checkpoint has read {}; the disk has lost what is read already",
                shown(),
                log.next(),
                old.next
            );
            log.skip_to(old.next);
        }
        None
    };
    match (gap, options.on_gap) {
        (None, _) => Ok(log),
        (Some(gap), MqttGap::Continue) => {
            tracing::error!("{}: {gap}; 'ingest.log.on-gap' is 'continue'", shown());
            Ok(log)
        }
        (Some(gap), MqttGap::Fail) => Err(Error::new(
            Code::Invalid,
            format!("{}: {gap}. Bring it back, or set 'ingest.log.on-gap' = 'continue' to go on without", shown()),
        )),
    }
}

/// Stable over restarts: job, operator and slot; never two subtasks with one.
fn client_id(options: &Options, place: &Place, slot: u32) -> String {
    match (&options.connection.client_id, slot) {
        (Some(given), 0) => given.clone(),
        (Some(given), slot) => format!("{given}-{slot}"),
        (None, slot) => format!("edgeflow-{}-{}-{slot}", place.job, place.operator),
    }
}
