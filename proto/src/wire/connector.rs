//! Options of connectors and formats.

use super::enumeration::{Enumeration, enumeration, known};
use super::fault::{Fault, chosen, list, narrow, narrow_option, required};
use super::generated::plan as wire;
use super::generated::plan::{datagen_field, format, sink_connector, source_connector};
use crate::connector::{
    Compression, Csv, Datagen, DatagenField, FilesystemSink, FilesystemSource, Format, Json, Nexmark, NexmarkTable,
    OnError, SinkConnector, SourceConnector, TimestampFormat,
};

enumeration!(Compression: Auto, None, Gzip, Zstd);
enumeration!(NexmarkTable: Person, Auction, Bid);
enumeration!(OnError: Fail, Skip, Null);
enumeration!(TimestampFormat: Sql, Iso8601);

impl From<&SourceConnector> for wire::SourceConnector {
    fn from(connector: &SourceConnector) -> wire::SourceConnector {
        use source_connector::Kind;
        let kind = match connector {
            SourceConnector::Filesystem(filesystem) => Kind::Filesystem(filesystem.into()),
            SourceConnector::Datagen(datagen) => Kind::Datagen(datagen.into()),
            SourceConnector::Nexmark(nexmark) => Kind::Nexmark(nexmark.into()),
            SourceConnector::Kafka(kafka) => Kind::Kafka(kafka.into()),
            SourceConnector::Mqtt(mqtt) => Kind::Mqtt(mqtt.into()),
        };
        wire::SourceConnector { kind: Some(kind) }
    }
}

impl TryFrom<wire::SourceConnector> for SourceConnector {
    type Error = Fault;

    fn try_from(connector: wire::SourceConnector) -> Result<SourceConnector, Fault> {
        use source_connector::Kind;
        Ok(match chosen(connector.kind, "kind", "filesystem, datagen, nexmark, kafka, mqtt")? {
            Kind::Filesystem(filesystem) => SourceConnector::Filesystem(required(Some(filesystem), "filesystem")?),
            Kind::Datagen(datagen) => SourceConnector::Datagen(required(Some(datagen), "datagen")?),
            Kind::Nexmark(nexmark) => SourceConnector::Nexmark(required(Some(nexmark), "nexmark")?),
            Kind::Kafka(kafka) => SourceConnector::Kafka(required(Some(kafka), "kafka")?),
            Kind::Mqtt(mqtt) => SourceConnector::Mqtt(required(Some(mqtt), "mqtt")?),
        })
    }
}

impl From<&SinkConnector> for wire::SinkConnector {
    fn from(connector: &SinkConnector) -> wire::SinkConnector {
        use sink_connector::Kind;
        let kind = match connector {
            SinkConnector::Filesystem(filesystem) => Kind::Filesystem(filesystem.into()),
            SinkConnector::Print { prefix } => Kind::Print(wire::Print { prefix: prefix.clone() }),
            SinkConnector::Stdout => Kind::Stdout(wire::Nothing {}),
            SinkConnector::Blackhole => Kind::Blackhole(wire::Nothing {}),
            SinkConnector::Kafka(kafka) => Kind::Kafka(kafka.as_ref().into()),
            SinkConnector::Redis(redis) => Kind::Redis(redis.into()),
            SinkConnector::Http(http) => Kind::Http(http.into()),
            SinkConnector::Mqtt(mqtt) => Kind::Mqtt(mqtt.into()),
        };
        wire::SinkConnector { kind: Some(kind) }
    }
}

impl TryFrom<wire::SinkConnector> for SinkConnector {
    type Error = Fault;

    fn try_from(connector: wire::SinkConnector) -> Result<SinkConnector, Fault> {
        use sink_connector::Kind;
        Ok(match chosen(connector.kind, "kind", "filesystem, print, stdout, blackhole, kafka, redis, http, mqtt")? {
            Kind::Filesystem(filesystem) => SinkConnector::Filesystem(required(Some(filesystem), "filesystem")?),
            Kind::Print(print) => SinkConnector::Print { prefix: print.prefix },
            Kind::Stdout(_) => SinkConnector::Stdout,
            Kind::Blackhole(_) => SinkConnector::Blackhole,
            Kind::Kafka(kafka) => SinkConnector::Kafka(Box::new(required(Some(kafka), "kafka")?)),
            Kind::Redis(redis) => SinkConnector::Redis(required(Some(redis), "redis")?),
            Kind::Http(http) => SinkConnector::Http(required(Some(http), "http")?),
            Kind::Mqtt(mqtt) => SinkConnector::Mqtt(required(Some(mqtt), "mqtt")?),
        })
    }
}

impl From<&FilesystemSource> for wire::FilesystemSource {
    fn from(source: &FilesystemSource) -> wire::FilesystemSource {
        let FilesystemSource { path, monitor_interval_ms, compression, split_bytes } = source;
        wire::FilesystemSource {
            path: path.clone(),
            monitor_interval_ms: *monitor_interval_ms,
            compression: compression.number(),
            split_bytes: *split_bytes,
        }
    }
}

impl TryFrom<wire::FilesystemSource> for FilesystemSource {
    type Error = Fault;

    fn try_from(source: wire::FilesystemSource) -> Result<FilesystemSource, Fault> {
        Ok(FilesystemSource {
            path: source.path,
            monitor_interval_ms: source.monitor_interval_ms,
            compression: known(source.compression, "compression")?,
            split_bytes: source.split_bytes,
        })
    }
}

impl From<&FilesystemSink> for wire::FilesystemSink {
    fn from(sink: &FilesystemSink) -> wire::FilesystemSink {
        let FilesystemSink { path, rolling_bytes, rolling_interval_ms, compression } = sink;
        wire::FilesystemSink {
            path: path.clone(),
            rolling_bytes: *rolling_bytes,
            rolling_interval_ms: *rolling_interval_ms,
            compression: compression.number(),
        }
    }
}

impl TryFrom<wire::FilesystemSink> for FilesystemSink {
    type Error = Fault;

    fn try_from(sink: wire::FilesystemSink) -> Result<FilesystemSink, Fault> {
        Ok(FilesystemSink {
            path: sink.path,
            rolling_bytes: sink.rolling_bytes,
            rolling_interval_ms: sink.rolling_interval_ms,
            compression: known(sink.compression, "compression")?,
        })
    }
}

impl From<&Datagen> for wire::Datagen {
    fn from(datagen: &Datagen) -> wire::Datagen {
        let Datagen { rows_per_second, number_of_rows, seed, fields } = datagen;
        wire::Datagen {
            rows_per_second: *rows_per_second,
            number_of_rows: *number_of_rows,
            seed: *seed,
            fields: fields.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::Datagen> for Datagen {
    type Error = Fault;

    fn try_from(datagen: wire::Datagen) -> Result<Datagen, Fault> {
        Ok(Datagen {
            rows_per_second: datagen.rows_per_second,
            number_of_rows: datagen.number_of_rows,
            seed: datagen.seed,
            fields: list(datagen.fields, "fields")?,
        })
    }
}

impl From<&DatagenField> for wire::DatagenField {
    fn from(field: &DatagenField) -> wire::DatagenField {
        use datagen_field::Kind;
        let kind = match *field {
            DatagenField::Integer { min, max, distinct, null_rate } => {
                Kind::Integer(wire::IntegerField { min, max, distinct, null_rate })
            }
            DatagenField::Float { min, max, distinct, null_rate } => {
                Kind::Float(wire::FloatField { min, max, distinct, null_rate })
            }
            DatagenField::Text { length, distinct, null_rate } => {
                Kind::Text(wire::TextField { length, distinct, null_rate })
            }
            DatagenField::Past { max_past_ms, null_rate } => Kind::Past(wire::PastField { max_past_ms, null_rate }),
            DatagenField::Any { length, null_rate } => Kind::Any(wire::AnyField { length, null_rate }),
            DatagenField::Sequence { start, end } => Kind::Sequence(wire::SequenceField { start, end }),
            DatagenField::EventTime { start_ms, step_us, disorder_ms } => {
                Kind::EventTime(wire::EventTimeField { start_ms, step_us, disorder_ms })
            }
        };
        wire::DatagenField { kind: Some(kind) }
    }
}

impl TryFrom<wire::DatagenField> for DatagenField {
    type Error = Fault;

    fn try_from(field: wire::DatagenField) -> Result<DatagenField, Fault> {
        use datagen_field::Kind;
        Ok(match chosen(field.kind, "kind", "integer, float, text, past, any, sequence, event_time")? {
            Kind::Integer(wire::IntegerField { min, max, distinct, null_rate }) => {
                DatagenField::Integer { min, max, distinct, null_rate }
            }
            Kind::Float(wire::FloatField { min, max, distinct, null_rate }) => {
                DatagenField::Float { min, max, distinct, null_rate }
            }
            Kind::Text(wire::TextField { length, distinct, null_rate }) => {
                DatagenField::Text { length, distinct, null_rate }
            }
            Kind::Past(wire::PastField { max_past_ms, null_rate }) => DatagenField::Past { max_past_ms, null_rate },
            Kind::Any(wire::AnyField { length, null_rate }) => DatagenField::Any { length, null_rate },
            Kind::Sequence(wire::SequenceField { start, end }) => DatagenField::Sequence { start, end },
            Kind::EventTime(wire::EventTimeField { start_ms, step_us, disorder_ms }) => {
                DatagenField::EventTime { start_ms, step_us, disorder_ms }
            }
        })
    }
}

impl From<&Nexmark> for wire::Nexmark {
    fn from(nexmark: &Nexmark) -> wire::Nexmark {
        let Nexmark { table, events, event_rate, rows_per_second, seed, base_time_ms, disorder_ms } = nexmark;
        wire::Nexmark {
            table: table.map(Enumeration::number),
            events: *events,
            event_rate: *event_rate,
            rows_per_second: *rows_per_second,
            seed: *seed,
            base_time_ms: *base_time_ms,
            disorder_ms: *disorder_ms,
        }
    }
}

impl TryFrom<wire::Nexmark> for Nexmark {
    type Error = Fault;

    fn try_from(nexmark: wire::Nexmark) -> Result<Nexmark, Fault> {
        Ok(Nexmark {
            table: nexmark.table.map(|table| known(table, "table")).transpose()?,
            events: nexmark.events,
            event_rate: nexmark.event_rate,
            rows_per_second: nexmark.rows_per_second,
            seed: nexmark.seed,
            base_time_ms: nexmark.base_time_ms,
            disorder_ms: nexmark.disorder_ms,
        })
    }
}

impl From<&Format> for wire::Format {
    fn from(format: &Format) -> wire::Format {
        use format::Kind;
        let kind = match format {
            Format::Json(json) => Kind::Json(json.into()),
            Format::Csv(csv) => Kind::Csv(csv.into()),
            Format::ChangelogJson(json) => Kind::ChangelogJson(json.into()),
            Format::Raw(raw) => Kind::Raw(raw.into()),
            Format::DebeziumJson(debezium) => Kind::DebeziumJson(debezium.into()),
            Format::Protobuf(protobuf) => Kind::Protobuf(protobuf.into()),
            Format::Avro(avro) => Kind::Avro(avro.into()),
            Format::AvroConfluent(confluent) => Kind::AvroConfluent(confluent.into()),
        };
        wire::Format { kind: Some(kind) }
    }
}

impl TryFrom<wire::Format> for Format {
    type Error = Fault;

    fn try_from(format: wire::Format) -> Result<Format, Fault> {
        use format::Kind;
        const KNOWN: &str = "json, csv, changelog_json, raw, debezium_json, protobuf, avro, avro_confluent";
        Ok(match chosen(format.kind, "kind", KNOWN)? {
            Kind::Json(json) => Format::Json(required(Some(json), "json")?),
            Kind::Csv(csv) => Format::Csv(required(Some(csv), "csv")?),
            Kind::ChangelogJson(json) => Format::ChangelogJson(required(Some(json), "changelog_json")?),
            Kind::Raw(raw) => Format::Raw(required(Some(raw), "raw")?),
            Kind::DebeziumJson(debezium) => Format::DebeziumJson(required(Some(debezium), "debezium_json")?),
            Kind::Protobuf(protobuf) => Format::Protobuf(required(Some(protobuf), "protobuf")?),
            Kind::Avro(avro) => Format::Avro(required(Some(avro), "avro")?),
            Kind::AvroConfluent(confluent) => Format::AvroConfluent(required(Some(confluent), "avro_confluent")?),
        })
    }
}

impl From<&Json> for wire::Json {
    fn from(json: &Json) -> wire::Json {
        let Json { on_error, timestamps } = json;
        wire::Json { on_error: on_error.number(), timestamps: timestamps.number() }
    }
}

impl TryFrom<wire::Json> for Json {
    type Error = Fault;

    fn try_from(json: wire::Json) -> Result<Json, Fault> {
        Ok(Json { on_error: known(json.on_error, "on_error")?, timestamps: known(json.timestamps, "timestamps")? })
    }
}

impl From<&Csv> for wire::Csv {
    fn from(csv: &Csv) -> wire::Csv {
        let Csv { on_error, delimiter, quote, escape, null_literal, comments, header } = csv;
        wire::Csv {
            on_error: on_error.number(),
            delimiter: (*delimiter).into(),
            quote: quote.map(Into::into),
            escape: escape.map(Into::into),
            null_literal: null_literal.clone(),
            comments: *comments,
            header: *header,
        }
    }
}

impl TryFrom<wire::Csv> for Csv {
    type Error = Fault;

    fn try_from(csv: wire::Csv) -> Result<Csv, Fault> {
        Ok(Csv {
            on_error: known(csv.on_error, "on_error")?,
            delimiter: narrow(csv.delimiter, "delimiter")?,
            quote: narrow_option(csv.quote, "quote")?,
            escape: narrow_option(csv.escape, "escape")?,
            null_literal: csv.null_literal,
            comments: csv.comments,
            header: csv.header,
        })
    }
}
