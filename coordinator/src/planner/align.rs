//! Dates beside timestamps become timestamps of the same precision (Flink's least common type), before DataFusion
//! types the tree: its own answer is nanoseconds, which end in 2262 and are not what a sink has declared. And decimals
//! that are compared with doubles become doubles: its own answer is a decimal, which has not their range.

use arrow_schema::{DataType as Arrow, TimeUnit};
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{DFSchema, Result};
use datafusion_expr::expr_rewriter::NamePreserver;
use datafusion_expr::utils::merge_schema;
use datafusion_expr::{Cast, Expr, ExprSchemable, LogicalPlan};

/// The branches of CASE and the arguments of COALESCE, GREATEST and LEAST in a whole plan.
pub fn plan(plan: LogicalPlan) -> Result<LogicalPlan> {
    let aligned = plan.transform_up_with_subqueries(|plan| {
        let schema = merge_schema(&plan.inputs());
        let names = NamePreserver::new(&plan);
        let plan = plan.map_expressions(|found| {
            let name = names.save(&found);
            Ok(align(found, &schema)?.update_data(|aligned| name.restore(aligned)))
        })?;
        if plan.transformed { plan.map_data(|plan| plan.recompute_schema()) } else { Ok(plan) }
    })?;
    Ok(aligned.data)
}

/// The same in one expression.
pub fn expr(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    Ok(align(expr, schema)?.data)
}

fn align(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|mut expr| {
        let mut changed = as_doubles(compared(&mut expr), schema);
        let mut places: Vec<&mut Expr> = match &mut expr {
            Expr::Case(case) => {
                let then = case.when_then_expr.iter_mut().map(|(_, then)| then.as_mut());
                then.chain(case.else_expr.iter_mut().map(|other| other.as_mut())).collect()
            }
            Expr::ScalarFunction(call) if TAKING_ONE_TYPE.contains(&call.func.name()) => call.args.iter_mut().collect(),
            _ => return Ok(if changed { Transformed::yes(expr) } else { Transformed::no(expr) }),
        };
        let types: Vec<Option<Arrow>> = places.iter().map(|place| place.get_type(schema).ok()).collect();
        let finest = types.iter().flatten().filter_map(timestamp_unit).max_by_key(|unit| rank(*unit));
        let Some(unit) = finest else {
            return Ok(if changed { Transformed::yes(expr) } else { Transformed::no(expr) });
        };
        for (place, ty) in places.iter_mut().zip(&types) {
            if *ty == Some(Arrow::Date32) {
                let date = std::mem::take(*place);
                **place = Expr::Cast(Cast::new(Box::new(date), Arrow::Timestamp(unit, None)));
                changed = true;
            }
        }
        Ok(if changed { Transformed::yes(expr) } else { Transformed::no(expr) })
    })
}

/// What BETWEEN, IN and CASE compare with each other. `=`, `<` and the others are planned as they should be.
fn compared(expr: &mut Expr) -> Vec<&mut Expr> {
    match expr {
        Expr::Between(between) => vec![&mut between.expr, &mut between.low, &mut between.high],
        Expr::InList(list) => std::iter::once(list.expr.as_mut()).chain(&mut list.list).collect(),
        Expr::Case(case) => match &mut case.expr {
            Some(operand) => {
                let whens = case.when_then_expr.iter_mut().map(|(when, _)| when.as_mut());
                std::iter::once(operand.as_mut()).chain(whens).collect()
            }
            None => vec![],
        },
        _ => vec![],
    }
}

/// Casts decimals beside a FLOAT or DOUBLE, and FLOATs beside a decimal.
fn as_doubles(places: Vec<&mut Expr>, schema: &DFSchema) -> bool {
    let types: Vec<Option<Arrow>> = places.iter().map(|place| place.get_type(schema).ok()).collect();
    let has = |wanted: fn(&Arrow) -> bool| types.iter().flatten().any(wanted);
    let is_decimal = |ty: &Arrow| matches!(ty, Arrow::Decimal128(..));
    if !(has(is_decimal) && has(Arrow::is_floating)) {
        return false;
    }
    for (place, ty) in places.into_iter().zip(&types) {
        if ty.as_ref().is_some_and(|ty| is_decimal(ty) || *ty == Arrow::Float32) {
            let value = std::mem::take(place);
            *place = Expr::Cast(Cast::new(Box::new(value), Arrow::Float64));
        }
    }
    true
}

const TAKING_ONE_TYPE: [&str; 3] = ["coalesce", "ef_greatest", "ef_least"];

/// Of a timestamp without a zone.
fn timestamp_unit(ty: &Arrow) -> Option<TimeUnit> {
    match ty {
        Arrow::Timestamp(unit, None) => Some(*unit),
        _ => None,
    }
}

fn rank(unit: TimeUnit) -> u8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 1,
        TimeUnit::Microsecond => 2,
        TimeUnit::Nanosecond => 3,
    }
}
