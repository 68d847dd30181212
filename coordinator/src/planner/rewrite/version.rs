//! `FOR SYSTEM_TIME AS OF`: where it may stand, and its time's way into the condition of the join.

use super::unsupported;
use crate::planner::dialect::span;
use crate::planner::error::PlannerError;
use crate::planner::lookup;
use datafusion_sql::sqlparser::ast::{
    Expr, JoinConstraint, JoinOperator, Select, Spanned, TableFactor, TableVersion, TableWithJoins,
};

const ACCEPTED: &str = "accepted: FROM o [LEFT] JOIN t FOR SYSTEM_TIME AS OF o.proc_time AS d ON o.key = d.key";

/// Only at the right of JOIN … ON and LEFT JOIN … ON.
pub fn check(select: &Select) -> Result<(), PlannerError> {
    select.from.iter().try_for_each(check_tree)
}

fn check_tree(tree: &TableWithJoins) -> Result<(), PlannerError> {
    if let TableFactor::Table { version: Some(_), .. } = &tree.relation {
        let at = tree.relation.span();
        return Err(unsupported("FOR SYSTEM_TIME AS OF a table that is not joined", at, ACCEPTED));
    }
    nested(&tree.relation).map_or(Ok(()), check_tree)?;
    for join in &tree.joins {
        let TableFactor::Table { version: Some(version), .. } = &join.relation else {
            nested(&join.relation).map_or(Ok(()), check_tree)?;
            continue;
        };
        let at = join.relation.span();
        let TableVersion::ForSystemTimeAsOf(time) = version else {
            return Err(unsupported(format!("`{version}`"), at, ACCEPTED));
        };
        if !matches!(time, Expr::Identifier(_) | Expr::CompoundIdentifier(_)) {
            let error = PlannerError::new(format!("FOR SYSTEM_TIME AS OF `{time}`, which is no column"), span(at));
            return Err(error.hint("accepted: a column AS PROCTIME() of the left table, as in o.proc_time"));
        }
        let what = match &join.join_operator {
            JoinOperator::Join(constraint)
            | JoinOperator::Inner(constraint)
            | JoinOperator::Left(constraint)
            | JoinOperator::LeftOuter(constraint) => match constraint {
                JoinConstraint::On(_) => continue,
                JoinConstraint::Using(_) => "USING",
                JoinConstraint::Natural => "NATURAL JOIN",
                JoinConstraint::None => "JOIN without ON",
            },
            JoinOperator::CrossJoin(_) => "CROSS JOIN",
            JoinOperator::Right(_) | JoinOperator::RightOuter(_) => "RIGHT JOIN",
            JoinOperator::FullOuter(_) => "FULL JOIN",
            _ => "this join",
        };
        return Err(unsupported(format!("{what} with FOR SYSTEM_TIME AS OF"), at, ACCEPTED));
    }
    Ok(())
}

/// Puts the times into the conditions, of what [`check`] has accepted.
pub fn mark(select: &mut Select) {
    select.from.iter_mut().for_each(mark_tree);
}

fn mark_tree(tree: &mut TableWithJoins) {
    if let TableFactor::NestedJoin { table_with_joins, .. } = &mut tree.relation {
        mark_tree(table_with_joins);
    }
    for join in &mut tree.joins {
        if let TableFactor::NestedJoin { table_with_joins, .. } = &mut join.relation {
            mark_tree(table_with_joins);
        }
        let TableFactor::Table { version: Some(TableVersion::ForSystemTimeAsOf(time)), .. } = &join.relation else {
            continue;
        };
        let time = time.clone();
        if let JoinOperator::Join(JoinConstraint::On(condition))
        | JoinOperator::Inner(JoinConstraint::On(condition))
        | JoinOperator::Left(JoinConstraint::On(condition))
        | JoinOperator::LeftOuter(JoinConstraint::On(condition)) = &mut join.join_operator
        {
            let at = span(time.span());
            *condition = lookup::mark(condition.clone(), time, at);
        }
    }
}

fn nested(relation: &TableFactor) -> Option<&TableWithJoins> {
    match relation {
        TableFactor::NestedJoin { table_with_joins, .. } => Some(table_with_joins),
        _ => None,
    }
}
