//! One deployment as the session holds it: how far it has come, and what must be said of it until the coordinator has
//! no more use for it.

use super::{Item, LEAVE_MS};
use ef_proto::error::Error;
use ef_proto::ids::{DeploymentId, Epoch, OperatorId, SubtaskId};
use ef_proto::rpc::{Command, Deploy, Event, Phase};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stage {
    /// Waits until its predecessor has left.
    Queued(Box<Deploy>),
    Starting,
    Running,
    /// Cancelled or failed; the tasks have until then.
    Leaving {
        until_ms: u64,
    },
    /// The tasks have gone, and the coordinator has not cancelled the deployment yet.
    Gone,
}

#[derive(Clone, Debug)]
pub(super) struct Deployment {
    pub stage: Stage,
    /// By an order, or by a newer incarnation: nothing counts any more but its end.
    pub cancelled: bool,
    /// That it has not left in time has been said.
    pub told_late: bool,
    pub said: Said,
    later: Later,
    /// The highest epoch that was triggered or is over: its barrier must not start a second time.
    triggered: Epoch,
    /// The highest epoch that completed or was aborted. Epochs come one after the other, so those before it are over too.
    over: Epoch,
}

/// What is repeated on every new stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    pub running: bool,
    pub ended: BTreeSet<SubtaskId>,
    pub committed: BTreeMap<SubtaskId, Epoch>,
    /// Acks and refusals of the epoch in flight.
    pub answers: BTreeMap<(Epoch, SubtaskId), Event>,
    pub failed: Option<(OperatorId, Error)>,
}

/// What came before the tasks ran.
#[derive(Clone, Debug, Default)]
struct Later {
    complete: Option<Epoch>,
    trigger: Option<Epoch>,
    stop: Option<bool>,
}

impl Deployment {
    pub fn queued(deploy: Box<Deploy>) -> Deployment {
        Deployment {
            stage: Stage::Queued(deploy),
            cancelled: false,
            told_late: false,
            said: Said::default(),
            later: Later::default(),
            triggered: Epoch(0),
            over: Epoch(0),
        }
    }

    pub fn phase(&self) -> Phase {
        match self.stage {
            Stage::Queued(_) | Stage::Starting => Phase::Starting,
            Stage::Running => Phase::Running,
            Stage::Leaving { .. } | Stage::Gone => Phase::Leaving,
        }
    }

    pub fn has_agent(&self) -> bool {
        match self.stage {
            Stage::Starting | Stage::Running | Stage::Leaving { .. } => true,
            Stage::Queued(_) | Stage::Gone => false,
        }
    }

    /// Until when a successor waits for this one.
    pub fn may_leave_until(&self) -> u64 {
        match self.stage {
            Stage::Leaving { until_ms } => until_ms,
            Stage::Gone => 0,
            Stage::Queued(_) | Stage::Starting | Stage::Running => u64::MAX,
        }
    }

    /// When it is to be said that it has not left in time.
    pub fn late_at(&self) -> Option<u64> {
        match self.stage {
            Stage::Leaving { until_ms } if !self.told_late => Some(until_ms),
            _ => None,
        }
    }

    /// The deployment to start, if it has not been started.
    pub fn start(&mut self) -> Option<Box<Deploy>> {
        match std::mem::replace(&mut self.stage, Stage::Starting) {
            Stage::Queued(deploy) => Some(deploy),
            other => {
                self.stage = other;
                None
            }
        }
    }

    /// Nothing of it is said any more but that it has stopped.
    pub fn cancel(&mut self, now_ms: u64) {
        self.cancelled = true;
        self.said = Said::default();
        match self.stage {
            Stage::Starting | Stage::Running => self.leave(now_ms),
            // One that failed is on its way already; one that never started has nothing to leave.
            Stage::Leaving { .. } | Stage::Gone => {}
            Stage::Queued(_) => self.stage = Stage::Gone,
        }
    }

    fn leave(&mut self, now_ms: u64) {
        self.stage = Stage::Leaving { until_ms: now_ms + LEAVE_MS };
    }

    /// What of a command reaches the tasks now.
    pub fn command(&mut self, command: Command) -> Option<Command> {
        match &command {
            // Twice in one stream's life, or with an answer that has been repeated: the barrier is on its way.
            Command::Trigger { epoch } if *epoch <= self.triggered => return None,
            Command::Trigger { epoch } => self.triggered = *epoch,
            Command::Complete { epoch } | Command::Abort { epoch } => {
                self.triggered = self.triggered.max(*epoch);
                self.over = self.over.max(*epoch);
                let over = self.over;
                self.said.answers.retain(|(of, _), _| *of > over);
            }
            Command::Stop { .. } | Command::Deploy(_) | Command::Cancel => {}
        }
        match self.stage {
            Stage::Running => Some(command),
            Stage::Queued(_) | Stage::Starting => {
                self.defer(command);
                None
            }
            Stage::Leaving { .. } | Stage::Gone => None,
        }
    }

    fn defer(&mut self, command: Command) {
        match command {
            Command::Trigger { epoch } => self.later.trigger = Some(epoch),
            Command::Complete { epoch } => self.later.complete = self.later.complete.max(Some(epoch)),
            Command::Stop { drain } => self.later.stop = Some(drain),
            // Its tasks have made nothing for the epoch.
            Command::Abort { .. } => {}
            Command::Deploy(_) | Command::Cancel => {}
        }
        if self.later.trigger <= Some(self.over) {
            self.later.trigger = None;
        }
    }

    /// What came too early, once the tasks run.
    pub fn take_later(&mut self) -> Vec<Command> {
        let Later { complete, trigger, stop } = std::mem::take(&mut self.later);
        let complete = complete.map(|epoch| Command::Complete { epoch });
        let trigger = trigger.map(|epoch| Command::Trigger { epoch });
        let stop = stop.map(|drain| Command::Stop { drain });
        [complete, trigger, stop].into_iter().flatten().collect()
    }

    /// Keeps what the coordinator must hear; answers with what is to be said now.
    pub fn event(&mut self, id: &DeploymentId, event: Event, now_ms: u64) -> Option<Item> {
        if self.cancelled {
            return None;
        }
        match event {
            Event::Running if self.stage == Stage::Starting => {
                self.stage = Stage::Running;
                self.said.running = true;
                Some(Item::Running(id.clone()))
            }
            Event::Running => None,
            Event::Acked { epoch, subtask, .. } | Event::Declined { epoch, subtask, .. } => {
                if epoch <= self.over {
                    return None;
                }
                self.said.answers.entry((epoch, subtask)).or_insert(event);
                Some(Item::Answer(id.clone(), epoch, subtask))
            }
            Event::Committed { epoch, subtask } => {
                let upto = self.said.committed.entry(subtask).or_insert(epoch);
                *upto = epoch.max(*upto);
                Some(Item::Committed(id.clone(), subtask))
            }
            Event::Ended { subtask } => {
                self.said.ended.insert(subtask);
                Some(Item::Ended(id.clone(), subtask))
            }
            Event::Failed { operator, error } => {
                match self.stage {
                    Stage::Starting | Stage::Running => self.leave(now_ms),
                    Stage::Queued(_) => self.stage = Stage::Gone,
                    Stage::Leaving { .. } | Stage::Gone => {}
                }
                // The first is the cause.
                self.said.failed.get_or_insert((operator, error));
                Some(Item::Failed(id.clone()))
            }
            Event::Stopped => unreachable!("the session's own business"),
        }
    }

    /// All that a new stream must hear.
    pub fn items(&self, id: &DeploymentId) -> Vec<Item> {
        let Said { running, ended, committed, answers, failed } = &self.said;
        let mut items = Vec::new();
        items.extend(running.then(|| Item::Running(id.clone())));
        items.extend(ended.iter().map(|subtask| Item::Ended(id.clone(), *subtask)));
        items.extend(committed.keys().map(|subtask| Item::Committed(id.clone(), *subtask)));
        items.extend(answers.keys().map(|(epoch, subtask)| Item::Answer(id.clone(), *epoch, *subtask)));
        items.extend(failed.as_ref().map(|_| Item::Failed(id.clone())));
        items.extend((self.stage == Stage::Gone).then(|| Item::Stopped(id.clone())));
        items
    }
}
