//! Tables that are looked up by key. The task hands over the keys of a batch and goes on; a thread of each subtask asks
//! the server, and its answers come back through a queue as raw bytes, which are decoded here, on the task's thread.
//!
//! Bounded are the requests (`REQUESTS_MAX`), the keys that are asked for at a time (`'lookup.async.buffer-capacity'`),
//! the bytes of one key's answer and those of one request ([`ANSWER_BYTES_MAX`]). A key that cannot be looked up, after
//! all retries, fails the job: rows without their match would be wrong rows.

mod decode;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "redis")]
mod redis;

#[cfg(any(feature = "redis", feature = "http"))]
use super::net::retry::Attempts;
use super::{Clock, Place};
use crate::error::{Code, Context, Error, Result};
use crate::format::encode::text::Texts;
use crate::lookup::{Answer, Lookup, REQUESTS_MAX};
use arrow_array::RecordBatch;
use decode::Decode;
use ef_proto::connector::lookup::LookupConnector;
use ef_proto::plan::LookupJoin;
use ef_proto::schema::Schema;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;
use tokio::sync::mpsc;

/// Of the answers to one request: eight kilobytes for each key of a full batch.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The keys of one request: of each, the text of each key column.
struct Asked {
    id: u64,
    keys: Vec<Vec<String>>,
}

/// What the server has for one key.
#[derive(Debug, PartialEq)]
enum Raw {
    Missing,
    /// A value, or the body of a response.
    Document(Vec<u8>),
    /// The fields of a hash, in the order of the value columns.
    Fields(Vec<Option<Vec<u8>>>),
}

impl Raw {
    fn bytes(&self) -> usize {
        match self {
            Raw::Missing => 0,
            Raw::Document(document) => document.len(),
            Raw::Fields(fields) => fields.iter().flatten().map(Vec::len).sum(),
        }
    }
}

/// The bytes of one request's answers so far.
#[derive(Default)]
struct Held(AtomicUsize);

impl Held {
    fn add(&self, raw: &Raw) -> Result<()> {
        let bytes = raw.bytes();
        if self.0.fetch_add(bytes, Ordering::Relaxed) + bytes <= ANSWER_BYTES_MAX {
            return Ok(());
        }
        let what = format!("the answers for one batch of keys are more than {} MiB", ANSWER_BYTES_MAX >> 20);
        Err(Error::new(Code::Unavailable, what))
    }
}

struct Answered {
    asked: Asked,
    raw: Result<Vec<Raw>>,
}

/// What a thread that asks a server is given.
struct Driver {
    requests: mpsc::Receiver<Asked>,
    answers: SyncSender<Answered>,
    shared: Arc<Shared>,
}

/// Between the task and its thread.
struct Shared {
    table: String,
    /// Names of the key columns, for messages.
    names: Vec<String>,
    /// The task has gone.
    left: AtomicBool,
}

impl Shared {
    /// Puts the table and the key before what went wrong.
    fn failed(&self, key: &[String], error: Error) -> Error {
        let pairs: Vec<String> = self.names.iter().zip(key).map(|(name, text)| format!("{name} = '{text}'")).collect();
        Error::new(error.code, format!("lookup of table `{}`, {}: {}", self.table, pairs.join(", "), error.message))
    }
}

/// The error of the last attempt, with their number where there were several.
#[cfg(any(feature = "redis", feature = "http"))]
fn given_up(attempts: &Attempts, error: Error) -> Error {
    match attempts.failures {
        0 | 1 => error,
        count => Error::new(error.code, format!("{} (after {count} attempts)", error.message)),
    }
}

/// One subtask's way to the table. `clock`: for the time that a key may take.
pub fn lookup(spec: &LookupJoin, place: &Place, clock: Clock) -> Result<Box<dyn Lookup>> {
    let shared = Arc::new(Shared {
        table: spec.table.clone(),
        names: spec.keys.iter().map(|key| key.field.name.clone()).collect(),
        left: AtomicBool::new(false),
    });
    let (requests, from_task) = mpsc::channel(REQUESTS_MAX);
    // An answer for each request that may be open: there is always room.
    let (answers, from_server) = sync_channel(REQUESTS_MAX);
    let driver = Driver { requests: from_task, answers, shared: shared.clone() };
    let run: Box<dyn FnOnce() + Send> = match &spec.connector {
        #[cfg(feature = "redis")]
        LookupConnector::Redis(options) => redis::driver(options, spec, place, clock, driver)?,
        #[cfg(feature = "http")]
        LookupConnector::Http(options) => {
            drop(clock);
            http::driver(options, spec, place, driver)?
        }
        #[cfg(not(all(feature = "redis", feature = "http")))]
        #[allow(unreachable_patterns)]
        other => {
            drop((place, clock, driver));
            let what = format!("table `{}` on {}: this worker is built without it", spec.table, other.describe());
            return Err(Error::invalid(what));
        }
    };
    let thread = std::thread::Builder::new().name(format!("lookup {}/{}", spec.table, place.index));
    thread.spawn(run).unavailable(|| format!("cannot start a thread for lookups of table `{}`", spec.table))?;
    Ok(Box::new(Lookups {
        texts: Texts::new(&Schema::new(spec.keys.iter().map(|key| key.field.clone()).collect())),
        decode: Decode::new(spec)?,
        requests,
        answers: from_server,
        shared,
    }))
}

/// The task's end of the queues.
struct Lookups {
    /// Of the key columns.
    texts: Texts,
    decode: Decode,
    requests: mpsc::Sender<Asked>,
    answers: Receiver<Answered>,
    shared: Arc<Shared>,
}

impl Lookups {
    fn gone(&self) -> Error {
        Error::new(Code::Internal, format!("the thread for lookups of table `{}` has gone", self.shared.table))
    }
}

impl Lookup for Lookups {
    fn request(&mut self, id: u64, keys: RecordBatch) -> Result<()> {
        let views = self.texts.views(&keys)?;
        let text = |row, column| {
            let text = self.texts.text(&views, column, row);
            text.ok_or_else(|| Error::new(Code::Internal, "a lookup of NULL"))
        };
        let key = |row| (0..views.len()).map(|column| text(row, column)).collect::<Result<Vec<String>>>();
        let keys = (0..keys.num_rows()).map(key).collect::<Result<Vec<_>>>()?;
        self.requests.try_send(Asked { id, keys }).map_err(|_| self.gone())
    }

    fn poll(&mut self, wait: Duration) -> Result<Option<Answer>> {
        let Answered { asked, raw } = match self.answers.recv_timeout(wait) {
            Ok(answered) => answered,
            Err(RecvTimeoutError::Timeout) => return Ok(None),
            Err(RecvTimeoutError::Disconnected) => return Err(self.gone()),
        };
        let raw = raw?;
        let (rows, counts) =
            self.decode.rows(&raw).map_err(|(at, error)| self.shared.failed(&asked.keys[at], error))?;
        Ok(Some(Answer { id: asked.id, rows, counts }))
    }
}

impl Drop for Lookups {
    fn drop(&mut self) {
        self.shared.left.store(true, Ordering::Relaxed);
    }
}
