//! `efctl logs JOB`: the log lines that the coordinator has kept of a job's workers, and those to come.

use super::exit::Exit;
use super::session::Session;
use ef_client::show::human::timestamp;
use ef_proto::wire::generated::control::{LogLine, LogsRequest};
use std::collections::VecDeque;

#[derive(clap::Args)]
pub struct Args {
    /// Id or name
    job: String,
    /// Only of this worker
    #[arg(long)]
    worker: Option<String>,
    /// Go on with the lines to come, until the job has ended
    #[arg(short, long)]
    follow: bool,
    /// Of the lines so far only the last N
    #[arg(long, value_name = "N")]
    tail: Option<usize>,
}

pub async fn run(args: Args, session: &mut Session) -> Result<(), Exit> {
    let Args { job, worker, follow, tail } = args;
    let worker = worker.unwrap_or_default();
    let mut lines = session.client.logs(&job, &worker, follow && tail.is_none());
    if let Some(tail) = tail {
        // Which of a stream's lines are old cannot be told, so the old ones are asked for first, by themselves.
        let mut last = VecDeque::new();
        while let Some(line) = lines.next().await? {
            last.push_back(line);
            if last.len() > tail {
                last.pop_front();
            }
        }
        for line in last {
            session.line(shown(&line))?;
        }
        if !follow {
            return Ok(());
        }
        lines = lines.go_on_with(LogsRequest { job, worker, follow });
    }
    while let Some(line) = lines.next().await? {
        session.line(shown(&line))?;
    }
    Ok(())
}

fn shown(line: &LogLine) -> String {
    // A message of several lines stays as it is: stack traces are meant to be read.
    let LogLine { at_ms, worker, level, message } = line;
    format!("{}  {worker}  {level:<5}  {}", timestamp(*at_ms), message.trim_end())
}
