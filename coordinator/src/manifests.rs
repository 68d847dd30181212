//! A job's checkpoints in the object store: manifests, incarnations, and what may be deleted.
//!
//! All objects are numbered and put create-only; nothing is overwritten, so two writers can disturb each other in no
//! other way than by an error. A manifest that cannot be read is never skipped: it may be the newest checkpoint, and
//! its files may be the ones a collection would delete.

use bytes::Bytes;
use ef_proto::checkpoint::{Manifest, path};
use ef_proto::error::{Code, Error};
use ef_proto::ids::{Epoch, Incarnation, JobId};
use ef_store::{Created, Lock, Root};
use std::fs::File;
use std::path::Path;

mod describe;
mod fit;
pub mod gc;
mod janitor;
pub mod job;
mod recorded;
mod restore;
pub mod savepoint;
#[cfg(test)]
mod tests;

pub use describe::describe;
pub use janitor::Janitor;

type Result<T> = std::result::Result<T, Error>;

/// The root of one job in a store.
#[derive(Debug)]
pub struct Manifests {
    job: JobId,
    root: Root,
    /// Held for as long as this process uses the directory.
    _lock: Option<Lock>,
}

impl Manifests {
    /// Takes `jobs/<job>` of a state directory for this process. What keeps a second one out is the lock in a file
    /// system, and elsewhere the incarnation: see [`Manifests::put`].
    pub fn open(state: &Root, job: JobId) -> Result<Manifests> {
        let root = job_root(state, &job)?;
        let lock = match &root.local {
            None => None,
            Some(local) => {
                let failed = |e| unavailable(format!("cannot use the state directory `{}`", local.display()), e);
                ef_store::create_directory(local).map_err(failed)?;
                Some(lock(&local.join("lock"))?)
            }
        };
        Ok(Manifests { job, root, _lock: lock })
    }

    pub fn job(&self) -> &JobId {
        &self.job
    }

    /// The job's root in the store; paths of state files are below it.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Makes a checkpoint the truth. Once this has returned Ok the manifest is durable. [`Code::Conflict`]: another
    /// process has taken the job over, and nothing that this one does counts any more.
    pub async fn put(&self, manifest: &Manifest) -> Result<()> {
        self.check_not_deposed(manifest.incarnation).await?;
        self.create(&path::manifest(manifest.epoch), manifest.encode()).await?;
        // Once more: a process that claims the next incarnation looks for manifests only then. So what we go on to
        // publish it has found; and what it may have missed, because it came between its look and now, nobody
        // publishes.
        self.check_not_deposed(manifest.incarnation).await
    }

    async fn check_not_deposed(&self, ours: Incarnation) -> Result<()> {
        // Incarnations are numbered without gaps.
        let next = Incarnation(ours.0 + 1);
        if !self.root.exists(&incarnation(next)).await? {
            return Ok(());
        }
        let message = format!("another process runs this job now: incarnation {next} of `{}` is taken", self.job);
        Err(Error::new(Code::Conflict, message))
    }

    /// Epochs of all manifests, ascending. They need not be readable.
    pub async fn list(&self) -> Result<Vec<Epoch>> {
        let mut epochs: Vec<Epoch> =
            self.root.names("chk").await?.iter().filter_map(|name| path::manifest_epoch(name)).collect();
        epochs.sort();
        Ok(epochs)
    }

    /// The manifest of the newest checkpoint, to be called under a claimed incarnation (see [`Manifests::put`]). One
    /// that does not read back is an error that names it.
    pub async fn latest(&self) -> Result<Option<Manifest>> {
        let epochs = self.list().await?;
        if self.root.local.is_some() {
            // Under the lock epochs only go up.
            return match epochs.last() {
                Some(newest) => Ok(Some(self.get(*newest).await?)),
                None => Ok(None),
            };
        }
        // A deposed process may have put one with a high epoch that was never published: the incarnation comes first.
        let mut newest: Option<Manifest> = None;
        for epoch in epochs {
            let manifest = self.get(epoch).await?;
            if newest.as_ref().is_none_or(|m| (m.incarnation, m.epoch) < (manifest.incarnation, manifest.epoch)) {
                newest = Some(manifest);
            }
        }
        Ok(newest)
    }

    pub async fn get(&self, epoch: Epoch) -> Result<Manifest> {
        let name = path::manifest(epoch);
        decode(&self.root.read(&name).await?, epoch, &self.root.show(&name))
    }

    /// The highest epoch that has ever left a trace, failed ones included: new ones start above it.
    pub async fn highest_epoch(&self) -> Result<Option<Epoch>> {
        let completed = self.list().await?.last().copied();
        let tried =
            self.root.names("shared").await?.iter().filter_map(|name| path::state_file_origin(name)).map(|o| o.1).max();
        Ok(completed.max(tried))
    }

    /// Notes that the job has ended with this checkpoint and all that its sinks wrote is published.
    pub async fn finish(&self, epoch: Epoch) -> Result<()> {
        self.create(&finished(epoch), Bytes::new()).await
    }

    /// Whether [`Manifests::finish`] was noted for this checkpoint. A terminal checkpoint without it may not be
    /// published yet.
    pub async fn is_finished(&self, epoch: Epoch) -> Result<bool> {
        self.root.exists(&finished(epoch)).await
    }

    /// Claims the next number for a deployment; nobody else gets the same. `nonce` is this process's own: by it a
    /// claim whose answer was lost is known again.
    pub async fn next_incarnation(&self, nonce: u64) -> Result<Incarnation> {
        let taken = self.root.names("incarnations").await?;
        let highest = taken.iter().filter_map(|name| name.strip_prefix("incarnations/")?.parse::<u64>().ok()).max();
        let mut next = Incarnation(highest.unwrap_or(0) + 1);
        loop {
            let name = incarnation(next);
            match self.root.create(&name, format!("{nonce:016x}").into()).await? {
                Created::Ours => {
                    self.sync(&name)?;
                    return Ok(next);
                }
                Created::Theirs => next.0 += 1, // somebody was quicker
            }
        }
    }

    /// Deletes the manifests of `epochs`, then every state file that is provably of no use any more; returns how
    /// many. `last_completed` is the newest epoch that `incarnation`, the running one, has completed.
    pub async fn retire(&self, epochs: &[Epoch], incarnation: Incarnation, last_completed: Epoch) -> Result<usize> {
        for epoch in epochs.iter().filter(|epoch| **epoch != last_completed) {
            self.delete_manifest(&path::manifest(*epoch)).await?;
        }
        self.delete_half_written_manifests(|epoch| epoch <= last_completed).await?;
        let garbage = self.garbage(incarnation, last_completed).await?;
        for name in &garbage {
            self.root.delete(name).await?;
        }
        Ok(garbage.len())
    }

    /// What [`Manifests::retire`] would sweep now. A manifest that cannot be read stops it.
    async fn garbage(&self, incarnation: Incarnation, last_completed: Epoch) -> Result<Vec<String>> {
        let mut manifests = Vec::new();
        for epoch in self.list().await? {
            match self.get(epoch).await {
                Ok(manifest) => manifests.push(manifest),
                // Retired since it was listed.
                Err(e) if e.code == Code::NotFound => {}
                Err(e) => {
                    let message = format!("nothing is deleted, because references are unknown: {}", e.message);
                    return Err(Error::new(e.code, message));
                }
            }
        }
        Ok(gc::garbage(&manifests, self.state_files().await?, incarnation, last_completed))
    }

    /// With its directory, in which only manifests are; it may be gone already.
    async fn delete_manifest(&self, name: &str) -> Result<()> {
        self.root.delete(name).await?;
        if let Some(local) = &self.root.local {
            // If something else is in it, it stays.
            local.join(name).parent().map(std::fs::remove_dir);
        }
        Ok(())
    }

    /// Of epochs that no put can be under way of.
    async fn delete_half_written_manifests(&self, past: impl Fn(Epoch) -> bool) -> Result<()> {
        for name in self.root.half_written("chk").await? {
            let epoch = name.rsplit_once('#').and_then(|(manifest, _)| path::manifest_epoch(manifest));
            if epoch.is_some_and(&past) {
                self.delete_manifest(&name).await?;
            }
        }
        Ok(())
    }

    /// All that could be garbage: also what an upload has left that was killed, which carries the epoch of its file.
    async fn state_files(&self) -> Result<Vec<String>> {
        let mut files = self.root.names("shared").await?;
        files.extend(self.root.half_written("shared").await?);
        Ok(files)
    }

    /// Create-only put; the same content twice is fine.
    async fn create(&self, name: &str, bytes: impl Into<Bytes>) -> Result<()> {
        match self.root.create(name, bytes.into()).await? {
            Created::Ours => self.sync(name),
            Created::Theirs => {
                let object = self.root.show(name);
                Err(Error::new(
                    Code::Conflict,
                    format!("`{object}` exists already with another content; is another process running this job?"),
                ))
            }
        }
    }

    /// The store's local implementation does not sync: the file, then its directories up to the state directory's.
    fn sync(&self, name: &str) -> Result<()> {
        let Some(local) = &self.root.local else { return Ok(()) };
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

fn job_root(state: &Root, job: &JobId) -> Result<Root> {
    if job.0.is_empty() || job.0.contains(['/', '\\', '#']) || job.0.starts_with('.') {
        return Err(Error::invalid(format!("job id `{job}` is not usable as a directory name")));
    }
    Ok(state.below("jobs").below(&job.0))
}

/// The jobs that have state here, sorted.
pub async fn jobs(state: &Root) -> Result<Vec<JobId>> {
    let names = state.directories("jobs").await?.into_iter();
    // Job ids do not start with a dot; what does is some other program's.
    Ok(names.filter(|name| !name.starts_with('.')).map(JobId).collect())
}

fn finished(epoch: Epoch) -> String {
    format!("finished/{:020}", epoch.0)
}

fn incarnation(number: Incarnation) -> String {
    format!("incarnations/{:020}", number.0)
}

fn lock(path: &Path) -> Result<Lock> {
    let lock = Lock::take(path).map_err(|e| unavailable(format!("cannot lock `{}`", path.display()), e))?;
    lock.ok_or_else(|| {
        let message = format!("another process uses this state directory: `{}` is locked", path.display());
        Error::new(Code::Conflict, message)
    })
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
