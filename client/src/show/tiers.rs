//! The fleet by tier, put together from its workers.

use ef_proto::place;
use ef_proto::wire::generated::control::{Worker, WorkerDescription};
use serde::Serialize;
use std::collections::BTreeSet;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tier {
    pub tier: String,
    pub sites: BTreeSet<String>,
    pub workers: u32,
    pub workers_ready: u32,
    pub slots: u32,
    /// Where a job could run: of workers that are ready and not cordoned.
    pub slots_free: u32,
    /// Ids of jobs with tasks in the tier.
    pub jobs: BTreeSet<String>,
}

pub fn is_ready(worker: &Worker) -> bool {
    worker.state == "READY"
}

/// From below: devices first. A tier without workers is left out; one that this version does not know comes last.
pub fn tiers(workers: &[WorkerDescription]) -> Vec<Tier> {
    let mut tiers: Vec<Tier> = vec![];
    for description in workers {
        let Some(worker) = &description.worker else { continue };
        let at = tiers.iter().position(|tier| tier.tier == worker.tier).unwrap_or_else(|| {
            tiers.push(Tier { tier: worker.tier.clone(), ..Tier::default() });
            tiers.len() - 1
        });
        let tier = &mut tiers[at];
        if !worker.site.is_empty() {
            tier.sites.insert(worker.site.clone());
        }
        tier.workers += 1;
        tier.workers_ready += u32::from(is_ready(worker));
        tier.slots += worker.slots;
        if is_ready(worker) && !worker.cordoned {
            tier.slots_free += worker.slots_free;
        }
        tier.jobs.extend(description.tasks.iter().map(|task| task.job.clone()));
    }
    let rank = |tier: &Tier| match place::Tier::parse(&tier.tier) {
        Some(known) => known as usize,
        None => usize::MAX,
    };
    tiers.sort_by_key(|tier| (rank(tier), tier.tier.clone()));
    tiers
}

#[cfg(test)]
mod tests {
    use super::*;
    use ef_proto::wire::generated::control::WorkerTask;

    fn worker(id: &str, tier: &str, site: &str, state: &str, jobs: &[&str]) -> WorkerDescription {
        let worker = Worker {
            id: id.into(),
            tier: tier.into(),
            site: site.into(),
            state: state.into(),
            slots: 4,
            slots_free: 3,
            ..Worker::default()
        };
        let task = |job: &&str| WorkerTask { job: job.to_string(), ..WorkerTask::default() };
        WorkerDescription { worker: Some(worker), tasks: jobs.iter().map(task).collect() }
    }

    #[test]
    fn tiers_add_up_their_workers_from_below() {
        let mut cordoned = worker("c2", "cloud", "", "READY", &["a"]);
        cordoned.worker.as_mut().expect("made above").cordoned = true;
        let workers = [
            worker("c1", "cloud", "", "READY", &["a", "a", "b"]),
            cordoned,
            worker("c3", "cloud", "", "LOST", &[]),
            worker("g1", "gateway", "hall-1", "READY", &["b"]),
            worker("g2", "gateway", "hall-2", "READY", &[]),
            worker("x1", "orbit", "", "READY", &[]),
        ];
        let found = tiers(&workers);
        let names: Vec<&str> = found.iter().map(|tier| tier.tier.as_str()).collect();
        assert_eq!(names, ["gateway", "cloud", "orbit"]);
        let (gateway, cloud) = (&found[0], &found[1]);
        assert_eq!((gateway.workers, gateway.workers_ready, gateway.slots, gateway.slots_free), (2, 2, 8, 6));
        assert_eq!((gateway.sites.len(), gateway.jobs.len()), (2, 1));
        // The lost one's slots and the cordoned one's are no place for a job.
        assert_eq!((cloud.workers, cloud.workers_ready, cloud.slots, cloud.slots_free), (3, 2, 12, 3));
        assert_eq!((cloud.sites.len(), cloud.jobs.len()), (0, 2));
    }
}
