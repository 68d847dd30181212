//! One Kafka record as it waits in a spool: `flags, [key length, key], [value length, value]`.

use crate::error::{Error, Result};

const HAS_KEY: u8 = 1;
const HAS_VALUE: u8 = 2;

/// What is sent. Without a value it is a tombstone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
}

impl Record<'_> {
    /// Key and value.
    pub fn bytes(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len)
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        out.push(flag(self.key.is_some(), HAS_KEY) | flag(self.value.is_some(), HAS_VALUE));
        for bytes in [self.key, self.value].into_iter().flatten() {
            // A record of 4 GiB has been refused long before.
            out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(bytes);
        }
    }

    /// The record at the front of `bytes`, and its length there. None: it is not all there.
    pub fn read(bytes: &[u8]) -> Option<(Record<'_>, usize)> {
        let mut rest = bytes;
        let flags = take::<1>(&mut rest)?[0];
        let has = |flag: u8| flags & flag != 0;
        let mut part = |is: bool| -> Option<Option<&[u8]>> {
            if !is {
                return Some(None);
            }
            let length = u32::from_le_bytes(*take::<4>(&mut rest)?) as usize;
            let (part, after) = rest.split_at_checked(length)?;
            rest = after;
            Some(Some(part))
        };
        let (key, value) = (part(has(HAS_KEY))?, part(has(HAS_VALUE))?);
        Some((Record { key, value }, bytes.len() - rest.len()))
    }

    /// Each record of `bytes`, which must hold whole ones.
    pub fn each(mut bytes: &[u8], mut f: impl FnMut(Record<'_>) -> Result<()>) -> Result<()> {
        while !bytes.is_empty() {
            let (record, length) = Record::read(bytes).ok_or_else(torn)?;
            f(record)?;
            bytes = &bytes[length..];
        }
        Ok(())
    }
}

pub fn torn() -> Error {
    Error::corrupt("a spool of a kafka sink ends within a record")
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (head, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_read_back_and_torn_ones_are_noticed(
            records in prop::collection::vec((any::<Option<Vec<u8>>>(), any::<Option<Vec<u8>>>()), 1..9)
        ) {
            let records: Vec<Record> = records
                .iter()
                .map(|(key, value)| Record { key: key.as_deref(), value: value.as_deref() })
                .collect();
            let mut bytes = Vec::new();
            records.iter().for_each(|record| record.write(&mut bytes));
            let mut at = 0;
            Record::each(&bytes, |record| {
                assert_eq!(record, records[at]);
                at += 1;
                Ok(())
            })
            .expect("whole");
            prop_assert_eq!(at, records.len());
            // A record without key and value is one byte, which may be missing without a trace; their number is known.
            if records.last().is_some_and(|last| last.key.or(last.value).is_some()) {
                prop_assert!(Record::each(&bytes[..bytes.len() - 1], |_| Ok(())).is_err());
            }
        }
    }
}
