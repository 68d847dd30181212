//! From a table's properties to librdkafka's configuration, and from its errors to words for a person.
//!
//! What librdkafka reports while it runs goes to the log, a few lines a minute; the last of it is kept, because it is
//! the reason behind a "timed out".

use crate::error::{Code, Error, Result};
use crate::secrets::Secrets;
use ef_proto::connector::KafkaClient;
use ef_proto::connector::kafka::{For, parse_jaas};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// How long a call waits for a broker unless `properties.default.api.timeout.ms` or `.request.timeout.ms` says.
pub const API_TIMEOUT_MS: u64 = 30_000;

/// Lines of one client in a minute of the log.
const LINES_A_MINUTE: u32 = 10;

/// The configuration of a consumer or a producer. Secrets are looked up now, so a rotated one is taken with the next.
pub fn config(client: &KafkaClient, of: For, secrets: &Secrets) -> Result<ClientConfig> {
    let mut config = ClientConfig::new();
    config.set_log_level(RDKafkaLogLevel::Warning);
    config.set("bootstrap.servers", &client.bootstrap);
    config.set("client.id", "edgeflow");
    // Closed connections are no news, topics are made by their owners, and our numbers are not the broker's business.
    config.set("log.connection.close", "false");
    config.set("allow.auto.create.topics", "false");
    config.set("enable.metrics.push", "false");
    for (name, value) in client.properties_for(of) {
        let named = |error: Error| Error::new(error.code, format!("'properties.{name}': {}", error.message));
        let value = secrets.reveal(value).map_err(named)?;
        if name == "sasl.jaas.config" {
            let (username, password) =
                parse_jaas(value.expose()).map_err(|what| named(Error::invalid(format!("in the secret, {what}"))))?;
            config.set("sasl.username", username);
            config.set("sasl.password", password);
        } else {
            config.set(name, value.expose());
        }
    }
    Ok(config)
}

/// A client that could not be made. Values are left out: one may be a secret.
pub fn not_created(error: &KafkaError) -> Error {
    match error {
        KafkaError::ClientConfig(_, _, key, _) => {
            Error::invalid(format!("'properties.{key}' has a value that it cannot have"))
        }
        KafkaError::ClientCreation(reason) => Error::invalid(format!("the Kafka client cannot start: {reason}")),
        other => Error::invalid(format!("the Kafka client cannot start: {other}")),
    }
}

/// What the outside did to a call about `what` (`topic "t"`, `group "g"`).
pub fn explain(error: &KafkaError, what: &str, bootstrap: &str, last: Option<&Report>) -> Error {
    match error.rdkafka_error_code() {
        Some(code) => explain_code(code, what, bootstrap, last),
        None => Error::new(Code::Unavailable, format!("{what}: {error}")),
    }
}

pub fn explain_code(code: RDKafkaErrorCode, what: &str, bootstrap: &str, last: Option<&Report>) -> Error {
    use RDKafkaErrorCode as E;
    match code {
        E::UnknownTopicOrPartition | E::UnknownTopic => {
            Error::new(Code::NotFound, format!("{what} does not exist at {bootstrap}"))
        }
        E::UnknownPartition => Error::new(Code::NotFound, format!("{what} has no such partition at {bootstrap}")),
        E::InvalidTopic => Error::invalid(format!("{what}: the broker takes no topic of this name")),
        E::TopicAuthorizationFailed
        | E::GroupAuthorizationFailed
        | E::ClusterAuthorizationFailed
        | E::TransactionalIdAuthorizationFailed => {
            Error::invalid(format!("{what}: not authorised at {bootstrap}; the user needs the access control entries"))
        }
        E::SaslAuthenticationFailed | E::Authentication => Error::invalid(format!(
            "authentication failed at {bootstrap}{}; see 'properties.sasl.mechanism', '.sasl.username' and \
             '.sasl.password'",
            because(last)
        )),
        code if is_silence(code) => match last {
            Some(report) if report.is_refusal() => explain_code(report.code, what, bootstrap, Some(report)),
            last => {
                Error::new(Code::Unavailable, format!("{what}: no broker of {bootstrap} answered{}", because(last)))
            }
        },
        other => Error::new(Code::Unavailable, format!("{what}: {other}")),
    }
}

/// Nobody answered; the last report may say why.
pub fn is_silence(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as E;
    matches!(
        code,
        E::BrokerTransportFailure
            | E::AllBrokersDown
            | E::OperationTimedOut
            | E::MessageTimedOut
            | E::RequestTimedOut
            | E::Resolve
            | E::SSL
            | E::NodeUpdate
    )
}

fn because(last: Option<&Report>) -> String {
    last.map_or(String::new(), |report| format!(": {}", report.reason))
}

/// The last thing that librdkafka had to say.
#[derive(Clone, Debug)]
pub struct Report {
    pub code: RDKafkaErrorCode,
    pub reason: String,
}

impl Report {
    /// Nothing that goes away by waiting.
    pub fn is_refusal(&self) -> bool {
        use RDKafkaErrorCode as E;
        matches!(
            self.code,
            E::Authentication
                | E::SaslAuthenticationFailed
                | E::TopicAuthorizationFailed
                | E::GroupAuthorizationFailed
                | E::ClusterAuthorizationFailed
                | E::TransactionalIdAuthorizationFailed
        )
    }
}

/// librdkafka's callbacks. They run on whichever thread polls the client.
pub struct Context {
    /// `table "t"`: what the lines of the log begin with.
    name: String,
    /// Milliseconds since the epoch; whoever polls sets it.
    now_ms: AtomicI64,
    log: Mutex<Allowance>,
    last: Mutex<Option<Report>>,
    errors: AtomicU64,
    commit_failures: AtomicU64,
}

impl Context {
    pub fn new(name: String, now_ms: i64) -> Context {
        Context {
            name,
            now_ms: AtomicI64::new(now_ms),
            log: Mutex::default(),
            last: Mutex::default(),
            errors: AtomicU64::new(0),
            commit_failures: AtomicU64::new(0),
        }
    }

    pub fn at(&self, now_ms: i64) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
    }

    pub fn last(&self) -> Option<Report> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Errors of connections and of requests, so far.
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// Offsets that a group was not told of.
    pub fn commit_failures(&self) -> u64 {
        self.commit_failures.load(Ordering::Relaxed)
    }

    /// One line in the log, unless there have been too many.
    pub fn warn(&self, what: &str) {
        let now = self.now_ms.load(Ordering::Relaxed);
        let Some(left_out) = self.log.lock().unwrap_or_else(PoisonError::into_inner).take(now) else { return };
        match left_out {
            0 => tracing::warn!("{}: {what}", self.name),
            left_out => tracing::warn!("{}: {what} ({left_out} lines like this were left out)", self.name),
        }
    }

    /// The group was not told the offsets of a checkpoint.
    pub fn commit_failed(&self, error: &KafkaError) {
        self.commit_failures.fetch_add(1, Ordering::Relaxed);
        self.warn(&format!("the group was not told the offsets of a checkpoint (they are safe in it): {error}"));
    }

    pub fn trouble(&self, code: RDKafkaErrorCode, reason: &str) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        let report = Report { code, reason: reason.to_owned() };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // "All brokers are down" follows upon the reason why.
        if code != RDKafkaErrorCode::AllBrokersDown || last.is_none() {
            *last = Some(report);
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if (level as i32) <= RDKafkaLogLevel::Warning as i32 {
            self.warn(&format!("librdkafka {facility}: {message}"));
        } else {
            tracing::debug!("{}: librdkafka {facility}: {message}", self.name);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        if code == RDKafkaErrorCode::PartitionEOF {
            return;
        }
        self.trouble(code, reason);
        self.warn(reason);
    }
}

impl ConsumerContext for Context {
    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        let Err(error) = result else { return };
        // No offset that was not committed before.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::NoOffset) {
            return;
        }
        self.commit_failed(&error);
    }
}

/// So many lines a minute.
#[derive(Debug, Default)]
struct Allowance {
    minute: i64,
    lines: u32,
    left_out: u64,
}

impl Allowance {
    /// Whether a line may be written, and how many were not before it.
    fn take(&mut self, now_ms: i64) -> Option<u64> {
        let minute = now_ms.div_euclid(60_000);
        if minute != self.minute {
            (self.minute, self.lines) = (minute, 0);
        }
        if self.lines >= LINES_A_MINUTE {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ef_proto::connector::Options;

    fn client(more: &[(&str, &str)]) -> KafkaClient {
        let pairs = [&[("properties.bootstrap.servers", "b:9092")], more].concat();
        let map = pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        KafkaClient::parse(&mut Options::new("t", map)).expect("valid options")
    }

    #[test]
    fn secrets_are_looked_up_and_a_login_is_taken_apart() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let jaas = "PlainLoginModule required username=\"u\" password=\"p w\";\n";
        std::fs::write(directory.path().join("login"), jaas).expect("it is ours");
        let secrets = Secrets::new(Some(directory.path().into()));
        let sasl = [("properties.security.protocol", "SASL_PLAINTEXT"), ("properties.sasl.mechanism", "PLAIN")];
        let with = |login| client(&[&sasl[..], &[("properties.sasl.jaas.config", login)]].concat());
        let config = config(&with("${secret:login}"), For::Consumer, &secrets).expect("the secret is there");
        assert_eq!((config.get("sasl.username"), config.get("sasl.password")), (Some("u"), Some("p w")));
        assert_eq!(config.get("sasl.jaas.config"), None);
        let error = super::config(&with("${secret:none}"), For::Consumer, &secrets).expect_err("there is none");
        assert!(error.message.contains("'properties.sasl.jaas.config': secret 'none'"), "{error}");
    }

    #[test]
    fn errors_say_what_was_asked_of_whom_and_why_it_failed() {
        let refused = Report { code: RDKafkaErrorCode::BrokerTransportFailure, reason: "Connection refused".into() };
        let login = Report { code: RDKafkaErrorCode::Authentication, reason: "wrong password".into() };
        for (code, last, expected) in [
            (RDKafkaErrorCode::OperationTimedOut, Some(&refused), "no broker of b:1 answered: Connection refused"),
            (RDKafkaErrorCode::OperationTimedOut, Some(&login), "authentication failed at b:1: wrong password"),
            (RDKafkaErrorCode::UnknownTopicOrPartition, None, "topic \"t\" does not exist at b:1"),
            (RDKafkaErrorCode::TopicAuthorizationFailed, None, "topic \"t\": not authorised at b:1"),
        ] {
            let error = explain(&KafkaError::MetadataFetch(code), "topic \"t\"", "b:1", last);
            assert!(error.message.contains(expected), "{error}");
        }
    }

    #[test]
    fn noise_is_cut_and_its_amount_is_told() {
        let mut allowance = Allowance::default();
        let written = (0..100).filter(|_| allowance.take(61_000).is_some()).count();
        assert_eq!(written, LINES_A_MINUTE as usize);
        assert_eq!(allowance.take(121_000), Some(100 - LINES_A_MINUTE as u64));
    }
}
