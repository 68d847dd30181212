//! What a lookup join asks of the world, and what it keeps of the answers. A leaf: the operator asks, a connector
//! answers, the agent brings them together, and neither sees the other.

mod cache;

pub use cache::{Cache, Rows};

use crate::error::Result;
use arrow_array::RecordBatch;
use std::time::Duration;

/// Requests that may wait for their answers at a time: each is of one batch, and the operator holds back the next.
pub const REQUESTS_MAX: usize = 16;

/// Somewhere outside where rows are looked up by key. Its I/O runs elsewhere: neither call waits for the network
/// longer than it is told to.
pub trait Lookup: Send {
    /// Asks for the rows of each of these keys, which are distinct and not NULL; a column for each key column, in the
    /// plan's order. At most [`REQUESTS_MAX`] requests are open at a time.
    fn request(&mut self, id: u64, keys: RecordBatch) -> Result<()>;

    /// The next answer, in any order; None: there is none yet, after at most `wait`. Err: a key could not be looked up,
    /// however often it was tried.
    fn poll(&mut self, wait: Duration) -> Result<Option<Answer>>;
}

/// To the request of this id.
#[derive(Debug)]
pub struct Answer {
    pub id: u64,
    /// The rows of all keys behind each other, with the columns of `LookupJoin::values`.
    pub rows: RecordBatch,
    /// Of each key of the request, in order.
    pub counts: Vec<u32>,
}
