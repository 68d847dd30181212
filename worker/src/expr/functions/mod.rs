//! Functions by name: the core's own (`ef_proto::function::Builtin`), one file a family, and everything else from
//! DataFusion's library, which is there when the worker is built with the feature `functions`.

mod codec;
mod json;
#[cfg(feature = "functions")]
mod library;
mod math;
mod nested;
mod pieces;
#[cfg(feature = "functions")]
mod regex;
pub(crate) mod text;
mod time;
mod url;

use super::arithmetic;
use super::node::Node;
use super::value::Kernel;
use crate::error::{Error, Result};
use ef_proto::expr::{BinaryOp, Expr, ExprKind, Scalar};
use ef_proto::function::Builtin;
use ef_proto::schema::DataType;

pub(crate) enum Compiled {
    Node(Node),
    Kernel { kernel: Kernel, args: Vec<Node>, pure: bool },
}

/// Constant arguments by position, for functions that prepare themselves with them.
pub(crate) struct Literals<'a>(&'a [Expr]);

impl Literals<'_> {
    pub fn text(&self, i: usize) -> Option<&str> {
        match &self.0.get(i)?.kind {
            ExprKind::Literal(Scalar::String(text)) => Some(text),
            _ => None,
        }
    }

    pub fn int(&self, i: usize) -> Option<i64> {
        match &self.0.get(i)?.kind {
            ExprKind::Literal(Scalar::Int(value)) => Some(*value),
            _ => None,
        }
    }
}

/// The call of `name`. `node` compiles an argument.
pub(crate) fn compile(
    name: &str,
    args: &[Expr],
    ty: &DataType,
    node: &mut dyn FnMut(&Expr) -> Result<Node>,
) -> Result<Compiled> {
    let Some(builtin) = Builtin::by_name(name) else {
        return library_call(name, args, ty, node);
    };
    let wrong = |e: String| Error::invalid(format!("{name}: {e}"));
    let mut types: Vec<DataType> = args.iter().map(|a| a.ty.clone()).collect();
    builtin.result(&types).map_err(|e| wrong(format!("expects {e}")))?;
    if builtin == Builtin::CurrentTimestamp {
        return Ok(Compiled::Node(Node::Now));
    }
    // A bare NULL takes the type that its place wants.
    let places: Vec<DataType> = (0..args.len()).map(|i| place(builtin, i, &types, ty)).collect();
    let nodes = args
        .iter()
        .zip(&places)
        .map(|(arg, place)| match arg.ty {
            DataType::Null => Ok(Node::Constant(super::value::nulls(place, 1))),
            _ => node(arg),
        })
        .collect::<Result<Vec<_>>>()?;
    for (ty, place) in types.iter_mut().zip(places) {
        if *ty == DataType::Null {
            *ty = place;
        }
    }
    let literals = Literals(args);
    let kernel = match builtin {
        Builtin::ToTimestampLtz
        | Builtin::ToTimestamp
        | Builtin::DateFormat
        | Builtin::UnixTimestamp
        | Builtin::FromUnixtime
        | Builtin::Extract
        | Builtin::FloorTime
        | Builtin::CeilTime
        | Builtin::TimestampDiff
        | Builtin::ToDate
        | Builtin::ConvertTz => time::kernel(builtin, &types, ty, &literals),
        Builtin::SplitIndex
        | Builtin::CharLength
        | Builtin::HashCode
        | Builtin::Substring
        | Builtin::Concat
        | Builtin::ConcatWs
        | Builtin::JsonValue
        | Builtin::JsonExists
        | Builtin::IsAlpha
        | Builtin::IsDigit
        | Builtin::IsDecimal => text::kernel(builtin, &types, &literals),
        Builtin::Left
        | Builtin::Right
        | Builtin::Lpad
        | Builtin::Rpad
        | Builtin::Repeat
        | Builtin::Chr
        | Builtin::Overlay
        | Builtin::Locate
        | Builtin::Elt => pieces::kernel(builtin, &types),
        Builtin::ToBase64 | Builtin::FromBase64 | Builtin::Sha1 | Builtin::Hex | Builtin::Encode | Builtin::Decode => {
            codec::kernel(builtin, &types)
        }
        Builtin::ParseUrl => Ok(url::kernel()),
        Builtin::JsonQuery => json::query(&literals),
        Builtin::Plus => operator(BinaryOp::Add, &types, ty),
        Builtin::Minus => operator(BinaryOp::Sub, &types, ty),
        Builtin::Times => operator(BinaryOp::Mul, &types, ty),
        Builtin::Divide => operator(BinaryOp::Div, &types, ty),
        Builtin::Modulo => operator(BinaryOp::Mod, &types, ty),
        Builtin::Abs
        | Builtin::Floor
        | Builtin::Ceil
        | Builtin::Round
        | Builtin::Truncate
        | Builtin::Sign
        | Builtin::Bin
        | Builtin::Sqrt
        | Builtin::Power
        | Builtin::Exp
        | Builtin::Ln => math::kernel(builtin, &types, ty),
        Builtin::Greatest
        | Builtin::Least
        | Builtin::ElementAt
        | Builtin::Cardinality
        | Builtin::ArrayContains
        | Builtin::MakeArray
        | Builtin::MakeRow
        | Builtin::CurrentTimestamp => nested::kernel(builtin, &types, ty),
        Builtin::RegexpExtract | Builtin::Regexp | Builtin::RegexpReplace => regex_kernel(builtin, &literals),
    };
    Ok(Compiled::Kernel { kernel: kernel.map_err(wrong)?, args: nodes, pure: true })
}

/// Operators that the planner typed by Flink's rules.
fn operator(op: BinaryOp, types: &[DataType], ty: &DataType) -> std::result::Result<Kernel, String> {
    let kernel = arithmetic::binary(op, &types[0], &types[1], ty);
    kernel.ok_or_else(|| format!("{} {} {} is not defined with result {ty}", types[0], op.symbol(), types[1]))
}

fn place(builtin: Builtin, i: usize, types: &[DataType], ty: &DataType) -> DataType {
    match (builtin, i) {
        (Builtin::Greatest | Builtin::Least | Builtin::Abs | Builtin::Floor | Builtin::Ceil | Builtin::Sign, _) => {
            ty.clone()
        }
        (Builtin::Round | Builtin::Truncate, 0) => ty.clone(),
        (Builtin::MakeArray, _) => match ty {
            DataType::Array(item) => (**item).clone(),
            other => other.clone(),
        },
        (Builtin::ArrayContains, 1) => match &types[0] {
            DataType::Array(item) => (**item).clone(),
            other => other.clone(),
        },
        (Builtin::MakeRow, _) => types[i].clone(),
        (Builtin::Sqrt | Builtin::Exp | Builtin::Ln | Builtin::Power, _) => DataType::Float64,
        (Builtin::SplitIndex | Builtin::RegexpExtract | Builtin::Locate, 2)
        | (Builtin::Substring, 1 | 2)
        | (Builtin::Overlay, 2 | 3)
        | (Builtin::Left | Builtin::Right | Builtin::Lpad | Builtin::Rpad | Builtin::Repeat | Builtin::ElementAt, 1)
        | (Builtin::Elt | Builtin::Chr | Builtin::Bin | Builtin::Hex, 0) => DataType::Int32,
        (Builtin::Decode, 0) => DataType::Bytes,
        (Builtin::FromUnixtime | Builtin::ToTimestampLtz, 0) => DataType::Int64,
        (Builtin::ToTimestampLtz | Builtin::Round | Builtin::Truncate, 1) => DataType::Int32,
        _ => DataType::String,
    }
}

#[cfg(feature = "functions")]
fn regex_kernel(builtin: Builtin, literals: &Literals) -> std::result::Result<Kernel, String> {
    regex::kernel(builtin, literals)
}

#[cfg(not(feature = "functions"))]
fn regex_kernel(_: Builtin, _: &Literals) -> std::result::Result<Kernel, String> {
    Err("this worker is built without the cargo feature `functions`, which holds regular expressions".into())
}

#[cfg(feature = "functions")]
fn library_call(
    name: &str,
    args: &[Expr],
    ty: &DataType,
    node: &mut dyn FnMut(&Expr) -> Result<Node>,
) -> Result<Compiled> {
    library::compile(name, args, ty, node)
}

#[cfg(not(feature = "functions"))]
fn library_call(name: &str, _: &[Expr], _: &DataType, _: &mut dyn FnMut(&Expr) -> Result<Node>) -> Result<Compiled> {
    Err(Error::invalid(format!(
        "{name}: function `{name}` is in DataFusion's library, and this worker is built without the cargo feature `functions`"
    )))
}
