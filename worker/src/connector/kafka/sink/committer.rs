//! A thread beside the task that brings permitted rows into Kafka: it executes what the rules in `slot` say, one action at a
//! time, and tells the sink what has become of it. It waits for brokers for as long as it takes; the task does not.

use super::slot::{Action, Event, Outcome, Slot};
use super::spool::Segment;
use super::transaction::{Failed, Transactions};
use crate::connector::Published;
use crate::error::{Code, Error, Result};
use ef_proto::ids::Epoch;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A slot that this subtask answers for.
pub struct Owned {
    pub id: String,
    pub subtask: u32,
    pub job: String,
    pub topic: String,
    /// It was somebody else's: it is done with when what it has left is in Kafka.
    pub inherited: bool,
    pub rules: Slot,
    /// Not known to be in Kafka, ascending by epoch.
    pub segments: VecDeque<Arc<Segment>>,
}

impl Owned {
    /// Nobody will ever write under its id again.
    fn is_done_with(&self, permitted: u64) -> bool {
        self.inherited && self.rules.is_settled(permitted)
    }

    pub fn add(&mut self, segment: Segment) {
        self.rules.add(segment.epoch, segment.bytes);
        self.segments.push_back(Arc::new(segment));
    }
}

#[derive(Default)]
pub struct State {
    pub slots: Vec<Owned>,
    /// Epochs up to this one are recorded.
    pub permitted: u64,
    /// Keys have moved between subtasks since the checkpoint of this epoch, from which the task was restored.
    pub restored: Option<u64>,
    /// Nothing more will come of it.
    pub failed: Option<Error>,
}

impl State {
    /// What later rows of the same keys could overtake is in Kafka, and others can add nothing to it any more.
    pub fn restored_is_settled(&self) -> bool {
        let settled = |epoch| self.slots.iter().all(|slot| slot.rules.is_settled(epoch));
        self.restored.is_none_or(settled)
    }

    /// There is something that only Kafka keeps from being sent.
    pub fn is_sending(&self) -> bool {
        self.slots.iter().any(|slot| !slot.rules.is_settled(self.permitted))
    }

    pub fn published(&self) -> Result<Published> {
        match (&self.failed, self.oldest()) {
            (Some(error), _) => Err(error.clone()),
            (None, Some(oldest)) if oldest <= self.permitted => Ok(Published::UpTo(Epoch(oldest.saturating_sub(1)))),
            (None, _) => Ok(Published::All),
        }
    }

    /// The oldest epoch that is not all in Kafka.
    fn oldest(&self) -> Option<u64> {
        self.slots.iter().filter_map(|slot| slot.rules.oldest()).min()
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    stop: AtomicBool,
}

pub struct Committer {
    shared: Arc<Shared>,
}

impl Committer {
    /// `connect` makes what executes the actions of the slot with this id, subtask and topic.
    pub fn start(
        state: State,
        name: &str,
        mut connect: impl FnMut(&Owned) -> Transactions + Send + 'static,
    ) -> Result<Committer> {
        let shared = Arc::new(Shared { state: Mutex::new(state), ..Shared::default() });
        let of_thread = shared.clone();
        let thread = std::thread::Builder::new().name(format!("commit {name}"));
        let run = move || {
            let mut targets: Vec<Transactions> = {
                let state = of_thread.lock();
                state.slots.iter().map(&mut connect).collect()
            };
            of_thread.run(&mut targets);
        };
        // It ends by itself soon after it is told to; nobody waits for a broker.
        thread.spawn(run).map_err(|e| Error::new(Code::Unavailable, format!("cannot start a thread: {e}")))?;
        Ok(Committer { shared })
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }

    /// Something has been added, or permitted.
    pub fn wake(&self) {
        self.shared.changed.notify_all();
    }

    /// Waits until `done`, or until the task is told to leave (then it is an error), or nothing can come of it.
    pub fn wait(&self, left: &AtomicBool, done: impl Fn(&State) -> bool) -> Result<()> {
        let mut state = self.shared.lock();
        loop {
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            if done(&state) {
                return Ok(());
            }
            if left.load(Ordering::Relaxed) {
                return Err(Error::new(Code::Unavailable, "the task was told to leave while it waited for Kafka"));
            }
            let waited = self.shared.changed.wait_timeout(state, Duration::from_millis(20));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.changed.notify_all();
    }
}

/// What is to be done for which slot.
struct Job {
    at: usize,
    action: Action,
    segments: Vec<Arc<Segment>>,
    /// To be shown while it fails.
    id: String,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, targets: &mut [Transactions]) {
        #[expect(clippy::disallowed_methods, reason = "the loop's own time, for backing off and refreshing only")]
        let started = Instant::now();
        let now_ms = || started.elapsed().as_millis() as u64;
        while let Some(job) = self.next(&now_ms) {
            let done = execute(&mut targets[job.at], &job, &self.stop);
            let mut state = self.lock();
            let event = match done {
                Ok(event) => event,
                Err(Failed::Forever(error)) => {
                    state.failed = Some(error);
                    self.changed.notify_all();
                    return;
                }
                Err(Failed::ForNow(reason)) => {
                    if !self.stop.load(Ordering::Relaxed) {
                        tracing::warn!(slot = job.id, action = ?job.action, %reason, "kafka sink: tries again");
                    }
                    Event::Unknown
                }
            };
            let permitted = state.permitted;
            let slot = &mut state.slots[job.at];
            match slot.rules.step(job.action, event, now_ms()) {
                Outcome::Nothing => {}
                Outcome::Stored(upto) => {
                    while slot.segments.front().is_some_and(|segment| segment.epoch <= upto) {
                        slot.segments.pop_front();
                    }
                }
                Outcome::MarkerLost { known, found } => {
                    let found = found.map_or("none".into(), |found| format!("epoch {found}"));
                    let message = format!(
                        "transactional id `{}`: the checkpoint knows that its rows up to epoch {known} are in topic `{}`, but \
                         Kafka knows of {found} (group `{}` has expired, or the topic was made anew); whether the rows \
                         behind are there cannot be known: set 'sink.marker-lost' to 'assume-committed' (they may be \
                         missing) or 'assume-lost' (they may be there twice)",
                        slot.id,
                        slot.topic,
                        super::transaction::marker_group(&slot.id),
                    );
                    return self.fail(state, message);
                }
                Outcome::Rewound { restored, found } => {
                    let message = format!(
                        "transactional id `{}`: the job starts from the checkpoint of epoch {restored}, but its rows up to epoch \
                         {found} are in topic `{}` already and would be written again: start from a newer checkpoint, or set \
                         'sink.allow-output-rewind' to 'true'",
                        slot.id, slot.topic
                    );
                    return self.fail(state, message);
                }
            }
            if slot.is_done_with(permitted) {
                targets[job.at].close();
            }
            self.changed.notify_all();
        }
    }

    fn fail(&self, mut state: MutexGuard<'_, State>, message: String) {
        state.failed = Some(Error::new(Code::Conflict, message));
        self.changed.notify_all();
    }

    /// Waits for something to do; None: there will be nothing more.
    fn next(&self, now_ms: &impl Fn() -> u64) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            let (now, permitted) = (now_ms(), state.permitted);
            let live = |slot: &&Owned| !slot.is_done_with(permitted);
            for (at, slot) in state.slots.iter().enumerate().filter(|(_, slot)| live(slot)) {
                if let Some(action) = slot.rules.next(permitted, now) {
                    let segments = match action {
                        Action::Commit { upto } => {
                            slot.segments.iter().take_while(|segment| segment.epoch <= upto).cloned().collect()
                        }
                        Action::Fence | Action::ReadMarker => Vec::new(),
                    };
                    return Some(Job { at, action, segments, id: slot.id.clone() });
                }
            }
            let wakes = state.slots.iter().filter(live).filter_map(|slot| slot.rules.wakes_at_ms(permitted)).min();
            let wait = wakes.map_or(60_000, |at| at.saturating_sub(now)).clamp(1, 60_000);
            let waited = self.changed.wait_timeout(state, Duration::from_millis(wait));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn execute(target: &mut Transactions, job: &Job, stop: &AtomicBool) -> std::result::Result<Event, Failed> {
    match job.action {
        Action::Fence => target.fence(stop).map(|()| Event::Fenced),
        Action::ReadMarker => target.read_marker().map(Event::Marker),
        Action::Commit { upto } => target.commit(upto, &job.segments, stop).map(|()| Event::Committed),
    }
}
