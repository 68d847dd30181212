//! A checkpoint that the user names by its path, of this job's root or of another one.

use super::{Location, Manifests, Result, decode, unavailable};
use ef_proto::checkpoint::{Manifest, StateFile, path};
use ef_proto::error::Error;
use std::path::{Path, PathBuf};

impl Manifests {
    /// Loads `.../chk/<epoch>` or `.../chk/<epoch>/manifest`, a local path or `file://`. Files of another root are
    /// copied into this one, so that later checkpoints may reuse them.
    pub async fn load(&self, location: &str) -> Result<Manifest> {
        let Location::Directory(given) = Location::parse(location)? else {
            return Err(Error::invalid("a checkpoint in memory cannot be named by a path"));
        };
        let (root, epoch) = split(&given).ok_or_else(|| {
            Error::invalid(format!(
                "`{location}` is not a checkpoint; a path like `.../chk/00000000000000000042` is expected"
            ))
        })?;
        let manifest_path = root.join(path::manifest(epoch));
        let shown = manifest_path.display().to_string();
        let bytes = std::fs::read(&manifest_path).map_err(|e| unavailable(format!("cannot read `{shown}`"), e))?;
        let manifest = decode(&bytes, epoch, &shown)?;
        let canonical = |path: &Path| std::fs::canonicalize(path).ok();
        if self.local.as_deref().and_then(canonical) != canonical(&root) {
            for file in manifest.files() {
                self.copy_from(&root, file).await?;
            }
        }
        Ok(manifest)
    }

    async fn copy_from(&self, root: &Path, file: &StateFile) -> Result<()> {
        let local = root.join(&file.path);
        // What the manifest names is not trusted to stay below its root.
        if path::state_file_origin(&file.path).is_none() || file.path.split('/').any(|part| part == "..") {
            return Err(Error::corrupt(format!("the checkpoint names a file `{}` outside its root", file.path)));
        }
        let bytes = std::fs::read(&local).map_err(|e| unavailable(format!("cannot read `{}`", local.display()), e))?;
        if bytes.len() as u64 != file.bytes || crc32fast::hash(&bytes) != file.crc32 {
            return Err(Error::corrupt(format!(
                "state file `{}` is damaged: its length or crc32 does not match",
                local.display()
            )));
        }
        self.create(&file.path, bytes).await
    }
}

fn split(given: &Path) -> Option<(PathBuf, ef_proto::ids::Epoch)> {
    let directory = if given.file_name()? == "manifest" { given.parent()? } else { given };
    let digits = directory.file_name()?.to_str()?;
    let chk = directory.parent()?;
    let epoch = path::manifest_epoch(&format!("chk/{digits}/manifest"))?;
    let root = chk.parent()?;
    (chk.file_name()? == "chk").then(|| (if root.as_os_str().is_empty() { ".".into() } else { root.to_owned() }, epoch))
}
