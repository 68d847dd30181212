//! (g): what lies in a job's part of the object store, against what its retained checkpoints need.
//!
//! A file that no retained manifest names has leaked; a file that one names and that is not there, or not whole, cannot
//! be restored. Only manifests and state files are looked at: the small notes beside them are kept on purpose.

use super::Findings;
use ef_proto::checkpoint::{Manifest, StateFile, path};
use ef_proto::ids::Epoch;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Epochs of the rows of `efctl get checkpoints -o json` that are retained.
pub fn retained(checkpoints: &[Value]) -> BTreeSet<u64> {
    let retained = checkpoints.iter().filter(|row| row["retained"] == true);
    retained.filter_map(|row| row["epoch"].as_u64()).collect()
}

/// `root` is `<state>/jobs/<job>` as files, and nobody writes to it.
pub fn check(root: &Path, retained: &BTreeSet<u64>, findings: &mut Findings) {
    let mut objects = Vec::new();
    walk(root, &mut objects);
    let name = |path: &PathBuf| path.strip_prefix(root).expect("it was found below").to_string_lossy().into_owned();
    let objects: BTreeSet<String> = objects.iter().map(name).collect();
    let manifests: BTreeSet<u64> = objects.iter().filter_map(|name| path::manifest_epoch(name)).map(|e| e.0).collect();
    for epoch in manifests.difference(retained) {
        findings.add("manifest leaked", path::manifest(Epoch(*epoch)));
    }
    for epoch in retained.difference(&manifests) {
        findings.add("manifest of a retained checkpoint missing", path::manifest(Epoch(*epoch)));
    }
    let mut needed: BTreeMap<String, StateFile> = BTreeMap::new();
    for epoch in manifests.intersection(retained) {
        let name = path::manifest(Epoch(*epoch));
        let read = std::fs::read(root.join(&name)).map_err(|e| e.to_string());
        match read.and_then(|bytes| Manifest::decode(&bytes).map_err(|e| e.message)) {
            Ok(manifest) if manifest.epoch.0 != *epoch => {
                findings.add("manifest of another epoch", format!("{name} is of epoch {}", manifest.epoch));
            }
            Ok(manifest) => needed.extend(manifest.files().map(|file| (file.path.clone(), file.clone()))),
            Err(e) => findings.add("manifest that cannot be read", format!("{name}: {e}")),
        }
    }
    for (name, file) in &needed {
        match std::fs::read(root.join(name)) {
            Err(e) => findings.add("state file unreachable", format!("{name}: {e}")),
            Ok(bytes) if (bytes.len() as u64, crc32fast::hash(&bytes)) != (file.bytes, file.crc32) => {
                findings.add("state file damaged", format!("{name}: {} bytes, {} expected", bytes.len(), file.bytes));
            }
            Ok(_) => {}
        }
    }
    for name in objects.iter().filter(|name| name.starts_with("shared/") && !needed.contains_key(*name)) {
        findings.add("state file leaked", name.clone());
    }
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    // What is listed may be deleted meanwhile.
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { walk(&path, found) } else { found.push(path) }
    }
}
