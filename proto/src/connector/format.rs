//! `'format' = 'json' | 'csv' | 'changelog-json'` and the formats' own options.

use super::options::{OptionError, Options};
use super::{Csv, Format, Json, OnError, TimestampFormat};
use crate::schema::{DataType, Schema};

pub(super) fn source(options: &mut Options, physical: &Schema) -> Result<Format, OptionError> {
    const EXPECTED: &str = "'json' or 'csv' (for a table that is read)";
    let name = options.require("format", EXPECTED)?;
    match name.as_str() {
        "json" => Ok(Format::Json(json(options, "json")?)),
        "csv" => csv(options, physical).map(Format::Csv),
        other => Err(options.unaccepted("format", other, EXPECTED)),
    }
}

pub(super) fn sink(options: &mut Options, schema: &Schema, changelog: bool) -> Result<Format, OptionError> {
    const EXPECTED: &str = "'json', 'csv' or 'changelog-json'";
    let name = options.require("format", EXPECTED)?;
    let format = match name.as_str() {
        "json" => Format::Json(json(options, "json")?),
        "csv" => Format::Csv(csv(options, schema)?),
        "changelog-json" => Format::ChangelogJson(json(options, "changelog-json")?),
        other => return Err(options.unaccepted("format", other, EXPECTED)),
    };
    if changelog && !matches!(format, Format::ChangelogJson(_)) {
        let what = format!(
            "option 'format': '{name}' takes only inserted rows and this query updates rows, expected 'changelog-json'"
        );
        return Err(options.error("format", what));
    }
    Ok(format)
}

fn on_error(options: &mut Options, key: &str) -> Result<OnError, OptionError> {
    Ok(if options.boolean(key, false)? { OnError::Null } else { OnError::Fail })
}

/// `prefix`: the format's name, which its options carry.
fn json(options: &mut Options, prefix: &str) -> Result<Json, OptionError> {
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
