//! The registry of sinks.

use super::blackhole::Blackhole;
use super::filesystem::sink::FileSink;
#[cfg(feature = "http")]
use super::http::HttpSink;
use super::not_null::{Enforcer, enforced};
use super::print::Print;
#[cfg(feature = "redis")]
use super::redis::RedisSink;
use super::stdout::{Stdout, Terminal};
use super::{Place, Sink, SinkRestore};
use crate::config::Bugs;
use crate::error::{Code, Error, Result};
use ef_proto::connector::SinkConnector;
use ef_proto::plan;
use ef_proto::schema::Schema;

/// Opens one subtask of a sink. `schema` without `_op`. `enforcer`: of NOT NULL columns. `bugs` are the negative
/// controls of the exactly-once tests.
pub fn sink(
    spec: &plan::Sink,
    schema: &Schema,
    place: &Place,
    restore: SinkRestore<'_>,
    enforcer: Enforcer,
    bugs: &Bugs,
) -> Result<Box<dyn Sink>> {
    let sink: Box<dyn Sink> = match &spec.connector {
        SinkConnector::Filesystem(options) => {
            let format = spec
                .format
                .as_ref()
                .ok_or_else(|| Error::new(Code::Internal, format!("the plan's sink `{}` has no format", spec.table)))?;
            let SinkRestore { blobs, permit, .. } = restore;
            let permit = permit.as_ref();
            Box::new(FileSink::open(options, format, schema, spec.changelog, place, blobs, permit, bugs.commit_early)?)
        }
        SinkConnector::Print { prefix } => {
            Box::new(Print::new(Terminal::stdout(), prefix.as_deref(), schema, spec.changelog, place))
        }
        // Columns of a query that nobody declared.
        SinkConnector::Stdout => return Ok(Box::new(Stdout::new(schema, spec.changelog))),
        SinkConnector::Blackhole => Box::new(Blackhole),
        #[cfg(feature = "kafka")]
        SinkConnector::Kafka(options) => {
            super::kafka::sink(options, schema, spec.changelog, place, restore, bugs.commit_early, bugs.kafka)?
        }
        #[cfg(not(feature = "kafka"))]
        SinkConnector::Kafka(_) => {
            let what = "this build has no connector 'kafka'; use one with the feature `kafka`";
            return Err(crate::error::Error::invalid(format!("table \"{}\": {what}", spec.table)));
        }
        #[cfg(feature = "redis")]
        SinkConnector::Redis(options) => Box::new(RedisSink::open(options, spec, schema, place, restore.blobs)?),
        #[cfg(feature = "http")]
        SinkConnector::Http(options) => {
            Box::new(HttpSink::open(options, spec, schema, place, restore.permit.as_ref())?)
        }
        #[cfg(not(all(feature = "redis", feature = "http")))]
        SinkConnector::Redis(_) | SinkConnector::Http(_) => {
            let what = format!("table `{}`: this build of the worker was made without its connector", spec.table);
            return Err(Error::invalid(what));
        }
        #[cfg(feature = "mqtt")]
        SinkConnector::Mqtt(options) => {
            let format = spec.format.as_ref().ok_or_else(|| Error::invalid("an mqtt sink needs a 'format'"))?;
            Box::new(super::mqtt::MqttSink::open(options, format, schema, spec.changelog, place)?)
        }
        #[cfg(not(feature = "mqtt"))]
        SinkConnector::Mqtt(_) => return Err(Error::invalid("this worker is built without the feature mqtt")),
    };
    Ok(enforced(sink, &spec.table, schema, enforcer))
}
