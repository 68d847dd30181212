//! Window TVFs: a pending assignment over the input, which the GROUP BY above may take over.

use super::rel::{Assign, Rel, Role, Windowing};
use super::{Lowering, datafusion, fields, takes_no_changelog};
use crate::planner::nodes::TimeAttribute;
use crate::planner::{PlannerError, WindowTvf};
use ef_proto::expr::Expr;
use ef_proto::plan::{Time, Window};

impl Lowering<'_> {
    pub(super) fn window(&mut self, tvf: &WindowTvf) -> Result<Rel, PlannerError> {
        let mut rel = self.plan(&tvf.input)?;
        let name = window_name(&tvf.window);
        if rel.changelog {
            return Err(takes_no_changelog(name, tvf.span));
        }
        let column = tvf.time_index().map_err(datafusion)?;
        let role = rel.role(column);
        // Windows over windows of the processing clock close by that clock too.
        let processing = matches!(tvf.time, TimeAttribute::Processing(_))
            || role == Role::WindowTime && rel.windowing.as_ref().is_some_and(|windowing| windowing.processing);
        if !processing && !role.is_time() {
            let time = tvf.time.column();
            return Err(PlannerError::new(format!("{name}: `{}` is not a time attribute here", time.name), tvf.span).hint(
                "accepted: the column that WATERMARK FOR names, or window_time, passed on unchanged from the table or window",
            ));
        }
        // Time and keys must be columns of the base; the window columns of an earlier TVF become ordinary ones.
        let partition_by = tvf.partition_indices().map_err(datafusion)?;
        let plain = |rel: &Rel, column: &usize| super::rel::column_of(&rel.columns[*column]).is_some();
        if rel.assign.is_some() || !plain(&rel, &column) || !partition_by.iter().all(|key| plain(&rel, key)) {
            rel.make(&mut self.graph)?;
        }
        let in_base = |column: usize| super::rel::column_of(&rel.columns[column]).expect("made a column above");
        let time = if processing { Time::Processing } else { Time::Event { column: in_base(column) } };
        let partition_by = partition_by.into_iter().map(in_base).collect();
        for role in &mut rel.roles {
            if matches!(role, Role::Start | Role::End | Role::WindowTime) {
                *role = Role::Plain;
            }
        }
        let names = fields(&tvf.schema);
        for (field, role) in names[names.len() - 3..].iter().zip([Role::Start, Role::End, Role::WindowTime]) {
            rel.columns.push(Expr::column(rel.base.len(), field.ty.clone()));
            rel.base.fields.push(field.clone());
            rel.roles.push(role);
        }
        rel.names = names;
        rel.windowing = Some(Windowing { window: tvf.window.clone(), processing });
        rel.assign = Some(Assign { window: tvf.window.clone(), time, partition_by, span: tvf.span });
        Ok(rel)
    }
}

pub const fn window_name(window: &Window) -> &'static str {
    match window {
        Window::Tumble { .. } => "TUMBLE",
        Window::Hop { .. } => "HOP",
        Window::Cumulate { .. } => "CUMULATE",
        Window::Session { .. } => "SESSION",
        Window::Attached { .. } => "window",
    }
}
