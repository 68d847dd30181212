//! The sink's connection: takes messages from the desk, sends them, and tells the desk what the broker has taken. It
//! dials for ever; how long nothing may be taken is for those who wait at the desk to say.

use super::link::{Dialler, Link, READ_BYTES, Trouble};
use super::outbox::{Action, Event, Message, Outbox};
use super::packet::{self, Ack, Frame, PACKET_BYTES, Packet};
use crate::connector::net::backoff;
use crate::error::{Code, Context, Error, Result};
use bytes::{Buf, BytesMut};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Of messages that the broker has not taken.
const DESK_BYTES: usize = 8 << 20;
const DESK_MESSAGES: usize = 65_536;

/// Written to the socket at once, at most about this.
const OUT_BYTES: usize = 1 << 20;

#[derive(Default)]
struct State {
    queue: VecDeque<Message>,
    queued_bytes: usize,
    /// In the outbox, as of its last step.
    outbox: (usize, usize),
    /// Grows with all that the broker takes.
    taken: u64,
    failed: Option<Error>,
    trouble: Option<String>,
    /// The task is told to leave: nobody waits here any more.
    left: bool,
    stopped: bool,
}

impl State {
    fn left(&self) -> usize {
        self.queue.len() + self.outbox.0
    }
}

/// Between the task and the connection.
#[derive(Default)]
pub struct Desk {
    state: Mutex<State>,
    changed: Condvar,
    wake: Notify,
}

impl Desk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room. The inner error: nothing was taken for as long, and so many messages wait.
    pub fn push(&self, message: Message, timeout: Duration) -> Result<std::result::Result<(), usize>> {
        let room = |state: &State| state.queued_bytes + state.outbox.1 < DESK_BYTES && state.left() < DESK_MESSAGES;
        let mut state = match self.wait(timeout, room)? {
            Ok(state) => state,
            Err(left) => return Ok(Err(left)),
        };
        let was_empty = state.queue.is_empty();
        state.queued_bytes += message.len();
        state.queue.push_back(message);
        drop(state);
        if was_empty {
            self.wake.notify_one();
        }
        Ok(Ok(()))
    }

    /// Waits until the broker has taken everything.
    pub fn flush(&self, timeout: Duration) -> Result<std::result::Result<(), usize>> {
        Ok(self.wait(timeout, |state| state.left() == 0)?.map(drop))
    }

    fn wait(
        &self,
        timeout: Duration,
        until: impl Fn(&State) -> bool,
    ) -> Result<std::result::Result<MutexGuard<'_, State>, usize>> {
        let mut state = self.state();
        loop {
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            if state.left {
                return Err(Error::new(
                    Code::Unavailable,
                    "the task is told to leave, and messages wait for the broker",
                ));
            }
            if until(&state) {
                return Ok(Ok(state));
            }
            let taken = state.taken;
            let still =
                |state: &mut State| state.taken == taken && state.failed.is_none() && !state.left && !until(state);
            let (after, waited) =
                self.changed.wait_timeout_while(state, timeout, still).unwrap_or_else(PoisonError::into_inner);
            state = after;
            if waited.timed_out() {
                return Ok(Err(state.left()));
            }
        }
    }

    /// What the connection has failed with.
    pub fn check(&self) -> Result<()> {
        self.state().failed.clone().map_or(Ok(()), Err)
    }

    pub fn trouble(&self) -> Option<String> {
        self.state().trouble.clone()
    }

    /// Makes whoever waits here stop waiting.
    pub fn leave(&self) {
        self.state().left = true;
        self.changed.notify_all();
    }

    pub fn stop(&self) {
        self.state().stopped = true;
        self.wake.notify_one();
    }

    fn is_stopped(&self) -> bool {
        self.state().stopped
    }

    fn fail(&self, error: Error) {
        self.state().failed.get_or_insert(error);
        self.changed.notify_all();
    }
}

pub fn start(name: &str, dialler: Dialler, qos: u8, retain: bool) -> Result<(Arc<Desk>, JoinHandle<()>)> {
    let desk = Arc::new(Desk::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.internal(|| "mqtt runtime".into())?;
    let publisher = Publisher {
        name: name.to_owned(),
        dialler,
        qos,
        retain,
        desk: desk.clone(),
        outbox: Outbox::new(qos),
        packet_max: usize::MAX,
        welcome: false,
    };
    let run = move || {
        runtime.block_on(publisher.run());
        runtime.shutdown_background();
    };
    let thread = std::thread::Builder::new().name("mqtt-sink".into()).spawn(run);
    Ok((desk, thread.internal(|| "thread mqtt-sink".into())?))
}

struct Publisher {
    name: String,
    dialler: Dialler,
    qos: u8,
    retain: bool,
    desk: Arc<Desk>,
    outbox: Outbox,
    packet_max: usize,
    welcome: bool,
}

impl Publisher {
    async fn run(mut self) {
        // Not by the job's name: the devices of a fleet run jobs of one name.
        let mut chance = SmallRng::seed_from_u64(RandomState::new().hash_one(0));
        let (mut attempt, mut failures) = (0, 0u32);
        let desk = self.desk.clone();
        while !desk.is_stopped() {
            let dialled = tokio::select! {
                // The session is ours alone: what an old process left there is in no outbox.
                dialled = self.dialler.dial(attempt, !self.welcome) => dialled,
                () = stopped(&desk) => return,
            };
            let trouble = match dialled {
                Err(trouble) => trouble,
                Ok(link) => {
                    let since = Instant::now();
                    let Some(trouble) = self.serve(link).await else { return };
                    if since.elapsed() > Duration::from_secs(10) {
                        failures = 0;
                    }
                    trouble
                }
            };
            if let (Trouble::Lasting(words), false) = (&trouble, self.welcome) {
                desk.fail(Error::invalid(format!("{}: {words}", self.name)));
                return;
            }
            desk.state().trouble = Some(trouble.words().to_owned());
            failures = failures.saturating_add(1);
            let wait_ms = backoff::wait_ms(failures, chance.random());
            tracing::warn!("{}: {}; next attempt in {wait_ms} ms", self.name, trouble.words());
            attempt += 1;
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {}
                () = stopped(&desk) => return,
            }
        }
    }

    /// None: everything is to end.
    async fn serve(&mut self, link: Link) -> Option<Trouble> {
        let Link { mut reading, mut writing, mut input, ack, keep_alive } = link;
        if ack.max_qos.is_some_and(|most| most < self.qos) {
            let most = ack.max_qos.unwrap_or(0);
            return Some(Trouble::Lasting(format!("the broker offers QoS {most} at most, 'qos' is {}", self.qos)));
        }
        if self.retain && !ack.retain_available {
            return Some(Trouble::Lasting("the broker retains no messages, 'sink.retain' is 'true'".into()));
        }
        self.welcome = true;
        self.desk.state().trouble = None;
        self.packet_max = ack.max_packet.map_or(usize::MAX, |max| max as usize);
        let max = ack.receive_max.unwrap_or(u16::MAX).min(self.dialler.connection.inflight);
        tracing::info!("{}: connected", self.name);
        let (mut out, mut sent, mut unflushed) = (Vec::new(), 0, false);
        let connected = self.outbox.step(Event::Connected { session: ack.session_present, max });
        self.carry_out(connected, &mut out);
        let mut heard = Instant::now();
        let mut timer = tokio::time::interval(keep_alive / 2);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        timer.reset();
        let desk = self.desk.clone();
        loop {
            if let Err(trouble) = self.parse(&mut input, &mut out) {
                return Some(trouble);
            }
            if out.len() - sent < OUT_BYTES {
                self.take(&mut out);
            }
            if sent == out.len() {
                out.clear();
                sent = 0;
            }
            tokio::select! {
                () = desk.wake.notified() => {
                    if desk.is_stopped() {
                        let goodbye = async {
                            writing.write_all(&out[sent..]).await?;
                            writing.write_all(&packet::DISCONNECT).await?;
                            writing.shutdown().await
                        };
                        let _ = tokio::time::timeout(Duration::from_millis(500), goodbye).await;
                        return None;
                    }
                }
                read = read_some(&mut reading, &mut input) => match read {
                    Ok(0) => return Some(Trouble::Passing("the broker has hung up".into())),
                    Ok(_) => heard = Instant::now(),
                    Err(error) => return Some(Trouble::Passing(error.to_string())),
                },
                written = write_some(&mut writing, &out[sent..]), if sent < out.len() || unflushed => match written {
                    Ok(bytes) => {
                        unflushed = bytes > 0;
                        sent += bytes;
                    }
                    Err(error) => return Some(Trouble::Passing(error.to_string())),
                },
                _ = timer.tick() => {
                    if heard.elapsed() > keep_alive.mul_f32(1.5) {
                        let words = format!("nothing heard for {} s", heard.elapsed().as_secs());
                        return Some(Trouble::Passing(words));
                    }
                    out.extend_from_slice(&packet::PINGREQ);
                }
            }
        }
    }

    /// From the desk into the outbox, and what may go onto the wire.
    fn take(&mut self, out: &mut Vec<u8>) {
        loop {
            let messages = {
                let mut state = self.desk.state();
                state.queued_bytes = 0;
                let messages = std::mem::take(&mut state.queue);
                state.outbox.0 += messages.len();
                state.outbox.1 += messages.iter().map(|message| message.len()).sum::<usize>();
                messages
            };
            if messages.is_empty() {
                return;
            }
            for message in messages {
                let actions = self.outbox.step(Event::Push(message));
                self.carry_out(actions, out);
            }
            self.tell();
        }
    }

    /// How much is left, to those who wait.
    fn tell(&self) {
        let mut state = self.desk.state();
        let now = (self.outbox.len(), self.outbox.bytes());
        if now != state.outbox {
            state.taken += 1;
            state.outbox = now;
            drop(state);
            self.desk.changed.notify_all();
        }
    }

    fn carry_out(&mut self, actions: Vec<Action>, out: &mut Vec<u8>) {
        for action in actions {
            match action {
                Action::Release { pkid } => packet::ack(Ack::Pubrel, pkid, out),
                Action::Send { message, pkid, dup } => {
                    if message.len() > self.packet_max {
                        let (found, max) = (message.len(), self.packet_max);
                        let what = format!("{}: a message has {found} bytes, the broker takes {max}", self.name);
                        self.desk.fail(Error::invalid(what));
                        continue;
                    }
                    let at = out.len();
                    out.extend_from_slice(&message);
                    if dup {
                        out[at] |= 8;
                    }
                    // Behind the fixed header and the topic.
                    if let (1.., Ok(Some(frame))) = (pkid, Frame::of(&message)) {
                        let topic = usize::from(u16::from_be_bytes([message[frame.head], message[frame.head + 1]]));
                        let id = at + frame.head + 2 + topic;
                        out[id..id + 2].copy_from_slice(&pkid.to_be_bytes());
                    }
                }
            }
        }
    }

    fn parse(&mut self, input: &mut BytesMut, out: &mut Vec<u8>) -> std::result::Result<(), Trouble> {
        let version = self.dialler.connection.version;
        let mut any = false;
        while let Some(frame) = Frame::of(input)? {
            if frame.body > PACKET_BYTES {
                return Err(Trouble::Passing(format!("the broker sent a packet of {} bytes", frame.body)));
            }
            if input.len() < frame.bytes() {
                break;
            }
            let event = match packet::read(version, frame, &input[frame.head..frame.bytes()])? {
                Packet::PubAck { pkid, reason } => {
                    self.refused(reason);
                    Some(Event::Taken { pkid })
                }
                Packet::PubRec { pkid, reason } if reason >= 0x80 => {
                    self.refused(reason);
                    Some(Event::Taken { pkid })
                }
                Packet::PubRec { pkid, .. } => Some(Event::Received { pkid }),
                Packet::PubComp { pkid } => Some(Event::Completed { pkid }),
                Packet::PingResp => None,
                Packet::Disconnect { reason, text } => {
                    let text = text.map(|text| format!(", `{text}`")).unwrap_or_default();
                    let meaning = packet::meaning(version, reason);
                    return Err(Trouble::Passing(format!("disconnected by the broker: {meaning}{text}")));
                }
                other => {
                    return Err(Trouble::Passing(format!("the broker sent {other:?} to a client that only sends")));
                }
            };
            input.advance(frame.bytes());
            if let Some(event) = event {
                let actions = self.outbox.step(event);
                self.carry_out(actions, out);
                any = true;
            }
        }
        if any {
            self.tell();
        }
        Ok(())
    }

    /// A message that the broker does not want is not lost silently.
    fn refused(&self, reason: u8) {
        if reason >= 0x80 {
            let meaning = packet::meaning(self.dialler.connection.version, reason);
            self.desk.fail(Error::invalid(format!("{}: the broker refused a message: {meaning}", self.name)));
        }
    }
}

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

async fn stopped(desk: &Desk) {
    while !desk.is_stopped() {
        desk.wake.notified().await;
    }
}
