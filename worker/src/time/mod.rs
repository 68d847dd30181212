//! Event time: civil time and its text, the merge of watermarks over channels or lanes.

pub mod civil;
mod merge;

pub use merge::{Change, Merge};
