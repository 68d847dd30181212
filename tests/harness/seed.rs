//! The seed of a test's data.

use rand::Rng;

/// `EDGEFLOW_SEED`, or another one at every run; printed, so that a failure can be repeated.
pub fn seed() -> u64 {
    let seed = match std::env::var("EDGEFLOW_SEED") {
        Ok(text) => text.parse().expect("EDGEFLOW_SEED is a number"),
        Err(_) => rand::rng().random(),
    };
    println!("EDGEFLOW_SEED={seed}");
    seed
}
