//! The ingest log: what was received, on this worker's disk, before it is acknowledged. MQTT cannot replay.
//!
//! [`Log`] writes: a chunk is one write and one fsync, and files are cut back, begun and deleted as [`book`] says.
//! [`Reader`] reads what is durable, at its own pace. Opening verifies the last file and cuts off a torn end. An end is
//! torn where no whole chunk follows: only the last chunk can be unsynced, so damage before a whole one has hit data that
//! was acknowledged, and is an error.

pub mod book;
pub mod disk;
pub mod reader;
pub mod record;
#[cfg(test)]
mod tests;

use crate::error::{Code, Context, Error, Result};
use book::{Action, Book, Event, Segment};
use disk::Disk;
use record::{CHUNK_HEAD, Head, SEGMENT_FRONT, SegmentHead};
use std::collections::BTreeSet;
use std::io;

pub use reader::Reader;

const SUFFIX: &str = ".log";

pub struct Log<D> {
    disk: D,
    book: Book,
    id: u64,
    /// QoS 2 packet ids that were received and not released, as of the last durable record.
    outstanding: BTreeSet<u16>,
}

/// How an append ended.
#[derive(Debug)]
pub enum Appended {
    /// All records below are durable.
    Durable(u64),
    /// There is no room: try again when the floor has risen.
    Full,
    /// Nothing of the chunk counts; the log is at this number again.
    Failed(u64, io::Error),
}

/// What is told of a log that was opened.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened {
    /// Bytes of a torn end.
    pub cut: u64,
    pub files: usize,
}

impl<D: Disk> Log<D> {
    /// Opens what is there, or begins a log with `new_id`.
    pub fn open(mut disk: D, new_id: u64, limit: u64) -> Result<(Log<D>, Opened)> {
        let failed = || "ingest log".to_string();
        let mut firsts: Vec<u64> = disk.list().unavailable(failed)?.iter().filter_map(|name| first_of(name)).collect();
        firsts.sort_unstable();
        let mut cut = 0;
        let mut heads = Vec::with_capacity(firsts.len());
        for (at, first) in firsts.iter().copied().enumerate() {
            let name = name_of(first);
            let front = disk.read(&name, 0, SEGMENT_FRONT).unavailable(failed)?;
            match SegmentHead::read(&front).filter(|(head, _)| head.first == first) {
                Some(head) => heads.push(head),
                // A last file whose head never got to the disk: nothing behind it was durable.
                None if at + 1 == firsts.len() => {
                    cut += disk.length(&name).unavailable(failed)?;
                    disk.delete(&name).unavailable(failed)?;
                }
                None => return Err(Error::corrupt(format!("ingest log: the head of file `{name}` is damaged"))),
            }
        }
        if let Some(other) = heads.windows(2).find(|pair| pair[0].0.log != pair[1].0.log) {
            let name = name_of(other[1].0.first);
            return Err(Error::corrupt(format!("ingest log: file `{name}` is of another log than those before it")));
        }
        let mut segments: Vec<Segment> = Vec::with_capacity(heads.len());
        let mut found = None;
        let files = heads.len();
        for (at, (head, head_bytes)) in heads.into_iter().enumerate() {
            let SegmentHead { log, first, mut outstanding } = head;
            let name = name_of(first);
            let length = disk.length(&name).unavailable(failed)?;
            if at + 1 < files {
                segments.push(Segment { first, end: firsts[at + 1], bytes: length });
                continue;
            }
            let (end, bytes) = scan(&disk, &name, head_bytes as u64, length, first, &mut outstanding)?;
            if bytes < length {
                cut += length - bytes;
                disk.cut(&name, bytes).unavailable(failed)?;
            }
            segments.push(Segment { first, end, bytes });
            found = Some((log, end, outstanding));
        }
        let (id, next, outstanding) = found.unwrap_or((new_id, 0, BTreeSet::new()));
        Ok((Log { disk, book: Book::new(segments, next, limit), id, outstanding }, Opened { cut, files }))
    }

    pub fn id(&self) -> u64 {
        self.id
    }

    pub fn first(&self) -> u64 {
        self.book.first()
    }

    pub fn next(&self) -> u64 {
        self.book.next()
    }

    pub fn outstanding(&self) -> &BTreeSet<u16> {
        &self.outstanding
    }

    /// Goes on with this number, where the disk has lost records that a checkpoint has seen.
    pub fn skip_to(&mut self, next: u64) {
        if next > self.book.next() {
            let mut segments: Vec<Segment> = self.book.segments().copied().collect();
            if let Some(last) = segments.last_mut() {
                last.end = next;
            }
            self.book = Book::new(segments, next, self.book.limit());
        }
    }

    /// `chunk` is sealed and begins where the log ends; `outstanding` is so behind it.
    pub fn append(&mut self, chunk: &[u8], outstanding: &BTreeSet<u16>) -> Appended {
        let Some(head) = Head::read(chunk) else {
            return Appended::Failed(self.book.next(), io::Error::other("the chunk is not sealed"));
        };
        assert_eq!(head.first, self.book.next(), "records are numbered without holes");
        let actions = self.book.step(Event::Chunk { count: head.count.into(), bytes: chunk.len() as u64 });
        match self.carry_out(&actions, chunk) {
            Ok(None) => Appended::Full,
            Ok(Some(head)) => {
                self.outstanding.clone_from(outstanding);
                match self.book.step(Event::Synced { head })[..] {
                    [Action::Durable { end }] => Appended::Durable(end),
                    ref other => unreachable!("a sync makes records durable, not {other:?}"),
                }
            }
            Err(error) => {
                // If cutting fails too, opening the log finds the end of the file by its checksums.
                for action in self.book.step(Event::Failed) {
                    let _ = match action {
                        Action::Cut { segment, bytes } => self.disk.cut(&name_of(segment), bytes),
                        Action::Delete { segment } => self.disk.delete(&name_of(segment)),
                        _ => Ok(()),
                    };
                }
                Appended::Failed(self.book.next(), error)
            }
        }
    }

    /// Bytes of a head that was written; None: there is no room.
    fn carry_out(&mut self, actions: &[Action], chunk: &[u8]) -> io::Result<Option<u64>> {
        let mut head_bytes = 0;
        for action in actions {
            match *action {
                Action::Full => return Ok(None),
                Action::Begin { first } => {
                    let head = SegmentHead { log: self.id, first, outstanding: self.outstanding.clone() }.write();
                    head_bytes = head.len() as u64;
                    self.disk.begin(&name_of(first))?;
                    self.disk.append(&head)?;
                }
                Action::Write { .. } => self.disk.append(chunk)?,
                Action::Durable { .. } | Action::Cut { .. } | Action::Delete { .. } => {}
            }
        }
        self.disk.sync()?;
        Ok(Some(head_bytes))
    }

    /// No record below is asked for any more. A file that cannot be deleted now is deleted by the next opening.
    pub fn floor(&mut self, floor: u64) -> io::Result<()> {
        let mut result = Ok(());
        for action in self.book.step(Event::Floor(floor)) {
            if let Action::Delete { segment } = action {
                result = self.disk.delete(&name_of(segment)).and(result);
            }
        }
        result
    }
}

/// Reads the last file to the end of its last whole chunk: that end's number and place.
fn scan<D: Disk>(
    disk: &D,
    name: &str,
    mut at: u64,
    length: u64,
    mut next: u64,
    outstanding: &mut BTreeSet<u16>,
) -> Result<(u64, u64)> {
    let failed = || format!("ingest log, file `{name}`");
    while at < length {
        let head = Head::read(&disk.read(name, at, CHUNK_HEAD).unavailable(failed)?);
        let chunk = match head.filter(|head| head.first == next && at + head.bytes as u64 <= length) {
            Some(head) => disk.read(name, at, head.bytes).unavailable(failed)?,
            None => Vec::new(),
        };
        if !record::is_whole(&chunk) {
            let rest = disk.read(name, at, (length - at) as usize).unavailable(failed)?;
            if let Some(later) = whole_chunk_in(&rest, next) {
                return Err(Error::new(
                    Code::Corrupt,
                    format!(
                        "ingest log, file `{name}`: damaged at byte {at}, before a whole chunk; messages {next} to {} were \
                         acknowledged and cannot be read",
                        later.saturating_sub(1)
                    ),
                ));
            }
            break;
        }
        let mut record_at = CHUNK_HEAD;
        while let Some((record, behind)) = record::record(&chunk, record_at) {
            record.apply(outstanding);
            record_at = behind;
            next += 1;
        }
        at += chunk.len() as u64;
    }
    Ok((next, at))
}

/// The first record of a whole chunk behind `expected`, anywhere in these bytes.
fn whole_chunk_in(bytes: &[u8], expected: u64) -> Option<u64> {
    memchr::memmem::find_iter(bytes, b"EFMc").find_map(|at| {
        let head = Head::read(&bytes[at..])?;
        let chunk = bytes.get(at..at.checked_add(head.bytes)?)?;
        (head.first > expected && record::is_whole(chunk)).then_some(head.first)
    })
}

/// Sorted by name, files are in order.
fn name_of(first: u64) -> String {
    format!("{first:020}{SUFFIX}")
}

fn first_of(name: &str) -> Option<u64> {
    name.strip_suffix(SUFFIX).filter(|digits| digits.len() == 20)?.parse().ok()
}
