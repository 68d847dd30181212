//! The job of `workload` on a cluster of its own, what it was fed, and what it has written: the common ground of the
//! tests that disturb a running job.

use crate::checker::{Checked, Findings, Outputs, store};
use crate::cluster::{Cluster, Options};
use crate::wait::{self, PATIENCE};
use crate::workload::{Feeder, Job, Workload};
use serde_json::Value;
use tempfile::TempDir;

pub struct Following {
    pub seed: u64,
    // Before the directory that it runs in.
    pub cluster: Cluster,
    pub job: Job,
    /// Of the newest submission.
    pub id: String,
    pub feeder: Feeder,
    pub outputs: Outputs,
    _work: TempDir,
}

impl Following {
    /// Starts the cluster and submits the job, with some input. It may not run yet.
    #[track_caller]
    pub fn start(seed: u64, options: Options, parallelism: u32) -> Following {
        Following::start_with(seed, options, parallelism, |_| {})
    }

    /// The same, with something of the job changed.
    #[track_caller]
    pub fn start_with(seed: u64, options: Options, parallelism: u32, change: impl FnOnce(&mut Job)) -> Following {
        let work = tempfile::tempdir().expect("a temporary directory");
        let mut job = Job::new(work.path());
        change(&mut job);
        let mut feeder = Feeder::new(Workload::new(seed), &job);
        feeder.feed(6);
        let cluster = Cluster::start(work.path(), options);
        let id = cluster.submit("following", &job.sql(), &["-p", &parallelism.to_string()]);
        Following { seed, cluster, outputs: Outputs::of(&job), job, id, feeder, _work: work }
    }

    /// Gives it `partitions` more and waits until all rows so far can be seen.
    #[track_caller]
    pub fn feed(&mut self, partitions: u32) {
        self.feeder.feed(partitions);
        let fed = self.feeder.fed.len();
        let mut seen = 0;
        let all = wait::until(PATIENCE, || {
            seen = self.outputs.rows_visible();
            seen >= fed
        });
        assert!(all, "EDGEFLOW_SEED={}: {seen} of {fed} rows can be seen: {:#}", self.seed, self.row());
    }

    /// The job's line in `efctl get jobs`.
    #[track_caller]
    pub fn row(&self) -> Value {
        wait::found(PATIENCE, || self.cluster.job(&self.id)).expect("the coordinator lists it")
    }

    #[track_caller]
    pub fn describe(&self) -> Value {
        self.cluster.json(&["describe", "job", &self.id])
    }

    /// Which worker runs each subtask of each operator.
    #[track_caller]
    pub fn placement(&self) -> Vec<(String, Vec<String>)> {
        placement(&self.describe())
    }

    /// Ends the job with all windows fired, and checks what it has written and what it has left in the store.
    #[track_caller]
    pub fn finish(mut self) -> Checked {
        self.end()
    }

    /// The same, for a test that goes on to look at what was written.
    #[track_caller]
    pub fn end(&mut self) -> Checked {
        self.feed(2);
        self.cluster.drain(&self.id);
        let checked = self.outputs.check(self.seed, &self.feeder.fed).unwrap_or_else(|wrong| panic!("{wrong}"));
        self.check_store();
        checked
    }

    /// Waits until collection has caught up: the store holds what the retained checkpoints need and nothing else.
    #[track_caller]
    pub fn check_store(&self) {
        let root = self.cluster.job_files(&self.id);
        let mut findings = Findings::default();
        let clean = wait::until(PATIENCE, || {
            findings = Findings::default();
            match self.cluster.checkpoints(&self.id) {
                Some(rows) => store::check(&root, &store::retained(&rows), &mut findings),
                None => findings.add("checkpoints cannot be listed", self.id.clone()),
            }
            findings.is_empty()
        });
        assert!(clean, "{}: {:?}", root.display(), findings.verdict(self.seed));
    }
}

/// Of `efctl describe job -o json`: each operator's name, and the workers of its subtasks.
pub fn placement(description: &Value) -> Vec<(String, Vec<String>)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let operators = description["operators"].as_array().map(Vec::as_slice).unwrap_or_default();
    operators
        .iter()
        .map(|operator| {
            let workers = operator["workers"].as_array().map(Vec::as_slice).unwrap_or_default();
            (text(&operator["name"]), workers.iter().map(text).collect())
        })
        .collect()
}
