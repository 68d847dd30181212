//! A publisher that knows which of its messages the broker has taken.

use anyhow::Result;
use ef_tests::servers::mosquitto::{Login, Session};
use ef_tests::wait;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// So many are sent before their acknowledgements are awaited.
const BURST: u64 = 100;

/// Publishes `{"id":n}` at QoS 1, n from 0. When the connection is lost, it goes back: to what the broker has not taken, and
/// behind that as far as a broker that was killed may have forgotten what it took.
pub struct Publisher {
    messages: Arc<Messages>,
    thread: Option<JoinHandle<()>>,
}

struct Messages {
    port: u16,
    topic: &'static str,
    count: u64,
    per_second: u64,
    back: u64,
    /// In order: all below have been taken.
    taken: AtomicU64,
    stopped: AtomicBool,
}

impl Publisher {
    /// `per_second` messages, up to `count`; `back`: so many are sent again after each lost connection.
    pub fn start(port: u16, topic: &'static str, count: u64, per_second: u64, back: u64) -> Publisher {
        let (taken, stopped) = (AtomicU64::new(0), AtomicBool::new(false));
        let messages = Arc::new(Messages { port, topic, count, per_second, back, taken, stopped });
        let shared = messages.clone();
        let run = move || {
            while shared.left() {
                if shared.publish().is_err() {
                    let taken = shared.taken.load(Ordering::Relaxed);
                    shared.taken.store(taken.saturating_sub(shared.back), Ordering::Relaxed);
                    wait::nap(Duration::from_millis(20));
                }
            }
        };
        Publisher { messages, thread: Some(std::thread::spawn(run)) }
    }

    /// How many messages the broker has taken.
    pub fn taken(&self) -> u64 {
        self.messages.taken.load(Ordering::Relaxed)
    }

    /// How many messages the broker has taken in all.
    pub fn finish(mut self) -> u64 {
        self.thread.take().expect("once").join().expect("no panic");
        self.taken()
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.messages.stopped.store(true, Ordering::Relaxed);
    }
}

impl Messages {
    fn left(&self) -> bool {
        self.taken.load(Ordering::Relaxed) < self.count && !self.stopped.load(Ordering::Relaxed)
    }

    /// Until the connection is lost or nothing is left.
    fn publish(&self) -> Result<()> {
        let mut session = Session::open(self.port, &Login::new("publisher"))?;
        let (since, first) = (Instant::now(), self.taken.load(Ordering::Relaxed));
        let mut next = first;
        while self.left() {
            let until = (next + BURST).min(self.count);
            let payloads: Vec<Vec<u8>> = (next..until).map(|id| format!("{{\"id\":{id}}}").into_bytes()).collect();
            session.publish(self.topic, &payloads)?;
            next = until;
            self.taken.store(next, Ordering::Relaxed);
            let due = Duration::from_secs_f64((next - first) as f64 / self.per_second as f64);
            if let Some(early) = due.checked_sub(since.elapsed()) {
                wait::nap(early);
            }
        }
        Ok(())
    }
}
