//! The registry of sources: from the plan's typed options to a running connector.

use super::filesystem::FilesystemSource;
use super::{Clock, Place, Source, datagen, nexmark};
use crate::error::Result;
use ef_proto::connector::SourceConnector;
use ef_proto::plan;

/// One subtask of a source. `restored`: the positions of all old subtasks; none at a fresh start. `clock`: for pacing
/// and for looking after new files; no value of a row depends on it but CURRENT times of generators.
pub fn source(source: &plan::Source, place: &Place, restored: &[Vec<u8>], clock: Clock) -> Result<Box<dyn Source>> {
    match &source.connector {
        SourceConnector::Filesystem(options) => {
            Ok(Box::new(FilesystemSource::new(source, options, place, restored, clock)?))
        }
        SourceConnector::Datagen(options) => datagen::source(options, &source.physical, place, restored, clock),
        #[cfg(feature = "mqtt")]
        SourceConnector::Mqtt(options) => {
            Ok(Box::new(super::mqtt::MqttSource::new(source, options, place, restored, clock)?))
        }
        #[cfg(not(feature = "mqtt"))]
        SourceConnector::Mqtt(_) => Err(crate::error::Error::invalid("this worker is built without the feature mqtt")),
        SourceConnector::Nexmark(options) => nexmark::source(options, &source.physical, place, restored, clock),
        #[cfg(feature = "kafka")]
        SourceConnector::Kafka(options) => super::kafka::source(source, options, place, restored, clock),
        #[cfg(not(feature = "kafka"))]
        SourceConnector::Kafka(_) => Err(crate::error::Error::invalid(format!(
            "table \"{}\": this build has no connector 'kafka'; use one with the feature `kafka`",
            source.table
        ))),
    }
}
