//! A job as the leader runs it: what it knows of its regions and of the checkpoint in flight. Lost with the leader, and
//! gathered again.

use crate::meta::Deployed;
use ef_proto::checkpoint::Manifest;
use ef_proto::ids::{DeploymentId, Epoch, JobId, OperatorId, SubtaskId, WorkerId};
use ef_proto::job_config::Restarts;
use ef_proto::machine::checkpoint::{Cause, Checkpoints, Config};
use ef_proto::plan::{OperatorKind, Plan, Tasks};
use ef_proto::rpc::SubtaskLoad;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Checkpoints that `efctl get checkpoints` shows besides the retained ones.
pub const HISTORY_MAX: usize = 50;

pub struct Run {
    pub plan: Arc<Plan>,
    pub tasks: Tasks,
    pub config: Config,
    pub machine: Checkpoints,
    pub restarts: Restarts,
    /// By number.
    pub regions: Vec<Region>,
    /// The newest completed checkpoint's.
    pub manifest: Option<Arc<Manifest>>,
    /// A `Load` is under way.
    pub loading: bool,
    /// Not before then, after one that failed.
    pub load_at_ms: u64,
    /// A `Deploy` has been proposed, which takes these slots: the next placement must not give them away again.
    pub deploying: Option<BTreeMap<WorkerId, u32>>,
    /// A `Rescale` has been proposed.
    pub rescaling: bool,
    /// A `Proceed` has been proposed: nothing is placed by the old plan any more.
    pub proceeding: bool,
    /// Why it waits, as was said last.
    pub said: String,
    /// An end has been proposed.
    pub ending: bool,
    pub in_flight: Option<InFlight>,
    /// Epochs up to here have been asked of the log.
    pub reserving: Epoch,
    /// Triggered by the machine, and waiting for its epoch to be reserved.
    pub held_trigger: Option<Epoch>,
    /// Savepoints that wait for a checkpoint to be triggered.
    pub savepoints: Vec<String>,
    /// The checkpoint that a rescale or a move waits for.
    pub pending_epoch: Option<Epoch>,
    pub history: VecDeque<CheckpointView>,
    pub failed: u64,
    /// Counters that the workers sent last.
    pub loads: BTreeMap<SubtaskId, SubtaskLoad>,
    pub sweep: Sweep,
    /// For rates: when and what was read and written then.
    pub rates: Rates,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    pub at_ms: u64,
    pub rows_in: u64,
    pub rows_out: u64,
    pub in_per_second: u64,
    pub out_per_second: u64,
}

/// When the store is cleaned up next.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sweep {
    pub wanted: bool,
    pub under_way: bool,
    pub last_ms: u64,
}

pub struct InFlight {
    pub epoch: Epoch,
    pub cause: Cause,
    pub triggered_at_ms: u64,
    /// Become copies of it.
    pub savepoints: Vec<String>,
    /// Once all acks are in.
    pub manifest: Option<Arc<Manifest>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointView {
    pub epoch: Epoch,
    pub cause: Cause,
    pub triggered_at_ms: u64,
    pub duration_ms: u64,
    pub bytes: u64,
    pub new_bytes: u64,
    /// None while it is in flight.
    pub result: Option<Result<(), String>>,
}

pub struct Region {
    pub phase: RegionPhase,
    pub deployment: Option<DeploymentId>,
    /// Where each of its workers stands.
    pub workers: BTreeMap<WorkerId, Standing>,
    /// Where its tasks ran last.
    pub previous: BTreeMap<SubtaskId, WorkerId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionPhase {
    /// Is to be placed, not before this time.
    Waiting {
        from_ms: u64,
    },
    /// Not all workers have said Running; until `by_ms` those that are not connected may still come.
    Deploying {
        by_ms: u64,
    },
    Running,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The process that was sent the Deploy; None: sent by an earlier leader.
    pub boot: Option<u64>,
    pub running: bool,
}

impl Region {
    pub fn waiting() -> Region {
        Region {
            phase: RegionPhase::Waiting { from_ms: 0 },
            deployment: None,
            workers: BTreeMap::new(),
            previous: BTreeMap::new(),
        }
    }

    pub fn deployed(job: &JobId, region: u32, deployed: &Deployed, by_ms: u64) -> Region {
        let standing = Standing { boot: None, running: false };
        let deployment = DeploymentId { job: job.clone(), region, incarnation: deployed.incarnation };
        Region {
            phase: RegionPhase::Deploying { by_ms },
            deployment: Some(deployment),
            workers: deployed.slots.keys().map(|worker| (worker.clone(), standing)).collect(),
            previous: deployed.tasks.clone(),
        }
    }
}

impl Run {
    pub fn all_running(&self) -> bool {
        self.regions.iter().all(|region| region.phase == RegionPhase::Running)
    }

    /// The subtasks of all operators, or of one region's.
    pub fn subtasks(&self, region: Option<u32>) -> BTreeSet<SubtaskId> {
        subtasks(&self.plan, |op| {
            region.is_none_or(|region| self.tasks.of(op).is_some_and(|task| task.region == region))
        })
    }

    /// Whether figures of a subtask are those to show: of what is deployed, or, when the job has ended, of what was last.
    pub fn counts(&self, load: &SubtaskLoad) -> bool {
        let region = self.regions.get(load.deployment.region as usize);
        let known = self.loads.get(&load.subtask).map(|known| known.deployment.incarnation);
        region.is_some_and(|region| match &region.deployment {
            Some(deployment) => *deployment == load.deployment,
            None => self.ending && known.is_none_or(|known| known <= load.deployment.incarnation),
        })
    }

    /// (from sources, to sinks), since the deployments.
    pub fn rows(&self) -> (u64, u64) {
        let sum = |wanted: fn(&OperatorKind) -> bool| {
            let of = self.plan.operators.iter().filter(|op| wanted(&op.kind)).map(|op| op.id);
            let of: BTreeSet<OperatorId> = of.collect();
            self.loads.values().filter(|load| of.contains(&load.subtask.operator)).map(|load| load.rows_in).sum()
        };
        (sum(|kind| matches!(kind, OperatorKind::Source(_))), sum(|kind| matches!(kind, OperatorKind::Sink(_))))
    }

    pub fn remember(&mut self, view: CheckpointView) {
        self.history.retain(|old| old.epoch != view.epoch);
        if self.history.len() == HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back(view);
    }
}

pub fn subtasks(plan: &Plan, of: impl Fn(OperatorId) -> bool) -> BTreeSet<SubtaskId> {
    let operators = plan.operators.iter().filter(|op| of(op.id));
    operators.flat_map(|op| (0..op.parallelism).map(|index| SubtaskId { operator: op.id, index })).collect()
}

pub fn sinks(plan: &Plan) -> BTreeSet<SubtaskId> {
    let is_sink = |id| plan.operator(id).is_some_and(|op| matches!(op.kind, OperatorKind::Sink(_)));
    subtasks(plan, is_sink)
}
