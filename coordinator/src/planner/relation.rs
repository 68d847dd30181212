//! Table functions in FROM: the window functions and ML_PREDICT become extension nodes over their planned input.

use super::catalog::Table;
use super::error::{PlannerError, near};
use super::lookup::LookupSource;
use super::nodes::{PredictNode, TimeAttribute, WindowTvf};
use super::rewrite::{ArgumentValue, TableCall};
use super::time::{Attribute, attribute};
use super::types::{closed, implicit};
use datafusion_common::{Column, DataFusionError, Result};
use datafusion_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion_expr::{Cast, Expr, Extension, LogicalPlan, LogicalPlanBuilder};
use datafusion_sql::sqlparser::ast::{Ident, ObjectName, ObjectNamePart, Spanned, TableFactor};
use ef_proto::connector::lookup::LOOKUP_CONNECTORS;
use ef_proto::plan::{Model, Window};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The table calls of one query, as its rewrite found them.
#[derive(Debug)]
pub struct TableCalls {
    pub calls: Vec<TableCall>,
    pub models: BTreeMap<String, Arc<Model>>,
    /// Those that a lookup join may name.
    pub tables: BTreeMap<String, Arc<Table>>,
}

impl RelationPlanner for TableCalls {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let TableFactor::Table { name, alias, args: None, version, .. } = &relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        if version.is_some() {
            let plan = self.lookup(name)?;
            return Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias.clone()))));
        }
        let Some(call) = TableCall::by_reference(name).and_then(|n| self.calls.get(n)) else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let input = context.plan(call.input.clone())?;
        let planned = match call.function.as_str() {
            "ML_PREDICT" => self.predict(call, input),
            _ => window(call, input),
        };
        let plan = planned.map_err(external)?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias.clone()))))
    }
}

fn external(error: PlannerError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

fn window(call: &TableCall, input: LogicalPlan) -> Result<LogicalPlan, PlannerError> {
    let name = &call.function;
    let (mut column, mut lengths) = (None, Vec::new());
    for arg in &call.args {
        match &arg.value {
            ArgumentValue::Descriptor(columns) => column = Some((columns, arg.span)),
            ArgumentValue::Millis(millis) => lengths.push((*millis, arg.span)),
            ArgumentValue::Model(_) => {}
        }
    }
    let Some(([ident], at)) = column.map(|(columns, at)| (columns.as_slice(), at)) else {
        let at = column.map_or(call.span, |(_, at)| at);
        return Err(PlannerError::new(format!("{name} takes one time column"), at).hint("accepted: DESCRIPTOR(ts)"));
    };
    let time = find(&input, ident)?;
    let index = input.schema().index_of_column(&time).map_err(|error| PlannerError::new(error.to_string(), at))?;
    let time = match attribute(&input, index) {
        Ok(Attribute::Event) => TimeAttribute::Event(time),
        Ok(Attribute::Processing) => TimeAttribute::Processing(time),
        Err(reason) => {
            return Err(PlannerError::new(
                format!("`{}` is not a time attribute: {reason}", ident.value),
                place(ident),
            )
            .hint("accepted: the column of a WATERMARK FOR, a column AS PROCTIME(), or the window_time of a window"));
        }
    };
    // Only offsets may be zero or negative.
    let mandatory = if matches!(name.as_str(), "TUMBLE" | "SESSION") { 1 } else { 2 };
    if let Some((_, at)) = lengths.iter().take(mandatory).find(|(millis, _)| *millis <= 0) {
        return Err(PlannerError::new(format!("{name} with a length of zero or less"), *at)
            .hint("accepted: an INTERVAL of at least one millisecond"));
    }
    let length = |i: usize| lengths.get(i).map_or(0, |(millis, _)| *millis);
    let multiple = |what: &str| {
        if length(1) % length(0) == 0 {
            return Ok(());
        }
        let at = lengths.get(1).map_or(call.span, |(_, at)| *at);
        Err(PlannerError::new(format!("{name}: the size is not a multiple of the {what}"), at)
            .hint(format!("accepted: {what} first, then a size that it divides")))
    };
    let window = match name.as_str() {
        "TUMBLE" => Window::Tumble { size_ms: length(0), offset_ms: length(1) },
        "HOP" => {
            multiple("slide")?;
            Window::Hop { slide_ms: length(0), size_ms: length(1), offset_ms: length(2) }
        }
        "CUMULATE" => {
            multiple("step")?;
            Window::Cumulate { step_ms: length(0), max_ms: length(1), offset_ms: length(2) }
        }
        _ => Window::Session { gap_ms: length(0) },
    };
    let partition_by = call.partition_by.iter().map(|ident| find(&input, ident)).collect::<Result<Vec<_>, _>>()?;
    let node = WindowTvf::try_new(input, window, time, partition_by, call.span)
        .map_err(|error| super::diagnose::from_datafusion(error, call.span))?;
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
}

impl TableCalls {
    /// The right side of a join with FOR SYSTEM_TIME AS OF.
    fn lookup(&self, name: &ObjectName) -> Result<LogicalPlan> {
        let at = super::dialect::span(name.span());
        let text = match name.0.as_slice() {
            [ObjectNamePart::Identifier(ident)] => ident.value.clone(),
            _ => name.to_string(),
        };
        let Some(table) = self.tables.get(&text) else {
            let error = PlannerError::new(format!("`{text}` is no table that can be looked up"), at);
            return Err(external(error.hint(near(&text, self.tables.keys().map(String::as_str)))));
        };
        let connector = table.options.get("connector").map_or("", String::as_str);
        if !LOOKUP_CONNECTORS.contains(&connector) {
            let known: Vec<String> = LOOKUP_CONNECTORS.iter().map(|known| format!("'{known}'")).collect();
            let message = format!("table `{text}` with 'connector' = '{connector}' cannot be looked up");
            let hint = format!("accepted: FOR SYSTEM_TIME AS OF with a table on {}", known.join(" or "));
            return Err(external(PlannerError::new(message, at).hint(hint)));
        }
        LogicalPlanBuilder::scan(text, Arc::new(LookupSource::new(table.clone())), None)?.build()
    }

    fn predict(&self, call: &TableCall, input: LogicalPlan) -> Result<LogicalPlan, PlannerError> {
        let (mut model, mut columns) = (None, None);
        for arg in &call.args {
            match &arg.value {
                ArgumentValue::Model(name) => model = Some((name, arg.span)),
                ArgumentValue::Descriptor(idents) => columns = Some((idents, arg.span)),
                ArgumentValue::Millis(_) => {}
            }
        }
        let (Some((name, model_at)), Some((idents, at))) = (model, columns) else {
            return Err(PlannerError::new("ML_PREDICT without its model or its descriptor", call.span));
        };
        let Some(model) = self.models.get(name) else {
            return Err(PlannerError::new(format!("model `{name}` does not exist"), model_at)
                .hint(near(name, self.models.keys().map(String::as_str))));
        };
        let wanted = &model.inputs.fields;
        if wanted.len() != idents.len() {
            let listed: Vec<String> = wanted.iter().map(|field| format!("{} {}", field.name, field.ty)).collect();
            return Err(PlannerError::new(
                format!("model `{name}` has {} inputs, the descriptor {} columns", wanted.len(), idents.len()),
                at,
            )
            .hint(format!("accepted: columns for {}", listed.join(", "))));
        }
        let mut args = Vec::with_capacity(idents.len());
        let mut casts: Vec<Expr> = Vec::new();
        for (ident, field) in idents.iter().zip(wanted) {
            let column = find(&input, ident)?;
            let fail = |error: DataFusionError| super::diagnose::from_datafusion(error, place(ident));
            let index = input.schema().index_of_column(&column).map_err(fail)?;
            let found = closed(input.schema().field(index).data_type()).map_err(fail)?;
            if found == field.ty {
                args.push(column);
                continue;
            }
            // Models are trained on floats; a DOUBLE column may feed a FLOAT input.
            let fits = implicit(&found, &field.ty) || found.is_numeric() && field.ty.is_numeric();
            if !fits {
                return Err(PlannerError::new(
                    format!(
                        "input `{}` of model `{name}` is {}, column `{}` is {found}",
                        field.name, field.ty, ident.value
                    ),
                    place(ident),
                )
                .hint("accepted: a column of the input's type; CAST it in a subquery"));
            }
            let alias = format!("__ef_model_input_{}", args.len());
            casts.push(Expr::Cast(Cast::new(Box::new(Expr::Column(column)), field.ty.to_arrow())).alias(&alias));
            args.push(Column::new_unqualified(alias));
        }
        self.with_casts(call, input, model, args, casts)
            .map_err(|error| super::diagnose::from_datafusion(error, call.span))
    }

    /// Casts go below the node, and their columns away above it.
    fn with_casts(
        &self,
        call: &TableCall,
        input: LogicalPlan,
        model: &Arc<Model>,
        args: Vec<Column>,
        casts: Vec<Expr>,
    ) -> Result<LogicalPlan> {
        debug_assert_eq!(call.function, "ML_PREDICT");
        let columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
        let input = match casts.is_empty() {
            true => input,
            false => LogicalPlanBuilder::from(input).project(columns.iter().cloned().chain(casts.clone()))?.build()?,
        };
        let node = PredictNode::try_new(input, model.clone(), args, call.span)?;
        let plan = LogicalPlan::Extension(Extension { node: Arc::new(node) });
        if casts.is_empty() {
            return Ok(plan);
        }
        let kept = plan.schema().columns().into_iter().enumerate();
        let kept = kept
            .filter(|(i, _)| !(columns.len()..columns.len() + casts.len()).contains(i))
            .map(|(_, column)| Expr::Column(column));
        LogicalPlanBuilder::from(plan).project(kept.collect::<Vec<_>>())?.build()
    }
}

fn place(ident: &Ident) -> super::error::Span {
    super::dialect::span(ident.span)
}

/// The input's column of this name.
fn find(input: &LogicalPlan, ident: &Ident) -> Result<Column, PlannerError> {
    let columns = input.schema().columns();
    match columns.iter().filter(|column| column.name == ident.value).collect::<Vec<_>>().as_slice() {
        [column] => Ok((*column).clone()),
        [] => Err(PlannerError::new(format!("column `{}` does not exist", ident.value), place(ident))
            .hint(near(&ident.value, columns.iter().map(|column| column.name.as_str())))),
        _ => Err(PlannerError::new(format!("column `{}` is ambiguous", ident.value), place(ident))
            .hint("accepted: a subquery or view that names it once")),
    }
}
