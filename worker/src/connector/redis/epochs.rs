//! Batches that are written only when their checkpoint is recorded (`'sink.delivery-guarantee' = 'exactly-once'`): until
//! then they are part of it.
//!
//! A job that goes on from a checkpoint need not come by the same intermediate results again: rows come in other batches,
//! and of several updates of a key in one batch only the last leaves it. A key that was written before the crash, and
//! that the second run never passes through, would stay. What is written here has no such keys: it is what the recorded
//! checkpoint says, and writing it twice leaves what writing it once leaves.

use super::pending::Batch;
use crate::error::{Context, Error, Result};
use ef_proto::connector::RedisSink;
use ef_proto::ids::Epoch;
use std::io::Read;

/// Of commands between two checkpoints, for one subtask: they are in memory.
pub const HELD_BYTES_MAX: usize = 64 << 20;

/// Of them in the checkpoint, compressed: they travel in one message.
const BLOB_BYTES_MAX: usize = 3 << 20;

const VERSION: u8 = 1;

#[derive(Default)]
pub struct Epochs {
    held: Vec<(u64, Batch)>,
}

impl Epochs {
    pub fn hold(&mut self, epoch: Epoch, batch: Batch) {
        if batch.count > 0 {
            self.held.push((epoch.0, batch));
        }
    }

    pub fn bytes(&self) -> usize {
        self.held.iter().map(|(_, batch)| batch.commands.len()).sum()
    }

    /// What may be written now that `epoch` is recorded, in order.
    pub fn due(&mut self, epoch: Epoch) -> Vec<Batch> {
        let (due, held) = std::mem::take(&mut self.held).into_iter().partition(|(of, _)| *of <= epoch.0);
        self.held = held;
        due.into_iter().map(|(_, batch): (u64, Batch)| batch).collect()
    }

    /// For the checkpoint; empty when nothing is held.
    pub fn encode(&self, table: &str) -> Result<Vec<u8>> {
        if self.held.is_empty() {
            return Ok(Vec::new());
        }
        let mut plain = Vec::with_capacity(self.bytes() + 64);
        for (_, batch) in &self.held {
            for number in [batch.count as u64, batch.rows, batch.commands.len() as u64] {
                plain.extend_from_slice(&number.to_le_bytes());
            }
            plain.extend_from_slice(&batch.commands);
        }
        let packed =
            zstd::stream::encode_all(&plain[..], 1).internal(|| "a checkpoint's rows do not compress".into())?;
        if packed.len() > BLOB_BYTES_MAX {
            return Err(too_much(table, packed.len(), BLOB_BYTES_MAX));
        }
        Ok([&[VERSION][..], &packed].concat())
    }

    /// The batches of a checkpoint's part, in order.
    pub fn decode(blob: &[u8]) -> Result<Vec<Batch>> {
        let damaged = || Error::corrupt("the checkpoint's rows for Redis do not read back".to_owned());
        let Some((version, packed)) = blob.split_first() else { return Ok(Vec::new()) };
        if *version != VERSION {
            return Err(damaged());
        }
        let mut plain = Vec::new();
        let unpacked = zstd::stream::read::Decoder::new(packed).map_err(|_| damaged())?;
        // Several epochs may be held, each of at most so much.
        let limit = 4 * HELD_BYTES_MAX as u64;
        let read = unpacked.take(limit + 1).read_to_end(&mut plain).map_err(|_| damaged())?;
        if read as u64 > limit {
            return Err(damaged());
        }
        let (mut rest, mut batches) = (&plain[..], Vec::new());
        while !rest.is_empty() {
            let mut number = || {
                let (bytes, behind) = rest.split_first_chunk::<8>()?;
                rest = behind;
                usize::try_from(u64::from_le_bytes(*bytes)).ok()
            };
            let (count, rows, length) = (number(), number(), number());
            let (Some(count), Some(rows), Some(length)) = (count, rows, length) else { return Err(damaged()) };
            let (commands, behind) = rest.split_at_checked(length).ok_or_else(damaged)?;
            batches.push(Batch { commands: commands.to_vec(), count, rows: rows as u64 });
            rest = behind;
        }
        Ok(batches)
    }
}

pub fn too_much(table: &str, bytes: usize, limit: usize) -> Error {
    Error::invalid(format!(
        "table `{table}`: {} MiB of changed rows between two checkpoints, at most {} MiB can be held for \
         'sink.delivery-guarantee' = 'exactly-once'; expected a shorter 'execution.checkpointing.interval', or \
         'at-least-once'",
        bytes.div_ceil(1 << 20),
        limit >> 20
    ))
}

/// Whether rows wait for their checkpoint.
pub fn waits(options: &RedisSink) -> bool {
    options.exactly_once && options.mode.upserts()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(text: &str) -> Batch {
        Batch { commands: text.as_bytes().to_vec(), count: text.len(), rows: 7 }
    }

    #[test]
    fn batches_are_due_when_their_epoch_or_a_later_one_is_recorded() {
        let mut epochs = Epochs::default();
        epochs.hold(Epoch(1), batch("a"));
        epochs.hold(Epoch(2), batch(""));
        epochs.hold(Epoch(3), batch("bc"));
        epochs.hold(Epoch(4), batch("d"));
        assert_eq!(epochs.bytes(), 4);
        assert_eq!(epochs.due(Epoch(3)), [batch("a"), batch("bc")]);
        assert_eq!(epochs.due(Epoch(3)), []);
        assert_eq!(epochs.due(Epoch(9)), [batch("d")]);
    }

    #[test]
    fn what_is_held_reads_back_and_damage_is_seen() {
        let mut epochs = Epochs::default();
        assert_eq!(epochs.encode("t").expect("nothing"), Vec::<u8>::new());
        assert_eq!(Epochs::decode(&[]).expect("nothing"), []);
        epochs.hold(Epoch(1), batch("a"));
        epochs.hold(Epoch(2), batch("bc"));
        let blob = epochs.encode("t").expect("little");
        assert_eq!(Epochs::decode(&blob).expect("as written"), [batch("a"), batch("bc")]);
        assert!(Epochs::decode(&blob[..blob.len() - 3]).is_err());
        assert!(Epochs::decode(&[9, 9, 9]).is_err());
    }

    #[test]
    fn more_than_a_message_holds_is_an_error_that_says_what_to_do() {
        let mut bits = 1u64;
        let noise = std::iter::repeat_with(|| {
            bits ^= bits << 13;
            bits ^= bits >> 7;
            bits ^= bits << 17;
            bits as u8
        });
        let mut epochs = Epochs::default();
        epochs.hold(Epoch(1), Batch { commands: noise.take(BLOB_BYTES_MAX + 100).collect(), count: 1, rows: 1 });
        let error = epochs.encode("t").expect_err("too much");
        assert!(error.message.contains("4 MiB of changed rows between two checkpoints, at most 3 MiB"), "{error}");
    }
}
