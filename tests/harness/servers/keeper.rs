//! One thread that lives as long as the tests and starts the servers: the kernel ends a child with the thread that
//! started it, and a server that tests share must outlive the test that wanted it first.

use crate::process::Process;
use anyhow::Result;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};

type Job = Box<dyn FnOnce() + Send>;

static KEEPER: OnceLock<SyncSender<Job>> = OnceLock::new();

/// [`Process::start`], with a child that ends with this process and not with the calling thread.
pub fn start(name: &'static str, command: Command, logs: PathBuf) -> Result<Process> {
    // A start takes milliseconds: whoever comes meanwhile waits for its turn.
    let keeper = KEEPER.get_or_init(|| {
        let (jobs, todo) = sync_channel::<Job>(0);
        let run = move || todo.into_iter().for_each(|job| job());
        std::thread::Builder::new().name("server-keeper".into()).spawn(run).expect("a thread starts");
        jobs
    });
    let (answer, started) = sync_channel(1);
    let job = move || answer.send(Process::start(name, command, &logs)).expect("the caller waits");
    keeper.send(Box::new(job)).expect("the keeper never ends");
    started.recv().expect("the keeper answers")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn server_outlives_the_thread_that_asked_for_it() {
        let logs = tempfile::tempdir().expect("a temporary directory");
        let folder = logs.path().to_path_buf();
        let mut command = Command::new("tail");
        command.args(["-f", "/dev/null"]);
        let start = move || start("tail", command, folder).expect("tail starts");
        let mut process = std::thread::spawn(start).join().expect("no panic");
        assert!(!crate::wait::until(Duration::from_millis(300), || process.ended().is_some()), "it was ended");
        process.kill();
        assert!(process.ended().is_some());
    }
}
