//! The cluster's state as something that can be out of reach for a while.

use crate::cluster::StateAt;
use crate::s3::Server;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Prefix of everything in the bucket.
const PREFIX: &str = "chaos";

pub enum Store {
    /// `state` in the test's directory is a link to the real one. While it is down the link leads to a file: a
    /// directory that is merely away would be made anew by whoever needs it.
    Directory {
        link: PathBuf,
        real: PathBuf,
        file: PathBuf,
    },
    S3(Box<Server>),
}

impl Store {
    pub fn directory(test: &Path) -> Store {
        let at = |name: &str| test.join(name);
        let (link, real, file) = (at("state"), at("state-real"), at("state-away"));
        std::fs::create_dir(&real).expect("the test's own directory is writable");
        std::fs::write(&file, "").expect("the test's own directory is writable");
        symlink(&real, &link).expect("the test's own directory is writable");
        Store::Directory { link, real, file }
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
            Store::Directory { link, file, .. } => lead(link, file),
            Store::S3(server) => server.down(),
        }
    }

    pub fn up(&mut self) {
        match self {
            Store::Directory { link, real, .. } => lead(link, real),
            Store::S3(server) => server.up(),
        }
    }
}

/// Has the link lead elsewhere, in one step.
fn lead(link: &Path, to: &Path) {
    let new = link.with_extension("new");
    symlink(to, &new).and_then(|()| std::fs::rename(&new, link)).expect("the test's own directory is writable");
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
