//! The life of a job's checkpoints, as a machine that whoever leads the job steps: no clock, no I/O; the leader
//! executes the actions and reports back with events.
//!
//! The order, which nothing may change: state files → manifest → record → commit → retention.
//! - An ack comes after its subtask's files are durable, and the manifest after all acks: a manifest never names an
//!   object that does not exist.
//! - The record (the manifest itself where there is one process, the log entry in a cluster) is the decision. Only
//!   after it may sinks publish, because only then is it certain that nobody goes back behind the epoch.
//! - Old checkpoints go last: until the newer one is recorded, the older ones are what a crash restores.
//!
//! Every subtask acks every epoch; for one that has ended, its agent answers with its last state. A put of a manifest
//! whose outcome is unknown counts as failed: should the manifest be there after all, it is consistent, and the next
//! completed epoch is newer.

use crate::checkpoint::SubtaskState;
use crate::ids::{Epoch, SubtaskId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[cfg(test)]
mod tests;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// From trigger to trigger. None: only on request, and at the end of a bounded job.
    pub interval_ms: Option<u64>,
    /// From the trigger to the last ack.
    pub timeout_ms: u64,
    /// From the end of one checkpoint to the trigger of the next periodic one.
    pub min_pause_ms: u64,
    /// The job fails at one more failed checkpoint in a row than this.
    pub tolerable_failures: u32,
    /// How many completed checkpoints are kept; at least 1.
    pub retained: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config { interval_ms: None, timeout_ms: 600_000, min_pause_ms: 0, tolerable_failures: 0, retained: 1 }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Time has passed. Needed at least as often as a trigger or a timeout may be late.
    Tick,
    /// Somebody wants a checkpoint now. While one is in flight, another follows it.
    Request,
    Acked {
        epoch: Epoch,
        subtask: SubtaskId,
        state: SubtaskState,
    },
    Declined {
        epoch: Epoch,
        subtask: SubtaskId,
        reason: String,
    },
    /// The manifest is durable and recorded.
    ManifestPut {
        epoch: Epoch,
    },
    ManifestFailed {
        epoch: Epoch,
        reason: String,
    },
    /// A sink has published everything up to `epoch`.
    Committed {
        epoch: Epoch,
        subtask: SubtaskId,
    },
    SubtaskEnded {
        subtask: SubtaskId,
    },
    /// These subtasks have been lost and will start again from the newest completed checkpoint. What is being collected
    /// is given up, which is not its fault and does not count as a failure; nothing is triggered before `Running`.
    Restarting {
        subtasks: Vec<SubtaskId>,
        reason: String,
    },
    /// All subtasks run (again).
    Running,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// To all agents: start the checkpoint.
    Trigger { epoch: Epoch, cause: Cause },
    /// Write and record the manifest, then say ManifestPut or ManifestFailed.
    PutManifest(Parts),
    /// To all agents: sinks commit, stores may reuse the files.
    Complete(Epoch),
    /// To all agents: what was uploaded for it may not be reused.
    Abort { epoch: Epoch, reason: String },
    /// Checkpoints fail too often.
    FailJob { reason: String },
    /// These completed checkpoints are no longer needed.
    Retire(Vec<Epoch>),
    /// Every sink has published everything up to this epoch.
    Published(Epoch),
    /// All subtasks have ended, the terminal checkpoint is complete and published: the job has finished.
    Final(Epoch),
    /// Stale or unknown; named, so that a test and a log can see it.
    Ignore(Event),
}

/// Why a checkpoint was triggered. When several reasons fall together, the last of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Periodic,
    Requested,
    /// All subtasks have ended: the last checkpoint of the job.
    Terminal,
}

/// What the manifest is made of; the leader adds the job's and the operators' names.
#[derive(Clone, Debug, PartialEq)]
pub struct Parts {
    pub epoch: Epoch,
    pub terminal: bool,
    pub triggered_at_ms: u64,
    /// Of every subtask, in order.
    pub states: Vec<(SubtaskId, SubtaskState)>,
}

#[derive(Debug)]
pub struct Checkpoints {
    config: Config,
    subtasks: BTreeSet<SubtaskId>,
    ended: BTreeSet<SubtaskId>,
    /// Up to where each sink has published.
    committed: BTreeMap<SubtaskId, Epoch>,
    phase: Phase,
    /// The highest epoch ever triggered.
    last: Epoch,
    /// Completed and not yet retired, ascending.
    completed: VecDeque<Epoch>,
    /// Completed by this machine, so that its commits are expected.
    newest_completed: Option<Epoch>,
    published: Option<Epoch>,
    requested: bool,
    /// Some subtasks do not run: nothing is triggered.
    paused: bool,
    failures_in_a_row: u32,
    /// When the periodic checkpoints count from: the last trigger, or the first event.
    interval_from_ms: Option<u64>,
    /// When the last checkpoint ended, well or badly.
    ended_at_ms: Option<u64>,
}

#[derive(Debug)]
enum Phase {
    Idle,
    Collecting {
        epoch: Epoch,
        cause: Cause,
        triggered_at_ms: u64,
        acks: BTreeMap<SubtaskId, SubtaskState>,
    },
    /// All acks are in. Only the storage ends this phase: it has no timeout, because a manifest that is still being
    /// written may become the truth.
    Publishing {
        epoch: Epoch,
        cause: Cause,
    },
    /// The terminal checkpoint is complete; its sinks still commit.
    Terminal(Epoch),
    Finished,
    Failed,
}

impl Checkpoints {
    /// `sinks` are the subtasks that answer Complete with Committed; `last` is the highest epoch ever seen of this
    /// job, failed ones included.
    pub fn new(
        config: Config,
        subtasks: BTreeSet<SubtaskId>,
        sinks: BTreeSet<SubtaskId>,
        last: Option<Epoch>,
    ) -> Checkpoints {
        assert!(!subtasks.is_empty(), "a job has at least one subtask");
        assert!(sinks.is_subset(&subtasks), "every sink is a subtask");
        assert!(config.retained >= 1, "at least one completed checkpoint is kept");
        Checkpoints {
            config,
            subtasks,
            ended: BTreeSet::new(),
            committed: sinks.into_iter().map(|sink| (sink, Epoch(0))).collect(),
            phase: Phase::Idle,
            last: last.unwrap_or_default(),
            completed: VecDeque::new(),
            newest_completed: None,
            published: None,
            requested: false,
            paused: false,
            failures_in_a_row: 0,
            interval_from_ms: None,
            ended_at_ms: None,
        }
    }

    /// Takes over the completed checkpoints that are in the store (ascending), so that retention counts them.
    pub fn retaining(mut self, completed: impl IntoIterator<Item = Epoch>) -> Checkpoints {
        self.completed = completed.into_iter().collect();
        assert!(self.completed.iter().is_sorted(), "completed checkpoints come in ascending order");
        assert!(self.completed.back().is_none_or(|&epoch| epoch <= self.last), "`last` is the highest epoch ever seen");
        self
    }

    /// Nothing is triggered before the first `Running`.
    pub fn paused(mut self) -> Checkpoints {
        self.paused = true;
        self
    }

    /// The same job at another parallelism, at rest: nothing is triggered before the next `Running`. What subtasks that
    /// are still there have ended is kept. What they have published is not: one may stand in for another.
    pub fn rescale(&mut self, subtasks: BTreeSet<SubtaskId>, sinks: BTreeSet<SubtaskId>) {
        assert!(self.in_flight().is_none(), "a job is rescaled between two checkpoints");
        assert!(!subtasks.is_empty() && sinks.is_subset(&subtasks), "every sink is a subtask");
        self.ended.retain(|subtask| subtasks.contains(subtask));
        // A sink publishes what its checkpoint holds when it starts, and says so as ever.
        self.committed = sinks.into_iter().map(|sink| (sink, Epoch(0))).collect();
        self.subtasks = subtasks;
        self.paused = true;
    }

    /// The highest epoch ever triggered.
    pub fn last(&self) -> Epoch {
        self.last
    }

    /// Whether a manifest is on its way: it may become the truth, so nobody may restore an older one.
    pub fn is_publishing(&self) -> bool {
        matches!(self.phase, Phase::Publishing { .. })
    }

    /// Whether the terminal checkpoint is on its way or complete: the job as it is now is what ends.
    pub fn is_ending(&self) -> bool {
        match self.phase {
            Phase::Collecting { cause, .. } | Phase::Publishing { cause, .. } => cause == Cause::Terminal,
            Phase::Terminal(_) | Phase::Finished => true,
            Phase::Idle | Phase::Failed => false,
        }
    }

    /// The checkpoint in flight.
    pub fn in_flight(&self) -> Option<Epoch> {
        match self.phase {
            Phase::Collecting { epoch, .. } | Phase::Publishing { epoch, .. } => Some(epoch),
            Phase::Idle | Phase::Terminal(_) | Phase::Finished | Phase::Failed => None,
        }
    }

    /// The newest checkpoint that this machine saw complete.
    pub fn newest_completed(&self) -> Option<Epoch> {
        self.newest_completed
    }

    /// The subtasks whose ack the checkpoint in flight waits for, for a person who asks why it takes so long.
    pub fn missing(&self) -> Vec<SubtaskId> {
        match &self.phase {
            Phase::Collecting { acks, .. } => missing(&self.subtasks, acks).copied().collect(),
            _ => Vec::new(),
        }
    }

    /// Takes one event. The actions are to be executed in order.
    pub fn step(&mut self, event: Event, now: u64) -> Vec<Action> {
        self.interval_from_ms.get_or_insert(now);
        let mut actions = Vec::new();
        match (&mut self.phase, event) {
            (Phase::Finished | Phase::Failed, stale) => return vec![Action::Ignore(stale)],

            (Phase::Collecting { epoch, triggered_at_ms, acks, .. }, Event::Tick)
                if now.saturating_sub(*triggered_at_ms) >= self.config.timeout_ms =>
            {
                let epoch = *epoch;
                let waits: Vec<String> = missing(&self.subtasks, acks).map(SubtaskId::to_string).collect();
                let timeout = self.config.timeout_ms;
                let reason = format!("timed out after {timeout} ms; no ack from subtasks {}", waits.join(", "));
                self.abort(epoch, reason, now, &mut actions);
            }
            (_, Event::Tick) => {}

            // The terminal checkpoint is all that a request could ask for.
            (Phase::Terminal(_) | Phase::Publishing { cause: Cause::Terminal, .. }, stale @ Event::Request) => {
                actions.push(Action::Ignore(stale));
            }
            (_, Event::Request) => self.requested = true,

            (Phase::Collecting { epoch, cause, triggered_at_ms, acks }, Event::Acked { epoch: of, subtask, state })
                if *epoch == of && self.subtasks.contains(&subtask) =>
            {
                acks.entry(subtask).or_insert(state); // idempotent: a repeated ack changes nothing
                if acks.len() == self.subtasks.len() {
                    let parts = Parts {
                        epoch: of,
                        terminal: *cause == Cause::Terminal,
                        triggered_at_ms: *triggered_at_ms,
                        states: std::mem::take(acks).into_iter().collect(),
                    };
                    self.phase = Phase::Publishing { epoch: of, cause: *cause };
                    actions.push(Action::PutManifest(parts));
                }
            }
            (Phase::Collecting { epoch, .. }, Event::Declined { epoch: of, subtask, reason })
                if *epoch == of && self.subtasks.contains(&subtask) =>
            {
                self.abort(of, format!("subtask {subtask} declined: {reason}"), now, &mut actions);
            }
            (Phase::Publishing { epoch, cause }, Event::ManifestPut { epoch: of }) if *epoch == of => {
                let terminal = *cause == Cause::Terminal;
                self.complete(of, terminal, now, &mut actions);
            }
            (Phase::Publishing { epoch, .. }, Event::ManifestFailed { epoch: of, reason }) if *epoch == of => {
                self.abort(of, format!("its manifest could not be written: {reason}"), now, &mut actions);
            }
            (_, Event::Committed { epoch, subtask })
                if self.newest_completed.is_some_and(|newest| epoch <= newest)
                    && self.committed.contains_key(&subtask) =>
            {
                self.committed.entry(subtask).and_modify(|upto| *upto = epoch.max(*upto));
                self.publish(&mut actions);
            }
            (_, Event::SubtaskEnded { subtask }) if self.subtasks.contains(&subtask) => {
                self.ended.insert(subtask);
            }
            (_, Event::Running) => self.paused = false,
            (phase, Event::Restarting { subtasks, reason }) => {
                self.ended.retain(|subtask| !subtasks.contains(subtask));
                self.paused = true;
                if let Phase::Collecting { epoch, cause, .. } = phase {
                    self.requested |= *cause == Cause::Requested;
                    actions.push(Action::Abort { epoch: *epoch, reason });
                    self.phase = Phase::Idle;
                    self.ended_at_ms = Some(now);
                }
            }
            (
                _,
                stale @ (Event::Acked { .. }
                | Event::Declined { .. }
                | Event::ManifestPut { .. }
                | Event::ManifestFailed { .. }
                | Event::Committed { .. }
                | Event::SubtaskEnded { .. }),
            ) => actions.push(Action::Ignore(stale)),
        }
        if let Some(cause) = self.due(now) {
            self.trigger(cause, now, &mut actions);
        }
        actions
    }

    /// Whether a checkpoint is to start now, and why.
    fn due(&self, now: u64) -> Option<Cause> {
        if !matches!(self.phase, Phase::Idle) || self.paused {
            return None;
        }
        let since = |then: Option<u64>| then.map_or(u64::MAX, |then| now.saturating_sub(then));
        let paused = since(self.ended_at_ms) >= self.config.min_pause_ms;
        if self.ended.len() == self.subtasks.len() && (self.failures_in_a_row == 0 || paused) {
            return Some(Cause::Terminal);
        }
        if self.requested {
            return Some(Cause::Requested);
        }
        let interval = self.config.interval_ms?;
        (paused && since(self.interval_from_ms) >= interval).then_some(Cause::Periodic)
    }

    fn trigger(&mut self, cause: Cause, now: u64, actions: &mut Vec<Action>) {
        let epoch = Epoch(self.last.0 + 1);
        self.last = epoch;
        self.requested = false;
        self.interval_from_ms = Some(now);
        self.phase = Phase::Collecting { epoch, cause, triggered_at_ms: now, acks: BTreeMap::new() };
        actions.push(Action::Trigger { epoch, cause });
    }

    fn complete(&mut self, epoch: Epoch, terminal: bool, now: u64, actions: &mut Vec<Action>) {
        self.phase = if terminal { Phase::Terminal(epoch) } else { Phase::Idle };
        self.ended_at_ms = Some(now);
        self.failures_in_a_row = 0;
        self.newest_completed = Some(epoch);
        self.completed.push_back(epoch);
        actions.push(Action::Complete(epoch));
        let superfluous = self.completed.len().saturating_sub(self.config.retained);
        if superfluous > 0 {
            actions.push(Action::Retire(self.completed.drain(..superfluous).collect()));
        }
        self.publish(actions);
    }

    /// Says once of every completed epoch (or of a later one) that all sinks have published it.
    fn publish(&mut self, actions: &mut Vec<Action>) {
        let Some(newest) = self.newest_completed else { return };
        let upto = self.committed.values().copied().min().unwrap_or(newest);
        if upto > self.published.unwrap_or_default() {
            self.published = Some(upto);
            actions.push(Action::Published(upto));
        }
        if let Phase::Terminal(epoch) = self.phase
            && upto >= epoch
        {
            self.phase = Phase::Finished;
            actions.push(Action::Final(epoch));
        }
    }

    fn abort(&mut self, epoch: Epoch, reason: String, now: u64, actions: &mut Vec<Action>) {
        self.phase = Phase::Idle;
        self.ended_at_ms = Some(now);
        self.failures_in_a_row += 1;
        actions.push(Action::Abort { epoch, reason: reason.clone() });
        if self.failures_in_a_row > self.config.tolerable_failures {
            self.phase = Phase::Failed;
            let failures = self.failures_in_a_row;
            actions.push(Action::FailJob {
                reason: format!("{failures} checkpoints failed in a row; the last, {epoch}: {reason}"),
            });
        }
    }
}

fn missing<'a>(
    subtasks: &'a BTreeSet<SubtaskId>,
    acks: &'a BTreeMap<SubtaskId, SubtaskState>,
) -> impl Iterator<Item = &'a SubtaskId> {
    subtasks.iter().filter(|subtask| !acks.contains_key(subtask))
}
