//! `${name}` in a file becomes the value of `-D name=value`, in code and in string literals, not in comments.
//!
//! The substituted text remembers where each piece came from, so that every error later names the line and column of
//! the file that the user wrote.

use super::error::{PlannerError, Span};
use std::collections::BTreeMap;

/// A text after substitution.
#[derive(Debug)]
pub struct Substituted {
    pub text: String,
    edits: Vec<Edit>,
    /// Character offset of the start of each line, in the original and in the text.
    original_lines: Vec<usize>,
    lines: Vec<usize>,
}

/// Characters `at..at + len` of the text stand for `from..from + from_len` of the original.
#[derive(Debug)]
struct Edit {
    at: usize,
    len: usize,
    from: usize,
    from_len: usize,
}

/// What the reference to a secret begins with.
const SECRET: [char; 9] = ['$', '{', 's', 'e', 'c', 'r', 'e', 't', ':'];

/// What the scan is inside of.
#[derive(Clone, Copy, PartialEq)]
enum Within {
    Code,
    /// A literal or quoted identifier that this character closes.
    Quoted(char),
    LineComment,
    BlockComment,
}

pub fn substitute(sql: &str, vars: &BTreeMap<String, String>) -> Result<Substituted, PlannerError> {
    let chars: Vec<char> = sql.chars().collect();
    let mut text = String::with_capacity(sql.len());
    let (mut written, mut edits, mut within, mut opened, mut i) = (0, Vec::new(), Within::Code, 0, 0);
    let original_lines = line_starts(sql);
    while i < chars.len() {
        let (c, next) = (chars[i], chars.get(i + 1).copied());
        // `${secret:name}` is for the worker.
        let secret = within == Within::Quoted('\'') && chars[i..].starts_with(&SECRET);
        if c == '$' && next == Some('{') && !secret && matches!(within, Within::Code | Within::Quoted(_)) {
            let (line, column) = position(&original_lines, i);
            let at = Span::at(line, column);
            let end = chars[i..].iter().position(|c| *c == '}' || *c == '\n').map(|n| i + n);
            let Some(end) = end.filter(|end| chars[*end] == '}') else {
                return Err(PlannerError::new("`${` is not closed", at).hint("accepted: ${name}").locate(sql));
            };
            let name: String = chars[i + 2..end].iter().collect();
            let Some(value) = vars.get(name.trim()) else {
                let given = match vars.is_empty() {
                    true => String::new(),
                    false => format!("; set are: {}", vars.keys().cloned().collect::<Vec<_>>().join(", ")),
                };
                return Err(PlannerError::new(format!("variable `{}` is not set", name.trim()), at)
                    .hint(format!("set it with -D {}=VALUE{given}", name.trim()))
                    .locate(sql));
            };
            let len = value.chars().count();
            edits.push(Edit { at: written, len, from: i, from_len: end + 1 - i });
            text.push_str(value);
            written += len;
            i = end + 1;
            continue;
        }
        if within == Within::Code {
            opened = i;
        }
        within = match (within, c, next) {
            (Within::Code, '-', Some('-')) => Within::LineComment,
            (Within::Code, '/', Some('*')) => {
                // The star does not close what it opens: `/*/` is still open.
                text.push('/');
                written += 1;
                i += 1;
                Within::BlockComment
            }
            (Within::Code, '\'' | '`' | '"', _) => Within::Quoted(c),
            (Within::Quoted(quote), c, _) if c == quote => Within::Code,
            (Within::LineComment, '\n', _) => Within::Code,
            (Within::BlockComment, '*', Some('/')) => {
                text.push('*');
                written += 1;
                i += 1;
                Within::Code
            }
            (within, ..) => within,
        };
        text.push(chars[i]);
        written += 1;
        i += 1;
    }
    let unclosed = match within {
        Within::Code | Within::LineComment => None,
        Within::BlockComment => Some(("the comment is", "*/")),
        Within::Quoted('\'') => Some(("the string is", "'")),
        Within::Quoted('`') => Some(("the name in backticks is", "`")),
        Within::Quoted(_) => Some(("the double quotes are", "\"")),
    };
    if let Some((what, closes)) = unclosed {
        let (line, column) = position(&original_lines, opened);
        let error = PlannerError::new(format!("{what} not closed"), Span::at(line, column));
        return Err(error.hint(format!("accepted: {closes} at the end")).locate(sql));
    }
    let lines = line_starts(&text);
    Ok(Substituted { text, edits, original_lines, lines })
}

impl Substituted {
    /// The place in the original of a place in the text, both counted from 1.
    pub fn original(&self, line: u64, column: u64) -> (u64, u64) {
        if self.edits.is_empty() || line == 0 {
            return (line, column);
        }
        let Some(start) = self.lines.get(line as usize - 1) else { return (line, column) };
        let offset = start + column.saturating_sub(1) as usize;
        let before = self.edits.iter().rev().find(|edit| edit.at <= offset);
        let original = match before {
            None => offset,
            // Inside a value: the `${` that it replaced.
            Some(edit) if offset < edit.at + edit.len => edit.from,
            Some(edit) => offset - (edit.at + edit.len) + edit.from + edit.from_len,
        };
        position(&self.original_lines, original)
    }
}

fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.chars().enumerate().filter(|(_, c)| *c == '\n').map(|(i, _)| i + 1)).collect()
}

fn position(starts: &[usize], offset: usize) -> (u64, u64) {
    let line = starts.partition_point(|start| *start <= offset);
    (line as u64, (offset - starts[line - 1] + 1) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    #[test]
    fn variables_are_replaced_in_code_and_literals_but_not_in_comments() {
        let sql = "-- ${a}\n/* ${a} */ SELECT ${a}, '${a}', `${a}` /* '${a}' */";
        let out = substitute(sql, &vars(&[("a", "long value")])).unwrap();
        assert_eq!(out.text, "-- ${a}\n/* ${a} */ SELECT long value, 'long value', `long value` /* '${a}' */");
    }

    #[test]
    fn a_star_does_not_close_the_comment_that_it_opens() {
        let out = substitute("/*/ ${a} */ ${a}", &vars(&[("a", "1")])).unwrap();
        assert_eq!(out.text, "/*/ ${a} */ 1");
        assert!(substitute("/*/ 1", &vars(&[])).is_err());
    }

    #[test]
    fn secrets_in_literals_are_left_to_the_worker() {
        let sql = "WITH ('password' = '${secret:redis}', 'url' = 'h/${a}')";
        let out = substitute(sql, &vars(&[("a", "1")])).unwrap();
        assert_eq!(out.text, "WITH ('password' = '${secret:redis}', 'url' = 'h/1')");
        assert!(substitute("SELECT ${secret:redis}", &vars(&[])).is_err());
    }

    #[test]
    fn places_after_a_replacement_are_those_of_the_original() {
        let sql = "SELECT ${a} x,\n  ${a}${b} y";
        let out = substitute(sql, &vars(&[("a", "1\n2"), ("b", "")])).unwrap();
        for (needle, expected) in [("x", (1, 13)), ("y", (2, 12)), ("1", (1, 8))] {
            let offset = out.text.find(needle).unwrap();
            let (line, column) = position(&out.lines, offset);
            assert_eq!(out.original(line, column), expected, "{needle}");
        }
    }

    #[test]
    fn an_unset_variable_is_an_error_with_its_place() {
        let error = substitute("SELECT 1;\nSELECT '${path}'", &vars(&[("other", "1")])).unwrap_err();
        assert_eq!((error.line, error.column), (2, 9));
        assert!(error.to_string().contains("variable `path` is not set"), "{error}");
        assert!(error.to_string().contains("set are: other"), "{error}");
    }
}
