//! Moves snapshots into the object store and back: create-only puts, a crc32 and a length for every object.
//!
//! An object is never overwritten and never deleted here; what a failed checkpoint leaves behind, the leader's garbage
//! collection finds by its name. After `upload` has returned, the objects survive a power cut.

use super::{Content, Restored, Staged, StagedFile, durable, tempdir};
use crate::error::{Code, Context, Error, Result};
use bytes::Bytes;
use ef_proto::checkpoint::{StateFile, SubtaskState, path};
use ef_proto::ids::{Epoch, Incarnation, OperatorId};
use ef_store::{Created, Root, describe};
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

#[cfg(test)]
mod tests;

/// Files in flight at once; each is at most 64 MiB in memory.
const PARALLEL: usize = 4;

/// Who uploads for which checkpoint; becomes part of the objects' paths.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    pub operator: OperatorId,
    pub subtask: u32,
    pub incarnation: Incarnation,
    pub epoch: Epoch,
}

/// Uploads what is new of `staged`. The caller adds the operator's blob to the state returned, and tells the store.
pub async fn upload(root: &Root, staged: Staged, origin: Origin) -> Result<SubtaskState> {
    let Staged { db_uid, layout, key_groups, files, directory, .. } = staged;
    let uploads = files.into_iter().map(|file| upload_one(root, file, &db_uid, origin));
    let done: Vec<(StateFile, bool)> = futures::stream::iter(uploads).buffered(PARALLEL).try_collect().await?;
    if let Some(local) = root.local.clone() {
        let new: Vec<PathBuf> = done.iter().filter(|(_, new)| *new).map(|(file, _)| local.join(&file.path)).collect();
        if !new.is_empty() {
            blocking(move || durable::sync(&local, &new)).await?;
        }
    }
    drop(directory); // only now: the files were read from there
    let keyed = done.into_iter().map(|(file, _)| file).collect();
    Ok(SubtaskState { index: origin.subtask, key_groups, layout, keyed, ..SubtaskState::default() })
}

/// The object of a file, and whether it is new.
async fn upload_one(root: &Root, file: StagedFile, db_uid: &str, origin: Origin) -> Result<(StateFile, bool)> {
    let StagedFile { name, content } = file;
    let path = path::state_file(origin.operator, origin.subtask, db_uid, origin.incarnation, origin.epoch, &name);
    let bytes = match content {
        Content::Reused(file) => return Ok((file, false)),
        Content::Bytes(bytes) => bytes,
        Content::File(source) => {
            if let Some(local) = &root.local {
                let target = local.join(&path);
                let from = source.clone();
                if let Some((bytes, crc32)) = blocking(move || link(&from, &target)).await? {
                    return Ok((StateFile { path, name, bytes, crc32 }, true));
                }
            }
            let read = move || std::fs::read(&source).unavailable(|| format!("cannot read `{}`", source.display()));
            Bytes::from(blocking(read).await?)
        }
    };
    let file = StateFile { path, name, bytes: bytes.len() as u64, crc32: crc32fast::hash(&bytes) };
    put(root, &file, bytes).await?;
    Ok((file, true))
}

async fn put(root: &Root, file: &StateFile, bytes: Bytes) -> Result<()> {
    match root.create(&file.path, bytes).await? {
        Created::Ours => Ok(()),
        Created::Theirs => {
            let object = root.object(&file.path);
            Err(Error::new(Code::Conflict, format!("object `{object}` exists already with another content")))
        }
    }
}

/// Makes `target` the same file as `from`: create-only like a put, without a copy. None where the file system does not
/// link there.
fn link(from: &Path, target: &Path) -> Result<Option<(u64, u32)>> {
    let failed = || format!("cannot write `{}`", target.display());
    if let Some(directory) = target.parent() {
        std::fs::create_dir_all(directory).unavailable(failed)?;
    }
    // MANIFEST is appended to by a running RocksDB; in a snapshot it is a copy already, like every file but the SSTs.
    match std::fs::hard_link(from, target) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            let (ours, theirs) = (checksum(from)?, checksum(target)?);
            if ours != theirs {
                let message = format!("`{}` exists already with another content", target.display());
                return Err(Error::new(Code::Conflict, message));
            }
        }
        Err(_) => return Ok(None), // another file system, or one without links: the put says what is wrong, if it is
    }
    checksum(from).map(Some)
}

/// Length and crc32 of a file.
fn checksum(path: &Path) -> Result<(u64, u32)> {
    let failed = || format!("cannot read `{}`", path.display());
    let mut file = File::open(path).unavailable(failed)?;
    let (mut crc, mut length, mut buffer) = (crc32fast::Hasher::new(), 0, vec![0; 256 << 10]);
    loop {
        match file.read(&mut buffer).unavailable(failed)? {
            0 => return Ok((length, crc.finalize())),
            read => {
                crc.update(&buffer[..read]);
                length += read as u64;
            }
        }
    }
}

/// Downloads a subtask's keyed files into `directory`, which is created.
pub async fn download(root: &Root, state: SubtaskState, directory: PathBuf) -> Result<Restored> {
    std::fs::create_dir_all(&directory).unavailable(|| format!("cannot create `{}`", directory.display()))?;
    let directory = tempdir::Owned::new(directory);
    for file in &state.keyed {
        let plain = !file.name.is_empty() && !file.name.contains(['/', '\\']) && !file.name.starts_with('.');
        if !plain {
            return Err(Error::corrupt(format!(
                "the checkpoint names a state file `{}`; a plain name is expected",
                file.name
            )));
        }
    }
    // Each download owns what it needs: a stream of borrowing futures is not known to be Send.
    let downloads = state.keyed.clone().into_iter().map(|file| {
        let (root, target) = (root.clone(), directory.path().join(&file.name));
        async move {
            // Immutable under its name, and RocksDB only ever drops its own name of it.
            if let Some(local) = root.local.clone()
                && file.name.ends_with(".sst")
            {
                let (from, to, file) = (local.join(&file.path), target.clone(), file.clone());
                if blocking(move || linked(&from, &to, &file)).await? {
                    return Ok(());
                }
            }
            let mut out = File::create(&target).unavailable(|| format!("cannot create `{}`", target.display()))?;
            get(&root, &file, &mut out).await
        }
    });
    futures::stream::iter(downloads).buffer_unordered(PARALLEL).try_collect::<()>().await?;
    Ok(Restored { state, directory })
}

/// Makes `to` the same file as the object `from`, and checks it. False where there is no link to be had.
fn linked(from: &Path, to: &Path, file: &StateFile) -> Result<bool> {
    if std::fs::hard_link(from, to).is_err() {
        return Ok(false); // the copy says what is wrong, if it is
    }
    let (length, crc32) = checksum(to)?;
    check(&from.display().to_string(), file, length, crc32).map(|()| true)
}

fn check(object: &str, file: &StateFile, length: u64, crc32: u32) -> Result<()> {
    let StateFile { bytes, crc32: expected, .. } = file;
    if length != *bytes {
        return Err(Error::corrupt(format!("state object `{object}` has {length} bytes instead of {bytes}")));
    }
    if crc32 != *expected {
        let message = format!("state object `{object}` is damaged: its crc32 is {crc32:08x} instead of {expected:08x}");
        return Err(Error::corrupt(message));
    }
    Ok(())
}

/// Reads an object and checks it. The writes are short and to a local disk: not worth a thread of their own.
async fn get(root: &Root, file: &StateFile, out: &mut (impl Write + Send)) -> Result<()> {
    let object = root.object(&file.path);
    let answer = root.store.get(&object).await.map_err(|e| match e {
        object_store::Error::NotFound { .. } => Error::corrupt(format!("state object `{object}` is missing")),
        e => Error::new(Code::Unavailable, format!("cannot read state object `{object}`: {}", describe(&e))),
    })?;
    let (mut crc, mut length) = (crc32fast::Hasher::new(), 0u64);
    let mut chunks = answer.into_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|e| describe(&e)).unavailable(|| format!("cannot read state object `{object}`"))?;
        crc.update(&chunk);
        length += chunk.len() as u64;
        out.write_all(&chunk).unavailable(|| format!("cannot store state object `{object}`"))?;
    }
    check(object.as_ref(), file, length, crc.finalize())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.internal(|| "a task that reads state files ended".into())?
}
