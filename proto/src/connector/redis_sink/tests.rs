//! Options of Redis tables that are written.

use super::*;
use crate::connector::SinkConnector;
use crate::schema::{DataType, Field};
use crate::secret::Template;

const SERVER: [(&str, &str); 2] = [("connector", "redis"), ("url", "redis://cache.local:6380/2")];

fn parse(
    key: &[&str],
    columns: &[(&str, DataType)],
    pairs: &[(&str, &str)],
) -> Result<(RedisSink, Option<Format>), OptionError> {
    let map = SERVER.iter().chain(pairs).map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let mut options = Options::new("t", map);
    let fields = columns.iter().map(|(name, ty)| Field::new(*name, ty.clone(), true)).collect();
    let key: Vec<String> = key.iter().map(|name| name.to_string()).collect();
    let parsed = SinkConnector::parse(&mut options, &Schema::new(fields), &key, false)?;
    options.finish()?;
    match parsed {
        (SinkConnector::Redis(redis), format) => Ok((redis, format)),
        other => panic!("{other:?}"),
    }
}

fn two() -> Vec<(&'static str, DataType)> {
    vec![("id", DataType::Int64), ("name", DataType::String)]
}

#[test]
fn a_hash_is_upserted_by_the_primary_key_with_defaults_for_the_rest() {
    let pairs = [
        ("mode", "hash"),
        ("username", "writer"),
        ("password", "${secret:redis}"),
        ("key.prefix", "dev:"),
        ("ttl", "7 d"),
        ("sink.buffer-flush.max-rows", "50"),
        ("sink.max-retries", "3"),
        ("lookup.cache", "NONE"),
    ];
    let (redis, format) = parse(&["id"], &two(), &pairs).expect("all options are known");
    let server = RedisServer {
        host: "cache.local".into(),
        port: 6380,
        database: 2,
        tls: false,
        username: Some(Template::parse("writer").expect("plain")),
        password: Some(Template::parse("${secret:redis}").expect("a reference")),
        connect_timeout_ms: 10_000,
        command_timeout_ms: 10_000,
    };
    let expected = RedisSink {
        server,
        mode: RedisMode::Hash,
        key: None,
        key_prefix: "dev:".into(),
        key_separator: ":".into(),
        ttl_ms: Some(604_800_000),
        stream_maxlen: None,
        flush_rows: 50,
        flush_interval_ms: 1_000,
        exactly_once: false,
        max_retries: Some(3),
    };
    assert_eq!((redis, format), (expected, None));
}

/// Primary key, columns, options; the key at fault, what is said of it.
type Refused<'a> = (&'a [&'a str], &'a [(&'a str, DataType)], &'a [(&'a str, &'a str)], &'a str, &'a str);

#[test]
fn what_does_not_fit_is_refused_with_key_found_and_expected() {
    let nested = vec![("id", DataType::Array(Box::new(DataType::Int64))), ("name", DataType::String)];
    let three = [two(), vec![("x", DataType::Float64)]].concat();
    let table: &[Refused<'_>] = &[
        (&["id"], &two(), &[], "mode", "option 'mode' is missing, expected 'string', 'hash', 'stream' or 'pubsub'"),
        (&["id"], &two(), &[("mode", "list")], "mode", "found 'list', expected 'string', 'hash'"),
        (&[], &two(), &[("mode", "hash")], "mode", "'hash' needs to know the rows' keys, expected a PRIMARY KEY"),
        (&["id"], &two(), &[("mode", "hash"), ("key", "k")], "key", "takes it from the PRIMARY KEY"),
        (&[], &two(), &[("mode", "stream")], "key", "option 'key' is missing, expected the name of a stream"),
        (&["id"], &two(), &[("mode", "stream"), ("key", "k")], "key", "expected one of both"),
        (&["id"], &nested, &[("mode", "hash")], "connector", "`id` is ARRAY<BIGINT>, which has no text"),
        (&["id"], &three, &[("mode", "string")], "format", "there are 2 (name, x) besides the key"),
        (&["id"], &two()[..1], &[("mode", "hash")], "mode", "'hash' needs columns besides the PRIMARY KEY"),
        (&["id"], &two(), &[("mode", "hash"), ("format", "json")], "format", "expected none: the fields of a hash"),
        (&["id"], &two(), &[("mode", "string"), ("format", "changelog-json")], "format", "found 'changelog-json'"),
        (
            &["id"],
            &two(),
            &[("mode", "hash"), ("stream.maxlen", "9")],
            "stream.maxlen",
            "expected it with 'stream' only",
        ),
        (&[], &two(), &[("mode", "pubsub"), ("key", "k"), ("ttl", "1 s")], "ttl", "a channel keeps nothing"),
        (
            &[],
            &two(),
            &[("mode", "stream"), ("key", "k"), ("sink.delivery-guarantee", "exactly-once")],
            "sink.delivery-guarantee",
            "'stream' has no keys, expected 'at-least-once'",
        ),
        (&["id"], &two(), &[("mode", "hash"), ("password", "hunter2")], "password", "expected '${secret:name}'"),
        (&["id"], &two(), &[("mode", "hash"), ("username", "u")], "password", "option 'username' is set"),
        (&["id"], &two(), &[("mode", "hash"), ("ttl", "0 s")], "ttl", "a duration of at least 1 ms"),
        (&["id"], &two(), &[("mode", "hash"), ("sink.parallel", "2")], "sink.parallel", "unknown option"),
    ];
    for (key, columns, pairs, at, message) in table {
        let error = parse(key, columns, pairs).expect_err(message);
        assert!(error.key == *at && error.message.contains(message), "{pairs:?}: {error:?}");
        assert!(!error.message.contains("hunter2"), "{error}");
    }
}

#[test]
fn one_value_needs_no_format_and_a_stream_takes_either() {
    assert_eq!(parse(&["id"], &two(), &[("mode", "string")]).expect("one value").1, None);
    let stream = [("mode", "stream"), ("key", "s"), ("stream.maxlen", "1000")];
    assert_eq!(parse(&[], &two(), &stream).expect("fields").1, None);
    let (redis, format) = parse(&[], &two(), &[&stream[..], &[("format", "json")]].concat()).expect("a format");
    assert!(matches!(format, Some(Format::Json(_))));
    assert_eq!((redis.key.as_deref(), redis.stream_maxlen), (Some("s"), Some(1_000)));
}
