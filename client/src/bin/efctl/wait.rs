//! `--wait[=LIMIT]`, which many commands have: following a job to its end, and what that end means.

use super::exit::Exit;
use super::session::Session;
use ef_client::remote::{ENDED, Follow, Waited};
use ef_client::show::{describe, human, views};
use ef_proto::connector::parse_duration_ms;
use ef_proto::wire::generated::control::{Job, JobEvent, WatchEventsRequest};
use std::fmt::Display;
use std::pin::pin;
use std::time::Duration;

/// How long to wait for the last events of a job that has ended.
const LAST_EVENTS: Duration = Duration::from_secs(1);

#[derive(clap::Args, Clone, Copy, Default)]
pub struct Wait {
    /// Wait until it is done, at most for LIMIT, as in 30s or 5min
    #[arg(long, value_name = "LIMIT", num_args = 0..=1, require_equals = true, value_parser = limit)]
    wait: Option<Option<Duration>>,
}

fn limit(text: &str) -> Result<Duration, String> {
    // A plain number would be milliseconds, which nobody who types it means.
    let has_unit = text.contains(|c: char| c.is_ascii_alphabetic());
    let limit = parse_duration_ms(text).filter(|_| has_unit).map(Duration::from_millis);
    limit.ok_or_else(|| "a duration with its unit, such as 30s or 5min, is accepted".to_string())
}

impl Wait {
    pub fn is_wanted(self) -> bool {
        self.wait.is_some()
    }

    /// None: as long as it takes.
    pub fn limit(self) -> Option<Duration> {
        self.wait.flatten()
    }
}

/// What was waited for, or exit code 4 with what it is doing instead.
pub fn reached<T>(waited: Waited<T>, wait: Wait, goes_on: impl FnOnce(&T) -> String) -> Result<T, Exit> {
    match waited {
        Waited::Done(done) => Ok(done),
        Waited::Limit(last) => {
            let limit = wait.limit().unwrap_or_default().as_millis() as u64;
            Err(Exit::GoesOn(format!("{} after {}", goes_on(&last), human::duration(limit))))
        }
    }
}

/// A stream of a job's events that passes over those so far: whoever stops a job of last year does not want its history.
pub async fn events_to_come(session: &Session, job: &str) -> Result<Follow<JobEvent>, Exit> {
    let mut events = session.client.watch_events(job, false);
    while events.next().await?.is_some() {}
    Ok(events)
}

/// Tells the job's events on stderr until it has ended. `events` may have been opened by the job's name.
pub async fn job_end(session: &mut Session, job: &str, wait: Wait, events: Follow<JobEvent>) -> Result<Job, Exit> {
    let client = session.client.clone();
    let interrupt = session.interrupt.clone();
    let mut interrupted = pin!(interrupt.happens());
    let mut ended = pin!(client.wait_for(job, &ENDED, wait.limit()));
    let mut events = Some(events.go_on_with(WatchEventsRequest { job: job.into(), follow: true }));
    let waited = loop {
        tokio::select! {
            waited = &mut ended => break waited?,
            Some(event) = next(&mut events) => session.tell(describe::event(&event)),
            () = &mut interrupted => {
                session.tell(format_args!("\njob {job} goes on; `efctl stop {job}` or `efctl cancel {job}` ends it"));
                return Err(Exit::Interrupted);
            }
        }
    };
    let job = reached(waited, wait, |job| format!("job {} is {}", named(job), job.state))?;
    // The last events say why; their stream ends with the job.
    let rest = async {
        while let Some(event) = next(&mut events).await {
            session.tell(describe::event(&event));
        }
    };
    let _ = tokio::time::timeout(LAST_EVENTS, rest).await;
    Ok(job)
}

/// None at the end of the stream. Events are a help while waiting: a stream that fails is over.
async fn next(events: &mut Option<Follow<JobEvent>>) -> Option<JobEvent> {
    let event = events.as_mut()?.next().await.ok().flatten();
    if event.is_none() {
        *events = None;
    }
    event
}

/// `ID (NAME)`.
pub fn named(job: &Job) -> String {
    format!("{} ({})", job.id, job.name)
}

/// ` (dry run)`, as kubectl says it, behind what would have been done.
pub fn dry(dry_run: bool) -> impl Display {
    if dry_run { " (dry run)" } else { "" }
}

/// The job has ended, and this is not how it should have.
pub fn not_as_wanted(job: &Job) -> Exit {
    let verb = match job.state.as_str() {
        "FAILED" => "failed",
        "CANCELLED" => "was cancelled",
        _ => "has finished",
    };
    match views::why(job) {
        "" => Exit::Failed(format!("job {} {verb}", named(job))),
        why => Exit::Failed(format!("job {} {verb}: {why}", named(job))),
    }
}
