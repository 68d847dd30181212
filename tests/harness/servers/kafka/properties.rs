//! What a test can ask of a broker of its own, and the `server.properties` that come of it.

use super::client::Client;
use crate::servers::Certificates;
use std::fmt::Write;
use std::path::Path;

/// The user who may do everything, where there are users.
pub const ADMIN: &str = "admin";
pub const ADMIN_PASSWORD: &str = "admin-pw-5f2c";

/// Nothing set: no users, no TLS, Kafka's own limits.
#[derive(Default)]
pub struct Options {
    /// Names and passwords, by SASL PLAIN and SCRAM-SHA-256. With any of them: nobody else comes in, and they may do
    /// only what [`Client::allow`] gives them.
    pub users: Vec<(&'static str, &'static str)>,
    pub tls: bool,
    /// The broker's `message.max.bytes`.
    pub message_bytes_max: Option<u32>,
    /// More properties of the broker; they win over those set here.
    pub properties: Vec<(&'static str, String)>,
    /// More options of Java; they win. By default the broker starts fast and stays small: for a measurement, give it
    /// `-Xmx1g`, `-XX:TieredStopAtLevel=4`, `-XX:-UseSerialGC`, `-XX:+UseParallelGC`.
    pub java: Vec<&'static str>,
}

impl Options {
    pub fn has_users(&self) -> bool {
        !self.users.is_empty()
    }

    /// Every user who can come in.
    pub fn logins(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let admin = self.has_users().then_some((ADMIN, ADMIN_PASSWORD));
        admin.into_iter().chain(self.users.iter().copied())
    }

    fn protocol(&self) -> &'static str {
        match (self.has_users(), self.tls) {
            (false, false) => "PLAINTEXT",
            (false, true) => "SSL",
            (true, false) => "SASL_PLAINTEXT",
            (true, true) => "SASL_SSL",
        }
    }

    /// As the broker's admin, where it has users.
    pub fn client(&self, bootstrap: &str, certificates: Option<&Certificates>) -> Client {
        let client = Client::new(bootstrap).set("security.protocol", self.protocol());
        let client = match certificates {
            Some(made) => client.set("ssl.ca.location", &made.authority().to_string_lossy()),
            None => client,
        };
        if self.has_users() { client.login(ADMIN, ADMIN_PASSWORD) } else { client }
    }
}

/// A broker that is its own controller, small and quick.
pub fn server_properties(
    options: &Options,
    certificates: Option<&Certificates>,
    home: &Path,
    [port, controller]: [u16; 2],
) -> String {
    let mut text = format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=CLIENTS://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=CLIENTS://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=CLIENTS
listener.security.protocol.map=CONTROLLER:PLAINTEXT,CLIENTS:{}
log.dirs={}
auto.create.topics.enable=false
# There is one broker.
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# Few: each is a folder of files, opened at every start.
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
share.coordinator.state.topic.num.partitions=1
# What would otherwise take 128 MB.
log.cleaner.dedupe.buffer.size=4194304
num.network.threads=2
num.io.threads=4
# A group begins at once; a broker that was killed is taken back soon; a transaction that timed out is aborted soon.
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=500
transaction.abort.timed.out.transaction.cleanup.interval.ms=500
",
        options.protocol(),
        home.join("data").display()
    );
    let mut line = |key: &str, value: &str| writeln!(text, "{key}={value}").expect("a string takes it");
    if let Some(made) = certificates {
        line("ssl.keystore.type", "PEM");
        line("ssl.keystore.location", &made.server_key_and_certificate().to_string_lossy());
        line("ssl.truststore.type", "PEM");
        line("ssl.truststore.location", &made.authority().to_string_lossy());
    }
    if options.has_users() {
        let security = "org.apache.kafka.common.security";
        let users: String = options.logins().map(|(name, password)| format!(" user_{name}=\"{password}\"")).collect();
        line("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256");
        line("sasl.mechanism.inter.broker.protocol", "PLAIN");
        let plain = format!(
            "{security}.plain.PlainLoginModule required username=\"{ADMIN}\" password=\"{ADMIN_PASSWORD}\"{users};"
        );
        line("listener.name.clients.plain.sasl.jaas.config", &plain);
        let scram = format!("{security}.scram.ScramLoginModule required;");
        line("listener.name.clients.scram-sha-256.sasl.jaas.config", &scram);
        line("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer");
        // Who comes by the controller's port has no name; clients cannot get it at theirs.
        line("super.users", &format!("User:{ADMIN};User:ANONYMOUS"));
    }
    if let Some(bytes) = options.message_bytes_max {
        line("message.max.bytes", &bytes.to_string());
    }
    options.properties.iter().for_each(|(key, value)| line(key, value));
    text
}
