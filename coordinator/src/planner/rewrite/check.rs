//! What parses and is not supported: refused by name and with its place, before anything is rewritten.

use super::unsupported;
use crate::planner::dialect::TABLE_FUNCTIONS;
use crate::planner::dialect::span;
use crate::planner::error::PlannerError;
use crate::planner::functions::LIBRARY;
use datafusion_sql::sqlparser::ast::{
    Distinct, Function, FunctionArguments, GroupByExpr, JoinOperator, Query, Select, SetExpr, SetOperator,
    SetQuantifier, Spanned,
};

pub fn query(query: &Query) -> Result<(), PlannerError> {
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
    set(&query.body)
}

fn set(body: &SetExpr) -> Result<(), PlannerError> {
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
            set(left)?;
            set(right)
        }
        SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) => Ok(()),
        other => Err(unsupported("this form of query", other.span(), "accepted: SELECT, VALUES, UNION ALL")),
    }
}

pub fn select(select: &mut Select) -> Result<(), PlannerError> {
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
    if select.from.len() > FROM_MAX {
        return Err(unsupported(format!("a FROM with more than {FROM_MAX} tables"), at, ""));
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

/// A cross join nests one level a table.
const FROM_MAX: usize = 100;
const OVER_HINT: &str = "accepted: aggregates with GROUP BY, also over TABLE(TUMBLE(…))";

/// What is checked before the arguments are rewritten.
pub fn function(function: &Function, scalar_only: bool) -> Result<(), PlannerError> {
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
