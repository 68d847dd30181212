//! Waiting for something to come true, without a fixed sleep: looks every few milliseconds until a limit.

use std::time::{Duration, Instant};

/// Between two looks. A look may cost a process (`efctl get`), and two cores are shared with what is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Enough for anything that comes at all, on a machine with other things to do.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What `look` finds before the limit has passed.
pub fn found<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        nap(LOOK_EVERY);
    }
}

/// Whether `condition` came true before the limit.
pub fn until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    found(limit, || condition().then_some(())).is_some()
}

/// Lets a fault last. Not for waiting: what is awaited has a condition.
pub fn lasting(duration: Duration) {
    until(duration, || false);
}

/// Gives the cores to others for a moment. It may return early; whoever calls looks again.
pub fn nap(moment: Duration) {
    std::thread::park_timeout(moment);
}
