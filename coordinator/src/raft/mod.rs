//! The replicated log: entries of bytes go in at the leader and come out in one order at every node, exactly those that
//! a majority has on disk. Blind to what it carries.
//!
//! One voter for now. What more than one needs is kept apart: `peers` for messages to others, the membership in the
//! stored snapshot. raft-rs decides, in a thread of its own (`driver`); `log` is what it remembers on disk.

mod counts;
mod driver;
mod inbox;
mod log;
mod logger;
mod node;
mod peers;
#[cfg(test)]
mod tests;

pub use counts::Counts;
pub use inbox::PROPOSAL_BYTES_MAX;
pub use node::{Config, Node};

use bytes::Bytes;

/// What the node says, in order. One consumer.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// We lead, in this term, and everything committed before it has been put out.
    Leader { term: u64 },
    /// We lead no longer. Only after a `Leader`: until then nobody has led here.
    Follower { term: u64 },
    /// A committed entry, as it was proposed. In the order of the log, each once per start; after a restart those after
    /// the last snapshot once more. Indexes have gaps: raft keeps entries of its own.
    Applied { index: u64, term: u64, data: Bytes },
    /// At the start, or when a leader has sent a snapshot: forget everything and take this state, which is as of
    /// `index`.
    Restored { index: u64, data: Bytes },
}
