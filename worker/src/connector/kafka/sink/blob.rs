//! What a checkpoint knows of a sink's unpublished rows: the slots that this subtask answers for, the epochs in each, and
//! the rows themselves where they are few. Larger ones lie in files of the same checkpoint.

use crate::error::{Error, Result};
use bytes::Bytes;
use prost::Message;

const VERSION: u32 = 1;

#[derive(Clone, PartialEq, Message)]
pub struct Blob {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(message, repeated, tag = "2")]
    pub slots: Vec<SlotState>,
}

/// A transactional id with the rows that have been written under it.
#[derive(Clone, PartialEq, Message)]
pub struct SlotState {
    #[prost(string, tag = "1")]
    pub id: String,
    /// The subtask that writes under it.
    #[prost(uint32, tag = "2")]
    pub subtask: u32,
    /// The job whose slot it is; another one reads it in a savepoint.
    #[prost(string, tag = "3")]
    pub job: String,
    /// Where its marker lies.
    #[prost(string, tag = "4")]
    pub topic: String,
    /// The newest epoch that is known to be in Kafka.
    #[prost(uint64, optional, tag = "5")]
    pub committed: Option<u64>,
    /// Ascending by epoch.
    #[prost(message, repeated, tag = "6")]
    pub segments: Vec<SegmentState>,
    /// The checkpoint that the slot was restored from, while nobody has seen yet that Kafka holds nothing newer.
    #[prost(uint64, optional, tag = "7")]
    pub unchecked: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct SegmentState {
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    #[prost(uint64, tag = "2")]
    pub rows: u64,
    #[prost(uint64, tag = "3")]
    pub bytes: u64,
    #[prost(uint32, tag = "4")]
    pub crc32: u32,
    /// Its file among those that were staged with the blob; empty: the rows are `inline`.
    #[prost(string, tag = "5")]
    pub file: String,
    #[prost(bytes = "bytes", tag = "6")]
    pub inline: Bytes,
}

impl Blob {
    pub fn new(slots: Vec<SlotState>) -> Blob {
        Blob { version: VERSION, slots }
    }

    pub fn encode(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    pub fn decode(bytes: &[u8]) -> Result<Blob> {
        let corrupt = |what: String| Error::corrupt(format!("the checkpoint's state of a kafka sink: {what}"));
        let blob = <Blob as Message>::decode(bytes).map_err(|e| corrupt(e.to_string()))?;
        if blob.version != VERSION {
            return Err(corrupt(format!("version {} is not known, {VERSION} is", blob.version)));
        }
        Ok(blob)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blob_reads_back_and_another_version_is_refused() {
        let segment = |epoch, file: &str| SegmentState {
            epoch,
            rows: 3,
            bytes: 9,
            crc32: 7,
            file: file.into(),
            inline: Bytes::from_static(b"rows"),
        };
        let slot = SlotState {
            id: "p-j-1-0-1".into(),
            subtask: 0,
            job: "j".into(),
            topic: "out".into(),
            committed: Some(4),
            segments: vec![segment(5, ""), segment(6, "000006.rows")],
            unchecked: Some(3),
        };
        let blob = Blob::new(vec![slot]);
        assert_eq!(Blob::decode(&blob.encode()), Ok(blob.clone()));
        let later = Blob { version: 2, ..blob.clone() };
        let error = Blob::decode(&later.encode()).expect_err("unknown");
        assert!(error.message.ends_with("version 2 is not known, 1 is"), "{error}");
        assert!(Blob::decode(&blob.encode()[..20]).is_err(), "torn");
    }
}
