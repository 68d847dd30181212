//! The rows of one side of one window, in memory and in the store, and the layout of their state.
//!
//! Key: key group u16 ‖ side u8 ‖ window end i64 ‖ window start i64 ‖ sequence u64, all big endian, times with the
//! sign bit flipped, so that they sort. Value: rows of that key group, window and side, each a length (u32 little
//! endian) and the row in Arrow's row format. Chunks are only ever added; a window's chunks go when it has fired.

use crate::error::{Context, Error, Result};
use crate::frame::BATCH_ROWS;
use crate::keys::hash_rows;
use crate::state::Store;
use arrow_array::{ArrayRef, RecordBatch};
use arrow_row::{RowConverter, SortField};
use arrow_schema::SchemaRef;
use arrow_select::concat::concat_batches;
use ef_proto::keys::key_group;

/// A window by (end, start): the order in which windows fire.
pub type WindowId = (i64, i64);

pub const KEY_BYTES: usize = 27;
pub type Key = [u8; KEY_BYTES];

#[derive(Default)]
pub struct Side {
    /// Not yet in the store.
    pub fresh: Vec<RecordBatch>,
    /// In the store too.
    pub kept: Vec<RecordBatch>,
    /// (key group, sequence) of the chunks in the store.
    pub stored: Vec<(u16, u64)>,
    /// Some of the stored rows are no longer in `kept`.
    pub evicted: bool,
    pub bytes: usize,
}

impl Side {
    /// Adds rows. Small batches are merged into ones about as large, so that n rows cost O(log n) copies each and
    /// never thousands of little batches.
    pub fn push(&mut self, batch: RecordBatch) -> Result<()> {
        self.bytes += batch.get_array_memory_size();
        self.fresh.push(batch);
        while let [.., before, last] = &self.fresh[..]
            && before.num_rows() <= 2 * last.num_rows()
            && before.num_rows() + last.num_rows() <= BATCH_ROWS
        {
            let merged = concat_batches(last.schema_ref(), [before, last]).internal(|| "merging batches".into())?;
            let old = before.get_array_memory_size() + last.get_array_memory_size();
            self.bytes = self.bytes.saturating_sub(old) + merged.get_array_memory_size();
            self.fresh.truncate(self.fresh.len() - 2);
            self.fresh.push(merged);
        }
        Ok(())
    }

    /// All rows that are in memory, as one batch; they leave this side.
    pub fn take_rows(&mut self, schema: &SchemaRef) -> Result<RecordBatch> {
        let mut batches = std::mem::take(&mut self.kept);
        batches.append(&mut self.fresh);
        self.bytes = 0;
        if batches.len() == 1 {
            return Ok(batches.remove(0));
        }
        concat_batches(schema, &batches).internal(|| "joining the batches of a window".into())
    }
}

/// Writes the rows of one input to the store and reads them back.
pub struct Codec {
    side: u8,
    /// The columns whose hash is the row's key group; never none.
    keys: Vec<usize>,
    pub schema: SchemaRef,
    converter: RowConverter,
    max_parallelism: u16,
    hashes: Vec<u64>,
    order: Vec<(u16, u32)>,
    value: Vec<u8>,
}

impl Codec {
    pub fn new(side: u8, keys: Vec<usize>, schema: SchemaRef, max_parallelism: u16) -> Result<Codec> {
        let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
        let converter = RowConverter::new(fields).internal(|| "rows of a window join".into())?;
        let (hashes, order, value) = Default::default();
        Ok(Codec { side, keys, schema, converter, max_parallelism, hashes, order, value })
    }

    pub fn key(&self, group: u16, window: WindowId, sequence: u64) -> Key {
        let mut key = [0; KEY_BYTES];
        key[..2].copy_from_slice(&group.to_be_bytes());
        key[2] = self.side;
        key[3..11].copy_from_slice(&flip(window.0).to_be_bytes());
        key[11..19].copy_from_slice(&flip(window.1).to_be_bytes());
        key[19..].copy_from_slice(&sequence.to_be_bytes());
        key
    }

    /// Puts the rows of `batch`, one chunk a key group; `stored` is told each chunk's key group and sequence.
    pub fn put(
        &mut self,
        batch: &RecordBatch,
        window: WindowId,
        sequence: &mut u64,
        store: &mut dyn Store,
        mut stored: impl FnMut(u16, u64),
    ) -> Result<()> {
        let keys: Vec<ArrayRef> = self.keys.iter().map(|column| batch.column(*column).clone()).collect();
        hash_rows(&keys, &mut self.hashes)?;
        self.order.clear();
        let groups = self.hashes.iter().map(|hash| key_group(*hash, self.max_parallelism));
        self.order.extend(groups.zip(0u32..));
        self.order.sort_unstable();
        let rows = self.converter.convert_columns(batch.columns()).internal(|| "encoding rows".into())?;
        for run in self.order.chunk_by(|a, b| a.0 == b.0) {
            self.value.clear();
            for (_, row) in run {
                let row = rows.row(*row as usize);
                self.value.extend((row.as_ref().len() as u32).to_le_bytes());
                self.value.extend(row.as_ref());
            }
            let group = run[0].0;
            store.put(&self.key(group, window, *sequence), &self.value)?;
            stored(group, *sequence);
            *sequence += 1;
        }
        Ok(())
    }

    /// The rows of chunks laid end to end.
    pub fn decode(&self, mut chunks: &[u8]) -> Result<Vec<RecordBatch>> {
        let broken = || Error::corrupt("rows of a window join in the state end early");
        let parser = self.converter.parser();
        let mut batches = Vec::new();
        while !chunks.is_empty() {
            let mut rows = Vec::new();
            while rows.len() < BATCH_ROWS && !chunks.is_empty() {
                let (length, rest) = chunks.split_first_chunk().ok_or_else(broken)?;
                let (row, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(broken)?;
                rows.push(parser.parse(row));
                chunks = rest;
            }
            let columns = self.converter.convert_rows(rows).corrupt(|| "rows of a window join in the state".into())?;
            let batch = RecordBatch::try_new(self.schema.clone(), columns);
            batches.push(batch.corrupt(|| "rows of a window join in the state".into())?);
        }
        Ok(batches)
    }
}

/// (key group, side, window, sequence) of a key.
pub fn parse_key(key: &[u8]) -> Result<(u16, u8, WindowId, u64)> {
    let key: &Key = key.try_into().map_err(|_| {
        Error::corrupt(format!("a window join's state has a key of {} bytes, not {KEY_BYTES}", key.len()))
    })?;
    let long = |at: usize| u64::from_be_bytes(key[at..at + 8].try_into().expect("8 of 27 bytes"));
    if key[2] > 1 {
        return Err(Error::corrupt(format!("a window join's state has rows of input {}, not 0 or 1", key[2])));
    }
    Ok((u16::from_be_bytes([key[0], key[1]]), key[2], (unflip(long(3)), unflip(long(11))), long(19)))
}

fn flip(time: i64) -> u64 {
    time as u64 ^ (1 << 63)
}

fn unflip(time: u64) -> i64 {
    (time ^ (1 << 63)) as i64
}
