//! Whether a checkpoint fits the job that is to go on from it.

use super::{Manifests, Result, fit};
use ef_proto::checkpoint::Manifest;
use ef_proto::error::Error;
use ef_proto::plan::Plan;
use ef_store::Created;
use serde_json::json;

/// Refuses a checkpoint with state that the plan has no operator for, and one of another number of key groups.
pub fn check(manifest: &Manifest, plan: &Plan) -> Result<()> {
    if manifest.max_parallelism != plan.max_parallelism {
        let (was, is) = (manifest.max_parallelism, plan.max_parallelism);
        return Err(Error::invalid(format!(
            "the checkpoint was taken with a maximum parallelism of {was}, and the job now has {is}; it cannot change"
        )));
    }
    let lost: Vec<String> =
        fit::lost(manifest, plan).map(|operator| format!("`{}` ({})", operator.name, operator.id)).collect();
    if lost.is_empty() {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "checkpoint {} holds state of operators that the SQL no longer has: {}; run the SQL it was taken with, or start without it with --fresh",
        manifest.epoch,
        lost.join(", ")
    )))
}

impl Manifests {
    /// Notes at the first start which job this directory belongs to; later, checks that `restore` fits `plan`.
    pub async fn check_or_create_job(&self, plan: &Plan, restore: Option<&Manifest>, now_ms: i64) -> Result<()> {
        if let Some(manifest) = restore {
            return check(manifest, plan);
        }
        let operators: serde_json::Map<_, _> =
            plan.operators.iter().map(|operator| (operator.id.to_string(), json!(operator.name))).collect();
        let job = json!({ "job": self.job.0, "name": plan.name, "created_at_ms": now_ms, "operators": operators });
        let bytes = format!("{job:#}\n").into_bytes();
        match self.root.create("job.json", bytes.into()).await? {
            Created::Ours => self.sync("job.json"),
            // It exists after a start that completed no checkpoint: nothing can be lost by another SQL.
            Created::Theirs => Ok(()),
        }
    }
}
