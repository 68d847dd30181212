//! A worker's data directory: one process holds it; it keeps the worker's id and the highest term the worker has seen,
//! and has room for live databases that is wiped at every start.

use crate::error::{Code, Context, Error, Result};
use ef_proto::ids::WorkerId;
use ef_store::{Lock, create_directory};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub struct Home {
    directory: PathBuf,
    /// For the work directories of deployments.
    pub work: PathBuf,
    /// Held as long as the process lives.
    _lock: Lock,
}

impl Home {
    /// Opens the directory, makes it if need be, and empties `work/`.
    pub fn open(directory: &Path) -> Result<Home> {
        let shown = directory.display();
        let failed = || format!("cannot use the data directory `{shown}`");
        create_directory(directory).unavailable(failed)?;
        let path = directory.join("lock");
        let lock = Lock::take(&path).unavailable(failed)?.ok_or_else(|| {
            let message = format!(
                "another worker uses the data directory `{shown}`: `{}` is locked; give each its own --data-dir",
                path.display()
            );
            Error::new(Code::Conflict, message)
        })?;
        let work = directory.join("work");
        match std::fs::remove_dir_all(&work) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e).unavailable(failed),
            _ => {}
        }
        create_directory(&work).unavailable(failed)?;
        Ok(Home { directory: directory.to_path_buf(), work, _lock: lock })
    }

    /// Where connectors keep what outlives deployments and this process; made by whoever needs it.
    pub fn durable(&self) -> PathBuf {
        self.directory.join("durable")
    }

    /// The id of the worker that lives here, made at its first start.
    pub fn id(&self) -> Result<WorkerId> {
        if let Some(id) = self.read("id")? {
            check_id(&id).map_err(|e| Error::corrupt(format!("`{}`: {e}", self.directory.join("id").display())))?;
            return Ok(WorkerId(id));
        }
        // The keys of the standard library's hasher are random for every process.
        let id = format!("worker-{:012x}", nonce() >> 16);
        self.write("id", &id)?;
        Ok(WorkerId(id))
    }

    /// The highest term that was kept; 0 before the first.
    pub fn term(&self) -> Result<u64> {
        let Some(text) = self.read("term")? else { return Ok(0) };
        text.parse().map_err(|_| {
            let path = self.directory.join("term");
            Error::corrupt(format!("`{}` holds `{text}`, expected a number: it is damaged", path.display()))
        })
    }

    /// When this returns, the term survives a crash and a power cut.
    pub fn keep_term(&self, term: u64) -> Result<()> {
        self.write("term", &term.to_string())
    }

    /// Without white space around it; None: there is no such file.
    fn read(&self, name: &str) -> Result<Option<String>> {
        let path = self.directory.join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim().to_string())),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).unavailable(|| format!("cannot read `{}`", path.display())),
        }
    }

    /// Either the old text is there or the new one, whatever happens meanwhile.
    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.directory.join(name);
        let temporary = self.directory.join(format!("{name}.new"));
        let written = || -> std::io::Result<()> {
            let mut file = File::create(&temporary)?;
            writeln!(file, "{text}")?;
            file.sync_all()?;
            std::fs::rename(&temporary, &path)?;
            File::open(&self.directory)?.sync_all()
        };
        written().unavailable(|| format!("cannot write `{}`", path.display()))
    }
}

/// Of this process alone.
pub fn nonce() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// An id goes into messages, paths and tables.
pub fn check_id(id: &str) -> std::result::Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if id.is_empty() || id.len() > 128 || !id.chars().all(fits) {
        return Err(format!("`{id}` is no worker id: up to 128 letters, digits, `-`, `_` and `.` are accepted"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_and_term_survive_and_work_does_not() {
        let scratch = tempfile::tempdir().expect("a directory");
        let directory = scratch.path().join("not/there/yet");
        let home = Home::open(&directory).expect("opens");
        let id = home.id().expect("made");
        assert_eq!(home.term(), Ok(0));
        home.keep_term(41).expect("kept");
        home.keep_term(42).expect("kept");
        std::fs::write(home.work.join("left over"), "x").expect("writable");
        drop(home);
        let home = Home::open(&directory).expect("opens again");
        assert_eq!((home.id(), home.term()), (Ok(id), Ok(42)));
        assert_eq!(std::fs::read_dir(&home.work).expect("there").count(), 0);
    }

    #[test]
    fn second_worker_in_one_directory_is_refused() {
        let scratch = tempfile::tempdir().expect("a directory");
        let home = Home::open(scratch.path()).expect("opens");
        std::fs::write(home.work.join("live"), "x").expect("writable");
        let error = Home::open(scratch.path()).expect_err("locked");
        assert_eq!(error.code, Code::Conflict);
        assert!(error.message.contains("--data-dir"), "{error}");
        assert!(home.work.join("live").exists(), "nothing of the first one is touched");
    }

    #[test]
    fn damaged_term_is_not_taken_for_the_first() {
        let scratch = tempfile::tempdir().expect("a directory");
        let home = Home::open(scratch.path()).expect("opens");
        std::fs::write(scratch.path().join("term"), "4x").expect("writable");
        assert_eq!(home.term().expect_err("damaged").code, Code::Corrupt);
    }

    #[test]
    fn ids_that_would_harm_a_path_or_a_table_are_refused() {
        for id in ["", "a b", "../x", "a/b", "é"] {
            assert!(check_id(id).is_err(), "{id}");
        }
        assert_eq!(check_id("plant-a_line.3"), Ok(()));
    }
}
