//! When a failed job is started again: Flink's restart strategies, and the machine that counts a job's restarts by one.
//! Knows no clock and no chance; both come in as arguments.

use super::{ConfigError, DURATION, Texts};
use crate::connector::parse_duration_ms;
use serde::{Deserialize, Serialize};

pub(super) const TYPE: &str = "restart-strategy.type";
pub(super) const FIXED_ATTEMPTS: &str = "restart-strategy.fixed-delay.attempts";
pub(super) const FIXED_DELAY: &str = "restart-strategy.fixed-delay.delay";
pub(super) const INITIAL: &str = "restart-strategy.exponential-delay.initial-backoff";
pub(super) const MAX: &str = "restart-strategy.exponential-delay.max-backoff";
pub(super) const MULTIPLIER: &str = "restart-strategy.exponential-delay.backoff-multiplier";
pub(super) const RESET: &str = "restart-strategy.exponential-delay.reset-backoff-threshold";
pub(super) const JITTER: &str = "restart-strategy.exponential-delay.jitter-factor";
pub(super) const ATTEMPTS: &str = "restart-strategy.exponential-delay.attempts-before-reset-backoff";

// Flink's defaults.
const INITIAL_MS: u64 = 1_000;
const MAX_MS: u64 = 60_000;
const MULTIPLIER_DEFAULT: f64 = 1.5;
const RESET_MS: u64 = 3_600_000;
const JITTER_DEFAULT: f64 = 0.1;
const FIXED_ATTEMPTS_DEFAULT: u32 = 1;
const FIXED_DELAY_MS: u64 = 1_000;

const FIXED: &[&str] = &[FIXED_ATTEMPTS, FIXED_DELAY];
const EXPONENTIAL: &[&str] = &[INITIAL, MAX, MULTIPLIER, RESET, JITTER, ATTEMPTS];

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RestartStrategy {
    /// The delay grows by `multiplier` with every restart, up to `max_ms`; a job that has run for `reset_ms` since its
    /// last restart begins anew.
    ExponentialDelay {
        initial_ms: u64,
        max_ms: u64,
        multiplier: f64,
        reset_ms: u64,
        /// The delay varies by this share of itself in both directions, so that jobs do not restart in step.
        jitter: f64,
        /// Restarts until the job fails for good. None: without end.
        attempts: Option<u32>,
    },
    FixedDelay {
        /// In the life of the job.
        attempts: u32,
        delay_ms: u64,
    },
    None,
}

impl Default for RestartStrategy {
    fn default() -> RestartStrategy {
        RestartStrategy::ExponentialDelay {
            initial_ms: INITIAL_MS,
            max_ms: MAX_MS,
            multiplier: MULTIPLIER_DEFAULT,
            reset_ms: RESET_MS,
            jitter: JITTER_DEFAULT,
            attempts: None,
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Type {
    Exponential,
    Fixed,
    Never,
}

impl Type {
    fn parse(text: &str) -> Option<Type> {
        Some(match text.to_ascii_lowercase().as_str() {
            "exponential-delay" | "exponentialdelay" => Type::Exponential,
            "fixed-delay" | "fixeddelay" => Type::Fixed,
            "none" | "no" | "off" | "disable" => Type::Never,
            _ => return None,
        })
    }

    const fn name(self) -> &'static str {
        match self {
            Type::Exponential => "exponential-delay",
            Type::Fixed => "fixed-delay",
            Type::Never => "none",
        }
    }
}

impl RestartStrategy {
    pub(super) fn read(options: Texts) -> Result<RestartStrategy, ConfigError> {
        let kind = options.read(TYPE, "'exponential-delay', 'fixed-delay' or 'none'", Type::parse)?;
        let kind = kind.unwrap_or(Type::Exponential);
        for (keys, of) in [(FIXED, Type::Fixed), (EXPONENTIAL, Type::Exponential)] {
            if let Some(key) = keys.iter().find(|key| of != kind && options.is_set(key)) {
                return Err(ConfigError {
                    key: key.to_string(),
                    found: format!("it beside the restart strategy {}, which does not use it", kind.name()),
                    accepted: format!("SET '{TYPE}' = '{}', or leave it out", of.name()),
                });
            }
        }
        match kind {
            Type::Exponential => RestartStrategy::read_exponential(options),
            Type::Fixed => Ok(RestartStrategy::FixedDelay {
                attempts: options
                    .read(FIXED_ATTEMPTS, "a whole number", |text| text.parse().ok())?
                    .unwrap_or(FIXED_ATTEMPTS_DEFAULT),
                delay_ms: options.read(FIXED_DELAY, DURATION, parse_duration_ms)?.unwrap_or(FIXED_DELAY_MS),
            }),
            Type::Never => Ok(RestartStrategy::None),
        }
    }

    fn read_exponential(options: Texts) -> Result<RestartStrategy, ConfigError> {
        let duration = |key, default: u64| {
            let positive = |text: &str| parse_duration_ms(text).filter(|ms| *ms > 0);
            Ok::<_, ConfigError>(
                options.read(key, "a duration greater than 0, like '1 s'", positive)?.unwrap_or(default),
            )
        };
        let (initial_ms, max_ms) = (duration(INITIAL, INITIAL_MS)?, duration(MAX, MAX_MS)?);
        if initial_ms > max_ms {
            let (key, other) = if options.is_set(INITIAL) { (INITIAL, MAX) } else { (MAX, INITIAL) };
            return Err(ConfigError {
                key: key.into(),
                found: format!("a first delay of {initial_ms} ms and a longest one of {max_ms} ms"),
                accepted: format!("a first one that is no longer than the longest; SET '{other}' gives the other"),
            });
        }
        let number = |text: &str| text.parse::<f64>().ok().filter(|n| n.is_finite());
        Ok(RestartStrategy::ExponentialDelay {
            initial_ms,
            max_ms,
            multiplier: options
                .read(MULTIPLIER, "a number greater than 1", |text| number(text).filter(|n| *n > 1.0))?
                .unwrap_or(MULTIPLIER_DEFAULT),
            reset_ms: duration(RESET, RESET_MS)?,
            jitter: options
                .read(JITTER, "a number from 0 to 1", |text| number(text).filter(|n| (0.0..=1.0).contains(n)))?
                .unwrap_or(JITTER_DEFAULT),
            attempts: options
                .read(ATTEMPTS, "a whole number greater than 0, or 'infinite'", |text| {
                    match text.eq_ignore_ascii_case("infinite") {
                        true => Some(None),
                        false => text.parse().ok().filter(|n| *n > 0).map(Some),
                    }
                })?
                .flatten(),
        })
    }
}

/// The restarts of one job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Restarts {
    strategy: RestartStrategy,
    /// Since the job began, or since its delay was reset.
    attempts: u32,
    /// When the last restart was to happen.
    restart_at_ms: Option<u64>,
}

impl Restarts {
    pub fn new(strategy: RestartStrategy) -> Restarts {
        Restarts { strategy, attempts: 0, restart_at_ms: None }
    }

    /// The job has failed: after which delay it starts again; None: not any more. `chance` in [0, 1) spreads the delays
    /// of jobs that fail together.
    ///
    /// With exponential delay a failure while the job waits for its restart is part of the last one.
    pub fn next(&mut self, now_ms: u64, chance: f64) -> Option<u64> {
        match self.strategy {
            RestartStrategy::None => None,
            RestartStrategy::FixedDelay { attempts, delay_ms } => {
                self.attempts = self.attempts.saturating_add(1);
                self.restart_at_ms = Some(now_ms.saturating_add(delay_ms));
                (self.attempts <= attempts).then_some(delay_ms)
            }
            RestartStrategy::ExponentialDelay { initial_ms, max_ms, multiplier, reset_ms, jitter, attempts } => {
                let allowed = |made: u32| attempts.is_none_or(|most| made <= most);
                if let Some(restart_at) = self.restart_at_ms {
                    if now_ms <= restart_at {
                        return allowed(self.attempts).then_some(restart_at - now_ms);
                    }
                    if now_ms - restart_at >= reset_ms {
                        self.attempts = 0;
                    }
                }
                // Far beyond the exponent of any f64 the power is infinite, and the delay the longest.
                let backoff = initial_ms as f64 * multiplier.powi(self.attempts.min(1 << 20) as i32);
                let spread = backoff + backoff * jitter * (2.0 * chance - 1.0);
                let delay_ms = if spread < max_ms as f64 { (spread as u64).max(initial_ms) } else { max_ms };
                self.attempts = self.attempts.saturating_add(1);
                self.restart_at_ms = Some(now_ms.saturating_add(delay_ms));
                allowed(self.attempts).then_some(delay_ms)
            }
        }
    }

    /// Failures so far, since the job began or its delay was reset.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}
