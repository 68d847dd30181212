//! Options of connectors that speak to Redis and to web services.

use super::enumeration::{Enumeration, enumeration, known};
use super::fault::{Fault, list, narrow, required, template, template_option};
use super::generated::plan as wire;
use crate::connector::{HttpBody, HttpMethod, HttpSink, OnClientError, RedisMode, RedisServer, RedisSink};
use crate::secret::Template;

enumeration!(RedisMode: String, Hash, Stream, Pubsub);
enumeration!(HttpMethod: Post, Put);
enumeration!(HttpBody: Array, Lines, Row);
enumeration!(OnClientError: Fail, Drop);

impl From<&RedisServer> for wire::RedisServer {
    fn from(server: &RedisServer) -> wire::RedisServer {
        let RedisServer { host, port, database, tls, username, password, connect_timeout_ms, command_timeout_ms } =
            server;
        wire::RedisServer {
            host: host.clone(),
            port: (*port).into(),
            database: *database,
            tls: *tls,
            username: username.as_ref().map(Template::to_string),
            password: password.as_ref().map(Template::to_string),
            connect_timeout_ms: *connect_timeout_ms,
            command_timeout_ms: *command_timeout_ms,
        }
    }
}

impl TryFrom<wire::RedisServer> for RedisServer {
    type Error = Fault;

    fn try_from(server: wire::RedisServer) -> Result<RedisServer, Fault> {
        Ok(RedisServer {
            host: server.host,
            port: narrow(server.port, "port")?,
            database: server.database,
            tls: server.tls,
            username: template_option(server.username, "username")?,
            password: template_option(server.password, "password")?,
            connect_timeout_ms: server.connect_timeout_ms,
            command_timeout_ms: server.command_timeout_ms,
        })
    }
}

impl From<&RedisSink> for wire::RedisSink {
    fn from(sink: &RedisSink) -> wire::RedisSink {
        wire::RedisSink {
            server: Some((&sink.server).into()),
            mode: sink.mode.number(),
            key: sink.key.clone(),
            key_prefix: sink.key_prefix.clone(),
            key_separator: sink.key_separator.clone(),
            ttl_ms: sink.ttl_ms,
            stream_maxlen: sink.stream_maxlen,
            flush_rows: sink.flush_rows,
            flush_interval_ms: sink.flush_interval_ms,
            max_retries: sink.max_retries,
            exactly_once: sink.exactly_once,
        }
    }
}

impl TryFrom<wire::RedisSink> for RedisSink {
    type Error = Fault;

    fn try_from(sink: wire::RedisSink) -> Result<RedisSink, Fault> {
        Ok(RedisSink {
            server: required(sink.server, "server")?,
            mode: known(sink.mode, "mode")?,
            key: sink.key,
            key_prefix: sink.key_prefix,
            key_separator: sink.key_separator,
            ttl_ms: sink.ttl_ms,
            stream_maxlen: sink.stream_maxlen,
            flush_rows: sink.flush_rows,
            flush_interval_ms: sink.flush_interval_ms,
            max_retries: sink.max_retries,
            exactly_once: sink.exactly_once,
        })
    }
}

/// A header's name and value.
impl From<&(String, Template)> for wire::HttpHeader {
    fn from((name, value): &(String, Template)) -> wire::HttpHeader {
        wire::HttpHeader { name: name.clone(), value: value.to_string() }
    }
}

impl TryFrom<wire::HttpHeader> for (String, Template) {
    type Error = Fault;

    fn try_from(header: wire::HttpHeader) -> Result<(String, Template), Fault> {
        Ok((header.name, template(&header.value, "value")?))
    }
}

impl From<&HttpSink> for wire::HttpSink {
    fn from(sink: &HttpSink) -> wire::HttpSink {
        wire::HttpSink {
            url: sink.url.to_string(),
            method: sink.method.number(),
            body: sink.body.number(),
            headers: sink.headers.iter().map(Into::into).collect(),
            batch_rows: sink.batch_rows,
            batch_bytes: sink.batch_bytes,
            batch_interval_ms: sink.batch_interval_ms,
            max_retries: sink.max_retries,
            on_client_error: sink.on_client_error.number(),
            idempotency_header: sink.idempotency_header.clone(),
            connect_timeout_ms: sink.connect_timeout_ms,
            request_timeout_ms: sink.request_timeout_ms,
        }
    }
}

impl TryFrom<wire::HttpSink> for HttpSink {
    type Error = Fault;

    fn try_from(sink: wire::HttpSink) -> Result<HttpSink, Fault> {
        Ok(HttpSink {
            url: template(&sink.url, "url")?,
            method: known(sink.method, "method")?,
            body: known(sink.body, "body")?,
            headers: list(sink.headers, "headers")?,
            batch_rows: sink.batch_rows,
            batch_bytes: sink.batch_bytes,
            batch_interval_ms: sink.batch_interval_ms,
            max_retries: sink.max_retries,
            on_client_error: known(sink.on_client_error, "on_client_error")?,
            idempotency_header: sink.idempotency_header,
            connect_timeout_ms: sink.connect_timeout_ms,
            request_timeout_ms: sink.request_timeout_ms,
        })
    }
}
