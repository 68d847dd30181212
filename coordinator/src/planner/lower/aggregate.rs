//! GROUP BY and SELECT DISTINCT: over both window bounds a window aggregate, which is append-only; else a changelog.

use super::expr::{self, is_non_null_literal, span_of, to_type};
use super::rel::{Rel, Role, Windowing, below};
use super::{Lowering, fields, takes_no_changelog};
use crate::planner::{PlannerError, Span};
use datafusion_common::DFSchema;
use datafusion_expr::{Aggregate as DfAggregate, Expr as DfExpr};
use ef_proto::expr::{Expr, ExprKind};
use ef_proto::plan::{
    Aggregate, AggregateFunction, GroupAggregate, OperatorKind, Phase, Time, Window, WindowAggregate,
};
use ef_proto::schema::{DataType, Field, Schema, Unit};
use std::collections::BTreeSet;

/// An aggregate function call whose argument and filter are expressions over the input's base.
pub struct Call {
    function: AggregateFunction,
    arg: Option<Expr>,
    filter: Option<Expr>,
    distinct: bool,
    out: Field,
}

impl Lowering<'_> {
    pub(super) fn aggregate(&mut self, aggregate: &DfAggregate) -> Result<Rel, PlannerError> {
        let mut rel = self.plan(&aggregate.input)?;
        let schema = aggregate.input.schema();
        let out = fields(&aggregate.schema);
        if let Some(set) = aggregate.group_expr.iter().find(|expr| matches!(expr, DfExpr::GroupingSet(_))) {
            return Err(PlannerError::new("GROUPING SETS, CUBE and ROLLUP are not supported", span_of(set))
                .hint("accepted: GROUP BY with columns and expressions"));
        }
        self.settle(&mut rel, aggregate, schema)?;
        let mut keys = Vec::with_capacity(aggregate.group_expr.len());
        for (key, name) in aggregate.group_expr.iter().zip(&out) {
            keys.push((rel.over_base(expr::lower(key, schema)?), name.clone()));
        }
        let mut calls = Vec::with_capacity(aggregate.aggr_expr.len());
        for (call, name) in aggregate.aggr_expr.iter().zip(&out[keys.len()..]) {
            calls.push(call_of(call, name, &rel, schema)?);
        }
        let place = aggregate.group_expr.iter().map(span_of).find(Span::is_known);
        self.grouped(rel, keys, calls).map_err(|error| error.or_at(place.unwrap_or(Span::UNKNOWN)))
    }

    /// Keys and arguments are put over the base, so a costly column that several of them use is made first.
    fn settle(&mut self, rel: &mut Rel, aggregate: &DfAggregate, schema: &DFSchema) -> Result<(), PlannerError> {
        let mut uses = vec![0; rel.columns.len()];
        for expr in aggregate.group_expr.iter().chain(&aggregate.aggr_expr) {
            for (column, count) in expr.column_refs_counts() {
                if let Some(index) = schema.maybe_index_of_column(column) {
                    uses[index] += count;
                }
            }
        }
        if uses.iter().zip(&rel.columns).any(|(uses, column)| *uses > 1 && !expr::is_cheap(column)) {
            rel.make(&mut self.graph)?;
        }
        Ok(())
    }

    /// `keys` over the base of `rel`. The result's columns: keys, then calls.
    pub(super) fn grouped(
        &mut self,
        rel: Rel,
        keys: Vec<(Expr, Field)>,
        calls: Vec<Call>,
    ) -> Result<Rel, PlannerError> {
        let role = |role: Role| keys.iter().any(|(key, _)| rel.role_of(key) == role);
        match (&rel.windowing, role(Role::Start) && role(Role::End)) {
            (Some(windowing), true) => {
                let windowing = windowing.clone();
                self.window_aggregate(rel, windowing, keys, calls)
            }
            _ => self.group_aggregate(rel, keys, calls),
        }
    }

    fn window_aggregate(
        &mut self,
        mut rel: Rel,
        windowing: Windowing,
        keys: Vec<(Expr, Field)>,
        calls: Vec<Call>,
    ) -> Result<Rel, PlannerError> {
        if rel.changelog {
            return Err(takes_no_changelog("a window aggregate", Span::UNKNOWN));
        }
        // Positions in the output: of plain keys in order, or of a window column.
        let window_role = |rel: &Rel, key: &Expr| {
            Some(rel.role_of(key)).filter(|role| matches!(role, Role::Start | Role::End | Role::WindowTime))
        };
        let roles: Vec<Option<Role>> = keys.iter().map(|(key, _)| window_role(&rel, key)).collect();
        let plain: Vec<(Expr, Field)> =
            keys.iter().zip(&roles).filter(|(_, role)| role.is_none()).map(|(key, _)| key.clone()).collect();
        let mut plain = distinct_keys(plain);
        let start = rel.with_role(Role::Start).expect("a key has this role");
        let end = rel.with_role(Role::End).expect("a key has this role");
        let ltz = matches!(rel.base.fields[start].ty, DataType::TimestampLtz(_));

        let delivered = rel.delivered();
        let untouched = |expr: &Expr| below(expr, delivered);
        let over_input = plain.keys.iter().all(|(key, _)| untouched(key))
            && calls.iter().flat_map(|call| call.arg.iter().chain(&call.filter)).all(untouched)
            && rel.filter.iter().all(untouched);
        let takes_over = rel.assign.clone().filter(|_| over_input);
        let mut inputs: Vec<(Expr, Field)> = plain.keys.clone();
        let column = |rel: &Rel, index: usize| {
            (Expr::column(index, rel.base.fields[index].ty.clone()), rel.base.fields[index].clone())
        };
        // Keys, then what the window needs, then arguments: positions among the expressions to make.
        let first_window = inputs.len();
        let mut calls = calls;
        if let Some(assign) = &takes_over {
            check_session_keys(assign, &plain.keys, &rel)?;
            if let Time::Event { column: time } = assign.time {
                inputs.push(column(&rel, time));
            }
        } else {
            if rel.assign.is_some() {
                // Keys, arguments and filters are over a base that the assignment is about to renumber: make them
                // output columns and read them back.
                calls = rel.rebase(&mut plain.keys, calls, [start, end], &mut self.graph)?;
                inputs.clone_from(&plain.keys);
            }
            let start = rel.with_role(Role::Start).expect("the assignment made it");
            let end = rel.with_role(Role::End).expect("the assignment made it");
            inputs.extend([column(&rel, start), column(&rel, end)]);
        }
        let first_call = inputs.len();
        push_calls(&mut inputs, &calls);
        let carried = rel.carry.is_some();
        let made = rel.make_columns(&inputs, &mut self.graph)?;
        let (window, time) = match takes_over {
            Some(assign) => {
                let time = match assign.time {
                    Time::Event { .. } => Time::Event { column: made.at[first_window] },
                    Time::Processing => Time::Processing,
                };
                (assign.window, time)
            }
            None => {
                let (start, end) = (made.at[first_window], made.at[first_window + 1]);
                let time = if windowing.processing { Time::Processing } else { Time::Event { column: end } };
                (Window::Attached { start, end }, time)
            }
        };
        let key_columns: Vec<usize> = made.at[..plain.keys.len()].to_vec();
        let aggregates = aggregates(&calls, &made.at[first_call..]);
        let mut schema: Vec<Field> = plain.keys.iter().map(|(key, name)| named(name, key)).collect();
        schema.extend(calls.iter().map(|call| call.out.clone()));
        let bound = if ltz { DataType::TimestampLtz(Unit::Milli) } else { DataType::Timestamp(Unit::Milli) };
        schema.extend(crate::planner::nodes::WINDOW_COLUMNS.map(|name| Field::new(name, bound.clone(), false)));
        let schema = Schema::new(schema);
        let kind = OperatorKind::WindowAggregate(WindowAggregate {
            window,
            time,
            ltz,
            keys: key_columns,
            aggregates,
            phase: Phase::Single,
            late_output: carried,
        });
        let port = self.graph.add(kind, vec![made.ports], schema.clone(), false);
        if let Some(carry) = made.carry {
            self.sides.late(port.node, carry, made.schema);
        }
        let first = schema.len() - 3;
        let mut out = Rel::of(vec![port], schema, false);
        out.roles[first..].copy_from_slice(&[Role::Start, Role::End, Role::WindowTime]);
        out.windowing = Some(windowing);
        let mut next_plain = plain.position.iter();
        let mut columns: Vec<usize> = Vec::with_capacity(keys.len() + calls.len());
        for role in &roles {
            columns.push(match role {
                Some(Role::Start) => first,
                Some(Role::End) => first + 1,
                Some(_) => first + 2,
                None => *next_plain.next().expect("one position a plain key"),
            });
        }
        columns.extend((0..calls.len()).map(|i| plain.keys.len() + i));
        out.columns = columns.into_iter().map(|i| Expr::column(i, out.base.fields[i].ty.clone())).collect();
        out.names = keys.into_iter().map(|(_, name)| name).chain(calls.into_iter().map(|call| call.out)).collect();
        Ok(out)
    }

    fn group_aggregate(
        &mut self,
        mut rel: Rel,
        keys: Vec<(Expr, Field)>,
        mut calls: Vec<Call>,
    ) -> Result<Rel, PlannerError> {
        let mut plain = distinct_keys(keys.clone());
        if rel.assign.is_some() {
            calls = rel.rebase(&mut plain.keys, calls, [], &mut self.graph)?;
        }
        let retracting = rel.changelog;
        // Late rows are a matter of windows: what rides along for them ends here.
        rel.carry = None;
        let mut inputs = plain.keys.clone();
        push_calls(&mut inputs, &calls);
        let made = rel.make_columns(&inputs, &mut self.graph)?;
        let mut schema: Vec<Field> = plain.keys.iter().map(|(key, name)| named(name, key)).collect();
        schema.extend(calls.iter().map(|call| call.out.clone()));
        let schema = Schema::new(schema);
        let kind = OperatorKind::GroupAggregate(GroupAggregate {
            keys: made.at[..plain.keys.len()].to_vec(),
            aggregates: aggregates(&calls, &made.at[plain.keys.len()..]),
            retracting,
            ttl_ms: self.settings.state_ttl_ms,
        });
        let port = self.graph.add(kind, vec![made.ports], schema.clone(), true);
        let mut out = Rel::of(vec![port], schema, true);
        let columns = plain.position.iter().copied().chain((0..calls.len()).map(|i| plain.keys.len() + i));
        out.columns = columns.map(|i| Expr::column(i, out.base.fields[i].ty.clone())).collect();
        out.names = keys.into_iter().map(|(_, name)| name).chain(calls.into_iter().map(|call| call.out)).collect();
        Ok(out)
    }
}

impl Rel {
    /// Makes the pending assignment, with keys, arguments and filters of the calls rewritten to be over the new base.
    /// The base columns `keep` stay columns, too.
    fn rebase<const N: usize>(
        &mut self,
        keys: &mut [(Expr, Field)],
        mut calls: Vec<Call>,
        keep: [usize; N],
        graph: &mut super::graph::Graph,
    ) -> Result<Vec<Call>, PlannerError> {
        let mut slots: Vec<&mut Expr> = keys.iter_mut().map(|(key, _)| key).collect();
        for call in &mut calls {
            slots.extend(call.arg.as_mut());
            slots.extend(call.filter.as_mut());
        }
        let mut columns: Vec<Expr> = slots.iter().map(|slot| (**slot).clone()).collect();
        columns.extend(keep.map(|index| Expr::column(index, self.base.fields[index].ty.clone())));
        self.names = columns
            .iter()
            .enumerate()
            .map(|(i, column)| match column.kind {
                ExprKind::Column(index) => self.base.fields[index].clone(),
                _ => Field::new(format!("expr{i}"), column.ty.clone(), true),
            })
            .collect();
        self.columns = columns;
        self.make(graph)?;
        for (slot, column) in slots.into_iter().zip(&self.columns) {
            *slot = column.clone();
        }
        Ok(calls)
    }
}

/// Each key once, and where each of the given ones is among them.
struct Keys {
    keys: Vec<(Expr, Field)>,
    position: Vec<usize>,
}

fn distinct_keys(given: Vec<(Expr, Field)>) -> Keys {
    let mut keys: Vec<(Expr, Field)> = Vec::with_capacity(given.len());
    let mut position = Vec::with_capacity(given.len());
    for key in given {
        let found = keys.iter().position(|(expr, _)| *expr == key.0);
        position.push(found.unwrap_or_else(|| {
            keys.push(key);
            keys.len() - 1
        }));
    }
    Keys { keys, position }
}

fn named(name: &Field, expr: &Expr) -> Field {
    Field::new(&name.name, expr.ty.clone(), name.nullable)
}

fn push_calls(inputs: &mut Vec<(Expr, Field)>, calls: &[Call]) {
    for call in calls {
        if let Some(arg) = &call.arg {
            inputs.push((arg.clone(), Field::new(format!("arg of {}", call.out.name), arg.ty.clone(), true)));
        }
        if let Some(filter) = &call.filter {
            let name = format!("filter of {}", call.out.name);
            inputs.push((filter.clone(), Field::new(name, DataType::Boolean, true)));
        }
    }
}

/// `at`: positions of arguments and filters in the order of [`push_calls`].
fn aggregates(calls: &[Call], at: &[usize]) -> Vec<Aggregate> {
    let mut at = at.iter().copied();
    let one = |call: &Call| Aggregate {
        function: call.function,
        arg: call.arg.as_ref().and_then(|_| at.next()),
        arg_ty: call.arg.as_ref().map_or(DataType::Null, |arg| arg.ty.clone()),
        filter: call.filter.as_ref().and_then(|_| at.next()),
        distinct: call.distinct,
        ty: call.out.ty.clone(),
    };
    calls.iter().map(one).collect()
}

/// Sessions belong to the keys of PARTITION BY; aggregated by others they would be other sessions.
fn check_session_keys(assign: &super::rel::Assign, keys: &[(Expr, Field)], rel: &Rel) -> Result<(), PlannerError> {
    if !matches!(assign.window, Window::Session { .. }) {
        return Ok(());
    }
    let grouped: Option<BTreeSet<usize>> = keys.iter().map(|(key, _)| super::rel::column_of(key)).collect();
    if grouped == Some(assign.partition_by.iter().copied().collect()) {
        return Ok(());
    }
    let name = |column: &usize| format!("`{}`", rel.base.fields[*column].name);
    let partition: Vec<String> = assign.partition_by.iter().map(name).collect();
    let partition = if partition.is_empty() { "nothing".to_string() } else { partition.join(", ") };
    let keys: Vec<&str> = keys.iter().map(|(_, field)| field.name.as_str()).collect();
    let message = format!("SESSION is partitioned by {partition}, and its rows are grouped by ({})", keys.join(", "));
    Err(PlannerError::new(message, assign.span).hint(
        "accepted: SESSION(TABLE t PARTITION BY k, DESCRIPTOR(ts), gap) with GROUP BY k, window_start, window_end",
    ))
}

fn call_of(call: &DfExpr, name: &Field, rel: &Rel, schema: &DFSchema) -> Result<Call, PlannerError> {
    let (call, span) = match call {
        DfExpr::Alias(alias) => (alias.expr.as_ref(), span_of(call)),
        other => (other, span_of(call)),
    };
    let DfExpr::AggregateFunction(call) = call else {
        return Err(PlannerError::new(format!("`{call}` is not an aggregate function"), span));
    };
    let fail = |message: String| PlannerError::new(message, span);
    let params = &call.params;
    let function = match call.func.name().to_lowercase().as_str() {
        "count" => AggregateFunction::Count,
        "sum" => AggregateFunction::Sum,
        "avg" | "mean" => AggregateFunction::Avg,
        "min" => AggregateFunction::Min,
        "max" => AggregateFunction::Max,
        "stddev" | "stddev_samp" => AggregateFunction::StddevSamp,
        "stddev_pop" => AggregateFunction::StddevPop,
        "var" | "var_samp" | "var_sample" | "variance" => AggregateFunction::VarSamp,
        "var_pop" | "var_population" => AggregateFunction::VarPop,
        "first_value" => AggregateFunction::FirstValue,
        "last_value" => AggregateFunction::LastValue,
        other => {
            return Err(fail(format!("aggregate function {} is not supported", other.to_uppercase())).hint(
                "accepted: COUNT, SUM, AVG, MIN, MAX, STDDEV_POP, STDDEV_SAMP, VAR_POP, VAR_SAMP, FIRST_VALUE, LAST_VALUE",
            ));
        }
    };
    let sql = function.sql();
    if !params.order_by.is_empty() {
        return Err(fail(format!("ORDER BY inside {sql} is not supported")).hint("values come in order of arrival"));
    }
    if params.distinct
        && !matches!(function, AggregateFunction::Count | AggregateFunction::Min | AggregateFunction::Max)
    {
        return Err(fail(format!("{sql}(DISTINCT …) is not supported")).hint("accepted: COUNT(DISTINCT column)"));
    }
    let arg = match params.args.as_slice() {
        [arg] if function == AggregateFunction::Count && !params.distinct && is_non_null_literal(arg) => None,
        [] if function == AggregateFunction::Count => None,
        [arg] => Some(rel.over_base(expr::lower(arg, schema)?)),
        args => {
            return Err(fail(format!("{sql} of {} columns is not supported", args.len())).hint("accepted: one column"));
        }
    };
    if let Some(arg) = &arg
        && (params.distinct || function != AggregateFunction::Count)
        && (arg.ty.is_nested() || matches!(arg.ty, DataType::Null | DataType::Interval))
    {
        let distinct = if params.distinct { "DISTINCT " } else { "" };
        return Err(fail(format!("{sql} takes one value of each row, found ({distinct}{})", arg.ty))
            .hint("accepted: a number, string, boolean, date or time"));
    }
    let ty = name.ty.clone();
    let arg = arg.map(|arg| match function {
        AggregateFunction::Count => arg,
        AggregateFunction::Sum if matches!(arg.ty, DataType::Decimal { .. }) => arg,
        AggregateFunction::Avg => exact(arg),
        AggregateFunction::StddevPop
        | AggregateFunction::StddevSamp
        | AggregateFunction::VarPop
        | AggregateFunction::VarSamp => to_type(arg, &DataType::Float64),
        _ => to_type(arg, &ty),
    });
    let filter = match &params.filter {
        Some(filter) => {
            let lowered = rel.over_base(expr::lower(filter, schema)?);
            // DataFusion's type coercion makes a condition of anything by a cast of its own.
            let made = match &lowered.kind {
                ExprKind::Cast { input, .. } if matches!(filter.as_ref(), DfExpr::Cast(_)) => &input.ty,
                _ => &lowered.ty,
            };
            if !matches!(made, DataType::Boolean | DataType::Null) {
                let message = format!("FILTER takes a condition, found ({made})");
                return Err(PlannerError::new(message, span_of(filter)).hint("accepted: FILTER (WHERE x > 1)"));
            }
            Some(to_type(lowered, &DataType::Boolean))
        }
        None => None,
    };
    // MIN and MAX do not care how often they see a value.
    let distinct = params.distinct && function == AggregateFunction::Count;
    let text = match (&arg, params.args.first()) {
        (None, _) | (_, None) => "*".to_string(),
        (_, Some(DfExpr::Column(column))) => column.name.clone(),
        (_, Some(arg)) => arg.schema_name().to_string(),
    };
    let (distinct_text, filtered) =
        (if params.distinct { "DISTINCT " } else { "" }, if filter.is_some() { " FILTER" } else { "" });
    let out = Field { name: format!("{sql}({distinct_text}{text}){filtered}"), ..name.clone() };
    Ok(Call { function, arg, filter, distinct, out })
}

/// DataFusion averages integers as doubles; the sum of the integers themselves is exact.
fn exact(arg: Expr) -> Expr {
    match arg.kind {
        ExprKind::Cast { input, safe: false }
            if arg.ty == DataType::Float64
                && matches!(input.ty, DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64) =>
        {
            to_type(*input, &DataType::Int64)
        }
        _ if matches!(arg.ty, DataType::Int8 | DataType::Int16 | DataType::Int32) => to_type(arg, &DataType::Int64),
        _ if arg.ty == DataType::Float32 => to_type(arg, &DataType::Float64),
        _ => arg,
    }
}
