//! `'connector' = 'kafka'` for a table that is read: which topics, from where to where, and what is in key and value.
//! Flink's names and meanings; the default of `isolation.level` is `read_committed`, where Flink's shows what was
//! aborted.

use super::options::{OptionError, Options};
use super::{Format, KafkaClient, format, parse_duration_ms};
use crate::schema::{DataType, Field, Schema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const DISCOVERY_MS: u64 = 5 * 60 * 1000;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KafkaSource {
    pub client: KafkaClient,
    pub topics: KafkaTopics,
    /// `'properties.group.id'`. Only with it are offsets committed to the cluster.
    pub group: Option<String>,
    /// `'properties.auto.offset.reset'`: where to go on when an offset is out of range. None: that is an error.
    pub reset: Option<KafkaReset>,
    pub startup: KafkaStartup,
    pub bounded: KafkaBounded,
    /// `'scan.topic-partition-discovery.interval'`. None: partitions are looked for once.
    pub discovery_ms: Option<u64>,
    /// Columns that come from the record's key instead of its value.
    pub key: Option<KafkaKey>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum KafkaTopics {
    /// `'topic' = 'a;b'`
    Names(Vec<String>),
    /// `'topic-pattern'`: a regular expression for whole names.
    Pattern(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KafkaReset {
    Earliest,
    Latest,
}

/// `'scan.startup.mode'`: where partitions begin at the first start; later on, the checkpoint knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum KafkaStartup {
    Earliest,
    Latest,
    /// What the group has committed; else `reset`, else an error.
    Group,
    /// The first record of that time or later, in ms since the epoch.
    Timestamp(i64),
    /// Partition and offset, by partition. Partitions that are not named begin with what the group has committed.
    Offsets(Vec<(i32, i64)>),
}

/// `'scan.bounded.mode'`: where partitions end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum KafkaBounded {
    Unbounded,
    /// What is there when the source starts.
    Latest,
    Group,
    Timestamp(i64),
    /// Partitions that are not named end where they end when the source starts.
    Offsets(Vec<(i32, i64)>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KafkaKey {
    pub format: Format,
    /// Positions in the source's physical columns.
    pub columns: Vec<usize>,
    /// `'key.fields-prefix'`: what the columns' names have before those in the key.
    pub prefix: String,
}

/// METADATA columns of a Kafka table.
pub const METADATA: &[&str] =
    &["topic", "partition", "offset", "timestamp", "timestamp-type", "headers", "leader-epoch", "key"];

/// Why a METADATA column cannot have this type: what would be accepted. None: it can.
pub fn metadata_refused(key: &str, field: &Field) -> Option<&'static str> {
    let (fits, accepted) = match (key, &field.ty) {
        ("topic" | "timestamp-type", ty) => (*ty == DataType::String, "STRING"),
        ("partition", ty) => (matches!(ty, DataType::Int32 | DataType::Int64), "INT or BIGINT"),
        ("offset", ty) => (*ty == DataType::Int64, "BIGINT"),
        ("timestamp", ty) => {
            (ty.is_timestamp() || *ty == DataType::Int64, "TIMESTAMP_LTZ(3), TIMESTAMP(3) or BIGINT (milliseconds)")
        }
        ("headers", DataType::Map(name, value)) => {
            (**name == DataType::String && matches!(**value, DataType::Bytes | DataType::String), HEADERS)
        }
        ("headers", _) => (false, HEADERS),
        ("leader-epoch", ty) => {
            (field.nullable && matches!(ty, DataType::Int32 | DataType::Int64), "INT or BIGINT that may be NULL")
        }
        ("key", ty) => {
            (field.nullable && matches!(ty, DataType::Bytes | DataType::String), "BYTES or STRING that may be NULL")
        }
        _ => return None,
    };
    (!fits).then_some(accepted)
}

const HEADERS: &str = "MAP<STRING, BYTES>";

impl KafkaSource {
    /// The source and the format of the records' values.
    pub(super) fn parse(options: &mut Options, physical: &Schema) -> Result<(KafkaSource, Format), OptionError> {
        let topics = topics(options)?;
        let group = options.take("properties.group.id").filter(|group| !group.is_empty());
        let reset =
            options.parsed("properties.auto.offset.reset", "'earliest', 'latest' or 'none'", |text| match text {
                "earliest" => Some(Some(KafkaReset::Earliest)),
                "latest" => Some(Some(KafkaReset::Latest)),
                "none" => Some(None),
                _ => None,
            })?;
        let client = KafkaClient::parse(options)?;
        let startup = startup(options)?;
        let bounded = bounded(options)?;
        let needs_group = [
            ("scan.startup.mode", matches!(startup, KafkaStartup::Group)),
            ("scan.bounded.mode", matches!(bounded, KafkaBounded::Group)),
        ];
        if let Some((key, _)) = needs_group.iter().find(|(_, needs)| *needs && group.is_none()) {
            let default = if *key == "scan.startup.mode" { " (the default)" } else { "" };
            let what = format!(
                "option '{key}' is 'group-offsets'{default}, expected 'properties.group.id' with it, or another mode"
            );
            return Err(options.error(key, what));
        }
        let several = !matches!(&topics, KafkaTopics::Names(names) if names.len() == 1);
        for (key, specific) in [
            ("scan.startup.specific-offsets", matches!(startup, KafkaStartup::Offsets(_))),
            ("scan.bounded.specific-offsets", matches!(bounded, KafkaBounded::Offsets(_))),
        ] {
            if specific && several {
                let what = format!("option '{key}' is for a table of one topic, expected another mode");
                return Err(options.error(key, what));
            }
        }
        let interval = options.parsed(
            "scan.topic-partition-discovery.interval",
            "a duration like '5 min', '30 s', or '0' for never",
            parse_duration_ms,
        )?;
        let discovery_ms = Some(interval.unwrap_or(DISCOVERY_MS)).filter(|ms| *ms > 0);
        // As in Flink a bounded source does not look for more: it would never end.
        let discovery_ms = discovery_ms.filter(|_| bounded == KafkaBounded::Unbounded);
        let (key, value) = formats(options, physical)?;
        // A table that is read may be written too; what is said for that is checked where it is.
        options.with_prefix("sink.");
        let source = KafkaSource { client, topics, group, reset: reset.flatten(), startup, bounded, discovery_ms, key };
        Ok((source, value))
    }

    /// Positions of columns after pruning; a key of which nothing is read is not decoded.
    pub(super) fn prune(&mut self, keep: &[usize]) {
        let Some(key) = &mut self.key else { return };
        let to = |column: &usize| keep.binary_search(column).ok();
        key.columns = key.columns.iter().filter_map(to).collect();
        if key.columns.is_empty() {
            self.key = None;
        }
    }
}

fn topics(options: &mut Options) -> Result<KafkaTopics, OptionError> {
    const EXPECTED: &str = "one topic, or several like 'orders;returns'";
    let pattern = options.take("topic-pattern");
    let Some(names) = options.take("topic") else {
        return match pattern {
            Some(pattern) => Ok(KafkaTopics::Pattern(pattern)),
            None => {
                Err(options
                    .error("topic", format!("option 'topic' is missing, expected {EXPECTED}, or 'topic-pattern'")))
            }
        };
    };
    if pattern.is_some() {
        let what = "options 'topic' and 'topic-pattern' are both given, expected one of them";
        return Err(options.error("topic-pattern", what.into()));
    }
    let legal = |name: &&str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        !name.is_empty() && name.len() <= 249 && *name != "." && *name != ".." && name.chars().all(plain)
    };
    let mut list: Vec<&str> = names.split(';').map(str::trim).collect();
    if let Some(wrong) = list.iter().find(|name| !legal(name)) {
        let what = format!("a topic cannot be called '{wrong}', expected {EXPECTED}");
        return Err(options.error("topic", format!("option 'topic': {what}")));
    }
    list.sort();
    list.dedup();
    Ok(KafkaTopics::Names(list.into_iter().map(str::to_owned).collect()))
}

fn startup(options: &mut Options) -> Result<KafkaStartup, OptionError> {
    const MODE: &str = "scan.startup.mode";
    const MODES: &str = "'earliest-offset', 'latest-offset', 'group-offsets', 'timestamp' or 'specific-offsets'";
    let mode = options.take(MODE).unwrap_or_else(|| "group-offsets".into());
    let timestamp = timestamp(options, "scan.startup.timestamp-millis", MODE, &mode)?;
    let offsets = offsets(options, "scan.startup.specific-offsets", MODE, &mode)?;
    Ok(match (mode.as_str(), timestamp, offsets) {
        ("earliest-offset", ..) => KafkaStartup::Earliest,
        ("latest-offset", ..) => KafkaStartup::Latest,
        ("group-offsets", ..) => KafkaStartup::Group,
        ("timestamp", Some(ms), _) => KafkaStartup::Timestamp(ms),
        ("specific-offsets", _, Some(offsets)) => KafkaStartup::Offsets(offsets),
        _ => return Err(options.unaccepted(MODE, &mode, MODES)),
    })
}

fn bounded(options: &mut Options) -> Result<KafkaBounded, OptionError> {
    const MODE: &str = "scan.bounded.mode";
    const MODES: &str = "'unbounded', 'latest-offset', 'group-offsets', 'timestamp' or 'specific-offsets'";
    let mode = options.take(MODE).unwrap_or_else(|| "unbounded".into());
    let timestamp = timestamp(options, "scan.bounded.timestamp-millis", MODE, &mode)?;
    let offsets = offsets(options, "scan.bounded.specific-offsets", MODE, &mode)?;
    Ok(match (mode.as_str(), timestamp, offsets) {
        ("unbounded", ..) => KafkaBounded::Unbounded,
        ("latest-offset", ..) => KafkaBounded::Latest,
        ("group-offsets", ..) => KafkaBounded::Group,
        ("timestamp", Some(ms), _) => KafkaBounded::Timestamp(ms),
        ("specific-offsets", _, Some(offsets)) => KafkaBounded::Offsets(offsets),
        _ => return Err(options.unaccepted(MODE, &mode, MODES)),
    })
}

/// What goes with one mode only must be there with it, and not without.
fn belongs(
    options: &mut Options,
    key: &str,
    mode_key: &str,
    mode: &str,
    of: &str,
    what: &str,
) -> Result<bool, OptionError> {
    if mode == of {
        return match options.peek(key).is_some() {
            true => Ok(true),
            false => Err(options
                .error(key, format!("option '{key}' is missing, expected {what}, because '{mode_key}' is '{of}'"))),
        };
    }
    match options.take(key) {
        Some(_) => {
            Err(options.error(key, format!("option '{key}' is given and '{mode_key}' is '{mode}', expected '{of}'")))
        }
        None => Ok(false),
    }
}

fn timestamp(options: &mut Options, key: &str, mode_key: &str, mode: &str) -> Result<Option<i64>, OptionError> {
    const EXPECTED: &str = "milliseconds since 1970 like '1773471540000'";
    if !belongs(options, key, mode_key, mode, "timestamp", EXPECTED)? {
        return Ok(None);
    }
    options.parsed(key, EXPECTED, |text| text.trim().parse().ok().filter(|ms: &i64| *ms >= 0))
}

fn offsets(
    options: &mut Options,
    key: &str,
    mode_key: &str,
    mode: &str,
) -> Result<Option<Vec<(i32, i64)>>, OptionError> {
    const EXPECTED: &str = "offsets like 'partition:0,offset:42;partition:1,offset:300'";
    if !belongs(options, key, mode_key, mode, "specific-offsets", EXPECTED)? {
        return Ok(None);
    }
    options.parsed(key, EXPECTED, |text| {
        let mut offsets = BTreeMap::new();
        for pair in text.split(';').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (partition, offset) = pair.split_once(',')?;
            let partition: i32 = partition.trim().strip_prefix("partition:")?.trim().parse().ok()?;
            let offset: i64 = offset.trim().strip_prefix("offset:")?.trim().parse().ok()?;
            if partition < 0 || offset < 0 || offsets.insert(partition, offset).is_some() {
                return None;
            }
        }
        (!offsets.is_empty()).then(|| offsets.into_iter().collect())
    })
}

/// The formats of key and value, and which columns come from the key.
fn formats(options: &mut Options, physical: &Schema) -> Result<(Option<KafkaKey>, Format), OptionError> {
    let has_key = options.peek("key.format").is_some();
    let names = options.take("key.fields");
    let prefix = options.take("key.fields-prefix").unwrap_or_default();
    let except = options.parsed("value.fields-include", "'ALL' or 'EXCEPT_KEY'", |text| match text {
        "ALL" => Some(false),
        "EXCEPT_KEY" => Some(true),
        _ => None,
    })?;
    let except = except.unwrap_or(false);
    let names = match (has_key, names) {
        (true, None) => {
            let what = "option 'key.fields' is missing, expected the columns of the key like 'device;line', because \
                        'key.format' is given";
            return Err(options.error("key.fields", what.into()));
        }
        (false, Some(_)) => {
            let what = "option 'key.format' is missing, expected the format of the key, because 'key.fields' is given";
            return Err(options.error("key.format", what.into()));
        }
        (_, names) => names,
    };
    if !prefix.is_empty() && !except {
        // A column can have only one name in the value.
        let what = "option 'key.fields-prefix' is given, expected 'value.fields-include' = 'EXCEPT_KEY'";
        return Err(options.error("key.fields-prefix", what.into()));
    }
    let mut columns: Vec<usize> = Vec::new();
    for name in names.iter().flat_map(|names| names.split(';')).map(str::trim) {
        let Some(column) = physical.index_of(name) else {
            let known: Vec<String> = physical.fields.iter().map(|field| format!("'{}'", field.name)).collect();
            let what =
                format!("option 'key.fields': there is no column '{name}', expected some of {}", known.join(", "));
            return Err(options.error("key.fields", what));
        };
        if !name.starts_with(&prefix) {
            let what =
                format!("option 'key.fields': column '{name}' does not begin with 'key.fields-prefix' '{prefix}'");
            return Err(options.error("key.fields", what));
        }
        if columns.contains(&column) {
            return Err(options.error("key.fields", format!("option 'key.fields': column '{name}' is named twice")));
        }
        columns.push(column);
    }
    let of_key = |column: &usize| columns.contains(column);
    let key = match has_key {
        false => None,
        true => {
            let fields = columns.iter().map(|column| {
                let field = &physical.fields[*column];
                Field { name: field.name[prefix.len()..].to_owned(), ..field.clone() }
            });
            let fields = Schema::new(fields.collect());
            let format = options.scoped("key.", |options| format::source(options, &fields))?;
            if format.reads_changelog() {
                let what =
                    "option 'key.format': a changelog is no key, expected a format of plain rows like 'raw', 'json'";
                return Err(options.error("key.format", what.into()));
            }
            Some(format)
        }
    };
    let in_value = (0..physical.len()).filter(|column| !except || !of_key(column));
    let value = Schema::new(in_value.map(|column| physical.fields[column].clone()).collect());
    let mut format = match (options.peek("value.format").is_some(), options.peek("format").is_some()) {
        (true, true) => {
            let what = "options 'format' and 'value.format' are both given, expected one of them";
            return Err(options.error("value.format", what.into()));
        }
        (true, false) => options.scoped("value.", |options| format::source(options, &value))?,
        (false, _) => format::source(options, &value)?,
    };
    let mut key = key.map(|format| KafkaKey { format, columns, prefix });
    if options.peek("error.table").is_some() {
        format.skip_errors();
        key.iter_mut().for_each(|key| key.format.skip_errors());
    }
    // What the value has too is taken from there, as Flink does: the key then has nothing of its own.
    Ok((key.filter(|_| except), format))
}

impl KafkaKey {
    /// Whether columns of the key, and fields of its ROWs, are found by their names: what nobody reads can be left out.
    pub fn is_by_name(&self) -> bool {
        matches!(self.format, Format::Json(_))
    }
}

#[cfg(test)]
mod tests;
