//! Which files a path means, in the order of their names, and what identifies each of them.

use crate::error::{Context, Error, Result};
use ef_proto::connector::Compression;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::UNIX_EPOCH;

/// Bytes at the beginning of a file by which it is recognised.
pub(super) const HEAD_BYTES: u64 = 1024;

/// Device and inode.
pub(super) type Id = (u64, u64);

/// How the bytes of a file are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    Plain,
    Gzip,
    Zstd,
}

impl Codec {
    pub fn of(path: &str, compression: Compression) -> Codec {
        match compression {
            Compression::None => Codec::Plain,
            Compression::Gzip => Codec::Gzip,
            Compression::Zstd => Codec::Zstd,
            Compression::Auto => match Path::new(path).extension().and_then(|ending| ending.to_str()) {
                Some("gz" | "gzip") => Codec::Gzip,
                Some("zst" | "zstd") => Codec::Zstd,
                _ => Codec::Plain,
            },
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub path: String,
    pub size: u64,
    pub modified_ms: i64,
    /// The same file under another name has the same one; so may another file later, once this one is deleted.
    pub id: Id,
    /// False for pipes and devices, which have no size and cannot be read twice.
    pub regular: bool,
    pub codec: Codec,
}

impl File {
    pub fn stat(path: &str, compression: Compression) -> Result<File> {
        Self::look(path, compression).invalid(|| format!("file \"{path}\""))
    }

    pub fn look(path: &str, compression: Compression) -> io::Result<File> {
        let meta = fs::metadata(path)?;
        let modified = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Ok(File {
            path: path.to_string(),
            size: meta.len(),
            modified_ms: modified.map_or(0, |age| age.as_millis() as i64),
            id: id(&meta),
            regular: meta.is_file(),
            codec: Codec::of(path, compression),
        })
    }

    /// Length and crc32 of the first kilobyte, or of `length` bytes: whether the file is still the one it was.
    pub fn head(&self, length: Option<u64>) -> Result<(u64, u32)> {
        if !self.regular {
            return Ok((0, 0));
        }
        let shown = || format!("file \"{}\"", self.path);
        let file = open(&self.path).invalid(shown)?;
        head(&file, length.unwrap_or(self.size.min(HEAD_BYTES))).invalid(shown)
    }
}

/// The file that has this name now.
pub(super) fn id_of(path: &str) -> Option<Id> {
    fs::metadata(path).ok().map(|meta| id(&meta))
}

pub(super) fn id(meta: &fs::Metadata) -> Id {
    (meta.dev(), meta.ino())
}

/// For reading, without waiting for the other end of a pipe.
pub(super) fn open(path: &str) -> io::Result<fs::File> {
    fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// Length and crc32 of the first `length` bytes, wherever the file is being read.
pub(super) fn head(file: &fs::File, length: u64) -> io::Result<(u64, u32)> {
    let mut bytes = vec![0; length as usize];
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], read as u64) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok((length, crc32fast::hash(&bytes[..read])))
}

/// A file with this inode beside `path`: what `path` was before it was renamed.
pub(super) fn beside(path: &str, inode: u64, compression: Compression) -> Option<File> {
    let directory = Path::new(path).parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = fs::read_dir(directory).ok()?.flatten();
    let same = |entry: &fs::DirEntry| entry.metadata().is_ok_and(|meta| meta.is_file() && meta.ino() == inode);
    let found = entries.filter(same).find_map(|entry| entry.path().to_str().map(str::to_string))?;
    File::look(&found, compression).ok().filter(|file| file.id.1 == inode)
}

/// What a listing makes of paths that are not there (any more).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// Bounded: all that is listed must be read, and there must be something.
    Refused,
    /// A source that keeps following waits for files, and files may go between their listing and their turn. What it
    /// follows must be there.
    Below,
    /// What it follows may be gone for a moment too: a single file while it is rotated.
    Anywhere,
}

/// All files that `path` means, sorted.
pub(super) fn list(path: &str, compression: Compression, gone: Gone) -> Result<Vec<File>> {
    let is_glob = path.contains(['*', '?', '[']) && !Path::new(path).exists();
    let mut paths = Vec::new();
    if is_glob {
        let options = glob::MatchOptions { require_literal_leading_dot: true, ..Default::default() };
        let matches = glob::glob_with(path, options).invalid(|| format!("path \"{path}\" is no valid glob"))?;
        for found in matches {
            match found {
                Err(error) if gone != Gone::Refused && error.error().kind() == ErrorKind::NotFound => {}
                found => walk(&found.invalid(|| format!("path \"{path}\""))?, gone, gone != Gone::Refused, &mut paths)?,
            }
        }
    } else {
        walk(Path::new(path), gone, gone == Gone::Anywhere, &mut paths)?;
    }
    if paths.is_empty() && gone == Gone::Refused {
        let what = if is_glob { "no file matches" } else { "the directory holds no files" };
        return Err(Error::invalid(format!("path \"{path}\": {what}")));
    }
    paths.sort_unstable();
    paths.dedup();
    let mut files = Vec::with_capacity(paths.len());
    for path in paths {
        match File::look(&path, compression) {
            Err(error) if gone != Gone::Refused && error.kind() == ErrorKind::NotFound => {}
            found => files.push(found.invalid(|| format!("file \"{path}\""))?),
        }
    }
    Ok(files)
}

/// A file itself, or the files below a directory whose names begin with neither `.` nor `_`. `may_go`: nothing there
/// is no files, which a link that leads nowhere is too.
fn walk(path: &Path, gone: Gone, may_go: bool, into: &mut Vec<String>) -> Result<()> {
    let shown = || format!("path \"{}\"", path.display());
    let missing = |error: &io::Error| may_go && error.kind() == ErrorKind::NotFound;
    let meta = match fs::metadata(path) {
        Err(error) if missing(&error) => return Ok(()),
        meta => meta.invalid(shown)?,
    };
    if !meta.is_dir() {
        let text = path.to_str().ok_or("its name is not UTF-8").invalid(shown)?;
        into.push(text.to_string());
        return Ok(());
    }
    let entries = match fs::read_dir(path) {
        Err(error) if missing(&error) => return Ok(()),
        entries => entries.invalid(shown)?,
    };
    for entry in entries {
        let entry = entry.invalid(shown)?;
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        if !name.starts_with(b".") && !name.starts_with(b"_") {
            walk(&entry.path(), gone, gone != Gone::Refused, into)?;
        }
    }
    Ok(())
}
