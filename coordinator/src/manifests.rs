//! A job's checkpoints in the object store: manifests, incarnations, and what may be deleted.
//!
//! All objects are numbered and put create-only; nothing is overwritten, so two writers can disturb each other in no
//! other way than by an error. A manifest that cannot be read is never skipped: it may be the newest checkpoint, and
//! its files may be the ones a collection would delete.

use bytes::Bytes;
use ef_proto::checkpoint::{Manifest, path};
use ef_proto::error::{Code, Error};
use ef_proto::ids::{Epoch, Incarnation, JobId};
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, path::Path as ObjectPath};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub mod gc;
pub mod job;
mod restore;
#[cfg(test)]
mod tests;

type Result<T> = std::result::Result<T, Error>;

/// The root of one job in a store.
#[derive(Debug)]
pub struct Manifests {
    job: JobId,
    store: Arc<dyn ObjectStore>,
    prefix: ObjectPath,
    local: Option<PathBuf>,
    /// Held for as long as this process uses the directory.
    _lock: Option<File>,
}

impl Manifests {
    /// Opens `<where>/jobs/<job>` and makes sure that the store can be relied on. `location` is a directory,
    /// `file:///directory` or, for tests, `memory://`.
    pub async fn open(location: &str, job: JobId) -> Result<Manifests> {
        if job.0.is_empty() || job.0.contains(['/', '\\', '#']) || job.0.starts_with('.') {
            return Err(Error::invalid(format!("job id `{job}` is not usable as a directory name")));
        }
        let prefix = ObjectPath::from("jobs").join(job.0.as_str());
        let manifests = match Location::parse(location)? {
            Location::Memory => Manifests { job, store: Arc::new(InMemory::new()), prefix, local: None, _lock: None },
            Location::Directory(directory) => {
                let local = directory.join("jobs").join(&job.0);
                let failed = |e| unavailable(format!("cannot use the state directory `{}`", directory.display()), e);
                std::fs::create_dir_all(&local).map_err(failed)?;
                let lock = lock(&local.join("lock"))?;
                let store = LocalFileSystem::new_with_prefix(&directory)
                    .map_err(|e| unavailable(format!("cannot use the state directory `{}`", directory.display()), e))?;
                Manifests { job, store: Arc::new(store), prefix, local: Some(local), _lock: Some(lock) }
            }
        };
        manifests.probe(location).await?;
        Ok(manifests)
    }

    pub fn job(&self) -> &JobId {
        &self.job
    }

    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// The job's root in the store; paths of state files are below it.
    pub fn prefix(&self) -> &ObjectPath {
        &self.prefix
    }

    /// The job's root in the file system, if that is where the store lies.
    pub fn local(&self) -> Option<&Path> {
        self.local.as_deref()
    }

    /// Makes a checkpoint the truth. Once this has returned Ok the manifest is durable.
    pub async fn put(&self, manifest: &Manifest) -> Result<()> {
        self.create(&path::manifest(manifest.epoch), manifest.encode()).await
    }

    /// Epochs of all manifests, ascending. They need not be readable.
    pub async fn list(&self) -> Result<Vec<Epoch>> {
        let mut epochs: Vec<Epoch> =
            self.names("chk").await?.iter().filter_map(|name| path::manifest_epoch(name)).collect();
        epochs.sort();
        Ok(epochs)
    }

    /// The manifest of the newest checkpoint. One that does not read back is an error that names it.
    pub async fn latest(&self) -> Result<Option<Manifest>> {
        match self.list().await?.last() {
            Some(newest) => Ok(Some(self.get(*newest).await?)),
            None => Ok(None),
        }
    }

    pub async fn get(&self, epoch: Epoch) -> Result<Manifest> {
        let name = path::manifest(epoch);
        let object = self.object(&name);
        let bytes = self.read(&name).await?;
        let shown = self.local.as_ref().map_or(object.to_string(), |local| local.join(&name).display().to_string());
        decode(&bytes, epoch, &shown)
    }

    /// The highest epoch that has ever left a trace, failed ones included: new ones start above it.
    pub async fn highest_epoch(&self) -> Result<Option<Epoch>> {
        let completed = self.list().await?.last().copied();
        let tried =
            self.names("shared").await?.iter().filter_map(|name| path::state_file_origin(name)).map(|o| o.1).max();
        Ok(completed.max(tried))
    }

    /// Claims the next number for a deployment; nobody else gets the same.
    pub async fn next_incarnation(&self) -> Result<Incarnation> {
        let taken = self.names("incarnations").await?;
        let highest = taken.iter().filter_map(|name| name.strip_prefix("incarnations/")?.parse::<u64>().ok()).max();
        let mut next = highest.unwrap_or(0) + 1;
        loop {
            let name = format!("incarnations/{next:020}");
            if self.try_create(&name, Bytes::new()).await? {
                self.sync(&name)?;
                return Ok(Incarnation(next));
            }
            next += 1; // somebody was quicker
        }
    }

    /// Deletes the manifests of `epochs`, then every state file that is provably of no use any more; returns how
    /// many. `last_completed` is the newest epoch that `incarnation`, the running one, has completed.
    pub async fn retire(&self, epochs: &[Epoch], incarnation: Incarnation, last_completed: Epoch) -> Result<usize> {
        for epoch in epochs.iter().filter(|epoch| **epoch != last_completed) {
            let name = path::manifest(*epoch);
            self.delete(&name).await?;
            if let Some(local) = &self.local {
                // Only manifests are in there, and only this process writes them. It may be gone already.
                local.join(&name).parent().map(std::fs::remove_dir);
            }
        }
        let garbage = self.garbage(incarnation, last_completed).await?;
        for name in &garbage {
            self.delete(name).await?;
        }
        Ok(garbage.len())
    }

    /// What [`Manifests::retire`] would sweep now. A manifest that cannot be read stops it.
    async fn garbage(&self, incarnation: Incarnation, last_completed: Epoch) -> Result<Vec<String>> {
        let mut manifests = Vec::new();
        for epoch in self.list().await? {
            manifests.push(self.get(epoch).await.map_err(|e| {
                Error::new(e.code, format!("nothing is deleted, because references are unknown: {}", e.message))
            })?);
        }
        Ok(gc::garbage(&manifests, self.names("shared").await?, incarnation, last_completed))
    }

    /// Create-only put; the same content twice is fine.
    async fn create(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        let bytes = Bytes::from(bytes);
        if !self.try_create(name, bytes.clone()).await? && self.read(name).await? != bytes {
            let object = self.object(name);
            return Err(Error::new(
                Code::Conflict,
                format!("`{object}` exists already with another content; is another process running this job?"),
            ));
        }
        self.sync(name)
    }

    /// False if the object exists.
    async fn try_create(&self, name: &str, bytes: Bytes) -> Result<bool> {
        let object = self.object(name);
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&object, PutPayload::from(bytes), options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(e) => Err(unavailable(format!("cannot write `{object}`"), e)),
        }
    }

    async fn read(&self, name: &str) -> Result<Bytes> {
        let object = self.object(name);
        let failed = |e| match e {
            object_store::Error::NotFound { .. } => Error::new(Code::NotFound, format!("`{object}` does not exist")),
            e => unavailable(format!("cannot read `{object}`"), e),
        };
        self.store.get(&object).await.map_err(failed)?.bytes().await.map_err(failed)
    }

    async fn delete(&self, name: &str) -> Result<()> {
        let object = self.object(name);
        match self.store.delete(&object).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(unavailable(format!("cannot delete `{object}`"), e)),
        }
    }

    /// Names below the job's root, of all objects in `directory`.
    async fn names(&self, directory: &str) -> Result<Vec<String>> {
        let below = self.object(directory);
        let cut = self.prefix.as_ref().len() + 1;
        let objects = self.store.list(Some(&below)).map_ok(|object| object.location.as_ref()[cut..].to_owned());
        objects.try_collect().await.map_err(|e| unavailable(format!("cannot list `{below}`"), e))
    }

    fn object(&self, name: &str) -> ObjectPath {
        name.split('/').fold(self.prefix.clone(), |object, part| object.join(part))
    }

    /// A store that ignores the create-only condition would let two processes write one checkpoint.
    async fn probe(&self, location: &str) -> Result<()> {
        self.try_create("probe", Bytes::new()).await?; // left by a crash: just as good
        let enforced = !self.try_create("probe", Bytes::new()).await?;
        self.delete("probe").await?;
        if enforced {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "the store `{location}` overwrites objects although told to create them; it is not safe for checkpoints"
        )))
    }

    /// The store's local implementation does not sync: the file, then its directories up to the state directory's.
    fn sync(&self, name: &str) -> Result<()> {
        let Some(local) = &self.local else { return Ok(()) };
        let file = local.join(name);
        // `jobs/<job>`, `jobs` and the state directory itself may be new as well.
        let top = local.ancestors().nth(2).unwrap_or(local);
        for path in file.ancestors().take_while(|path| path.starts_with(top)) {
            File::open(path)
                .and_then(|file| file.sync_all())
                .map_err(|e| unavailable(format!("cannot sync `{}` to disk", path.display()), e))?;
        }
        Ok(())
    }
}

enum Location {
    Memory,
    Directory(PathBuf),
}

impl Location {
    fn parse(location: &str) -> Result<Location> {
        match location.split_once("://") {
            None if location.is_empty() => Err(Error::invalid("the state directory is empty; a path is expected")),
            None => Ok(Location::Directory(location.into())),
            Some(("file", path)) if path.starts_with('/') => Ok(Location::Directory(path.into())),
            Some(("file", _)) => {
                Err(Error::invalid(format!("`{location}` is not usable; `file:///absolute/path` is expected")))
            }
            Some(("memory", _)) => Ok(Location::Memory),
            Some((scheme, _)) => Err(Error::invalid(format!(
                "the state store `{scheme}://` is not part of this build; a directory or `file:///absolute/path` is accepted"
            ))),
        }
    }
}

fn lock(path: &Path) -> Result<File> {
    let failed = |e| unavailable(format!("cannot lock `{}`", path.display()), e);
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::new(
            Code::Conflict,
            format!("another process uses this state directory: `{}` is locked", path.display()),
        )),
        Err(TryLockError::Error(e)) => Err(failed(e)),
    }
}

fn decode(bytes: &[u8], epoch: Epoch, shown: &str) -> Result<Manifest> {
    let hint = "remove it to go on from an older checkpoint, or restore one by its path";
    let manifest = Manifest::decode(bytes)
        .map_err(|e| Error::corrupt(format!("manifest `{shown}` is damaged: {}; {hint}", e.message)))?;
    if manifest.epoch != epoch {
        let found = manifest.epoch;
        return Err(Error::corrupt(format!("manifest `{shown}` is of epoch {found} instead of {epoch}; {hint}")));
    }
    Ok(manifest)
}

fn unavailable(what: String, e: impl std::fmt::Display) -> Error {
    Error::new(Code::Unavailable, format!("{what}: {e}"))
}
