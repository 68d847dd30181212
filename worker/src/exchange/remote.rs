//! A worker's exchange with other workers: it listens for their channels and dials its own.
//!
//! One for the process, shared by all deployments. Plain HTTP/2, for networks that are trusted.

use super::codec::Encoder;
use super::dial;
use super::outlet::{MESSAGE_BYTES_MAX, Outlet, Remote};
use super::peers::Peers;
use super::registry::{Inbound, Registration, Registry};
use super::service::{Service, Timing};
use crate::config::CHANNEL_CREDIT_BYTES;
use crate::error::{Context, Result};
use ef_proto::ids::{DeploymentId, SubtaskId};
use ef_proto::wire::generated::exchange::Open;
use ef_proto::wire::generated::exchange::exchange_server::ExchangeServer;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

/// Flow control must not bound what credit bounds: the reader always reads on, so that these windows only span the way
/// from one process to the other.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;

/// Large frames cost less; all channels of a connection wait while one is written.
const HTTP2_FRAME_BYTES: u32 = 256 << 10;

/// Channels from one worker at a time.
const STREAMS_MAX: u32 = 4096;

pub struct Exchange {
    address: SocketAddr,
    registry: Arc<Registry>,
    peers: Peers,
    runtime: Handle,
    stop: Arc<Notify>,
}

/// The other end of a channel to be.
pub struct Dial {
    pub deployment: DeploymentId,
    /// The receiving task, and its gate's channel.
    pub to: SubtaskId,
    pub channel: usize,
    /// Where its worker listens.
    pub address: String,
    /// For messages: the operator's subtask and worker that it leads to.
    pub name: String,
}

impl Exchange {
    /// Binds and serves on the current tokio runtime, until `shutdown` or drop.
    pub fn start(listen: SocketAddr) -> Result<Arc<Exchange>> {
        Exchange::start_with(listen, Timing::default())
    }

    pub fn start_with(listen: SocketAddr, timing: Timing) -> Result<Arc<Exchange>> {
        let what = || format!("cannot listen on {listen} for other workers");
        let incoming = TcpIncoming::bind(listen).unavailable(what)?.with_nodelay(Some(true));
        let address = incoming.local_addr().unavailable(what)?;
        let registry = Arc::new(Registry::default());
        let service = ExchangeServer::new(Service { registry: registry.clone(), timing })
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        let stop = Arc::new(Notify::new());
        let stopped = stop.clone();
        let serving = Server::builder()
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(HTTP2_FRAME_BYTES)
            .max_concurrent_streams(STREAMS_MAX)
            // Many channels are given up at once when a job is: that is no attack.
            .http2_max_pending_accept_reset_streams(Some(STREAMS_MAX as usize))
            .http2_keepalive_interval(Some(timing.keepalive_interval))
            .http2_keepalive_timeout(Some(timing.keepalive_timeout))
            .add_service(service)
            .serve_with_incoming_shutdown(incoming, async move { stopped.notified().await });
        let runtime = Handle::current();
        runtime.spawn(async move {
            if let Err(e) = serving.await {
                tracing::error!("the exchange at {address} has ended: {}", super::peers::causes(&e));
            }
        });
        Ok(Arc::new(Exchange { address, registry, peers: Peers::new(timing), runtime, stop }))
    }

    /// With the port that was chosen, if none was given.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Takes no new connection; channels that are open go on.
    pub fn shutdown(&self) {
        self.stop.notify_one();
    }

    /// From now on other workers' channels find these gates; frames may come before the tasks run.
    pub fn register(&self, id: &DeploymentId, gates: HashMap<SubtaskId, Inbound>) -> Result<Registration> {
        self.registry.register(id, gates)
    }

    /// A channel to a task on another worker. Connects in the background; a failure to do so is that of the first `send`.
    pub fn dial(&self, dial: Dial, encoder: Arc<Mutex<Encoder>>) -> Remote {
        let Dial { deployment, to, channel, address, name } = dial;
        let open = Open {
            job: deployment.job.0,
            region: deployment.region,
            incarnation: deployment.incarnation.0,
            operator: to.operator.0,
            index: to.index,
            channel: channel as u32,
        };
        let outlet = Outlet::new(CHANNEL_CREDIT_BYTES);
        let peer = self.peers.get(&address);
        self.runtime.spawn(dial::run(outlet.clone(), peer, open, format!("the channel to {name}")));
        Remote::new(outlet, encoder)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.stop.notify_one();
    }
}

#[cfg(test)]
mod tests;
