//! `'connector' = 'http'` of a table that is written: batches of rows are sent to a web service (a webhook).
//!
//! Rows are delivered at least once: a request whose answer got lost is sent again, under the same idempotency key.

use super::options::{OptionError, Options};
use super::{Format, format, http};
use crate::schema::Schema;
use crate::secret::Template;
use serde::{Deserialize, Serialize};

const BATCH_ROWS: u64 = 500;
const BATCH_BYTES: u64 = 1 << 20;
const BATCH_BYTES_MAX: u64 = 64 << 20;
const BATCH_MS: u64 = 1_000;
const REQUEST_MS: u64 = 30_000;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HttpSink {
    /// Without a user; may name secrets, as the addresses of chat services are secrets themselves.
    pub url: Template,
    pub method: HttpMethod,
    pub body: HttpBody,
    /// `'headers.<name>'`.
    pub headers: Vec<(String, Template)>,
    /// `'sink.batch.max-rows'`.
    pub batch_rows: u64,
    /// `'sink.batch.max-bytes'`; a row that is larger goes alone.
    pub batch_bytes: u64,
    /// `'sink.batch.interval'`; 0: only by rows, bytes and at checkpoints.
    pub batch_interval_ms: u64,
    /// `'sink.max-retries'` of one request. None: for ever, with back-pressure.
    pub max_retries: Option<u32>,
    pub on_client_error: OnClientError,
    /// `'sink.idempotency-header'`; None: there is no such header.
    pub idempotency_header: Option<String>,
    pub connect_timeout_ms: u64,
    /// Of one attempt.
    pub request_timeout_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HttpMethod {
    Post,
    Put,
}

/// `'sink.batch.format'`: how the rows of a batch make a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HttpBody {
    /// `[{…},{…}]`
    Array,
    /// A row a line.
    Lines,
    /// The row itself: with `'sink.batch.max-rows' = '1'`.
    Row,
}

/// `'sink.on-client-error'`: what a request that the service refuses (4xx other than 408 and 429) does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnClientError {
    Fail,
    /// Its rows are left out, counted as dropped and logged.
    Drop,
}

impl HttpMethod {
    pub const fn name(self) -> &'static str {
        match self {
            HttpMethod::Post => "POST",
            HttpMethod::Put => "PUT",
        }
    }
}

impl HttpSink {
    pub(super) fn parse(options: &mut Options, schema: &Schema) -> Result<(HttpSink, Format), OptionError> {
        let url = http::url(options, "an address like 'https://host/path'")?;
        let method = options.parsed("method", "'POST' or 'PUT'", |text| {
            [HttpMethod::Post, HttpMethod::Put].into_iter().find(|method| method.name().eq_ignore_ascii_case(text))
        })?;
        let format = json(options, schema)?;
        let batch_rows = options.positive("sink.batch.max-rows")?.unwrap_or(BATCH_ROWS);
        let body = options.parsed("sink.batch.format", "'array' or 'lines'", |text| match text {
            "array" => Some(HttpBody::Array),
            "lines" => Some(HttpBody::Lines),
            _ => None,
        })?;
        let body = body.unwrap_or(if batch_rows == 1 { HttpBody::Row } else { HttpBody::Array });
        let size = "a size from 1 byte to 64 mb like '256 kb', '1 mb'";
        let batch_bytes = options.parsed("sink.batch.max-bytes", size, |text| {
            super::parse_memory_bytes(text).filter(|bytes| (1..=BATCH_BYTES_MAX).contains(bytes))
        })?;
        let on_client_error = options.parsed("sink.on-client-error", "'fail' or 'drop'", |text| match text {
            "fail" => Some(OnClientError::Fail),
            "drop" => Some(OnClientError::Drop),
            _ => None,
        })?;
        let idempotency_header = match options.take("sink.idempotency-header") {
            None => Some("Idempotency-Key".to_owned()),
            Some(name) if name.is_empty() => None,
            Some(name) if http::is_header(&name) => Some(name),
            Some(name) => {
                let expected = "the name of a header, or '' for none";
                return Err(options.unaccepted("sink.idempotency-header", &name, expected));
            }
        };
        let sink = HttpSink {
            url,
            method: method.unwrap_or(HttpMethod::Post),
            body,
            headers: http::headers(options)?,
            batch_rows,
            batch_bytes: batch_bytes.unwrap_or(BATCH_BYTES),
            batch_interval_ms: options.duration_ms("sink.batch.interval")?.unwrap_or(BATCH_MS),
            max_retries: options.number("sink.max-retries", "a whole number, or nothing to try for ever")?,
            on_client_error: on_client_error.unwrap_or(OnClientError::Fail),
            idempotency_header,
            connect_timeout_ms: options.timeout_ms("connect.timeout", http::CONNECT_MS)?,
            request_timeout_ms: options.timeout_ms("request.timeout", REQUEST_MS)?,
        };
        // What concerns this table where it is looked up is checked there.
        options.with_prefix("lookup.");
        Ok((sink, format))
    }
}

fn json(options: &mut Options, schema: &Schema) -> Result<Format, OptionError> {
    match options.peek("format") {
        Some("json") | None => format::sink(options, schema, false),
        Some(other) => Err(options.unaccepted("format", other, "'json'")),
    }
}

#[cfg(test)]
mod tests;
