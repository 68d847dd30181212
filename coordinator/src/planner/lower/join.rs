//! Joins of two windowed inputs on equal windows. Everything else is rejected by name.

use super::expr::{self, span_of, to_type};
use super::rel::{Rel, Role, Windowing};
use super::{Lowering, takes_no_changelog};
use crate::planner::{PlannerError, Span};
use datafusion_common::{JoinType, NullEquality};
use datafusion_expr::{Expr as DfExpr, Join};
use ef_proto::expr::{BinaryOp, Expr, ExprKind, UnaryOp};
use ef_proto::plan::{JoinKind, OperatorKind, WindowJoin};
use ef_proto::schema::{DataType, Field, Schema};

impl Lowering<'_> {
    pub(super) fn join(&mut self, join: &Join) -> Result<Rel, PlannerError> {
        if let Some(right) = super::lookup::right(&join.right)? {
            return self.lookup_join(join, right);
        }
        let (kind, swapped) = match join.join_type {
            JoinType::Inner => (JoinKind::Inner, false),
            JoinType::Left => (JoinKind::Left, false),
            JoinType::Right => (JoinKind::Right, false),
            JoinType::Full => (JoinKind::Full, false),
            JoinType::LeftSemi => (JoinKind::Semi, false),
            JoinType::LeftAnti => (JoinKind::Anti, false),
            JoinType::RightSemi => (JoinKind::Semi, true),
            JoinType::RightAnti => (JoinKind::Anti, true),
            JoinType::LeftMark | JoinType::RightMark => {
                return Err(PlannerError::new("EXISTS or IN inside OR is not supported", span(join))
                    .hint("accepted: EXISTS, IN and their negations as a condition of their own in WHERE"));
            }
        };
        let (left_plan, right_plan) = if swapped { (&join.right, &join.left) } else { (&join.left, &join.right) };
        let (mut left, mut right) = (self.plan(left_plan)?, self.plan(right_plan)?);
        if left.changelog || right.changelog {
            return Err(takes_no_changelog("a join", span(join)));
        }
        if join.null_equality == NullEquality::NullEqualsNull {
            return Err(
                PlannerError::new("a join on IS NOT DISTINCT FROM is not supported", span(join)).hint("accepted: =")
            );
        }
        // A column that costs something and serves the join and its output is made once.
        self.made_if_costly(&mut left)?;
        self.made_if_costly(&mut right)?;
        let (mut start, mut end) = (false, false);
        let mut pairs: Vec<(Expr, Expr)> = Vec::new();
        for (l, r) in &join.on {
            let (l, r) = if swapped { (r, l) } else { (l, r) };
            let (l, r) = (expr::lower(l, left_plan.schema())?, expr::lower(r, right_plan.schema())?);
            let (l, r) = (left.over_base(l), right.over_base(r));
            match (left.role_of(&l), right.role_of(&r)) {
                (Role::Start, Role::Start) => start = true,
                (Role::End, Role::End) => end = true,
                (Role::WindowTime, Role::WindowTime) => {}
                _ => pairs.push((l, r)),
            }
        }
        let windowing = check_windows(join, &left, &right, start && end)?;
        let mut filter_on_nulls = None;
        if join.null_aware {
            // NOT IN: a pair excludes the left row unless it is surely different, so also when a side is NULL.
            let [_] = pairs.as_slice() else {
                return Err(PlannerError::new("NOT IN with more than one column is not supported", span(join))
                    .hint("accepted: NOT EXISTS"));
            };
            filter_on_nulls = pairs.pop();
        }
        let (left_window, right_window) = (window_columns(&left), window_columns(&right));
        let mut sides = [Side::of(left), Side::of(right)];
        let mut keys = Vec::with_capacity(pairs.len());
        for (l, r) in pairs {
            let r = to_type(r, &l.ty);
            keys.push((sides[0].push(l), sides[1].push(r)));
        }
        let nulls = filter_on_nulls.map(|(l, r)| {
            let r = to_type(r, &l.ty);
            (sides[0].push(l.clone()), sides[1].push(r), l.ty)
        });
        let windows = [sides[0].window(left_window), sides[1].window(right_window)];
        let [left, right] = sides;
        let (left_names, left_roles) = (left.rel.names.clone(), left.rel.roles.clone());
        let right_names = right.rel.names.clone();
        let (left_columns, right_columns) = (left.rel.columns.clone(), right.rel.columns.clone());
        let right_roles = right.rel.roles.clone();
        let left = left.make(self)?;
        let right = right.make(self)?;
        let width = left.schema.len();
        // Where the visible columns of both sides are in left columns then right columns.
        let visible: Vec<usize> = left.at[..left_columns.len()]
            .iter()
            .copied()
            .chain(right.at[..right_columns.len()].iter().map(|at| width + at))
            .collect();
        let both = Schema::new(left.schema.fields.iter().chain(&right.schema.fields).cloned().collect());
        let mut filter = match &join.filter {
            None => None,
            Some(filter) => {
                let mut joined = left_plan.schema().as_ref().clone();
                joined.merge(right_plan.schema());
                // Merging drops columns of equal name, which a filter cannot name apart either.
                let filter = to_type(expr::lower(filter, &joined)?, &DataType::Boolean);
                let place: Vec<usize> = joined
                    .iter()
                    .map(|(qualifier, field)| {
                        let find = |schema: &datafusion_common::DFSchema| {
                            schema.index_of_column_by_name(qualifier, field.name())
                        };
                        match find(left_plan.schema()) {
                            Some(index) => visible[index],
                            None => find(right_plan.schema()).map_or(0, |index| visible[left_columns.len() + index]),
                        }
                    })
                    .collect();
                let columns: Vec<Expr> =
                    place.iter().map(|at| Expr::column(*at, both.fields[*at].ty.clone())).collect();
                Some(filter.substitute(&columns))
            }
        };
        if let Some((l, r, ty)) = nulls {
            let equal = Expr::binary(
                BinaryOp::Eq,
                Expr::column(left.at[l], ty.clone()),
                Expr::column(width + right.at[r], ty),
                DataType::Boolean,
            );
            let kind = ExprKind::Unary { op: UnaryOp::IsNotFalse, input: Box::new(equal) };
            let matches = Expr { kind, ty: DataType::Boolean };
            filter = Some(match filter {
                Some(filter) => Expr::binary(BinaryOp::And, filter, matches, DataType::Boolean),
                None => matches,
            });
        }
        let left_window = (left.at[windows[0].0], left.at[windows[0].1]);
        let right_window = (right.at[windows[1].0], right.at[windows[1].1]);
        let node = OperatorKind::WindowJoin(WindowJoin {
            kind,
            keys: keys.into_iter().map(|(l, r)| (left.at[l], right.at[r])).collect(),
            left_window,
            right_window,
            filter,
        });
        let half = matches!(kind, JoinKind::Semi | JoinKind::Anti);
        let mut schema = if half { left.schema.clone() } else { both };
        for (i, field) in schema.fields.iter_mut().enumerate() {
            field.nullable |= match kind {
                JoinKind::Left => i >= width,
                JoinKind::Right => i < width,
                JoinKind::Full => true,
                _ => false,
            };
        }
        let port = self.graph.add(node, vec![left.ports, right.ports], schema.clone(), false);
        let mut out = Rel::of(vec![port], schema, false);
        let count = if half { left_columns.len() } else { visible.len() };
        out.columns = visible[..count].iter().map(|at| Expr::column(*at, out.base.fields[*at].ty.clone())).collect();
        out.names = left_names.into_iter().chain(right_names).take(count).collect();
        for (i, name) in out.names.iter_mut().enumerate() {
            name.nullable |= out.base.fields[visible[i]].nullable;
        }
        // The windows of the side that is always there are the row's windows.
        let (columns, roles, first) = match kind {
            JoinKind::Right => (&right_columns, &right_roles, left_columns.len()),
            _ => (&left_columns, &left_roles, 0),
        };
        if kind != JoinKind::Full {
            for (i, column) in columns.iter().enumerate() {
                if let ExprKind::Column(base) = column.kind {
                    let role = roles[base];
                    out.roles[visible[first + i]] = if role == Role::Rowtime { Role::Plain } else { role };
                }
            }
            out.windowing = Some(windowing);
        }
        Ok(out)
    }

    fn made_if_costly(&mut self, rel: &mut Rel) -> Result<(), PlannerError> {
        if rel.assign.is_some() || rel.columns.iter().any(|column| !expr::is_cheap(column)) {
            rel.make(&mut self.graph)?;
        }
        Ok(())
    }
}

/// One input: its visible columns, then what else the join needs.
struct Side {
    rel: Rel,
    wanted: Vec<(Expr, Field)>,
}

impl Side {
    fn of(mut rel: Rel) -> Side {
        rel.carry = None;
        let wanted = rel.columns.iter().cloned().zip(rel.names.iter().cloned()).collect();
        Side { rel, wanted }
    }

    /// The place of this expression among the wanted ones.
    fn push(&mut self, expr: Expr) -> usize {
        let found = self.wanted.iter().position(|(wanted, _)| *wanted == expr);
        found.unwrap_or_else(|| {
            let name = match expr.kind {
                ExprKind::Column(index) => self.rel.base.fields[index].clone(),
                _ => Field::new("join key", expr.ty.clone(), true),
            };
            self.wanted.push((expr, name));
            self.wanted.len() - 1
        })
    }

    fn window(&mut self, (start, end): (usize, usize)) -> (usize, usize) {
        let column = |rel: &Rel, index: usize| Expr::column(index, rel.base.fields[index].ty.clone());
        let (start, end) = (column(&self.rel, start), column(&self.rel, end));
        (self.push(start), self.push(end))
    }

    fn make(self, lowering: &mut Lowering) -> Result<super::rel::Made, PlannerError> {
        self.rel.make_columns(&self.wanted, &mut lowering.graph)
    }
}

fn window_columns(rel: &Rel) -> (usize, usize) {
    let place = |role| rel.with_role(role).expect("checked to carry windows");
    (place(Role::Start), place(Role::End))
}

fn check_windows(join: &Join, left: &Rel, right: &Rel, equal: bool) -> Result<Windowing, PlannerError> {
    let (Some(l), Some(r), true) = (&left.windowing, &right.windowing, equal) else {
        let what = if join.on.is_empty() && join.filter.is_none() { "a cross join" } else { "a regular join" };
        return Err(PlannerError::new(format!("{what} is not supported"), span(join)).hint(
            "accepted: a join of two inputs with windows ON l.window_start = r.window_start AND l.window_end = r.window_end AND …",
        ));
    };
    if l.window != r.window {
        let message = format!("a window join of different windows: {} and {}", l.window, r.window);
        return Err(PlannerError::new(message, span(join)).hint("accepted: the same window function on both sides"));
    }
    if l.processing || r.processing {
        return Err(PlannerError::new("a window join on processing time is not supported", span(join))
            .hint("accepted: windows over a column with a WATERMARK"));
    }
    Ok(l.clone())
}

pub(super) fn span(join: &Join) -> Span {
    let sides = join.on.iter().flat_map(|(l, r): &(DfExpr, DfExpr)| [l, r]).chain(&join.filter);
    sides.map(span_of).find(Span::is_known).unwrap_or(Span::UNKNOWN)
}
