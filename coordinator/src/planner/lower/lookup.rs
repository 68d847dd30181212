//! Joins with a table that is looked up: which comparisons make the key, what else a pair must fulfil, and the columns
//! that answers must hold.
//!
//! Expressions of both sides are collected over one row space, the left side's output columns and then the table's
//! physical columns; only in the end it is known which of the latter are used.

use super::expr::{self, to_type};
use super::rel::{Rel, column_of};
use super::{Lowering, takes_no_changelog};
use crate::planner::lookup::LookupSource;
use crate::planner::{ColumnKind, PlannerError, Span, Table};
use datafusion_common::{DFSchema, JoinType, NullEquality};
use datafusion_expr::{Join, LogicalPlan, TableScan};
use ef_proto::connector::lookup::{LookupConnector, LookupOptions};
use ef_proto::connector::{OptionError, Options, SourceCommon};
use ef_proto::expr::{BinaryOp, Expr, ExprKind, Scalar, UnaryOp};
use ef_proto::plan::{JoinKind, LookupJoin, LookupKey, LookupValue, OperatorKind};
use ef_proto::schema::{DataType, Field, Schema};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What stands at the right of a lookup join.
pub struct Right {
    table: Arc<Table>,
    /// Over the table's physical columns; as many as the logical plan's node has.
    columns: Vec<Expr>,
    names: Vec<Field>,
    /// Over the same.
    filters: Vec<Expr>,
}

/// The right side of a join, if it is a table that is looked up, with what the optimizer has put above it.
pub fn right(plan: &LogicalPlan) -> Result<Option<Right>, PlannerError> {
    match plan {
        LogicalPlan::TableScan(scan) => match scan.source.downcast_ref::<LookupSource>() {
            Some(source) => Right::scan(scan, &source.table).map(Some),
            None => Ok(None),
        },
        LogicalPlan::SubqueryAlias(alias) => right(&alias.input),
        LogicalPlan::Filter(filter) => {
            let Some(mut side) = right(&filter.input)? else { return Ok(None) };
            let predicate = expr::lower(&filter.predicate, filter.input.schema())?;
            side.filters.push(to_type(predicate, &DataType::Boolean).substitute(&side.columns));
            Ok(Some(side))
        }
        LogicalPlan::Projection(projection) => {
            let Some(mut side) = right(&projection.input)? else { return Ok(None) };
            let lowered = projection.expr.iter().map(|expr| expr::lower(expr, projection.input.schema()));
            let lowered = lowered.map(|expr| Ok(expr?.substitute(&side.columns)));
            side.columns = lowered.collect::<Result<_, PlannerError>>()?;
            side.names = super::fields(&projection.schema);
            Ok(Some(side))
        }
        _ => Ok(None),
    }
}

impl Right {
    fn scan(scan: &TableScan, table: &Arc<Table>) -> Result<Right, PlannerError> {
        let physical = table.physical();
        let metadata = table.metadata().into_iter().map(|(field, _)| field);
        let readable = Schema::new(physical.fields.iter().cloned().chain(metadata).collect());
        let scope = DFSchema::try_from(readable.to_arrow().as_ref().clone()).map_err(super::datafusion)?;
        let all: Vec<usize> = (0..table.columns.len()).collect();
        let (mut columns, mut names) = (Vec::new(), Vec::new());
        for at in scan.projection.as_ref().unwrap_or(&all) {
            let column = &table.columns[*at];
            let field = &column.field;
            let wrong = |what: &str| {
                let message =
                    format!("column `{}` of table `{}`, which is looked up, is {what}", field.name, table.name);
                PlannerError::new(message, table.span).hint("accepted: physical columns, and those computed from them")
            };
            columns.push(match &column.kind {
                ColumnKind::Physical => {
                    let index = physical.index_of(&field.name).expect("declared by the same table");
                    Expr::column(index, field.ty.clone())
                }
                ColumnKind::Computed { expr, .. } => {
                    let computed = expr::lower(expr, &scope).map_err(|error| error.or_at(table.span))?;
                    if !super::rel::below(&computed, physical.len()) {
                        return Err(wrong("computed from METADATA"));
                    }
                    to_type(computed, &field.ty)
                }
                ColumnKind::Metadata { .. } => return Err(wrong("METADATA")),
                ColumnKind::Proctime => return Err(wrong("PROCTIME()")),
            });
            names.push(field.clone());
        }
        Ok(Right { table: table.clone(), columns, names, filters: vec![] })
    }
}

/// A comparison of one of the table's columns that can be looked up by.
struct Compared {
    /// Physical.
    column: usize,
    /// Over the left side's output, or a literal; of the column's type.
    value: Expr,
}

impl Lowering<'_> {
    pub(super) fn lookup_join(&mut self, join: &Join, right: Right) -> Result<Rel, PlannerError> {
        let span = super::join::span(join);
        let kind = match join.join_type {
            JoinType::Inner => JoinKind::Inner,
            JoinType::Left => JoinKind::Left,
            other => {
                return Err(PlannerError::new(format!("a {other} join with FOR SYSTEM_TIME AS OF"), span)
                    .hint("accepted: JOIN, LEFT JOIN"));
            }
        };
        let mut left = self.plan(&join.left)?;
        if left.changelog {
            return Err(takes_no_changelog("a lookup join", span));
        }
        if join.null_equality == NullEquality::NullEqualsNull {
            return Err(
                PlannerError::new("a lookup on IS NOT DISTINCT FROM is not supported", span).hint("accepted: =")
            );
        }
        let visible = left.columns.len();
        let (compared, mut residual) = comparisons(join, &right, visible)?;

        let table = right.table.clone();
        let physical = table.physical();
        let fail = |error: OptionError| table.option_error(error);
        let mut options = Options::new(&table.name, table.options.clone());
        let (connector, format) = LookupConnector::parse(&mut options, &physical).map_err(fail)?;
        let settings = self.settings;
        let lookup = LookupOptions::parse(&mut options, settings.lookup_capacity, settings.lookup_timeout_ms);
        let lookup = lookup.map_err(fail)?;
        let common = SourceCommon::parse(&mut options).map_err(fail)?;
        options.finish().map_err(fail)?;

        let chosen = keys(&connector, &table, &compared, &residual, visible).map_err(|error| error.or_at(span))?;
        for (_, other) in compared.iter().enumerate().filter(|(i, _)| !chosen.contains(i)) {
            let column = Expr::column(visible + other.column, other.value.ty.clone());
            residual.push(Expr::binary(BinaryOp::Eq, other.value.clone(), column, DataType::Boolean));
        }
        let is_key = |at: usize| chosen.iter().any(|i| compared[*i].column == at);
        let values = physical.fields.iter().enumerate().filter(|(at, _)| !is_key(*at)).map(|(_, field)| field.clone());
        connector.fits(format.as_ref(), &Schema::new(values.collect())).map_err(|what| {
            let place = *table.option_places.get("connector").unwrap_or(&table.span);
            PlannerError::new(format!("table `{}`: {what}", table.name), place)
        })?;

        let identity = left.columns.iter().enumerate().map(|(at, column)| Expr::column(at, column.ty.clone()));
        let (mut exprs, mut names): (Vec<Expr>, _) = (identity.collect(), left.names.clone());
        let mut lookup_keys = Vec::with_capacity(chosen.len());
        for i in &chosen {
            let Compared { column, value } = &compared[*i];
            let field = physical.fields[*column].clone();
            let value = match &value.kind {
                ExprKind::Literal(scalar) => LookupValue::Constant(scalar.clone()),
                _ => LookupValue::Column(exprs.iter().position(|expr| expr == value).unwrap_or_else(|| {
                    exprs.push(value.clone());
                    names.push(Field::new("lookup key", value.ty.clone(), true));
                    exprs.len() - 1
                })),
            };
            lookup_keys.push(LookupKey { field, value });
        }
        left.project(exprs, names, &mut self.graph)?;
        left.make(&mut self.graph)?;
        let width = left.base.len();

        // A key column is NULL exactly where there is no match: what is calculated is NULL there too.
        let first_key = compared[chosen[0]].column;
        let guarded = |column: Expr| match column.kind {
            ExprKind::Column(_) => column,
            _ if kind == JoinKind::Inner => column,
            _ => {
                let ty = column.ty.clone();
                let key = Expr::column(first_key, physical.fields[first_key].ty.clone());
                let there = ExprKind::Unary { op: UnaryOp::IsNotNull, input: Box::new(key) };
                let branches = vec![(Expr { kind: there, ty: DataType::Boolean }, column)];
                Expr { kind: ExprKind::Case { branches, otherwise: None }, ty }
            }
        };
        let columns: Vec<Expr> = right.columns.into_iter().map(guarded).collect();
        let mut used = BTreeSet::new();
        columns.iter().for_each(|expr| {
            expr.visit_columns(&mut |at| {
                used.insert(at);
            });
        });
        residual.iter().for_each(|expr| {
            expr.visit_columns(&mut |at| {
                used.extend(at.checked_sub(visible));
            });
        });
        let used: Vec<usize> = used.into_iter().collect();
        let place = |at: usize| width + used.binary_search(&at).expect("used");
        let nullable = |field: &Field| field.nullable || kind == JoinKind::Left;
        let fields = used.iter().map(|at| &physical.fields[*at]);
        let fields = fields.map(|field| Field { nullable: nullable(field), ..field.clone() });
        let right_schema = Schema::new(fields.collect());
        let to = |at: usize| if at < visible { at } else { place(at - visible) };
        let filter = residual.into_iter().map(|expr| expr.map_columns(&to));
        let filter = filter.reduce(|all, expr| Expr::binary(BinaryOp::And, all, expr, DataType::Boolean));

        let schema = Schema::new(left.base.fields.iter().chain(&right_schema.fields).cloned().collect());
        let node = OperatorKind::LookupJoin(LookupJoin {
            table: table.name.clone(),
            connector,
            format,
            options: lookup,
            kind,
            keys: lookup_keys,
            right: right_schema,
            filter,
        });
        let port = self.graph.add(node, vec![left.ports.clone()], schema.clone(), false);
        if !common.constraint.is_any() {
            self.places.insert(port.node, common.constraint);
        }
        let mut out = Rel::of(vec![port], schema, false);
        out.roles[..left.roles.len()].copy_from_slice(&left.roles);
        out.windowing = left.windowing;
        out.carry = left.carry;
        let lefts = (0..visible).map(|at| Expr::column(at, out.base.fields[at].ty.clone()));
        out.columns = lefts.chain(columns.into_iter().map(|expr| expr.map_columns(&place))).collect();
        let rights = right.names.into_iter().map(|name| Field { nullable: nullable(&name), ..name });
        out.names = left.names.into_iter().take(visible).chain(rights).collect();
        Ok(out)
    }
}

/// What the condition compares the table's own columns with, and the rest of it.
fn comparisons(join: &Join, right: &Right, visible: usize) -> Result<(Vec<Compared>, Vec<Expr>), PlannerError> {
    let shifted = |expr: Expr| expr.map_columns(&|at| visible + at);
    let (mut compared, mut conjuncts) = (Vec::new(), Vec::new());
    for (l, r) in &join.on {
        let value = expr::lower(l, join.left.schema())?;
        let r = expr::lower(r, join.right.schema())?.substitute(&right.columns);
        let value = to_type(value, &r.ty);
        match column_of(&r) {
            Some(column) => compared.push(Compared { column, value }),
            None => conjuncts.push(Expr::binary(BinaryOp::Eq, value, shifted(r), DataType::Boolean)),
        }
    }
    right.filters.iter().for_each(|filter| split(shifted(filter.clone()), &mut conjuncts));
    if let Some(filter) = &join.filter {
        let mut joined = join.left.schema().as_ref().clone();
        joined.merge(join.right.schema());
        // Merging drops columns of equal name, which a condition cannot name apart either.
        let filter = to_type(expr::lower(filter, &joined)?, &DataType::Boolean);
        let places = joined.iter().map(|(qualifier, field)| {
            let find = |schema: &DFSchema| schema.index_of_column_by_name(qualifier, field.name());
            match (find(join.left.schema()), find(join.right.schema())) {
                (Some(at), _) => Expr::column(at, DataType::from_arrow(field.data_type()).unwrap_or(DataType::Null)),
                (None, Some(at)) => shifted(right.columns[at].clone()),
                (None, None) => unreachable!("a column of neither side"),
            }
        });
        let places: Vec<Expr> = places.collect();
        split(filter.substitute(&places), &mut conjuncts);
    }
    let mut residual = Vec::new();
    for conjunct in conjuncts {
        match constant(&conjunct, visible) {
            Some(constant) => compared.push(constant),
            None if conjunct.kind == ExprKind::Literal(Scalar::Boolean(true)) => {}
            None => residual.push(conjunct),
        }
    }
    Ok((compared, residual))
}

fn split(expr: Expr, into: &mut Vec<Expr>) {
    match expr.kind {
        ExprKind::Binary { op: BinaryOp::And, left, right } => {
            split(*left, into);
            split(*right, into);
        }
        kind => into.push(Expr { kind, ty: expr.ty }),
    }
}

/// `column = 'constant'`, either way round.
fn constant(expr: &Expr, visible: usize) -> Option<Compared> {
    let ExprKind::Binary { op: BinaryOp::Eq, left, right } = &expr.kind else { return None };
    [(left, right), (right, left)].into_iter().find_map(|(column, value)| {
        let at = column_of(column)?.checked_sub(visible)?;
        let ExprKind::Literal(scalar) = &value.kind else { return None };
        let fits = *scalar != Scalar::Null && value.ty == column.ty;
        fits.then(|| Compared { column: at, value: value.as_ref().clone() })
    })
}

/// The comparisons that make the connector's key, in its order.
fn keys(
    connector: &LookupConnector,
    table: &Table,
    compared: &[Compared],
    residual: &[Expr],
    visible: usize,
) -> Result<Vec<usize>, PlannerError> {
    let physical = table.physical();
    let of = |at: usize| compared.iter().position(|one| one.column == at);
    let found = physical.fields.iter().enumerate().filter(|(at, _)| of(*at).is_some());
    let names: Vec<String> = found.map(|(_, field)| field.name.clone()).collect();
    // Else a column that is compared as another type is the likely reason.
    let cast = |name: Option<&str>| {
        let cast = residual.iter().flat_map(|expr| expr.children()).find_map(|side| {
            let ExprKind::Cast { input, .. } = &side.kind else { return None };
            let field = &physical.fields[column_of(input)?.checked_sub(visible)?];
            (name.is_none_or(|name| name == field.name)).then_some((field, &side.ty))
        })?;
        let (Field { name, ty, .. }, other) = cast;
        let message =
            format!("column `{name}` of table `{}` is {ty}, and is compared as {other}: it is no key so", table.name);
        Some(PlannerError::new(message, Span::UNKNOWN).hint(format!("accepted: CAST(… AS {ty}) = {name}")))
    };
    if names.is_empty() {
        let message = format!("a lookup of table `{}` without an equality with one of its columns", table.name);
        let error = PlannerError::new(message, Span::UNKNOWN).hint("accepted: ON o.device_id = d.id");
        return Err(cast(None).unwrap_or(error));
    }
    let literal = |at: usize| matches!(compared[at].value.kind, ExprKind::Literal(_));
    let joined = names.iter().filter(|name| {
        let at = physical.index_of(name).and_then(of);
        at.is_some_and(|at| !literal(at))
    });
    let joined: Vec<String> = joined.cloned().collect();
    let wanted = connector.keys(&table.primary_key, &names, &joined).map_err(|missing| {
        let message = format!("`{missing}` is of the key of table `{}`, and the join does not compare it", table.name);
        let error = PlannerError::new(message, Span::UNKNOWN).hint(format!("accepted: … AND o.x = d.{missing}"));
        cast(Some(&missing)).unwrap_or(error)
    })?;
    let mut chosen = Vec::with_capacity(wanted.len());
    for name in wanted {
        let at = physical.index_of(&name).expect("a connector takes only the table's columns");
        let ty = &physical.fields[at].ty;
        if !ty.has_text() {
            return Err(PlannerError::new(format!("`{name}` is {ty}, which is no key"), Span::UNKNOWN)
                .hint("accepted: strings, numbers, booleans, dates and times"));
        }
        chosen.push(of(at).expect("compared"));
    }
    Ok(chosen)
}
