//! Functions that cut, pad, repeat and find pieces of texts. Positions count characters from 1. What a query can blow
//! up without reading anything has a bound: a text is at most 16 MiB.

use crate::expr::value::{Kernel, Longs, Value, build, build_texts};
use arrow_array::types::Int32Type;
use ef_proto::function::Builtin;
use ef_proto::schema::DataType;

const BYTES_MAX: usize = 16 << 20;

fn longs<'a>(value: &'a Value, ty: &DataType) -> Result<Longs<'a>, String> {
    Longs::of(value, ty).ok_or_else(|| format!("{ty} is not carried by an integer"))
}

pub(super) fn kernel(function: Builtin, types: &[DataType]) -> Result<Kernel, String> {
    let types = types.to_vec();
    Ok(match function {
        Builtin::Left | Builtin::Right => Box::new(move |args, rows| {
            let (texts, lengths) = (args[0].texts(), longs(&args[1], &types[1])?);
            build_texts(rows, |row, out| {
                let Some((text, length)) = texts.get(row).zip(lengths.get(row)) else { return Ok(false) };
                let length = usize::try_from(length).unwrap_or(0);
                let piece = if function == Builtin::Left { first(text, length) } else { last(text, length) };
                out.extend_from_slice(piece.as_bytes());
                Ok(true)
            })
        }),
        Builtin::Lpad | Builtin::Rpad => Box::new(move |args, rows| {
            let (texts, lengths, pads) = (args[0].texts(), longs(&args[1], &types[1])?, args[2].texts());
            build_texts(rows, |row, out| {
                let (Some(text), Some(length), Some(pad)) = (texts.get(row), lengths.get(row), pads.get(row)) else {
                    return Ok(false);
                };
                let Ok(length) = usize::try_from(length) else { return Ok(false) };
                if pad.is_empty() {
                    return Ok(false);
                }
                // Four bytes are the longest character.
                if length > BYTES_MAX / 4 {
                    return Err(too_long(format!("a text padded to {length} characters")));
                }
                let text = first(text, length);
                if function == Builtin::Rpad {
                    out.extend_from_slice(text.as_bytes());
                }
                for c in pad.chars().cycle().take(length - text.chars().count()) {
                    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
                if function == Builtin::Lpad {
                    out.extend_from_slice(text.as_bytes());
                }
                Ok(true)
            })
        }),
        Builtin::Repeat => Box::new(move |args, rows| {
            let (texts, times) = (args[0].texts(), longs(&args[1], &types[1])?);
            build_texts(rows, |row, out| {
                let Some((text, times)) = texts.get(row).zip(times.get(row)) else { return Ok(false) };
                let times = usize::try_from(times).unwrap_or(0);
                match text.len().checked_mul(times) {
                    Some(0) => {}
                    Some(bytes) if bytes <= BYTES_MAX => out.extend_from_slice(text.repeat(times).as_bytes()),
                    _ => return Err(too_long(format!("a text of {} bytes {times} times", text.len()))),
                }
                Ok(true)
            })
        }),
        Builtin::Chr => Box::new(move |args, rows| {
            let codes = longs(&args[0], &types[0])?;
            build_texts(rows, |row, out| {
                let Some(code) = codes.get(row) else { return Ok(false) };
                if code >= 0 {
                    out.extend_from_slice(char::from(code as u8).encode_utf8(&mut [0; 4]).as_bytes());
                }
                Ok(true)
            })
        }),
        Builtin::Overlay => Box::new(move |args, rows| {
            let (texts, pieces, starts) = (args[0].texts(), args[1].texts(), longs(&args[2], &types[2])?);
            let lengths = args.get(3).map(|v| longs(v, &types[3])).transpose()?;
            build_texts(rows, |row, out| {
                let (Some(text), Some(piece), Some(start)) = (texts.get(row), pieces.get(row), starts.get(row)) else {
                    return Ok(false);
                };
                let length = match &lengths {
                    None => piece.chars().count() as i64,
                    Some(lengths) => match lengths.get(row) {
                        Some(length) => length,
                        None => return Ok(false),
                    },
                };
                overlay(text, piece, start, length, out);
                Ok(true)
            })
        }),
        Builtin::Locate => Box::new(move |args, rows| {
            let (parts, texts) = (args[0].texts(), args[1].texts());
            let from = args.get(2).map(|v| longs(v, &types[2])).transpose()?;
            build::<Int32Type>(rows, &DataType::Int32, |row| {
                let Some((part, text)) = parts.get(row).zip(texts.get(row)) else { return Ok(None) };
                let from = from.as_ref().map_or(Some(1), |from| from.get(row));
                Ok(from.map(|from| locate(part, text, from)))
            })
        }),
        Builtin::Elt => Box::new(move |args, rows| {
            let index = longs(&args[0], &types[0])?;
            let texts: Vec<_> = args.iter().skip(1).map(Value::texts).collect();
            build_texts(rows, |row, out| {
                let at = index.get(row).and_then(|i| usize::try_from(i).ok()?.checked_sub(1));
                let text = at.and_then(|at| texts.get(at)?.get(row));
                out.extend_from_slice(text.unwrap_or_default().as_bytes());
                Ok(text.is_some())
            })
        }),
        other => return Err(format!("{} does not cut texts", other.name())),
    })
}

fn too_long(what: String) -> String {
    format!("{what} is longer than the {} MiB that a text may have", BYTES_MAX >> 20)
}

/// Where the n-th character from the start begins.
fn byte_of(text: &str, chars: usize) -> usize {
    text.char_indices().nth(chars).map_or(text.len(), |(at, _)| at)
}

fn first(text: &str, chars: usize) -> &str {
    &text[..byte_of(text, chars)]
}

fn last(text: &str, chars: usize) -> &str {
    let skipped = text.chars().count().saturating_sub(chars);
    &text[byte_of(text, skipped)..]
}

/// Flink's rules: a start outside the text changes nothing, and a length that is not positive drops the rest.
fn overlay(text: &str, piece: &str, start: i64, length: i64, out: &mut Vec<u8>) {
    let chars = text.chars().count() as i64;
    if start < 1 || start > chars {
        return out.extend_from_slice(text.as_bytes());
    }
    let (head, tail) = text.split_at(byte_of(text, start as usize - 1));
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(piece.as_bytes());
    if length > 0 && length <= chars - start {
        out.extend_from_slice(&tail.as_bytes()[byte_of(tail, length as usize)..]);
    }
}

fn locate(part: &str, text: &str, from: i64) -> i32 {
    let Some(skipped) = from.checked_sub(1).and_then(|n| usize::try_from(n).ok()) else { return 0 };
    if skipped > text.chars().count() {
        return 0;
    }
    let rest = &text[byte_of(text, skipped)..];
    rest.find(part).map_or(0, |at| (skipped + rest[..at].chars().count() + 1) as i32)
}
