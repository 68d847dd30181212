//! Options as text: what they mean, what is refused with which words; and restarts by Flink's rules.

use super::*;

fn parse(options: &[(&str, &str)]) -> Result<JobConfig, ConfigError> {
    JobConfig::parse(&options.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect())
}

fn restarts(options: &[(&str, &str)]) -> Restarts {
    Restarts::new(parse(options).expect("known options").restart)
}

#[test]
fn without_options_flinks_defaults_hold() {
    let config = parse(&[]).expect("nothing to refuse");
    assert_eq!(config.checkpoints.config(None), Config::default());
    assert_eq!(config.checkpoints.config(Some(10_000)).interval_ms, Some(10_000));
    let exponential = RestartStrategy::ExponentialDelay {
        initial_ms: 1_000,
        max_ms: 60_000,
        multiplier: 1.5,
        reset_ms: 3_600_000,
        jitter: 0.1,
        attempts: None,
    };
    assert_eq!(config.restart, exponential);
    assert_eq!((config.compression, config.tier), (ExchangeCompression::Auto, None));
}

#[test]
fn all_checkpoint_options_reach_the_machine() {
    let config = parse(&[
        ("execution.checkpointing.interval", "500 ms"),
        ("execution.checkpointing.timeout", " 2 min "),
        ("execution.checkpointing.min-pause", "1 s"),
        ("execution.checkpointing.tolerable-failed-checkpoints", "3"),
        ("execution.checkpointing.num-retained", "5"),
        ("execution.checkpointing.max-concurrent-checkpoints", "1"),
        ("execution.checkpointing.mode", "exactly_once"),
        ("execution.checkpointing.dir", "s3://b/chk"),
        ("execution.checkpointing.savepoint-dir", "/data/savepoints"),
        ("state.backend", "rocksdb"),
    ])
    .expect("known options");
    let expected =
        Config { interval_ms: Some(500), timeout_ms: 120_000, min_pause_ms: 1_000, tolerable_failures: 3, retained: 5 };
    assert_eq!(config.checkpoints.config(Some(10_000)), expected);
    assert_eq!(config.checkpoints.dir.as_deref(), Some("s3://b/chk"));
    assert_eq!(config.checkpoints.savepoint_dir.as_deref(), Some("/data/savepoints"));
}

#[test]
fn an_interval_of_zero_means_no_periodic_checkpoints() {
    let config = parse(&[("execution.checkpointing.interval", "0")]).expect("Flink's way to say so");
    assert_eq!(config.checkpoints.config(Some(10_000)).interval_ms, None);
}

#[test]
fn the_number_of_retained_checkpoints_has_two_names_and_one_value() {
    let (now, before) = ("execution.checkpointing.num-retained", "state.checkpoints.num-retained");
    for options in [&[(now, "3")][..], &[(before, "3")], &[(now, "3"), (before, "3")]] {
        assert_eq!(parse(options).expect("the same").checkpoints.config(None).retained, 3);
    }
    let error = parse(&[(now, "3"), (before, "2")]).expect_err("two values");
    assert_eq!(error.key, before);
}

#[test]
fn restart_strategies_go_by_all_of_flinks_names() {
    let of = |name: &str| parse(&[("restart-strategy.type", name)]).expect(name).restart;
    for name in ["exponential-delay", "exponentialdelay", "Exponential-Delay"] {
        assert_eq!(of(name), RestartStrategy::default(), "{name}");
    }
    for name in ["fixed-delay", "fixeddelay"] {
        assert_eq!(of(name), RestartStrategy::FixedDelay { attempts: 1, delay_ms: 1_000 }, "{name}");
    }
    for name in ["none", "no", "off", "disable"] {
        assert_eq!(of(name), RestartStrategy::None, "{name}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused_at_its_key() {
    for (key, value, accepted) in [
        ("execution.checkpointing.interval", "soon", "a duration like"),
        ("execution.checkpointing.interval", "", "a duration like"),
        ("execution.checkpointing.timeout", "0", "greater than 0"),
        ("execution.checkpointing.tolerable-failed-checkpoints", "-1", "a whole number"),
        ("execution.checkpointing.num-retained", "0", "greater than 0"),
        ("state.checkpoints.num-retained", "many", "greater than 0"),
        ("execution.checkpointing.max-concurrent-checkpoints", "2", "'1'"),
        ("execution.checkpointing.mode", "AT_LEAST_ONCE", "EXACTLY_ONCE"),
        ("execution.checkpointing.dir", " ", "a directory or a URL"),
        ("restart-strategy.type", "failure-rate", "'fixed-delay'"),
        ("restart-strategy.fixed-delay.attempts", "3", "SET 'restart-strategy.type' = 'fixed-delay'"),
        (restart::INITIAL, "0", "greater than 0"),
        (restart::INITIAL, "2 min", "no longer than the longest"),
        (restart::MAX, "500 ms", "no longer than the longest"),
        (restart::MULTIPLIER, "1", "greater than 1"),
        (restart::MULTIPLIER, "inf", "greater than 1"),
        (restart::RESET, "0", "greater than 0"),
        (restart::JITTER, "1.5", "from 0 to 1"),
        (restart::ATTEMPTS, "0", "'infinite'"),
        ("exchange.compression", "gzip", "'zstd'"),
        ("tier", "moon", "'regional'"),
    ] {
        let error = parse(&[(key, value)]).expect_err(key);
        assert_eq!(error.key, key, "{error}");
        assert!(error.accepted.contains(accepted), "{error}");
    }
    let error = parse(&[("restart-strategy.type", "none"), ("restart-strategy.fixed-delay.delay", "1 s")]);
    assert!(error.expect_err("not used").found.contains("the restart strategy none"));
}

#[test]
fn the_keys_that_are_listed_are_those_that_are_read() {
    for key in KEYS {
        let error = parse(&[(*key, "")]).expect_err("no option takes an empty text");
        assert_eq!(error.key, *key);
    }
}

#[test]
fn delays_grow_to_the_longest_and_begin_anew_after_a_quiet_time() {
    let mut job = restarts(&[
        ("restart-strategy.exponential-delay.initial-backoff", "1 s"),
        ("restart-strategy.exponential-delay.max-backoff", "5 s"),
        ("restart-strategy.exponential-delay.backoff-multiplier", "2"),
        ("restart-strategy.exponential-delay.reset-backoff-threshold", "1 min"),
        ("restart-strategy.exponential-delay.jitter-factor", "0"),
    ]);
    let mut now = 1_000_000;
    for expected in [1_000, 2_000, 4_000, 5_000, 5_000] {
        assert_eq!(job.next(now, 0.5), Some(expected));
        // It runs, but not for as long as the threshold.
        now += expected + 59_999;
    }
    now += 1;
    assert_eq!(job.next(now, 0.5), Some(1_000), "a minute since the last restart");
}

#[test]
fn failures_while_a_restart_is_awaited_are_one() {
    let mut job = restarts(&[
        ("restart-strategy.exponential-delay.jitter-factor", "0"),
        ("restart-strategy.exponential-delay.attempts-before-reset-backoff", "2"),
    ]);
    assert_eq!(job.next(0, 0.0), Some(1_000));
    assert_eq!(job.next(400, 0.0), Some(600));
    assert_eq!(job.next(1_000, 0.0), Some(0));
    assert_eq!(job.attempts(), 1);
    assert_eq!(job.next(1_001, 0.0), Some(1_500));
    assert_eq!(job.next(9_999, 0.0), None, "two were allowed");
}

#[test]
fn attempts_count_from_the_last_reset() {
    let mut job = restarts(&[
        ("restart-strategy.exponential-delay.jitter-factor", "0"),
        ("restart-strategy.exponential-delay.attempts-before-reset-backoff", "1"),
        ("restart-strategy.exponential-delay.reset-backoff-threshold", "10 s"),
    ]);
    assert_eq!(job.next(0, 0.0), Some(1_000));
    assert_eq!(job.next(11_000, 0.0), Some(1_000), "ten quiet seconds");
    assert_eq!(job.next(15_000, 0.0), None);
}

#[test]
fn jitter_spreads_the_delay_in_both_directions_within_the_bounds() {
    let delay = |failures: usize, chance: f64| {
        let mut job = restarts(&[("restart-strategy.exponential-delay.backoff-multiplier", "10")]);
        let mut now = 0;
        for _ in 1..failures {
            now += job.next(now, 0.5).expect("without end") + 1;
        }
        job.next(now, chance).expect("without end")
    };
    // 1 s, then 10 s: a tenth to both sides, but never below the first delay.
    assert_eq!([delay(1, 0.0), delay(1, 0.5), delay(1, 1.0)], [1_000, 1_000, 1_100]);
    assert_eq!([delay(2, 0.0), delay(2, 0.5), delay(2, 1.0)], [9_000, 10_000, 11_000]);
    assert_eq!([delay(3, 0.0), delay(3, 0.5), delay(3, 1.0)], [60_000; 3]);
    assert_eq!(delay(5_000, 0.5), 60_000, "also where the power is infinite");
}

#[test]
fn a_fixed_delay_ends_after_its_attempts() {
    let mut job = restarts(&[
        ("restart-strategy.type", "fixed-delay"),
        ("restart-strategy.fixed-delay.attempts", "2"),
        ("restart-strategy.fixed-delay.delay", "300 ms"),
    ]);
    let hour = 3_600_000;
    assert_eq!([job.next(0, 0.9), job.next(hour, 0.9), job.next(9 * hour, 0.9)], [Some(300), Some(300), None]);
    assert_eq!(restarts(&[("restart-strategy.type", "off")]).next(0, 0.5), None);
}
