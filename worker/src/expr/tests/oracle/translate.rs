//! A typed tree as DataFusion's physical expression. What DataFusion means the same is handed over as it is; where
//! EdgeFlow differs on purpose, the translation says so in a comment that begins with "Rule".

use super::{rules, texts};
use arrow_schema::{DataType as Arrow, SchemaRef, TimeUnit};
use datafusion_common::ScalarValue;
use datafusion_common::config::ConfigOptions;
use datafusion_expr::type_coercion::functions::fields_with_udf;
use datafusion_expr::{Operator, ScalarUDF};
use datafusion_physical_expr::expressions::*;
use datafusion_physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use ef_proto::expr::{BinaryOp, Expr, ExprKind, UnaryOp};
use ef_proto::function::Builtin;
use ef_proto::schema::{DataType, Unit};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

pub type Physical = Arc<dyn PhysicalExpr>;

static LIBRARY: LazyLock<HashMap<String, Arc<ScalarUDF>>> = LazyLock::new(|| {
    let nested = datafusion_functions_nested::all_default_nested_functions();
    let all = datafusion_functions::all_default_functions().into_iter().chain(nested);
    all.map(|function| (function.name().to_string(), function)).collect()
});

pub fn literal(value: impl Into<ScalarValue>) -> Physical {
    Arc::new(Literal::new(value.into()))
}

pub fn cast(input: Physical, ty: &Arrow) -> Physical {
    Arc::new(CastExpr::new(input, ty.clone(), None))
}

fn try_cast_to(input: Physical, ty: &Arrow) -> Physical {
    Arc::new(TryCastExpr::new(input, ty.clone()))
}

fn op(left: Physical, op: Operator, right: Physical) -> Physical {
    Arc::new(BinaryExpr::new(left, op, right))
}

fn when(condition: Physical, then: Physical, otherwise: Option<Physical>) -> Physical {
    case(None, vec![(condition, then)], otherwise).expect("branches of one type")
}

/// Rule: minus the smallest integer wraps (Java); DataFusion wraps in columns and fails in literals.
fn negative(input: Physical, ty: &DataType) -> Physical {
    match ty {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            op(cast(literal(0i64), &ty.to_arrow()), Operator::Minus, input)
        }
        _ => Arc::new(NegativeExpr::new(input)),
    }
}

fn operator(of: BinaryOp) -> Operator {
    match of {
        BinaryOp::Add => Operator::Plus,
        BinaryOp::Sub => Operator::Minus,
        BinaryOp::Mul => Operator::Multiply,
        BinaryOp::Div => Operator::Divide,
        BinaryOp::Mod => Operator::Modulo,
        BinaryOp::Eq => Operator::Eq,
        BinaryOp::NotEq => Operator::NotEq,
        BinaryOp::Lt => Operator::Lt,
        BinaryOp::LtEq => Operator::LtEq,
        BinaryOp::Gt => Operator::Gt,
        BinaryOp::GtEq => Operator::GtEq,
        BinaryOp::And => Operator::And,
        BinaryOp::Or => Operator::Or,
        BinaryOp::IsDistinctFrom => Operator::IsDistinctFrom,
        BinaryOp::IsNotDistinctFrom => Operator::IsNotDistinctFrom,
        BinaryOp::Concat => Operator::StringConcat,
        BinaryOp::BitAnd => Operator::BitwiseAnd,
        BinaryOp::BitOr => Operator::BitwiseOr,
        BinaryOp::BitXor => Operator::BitwiseXor,
        BinaryOp::ShiftLeft => Operator::BitwiseShiftLeft,
        BinaryOp::ShiftRight => Operator::BitwiseShiftRight,
    }
}

const MILLIS: Arrow = Arrow::Timestamp(TimeUnit::Millisecond, None);

const MICROS: Arrow = Arrow::Timestamp(TimeUnit::Microsecond, None);

/// A CAST or a TRY_CAST.
type Step = fn(Physical, &Arrow) -> Physical;

pub struct Translator {
    pub schema: SchemaRef,
}

impl Translator {
    pub fn function(&self, name: &str, args: Vec<Physical>) -> Physical {
        let function = LIBRARY[name].clone();
        let given: Vec<_> = args.iter().map(|a| a.return_field(&self.schema).expect("a typed argument")).collect();
        let wanted = fields_with_udf(&given, function.as_ref()).expect("arguments that DataFusion can coerce");
        let args = args
            .into_iter()
            .zip(given.iter().zip(&wanted))
            .map(
                |(arg, (given, wanted))| {
                    if given.data_type() == wanted.data_type() { arg } else { cast(arg, wanted.data_type()) }
                },
            )
            .collect();
        let config = Arc::new(ConfigOptions::default());
        Arc::new(ScalarFunctionExpr::try_new(function, args, &self.schema, config).expect("a call of the library"))
    }

    pub fn expr(&self, expr: &Expr) -> Physical {
        let to = expr.ty.to_arrow();
        match &expr.kind {
            ExprKind::Column(index) => Arc::new(Column::new(self.schema.field(*index).name(), *index)),
            ExprKind::Literal(value) => {
                let one = crate::expr::value::constant(value, &expr.ty).expect("a literal of its type");
                literal(ScalarValue::try_from_array(&one, 0).expect("a value that DataFusion has"))
            }
            ExprKind::Cast { input, safe } => {
                let step: Step = if *safe { |input, ty| Arc::new(TryCastExpr::new(input, ty.clone())) } else { cast };
                self.cast(self.expr(input), &input.ty, &expr.ty, step)
            }
            ExprKind::Unary { op: unary, input } => {
                let input = self.expr(input);
                let is = |op_, value: bool| op(input.clone(), op_, literal(value));
                match unary {
                    UnaryOp::Not => not(input).expect("a boolean"),
                    UnaryOp::Negate => negative(input, &expr.ty),
                    UnaryOp::IsNull => is_null(input).expect("any type"),
                    UnaryOp::IsNotNull => is_not_null(input).expect("any type"),
                    UnaryOp::IsTrue => is(Operator::IsNotDistinctFrom, true),
                    UnaryOp::IsNotTrue => is(Operator::IsDistinctFrom, true),
                    UnaryOp::IsFalse => is(Operator::IsNotDistinctFrom, false),
                    UnaryOp::IsNotFalse => is(Operator::IsDistinctFrom, false),
                }
            }
            ExprKind::Binary { op, left, right } => self.binary(*op, left, right, &expr.ty),
            ExprKind::Case { branches, otherwise } => {
                let branches = branches.iter().map(|(when, then)| (self.expr(when), self.expr(then))).collect();
                case(None, branches, otherwise.as_ref().map(|e| self.expr(e))).expect("branches of one type")
            }
            ExprKind::InList { input, list, negated } => {
                let items = list.iter().map(|item| self.canonical(self.expr(item), &item.ty)).collect();
                let input = self.canonical(self.expr(input), &input.ty);
                in_list(input, items, negated, &self.schema).expect("items of one type")
            }
            ExprKind::Like { input, pattern, escape, negated, case_insensitive } => {
                let pattern = texts::like_pattern(self.expr(pattern), *escape);
                Arc::new(LikeExpr::new(*negated, *case_insensitive, self.expr(input), pattern))
            }
            ExprKind::Field { input, index } => {
                let DataType::Row(fields) = &input.ty else { unreachable!("only rows have fields") };
                let (row, name) = (self.expr(input), literal(fields[*index].name.as_str()));
                // Rule: a field of a NULL row is NULL; DataFusion shows what lies under it.
                let known = is_not_null(row.clone()).expect("any type");
                when(known, self.function("get_field", vec![row, name]), None)
            }
            ExprKind::Call { function, args } => match Builtin::by_name(function) {
                Some(builtin) => self.builtin(builtin, args, &expr.ty),
                None => cast(self.function(function, args.iter().map(|a| self.expr(a)).collect()), &to),
            },
        }
    }

    /// Rule: where values are told apart or ordered `-0.0 = 0.0`, and NaN is one value above all others; DataFusion
    /// orders floats by IEEE's total order, signs of zeros and NaNs included.
    fn canonical(&self, input: Physical, ty: &DataType) -> Physical {
        if matches!(ty, DataType::Float32 | DataType::Float64) {
            rules::canonical(input, &ty.to_arrow())
        } else {
            input
        }
    }

    /// Rule: decimals are computed exactly and the result fits its type. DataFusion computes 38 digits without
    /// checking the precision, so it is given 76 digits here.
    fn widened(&self, input: Physical, scale: i8) -> Physical {
        cast(input, &Arrow::Decimal256(76, scale))
    }

    fn compare(&self, of: BinaryOp, left: Physical, lt: &DataType, right: Physical, rt: &DataType) -> Physical {
        if let (DataType::Decimal { scale: a, .. }, DataType::Decimal { scale: b, .. }) = (lt, rt) {
            let scale = (*a).max(*b);
            return op(self.widened(left, scale), operator(of), self.widened(right, scale));
        }
        op(self.canonical(left, lt), operator(of), self.canonical(right, rt))
    }

    fn binary(&self, of: BinaryOp, left: &Expr, right: &Expr, ty: &DataType) -> Physical {
        let (l, r) = (self.expr(left), self.expr(right));
        let to = ty.to_arrow();
        match (of, &left.ty, &right.ty) {
            (BinaryOp::And | BinaryOp::Or | BinaryOp::Concat, ..) => op(l, operator(of), r),
            // Rule: with a NaN on a side no comparison holds but `<>` (Java); DataFusion has a total order.
            (_, DataType::Float32 | DataType::Float64, _) if of.is_comparison() => rules::java_comparison(of, l, r),
            (_, lt, rt) if *ty == DataType::Boolean => self.compare(of, l, lt, r, rt),
            (_, DataType::Decimal { scale: a, .. }, DataType::Decimal { scale: b, .. }) => {
                let DataType::Decimal { scale, .. } = ty else { unreachable!("decimals make decimals") };
                // Rule: what the type cannot hold is NULL (Flink).
                // Rule: a quotient is rounded half up to the scale of the type (Flink). DataFusion cuts it four digits
                // after the dividend's scale; with a wider dividend the cast rounds it right.
                let a = if of == BinaryOp::Div { *a.max(scale) } else { *a };
                try_cast_to(op(self.widened(l, a), operator(of), self.widened(r, *b)), &to)
            }
            // Rule: the smallest integer by -1 wraps (Java); DataFusion fails.
            (BinaryOp::Div, DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64, _) => {
                let minus_one = cast(literal(-1i64), &to);
                when(op(r.clone(), Operator::Eq, minus_one), negative(l.clone(), ty), Some(op(l, Operator::Divide, r)))
            }
            (_, DataType::Time, DataType::Interval) => rules::time_of_day(l, r, of == BinaryOp::Sub),
            (BinaryOp::Mul, DataType::Interval, _) => rules::interval_times(l, r),
            (_, DataType::Timestamp(_), DataType::Timestamp(_)) => cast(op(l, Operator::Minus, r), &to),
            _ => op(l, operator(of), r),
        }
    }

    fn cast(&self, input: Physical, from: &DataType, to: &DataType, cast: Step) -> Physical {
        use DataType as T;
        let arrow = to.to_arrow();
        match (from, to) {
            // Rule: values print as Flink prints them.
            (T::Boolean, T::String) => self.function("upper", vec![cast(input, &arrow)]),
            (T::Float32 | T::Float64, T::String) => texts::java_float(input, &from.to_arrow()),
            (T::Timestamp(unit) | T::TimestampLtz(unit), T::String) => {
                let format =
                    ["%Y-%m-%d %H:%M:%S%.3f", "%Y-%m-%d %H:%M:%S%.6f", "%Y-%m-%d %H:%M:%S%.9f"][*unit as usize];
                texts::formatted(cast(input, &T::Timestamp(*unit).to_arrow()), *unit, format)
            }
            (T::Time, T::String) => texts::time_text(input),
            (T::Bytes, T::String) => texts::lossy_text(input),
            (T::String, T::Bytes) => cast(input, &arrow),
            // Rule: what a text may look like is Flink's choice; reading the rest is left to DataFusion.
            (T::String, T::Date | T::Time) => cast(cast(texts::ticks_of_text(input, to), &Arrow::Int32), &arrow),
            (T::String, T::Timestamp(_) | T::TimestampLtz(_)) => {
                cast(cast(texts::ticks_of_text(input, to), &Arrow::Int64), &arrow)
            }
            (T::String, _) => cast(texts::readable(input, to), &arrow),
            // Rule: a float's decimal is that of its shortest text (Java's BigDecimal.valueOf), and back by the text too.
            (T::Float32 | T::Float64, T::Decimal { .. }) => cast(texts::plain_float(input), &arrow),
            (T::Decimal { .. }, T::Float32 | T::Float64) => {
                let double = texts::float_of_text(cast(input, &Arrow::Utf8));
                if *to == T::Float64 { double } else { cast(double, &arrow) }
            }
            (T::Boolean, T::Decimal { .. }) => cast(cast(input, &Arrow::Int8), &arrow),
            (T::Decimal { .. }, T::Boolean) => op(input, Operator::NotEq, cast(literal(0i64), &from.to_arrow())),
            // Rule: finer digits of a timestamp are cut towards the past (Flink's truncation of nanos of a milli);
            // DataFusion cuts towards 1970.
            (T::Timestamp(a) | T::TimestampLtz(a), T::Timestamp(b) | T::TimestampLtz(b))
                if a.per_milli() > b.per_milli() =>
            {
                let coarse =
                    rules::floor_ticks(cast(input, &T::Timestamp(*a).to_arrow()), a.per_milli() / b.per_milli(), *b);
                cast(coarse, &arrow)
            }
            _ => cast(input, &arrow),
        }
    }

    fn builtin(&self, builtin: Builtin, args: &[Expr], ty: &DataType) -> Physical {
        let to = ty.to_arrow();
        let physical: Vec<Physical> = args.iter().map(|a| self.expr(a)).collect();
        let arg = |i: usize| physical[i].clone();
        let plain = |name: &str| self.function(name, physical.clone());
        match builtin {
            Builtin::CharLength => cast(plain("character_length"), &to),
            Builtin::Concat => physical.iter().skip(1).cloned().fold(arg(0), |a, b| op(a, Operator::StringConcat, b)),
            Builtin::ConcatWs => plain("concat_ws"),
            Builtin::Substring => rules::substring(physical),
            Builtin::SplitIndex => rules::split_index(physical),
            Builtin::DateFormat => {
                let ExprKind::Literal(pattern) = &args[1].kind else { unreachable!("patterns are literals") };
                let (DataType::Timestamp(unit) | DataType::TimestampLtz(unit)) = args[0].ty else {
                    unreachable!("timestamps are formatted")
                };
                let wall = cast(arg(0), &DataType::Timestamp(unit).to_arrow());
                texts::formatted(wall, unit, texts::chrono_pattern(pattern))
            }
            // Rule: the absolute value of the smallest integer wraps (Java).
            Builtin::Abs if !matches!(ty, DataType::Float32 | DataType::Float64) => {
                let below = op(arg(0), Operator::Lt, cast(literal(0i64), &to));
                when(below, negative(arg(0), ty), Some(arg(0)))
            }
            Builtin::Abs => plain("abs"),
            Builtin::Floor => plain("floor"),
            Builtin::Ceil => plain("ceil"),
            // Rule: no real result is NaN, and a pole infinite (Java's Math); DataFusion fails.
            Builtin::Sqrt => rules::doubles(physical, |v| v[0].sqrt()),
            Builtin::Power => rules::doubles(physical, |v| v[0].powf(v[1])),
            Builtin::Exp => plain("exp"),
            Builtin::Ln => plain("ln"),
            Builtin::Round => {
                let (DataType::Decimal { scale, .. }, ExprKind::Literal(ef_proto::expr::Scalar::Int(digits))) =
                    (ty, &args[1].kind)
                else {
                    unreachable!("decimals are rounded to a literal")
                };
                if *digits >= *scale as i64 { arg(0) } else { try_cast_to(self.widened(arg(0), *digits as i8), &to) }
            }
            // Rule: NULL if any argument is (Flink); DataFusion leaves NULLs out.
            Builtin::Greatest | Builtin::Least => {
                let better = if builtin == Builtin::Greatest { BinaryOp::Gt } else { BinaryOp::Lt };
                let best = physical.iter().skip(1).cloned().fold(arg(0), |best, next| {
                    when(self.compare(better, next.clone(), ty, best.clone(), ty), next, Some(best))
                });
                when(rules::all_known(physical), best, None)
            }
            // Rule: positions count from 1 and only forwards; DataFusion's negative ones count from the end.
            Builtin::ElementAt if matches!(args[0].ty, DataType::Array(_)) => {
                let last = cast(self.function("cardinality", vec![arg(0)]), &Arrow::Int64);
                // The list first: AND would spare it an error.
                let inside =
                    op(op(arg(1), Operator::LtEq, last), Operator::And, op(arg(1), Operator::Gt, literal(0i64)));
                when(inside, plain("array_element"), None)
            }
            // Rule: a NULL map has no values; DataFusion shows what lies under it.
            Builtin::ElementAt => {
                let found = self.function("array_element", vec![plain("map_extract"), literal(1i64)]);
                when(is_not_null(arg(0)).expect("any type"), found, None)
            }
            Builtin::Cardinality => cast(plain("cardinality"), &to),
            Builtin::MakeArray => plain("make_array"),
            Builtin::Extract => self.extract(rules::unit(&args[0]), arg(1), &args[1].ty),
            Builtin::UnixTimestamp => self.extract("EPOCH", arg(0), &args[0].ty),
            Builtin::FloorTime => self.floor(rules::unit(&args[0]), arg(1), &args[1].ty),
            Builtin::CeilTime => {
                let unit = rules::unit(&args[0]);
                let floor = self.floor(unit, arg(1), &args[1].ty);
                let next = op(floor.clone(), Operator::Plus, literal(rules::one(unit)));
                when(op(floor.clone(), Operator::Eq, arg(1)), floor, Some(next))
            }
            Builtin::TimestampDiff => {
                let millis = match rules::unit(&args[0]) {
                    "DAY" => 86_400_000i64,
                    "HOUR" => 3_600_000,
                    "MINUTE" => 60_000,
                    _ => 1000,
                };
                let apart = cast(op(arg(2), Operator::Minus, arg(1)), &Arrow::Int64);
                cast(op(apart, Operator::Divide, literal(millis)), &to)
            }
            Builtin::ToTimestamp => {
                let ticks = texts::ticks_of_text(arg(0), &DataType::Timestamp(Unit::Milli));
                cast(Arc::new(TryCastExpr::new(ticks, Arrow::Int64)), &MILLIS)
            }
            Builtin::ToTimestampLtz => cast(rules::epoch(physical), &to),
            other => unreachable!("{} is not grown", other.name()),
        }
    }

    fn extract(&self, unit: &str, time: Physical, ty: &DataType) -> Physical {
        let part = self.function("date_part", vec![literal(unit.to_lowercase()), time]);
        match unit {
            // Rule: seconds of the epoch are whole, cut towards the past.
            "EPOCH" if ty.is_timestamp() => cast(self.function("floor", vec![part]), &Arrow::Int64),
            // Rule: Sunday is 1 (Flink's DAYOFWEEK), not 0.
            "DOW" => op(cast(part, &Arrow::Int64), Operator::Plus, literal(1i64)),
            _ => cast(part, &Arrow::Int64),
        }
    }

    fn floor(&self, unit: &str, time: Physical, ty: &DataType) -> Physical {
        let arrow = ty.to_arrow();
        let time = match ty {
            DataType::Timestamp(Unit::Nano) => time,
            DataType::Timestamp(Unit::Micro) | DataType::TimestampLtz(Unit::Micro) => cast(time, &MICROS),
            _ => cast(time, &MILLIS),
        };
        let trunc = |time: Physical| match ty {
            DataType::Timestamp(Unit::Nano) => self.function("date_trunc", vec![literal(unit.to_lowercase()), time]),
            // Rule: any year; DataFusion goes by nanoseconds, which end in 1677 and 2262.
            DataType::Timestamp(Unit::Micro) | DataType::TimestampLtz(Unit::Micro) => rules::trunc(time, unit, true),
            _ => rules::trunc(time, unit, false),
        };
        // Rule: weeks begin on Sunday (Flink's FLOOR), not on Monday.
        let day = || literal(rules::one("DAY"));
        let floor = match unit {
            "WEEK" => op(trunc(op(time, Operator::Plus, day())), Operator::Minus, day()),
            _ => trunc(time),
        };
        cast(floor, &arrow)
    }
}
