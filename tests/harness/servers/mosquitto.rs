//! A real Mosquitto. It keeps sessions and their messages in a file, and writes it after each change, but a moment
//! after it has acknowledged the message; so a test that kills it asks first whether it [`Mosquitto::has_stored`] what
//! must survive, or stops it, which loses nothing.

mod client;
mod listener;

pub use client::{Login, Session};
pub use listener::{Listener, Message};

use super::server::{Program, Server};
use super::{Certificates, programs};
use crate::missing::missing;
use crate::process::{Process, dies_with_us};
use anyhow::{Context, Result, ensure};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const STORE: &str = "mosquitto.db";

/// Nothing set: anybody may come, without TLS; what is not delivered is kept in a file.
#[derive(Default)]
pub struct Options {
    /// Only they may come.
    pub users: Vec<(&'static str, &'static str)>,
    /// Of a second port, [`Mosquitto::tls_port`].
    pub tls: Tls,
    /// The file is written when it is stopped, and not before: for many messages per second.
    pub stores_at_end_only: bool,
    /// More lines of its configuration.
    pub lines: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    #[default]
    No,
    /// The client looks at the server's certificate.
    OfServer,
    /// The server looks at the client's, too.
    OfBoth,
}

pub struct Mosquitto {
    server: Server<Broker>,
}

impl Mosquitto {
    /// None, and `what` is said not to have run, where the machine has none.
    #[track_caller]
    pub fn start(what: &str, options: Options) -> Option<Mosquitto> {
        Broker::find(options).map_err(|lack| missing(what, &lack)).ok().map(|broker| {
            let server = Server::start(broker).unwrap_or_else(|e| panic!("{e:#}"));
            Mosquitto { server }
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

    /// Whether a payload that is waiting for its receiver is in the file.
    pub fn has_stored(&self, payload: &[u8]) -> bool {
        let file = std::fs::read(self.server.home().join(STORE)).unwrap_or_default();
        file.windows(payload.len()).any(|bytes| bytes == payload)
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// SIGTERM: it stores what it has and ends.
    pub fn stop(&mut self) -> Result<()> {
        self.server.stop()
    }

    /// On the same port with the same file.
    pub fn start_again(&mut self) -> Result<()> {
        self.server.start_again()
    }

    pub fn freeze(&self) {
        self.server.freeze();
    }

    pub fn thaw(&self) {
        self.server.thaw();
    }

    /// What it has said since its last start: each packet that came or went has a line, such as `Sending SUBACK to ID`.
    pub fn said(&self) -> String {
        self.server.said()
    }

    pub fn log_tail(&self, lines: usize) -> String {
        self.server.log_tail(lines)
    }
}

struct Broker {
    program: PathBuf,
    passwords: PathBuf,
    options: Options,
    certificates: Option<Certificates>,
}

impl Broker {
    fn find(options: Options) -> Result<Broker, String> {
        let program = programs::find("mosquitto", "mosquitto")?;
        let passwords = programs::find("mosquitto_passwd", "mosquitto")?;
        let certificates = match (options.tls, Certificates::lack()) {
            (Tls::No, _) => None,
            (_, Some(lack)) => return Err(lack),
            (_, None) => Some(Certificates::make().expect("openssl makes certificates")),
        };
        Ok(Broker { program, passwords, options, certificates })
    }

    fn configuration(&self, home: &Path, ports: &[u16]) -> String {
        let mut lines = vec![
            format!("listener {} 127.0.0.1", ports[0]),
            format!("allow_anonymous {}", self.options.users.is_empty()),
            "log_dest stderr".to_string(),
            "log_type all".to_string(),
            // Started by root it would become a user who may not write here.
            "user root".to_string(),
            "set_tcp_nodelay true".to_string(),
            "persistence true".to_string(),
            format!("persistence_location {}/", home.display()),
            format!("persistence_file {STORE}"),
            // Nothing is dropped and nothing held back: 0 is no limit.
            "max_inflight_messages 0".to_string(),
            "max_queued_messages 0".to_string(),
        ];
        match self.options.stores_at_end_only {
            true => lines.push("autosave_interval 0".to_string()),
            false => lines.extend(["autosave_on_changes true", "autosave_interval 1"].map(String::from)),
        }
        if !self.options.users.is_empty() {
            lines.push(format!("password_file {}", home.join("passwords").display()));
        }
        if let Some(made) = &self.certificates {
            lines.push(format!("listener {} 127.0.0.1", ports[1]));
            lines.push(format!("cafile {}", made.authority().display()));
            lines.push(format!("certfile {}", made.server().display()));
            lines.push(format!("keyfile {}", made.server_key().display()));
            lines.push(format!("require_certificate {}", self.options.tls == Tls::OfBoth));
        }
        lines.extend(self.options.lines.iter().cloned());
        lines.join("\n") + "\n"
    }
}

impl Program for Broker {
    const NAME: &'static str = "mosquitto";
    const PORTS: usize = 2;

    fn prepare(&self, home: &Path, ports: &[u16]) -> Result<()> {
        std::fs::write(home.join("mosquitto.conf"), self.configuration(home, ports))?;
        let passwords: String = self.options.users.iter().map(|(user, word)| format!("{user}:{word}\n")).collect();
        if passwords.is_empty() {
            return Ok(());
        }
        std::fs::write(home.join("passwords"), passwords)?;
        let mut command = Command::new(&self.passwords);
        command.args(["-U", "passwords"]).current_dir(home).stdin(Stdio::null());
        dies_with_us(&mut command);
        let done = command.output().context("mosquitto_passwd does not start")?;
        ensure!(done.status.success(), "mosquitto_passwd: {}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    }

    fn command(&self, home: &Path, _: &[u16]) -> Command {
        // It writes through to its standard error only; to a file its standard output comes when it ends.
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "exec \"$0\" -c mosquitto.conf 2>&1"]).arg(&self.program).current_dir(home);
        command
    }

    fn ready(&self, process: &Process, ports: &[u16]) -> bool {
        process.said().contains(" running") && TcpStream::connect(("127.0.0.1", ports[0])).is_ok()
    }
}
