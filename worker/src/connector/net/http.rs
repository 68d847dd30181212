//! The way to a web service: addresses that the guard admits, no redirects, no proxy (it would resolve names past the
//! guard), bounds on time and on what is read.

use super::guard::Guard;
use crate::error::{Code, Context, Error, Result};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Response, StatusCode, Url, redirect};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// `idle`: connections that are kept for the next request; none where nobody drives them in between. `request`: of one
/// attempt, its answer included.
pub fn client(guard: Guard, idle: usize, connect: Duration, request: Duration, table: &str) -> Result<Client> {
    let client = Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .user_agent(concat!("edgeflow/", env!("CARGO_PKG_VERSION")))
        .pool_max_idle_per_host(idle)
        .tcp_nodelay(true)
        .connect_timeout(connect)
        .timeout(request)
        .dns_resolver(Arc::new(Guarded(guard)));
    client.build().unavailable(|| format!("table `{table}`: an HTTP client"))
}

/// An address with its secrets in it. Names are looked at when they are resolved; numbers are not resolved, so they are
/// looked at here. Err: for a person, without the address.
pub fn address(text: &str, guard: Guard) -> std::result::Result<Url, String> {
    let url = Url::parse(text.trim()).map_err(|error| error.to_string())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("found another scheme, expected http or https".into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("found a user before the host, expected 'headers.Authorization'".into());
    }
    let host = url.host_str().unwrap_or_default();
    if let Ok(number) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        guard.admit(host, number)?;
    }
    Ok(url)
}

/// Appends text as part of an address: RFC 3986's unreserved characters stay, the others are percent-encoded.
pub fn escape(text: &str, into: &mut String) {
    for b in text.bytes() {
        match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => into.push(char::from(b)),
            _ => into.push_str(&format!("%{b:02X}")),
        }
    }
}

/// The same request may be answered otherwise later.
pub fn passes(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500..=599)
}

/// Why there was no answer, without the address, which may hold a secret. [`Code::Invalid`]: the guard does not admit
/// the service; else it may be otherwise later.
pub fn failed(error: reqwest::Error) -> Error {
    let error = error.without_url();
    let code = if chain(&error).any(|cause| cause.is::<Denied>()) { Code::Invalid } else { Code::Unavailable };
    Error::new(code, chain(&error).map(|cause| cause.to_string()).collect::<Vec<_>>().join(": "))
}

fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// An answer's whole body; None: it has more than `limit` bytes.
pub async fn body(mut response: Response, limit: usize) -> Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(failed)? {
        if body.len() + part.len() > limit {
            return Ok(None);
        }
        body.extend_from_slice(&part);
    }
    Ok(Some(body))
}

/// Resolves names as the system does, and gives only addresses that may be spoken to.
struct Guarded(Guard);

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Denied(String);

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.0;
        Box::pin(async move {
            let mut admitted = Vec::new();
            for address in tokio::net::lookup_host((name.as_str(), 0)).await? {
                guard.admit(name.as_str(), address.ip()).map_err(Denied)?;
                admitted.push(address);
            }
            let addresses: Addrs = Box::new(admitted.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Guard = Guard { denies_private: false };

    #[test]
    fn addresses_are_of_http_without_user_and_admitted() {
        for (text, expected) in [
            (" https://host/a?b=c \n", None),
            ("http://127.0.0.1:8080/", None),
            ("http://[::1]/", None),
            ("", Some("relative URL without a base")),
            ("ftp://host/", Some("expected http or https")),
            ("http://u:hunter2@host/", Some("found a user before the host")),
            ("http://u@host/", Some("found a user before the host")),
            ("http://169.254.169.254/latest", Some("which this worker does not speak to")),
            ("http://0xa9fea9fe/", Some("which this worker does not speak to")),
            ("http://[::ffff:169.254.169.254]/", Some("which this worker does not speak to")),
        ] {
            match (address(text, OPEN), expected) {
                (Ok(_), None) => {}
                (Err(what), Some(expected)) => {
                    assert!(what.contains(expected) && !what.contains("hunter2"), "{text}: {what}");
                }
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
        assert!(address("http://[::1]/", Guard { denies_private: true }).is_err());
    }

    #[test]
    fn what_is_appended_is_one_part_of_an_address() {
        let mut text = "http://h/".to_owned();
        escape("a/b?c=d&e#f%-._~ ä", &mut text);
        assert_eq!(text, "http://h/a%2Fb%3Fc%3Dd%26e%23f%25-._~%20%C3%A4");
    }
}
