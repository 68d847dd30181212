//! The tables of `efctl get` and `efctl top`: which columns a job, worker, tier, checkpoint and savepoint have. Wide
//! tables have all columns of narrow ones, in the same order, and more behind them.

use super::human::{age, count, cpu, duration, or_nothing, since, size};
use super::table::{Column, Table};
use super::tiers::Tier;
use ef_proto::wire::generated::control::{
    Checkpoint, Job, OperatorStatus, Rescaled, Savepoint, StateMapping, Worker, WorkerTask,
};

const fn fixed(name: &'static str) -> Column {
    Column::new(name)
}

const fn moving(name: &'static str) -> Column {
    Column::volatile(name)
}

/// A table of these columns, the last of them only if `wide`.
fn table<const N: usize, const W: usize>(narrow: [Column; N], more: [Column; W], wide: bool) -> Table {
    let more = more.into_iter().filter(|_| wide);
    Table::new(narrow.into_iter().chain(more).collect())
}

fn row<const N: usize, const W: usize>(narrow: [String; N], more: [String; W], wide: bool) -> Vec<String> {
    narrow.into_iter().chain(more.into_iter().filter(|_| wide)).collect()
}

/// A number of which 0 means that there is none.
fn epoch(epoch: u64) -> String {
    if epoch == 0 { or_nothing("") } else { epoch.to_string() }
}

pub fn jobs(jobs: &[Job], now_ms: u64, wide: bool) -> Table {
    let columns = [
        fixed("ID"),
        fixed("NAME"),
        fixed("STATE"),
        fixed("PARALLELISM"),
        fixed("WORKERS"),
        fixed("RESTARTS"),
        fixed("CHECKPOINT"),
        moving("AGE"),
    ];
    let more = [
        moving("IN/S"),
        moving("OUT/S"),
        moving("ROWS-IN"),
        moving("ROWS-OUT"),
        moving("CHECKPOINTED"),
        moving("SINCE"),
        fixed("REASON"),
    ];
    let mut found = table(columns, more, wide);
    for job in jobs {
        let narrow = [
            job.id.clone(),
            job.name.clone(),
            job.state.clone(),
            job.parallelism.to_string(),
            job.workers.to_string(),
            job.restarts.to_string(),
            epoch(job.last_checkpoint),
            since(now_ms, job.submitted_at_ms),
        ];
        let more = [
            count(job.rows_in_per_second),
            count(job.rows_out_per_second),
            count(job.rows_in),
            count(job.rows_out),
            since(now_ms, job.last_checkpoint_at_ms),
            since(now_ms, job.since_ms),
            or_nothing(why(job)),
        ];
        found.push(&job.id, row(narrow, more, wide));
    }
    found
}

/// Why a job is in its state: the cause of its failures says more than the state's own reason.
pub fn why(job: &Job) -> &str {
    if job.cause.is_empty() { &job.reason } else { &job.cause }
}

/// `READY,CORDONED`, as kubectl has `Ready,SchedulingDisabled`.
pub fn worker_state(worker: &Worker) -> String {
    if worker.cordoned { format!("{},CORDONED", worker.state) } else { worker.state.clone() }
}

pub fn labels(worker: &Worker) -> String {
    let labels: Vec<String> = worker.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    or_nothing(&labels.join(","))
}

pub fn workers(workers: &[Worker], now_ms: u64, wide: bool) -> Table {
    let columns = [
        fixed("ID"),
        fixed("STATE"),
        fixed("TIER"),
        fixed("SITE"),
        fixed("FREE"),
        fixed("SLOTS"),
        fixed("TASKS"),
        moving("CPU"),
        moving("MEMORY"),
        moving("SEEN"),
    ];
    let more = [moving("ROWS/S"), fixed("BUDGET"), fixed("LABELS"), fixed("ADDRESS"), fixed("VERSION")];
    let mut found = table(columns, more, wide);
    for worker in workers {
        let narrow = [
            worker.id.clone(),
            worker_state(worker),
            worker.tier.clone(),
            or_nothing(&worker.site),
            worker.slots_free.to_string(),
            worker.slots.to_string(),
            worker.tasks.to_string(),
            cpu(worker.cpu_millis),
            size(worker.resident_bytes),
            since(now_ms, worker.seen_at_ms),
        ];
        let more = [
            count(worker.rows_in_per_second),
            size(worker.memory_bytes),
            labels(worker),
            or_nothing(&worker.data_address),
            or_nothing(&worker.version),
        ];
        found.push(&worker.id, row(narrow, more, wide));
    }
    found
}

pub fn tiers(tiers: &[Tier], wide: bool) -> Table {
    let columns = ["TIER", "SITES", "READY", "FREE", "JOBS"].map(fixed);
    let mut found = table(columns, ["SITE-NAMES", "JOB-IDS"].map(fixed), wide);
    for tier in tiers {
        let narrow = [
            tier.tier.clone(),
            tier.sites.len().to_string(),
            format!("{}/{}", tier.workers_ready, tier.workers),
            format!("{}/{}", tier.slots_free, tier.slots),
            tier.jobs.len().to_string(),
        ];
        let joined = |names: &std::collections::BTreeSet<String>| {
            or_nothing(&names.iter().map(String::as_str).collect::<Vec<_>>().join(","))
        };
        found.push(&tier.tier, row(narrow, [joined(&tier.sites), joined(&tier.jobs)], wide));
    }
    found
}

pub fn checkpoints(checkpoints: &[Checkpoint], now_ms: u64, wide: bool) -> Table {
    let columns = [
        fixed("EPOCH"),
        fixed("STATE"),
        fixed("CAUSE"),
        fixed("DURATION"),
        fixed("SIZE"),
        fixed("NEW"),
        fixed("RETAINED"),
        moving("AGE"),
    ];
    let mut found = table(columns, ["PATH", "REASON"].map(fixed), wide);
    for checkpoint in checkpoints {
        let running = checkpoint.state == "IN_PROGRESS";
        let narrow = [
            checkpoint.epoch.to_string(),
            checkpoint.state.clone(),
            or_nothing(&checkpoint.cause),
            if running { or_nothing("") } else { duration(checkpoint.duration_ms) },
            size(checkpoint.bytes),
            size(checkpoint.new_bytes),
            if checkpoint.retained { "yes".into() } else { "no".into() },
            since(now_ms, checkpoint.triggered_at_ms),
        ];
        let more = [or_nothing(&checkpoint.path), or_nothing(&checkpoint.reason)];
        found.push(checkpoint.epoch.to_string(), row(narrow, more, wide));
    }
    found
}

pub fn savepoints(savepoints: &[Savepoint], now_ms: u64, wide: bool) -> Table {
    let columns = [
        fixed("ID"),
        fixed("JOB"),
        fixed("NAME"),
        fixed("STATE"),
        fixed("EPOCH"),
        fixed("SIZE"),
        moving("AGE"),
        fixed("PATH"),
    ];
    let mut found = table(columns, [fixed("REASON")], wide);
    for savepoint in savepoints {
        let narrow = [
            savepoint.id.clone(),
            savepoint.job.clone(),
            savepoint.job_name.clone(),
            savepoint.state.clone(),
            epoch(savepoint.epoch),
            size(savepoint.bytes),
            since(now_ms, savepoint.created_at_ms),
            or_nothing(&savepoint.path),
        ];
        found.push(&savepoint.id, row(narrow, [or_nothing(&savepoint.reason)], wide));
    }
    found
}

pub fn operators(operators: &[OperatorStatus], now_ms: u64) -> Table {
    let mut found = Table::plain(&[
        "OPERATOR",
        "NAME",
        "PARALLELISM",
        "ROWS-IN",
        "ROWS-OUT",
        "LATE",
        "DROPPED",
        "ERRORS",
        "BEHIND",
        "MEMORY",
        "WORKERS",
    ]);
    for operator in operators {
        let behind = match operator.watermark_ms {
            // The ends of time: before the first watermark, and after the last row.
            None | Some(i64::MIN) => or_nothing(""),
            Some(i64::MAX) => "end".into(),
            Some(watermark) => age((now_ms as i64).saturating_sub(watermark).max(0) as u64),
        };
        let mut workers = operator.workers.clone();
        workers.dedup();
        found.push(
            &operator.id,
            vec![
                operator.id.clone(),
                operator.name.clone(),
                operator.parallelism.to_string(),
                count(operator.rows_in),
                count(operator.rows_out),
                operator.late_rows.to_string(),
                operator.dropped_rows.to_string(),
                operator.error_rows.to_string(),
                behind,
                size(operator.memory_bytes),
                or_nothing(&workers.join(",")),
            ],
        );
    }
    found
}

pub fn tasks(tasks: &[WorkerTask]) -> Table {
    let mut found = Table::plain(&["JOB", "NAME", "TASK", "SUBTASK"]);
    for task in tasks {
        let key = format!("{}/{}/{}", task.job, task.task, task.index);
        found.push(key, vec![task.job.clone(), task.job_name.clone(), task.task.clone(), task.index.to_string()]);
    }
    found
}

/// Where the state of a savepoint goes in a new plan.
pub fn mapping(mapping: &[StateMapping]) -> Table {
    let mut found = Table::plain(&["OPERATOR", "NAME", "PARALLELISM", "SIZE", "STATE"]);
    for operator in mapping {
        let width = |parallelism: u32| if parallelism == 0 { or_nothing("") } else { parallelism.to_string() };
        let (old, new) = (operator.old_parallelism, operator.new_parallelism);
        let state = match (operator.starts_empty, new) {
            (true, _) => "starts empty",
            (false, 0) => "left behind",
            (false, _) => "restored",
        };
        let cells = vec![
            operator.operator.clone(),
            operator.name.clone(),
            format!("{} -> {}", width(old), width(new)),
            size(operator.bytes),
            state.into(),
        ];
        found.push(&operator.operator, cells);
    }
    found
}

pub fn rescaled(operators: &[Rescaled]) -> Table {
    let mut found = Table::plain(&["OPERATOR", "NAME", "PARALLELISM"]);
    for operator in operators {
        let (old, new) = (operator.old_parallelism, operator.new_parallelism);
        let change = if old == new { format!("{old}") } else { format!("{old} -> {new}") };
        found.push(&operator.id, vec![operator.id.clone(), operator.name.clone(), change]);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_tables_begin_with_the_narrow_ones() {
        let job = Job { id: "j".into(), ..Job::default() };
        let worker = Worker { id: "w".into(), ..Worker::default() };
        let pairs = [
            (jobs(std::slice::from_ref(&job), 0, false), jobs(&[job], 0, true)),
            (workers(std::slice::from_ref(&worker), 0, false), workers(&[worker], 0, true)),
            (tiers(&[Tier::default()], false), tiers(&[Tier::default()], true)),
            (checkpoints(&[Checkpoint::default()], 0, false), checkpoints(&[Checkpoint::default()], 0, true)),
            (savepoints(&[Savepoint::default()], 0, false), savepoints(&[Savepoint::default()], 0, true)),
        ];
        for (narrow, wide) in pairs {
            assert!(wide.columns.len() > narrow.columns.len());
            assert!(wide.columns.starts_with(&narrow.columns), "{narrow}{wide}");
            assert!(wide.rows[0].cells.starts_with(&narrow.rows[0].cells), "{narrow}{wide}");
        }
    }

    #[test]
    fn jobs_show_their_state_and_the_first_cause_of_a_failure() {
        let job = Job {
            id: "pumps-1".into(),
            name: "pumps".into(),
            state: "RESTARTING".into(),
            reason: "waiting 1 s".into(),
            cause: "subtask 1/0: disk full".into(),
            parallelism: 4,
            submitted_at_ms: 1_000,
            last_checkpoint: 12,
            ..Job::default()
        };
        let text = jobs(&[job], 333_000, true).to_string();
        for word in ["pumps-1", "RESTARTING", "12", "5m32s", "subtask 1/0: disk full"] {
            assert!(text.contains(word), "`{word}` is not in {text}");
        }
        assert!(!text.contains("waiting"), "{text}");
    }

    #[test]
    fn mapping_says_what_is_left_behind_and_what_starts_empty() {
        let operator = |operator: &str, old, new, starts_empty| StateMapping {
            operator: operator.into(),
            name: "Op".into(),
            old_parallelism: old,
            new_parallelism: new,
            bytes: 10,
            starts_empty,
        };
        let all = [operator("a", 2, 4, false), operator("b", 2, 0, false), operator("c", 0, 4, true)];
        let expected = "\
OPERATOR   NAME   PARALLELISM   SIZE   STATE
a          Op     2 -> 4        10B    restored
b          Op     2 -> -        10B    left behind
c          Op     - -> 4        10B    starts empty
";
        assert_eq!(mapping(&all).to_string(), expected);
    }

    #[test]
    fn a_watermark_at_an_end_of_time_has_no_age() {
        let operator = |watermark_ms| OperatorStatus { watermark_ms, ..OperatorStatus::default() };
        let table = operators(&[None, Some(i64::MIN), Some(i64::MAX), Some(5_000), Some(20_000)].map(operator), 10_000);
        let behind: Vec<&str> = table.rows.iter().map(|row| row.cells[8].as_str()).collect();
        assert_eq!(behind, ["-", "-", "end", "5s", "0s"]);
    }
}
