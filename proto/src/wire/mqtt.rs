//! Options of the `mqtt` connector.

use super::enumeration::{Enumeration, enumeration, known};
use super::fault::{Fault, chosen, list, narrow, optional, required, template_option};
use super::generated::plan as wire;
use super::generated::plan::mqtt_dedup::Key;
use crate::connector::{
    MqttAck, MqttBroker, MqttConnection, MqttDedup, MqttGap, MqttKey, MqttSink, MqttSource, MqttVersion,
};
use crate::secret::Template;

enumeration!(MqttVersion: V5, V311);
enumeration!(MqttAck: Log, Checkpoint);
enumeration!(MqttGap: Fail, Continue);

fn text(template: &Option<Template>) -> Option<String> {
    template.as_ref().map(|template| template.as_str().to_owned())
}

fn qos(value: u32) -> Result<u8, Fault> {
    if value > 2 {
        return Err(Fault::new("qos", format!("{value} is none; this version knows 0, 1, 2")));
    }
    narrow(value, "qos")
}

impl From<&MqttConnection> for wire::MqttConnection {
    fn from(connection: &MqttConnection) -> wire::MqttConnection {
        let MqttConnection {
            brokers,
            version,
            client_id,
            username,
            password,
            ca,
            certificate,
            key,
            session_expiry_ms,
            keep_alive_ms,
            inflight,
        } = connection;
        wire::MqttConnection {
            brokers: brokers.iter().map(Into::into).collect(),
            version: version.number(),
            client_id: client_id.clone(),
            username: text(username),
            password: text(password),
            ca: text(ca),
            certificate: text(certificate),
            key: text(key),
            session_expiry_ms: *session_expiry_ms,
            keep_alive_ms: *keep_alive_ms,
            inflight: (*inflight).into(),
        }
    }
}

impl TryFrom<wire::MqttConnection> for MqttConnection {
    type Error = Fault;

    fn try_from(connection: wire::MqttConnection) -> Result<MqttConnection, Fault> {
        Ok(MqttConnection {
            brokers: list(connection.brokers, "brokers")?,
            version: known(connection.version, "version")?,
            client_id: connection.client_id,
            username: template_option(connection.username, "username")?,
            password: template_option(connection.password, "password")?,
            ca: template_option(connection.ca, "ca")?,
            certificate: template_option(connection.certificate, "certificate")?,
            key: template_option(connection.key, "key")?,
            session_expiry_ms: connection.session_expiry_ms,
            keep_alive_ms: connection.keep_alive_ms,
            inflight: narrow(connection.inflight, "inflight")?,
        })
    }
}

impl From<&MqttBroker> for wire::MqttBroker {
    fn from(MqttBroker { host, port, tls }: &MqttBroker) -> wire::MqttBroker {
        wire::MqttBroker { host: host.clone(), port: (*port).into(), tls: *tls }
    }
}

impl TryFrom<wire::MqttBroker> for MqttBroker {
    type Error = Fault;

    fn try_from(broker: wire::MqttBroker) -> Result<MqttBroker, Fault> {
        Ok(MqttBroker { host: broker.host, port: narrow(broker.port, "port")?, tls: broker.tls })
    }
}

impl From<&MqttSource> for wire::MqttSource {
    fn from(source: &MqttSource) -> wire::MqttSource {
        let MqttSource { connection, filters, qos, group, dedup, ack, log_bytes, on_gap } = source;
        wire::MqttSource {
            connection: Some(connection.into()),
            filters: filters.clone(),
            qos: (*qos).into(),
            group: group.clone(),
            dedup: dedup.as_ref().map(Into::into),
            ack: ack.number(),
            log_bytes: *log_bytes,
            on_gap: on_gap.number(),
        }
    }
}

impl TryFrom<wire::MqttSource> for MqttSource {
    type Error = Fault;

    fn try_from(source: wire::MqttSource) -> Result<MqttSource, Fault> {
        Ok(MqttSource {
            connection: required(source.connection, "connection")?,
            filters: source.filters,
            qos: qos(source.qos)?,
            group: source.group,
            dedup: optional(source.dedup, "dedup")?,
            ack: known(source.ack, "ack")?,
            log_bytes: source.log_bytes,
            on_gap: known(source.on_gap, "on_gap")?,
        })
    }
}

impl From<&MqttDedup> for wire::MqttDedup {
    fn from(MqttDedup { key, window_ms, bytes }: &MqttDedup) -> wire::MqttDedup {
        let key = match key {
            MqttKey::Column(name) => Key::Column(name.clone()),
            MqttKey::UserProperty(name) => Key::UserProperty(name.clone()),
        };
        wire::MqttDedup { key: Some(key), window_ms: *window_ms, bytes: *bytes }
    }
}

impl TryFrom<wire::MqttDedup> for MqttDedup {
    type Error = Fault;

    fn try_from(dedup: wire::MqttDedup) -> Result<MqttDedup, Fault> {
        let key = match chosen(dedup.key, "key", "column, user_property")? {
            Key::Column(name) => MqttKey::Column(name),
            Key::UserProperty(name) => MqttKey::UserProperty(name),
        };
        Ok(MqttDedup { key, window_ms: dedup.window_ms, bytes: dedup.bytes })
    }
}

impl From<&MqttSink> for wire::MqttSink {
    fn from(sink: &MqttSink) -> wire::MqttSink {
        let MqttSink {
            connection,
            topic,
            qos,
            retain,
            message_expiry_ms,
            content_type,
            user_properties,
            flush_timeout_ms,
        } = sink;
        let property =
            |(name, value): &(String, String)| wire::MqttProperty { name: name.clone(), value: value.clone() };
        wire::MqttSink {
            connection: Some(connection.into()),
            topic: topic.clone(),
            qos: (*qos).into(),
            retain: *retain,
            message_expiry_ms: *message_expiry_ms,
            content_type: content_type.clone(),
            user_properties: user_properties.iter().map(property).collect(),
            flush_timeout_ms: *flush_timeout_ms,
        }
    }
}

impl TryFrom<wire::MqttSink> for MqttSink {
    type Error = Fault;

    fn try_from(sink: wire::MqttSink) -> Result<MqttSink, Fault> {
        Ok(MqttSink {
            connection: required(sink.connection, "connection")?,
            topic: sink.topic,
            qos: qos(sink.qos)?,
            retain: sink.retain,
            message_expiry_ms: sink.message_expiry_ms,
            content_type: sink.content_type,
            user_properties: sink.user_properties.into_iter().map(|pair| (pair.name, pair.value)).collect(),
            flush_timeout_ms: sink.flush_timeout_ms,
        })
    }
}
