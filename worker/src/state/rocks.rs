//! State on disk: RocksDB, one database per subtask, memory shared by all of a worker.
//!
//! Without a write-ahead log: what a crash loses is replayed from the last checkpoint, and a directory is never opened
//! again after a crash, because background flushes may have persisted what no checkpoint contains. A snapshot is a
//! flush and hard links; an SST is uploaded once and reused by later checkpoints, but only from a snapshot that is
//! confirmed.

use super::{Content, Kind, Restored, Staged, StagedFile, Store, Visit, restore, tempdir};
use crate::error::{Context, Error, Result};
use ef_proto::checkpoint::{Layout, StateFile};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, LogLevel, Options, ReadOptions, SstFileWriter, WriteBatch,
    WriteBufferManager, WriteOptions,
};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[cfg(test)]
mod tests;

/// Gathered before they are handed to RocksDB.
const BATCH_BYTES: usize = 1 << 20;
/// Looked up at once: bounds the blocks that are pinned.
const LOOKUPS: usize = 512;
/// Small enough to be uploaded in one piece, with room for what compaction adds.
const SST_BYTES: u64 = 32 << 20;

/// Memory of all databases of a worker: one cache, to which the memtables are charged.
pub struct RocksShared {
    cache: Cache,
    buffers: WriteBufferManager,
    memtable_bytes: usize,
}

impl RocksShared {
    /// `memory_bytes` bounds memtables, blocks, indexes and filters together.
    pub fn new(memory_bytes: usize) -> RocksShared {
        let cache = Cache::new_lru_cache(memory_bytes);
        let buffers = WriteBufferManager::new_write_buffer_manager_with_cache(memory_bytes / 2, false, cache.clone());
        RocksShared { cache, buffers, memtable_bytes: (memory_bytes / 8).clamp(1 << 20, 64 << 20) }
    }

    /// Bytes in use by all databases.
    pub fn memory_bytes(&self) -> usize {
        self.cache.get_usage()
    }
}

pub struct RocksStore {
    // Before `directory`: closed first.
    db: Arc<DB>,
    directory: tempdir::Owned,
    db_uid: String,
    key_groups: Range<u16>,
    shared: Arc<RocksShared>,
    batch: WriteBatch,
    unlogged: WriteOptions,
    snapshots: u64,
    /// SSTs of the last confirmed snapshot, by name.
    confirmed: HashMap<String, StateFile>,
    /// SSTs of uploaded snapshots that are not confirmed yet, by sequence.
    unconfirmed: BTreeMap<u64, Vec<StateFile>>,
}

impl RocksStore {
    /// An empty store in `directory`, which must not exist and is removed with the store. `db_uid` is fresh.
    pub fn open(
        directory: PathBuf,
        db_uid: String,
        key_groups: Range<u16>,
        shared: Arc<RocksShared>,
    ) -> Result<RocksStore> {
        std::fs::create_dir_all(&directory)
            .unavailable(|| format!("cannot create the state directory `{}`", directory.display()))?;
        let directory = tempdir::Owned::new(directory);
        let failed = || format!("cannot open RocksDB in `{}`", directory.path().display());
        // A store that is dropped is never read again: closing it need not flush.
        let options = options(&shared).get_options_from_string("avoid_flush_during_shutdown=true").internal(failed)?;
        // By name, because only then is there a handle of the column family for batched lookups.
        let column_family = [(rocksdb::DEFAULT_COLUMN_FAMILY_NAME, options.clone())];
        let db = DB::open_cf_with_opts(&options, directory.path().join("db"), column_family).unavailable(failed)?;
        let mut unlogged = WriteOptions::default();
        unlogged.disable_wal(true);
        Ok(RocksStore {
            db: Arc::new(db),
            directory,
            db_uid,
            key_groups,
            shared,
            batch: WriteBatch::default(),
            unlogged,
            snapshots: 0,
            confirmed: HashMap::new(),
            unconfirmed: BTreeMap::new(),
        })
    }

    /// A store with the state of `parents` that belongs to `key_groups`. The same key groups from one parent: its
    /// files are opened as they are, and reused by the next checkpoint. Otherwise the entries are rewritten.
    pub fn restore(
        directory: PathBuf,
        db_uid: String,
        key_groups: Range<u16>,
        shared: Arc<RocksShared>,
        parents: &[Restored],
    ) -> Result<RocksStore> {
        let mut parents: Vec<&Restored> = parents.iter().filter(|parent| !parent.state.keyed.is_empty()).collect();
        if let [parent] = parents[..]
            && parent.state.layout == Layout::RocksDb
            && parent.state.key_groups == key_groups
        {
            let db = directory.join("db");
            link_files(parent, &db)?;
            let mut store = RocksStore::open(directory, db_uid, key_groups, shared)?;
            store.confirmed = by_name(parent.state.keyed.clone());
            return Ok(store);
        }
        let mut store = RocksStore::open(directory, db_uid, key_groups.clone(), shared)?;
        // Parents hold disjoint key groups, so that sorted parents make sorted entries.
        parents.sort_by_key(|parent| parent.state.key_groups.start);
        if parents.iter().all(|parent| parent.state.layout == Layout::RocksDb) {
            store.ingest(&parents, &key_groups)?;
        } else {
            for parent in parents {
                restore::entries(parent, &key_groups, &mut |key, value| store.put(key, value).map(|()| true))?;
            }
        }
        Ok(store)
    }

    /// Writes sorted entries straight into SSTs: no memtable, no compaction.
    fn ingest(&mut self, parents: &[&Restored], key_groups: &Range<u16>) -> Result<()> {
        let options = options(&self.shared);
        let failed = || "cannot rewrite restored state".to_string();
        let mut paths: Vec<PathBuf> = Vec::new();
        let mut writer: Option<SstFileWriter<'_>> = None;
        for parent in parents {
            restore::entries(parent, key_groups, &mut |key, value| {
                if writer.as_ref().is_some_and(|writer| writer.file_size() >= SST_BYTES) {
                    writer.take().map_or(Ok(()), |mut full| full.finish()).unavailable(failed)?;
                }
                if writer.is_none() {
                    paths.push(self.directory.path().join(format!("{:06}.ingest", paths.len())));
                    let next = SstFileWriter::create(&options);
                    next.open(paths.last().expect("just pushed")).unavailable(failed)?;
                    writer = Some(next);
                }
                writer.as_mut().expect("just opened").put(key, value).unavailable(failed)?;
                Ok(true)
            })?;
        }
        writer.take().map_or(Ok(()), |mut last| last.finish()).unavailable(failed)?;
        if paths.is_empty() {
            return Ok(());
        }
        let mut ingestion = rocksdb::IngestExternalFileOptions::default();
        ingestion.set_move_files(true);
        self.db.ingest_external_file_opts(&ingestion, paths).unavailable(failed)
    }

    fn flush_batch(&mut self) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        self.db.write_opt(batch, &self.unlogged).unavailable(|| "cannot write state to RocksDB".into())
    }

    fn flush_full_batch(&mut self) -> Result<()> {
        if self.batch.size_in_bytes() >= BATCH_BYTES { self.flush_batch() } else { Ok(()) }
    }
}

impl Store for RocksStore {
    fn kind(&self) -> Kind {
        Kind::Disk
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.batch.put(key, value);
        self.flush_full_batch()
    }

    fn delete(&mut self, key: &[u8]) -> Result<()> {
        self.batch.delete(key);
        self.flush_full_batch()
    }

    fn delete_range(&mut self, from: &[u8], to: &[u8]) -> Result<()> {
        if from < to {
            self.batch.delete_range(from, to);
        }
        self.flush_full_batch()
    }

    fn get_many(&mut self, keys: &[&[u8]], each: &mut dyn FnMut(usize, Option<&[u8]>) -> Result<()>) -> Result<()> {
        self.flush_batch()?;
        let failed = || "cannot read state from RocksDB".to_string();
        let cf = self.db.cf_handle(rocksdb::DEFAULT_COLUMN_FAMILY_NAME);
        let cf = cf.ok_or_else(|| Error::new(crate::error::Code::Internal, "RocksDB without its column family"))?;
        let options = ReadOptions::default();
        for (chunk, keys) in keys.chunks(LOOKUPS).enumerate() {
            let found = self.db.batched_multi_get_cf_opt(&cf, keys.iter().copied(), keys.is_sorted(), &options);
            for (i, value) in found.into_iter().enumerate() {
                each(chunk * LOOKUPS + i, value.unavailable(failed)?.as_deref())?;
            }
        }
        Ok(())
    }

    fn scan(&mut self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()> {
        if from >= to {
            return Ok(());
        }
        self.flush_batch()?;
        scan(&self.db, from, Some(to), visit)
    }

    fn snapshot(&mut self) -> Result<Staged> {
        self.flush_batch()?;
        self.snapshots += 1;
        let sequence = self.snapshots;
        let path = self.directory.path().join(format!("chk-{sequence}"));
        let failed = || format!("cannot snapshot RocksDB to `{}`", path.display());
        let directory = tempdir::Owned::new(path.clone());
        // Flushes always: there is no log to fall back to.
        Checkpoint::new(&*self.db).and_then(|db| db.create_checkpoint(&path)).unavailable(failed)?;
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&path).unavailable(failed)? {
            let entry = entry.unavailable(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let content = match self.confirmed.get(&name) {
                Some(file) => Content::Reused(file.clone()),
                // Logs are empty without a write-ahead log, and RocksDB does not miss them.
                None if name.ends_with(".log") => continue,
                None => Content::File(entry.path()),
            };
            files.push(StagedFile { name, content });
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Staged {
            sequence,
            db_uid: self.db_uid.clone(),
            layout: Layout::RocksDb,
            key_groups: self.key_groups.clone(),
            files,
            directory: Some(directory),
        })
    }

    fn uploaded(&mut self, sequence: u64, files: Vec<StateFile>) {
        self.unconfirmed.insert(sequence, files);
    }

    fn confirm(&mut self, sequence: u64) {
        // Earlier snapshots that were not confirmed failed.
        let later = self.unconfirmed.split_off(&(sequence + 1));
        if let Some(files) = self.unconfirmed.remove(&sequence) {
            self.confirmed = by_name(files);
        }
        self.unconfirmed = later;
    }

    fn memory_bytes(&self) -> usize {
        let read = |name| self.db.property_int_value(name).ok().flatten().unwrap_or(0) as usize;
        self.batch.size_in_bytes()
            + read("rocksdb.cur-size-all-mem-tables")
            + read("rocksdb.estimate-table-readers-mem")
            + read("rocksdb.block-cache-pinned-usage")
    }

    /// A writer that RocksDB holds back until a compaction has caught up is let go, and the compaction ended.
    fn interrupt(&self) -> Option<Box<dyn FnOnce() + Send>> {
        let db = Arc::downgrade(&self.db);
        Some(Box::new(move || {
            if let Some(db) = db.upgrade() {
                db.cancel_all_background_work(false);
            }
        }))
    }
}

/// Only SSTs are immutable under their name; MANIFEST and CURRENT go on.
fn by_name(files: Vec<StateFile>) -> HashMap<String, StateFile> {
    let ssts = files.into_iter().filter(|file| file.name.ends_with(".sst"));
    ssts.map(|file| (file.name.clone(), file)).collect()
}

/// Puts downloaded files where RocksDB looks for them. SSTs are immutable and shared, the others copied.
fn link_files(parent: &Restored, db: &Path) -> Result<()> {
    let failed = || format!("cannot restore RocksDB's files to `{}`", db.display());
    std::fs::create_dir_all(db).unavailable(failed)?;
    for file in &parent.state.keyed {
        let (from, to) = (parent.directory.path().join(&file.name), db.join(&file.name));
        if !(file.name.ends_with(".sst") && std::fs::hard_link(&from, &to).is_ok()) {
            std::fs::copy(&from, &to).unavailable(failed)?;
        }
    }
    Ok(())
}

/// Visits the entries of a downloaded RocksDB that belong to `key_groups`, in key order.
pub(super) fn read_downloaded(parent: &Restored, key_groups: &Range<u16>, visit: Visit<'_>) -> Result<()> {
    let db = DB::open_for_read_only(&Options::default(), parent.directory.path(), false)
        .corrupt(|| format!("cannot open the restored state of subtask {}", parent.state.index))?;
    scan(&db, &key_groups.start.to_be_bytes(), Some(&key_groups.end.to_be_bytes()), visit)
}

fn scan(db: &DB, from: &[u8], to: Option<&[u8]>, visit: Visit<'_>) -> Result<()> {
    let mut options = ReadOptions::default();
    if let Some(to) = to {
        options.set_iterate_upper_bound(to);
    }
    // What is scanned is rarely read again; the cache is for lookups.
    options.fill_cache(false);
    let mut entries = db.raw_iterator_opt(options);
    entries.seek(from);
    while let Some((key, value)) = entries.item() {
        if !visit(key, value)? {
            break;
        }
        entries.next();
    }
    entries.status().unavailable(|| "cannot scan state in RocksDB".into())
}

fn options(shared: &RocksShared) -> Options {
    let mut tables = BlockBasedOptions::default();
    tables.set_block_cache(&shared.cache);
    // A lookup of a key that is not cached reads and searches one block: small ones, as long as their index fits.
    tables.set_block_size(4 << 10);
    tables.set_format_version(6);
    tables.set_bloom_filter(10.0, false);
    tables.set_optimize_filters_for_memory(true);
    // Indexes and filters within the budget as well; those of the newest files stay.
    tables.set_cache_index_and_filter_blocks(true);
    tables.set_cache_index_and_filter_blocks_with_high_priority(true);
    tables.set_pin_l0_filter_and_index_blocks_in_cache(true);

    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&tables);
    options.set_write_buffer_manager(&shared.buffers);
    options.set_write_buffer_size(shared.memtable_bytes);
    options.set_max_write_buffer_number(4);
    options.set_memtable_prefix_bloom_ratio(0.05);
    options.set_memtable_whole_key_filtering(true);
    // One thread writes.
    options.set_allow_concurrent_memtable_write(false);
    options.set_max_background_jobs(2);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_target_file_size_base(SST_BYTES);
    // Keys and counters hardly shrink, and each lookup would unpack a block.
    options.set_compression_type(DBCompressionType::None);
    options.set_max_open_files(256);
    options.set_keep_log_file_num(1);
    options.set_log_level(LogLevel::Warn);
    options.set_stats_dump_period_sec(0);
    options
}
