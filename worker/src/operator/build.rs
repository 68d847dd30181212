//! The registry of operators: one arm each.

use super::Operator;
use super::calc::Calc;
use super::group_aggregate::GroupAggregate;
use super::predict::Predict;
use super::session::SessionAggregate;
use super::window_aggregate::WindowAggregate;
use super::window_assign::WindowAssign;
use super::window_join::WindowJoin;
use crate::error::{Code, Error, Result};
use ef_proto::plan::{OperatorKind, Window};
use ef_proto::schema::Schema;
use std::ops::Range;

/// One subtask of an operator. `inputs` by number; `output` is the schema of its main output.
pub fn build(
    kind: &OperatorKind,
    inputs: &[Schema],
    output: &Schema,
    max_parallelism: u16,
    key_groups: Range<u16>,
) -> Result<Box<dyn Operator>> {
    let input = |i: usize| inputs.get(i).ok_or_else(|| Error::new(Code::Internal, format!("input {i} is missing")));
    Ok(match kind {
        OperatorKind::Calc(spec) => Box::new(Calc::new(spec, input(0)?, output)?),
        OperatorKind::WindowAssign(spec) => Box::new(WindowAssign::new(spec, input(0)?, output)?),
        OperatorKind::WindowAggregate(spec) if matches!(spec.window, Window::Session { .. }) => {
            Box::new(SessionAggregate::new(spec, input(0)?, output, max_parallelism, key_groups)?)
        }
        OperatorKind::WindowAggregate(spec) => {
            Box::new(WindowAggregate::new(spec, input(0)?, output, max_parallelism, key_groups)?)
        }
        OperatorKind::GroupAggregate(spec) => Box::new(GroupAggregate::new(spec, input(0)?, output, max_parallelism)?),
        OperatorKind::WindowJoin(spec) => {
            Box::new(WindowJoin::new(spec, input(0)?, input(1)?, max_parallelism, key_groups)?)
        }
        OperatorKind::Predict(spec) => Box::new(Predict::new(spec, input(0)?, output)?),
        // It is given what looks rows up: `LookupJoin::new`.
        OperatorKind::LookupJoin(_) => {
            return Err(Error::new(Code::Internal, "a lookup join is built with its connector"));
        }
        OperatorKind::Source(_) | OperatorKind::Sink(_) => {
            return Err(Error::new(Code::Internal, "sources and sinks are connectors"));
        }
    })
}
