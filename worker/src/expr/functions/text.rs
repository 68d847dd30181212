//! Functions of texts that Flink has and DataFusion lacks or means otherwise. Positions count characters.

use super::Literals;
use crate::expr::value::{Kernel, Longs, Value, build, build_texts};
use arrow_array::types::Int32Type;
use ef_proto::function::Builtin;
use ef_proto::schema::DataType;
use serde_json::Value as Json;

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
            let (texts, delimiters, indexes) = (args[0].texts(), args[1].texts(), longs(&args[2], &types[2])?);
            build_texts(rows, |row, out| {
                let (Some(text), Some(delimiter), Some(index)) =
                    (texts.get(row), delimiters.get(row), indexes.get(row))
                else {
                    return Ok(false);
                };
                let Ok(index) = usize::try_from(index) else { return Ok(false) };
                let part = match delimiter {
                    "" => text.split_whitespace().nth(index),
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

/// Java's String.hashCode: over UTF-16 units.
fn hash_code(text: &str) -> i32 {
    text.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(unit as i32))
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

enum Step {
    Key(String),
    Index(usize),
}

/// `$.key.other[0]['quoted key']`, with `lax` or `strict` before it.
fn json_path(path: &str) -> Result<Vec<Step>, String> {
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
