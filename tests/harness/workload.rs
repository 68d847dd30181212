//! The input of the exactly-once tests and the job over it. Every row says where it stands: (source, partition, seq).
//!
//! A partition is one file, moved into the followed directory in one step, and its rows are out of order by less than the
//! watermark's delay; partitions follow each other in event time. So no row is ever late, whatever fails when, and each
//! window has one right result. With Kafka on both sides ([`Medium`]), a partition goes to one of the input topic's.

mod kafka;

pub use kafka::{PARTITIONS, Topics};

use crate::events::{BASE_MS, timestamp};
use crate::servers::kafka::Writer;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Event time that one partition covers.
const PARTITION_MS: i64 = 1000;
/// Rows are at most this much before their place in order; less than the delay of the job's watermark.
const JITTER_MS: i64 = 900;
/// Of the job's tumbling windows.
pub const WINDOW_MS: i64 = 2000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub source: String,
    pub partition: u32,
    pub seq: u32,
    pub key: u32,
    pub amount: i64,
    pub ts: i64,
}

impl Row {
    pub fn window(&self) -> i64 {
        self.ts.div_euclid(WINDOW_MS) * WINDOW_MS
    }
}

/// Key as it stands in the rows.
pub fn key_text(key: u32) -> String {
    format!("key-{key}")
}

#[derive(Clone, Debug)]
pub struct Workload {
    pub seed: u64,
    pub source: String,
    pub rows_per_partition: u32,
    pub keys: u32,
}

impl Workload {
    pub fn new(seed: u64) -> Workload {
        Workload { seed, source: "a".into(), rows_per_partition: 200, keys: 40 }
    }

    /// The same rows for the same seed and number.
    pub fn partition(&self, number: u32) -> Vec<Row> {
        let mut rng = SmallRng::seed_from_u64(self.seed ^ (u64::from(number) << 32 | 0x5eed));
        let start = BASE_MS + i64::from(number) * PARTITION_MS;
        (0..self.rows_per_partition)
            .map(|seq| Row {
                source: self.source.clone(),
                partition: number,
                seq,
                key: rng.random_range(0..self.keys),
                amount: rng.random_range(-1000..10_000),
                ts: start + i64::from(seq) * PARTITION_MS / i64::from(self.rows_per_partition)
                    - rng.random_range(0..JITTER_MS),
            })
            .collect()
    }

    pub fn partitions(&self, count: u32) -> Vec<Row> {
        (0..count).flat_map(|number| self.partition(number)).collect()
    }
}

pub fn ndjson(rows: &[Row]) -> String {
    let mut text = String::new();
    for Row { source, partition, seq, key, amount, ts } in rows {
        let (key, ts) = (key_text(*key), timestamp(*ts));
        writeln!(
            text,
            r#"{{"source":"{source}","partition":{partition},"seq":{seq},"k":"{key}","amount":{amount},"ts":"{ts}"}}"#
        )
        .expect("a string grows");
    }
    text
}

/// Where the job reads from and writes to.
#[derive(Clone, Debug)]
pub enum Medium {
    /// Directories below the job's own.
    Files,
    Kafka(Topics),
}

/// Gives partitions to a running job, one after the other.
pub struct Feeder {
    workload: Workload,
    to: To,
    /// All rows that were given.
    pub fed: Vec<Row>,
    next: u32,
}

enum To {
    Directory(PathBuf),
    Topic(Writer),
}

impl Feeder {
    /// Feeds the directory of [`Job::input`], or the input's topic.
    pub fn new(workload: Workload, job: &Job) -> Feeder {
        let to = match &job.medium {
            Medium::Files => {
                std::fs::create_dir_all(job.input()).expect("the test's own directory is writable");
                To::Directory(job.input())
            }
            Medium::Kafka(topics) => To::Topic(topics.writer()),
        };
        Feeder { workload, to, fed: Vec::new(), next: 0 }
    }

    /// Does not wait for a broker: rows come when it does.
    pub fn feed(&mut self, partitions: u32) {
        for _ in 0..partitions {
            let rows = self.workload.partition(self.next);
            match &self.to {
                To::Directory(directory) => {
                    let name = format!("{:06}.ndjson", self.next);
                    // Names with a dot are no files of the table; a rename shows the whole file at once.
                    let hidden = directory.join(format!(".{name}"));
                    std::fs::write(&hidden, ndjson(&rows)).expect("the test's own directory is writable");
                    std::fs::rename(hidden, directory.join(name)).expect("same directory");
                }
                To::Topic(writer) => kafka::write(writer, self.next, &ndjson(&rows)),
            }
            self.fed.extend(rows);
            self.next += 1;
        }
    }

    /// Partitions given so far.
    pub fn partitions(&self) -> u32 {
        self.next
    }
}

/// The job of the exactly-once tests: three outputs over one followed input.
#[derive(Clone, Debug)]
pub struct Job {
    /// Input and outputs lie in `in`, `echo`, `sums` and `windows` of it.
    pub directory: PathBuf,
    pub medium: Medium,
    pub backend: String,
    pub checkpoint_interval: String,
    /// More SET statements.
    pub settings: String,
}

impl Job {
    pub fn new(directory: &Path) -> Job {
        Job {
            directory: directory.to_path_buf(),
            medium: Medium::Files,
            backend: "memory".into(),
            checkpoint_interval: "200 ms".into(),
            settings: String::new(),
        }
    }

    pub fn input(&self) -> PathBuf {
        self.directory.join("in")
    }

    pub fn echo(&self) -> PathBuf {
        self.directory.join("echo")
    }

    pub fn sums(&self) -> PathBuf {
        self.directory.join("sums")
    }

    pub fn windows(&self) -> PathBuf {
        self.directory.join("windows")
    }

    /// Of the second version.
    pub fn counts(&self) -> PathBuf {
        self.directory.join("counts")
    }

    /// Restarts and failed checkpoints are what is tested, so neither ends the job.
    fn head(&self) -> String {
        let Job { backend, checkpoint_interval, settings, .. } = self;
        let input = match &self.medium {
            Medium::Files => format!(
                "'connector' = 'filesystem', 'path' = '{}', 'format' = 'json', 'source.monitor-interval' = '100 ms'",
                self.input().display()
            ),
            Medium::Kafka(topics) => topics.input(),
        };
        format!(
            "{settings}
SET 'execution.checkpointing.interval' = '{checkpoint_interval}';
SET 'execution.checkpointing.timeout' = '20 s';
SET 'execution.checkpointing.tolerable-failed-checkpoints' = '1000000';
SET 'restart-strategy.type' = 'fixed-delay';
SET 'restart-strategy.fixed-delay.attempts' = '1000000';
SET 'restart-strategy.fixed-delay.delay' = '200 ms';
SET 'state.backend' = '{backend}';
CREATE TABLE input (
  source STRING, `partition` INT, seq INT, k STRING, amount BIGINT, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '3' SECOND
) WITH ({input});
"
        )
    }

    /// `key`: the columns that keep rows in order.
    fn table(&self, path: &Path, columns: &str, key: &str, format: &str) -> String {
        let name = path.file_name().and_then(|name| name.to_str()).expect("outputs have plain names");
        let with = match &self.medium {
            Medium::Files => {
                format!("'connector' = 'filesystem', 'path' = '{}', 'format' = '{format}'", path.display())
            }
            Medium::Kafka(topics) => topics.output(name, key, format),
        };
        format!("CREATE TABLE {name} ({columns}) WITH ({with});\n")
    }

    fn sums_and_windows(&self) -> String {
        let windows = "k STRING, window_start TIMESTAMP(3), n BIGINT, total BIGINT, lo BIGINT, hi BIGINT";
        self.table(&self.sums(), "k STRING, n BIGINT, total BIGINT", "k", "changelog-json")
            + &self.table(&self.windows(), windows, "k", "json")
            + "INSERT INTO sums SELECT k, COUNT(*), SUM(amount) FROM input GROUP BY k;
INSERT INTO windows SELECT k, window_start, COUNT(*), SUM(amount), MIN(amount), MAX(amount)
FROM TABLE(TUMBLE(TABLE input, DESCRIPTOR(ts), INTERVAL '2' SECOND)) GROUP BY k, window_start, window_end;
"
    }

    pub fn sql(&self) -> String {
        let columns = "source STRING, `partition` INT, seq INT, k STRING, amount BIGINT";
        self.head()
            + &self.table(&self.echo(), columns, "source;partition", "json")
            + &self.sums_and_windows()
            + "INSERT INTO echo SELECT source, `partition`, seq, k, amount FROM input;\n"
    }

    /// The next version of the same job: `echo` has a column more, and there is another output with an operator of its
    /// own. What the operators of the first version have counted goes on.
    pub fn sql_version_2(&self) -> String {
        let columns = "source STRING, `partition` INT, seq INT, k STRING, amount BIGINT, twice BIGINT";
        self.head()
            + &self.table(&self.echo(), columns, "source;partition", "json")
            + &self.table(&self.counts(), "source STRING, n BIGINT", "source", "changelog-json")
            + &self.sums_and_windows()
            + "INSERT INTO echo SELECT source, `partition`, seq, k, amount, amount * 2 FROM input;
INSERT INTO counts SELECT source, COUNT(*) FROM input GROUP BY source;
"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_gives_the_same_rows_and_no_row_is_late() {
        let workload = Workload::new(3);
        assert_eq!(workload.partitions(5), workload.partitions(5));
        assert_ne!(workload.partitions(5), Workload::new(4).partitions(5));
        // In the order of the files: the watermark is 3 s behind the greatest time so far.
        let mut greatest = i64::MIN;
        for row in workload.partitions(30) {
            assert!(row.ts > greatest.saturating_sub(3000), "{row:?} is late");
            greatest = greatest.max(row.ts);
        }
    }

    #[test]
    fn fed_files_appear_whole_and_hold_the_rows_that_are_expected() {
        let work = tempfile::tempdir().expect("a temporary directory");
        let job = Job::new(work.path());
        let mut feeder = Feeder::new(Workload::new(5), &job);
        feeder.feed(2);
        feeder.feed(1);
        assert_eq!(feeder.fed, Workload::new(5).partitions(3));
        assert_eq!(crate::rows::directory(&job.input()), ndjson(&feeder.fed));
        let names: Vec<_> =
            std::fs::read_dir(job.input()).expect("there").map(|e| e.expect("there").file_name()).collect();
        assert_eq!(names.len(), 3, "{names:?}");
    }
}
