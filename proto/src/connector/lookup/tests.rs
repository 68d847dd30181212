//! Options of tables that are looked up: what is accepted, what an error says, which columns make the key.

use super::*;
use crate::schema::{DataType, Field};

fn schema() -> Schema {
    Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("site", DataType::String, true),
        Field::new("room", DataType::String, true),
        Field::new("tags", DataType::Array(Box::new(DataType::String)), true),
    ])
}

fn parse(pairs: &[(&str, &str)]) -> Result<(LookupConnector, Option<Format>, LookupOptions), OptionError> {
    let map = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let mut options = Options::new("t", map);
    let (connector, format) = LookupConnector::parse(&mut options, &schema())?;
    let common = LookupOptions::parse(&mut options, CAPACITY_DEFAULT, TIMEOUT_MS_DEFAULT)?;
    options.finish()?;
    Ok((connector, format, common))
}

const REDIS: [(&str, &str); 2] = [("connector", "redis"), ("url", "redis://localhost:6379/1")];
const HTTP: [(&str, &str); 3] = [("connector", "http"), ("format", "json"), ("url", "https://h/d/{id}?s={site}")];

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn flinks_options_of_caches_retries_and_async_lookups_are_taken() {
    let cache = [
        ("lookup.cache", "partial"),
        ("lookup.partial-cache.max-rows", "1000"),
        ("lookup.partial-cache.max-bytes", "2 mb"),
        ("lookup.partial-cache.expire-after-write", "10 min"),
        ("lookup.partial-cache.expire-after-access", "1 min"),
        ("lookup.partial-cache.cache-missing-key", "false"),
        ("lookup.max-retries", "7"),
        ("lookup.async.buffer-capacity", "20"),
        ("lookup.async.timeout", "5 s"),
        ("password", "${secret:redis}"),
        ("mode", "HASH"),
        ("key.prefix", "device:"),
    ];
    let (connector, format, options) = parse(&[&REDIS[..], &cache].concat()).expect("accepted");
    let expected = LookupCache {
        rows_max: Some(1000),
        bytes_max: 2 << 20,
        expire_after_write_ms: Some(600_000),
        expire_after_access_ms: Some(60_000),
        missing_keys: false,
    };
    assert_eq!(options, LookupOptions { cache: Some(expected), max_retries: 7, capacity: 20, timeout_ms: 5_000 });
    assert_eq!(format, None);
    let LookupConnector::Redis(redis) = connector else { panic!("{connector:?}") };
    assert_eq!(
        (redis.mode, redis.key_prefix.as_str(), redis.key_separator.as_str()),
        (RedisLookupMode::Hash, "device:", ":")
    );
    assert_eq!(redis.server.password.expect("given").as_str(), "${secret:redis}");
    let (.., plain) = parse(&REDIS).expect("accepted");
    assert_eq!(plain, LookupOptions { cache: None, max_retries: 3, capacity: 100, timeout_ms: 180_000 });
}

#[test]
fn bad_options_are_named_with_what_would_be_accepted() {
    for (base, more, expected) in [
        (&REDIS[..], ("lookup.cache", "FULL"), "found 'FULL', expected 'NONE' or 'PARTIAL'"),
        (&REDIS, ("lookup.partial-cache.max-rows", "5"), "expected 'lookup.cache' = 'PARTIAL'"),
        (&REDIS, ("lookup.max-retries", "-1"), "a whole number of at least 0"),
        (&REDIS, ("lookup.async.buffer-capacity", "0"), "from 1 to 100000"),
        (&REDIS, ("mode", "list"), "'string' or 'hash'"),
        (&REDIS, ("format", "csv"), "'json' (for a table that is looked up)"),
        (&REDIS, ("password", "hunter2"), "found a secret in plain text"),
        (&REDIS, ("kee.prefix", "x"), "did you mean 'key.prefix'"),
        (&REDIS, ("url", "localhost:6379"), "expected an address like 'redis://host:6379/0'"),
        (&REDIS, ("url", "redis://u:hunter2@localhost"), "found a user before the host"),
        (&HTTP, ("url", "https://{site}/d"), "behind the host's name only"),
        (&HTTP, ("url", "https://{site}.example/d"), "behind the host's name only"),
        (&HTTP, ("url", "https://h/{room"), "does not close its '{'"),
        (&HTTP, ("url", "https://h/{rum}"), "found '{rum}', expected one of id, site, room, tags"),
        (&HTTP, ("url", "https://h/{tags}"), "column `tags` is ARRAY<STRING>, which has no text"),
        (&HTTP, ("url", "ftp://h/{id}"), "'https://host/path/{column}'"),
        (&HTTP, ("format", "csv"), "'json'"),
        (&HTTP, ("json.ignore-parse-errors", "true"), "expected 'false'"),
        (&HTTP, ("http.header.a b", "x"), "'a b' is not the name of a header"),
    ] {
        let mut pairs: Vec<_> = base.iter().copied().filter(|(key, _)| *key != more.0).collect();
        pairs.push(more);
        let error = parse(&pairs).expect_err(more.1);
        assert!(error.message.contains(expected), "{more:?}: {error}");
        assert!(!error.message.contains("hunter2"), "{error}");
        assert!(error.key == more.0 || expected.contains("PARTIAL"), "{more:?}: {}", error.key);
    }
}

#[test]
fn options_of_the_sink_side_of_a_table_are_left_to_the_sink() {
    assert!(parse(&[&REDIS[..], &[("sink.buffer-flush.max-rows", "10")]].concat()).is_ok());
}

#[test]
fn the_key_follows_from_address_primary_key_and_comparisons() {
    let redis = parse(&REDIS).expect("accepted").0;
    let compared = names(&["id", "site"]);
    assert_eq!(redis.keys(&names(&["site"]), &compared, &compared), Ok(names(&["site"])));
    assert_eq!(redis.keys(&[], &compared, &compared), Ok(compared.clone()));
    assert_eq!(redis.keys(&names(&["id", "room"]), &compared, &compared), Err("room".into()));
    let http = parse(&HTTP).expect("accepted").0;
    assert_eq!(http.keys(&names(&["room"]), &compared, &compared), Ok(names(&["id", "site"])));
    assert_eq!(http.keys(&[], &names(&["id"]), &names(&["id"])), Err("site".into()));
    let plain: Vec<_> = HTTP.iter().map(|(k, v)| if *k == "url" { (*k, "https://h/d") } else { (*k, *v) }).collect();
    let plain = parse(&plain).expect("accepted").0;
    assert_eq!(plain.keys(&names(&["id"]), &compared, &compared), Ok(names(&["id"])));
    // Without either: what the rows are joined by; what is compared with a constant is looked at in the answer.
    assert_eq!(plain.keys(&[], &compared, &names(&["site"])), Ok(names(&["site"])));
    assert_eq!(plain.keys(&[], &compared, &[]), Ok(compared));
}

#[test]
fn secrets_in_an_address_are_no_columns() {
    let text = |text: &str| UrlPiece::Text(text.into());
    let column = |name: &str| UrlPiece::Column(name.into());
    assert_eq!(
        url_pieces("https://h/${secret:token}/{id}/x?s={site}"),
        Ok(vec![text("https://h/${secret:token}/"), column("id"), text("/x?s="), column("site")])
    );
    assert_eq!(url_pieces("https://h/"), Ok(vec![text("https://h/")]));
}

#[test]
fn a_plain_value_is_one_column_and_fields_of_a_hash_have_a_text() {
    let redis = parse(&REDIS).expect("accepted").0;
    let part = |columns: &[usize]| Schema::new(columns.iter().map(|at| schema().fields[*at].clone()).collect());
    assert_eq!(redis.fits(None, &part(&[1])), Ok(()));
    assert!(redis.fits(None, &part(&[1, 2])).expect_err("two").contains("one value for the columns site, room"));
    let hash = parse(&[&REDIS[..], &[("mode", "hash")]].concat()).expect("accepted").0;
    assert_eq!(hash.fits(None, &part(&[1, 2])), Ok(()));
    assert!(hash.fits(None, &part(&[3])).expect_err("nested").contains("column `tags`"));
    let (json, format, _) = parse(&[&REDIS[..], &[("format", "json")]].concat()).expect("accepted");
    assert_eq!(json.fits(format.as_ref(), &part(&[1, 2, 3])), Ok(()));
}
