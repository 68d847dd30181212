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
use super::marker::Markers;
use super::pending::{Blob, Known, Pending, sync_directory};
use crate::connector::{CommitPermit, Place, Sink};
use crate::error::{Error, Result};
use crate::format::encode::{Encoder, encoder};
use arrow_array::RecordBatch;
use ef_proto::connector::{Compression, FilesystemSink, Format};
use ef_proto::ids::Epoch;
use ef_proto::keys::hash_bytes;
use ef_proto::schema::Schema;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Encoded bytes are handed to the file in pieces of about this size.
const WRITE_BYTES: usize = 128 << 10;

pub struct FileSink {
    /// The path as the statement gives it.
    path: String,
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
    /// The path in the checkpoint that the sink was restored from, if it is another.
    moved_from: Option<String>,
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

    /// The incarnation and the subtask in a hidden name of this job and operator; None for any other name.
    fn writer_of(&self, hidden: &str) -> Option<(u64, u32)> {
        let rest = hidden.strip_prefix(".part-")?.strip_prefix(&self.job)?.strip_prefix('-')?;
        let mut parts = rest.strip_suffix(".inprogress")?.split('-');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
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
        create(&directory)?;
        let ending = match format {
            Format::Json(_) | Format::ChangelogJson(_) | Format::DebeziumJson(_) => "json",
            Format::Csv(_) => "csv",
            Format::Raw(_) => "txt",
            // Refused when the table was planned.
            Format::Protobuf(_) | Format::Avro(_) | Format::AvroConfluent(_) => {
                let what =
                    format!("table `{}`: format '{}' has no lines to write to files", place.table, format.name());
                return Err(Error::invalid(what));
            }
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
        let (mut restored, mut moved_from) = (Vec::new(), None);
        for blob in blobs.iter().filter(|blob| !blob.is_empty()) {
            let blob = Blob::decode(blob)?;
            moved_from = moved_from.or(blob.path.filter(|path| *path != options.path));
            restored.extend(blob.pending);
        }
        // All files of an old subtask go to one of ours, so that its marker can speak for all of them.
        let mine = |subtask: u32| subtask % place.parallelism.max(1) == place.index;
        clean(&directory, &names, &restored, mine)?;
        let mut sink = FileSink {
            path: options.path.clone(),
            directory,
            names,
            encoder: encoder(format, schema, changelog)?,
            compression: options.compression,
            rolling_bytes: options.rolling_bytes,
            rolling_interval_ms: options.rolling_interval_ms,
            commit_early,
            buffer: Vec::with_capacity(WRITE_BYTES * 2),
            current: None,
            closed: Vec::new(),
            pending: restored.into_iter().filter(|file| mine(file.subtask().unwrap_or(0))).collect(),
            moved_from,
            now_ms: place.now_ms,
            bytes_written: 0,
        };
        for file in &sink.pending {
            file.verify(&sink.directory)?;
        }
        if let Some(permit) = permit {
            sink.commit(permit)?;
        }
        sink.markers().rewind(permit.map(|permit| permit.epoch().0), mine)?;
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

    fn markers(&self) -> Markers<'_> {
        Markers { directory: &self.directory, job: &self.names.job }
    }

    fn publish(&mut self, epoch: Epoch) -> Result<()> {
        let markers = self.markers();
        // By the subtask that wrote them: after a rescale the files of several may be ours.
        let mut writers: BTreeMap<u32, Option<u64>> = BTreeMap::new();
        for file in self.pending.iter().filter(|file| file.epoch <= epoch.0) {
            let writer = file.subtask().unwrap_or(self.names.subtask);
            let published = match writers.get(&writer) {
                Some(published) => *published,
                None => *writers.entry(writer).or_insert(markers.read(writer)?),
            };
            file.publish(&self.directory, &Known { published, moved_from: self.moved_from.as_deref() })?;
        }
        if writers.is_empty() {
            return Ok(());
        }
        sync_directory(&self.directory)?;
        for (writer, published) in writers {
            if published < Some(epoch.0) {
                markers.write(writer, epoch.0)?;
            }
        }
        self.pending.retain(|file| file.epoch > epoch.0);
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
        let blob = Blob { path: Some(self.path.clone()), pending: self.pending.clone() }.encode()?;
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

/// Makes the directory and those above it, durably: files synced in a directory that a power loss takes away are lost.
fn create(directory: &Path) -> Result<()> {
    let grown = to_grow(directory);
    fs::create_dir_all(directory).map_err(|e| cannot("create directory", directory, &e))?;
    grown.iter().try_for_each(|parent| sync_directory(parent))
}

/// The directories that get a new entry when `directory` is made, the lowest first.
fn to_grow(directory: &Path) -> Vec<PathBuf> {
    let missing = directory.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists());
    let parent = |path: &Path| path.parent().filter(|parent| !parent.as_os_str().is_empty()).map(Path::to_path_buf);
    missing.map(|path| parent(path).unwrap_or_else(|| PathBuf::from("."))).collect()
}

/// Deletes what earlier incarnations of this sink left unfinished. Only older incarnations: the other subtasks of ours
/// may be writing already. Each name has one subtask that deletes it.
fn clean(directory: &Path, names: &Names, restored: &[Pending], mine: impl Fn(u32) -> bool) -> Result<()> {
    let kept: HashSet<&str> = restored.iter().map(|file| file.hidden.as_str()).collect();
    for entry in fs::read_dir(directory).map_err(|e| cannot("list", directory, &e))? {
        let entry = entry.map_err(|e| cannot("list", directory, &e))?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let writer = names.writer_of(name);
        let stale = writer.is_some_and(|(incarnation, subtask)| incarnation < names.incarnation && mine(subtask));
        if stale && !kept.contains(name) {
            fs::remove_file(entry.path()).map_err(|e| cannot("delete", &entry.path(), &e))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
