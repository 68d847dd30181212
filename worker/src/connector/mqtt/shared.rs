//! What the threads of one slot share: how far the log is durable, its newest chunks in memory, and how it goes.
//!
//! With a log, memory is a short cut: chunks that the task has not taken in time are dropped from it and read from the
//! disk. Without one (acknowledged by checkpoints) they are nowhere else; then the connection is not read while the ring
//! is full.

use crate::error::Error;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Of the newest chunks: some fsyncs' worth, for a task that keeps up.
pub const RING_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub struct Held {
    pub first: u64,
    pub end: u64,
    pub bytes: Arc<Vec<u8>>,
}

#[derive(Debug, Default)]
struct State {
    durable: u64,
    ring: VecDeque<Held>,
    ring_bytes: usize,
    failed: Option<Error>,
}

#[derive(Debug, Default)]
pub struct Shared {
    state: Mutex<State>,
    /// The log's floor has risen, or all is to end.
    room: Condvar,
    /// Wakes the connection's thread.
    pub wake: Notify,
    /// Records below are not asked for any more.
    floor: AtomicU64,
    /// Records below are in a completed checkpoint.
    covered: AtomicU64,
    /// The session has none of the filters of earlier versions of the job any more.
    unsubscribed: AtomicBool,
    stopped: AtomicBool,
    pub counters: Counters,
}

/// What happened, for those who ask; each is told in a log line too.
#[derive(Debug, Default)]
pub struct Counters {
    pub connections: AtomicU64,
    /// Failed attempts and lost connections.
    pub troubles: AtomicU64,
    pub messages: AtomicU64,
    pub syncs: AtomicU64,
    pub log_failures: AtomicU64,
    pub log_full: AtomicU64,
    /// QoS 0 messages that a failed log has lost.
    pub lost: AtomicU64,
    pub oversize: AtomicU64,
}

impl Counters {
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}

pub enum Taken {
    Chunk(Arc<Vec<u8>>),
    /// It is durable, and no longer in memory.
    OnDisk,
    Nothing,
}

impl Shared {
    pub fn new(durable: u64) -> Arc<Shared> {
        let shared = Shared::default();
        shared.state().durable = durable;
        Arc::new(shared)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records below `end` are durable. `drops`: what does not fit into memory is on the disk.
    pub fn publish(&self, chunk: Held, drops: bool) {
        let mut state = self.state();
        state.durable = chunk.end;
        state.ring_bytes += chunk.bytes.capacity();
        state.ring.push_back(chunk);
        while drops && state.ring_bytes > RING_BYTES {
            let Some(gone) = state.ring.pop_front() else { break };
            state.ring_bytes -= gone.bytes.capacity();
        }
    }

    pub fn ring_is_full(&self) -> bool {
        self.state().ring_bytes >= RING_BYTES
    }

    /// The chunk with this record.
    pub fn take(&self, next: u64) -> Result<Taken, Error> {
        let mut state = self.state();
        if next >= state.durable {
            return match &state.failed {
                Some(error) => Err(error.clone()),
                None => Ok(Taken::Nothing),
            };
        }
        while let Some(front) = state.ring.front() {
            if front.first > next {
                break;
            }
            let Some(taken) = state.ring.pop_front() else { break };
            state.ring_bytes -= taken.bytes.capacity();
            if taken.end > next {
                drop(state);
                self.wake.notify_one();
                return Ok(Taken::Chunk(taken.bytes));
            }
        }
        Ok(Taken::OnDisk)
    }

    /// Ends the job's task, when it has read what is durable.
    pub fn fail(&self, error: Error) {
        self.state().failed.get_or_insert(error);
    }

    pub fn floor(&self) -> u64 {
        self.floor.load(Ordering::Acquire)
    }

    pub fn raise_floor(&self, floor: u64) {
        self.floor.fetch_max(floor, Ordering::AcqRel);
        let _state = self.state();
        self.room.notify_all();
    }

    pub fn covered(&self) -> u64 {
        self.covered.load(Ordering::Acquire)
    }

    pub fn cover(&self, end: u64) {
        self.covered.fetch_max(end, Ordering::AcqRel);
        self.wake.notify_one();
    }

    pub fn unsubscribed(&self) {
        self.unsubscribed.store(true, Ordering::Release);
    }

    pub fn is_unsubscribed(&self) -> bool {
        self.unsubscribed.load(Ordering::Acquire)
    }

    /// Until the floor is above `floor`, everything is to end, or a while has passed.
    pub fn wait_for_room(&self, floor: u64) {
        let state = self.state();
        if self.floor() <= floor && !self.is_stopped() {
            let _ = self.room.wait_timeout(state, Duration::from_millis(200));
        }
    }

    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.wake.notify_one();
        let _state = self.state();
        self.room.notify_all();
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}
