//! One file being written: plain, gzip or zstd, with the length and crc of what reaches the disk.

use crate::error::{Error, Result};
use ef_proto::connector::Compression;
use ef_proto::error::Code;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What failed, on which path. A full disk may be emptied; a forbidden path will not work next time either.
pub(super) fn cannot(what: &str, path: &Path, error: &io::Error) -> Error {
    use io::ErrorKind::{IsADirectory, NotADirectory, PermissionDenied, ReadOnlyFilesystem};
    let ours = matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem | NotADirectory | IsADirectory);
    let code = if ours { Code::Invalid } else { Code::Unavailable };
    Error::new(code, format!("cannot {what} `{}`: {error}", path.display()))
}

pub(super) struct Writing {
    path: PathBuf,
    body: Body,
}

enum Body {
    Plain(Counted),
    Gzip(flate2::write::GzEncoder<Counted>),
    Zstd(zstd::stream::write::Encoder<'static, Counted>),
}

/// A file that knows what was written to it.
struct Counted {
    file: File,
    bytes: u64,
    crc: crc32fast::Hasher,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.crc.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Writing {
    /// None: a file of that name exists.
    pub fn create(path: PathBuf, compression: Compression) -> Result<Option<Writing>> {
        let file = match File::options().write(true).create_new(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            opened => opened.map_err(|e| cannot("create", &path, &e))?,
        };
        let file = Counted { file, bytes: 0, crc: crc32fast::Hasher::new() };
        let body = match compression {
            Compression::Auto | Compression::None => Body::Plain(file),
            Compression::Gzip => Body::Gzip(flate2::write::GzEncoder::new(file, flate2::Compression::new(4))),
            Compression::Zstd => {
                Body::Zstd(zstd::stream::write::Encoder::new(file, 3).map_err(|e| cannot("write", &path, &e))?)
            }
        };
        Ok(Some(Writing { path, body }))
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = match &mut self.body {
            Body::Plain(file) => file.write_all(bytes),
            Body::Gzip(file) => file.write_all(bytes),
            Body::Zstd(file) => file.write_all(bytes),
        };
        written.map_err(|e| cannot("write", &self.path, &e))
    }

    /// Bytes in the file so far; what a compressor holds back is not counted.
    pub fn bytes(&self) -> u64 {
        match &self.body {
            Body::Plain(file) => file.bytes,
            Body::Gzip(file) => file.get_ref().bytes,
            Body::Zstd(file) => file.get_ref().bytes,
        }
    }

    /// Ends the file and waits until it is on disk; its length and crc.
    pub fn close(self) -> Result<(u64, u32)> {
        let ended = match self.body {
            Body::Plain(file) => Ok(file),
            Body::Gzip(file) => file.finish(),
            Body::Zstd(file) => file.finish(),
        };
        let ended = ended.map_err(|e| cannot("write", &self.path, &e))?;
        ended.file.sync_all().map_err(|e| cannot("sync", &self.path, &e))?;
        Ok((ended.bytes, ended.crc.finalize()))
    }
}
