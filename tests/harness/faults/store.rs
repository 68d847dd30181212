//! The cluster's state as something that can be out of reach for a while.

use crate::cluster::StateAt;
use crate::s3::Server;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Prefix of everything in the bucket.
const PREFIX: &str = "chaos";

pub enum Store {
    /// `state` in the test's directory. While it is down there is a file in its place: a directory that is merely away
    /// would be made anew by whoever needs it.
    Directory {
        state: PathBuf,
        other: PathBuf,
    },
    S3(Box<Server>),
}

impl Store {
    pub fn directory(test: &Path) -> Store {
        let (state, other) = (test.join("state"), test.join("state-away"));
        std::fs::create_dir(&state).expect("the test's own directory is writable");
        std::fs::write(&other, "").expect("the test's own directory is writable");
        Store::Directory { state, other }
    }

    pub fn s3() -> Store {
        Store::S3(Box::new(Server::start()))
    }

    pub fn state(&self) -> StateAt {
        match self {
            Store::Directory { .. } => StateAt::Directory,
            Store::S3(server) => StateAt::in_s3(server, PREFIX),
        }
    }

    /// SET statements that the job needs.
    pub fn settings(&self) -> String {
        match self {
            Store::Directory { .. } => String::new(),
            // Shorter than an outage may be: checkpoints fail, and do not just take long.
            Store::S3(server) => server.options() + "SET 'state.store.retry-timeout' = '1 s';\n",
        }
    }

    pub fn down(&mut self) {
        match self {
            Store::Directory { state, other } => swap(state, other),
            Store::S3(server) => server.down(),
        }
    }

    pub fn up(&mut self) {
        match self {
            Store::Directory { state, other } => swap(state, other),
            Store::S3(server) => server.up(),
        }
    }
}

/// Each gets the other's name, in one step: nobody sees a moment in which one of them is missing.
fn swap(a: &Path, b: &Path) {
    let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).expect("no zero byte in a path of ours");
    let (from, to) = (text(a), text(b));
    // SAFETY: both pointers are to strings that end with a zero byte and live until the call has returned.
    let swapped =
        unsafe { libc::renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), libc::RENAME_EXCHANGE) };
    assert_eq!(swapped, 0, "cannot swap {} and {}: {}", a.display(), b.display(), std::io::Error::last_os_error());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_that_is_down_can_be_neither_read_nor_made() {
        let work = tempfile::tempdir().expect("a temporary directory");
        let mut store = Store::directory(work.path());
        let file = work.path().join("state/jobs/file");
        let put = || std::fs::create_dir_all(file.parent().expect("below")).and_then(|()| std::fs::write(&file, "x"));
        put().expect("it is up");
        store.down();
        assert!(put().is_err() && std::fs::read(&file).is_err());
        store.up();
        assert_eq!(std::fs::read(&file).expect("it is back"), b"x");
        put().expect("it is up again");
    }
}
