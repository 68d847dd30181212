//! Decoders and encoders for connectors of messages: those of `format`, with the schema registry where one is needed.

use super::Place;
#[cfg(feature = "schema-registry")]
use super::net::guard::Guard;
use crate::error::Result;
use crate::format::encode::{self, Encoder};
use crate::format::{self, Decoder, SchemaRegistry};
use ef_proto::connector::{AvroConfluent, Format};
use ef_proto::schema::Schema;

#[cfg(feature = "schema-registry")]
mod registry;

/// The decoder of a source's subtask. `schema`: the columns to materialise, with `_op` last of a changelog.
pub fn decoder(format: &Format, schema: &Schema, place: &Place) -> Result<Box<dyn Decoder>> {
    match format {
        Format::AvroConfluent(options) => format::registered(options, schema, registry(options, place)?),
        format => format::decoder(format, schema),
    }
}

/// The encoder of a sink's subtask; of `avro-confluent`, after its schema has been registered. `schema` without `_op`.
pub fn encoder(format: &Format, schema: &Schema, changelog: bool, place: &Place) -> Result<Box<dyn Encoder>> {
    let Format::AvroConfluent(options) = format else { return encode::encoder(format, schema, changelog) };
    let in_table = |what: String| crate::error::Error::invalid(format!("table `{}`: {what}", place.table));
    let subject =
        options.subject.as_deref().ok_or_else(|| in_table("a sink without 'avro-confluent.subject'".into()))?;
    let id = registry(options, place)?.register(subject, &encode::avro_schema(schema, &options.avro)).map_err(|e| {
        in_table(format!("registry {}: the schema of subject '{subject}' cannot be registered: {e}", options.url))
    })?;
    Ok(encode::registered(schema, id))
}

#[cfg(feature = "schema-registry")]
fn registry(options: &AvroConfluent, place: &Place) -> Result<Box<dyn SchemaRegistry>> {
    Ok(Box::new(registry::Http::open(options, place, Guard::of_process())?))
}

#[cfg(not(feature = "schema-registry"))]
fn registry(_: &AvroConfluent, place: &Place) -> Result<Box<dyn SchemaRegistry>> {
    let what = format!("table `{}`: this worker is built without the feature 'schema-registry'", place.table);
    Err(crate::error::Error::invalid(what))
}
