//! The note that a subtask's files were published: `.published-<job>-<subtask>`, which holds the newest such epoch.
//!
//! Taking finished files out of a sink's directory is what they are there for. At a restore a file of the checkpoint
//! that has neither its hidden nor its final name is then either such a file or a lost one; the note tells which. It is
//! written after the renames are on disk, so that it never promises too much; it only ever speaks of the newest epoch,
//! and a start from an older one, or from none, takes it back.

use super::file::cannot;
use super::pending::sync_directory;
use crate::error::{Context, Result};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Where the notes of one job and operator are; `job` is their digest in file names.
pub(super) struct Markers<'a> {
    pub directory: &'a Path,
    pub job: &'a str,
}

impl Markers<'_> {
    fn path(&self, subtask: u32) -> PathBuf {
        self.directory.join(format!(".published-{}-{subtask}", self.job))
    }

    /// The newest epoch of which all files of `subtask` have been published.
    pub fn read(&self, subtask: u32) -> Result<Option<u64>> {
        let path = self.path(subtask);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|e| cannot("read", &path, &e))?,
        };
        text.trim().parse().map(Some).corrupt(|| format!("`{}` holds no epoch", path.display()))
    }

    pub fn write(&self, subtask: u32, epoch: u64) -> Result<()> {
        let path = self.path(subtask);
        let temporary = self.directory.join(format!(".published-{}-{subtask}.tmp", self.job));
        File::create(&temporary)
            .and_then(|mut file| writeln!(file, "{epoch}").and_then(|()| file.sync_all()))
            .map_err(|e| cannot("write", &temporary, &e))?;
        fs::rename(&temporary, &path).map_err(|e| cannot("rename", &temporary, &e))?;
        sync_directory(self.directory)
    }

    /// Takes back what is said of epochs behind the one that the job starts from (None: from none).
    pub fn rewind(&self, to: Option<u64>, mine: impl Fn(u32) -> bool) -> Result<()> {
        let prefix = format!(".published-{}-", self.job);
        for entry in fs::read_dir(self.directory).map_err(|e| cannot("list", self.directory, &e))? {
            let entry = entry.map_err(|e| cannot("list", self.directory, &e))?;
            let name = entry.file_name();
            let subtask = name.to_str().and_then(|name| name.strip_prefix(&prefix)).and_then(|rest| rest.parse().ok());
            let Some(subtask) = subtask.filter(|subtask| mine(*subtask)) else { continue };
            match to {
                Some(to) if self.read(subtask)? <= Some(to) => {}
                Some(to) => self.write(subtask, to)?,
                None => fs::remove_file(entry.path()).map_err(|e| cannot("delete", &entry.path(), &e))?,
            }
        }
        Ok(())
    }
}
