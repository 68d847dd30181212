//! The front, from text to plans: what is accepted and what it means, what is refused, with which words and where.

mod casts;
mod errors;
mod functions;
mod kafka;
mod lookup;
mod nasty;
mod statements;
mod time;
mod types;

use super::{Bound, ModelInspector, PlanOptions, PlannerError, bind, plan};
use ef_proto::plan::{Model, OperatorKind, Plan};
use ef_proto::schema::Schema;
use std::collections::BTreeMap;

/// The tree model of the sensor demo, as an inspector would return it.
pub struct AnyModel;

impl ModelInspector for AnyModel {
    fn inspect(
        &self,
        path: &str,
        inputs: &Schema,
        outputs: &Schema,
        _: &BTreeMap<String, String>,
    ) -> Result<Model, String> {
        Ok(Model {
            name: "m".into(),
            provider: "onnx".into(),
            path: path.into(),
            digest: "0".into(),
            inputs: inputs.clone(),
            outputs: outputs.clone(),
            bindings: outputs.fields.iter().map(|field| field.name.clone()).collect(),
            batch_rows: 1024,
        })
    }
}

pub fn try_plan(sql: &str, parallelism: u32) -> Result<Plan, PlannerError> {
    plan(
        sql,
        &BTreeMap::new(),
        PlanOptions { name: "test".into(), parallelism: Some(parallelism), ..PlanOptions::default() },
        &AnyModel,
    )
}

#[track_caller]
pub fn planned(sql: &str, parallelism: u32) -> Plan {
    match try_plan(sql, parallelism) {
        Ok(plan) => {
            assert_eq!(Plan::decode(&plan.encode()).as_ref(), Ok(&plan), "crosses to a worker unchanged\n{sql}");
            plan
        }
        Err(error) => panic!("{error}\n{sql}"),
    }
}

#[track_caller]
pub fn refused(sql: &str) -> PlannerError {
    match try_plan(sql, 1) {
        Ok(plan) => panic!("accepted: {sql}\n{}", ef_proto::plan::text(&plan)),
        Err(error) => error,
    }
}

#[track_caller]
fn bound(sql: &str) -> Bound {
    match bind(sql, &BTreeMap::new(), &AnyModel) {
        Ok(bound) => bound,
        Err(error) => panic!("{error}\n{sql}"),
    }
}

pub fn kinds<'a>(plan: &'a Plan, name: &'a str) -> Vec<&'a OperatorKind> {
    plan.operators.iter().map(|op| &op.kind).filter(|kind| kind.name() == name).collect()
}

/// A source with event time, processing time, metadata and a nested column; its sink `o`.
const TABLES: &str = "CREATE TABLE s (
  k STRING, ts TIMESTAMP(3), v DOUBLE, n INT,
  place ROW<site STRING, spot ROW<x DOUBLE, y DOUBLE>>, tags ARRAY<STRING>, props MAP<STRING, INT>,
  twice AS v * 2, p AS PROCTIME(),
  WATERMARK FOR ts AS ts - INTERVAL '1' SECOND
) WITH ('connector' = 'filesystem', 'path' = 's.ndjson', 'format' = 'json');
CREATE TABLE o (k STRING, n BIGINT) WITH ('connector' = 'blackhole');
";
