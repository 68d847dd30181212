//! The store on disk against a sorted map, through checkpoints and crashes.

use super::*;
use crate::state::{Origin, Root, download, upload};
use ef_proto::checkpoint::SubtaskState;
use ef_proto::ids::{Epoch, Incarnation, OperatorId};
use object_store::local::LocalFileSystem;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::ops::Bound;
use tokio::runtime::Runtime;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

const GROUPS: u16 = 8;

struct World {
    scratch: tempfile::TempDir,
    root: Root,
    runtime: Runtime,
    shared: Arc<RocksShared>,
    opened: u64,
}

impl World {
    fn new() -> World {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let local = scratch.path().join("store");
        std::fs::create_dir_all(&local).expect("it is ours");
        let store = Arc::new(LocalFileSystem::new_with_prefix(&local).expect("it exists"));
        World {
            root: Root { store, prefix: Default::default(), local: Some(local) },
            runtime: tokio::runtime::Builder::new_current_thread().build().expect("a runtime"),
            shared: Arc::new(RocksShared::new(8 << 20)),
            opened: 0,
            scratch,
        }
    }

    fn open(&mut self, key_groups: Range<u16>, parents: &[SubtaskState]) -> RocksStore {
        self.opened += 1;
        let (uid, work) = (format!("uid{}", self.opened), self.scratch.path().join(format!("work{}", self.opened)));
        let downloaded: Vec<Restored> = parents
            .iter()
            .map(|state| {
                let to = work.join(format!("in{}", state.index));
                self.runtime.block_on(download(&self.root, state.clone(), to)).expect("downloads")
            })
            .collect();
        RocksStore::restore(work.join("store"), uid, key_groups, self.shared.clone(), &downloaded).expect("restores")
    }

    fn upload(&self, staged: Staged, subtask: u32, epoch: u64) -> SubtaskState {
        let (operator, incarnation) = (OperatorId(1), Incarnation(1));
        let origin = Origin { operator, subtask, incarnation, epoch: Epoch(epoch) };
        self.runtime.block_on(upload(&self.root, staged, origin)).expect("uploads")
    }
}

fn key(random: &mut SmallRng) -> Vec<u8> {
    let mut key = random.random_range(0..GROUPS).to_be_bytes().to_vec();
    key.extend_from_slice(&random.random_range(0..200u32).to_be_bytes());
    key
}

fn contents(store: &mut RocksStore) -> Model {
    let mut found = Model::new();
    store
        .scan(&[], &[255; 8], &mut |key, value| {
            assert!(found.insert(key.to_vec(), value.to_vec()).is_none(), "a key twice");
            Ok(true)
        })
        .expect("scans");
    found
}

fn check_lookups(store: &mut RocksStore, model: &Model, random: &mut SmallRng) {
    let keys: Vec<Vec<u8>> = (0..random.random_range(0..700)).map(|_| key(random)).collect();
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let mut next = 0;
    store
        .get_many(&keys, &mut |i, value| {
            assert_eq!(i, next);
            assert_eq!(value, model.get(keys[i]).map(Vec::as_slice));
            next += 1;
            Ok(())
        })
        .expect("looks up");
    assert_eq!(next, keys.len());
}

/// Random work with checkpoints that complete or fail, and crashes that go back to the last that completed.
#[test]
fn store_is_what_a_sorted_map_would_be_through_checkpoints_and_crashes() {
    for seed in 0..6 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut world = World::new();
        let (mut store, mut model) = (world.open(0..GROUPS, &[]), Model::new());
        let mut completed: (Option<SubtaskState>, Model) = (None, Model::new());
        for epoch in 1..25 {
            for _ in 0..random.random_range(0..400) {
                match random.random_range(0..20) {
                    0 => {
                        let (a, b) = (key(&mut random), key(&mut random));
                        store.delete_range(&a, &b).expect("writes");
                        if a < b {
                            let range = (Bound::Included(a), Bound::Excluded(b));
                            let gone: Vec<_> = model.range(range).map(|(key, _)| key.clone()).collect();
                            gone.iter().for_each(|key| drop(model.remove(key)));
                        }
                    }
                    1..5 => {
                        let key = key(&mut random);
                        store.delete(&key).expect("writes");
                        model.remove(&key);
                    }
                    _ => {
                        let (key, value) = (key(&mut random), random.random::<u64>().to_be_bytes().to_vec());
                        store.put(&key, &value).expect("writes");
                        model.insert(key, value);
                    }
                }
            }
            check_lookups(&mut store, &model, &mut random);
            assert!(contents(&mut store) == model, "seed {seed}, epoch {epoch}");
            let staged = store.snapshot().expect("snapshots");
            let sequence = staged.sequence;
            match random.random_range(0..4) {
                0 => drop(staged),                                                   // aborted before the upload
                1 => store.uploaded(sequence, world.upload(staged, 0, epoch).keyed), // aborted after it
                _ => {
                    let state = world.upload(staged, 0, epoch);
                    store.uploaded(sequence, state.keyed.clone());
                    store.confirm(sequence);
                    completed = (Some(state), model.clone());
                }
            }
            if random.random_range(0..5) == 0 {
                drop(store);
                store = world.open(0..GROUPS, completed.0.as_slice());
                model = completed.1.clone();
                assert!(contents(&mut store) == model, "seed {seed}, restored after epoch {epoch}");
            }
        }
    }
}

#[test]
fn rescaled_state_is_the_same_state() {
    let mut world = World::new();
    let mut random = SmallRng::seed_from_u64(1);
    let model: Model = (0..500).map(|i: u32| (key(&mut random), i.to_be_bytes().to_vec())).collect();
    let mut states: Vec<SubtaskState> = Vec::new();
    let split = |parts: u16| (0..parts).map(move |i| GROUPS * i / parts..GROUPS * (i + 1) / parts);
    let mut epoch = 0;
    for parts in [1, 3, 2, 8, 1] {
        epoch += 1;
        let mut found = Model::new();
        let mut next = Vec::new();
        for (index, groups) in split(parts).enumerate() {
            let overlaps =
                |state: &&SubtaskState| state.key_groups.start < groups.end && groups.start < state.key_groups.end;
            let parents: Vec<SubtaskState> = states.iter().filter(overlaps).cloned().collect();
            let mut store = world.open(groups.clone(), &parents);
            if epoch == 1 {
                model.iter().for_each(|(key, value)| store.put(key, value).expect("writes"));
            }
            let part = contents(&mut store);
            assert!(part.keys().all(|key| groups.contains(&u16::from_be_bytes([key[0], key[1]]))));
            found.extend(part);
            let staged = store.snapshot().expect("snapshots");
            next.push(world.upload(staged, index as u32, epoch));
        }
        assert!(found == model, "{parts} subtasks");
        states = next;
    }
}

#[test]
fn only_files_of_a_confirmed_snapshot_are_reused() {
    let mut world = World::new();
    let mut store = world.open(0..GROUPS, &[]);
    let reused = |staged: &Staged| {
        let files = staged.files.iter().filter(|file| matches!(file.content, Content::Reused(_)));
        files.map(|file| file.name.clone()).collect::<Vec<_>>()
    };
    store.put(&[0, 1, 1], b"a").expect("writes");
    let first = store.snapshot().expect("snapshots");
    assert_eq!(reused(&first), [] as [&str; 0]);
    let sequence = first.sequence;
    let state = world.upload(first, 0, 1);
    store.uploaded(sequence, state.keyed.clone());
    let second = store.snapshot().expect("snapshots");
    assert_eq!(reused(&second), [] as [&str; 0], "the first is not confirmed");
    store.confirm(sequence);
    let third = store.snapshot().expect("snapshots");
    let ssts: Vec<_> = state.keyed.iter().map(|file| file.name.clone()).filter(|name| name.ends_with(".sst")).collect();
    assert!(!ssts.is_empty());
    assert_eq!(reused(&third), ssts);
    // A restored store goes on from the files it was restored from.
    let state = world.upload(third, 0, 3);
    let mut restored = world.open(0..GROUPS, &[state]);
    assert_eq!(reused(&restored.snapshot().expect("snapshots")), ssts);
}

#[test]
fn staged_files_and_the_store_leave_nothing_behind() {
    let mut world = World::new();
    let mut store = world.open(0..GROUPS, &[]);
    store.put(&[0, 1], b"a").expect("writes");
    let staged = store.snapshot().expect("snapshots");
    let (work, staging) = (store.directory.path().to_owned(), staged.directory.as_ref().map(|d| d.path().to_owned()));
    let staging = staging.expect("RocksDB stages on disk");
    assert!(staging.exists());
    drop(staged);
    assert!(!staging.exists());
    drop(store);
    assert!(!work.exists());
}

#[test]
fn interrupted_store_refuses_what_would_wait() {
    let mut world = World::new();
    let mut store = world.open(0..GROUPS, &[]);
    store.put(&[0, 1], b"value").expect("writes");
    let interrupt = store.interrupt().expect("there is a database");
    interrupt();
    assert!(store.snapshot().is_err(), "it waits for a flush");
    let late = store.interrupt().expect("there is a database");
    drop(store);
    late();
}
