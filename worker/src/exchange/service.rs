//! The receiving side: every call is one channel, whose frames go into a gate's queue as they come.
//!
//! Reading never waits for a task, so that HTTP/2's flow control never holds up one channel for another on the same
//! connection: credit alone bounds what waits here, and a sender that oversteps it ends the call and fails the task.

use super::codec::{Payload, decode};
use super::inlet::{Inlet, Refused, Word};
use super::registry::{Claimed, Registry};
use crate::error::{Code, Error};
use crate::frame::{Barrier, Frame};
use ef_proto::ids::Epoch;
use ef_proto::wire::generated::exchange as wire;
use ef_proto::wire::generated::exchange::exchange_server;
use ef_proto::wire::generated::exchange::frame::Body;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

/// How a call ends when its receiving task has gone in order. No HTTP/2 library makes this code of a broken connection.
pub(super) const TASK_LEFT: tonic::Code = tonic::Code::Aborted;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// After so long without a sign of life the other side is asked for one, and has so long for it.
    pub keepalive_interval: Duration,
    pub keepalive_timeout: Duration,
    /// For a peer to be reached that may still be starting.
    pub connect: Duration,
    /// For a call until its deployment has come.
    pub deploy: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            keepalive_interval: Duration::from_secs(2),
            keepalive_timeout: Duration::from_secs(4),
            connect: Duration::from_secs(10),
            deploy: Duration::from_secs(30),
        }
    }
}

pub(super) struct Service {
    pub registry: Arc<Registry>,
    pub timing: Timing,
}

#[tonic::async_trait]
impl exchange_server::Exchange for Service {
    type ChannelStream = Words;

    async fn channel(&self, request: Request<Streaming<wire::Frame>>) -> Result<Response<Words>, Status> {
        let mut frames = request.into_inner();
        let first = tokio::time::timeout(self.timing.deploy, frames.message());
        let first = first.await.map_err(|_| Status::deadline_exceeded("a call without an Open"))??;
        let Some(wire::Frame { body: Some(Body::Open(open)) }) = first else {
            return Err(Status::invalid_argument("the first frame of a call is its Open"));
        };
        let claimed = self.registry.claim(&open, self.timing.deploy).await?;
        let words = Words { inlet: claimed.inlet.clone(), channel: claimed.channel, over: false };
        tokio::spawn(receive(frames, Receiving { claimed, over: false }));
        Ok(Response::new(words))
    }
}

/// What the sender is told: credit, and how it ended.
pub(super) struct Words {
    inlet: Arc<dyn Inlet>,
    channel: usize,
    over: bool,
}

impl Stream for Words {
    type Item = Result<wire::Credit, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        let word = ready!(self.inlet.poll_word(self.channel, context));
        self.over = !matches!(word, Word::Taken(_));
        Poll::Ready(match word {
            Word::Taken(taken_bytes) => Some(Ok(wire::Credit { taken_bytes })),
            Word::Done => None,
            Word::Closed => Some(Err(Status::new(TASK_LEFT, "the receiving task has left"))),
            Word::Broken(why) => Some(Err(Status::internal(why))),
        })
    }
}

/// One channel while its frames come. Dropped before its end it fails the task, which would wait for ever otherwise.
struct Receiving {
    claimed: Claimed,
    over: bool,
}

enum Next {
    Go,
    /// The last frame has come.
    Over,
    /// The receiving task has gone.
    Closed,
}

async fn receive(mut frames: Streaming<wire::Frame>, mut channel: Receiving) {
    loop {
        let next = match frames.message().await {
            Ok(Some(frame)) => channel.take(frame),
            // The end of a call is no end of the channel: a connection that was given up can look like this.
            Ok(None) => Err("its connection ended".into()),
            Err(status) => Err(status.message().to_string()),
        };
        match next {
            Ok(Next::Go) => {}
            Ok(Next::Over) => return,
            Ok(Next::Closed) => break,
            Err(reason) => return channel.fail(Code::Unavailable, &reason),
        }
    }
    // The sender is told that the task has left and ends the call itself. If we ended it before it has heard that, all
    // it saw would be a broken call.
    while let Ok(Some(_)) = frames.message().await {}
}

impl Receiving {
    /// Err: what the sender has done wrong.
    fn take(&mut self, frame: wire::Frame) -> Result<Next, String> {
        let frame = match frame.body {
            Some(Body::Data(data)) => return self.data(data),
            Some(Body::WatermarkMs(at)) => Frame::Watermark(at),
            Some(Body::Barrier(wire::Barrier { epoch, completed })) => {
                Frame::Barrier(Barrier { epoch: Epoch(epoch), completed: Epoch(completed) })
            }
            Some(Body::Idle(_)) => Frame::Idle,
            Some(Body::End(_)) => {
                self.over = true;
                Frame::End
            }
            Some(Body::Left(_)) => {
                self.over = true;
                self.claimed.inlet.left(self.claimed.channel);
                return Ok(Next::Over);
            }
            Some(Body::Open(_)) => return Err("a second Open in one call".into()),
            None => return Err("a frame of an unknown kind".into()),
        };
        self.push(frame, 0)
    }

    fn data(&mut self, data: wire::Data) -> Result<Next, String> {
        let wire::Data { metadata, body, credit_bytes } = data;
        if (body.len() as u64) > credit_bytes {
            return Err(format!("a batch of {} bytes that claims to take {credit_bytes}", body.len()));
        }
        let bytes = usize::try_from(credit_bytes).map_err(|_| format!("a batch of {credit_bytes} bytes"))?;
        let batch = decode(&self.claimed.incoming.schema, Payload { metadata, body })?;
        self.push(Frame::Data(batch), bytes)
    }

    fn push(&mut self, frame: Frame, bytes: usize) -> Result<Next, String> {
        match self.claimed.inlet.push(self.claimed.channel, frame, bytes) {
            Ok(()) if self.over => Ok(Next::Over),
            Ok(()) => Ok(Next::Go),
            Err(Refused::Closed) => {
                self.over = true;
                Ok(Next::Closed)
            }
            Err(Refused::Overrun) => Err("more than twice its credit".into()),
        }
    }

    fn fail(&mut self, code: Code, reason: &str) {
        self.over = true;
        let message = format!("the channel from {} broke: {reason}", self.claimed.incoming.from);
        self.claimed.inlet.fail(self.claimed.channel, Error::new(code, message));
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        if !self.over {
            self.fail(Code::Internal, "its reader was given up");
        }
    }
}
