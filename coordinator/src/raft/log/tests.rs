//! The log on disk against a plain model of it, and what it refuses to open.

use super::*;
use crate::raft::counts::Counters;
use ef_proto::error::{Code, Error};
use proptest::prelude::*;
use raft::prelude::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata};
use raft::{GetEntriesContext, Storage, StorageError};
use rocksdb::{DB, Options, WriteBatch};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

fn open(directory: &Path) -> Result<Log, Error> {
    Log::open(directory, 1, Arc::new(Counters::default()))
}

fn entry(index: u64, term: u64, data: &str) -> Entry {
    Entry { index, term, data: data.into(), ..Entry::default() }
}

fn save(log: &mut Log, entries: &[Entry], term: u64, commit: u64) {
    let hard_state = HardState { term, vote: 1, commit };
    log.save(Change { entries, hard_state: Some(&hard_state), ..Change::default() }, true).expect("writes");
}

fn read(log: &Log, low: u64, high: u64, bytes_max: Option<u64>) -> raft::Result<Vec<Entry>> {
    log.entries(low, high, bytes_max, GetEntriesContext::empty(false))
}

/// Entries 1 to 5 of terms 1 and 2, 4 of them committed.
fn five(directory: &Path) -> Log {
    let mut log = open(directory).expect("opens");
    let terms = [1, 1, 1, 2, 2];
    let entries: Vec<Entry> =
        (1..).zip(terms).map(|(index, term)| entry(index, term, &format!("payload {index}"))).collect();
    save(&mut log, &entries, 2, 4);
    log
}

/// Changes the database of a closed log behind its back.
fn tamper(directory: &Path, change: impl Fn(&DB, &mut WriteBatch)) {
    let db = DB::open_cf(&Options::default(), directory.join("log"), ["default", LOG, META]).expect("opens");
    let mut batch = WriteBatch::default();
    change(&db, &mut batch);
    db.write(batch).expect("writes");
}

#[derive(Clone, Debug)]
enum Step {
    /// Overwrites the last few entries and goes on.
    Append {
        back: u64,
        count: u64,
        later: u64,
    },
    Compact(prop::sample::Index),
    Install {
        ahead: u64,
    },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4u64, 1..5u64, 0..2u64).prop_map(|(back, count, later)| Step::Append { back, count, later }),
        1 => any::<prop::sample::Index>().prop_map(Step::Compact),
        1 => (1..4u64).prop_map(|ahead| Step::Install { ahead }),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn log_holds_what_a_plain_map_holds(steps in prop::collection::vec(step(), 1..25)) {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let mut log = open(scratch.path()).expect("opens");
        let mut plain: BTreeMap<u64, Entry> = BTreeMap::new();
        let (mut start, mut start_term, mut state, mut term) = (0, 0, String::new(), 1);
        for step in steps {
            let last = plain.keys().next_back().copied().unwrap_or(start);
            match step {
                Step::Append { back, count, later } => {
                    term += later;
                    let first = last + 1 - back.min(last - start);
                    let entries: Vec<Entry> =
                        (first..first + count).map(|index| entry(index, term, &format!("{index} of {term}"))).collect();
                    plain.retain(|at, _| *at < first);
                    plain.extend(entries.iter().map(|entry| (entry.index, entry.clone())));
                    // What is overwritten was not committed.
                    save(&mut log, &entries, term, start);
                }
                Step::Compact(at) if last > start => {
                    let index = start + 1 + at.index((last - start) as usize) as u64;
                    log.commit(index).expect("writes");
                    state = format!("state at {index}");
                    log.compact(index, state.as_bytes()).expect("writes");
                    (start, start_term) = (index, plain[&index].term);
                    plain = plain.split_off(&(index + 1));
                }
                Step::Compact(_) => {}
                Step::Install { ahead } => {
                    let (index, data) = (last + ahead, format!("sent at {}", last + ahead));
                    let conf_state = Some(ConfState { voters: vec![1], ..ConfState::default() });
                    let metadata = Some(SnapshotMetadata { index, term, conf_state });
                    let snapshot = Snapshot { data: data.clone().into_bytes(), metadata };
                    let hard_state = HardState { term, vote: 1, commit: index };
                    let (snapshot, hard_state) = (Some(&snapshot), Some(&hard_state));
                    log.save(Change { snapshot, hard_state, entries: &[] }, true).expect("writes");
                    (start, start_term, state) = (index, term, data);
                    plain.clear();
                }
                Step::Reopen => {
                    drop(log);
                    log = open(scratch.path()).expect("opens again");
                }
            }
            let last = plain.keys().next_back().copied().unwrap_or(start);
            prop_assert_eq!((log.first_index(), log.last_index()), (Ok(start + 1), Ok(last)));
            let expected: Vec<Entry> = plain.values().cloned().collect();
            prop_assert_eq!(read(&log, start + 1, last + 1, None), Ok(expected));
            prop_assert_eq!(log.snapshot_data().expect("reads"), state.as_bytes());
            prop_assert_eq!(log.term(start), Ok(start_term));
            for (index, entry) in &plain {
                prop_assert_eq!(log.term(*index), Ok(entry.term));
            }
        }
    }
}

#[test]
fn entries_are_read_up_to_a_size_and_one_always() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let log = five(scratch.path());
    let indexes = |bytes_max| -> Vec<u64> {
        let entries = read(&log, 2, 6, Some(bytes_max)).expect("reads");
        entries.iter().map(|entry| entry.index).collect()
    };
    // 26 bytes each: kind, term, length of the context, `payload 1` and a checksum.
    assert_eq!(indexes(0), [2]);
    assert_eq!(indexes(51), [2]);
    assert_eq!(indexes(52), [2, 3]);
    assert_eq!(indexes(u64::MAX), [2, 3, 4, 5]);
}

#[test]
fn what_is_compacted_or_not_yet_there_is_said_to_be_so() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let mut log = five(scratch.path());
    let to_come: raft::Result<Snapshot> = Err(StorageError::SnapshotTemporarilyUnavailable.into());
    assert_eq!(log.snapshot(0, 2), to_come, "there is none yet");
    log.compact(3, b"three").expect("writes");
    assert_eq!(read(&log, 3, 5, None), Err(StorageError::Compacted.into()));
    assert_eq!(log.term(2), Err(StorageError::Compacted.into()));
    assert_eq!(log.term(3), Ok(1));
    assert_eq!(log.term(6), Err(StorageError::Unavailable.into()));
    assert_eq!(log.snapshot(4, 2), to_come, "the one there is is too old");
    let snapshot = log.snapshot(3, 2).expect("reads");
    assert_eq!(
        (&snapshot.data[..], snapshot.get_metadata().index, snapshot.get_metadata().term),
        (&b"three"[..], 3, 1)
    );
    assert_eq!(snapshot.get_metadata().get_conf_state().voters, [1]);
}

#[test]
fn older_snapshot_changes_nothing() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let mut log = five(scratch.path());
    log.compact(3, b"three").expect("writes");
    log.compact(2, b"two").expect("is no error");
    assert_eq!((log.snapshot_index(), log.snapshot_data().expect("reads")), (3, b"three".to_vec()));
}

#[test]
fn a_change_of_nothing_writes_nothing() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let counters = Arc::new(Counters::default());
    let mut log = Log::open(scratch.path(), 1, counters.clone()).expect("opens");
    log.save(Change::default(), true).expect("nothing to do");
    assert_eq!(counters.read().synced_writes, 0);
    save(&mut log, &[entry(1, 1, "a"), entry(2, 1, "b")], 1, 0);
    assert_eq!((counters.read().synced_writes, counters.read().commit_writes), (1, 0));
    log.commit(2).expect("writes");
    log.commit(2).expect("nothing to do");
    assert_eq!((counters.read().synced_writes, counters.read().commit_writes), (1, 1));
}

#[test]
fn damage_is_refused_and_named() {
    type Tamper = fn(&DB, &mut WriteBatch);
    fn log(db: &DB) -> &rocksdb::ColumnFamily {
        db.cf_handle(LOG).expect("opened")
    }
    fn meta(db: &DB) -> &rocksdb::ColumnFamily {
        db.cf_handle(META).expect("opened")
    }
    let cases: [(Tamper, &str); 8] = [
        (
            |db, batch| {
                let mut value = db.get_cf(log(db), 3u64.to_be_bytes()).expect("reads").expect("is there");
                value[15] ^= 1;
                batch.put_cf(log(db), 3u64.to_be_bytes(), value);
            },
            "entry 3 does not match its checksum",
        ),
        (
            |db, batch| {
                let value = db.get_cf(log(db), 2u64.to_be_bytes()).expect("reads").expect("is there");
                batch.put_cf(log(db), 3u64.to_be_bytes(), value);
            },
            "entry 3 does not match its checksum",
        ),
        (|db, batch| batch.delete_cf(log(db), 2u64.to_be_bytes()), "entry 3 is where entry 2 should be"),
        (
            |db, batch| (4..6u64).for_each(|index| batch.delete_cf(log(db), index.to_be_bytes())),
            "entry 4 is committed, but the log is from 0 to 3",
        ),
        (
            |db, batch| {
                let payload = [&[0u8][..], &9u64.to_be_bytes(), &0u32.to_be_bytes(), b"x"].concat();
                batch.put_cf(log(db), 6u64.to_be_bytes(), seal(&6u64.to_be_bytes(), payload));
            },
            "entry 6 has term 9, which is not within 2 to 2",
        ),
        (|db, batch| batch.delete_cf(meta(db), "format"), "`format` is missing"),
        (|db, batch| batch.put_cf(meta(db), "hard_state", b"torn"), "the hard state does not match its checksum"),
        (|db, batch| batch.delete_cf(meta(db), "snapshot"), "`snapshot` is missing"),
    ];
    for (change, expected) in cases {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        drop(five(scratch.path()));
        tamper(scratch.path(), change);
        let error = open(scratch.path()).err().unwrap_or_else(|| panic!("opened, in spite of: {expected}"));
        assert_eq!(error.code, Code::Corrupt, "{error}");
        let start = format!("the raft log in `{}` is damaged: {expected}; put back a copy", scratch.path().display());
        assert!(error.message.starts_with(&start), "{error}");
    }
}

#[test]
fn log_of_another_node_or_version_is_refused_as_such() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    drop(five(scratch.path()));
    let error = Log::open(scratch.path(), 2, Arc::default()).err().expect("is that of node 1");
    assert_eq!(error.code, Code::Invalid);
    assert!(error.message.ends_with("it is that of node 1, not of node 2"), "{error}");

    tamper(scratch.path(), |db, batch| {
        let payload = [&7u32.to_be_bytes()[..], b"from the future"].concat();
        batch.put_cf(db.cf_handle(META).expect("opened"), "format", seal(b"format", payload));
    });
    let error = open(scratch.path()).err().expect("is of another version");
    assert_eq!(error.code, Code::Invalid);
    assert!(error.message.ends_with("it has format 7, and this version reads format 1"), "{error}");
}

/// The write-ahead log that has bytes in it, and them.
fn wal(directory: &Path) -> (std::path::PathBuf, Vec<u8>) {
    let files = std::fs::read_dir(directory.join("log")).expect("readable");
    let files =
        files.map(|file| file.expect("readable").path()).filter(|path| path.extension() == Some("log".as_ref()));
    let files = files.map(|path| (path.clone(), std::fs::read(path).expect("readable")));
    files.max_by_key(|(_, bytes)| bytes.len()).expect("there is one")
}

fn position(bytes: &[u8], what: &str) -> usize {
    bytes.windows(what.len()).position(|window| window == what.as_bytes()).expect("is in there")
}

#[test]
fn write_ahead_log_damaged_before_its_end_is_refused() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let mut log = five(scratch.path());
    save(&mut log, &[entry(6, 2, "payload 6")], 2, 5);
    drop(log);
    let (path, mut bytes) = wal(scratch.path());
    let at = position(&bytes, "payload 3");
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).expect("writes");
    let error = open(scratch.path()).err().expect("is damaged");
    assert_eq!(error.code, Code::Corrupt, "{error}");
    assert!(error.message.contains("is damaged"), "{error}");
}

#[test]
fn write_that_a_crash_tore_never_happened() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let mut log = five(scratch.path());
    save(&mut log, &[entry(6, 3, "payload 6"), entry(7, 3, "payload 7")], 3, 5);
    drop(log);
    let (path, bytes) = wal(scratch.path());
    // The record of entries 6 and 7 ends in the middle of entry 7.
    std::fs::write(&path, &bytes[..position(&bytes, "payload 7") + 4]).expect("writes");
    let log = open(scratch.path()).expect("a torn tail is what a crash leaves");
    assert_eq!(log.last_index(), Ok(5));
    assert_eq!(log.initial_state().expect("reads").hard_state, HardState { term: 2, vote: 1, commit: 4 });
}

#[test]
fn log_of_which_files_are_gone_is_refused_and_not_begun_anew() {
    for part in ["CURRENT", "MANIFEST"] {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        drop(five(scratch.path()));
        for file in std::fs::read_dir(scratch.path().join("log")).expect("readable") {
            let file = file.expect("readable");
            if file.file_name().to_string_lossy().starts_with(part) {
                std::fs::remove_file(file.path()).expect("removes");
            }
        }
        let error = open(scratch.path()).err().unwrap_or_else(|| panic!("opened without {part}"));
        assert_eq!(error.code, Code::Corrupt, "{error}");
    }
}

#[test]
fn creation_that_a_crash_interrupted_is_begun_again() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    std::fs::create_dir(scratch.path().join("log.new")).expect("creates");
    std::fs::write(scratch.path().join("log.new/CURRENT"), "half").expect("writes");
    let log = open(scratch.path()).expect("opens");
    assert_eq!((log.first_index(), log.last_index()), (Ok(1), Ok(0)));
    assert!(!scratch.path().join("log.new").exists());
}
