//! Whether every row counted exactly once: what a job has written, against a plain recomputation from its input.
//!
//! (a) the ids in `echo` are those of the input, once; (b) within one partition they come in order; (c) the sums of each
//! key and every window have the values of the recomputation; (d) each window comes once; (g) the object store holds
//! what the retained checkpoints need and nothing else; (h) nothing that is not committed can be seen. The letters are
//! those of the protocol notes. A checker that sees nothing proves nothing: `tests` feeds it every kind of fault.

mod findings;
pub mod output;
pub mod store;
#[cfg(test)]
mod tests;
mod topic;

pub use findings::Findings;
pub use output::{Files, Output, Part};
pub use topic::check_markers;

use crate::events::timestamp;
use crate::workload::{Job, Medium, Row, key_text};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// The three outputs of [`Job`].
pub struct Outputs {
    pub echo: Output,
    pub sums: Output,
    pub windows: Output,
}

/// How much there was to check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub rows: usize,
    pub changes: usize,
    pub windows: usize,
    /// Hidden files that attempts left which came to nothing. They are no harm; a run without faults leaves none.
    pub leftovers: usize,
}

impl Outputs {
    pub fn of(job: &Job) -> Outputs {
        let of = |table: &str, directory: std::path::PathBuf| match &job.medium {
            Medium::Files => Output::Files(Files::at(directory)),
            Medium::Kafka(topics) => Output::Topic(topic::Topic::of(topics, table)),
        };
        Outputs { echo: of("echo", job.echo()), sums: of("sums", job.sums()), windows: of("windows", job.windows()) }
    }

    fn all_mut(&mut self) -> [&mut Output; 3] {
        [&mut self.echo, &mut self.sums, &mut self.windows]
    }

    /// To be said when one job has ended and before another one goes on from its savepoint: what comes is in order
    /// behind what is there.
    pub fn next_generation(&mut self) {
        self.all_mut().into_iter().for_each(Output::next_generation);
    }

    /// Rows of `echo` that can be seen so far. Files that were counted are not read again.
    pub fn rows_visible(&mut self) -> usize {
        self.echo.rows_visible()
    }

    /// All of it against the input, once the job has ended. Err: the first differences, and the seed.
    pub fn check(&mut self, seed: u64, input: &[Row]) -> Result<Checked, String> {
        let mut findings = Findings::default();
        let mut read = |output: &mut Output| output.read(&mut findings);
        let (echo, sums, windows) = (read(&mut self.echo), read(&mut self.sums), read(&mut self.windows));
        let checked = Checked {
            rows: check_echo(input, &echo, &mut findings),
            changes: check_sums(input, &sums, &mut findings),
            windows: check_windows(input, &windows, &mut findings),
            leftovers: self.all_mut().into_iter().map(|output| output.leftovers().len()).sum(),
        };
        findings.verdict(seed).map(|()| checked)
    }
}

/// `a/3/17`: how a row is named in what is told.
fn id(source: &str, partition: u64, seq: u64) -> String {
    format!("{source}/{partition}/{seq}")
}

/// (a) and (b): every row once, unchanged, in the order of its partition.
pub fn check_echo(input: &[Row], parts: &[Part], findings: &mut Findings) -> usize {
    struct Expected<'a> {
        row: &'a Row,
        found: u32,
    }
    let all = objects(parts, findings);
    let mut expected: HashMap<(&str, u64, u64), Expected> = input
        .iter()
        .map(|row| {
            let id = (row.source.as_str(), u64::from(row.partition), u64::from(row.seq));
            (id, Expected { row, found: 0 })
        })
        .collect();
    // Of each partition: the last seq, and the part that it came in.
    let mut reached: HashMap<(String, u64), (u64, &Part)> = HashMap::new();
    for (part, line, row) in &all {
        let text = |key: &str| row[key].as_str().unwrap_or_default();
        let number = |key: &str| row[key].as_u64().unwrap_or(u64::MAX);
        let (source, partition, seq) = (text("source"), number("partition"), number("seq"));
        let at = || format!("{} in {} line {line}", id(source, partition, seq), part.name);
        let Some(expected) = expected.get_mut(&(source, partition, seq)) else {
            findings.add("row that was never sent", at());
            continue;
        };
        expected.found += 1;
        if expected.found > 1 {
            findings.add("row came again", at());
            continue;
        }
        let Row { key, amount, .. } = expected.row;
        if text("k") != key_text(*key) || row["amount"].as_i64() != Some(*amount) {
            findings.add("row with other values", format!("{}: {row}, expected {:?}", at(), expected.row));
        }
        if let Some((last, before)) = reached.insert((source.to_string(), partition), (seq, part)) {
            if last > seq {
                findings.add("row out of order", format!("{}, after seq {last} in {}", at(), before.name));
            }
            let same_deployment = (before.generation, before.incarnation) == (part.generation, part.incarnation);
            if same_deployment && before.subtask != part.subtask {
                findings.add("partition read by two subtasks at once", format!("{}, and {}", at(), before.name));
            }
        }
    }
    let mut missing: Vec<&Row> = expected.values().filter(|e| e.found == 0).map(|e| e.row).collect();
    missing.sort_by_key(|row| (&row.source, row.partition, row.seq));
    for row in missing {
        findings.add("row lost", id(&row.source, row.partition.into(), row.seq.into()));
    }
    all.len()
}

/// (c), first half: the changes of each key fit onto each other, and add up to its count and sum.
pub fn check_sums(input: &[Row], parts: &[Part], findings: &mut Findings) -> usize {
    let mut expected: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for row in input {
        let sum = expected.entry(key_text(row.key)).or_default();
        *sum = (sum.0 + 1, sum.1 + row.amount);
    }
    let mut found: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    // The highest count a key has had: it only grows.
    let mut reached: HashMap<String, i64> = HashMap::new();
    let all = objects(parts, findings);
    for (part, line, change) in &all {
        let at = || format!("{change} in {} line {line}", part.name);
        let data = &change["data"];
        let (Some(key), Some(n), Some(total)) = (data["k"].as_str(), data["n"].as_i64(), data["total"].as_i64()) else {
            findings.add("change that is none", at());
            continue;
        };
        match change["op"].as_str() {
            Some("+I" | "+U") => {
                if let Some(now) = found.insert(key.to_string(), (n, total)) {
                    findings.add("change that does not fit", format!("{}, the key has {now:?}", at()));
                }
                let reached = reached.entry(key.to_string()).or_default();
                if n <= *reached {
                    findings.add("sum that goes back", format!("{}, it was at {reached}", at()));
                }
                *reached = n.max(*reached);
            }
            Some("-U" | "-D") => match found.remove(key) {
                Some(now) if now == (n, total) => {}
                now => findings.add("change that does not fit", format!("{}, the key has {now:?}", at())),
            },
            _ => findings.add("change that is none", at()),
        }
    }
    compare("sum", &expected, &found, findings);
    all.len()
}

/// Count, sum, least and greatest amount of one window of one key.
type Window = (i64, i64, i64, i64);

/// (c), second half, and (d): every window once, with the values that a plain recomputation has.
pub fn check_windows(input: &[Row], parts: &[Part], findings: &mut Findings) -> usize {
    let mut expected: BTreeMap<(String, String), Window> = BTreeMap::new();
    for row in input {
        let window = expected.entry((key_text(row.key), timestamp(row.window()))).or_insert((0, 0, i64::MAX, i64::MIN));
        let (n, total, lo, hi) = *window;
        *window = (n + 1, total + row.amount, lo.min(row.amount), hi.max(row.amount));
    }
    let mut found: BTreeMap<(String, String), Window> = BTreeMap::new();
    let all = objects(parts, findings);
    for (part, line, row) in &all {
        let at = || format!("{row} in {} line {line}", part.name);
        let text = |key: &str| row[key].as_str().map(String::from);
        let number = |key: &str| row[key].as_i64();
        let values = (number("n"), number("total"), number("lo"), number("hi"));
        let (Some(key), Some(start), (Some(n), Some(total), Some(lo), Some(hi))) =
            (text("k"), text("window_start"), values)
        else {
            findings.add("window that is none", at());
            continue;
        };
        if let Some(before) = found.insert((key, start), (n, total, lo, hi)) {
            findings.add("window came again", format!("{}, before it was {before:?}", at()));
        }
    }
    compare("window", &expected, &found, findings);
    all.len()
}

fn compare<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
    what: &str,
    expected: &BTreeMap<K, V>,
    found: &BTreeMap<K, V>,
    findings: &mut Findings,
) {
    for (key, value) in expected {
        match found.get(key) {
            None => findings.add(&format!("{what} lost"), format!("{key:?}, expected {value:?}")),
            Some(other) if other != value => {
                findings.add(&format!("wrong {what}"), format!("{key:?}: {other:?}, expected {value:?}"));
            }
            Some(_) => {}
        }
    }
    for (key, value) in found.iter().filter(|(key, _)| !expected.contains_key(key)) {
        findings.add(&format!("{what} of nothing"), format!("{key:?}: {value:?}"));
    }
}

/// Every line of all parts as JSON, with its part and its number from 1.
fn objects<'a>(parts: &'a [Part], findings: &mut Findings) -> Vec<(&'a Part, usize, Value)> {
    let mut all = Vec::new();
    for part in parts {
        for (index, line) in part.text.lines().enumerate() {
            match serde_json::from_str(line) {
                Ok(value) => all.push((part, index + 1, value)),
                Err(e) => findings.add("line that is no JSON", format!("{} line {}: {e}", part.name, index + 1)),
            }
        }
    }
    all
}
