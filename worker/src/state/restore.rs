//! Reads downloaded state of either layout, clipped to the key groups of its new owner.

use super::{Restored, Visit, snapshot};
use crate::error::{Context, Result};
use ef_proto::checkpoint::Layout;
use std::fs::File;
use std::io::BufReader;
use std::ops::Range;

/// Visits the entries of `parent` whose key group is in `key_groups`; RocksDB's in key order, others as written.
pub fn entries(parent: &Restored, key_groups: &Range<u16>, visit: Visit<'_>) -> Result<()> {
    if parent.state.keyed.is_empty() {
        return Ok(());
    }
    match parent.state.layout {
        Layout::Entries => {
            for file in &parent.state.keyed {
                let path = parent.directory.path().join(&file.name);
                let opened = File::open(&path).unavailable(|| format!("cannot open `{}`", path.display()))?;
                let go_on = snapshot::read(BufReader::new(opened), &file.path, &mut |key, value| {
                    if contains(key_groups, key) { visit(key, value) } else { Ok(true) }
                })?;
                if !go_on {
                    break;
                }
            }
            Ok(())
        }
        #[cfg(feature = "rocksdb")]
        Layout::RocksDb => super::rocks::read_downloaded(parent, key_groups, visit),
        #[cfg(not(feature = "rocksdb"))]
        Layout::RocksDb => Err(crate::error::Error::invalid(
            "the checkpoint's state is RocksDB's, but this build of EdgeFlow is without RocksDB",
        )),
    }
}

/// Whether a key starts with one of these key groups.
fn contains(key_groups: &Range<u16>, key: &[u8]) -> bool {
    key.first_chunk().is_some_and(|group| key_groups.contains(&u16::from_be_bytes(*group)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_belongs_to_its_first_two_bytes() {
        assert!(contains(&(1..2), &[0, 1]) && contains(&(1..2), &[0, 1, 255]));
        assert!(!contains(&(1..2), &[0, 2]) && !contains(&(1..2), &[1]) && !contains(&(0..9), &[]));
    }
}
