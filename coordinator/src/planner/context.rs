//! What DataFusion's SQL planner asks while it plans one statement: tables and views of the catalog, functions, types,
//! and Flink's rules for operators and field access.

use super::catalog::{Catalog, PlannerTable};
use super::error::{PlannerError, Span, near};
use super::functions::LIBRARY;
use super::relation::TableCalls;
use super::rewrite::{Places, TableCall};
use super::types::FlinkTypes;
use arrow_schema::{DataType as Arrow, Field, Fields, SchemaRef, TimeUnit};
use datafusion_common::config::ConfigOptions;
use datafusion_common::{Column, DFSchema, DataFusionError, Result, ScalarValue, TableReference, plan_err};
use datafusion_expr::expr::{AggregateFunction, ScalarFunction};
use datafusion_expr::planner::{
    ContextProvider, ExprPlanner, PlannerResult, RawAggregateExpr, RawBinaryExpr, RawFieldAccessExpr, RelationPlanner,
    TypePlanner,
};
use datafusion_expr::{
    AggregateUDF, Cast, Expr, ExprSchemable, GetFieldAccess, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource,
    WindowUDF,
};
use datafusion_sql::sqlparser::ast::BinaryOperator;
use ef_proto::function::Builtin;
use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

/// The planner's options: Flink's names keep their case, decimal literals are exact, strings are plain Utf8.
pub static OPTIONS: LazyLock<Arc<ConfigOptions>> = LazyLock::new(|| {
    let mut options = ConfigOptions::default();
    options.sql_parser.parse_float_as_decimal = true;
    options.sql_parser.enable_ident_normalization = false;
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.collect_spans = true;
    options.optimizer.skip_failed_rules = false;
    options.optimizer.filter_null_join_keys = false;
    Arc::new(options)
});

/// One statement's view of the catalog.
pub struct Context<'a> {
    catalog: &'a Catalog,
    places: &'a Places,
    relations: Vec<Arc<dyn RelationPlanner>>,
    expressions: Vec<Arc<dyn ExprPlanner>>,
}

impl<'a> Context<'a> {
    pub fn new(catalog: &'a Catalog, calls: Vec<TableCall>, places: &'a Places) -> Context<'a> {
        let relations: Vec<Arc<dyn RelationPlanner>> =
            vec![Arc::new(TableCalls { calls, models: catalog.models.clone(), tables: catalog.tables.clone() })];
        Context { catalog, places, relations, expressions: vec![Arc::new(FlinkExpressions)] }
    }
}

impl ContextProvider for Context<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        let TableReference::Bare { table } = &name else {
            return plan_err!("`{name}` is not a plain name: there are no catalogs and databases");
        };
        if let Some(table) = self.catalog.tables.get(table.as_ref()) {
            return Ok(Arc::new(PlannerTable::new(table.clone())));
        }
        if let Some(view) = self.catalog.views.get(table.as_ref()) {
            return Ok(Arc::new(ViewSource { plan: view.plan.clone() }));
        }
        let known = self.catalog.tables.keys().chain(self.catalog.views.keys()).map(String::as_str);
        let error = PlannerError::new(format!("table `{table}` does not exist"), self.places.table(table));
        Err(DataFusionError::External(Box::new(error.hint(near(table, known)))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.expressions
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        &self.relations
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(FlinkTypes))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        LIBRARY
            .scalars
            .get(name)
            .cloned()
            .or_else(|| super::opaque::by_name(name))
            .or_else(|| super::lookup::by_name(name))
    }

    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        LIBRARY.aggregates.get(name).cloned()
    }

    fn get_window_meta(&self, _name: &str) -> Option<Arc<WindowUDF>> {
        None
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<Arrow> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &OPTIONS
    }

    fn udf_names(&self) -> Vec<String> {
        LIBRARY.scalars.keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        vec![]
    }

    fn udaf_names(&self) -> Vec<String> {
        LIBRARY.aggregates.keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        vec![]
    }
}

/// A view: its plan stands where its name stood.
struct ViewSource {
    plan: Arc<LogicalPlan>,
}

impl TableSource for ViewSource {
    fn schema(&self) -> SchemaRef {
        Arc::new(self.plan.schema().as_arrow().clone())
    }

    fn get_logical_plan(&self) -> Option<Cow<'_, LogicalPlan>> {
        Some(Cow::Borrowed(&self.plan))
    }
}

/// Flink's rules where DataFusion's differ.
#[derive(Debug)]
struct FlinkExpressions;

impl ExprPlanner for FlinkExpressions {
    /// Decimals are calculated with Flink's digits; strings next to numbers are numbers; what cannot be compared or
    /// calculated is an error with the place of its column.
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let RawBinaryExpr { op, left, right } = expr;
        let original = |left, right| Ok(PlannerResult::Original(RawBinaryExpr { op: op.clone(), left, right }));
        let (Ok(l), Ok(r)) = (left.get_type(schema), right.get_type(schema)) else { return original(left, right) };
        let arithmetic = core_operator(&op).is_some();
        let comparison = matches!(
            op,
            BinaryOperator::Eq
                | BinaryOperator::NotEq
                | BinaryOperator::Lt
                | BinaryOperator::LtEq
                | BinaryOperator::Gt
                | BinaryOperator::GtEq
        );
        let refuse = |hint: &str| {
            let text = |arrow: &Arrow| super::types::closed(arrow).map_or(arrow.to_string(), |ty| ty.to_string());
            let error =
                PlannerError::new(format!("`{op}` between {} and {}", text(&l), text(&r)), place(&[&left, &right]));
            Err(DataFusionError::External(Box::new(error.hint(hint))))
        };
        if comparison {
            match (&l, &r) {
                (Arrow::Decimal128(..), number) if number.is_integer() => {
                    return original(left, exact(right, number));
                }
                (number, Arrow::Decimal128(..)) if number.is_integer() => {
                    return original(exact(left, number), right);
                }
                // DOUBLE is their common type: no decimal has the range of a double.
                (Arrow::Decimal128(..), float) | (float, Arrow::Decimal128(..)) if float.is_floating() => {
                    return original(cast(left, &Arrow::Float64), cast(right, &Arrow::Float64));
                }
                (Arrow::Date32, Arrow::Timestamp(_, None)) => return original(cast(left, &r), right),
                (Arrow::Timestamp(_, None), Arrow::Date32) => return original(left, cast(right, &l)),
                _ => {}
            }
        }
        if let Some(operator) = core_operator(&op) {
            let planned = |left, right| Ok(PlannerResult::Planned(core(operator, vec![left, right])));
            let number = |ty: &Arrow| matches!(ty, Arrow::Decimal128(..)) || ty.is_integer();
            let plus_or_minus = matches!(operator, Builtin::Plus | Builtin::Minus);
            match (&l, &r) {
                // Both exact, at least one of them with a scale: the digits of the result are Flink's.
                (Arrow::Decimal128(..), other) | (other, Arrow::Decimal128(..)) if number(other) => {
                    return planned(written(left), written(right));
                }
                (Arrow::Decimal128(..), Arrow::Float32) | (Arrow::Float32, Arrow::Decimal128(..)) => {
                    return original(cast(left, &Arrow::Float64), cast(right, &Arrow::Float64));
                }
                (Arrow::Interval(_), by) | (by, Arrow::Interval(_))
                    if operator == Builtin::Times && by.is_integer() =>
                {
                    return planned(left, right);
                }
                // A date moved by days and months is a date; moved by hours it would have to become a timestamp.
                (Arrow::Date32, Arrow::Interval(_)) if plus_or_minus => {
                    if whole_days(&right) {
                        return planned(left, right);
                    }
                    return original(cast(left, &Arrow::Timestamp(TimeUnit::Millisecond, None)), right);
                }
                (Arrow::Interval(_), Arrow::Date32) if operator == Builtin::Plus => {
                    if whole_days(&left) {
                        return planned(left, right);
                    }
                    return original(left, cast(right, &Arrow::Timestamp(TimeUnit::Millisecond, None)));
                }
                (Arrow::Time32(_), Arrow::Interval(_)) if plus_or_minus => return planned(left, right),
                (Arrow::Interval(_), Arrow::Time32(_)) if operator == Builtin::Plus => return planned(left, right),
                _ => {}
            }
        }
        if op == BinaryOperator::StringConcat
            && [&l, &r].into_iter().all(|ty| ty.is_numeric() || matches!(kind(ty), Kind::Boolean | Kind::Time))
        {
            return refuse("accepted: strings, as in CAST(x AS STRING) || 'a'");
        }
        if comparison {
            match (&l, &r) {
                (Arrow::Utf8, number) if number.is_numeric() => return original(cast(left, number), right),
                (number, Arrow::Utf8) if number.is_numeric() => return original(left, cast(right, number)),
                (l, r) if kind(l) != kind(r) && kind(l) != Kind::Any && kind(r) != Kind::Any => {
                    return refuse("accepted: values of one kind; CAST one of them");
                }
                _ => {}
            }
        }
        if arithmetic {
            match (&l, &r) {
                (Arrow::Timestamp(..), Arrow::Timestamp(..)) => {
                    return refuse("accepted: TIMESTAMPDIFF(SECOND, earlier, later)");
                }
                (Arrow::Utf8 | Arrow::Boolean, _) | (_, Arrow::Utf8 | Arrow::Boolean) => {
                    return refuse(
                        "accepted: numbers, or a time and an INTERVAL; CAST a string, join strings with `||`",
                    );
                }
                (Arrow::Timestamp(..) | Arrow::Date32, number) | (number, Arrow::Timestamp(..) | Arrow::Date32)
                    if number.is_numeric() =>
                {
                    return refuse("accepted: a time and an INTERVAL, as in ts + INTERVAL '5' SECOND");
                }
                _ => {}
            }
        }
        original(left, right)
    }

    /// `row.field`, `array[position]`, `map[key]`.
    fn plan_field_access(
        &self,
        expr: RawFieldAccessExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawFieldAccessExpr>> {
        let RawFieldAccessExpr { field_access, expr } = expr;
        let element = |key: Expr, expr: Expr| core(Builtin::ElementAt, vec![expr, key]);
        let planned = match field_access {
            GetFieldAccess::NamedStructField { name } => match expr.get_type(schema)? {
                Arrow::Struct(fields) => {
                    if let ScalarValue::Utf8(Some(name)) = &name {
                        find_field(&expr.schema_name().to_string(), &fields, name)?;
                    }
                    field(expr, name)
                }
                _ => element(Expr::Literal(name, None), expr),
            },
            GetFieldAccess::ListIndex { key } => element(*key, expr),
            GetFieldAccess::ListRange { .. } => return plan_err!("a slice of an array is not supported"),
        };
        Ok(PlannerResult::Planned(planned))
    }

    fn plan_compound_identifier(
        &self,
        root: &Field,
        qualifier: Option<&TableReference>,
        nested: &[String],
    ) -> Result<PlannerResult<Vec<Expr>>> {
        let mut expr = Expr::Column(Column::from((qualifier, root)));
        let mut at = root;
        for name in nested {
            if let Arrow::Struct(fields) = at.data_type() {
                at = find_field(at.name(), fields, name)?;
            }
            expr = field(expr, ScalarValue::from(name.as_str()));
        }
        Ok(PlannerResult::Planned(expr))
    }

    fn plan_array_literal(&self, exprs: Vec<Expr>, _schema: &DFSchema) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(array(exprs)))
    }

    fn plan_make_map(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for (i, arg) in args.into_iter().enumerate() {
            if i % 2 == 0 { keys.push(arg) } else { values.push(arg) }
        }
        let map = LIBRARY.scalars.get("map").cloned();
        match map {
            Some(map) => Ok(PlannerResult::Planned(Expr::ScalarFunction(ScalarFunction::new_udf(
                map,
                vec![array(keys), array(values)],
            )))),
            None => plan_err!("MAP[…] is not supported"),
        }
    }

    fn plan_struct_literal(&self, args: Vec<Expr>, _named: bool) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(core(Builtin::MakeRow, args)))
    }

    /// COUNT(*) and COUNT() count the constant 1, as DataFusion's rules expect.
    #[expect(deprecated)]
    fn plan_aggregate(&self, mut expr: RawAggregateExpr) -> Result<PlannerResult<RawAggregateExpr>> {
        let star = expr.args.is_empty() || matches!(expr.args.as_slice(), [Expr::Wildcard { .. }]);
        if expr.func.name() != "count" || !star {
            return Ok(PlannerResult::Original(expr));
        }
        expr.args = vec![Expr::Literal(ScalarValue::Int64(Some(1)), None)];
        let RawAggregateExpr { func, args, distinct, filter, order_by, null_treatment } = expr;
        Ok(PlannerResult::Planned(Expr::AggregateFunction(AggregateFunction::new_udf(
            func,
            args,
            distinct,
            filter,
            order_by,
            null_treatment,
        ))))
    }
}

/// The field of a row. The message has the form that [`Places`] finds the place of.
fn find_field<'a>(row: &str, fields: &'a Fields, name: &str) -> Result<&'a Field> {
    fields.iter().find(|field| field.name() == name).map(AsRef::as_ref).ok_or_else(|| {
        let error = PlannerError::new(format!("`{row}` has no field `{name}`"), Span::UNKNOWN);
        DataFusionError::External(Box::new(error.hint(near(name, fields.iter().map(|field| field.name().as_str())))))
    })
}

fn field(expr: Expr, name: ScalarValue) -> Expr {
    let args = vec![expr, Expr::Literal(name, None)];
    Expr::ScalarFunction(ScalarFunction::new_udf(datafusion_functions::core::get_field(), args))
}

fn core(builtin: Builtin, args: Vec<Expr>) -> Expr {
    let function = LIBRARY.scalars[builtin.name()].clone();
    Expr::ScalarFunction(ScalarFunction::new_udf(function, args))
}

fn array(items: Vec<Expr>) -> Expr {
    core(Builtin::MakeArray, items)
}

/// The core function that calculates as Flink does where DataFusion's operator has another result type.
fn core_operator(op: &BinaryOperator) -> Option<Builtin> {
    Some(match op {
        BinaryOperator::Plus => Builtin::Plus,
        BinaryOperator::Minus => Builtin::Minus,
        BinaryOperator::Multiply => Builtin::Times,
        BinaryOperator::Divide => Builtin::Divide,
        BinaryOperator::Modulo => Builtin::Modulo,
        _ => return None,
    })
}

/// A decimal literal with the digits it is written with: DataFusion leaves the zero before the point out.
fn written(expr: Expr) -> Expr {
    match expr {
        Expr::Literal(ScalarValue::Decimal128(value, precision, scale), metadata)
            if scale > 0 && precision == scale as u8 && precision < 38 =>
        {
            Expr::Literal(ScalarValue::Decimal128(value, precision + 1, scale), metadata)
        }
        other => other,
    }
}

/// Whether an interval is of days or months. The units of its literal are gone: 24 hours are a day.
fn whole_days(interval: &Expr) -> bool {
    const NANOS_PER_DAY: i64 = 86_400_000_000_000;
    match interval {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(by)), _) => by.nanoseconds % NANOS_PER_DAY == 0,
        Expr::ScalarFunction(call) => call.args.iter().any(whole_days),
        Expr::Negative(inner) => whole_days(inner),
        Expr::Cast(cast) => whole_days(&cast.expr),
        Expr::BinaryExpr(both) => whole_days(&both.left) && whole_days(&both.right),
        _ => false,
    }
}

fn cast(expr: Expr, to: &Arrow) -> Expr {
    Expr::Cast(Cast::new(Box::new(expr), to.clone()))
}

/// A whole number as the DECIMAL of its type's digits (Flink's rule), so that results have no digit too many.
fn exact(expr: Expr, ty: &Arrow) -> Expr {
    let digits = match ty {
        Arrow::Int8 | Arrow::UInt8 => 3,
        Arrow::Int16 | Arrow::UInt16 => 5,
        Arrow::Int32 | Arrow::UInt32 => 10,
        Arrow::UInt64 => 20,
        _ => 19,
    };
    cast(expr, &Arrow::Decimal128(digits, 0))
}

/// What can be compared with what.
#[derive(PartialEq)]
enum Kind {
    Number,
    Boolean,
    Bytes,
    Time,
    Nested,
    /// NULLs, strings (they are read as the other side) and what DataFusion knows better.
    Any,
}

fn kind(ty: &Arrow) -> Kind {
    match ty {
        ty if ty.is_numeric() => Kind::Number,
        Arrow::Boolean => Kind::Boolean,
        Arrow::Binary => Kind::Bytes,
        Arrow::Timestamp(..) | Arrow::Date32 => Kind::Time,
        Arrow::Struct(_) | Arrow::List(_) | Arrow::Map(..) => Kind::Nested,
        _ => Kind::Any,
    }
}

/// Where the first column of these expressions stands.
fn place(exprs: &[&Expr]) -> Span {
    exprs
        .iter()
        .flat_map(|expr| expr.column_refs())
        .filter_map(|column| column.spans().first())
        .min_by_key(|span| (span.start.line, span.start.column))
        .map_or(Span::UNKNOWN, |span| super::diagnose::from_span(&span))
}
