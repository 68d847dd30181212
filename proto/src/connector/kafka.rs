//! What a Kafka source and a Kafka sink share: the brokers, and the `properties.*` of a table's options.
//!
//! Properties pass through a list of what is known and harmless, under Java's names and librdkafka's; each is kept
//! under librdkafka's. Nothing on it names a file, loads code or takes over what the engine decides (offsets,
//! transactions, who reads which partition). Passwords and keys are references to secrets.

use super::options::{OptionError, Options, distance};
use super::parse_duration_ms;
use crate::secret::Template;
use serde::{Deserialize, Serialize};

const PREFIX: &str = "properties.";
const BOOTSTRAP: &str = "properties.bootstrap.servers";

/// How a Kafka cluster is reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KafkaClient {
    /// `host:port`, separated by commas.
    pub bootstrap: String,
    /// Under librdkafka's names, in order of the names, none twice.
    pub properties: Vec<(String, Template)>,
}

/// Which clients a property is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    Both,
    Consumer,
    Producer,
}

/// What a property's value must look like.
#[derive(Clone, Copy)]
enum Value {
    Text,
    Number,
    Boolean,
    /// One of these, in any case; kept as it stands here.
    OneOf(&'static [&'static str]),
    /// Named, never written out.
    Secret,
}

struct Property {
    /// In the table's options.
    name: &'static str,
    /// librdkafka's name.
    to: &'static str,
    of: For,
    value: Value,
}

const fn property(name: &'static str, to: &'static str, of: For, value: Value) -> Property {
    Property { name, to, of, value }
}

const fn same(name: &'static str, of: For, value: Value) -> Property {
    Property { name, to: name, of, value }
}

/// Sorted by what they are about.
const PROPERTIES: &[Property] = &[
    same("client.id", For::Both, Value::Text),
    same("client.rack", For::Consumer, Value::Text),
    same(
        "client.dns.lookup",
        For::Both,
        Value::OneOf(&["use_all_dns_ips", "resolve_canonical_bootstrap_servers_only"]),
    ),
    same("broker.address.family", For::Both, Value::OneOf(&["any", "v4", "v6"])),
    same("security.protocol", For::Both, Value::OneOf(&["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"])),
    same("sasl.mechanism", For::Both, Value::OneOf(&["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])),
    property(
        "sasl.mechanisms",
        "sasl.mechanism",
        For::Both,
        Value::OneOf(&["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]),
    ),
    same("sasl.username", For::Both, Value::Text),
    same("sasl.password", For::Both, Value::Secret),
    same("sasl.jaas.config", For::Both, Value::Secret),
    same("ssl.ca.pem", For::Both, Value::Text),
    property("ssl.truststore.certificates", "ssl.ca.pem", For::Both, Value::Text),
    same("ssl.certificate.pem", For::Both, Value::Text),
    property("ssl.keystore.certificate.chain", "ssl.certificate.pem", For::Both, Value::Text),
    same("ssl.key.pem", For::Both, Value::Secret),
    property("ssl.keystore.key", "ssl.key.pem", For::Both, Value::Secret),
    same("ssl.key.password", For::Both, Value::Secret),
    same("ssl.endpoint.identification.algorithm", For::Both, Value::OneOf(&["https", "none"])),
    same("ssl.cipher.suites", For::Both, Value::Text),
    same("enable.ssl.certificate.verification", For::Both, Value::Boolean),
    // Times and sizes of connections.
    same("socket.timeout.ms", For::Both, Value::Number),
    property("request.timeout.ms", "socket.timeout.ms", For::Both, Value::Number),
    same(API_TIMEOUT, For::Both, Value::Number),
    same("socket.connection.setup.timeout.ms", For::Both, Value::Number),
    same("socket.keepalive.enable", For::Both, Value::Boolean),
    same("socket.send.buffer.bytes", For::Both, Value::Number),
    property("send.buffer.bytes", "socket.send.buffer.bytes", For::Both, Value::Number),
    same("socket.receive.buffer.bytes", For::Both, Value::Number),
    property("receive.buffer.bytes", "socket.receive.buffer.bytes", For::Both, Value::Number),
    same("connections.max.idle.ms", For::Both, Value::Number),
    same("reconnect.backoff.ms", For::Both, Value::Number),
    same("reconnect.backoff.max.ms", For::Both, Value::Number),
    same("retry.backoff.ms", For::Both, Value::Number),
    same("retry.backoff.max.ms", For::Both, Value::Number),
    same("metadata.max.age.ms", For::Both, Value::Number),
    same("topic.metadata.refresh.interval.ms", For::Both, Value::Number),
    // Reading.
    same("isolation.level", For::Consumer, Value::OneOf(&["read_committed", "read_uncommitted"])),
    same("check.crcs", For::Consumer, Value::Boolean),
    same("fetch.min.bytes", For::Consumer, Value::Number),
    same("fetch.max.bytes", For::Consumer, Value::Number),
    same("fetch.wait.max.ms", For::Consumer, Value::Number),
    property("fetch.max.wait.ms", "fetch.wait.max.ms", For::Consumer, Value::Number),
    same("fetch.error.backoff.ms", For::Consumer, Value::Number),
    same("fetch.queue.backoff.ms", For::Consumer, Value::Number),
    same("max.partition.fetch.bytes", For::Consumer, Value::Number),
    property("fetch.message.max.bytes", "max.partition.fetch.bytes", For::Consumer, Value::Number),
    same("queued.min.messages", For::Consumer, Value::Number),
    same("queued.max.messages.kbytes", For::Consumer, Value::Number),
    // Writing.
    same("acks", For::Producer, Value::OneOf(&["all", "-1", "0", "1"])),
    same("compression.type", For::Producer, Value::OneOf(&["none", "gzip", "snappy", "lz4", "zstd"])),
    same("compression.level", For::Producer, Value::Number),
    same("linger.ms", For::Producer, Value::Number),
    same("batch.size", For::Producer, Value::Number),
    same("batch.num.messages", For::Producer, Value::Number),
    same("message.max.bytes", For::Producer, Value::Number),
    property("max.request.size", "message.max.bytes", For::Producer, Value::Number),
    same("delivery.timeout.ms", For::Producer, Value::Number),
    same("transaction.timeout.ms", For::Producer, Value::Number),
    same("retries", For::Producer, Value::Number),
    same("max.in.flight.requests.per.connection", For::Producer, Value::Number),
    same("queue.buffering.max.kbytes", For::Producer, Value::Number),
    same("queue.buffering.max.messages", For::Producer, Value::Number),
];

/// Java's limit for calls that wait for a broker; librdkafka takes it with each call.
pub const API_TIMEOUT: &str = "default.api.timeout.ms";

/// A source's; a table that is written may have them too, where they mean nothing.
const OF_SOURCES: &[&str] = &["group.id", "auto.offset.reset"];

/// Properties that people try, and what to do instead.
const REFUSED: &[(&str, &str)] = &[
    ("enable.auto.commit", "offsets are kept in checkpoints and committed to the group when one completes"),
    ("auto.commit.interval.ms", "offsets are kept in checkpoints and committed to the group when one completes"),
    ("enable.auto.offset.store", "offsets are kept in checkpoints and committed to the group when one completes"),
    ("partition.assignment.strategy", "the engine deals partitions to its subtasks"),
    ("group.instance.id", "the engine deals partitions to its subtasks"),
    ("group.protocol", "the engine deals partitions to its subtasks"),
    ("partition.discovery.interval.ms", "use 'scan.topic-partition-discovery.interval'"),
    ("enable.partition.eof", "the engine sets it"),
    ("enable.idempotence", "it follows from 'sink.delivery-guarantee'"),
    ("transactional.id", "use 'sink.transactional-id-prefix'"),
    ("key.serializer", "use 'key.format'"),
    ("value.serializer", "use 'value.format'"),
    ("key.deserializer", "use 'key.format'"),
    ("value.deserializer", "use 'value.format'"),
    ("interceptor.classes", "no code of yours runs in the client"),
    ("plugin.library.paths", "no code of yours runs in the client"),
    ("ssl.ca.location", "a table names no files; give the certificates as 'properties.ssl.ca.pem'"),
    ("ssl.truststore.location", "a table names no files; give the certificates as 'properties.ssl.ca.pem'"),
    ("ssl.truststore.password", "give the certificates as 'properties.ssl.ca.pem'"),
    ("ssl.truststore.type", "give the certificates as 'properties.ssl.ca.pem'"),
    ("ssl.certificate.location", "a table names no files; give the certificate as 'properties.ssl.certificate.pem'"),
    ("ssl.key.location", "a table names no files; give the key as 'properties.ssl.key.pem' by a secret"),
    (
        "ssl.keystore.location",
        "a table names no files; use 'properties.ssl.certificate.pem' and 'properties.ssl.key.pem'",
    ),
    ("ssl.keystore.password", "use 'properties.ssl.key.pem' and 'properties.ssl.key.password'"),
    ("ssl.keystore.type", "use 'properties.ssl.certificate.pem' and 'properties.ssl.key.pem'"),
];

impl KafkaClient {
    /// Takes `properties.bootstrap.servers` and every other `properties.*`. What only a source has
    /// (`properties.group.id`, `properties.auto.offset.reset`) it takes before; for others it means nothing.
    pub fn parse(options: &mut Options) -> Result<KafkaClient, OptionError> {
        let bootstrap = options.require(BOOTSTRAP, "brokers like 'host:9092,other:9092'")?;
        let bootstrap = brokers(&bootstrap)
            .ok_or_else(|| options.unaccepted(BOOTSTRAP, &bootstrap, "brokers like 'host:9092,other:9092'"))?;
        let mut properties: Vec<(String, Template)> = Vec::new();
        for (name, text) in options.with_prefix(PREFIX) {
            if OF_SOURCES.contains(&name.as_str()) {
                continue;
            }
            for (to, value) in translate(options, &name, &text)? {
                if properties.iter().any(|(known, _)| *known == to) {
                    let what =
                        format!("option '{PREFIX}{name}' says again what another name of '{to}' says, expected one");
                    return Err(options.error(&format!("{PREFIX}{name}"), what));
                }
                properties.push((to, value));
            }
        }
        properties.sort_by(|(a, _), (b, _)| a.cmp(b));
        let client = KafkaClient { bootstrap, properties };
        client.check(options)?;
        Ok(client)
    }

    pub fn get(&self, name: &str) -> Option<&Template> {
        self.properties.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// What librdkafka is to be told for a consumer, respectively a producer.
    pub fn properties_for(&self, client: For) -> impl Iterator<Item = (&str, &Template)> {
        self.properties.iter().filter_map(move |(name, value)| {
            let of = PROPERTIES.iter().find(|property| property.to == name).map_or(For::Both, |property| property.of);
            (name != API_TIMEOUT && (of == For::Both || of == client)).then_some((name.as_str(), value))
        })
    }

    /// How long a call may wait for a broker before that is an error.
    pub fn api_timeout_ms(&self) -> Option<u64> {
        let named = |name| self.get(name).and_then(|value: &Template| value.as_str().parse().ok());
        named(API_TIMEOUT).or_else(|| named("socket.timeout.ms"))
    }

    /// What belongs together is there together.
    fn check(&self, options: &Options) -> Result<(), OptionError> {
        let protocol = self.get("security.protocol").map_or("plaintext", Template::as_str);
        let sasl = protocol.starts_with("sasl_");
        let missing = |name: &str, why: &str| {
            let key = format!("{PREFIX}{name}");
            Err(options.error(&key, format!("option '{key}' is missing, expected it because {why}")))
        };
        if sasl && self.get("sasl.mechanism").is_none() {
            return missing("sasl.mechanism", &format!("'{PREFIX}security.protocol' is '{protocol}'"));
        }
        let jaas = self.get("sasl.jaas.config").is_some();
        if sasl && !jaas {
            for name in ["sasl.username", "sasl.password"] {
                if self.get(name).is_none() {
                    return missing(name, &format!("'{PREFIX}security.protocol' is '{protocol}'"));
                }
            }
        }
        let stray = self.properties.iter().find(|(name, _)| {
            let of_sasl = name.starts_with("sasl.") && !sasl;
            let of_ssl = (name.starts_with("ssl.") || name == "enable.ssl.certificate.verification")
                && !protocol.ends_with("ssl");
            of_sasl || of_ssl
        });
        if let Some((name, _)) = stray {
            // A password that is not asked for, or certificates that nobody checks, are a mistake somewhere else.
            let wanted =
                if name.starts_with("sasl.") { "'SASL_SSL' or 'SASL_PLAINTEXT'" } else { "'SSL' or 'SASL_SSL'" };
            let key = format!("{PREFIX}security.protocol");
            let what = format!("option '{PREFIX}{name}' is given, expected '{key}' to be {wanted}");
            return Err(options.error(&format!("{PREFIX}{name}"), what));
        }
        Ok(())
    }
}

/// `host:port` each; what is between them tidied up.
fn brokers(text: &str) -> Option<String> {
    let tidy: Option<Vec<&str>> = text
        .split(',')
        .map(|broker| {
            let broker = broker.trim();
            let (host, port) = broker.rsplit_once(':')?;
            let bracketed = host.starts_with('[') && host.ends_with(']');
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            let host_ok = !host.is_empty() && (bracketed || host.chars().all(plain));
            (host_ok && port.parse::<u16>().is_ok_and(|port| port > 0)).then_some(broker)
        })
        .collect();
    tidy.map(|brokers| brokers.join(","))
}

/// One property under librdkafka's name; a login's two.
fn translate(options: &Options, name: &str, text: &str) -> Result<Vec<(String, Template)>, OptionError> {
    let key = format!("{PREFIX}{name}");
    let Some(property) = PROPERTIES.iter().find(|property| property.name == name) else {
        return Err(unknown(options, name, &key));
    };
    let template = Template::parse(text).map_err(|error| options.error(&key, format!("option '{key}': {error}")))?;
    let one = |text: &str| Ok(vec![(property.to.to_owned(), Template::parse(text).expect("it names no secret"))]);
    match property.value {
        Value::Secret if name == "sasl.jaas.config" => jaas_templates(options, &key, template),
        Value::Secret if !template.is_reference() => {
            let what = format!("option '{key}': found a secret in plain text, expected '${{secret:name}}'");
            Err(options.error(&key, what))
        }
        Value::Secret | Value::Text => Ok(vec![(property.to.to_owned(), template)]),
        Value::Number => {
            // Java's are plain numbers; a duration is what a person of SQL would write.
            let number = text.trim().parse::<u64>().ok();
            let number = number.or_else(|| name.ends_with(".ms").then(|| parse_duration_ms(text)).flatten());
            match number {
                Some(number) => one(&number.to_string()),
                None => Err(options.unaccepted(&key, text, "a whole number")),
            }
        }
        Value::Boolean => match super::parse_boolean(text) {
            Some(value) => one(if value { "true" } else { "false" }),
            None => Err(options.unaccepted(&key, text, "'true' or 'false'")),
        },
        // Java's way to say that the name of a host is not checked.
        Value::OneOf(_) if name == "ssl.endpoint.identification.algorithm" && text.is_empty() => one("none"),
        Value::OneOf(values) => match values.iter().find(|value| value.eq_ignore_ascii_case(text.trim())) {
            Some(value) => one(value),
            None => {
                let values: Vec<String> = values.iter().map(|value| format!("'{value}'")).collect();
                Err(options.unaccepted(&key, text, &values.join(", ")))
            }
        },
    }
}

fn jaas_templates(options: &Options, key: &str, template: Template) -> Result<Vec<(String, Template)>, OptionError> {
    if template.is_only_reference() {
        // The worker looks into it.
        return Ok(vec![("sasl.jaas.config".into(), template)]);
    }
    let login = parse_jaas(template.as_str());
    // What was found is not repeated: it may hold a password.
    let (username, password) = login.map_err(|what| options.error(key, format!("option '{key}': {what}")))?;
    let part =
        |text: &str| Template::parse(text).map_err(|error| options.error(key, format!("option '{key}': {error}")));
    let (username, password) = (part(&username)?, part(&password)?);
    if !password.is_reference() {
        let what = format!("option '{key}': found a password in plain text, expected password=\"${{secret:name}}\"");
        return Err(options.error(key, what));
    }
    Ok(vec![("sasl.username".into(), username), ("sasl.password".into(), password)])
}

/// User and password of `…PlainLoginModule required username="…" password="…";`, or of the module for SCRAM. The
/// mechanism is said elsewhere.
pub fn parse_jaas(text: &str) -> Result<(String, String), String> {
    const EXPECTED: &str = "expected PlainLoginModule or ScramLoginModule required username=\"…\" password=\"…\";";
    let text = text.trim().trim_end_matches(';').trim();
    let (module, rest) = text.split_once(char::is_whitespace).ok_or(EXPECTED)?;
    if !["PlainLoginModule", "ScramLoginModule"].contains(&module.rsplit('.').next().unwrap_or(module)) {
        return Err(EXPECTED.into());
    }
    let mut rest = rest.trim_start().strip_prefix("required").ok_or(EXPECTED)?.trim_start();
    let (mut username, mut password) = (None, None);
    while !rest.is_empty() {
        let (name, behind) = rest.split_once('=').ok_or(EXPECTED)?;
        let behind = behind.trim_start();
        let quote = behind.chars().next().filter(|c| matches!(c, '"' | '\'')).ok_or(EXPECTED)?;
        let mut value = String::new();
        let mut end = None;
        let mut chars = behind.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => value.extend(chars.next().map(|(_, c)| c)),
                c if c == quote => {
                    end = Some(at + 1);
                    break;
                }
                c => value.push(c),
            }
        }
        match name.trim() {
            "username" => username = Some(value),
            "password" => password = Some(value),
            _ => return Err(EXPECTED.into()),
        }
        rest = behind[end.ok_or(EXPECTED)?..].trim_start();
    }
    Ok((username.ok_or(EXPECTED)?, password.ok_or(EXPECTED)?))
}

fn unknown(options: &Options, name: &str, key: &str) -> OptionError {
    if let Some((_, instead)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
        return options.error(key, format!("option '{key}' is not accepted: {instead}"));
    }
    let mut near: Vec<(usize, &str)> = PROPERTIES
        .iter()
        .map(|property| (distance(name, property.name), property.name))
        .filter(|(far, _)| *far <= 2.max(name.len() / 3))
        .collect();
    near.sort();
    let names: Vec<String> = near.iter().take(3).map(|(_, name)| format!("'{PREFIX}{name}'")).collect();
    let hint = match names.is_empty() {
        false => format!("did you mean {}", names.join(" or ")),
        true => "it is not among the client properties that a table may set".into(),
    };
    options.error(key, format!("unknown option '{key}', {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<KafkaClient, String> {
        let map = pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let mut options = Options::new("t", map);
        let client = KafkaClient::parse(&mut options).map_err(|error| error.message)?;
        options.finish().map_err(|error| error.message)?;
        Ok(client)
    }

    fn with(more: &[(&str, &str)]) -> Result<Vec<(String, String)>, String> {
        let pairs = [&[("properties.bootstrap.servers", "b:9092")], more].concat();
        let client = parse(&pairs)?;
        Ok(client.properties.into_iter().map(|(name, value)| (name, value.as_str().to_owned())).collect())
    }

    #[test]
    fn javas_names_become_those_of_the_library() {
        let found = with(&[
            ("properties.security.protocol", "SASL_SSL"),
            ("properties.sasl.mechanism", "scram-sha-512"),
            (
                "properties.sasl.jaas.config",
                "org.apache.kafka.common.security.scram.ScramLoginModule required\n username=\"u\\\"v\" \
                 password='${secret:p}';",
            ),
            ("properties.ssl.truststore.certificates", "PEM"),
            ("properties.ssl.keystore.key", "${secret:key}"),
            ("properties.fetch.max.wait.ms", "20 ms"),
            ("properties.group.id", "g"),
        ]);
        let expected = [
            ("fetch.wait.max.ms", "20"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.password", "${secret:p}"),
            ("sasl.username", "u\"v"),
            ("security.protocol", "sasl_ssl"),
            ("ssl.ca.pem", "PEM"),
            ("ssl.key.pem", "${secret:key}"),
        ];
        let expected: Vec<_> = expected.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        assert_eq!(found, Ok(expected));
    }

    #[test]
    fn what_names_files_loads_code_or_is_ours_is_refused_with_what_to_do_instead() {
        for (name, hint) in [
            ("ssl.ca.location", "properties.ssl.ca.pem"),
            ("plugin.library.paths", "no code of yours"),
            ("enable.auto.commit", "kept in checkpoints"),
            ("transactional.id", "sink.transactional-id-prefix"),
            ("ssl.engine.location", "not among the client properties"),
            ("sasl.kerberos.kinit.cmd", "not among the client properties"),
            ("debug", "not among the client properties"),
            ("fetch.min.byte", "did you mean 'properties.fetch.min.bytes'"),
        ] {
            let error = with(&[(&format!("properties.{name}"), "x")]).expect_err(name);
            assert!(error.contains(&format!("'properties.{name}'")) && error.contains(hint), "{error}");
        }
    }

    #[test]
    fn secrets_in_plain_text_are_refused_and_not_repeated() {
        let sasl = [("properties.security.protocol", "SASL_SSL"), ("properties.sasl.mechanism", "PLAIN")];
        for (name, value) in [
            ("sasl.password", "hunter2"),
            ("ssl.key.pem", "hunter2"),
            ("sasl.jaas.config", "PlainLoginModule required username=\"u\" password=\"hunter2\";"),
            ("sasl.jaas.config", "PlainLoginModule required username=\"u\" hunter2"),
        ] {
            let key = format!("properties.{name}");
            let error = with(&[&sasl[..], &[(key.as_str(), value)]].concat()).expect_err(name);
            assert!(!error.contains("hunter2") && error.contains(&key), "{error}");
        }
    }

    #[test]
    fn values_are_checked_where_they_are_written() {
        for (pairs, expected) in [
            (&[("properties.bootstrap.servers", "b")][..], "expected brokers like"),
            (&[("properties.bootstrap.servers", "PLAINTEXT://b:9092")], "expected brokers like"),
            (&[("properties.bootstrap.servers", "b:9092,c:0")], "expected brokers like"),
            (&[], "'properties.bootstrap.servers' is missing"),
        ] {
            let error = parse(pairs).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
        for (more, expected) in [
            (&[("properties.security.protocol", "tls")][..], "found 'tls', expected 'plaintext', 'ssl'"),
            (&[("properties.sasl.mechanism", "GSSAPI")], "expected 'PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512'"),
            (&[("properties.fetch.min.bytes", "many")], "expected a whole number"),
            (&[("properties.security.protocol", "SASL_SSL")], "'properties.sasl.mechanism' is missing"),
            (&[("properties.sasl.username", "u")], "expected 'properties.security.protocol' to be 'SASL_SSL'"),
            (&[("properties.ssl.ca.pem", "PEM")], "expected 'properties.security.protocol' to be 'SSL'"),
            (
                &[("properties.request.timeout.ms", "1"), ("properties.socket.timeout.ms", "2")],
                "says again what another name of 'socket.timeout.ms' says",
            ),
        ] {
            let error = with(more).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
        let tidy = parse(&[("properties.bootstrap.servers", " a:1 , [::1]:2")]).map(|client| client.bootstrap);
        assert_eq!(tidy, Ok("a:1,[::1]:2".into()));
    }

    #[test]
    fn each_client_gets_what_is_for_it() {
        let pairs = [
            ("properties.bootstrap.servers", "b:1"),
            ("properties.client.id", "c"),
            ("properties.linger.ms", "5"),
            ("properties.fetch.min.bytes", "1"),
            ("properties.default.api.timeout.ms", "7 s"),
        ];
        let client = parse(&pairs).expect("valid");
        let names = |of| client.properties_for(of).map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(For::Consumer), ["client.id", "fetch.min.bytes"]);
        assert_eq!(names(For::Producer), ["client.id", "linger.ms"]);
        assert_eq!(client.api_timeout_ms(), Some(7000));
    }
}
