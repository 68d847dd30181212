//! Splits a batch by the subtask that owns each row's key group. Keeps its index buffers between batches.

use crate::error::{Context, Result};
use crate::keys::hash_rows;
use arrow_array::{RecordBatch, UInt32Array};
use arrow_buffer::ScalarBuffer;
use arrow_select::take::take_record_batch;
use ef_proto::keys::{key_group, owner_of};

/// One per sending subtask and edge.
pub struct Partitioner {
    keys: Vec<usize>,
    parallelism: u32,
    max_parallelism: u16,
    hashes: Vec<u64>,
    rows: Vec<Vec<u32>>,
}

impl Partitioner {
    pub fn new(keys: Vec<usize>, parallelism: u32, max_parallelism: u16) -> Partitioner {
        let rows = (0..parallelism).map(|_| Vec::new()).collect();
        Partitioner { keys, parallelism, max_parallelism, hashes: Vec::new(), rows }
    }

    /// Calls `each(subtask, rows)` for every subtask that gets rows, in order of subtasks; row order is kept.
    pub fn split(&mut self, batch: &RecordBatch, each: &mut dyn FnMut(usize, RecordBatch) -> Result<()>) -> Result<()> {
        let columns: Vec<_> = self.keys.iter().map(|key| batch.column(*key).clone()).collect();
        hash_rows(&columns, &mut self.hashes)?;
        self.rows.iter_mut().for_each(Vec::clear);
        for (row, hash) in self.hashes.iter().enumerate() {
            let owner = owner_of(key_group(*hash, self.max_parallelism), self.parallelism, self.max_parallelism);
            self.rows[owner as usize].push(row as u32);
        }
        for (subtask, rows) in self.rows.iter_mut().enumerate() {
            if rows.is_empty() {
                continue;
            }
            if rows.len() == batch.num_rows() {
                each(subtask, batch.clone())?;
                continue;
            }
            let indices = UInt32Array::new(ScalarBuffer::from(rows.clone()), None);
            let part = take_record_batch(batch, &indices).internal(|| "partitioning a batch".into())?;
            each(subtask, part)?;
        }
        Ok(())
    }
}
