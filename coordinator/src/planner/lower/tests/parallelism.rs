//! Planned again with other parallelism: what keeps its id, and the parallelism of single operators.

use super::*;
use crate::planner::PlannerError;
use ef_proto::ids::OperatorId;
use ef_proto::plan::{Operator, Plan};

const GROUPED: &str = "SELECT device_id, COUNT(*) AS n FROM nab GROUP BY device_id;";
const TUMBLED: &str = "SELECT device_id, COUNT(*) AS n FROM TABLE(TUMBLE(TABLE nab, DESCRIPTOR(ts), INTERVAL '1' HOUR)) \
                       GROUP BY device_id, window_start, window_end;";

/// With the results in a table, which any number of subtasks may write.
fn written(query: &str) -> String {
    format!("{SENSOR} CREATE TABLE o (d STRING, n BIGINT) WITH ('connector' = 'blackhole'); INSERT INTO o {query}")
}

fn overridden(sql: &str, parallelism: u32, overrides: &[(OperatorId, u32)]) -> Result<Plan, PlannerError> {
    let overrides = overrides.iter().copied().collect();
    plan(
        sql,
        &BTreeMap::new(),
        PlanOptions { name: "test".into(), parallelism: Some(parallelism), overrides },
        &NoModels,
    )
}

#[track_caller]
fn operator<'a>(plan: &'a Plan, name: &str) -> &'a Operator {
    let found = plan.operators.iter().find(|op| op.name.starts_with(name));
    found.unwrap_or_else(|| panic!("no {name}:\n{}", text(plan)))
}

/// (name up to the bracket, parallelism) of each operator but Calcs, sources first.
fn widths(plan: &Plan) -> Vec<(&str, u32)> {
    let kind = |name: &str| name.find('(').unwrap_or(name.len());
    let operators = plan.operators.iter().filter(|op| op.kind.name() != "Calc");
    operators.map(|op| (&op.name[..kind(&op.name)], op.parallelism)).collect()
}

#[test]
fn stateful_operators_keep_their_ids_at_any_parallelism() {
    let hop =
        TUMBLED.replace("TUMBLE(TABLE nab, DESCRIPTOR(ts),", "HOP(TABLE nab, DESCRIPTOR(ts), INTERVAL '5' MINUTE,");
    let session = TUMBLED.replace("TUMBLE(TABLE nab,", "SESSION(TABLE nab PARTITION BY device_id,");
    for sql in [
        format!("{SENSOR} {TUMBLED}"),
        format!("{SENSOR} {hop}"),
        format!("{SENSOR} {session}"),
        format!("{SENSOR} {GROUPED}"),
        format!("{NEXMARK} {Q8}"),
        format!("{NEXMARK} {Q5}"),
    ] {
        let stateful = |parallelism| -> Vec<(OperatorId, &'static str)> {
            let plan = planned(&sql, parallelism);
            let lasting = plan.operators.iter().filter(|op| match &op.kind {
                OperatorKind::WindowAggregate(window) => window.phase != Phase::Local,
                kind => !matches!(kind.name(), "Calc" | "WindowAssign"),
            });
            lasting.map(|op| (op.id, op.kind.name())).collect()
        };
        let one = stateful(1);
        assert!(one.len() >= 3, "{one:?}");
        assert_eq!([stateful(2), stateful(5)], [one.clone(), one], "{sql}");
    }
}

#[test]
fn an_override_is_of_one_operator_and_what_follows_it() {
    let sql = written(GROUPED);
    let plain = overridden(&sql, 2, &[]).unwrap();
    assert_eq!(widths(&plain), [("Source", 2), ("GroupAggregate", 2), ("Sink", 2)]);
    let (source, group) = (operator(&plain, "Source").id, operator(&plain, "GroupAggregate").id);
    let plan = overridden(&sql, 2, &[(group, 7)]).unwrap();
    assert_eq!(widths(&plan), [("Source", 2), ("GroupAggregate", 7), ("Sink", 7)]);
    let edge = plan.inputs_of(group).next().unwrap();
    assert!(matches!(edge.exchange, Exchange::Hash(_)), "{edge:?}");
    let plan = overridden(&sql, 2, &[(group, 7), (source, 1)]).unwrap();
    assert_eq!(widths(&plan), [("Source", 1), ("GroupAggregate", 7), ("Sink", 7)]);
    assert_eq!(
        plan.operators.iter().map(|op| op.id).collect::<Vec<_>>(),
        plain.operators.iter().map(|op| op.id).collect::<Vec<_>>()
    );
    // The job's own parallelism may change under it.
    assert_eq!(widths(&overridden(&sql, 4, &[(group, 7)]).unwrap())[0], ("Source", 4));
}

#[test]
fn the_local_phase_has_as_many_subtasks_as_its_input() {
    let sql = written(TUMBLED);
    let plain = overridden(&sql, 2, &[]).unwrap();
    let (source, global) = (operator(&plain, "Source").id, operator(&plain, "GlobalWindowAggregate").id);
    let widths = |overrides: &[(OperatorId, u32)]| {
        let plan = overridden(&sql, 2, overrides).unwrap();
        ["Source", "LocalWindowAggregate", "GlobalWindowAggregate"].map(|name| operator(&plan, name).parallelism)
    };
    assert_eq!(widths(&[(global, 5)]), [2, 2, 5]);
    assert_eq!(widths(&[(source, 3)]), [3, 3, 2]);
    assert_eq!(widths(&[(source, 3), (global, 1)]), [3, 3, 1]);
}

#[test]
fn rows_that_are_only_inserted_may_be_dealt_to_a_sink_of_its_own_parallelism() {
    let sql = written("SELECT device_id, CAST(`value` AS BIGINT) FROM nab;");
    let sink = operator(&overridden(&sql, 2, &[]).unwrap(), "Sink").id;
    let plan = overridden(&sql, 2, &[(sink, 3)]).unwrap();
    assert_eq!(plan.inputs_of(sink).next().unwrap().exchange, Exchange::Rebalance);
    assert_eq!(operator(&plan, "Sink").parallelism, 3);
}

#[test]
fn an_override_that_cannot_be_kept_is_refused_by_the_operators_name() {
    let total = format!("{SENSOR} SELECT COUNT(*) FROM nab;");
    let (grouped, tumbled) = (written(GROUPED), written(TUMBLED));
    let table: &[(&str, &str, u32, &str)] = &[
        (&total, "GroupAggregate", 2, "without keys all rows meet in one subtask"),
        (&total, "Sink(stdout)", 2, "standard output is written by one subtask"),
        (&grouped, "Source(nab)", 0, "accepted: 1 to 128"),
        (&grouped, "GroupAggregate", 129, "there are 128 key groups"),
        (&grouped, "Sink(o)", 3, "accepted: 1 or 2"),
        (&tumbled, "LocalWindowAggregate", 2, "is the local phase of WindowAggregate(TUMBLE(1 h) by device_id)"),
    ];
    for (sql, name, parallelism, expected) in table {
        let id = operator(&overridden(sql, 2, &[]).unwrap(), name).id;
        let error = overridden(sql, 2, &[(id, *parallelism)]).unwrap_err().to_string();
        let named = error.contains(name) || *name == "LocalWindowAggregate";
        assert!(error.contains(expected) && error.contains(&id.to_string()) && named, "{error}");
    }
    for (sql, name) in [(&total, "GroupAggregate"), (&total, "Sink(stdout)"), (&grouped, "Sink(o)")] {
        let id = operator(&overridden(sql, 2, &[]).unwrap(), name).id;
        let one = overridden(sql, 2, &[(id, 1)]).unwrap();
        assert_eq!(operator(&one, name).parallelism, 1);
    }
    let error = overridden(&grouped, 2, &[(OperatorId(7), 2)]).unwrap_err().to_string();
    assert!(error.contains("operator 0000000000000007 does not exist") && error.contains(" Source(nab), "), "{error}");
}
