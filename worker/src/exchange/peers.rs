//! Connections to other workers: one per address, shared by all channels there, made when the first needs it.

use super::service::Timing;
use crate::error::{Code, Context, Error, Result};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::OnceCell;
use tonic::transport::{Channel, Endpoint};

/// First pause between two attempts to connect, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

pub(super) struct Peers {
    timing: Timing,
    /// A connection lives as long as a channel uses it.
    known: Mutex<HashMap<String, Weak<Peer>>>,
}

pub(super) struct Peer {
    address: String,
    timing: Timing,
    connection: OnceCell<Channel>,
    broken: AtomicBool,
}

impl Peers {
    pub fn new(timing: Timing) -> Peers {
        Peers { timing, known: Mutex::new(HashMap::new()) }
    }

    pub fn get(&self, address: &str) -> Arc<Peer> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Here, so that the addresses of workers long gone do not add up.
        known.retain(|_, peer| peer.strong_count() > 0);
        if let Some(peer) = known.get(address).and_then(Weak::upgrade)
            && !peer.broken.load(Ordering::Relaxed)
        {
            return peer;
        }
        let peer = Arc::new(Peer {
            address: address.to_string(),
            timing: self.timing,
            connection: OnceCell::new(),
            broken: AtomicBool::new(false),
        });
        known.insert(address.to_string(), Arc::downgrade(&peer));
        peer
    }
}

impl Peer {
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Channels to come connect anew.
    pub fn give_up(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// All that ask while it is being made wait for the same attempt.
    pub async fn connection(&self) -> Result<Channel> {
        self.connection.get_or_try_init(|| self.connect()).await.cloned()
    }

    /// The peer may still be starting, so a refusal is no answer for a while.
    async fn connect(&self) -> Result<Channel> {
        let Timing { keepalive_interval, keepalive_timeout, connect, .. } = self.timing;
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address))
            .invalid(|| format!("`{}` is no address of a worker", self.address))?
            .connect_timeout(connect)
            .tcp_nodelay(true)
            // A cut is noticed although nothing is sent.
            .http2_keep_alive_interval(keepalive_interval)
            .keep_alive_timeout(keepalive_timeout)
            .keep_alive_while_idle(true);
        let mut given_up = std::pin::pin!(tokio::time::sleep(connect));
        let mut pause = PAUSE_MIN;
        let mut reason = "no answer".to_string();
        loop {
            tokio::select! {
                connected = endpoint.connect() => match connected {
                    Ok(connection) => return Ok(connection),
                    Err(e) => reason = causes(&e),
                },
                () = &mut given_up => break,
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
                () = &mut given_up => break,
            }
        }
        let message = format!("cannot connect to {} within {} s: {reason}", self.address, connect.as_secs_f32());
        Err(Error::new(Code::Unavailable, message))
    }
}

/// An error with what caused it: tonic says "transport error" and leaves the rest to the sources.
pub(super) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}
