//! The way to the coordinator: dials its addresses in turn, for ever, and carries one session stream at a time. Knows no
//! rules: whoever holds the other end says what goes out.
//!
//! A connection whose other side has stopped answering is given up within seconds (HTTP/2 keepalive); between attempts
//! it waits longer each round, from 50 ms to 2 s, until a coordinator has welcomed the worker.

use ef_proto::rpc::Order;
use ef_proto::wire::generated::agent as wire;
use ef_proto::wire::generated::agent::agents_client::AgentsClient;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Endpoint;

const CONNECT: Duration = Duration::from_secs(2);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(2);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(4);

/// From the Hello to the first order. Longer than a coordinator needs to find out that it does not lead.
const WELCOME: Duration = Duration::from_secs(10);

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Reports on their way into the stream. What waits for room waits in the session's state.
const REPORTS: usize = 32;

/// Orders that the host has not taken yet.
const ORDERS: usize = 32;

/// A deployment brings a plan and the manifest that it is restored from.
const ORDER_BYTES_MAX: usize = 256 << 20;

pub(super) enum Event {
    /// The first report must be a Hello.
    Open(Line),
    Order(Order),
    /// The stream is no more, or could not be opened.
    Down {
        url: String,
        reason: String,
    },
}

/// One stream's sending end. Hangs up when dropped.
pub(super) struct Line {
    pub reports: mpsc::Sender<wire::Report>,
    /// The coordinator at the other end has taken us: should it go, there is no need to be patient.
    pub welcomed: Arc<AtomicBool>,
    pub hangup: oneshot::Sender<()>,
}

/// Starts to dial. It ends when the receiver is dropped.
pub(super) fn dial(urls: Vec<String>, seed: u64) -> mpsc::Receiver<Event> {
    let (events, receiver) = mpsc::channel(ORDERS);
    tokio::spawn(run(urls, SmallRng::seed_from_u64(seed), events));
    receiver
}

async fn run(urls: Vec<String>, mut random: SmallRng, events: mpsc::Sender<Event>) {
    let mut backoff = Backoff::default();
    for url in urls.iter().cycle() {
        let welcomed = Arc::new(AtomicBool::new(false));
        let reason = match session(url, &events, &welcomed).await {
            Ok(()) => "the stream was closed".to_string(),
            Err(End::HostGone) => return,
            Err(End::Broken(reason)) => reason,
        };
        if events.send(Event::Down { url: url.clone(), reason }).await.is_err() {
            return;
        }
        if welcomed.load(Ordering::Relaxed) {
            backoff = Backoff::default();
        }
        let pause = backoff.next(urls.len());
        // Many workers lose their coordinator at once; they need not all come back at once.
        tokio::time::sleep(pause.mul_f64(random.random_range(0.5..=1.0))).await;
    }
}

enum End {
    HostGone,
    Broken(String),
}

impl From<Status> for End {
    fn from(status: Status) -> End {
        let message = status.message();
        End::Broken(if message.is_empty() { status.code().description().to_string() } else { message.to_string() })
    }
}

async fn session(url: &str, events: &mpsc::Sender<Event>, welcomed: &Arc<AtomicBool>) -> Result<(), End> {
    let broken = |e: tonic::transport::Error| End::Broken(described(&e));
    let endpoint = Endpoint::from_shared(url.to_string()).map_err(broken)?;
    let endpoint = endpoint
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(KEEPALIVE_EVERY)
        .keep_alive_timeout(KEEPALIVE_ANSWER)
        .keep_alive_while_idle(true);
    let channel = endpoint.connect().await.map_err(broken)?;
    let mut client = AgentsClient::new(channel).max_decoding_message_size(ORDER_BYTES_MAX);
    let (reports, reports_rx) = mpsc::channel(REPORTS);
    let (hangup, mut hung_up) = oneshot::channel();
    let line = Line { reports, welcomed: welcomed.clone(), hangup };
    events.send(Event::Open(line)).await.map_err(|_| End::HostGone)?;
    let silent = |_| End::Broken(format!("it said nothing for {} s", WELCOME.as_secs()));
    tokio::select! {
        _ = &mut hung_up => Ok(()),
        end = async {
            let opened = timeout(WELCOME, client.session(ReceiverStream::new(reports_rx))).await.map_err(silent)?;
            let mut orders = opened?.into_inner();
            let mut first = timeout(WELCOME, orders.message()).await.map_err(silent)??;
            while let Some(order) = first {
                let order = Order::try_from(order).map_err(|fault| {
                    End::Broken(format!("it said what this worker does not understand: {fault}"))
                })?;
                events.send(Event::Order(order)).await.map_err(|_| End::HostGone)?;
                first = orders.message().await?;
            }
            Ok(())
        } => end,
    }
}

/// An error with its causes; the outermost alone says "transport error".
fn described(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

/// How long to wait before the next attempt: longer with every round over all addresses.
#[derive(Default)]
struct Backoff {
    attempts: usize,
}

impl Backoff {
    fn next(&mut self, addresses: usize) -> Duration {
        let rounds = (self.attempts / addresses.max(1)).min(16);
        self.attempts += 1;
        BACKOFF_MAX.min(BACKOFF_MIN * (1 << rounds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_over_the_addresses_waits_longer_up_to_two_seconds() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..6).map(|_| backoff.next(2).as_millis()).collect();
        assert_eq!(waits, [50, 50, 100, 100, 200, 200]);
        for _ in 0..1000 {
            backoff.next(2);
        }
        assert_eq!(backoff.next(2), BACKOFF_MAX);
    }
}
