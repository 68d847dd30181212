//! What a node of the replicated log remembers on disk: entries after the last snapshot, the hard state, the snapshot.
//!
//! One file per stored thing, with its key, its bytes and a round-trip test: `entry`, `hard_state`, `snapshot`,
//! `format`. Each value carries a checksum of ours (`seal`). The bytes are our own layout, not raft-rs' protobuf, whose
//! encoding depends on how that crate is built. `disk` is the RocksDB below, `store` what raft-rs sees.

mod disk;
mod entry;
mod format;
mod hard_state;
mod seal;
mod snapshot;
mod store;
mod terms;
#[cfg(test)]
mod tests;

pub use store::{Change, Log};

#[cfg(test)]
pub use {disk::LOG, disk::META, seal::seal};
