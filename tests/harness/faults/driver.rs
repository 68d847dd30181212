//! Brings the faults of a schedule about, ends them, and feeds the job all the while: one loop that never waits for
//! anything but the clock, because it is what brings the cluster back.

use super::broker::Broker;
use super::call::{Call, Progress};
use super::schedule::{Cut, Fault, Kind, Menu, Step, Target, schedule};
use super::store::Store;
use crate::checker::{Checked, Findings, Outputs, check_markers, store};
use crate::cluster::{Cluster, Options, Who, WorkerOptions};
use crate::ctl::{newest_savepoint, submitted_job};
use crate::disk::Disk;
use crate::missing::missing;
use crate::proxy::Proxy;
use crate::servers::kafka::Kafka;
use crate::wait::{self, PATIENCE};
use crate::workload::{Feeder, Job, Medium, Topics, Workload};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::{Duration, Instant};

/// Of each worker's disk where it is to be full. RocksDB reserves more than it writes.
const DISK_MEGABYTES: u32 = 96;
/// Partitions that come before the first fault, and after the last.
const BEFORE_AND_AFTER: u32 = 8;
/// Between two looks at whether the job has failed.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Nothing new can be seen for so long although nothing is wrong any more: it is stuck.
const STUCK_AFTER: Duration = PATIENCE;
/// Rows that are not there after so long and so many checkpoints more have been lost.
const LOST_AFTER: Duration = Duration::from_secs(5);
/// From a broker that was away a source has none before it has found it again, and its checkpoints go on.
const LOST_AFTER_OVER_KAFKA: Duration = Duration::from_secs(20);
const CHECKPOINTS_WITHOUT_ROWS: u64 = 10;

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub faults: usize,
    pub kinds: Vec<Kind>,
    pub workers: usize,
    /// At the start; rescaling stays from 1 to twice the workers but two, so that one of them may be away.
    pub parallelism: u32,
    pub freeze_ms: RangeInclusive<u64>,
    pub pause_ms: RangeInclusive<u64>,
    pub feed_every: Duration,
    pub checkpoint_interval: String,
    pub in_s3: bool,
    pub backend: String,
    pub coordinator_flags: Vec<String>,
    pub worker_flags: Vec<String>,
}

#[derive(Debug)]
pub enum Failure {
    /// The job has ended, and what it wrote is not right.
    Output(String),
    /// It failed, or does not go on, or a process ended by itself.
    Job(String),
}

/// Of a run in which all was well.
#[derive(Clone, Debug)]
pub struct Report {
    pub checked: Checked,
    pub faults: usize,
    /// As often as the job was restarted, over all its submissions.
    pub restarts: u64,
    pub log: String,
}

/// Runs it in a directory of its own.
pub fn run(directory: &Path, plan: &Plan) -> Result<Report, Failure> {
    run_on(directory, plan, None)
}

/// The same with Kafka on both sides of the job: this broker, which may be broken.
pub fn run_over(kafka: Kafka, directory: &Path, plan: &Plan) -> Result<Report, Failure> {
    run_on(directory, plan, Some(kafka))
}

fn run_on(directory: &Path, plan: &Plan, kafka: Option<Kafka>) -> Result<Report, Failure> {
    let mut driver = Driver::start(directory, plan, kafka);
    let ended = driver.run();
    // Before the processes go.
    let log = std::mem::take(&mut driver.log);
    let told = |what: String| format!("{what}\n--- faults\n{log}{}", driver.cluster.tails());
    match ended {
        Ok((checked, restarts)) => Ok(Report { checked, faults: plan.faults, restarts, log }),
        Err(Failure::Output(what)) => Err(Failure::Output(told(what))),
        Err(Failure::Job(what)) => Err(Failure::Job(told(format!("EDGEFLOW_SEED={}: {what}", plan.seed)))),
    }
}

struct Active {
    fault: Fault,
    doing: Doing,
}

enum Doing {
    Until(Instant),
    /// The coordinator, which has so long to be ready; when it is started again if it has ended at its start.
    Starting {
        limit: Instant,
        again: Instant,
    },
    /// The broker, until it serves again.
    Serving,
    Rescaling(Call),
    Stopping(Call),
    Submitting(Call),
    /// And then away for so long.
    Draining(Call, Duration),
    Returning(Call),
}

struct Driver<'a> {
    plan: &'a Plan,
    began: Instant,
    log: String,
    // Before the disks: processes go first.
    cluster: Cluster,
    disks: Vec<Disk>,
    store: Store,
    /// None: the job reads and writes files.
    broker: Option<Broker>,
    job: Job,
    /// Ids of all submissions, the newest last.
    submitted: Vec<String>,
    feeder: Feeder,
    next_feed: Instant,
    next_look: Instant,
    outputs: Outputs,
    active: Vec<Active>,
    kinds: Vec<Kind>,
}

impl Driver<'_> {
    fn start<'a>(directory: &Path, plan: &'a Plan, kafka: Option<Kafka>) -> Driver<'a> {
        let store = if plan.in_s3 { Store::s3() } else { Store::directory(directory) };
        let mut kinds = plan.kinds.clone();
        let mut disks = Vec::new();
        let mut workers: Vec<WorkerOptions> = Vec::new();
        for n in 0..plan.workers {
            let mut worker = WorkerOptions::new(&format!("w{}", n + 1));
            worker.linked = true;
            worker.flags = plan.worker_flags.clone();
            if kinds.contains(&Kind::DiskFull) {
                match Disk::new(&directory.join(format!("disk-{}", worker.id)), DISK_MEGABYTES) {
                    Ok(disk) => {
                        worker.data_dir = Some(disk.directory().join("data"));
                        disks.push(disk);
                    }
                    Err(lack) => {
                        missing("faults: full disks", &lack);
                        kinds.retain(|kind| *kind != Kind::DiskFull);
                    }
                }
            }
            workers.push(worker);
        }
        let mut job = Job::new(directory);
        job.backend = plan.backend.clone();
        job.checkpoint_interval = plan.checkpoint_interval.clone();
        job.settings = store.settings();
        if let Some(kafka) = &kafka {
            job.medium = Medium::Kafka(Topics::create(kafka.client()).expect("the broker makes topics"));
        }
        let feeder = Feeder::new(Workload::new(plan.seed), &job);
        let options = Options {
            workers,
            state: store.state(),
            flags: plan.coordinator_flags.clone(),
            seed: plan.seed,
            ..Options::workers(0)
        };
        let cluster = Cluster::start(directory, options);
        let now = Instant::now();
        Driver {
            plan,
            began: now,
            log: String::new(),
            cluster,
            disks,
            store,
            broker: kafka.map(Broker::new),
            outputs: Outputs::of(&job),
            job,
            submitted: Vec::new(),
            feeder,
            next_feed: now,
            next_look: now,
            active: Vec::new(),
            kinds,
        }
    }

    /// What was checked, and how often the job was restarted.
    fn run(&mut self) -> Result<(Checked, u64), Failure> {
        self.feeder.feed(BEFORE_AND_AFTER);
        let parallelism = self.plan.parallelism.to_string();
        let job = self.cluster.submit("chaos", &self.job.sql(), &["-p", &parallelism]);
        self.submitted.push(job.clone());
        self.await_rows()?;
        let menu = Menu {
            workers: self.plan.workers,
            kinds: self.kinds.clone(),
            parallelism: 1..=(2 * self.plan.workers as u32 - 2).max(1),
            freeze_ms: self.plan.freeze_ms.clone(),
            pause_ms: self.plan.pause_ms.clone(),
        };
        self.began = Instant::now();
        let mut last = self.began;
        for step in schedule(self.plan.seed, self.plan.faults, &menu) {
            while last.elapsed() < step.pause || !self.is_free(&step.fault) {
                self.tick()?;
            }
            last = Instant::now();
            self.begin(step, last)?;
        }
        self.outlast()?;
        if self.kinds.contains(&Kind::KillWorker) {
            // Most workers may have been idle when something happened to them. This one is missed.
            let busy = self.busy_worker()?;
            let step = Step { pause: Duration::ZERO, fault: Fault::KillWorker(busy), lasts: Duration::from_secs(1) };
            self.begin(step, Instant::now())?;
            self.outlast()?;
        }
        self.say("all faults have ended");
        self.finish()
    }

    fn outlast(&mut self) -> Result<(), Failure> {
        while !self.active.is_empty() {
            self.tick()?;
        }
        Ok(())
    }

    /// One that runs tasks of the job, once it runs.
    fn busy_worker(&mut self) -> Result<usize, Failure> {
        let limit = Instant::now() + STUCK_AFTER;
        loop {
            self.tick()?;
            let job = self.newest_job();
            let running = self.cluster.job(&job).is_some_and(|row| row["state"] == "RUNNING");
            match running.then(|| self.cluster.busy_worker(&job)).flatten() {
                Some(n) => return Ok(n),
                None if Instant::now() > limit => return Err(Failure::Job("the job runs nowhere".into())),
                None => {}
            }
        }
    }

    fn say(&mut self, what: &str) {
        let line = format!("EDGEFLOW_SEED={} {:8.3} s {what}", self.plan.seed, self.began.elapsed().as_secs_f64());
        println!("{line}");
        let _ = writeln!(self.log, "{line}");
    }

    fn broker(&mut self) -> &mut Broker {
        self.broker.as_mut().expect("only over Kafka are brokers broken")
    }

    fn newest_job(&self) -> String {
        self.submitted.last().expect("submitted before the first fault").clone()
    }

    fn is_hit(&self, target: Target) -> bool {
        self.active.iter().any(|active| active.fault.targets().contains(&target))
    }

    fn is_free(&self, fault: &Fault) -> bool {
        !fault.targets().into_iter().any(|target| self.is_hit(target))
    }

    /// A moment of the run.
    fn tick(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        if now >= self.next_feed {
            self.feeder.feed(1);
            self.next_feed = now + self.plan.feed_every;
        }
        let mut at = 0;
        while at < self.active.len() {
            let mut active = self.active.remove(at);
            if self.goes_on(&mut active, now)? {
                self.active.insert(at, active);
                at += 1;
            } else {
                self.say(&format!("  over: {}", active.fault));
            }
        }
        self.look(now)?;
        wait::nap(Duration::from_millis(10));
        Ok(())
    }

    /// Whatever ends by itself, or fails, is found at once.
    fn look(&mut self, now: Instant) -> Result<(), Failure> {
        for n in 0..self.plan.workers {
            let expected = !self.active.iter().any(|active| active.fault == Fault::KillWorker(n));
            if expected && !self.cluster.is_up(Who::Worker(n)) {
                return Err(Failure::Job(format!("worker {} ended by itself", n + 1)));
            }
        }
        let away = self.is_hit(Target::Coordinator);
        if !away && !self.cluster.is_up(Who::Coordinator) {
            return Err(Failure::Job("the coordinator ended by itself".into()));
        }
        if away || now < self.next_look {
            return Ok(());
        }
        self.next_look = now + LOOK_EVERY;
        match self.cluster.job(&self.newest_job()) {
            Some(row) if row["state"] == "FAILED" => Err(Failure::Job(format!("the job has failed: {row:#}"))),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, step: Step, now: Instant) -> Result<(), Failure> {
        let Step { fault, lasts, .. } = step;
        self.say(&format!("{fault} for {lasts:?}"));
        let job = self.newest_job();
        let doing = match fault {
            Fault::KillWorker(n) => {
                self.cluster.kill(Who::Worker(n));
                Doing::Until(now + lasts)
            }
            Fault::KillCoordinator => {
                self.cluster.kill(Who::Coordinator);
                Doing::Until(now + lasts)
            }
            Fault::FreezeWorker(n) => {
                self.cluster.freeze(Who::Worker(n));
                Doing::Until(now + lasts)
            }
            Fault::FreezeCoordinator => {
                self.cluster.freeze(Who::Coordinator);
                Doing::Until(now + lasts)
            }
            Fault::CutData(n, cut) => {
                apply(&self.cluster.links(n).data, cut);
                Doing::Until(now + lasts)
            }
            Fault::CutControl(n, cut) => {
                apply(&self.cluster.links(n).control, cut);
                Doing::Until(now + lasts)
            }
            Fault::StoreDown => {
                self.store.down();
                Doing::Until(now + lasts)
            }
            Fault::DiskFull(n) => {
                self.disks[n].fill();
                Doing::Until(now + lasts)
            }
            Fault::KillBroker => {
                self.broker().kill();
                Doing::Until(now + lasts)
            }
            Fault::FreezeBroker => {
                self.broker().freeze();
                Doing::Until(now + lasts)
            }
            Fault::Rescale(to) => Doing::Rescaling(Call::new(&["rescale", &job, "-p", &to.to_string()], now)),
            Fault::Upgrade(_) => Doing::Stopping(Call::new(&["stop", &job, "--savepoint", "--wait"], now)),
            Fault::Drain(n) => Doing::Draining(Call::new(&["drain", self.cluster.worker_id(n)], now), lasts),
        };
        self.active.push(Active { fault, doing });
        Ok(())
    }

    /// False: it is over.
    fn goes_on(&mut self, active: &mut Active, now: Instant) -> Result<bool, Failure> {
        let fault = active.fault;
        let call = match &mut active.doing {
            Doing::Until(end) if now < *end => return Ok(true),
            Doing::Until(_) => return self.end(active, now),
            Doing::Starting { limit, again } => return self.is_starting(*limit, again, now),
            Doing::Serving => return self.broker().serves().map(|serves| !serves).map_err(Failure::Job),
            Doing::Rescaling(call)
            | Doing::Stopping(call)
            | Doing::Submitting(call)
            | Doing::Draining(call, _)
            | Doing::Returning(call) => call,
        };
        let answer = match call.poll(&self.cluster, now).map_err(Failure::Job)? {
            Progress::Waiting => return Ok(true),
            Progress::TryFailed(done) => {
                self.say(&format!("  tried again: {fault}: {}", done.stderr.trim()));
                None
            }
            Progress::Succeeded(done) => Some(done.stdout),
        };
        match (&active.doing, answer) {
            (Doing::Rescaling(_), Some(_)) => Ok(false),
            (Doing::Rescaling(_), None) => Ok(!self.is_rescaled(fault)),
            (Doing::Stopping(_), _) => {
                // Also where the answer was lost; then the command goes on to fail until the savepoint is there.
                if let Some(savepoint) = self.savepoint_of_stopped() {
                    active.doing = Doing::Submitting(self.submission(fault, &savepoint, now));
                }
                Ok(true)
            }
            (Doing::Submitting(_), Some(answer)) => {
                let Some(job) = submitted_job(&answer) else {
                    return Err(Failure::Job(format!("no job in the answer to submit: {answer}")));
                };
                self.say(&format!("  submitted again as {job}"));
                self.submitted.push(job);
                Ok(false)
            }
            (Doing::Draining(_, lasts), Some(_)) => {
                active.doing = Doing::Until(now + *lasts);
                Ok(true)
            }
            (Doing::Returning(_), Some(_)) => Ok(false),
            (_, None) => Ok(true),
            (Doing::Until(_) | Doing::Starting { .. } | Doing::Serving, Some(_)) => unreachable!("it has no command"),
        }
    }

    fn end(&mut self, active: &mut Active, now: Instant) -> Result<bool, Failure> {
        match active.fault {
            Fault::KillWorker(n) => self.cluster.restart(Who::Worker(n)),
            Fault::KillCoordinator => {
                self.cluster.restart(Who::Coordinator);
                active.doing = Doing::Starting { limit: now + PATIENCE, again: now };
                return Ok(true);
            }
            Fault::FreezeWorker(n) => self.cluster.thaw(Who::Worker(n)),
            Fault::FreezeCoordinator => self.cluster.thaw(Who::Coordinator),
            Fault::CutData(n, _) => self.cluster.links(n).data.heal(),
            Fault::CutControl(n, _) => self.cluster.links(n).control.heal(),
            Fault::StoreDown => self.store.up(),
            Fault::DiskFull(n) => self.disks[n].free(),
            Fault::KillBroker => {
                self.broker().start();
                active.doing = Doing::Serving;
                return Ok(true);
            }
            Fault::FreezeBroker => self.broker().thaw(),
            Fault::Drain(n) => {
                active.doing = Doing::Returning(Call::new(&["uncordon", self.cluster.worker_id(n)], now));
                return Ok(true);
            }
            Fault::Rescale(_) | Fault::Upgrade(_) => {}
        }
        Ok(false)
    }

    /// The coordinator is not ready yet. One that ends at its start, because the store is away just then, is started
    /// again after a moment, as a service manager would.
    fn is_starting(&mut self, limit: Instant, again: &mut Instant, now: Instant) -> Result<bool, Failure> {
        if self.cluster.is_ready(Who::Coordinator) {
            return Ok(false);
        }
        if now >= limit {
            return Err(Failure::Job("the coordinator does not come back".into()));
        }
        if now >= *again && !self.cluster.is_up(Who::Coordinator) {
            self.say("  the coordinator ended at its start; again");
            self.cluster.restart(Who::Coordinator);
            *again = now + Duration::from_millis(500);
        }
        Ok(true)
    }

    /// The answer may have been lost.
    fn is_rescaled(&self, fault: Fault) -> bool {
        let Fault::Rescale(to) = fault else { return false };
        let known = !self.is_hit(Target::Coordinator);
        known && self.cluster.job(&self.newest_job()).is_some_and(|row| row["parallelism"] == to)
    }

    /// The job has finished, and its savepoint is complete.
    fn savepoint_of_stopped(&self) -> Option<String> {
        let job = self.newest_job();
        let finished = self.cluster.job_state(&job)? == "FINISHED";
        if finished { newest_savepoint(&self.cluster.savepoints(&job)?) } else { None }
    }

    fn submission(&mut self, fault: Fault, savepoint: &str, now: Instant) -> Call {
        let Fault::Upgrade(to) = fault else { unreachable!("only an upgrade submits") };
        self.say(&format!("  savepoint {savepoint}"));
        self.outputs.next_generation();
        let file = self.cluster.write_sql("chaos", &self.job.sql());
        Call::new(&["submit", &file, "--from-savepoint", savepoint, "-p", &to.to_string()], now)
    }

    /// Waits until all rows that were fed can be seen, or will not come any more: a job that completes one checkpoint after
    /// the other has lost them, and what it wrote shows that best.
    fn await_rows(&mut self) -> Result<(), Failure> {
        let mut seen = self.outputs.rows_visible();
        let mut since = Instant::now();
        let mut checkpoint = self.checkpoint();
        let lost_after = match &self.job.medium {
            Medium::Kafka(_) => LOST_AFTER_OVER_KAFKA,
            _ => LOST_AFTER,
        };
        while seen < self.feeder.fed.len() {
            self.look(Instant::now())?;
            wait::nap(Duration::from_millis(50));
            let now_seen = self.outputs.rows_visible();
            if now_seen > seen {
                (seen, since, checkpoint) = (now_seen, Instant::now(), self.checkpoint());
            } else if since.elapsed() > lost_after && self.checkpoint() > checkpoint + CHECKPOINTS_WITHOUT_ROWS {
                self.say(&format!("{seen} of {} rows came, and no more", self.feeder.fed.len()));
                return Ok(());
            } else if since.elapsed() > STUCK_AFTER {
                let row = self.cluster.job(&self.newest_job()).unwrap_or_default();
                let fed = self.feeder.fed.len();
                return Err(Failure::Job(format!(
                    "{seen} of {fed} rows came, and no more in {STUCK_AFTER:?}: {row:#}"
                )));
            }
        }
        Ok(())
    }

    fn checkpoint(&self) -> u64 {
        let row = wait::found(PATIENCE, || self.cluster.job(&self.newest_job())).unwrap_or_default();
        row["last_checkpoint"].as_u64().unwrap_or_default()
    }

    fn finish(&mut self) -> Result<(Checked, u64), Failure> {
        self.feeder.feed(BEFORE_AND_AFTER);
        self.await_rows()?;
        let job = self.newest_job();
        let before = self.checkpoint();
        let mut call = Call::new(&["stop", &job, "--drain", "--wait"], Instant::now());
        let finished = |driver: &Driver| driver.cluster.job_state(&job).as_deref() == Some("FINISHED");
        loop {
            match call.poll(&self.cluster, Instant::now()).map_err(Failure::Job)? {
                Progress::Waiting => wait::nap(Duration::from_millis(20)),
                Progress::TryFailed(_) if finished(self) => break,
                Progress::TryFailed(_) => {}
                Progress::Succeeded(_) => break,
            }
        }
        if !wait::until(PATIENCE, || finished(self)) {
            let row = self.cluster.job(&job).unwrap_or_default();
            return Err(Failure::Job(format!("the job was drained and has not finished: {row:#}")));
        }
        self.say("drained");
        let checked = self.outputs.check(self.plan.seed, &self.feeder.fed).map_err(Failure::Output)?;
        if let Medium::Kafka(topics) = &self.job.medium {
            let last = self.checkpoint();
            let mut findings = Findings::default();
            check_markers(topics, before, last, &mut findings);
            findings.verdict(self.plan.seed).map_err(Failure::Output)?;
        }
        self.check_stores()?;
        let jobs = wait::found(PATIENCE, || self.cluster.jobs()).unwrap_or_default();
        let ours = jobs.iter().filter(|row| self.submitted.iter().any(|job| row["id"] == *job));
        Ok((checked, ours.filter_map(|row| row["restarts"].as_u64()).sum()))
    }

    /// Collection goes on behind a job's end: it may take a moment until only what is needed is left.
    fn check_stores(&self) -> Result<(), Failure> {
        let mut wrong: BTreeMap<&str, Findings> = BTreeMap::new();
        let clean = wait::until(PATIENCE, || {
            wrong.clear();
            for job in &self.submitted {
                let mut findings = Findings::default();
                match self.cluster.checkpoints(job) {
                    Some(rows) => {
                        store::check(&self.cluster.job_files(job), &store::retained(&rows), &mut findings);
                    }
                    None => findings.add("checkpoints cannot be listed", job.clone()),
                }
                if !findings.is_empty() {
                    wrong.insert(job, findings);
                }
            }
            wrong.is_empty()
        });
        if clean {
            return Ok(());
        }
        let told = wrong.iter().map(|(job, findings)| {
            let text = findings.verdict(self.plan.seed).expect_err("only those with findings are kept");
            format!("store of job {job}: {text}\n")
        });
        Err(Failure::Output(told.collect()))
    }
}

fn apply(link: &Proxy, cut: Cut) {
    match cut {
        Cut::Reset => link.cut(),
        Cut::Silent => link.stall(),
        Cut::HalfOpen(direction) => link.silence(direction),
    }
}
