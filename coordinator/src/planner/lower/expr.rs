//! DataFusion's expressions → typed expressions over column positions. Every cast becomes explicit, so that a worker
//! never decides a type: both sides of a comparison have one type when they leave here.
//!
//! Functions keep their names; whether a worker's build has one is known there. Evaluation order matters only in CASE
//! (branches not taken are not evaluated), and COALESCE, NULLIF and the like become CASE for that reason.

use super::{constant, scalar};
use crate::planner::opaque::{self, Form, Opaque};
use crate::planner::{PlannerError, Span};
use arrow_schema::DataType as Arrow;
use datafusion_common::{Column, DFSchema, ScalarValue};
use datafusion_expr::expr::{self as df, Alias};
use datafusion_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion_expr::{Expr as DfExpr, ExprSchemable, Operator};
use ef_proto::expr::{BinaryOp, DEPTH_MAX, Expr, ExprKind, Scalar, UnaryOp};
use ef_proto::function::Builtin;
use ef_proto::schema::DataType;

type Lowered = Result<Expr, PlannerError>;

/// Lowers `expr` over a plan node's output `schema`; columns become positions in it.
pub fn lower(expr: &DfExpr, schema: &DFSchema) -> Lowered {
    let lowered = Lowering { schema }.expr(expr)?;
    match lowered.depth() {
        depth if depth > DEPTH_MAX => {
            let what = format!("the expression nests {depth} deep, expected at most {DEPTH_MAX}");
            Err(PlannerError::new(what, span_of(expr)).hint("put parts of a long chain in parentheses of their own"))
        }
        _ => Ok(lowered),
    }
}

/// Where the first column of the expression stands in the text.
pub fn span_of(expr: &DfExpr) -> Span {
    let mut columns: Vec<&Column> = expr.column_refs().into_iter().collect();
    columns.sort_by_key(|column| column.spans.first().map(|span| (span.start.line, span.start.column)));
    let span = columns.iter().find_map(|column| column.spans.first());
    span.map_or(Span::UNKNOWN, |span| Span {
        line: span.start.line,
        column: span.start.column,
        end_line: span.end.line,
        end_column: span.end.column,
    })
}

/// NULL literals take any type; everything else gets a cast.
pub fn to_type(expr: Expr, ty: &DataType) -> Expr {
    match expr.kind {
        ExprKind::Literal(Scalar::Null) => Expr::literal(Scalar::Null, ty.clone()),
        _ => expr.cast(ty.clone()),
    }
}

/// Columns, literals and fields of columns: what costs nothing to have twice.
pub fn is_cheap(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Column(_) | ExprKind::Literal(_) => true,
        ExprKind::Field { input, .. } => is_cheap(input),
        _ => false,
    }
}

struct Lowering<'a> {
    schema: &'a DFSchema,
}

impl Lowering<'_> {
    fn expr(&self, expr: &DfExpr) -> Lowered {
        match expr {
            DfExpr::Alias(Alias { expr, .. }) => self.expr(expr),
            DfExpr::Column(column) => self.column(column),
            DfExpr::Literal(value, _) => {
                scalar::literal(value).map_err(|error| PlannerError::new(error, Span::UNKNOWN))
            }
            DfExpr::BinaryExpr(binary) => self.binary(expr, binary),
            DfExpr::Not(input) => {
                let mut input = to_type(self.expr(input)?, &DataType::Boolean);
                if let ExprKind::Like { negated: negated @ false, .. } = &mut input.kind {
                    *negated = true;
                    return Ok(input);
                }
                Ok(not(input))
            }
            DfExpr::IsNull(input) | DfExpr::IsUnknown(input) => self.unary(UnaryOp::IsNull, input),
            DfExpr::IsNotNull(input) | DfExpr::IsNotUnknown(input) => self.unary(UnaryOp::IsNotNull, input),
            DfExpr::IsTrue(input) => self.unary(UnaryOp::IsTrue, input),
            DfExpr::IsNotTrue(input) => self.unary(UnaryOp::IsNotTrue, input),
            DfExpr::IsFalse(input) => self.unary(UnaryOp::IsFalse, input),
            DfExpr::IsNotFalse(input) => self.unary(UnaryOp::IsNotFalse, input),
            DfExpr::Negative(input) => {
                let input = self.expr(input)?;
                let ty = input.ty.clone();
                Ok(Expr { kind: ExprKind::Unary { op: UnaryOp::Negate, input: Box::new(input) }, ty })
            }
            DfExpr::Between(between) => self.between(between),
            DfExpr::Case(case) => self.case(expr, case),
            DfExpr::Cast(cast) => self.coerced(&cast.expr, cast.field.data_type(), false),
            DfExpr::TryCast(cast) => self.coerced(&cast.expr, cast.field.data_type(), true),
            DfExpr::InList(list) => self.in_list(list),
            DfExpr::ScalarFunction(call) => self.call(expr, call),
            other => Err(unsupported(other)),
        }
    }

    fn column(&self, column: &Column) -> Lowered {
        let index = self
            .schema
            .index_of_column(column)
            .map_err(|_| PlannerError::new(format!("column `{}` is not there", column.flat_name()), Span::UNKNOWN))?;
        let arrow = self.schema.field(index).data_type();
        Ok(Expr::column(index, closed(arrow, &column.name, Span::UNKNOWN)?))
    }

    /// The type that DataFusion gives the expression, in the closed set.
    fn ty(&self, expr: &DfExpr) -> Result<DataType, PlannerError> {
        let arrow = expr
            .get_type(self.schema)
            .map_err(|error| PlannerError::new(format!("`{expr}`: {}", error.strip_backtrace()), span_of(expr)))?;
        closed(&arrow, &expr.to_string(), span_of(expr))
    }

    fn unary(&self, op: UnaryOp, input: &DfExpr) -> Lowered {
        let input = self.expr(input)?;
        let boolean = !matches!(op, UnaryOp::IsNull | UnaryOp::IsNotNull);
        let input = if boolean { to_type(input, &DataType::Boolean) } else { input };
        Ok(Expr { kind: ExprKind::Unary { op, input: Box::new(input) }, ty: DataType::Boolean })
    }

    fn coerced(&self, input: &DfExpr, arrow: &Arrow, safe: bool) -> Lowered {
        let ty = closed(arrow, &input.to_string(), span_of(input))?;
        self.cast(input, ty, safe, span_of(input))
    }

    fn cast(&self, input: &DfExpr, ty: DataType, safe: bool, at: Span) -> Lowered {
        let input = self.expr(input)?;
        if input.ty == ty || matches!(input.kind, ExprKind::Literal(Scalar::Null)) {
            return Ok(to_type(input, &ty));
        }
        if !input.ty.casts_to(&ty) {
            return Err(PlannerError::new(format!("there is no cast from {} to {ty}", input.ty), at));
        }
        Ok(Expr { kind: ExprKind::Cast { input: Box::new(input), safe }, ty })
    }

    fn binary(&self, whole: &DfExpr, binary: &df::BinaryExpr) -> Lowered {
        let (left, right) = (self.expr(&binary.left)?, self.expr(&binary.right)?);
        let op = match binary.op {
            Operator::Eq => BinaryOp::Eq,
            Operator::NotEq => BinaryOp::NotEq,
            Operator::Lt => BinaryOp::Lt,
            Operator::LtEq => BinaryOp::LtEq,
            Operator::Gt => BinaryOp::Gt,
            Operator::GtEq => BinaryOp::GtEq,
            Operator::Plus => BinaryOp::Add,
            Operator::Minus => BinaryOp::Sub,
            Operator::Multiply => BinaryOp::Mul,
            Operator::Divide => BinaryOp::Div,
            Operator::Modulo => BinaryOp::Mod,
            Operator::And => BinaryOp::And,
            Operator::Or => BinaryOp::Or,
            Operator::IsDistinctFrom => BinaryOp::IsDistinctFrom,
            Operator::IsNotDistinctFrom => BinaryOp::IsNotDistinctFrom,
            Operator::BitwiseAnd => BinaryOp::BitAnd,
            Operator::BitwiseOr => BinaryOp::BitOr,
            Operator::BitwiseXor => BinaryOp::BitXor,
            Operator::BitwiseShiftLeft => BinaryOp::ShiftLeft,
            Operator::BitwiseShiftRight => BinaryOp::ShiftRight,
            Operator::StringConcat => BinaryOp::Concat,
            Operator::RegexMatch | Operator::RegexNotMatch => {
                let args = vec![to_type(left, &DataType::String), to_type(right, &DataType::String)];
                let call = ExprKind::Call { function: Builtin::Regexp.name().into(), args };
                let matches = Expr { kind: call, ty: DataType::Boolean };
                return Ok(if binary.op == Operator::RegexMatch { matches } else { not(matches) });
            }
            other => {
                return Err(PlannerError::new(format!("operator `{other}` is not supported"), span_of(whole)));
            }
        };
        let (left, right, ty) = match op {
            BinaryOp::And | BinaryOp::Or => {
                (to_type(left, &DataType::Boolean), to_type(right, &DataType::Boolean), DataType::Boolean)
            }
            BinaryOp::Concat => (to_type(left, &DataType::String), to_type(right, &DataType::String), DataType::String),
            op if op.is_comparison() || matches!(op, BinaryOp::IsDistinctFrom | BinaryOp::IsNotDistinctFrom) => {
                let (left, right) = alike(left, right, &binary.op).map_err(|e| PlannerError::new(e, span_of(whole)))?;
                (left, right, DataType::Boolean)
            }
            _ => {
                let ty = self.ty(whole)?;
                let (left, right) = operands(left, right, &ty);
                (left, right, ty)
            }
        };
        Ok(Expr::binary(op, left, right, ty))
    }

    fn like(&self, function: &Opaque, input: &DfExpr, pattern: &DfExpr) -> Lowered {
        let Form::Like { escape, case_insensitive } = function.form else { return Err(unsupported(input)) };
        let mut sides = [self.expr(input)?, self.expr(pattern)?];
        if sides.iter().any(|side| !matches!(side.ty, DataType::String | DataType::Null)) {
            let what = format!("LIKE takes (string, pattern), found ({}, {})", sides[0].ty, sides[1].ty);
            return Err(PlannerError::new(what, function.span).hint("accepted: CAST(… AS STRING) LIKE 'a%'"));
        }
        sides = sides.map(|side| to_type(side, &DataType::String));
        let [input, pattern] = sides.map(Box::new);
        let kind = ExprKind::Like { input, pattern, escape, negated: false, case_insensitive };
        Ok(Expr { kind, ty: DataType::Boolean })
    }

    fn between(&self, between: &df::Between) -> Lowered {
        let bound = |bound: &DfExpr, op, df_op| {
            let (left, right) = alike(self.expr(&between.expr)?, self.expr(bound)?, &df_op)
                .map_err(|error| PlannerError::new(error, span_of(bound)))?;
            Ok::<_, PlannerError>(Expr::binary(op, left, right, DataType::Boolean))
        };
        let low = bound(&between.low, BinaryOp::GtEq, Operator::GtEq)?;
        let high = bound(&between.high, BinaryOp::LtEq, Operator::LtEq)?;
        let inside = Expr::binary(BinaryOp::And, low, high, DataType::Boolean);
        Ok(if between.negated { not(inside) } else { inside })
    }

    fn case(&self, whole: &DfExpr, case: &df::Case) -> Lowered {
        let ty = self.ty(whole)?;
        let operand = case.expr.as_ref().map(|operand| self.expr(operand)).transpose()?;
        let mut branches = Vec::with_capacity(case.when_then_expr.len());
        for (when, then) in &case.when_then_expr {
            let value = self.expr(when)?;
            let condition = match &operand {
                Some(operand) => {
                    let (left, right) = alike(operand.clone(), value, &Operator::Eq)
                        .map_err(|error| PlannerError::new(error, span_of(when)))?;
                    Expr::binary(BinaryOp::Eq, left, right, DataType::Boolean)
                }
                None => to_type(value, &DataType::Boolean),
            };
            branches.push((condition, to_type(self.expr(then)?, &ty)));
        }
        let otherwise = case.else_expr.as_ref().map(|other| Ok::<_, PlannerError>(to_type(self.expr(other)?, &ty)));
        Ok(case_of(branches, otherwise.transpose()?, ty))
    }

    fn in_list(&self, list: &df::InList) -> Lowered {
        let input = self.expr(&list.expr)?;
        let mut items = Vec::with_capacity(list.list.len());
        for item in &list.list {
            items.push(to_type(self.expr(item)?, &input.ty));
        }
        let kind = ExprKind::InList { input: Box::new(input), list: items, negated: list.negated };
        Ok(Expr { kind, ty: DataType::Boolean })
    }

    fn call(&self, whole: &DfExpr, call: &df::ScalarFunction) -> Lowered {
        let name = call.func.name();
        let fail = |message: String| PlannerError::new(message, span_of(whole));
        if let Some(opaque) = opaque::of(&call.func) {
            let located = |error: PlannerError| error.or_at(opaque.span);
            return match (&opaque.form, call.args.as_slice()) {
                (Form::Cast { to, safe }, [input]) => self.cast(input, to.clone(), *safe, opaque.span).map_err(located),
                (Form::Like { .. }, [input, pattern]) => self.like(opaque, input, pattern).map_err(located),
                _ => Err(fail(format!("{name} with {} arguments", call.args.len()))),
            };
        }
        if name == "get_field" {
            return self.get_field(&call.args).map_err(|error| error.or_at(span_of(whole)));
        }
        let mut args = call.args.iter().map(|arg| self.expr(arg)).collect::<Result<Vec<_>, _>>()?;
        let ty = self.ty(whole)?;
        let builtin = match name {
            "make_array" => Some(Builtin::MakeArray),
            "array_element" => Some(Builtin::ElementAt),
            "struct" => Some(Builtin::MakeRow),
            // Arguments are name, value, name, value…; the names are in the type.
            "named_struct" => {
                args = args.into_iter().skip(1).step_by(2).collect();
                Some(Builtin::MakeRow)
            }
            name => Builtin::by_name(name),
        };
        if let Some(op) = builtin.and_then(operator) {
            let [left, right] = two(args);
            return Ok(Expr::binary(op, left, right, ty));
        }
        match (builtin, name, args.len()) {
            (Some(builtin), ..) => {
                let args = untyped_nulls(builtin, args, &ty);
                let types: Vec<DataType> = args.iter().map(|arg| arg.ty.clone()).collect();
                builtin.result(&types).map_err(|accepted| {
                    let found = types.iter().map(DataType::to_string).collect::<Vec<_>>().join(", ");
                    let name = name.strip_prefix("ef_").unwrap_or(name).to_uppercase();
                    fail(format!("{name} takes {accepted}, not ({found})"))
                })?;
                constant::check(builtin, &args).map_err(|(what, accepted)| fail(what).hint(accepted))?;
                Ok(Expr { kind: ExprKind::Call { function: builtin.name().into(), args }, ty })
            }
            (None, "coalesce" | "nvl" | "ifnull", n) if n > 0 => Ok(coalesce(args, &ty)),
            (None, "nullif", 2) => {
                let [value, other] = two(args);
                let (left, right) = alike(value.clone(), other, &Operator::Eq).map_err(fail)?;
                let equal = Expr::binary(BinaryOp::Eq, left, right, DataType::Boolean);
                let null = Expr::literal(Scalar::Null, ty.clone());
                Ok(case_of(vec![(equal, null)], Some(to_type(value, &ty)), ty))
            }
            (None, "nvl2", 3) => {
                let otherwise = to_type(args.remove(2), &ty);
                let [value, then] = two(args);
                Ok(case_of(vec![(is_not_null(value), to_type(then, &ty))], Some(otherwise), ty))
            }
            (None, "regexp_replace", 3 | 4) if matches!(args[1].kind, ExprKind::Literal(Scalar::String(_))) => {
                if let ExprKind::Literal(Scalar::String(pattern)) = &args[1].kind {
                    constant::regular(pattern).map_err(|(what, accepted)| fail(what).hint(accepted))?;
                }
                Ok(Expr { kind: ExprKind::Call { function: name.into(), args }, ty })
            }
            (None, name, _) => Ok(Expr { kind: ExprKind::Call { function: name.into(), args }, ty }),
        }
    }

    /// `row.field`, `row.field.field`, `map['key']`.
    fn get_field(&self, args: &[DfExpr]) -> Lowered {
        let Some((input, path)) = args.split_first() else {
            return Err(PlannerError::new("field access without a row", Span::UNKNOWN));
        };
        let mut value = self.expr(input)?;
        for step in path {
            let key = self.expr(step)?;
            value = match (&value.ty, &key.kind) {
                (DataType::Row(fields), ExprKind::Literal(Scalar::String(name))) => {
                    let Some(index) = fields.iter().position(|field| field.name == *name) else {
                        let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
                        let message = format!("`{value}` has no field `{name}`, it has {}", names.join(", "));
                        return Err(PlannerError::new(message, span_of(input)));
                    };
                    let ty = fields[index].ty.clone();
                    Expr { kind: ExprKind::Field { input: Box::new(value), index }, ty }
                }
                (DataType::Map(key_ty, item), _) => {
                    let (key, ty) = (to_type(key, key_ty), (**item).clone());
                    let function = Builtin::ElementAt.name().to_string();
                    Expr { kind: ExprKind::Call { function, args: vec![value, key] }, ty }
                }
                (ty, _) => {
                    return Err(PlannerError::new(format!("{ty} has no field {key}"), span_of(input)));
                }
            };
        }
        Ok(value)
    }
}

fn closed(arrow: &Arrow, what: &str, span: Span) -> Result<DataType, PlannerError> {
    DataType::from_arrow(arrow)
        .ok_or_else(|| PlannerError::new(format!("`{what}` has type {arrow}, which is not supported"), span))
}

fn unsupported(expr: &DfExpr) -> PlannerError {
    let what = match expr {
        DfExpr::SimilarTo(_) => "SIMILAR TO",
        DfExpr::AggregateFunction(_) => "an aggregate function outside of SELECT, HAVING and ORDER BY of a GROUP BY",
        DfExpr::WindowFunction(_) => "an OVER window",
        DfExpr::Exists(_) => "EXISTS that is not correlated on equal windows",
        DfExpr::InSubquery(_) => "IN (SELECT …) that is not correlated on equal windows",
        DfExpr::ScalarSubquery(_) | DfExpr::SetComparison(_) | DfExpr::OuterReferenceColumn(..) => "a scalar subquery",
        DfExpr::GroupingSet(_) => "GROUPING SETS, CUBE and ROLLUP",
        DfExpr::Unnest(_) => "UNNEST",
        DfExpr::Placeholder(_) | DfExpr::ScalarVariable(..) => "a placeholder",
        DfExpr::HigherOrderFunction(_) | DfExpr::Lambda(_) | DfExpr::LambdaVariable(_) => "a lambda function",
        other => return PlannerError::new(format!("`{other}` is not supported"), span_of(other)),
    };
    PlannerError::new(format!("{what} is not supported"), span_of(expr))
}

/// Both sides in one type.
fn alike(left: Expr, right: Expr, op: &Operator) -> Result<(Expr, Expr), String> {
    if left.ty == right.ty {
        return Ok((left, right));
    }
    let is_null = |expr: &Expr| matches!(expr.kind, ExprKind::Literal(Scalar::Null));
    if is_null(&left) {
        return Ok((to_type(left, &right.ty), right));
    }
    if is_null(&right) {
        let right = to_type(right, &left.ty);
        return Ok((left, right));
    }
    let (l, r) = (left.ty.to_arrow(), right.ty.to_arrow());
    let common = BinaryTypeCoercer::new(&l, op, &r).get_input_types();
    let common = common.ok().and_then(|(l, r)| Some((DataType::from_arrow(&l)?, DataType::from_arrow(&r)?)));
    match common {
        Some((l, r)) if l == r => Ok((to_type(left, &l), to_type(right, &r))),
        _ => Err(format!("{} and {} cannot be compared (`{left} {op} {right}`)", left.ty, right.ty)),
    }
}

/// Operands of arithmetic: numbers in the type of the result, but decimals (whose scales differ by rule) and times.
fn operands(left: Expr, right: Expr, ty: &DataType) -> (Expr, Expr) {
    let plain = |ty: &DataType| ty.is_numeric() && !matches!(ty, DataType::Decimal { .. });
    match ty {
        DataType::Decimal { .. } => {
            let null = |expr: Expr| if expr.ty == DataType::Null { to_type(expr, ty) } else { expr };
            (null(left), null(right))
        }
        ty if plain(ty) && left.ty != DataType::Date => (to_type(left, ty), to_type(right, ty)),
        _ => (left, right),
    }
}

/// The operator that a core function stands for: the planner took the function for its result type only.
fn operator(builtin: Builtin) -> Option<BinaryOp> {
    Some(match builtin {
        Builtin::Plus => BinaryOp::Add,
        Builtin::Minus => BinaryOp::Sub,
        Builtin::Times => BinaryOp::Mul,
        Builtin::Divide => BinaryOp::Div,
        Builtin::Modulo => BinaryOp::Mod,
        _ => return None,
    })
}

fn not(input: Expr) -> Expr {
    Expr { kind: ExprKind::Unary { op: UnaryOp::Not, input: Box::new(input) }, ty: DataType::Boolean }
}

fn is_not_null(input: Expr) -> Expr {
    Expr { kind: ExprKind::Unary { op: UnaryOp::IsNotNull, input: Box::new(input) }, ty: DataType::Boolean }
}

fn case_of(branches: Vec<(Expr, Expr)>, otherwise: Option<Expr>, ty: DataType) -> Expr {
    Expr { kind: ExprKind::Case { branches, otherwise: otherwise.map(Box::new) }, ty }
}

fn coalesce(mut args: Vec<Expr>, ty: &DataType) -> Expr {
    let last = args.pop().map(|last| to_type(last, ty));
    if args.is_empty() {
        return last.unwrap_or_else(|| Expr::literal(Scalar::Null, ty.clone()));
    }
    let branches = args.into_iter().map(|arg| (is_not_null(arg.clone()), to_type(arg, ty))).collect();
    case_of(branches, last, ty.clone())
}

fn two(args: Vec<Expr>) -> [Expr; 2] {
    args.try_into().expect("the caller has counted the arguments")
}

/// NULL arguments of functions over values of one type get that type.
fn untyped_nulls(builtin: Builtin, args: Vec<Expr>, ty: &DataType) -> Vec<Expr> {
    let item = match (builtin, ty) {
        (Builtin::Greatest | Builtin::Least, ty) => ty,
        (Builtin::MakeArray, DataType::Array(item)) => item,
        _ => return args,
    };
    args.into_iter().map(|arg| to_type(arg, item)).collect()
}

/// A DataFusion literal that says nothing but "count every row".
pub fn is_non_null_literal(expr: &DfExpr) -> bool {
    match expr {
        DfExpr::Alias(alias) => is_non_null_literal(&alias.expr),
        DfExpr::Literal(value, _) => !ScalarValue::is_null(value),
        _ => false,
    }
}
