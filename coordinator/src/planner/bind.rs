//! Statements, one after the other, against the catalog: declarations grow it, queries become optimised plans.

use super::catalog::{Catalog, Column, ColumnKind, Table, View, Watermark};
use super::context::{Context, OPTIONS};
use super::diagnose::from_datafusion;
use super::error::{PlannerError, Span};
use super::optimize::{analyze, optimize};
use super::statement::{self, ColumnDefKind, CreateTable, Dropped, Kind, Name, Statement};
use super::types::{closed, implicit};
use super::{Bound, Insert, ModelInspector, Target, rewrite, vars};
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{DFSchema, DataFusionError, ScalarValue};
use datafusion_expr::simplify::SimplifyContext;
use datafusion_expr::{BinaryExpr, Cast, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, lit};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use datafusion_sql::planner::{PlannerContext, SqlToRel};
use datafusion_sql::sqlparser::ast;
use ef_proto::schema::{DataType, Field, Schema, Unit};
use std::collections::{BTreeMap, HashMap, HashSet};
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
                let table = create_table(catalog, *table, span)?;
                catalog.tables.insert(table.name.clone(), Arc::new(table));
            }
            Kind::CreateView { name, columns, query, unless_exists } => {
                if taken(catalog, &name, unless_exists)? {
                    return Ok(());
                }
                let plan = self.query(*query, span)?;
                let plan = rename(plan, &columns, &name).map_err(|error| error.or_at(name.span))?;
                // Analysed here so that its errors point here; planned again with each query that reads it.
                analyze(plan.clone()).map_err(|error| from_datafusion(error, span))?;
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
                self.bound.config.insert(key, value);
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
                let plan = self.query(*query, span)?;
                let plan = analyze(plan).and_then(optimize).map_err(|error| from_datafusion(error, span))?;
                self.bound.inserts.push(Insert { target: Target::Stdout, plan, span });
            }
        }
        Ok(())
    }

    fn query(&self, mut query: ast::Query, span: Span) -> Result<LogicalPlan, PlannerError> {
        let calls = rewrite::query(&mut query)?;
        let context = Context::new(&self.bound.catalog, calls);
        SqlToRel::new(&context)
            .sql_statement_to_plan(ast::Statement::Query(Box::new(query)))
            .map_err(|error| from_datafusion(error, span))
    }

    fn insert(&mut self, name: Name, columns: Vec<Name>, query: ast::Query, span: Span) -> Result<(), PlannerError> {
        let Some(table) = self.bound.catalog.tables.get(&name.text).cloned() else {
            if self.bound.catalog.views.contains_key(&name.text) {
                return Err(PlannerError::new(format!("`{}` is a view", name.text), name.span)
                    .hint("accepted: INSERT INTO a table"));
            }
            return Err(name.unknown("table", self.bound.catalog.tables.keys().map(String::as_str)));
        };
        let plan = self.query(query, span)?;
        let plan = analyze(plan).map_err(|error| from_datafusion(error, span))?;
        let plan = fit(plan, &table, &name, &columns)?;
        let plan = analyze(plan).and_then(optimize).map_err(|error| from_datafusion(error, span))?;
        self.bound.inserts.push(Insert { target: Target::Table(name.text), plan, span });
        Ok(())
    }
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
    options: &BTreeMap<String, String>,
) -> Result<ef_proto::plan::Model, PlannerError> {
    let wrong = |message: String, hint: &str| Err(PlannerError::new(message, name.span).hint(hint));
    match options.get("provider").map(String::as_str) {
        Some("onnx") => {}
        Some(other) => return wrong(format!("model provider '{other}'"), "accepted: 'provider' = 'onnx'"),
        None => return wrong(format!("model `{}` has no 'provider'", name.text), "accepted: 'provider' = 'onnx'"),
    }
    let Some(path) = options.get("path") else {
        return wrong(format!("model `{}` has no 'path'", name.text), "accepted: 'path' = 'model.onnx'");
    };
    let mut model = models
        .inspect(path, inputs, outputs, options)
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

fn create_table(catalog: &Catalog, def: CreateTable, span: Span) -> Result<Table, PlannerError> {
    let mut names = HashSet::new();
    for column in &def.columns {
        if !names.insert(column.name.text.as_str()) {
            return Err(PlannerError::new(
                format!("column `{}` is declared twice", column.name.text),
                column.name.span,
            ));
        }
    }
    if def.columns.is_empty() {
        return Err(PlannerError::new(format!("table `{}` has no columns", def.name.text), def.name.span));
    }
    let known = |name: &Name| {
        if names.contains(name.text.as_str()) { Ok(()) } else { Err(name.unknown("column", names.iter().copied())) }
    };
    def.primary_key.iter().chain(&def.partitioned_by).try_for_each(known)?;
    if let Some((column, ..)) = &def.watermark {
        known(column)?;
    }
    let mut scope = Scope::new(catalog, &def)?;
    let mut columns = Vec::with_capacity(def.columns.len());
    for column in def.columns {
        let name = column.name;
        columns.push(match column.kind {
            ColumnDefKind::Physical(mut field) => {
                field.nullable &= !def.primary_key.iter().any(|key| key.text == field.name);
                Column { field, kind: ColumnKind::Physical }
            }
            ColumnDefKind::Metadata { field, key, virtual_ } => {
                Column { field, kind: ColumnKind::Metadata { key, virtual_ } }
            }
            ColumnDefKind::Computed { expr, .. } if is_proctime(&expr) => {
                let field = Field::new(&name.text, DataType::TimestampLtz(Unit::Milli), false);
                Column { field, kind: ColumnKind::Proctime }
            }
            ColumnDefKind::Computed { expr, span } => {
                let text = expr.to_string();
                let (expr, field) = scope.computed(&name, *expr, span)?;
                Column { field, kind: ColumnKind::Computed { expr, text } }
            }
        });
    }
    let watermark = match def.watermark {
        Some((column, expr, span)) => Some(scope.watermark(&columns, column, expr, span)?),
        None => None,
    };
    Ok(Table {
        name: def.name.text,
        columns,
        watermark,
        primary_key: def.primary_key.into_iter().map(|name| name.text).collect(),
        partitioned_by: def.partitioned_by.into_iter().map(|name| name.text).collect(),
        options: def.options,
        span,
    })
}

fn is_proctime(expr: &ast::Expr) -> bool {
    matches!(expr, ast::Expr::Function(function) if function.name.to_string().eq_ignore_ascii_case("PROCTIME"))
}

/// The columns that an expression of a table may name, and what the computed ones stand for.
struct Scope<'a> {
    catalog: &'a Catalog,
    fields: Vec<Field>,
    computed: HashMap<String, Expr>,
}

impl<'a> Scope<'a> {
    fn new(catalog: &'a Catalog, def: &CreateTable) -> Result<Scope<'a>, PlannerError> {
        let base = def.columns.iter().filter_map(|column| match &column.kind {
            ColumnDefKind::Physical(field) | ColumnDefKind::Metadata { field, .. } => Some(field.clone()),
            ColumnDefKind::Computed { .. } => None,
        });
        Ok(Scope { catalog, fields: base.collect(), computed: HashMap::new() })
    }

    fn computed(&mut self, name: &Name, expr: ast::Expr, span: Span) -> Result<(Expr, Field), PlannerError> {
        let (expr, schema) = self.resolve(expr, span)?;
        let fail = |error| from_datafusion(error, span);
        let found = expr.get_type(&schema).map_err(fail)?;
        let ty = closed(&found).map_err(fail)?;
        if ty == DataType::Null {
            return Err(PlannerError::new(format!("column `{}` has no type", name.text), span)
                .hint("accepted: CAST(NULL AS type)"));
        }
        let nullable = expr.nullable(&schema).map_err(fail)?;
        let expr = self.replace_computed(cast_to(expr, &found, &ty)).map_err(fail)?;
        let field = Field::new(&name.text, ty, nullable);
        self.fields.push(field.clone());
        self.computed.insert(name.text.clone(), expr.clone());
        Ok((expr, field))
    }

    fn watermark(
        &self,
        columns: &[Column],
        name: Name,
        expr: ast::Expr,
        span: Span,
    ) -> Result<Watermark, PlannerError> {
        let column = columns.iter().find(|column| column.field.name == name.text);
        let (Some(ty), Some(kind)) = (column.map(|c| &c.field.ty), column.map(|c| &c.kind)) else {
            return Err(name.unknown("column", columns.iter().map(|column| column.field.name.as_str())));
        };
        if matches!(kind, ColumnKind::Proctime) || !ty.is_timestamp() {
            let found = if ty.is_timestamp() { "PROCTIME()".to_string() } else { ty.to_string() };
            return Err(PlannerError::new(format!("a watermark on `{}`, which is {found}", name.text), name.span)
                .hint("accepted: a column of type TIMESTAMP(3) or TIMESTAMP_LTZ(3)"));
        }
        let (expr, schema) = self.resolve(expr, span)?;
        let fail = |error| from_datafusion(error, span);
        let found = expr.get_type(&schema).map_err(fail)?;
        if !closed(&found).map_err(fail)?.is_timestamp() {
            return Err(PlannerError::new(format!("the watermark of `{}` is not a timestamp", name.text), span)
                .hint(format!("accepted: {0}, {0} - INTERVAL '5' SECOND", name.text)));
        }
        let delay_ms = delay(&expr, &name.text);
        let expr = self.replace_computed(cast_to(expr, &found, ty)).map_err(fail)?;
        Ok(Watermark { column: name.text, expr, delay_ms })
    }

    /// Names, types and constants.
    fn resolve(&self, mut expr: ast::Expr, span: Span) -> Result<(Expr, Arc<DFSchema>), PlannerError> {
        rewrite::expression(&mut expr)?;
        let fail = |error: DataFusionError| from_datafusion(error, span);
        let arrow = Schema::new(self.fields.clone()).to_arrow();
        let schema = Arc::new(DFSchema::try_from(arrow).map_err(fail)?);
        let context = Context::new(self.catalog, vec![]);
        let expr = SqlToRel::new(&context).sql_to_expr(expr, &schema, &mut PlannerContext::new()).map_err(fail)?;
        let info = SimplifyContext::builder().with_schema(schema.clone()).with_config_options(OPTIONS.clone()).build();
        let simplifier = ExprSimplifier::new(info);
        let expr = simplifier.coerce(expr, &schema).and_then(|expr| simplifier.simplify(expr)).map_err(fail)?;
        Ok((expr, schema))
    }

    fn replace_computed(&self, expr: Expr) -> datafusion_common::Result<Expr> {
        let replaced = expr.transform(|expr| {
            Ok(match &expr {
                Expr::Column(column) => match self.computed.get(&column.name) {
                    Some(computed) => Transformed::yes(computed.clone()),
                    None => Transformed::no(expr),
                },
                _ => Transformed::no(expr),
            })
        })?;
        Ok(replaced.data)
    }
}

fn cast_to(expr: Expr, found: &arrow_schema::DataType, ty: &DataType) -> Expr {
    let to = ty.to_arrow();
    if *found == to { expr } else { Expr::Cast(Cast::new(Box::new(expr), to)) }
}

/// The delay of `column` and `column - INTERVAL`.
fn delay(expr: &Expr, column: &str) -> Option<i64> {
    let is_column = |expr: &Expr| matches!(expr, Expr::Column(found) if found.name == column);
    match expr {
        expr if is_column(expr) => Some(0),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) if is_column(left) => match right.as_ref() {
            Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) if interval.months == 0 => {
                Some(i64::from(interval.days) * 86_400_000 + interval.nanoseconds / 1_000_000)
            }
            _ => None,
        },
        _ => None,
    }
}
