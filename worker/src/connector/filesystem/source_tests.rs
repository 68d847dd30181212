//! The source's promises over files in a temporary directory, with the clock in the test's hand.

use super::FilesystemSource;
use crate::connector::{Place, Polled, Source};
use crate::error::Result;
use crate::format::decode::{LINE_BYTES, RAW_BYTES};
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use ef_proto::connector::{self, Compression, Csv, Format, Json, OnError, SourceConnector, TimestampFormat};
use ef_proto::plan;
use ef_proto::schema::{DataType, Field, Schema, Unit};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tempfile::TempDir;

#[derive(Clone)]
pub(super) struct Setup {
    pub path: String,
    pub split_bytes: u64,
    pub monitor: Option<u64>,
    pub on_error: OnError,
    pub format: Option<Format>,
    pub fields: Vec<Field>,
    pub metadata: Vec<(usize, String)>,
    pub clock: Arc<AtomicI64>,
}

pub(super) fn setup(path: &Path) -> Setup {
    Setup {
        path: path.to_str().unwrap().to_string(),
        split_bytes: 16 << 20,
        monitor: None,
        on_error: OnError::Fail,
        format: None,
        fields: vec![Field::new("n", DataType::Int64, true)],
        metadata: vec![],
        clock: Arc::default(),
    }
}

impl Setup {
    pub fn open(&self, index: u32, parallelism: u32, restored: &[Vec<u8>]) -> Result<FilesystemSource> {
        let options = connector::FilesystemSource {
            path: self.path.clone(),
            monitor_interval_ms: self.monitor,
            compression: Compression::Auto,
            split_bytes: self.split_bytes,
        };
        let json = Format::Json(Json { on_error: self.on_error, timestamps: TimestampFormat::Sql });
        let source = plan::Source {
            table: "t".into(),
            connector: SourceConnector::Filesystem(options.clone()),
            format: Some(self.format.clone().unwrap_or(json)),
            physical: Schema::new(self.fields.clone()),
            metadata: self.metadata.clone(),
            project: vec![],
            watermark: None,
        };
        let place = Place {
            table: "t".into(),
            index,
            parallelism,
            job: "j".into(),
            operator: ef_proto::ids::OperatorId(0),
            incarnation: 0,
            now_ms: 0,
            secrets: Default::default(),
            scratch: Default::default(),
            durable: None,
        };
        let clock = self.clock.clone();
        FilesystemSource::new(&source, &options, &place, restored, Box::new(move || clock.load(Ordering::Relaxed)))
    }

    fn error(&self) -> String {
        match self.open(0, 1, &[]) {
            Err(error) => error.message,
            Ok(mut source) => run(&mut source, usize::MAX).1.unwrap_err().message,
        }
    }
}

/// Up to `batches` batches: the values of the first column by lane, and how it ended (Ok(true): the source is at its
/// end). The watermark of a lane is the largest value it has delivered.
pub(super) fn run(source: &mut FilesystemSource, batches: usize) -> (Vec<(usize, i64)>, Result<bool>) {
    let (mut rows, mut watermarks, mut count) = (Vec::new(), Vec::new(), 0);
    while count < batches {
        match source.poll(&watermarks) {
            Err(error) => return (rows, Err(error)),
            Ok(Polled::End) => return (rows, Ok(true)),
            Ok(Polled::Idle) => panic!("files are not waited for"),
            Ok(Polled::Wait(_)) => return (rows, Ok(false)),
            Ok(Polled::Opened(lane)) => {
                watermarks.resize(watermarks.len().max(lane + 1), i64::MIN);
                watermarks[lane] = i64::MIN;
            }
            Ok(Polled::Closed(lane)) => {
                watermarks.resize(watermarks.len().max(lane + 1), i64::MIN);
                watermarks[lane] = i64::MAX;
            }
            Ok(Polled::Batch(batch)) => {
                count += 1;
                watermarks.resize(watermarks.len().max(batch.lane + 1), i64::MIN);
                for n in batch.batch.column(0).as_primitive::<Int64Type>().values() {
                    watermarks[batch.lane] = watermarks[batch.lane].max(*n);
                    rows.push((batch.lane, *n));
                }
            }
        }
    }
    (rows, Ok(false))
}

pub(super) fn numbers(rows: Vec<(usize, i64)>) -> Vec<i64> {
    rows.into_iter().map(|(_, n)| n).collect()
}

fn line(n: i64, rng: &mut SmallRng) -> String {
    let padding = rng.random_range(0..40);
    let end = ["\n", "\n", "\r\n", "\n\n"][rng.random_range(0..4)];
    format!("{{\"n\":{n},\"x\":\"{}\"}}{end}", "y".repeat(padding))
}

/// Files of several kinds with the numbers from 0 on; how many there are.
fn write_files(dir: &Path, rng: &mut SmallRng, most: i64) -> i64 {
    let mut next = 0;
    for file in 0..rng.random_range(1..5) {
        let mut text = if rng.random_bool(0.2) { "\u{feff}".to_string() } else { String::new() };
        for _ in 0..rng.random_range(0..most) {
            text += &line(next, rng);
            next += 1;
        }
        if rng.random_bool(0.5) {
            text.truncate(text.trim_end().len());
        }
        match rng.random_range(0..4) {
            0 => std::fs::write(dir.join(format!("f{file}.gz")), gzip(text.as_bytes(), rng)).unwrap(),
            1 => {
                std::fs::write(dir.join(format!("f{file}.zst")), zstd::encode_all(text.as_bytes(), 1).unwrap()).unwrap()
            }
            _ => std::fs::write(dir.join(format!("f{file}.ndjson")), text).unwrap(),
        }
    }
    // Neither of these is data.
    std::fs::write(dir.join(".hidden"), "{").unwrap();
    std::fs::write(dir.join("_SUCCESS"), "").unwrap();
    next
}

/// Two members, cut anywhere.
fn gzip(text: &[u8], rng: &mut SmallRng) -> Vec<u8> {
    let cut = rng.random_range(0..=text.len());
    let mut packed = Vec::new();
    for part in [&text[..cut], &text[cut..]] {
        let mut encoder = flate2::write::GzEncoder::new(&mut packed, flate2::Compression::fast());
        encoder.write_all(part).unwrap();
        encoder.finish().unwrap();
    }
    packed
}

#[test]
fn every_line_is_read_exactly_once_for_any_split_and_parallelism() {
    for seed in 0..60 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let dir = TempDir::new().unwrap();
        let count = write_files(dir.path(), &mut rng, 80);
        let mut setup = setup(dir.path());
        setup.split_bytes = rng.random_range(1..600);
        for parallelism in 1..=8 {
            let mut rows = Vec::new();
            for index in 0..parallelism {
                let (part, end) = run(&mut setup.open(index, parallelism, &[]).unwrap(), usize::MAX);
                assert!(end.unwrap());
                rows.extend(numbers(part));
            }
            rows.sort_unstable();
            assert_eq!(rows, (0..count).collect::<Vec<_>>(), "seed {seed} parallelism {parallelism}");
        }
    }
}

#[test]
fn the_line_behind_a_byte_order_mark_has_an_owner_however_small_the_chunks() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("a"), "\u{feff}{\"n\":1}\n{\"n\":2}\n").unwrap();
    for split_bytes in 1..6 {
        let setup = Setup { split_bytes, ..setup(dir.path()) };
        let mut rows: Vec<_> =
            (0..2).flat_map(|i| numbers(run(&mut setup.open(i, 2, &[]).unwrap(), usize::MAX).0)).collect();
        rows.sort_unstable();
        assert_eq!(rows, [1, 2], "{split_bytes}");
    }
}

#[test]
fn a_restore_goes_on_with_exactly_the_rows_that_are_left() {
    for seed in 0..8 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let dir = TempDir::new().unwrap();
        let count = write_files(dir.path(), &mut rng, 40_000);
        let mut setup = setup(dir.path());
        setup.split_bytes = rng.random_range(1_000..400_000);
        let mut rows = Vec::new();
        let mut positions: Vec<Vec<u8>> = Vec::new();
        for round in 0.. {
            let parallelism = rng.random_range(1..6);
            let last = round == 4;
            let (mut next, mut ended) = (Vec::new(), true);
            for index in 0..parallelism {
                let mut source = setup.open(index, parallelism, &positions).unwrap();
                let batches = if last { usize::MAX } else { rng.random_range(0..4) };
                let (part, end) = run(&mut source, batches);
                ended &= end.unwrap();
                rows.extend(numbers(part));
                next.push(source.position().unwrap());
            }
            positions = next;
            if last {
                assert!(ended);
                break;
            }
        }
        rows.sort_unstable();
        assert_eq!(rows, (0..count).collect::<Vec<_>>(), "seed {seed}");
    }
}

#[test]
fn files_of_one_time_range_are_read_side_by_side() {
    let dir = TempDir::new().unwrap();
    for part in 0..3 {
        let lines: String = (0..40_000).map(|n| format!("{{\"n\":{}}}\n", n * 3 + part)).collect();
        std::fs::write(dir.path().join(format!("part-{part}")), lines).unwrap();
    }
    let (rows, end) = run(&mut setup(dir.path()).open(0, 1, &[]).unwrap(), usize::MAX);
    assert!(end.unwrap());
    assert_eq!(rows.len(), 120_000);
    let mut reached = [0i64; 3];
    for (lane, n) in rows {
        reached[lane] = n;
        let behind = reached.iter().min().unwrap();
        assert!(n - behind <= 2 * 3 * crate::frame::BATCH_ROWS as i64, "lane {lane} at {n} is ahead of {behind}");
    }
}

#[test]
fn more_files_than_may_be_open_are_read_side_by_side() {
    let dir = TempDir::new().unwrap();
    for part in 0..300 {
        let lines: String = (0..100).map(|n| format!("{{\"n\":{}}}\n", n * 300 + part)).collect();
        std::fs::write(dir.path().join(format!("{part:03}")), lines).unwrap();
    }
    let (rows, end) = run(&mut setup(dir.path()).open(0, 1, &[]).unwrap(), usize::MAX);
    assert!(end.unwrap());
    let mut rows = numbers(rows);
    rows.sort_unstable();
    assert_eq!(rows, (0..30_000).collect::<Vec<_>>());
}

#[test]
fn packed_data_that_is_cut_off_fails_after_its_whole_rows() {
    let mut rng = SmallRng::seed_from_u64(1);
    let dir = TempDir::new().unwrap();
    let text: String = (0..5000).map(|n| line(n, &mut rng)).collect();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(text.as_bytes()).unwrap();
    for (name, packed) in [("a.gz", gz.finish().unwrap()), ("b.zst", zstd::encode_all(text.as_bytes(), 1).unwrap())] {
        let file = dir.path().join(name);
        std::fs::write(&file, &packed[..packed.len() / 2]).unwrap();
        let (rows, end) = run(&mut setup(&file).open(0, 1, &[]).unwrap(), usize::MAX);
        let message = end.unwrap_err().message;
        assert!(message.contains(name) && message.contains("is cut off after"), "{message}");
        let rows = numbers(rows);
        assert_eq!(rows, (0..rows.len() as i64).collect::<Vec<_>>());
        assert!(name != "a.gz" || !rows.is_empty());
    }
}

#[test]
fn a_bad_row_fails_with_file_and_line_also_in_a_split_file() {
    let mut rng = SmallRng::seed_from_u64(2);
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("events.ndjson");
    let mut text = String::new();
    let bad = 700;
    for n in 0..1000 {
        text += &if n == bad { "{\"n\":true}\n".to_string() } else { line(n, &mut rng) };
    }
    std::fs::write(&file, &text).unwrap();
    let at = text[..text.find("true").unwrap()].matches('\n').count() + 1;
    for split_bytes in [100, 5000, 1 << 20] {
        for parallelism in [1, 3] {
            let setup = Setup { split_bytes, ..setup(&file) };
            let ends = (0..parallelism).map(|i| run(&mut setup.open(i, parallelism, &[]).unwrap(), usize::MAX).1);
            let messages: Vec<_> = ends.filter_map(Result::err).map(|error| error.message).collect();
            let expected = "column \"n\": expected a whole number of at most 64 bits, found true";
            assert_eq!(messages, [format!("{} line {at}: {expected}", setup.path)]);
        }
    }
    let setup = Setup { on_error: OnError::Skip, ..setup(&file) };
    let mut source = setup.open(0, 1, &[]).unwrap();
    let errors = std::iter::from_fn(|| match source.poll(&[]).unwrap() {
        Polled::End => None,
        Polled::Batch(batch) => Some(batch.errors),
        _ => Some(None),
    });
    let errors: Vec<_> = errors.flatten().collect();
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].column(2).as_primitive::<Int64Type>().value(0), at as i64);
    assert_eq!(errors[0].column(3).as_string::<i32>().value(0), "{\"n\":true}");
}

#[test]
fn no_position_lies_behind_a_bad_row_that_was_not_yet_told() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("a"), "{\"n\":1}\n{\"n\":true}\n{\"n\":3}\n").unwrap();
    let mut source = setup(dir.path()).open(0, 1, &[]).unwrap();
    let (rows, end) = run(&mut source, 1);
    assert_eq!((numbers(rows), end), (vec![1], Ok(false)));
    assert!(source.position().unwrap_err().message.contains("line 2"));
    assert!(source.poll(&[]).unwrap_err().message.contains("line 2"));
}

#[test]
fn a_file_that_is_cut_at_a_line_end_while_it_is_read_is_an_error() {
    for split_bytes in [100_000, 16 << 20] {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("a");
        let text: String = (0..200_000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
        std::fs::write(&file, &text).unwrap();
        let mut source = Setup { split_bytes, ..setup(&file) }.open(0, 1, &[]).unwrap();
        run(&mut source, 1).1.unwrap();
        let cut = text[..text.len() - 50_000].rfind('\n').unwrap() + 1;
        std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(cut as u64).unwrap();
        let message = run(&mut source, usize::MAX).1.unwrap_err().message;
        assert!(message.contains(&format!("shrank from {} to {cut} bytes", text.len())), "{message}");
    }
}

/// The errors of a whole run, as (line, length of raw, reason), and its rows.
fn skipped(setup: &Setup) -> (Vec<(i64, usize, String)>, Vec<i64>) {
    let mut source = Setup { on_error: OnError::Skip, ..setup.clone() }.open(0, 1, &[]).unwrap();
    let (mut errors, mut rows) = (Vec::new(), Vec::new());
    loop {
        match source.poll(&[]).unwrap() {
            Polled::End => return (errors, rows),
            Polled::Batch(batch) => {
                rows.extend(batch.batch.column(0).as_primitive::<Int64Type>().values());
                let Some(bad) = batch.errors else { continue };
                for row in 0..bad.num_rows() {
                    errors.push((
                        bad.column(2).as_primitive::<Int64Type>().value(row),
                        bad.column(3).as_string::<i32>().value(row).len(),
                        bad.column(4).as_string::<i32>().value(row).to_string(),
                    ));
                }
            }
            _ => {}
        }
    }
}

#[test]
fn a_row_over_the_limit_is_one_bad_row_and_one_at_the_limit_is_none() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("a");
    let long = |n: i64, bytes: usize| {
        let row = format!("{{\"n\":{n},\"x\":\"\"}}");
        row.replace("\"\"", &format!("\"{}\"", "y".repeat(bytes - row.len())))
    };
    for (over, split_bytes) in [(0, 64 << 20), (1, 64 << 20), (1, 1 << 20), (20 << 20, 64 << 20)] {
        let text = format!("{{\"n\":1}}\n{}\n{{\"n\":3}}\n", long(2, LINE_BYTES + over));
        std::fs::write(&file, text).unwrap();
        let setup = Setup { split_bytes, ..setup(&file) };
        let (errors, rows) = skipped(&setup);
        if over == 0 {
            assert_eq!((errors, rows), (vec![], vec![1, 2, 3]));
            continue;
        }
        assert_eq!(errors, [(2, RAW_BYTES, "the row is longer than 16 MiB".to_string())], "{over} {split_bytes}");
        assert_eq!(rows, [1, 3]);
        let message = run(&mut setup.open(0, 1, &[]).unwrap(), usize::MAX).1.unwrap_err().message;
        assert!(message.ends_with("line 2: the row is longer than 16 MiB"), "{message}");
    }
}

#[test]
fn a_quote_that_is_never_closed_costs_one_row() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("a.csv");
    for (more, reason) in [(10, "a quoted field is never closed"), (2_000_000, "the row is longer than 16 MiB")] {
        let text: String = (3..3 + more).map(|n| format!("{n},twelve bytes\n")).collect();
        std::fs::write(&file, format!("1,a\n2,\"b\n{text}")).unwrap();
        let mut setup = setup(&file);
        setup.fields.push(Field::new("s", DataType::String, true));
        setup.format = csv(|csv| csv.on_error = OnError::Skip);
        let (errors, rows) = skipped(&setup);
        assert_eq!(errors, [(2, 4, reason.to_string())]);
        assert_eq!(rows, std::iter::once(1).chain(3..3 + more).collect::<Vec<_>>());
    }
}

#[test]
fn a_silent_pipe_lets_the_task_go_on_and_its_rows_come_when_they_are_written() {
    use std::os::unix::ffi::OsStrExt;
    let dir = TempDir::new().unwrap();
    let pipe = dir.path().join("pipe");
    let name = std::ffi::CString::new(pipe.as_os_str().as_bytes()).unwrap();
    // SAFETY: a string that ends in zero and lives through the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let mut source = setup(&pipe).open(0, 1, &[]).unwrap();
    assert_eq!(run(&mut source, 9), (vec![], Ok(false)), "nobody writes yet");
    let mut writer = std::fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    writer.write_all(b"{\"n\":1}\n{\"n\"").unwrap();
    assert_eq!(run(&mut source, 9), (vec![(0, 1)], Ok(false)));
    assert_eq!(run(&mut source, 9), (vec![], Ok(false)), "half a row");
    writer.write_all(b":2}\n").unwrap();
    drop(writer);
    assert_eq!(run(&mut source, 9), (vec![(0, 2)], Ok(true)));
}

#[test]
fn zeros_behind_gzip_data_are_padding() {
    let mut rng = SmallRng::seed_from_u64(5);
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("a.gz");
    let packed = [gzip(b"{\"n\":1}\n", &mut rng), vec![0; 70_000], gzip(b"{\"n\":2}\n", &mut rng), vec![0; 3]].concat();
    std::fs::write(&file, packed).unwrap();
    assert_eq!(run(&mut setup(&file).open(0, 1, &[]).unwrap(), 9), (vec![(0, 1), (0, 2)], Ok(true)));
}

#[test]
fn a_null_literal_that_begins_with_the_escape_is_null_and_escaped_it_is_text() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("a.csv");
    std::fs::write(&file, "1,\\N\r\n2,\\\\N\n\\N,N\n4,\\N").unwrap();
    let mut setup = setup(&file);
    setup.fields.push(Field::new("s", DataType::String, true));
    setup.format = csv(|csv| (csv.escape, csv.null_literal) = (Some(b'\\'), Some("\\N".into())));
    let mut source = setup.open(0, 1, &[]).unwrap();
    source.poll(&[]).unwrap();
    let Polled::Batch(batch) = source.poll(&[]).unwrap() else { panic!("a batch") };
    let numbers: Vec<_> = batch.batch.column(0).as_primitive::<Int64Type>().iter().collect();
    assert_eq!(numbers, [Some(1), Some(2), None, Some(4)]);
    let strings: Vec<_> = batch.batch.column(1).as_string::<i32>().iter().collect();
    assert_eq!(strings, [None, Some("\\N"), Some("N"), None]);
}

#[test]
fn ignored_errors_make_fields_of_csv_null_and_are_told_with_the_first_place() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("a.csv");
    std::fs::write(&file, "1,a\nx,b\n3\n4,d,e\n\"5\"5,f\n6,g\n").unwrap();
    let mut setup = setup(&file);
    setup.fields.push(Field::new("s", DataType::String, true));
    setup.format = csv(|csv| csv.on_error = OnError::Null);
    let mut source = setup.open(0, 1, &[]).unwrap();
    source.poll(&[]).unwrap();
    let Polled::Batch(batch) = source.poll(&[]).unwrap() else { panic!("a batch") };
    let numbers: Vec<_> = batch.batch.column(0).as_primitive::<Int64Type>().iter().collect();
    assert_eq!(numbers, [Some(1), None, Some(3), Some(4), Some(6)]);
    let strings: Vec<_> = batch.batch.column(1).as_string::<i32>().iter().collect();
    assert_eq!(strings, [Some("a"), Some("b"), None, Some("d"), Some("g")]);
    assert_eq!(batch.errors.unwrap().num_rows(), 1, "what is no record is skipped");
    assert_eq!(batch.field_errors, 3);
    let first = "line 2: column \"n\": expected a whole number of at most 64 bits, found \"x\"";
    assert_eq!(batch.field_error, Some(format!("{} {first}", setup.path)));
    // A column that must not be NULL cannot take one.
    setup.fields[0] = Field::new("n", DataType::Int64, false);
    let (errors, rows) = skipped(&Setup { on_error: OnError::Null, ..setup.clone() });
    assert_eq!((errors.len(), rows), (2, vec![1, 3, 4, 6]));
}

#[test]
fn paths_that_mean_nothing_are_told_at_the_start() {
    let dir = TempDir::new().unwrap();
    assert!(setup(&dir.path().join("none")).error().starts_with("table \"t\": path \""));
    assert!(setup(dir.path()).error().ends_with("the directory holds no files"));
    assert!(setup(&dir.path().join("*.x")).error().ends_with("no file matches"));
    std::fs::write(dir.path().join("a.json"), "{\"n\":1}\n{\"n\":2}").unwrap();
    assert_eq!(numbers(run(&mut setup(&dir.path().join("*.json")).open(0, 1, &[]).unwrap(), 9).0), [1, 2]);
}

#[test]
fn a_file_that_changed_since_the_checkpoint_is_refused() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("a.json");
    let text: String = (0..20_000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    std::fs::write(&file, &text).unwrap();
    let setup = setup(&file);
    let mut source = setup.open(0, 1, &[]).unwrap();
    run(&mut source, 1).1.unwrap();
    let position = [source.position().unwrap()];
    for (content, problem) in [(&text[1..], "it had"), (&text.replace(":1}", ":7}"), "begins differently")] {
        std::fs::write(&file, content).unwrap();
        let message = setup.open(0, 1, &position).err().unwrap().message;
        assert!(message.contains(problem), "{message}");
    }
    std::fs::remove_file(&file).unwrap();
    assert!(setup.open(0, 1, &position).err().unwrap().message.contains("is gone"));
}

#[test]
fn monitoring_takes_new_files_and_whole_new_lines_and_closes_quiet_lanes() {
    let dir = TempDir::new().unwrap();
    let setup = Setup { monitor: Some(1000), ..setup(dir.path()) };
    let mut source = setup.open(0, 1, &[]).unwrap();
    let append = |name: &str, text: &str| {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(dir.path().join(name));
        file.unwrap().write_all(text.as_bytes()).unwrap();
    };
    // Everything until the source waits: rows, and lanes opened and closed.
    let step = |source: &mut FilesystemSource, elapsed: i64| {
        setup.clock.fetch_add(elapsed, Ordering::Relaxed);
        let (mut rows, mut opened, mut closed) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            match source.poll(&[]).unwrap() {
                Polled::Wait(_) => return (rows, opened, closed),
                Polled::Opened(lane) => opened.push(lane),
                Polled::Closed(lane) => closed.push(lane),
                Polled::Batch(b) => rows.extend(b.batch.column(0).as_primitive::<Int64Type>().values()),
                Polled::End | Polled::Idle => panic!("a monitoring source never ends"),
            }
        }
    };
    assert!(!source.bounded());
    assert_eq!(step(&mut source, 0), (vec![], vec![], vec![]));
    append("a", "{\"n\":1}\n{\"n\"");
    assert_eq!(step(&mut source, 10), (vec![], vec![], vec![]));
    assert_eq!(step(&mut source, 1000), (vec![1], vec![0], vec![]));
    append("a", ":2}\n");
    append("b", "{\"n\":10}\n");
    assert_eq!(step(&mut source, 1000), (vec![2, 10], vec![1], vec![]));
    assert_eq!(step(&mut source, 1000), (vec![], vec![], vec![0, 1]));
    append("a", "{\"n\":3}\n{\"n\"");
    assert_eq!(step(&mut source, 1000), (vec![3], vec![0], vec![]));
    assert_eq!(step(&mut source, 1000), (vec![], vec![], vec![0]));
    assert_eq!(step(&mut source, 1000), (vec![], vec![], vec![]), "half a line opens no lane");
    let position = source.position().unwrap();
    append("a", ":4}\n");
    let mut rows = Vec::new();
    for index in 0..3 {
        rows.extend(step(&mut setup.open(index, 3, std::slice::from_ref(&position)).unwrap(), 0).0);
    }
    assert_eq!(rows, [4]);
    std::fs::write(dir.path().join("a"), "").unwrap();
    setup.clock.fetch_add(1000, Ordering::Relaxed);
    assert!(source.poll(&[]).unwrap_err().message.contains("shrank"));
}

#[test]
fn metadata_columns_tell_the_file() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("a.json"), "{\"n\":1}\n{\"n\":2}\n").unwrap();
    let mut setup = setup(dir.path());
    setup.fields.extend([
        Field::new("path", DataType::String, false),
        Field::new("name", DataType::String, false),
        Field::new("size", DataType::Int64, false),
        Field::new("at", DataType::TimestampLtz(Unit::Milli), false),
    ]);
    let keys = ["file.path", "file.name", "file.size", "file.modification-time"];
    setup.metadata = keys.iter().enumerate().map(|(at, key)| (at + 1, key.to_string())).collect();
    let mut source = setup.open(0, 1, &[]).unwrap();
    assert!(matches!(source.poll(&[]).unwrap(), Polled::Opened(0)));
    let Polled::Batch(batch) = source.poll(&[]).unwrap() else { panic!("a batch") };
    assert_eq!(batch.bytes, 16);
    assert_eq!(batch.batch.num_rows(), 2);
    assert_eq!(batch.batch.column(2).as_string::<i32>().value(1), "a.json");
    assert_eq!(batch.batch.column(3).as_primitive::<Int64Type>().value(1), 16);
}

fn csv(change: impl Fn(&mut Csv)) -> Option<Format> {
    let mut csv = Csv {
        on_error: OnError::Fail,
        delimiter: b',',
        quote: Some(b'"'),
        escape: None,
        null_literal: None,
        comments: false,
        header: false,
    };
    change(&mut csv);
    Some(Format::Csv(csv))
}

#[test]
fn csv_reads_quotes_nulls_comments_and_headers() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("a.csv");
    let mut setup = setup(&file);
    setup.fields = ["n", "s", "f"]
        .map(String::from)
        .into_iter()
        .zip([DataType::Int64, DataType::String, DataType::Float64])
        .map(|(n, t)| Field::new(n, t, true))
        .collect();
    setup.format = csv(|csv| (csv.header, csv.comments, csv.null_literal) = (true, true, Some("NULL".into())));
    std::fs::write(&file, "\u{feff}n,s,f\r\n1,\"a \"\"b\"\",\nc\",1.5\r\n# no row\n2,NULL,\n\n3,\"NULL\",1e3\r\n4,,0")
        .unwrap();
    let mut source = setup.open(0, 1, &[]).unwrap();
    source.poll(&[]).unwrap();
    let Polled::Batch(batch) = source.poll(&[]).unwrap() else { panic!("a batch") };
    let strings: Vec<_> = batch.batch.column(1).as_string::<i32>().iter().collect();
    assert_eq!(strings, [Some("a \"b\",\nc"), None, Some("NULL"), Some("")]);
    let numbers: Vec<_> = batch.batch.column(2).as_primitive::<arrow_array::types::Float64Type>().iter().collect();
    assert_eq!(numbers, [Some(1.5), None, Some(1000.0), Some(0.0)]);
    for (text, problem) in [
        ("n,s\n", "line 1: expected the header n,s,f, found n,s"),
        ("n,s,f\n1,\"a\nb\",2\n1,2\n", "line 4: expected 3 columns, found 2"),
        ("n,s,f\n1,x,2\nx,y,3\n", "line 3: column \"n\": expected a whole number of at most 64 bits, found \"x\""),
        ("n,s,f\n1,\"x,2\n", "line 2: a quoted field is never closed"),
        ("n,s,f\n1,\"x\"y,2\n", "line 2: after a closing quote, expected a delimiter or the end of the line"),
    ] {
        std::fs::write(&file, text).unwrap();
        assert!(setup.error().ends_with(problem), "{}", setup.error());
    }
    // Another header is another file: skipping bad rows does not skip it.
    setup.format = csv(|csv| (csv.header, csv.on_error) = (true, OnError::Skip));
    std::fs::write(&file, "n,s\n1,2,3\n").unwrap();
    assert!(setup.error().contains("expected the header"));
}

#[test]
fn random_csv_comes_back_at_any_parallelism() {
    for seed in 0..40 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("a.csv");
        let quoted = rng.random_bool(0.5);
        let alphabet = if quoted { "ab,\"\n\r ä" } else { "ab; ä" };
        let alphabet: Vec<char> = alphabet.chars().collect();
        let (mut text, mut want) = (String::new(), BTreeMap::new());
        for n in 0..rng.random_range(1..300) {
            let s: String =
                (0..rng.random_range(0..12)).map(|_| alphabet[rng.random_range(0..alphabet.len())]).collect();
            let field = if quoted { format!("\"{}\"", s.replace('"', "\"\"")) } else { s.clone() };
            text += &format!("{n},{field}{}", if rng.random_bool(0.5) { "\n" } else { "\r\n" });
            want.insert(n, s);
        }
        std::fs::write(&file, text).unwrap();
        let mut setup = setup(&file);
        setup.split_bytes = rng.random_range(1..500);
        setup.fields.push(Field::new("s", DataType::String, true));
        setup.format = csv(|csv| csv.quote = quoted.then_some(b'"'));
        let mut got = BTreeMap::new();
        for index in 0..3 {
            let mut source = setup.open(index, 3, &[]).unwrap();
            loop {
                match source.poll(&[]).unwrap() {
                    Polled::End => break,
                    Polled::Batch(batch) => {
                        let (n, s) = (
                            batch.batch.column(0).as_primitive::<Int64Type>(),
                            batch.batch.column(1).as_string::<i32>(),
                        );
                        for row in 0..n.len() {
                            assert_eq!(got.insert(n.value(row), s.value(row).to_string()), None);
                        }
                    }
                    _ => {}
                }
            }
        }
        assert_eq!(got, want, "seed {seed}");
    }
}
