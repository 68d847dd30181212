//! A real Apache Kafka: one node that is broker and controller, with transactions. [`Kafka::shared`] is for all tests
//! that leave it as it is; a test that breaks its broker starts one of its own. Where the machine cannot run one, a
//! test says so and passes, but not in CI. `EDGEFLOW_TEST_KAFKA=host:port` names a broker to use as the shared one.

mod acl;
mod admin;
mod client;
mod jars;
mod properties;
mod transactions;
mod writer;

pub use acl::{Resource, Right};
pub use client::{Client, Committed, Counter, Isolation, Record, Row};
pub use properties::{ADMIN, ADMIN_PASSWORD, Options};
pub use transactions::Transactions;
pub use writer::Writer;

use super::Certificates;
use super::server::{Program, Server};
use crate::missing::missing;
use crate::process::{Process, dies_with_us};
use anyhow::{Result, bail};
use jars::Installation;
use rand::Rng;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// The same for all, so that a client that meets another broker on a port it knew does not take it for a stranger.
const CLUSTER: &str = "RWRnZUZsb3dUZXN0cy4wMQ";
/// In which package it lies depends on the version.
const STORAGE_TOOLS: [&str; 2] = ["kafka.tools.StorageTool", "org.apache.kafka.tools.StorageTool"];

static SHARED: OnceLock<Result<Kafka, String>> = OnceLock::new();

pub struct Kafka {
    client: Client,
    /// None: somebody else's.
    server: Option<Server<Broker>>,
}

impl Kafka {
    /// One for all tests of this process, started by the first that asks. None, and `what` is said not to have run,
    /// where there is none.
    #[track_caller]
    pub fn shared(what: &str) -> Option<&'static Kafka> {
        let shared = SHARED.get_or_init(|| match std::env::var("EDGEFLOW_TEST_KAFKA") {
            Ok(bootstrap) => Ok(Kafka { client: Client::new(&bootstrap), server: None }),
            Err(_) => Kafka::new(Options::default()).inspect(|_| {
                // Nothing drops a static.
                // SAFETY: the function takes no argument, returns nothing and does not unwind.
                unsafe { libc::atexit(end_shared) };
            }),
        });
        shared.as_ref().map_err(|lack| missing(what, lack)).ok()
    }

    /// One of the caller's own, which it may break. None as for [`Kafka::shared`].
    #[track_caller]
    pub fn start(what: &str, options: Options) -> Option<Kafka> {
        if std::env::var_os("EDGEFLOW_TEST_KAFKA").is_some() {
            missing(
                what,
                "the broker of EDGEFLOW_TEST_KAFKA is not ours to break or set up; unset it to have one started",
            );
            return None;
        }
        Kafka::new(options).map_err(|lack| missing(what, &lack)).ok()
    }

    /// Panics if a broker does not start though all is there.
    fn new(options: Options) -> Result<Kafka, String> {
        let installation = jars::installation()?;
        let certificates = match (options.tls, Certificates::lack()) {
            (false, _) => None,
            (true, Some(lack)) => return Err(lack),
            (true, None) => Some(Certificates::make().expect("openssl makes certificates")),
        };
        let server = Server::start(Broker { installation, options, certificates }).map_err(|e| format!("{e:#}"));
        let server = match server {
            Err(e) if e.contains("UnsupportedClassVersionError") => {
                return Err(format!("Java is too old, Kafka 4 needs 17: {e}"));
            }
            server => server.unwrap_or_else(|e| panic!("{e}")),
        };
        let client = server.program().client(server.port(0));
        Ok(Kafka { client, server: Some(server) })
    }

    /// What a job has as `properties.bootstrap.servers`.
    pub fn bootstrap(&self) -> &str {
        self.client.bootstrap()
    }

    /// As the one who may do everything.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The authority whose certificate the broker shows, if it has TLS.
    pub fn certificates(&self) -> Option<&Certificates> {
        self.server.as_ref().and_then(|server| server.program().certificates.as_ref())
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.own_mut().kill();
    }

    /// SIGTERM: it hands over what it holds and ends.
    pub fn stop(&mut self) -> Result<()> {
        self.own_mut().stop()
    }

    /// On the same port with the same data. Returns when it answers.
    pub fn start_again(&mut self) -> Result<()> {
        self.own_mut().start_again()
    }

    pub fn freeze(&self) {
        self.own().freeze();
    }

    pub fn thaw(&self) {
        self.own().thaw();
    }

    pub fn log_tail(&self, lines: usize) -> String {
        self.server.as_ref().map(|server| server.log_tail(lines)).unwrap_or_default()
    }

    fn own(&self) -> &Server<Broker> {
        self.server.as_ref().expect("only a broker that Kafka::start returned is broken")
    }

    fn own_mut(&mut self) -> &mut Server<Broker> {
        self.server.as_mut().expect("only a broker that Kafka::start returned is broken")
    }
}

/// A name for a topic, a group or a transactional id that no other test has, nor an earlier run on the same broker.
pub fn unique(name: &str) -> String {
    format!("{name}-{:08x}", rand::rng().random::<u32>())
}

extern "C" fn end_shared() {
    if let Some(Ok(Kafka { server: Some(server), .. })) = SHARED.get() {
        server.end_for_good();
    }
}

struct Broker {
    installation: Installation,
    options: Options,
    certificates: Option<Certificates>,
}

impl Broker {
    fn client(&self, port: u16) -> Client {
        self.options.client(&format!("127.0.0.1:{port}"), self.certificates.as_ref())
    }

    /// What starts and fits fast, and takes 250 MB; what the test wants instead stands last and wins.
    fn java(&self, home: &Path) -> Command {
        let mut command = Command::new(&self.installation.java);
        command.args(["-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]);
        command.args(["-Dorg.slf4j.simpleLogger.logFile=System.out", "-Dorg.slf4j.simpleLogger.showDateTime=true"]);
        command.arg("-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS").args(&self.options.java);
        command.arg("-cp").arg(&self.installation.classpath).current_dir(home);
        command
    }
}

impl Program for Broker {
    const NAME: &'static str = "kafka";
    const PORTS: usize = 2;

    fn prepare(&self, home: &Path, ports: &[u16]) -> Result<()> {
        let text = properties::server_properties(&self.options, self.certificates.as_ref(), home, [ports[0], ports[1]]);
        std::fs::write(home.join("server.properties"), text)?;
        let mut said = String::new();
        for tool in STORAGE_TOOLS {
            let mut command = self.java(home);
            command.args([tool, "format", "-t", CLUSTER, "-c", "server.properties"]).stdin(Stdio::null());
            for (user, password) in self.options.logins() {
                command.args(["--add-scram", &format!("SCRAM-SHA-256=[name={user},password={password}]")]);
            }
            dies_with_us(&mut command);
            let done = command.output()?;
            if done.status.success() {
                return Ok(());
            }
            said = [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
            if !said.contains("find or load main class") {
                break;
            }
        }
        bail!("its storage could not be formatted: {said}")
    }

    fn command(&self, home: &Path, _: &[u16]) -> Command {
        let mut command = self.java(home);
        command.args(["kafka.Kafka", "server.properties"]);
        command
    }

    fn ready(&self, _: &Process, ports: &[u16]) -> bool {
        // It listens long before it answers; until it listens a client would only make it noisy.
        TcpStream::connect(("127.0.0.1", ports[0])).is_ok() && self.client(ports[0]).answers(Duration::from_secs(3))
    }
}
