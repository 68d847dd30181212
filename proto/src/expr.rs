//! Typed expression trees: what the planner's scalar expressions become, and all that a worker evaluates.
//!
//! Every node carries its result type; the planner has already inserted every cast, so that both sides of a
//! comparison or an arithmetic operator have the same type (decimals and timestamp ± interval excepted).

use crate::schema::{DataType, Schema};
use serde::{Deserialize, Serialize};
use std::fmt;

/// How deep an expression may nest: a chain of 256 `OR`s. Whoever walks a tree does so by recursion, and a worker's
/// threads have 2 MiB of stack.
pub const DEPTH_MAX: usize = 256;

/// An expression over the columns of one input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Expr {
    pub kind: ExprKind,
    pub ty: DataType,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ExprKind {
    Column(usize),
    Literal(Scalar),
    /// `safe`: a value that cannot be cast becomes NULL (TRY_CAST); otherwise it fails the job.
    Cast {
        input: Box<Expr>,
        safe: bool,
    },
    Unary {
        op: UnaryOp,
        input: Box<Expr>,
    },
    Binary {
        op: BinaryOp,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    /// Searched CASE: the first branch whose condition is true, else `otherwise`, else NULL. Branches that a row
    /// does not take are not evaluated for it (a division by zero there must not fail the job).
    Case {
        branches: Vec<(Expr, Expr)>,
        otherwise: Option<Box<Expr>>,
    },
    InList {
        input: Box<Expr>,
        list: Vec<Expr>,
        negated: bool,
    },
    Like {
        input: Box<Expr>,
        pattern: Box<Expr>,
        escape: Option<char>,
        negated: bool,
        case_insensitive: bool,
    },
    /// A field of a ROW by position.
    Field {
        input: Box<Expr>,
        index: usize,
    },
    /// A function by name: one of `function::Builtin`, or else one of DataFusion's library.
    Call {
        function: String,
        args: Vec<Expr>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum UnaryOp {
    Not,
    Negate,
    IsNull,
    IsNotNull,
    IsTrue,
    IsNotTrue,
    IsFalse,
    IsNotFalse,
}

/// Arithmetic on integers wraps like Flink's (Java's); division by an integer zero fails the job. Comparisons treat
/// `-0.0 = 0.0` and NaN as equal to itself and greater than all (SQL's view, not Arrow's total order).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Eq,
    NotEq,
    Lt,
    LtEq,
    Gt,
    GtEq,
    And,
    Or,
    IsDistinctFrom,
    IsNotDistinctFrom,
    /// `||` on strings; NULL if either is NULL.
    Concat,
    BitAnd,
    BitOr,
    BitXor,
    ShiftLeft,
    ShiftRight,
}

/// A constant. Timestamps in ticks of the type's unit, dates in days, times in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Scalar {
    Null,
    Boolean(bool),
    /// Int8 to Int64, Date, Time, Timestamp and TimestampLtz: the type says which.
    Int(i64),
    Float(f64),
    Decimal(i128),
    String(String),
    Bytes(Vec<u8>),
    Interval {
        months: i32,
        days: i32,
        nanos: i64,
    },
    /// ROW in field order, ARRAY in order.
    List(Vec<Scalar>),
}

impl Expr {
    pub fn column(index: usize, ty: DataType) -> Expr {
        Expr { kind: ExprKind::Column(index), ty }
    }

    pub fn literal(value: Scalar, ty: DataType) -> Expr {
        Expr { kind: ExprKind::Literal(value), ty }
    }

    pub fn binary(op: BinaryOp, left: Expr, right: Expr, ty: DataType) -> Expr {
        Expr { kind: ExprKind::Binary { op, left: Box::new(left), right: Box::new(right) }, ty }
    }

    pub fn cast(self, ty: DataType) -> Expr {
        if self.ty == ty { self } else { Expr { kind: ExprKind::Cast { input: Box::new(self), safe: false }, ty } }
    }

    /// The expressions directly below this one.
    pub fn children(&self) -> Vec<&Expr> {
        match &self.kind {
            ExprKind::Column(_) | ExprKind::Literal(_) => vec![],
            ExprKind::Cast { input, .. } | ExprKind::Unary { input, .. } | ExprKind::Field { input, .. } => vec![input],
            ExprKind::Binary { left, right, .. } => vec![left, right],
            ExprKind::Case { branches, otherwise } => {
                branches.iter().flat_map(|(when, then)| [when, then]).chain(otherwise.as_deref()).collect()
            }
            ExprKind::InList { input, list, .. } => std::iter::once(input.as_ref()).chain(list).collect(),
            ExprKind::Like { input, pattern, .. } => vec![input, pattern],
            ExprKind::Call { args, .. } => args.iter().collect(),
        }
    }

    /// The same, to be changed.
    pub fn children_mut(&mut self) -> Vec<&mut Expr> {
        match &mut self.kind {
            ExprKind::Column(_) | ExprKind::Literal(_) => vec![],
            ExprKind::Cast { input, .. } | ExprKind::Unary { input, .. } | ExprKind::Field { input, .. } => vec![input],
            ExprKind::Binary { left, right, .. } => vec![left, right],
            ExprKind::Case { branches, otherwise } => {
                branches.iter_mut().flat_map(|(when, then)| [when, then]).chain(otherwise.as_deref_mut()).collect()
            }
            ExprKind::InList { input, list, .. } => std::iter::once(input.as_mut()).chain(list).collect(),
            ExprKind::Like { input, pattern, .. } => vec![input, pattern],
            ExprKind::Call { args, .. } => args.iter_mut().collect(),
        }
    }

    /// Calls `each` with every column index in the tree.
    pub fn visit_columns(&self, each: &mut dyn FnMut(usize)) {
        if let ExprKind::Column(index) = self.kind {
            each(index);
        }
        for child in self.children() {
            child.visit_columns(each);
        }
    }

    /// The same tree with every column index sent through `to`.
    pub fn map_columns(mut self, to: &dyn Fn(usize) -> usize) -> Expr {
        fn walk(expr: &mut Expr, to: &dyn Fn(usize) -> usize) {
            if let ExprKind::Column(index) = &mut expr.kind {
                *index = to(*index);
            }
            for child in expr.children_mut() {
                walk(child, to);
            }
        }
        walk(&mut self, to);
        self
    }

    /// The same tree with every column replaced by the expression that `with` holds at its index.
    pub fn substitute(mut self, with: &[Expr]) -> Expr {
        fn walk(expr: &mut Expr, with: &[Expr]) {
            if let ExprKind::Column(index) = expr.kind {
                *expr = with[index].clone();
                return;
            }
            for child in expr.children_mut() {
                walk(child, with);
            }
        }
        walk(&mut self, with);
        self
    }

    /// Nodes from the root to the farthest leaf.
    pub fn depth(&self) -> usize {
        1 + self.children().into_iter().map(Expr::depth).max().unwrap_or(0)
    }

    /// Checks that every column exists in `input`, and every field in its row, with the type that the tree says.
    pub fn validate(&self, input: &Schema) -> Result<(), String> {
        let found = match &self.kind {
            ExprKind::Column(index) => {
                let columns = || format!("column {index} of an input with {} columns", input.len());
                Some((input.fields.get(*index).ok_or_else(columns)?, "column", *index))
            }
            ExprKind::Field { input, index } => {
                let fields = if let DataType::Row(fields) = &input.ty { fields.as_slice() } else { &[] };
                let missing = || format!("field {index} of {}", input.ty);
                Some((fields.get(*index).ok_or_else(missing)?, "field", *index))
            }
            _ => None,
        };
        if let Some((field, what, index)) = found
            && field.ty != self.ty
        {
            return Err(format!("{what} {index} `{}` is {}, not {}", field.name, field.ty, self.ty));
        }
        if self.ty.depth() > crate::schema::DEPTH_MAX {
            return Err(format!("a type nests deeper than {}", crate::schema::DEPTH_MAX));
        }
        self.children().into_iter().try_for_each(|child| child.validate(input))
    }
}

impl BinaryOp {
    pub const fn symbol(self) -> &'static str {
        match self {
            BinaryOp::Add => "+",
            BinaryOp::Sub => "-",
            BinaryOp::Mul => "*",
            BinaryOp::Div => "/",
            BinaryOp::Mod => "%",
            BinaryOp::Eq => "=",
            BinaryOp::NotEq => "<>",
            BinaryOp::Lt => "<",
            BinaryOp::LtEq => "<=",
            BinaryOp::Gt => ">",
            BinaryOp::GtEq => ">=",
            BinaryOp::And => "AND",
            BinaryOp::Or => "OR",
            BinaryOp::IsDistinctFrom => "IS DISTINCT FROM",
            BinaryOp::IsNotDistinctFrom => "IS NOT DISTINCT FROM",
            BinaryOp::Concat => "||",
            BinaryOp::BitAnd => "&",
            BinaryOp::BitOr => "|",
            BinaryOp::BitXor => "^",
            BinaryOp::ShiftLeft => "<<",
            BinaryOp::ShiftRight => ">>",
        }
    }

    pub const fn is_comparison(self) -> bool {
        matches!(self, BinaryOp::Eq | BinaryOp::NotEq | BinaryOp::Lt | BinaryOp::LtEq | BinaryOp::Gt | BinaryOp::GtEq)
    }
}

/// SQL-like text with `$i` for columns; for explain and error messages.
impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, items: &[Expr]| {
            items.iter().enumerate().try_for_each(|(i, e)| write!(f, "{}{e}", if i == 0 { "" } else { ", " }))
        };
        match &self.kind {
            ExprKind::Column(index) => write!(f, "${index}"),
            ExprKind::Literal(Scalar::Decimal(value)) => match self.ty {
                DataType::Decimal { scale, .. } => f.write_str(&fraction(*value, scale.max(0) as usize)),
                _ => write!(f, "{value}"),
            },
            ExprKind::Literal(value) => write!(f, "{value}"),
            ExprKind::Cast { input, safe } => {
                write!(f, "{}({input} AS {})", if *safe { "TRY_CAST" } else { "CAST" }, self.ty)
            }
            ExprKind::Unary { op, input } => match op {
                UnaryOp::Not => write!(f, "NOT {input}"),
                UnaryOp::Negate => write!(f, "-{input}"),
                UnaryOp::IsNull => write!(f, "{input} IS NULL"),
                UnaryOp::IsNotNull => write!(f, "{input} IS NOT NULL"),
                UnaryOp::IsTrue => write!(f, "{input} IS TRUE"),
                UnaryOp::IsNotTrue => write!(f, "{input} IS NOT TRUE"),
                UnaryOp::IsFalse => write!(f, "{input} IS FALSE"),
                UnaryOp::IsNotFalse => write!(f, "{input} IS NOT FALSE"),
            },
            ExprKind::Binary { op, left, right } => write!(f, "({left} {} {right})", op.symbol()),
            ExprKind::Case { branches, otherwise } => {
                f.write_str("CASE")?;
                for (when, then) in branches {
                    write!(f, " WHEN {when} THEN {then}")?;
                }
                if let Some(otherwise) = otherwise {
                    write!(f, " ELSE {otherwise}")?;
                }
                f.write_str(" END")
            }
            ExprKind::InList { input, list: items, negated } => {
                write!(f, "{input} {}IN (", if *negated { "NOT " } else { "" })?;
                list(f, items)?;
                f.write_str(")")
            }
            ExprKind::Like { input, pattern, negated, case_insensitive, .. } => write!(
                f,
                "{input} {}{} {pattern}",
                if *negated { "NOT " } else { "" },
                if *case_insensitive { "ILIKE" } else { "LIKE" }
            ),
            ExprKind::Field { input, index } => match &input.ty {
                DataType::Row(fields) if *index < fields.len() => write!(f, "{input}.{}", fields[*index].name),
                _ => write!(f, "{input}.{index}"),
            },
            ExprKind::Call { function, args } => {
                write!(f, "{function}(")?;
                list(f, args)?;
                f.write_str(")")
            }
        }
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scalar::Null => f.write_str("NULL"),
            Scalar::Boolean(v) => write!(f, "{v}"),
            Scalar::Int(v) => write!(f, "{v}"),
            Scalar::Float(v) => write!(f, "{v:?}"),
            Scalar::Decimal(v) => write!(f, "{v}d"),
            Scalar::String(v) => write!(f, "'{}'", v.replace('\'', "''")),
            Scalar::Bytes(v) => {
                f.write_str("X'")?;
                v.iter().try_for_each(|b| write!(f, "{b:02X}"))?;
                f.write_str("'")
            }
            Scalar::Interval { months, days, nanos } => {
                let nanos = i128::from(*days) * NANOS_A_DAY + i128::from(*nanos);
                match (*months, nanos) {
                    (0, nanos) => f.write_str(&day_time(nanos)),
                    (months, 0) => f.write_str(&year_month(months)),
                    (months, nanos) => write!(f, "({} + {})", year_month(months), day_time(nanos)),
                }
            }
            Scalar::List(items) => {
                f.write_str("[")?;
                items.iter().enumerate().try_for_each(|(i, v)| write!(f, "{}{v}", if i == 0 { "" } else { ", " }))?;
                f.write_str("]")
            }
        }
    }
}

const NANOS_A_DAY: i128 = 86_400_000_000_000;

/// An interval of months in the largest unit that divides it.
fn year_month(months: i32) -> String {
    if months % 12 == 0 { format!("INTERVAL '{}' YEAR", months / 12) } else { format!("INTERVAL '{months}' MONTH") }
}

/// The same for days and less; a fraction only of seconds.
fn day_time(nanos: i128) -> String {
    let units = [(NANOS_A_DAY, "DAY"), (NANOS_A_DAY / 24, "HOUR"), (NANOS_A_DAY / 1_440, "MINUTE")];
    match units.iter().find(|(size, _)| nanos != 0 && nanos % size == 0) {
        Some((size, unit)) => format!("INTERVAL '{}' {unit}", nanos / size),
        None => {
            let seconds = fraction(nanos, 9);
            format!("INTERVAL '{}' SECOND", seconds.trim_end_matches('0').trim_end_matches('.'))
        }
    }
}

/// `value` / 10^`scale`, exactly.
fn fraction(value: i128, scale: usize) -> String {
    let sign = if value < 0 { "-" } else { "" };
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, rest) = digits.split_at(digits.len() - scale);
    if rest.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{rest}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_read_as_in_sql() {
        let interval = |months, days, nanos| Scalar::Interval { months, days, nanos }.to_string();
        let ms = 1_000_000;
        for (found, expected) in [
            (interval(0, 0, 7_200_000 * ms), "INTERVAL '2' HOUR"),
            (interval(0, 0, 1_500 * ms), "INTERVAL '1.5' SECOND"),
            (interval(0, 0, 4_000 * ms), "INTERVAL '4' SECOND"),
            (interval(0, 0, 90_000 * ms), "INTERVAL '90' SECOND"),
            (interval(0, 0, -300_000 * ms), "INTERVAL '-5' MINUTE"),
            (interval(0, 0, 86_400_000 * ms), "INTERVAL '1' DAY"),
            (interval(0, 1, 0), "INTERVAL '1' DAY"),
            (interval(0, 1, 3_600_000 * ms), "INTERVAL '25' HOUR"),
            (interval(0, 0, 0), "INTERVAL '0' SECOND"),
            (interval(0, 0, 1), "INTERVAL '0.000000001' SECOND"),
            (interval(0, 0, -1_500 * ms), "INTERVAL '-1.5' SECOND"),
            (interval(3, 0, 0), "INTERVAL '3' MONTH"),
            (interval(-24, 0, 0), "INTERVAL '-2' YEAR"),
            (interval(1, 2, 0), "(INTERVAL '1' MONTH + INTERVAL '2' DAY)"),
        ] {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn decimals_read_as_written() {
        let decimal = |value, precision, scale| {
            Expr::literal(Scalar::Decimal(value), DataType::Decimal { precision, scale }).to_string()
        };
        assert_eq!(decimal(908, 3, 3), "0.908");
        assert_eq!(decimal(-5, 4, 2), "-0.05");
        assert_eq!(decimal(12_345, 5, 2), "123.45");
        assert_eq!(decimal(7, 1, 0), "7");
    }
}
