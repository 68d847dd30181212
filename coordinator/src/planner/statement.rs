//! Statements: a recursive descent for Flink's DDL and job statements around sqlparser's grammar of queries,
//! expressions and types.

use super::dialect::{self, Flink, span};
use super::error::{PlannerError, Span, edit_distance, near};
use super::types::{self, expect_word, peek_word, word};
use super::vars::Substituted;
use datafusion_sql::sqlparser::ast::{Expr, Ident, Query};
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::Token;
use ef_proto::schema::{Field, Schema};
use std::collections::BTreeMap;

#[derive(Debug)]
pub struct Statement {
    pub kind: Kind,
    pub span: Span,
}

#[derive(Debug)]
pub enum Kind {
    CreateTable(Box<CreateTable>),
    CreateView { name: Name, columns: Vec<Name>, query: Box<Query>, unless_exists: bool },
    CreateModel { name: Name, inputs: Schema, outputs: Schema, options: BTreeMap<String, String>, unless_exists: bool },
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
    pub options: BTreeMap<String, String>,
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

fn create_table(parser: &mut Parser) -> Result<Kind, PlannerError> {
    let at = span(parser.peek_token().span);
    let located = |error| from_parser(error, at);
    let unless_exists = if_not_exists(parser).map_err(located)?;
    let name = name(parser).map_err(located)?;
    let mut table = CreateTable {
        name,
        unless_exists,
        columns: vec![],
        watermark: None,
        primary_key: vec![],
        partitioned_by: vec![],
        options: BTreeMap::new(),
    };
    let unsupported = |parser: &Parser, what: &str, hint: &str| {
        Err(PlannerError::new(format!("{what} is not supported"), span(parser.peek_token().span)).hint(hint))
    };
    if peek_word(parser, 0, "AS") {
        return unsupported(
            parser,
            "CREATE TABLE … AS SELECT",
            "accepted: CREATE TABLE with columns, then INSERT INTO",
        );
    }
    parser.expect_token(&Token::LParen).map_err(located)?;
    loop {
        element(parser, &mut table)?;
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    parser.expect_token(&Token::RParen).map_err(located)?;
    comment(parser).map_err(located)?;
    if peek_word(parser, 0, "DISTRIBUTED") {
        return unsupported(parser, "DISTRIBUTED BY", "accepted: PARTITIONED BY (column, …)");
    }
    if word(parser, "PARTITIONED") {
        expect_word(parser, "BY").map_err(located)?;
        table.partitioned_by = names(parser).map_err(located)?;
    }
    if word(parser, "WITH") {
        table.options = options(parser).map_err(located)?;
    }
    if peek_word(parser, 0, "LIKE") {
        return unsupported(parser, "CREATE TABLE … LIKE", "write the columns and options out");
    }
    if peek_word(parser, 0, "AS") {
        return unsupported(
            parser,
            "CREATE TABLE … AS SELECT",
            "accepted: CREATE TABLE with columns, then INSERT INTO",
        );
    }
    Ok(Kind::CreateTable(Box::new(table)))
}

/// A column, the watermark or the primary key.
fn element(parser: &mut Parser, table: &mut CreateTable) -> Result<(), PlannerError> {
    let at = span(parser.peek_token().span);
    let located = |error| from_parser(error, at);
    if peek_word(parser, 0, "WATERMARK") && peek_word(parser, 1, "FOR") {
        parser.next_token();
        parser.next_token();
        let column = name(parser).map_err(located)?;
        expect_word(parser, "AS").map_err(located)?;
        let expr = parser.parse_expr().map_err(located)?;
        if table.watermark.replace((column, expr, at)).is_some() {
            return Err(PlannerError::new("a second WATERMARK", at).hint("accepted: one watermark a table"));
        }
        return Ok(());
    }
    if peek_word(parser, 0, "CONSTRAINT") {
        parser.next_token();
        name(parser).map_err(located)?;
    }
    if peek_word(parser, 0, "PRIMARY") && peek_word(parser, 1, "KEY") {
        parser.next_token();
        parser.next_token();
        table.primary_key = names(parser).map_err(located)?;
        return enforced(parser);
    }
    if peek_word(parser, 0, "UNIQUE") && matches!(parser.peek_nth_token(1).token, Token::LParen) {
        return Err(
            PlannerError::new("UNIQUE is not supported", at).hint("accepted: PRIMARY KEY (column, …) NOT ENFORCED")
        );
    }
    let column = name(parser).map_err(located)?;
    if word(parser, "AS") {
        let expr_at = span(parser.peek_token().span);
        let expr = parser.parse_expr().map_err(located)?;
        comment(parser).map_err(located)?;
        table
            .columns
            .push(ColumnDef { name: column, kind: ColumnDefKind::Computed { expr: Box::new(expr), span: expr_at } });
        return Ok(());
    }
    let (ty, nullable) = types::parse_type(parser).map_err(located)?;
    let mut field = Field::new(&column.text, ty, nullable);
    if word(parser, "METADATA") {
        let key = if word(parser, "FROM") { string(parser).map_err(located)? } else { column.text.clone() };
        let virtual_ = word(parser, "VIRTUAL");
        comment(parser).map_err(located)?;
        table.columns.push(ColumnDef { name: column, kind: ColumnDefKind::Metadata { field, key, virtual_ } });
        return Ok(());
    }
    let key_at = parser.peek_token();
    if word(parser, "PRIMARY") {
        expect_word(parser, "KEY").map_err(located)?;
        if !table.primary_key.is_empty() {
            return Err(PlannerError::new("a second PRIMARY KEY", span(key_at.span)));
        }
        table.primary_key.push(column.clone());
        field.nullable = false;
        enforced(parser)?;
    }
    comment(parser).map_err(located)?;
    if peek_word(parser, 0, "DEFAULT") {
        return Err(PlannerError::new("DEFAULT is not supported", span(parser.peek_token().span)));
    }
    table.columns.push(ColumnDef { name: column, kind: ColumnDefKind::Physical(field) });
    Ok(())
}

fn enforced(parser: &mut Parser) -> Result<(), PlannerError> {
    if peek_word(parser, 0, "NOT") && peek_word(parser, 1, "ENFORCED") {
        parser.next_token();
        parser.next_token();
        return Ok(());
    }
    Err(PlannerError::new("a primary key that is enforced", span(parser.peek_token().span))
        .hint("accepted: PRIMARY KEY (column, …) NOT ENFORCED: uniqueness is the data's promise"))
}

fn create_view(parser: &mut Parser) -> Result<Kind, ParserError> {
    let unless_exists = if_not_exists(parser)?;
    let name = name(parser)?;
    let columns = if parser.peek_token().token == Token::LParen { names(parser)? } else { vec![] };
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

/// A quoted string, or bare words as in `table.exec.state.ttl`.
fn option_word(parser: &mut Parser, accepted: &str) -> Result<String, ParserError> {
    let mut text = match parser.next_token() {
        token if matches!(token.token, Token::SingleQuotedString(_) | Token::Word(_) | Token::Number(..)) => {
            match token.token {
                Token::SingleQuotedString(text) => return Ok(text),
                Token::Word(word) => word.value,
                other => other.to_string(),
            }
        }
        token => return parser.expected(accepted, token),
    };
    loop {
        match parser.peek_token().token {
            Token::Period => text.push('.'),
            Token::Minus => text.push('-'),
            Token::Word(word) => text.push_str(&word.value),
            Token::Number(number, _) => text.push_str(&number),
            _ => return Ok(text),
        }
        parser.next_token();
    }
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

fn if_not_exists(parser: &mut Parser) -> Result<bool, ParserError> {
    let given = peek_word(parser, 0, "IF") && peek_word(parser, 1, "NOT");
    if given {
        parser.next_token();
        parser.next_token();
        expect_word(parser, "EXISTS")?;
    }
    Ok(given)
}

/// One name. Catalogs and databases do not exist here.
fn name(parser: &mut Parser) -> Result<Name, ParserError> {
    let token = parser.peek_token();
    let Ident { value, .. } = parser.parse_identifier()?;
    if parser.peek_token().token == Token::Period {
        let found = parser.peek_token();
        return parser.expected("a plain name (there are no catalogs and databases)", found);
    }
    Ok(Name { text: value, span: span(token.span) })
}

fn names(parser: &mut Parser) -> Result<Vec<Name>, ParserError> {
    parser.expect_token(&Token::LParen)?;
    let names = parser.parse_comma_separated(name)?;
    parser.expect_token(&Token::RParen)?;
    Ok(names)
}

/// `(name type, …)` of a model.
fn fields(parser: &mut Parser) -> Result<Schema, ParserError> {
    parser.expect_token(&Token::LParen)?;
    let fields = parser.parse_comma_separated(|parser| {
        let name = name(parser)?;
        let (ty, nullable) = types::parse_type(parser)?;
        comment(parser)?;
        Ok(Field::new(name.text, ty, nullable))
    })?;
    parser.expect_token(&Token::RParen)?;
    Ok(Schema::new(fields))
}

fn comment(parser: &mut Parser) -> Result<(), ParserError> {
    if word(parser, "COMMENT") {
        string(parser)?;
    }
    Ok(())
}

fn string(parser: &mut Parser) -> Result<String, ParserError> {
    let token = parser.next_token();
    match token.token {
        Token::SingleQuotedString(text) => Ok(text),
        _ => parser.expected("a string in single quotes", token),
    }
}

/// `('key' = 'value', …)`.
fn options(parser: &mut Parser) -> Result<BTreeMap<String, String>, ParserError> {
    parser.expect_token(&Token::LParen)?;
    let mut options = BTreeMap::new();
    while parser.peek_token().token != Token::RParen {
        let at = parser.peek_token();
        let key = string(parser)?;
        parser.expect_token(&Token::Eq)?;
        let value = string(parser)?;
        if options.insert(key.clone(), value).is_some() {
            return parser.expected("each option once", at);
        }
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    parser.expect_token(&Token::RParen)?;
    Ok(options)
}

/// sqlparser says where in its text: `Expected: x, found: y at Line: 3, Column: 14`.
pub fn from_parser(error: ParserError, at: Span) -> PlannerError {
    let text = match error {
        ParserError::ParserError(text) | ParserError::TokenizerError(text) => text,
        ParserError::RecursionLimitExceeded => "the statement is nested too deeply".into(),
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
