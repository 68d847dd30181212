//! Optimised logical plans → the operator graph, in two steps: [`graph`] says what is computed, each thing once for the
//! whole job, and [`tiers`] where; [`parallel`] adds subtasks, exchanges and the two phases of window aggregates. What SQL
//! can say and the runtime cannot do is rejected here by name; nothing else may fail.
//!
//! Operator ids come from the first step alone ([`id`]), so that neither parallelism, places nor SET options change them.

mod aggregate;
mod config;
mod constant;
mod expr;
mod graph;
mod id;
mod join;
mod lookup;
mod narrow;
mod parallel;
mod rel;
mod scalar;
mod side;
mod sink;
mod source;
mod tiers;
mod upsert;
mod window;

use super::{Bound, PlanOptions, PlannerError, PredictNode, Span, WindowTvf};
use datafusion_common::{DFSchema, DataFusionError};
use datafusion_expr::{Distinct, Expr as DfExpr, LogicalPlan, Union};
use ef_proto::expr::{Expr, ExprKind, Scalar};
use ef_proto::place::Constraint;
use ef_proto::plan::{OperatorKind, Plan, Predict};
use ef_proto::schema::{DataType, Field};
use expr::span_of;
use graph::{Graph, NodeId};
use rel::{Rel, Role};
use side::SideOutputs;
use sink::Sinks;
use source::Sources;
use std::collections::BTreeMap;

/// Lowers a bound file to the plan of one job.
pub fn lower(bound: Bound, options: &PlanOptions) -> Result<Plan, PlannerError> {
    let settings = config::Settings::parse(&bound.config, options)?;
    if bound.inserts.is_empty() {
        return Err(PlannerError::new(
            "nothing to run: the file has no INSERT INTO statement and no final SELECT",
            Span::UNKNOWN,
        ));
    }
    let mut lowering = Lowering {
        sources: Sources::new(&bound.inserts, &bound.catalog, &settings)?,
        settings: &settings,
        graph: Graph::default(),
        sides: SideOutputs::default(),
        places: BTreeMap::new(),
    };
    let mut sinks = Sinks::default();
    for insert in &bound.inserts {
        let rel = lowering.plan(&insert.plan).map_err(|error| error.or_at(insert.span))?;
        sinks.add(insert, rel, &mut lowering.graph).map_err(|error| error.or_at(insert.span))?;
    }
    let Lowering { mut graph, sources, sides, places, .. } = lowering;
    sides.connect(&sources, &bound.catalog, &mut graph, &mut sinks)?;
    let mut declared = sources.constraints();
    declared.extend(places);
    declared.extend(sinks.finish(&bound.catalog, &mut graph)?);
    let ids = id::ids(&graph);
    narrow::narrow(&mut graph);
    let constraints = tiers::constraints(&graph, &declared, settings.tier);
    let (operators, edges) = parallel::spread(&graph, &ids, &constraints, &settings, &options.overrides)?;
    let plan = Plan {
        name: settings.name.clone(),
        operators,
        edges,
        max_parallelism: settings.max_parallelism,
        config: config::normalised(bound.config),
    };
    let internal = |error| PlannerError::new(format!("internal error of the planner: {error}"), Span::UNKNOWN);
    plan.validate().map_err(internal)?;
    Ok(plan)
}

struct Lowering<'a> {
    settings: &'a config::Settings,
    graph: Graph,
    sources: Sources,
    sides: SideOutputs,
    /// Of the tables that are looked up, by who looks.
    places: BTreeMap<NodeId, Constraint>,
}

impl Lowering<'_> {
    fn plan(&mut self, plan: &LogicalPlan) -> Result<Rel, PlannerError> {
        match plan {
            LogicalPlan::TableScan(scan) => self.sources.scan(scan, &mut self.graph),
            LogicalPlan::Projection(projection) => {
                let mut rel = self.plan(&projection.input)?;
                let exprs = self.exprs(&projection.expr, projection.input.schema())?;
                rel.project(exprs, fields(&projection.schema), &mut self.graph)?;
                Ok(rel)
            }
            LogicalPlan::Filter(filter) => {
                let mut rel = self.plan(&filter.input)?;
                let predicate = expr::lower(&filter.predicate, filter.input.schema())?;
                if predicate.kind == ExprKind::Literal(Scalar::Boolean(true)) {
                    return Ok(rel);
                }
                rel.restrict(expr::to_type(predicate, &DataType::Boolean), &mut self.graph)?;
                Ok(rel)
            }
            LogicalPlan::SubqueryAlias(alias) => self.plan(&alias.input),
            LogicalPlan::Subquery(subquery) => self.plan(&subquery.subquery),
            LogicalPlan::Union(union) => self.union(union),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let rel = self.plan(input)?;
                let keys = (0..rel.columns.len()).map(|i| (rel.columns[i].clone(), rel.names[i].clone())).collect();
                self.grouped(rel, keys, vec![])
            }
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Extension(extension) => {
                let node = extension.node.as_any();
                if let Some(tvf) = node.downcast_ref::<WindowTvf>() {
                    self.window(tvf)
                } else if let Some(predict) = node.downcast_ref::<PredictNode>() {
                    self.predict(predict)
                } else {
                    Err(PlannerError::new(format!("{} is not supported", extension.node.name()), Span::UNKNOWN))
                }
            }
            other => Err(unsupported(other)),
        }
    }

    fn exprs(&self, exprs: &[DfExpr], schema: &DFSchema) -> Result<Vec<Expr>, PlannerError> {
        exprs.iter().map(|expr| expr::lower(expr, schema)).collect()
    }

    /// Several inputs become several edges into whatever reads them.
    fn union(&mut self, union: &Union) -> Result<Rel, PlannerError> {
        let names = fields(&union.schema);
        let mut rels = Vec::with_capacity(union.inputs.len());
        for input in &union.inputs {
            let mut rel = self.plan(input)?;
            let typed = rel
                .names
                .iter()
                .zip(&rel.columns)
                .zip(&names)
                .enumerate()
                .map(|(i, ((_, column), name))| expr::to_type(Expr::column(i, column.ty.clone()), &name.ty));
            let typed = typed.collect();
            rel.project(typed, names.clone(), &mut self.graph)?;
            rel.make(&mut self.graph)?;
            // Carried columns have no common place in rows of different origin.
            if rel.base.len() > names.len() {
                rel.carry = None;
                rel.make(&mut self.graph)?;
            }
            rels.push(rel);
        }
        let changelog = rels.iter().any(|rel| rel.changelog);
        let mut all: Option<Rel> = None;
        for mut rel in rels {
            if changelog && !rel.changelog {
                rel.ports = self.graph.with_op(rel.ports, &rel.base);
                rel.changelog = true;
            }
            match &mut all {
                None => all = Some(rel),
                Some(first) => {
                    first.ports.extend(rel.ports);
                    first.carry = first.carry.take().filter(|carry| rel.carry.as_ref() == Some(carry));
                    let same = first.windowing == rel.windowing;
                    for (role, other) in first.roles.iter_mut().zip(&rel.roles) {
                        if role != other || !same && *role != Role::Rowtime {
                            *role = Role::Plain;
                        }
                    }
                    if !same {
                        first.windowing = None;
                    }
                }
            }
        }
        all.ok_or_else(|| PlannerError::new("a UNION of nothing", Span::UNKNOWN))
    }

    fn predict(&mut self, node: &PredictNode) -> Result<Rel, PlannerError> {
        let mut rel = self.plan(&node.input)?;
        if rel.changelog {
            return Err(takes_no_changelog("ML_PREDICT", node.span));
        }
        let args = node.arg_indices().map_err(datafusion)?;
        // Arguments in the declared types, behind the input where they are not.
        let visible = rel.columns.len();
        let (mut exprs, mut names) = (Vec::new(), rel.names.clone());
        exprs.extend((0..visible).map(|i| Expr::column(i, rel.columns[i].ty.clone())));
        let mut at = Vec::with_capacity(args.len());
        for (arg, declared) in args.into_iter().zip(&node.model.inputs.fields) {
            if rel.columns[arg].ty == declared.ty {
                at.push(arg);
                continue;
            }
            at.push(exprs.len());
            exprs.push(expr::to_type(Expr::column(arg, rel.columns[arg].ty.clone()), &declared.ty));
            names.push(Field::new(&rel.names[arg].name, declared.ty.clone(), true));
        }
        rel.project(exprs, names, &mut self.graph)?;
        rel.make(&mut self.graph)?;
        let mut schema = rel.base.clone();
        schema.fields.extend(fields(&node.schema).into_iter().skip(visible));
        let kind = OperatorKind::Predict(Predict { model: (*node.model).clone(), args: at });
        let port = self.graph.add(kind, vec![rel.ports.clone()], schema.clone(), false);
        let mut out = Rel::of(vec![port], schema, false);
        out.roles[..rel.roles.len()].copy_from_slice(&rel.roles);
        out.windowing = rel.windowing;
        let outputs = rel.base.len()..out.base.len();
        out.columns = (0..visible).chain(outputs).map(|i| Expr::column(i, out.base.fields[i].ty.clone())).collect();
        out.names = fields(&node.schema);
        out.carry = rel.carry;
        Ok(out)
    }
}

/// The output columns of a plan node. Types that DataFusion alone has are given their counterpart; the expressions
/// decide in the end.
fn fields(schema: &DFSchema) -> Vec<Field> {
    let field = |field: &arrow_schema::FieldRef| {
        let ty = DataType::from_arrow(field.data_type()).unwrap_or(DataType::Null);
        Field::new(field.name(), ty, field.is_nullable())
    };
    schema.fields().iter().map(field).collect()
}

fn datafusion(error: DataFusionError) -> PlannerError {
    PlannerError::new(error.strip_backtrace(), Span::UNKNOWN)
}

fn takes_no_changelog(what: &str, span: Span) -> PlannerError {
    PlannerError::new(format!("{what} over rows that are updated later is not supported"), span)
        .hint("a GROUP BY on window_start and window_end, or no GROUP BY, below it makes rows that are final")
}

fn unsupported(plan: &LogicalPlan) -> PlannerError {
    let (what, hint, span) = match plan {
        LogicalPlan::Sort(sort) => (
            "ORDER BY",
            "rows of a stream have no last one to sort up to; leave it out, and sort what the job has written",
            sort.expr.first().map(|sort| span_of(&sort.expr)),
        ),
        LogicalPlan::Limit(_) => ("LIMIT", "leave it out, or bound the source ('number-of-rows' of datagen)", None),
        LogicalPlan::Window(window) => (
            "an OVER window",
            "a window function such as TUMBLE with GROUP BY window_start, window_end",
            window.window_expr.first().map(span_of),
        ),
        LogicalPlan::Values(_) => ("VALUES", "a table with a connector", None),
        LogicalPlan::EmptyRelation(_) => {
            ("a query that reads no table", "a FROM with a table, and a WHERE that can be true", None)
        }
        LogicalPlan::Unnest(_) => ("UNNEST", "`array[i]` for single elements", None),
        LogicalPlan::RecursiveQuery(_) => ("WITH RECURSIVE", "a plain WITH", None),
        LogicalPlan::Distinct(_) => ("SELECT DISTINCT ON", "SELECT DISTINCT, or GROUP BY with FIRST_VALUE", None),
        _ => ("this statement", "a SELECT over tables and views", None),
    };
    PlannerError::new(format!("{what} is not supported"), span.unwrap_or(Span::UNKNOWN))
        .hint(format!("accepted: {hint}"))
}

#[cfg(test)]
mod tests;
