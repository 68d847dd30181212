//! LIKE and ILIKE: `%` any characters, `_` one character, an escape character where the statement names one. Patterns
//! that are an equality, a prefix, a suffix or a substring are matched as that.

use super::value::Kernel;
use arrow_array::{ArrayRef, BooleanArray};
use memchr::memmem::Finder;
use std::sync::Arc;

enum Part {
    Text(String),
    One,
    Many,
}

enum Matcher {
    All,
    Equal(String),
    Prefix(String),
    Suffix(String),
    Contains(Box<Finder<'static>>),
    General(Vec<Part>),
}

fn matcher(pattern: &str, escape: Option<char>) -> Result<Matcher, String> {
    let mut parts: Vec<Part> = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        let literal = match c {
            c if Some(c) == escape => match chars.next() {
                Some(next) if next == '%' || next == '_' || Some(next) == escape => next,
                _ => {
                    return Err(format!("LIKE pattern '{pattern}': escape `{c}` must stand before `%`, `_` or itself"));
                }
            },
            '%' => {
                if !matches!(parts.last(), Some(Part::Many)) {
                    parts.push(Part::Many);
                }
                continue;
            }
            '_' => {
                parts.push(Part::One);
                continue;
            }
            c => c,
        };
        match parts.last_mut() {
            Some(Part::Text(text)) => text.push(literal),
            _ => parts.push(Part::Text(literal.into())),
        }
    }
    Ok(match parts.as_slice() {
        [] => Matcher::Equal(String::new()),
        [Part::Many] => Matcher::All,
        [Part::Text(t)] => Matcher::Equal(t.clone()),
        [Part::Text(t), Part::Many] => Matcher::Prefix(t.clone()),
        [Part::Many, Part::Text(t)] => Matcher::Suffix(t.clone()),
        [Part::Many, Part::Text(t), Part::Many] => Matcher::Contains(Box::new(Finder::new(t).into_owned())),
        _ => Matcher::General(parts),
    })
}

impl Matcher {
    fn matches(&self, text: &str) -> bool {
        match self {
            Matcher::All => true,
            Matcher::Equal(t) => text == t,
            Matcher::Prefix(t) => text.starts_with(t.as_str()),
            Matcher::Suffix(t) => text.ends_with(t.as_str()),
            Matcher::Contains(finder) => finder.find(text.as_bytes()).is_some(),
            Matcher::General(parts) => general(parts, text),
        }
    }
}

/// Greedy with one point to come back to: the last `%` tried. Linear in memory, at worst text × pattern in time.
fn general(parts: &[Part], text: &str) -> bool {
    let (mut part, mut rest) = (0, text);
    let mut back: Option<(usize, &str)> = None;
    loop {
        let step = match parts.get(part) {
            None if rest.is_empty() => return true,
            None => None,
            Some(Part::Many) => {
                part += 1;
                back = Some((part, rest));
                continue;
            }
            Some(Part::One) => rest.chars().next().map(|c| c.len_utf8()),
            Some(Part::Text(t)) => rest.starts_with(t.as_str()).then_some(t.len()),
        };
        match (step, &mut back) {
            (Some(length), _) => {
                rest = &rest[length..];
                part += 1;
            }
            (None, Some((after, from))) => {
                let Some(c) = from.chars().next() else { return false };
                *from = &from[c.len_utf8()..];
                (part, rest) = (*after, *from);
            }
            (None, None) => return false,
        }
    }
}

/// The kernel of `input [NOT] LIKE pattern`; `constant` is the pattern where it is a literal.
pub(crate) fn kernel(
    constant: Option<&str>,
    escape: Option<char>,
    negated: bool,
    ignore_case: bool,
) -> Result<Kernel, String> {
    let fold = move |text: &str| if ignore_case { text.to_lowercase() } else { text.to_string() };
    if let Some(pattern) = constant {
        let matcher = matcher(&fold(pattern), escape)?;
        return Ok(Box::new(move |args, rows| {
            let input = args[0].texts();
            Ok(booleans(rows, |row| {
                let text = input.get(row)?;
                let found = if ignore_case { matcher.matches(&text.to_lowercase()) } else { matcher.matches(text) };
                Some(found != negated)
            }))
        }));
    }
    Ok(Box::new(move |args, rows| {
        let (input, pattern) = (args[0].texts(), args[1].texts());
        let mut last: Option<(&str, Matcher)> = None;
        let mut out = BooleanArray::builder(rows);
        for row in 0..rows {
            let (Some(text), Some(now)) = (input.get(row), pattern.get(row)) else {
                out.append_null();
                continue;
            };
            if last.as_ref().is_none_or(|(known, _)| *known != now) {
                last = Some((now, matcher(&fold(now), escape)?));
            }
            let found = last.as_ref().is_some_and(|(_, matcher)| matcher.matches(&fold(text)));
            out.append_value(found != negated);
        }
        Ok(Arc::new(out.finish()))
    }))
}

pub(crate) fn booleans(rows: usize, f: impl FnMut(usize) -> Option<bool>) -> ArrayRef {
    Arc::new((0..rows).map(f).collect::<BooleanArray>())
}
