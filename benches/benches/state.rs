//! Keyed state: RocksDB by batches as operators use it, and the entries of a checkpoint of memory state.

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use ef_benches::stage::store;
use ef_proto::keys::{hash_u64, key_group};
use ef_worker::config::Backend;
use ef_worker::state::Store;
use std::time::Duration;

const KEYS: u64 = 100_000;
/// Looked up at once: the new keys of a batch.
const LOOKUPS: usize = 8192;

/// Keys of a BIGINT column as operators lay them out, sorted.
fn keys() -> Vec<Vec<u8>> {
    let key = |k: u64| [&key_group(hash_u64(k), 128).to_be_bytes()[..], &[1], &k.to_be_bytes()].concat();
    let mut keys: Vec<Vec<u8>> = (0..KEYS).map(key).collect();
    keys.sort();
    keys
}

fn put(store: &mut dyn Store, keys: &[Vec<u8>]) {
    for (i, key) in keys.iter().enumerate() {
        let mut value = [0; 32];
        value[..8].copy_from_slice(&(i as u64).to_le_bytes());
        store.put(key, &value).expect("a store that can be written");
    }
}

fn benches(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let keys = keys();
    let mut rocks = store(Backend::RocksDb, folder.path());
    put(rocks.as_mut(), &keys);
    let mut group = c.benchmark_group("state");
    group.sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Elements(KEYS));
    group.bench_function("rocksdb/put", |b| b.iter(|| put(rocks.as_mut(), &keys)));
    // Every 12th key, so that one look-up of a batch covers the whole database, as a batch's keys do.
    let step = KEYS as usize / LOOKUPS;
    let rounds: Vec<Vec<&[u8]>> =
        (0..step).map(|from| keys.iter().skip(from).step_by(step).map(Vec::as_slice).collect()).collect();
    group.bench_function("rocksdb/get_many", |b| {
        b.iter(|| {
            let mut found = 0;
            for round in &rounds {
                let mut each = |_, value: Option<&[u8]>| {
                    found += usize::from(value.is_some());
                    Ok(())
                };
                rocks.get_many(round, &mut each).expect("a store that can be read");
            }
            assert_eq!(found as u64, KEYS);
        })
    });
    group.bench_function("rocksdb/snapshot after put", |b| {
        b.iter(|| {
            put(rocks.as_mut(), &keys);
            rocks.snapshot().expect("a snapshot").files.len()
        })
    });
    let mut memory = store(Backend::Memory, folder.path());
    group.bench_function("checkpoint entries", |b| {
        b.iter(|| {
            put(memory.as_mut(), &keys);
            memory.snapshot().expect("a snapshot").files.len()
        })
    });
    group.finish();
}

criterion_group! {
    name = state;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = benches
}
criterion_main!(state);
