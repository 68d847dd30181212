//! Statements, one after the other, against the catalog: declarations grow it, queries become optimised plans.

use super::catalog::{Catalog, Table, View};
use super::context::Context;
use super::declare::create_table;
use super::diagnose::from_datafusion;
use super::error::{PlannerError, Span};
use super::limits;
use super::lookup;
use super::optimize::{analyze, optimize};
use super::rewrite::Places;
use super::statement::{self, Dropped, Kind, Name, Options, Statement};
use super::types::{closed, implicit};
use super::{Bound, Insert, ModelInspector, Setting, Target, rewrite, vars};
use datafusion_common::ScalarValue;
use datafusion_expr::{Cast, Expr, LogicalPlan, LogicalPlanBuilder, lit};
use datafusion_sql::planner::SqlToRel;
use datafusion_sql::sqlparser::ast;
use ef_proto::schema::{Field, Schema};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Parses a file, replaces its variables, and binds every statement.
pub fn bind(sql: &str, vars: &BTreeMap<String, String>, models: &dyn ModelInspector) -> Result<Bound, PlannerError> {
    let run = || {
        let source = vars::substitute(sql, vars)?;
        let statements = statement::parse(&source)?;
        let mut binder = Binder { models, bound: Bound::default() };
        let count = statements.len();
        for (i, statement) in statements.into_iter().enumerate() {
            let span = statement.span;
            binder.statement(statement, i + 1 == count).map_err(|error| error.or_at(span))?;
        }
        Ok(binder.bound)
    };
    run().map_err(|error: PlannerError| error.locate(sql))
}

struct Binder<'a> {
    models: &'a dyn ModelInspector,
    bound: Bound,
}

impl Binder<'_> {
    fn statement(&mut self, statement: Statement, last: bool) -> Result<(), PlannerError> {
        let span = statement.span;
        let catalog = &mut self.bound.catalog;
        match statement.kind {
            Kind::CreateTable(table) => {
                if taken(catalog, &table.name, table.unless_exists)? {
                    return Ok(());
                }
                let mut table = create_table(catalog, *table, span)?;
                describe(&mut table, self.models)?;
                catalog.tables.insert(table.name.clone(), Arc::new(table));
            }
            Kind::CreateView { name, columns, query, unless_exists } => {
                if taken(catalog, &name, unless_exists)? {
                    return Ok(());
                }
                let (plan, places) = self.query(*query, span)?;
                let plan = rename(plan, &columns, &name).map_err(|error| error.or_at(name.span))?;
                // Analysed here so that its errors point here; planned again with each query that reads it.
                analyze(plan.clone()).map_err(|error| places.error(error, span))?;
                self.bound.catalog.views.insert(name.text, View { plan: Arc::new(plan) });
            }
            Kind::CreateModel { name, inputs, outputs, options, unless_exists } => {
                if catalog.models.contains_key(&name.text) {
                    if unless_exists {
                        return Ok(());
                    }
                    return Err(PlannerError::new(format!("model `{}` is already there", name.text), name.span));
                }
                let model = create_model(self.models, &name, &inputs, &outputs, &options)?;
                catalog.models.insert(name.text, Arc::new(model));
            }
            Kind::Drop { what, name, if_exists } => drop_object(catalog, what, &name, if_exists)?,
            Kind::Set { key, value } => {
                self.bound.config.insert(key, Setting { value, span });
            }
            Kind::Reset { key: Some(key) } => {
                self.bound.config.remove(&key);
            }
            Kind::Reset { key: None } => self.bound.config.clear(),
            Kind::Insert { table, columns, query } => self.insert(table, columns, *query, span)?,
            Kind::Query(query) => {
                if !last {
                    return Err(PlannerError::new("a SELECT that is not the last statement", span)
                        .hint("accepted: INSERT INTO table SELECT …, and one bare SELECT at the end of the file"));
                }
                let (plan, places) = self.query(*query, span)?;
                let plan = analyze(plan).and_then(optimize).map_err(|error| places.error(error, span))?;
                self.bound.inserts.push(Insert { target: Target::Stdout, plan, span });
            }
        }
        Ok(())
    }

    fn query(&self, mut query: ast::Query, span: Span) -> Result<(LogicalPlan, Places), PlannerError> {
        let (calls, places) = rewrite::query(&mut query)?;
        let context = Context::new(&self.bound.catalog, calls, &places);
        let plan = SqlToRel::new(&context)
            .sql_statement_to_plan(ast::Statement::Query(Box::new(query)))
            .map_err(|error| places.error(error, span))?;
        limits::plan(&plan, span)?;
        let plan = lookup::resolve(plan)?;
        Ok((plan, places))
    }

    fn insert(&mut self, name: Name, columns: Vec<Name>, query: ast::Query, span: Span) -> Result<(), PlannerError> {
        let Some(table) = self.bound.catalog.tables.get(&name.text).cloned() else {
            if self.bound.catalog.views.contains_key(&name.text) {
                return Err(PlannerError::new(format!("`{}` is a view", name.text), name.span)
                    .hint("accepted: INSERT INTO a table"));
            }
            return Err(name.unknown("table", self.bound.catalog.tables.keys().map(String::as_str)));
        };
        let (plan, places) = self.query(query, span)?;
        let plan = analyze(plan).map_err(|error| places.error(error, span))?;
        let plan = fit(plan, &table, &name, &columns)?;
        let plan = analyze(plan).and_then(optimize).map_err(|error| places.error(error, span))?;
        self.bound.inserts.push(Insert { target: Target::Table(name.text), plan, span });
        Ok(())
    }
}

/// Reads the descriptor files of a table's protobuf formats: what is in them becomes an option of its own, so that
/// nobody else needs the files.
fn describe(table: &mut Table, files: &dyn ModelInspector) -> Result<(), PlannerError> {
    const FILE: &str = "protobuf.descriptor-file";
    let keys: Vec<String> = table.options.keys().filter(|key| key.ends_with(FILE)).cloned().collect();
    for key in keys {
        let prefix = key.strip_suffix(FILE).unwrap_or_default();
        // Without it the format has more to say.
        let Some(message) = table.options.get(&format!("{prefix}protobuf.message-class-name")) else { continue };
        let path = &table.options[&key];
        let descriptor = files.descriptor(path, message).map_err(|error| {
            let place = *table.option_places.get(&key).unwrap_or(&table.span);
            PlannerError::new(format!("table `{}`: option '{key}': file '{path}': {error}", table.name), place)
        })?;
        table.options.insert(format!("{prefix}protobuf.descriptor"), descriptor);
    }
    Ok(())
}

/// Whether to skip a declaration because the name is there already.
fn taken(catalog: &Catalog, name: &Name, unless_exists: bool) -> Result<bool, PlannerError> {
    let what = if catalog.tables.contains_key(&name.text) {
        "table"
    } else if catalog.views.contains_key(&name.text) {
        "view"
    } else {
        return Ok(false);
    };
    if unless_exists {
        return Ok(true);
    }
    Err(PlannerError::new(format!("{what} `{}` is already there", name.text), name.span)
        .hint("accepted: another name, or CREATE … IF NOT EXISTS"))
}

fn drop_object(catalog: &mut Catalog, what: Dropped, name: &Name, if_exists: bool) -> Result<(), PlannerError> {
    let (found, word, known): (bool, &str, Vec<String>) = match what {
        Dropped::Table => {
            (catalog.tables.remove(&name.text).is_some(), "table", catalog.tables.keys().cloned().collect())
        }
        Dropped::View => (catalog.views.remove(&name.text).is_some(), "view", catalog.views.keys().cloned().collect()),
        Dropped::Model => {
            (catalog.models.remove(&name.text).is_some(), "model", catalog.models.keys().cloned().collect())
        }
    };
    if found || if_exists {
        return Ok(());
    }
    Err(name.unknown(word, known.iter().map(String::as_str)))
}

fn create_model(
    models: &dyn ModelInspector,
    name: &Name,
    inputs: &Schema,
    outputs: &Schema,
    options: &Options,
) -> Result<ef_proto::plan::Model, PlannerError> {
    let place = |key: &str| *options.places.get(key).unwrap_or(&name.span);
    let wrong = |message: String, hint: &str| Err(PlannerError::new(message, place("provider")).hint(hint));
    match options.values.get("provider").map(String::as_str) {
        Some("onnx") => {}
        Some(other) => return wrong(format!("model provider '{other}'"), "accepted: 'provider' = 'onnx'"),
        None => return wrong(format!("model `{}` has no 'provider'", name.text), "accepted: 'provider' = 'onnx'"),
    }
    let Some(path) = options.values.get("path") else {
        return wrong(format!("model `{}` has no 'path'", name.text), "accepted: 'path' = 'model.onnx'");
    };
    let mut model = models
        .inspect(path, inputs, outputs, &options.values)
        .map_err(|error| PlannerError::new(format!("model `{}`: {error}", name.text), name.span))?;
    model.name = name.text.clone();
    Ok(model)
}

/// The columns of a view under its own names.
fn rename(plan: LogicalPlan, columns: &[Name], view: &Name) -> Result<LogicalPlan, PlannerError> {
    if columns.is_empty() {
        return Ok(plan);
    }
    let found = plan.schema().fields().len();
    if found != columns.len() {
        return Err(PlannerError::new(
            format!("view `{}` names {} columns, its query gives {found}", view.text, columns.len()),
            columns[0].span,
        ));
    }
    let exprs: Vec<Expr> =
        plan.schema().columns().into_iter().zip(columns).map(|(from, to)| Expr::Column(from).alias(&to.text)).collect();
    LogicalPlanBuilder::from(plan)
        .project(exprs)
        .and_then(LogicalPlanBuilder::build)
        .map_err(|error| from_datafusion(error, view.span))
}

/// The query's columns in the order and types of the table's.
fn fit(plan: LogicalPlan, table: &Table, name: &Name, columns: &[Name]) -> Result<LogicalPlan, PlannerError> {
    let sink = table.sink_schema();
    let found = plan.schema().fields().len();
    // For each column of the query, the column of the table.
    let targets: Vec<usize> = if columns.is_empty() {
        (0..sink.len()).collect()
    } else {
        let mut targets = Vec::with_capacity(columns.len());
        for column in columns {
            let Some(target) = sink.index_of(&column.text) else {
                return Err(column.unknown("column", sink.fields.iter().map(|field| field.name.as_str())));
            };
            if targets.contains(&target) {
                return Err(PlannerError::new(format!("column `{}` twice", column.text), column.span));
            }
            targets.push(target);
        }
        targets
    };
    let list = |fields: &[Field]| fields.iter().map(|f| format!("{} {}", f.name, f.ty)).collect::<Vec<_>>().join(", ");
    if targets.len() != found {
        let wanted: Vec<Field> = targets.iter().map(|target| sink.fields[*target].clone()).collect();
        return Err(PlannerError::new(
            format!("table `{}` takes {} columns, the query gives {found}", name.text, targets.len()),
            name.span,
        )
        .hint(format!("accepted: {}", list(&wanted))));
    }
    let mut exprs = Vec::with_capacity(sink.len());
    for (i, field) in sink.fields.iter().enumerate() {
        let null = || lit(ScalarValue::Null);
        let Some(at) = targets.iter().position(|target| *target == i) else {
            if !field.nullable {
                return Err(PlannerError::new(
                    format!("column `{}` is NOT NULL and gets no value", field.name),
                    name.span,
                ));
            }
            exprs.push(Expr::Cast(Cast::new(Box::new(null()), field.ty.to_arrow())).alias(&field.name));
            continue;
        };
        let (qualifier, source) = plan.schema().qualified_field(at);
        let column = Expr::Column(datafusion_common::Column::from((qualifier, source)));
        let from = closed(source.data_type()).map_err(|error| from_datafusion(error, name.span))?;
        if !implicit(&from, &field.ty) {
            return Err(PlannerError::new(
                format!(
                    "column `{}` of table `{}` is {}, column {} of the query (`{}`) is {from}",
                    field.name,
                    name.text,
                    field.ty,
                    at + 1,
                    source.name()
                ),
                name.span,
            )
            .hint(format!("accepted: CAST(… AS {})", field.ty)));
        }
        let to = field.ty.to_arrow();
        let expr = if *source.data_type() == to { column } else { Expr::Cast(Cast::new(Box::new(column), to)) };
        exprs.push(expr.alias(&field.name));
    }
    LogicalPlanBuilder::from(plan)
        .project(exprs)
        .and_then(LogicalPlanBuilder::build)
        .map_err(|error| from_datafusion(error, name.span))
}
