//! `'connector' = 'mqtt'`: typed options. Flink has no MQTT connector of its own; the names follow its style.
//!
//! A table may be read and written, so options of both directions are checked and the asked-for side is returned.
//! The rules of topic names and filters are MQTT's (v5 §4.7).

use super::options::{OptionError, Options};
use crate::schema::{DataType, Field, Schema, Unit};
use crate::secret::Template;
use serde::{Deserialize, Serialize};

const SESSION_EXPIRY_MS: u64 = 7 * 86_400_000;
const KEEP_ALIVE_MS: u64 = 30_000;
const INFLIGHT: u16 = 4_096;
const LOG_BYTES: u64 = 1 << 30;
/// Below this there is no room for two segments of the log.
const LOG_BYTES_MIN: u64 = 4 << 20;
/// With keys at least room for twice what may be under way, in the part that keys have, of this size each.
const REDELIVERED_BYTES: u64 = 512;
/// The messages whose keys are kept take at most this part of the log, or a full one could never be emptied: none would come in
/// to age them.
pub const KEYS_PART: u64 = 2;
const DEDUP_WINDOW_MS: u64 = 10 * 60_000;
const DEDUP_BYTES: u64 = 32 << 20;
const DEDUP_BYTES_MIN: u64 = 1 << 20;
const FLUSH_MS: u64 = 60_000;
/// The longest string that MQTT can carry.
const TEXT_BYTES: usize = 65_535;

/// METADATA columns of a source.
pub(super) const METADATA: &[&str] = &[
    "topic",
    "qos",
    "retain",
    "dup",
    "received-time",
    "content-type",
    "response-topic",
    "correlation-data",
    "user-properties",
    "message-expiry",
];

/// What types such a column can have; None where this one will do.
pub(super) fn metadata_refused(key: &str, field: &Field) -> Option<&'static str> {
    const PROPERTIES: &str = "MAP<STRING, STRING> that may be NULL";
    let (ty, nullable) = (&field.ty, field.nullable);
    let (fits, accepted) = match key {
        "topic" => (*ty == DataType::String, "STRING"),
        "qos" => (matches!(ty, DataType::Int32 | DataType::Int64), "INT or BIGINT"),
        "retain" | "dup" => (*ty == DataType::Boolean, "BOOLEAN"),
        "received-time" => {
            let fits = matches!(ty, DataType::Timestamp(Unit::Milli) | DataType::TimestampLtz(Unit::Milli));
            (fits, "TIMESTAMP_LTZ(3) or TIMESTAMP(3)")
        }
        "content-type" | "response-topic" => (nullable && *ty == DataType::String, "STRING that may be NULL"),
        "correlation-data" => (nullable && *ty == DataType::Bytes, "BYTES that may be NULL"),
        "message-expiry" => (nullable && *ty == DataType::Int64, "BIGINT (seconds) that may be NULL"),
        "user-properties" => match ty {
            DataType::Map(name, value) => {
                (nullable && **name == DataType::String && **value == DataType::String, PROPERTIES)
            }
            _ => (false, PROPERTIES),
        },
        _ => return None,
    };
    (!fits).then_some(accepted)
}

/// How a connection to a broker is made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MqttConnection {
    /// `'url'`: tried in turn.
    pub brokers: Vec<MqttBroker>,
    /// `'protocol.version'`, default 5.
    pub version: MqttVersion,
    /// `'client.id'`; None: made of job, operator and subtask. Stable, or the broker would not know its session again.
    pub client_id: Option<String>,
    pub username: Option<Template>,
    pub password: Option<Template>,
    /// PEM texts: `'tls.ca.pem'` (None: the roots of the system), `'tls.cert.pem'` and `'tls.key.pem'` (both or none).
    pub ca: Option<Template>,
    pub certificate: Option<Template>,
    pub key: Option<Template>,
    /// `'session.expiry'`: how long the broker keeps what it has for us after a connection is gone; default 7 d.
    pub session_expiry_ms: u64,
    /// `'keep-alive'`, default 30 s.
    pub keep_alive_ms: u64,
    /// `'max.inflight'`: messages under way without an acknowledgement; default 4096.
    pub inflight: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MqttBroker {
    pub host: String,
    pub port: u16,
    pub tls: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MqttVersion {
    V5,
    V311,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MqttSource {
    pub connection: MqttConnection,
    /// `'topic'`: filters.
    pub filters: Vec<String>,
    pub qos: u8,
    /// `'shared.group'`: the subtasks share the messages; without it only the first one subscribes.
    pub group: Option<String>,
    pub dedup: Option<MqttDedup>,
    pub ack: MqttAck,
    /// `'ingest.log.max-size'`: of a subtask; when it is full nothing more is acknowledged.
    pub log_bytes: u64,
    pub on_gap: MqttGap,
}

/// When a message is acknowledged to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MqttAck {
    /// When it is in the ingest log, on this worker's disk.
    Log,
    /// When a completed checkpoint covers it.
    Checkpoint,
}

/// What to do where the log of a checkpoint is not there, or begins behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MqttGap {
    Fail,
    Continue,
}

/// Which messages are the same: `'mqtt.dedup.key'`, and for how long and in how much memory keys are kept at least,
/// beyond what the broker itself may send again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MqttDedup {
    pub key: MqttKey,
    pub window_ms: u64,
    pub bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum MqttKey {
    Column(String),
    UserProperty(String),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MqttSink {
    pub connection: MqttConnection,
    /// Columns of the row stand in `{…}`.
    pub topic: String,
    pub qos: u8,
    pub retain: bool,
    pub message_expiry_ms: Option<u64>,
    pub content_type: Option<String>,
    pub user_properties: Vec<(String, String)>,
    /// `'sink.flush-timeout'`: how long the broker may take nothing before the job fails.
    pub flush_timeout_ms: u64,
}

/// A piece of a sink's topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicPiece<'a> {
    Text(&'a str),
    Column(&'a str),
}

impl MqttSink {
    /// The topic as it was written, in pieces.
    pub fn pieces(topic: &str) -> Option<Vec<TopicPiece<'_>>> {
        let (mut pieces, mut rest) = (Vec::new(), topic);
        while let Some((text, behind)) = rest.split_once('{') {
            let (column, after) = behind.split_once('}')?;
            if !text.is_empty() {
                pieces.push(TopicPiece::Text(text));
            }
            pieces.push(TopicPiece::Column(column));
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(TopicPiece::Text(rest));
        }
        Some(pieces)
    }
}

/// All that an `mqtt` table may say.
pub(super) struct Mqtt {
    connection: MqttConnection,
    topic: String,
    qos: u8,
}

impl Mqtt {
    fn parse(options: &mut Options) -> Result<Mqtt, OptionError> {
        let brokers = brokers(options)?;
        let version = options.parsed("protocol.version", "'5' or '3.1.1'", |text| match text.trim() {
            "5" | "5.0" => Some(MqttVersion::V5),
            "3.1.1" => Some(MqttVersion::V311),
            _ => None,
        })?;
        let version = version.unwrap_or(MqttVersion::V5);
        let client_id = options.parsed("client.id", "1 to 65000 bytes of text", |text| {
            (!text.is_empty() && text.len() <= 65_000 && !text.contains('\0')).then(|| text.to_owned())
        })?;
        let (username, password) = (options.template("username")?, options.secret("password")?);
        if username.is_none() && password.is_some() && version == MqttVersion::V311 {
            let what = "option 'password': MQTT 3.1.1 has none without a user name, expected 'username' too";
            return Err(options.error("password", what.into()));
        }
        let (ca, certificate) = (options.template("tls.ca.pem")?, options.template("tls.cert.pem")?);
        let key = options.secret("tls.key.pem")?;
        if certificate.is_some() != key.is_some() {
            let missing = if key.is_some() { "tls.cert.pem" } else { "tls.key.pem" };
            let what = format!("option '{missing}' is missing, expected 'tls.cert.pem' and 'tls.key.pem' together");
            return Err(options.error(missing, what));
        }
        if (ca.is_some() || key.is_some()) && !brokers.iter().any(|broker| broker.tls) {
            let what = "option 'url': no broker is reached by TLS and 'tls.…' is given, expected 'mqtts://…'";
            return Err(options.error("url", what.into()));
        }
        let seconds = |text: &str, most: u64| super::parse_duration_ms(text).filter(|ms| (1_000..=most).contains(ms));
        let session_expiry_ms =
            options.parsed("session.expiry", "a duration of 1 s to 49710 d, like '7 d'", |text| {
                seconds(text, u64::from(u32::MAX) * 1_000)
            })?;
        let keep_alive_ms =
            options.parsed("keep-alive", "a duration of 1 s to 18 h, like '30 s'", |text| seconds(text, 64_800_000))?;
        let inflight = options.parsed("max.inflight", "a whole number from 1 to 65535", |text| {
            text.trim().parse().ok().filter(|n: &u16| *n > 0)
        })?;
        let topic = options.require("topic", "a topic, or filters like 'plants/+/temperature;alerts/#'")?;
        let qos = options.parsed("qos", "'0', '1' or '2'", |text| text.trim().parse().ok().filter(|qos| *qos <= 2))?;
        let connection = MqttConnection {
            brokers,
            version,
            client_id,
            username,
            password,
            ca,
            certificate,
            key,
            session_expiry_ms: session_expiry_ms.unwrap_or(SESSION_EXPIRY_MS),
            keep_alive_ms: keep_alive_ms.unwrap_or(KEEP_ALIVE_MS),
            inflight: inflight.unwrap_or(INFLIGHT),
        };
        Ok(Mqtt { connection, topic, qos: qos.unwrap_or(1) })
    }

    pub fn source(options: &mut Options, physical: &Schema) -> Result<MqttSource, OptionError> {
        let Mqtt { connection, topic, qos } = Mqtt::parse(options)?;
        let mut filters: Vec<String> = Vec::new();
        for filter in topic.split(';').map(str::trim).filter(|filter| !filter.is_empty()) {
            if let Some(what) = wrong_filter(filter) {
                return Err(options.error("topic", format!("option 'topic': filter '{filter}' {what}")));
            }
            if !filters.iter().any(|known| known == filter) {
                filters.push(filter.to_owned());
            }
        }
        if filters.is_empty() {
            return Err(options.unaccepted("topic", &topic, "filters like 'plants/+/temperature;alerts/#'"));
        }
        let (group, dedup, ack, log_bytes, on_gap) = ingest(options, Some(physical))?;
        let least = 2 * KEYS_PART * connection.redelivered() * REDELIVERED_BYTES;
        if dedup.is_some() && log_bytes < least {
            let what = format!(
                "option 'ingest.log.max-size': with 'mqtt.dedup.key' expected at least {} mb, because half of the log holds the \
                 messages that the broker may send again, twice {} of them ('max.inflight'; 3.1.1 has no such limit)",
                least >> 20,
                connection.redelivered(),
            );
            return Err(options.error("ingest.log.max-size", what));
        }
        writing(options)?;
        Ok(MqttSource { connection, filters, qos, group, dedup, ack, log_bytes, on_gap })
    }

    pub fn sink(options: &mut Options, schema: &Schema) -> Result<MqttSink, OptionError> {
        let Mqtt { connection, topic, qos } = Mqtt::parse(options)?;
        let expected = "the name of a topic without + and #; '{column}' stands for a column's value";
        let pieces = MqttSink::pieces(&topic).filter(|pieces| !pieces.is_empty());
        let Some(pieces) = pieces else { return Err(options.unaccepted("topic", &topic, expected)) };
        for piece in pieces {
            match piece {
                TopicPiece::Text(text) if text.contains(['+', '#', '\0', ';']) => {
                    return Err(options.unaccepted("topic", &topic, expected));
                }
                TopicPiece::Text(_) => {}
                TopicPiece::Column(name) => {
                    let field = schema.fields.iter().find(|field| field.name == name);
                    if !field.is_some_and(|field| in_topic(&field.ty)) {
                        let found =
                            field.map_or("no column of the table".into(), |field| format!("of type {}", field.ty));
                        let what = format!(
                            "option 'topic': '{{{name}}}' is {found}, expected a column of type STRING, BOOLEAN or a whole \
                             number"
                        );
                        return Err(options.error("topic", what));
                    }
                }
            }
        }
        if topic.len() > TEXT_BYTES {
            return Err(options.unaccepted("topic", "a text of more than 65535 bytes", expected));
        }
        let (retain, message_expiry_ms, content_type, user_properties, flush_timeout_ms) = writing(options)?;
        if connection.version == MqttVersion::V311 {
            let used = [
                ("sink.message-expiry", message_expiry_ms.is_some()),
                ("sink.content-type", content_type.is_some()),
                ("sink.user-properties", !user_properties.is_empty()),
            ];
            if let Some((key, _)) = used.iter().find(|(_, used)| *used) {
                let what = format!("option '{key}': MQTT 3.1.1 has no such thing, expected 'protocol.version' = '5'");
                return Err(options.error(key, what));
            }
        }
        ingest(options, None)?;
        Ok(MqttSink {
            connection,
            topic,
            qos,
            retain,
            message_expiry_ms,
            content_type,
            user_properties,
            flush_timeout_ms,
        })
    }
}

impl MqttConnection {
    /// How many messages a broker may have sent that are not acknowledged.
    pub fn redelivered(&self) -> u64 {
        match self.version {
            MqttVersion::V5 => self.inflight.into(),
            // It has no receive maximum: all packet ids may be under way.
            MqttVersion::V311 => u16::MAX.into(),
        }
    }
}

type Ingest = (Option<String>, Option<MqttDedup>, MqttAck, u64, MqttGap);

/// Options of a source. `physical`: of a table that is read.
fn ingest(options: &mut Options, physical: Option<&Schema>) -> Result<Ingest, OptionError> {
    let group = options.parsed("shared.group", "a name without '/', '+' and '#'", |text| {
        (!text.is_empty() && !text.contains(['/', '+', '#', '\0'])).then(|| text.to_owned())
    })?;
    let ack = options.parsed("ack", "'log' or 'checkpoint'", |text| match text {
        "log" => Some(MqttAck::Log),
        "checkpoint" => Some(MqttAck::Checkpoint),
        _ => None,
    })?;
    let ack = ack.unwrap_or(MqttAck::Log);
    let size = |options: &mut Options, key: &str, least: u64, expected: &str| {
        options.parsed(key, expected, |text| super::parse_memory_bytes(text).filter(|bytes| *bytes >= least))
    };
    let log = "a size of at least 4 mb like '64 mb', '1 gb'";
    let log_bytes = size(options, "ingest.log.max-size", LOG_BYTES_MIN, log)?.unwrap_or(LOG_BYTES);
    let on_gap = options.parsed("ingest.log.on-gap", "'fail' or 'continue'", |text| match text {
        "fail" => Some(MqttGap::Fail),
        "continue" => Some(MqttGap::Continue),
        _ => None,
    })?;
    let window_ms = options.duration_ms("mqtt.dedup.window")?.unwrap_or(DEDUP_WINDOW_MS);
    let memory = "a size of at least 1 mb like '32 mb'";
    let bytes = size(options, "mqtt.dedup.max-size", DEDUP_BYTES_MIN, memory)?.unwrap_or(DEDUP_BYTES);
    let key = options.take("mqtt.dedup.key");
    let dedup = match (key, physical) {
        (Some(key), Some(physical)) => {
            let key = dedup_key(options, &key, physical)?;
            if ack == MqttAck::Checkpoint {
                let what = "option 'mqtt.dedup.key': the keys are kept in the ingest log, expected 'ack' = 'log'";
                return Err(options.error("mqtt.dedup.key", what.into()));
            }
            Some(MqttDedup { key, window_ms, bytes })
        }
        _ => None,
    };
    Ok((group, dedup, ack, log_bytes, on_gap.unwrap_or(MqttGap::Fail)))
}

fn dedup_key(options: &Options, key: &str, physical: &Schema) -> Result<MqttKey, OptionError> {
    const EXPECTED: &str = "a column of the payload of type STRING, BYTES or a whole number, or 'property:NAME'";
    if let Some(name) = key.strip_prefix("property:").filter(|name| !name.is_empty()) {
        return Ok(MqttKey::UserProperty(name.to_owned()));
    }
    let field = physical.fields.iter().find(|field| field.name == key);
    match field.map(|field| &field.ty) {
        Some(
            DataType::String | DataType::Bytes | DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64,
        ) => Ok(MqttKey::Column(key.to_owned())),
        Some(ty) => Err(options.unaccepted("mqtt.dedup.key", &format!("{key}' of type '{ty}"), EXPECTED)),
        None => Err(options.unaccepted("mqtt.dedup.key", key, EXPECTED)),
    }
}

type Writing = (bool, Option<u64>, Option<String>, Vec<(String, String)>, u64);

/// Options of a sink.
fn writing(options: &mut Options) -> Result<Writing, OptionError> {
    let retain = options.boolean("sink.retain", false)?;
    let expiry = options.parsed("sink.message-expiry", "a duration of whole seconds like '60 s'", |text| {
        super::parse_duration_ms(text).filter(|ms| *ms > 0 && ms.is_multiple_of(1_000) && *ms / 1_000 < 1 << 32)
    })?;
    let content_type = options.parsed("sink.content-type", "at most 65535 bytes of text", |text| {
        (text.len() <= TEXT_BYTES).then(|| text.to_owned())
    })?;
    let properties = options.parsed("sink.user-properties", "a list like 'plant:a,line:7'", |text| {
        let pairs = text.split(',').filter(|pair| !pair.trim().is_empty());
        let split = |pair: &str| pair.split_once(':').map(|(k, v)| (k.trim().to_owned(), v.trim().to_owned()));
        pairs.map(split).collect::<Option<Vec<_>>>().filter(|_| text.len() <= TEXT_BYTES)
    })?;
    let flush = options.parsed("sink.flush-timeout", "a duration of at least 1 s like '60 s'", |text| {
        super::parse_duration_ms(text).filter(|ms| *ms >= 1_000)
    })?;
    Ok((retain, expiry, content_type, properties.unwrap_or_default(), flush.unwrap_or(FLUSH_MS)))
}

fn in_topic(ty: &DataType) -> bool {
    use DataType::*;
    matches!(ty, String | Boolean | Int8 | Int16 | Int32 | Int64)
}

fn brokers(options: &mut Options) -> Result<Vec<MqttBroker>, OptionError> {
    const EXPECTED: &str = "'mqtt://host:1883' or 'mqtts://host:8883', several with ';' between them";
    let text = options.require("url", EXPECTED)?;
    let found = text.split(';').map(str::trim).filter(|url| !url.is_empty());
    let brokers: Option<Vec<MqttBroker>> = found.map(broker).collect();
    match brokers.filter(|brokers| !brokers.is_empty()) {
        Some(brokers) => Ok(brokers),
        None if text.contains('@') => {
            let what =
                format!("option 'url': found a user in it, expected {EXPECTED}; 'username' and 'password' name it");
            Err(options.error("url", what))
        }
        None => Err(options.unaccepted("url", &text, EXPECTED)),
    }
}

fn broker(url: &str) -> Option<MqttBroker> {
    let (scheme, rest) = url.split_once("://")?;
    let tls = match scheme.to_ascii_lowercase().as_str() {
        "mqtt" | "tcp" => false,
        "mqtts" | "ssl" => true,
        _ => return None,
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let default = if tls { 8883 } else { 1883 };
    let port = |text: &str| text.parse().ok().filter(|port: &u16| *port > 0);
    let (host, port) = if let Some(bracketed) = authority.strip_prefix('[') {
        let (host, after) = bracketed.split_once(']')?;
        let given = after.strip_prefix(':').map(port);
        (host, if after.is_empty() { default } else { given?? })
    } else {
        match authority.split_once(':') {
            Some((host, text)) => (host, port(text)?),
            None => (authority, default),
        }
    };
    let accepted = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    (!host.is_empty() && host.chars().all(accepted)).then(|| MqttBroker { host: host.to_owned(), port, tls })
}

/// What is wrong with a topic filter.
fn wrong_filter(filter: &str) -> Option<&'static str> {
    if filter.len() > TEXT_BYTES - 1_024 || filter.contains('\0') {
        return Some("is too long or has a zero byte");
    }
    if filter.starts_with("$share/") {
        return Some("is a shared subscription, expected the filter alone and its group in 'shared.group'");
    }
    let levels: Vec<&str> = filter.split('/').collect();
    for (at, level) in levels.iter().enumerate() {
        if level.contains('#') && (*level != "#" || at + 1 != levels.len()) {
            return Some("has '#' elsewhere than as its last level, expected 'plants/#'");
        }
        if level.contains('+') && *level != "+" {
            return Some("has '+' beside other text in a level, expected 'plants/+/temperature'");
        }
    }
    None
}

#[cfg(test)]
mod tests;
