//! The formats of messages: `raw`, `debezium-json`, `protobuf`, `avro`, `avro-confluent`, with Flink's option names.
//!
//! What a column's type has to be is checked here, so that a table that cannot be read or written fails when it is
//! planned. `prefix` is the format's name, which its options carry.

use super::format::{json, on_error};
use super::options::{OptionError, Options};
use super::{Json, OnError, protobuf};
use crate::schema::{DataType, Schema, Unit};
use crate::secret::Template;
use serde::{Deserialize, Serialize};

/// One column is the whole message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Raw {
    pub on_error: OnError,
    /// `'raw.endianness'` of numbers, default big.
    pub big_endian: bool,
}

/// `{"before":…,"after":…,"op":"u"}`: rows and how they change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DebeziumJson {
    pub json: Json,
    /// `'debezium-json.schema-include'`: the change is in the `payload` of an object that has its `schema` beside it.
    pub schema_include: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Protobuf {
    pub on_error: OnError,
    /// `'protobuf.message-class-name'`: full name of the message, `package.Message`.
    pub message: String,
    /// The message and what it is made of, as [`protobuf::prune`] wrote it: no process but the planner's reads a file.
    pub descriptor: String,
    /// `'protobuf.read-default-values'`: a field that is not there has its default, not NULL.
    pub read_defaults: bool,
    /// `'protobuf.write-null-string-literal'`: stands for NULL in arrays and maps of strings.
    pub null_string: String,
}

/// Bare binary datums, of the schema that follows from the table's columns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Avro {
    pub on_error: OnError,
    /// `'avro.timestamp_mapping.legacy'`, default true: TIMESTAMP is written as `timestamp-*`, not as
    /// `local-timestamp-*`.
    pub legacy_timestamps: bool,
}

/// Datums behind the id that their schema has in a registry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AvroConfluent {
    pub avro: Avro,
    /// Without a `/` at its end.
    pub url: String,
    /// What a sink registers its schema under.
    pub subject: Option<String>,
    pub auth: RegistryAuth,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegistryAuth {
    None,
    /// `user:password`.
    Basic(Template),
    Bearer(Template),
}

pub(super) fn raw(options: &mut Options, prefix: &str, schema: &Schema) -> Result<Raw, OptionError> {
    options.parsed(&format!("{prefix}.charset"), "'UTF-8'", |text| {
        matches!(text.to_ascii_uppercase().as_str(), "UTF-8" | "UTF8").then_some(())
    })?;
    let big_endian =
        options.parsed(&format!("{prefix}.endianness"), "'big-endian' or 'little-endian'", |text| match text {
            "big-endian" => Some(true),
            "little-endian" => Some(false),
            _ => None,
        })?;
    let found: Vec<String> = schema.fields.iter().map(|field| format!("`{}` {}", field.name, field.ty)).collect();
    let [field] = &schema.fields[..] else {
        let what = format!("option 'format': 'raw' is one column, found {}", found.join(", "));
        return Err(options.error("format", what));
    };
    if !raw_holds(&field.ty) {
        let what = format!(
            "option 'format': 'raw' cannot hold column `{}` of type {}, expected STRING, BYTES, BOOLEAN or a number",
            field.name, field.ty
        );
        return Err(options.error("format", what));
    }
    Ok(Raw { on_error: OnError::Fail, big_endian: big_endian.unwrap_or(true) })
}

const fn raw_holds(ty: &DataType) -> bool {
    matches!(
        ty,
        DataType::String
            | DataType::Bytes
            | DataType::Boolean
            | DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Float32
            | DataType::Float64
    )
}

pub(super) fn debezium(options: &mut Options, prefix: &str) -> Result<DebeziumJson, OptionError> {
    let schema_include = options.boolean(&format!("{prefix}.schema-include"), false)?;
    Ok(DebeziumJson { json: json(options, prefix)?, schema_include })
}

pub(super) fn protobuf(options: &mut Options, prefix: &str, schema: &Schema) -> Result<Protobuf, OptionError> {
    let on_error = on_error(options, &format!("{prefix}.ignore-parse-errors"))?;
    let class = format!("{prefix}.message-class-name");
    let message = options.require(&class, "the full name of a message like 'shop.v1.Order'")?;
    let file = format!("{prefix}.descriptor-file");
    options.take(&file);
    let given = options.take(&format!("{prefix}.descriptor"));
    let Some(descriptor) = given else {
        let what = format!(
            "option '{file}' is missing, expected a file made by protoc --include_imports \
                            --descriptor_set_out=FILE"
        );
        return Err(options.error(&file, what));
    };
    let descriptor = protobuf::prune_text(&descriptor, &message)
        .map_err(|what| options.error(&class, format!("option '{class}': {what}")))?;
    protobuf::compile(&descriptor, &message, schema)
        .map_err(|what| options.error(&class, format!("option '{class}': message '{message}': {what}")))?;
    let read_defaults = options.boolean(&format!("{prefix}.read-default-values"), false)?;
    let null_string = options.take(&format!("{prefix}.write-null-string-literal")).unwrap_or_default();
    Ok(Protobuf { on_error, message, descriptor, read_defaults, null_string })
}

pub(super) fn avro(options: &mut Options, prefix: &str, schema: &Schema) -> Result<Avro, OptionError> {
    options.parsed(&format!("{prefix}.encoding"), "'binary'", |text| (text == "binary").then_some(()))?;
    // Of Flink's object container files, which this format does not write.
    let legacy_timestamps = options.boolean(&format!("{prefix}.timestamp_mapping.legacy"), true)?;
    for field in &schema.fields {
        avro_name(&field.name)
            .and_then(|()| avro_holds(&field.ty))
            .map_err(|what| options.error("format", format!("option 'format': column `{}`: {what}", field.name)))?;
    }
    Ok(Avro { on_error: OnError::Fail, legacy_timestamps })
}

fn avro_name(name: &str) -> Result<(), String> {
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    match first && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        true => Ok(()),
        false => Err(format!("avro has no field '{name}', expected letters, digits and '_' in its name")),
    }
}

fn avro_holds(ty: &DataType) -> Result<(), String> {
    match ty {
        DataType::Interval | DataType::Null => Err(format!("avro cannot hold {ty}")),
        DataType::Timestamp(Unit::Nano) | DataType::TimestampLtz(Unit::Nano) => {
            Err(format!("avro cannot hold {ty}, expected at most 6 digits"))
        }
        DataType::Decimal { scale, .. } if *scale < 0 => Err(format!("avro cannot hold {ty}, expected a scale from 0")),
        DataType::Row(fields) => {
            if fields.is_empty() {
                return Err("avro cannot hold a ROW without fields".into());
            }
            fields.iter().try_for_each(|field| avro_name(&field.name).and_then(|()| avro_holds(&field.ty)))
        }
        DataType::Array(item) => avro_holds(item),
        DataType::Map(key, _) if **key != DataType::String => {
            Err(format!("avro cannot hold {ty}, expected STRING keys"))
        }
        DataType::Map(_, value) => avro_holds(value),
        _ => Ok(()),
    }
}

pub(super) fn confluent(
    options: &mut Options,
    prefix: &str,
    schema: &Schema,
    sink: bool,
) -> Result<AvroConfluent, OptionError> {
    const EXPECTED: &str = "the registry's address like 'http://registry:8081'";
    let key = format!("{prefix}.url");
    let url = options.require(&key, EXPECTED)?;
    let rest = url.strip_prefix("http://").or(url.strip_prefix("https://")).unwrap_or("");
    if rest.is_empty() || rest.starts_with('/') || rest.contains(['@', ',', ' ', '?', '#']) {
        // A password may stand in it.
        let what = format!("option '{key}': not accepted, expected {EXPECTED}, without user or password");
        return Err(options.error(&key, what));
    }
    let url = url.trim_end_matches('/').to_owned();
    let key = format!("{prefix}.subject");
    let subject = options.take(&key).filter(|subject| !subject.is_empty());
    if sink && subject.is_none() {
        let what =
            format!("option '{key}' is missing, expected the subject to register the schema under, like 'topic-value'");
        return Err(options.error(&key, what));
    }
    let (basic, bearer) = (format!("{prefix}.basic-auth"), format!("{prefix}.bearer-auth"));
    options
        .parsed(&format!("{basic}.credentials-source"), "'USER_INFO'", |text| (text == "USER_INFO").then_some(()))?;
    options.parsed(&format!("{bearer}.credentials-source"), "'STATIC_TOKEN'", |text| {
        (text == "STATIC_TOKEN").then_some(())
    })?;
    let user = options.secret(&format!("{basic}.user-info"))?;
    let token = options.secret(&format!("{bearer}.token"))?;
    let auth = match (user, token) {
        (None, None) => RegistryAuth::None,
        (Some(user), None) => RegistryAuth::Basic(user),
        (None, Some(token)) => RegistryAuth::Bearer(token),
        (Some(_), Some(_)) => {
            let key = format!("{bearer}.token");
            let what = format!("option '{key}' is set and '{basic}.user-info' too, expected one");
            return Err(options.error(&key, what));
        }
    };
    Ok(AvroConfluent { avro: avro(options, prefix, schema)?, url, subject, auth })
}

#[cfg(test)]
mod tests;
