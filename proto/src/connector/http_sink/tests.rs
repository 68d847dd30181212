//! Options of tables that are written to web services.

use super::*;
use crate::connector::SinkConnector;
use crate::schema::{DataType, Field};

fn parse(pairs: &[(&str, &str)]) -> Result<HttpSink, OptionError> {
    let basic = [("connector", "http"), ("url", "https://hooks.example/in?x=1"), ("format", "json")];
    let mut map: std::collections::BTreeMap<String, String> =
        basic.iter().chain(pairs).map(|(k, v)| (k.to_string(), v.to_string())).collect();
    map.retain(|_, value| value != "(none)");
    let mut options = Options::new("t", map);
    let schema = Schema::new(vec![Field::new("id", DataType::Int64, true)]);
    let parsed = SinkConnector::parse(&mut options, &schema, &[], false)?;
    options.finish()?;
    match parsed {
        (SinkConnector::Http(http), Some(Format::Json(_))) => Ok(http),
        other => panic!("{other:?}"),
    }
}

#[test]
fn batches_are_arrays_unless_the_table_says_otherwise() {
    let http = parse(&[]).expect("enough");
    assert_eq!((http.method, http.body, http.batch_rows), (HttpMethod::Post, HttpBody::Array, 500));
    assert_eq!(http.idempotency_header.as_deref(), Some("Idempotency-Key"));
    assert_eq!((http.on_client_error, http.max_retries), (OnClientError::Fail, None));
    assert_eq!(parse(&[("sink.batch.max-rows", "1")]).expect("known").body, HttpBody::Row);
    let http = parse(&[
        ("method", "put"),
        ("sink.batch.max-rows", "1"),
        ("sink.batch.format", "lines"),
        ("sink.batch.max-bytes", "64 kb"),
        ("sink.on-client-error", "drop"),
        ("sink.idempotency-header", ""),
        ("headers.X-Plant", "a"),
        ("headers.Authorization", "Bearer ${secret:token}"),
    ]);
    let http = http.expect("all options are known");
    assert_eq!((http.method, http.body, http.batch_bytes), (HttpMethod::Put, HttpBody::Lines, 64 << 10));
    assert_eq!((http.on_client_error, http.idempotency_header), (OnClientError::Drop, None));
    let headers: Vec<_> = http.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(headers, [("Authorization", "Bearer ${secret:token}"), ("X-Plant", "a")]);
}

#[test]
fn an_address_may_be_a_secret_as_a_whole() {
    assert_eq!(parse(&[("url", "${secret:hook}")]).expect("checked later").url.as_str(), "${secret:hook}");
    assert!(parse(&[("url", "https://h/${secret:token}")]).is_ok());
}

#[test]
fn what_does_not_fit_is_refused_with_key_found_and_expected() {
    for (key, value, message) in [
        ("url", "(none)", "option 'url' is missing, expected an address like 'https://host/path'"),
        ("url", "ftp://host", "found 'ftp://host', expected an address"),
        ("url", "https://", "expected an address"),
        ("url", "https://u:hunter2@host/x", "found a user before the host"),
        ("url", "https://host/a b", "expected an address"),
        ("method", "GET", "found 'GET', expected 'POST' or 'PUT'"),
        ("format", "csv", "found 'csv', expected 'json'"),
        ("format", "(none)", "option 'format' is missing"),
        ("sink.batch.format", "xml", "expected 'array' or 'lines'"),
        ("sink.batch.max-rows", "0", "a whole number greater than 0"),
        ("sink.batch.max-bytes", "1 gb", "a size from 1 byte to 64 mb"),
        ("sink.on-client-error", "retry", "expected 'fail' or 'drop'"),
        ("sink.idempotency-header", "a b", "the name of a header, or '' for none"),
        ("headers.Authorization", "Bearer hunter2", "found a secret in plain text"),
        ("headers.a b", "x", "is not the name of a header"),
        ("headers.Content-Length", "5", "follows from the request"),
        ("header.X", "5", "unknown option 'header.X'"),
    ] {
        let error = parse(&[(key, value)]).expect_err(message);
        assert!(error.key == key && error.message.contains(message), "{key} = {value}: {error:?}");
        assert!(!error.message.contains("hunter2"), "{error}");
    }
}
