//! The thread that writes the log: one chunk, one fsync, one report. While it syncs, the next chunk fills.

use super::log::disk::Disk;
use super::log::record::Head;
use super::log::{Appended, Log};
use super::shared::{Counters, Held, Shared};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use tokio::sync::mpsc::Sender;

pub enum Work {
    /// Sealed, with the QoS 2 packet ids that are outstanding behind it.
    Chunk(Vec<u8>, BTreeSet<u16>),
    /// The floor has risen.
    Trim,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Report {
    /// All records below are durable.
    Durable(u64),
    /// The log is at this number again: what came behind it is lost, and with it what it did to packet ids.
    Lost { next: u64, outstanding: BTreeSet<u16> },
}

/// Until the other side hangs up. `name`: of the slot, for log lines.
pub fn run<D: Disk>(
    name: &str,
    mut log: Log<D>,
    work: &Receiver<Work>,
    reports: &Sender<Report>,
    shared: &Arc<Shared>,
) {
    let mut broken = false;
    while let Ok(work) = work.recv() {
        trim(name, &mut log, shared);
        let Work::Chunk(chunk, outstanding) = work else { continue };
        let mut told = false;
        loop {
            let floor = shared.floor();
            match log.append(&chunk, &outstanding) {
                Appended::Durable(end) => {
                    Counters::add(&shared.counters.syncs, 1);
                    if std::mem::take(&mut broken) {
                        tracing::warn!("{name}: the ingest log can be written again");
                    }
                    let first = Head::read(&chunk).map_or(end, |head| head.first);
                    shared.publish(Held { first, end, bytes: Arc::new(chunk) }, true);
                    if reports.blocking_send(Report::Durable(end)).is_err() {
                        return;
                    }
                    break;
                }
                Appended::Full => {
                    if !std::mem::replace(&mut told, true) {
                        Counters::add(&shared.counters.log_full, 1);
                        tracing::warn!(
                            "{name}: the ingest log has reached 'ingest.log.max-size'; nothing is acknowledged until a \
                             checkpoint has covered its oldest messages"
                        );
                    }
                    shared.wait_for_room(floor);
                    if shared.is_stopped() {
                        return;
                    }
                    trim(name, &mut log, shared);
                }
                Appended::Failed(next, error) => {
                    Counters::add(&shared.counters.log_failures, 1);
                    tracing::error!("{name}: cannot write the ingest log: {error}; nothing is acknowledged");
                    broken = true;
                    let outstanding = log.outstanding().clone();
                    if reports.blocking_send(Report::Lost { next, outstanding }).is_err() {
                        return;
                    }
                    break;
                }
            }
        }
    }
}

fn trim<D: Disk>(name: &str, log: &mut Log<D>, shared: &Shared) {
    if let Err(error) = log.floor(shared.floor()) {
        tracing::warn!("{name}: cannot delete a file of the ingest log that is not needed any more: {error}");
    }
}
