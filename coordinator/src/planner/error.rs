//! The one error of the planner: what is wrong, where in the file, and what would be accepted.
//!
//! Code that knows no text reports with a [`Span`] only; [`PlannerError::locate`] adds the source line at the rim.

use std::fmt;

/// Where something stands in the file, counted from 1. `UNKNOWN` (all 0) where nobody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    pub line: u64,
    pub column: u64,
    pub end_line: u64,
    pub end_column: u64,
}

impl Span {
    pub const UNKNOWN: Span = Span { line: 0, column: 0, end_line: 0, end_column: 0 };

    pub const fn at(line: u64, column: u64) -> Span {
        Span { line, column, end_line: line, end_column: column }
    }

    pub const fn is_known(&self) -> bool {
        self.line > 0
    }
}

/// Bad SQL. Displayed as `line 3, column 14: message`, the source line, a caret, and what would be accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannerError {
    pub message: String,
    /// 0 where the place is not known.
    pub line: u64,
    pub column: u64,
    /// The source line; empty until located.
    pub fragment: String,
    /// Characters that the caret underlines; at least 1.
    pub width: usize,
    /// What would be accepted, as one clause.
    pub hint: Option<String>,
}

impl PlannerError {
    pub fn new(message: impl Into<String>, span: Span) -> PlannerError {
        let width = if span.end_line == span.line { span.end_column.saturating_sub(span.column).max(1) } else { 1 };
        PlannerError {
            message: message.into(),
            line: span.line,
            column: span.column,
            fragment: String::new(),
            width: width as usize,
            hint: None,
        }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> PlannerError {
        self.hint = Some(hint.into());
        self
    }

    /// Gives an error that knows no place this one.
    pub fn or_at(mut self, span: Span) -> PlannerError {
        if self.line == 0 {
            (self.line, self.column) = (span.line, span.column);
        }
        self
    }

    /// What to show of the source line, and the character of it that the caret stands below.
    fn shown(&self) -> (String, usize) {
        const SHOWN: usize = 160;
        let at = self.column.saturating_sub(1) as usize;
        let count = self.fragment.chars().count();
        if count <= SHOWN {
            return (self.fragment.clone(), at);
        }
        let start = at.min(count).saturating_sub(SHOWN / 2);
        let middle: String = self.fragment.chars().skip(start).take(SHOWN).collect();
        let (left, right) = (if start > 0 { "…" } else { "" }, if start + SHOWN < count { "…" } else { "" });
        (format!("{left}{middle}{right}"), at - start + left.chars().count())
    }

    /// Adds the source line, and takes what only we know by its name out of the message.
    pub fn locate(mut self, sql: &str) -> PlannerError {
        self.message = super::opaque::shown(&self.message);
        if self.fragment.is_empty() && self.line > 0 {
            self.fragment = sql.lines().nth(self.line as usize - 1).unwrap_or_default().to_string();
        }
        self
    }
}

impl std::error::Error for PlannerError {}

impl fmt::Display for PlannerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}, column {}: ", self.line, self.column)?;
        }
        f.write_str(&self.message)?;
        if !self.fragment.trim().is_empty() {
            let (shown, at) = self.shown();
            // Tabs stay tabs, so that the caret stands below its character.
            let before: String = shown.chars().take(at).map(|c| if c == '\t' { c } else { ' ' }).collect();
            let room = shown.chars().count().saturating_sub(at).max(1);
            write!(f, "\n  {shown}\n  {before}{}", "^".repeat(self.width.clamp(1, room)))?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  {hint}")?;
        }
        Ok(())
    }
}

/// "did you mean" when a known name is close, else the known names.
pub fn near<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let mut known: Vec<&str> = known.into_iter().collect();
    if known.is_empty() {
        return "none is declared".into();
    }
    let lower = name.to_lowercase();
    known.sort_by_key(|candidate| (edit_distance(&candidate.to_lowercase(), &lower), candidate.len()));
    let close = edit_distance(&known[0].to_lowercase(), &lower) <= (name.chars().count() / 3).max(1);
    if close {
        return format!("did you mean `{}`?", known[0]);
    }
    const SHOWN: usize = 8;
    let listed: Vec<String> = known.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    format!("there are: {}{}", listed.join(", "), if known.len() > SHOWN { ", …" } else { "" })
}

/// Levenshtein's.
pub fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
