//! `'format' = …` and the options of the formats of text; those of messages are in `records`.

use super::options::{OptionError, Options};
use super::{Csv, Format, Json, OnError, TimestampFormat, records};
use crate::schema::{DataType, Schema};

pub(super) fn source(options: &mut Options, physical: &Schema) -> Result<Format, OptionError> {
    const EXPECTED: &str =
        "'json', 'csv', 'raw', 'debezium-json', 'protobuf', 'avro' or 'avro-confluent' (for a table that is read)";
    let name = options.require("format", EXPECTED)?;
    match name.as_str() {
        "json" => Ok(Format::Json(json(options, "json")?)),
        "csv" => csv(options, physical).map(Format::Csv),
        "raw" => records::raw(options, "raw", physical).map(Format::Raw),
        "debezium-json" => records::debezium(options, "debezium-json").map(Format::DebeziumJson),
        "protobuf" => records::protobuf(options, "protobuf", physical).map(Format::Protobuf),
        "avro" => records::avro(options, "avro", physical).map(Format::Avro),
        "avro-confluent" => records::confluent(options, "avro-confluent", physical, false).map(Format::AvroConfluent),
        other => Err(options.unaccepted("format", other, EXPECTED)),
    }
}

pub(super) fn sink(options: &mut Options, schema: &Schema, changelog: bool) -> Result<Format, OptionError> {
    const EXPECTED: &str =
        "'json', 'csv', 'changelog-json', 'raw', 'debezium-json', 'protobuf', 'avro' or 'avro-confluent'";
    let name = options.require("format", EXPECTED)?;
    let format = match name.as_str() {
        "json" => Format::Json(json(options, "json")?),
        "csv" => Format::Csv(csv(options, schema)?),
        "changelog-json" => Format::ChangelogJson(json(options, "changelog-json")?),
        "raw" => Format::Raw(records::raw(options, "raw", schema)?),
        "debezium-json" => Format::DebeziumJson(records::debezium(options, "debezium-json")?),
        "protobuf" => Format::Protobuf(records::protobuf(options, "protobuf", schema)?),
        "avro" => Format::Avro(records::avro(options, "avro", schema)?),
        "avro-confluent" => Format::AvroConfluent(records::confluent(options, "avro-confluent", schema, true)?),
        other => return Err(options.unaccepted("format", other, EXPECTED)),
    };
    if changelog && !format.writes_changelog() {
        let what = format!(
            "option 'format': '{name}' takes only inserted rows and this query updates rows, expected 'changelog-json' \
             or 'debezium-json'"
        );
        return Err(options.error("format", what));
    }
    Ok(format)
}

impl Format {
    pub const fn name(&self) -> &'static str {
        match self {
            Format::Json(_) => "json",
            Format::Csv(_) => "csv",
            Format::ChangelogJson(_) => "changelog-json",
            Format::Raw(_) => "raw",
            Format::DebeziumJson(_) => "debezium-json",
            Format::Protobuf(_) => "protobuf",
            Format::Avro(_) => "avro",
            Format::AvroConfluent(_) => "avro-confluent",
        }
    }

    /// A table that is read in this format is a changelog: its physical columns end with `_op`.
    pub const fn reads_changelog(&self) -> bool {
        matches!(self, Format::DebeziumJson(_))
    }

    /// It writes the kinds of rows, and gets them also for rows that are only inserted.
    pub const fn writes_changelog(&self) -> bool {
        matches!(self, Format::ChangelogJson(_) | Format::DebeziumJson(_))
    }

    /// Fields are known by their places, so none can be left out; else by their names.
    pub const fn is_positional(&self) -> bool {
        matches!(self, Format::Csv(_) | Format::Raw(_) | Format::Avro(_))
    }

    /// With an error table a bad row is written there whole.
    pub fn skip_errors(&mut self) {
        let on_error = match self {
            Format::Json(json) | Format::ChangelogJson(json) => &mut json.on_error,
            Format::Csv(csv) => &mut csv.on_error,
            Format::Raw(raw) => &mut raw.on_error,
            Format::DebeziumJson(debezium) => &mut debezium.json.on_error,
            Format::Protobuf(protobuf) => &mut protobuf.on_error,
            Format::Avro(avro) => &mut avro.on_error,
            Format::AvroConfluent(confluent) => &mut confluent.avro.on_error,
        };
        *on_error = OnError::Skip;
    }

    /// Whether rows can be the lines of a file.
    pub(super) fn check_lines(&self, options: &Options, schema: &Schema) -> Result<(), OptionError> {
        let what = match self {
            Format::Json(_) | Format::Csv(_) | Format::ChangelogJson(_) | Format::DebeziumJson(_) => return Ok(()),
            Format::Raw(_) if matches!(schema.fields[0].ty, DataType::String | DataType::Bytes) => return Ok(()),
            Format::Raw(_) => format!(
                "option 'format': 'raw' in files is a line a value, and column `{}` is {}, expected STRING or BYTES",
                schema.fields[0].name, schema.fields[0].ty
            ),
            Format::Protobuf(_) | Format::Avro(_) | Format::AvroConfluent(_) => format!(
                "option 'format': '{}' is for messages, not for lines of files, expected 'json', 'csv', 'raw' or \
                 'debezium-json'",
                self.name()
            ),
        };
        Err(options.error("format", what))
    }
}

pub(super) fn on_error(options: &mut Options, key: &str) -> Result<OnError, OptionError> {
    Ok(if options.boolean(key, false)? { OnError::Null } else { OnError::Fail })
}

/// `prefix`: the format's name, which its options carry.
pub(super) fn json(options: &mut Options, prefix: &str) -> Result<Json, OptionError> {
    let on_error = on_error(options, &format!("{prefix}.ignore-parse-errors"))?;
    let timestamps =
        options.parsed(&format!("{prefix}.timestamp-format.standard"), "'SQL' or 'ISO-8601'", |text| match text {
            "SQL" => Some(TimestampFormat::Sql),
            "ISO-8601" => Some(TimestampFormat::Iso8601),
            _ => None,
        })?;
    options.parsed(
        &format!("{prefix}.fail-on-missing-field"),
        "'false' (a missing field is read as NULL)",
        |text| (super::units::parse_boolean(text) == Some(false)).then_some(()),
    )?;
    Ok(Json { on_error, timestamps: timestamps.unwrap_or(TimestampFormat::Sql) })
}

fn csv(options: &mut Options, schema: &Schema) -> Result<Csv, OptionError> {
    let on_error = on_error(options, "csv.ignore-parse-errors")?;
    let delimiter = byte(options, "csv.field-delimiter")?.unwrap_or(b',');
    let quote = byte(options, "csv.quote-character")?;
    let quote = if options.boolean("csv.disable-quote-character", false)? {
        if quote.is_some() {
            let what = "option 'csv.quote-character' is set and 'csv.disable-quote-character' is 'true', expected one";
            return Err(options.error("csv.quote-character", what.to_owned()));
        }
        None
    } else {
        Some(quote.unwrap_or(b'"'))
    };
    let escape = byte(options, "csv.escape-character")?;
    for (key, other) in [("csv.quote-character", quote), ("csv.escape-character", escape)] {
        if other == Some(delimiter) {
            let what = format!("option '{key}' is the field delimiter too, expected another character");
            return Err(options.error(key, what));
        }
    }
    let null_literal = options.take("csv.null-literal");
    let comments = options.boolean("csv.allow-comments", false)?;
    let header = options.boolean("csv.header", false)?;
    for field in &schema.fields {
        if !csv_holds(&field.ty) {
            let what = format!(
                "option 'format': 'csv' cannot hold column `{}` of type {}, expected 'json'",
                field.name, field.ty
            );
            return Err(options.error("format", what));
        }
    }
    Ok(Csv { on_error, delimiter, quote, escape, null_literal, comments, header })
}

/// CSV fields are scalars.
fn csv_holds(ty: &DataType) -> bool {
    !matches!(ty, DataType::Row(_) | DataType::Array(_) | DataType::Map(..))
}

/// One ASCII character, or an escape like `\t`.
fn byte(options: &mut Options, key: &str) -> Result<Option<u8>, OptionError> {
    options.parsed(key, "one ASCII character, or '\\t'", |text| match text.as_bytes() {
        b"\\t" => Some(b'\t'),
        b"\\\\" => Some(b'\\'),
        [b] if b.is_ascii() && *b != b'\n' && *b != b'\r' => Some(*b),
        _ => None,
    })
}
