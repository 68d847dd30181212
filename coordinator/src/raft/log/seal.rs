//! A checksum on each stored value, over its key as well: bytes that were damaged, or that belong elsewhere, are never
//! taken for entries. RocksDB has its own checksums below; this one also covers what happens above them.

use ef_proto::error::Error;

const SEAL_BYTES: usize = 4;

fn checksum(key: &[u8], payload: &[u8]) -> [u8; SEAL_BYTES] {
    let mut crc = crc32fast::Hasher::new();
    crc.update(key);
    crc.update(payload);
    crc.finalize().to_be_bytes()
}

/// The value to store: `payload` and its checksum.
pub fn seal(key: &[u8], mut payload: Vec<u8>) -> Vec<u8> {
    let checksum = checksum(key, &payload);
    payload.extend(checksum);
    payload
}

/// The payload of a stored value; `what` names it in the error.
pub fn unseal<'a>(key: &[u8], value: &'a [u8], what: &str) -> Result<&'a [u8], Error> {
    let sealed = value.split_last_chunk().filter(|(payload, seal)| checksum(key, payload) == **seal);
    let (payload, _) = sealed.ok_or_else(|| Error::corrupt(format!("{what} does not match its checksum")))?;
    Ok(payload)
}

/// Takes a number from the front of `bytes`.
pub fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_be_bytes(*number))
}

/// Takes a count or a length from the front of `bytes`.
pub fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_be_bytes(*number))
}

/// For sealed bytes that do not decode: not damaged, but written by something else.
pub fn unknown(what: &str) -> Error {
    Error::corrupt(format!("{what} is not in a known form"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_flipped_bit_and_any_other_key_is_noticed(
            key: Vec<u8>,
            payload: Vec<u8>,
            at: prop::sample::Index,
            bit in 0..8u32,
        ) {
            let value = seal(&key, payload.clone());
            prop_assert_eq!(unseal(&key, &value, "it").expect("unchanged"), &payload);
            let mut damaged = value.clone();
            damaged[at.index(value.len())] ^= 1u8 << bit;
            prop_assert!(unseal(&key, &damaged, "it").is_err());
            let other = [&key[..], b"x"].concat();
            prop_assert!(unseal(&other, &value, "it").is_err());
        }
    }

    #[test]
    fn value_shorter_than_a_checksum_is_damaged() {
        let error = unseal(b"key", &[1, 2, 3], "entry 7").expect_err("too short");
        assert_eq!(error.message, "entry 7 does not match its checksum");
    }
}
