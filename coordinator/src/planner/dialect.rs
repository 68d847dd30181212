//! Flink's lexical rules, and the tokens of a file.
//!
//! A pre-pass over the tokens rejects what Flink's lexer would not take (double quotes, hints that would be ignored) and
//! rewrites the few forms of table arguments that no expression grammar has: `TABLE t [PARTITION BY k]` becomes
//! `TABLE_ARGUMENT(t, k)` and `MODEL m` becomes `m`, inside window functions and ML_PREDICT.

use super::error::{PlannerError, Span};
use super::limits;
use super::types::{self, Fit};
use super::vars::Substituted;
use datafusion_sql::sqlparser::ast::{
    self, CastKind, Expr, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName,
};
use datafusion_sql::sqlparser::dialect::Dialect;
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::{
    Location, Span as TokenSpan, Token, TokenWithSpan, Tokenizer, TokenizerError, Whitespace, Word,
};

/// Functions that take a table: only as `TABLE(…)` in FROM.
pub const TABLE_FUNCTIONS: [&str; 5] = ["TUMBLE", "HOP", "CUMULATE", "SESSION", "ML_PREDICT"];
/// What `TABLE t PARTITION BY k` is called in the syntax tree.
pub const TABLE_ARGUMENT: &str = "TABLE_ARGUMENT";

#[derive(Debug)]
pub struct Flink;

impl Dialect for Flink {
    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        ch == '`'
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        ch.is_alphabetic() || ch == '_'
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        ch.is_alphanumeric() || ch == '_' || ch == '$'
    }

    /// These need backticks as names, as in Flink. Otherwise sqlparser reads each call whose inside is wrong twice, as
    /// what it is and as a function of that name, and nested ones twice to the power of their depth.
    fn is_reserved_for_identifier(&self, keyword: Keyword) -> bool {
        use Keyword::*;
        matches!(
            keyword,
            ARRAY
                | CASE
                | CEIL
                | CONVERT
                | EXISTS
                | EXTRACT
                | FLOOR
                | INTERVAL
                | NOT
                | OVERLAY
                | POSITION
                | SUBSTR
                | SUBSTRING
                | TRIM
        )
    }

    fn supports_filter_during_aggregation(&self) -> bool {
        true
    }

    fn supports_group_by_expr(&self) -> bool {
        true
    }

    fn supports_named_fn_args_with_rarrow_operator(&self) -> bool {
        true
    }

    fn supports_match_recognize(&self) -> bool {
        true
    }

    fn supports_table_versioning(&self) -> bool {
        true
    }

    fn supports_string_literal_concatenation(&self) -> bool {
        false
    }

    fn allow_extract_custom(&self) -> bool {
        true
    }

    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        let Token::Word(word) = &parser.peek_token_ref().token else { return None };
        if word.quote_style.is_some() {
            return None;
        }
        let followed_by = |token: &Token| &parser.peek_nth_token_ref(1).token == token;
        match word.value.to_uppercase().as_str() {
            "CAST" if followed_by(&Token::LParen) => Some(parse_cast(parser, CastKind::Cast)),
            "TRY_CAST" if followed_by(&Token::LParen) => Some(parse_cast(parser, CastKind::TryCast)),
            "MAP" if followed_by(&Token::LBracket) => Some(parse_map(parser)),
            _ => None,
        }
    }
}

/// `CAST(expr AS type)` with Flink's types.
fn parse_cast(parser: &mut Parser, kind: CastKind) -> Result<Expr, ParserError> {
    let at = span(parser.next_token().span);
    parser.expect_token(&Token::LParen)?;
    let expr = parser.parse_expr()?;
    parser.expect_keyword_is(Keyword::AS)?;
    let null = matches!(&expr, Expr::Value(value) if value.value == ast::Value::Null);
    let (ty, fit) = if null { (types::parse_type(parser)?.0, Fit::Any) } else { types::parse_cast_type(parser)? };
    parser.expect_token(&Token::RParen)?;
    let data_type = types::written(&ty, at);
    let cast = Expr::Cast { kind, expr: Box::new(expr), data_type, array: false, format: None };
    let number = |n: u64| Expr::Value(ast::Value::Number(n.to_string(), false).with_empty_span());
    let cut = |cast: Expr, n: u64| call(Ident::new("SUBSTRING"), vec![cast, number(1), number(n)]);
    Ok(match fit {
        Fit::Any => cast,
        // Longer than any text.
        Fit::Most(n) if n >= i32::MAX as u64 => cast,
        Fit::Most(n) => cut(cast, n),
        Fit::Exactly(n) => {
            let blank = Expr::Value(ast::Value::SingleQuotedString(" ".into()).with_empty_span());
            call(Ident::new("RPAD"), vec![cut(cast, n), number(n), blank])
        }
        Fit::Seconds => {
            let field = ast::CeilFloorKind::DateTimeField(ast::DateTimeField::Second);
            Expr::Floor { expr: Box::new(cast), field }
        }
    })
}

/// `MAP[key, value, …]`.
fn parse_map(parser: &mut Parser) -> Result<Expr, ParserError> {
    let name = parser.next_token();
    parser.expect_token(&Token::LBracket)?;
    let items = parser.parse_comma_separated(Parser::parse_expr)?;
    parser.expect_token(&Token::RBracket)?;
    Ok(call(Ident::with_span(name.span, "MAP"), items))
}

/// A plain function call.
pub fn call(name: Ident, args: Vec<Expr>) -> Expr {
    let args = args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect();
    Expr::Function(ast::Function {
        name: ObjectName(vec![ast::ObjectNamePart::Identifier(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: vec![] }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

/// Operators of other dialects that sqlparser reads all the same: what Flink has for them.
fn foreign(token: &Token) -> Option<&'static str> {
    Some(match token {
        Token::DoubleEq => "accepted: a = b",
        Token::Spaceship => "accepted: a IS NOT DISTINCT FROM b",
        Token::DoubleColon => "accepted: CAST(x AS type)",
        Token::Pipe | Token::Ampersand | Token::Caret | Token::ShiftLeft => {
            "accepted: + - * / % and || between strings; there are no operators on bits"
        }
        Token::Tilde | Token::TildeAsterisk | Token::ExclamationMarkTilde | Token::ExclamationMarkTildeAsterisk => {
            "accepted: REGEXP(string, pattern)"
        }
        _ => return None,
    })
}

/// The tokens of a file, without whitespace and comments, each with its place in the original.
pub fn tokens(source: &Substituted) -> Result<Vec<TokenWithSpan>, PlannerError> {
    let tokens = Tokenizer::new(&Flink, &source.text).tokenize_with_location().map_err(|error| {
        let TokenizerError { message, location } = error;
        let (line, column) = source.original(location.line, location.column);
        PlannerError::new(message.to_lowercase(), Span::at(line, column))
    })?;
    let mut kept = Vec::with_capacity(tokens.len());
    for mut token in tokens {
        token.span = original(source, token.span);
        match token.token {
            Token::Whitespace(Whitespace::MultiLineComment(text)) if text.starts_with('+') => {
                return Err(PlannerError::new("hints `/*+ … */` are not supported", span(token.span))
                    .hint("write the options into the table's WITH (…)"));
            }
            Token::Whitespace(_) | Token::EOF => {}
            Token::DoubleQuotedString(text) => {
                return Err(PlannerError::new(format!("double quotes around {text}"), span(token.span))
                    .hint(format!("accepted: `{text}` for an identifier, '{text}' for a string")));
            }
            ref found if let Some(accepted) = foreign(found) => {
                return Err(PlannerError::new(format!("unexpected `{found}`"), span(token.span)).hint(accepted));
            }
            // ROW<a ARRAY<INT>> closes two types; Flink has no shifts.
            Token::ShiftRight => {
                let middle = Location { line: token.span.start.line, column: token.span.start.column + 1 };
                kept.push(TokenWithSpan { token: Token::Gt, span: TokenSpan::new(token.span.start, middle) });
                kept.push(TokenWithSpan { token: Token::Gt, span: TokenSpan::new(middle, token.span.end) });
            }
            // `ROW<>`-like slips and `!=` stay as they are.
            other => kept.push(TokenWithSpan { token: other, span: token.span }),
        }
    }
    limits::tokens(&kept)?;
    Ok(table_arguments(kept))
}

fn original(source: &Substituted, at: TokenSpan) -> TokenSpan {
    let place = |location: Location| {
        let (line, column) = source.original(location.line, location.column);
        Location { line, column }
    };
    TokenSpan::new(place(at.start), place(at.end))
}

pub fn span(token: TokenSpan) -> Span {
    Span { line: token.start.line, column: token.start.column, end_line: token.end.line, end_column: token.end.column }
}

pub fn is_word(token: &TokenWithSpan, expected: &str) -> bool {
    matches!(&token.token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(expected))
}

/// Rewrites the table and model arguments of [`TABLE_FUNCTIONS`], as the head of this file says.
fn table_arguments(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    // For each open parenthesis: whether it is the argument list of a table function.
    let mut open: Vec<bool> = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        let token = &tokens[i];
        let starts_argument = open.last() == Some(&true)
            && out.last().is_some_and(|last| matches!(last.token, Token::LParen | Token::Comma | Token::RArrow));
        let next_is_name = matches!(tokens.get(i + 1).map(|t| &t.token), Some(Token::Word(_)));
        match &token.token {
            Token::LParen => {
                // Also of a function in TABLE(…) that does not exist, so that this is what the message will be about.
                let known = out.last().is_some_and(|last| TABLE_FUNCTIONS.iter().any(|name| is_word(last, name)));
                let called = matches!(out.as_slice(), [.., table, paren, TokenWithSpan { token: Token::Word(_), .. }]
                    if is_word(table, "TABLE") && paren.token == Token::LParen);
                open.push(known || called);
            }
            Token::RParen => {
                open.pop();
            }
            Token::Word(_) if starts_argument && next_is_name && is_word(token, "MODEL") => {
                i += 1;
                continue;
            }
            // A query in parentheses is a table without the word.
            Token::Word(_)
                if starts_argument
                    && is_word(token, "TABLE")
                    && tokens.get(i + 1).is_some_and(|next| next.token == Token::LParen) =>
            {
                i += 1;
                continue;
            }
            Token::Word(_) if starts_argument && next_is_name && is_word(token, "TABLE") => {
                i = table_argument(&tokens, i, &mut out);
                continue;
            }
            _ => {}
        }
        out.push(token.clone());
        i += 1;
    }
    out
}

/// `TABLE a.b [PARTITION BY k | (k, …)]` from `at`; returns where it ends.
fn table_argument(tokens: &[TokenWithSpan], at: usize, out: &mut Vec<TokenWithSpan>) -> usize {
    let span = tokens[at].span;
    let put = |out: &mut Vec<TokenWithSpan>, token: Token| out.push(TokenWithSpan { token, span });
    let name = Word { value: TABLE_ARGUMENT.into(), quote_style: None, keyword: Keyword::NoKeyword };
    put(out, Token::Word(name));
    put(out, Token::LParen);
    let mut i = at + 1;
    out.push(tokens[i].clone());
    i += 1;
    while i + 1 < tokens.len() && tokens[i].token == Token::Period {
        out.extend_from_slice(&tokens[i..i + 2]);
        i += 2;
    }
    if i + 2 < tokens.len() && is_word(&tokens[i], "PARTITION") && is_word(&tokens[i + 1], "BY") {
        put(out, Token::Comma);
        i += 2;
        if tokens[i].token == Token::LParen {
            i += 1;
            while i < tokens.len() && tokens[i].token != Token::RParen {
                out.push(tokens[i].clone());
                i += 1;
            }
            i += 1;
        } else {
            while i < tokens.len() && !matches!(tokens[i].token, Token::Comma | Token::RParen) {
                out.push(tokens[i].clone());
                i += 1;
            }
        }
    }
    put(out, Token::RParen);
    i
}
