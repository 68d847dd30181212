//! What was encoded is decoded, and damage is an error.

use super::*;
use proptest::prelude::*;

fn state_file() -> impl Strategy<Value = StateFile> {
    ("[a-z/0-9]{0,20}", "[a-zA-Z0-9.]{0,10}", any::<u64>(), any::<u32>())
        .prop_map(|(path, name, bytes, crc32)| StateFile { path, name, bytes, crc32 })
}

fn subtask() -> impl Strategy<Value = SubtaskState> {
    let layout = prop_oneof![Just(Layout::Entries), Just(Layout::RocksDb)];
    let blob = prop::collection::vec(any::<u8>(), 0..20);
    (any::<u32>(), any::<u16>(), any::<u16>(), layout, prop::collection::vec(state_file(), 0..4), blob, any::<bool>())
        .prop_map(|(index, from, to, layout, keyed, blob, ended)| SubtaskState {
            index,
            key_groups: from..to,
            layout,
            keyed,
            blob,
            ended,
        })
}

fn operator() -> impl Strategy<Value = OperatorState> {
    (any::<u64>(), ".{0,8}", any::<u32>(), prop::collection::vec(subtask(), 0..3))
        .prop_map(|(id, name, parallelism, subtasks)| OperatorState { id: OperatorId(id), name, parallelism, subtasks })
}

fn manifest() -> impl Strategy<Value = Manifest> {
    let numbers = (any::<u64>(), any::<u64>(), any::<i64>());
    (".{0,8}", numbers, any::<bool>(), any::<u16>(), prop::collection::vec(operator(), 0..4)).prop_map(
        |(job, (incarnation, epoch, triggered_at_ms), terminal, max_parallelism, operators)| Manifest {
            job: JobId(job),
            incarnation: Incarnation(incarnation),
            epoch: Epoch(epoch),
            triggered_at_ms,
            terminal,
            max_parallelism,
            operators,
        },
    )
}

proptest! {
    #[test]
    fn manifest_reads_back_as_written(manifest in manifest()) {
        prop_assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
    }

    #[test]
    fn every_flipped_byte_of_a_manifest_is_detected(manifest in manifest(), flip in 1..=255u8) {
        let mut bytes = manifest.encode();
        for at in 0..bytes.len() {
            bytes[at] ^= flip;
            prop_assert!(Manifest::decode(&bytes).is_err(), "byte {} of {}", at, bytes.len());
            bytes[at] ^= flip;
        }
    }

    #[test]
    fn every_truncation_of_a_manifest_is_detected(manifest in manifest()) {
        let bytes = manifest.encode();
        for length in 0..bytes.len() {
            prop_assert!(Manifest::decode(&bytes[..length]).is_err(), "{length} of {}", bytes.len());
        }
    }
}

#[test]
fn manifest_of_a_newer_version_is_refused_by_its_number() {
    let manifest = Manifest {
        job: JobId("job".into()),
        incarnation: Incarnation(1),
        epoch: Epoch(1),
        triggered_at_ms: 0,
        terminal: false,
        max_parallelism: 128,
        operators: Vec::new(),
    };
    let mut bytes = manifest.encode();
    bytes[4] = 9;
    let end = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[..end]).to_le_bytes();
    bytes[end..].copy_from_slice(&crc);
    let error = Manifest::decode(&bytes).expect_err("version 9 does not exist yet");
    assert!(error.message.contains("version 9"), "{error}");
}

#[test]
fn paths_carry_epoch_and_origin() {
    assert_eq!(path::manifest_epoch(&path::manifest(Epoch(42))), Some(Epoch(42)));
    assert_eq!(path::manifest_epoch("chk/42/manifest"), None);
    let file = path::state_file(OperatorId(7), 3, "uid", Incarnation(2), Epoch(5), "000012-x.sst");
    assert_eq!(path::state_file_origin(&file), Some((Incarnation(2), Epoch(5))));
    assert_eq!(path::state_file_origin("shared/x"), None);
}
