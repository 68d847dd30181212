//! Small pieces of syntax tree, made and recognised.

use crate::planner::types;
use datafusion_sql::sqlparser::ast::{BinaryOperator, CastKind, Expr, UnaryOperator, Value, ValueWithSpan};
use ef_proto::schema::DataType;

pub fn cast(expr: Expr, ty: &DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type: types::to_sql(ty), array: false, format: None }
}

pub fn binary(left: &Expr, op: BinaryOperator, right: &Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left.clone()), op, right: Box::new(right.clone()) }
}

pub fn nested(expr: Expr) -> Expr {
    Expr::Nested(Box::new(expr))
}

pub fn string(text: &str) -> Expr {
    Expr::Value(Value::SingleQuotedString(text.into()).with_empty_span())
}

pub fn number(value: i64) -> Expr {
    Expr::Value(Value::Number(value.to_string(), false).with_empty_span())
}

/// A unit of time as the core functions take it: an upper-case string.
pub fn unit(name: &str) -> Expr {
    string(&name.to_uppercase())
}

pub fn is_literal(expr: &Expr) -> bool {
    match expr {
        Expr::Value(value) => value.value != Value::Null,
        Expr::Cast { expr, .. } => is_literal(expr),
        _ => false,
    }
}

pub fn literal_number(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::Number(text, _), .. }) => text.parse().ok(),
        Expr::Cast { expr, .. } | Expr::Nested(expr) => literal_number(expr),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => literal_number(expr).map(|n| -n),
        _ => None,
    }
}
