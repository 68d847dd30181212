//! The sending end of a channel to another worker: a task thread puts encoded frames in, the connection takes them out.
//!
//! The rule of credit is that of a gate in the same process: a frame is always accepted when nothing is in flight, else
//! while all in flight is within the credit. In flight is what the receiving *task* has not taken: the queue here, the
//! network, and the queue there are bounded together. Control frames cost nothing; watermarks and idleness that have
//! not left yet give way to newer ones, so that only barriers add up, which the coordinator counts.

use super::channel::SendError;
use super::codec::{Encoder, Payload};
use super::local::frame_bytes;
use crate::error::Error;
use crate::frame::{Barrier, Frame};
use arrow_array::RecordBatch;
use ef_proto::wire::generated::exchange::frame::Body;
use ef_proto::wire::generated::exchange::{self as wire, Data, Nothing};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::sync::Notify;

/// What one message may take on the wire. The credit does not bound it, since one frame may always pass: this bounds
/// what a receiver must take into its memory before it can look at it.
pub(super) const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// Larger batches are sent in halves. Far from [`MESSAGE_BYTES_MAX`], so that rows of unequal size fit, too.
const BATCH_BYTES_MAX: usize = 64 << 20;

/// The sending end, owned by a task. Dropping it tells the other side that the task has left.
pub struct Remote {
    outlet: Arc<Outlet>,
    encoder: Arc<Mutex<Encoder>>,
}

/// What the task and the connection share.
pub struct Outlet {
    state: Mutex<State>,
    writable: Condvar,
    left: Notify,
    credit_bytes: u64,
    on_break: OnceLock<OnBreak>,
}

/// Takes word of a broken channel to a task that sends nothing any more.
pub type OnBreak = Box<dyn Fn(Error) + Send + Sync>;

struct State {
    phase: Phase,
    frames: VecDeque<Body>,
    /// Bytes of all frames that were accepted, and of those that the receiving task has taken.
    sent: u64,
    taken: u64,
    /// The other side has found the gate. Before that nothing travels that it would have to keep somewhere.
    accepted: bool,
    sender_waits: bool,
    /// Of the connection, which waits for frames.
    waker: Option<Waker>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// The last frame is `End`.
    Ended,
    /// Our task has gone before its end.
    Left,
    /// The receiving task has gone.
    Closed,
    Broken(Error),
}

impl Remote {
    /// `encoder` may be shared by the channels of one task: they are never used at once.
    pub(super) fn new(outlet: Arc<Outlet>, encoder: Arc<Mutex<Encoder>>) -> Remote {
        Remote { outlet, encoder }
    }

    pub fn outlet(&self) -> Arc<Outlet> {
        self.outlet.clone()
    }

    pub fn send(&self, frame: Frame) -> Result<(), SendError> {
        let bytes = frame_bytes(&frame);
        match frame {
            Frame::Data(batch) => self.data(batch, bytes),
            Frame::Watermark(at) => self.outlet.put(Body::WatermarkMs(at), 0),
            Frame::Barrier(Barrier { epoch, completed }) => {
                self.outlet.put(Body::Barrier(wire::Barrier { epoch: epoch.0, completed: completed.0 }), 0)
            }
            Frame::Idle => self.outlet.put(Body::Idle(Nothing {}), 0),
            Frame::End => self.outlet.put(Body::End(Nothing {}), 0),
        }
    }

    fn data(&self, batch: RecordBatch, bytes: usize) -> Result<(), SendError> {
        let rows = batch.num_rows();
        if bytes > BATCH_BYTES_MAX && rows > 1 {
            let half = rows / 2;
            self.data(batch.slice(0, half), bytes / rows * half)?;
            return self.data(batch.slice(half, rows - half), bytes / rows * (rows - half));
        }
        let encoded = self.encoder.lock().unwrap_or_else(PoisonError::into_inner).encode(&batch);
        let Payload { metadata, body } = encoded.map_err(SendError::Failed)?;
        let message_bytes = metadata.len() + body.len();
        // Room for the message's own fields.
        if message_bytes + 64 > MESSAGE_BYTES_MAX {
            return Err(SendError::Failed(Error::invalid(format!(
                "{rows} rows of {message_bytes} bytes are too large for another worker; {MESSAGE_BYTES_MAX} bytes are \
                 possible"
            ))));
        }
        // A part of a batch has an estimated size; it takes no less than it does on the wire.
        let credit_bytes = bytes.max(body.len()) as u64;
        self.outlet.put(Body::Data(Data { metadata, body, credit_bytes }), credit_bytes)
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.outlet.leave();
    }
}

impl Outlet {
    pub(super) fn new(credit_bytes: usize) -> Arc<Outlet> {
        Arc::new(Outlet {
            state: Mutex::new(State {
                phase: Phase::Open,
                frames: VecDeque::new(),
                sent: 0,
                taken: 0,
                accepted: false,
                sender_waits: false,
                waker: None,
            }),
            writable: Condvar::new(),
            left: Notify::new(),
            credit_bytes: credit_bytes as u64,
            on_break: OnceLock::new(),
        })
    }

    /// The queue is consistent between any two statements, whoever panics.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, body: Body, bytes: u64) -> Result<(), SendError> {
        let mut state = self.lock();
        loop {
            match &state.phase {
                Phase::Open => {}
                Phase::Left | Phase::Closed => return Err(SendError::Closed),
                Phase::Broken(error) => return Err(SendError::Failed(error.clone())),
                Phase::Ended => unreachable!("a task sends nothing after its end"),
            }
            if state.admits(bytes, self.credit_bytes) {
                break;
            }
            state.sender_waits = true;
            state = self.writable.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.sent += bytes;
        if matches!(body, Body::End(_)) {
            state.phase = Phase::Ended;
        }
        state.queue(body);
        wake(state);
        Ok(())
    }

    /// The task has gone, or is to go now: a waiting `send` returns. What it has not sent is dropped, unless all was.
    pub fn leave(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Left;
            state.frames.clear();
            state.frames.push_back(Body::Left(Nothing {}));
        }
        self.writable.notify_all();
        self.left.notify_one();
        wake(state);
    }

    /// The task has left.
    pub(super) async fn left(&self) {
        while self.lock().phase != Phase::Left {
            self.left.notified().await;
        }
    }

    pub(super) fn accept(&self) {
        let mut state = self.lock();
        state.accepted = true;
        wake(state);
    }

    /// The receiving task has taken so many bytes since the start.
    pub(super) fn taken(&self, bytes: u64) {
        let mut state = self.lock();
        state.taken = bytes.clamp(state.taken, state.sent);
        // Woken at half credit, as in one process.
        if state.sender_waits && state.in_flight() <= self.credit_bytes / 2 {
            state.sender_waits = false;
            self.writable.notify_all();
        }
    }

    /// The receiving task has gone in order.
    pub(super) fn close(&self) {
        self.conclude(Phase::Closed);
    }

    /// A task that has sent its end waits for nothing but messages; what it has sent may not have arrived, though.
    pub(super) fn fail(&self, error: Error) {
        let before = self.conclude(Phase::Broken(error.clone()));
        if let (Phase::Ended, Some(on_break)) = (before, self.on_break.get()) {
            on_break(error);
        }
    }

    /// Called when the channel breaks after the task's end. To be set before the task runs.
    pub fn on_break(&self, tell: OnBreak) {
        let first = self.on_break.set(tell).is_ok();
        debug_assert!(first, "one task sends");
    }

    /// The phase before.
    fn conclude(&self, phase: Phase) -> Phase {
        let mut state = self.lock();
        state.frames.clear();
        let before = state.phase.clone();
        if state.phase == Phase::Open {
            state.phase = phase;
        }
        self.writable.notify_all();
        wake(state);
        before
    }

    /// Our task needs the channel no more.
    pub(super) fn is_over(&self) -> bool {
        self.lock().phase != Phase::Open
    }

    /// The next frame for the wire; None after the last. That the task has left may be said at any time: the other side
    /// has nothing to keep, and may have found the gate already, which would miss the channel.
    pub(super) fn poll_frame(&self, context: &mut Context<'_>) -> Poll<Option<Body>> {
        let mut state = self.lock();
        if (state.accepted || state.phase == Phase::Left)
            && let Some(body) = state.frames.pop_front()
        {
            return Poll::Ready(Some(body));
        }
        if state.phase != Phase::Open && state.frames.is_empty() {
            return Poll::Ready(None);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }

    #[cfg(test)]
    pub(super) fn in_flight(&self) -> u64 {
        self.lock().in_flight()
    }
}

/// Lets the connection look again, once the lock is free.
fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl State {
    fn in_flight(&self) -> u64 {
        self.sent - self.taken
    }

    fn admits(&self, bytes: u64, credit_bytes: u64) -> bool {
        bytes == 0 || self.in_flight() == 0 || self.in_flight() + bytes <= credit_bytes
    }

    /// Of the watermarks and idle marks at the end of the queue only the last watermark and an idle mark after it
    /// matter: each takes back what the ones before it said.
    fn queue(&mut self, body: Body) {
        match (&body, self.frames.back()) {
            (Body::Idle(_), Some(Body::Idle(_))) => return,
            (Body::WatermarkMs(_), Some(Body::WatermarkMs(_) | Body::Idle(_))) => {
                while matches!(self.frames.back(), Some(Body::WatermarkMs(_) | Body::Idle(_))) {
                    self.frames.pop_back();
                }
            }
            _ => {}
        }
        self.frames.push_back(body);
    }
}

#[cfg(test)]
mod tests;
