//! The SET options that exist, and what their values may be. Options of the runtime are only checked here; coordinator and
//! workers read them from the plan as text, those of [`job_config`] by the same code that checks them.

use crate::planner::{PlanOptions, PlannerError, Setting, Span};
use ef_proto::connector::lookup::{CAPACITY_DEFAULT, TIMEOUT_MS_DEFAULT};
use ef_proto::connector::{parse_duration_ms, parse_memory_bytes};
use ef_proto::job_config::{self, ConfigError, JobConfig};
use ef_proto::keys::MAX_PARALLELISM_DEFAULT;
use ef_proto::place::Tier;
use ef_store::options::{self, Reference};
use std::collections::BTreeMap;

const DURATION: &str = "a duration like '200 ms', '5 s', '10 min', '1 h'";
const COUNT: &str = "a whole number greater than 0";
const REFERENCE: &str = "env:NAME or file:PATH; a secret itself does not belong into SQL";

/// Every key with the check of its value, but for those that `job_config` reads.
const KEYS: &[(&str, fn(&str) -> bool, &str)] = &[
    ("parallelism.default", is_count, COUNT),
    ("pipeline.max-parallelism", is_max_parallelism, "a whole number from 1 to 32768"),
    ("pipeline.name", is_text, "a name"),
    ("state.backend", is_backend, "'memory' or 'rocksdb'"),
    (options::ACCESS_KEY, is_reference, REFERENCE),
    (options::ACCOUNT, is_text, "the name of a storage account"),
    (options::ALLOW_HTTP, is_boolean, "true or false"),
    (options::ENDPOINT, is_text, "a URL like https://host:port"),
    (options::REGION, is_text, "the name of a region"),
    (options::REQUEST_TIMEOUT, is_duration, DURATION),
    (options::RETRY_TIMEOUT, is_duration, DURATION),
    (options::SECRET_KEY, is_reference, REFERENCE),
    ("table.exec.async-lookup.buffer-capacity", is_capacity, "a whole number from 1 to 100000"),
    ("table.exec.async-lookup.output-mode", is_output_mode, "'ORDERED', or 'ALLOW_UNORDERED', which is ordered too"),
    ("table.exec.async-lookup.timeout", is_duration, DURATION),
    ("table.exec.sink.not-null-enforcer", is_enforcer, "'ERROR' or 'DROP'"),
    ("table.exec.source.idle-timeout", is_duration, DURATION),
    ("table.exec.state.ttl", is_duration, DURATION),
    ("table.local-time-zone", is_utc, "'UTC', the only zone so far"),
    ("worker.memory", is_memory, "a size like '512 mb' or a share like '50 %'"),
];

/// What planning itself needs.
#[derive(Debug, PartialEq)]
pub struct Settings {
    pub name: String,
    pub parallelism: u32,
    pub max_parallelism: u16,
    pub state_ttl_ms: Option<u64>,
    pub idle_timeout_ms: Option<u64>,
    /// Where what no table places runs.
    pub tier: Option<Tier>,
    /// Of tables that are looked up and say nothing: keys asked for at a time, and for how long.
    pub lookup_capacity: u32,
    pub lookup_timeout_ms: u64,
}

impl Settings {
    /// The file's SET options over the caller's defaults.
    pub fn parse(config: &BTreeMap<String, Setting>, options: &PlanOptions) -> Result<Settings, PlannerError> {
        for (key, Setting { value, span }) in config {
            if job_config::KEYS.contains(&key.as_str()) {
                continue;
            }
            let Some((_, accepts, expected)) = KEYS.iter().find(|(known, ..)| known == key) else {
                return Err(unknown(key).or_at(*span));
            };
            if !accepts(value.trim()) {
                // What stands where a reference should may be the secret itself: neither it nor its line is shown.
                let (found, span) = match *expected {
                    REFERENCE => ("something else".into(), Span::UNKNOWN),
                    _ => (format!("'{value}'"), *span),
                };
                let message = format!("SET '{key}': found {found}");
                return Err(PlannerError::new(message, span).hint(format!("accepted: {expected}")));
            }
        }
        let texts = config.iter().map(|(key, setting)| (key.clone(), setting.value.clone())).collect();
        let job = JobConfig::parse(&texts).map_err(|ConfigError { key, found, accepted }| {
            let span = config.get(&key).map_or(Span::UNKNOWN, |setting| setting.span);
            PlannerError::new(format!("SET '{key}': found {found}"), span).hint(format!("accepted: {accepted}"))
        })?;
        let get = |key: &str| config.get(key).map(|setting| setting.value.trim());
        let duration = |key: &str| get(key).and_then(parse_duration_ms).filter(|ms| *ms > 0);
        let set: Option<u32> = get("parallelism.default").and_then(|n| n.parse().ok());
        let settings = Settings {
            name: get("pipeline.name").unwrap_or(&options.name).to_string(),
            parallelism: options.parallelism.or(set).unwrap_or(1).max(1),
            max_parallelism: get("pipeline.max-parallelism")
                .and_then(|n| n.parse().ok())
                .unwrap_or(MAX_PARALLELISM_DEFAULT),
            state_ttl_ms: duration("table.exec.state.ttl"),
            idle_timeout_ms: duration("table.exec.source.idle-timeout"),
            tier: job.tier,
            lookup_capacity: get("table.exec.async-lookup.buffer-capacity")
                .and_then(|n| n.parse().ok())
                .unwrap_or(CAPACITY_DEFAULT),
            lookup_timeout_ms: duration("table.exec.async-lookup.timeout").unwrap_or(TIMEOUT_MS_DEFAULT),
        };
        // A SET that the caller overrides is checked too: it is wrong whoever runs the file next.
        let max = settings.max_parallelism;
        let place = config.get("parallelism.default").map_or(Span::UNKNOWN, |setting| setting.span);
        for (found, span) in set.map(|set| (set, place)).into_iter().chain([(settings.parallelism, Span::UNKNOWN)]) {
            if found > u32::from(max) {
                let message = format!("parallelism {found} is more than the {max} key groups");
                let hint = format!("accepted: 1 to {max}, or a larger SET 'pipeline.max-parallelism'");
                return Err(PlannerError::new(message, span).hint(hint));
            }
        }
        Ok(settings)
    }
}

fn unknown(key: &str) -> PlannerError {
    let closeness = |known: &str| datafusion_common::utils::datafusion_strsim::normalized_levenshtein(key, known);
    let mut near: Vec<&str> = KEYS.iter().map(|(known, ..)| *known).chain(job_config::KEYS.iter().copied()).collect();
    near.sort_by(|a, b| closeness(b).total_cmp(&closeness(a)));
    near.truncate(3);
    let near: Vec<String> = near.into_iter().map(|known| format!("'{known}'")).collect();
    PlannerError::new(format!("unknown option SET '{key}'"), Span::UNKNOWN).hint(format!("near: {}", near.join(", ")))
}

fn is_duration(text: &str) -> bool {
    parse_duration_ms(text).is_some()
}

fn is_count(text: &str) -> bool {
    text.parse::<u32>().is_ok_and(|n| n > 0)
}

fn is_capacity(text: &str) -> bool {
    text.parse::<u32>().is_ok_and(|n| (1..=100_000).contains(&n))
}

fn is_output_mode(text: &str) -> bool {
    matches!(text.to_ascii_uppercase().as_str(), "ORDERED" | "ALLOW_UNORDERED")
}

fn is_max_parallelism(text: &str) -> bool {
    text.parse::<u32>().is_ok_and(|n| (1..=1 << 15).contains(&n))
}

fn is_text(text: &str) -> bool {
    !text.is_empty()
}

fn is_boolean(text: &str) -> bool {
    text.parse::<bool>().is_ok()
}

fn is_reference(text: &str) -> bool {
    Reference::parse("", text).is_ok()
}

fn is_backend(text: &str) -> bool {
    matches!(text.to_ascii_lowercase().as_str(), "memory" | "hashmap" | "rocksdb")
}

fn is_enforcer(text: &str) -> bool {
    matches!(text.to_ascii_uppercase().as_str(), "ERROR" | "DROP")
}

fn is_utc(text: &str) -> bool {
    matches!(text.to_ascii_uppercase().as_str(), "UTC" | "Z" | "GMT" | "+00:00" | "ETC/UTC")
}

fn is_memory(text: &str) -> bool {
    let share = text.strip_suffix('%').and_then(|share| share.trim().parse::<f64>().ok());
    share.map_or_else(|| parse_memory_bytes(text).is_some_and(|bytes| bytes > 0), |share| share > 0.0 && share <= 100.0)
}

/// The options as the runtime reads them: trimmed, and one name for each value.
pub fn normalised(config: BTreeMap<String, Setting>) -> BTreeMap<String, String> {
    let value = |key: &str, value: String| match (key, value.trim().to_ascii_lowercase().as_str()) {
        ("state.backend", "hashmap") => "memory".to_string(),
        ("state.backend" | "tier" | "exchange.compression" | "restart-strategy.type", value) => value.to_string(),
        _ => value.trim().to_string(),
    };
    config.into_iter().map(|(key, setting)| (key.clone(), value(&key, setting.value))).collect()
}
