//! The jobs that are run: SQL through the real planner, and what their sinks must hold in the end, recomputed naively.
//!
//! Rows are numbers made from (split, sequence). Operators are simulated by their kind; what an expression would say is
//! of no interest here: a filter keeps two rows of three.

use ef_coordinator::planner::{self, ModelInspector, PlanOptions};
use ef_proto::ids::OperatorId;
use ef_proto::keys::{hash_u64, key_group};
use ef_proto::plan::{Model, OperatorKind, Plan, Tasks};
use ef_proto::schema::Schema;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Each source has so many splits, whatever its parallelism.
pub const SPLITS: u32 = 6;
const KEYS: u64 = 11;
/// Between two rows of a split.
const ROW_MS: i64 = 100;
pub const WINDOW_MS: i64 = 1_000;
pub const END_OF_TIME: i64 = i64::MAX;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    pub key: u32,
    pub split: u32,
    pub seq: u32,
    pub count: u32,
    /// Event time, and behind a window its number.
    pub time: i64,
    pub sum: u64,
}

pub fn row(split: u32, seq: u32) -> Row {
    let hash = hash_u64((u64::from(split) << 32) | u64::from(seq));
    let time = i64::from(seq) * ROW_MS + i64::from(split) * 7;
    Row { key: (hash % KEYS) as u32, split, seq, count: 1, time, sum: hash >> 40 }
}

pub fn keeps(row: &Row) -> bool {
    !row.sum.is_multiple_of(3)
}

pub fn group_of(key: u32, max_parallelism: u16) -> u16 {
    key_group(hash_u64(u64::from(key)), max_parallelism)
}

/// What a region does with its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Passes them on.
    Copies,
    /// Counts them by key: each row is answered by its key's new count, and in the end each key by its sum.
    Counts,
    /// Counts them by key and window.
    Windows,
}

/// A plan with what is derived from it.
#[derive(Debug)]
pub struct Planned {
    pub plan: Plan,
    pub tasks: Tasks,
    pub bytes: Vec<u8>,
}

impl Planned {
    fn new(plan: Plan) -> Planned {
        Planned { tasks: plan.tasks(), bytes: plan.encode(), plan }
    }

    pub fn region_of(&self, operator: OperatorId) -> u32 {
        self.tasks.of(operator).map_or(0, |task| task.region)
    }

    fn kinds(&self, region: u32) -> impl Iterator<Item = &OperatorKind> {
        self.plan.operators.iter().filter(move |op| self.region_of(op.id) == region).map(|op| &op.kind)
    }

    /// A region's table, its shape, and whether it filters.
    pub fn pipeline(&self, region: u32) -> (&str, Shape, bool) {
        let (mut table, mut shape, mut filters) = ("", Shape::Copies, false);
        for kind in self.kinds(region) {
            match kind {
                OperatorKind::Sink(sink) => table = &sink.table,
                OperatorKind::GroupAggregate(_) => shape = Shape::Counts,
                OperatorKind::WindowAggregate(_) => shape = Shape::Windows,
                OperatorKind::Calc(calc) => filters |= calc.filter.is_some(),
                _ => {}
            }
        }
        (table, shape, filters)
    }

    pub fn source_of(&self, region: u32) -> Option<OperatorId> {
        let is_source = |kind: &OperatorKind| matches!(kind, OperatorKind::Source(_));
        let source = self.plan.operators.iter().find(|op| self.region_of(op.id) == region && is_source(&op.kind));
        source.map(|op| op.id)
    }
}

/// What a region's sink holds once its source has ended behind `upto` rows of each split.
pub fn expected(shape: Shape, filters: bool, upto: &[u32]) -> Vec<Row> {
    let rows = (0..).zip(upto).flat_map(|(split, upto)| (0..*upto).map(move |seq| row(split, seq)));
    let rows = rows.filter(|row| !filters || keeps(row));
    let mut out = Vec::new();
    match shape {
        Shape::Copies => out.extend(rows),
        Shape::Counts => {
            let mut counts: BTreeMap<u32, (u32, u64)> = BTreeMap::new();
            for row in rows {
                let (count, sum) = counts.entry(row.key).or_default();
                (*count, *sum) = (*count + 1, *sum + row.sum);
                out.push(Row { key: row.key, count: *count, ..Row::default() });
            }
            let total = |(key, (count, sum))| Row { key, count, sum, time: END_OF_TIME, ..Row::default() };
            out.extend(counts.into_iter().map(total));
        }
        Shape::Windows => {
            let mut windows: BTreeMap<(u32, i64), (u32, u64)> = BTreeMap::new();
            for row in rows {
                let (count, sum) = windows.entry((row.key, row.time / WINDOW_MS)).or_default();
                (*count, *sum) = (*count + 1, *sum + row.sum);
            }
            let fired = |((key, time), (count, sum))| Row { key, count, sum, time, ..Row::default() };
            out.extend(windows.into_iter().map(fired));
        }
    }
    out.sort_unstable();
    out
}

const COPIES: &str = "
CREATE TABLE a (k BIGINT, v BIGINT) WITH ('connector' = 'datagen');
CREATE TABLE copies (k BIGINT, v BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO copies SELECT k, v FROM a;
";

const COUNTS: &str = "
CREATE TABLE b (k BIGINT, v BIGINT) WITH ('connector' = 'datagen');
CREATE TABLE counts (k BIGINT, n BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO counts SELECT k, COUNT(*) FROM b WHERE v > 3 GROUP BY k;
";

const WINDOWS: &str = "
CREATE TABLE c (k BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) WITH ('connector' = 'datagen');
CREATE TABLE windows (k BIGINT, at TIMESTAMP(3), n BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO windows SELECT k, window_start, COUNT(*) FROM TABLE(TUMBLE(TABLE c, DESCRIPTOR(ts), INTERVAL '1' SECOND))
GROUP BY k, window_start, window_end;
";

/// Which statements a job consists of.
pub const PIPELINES: [&[&str]; 5] =
    [&[COUNTS, COPIES], &[COUNTS, WINDOWS], &[WINDOWS, COPIES], &[COUNTS, COPIES, WINDOWS], &[WINDOWS]];

/// How often checkpoints are taken, and how many of them may fail or stay.
pub const SETTINGS: [&str; 3] = [
    "SET 'execution.checkpointing.interval' = '300 ms';
     SET 'execution.checkpointing.timeout' = '3 s';
     SET 'execution.checkpointing.tolerable-failed-checkpoints' = '3';",
    "SET 'execution.checkpointing.interval' = '700 ms';
     SET 'execution.checkpointing.timeout' = '2 s';
     SET 'execution.checkpointing.num-retained' = '3';",
    "SET 'execution.checkpointing.interval' = '150 ms';
     SET 'execution.checkpointing.min-pause' = '50 ms';
     SET 'execution.checkpointing.timeout' = '5 s';
     SET 'execution.checkpointing.tolerable-failed-checkpoints' = '1';
     SET 'execution.checkpointing.num-retained' = '2';",
];

const COMMON: &str = "
SET 'pipeline.max-parallelism' = '16';
SET 'restart-strategy.exponential-delay.initial-backoff' = '100 ms';
SET 'restart-strategy.exponential-delay.max-backoff' = '800 ms';
";

pub fn sql(settings: usize, pipelines: usize) -> String {
    format!("{}{COMMON}{}", SETTINGS[settings], PIPELINES[pipelines].concat())
}

struct NoModels;

impl ModelInspector for NoModels {
    fn inspect(&self, _: &str, _: &Schema, _: &Schema, _: &BTreeMap<String, String>) -> Result<Model, String> {
        Err("there is no runtime".into())
    }
}

type Known = BTreeMap<(String, u32, BTreeMap<OperatorId, u32>), Arc<Planned>>;

/// Planning takes longer than a whole simulated minute: each plan is made once in a process. A cache of a pure function,
/// so that no seed notices another.
static PLANS: Mutex<Known> = Mutex::new(BTreeMap::new());
static DECODED: Mutex<BTreeMap<Vec<u8>, Arc<Planned>>> = Mutex::new(BTreeMap::new());

pub fn plan(sql: &str, parallelism: u32, overrides: &BTreeMap<OperatorId, u32>) -> Result<Arc<Planned>, String> {
    let key = (sql.to_string(), parallelism, overrides.clone());
    let mut plans = PLANS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(planned) = plans.get(&key) {
        return Ok(planned.clone());
    }
    let options = PlanOptions { name: "job".into(), parallelism: Some(parallelism), overrides: overrides.clone() };
    let plan = planner::plan(sql, &BTreeMap::new(), options, &NoModels).map_err(|e| e.to_string())?;
    let planned = Arc::new(Planned::new(plan));
    plans.insert(key, planned.clone());
    Ok(planned)
}

/// A plan as a worker is sent it.
pub fn decode(bytes: &[u8]) -> Arc<Planned> {
    let mut decoded = DECODED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(planned) = decoded.get(bytes) {
        return planned.clone();
    }
    let planned = Arc::new(Planned::new(Plan::decode(bytes).expect("the planner made it")));
    decoded.insert(bytes.to_vec(), planned.clone());
    planned
}
