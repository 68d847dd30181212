//! A file of a subtask: what is left to read of it, and how it is recognised.

use super::listing::{self, Codec, File, HEAD_BYTES};
use super::position::FilePosition;
use super::reader::{Reader, count_lines};
use super::splits::{Chunk, OPEN_END};
use crate::error::{Context, Result};
use std::collections::VecDeque;
use std::fs;
use std::sync::Arc;

pub(super) struct Input {
    pub file: File,
    /// Length and crc32 of the first bytes. Of a followed file those that have been read, up to a kilobyte.
    pub head: (u64, u32),
    /// What is left to read, in order; of a followed file one chunk, for ever.
    pub chunks: VecDeque<Chunk>,
    pub lane: Option<Lane>,
    /// The open file. Followed, it stays open while the lane is closed: what is appended before the file is renamed or
    /// deleted can still be read.
    pub handle: Option<Arc<fs::File>>,
    /// When it was last read, in polls.
    pub used: u64,
    /// Followed: all bytes of the file before this one have been looked at, the part of a last line too.
    pub seen: u64,
    /// Followed: scans in a row that did not find it.
    pub missing: u32,
    pub lines: Lines,
}

/// An open lane.
pub(super) struct Lane {
    pub number: usize,
    pub reader: Option<Reader>,
    /// Followed: nothing to read since this clock.
    pub quiet_since: Option<i64>,
    /// Not to be read before the others have had their turn: a pipe has nothing, or a huge row is being passed over.
    pub rests: bool,
    pub done: bool,
}

impl Input {
    pub fn new(file: File, head: (u64, u32), chunks: Vec<Chunk>) -> Input {
        let seen = match file.codec {
            Codec::Plain => chunks[0].at.unwrap_or(0),
            // Read to the end that it had.
            _ if chunks[0].end != OPEN_END => file.size,
            _ => 0,
        };
        Input {
            file,
            head,
            chunks: chunks.into(),
            lane: None,
            handle: None,
            used: 0,
            seen,
            missing: 0,
            lines: Lines::default(),
        }
    }

    /// Whether new rows can come behind those that are there, by appending.
    pub fn grows(&self) -> bool {
        self.file.regular && self.file.codec == Codec::Plain
    }

    /// Bytes of the file that have been read.
    fn read_bytes(&self) -> u64 {
        match (self.file.codec, self.chunks.front(), &self.lane) {
            (Codec::Plain, Some(chunk), _) => chunk.at.unwrap_or(0),
            (_, _, Some(Lane { reader: Some(reader), .. })) => self.seen.max(reader.raw_bytes()),
            _ => self.seen,
        }
    }

    /// Makes the head that tells a followed file from others as long as what has been read of it.
    pub fn extend_head(&mut self) -> Result<()> {
        let length = self.read_bytes().min(HEAD_BYTES);
        if length > self.head.0
            && self.file.regular
            && let Some(handle) = &self.handle
        {
            self.head = listing::head(handle, length).invalid(|| format!("file \"{}\"", self.file.path))?;
        }
        Ok(())
    }

    /// Whether `file` begins with what has been read of this one.
    pub fn is_begun_by(&self, file: &File) -> bool {
        if !file.regular {
            return true;
        }
        file.size >= self.read_bytes() && file.head(Some(self.head.0)).is_ok_and(|head| head == self.head)
    }

    pub fn position(&self) -> FilePosition {
        FilePosition {
            path: self.file.path.clone(),
            size: self.file.size.max(if self.file.regular { self.read_bytes() } else { 0 }),
            head: self.head,
            inode: Some(self.file.id.1),
            chunks: self.chunks.iter().cloned().collect(),
        }
    }
}

/// Line ends of a file counted so far for messages.
#[derive(Default)]
pub(super) struct Lines {
    upto: u64,
    count: u64,
}

impl Lines {
    /// The number of the line that begins at `offset`.
    pub fn at(&mut self, offset: u64, path: &str) -> Result<u64> {
        if self.upto > offset {
            *self = Lines::default();
        }
        self.count += count_lines(path, self.upto, offset)?;
        self.upto = offset;
        Ok(self.count + 1)
    }
}
