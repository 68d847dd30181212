//! A directory is used by one process at a time.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

/// Held until it is dropped, or the process is gone.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// By a file that is made if need be, and stays. None: somebody holds it.
    pub fn take(path: &Path) -> io::Result<Option<Lock>> {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }
}

impl Drop for Lock {
    /// Closing the file is not enough: a process that is being started has a copy of it until its program begins.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_and_a_copy_of_the_file_does_not_keep_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("lock");
        let first = Lock::take(&path).expect("it may be written").expect("nobody holds it");
        assert!(Lock::take(&path).expect("it may be written").is_none());
        let copy = first.0.try_clone().expect("a handle");
        drop(first);
        Lock::take(&path).expect("it may be written").expect("it was let go");
        drop(copy);
    }
}
