//! `'connector' = 'blackhole'`: takes every row and keeps none; for measuring what comes before it.

use super::{CommitPermit, Sink};
use crate::error::Result;
use arrow_array::RecordBatch;
use ef_proto::ids::Epoch;

pub struct Blackhole;

impl Sink for Blackhole {
    fn write(&mut self, _batch: &RecordBatch) -> Result<()> {
        Ok(())
    }

    fn prepare(&mut self, _epoch: Epoch) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn commit(&mut self, _permit: &CommitPermit) -> Result<()> {
        Ok(())
    }
}
