//! What raft must not forget: the term, whom it voted for in it, and how far the log is known to be committed.
//! Value: term u64, vote u64 (0: nobody), commit u64.

use super::seal::{seal, take_u64, unknown, unseal};
use ef_proto::error::Error;
use raft::prelude::HardState;

pub const KEY: &[u8] = b"hard_state";
const WHAT: &str = "the hard state";

pub fn encode(state: &HardState) -> Vec<u8> {
    let HardState { term, vote, commit } = state;
    seal(KEY, [term, vote, commit].into_iter().flat_map(|number| number.to_be_bytes()).collect())
}

pub fn decode(value: &[u8]) -> Result<HardState, Error> {
    parse(unseal(KEY, value, WHAT)?).ok_or_else(|| unknown(WHAT))
}

fn parse(mut payload: &[u8]) -> Option<HardState> {
    let (term, vote, commit) = (take_u64(&mut payload)?, take_u64(&mut payload)?, take_u64(&mut payload)?);
    payload.is_empty().then_some(HardState { term, vote, commit })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn hard_state_reads_back(term: u64, vote: u64, commit: u64) {
            let state = HardState { term, vote, commit };
            prop_assert_eq!(decode(&encode(&state)), Ok(state));
        }
    }

    #[test]
    fn sealed_value_of_another_length_is_refused() {
        for length in [0, 8, 23, 25] {
            let error = decode(&seal(KEY, vec![0; length])).expect_err("not a hard state");
            assert_eq!(error.message, "the hard state is not in a known form");
        }
    }
}
