//! Flink's type names: parsed here, carried through the parser's syntax tree as text, and given back to DataFusion's
//! planner by [`FlinkTypes`].

use super::error::Span;
use arrow_schema::{DataType as Arrow, Field as ArrowField, FieldRef};
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::planner::TypePlanner;
use datafusion_sql::sqlparser::ast::{DataType as SqlType, Ident, ObjectName, ObjectNamePart};
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::Token;
use ef_proto::schema::{DataType, Field, Unit};
use std::sync::Arc;

const CARRIER: &str = "__ef_type";

/// Wraps a type for the parser's syntax tree.
pub fn to_sql(ty: &DataType) -> SqlType {
    let text = serde_json::to_string(ty).expect("a type always has a text");
    SqlType::Custom(ObjectName(vec![ObjectNamePart::Identifier(Ident::new(CARRIER))]), vec![text])
}

/// The same for a cast that somebody wrote, at this place.
pub fn written(ty: &DataType, at: Span) -> SqlType {
    match to_sql(ty) {
        SqlType::Custom(name, mut args) => {
            args.extend([at.line, at.column, at.end_line, at.end_column].map(|n| n.to_string()));
            SqlType::Custom(name, args)
        }
        other => other,
    }
}

/// Where the cast to this type stands, if somebody wrote it.
pub fn place(ty: &SqlType) -> Option<Span> {
    let SqlType::Custom(_, args) = ty else { return None };
    let at: Vec<u64> = args.iter().skip(1).filter_map(|n| n.parse().ok()).collect();
    let [line, column, end_line, end_column] = at.try_into().ok()?;
    Some(Span { line, column, end_line, end_column })
}

/// Unwraps what [`to_sql`] wrapped.
pub fn from_sql(ty: &SqlType) -> Option<DataType> {
    match ty {
        SqlType::Custom(name, args) if name.to_string() == CARRIER => serde_json::from_str(args.first()?).ok(),
        _ => None,
    }
}

/// DataFusion's hook: types in casts.
#[derive(Debug)]
pub struct FlinkTypes;

impl TypePlanner for FlinkTypes {
    fn plan_type_field(&self, sql: &SqlType) -> Result<Option<FieldRef>> {
        match from_sql(sql) {
            Some(ty) => Ok(Some(Arc::new(ArrowField::new("", ty.to_arrow(), true)))),
            None => Err(DataFusionError::Plan(format!("unknown type `{sql}`"))),
        }
    }
}

/// Parses a type and its `NOT NULL` or `NULL`: (type, nullable).
pub fn parse_type(parser: &mut Parser) -> Result<(DataType, bool), ParserError> {
    let ty = parse_bare(parser)?;
    let nullable = if word(parser, "NOT") {
        expect_word(parser, "NULL")?;
        false
    } else {
        word(parser, "NULL");
        true
    };
    Ok((ty, nullable))
}

/// What a cast does to a value beyond changing its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    Any,
    /// VARCHAR(n): at most so many characters.
    Most(u64),
    /// CHAR(n): as many, with blanks behind.
    Exactly(u64),
    /// TIMESTAMP(0): no fraction of a second.
    Seconds,
}

/// The type of a CAST with the length in its parentheses, which the closed set of types does not keep.
pub fn parse_cast_type(parser: &mut Parser) -> Result<(DataType, Fit), ParserError> {
    let start = parser.peek_token();
    let word = |parser: &Parser, n: usize, names: &[&str]| names.iter().any(|name| peek_word(parser, n, name));
    let number = |parser: &Parser, n: usize| match &parser.peek_nth_token_ref(n).token {
        Token::Number(text, _) if parser.peek_nth_token_ref(n - 1).token == Token::LParen => text.parse::<u64>().ok(),
        _ => None,
    };
    let (char, varying) = (word(parser, 0, &["CHAR", "CHARACTER"]), word(parser, 1, &["VARYING"]));
    let varchar = word(parser, 0, &["VARCHAR"]);
    let length = number(parser, if varying { 3 } else { 2 });
    let digits = if word(parser, 0, &["TIMESTAMP", "TIMESTAMP_LTZ"]) { length } else { None };
    let (ty, _) = parse_type(parser)?;
    let fit = match (&ty, digits) {
        (DataType::String, _) if varchar || char && varying => length.map_or(Fit::Any, Fit::Most),
        // The standard's CHAR is CHAR(1).
        (DataType::String, _) if char => Fit::Exactly(length.unwrap_or(1)),
        (_, Some(0)) if ty.is_timestamp() => Fit::Seconds,
        (_, None | Some(3 | 6 | 9)) => Fit::Any,
        (_, Some(_)) => {
            return parser.expected("TIMESTAMP(0), TIMESTAMP(3), TIMESTAMP(6) or TIMESTAMP(9) in a CAST", start);
        }
    };
    Ok((ty, fit))
}

fn parse_bare(parser: &mut Parser) -> Result<DataType, ParserError> {
    let token = parser.next_token();
    let Token::Word(name) = &token.token else {
        return parser.expected("a type, such as BIGINT or TIMESTAMP(3)", token);
    };
    let name = if name.quote_style.is_some() { String::new() } else { name.value.to_uppercase() };
    let mut ty = match name.as_str() {
        "CHAR" | "CHARACTER" | "VARCHAR" => {
            if name == "CHARACTER" {
                word(parser, "VARYING");
            }
            arguments(parser, 1)?;
            DataType::String
        }
        "STRING" => DataType::String,
        "BOOLEAN" => DataType::Boolean,
        "BINARY" | "VARBINARY" => {
            arguments(parser, 1)?;
            DataType::Bytes
        }
        "BYTES" => DataType::Bytes,
        "DECIMAL" | "DEC" | "NUMERIC" => {
            let at = [1, 3].map(|n| parser.peek_nth_token(n));
            let arguments = arguments(parser, 2)?;
            let precision = arguments.first().copied().unwrap_or(10);
            let scale = arguments.get(1).copied().unwrap_or(0);
            let accepted = "DECIMAL(p, s) with 1 <= p <= 38 and 0 <= s <= p";
            let [first, second] = at;
            if !(1..=38).contains(&precision) {
                return parser.expected(accepted, first);
            }
            if scale > precision {
                return parser.expected(accepted, second);
            }
            DataType::Decimal { precision: precision as u8, scale: scale as i8 }
        }
        "TINYINT" => DataType::Int8,
        "SMALLINT" => DataType::Int16,
        "INT" | "INTEGER" => DataType::Int32,
        "BIGINT" => DataType::Int64,
        "FLOAT" => DataType::Float32,
        "DOUBLE" => {
            word(parser, "PRECISION");
            DataType::Float64
        }
        "DATE" => DataType::Date,
        "TIME" => {
            precision(parser, 3, 0)?;
            zone(parser)?;
            DataType::Time
        }
        "TIMESTAMP" => {
            let unit = precision(parser, 9, 6)?;
            if zone(parser)? { DataType::TimestampLtz(unit) } else { DataType::Timestamp(unit) }
        }
        "TIMESTAMP_LTZ" => DataType::TimestampLtz(precision(parser, 9, 6)?),
        "ARRAY" => {
            expect(parser, &Token::Lt, "ARRAY<type>")?;
            let item = parse_element(parser)?;
            close(parser)?;
            DataType::Array(Box::new(item))
        }
        "MAP" => {
            expect(parser, &Token::Lt, "MAP<type, type>")?;
            let (key, _) = parse_type(parser)?;
            parser.expect_token(&Token::Comma)?;
            let value = parse_element(parser)?;
            close(parser)?;
            DataType::Map(Box::new(key), Box::new(value))
        }
        "ROW" => parse_row(parser)?,
        _ => {
            return parser.expected(
                "one of the types CHAR, VARCHAR, STRING, BOOLEAN, BINARY, VARBINARY, BYTES, DECIMAL, TINYINT, SMALLINT, INT, \
                 BIGINT, FLOAT, DOUBLE, DATE, TIME, TIMESTAMP, TIMESTAMP_LTZ, ARRAY<…>, MAP<…>, ROW<…>",
                token,
            );
        }
    };
    // The older spelling of an array: `INT ARRAY`.
    while word(parser, "ARRAY") {
        ty = DataType::Array(Box::new(ty));
    }
    Ok(ty)
}

/// Of an ARRAY or a MAP: it may be NULL. Formats like Avro write one that may not otherwise.
fn parse_element(parser: &mut Parser) -> Result<DataType, ParserError> {
    let token = parser.peek_token();
    let (ty, nullable) = parse_type(parser)?;
    if !nullable {
        return parser.expected("a type without NOT NULL, which is not supported for elements", token);
    }
    Ok(ty)
}

fn parse_row(parser: &mut Parser) -> Result<DataType, ParserError> {
    let round = parser.consume_token(&Token::LParen);
    if !round {
        expect(parser, &Token::Lt, "ROW<name type, …>")?;
    }
    let mut fields = Vec::new();
    loop {
        let name = parser.parse_identifier()?.value;
        let (ty, nullable) = parse_type(parser)?;
        if let Token::SingleQuotedString(_) = parser.peek_token().token {
            parser.next_token();
        }
        fields.push(Field::new(name, ty, nullable));
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    if round {
        parser.expect_token(&Token::RParen).map(|_| ())?
    } else {
        close(parser)?
    };
    Ok(DataType::Row(fields))
}

/// The `>` that closes a type. The pre-pass of the tokens has split every `>>`.
fn close(parser: &mut Parser) -> Result<(), ParserError> {
    parser.expect_token(&Token::Gt).map(|_| ())
}

fn expect(parser: &mut Parser, token: &Token, accepted: &str) -> Result<(), ParserError> {
    if parser.consume_token(token) {
        return Ok(());
    }
    let found = parser.peek_token();
    parser.expected(accepted, found)
}

/// `[WITHOUT | WITH LOCAL] TIME ZONE`: true for local.
fn zone(parser: &mut Parser) -> Result<bool, ParserError> {
    let local = if word(parser, "WITHOUT") {
        false
    } else if word(parser, "WITH") {
        if !word(parser, "LOCAL") {
            let found = parser.peek_token();
            return parser.expected("WITH LOCAL TIME ZONE (the type TIMESTAMP WITH TIME ZONE does not exist)", found);
        }
        true
    } else {
        return Ok(false);
    };
    expect_word(parser, "TIME")?;
    expect_word(parser, "ZONE")?;
    Ok(local)
}

fn precision(parser: &mut Parser, max: u64, default: u8) -> Result<Unit, ParserError> {
    let at = parser.peek_nth_token(1);
    match arguments(parser, 1)?.first() {
        None => Ok(Unit::of_precision(default)),
        Some(precision) if *precision <= max => Ok(Unit::of_precision(*precision as u8)),
        Some(_) => parser.expected(&format!("a precision from 0 to {max}"), at),
    }
}

/// `(n [, n])`, or nothing.
fn arguments(parser: &mut Parser, most: usize) -> Result<Vec<u64>, ParserError> {
    let mut numbers = Vec::new();
    if !parser.consume_token(&Token::LParen) {
        return Ok(numbers);
    }
    loop {
        let token = parser.next_token();
        match &token.token {
            Token::Number(text, _) if numbers.len() < most => match text.parse() {
                Ok(number) => numbers.push(number),
                Err(_) => return parser.expected("a whole number", token),
            },
            _ => return parser.expected(&format!("at most {most} whole number(s)"), token),
        }
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    parser.expect_token(&Token::RParen)?;
    Ok(numbers)
}

/// Takes the next token when it is this unquoted word, whatever its case.
pub fn word(parser: &mut Parser, expected: &str) -> bool {
    let is = peek_word(parser, 0, expected);
    if is {
        parser.next_token();
    }
    is
}

/// Whether the n-th token from here is this unquoted word.
pub fn peek_word(parser: &Parser, n: usize, expected: &str) -> bool {
    matches!(&parser.peek_nth_token_ref(n).token,
        Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(expected))
}

pub fn expect_word(parser: &mut Parser, expected: &str) -> Result<(), ParserError> {
    if word(parser, expected) {
        return Ok(());
    }
    let found = parser.peek_token();
    parser.expected(expected, found)
}

/// Whether an INSERT may put a value of this type into a column of that type without a CAST: Flink's implicit casts.
pub fn implicit(from: &DataType, to: &DataType) -> bool {
    use DataType::*;
    let rank = |ty: &DataType| match ty {
        Int8 => Some(0),
        Int16 => Some(1),
        Int32 => Some(2),
        Int64 => Some(3),
        _ => None,
    };
    match (from, to) {
        (Null, _) => true,
        (from, to) if from == to => true,
        (from, Decimal { .. } | Float64) if from.is_numeric() => true,
        (Int8 | Int16 | Int32 | Int64 | Decimal { .. }, Float32) => true,
        (Timestamp(_) | TimestampLtz(_), Timestamp(_) | TimestampLtz(_)) => true,
        (Timestamp(_), Date | Time) => true,
        (Row(from), Row(to)) => {
            from.len() == to.len() && from.iter().zip(to).all(|(from, to)| implicit(&from.ty, &to.ty))
        }
        (Array(from), Array(to)) => implicit(from, to),
        (Map(from_key, from_value), Map(to_key, to_value)) => {
            implicit(from_key, to_key) && implicit(from_value, to_value)
        }
        (from, to) => matches!((rank(from), rank(to)), (Some(from), Some(to)) if from <= to),
    }
}

/// The closed type that carries an Arrow type, or an error that names it.
pub fn closed(arrow: &Arrow) -> Result<DataType> {
    DataType::from_arrow(arrow)
        .ok_or_else(|| DataFusionError::Plan(format!("values of type {arrow} are not supported")))
}
