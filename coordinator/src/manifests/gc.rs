//! Which state files are of no use any more: a pure rule over what was read, derived anew every time.
//!
//! Never by age or by counting: only a file that no retained manifest names, and that no checkpoint still to come can
//! name, may go. Workers reuse files of completed checkpoints only, so what a newer epoch can name besides its own
//! files is in the newest manifest.

use ef_proto::checkpoint::{Manifest, path};
use ef_proto::ids::{Epoch, Incarnation};
use std::collections::HashSet;

/// The files of `objects` (names below the job's root) to delete. `manifests` are all that exist.
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
    let referenced: HashSet<&str> = manifests.iter().flat_map(Manifest::files).map(|file| file.path.as_str()).collect();
    let useless = |object: &String| {
        !referenced.contains(object.as_str())
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
