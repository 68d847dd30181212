//! The exactly-once file sink: rows are in visible files once the checkpoint of their epoch is recorded, each once.
//!
//! Rows go to hidden files `.part-<job>-<incarnation>-<subtask>-<counter>.inprogress` in the target directory, which
//! roll by size, by age and at every barrier, as Flink's bulk formats do. `pending` holds the rule by which they
//! become `part-…` files. `<job>` is a digest of the job and the operator, so that two statements that insert into
//! one table never share a name; the incarnation keeps a restarted job from reusing the names of the one before.
//!
//! Restoring the latest checkpoint neither loses nor repeats a row. Restoring an older one by hand rewinds the job:
//! files that were published since then stay, and their rows are written once more under new names.

use super::file::{Writing, cannot};
use super::pending::{Blob, Pending, sync_directory};
use crate::connector::{CommitPermit, Place, Sink};
use crate::error::{Error, Result};
use crate::format::encode::{Encoder, encoder};
use arrow_array::RecordBatch;
use ef_proto::connector::{Compression, FilesystemSink, Format};
use ef_proto::ids::Epoch;
use ef_proto::keys::hash_bytes;
use ef_proto::schema::Schema;
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Encoded bytes are handed to the file in pieces of about this size.
const WRITE_BYTES: usize = 128 << 10;

pub struct FileSink {
    directory: PathBuf,
    names: Names,
    encoder: Box<dyn Encoder>,
    compression: Compression,
    rolling_bytes: u64,
    rolling_interval_ms: u64,
    /// Negative control of the exactly-once tests: publishes at the barrier instead of at the commit.
    commit_early: bool,
    buffer: Vec<u8>,
    current: Option<Current>,
    /// Closed since the last barrier.
    closed: Vec<Pending>,
    /// Prepared, not yet committed, by epoch.
    pending: Vec<Pending>,
    now_ms: i64,
    bytes_written: u64,
}

struct Current {
    file: Writing,
    hidden: String,
    name: String,
    opened_ms: i64,
}

/// Where the names of a subtask's files come from.
struct Names {
    job: String,
    incarnation: u64,
    subtask: u32,
    counter: u64,
    extension: String,
}

impl Names {
    fn next(&mut self) -> (String, String) {
        let stem = format!("part-{}-{}-{}-{}", self.job, self.incarnation, self.subtask, self.counter);
        self.counter += 1;
        (format!(".{stem}.inprogress"), format!("{stem}.{}", self.extension))
    }

    /// The incarnation in a hidden name of this job and operator; None for any other name.
    fn incarnation_of(&self, hidden: &str) -> Option<u64> {
        let rest = hidden.strip_prefix(".part-")?.strip_prefix(&self.job)?.strip_prefix('-')?;
        rest.strip_suffix(".inprogress")?.split('-').next()?.parse().ok()
    }
}

impl FileSink {
    /// `blobs`: of all old subtasks, from the checkpoint that `permit` is for; its files are published here. Both
    /// empty at a fresh start.
    pub fn open(
        options: &FilesystemSink,
        format: &Format,
        schema: &Schema,
        changelog: bool,
        place: &Place,
        blobs: &[Vec<u8>],
        permit: Option<&CommitPermit>,
        commit_early: bool,
    ) -> Result<FileSink> {
        let directory = PathBuf::from(&options.path);
        if directory.is_file() {
            let what = format!(
                "table `{}`: '{}' is a file, expected a directory to write files in",
                place.table, options.path
            );
            return Err(Error::invalid(what));
        }
        fs::create_dir_all(&directory).map_err(|e| cannot("create directory", &directory, &e))?;
        let ending = match format {
            Format::Json(_) | Format::ChangelogJson(_) => "json",
            Format::Csv(_) => "csv",
        };
        let compressed = match options.compression {
            Compression::Auto | Compression::None => "",
            Compression::Gzip => ".gz",
            Compression::Zstd => ".zst",
        };
        let identity = format!("{}/{}", place.job, place.operator);
        let names = Names {
            job: format!("{:012x}", hash_bytes(identity.as_bytes()) >> 16),
            incarnation: place.incarnation,
            subtask: place.index,
            counter: 0,
            extension: format!("{ending}{compressed}"),
        };
        let mut restored = Vec::new();
        for blob in blobs.iter().filter(|blob| !blob.is_empty()) {
            restored.extend(Blob::decode(blob)?.pending);
        }
        let mine = |name: &str| hash_bytes(name.as_bytes()) % place.parallelism.max(1) as u64 == place.index as u64;
        clean(&directory, &names, &restored, mine)?;
        let mut sink = FileSink {
            directory,
            names,
            encoder: encoder(format, schema, changelog),
            compression: options.compression,
            rolling_bytes: options.rolling_bytes,
            rolling_interval_ms: options.rolling_interval_ms,
            commit_early,
            buffer: Vec::with_capacity(WRITE_BYTES * 2),
            current: None,
            closed: Vec::new(),
            pending: restored.into_iter().filter(|file| mine(&file.name)).collect(),
            now_ms: place.now_ms,
            bytes_written: 0,
        };
        for file in &sink.pending {
            file.verify(&sink.directory)?;
        }
        if let Some(permit) = permit {
            sink.commit(permit)?;
        }
        Ok(sink)
    }

    fn current(&mut self) -> Result<&mut Current> {
        if self.current.is_none() {
            self.current = Some(self.create()?);
        }
        Ok(self.current.as_mut().expect("just put there"))
    }

    fn create(&mut self) -> Result<Current> {
        loop {
            let (hidden, name) = self.names.next();
            // An incarnation that was given out twice must not overwrite what it wrote before.
            if self.directory.join(&name).exists() {
                continue;
            }
            if let Some(mut file) = Writing::create(self.directory.join(&hidden), self.compression)? {
                let mut header = Vec::new();
                self.encoder.header(&mut header);
                file.write(&header)?;
                return Ok(Current { file, hidden, name, opened_ms: self.now_ms });
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.buffer);
        self.bytes_written += bytes.len() as u64;
        let written = self.current().and_then(|current| current.file.write(&bytes));
        self.buffer = bytes;
        self.buffer.clear();
        written
    }

    /// Closes the file that is being written. A failed fsync loses the file from every list: it is never committed.
    fn roll(&mut self) -> Result<()> {
        self.flush()?;
        if let Some(Current { file, hidden, name, .. }) = self.current.take() {
            let (bytes, crc32) = file.close()?;
            self.closed.push(Pending { epoch: 0, hidden, name, bytes, crc32 });
        }
        Ok(())
    }

    fn publish(&mut self, epoch: Epoch) -> Result<()> {
        let due = self.pending.iter().filter(|file| file.epoch <= epoch.0);
        let mut published = 0;
        for file in due {
            file.publish(&self.directory)?;
            published += 1;
        }
        if published > 0 {
            sync_directory(&self.directory)?;
            self.pending.retain(|file| file.epoch > epoch.0);
        }
        Ok(())
    }
}

impl Sink for FileSink {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.encoder.encode(batch, &mut self.buffer)?;
        if self.buffer.len() >= WRITE_BYTES {
            self.flush()?;
        }
        let written = self.current.as_ref().map_or(0, |current| current.file.bytes());
        if written + self.buffer.len() as u64 >= self.rolling_bytes {
            self.roll()?;
        }
        Ok(())
    }

    fn prepare(&mut self, epoch: Epoch) -> Result<Vec<u8>> {
        self.roll()?;
        if !self.closed.is_empty() {
            sync_directory(&self.directory)?;
            self.pending.extend(self.closed.drain(..).map(|file| Pending { epoch: epoch.0, ..file }));
        }
        let blob = Blob { pending: self.pending.clone() }.encode()?;
        if self.commit_early {
            self.publish(epoch)?;
        }
        Ok(blob)
    }

    fn commit(&mut self, permit: &CommitPermit) -> Result<()> {
        self.publish(permit.epoch())
    }

    fn on_clock(&mut self, now_ms: i64) -> Result<()> {
        self.now_ms = now_ms;
        let age = self.current.as_ref().map_or(0, |current| now_ms - current.opened_ms);
        if age >= 0 && age as u64 >= self.rolling_interval_ms && self.current.is_some() {
            self.roll()?;
        }
        Ok(())
    }

    fn bytes_written(&self) -> u64 {
        self.bytes_written + self.buffer.len() as u64
    }
}

/// Deletes what earlier incarnations of this sink left unfinished. Only older incarnations: the other subtasks of ours
/// may be writing already. Each name has one subtask that deletes it.
fn clean(directory: &Path, names: &Names, restored: &[Pending], mine: impl Fn(&str) -> bool) -> Result<()> {
    let kept: HashSet<&str> = restored.iter().map(|file| file.hidden.as_str()).collect();
    for entry in fs::read_dir(directory).map_err(|e| cannot("list", directory, &e))? {
        let entry = entry.map_err(|e| cannot("list", directory, &e))?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let older = names.incarnation_of(name).is_some_and(|incarnation| incarnation < names.incarnation);
        if older && !kept.contains(name) && mine(name) {
            fs::remove_file(entry.path()).map_err(|e| cannot("delete", &entry.path(), &e))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
