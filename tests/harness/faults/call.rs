//! An `efctl` command that is said again until it succeeds, without holding up who waits for it: the coordinator may be
//! away just then, and it is the driver that has to bring it back.

use crate::cluster::Cluster;
use crate::{Done, Running};
use std::time::{Duration, Instant};

/// A try that takes longer is given up; the next one may find the cluster in a better state.
const TRY_LIMIT: Duration = Duration::from_secs(60);
const BETWEEN_TRIES: Duration = Duration::from_millis(500);
/// Every fault ends long before; whatever still fails then is no consequence of one.
const LIMIT: Duration = Duration::from_secs(240);

pub struct Call {
    args: Vec<String>,
    running: Option<(Running, Instant)>,
    next_try: Instant,
    deadline: Instant,
    last: String,
}

/// What has become of it.
pub enum Progress {
    /// It runs, or will be tried again.
    Waiting,
    /// A try failed; the caller may see whether it has come about nevertheless.
    TryFailed(Done),
    Succeeded(Done),
}

impl Call {
    pub fn new(args: &[&str], now: Instant) -> Call {
        let args = args.iter().map(|arg| arg.to_string()).collect();
        Call { args, running: None, next_try: now, deadline: now + LIMIT, last: String::new() }
    }

    /// Err: it did not succeed in all the time there was.
    pub fn poll(&mut self, cluster: &Cluster, now: Instant) -> Result<Progress, String> {
        let Some((running, since)) = &mut self.running else {
            if now >= self.deadline {
                return Err(format!("efctl {} failed for {LIMIT:?}, at last: {}", self.args.join(" "), self.last));
            }
            if now >= self.next_try {
                let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
                self.running = Some((cluster.efctl_started(&args), now));
            }
            return Ok(Progress::Waiting);
        };
        if !running.ended() {
            if now - *since >= TRY_LIMIT {
                self.running = None;
                self.next_try = now + BETWEEN_TRIES;
                self.last = format!("no answer in {TRY_LIMIT:?}");
            }
            return Ok(Progress::Waiting);
        }
        let (running, _) = self.running.take().expect("it was there");
        let done = running.wait().map_err(|e| format!("efctl {}: {e:#}", self.args.join(" ")))?;
        if done.code == Some(0) {
            return Ok(Progress::Succeeded(done));
        }
        self.next_try = now + BETWEEN_TRIES;
        self.last = done.stderr.trim().to_string();
        Ok(Progress::TryFailed(done))
    }
}
