//! How long to wait before the next attempt: twice as long each time, up to a bound, by a random share less, so that
//! those who have failed together do not come back together. Pure: chance is an argument.

const FIRST_MS: u64 = 100;
const LONGEST_MS: u64 = 30_000;

/// Milliseconds behind the n-th failure in a row, from 1: half of the step for sure, and `chance` (in 0..1) of the
/// rest.
pub fn wait_ms(failures: u32, chance: f64) -> u64 {
    let step = FIRST_MS.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(LONGEST_MS);
    step / 2 + (step as f64 / 2.0 * chance) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_are_spread() {
        let waits: Vec<u64> = (1..=12).map(|failures| wait_ms(failures, 0.0)).collect();
        assert_eq!(waits[..5], [50, 100, 200, 400, 800]);
        assert_eq!(waits[9..], [15_000, 15_000, 15_000]);
        assert_eq!(wait_ms(1, 0.5), 75);
        assert_eq!(wait_ms(u32::MAX, 0.0), LONGEST_MS / 2);
    }

    #[test]
    fn half_of_a_step_is_sure_and_none_is_longer_than_the_longest() {
        for failures in 0..200 {
            let (least, most) = (wait_ms(failures, 0.0), wait_ms(failures, 0.999_999));
            assert!(least >= FIRST_MS / 2 && most <= 2 * least && most <= LONGEST_MS, "{failures}: {least} {most}");
        }
    }
}
