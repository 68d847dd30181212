//! The page of figures for Prometheus, in its text format: base units, one family after the other, labels escaped.
//! Pure; `http` gathers what is on it.
//!
//! Counters of a job start at 0 with each of its deployments, which Prometheus takes for a restart. A job that has ended
//! is listed as long as the coordinator lists it.

use super::process::Process;
use ef_proto::wire::generated::control::{Checkpoint, CheckpointCounts, ClusterResponse, Job, Worker};
use std::collections::BTreeMap;
use std::fmt::{Display, Write};

/// What the format is called.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Each has a sample, so that a query for one that no job is in finds a 0.
const JOB_STATES: [&str; 9] =
    ["PENDING", "DEPLOYING", "RUNNING", "RESTARTING", "STOPPING", "CANCELLING", "FINISHED", "CANCELLED", "FAILED"];

#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub cluster: ClusterResponse,
    pub jobs: Vec<JobFigures>,
    pub workers: Vec<Worker>,
    /// Of the coordinator.
    pub process: Process,
}

#[derive(Clone, Debug, Default)]
pub struct JobFigures {
    pub job: Job,
    /// None for a job that has ended.
    pub counts: Option<CheckpointCounts>,
    /// The newest one that is complete.
    pub last: Option<Checkpoint>,
}

pub fn render(figures: &Figures, now_ms: u64) -> String {
    let mut page = Page::default();
    coordinator(&mut page, figures);
    jobs(&mut page, &figures.jobs, now_ms);
    workers(&mut page, &figures.workers);
    page.text
}

fn coordinator(page: &mut Page, figures: &Figures) {
    let Figures { cluster, process, .. } = figures;
    page.family("edgeflow_build_info", "gauge", "Always 1; the version is in the label.");
    page.sample("edgeflow_build_info", &[("version", &cluster.version)], 1);
    page.one("edgeflow_leader_term", "gauge", "Term of the leader.", cluster.term);
    let help = "When the coordinator started, in seconds since 1970.";
    page.one("edgeflow_coordinator_start_time_seconds", "gauge", help, seconds(cluster.started_at_ms));
    let figures = [
        (
            "resident_memory_bytes",
            "gauge",
            "Memory that the coordinator holds.",
            process.resident_bytes.map(Value::from),
        ),
        (
            "cpu_seconds_total",
            "counter",
            "Processor time that the coordinator used.",
            process.cpu_seconds.map(Value::from),
        ),
        ("threads", "gauge", "Threads of the coordinator.", process.threads.map(Value::from)),
        (
            "open_files",
            "gauge",
            "Files and sockets that the coordinator has open.",
            process.open_files.map(Value::from),
        ),
    ];
    for (name, kind, help, value) in figures {
        if let Some(value) = value {
            page.one(&format!("edgeflow_coordinator_{name}"), kind, help, value);
        }
    }
}

fn jobs(page: &mut Page, jobs: &[JobFigures], now_ms: u64) {
    let mut by_state: BTreeMap<&str, u64> = JOB_STATES.into_iter().map(|state| (state, 0)).collect();
    for job in jobs {
        *by_state.entry(&job.job.state).or_default() += 1;
    }
    page.family("edgeflow_jobs", "gauge", "Jobs by state.");
    for (state, count) in by_state {
        page.sample("edgeflow_jobs", &[("state", state)], count);
    }
    let mut family = |name: &str, kind: &str, help: &str, value: &dyn Fn(&JobFigures) -> Option<Value>| {
        let name = format!("edgeflow_job_{name}");
        page.family(&name, kind, help);
        for job in jobs {
            if let Some(value) = value(job) {
                page.sample(&name, &[("job", &job.job.id), ("name", &job.job.name)], value);
            }
        }
    };
    family("rows_in_total", "counter", "Rows that the sources read.", &|j| Some(j.job.rows_in.into()));
    family("rows_out_total", "counter", "Rows that the sinks wrote.", &|j| Some(j.job.rows_out.into()));
    family("restarts_total", "counter", "Restarts after a failure.", &|j| Some(u64::from(j.job.restarts).into()));
    family("parallelism", "gauge", "Subtasks of the widest operator.", &|j| Some(u64::from(j.job.parallelism).into()));
    family("checkpoints_completed_total", "counter", "Checkpoints that completed.", &|j| {
        Some(j.counts.as_ref()?.completed.into())
    });
    family("checkpoints_failed_total", "counter", "Checkpoints that failed.", &|j| {
        Some(j.counts.as_ref()?.failed.into())
    });
    family("checkpoints_in_flight", "gauge", "Checkpoints under way.", &|j| Some(j.counts.as_ref()?.in_flight.into()));
    let last = |j: &JobFigures| (j.job.last_checkpoint > 0).then_some(j.job.last_checkpoint);
    family("last_checkpoint_epoch", "gauge", "Epoch of the last completed checkpoint.", &|j| Some(last(j)?.into()));
    let age = |j: &JobFigures| last(j).map(|_| seconds(now_ms.saturating_sub(j.job.last_checkpoint_at_ms)));
    let help = "Time since the last completed checkpoint.";
    family("last_checkpoint_age_seconds", "gauge", help, &|j| Some(age(j)?.into()));
    let help = "From trigger to record of the last completed checkpoint.";
    family("last_checkpoint_duration_seconds", "gauge", help, &|j| Some(seconds(j.last.as_ref()?.duration_ms).into()));
    let help = "Size of the last completed checkpoint, with all that it reuses.";
    family("last_checkpoint_size_bytes", "gauge", help, &|j| Some(j.last.as_ref()?.bytes.into()));
    let help = "What the last completed checkpoint had to upload.";
    family("last_checkpoint_new_bytes", "gauge", help, &|j| Some(j.last.as_ref()?.new_bytes.into()));
}

fn workers(page: &mut Page, workers: &[Worker]) {
    let mut by_state: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut slots: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for worker in workers {
        *by_state.entry((worker.tier.as_str(), worker.state.as_str())).or_default() += 1;
        // What a lost worker offers, nobody has.
        if worker.state == "READY" {
            let (all, free) = slots.entry(&worker.tier).or_default();
            *all += u64::from(worker.slots);
            *free += u64::from(worker.slots_free);
        }
    }
    page.family("edgeflow_workers", "gauge", "Workers by tier and state.");
    for ((tier, state), count) in by_state {
        page.sample("edgeflow_workers", &[("tier", tier), ("state", state)], count);
    }
    page.family("edgeflow_slots", "gauge", "Slots of the workers that are ready, by tier.");
    for (tier, (all, _)) in &slots {
        page.sample("edgeflow_slots", &[("tier", tier)], all);
    }
    page.family("edgeflow_slots_free", "gauge", "Slots that no job takes, of the workers that are ready, by tier.");
    for (tier, (_, free)) in &slots {
        page.sample("edgeflow_slots_free", &[("tier", tier)], free);
    }
    let mut family = |name: &str, help: &str, value: &dyn Fn(&Worker) -> Value| {
        let name = format!("edgeflow_worker_{name}");
        page.family(&name, "gauge", help);
        for worker in workers {
            page.sample(
                &name,
                &[("worker", &worker.id), ("tier", &worker.tier), ("site", &worker.site)],
                value(worker),
            );
        }
    };
    family("up", "1 for a worker that is ready, 0 for one that is lost.", &|w| u64::from(w.state == "READY").into());
    family("cordoned", "1 for a worker that takes no more tasks.", &|w| u64::from(w.cordoned).into());
    family("slots", "Slots of the worker.", &|w| u64::from(w.slots).into());
    family("slots_free", "Slots of the worker that no job takes.", &|w| u64::from(w.slots_free).into());
    family("tasks", "Subtasks that the worker runs.", &|w| u64::from(w.tasks).into());
    family("memory_bytes", "Memory that the worker offers to tasks.", &|w| w.memory_bytes.into());
    family("resident_memory_bytes", "Memory that the worker holds.", &|w| w.resident_bytes.into());
    family("cpu_cores", "Processor cores that the worker keeps busy.", &|w| (f64::from(w.cpu_millis) / 1000.0).into());
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

/// A whole number stays one: a float has no room for every u64.
#[derive(Clone, Copy, Debug)]
enum Value {
    Whole(u64),
    Float(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Value {
        Value::Whole(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Value {
        Value::Float(value)
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Whole(value) => value.fmt(f),
            Value::Float(value) => value.fmt(f),
        }
    }
}

#[derive(Debug, Default)]
struct Page {
    text: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        match labels.is_empty() {
            true => self.line(format_args!("{name} {value}")),
            false => self.line(format_args!("{name}{{{}}} {value}", labels.join(","))),
        }
    }

    /// A family of one sample.
    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{line}").expect("a string takes all text");
    }
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests;
