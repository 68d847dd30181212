//! One entry of the log. Key: its index, big endian, so that keys sort as the log does.
//! Value: kind u8 (0: data), term u64, length of the context u32, context, data.

use super::seal::{seal, take_u32, take_u64, unknown, unseal};
use ef_proto::error::Error;
use raft::prelude::{Entry, EntryType};

const DATA: u8 = 0;

pub fn key(index: u64) -> [u8; 8] {
    index.to_be_bytes()
}

pub fn index(key: &[u8]) -> Result<u64, Error> {
    key.try_into().map(u64::from_be_bytes).map_err(|_| unknown(&format!("the key {key:02x?} of an entry")))
}

/// An entry and the checksum. Panics for what nobody proposes yet: changes of membership get a kind of their own, and
/// the format another version, when there are members.
pub fn encode(entry: &Entry) -> Vec<u8> {
    let Entry { entry_type, term, index, data, context, .. } = entry;
    assert_eq!(*entry_type, EntryType::EntryNormal as i32, "entry {index} changes the membership");
    let context_bytes = u32::try_from(context.len()).expect("a proposal is at most 1 MiB");
    let mut value = Vec::with_capacity(1 + 8 + 4 + context.len() + data.len() + 4);
    value.push(DATA);
    value.extend(term.to_be_bytes());
    value.extend(context_bytes.to_be_bytes());
    value.extend(context);
    value.extend(data);
    seal(&key(*index), value)
}

pub fn decode(key: &[u8], value: &[u8]) -> Result<Entry, Error> {
    let index = index(key)?;
    let what = || format!("entry {index}");
    let payload = unseal(key, value, &what())?;
    parse(index, payload).ok_or_else(|| unknown(&what()))
}

fn parse(index: u64, payload: &[u8]) -> Option<Entry> {
    let (&[kind], mut rest) = payload.split_first_chunk()?;
    if kind != DATA {
        return None;
    }
    let term = take_u64(&mut rest)?;
    let context_bytes = take_u32(&mut rest)?;
    let (context, data) = rest.split_at_checked(context_bytes as usize)?;
    Some(Entry { index, term, context: context.to_vec(), data: data.to_vec(), ..Entry::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn entry_reads_back(index: u64, term: u64, context: Vec<u8>, data: Vec<u8>) {
            let entry = Entry { index, term, context, data, ..Entry::default() };
            prop_assert_eq!(decode(&key(index), &encode(&entry)), Ok(entry));
        }

        #[test]
        fn keys_sort_as_the_log_does(a: u64, b: u64) {
            prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
            prop_assert_eq!(index(&key(a)), Ok(a));
        }
    }

    #[test]
    fn bytes_on_disk_stay_as_they_are() {
        let entry = Entry { index: 3, term: 2, data: b"job".to_vec(), ..Entry::default() };
        let payload = [&[0u8][..], &2u64.to_be_bytes(), &0u32.to_be_bytes(), b"job"].concat();
        assert_eq!(encode(&entry), seal(&3u64.to_be_bytes(), payload));
    }

    #[test]
    fn sealed_value_of_another_kind_or_length_is_refused() {
        let whole = [&[0u8][..], &2u64.to_be_bytes(), &9u32.to_be_bytes(), b"job"].concat();
        for payload in [&[0u8; 0][..], &[1u8][..], &whole[..1], &whole[..12], &whole[..]] {
            let error = decode(&key(3), &seal(&key(3), payload.to_vec())).expect_err("not an entry");
            assert_eq!(error.message, "entry 3 is not in a known form");
        }
        assert!(decode(b"short", b"").is_err());
    }
}
