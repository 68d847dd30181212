//! One operator of a planned job, out of its task: the rows that reach it, and calls as the task makes them. So that
//! a micro bench measures the code that runs, over the rows that it gets.

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMillisecondType;
use ef_client::embedded;
use ef_proto::ids::{Incarnation, SubtaskId};
use ef_proto::plan::{self, OperatorKind, Output, Plan};
use ef_worker::config::Backend;
use ef_worker::connector::{self, Place, Polled};
use ef_worker::error::Result;
use ef_worker::expr::{CalcProgram, EvalContext};
use ef_worker::frame::END_OF_TIME;
use ef_worker::operator::{self, Emit, Operator, Scope};
use ef_worker::state::{Store, Stores};
use std::collections::BTreeMap;
use std::path::Path;

/// Batches that an operator has emitted.
#[derive(Default)]
pub struct Rows(pub Vec<RecordBatch>);

impl Emit for Rows {
    fn emit_to(&mut self, _output: Output, batch: RecordBatch) -> Result<()> {
        self.0.push(batch);
        Ok(())
    }
}

/// Drops what is emitted and counts its rows.
#[derive(Default)]
pub struct Count(pub usize);

impl Emit for Count {
    fn emit_to(&mut self, _output: Output, batch: RecordBatch) -> Result<()> {
        self.0 += batch.num_rows();
        Ok(())
    }
}

/// A job at parallelism 1 and the position of one of its operators.
pub struct Stage {
    plan: Plan,
    at: usize,
}

impl Stage {
    /// The first operator of the planned `sql` that `wanted` picks. Panics without one: a bench's SQL is our own.
    pub fn new(sql: &str, wanted: fn(&OperatorKind) -> bool) -> Stage {
        let plan = embedded::plan(sql, &BTreeMap::new(), "bench", Some(1)).unwrap_or_else(|e| panic!("{e}"));
        let at = plan.operators.iter().position(|op| wanted(&op.kind)).expect("the plan has such an operator");
        Stage { plan, at }
    }

    /// The job's source.
    pub fn source(sql: &str) -> (plan::Source, ef_proto::schema::Schema) {
        let stage = Stage::new(sql, |kind| matches!(kind, OperatorKind::Source(_)));
        let operator = &stage.plan.operators[stage.at];
        let OperatorKind::Source(source) = &operator.kind else { unreachable!("picked above") };
        (source.clone(), operator.schema.clone())
    }

    pub fn kind(&self) -> &OperatorKind {
        &self.plan.operators[self.at].kind
    }

    pub fn operator(&self) -> Box<dyn Operator> {
        self.build(self.at)
    }

    fn build(&self, at: usize) -> Box<dyn Operator> {
        let Plan { operators, max_parallelism, .. } = &self.plan;
        let inputs = [operators[self.feeder(at)].schema.clone()];
        let built =
            operator::build(&operators[at].kind, &inputs, &operators[at].schema, *max_parallelism, 0..*max_parallelism);
        built.unwrap_or_else(|e| panic!("{e}"))
    }

    /// The operator before `at`, which has one input.
    fn feeder(&self, at: usize) -> usize {
        let id = self.plan.operators[at].id;
        let from = self.plan.inputs_of(id).next().expect("an input").from;
        self.plan.operators.iter().position(|op| op.id == from).expect("edges join operators")
    }

    /// The rows that reach the operator.
    pub fn rows(&self) -> Vec<RecordBatch> {
        self.rows_into(self.at)
    }

    fn rows_into(&self, at: usize) -> Vec<RecordBatch> {
        let from = self.feeder(at);
        let feeder = &self.plan.operators[from];
        if let OperatorKind::Source(source) = &feeder.kind {
            return read(source, &feeder.schema);
        }
        let mut rows = Rows::default();
        let mut operator = self.build(from);
        let mut store = store(Backend::Memory, Path::new(""));
        for batch in self.rows_into(from) {
            operator.on_batch(0, batch, &mut scope(&mut rows, store.as_mut())).unwrap_or_else(|e| panic!("{e}"));
        }
        rows.0
    }
}

/// All rows of a bounded source, as it sends them on.
pub fn read(source: &plan::Source, output: &ef_proto::schema::Schema) -> Vec<RecordBatch> {
    let calc = plan::Calc { filter: None, project: source.project.clone() };
    let mut project = CalcProgram::compile(&calc, &source.physical, output).unwrap_or_else(|e| panic!("{e}"));
    let project = |batch| project.run(&batch, &EvalContext::default()).unwrap_or_else(|e| panic!("{e}"));
    deliver(source).into_iter().filter_map(project).collect()
}

/// All rows of a bounded source in its physical columns.
pub fn deliver(source: &plan::Source) -> Vec<RecordBatch> {
    let place = Place {
        table: source.table.clone(),
        index: 0,
        parallelism: 1,
        job: "bench".into(),
        operator: ef_proto::ids::OperatorId(0),
        incarnation: 1,
        now_ms: 0,
        secrets: Default::default(),
        scratch: Default::default(),
        durable: None,
    };
    let mut source = connector::source(source, &place, &[], Box::new(|| 0)).unwrap_or_else(|e| panic!("{e}"));
    let mut batches = Vec::new();
    loop {
        match source.poll(&[i64::MIN]).unwrap_or_else(|e| panic!("{e}")) {
            Polled::Batch(polled) => batches.push(polled.batch),
            Polled::End => return batches,
            Polled::Opened(_) | Polled::Closed(_) | Polled::Idle | Polled::Wait(_) => {}
        }
    }
}

/// A store in `folder`, with 256 MB for a database.
pub fn store(backend: Backend, folder: &Path) -> Box<dyn Store> {
    let subtask = SubtaskId { operator: ef_proto::ids::OperatorId(1), index: 0 };
    let stores = Stores::open(backend, folder, 512 << 20, Incarnation(1));
    stores.create(subtask, 0..128, Vec::new()).unwrap_or_else(|e| panic!("{e}"))
}

pub fn scope<'a>(out: &'a mut dyn Emit, store: &'a mut dyn Store) -> Scope<'a> {
    Scope { out, store, now_ms: 0 }
}

/// Rows in all.
pub fn count(batches: &[RecordBatch]) -> u64 {
    batches.iter().map(|batch| batch.num_rows() as u64).sum()
}

/// Runs the whole stream through the operator, with a watermark `delay_ms` behind the largest time after each batch.
/// Answers with the rows that came out.
pub fn stream(operator: &mut dyn Operator, batches: &[RecordBatch], time: usize, delay_ms: i64) -> usize {
    let mut out = Count::default();
    let mut store = store(Backend::Memory, Path::new(""));
    let mut watermark = i64::MIN;
    for batch in batches {
        let mut scope = scope(&mut out, store.as_mut());
        operator.on_batch(0, batch.clone(), &mut scope).unwrap_or_else(|e| panic!("{e}"));
        let times = batch.column(time).as_primitive::<TimestampMillisecondType>().values();
        let latest = times.iter().copied().max().unwrap_or(i64::MIN);
        watermark = watermark.max(latest.saturating_sub(delay_ms));
        operator.on_watermark(watermark, &mut scope).unwrap_or_else(|e| panic!("{e}"));
    }
    let mut scope = scope(&mut out, store.as_mut());
    operator.on_watermark(END_OF_TIME, &mut scope).unwrap_or_else(|e| panic!("{e}"));
    out.0
}
