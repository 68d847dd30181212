//! One worker's control stream: Hello in, then reports to the leader's mailbox and orders to the worker, until either
//! ends it.
//!
//! Promises to the leader: `Connected` comes first, then reports in order, then `Disconnected`, exactly once, however
//! the session ended. A worker that has dialled in anew may be connected before its old session is disconnected; the
//! session's number tells them apart.
//!
//! What it asks of the leader: to put orders with `try_send`, never to wait. A full queue means that the worker takes
//! nothing in; the leader then drops the sender, which ends the session, and the worker dials in again and is told
//! anew what it should hold. Dropping the sender behind a `Refused` ends the stream behind it: what is queued is still
//! sent, unless the worker does not take it.

use super::{closed, hello};
use crate::leader::{Handle, Message, SessionId};
use ef_proto::error::{Code, Error};
use ef_proto::rpc::{Hello, Order, OrderBody, Report};
use ef_proto::wire::Fault;
use ef_proto::wire::generated::agent as wire;
use std::error::Error as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tonic::{Status, Streaming};

/// For the first report.
const GREETING: Duration = Duration::from_secs(5);

/// For a worker to take an order when its session is to end.
const FAREWELL: Duration = Duration::from_secs(1);

/// Orders that a worker has not taken yet. Several for each deployment that it may hold; more than this it is not going
/// to take.
pub(super) const ORDERS: usize = 1024;

pub(super) struct Session {
    pub id: SessionId,
    /// Address.
    pub from: String,
    pub handle: Handle,
    pub closing: watch::Receiver<bool>,
    /// To the worker.
    pub out: mpsc::Sender<Result<wire::Order, Status>>,
}

/// Why a session is over.
enum End {
    /// The worker ended the stream, or the connection broke.
    Gone(String),
    /// What it said cannot be taken.
    Refused(Error),
    /// The leader wants no more of it.
    Dismissed,
    /// The coordinator is going down.
    Closing,
}

impl Session {
    pub async fn run(self, mut reports: Streaming<wire::Report>) {
        let hello = tokio::select! {
            hello = greeting(&mut reports) => hello,
            () = closed(self.closing.clone()) => Err(End::Closing),
        };
        let hello = match hello {
            Ok(hello) => hello,
            Err(end) => return self.farewell(end, "a worker without a name", 0).await,
        };
        let worker = hello.worker.clone();
        let term = AtomicU64::new(hello.term);
        if let Err(error) = hello::check(&hello) {
            return self.farewell(End::Refused(error), &format!("{:?}", worker.0), hello.term).await;
        }
        let (orders, queue) = mpsc::channel(ORDERS);
        if self.handle.send(Message::Connected { session: self.id, hello, orders }).await.is_err() {
            return self.farewell(End::Closing, &worker.0, term.into_inner()).await;
        }
        tracing::info!(%worker, session = self.id.0, from = self.from, "worker connected");
        let forward = |report| self.handle.send(Message::Report { worker: worker.clone(), session: self.id, report });
        let end = tokio::select! {
            end = inbound(&mut reports, forward) => end,
            end = outbound(queue, &self.out, &term) => end,
            () = self.out.closed() => End::Gone("it takes no more orders".into()),
            () = closed(self.closing.clone()) => End::Closing,
        };
        // The only place that says so. If it does not arrive, the leader has gone itself.
        let _ = self.handle.send(Message::Disconnected { worker: worker.clone(), session: self.id }).await;
        self.farewell(end, &worker.0, term.into_inner()).await;
    }

    async fn farewell(self, end: End, worker: &str, term: u64) {
        let (session, from) = (self.id.0, &self.from);
        let last = match end {
            End::Gone(why) => {
                tracing::info!(worker, session, from, why, "worker disconnected");
                return;
            }
            End::Dismissed => {
                tracing::info!(worker, session, from, "worker dismissed");
                return;
            }
            End::Closing => Err(Error::new(Code::Unavailable, "the coordinator is going down").into()),
            End::Refused(error) => {
                tracing::warn!(worker, session, from, %error, "worker refused");
                Ok(wire::Order::from(&Order { term, body: OrderBody::Refused(error) }))
            }
        };
        // One that does not take it in time learns from the end of the stream.
        let _ = timeout(FAREWELL, self.out.send(last)).await;
    }
}

async fn greeting(reports: &mut Streaming<wire::Report>) -> Result<Hello, End> {
    let refused = |what: &str| End::Refused(Error::invalid(format!("the first report must be a Hello, {what}")));
    let late = |_| refused(&format!("and none came within {} s", GREETING.as_secs()));
    match timeout(GREETING, next(reports)).await.map_err(late)?? {
        Report::Hello(hello) => Ok(hello),
        Report::Heartbeat(_) => Err(refused("not a heartbeat")),
        Report::Event { .. } => Err(refused("not an event")),
        Report::Log { .. } => Err(refused("not log lines")),
    }
}

async fn next(reports: &mut Streaming<wire::Report>) -> Result<Report, End> {
    let report = reports.message().await.map_err(|status| match status.source() {
        Some(_) => End::Gone(Error::from_status(&status).message),
        // Without a cause below it, it is about what came, not about how.
        None => End::Refused(Error::invalid(format!("a report does not decode: {}", status.message()))),
    })?;
    let report = report.ok_or_else(|| End::Gone("it ended the stream".into()))?;
    report.try_into().map_err(|fault: Fault| End::Refused(Error::invalid(format!("report.{fault}"))))
}

/// Waits while the mailbox is full: the worker then finds its stream full, and nobody else is held up.
async fn inbound<F: Future<Output = Result<(), Error>>>(
    reports: &mut Streaming<wire::Report>,
    forward: impl Fn(Report) -> F,
) -> End {
    loop {
        let report = match next(reports).await {
            Ok(Report::Hello(_)) => return End::Refused(Error::invalid("a second Hello on one stream")),
            Ok(report) => report,
            Err(end) => return end,
        };
        if forward(report).await.is_err() {
            return End::Closing;
        }
    }
}

/// Ends when the leader has dropped its side and everything before that is on its way. Keeps the highest term, for a
/// worker does not listen to a lower one.
async fn outbound(
    mut queue: mpsc::Receiver<Order>,
    out: &mpsc::Sender<Result<wire::Order, Status>>,
    term: &AtomicU64,
) -> End {
    while let Some(order) = queue.recv().await {
        term.fetch_max(order.term, Ordering::Relaxed);
        let mut sent = std::pin::pin!(out.send(Ok((&order).into())));
        loop {
            match timeout(FAREWELL, &mut sent).await {
                Ok(Ok(())) => break,
                Ok(Err(_)) => return End::Gone("it takes no more orders".into()),
                // A slow link may take longer, but nobody waits for a worker that is dismissed.
                Err(_) if queue.sender_strong_count() == 0 => return End::Dismissed,
                Err(_) => {}
            }
        }
    }
    End::Dismissed
}
