//! SIMILAR TO as a regular expression, when the pattern is a literal.

use super::build::string;
use super::unsupported;
use crate::planner::dialect::call;
use crate::planner::error::PlannerError;
use datafusion_sql::sqlparser::ast::{Expr, Ident, UnaryOperator, Value, ValueWithSpan};
use datafusion_sql::sqlparser::tokenizer::Span as TokenSpan;
use ef_proto::function::Builtin;

/// `input [NOT] SIMILAR TO pattern [ESCAPE escape]` as a call of REGEXP.
pub fn rewritten(
    input: &Expr,
    pattern: &Expr,
    escape: Option<&ValueWithSpan>,
    negated: bool,
    at: TokenSpan,
) -> Result<Expr, PlannerError> {
    let refused = |what: &str| Err(unsupported(what, at, "accepted: LIKE, REGEXP(string, pattern)"));
    let Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(pattern), .. }) = pattern else {
        return refused("SIMILAR TO without a literal pattern");
    };
    let escape = match escape.map(|value| value.value.clone().into_string().unwrap_or_default()) {
        None => None,
        Some(text) => match (text.chars().next(), text.chars().count()) {
            (Some(c), 1) => Some(c),
            _ => return refused("an ESCAPE of more or less than one character"),
        },
    };
    let Some(regex) = regex(pattern, escape) else { return refused("this pattern of SIMILAR TO") };
    let matches = call(Ident::with_span(at, Builtin::Regexp.name()), vec![input.clone(), string(&regex)]);
    Ok(if negated { Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(matches) } } else { matches })
}

/// The whole text must match: `%` is any text, `_` any character, the rest of SQL's signs are those of regular
/// expressions. None for an escape at the end and for a bracket that is not closed.
fn regex(pattern: &str, escape: Option<char>) -> Option<String> {
    let mut out = String::from("^(?s:");
    let mut rest = pattern;
    while let Some(c) = take(&mut rest) {
        match c {
            c if Some(c) == escape => literal(take(&mut rest)?, &mut out),
            '%' => out.push_str(".*"),
            '_' => out.push('.'),
            '|' | '*' | '+' | '?' | '(' | ')' | '{' | '}' => out.push(c),
            '[' => bracket(&mut rest, &mut out)?,
            c => literal(c, &mut out),
        }
    }
    out.push_str(")$");
    Some(out)
}

fn take(rest: &mut &str) -> Option<char> {
    let mut chars = rest.chars();
    let c = chars.next();
    *rest = chars.as_str();
    c
}

fn literal(c: char, out: &mut String) {
    if "\\.+*?()|[]{}^$#&-~".contains(c) {
        out.push('\\');
    }
    out.push(c);
}

/// Behind `[`: characters and ranges, `^` before them, and classes as `[:ALPHA:]`.
fn bracket(rest: &mut &str, out: &mut String) -> Option<()> {
    out.push('[');
    loop {
        if let Some(class) = rest.strip_prefix("[:") {
            let (name, behind) = class.split_once(":]")?;
            out.push_str(&format!("[:{}:]", name.to_ascii_lowercase()));
            *rest = behind;
            continue;
        }
        match take(rest)? {
            ']' => break,
            c @ ('^' | '-') => out.push(c),
            c => literal(c, out),
        }
    }
    out.push(']');
    Some(())
}

#[cfg(test)]
mod tests {
    use super::regex;

    #[test]
    fn patterns_of_sql_become_regular_expressions_of_the_whole_text() {
        for (pattern, expected) in [
            ("a%_", "^(?s:a.*.)$"),
            ("(ab|c)+[0-9x]?", "^(?s:(ab|c)+[0-9x]?)$"),
            ("[^[:ALPHA:]]{2}", "^(?s:[^[:alpha:]]{2})$"),
            ("1.5$", "^(?s:1\\.5\\$)$"),
            ("10!%", "^(?s:10%)$"),
        ] {
            assert_eq!(regex(pattern, Some('!')).as_deref(), Some(expected), "{pattern}");
        }
        assert_eq!(regex("[a", None), None);
        assert_eq!(regex("a!", Some('!')), None);
    }
}
