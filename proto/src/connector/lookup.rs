//! Tables that are looked up by key while a stream passes: `JOIN t FOR SYSTEM_TIME AS OF o.proc_time AS d ON …`. Their
//! options are parsed here; which columns make the key follows from the options, the primary key and the comparisons of
//! the join. Flink's option names where Flink has one.
//!
//! Whether a server is there is the worker's business.

use super::options::{OptionError, Options};
use super::{Format, Json, OnError, RedisMode, RedisServer, format, http, redis};
use crate::schema::Schema;
use crate::secret::Template;
use serde::{Deserialize, Serialize};

/// Connectors that can be looked up, for messages.
pub const LOOKUP_CONNECTORS: [&str; 2] = ["redis", "http"];

/// `SET 'table.exec.async-lookup.buffer-capacity'` and `.timeout` when nobody has set them (Flink's).
pub const CAPACITY_DEFAULT: u32 = 100;
pub const TIMEOUT_MS_DEFAULT: u64 = 3 * 60 * 1_000;

const CACHE_BYTES: u64 = 16 << 20;
const MAX_RETRIES: u32 = 3;
const REQUEST_MS: u64 = 10_000;
const RESPONSE_BYTES: u64 = 1 << 20;

/// Where rows are looked up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum LookupConnector {
    Redis(RedisLookup),
    Http(HttpLookup),
}

/// A Redis database: one value or hash for each row, by a key made of the row's key columns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RedisLookup {
    pub server: RedisServer,
    pub mode: RedisLookupMode,
    /// `'key.prefix'`, before the key columns.
    pub key_prefix: String,
    /// `'key.separator'`, between the key columns.
    pub key_separator: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RedisLookupMode {
    /// `GET`: the value holds the other columns in the table's format, or is the text of the only one.
    String,
    /// `HMGET`: each other column is a field of the hash, as text.
    Hash,
}

/// A web service that answers `GET url` with a JSON object (one row), an array of objects (as many rows), or 404.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HttpLookup {
    /// With `{column}` where a key column goes; without any, key columns become query parameters.
    pub url: Template,
    /// `'headers.<name>'` or `'http.header.<name>'`.
    pub headers: Vec<(String, Template)>,
    pub connect_timeout_ms: u64,
    /// Of one attempt.
    pub request_timeout_ms: u64,
    pub response_bytes_max: u64,
}

/// What is common to all lookups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupOptions {
    /// None: `'lookup.cache' = 'NONE'`.
    pub cache: Option<LookupCache>,
    /// Attempts after the first that fails.
    pub max_retries: u32,
    /// Keys that are asked for at the same time, by one subtask.
    pub capacity: u32,
    /// For one key, all attempts together.
    pub timeout_ms: u64,
}

/// `'lookup.cache' = 'PARTIAL'`: answers are kept, the least recently used go first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupCache {
    pub rows_max: Option<u64>,
    pub bytes_max: u64,
    pub expire_after_write_ms: Option<u64>,
    pub expire_after_access_ms: Option<u64>,
    /// Keeps also that there is no row for a key.
    pub missing_keys: bool,
}

impl LookupOptions {
    /// `capacity`, `timeout_ms`: for tables that say nothing.
    pub fn parse(options: &mut Options, capacity: u32, timeout_ms: u64) -> Result<LookupOptions, OptionError> {
        const CACHE: &str = "lookup.cache";
        let partial =
            options.parsed(CACHE, "'NONE' or 'PARTIAL'", |text| match text.to_ascii_uppercase().as_str() {
                "NONE" => Some(false),
                "PARTIAL" => Some(true),
                _ => None,
            })?;
        const PREFIX: &str = "lookup.partial-cache.";
        const KEYS: [&str; 5] =
            ["max-rows", "max-bytes", "expire-after-write", "expire-after-access", "cache-missing-key"];
        let given = KEYS.iter().map(|key| format!("{PREFIX}{key}")).find(|key| options.peek(key).is_some());
        if let Some(key) = given.filter(|_| partial != Some(true)) {
            let what = format!("option '{key}' is set and '{CACHE}' is not, expected '{CACHE}' = 'PARTIAL'");
            return Err(options.error(&key, what));
        }
        let key = |name: &str| format!("{PREFIX}{name}");
        let rows_max = options.positive(&key("max-rows"))?;
        let bytes_max = options.memory_bytes(&key("max-bytes"))?.unwrap_or(CACHE_BYTES);
        let expire_after_write_ms = options.duration_ms(&key("expire-after-write"))?.filter(|ms| *ms > 0);
        let expire_after_access_ms = options.duration_ms(&key("expire-after-access"))?.filter(|ms| *ms > 0);
        let missing_keys = options.boolean(&key("cache-missing-key"), true)?;
        let cache = LookupCache { rows_max, bytes_max, expire_after_write_ms, expire_after_access_ms, missing_keys };
        let max_retries = options.number("lookup.max-retries", "a whole number of at least 0")?.unwrap_or(MAX_RETRIES);
        let own_capacity =
            options.parsed("lookup.async.buffer-capacity", "a whole number from 1 to 100000", |text| {
                text.trim().parse().ok().filter(|n| (1..=100_000).contains(n))
            })?;
        let own_timeout = options.duration_ms("lookup.async.timeout")?.filter(|ms| *ms > 0);
        Ok(LookupOptions {
            cache: (partial == Some(true)).then_some(cache),
            max_retries,
            capacity: own_capacity.unwrap_or(capacity),
            timeout_ms: own_timeout.unwrap_or(timeout_ms),
        })
    }
}

impl LookupConnector {
    /// The connector and format of a table that is looked up. `physical`: all columns that it has.
    pub fn parse(options: &mut Options, physical: &Schema) -> Result<(LookupConnector, Option<Format>), OptionError> {
        const EXPECTED: &str = "'redis' or 'http' (for a table that is looked up)";
        let connector = options.require("connector", EXPECTED)?;
        let parsed = match connector.as_str() {
            "redis" => {
                let redis = RedisLookup::parse(options)?;
                let format = match (redis.mode, options.peek("format")) {
                    (RedisLookupMode::String, Some(_)) => Some(json(options, physical)?),
                    (RedisLookupMode::String, None) => None,
                    (RedisLookupMode::Hash, None) => None,
                    (RedisLookupMode::Hash, Some(format)) => {
                        let what =
                            format!("option 'format': found '{format}', expected none: fields of a hash are text");
                        return Err(options.error("format", what));
                    }
                };
                (LookupConnector::Redis(redis), format)
            }
            "http" => (LookupConnector::Http(HttpLookup::parse(options, physical)?), Some(json(options, physical)?)),
            other => return Err(options.unaccepted("connector", other, EXPECTED)),
        };
        // What the table's sink side takes is checked where it is written.
        options.with_prefix("sink.");
        for key in ["ttl", "stream.maxlen", "method"] {
            options.take(key);
        }
        Ok(parsed)
    }

    /// The columns of the key, in its order: what the address names, else the PRIMARY KEY, else what the rows are joined by.
    /// `compared`: the columns that the join compares for equality, in declared order; `joined`: those of them that it compares
    /// with columns of the rows. What is no key is a condition of the pair. Err: the one that is missing.
    pub fn keys(&self, primary_key: &[String], compared: &[String], joined: &[String]) -> Result<Vec<String>, String> {
        let named = match self {
            LookupConnector::Http(http) => http.placeholders(),
            LookupConnector::Redis(_) => Vec::new(),
        };
        // Somebody may ask for one row only.
        let joined = if joined.is_empty() { compared } else { joined };
        let wanted = [&named[..], primary_key, joined].into_iter().find(|names| !names.is_empty());
        let wanted = wanted.unwrap_or_default().to_vec();
        match wanted.iter().find(|name| !compared.contains(name)) {
            Some(missing) => Err(missing.clone()),
            None => Ok(wanted),
        }
    }

    /// Whether an answer without a format can be told apart into columns: `values`, those that are not of the key.
    pub fn fits(&self, format: Option<&Format>, values: &Schema) -> Result<(), String> {
        let LookupConnector::Redis(redis) = self else { return Ok(()) };
        if format.is_some() {
            return Ok(());
        }
        if redis.mode == RedisLookupMode::String && values.len() > 1 {
            let names: Vec<&str> = values.fields.iter().map(|field| field.name.as_str()).collect();
            return Err(format!("one value for the columns {}, expected a 'format' = 'json'", names.join(", ")));
        }
        match values.fields.iter().find(|field| !field.ty.has_text()) {
            Some(field) => Err(format!("column `{}` of type {} cannot be read from text", field.name, field.ty)),
            None => Ok(()),
        }
    }

    /// For people: `redis 'redis://…'`. Templates show the names of secrets, not their values.
    pub fn describe(&self) -> String {
        match self {
            LookupConnector::Redis(redis) => format!("redis '{}'", redis.server.describe()),
            LookupConnector::Http(http) => format!("http '{}'", http.url),
        }
    }
}

impl RedisLookup {
    fn parse(options: &mut Options) -> Result<RedisLookup, OptionError> {
        let server = RedisServer::parse(options)?;
        const MODES: &str = "'string' or 'hash' (for a table that is looked up)";
        let mode = options.parsed("mode", MODES, |text| match RedisMode::parse(text)? {
            RedisMode::String => Some(RedisLookupMode::String),
            RedisMode::Hash => Some(RedisLookupMode::Hash),
            RedisMode::Stream | RedisMode::Pubsub => None,
        })?;
        let (key_prefix, key_separator) = redis::key(options);
        Ok(RedisLookup { server, mode: mode.unwrap_or(RedisLookupMode::String), key_prefix, key_separator })
    }
}

/// A piece of an HTTP lookup's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UrlPiece {
    /// May name secrets.
    Text(String),
    /// A key column's value goes here.
    Column(String),
}

impl HttpLookup {
    fn parse(options: &mut Options, physical: &Schema) -> Result<HttpLookup, OptionError> {
        let url = http::url(options, "an address like 'https://host/path/{column}'")?;
        let fail = |options: &Options, what: String| Err(options.error("url", format!("option 'url': {what}")));
        let pieces = match url_pieces(url.as_str()) {
            Ok(pieces) => pieces,
            Err(what) => return fail(options, what),
        };
        // Data must not choose the server.
        let path_starts = |text: &str| text.split_once("://").is_some_and(|(_, rest)| rest.contains(['/', '?']));
        match pieces.as_slice() {
            [UrlPiece::Text(first), _, ..] if !path_starts(first) => {
                return fail(options, format!("found '{url}', expected '{{column}}' behind the host's name only"));
            }
            _ => {}
        }
        for piece in &pieces {
            let UrlPiece::Column(name) = piece else { continue };
            match physical.index_of(name).map(|at| &physical.fields[at]) {
                None => {
                    let names: Vec<&str> = physical.fields.iter().map(|field| field.name.as_str()).collect();
                    return fail(options, format!("found '{{{name}}}', expected one of {}", names.join(", ")));
                }
                Some(field) if !field.ty.has_text() => {
                    return fail(options, format!("column `{name}` is {}, which has no text", field.ty));
                }
                Some(_) => {}
            }
        }
        let headers = http::headers(options)?;
        let response_bytes_max = options.memory_bytes("lookup.response.max-bytes")?.filter(|bytes| *bytes > 0);
        Ok(HttpLookup {
            url,
            headers,
            connect_timeout_ms: options.timeout_ms("connect.timeout", http::CONNECT_MS)?,
            request_timeout_ms: options.timeout_ms("request.timeout", REQUEST_MS)?,
            response_bytes_max: response_bytes_max.unwrap_or(RESPONSE_BYTES),
        })
    }

    /// Key columns in the address, each once.
    fn placeholders(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for piece in url_pieces(self.url.as_str()).unwrap_or_default() {
            if let UrlPiece::Column(name) = piece
                && !names.contains(&name)
            {
                names.push(name);
            }
        }
        names
    }
}

/// Splits an address at its `{column}`s; what stands in `${…}` is a secret and stays where it is.
pub fn url_pieces(url: &str) -> Result<Vec<UrlPiece>, String> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = url;
    while let Some(at) = rest.find('{') {
        let Some(end) = rest[at..].find('}').map(|end| at + end) else {
            return Err(format!("'{url}' does not close its '{{'"));
        };
        if rest[..at].ends_with('$') {
            text.push_str(&rest[..=end]);
        } else {
            text.push_str(&rest[..at]);
            if !text.is_empty() {
                pieces.push(UrlPiece::Text(std::mem::take(&mut text)));
            }
            pieces.push(UrlPiece::Column(rest[at + 1..end].to_owned()));
        }
        rest = &rest[end + 1..];
    }
    text.push_str(rest);
    if !text.is_empty() {
        pieces.push(UrlPiece::Text(text));
    }
    Ok(pieces)
}

/// JSON, whose bad values fail the lookup: there is no other place for them.
fn json(options: &mut Options, physical: &Schema) -> Result<Format, OptionError> {
    const EXPECTED: &str = "'json' (for a table that is looked up)";
    match options.peek("format").map(str::to_owned) {
        Some(name) if name == "json" => {}
        Some(other) => return Err(options.unaccepted("format", &other, EXPECTED)),
        None => return Err(options.error("format", format!("option 'format' is missing, expected {EXPECTED}"))),
    }
    let format = format::source(options, physical)?;
    if let Format::Json(Json { on_error: OnError::Null | OnError::Skip, .. }) = format {
        let what = "option 'json.ignore-parse-errors': found 'true', expected 'false' (for a table that is looked up)";
        return Err(options.error("json.ignore-parse-errors", what.into()));
    }
    Ok(format)
}

#[cfg(test)]
mod tests;
