//! Few clusters at once: each is several processes, and all tests of a binary run side by side on the cores there are.

use std::sync::{Condvar, Mutex, PoisonError};

const CLUSTERS_MAX: usize = 2;

static TAKEN: Mutex<usize> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

/// The right to run one cluster, for as long as the value lives.
pub struct Permit(());

impl Permit {
    /// Waits until one is free.
    pub fn take() -> Permit {
        // A test that failed elsewhere has not broken the count.
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = FREED.wait_while(taken, |taken| *taken >= CLUSTERS_MAX).unwrap_or_else(PoisonError::into_inner);
        *taken += 1;
        Permit(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        FREED.notify_one();
    }
}
