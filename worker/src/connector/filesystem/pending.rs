//! Files that are written and not yet visible: what a barrier puts into the checkpoint, and how they become visible.
//!
//! The rule: a file is closed and on disk (fsync of the file and of its directory) before a checkpoint names it; it is
//! renamed only after that checkpoint is recorded; the rename is repeated at every restore until it is done. A file
//! with its final name and none with its hidden one has been published. One with neither was published and taken away
//! if the `marker` of its subtask says so; else rows are lost and nothing may go on.

use super::file::cannot;
use crate::error::{Context, Error, Result};
use ef_proto::error::Code;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

/// One closed file under its hidden name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pending {
    /// The epoch whose rows it holds.
    pub epoch: u64,
    pub hidden: String,
    pub name: String,
    pub bytes: u64,
    pub crc32: u32,
}

/// A sink subtask's part of a checkpoint.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Blob {
    /// The sink's path, as the statement gave it. None in checkpoints of older builds.
    #[serde(default)]
    pub path: Option<String>,
    pub pending: Vec<Pending>,
}

/// What the marker of a file's subtask and the checkpoint say about a file that is not there.
pub(super) struct Known<'a> {
    /// The newest epoch that the file's subtask has published.
    pub published: Option<u64>,
    /// The sink's path in the checkpoint, where it differs from today's.
    pub moved_from: Option<&'a str>,
}

impl Blob {
    pub fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).internal(|| "a sink's pending files do not encode".to_owned())
    }

    pub fn decode(bytes: &[u8]) -> Result<Blob> {
        serde_json::from_slice(bytes).corrupt(|| "the checkpoint's pending sink files do not read back".to_owned())
    }
}

impl Pending {
    /// The subtask that wrote the file.
    pub fn subtask(&self) -> Option<u32> {
        self.name.strip_prefix("part-")?.split('-').nth(2)?.parse().ok()
    }

    /// Makes the file visible. Doing it again changes nothing.
    pub fn publish(&self, directory: &Path, known: &Known) -> Result<()> {
        let (hidden, visible) = (directory.join(&self.hidden), directory.join(&self.name));
        let there = |path: &Path| path.try_exists().map_err(|e| cannot("look for", path, &e));
        match (there(&hidden)?, there(&visible)?) {
            (true, false) => fs::rename(&hidden, &visible).map_err(|e| cannot("rename", &hidden, &e)),
            (false, true) => Ok(()),
            (true, true) => Err(Error::new(
                Code::Conflict,
                format!("cannot publish `{}`: `{}` exists already", hidden.display(), visible.display()),
            )),
            (false, false) if known.published >= Some(self.epoch) => Ok(()),
            (false, false) => match known.moved_from {
                Some(before) => Err(Error::invalid(format!(
                    "the sink's path changed from `{before}` to `{}` since the checkpoint of epoch {}, whose file `{}` is in the old one; go on with the old path, or start fresh",
                    directory.display(),
                    self.epoch,
                    self.name
                ))),
                None => Err(Error::corrupt(format!(
                    "lost pending file: neither `{}` nor `{}` exists, and the checkpoint of epoch {} needs it; either the sink's path now means another directory, or files were removed before they were published",
                    hidden.display(),
                    visible.display(),
                    self.epoch
                ))),
            },
        }
    }

    /// The hidden file, when it is still there, holds the bytes that were written: after a crash this is what tells
    /// whether the disk kept its promise.
    pub fn verify(&self, directory: &Path) -> Result<()> {
        let path = directory.join(&self.hidden);
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            opened => opened.map_err(|e| cannot("read", &path, &e))?,
        };
        let mut buffer = vec![0; 64 << 10];
        let (mut crc, mut bytes) = (crc32fast::Hasher::new(), 0);
        loop {
            let read = file.read(&mut buffer).map_err(|e| cannot("read", &path, &e))?;
            if read == 0 {
                break;
            }
            crc.update(&buffer[..read]);
            bytes += read as u64;
        }
        let crc32 = crc.finalize();
        if (bytes, crc32) == (self.bytes, self.crc32) {
            return Ok(());
        }
        Err(Error::corrupt(format!(
            "pending file `{}` has {bytes} bytes with crc {crc32:08x}, the checkpoint of epoch {} expects {} with {:08x}",
            path.display(),
            self.epoch,
            self.bytes,
            self.crc32
        )))
    }
}

/// Makes renames and new files of a directory survive a power loss.
pub(super) fn sync_directory(directory: &Path) -> Result<()> {
    File::open(directory).and_then(|opened| opened.sync_all()).map_err(|e| cannot("sync", directory, &e))
}
