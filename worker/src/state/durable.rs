//! Makes files of a local state directory survive a power cut: the object store's local implementation does not sync.
//!
//! A new file is durable once the file itself and every directory on the way to it are synced.

use crate::error::{Context, Result};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Syncs files and all directories from theirs up to `root`, each once.
pub fn sync(root: &Path, files: &[PathBuf]) -> Result<()> {
    let mut directories = BTreeSet::from([root]);
    for file in files {
        sync_one(file)?;
        directories.extend(file.ancestors().skip(1).take_while(|directory| directory.starts_with(root)));
    }
    // Deepest first: a directory is only reachable once its parent is durable.
    directories.into_iter().rev().try_for_each(sync_one)
}

fn sync_one(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .unavailable(|| format!("cannot sync `{}` to disk", path.display()))
}
