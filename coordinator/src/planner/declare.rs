//! `CREATE TABLE`: columns with their types, computed ones resolved down to what the connector delivers, the watermark.

use super::align;
use super::catalog::{Catalog, Column, ColumnKind, Table, Watermark};
use super::context::{Context, OPTIONS};
use super::diagnose::from_datafusion;
use super::error::{PlannerError, Span};
use super::rewrite::{self, Places};
use super::statement::{ColumnDefKind, CreateTable, Name};
use super::types::closed;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{DFSchema, DataFusionError, ScalarValue};
use datafusion_expr::simplify::SimplifyContext;
use datafusion_expr::{BinaryExpr, Cast, Expr, ExprSchemable, Operator};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use datafusion_sql::planner::{PlannerContext, SqlToRel};
use datafusion_sql::sqlparser::ast;
use ef_proto::schema::{DataType, Field, Schema, Unit};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The table that a statement declares.
pub fn create_table(catalog: &Catalog, def: CreateTable, span: Span) -> Result<Table, PlannerError> {
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
                check_metadata(&name, &key, &field, def.options.values.get("connector"))?;
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
        options: def.options.values,
        option_places: def.options.places,
        span,
    })
}

/// Whether the connector has this metadata. What is wrong with the connector itself is said where it is opened.
fn check_metadata(name: &Name, key: &str, field: &Field, connector: Option<&String>) -> Result<(), PlannerError> {
    let Some(connector) = connector else { return Ok(()) };
    let Some(known) = ef_proto::connector::metadata_keys(connector) else { return Ok(()) };
    if known.contains(&key) {
        let Some(accepted) = ef_proto::connector::metadata_refused(connector, key, field) else { return Ok(()) };
        let found = if field.nullable { field.ty.to_string() } else { format!("{} NOT NULL", field.ty) };
        let what = format!("metadata '{key}' of connector '{connector}' cannot be of type {found}");
        return Err(PlannerError::new(what, name.span).hint(format!("accepted: {accepted}")));
    }
    let listed: Vec<String> = known.iter().map(|key| format!("'{key}'")).collect();
    let hint = if known.is_empty() {
        "accepted: columns without METADATA".into()
    } else {
        format!("accepted: {}", listed.join(", "))
    };
    Err(PlannerError::new(format!("connector '{connector}' has no metadata '{key}'"), name.span).hint(hint))
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
        let places = Places::default();
        let context = Context::new(self.catalog, vec![], &places);
        let expr = SqlToRel::new(&context).sql_to_expr(expr, &schema, &mut PlannerContext::new()).map_err(fail)?;
        let expr = align::expr(expr, &schema).map_err(fail)?;
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
