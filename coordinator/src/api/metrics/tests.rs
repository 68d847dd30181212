//! The page is read as Prometheus would, strictly.

use super::*;
use std::collections::BTreeSet;

/// Name, labels in order, value.
type Sample = (String, Vec<(String, String)>, f64);

/// All samples of a page, or what is wrong with it.
fn parse(page: &str) -> Result<Vec<Sample>, String> {
    let mut samples = Vec::new();
    let mut families: BTreeSet<String> = BTreeSet::new();
    let mut series = BTreeSet::new();
    let (mut family, mut kind) = (String::new(), String::new());
    if !page.ends_with('\n') {
        return Err("the last line has no end".into());
    }
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').ok_or("HELP without a text")?;
            if !families.insert(name.into()) || text.is_empty() {
                return Err(format!("{name} comes twice, or without a text"));
            }
            (family, kind) = (name.into(), String::new());
        } else if let Some(ty) = line.strip_prefix("# TYPE ") {
            let (name, ty) = ty.split_once(' ').ok_or("TYPE without a type")?;
            let counts = ty == "counter";
            if name != family || !kind.is_empty() || !(counts || ty == "gauge") || counts != name.ends_with("_total") {
                return Err(format!("TYPE of {name}: {ty}"));
            }
            kind = ty.into();
        } else {
            let sample = sample(line).ok_or(format!("not a sample: {line}"))?;
            if sample.0 != family || kind.is_empty() || !series.insert(format!("{:?}{:?}", sample.0, sample.1)) {
                return Err(format!("out of place: {line}"));
            }
            samples.push(sample);
        }
    }
    Ok(samples)
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"")?;
            let mut value = String::new();
            let mut chars = after.char_indices();
            rest = loop {
                match chars.next()? {
                    (at, '"') => break &after[at + 1..],
                    (_, '\\') => value.push(match chars.next()?.1 {
                        'n' => '\n',
                        c @ ('\\' | '"') => c,
                        _ => return None,
                    }),
                    (_, c) => value.push(c),
                }
            };
            if !is_name(label) {
                return None;
            }
            labels.push((label.to_string(), value));
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ')?.parse().ok()?;
    (is_name(name) && name.starts_with("edgeflow_")).then(|| (name.to_string(), labels, value))
}

fn figures() -> Figures {
    let job = |id: &str, name: &str, state: &str| Job {
        id: id.into(),
        name: name.into(),
        state: state.into(),
        rows_in: u64::MAX,
        rows_out: 5,
        restarts: 2,
        last_checkpoint: 4,
        last_checkpoint_at_ms: 8_500,
        ..Job::default()
    };
    let worker = |id: &str, tier: &str, state: &str| Worker {
        id: id.into(),
        tier: tier.into(),
        state: state.into(),
        slots: 4,
        slots_free: 1,
        cpu_millis: 250,
        ..Worker::default()
    };
    let last = Checkpoint { epoch: 4, duration_ms: 1_250, bytes: 77, ..Checkpoint::default() };
    let counts = CheckpointCounts { completed: 3, failed: 1, in_flight: 0 };
    Figures {
        cluster: ClusterResponse { version: "0.1.0".into(), term: 6, ..ClusterResponse::default() },
        jobs: vec![
            JobFigures {
                job: job("a", "say \"hi\"\\\n{x=\"1\"} 2", "RUNNING"),
                counts: Some(counts),
                last: Some(last),
            },
            JobFigures { job: job("b", "done", "FINISHED"), counts: None, last: None },
            JobFigures {
                job: Job { id: "c".into(), state: "RUNNING".into(), ..Job::default() },
                ..JobFigures::default()
            },
        ],
        workers: vec![worker("w1", "cloud", "READY"), worker("w2", "cloud", "READY"), worker("w3", "gateway", "LOST")],
        process: Process { resident_bytes: Some(1 << 20), cpu_seconds: Some(0.5), threads: None, open_files: Some(9) },
    }
}

#[test]
fn page_is_in_prometheus_format_and_its_labels_read_back() {
    let page = render(&figures(), 10_000);
    let samples = parse(&page).expect("a valid page");
    let of = |name: &str, labels: &[(&str, &str)]| {
        let fits = |sample: &&Sample| {
            let has = |(l, v): &(&str, &str)| sample.1.iter().any(|(label, value)| label == l && value == v);
            sample.0 == format!("edgeflow_{name}") && labels.iter().all(has)
        };
        samples.iter().find(fits).map(|sample| sample.2)
    };
    let name = ("name", "say \"hi\"\\\n{x=\"1\"} 2");
    assert_eq!(of("job_rows_out_total", &[("job", "a"), name]), Some(5.0));
    assert!(page.contains(&format!("}} {}\n", u64::MAX)), "large counters are not rounded");
    assert_eq!(of("jobs", &[("state", "RUNNING")]), Some(2.0));
    assert_eq!(of("jobs", &[("state", "FAILED")]), Some(0.0));
    assert_eq!(of("workers", &[("tier", "cloud"), ("state", "READY")]), Some(2.0));
    assert_eq!(of("workers", &[("tier", "gateway"), ("state", "LOST")]), Some(1.0));
    assert_eq!(of("slots", &[("tier", "cloud")]), Some(8.0));
    assert_eq!(of("slots_free", &[("tier", "cloud")]), Some(2.0));
    assert_eq!(of("slots", &[("tier", "gateway")]), None, "nobody has a lost worker's slots");
    assert_eq!(of("worker_cpu_cores", &[("worker", "w1")]), Some(0.25));
    assert_eq!(of("job_last_checkpoint_age_seconds", &[("job", "a")]), Some(1.5));
    assert_eq!(of("job_last_checkpoint_duration_seconds", &[("job", "a")]), Some(1.25));
    assert_eq!(of("job_last_checkpoint_size_bytes", &[("job", "a")]), Some(77.0));
    assert_eq!(of("job_checkpoints_failed_total", &[("job", "a")]), Some(1.0));
    assert_eq!(of("job_last_checkpoint_epoch", &[("job", "b")]), Some(4.0));
    assert_eq!(of("job_last_checkpoint_epoch", &[("job", "c")]), None, "it has none");
    assert_eq!(of("job_restarts_total", &[("job", "b")]), Some(2.0));
    assert_eq!(of("coordinator_resident_memory_bytes", &[]), Some(1_048_576.0));
    assert_eq!(of("coordinator_threads", &[]), None, "what is not known is left out");
    assert_eq!(of("build_info", &[("version", "0.1.0")]), Some(1.0));
}

#[test]
fn page_of_an_empty_cluster_is_valid() {
    assert_eq!(parse(&render(&Figures::default(), 0)).map(|samples| samples.len() > 9), Ok(true));
}

/// The parser would find what `render` might get wrong.
#[test]
fn parser_refuses_what_prometheus_would() {
    let head = "# HELP edgeflow_x X.\n# TYPE edgeflow_x gauge\n";
    assert!(parse(&format!("{head}edgeflow_x{{a=\"1\",b=\"\\\"\"}} 1.5\n")).is_ok());
    for bad in
        ["edgeflow_y 1", "edgeflow_x", "edgeflow_x{a=\"\"\"} 1", "edgeflow_x{a=\"1} 1", "edgeflow_x{a-b=\"1\"} 1"]
    {
        assert!(parse(&format!("{head}{bad}\n")).is_err(), "{bad}");
    }
    assert!(parse(&format!("{head}edgeflow_x 1\nedgeflow_x 1\n")).is_err(), "twice");
    assert!(parse("edgeflow_x 1\n").is_err(), "without a family");
    assert!(parse("# HELP edgeflow_x_total X.\n# TYPE edgeflow_x_total gauge\n").is_err(), "a gauge is no total");
}
