//! Which objects of a job are of no use any more: pure rules over what was read, derived anew every time.
//!
//! Never by age or by counting: only what no retained manifest names, and no checkpoint still to come can name, may go.
//! Workers reuse files of completed checkpoints only, so what a newer epoch can name besides its own files is in the
//! newest manifest.
//!
//! In a cluster ([`sweep`]) epochs are unique and ascending over all incarnations of a job, which makes the rules short:
//! - A state file may go iff no retained manifest names it and its epoch (in its path) is at most the last completed
//!   one. Later ones are of a checkpoint in flight.
//! - A manifest may go iff it is not retained and is older than the last completed one. Later ones were put to be
//!   recorded.
//! - Of a job that has ended everything may go that no retained manifest names: no checkpoint is to come.
//!
//! They hold only if the rest keeps to this: one checkpoint of a job is in flight at a time; a worker learns that epoch
//! n is complete before it is told to begin n + 1 (also after it has dialled in anew), and so does a task that hears of
//! n + 1 by a barrier from another worker first, or it would reuse files of the one before n; and a job restored from a foreign savepoint gives out only epochs above the savepoint's, or its own
//! files could meet those that were copied in.

use ef_proto::checkpoint::{Manifest, path};
use ef_proto::ids::{Epoch, Incarnation};
use std::collections::{BTreeSet, HashSet};

#[cfg(test)]
mod tests;

/// What may be deleted: the manifests first, so that none ever names a file that is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Garbage {
    pub manifests: Vec<Epoch>,
    /// Paths below the job's root.
    pub files: Vec<String>,
}

/// In a cluster. `retained` are the manifests that the log retains, pinned ones and the last completed one among them;
/// `objects` the state files and `on_disk` the manifests that exist. Of a job that has ended there is no last completed
/// one: none of its epochs is to come.
pub fn sweep(
    retained: &[Manifest],
    objects: Vec<String>,
    on_disk: Vec<Epoch>,
    last_completed: Option<Epoch>,
) -> Garbage {
    let epochs: BTreeSet<Epoch> = retained.iter().map(|manifest| manifest.epoch).collect();
    // Without the newest checkpoint's manifest nothing is known about what may be reused.
    if last_completed.is_some_and(|last| !epochs.contains(&last)) {
        return Garbage::default();
    }
    let named = named(retained);
    let past = |epoch: Epoch| last_completed.is_none_or(|last| epoch <= last);
    let old = |object: &String| path::state_file_origin(object).is_some_and(|(_, epoch)| past(epoch));
    Garbage {
        manifests: on_disk.into_iter().filter(|epoch| past(*epoch) && !epochs.contains(epoch)).collect(),
        files: objects.into_iter().filter(|object| old(object) && !named.contains(object.as_str())).collect(),
    }
}

/// Of a lone job in one process: the files of `objects` (names below the job's root) to delete. `manifests` are all
/// that exist.
pub fn garbage(
    manifests: &[Manifest],
    objects: Vec<String>,
    incarnation: Incarnation,
    last_completed: Epoch,
) -> Vec<String> {
    // Without the newest checkpoint's manifest nothing is known about what may be reused.
    if !manifests.iter().any(|manifest| manifest.epoch == last_completed) {
        return Vec::new();
    }
    let named = named(manifests);
    let useless = |object: &String| {
        !named.contains(object.as_str())
            && path::state_file_origin(object).is_some_and(|(by, epoch)| match by.cmp(&incarnation) {
                // Its writers are gone, and what they left was never recorded or is retired.
                std::cmp::Ordering::Less => true,
                // Files of an epoch in flight are not in a manifest yet.
                std::cmp::Ordering::Equal => epoch <= last_completed,
                // We are the ones who were replaced.
                std::cmp::Ordering::Greater => false,
            })
    };
    objects.into_iter().filter(useless).collect()
}

fn named(manifests: &[Manifest]) -> HashSet<&str> {
    manifests.iter().flat_map(Manifest::files).map(|file| file.path.as_str()).collect()
}
