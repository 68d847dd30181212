//! Options of a Kafka table that is read: what is accepted, and what an error says.

use super::*;
use crate::connector::{SourceCommon, SourceConnector};
use crate::schema::Unit;

fn schema() -> Schema {
    Schema::new(vec![
        Field::new("k_device", DataType::String, true),
        Field::new("k_line", DataType::Int32, true),
        Field::new("value", DataType::Float64, true),
    ])
}

/// As a table does that is read: `connector`, `topic`, brokers, mode and format unless others are given.
fn parse(pairs: &[(&str, &str)]) -> Result<(KafkaSource, Format), String> {
    let mut map: BTreeMap<String, String> = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let mut default = |key: &str, unless: &str, value: &str| {
        if !map.contains_key(unless) {
            map.entry(key.to_owned()).or_insert(value.to_owned());
        }
    };
    default("connector", "connector", "kafka");
    default("topic", "topic-pattern", "t");
    default("properties.bootstrap.servers", "", "b:9092");
    default("scan.startup.mode", "no mode", "earliest-offset");
    default("format", "value.format", "json");
    map.remove("no mode");
    let mut options = Options::new("t", map);
    let (connector, format) = SourceConnector::parse(&mut options, &schema()).map_err(|error| error.message)?;
    SourceCommon::parse(&mut options).map_err(|error| error.message)?;
    options.finish().map_err(|error| error.message)?;
    let SourceConnector::Kafka(kafka) = connector else { panic!("a Kafka source") };
    Ok((kafka, format.expect("a source has a format")))
}

#[test]
fn a_kafka_source_takes_flinks_options() {
    let (source, format) = parse(&[
        ("topic", "b; a ;b"),
        ("properties.group.id", "g"),
        ("properties.auto.offset.reset", "latest"),
        ("properties.isolation.level", "read_uncommitted"),
        ("scan.startup.mode", "group-offsets"),
        ("scan.topic-partition-discovery.interval", "10 s"),
        ("scan.watermark.idle-timeout", "1 s"),
        ("value.format", "json"),
        ("value.json.ignore-parse-errors", "true"),
        ("value.fields-include", "EXCEPT_KEY"),
        ("key.format", "csv"),
        ("key.csv.field-delimiter", "|"),
        ("key.fields", "k_line;k_device"),
        ("key.fields-prefix", "k_"),
        ("sink.delivery-guarantee", "exactly-once"),
    ])
    .expect("all options are known");
    assert_eq!(source.topics, KafkaTopics::Names(vec!["a".into(), "b".into()]));
    assert_eq!((source.group.as_deref(), source.reset), (Some("g"), Some(KafkaReset::Latest)));
    assert_eq!(source.startup, KafkaStartup::Group);
    assert_eq!((source.bounded, source.discovery_ms), (KafkaBounded::Unbounded, Some(10_000)));
    let key = source.key.expect("there is one");
    assert_eq!((key.columns, key.prefix.as_str()), (vec![1, 0], "k_"), "in the order of 'key.fields'");
    assert!(matches!(key.format, Format::Csv(csv) if csv.delimiter == b'|'));
    assert!(matches!(format, Format::Json(json) if json.on_error == crate::connector::OnError::Null));
}

#[test]
fn modes_take_what_belongs_to_them() {
    let modes = |pairs: &[(&str, &str)]| parse(pairs).map(|(source, _)| (source.startup, source.bounded));
    assert_eq!(modes(&[]), Ok((KafkaStartup::Earliest, KafkaBounded::Unbounded)));
    assert_eq!(
        modes(&[
            ("scan.startup.mode", "specific-offsets"),
            ("scan.startup.specific-offsets", "partition:1,offset:300; partition:0,offset:42;"),
            ("scan.bounded.mode", "timestamp"),
            ("scan.bounded.timestamp-millis", "1773471540000"),
        ]),
        Ok((KafkaStartup::Offsets(vec![(0, 42), (1, 300)]), KafkaBounded::Timestamp(1_773_471_540_000)))
    );
    let bounded = parse(&[("scan.bounded.mode", "latest-offset")]).expect("valid").0;
    assert_eq!((bounded.bounded, bounded.discovery_ms), (KafkaBounded::Latest, None));
}

#[test]
fn errors_name_the_option_what_was_found_and_what_is_expected() {
    for (pairs, expected) in [
        (&[("topic", "a b")][..], "option 'topic': a topic cannot be called 'a b'"),
        (&[("topic", "a"), ("topic-pattern", "b")], "'topic' and 'topic-pattern' are both given"),
        (&[("properties.auto.offset.reset", "smallest")], "found 'smallest', expected 'earliest', 'latest' or 'none'"),
        (&[("scan.startup.mode", "newest")], "found 'newest', expected 'earliest-offset', 'latest-offset'"),
        (&[("scan.startup.mode", "group-offsets")], "expected 'properties.group.id' with it"),
        (&[("scan.startup.mode", "timestamp")], "'scan.startup.timestamp-millis' is missing"),
        (&[("scan.startup.timestamp-millis", "1")], "'scan.startup.mode' is 'earliest-offset', expected 'timestamp'"),
        (
            &[("scan.bounded.mode", "specific-offsets"), ("scan.bounded.specific-offsets", "0:1")],
            "found '0:1', expected offsets like 'partition:0,offset:42;partition:1,offset:300'",
        ),
        (
            &[
                ("topic", "a;b"),
                ("scan.bounded.mode", "specific-offsets"),
                ("scan.bounded.specific-offsets", "partition:0,offset:1"),
            ],
            "'scan.bounded.specific-offsets' is for a table of one topic",
        ),
        (&[("key.format", "json")], "option 'key.fields' is missing"),
        (&[("key.fields", "value")], "option 'key.format' is missing"),
        (
            &[("key.format", "json"), ("key.fields", "device")],
            "there is no column 'device', expected some of 'k_device'",
        ),
        (&[("key.format", "yaml"), ("key.fields", "value")], "option 'key.format': found 'yaml', expected 'json'"),
        (
            &[
                ("key.format", "json"),
                ("key.fields", "value"),
                ("key.fields-prefix", "k_"),
                ("value.fields-include", "EXCEPT_KEY"),
            ],
            "column 'value' does not begin with 'key.fields-prefix' 'k_'",
        ),
        (
            &[("key.format", "json"), ("key.fields", "k_line"), ("key.fields-prefix", "k_")],
            "expected 'value.fields-include' = 'EXCEPT_KEY'",
        ),
        (&[("format", "json"), ("value.format", "json")], "options 'format' and 'value.format' are both given"),
        (
            &[("scan.bounded.moed", "latest-offset")],
            "unknown option 'scan.bounded.moed', did you mean 'scan.bounded.mode'",
        ),
        (
            &[("value.format", "json"), ("json.ignore-parse-errors", "true")],
            "did you mean 'value.json.ignore-parse-errors'",
        ),
        (&[("connector", "upsert-kafka")], "'upsert-kafka' can be written, not read"),
    ] {
        let error = parse(pairs).expect_err(expected);
        assert!(error.contains(expected) && error.starts_with("table `t`: "), "{error}\nexpected {expected}");
    }
}

#[test]
fn an_error_table_makes_key_and_value_skip() {
    let (source, format) = parse(&[
        ("key.format", "json"),
        ("key.fields", "k_line"),
        ("value.fields-include", "EXCEPT_KEY"),
        ("error.table", "dead"),
    ])
    .expect("valid");
    let skips =
        |format: &Format| matches!(format, Format::Json(json) if json.on_error == crate::connector::OnError::Skip);
    assert!(skips(&format) && skips(&source.key.expect("there is one").format));
}

#[test]
fn pruning_keeps_the_columns_of_the_key_in_step() {
    let options = [("key.format", "json"), ("key.fields", "k_device;k_line"), ("value.fields-include", "EXCEPT_KEY")];
    let (mut source, _) = parse(&options).expect("valid");
    source.prune(&[1, 2]);
    assert_eq!(source.key.as_ref().map(|key| key.columns.clone()), Some(vec![0]));
    source.prune(&[1]);
    assert_eq!(source.key, None, "nothing of it is read");
}

#[test]
fn metadata_columns_have_the_types_that_hold_them() {
    let refused = |key, ty, nullable| metadata_refused(key, &Field::new("c", ty, nullable));
    let bytes_map = || DataType::Map(DataType::String.into(), DataType::Bytes.into());
    for (key, ty, nullable) in [
        ("topic", DataType::String, false),
        ("partition", DataType::Int32, false),
        ("offset", DataType::Int64, false),
        ("timestamp", DataType::TimestampLtz(Unit::Milli), false),
        ("timestamp", DataType::Timestamp(Unit::Micro), true),
        ("timestamp-type", DataType::String, false),
        ("headers", bytes_map(), false),
        ("leader-epoch", DataType::Int32, true),
        ("key", DataType::Bytes, true),
    ] {
        assert_eq!(refused(key, ty, nullable), None, "{key}");
    }
    assert_eq!(refused("partition", DataType::String, false), Some("INT or BIGINT"));
    assert_eq!(refused("key", DataType::Bytes, false), Some("BYTES or STRING that may be NULL"));
    assert_eq!(refused("headers", DataType::Map(DataType::Int32.into(), DataType::Bytes.into()), true), Some(HEADERS));
}
