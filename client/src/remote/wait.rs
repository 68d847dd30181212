//! Waiting for something to become true in the cluster: look, pause, look again, until it is so or the limit is
//! reached. Polling outlives every connection and every change of leader, and costs one small call twice a second.

use super::{Client, PAUSE_MIN, longer};
use ef_proto::error::{Code, Error};
use ef_proto::wire::generated::control::{Job, JobRequest, Savepoint, SavepointRequest};
use std::ops::ControlFlow::{self, Break, Continue};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// How long a coordinator that has answered once may be away before waiting for it is given up.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Longer than anybody waits, and short enough to be added to a time.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// How a wait ended, with what was seen last.
#[derive(Clone, Debug, PartialEq)]
pub enum Waited<T> {
    Done(T),
    Limit(T),
}

/// Whether an error is one of the moment.
pub(super) fn passes(error: &Error) -> bool {
    matches!(error.code, Code::Unavailable | Code::NotLeader)
}

impl Client {
    /// Looks until `look` breaks with what it has found. At the limit the last thing seen is returned; an error only if
    /// the first look fails, or a coordinator stays away, or it answers with an error that does not pass.
    pub async fn until<T>(
        &self,
        limit: Option<Duration>,
        mut look: impl AsyncFnMut(&Client) -> Result<ControlFlow<T, T>, Error>,
    ) -> Result<Waited<T>, Error> {
        let deadline = Instant::now() + limit.unwrap_or(FOREVER).min(FOREVER);
        let mut last: Option<T> = None;
        let mut answered = Instant::now();
        let mut pause = PAUSE_MIN;
        loop {
            // The first look takes as long as it must, so that there is something to return.
            let found = match last {
                None => look(self).await,
                Some(last) => match timeout_at(deadline, look(self)).await {
                    Ok(Err(error)) if passes(&error) && answered.elapsed() < PATIENCE => Ok(Continue(last)),
                    Ok(found) => {
                        answered = Instant::now();
                        found
                    }
                    Err(_) => return Ok(Waited::Limit(last)),
                },
            };
            match found? {
                Break(done) => return Ok(Waited::Done(done)),
                Continue(seen) if Instant::now() >= deadline => return Ok(Waited::Limit(seen)),
                Continue(seen) => last = Some(seen),
            }
            sleep(pause.min(deadline.saturating_duration_since(Instant::now()))).await;
            pause = longer(pause);
        }
    }

    /// Until the job is in one of these states, or in one that it never leaves.
    pub async fn wait_for(&self, job: &str, states: &[&str], limit: Option<Duration>) -> Result<Waited<Job>, Error> {
        // A name stands for another job as soon as the one meant has ended.
        let mut id = job.to_string();
        self.until(limit, async |client| {
            let description = client.describe_job(JobRequest { job: id.clone() }).await?;
            let job =
                description.job.ok_or_else(|| Error::corrupt(format!("job `{id}` was described without itself")))?;
            id.clone_from(&job.id);
            let there = states.contains(&job.state.as_str()) || super::ENDED.contains(&job.state.as_str());
            Ok(if there { Break(job) } else { Continue(job) })
        })
        .await
    }

    /// Until the savepoint is complete, has failed or is gone.
    pub async fn wait_savepoint(&self, id: &str, limit: Option<Duration>) -> Result<Waited<Savepoint>, Error> {
        self.until(limit, async |client| {
            let savepoint = client.get_savepoint(SavepointRequest { savepoint: id.into() }).await?;
            Ok(if savepoint.state == "IN_PROGRESS" { Continue(savepoint) } else { Break(savepoint) })
        })
        .await
    }
}
