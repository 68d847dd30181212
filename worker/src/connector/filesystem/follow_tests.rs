//! What a followed path promises while its files grow, are renamed, replaced and deleted.

use super::FilesystemSource;
use super::source_tests::{Setup, numbers, run, setup};
use crate::connector::{Polled, Source};
use crate::error::Result;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use tempfile::TempDir;

const INTERVAL: i64 = 1000;
const NONE: [i64; 0] = [];

struct Followed {
    directory: TempDir,
    setup: Setup,
    source: FilesystemSource,
}

fn follow(pattern: &str) -> Followed {
    let directory = TempDir::new().unwrap();
    let setup = Setup { monitor: Some(INTERVAL as u64), ..setup(&directory.path().join(pattern)) };
    let source = setup.open(0, 1, &[]).unwrap();
    Followed { directory, setup, source }
}

fn rows(numbers: impl IntoIterator<Item = i64>) -> String {
    numbers.into_iter().map(|n| format!("{{\"n\":{n}}}\n")).collect()
}

fn pack(name: &str, text: &str) -> Vec<u8> {
    if name.ends_with("zst") {
        return zstd::encode_all(text.as_bytes(), 1).unwrap();
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

impl Followed {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn append(&self, name: &str, bytes: impl AsRef<[u8]>) {
        append(&self.path(name), bytes.as_ref());
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    /// The rows that the next scan brings, sorted.
    fn try_scan(&mut self) -> Result<Vec<i64>> {
        self.setup.clock.fetch_add(INTERVAL, Ordering::Relaxed);
        let (rows, end) = run(&mut self.source, usize::MAX);
        let mut rows = numbers(rows);
        rows.sort_unstable();
        end.map(|_| rows)
    }

    fn scan(&mut self) -> Vec<i64> {
        self.try_scan().unwrap()
    }

    fn problem(&mut self) -> String {
        self.try_scan().unwrap_err().message
    }

    /// A restart from here, at another parallelism: what all subtasks read first, sorted.
    fn restart(&self, parallelism: u32, position: &[u8]) -> Result<Vec<i64>> {
        let mut all = Vec::new();
        for index in 0..parallelism {
            let mut source = self.setup.open(index, parallelism, &[position.to_vec()])?;
            let (rows, end) = run(&mut source, usize::MAX);
            all.extend(numbers(rows));
            end?;
        }
        all.sort_unstable();
        Ok(all)
    }
}

fn append(path: &Path, bytes: &[u8]) {
    let file = fs::OpenOptions::new().create(true).append(true).open(path);
    file.unwrap().write_all(bytes).unwrap();
}

#[test]
fn a_file_moved_over_another_of_the_same_size_is_read_from_its_start() {
    for closed in [false, true] {
        let mut followed = follow("");
        followed.append("a", rows(10..22));
        assert_eq!(followed.scan(), (10..22).collect::<Vec<_>>());
        if closed {
            (0..3).for_each(|_| assert_eq!(followed.scan(), NONE));
        }
        followed.append(".new", rows(30..42));
        followed.rename(".new", "a");
        assert_eq!(followed.scan(), (30..42).collect::<Vec<_>>(), "lane closed: {closed}");
        assert_eq!(followed.scan(), NONE);
        let position = followed.source.position().unwrap();
        assert_eq!(followed.restart(3, &position).unwrap(), NONE);
    }
}

#[test]
fn a_rotation_within_one_interval_loses_no_row() {
    for pattern in ["*.log", "", "a.log"] {
        for quiet_scans in [0, 3] {
            let mut followed = follow(pattern.trim_start_matches("a.log"));
            followed.append("a.log", rows([1]));
            if pattern == "a.log" {
                followed.setup.path = followed.path("a.log").to_str().unwrap().into();
                followed.source = followed.setup.open(0, 1, &[]).unwrap();
            }
            assert_eq!(followed.scan(), [1]);
            (0..quiet_scans).for_each(|_| assert_eq!(followed.scan(), NONE));
            followed.append("a.log", rows([2]));
            followed.rename("a.log", "a.log.1");
            followed.append("a.log", rows([3]));
            assert_eq!(followed.scan(), [2, 3], "{pattern} after {quiet_scans} quiet scans");
            // The writer has not noticed yet.
            followed.append("a.log.1", rows([4]));
            followed.append("a.log", rows([5]));
            assert_eq!(followed.scan(), [4, 5], "{pattern}");
            let position = followed.source.position().unwrap();
            followed.append("a.log", rows([6]));
            assert_eq!(followed.restart(2, &position).unwrap(), [6], "{pattern}");
            (0..5).for_each(|_| drop(followed.scan()));
            followed.append("a.log", rows([7]));
            assert_eq!(followed.scan(), [7]);
        }
    }
}

#[test]
fn a_single_followed_file_may_be_away_for_a_moment() {
    let mut followed = follow("");
    followed.append("a", rows([1]));
    followed.setup.path = followed.path("a").to_str().unwrap().into();
    followed.source = followed.setup.open(0, 1, &[]).unwrap();
    assert_eq!(followed.scan(), [1]);
    followed.rename("a", "old");
    (0..4).for_each(|_| assert_eq!(followed.scan(), NONE));
    followed.append("a", rows([2]));
    assert_eq!(followed.scan(), [2]);
}

#[test]
fn a_renamed_file_is_read_on_where_it_was() {
    for closed in [false, true] {
        let mut followed = follow("");
        followed.append("a", rows([1, 2]));
        assert_eq!(followed.scan(), [1, 2]);
        if closed {
            (0..3).for_each(|_| assert_eq!(followed.scan(), NONE));
        }
        let before = followed.source.position().unwrap();
        followed.rename("a", "b");
        followed.append("b", rows([3]));
        assert_eq!(followed.scan(), [3]);
        followed.append("a", rows([4]));
        assert_eq!(followed.scan(), [4]);
        let after = followed.source.position().unwrap();
        assert_eq!(followed.restart(3, &before).unwrap(), [3, 4]);
        assert_eq!(followed.restart(3, &after).unwrap(), NONE);
    }
}

#[test]
fn a_rotation_while_the_job_is_stopped_loses_and_repeats_no_row() {
    for pattern in ["*.log", ""] {
        let mut followed = follow(pattern);
        followed.append("a.log", rows([1]));
        assert_eq!(followed.scan(), [1]);
        let position = followed.source.position().unwrap();
        followed.append("a.log", rows([2]));
        followed.rename("a.log", "a.log.1");
        followed.append("a.log", rows([3]));
        for parallelism in 1..4 {
            assert_eq!(followed.restart(parallelism, &position).unwrap(), [2, 3], "{pattern} at {parallelism}");
        }
    }
}

#[test]
fn a_copy_in_the_place_of_a_file_is_read_on_and_positions_of_older_builds_too() {
    let mut followed = follow("");
    followed.append("a", rows([1]));
    assert_eq!(followed.scan(), [1]);
    let position = followed.source.position().unwrap();
    followed.append("a", rows([2]));
    let mut old: serde_json::Value = serde_json::from_slice(&position).unwrap();
    old["files"][0].as_object_mut().unwrap().remove("inode").unwrap();
    assert_eq!(followed.restart(2, &serde_json::to_vec(&old).unwrap()).unwrap(), [2]);
    let bytes = fs::read(followed.path("a")).unwrap();
    followed.append(".copy", bytes);
    followed.rename(".copy", "a");
    assert_eq!(followed.restart(2, &position).unwrap(), [2]);
}

#[test]
fn a_file_that_is_overwritten_in_place_is_an_error() {
    let mut followed = follow("");
    followed.append("a", rows([1, 2]));
    assert_eq!(followed.scan(), [1, 2]);
    fs::write(followed.path("a"), rows([3, 4, 5])).unwrap();
    assert!(followed.problem().contains("was overwritten while it was followed"));
}

#[test]
fn a_file_that_was_empty_when_it_was_found_is_recognised_by_what_was_read_since() {
    let mut followed = follow("");
    followed.append("a", "");
    assert_eq!(followed.scan(), NONE);
    followed.append("a", rows([1, 2]));
    assert_eq!(followed.scan(), [1, 2]);
    let position = followed.source.position().unwrap();
    assert_eq!(followed.restart(1, &position).unwrap(), NONE);
    fs::write(followed.path("a"), rows([3, 4, 5])).unwrap();
    let message = followed.restart(1, &position).unwrap_err().message;
    assert!(message.contains("begins differently"), "{message}");
}

#[test]
fn what_vanishes_below_a_followed_directory_is_passed_over() {
    let mut followed = follow("");
    std::os::unix::fs::symlink(followed.path("nowhere"), followed.path("link")).unwrap();
    followed.append("a", rows([1]));
    followed.append("b", rows([2]));
    followed.setup.clock.fetch_add(INTERVAL, Ordering::Relaxed);
    // The scan has found both; one is deleted before it is opened.
    assert!(matches!(followed.source.poll(&[]).unwrap(), Polled::Opened(0)));
    fs::remove_file(followed.path("a")).unwrap();
    let (read, end) = run(&mut followed.source, usize::MAX);
    assert_eq!((numbers(read), end), (vec![2], Ok(false)));
    (0..4).for_each(|_| assert_eq!(followed.scan(), NONE));
    let bounded = setup(followed.directory.path());
    assert!(bounded.open(0, 1, &[]).err().unwrap().message.contains("link"), "a bounded read must find all");
}

#[test]
fn what_is_appended_to_a_packed_file_is_read() {
    for name in ["a.gz", "a.zst"] {
        let mut followed = follow("");
        followed.append(name, pack(name, &rows([1, 2])));
        assert_eq!(followed.scan(), [1, 2]);
        followed.append(name, pack(name, &rows([3])));
        assert_eq!(followed.scan(), [3], "{name}");
        (0..3).for_each(|_| assert_eq!(followed.scan(), NONE));
        let position = followed.source.position().unwrap();
        assert_eq!(followed.restart(2, &position).unwrap(), NONE);
        followed.append(name, pack(name, &rows([4])));
        assert_eq!(followed.restart(2, &position).unwrap(), [4]);
        assert_eq!(followed.scan(), [4]);
        followed.append(name, "no packed data, and long enough to be no beginning of any");
        assert!(followed.problem().contains("is damaged"), "{name}");
    }
}

#[test]
fn a_packed_file_that_is_still_being_written_is_read_on_when_it_grows() {
    for name in ["a.gz", "a.zst"] {
        let mut followed = follow("");
        let packed = pack(name, &rows(0..50_000));
        let mut read = Vec::new();
        for part in packed.chunks(packed.len() / 3 + 1) {
            followed.append(name, part);
            read.extend(followed.scan());
            let position = followed.source.position().unwrap();
            assert_eq!(followed.restart(1, &position).unwrap(), NONE, "{name}");
            (0..3).for_each(|_| assert_eq!(followed.scan(), NONE));
        }
        assert_eq!(read, (0..50_000).collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn lane_numbers_are_used_again() {
    let mut followed = follow("");
    for round in 0..20 {
        followed.append(&format!("f{round}"), rows([round]));
        followed.setup.clock.fetch_add(INTERVAL, Ordering::Relaxed);
        let (read, end) = run(&mut followed.source, usize::MAX);
        end.unwrap();
        assert_eq!(read, [(0, round)]);
        (0..2).for_each(|_| assert_eq!(followed.scan(), NONE));
    }
}

#[test]
fn a_byte_order_mark_may_come_in_two_pieces() {
    let mut followed = follow("");
    followed.append("a", b"\xef\xbb");
    assert_eq!(followed.scan(), NONE);
    followed.append("a", b"\xbf{\"n\":1}\n");
    assert_eq!(followed.scan(), [1]);
}
