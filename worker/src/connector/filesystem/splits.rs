//! Cutting files into chunks and dealing them to subtasks. Pure: the same list gives the same deal everywhere.
//!
//! A chunk owns the lines that start in it. Chunks are numbered over all files in order and dealt in turn, so that all
//! subtasks go through the same region of a file at the same time and their watermarks stay together.

use super::listing::{Codec, File};
use serde::{Deserialize, Serialize};

/// To the end of the file, wherever that is.
pub(super) const OPEN_END: u64 = u64::MAX;

/// A range of one file, in bytes after decompression, and how far it has been read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Chunk {
    pub start: u64,
    pub end: u64,
    /// Offset of the next row; None while not even the first line has been looked for.
    pub at: Option<u64>,
    /// Line ends before `at`, from the chunk's first line.
    pub lines: u64,
}

impl Chunk {
    pub fn new(start: u64, end: u64) -> Chunk {
        Chunk { start, end, at: None, lines: 0 }
    }
}

/// The chunks of a file. `splittable`: a line end is always the end of a row.
pub(super) fn cut(file: &File, split_bytes: u64, splittable: bool) -> Vec<Chunk> {
    if !file.regular || file.codec != Codec::Plain {
        return vec![Chunk::new(0, OPEN_END)];
    }
    // No chunk is all byte order mark: the line behind it would be nobody's.
    let step = if splittable { split_bytes.max(4) } else { file.size.max(1) };
    (0..file.size.div_ceil(step)).map(|n| Chunk::new(n * step, ((n + 1) * step).min(file.size))).collect()
}

/// The chunks of one subtask: those of each file together, in order.
pub(super) fn deal(files: Vec<Vec<Chunk>>, index: u32, parallelism: u32) -> Vec<Vec<Chunk>> {
    let mut number = 0u64;
    let mut mine = |_: &Chunk| {
        number += 1;
        (number - 1) % parallelism as u64 == index as u64
    };
    files.into_iter().map(|chunks| chunks.into_iter().filter(&mut mine).collect()).collect()
}

/// The subtask that follows a file of a monitored path: the same one under whatever name.
pub(super) fn owner(inode: u64, parallelism: u32) -> u32 {
    crc32fast::hash(&inode.to_le_bytes()) % parallelism
}
