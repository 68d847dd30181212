//! Options of `'connector' = 'mqtt'`: what is accepted, and what an error says.

use super::super::{Format, OptionError, Options, SinkConnector, SourceConnector};
use super::*;

fn schema() -> Schema {
    Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("name", DataType::String, true),
        Field::new("value", DataType::Float64, true),
    ])
}

fn options(pairs: &[(&str, &str)]) -> Options {
    let base = [("connector", "mqtt"), ("url", "mqtt://broker"), ("topic", "a/b"), ("format", "json")];
    let pairs = base.iter().chain(pairs).filter(|(_, value)| !value.is_empty());
    let mut map: std::collections::BTreeMap<String, String> = Default::default();
    for (key, value) in pairs {
        map.insert((*key).into(), (*value).into());
    }
    Options::new("t", map)
}

fn source(pairs: &[(&str, &str)]) -> Result<MqttSource, OptionError> {
    let mut options = options(pairs);
    let (connector, format) = SourceConnector::parse(&mut options, &schema())?;
    options.finish()?;
    assert!(matches!(format, Some(Format::Json(_))));
    let SourceConnector::Mqtt(source) = connector else { panic!("mqtt stays mqtt") };
    Ok(source)
}

fn sink(pairs: &[(&str, &str)]) -> Result<MqttSink, OptionError> {
    let mut options = options(pairs);
    let (connector, _) = SinkConnector::parse(&mut options, &schema(), &[], false)?;
    options.finish()?;
    let SinkConnector::Mqtt(sink) = connector else { panic!("mqtt stays mqtt") };
    Ok(sink)
}

#[test]
fn defaults_keep_a_session_and_lose_nothing() {
    let source = source(&[]).expect("it is enough");
    let broker = MqttBroker { host: "broker".into(), port: 1883, tls: false };
    assert_eq!(source.connection.brokers, [broker]);
    assert_eq!((source.qos, source.ack, source.on_gap), (1, MqttAck::Log, MqttGap::Fail));
    assert_eq!((source.connection.version, source.connection.inflight), (MqttVersion::V5, 4096));
    assert_eq!((source.connection.session_expiry_ms, source.log_bytes), (7 * 86_400_000, 1 << 30));
    assert_eq!((source.group, source.dedup), (None, None));
}

#[test]
fn every_option_is_taken() {
    let source = source(&[
        ("url", "mqtts://a.example:8884; mqtts://[::1]"),
        ("topic", "plants/+/temperature; alerts/#;alerts/#"),
        ("protocol.version", "3.1.1"),
        ("qos", "2"),
        ("client.id", "gateway-7"),
        ("username", "me"),
        ("password", "${secret:broker}"),
        ("tls.ca.pem", "-----BEGIN CERTIFICATE-----"),
        ("tls.cert.pem", "${secret:cert}"),
        ("tls.key.pem", "${secret:key}"),
        ("session.expiry", "1 h"),
        ("keep-alive", "5 s"),
        ("shared.group", "g"),
        ("max.inflight", "100"),
        ("mqtt.dedup.key", "id"),
        ("mqtt.dedup.window", "1 min"),
        ("mqtt.dedup.max-size", "2 mb"),
        ("ingest.log.max-size", "256 mb"),
        ("ingest.log.on-gap", "continue"),
        ("ack", "log"),
        ("sink.retain", "true"),
        ("sink.flush-timeout", "5 s"),
    ])
    .expect("all options are known");
    let hosts: Vec<_> = source.connection.brokers.iter().map(|b| (b.host.as_str(), b.port, b.tls)).collect();
    assert_eq!(hosts, [("a.example", 8884, true), ("::1", 8883, true)]);
    assert_eq!(source.filters, ["plants/+/temperature", "alerts/#"]);
    let dedup = MqttDedup { key: MqttKey::Column("id".into()), window_ms: 60_000, bytes: 2 << 20 };
    assert_eq!((source.dedup, source.group.as_deref()), (Some(dedup), Some("g")));
    assert_eq!((source.log_bytes, source.on_gap, source.qos), (256 << 20, MqttGap::Continue, 2));
}

#[test]
fn topic_of_a_sink_may_name_columns() {
    let pieces = MqttSink::pieces("plants/{id}/{name}").expect("well-formed");
    let expected =
        [TopicPiece::Text("plants/"), TopicPiece::Column("id"), TopicPiece::Text("/"), TopicPiece::Column("name")];
    assert_eq!(pieces, expected);
    let sink =
        sink(&[("topic", "plants/{id}"), ("sink.user-properties", "a:1, b:x:y"), ("sink.message-expiry", "5 s")]);
    let sink = sink.expect("it is well-formed");
    assert_eq!(sink.user_properties, [("a".into(), "1".into()), ("b".into(), "x:y".into())]);
    assert_eq!((sink.message_expiry_ms, sink.flush_timeout_ms, sink.retain), (Some(5_000), 60_000, false));
}

#[test]
fn bad_options_say_what_was_found_and_what_would_be_accepted() {
    for (key, value, found, accepted) in [
        ("url", "http://x", "'http://x'", "'mqtt://host:1883'"),
        ("url", "mqtt://x:0", "'mqtt://x:0'", "'mqtts://host:8883'"),
        ("url", "mqtt://me:pw@x", "a user", "'username' and 'password'"),
        ("protocol.version", "4", "'4'", "'5' or '3.1.1'"),
        ("qos", "3", "'3'", "'0', '1' or '2'"),
        ("topic", "a/#/b", "'a/#/b'", "'plants/#'"),
        ("topic", "a+/b", "'a+/b'", "'plants/+/temperature'"),
        ("topic", "$share/g/a", "'$share/g/a'", "'shared.group'"),
        ("topic", ";", "';'", "filters"),
        ("password", "s3cret", "plain text", "${secret:name}"),
        ("tls.key.pem", "-----BEGIN PRIVATE KEY-----", "plain text", "${secret:name}"),
        ("tls.cert.pem", "x", "'tls.key.pem' is missing", "together"),
        ("tls.ca.pem", "x", "no broker is reached by TLS", "'mqtts://…'"),
        ("session.expiry", "10 ms", "'10 ms'", "'7 d'"),
        ("max.inflight", "0", "'0'", "1 to 65535"),
        ("shared.group", "a/b", "'a/b'", "without '/'"),
        ("ack", "never", "'never'", "'log' or 'checkpoint'"),
        ("ingest.log.max-size", "1 mb", "'1 mb'", "at least 4 mb"),
        ("ingest.log.on-gap", "skip", "'skip'", "'fail' or 'continue'"),
        ("mqtt.dedup.key", "value", "DOUBLE", "STRING, BYTES or a whole number"),
        ("mqtt.dedup.key", "idd", "'idd'", "'property:NAME'"),
        ("keepalive", "5 s", "unknown option 'keepalive'", "'keep-alive'"),
    ] {
        let error = source(&[(key, value)]).expect_err(value).to_string();
        assert!(error.contains(found) && error.contains(accepted) && error.contains("table `t`"), "{key}: {error}");
        assert!(!error.contains("s3cret") && !error.contains(":pw"), "{error}");
    }
    let small = [("mqtt.dedup.key", "id"), ("ingest.log.max-size", "4 mb")];
    let error = source(&small).expect_err("the keys alone would fill it").to_string();
    assert!(error.contains("at least 8 mb") && error.contains("twice 4096"), "{error}");
    source(&[&small[..], &[("max.inflight", "2048")]].concat()).expect("with fewer under way it is enough");
    for (key, value, found) in [
        ("topic", "a/#", "'a/#'"),
        ("topic", "{value}", "of type DOUBLE"),
        ("topic", "{none}", "no column of the table"),
        ("topic", "{id", "'{id'"),
        ("sink.user-properties", "a", "'a'"),
        ("sink.flush-timeout", "0 s", "'0 s'"),
    ] {
        let error = sink(&[(key, value)]).expect_err(value).to_string();
        assert!(error.contains(found) && error.contains("expected"), "{key}: {error}");
    }
    let old = [("protocol.version", "3.1.1"), ("sink.content-type", "text/plain")];
    assert!(sink(&old).expect_err("3.1.1 has none").to_string().contains("'protocol.version' = '5'"));
    let both = [("mqtt.dedup.key", "id"), ("ack", "checkpoint")];
    assert!(source(&both).expect_err("no log").to_string().contains("'ack' = 'log'"));
    let nobody = [("protocol.version", "3.1.1"), ("password", "${secret:x}")];
    assert!(source(&nobody).expect_err("no user").to_string().contains("'username'"));
}

#[test]
fn metadata_columns_have_their_types() {
    let field = |ty, nullable| Field::new("c", ty, nullable);
    let map = DataType::Map(Box::new(DataType::String), Box::new(DataType::String));
    for (key, ty) in [
        ("topic", DataType::String),
        ("qos", DataType::Int32),
        ("retain", DataType::Boolean),
        ("dup", DataType::Boolean),
        ("received-time", DataType::TimestampLtz(Unit::Milli)),
        ("content-type", DataType::String),
        ("response-topic", DataType::String),
        ("correlation-data", DataType::Bytes),
        ("user-properties", map),
        ("message-expiry", DataType::Int64),
    ] {
        assert!(METADATA.contains(&key));
        assert_eq!(metadata_refused(key, &field(ty, true)), None, "{key}");
        assert!(metadata_refused(key, &field(DataType::Float32, true)).is_some(), "{key}");
    }
    assert_eq!(
        metadata_refused("message-expiry", &field(DataType::Int64, false)),
        Some("BIGINT (seconds) that may be NULL")
    );
}
