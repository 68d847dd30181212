//! A table's options as they are taken one by one. Every key that a connector asks for is remembered, so that what is
//! left over is an unknown option, reported with the names that come near it.

use super::units;
use crate::secret::Template;
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

/// What is wrong with one option.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct OptionError {
    /// The option's key, for the caller to point at in the SQL text.
    pub key: String,
    pub message: String,
}

/// A table's options as text, and which of them have been asked for.
#[derive(Clone, Debug)]
pub struct Options {
    table: String,
    left: BTreeMap<String, String>,
    asked: BTreeSet<String>,
}

impl Options {
    pub fn new(table: &str, map: BTreeMap<String, String>) -> Options {
        Options { table: table.to_owned(), left: map, asked: BTreeSet::new() }
    }

    pub fn table(&self) -> &str {
        &self.table
    }

    /// An option that somebody else will take.
    pub fn peek(&self, key: &str) -> Option<&str> {
        self.left.get(key).map(String::as_str)
    }

    pub fn take(&mut self, key: &str) -> Option<String> {
        self.asked.insert(key.to_owned());
        self.left.remove(key)
    }

    /// A key that must be there; `expected` says what would be accepted.
    pub fn require(&mut self, key: &str, expected: &str) -> Result<String, OptionError> {
        match self.take(key) {
            Some(value) => Ok(value),
            None => Err(self.error(key, format!("option '{key}' is missing, expected {expected}"))),
        }
    }

    /// One that `parse` understands; `expected` says what that is.
    pub fn parsed<T>(
        &mut self,
        key: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, OptionError> {
        match self.take(key) {
            None => Ok(None),
            Some(text) => match parse(&text) {
                Some(value) => Ok(Some(value)),
                None => Err(self.unaccepted(key, &text, expected)),
            },
        }
    }

    pub fn number<T: FromStr>(&mut self, key: &str, expected: &str) -> Result<Option<T>, OptionError> {
        self.parsed(key, expected, |text| text.trim().parse().ok())
    }

    /// A count of at least one.
    pub fn positive(&mut self, key: &str) -> Result<Option<u64>, OptionError> {
        self.parsed(key, "a whole number greater than 0", |text| text.trim().parse().ok().filter(|n| *n > 0))
    }

    pub fn boolean(&mut self, key: &str, default: bool) -> Result<bool, OptionError> {
        Ok(self.parsed(key, "'true' or 'false'", units::parse_boolean)?.unwrap_or(default))
    }

    pub fn duration_ms(&mut self, key: &str) -> Result<Option<u64>, OptionError> {
        self.parsed(key, "a duration like '200 ms', '5 s', '10 min', '1 h'", units::parse_duration_ms)
    }

    /// How long somebody is waited for; 0 is no time to do anything in, and means the default.
    pub(super) fn timeout_ms(&mut self, key: &str, default_ms: u64) -> Result<u64, OptionError> {
        Ok(self.duration_ms(key)?.filter(|ms| *ms > 0).unwrap_or(default_ms))
    }

    pub fn memory_bytes(&mut self, key: &str) -> Result<Option<u64>, OptionError> {
        self.parsed(key, "a size like '64 kb', '128 mb', '1 gb'", units::parse_memory_bytes)
    }

    /// Text that may name secrets.
    pub fn template(&mut self, key: &str) -> Result<Option<Template>, OptionError> {
        let Some(text) = self.take(key) else { return Ok(None) };
        let parsed = Template::parse(&text);
        parsed.map(Some).map_err(|error| self.error(key, format!("option '{key}': {error}")))
    }

    /// A password or the like: by reference only. What was found is not repeated.
    pub fn secret(&mut self, key: &str) -> Result<Option<Template>, OptionError> {
        match self.template(key)? {
            Some(template) if !template.is_reference() => {
                let what = format!("option '{key}': found a secret in plain text, expected '${{secret:name}}'");
                Err(self.error(key, what))
            }
            found => Ok(found),
        }
    }

    /// Takes every option whose key begins with `prefix`; the keys come without it.
    pub fn with_prefix(&mut self, prefix: &str) -> Vec<(String, String)> {
        let keys: Vec<String> = self.left.keys().filter(|key| key.starts_with(prefix)).cloned().collect();
        let found = keys.into_iter().filter_map(|key| Some((key[prefix.len()..].to_owned(), self.take(&key)?)));
        found.collect()
    }

    /// Parses options whose keys all carry `prefix` as if they did not: `'value.json.ignore-parse-errors'`. Errors name
    /// the keys as they were written.
    pub(super) fn scoped<T>(
        &mut self,
        prefix: &str,
        parse: impl FnOnce(&mut Options) -> Result<T, OptionError>,
    ) -> Result<T, OptionError> {
        let inside = self.left.iter().filter_map(|(key, value)| Some((key.strip_prefix(prefix)?, value.clone())));
        let mut scope = Options::new(&self.table, inside.map(|(key, value)| (key.to_owned(), value)).collect());
        let parsed = parse(&mut scope);
        self.asked.extend(scope.asked.iter().map(|key| format!("{prefix}{key}")));
        self.left.retain(|key, _| key.strip_prefix(prefix).is_none_or(|key| scope.left.contains_key(key)));
        parsed.map_err(|error| OptionError {
            message: error
                .message
                .replace(&format!("option '{}'", error.key), &format!("option '{prefix}{}'", error.key)),
            key: format!("{prefix}{}", error.key),
        })
    }

    /// Finds nothing left that nobody asked for.
    pub fn finish(self) -> Result<(), OptionError> {
        let Some((key, _)) = self.left.first_key_value() else { return Ok(()) };
        let near = self.near(key);
        let hint = if near.is_empty() {
            let known: Vec<_> = self.asked.iter().map(|name| format!("'{name}'")).collect();
            format!("this table takes {}", known.join(", "))
        } else {
            format!("did you mean {}", near.join(" or "))
        };
        Err(self.error(key, format!("unknown option '{key}', {hint}")))
    }

    pub(super) fn unaccepted(&self, key: &str, found: &str, expected: &str) -> OptionError {
        self.error(key, format!("option '{key}': found '{found}', expected {expected}"))
    }

    pub(super) fn error(&self, key: &str, what: String) -> OptionError {
        OptionError { key: key.to_owned(), message: format!("table `{}`: {what}", self.table) }
    }

    /// At most three names that were asked for and look like `key`, the nearest first.
    fn near(&self, key: &str) -> Vec<String> {
        let last = key.rsplit(['.', '-']).next().unwrap_or(key);
        let mut ranked: Vec<(usize, &String)> = self
            .asked
            .iter()
            .map(|name| (distance(key, name), name))
            .filter(|(far, name)| *far <= 2.max(key.len() / 3) || name.split(['.', '-']).any(|part| part == last))
            .collect();
        ranked.sort();
        ranked.into_iter().take(3).map(|(_, name)| format!("'{name}'")).collect()
    }
}

/// Edits (insert, delete, replace) between two names.
pub(super) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + (x != *y) as usize;
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
