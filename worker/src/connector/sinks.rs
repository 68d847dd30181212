//! The registry of sinks.

use super::blackhole::Blackhole;
use super::filesystem::sink::FileSink;
use super::not_null::{Enforcer, enforced};
use super::print::Print;
use super::stdout::{Stdout, Terminal};
use super::{CommitPermit, Place, Sink};
use crate::error::{Code, Error, Result};
use ef_proto::connector::SinkConnector;
use ef_proto::plan;
use ef_proto::schema::Schema;

/// Opens one subtask of a sink. `schema` without `_op`. `restored`: the blobs of all old subtasks of the checkpoint
/// that `permit` is for; a fresh start has neither. `enforcer`: of NOT NULL columns. `commit_early` is the negative control of the exactly-once tests.
pub fn sink(
    spec: &plan::Sink,
    schema: &Schema,
    place: &Place,
    restored: &[Vec<u8>],
    permit: Option<&CommitPermit>,
    enforcer: Enforcer,
    commit_early: bool,
) -> Result<Box<dyn Sink>> {
    let sink: Box<dyn Sink> = match &spec.connector {
        SinkConnector::Filesystem(options) => {
            let format = spec
                .format
                .as_ref()
                .ok_or_else(|| Error::new(Code::Internal, format!("the plan's sink `{}` has no format", spec.table)))?;
            let sink = FileSink::open(options, format, schema, spec.changelog, place, restored, permit, commit_early)?;
            Box::new(sink)
        }
        SinkConnector::Print { prefix } => {
            Box::new(Print::new(Terminal::stdout(), prefix.as_deref(), schema, spec.changelog, place))
        }
        // Columns of a query that nobody declared.
        SinkConnector::Stdout => return Ok(Box::new(Stdout::new(schema, spec.changelog))),
        SinkConnector::Blackhole => Box::new(Blackhole),
    };
    Ok(enforced(sink, &spec.table, schema, enforcer))
}
