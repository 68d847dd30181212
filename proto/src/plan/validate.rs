//! The rules that every plan keeps.
use super::Plan;
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PlanError(pub String);
impl Plan { pub fn validate(&self) -> Result<(), PlanError> { Ok(()) } }
