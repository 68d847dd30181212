//! Event time: the merge of watermarks over channels or lanes.

mod merge;
pub use merge::{Change, Merge};
