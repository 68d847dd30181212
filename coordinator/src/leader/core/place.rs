//! Placing what waits, and deploying what is placed.

use super::Core;
use super::run::{Region, RegionPhase, Standing};
use crate::meta::{Command, Deployed, JobState};
use crate::scheduler::{Placed, Unplaceable, WorkerView, place};
use ef_proto::checkpoint::Manifest;
use ef_proto::ids::{Incarnation, JobId, WorkerId};
use ef_proto::plan::{Task, Tasks};
use ef_proto::rpc::{self, OrderBody, Placement};
use std::collections::BTreeMap;

impl Core {
    /// Places every region that waits and may be placed now. Jobs that were submitted first come first.
    pub(super) fn schedule(&mut self, now: u64) {
        let mut jobs: Vec<(u64, JobId)> = self
            .runs
            .iter()
            .filter(|(_, run)| run.regions.iter().any(|region| matches!(region.phase, RegionPhase::Waiting { .. })))
            .filter_map(|(id, _)| Some((self.meta.jobs.get(id)?.submitted_at_ms, id.clone())))
            .collect();
        jobs.sort();
        let mut views: Option<Vec<WorkerView>> = None;
        for (_, job) in jobs {
            if !self.may_deploy(&job, now) {
                continue;
            }
            let views = views.get_or_insert_with(|| self.worker_views(None));
            match self.place_job(&job, views, now) {
                Ok(command) => drop(self.propose(command)),
                Err(Unplaceable(reason)) => self.pend(&job, reason, now),
            }
        }
    }

    /// All its waiting regions have waited long enough, and what they start from is known.
    fn may_deploy(&mut self, job: &JobId, now: u64) -> bool {
        let Some(newest) = self.meta.jobs.get(job).map(|job| job.newest().map(|record| record.epoch)) else {
            return false;
        };
        let Some(run) = self.runs.get_mut(job) else { return false };
        let too_early = |region: &Region| matches!(region.phase, RegionPhase::Waiting { from_ms } if from_ms > now);
        // A manifest on its way may become the truth: whoever started from an older one would go back behind it.
        let busy = run.deploying.is_some() || run.proceeding || run.ending;
        if busy || run.machine.is_publishing() || run.regions.iter().any(too_early) {
            return false;
        }
        let Some(newest) = newest else { return true };
        if run.manifest.as_ref().is_some_and(|manifest| manifest.epoch == newest) {
            return true;
        }
        if !run.loading && run.load_at_ms <= now {
            run.loading = true;
            self.out.push(super::Effect::Load { job: job.clone(), epoch: newest });
        }
        false
    }

    /// The decision where the waiting regions run; `views` are updated by what they take.
    fn place_job(&mut self, id: &JobId, views: &mut [WorkerView], now: u64) -> Result<Command, Unplaceable> {
        let (Some(run), Some(job)) = (self.runs.get_mut(id), self.meta.jobs.get(id)) else {
            return Err(Unplaceable("the job has gone".into()));
        };
        let mut taken = views.to_vec();
        let mut regions = BTreeMap::new();
        let mut slots: BTreeMap<WorkerId, u32> = BTreeMap::new();
        let restore = job.newest().map(|record| record.epoch);
        let mut incarnation = job.incarnation;
        for (number, region) in (0..).zip(&run.regions) {
            if !matches!(region.phase, RegionPhase::Waiting { .. }) {
                continue;
            }
            let placed = place_region(&run.tasks, number, &mut taken, &region.previous)?;
            incarnation = Incarnation(incarnation.0 + 1);
            for (worker, taken) in &placed.slots {
                *slots.entry(worker.clone()).or_default() += taken;
            }
            regions.insert(number, Deployed { incarnation, tasks: placed.tasks, slots: placed.slots, restore });
        }
        views.clone_from_slice(&taken);
        run.deploying = Some(slots);
        Ok(Command::Deploy { job: id.clone(), at_ms: now, regions, restore })
    }

    /// Says why a job does not run, once for each reason.
    fn pend(&mut self, job: &JobId, reason: String, now: u64) {
        let known = self.meta.jobs.get(job).is_none_or(|job| {
            (job.state == JobState::Pending && job.reason == reason) || job.state == JobState::Stopping
        });
        let Some(run) = self.runs.get_mut(job).filter(|run| !known && run.said != reason) else { return };
        run.said.clone_from(&reason);
        let state = JobState::Pending;
        self.propose(Command::State { job: job.clone(), at_ms: now, state, reason });
    }

    /// Regions have been placed: their workers are told.
    pub(super) fn deploy(&mut self, job: &JobId, regions: BTreeMap<u32, Deployed>, now: u64) {
        let Some(run) = self.runs.get_mut(job) else { return };
        run.deploying = None;
        if run.ending {
            return; // it was decided before the end
        }
        run.said.clear();
        // A worker may have gone for good while this was being decided.
        let by_ms = now + self.config.heartbeat_timeout_ms;
        for (number, deployed) in &regions {
            if let Some(region) = run.regions.get_mut(*number as usize) {
                *region = Region::deployed(job, *number, deployed, by_ms);
            }
        }
        for (number, deployed) in regions {
            for worker in deployed.slots.keys() {
                self.send_deploy(job, number, worker);
            }
        }
    }

    /// To one worker of a region; it may have gone, and is told when it comes back.
    pub(super) fn send_deploy(&mut self, job: &JobId, number: u32, worker: &WorkerId) {
        let Some(meta) = self.meta.jobs.get(job) else { return };
        let Some(deployed) = meta.regions.get(&number) else { return };
        let Some(run) = self.runs.get_mut(job) else { return };
        let Some(known) = self.workers.known.get(worker).filter(|known| known.session.is_some()) else { return };
        let restore = match deployed.restore {
            None => None,
            Some(epoch) => match &run.manifest {
                Some(manifest) if manifest.epoch == epoch => Some(of_region(manifest, &run.tasks, number)),
                // It restarts from the newer one.
                _ => return,
            },
        };
        let address = |id: &WorkerId| {
            let address = self.workers.known.get(id).map(|known| known.hello.data_address.clone());
            (id.clone(), address.unwrap_or_default())
        };
        let placement = Placement {
            here: worker.clone(),
            peers: deployed.slots.keys().map(address).collect(),
            tasks: deployed.tasks.clone(),
        };
        let slots = deployed.slots.get(worker).copied().unwrap_or(1);
        let stop = meta.stopping.as_ref().map(|stopping| stopping.drain);
        let (plan, state) = (meta.plan.clone(), meta.state_root.clone());
        let deploy = rpc::Deploy { plan, placement, restore, state, slots, stop };
        let boot = Some(known.hello.boot);
        let Some(region) = run.regions.get_mut(number as usize) else { return };
        region.workers.insert(worker.clone(), Standing { boot, running: false });
        let Some(deployment) = region.deployment.clone() else { return };
        self.send(worker, OrderBody::Command { deployment, command: rpc::Command::Deploy(Box::new(deploy)) });
    }

    /// Whether the regions could run at all once their present deployments have gone. In words, if not.
    pub(super) fn could_place(&self, job: &JobId, tasks: &Tasks, regions: &[u32]) -> Result<(), String> {
        let mut views = self.worker_views(Some((job, regions)));
        for region in regions {
            place_region(tasks, *region, &mut views, &BTreeMap::new()).map_err(|Unplaceable(reason)| reason)?;
        }
        Ok(())
    }
}

fn place_region(
    tasks: &Tasks,
    region: u32,
    views: &mut [WorkerView],
    previous: &BTreeMap<ef_proto::ids::SubtaskId, WorkerId>,
) -> Result<Placed, Unplaceable> {
    let tasks: Vec<&Task> = tasks.in_region(region).collect();
    let placed = place(&tasks, views, previous)?;
    for view in views {
        view.taken += placed.slots.get(&view.id).copied().unwrap_or(0);
    }
    Ok(placed)
}

/// What a region needs of a checkpoint.
fn of_region(manifest: &Manifest, tasks: &Tasks, region: u32) -> Manifest {
    let here = |id| tasks.of(id).is_some_and(|task| task.region == region);
    Manifest {
        operators: manifest.operators.iter().filter(|operator| here(operator.id)).cloned().collect(),
        ..manifest.clone()
    }
}
