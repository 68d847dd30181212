//! What the log needs of a file system. The tests have one that forgets what was not synced, and fails on demand.

use ef_store::Lock;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

pub trait Disk {
    /// Names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    fn length(&self, name: &str) -> io::Result<u64>;
    /// At most `bytes` from `at`; fewer only at the end of the file.
    fn read(&self, name: &str, at: u64, bytes: usize) -> io::Result<Vec<u8>>;
    /// A new empty file, to which `append` writes from now on. It has its name from the next `sync` on; a file that has
    /// the name until then is replaced by it.
    fn begin(&mut self, name: &str) -> io::Result<()>;
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// All appended bytes, and the name of a file that was begun, survive a power cut.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts a file that is no longer written to.
    fn cut(&mut self, name: &str, bytes: u64) -> io::Result<()>;
    /// Deletes a file, or what was begun under the name and not synced.
    fn delete(&mut self, name: &str) -> io::Result<()>;
}

/// A file that has not been synced with its first chunk: a file of the log has one, or a crash at the wrong moment would
/// leave the name of nothing.
const BEGUN: &str = "begun";

/// A directory, held by one log at a time.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    open: Option<File>,
    /// The name of the open file, until it has it.
    begun: Option<String>,
    _lock: Lock,
}

impl Directory {
    /// Makes the directory if need be.
    pub fn open(path: &Path) -> io::Result<Directory> {
        ef_store::create_directory(path)?;
        let lock = Lock::take(&path.join("lock"))?
            .ok_or_else(|| io::Error::new(ErrorKind::WouldBlock, "another process or task holds it"))?;
        Ok(Directory { path: path.to_path_buf(), open: None, begun: None, _lock: lock })
    }
}

impl Disk for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        list(&self.path)
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        Ok(std::fs::metadata(self.path.join(name))?.len())
    }

    fn read(&self, name: &str, at: u64, bytes: usize) -> io::Result<Vec<u8>> {
        read(&File::open(self.path.join(name))?, at, bytes)
    }

    fn begin(&mut self, name: &str) -> io::Result<()> {
        (self.open, self.begun) = (None, None);
        let path = self.path.join(BEGUN);
        // Another file, whatever has become of one that was begun before.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.open = Some(OpenOptions::new().create_new(true).write(true).open(path)?);
        self.begun = Some(name.to_owned());
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.open.as_mut().ok_or(ErrorKind::NotConnected)?.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        // The length is synced with the data, where it has grown.
        self.open.as_ref().ok_or(ErrorKind::NotConnected)?.sync_data()?;
        if let Some(name) = &self.begun {
            std::fs::rename(self.path.join(BEGUN), self.path.join(name))?;
            File::open(&self.path)?.sync_all()?;
            self.begun = None;
        }
        Ok(())
    }

    fn cut(&mut self, name: &str, bytes: u64) -> io::Result<()> {
        self.open = None;
        let file = OpenOptions::new().write(true).open(self.path.join(name))?;
        file.set_len(bytes)?;
        file.sync_all()
    }

    fn delete(&mut self, name: &str) -> io::Result<()> {
        if self.begun.as_deref() == Some(name) {
            // If it has its name already, it is replaced when that is begun again: nobody was told of what it holds.
            (self.open, self.begun) = (None, None);
            return Ok(());
        }
        std::fs::remove_file(self.path.join(name))
    }
}

pub fn list(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        names.extend(entry?.file_name().into_string().ok());
    }
    Ok(names)
}

/// Fewer bytes only at the end of the file.
pub fn read(file: &File, at: u64, bytes: usize) -> io::Result<Vec<u8>> {
    let mut out = vec![0; bytes];
    let mut got = 0;
    while got < bytes {
        match file.read_at(&mut out[got..], at + got as u64) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    out.truncate(got);
    Ok(out)
}
