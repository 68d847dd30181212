//! A real Redis, and the few lines of its protocol that a check needs.

use super::server::{Program, Server};
use super::{Certificates, programs};
use crate::missing::missing;
use crate::process::Process;
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Nothing set: no password, no TLS; what was written is gone with the process.
#[derive(Default)]
pub struct Options {
    pub password: Option<&'static str>,
    /// A second port, [`Redis::tls_port`].
    pub tls: bool,
    /// Each write is on the disk before its answer (`appendonly`, `appendfsync always`), and there again after a kill.
    pub durable: bool,
    /// More lines of its configuration.
    pub lines: Vec<String>,
}

pub struct Redis {
    server: Server<Store>,
}

impl Redis {
    /// None, and `what` is said not to have run, where the machine has none.
    #[track_caller]
    pub fn start(what: &str, options: Options) -> Option<Redis> {
        Store::find(options).map_err(|lack| missing(what, &lack)).ok().map(|store| {
            let server = Server::start(store).unwrap_or_else(|e| panic!("{e:#}"));
            Redis { server }
        })
    }

    /// On 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.server.port(0)
    }

    /// Nobody listens there unless [`Options::tls`] is set.
    pub fn tls_port(&self) -> u16 {
        self.server.port(1)
    }

    pub fn certificates(&self) -> Option<&Certificates> {
        self.server.program().certificates.as_ref()
    }

    /// A connection, past the password.
    pub fn connect(&self) -> Result<Connection> {
        let mut connection = Connection::open(self.port())?;
        if let Some(password) = self.server.program().options.password {
            connection.ask(&["AUTH", password])?;
        }
        Ok(connection)
    }

    /// One command, on a connection of its own.
    pub fn ask(&self, words: &[&str]) -> Result<Reply> {
        self.connect()?.ask(words)
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// SIGTERM.
    pub fn stop(&mut self) -> Result<()> {
        self.server.stop()
    }

    /// On the same port, with what was durable.
    pub fn start_again(&mut self) -> Result<()> {
        self.server.start_again()
    }

    pub fn freeze(&self) {
        self.server.freeze();
    }

    pub fn thaw(&self) {
        self.server.thaw();
    }

    pub fn log_tail(&self, lines: usize) -> String {
        self.server.log_tail(lines)
    }
}

/// What the server answers (RESP 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `OK` and the like.
    Status(String),
    Number(i64),
    /// Bytes that are text in all our tests.
    Text(String),
    Nil,
    List(Vec<Reply>),
}

impl Reply {
    #[track_caller]
    pub fn text(self) -> String {
        match self {
            Reply::Text(text) => text,
            other => panic!("{other:?} is no text"),
        }
    }

    #[track_caller]
    pub fn list(self) -> Vec<Reply> {
        match self {
            Reply::List(items) => items,
            other => panic!("{other:?} is no list"),
        }
    }
}

pub struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(port: u16) -> Result<Connection> {
        let socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Connection(BufReader::new(socket)))
    }

    /// One command, such as `["SET", "key", "value"]`. What the server calls an error is one.
    pub fn ask(&mut self, words: &[&str]) -> Result<Reply> {
        let mut request = format!("*{}\r\n", words.len());
        words.iter().for_each(|word| request += &format!("${}\r\n{word}\r\n", word.len()));
        self.0.get_mut().write_all(request.as_bytes())?;
        self.hear().with_context(|| format!("redis, asked for {}", words.first().unwrap_or(&"nothing")))
    }

    /// The next answer; for one who has subscribed, the next message.
    pub fn hear(&mut self) -> Result<Reply> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let Some(rest) = line.strip_suffix("\r\n").and_then(|line| line.get(1..)) else { bail!("it hung up") };
        Ok(match line.as_bytes()[0] {
            b'+' => Reply::Status(rest.to_string()),
            b'-' => bail!("{rest}"),
            b':' => Reply::Number(rest.parse()?),
            b'$' | b'*' if rest == "-1" => Reply::Nil,
            b'$' => {
                // The text and its line end.
                let mut bytes = vec![0; rest.parse::<usize>()? + 2];
                self.0.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                Reply::Text(String::from_utf8(bytes)?)
            }
            b'*' => Reply::List((0..rest.parse()?).map(|_| self.hear()).collect::<Result<_>>()?),
            _ => bail!("no answer of RESP 2: {line}"),
        })
    }
}

struct Store {
    program: PathBuf,
    options: Options,
    certificates: Option<Certificates>,
}

impl Store {
    fn find(options: Options) -> Result<Store, String> {
        let program = programs::find("redis-server", "redis-server")?;
        let certificates = match (options.tls, Certificates::lack()) {
            (false, _) => None,
            (true, Some(lack)) => return Err(lack),
            (true, None) => Some(Certificates::make().expect("openssl makes certificates")),
        };
        Ok(Store { program, options, certificates })
    }

    fn configuration(&self, home: &Path, ports: &[u16]) -> String {
        let mut lines = vec![
            format!("port {}", ports[0]),
            "bind 127.0.0.1".to_string(),
            "daemonize no".to_string(),
            format!("dir {}", home.display()),
            "save \"\"".to_string(),
        ];
        if self.options.durable {
            lines.extend(["appendonly yes", "appendfsync always"].map(String::from));
        }
        if let Some(password) = self.options.password {
            lines.push(format!("requirepass {password}"));
        }
        if let Some(made) = &self.certificates {
            lines.push(format!("tls-port {}", ports[1]));
            lines.push(format!("tls-ca-cert-file {}", made.authority().display()));
            lines.push(format!("tls-cert-file {}", made.server().display()));
            lines.push(format!("tls-key-file {}", made.server_key().display()));
            lines.push("tls-auth-clients optional".to_string());
        }
        lines.extend(self.options.lines.iter().cloned());
        lines.join("\n") + "\n"
    }
}

impl Program for Store {
    const NAME: &'static str = "redis";
    const PORTS: usize = 2;

    fn prepare(&self, home: &Path, ports: &[u16]) -> Result<()> {
        Ok(std::fs::write(home.join("redis.conf"), self.configuration(home, ports))?)
    }

    fn command(&self, home: &Path, _: &[u16]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("redis.conf").current_dir(home);
        command
    }

    fn ready(&self, process: &Process, _: &[u16]) -> bool {
        process.said().contains("Ready to accept connections")
    }
}
