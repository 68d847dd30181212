//! The clock that everything in this process is given. It follows the wall clock, with one promise more: it goes
//! forward. After a step back (a gateway whose clock was wrong meets NTP) it runs at half speed until the wall clock
//! has caught up, so that no checkpoint, scan or flush waits for an hour that comes a second time.

use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

pub struct Clock {
    started: Instant,
    started_ns: i64,
    forward: Mutex<Forward>,
}

impl Clock {
    pub fn new() -> Clock {
        let started_ns = wall_ns();
        #[expect(clippy::disallowed_methods, reason = "the driver's clock, handed to everything below as an argument")]
        let started = Instant::now();
        Clock { started, started_ns, forward: Mutex::new(Forward { elapsed_ns: 0, now_ns: started_ns }) }
    }

    /// Milliseconds since the epoch.
    pub fn now_ms(&self) -> i64 {
        let mut forward = self.forward.lock().unwrap_or_else(PoisonError::into_inner);
        forward.step(self.started.elapsed().as_nanos() as i64, wall_ns()) / 1_000_000
    }

    /// Milliseconds since the epoch as of the start, plus what has passed since: for intervals and time-outs, which a
    /// step of the wall clock must not end.
    pub fn steady_ms(&self) -> u64 {
        (self.started_ns + self.started.elapsed().as_nanos() as i64).max(0) as u64 / 1_000_000
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}

fn wall_ns() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "the driver's clock, handed to everything below as an argument")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64)
}

/// The rule, without a clock.
struct Forward {
    elapsed_ns: i64,
    now_ns: i64,
}

impl Forward {
    /// `elapsed_ns` never goes back; `wall_ns` may.
    fn step(&mut self, elapsed_ns: i64, wall_ns: i64) -> i64 {
        let passed = elapsed_ns - self.elapsed_ns;
        self.elapsed_ns = elapsed_ns;
        // Behind us: half speed, but not past it.
        self.now_ns = if wall_ns >= self.now_ns { wall_ns } else { self.now_ns + passed / 2 };
        self.now_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;

    #[test]
    fn step_back_slows_the_clock_until_the_wall_clock_has_caught_up() {
        let mut clock = Forward { elapsed_ns: 0, now_ns: 1000 * S };
        assert_eq!(clock.step(S, 1001 * S), 1001 * S);
        // Ten seconds back.
        let mut last = 1001 * S;
        for second in 1..=30 {
            let now = clock.step((1 + second) * S, (991 + second) * S);
            assert!(now > last || now == (991 + second) * S, "{second}: {now} after {last}");
            assert!(now - last <= S, "{second}: {now} after {last}");
            last = now;
        }
        assert_eq!(last, 1021 * S, "it shows the wall clock's time again");
    }

    #[test]
    fn step_forward_is_followed_at_once() {
        let mut clock = Forward { elapsed_ns: 0, now_ns: 0 };
        assert_eq!(clock.step(S, 1_700_000_000 * S), 1_700_000_000 * S);
    }
}
