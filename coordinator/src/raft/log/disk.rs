//! The directory of a node: `lock`, and in `log` a small RocksDB with a write-ahead log. A synced write is there
//! after a power loss, whole or not at all.
//!
//! The database is made aside and renamed when it is complete, and never made where one should be: a log of which parts
//! are gone is refused, not begun anew. Likewise a damaged write-ahead log is refused, except for an unfinished record
//! at its very end: that is what a crash leaves, and nobody was told of it. (A log that was cut exactly between two
//! records cannot be told from one that ends there.)

use ef_proto::error::{Code, Error};
use ef_store::Lock;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, ErrorKind,
    LogLevel, Options, ReadOptions, WriteBatch, WriteOptions,
};
use std::fs::File;
use std::path::{Path, PathBuf};

pub const LOG: &str = "raft_log";
pub const META: &str = "raft_meta";

/// What the log takes in memory: memtables and blocks. It is read once, at the start.
const MEMTABLE_BYTES: usize = 2 << 20;
const CACHE_BYTES: usize = 1 << 20;
/// Write-ahead logs beyond this are retired by flushing, so that a start replays no more.
const WAL_BYTES: u64 = 8 << 20;

pub struct Disk {
    // Before the lock: closed first.
    db: DB,
    directory: PathBuf,
    synced: WriteOptions,
    unsynced: WriteOptions,
    _lock: Lock,
}

impl Disk {
    /// Takes the directory for this process. If there is nothing in it yet, `first` is what its meta begins with.
    pub fn open(directory: &Path, first: &[(&[u8], Vec<u8>)]) -> Result<Disk, Error> {
        let failed = |e: &dyn std::fmt::Display| {
            Error::new(Code::Unavailable, format!("cannot use the raft log in `{}`: {e}", directory.display()))
        };
        ef_store::create_directory(directory).map_err(|e| failed(&e))?;
        let lock = Lock::take(&directory.join("lock")).map_err(|e| failed(&e))?;
        let lock = lock.ok_or_else(|| {
            let message = format!("another process uses the raft log in `{}`: one at a time", directory.display());
            Error::new(Code::Conflict, message)
        })?;
        let log = directory.join("log");
        if !log.try_exists().map_err(|e| failed(&e))? {
            create(directory, &log, first).map_err(|e| failed(&e))?;
        }
        let db = open_db(&log, false).map_err(|e| match e.kind() {
            ErrorKind::IOError if !e.to_string().contains("No such file") => failed(&e),
            _ => damaged(directory, &e),
        })?;
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        let unsynced = WriteOptions::default();
        Ok(Disk { db, directory: directory.to_path_buf(), synced, unsynced, _lock: lock })
    }

    pub fn log(&self) -> &ColumnFamily {
        self.db.cf_handle(LOG).expect("opened by name")
    }

    pub fn meta(&self) -> &ColumnFamily {
        self.db.cf_handle(META).expect("opened by name")
    }

    /// All of the batch or nothing.
    pub fn write(&self, batch: WriteBatch, sync: bool) -> Result<(), Error> {
        let options = if sync { &self.synced } else { &self.unsynced };
        self.db.write_opt(batch, options).map_err(|e| {
            Error::new(Code::Unavailable, format!("cannot write the raft log in `{}`: {e}", self.directory.display()))
        })
    }

    /// A value of the meta that is always there.
    pub fn read(&self, key: &[u8]) -> Result<Vec<u8>, Error> {
        let value = self.db.get_cf(self.meta(), key).map_err(|e| self.damaged(e))?;
        value.ok_or_else(|| self.damaged(format!("`{}` is missing", key.escape_ascii())))
    }

    /// Visits the entries with keys from `key` on in order, until told to stop.
    pub fn scan(&self, key: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<bool, Error>) -> Result<(), Error> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let mut entries = self.db.raw_iterator_cf_opt(self.log(), options);
        entries.seek(key);
        while let Some((key, value)) = entries.item() {
            if !visit(key, value)? {
                return Ok(());
            }
            entries.next();
        }
        entries.status().map_err(|e| self.damaged(e))
    }

    /// The error for what does not read back.
    pub fn damaged(&self, what: impl std::fmt::Display) -> Error {
        damaged(&self.directory, &what)
    }

    /// Says of an error where it is.
    pub fn locate(&self, error: Error) -> Error {
        match error.code {
            Code::Corrupt => self.damaged(error),
            code => Error::new(code, format!("cannot use the raft log in `{}`: {error}", self.directory.display())),
        }
    }
}

fn damaged(directory: &Path, what: &dyn std::fmt::Display) -> Error {
    Error::corrupt(format!(
        "the raft log in `{}` is damaged: {what}; put back a copy of the directory, or move it away to begin with an \
         empty log",
        directory.display()
    ))
}

fn create(directory: &Path, log: &Path, first: &[(&[u8], Vec<u8>)]) -> Result<(), Box<dyn std::error::Error>> {
    let aside = directory.join("log.new");
    if aside.exists() {
        // Of a start that did not get to the renaming.
        std::fs::remove_dir_all(&aside)?;
    }
    let db = open_db(&aside, true)?;
    let mut batch = WriteBatch::default();
    let meta = db.cf_handle(META).expect("opened by name");
    first.iter().for_each(|(key, value)| batch.put_cf(meta, key, value));
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    db.write_opt(batch, &synced)?;
    drop(db);
    std::fs::rename(&aside, log)?;
    File::open(directory)?.sync_all()?;
    Ok(())
}

fn open_db(path: &Path, create: bool) -> Result<DB, rocksdb::Error> {
    let mut options = Options::default();
    options.create_if_missing(create);
    options.create_missing_column_families(create);
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_max_total_wal_size(WAL_BYTES);
    options.set_max_background_jobs(2);
    options.set_max_open_files(64);
    options.set_keep_log_file_num(1);
    options.set_log_level(LogLevel::Warn);
    options.set_stats_dump_period_sec(0);

    let cache = Cache::new_lru_cache(CACHE_BYTES);
    let mut tables = BlockBasedOptions::default();
    tables.set_block_cache(&cache);
    tables.set_format_version(6);
    let mut columns = Options::default();
    columns.set_block_based_table_factory(&tables);
    columns.set_write_buffer_size(MEMTABLE_BYTES);
    columns.set_max_write_buffer_number(2);
    columns.set_target_file_size_base(MEMTABLE_BYTES as u64);
    columns.set_max_bytes_for_level_base(4 * MEMTABLE_BYTES as u64);
    columns.set_compression_type(DBCompressionType::None);
    let families = [rocksdb::DEFAULT_COLUMN_FAMILY_NAME, LOG, META];
    let families = families.map(|name| ColumnFamilyDescriptor::new(name, columns.clone()));
    DB::open_cf_descriptors(&options, path, families)
}
