//! The handle of a node, and the thread it runs in.
//!
//! That thread ends in three ways: it is told to stop, its consumer is gone, or the whole process ends with it. A panic
//! of raft-rs (it has many: each is an invariant that does not hold any more) or a log that cannot be written must not
//! leave a coordinator behind that lives and leads nothing.

use super::Output;
use super::counts::{Counters, Counts};
use super::driver::Driver;
use super::inbox::Inbox;
use super::log::Log;
use bytes::Bytes;
use ef_proto::error::{Code, Error};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;

/// Outputs that wait for the consumer. Each holds at most one proposal, 1 MiB, so that at most 16 MiB wait; only
/// a restored state may be larger.
const OUTPUTS: usize = 16;

#[derive(Clone, Debug)]
pub struct Config {
    /// This node's id in its group: not zero, and never given out again once its directory is lost.
    pub id: u64,
    /// Heartbeats are two of these apart; followers wait 10 to 20 for one before they stand for election.
    pub tick: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config { id: 1, tick: Duration::from_millis(100) }
    }
}

/// One node of the replicated log. Dropping it stops it.
#[derive(Debug)]
pub struct Node {
    inbox: Arc<Inbox>,
    counters: Arc<Counters>,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    /// Opens (or creates) the log in `directory` and starts the node's own thread. The first outputs are the state of
    /// the last snapshot, if there is one, and what is committed after it. Errors: Conflict when another process has
    /// the directory, Corrupt when the log does not read back, Invalid when it is of another node or version.
    pub fn start(directory: &Path, config: Config) -> Result<(Node, mpsc::Receiver<Output>), Error> {
        if config.id == 0 || config.tick.is_zero() {
            return Err(Error::invalid(format!(
                "a raft node needs an id and a tick above zero, not id {} and tick {:?}",
                config.id, config.tick
            )));
        }
        let counters = Arc::new(Counters::default());
        let log = Log::open(directory, config.id, counters.clone())?;
        let inbox = Arc::new(Inbox::default());
        let (sender, outputs) = mpsc::channel(OUTPUTS);
        let driver = Driver::new(log, config.id, inbox.clone(), sender, counters.clone())?;
        let failed = |e| Error::new(Code::Unavailable, format!("cannot start the raft thread: {e}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(failed)?;
        let ends = inbox.clone();
        let run = move || {
            or_abort(move || runtime.block_on(driver.run(config.tick)));
            ends.end();
        };
        let thread = std::thread::Builder::new().name("raft".into()).spawn(run).map_err(failed)?;
        Ok((Node { inbox, counters, thread: Some(thread) }, outputs))
    }

    /// Hands `data` over to be appended, and never waits: Ok means that the entry shows up as `Applied`, or never, when
    /// leadership or the process is lost first. Errors: NotLeader; Invalid when empty or above
    /// [`super::PROPOSAL_BYTES_MAX`]; Unavailable when too much waits already or the node has stopped.
    pub fn propose(&self, data: Bytes) -> Result<(), Error> {
        self.inbox.propose(data)
    }

    /// `state` is the consumer's state as of `index`: after it has taken all outputs up to there, and none further.
    /// Entries up to it may go. Never waits; of several that wait only the newest is kept.
    pub fn compact(&self, index: u64, state: Bytes) {
        self.inbox.compact(index, state);
    }

    pub fn counts(&self) -> Counts {
        self.counters.read()
    }

    /// Ends the thread and waits for it, for as long as a write to disk takes. The directory is free afterwards. What
    /// was handed over and not yet appended is lost.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.inbox.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a panic of the raft thread ends the process");
        }
    }
}

/// Runs what may only end well.
fn or_abort(run: impl FnOnce() -> Result<(), Error>) {
    // Whatever was in the hands of the panic is never looked at again.
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => tracing::error!(%error, "the replicated log cannot go on: the process ends"),
        // What it was has been said by the panic hook.
        Err(_) => tracing::error!("the replicated log is in a state that must not be: the process ends"),
    }
    std::process::abort();
}
