//! From Flink's syntax tree to the one that DataFusion's planner takes.
//!
//! Names of functions and columns become canonical, intervals and literals get Flink's types, window functions leave
//! the tree as [`TableCall`]s, and everything that is parsed but not supported is refused here, by name and with its place.

mod build;
mod call;
mod check;
mod similar;
mod table;
mod version;

pub use table::{ArgumentValue, TableCall};

use super::diagnose::from_datafusion;
use super::dialect::{TABLE_FUNCTIONS, call, span};
use super::error::{PlannerError, Span};
use super::opaque::{self, Form};
use super::{interval, types};
use datafusion_common::DataFusionError;
use datafusion_sql::sqlparser::ast::{
    AccessExpr, CastKind, Expr, Function, FunctionArguments, Ident, ObjectNamePart, Query, Select, SelectItem, Spanned,
    Subscript, TableFactor, UnaryOperator, Value, VisitMut, VisitorMut,
};
use datafusion_sql::sqlparser::tokenizer::Span as TokenSpan;
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

/// Where the tables and functions of a query stand: DataFusion's errors name them, and do not say where.
#[derive(Debug, Default)]
pub struct Places {
    tables: HashMap<String, Span>,
    /// Behind a dot.
    fields: HashMap<String, Span>,
    /// Upper case; None where a function is called more than once.
    functions: HashMap<String, Option<Span>>,
}

impl Places {
    pub fn table(&self, name: &str) -> Span {
        self.tables.get(name).copied().unwrap_or(Span::UNKNOWN)
    }

    /// The error at the one call that its message names, else at the statement.
    pub fn error(&self, error: DataFusionError, statement: Span) -> PlannerError {
        let error = from_datafusion(error, Span::UNKNOWN);
        let message = error.message.to_uppercase();
        let mut words = message.split(|c: char| !c.is_alphanumeric() && c != '_');
        let call = words.find_map(|word| self.functions.get(word)).copied().flatten();
        let field = error.message.split_once("no field `").and_then(|(_, rest)| rest.split_once('`'));
        let field = field.and_then(|(name, _)| self.fields.get(name)).copied();
        error.or_at(field.or(call).unwrap_or(statement))
    }
}

/// Rewrites a query; returns its table calls and where its names stand.
pub fn query(query: &mut Query) -> Result<(Vec<TableCall>, Places), PlannerError> {
    let mut rewriter = Rewriter::default();
    match VisitMut::visit(query, &mut rewriter) {
        ControlFlow::Break(error) => Err(*error),
        ControlFlow::Continue(()) => Ok((rewriter.calls, rewriter.places)),
    }
}

/// Rewrites an expression of a DDL statement: no subqueries, no aggregates.
pub fn expression(expr: &mut Expr) -> Result<(), PlannerError> {
    let mut rewriter = Rewriter { scalar_only: true, ..Rewriter::default() };
    match VisitMut::visit(expr, &mut rewriter) {
        ControlFlow::Break(error) => Err(*error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

#[derive(Default)]
struct Rewriter {
    calls: Vec<TableCall>,
    places: Places,
    scalar_only: bool,
    /// Output names of the SELECTs that are open, by select: None keeps what is there.
    names: Vec<Vec<Option<String>>>,
}

type Flow = ControlFlow<Box<PlannerError>>;

fn fail(error: PlannerError) -> Flow {
    ControlFlow::Break(Box::new(error))
}

fn unsupported(what: impl AsRef<str>, at: TokenSpan, hint: &str) -> PlannerError {
    let error = PlannerError::new(format!("{} is not supported", what.as_ref()), span(at));
    if hint.is_empty() { error } else { error.hint(hint) }
}

fn flow(result: Result<(), PlannerError>) -> Flow {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => fail(error),
    }
}

impl VisitorMut for Rewriter {
    type Break = Box<PlannerError>;

    fn pre_visit_query(&mut self, query: &mut Query) -> Flow {
        flow(check::query(query))
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> Flow {
        if let Err(error) = check::select(select).and_then(|()| version::check(select)) {
            return fail(error);
        }
        // sqlparser takes a string behind an expression for its name, and forgets where it stands.
        let text = select.projection.iter().find_map(|item| match item {
            SelectItem::ExprWithAlias { expr, alias } if alias.quote_style == Some('\'') => Some((expr, alias)),
            _ => None,
        });
        if let Some((expr, alias)) = text {
            let error = PlannerError::new(format!("unexpected `{alias}` behind this"), span(expr.span()));
            return fail(error.hint(format!("accepted: AS `{0}` for a name, || '{0}' to join strings", alias.value)));
        }
        self.names.push(output_names(&select.projection));
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut Select) -> Flow {
        version::mark(select);
        let names = self.names.pop().unwrap_or_default();
        for (item, name) in select.projection.iter_mut().zip(names) {
            let Some(name) = name else { continue };
            let expr = match item {
                SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => expr.clone(),
                _ => continue,
            };
            *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('`', name) };
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> Flow {
        flow(self.table_factor(factor))
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> Flow {
        flow(self.before(expr))
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> Flow {
        flow(call::after(expr).and_then(|()| opaque(expr)))
    }
}

/// Takes written casts and LIKE out of DataFusion's hands. The types of literals stay its business.
fn opaque(expr: &mut Expr) -> Result<(), PlannerError> {
    let at = span(expr.span());
    let (form, args, at) = match expr {
        Expr::Cast { kind, expr: input, data_type, .. } => {
            let place = types::place(data_type);
            let literal = matches!(input.as_ref(), Expr::Value(_)) && place.is_none();
            let Some(to) = types::from_sql(data_type).filter(|_| !literal) else { return Ok(()) };
            let safe = *kind == CastKind::TryCast;
            (Form::Cast { to, safe }, vec![input.as_ref().clone()], place.unwrap_or(at))
        }
        Expr::Like { any: false, expr: input, pattern, escape_char, .. }
        | Expr::ILike { any: false, expr: input, pattern, escape_char, .. } => {
            let escape = match escape_char.as_ref().map(|escape| &escape.value) {
                None => None,
                Some(Value::SingleQuotedString(text)) if text.chars().count() == 1 => text.chars().next(),
                Some(other) => {
                    return Err(
                        PlannerError::new(format!("ESCAPE {other}"), at).hint("accepted: ESCAPE '!', one character")
                    );
                }
            };
            let args = vec![input.as_ref().clone(), pattern.as_ref().clone()];
            let case_insensitive = matches!(expr, Expr::ILike { .. });
            (Form::Like { escape, case_insensitive }, args, at)
        }
        Expr::Like { .. } | Expr::ILike { .. } => {
            return Err(PlannerError::new("LIKE ANY is not supported", at).hint("accepted: LIKE, OR"));
        }
        _ => return Ok(()),
    };
    let negated = matches!(expr, Expr::Like { negated: true, .. } | Expr::ILike { negated: true, .. });
    let call = opaque::call(&form, args, at);
    *expr = if negated { Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(call) } } else { call };
    Ok(())
}

/// Flink's names of a select list: the last part of a compound name, EXPR$n for what has none, and a number behind a
/// name that is taken.
fn output_names(items: &[SelectItem]) -> Vec<Option<String>> {
    let wildcard = items.iter().any(|item| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)));
    let mut taken: HashSet<String> = HashSet::new();
    let names = items.iter().enumerate().map(|(i, item)| {
        let (name, plain) = match item {
            SelectItem::UnnamedExpr(Expr::Identifier(ident)) => (ident.value.clone(), true),
            SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => (parts.last()?.value.clone(), false),
            SelectItem::UnnamedExpr(Expr::CompoundFieldAccess { access_chain, .. }) => match access_chain.last() {
                Some(AccessExpr::Dot(Expr::Identifier(ident))) => (ident.value.clone(), false),
                _ => (format!("EXPR${i}"), false),
            },
            SelectItem::UnnamedExpr(_) => (format!("EXPR${i}"), false),
            SelectItem::ExprWithAlias { alias, .. } => (alias.value.clone(), true),
            _ => return None,
        };
        let mut unique = name.clone();
        let mut n = 0;
        while !wildcard && !taken.insert(unique.clone()) {
            unique = format!("{name}{n}");
            n += 1;
        }
        if plain && unique == name { None } else { Some(unique) }
    });
    names.collect()
}

impl Rewriter {
    fn table_factor(&mut self, factor: &mut TableFactor) -> Result<(), PlannerError> {
        let at = factor.span();
        match factor {
            TableFactor::Table { name, args: None, sample, with_hints, alias, .. } => {
                if sample.is_some() || !with_hints.is_empty() {
                    return Err(unsupported("TABLESAMPLE or a table hint", at, ""));
                }
                if let Some(ident) = name.0.last().and_then(ObjectNamePart::as_ident) {
                    self.places.tables.entry(ident.value.clone()).or_insert(span(ident.span));
                }
                // The name must not be read as a call of ours.
                if TableCall::by_reference(name).is_some() && alias.is_none() && self.calls.is_empty() {
                    return Err(PlannerError::new(format!("table `{name}` does not exist"), span(at)));
                }
                Ok(())
            }
            TableFactor::Table { name, args: Some(args), alias, .. } => {
                if !TABLE_FUNCTIONS.iter().any(|known| name.to_string().eq_ignore_ascii_case(known)) {
                    let accepted = format!("accepted: FROM TABLE(f(…)) with f one of {}", TABLE_FUNCTIONS.join(", "));
                    return Err(PlannerError::new(format!("`{name}(…)` in FROM"), span(at)).hint(accepted));
                }
                // `FROM HOP(…)` means `FROM TABLE(HOP(…))`.
                let function = name.0.last().and_then(ObjectNamePart::as_ident).cloned();
                let mut expr = call(function.unwrap_or_else(|| Ident::new(name.to_string())), vec![]);
                if let Expr::Function(Function { args: FunctionArguments::List(list), .. }) = &mut expr {
                    list.args = std::mem::take(&mut args.args);
                }
                let call = self.table_call(&expr)?;
                let alias = alias.take();
                *factor = self.replace(call, alias);
                Ok(())
            }
            TableFactor::TableFunction { expr, alias } => {
                let call = self.table_call(expr)?;
                let alias = alias.take();
                *factor = self.replace(call, alias);
                Ok(())
            }
            TableFactor::Derived { lateral: false, sample: None, .. } | TableFactor::NestedJoin { .. } => Ok(()),
            TableFactor::Derived { lateral: true, .. } => Err(unsupported("LATERAL", at, "accepted: a join with ON")),
            TableFactor::Function { name, args, .. } => {
                // `LATERAL TABLE(f(x))` is a call of TABLE; `LATERAL f(x)` one of f.
                let list: Vec<String> = args.iter().map(ToString::to_string).collect();
                let what = match name.to_string().eq_ignore_ascii_case("TABLE") {
                    true => format!("LATERAL TABLE({})", list.join(", ")),
                    false => format!("LATERAL {name}({})", list.join(", ")),
                };
                Err(unsupported(what, at, "table functions in joins are not there yet"))
            }
            TableFactor::UNNEST { .. } => Err(unsupported("UNNEST", at, "")),
            TableFactor::MatchRecognize { .. } => Err(unsupported("MATCH_RECOGNIZE", at, "")),
            TableFactor::Pivot { .. } | TableFactor::Unpivot { .. } => Err(unsupported("PIVOT", at, "")),
            _ => Err(unsupported("this kind of table", at, "accepted: a table, a view, (SELECT …), TABLE(TUMBLE(…))")),
        }
    }

    fn before(&mut self, expr: &mut Expr) -> Result<(), PlannerError> {
        let at = expr.span();
        match expr {
            Expr::Interval(_) => {
                *expr = interval::canonical(expr).map_err(|message| PlannerError::new(message, span(at)))?;
                Ok(())
            }
            Expr::Subquery(_) => {
                Err(unsupported("a scalar subquery", at, "accepted: a join, or IN (SELECT …) in WHERE"))
            }
            Expr::Exists { .. } | Expr::InSubquery { .. } if self.scalar_only => {
                Err(unsupported("a subquery in this place", at, ""))
            }
            Expr::RLike { .. } => Err(unsupported("RLIKE", at, "accepted: LIKE, REGEXP(string, pattern)")),
            Expr::AtTimeZone { .. } => Err(unsupported("AT TIME ZONE", at, "")),
            Expr::GroupingSets(_) => Err(unsupported("GROUPING SETS", at, "accepted: GROUP BY column, …")),
            Expr::Cube(_) => Err(unsupported("CUBE", at, "accepted: GROUP BY column, …")),
            Expr::Rollup(_) => Err(unsupported("ROLLUP", at, "accepted: GROUP BY column, …")),
            Expr::Collate { .. } => Err(unsupported("COLLATE", at, "")),
            Expr::Lambda(_) => Err(unsupported("a lambda", at, "")),
            Expr::JsonAccess { .. } => Err(unsupported("`:`", at, "accepted: JSON_VALUE(string, path)")),
            Expr::AnyOp { .. } | Expr::AllOp { .. } => Err(unsupported("ANY, SOME and ALL", at, "accepted: IN")),
            Expr::Convert { .. } => Err(unsupported("CONVERT", at, "accepted: CAST(x AS type), TRY_CAST(x AS type)")),
            Expr::Function(function) => {
                let place = self.places.functions.entry(function.name.to_string().to_uppercase());
                place.and_modify(|place| *place = None).or_insert(Some(span(at)));
                check::function(function, self.scalar_only)
            }
            Expr::CompoundIdentifier(parts) => {
                for part in parts.iter().skip(1) {
                    self.places.fields.entry(part.value.clone()).or_insert(span(part.span));
                }
                Ok(())
            }
            // A field behind a subscript: DataFusion takes the name as a string.
            Expr::CompoundFieldAccess { root, access_chain } => {
                let mut plain = matches!(root.as_ref(), Expr::Identifier(_));
                for access in access_chain {
                    match access {
                        AccessExpr::Subscript(Subscript::Slice { .. }) => {
                            return Err(unsupported("a slice of an array", at, "accepted: array[position]"));
                        }
                        AccessExpr::Subscript(_) => plain = false,
                        AccessExpr::Dot(Expr::Identifier(ident)) if !plain => {
                            self.places.fields.entry(ident.value.clone()).or_insert(span(ident.span));
                            let name = Value::SingleQuotedString(ident.value.clone());
                            *access = AccessExpr::Dot(Expr::Value(name.with_empty_span()));
                        }
                        AccessExpr::Dot(_) => {}
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
