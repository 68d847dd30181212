//! The sending side's half of a call: opens it, feeds it from an outlet, and reads the credit that comes back.

use super::outlet::Outlet;
use super::peers::{Peer, causes};
use super::service::TASK_LEFT;
use crate::error::{Code, Error};
use ef_proto::wire::generated::exchange::exchange_client::ExchangeClient;
use ef_proto::wire::generated::exchange::frame::Body;
use ef_proto::wire::generated::exchange::{Frame, Open};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio_stream::Stream;
use tonic::Status;

/// The frames of one call: the Open, then what the task sends.
struct Frames {
    open: Option<Open>,
    outlet: Arc<Outlet>,
}

impl Stream for Frames {
    type Item = Frame;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Frame>> {
        if let Some(open) = self.open.take() {
            return Poll::Ready(Some(Frame { body: Some(Body::Open(open)) }));
        }
        self.outlet.poll_frame(context).map(|body| Some(Frame { body: Some(body?) }))
    }
}

/// Runs one channel until both sides are done with it. `what` names it in messages.
pub(super) async fn run(outlet: Arc<Outlet>, peer: Arc<Peer>, open: Open, what: String) {
    let mut guard = Guard { outlet: outlet.clone(), peer: peer.clone(), what: Some(what) };
    let connection = tokio::select! {
        connection = peer.connection() => connection,
        // Nobody has heard of this channel yet. From the call on the other side may wait for it, and is told.
        () = outlet.left() => return guard.disarm(),
    };
    let ended = match connection {
        Ok(connection) => talk(&outlet, connection, open).await,
        Err(error) => Err(Ended::Unconnected(error)),
    };
    match ended {
        Ok(()) if outlet.is_over() => guard.disarm(),
        Ok(()) => guard.fail("the receiver ended it early"),
        Err(Ended::Refused(status)) if status.code() == TASK_LEFT => {
            outlet.close();
            guard.disarm();
        }
        // A status with a source is of the connection; one without is what the other side said.
        Err(Ended::Refused(status)) => match std::error::Error::source(&status) {
            Some(source) => guard.give_up(&causes(source)),
            None => guard.fail(status.message()),
        },
        Err(Ended::Unconnected(error)) => guard.give_up(&error.message),
    }
}

enum Ended {
    Unconnected(Error),
    Refused(Status),
}

async fn talk(outlet: &Arc<Outlet>, connection: tonic::transport::Channel, open: Open) -> Result<(), Ended> {
    let frames = Frames { open: Some(open), outlet: outlet.clone() };
    let answer = ExchangeClient::new(connection).channel(frames).await.map_err(Ended::Refused)?;
    outlet.accept();
    let mut credits = answer.into_inner();
    while let Some(credit) = credits.message().await.map_err(Ended::Refused)? {
        outlet.taken(credit.taken_bytes);
    }
    Ok(())
}

/// A task that waits for credit must not wait for ever, even if this future is dropped or panics.
struct Guard {
    outlet: Arc<Outlet>,
    peer: Arc<Peer>,
    /// None: the channel ended in order.
    what: Option<String>,
}

impl Guard {
    fn disarm(&mut self) {
        self.what = None;
    }

    fn fail(&mut self, reason: &str) {
        if let Some(what) = self.what.take() {
            let message = format!("{what} at {} broke: {reason}", self.peer.address());
            self.outlet.fail(Error::new(Code::Unavailable, message));
        }
    }

    /// The connection is of no use any more. First of all: whoever hears of it may dial again.
    fn give_up(&mut self, reason: &str) {
        self.peer.give_up();
        self.fail(reason);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.what.is_some() {
            self.give_up("its connection was given up");
        }
    }
}
