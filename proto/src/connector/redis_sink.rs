//! `'connector' = 'redis'` of a table that is written: where the server is, and what becomes of a row there.
//!
//! Strings and hashes are upserted by the table's PRIMARY KEY and take updates and deletions; streams and channels only
//! take rows that are inserted. Option names are those of Flink's JDBC sink where they mean the same.

use super::options::{OptionError, Options};
use super::redis::RedisServer;
use super::{Format, format, redis};
use crate::schema::Schema;
use serde::{Deserialize, Serialize};

const FLUSH_ROWS: u64 = 1_000;
const FLUSH_MS: u64 = 1_000;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RedisSink {
    pub server: RedisServer,
    pub mode: RedisMode,
    /// `'key'`: the one stream or channel that all rows go to. None: the PRIMARY KEY's values make the key.
    pub key: Option<String>,
    /// `'key.prefix'`, before the key's values.
    pub key_prefix: String,
    /// `'key.separator'`, between them.
    pub key_separator: String,
    /// `'ttl'`: a key that is not written again for this long expires.
    pub ttl_ms: Option<u64>,
    /// `'stream.maxlen'`: about so many entries are kept of a stream.
    pub stream_maxlen: Option<u64>,
    /// `'sink.buffer-flush.max-rows'`.
    pub flush_rows: u64,
    /// `'sink.buffer-flush.interval'`; 0: only by rows and at checkpoints.
    pub flush_interval_ms: u64,
    /// `'sink.delivery-guarantee' = 'exactly-once'`: rows are written when their checkpoint is recorded.
    pub exactly_once: bool,
    /// `'sink.max-retries'` of one batch. None: for ever, with back-pressure.
    pub max_retries: Option<u32>,
}

/// What a row becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RedisMode {
    /// `SET`: the row in the table's format, or the only column that is not of the key as text. Deletions: `DEL`.
    String,
    /// `HSET`: a field for each column that is not of the key, as text; NULL is no field. Deletions: `DEL`.
    Hash,
    /// `XADD`: an entry with a field for each column, or with one field `value` that holds the row in the format.
    Stream,
    /// `PUBLISH`: the row in the format, or its only column as text. Whoever listens then gets it.
    Pubsub,
}

impl RedisMode {
    pub const fn name(self) -> &'static str {
        match self {
            RedisMode::String => "string",
            RedisMode::Hash => "hash",
            RedisMode::Stream => "stream",
            RedisMode::Pubsub => "pubsub",
        }
    }

    /// Rows are known by their key, so that the same row twice is one.
    pub const fn upserts(self) -> bool {
        matches!(self, RedisMode::String | RedisMode::Hash)
    }

    pub(super) fn parse(text: &str) -> Option<RedisMode> {
        let all = [RedisMode::String, RedisMode::Hash, RedisMode::Stream, RedisMode::Pubsub];
        all.into_iter().find(|mode| mode.name().eq_ignore_ascii_case(text))
    }
}

impl RedisSink {
    /// `schema` without `_op`; `primary_key`: the columns of the table's PRIMARY KEY.
    pub(super) fn parse(
        options: &mut Options,
        schema: &Schema,
        primary_key: &[String],
    ) -> Result<(RedisSink, Option<Format>), OptionError> {
        let server = RedisServer::parse(options)?;
        const MODES: &str = "'string', 'hash', 'stream' or 'pubsub'";
        let Some(mode) = options.parsed("mode", MODES, RedisMode::parse)? else {
            return Err(options.error("mode", format!("option 'mode' is missing, expected {MODES}")));
        };
        let (key_prefix, key_separator) = redis::key(options);
        let sink = RedisSink {
            server,
            mode,
            key: options.take("key"),
            key_prefix,
            key_separator,
            ttl_ms: options.parsed("ttl", "a duration of at least 1 ms like '10 min', '7 d'", |text| {
                super::parse_duration_ms(text).filter(|ms| (1..=1 << 52).contains(ms))
            })?,
            stream_maxlen: options.positive("stream.maxlen")?,
            flush_rows: options.positive("sink.buffer-flush.max-rows")?.unwrap_or(FLUSH_ROWS),
            flush_interval_ms: options.duration_ms("sink.buffer-flush.interval")?.unwrap_or(FLUSH_MS),
            exactly_once: options
                .parsed("sink.delivery-guarantee", "'at-least-once' or 'exactly-once'", |text| match text {
                    "at-least-once" => Some(false),
                    "exactly-once" => Some(true),
                    _ => None,
                })?
                .unwrap_or(false),
            max_retries: options.number("sink.max-retries", "a whole number, or nothing to try for ever")?,
        };
        // What concerns this table where it is looked up is checked there.
        options.with_prefix("lookup.");
        sink.check_key(options, schema, primary_key)?;
        sink.check_mode(options)?;
        let format = sink.format(options, schema, primary_key)?;
        Ok((sink, format))
    }

    fn check_key(&self, options: &Options, schema: &Schema, primary_key: &[String]) -> Result<(), OptionError> {
        let mode = self.mode.name();
        match (&self.key, primary_key) {
            (Some(_), _) if self.mode.upserts() => {
                let what =
                    format!("option 'key': '{mode}' takes it from the PRIMARY KEY, expected 'key.prefix' or none");
                return Err(options.error("key", what));
            }
            (None, []) if self.mode.upserts() => {
                let what = format!(
                    "option 'mode': '{mode}' needs to know the rows' keys, expected a PRIMARY KEY (…) NOT ENFORCED"
                );
                return Err(options.error("mode", what));
            }
            (None, []) => {
                let what = format!(
                    "option 'key' is missing, expected the name of a {mode}, or a PRIMARY KEY for one each key"
                );
                return Err(options.error("key", what));
            }
            (Some(_), [_, ..]) => {
                let what = "option 'key': the PRIMARY KEY makes the keys of this table, expected one of both";
                return Err(options.error("key", what.into()));
            }
            (Some(key), []) if key.is_empty() => return Err(options.unaccepted("key", key, "a name")),
            (Some(_), []) | (None, _) => {}
        }
        let keys = schema.fields.iter().filter(|field| primary_key.contains(&field.name));
        match keys.clone().find(|field| !field.ty.has_text()) {
            Some(field) => {
                let what = format!("PRIMARY KEY column `{}` is {}, which has no text for a key", field.name, field.ty);
                Err(options.error("connector", what))
            }
            None => Ok(()),
        }
    }

    fn check_mode(&self, options: &Options) -> Result<(), OptionError> {
        let mode = self.mode.name();
        if self.stream_maxlen.is_some() && self.mode != RedisMode::Stream {
            let what = format!("option 'stream.maxlen': found 'mode' = '{mode}', expected it with 'stream' only");
            return Err(options.error("stream.maxlen", what));
        }
        if self.exactly_once && !self.mode.upserts() {
            let what = format!("option 'sink.delivery-guarantee': '{mode}' has no keys, expected 'at-least-once'");
            return Err(options.error("sink.delivery-guarantee", what));
        }
        if self.ttl_ms.is_some() && self.mode == RedisMode::Pubsub {
            let what = "option 'ttl': a channel keeps nothing, expected it with 'string', 'hash' or 'stream'";
            return Err(options.error("ttl", what.into()));
        }
        Ok(())
    }

    /// How a whole row is written. None: as text, column by column.
    fn format(
        &self,
        options: &mut Options,
        schema: &Schema,
        primary_key: &[String],
    ) -> Result<Option<Format>, OptionError> {
        let (mode, found) = (self.mode.name(), options.peek("format").map(str::to_owned));
        let Some(found) = found else {
            let values = schema.fields.iter().filter(|field| !primary_key.contains(&field.name));
            let names: Vec<&str> = values.map(|field| field.name.as_str()).collect();
            let what = match self.mode {
                RedisMode::String | RedisMode::Pubsub if names.len() != 1 => format!(
                    "option 'format' is missing, expected 'json': without one '{mode}' holds the text of one column, and \
                     there are {} ({}) besides the key",
                    names.len(),
                    names.join(", ")
                ),
                RedisMode::Hash if names.is_empty() => {
                    "option 'mode': 'hash' needs columns besides the PRIMARY KEY, expected 'string' with a 'format'"
                        .into()
                }
                _ => return Ok(None),
            };
            return Err(options.error(if self.mode == RedisMode::Hash { "mode" } else { "format" }, what));
        };
        if self.mode == RedisMode::Hash {
            let what = format!("option 'format': found '{found}', expected none: the fields of a hash are text");
            return Err(options.error("format", what));
        }
        if matches!(found.as_str(), "changelog-json" | "debezium-json") {
            return Err(options.unaccepted("format", &found, "a format of the row itself like 'json'"));
        }
        format::sink(options, schema, false).map(Some)
    }
}

#[cfg(test)]
mod tests;
