//! What a table in Redis says, whether it is written or looked up: where the server is, who we are there, and how
//! values make a key.

use super::options::{OptionError, Options};
use crate::secret::Template;
use serde::{Deserialize, Serialize};

const CONNECT_MS: u64 = 10_000;
const COMMAND_MS: u64 = 10_000;

/// One Redis server, and who we are there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisServer {
    pub host: String,
    pub port: u16,
    pub database: u32,
    pub tls: bool,
    pub username: Option<Template>,
    pub password: Option<Template>,
    pub connect_timeout_ms: u64,
    /// The longest silence while answers are awaited.
    pub command_timeout_ms: u64,
}

impl RedisServer {
    pub(super) fn parse(options: &mut Options) -> Result<RedisServer, OptionError> {
        const URL: &str = "an address like 'redis://host:6379/0' or 'rediss://host:6380'";
        let url = options.require("url", URL)?;
        // What stands before an `@` may be a password, and is not repeated.
        if url.contains('@') {
            let what =
                "option 'url': found a user before the host, expected 'username' and 'password' = '${secret:name}'";
            return Err(options.error("url", what.into()));
        }
        let Some((tls, host, port, database)) = address(&url) else {
            return Err(options.unaccepted("url", &url, URL));
        };
        let username = options.template("username")?;
        let password = options.secret("password")?;
        if username.is_some() && password.is_none() {
            let what = "option 'username' is set and 'password' is missing, expected '${secret:name}'";
            return Err(options.error("password", what.into()));
        }
        let connect_timeout_ms = options.timeout_ms("connect.timeout", CONNECT_MS)?;
        // HTTP's name for it is taken too.
        let request_timeout_ms = options.timeout_ms("request.timeout", COMMAND_MS)?;
        let command_timeout_ms = options.timeout_ms("command.timeout", request_timeout_ms)?;
        Ok(RedisServer { host, port, database, tls, username, password, connect_timeout_ms, command_timeout_ms })
    }

    /// For people; without the user.
    pub fn describe(&self) -> String {
        let scheme = if self.tls { "rediss" } else { "redis" };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{scheme}://{host}:{}/{}", self.port, self.database)
    }
}

/// `'key.prefix'` and `'key.separator'`.
pub(super) fn key(options: &mut Options) -> (String, String) {
    let prefix = options.take("key.prefix").unwrap_or_default();
    (prefix, options.take("key.separator").unwrap_or_else(|| ":".into()))
}

/// `redis://host[:port][/database]`.
fn address(url: &str) -> Option<(bool, String, u16, u32)> {
    let (tls, rest) = match url.strip_prefix("redis://") {
        Some(rest) => (false, rest),
        None => (true, url.strip_prefix("rediss://")?),
    };
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let database = if database.is_empty() { 0 } else { database.parse().ok()? };
    let (host, port) = match authority.strip_prefix('[') {
        Some(six) => {
            let (host, port) = six.split_once(']')?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    let port = port.map_or(Some(6379), |port| port.parse().ok().filter(|port| *port > 0))?;
    (!host.is_empty() && host.chars().all(legal)).then(|| (tls, host.to_owned(), port, database))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<RedisServer, OptionError> {
        let map = pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        RedisServer::parse(&mut Options::new("t", map))
    }

    #[test]
    fn addresses_have_a_host_and_may_have_port_and_database() {
        for (url, expected) in [
            ("redis://localhost", Some((false, "localhost", 6379, 0))),
            ("rediss://a-b.example:1/15", Some((true, "a-b.example", 1, 15))),
            ("redis://[::1]:7000", Some((false, "::1", 7000, 0))),
            ("redis://10.0.0.1/", Some((false, "10.0.0.1", 6379, 0))),
            ("redis://", None),
            ("redis://host:0", None),
            ("redis://host:70000", None),
            ("redis://host/x", None),
            ("redis://ho st", None),
            ("http://host", None),
            ("host:6379", None),
        ] {
            let found = address(url);
            let found = found.as_ref().map(|(tls, host, port, database)| (*tls, host.as_str(), *port, *database));
            assert_eq!(found, expected, "{url}");
        }
    }

    #[test]
    fn a_password_in_the_address_is_refused_and_not_repeated() {
        let error = parse(&[("url", "redis://u:hunter2@host")]).expect_err("refused");
        assert!(
            error.message.contains("found a user before the host") && !error.message.contains("hunter2"),
            "{error}"
        );
    }

    #[test]
    fn the_longest_silence_has_two_names() {
        let none: &[(&str, &str)] = &[];
        for (more, expected) in [
            (none, 10_000),
            (&[("request.timeout", "2 s")], 2_000),
            (&[("command.timeout", "3 s")], 3_000),
            (&[("command.timeout", "3 s"), ("request.timeout", "2 s")], 3_000),
            (&[("request.timeout", "0 s")], 10_000),
        ] {
            let server = parse(&[&[("url", "redis://h")][..], more].concat()).expect("known");
            assert_eq!(server.command_timeout_ms, expected, "{more:?}");
        }
    }
}
