//! Reads the log's files from any record on, chunk after chunk, up to what is durable.

use super::record::{self, CHUNK_HEAD, Head, SEGMENT_FRONT, SegmentHead};
use super::{disk, first_of, name_of};
use crate::error::{Context, Error, Result};
use std::fs::File;
use std::path::PathBuf;

#[derive(Debug)]
pub struct Reader {
    directory: PathBuf,
    /// The file that is being read, where in it, and the number of the next chunk's first record.
    open: Option<(File, String, u64, u64)>,
}

impl Reader {
    pub fn new(directory: PathBuf) -> Reader {
        Reader { directory, open: None }
    }

    /// The chunk with record `next`, which is durable.
    pub fn chunk(&mut self, next: u64) -> Result<Vec<u8>> {
        // Sequential reads keep the file; it ends where the next one begins.
        for fresh in [false, true] {
            // A file that begins here counts, not what a failed write has left at the end of the one before.
            let elsewhere = |(_, name, _, first): &(File, String, u64, u64)| {
                *first > next
                    || (*first == next && *name != name_of(next) && self.directory.join(name_of(next)).exists())
            };
            if fresh || self.open.as_ref().is_none_or(elsewhere) {
                self.seek(next)?;
            }
            if let Some(chunk) = self.read(next)? {
                return Ok(chunk);
            }
        }
        let place = self.directory.display();
        Err(Error::corrupt(format!("ingest log `{place}`: message {next} was acknowledged and is not in its file")))
    }

    /// The first record of the file behind the one that should hold record `next`.
    pub fn file_behind(&self, next: u64) -> Result<Option<u64>> {
        let names = disk::list(&self.directory).unavailable(|| format!("ingest log `{}`", self.directory.display()))?;
        Ok(names.iter().filter_map(|name| first_of(name)).filter(|first| *first > next).min())
    }

    fn seek(&mut self, next: u64) -> Result<()> {
        let shown = || format!("ingest log `{}`", self.directory.display());
        let names = disk::list(&self.directory).unavailable(shown)?;
        let first = names.iter().filter_map(|name| first_of(name)).filter(|first| *first <= next).max();
        let Some(first) = first else {
            return Err(Error::corrupt(format!("{}: no file holds message {next}", shown())));
        };
        let name = name_of(first);
        let file = File::open(self.directory.join(&name)).unavailable(shown)?;
        let front = disk::read(&file, 0, SEGMENT_FRONT).unavailable(shown)?;
        let Some((_, at)) = SegmentHead::read(&front) else {
            return Err(Error::corrupt(format!("{}: the head of file `{name}` is damaged", shown())));
        };
        self.open = Some((file, name, at as u64, first));
        Ok(())
    }

    /// None: the file ends before it, or is damaged.
    fn read(&mut self, next: u64) -> Result<Option<Vec<u8>>> {
        let Some((file, name, at, first)) = &mut self.open else { return Ok(None) };
        let failed = || format!("ingest log `{}`, file `{name}`", self.directory.display());
        loop {
            let Some(head) = Head::read(&disk::read(file, *at, CHUNK_HEAD).unavailable(failed)?) else {
                return Ok(None);
            };
            if head.first != *first {
                return Ok(None);
            }
            if head.end() > next {
                let chunk = disk::read(file, *at, head.bytes).unavailable(failed)?;
                if !record::is_whole(&chunk) {
                    return Ok(None);
                }
                *at += head.bytes as u64;
                *first = head.end();
                return Ok(Some(chunk));
            }
            *at += head.bytes as u64;
            *first = head.end();
        }
    }
}
