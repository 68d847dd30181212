//! What a sink has published: visible files in the order in which they were written, or what a topic shows.

use super::Findings;
use super::topic::Topic;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// One visible file `part-<writer>-<incarnation>-<subtask>-<counter>.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Of the job among those that went on from each other's savepoints.
    pub generation: u32,
    pub incarnation: u64,
    pub subtask: u64,
    pub counter: u64,
    pub name: String,
    pub text: String,
}

/// Of one sink.
pub enum Output {
    Files(Files),
    Topic(Topic),
}

impl Output {
    /// See [`super::Outputs::next_generation`].
    pub fn next_generation(&mut self) {
        match self {
            Output::Files(files) => files.next_generation(),
            // Its order is the broker's.
            Output::Topic(_) => {}
        }
    }

    pub fn rows_visible(&mut self) -> usize {
        match self {
            Output::Files(files) => files.rows_visible(),
            Output::Topic(topic) => topic.rows_visible(),
        }
    }

    /// All parts in order. What is visible and no whole part is a finding: (h).
    pub fn read(&mut self, findings: &mut Findings) -> Vec<Part> {
        match self {
            Output::Files(files) => files.read(findings),
            Output::Topic(topic) => topic.read(findings),
        }
    }

    /// Hidden files with rows that were not published.
    pub fn leftovers(&self) -> Vec<String> {
        match self {
            Output::Files(files) => files.leftovers(),
            Output::Topic(_) => Vec::new(),
        }
    }

    /// Of files: incarnations whose rows were published.
    pub fn incarnations(&self) -> BTreeSet<u64> {
        match self {
            Output::Files(files) => files.incarnations(),
            Output::Topic(_) => BTreeSet::new(),
        }
    }
}

/// The directory of one sink.
pub struct Files {
    directory: PathBuf,
    /// In which generation each writer, a digest of job and operator, was first seen.
    pub(super) writers: BTreeMap<String, u32>,
    pub(super) generation: u32,
    /// Files that are counted already. A visible file never changes.
    counted: BTreeSet<String>,
    rows: usize,
}

impl Files {
    pub fn at(directory: PathBuf) -> Files {
        Files { directory, writers: BTreeMap::new(), generation: 0, counted: BTreeSet::new(), rows: 0 }
    }

    fn next_generation(&mut self) {
        self.observe();
        self.generation += 1;
    }

    fn observe(&mut self) {
        let names = self.visible();
        for (writer, ..) in names.iter().filter_map(|name| parse(name)) {
            self.writers.entry(writer.to_string()).or_insert(self.generation);
        }
    }

    /// Names of the files that others can see, sorted.
    fn visible(&self) -> Vec<String> {
        names(&self.directory).into_iter().filter(|name| !name.starts_with(['.', '_'])).collect()
    }

    fn rows_visible(&mut self) -> usize {
        for name in self.visible() {
            if !self.counted.contains(&name)
                && let Ok(text) = std::fs::read_to_string(self.directory.join(&name))
            {
                self.rows += text.lines().count();
                self.counted.insert(name);
            }
        }
        self.rows
    }

    fn read(&mut self, findings: &mut Findings) -> Vec<Part> {
        self.observe();
        let mut parts = Vec::new();
        for name in self.visible() {
            let path = self.directory.join(&name);
            let Some((writer, [incarnation, subtask, counter])) = parse(&name) else {
                findings.add("visible file that is no part", path.display().to_string());
                continue;
            };
            let generation = self.writers[writer];
            let text = match std::fs::read_to_string(&path) {
                Ok(text) => text,
                Err(e) => {
                    findings.add("visible file that cannot be read", format!("{}: {e}", path.display()));
                    continue;
                }
            };
            if !text.ends_with('\n') {
                findings.add("visible file without an end", path.display().to_string());
            }
            parts.push(Part { generation, incarnation, subtask, counter, name, text });
        }
        parts.sort_by_key(|part| (part.generation, part.incarnation, part.subtask, part.counter));
        parts
    }

    fn leftovers(&self) -> Vec<String> {
        let unfinished = |name: &String| name.starts_with('.') && name.ends_with(".inprogress");
        names(&self.directory).into_iter().filter(unfinished).collect()
    }

    fn incarnations(&self) -> BTreeSet<u64> {
        self.visible().iter().filter_map(|name| parse(name)).map(|(_, [incarnation, ..])| incarnation).collect()
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Writer; incarnation, subtask, counter.
fn parse(name: &str) -> Option<(&str, [u64; 3])> {
    let stem = name.strip_prefix("part-")?.strip_suffix(".json")?;
    let (writer, numbers) = stem.split_once('-')?;
    let mut numbers = numbers.splitn(3, '-').map(|number| number.parse().ok());
    Some((writer, [numbers.next()??, numbers.next()??, numbers.next()??]))
}
