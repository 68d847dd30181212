//! Expressions: trees here, postorder lists of nodes on the wire. Decoding runs on a stack of its own, so that no
//! message can exhaust the thread's.

use super::enumeration::{Enumeration, enumeration, known};
use super::fault::{Fault, chosen, list, narrow, required};
use super::generated::plan as wire;
use super::generated::plan::node::Kind;
use super::generated::plan::scalar::Value;
use crate::expr::{BinaryOp, DEPTH_MAX, Expr, ExprKind, Scalar, UnaryOp};
use crate::function::Builtin;

enumeration!(UnaryOp: Not, Negate, IsNull, IsNotNull, IsTrue, IsNotTrue, IsFalse, IsNotFalse);

enumeration!(BinaryOp:
    Add, Sub, Mul, Div, Mod, Eq, NotEq, Lt, LtEq, Gt, GtEq, And, Or, IsDistinctFrom, IsNotDistinctFrom, Concat,
    BitAnd, BitOr, BitXor, ShiftLeft, ShiftRight,
);

impl From<&Expr> for wire::Expr {
    fn from(expr: &Expr) -> wire::Expr {
        fn push(expr: &Expr, nodes: &mut Vec<wire::Node>) {
            for child in expr.children() {
                push(child, nodes);
            }
            nodes.push(wire::Node { r#type: Some((&expr.ty).into()), kind: Some((&expr.kind).into()) });
        }
        let mut nodes = Vec::new();
        push(expr, &mut nodes);
        wire::Expr { nodes }
    }
}

/// Without the operands, which are nodes of their own, in the order of [`Expr::children`].
impl From<&ExprKind> for Kind {
    fn from(kind: &ExprKind) -> Kind {
        match kind {
            ExprKind::Column(index) => Kind::Column(*index as u64),
            ExprKind::Literal(value) => Kind::Literal(value.into()),
            ExprKind::Cast { input: _, safe } => Kind::Cast(wire::Cast { safe: *safe }),
            ExprKind::Unary { op, input: _ } => Kind::Unary(op.number()),
            ExprKind::Binary { op, left: _, right: _ } => Kind::Binary(op.number()),
            ExprKind::Case { branches, otherwise } => {
                Kind::Case(wire::Case { branches: count(branches), otherwise: otherwise.is_some() })
            }
            ExprKind::InList { input: _, list, negated } => {
                Kind::InList(wire::InList { items: count(list), negated: *negated })
            }
            ExprKind::Like { input: _, pattern: _, escape, negated, case_insensitive } => Kind::Like(wire::Like {
                escape: escape.map(Into::into),
                negated: *negated,
                case_insensitive: *case_insensitive,
            }),
            ExprKind::Field { input: _, index } => Kind::Field(*index as u64),
            ExprKind::Call { function, args } => {
                Kind::Call(wire::Call { function: function.clone(), args: count(args) })
            }
        }
    }
}

fn count<T>(operands: &[T]) -> u32 {
    u32::try_from(operands.len()).expect("four billion operands are more than memory holds")
}

impl TryFrom<wire::Expr> for Expr {
    type Error = Fault;

    fn try_from(expr: wire::Expr) -> Result<Expr, Fault> {
        let mut made = Vec::new();
        for (i, node) in expr.nodes.into_iter().enumerate() {
            let tree = grow(node, &mut made).map_err(|fault| fault.within(format_args!("nodes[{i}]")))?;
            made.push(tree);
        }
        match made.pop() {
            Some(root) if made.is_empty() => Ok(root.expr),
            Some(_) => Err(Fault::new("nodes", format!("the last one leaves {} others unused", made.len()))),
            None => Err(Fault::new("nodes", "is missing")),
        }
    }
}

struct Tree {
    expr: Expr,
    depth: usize,
}

/// The tree of `node` over the last of those made before it.
fn grow(node: wire::Node, made: &mut Vec<Tree>) -> Result<Tree, Fault> {
    let kinds = "column, literal, cast, unary, binary, case, in_list, like, field, call";
    let kind = chosen(node.kind, "kind", kinds)?;
    let ty = required(node.r#type, "type")?;
    let takes = operands(&kind);
    let Some(first) = (made.len() as u64).checked_sub(takes) else {
        return Err(Fault::new("", format!("takes {takes} operands, and only {} are left before it", made.len())));
    };
    let operands = made.split_off(first as usize);
    let depth = 1 + operands.iter().map(|tree| tree.depth).max().unwrap_or(0);
    if depth > DEPTH_MAX {
        return Err(Fault::new("", format!("the expression nests deeper than {DEPTH_MAX}")));
    }
    let mut operands = operands.into_iter().map(|tree| tree.expr);
    let mut next = || operands.next().expect("as many as the node takes");
    let kind = match kind {
        Kind::Column(index) => ExprKind::Column(narrow(index, "column")?),
        Kind::Literal(value) => ExprKind::Literal(required(Some(value), "literal")?),
        Kind::Cast(cast) => ExprKind::Cast { input: next().into(), safe: cast.safe },
        Kind::Unary(op) => ExprKind::Unary { op: known(op, "unary")?, input: next().into() },
        Kind::Binary(op) => ExprKind::Binary { op: known(op, "binary")?, left: next().into(), right: next().into() },
        Kind::Case(case) => ExprKind::Case {
            branches: (0..case.branches).map(|_| (next(), next())).collect(),
            otherwise: case.otherwise.then(|| next().into()),
        },
        Kind::InList(list) => {
            ExprKind::InList { input: next().into(), list: operands.collect(), negated: list.negated }
        }
        Kind::Like(like) => ExprKind::Like {
            input: next().into(),
            pattern: next().into(),
            escape: like.escape.map(character).transpose()?,
            negated: like.negated,
            case_insensitive: like.case_insensitive,
        },
        Kind::Field(index) => ExprKind::Field { input: next().into(), index: narrow(index, "field")? },
        Kind::Call(call) => {
            if call.function.starts_with(Builtin::PREFIX) && Builtin::by_name(&call.function).is_none() {
                return Err(Fault::new("call.function", format!("`{}` is not known", call.function)));
            }
            ExprKind::Call { function: call.function, args: operands.collect() }
        }
    };
    Ok(Tree { expr: Expr { kind, ty }, depth })
}

fn operands(kind: &Kind) -> u64 {
    match kind {
        Kind::Column(_) | Kind::Literal(_) => 0,
        Kind::Cast(_) | Kind::Unary(_) | Kind::Field(_) => 1,
        Kind::Binary(_) | Kind::Like(_) => 2,
        Kind::Case(case) => 2 * u64::from(case.branches) + u64::from(case.otherwise),
        Kind::InList(list) => 1 + u64::from(list.items),
        Kind::Call(call) => call.args.into(),
    }
}

fn character(code: u32) -> Result<char, Fault> {
    char::from_u32(code).ok_or_else(|| Fault::new("like.escape", format!("{code} is not a character")))
}

impl From<&Scalar> for wire::Scalar {
    fn from(scalar: &Scalar) -> wire::Scalar {
        let value = match scalar {
            Scalar::Null => Value::Null(wire::Nothing {}),
            Scalar::Boolean(value) => Value::Boolean(*value),
            Scalar::Int(value) => Value::Int(*value),
            Scalar::Float(value) => Value::Float(*value),
            Scalar::Decimal(value) => Value::Decimal(value.to_le_bytes().into()),
            Scalar::String(value) => Value::String(value.clone()),
            Scalar::Bytes(value) => Value::Bytes(value.clone()),
            Scalar::Interval { months, days, nanos } => {
                Value::Interval(wire::Interval { months: *months, days: *days, nanos: *nanos })
            }
            Scalar::List(items) => Value::List(wire::List { items: items.iter().map(Into::into).collect() }),
        };
        wire::Scalar { value: Some(value) }
    }
}

/// Recursive: prost has refused what nests deeper than the stack allows.
impl TryFrom<wire::Scalar> for Scalar {
    type Error = Fault;

    fn try_from(scalar: wire::Scalar) -> Result<Scalar, Fault> {
        let values = "null, boolean, int, float, decimal, string, bytes, interval, list";
        Ok(match chosen(scalar.value, "value", values)? {
            Value::Null(_) => Scalar::Null,
            Value::Boolean(value) => Scalar::Boolean(value),
            Value::Int(value) => Scalar::Int(value),
            Value::Float(value) => Scalar::Float(value),
            Value::Decimal(bytes) => {
                let length = |_| Fault::new("decimal", format!("has {} bytes; 16 are expected", bytes.len()));
                Scalar::Decimal(i128::from_le_bytes(bytes.as_slice().try_into().map_err(length)?))
            }
            Value::String(value) => Scalar::String(value),
            Value::Bytes(value) => Scalar::Bytes(value),
            Value::Interval(wire::Interval { months, days, nanos }) => Scalar::Interval { months, days, nanos },
            Value::List(items) => Scalar::List(list(items.items, "list.items")?),
        })
    }
}
