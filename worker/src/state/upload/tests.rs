//! Uploads: each file once, shared by later checkpoints; nothing half-written is referred to.

use super::*;
use crate::state::Store;
use crate::state::memory::MemoryStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use std::sync::Arc;

fn origin(epoch: u64) -> Origin {
    Origin { operator: OperatorId(7), subtask: 0, incarnation: Incarnation(1), epoch: Epoch(epoch) }
}

fn in_memory() -> Root {
    Root { store: Arc::new(InMemory::new()), prefix: "jobs/a".into(), local: None }
}

fn local(directory: &Path) -> Root {
    let store = LocalFileSystem::new_with_prefix(directory).expect("it exists");
    let local = directory.join("jobs/a");
    std::fs::create_dir_all(&local).expect("it is ours");
    Root { store: Arc::new(store), prefix: "jobs/a".into(), local: Some(local) }
}

fn snapshot(entries: u16) -> Staged {
    let mut store = MemoryStore::new("uid".into(), 0..128);
    (0..entries).for_each(|i| store.put(&i.to_be_bytes(), b"value").expect("memory only"));
    store.snapshot().expect("memory only")
}

fn keys(store: &mut MemoryStore) -> Vec<u16> {
    let mut keys = Vec::new();
    let visit = &mut |key: &[u8], _: &[u8]| {
        keys.push(u16::from_be_bytes([key[0], key[1]]));
        Ok(true)
    };
    store.scan(&[0], &[255; 3], visit).expect("memory only");
    keys
}

#[tokio::test]
async fn memory_state_comes_back_clipped_to_its_key_groups() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    for root in [in_memory(), local(scratch.path())] {
        let state = upload(&root, snapshot(128), origin(1)).await.expect("uploads");
        let parent = download(&root, state, scratch.path().join("in")).await.expect("downloads");
        let mut store = MemoryStore::restore("uid2".into(), 32..64, &[parent]).expect("restores");
        assert!(!scratch.path().join("in").exists(), "what was downloaded goes once the store has it");
        assert_eq!(keys(&mut store), (32..64).collect::<Vec<_>>());
        let mut found = Vec::new();
        store
            .get_many(&[&[0, 40], &[0, 70]], &mut |i, value| {
                found.push((i, value.map(<[u8]>::to_vec)));
                Ok(())
            })
            .expect("memory only");
        assert_eq!(found, [(0, Some(b"value".to_vec())), (1, None)]);
        store.forget_restored();
        assert!(keys(&mut store).is_empty());
    }
}

#[tokio::test]
async fn damaged_missing_and_short_objects_are_named() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let root = in_memory();
    let state = upload(&root, snapshot(10), origin(1)).await.expect("uploads");
    let object = root.object(&state.keyed[0].path);
    let good = root.store.get(&object).await.expect("is there").bytes().await.expect("is there");
    let mut damaged = good.to_vec();
    damaged[good.len() / 2] ^= 1;
    for (bytes, complaint) in
        [(Some(damaged), "crc32"), (Some(good[1..].to_vec()), "bytes instead of"), (None, "missing")]
    {
        match bytes {
            Some(bytes) => drop(root.store.put(&object, bytes.into()).await.expect("memory only")),
            None => root.store.delete(&object).await.expect("memory only"),
        }
        let error = download(&root, state.clone(), scratch.path().join("in")).await.expect_err(complaint);
        assert_eq!(error.code, Code::Corrupt);
        assert!(!scratch.path().join("in").exists(), "nor does a failed download leave anything behind");
        assert!(error.message.contains(complaint) && error.message.contains(object.as_ref()), "{error}");
    }
}

#[tokio::test]
async fn repeated_upload_is_accepted_and_another_content_is_not() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    for root in [in_memory(), local(scratch.path())] {
        let first = upload(&root, snapshot(10), origin(1)).await.expect("uploads");
        assert_eq!(upload(&root, snapshot(10), origin(1)).await, Ok(first));
        let error = upload(&root, snapshot(11), origin(1)).await.expect_err("another content");
        assert_eq!(error.code, Code::Conflict, "{error}");
    }
}

#[tokio::test]
async fn file_names_that_leave_the_directory_are_refused() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let file = StateFile { path: "shared/x".into(), name: "../x".into(), bytes: 0, crc32: 0 };
    let state = SubtaskState { keyed: vec![file], ..SubtaskState::default() };
    let error = download(&in_memory(), state, scratch.path().join("in")).await.expect_err("leaves the directory");
    assert!(error.message.contains("../x"), "{error}");
}
