//! Descriptions as kubectl prints them: names and values, then tables, one section below the other.

use super::human::{age, duration, or_nothing, size, timestamp};
use super::table::Table;
use super::views;
use ef_proto::wire::generated::control::{
    Job, JobDescription, JobEvent, Savepoint, StateDescription, WorkerDescription,
};
use std::fmt::{Display, Write};

/// How many of a job's events are shown; `efctl events` has all.
const EVENTS_SHOWN: usize = 20;

/// Grows by sections.
#[derive(Default)]
struct Page(String);

impl Page {
    /// `Name:   value`, the values below each other.
    fn fields<const N: usize>(&mut self, fields: [(&str, String); N]) {
        let width = fields.iter().map(|(name, _)| name.len() + 1).max().unwrap_or(0) + 2;
        for (name, value) in fields {
            // A value of several lines stays in its column.
            let value = value.trim_end().replace('\n', &format!("\n{:width$}", ""));
            let _ = writeln!(self.0, "{:<width$}{value}", format!("{name}:"));
        }
    }

    fn section(&mut self, title: &str, body: impl Display) {
        let _ = writeln!(self.0, "\n{title}:");
        for line in body.to_string().lines() {
            let _ = writeln!(self.0, "{}", format!("  {line}").trim_end());
        }
    }

    fn table(&mut self, title: &str, table: &Table) {
        match table.rows.is_empty() {
            true => self.section(title, "none"),
            false => self.section(title, table),
        }
    }
}

/// A point in time and how long ago it was.
fn moment(now_ms: u64, at_ms: u64) -> String {
    if at_ms == 0 {
        return or_nothing("");
    }
    format!("{} ({} ago)", timestamp(at_ms), age(now_ms.saturating_sub(at_ms)))
}

pub fn event(event: &JobEvent) -> String {
    // One line each, whatever the message holds.
    let message = event.message.replace(char::is_control, " ");
    format!("{}  {:<10}  {message}", timestamp(event.at_ms), event.kind)
}

pub fn job(description: &JobDescription, now_ms: u64) -> String {
    let JobDescription { job, plan, operators, checkpoints, events, sql: _, config, restored_from } = description;
    let job = &job.clone().unwrap_or_default();
    let Job { id, name, state, reason, cause, .. } = job;
    let mut page = Page::default();
    let counts = checkpoints.unwrap_or_default();
    let last = match job.last_checkpoint {
        0 => "no last one".into(),
        epoch => format!("last {epoch} at {}", moment(now_ms, job.last_checkpoint_at_ms)),
    };
    page.fields([
        ("Id", id.clone()),
        ("Name", name.clone()),
        ("State", state.clone()),
        ("Reason", or_nothing(reason)),
        ("Cause", or_nothing(cause)),
        ("Parallelism", job.parallelism.to_string()),
        ("Workers", job.workers.to_string()),
        ("Submitted", moment(now_ms, job.submitted_at_ms)),
        ("In this state", moment(now_ms, job.since_ms)),
        ("Ended", moment(now_ms, job.ended_at_ms)),
        ("Restarts", job.restarts.to_string()),
        ("Restored from", or_nothing(restored_from)),
        ("Rows in", format!("{} ({}/s)", job.rows_in, job.rows_in_per_second)),
        ("Rows out", format!("{} ({}/s)", job.rows_out, job.rows_out_per_second)),
        (
            "Checkpoints",
            format!(
                "{} completed, {} failed, {} in progress; {last}",
                counts.completed, counts.failed, counts.in_flight
            ),
        ),
    ]);
    if !config.is_empty() {
        let config: Vec<String> = config.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        page.section("Configuration", config.join("\n"));
    }
    page.table("Operators", &views::operators(operators, now_ms));
    page.section("Plan", plan);
    let from = events.len().saturating_sub(EVENTS_SHOWN);
    let lines: Vec<String> = events[from..].iter().map(event).collect();
    page.section(
        &if from > 0 { format!("Events (the last {EVENTS_SHOWN} of {})", events.len()) } else { "Events".into() },
        if lines.is_empty() { "none".into() } else { lines.join("\n") },
    );
    page.0
}

pub fn worker(description: &WorkerDescription, now_ms: u64) -> String {
    let worker = &description.worker.clone().unwrap_or_default();
    let mut page = Page::default();
    page.fields([
        ("Id", worker.id.clone()),
        ("State", views::worker_state(worker)),
        ("Tier", worker.tier.clone()),
        ("Site", or_nothing(&worker.site)),
        ("Labels", views::labels(worker)),
        ("Slots", format!("{} of {} free", worker.slots_free, worker.slots)),
        ("Memory", format!("{} resident, budget {}", size(worker.resident_bytes), size(worker.memory_bytes))),
        ("CPU", format!("{:.2} cores", f64::from(worker.cpu_millis) / 1e3)),
        ("Rows in", format!("{}/s", worker.rows_in_per_second)),
        ("Seen", moment(now_ms, worker.seen_at_ms)),
        ("Address", or_nothing(&worker.data_address)),
        ("Version", or_nothing(&worker.version)),
    ]);
    page.table("Tasks", &views::tasks(&description.tasks));
    page.0
}

/// A checkpoint, or a savepoint's content.
pub fn state(state: &StateDescription, now_ms: u64) -> String {
    let mut page = Page::default();
    page.fields([
        ("Path", or_nothing(&state.path)),
        ("Job", format!("{} ({})", state.job, state.job_name)),
        ("Epoch", state.epoch.to_string()),
        ("Triggered", moment(now_ms, state.triggered_at_ms)),
        ("Max parallelism", state.max_parallelism.to_string()),
        ("Size", format!("{} in {} files", size(state.bytes), state.files)),
    ]);
    let mut table = Table::plain(&["OPERATOR", "NAME", "PARALLELISM", "SIZE", "FILES", "ROWS", "KEY-GROUPS"]);
    for operator in &state.operators {
        table.push(
            &operator.id,
            vec![
                operator.id.clone(),
                operator.name.clone(),
                operator.parallelism.to_string(),
                size(operator.bytes),
                operator.files.to_string(),
                operator.rows.map_or_else(|| or_nothing(""), |rows| rows.to_string()),
                or_nothing(&operator.key_groups.join(" ")),
            ],
        );
    }
    page.table("Operators", &table);
    page.0
}

/// A savepoint's own fields; what it holds is [`state`].
pub fn savepoint(savepoint: &Savepoint, now_ms: u64) -> String {
    let mut page = Page::default();
    let took = match savepoint.completed_at_ms {
        0 => or_nothing(""),
        at => duration(at.saturating_sub(savepoint.created_at_ms)),
    };
    page.fields([
        ("Id", savepoint.id.clone()),
        ("State", savepoint.state.clone()),
        ("Reason", or_nothing(&savepoint.reason)),
        ("Created", moment(now_ms, savepoint.created_at_ms)),
        ("Took", took),
    ]);
    page.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use ef_proto::wire::generated::control::{CheckpointCounts, OperatorStateDescription, OperatorStatus, Worker};

    #[test]
    fn values_stand_below_each_other_and_stay_in_their_column() {
        let mut page = Page::default();
        page.fields([("Id", "a".into()), ("Reason", "first\nsecond\n".into())]);
        page.section("Plan", "tree\n\n  leaf\n");
        page.table("Tasks", &Table::plain(&["JOB"]));
        let expected = "\
Id:      a
Reason:  first
         second

Plan:
  tree

    leaf

Tasks:
  none
";
        assert_eq!(page.0, expected);
    }

    #[test]
    fn a_job_tells_all_that_is_known_of_it() {
        let description = JobDescription {
            job: Some(Job {
                id: "pumps-1".into(),
                name: "pumps".into(),
                state: "FAILED".into(),
                cause: "disk full".into(),
                last_checkpoint: 7,
                last_checkpoint_at_ms: 60_000,
                ..Job::default()
            }),
            plan: "Job pumps\nSink(out)".into(),
            operators: vec![OperatorStatus {
                id: "00ff".into(),
                name: "Sink(out)".into(),
                ..OperatorStatus::default()
            }],
            checkpoints: Some(CheckpointCounts { completed: 6, failed: 1, in_flight: 0 }),
            events: (0..30)
                .map(|n| JobEvent {
                    at_ms: 1 + n,
                    sequence: n,
                    kind: "STATE".into(),
                    message: format!("event {n}.\nx"),
                })
                .collect(),
            sql: "SELECT".into(),
            config: [("parallelism.default".to_string(), "2".to_string())].into(),
            restored_from: "/save/1".into(),
        };
        let text = job(&description, 90_000);
        for part in [
            "State:          FAILED",
            "Cause:          disk full",
            "Restored from:  /save/1",
            "6 completed, 1 failed, 0 in progress; last 7 at 1970-01-01T00:01:00.000Z (30s ago)",
            "  parallelism.default = 2",
            "  00ff       Sink(out)",
            "Plan:\n  Job pumps\n  Sink(out)\n",
            "Events (the last 20 of 30):\n  1970-01-01T00:00:00.011Z  STATE       event 10. x\n",
            "event 29. x\n",
        ] {
            assert!(text.contains(part), "`{part}` is not in\n{text}");
        }
        assert!(!text.contains("event 9."), "{text}");
    }

    #[test]
    fn workers_and_states_tell_what_they_hold() {
        let description = WorkerDescription {
            worker: Some(Worker {
                id: "w1".into(),
                state: "READY".into(),
                cordoned: true,
                slots: 4,
                ..Worker::default()
            }),
            tasks: vec![],
        };
        let text = worker(&description, 0);
        assert!(text.contains("READY,CORDONED") && text.contains("0 of 4 free") && text.contains("none"), "{text}");
        let description = StateDescription {
            job: "j".into(),
            job_name: "n".into(),
            epoch: 3,
            operators: vec![OperatorStateDescription {
                id: "ab".into(),
                name: "Agg".into(),
                parallelism: 2,
                key_groups: vec!["0..64".into(), "64..128".into()],
                rows: Some(12),
                ..OperatorStateDescription::default()
            }],
            ..StateDescription::default()
        };
        let text = state(&description, 0);
        assert!(text.contains("j (n)") && text.contains("12     0..64 64..128"), "{text}");
    }
}
