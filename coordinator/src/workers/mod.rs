//! The control streams of workers: each is checked, given a number, and joined with the leader's mailbox.

mod hello;
mod session;
#[cfg(test)]
pub(crate) mod tests;

use crate::leader::{Handle, SessionId};
use ef_proto::wire::generated::agent::{self as wire, agents_server};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Of one report. An ack carries what belongs to no key as it is, and the offsets of a source with very many files, or
/// a sink's list of them, take tens of MiB; so may the deployments of a Hello. Orders to workers, with a whole manifest
/// in a Deploy, are of that size too: workers accept as much.
pub const REPORT_BYTES_MAX: usize = 64 << 20;

#[derive(Debug)]
pub struct Agents {
    handle: Handle,
    closing: watch::Receiver<bool>,
    /// How many streams have been accepted.
    sessions: AtomicU64,
}

impl Agents {
    /// Sessions end when `closing` becomes true.
    pub fn new(handle: Handle, closing: watch::Receiver<bool>) -> Agents {
        Agents { handle, closing, sessions: AtomicU64::new(0) }
    }
}

#[tonic::async_trait]
impl agents_server::Agents for Agents {
    type SessionStream = ReceiverStream<Result<wire::Order, Status>>;

    /// The stream opens at once; what comes of the Hello is told on it.
    async fn session(
        &self,
        request: Request<Streaming<wire::Report>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let id = SessionId(self.sessions.fetch_add(1, Ordering::Relaxed) + 1);
        let from = request.remote_addr().map_or_else(|| "an unknown address".into(), |address| address.to_string());
        // One: what lies here has left the session's queue, and HTTP/2 has buffers of its own.
        let (out, orders) = mpsc::channel(1);
        let session = session::Session { id, from, handle: self.handle.clone(), closing: self.closing.clone(), out };
        // On its own: whatever becomes of the call, the leader is told of the end.
        tokio::spawn(session.run(request.into_inner()));
        Ok(Response::new(ReceiverStream::new(orders)))
    }
}

/// Waits until the coordinator is going down.
pub(crate) async fn closed(mut closing: watch::Receiver<bool>) {
    // An error is that whoever could close has gone, which is the end as well.
    let _ = closing.wait_for(|closing| *closing).await;
}
