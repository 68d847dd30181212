//! Rows from a web service: `GET` with the key in the address. 200 has the rows, 404 and 204 have none.
//!
//! 5xx, 408, 425, 429 and a connection that fails are tried again; other answers, redirects among them, fail the
//! lookup. Keys are asked for one by one, as many at a time as the capacity says, by one thread with a runtime of its
//! own.

use super::{Answered, Asked, Driver, Held, Raw, Shared, given_up};
use crate::connector::Place;
use crate::connector::net::guard::Guard;
use crate::connector::net::retry::{Attempts, Policy, chance};
use crate::connector::net::{http, request};
use crate::error::{Code, Context, Error, Result};
use ef_proto::connector::lookup::{HttpLookup, UrlPiece, url_pieces};
use ef_proto::plan::LookupJoin;
use ef_proto::secret::{Revealed, Template};
use futures::{StreamExt, TryStreamExt};
use rand::Rng;
use rand::rngs::SmallRng;
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};
use reqwest::{Client, StatusCode, Url};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

struct Http {
    client: Client,
    headers: HeaderMap,
    address: Address,
    policy: Policy,
    chance: Mutex<SmallRng>,
    timeout: Duration,
    response_bytes_max: usize,
    /// Requests under way, of all batches.
    capacity: Semaphore,
    in_flight_max: usize,
    shared: Arc<Shared>,
}

/// What the thread does, once the options have been found good.
pub(super) fn driver(
    options: &HttpLookup,
    spec: &LookupJoin,
    place: &Place,
    mut driver: Driver,
) -> Result<Box<dyn FnOnce() + Send>> {
    let in_flight_max = spec.options.capacity.max(1) as usize;
    let guard = Guard::of_process();
    let [connect, request] = [options.connect_timeout_ms, options.request_timeout_ms].map(Duration::from_millis);
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let wrong = |what: &str| Error::invalid(format!("table `{}`: {what}", place.table));
    request::add_headers(&mut headers, &options.headers, &place.secrets, wrong)?;
    let http = Arc::new(Http {
        client: http::client(guard, in_flight_max, connect, request, &place.table)?,
        headers,
        address: Address::new(options, spec, place, guard)?,
        policy: Policy { retries_max: Some(spec.options.max_retries) },
        chance: Mutex::new(chance(place)),
        timeout: Duration::from_millis(spec.options.timeout_ms),
        response_bytes_max: options.response_bytes_max as usize,
        capacity: Semaphore::new(in_flight_max),
        in_flight_max,
        shared: driver.shared.clone(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unavailable(|| format!("cannot start lookups of table `{}`", place.table))?;
    Ok(Box::new(move || {
        // What is under way when the task has gone ends with the runtime.
        runtime.block_on(async move {
            while let Some(asked) = driver.requests.recv().await {
                let (http, answers) = (http.clone(), driver.answers.clone());
                tokio::spawn(async move {
                    let raw = http.answer(&asked).await;
                    // There is room for every answer; one that nobody takes is of a task that has gone.
                    let _ = answers.try_send(Answered { asked, raw });
                });
            }
        });
    }))
}

/// The address with places for the key columns.
struct Address {
    pieces: Vec<Piece>,
    /// Key columns that go behind the `?`.
    query: Vec<(String, usize)>,
    guard: Guard,
}

enum Piece {
    Text(Revealed),
    /// The n-th key column; in the path, or behind it.
    Key {
        key: usize,
        in_path: bool,
    },
}

impl Address {
    fn new(options: &HttpLookup, spec: &LookupJoin, place: &Place, guard: Guard) -> Result<Address> {
        let wrong = || format!("table `{}`: option 'url'", place.table);
        let key = |name: &str| spec.keys.iter().position(|key| key.field.name == name);
        let mut pieces = Vec::new();
        let mut in_path = true;
        let mut placed = Vec::new();
        for piece in url_pieces(options.url.as_str()).invalid(wrong)? {
            pieces.push(match piece {
                UrlPiece::Text(text) => {
                    in_path &= !text.contains(['?', '#']);
                    Piece::Text(place.secrets.reveal(&Template::parse(&text).invalid(wrong)?)?)
                }
                UrlPiece::Column(name) => {
                    let key = key(&name).ok_or_else(|| Error::invalid(format!("{}: `{name}` is no key", wrong())))?;
                    placed.push(key);
                    Piece::Key { key, in_path }
                }
            });
        }
        let query = spec.keys.iter().enumerate().filter(|(key, _)| !placed.contains(key));
        let query = query.map(|(at, key)| (key.field.name.clone(), at)).collect();
        let address = Address { pieces, query, guard };
        let example = vec!["0".to_string(); spec.keys.len()];
        address.of(&example).invalid(wrong)?;
        Ok(address)
    }

    /// None: no path can name this key, so there is no such row.
    fn of(&self, key: &[String]) -> std::result::Result<Option<Url>, String> {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(plain) => text.push_str(plain.expose()),
                Piece::Key { key: at, in_path } => {
                    let value = &key[*at];
                    if *in_path && matches!(value.as_str(), "" | "." | "..") {
                        return Ok(None);
                    }
                    http::escape(value, &mut text);
                }
            }
        }
        let mut url = http::address(&text, self.guard)?;
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(self.query.iter().map(|(name, at)| (name.as_str(), key[*at].as_str())));
        }
        Ok(Some(url))
    }
}

/// Why an attempt has failed.
struct Failure {
    error: Error,
    /// It may be otherwise next time.
    passes: bool,
    /// But not before so many milliseconds, as the service says.
    after_ms: Option<u64>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { passes: error.code == Code::Unavailable, error, after_ms: None }
    }
}

/// Without an answer.
fn lost(error: Error) -> Failure {
    Error::new(error.code, format!("http: {}", error.message)).into()
}

impl Http {
    async fn answer(&self, asked: &Asked) -> Result<Vec<Raw>> {
        let held = Held::default();
        let one = |at: usize| {
            let (key, held) = (asked.keys[at].as_slice(), &held);
            async move {
                let fetched = self.fetch(key).await.and_then(|raw| held.add(&raw).map(|()| raw));
                fetched.map_err(|error| self.shared.failed(key, error))
            }
        };
        futures::stream::iter(0..asked.keys.len()).map(one).buffered(self.in_flight_max).try_collect().await
    }

    /// With all attempts, in the time that a key may take.
    async fn fetch(&self, key: &[String]) -> Result<Raw> {
        let url = self.address.of(key).map_err(Error::invalid)?;
        let Some(url) = url else { return Ok(Raw::Missing) };
        let attempts = async {
            let mut attempts = Attempts::new(self.policy);
            loop {
                let Failure { error, passes, after_ms } = match self.attempt(&url).await {
                    Ok(raw) => return Ok(raw),
                    Err(failure) => failure,
                };
                let wait_ms = attempts.failed(after_ms, self.chance());
                let Some(wait_ms) = wait_ms.filter(|_| passes) else { return Err(given_up(&attempts, error)) };
                tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            }
        };
        let waiting = tokio::time::timeout(self.timeout, attempts).await;
        let late = || Error::new(Code::Unavailable, format!("no answer in {} ms", self.timeout.as_millis()));
        waiting.unwrap_or_else(|_| Err(late()))
    }

    fn chance(&self) -> f64 {
        self.chance.lock().unwrap_or_else(PoisonError::into_inner).random()
    }

    async fn attempt(&self, url: &Url) -> std::result::Result<Raw, Failure> {
        let _permit = self.capacity.acquire().await;
        let sent = self.client.get(url.clone()).headers(self.headers.clone()).send().await;
        let response = sent.map_err(|error| lost(http::failed(error)))?;
        let status = response.status();
        match status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::NO_CONTENT => return Ok(Raw::Missing),
            _ => {
                let what = match status.is_redirection() {
                    true => format!("http: the service answers {status}; redirects are not followed"),
                    false => format!("http: the service answers {status}"),
                };
                let code = if http::passes(status) { Code::Unavailable } else { Code::Invalid };
                let after_ms = request::retry_after_ms(response.headers());
                return Err(Failure { after_ms, ..Error::new(code, what).into() });
            }
        }
        let body = http::body(response, self.response_bytes_max).await.map_err(lost)?;
        let too_long = || {
            let limit = self.response_bytes_max;
            Error::invalid(format!(
                "http: the response has more than {limit} bytes, which is 'lookup.response.max-bytes'"
            ))
        };
        Ok(Raw::Document(body.ok_or_else(too_long)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str, keys: &[&str]) -> Address {
        let at = |name: &str| keys.iter().position(|key| *key == name).expect("a key");
        let mut in_path = true;
        let pieces: Vec<Piece> = url_pieces(url)
            .expect("well-formed")
            .into_iter()
            .map(|piece| match piece {
                UrlPiece::Text(text) => {
                    in_path &= !text.contains('?');
                    let template = Template::parse(&text).expect("well-formed");
                    let none = |_: &str| Ok::<_, ef_proto::secret::TemplateError>(String::new());
                    Piece::Text(template.reveal(none).expect("plain"))
                }
                UrlPiece::Column(name) => Piece::Key { key: at(&name), in_path },
            })
            .collect();
        let placed = |key: &&str| url.contains(&format!("{{{key}}}"));
        let query = keys.iter().filter(|key| !placed(key)).map(|key| (key.to_string(), at(key))).collect();
        Address { pieces, query, guard: Guard { denies_private: false } }
    }

    #[test]
    fn a_key_cannot_change_more_of_the_address_than_its_place() {
        let of = |url: &str, keys: &[&str], values: &[&str]| {
            let values: Vec<String> = values.iter().map(ToString::to_string).collect();
            address(url, keys).of(&values).expect("an address").map(|url| url.to_string())
        };
        let path = |value: &str| of("http://h/d/{id}/x", &["id"], &[value]);
        assert_eq!(path("7"), Some("http://h/d/7/x".into()));
        assert_eq!(path("../admin?a=b#c"), Some("http://h/d/..%2Fadmin%3Fa%3Db%23c/x".into()));
        assert_eq!(path("ä b"), Some("http://h/d/%C3%A4%20b/x".into()));
        for nowhere in ["", ".", ".."] {
            assert_eq!(path(nowhere), None, "{nowhere}");
        }
        let query = of("http://h/d?a={id}", &["id", "site"], &["", "x&y=z"]);
        assert_eq!(query, Some("http://h/d?a=&site=x%26y%3Dz".into()));
    }
}
