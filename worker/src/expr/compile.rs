//! From a typed tree to a tree of kernels: checks types, folds constants, picks the kernel of every node.

use super::node::{Branch, Node, Rows};
use super::value::{Kernel, Value, constant, nulls};
use super::{arithmetic, cast, compare, functions, like, logic};
use crate::error::{Error, Result};
use arrow_array::{Array, StructArray};
use ef_proto::expr::{BinaryOp, Expr, ExprKind, Scalar, UnaryOp};
use ef_proto::schema::{DataType, Schema};
use std::collections::BTreeSet;

/// The compiled tree of `expr` over `input`.
pub(crate) fn program(expr: &Expr, input: &Schema) -> Result<Node> {
    expr.validate(input).map_err(|e| Error::invalid(format!("{expr}: {e}")))?;
    node(expr)
}

fn node(expr: &Expr) -> Result<Node> {
    let wrong = |e: String| Error::invalid(format!("{expr}: {e}"));
    match &expr.kind {
        ExprKind::Column(index) => Ok(Node::Column(*index)),
        ExprKind::Literal(value) => Ok(Node::Constant(constant(value, &expr.ty).map_err(wrong)?)),
        ExprKind::Cast { input, safe } => {
            if input.ty == expr.ty {
                return node(input);
            }
            let kernel = cast::kernel(&input.ty, &expr.ty, *safe).map_err(wrong)?;
            Ok(apply(expr, kernel, vec![node(input)?]))
        }
        ExprKind::Unary { op, input } => {
            let ty = if input.ty == DataType::Null { null_operand(*op, &expr.ty) } else { input.ty.clone() };
            let kernel = logic::unary(*op, &ty).ok_or_else(|| wrong(format!("not defined for {}", input.ty)))?;
            Ok(apply(expr, kernel, vec![operand(input, &ty)?]))
        }
        ExprKind::Binary { op, left, right } => binary(expr, *op, left, right),
        ExprKind::Case { branches, otherwise } => case(expr, branches, otherwise.as_deref()),
        ExprKind::InList { input, list, negated } => {
            let args = std::iter::once(input.as_ref())
                .chain(list)
                .map(|item| operand(item, &input.ty))
                .collect::<Result<Vec<_>>>()?;
            let constants: Option<Vec<Value>> =
                args[1..].iter().map(|arg| arg.constant().cloned().map(Value::Constant)).collect();
            let kernel = logic::in_list(&input.ty, constants.as_deref(), list.len(), *negated).map_err(wrong)?;
            Ok(apply(expr, kernel, args))
        }
        ExprKind::Like { input, pattern, escape, negated, case_insensitive } => {
            let args = vec![operand(input, &DataType::String)?, operand(pattern, &DataType::String)?];
            let fixed = args[1].constant().cloned().map(Value::Constant);
            if fixed.as_ref().is_some_and(Value::is_null_constant) {
                return Ok(Node::Constant(nulls(&DataType::Boolean, 1)));
            }
            let fixed = fixed.as_ref().and_then(|p| p.texts().get(0));
            let kernel = like::kernel(fixed, *escape, *negated, *case_insensitive).map_err(wrong)?;
            Ok(apply(expr, kernel, args))
        }
        ExprKind::Field { input, index } => {
            let kernel = field(&input.ty, *index, &expr.ty)
                .ok_or_else(|| wrong(format!("field {index} of type {} is not in {}", expr.ty, input.ty)))?;
            Ok(apply(expr, kernel, vec![node(input)?]))
        }
        ExprKind::Call { function, args } => functions::compile(function, args, &expr.ty, &mut node)
            .map(|found| match found {
                functions::Compiled::Node(node) => node,
                functions::Compiled::Kernel { kernel, args, pure } => {
                    if pure {
                        apply(expr, kernel, args)
                    } else {
                        unfolded(expr, kernel, args)
                    }
                }
            })
            .map_err(|e| if e.message.starts_with(function.as_str()) { wrong(e.message) } else { e }),
    }
}

fn null_operand(op: UnaryOp, ty: &DataType) -> DataType {
    if op == UnaryOp::Negate { ty.clone() } else { DataType::Boolean }
}

/// The node of `expr`, where a bare NULL takes the type that its place wants.
pub(crate) fn operand(expr: &Expr, wanted: &DataType) -> Result<Node> {
    if expr.ty == *wanted {
        return node(expr);
    }
    if expr.ty == DataType::Null {
        return Ok(Node::Constant(nulls(wanted, 1)));
    }
    if let ExprKind::Literal(value) = &expr.kind
        && let Ok(array) = constant(value, wanted)
    {
        return Ok(Node::Constant(array));
    }
    Err(Error::invalid(format!("{expr}: is {}, where {wanted} is expected", expr.ty)))
}

fn unfolded(expr: &Expr, kernel: Kernel, args: Vec<Node>) -> Node {
    Node::Apply { kernel, args, text: expr.to_string() }
}

/// The call, or its value when nothing in it depends on a row. A constant that fails is left to fail when a row needs
/// it: it may stand in a branch that none takes.
fn apply(expr: &Expr, kernel: Kernel, args: Vec<Node>) -> Node {
    let fixed = !args.is_empty() && args.iter().all(|arg| arg.constant().is_some());
    let node = unfolded(expr, kernel, args);
    if fixed && let Ok(Value::Constant(array)) = node.evaluate(&Rows { columns: &[], len: 1, now_ms: 0 }) {
        return Node::Constant(array);
    }
    node
}

fn binary(expr: &Expr, op: BinaryOp, left: &Expr, right: &Expr) -> Result<Node> {
    let wrong = |e: String| Error::invalid(format!("{expr}: {e}"));
    if matches!(op, BinaryOp::And | BinaryOp::Or) {
        let (left, right_node) = (operand(left, &DataType::Boolean)?, operand(right, &DataType::Boolean)?);
        return Ok(Node::Logic {
            and: op == BinaryOp::And,
            left: Box::new(left),
            right: Box::new(right_node),
            columns: columns(right),
        });
    }
    let mut types = (left.ty.clone(), right.ty.clone());
    if types.0 == DataType::Null {
        types.0 = if types.1 == DataType::Null { DataType::Boolean } else { types.1.clone() };
    }
    if types.1 == DataType::Null {
        types.1 = types.0.clone();
    }
    // An integer beside a decimal is a decimal without fraction.
    let whole = |ty: &DataType| match ty {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            Some(DataType::Decimal { precision: 19, scale: 0 })
        }
        _ => None,
    };
    let (mut left, mut right) = (left.clone(), right.clone());
    match (&types.0, &types.1) {
        (DataType::Decimal { .. }, other) => {
            if let Some(ty) = whole(other) {
                right = right.cast(ty.clone());
                types.1 = ty;
            }
        }
        (other, DataType::Decimal { .. }) => {
            if let Some(ty) = whole(other) {
                left = left.cast(ty.clone());
                types.0 = ty;
            }
        }
        _ => {}
    }
    let comparison = op.is_comparison() || matches!(op, BinaryOp::IsDistinctFrom | BinaryOp::IsNotDistinctFrom);
    let kernel = if comparison {
        compare::operator(op, &types.0, &types.1)
    } else if op == BinaryOp::Concat {
        (types.0 == DataType::String && types.1 == DataType::String).then(functions::text::concat_kernel)
    } else {
        arithmetic::binary(op, &types.0, &types.1, &expr.ty)
    };
    let kernel = kernel.ok_or_else(|| {
        wrong(format!("{} {} {} is not defined with result {}", types.0, op.symbol(), types.1, expr.ty))
    })?;
    Ok(apply(expr, kernel, vec![operand(&left, &types.0)?, operand(&right, &types.1)?]))
}

fn columns(expr: &Expr) -> Vec<usize> {
    let mut found = BTreeSet::new();
    expr.visit_columns(&mut |index| {
        found.insert(index);
    });
    found.into_iter().collect()
}

/// Cheap, and cannot fail whatever the rows hold: columns, fields, constants, and comparisons of them.
fn total(expr: &Expr) -> bool {
    use BinaryOp::{And, Eq, Gt, GtEq, Lt, LtEq, NotEq, Or};
    let able = match &expr.kind {
        ExprKind::Column(_) | ExprKind::Literal(_) | ExprKind::Field { .. } => true,
        ExprKind::Binary { op: Eq | NotEq | Lt | LtEq | Gt | GtEq, left, right } => left.ty == right.ty,
        ExprKind::Binary { op: And | Or, .. } => true,
        ExprKind::Unary { op, .. } => !matches!(op, UnaryOp::Negate),
        _ => false,
    };
    able && expr.children().into_iter().all(total)
}

fn case(expr: &Expr, branches: &[(Expr, Expr)], otherwise: Option<&Expr>) -> Result<Node> {
    let yes = Expr::literal(Scalar::Boolean(true), DataType::Boolean);
    let no = Expr::literal(Scalar::Null, expr.ty.clone());
    let branch = |when: &Expr, then: &Expr| -> Result<Branch> {
        Ok(Branch {
            when: operand(when, &DataType::Boolean)?,
            then: operand(then, &expr.ty)?,
            when_columns: columns(when),
            then_columns: columns(then),
            when_total: total(when),
            then_total: total(then) && then.ty == expr.ty,
        })
    };
    Ok(Node::Case {
        branches: branches.iter().map(|(when, then)| branch(when, then)).collect::<Result<_>>()?,
        otherwise: Box::new(branch(&yes, otherwise.unwrap_or(&no))?),
        ty: expr.ty.clone(),
    })
}

/// A field of a row is NULL where the row is.
fn field(row: &DataType, index: usize, ty: &DataType) -> Option<Kernel> {
    let DataType::Row(fields) = row else { return None };
    if fields.get(index)?.ty != *ty {
        return None;
    }
    Some(Box::new(move |args, _| {
        let Some(row) = args[0].array().as_any().downcast_ref::<StructArray>() else {
            return Err("a ROW is expected".into());
        };
        let column = row.column(index);
        match row.nulls() {
            None => Ok(column.clone()),
            Some(nulls) => {
                let missing = arrow_array::BooleanArray::new(!nulls.inner(), None);
                arrow_select::nullif::nullif(column, &missing).map_err(|e| e.to_string())
            }
        }
    }))
}
