//! raft-rs logs through slog; this hands its lines to `tracing`, one level lower than raft means them: what matters to
//! a person (who leads, what failed) is said by our own driver.

use slog::{Drain, Key, Level, Logger, OwnedKVList, Record, Serializer};
use std::convert::Infallible;
use std::fmt::{self, Write};
use std::panic::RefUnwindSafe;

pub fn to_tracing() -> Logger {
    Logger::root(Bridge(emit), slog::o!())
}

fn emit(level: Level, line: &str) {
    match level {
        Level::Critical | Level::Error => tracing::error!(target: "raft", "{line}"),
        Level::Warning => tracing::warn!(target: "raft", "{line}"),
        Level::Info => tracing::debug!(target: "raft", "{line}"),
        Level::Debug | Level::Trace => tracing::trace!(target: "raft", "{line}"),
    }
}

struct Bridge<F>(F);

impl<F: Fn(Level, &str) + Send + Sync + RefUnwindSafe> Drain for Bridge<F> {
    type Ok = ();
    type Err = Infallible;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Infallible> {
        use slog::KV;
        let mut line = Line(record.msg().to_string());
        // Writing to a string does not fail, and a value that cannot be shown is no reason to lose the line.
        let _ = record.kv().serialize(record, &mut line);
        let _ = values.serialize(record, &mut line);
        (self.0)(record.level(), &line.0);
        Ok(())
    }
}

/// The message and then ` key=value` of each field.
struct Line(String);

impl Serializer for Line {
    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> slog::Result {
        write!(self.0, " {key}={value}").map_err(slog::Error::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn message_and_fields_come_through_with_their_level() {
        let lines: Arc<Mutex<Vec<(Level, String)>>> = Arc::default();
        let seen = lines.clone();
        let keep = move |level, line: &str| seen.lock().expect("not poisoned").push((level, line.to_string()));
        let logger = Logger::root(Bridge(keep), slog::o!("raft_id" => 1));
        slog::warn!(logger, "became {}", "leader"; "term" => 7);
        assert_eq!(
            *lines.lock().expect("not poisoned"),
            [(Level::Warning, "became leader term=7 raft_id=1".to_string())]
        );
    }
}
