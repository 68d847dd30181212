//! A cluster's checkpoints in a model: incremental reuse, failures, restarts, retention, pinned checkpoints, uploads by
//! workers that were replaced, sweeps that are slow, interrupted or of a deposed leader. What must never happen is
//! checked after every step.

use super::*;
use crate::manifests::tests::{file, manifest};
use ef_proto::checkpoint::StateFile;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::collections::{BTreeMap, VecDeque};

type Sweep = fn(&[Manifest], Vec<String>, Vec<Epoch>, Option<Epoch>) -> Garbage;

#[derive(Clone, Debug)]
enum Step {
    /// Begin a checkpoint that reuses some of the last completed one's files and adds others.
    Trigger {
        reuse: u8,
        new: usize,
    },
    /// The worker uploads one of the files.
    Upload,
    /// The manifest is put; and with the next step it is recorded.
    Put,
    Record,
    Abort,
    /// All regions are deployed anew, from the last completed checkpoint.
    Restart,
    /// A worker that does not know yet that its checkpoint is over uploads a file.
    LateUpload,
    /// A savepoint is being copied from the newest checkpoint; the copy ends.
    Pin,
    Unpin,
    /// A leader looks at the log and goes on with a sweep later.
    Look,
    /// It deletes so many objects of what it then finds; the rest, never.
    Sweep {
        deletions: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<u8>(), 0..3usize).prop_map(|(reuse, new)| Step::Trigger { reuse, new }),
        6 => Just(Step::Upload),
        3 => Just(Step::Put),
        4 => Just(Step::Record),
        1 => Just(Step::Abort),
        1 => Just(Step::Restart),
        2 => Just(Step::LateUpload),
        1 => Just(Step::Pin),
        1 => Just(Step::Unpin),
        2 => Just(Step::Look),
        3 => (0..12usize).prop_map(|deletions| Step::Sweep { deletions }),
    ]
}

/// What a checkpoint in flight refers to and has uploaded.
#[derive(Debug)]
struct InFlight {
    manifest: Manifest,
    to_upload: VecDeque<StateFile>,
    put: bool,
}

#[derive(Debug, Default)]
struct Model {
    objects: BTreeSet<String>,
    on_disk: BTreeMap<Epoch, Manifest>,
    /// As the log has it.
    completed: VecDeque<Epoch>,
    pinned: Vec<Epoch>,
    last_epoch: u64,
    incarnation: u64,
    /// The worker's view: files of the last checkpoint that it knows to be complete.
    confirmed: Vec<StateFile>,
    in_flight: Option<InFlight>,
    late: VecDeque<StateFile>,
    /// What a leader has seen of the log.
    view: Option<(Vec<Manifest>, Epoch)>,
    keep: usize,
}

impl Model {
    fn retained(&self) -> BTreeSet<Epoch> {
        self.completed.iter().chain(&self.pinned).copied().collect()
    }

    fn look(&self) -> Option<(Vec<Manifest>, Epoch)> {
        let last = *self.completed.back()?;
        Some((self.retained().iter().map(|epoch| self.on_disk[epoch].clone()).collect(), last))
    }

    fn end(&mut self) {
        if let Some(over) = self.in_flight.take() {
            self.late.extend(over.to_upload);
        }
    }

    fn step(&mut self, step: &Step, sweep: Sweep) {
        match step {
            Step::Trigger { reuse, new } if self.in_flight.is_none() => {
                self.last_epoch += 1;
                let reused = self.confirmed.iter().enumerate().filter(|(i, _)| reuse >> (i % 8) & 1 == 1);
                let mut files: Vec<StateFile> = reused.map(|(_, file)| file.clone()).collect();
                let fresh = (0..=*new).map(|n| file(self.incarnation, self.last_epoch, &format!("{n:06}.sst")));
                let to_upload: VecDeque<StateFile> = fresh.collect();
                files.extend(to_upload.iter().cloned());
                let manifest = manifest(self.last_epoch, self.incarnation, files);
                self.in_flight = Some(InFlight { manifest, to_upload, put: false });
            }
            Step::Upload => {
                let file = self.in_flight.as_mut().and_then(|flight| flight.to_upload.pop_front());
                self.objects.extend(file.map(|file| file.path));
            }
            Step::Put => {
                if let Some(flight) = self.in_flight.as_mut().filter(|flight| flight.to_upload.is_empty()) {
                    flight.put = true;
                    self.on_disk.insert(flight.manifest.epoch, flight.manifest.clone());
                }
            }
            Step::Record if self.in_flight.as_ref().is_some_and(|flight| flight.put) => {
                let flight = self.in_flight.take().expect("just seen");
                self.completed.push_back(flight.manifest.epoch);
                self.confirmed = flight.manifest.files().cloned().collect();
                // In the log with the same entry: the retirement comes before any sweep that acts on it.
                while self.completed.len() > self.keep {
                    self.completed.pop_front();
                }
            }
            Step::Abort => self.end(),
            Step::Restart => {
                self.end();
                self.incarnation += 1;
                let restored = self.completed.back().map(|epoch| &self.on_disk[epoch]);
                self.confirmed = restored.map(|manifest| manifest.files().cloned().collect()).unwrap_or_default();
            }
            Step::LateUpload => self.objects.extend(self.late.pop_front().map(|file| file.path)),
            Step::Pin => self.pinned.extend(self.completed.back()),
            Step::Unpin => drop(self.pinned.pop()),
            Step::Look => self.view = self.look(),
            Step::Sweep { deletions } => {
                let Some((retained, last)) = self.view.clone() else { return };
                let objects = self.objects.iter().cloned().collect();
                let garbage = sweep(&retained, objects, self.on_disk.keys().copied().collect(), Some(last));
                let manifests = garbage.manifests.len();
                for epoch in garbage.manifests.iter().take(*deletions) {
                    self.on_disk.remove(epoch);
                }
                for file in garbage.files.iter().take(deletions.saturating_sub(manifests)) {
                    self.objects.remove(file);
                }
            }
            Step::Trigger { .. } | Step::Record => {}
        }
    }

    /// What is there suffices for every retained checkpoint and for the one in flight.
    fn check(&self) -> Result<(), String> {
        for epoch in self.retained() {
            let manifest = self.on_disk.get(&epoch).ok_or(format!("the retained manifest {epoch} is gone"))?;
            if let Some(file) = manifest.files().find(|file| !self.objects.contains(&file.path)) {
                return Err(format!("checkpoint {epoch} has lost `{}`", file.path));
            }
        }
        let Some(flight) = &self.in_flight else { return Ok(()) };
        if flight.put && !self.on_disk.contains_key(&flight.manifest.epoch) {
            return Err(format!("the manifest {} is gone before it is recorded", flight.manifest.epoch));
        }
        let mut uploaded = flight.manifest.files().filter(|file| !flight.to_upload.contains(file));
        match uploaded.find(|file| !self.objects.contains(&file.path)) {
            Some(file) => Err(format!("epoch {} in flight has lost `{}`", flight.manifest.epoch, file.path)),
            None => Ok(()),
        }
    }
}

/// Plays a history, and at its end one checkpoint and one sweep without disturbance.
fn play(steps: &[Step], keep: usize, sweep: Sweep) -> Result<(), String> {
    let mut model = Model { keep, incarnation: 1, ..Model::default() };
    for (i, step) in steps.iter().enumerate() {
        model.step(step, sweep);
        model.check().map_err(|e| format!("after step {i}, {step:?}: {e}"))?;
    }
    let mut last = vec![Step::Abort];
    last.extend(vec![Step::LateUpload; model.late.len() + 3]);
    last.extend([Step::Trigger { reuse: 0x55, new: 0 }, Step::Upload, Step::Put, Step::Record, Step::Look]);
    last.push(Step::Sweep { deletions: usize::MAX });
    for step in &last {
        model.step(step, sweep);
        model.check().map_err(|e| format!("at the end, {step:?}: {e}"))?;
    }
    let (retained, _) = model.look().expect("a checkpoint has completed");
    let reachable: BTreeSet<String> = named(&retained).into_iter().map(str::to_owned).collect();
    if model.objects != reachable || !model.on_disk.keys().eq(&model.retained()) {
        return Err(format!("garbage is left: {model:?}"));
    }
    Ok(())
}

fn history() -> impl Strategy<Value = (Vec<Step>, usize)> {
    (prop::collection::vec(step(), 1..120), 1..4usize)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn sweep_takes_all_garbage_and_never_what_somebody_needs((steps, keep) in history()) {
        prop_assert_eq!(play(&steps, keep, sweep), Ok(()));
    }
}

/// A model that lets anything pass would prove nothing.
#[test]
fn model_catches_sweeps_that_break_one_rule_each() {
    let forgets_in_flight: Sweep = |retained, objects, on_disk, last| {
        let named = named(retained);
        let files = objects.into_iter().filter(|object| !named.contains(object.as_str())).collect();
        Garbage { files, ..sweep(retained, Vec::new(), on_disk, last) }
    };
    let forgets_reuse: Sweep = |retained, objects, on_disk, last| {
        let of_its_own = |manifest: &Manifest| {
            let mut manifest = manifest.clone();
            let epoch = manifest.epoch;
            let own = |path: &str| path::state_file_origin(path).is_some_and(|(_, by)| by == epoch);
            manifest.operators[0].subtasks[0].keyed.retain(|file| own(&file.path));
            manifest
        };
        sweep(&retained.iter().map(of_its_own).collect::<Vec<_>>(), objects, on_disk, last)
    };
    let forgets_pins: Sweep = |retained, objects, on_disk, last| {
        let newest: Vec<_> = retained.iter().filter(|manifest| Some(manifest.epoch) == last).cloned().collect();
        sweep(&newest, objects, on_disk, last)
    };
    let forgets_unrecorded: Sweep = |retained, objects, on_disk, last| {
        let known: BTreeSet<Epoch> = retained.iter().map(|manifest| manifest.epoch).collect();
        let manifests = on_disk.into_iter().filter(|epoch| !known.contains(epoch)).collect();
        Garbage { manifests, ..sweep(retained, objects, Vec::new(), last) }
    };
    let takes_nothing: Sweep = |_, _, _, _| Garbage::default();
    let broken = [forgets_in_flight, forgets_reuse, forgets_pins, forgets_unrecorded, takes_nothing];
    for (i, broken) in broken.into_iter().enumerate() {
        let config =
            ProptestConfig { cases: 2000, max_shrink_iters: 0, failure_persistence: None, ..ProptestConfig::default() };
        let caught = TestRunner::new(config).run(&history(), |(steps, keep)| {
            prop_assert_eq!(play(&steps, keep, broken), Ok(()));
            Ok(())
        });
        assert!(caught.is_err(), "broken sweep {i} passes");
    }
}

#[test]
fn nothing_goes_while_the_newest_manifest_is_unknown() {
    let objects = vec![file(1, 1, "a").path];
    assert_eq!(sweep(&[], objects.clone(), vec![Epoch(1)], Some(Epoch(2))), Garbage::default());
    assert_eq!(sweep(&[manifest(1, 1, [])], objects, vec![Epoch(1)], Some(Epoch(2))), Garbage::default());
}

#[test]
fn ended_job_leaves_nothing_but_what_is_kept() {
    let (kept, old, unrecorded) = (file(1, 2, "a"), file(1, 1, "b"), file(2, 5, "c"));
    let objects = || [&kept, &old, &unrecorded].map(|file| file.path.clone()).to_vec();
    let on_disk = || vec![Epoch(1), Epoch(2), Epoch(5)];
    let newest = manifest(2, 2, [kept.clone()]);
    let garbage = sweep(&[newest], objects(), on_disk(), None);
    assert_eq!(garbage.manifests, [Epoch(1), Epoch(5)]);
    assert_eq!(garbage.files, [old.path.clone(), unrecorded.path.clone()]);
    assert_eq!(sweep(&[], objects(), on_disk(), None).files.len(), 3, "a cancelled job keeps nothing");
}
