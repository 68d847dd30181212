//! Server streams of events and log lines, by asking the leader again and again for what is new: the leader keeps no
//! list of listeners, and one that reads slowly costs it nothing.
//!
//! A stream ends when everything is sent and either nobody wanted to follow or the job has ended; with an error when
//! the leader answers with one; and without a word when the listener has gone.

use super::ask::ask;
use crate::leader::{Handle, Request, Response};
use crate::workers::closed;
use ef_proto::error::{Code, Error};
use ef_proto::wire::generated::control::{JobEvent, LogLine};
use std::future::Future;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// How old news may get.
const POLL: Duration = Duration::from_millis(200);

/// Items on their way to one listener; they are lines of text. A full channel stops the questions.
const AHEAD: usize = 64;

type Items<T> = ReceiverStream<Result<T, Status>>;

/// What the leader had above a number.
struct News<T> {
    items: Vec<T>,
    /// Ask above this next.
    upto: u64,
    ended: bool,
}

pub(super) fn events(handle: Handle, job: String, follow: bool, closing: watch::Receiver<bool>) -> Items<JobEvent> {
    stream(follow, closing, move |after| {
        let (handle, job) = (handle.clone(), job.clone());
        async move {
            ask!(handle, Request::Events { job, after }, Response::Events { events, ended } => {
                let upto = events.iter().map(|event| event.sequence).max().unwrap_or(after).max(after);
                News { items: events, upto, ended }
            })
        }
    })
}

pub(super) fn logs(
    handle: Handle,
    job: String,
    worker: String,
    follow: bool,
    closing: watch::Receiver<bool>,
) -> Items<LogLine> {
    stream(follow, closing, move |after| {
        let (handle, job, worker) = (handle.clone(), job.clone(), worker.clone());
        async move {
            ask!(handle, Request::Logs { job, worker, after }, Response::Logs { lines, upto, ended } => {
                News { items: lines, upto: upto.max(after), ended }
            })
        }
    })
}

fn stream<T, F, A>(follow: bool, closing: watch::Receiver<bool>, ask: F) -> Items<T>
where
    T: Send + 'static,
    F: Fn(u64) -> A + Send + Sync + 'static,
    A: Future<Output = Result<News<T>, Error>> + Send,
{
    let (listener, items) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let end = tokio::select! {
            end = tell(&listener, follow, ask) => end,
            () = listener.closed() => Ok(()),
            () = closed(closing) => Err(Error::new(Code::Unavailable, "the coordinator is going down")),
        };
        if let Err(error) = end {
            // It has nobody to tell if the listener has gone.
            let _ = listener.send(Err(error.into())).await;
        }
    });
    ReceiverStream::new(items)
}

async fn tell<T, A: Future<Output = Result<News<T>, Error>>>(
    listener: &mpsc::Sender<Result<T, Status>>,
    follow: bool,
    ask: impl Fn(u64) -> A,
) -> Result<(), Error> {
    let mut after = 0;
    loop {
        let News { items, upto, ended } = ask(after).await?;
        after = upto;
        for item in items {
            if listener.send(Ok(item)).await.is_err() {
                return Ok(());
            }
        }
        if ended || !follow {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
}
