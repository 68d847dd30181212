//! The rows of one subtask between the operators and Kafka: appended as they come, sealed at a barrier, read back when
//! their checkpoint has completed. Few rows stay in memory and go into the checkpoint's blob, more go to a file.
//!
//! Files are this process's working copies: what has to survive a crash is in the checkpoint. They are never changed once
//! sealed (the store links them), and go with the last one who holds the segment.

use super::blob::SegmentState;
use super::record::{Record, torn};
use crate::error::{Context, Error, Result};
use bytes::Bytes;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Rows of an epoch that are no more than this lie in the checkpoint's manifest: no object of their own, and the barrier
/// waits for no upload.
const INLINE_BYTES: usize = 32 << 10;

/// Bytes of rows in memory before they go to the file; and of a file when it is read back.
const BUFFER_BYTES: usize = 256 << 10;

/// Unpublished bytes of a subtask, in memory and in files.
pub type Held = Arc<AtomicU64>;

pub struct Spool {
    directory: PathBuf,
    files: u64,
    buffer: Vec<u8>,
    file: Option<(File, PathBuf)>,
    rows: u64,
    bytes: u64,
    crc: crc32fast::Hasher,
    held: Held,
}

/// The rows of one epoch.
#[derive(Debug)]
pub struct Segment {
    pub epoch: u64,
    pub rows: u64,
    pub bytes: u64,
    crc32: u32,
    content: Content,
    held: Held,
}

#[derive(Debug)]
enum Content {
    Inline(Bytes),
    File(PathBuf),
}

impl Spool {
    pub fn new(directory: PathBuf, held: Held) -> Spool {
        let crc = crc32fast::Hasher::new();
        Spool { directory, files: 0, buffer: Vec::new(), file: None, rows: 0, bytes: 0, crc, held }
    }

    pub fn append(&mut self, record: Record<'_>) -> Result<()> {
        let before = self.buffer.len();
        record.write(&mut self.buffer);
        let added = (self.buffer.len() - before) as u64;
        self.rows += 1;
        self.bytes += added;
        self.held.fetch_add(added, Ordering::Relaxed);
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        if self.file.is_none() {
            let directory = &self.directory;
            ef_store::create_directory(directory)
                .unavailable(|| format!("cannot make the spool's directory `{}`", directory.display()))?;
            self.files += 1;
            let path = directory.join(format!("{:08}.rows", self.files));
            let file = File::create(&path).unavailable(|| format!("cannot make the spool `{}`", path.display()))?;
            self.file = Some((file, path));
        }
        let (file, path) = self.file.as_mut().expect("just put there");
        file.write_all(&self.buffer).unavailable(|| format!("cannot write to the spool `{}`", path.display()))?;
        self.crc.update(&self.buffer);
        self.buffer.clear();
        Ok(())
    }

    /// The rows since the last call; None: there are none. `inline`: they may stay in memory if they are few.
    pub fn seal(&mut self, epoch: u64, inline: bool) -> Result<Option<Segment>> {
        if self.rows == 0 {
            return Ok(None);
        }
        let content = if inline && self.file.is_none() && self.buffer.len() <= INLINE_BYTES {
            self.crc.update(&self.buffer);
            Content::Inline(Bytes::copy_from_slice(&self.buffer))
        } else {
            self.flush()?;
            let (_, path) = self.file.take().expect("it has been written to");
            Content::File(path)
        };
        self.buffer.clear();
        let crc32 = std::mem::take(&mut self.crc).finalize();
        let (rows, bytes) = (std::mem::take(&mut self.rows), std::mem::take(&mut self.bytes));
        Ok(Some(Segment { epoch, rows, bytes, crc32, content, held: self.held.clone() }))
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if let Some((_, path)) = self.file.take() {
            // Else it goes with the deployment's directory.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Segment {
    /// One that a checkpoint holds; its file, if it has one, lies in `downloaded` and is taken from there to `path`.
    pub fn restore(state: SegmentState, downloaded: Option<&Path>, path: PathBuf, held: Held) -> Result<Segment> {
        let SegmentState { epoch, rows, bytes, crc32, file, inline } = state;
        let content = if file.is_empty() {
            Content::Inline(inline)
        } else {
            let missing =
                || Error::corrupt(format!("the checkpoint has no file `{file}` for the rows of epoch {epoch}"));
            let from = downloaded.ok_or_else(missing)?.join(&file);
            if !from.exists() {
                return Err(missing());
            }
            if let Some(directory) = path.parent() {
                ef_store::create_directory(directory)
                    .unavailable(|| format!("cannot make the spool's directory `{}`", directory.display()))?;
            }
            std::fs::rename(&from, &path)
                .unavailable(|| format!("cannot move `{}` to `{}`", from.display(), path.display()))?;
            Content::File(path)
        };
        held.fetch_add(bytes, Ordering::Relaxed);
        Ok(Segment { epoch, rows, bytes, crc32, content, held })
    }

    /// As the blob describes it, staged under this name if it is a file.
    pub fn state(&self, name: &str) -> SegmentState {
        let (file, inline) = match &self.content {
            Content::Inline(bytes) => (String::new(), bytes.clone()),
            Content::File(_) => (name.to_owned(), Bytes::new()),
        };
        SegmentState { epoch: self.epoch, rows: self.rows, bytes: self.bytes, crc32: self.crc32, file, inline }
    }

    /// Bytes of rows that lie in memory and in the blob.
    pub fn inline_bytes(&self) -> usize {
        match &self.content {
            Content::Inline(bytes) => bytes.len(),
            Content::File(_) => 0,
        }
    }

    pub fn file(&self) -> Option<&Path> {
        match &self.content {
            Content::Inline(_) => None,
            Content::File(path) => Some(path),
        }
    }

    /// Every record in order. Err at the end, too: what was read is not what was written.
    pub fn each(&self, mut f: impl FnMut(Record<'_>) -> Result<()>) -> Result<()> {
        let (mut rows, mut crc) = (0, crc32fast::Hasher::new());
        let mut counted = |record: Record<'_>| {
            rows += 1;
            f(record)
        };
        match &self.content {
            Content::Inline(bytes) => {
                crc.update(bytes);
                Record::each(bytes, &mut counted)?;
            }
            Content::File(path) => {
                let failed = || format!("cannot read the spool `{}`", path.display());
                let mut file = File::open(path).unavailable(failed)?;
                let mut buffer = vec![0; BUFFER_BYTES];
                // What is read and not taken: `buffer[..tail]`.
                let mut tail = 0;
                loop {
                    if tail == buffer.len() {
                        buffer.resize(tail * 2, 0);
                    }
                    let read = file.read(&mut buffer[tail..]).unavailable(failed)?;
                    if read == 0 {
                        break;
                    }
                    crc.update(&buffer[tail..tail + read]);
                    tail += read;
                    let mut head = 0;
                    while let Some((record, length)) = Record::read(&buffer[head..tail]) {
                        counted(record)?;
                        head += length;
                    }
                    buffer.copy_within(head..tail, 0);
                    tail -= head;
                }
                if tail > 0 {
                    return Err(torn());
                }
            }
        }
        if (rows, crc.finalize()) != (self.rows, self.crc32) {
            return Err(Error::corrupt(format!("the spool of epoch {} is not what was written", self.epoch)));
        }
        Ok(())
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::Relaxed);
        if let Content::File(path) = &self.content {
            // Else it goes with the deployment's directory.
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(of: &Segment) -> Vec<(Option<Vec<u8>>, Option<Vec<u8>>)> {
        let mut rows = Vec::new();
        let kept = of.each(|record| {
            rows.push((record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec)));
            Ok(())
        });
        kept.expect("reads back");
        rows
    }

    fn fill(spool: &mut Spool, count: usize, bytes: usize) -> Vec<(Option<Vec<u8>>, Option<Vec<u8>>)> {
        let rows = (0..count).map(|i| (Some(i.to_string().into_bytes()), (i % 7 > 0).then(|| vec![i as u8; bytes])));
        let rows: Vec<_> = rows.collect();
        for (key, value) in &rows {
            spool.append(Record { key: key.as_deref(), value: value.as_deref() }).expect("a writable directory");
        }
        rows
    }

    #[test]
    fn rows_read_back_whether_they_are_few_or_many_or_huge_and_count_until_they_are_let_go() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let held = Held::default();
        let mut spool = Spool::new(directory.path().join("spool"), held.clone());
        assert!(spool.seal(1, true).expect("nothing to write").is_none());
        for (epoch, (count, bytes, is_file)) in
            (2..).zip([(3, 10, false), (5000, 100, true), (3, BUFFER_BYTES * 3, true), (1, 0, false)])
        {
            let expected = fill(&mut spool, count, bytes);
            let segment = spool.seal(epoch, true).expect("writable").expect("rows");
            assert_eq!((segment.epoch, segment.file().is_some()), (epoch, is_file));
            assert_eq!(rows(&segment), expected);
            assert_eq!(held.load(Ordering::Relaxed), segment.bytes);
        }
        // Where there is no more room in memory.
        let expected = fill(&mut spool, 3, 10);
        let segment = spool.seal(9, false).expect("writable").expect("rows");
        assert!(segment.file().is_some() && segment.inline_bytes() == 0);
        assert_eq!(rows(&segment), expected);
        drop(segment);
        assert_eq!(held.load(Ordering::Relaxed), 0);
        let left = std::fs::read_dir(directory.path().join("spool")).expect("it was made").count();
        assert_eq!(left, 0, "files go with their segments");
    }

    #[test]
    fn restored_segment_is_the_one_that_was_staged_and_a_damaged_one_is_refused() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let held = Held::default();
        let mut spool = Spool::new(directory.path().join("spool"), held.clone());
        for (count, name) in [(3, "inline"), (5000, "file")] {
            let expected = fill(&mut spool, count, 100);
            let segment = spool.seal(7, true).expect("writable").expect("rows");
            let state = segment.state(name);
            if let Some(path) = segment.file() {
                std::fs::copy(path, directory.path().join(name)).expect("as an upload and a download do");
            }
            let restore = |state| {
                let to = directory.path().join("restored").join(name);
                Segment::restore(state, Some(directory.path()), to, held.clone())
            };
            let restored = restore(state.clone()).expect("whole");
            assert_eq!(rows(&restored), expected);
            if name == "file" {
                drop(restored);
                let error = restore(state.clone()).expect_err("the file is gone");
                assert!(error.message.contains("no file `file`"), "{error}");
                let mut bytes = std::fs::read(segment.file().expect("many rows")).expect("still held");
                *bytes.last_mut().expect("some") ^= 1;
                std::fs::write(directory.path().join(name), bytes).expect("ours");
                let damaged = restore(state).expect("it is there");
                let error = damaged.each(|_| Ok(())).expect_err("damaged");
                assert!(error.message.contains("epoch 7 is not what was written"), "{error}");
            }
        }
    }
}
