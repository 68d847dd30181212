//! Calls and literals under Flink's names and with Flink's types, from the leaves up: the arguments of a call are
//! rewritten before the call itself.

use super::build::{binary, cast, is_literal, literal_number, nested, number, string, unit};
use super::{similar, unsupported};
use crate::planner::dialect::{call, span};
use crate::planner::error::{PlannerError, near};
use crate::planner::functions::{LIBRARY, core_by_flink_name, known_names, theirs_by_flink_name};
use crate::planner::interval;
use datafusion_sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion_sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, CeilFloorKind, DateTimeField, DuplicateTreatment, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArguments, Ident, ObjectName, ObjectNamePart, Spanned, Value, ValueWithSpan,
};
use datafusion_sql::sqlparser::tokenizer::Span as TokenSpan;
use ef_proto::function::Builtin;
use ef_proto::schema::{DataType, Unit};

/// The replacement of an expression whose children are done.
pub fn after(expr: &mut Expr) -> Result<(), PlannerError> {
    let at = expr.span();
    let named = |name: &str| Ident::with_span(at, name);
    let core = |builtin: Builtin, args: Vec<Expr>| call(named(builtin.name()), args);
    let replacement = match expr {
        // Flink's integer literals are INT when they fit; literals with an exponent are DOUBLE.
        Expr::Value(ValueWithSpan { value: Value::Number(text, _), span }) => {
            if text.contains(['e', 'E']) {
                let text = Value::SingleQuotedString(text.clone()).with_span(*span);
                cast(Expr::Value(text), &DataType::Float64)
            } else if text.parse::<i32>().is_ok() {
                cast(expr.clone(), &DataType::Int32)
            } else {
                return Ok(());
            }
        }
        Expr::Value(ValueWithSpan { value: Value::Placeholder(text), .. }) => {
            return Err(unsupported(format!("the parameter {text}"), at, "accepted: ${name} with -D name=value"));
        }
        Expr::TypedString(typed) => {
            let text = typed.value.value.clone().into_string().unwrap_or_default();
            let digits = text.rsplit_once('.').map_or(0, |(_, fraction)| fraction.trim_end().len().min(9));
            let ty = match typed.data_type.to_string().to_uppercase() {
                name if name.starts_with("TIMESTAMP") => DataType::Timestamp(Unit::of_precision(digits as u8)),
                name if name.starts_with("DATE") && !name.starts_with("DATETIME") => DataType::Date,
                name if name.starts_with("TIME") => DataType::Time,
                name => {
                    return Err(unsupported(
                        format!("a literal of type {name}"),
                        at,
                        "accepted: DATE '…', TIME '…', TIMESTAMP '…', INTERVAL '…' unit",
                    ));
                }
            };
            cast(Expr::Value(typed.value.clone()), &ty)
        }
        Expr::Extract { field, expr: time, .. } => {
            core(Builtin::Extract, vec![unit(&field.to_string()), time.as_ref().clone()])
        }
        Expr::Floor { expr: arg, field } => rounded(arg, field, Builtin::Floor, Builtin::FloorTime, at)?,
        Expr::Ceil { expr: arg, field } => rounded(arg, field, Builtin::Ceil, Builtin::CeilTime, at)?,
        Expr::Substring { expr: arg, substring_from, substring_for, .. } => {
            let from = substring_from.as_deref().cloned().unwrap_or_else(|| number(1));
            let args = [Some(arg.as_ref().clone()), Some(from), substring_for.as_deref().cloned()];
            core(Builtin::Substring, args.into_iter().flatten().collect())
        }
        Expr::Overlay { expr: arg, overlay_what, overlay_from, overlay_for } => {
            let args = [Some(&*arg), Some(&*overlay_what), Some(&*overlay_from), overlay_for.as_ref()];
            core(Builtin::Overlay, args.into_iter().flatten().map(|arg| arg.as_ref().clone()).collect())
        }
        Expr::SimilarTo { negated, expr: input, pattern, escape_char } => {
            similar::rewritten(input, pattern, escape_char.as_ref(), *negated, at)?
        }
        Expr::Position { expr: needle, r#in } => {
            call(named("strpos"), vec![r#in.as_ref().clone(), needle.as_ref().clone()])
        }
        Expr::Function(function) => match function_call(function, at)? {
            Some(replacement) => replacement,
            None => return Ok(()),
        },
        _ => return Ok(()),
    };
    *expr = replacement;
    Ok(())
}

fn rounded(
    arg: &Expr,
    field: &CeilFloorKind,
    number: Builtin,
    time: Builtin,
    at: TokenSpan,
) -> Result<Expr, PlannerError> {
    match field {
        CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) => {
            Ok(call(Ident::with_span(at, number.name()), vec![arg.clone()]))
        }
        CeilFloorKind::DateTimeField(field) => {
            Ok(call(Ident::with_span(at, time.name()), vec![unit(&field.to_string()), arg.clone()]))
        }
        CeilFloorKind::Scale(_) => {
            Err(unsupported("FLOOR and CEIL with a scale", at, "accepted: FLOOR(x), ROUND(x, digits)"))
        }
    }
}

/// The hexadecimal digits of a text's hash.
fn digest(at: TokenSpan, hash: &str, text: &Expr) -> Expr {
    let bytes = call(Ident::with_span(at, hash), vec![text.clone()]);
    call(Ident::with_span(at, "encode"), vec![bytes, string("hex")])
}

/// Resolves the name of a call whose arguments are rewritten already. None: changed in place.
fn function_call(function: &mut Function, at: TokenSpan) -> Result<Option<Expr>, PlannerError> {
    let written = function.name.to_string();
    let name = written.to_uppercase();
    let args: Option<Vec<Expr>> = match &function.args {
        FunctionArguments::None => Some(vec![]),
        FunctionArguments::Subquery(_) => None,
        FunctionArguments::List(list) => list
            .args
            .iter()
            .map(|arg| match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
                _ => None,
            })
            .collect(),
    };
    let named = |name: &str| Ident::with_span(at, name);
    let core = |builtin: Builtin, args: Vec<Expr>| Some(call(named(builtin.name()), args));
    let wrong = |usage: &str| {
        Err(PlannerError::new(format!("wrong arguments of {name}"), span(at)).hint(format!("accepted: {usage}")))
    };
    let rename = |function: &mut Function, to: &str| {
        function.name = ObjectName(vec![ObjectNamePart::Identifier(named(to))]);
    };
    let lower = name.to_lowercase();
    if LIBRARY.aggregates.contains_key(&lower) {
        // COUNT of a constant counts rows.
        if lower == "count"
            && let Some([arg]) = args.as_deref()
            && is_literal(arg)
            && let FunctionArguments::List(list) = &mut function.args
            && list.duplicate_treatment != Some(DuplicateTreatment::Distinct)
        {
            list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Wildcard)];
        }
        rename(function, &lower);
        return Ok(None);
    }
    if let FunctionArguments::List(list) = &function.args
        && list.duplicate_treatment == Some(DuplicateTreatment::Distinct)
    {
        return Err(unsupported(format!("DISTINCT in the scalar function {name}"), at, ""));
    }
    if function.filter.is_some() {
        return Err(PlannerError::new(format!("FILTER behind the scalar function {name}"), span(at))
            .hint("accepted: FILTER (WHERE …) behind an aggregate"));
    }
    let Some(args) = args else {
        return Err(PlannerError::new(format!("unexpected argument of {name}"), span(at)).hint("accepted: expressions"));
    };
    Ok(match (name.as_str(), args.as_slice()) {
        ("MOD", [a, b]) => Some(nested(binary(a, BinaryOperator::Modulo, b))),
        ("MOD", _) => return wrong("MOD(number, number)"),
        ("IF", [condition, yes, no]) => Some(Expr::Case {
            case_token: AttachedToken::empty(),
            end_token: AttachedToken::empty(),
            operand: None,
            conditions: vec![CaseWhen { condition: condition.clone(), result: yes.clone() }],
            else_result: Some(Box::new(no.clone())),
        }),
        ("IF", _) => return wrong("IF(condition, value, value)"),
        ("LOCALTIMESTAMP", []) => {
            core(Builtin::CurrentTimestamp, vec![]).map(|now| cast(now, &DataType::Timestamp(Unit::Milli)))
        }
        ("LOCALTIME" | "CURRENT_TIME", []) => core(Builtin::CurrentTimestamp, vec![])
            .map(|now| cast(cast(now, &DataType::Timestamp(Unit::Milli)), &DataType::Time)),
        ("CURRENT_DATE", []) => core(Builtin::CurrentTimestamp, vec![]).map(|now| cast(now, &DataType::Date)),
        ("UNIX_TIMESTAMP", []) => {
            let now = call(named(Builtin::CurrentTimestamp.name()), vec![]);
            core(Builtin::UnixTimestamp, vec![now])
        }
        ("TIMESTAMPDIFF", [Expr::Identifier(field), a, b]) => {
            core(Builtin::TimestampDiff, vec![unit(&field.value), a.clone(), b.clone()])
        }
        ("TIMESTAMPDIFF", _) => return wrong("TIMESTAMPDIFF(SECOND, time, time)"),
        ("TIMESTAMPADD", [Expr::Identifier(field), amount, time]) => {
            let by = literal_number(amount);
            let Some(step) = interval::of(by.unwrap_or(1), &field.value) else {
                return wrong("TIMESTAMPADD(SECOND, 10, time)");
            };
            let step = if by.is_some() { step } else { nested(binary(&step, BinaryOperator::Multiply, amount)) };
            Some(nested(binary(time, BinaryOperator::Plus, &step)))
        }
        ("TIMESTAMPADD", _) => return wrong("TIMESTAMPADD(SECOND, 10, time)"),
        // The number of digits as a bare literal: it makes the type of a rounded decimal.
        ("ROUND" | "TRUNCATE", [x, digits]) => {
            let builtin = if name == "ROUND" { Builtin::Round } else { Builtin::Truncate };
            core(builtin, vec![x.clone(), literal_number(digits).map_or_else(|| digits.clone(), number)])
        }
        ("RAND_INTEGER", [bound]) => {
            let random = call(named("random"), vec![]);
            let scaled = binary(&random, BinaryOperator::Multiply, &nested(bound.clone()));
            core(Builtin::Floor, vec![scaled]).map(|whole| cast(whole, &DataType::Int32))
        }
        ("RAND", [_]) | ("RAND_INTEGER", [_, _]) => {
            return Err(unsupported(format!("{name} with a seed"), at, "accepted: RAND(), RAND_INTEGER(bound)"));
        }
        ("RAND_INTEGER", _) => return wrong("RAND_INTEGER(bound)"),
        ("SHA2", [text, bits]) => match literal_number(bits) {
            Some(bits @ (224 | 256 | 384 | 512)) => Some(digest(at, &format!("sha{bits}"), text)),
            _ => return wrong("SHA2(string, 256), or 224, 384, 512"),
        },
        ("LOG", [x]) => core(Builtin::Ln, vec![x.clone()]),
        ("LOG", [base, x]) => {
            let ln = |x: &Expr| call(named(Builtin::Ln.name()), vec![x.clone()]);
            Some(nested(binary(&ln(x), BinaryOperator::Divide, &ln(base))))
        }
        ("E", []) => core(Builtin::Exp, vec![number(1)]),
        ("SHA224" | "SHA256" | "SHA384" | "SHA512", [text]) => Some(digest(at, &lower, text)),
        ("YEAR" | "QUARTER" | "MONTH" | "WEEK" | "HOUR" | "MINUTE" | "SECOND", [time]) => {
            core(Builtin::Extract, vec![unit(&name), time.clone()])
        }
        ("DAYOFMONTH", [time]) => core(Builtin::Extract, vec![unit("DAY"), time.clone()]),
        ("DAYOFYEAR", [time]) => core(Builtin::Extract, vec![unit("DOY"), time.clone()]),
        ("DAYOFWEEK", [time]) => core(Builtin::Extract, vec![unit("DOW"), time.clone()]),
        ("MAP", _) => {
            if args.is_empty() || args.len() % 2 == 1 {
                return wrong("MAP[key, value, …]");
            }
            rename(function, "make_map");
            None
        }
        _ => {
            let to = match (core_by_flink_name(&name), theirs_by_flink_name(&name)) {
                (Some(builtin), _) => builtin.name(),
                (None, Some(theirs)) => theirs,
                (None, None) => {
                    let known = known_names();
                    return Err(PlannerError::new(format!("function `{written}` does not exist"), span(at))
                        .hint(near(&name, known.iter().map(String::as_str))));
                }
            };
            // CURRENT_TIMESTAMP has no parentheses; to DataFusion's planner it is a call like any other.
            if function.args == FunctionArguments::None {
                return Ok(Some(call(named(to), vec![])));
            }
            rename(function, to);
            None
        }
    })
}
