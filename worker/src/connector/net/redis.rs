//! The way to one Redis server: addresses that the guard admits, who we are there, bounds on time; and what its errors
//! mean: what passes by itself, and what does not.

use super::guard::Guard;
use super::mask::Masks;
use crate::connector::Place;
use crate::error::{Code, Error, Result};
use crate::secrets::Secrets;
use ef_proto::connector::RedisServer;
use ef_proto::secret::{Revealed, Template};
use redis::io::tcp::TcpSettings;
use redis::{
    Client, Connection, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisConnectionInfo, RedisError, RedisResult,
    ServerError,
};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

/// Everything that a connection needs, secrets still by name: a rotated one is taken with the next connection.
pub struct Dialler {
    server: RedisServer,
    secrets: Secrets,
    guard: Guard,
    /// Secrets of the connection.
    masks: Masks,
}

/// Why something is not done. Texts hold no secrets.
#[derive(Debug)]
pub enum Trouble {
    /// It may be, later.
    Later(String),
    Never(Error),
}

impl Dialler {
    /// Does not connect. Its secrets must be there.
    pub fn new(server: &RedisServer, place: &Place) -> Result<Dialler> {
        let dialler = Dialler {
            server: server.clone(),
            secrets: place.secrets.clone(),
            guard: Guard::of_process(),
            masks: Masks::default(),
        };
        dialler.identity()?;
        Ok(dialler)
    }

    fn identity(&self) -> Result<(Option<Revealed>, Option<Revealed>)> {
        let reveal = |template: &Option<Template>| template.as_ref().map(|t| self.secrets.reveal(t)).transpose();
        Ok((reveal(&self.server.username)?, reveal(&self.server.password)?))
    }

    /// What is said, without secrets, and of which server.
    pub fn tell(&self, what: impl std::fmt::Display) -> String {
        format!("redis '{}': {}", self.server.describe(), self.masks.hide(&what.to_string()))
    }

    pub fn later(&self, what: impl std::fmt::Display) -> Trouble {
        Trouble::Later(self.tell(what))
    }

    pub fn never(&self, code: Code, what: impl std::fmt::Display) -> Trouble {
        Trouble::Never(Error::new(code, self.tell(what)))
    }

    pub fn connect(&mut self) -> std::result::Result<Connection, Trouble> {
        // A secret that is being replaced may be away for a moment.
        let (username, password) = self.identity().map_err(|error| self.later(error))?;
        self.masks = Masks::new(password.iter().map(|password| password.expose().to_owned()));
        let RedisServer { host, port, database, tls, .. } = &self.server;
        let found = (host.as_str(), *port).to_socket_addrs().map_err(|error| self.later(error))?;
        let found: Vec<SocketAddr> = found.collect();
        for address in &found {
            self.guard.admit(host, address.ip()).map_err(|why| self.never(Code::Invalid, why))?;
        }
        let mut identity = RedisConnectionInfo::default().set_db((*database).into());
        if let Some(username) = &username {
            identity = identity.set_username(username.expose());
        }
        if let Some(password) = &password {
            identity = identity.set_password(password.expose());
        }
        let targets: Vec<ConnectionAddr> = if *tls {
            provide_crypto();
            // By its name, which its certificate must have. The library resolves it once more; who has changed the
            // address meanwhile does not have the certificate.
            vec![ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None }]
        } else {
            found.iter().map(|address| ConnectionAddr::Tcp(address.ip().to_string(), *port)).collect()
        };
        let mut last = self.later("the name has no address");
        for target in targets {
            match self.open(target, identity.clone()) {
                Ok(connection) => return Ok(connection),
                Err(error) => last = self.sort(&error),
            }
            if matches!(last, Trouble::Never(_)) {
                break;
            }
        }
        Err(last)
    }

    fn open(&self, target: ConnectionAddr, identity: RedisConnectionInfo) -> RedisResult<Connection> {
        let info = target.into_connection_info()?.set_redis_settings(identity);
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let connect = Duration::from_millis(self.server.connect_timeout_ms);
        let connection = Client::open(info)?.get_connection_with_timeout(connect)?;
        let command = Some(Duration::from_millis(self.server.command_timeout_ms));
        connection.set_read_timeout(command)?;
        connection.set_write_timeout(command)?;
        Ok(connection)
    }

    /// What kept a connection from being made, or a command from being done. The connection is of no use any more: it
    /// may hold half an answer, and where the server is busy another way may lead to one that is not.
    pub fn sort(&self, error: &RedisError) -> Trouble {
        match error.kind() {
            ErrorKind::AuthenticationFailed => {
                self.never(Code::Invalid, format!("{error}; expected the server's 'username' and 'password'"))
            }
            ErrorKind::InvalidClientConfig => self.never(Code::Invalid, error),
            ErrorKind::Server(_) | ErrorKind::Extension => {
                let refusal = Refusal::from(error);
                if refusal.passes() { self.later(refusal) } else { self.never(refusal.code(), refusal) }
            }
            _ => self.later(error),
        }
    }
}

/// A server's error: `WRONGTYPE Operation against …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    code: String,
    text: String,
}

impl From<&ServerError> for Refusal {
    fn from(error: &ServerError) -> Refusal {
        Refusal { code: error.code().to_owned(), text: error.details().unwrap_or_default().to_owned() }
    }
}

impl From<&RedisError> for Refusal {
    /// Of several commands that were sent together, the first that is refused.
    fn from(error: &RedisError) -> Refusal {
        match error.clone().into_server_errors().as_deref() {
            Some([(_, first), ..]) => Refusal::from(first),
            _ => Refusal {
                code: error.code().unwrap_or("ERR").to_owned(),
                text: error.detail().unwrap_or_default().to_owned(),
            },
        }
    }
}

impl Refusal {
    /// By itself, when the server has loaded its data, found its primary, saved its snapshot.
    pub fn passes(&self) -> bool {
        matches!(
            self.code.as_str(),
            "LOADING" | "BUSY" | "MASTERDOWN" | "TRYAGAIN" | "CLUSTERDOWN" | "READONLY" | "MISCONF" | "NOREPLICAS"
        )
    }

    /// Who has to act: full memory is the server's affair and may be another's fault, the rest is the statement's.
    pub fn code(&self) -> Code {
        if self.code == "OOM" { Code::Unavailable } else { Code::Invalid }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.code, self.text)?;
        match self.code.as_str() {
            "MOVED" | "ASK" | "CROSSSLOT" => {
                f.write_str("; a Redis Cluster is not supported, expected a single server")
            }
            "NOAUTH" | "NOPERM" | "WRONGPASS" => f.write_str("; expected a 'username' and 'password' that may do this"),
            "WRONGTYPE" => f.write_str("; expected a 'key.prefix' under which nobody else writes"),
            _ => Ok(()),
        }
    }
}

/// Once for the process; another's choice stays.
fn provide_crypto() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

#[cfg(test)]
mod tests {
    use super::*;
    use redis::make_extension_error;

    #[test]
    fn errors_of_the_server_are_told_by_its_own_words() {
        let of = |code: &str, text: &str| Refusal::from(&make_extension_error(code.into(), Some(text.into())));
        let busy = of("BUSY", "Redis is busy running a script");
        assert!(busy.passes());
        assert_eq!(busy.to_string(), "BUSY Redis is busy running a script");
        let wrong = of("WRONGTYPE", "Operation against a key");
        assert!(!wrong.passes() && wrong.code() == Code::Invalid);
        assert!(wrong.to_string().starts_with("WRONGTYPE Operation against a key; expected a 'key.prefix'"), "{wrong}");
        assert_eq!(of("OOM", "").code(), Code::Unavailable);
    }
}
