//! Where a job's checkpoints lie, opened in one way by coordinator and worker: a directory, or a prefix in S3, Google
//! Cloud Storage or Azure (feature `remote-stores`).
//!
//! Objects are only ever created, never overwritten. A put whose answer was lost is settled by reading the object
//! again: whose content is there says who created it. Nothing here decides what is written or deleted.

mod copy;
mod describe;
pub mod location;
mod lock;
pub mod options;
#[cfg(feature = "remote-stores")]
mod remote;
#[cfg(test)]
mod tests;

pub use copy::{COPY_BYTES_MAX, copy};
pub use describe::describe;
pub use location::Location;
pub use lock::Lock;
pub use options::Options;

use bytes::Bytes;
use ef_proto::error::{Code, Error};
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::{
    ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, WriteMultipart, path::Path as ObjectPath,
};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

type Result<T> = std::result::Result<T, Error>;

/// An object larger than two of these goes up in parts of this size. S3 takes 10,000 parts and none below 5 MiB.
const PART_BYTES: usize = 8 << 20;

/// Parts of one object in flight.
const PARALLEL_PARTS: usize = 2;

/// How often a put is begun anew after its outcome was unknown and nothing was found. Each attempt has the client's
/// own retries and time-outs.
const ATTEMPTS: usize = 3;

/// A place in a store.
#[derive(Clone)]
pub struct Root {
    pub store: Arc<dyn ObjectStore>,
    /// Everything lies below it.
    pub prefix: ObjectPath,
    /// The same place in the file system, if that is what the store is.
    pub local: Option<PathBuf>,
}

/// How long to try before giving up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// A person waits: a few seconds.
    Brief,
    /// As long as the options say.
    Full,
}

/// What became of a create-only put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The object has the content that was put.
    Ours,
    /// It existed with another content, and has it still.
    Theirs,
}

// Clients of object stores hold credentials; what they would show of them is not ours to control.
impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Root").field("prefix", &self.prefix).field("local", &self.local).finish_non_exhaustive()
    }
}

impl Root {
    /// Opens a place without looking at it. A directory is created.
    pub fn open(location: &Location, options: &Options, patience: Patience) -> Result<Root> {
        match location {
            Location::Memory => {
                Ok(Root { store: Arc::new(InMemory::new()), prefix: ObjectPath::default(), local: None })
            }
            Location::Directory(directory) => {
                let failed = |e: &dyn fmt::Display| {
                    let message = format!("cannot use the state directory `{}`: {e}", directory.display());
                    Error::new(Code::Unavailable, message)
                };
                create_directory(directory).map_err(|e| failed(&e))?;
                let store = LocalFileSystem::new_with_prefix(directory).map_err(|e| failed(&e))?;
                Ok(Root { store: Arc::new(store), prefix: ObjectPath::default(), local: Some(directory.clone()) })
            }
            #[cfg(feature = "remote-stores")]
            Location::Remote(remote) => {
                let store = remote::client(remote, options, patience)?;
                Ok(Root { store, prefix: remote.prefix.clone(), local: None })
            }
            #[cfg(not(feature = "remote-stores"))]
            Location::Remote(_) => {
                let _ = (options, patience);
                Err(Error::invalid(format!(
                    "`{location}`: this build of EdgeFlow is without object stores (cargo feature `remote-stores`); a \
                     directory is accepted"
                )))
            }
        }
    }

    /// Opens a place and makes sure that checkpoints are safe there: that it can be written, read and deleted, and that
    /// it keeps the create-only condition, without which two processes could write one checkpoint. `nonce` is this
    /// process's own.
    pub async fn open_checked(location: &Location, options: &Options, nonce: u64) -> Result<Root> {
        Root::open(location, options, Patience::Brief)?
            .probe(nonce)
            .await
            .map_err(|e| Error::new(e.code, format!("the state store `{location}` is not usable: {}", e.message)))?;
        Root::open(location, options, Patience::Full)
    }

    async fn probe(&self, nonce: u64) -> Result<()> {
        let name = format!("probe-{nonce:016x}");
        let object = self.object(&name);
        self.create(&name, "first".into()).await?;
        let second = self.store.put_opts(&object, PutPayload::from("second"), create_only()).await;
        let found = self.read(&name).await;
        self.delete(&name).await?;
        match second {
            Err(object_store::Error::AlreadyExists { .. }) if found? == "first" => Ok(()),
            Err(e @ object_store::Error::NotImplemented { .. }) => Err(unavailable("cannot create objects", &e)),
            Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => Err(Error::invalid(
                "it overwrites objects although told to create them (it ignores `If-None-Match: *`), so that two \
                 processes could write one checkpoint; a store with conditional puts is expected",
            )),
            Err(e) => Err(unavailable("cannot tell whether it keeps conditional puts", &e)),
        }
    }

    /// A place further down.
    pub fn below(&self, path: &str) -> Root {
        let local = self.local.as_ref().map(|local| local.join(path));
        Root { store: self.store.clone(), prefix: self.object(path), local }
    }

    /// The object of a path below this place; the place itself for an empty one.
    pub fn object(&self, path: &str) -> ObjectPath {
        path.split('/').filter(|part| !part.is_empty()).fold(self.prefix.clone(), |object, part| object.join(part))
    }

    /// A path below this place as a person knows it.
    pub fn show(&self, path: &str) -> String {
        self.local.as_ref().map_or(self.object(path).to_string(), |local| local.join(path).display().to_string())
    }

    /// Create-only put. In a directory the file is not yet synced. Objects that go up in parts must have names that
    /// nobody else uses: not every store has a condition for those.
    pub async fn create(&self, path: &str, bytes: Bytes) -> Result<Created> {
        let object = self.object(path);
        let failed = |e| unavailable(&format!("cannot write `{object}`"), &e);
        let mut attempt = 1;
        loop {
            let lost = match self.put(&object, bytes.clone()).await {
                Ok(()) => return Ok(Created::Ours),
                Err(object_store::Error::AlreadyExists { .. }) => None,
                Err(e @ object_store::Error::Generic { .. }) => Some(e),
                Err(e) => return Err(failed(e)),
            };
            let found = async { self.store.get(&object).await?.bytes().await };
            match found.await {
                Ok(found) if found == bytes => return Ok(Created::Ours),
                Ok(_) => return Ok(Created::Theirs),
                Err(object_store::Error::NotFound { .. }) if attempt < ATTEMPTS => attempt += 1,
                Err(e) => return Err(failed(lost.unwrap_or(e))),
            }
        }
    }

    async fn put(&self, object: &ObjectPath, bytes: Bytes) -> object_store::Result<()> {
        if self.local.is_some() || bytes.len() <= 2 * PART_BYTES {
            return self.store.put_opts(object, PutPayload::from(bytes), create_only()).await.map(drop);
        }
        match self.store.head(object).await {
            Ok(_) => {
                let source = "found before the upload".into();
                return Err(object_store::Error::AlreadyExists { path: object.to_string(), source });
            }
            Err(object_store::Error::NotFound { .. }) => {}
            Err(e) => return Err(e),
        }
        let upload = self.store.put_multipart(object).await?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        let mut rest = bytes;
        while !rest.is_empty() {
            if let Err(e) = upload.wait_for_capacity(PARALLEL_PARTS).await {
                // Parts that stay behind are invisible; a lifecycle rule of the bucket removes them.
                let _ = upload.abort().await;
                return Err(e);
            }
            upload.put(rest.split_to(PART_BYTES.min(rest.len())));
        }
        upload.finish().await.map(drop)
    }

    pub async fn exists(&self, path: &str) -> Result<bool> {
        let object = self.object(path);
        match self.store.head(&object).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(e) => Err(unavailable(&format!("cannot look for `{object}`"), &e)),
        }
    }

    /// A whole object; [`Code::NotFound`] if it does not exist.
    pub async fn read(&self, path: &str) -> Result<Bytes> {
        let object = self.object(path);
        let failed = |e| match e {
            object_store::Error::NotFound { .. } => Error::new(Code::NotFound, format!("`{object}` does not exist")),
            e => unavailable(&format!("cannot read `{object}`"), &e),
        };
        self.store.get(&object).await.map_err(failed)?.bytes().await.map_err(failed)
    }

    /// Deletes an object, or what [`Root::half_written`] gave; it may be gone already.
    pub async fn delete(&self, path: &str) -> Result<()> {
        let object = self.object(path);
        if let Some(local) = self.local.as_ref().filter(|_| is_half_written(path)) {
            return match std::fs::remove_file(local.join(path)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    Err(Error::new(Code::Unavailable, format!("cannot delete `{path}`: {e}")))
                }
                _ => Ok(()),
            };
        }
        match self.store.delete(&object).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(unavailable(&format!("cannot delete `{object}`"), &e)),
        }
    }

    /// Paths of all objects in `directory`, itself included.
    pub async fn names(&self, directory: &str) -> Result<Vec<String>> {
        let below = self.object(directory);
        let cut = self.prefix.as_ref().len() + usize::from(!self.prefix.as_ref().is_empty());
        let objects = self.store.list(Some(&below)).map_ok(|object| object.location.as_ref()[cut..].to_owned());
        objects.try_collect().await.map_err(|e| unavailable(&format!("cannot list `{below}`"), &e))
    }

    /// Paths of what puts that were killed have left in `directory`, itself included. Only a directory keeps such, and it is no
    /// object: [`Root::names`] does not show it. A put that is under way has one, too.
    pub async fn half_written(&self, directory: &str) -> Result<Vec<String>> {
        let Some(local) = self.local.clone() else { return Ok(Vec::new()) };
        let folder = local.join(directory);
        let walked = tokio::task::spawn_blocking(move || {
            let mut found = Vec::new();
            walk(&folder, &mut |file| {
                if let Some(path) = file.strip_prefix(&local).ok().and_then(Path::to_str)
                    && is_half_written(path)
                {
                    found.push(path.to_owned());
                }
            })
            .map(|()| found)
        });
        let walked = walked.await.map_err(|e| Error::new(Code::Internal, format!("a listing has ended: {e}")))?;
        walked.map_err(|e| Error::new(Code::Unavailable, format!("cannot list `{directory}`: {e}")))
    }

    /// Names of what looks like a directory in `directory`, sorted.
    pub async fn directories(&self, directory: &str) -> Result<Vec<String>> {
        let below = self.object(directory);
        let listed = self.store.list_with_delimiter(Some(&below)).await;
        let listed = listed.map_err(|e| unavailable(&format!("cannot list `{below}`"), &e))?;
        let last = |path: &ObjectPath| path.filename().map(str::to_owned);
        let mut names: Vec<String> = listed.common_prefixes.iter().filter_map(last).collect();
        names.sort();
        Ok(names)
    }
}

/// `LocalFileSystem` writes `name#1` and renames it; in names of objects `#` is escaped.
fn is_half_written(path: &str) -> bool {
    let number = path.rsplit_once('#').map(|(_, number)| number);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// All files below; what is deleted meanwhile is passed over.
fn walk(folder: &Path, found: &mut impl FnMut(&Path)) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path(), found)?,
            Ok(_) => found(&entry.path()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Creates a directory and those above it, so that a power loss does not take them away again.
pub fn create_directory(directory: &Path) -> io::Result<()> {
    let missing: Vec<&Path> =
        directory.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    std::fs::create_dir_all(directory)?;
    for created in missing {
        let parent = created.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

fn create_only() -> PutOptions {
    PutOptions { mode: PutMode::Create, ..PutOptions::default() }
}

fn unavailable(what: &str, error: &object_store::Error) -> Error {
    Error::new(Code::Unavailable, format!("{what}: {}", describe(error)))
}
