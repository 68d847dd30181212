//! What a checkpoint keeps of a filesystem source: per file how to recognise it, and the chunks that are not done.
//!
//! A bounded source forgets chunks that are read to their end: the union over all subtasks is then exactly what is left
//! to do, at any parallelism. A monitoring source keeps every file, or it would take it for a new one.

use super::listing::File;
use super::splits::Chunk;
use crate::error::{Context, Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FilePosition {
    pub path: String,
    pub size: u64,
    /// Length and crc32 of the file's head.
    pub head: (u64, u32),
    /// None in checkpoints of older builds.
    #[serde(default)]
    pub inode: Option<u64>,
    pub chunks: Vec<Chunk>,
}

impl FilePosition {
    /// The file at the path must still be the one, with at least the bytes that it had.
    pub fn check(&self, file: &File) -> Result<()> {
        if !file.regular {
            let what = format!("file \"{}\" is no regular file and cannot be read again", self.path);
            return Err(Error::invalid(what));
        }
        let other = match file.size < self.size {
            true => "",
            false if file.head(Some(self.head.0))? != self.head => ", and begins differently",
            false => return Ok(()),
        };
        Err(Error::invalid(format!(
            "file \"{}\" is not the one that the checkpoint was made with: it had {} bytes, now {}{other}",
            self.path, self.size, file.size
        )))
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Position {
    version: u32,
    monitoring: bool,
    files: Vec<FilePosition>,
}

pub(super) fn write(monitoring: bool, files: Vec<FilePosition>) -> Result<Vec<u8>> {
    serde_json::to_vec(&Position { version: VERSION, monitoring, files }).internal(|| "source position".into())
}

/// The union of all old subtasks' positions, by path, chunks in order. Of a followed path there may be two files: the one
/// that is there, and the one before, which is read to its end.
pub(super) fn union(blobs: &[Vec<u8>], monitoring: bool) -> Result<Vec<FilePosition>> {
    let mut files: BTreeMap<(String, Option<u64>), FilePosition> = BTreeMap::new();
    for blob in blobs {
        let position: Position = serde_json::from_slice(blob).corrupt(|| "position of a filesystem source".into())?;
        if position.version != VERSION {
            let found = position.version;
            return Err(Error::corrupt(format!(
                "position of a filesystem source has version {found}, this build reads {VERSION}"
            )));
        }
        if position.monitoring != monitoring {
            return Err(Error::invalid(
                "'source.monitor-interval' was added or removed since the checkpoint; start fresh, or leave it as it was",
            ));
        }
        for file in position.files {
            let key = (file.path.clone(), file.inode.filter(|_| monitoring));
            match files.get_mut(&key) {
                None => drop(files.insert(key, file)),
                Some(known) if known.head == file.head => known.chunks.extend(file.chunks),
                Some(_) => {
                    return Err(Error::invalid(format!("file \"{}\" was replaced while the job read it", file.path)));
                }
            }
        }
    }
    let mut files: Vec<_> = files.into_values().collect();
    files.iter_mut().for_each(|file| file.chunks.sort_by_key(|chunk| chunk.start));
    Ok(files)
}
