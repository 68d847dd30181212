//! Where a task's input arrives: a gate with one bounded queue per sender, and the senders of the same process.
//!
//! The bound is credits in bytes, never rows alone: a sender waits while its own queue is over its credit, so a slow
//! or blocked (aligning) channel stalls only its own sender. A frame is always accepted by an empty queue, whatever
//! its size. Control messages bypass the credit, so that a full gate can still be cancelled; and the last of them closes
//! the gate, so that no sender waits for a task that is told to leave. Frames from other workers come in by `inlet`.

use crate::error::Error;
use crate::frame::Frame;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

/// The other side is gone: the task was cancelled or failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// What a gate gives its task.
#[derive(Debug)]
pub enum Received<C> {
    Frame(usize, Frame),
    Control(C),
    /// A channel from another worker broke before its end. Told once.
    Failed(Error),
    /// Nothing came in time.
    Timeout,
}

pub(super) struct Queue {
    pub frames: VecDeque<(Frame, usize)>,
    pub bytes: usize,
    sender_waits: bool,
    /// Of a channel from another worker.
    pub line: Option<Line>,
}

/// Frees a task's thread from whatever it waits for below the gate.
type Interrupt = Box<dyn FnOnce() + Send>;

/// What the sender on another worker is told.
#[derive(Default)]
pub(super) struct Line {
    /// Bytes that the task has taken since the start, and how much of that its sender knows.
    pub taken: u64,
    pub told: u64,
    /// Nothing more will be told: the last frame has come.
    pub done: bool,
    /// Why the channel was given up.
    pub broken: Option<String>,
    /// Of whoever tells the sender.
    pub waker: Option<Waker>,
}

pub(super) struct State<C> {
    pub queues: Vec<Queue>,
    control: VecDeque<C>,
    /// Called once the task is told to leave.
    interrupts: Vec<Interrupt>,
    /// The first channel that broke, until the task is told.
    pub failed: Option<Error>,
    /// Where the round robin goes on.
    next: usize,
    receiver_waits: bool,
    pub closed: bool,
}

pub(super) struct Shared<C> {
    state: Mutex<State<C>>,
    readable: Condvar,
    /// One for each queue.
    writable: Vec<Condvar>,
    pub credit_bytes: usize,
    /// The task is told to leave.
    left: Arc<AtomicBool>,
}

impl<C> State<C> {
    /// Nothing is taken any more. Whoever tells senders on other workers is to be woken.
    fn close(&mut self) -> Vec<Waker> {
        self.closed = true;
        let mut wakers = Vec::new();
        for queue in &mut self.queues {
            queue.frames.clear();
            queue.bytes = 0;
            wakers.extend(queue.line.as_mut().and_then(|line| line.waker.take()));
        }
        wakers
    }
}

impl<C> Shared<C> {
    /// A panicking task poisons nothing worth saving: it has failed the job, and the queues are still consistent.
    pub fn lock(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The task has something to look at.
    pub fn wake(&self, state: &mut State<C>) {
        if state.receiver_waits {
            state.receiver_waits = false;
            self.readable.notify_one();
        }
    }
}

impl Queue {
    /// Whether it is time to tell the sender what was taken. A quarter of the credit is worth a message; an empty queue
    /// must be known, because a frame larger than the rest of the credit waits for it.
    pub fn is_credit_due(&self, credit_bytes: usize) -> bool {
        let Some(line) = &self.line else { return false };
        let untold = line.taken - line.told;
        untold > 0 && (self.bytes == 0 || untold >= credit_bytes as u64 / 4)
    }

    /// `bytes` have left the queue. The waker of the one who tells the sender, if that is due.
    fn taken(&mut self, bytes: usize, credit_bytes: usize) -> Option<Waker> {
        self.bytes -= bytes;
        self.line.as_mut()?.taken += bytes as u64;
        if self.is_credit_due(credit_bytes) { self.line.as_mut()?.waker.take() } else { None }
    }
}

/// The reading side, owned by one task.
pub struct Gate<C> {
    pub(super) shared: Arc<Shared<C>>,
}

/// The writing side of one channel, and (cloned) the way to a task's control messages.
pub struct Sender<C> {
    shared: Arc<Shared<C>>,
    channel: usize,
}

impl<C> Clone for Sender<C> {
    fn clone(&self) -> Self {
        Sender { shared: self.shared.clone(), channel: self.channel }
    }
}

/// A gate with `channels` queues of `credit_bytes` each. `Sender`s by channel number from [`Gate::sender`].
pub fn gate<C>(channels: usize, credit_bytes: usize) -> Gate<C> {
    let queue = || Queue { frames: VecDeque::new(), bytes: 0, sender_waits: false, line: None };
    Gate {
        shared: Arc::new(Shared {
            state: Mutex::new(State {
                queues: (0..channels).map(|_| queue()).collect(),
                control: VecDeque::new(),
                interrupts: Vec::new(),
                failed: None,
                next: 0,
                receiver_waits: false,
                closed: false,
            }),
            readable: Condvar::new(),
            writable: (0..channels).map(|_| Condvar::new()).collect(),
            credit_bytes,
            left: Arc::default(),
        }),
    }
}

/// Bytes that a frame takes of its channel's credit.
pub(super) fn frame_bytes(frame: &Frame) -> usize {
    match frame {
        Frame::Data(batch) => batch.get_array_memory_size(),
        _ => 0,
    }
}

impl<C> Sender<C> {
    /// A sender on another channel of the same gate.
    pub fn on_channel(&self, channel: usize) -> Sender<C> {
        Sender { shared: self.shared.clone(), channel }
    }

    /// Waits for credit. Err when the receiver is gone.
    pub fn send(&self, frame: Frame) -> Result<(), Closed> {
        let bytes = frame_bytes(&frame);
        let mut state = self.shared.lock();
        loop {
            if state.closed {
                return Err(Closed);
            }
            let queue = &mut state.queues[self.channel];
            if queue.bytes == 0 || queue.bytes + bytes <= self.shared.credit_bytes {
                queue.bytes += bytes;
                queue.frames.push_back((frame, bytes));
                self.shared.wake(&mut state);
                return Ok(());
            }
            queue.sender_waits = true;
            state = self.shared.writable[self.channel].wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A message for the task itself; never waits. Bounded by the protocol: a handful per checkpoint.
    pub fn control(&self, message: C) {
        let mut state = self.shared.lock();
        state.control.push_back(message);
        state.receiver_waits = false;
        self.shared.readable.notify_one();
    }

    /// What the task depends on is broken: the first word of that is what it fails with.
    pub fn fail(&self, error: Error) {
        let mut state = self.shared.lock();
        state.failed.get_or_insert(error);
        self.shared.wake(&mut state);
    }

    /// The last message for the task. From here on the gate is closed: whoever waits to send is told so, and the task,
    /// should it be deep in work of its own, finds [`Gate::left`] set.
    pub fn leave(&self, message: C) {
        self.shared.left.store(true, Ordering::Relaxed);
        let mut state = self.shared.lock();
        state.control.push_back(message);
        state.receiver_waits = false;
        let wakers = state.close();
        let interrupts = std::mem::take(&mut state.interrupts);
        drop(state);
        self.shared.readable.notify_one();
        self.shared.writable.iter().for_each(Condvar::notify_all);
        wakers.into_iter().for_each(Waker::wake);
        interrupts.into_iter().for_each(|interrupt| interrupt());
    }
}

impl<C> Gate<C> {
    /// True once the task is told to leave; its message is waiting. For whoever cannot look at the gate itself.
    pub fn left(&self) -> Arc<AtomicBool> {
        self.shared.left.clone()
    }

    /// Called when the task is told to leave, at once if it has been already.
    pub fn on_leave(&self, interrupt: Box<dyn FnOnce() + Send>) {
        let mut state = self.shared.lock();
        if !self.shared.left.load(Ordering::Relaxed) {
            return state.interrupts.push(interrupt);
        }
        drop(state);
        interrupt();
    }

    pub fn sender(&self, channel: usize) -> Sender<C> {
        Sender { shared: self.shared.clone(), channel }
    }

    /// The next control message without waiting.
    pub fn try_control(&self) -> Option<C> {
        self.shared.lock().control.pop_front()
    }

    /// Control messages first, then word of a broken channel, then frames of the channels that `blocked` lets pass, in
    /// turn.
    pub fn receive(&self, blocked: &dyn Fn(usize) -> bool, timeout: Duration) -> Received<C> {
        let mut state = self.shared.lock();
        let mut waited = false;
        loop {
            if let Some(message) = state.control.pop_front() {
                return Received::Control(message);
            }
            if let Some(error) = state.failed.take() {
                return Received::Failed(error);
            }
            let count = state.queues.len();
            for step in 0..count {
                let channel = (state.next + step) % count;
                if blocked(channel) {
                    continue;
                }
                let queue = &mut state.queues[channel];
                if let Some((frame, bytes)) = queue.frames.pop_front() {
                    let waker = queue.taken(bytes, self.shared.credit_bytes);
                    // Woken at half credit, not at the first free byte: fewer switches between the two threads.
                    if queue.sender_waits && queue.bytes <= self.shared.credit_bytes / 2 {
                        queue.sender_waits = false;
                        self.shared.writable[channel].notify_one();
                    }
                    state.next = (channel + 1) % count;
                    drop(state);
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                    return Received::Frame(channel, frame);
                }
            }
            if waited {
                return Received::Timeout;
            }
            state.receiver_waits = true;
            let (guard, result) =
                self.shared.readable.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner);
            state = guard;
            state.receiver_waits = false;
            waited = result.timed_out();
        }
    }
}

impl<C> Drop for Gate<C> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let wakers = state.close();
        state.interrupts.clear();
        drop(state);
        self.shared.writable.iter().for_each(Condvar::notify_all);
        wakers.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{Int64Array, RecordBatch};
    use std::sync::Arc;

    fn data(rows: i64) -> Frame {
        let array = Arc::new(Int64Array::from_iter_values(0..rows)) as arrow_array::ArrayRef;
        Frame::Data(RecordBatch::try_from_iter([("x", array)]).expect("one column"))
    }

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn frames_of_a_channel_keep_their_order_and_blocked_channels_are_left_alone() {
        let gate = gate::<()>(2, 1 << 20);
        gate.sender(0).send(Frame::Watermark(1)).expect("open");
        gate.sender(0).send(Frame::Watermark(2)).expect("open");
        gate.sender(1).send(Frame::Watermark(9)).expect("open");
        let taken = |blocked: &dyn Fn(usize) -> bool| match gate.receive(blocked, NOW) {
            Received::Frame(channel, Frame::Watermark(w)) => Some((channel, w)),
            _ => None,
        };
        assert_eq!(taken(&|c| c == 1), Some((0, 1)));
        assert_eq!(taken(&|c| c == 1), Some((0, 2)));
        assert_eq!(taken(&|c| c == 1), None);
        assert_eq!(taken(&|_| false), Some((1, 9)));
    }

    #[test]
    fn sender_over_its_credit_waits_and_the_other_channel_does_not() {
        let gate = gate::<u8>(2, 1024);
        gate.sender(0).send(data(1000)).expect("an empty queue takes any frame");
        let slow = gate.sender(0);
        let waiting = std::thread::spawn(move || slow.send(data(1000)));
        gate.sender(1).send(data(10)).expect("its own credit");
        gate.sender(0).control(7);
        assert!(matches!(gate.receive(&|_| false, NOW), Received::Control(7)));
        let mut frames = 0;
        while frames < 3 {
            if let Received::Frame(..) = gate.receive(&|_| false, Duration::from_secs(5)) {
                frames += 1;
            }
        }
        assert_eq!(waiting.join().expect("no panic"), Ok(()));
    }

    #[test]
    fn dropped_gate_frees_a_waiting_sender() {
        let gate = gate::<()>(1, 16);
        let sender = gate.sender(0);
        sender.send(data(100)).expect("empty");
        let waiting = std::thread::spawn(move || sender.send(data(100)));
        drop(gate);
        assert_eq!(waiting.join().expect("no panic"), Err(Closed));
    }

    #[test]
    fn task_that_is_told_to_leave_frees_those_who_wait_for_it() {
        let gate = gate::<u8>(1, 16);
        let sender = gate.sender(0);
        sender.send(data(100)).expect("empty");
        let (called, calls) = std::sync::mpsc::sync_channel(1);
        gate.on_leave(Box::new(move || called.send(()).expect("the test waits")));
        let waiting = std::thread::spawn(move || sender.send(data(100)));
        let control = gate.sender(0);
        control.control(1);
        control.leave(2);
        assert_eq!(waiting.join().expect("no panic"), Err(Closed), "the gate is still there, and nobody reads from it");
        calls.recv().expect("the interrupt was called");
        assert!(gate.left().load(Ordering::Relaxed));
        let next = || gate.receive(&|_| false, NOW);
        assert!(matches!(next(), Received::Control(1)));
        assert!(matches!(next(), Received::Control(2)));
        assert!(matches!(next(), Received::Timeout), "what was queued is gone");
        let (called, calls) = std::sync::mpsc::sync_channel(1);
        gate.on_leave(Box::new(move || called.send(()).expect("the test waits")));
        calls.try_recv().expect("called at once");
    }
}
