//! A checkpoint that the user names by its path or URL, of this job's root or of another one.

use super::{Manifests, Result, decode};
use ef_proto::checkpoint::{Manifest, StateFile, path};
use ef_proto::error::{Code, Error};
use ef_proto::ids::Epoch;
use ef_store::{Location, Options, Patience, Root};
use std::path::Path;

impl Manifests {
    /// Loads `.../chk/<epoch>` or `.../chk/<epoch>/manifest` of a directory or an object store. Files of another root
    /// are copied into this one, so that later checkpoints may reuse them. `state` is where this job's own root lies.
    pub async fn load(&self, location: &str, state: &Location, options: &Options) -> Result<Manifest> {
        let (given, epoch) = split(location).ok_or_else(|| {
            Error::invalid(format!(
                "`{location}` is not a checkpoint; a path like `.../chk/00000000000000000042` is expected"
            ))
        })?;
        let given = Location::parse(given)?;
        let missing = |shown: &str| Error::new(Code::NotFound, format!("`{shown}` does not exist"));
        if let Location::Directory(directory) = &given
            && !directory.is_dir()
        {
            return Err(missing(location));
        }
        let root = Root::open(&given, options, Patience::Full)?;
        let shown = format!("{given}/{}", path::manifest(epoch));
        let bytes = root.read(&path::manifest(epoch)).await.map_err(|e| match e.code {
            Code::NotFound => missing(&shown),
            _ => e,
        })?;
        let manifest = decode(&bytes, epoch, &shown)?;
        if !self.is_at(&given, state) {
            for file in manifest.files() {
                self.copy_from(&root, file).await?;
            }
        }
        Ok(manifest)
    }

    /// Whether `place` is this job's root.
    fn is_at(&self, place: &Location, state: &Location) -> bool {
        let canonical = |path: &Path| std::fs::canonicalize(path).ok();
        match (place, state) {
            (Location::Directory(place), _) => self.root.local.as_deref().and_then(canonical) == canonical(place),
            (Location::Remote(place), Location::Remote(state)) => {
                place.bucket == state.bucket && place.prefix == self.root.prefix
            }
            _ => false,
        }
    }

    async fn copy_from(&self, root: &Root, file: &StateFile) -> Result<()> {
        // What the manifest names is not trusted to stay below its root.
        if path::state_file_origin(&file.path).is_none() || file.path.split('/').any(|part| part == "..") {
            return Err(Error::corrupt(format!("the checkpoint names a file `{}` outside its root", file.path)));
        }
        let bytes = root.read(&file.path).await?;
        if bytes.len() as u64 != file.bytes || crc32fast::hash(&bytes) != file.crc32 {
            return Err(Error::corrupt(format!(
                "state file `{}` is damaged: its length or crc32 does not match",
                root.show(&file.path)
            )));
        }
        self.create(&file.path, bytes).await
    }
}

/// The root of a checkpoint's job, and its epoch.
pub(super) fn split(location: &str) -> Option<(&str, Epoch)> {
    let directory = location.trim_end_matches('/');
    let directory = directory.strip_suffix("/manifest").unwrap_or(directory);
    let (chk, digits) = directory.rsplit_once('/')?;
    let epoch = path::manifest_epoch(&format!("chk/{digits}/manifest"))?;
    match chk.strip_suffix("chk")? {
        "" => Some((".", epoch)),
        root => Some((root.strip_suffix('/')?, epoch)),
    }
}
