//! The last log lines of this process, for the coordinator: warnings and errors always, information where it is of a
//! job. A tracing layer puts them in, the heartbeat takes them out.
//!
//! Bounded by lines and bytes: while nobody takes them the oldest go, and are counted.

use crate::clock::Clock;
use ef_proto::rpc::LogLine;
use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// A few minutes of a worker in trouble, and far less than a message may be.
const LINES_MAX: usize = 1_000;
const BYTES_MAX: usize = 256 << 10;
/// A longer message is cut.
const LINE_BYTES_MAX: usize = 4 << 10;

#[derive(Default)]
struct Buffer {
    lines: VecDeque<LogLine>,
    bytes: usize,
    lost: u64,
}

impl Buffer {
    fn push(&mut self, line: LogLine) {
        self.bytes += bytes(&line);
        self.lines.push_back(line);
        while self.lines.len() > LINES_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.bytes -= bytes(&oldest);
            self.lost += 1;
        }
    }
}

fn bytes(line: &LogLine) -> usize {
    line.message.len() + line.job.as_ref().map_or(0, String::len) + line.level.len() + size_of::<LogLine>()
}

/// A tracing layer; its clones share the lines.
#[derive(Clone)]
pub struct Logs {
    clock: Arc<Clock>,
    buffer: Arc<Mutex<Buffer>>,
}

impl Logs {
    pub fn new(clock: Arc<Clock>) -> Logs {
        Logs { clock, buffer: Arc::default() }
    }

    /// What has gathered since the last call, and how many lines were lost meanwhile. None: nothing.
    pub fn take(&self) -> Option<(Vec<LogLine>, u64)> {
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        let Buffer { lines, lost, .. } = std::mem::take(&mut *buffer);
        (lost > 0 || !lines.is_empty()).then(|| (lines.into(), lost))
    }
}

/// The job that a span is about.
struct JobOf(String);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Logs {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut text = Text::default();
        attributes.record(&mut text);
        if let (Some(job), Some(span)) = (text.job, context.span(id)) {
            span.extensions_mut().insert(JobOf(job));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let level = *event.metadata().level();
        if level > Level::INFO {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let of_span = || {
            let mut spans = context.event_scope(event)?;
            spans.find_map(|span| span.extensions().get::<JobOf>().map(|job| job.0.clone()))
        };
        let job = text.job.take().or_else(of_span);
        if level > Level::WARN && job.is_none() {
            return;
        }
        let line = LogLine { at_ms: self.clock.now_ms(), level: level.to_string(), job, message: text.finish() };
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

/// The message, then the other fields as `key=value`.
#[derive(Default)]
struct Text {
    job: Option<String>,
    message: String,
    fields: String,
}

impl Text {
    fn finish(self) -> String {
        let mut text = self.message + &self.fields;
        if text.len() > LINE_BYTES_MAX {
            text.truncate(text.floor_char_boundary(LINE_BYTES_MAX));
            text.push('…');
        }
        text
    }
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "job" => self.job = Some(value.to_string()),
            _ => self.record_debug(field, &format_args!("{value}")),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "job" => {
                self.job = Some(format!("{value:?}"));
                Ok(())
            }
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::prelude::*;

    fn logged(say: impl FnOnce()) -> (Vec<LogLine>, u64) {
        let logs = Logs::new(Arc::new(Clock::new()));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(logs.clone()), say);
        let taken = logs.take().unwrap_or_default();
        assert_eq!(logs.take(), None, "taken once");
        taken
    }

    #[test]
    fn lines_of_a_job_carry_its_name_and_others_are_kept_if_they_warn() {
        let (lines, lost) = logged(|| {
            tracing::info!("of nobody");
            tracing::warn!(code = 7, "of the worker");
            tracing::debug!(job = "a", "too fine");
            tracing::info!(job = "a", "said");
            let span = tracing::info_span!("deployment", job = %"b");
            span.in_scope(|| tracing::info_span!("below").in_scope(|| tracing::error!(why = "text", "in the span")));
        });
        let lines: Vec<_> =
            lines.iter().map(|line| (line.level.as_str(), line.job.as_deref(), line.message.as_str())).collect();
        let expected = [
            ("WARN", None, "of the worker code=7"),
            ("INFO", Some("a"), "said"),
            ("ERROR", Some("b"), "in the span why=text"),
        ];
        assert_eq!((lines, lost), (expected.to_vec(), 0));
    }

    #[test]
    fn oldest_lines_go_and_are_counted() {
        let (lines, lost) = logged(|| (0..LINES_MAX + 5).for_each(|n| tracing::warn!("{n}")));
        assert_eq!((lines.len(), lost), (LINES_MAX, 5));
        assert_eq!(lines[0].message, "5");
        let long = "é".repeat(LINE_BYTES_MAX);
        let (lines, lost) = logged(|| (0..LINES_MAX).for_each(|_| tracing::warn!("{long}")));
        assert!(lines.iter().map(bytes).sum::<usize>() <= BYTES_MAX);
        assert_eq!(lines.len() as u64 + lost, LINES_MAX as u64);
        assert!(lines.iter().all(|line| line.message.len() <= LINE_BYTES_MAX + '…'.len_utf8()));
    }
}
