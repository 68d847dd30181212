//! Which files a path means, in the order of their names, and what identifies each of them.

use crate::error::{Context, Error, Result};
use ef_proto::connector::Compression;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::UNIX_EPOCH;

/// How the bytes of a file are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    Plain,
    Gzip,
    Zstd,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub path: String,
    pub size: u64,
    pub modified_ms: i64,
    /// False for pipes and devices, which have no size and cannot be read twice.
    pub regular: bool,
    pub codec: Codec,
}

impl File {
    pub fn stat(path: &str, compression: Compression) -> Result<File> {
        let meta = fs::metadata(path).invalid(|| format!("file \"{path}\""))?;
        let modified = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let codec = match compression {
            Compression::None => Codec::Plain,
            Compression::Gzip => Codec::Gzip,
            Compression::Zstd => Codec::Zstd,
            Compression::Auto => match Path::new(path).extension().and_then(|ending| ending.to_str()) {
                Some("gz" | "gzip") => Codec::Gzip,
                Some("zst" | "zstd") => Codec::Zstd,
                _ => Codec::Plain,
            },
        };
        Ok(File {
            path: path.to_string(),
            size: meta.len(),
            modified_ms: modified.map_or(0, |age| age.as_millis() as i64),
            regular: meta.is_file(),
            codec,
        })
    }

    /// Length and crc32 of the first kilobyte, or of `length` bytes: whether the file is still the one it was.
    pub fn head(&self, length: Option<u64>) -> Result<(u64, u32)> {
        if !self.regular {
            return Ok((0, 0));
        }
        let length = length.unwrap_or(self.size.min(1024));
        let mut bytes = Vec::with_capacity(length as usize);
        fs::File::open(&self.path)
            .and_then(|file| file.take(length).read_to_end(&mut bytes))
            .invalid(|| format!("file \"{}\"", self.path))?;
        Ok((length, crc32fast::hash(&bytes)))
    }
}

/// All files that `path` means, sorted. `may_be_none`: a directory without files or a glob without a match is no
/// error, since a source that keeps following waits for them.
pub(super) fn list(path: &str, compression: Compression, may_be_none: bool) -> Result<Vec<File>> {
    let is_glob = path.contains(['*', '?', '[']) && !Path::new(path).exists();
    let mut paths = Vec::new();
    if is_glob {
        let options = glob::MatchOptions { require_literal_leading_dot: true, ..Default::default() };
        let matches = glob::glob_with(path, options).invalid(|| format!("path \"{path}\" is no valid glob"))?;
        for found in matches {
            walk(&found.invalid(|| format!("path \"{path}\""))?, &mut paths)?;
        }
    } else {
        walk(Path::new(path), &mut paths)?;
    }
    if paths.is_empty() && !may_be_none {
        let what = if is_glob { "no file matches" } else { "the directory holds no files" };
        return Err(Error::invalid(format!("path \"{path}\": {what}")));
    }
    paths.sort_unstable();
    paths.dedup();
    let files = paths.iter().map(|path| File::stat(path, compression));
    match may_be_none {
        // While a directory is followed, files may go between its listing and their turn.
        true => Ok(files.filter_map(Result::ok).collect()),
        false => files.collect(),
    }
}

/// A file itself, or the files below a directory whose names begin with neither `.` nor `_`.
fn walk(path: &Path, into: &mut Vec<String>) -> Result<()> {
    let shown = || format!("path \"{}\"", path.display());
    if !fs::metadata(path).invalid(shown)?.is_dir() {
        let text = path.to_str().ok_or("its name is not UTF-8").invalid(shown)?;
        into.push(text.to_string());
        return Ok(());
    }
    for entry in fs::read_dir(path).invalid(shown)? {
        let entry = entry.invalid(shown)?;
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        if !name.starts_with(b".") && !name.starts_with(b"_") {
            walk(&entry.path(), into)?;
        }
    }
    Ok(())
}
