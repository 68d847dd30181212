//! Manifests in a store: create-only, retention, garbage collection, damage.

use super::*;
use ef_proto::checkpoint::{Layout, OperatorState, StateFile, SubtaskState};
use ef_proto::ids::OperatorId;
use ef_proto::plan::Plan;
use ef_store::{Location, Options};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn job() -> JobId {
    JobId("main".into())
}

pub(super) fn manifest(epoch: u64, incarnation: u64, files: impl IntoIterator<Item = StateFile>) -> Manifest {
    let layout = Layout::RocksDb;
    let subtask = SubtaskState { keyed: files.into_iter().collect(), layout, ..SubtaskState::default() };
    Manifest {
        job: job(),
        incarnation: Incarnation(incarnation),
        epoch: Epoch(epoch),
        triggered_at_ms: 0,
        terminal: false,
        max_parallelism: 128,
        operators: vec![OperatorState {
            id: OperatorId(7),
            name: "WindowAggregate(by key)".into(),
            parallelism: 1,
            subtasks: vec![subtask],
        }],
    }
}

pub(super) fn file(incarnation: u64, epoch: u64, name: &str) -> StateFile {
    let path =
        path::state_file(OperatorId(7), 0, &format!("uid{incarnation}"), Incarnation(incarnation), Epoch(epoch), name);
    StateFile { path, name: name.into(), bytes: 3, crc32: crc32fast::hash(b"sst") }
}

/// This job's manifests in a state directory, or in memory.
async fn open(location: &str) -> Result<Manifests> {
    let state = Root::open_checked(&Location::parse(location)?, &Options::default(), 1).await?;
    Manifests::open(&state, job())
}

pub(super) async fn upload(manifests: &Manifests, file: &StateFile) {
    manifests.create(&file.path, b"sst".to_vec()).await.expect("writes");
}

#[tokio::test]
async fn newest_checkpoint_is_found_again_after_a_restart() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let location = scratch.path().to_str().expect("utf-8");
    let manifests = open(location).await.expect("opens");
    assert_eq!(manifests.latest().await, Ok(None));
    assert_eq!(manifests.highest_epoch().await, Ok(None));
    assert_eq!(manifests.next_incarnation(1).await, Ok(Incarnation(1)));
    for epoch in [9, 10, 11] {
        manifests.put(&manifest(epoch, 1, [])).await.expect("puts");
    }
    upload(&manifests, &file(1, 12, "000001.sst")).await;
    drop(manifests);
    let manifests = open(&format!("file://{location}")).await.expect("opens");
    assert_eq!(manifests.list().await, Ok(vec![Epoch(9), Epoch(10), Epoch(11)]));
    assert_eq!(manifests.latest().await, Ok(Some(manifest(11, 1, []))));
    assert_eq!(manifests.highest_epoch().await, Ok(Some(Epoch(12))), "a failed epoch is not reused");
    manifests.put(&manifest(11, 1, [])).await.expect("the same again");
    assert_eq!(manifests.next_incarnation(1).await, Ok(Incarnation(2)));
    let error = manifests.put(&manifest(11, 2, [])).await.expect_err("another content");
    assert_eq!(error.code, Code::Conflict);
    let error = manifests.put(&manifest(12, 1, [])).await.expect_err("its job was taken over");
    assert!(error.code == Code::Conflict && error.message.contains("another process"), "{error}");
}

#[tokio::test]
async fn damaged_newest_manifest_is_an_error_that_names_it_and_stops_the_sweep() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let manifests = open(scratch.path().to_str().expect("utf-8")).await.expect("opens");
    upload(&manifests, &file(1, 1, "old.sst")).await;
    manifests.put(&manifest(1, 1, [])).await.expect("puts");
    let mut bytes = manifest(2, 1, []).encode();
    bytes[6] ^= 1;
    manifests.create(&path::manifest(Epoch(2)), bytes).await.expect("writes");
    let error = manifests.latest().await.expect_err("it is damaged");
    assert_eq!(error.code, Code::Corrupt);
    assert!(error.message.contains(&path::manifest(Epoch(2))), "{error}");
    let error = manifests.retire(&[], Incarnation(1), Epoch(1)).await.expect_err("references are unknown");
    assert!(error.message.contains("nothing is deleted"), "{error}");
    assert_eq!(manifests.root.names("shared").await.map(|names| names.len()), Ok(1));
}

#[tokio::test]
async fn two_processes_do_not_use_one_directory() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let location = scratch.path().to_str().expect("utf-8");
    let first = open(location).await.expect("opens");
    assert_eq!(open(location).await.expect_err("locked").code, Code::Conflict);
    drop(first);
    open(location).await.expect("free again");
}

#[tokio::test]
async fn two_claims_never_get_one_incarnation() {
    let state = Root::open(&Location::Memory, &Options::default(), ef_store::Patience::Full).expect("memory only");
    let [one, two] = [(); 2].map(|()| Manifests::open(&state, job()).expect("no lock in memory"));
    let (a, b) = tokio::join!(one.next_incarnation(1), two.next_incarnation(2));
    assert_ne!(a.expect("claims"), b.expect("claims"));
    assert_eq!(jobs(&state).await, Ok(vec![job()]));
    assert_eq!(Manifests::open(&state, JobId("../x".into())).expect_err("leaves").code, Code::Invalid);
}

#[tokio::test]
async fn janitor_leaves_only_what_the_newest_checkpoint_needs() {
    let state = Root::open(&Location::Memory, &Options::default(), ef_store::Patience::Full).expect("memory only");
    let manifests = std::sync::Arc::new(Manifests::open(&state, job()).expect("no lock in memory"));
    let incarnation = manifests.next_incarnation(1).await.expect("claims");
    let mut janitor = Janitor::new(manifests.clone(), incarnation);
    for epoch in 1..=5 {
        let files = [file(1, epoch, "a.sst"), file(1, epoch, "orphan")];
        for file in &files {
            upload(&manifests, file).await;
        }
        manifests.put(&manifest(epoch, 1, files.into_iter().take(1))).await.expect("puts");
        if epoch > 1 {
            janitor.retire(vec![Epoch(epoch - 1)], Epoch(epoch));
        }
    }
    janitor.finish().await;
    assert_eq!(manifests.list().await, Ok(vec![Epoch(5)]));
    assert_eq!(manifests.root.names("shared").await, Ok(vec![file(1, 5, "a.sst").path]));
}

#[tokio::test]
async fn checkpoint_of_another_root_is_copied_with_its_files() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| scratch.path().join(name).to_str().expect("utf-8").to_owned();
    let old = open(&at("old")).await.expect("opens");
    let held = file(1, 1, "000001.sst");
    upload(&old, &held).await;
    old.put(&manifest(1, 1, [held.clone()])).await.expect("puts");
    let checkpoint = old.root.local.as_ref().expect("local").join("chk/00000000000000000001");
    let new = open(&at("new")).await.expect("opens");
    for given in [checkpoint.clone(), checkpoint.join("manifest")] {
        assert_eq!(load(&new, given.to_str().expect("utf-8"), &at("new")).await, Ok(manifest(1, 1, [held.clone()])));
    }
    assert_eq!(new.root.names("shared").await, Ok(vec![held.path.clone()]));
    std::fs::write(old.root.local.as_ref().expect("local").join(&held.path), b"xxx").expect("it is ours");
    let third = open(&at("third")).await.expect("opens");
    let error = load(&third, checkpoint.to_str().expect("utf-8"), &at("third")).await.expect_err("damaged");
    assert!(error.message.contains("000001.sst"), "{error}");
    assert_eq!(load(&new, &at("old"), &at("new")).await.expect_err("not a checkpoint").code, Code::Invalid);
    let nowhere = format!("{}/chk/00000000000000000001", at("nowhere"));
    assert_eq!(load(&new, &nowhere, &at("new")).await.expect_err("no such root").code, Code::NotFound);
    assert!(!scratch.path().join("nowhere").exists(), "a restore makes no directory");
}

async fn load(manifests: &Manifests, given: &str, state: &str) -> Result<Manifest> {
    manifests.load(given, &Location::parse(state)?, &Options::default()).await
}

#[test]
fn another_sql_is_told_which_state_it_would_lose() {
    let plan = Plan {
        name: "job".into(),
        operators: Vec::new(),
        edges: Vec::new(),
        max_parallelism: 128,
        config: BTreeMap::new(),
    };
    let error = job::check(&manifest(1, 1, [file(1, 1, "x")]), &plan).expect_err("no such operator");
    assert!(error.message.contains("WindowAggregate(by key)") && error.message.contains("--fresh"), "{error}");
    assert_eq!(job::check(&manifest(1, 1, []), &plan), Ok(()), "it has no state");
    let error = job::check(&manifest(1, 1, []), &Plan { max_parallelism: 64, ..plan }).expect_err("other key groups");
    assert!(error.message.contains("128") && error.message.contains("64"), "{error}");
}

/// Where a checkpoint, with its retention, ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// Some files are uploaded, then the checkpoint is aborted; or the process crashes and starts anew.
    Uploading {
        crash: bool,
    },
    /// The process crashes after the manifest.
    Recorded,
    /// The process crashes after this many deletions.
    Retiring(usize),
    Done,
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        1 => any::<bool>().prop_map(|crash| End::Uploading { crash }),
        1 => Just(End::Recorded),
        1 => (0..6usize).prop_map(End::Retiring),
        4 => Just(End::Done),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// A worker that writes a new file per checkpoint, reuses some of the last confirmed one's, and crashes anywhere.
    /// At every step all retained manifests can be restored; after an undisturbed sweep nothing else is left.
    #[test]
    fn sweep_deletes_all_garbage_and_nothing_else(
        checkpoints in prop::collection::vec((end(), any::<u8>(), 0..3usize), 1..30),
        retained in 1..4usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let manifests = open("memory://").await.expect("opens");
            let mut incarnation = manifests.next_incarnation(1).await.expect("claims");
            let mut last = Epoch(0);
            let mut confirmed: Vec<StateFile> = Vec::new();
            for (end, kept, new) in checkpoints {
                last = Epoch(last.0 + 1);
                let reused = confirmed.iter().enumerate().filter(|(i, _)| kept >> (i % 8) & 1 == 1);
                let mut files: Vec<StateFile> = reused.map(|(_, file)| file.clone()).collect();
                for n in 0..=new {
                    let file = file(incarnation.0, last.0, &format!("{n:06}.sst"));
                    upload(&manifests, &file).await;
                    files.push(file);
                }
                let mut crashed = true;
                match end {
                    End::Uploading { crash } => crashed = crash,
                    End::Recorded | End::Retiring(_) | End::Done => {
                        manifests.put(&manifest(last.0, incarnation.0, files.clone())).await.expect("puts");
                        confirmed = files;
                    }
                }
                let epochs = manifests.list().await.expect("lists");
                let old = &epochs[..epochs.len().saturating_sub(retained)];
                match end {
                    End::Uploading { .. } | End::Recorded => {}
                    End::Retiring(deletions) => {
                        // Step by step as `retire` does, then the power goes.
                        for epoch in old.iter().take(deletions) {
                            manifests.root.delete(&path::manifest(*epoch)).await.expect("deletes");
                        }
                        let rest = deletions.saturating_sub(old.len());
                        if deletions >= old.len() {
                            for name in manifests.garbage(incarnation, last).await.expect("reads").iter().take(rest) {
                                manifests.root.delete(name).await.expect("deletes");
                            }
                        }
                    }
                    End::Done => {
                        manifests.retire(old, incarnation, last).await.expect("retires");
                        crashed = false;
                    }
                }
                let present: BTreeSet<String> = manifests.root.names("shared").await.expect("lists").into_iter().collect();
                let mut referenced = BTreeSet::new();
                for epoch in manifests.list().await.expect("lists") {
                    referenced.extend(manifests.get(epoch).await.expect("reads").files().map(|file| file.path.clone()));
                }
                assert!(referenced.is_subset(&present), "a retained checkpoint lost files: {end:?}");
                if matches!(end, End::Done) {
                    assert_eq!(manifests.list().await.expect("lists").len(), (old.len() + retained).min(epochs.len()) - old.len());
                    assert_eq!(referenced, present, "garbage is left");
                }
                if crashed {
                    // What a restart does.
                    incarnation = manifests.next_incarnation(1).await.expect("claims");
                    last = last.max(manifests.highest_epoch().await.expect("lists").unwrap_or_default());
                    let newest = manifests.latest().await.expect("reads");
                    confirmed = newest.map(|manifest| manifest.files().cloned().collect()).unwrap_or_default();
                }
            }
        });
    }
}
