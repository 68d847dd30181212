//! `efctl` against a cluster: every call is a process, as a user's is, and what it answers is its JSON.

use crate::cluster::Cluster;
use crate::following::placement;
use crate::wait::{self, PATIENCE};
use crate::{Done, Run, Running};
use serde_json::Value;
use std::time::Duration;

/// A query that takes longer is one to a coordinator that is away.
const QUERY_LIMIT: Duration = Duration::from_secs(10);

/// States in which a job stays.
const ENDED: [&str; 3] = ["FINISHED", "CANCELLED", "FAILED"];

impl Cluster {
    fn call(&self, args: &[&str]) -> Run {
        let number = self.calls.get();
        self.calls.set(number + 1);
        let file = |kind: &str| self.directory.join(format!("calls/{number:06}.{kind}"));
        let run = Run::on(self.host(), &self.directory, args)
            .env("EFCTL_COORDINATOR", &self.url())
            .output(file("out"), file("err"));
        // Other machines are only spoken to without encryption when one says so.
        let run = if self.host().ip.is_loopback() { run } else { run.arg("--insecure") };
        self.environment().iter().fold(run, |run, (key, value)| run.env(key, value))
    }

    /// `efctl ARGS…`, to its end.
    #[track_caller]
    pub fn efctl(&self, args: &[&str]) -> Done {
        self.call(args).done()
    }

    /// `efctl ARGS…`, started.
    #[track_caller]
    pub fn efctl_started(&self, args: &[&str]) -> Running {
        self.call(args).start().expect("efctl starts")
    }

    /// `efctl ARGS… -o json`, which must succeed.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let done = self.call(args).args(&["-o", "json"]).done();
        assert_eq!(done.code, Some(0), "efctl {args:?}\n--- stdout\n{}\n--- stderr\n{}", done.stdout, done.stderr);
        parse(&done.stdout)
    }

    /// The number of a worker that runs tasks of this job; None while nobody does, or nobody answers.
    pub fn busy_worker(&self, job: &str) -> Option<usize> {
        let placed = placement(&self.try_json(&["describe", "job", job])?);
        let runs = |id: &str| placed.iter().any(|(_, workers)| workers.iter().any(|worker| worker == id));
        (0..self.workers()).find(|n| runs(self.worker_id(*n)))
    }

    /// `efctl ARGS… -o json`; None when it failed or did not answer in time.
    pub fn try_json(&self, args: &[&str]) -> Option<Value> {
        let running = self.call(args).args(&["-o", "json"]).start().ok()?;
        let done = running.wait_at_most(QUERY_LIMIT).ok()??;
        (done.code == Some(0)).then(|| parse(&done.stdout))
    }

    /// `efctl get …`: the rows of a list.
    fn list(&self, args: &[&str]) -> Option<Vec<Value>> {
        match self.try_json(args)? {
            Value::Array(rows) => Some(rows),
            other => panic!("efctl {args:?} -o json: an array was expected, found {other}"),
        }
    }

    /// None: the coordinator does not answer. The same below.
    pub fn jobs(&self) -> Option<Vec<Value>> {
        self.list(&["get", "jobs"])
    }

    /// The job of this id, or of this name.
    pub fn job(&self, job: &str) -> Option<Value> {
        self.jobs()?.into_iter().rev().find(|row| row["id"] == job || row["name"] == job)
    }

    pub fn job_state(&self, job: &str) -> Option<String> {
        self.job(job)?["state"].as_str().map(String::from)
    }

    pub fn workers_listed(&self) -> Option<Vec<Value>> {
        self.list(&["get", "workers"])
    }

    pub fn checkpoints(&self, job: &str) -> Option<Vec<Value>> {
        self.list(&["get", "checkpoints", job])
    }

    pub fn savepoints(&self, job: &str) -> Option<Vec<Value>> {
        self.list(&["get", "savepoints", job])
    }

    /// Waits until the job is in this state and gives its row; panics when it has ended in another one.
    #[track_caller]
    pub fn wait_state(&self, job: &str, state: &str, limit: Duration) -> Value {
        self.wait_job(job, state, limit, |row| row["state"] == state)
    }

    /// Waits for a checkpoint newer than `epoch`.
    #[track_caller]
    pub fn wait_checkpoint(&self, job: &str, epoch: u64) -> Value {
        self.wait_job(job, &format!("a checkpoint after {epoch}"), PATIENCE, |row| {
            row["last_checkpoint"].as_u64() > Some(epoch)
        })
    }

    #[track_caller]
    pub fn wait_job(&self, job: &str, what: &str, limit: Duration, is_it: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let found = wait::found(limit, || {
            last = self.job(job)?;
            let ended = ENDED.iter().any(|state| last["state"] == *state);
            (is_it(&last) || ended).then(|| last.clone())
        });
        match found {
            Some(row) if is_it(&row) => row,
            Some(row) => panic!("job {job} has ended while {what} was awaited: {row:#}"),
            None => panic!("job {job}: {what} did not come in {limit:?}, it was last {last:#}"),
        }
    }

    /// `efctl submit` of this text; the job's id. The file is `<name>.sql`, which names the job.
    #[track_caller]
    pub fn submit(&self, name: &str, sql: &str, args: &[&str]) -> String {
        let file = self.write_sql(name, sql);
        let done = self.efctl(&[&["submit", file.as_str()], args].concat());
        assert_eq!(done.code, Some(0), "submit {file}\n--- stdout\n{}\n--- stderr\n{}", done.stdout, done.stderr);
        submitted_job(&done.stdout).unwrap_or_else(|| panic!("no job in the answer to submit: {}", done.stdout))
    }

    /// Writes `<name>.sql` for a call that takes a file; its name.
    pub fn write_sql(&self, name: &str, sql: &str) -> String {
        let file = format!("{name}.sql");
        std::fs::write(self.directory.join(&file), sql).expect("the test's own directory is writable");
        file
    }

    /// Ends the job as if its inputs had ended here: all windows fire, all output is published.
    #[track_caller]
    pub fn drain(&self, job: &str) {
        let done = self.efctl(&["stop", job, "--drain", "--wait"]);
        assert_eq!(done.code, Some(0), "stop --drain\n--- stdout\n{}\n--- stderr\n{}", done.stdout, done.stderr);
        self.wait_state(job, "FINISHED", PATIENCE);
    }

    /// Stops the job with a savepoint; the savepoint's id.
    #[track_caller]
    pub fn stop_with_savepoint(&self, job: &str) -> String {
        let done = self.efctl(&["stop", job, "--savepoint", "--wait"]);
        assert_eq!(done.code, Some(0), "stop --savepoint\n--- stdout\n{}\n--- stderr\n{}", done.stdout, done.stderr);
        self.wait_state(job, "FINISHED", PATIENCE);
        let savepoints = self.savepoints(job).expect("the coordinator answers");
        newest_savepoint(&savepoints).unwrap_or_else(|| panic!("no completed savepoint of {job}: {savepoints:?}"))
    }
}

/// The id in what submit answers: `job ID (NAME) submitted`.
pub fn submitted_job(stdout: &str) -> Option<String> {
    let line = stdout.lines().find(|line| line.ends_with(" submitted"))?;
    line.strip_prefix("job ")?.split(' ').next().map(String::from)
}

/// Id of the completed savepoint with the highest epoch.
pub fn newest_savepoint(savepoints: &[Value]) -> Option<String> {
    let completed = savepoints.iter().filter(|row| row["state"] == "COMPLETED");
    completed.max_by_key(|row| row["epoch"].as_u64())?["id"].as_str().map(String::from)
}

#[track_caller]
fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: no JSON in what efctl printed:\n{text}"))
}
