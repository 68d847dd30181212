//! Table functions in FROM: `f(TABLE t, …)` with positional or named arguments becomes a [`TableCall`].

use super::Rewriter;
use crate::planner::dialect::{TABLE_ARGUMENT, TABLE_FUNCTIONS, span};
use crate::planner::error::{PlannerError, Span};
use crate::planner::interval;
use datafusion_sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, ObjectNamePart, Spanned, TableAlias,
    TableFactor, VisitMut,
};
use std::ops::ControlFlow;

/// A window function or ML_PREDICT in FROM. Its place in the tree is a table named by [`TableCall::reference`].
#[derive(Clone, Debug)]
pub struct TableCall {
    /// Upper case: one of [`TABLE_FUNCTIONS`].
    pub function: String,
    pub input: TableFactor,
    pub partition_by: Vec<Ident>,
    /// The arguments behind the table.
    pub args: Vec<Argument>,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub struct Argument {
    pub value: ArgumentValue,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub enum ArgumentValue {
    Descriptor(Vec<Ident>),
    /// An INTERVAL literal of days or less.
    Millis(i64),
    Model(String),
}

const REFERENCE: &str = "__ef_table_call_";

impl TableCall {
    /// The table that stands for the n-th call of a query.
    fn reference(n: usize) -> ObjectName {
        ObjectName(vec![ObjectNamePart::Identifier(Ident::new(format!("{REFERENCE}{n}")))])
    }

    pub fn by_reference(name: &ObjectName) -> Option<usize> {
        match name.0.as_slice() {
            [ObjectNamePart::Identifier(ident)] => ident.value.strip_prefix(REFERENCE)?.parse().ok(),
            _ => None,
        }
    }
}

impl Rewriter {
    pub(super) fn replace(&mut self, call: TableCall, alias: Option<TableAlias>) -> TableFactor {
        let name = TableCall::reference(self.calls.len());
        self.calls.push(call);
        named(name, alias)
    }

    /// `f(TABLE t, …)` with positional or named arguments.
    pub(super) fn table_call(&mut self, expr: &Expr) -> Result<TableCall, PlannerError> {
        let at = span(expr.span());
        let accepted = format!("accepted: TABLE(f(…)) with f one of {}", TABLE_FUNCTIONS.join(", "));
        let Expr::Function(function) = expr else {
            return Err(PlannerError::new(format!("`TABLE({expr})` is not a call"), at).hint(accepted));
        };
        let name = function.name.to_string().to_uppercase();
        let Some(shape) = Shape::of(&name) else {
            return Err(
                PlannerError::new(format!("table function `{}` does not exist", function.name), at).hint(accepted)
            );
        };
        let wrong = |message: String, at: Span| Err(PlannerError::new(message, at).hint(shape.usage));
        let FunctionArguments::List(list) = &function.args else {
            return wrong(format!("{name} without arguments"), at);
        };
        let mut slots: Vec<Option<&Expr>> = vec![None; shape.parameters.len()];
        let mut given_at = vec![at; slots.len()];
        for (i, arg) in list.args.iter().enumerate() {
            let (slot, value) = match arg {
                FunctionArg::Named { name: parameter, arg: FunctionArgExpr::Expr(value), .. } => {
                    let slot =
                        shape.parameters.iter().position(|(known, _)| parameter.value.eq_ignore_ascii_case(known));
                    match slot {
                        Some(slot) => (slot, value),
                        None => {
                            return wrong(format!("{name} has no parameter {}", parameter.value), span(parameter.span));
                        }
                    }
                }
                FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => (i, value),
                other => return wrong(format!("unexpected argument `{other}` of {name}"), span(other.span())),
            };
            let value_at = span(value.span());
            let value_at = if value_at.is_known() { value_at } else { at };
            match slots.get_mut(slot) {
                None => return wrong(format!("{name} with {} arguments", list.args.len()), value_at),
                Some(taken) if taken.is_some() => return wrong(format!("an argument of {name} twice"), value_at),
                Some(slot) => *slot = Some(value),
            }
            given_at[slot] = value_at;
        }
        let mut call =
            TableCall { function: name.clone(), input: nothing(), partition_by: vec![], args: vec![], span: at };
        for ((parameter, kind), (value, at)) in shape.parameters.iter().zip(slots.into_iter().zip(given_at)) {
            let Some(value) = value else {
                if *kind == ParameterKind::OptionalInterval {
                    continue;
                }
                return wrong(format!("{name} without its argument {parameter}"), at);
            };
            let value = match kind {
                ParameterKind::Table => {
                    let Some((input, partition_by)) = table_argument(value) else {
                        return wrong(format!("`{value}` is not a table"), at);
                    };
                    (call.input, call.partition_by) = (input, partition_by);
                    if let ControlFlow::Break(error) = VisitMut::visit(&mut call.input, self) {
                        return Err(*error);
                    }
                    continue;
                }
                ParameterKind::Descriptor => match descriptor(value) {
                    Some(columns) => ArgumentValue::Descriptor(columns),
                    None => return wrong(format!("`{value}` is not a DESCRIPTOR"), at),
                },
                ParameterKind::Model => match value {
                    Expr::Identifier(ident) => ArgumentValue::Model(ident.value.clone()),
                    _ => return wrong(format!("`{value}` is not a model"), at),
                },
                ParameterKind::Interval | ParameterKind::OptionalInterval => match interval::millis(value) {
                    Ok(millis) => ArgumentValue::Millis(millis),
                    Err(message) => return wrong(message, at),
                },
            };
            call.args.push(Argument { value, span: at });
        }
        if !call.partition_by.is_empty() && name != "SESSION" {
            return Err(PlannerError::new(format!("PARTITION BY in {name}"), at)
                .hint("accepted: GROUP BY over the window; only SESSION takes PARTITION BY"));
        }
        Ok(call)
    }
}

/// What a table function takes.
struct Shape {
    parameters: &'static [(&'static str, ParameterKind)],
    usage: &'static str,
}

#[derive(Clone, Copy, PartialEq)]
enum ParameterKind {
    Table,
    Descriptor,
    Interval,
    OptionalInterval,
    Model,
}

impl Shape {
    fn of(function: &str) -> Option<Shape> {
        use ParameterKind::*;
        Some(match function {
            "TUMBLE" => Shape {
                parameters: &[
                    ("DATA", Table),
                    ("TIMECOL", Descriptor),
                    ("SIZE", Interval),
                    ("OFFSET", OptionalInterval),
                ],
                usage: "accepted: TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '10' SECOND [, offset])",
            },
            "HOP" => Shape {
                parameters: &[
                    ("DATA", Table),
                    ("TIMECOL", Descriptor),
                    ("SLIDE", Interval),
                    ("SIZE", Interval),
                    ("OFFSET", OptionalInterval),
                ],
                usage: "accepted: HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '2' SECOND (slide), INTERVAL '10' SECOND (size) [, offset])",
            },
            "CUMULATE" => Shape {
                parameters: &[
                    ("DATA", Table),
                    ("TIMECOL", Descriptor),
                    ("STEP", Interval),
                    ("SIZE", Interval),
                    ("OFFSET", OptionalInterval),
                ],
                usage: "accepted: CUMULATE(TABLE t, DESCRIPTOR(ts), INTERVAL '2' MINUTE (step), INTERVAL '10' MINUTE (size) [, offset])",
            },
            "SESSION" => Shape {
                parameters: &[("DATA", Table), ("TIMECOL", Descriptor), ("GAP", Interval)],
                usage: "accepted: SESSION(TABLE t PARTITION BY key, DESCRIPTOR(ts), INTERVAL '5' MINUTE (gap))",
            },
            "ML_PREDICT" => Shape {
                parameters: &[("INPUT", Table), ("MODEL", Model), ("ARGS", Descriptor)],
                usage: "accepted: ML_PREDICT(TABLE t, MODEL m, DESCRIPTOR(column, …))",
            },
            _ => return None,
        })
    }
}

/// `TABLE_ARGUMENT(t, k…)` (the tokens' pre-pass), a name, or a subquery.
fn table_argument(value: &Expr) -> Option<(TableFactor, Vec<Ident>)> {
    let table = |parts: Vec<Ident>| {
        let mut factor = nothing();
        if let TableFactor::Table { name, .. } = &mut factor {
            *name = ObjectName(parts.into_iter().map(ObjectNamePart::Identifier).collect());
        }
        factor
    };
    let path = |expr: &Expr| match expr {
        Expr::Identifier(ident) => Some(vec![ident.clone()]),
        Expr::CompoundIdentifier(parts) => Some(parts.clone()),
        _ => None,
    };
    match value {
        Expr::Function(function) if function.name.to_string() == TABLE_ARGUMENT => {
            let FunctionArguments::List(list) = &function.args else { return None };
            let mut args = list.args.iter().map(|arg| match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => path(expr),
                _ => None,
            });
            let input = table(args.next()??);
            let partition_by = args.map(|parts| parts?.pop()).collect::<Option<Vec<_>>>()?;
            Some((input, partition_by))
        }
        Expr::Subquery(query) => {
            Some((TableFactor::Derived { lateral: false, subquery: query.clone(), alias: None, sample: None }, vec![]))
        }
        other => Some((table(path(other)?), vec![])),
    }
}

/// `DESCRIPTOR(column, …)`.
fn descriptor(value: &Expr) -> Option<Vec<Ident>> {
    let Expr::Function(function) = value else { return None };
    if !function.name.to_string().eq_ignore_ascii_case("DESCRIPTOR") {
        return None;
    }
    let FunctionArguments::List(list) = &function.args else { return None };
    let columns = list.args.iter().map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(ident))) => Some(ident.clone()),
        _ => None,
    });
    columns.collect::<Option<Vec<_>>>().filter(|columns| !columns.is_empty())
}

fn nothing() -> TableFactor {
    named(ObjectName(vec![]), None)
}

fn named(name: ObjectName, alias: Option<TableAlias>) -> TableFactor {
    TableFactor::Table {
        name,
        alias,
        args: None,
        with_hints: vec![],
        version: None,
        with_ordinality: false,
        partitions: vec![],
        json_path: None,
        sample: None,
        index_hints: vec![],
    }
}
