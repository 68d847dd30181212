//! METADATA columns: what a record says besides its payload, into arrays beside the decoded columns.

use super::log::record::Record;
use super::packet::{Properties, Value, property};
use crate::error::{Error, Result};
use arrow_array::builder::{
    BinaryBuilder, BooleanBuilder, Int32Builder, Int64Builder, MapBuilder, MapFieldNames, StringBuilder,
    TimestampMillisecondBuilder,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType as Arrow;
use ef_proto::schema::{DataType, Field};
use std::sync::Arc;

enum Column {
    Topic(StringBuilder),
    Qos(Int32Builder),
    LongQos(Int64Builder),
    Retain(BooleanBuilder),
    Dup(BooleanBuilder),
    Received(TimestampMillisecondBuilder),
    ContentType(StringBuilder),
    ResponseTopic(StringBuilder),
    Correlation(BinaryBuilder),
    Expiry(Int64Builder),
    User(Box<MapBuilder<StringBuilder, StringBuilder>>),
}

pub struct Metadata {
    /// Position in the schema, type, builder.
    columns: Vec<(usize, Arrow, Column)>,
    /// Some column is made of properties.
    properties: bool,
}

impl Metadata {
    /// `columns`: position in the schema, field, key; in order of positions.
    pub fn new(columns: &[(usize, Field, String)]) -> Result<Metadata> {
        let mut made = Vec::with_capacity(columns.len());
        for (at, field, key) in columns {
            let arrow = field.ty.to_arrow();
            let column = match (key.as_str(), &field.ty) {
                ("topic", DataType::String) => Column::Topic(StringBuilder::new()),
                ("qos", DataType::Int32) => Column::Qos(Int32Builder::new()),
                ("qos", DataType::Int64) => Column::LongQos(Int64Builder::new()),
                ("retain", DataType::Boolean) => Column::Retain(BooleanBuilder::new()),
                ("dup", DataType::Boolean) => Column::Dup(BooleanBuilder::new()),
                ("received-time", DataType::Timestamp(_) | DataType::TimestampLtz(_)) => {
                    Column::Received(TimestampMillisecondBuilder::new().with_data_type(arrow.clone()))
                }
                ("content-type", DataType::String) => Column::ContentType(StringBuilder::new()),
                ("response-topic", DataType::String) => Column::ResponseTopic(StringBuilder::new()),
                ("correlation-data", DataType::Bytes) => Column::Correlation(BinaryBuilder::new()),
                ("message-expiry", DataType::Int64) => Column::Expiry(Int64Builder::new()),
                ("user-properties", DataType::Map(..)) => Column::User(Box::new(map_builder(&arrow)?)),
                (key, ty) => {
                    return Err(Error::invalid(format!("metadata '{key}' of connector 'mqtt' cannot be of type {ty}")));
                }
            };
            made.push((*at, arrow, column));
        }
        let properties = made.iter().any(|(.., column)| {
            use Column::{ContentType, Correlation, Expiry, ResponseTopic, User};
            matches!(column, ContentType(_) | ResponseTopic(_) | Correlation(_) | Expiry(_) | User(_))
        });
        Ok(Metadata { columns: made, properties })
    }

    /// One row. Text that is no UTF-8 is shown as it can be.
    pub fn push(&mut self, record: &Record) {
        let (mut content, mut response, mut correlation, mut expiry) = (None, None, None, None);
        let mut user = Vec::new();
        if self.properties {
            let mut properties = Properties(record.properties);
            while let Ok(Some((id, value))) = properties.read() {
                match (id, value) {
                    (property::CONTENT_TYPE, Value::Bytes(text)) => content = Some(text),
                    (property::RESPONSE_TOPIC, Value::Bytes(text)) => response = Some(text),
                    (property::CORRELATION_DATA, Value::Bytes(bytes)) => correlation = Some(bytes),
                    (property::MESSAGE_EXPIRY, Value::Number(seconds)) => expiry = Some(i64::from(seconds)),
                    (property::USER, Value::Pair(name, value)) => user.push((name, value)),
                    _ => {}
                }
            }
        }
        let text = String::from_utf8_lossy;
        for (.., column) in &mut self.columns {
            match column {
                Column::Topic(out) => out.append_value(text(record.topic)),
                Column::Qos(out) => out.append_value(record.qos.into()),
                Column::LongQos(out) => out.append_value(record.qos.into()),
                Column::Retain(out) => out.append_value(record.retain),
                Column::Dup(out) => out.append_value(record.dup),
                Column::Received(out) => out.append_value(record.received_ms),
                Column::ContentType(out) => out.append_option(content.map(text)),
                Column::ResponseTopic(out) => out.append_option(response.map(text)),
                Column::Correlation(out) => out.append_option(correlation),
                Column::Expiry(out) => out.append_option(expiry),
                Column::User(out) => {
                    // A name may come more than once; a map has the last of them.
                    for (at, (name, value)) in user.iter().enumerate() {
                        if user[at + 1..].iter().all(|(later, _)| later != name) {
                            out.keys().append_value(text(name));
                            out.values().append_value(text(value));
                        }
                    }
                    let _ = out.append(!user.is_empty());
                }
            }
        }
    }

    /// The arrays with their positions in the schema; the next rows begin.
    pub fn finish(&mut self) -> Vec<(usize, ArrayRef)> {
        let finished = self.columns.iter_mut().map(|(at, arrow, column)| {
            let array: ArrayRef = match column {
                Column::Topic(out) | Column::ContentType(out) | Column::ResponseTopic(out) => Arc::new(out.finish()),
                Column::Qos(out) => Arc::new(out.finish()),
                Column::LongQos(out) | Column::Expiry(out) => Arc::new(out.finish()),
                Column::Retain(out) | Column::Dup(out) => Arc::new(out.finish()),
                Column::Received(out) => Arc::new(out.finish()),
                Column::Correlation(out) => Arc::new(out.finish()),
                Column::User(out) => Arc::new(out.finish()),
            };
            debug_assert_eq!(array.data_type(), arrow, "as the schema says");
            (*at, array)
        });
        finished.collect()
    }
}

/// With the names of fields that the schema has.
fn map_builder(arrow: &Arrow) -> Result<MapBuilder<StringBuilder, StringBuilder>> {
    let Arrow::Map(entry, _) = arrow else { return Err(Error::invalid("user properties are a MAP")) };
    let Arrow::Struct(fields) = entry.data_type() else { return Err(Error::invalid("entries of a MAP are a struct")) };
    let [key, value] = &fields[..] else { return Err(Error::invalid("entries of a MAP are pairs")) };
    let names = MapFieldNames { entry: entry.name().clone(), key: key.name().clone(), value: value.name().clone() };
    let builder = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
    Ok(builder.with_keys_field(key.clone()).with_values_field(value.clone()))
}
