//! Which layout the log has, and whose it is. Read before anything else.
//! Value: version u32, id of the node u64.

use super::seal::{seal, take_u32, take_u64, unknown, unseal};
use ef_proto::error::Error;

pub const KEY: &[u8] = b"format";
/// Changes with anything that an older version would misread.
pub const VERSION: u32 = 1;
const WHAT: &str = "the format record";

pub fn encode(node: u64) -> Vec<u8> {
    seal(KEY, [&VERSION.to_be_bytes()[..], &node.to_be_bytes()].concat())
}

/// The id of the node whose log it is. Error Invalid for another version.
pub fn decode(value: &[u8]) -> Result<u64, Error> {
    let mut payload = unseal(KEY, value, WHAT)?;
    let version = take_u32(&mut payload).ok_or_else(|| unknown(WHAT))?;
    if version != VERSION {
        return Err(Error::invalid(format!("it has format {version}, and this version reads format {VERSION}")));
    }
    take_u64(&mut payload).filter(|_| payload.is_empty()).ok_or_else(|| unknown(WHAT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ef_proto::error::Code;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn node_reads_back(node: u64) {
            prop_assert_eq!(decode(&encode(node)), Ok(node));
        }
    }

    #[test]
    fn another_version_is_told_from_damage() {
        let other = seal(KEY, [&2u32.to_be_bytes()[..], b"whatever comes"].concat());
        assert_eq!(decode(&other).map_err(|e| e.code), Err(Code::Invalid));
        let long = seal(KEY, [&VERSION.to_be_bytes()[..], b"123456789"].concat());
        for damaged in [&b""[..], &b"12345"[..], &seal(KEY, vec![0; 3])[..], &long[..]] {
            assert_eq!(decode(damaged).map_err(|e| e.code), Err(Code::Corrupt));
        }
    }
}
