//! `JOIN t FOR SYSTEM_TIME AS OF o.proc_time AS d ON …` between the syntax tree and the logical plan.
//!
//! DataFusion's planner passes over FOR SYSTEM_TIME. So the rewrite of the tree puts the time into the join's condition,
//! as a call that only this module knows ([`mark`]): there its column is resolved like any other. [`resolve`] takes
//! the call out of the planned join again, and checks what it names. What stays is a join whose right side scans a
//! [`LookupSource`]; the optimizer may do with it what it does with joins, and lowering knows it by that source.

use super::catalog::Table;
use super::diagnose::from_datafusion;
use super::error::{PlannerError, Span};
use super::time::{Attribute, attribute};
use arrow_schema::{DataType as Arrow, SchemaRef};
use datafusion_common::tree_node::Transformed;
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::utils::{conjunction, split_conjunction_owned};
use datafusion_expr::{
    ColumnarValue, Expr, Join, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TableSource,
    Volatility,
};
use datafusion_sql::sqlparser::ast::{self, BinaryOperator, Ident};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// What the name of such a call starts with; its place follows.
const PREFIX: &str = "__as_of ";

/// A table as the right side of a lookup join.
#[derive(Debug)]
pub struct LookupSource {
    pub table: Arc<Table>,
    schema: SchemaRef,
}

impl LookupSource {
    pub fn new(table: Arc<Table>) -> LookupSource {
        let schema = table.schema().to_arrow();
        LookupSource { table, schema }
    }
}

impl TableSource for LookupSource {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}

/// The condition of a join with the time of FOR SYSTEM_TIME AS OF in it.
pub fn mark(condition: ast::Expr, time: ast::Expr, span: Span) -> ast::Expr {
    let name = format!("{PREFIX}{} {} {} {}", span.line, span.column, span.end_line, span.end_column);
    let call = super::dialect::call(Ident::with_quote('`', name), vec![time]);
    ast::Expr::BinaryOp {
        left: Box::new(call),
        op: BinaryOperator::And,
        right: Box::new(ast::Expr::Nested(Box::new(condition))),
    }
}

/// The function of a name that [`mark`] made.
pub fn by_name(name: &str) -> Option<Arc<ScalarUDF>> {
    let places: Vec<u64> = name.strip_prefix(PREFIX)?.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [line, column, end_line, end_column] = places[..] else { return None };
    let span = Span { line, column, end_line, end_column };
    let signature = Signature::any(1, Volatility::Volatile);
    Some(Arc::new(ScalarUDF::from(AsOf { span, name: name.into(), signature })))
}

/// Checks the times of all lookup joins of a plan that SQL has just become, and takes them out of the conditions.
pub fn resolve(plan: LogicalPlan) -> Result<LogicalPlan, PlannerError> {
    let resolved = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Join(join) => {
            let Some(filter) = &join.filter else { return Ok(Transformed::no(LogicalPlan::Join(join))) };
            let (times, conditions): (Vec<Expr>, Vec<Expr>) =
                split_conjunction_owned(filter.clone()).into_iter().partition(|conjunct| of(conjunct).is_some());
            if times.is_empty() {
                return Ok(Transformed::no(LogicalPlan::Join(join)));
            }
            times.iter().try_for_each(|time| check(&join, time)).map_err(|e| DataFusionError::External(Box::new(e)))?;
            Ok(Transformed::yes(LogicalPlan::Join(Join { filter: conjunction(conditions), ..join })))
        }
        other => Ok(Transformed::no(other)),
    });
    resolved.map(|resolved| resolved.data).map_err(|error| from_datafusion(error, Span::UNKNOWN))
}

/// The call's argument and place.
fn of(expr: &Expr) -> Option<(&Expr, Span)> {
    let Expr::ScalarFunction(ScalarFunction { func, args }) = expr else { return None };
    let function: &dyn std::any::Any = func.inner().as_ref();
    Some((args.first()?, function.downcast_ref::<AsOf>()?.span))
}

/// Flink's rule: the processing-time attribute of the left side.
fn check(join: &Join, time: &Expr) -> Result<(), PlannerError> {
    const ACCEPTED: &str =
        "accepted: FOR SYSTEM_TIME AS OF o.proc_time, where the left table has `proc_time AS PROCTIME()`";
    let Some((Expr::Column(column), span)) = of(time) else {
        return Err(PlannerError::new("FOR SYSTEM_TIME AS OF an expression", Span::UNKNOWN).hint(ACCEPTED));
    };
    let wrong = |what: String| Err(PlannerError::new(format!("FOR SYSTEM_TIME AS OF {what}"), span).hint(ACCEPTED));
    let Some(index) = join.left.schema().maybe_index_of_column(column) else {
        return wrong(format!("`{}`, which is no column of the left side of the join", column.flat_name()));
    };
    match attribute(&join.left, index) {
        Ok(Attribute::Processing) => Ok(()),
        Ok(Attribute::Event) => {
            wrong(format!("`{}`, which is event time: a lookup join needs a processing-time attribute", column.name))
        }
        Err(reason) => wrong(format!("`{}`, which is not a time attribute: {reason}", column.name)),
    }
}

/// The call, while the plan is made.
#[derive(Debug)]
struct AsOf {
    span: Span,
    name: String,
    signature: Signature,
}

impl PartialEq for AsOf {
    fn eq(&self, other: &AsOf) -> bool {
        self.name == other.name
    }
}

impl Eq for AsOf {}

impl Hash for AsOf {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for AsOf {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _args: &[Arrow]) -> Result<Arrow> {
        Ok(Arrow::Boolean)
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(DataFusionError::Internal("the time of a lookup join is no value".into()))
    }
}
