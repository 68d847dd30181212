//! From `WITH (…)` text to typed options.
use std::collections::BTreeMap;

/// A table's options as text, and which of them have been asked for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub entries: BTreeMap<String, String>,
}

/// What is wrong with one option.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct OptionError {
    /// The option's key, for the caller to point at in the SQL text.
    pub key: String,
    pub message: String,
}

pub fn parse_duration_ms(_text: &str) -> Option<u64> { None }
pub fn parse_memory_bytes(_text: &str) -> Option<u64> { None }
