//! From `WITH (…)` text to typed connectors. Flink's option names where Flink has one.
//!
//! A table may be read by one statement and written by another, so a `filesystem` table may carry the options of
//! both directions; each is checked and only the asked-for side is returned.

use super::mqtt::Mqtt;
use super::options::{OptionError, Options};
use super::{Compression, FilesystemSink, FilesystemSource, Format, SinkConnector, SourceConnector};
use super::{Datagen, HttpSink, KafkaSink, KafkaSource, MqttKey, Nexmark, RedisSink, format};
use crate::place::{Constraint, Selector, Tier};
use crate::schema::Schema;
use serde::{Deserialize, Serialize};

const SPLIT_BYTES: u64 = 16 << 20;
const ROLLING_BYTES: u64 = 128 << 20;
const ROLLING_MS: u64 = 30 * 60 * 1_000;

/// What any source table may say besides its connector's own options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceCommon {
    /// `'late.table'`: where late rows of window operators over this source go.
    pub late_table: Option<String>,
    /// `'error.table'`: where undecodable rows go, whole; makes the format skip them, also where it would ignore fields.
    pub error_table: Option<String>,
    /// `'scan.watermark.idle-timeout'`. None: never idle.
    pub idle_timeout_ms: Option<u64>,
    /// `'tier'` and `'site.selector'`: where the table is.
    pub constraint: Constraint,
}

impl SourceCommon {
    /// For sinks too: there only the constraint means anything.
    pub fn parse(options: &mut Options) -> Result<SourceCommon, OptionError> {
        let tier = options.parsed("tier", "'device', 'gateway', 'regional' or 'cloud'", Tier::parse)?;
        let selector = options.parsed("site.selector", "labels with their values like 'plant=a,line=*'", |text| {
            Selector::parse(text).ok().filter(|selector| !selector.is_empty())
        })?;
        let late_table = options.take("late.table");
        let error_table = options.take("error.table");
        let idle_timeout_ms = options.duration_ms("scan.watermark.idle-timeout")?.filter(|ms| *ms > 0);
        let constraint = Constraint { tier, selector: selector.unwrap_or_default() };
        Ok(SourceCommon { late_table, error_table, idle_timeout_ms, constraint })
    }
}

impl SourceConnector {
    /// The connector and format of a table that is read. `physical`: all columns that the connector delivers.
    pub fn parse(options: &mut Options, physical: &Schema) -> Result<(SourceConnector, Option<Format>), OptionError> {
        const EXPECTED: &str = "'filesystem', 'kafka', 'mqtt', 'datagen' or 'nexmark' (for a table that is read)";
        let connector = options.require("connector", EXPECTED)?;
        match connector.as_str() {
            "filesystem" => {
                let files = Filesystem::parse(options)?;
                let mut format = format::source(options, physical)?;
                format.check_lines(options, physical)?;
                if options.peek("error.table").is_some() {
                    format.skip_errors();
                }
                Ok((SourceConnector::Filesystem(files.source), Some(format)))
            }
            "mqtt" => {
                let source = Mqtt::source(options, physical)?;
                let mut format = format::source(options, physical)?;
                if options.peek("error.table").is_some() {
                    format.skip_errors();
                }
                Ok((SourceConnector::Mqtt(source), Some(format)))
            }
            "datagen" => Ok((SourceConnector::Datagen(Datagen::parse(options, physical)?), None)),
            "nexmark" => Ok((SourceConnector::Nexmark(Nexmark::parse(options, physical)?), None)),
            "kafka" => {
                let (kafka, format) = KafkaSource::parse(options, physical)?;
                Ok((SourceConnector::Kafka(kafka), Some(format)))
            }
            "upsert-kafka" => {
                let what = "option 'connector': 'upsert-kafka' can be written, not read, expected 'kafka' (whose source \
                            passes over tombstones)";
                Err(options.error("connector", what.into()))
            }
            other => Err(options.unaccepted("connector", other, EXPECTED)),
        }
    }

    /// Whether columns that nobody reads can be left out of keys.
    pub fn prunes_keys(&self) -> bool {
        match self {
            SourceConnector::Kafka(kafka) => kafka.key.as_ref().is_none_or(|key| key.is_by_name()),
            _ => true,
        }
    }

    /// A physical column that the connector itself reads, whoever else does.
    pub fn own_column(&self) -> Option<&str> {
        match self {
            SourceConnector::Mqtt(mqtt) => match &mqtt.dedup.as_ref()?.key {
                MqttKey::Column(name) => Some(name),
                MqttKey::UserProperty(_) => None,
            },
            _ => None,
        }
    }

    /// Keeps what the columns at these positions of the physical schema need, in this order: call it when the
    /// physical schema is pruned.
    pub fn prune(&mut self, keep: &[usize]) {
        match self {
            SourceConnector::Datagen(datagen) => {
                datagen.fields = keep.iter().map(|column| datagen.fields[*column].clone()).collect();
            }
            SourceConnector::Kafka(kafka) => kafka.prune(keep),
            SourceConnector::Filesystem(_) | SourceConnector::Nexmark(_) | SourceConnector::Mqtt(_) => {}
        }
    }
}

/// What a sink does about rows that are updated and deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changelog {
    /// It takes inserted rows only.
    Refused,
    /// It writes every change, with its kind.
    Raw,
    /// It keeps the table as it is: writes the newest row of a primary key and removes deleted ones. All rows of a key
    /// must come to one of its subtasks, in order.
    Upsert,
}

impl SinkConnector {
    pub const fn takes_changelog(&self) -> Changelog {
        match self {
            // Formats without row kinds are refused where the format is parsed.
            SinkConnector::Filesystem(_) => Changelog::Raw,
            SinkConnector::Print { .. } | SinkConnector::Stdout | SinkConnector::Blackhole => Changelog::Raw,
            SinkConnector::Kafka(kafka) if kafka.upsert => Changelog::Upsert,
            SinkConnector::Kafka(_) | SinkConnector::Mqtt(_) => Changelog::Raw,
            SinkConnector::Redis(redis) if redis.mode.upserts() => Changelog::Upsert,
            SinkConnector::Redis(_) | SinkConnector::Http(_) => Changelog::Refused,
        }
    }

    /// The connector and format of a table that is written. `schema` without `_op`; `primary_key`: names of the columns
    /// of the table's PRIMARY KEY; `changelog`: rows carry `_op`.
    pub fn parse(
        options: &mut Options,
        schema: &Schema,
        primary_key: &[String],
        changelog: bool,
    ) -> Result<(SinkConnector, Option<Format>), OptionError> {
        const EXPECTED: &str = "'filesystem', 'kafka', 'upsert-kafka', 'mqtt', 'redis', 'http', 'print' or 'blackhole' (for a table \
                                that is written)";
        let connector = options.require("connector", EXPECTED)?;
        match connector.as_str() {
            "filesystem" => {
                let files = Filesystem::parse(options)?;
                let format = format::sink(options, schema, changelog)?;
                format.check_lines(options, schema)?;
                Ok((SinkConnector::Filesystem(files.sink), Some(format)))
            }
            "mqtt" => {
                let sink = Mqtt::sink(options, schema)?;
                Ok((SinkConnector::Mqtt(sink), Some(format::sink(options, schema, changelog)?)))
            }
            "print" => Ok((SinkConnector::Print { prefix: options.take("print-identifier") }, None)),
            "blackhole" => Ok((SinkConnector::Blackhole, None)),
            "kafka" | "upsert-kafka" => {
                let upsert = connector == "upsert-kafka";
                let kafka = KafkaSink::parse(options, schema, primary_key, changelog, upsert)?;
                let format = kafka.value_format.clone();
                Ok((SinkConnector::Kafka(Box::new(kafka)), Some(format)))
            }
            "redis" => {
                let (redis, format) = RedisSink::parse(options, schema, primary_key)?;
                Ok((SinkConnector::Redis(redis), format))
            }
            "http" => {
                let (http, format) = HttpSink::parse(options, schema)?;
                Ok((SinkConnector::Http(http), Some(format)))
            }
            other => Err(options.unaccepted("connector", other, EXPECTED)),
        }
    }
}

struct Filesystem {
    source: FilesystemSource,
    sink: FilesystemSink,
}

impl Filesystem {
    fn parse(options: &mut Options) -> Result<Filesystem, OptionError> {
        let path = options.require("path", "a file, a directory or a glob")?;
        let local = path.strip_prefix("file://").unwrap_or(&path).to_owned();
        if local.is_empty() || local.contains("://") {
            return Err(options.unaccepted("path", &path, "a local file, directory or glob"));
        }
        let monitor_interval_ms =
            options.parsed("source.monitor-interval", "a duration of at least 1 ms like '500 ms', '5 s'", |text| {
                super::parse_duration_ms(text).filter(|ms| *ms > 0)
            })?;
        let compression = options.parsed("compression", "'auto', 'none', 'gzip' or 'zstd'", |text| {
            Some(match text.to_ascii_lowercase().as_str() {
                "auto" => Compression::Auto,
                "none" => Compression::None,
                "gzip" => Compression::Gzip,
                "zstd" => Compression::Zstd,
                _ => return None,
            })
        })?;
        let compression = compression.unwrap_or(Compression::Auto);
        let size = |options: &mut Options, key, default| {
            let parsed = options.parsed(key, "a size of at least 1 kb like '64 kb', '128 mb', '1 gb'", |text| {
                super::parse_memory_bytes(text).filter(|bytes| *bytes >= 1 << 10)
            });
            parsed.map(|bytes| bytes.unwrap_or(default))
        };
        let split_bytes = size(options, "source.split-size", SPLIT_BYTES)?;
        let rolling_bytes = size(options, "sink.rolling-policy.file-size", ROLLING_BYTES)?;
        let rolling_interval_ms = options.duration_ms("sink.rolling-policy.rollover-interval")?.unwrap_or(ROLLING_MS);
        Ok(Filesystem {
            source: FilesystemSource { path: local.clone(), monitor_interval_ms, compression, split_bytes },
            sink: FilesystemSink { path: local, rolling_bytes, rolling_interval_ms, compression },
        })
    }
}

#[cfg(test)]
mod tests;
