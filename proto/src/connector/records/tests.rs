//! Formats of messages: what their options take, and what is refused before anything runs.

use crate::connector::format::{sink, source};
use crate::connector::{Format, OptionError, Options, RegistryAuth};
use crate::schema::{DataType, Field, Schema, Unit};

fn columns(types: &[DataType]) -> Schema {
    let field = |(i, ty): (usize, &DataType)| Field::new(format!("c{i}"), ty.clone(), true);
    Schema::new(types.iter().enumerate().map(field).collect())
}

fn parse(pairs: &[(&str, &str)], schema: &Schema, written: bool) -> Result<Format, OptionError> {
    let mut options = Options::new("t", pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect());
    let format = if written { sink(&mut options, schema, false)? } else { source(&mut options, schema)? };
    options.finish()?;
    Ok(format)
}

#[test]
fn raw_is_one_column() {
    let one = columns(&[DataType::Int32]);
    let Ok(Format::Raw(raw)) =
        parse(&[("format", "raw"), ("raw.endianness", "little-endian"), ("raw.charset", "utf-8")], &one, false)
    else {
        panic!("raw expected")
    };
    assert!(!raw.big_endian);
    let error = parse(&[("format", "raw")], &columns(&[DataType::String, DataType::Int8]), true).unwrap_err();
    assert_eq!(error.message, "table `t`: option 'format': 'raw' is one column, found `c0` STRING, `c1` TINYINT");
    let error = parse(&[("format", "raw")], &columns(&[DataType::Date]), true).unwrap_err();
    assert!(error.message.contains("column `c0` of type DATE"), "{error}");
    let error = parse(&[("format", "raw"), ("raw.charset", "GBK")], &one, false).unwrap_err();
    assert_eq!(error.message, "table `t`: option 'raw.charset': found 'GBK', expected 'UTF-8'");
}

#[test]
fn avro_takes_what_has_a_schema() {
    let pairs = [("format", "avro"), ("avro.timestamp_mapping.legacy", "false")];
    let parse = |ty: DataType| parse(&pairs, &columns(&[ty]), true);
    assert!(matches!(parse(DataType::Timestamp(Unit::Micro)), Ok(Format::Avro(avro)) if !avro.legacy_timestamps));
    for (ty, says) in [
        (DataType::Timestamp(Unit::Nano), "at most 6 digits"),
        (DataType::Interval, "avro cannot hold INTERVAL"),
        (DataType::Map(Box::new(DataType::Int32), Box::new(DataType::Int32)), "expected STRING keys"),
        (DataType::Array(Box::new(DataType::Row(vec![Field::new("a b", DataType::Int8, true)]))), "no field 'a b'"),
    ] {
        let error = parse(ty).unwrap_err();
        assert!(error.message.contains("column `c0`") && error.message.contains(says), "{error}");
    }
}

#[test]
fn avro_is_binary() {
    let schema = columns(&[DataType::Int64]);
    let error = parse(&[("format", "avro"), ("avro.encoding", "json")], &schema, false).unwrap_err();
    assert_eq!(error.message, "table `t`: option 'avro.encoding': found 'json', expected 'binary'");
    assert!(parse(&[("format", "avro"), ("avro.encoding", "binary")], &schema, false).is_ok());
}

#[test]
fn a_registry_is_addressed_and_its_credentials_are_secrets() {
    let schema = columns(&[DataType::Int64]);
    let with = |more: &[(&str, &str)], written| {
        let pairs =
            [&[("format", "avro-confluent"), ("avro-confluent.url", "http://registry:8081/")][..], more].concat();
        parse(&pairs, &schema, written)
    };
    let subject = ("avro-confluent.subject", "t-value");
    let user = ("avro-confluent.basic-auth.user-info", "${secret:registry}");
    let source = ("avro-confluent.basic-auth.credentials-source", "USER_INFO");
    let Ok(Format::AvroConfluent(confluent)) = with(&[subject, user, source], true) else {
        panic!("avro-confluent expected")
    };
    assert_eq!((confluent.url.as_str(), confluent.subject.as_deref()), ("http://registry:8081", Some("t-value")));
    assert!(matches!(confluent.auth, RegistryAuth::Basic(user) if user.as_str() == "${secret:registry}"));
    assert!(with(&[], false).is_ok());
    for (more, written, says) in [
        (&[][..], true, "option 'avro-confluent.subject' is missing"),
        (&[("avro-confluent.basic-auth.user-info", "u:p")], false, "found a secret in plain text"),
        (&[user, ("avro-confluent.bearer-auth.token", "${secret:x}")], false, "expected one"),
        (&[("avro-confluent.url", "http://u:p@registry")], false, "without user or password"),
        (&[("avro-confluent.url", "registry:8081")], false, "expected the registry's address"),
        (&[("avro-confluent.basic-auth.credentials-source", "URL")], false, "expected 'USER_INFO'"),
    ] {
        let error = with(more, written).unwrap_err();
        assert!(error.message.contains(says) && !error.message.contains("u:p"), "{error}");
    }
}

#[test]
fn a_change_of_rows_is_read_and_written_as_debezium_json() {
    let schema = columns(&[DataType::Int64]);
    let pairs = [
        ("format", "debezium-json"),
        ("debezium-json.schema-include", "true"),
        ("debezium-json.ignore-parse-errors", "true"),
    ];
    let Ok(format) = parse(&pairs, &schema, false) else { panic!("debezium-json expected") };
    assert!(format.reads_changelog() && format.writes_changelog() && !format.is_positional());
    assert!(matches!(&format, Format::DebeziumJson(debezium) if debezium.schema_include));
    let mut options = Options::new("t", [("format".to_owned(), "debezium-json".to_owned())].into());
    assert!(sink(&mut options, &schema, true).is_ok());
}

#[test]
fn protobuf_needs_a_descriptor_and_a_message() {
    let schema = columns(&[DataType::Int64]);
    let error = parse(&[("format", "protobuf")], &schema, false).unwrap_err();
    assert!(error.message.contains("option 'protobuf.message-class-name' is missing"), "{error}");
    let name = ("protobuf.message-class-name", "a.B");
    let error = parse(&[("format", "protobuf"), name], &schema, false).unwrap_err();
    assert!(error.key == "protobuf.descriptor-file" && error.message.contains("--descriptor_set_out=FILE"), "{error}");
    let error = parse(&[("format", "protobuf"), name, ("protobuf.descriptor", "!")], &schema, false).unwrap_err();
    assert!(error.message.contains("the descriptor is no base64"), "{error}");
}
