//! Savepoints: a completed checkpoint copied to a place of its own, in the layout of a job's root.
//!
//! The order: `savepoint.json` (for people, and the mark of a savepoint) → state files → the manifest. One that has its
//! manifest is complete; a copy that was interrupted is repeated or disposed of. Disposing goes the other way, so that
//! a savepoint that looks complete always is. Whoever copies from a job's root pins the checkpoint meanwhile.

pub use super::fit::{check, mapping};

use super::restore::split;
use super::{Manifests, Result, decode, describe};
use ef_proto::checkpoint::{Manifest, path};
use ef_proto::error::{Code, Error};
use ef_proto::ids::Epoch;
use ef_store::{Location, Options, Patience, Root};
use serde_json::json;
use std::path::Path;

/// What makes a directory a savepoint.
const MARK: &str = "savepoint.json";

/// What a savepoint says of itself to people, besides its state. The same for every repetition of one copy.
#[derive(Clone, Debug)]
pub struct About {
    pub job_name: String,
    pub sql: String,
    pub created_at_ms: u64,
}

/// Copies a checkpoint from its job's root to `to`, a place that nobody else uses; returns how many bytes it has there.
pub async fn copy(from: &Root, manifest: &Manifest, about: &About, to: &Root) -> Result<u64> {
    let place = Manifests { job: manifest.job.clone(), root: to.clone(), _lock: None };
    place.create(MARK, mark(manifest, about)).await?;
    ef_store::copy(from, to, manifest.files()).await?;
    let encoded = manifest.encode();
    let bytes = encoded.len() as u64 + manifest.files().map(|file| file.bytes).sum::<u64>();
    place.create(&path::manifest(manifest.epoch), encoded).await?;
    Ok(bytes)
}

fn mark(manifest: &Manifest, about: &About) -> Vec<u8> {
    let mut state = describe(manifest);
    state.job_name = about.job_name.clone();
    state.path = path::manifest(manifest.epoch);
    let mark = json!({ "created_at_ms": about.created_at_ms, "state": state, "sql": about.sql });
    format!("{mark:#}\n").into_bytes()
}

/// Opens a savepoint or a checkpoint by its directory: of `<path>` it is the newest below `<path>/chk`, or it is the
/// given one of `<path>/chk/<epoch>` and `<path>/chk/<epoch>/manifest`.
pub async fn load(location: &str, options: &Options) -> Result<(Root, Manifest)> {
    let (place, epoch) = match split(location) {
        Some((place, epoch)) => (place, Some(epoch)),
        None => (location, None),
    };
    let missing = |what: &str| {
        Error::new(
            Code::NotFound,
            format!("{what} does not exist; a savepoint's directory, or `…/chk/<epoch>` of a job, is expected"),
        )
    };
    let root = open(place, options)?.ok_or_else(|| missing(&format!("`{place}`")))?;
    let epoch: Epoch = match epoch {
        Some(epoch) => epoch,
        None => {
            let epochs = root.names("chk").await?.into_iter().filter_map(|name| path::manifest_epoch(&name));
            epochs.max().ok_or_else(|| missing(&format!("a checkpoint below `{place}`")))?
        }
    };
    let name = path::manifest(epoch);
    let shown = format!("{}/{name}", place.trim_end_matches('/'));
    let bytes = root.read(&name).await.map_err(|e| match e.code {
        Code::NotFound => missing(&format!("`{shown}`")),
        _ => e,
    })?;
    Ok((root, decode(&bytes, epoch, &shown)?))
}

/// A place that exists; None for a directory that does not, and is not made by looking.
pub fn open(place: &str, options: &Options) -> Result<Option<Root>> {
    let location = Location::parse(place)?;
    if let Location::Directory(directory) = &location
        && !directory.is_dir()
    {
        return Ok(None);
    }
    Root::open(&location, options, Patience::Full).map(Some)
}

/// Deletes a savepoint, or what an interrupted copy or disposal has left of one. Refuses what is not a savepoint, a
/// running job's root above all.
pub async fn dispose(root: &Root) -> Result<()> {
    let names = root.names("").await?;
    let manifests: Vec<&String> = names.iter().filter(|name| path::manifest_epoch(name).is_some()).collect();
    let files = names.iter().filter(|name| path::state_file_origin(name).is_some());
    if !names.iter().any(|name| name == MARK) {
        if manifests.is_empty() {
            return Ok(());
        }
        let place = root.show("");
        return Err(Error::invalid(format!("`{place}` is not a savepoint: it has checkpoints, but no `{MARK}`")));
    }
    for name in manifests.into_iter().chain(files) {
        root.delete(name).await?;
    }
    // Last: as long as it is there, an interrupted disposal can be repeated.
    root.delete(MARK).await?;
    if let Some(local) = &root.local {
        remove_empty(local);
    }
    Ok(())
}

/// Removes a directory and those in it as far as they are empty; what somebody else put there stays.
fn remove_empty(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&entry.path());
        }
    }
    // Fails for one that is not empty, and an empty one that stays harms nobody.
    let _ = std::fs::remove_dir(directory);
}

impl Manifests {
    /// Copies the files of a foreign savepoint into this job's root, so that the job restores from there and reuses
    /// them in its checkpoints. The job's own epochs must then be higher than the savepoint's: its files' names carry
    /// theirs, and must not meet those that came along.
    pub async fn import(&self, root: &Root, manifest: &Manifest) -> Result<()> {
        let canonical = |root: &Root| root.local.as_deref().and_then(|local| std::fs::canonicalize(local).ok());
        let same = canonical(root).is_some_and(|place| canonical(&self.root) == Some(place));
        // Elsewhere than in a file system, files that are there already are recognized by their content.
        if same { Ok(()) } else { ef_store::copy(root, &self.root, manifest.files()).await }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifests::tests::{file, job, manifest, upload};
    use ef_proto::ids::JobId;

    fn about() -> About {
        About { job_name: "pumps".into(), sql: "SELECT 1;\n".into(), created_at_ms: 7 }
    }

    fn directory(path: &Path) -> Root {
        Root::open(&Location::Directory(path.into()), &Options::default(), Patience::Full).expect("usable")
    }

    fn memory() -> Root {
        Root::open(&Location::Memory, &Options::default(), Patience::Full).expect("memory only").below("some/where")
    }

    /// How many of a manifest's files are in a job's root.
    async fn present(manifests: &Manifests, manifest: &Manifest) -> usize {
        let names = manifests.root().names("shared").await.expect("lists");
        manifest.files().filter(|file| names.contains(&file.path)).count()
    }

    /// A job with a checkpoint of files of two epochs.
    async fn checkpoint(state: &Root) -> (Manifests, Manifest) {
        let manifests = Manifests::open_shared(state, job()).expect("opens");
        let files = [file(1, 3, "a.sst"), file(1, 4, "b.sst")];
        for file in &files {
            upload(&manifests, file).await;
        }
        upload(&manifests, &file(1, 4, "not-in-it")).await;
        let manifest = manifest(4, 1, files);
        manifests.put_recorded(&manifest).await.expect("puts");
        (manifests, manifest)
    }

    #[tokio::test]
    async fn savepoint_is_restored_in_another_root_after_its_job_is_gone() {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let place = scratch.path().join("savepoints/savepoint-main-1");
        for state in [memory(), directory(&scratch.path().join("state"))] {
            let (manifests, manifest) = checkpoint(&state).await;
            let to = directory(&place);
            let bytes = copy(manifests.root(), &manifest, &about(), &to).await.expect("copies");
            assert_eq!(bytes, 6 + manifest.encode().len() as u64);
            assert_eq!(copy(manifests.root(), &manifest, &about(), &to).await, Ok(bytes), "the same again");
            for name in manifests.root().names("").await.expect("lists") {
                manifests.root().delete(&name).await.expect("deletes");
            }
            let place = place.to_str().expect("utf-8");
            let epoch = format!("{place}/chk/00000000000000000004");
            for given in [place, &format!("{place}/"), &format!("file://{place}"), &epoch, &format!("{epoch}/manifest")]
            {
                let (root, loaded) = load(given, &Options::default()).await.expect(given);
                assert_eq!(loaded, manifest);
                let other = Manifests::open_shared(&memory(), JobId("other".into())).expect("opens");
                assert_eq!(present(&other, &loaded).await, 0);
                other.import(&root, &loaded).await.expect("imports");
                other.import(&root, &loaded).await.expect("the same again");
                assert_eq!(present(&other, &loaded).await, 2);
            }
            let text = String::from_utf8(to.read(MARK).await.expect("is there").to_vec()).expect("utf-8");
            let json: serde_json::Value = serde_json::from_str(&text).expect("json");
            assert_eq!((&json["state"]["job_name"], &json["sql"]), (&json!("pumps"), &json!("SELECT 1;\n")));
            dispose(&to).await.expect("disposes");
        }
    }

    #[tokio::test]
    async fn interrupted_copy_is_not_a_savepoint_and_is_completed_or_disposed_of() {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let (manifests, manifest) = checkpoint(&memory()).await;
        let lost = manifest.files().nth(1).expect("two files").clone();
        manifests.root().delete(&lost.path).await.expect("deletes");
        for name in ["one", "two"] {
            let place = scratch.path().join(name);
            let to = directory(&place);
            let error = copy(manifests.root(), &manifest, &about(), &to).await.expect_err("a file is missing");
            assert!(error.message.contains(&lost.path), "{error}");
            let given = place.to_str().expect("utf-8");
            assert_eq!(load(given, &Options::default()).await.expect_err("incomplete").code, Code::NotFound);
            if name == "two" {
                upload(&manifests, &lost).await;
                copy(manifests.root(), &manifest, &about(), &to).await.expect("it is there again");
                assert!(load(given, &Options::default()).await.is_ok());
            }
            dispose(&to).await.expect("disposes");
            assert!(!place.exists(), "nothing is left");
            assert_eq!(load(given, &Options::default()).await.expect_err("gone").code, Code::NotFound);
            assert!(!place.exists(), "looking makes no directory");
        }
    }

    #[tokio::test]
    async fn only_savepoints_are_disposed_of_and_only_what_is_theirs() {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let (manifests, manifest) = checkpoint(&directory(&scratch.path().join("state"))).await;
        let before = present(&manifests, &manifest).await;
        let error = dispose(manifests.root()).await.expect_err("it is a job's root");
        assert!(error.code == Code::Invalid && error.message.contains(MARK), "{error}");
        assert_eq!((before, present(&manifests, &manifest).await), (2, 2));
        assert_eq!(manifests.list().await, Ok(vec![manifest.epoch]));
        let to = memory();
        copy(manifests.root(), &manifest, &about(), &to).await.expect("copies");
        to.create("notes.txt", "mine".into()).await.expect("creates");
        dispose(&to).await.expect("disposes");
        assert_eq!(to.names("").await, Ok(vec!["notes.txt".into()]));
        dispose(&to).await.expect("again");
    }

    #[tokio::test]
    async fn damage_is_found_when_a_savepoint_is_imported() {
        let (manifests, manifest) = checkpoint(&memory()).await;
        let to = memory();
        copy(manifests.root(), &manifest, &about(), &to).await.expect("copies");
        let damaged = manifest.files().next().expect("two files").path.clone();
        to.delete(&damaged).await.expect("deletes");
        to.create(&damaged, "xxx".into()).await.expect("creates");
        let other = Manifests::open_shared(&memory(), JobId("other".into())).expect("opens");
        let error = other.import(&to, &manifest).await.expect_err("damaged");
        assert!(error.code == Code::Corrupt && error.message.contains(&damaged), "{error}");
    }
}
