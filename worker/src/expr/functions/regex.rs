//! REGEXP, REGEXP_EXTRACT and REGEXP_REPLACE over the `regex` crate. A literal pattern is compiled once and checked at the start; one
//! from a column is compiled when it changes.

use super::Literals;
use crate::expr::value::{Kernel, Value, build_texts};
use arrow_array::BooleanArray;
use ef_proto::function::Builtin;
use regex::{NoExpand, Regex};
use std::sync::Arc;

fn regex(pattern: &str) -> Result<Regex, String> {
    Regex::new(pattern).map_err(|e| format!("regular expression '{pattern}': {e}"))
}

/// The pattern of a row: the literal's, or the last one while it stays the same.
struct Patterns<'a> {
    fixed: Option<&'a Regex>,
    last: Option<(String, Regex)>,
}

impl Patterns<'_> {
    fn of(&mut self, pattern: &str) -> Result<&Regex, String> {
        if let Some(fixed) = self.fixed {
            return Ok(fixed);
        }
        if self.last.as_ref().is_none_or(|(known, _)| known != pattern) {
            self.last = Some((pattern.to_string(), regex(pattern)?));
        }
        Ok(&self.last.as_ref().expect("it was just put there").1)
    }
}

pub(super) fn kernel(function: Builtin, literals: &Literals) -> Result<Kernel, String> {
    let fixed = literals.text(1).map(regex).transpose()?;
    if function == Builtin::RegexpReplace {
        return Ok(Box::new(move |args, rows| {
            let (texts, patterns, replacements) = (args[0].texts(), args[1].texts(), args[2].texts());
            let mut regexes = Patterns { fixed: fixed.as_ref(), last: None };
            build_texts(rows, |row, out| {
                let (Some(text), Some(pattern), Some(with)) =
                    (texts.get(row), patterns.get(row), replacements.get(row))
                else {
                    return Ok(false);
                };
                // Flink: a row whose pattern is wrong has no result. `$1` in the replacement is no group.
                let Ok(regex) = regexes.of(pattern) else { return Ok(false) };
                out.extend_from_slice(regex.replace_all(text, NoExpand(with)).as_bytes());
                Ok(true)
            })
        }));
    }
    if function == Builtin::Regexp {
        return Ok(Box::new(move |args, rows| {
            let (texts, patterns) = (args[0].texts(), args[1].texts());
            let mut regexes = Patterns { fixed: fixed.as_ref(), last: None };
            let mut out = BooleanArray::builder(rows);
            for row in 0..rows {
                match (texts.get(row), patterns.get(row)) {
                    // Flink: nothing is found by an empty pattern.
                    (Some(_), Some("")) => out.append_value(false),
                    (Some(text), Some(pattern)) => out.append_value(regexes.of(pattern)?.is_match(text)),
                    _ => out.append_null(),
                }
            }
            Ok(Arc::new(out.finish()))
        }));
    }
    Ok(Box::new(move |args, rows| {
        let (texts, patterns) = (args[0].texts(), args[1].texts());
        let groups = args.get(2).map(Value::array);
        let group_at = |row: usize| -> Option<usize> {
            use arrow_array::Array;
            use arrow_array::cast::AsArray;
            use arrow_array::types::*;
            let Some(groups) = groups else { return Some(0) };
            let row = if groups.len() == 1 { 0 } else { row };
            if groups.is_null(row) {
                return None;
            }
            let index = match groups.data_type() {
                arrow_schema::DataType::Int8 => groups.as_primitive::<Int8Type>().value(row) as i64,
                arrow_schema::DataType::Int16 => groups.as_primitive::<Int16Type>().value(row) as i64,
                arrow_schema::DataType::Int32 => groups.as_primitive::<Int32Type>().value(row) as i64,
                _ => groups.as_primitive::<Int64Type>().value(row),
            };
            usize::try_from(index).ok()
        };
        let mut regexes = Patterns { fixed: fixed.as_ref(), last: None };
        build_texts(rows, |row, out| {
            let (Some(text), Some(pattern), Some(group)) = (texts.get(row), patterns.get(row), group_at(row)) else {
                return Ok(false);
            };
            let found = regexes.of(pattern)?.captures(text).and_then(|c| c.get(group));
            out.extend_from_slice(found.map_or("", |m| m.as_str()).as_bytes());
            Ok(found.is_some())
        })
    }))
}
