//! One connection to a broker: dialled, TLS and CONNECT done. What is sent and received over it is the caller's.

use super::packet::{self, ConnAck, Connect, Frame, PACKET_BYTES, Packet};
use crate::error::{Code, Error, Result};
use crate::secrets::Secrets;
use bytes::{Buf, BytesMut};
use ef_proto::connector::{MqttBroker, MqttConnection};
use ef_proto::secret::{Revealed, Template};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

/// TCP, TLS and the broker's answer together.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes that one read may bring.
pub const READ_BYTES: usize = 128 << 10;

pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

pub struct Link {
    pub reading: ReadHalf<Box<dyn Stream>>,
    pub writing: WriteHalf<Box<dyn Stream>>,
    /// What has come behind the CONNACK.
    pub input: BytesMut,
    pub ack: ConnAck,
    pub keep_alive: Duration,
}

/// Why there is no connection, or no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It may pass.
    Passing(String),
    /// Somebody has to change something: credentials, certificates, rights.
    Lasting(String),
}

impl Trouble {
    pub fn words(&self) -> &str {
        match self {
            Trouble::Passing(words) | Trouble::Lasting(words) => words,
        }
    }
}

impl From<packet::Malformed> for Trouble {
    fn from(packet::Malformed(what): packet::Malformed) -> Trouble {
        Trouble::Passing(format!("the broker sent {what}"))
    }
}

/// Everything that a connection needs, secrets still by name: a rotated one is taken with the next connection.
#[derive(Clone, Debug)]
pub struct Dialler {
    pub connection: MqttConnection,
    pub client_id: String,
    pub secrets: Secrets,
}

impl Dialler {
    pub fn broker(&self, attempt: usize) -> &MqttBroker {
        &self.connection.brokers[attempt % self.connection.brokers.len()]
    }

    /// Fails where a secret is missing or a certificate does not parse: before anything is dialled.
    pub fn check(&self) -> Result<()> {
        self.reveal(&self.connection.username)?;
        self.reveal(&self.connection.password)?;
        if self.connection.brokers.iter().any(|broker| broker.tls) { self.tls().map(drop) } else { Ok(()) }
    }

    fn reveal(&self, template: &Option<Template>) -> Result<Option<Revealed>> {
        let revealed = template.as_ref().map(|template| self.secrets.reveal(template)).transpose()?;
        match revealed {
            Some(text) if text.expose().len() > 65_535 => {
                Err(Error::invalid("a user name or password has more than 65535 bytes, which MQTT cannot carry"))
            }
            other => Ok(other),
        }
    }

    fn tls(&self) -> Result<ClientConfig> {
        let pem = |key: &str, what: &str| Error::invalid(format!("option '{key}': {what}, expected PEM text"));
        let certificates = |key: &str, template: &Template| -> Result<Vec<CertificateDer<'static>>> {
            let text = self.secrets.reveal(template)?;
            let found: std::result::Result<Vec<_>, _> =
                CertificateDer::pem_slice_iter(text.expose().as_bytes()).collect();
            let found = found.map_err(|error| pem(key, &error.to_string()))?;
            if found.is_empty() { Err(pem(key, "found no certificate")) } else { Ok(found) }
        };
        let mut roots = RootCertStore::empty();
        match &self.connection.ca {
            Some(template) => {
                for certificate in certificates("tls.ca.pem", template)? {
                    roots.add(certificate).map_err(|error| pem("tls.ca.pem", &error.to_string()))?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if roots.is_empty() {
                    let what = "this machine has no root certificates; name the broker's in 'tls.ca.pem'";
                    return Err(Error::new(Code::NotFound, what));
                }
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|error| Error::new(Code::Internal, format!("TLS: {error}")))?;
        let config = config.with_root_certificates(roots);
        let (Some(certificate), Some(key)) = (&self.connection.certificate, &self.connection.key) else {
            return Ok(config.with_no_client_auth());
        };
        let chain = certificates("tls.cert.pem", certificate)?;
        let text = self.secrets.reveal(key)?;
        let key = PrivateKeyDer::from_pem_slice(text.expose().as_bytes())
            .map_err(|_| pem("tls.key.pem", "found no private key"))?;
        let what = |error: rustls::Error| Error::invalid(format!("options 'tls.cert.pem' and 'tls.key.pem': {error}"));
        config.with_client_auth_cert(chain, key).map_err(what)
    }

    /// Dials the broker of this attempt.
    pub async fn dial(&self, attempt: usize, clean_start: bool) -> std::result::Result<Link, Trouble> {
        let MqttBroker { host, port, tls } = self.broker(attempt);
        let place = |words: String| format!("broker {host}:{port}: {words}");
        let dialled = tokio::time::timeout(DIAL_TIMEOUT, self.connect(host, *port, *tls, clean_start)).await;
        match dialled {
            Ok(Ok(link)) => Ok(link),
            Ok(Err(Trouble::Passing(words))) => Err(Trouble::Passing(place(words))),
            Ok(Err(Trouble::Lasting(words))) => Err(Trouble::Lasting(place(words))),
            Err(_) => Err(Trouble::Passing(place(format!("no answer within {} s", DIAL_TIMEOUT.as_secs())))),
        }
    }

    async fn connect(&self, host: &str, port: u16, tls: bool, clean: bool) -> std::result::Result<Link, Trouble> {
        let passing = |error: io::Error| Trouble::Passing(error.to_string());
        let missing = |error: Error| Trouble::Lasting(error.message);
        let config = if tls { Some(self.tls().map_err(missing)?) } else { None };
        let (username, password) = (
            self.reveal(&self.connection.username).map_err(missing)?,
            self.reveal(&self.connection.password).map_err(missing)?,
        );
        let socket = TcpStream::connect((host, port)).await.map_err(passing)?;
        socket.set_nodelay(true).map_err(passing)?;
        let mut stream: Box<dyn Stream> = match config {
            None => Box::new(socket),
            Some(config) => {
                let name = ServerName::try_from(host.to_owned());
                let name = name.map_err(|_| Trouble::Lasting(format!("`{host}` is no name that TLS can check")))?;
                let connected = TlsConnector::from(Arc::new(config)).connect(name, socket).await;
                Box::new(connected.map_err(tls_trouble)?)
            }
        };
        let connection = &self.connection;
        let hello = Connect {
            version: connection.version,
            client_id: &self.client_id,
            clean_start: clean,
            keep_alive_s: u16::try_from(connection.keep_alive_ms / 1_000).unwrap_or(u16::MAX),
            session_expiry_s: u32::try_from(connection.session_expiry_ms / 1_000).unwrap_or(u32::MAX),
            receive_max: connection.inflight,
            username: username.as_ref().map(Revealed::expose),
            password: password.as_ref().map(Revealed::expose),
        };
        stream.write_all(&hello.write()).await.map_err(passing)?;
        stream.flush().await.map_err(passing)?;
        let mut input = BytesMut::with_capacity(READ_BYTES);
        let ack = loop {
            if let Some(frame) = Frame::of(&input)?.filter(|frame| input.len() >= frame.bytes()) {
                let packet = packet::read(connection.version, frame, &input[frame.head..frame.bytes()])?;
                let Packet::ConnAck(ack) = packet else {
                    return Err(Trouble::Passing(
                        "it does not answer a CONNECT with a CONNACK; is it an MQTT broker?".into(),
                    ));
                };
                input.advance(frame.bytes());
                break ack;
            }
            if input.len() > PACKET_BYTES {
                return Err(Trouble::Passing("its answer is no CONNACK; is it an MQTT broker?".into()));
            }
            if stream.read_buf(&mut input).await.map_err(passing)? == 0 {
                // Of MQTT 3.1.1, brokers that do not know the version just hang up.
                return Err(Trouble::Passing("it hung up on the CONNECT".into()));
            }
        };
        if ack.reason != 0 {
            let mut words = format!("refused the connection: {}", packet::meaning(connection.version, ack.reason));
            if let Some(text) = &ack.text {
                words += &format!(", `{text}`");
            }
            let passes = packet::may_pass(connection.version, ack.reason);
            return Err(if passes { Trouble::Passing(words) } else { Trouble::Lasting(words) });
        }
        let seconds = ack.keep_alive.map(u64::from).unwrap_or(connection.keep_alive_ms / 1_000);
        let keep_alive = Duration::from_secs(if seconds == 0 { 65_535 } else { seconds });
        let (reading, writing) = tokio::io::split(stream);
        Ok(Link { reading, writing, input, ack, keep_alive })
    }
}

/// A certificate that does not verify will not do so by itself; a connection that breaks may.
fn tls_trouble(error: io::Error) -> Trouble {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match cause {
        Some(
            rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_) | rustls::Error::PeerIncompatible(_),
        ) => Trouble::Lasting(format!("TLS: {error}")),
        _ => Trouble::Passing(format!("TLS: {error}")),
    }
}
