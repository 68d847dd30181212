//! One slot: a client id with its session at the broker, its connection's thread and its log's.
//!
//! The connection's thread parses packets where they lie, appends them to the chunk that fills, hands a chunk over as
//! soon as the writer is idle (so what arrives during one fsync shares the next), and sends the acknowledgements that a
//! sync has set free. It stops reading when chunk and writer are full: TCP holds the broker back. It dials for ever.

use super::inbox::{Action, Event, Inbox};
use super::link::{Dialler, Link, READ_BYTES, Trouble};
use super::log::Log;
use super::log::disk::Directory;
use super::log::record::{Chunk, Kind, Record};
use super::packet::{self, FRONT_BYTES, Frame, PACKET_BYTES, Packet, Publish};
use super::shared::{Counters, Held, Shared};
use super::writer::{self, Report, Work};
use crate::connector::Clock;
use crate::connector::net::backoff;
use crate::error::{Code, Context, Error, Result};
use bytes::{Buf, BytesMut};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::{Receiver, channel};

/// Beyond this a chunk takes no more; one message may be longer.
const CHUNK_BYTES: usize = 128 << 10;

/// A connection that lived as long has been a good one.
const GOOD_MS: i64 = 10_000;

/// Of a message that is too long.
const CUT_BYTES: usize = 4_096;

const SUBSCRIBE_ID: u16 = 1;
const UNSUBSCRIBE_ID: u16 = 2;

pub type SharedClock = Arc<Mutex<Clock>>;

/// What to subscribe to.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// With `$share/…` in front where the subtasks share.
    pub filters: Vec<String>,
    /// Of an earlier version of the job, which the session still has.
    pub old_filters: Vec<String>,
    pub qos: u8,
}

/// Dropped, it ends its threads and waits for them.
pub struct Ingest {
    pub shared: Arc<Shared>,
    work: Option<SyncSender<Work>>,
    threads: Vec<JoinHandle<()>>,
}

impl Ingest {
    /// `log`: None where messages are acknowledged by checkpoints; then records are numbered from `next` on, and
    /// `outstanding` are the QoS 2 packet ids of the checkpoint.
    pub fn start(
        name: &str,
        dialler: Dialler,
        subscription: Subscription,
        log: Option<Log<Directory>>,
        (next, outstanding): (u64, BTreeSet<u16>),
        clock: SharedClock,
    ) -> Result<Ingest> {
        let shared = Shared::new(next);
        let (sender, reports) = channel(4);
        let mut ingest = Ingest { shared: shared.clone(), work: None, threads: Vec::new() };
        let spawn = |what: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(what.into()).spawn(run).internal(|| format!("thread {what}"))
        };
        if let Some(log) = log {
            let (work, queue) = sync_channel(2);
            ingest.work = Some(work);
            let (name, shared) = (name.to_owned(), shared.clone());
            let run = Box::new(move || writer::run(&name, log, &queue, &sender, &shared));
            ingest.threads.push(spawn("mqtt-log", run)?);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.internal(|| "mqtt runtime".into())?;
        let connection = Connection {
            name: name.to_owned(),
            dialler,
            subscription,
            shared,
            work: ingest.work.clone(),
            reports,
            writing: false,
            durable: next,
            inbox: Inbox::new(next, outstanding),
            chunk: Chunk::new(next, 0),
            capacity: 0,
            qos0: 0,
            writing_qos0: 0,
            skip: 0,
            clock,
            welcome: false,
        };
        let run = Box::new(move || {
            runtime.block_on(connection.run());
            // A name that is being looked up is not waited for.
            runtime.shutdown_background();
        });
        ingest.threads.push(spawn("mqtt-source", run)?);
        Ok(ingest)
    }

    /// Records below are not asked for any more.
    pub fn trim(&self, floor: u64) {
        self.shared.raise_floor(floor);
        if let Some(work) = &self.work {
            // A full queue is looked through with the floor as it is then.
            let _ = work.try_send(Work::Trim);
        }
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        self.shared.stop();
        self.work = None;
        for thread in self.threads.drain(..).rev() {
            let _ = thread.join();
        }
    }
}

/// Why a connection was left.
enum End {
    Stopped,
    Trouble(Trouble),
}

struct Connection {
    name: String,
    dialler: Dialler,
    subscription: Subscription,
    shared: Arc<Shared>,
    /// None: acknowledged by checkpoints.
    work: Option<SyncSender<Work>>,
    reports: Receiver<Report>,
    /// A chunk is with the writer.
    writing: bool,
    /// All records below are.
    durable: u64,
    inbox: Inbox,
    chunk: Chunk,
    /// For the next chunk: as large as the last.
    capacity: usize,
    /// QoS 0 messages in the chunk, and in the one that is with the writer.
    qos0: u64,
    writing_qos0: u64,
    /// Bytes of the input that are done with, the front of which has not come yet.
    skip: usize,
    clock: SharedClock,
    /// The broker has accepted us and our filters once.
    welcome: bool,
}

impl Connection {
    fn now_ms(&self) -> i64 {
        (self.clock.lock().unwrap_or_else(PoisonError::into_inner))()
    }

    async fn run(mut self) {
        // Not by the job's name: the devices of a fleet run jobs of one name.
        let mut chance = SmallRng::seed_from_u64(RandomState::new().hash_one(0));
        let (mut attempt, mut failures) = (0, 0u32);
        while !self.shared.is_stopped() {
            let shared = self.shared.clone();
            let dialled = tokio::select! {
                dialled = self.dialler.dial(attempt, false) => dialled,
                () = stopped(&shared) => return,
            };
            let trouble = match dialled {
                Err(trouble) => trouble,
                Ok(link) => {
                    Counters::add(&self.shared.counters.connections, 1);
                    let since = self.now_ms();
                    let end = self.serve(link).await;
                    self.inbox.step(Event::Disconnected);
                    if self.now_ms() - since >= GOOD_MS {
                        failures = 0;
                    }
                    match end {
                        End::Stopped => return,
                        End::Trouble(trouble) => trouble,
                    }
                }
            };
            Counters::add(&self.shared.counters.troubles, 1);
            if let (Trouble::Lasting(words), false) = (&trouble, self.welcome) {
                self.shared.fail(Error::invalid(format!("{}: {words}", self.name)));
                return;
            }
            failures = failures.saturating_add(1);
            let wait_ms = backoff::wait_ms(failures, chance.random());
            let next = u64::from(failures) + 1;
            tracing::warn!("{}: {}; attempt {next} in {wait_ms} ms", self.name, trouble.words());
            attempt += 1;
            if self.pause(Duration::from_millis(wait_ms)).await {
                return;
            }
        }
    }

    /// What came is written meanwhile. True: everything is to end.
    async fn pause(&mut self, pause: Duration) -> bool {
        let shared = self.shared.clone();
        let until = tokio::time::sleep(pause);
        tokio::pin!(until);
        loop {
            self.hand_over();
            tokio::select! {
                () = &mut until => return false,
                () = stopped(&shared) => return true,
                Some(report) = self.reports.recv() => drop(self.on_report(report)),
            }
        }
    }

    async fn serve(&mut self, link: Link) -> End {
        let Link { mut reading, mut writing, mut input, ack, keep_alive } = link;
        self.skip = 0;
        let version = self.dialler.connection.version;
        let mut out: Vec<u8> = Vec::new();
        let mut sent = 0;
        let now_ms = self.now_ms();
        let seen = self.inbox.next();
        for action in self.inbox.step(Event::Connected { session: ack.session_present }) {
            self.record_change(&action, now_ms);
        }
        let Subscription { filters, old_filters, qos } = self.subscription.clone();
        self.welcome |= filters.is_empty();
        if ack.max_qos.is_some_and(|most| most < qos) {
            tracing::warn!("{}: the broker offers QoS {} at most", self.name, ack.max_qos.unwrap_or(0));
        }
        // 3.1.1 sends retained messages with every SUBSCRIBE; a session that we have seen has the filters.
        let known = self.welcome && ack.session_present && version == ef_proto::connector::MqttVersion::V311;
        let mut subscribe =
            (!known && !filters.is_empty()).then(|| packet::subscribe(version, SUBSCRIBE_ID, &filters, qos));
        if !old_filters.is_empty() && ack.session_present {
            out.extend_from_slice(&packet::unsubscribe(version, UNSUBSCRIBE_ID, &old_filters));
        } else {
            self.shared.unsubscribed();
        }
        if !ack.session_present && (self.welcome || seen > 0) {
            tracing::warn!(
                "{}: the broker does not know our session any more; what it has received for us since we left is lost there",
                self.name
            );
        }
        tracing::info!("{}: connected, session {}", self.name, if ack.session_present { "resumed" } else { "new" });
        let mut heard = tokio::time::Instant::now();
        let mut timer = tokio::time::interval(keep_alive / 2);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        timer.reset();
        let mut unflushed = false;
        loop {
            match self.parse(&mut input) {
                Ok(()) => {}
                Err(trouble) => return End::Trouble(trouble),
            }
            self.hand_over();
            // Also for what needs no record: an answer that was lost is given again.
            let end = if self.work.is_some() { self.durable } else { self.shared.covered() };
            self.acknowledge(end, &mut out);
            if !self.inbox.hold() {
                out.extend(subscribe.take().into_iter().flatten());
            }
            let open = self.is_open();
            if sent == out.len() {
                out.clear();
                sent = 0;
            }
            let wake = self.shared.clone();
            tokio::select! {
                () = wake.wake.notified() => {
                    if self.shared.is_stopped() {
                        let goodbye = async {
                            writing.write_all(&packet::DISCONNECT).await?;
                            writing.shutdown().await
                        };
                        let _ = tokio::time::timeout(Duration::from_millis(200), goodbye).await;
                        return End::Stopped;
                    }
                }
                Some(report) = self.reports.recv() => {
                    if let Err(trouble) = self.on_report(report) {
                        return End::Trouble(trouble);
                    }
                }
                read = read_some(&mut reading, &mut input), if open => match read {
                    Ok(0) => return End::Trouble(Trouble::Passing(format!("{}: the broker has hung up", self.place()))),
                    Ok(_) => heard = tokio::time::Instant::now(),
                    Err(error) => return End::Trouble(Trouble::Passing(format!("{}: {error}", self.place()))),
                },
                written = write_some(&mut writing, &out[sent..]), if sent < out.len() || unflushed => match written {
                    Ok(bytes) => {
                        unflushed = bytes > 0;
                        sent += bytes;
                    }
                    Err(error) => return End::Trouble(Trouble::Passing(format!("{}: {error}", self.place()))),
                },
                _ = timer.tick() => {
                    // While nothing is read, nothing can be heard.
                    if !open {
                        heard = tokio::time::Instant::now();
                    } else if heard.elapsed() > keep_alive.mul_f32(1.5) {
                        let words = format!("{}: nothing heard for {} s", self.place(), heard.elapsed().as_secs());
                        return End::Trouble(Trouble::Passing(words));
                    }
                    out.extend_from_slice(&packet::PINGREQ);
                }
            }
        }
    }

    fn place(&self) -> String {
        let broker = self.dialler.broker(0);
        match &self.dialler.connection.brokers[..] {
            [_] => format!("broker {}:{}", broker.host, broker.port),
            _ => "broker".into(),
        }
    }

    /// Whether more may come.
    fn is_open(&self) -> bool {
        self.chunk.len() < CHUNK_BYTES && (self.work.is_some() || !self.shared.ring_is_full())
    }

    /// All whole packets of the input, as long as there is room.
    fn parse(&mut self, input: &mut BytesMut) -> std::result::Result<(), Trouble> {
        let version = self.dialler.connection.version;
        let now_ms = self.now_ms();
        let mut at = 0;
        let mut messages = 0;
        let ring_has_room = self.is_open();
        let result = loop {
            let skipped = self.skip.min(input.len() - at);
            at += skipped;
            self.skip -= skipped;
            if self.skip > 0 || !ring_has_room || self.chunk.len() >= CHUNK_BYTES {
                break Ok(());
            }
            let rest = &input[at..];
            let frame = match Frame::of(rest) {
                Ok(Some(frame)) => frame,
                Ok(None) => break Ok(()),
                Err(malformed) => break Err(malformed.into()),
            };
            let oversize = frame.body > PACKET_BYTES;
            let needed = if oversize { FRONT_BYTES } else { frame.bytes() };
            if oversize && !frame.is_publish() {
                break Err(Trouble::Passing(format!("the broker sent a packet of {} bytes", frame.body)));
            }
            if rest.len() < needed {
                break Ok(());
            }
            let body = &rest[frame.head..needed];
            let taken = if frame.is_publish() {
                messages += 1;
                packet::publish(version, frame.first, body).map_err(Trouble::from).and_then(|mut publish| {
                    if oversize {
                        publish.payload = &publish.payload[..publish.payload.len().min(CUT_BYTES)];
                        self.tell_oversize(&publish, frame.body);
                    }
                    self.publish(&publish, oversize, now_ms)
                })
            } else {
                packet::read(version, frame, body)
                    .map_err(Trouble::from)
                    .and_then(|packet| self.control(packet, now_ms))
            };
            if let Err(trouble) = taken {
                break Err(trouble);
            }
            self.skip = frame.bytes();
        };
        Counters::add(&self.shared.counters.messages, messages);
        input.advance(at);
        if input.is_empty() && input.capacity() > 8 * READ_BYTES {
            *input = BytesMut::with_capacity(READ_BYTES);
        }
        result
    }

    #[inline]
    fn publish(&mut self, publish: &Publish, cut: bool, received_ms: i64) -> std::result::Result<(), Trouble> {
        match self.inbox.publish(publish.qos, publish.pkid, publish.dup) {
            Action::Record => {}
            Action::HangUp => {
                return Err(Trouble::Passing("the broker sends without waiting for acknowledgements".into()));
            }
            _ => return Ok(()),
        }
        self.qos0 += u64::from(publish.qos == 0);
        let Publish { dup, qos, retain, pkid, topic, properties, payload } = *publish;
        let kind = Kind::Message;
        self.append(&Record { kind, qos, retain, dup, cut, pkid, received_ms, topic, properties, payload });
        Ok(())
    }

    fn control(&mut self, packet: Packet, now_ms: i64) -> std::result::Result<(), Trouble> {
        let version = self.dialler.connection.version;
        match packet {
            Packet::PubRel { pkid } => {
                for action in self.inbox.step(Event::Released { pkid }) {
                    self.record_change(&action, now_ms);
                }
                Ok(())
            }
            Packet::SubAck { pkid: SUBSCRIBE_ID, codes } => self.subscribed(codes),
            Packet::UnsubAck => {
                self.shared.unsubscribed();
                Ok(())
            }
            Packet::PingResp => Ok(()),
            Packet::Disconnect { reason, text } => {
                let mut words =
                    format!("{}: disconnected by the broker: {}", self.place(), packet::meaning(version, reason));
                if let Some(text) = text {
                    words += &format!(", `{text}`");
                }
                if reason == 0x8e {
                    words += &format!(
                        "; another client uses the id `{}`: is this job running twice, or 'client.id' given twice?",
                        self.dialler.client_id
                    );
                }
                Err(Trouble::Passing(words))
            }
            other => Err(Trouble::Passing(format!("the broker sent {other:?} to a client that only receives"))),
        }
    }

    /// A filter that is refused would be missed silently.
    fn subscribed(&mut self, codes: &[u8]) -> std::result::Result<(), Trouble> {
        let version = self.dialler.connection.version;
        for (filter, code) in self.subscription.filters.iter().zip(codes) {
            if *code >= 0x80 {
                let meaning = packet::meaning(version, *code);
                let place = self.place();
                return Err(Trouble::Lasting(format!("{place}: refused to subscribe to `{filter}`: {meaning}")));
            }
            if *code < self.subscription.qos {
                tracing::warn!("{}: the broker grants QoS {code} for `{filter}`", self.name);
            }
        }
        if codes.len() != self.subscription.filters.len() {
            return Err(Trouble::Passing("the broker answered SUBSCRIBE with another number of filters".into()));
        }
        self.welcome = true;
        Ok(())
    }

    fn record_change(&mut self, action: &Action, now_ms: i64) {
        match action {
            Action::RecordRelease(pkid) => self.append(&Record::change(Kind::Released, *pkid, now_ms)),
            Action::RecordSessionLost => self.append(&Record::change(Kind::SessionLost, 0, now_ms)),
            _ => {}
        }
    }

    fn append(&mut self, record: &Record) {
        if self.chunk.is_empty() {
            self.chunk = Chunk::new(self.chunk.first(), self.capacity);
        }
        let number = self.chunk.push(record);
        assert_eq!(number + 1, self.inbox.next(), "inbox and chunk number records alike");
    }

    fn tell_oversize(&self, publish: &Publish, bytes: usize) {
        Counters::add(&self.shared.counters.oversize, 1);
        let topic = String::from_utf8_lossy(publish.topic);
        tracing::warn!("{}: a message of {bytes} bytes on `{topic}` is too long; only its front is kept", self.name);
    }

    /// Gives the chunk to the writer, if that is idle, or to the task.
    fn hand_over(&mut self) {
        if self.chunk.is_empty() || self.writing {
            return;
        }
        let end = self.chunk.end();
        let full = std::mem::replace(&mut self.chunk, Chunk::new(end, 0));
        // Room for as much again; a rare burst does not stay.
        let like_it = (full.len() + full.len() / 4).next_multiple_of(16 << 10).min(CHUNK_BYTES + (64 << 10));
        self.capacity = like_it.max(self.capacity / 2);
        let first = full.first();
        let sealed = full.seal();
        match &self.work {
            None => self.shared.publish(Held { first, end, bytes: Arc::new(sealed) }, false),
            Some(work) => match work.try_send(Work::Chunk(sealed, self.inbox.outstanding().clone())) {
                Ok(()) => {
                    self.writing = true;
                    self.writing_qos0 = std::mem::take(&mut self.qos0);
                }
                // Only trims can be in it, and the next time round there is room.
                Err(TrySendError::Full(Work::Chunk(sealed, _))) => self.chunk = Chunk::unseal(sealed),
                Err(_) => self.shared.fail(Error::new(Code::Internal, "the thread of the ingest log has ended")),
            },
        }
    }

    fn acknowledge(&mut self, end: u64, out: &mut Vec<u8>) {
        for action in self.inbox.step(Event::Durable(end)) {
            if let Action::Send(ack, pkid) = action {
                packet::ack(ack, pkid, out);
            }
        }
    }

    fn on_report(&mut self, report: Report) -> std::result::Result<(), Trouble> {
        self.writing = false;
        match report {
            Report::Durable(end) => {
                self.writing_qos0 = 0;
                self.durable = end;
                Ok(())
            }
            Report::Lost { next, outstanding } => {
                // The broker sends again what it has no acknowledgement for; of QoS 0 it has none to wait for.
                let lost = std::mem::take(&mut self.qos0) + std::mem::take(&mut self.writing_qos0);
                if lost > 0 {
                    tracing::error!(
                        "{}: {lost} messages of QoS 0 are lost with the chunk that could not be written",
                        self.name
                    );
                }
                Counters::add(&self.shared.counters.lost, lost);
                self.chunk = Chunk::new(next, 0);
                self.inbox.step(Event::Rewound { next, outstanding });
                Err(Trouble::Passing("the ingest log cannot be written".into()))
            }
        }
    }
}

/// Appends what the socket has.
async fn read_some(reading: &mut (impl AsyncReadExt + Unpin), input: &mut BytesMut) -> std::io::Result<usize> {
    if input.capacity() - input.len() < READ_BYTES / 4 {
        input.reserve(READ_BYTES);
    }
    reading.read_buf(input).await
}

/// Bytes that were written; of none, what TLS still holds is flushed.
async fn write_some(writing: &mut (impl AsyncWriteExt + Unpin), bytes: &[u8]) -> std::io::Result<usize> {
    if bytes.is_empty() { writing.flush().await.map(|()| 0) } else { writing.write(bytes).await }
}

/// Other wake-ups are looked at when the connection is there.
async fn stopped(shared: &Shared) {
    while !shared.is_stopped() {
        shared.wake.notified().await;
    }
}
