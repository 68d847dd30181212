//! Functions of texts that Flink has and DataFusion lacks or means otherwise. Positions count characters.

use super::Literals;
use crate::expr::value::{Kernel, Longs, Value, build, build_texts};
use arrow_array::BooleanArray;
use arrow_array::types::Int32Type;
use ef_proto::function::Builtin;
use ef_proto::schema::DataType;
use serde_json::Value as Json;
use std::sync::Arc;

/// `a || b || …`: NULL if any of them is.
pub(crate) fn concat_kernel() -> Kernel {
    Box::new(|args, rows| {
        let texts: Vec<_> = args.iter().map(Value::texts).collect();
        build_texts(rows, |row, out| {
            for text in &texts {
                let Some(text) = text.get(row) else { return Ok(false) };
                out.extend_from_slice(text.as_bytes());
            }
            Ok(true)
        })
    })
}

fn longs<'a>(value: &'a Value, ty: &DataType) -> Result<Longs<'a>, String> {
    Longs::of(value, ty).ok_or_else(|| format!("{ty} is not carried by an integer"))
}

pub(super) fn kernel(function: Builtin, types: &[DataType], literals: &Literals) -> Result<Kernel, String> {
    let types = types.to_vec();
    Ok(match function {
        Builtin::Concat => concat_kernel(),
        Builtin::ConcatWs => Box::new(|args, rows| {
            let texts: Vec<_> = args.iter().map(Value::texts).collect();
            build_texts(rows, |row, out| {
                let Some(separator) = texts[0].get(row) else { return Ok(false) };
                for (i, text) in texts[1..].iter().filter_map(|t| t.get(row)).enumerate() {
                    if i > 0 {
                        out.extend_from_slice(separator.as_bytes());
                    }
                    out.extend_from_slice(text.as_bytes());
                }
                Ok(true)
            })
        }),
        Builtin::CharLength => Box::new(|args, rows| {
            let texts = args[0].texts();
            build::<Int32Type>(rows, &DataType::Int32, |row| Ok(texts.get(row).map(|t| t.chars().count() as i32)))
        }),
        Builtin::HashCode => Box::new(|args, rows| {
            let texts = args[0].texts();
            build::<Int32Type>(rows, &DataType::Int32, |row| Ok(texts.get(row).map(hash_code)))
        }),
        Builtin::SplitIndex => Box::new(move |args, rows| {
            let (texts, indexes) = (args[0].texts(), longs(&args[2], &types[2])?);
            let coded = types[1] != DataType::String;
            let delimiters = (!coded).then(|| args[1].texts());
            let codes = if coded { Some(longs(&args[1], &types[1])?) } else { None };
            let mut buffer = String::new();
            build_texts(rows, |row, out| {
                let delimiter = match (&delimiters, &codes) {
                    (Some(delimiters), _) => delimiters.get(row),
                    // A character by its code, from 1 to 255.
                    (_, Some(codes)) => {
                        let code = codes.get(row).and_then(|code| u8::try_from(code).ok()).filter(|code| *code > 0);
                        buffer.clear();
                        buffer.extend(code.map(char::from));
                        code.is_some().then_some(buffer.as_str())
                    }
                    _ => None,
                };
                let (Some(text), Some(delimiter), Some(index)) = (texts.get(row), delimiter, indexes.get(row)) else {
                    return Ok(false);
                };
                let Ok(index) = usize::try_from(index) else { return Ok(false) };
                let part = match delimiter {
                    _ if text.is_empty() => None,
                    "" => text.split(char::is_whitespace).nth(index),
                    delimiter => text.split(delimiter).nth(index),
                };
                out.extend_from_slice(part.unwrap_or_default().as_bytes());
                Ok(part.is_some())
            })
        }),
        Builtin::Substring => Box::new(move |args, rows| {
            let (texts, starts) = (args[0].texts(), longs(&args[1], &types[1])?);
            let lengths = args.get(2).map(|v| longs(v, &types[2])).transpose()?;
            build_texts(rows, |row, out| {
                let (Some(text), Some(start)) = (texts.get(row), starts.get(row)) else { return Ok(false) };
                let length = match &lengths {
                    None => i64::MAX,
                    Some(lengths) => match lengths.get(row) {
                        Some(length) if length >= 0 => length,
                        _ => return Ok(false),
                    },
                };
                out.extend_from_slice(substring(text, start, length).as_bytes());
                Ok(true)
            })
        }),
        Builtin::IsAlpha => test(|text| !text.is_empty() && text.chars().all(char::is_alphabetic)),
        Builtin::IsDigit => test(|text| !text.is_empty() && text.chars().all(char::is_numeric)),
        Builtin::IsDecimal => test(is_decimal),
        Builtin::JsonExists => {
            let fixed = literals.text(1).map(json_path).transpose()?;
            Box::new(move |args, rows| {
                let (texts, paths) = (args[0].texts(), args[1].texts());
                let mut out = BooleanArray::builder(rows);
                for row in 0..rows {
                    let Some((text, path)) = texts.get(row).zip(paths.get(row)) else {
                        out.append_null();
                        continue;
                    };
                    let parsed = if fixed.is_none() { Some(json_path(path)?) } else { None };
                    let steps = fixed.as_ref().or(parsed.as_ref()).expect("the one or the other");
                    // What is no JSON holds nothing.
                    let document = serde_json::from_str::<Json>(text);
                    out.append_value(document.is_ok_and(|document| follow(&document, steps).is_some()));
                }
                Ok(Arc::new(out.finish()))
            })
        }
        Builtin::JsonValue => {
            let fixed = literals.text(1).map(json_path).transpose()?;
            Box::new(move |args, rows| {
                let (texts, paths) = (args[0].texts(), args[1].texts());
                build_texts(rows, |row, out| {
                    let (Some(text), Some(path)) = (texts.get(row), paths.get(row)) else { return Ok(false) };
                    let parsed;
                    let steps = match &fixed {
                        Some(steps) => steps,
                        None => {
                            parsed = json_path(path)?;
                            &parsed
                        }
                    };
                    let Ok(document) = serde_json::from_str::<Json>(text) else { return Ok(false) };
                    Ok(write_json(follow(&document, steps), out))
                })
            })
        }
        other => return Err(format!("{} is not a function of texts", other.name())),
    })
}

/// Java's Math.abs(String.hashCode()): over UTF-16 units.
fn hash_code(text: &str) -> i32 {
    text.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(unit as i32)).wrapping_abs()
}

/// A test of a text; NULL passes none.
fn test(passes: fn(&str) -> bool) -> Kernel {
    Box::new(move |args, rows| {
        let texts = args[0].texts();
        let passed: BooleanArray = (0..rows).map(|row| Some(texts.get(row).is_some_and(passes))).collect();
        Ok(Arc::new(passed))
    })
}

/// What Java reads as a number: an exponent, spaces around it and a type's letter behind it are let pass.
fn is_decimal(text: &str) -> bool {
    let text = text.trim();
    let digits = text.trim_start_matches(['+', '-']);
    if text.len() - digits.len() > 1 {
        return false;
    }
    if matches!(digits, "NaN" | "Infinity") {
        return true;
    }
    let digits = digits.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(digits);
    let begun = digits.trim_start_matches('.').starts_with(|c: char| c.is_ascii_digit());
    begun && digits.parse::<f64>().is_ok()
}

/// From 1; 0 is 1; a negative start counts from the end and yields nothing beyond the beginning.
fn substring(text: &str, start: i64, length: i64) -> &str {
    let skip = match start {
        0 => 0,
        start if start > 0 => start - 1,
        start => {
            let skip = text.chars().count() as i64 + start;
            if skip < 0 {
                return "";
            }
            skip
        }
    };
    let byte_of = |text: &str, chars: i64| {
        usize::try_from(chars).ok().and_then(|n| text.char_indices().nth(n)).map_or(text.len(), |(at, _)| at)
    };
    let rest = &text[byte_of(text, skip)..];
    &rest[..byte_of(rest, length)]
}

pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// `$.key.other[0]['quoted key']`, with `lax` or `strict` before it.
pub(super) fn json_path(path: &str) -> Result<Vec<Step>, String> {
    let wrong = || format!("JSON path '{path}': expected `$`, then `.key`, `[index]` or `['key']`");
    let text = path.trim();
    let text = text.strip_prefix("lax ").or_else(|| text.strip_prefix("strict ")).unwrap_or(text).trim();
    let mut rest = text.strip_prefix('$').ok_or_else(wrong)?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            if end == 0 {
                return Err(wrong());
            }
            steps.push(Step::Key(after[..end].into()));
            rest = &after[end..];
        } else {
            let after = rest.strip_prefix('[').ok_or_else(wrong)?;
            let end = after.find(']').ok_or_else(wrong)?;
            let inside = after[..end].trim();
            let quoted = ['\'', '"'].iter().find_map(|q| inside.strip_prefix(*q)?.strip_suffix(*q));
            steps.push(match quoted {
                Some(key) => Step::Key(key.into()),
                None => Step::Index(inside.parse().map_err(|_| wrong())?),
            });
            rest = &after[end + 1..];
        }
    }
    Ok(steps)
}

fn follow<'a>(document: &'a Json, steps: &[Step]) -> Option<&'a Json> {
    steps.iter().try_fold(document, |at, step| match step {
        Step::Key(key) => at.get(key.as_str()),
        Step::Index(index) => at.get(*index),
    })
}

/// Scalars only: an object, an array and null have no value.
fn write_json(value: Option<&Json>, out: &mut Vec<u8>) -> bool {
    match value {
        Some(Json::String(text)) => out.extend_from_slice(text.as_bytes()),
        Some(Json::Number(number)) => out.extend_from_slice(number.to_string().as_bytes()),
        Some(Json::Bool(flag)) => out.extend_from_slice(if *flag { b"true" } else { b"false" }),
        _ => return false,
    }
    true
}
