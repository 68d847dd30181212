//! From the plan's typed options to a running connector.

use super::filesystem::FilesystemSource;
use super::{Place, Source};
use crate::error::{Error, Result};
use ef_proto::connector::SourceConnector;
use ef_proto::plan;

/// A source's subtask. `restored`: the positions of all old subtasks; none at a fresh start.
pub fn source(source: &plan::Source, place: &Place, restored: &[Vec<u8>]) -> Result<Box<dyn Source>> {
    match &source.connector {
        SourceConnector::Filesystem(options) => {
            // The source measures its scans in elapsed milliseconds; nothing it delivers depends on them.
            #[allow(clippy::disallowed_methods)]
            let started = std::time::Instant::now();
            let clock = Box::new(move || started.elapsed().as_millis() as i64);
            Ok(Box::new(FilesystemSource::new(source, options, place, restored, clock)?))
        }
        other => Err(Error::invalid(format!("table \"{}\": this build has no source for {other:?}", source.table))),
    }
}
