//! A job's `SET` options as the runtime reads them: text in the plan, checked and typed here. The planner checks a file
//! with the same code that later runs the job, so what it accepts is what happens.
//!
//! Flink's names, values and defaults where Flink has the option. The options of planning itself (`parallelism.default`,
//! `table.exec.…`) are the planner's.

mod restart;
#[cfg(test)]
mod tests;
pub use restart::{RestartStrategy, Restarts};

use crate::connector::parse_duration_ms;
use crate::machine::checkpoint::Config;
use crate::place::Tier;
use std::collections::BTreeMap;

const INTERVAL: &str = "execution.checkpointing.interval";
const TIMEOUT: &str = "execution.checkpointing.timeout";
const MIN_PAUSE: &str = "execution.checkpointing.min-pause";
const TOLERABLE: &str = "execution.checkpointing.tolerable-failed-checkpoints";
const RETAINED: &str = "execution.checkpointing.num-retained";
/// The name in Flink 1.
const RETAINED_BEFORE: &str = "state.checkpoints.num-retained";
const CONCURRENT: &str = "execution.checkpointing.max-concurrent-checkpoints";
const MODE: &str = "execution.checkpointing.mode";
const DIR: &str = "execution.checkpointing.dir";
const SAVEPOINT_DIR: &str = "execution.checkpointing.savepoint-dir";
const COMPRESSION: &str = "exchange.compression";
const TIER: &str = "tier";

/// The options that are read here.
pub const KEYS: &[&str] = &[
    INTERVAL,
    TIMEOUT,
    MIN_PAUSE,
    TOLERABLE,
    RETAINED,
    RETAINED_BEFORE,
    CONCURRENT,
    MODE,
    DIR,
    SAVEPOINT_DIR,
    restart::TYPE,
    restart::FIXED_ATTEMPTS,
    restart::FIXED_DELAY,
    restart::INITIAL,
    restart::MAX,
    restart::MULTIPLIER,
    restart::RESET,
    restart::JITTER,
    restart::ATTEMPTS,
    COMPRESSION,
    TIER,
];

const DURATION: &str = "a duration like '200 ms', '5 s', '10 min', '1 h'";

/// An option whose value cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("SET '{key}': found {found}; accepted: {accepted}")]
pub struct ConfigError {
    /// For the planner to point at in the file; one that is set there.
    pub key: String,
    pub found: String,
    pub accepted: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct JobConfig {
    pub checkpoints: CheckpointOptions,
    pub restart: RestartStrategy,
    pub compression: ExchangeCompression,
    /// `'tier'`: where what no table places runs.
    pub tier: Option<Tier>,
}

impl JobConfig {
    /// Options that are not read here are passed over.
    pub fn parse(config: &BTreeMap<String, String>) -> Result<JobConfig, ConfigError> {
        let options = Texts(config);
        Ok(JobConfig {
            checkpoints: CheckpointOptions::read(options)?,
            restart: RestartStrategy::read(options)?,
            compression: options
                .read(COMPRESSION, "'auto', 'none', 'lz4' or 'zstd'", ExchangeCompression::parse)?
                .unwrap_or_default(),
            tier: options.read(TIER, "'device', 'gateway', 'regional' or 'cloud'", Tier::parse)?,
        })
    }
}

/// `execution.checkpointing.…`; None is not set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointOptions {
    /// 0: no periodic checkpoints.
    pub interval_ms: Option<u64>,
    pub timeout_ms: Option<u64>,
    pub min_pause_ms: Option<u64>,
    pub tolerable_failures: Option<u32>,
    pub retained: Option<usize>,
    /// Where the job wants its checkpoints; None: where the cluster keeps them.
    pub dir: Option<String>,
    pub savepoint_dir: Option<String>,
}

impl CheckpointOptions {
    fn read(options: Texts) -> Result<CheckpointOptions, ConfigError> {
        const COUNT: &str = "a whole number greater than 0";
        let count = |text: &str| text.parse().ok().filter(|n: &usize| (1..=u32::MAX as usize).contains(n));
        let (now, before) = (options.read(RETAINED, COUNT, count)?, options.read(RETAINED_BEFORE, COUNT, count)?);
        if let (Some(now), Some(before)) = (now, before)
            && now != before
        {
            return Err(ConfigError {
                key: RETAINED_BEFORE.into(),
                found: format!("'{before}', and SET '{RETAINED}' = '{now}', which is the same option"),
                accepted: "one of them".into(),
            });
        }
        options.read(CONCURRENT, "'1': a checkpoint starts when the last one has ended", |text| {
            (text.parse() == Ok(1)).then_some(())
        })?;
        options.read(MODE, "EXACTLY_ONCE", |text| text.eq_ignore_ascii_case("EXACTLY_ONCE").then_some(()))?;
        let location = |key| options.read(key, "a directory or a URL", |text| Some(text.to_string()));
        Ok(CheckpointOptions {
            interval_ms: options.read(INTERVAL, DURATION, parse_duration_ms)?,
            timeout_ms: options.read(TIMEOUT, "a duration greater than 0, like '10 min'", |text| {
                parse_duration_ms(text).filter(|ms| *ms > 0)
            })?,
            min_pause_ms: options.read(MIN_PAUSE, DURATION, parse_duration_ms)?,
            tolerable_failures: options.read(TOLERABLE, "a whole number", |text| text.parse().ok())?,
            retained: now.or(before),
            dir: location(DIR)?,
            savepoint_dir: location(SAVEPOINT_DIR)?,
        })
    }

    /// What the checkpoint machine runs by. `default_interval_ms`: where the job sets none.
    pub fn config(&self, default_interval_ms: Option<u64>) -> Config {
        let default = Config::default();
        Config {
            interval_ms: self.interval_ms.or(default_interval_ms).filter(|ms| *ms > 0),
            timeout_ms: self.timeout_ms.unwrap_or(default.timeout_ms),
            min_pause_ms: self.min_pause_ms.unwrap_or(default.min_pause_ms),
            tolerable_failures: self.tolerable_failures.unwrap_or(default.tolerable_failures),
            retained: self.retained.unwrap_or(default.retained),
        }
    }
}

/// `'exchange.compression'`: of rows between workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExchangeCompression {
    /// The worker decides by where the other end is.
    #[default]
    Auto,
    None,
    Lz4,
    Zstd,
}

impl ExchangeCompression {
    pub fn parse(text: &str) -> Option<ExchangeCompression> {
        Some(match text.to_ascii_lowercase().as_str() {
            "auto" => ExchangeCompression::Auto,
            "none" => ExchangeCompression::None,
            "lz4" => ExchangeCompression::Lz4,
            "zstd" => ExchangeCompression::Zstd,
            _ => return None,
        })
    }
}

/// The options as text, trimmed where they are read.
#[derive(Clone, Copy)]
struct Texts<'a>(&'a BTreeMap<String, String>);

impl Texts<'_> {
    /// One that `parse` understands; `accepted` says what that is. An empty value is never understood.
    fn read<T>(
        self,
        key: &str,
        accepted: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.0.get(key) else { return Ok(None) };
        match Some(text.trim()).filter(|text| !text.is_empty()).and_then(parse) {
            Some(value) => Ok(Some(value)),
            None => Err(ConfigError { key: key.into(), found: format!("'{text}'"), accepted: accepted.into() }),
        }
    }

    fn is_set(self, key: &str) -> bool {
        self.0.contains_key(key)
    }
}
