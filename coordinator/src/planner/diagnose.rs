//! DataFusion's errors in the planner's form: one sentence in Flink's words, with line and column where DataFusion
//! knows them.

use super::error::{PlannerError, Span, near};
use super::functions::flink_name;
use datafusion_common::{DataFusionError, SchemaError};

pub fn from_span(span: &datafusion_common::Span) -> Span {
    Span { line: span.start.line, column: span.start.column, end_line: span.end.line, end_column: span.end.column }
}

/// `statement` is where the statement starts: the place of last resort.
pub fn from_datafusion(error: DataFusionError, statement: Span) -> PlannerError {
    let place = error.diagnostic().and_then(|diagnostic| diagnostic.span.as_ref().map(from_span));
    let mut planned = translate(&error);
    if let (0, Some(place)) = (planned.line, place) {
        planned.width = PlannerError::new("", place).width;
        planned = planned.or_at(place);
    }
    planned.or_at(statement)
}

fn translate(error: &DataFusionError) -> PlannerError {
    match error {
        DataFusionError::External(inner) => match inner.downcast_ref::<PlannerError>() {
            Some(error) => error.clone(),
            None => PlannerError::new(inner.to_string(), Span::UNKNOWN),
        },
        DataFusionError::Context(_, inner) => translate(inner),
        DataFusionError::Diagnostic(_, inner) => translate(inner),
        DataFusionError::Shared(inner) => translate(inner),
        DataFusionError::Collection(errors) if !errors.is_empty() => translate(&errors[0]),
        DataFusionError::SchemaError(schema, _) => translate_schema(schema),
        DataFusionError::Plan(text) | DataFusionError::NotImplemented(text) | DataFusionError::Execution(text) => {
            PlannerError::new(sentence(text), Span::UNKNOWN)
        }
        DataFusionError::SQL(error, _) => super::statement::from_parser((**error).clone(), Span::UNKNOWN),
        other => PlannerError::new(sentence(&other.strip_backtrace()), Span::UNKNOWN),
    }
}

fn translate_schema(error: &SchemaError) -> PlannerError {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let place = field.spans().first().map_or(Span::UNKNOWN, |span| from_span(&span));
            let known: Vec<&str> = valid_fields.iter().map(|column| column.name.as_str()).collect();
            PlannerError::new(format!("column `{}` does not exist", field.flat_name()), place)
                .hint(near(&field.name, known))
        }
        SchemaError::AmbiguousReference { field } => {
            let place = field.spans().first().map_or(Span::UNKNOWN, |span| from_span(&span));
            PlannerError::new(format!("column `{}` is ambiguous", field.name), place)
                .hint("accepted: the name with its table before it, as in a.id")
        }
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            PlannerError::new(format!("column `{name}` appears twice"), Span::UNKNOWN)
                .hint("accepted: an alias, as in id AS id2")
        }
    }
}

/// A call of DataFusion's library with arguments that it does not take, in Flink's names of types.
fn refused_call(text: &str) -> Option<String> {
    let (name, found) = if let Some((_, call)) = text.split_once("given name and argument types '") {
        call.split_once("'.")?.0.strip_suffix(')')?.split_once('(')?
    } else {
        let (_, call) = text.split_once("to satisfy a call to '")?;
        let (name, rest) = call.split_once("' function: coercion from ")?;
        (name, rest.split_once(" to the signature")?.0)
    };
    let ty = |name: &str| {
        let ours = [
            ("Utf8", "STRING"),
            ("Boolean", "BOOLEAN"),
            ("Int8", "TINYINT"),
            ("Int16", "SMALLINT"),
            ("Int32", "INT"),
            ("Int64", "BIGINT"),
            ("Float32", "FLOAT"),
            ("Float64", "DOUBLE"),
            ("Binary", "BYTES"),
            ("Date32", "DATE"),
            ("Time32(ms)", "TIME"),
            ("Timestamp(ms)", "TIMESTAMP(3)"),
            ("Timestamp(µs)", "TIMESTAMP(6)"),
            ("Timestamp(ns)", "TIMESTAMP(9)"),
        ];
        ours.iter().find(|(theirs, _)| *theirs == name).map_or(name.to_string(), |(_, ours)| ours.to_string())
    };
    let found: Vec<String> = found.split(", ").map(ty).collect();
    Some(format!("{} does not take ({})", flink_name(name), found.join(", ")))
}

/// DataFusion's first line, without its prefixes, and with the names of functions that users know.
fn sentence(text: &str) -> String {
    let mut text = text.lines().next().unwrap_or_default().trim();
    // What an argument check of ours says comes wrapped into DataFusion's own complaint about the call.
    if let Some((_, ours)) = text.split_once("user-defined coercion failed with: ") {
        text = ours.split(" No function matches").next().unwrap_or(ours);
    }
    for prefix in [
        "Execution error: ",
        "Error during planning: ",
        "This feature is not implemented: ",
        "Internal error: ",
        "Schema error: ",
    ] {
        text = text.strip_prefix(prefix).unwrap_or(text);
    }
    if let Some(refused) = refused_call(text) {
        return refused;
    }
    if let Some(names) = text.strip_prefix("could not parse compound identifier from [") {
        let path = names.trim_end_matches(']').replace("\", \"", ".").replace('"', "");
        return format!("`{path}`: the column has no such field");
    }
    let mut words: Vec<String> = Vec::new();
    for word in text.split(' ') {
        let at = word.find("ef_");
        words.push(match at {
            Some(at) => {
                let name: String = word[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                word.replacen(&name, &flink_name(&name), 1)
            }
            None => word.to_string(),
        });
    }
    let text = words.join(" ");
    let text = text.trim_end_matches('.');
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        // An acronym keeps its capitals.
        (Some(first), Some(second)) if second.is_lowercase() => {
            first.to_lowercase().collect::<String>() + &text[first.len_utf8()..]
        }
        _ => text.to_string(),
    }
}
