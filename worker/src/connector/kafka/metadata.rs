//! METADATA columns: what a record carries besides its value, one value a row.

use super::queue::{Record, TimestampType};
use crate::error::{Error, Result};
use crate::format::{Column, Values};
use arrow_array::ArrayRef;
use ef_proto::connector::kafka_source::METADATA;
use ef_proto::connector::metadata_refused;
use ef_proto::schema::Field;

#[derive(Clone, Copy, Debug)]
enum Kind {
    Topic,
    Partition,
    Offset,
    Timestamp,
    TimestampType,
    Headers,
    LeaderEpoch,
    Key,
}

pub struct Metadata {
    kind: Kind,
    column: Column,
}

impl Metadata {
    pub fn new(key: &str, field: &Field) -> Result<Metadata> {
        let kind = match key {
            "topic" => Kind::Topic,
            "partition" => Kind::Partition,
            "offset" => Kind::Offset,
            "timestamp" => Kind::Timestamp,
            "timestamp-type" => Kind::TimestampType,
            "headers" => Kind::Headers,
            "leader-epoch" => Kind::LeaderEpoch,
            "key" => Kind::Key,
            _ => {
                let known = METADATA.join("', '");
                return Err(Error::invalid(format!("unknown metadata '{key}', a Kafka source has '{known}'")));
            }
        };
        if let Some(accepted) = metadata_refused("kafka", key, field) {
            return Err(Error::invalid(format!(
                "metadata '{key}' cannot be of type {} (column \"{}\"), accepted: {accepted}",
                field.ty, field.name
            )));
        }
        Ok(Metadata { kind, column: Column::new(field)? })
    }

    /// The value of one row. A text of the record that is no UTF-8 is read with replacement characters.
    #[inline]
    pub fn push(&mut self, topic: &str, partition: i32, record: &Record<'_>) {
        let column = &mut self.column;
        match self.kind {
            Kind::Topic => text(column, Some(topic.as_bytes())),
            Kind::Partition => number(column, Some(partition.into())),
            Kind::Offset => number(column, Some(record.offset())),
            Kind::LeaderEpoch => number(column, record.leader_epoch().map(i64::from)),
            Kind::Key => text(column, record.key()),
            Kind::Timestamp => match record.timestamp() {
                // As Flink: -1 where the producer gave none, unless the column may say so.
                (_, TimestampType::None) if column.nullable => column.nulls(1),
                (ms, _) => number(column, Some(ms)),
            },
            Kind::TimestampType => {
                let name = match record.timestamp().1 {
                    TimestampType::None => "NoTimestampType",
                    TimestampType::Create => "CreateTime",
                    TimestampType::LogAppend => "LogAppendTime",
                };
                text(column, Some(name.as_bytes()));
            }
            Kind::Headers => headers(column, record),
        }
    }

    pub fn finish(&mut self) -> Result<ArrayRef> {
        self.column.finish()
    }
}

fn text(column: &mut Column, value: Option<&[u8]>) {
    let Some(value) = value else { return column.nulls(1) };
    match &mut column.values {
        Values::Bytes(var) => {
            var.bytes.extend_from_slice(value);
            var.end();
        }
        Values::String(var) => {
            match std::str::from_utf8(value) {
                Ok(value) => var.bytes.extend_from_slice(value.as_bytes()),
                Err(_) => var.bytes.extend_from_slice(String::from_utf8_lossy(value).as_bytes()),
            }
            var.end();
        }
        _ => unreachable!("its type has been checked"),
    }
    column.valid();
}

fn number(column: &mut Column, value: Option<i64>) {
    let Some(value) = value else { return column.nulls(1) };
    match &mut column.values {
        Values::Int32(values) => values.push(value as i32),
        Values::Int64(values) => values.push(value),
        // A time that does not fit is as far away as can be.
        Values::Timestamp { values, unit } => values.push(value.saturating_mul(unit.per_milli())),
        _ => unreachable!("its type has been checked"),
    }
    column.valid();
}

/// Of headers with one name the last counts, as in Flink.
fn headers(column: &mut Column, record: &Record<'_>) {
    let mut all: Vec<(Vec<u8>, Option<Vec<u8>>)> = Vec::new();
    record.headers(|name, value| {
        let value = value.map(<[u8]>::to_vec);
        match all.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value,
            None => all.push((name.to_vec(), value)),
        }
    });
    let Values::Map { offsets, keys, values } = &mut column.values else { unreachable!("its type has been checked") };
    for (name, value) in all {
        text(keys, Some(&name));
        text(values, value.as_deref());
    }
    offsets.push(keys.len as i32);
    column.valid();
}
