//! Arguments that are constants of a form of their own: units of time, regular expressions, patterns of dates. A worker
//! would refuse a wrong one when the job starts; said here it has a place in the text.

use ef_proto::expr::{Expr, ExprKind, Scalar};
use ef_proto::function::Builtin;

/// Stretches of time that a difference is counted in.
const LENGTHS: &[&str] = &[
    "NANOSECOND",
    "MICROSECOND",
    "MILLISECOND",
    "SECOND",
    "MINUTE",
    "HOUR",
    "DAY",
    "WEEK",
    "MONTH",
    "QUARTER",
    "YEAR",
    "DECADE",
    "CENTURY",
];
/// What else a time can be rounded to.
const ROUNDED: &[&str] = &["MILLENNIUM"];
/// What else EXTRACT knows.
const FIELDS: &[&str] = &["ISOYEAR", "DOY", "DOW", "ISODOW", "EPOCH"];

/// Letters of a date pattern, and how often each may stand in a row.
const LETTERS: &[(&str, usize)] =
    &[("yu", usize::MAX), ("QqdHkKhms", 2), ("ML", 4), ("DX", 3), ("E", 4), ("ea", 1), ("S", 9)];

/// Err: what is wrong with the constant, and what would be accepted.
pub fn check(builtin: Builtin, args: &[Expr]) -> Result<(), (String, String)> {
    let text = |at: usize| match args.get(at).map(|arg| &arg.kind) {
        Some(ExprKind::Literal(Scalar::String(text))) => Some(text.as_str()),
        _ => None,
    };
    let unit = |known: &[&[&str]]| {
        let Some(found) = text(0) else { return Ok(()) };
        if known.iter().copied().flatten().any(|unit| unit.eq_ignore_ascii_case(found)) {
            return Ok(());
        }
        Err((format!("unit of time `{found}`"), format!("accepted: {}", known.concat().join(", "))))
    };
    match builtin {
        Builtin::TimestampDiff => unit(&[LENGTHS]),
        Builtin::FloorTime | Builtin::CeilTime => unit(&[LENGTHS, ROUNDED]),
        Builtin::Extract => unit(&[LENGTHS, ROUNDED, FIELDS]),
        Builtin::Regexp | Builtin::RegexpExtract => text(1).map_or(Ok(()), regular),
        Builtin::DateFormat | Builtin::ToTimestamp | Builtin::FromUnixtime => text(1).map_or(Ok(()), date_pattern),
        _ => Ok(()),
    }
}

pub fn regular(pattern: &str) -> Result<(), (String, String)> {
    regex::Regex::new(pattern).map(|_| ()).map_err(|error| {
        // The last line of a syntax error says what is wrong, the others draw it.
        let why = error.to_string();
        let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_string();
        (format!("regular expression '{pattern}': {why}"), "accepted: as in '([a-z]+)-[0-9]{2}'".into())
    })
}

fn date_pattern(pattern: &str) -> Result<(), (String, String)> {
    let hint = || "accepted: letters of y M d D E Q H h K k m s S a X, others in quotes, as in 'yyyy-MM-dd''T''HH:mm'";
    let wrong = |why: String| Err((format!("date pattern '{pattern}': {why}"), hint().to_string()));
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\'' {
            // A doubled quote is an empty text in quotes here, which comes to the same.
            if !chars.by_ref().any(|c| c == '\'') {
                return wrong("a quote is not closed".into());
            }
        } else if c.is_ascii_alphabetic() {
            let mut count = 1;
            while chars.next_if_eq(&c).is_some() {
                count += 1;
            }
            if !LETTERS.iter().any(|(letters, most)| letters.contains(c) && count <= *most) {
                return wrong(format!("`{}` is not known", c.to_string().repeat(count)));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn date_patterns_are_those_that_a_worker_compiles() {
        for good in ["yyyy-MM-dd HH:mm:ss.SSS", "yyyy-MM-dd'T'HH", "yyyy 'week' e", "'it''s' a", "EEE, d MMM", "X"] {
            assert_eq!(date_pattern(good), Ok(()), "{good}");
        }
        for bad in ["yyyy-mmm", "'open", "foo", "yyyy-MM-ddTHH", "SSSSSSSSSS"] {
            assert!(date_pattern(bad).is_err(), "{bad}");
        }
    }
}
