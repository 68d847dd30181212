//! How Kafka is reached, and what a Kafka source reads.

use super::enumeration::{Enumeration, enumeration, known};
use super::fault::{Fault, chosen, columns, optional, required, template};
use super::generated::plan as wire;
use super::generated::plan::{kafka_bounded, kafka_startup, kafka_topics};
use crate::connector::{KafkaBounded, KafkaClient, KafkaKey, KafkaReset, KafkaSource, KafkaStartup, KafkaTopics};
use crate::secret::Template;

enumeration!(KafkaReset: Earliest, Latest);

impl From<&KafkaClient> for wire::KafkaClient {
    fn from(client: &KafkaClient) -> wire::KafkaClient {
        let KafkaClient { bootstrap, properties } = client;
        let property = |(name, value): &(String, Template)| wire::KafkaProperty {
            name: name.clone(),
            value: value.as_str().to_owned(),
        };
        wire::KafkaClient { bootstrap: bootstrap.clone(), properties: properties.iter().map(property).collect() }
    }
}

impl TryFrom<wire::KafkaClient> for KafkaClient {
    type Error = Fault;

    fn try_from(client: wire::KafkaClient) -> Result<KafkaClient, Fault> {
        let property = |(at, property): (usize, wire::KafkaProperty)| {
            Ok((property.name, template(&property.value, &format!("properties[{at}].value"))?))
        };
        let properties = client.properties.into_iter().enumerate().map(property).collect::<Result<_, Fault>>()?;
        Ok(KafkaClient { bootstrap: client.bootstrap, properties })
    }
}

impl From<&KafkaSource> for wire::KafkaSource {
    fn from(source: &KafkaSource) -> wire::KafkaSource {
        let KafkaSource { client, topics, group, reset, startup, bounded, discovery_ms, key } = source;
        wire::KafkaSource {
            client: Some(client.into()),
            topics: Some(topics.into()),
            group: group.clone(),
            reset: reset.map(Enumeration::number),
            startup: Some(startup.into()),
            bounded: Some(bounded.into()),
            discovery_ms: *discovery_ms,
            key: key.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<wire::KafkaSource> for KafkaSource {
    type Error = Fault;

    fn try_from(source: wire::KafkaSource) -> Result<KafkaSource, Fault> {
        Ok(KafkaSource {
            client: required(source.client, "client")?,
            topics: required(source.topics, "topics")?,
            group: source.group,
            reset: source.reset.map(|reset| known(reset, "reset")).transpose()?,
            startup: required(source.startup, "startup")?,
            bounded: required(source.bounded, "bounded")?,
            discovery_ms: source.discovery_ms,
            key: optional(source.key, "key")?,
        })
    }
}

impl From<&KafkaTopics> for wire::KafkaTopics {
    fn from(topics: &KafkaTopics) -> wire::KafkaTopics {
        use kafka_topics::Kind;
        let kind = match topics {
            KafkaTopics::Names(names) => Kind::Names(wire::KafkaTopicNames { names: names.clone() }),
            KafkaTopics::Pattern(pattern) => Kind::Pattern(pattern.clone()),
        };
        wire::KafkaTopics { kind: Some(kind) }
    }
}

impl TryFrom<wire::KafkaTopics> for KafkaTopics {
    type Error = Fault;

    fn try_from(topics: wire::KafkaTopics) -> Result<KafkaTopics, Fault> {
        use kafka_topics::Kind;
        Ok(match chosen(topics.kind, "kind", "names, pattern")? {
            Kind::Names(names) => KafkaTopics::Names(names.names),
            Kind::Pattern(pattern) => KafkaTopics::Pattern(pattern),
        })
    }
}

impl From<&KafkaStartup> for wire::KafkaStartup {
    fn from(startup: &KafkaStartup) -> wire::KafkaStartup {
        use kafka_startup::Kind;
        let kind = match startup {
            KafkaStartup::Earliest => Kind::Earliest(wire::Nothing {}),
            KafkaStartup::Latest => Kind::Latest(wire::Nothing {}),
            KafkaStartup::Group => Kind::Group(wire::Nothing {}),
            KafkaStartup::Timestamp(ms) => Kind::Timestamp(*ms),
            KafkaStartup::Offsets(offsets) => Kind::Offsets(to_offsets(offsets)),
        };
        wire::KafkaStartup { kind: Some(kind) }
    }
}

impl TryFrom<wire::KafkaStartup> for KafkaStartup {
    type Error = Fault;

    fn try_from(startup: wire::KafkaStartup) -> Result<KafkaStartup, Fault> {
        use kafka_startup::Kind;
        Ok(match chosen(startup.kind, "kind", "earliest, latest, group, timestamp, offsets")? {
            Kind::Earliest(_) => KafkaStartup::Earliest,
            Kind::Latest(_) => KafkaStartup::Latest,
            Kind::Group(_) => KafkaStartup::Group,
            Kind::Timestamp(ms) => KafkaStartup::Timestamp(ms),
            Kind::Offsets(offsets) => KafkaStartup::Offsets(from_offsets(offsets)),
        })
    }
}

impl From<&KafkaBounded> for wire::KafkaBounded {
    fn from(bounded: &KafkaBounded) -> wire::KafkaBounded {
        use kafka_bounded::Kind;
        let kind = match bounded {
            KafkaBounded::Unbounded => Kind::Unbounded(wire::Nothing {}),
            KafkaBounded::Latest => Kind::Latest(wire::Nothing {}),
            KafkaBounded::Group => Kind::Group(wire::Nothing {}),
            KafkaBounded::Timestamp(ms) => Kind::Timestamp(*ms),
            KafkaBounded::Offsets(offsets) => Kind::Offsets(to_offsets(offsets)),
        };
        wire::KafkaBounded { kind: Some(kind) }
    }
}

impl TryFrom<wire::KafkaBounded> for KafkaBounded {
    type Error = Fault;

    fn try_from(bounded: wire::KafkaBounded) -> Result<KafkaBounded, Fault> {
        use kafka_bounded::Kind;
        Ok(match chosen(bounded.kind, "kind", "unbounded, latest, group, timestamp, offsets")? {
            Kind::Unbounded(_) => KafkaBounded::Unbounded,
            Kind::Latest(_) => KafkaBounded::Latest,
            Kind::Group(_) => KafkaBounded::Group,
            Kind::Timestamp(ms) => KafkaBounded::Timestamp(ms),
            Kind::Offsets(offsets) => KafkaBounded::Offsets(from_offsets(offsets)),
        })
    }
}

fn to_offsets(offsets: &[(i32, i64)]) -> wire::KafkaOffsets {
    let offset = |(partition, offset): &(i32, i64)| wire::KafkaOffset { partition: *partition, offset: *offset };
    wire::KafkaOffsets { offsets: offsets.iter().map(offset).collect() }
}

fn from_offsets(offsets: wire::KafkaOffsets) -> Vec<(i32, i64)> {
    offsets.offsets.into_iter().map(|offset| (offset.partition, offset.offset)).collect()
}

impl From<&KafkaKey> for wire::KafkaKey {
    fn from(key: &KafkaKey) -> wire::KafkaKey {
        let KafkaKey { format, columns, prefix } = key;
        wire::KafkaKey {
            format: Some(format.into()),
            columns: columns.iter().map(|column| *column as u64).collect(),
            prefix: prefix.clone(),
        }
    }
}

impl TryFrom<wire::KafkaKey> for KafkaKey {
    type Error = Fault;

    fn try_from(key: wire::KafkaKey) -> Result<KafkaKey, Fault> {
        Ok(KafkaKey {
            format: required(key.format, "format")?,
            columns: columns(key.columns, "columns")?,
            prefix: key.prefix,
        })
    }
}
