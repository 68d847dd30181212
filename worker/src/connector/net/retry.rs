//! When to try again: as `backoff` says, not before the server wants it, and at most so often. No clock and no chance
//! of its own.

use super::backoff::wait_ms;
use crate::connector::Place;
use ef_proto::keys::hash_bytes;
use rand::SeedableRng;
use rand::rngs::SmallRng;

/// The longest that a server can make us wait with one answer.
const AFTER_MAX_MS: u64 = 5 * 60_000;

#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Attempts after the first that fails. None: for ever.
    pub retries_max: Option<u32>,
}

/// For the waits of a subtask: those that have failed together do not come back together.
pub fn chance(place: &Place) -> SmallRng {
    let seed = format!("{}/{}/{}/{}", place.job, place.operator, place.index, place.incarnation);
    SmallRng::seed_from_u64(hash_bytes(seed.as_bytes()))
}

/// The attempts at one thing.
#[derive(Debug)]
pub struct Attempts {
    policy: Policy,
    pub failures: u32,
}

impl Attempts {
    pub fn new(policy: Policy) -> Attempts {
        Attempts { policy, failures: 0 }
    }

    /// One more has failed. Milliseconds until the next; None: there is none. `after_ms`: not before, as the server
    /// says.
    pub fn failed(&mut self, after_ms: Option<u64>, chance: f64) -> Option<u64> {
        self.failures = self.failures.saturating_add(1);
        if self.policy.retries_max.is_some_and(|max| self.failures > max) {
            return None;
        }
        Some(wait_ms(self.failures, chance).max(after_ms.unwrap_or(0).min(AFTER_MAX_MS)))
    }

    /// The 1st, 2nd, 4th, 8th … failure is worth a line in the log.
    #[cfg(any(feature = "redis", feature = "http"))]
    pub fn is_told(&self) -> bool {
        self.failures.is_power_of_two()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_with_the_failures() {
        let mut attempts = Attempts::new(Policy { retries_max: None });
        let waits: Vec<u64> = (0..3).filter_map(|_| attempts.failed(None, 0.5)).collect();
        assert_eq!(waits, [75, 150, 300]);
    }

    #[test]
    fn the_server_is_heeded_up_to_a_limit() {
        let mut attempts = Attempts::new(Policy { retries_max: None });
        assert_eq!(attempts.failed(Some(7_000), 0.0), Some(7_000));
        assert_eq!(attempts.failed(Some(1), 0.0), Some(100), "never sooner than by ourselves");
        assert_eq!(attempts.failed(Some(u64::MAX), 0.0), Some(AFTER_MAX_MS));
    }

    #[test]
    fn so_many_retries_and_no_more() {
        let mut attempts = Attempts::new(Policy { retries_max: Some(2) });
        let waits: Vec<_> = (0..3).map(|_| attempts.failed(None, 0.0).is_some()).collect();
        assert_eq!(waits, [true, true, false]);
        assert_eq!(Attempts::new(Policy { retries_max: Some(0) }).failed(None, 0.0), None);
    }

    #[test]
    #[cfg(any(feature = "redis", feature = "http"))]
    fn the_log_hears_less_and_less() {
        let mut attempts = Attempts::new(Policy { retries_max: None });
        let told: Vec<u32> = (1..=20)
            .filter(|_| {
                attempts.failed(None, 0.0);
                attempts.is_told()
            })
            .collect();
        assert_eq!(told, [1, 2, 4, 8, 16]);
    }
}
