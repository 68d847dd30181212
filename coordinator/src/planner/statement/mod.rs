//! Statements: a recursive descent for Flink's DDL and job statements around sqlparser's grammar of queries,
//! expressions and types.

mod pieces;
mod table;

use super::dialect::{self, Flink, span};
use super::error::{PlannerError, Span, edit_distance, near};
use super::limits;
use super::types::{expect_word, peek_word, word};
use super::vars::Substituted;
use datafusion_sql::sqlparser::ast::{Expr, Query};
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::Token;
use ef_proto::schema::{Field, Schema};
use pieces::{comment, fields, if_not_exists, name, names, option_word, options};
use std::collections::BTreeMap;
use table::create_table;

#[derive(Debug)]
pub struct Statement {
    pub kind: Kind,
    pub span: Span,
}

#[derive(Debug)]
pub enum Kind {
    CreateTable(Box<CreateTable>),
    CreateView { name: Name, columns: Vec<Name>, query: Box<Query>, unless_exists: bool },
    CreateModel { name: Name, inputs: Schema, outputs: Schema, options: Options, unless_exists: bool },
    Drop { what: Dropped, name: Name, if_exists: bool },
    Set { key: String, value: String },
    Reset { key: Option<String> },
    Insert { table: Name, columns: Vec<Name>, query: Box<Query> },
    Query(Box<Query>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    Table,
    View,
    Model,
}

/// A name and where it stands.
#[derive(Clone, Debug)]
pub struct Name {
    pub text: String,
    pub span: Span,
}

#[derive(Debug)]
pub struct CreateTable {
    pub name: Name,
    pub unless_exists: bool,
    pub columns: Vec<ColumnDef>,
    /// (column, expression, where the clause stands)
    pub watermark: Option<(Name, Expr, Span)>,
    pub primary_key: Vec<Name>,
    pub partitioned_by: Vec<Name>,
    pub options: Options,
}

/// What stands in `WITH (…)`, and where each key stands.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub values: BTreeMap<String, String>,
    pub places: BTreeMap<String, Span>,
}

#[derive(Debug)]
pub struct ColumnDef {
    pub name: Name,
    pub kind: ColumnDefKind,
}

#[derive(Debug)]
pub enum ColumnDefKind {
    Physical(Field),
    Metadata { field: Field, key: String, virtual_: bool },
    Computed { expr: Box<Expr>, span: Span },
}

/// All statements of a file.
pub fn parse(source: &Substituted) -> Result<Vec<Statement>, PlannerError> {
    let tokens = dialect::tokens(source)?;
    let mut parser = Parser::new(&Flink).with_tokens_with_locations(tokens);
    let mut statements = Vec::new();
    // None outside a statement set.
    let mut set: Option<Span> = None;
    loop {
        while parser.consume_token(&Token::SemiColon) {}
        let start = parser.peek_token();
        let at = span(start.span);
        if start.token == Token::EOF {
            break;
        }
        if peek_word(&parser, 0, "END") && set.is_some() {
            parser.next_token();
            set = None;
        } else if peek_word(&parser, 0, "BEGIN")
            || peek_word(&parser, 0, "EXECUTE") && peek_word(&parser, 1, "STATEMENT")
        {
            begin_set(&mut parser).map_err(|error| from_parser(error, at))?;
            if set.replace(at).is_some() {
                return Err(PlannerError::new("a statement set inside a statement set", at));
            }
            continue;
        } else {
            let kind = statement(&mut parser, at)?;
            if set.is_some() && !matches!(kind, Kind::Insert { .. }) {
                return Err(PlannerError::new("only INSERT INTO may stand in a statement set", at));
            }
            statements.push(Statement { kind, span: at });
        }
        let end = parser.peek_token();
        if end.token != Token::SemiColon && end.token != Token::EOF {
            return Err(PlannerError::new(format!("unexpected `{}`", end.token), span(end.span))
                .hint("accepted: `;` and the next statement, or the end of the file"));
        }
    }
    match set {
        Some(at) => Err(PlannerError::new("the statement set is not closed", at).hint("accepted: END;")),
        None => Ok(statements),
    }
}

/// `BEGIN STATEMENT SET;` or `EXECUTE STATEMENT SET BEGIN`.
fn begin_set(parser: &mut Parser) -> Result<(), ParserError> {
    let execute = word(parser, "EXECUTE");
    if !execute {
        expect_word(parser, "BEGIN")?;
    }
    expect_word(parser, "STATEMENT")?;
    expect_word(parser, "SET")?;
    if execute { expect_word(parser, "BEGIN") } else { parser.expect_token(&Token::SemiColon).map(|_| ()) }
}

const ACCEPTED: &str = "accepted: CREATE TABLE, CREATE VIEW, CREATE MODEL, DROP, SET, RESET, INSERT INTO, \
                        BEGIN STATEMENT SET, and one SELECT at the end";

fn statement(parser: &mut Parser, at: Span) -> Result<Kind, PlannerError> {
    let refuse = |what: &str, hint: &str| Err(PlannerError::new(format!("{what} is not supported"), at).hint(hint));
    let first = parser.peek_token();
    let keyword = match &first.token {
        Token::Word(word) => word.value.to_uppercase(),
        Token::LParen => "SELECT".into(),
        other => return Err(PlannerError::new(format!("unexpected `{other}`"), at).hint(ACCEPTED)),
    };
    let parsed = match keyword.as_str() {
        "CREATE" => return create(parser, at),
        "DROP" => drop_object(parser),
        "SET" => set(parser),
        "RESET" => reset(parser),
        "INSERT" => insert(parser),
        "SELECT" | "WITH" | "VALUES" => query(parser).map(Kind::Query),
        "EXPLAIN" => return refuse("EXPLAIN", "use `efctl explain FILE`"),
        "ALTER" | "DESCRIBE" | "DESC" | "SHOW" | "USE" | "LOAD" | "UNLOAD" | "ANALYZE" | "ADD" | "REMOVE"
        | "UPDATE" | "DELETE" | "MERGE" | "TRUNCATE" | "CALL" | "COMPILE" | "STOP" | "EXECUTE" => {
            return refuse(&keyword, ACCEPTED);
        }
        _ => {
            let known = ["CREATE", "DROP", "SET", "RESET", "INSERT", "SELECT", "WITH", "VALUES", "BEGIN"];
            let meant = known.iter().find(|known| edit_distance(known, &keyword) <= 2);
            return Err(PlannerError::new(format!("unexpected `{}`", first.token), at).hint(match meant {
                Some(meant) => format!("did you mean {meant}?"),
                None => ACCEPTED.to_string(),
            }));
        }
    };
    parsed.map_err(|error| from_parser(error, at))
}

fn create(parser: &mut Parser, at: Span) -> Result<Kind, PlannerError> {
    parser.next_token();
    if word(parser, "OR") {
        return Err(
            PlannerError::new("CREATE OR REPLACE is not supported", at).hint("accepted: CREATE … IF NOT EXISTS")
        );
    }
    word(parser, "TEMPORARY");
    let what = parser.peek_token();
    let located = |error| from_parser(error, at);
    if word(parser, "TABLE") {
        create_table(parser)
    } else if word(parser, "VIEW") {
        create_view(parser).map_err(located)
    } else if word(parser, "MODEL") {
        create_model(parser).map_err(located)
    } else {
        let (text, at) = (what.token.to_string().to_uppercase(), span(what.span));
        let known =
            matches!(text.as_str(), "FUNCTION" | "SYSTEM" | "CATALOG" | "DATABASE" | "CONNECTION" | "MATERIALIZED");
        let message =
            if known { format!("CREATE {text} is not supported") } else { format!("unexpected `{}`", what.token) };
        Err(PlannerError::new(message, at).hint("accepted: TABLE, VIEW or MODEL after CREATE [TEMPORARY]"))
    }
}

fn create_view(parser: &mut Parser) -> Result<Kind, ParserError> {
    let unless_exists = if_not_exists(parser)?;
    let name = name(parser)?;
    let mut columns = vec![];
    if parser.consume_token(&Token::LParen) {
        columns = parser.parse_comma_separated(|parser| {
            let column = self::name(parser)?;
            comment(parser)?;
            Ok(column)
        })?;
        parser.expect_token(&Token::RParen)?;
    }
    comment(parser)?;
    expect_word(parser, "AS")?;
    Ok(Kind::CreateView { name, columns, query: query(parser)?, unless_exists })
}

fn create_model(parser: &mut Parser) -> Result<Kind, ParserError> {
    let unless_exists = if_not_exists(parser)?;
    let name = name(parser)?;
    expect_word(parser, "INPUT")?;
    let inputs = fields(parser)?;
    expect_word(parser, "OUTPUT")?;
    let outputs = fields(parser)?;
    comment(parser)?;
    expect_word(parser, "WITH")?;
    Ok(Kind::CreateModel { name, inputs, outputs, options: options(parser)?, unless_exists })
}

fn drop_object(parser: &mut Parser) -> Result<Kind, ParserError> {
    parser.next_token();
    word(parser, "TEMPORARY");
    let what = if word(parser, "TABLE") {
        Dropped::Table
    } else if word(parser, "VIEW") {
        Dropped::View
    } else if word(parser, "MODEL") {
        Dropped::Model
    } else {
        let found = parser.peek_token();
        return parser.expected("TABLE, VIEW or MODEL", found);
    };
    let if_exists = word(parser, "IF");
    if if_exists {
        expect_word(parser, "EXISTS")?;
    }
    Ok(Kind::Drop { what, name: name(parser)?, if_exists })
}

/// `SET 'key' = 'value'`; the client's older `SET key = value` too.
fn set(parser: &mut Parser) -> Result<Kind, ParserError> {
    parser.next_token();
    let key = option_word(parser, "SET 'key' = 'value'")?;
    parser.expect_token(&Token::Eq)?;
    let value = option_word(parser, "SET 'key' = 'value'")?;
    Ok(Kind::Set { key, value })
}

fn reset(parser: &mut Parser) -> Result<Kind, ParserError> {
    parser.next_token();
    let all = matches!(parser.peek_token().token, Token::SemiColon | Token::EOF);
    Ok(Kind::Reset { key: if all { None } else { Some(option_word(parser, "RESET 'key'")?) } })
}

fn insert(parser: &mut Parser) -> Result<Kind, ParserError> {
    parser.next_token();
    if peek_word(parser, 0, "OVERWRITE") {
        let found = parser.peek_token();
        return parser.expected("INTO (INSERT OVERWRITE is not supported)", found);
    }
    expect_word(parser, "INTO")?;
    let table = name(parser)?;
    if peek_word(parser, 0, "PARTITION") {
        let found = parser.peek_token();
        return parser.expected("a query (PARTITION (…) of an INSERT is not supported)", found);
    }
    let listed = parser.peek_token().token == Token::LParen
        && !["SELECT", "WITH", "VALUES"].iter().any(|word| peek_word(parser, 1, word))
        && parser.peek_nth_token(1).token != Token::LParen;
    let columns = if listed { names(parser)? } else { vec![] };
    Ok(Kind::Insert { table, columns, query: query(parser)? })
}

fn query(parser: &mut Parser) -> Result<Box<Query>, ParserError> {
    parser.parse_query()
}

/// sqlparser says where in its text: `Expected: x, found: y at Line: 3, Column: 14`.
pub fn from_parser(error: ParserError, at: Span) -> PlannerError {
    let text = match error {
        ParserError::ParserError(text) | ParserError::TokenizerError(text) => text,
        ParserError::RecursionLimitExceeded => return limits::too_deep(at),
    };
    let (message, place) = match text.rsplit_once(" at Line: ") {
        None => (text.as_str(), None),
        Some((message, place)) => {
            let place = place
                .split_once(", Column: ")
                .and_then(|(line, column)| Some(Span::at(line.trim().parse().ok()?, column.trim().parse().ok()?)));
            (message, place)
        }
    };
    let place = place.filter(Span::is_known);
    // "Expected: WHAT, found: TOKEN" becomes a message and what would be accepted.
    let split = message.strip_prefix("Expected: ").and_then(|rest| rest.rsplit_once(", found: "));
    match split {
        Some((accepted, found)) => {
            let end = found == "EOF";
            let message = if end { "the statement ends too early".into() } else { format!("unexpected `{found}`") };
            let mut error = PlannerError::new(message, place.unwrap_or(at)).hint(format!("accepted: {accepted}"));
            error.width = if end { 1 } else { found.chars().count() };
            error
        }
        None => PlannerError::new(message.to_string(), place.unwrap_or(at)),
    }
}

impl Name {
    /// An error at this name: it is not there, and these are.
    pub fn unknown<'a>(&self, what: &str, known: impl IntoIterator<Item = &'a str>) -> PlannerError {
        PlannerError::new(format!("{what} `{}` does not exist", self.text), self.span).hint(near(&self.text, known))
    }
}
