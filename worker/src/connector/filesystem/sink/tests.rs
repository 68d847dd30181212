//! A sweep of writes, barriers, completions, crashes and restores against a model: the visible rows are those of the
//! completed epochs, each once. The same sweep finds fault with a sink that publishes at the barrier.

use super::*;
use arrow_array::Int64Array;
use ef_proto::connector::{Json, OnError, TimestampFormat};
use ef_proto::ids::OperatorId;
use ef_proto::schema::{DataType, Field};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::io::Read;
use std::sync::Arc;

fn schema() -> Schema {
    Schema::new(vec![Field::new("id", DataType::Int64, true)])
}

fn batch(ids: std::ops::Range<i64>) -> RecordBatch {
    let ids: Int64Array = ids.collect::<Vec<_>>().into();
    RecordBatch::try_new(schema().to_arrow(), vec![Arc::new(ids)]).expect("one column")
}

fn place(index: u32, parallelism: u32, incarnation: u64) -> Place {
    Place {
        table: "out".into(),
        index,
        parallelism,
        job: "job".into(),
        operator: OperatorId(7),
        incarnation,
        now_ms: 0,
        secrets: Default::default(),
        scratch: Default::default(),
        durable: None,
    }
}

fn options(directory: &Path, compression: Compression) -> FilesystemSink {
    let path = directory.to_str().expect("a test path is text").to_owned();
    FilesystemSink { path, rolling_bytes: 64, rolling_interval_ms: 1_000, compression }
}

fn format() -> Format {
    Format::Json(Json { on_error: OnError::Fail, timestamps: TimestampFormat::Sql })
}

/// The rows of all visible files, sorted.
fn visible(directory: &Path) -> Vec<i64> {
    let mut ids = rows_of(directory);
    ids.sort_unstable();
    ids
}

fn rows_of(directory: &Path) -> Vec<i64> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(directory).expect("the directory is there") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        if name.starts_with('.') {
            continue;
        }
        let bytes = fs::read(&path).expect("a visible file reads");
        let mut text = String::new();
        match name.rsplit('.').next() {
            Some("gz") => flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text),
            Some("zst") => zstd::stream::read::Decoder::new(&bytes[..]).expect("zstd").read_to_string(&mut text),
            _ => (&bytes[..]).read_to_string(&mut text),
        }
        .expect("whole files only");
        assert!(!text.is_empty(), "no empty files");
        for line in text.lines() {
            let row: serde_json::Value = serde_json::from_str(line).expect("whole lines only");
            ids.push(row["id"].as_i64().expect("an id"));
        }
    }
    ids
}

/// A consumer takes every visible file away; their rows.
fn take_visible(directory: &Path) -> Vec<i64> {
    let ids = rows_of(directory);
    for entry in fs::read_dir(directory).expect("lists").flatten() {
        if !entry.file_name().to_string_lossy().starts_with('.') {
            fs::remove_file(entry.path()).expect("deletes");
        }
    }
    ids
}

struct Run {
    directory: tempfile::TempDir,
    compression: Compression,
    commit_early: bool,
    sinks: Vec<FileSink>,
    incarnation: u64,
    /// The last recorded checkpoint and what the source had written by then.
    recorded: Option<(u64, Vec<Vec<u8>>, i64)>,
    epoch: u64,
    next: i64,
    /// Rows of files that a consumer has taken.
    taken: Vec<i64>,
}

impl Run {
    fn start(&mut self, parallelism: u32) {
        self.sinks.clear();
        self.incarnation += 1;
        let (blobs, permit) = match &self.recorded {
            Some((epoch, blobs, next)) => {
                self.next = *next;
                (blobs.clone(), Some(CommitPermit::for_recorded(Epoch(*epoch))))
            }
            None => {
                self.next = 0;
                (Vec::new(), None)
            }
        };
        for index in 0..parallelism {
            let sink = FileSink::open(
                &options(self.directory.path(), self.compression),
                &format(),
                &schema(),
                false,
                &place(index, parallelism, self.incarnation),
                &blobs,
                permit.as_ref(),
                self.commit_early,
            );
            self.sinks.push(sink.expect("opens"));
        }
    }

    fn write(&mut self, rng: &mut SmallRng) {
        let rows = rng.random_range(0..6);
        let sink = rng.random_range(0..self.sinks.len());
        self.sinks[sink].write(&batch(self.next..self.next + rows)).expect("writes");
        self.next += rows;
    }
}

/// True when after every step the visible rows were exactly those of completed epochs whose commit was due.
fn sweep(seed: u64, commit_early: bool, consumed: bool) -> bool {
    let mut rng = SmallRng::seed_from_u64(seed);
    let compression = [Compression::None, Compression::Gzip, Compression::Zstd][rng.random_range(0..3)];
    let directory = tempfile::tempdir().expect("a directory");
    let mut run = Run {
        directory,
        compression,
        commit_early,
        sinks: vec![],
        incarnation: 0,
        recorded: None,
        epoch: 0,
        next: 0,
        taken: vec![],
    };
    run.start(rng.random_range(1..4));
    for _ in 0..40 {
        match rng.random_range(0..10) {
            0..5 => run.write(&mut rng),
            5 => {
                let now = rng.random_range(0..5_000);
                run.sinks.iter_mut().for_each(|sink| sink.on_clock(now).expect("rolls"));
            }
            6..9 => {
                run.epoch += 1;
                let epoch = Epoch(run.epoch);
                let prepared =
                    if rng.random_bool(0.2) { rng.random_range(0..run.sinks.len()) } else { run.sinks.len() };
                let blobs: Vec<_> =
                    run.sinks[..prepared].iter_mut().map(|s| s.prepare(epoch).expect("prepares")).collect();
                if prepared < run.sinks.len() {
                    // A crash in the middle of the barrier: not all subtasks have prepared.
                    run.start(rng.random_range(1..4));
                } else if rng.random_bool(0.7) {
                    run.recorded = Some((run.epoch, blobs, run.next));
                    // The permit may reach some subtasks only before a crash.
                    let reached =
                        if rng.random_bool(0.3) { rng.random_range(0..=run.sinks.len()) } else { run.sinks.len() };
                    for sink in &mut run.sinks[..reached] {
                        sink.commit(&CommitPermit::for_recorded(epoch)).expect("commits");
                        sink.commit(&CommitPermit::for_recorded(epoch)).expect("again changes nothing");
                    }
                    if reached < run.sinks.len() {
                        run.start(rng.random_range(1..4));
                    }
                }
                // Otherwise the checkpoint failed; its files wait for the next one.
            }
            _ => run.start(rng.random_range(1..4)),
        }
        let expected: Vec<i64> = (0..run.recorded.as_ref().map_or(0, |(_, _, next)| *next)).collect();
        let mut seen = visible(run.directory.path());
        seen.extend(&run.taken);
        seen.sort_unstable();
        if seen != expected {
            return false;
        }
        if consumed && rng.random_bool(0.4) {
            run.taken.extend(take_visible(run.directory.path()));
        }
    }
    // A last restore leaves no hidden file behind.
    run.start(2);
    let hidden = fs::read_dir(run.directory.path()).expect("lists").flatten();
    let hidden = hidden.filter(|entry| entry.file_name().to_string_lossy().starts_with(".part-")).count();
    hidden == 0
}

#[test]
fn rows_of_completed_epochs_are_visible_exactly_once_through_crashes_and_rescaling() {
    for seed in 0..60 {
        assert!(sweep(seed, false, false), "seed {seed}");
    }
}

#[test]
fn a_consumer_may_take_published_files_at_any_time() {
    for seed in 0..60 {
        assert!(sweep(seed, false, true), "seed {seed}");
    }
}

#[test]
fn a_sink_that_commits_before_completion_fails_the_same_sweep() {
    let failed = (0..20).filter(|seed| !sweep(*seed, true, false)).count();
    assert!(failed >= 15, "the checker found only {failed} of 20");
}

fn open(directory: &Path, blobs: &[Vec<u8>], incarnation: u64) -> Result<FileSink> {
    let permit = CommitPermit::for_recorded(Epoch(1));
    let options = options(directory, Compression::None);
    FileSink::open(&options, &format(), &schema(), false, &place(0, 1, incarnation), blobs, Some(&permit), false)
}

#[test]
fn a_lost_or_damaged_pending_file_stops_the_restore() {
    for damage in [false, true] {
        let directory = tempfile::tempdir().expect("a directory");
        let mut sink = open(directory.path(), &[], 1).expect("opens");
        sink.write(&batch(0..3)).expect("writes");
        let blob = sink.prepare(Epoch(1)).expect("prepares");
        drop(sink);
        let hidden = directory.path().join(&Blob::decode(&blob).expect("decodes").pending[0].hidden);
        if damage {
            fs::write(&hidden, b"{}\n").expect("writes");
        } else {
            fs::remove_file(&hidden).expect("deletes");
        }
        let error = open(directory.path(), &[blob], 2).err().expect("does not open");
        assert_eq!(error.code, crate::error::Code::Corrupt, "{error}");
        assert!(error.message.contains(if damage { "expects" } else { "lost pending file" }), "{error}");
    }
}

#[test]
fn a_marker_of_an_older_run_says_nothing_about_files_lost_since() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |epoch| CommitPermit::for_recorded(Epoch(epoch));
    let mut sink = open(directory.path(), &[], 1).expect("opens");
    for epoch in 2..9 {
        sink.write(&batch(0..3)).expect("writes");
        sink.prepare(Epoch(epoch)).expect("prepares");
        sink.commit(&at(epoch)).expect("commits");
    }
    // Rewound to epoch 1; what it prepares for epoch 2 is lost before it is published.
    let mut sink = open(directory.path(), &[], 2).expect("opens");
    sink.write(&batch(0..3)).expect("writes");
    let blob = sink.prepare(Epoch(2)).expect("prepares");
    drop(sink);
    let lost = Blob::decode(&blob).expect("decodes").pending.remove(0);
    fs::remove_file(directory.path().join(&lost.hidden)).expect("deletes");
    let options = options(directory.path(), Compression::None);
    let opened = FileSink::open(&options, &format(), &schema(), false, &place(0, 1, 3), &[blob], Some(&at(2)), false);
    let message = opened.err().expect("does not open").message;
    assert!(message.contains("removed before they were published"), "{message}");
}

#[test]
fn a_changed_path_is_named_when_files_are_pending_in_the_old_one() {
    let (old, new) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let mut sink = open(old.path(), &[], 1).expect("opens");
    sink.write(&batch(0..3)).expect("writes");
    let blob = sink.prepare(Epoch(1)).expect("prepares");
    let message = open(new.path(), &[blob], 2).err().expect("does not open").message;
    let (old, new) = (old.path().display(), new.path().display());
    assert!(message.starts_with(&format!("the sink's path changed from `{old}` to `{new}`")), "{message}");
}

#[test]
fn a_new_directory_is_made_durable_in_every_parent_that_was_new() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path();
    assert_eq!(to_grow(&root.join("a/b/c")), [root.join("a/b"), root.join("a"), root.to_path_buf()]);
    assert!(to_grow(root).is_empty());
    assert_eq!(to_grow(Path::new("no such directory")), [Path::new(".")]);
}

#[test]
fn a_path_that_is_a_file_is_refused_and_a_directory_is_made() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("taken");
    fs::write(&file, b"").expect("writes");
    let error = open(&file, &[], 1).err().expect("does not open");
    assert!(error.message.contains("is a file, expected a directory"), "{error}");
    open(&directory.path().join("a/b"), &[], 1).expect("makes the directory");
    assert!(directory.path().join("a/b").is_dir());
}

#[test]
fn two_operators_writing_into_one_directory_share_no_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = options(directory.path(), Compression::None);
    let permit = CommitPermit::for_recorded(Epoch(9));
    for operator in [1, 2] {
        let place = Place { operator: OperatorId(operator), ..place(0, 1, 1) };
        let mut sink = FileSink::open(&options, &format(), &schema(), false, &place, &[], None, false).expect("opens");
        let first = operator as i64 * 10;
        sink.write(&batch(first..first + 2)).expect("writes");
        sink.prepare(Epoch(1)).expect("prepares");
        sink.commit(&permit).expect("commits");
    }
    assert_eq!(visible(directory.path()), [10, 11, 20, 21]);
}
