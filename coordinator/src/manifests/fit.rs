//! Which operator of a plan takes over which state of a savepoint, and whether all of it finds a place. Pure.

use super::{Result, describe};
use ef_proto::checkpoint::{Manifest, OperatorState};
use ef_proto::error::Error;
use ef_proto::plan::{OperatorKind, Plan};
use ef_proto::wire::generated::control::StateMapping;

/// One line for every operator that has state or may have: those of the plan in its order, then those whose state has
/// no place any more.
pub fn mapping(manifest: &Manifest, plan: &Plan) -> Vec<StateMapping> {
    let mut mapping = Vec::new();
    for operator in &plan.operators {
        let old = manifest.operators.iter().find(|old| old.id == operator.id);
        if !old.map_or(keeps_state(&operator.kind), |old| keeps_state(&operator.kind) || has_state(old)) {
            continue;
        }
        mapping.push(StateMapping {
            operator: operator.id.to_string(),
            name: operator.name.clone(),
            old_parallelism: old.map_or(0, |old| old.parallelism),
            new_parallelism: operator.parallelism,
            bytes: old.map_or(0, describe::bytes),
            starts_empty: old.is_none(),
        });
    }
    mapping.extend(lost(manifest, plan).map(|old| StateMapping {
        operator: old.id.to_string(),
        name: old.name.clone(),
        old_parallelism: old.parallelism,
        new_parallelism: 0,
        bytes: describe::bytes(old),
        starts_empty: false,
    }));
    mapping
}

/// Refuses a savepoint of another number of key groups, and one with state that the plan has no operator for unless
/// that may be left behind.
pub fn check(manifest: &Manifest, plan: &Plan, allow_non_restored: bool) -> Result<()> {
    if manifest.max_parallelism != plan.max_parallelism {
        let (was, is) = (manifest.max_parallelism, plan.max_parallelism);
        return Err(Error::invalid(format!(
            "the savepoint was taken with a maximum parallelism of {was}, and the job has {is}; it cannot change: SET \
             'pipeline.max-parallelism' = '{was}'"
        )));
    }
    let lost: Vec<String> = lost(manifest, plan).map(|old| format!("`{}` ({})", old.name, old.id)).collect();
    if lost.is_empty() || allow_non_restored {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the savepoint of epoch {} holds state of operators that the job does not have: {}; submit the SQL it was \
         taken with, or leave that state behind with --allow-non-restored-state",
        manifest.epoch,
        lost.join(", ")
    )))
}

/// State that the plan has no operator for.
pub(super) fn lost<'a>(manifest: &'a Manifest, plan: &'a Plan) -> impl Iterator<Item = &'a OperatorState> {
    manifest.operators.iter().filter(|old| has_state(old) && plan.operator(old.id).is_none())
}

fn has_state(operator: &OperatorState) -> bool {
    operator.subtasks.iter().any(|subtask| !subtask.keyed.is_empty() || !subtask.blob.is_empty())
}

fn keeps_state(kind: &OperatorKind) -> bool {
    match kind {
        OperatorKind::Source(_) | OperatorKind::Sink(_) => true,
        OperatorKind::WindowAggregate(_) | OperatorKind::GroupAggregate(_) | OperatorKind::WindowJoin(_) => true,
        OperatorKind::Calc(_) | OperatorKind::WindowAssign(_) | OperatorKind::Predict(_) => false,
        OperatorKind::LookupJoin(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifests::tests::{file, manifest};
    use ef_proto::ids::OperatorId;
    use ef_proto::plan::{Calc, GroupAggregate, Operator};
    use std::collections::BTreeMap;

    fn plan(operators: &[(u64, OperatorKind, u32)]) -> Plan {
        let operator = |(id, kind, parallelism): &(u64, OperatorKind, u32)| Operator {
            id: OperatorId(*id),
            name: format!("op {id}"),
            kind: kind.clone(),
            parallelism: *parallelism,
            schema: ef_proto::schema::Schema::new(Vec::new()),
            constraint: Default::default(),
        };
        Plan {
            name: "job".into(),
            operators: operators.iter().map(operator).collect(),
            edges: Vec::new(),
            max_parallelism: 128,
            config: BTreeMap::new(),
        }
    }

    fn calc() -> OperatorKind {
        OperatorKind::Calc(Calc { filter: None, project: Vec::new() })
    }

    fn aggregate() -> OperatorKind {
        let keys = Vec::new();
        OperatorKind::GroupAggregate(GroupAggregate { keys, aggregates: Vec::new(), retracting: false, ttl_ms: None })
    }

    #[test]
    fn state_goes_to_the_operator_of_its_id_whatever_its_parallelism() {
        let held = manifest(5, 1, [file(1, 5, "a")]);
        let plan = plan(&[(1, calc(), 1), (7, aggregate(), 4), (8, aggregate(), 2)]);
        let mapping = mapping(&held, &plan);
        let of = |id: u64| mapping.iter().find(|m| m.operator == OperatorId(id).to_string());
        let line = of(7).expect("it has state");
        assert_eq!((line.old_parallelism, line.new_parallelism, line.bytes, line.starts_empty), (1, 4, 3, false));
        let line = of(8).expect("it may have state");
        assert_eq!((line.old_parallelism, line.new_parallelism, line.bytes, line.starts_empty), (0, 2, 0, true));
        assert!(of(1).is_none(), "a filter has no state");
        assert_eq!(check(&held, &plan, false), Ok(()));
    }

    #[test]
    fn state_without_an_operator_is_refused_by_name_or_left_behind() {
        let held = manifest(5, 1, [file(1, 5, "a")]);
        let plan = plan(&[(8, aggregate(), 2)]);
        assert_eq!(mapping(&held, &plan).last().map(|m| (m.new_parallelism, m.bytes)), Some((0, 3)));
        let error = check(&held, &plan, false).expect_err("it would be lost");
        assert!(error.message.contains("WindowAggregate(by key)"), "{error}");
        assert!(error.message.contains("--allow-non-restored-state"), "{error}");
        assert_eq!(check(&held, &plan, true), Ok(()));
        assert_eq!(check(&manifest(5, 1, []), &plan, false), Ok(()), "nothing would be lost");
        let other = Plan { max_parallelism: 64, ..plan };
        assert!(check(&held, &other, true).expect_err("other key groups").message.contains("128"));
    }
}
