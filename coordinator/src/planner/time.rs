//! Time attributes: whether a column of a plan still carries the watermark of a source, or the clock.
//!
//! A column keeps its attribute through renames, filters, views, UNION ALL and joins. A window function moves it to
//! `window_time`; an aggregate keeps only a window's time that it groups by.

use super::catalog::{ColumnKind, PlannerTable};
use super::functions::LIBRARY;
use super::nodes::{PredictNode, TimeAttribute, WindowTvf};
use datafusion_expr::{Expr, LogicalPlan};
use ef_proto::function::Builtin;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    Event,
    Processing,
}

/// What the column at `index` of `plan` is, or why it is nothing.
pub fn attribute(plan: &LogicalPlan, index: usize) -> Result<Attribute, String> {
    let name = plan.schema().field(index).name().clone();
    match plan {
        LogicalPlan::TableScan(scan) => {
            let Some(table) = scan.source.downcast_ref::<PlannerTable>().map(|source| &source.table) else {
                return Err(format!("`{name}` is not a column of a table"));
            };
            let column = match &scan.projection {
                Some(projection) => &table.columns[projection[index]],
                None => &table.columns[index],
            };
            if matches!(column.kind, ColumnKind::Proctime) {
                return Ok(Attribute::Processing);
            }
            match &table.watermark {
                Some(watermark) if watermark.column == column.field.name => Ok(Attribute::Event),
                Some(watermark) => Err(format!(
                    "the watermark of table `{}` is on `{}`, not on `{name}`",
                    table.name, watermark.column
                )),
                None => Err(format!("table `{}` has no watermark on `{name}`", table.name)),
            }
        }
        LogicalPlan::Projection(projection) => expression(&projection.expr[index], &projection.input),
        LogicalPlan::SubqueryAlias(alias) => attribute(&alias.input, index),
        LogicalPlan::Filter(filter) => attribute(&filter.input, index),
        LogicalPlan::Sort(sort) => attribute(&sort.input, index),
        LogicalPlan::Limit(limit) => attribute(&limit.input, index),
        LogicalPlan::Repartition(repartition) => attribute(&repartition.input, index),
        LogicalPlan::Subquery(subquery) => attribute(&subquery.subquery, index),
        LogicalPlan::Union(union) => {
            let mut of_inputs = union.inputs.iter().map(|input| attribute(input, index));
            let first = of_inputs.next().unwrap_or_else(|| Err("an empty UNION".into()))?;
            for other in of_inputs {
                if other? != first {
                    return Err(format!(
                        "`{name}` is event time in one part of the UNION and processing time in another"
                    ));
                }
            }
            Ok(first)
        }
        LogicalPlan::Join(join) => {
            let left = join.left.schema().fields().len();
            if plan.schema().fields().len() < left {
                attribute(&join.right, index)
            } else if index < left {
                attribute(&join.left, index)
            } else {
                attribute(&join.right, index - left)
            }
        }
        LogicalPlan::Aggregate(aggregate) => match aggregate.group_expr.get(index) {
            Some(group) if is_window_time(group, &aggregate.input) => expression(group, &aggregate.input),
            Some(_) => {
                Err(format!("`{name}` is no time attribute behind a GROUP BY; window_time of a window would be"))
            }
            None => Err("an aggregate carries no watermark".into()),
        },
        LogicalPlan::Distinct(_) => Err(format!("`{name}` is no time attribute behind a DISTINCT")),
        LogicalPlan::Extension(extension) => {
            if let Some(tvf) = extension.node.as_any().downcast_ref::<WindowTvf>() {
                let start = tvf.window_start_index();
                return match index.checked_sub(start) {
                    Some(2) => Ok(match tvf.time {
                        TimeAttribute::Event(_) => Attribute::Event,
                        TimeAttribute::Processing(_) => Attribute::Processing,
                    }),
                    Some(_) => Err(format!("`{name}` is a window's bound; its time attribute is window_time")),
                    None => Err(format!("behind a window function the time attribute is window_time, not `{name}`")),
                };
            }
            match extension.node.as_any().downcast_ref::<PredictNode>() {
                Some(predict) if index < predict.input.schema().fields().len() => attribute(&predict.input, index),
                _ => Err(format!("`{name}` is no time attribute")),
            }
        }
        _ => Err(format!("`{name}` is no time attribute")),
    }
}

fn expression(expr: &Expr, input: &LogicalPlan) -> Result<Attribute, String> {
    match expr {
        Expr::Column(column) => match input.schema().index_of_column(column) {
            Ok(index) => attribute(input, index),
            Err(_) => Err(format!("`{}` is no time attribute", column.name)),
        },
        Expr::Alias(alias) => expression(&alias.expr, input),
        Expr::ScalarFunction(call) if call.func == LIBRARY.scalars[Builtin::CurrentTimestamp.name()] => {
            Ok(Attribute::Processing)
        }
        other => Err(format!("`{other}` is calculated, so it carries no watermark")),
    }
}

/// Whether a grouping expression is the `window_time` of a window function, passed on unchanged.
fn is_window_time(expr: &Expr, input: &LogicalPlan) -> bool {
    let column = match expr {
        Expr::Column(column) => column,
        Expr::Alias(alias) => return is_window_time(&alias.expr, input),
        _ => return false,
    };
    let Ok(index) = input.schema().index_of_column(column) else { return false };
    window_time_at(input, index)
}

fn window_time_at(plan: &LogicalPlan, index: usize) -> bool {
    match plan {
        LogicalPlan::Extension(extension) => match extension.node.as_any().downcast_ref::<WindowTvf>() {
            Some(tvf) if index == tvf.window_start_index() + 2 => true,
            Some(tvf) if index < tvf.window_start_index() => window_time_at(&tvf.input, index),
            _ => match extension.node.as_any().downcast_ref::<PredictNode>() {
                Some(predict) if index < predict.input.schema().fields().len() => window_time_at(&predict.input, index),
                _ => false,
            },
        },
        LogicalPlan::Projection(projection) => is_window_time(&projection.expr[index], &projection.input),
        LogicalPlan::Aggregate(aggregate) => {
            aggregate.group_expr.get(index).is_some_and(|group| is_window_time(group, &aggregate.input))
        }
        LogicalPlan::SubqueryAlias(alias) => window_time_at(&alias.input, index),
        LogicalPlan::Filter(filter) => window_time_at(&filter.input, index),
        LogicalPlan::Union(union) => union.inputs.iter().all(|input| window_time_at(input, index)),
        LogicalPlan::Join(join) => {
            let left = join.left.schema().fields().len();
            if index < left { window_time_at(&join.left, index) } else { window_time_at(&join.right, index - left) }
        }
        _ => false,
    }
}
