//! A Confluent schema registry over HTTP. Asked rarely, so it blocks; what does not answer is asked again a few times,
//! and what it answered that it does not have is remembered for a while.

use crate::connector::Place;
use crate::connector::net::guard::Guard;
use crate::connector::net::http;
use crate::connector::net::retry::{Attempts, Policy, chance};
use crate::error::{Code, Error, Result};
use crate::format::{RegistryError, SchemaRegistry};
use ef_proto::connector::{AvroConfluent, RegistryAuth};
use ef_proto::secret::Revealed;
use rand::Rng;
use rand::rngs::SmallRng;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Of one request, and of all with their pauses: 10.7 s at most, in which the task answers nobody.
const TIMEOUT: Duration = Duration::from_millis(2_500);
const TRIES: u32 = 4;

/// A message whose schema is being registered may be read just before.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// Random bytes have as many ids as they like.
const REFUSED_MAX: usize = 1024;

const ANSWER_BYTES_MAX: usize = 4 << 20;

pub struct Http {
    client: Client,
    runtime: Runtime,
    chance: SmallRng,
    url: String,
    auth: Option<(Revealed, bool)>,
    refused: HashMap<u32, (Instant, String)>,
}

/// What it said, or why nothing was heard.
type Answer = Result<(StatusCode, Vec<u8>)>;

impl Http {
    /// Fails where nobody answers, or refuses the credentials.
    pub fn open(options: &AvroConfluent, place: &Place, guard: Guard) -> Result<Http> {
        let Place { table, secrets, .. } = place;
        let in_table =
            |code, what: String| Error::new(code, format!("table `{table}`: schema registry {}: {what}", options.url));
        http::address(&options.url, guard).map_err(|what| in_table(Code::Invalid, what))?;
        let auth = match &options.auth {
            RegistryAuth::None => None,
            RegistryAuth::Basic(user) => Some((secrets.reveal(user)?, false)),
            RegistryAuth::Bearer(token) => Some((secrets.reveal(token)?, true)),
        };
        if let Some((user, false)) = &auth
            && !user.expose().contains(':')
        {
            let what = "'avro-confluent.basic-auth.user-info' is not of the form user:password";
            return Err(in_table(Code::Invalid, what.into()));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| in_table(Code::Internal, e.to_string()))?;
        let mut http = Http {
            // Between two requests nobody drives a connection.
            client: http::client(guard, 0, TIMEOUT, TIMEOUT, table)?,
            runtime,
            chance: chance(place),
            url: options.url.clone(),
            auth,
            refused: HashMap::new(),
        };
        match http.ask(Method::GET, "schemas/types", None) {
            Err(error) => Err(in_table(error.code, error.message)),
            Ok((status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN), _)) => {
                Err(in_table(Code::Invalid, format!("it refuses the credentials: {status}")))
            }
            // An older one does not know the path, but it is there.
            Ok(_) => Ok(http),
        }
    }

    /// Tries again where there was no answer, or one of trouble.
    fn ask(&mut self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let chance: f64 = self.chance.random();
        let registry = &*self;
        let work = async {
            let mut attempts = Attempts::new(Policy { retries_max: Some(TRIES - 1) });
            loop {
                let trouble = match registry.request(method.clone(), path, body).await {
                    Ok((status, body)) if http::passes(status) => {
                        Error::new(Code::Unavailable, format!("it answers {status}: {}", message(&body)))
                    }
                    Err(error) if error.code == Code::Unavailable => error,
                    answer => return answer,
                };
                // What it wants itself is not heeded: the task waits.
                let Some(wait_ms) = attempts.failed(None, chance) else { return Err(trouble) };
                tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            }
        };
        // A thread of its own: the caller's may belong to a runtime, which must not be blocked this way.
        let answer = std::thread::scope(|scope| scope.spawn(|| registry.runtime.block_on(work)).join());
        answer.unwrap_or_else(|_| Err(Error::new(Code::Internal, "the request panicked")))
    }

    async fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let mut request = self.client.request(method, format!("{}/{path}", self.url));
        request = request.header("accept", "application/vnd.schemaregistry.v1+json");
        match &self.auth {
            None => {}
            Some((token, true)) => request = request.bearer_auth(token.expose()),
            Some((user, false)) => {
                let (user, password) = user.expose().split_once(':').unwrap_or((user.expose(), ""));
                request = request.basic_auth(user, Some(password));
            }
        }
        if let Some(body) = body {
            let content = "application/vnd.schemaregistry.v1+json";
            request = request.header("content-type", content).body(body.to_string());
        }
        let response = request.send().await.map_err(http::failed)?;
        let status = response.status();
        let too_long = || Error::invalid(format!("its answer has more than {ANSWER_BYTES_MAX} bytes"));
        Ok((status, http::body(response, ANSWER_BYTES_MAX).await?.ok_or_else(too_long)?))
    }

    fn refuse(&mut self, id: u32, now: Instant, what: String) -> RegistryError {
        if self.refused.len() >= REFUSED_MAX {
            self.refused.retain(|_, (since, _)| now.duration_since(*since) < REFUSED_FOR);
            if self.refused.len() >= REFUSED_MAX {
                self.refused.clear();
            }
        }
        self.refused.insert(id, (now, what.clone()));
        RegistryError::Refused(what)
    }
}

impl SchemaRegistry for Http {
    #[expect(clippy::disallowed_methods, reason = "for how long an answer is kept; no value of a row depends on it")]
    fn schema(&mut self, id: u32) -> std::result::Result<String, RegistryError> {
        let now = Instant::now();
        if let Some((since, what)) = self.refused.get(&id)
            && now.duration_since(*since) < REFUSED_FOR
        {
            return Err(RegistryError::Refused(what.clone()));
        }
        let (status, body) = self
            .ask(Method::GET, &format!("schemas/ids/{id}"), None)
            .map_err(|e| RegistryError::Unavailable(e.message))?;
        match status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(self.refuse(id, now, "there is none".into())),
            // No id, to some.
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => {
                let what = format!("it answers {status}: {}", message(&body));
                return Err(self.refuse(id, now, what));
            }
            other => return Err(RegistryError::Unavailable(format!("it answers {other}: {}", message(&body)))),
        }
        let answer: Value = serde_json::from_slice(&body)
            .map_err(|e| RegistryError::Unavailable(format!("its answer is no JSON: {e}")))?;
        let kind = answer.get("schemaType").and_then(Value::as_str).unwrap_or("AVRO");
        if kind != "AVRO" {
            return Err(self.refuse(id, now, format!("it is a schema of {kind}, expected AVRO")));
        }
        if answer.get("references").and_then(Value::as_array).is_some_and(|references| !references.is_empty()) {
            return Err(self.refuse(id, now, "it refers to other schemas, which is not supported".into()));
        }
        match answer.get("schema").and_then(Value::as_str) {
            Some(schema) => Ok(schema.to_owned()),
            None => Err(RegistryError::Unavailable("its answer has no `schema`".into())),
        }
    }

    fn register(&mut self, subject: &str, schema: &str) -> std::result::Result<u32, RegistryError> {
        let mut path = "subjects/".to_owned();
        http::escape(subject, &mut path);
        path += "/versions";
        let answer = self.ask(Method::POST, &path, Some(&json!({ "schema": schema })));
        let (status, body) = answer.map_err(|e| RegistryError::Unavailable(e.message))?;
        if !status.is_success() {
            return Err(RegistryError::Refused(format!("it answers {status}: {}", message(&body))));
        }
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        let id = answer.get("id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| RegistryError::Unavailable("its answer has no `id`".into()))
    }
}

/// What the registry says is wrong, cut to what a person reads.
fn message(body: &[u8]) -> String {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = match answer.get("message").and_then(Value::as_str) {
        Some(message) => message.to_owned(),
        None => String::from_utf8_lossy(&body[..body.len().min(400)]).into_owned(),
    };
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests;
