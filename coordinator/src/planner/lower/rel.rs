//! Rows on their way through the lowering: where they come from, and a Calc over them that has not been made yet.
//!
//! Projections and filters pile up in the pending Calc by substitution, and one operator is made of all of them when
//! somebody needs real columns. What costs something is never computed twice: if a projection or filter would repeat
//! an expression, the Calc below it is made first.

use super::expr::is_cheap;
use super::graph::{Graph, Port};
use crate::planner::{PlannerError, Span};
use ef_proto::expr::{BinaryOp, Expr, ExprKind};
use ef_proto::plan::{Calc, OperatorKind, Time, Window, WindowAssign};
use ef_proto::schema::{DataType, Field, Schema};
use std::collections::BTreeSet;

/// What a column means to windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    #[default]
    Plain,
    /// The column that the source's watermark is about.
    Rowtime,
    Start,
    End,
    /// `window_time`: the time attribute of rows with windows.
    WindowTime,
}

impl Role {
    pub const fn is_time(self) -> bool {
        matches!(self, Role::Rowtime | Role::WindowTime)
    }
}

/// The windows that rows carry in their columns of role Start and End.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windowing {
    /// As some TVF defined them.
    pub window: Window,
    pub processing: bool,
}

/// A window TVF that has not become an operator: under the right GROUP BY it never does.
#[derive(Clone, Debug)]
pub struct Assign {
    pub window: Window,
    pub time: Time,
    /// Columns of the base.
    pub partition_by: Vec<usize>,
    /// Where the call stands.
    pub span: Span,
}

/// Source columns that ride along for the late rows of the first window aggregate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carry {
    /// The source table.
    pub table: String,
    /// Of the base: where each of the table's columns is.
    pub columns: Vec<usize>,
}

#[derive(Clone, Debug)]
pub struct Rel {
    pub ports: Vec<Port>,
    /// The columns of the ports, without `_op`; behind them, while `assign` is pending, the three window columns.
    pub base: Schema,
    /// Of each base column.
    pub roles: Vec<Role>,
    pub windowing: Option<Windowing>,
    pub changelog: bool,
    pub assign: Option<Assign>,
    pub carry: Option<Carry>,
    /// Over the base.
    pub filter: Option<Expr>,
    /// Over the base; as many as the logical plan's node has columns.
    pub columns: Vec<Expr>,
    pub names: Vec<Field>,
}

/// An input whose columns have been made.
pub struct Made {
    pub ports: Vec<Port>,
    /// Without `_op`.
    pub schema: Schema,
    /// Where each asked-for expression is.
    pub at: Vec<usize>,
    pub carry: Option<Carry>,
}

impl Rel {
    /// All columns of these ports.
    pub fn of(ports: Vec<Port>, base: Schema, changelog: bool) -> Rel {
        let columns = identity(&base);
        Rel {
            ports,
            roles: vec![Role::Plain; base.len()],
            windowing: None,
            changelog,
            assign: None,
            carry: None,
            filter: None,
            columns,
            names: base.fields.clone(),
            base,
        }
    }

    /// How many base columns the ports deliver: all but those of a pending window assignment.
    pub fn delivered(&self) -> usize {
        self.base.len() - if self.assign.is_some() { 3 } else { 0 }
    }

    /// The role of an output column.
    pub fn role(&self, column: usize) -> Role {
        self.role_of(&self.columns[column])
    }

    /// The role of an expression over the base.
    pub fn role_of(&self, expr: &Expr) -> Role {
        match expr.kind {
            ExprKind::Column(index) => self.roles[index],
            _ => Role::Plain,
        }
    }

    pub fn with_role(&self, role: Role) -> Option<usize> {
        self.roles.iter().position(|found| *found == role)
    }

    /// From an expression over the output to one over the base.
    pub fn over_base(&self, expr: Expr) -> Expr {
        expr.substitute(&self.columns)
    }

    /// Replaces the output columns by expressions over them.
    pub fn project(&mut self, exprs: Vec<Expr>, names: Vec<Field>, graph: &mut Graph) -> Result<(), PlannerError> {
        let mut uses = vec![0; self.columns.len()];
        exprs.iter().for_each(|expr| expr.visit_columns(&mut |column| uses[column] += 1));
        if uses.iter().zip(&self.columns).any(|(uses, column)| *uses > 1 && !is_cheap(column)) {
            self.make(graph)?;
        }
        self.columns = exprs.into_iter().map(|expr| self.over_base(expr)).collect();
        self.names = names;
        Ok(())
    }

    /// Keeps the rows for which `predicate`, over the output, is TRUE.
    pub fn restrict(&mut self, predicate: Expr, graph: &mut Graph) -> Result<(), PlannerError> {
        let mut repeats = false;
        predicate.visit_columns(&mut |column| repeats |= !is_cheap(&self.columns[column]));
        if repeats {
            self.make(graph)?;
        }
        let predicate = self.over_base(predicate);
        self.filter = Some(match self.filter.take() {
            Some(below) => Expr::binary(BinaryOp::And, below, predicate, DataType::Boolean),
            None => predicate,
        });
        Ok(())
    }

    /// Makes operators of everything pending; the output columns are the ports' then, in order (carried ones behind).
    /// Fails only where that would need the rows of a SESSION as they are: they have no windows yet.
    pub fn make(&mut self, graph: &mut Graph) -> Result<(), PlannerError> {
        self.make_assign(graph)?;
        let mut columns = std::mem::take(&mut self.columns);
        let visible = columns.len();
        let carry = self.carry.take().map(|carry| {
            let place = |base: &usize| {
                let expr = Expr::column(*base, self.base.fields[*base].ty.clone());
                let found = columns.iter().position(|column| *column == expr);
                found.unwrap_or_else(|| {
                    columns.push(expr);
                    self.names.push(self.base.fields[*base].clone());
                    columns.len() - 1
                })
            };
            Carry { table: carry.table, columns: carry.columns.iter().map(place).collect::<Vec<_>>() }
        });
        let roles: Vec<Role> = columns.iter().map(|column| self.role_of(column)).collect();
        let schema = Schema::new(
            columns.iter().zip(&self.names).map(|(e, n)| Field::new(&n.name, e.ty.clone(), n.nullable)).collect(),
        );
        if self.filter.is_some() || columns != identity(&self.base) {
            let mut project = columns;
            if self.changelog {
                project.push(Expr::column(self.base.len(), DataType::Int8));
            }
            let calc = Calc { filter: self.filter.take(), project };
            self.ports =
                vec![graph.add(OperatorKind::Calc(calc), vec![self.ports.clone()], schema.clone(), self.changelog)];
        }
        self.columns = identity(&schema);
        self.columns.truncate(visible);
        self.names.truncate(visible);
        self.roles = roles;
        self.base = schema;
        self.carry = carry;
        Ok(())
    }

    /// Makes an input with a column for each of `exprs` (over the base; no pending assignment), filtered. Plain columns
    /// keep the base's order, so that it makes no difference to the positions whether a Calc was needed.
    pub fn make_columns(mut self, exprs: &[(Expr, Field)], graph: &mut Graph) -> Result<Made, PlannerError> {
        debug_assert!(self.assign.is_none() || exprs.iter().all(|(expr, _)| below(expr, self.delivered())));
        self.drop_assign();
        let mut plain: BTreeSet<usize> = exprs.iter().filter_map(|(expr, _)| column_of(expr)).collect();
        if let Some(carry) = &self.carry {
            plain.extend(&carry.columns);
        }
        if plain.is_empty() && exprs.is_empty() && !self.base.is_empty() {
            // Rows must have a column to be counted by.
            plain.insert(0);
        }
        let mut made: Vec<Expr> =
            plain.iter().map(|index| Expr::column(*index, self.base.fields[*index].ty.clone())).collect();
        let mut names: Vec<Field> = plain.iter().map(|index| self.base.fields[*index].clone()).collect();
        let mut at = Vec::with_capacity(exprs.len());
        for (expr, name) in exprs {
            let found = made.iter().position(|column| column == expr);
            at.push(found.unwrap_or_else(|| {
                made.push(expr.clone());
                names.push(name.clone());
                made.len() - 1
            }));
        }
        self.columns = made;
        self.names = names;
        self.make(graph)?;
        Ok(Made { ports: self.ports, schema: self.base, at, carry: self.carry })
    }

    /// The pending window assignment as an operator, over the columns that are needed.
    fn make_assign(&mut self, graph: &mut Graph) -> Result<(), PlannerError> {
        let Some(mut assign) = self.assign.take() else { return Ok(()) };
        if let Window::Session { .. } = assign.window {
            let message = "SESSION without GROUP BY window_start, window_end directly above it is not supported";
            let hint = "accepted: SELECT …, window_start, window_end FROM TABLE(SESSION(TABLE t PARTITION BY k, \
                        DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY k, window_start, window_end";
            return Err(PlannerError::new(message, assign.span).hint(hint));
        }
        let delivered = self.base.len() - 3;
        let mut needed = BTreeSet::new();
        self.columns.iter().chain(&self.filter).for_each(|expr| {
            expr.visit_columns(&mut |column| {
                needed.insert(column);
            });
        });
        if let Time::Event { column } = assign.time {
            needed.insert(column);
        }
        if let Some(carry) = &self.carry {
            needed.extend(&carry.columns);
        }
        needed.retain(|column| *column < delivered);
        if needed.is_empty() {
            needed.insert(0);
        }
        let kept: Vec<usize> = needed.into_iter().collect();
        // Where a base column goes: kept ones move up, the window columns stay the last three.
        let to = |column: usize| match kept.binary_search(&column) {
            Ok(at) => at,
            Err(_) => column + kept.len() - delivered,
        };
        let mut below = Rel::of(self.ports.clone(), Schema::new(self.base.fields[..delivered].to_vec()), false);
        below.columns = kept.iter().map(|i| Expr::column(*i, self.base.fields[*i].ty.clone())).collect();
        below.names = kept.iter().map(|i| self.base.fields[*i].clone()).collect();
        below.make(graph)?;
        if let Time::Event { column } = &mut assign.time {
            *column = to(*column);
        }
        let mut fields = below.base.fields.clone();
        fields.extend_from_slice(&self.base.fields[delivered..]);
        let mut roles: Vec<Role> = kept.iter().map(|i| self.roles[*i]).collect();
        roles.extend_from_slice(&self.roles[delivered..]);
        let kind = OperatorKind::WindowAssign(WindowAssign { window: assign.window, time: assign.time });
        self.base = Schema::new(fields);
        self.roles = roles;
        self.ports = vec![graph.add(kind, vec![below.ports], self.base.clone(), false)];
        self.columns = std::mem::take(&mut self.columns).into_iter().map(|expr| expr.map_columns(&to)).collect();
        self.filter = self.filter.take().map(|filter| filter.map_columns(&to));
        if let Some(carry) = &mut self.carry {
            carry.columns.iter_mut().for_each(|column| *column = to(*column));
        }
        Ok(())
    }

    /// The pending assignment becomes an aggregate's business.
    fn drop_assign(&mut self) {
        if self.assign.take().is_some() {
            let delivered = self.base.len() - 3;
            self.base.fields.truncate(delivered);
            self.roles.truncate(delivered);
        }
    }
}

/// Uses none of the base columns from `limit` on.
pub fn below(expr: &Expr, limit: usize) -> bool {
    let mut all = true;
    expr.visit_columns(&mut |column| all &= column < limit);
    all
}

pub fn column_of(expr: &Expr) -> Option<usize> {
    match expr.kind {
        ExprKind::Column(index) => Some(index),
        _ => None,
    }
}

pub fn identity(schema: &Schema) -> Vec<Expr> {
    schema.fields.iter().enumerate().map(|(i, field)| Expr::column(i, field.ty.clone())).collect()
}
