//! Typed connector and format options, parsed from a table's `WITH (…)` map.
//!
//! Parsing checks every key and value: an unknown key, a missing one or a bad value is an [`OptionError`] that names
//! the key, what was found and what would be accepted. Whether a path exists is the connector's business.

use crate::schema::Field;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

mod datagen;
mod format;
mod http;
mod http_sink;
pub mod kafka;
pub mod kafka_sink;
pub mod kafka_source;
pub mod lookup;
mod mqtt;
mod nexmark;
mod options;
mod parse;
pub mod protobuf;
mod records;
mod redis;
mod redis_sink;
mod units;
pub use http_sink::{HttpBody, HttpMethod, HttpSink, OnClientError};
pub use kafka::KafkaClient;
pub use kafka_sink::{DeliveryGuarantee, KafkaSink, MarkerLost, SinkPartitioner};
pub use kafka_source::{KafkaBounded, KafkaKey, KafkaReset, KafkaSource, KafkaStartup, KafkaTopics};
pub use mqtt::KEYS_PART as MQTT_KEYS_PART;
pub use mqtt::{
    MqttAck, MqttBroker, MqttConnection, MqttDedup, MqttGap, MqttKey, MqttSink, MqttSource, MqttVersion, TopicPiece,
};
pub use options::{OptionError, Options};
pub use parse::{Changelog, SourceCommon};
pub use records::{Avro, AvroConfluent, DebeziumJson, Protobuf, Raw, RegistryAuth};
pub use redis::RedisServer;
pub use redis_sink::{RedisMode, RedisSink};
pub use units::{parse_boolean, parse_duration_ms, parse_duration_us, parse_instant_ms, parse_memory_bytes};

/// The keys of METADATA columns that a connector has; None for one that there is not.
pub fn metadata_keys(connector: &str) -> Option<&'static [&'static str]> {
    match connector {
        "filesystem" => Some(&["file.path", "file.name", "file.size", "file.modification-time"]),
        "datagen" | "nexmark" | "print" | "blackhole" | "redis" | "http" => Some(&[]),
        "kafka" => Some(kafka_source::METADATA),
        "mqtt" => Some(mqtt::METADATA),
        "upsert-kafka" => Some(&[]),
        _ => None,
    }
}

/// What types a connector's METADATA column can have; None where this one will do.
pub fn metadata_refused(connector: &str, key: &str, field: &Field) -> Option<&'static str> {
    match connector {
        "kafka" => kafka_source::metadata_refused(key, field),
        "mqtt" => mqtt::metadata_refused(key, field),
        _ => None,
    }
}

/// Where a source reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SourceConnector {
    Filesystem(FilesystemSource),
    Datagen(Datagen),
    Nexmark(Nexmark),
    Kafka(KafkaSource),
    Mqtt(MqttSource),
}

/// Where a sink writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SinkConnector {
    Filesystem(FilesystemSink),
    /// Rows to standard output with the table's name before them, Flink's `print`.
    Print {
        prefix: Option<String>,
    },
    /// The bare final SELECT: a table on a terminal, NDJSON otherwise.
    Stdout,
    Blackhole,
    Kafka(Box<KafkaSink>),
    Redis(RedisSink),
    Http(HttpSink),
    Mqtt(MqttSink),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FilesystemSource {
    /// One file, a directory (all files below it whose names start with neither `.` nor `_`), or a glob. Relative to
    /// the working directory of the process that reads.
    pub path: String,
    /// Some: keep following, looking for new files and new lines this often. None: bounded.
    pub monitor_interval_ms: Option<u64>,
    pub compression: Compression,
    /// Uncompressed files larger than this are split for parallel reading. `'source.split-size'`, default 16 MiB.
    pub split_bytes: u64,
}

/// `'compression'`: by the file's ending (`.gz`, `.zst`) unless named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compression {
    Auto,
    None,
    Gzip,
    Zstd,
}

/// Writes `<path>/part-<job>-<incarnation>-<subtask>-<counter>.<ext>`; a file becomes visible (is renamed from its hidden in-progress
/// name) only when the checkpoint that closed it has completed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FilesystemSink {
    pub path: String,
    /// `'sink.rolling-policy.file-size'`, default 128 MiB.
    pub rolling_bytes: u64,
    /// `'sink.rolling-policy.rollover-interval'`, default 30 min.
    pub rolling_interval_ms: u64,
    pub compression: Compression,
}

/// `'connector' = 'datagen'`. Row i is the same whatever the parallelism: its values follow from the seed, the
/// column's name and i alone (but for `Past`, and `EventTime` from `now`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Datagen {
    /// None: as fast as possible.
    pub rows_per_second: Option<u64>,
    /// None: unbounded. A sequence that is shorter ends the source, so this is at most its length.
    pub number_of_rows: Option<u64>,
    pub seed: u64,
    /// One per physical column, in order.
    pub fields: Vec<DatagenField>,
}

/// How a column's values are made. `distinct` draws from that many values only; `null_rate` is the share of NULLs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum DatagenField {
    /// Uniform in [min, max]; for TINYINT to BIGINT.
    Integer { min: i64, max: i64, distinct: Option<u64>, null_rate: f64 },
    /// Uniform in [min, max]; for FLOAT, DOUBLE and DECIMAL (rounded to its scale).
    Float { min: f64, max: f64, distinct: Option<u64>, null_rate: f64 },
    /// That many hexadecimal digits (STRING) or random bytes (BYTES).
    Text { length: u32, distinct: Option<u64>, null_rate: f64 },
    /// The clock minus uniform[0, max_past_ms]; for DATE, TIME, TIMESTAMP and TIMESTAMP_LTZ.
    Past { max_past_ms: u64, null_rate: f64 },
    /// BOOLEAN, ROW, ARRAY, MAP: over the whole range of the type; `length` elements in a collection.
    Any { length: u32, null_rate: f64 },
    /// Row i is `start` + i.
    Sequence { start: i64, end: i64 },
    /// `start_ms` + row number * `step_us` / 1000 - uniform[0, disorder_ms]; for TIMESTAMP and TIMESTAMP_LTZ.
    /// `start_ms` None: the time at which the source started.
    EventTime { start_ms: Option<i64>, step_us: u64, disorder_ms: u64 },
}

/// `'connector' = 'nexmark'`: the auction model of 1 person, 3 auctions, 46 bids in 50 events, with the columns of
/// the Nexmark DDL (`event_type`, `person`, `auction`, `bid`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Nexmark {
    /// `'nexmark.table'`: only these events, with their columns at the top. None: all events, nested.
    pub table: Option<NexmarkTable>,
    /// `'events.num'`, those of other tables included; None: unbounded.
    pub events: Option<u64>,
    /// `'first-event.rate'`: events per second of event time.
    pub event_rate: u64,
    /// `'rows-per-second'`: real-time pace; None: as fast as possible.
    pub rows_per_second: Option<u64>,
    pub seed: u64,
    /// Event time of the first event, ms since the epoch.
    pub base_time_ms: i64,
    /// Arrival is out of order by at most this.
    pub disorder_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NexmarkTable {
    Person,
    Auction,
    Bid,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Format {
    Json(Json),
    Csv(Csv),
    /// Debezium-free changelog: `{"op":"+U","data":{…}}` a line. Sinks of changelogs on `filesystem`.
    ChangelogJson(Json),
    Raw(Raw),
    DebeziumJson(DebeziumJson),
    Protobuf(Protobuf),
    Avro(Avro),
    AvroConfluent(AvroConfluent),
}

/// What happens to a row that cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnError {
    /// Stop the job with file, line and reason (the default).
    Fail,
    /// Count it, write it to the error table if there is one, go on.
    Skip,
    /// `'ignore-parse-errors'` without an error table, as in Flink: a field that cannot be read is NULL, and counted. A
    /// row that is no record at all, or has such a field in a NOT NULL column, is skipped, and counted.
    Null,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Json {
    pub on_error: OnError,
    /// `'json.timestamp-format.standard'`: how timestamps are written. Reading takes both, and epoch milliseconds.
    pub timestamps: TimestampFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimestampFormat {
    /// `2026-03-14 06:59:00.273`
    Sql,
    /// `2026-03-14T06:59:00.273` (`Z` behind TIMESTAMP_LTZ)
    Iso8601,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Csv {
    pub on_error: OnError,
    pub delimiter: u8,
    pub quote: Option<u8>,
    pub escape: Option<u8>,
    /// `'csv.null-literal'`; an empty unquoted field of a non-string column is NULL anyway.
    pub null_literal: Option<String>,
    /// `'csv.allow-comments'`: lines that start with `#` are skipped.
    pub comments: bool,
    /// `'csv.header'`: sources skip the first line of each file, after checking that it names the columns; sinks
    /// write one. Default false.
    pub header: bool,
}

/// A table as its `CREATE TABLE` declared it: options still as text, for the binder and the parsers here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TableOptions {
    pub options: BTreeMap<String, String>,
}
