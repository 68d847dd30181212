//! A job's checkpoints in a cluster, where the replicated log says which of them exist: a manifest counts once it is
//! recorded there, and what is retired there may be deleted here. Many processes may look at one root; none locks it.
//!
//! Obligations of whoever leads: epochs are given out by the log and are never reused; a manifest is put before it is
//! recorded; a retirement is recorded before its sweep. With these a deposed leader can neither replace a manifest nor
//! delete what the new one needs.

use super::gc::{self, Garbage};
use super::{Manifests, Result, job_root};
use ef_proto::checkpoint::{Manifest, path};
use ef_proto::error::{Code, Error};
use ef_proto::ids::{Epoch, JobId};
use ef_store::Root;

impl Manifests {
    /// `jobs/<job>` of a state directory, for a process that does not have it to itself.
    pub fn open_shared(state: &Root, job: JobId) -> Result<Manifests> {
        let root = job_root(state, &job)?;
        if let Some(local) = &root.local {
            ef_store::create_directory(local).map_err(|e| {
                let message = format!("cannot use the state directory `{}`: {e}", local.display());
                Error::new(Code::Unavailable, message)
            })?;
        }
        Ok(Manifests { job, root, _lock: None })
    }

    /// Writes the manifest of a checkpoint that is then recorded in the log. Once this has returned Ok it is durable.
    /// The same again is fine; [`Code::Conflict`]: the epoch has another one.
    pub async fn put_recorded(&self, manifest: &Manifest) -> Result<()> {
        self.create(&path::manifest(manifest.epoch), manifest.encode()).await
    }

    /// Deletes what [`gc::sweep`] finds useless, manifests first, and returns it. A sweep that was interrupted is
    /// completed by the next.
    pub async fn sweep(&self, retained: &[Manifest], last_completed: Option<Epoch>) -> Result<Garbage> {
        let on_disk = self.list().await?;
        let objects = self.state_files().await?;
        let garbage = gc::sweep(retained, objects, on_disk, last_completed);
        for epoch in &garbage.manifests {
            self.delete_manifest(&path::manifest(*epoch)).await?;
        }
        self.delete_half_written_manifests(|epoch| last_completed.is_none_or(|last| epoch <= last)).await?;
        for file in &garbage.files {
            self.root.delete(file).await?;
        }
        Ok(garbage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifests::tests::{file, job, manifest, upload};
    use ef_proto::ids::Incarnation;
    use ef_store::{Location, Options, Patience};

    async fn state(location: &Location) -> Root {
        Root::open(location, &Options::default(), Patience::Full).expect("usable")
    }

    #[tokio::test]
    async fn leaders_share_a_root_and_the_first_content_of_an_epoch_stays() {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        for location in [Location::Memory, Location::Directory(scratch.path().into())] {
            let state = state(&location).await;
            let [old, new] = [(); 2].map(|()| Manifests::open_shared(&state, job()).expect("no lock"));
            old.put_recorded(&manifest(1, 1, [])).await.expect("puts");
            new.put_recorded(&manifest(1, 1, [])).await.expect("the same again");
            let error = new.put_recorded(&manifest(1, 2, [])).await.expect_err("another content");
            assert_eq!(error.code, Code::Conflict);
            // A claimed incarnation, which stops `put`, means nothing here.
            old.next_incarnation(1).await.expect("claims");
            new.next_incarnation(2).await.expect("claims");
            old.put_recorded(&manifest(2, 1, [])).await.expect("the log decides");
            assert_eq!(new.get(Epoch(2)).await, Ok(manifest(2, 1, [])));
        }
        assert_eq!(
            Manifests::open_shared(&state(&Location::Memory).await, JobId("a/b".into())).err().map(|e| e.code),
            Some(Code::Invalid)
        );
    }

    #[tokio::test]
    async fn sweep_deletes_what_the_log_does_not_retain_and_returns_it() {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let state = state(&Location::Directory(scratch.path().into())).await;
        let manifests = Manifests::open_shared(&state, job()).expect("no lock");
        let files = [1, 2, 3, 4].map(|epoch| file(1, epoch, "a.sst"));
        for file in &files {
            upload(&manifests, file).await;
        }
        let second = manifest(2, 1, [files[0].clone()]);
        let third = manifest(3, 1, [files[0].clone(), files[2].clone()]);
        for manifest in [&manifest(1, 1, []), &second, &third, &manifest(4, 1, [])] {
            manifests.put_recorded(manifest).await.expect("puts");
        }
        let gone = manifests.sweep(std::slice::from_ref(&third), Some(Epoch(3))).await.expect("sweeps");
        assert_eq!(gone, Garbage { manifests: vec![Epoch(1), Epoch(2)], files: vec![files[1].path.clone()] });
        assert_eq!(manifests.list().await, Ok(vec![Epoch(3), Epoch(4)]), "4 may be about to be recorded");
        assert!(!scratch.path().join("jobs/main/chk/00000000000000000001").exists());
        assert_eq!(manifests.sweep(&[third], Some(Epoch(3))).await, Ok(Garbage::default()));
    }

    #[tokio::test]
    async fn what_a_killed_put_has_left_goes_once_no_put_of_its_epoch_can_be_under_way() {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let state = state(&Location::Directory(scratch.path().into())).await;
        let manifests = Manifests::open_shared(&state, job()).expect("no lock");
        let root = scratch.path().join("jobs/main");
        let newest = manifest(3, 1, []);
        manifests.put_recorded(&newest).await.expect("puts");
        let left = [2, 3, 4].map(|epoch| [file(1, epoch, "a.sst").path + "#1", path::manifest(Epoch(epoch)) + "#12"]);
        for path in left.iter().flatten().map(|path| root.join(path)) {
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("writable");
            std::fs::write(path, "hal").expect("writable");
        }
        let there = || left.each_ref().map(|paths| paths.each_ref().map(|path| root.join(path).exists()));
        let gone = manifests.sweep(std::slice::from_ref(&newest), Some(Epoch(3))).await.expect("sweeps");
        assert_eq!(gone.files.len(), 2, "{gone:?}");
        assert_eq!(there(), [[false; 2], [false; 2], [true; 2]], "of 4 a put may be under way");
        assert!(!root.join("chk/00000000000000000002").exists());
        // Of a job that has ended nothing is.
        manifests.sweep(std::slice::from_ref(&newest), None).await.expect("sweeps");
        assert_eq!(there(), [[false; 2]; 3]);
        assert_eq!(manifests.get(Epoch(3)).await, Ok(newest));
        // A lone job does the same.
        std::fs::create_dir_all(root.join(&left[0][0]).parent().expect("it has one")).expect("writable");
        std::fs::write(root.join(&left[0][0]), "hal").expect("writable");
        assert_eq!(manifests.retire(&[], Incarnation(1), Epoch(3)).await, Ok(1));
        assert_eq!(there(), [[false; 2]; 3]);
    }
}
