//! Copies state files from one place to another, in pieces and checked against what the manifest says of them.
//!
//! Promises: a file that is at its new place is whole, has the right content and, in a directory, survives a power
//! loss. A copy that was interrupted can be repeated: what is there already is verified instead of copied. Needs at
//! most about [`COPY_BYTES_MAX`] of memory, whatever the files' sizes. Leaves manifests to others.

use super::{Created, PARALLEL_PARTS, PART_BYTES, Result, Root, create_directory, unavailable};
use bytes::{Bytes, BytesMut};
use ef_proto::checkpoint::{StateFile, path};
use ef_proto::error::{Code, Error};
use object_store::{ObjectStoreExt, WriteMultipart};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use tokio::task::{JoinSet, spawn_blocking};

/// Files under way at once: enough to keep a link busy with small files.
const PARALLEL_FILES: usize = 4;

/// For each file: a piece that was read, one that is being put together, and those in flight.
pub const COPY_BYTES_MAX: usize = PARALLEL_FILES * (PARALLEL_PARTS + 2) * PART_BYTES;

/// Copies state files to the same paths below `to`. After an error no further file is begun; those under way are ended
/// first, so that nothing goes on behind the caller's back.
pub async fn copy<'a>(from: &Root, to: &Root, files: impl IntoIterator<Item = &'a StateFile>) -> Result<()> {
    let mut copies: JoinSet<Result<()>> = JoinSet::new();
    let mut failed: Option<Error> = None;
    for file in files {
        failed = check_path(&file.path).err();
        if failed.is_none() && copies.len() >= PARALLEL_FILES {
            failed = finished(copies.join_next().await).err();
        }
        if failed.is_some() {
            break;
        }
        let (from, to, file) = (from.clone(), to.clone(), file.clone());
        copies.spawn(async move { copy_one(&from, &to, &file).await });
    }
    while !copies.is_empty() {
        let copied = finished(copies.join_next().await);
        failed = failed.or(copied.err());
    }
    failed.map_or(Ok(()), Err)
}

fn finished(copied: Option<std::result::Result<Result<()>, tokio::task::JoinError>>) -> Result<()> {
    match copied {
        None => Ok(()),
        Some(Ok(result)) => result,
        Some(Err(e)) => Err(Error::new(Code::Internal, format!("copying a state file went wrong: {e}"))),
    }
}

/// What a manifest names is not trusted to stay below its root, nor to mean the same file in every kind of store.
fn check_path(file: &str) -> Result<()> {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    if path::state_file_origin(file).is_some() && file.split('/').all(plain) {
        return Ok(());
    }
    Err(Error::corrupt(format!("the manifest names a state file `{file}`, which is not a path below its root")))
}

async fn copy_one(from: &Root, to: &Root, file: &StateFile) -> Result<()> {
    if to.exists(&file.path).await? {
        return verify_copied(to, file).await;
    }
    let source = Source::open(from, file).await?;
    match &to.local {
        Some(local) => to_directory(source, to, local.clone()).await,
        None => to_store(source, to).await,
    }
}

/// Reads what is there as if it were to be copied from there.
async fn verify_copied(to: &Root, file: &StateFile) -> Result<()> {
    let read = async {
        let mut found = Source::open(to, file).await?;
        while found.next().await?.is_some() {}
        Ok(())
    };
    read.await.map_err(|e: Error| match e.code {
        Code::Corrupt => theirs(to, file),
        _ => e,
    })
}

/// An object that is read in pieces and turns out damaged before its last piece is handed out.
struct Source<'a> {
    root: &'a Root,
    file: &'a StateFile,
    read: u64,
    crc: crc32fast::Hasher,
}

impl<'a> Source<'a> {
    async fn open(root: &'a Root, file: &'a StateFile) -> Result<Source<'a>> {
        let object = root.object(&file.path);
        let found = root.store.head(&object).await.map_err(|e| missing_or_unavailable(root, file, &e))?.size;
        if found != file.bytes {
            let message = format!("has {found} bytes instead of {}", file.bytes);
            return Err(damaged(root, file, &message));
        }
        Ok(Source { root, file, read: 0, crc: crc32fast::Hasher::new() })
    }

    /// None at the end, which an empty file is at once.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.read == self.file.bytes {
            // For an empty file; others have been checked with their last piece.
            return self.check_crc().map(|()| None);
        }
        let end = self.file.bytes.min(self.read + PART_BYTES as u64);
        let object = self.root.object(&self.file.path);
        let read = self.root.store.get_range(&object, self.read..end).await;
        let piece = read.map_err(|e| missing_or_unavailable(self.root, self.file, &e))?;
        if piece.len() as u64 != end - self.read {
            return Err(damaged(self.root, self.file, "ends too early"));
        }
        self.crc.update(&piece);
        self.read = end;
        if end == self.file.bytes {
            self.check_crc()?;
        }
        Ok(Some(piece))
    }

    fn check_crc(&self) -> Result<()> {
        match self.crc.clone().finalize() == self.file.crc32 {
            true => Ok(()),
            false => Err(damaged(self.root, self.file, "its crc32 does not match")),
        }
    }
}

fn damaged(root: &Root, file: &StateFile, how: &str) -> Error {
    Error::corrupt(format!("state file `{}` is damaged: {how}", root.show(&file.path)))
}

fn missing_or_unavailable(root: &Root, file: &StateFile, error: &object_store::Error) -> Error {
    let shown = root.show(&file.path);
    match error {
        object_store::Error::NotFound { .. } => {
            Error::new(Code::NotFound, format!("state file `{shown}` does not exist"))
        }
        e => unavailable(&format!("cannot read `{shown}`"), e),
    }
}

async fn to_store(mut source: Source<'_>, to: &Root) -> Result<()> {
    let file = source.file;
    if file.bytes <= 2 * PART_BYTES as u64 {
        let mut content = BytesMut::with_capacity(file.bytes as usize);
        while let Some(piece) = source.next().await? {
            content.extend_from_slice(&piece);
        }
        return match to.create(&file.path, content.freeze()).await? {
            Created::Ours => Ok(()),
            Created::Theirs => Err(theirs(to, file)),
        };
    }
    let object = to.object(&file.path);
    let failed = |e| unavailable(&format!("cannot write `{object}`"), &e);
    let upload = to.store.put_multipart(&object).await.map_err(failed)?;
    let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
    loop {
        let step = match source.next().await {
            Ok(None) => break,
            Ok(Some(piece)) => {
                upload.wait_for_capacity(PARALLEL_PARTS).await.map(|()| upload.put(piece)).map_err(failed)
            }
            Err(e) => Err(e),
        };
        if let Err(e) = step {
            // Parts that stay behind are invisible; a lifecycle rule of the bucket removes them.
            let _ = upload.abort().await;
            return Err(e);
        }
    }
    upload.finish().await.map(drop).map_err(failed)
}

fn theirs(to: &Root, file: &StateFile) -> Error {
    let shown = to.show(&file.path);
    Error::new(Code::Conflict, format!("`{shown}` exists already with another content"))
}

/// The file gets its name only after its content is on the disk: one that is there is whole.
async fn to_directory(mut source: Source<'_>, to: &Root, local: PathBuf) -> Result<()> {
    let file = source.file;
    let target = local.join(&file.path);
    let failed = |e| Error::new(Code::Unavailable, format!("cannot write `{}`: {e}", to.show(&file.path)));
    let path = target.clone();
    let mut part = blocking(move || Part::create(&path)).await.map_err(failed)?;
    while let Some(piece) = source.next().await? {
        let mut open = part;
        part = blocking(move || open.file.write_all(&piece).map(|()| open)).await.map_err(failed)?;
    }
    match blocking(move || part.publish(&target, &local)).await {
        // Another copy was quicker, which is well if it put the same there.
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => verify_copied(to, file).await,
        result => result.map_err(failed),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> std::io::Result<T> {
    spawn_blocking(work).await.map_err(std::io::Error::other)?
}

/// A file under a name of its own, removed unless it is published. A crash leaves it behind; the name is still that of
/// a state file, so that a collection finds it.
struct Part {
    file: File,
    path: PathBuf,
}

impl Part {
    fn create(target: &Path) -> std::io::Result<Part> {
        create_directory(target.parent().unwrap_or(Path::new(".")))?;
        for number in 0.. {
            let mut path = target.as_os_str().to_owned();
            path.push(format!(".{number}.part"));
            let path = PathBuf::from(path);
            match File::options().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok(Part { file, path }),
                // Of another copy, alive or dead.
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
        unreachable!("numbers do not end")
    }

    fn publish(self, target: &Path, root: &Path) -> std::io::Result<()> {
        self.file.sync_all()?;
        // Unlike a rename it does not overwrite.
        std::fs::hard_link(&self.path, target)?;
        drop(self);
        for directory in target.ancestors().skip(1).take_while(|directory| directory.starts_with(root)) {
            File::open(directory)?.sync_all()?;
        }
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // One that cannot be removed is garbage, no more.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Location, Options, Patience};

    fn directory(scratch: &tempfile::TempDir, name: &str) -> Root {
        let location = Location::Directory(scratch.path().join(name));
        Root::open(&location, &Options::default(), Patience::Full).expect("a directory")
    }

    fn memory() -> Root {
        Root::open(&Location::Memory, &Options::default(), Patience::Full).expect("memory only").below("jobs/x")
    }

    fn content(bytes: usize) -> Bytes {
        (0..bytes).map(|i| (i % 251) as u8).collect::<Vec<u8>>().into()
    }

    async fn file(root: &Root, name: &str, content: Bytes) -> StateFile {
        let path = format!("shared/0000000000000007/0/i1/1-2-{name}");
        root.create(&path, content.clone()).await.expect("creates");
        StateFile { path, name: name.into(), bytes: content.len() as u64, crc32: crc32fast::hash(&content) }
    }

    #[tokio::test]
    async fn files_of_every_size_arrive_whole_in_every_kind_of_place_and_again() {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let from = directory(&scratch, "from");
        let sizes = [0, 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES, 2 * PART_BYTES + 1, 3, 4, 5];
        let mut files = Vec::new();
        for (i, bytes) in sizes.into_iter().enumerate() {
            files.push(file(&from, &format!("{i:06}.sst"), content(bytes)).await);
        }
        for to in [memory(), directory(&scratch, "to")] {
            for _ in 0..2 {
                copy(&from, &to, &files).await.expect("copies");
            }
            assert_eq!(to.names("shared").await.expect("lists").len(), files.len(), "no parts are left");
            for (file, bytes) in files.iter().zip(sizes) {
                assert!(to.read(&file.path).await.expect("is there") == content(bytes), "{}", file.path);
            }
        }
    }

    #[tokio::test]
    async fn damaged_or_missing_file_is_named_and_nothing_of_it_arrives() {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let from = memory();
        let good = file(&from, "good", content(3)).await;
        let large = file(&from, "large", content(2 * PART_BYTES + 1)).await;
        let other_crc = |file: &StateFile| StateFile { crc32: file.crc32 ^ 1, ..file.clone() };
        let shorter = StateFile { bytes: 2, ..good.clone() };
        for to in [memory(), directory(&scratch, "to")] {
            for bad in [other_crc(&good), other_crc(&large), shorter.clone()] {
                let error = copy(&from, &to, [&bad]).await.expect_err("damaged");
                assert!(error.code == Code::Corrupt && error.message.contains(&bad.path), "{error}");
            }
            let absent = StateFile { path: good.path.replace("good", "absent"), ..good.clone() };
            assert_eq!(copy(&from, &to, [&absent]).await.expect_err("absent").code, Code::NotFound);
            assert_eq!(to.names("").await, Ok(vec![]));
        }
    }

    #[tokio::test]
    async fn other_content_at_the_new_place_is_kept_and_told() {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let from = memory();
        let given = file(&from, "a", content(3)).await;
        for to in [memory(), directory(&scratch, "to")] {
            to.create(&given.path, "xyz".into()).await.expect("creates");
            let error = copy(&from, &to, [&given]).await.expect_err("something else is there");
            assert!(error.code == Code::Conflict && error.message.contains(&given.path), "{error}");
            assert_eq!(to.read(&given.path).await, Ok("xyz".into()));
        }
    }

    #[tokio::test]
    async fn what_a_crash_left_behind_is_not_in_the_way() {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let (from, to) = (memory(), directory(&scratch, "to"));
        let given = file(&from, "a", content(3)).await;
        let left = format!("{}.0.part", given.path);
        to.create(&left, "ha".into()).await.expect("creates");
        copy(&from, &to, [&given]).await.expect("copies");
        assert_eq!(to.read(&given.path).await, Ok(content(3)));
        assert!(path::state_file_origin(&left).is_some(), "a collection finds it");
    }

    #[tokio::test]
    async fn path_that_leaves_the_root_is_refused() {
        let root = memory();
        for path in ["shared/../../1-2-x/../1-2-x", "shared/../0/i1/1-2-x", "chk/1", "shared/7/0/i1/1-2-%2e", "/etc/x"]
        {
            let file = StateFile { path: path.into(), name: "x".into(), bytes: 0, crc32: 0 };
            assert_eq!(copy(&root, &memory(), [&file]).await.expect_err(path).code, Code::Corrupt, "{path}");
        }
    }
}
