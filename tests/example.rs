//! The example under `deploy/examples`, by its script, with real servers: what it says it has found is what its sensors planted.

use ef_tests::missing::missing;
use ef_tests::servers::programs;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

/// Six minutes of event time.
const READINGS: u64 = 72_000;
const READINGS_PER_MINUTE: u64 = 12_000;

/// As `sensors.sql` says.
fn planted() -> BTreeSet<u64> {
    let is_planted = |minute: u64, pump: u64| (minute * 7 + pump * 13).is_multiple_of(37);
    (0..READINGS / READINGS_PER_MINUTE).flat_map(|m| (0..20).filter(move |pump| is_planted(m, *pump))).collect()
}

#[test]
fn predictive_maintenance_finds_the_planted_pumps_and_no_others() {
    let what = "the example of predictive maintenance";
    let programs = [
        ("java", "default-jre-headless"),
        // The script asks for it even where KAFKA_HOME is set.
        ("mvn", "maven"),
        ("mosquitto", "mosquitto"),
        ("redis-server", "redis-server"),
        ("redis-cli", "redis-tools"),
    ];
    for (program, package) in programs {
        if let Err(lack) = programs::find(program, package) {
            return missing(what, &lack);
        }
    }
    let efctl = ef_tests::efctl();
    // target/<profile>/efctl; Maven's part of the script goes where the rest of the build is.
    let target = efctl.parent().and_then(Path::parent).expect("it is in a target directory");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/predictive-maintenance/run.sh");
    // Ended so, it ends what it has started.
    let mut command = Command::new("timeout");
    command.args(["-k", "10", "400", "sh"]).arg(script).arg(READINGS.to_string()).stdin(Stdio::null());
    command.env("CARGO_TARGET_DIR", target).env("EFCTL", &efctl);
    let done = command.output().expect("sh starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    if !done.status.success() && stdout.trim_end().ends_with("fetching Apache Kafka") {
        return missing(
            what,
            &format!("Maven could not fetch Apache Kafka (it needs access to Maven Central): {stderr}"),
        );
    }
    assert!(done.status.success(), "{stdout}\n{stderr}");
    let count = |topic: &str| -> u64 {
        let line = stdout.lines().find_map(|line| line.strip_prefix(topic)).unwrap_or_else(|| panic!("{stdout}"));
        line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number")
    };
    // Each runs hot for half a minute: six windows of five seconds, and those it is weak in may be missed.
    let pumps = planted().len() as u64;
    let alerts = count("alert-signals: ");
    assert!((3 * pumps..=7 * pumps).contains(&alerts), "{alerts} alerts of {pumps} pumps\n{stdout}");
    // The first five minutes of twenty pumps; those before, which disorder made, are more.
    assert!(count("pump-health-5min: ") >= 20, "{stdout}");
    let in_redis: BTreeSet<u64> = stdout
        .lines()
        .filter_map(|line| line.strip_prefix("alert:")?.split_whitespace().next()?.parse().ok())
        .collect();
    assert_eq!(in_redis, planted(), "{stdout}");
}
