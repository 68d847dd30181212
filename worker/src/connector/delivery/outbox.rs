//! The queue between the task and the thread that delivers.

use super::{Carrier, Outcome, Parcel};
use crate::connector::Place;
use crate::connector::net::retry::{Attempts, Policy, chance};
use crate::error::{Code, Context, Error, Result};
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes that may wait for one subtask, what is under way included. Some parcels, so that the task works on while one is
/// under way; more would only make the wait at a checkpoint longer.
const WAITING_BYTES_MAX: usize = 4 << 20;

struct State<P> {
    waiting: VecDeque<P>,
    /// Parcels that wait or are under way, and their bytes.
    open: usize,
    bytes: usize,
    /// Why nothing will be delivered any more.
    failed: Option<Error>,
    /// The task has gone, or was told to: nobody waits any more.
    left: bool,
    rows_dropped: u64,
    retries: u64,
}

struct Shared<P> {
    state: Mutex<State<P>>,
    /// The task waits for room, or for everything to be delivered.
    delivered: Condvar,
    /// The thread waits for a parcel, or for the time of the next attempt.
    filled: Condvar,
}

impl<P> Shared<P> {
    fn lock(&self) -> MutexGuard<'_, State<P>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self) {
        self.lock().left = true;
        self.delivered.notify_all();
        self.filled.notify_all();
    }
}

/// The task's end. Its drop ends the thread, after what is under way.
pub(in crate::connector) struct Outbox<P> {
    shared: Arc<Shared<P>>,
}

/// Starts the thread.
pub(in crate::connector) fn start<C: Carrier>(
    carrier: C,
    policy: Policy,
    place: &Place,
    what: &str,
) -> Result<Outbox<C::Parcel>> {
    let state =
        State { waiting: VecDeque::new(), open: 0, bytes: 0, failed: None, left: false, rows_dropped: 0, retries: 0 };
    let shared = Arc::new(Shared { state: Mutex::new(state), delivered: Condvar::new(), filled: Condvar::new() });
    let courier = Courier {
        shared: shared.clone(),
        carrier,
        policy,
        chance: chance(place),
        name: format!("table `{}`, subtask {}", place.table, place.index),
    };
    let thread = std::thread::Builder::new().name(format!("{what}/{}", place.index));
    thread.spawn(move || courier.run()).unavailable(|| format!("cannot start a thread for {what}"))?;
    Ok(Outbox { shared })
}

fn told_to_leave() -> Error {
    Error::new(Code::Unavailable, "the task was told to leave while it waited for its server")
}

impl<P: Parcel> Outbox<P> {
    fn wait(&self, until: impl Fn(&State<P>) -> bool) -> Result<MutexGuard<'_, State<P>>> {
        let mut state = self.shared.lock();
        loop {
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            if state.left {
                return Err(told_to_leave());
            }
            if until(&state) {
                return Ok(state);
            }
            state = self.shared.delivered.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for room.
    pub fn push(&self, parcel: P) -> Result<()> {
        let bytes = parcel.bytes();
        let mut state = self.wait(|state| state.bytes == 0 || state.bytes + bytes <= WAITING_BYTES_MAX)?;
        state.open += 1;
        state.bytes += bytes;
        state.waiting.push_back(parcel);
        drop(state);
        self.shared.filled.notify_one();
        Ok(())
    }

    /// Without waiting: what a checkpoint held, before anything else comes.
    pub fn preload(&self, parcels: Vec<P>) {
        let mut state = self.shared.lock();
        state.open += parcels.len();
        state.bytes += parcels.iter().map(Parcel::bytes).sum::<usize>();
        state.waiting.extend(parcels);
        drop(state);
        self.shared.filled.notify_one();
    }

    /// Waits until everything is delivered.
    pub fn settle(&self) -> Result<()> {
        self.wait(|state| state.open == 0).map(drop)
    }

    /// Whether a parcel of so many bytes would go in without waiting; Err when nothing is delivered any more.
    pub fn has_room(&self, bytes: usize) -> Result<bool> {
        let state = self.wait(|_| true)?;
        Ok(state.bytes == 0 || state.bytes + bytes <= WAITING_BYTES_MAX)
    }

    pub fn rows_dropped(&self) -> u64 {
        self.shared.lock().rows_dropped
    }

    #[cfg(test)]
    pub fn retries(&self) -> u64 {
        self.shared.lock().retries
    }

    /// Makes whoever waits here stop waiting.
    pub fn interrupt(&self) -> Box<dyn FnOnce() + Send> {
        let shared = self.shared.clone();
        Box::new(move || shared.leave())
    }
}

impl<P> Drop for Outbox<P> {
    fn drop(&mut self) {
        self.shared.leave();
    }
}

/// The thread's end.
struct Courier<C: Carrier> {
    shared: Arc<Shared<C::Parcel>>,
    carrier: C,
    policy: Policy,
    chance: SmallRng,
    /// For the log.
    name: String,
}

impl<C: Carrier> Courier<C> {
    fn run(mut self) {
        while let Some(parcel) = self.next() {
            if let Err(error) = self.deliver(&parcel) {
                self.shared.lock().failed.get_or_insert(error);
                self.shared.delivered.notify_all();
                return;
            }
            let mut state = self.shared.lock();
            state.open -= 1;
            state.bytes -= parcel.bytes();
            drop(state);
            self.shared.delivered.notify_all();
        }
    }

    fn next(&self) -> Option<C::Parcel> {
        let mut state = self.shared.lock();
        loop {
            if state.left {
                return None;
            }
            if let Some(parcel) = state.waiting.pop_front() {
                return Some(parcel);
            }
            state = self.shared.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn deliver(&mut self, parcel: &C::Parcel) -> Result<()> {
        let mut attempts = Attempts::new(self.policy);
        loop {
            let (why, after_ms) = match self.carrier.carry(parcel) {
                Outcome::Delivered => {
                    if attempts.failures > 0 {
                        tracing::info!("{}: delivered again, after {} failed attempts", self.name, attempts.failures);
                    }
                    return Ok(());
                }
                Outcome::Refused { why } => {
                    let rows = parcel.rows();
                    tracing::warn!("{}: {rows} rows are dropped: {why}", self.name);
                    self.shared.lock().rows_dropped += rows;
                    return Ok(());
                }
                Outcome::Failed(error) => return Err(error),
                Outcome::Retry { why, after_ms } => (why, after_ms),
            };
            let wait_ms = attempts.failed(after_ms, self.chance.random());
            let failures = attempts.failures;
            let Some(wait_ms) = wait_ms else {
                let what = format!("{why}; given up after {failures} attempts ('sink.max-retries')");
                return Err(Error::new(Code::Unavailable, what));
            };
            if attempts.is_told() {
                tracing::warn!("{}: {why}; {failures} attempts have failed, the next is in {wait_ms} ms", self.name);
            }
            if !self.pause(wait_ms) {
                return Err(told_to_leave());
            }
        }
    }

    /// False when the task has left meanwhile.
    fn pause(&self, wait_ms: u64) -> bool {
        let mut state = self.shared.lock();
        state.retries += 1;
        let waits = |state: &mut State<C::Parcel>| !state.left;
        let waited = self.shared.filled.wait_timeout_while(state, Duration::from_millis(wait_ms), waits);
        !waited.unwrap_or_else(PoisonError::into_inner).0.left
    }
}

/// However the thread ends, nobody waits for it.
impl<C: Carrier> Drop for Courier<C> {
    fn drop(&mut self) {
        let gone = || Error::new(Code::Internal, format!("{}: the thread that delivers has ended", self.name));
        self.shared.lock().failed.get_or_insert_with(gone);
        self.shared.delivered.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connector::stdout::tests::place;
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    struct Box10(u32);

    impl Parcel for Box10 {
        fn bytes(&self) -> usize {
            WAITING_BYTES_MAX / 2
        }

        fn rows(&self) -> u64 {
            10
        }
    }

    /// Tells which parcel it carries and does what it is told.
    struct Told(SyncSender<u32>, Receiver<Outcome>);

    impl Carrier for Told {
        type Parcel = Box10;

        fn carry(&mut self, parcel: &Box10) -> Outcome {
            self.0.send(parcel.0).expect("the test listens");
            self.1.recv().expect("the test goes on")
        }
    }

    fn told(retries_max: Option<u32>) -> (Outbox<Box10>, Receiver<u32>, SyncSender<Outcome>) {
        let ((say, said), (tell, told)) = (sync_channel(16), sync_channel(16));
        let outbox = start(Told(say, told), Policy { retries_max }, &place(), "test").expect("a thread");
        (outbox, said, tell)
    }

    fn retry() -> Outcome {
        Outcome::Retry { why: "away".into(), after_ms: None }
    }

    #[test]
    fn parcels_arrive_in_order_each_until_it_is_delivered() {
        let (outbox, said, tell) = told(None);
        outbox.push(Box10(1)).expect("room");
        outbox.push(Box10(2)).expect("room");
        assert!(!outbox.has_room(1).expect("it works"));
        for outcome in [retry(), retry(), Outcome::Delivered, Outcome::Delivered] {
            tell.send(outcome).expect("it listens");
        }
        outbox.settle().expect("delivered");
        assert_eq!(said.try_iter().collect::<Vec<_>>(), [1, 1, 1, 2]);
        assert_eq!((outbox.retries(), outbox.rows_dropped()), (2, 0));
        assert!(outbox.has_room(1).expect("it works"));
    }

    #[test]
    fn refused_rows_are_counted_and_the_next_parcel_goes_on() {
        let (outbox, _said, tell) = told(None);
        outbox.push(Box10(1)).expect("room");
        outbox.push(Box10(2)).expect("room");
        tell.send(Outcome::Refused { why: "400".into() }).expect("it listens");
        tell.send(Outcome::Delivered).expect("it listens");
        outbox.settle().expect("gone on");
        assert_eq!(outbox.rows_dropped(), 10);
    }

    #[test]
    fn what_fails_for_good_reaches_whoever_waits_and_whoever_comes_later() {
        let (outbox, _said, tell) = told(Some(1));
        outbox.push(Box10(1)).expect("room");
        outbox.push(Box10(2)).expect("room");
        tell.send(retry()).expect("it listens");
        tell.send(retry()).expect("it listens");
        let error = outbox.push(Box10(3)).expect_err("the thread has given up");
        assert_eq!(error.message, "away; given up after 2 attempts ('sink.max-retries')");
        assert_eq!(outbox.settle().expect_err("still"), error);
    }

    #[test]
    fn task_that_is_told_to_leave_stops_waiting_for_room() {
        let (outbox, said, _tell) = told(None);
        outbox.push(Box10(1)).expect("room");
        outbox.push(Box10(2)).expect("room");
        assert_eq!(said.recv(), Ok(1), "the first is under way and stays there");
        let interrupt = outbox.interrupt();
        let waiting = std::thread::spawn(move || outbox.push(Box10(3)));
        interrupt();
        let error = waiting.join().expect("no panic").expect_err("it waited for ever");
        assert!(error.message.contains("told to leave"), "{error}");
    }

    struct Panics;

    impl Carrier for Panics {
        type Parcel = Box10;

        fn carry(&mut self, _: &Box10) -> Outcome {
            panic!("a bug");
        }
    }

    #[test]
    fn thread_that_is_no_more_keeps_nobody_waiting() {
        let outbox = start(Panics, Policy { retries_max: None }, &place(), "test").expect("a thread");
        outbox.push(Box10(1)).expect("room");
        assert!(outbox.settle().expect_err("nobody delivers").message.contains("has ended"));
    }
}
