//! The bytes of one chunk, in big sequential reads through one buffer: seeks or decompresses up to a position, finds the
//! first line of a chunk, and shows the lines that belong to it.

use super::bytes::Bytes;
use super::listing::{Codec, File};
use super::splits::{Chunk, OPEN_END};
use crate::error::{Context, Error, Result};
use crate::format::decode::{LINE_BYTES, RAW_BYTES};
use std::fs;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::sync::Arc;

const MARK: &[u8] = b"\xef\xbb\xbf";

/// What reading on has brought.
pub(super) enum Filled {
    More,
    /// The end of the file, for now.
    End,
    /// A pipe has nothing yet.
    Later,
    /// Packed data ends in the middle: an error, unless somebody is still writing it.
    Cut(Error),
    /// What is read is one row, and longer than [`LINE_BYTES`].
    TooLong,
}

pub(super) struct Reader {
    path: String,
    codec: Codec,
    size: u64,
    input: Bytes,
    /// What the input said after bytes that had to be shown first.
    failed: Option<io::Error>,
    buffer: Vec<u8>,
    /// What is read and not consumed: `buffer[head..tail]`.
    head: usize,
    tail: usize,
    /// Of `buffer[head]`, after decompression.
    pub offset: u64,
    end: u64,
    pub ended: bool,
    /// Raw bytes already told by `take_bytes`.
    told: u64,
    /// The beginning of a row that is too long and being passed over.
    discarded: Option<Vec<u8>>,
}

impl Reader {
    /// At the chunk's next row. Sets `chunk.at` if it was None: behind the line that the chunk before owns.
    pub fn open(file: &File, handle: Arc<fs::File>, chunk: &mut Chunk, buffer_bytes: usize) -> Result<Reader> {
        let from = chunk.at.unwrap_or(chunk.start.saturating_sub(1));
        let input = Bytes::open(handle, file.regular, file.codec, from);
        let mut reader = Reader {
            path: file.path.clone(),
            codec: file.codec,
            size: file.size,
            input: input.invalid(|| format!("file \"{}\"", file.path))?,
            failed: None,
            buffer: vec![0; buffer_bytes],
            head: 0,
            tail: 0,
            offset: if file.codec == Codec::Plain { from } else { 0 },
            end: chunk.end,
            ended: false,
            told: 0,
            discarded: None,
        };
        reader.skip_to(from)?;
        if chunk.at.is_none() {
            if chunk.start > 0 {
                reader.find_first_line()?;
            }
            chunk.at = Some(reader.offset);
        }
        Ok(reader)
    }

    /// Decompresses up to `offset`.
    fn skip_to(&mut self, offset: u64) -> Result<()> {
        while self.offset < offset {
            if self.head == self.tail {
                match self.fill()? {
                    Filled::More => {}
                    Filled::Cut(error) => return Err(error),
                    _ => {
                        return Err(Error::invalid(format!(
                            "file \"{}\" ends at byte {} after decompression, but had been read up to {offset}",
                            self.path, self.offset
                        )));
                    }
                }
            }
            let step = (offset - self.offset).min((self.tail - self.head) as u64) as usize;
            self.consume(step);
        }
        Ok(())
    }

    /// From the byte before the chunk on: if that is a line end, the chunk's first byte begins a line of its own.
    fn find_first_line(&mut self) -> Result<()> {
        loop {
            let have = &self.buffer[self.head..self.tail];
            if let Some(line_end) = memchr::memchr(b'\n', have) {
                self.consume(line_end + 1);
                return Ok(());
            }
            self.consume(have.len());
            if !matches!(self.fill()?, Filled::More) {
                return Ok(());
            }
        }
    }

    /// Passes over a byte order mark. False: what is read of the file may be the beginning of one.
    #[inline]
    pub fn skip_mark(&mut self, grows: bool) -> bool {
        if self.offset > 0 {
            return true;
        }
        let have = &self.buffer[self.head..self.tail];
        if have.starts_with(MARK) {
            self.consume(MARK.len());
        } else if !have.is_empty() && MARK.starts_with(have) {
            return self.ended && !grows;
        }
        true
    }

    /// The unread bytes whose lines the chunk owns, and whether nothing follows them.
    pub fn window(&self) -> (&[u8], bool) {
        let have = &self.buffer[self.head..self.tail];
        if self.offset >= self.end {
            return (&[], true);
        }
        let from_last = self.end - 1 - self.offset;
        if from_last < have.len() as u64
            && let Some(run) = memchr::memchr(b'\n', &have[from_last as usize..])
        {
            return (&have[..from_last as usize + run + 1], true);
        }
        (have, self.ended)
    }

    pub fn consume(&mut self, bytes: usize) {
        self.head += bytes;
        self.offset += bytes as u64;
    }

    /// All lines of the chunk have been consumed, or the file has ended.
    pub fn finished(&self) -> bool {
        self.offset >= self.end || (self.ended && self.head == self.tail)
    }

    /// The chunk behind this one, up to `end`, is read next.
    pub fn go_on_to(&mut self, end: u64) -> Result<()> {
        self.end = end;
        self.check_end()
    }

    /// A plain file that was listed must have all the bytes that were dealt out: else rows are missing.
    fn check_end(&self) -> Result<()> {
        let found = self.offset + (self.tail - self.head) as u64;
        if self.codec != Codec::Plain || self.end == OPEN_END || !self.ended || found >= self.end {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "file \"{}\" shrank from {} to {found} bytes while it was read",
            self.path, self.size
        )))
    }

    /// Reads on: call it when the rows read so far are consumed.
    pub fn fill(&mut self) -> Result<Filled> {
        if self.head > 0 {
            self.buffer.copy_within(self.head..self.tail, 0);
            (self.head, self.tail) = (0, self.tail - self.head);
        }
        if self.tail == self.buffer.len() {
            if self.tail > LINE_BYTES {
                return Ok(Filled::TooLong);
            }
            self.buffer.resize((self.tail * 2).min(LINE_BYTES + 1), 0);
        }
        let before = self.tail;
        self.ended = false;
        // The part of a row is looked at again with every call. So that the cost of a long one stays linear, it grows
        // by half each time.
        while self.tail < self.buffer.len() && (self.tail == before || (self.tail - before) * 2 < before) {
            let read = match self.failed.take() {
                Some(error) => Err(error),
                None => self.input.read(&mut self.buffer[self.tail..]),
            };
            match read {
                Ok(0) => {
                    self.ended = true;
                    self.check_end()?;
                    break;
                }
                Ok(count) => self.tail += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if self.tail > before => {
                    self.failed = Some(error);
                    break;
                }
                Err(error) => return self.broken(&error),
            }
        }
        Ok(match self.tail > before {
            true => Filled::More,
            false if self.ended => Filled::End,
            false => Filled::Later,
        })
    }

    #[cold]
    fn broken(&self, error: &io::Error) -> Result<Filled> {
        let behind = self.offset + self.tail as u64;
        let name = match self.codec {
            Codec::Plain => {
                let what = format!("file \"{}\" cannot be read at byte {behind}: {error}", self.path);
                return Err(Error::invalid(what));
            }
            Codec::Gzip => "gzip",
            Codec::Zstd => "zstd",
        };
        let cut = error.kind() == ErrorKind::UnexpectedEof;
        let what = if cut { "is cut off".to_string() } else { format!("is damaged ({error})") };
        let error = Error::invalid(format!(
            "file \"{}\": the {name} data {what} after {behind} bytes of content (byte {} of the file)",
            self.path,
            self.input.count()
        ));
        if cut { Ok(Filled::Cut(error)) } else { Err(error) }
    }

    /// Begins to pass over a row that is too long. A quote that is never closed makes one of many lines: then only the
    /// first of them goes.
    pub fn discard(&mut self) {
        let have = &self.buffer[self.head..self.tail];
        self.discarded = Some(have[..have.len().min(RAW_BYTES)].to_vec());
    }

    pub fn is_discarding(&self) -> bool {
        self.discarded.is_some()
    }

    /// Passes over what is read, up to the row's end: then its beginning, and whether a line end closed it. `at_once`:
    /// its end need not be found.
    pub fn pass_over(&mut self, grows: bool, at_once: bool) -> Option<(Vec<u8>, bool)> {
        let have = &self.buffer[self.head..self.tail];
        let line_end = memchr::memchr(b'\n', have);
        self.consume(line_end.map_or(have.len(), |at| at + 1));
        let over = at_once || line_end.is_some() || (self.ended && !grows);
        let row = self.discarded.take_if(|_| over)?;
        let length = memchr::memchr(b'\n', &row).unwrap_or(row.len());
        Some((row[..length].to_vec(), line_end.is_some()))
    }

    /// Bytes of the file that have been read, before decompression.
    pub fn raw_bytes(&self) -> u64 {
        self.input.count()
    }

    /// Bytes read from the file since the last call.
    pub fn take_bytes(&mut self) -> u64 {
        let bytes = self.input.count();
        bytes - std::mem::replace(&mut self.told, bytes)
    }
}

/// Line ends of a plain file in [from, to): only looked for when somebody has to be told a line number.
pub(super) fn count_lines(path: &str, from: u64, to: u64) -> Result<u64> {
    let shown = || format!("file \"{path}\"");
    let mut file = fs::File::open(path).invalid(shown)?;
    file.seek(SeekFrom::Start(from)).invalid(shown)?;
    let mut rest = file.take(to.saturating_sub(from));
    let mut buffer = vec![0; 256 << 10];
    let mut lines = 0;
    loop {
        match rest.read(&mut buffer).invalid(shown)? {
            0 => return Ok(lines),
            count => lines += memchr::memchr_iter(b'\n', &buffer[..count]).count() as u64,
        }
    }
}
