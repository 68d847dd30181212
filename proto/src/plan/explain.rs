//! Plans as text and as a dot graph.
use super::Plan;
pub fn text(plan: &Plan) -> String { plan.name.clone() }
pub fn dot(plan: &Plan) -> String { plan.name.clone() }
