//! The format of [`Layout::Entries`](ef_proto::checkpoint::Layout): key-value entries in compressed, checked blocks.
//!
//! `EFST`, version, then blocks: raw bytes, stored bytes, entries (u32 each), crc32 of these and of the stored bytes,
//! then the stored bytes (zstd). A raw block is a run of (key length, value length: u32, key, value). A block without
//! entries ends the file; its raw bytes hold the number of all entries, so that a missing block is noticed. All
//! numbers are little endian. Entries keep the order in which they were written.

use super::Visit;
use crate::error::{Context, Error, Result};
use bytes::Bytes;
use std::io::{ErrorKind, Read};

const MAGIC: &[u8; 5] = b"EFST\x01";
/// Compressed at once. Small enough that a reader's memory does not matter, large enough for zstd.
const BLOCK_BYTES: usize = 256 << 10;
const HEADER_BYTES: usize = 16;
/// A file is one upload in one piece.
const FILE_BYTES_MAX: usize = 48 << 20;
/// No block of ours is larger than one entry and a block; protects the reader's memory from a damaged length.
const ENTRY_BYTES_MAX: usize = 256 << 20;

/// Gathers entries into files of bounded size, in memory and already compressed.
pub struct Writer {
    files: Vec<Bytes>,
    file: Vec<u8>,
    block: Vec<u8>,
    block_entries: u32,
    file_entries: u64,
    compressor: zstd::bulk::Compressor<'static>,
}

impl Writer {
    pub fn new() -> Result<Writer> {
        let compressor = zstd::bulk::Compressor::new(1).internal(|| "cannot set up zstd".into())?;
        Ok(Writer {
            files: Vec::new(),
            file: Vec::new(),
            block: Vec::new(),
            block_entries: 0,
            file_entries: 0,
            compressor,
        })
    }

    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if key.len() + value.len() > ENTRY_BYTES_MAX {
            return Err(Error::invalid(format!(
                "a state entry of {} bytes is too large; at most {ENTRY_BYTES_MAX} bytes are possible",
                key.len() + value.len()
            )));
        }
        self.block.extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.block.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.block.extend_from_slice(key);
        self.block.extend_from_slice(value);
        self.block_entries += 1;
        if self.block.len() >= BLOCK_BYTES {
            self.end_block()?;
            if self.file.len() >= FILE_BYTES_MAX {
                self.end_file()?;
            }
        }
        Ok(())
    }

    /// The files written; none if there was no entry.
    pub fn finish(mut self) -> Result<Vec<Bytes>> {
        self.end_block()?;
        self.end_file()?;
        Ok(self.files)
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        self.files.iter().map(Bytes::len).sum::<usize>() + self.file.capacity() + self.block.capacity()
    }

    fn end_block(&mut self) -> Result<()> {
        if self.block_entries > 0 {
            self.write_block(self.block_entries)?;
            self.file_entries += u64::from(self.block_entries);
            self.block_entries = 0;
        }
        Ok(())
    }

    fn end_file(&mut self) -> Result<()> {
        if self.file_entries > 0 {
            self.block.extend_from_slice(&self.file_entries.to_le_bytes());
            self.write_block(0)?;
            self.file_entries = 0;
            self.files.push(Bytes::from(std::mem::take(&mut self.file)));
        }
        Ok(())
    }

    /// Compresses `block` to the end of `file` and empties it.
    fn write_block(&mut self, entries: u32) -> Result<()> {
        if self.file.is_empty() {
            self.file.extend_from_slice(MAGIC);
        }
        let stored = self.compressor.compress(&self.block).internal(|| "cannot compress a block of state".into())?;
        let header = header(self.block.len() as u32, stored.len() as u32, entries);
        let crc = crc(&header, &stored);
        self.file.extend_from_slice(&header);
        self.file.extend_from_slice(&crc.to_le_bytes());
        self.file.extend_from_slice(&stored);
        self.block.clear();
        Ok(())
    }
}

fn header(raw: u32, stored: u32, entries: u32) -> [u8; 12] {
    let mut header = [0; 12];
    header[..4].copy_from_slice(&raw.to_le_bytes());
    header[4..8].copy_from_slice(&stored.to_le_bytes());
    header[8..].copy_from_slice(&entries.to_le_bytes());
    header
}

fn crc(header: &[u8], stored: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(header);
    crc.update(stored);
    crc.finalize()
}

/// Reads one file, entry by entry; `name` is for the error messages. False if the visitor stopped it.
pub fn read(mut file: impl Read, name: &str, visit: Visit<'_>) -> Result<bool> {
    let damaged = |what: String| Error::corrupt(format!("state file `{name}` is damaged: {what}"));
    let fill = |file: &mut dyn Read, buffer: &mut [u8]| {
        file.read_exact(buffer).map_err(|e| match e.kind() {
            ErrorKind::UnexpectedEof => damaged("it is cut short".into()),
            _ => Error::new(crate::error::Code::Unavailable, format!("cannot read state file `{name}`: {e}")),
        })
    };
    let mut magic = [0; MAGIC.len()];
    fill(&mut file, &mut magic)?;
    if &magic != MAGIC {
        return Err(damaged("it does not start with `EFST` and version 1".into()));
    }
    let (mut stored, mut raw, mut total) = (Vec::new(), Vec::new(), 0u64);
    loop {
        let mut head = [0; HEADER_BYTES];
        fill(&mut file, &mut head)?;
        let [raw_bytes, stored_bytes, entries, checksum] =
            [0, 4, 8, 12].map(|at| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]));
        let most = ENTRY_BYTES_MAX + 2 * BLOCK_BYTES;
        if raw_bytes as usize > most || stored_bytes as usize > most {
            return Err(damaged(format!("a block of {raw_bytes} bytes is longer than any that is written")));
        }
        stored.resize(stored_bytes as usize, 0);
        fill(&mut file, &mut stored)?;
        if crc(&head[..12], &stored) != checksum {
            return Err(damaged(format!("the crc32 of the block after entry {total} does not match")));
        }
        raw.clear();
        raw.reserve(raw_bytes as usize);
        zstd::bulk::Decompressor::new()
            .and_then(|mut zstd| zstd.decompress_to_buffer(&stored, &mut raw))
            .map_err(|e| damaged(e.to_string()))?;
        if entries == 0 {
            return match raw.as_slice().try_into().map(u64::from_le_bytes) {
                Ok(written) if written == total => Ok(true),
                _ => Err(damaged(format!("it holds {total} entries, another number than was written"))),
            };
        }
        let mut rest = raw.as_slice();
        for _ in 0..entries {
            let (key, value) = split_entry(&mut rest).ok_or_else(|| damaged("an entry is cut short".into()))?;
            if !visit(key, value)? {
                return Ok(false);
            }
        }
        total += u64::from(entries);
    }
}

fn split_entry<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (key_bytes, tail) = rest.split_first_chunk()?;
    let (value_bytes, tail) = tail.split_first_chunk()?;
    let (key, tail) = tail.split_at_checked(u32::from_le_bytes(*key_bytes) as usize)?;
    let (value, tail) = tail.split_at_checked(u32::from_le_bytes(*value_bytes) as usize)?;
    *rest = tail;
    Some((key, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Entries = Vec<(Vec<u8>, Vec<u8>)>;

    fn write(entries: &Entries) -> Vec<Bytes> {
        let mut writer = Writer::new().expect("zstd is there");
        entries.iter().for_each(|(key, value)| writer.put(key, value).expect("memory only"));
        writer.finish().expect("memory only")
    }

    fn read_all(files: &[impl AsRef<[u8]>]) -> Result<Entries> {
        let mut found = Vec::new();
        for file in files {
            read(file.as_ref(), "test", &mut |key, value| {
                found.push((key.to_vec(), value.to_vec()));
                Ok(true)
            })?;
        }
        Ok(found)
    }

    fn entries() -> impl Strategy<Value = Entries> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..20);
        prop::collection::vec((bytes(), bytes()), 0..12)
    }

    proptest! {
        #[test]
        fn entries_read_back_in_order(entries in entries()) {
            prop_assert_eq!(read_all(&write(&entries)), Ok(entries));
        }

        #[test]
        fn every_flipped_or_missing_byte_is_detected(entries in entries(), flip in 1..=255u8) {
            for file in write(&entries) {
                let mut file = file.to_vec();
                for at in 0..file.len() {
                    file[at] ^= flip;
                    prop_assert!(read_all(&[&file]).is_err(), "byte {at}");
                    file[at] ^= flip;
                    prop_assert!(read_all(&[&file[..at]]).is_err(), "cut at {at}");
                }
            }
        }
    }

    #[test]
    fn many_blocks_read_back() {
        let entries: Entries = (0..50_000u32).map(|i| (i.to_be_bytes().into(), vec![i as u8; 40])).collect();
        assert!(read_all(&write(&entries)).expect("just written") == entries);
    }

    #[test]
    fn missing_block_is_detected() {
        let entries: Entries = (0..50_000u32).map(|i| (i.to_be_bytes().into(), vec![i as u8; 40])).collect();
        let file = write(&entries).remove(0);
        let stored = u32::from_le_bytes([file[9], file[10], file[11], file[12]]) as usize;
        let without_first = [MAGIC, &file[MAGIC.len() + HEADER_BYTES + stored..]].concat();
        let error = read_all(&[without_first]).expect_err("a block is missing");
        assert!(error.message.contains("another number"), "{error}");
    }
}
