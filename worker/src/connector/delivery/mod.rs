//! From a sink's subtask to a server that may be slow or away: parcels of rows wait in a queue that is bounded in bytes,
//! and a thread of their own delivers them one after the other, each until it is delivered.
//!
//! The order is kept: one parcel is under way at a time. While the server is away the queue fills, then the task waits
//! (back-pressure), and a checkpoint waits with it; the checkpoint's timeout decides how long that may last. A task that
//! is told to leave stops waiting at once.

mod outbox;

pub(super) use outbox::{Outbox, start};

use crate::error::Error;

/// What is delivered as a whole.
pub(super) trait Parcel: Send + 'static {
    /// Of memory.
    fn bytes(&self) -> usize;
    fn rows(&self) -> u64;
}

/// The way to the server, owned by the thread.
pub(super) trait Carrier: Send + 'static {
    type Parcel: Parcel;

    /// One attempt. Returns in bounded time, whatever the server does.
    fn carry(&mut self, parcel: &Self::Parcel) -> Outcome;
}

/// Texts hold no secrets.
#[derive(Debug)]
pub(super) enum Outcome {
    Delivered,
    /// Not now: the same parcel again, later. `after_ms`: not before, as the server says.
    Retry {
        why: String,
        after_ms: Option<u64>,
    },
    /// Never, and the job goes on without these rows: they are counted.
    Refused {
        why: String,
    },
    /// Never, and the job cannot go on.
    Failed(Error),
}
