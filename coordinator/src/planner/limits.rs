//! How deep a statement may become. Trees are walked by recursion, in DataFusion and here, so a text that nests or chains
//! without bound would end the process: [`tokens`] bounds the syntax tree before there is one, [`plan`] what views and
//! WITH make of it, and [`on_deep_stack`] has room for both.

use super::dialect::{is_word, span};
use super::error::PlannerError;
use super::error::Span;
use datafusion_expr::LogicalPlan;
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan};

/// Levels of a syntax tree. The parser itself bounds the brackets among them to 50.
const DEPTH_MAX: usize = 500;
const PLAN_DEPTH_MAX: usize = 1_000;
const PLAN_NODES_MAX: usize = 20_000;
/// Room for the deepest tree in the greediest of DataFusion's walks. Only what is used becomes memory.
const STACK_BYTES: usize = 128 << 20;

/// Plans on a stack of its own: the caller's may be that of a small thread.
pub fn on_deep_stack<T: Send>(plan: impl FnOnce() -> Result<T, PlannerError> + Send) -> Result<T, PlannerError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("planner".into()).stack_size(STACK_BYTES);
        match thread.spawn_scoped(scope, plan) {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(error) => Err(PlannerError::new(format!("cannot start the planner's thread: {error}"), Span::UNKNOWN)),
        }
    })
}

/// What an open bracket holds: `a AND b AND c` and `a + b + c` nest to the left, one level an operator, and so do joins
/// and unions.
#[derive(Default)]
struct Level {
    /// What closes it: `)`, `]`, `>`, or EOF for the END of a CASE.
    close: Option<Token>,
    relations: usize,
    logical: usize,
    operators: usize,
}

impl Level {
    fn depth(&self) -> usize {
        1 + self.relations + self.logical + self.operators
    }
}

/// Refuses a file with a statement whose tree could be deeper than [`DEPTH_MAX`].
pub fn tokens(tokens: &[TokenWithSpan]) -> Result<(), PlannerError> {
    let mut open = vec![Level::default()];
    let mut depth = 1;
    let mut last: Option<&TokenWithSpan> = None;
    for token in tokens {
        let word = |words: &[&str]| words.iter().any(|word| is_word(token, word));
        let opens = match &token.token {
            Token::LParen => Some(Token::RParen),
            Token::LBracket => Some(Token::RBracket),
            Token::Lt if last.is_some_and(|last| ["ARRAY", "MAP", "ROW"].iter().any(|ty| is_word(last, ty))) => {
                Some(Token::Gt)
            }
            _ if word(&["CASE"]) => Some(Token::EOF),
            _ => None,
        };
        last = Some(token);
        let closes = if word(&["END"]) { &Token::EOF } else { &token.token };
        let top = open.len() - 1;
        if let Some(close) = opens {
            open.push(Level { close: Some(close), ..Level::default() });
            depth += 1;
        } else if open[top].close.as_ref() == Some(closes) {
            depth -= open[top].depth();
            open.pop();
        } else {
            let level = &mut open[top];
            depth -= level.depth();
            match &token.token {
                Token::SemiColon => {
                    open = vec![Level::default()];
                    depth = 1;
                    continue;
                }
                Token::Comma => (level.logical, level.operators) = (0, 0),
                _ if word(&["UNION", "EXCEPT", "INTERSECT", "JOIN"]) => level.relations += 1,
                _ if word(&["SELECT", "FROM", "WHERE", "GROUP", "HAVING", "ON", "WHEN", "THEN", "ELSE"]) => {
                    (level.logical, level.operators) = (0, 0);
                }
                _ if word(&["AND", "OR"]) => (level.logical, level.operators) = (level.logical + 1, 0),
                Token::Word(word) if word.quote_style.is_some() || !is_operator(&word.value) => {}
                Token::Number(..) | Token::SingleQuotedString(_) | Token::Period => {}
                _ => level.operators += 1,
            }
            depth += level.depth();
        }
        if depth > DEPTH_MAX {
            return Err(too_deep(span(token.span)));
        }
    }
    Ok(())
}

fn is_operator(word: &str) -> bool {
    ["NOT", "IS", "IN", "LIKE", "BETWEEN"].iter().any(|operator| word.eq_ignore_ascii_case(operator))
}

pub fn too_deep(at: Span) -> PlannerError {
    PlannerError::new("the statement is nested too deeply", at).hint(format!(
        "accepted: fewer than 50 brackets inside one another and {DEPTH_MAX} operators in a row; IN (…) for many \
         alternatives, a view for each part of a long query"
    ))
}

/// Refuses a plan that views and WITH have made too deep, or too large: each of them doubles what it reads twice.
pub fn plan(plan: &LogicalPlan, statement: Span) -> Result<(), PlannerError> {
    fn fits(plan: &LogicalPlan, depth: usize, nodes: &mut usize) -> bool {
        *nodes += 1;
        depth < PLAN_DEPTH_MAX
            && *nodes < PLAN_NODES_MAX
            && plan.inputs().into_iter().all(|input| fits(input, depth + 1, nodes))
    }
    if fits(plan, 0, &mut 0) {
        return Ok(());
    }
    let message = format!("a query of more than {PLAN_NODES_MAX} operators, or {PLAN_DEPTH_MAX} on top of one another");
    Err(PlannerError::new(message, statement)
        .hint("views and WITH count with all that they read, each time they are read; cut the query into several jobs"))
}
