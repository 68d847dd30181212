//! `'connector' = 'kafka'` and `'upsert-kafka'` as sinks, with Flink's options.
//!
//! Ours: `'sink.spool.max-size'` (unpublished rows of a subtask before it holds back its input) and `'sink.marker-lost'`
//! (what to do when Kafka has forgotten how far it had come), `'sink.allow-output-rewind'` (a start from a checkpoint that is
//! older than what Kafka has writes rows again). `'sink.delivery-guarantee'` is `exactly-once` unless set.

use super::options::{OptionError, Options};
use super::{Format, KafkaClient, format};
use crate::schema::Schema;
use serde::{Deserialize, Serialize};

const SPOOL_BYTES: u64 = 1 << 30;
/// Transactional ids of one installation share it, so that access control can name them.
const ID_PREFIX: &str = "edgeflow";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KafkaSink {
    pub topic: String,
    pub client: KafkaClient,
    /// Rows are written by key: the last one counts, and deleted ones are tombstones.
    pub upsert: bool,
    pub key_format: Option<Format>,
    /// Columns of the table.
    pub key_fields: Vec<String>,
    /// In front of the names of the key's columns in the table, not in the key.
    pub key_prefix: String,
    pub value_format: Format,
    /// The key's columns are in the value, too.
    pub value_has_key: bool,
    pub guarantee: DeliveryGuarantee,
    pub id_prefix: String,
    pub partitioner: SinkPartitioner,
    pub spool_bytes: u64,
    pub marker_lost: MarkerLost,
    /// Rows that are in Kafka already may be written again, if the job is started from a checkpoint before them.
    pub allow_rewind: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeliveryGuarantee {
    /// Rows may be lost and repeated.
    None,
    AtLeastOnce,
    /// For readers with `isolation.level` read_committed; rows are visible when their checkpoint has completed.
    ExactlyOnce,
}

/// Records with a key go by its hash (as Java's client does) unless the partitioner says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SinkPartitioner {
    Default,
    /// All of a subtask to one partition.
    Fixed,
    RoundRobin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MarkerLost {
    Fail,
    /// Rows that may be in Kafka are taken to be there.
    AssumeCommitted,
    /// They are sent, perhaps again.
    AssumeLost,
}

impl KafkaSink {
    /// `schema` without `_op`; `primary_key`: as declared; `changelog`: rows carry `_op`.
    pub(super) fn parse(
        options: &mut Options,
        schema: &Schema,
        primary_key: &[String],
        changelog: bool,
        upsert: bool,
    ) -> Result<KafkaSink, OptionError> {
        let topic = options.require("topic", "the topic's name")?;
        if topic.is_empty() || topic.contains(';') || topic.len() > 249 {
            return Err(options.unaccepted("topic", &topic, "the name of one topic (for a table that is written)"));
        }
        let client = KafkaClient::parse(options)?;
        let key_prefix = options.take("key.fields-prefix").unwrap_or_default();
        let listed = options.take("key.fields");
        let fields =
            |text: &str| text.split(';').map(str::trim).filter(|name| !name.is_empty()).map(String::from).collect();
        let key_fields: Vec<String> = match (&listed, upsert) {
            (Some(_), true) => {
                let what =
                    "option 'key.fields' is given, expected PRIMARY KEY to say what the key of 'upsert-kafka' is";
                return Err(options.error("key.fields", what.into()));
            }
            (None, true) if primary_key.is_empty() => {
                let what = "connector 'upsert-kafka' needs PRIMARY KEY (…) NOT ENFORCED, by which rows are replaced";
                return Err(options.error("connector", what.into()));
            }
            (None, true) => primary_key.to_vec(),
            (Some(text), false) => fields(text),
            (None, false) => Vec::new(),
        };
        if let Some(unknown) = key_fields.iter().find(|name| schema.index_of(name).is_none()) {
            let names: Vec<String> = schema.fields.iter().map(|field| format!("'{}'", field.name)).collect();
            return Err(options.unaccepted(
                "key.fields",
                unknown,
                &format!("columns of the table: {}", names.join(", ")),
            ));
        }
        if let Some(bare) = key_fields.iter().find(|name| !name.starts_with(&key_prefix)) {
            let what =
                format!("option 'key.fields': column '{bare}' does not begin with 'key.fields-prefix' '{key_prefix}'");
            return Err(options.error("key.fields", what));
        }
        let value_has_key = options
            .parsed("value.fields-include", "'ALL' or 'EXCEPT_KEY'", |text| match text.to_ascii_uppercase().as_str() {
                "ALL" => Some(true),
                "EXCEPT_KEY" => Some(false),
                _ => None,
            })?
            .unwrap_or(true);
        if !key_prefix.is_empty() && value_has_key {
            let what = "option 'key.fields-prefix' is given, expected 'value.fields-include' to be 'EXCEPT_KEY'";
            return Err(options.error("key.fields-prefix", what.into()));
        }
        let of = |names: &dyn Fn(&String) -> bool| {
            Schema::new(schema.fields.iter().filter(|field| names(&field.name)).cloned().collect())
        };
        let key_schema = of(&|name| key_fields.contains(name));
        let key_format = match options.peek("key.format").is_some() {
            true => {
                let format = side(options, "key.", &key_schema, false)?;
                if format.writes_changelog() {
                    let what = "option 'key.format': a changelog is no key, expected a format of plain rows like 'raw', 'json'";
                    return Err(options.error("key.format", what.into()));
                }
                Some(format)
            }
            false => None,
        };
        match (&key_format, key_fields.is_empty()) {
            (None, false) => {
                let what = if upsert { "PRIMARY KEY" } else { "'key.fields'" };
                let what = format!("option 'key.format' is missing, expected a format for the columns of {what}");
                return Err(options.error("key.format", what));
            }
            (Some(_), true) => {
                let what = "option 'key.fields' is missing, expected the columns that 'key.format' is for".to_owned();
                return Err(options.error("key.fields", what));
            }
            _ => {}
        }
        let value_schema = of(&|name| value_has_key || !key_fields.contains(name));
        let in_value = changelog && !upsert;
        let value_format = match options.peek("value.format").is_some() {
            true => side(options, "value.", &value_schema, in_value)?,
            false => format::sink(options, &value_schema, in_value)?,
        };
        let guarantee = options.parsed(
            "sink.delivery-guarantee",
            "'exactly-once', 'at-least-once' or 'none'",
            |text| match text.to_ascii_lowercase().replace('_', "-").as_str() {
                "exactly-once" => Some(DeliveryGuarantee::ExactlyOnce),
                "at-least-once" => Some(DeliveryGuarantee::AtLeastOnce),
                "none" => Some(DeliveryGuarantee::None),
                _ => None,
            },
        )?;
        let partitioner =
            options.parsed("sink.partitioner", "'default', 'fixed' or 'round-robin'", |text| match text {
                "default" => Some(SinkPartitioner::Default),
                "fixed" => Some(SinkPartitioner::Fixed),
                "round-robin" => Some(SinkPartitioner::RoundRobin),
                _ => None,
            })?;
        if upsert && partitioner.is_some_and(|partitioner| partitioner != SinkPartitioner::Default) {
            let what = "option 'sink.partitioner': rows of one key belong in one partition, expected 'default'";
            return Err(options.error("sink.partitioner", what.into()));
        }
        let id_prefix = options.parsed(
            "sink.transactional-id-prefix",
            "letters, digits, '.', '-' and '_', at most 100",
            |text| {
                let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
                (!text.is_empty() && text.len() <= 100 && text.chars().all(plain)).then(|| text.to_owned())
            },
        )?;
        let marker_lost =
            options.parsed("sink.marker-lost", "'fail', 'assume-committed' or 'assume-lost'", |text| match text {
                "fail" => Some(MarkerLost::Fail),
                "assume-committed" => Some(MarkerLost::AssumeCommitted),
                "assume-lost" => Some(MarkerLost::AssumeLost),
                _ => None,
            })?;
        Ok(KafkaSink {
            topic,
            client,
            upsert,
            key_format,
            key_fields,
            key_prefix,
            value_format,
            value_has_key,
            guarantee: guarantee.unwrap_or(DeliveryGuarantee::ExactlyOnce),
            id_prefix: id_prefix.unwrap_or_else(|| ID_PREFIX.into()),
            partitioner: partitioner.unwrap_or(SinkPartitioner::Default),
            spool_bytes: options.memory_bytes("sink.spool.max-size")?.unwrap_or(SPOOL_BYTES),
            marker_lost: marker_lost.unwrap_or(MarkerLost::Fail),
            allow_rewind: options.boolean("sink.allow-output-rewind", false)?,
        })
    }
}

/// The format whose options carry this prefix.
fn side(options: &mut Options, prefix: &str, schema: &Schema, changelog: bool) -> Result<Format, OptionError> {
    let of_side = options.with_prefix(prefix).into_iter().collect();
    let mut of_side = Options::new(options.table(), of_side);
    let parsed = format::sink(&mut of_side, schema, changelog).and_then(|format| of_side.finish().map(|()| format));
    parsed.map_err(|error| OptionError {
        message: error.message.replace("option '", &format!("option '{prefix}")),
        key: format!("{prefix}{}", error.key),
    })
}
