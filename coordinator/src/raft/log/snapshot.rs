//! The consumer's state as of an index, with what raft needs to go on from there: the term of that entry and the group's
//! members. There always is one; that of an empty log is at index 0 and without data.
//! Value: index u64, term u64, four lists of members (count u32, ids u64), auto_leave u8, data.

use super::seal::{seal, take_u32, take_u64, unknown, unseal};
use ef_proto::error::Error;
use raft::prelude::{ConfState, Snapshot, SnapshotMetadata};

pub const KEY: &[u8] = b"snapshot";
const WHAT: &str = "the snapshot";

pub fn encode(metadata: &SnapshotMetadata, data: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(128 + data.len());
    value.extend(metadata.index.to_be_bytes());
    value.extend(metadata.term.to_be_bytes());
    let ConfState { voters, learners, voters_outgoing, learners_next, auto_leave } = metadata.get_conf_state();
    for members in [voters, learners, voters_outgoing, learners_next] {
        let count = u32::try_from(members.len()).expect("a group has a handful of members");
        value.extend(count.to_be_bytes());
        value.extend(members.iter().flat_map(|id| id.to_be_bytes()));
    }
    value.push(u8::from(*auto_leave));
    value.extend(data);
    seal(KEY, value)
}

pub fn decode(value: &[u8]) -> Result<Snapshot, Error> {
    parse(unseal(KEY, value, WHAT)?).ok_or_else(|| unknown(WHAT))
}

fn parse(mut payload: &[u8]) -> Option<Snapshot> {
    let (index, term) = (take_u64(&mut payload)?, take_u64(&mut payload)?);
    let mut members = || {
        let count = take_u32(&mut payload)?;
        (0..count).map(|_| take_u64(&mut payload)).collect::<Option<Vec<u64>>>()
    };
    let (voters, learners, voters_outgoing, learners_next) = (members()?, members()?, members()?, members()?);
    let (&[auto_leave], data) = payload.split_first_chunk()?;
    if auto_leave > 1 {
        return None;
    }
    let auto_leave = auto_leave == 1;
    let conf_state = Some(ConfState { voters, learners, voters_outgoing, learners_next, auto_leave });
    Some(Snapshot { data: data.to_vec(), metadata: Some(SnapshotMetadata { conf_state, index, term }) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn snapshot_reads_back(
            index: u64,
            term: u64,
            voters: Vec<u64>,
            learners: Vec<u64>,
            voters_outgoing: Vec<u64>,
            learners_next: Vec<u64>,
            auto_leave: bool,
            data: Vec<u8>,
        ) {
            let conf_state = Some(ConfState { voters, learners, voters_outgoing, learners_next, auto_leave });
            let metadata = SnapshotMetadata { conf_state, index, term };
            let read = decode(&encode(&metadata, &data));
            prop_assert_eq!(read, Ok(Snapshot { data, metadata: Some(metadata) }));
        }
    }

    #[test]
    fn sealed_value_cut_short_is_refused() {
        let conf_state = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
        let metadata = SnapshotMetadata { conf_state: Some(conf_state), index: 9, term: 2 };
        let value = encode(&metadata, b"");
        let payload = &value[..value.len() - 4];
        for length in 0..payload.len() {
            let error = decode(&seal(KEY, payload[..length].to_vec())).expect_err("not a snapshot");
            assert_eq!(error.message, "the snapshot is not in a known form");
        }
    }
}
