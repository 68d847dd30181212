//! What a check found to be wrong: the first few of each kind in words, the rest as a number.

use std::collections::BTreeMap;

const TOLD: usize = 5;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    kinds: BTreeMap<String, Kind>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Kind {
    count: usize,
    first: Vec<String>,
}

impl Findings {
    pub fn add(&mut self, kind: &str, what: String) {
        let kind = self.kinds.entry(kind.to_string()).or_default();
        kind.count += 1;
        if kind.first.len() < TOLD {
            kind.first.push(what);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// How often each kind was found.
    pub fn counts(&self) -> BTreeMap<&str, usize> {
        self.kinds.iter().map(|(name, kind)| (name.as_str(), kind.count)).collect()
    }

    /// Err: all of it as text, with the seed that repeats it.
    pub fn verdict(&self, seed: u64) -> Result<(), String> {
        if self.is_empty() {
            return Ok(());
        }
        let mut text = format!("EDGEFLOW_SEED={seed}: what was written is not what was to be written");
        for (name, Kind { count, first }) in &self.kinds {
            text += &format!("\n  {name}: {count}");
            first.iter().for_each(|what| text += &format!("\n    {what}"));
            if *count > first.len() {
                text += "\n    …";
            }
        }
        Err(text)
    }
}
