//! `CREATE TABLE`: columns, watermark, primary key, options.

use super::pieces::{comment, if_not_exists, name, names, options, string};
use super::{ColumnDef, ColumnDefKind, CreateTable, Kind, Options, from_parser};
use crate::planner::dialect::span;
use crate::planner::error::PlannerError;
use crate::planner::types::{self, expect_word, peek_word, word};
use datafusion_sql::sqlparser::parser::Parser;
use datafusion_sql::sqlparser::tokenizer::Token;
use ef_proto::schema::Field;

/// Behind the word TABLE.
pub fn create_table(parser: &mut Parser) -> Result<Kind, PlannerError> {
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
        options: Options::default(),
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
