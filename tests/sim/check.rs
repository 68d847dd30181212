//! What must hold at every step, and what must hold in the end.

use super::jobs::{Row, SPLITS, decode, expected};
use super::people::{End, lineage_of};
use super::store::{Object, root};
use super::world::World;
use ef_coordinator::manifests::gc;
use ef_coordinator::meta::Command;
use ef_proto::checkpoint::{Manifest, path};
use ef_proto::ids::{DeploymentId, Epoch, JobId, WorkerId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl World {
    /// An entry of the log has become durable.
    pub fn check_applied(&mut self, command: &Command) {
        match command {
            Command::Submit(submitted) => {
                if let Some((_, record)) = &submitted.restore {
                    self.check_restorable(&submitted.job, record.epoch);
                }
            }
            Command::Complete { job, checkpoint, .. } => {
                self.stats.checkpoints += 1;
                self.check_restorable(job, checkpoint.epoch);
                let truth = self.coordinator.truth();
                let epochs = truth.jobs.get(job).map(|job| job.checkpoints.iter().map(|record| record.epoch));
                if epochs.is_some_and(|epochs| !epochs.is_sorted_by(|a, b| a < b)) {
                    self.fail(format!("checkpoint {} of {job} is recorded behind a later one", checkpoint.epoch));
                }
            }
            Command::Deploy { .. } => self.check_slots(),
            _ => {}
        }
    }

    /// Everything that the checkpoint needs is there.
    fn check_restorable(&mut self, job: &JobId, epoch: Epoch) {
        let Some(manifest) = self.read_manifest(job, epoch) else {
            return self.fail(format!("checkpoint {epoch} of {job} is recorded, and has no manifest"));
        };
        let files: BTreeSet<String> = manifest.files().map(|file| file.path.clone()).collect();
        let gone = files.iter().find(|file| {
            let path = format!("{}{file}", root("state", job));
            !matches!(self.store.objects.get(&path), Some(Object::State(_)))
        });
        if let Some(gone) = gone {
            self.fail(format!("checkpoint {epoch} of {job} names `{gone}`, which is not there"));
        }
        self.store.files.insert((job.clone(), epoch), Arc::new(files));
    }

    /// No worker is given more than it has.
    fn check_slots(&mut self) {
        let mut taken: BTreeMap<&WorkerId, u32> = BTreeMap::new();
        let jobs = self.coordinator.truth().jobs.values().filter(|job| !job.state.has_ended());
        for (worker, slots) in jobs.flat_map(|job| job.regions.values()).flat_map(|region| &region.slots) {
            *taken.entry(worker).or_default() += slots;
        }
        let over = self.workers.iter().find(|worker| taken.get(&worker.id).is_some_and(|taken| *taken > worker.slots));
        if let Some(worker) = over {
            self.fail(format!("{} has {} slots, and {} are taken", worker.id, worker.slots, taken[&worker.id]));
        }
    }

    /// What goes is named by nothing that is kept.
    pub fn check_delete(&mut self, name: &str) {
        let Some((job, name)) = name.strip_prefix("state/jobs/").and_then(|rest| rest.split_once('/')) else { return };
        let job = JobId(job.to_string());
        for epoch in self.coordinator.truth().kept(&job) {
            let files = self.store.files.get(&(job.clone(), epoch));
            if name == path::manifest(epoch) || files.is_some_and(|files| files.contains(name)) {
                return self.fail(format!("`{name}` of {job} is deleted, and checkpoint {epoch} needs it"));
            }
        }
    }

    /// Whether the log still wants this deployment.
    pub fn is_current(&self, id: &DeploymentId) -> bool {
        let job = self.coordinator.truth().jobs.get(&id.job).filter(|job| !job.state.has_ended());
        let deployed = job.and_then(|job| job.regions.get(&id.region));
        deployed.is_some_and(|deployed| deployed.incarnation == id.incarnation)
    }

    pub fn check_end(&mut self) {
        if self.coordinator.knows() != Some(self.coordinator.truth()) {
            self.fail("in the end the coordinator knows something else than its log says");
        }
        for worker in 0..self.workers.len() {
            let held = self.workers[worker].held();
            if !held.is_empty() && !self.options.outside_only {
                self.fail(format!("w{worker} holds {held:?}, and all jobs have ended"));
            }
        }
        for lineage in 0..self.people.lineages.len() {
            self.check_output(lineage);
        }
        let jobs: Vec<JobId> = self.coordinator.truth().jobs.keys().cloned().collect();
        for job in jobs {
            self.check_store(&job);
        }
    }

    /// The sinks hold what a naive computation gives, each row once.
    fn check_output(&mut self, number: usize) {
        let Some(end) = self.people.lineages[number].end.clone() else { return };
        let mut jobs = self.coordinator.truth().jobs.values();
        let Some(job) = jobs.rfind(|job| lineage_of(&job.id.0) == number) else { return };
        let planned = decode(&job.plan);
        let drained = match &end {
            End::Drained(job) | End::Cancelled(Some(job)) => Some(self.drained_at(job)),
            End::Natural | End::Cancelled(None) => None,
        };
        let whole = !matches!(end, End::Cancelled(_));
        let all = vec![self.people.rows; SPLITS as usize];
        for region in 0..planned.tasks.regions {
            let (table, shape, filters) = planned.pipeline(region);
            let upto = drained.as_ref().map(|at| at.get(&region).cloned().unwrap_or_default());
            let mut found = self.outside.tables.remove(&(number, table.to_string())).unwrap_or_default();
            found.sort_unstable();
            let differs = |upto: &[u32]| difference(&expected(shape, filters, upto), &found, whole);
            let mut differs_from = differs(upto.as_ref().unwrap_or(&all));
            if !whole && upto.is_some() {
                // Cancelled before the drain was recorded, or after.
                differs_from = differs_from.and(differs(&all));
            }
            if let Some(difference) = differs_from {
                self.fail(format!("table `{table}` of job {number} ({end:?}): {difference}"));
            }
        }
    }

    /// After a last sweep, what is there is what the retained checkpoints name.
    fn check_store(&mut self, job: &JobId) {
        let kept: Vec<Epoch> = self.coordinator.truth().kept(job).into_iter().collect();
        let retained: Vec<Manifest> = kept.iter().filter_map(|epoch| self.read_manifest(job, *epoch)).collect();
        if retained.len() != kept.len() {
            return self.fail(format!("of the checkpoints {kept:?} of {job}, some have no manifest"));
        }
        let prefix = root("state", job);
        let below = self.store.objects.range(prefix.clone()..).map(|(path, _)| path);
        let names: Vec<String> =
            below.take_while(|path| path.starts_with(&prefix)).map(|path| path[prefix.len()..].to_string()).collect();
        let on_disk = names.iter().filter_map(|name| path::manifest_epoch(name)).collect();
        let objects = names.iter().filter(|name| name.starts_with("shared/")).cloned().collect();
        let garbage = gc::sweep(&retained, objects, on_disk, None);
        let swept: BTreeSet<String> = garbage.manifests.into_iter().map(path::manifest).chain(garbage.files).collect();
        let live: BTreeSet<String> = names.into_iter().filter(|name| !swept.contains(name)).collect();
        let files = retained.iter().flat_map(Manifest::files).map(|file| file.path.clone());
        let reachable: BTreeSet<String> = kept.into_iter().map(path::manifest).chain(files).collect();
        if live != reachable {
            let leaked: Vec<&String> = live.difference(&reachable).collect();
            let gone: Vec<&String> = reachable.difference(&live).collect();
            self.fail(format!("store of {job}: nothing names {leaked:?}, and {gone:?} are named and gone"));
        }
    }
}

/// Both sorted. `whole`: all that is expected must be there.
fn difference(expected: &[Row], found: &[Row], whole: bool) -> Option<String> {
    let (mut missing, mut extra): (Vec<&Row>, Vec<&Row>) = Default::default();
    let (mut e, mut f) = (expected.iter().peekable(), found.iter().peekable());
    loop {
        match (e.peek(), f.peek()) {
            (None, None) => break,
            (Some(a), Some(b)) if a == b => {
                e.next();
                f.next();
            }
            (Some(a), Some(b)) if a > b => extra.extend(f.next()),
            (Some(_), _) => missing.extend(e.next()),
            (None, Some(_)) => extra.extend(f.next()),
        }
    }
    if extra.is_empty() && (missing.is_empty() || !whole) {
        return None;
    }
    let (few, more) = (&missing[..missing.len().min(3)], &extra[..extra.len().min(3)]);
    Some(format!(
        "{} rows of {} are missing ({few:?}), {} are too many ({more:?})",
        missing.len(),
        expected.len(),
        extra.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn difference_sees_a_lost_and_a_repeated_row() {
        let row = |seq| Row { seq, ..Row::default() };
        let all = [row(1), row(2), row(3)];
        assert_eq!(difference(&all, &all, true), None);
        assert!(difference(&all, &[row(1), row(3)], true).is_some());
        assert!(difference(&all, &[row(1), row(2), row(2), row(3)], true).is_some());
        assert_eq!(difference(&all, &[row(2)], false), None, "a part of it");
        assert!(difference(&all, &[row(2), row(2)], false).is_some());
    }
}
