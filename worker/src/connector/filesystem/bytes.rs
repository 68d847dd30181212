//! What lies below a reader: a file, unpacked on the way, that counts what was read of it and never waits.

use super::listing::Codec;
use flate2::bufread::GzDecoder;
use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A file from its offset `at` on. Regular ones are read by offset, so that others may read through the same handle;
/// of a pipe or a device, whatever has come.
pub(super) struct Counted {
    file: Arc<fs::File>,
    regular: bool,
    at: u64,
    bytes: u64,
}

impl Counted {
    /// Whether a read would find something: bytes, or that all writers are gone. A pipe that nobody has opened for
    /// writing yet has neither, although a read would call that its end.
    fn ready(&self) -> io::Result<bool> {
        let mut poll = libc::pollfd { fd: self.file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd, which lives through the call; the file keeps its descriptor open.
        match unsafe { libc::poll(&mut poll, 1, 0) } {
            -1 => Err(io::Error::last_os_error()),
            count => Ok(count > 0),
        }
    }
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = match self.regular {
            true => self.file.read_at(into, self.at)?,
            false if !self.ready()? => return Err(ErrorKind::WouldBlock.into()),
            false => (&*self.file).read(into)?,
        };
        self.at += count as u64;
        self.bytes += count as u64;
        Ok(count)
    }
}

/// The members of a gzip file. Zeros between and behind them are padding, as for GNU gzip.
pub(super) struct Members(Option<Member>);

enum Member {
    Inside(Box<GzDecoder<BufReader<Counted>>>),
    Between(BufReader<Counted>),
}

impl Members {
    fn new(packed: BufReader<Counted>) -> Members {
        Members(Some(Member::Inside(Box::new(GzDecoder::new(packed)))))
    }

    fn bytes(&self) -> u64 {
        match self.0.as_ref().expect("only empty within a call") {
            Member::Inside(decoder) => decoder.get_ref().get_ref().bytes,
            Member::Between(packed) => packed.get_ref().bytes,
        }
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.as_mut().expect("only empty within a call") {
                Member::Inside(decoder) => match decoder.read(into)? {
                    0 if !into.is_empty() => {}
                    count => return Ok(count),
                },
                Member::Between(packed) => loop {
                    let have = packed.fill_buf()?;
                    if have.is_empty() {
                        return Ok(0);
                    }
                    let zeros = have.iter().take_while(|byte| **byte == 0).count();
                    let all = zeros == have.len();
                    packed.consume(zeros);
                    if !all {
                        break;
                    }
                },
            }
            self.0 = self.0.take().map(|member| match member {
                Member::Inside(decoder) => Member::Between(decoder.into_inner()),
                Member::Between(packed) => Member::Inside(Box::new(GzDecoder::new(packed))),
            });
        }
    }
}

pub(super) enum Bytes {
    Plain(Counted),
    Gzip(Members),
    Zstd(Box<zstd::stream::read::Decoder<'static, BufReader<Counted>>>),
}

impl Bytes {
    /// From offset `at` of a plain file; packed ones are read from their beginning.
    pub fn open(file: Arc<fs::File>, regular: bool, codec: Codec, at: u64) -> io::Result<Bytes> {
        let counted = |at| Counted { file, regular, at, bytes: 0 };
        let packed = |counted| BufReader::with_capacity(64 << 10, counted);
        Ok(match codec {
            Codec::Plain => Bytes::Plain(counted(at)),
            Codec::Gzip => Bytes::Gzip(Members::new(packed(counted(0)))),
            Codec::Zstd => Bytes::Zstd(Box::new(zstd::stream::read::Decoder::with_buffer(packed(counted(0)))?)),
        })
    }

    /// `WouldBlock`: nothing has come yet, ask again later.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = match self {
                Bytes::Plain(file) => file.read(into),
                Bytes::Gzip(members) => members.read(into),
                Bytes::Zstd(decoder) => decoder.read(into),
            };
            match count {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    /// Bytes of the file that have been read, before decompression.
    pub fn count(&self) -> u64 {
        match self {
            Bytes::Plain(file) => file.bytes,
            Bytes::Gzip(members) => members.bytes(),
            Bytes::Zstd(decoder) => decoder.get_ref().get_ref().bytes,
        }
    }
}
