//! What a Kafka sink writes, and how.

use super::enumeration::{Enumeration, enumeration, known};
use super::fault::{Fault, optional, required};
use super::generated::plan as wire;
use crate::connector::{DeliveryGuarantee, KafkaSink, MarkerLost, SinkPartitioner};

enumeration!(DeliveryGuarantee: None, AtLeastOnce, ExactlyOnce);
enumeration!(SinkPartitioner: Default, Fixed, RoundRobin);
enumeration!(MarkerLost: Fail, AssumeCommitted, AssumeLost);

impl From<&KafkaSink> for wire::KafkaSink {
    fn from(sink: &KafkaSink) -> wire::KafkaSink {
        let KafkaSink {
            topic,
            client,
            upsert,
            key_format,
            key_fields,
            key_prefix,
            value_format,
            value_has_key,
            guarantee,
            id_prefix,
            partitioner,
            spool_bytes,
            marker_lost,
            allow_rewind,
        } = sink;
        wire::KafkaSink {
            topic: topic.clone(),
            client: Some(client.into()),
            upsert: *upsert,
            key_format: key_format.as_ref().map(Into::into),
            key_fields: key_fields.clone(),
            key_prefix: key_prefix.clone(),
            value_format: Some(value_format.into()),
            value_has_key: *value_has_key,
            guarantee: guarantee.number(),
            id_prefix: id_prefix.clone(),
            partitioner: partitioner.number(),
            spool_bytes: *spool_bytes,
            marker_lost: marker_lost.number(),
            allow_rewind: *allow_rewind,
        }
    }
}

impl TryFrom<wire::KafkaSink> for KafkaSink {
    type Error = Fault;

    fn try_from(sink: wire::KafkaSink) -> Result<KafkaSink, Fault> {
        Ok(KafkaSink {
            topic: sink.topic,
            client: required(sink.client, "client")?,
            upsert: sink.upsert,
            key_format: optional(sink.key_format, "key_format")?,
            key_fields: sink.key_fields,
            key_prefix: sink.key_prefix,
            value_format: required(sink.value_format, "value_format")?,
            value_has_key: sink.value_has_key,
            guarantee: known(sink.guarantee, "guarantee")?,
            id_prefix: sink.id_prefix,
            partitioner: known(sink.partitioner, "partitioner")?,
            spool_bytes: sink.spool_bytes,
            marker_lost: known(sink.marker_lost, "marker_lost")?,
            allow_rewind: sink.allow_rewind,
        })
    }
}
