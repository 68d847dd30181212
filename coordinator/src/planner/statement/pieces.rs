//! What several statements have in common: names, lists of them, options, comments.

use super::{Name, Options};
use crate::planner::dialect::span;
use crate::planner::types::{self, expect_word, peek_word, word};
use datafusion_sql::sqlparser::ast::Ident;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::Token;
use ef_proto::schema::{Field, Schema};

/// A quoted string, or bare words as in `table.exec.state.ttl`.
pub fn option_word(parser: &mut Parser, accepted: &str) -> Result<String, ParserError> {
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

pub fn if_not_exists(parser: &mut Parser) -> Result<bool, ParserError> {
    let given = peek_word(parser, 0, "IF") && peek_word(parser, 1, "NOT");
    if given {
        parser.next_token();
        parser.next_token();
        expect_word(parser, "EXISTS")?;
    }
    Ok(given)
}

/// One name. Catalogs and databases do not exist here.
pub fn name(parser: &mut Parser) -> Result<Name, ParserError> {
    let token = parser.peek_token();
    let Ident { value, .. } = parser.parse_identifier()?;
    if parser.peek_token().token == Token::Period {
        let found = parser.peek_token();
        return parser.expected("a plain name (there are no catalogs and databases)", found);
    }
    Ok(Name { text: value, span: span(token.span) })
}

pub fn names(parser: &mut Parser) -> Result<Vec<Name>, ParserError> {
    parser.expect_token(&Token::LParen)?;
    let names = parser.parse_comma_separated(name)?;
    parser.expect_token(&Token::RParen)?;
    Ok(names)
}

/// `(name type, …)` of a model.
pub fn fields(parser: &mut Parser) -> Result<Schema, ParserError> {
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

pub fn comment(parser: &mut Parser) -> Result<(), ParserError> {
    if word(parser, "COMMENT") {
        string(parser)?;
    }
    Ok(())
}

pub fn string(parser: &mut Parser) -> Result<String, ParserError> {
    let token = parser.next_token();
    match token.token {
        Token::SingleQuotedString(text) => Ok(text),
        _ => parser.expected("a string in single quotes", token),
    }
}

/// `('key' = 'value', …)`.
pub fn options(parser: &mut Parser) -> Result<Options, ParserError> {
    parser.expect_token(&Token::LParen)?;
    let mut options = Options::default();
    while parser.peek_token().token != Token::RParen {
        let at = parser.peek_token();
        let key = string(parser)?;
        parser.expect_token(&Token::Eq)?;
        let value = string(parser)?;
        options.places.insert(key.clone(), span(at.span));
        if options.values.insert(key, value).is_some() {
            return parser.expected("each option once", at);
        }
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    parser.expect_token(&Token::RParen)?;
    Ok(options)
}
