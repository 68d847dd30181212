//! The bytes of one chunk, in big sequential reads through one buffer: opens, seeks or decompresses up to a position,
//! finds the first line of a chunk, and shows the lines that belong to it.

use super::listing::{Codec, File};
use super::splits::Chunk;
use crate::error::{Context, Error, Result};
use crate::format::decode::LINE_BYTES;
use flate2::bufread::MultiGzDecoder;
use std::fs;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

/// A file that counts what has been read of it.
struct Counted {
    file: fs::File,
    bytes: u64,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(into)?;
        self.bytes += count as u64;
        Ok(count)
    }
}

enum Input {
    Plain(Counted),
    Gzip(Box<MultiGzDecoder<BufReader<Counted>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, BufReader<Counted>>>),
}

impl Input {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = match self {
                Input::Plain(file) => file.read(into),
                Input::Gzip(decoder) => decoder.read(into),
                Input::Zstd(decoder) => decoder.read(into),
            };
            match count {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    /// Bytes of the file that have been read, before decompression.
    fn bytes(&self) -> u64 {
        match self {
            Input::Plain(file) => file.bytes,
            Input::Gzip(decoder) => decoder.get_ref().get_ref().bytes,
            Input::Zstd(decoder) => decoder.get_ref().get_ref().bytes,
        }
    }
}

pub(super) struct Reader {
    path: String,
    codec: Codec,
    input: Input,
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
}

impl Reader {
    /// At the chunk's next row. Sets `chunk.at` if it was None: behind the line that the chunk before owns, or behind
    /// a byte order mark.
    pub fn open(file: &File, chunk: &mut Chunk, buffer_bytes: usize) -> Result<Reader> {
        let shown = || format!("file \"{}\"", file.path);
        let from = chunk.at.unwrap_or(chunk.start.saturating_sub(1));
        let mut plain = fs::File::open(&file.path).invalid(shown)?;
        let input = match file.codec {
            Codec::Plain => {
                if from > 0 {
                    plain.seek(SeekFrom::Start(from)).invalid(shown)?;
                }
                Input::Plain(Counted { file: plain, bytes: 0 })
            }
            Codec::Gzip => {
                let packed = BufReader::with_capacity(64 << 10, Counted { file: plain, bytes: 0 });
                Input::Gzip(Box::new(MultiGzDecoder::new(packed)))
            }
            Codec::Zstd => {
                let packed = BufReader::with_capacity(64 << 10, Counted { file: plain, bytes: 0 });
                Input::Zstd(Box::new(zstd::stream::read::Decoder::with_buffer(packed).invalid(shown)?))
            }
        };
        let mut reader = Reader {
            path: file.path.clone(),
            codec: file.codec,
            input,
            buffer: vec![0; buffer_bytes],
            head: 0,
            tail: 0,
            offset: if file.codec == Codec::Plain { from } else { 0 },
            end: chunk.end,
            ended: false,
            told: 0,
        };
        reader.skip_to(from)?;
        if chunk.at.is_none() {
            reader.find_first_line(chunk.start)?;
            chunk.at = Some(reader.offset);
        }
        Ok(reader)
    }

    /// Decompresses up to `offset`.
    fn skip_to(&mut self, offset: u64) -> Result<()> {
        while self.offset < offset {
            if self.head == self.tail && !self.fill()? {
                return Err(Error::invalid(format!(
                    "file \"{}\" ends at byte {} after decompression, but had been read up to {offset}",
                    self.path, self.offset
                )));
            }
            let step = (offset - self.offset).min((self.tail - self.head) as u64) as usize;
            self.consume(step);
        }
        Ok(())
    }

    fn find_first_line(&mut self, start: u64) -> Result<()> {
        if start == 0 {
            while self.tail - self.head < 3 && self.fill()? {}
            if self.buffer[self.head..self.tail].starts_with(b"\xef\xbb\xbf") {
                self.consume(3);
            }
            return Ok(());
        }
        // From the byte before the chunk on: if that is a line end, the chunk's first byte begins a line of its own.
        loop {
            let have = &self.buffer[self.head..self.tail];
            if let Some(line_end) = memchr::memchr(b'\n', have) {
                self.consume(line_end + 1);
                return Ok(());
            }
            self.consume(have.len());
            if !self.fill()? {
                return Ok(());
            }
        }
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
    pub fn go_on_to(&mut self, end: u64) {
        self.end = end;
    }

    /// Reads on; false at the end of the file. A longer line than [`LINE_BYTES`] is an error.
    pub fn fill(&mut self) -> Result<bool> {
        if self.head > 0 {
            self.buffer.copy_within(self.head..self.tail, 0);
            (self.head, self.tail) = (0, self.tail - self.head);
        }
        if self.tail == self.buffer.len() {
            if self.tail > LINE_BYTES {
                return Err(Error::invalid(format!(
                    "file \"{}\": the row at byte {} is longer than {} MiB",
                    self.path,
                    self.offset,
                    LINE_BYTES >> 20
                )));
            }
            self.buffer.resize(self.tail * 2, 0);
        }
        let behind = self.offset + self.tail as u64;
        let count = self.input.read(&mut self.buffer[self.tail..]).map_err(|error| match self.codec {
            Codec::Plain => Error::invalid(format!("file \"{}\" cannot be read at byte {behind}: {error}", self.path)),
            codec => {
                let (name, what) = (
                    if codec == Codec::Gzip { "gzip" } else { "zstd" },
                    match error.kind() {
                        io::ErrorKind::UnexpectedEof => "is cut off".to_string(),
                        _ => format!("is damaged ({error})"),
                    },
                );
                let packed = self.input.bytes();
                Error::invalid(format!(
                    "file \"{}\": the {name} data {what} after {behind} bytes of content (byte {packed} of the file)",
                    self.path
                ))
            }
        })?;
        self.tail += count;
        self.ended = count == 0;
        Ok(count > 0)
    }

    /// Bytes read from the file since the last call.
    pub fn take_bytes(&mut self) -> u64 {
        let bytes = self.input.bytes();
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
