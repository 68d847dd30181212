//! The coordinator's rim: gRPC for tools and workers on one port, HTTP for people and Prometheus on another. Everything
//! it knows it asks of the leader.

mod ask;
mod control;
mod follow;
mod http;
mod limits;
mod metrics;
mod process;
#[cfg(test)]
mod tests;

pub use control::Control;
pub use http::router;

use crate::leader::Handle;
use crate::workers::{Agents, REPORT_BYTES_MAX, closed};
use ef_proto::error::{Code, Error};
use ef_proto::wire::generated::agent::agents_server::AgentsServer;
use ef_proto::wire::generated::control::control_server::ControlServer;
use std::future::{Future, IntoFuture};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::transport::Server;
use tonic::transport::server::{Router, TcpIncoming};

/// Requests of one connection that are answered at once; more wait. Streams do not count.
const REQUESTS_AT_ONCE: usize = 64;

/// Streams and requests of one connection, waiting ones included.
const STREAMS_MAX: u32 = 512;

/// For the answer to begin; streams then take as long as they take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// For requests under way when the servers are to end.
const FAREWELL: Duration = Duration::from_secs(5);

/// When a connection on which nothing comes back counts as broken.
#[derive(Clone, Copy, Debug)]
struct Keepalive {
    /// After this long without a word the other side is asked.
    interval: Duration,
    /// So long it may take to answer.
    timeout: Duration,
}

/// A worker that stands still, or whose link is half open, is gone before its heartbeats count as missing.
const KEEPALIVE: Keepalive = Keepalive { interval: Duration::from_secs(2), timeout: Duration::from_secs(4) };

/// Runs both servers until `shutdown`, then ends them: nobody is let in any more, streams are told so, and what is under
/// way has a few seconds. An error if one of them ends by itself.
pub async fn serve(
    listen: TcpListener,
    http: TcpListener,
    handle: Handle,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let (close, closing) = watch::channel(false);
    let incoming = TcpIncoming::from(listen).with_nodelay(Some(true)).with_keepalive(Some(KEEPALIVE.interval));
    let services = grpc(handle.clone(), closing.clone(), KEEPALIVE);
    let grpc = services.serve_with_incoming_shutdown(incoming, closed(closing.clone()));
    let http = axum::serve(http, router(handle)).with_graceful_shutdown(closed(closing)).into_future();
    let mut servers: JoinSet<Result<(), Error>> = JoinSet::new();
    servers.spawn(async move { grpc.await.map_err(|e| gone("gRPC", &e)) });
    servers.spawn(async move { http.await.map_err(|e| gone("HTTP", &e)) });
    let result = tokio::select! {
        () = shutdown => Ok(()),
        Some(ended) = servers.join_next() => match ended {
            Ok(Err(e)) => Err(e),
            Ok(Ok(())) => Err(Error::new(Code::Internal, "a server has ended before it was told to")),
            Err(e) => Err(gone("gRPC or HTTP", &e)),
        },
    };
    close.send_replace(true);
    let rest = async { while servers.join_next().await.is_some() {} };
    if tokio::time::timeout(FAREWELL, rest).await.is_err() {
        tracing::warn!("some requests were still under way when the servers ended");
    }
    result
}

fn grpc(handle: Handle, closing: watch::Receiver<bool>, keepalive: Keepalive) -> Router {
    let control = Control::new(handle.clone(), closing.clone());
    let agents = Agents::new(handle, closing);
    Server::builder()
        .concurrency_limit_per_connection(REQUESTS_AT_ONCE)
        .max_concurrent_streams(STREAMS_MAX)
        .timeout(REQUEST_TIMEOUT)
        .http2_keepalive_interval(Some(keepalive.interval))
        .http2_keepalive_timeout(Some(keepalive.timeout))
        .add_service(ControlServer::new(control).max_decoding_message_size(limits::REQUEST_BYTES_MAX))
        .add_service(AgentsServer::new(agents).max_decoding_message_size(REPORT_BYTES_MAX))
}

fn gone(server: &str, error: &dyn std::fmt::Display) -> Error {
    Error::new(Code::Unavailable, format!("the coordinator's {server} server has ended: {error}"))
}
