//! From Flink's syntax tree to the one that DataFusion's planner takes.
//!
//! Names of functions and columns become canonical, intervals and literals get Flink's types, window functions leave
//! the tree as [`TableCall`]s, and everything that is parsed but not supported is refused here, by name and with its place.

use super::dialect::{TABLE_ARGUMENT, TABLE_FUNCTIONS, call, span};
use super::error::{PlannerError, Span, near};
use super::functions::{LIBRARY, core_by_flink_name, known_names, theirs_by_flink_name};
use super::interval;
use super::types;
use datafusion_sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion_sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, CaseWhen, CastKind, CeilFloorKind, DateTimeField, Distinct, DuplicateTreatment, Expr,
    Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, JoinOperator, ObjectName,
    ObjectNamePart, Query, Select, SelectItem, SetExpr, SetOperator, SetQuantifier, Spanned, Subscript, TableAlias,
    TableFactor, UnaryOperator, Value, ValueWithSpan, VisitMut, VisitorMut,
};
use datafusion_sql::sqlparser::tokenizer::Span as TokenSpan;
use ef_proto::function::Builtin;
use ef_proto::schema::{DataType, Unit};
use std::collections::HashSet;
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

/// Rewrites a query; returns its table calls.
pub fn query(query: &mut Query) -> Result<Vec<TableCall>, PlannerError> {
    let mut rewriter = Rewriter::default();
    match VisitMut::visit(query, &mut rewriter) {
        ControlFlow::Break(error) => Err(*error),
        ControlFlow::Continue(()) => Ok(rewriter.calls),
    }
}

/// Rewrites an expression of a DDL statement: no subqueries, no aggregates.
pub fn expression(expr: &mut Expr) -> Result<(), PlannerError> {
    let mut rewriter = Rewriter { scalar_only: true, ..Rewriter::default() };
    match VisitMut::visit(expr, &mut rewriter) {
        ControlFlow::Break(error) => Err(*error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

#[derive(Default)]
struct Rewriter {
    calls: Vec<TableCall>,
    scalar_only: bool,
    /// Output names of the SELECTs that are open, by select: None keeps what is there.
    names: Vec<Vec<Option<String>>>,
}

type Flow = ControlFlow<Box<PlannerError>>;

fn fail(error: PlannerError) -> Flow {
    ControlFlow::Break(Box::new(error))
}

fn unsupported(what: impl AsRef<str>, at: TokenSpan, hint: &str) -> PlannerError {
    let error = PlannerError::new(format!("{} is not supported", what.as_ref()), span(at));
    if hint.is_empty() { error } else { error.hint(hint) }
}

fn flow(result: Result<(), PlannerError>) -> Flow {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => fail(error),
    }
}

impl VisitorMut for Rewriter {
    type Break = Box<PlannerError>;

    fn pre_visit_query(&mut self, query: &mut Query) -> Flow {
        flow(check_query(query))
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> Flow {
        if let Err(error) = check_select(select) {
            return fail(error);
        }
        self.names.push(output_names(&select.projection));
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut Select) -> Flow {
        let names = self.names.pop().unwrap_or_default();
        for (item, name) in select.projection.iter_mut().zip(names) {
            let Some(name) = name else { continue };
            let expr = match item {
                SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => expr.clone(),
                _ => continue,
            };
            *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('`', name) };
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> Flow {
        flow(self.table_factor(factor))
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> Flow {
        flow(self.before(expr))
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> Flow {
        flow(after(expr))
    }
}

fn check_query(query: &Query) -> Result<(), PlannerError> {
    let at = query.body.span();
    if let Some(with) = &query.with
        && with.recursive
    {
        return Err(unsupported("WITH RECURSIVE", with.span(), "accepted: WITH name AS (SELECT …)"));
    }
    if let Some(order) = &query.order_by {
        return Err(unsupported("ORDER BY", order.span(), "rows leave a stream as they come; sort what was written"));
    }
    if let Some(limit) = &query.limit_clause {
        return Err(unsupported("LIMIT", limit.span(), "accepted: a WHERE that says which rows"));
    }
    if query.fetch.is_some() {
        return Err(unsupported("FETCH", at, "accepted: a WHERE that says which rows"));
    }
    if !query.locks.is_empty()
        || query.for_clause.is_some()
        || query.settings.is_some()
        || !query.pipe_operators.is_empty()
    {
        return Err(unsupported("a clause behind this query", at, ""));
    }
    check_set(&query.body)
}

fn check_set(body: &SetExpr) -> Result<(), PlannerError> {
    match body {
        SetExpr::SetOperation { op, set_quantifier, left, right } => {
            let quantifier = match set_quantifier {
                SetQuantifier::ByName | SetQuantifier::AllByName | SetQuantifier::DistinctByName => {
                    Some("UNION BY NAME")
                }
                _ => None,
            };
            let what = match op {
                SetOperator::Union => quantifier,
                SetOperator::Except | SetOperator::Minus => Some("EXCEPT"),
                SetOperator::Intersect => Some("INTERSECT"),
            };
            if let Some(what) = what {
                return Err(unsupported(what, right.span(), "accepted: UNION ALL, UNION"));
            }
            check_set(left)?;
            check_set(right)
        }
        SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) => Ok(()),
        other => Err(unsupported("this form of query", other.span(), "accepted: SELECT, VALUES, UNION ALL")),
    }
}

fn check_select(select: &mut Select) -> Result<(), PlannerError> {
    let at = select.select_token.0.span;
    if let Some(Distinct::On(_)) = &select.distinct {
        return Err(unsupported("DISTINCT ON", at, "accepted: SELECT DISTINCT"));
    }
    if let GroupByExpr::All(_) = &select.group_by {
        return Err(unsupported("GROUP BY ALL", at, "accepted: GROUP BY column, …"));
    }
    if let GroupByExpr::Expressions(_, modifiers) = &select.group_by
        && !modifiers.is_empty()
    {
        return Err(unsupported("a modifier of GROUP BY", select.group_by.span(), "accepted: GROUP BY column, …"));
    }
    if let Some(window) = select.named_window.first() {
        return Err(unsupported("WINDOW", window.span(), OVER_HINT));
    }
    if let Some(qualify) = &select.qualify {
        return Err(unsupported("QUALIFY", qualify.span(), OVER_HINT));
    }
    let odd = [
        ("TOP", select.top.is_some()),
        ("SELECT INTO", select.into.is_some()),
        ("LATERAL VIEW", !select.lateral_views.is_empty()),
        ("PREWHERE", select.prewhere.is_some()),
        ("CONNECT BY", !select.connect_by.is_empty()),
        ("CLUSTER BY", !select.cluster_by.is_empty()),
        ("DISTRIBUTE BY", !select.distribute_by.is_empty()),
        ("SORT BY", !select.sort_by.is_empty()),
    ];
    if let Some((what, _)) = odd.iter().find(|(_, found)| *found) {
        return Err(unsupported(what, at, ""));
    }
    for table in &select.from {
        for join in &table.joins {
            let what = match &join.join_operator {
                JoinOperator::AsOf { .. } => "ASOF JOIN",
                JoinOperator::CrossApply | JoinOperator::OuterApply => "APPLY",
                JoinOperator::ArrayJoin | JoinOperator::LeftArrayJoin | JoinOperator::InnerArrayJoin => "ARRAY JOIN",
                JoinOperator::StraightJoin(_) => "STRAIGHT_JOIN",
                _ => continue,
            };
            return Err(unsupported(what, join.relation.span(), "accepted: JOIN, LEFT JOIN, RIGHT JOIN, FULL JOIN"));
        }
    }
    Ok(())
}

const OVER_HINT: &str = "accepted: aggregates with GROUP BY, also over TABLE(TUMBLE(…))";

/// Flink's names of a select list: the last part of a compound name, EXPR$n for what has none, and a number behind a
/// name that is taken.
fn output_names(items: &[SelectItem]) -> Vec<Option<String>> {
    let wildcard = items.iter().any(|item| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)));
    let mut taken: HashSet<String> = HashSet::new();
    let names = items.iter().enumerate().map(|(i, item)| {
        let (name, plain) = match item {
            SelectItem::UnnamedExpr(Expr::Identifier(ident)) => (ident.value.clone(), true),
            SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => (parts.last()?.value.clone(), false),
            SelectItem::UnnamedExpr(Expr::CompoundFieldAccess { access_chain, .. }) => match access_chain.last() {
                Some(AccessExpr::Dot(Expr::Identifier(ident))) => (ident.value.clone(), false),
                _ => (format!("EXPR${i}"), false),
            },
            SelectItem::UnnamedExpr(_) => (format!("EXPR${i}"), false),
            SelectItem::ExprWithAlias { alias, .. } => (alias.value.clone(), true),
            _ => return None,
        };
        let mut unique = name.clone();
        let mut n = 0;
        while !wildcard && !taken.insert(unique.clone()) {
            unique = format!("{name}{n}");
            n += 1;
        }
        if plain && unique == name { None } else { Some(unique) }
    });
    names.collect()
}

impl Rewriter {
    fn table_factor(&mut self, factor: &mut TableFactor) -> Result<(), PlannerError> {
        let at = factor.span();
        match factor {
            TableFactor::Table { name, args: None, version, sample, with_hints, alias, .. } => {
                if version.is_some() {
                    return Err(unsupported(
                        "FOR SYSTEM_TIME AS OF",
                        at,
                        "temporal and lookup joins are not there yet",
                    ));
                }
                if sample.is_some() || !with_hints.is_empty() {
                    return Err(unsupported("TABLESAMPLE or a table hint", at, ""));
                }
                // The name must not be read as a call of ours.
                if TableCall::by_reference(name).is_some() && alias.is_none() && self.calls.is_empty() {
                    return Err(PlannerError::new(format!("table `{name}` does not exist"), span(at)));
                }
                Ok(())
            }
            TableFactor::Table { name, args: Some(args), alias, .. } => {
                if !TABLE_FUNCTIONS.iter().any(|known| name.to_string().eq_ignore_ascii_case(known)) {
                    let accepted = format!("accepted: FROM TABLE(f(…)) with f one of {}", TABLE_FUNCTIONS.join(", "));
                    return Err(PlannerError::new(format!("`{name}(…)` in FROM"), span(at)).hint(accepted));
                }
                // `FROM HOP(…)` means `FROM TABLE(HOP(…))`.
                let function = name.0.last().and_then(ObjectNamePart::as_ident).cloned();
                let mut expr = call(function.unwrap_or_else(|| Ident::new(name.to_string())), vec![]);
                if let Expr::Function(Function { args: FunctionArguments::List(list), .. }) = &mut expr {
                    list.args = std::mem::take(&mut args.args);
                }
                let call = self.table_call(&expr)?;
                let alias = alias.take();
                *factor = self.replace(call, alias);
                Ok(())
            }
            TableFactor::TableFunction { expr, alias } => {
                let call = self.table_call(expr)?;
                let alias = alias.take();
                *factor = self.replace(call, alias);
                Ok(())
            }
            TableFactor::Derived { lateral: false, sample: None, .. } | TableFactor::NestedJoin { .. } => Ok(()),
            TableFactor::Derived { lateral: true, .. } => Err(unsupported("LATERAL", at, "accepted: a join with ON")),
            TableFactor::Function { name, .. } => {
                Err(unsupported(format!("LATERAL TABLE({name}(…))"), at, "table functions in joins are not there yet"))
            }
            TableFactor::UNNEST { .. } => Err(unsupported("UNNEST", at, "")),
            TableFactor::MatchRecognize { .. } => Err(unsupported("MATCH_RECOGNIZE", at, "")),
            TableFactor::Pivot { .. } | TableFactor::Unpivot { .. } => Err(unsupported("PIVOT", at, "")),
            _ => Err(unsupported("this kind of table", at, "accepted: a table, a view, (SELECT …), TABLE(TUMBLE(…))")),
        }
    }

    fn replace(&mut self, call: TableCall, alias: Option<TableAlias>) -> TableFactor {
        let name = TableCall::reference(self.calls.len());
        self.calls.push(call);
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

    /// `f(TABLE t, …)` with positional or named arguments.
    fn table_call(&mut self, expr: &Expr) -> Result<TableCall, PlannerError> {
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

    fn before(&mut self, expr: &mut Expr) -> Result<(), PlannerError> {
        let at = expr.span();
        match expr {
            Expr::Interval(_) => {
                *expr = interval::canonical(expr).map_err(|message| PlannerError::new(message, span(at)))?;
                Ok(())
            }
            Expr::Subquery(_) => {
                Err(unsupported("a scalar subquery", at, "accepted: a join, or IN (SELECT …) in WHERE"))
            }
            Expr::Exists { .. } | Expr::InSubquery { .. } if self.scalar_only => {
                Err(unsupported("a subquery in this place", at, ""))
            }
            Expr::SimilarTo { .. } => Err(unsupported("SIMILAR TO", at, "accepted: LIKE, REGEXP(string, pattern)")),
            Expr::RLike { .. } => Err(unsupported("RLIKE", at, "accepted: LIKE, REGEXP(string, pattern)")),
            Expr::AtTimeZone { .. } => Err(unsupported("AT TIME ZONE", at, "")),
            Expr::GroupingSets(_) => Err(unsupported("GROUPING SETS", at, "accepted: GROUP BY column, …")),
            Expr::Cube(_) => Err(unsupported("CUBE", at, "accepted: GROUP BY column, …")),
            Expr::Rollup(_) => Err(unsupported("ROLLUP", at, "accepted: GROUP BY column, …")),
            Expr::Collate { .. } => Err(unsupported("COLLATE", at, "")),
            Expr::Lambda(_) => Err(unsupported("a lambda", at, "")),
            Expr::JsonAccess { .. } => Err(unsupported("`:`", at, "accepted: JSON_VALUE(string, path)")),
            Expr::AnyOp { .. } | Expr::AllOp { .. } => Err(unsupported("ANY, SOME and ALL", at, "accepted: IN")),
            Expr::Convert { .. } => Err(unsupported("CONVERT", at, "accepted: CAST(x AS type), TRY_CAST(x AS type)")),
            Expr::Function(function) => check_function(function, self.scalar_only),
            // A field behind a subscript: DataFusion takes the name as a string.
            Expr::CompoundFieldAccess { root, access_chain } => {
                let mut plain = matches!(root.as_ref(), Expr::Identifier(_));
                for access in access_chain {
                    match access {
                        AccessExpr::Subscript(Subscript::Slice { .. }) => {
                            return Err(unsupported("a slice of an array", at, "accepted: array[position]"));
                        }
                        AccessExpr::Subscript(_) => plain = false,
                        AccessExpr::Dot(Expr::Identifier(ident)) if !plain => {
                            let name = Value::SingleQuotedString(ident.value.clone());
                            *access = AccessExpr::Dot(Expr::Value(name.with_empty_span()));
                        }
                        AccessExpr::Dot(_) => {}
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// What is checked before the arguments are rewritten.
fn check_function(function: &Function, scalar_only: bool) -> Result<(), PlannerError> {
    let at = function.span();
    let name = function.name.to_string().to_uppercase();
    if function.over.is_some() {
        return Err(unsupported(format!("the OVER window of {name}"), at, OVER_HINT));
    }
    if TABLE_FUNCTIONS.contains(&name.as_str()) {
        return Err(unsupported(
            format!("{name} outside FROM"),
            at,
            "accepted: FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), …))",
        ));
    }
    if let "TUMBLE_START" | "TUMBLE_END" | "HOP_START" | "HOP_END" | "SESSION_START" | "SESSION_END"
    | "TUMBLE_ROWTIME" = name.as_str()
    {
        return Err(unsupported(
            name,
            at,
            "accepted: the columns window_start, window_end and window_time of TABLE(TUMBLE(…))",
        ));
    }
    if !function.within_group.is_empty() {
        return Err(unsupported("WITHIN GROUP", at, ""));
    }
    if let FunctionArguments::List(list) = &function.args
        && !list.clauses.is_empty()
    {
        return Err(unsupported(format!("a clause inside {name}(…)"), at, ""));
    }
    if scalar_only && LIBRARY.aggregates.contains_key(&name.to_lowercase()) {
        return Err(PlannerError::new(format!("the aggregate {name} in a column definition"), span(at)));
    }
    Ok(())
}

fn after(expr: &mut Expr) -> Result<(), PlannerError> {
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
            let Some(step) = literal_number(amount).and_then(|n| interval::of(n, &field.value)) else {
                return wrong("TIMESTAMPADD(SECOND, 10, time) with a literal amount");
            };
            Some(nested(binary(time, BinaryOperator::Plus, &step)))
        }
        ("TIMESTAMPADD", _) => return wrong("TIMESTAMPADD(SECOND, 10, time)"),
        ("LOCATE", [needle, hay]) => Some(call(named("strpos"), vec![hay.clone(), needle.clone()])),
        ("REGEXP_REPLACE", [text, pattern, with]) => {
            Some(call(named("regexp_replace"), vec![text.clone(), pattern.clone(), with.clone(), string("g")]))
        }
        ("LOG", [x]) => core(Builtin::Ln, vec![x.clone()]),
        ("LOG", [base, x]) => {
            let ln = |x: &Expr| call(named(Builtin::Ln.name()), vec![x.clone()]);
            Some(nested(binary(&ln(x), BinaryOperator::Divide, &ln(base))))
        }
        ("E", []) => core(Builtin::Exp, vec![number(1)]),
        ("TO_DATE", [text]) => Some(cast(text.clone(), &DataType::Date)),
        ("SHA224" | "SHA256" | "SHA384" | "SHA512", [text]) => {
            Some(call(named("encode"), vec![call(named(&lower), vec![text.clone()]), string("hex")]))
        }
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
                (None, None) if LIBRARY.scalars.contains_key(&lower) => lower.as_str(),
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
    TableFactor::Table {
        name: ObjectName(vec![]),
        alias: None,
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

fn cast(expr: Expr, ty: &DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type: types::to_sql(ty), array: false, format: None }
}

fn binary(left: &Expr, op: BinaryOperator, right: &Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left.clone()), op, right: Box::new(right.clone()) }
}

fn nested(expr: Expr) -> Expr {
    Expr::Nested(Box::new(expr))
}

fn string(text: &str) -> Expr {
    Expr::Value(Value::SingleQuotedString(text.into()).with_empty_span())
}

fn number(value: i64) -> Expr {
    Expr::Value(Value::Number(value.to_string(), false).with_empty_span())
}

/// A unit of time as the core functions take it: an upper-case string.
fn unit(name: &str) -> Expr {
    string(&name.to_uppercase())
}

fn is_literal(expr: &Expr) -> bool {
    match expr {
        Expr::Value(value) => value.value != Value::Null,
        Expr::Cast { expr, .. } => is_literal(expr),
        _ => false,
    }
}

fn literal_number(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::Number(text, _), .. }) => text.parse().ok(),
        Expr::Cast { expr, .. } | Expr::Nested(expr) => literal_number(expr),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => literal_number(expr).map(|n| -n),
        _ => None,
    }
}
