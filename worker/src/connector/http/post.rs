//! One attempt to deliver a request: no redirects, no proxy, bounded in time and in what is read of the answer. The status
//! decides: 2xx is delivered; 408, 425, 429 and 5xx are tried again, when the service says; other refusals go by
//! `'sink.on-client-error'`.

use super::body::Request;
use crate::connector::Place;
use crate::connector::delivery::{Carrier, Outcome};
use crate::connector::net::guard::Guard;
use crate::connector::net::mask::Masks;
use crate::connector::net::{http, request};
use crate::error::{Code, Context, Error, Result};
use crate::secrets::Secrets;
use ef_proto::connector::{HttpBody, HttpMethod, HttpSink, OnClientError};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Response, StatusCode, Url};
use std::time::Duration;
use tokio::runtime::Runtime;

/// Read of an answer that says no, for its message; and of one that says yes, so that its connection is used again.
const REFUSAL_BYTES: usize = 4 << 10;
const ANSWER_BYTES: usize = 64 << 10;

pub struct Poster {
    options: HttpSink,
    secrets: Secrets,
    guard: Guard,
    client: Client,
    /// Of this thread alone.
    runtime: Runtime,
}

/// Where a request goes, with secrets in it.
struct Target {
    url: Url,
    headers: HeaderMap,
    masks: Masks,
}

impl Poster {
    /// Does not connect. Its secrets must be there.
    pub fn new(options: &HttpSink, place: &Place, guard: Guard) -> Result<Poster> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let [connect, request] = [options.connect_timeout_ms, options.request_timeout_ms].map(Duration::from_millis);
        let poster = Poster {
            options: options.clone(),
            secrets: place.secrets.clone(),
            guard,
            client: http::client(guard, 1, connect, request, &place.table)?,
            runtime: runtime.unavailable(|| format!("table `{}`: a runtime for HTTP", place.table))?,
        };
        poster.target()?;
        Ok(poster)
    }

    fn at(&self) -> String {
        format!("{} '{}'", self.options.method.name(), self.options.url)
    }

    /// Looked up anew each time: a rotated token is taken with the next request.
    fn target(&self) -> Result<Target> {
        let wrong = |what: &str| Error::invalid(format!("{}: {what}", self.at()));
        let revealed = self.secrets.reveal(&self.options.url)?;
        let url = http::address(revealed.expose(), self.guard).map_err(|what| wrong(&what))?;
        let mut headers = HeaderMap::new();
        let content = if self.options.body == HttpBody::Lines { "application/x-ndjson" } else { "application/json" };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content));
        let mut secrets: Vec<String> = Vec::new();
        if self.options.url.is_reference() {
            // As it was given, and as it is written in a request; each secret by itself, and each part of the address that is
            // not in the table's text.
            secrets.extend([revealed.expose().trim().to_owned(), url.to_string()]);
            secrets.extend(self.secrets.values(&self.options.url)?);
            let shown = self.options.url.to_string();
            let parts = url.query().into_iter().flat_map(|query| query.split(['&', '=']));
            let parts = parts.chain(url.path().split('/')).filter(|part| !shown.contains(part));
            secrets.extend(parts.map(str::to_owned));
            // A longer one may hold a shorter one.
            secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        }
        secrets.extend(request::add_headers(&mut headers, &self.options.headers, &self.secrets, wrong)?);
        Ok(Target { url, headers, masks: Masks::new(secrets) })
    }

    async fn post(&self, request: &Request) -> Outcome {
        // A secret that is being replaced may be away for a moment; it was there at the start.
        let Target { url, mut headers, masks } = match self.target() {
            Ok(target) => target,
            Err(error) if error.code == Code::NotFound => return again(error.message, None),
            Err(error) => return Outcome::Failed(error),
        };
        if let Some(name) = &self.options.idempotency_header
            && let (Ok(name), Ok(key)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&request.key))
        {
            headers.insert(name, key);
        }
        let method = match self.options.method {
            HttpMethod::Post => Method::POST,
            HttpMethod::Put => Method::PUT,
        };
        let sent = self.client.request(method, url).headers(headers).body(request.body.clone()).send().await;
        match sent {
            Ok(response) => self.answered(response, &masks).await,
            Err(error) => {
                let Error { code, message } = http::failed(error);
                let why = format!("{}: {}", self.at(), masks.hide(&message));
                if code == Code::Invalid { Outcome::Failed(Error::invalid(why)) } else { again(why, None) }
            }
        }
    }

    async fn answered(&self, response: Response, masks: &Masks) -> Outcome {
        let status = response.status();
        let after_ms = request::retry_after_ms(response.headers());
        let verdict = Verdict::of(status);
        let limit = if verdict == Verdict::Delivered { ANSWER_BYTES } else { REFUSAL_BYTES };
        let body = read(response, limit).await;
        let words = masks.hide(&String::from_utf8_lossy(&body));
        let colon = if words.is_empty() { "" } else { ": " };
        let why = format!("{}: {status}{colon}{words}", self.at());
        match (verdict, self.options.on_client_error) {
            (Verdict::Delivered, _) => Outcome::Delivered,
            (Verdict::Again, _) => again(why, after_ms),
            (Verdict::Elsewhere, _) => Outcome::Failed(Error::invalid(format!(
                "{why}; redirects are not followed, expected the final address"
            ))),
            (Verdict::Refused, OnClientError::Fail) => Outcome::Failed(Error::invalid(why)),
            (Verdict::Refused, OnClientError::Drop) => Outcome::Refused { why },
        }
    }
}

impl Carrier for Poster {
    type Parcel = Request;

    fn carry(&mut self, request: &Request) -> Outcome {
        self.runtime.block_on(self.post(request))
    }
}

fn again(why: String, after_ms: Option<u64>) -> Outcome {
    Outcome::Retry { why, after_ms }
}

/// At most so much of it. What is left, or breaks off, is of no interest.
async fn read(mut response: Response, limit: usize) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = limit - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == limit {
            break;
        }
    }
    body
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Delivered,
    Again,
    /// A redirect.
    Elsewhere,
    Refused,
}

impl Verdict {
    fn of(status: StatusCode) -> Verdict {
        match status.as_u16() {
            200..=299 => Verdict::Delivered,
            300..=399 => Verdict::Elsewhere,
            _ if http::passes(status) => Verdict::Again,
            _ => Verdict::Refused,
        }
    }
}

#[cfg(test)]
mod tests;
