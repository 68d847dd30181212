//! The operator graph: what the planner makes, the scheduler places and a worker runs.
//!
//! A [`Plan`] that passes [`Plan::validate`] can be deployed: edges match schemas, every column exists with its
//! type, changelogs reach only operators that take them, keyed operators get keyed exchanges, there is no cycle.

use crate::connector::lookup::{LookupConnector, LookupOptions};
use crate::connector::{Format, SinkConnector, SourceConnector};
use crate::expr::{Expr, Scalar};
use crate::ids::OperatorId;
use crate::place::Constraint;
use crate::schema::{Field, Schema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

mod explain;
mod tasks;
mod validate;
pub use explain::{Guarantee, describe, dot, lookup_key, text};
pub use tasks::{Task, Tasks};
pub use validate::PlanError;

/// One job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub name: String,
    /// In topological order: an edge goes from a lower position to a higher one.
    pub operators: Vec<Operator>,
    pub edges: Vec<Edge>,
    pub max_parallelism: u16,
    /// The job's `SET` options that the runtime reads (`state.backend`, `execution.checkpointing.interval`, …),
    /// as checked text.
    pub config: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Operator {
    pub id: OperatorId,
    /// For people: `Source(bid)`, `WindowAggregate(TUMBLE 10 s by auction)`.
    pub name: String,
    pub kind: OperatorKind,
    pub parallelism: u32,
    /// Columns of the main output. For a changelog output, `_op` is its last column.
    pub schema: Schema,
    /// Where it may run.
    #[serde(default, skip_serializing_if = "Constraint::is_any")]
    pub constraint: Constraint,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Edge {
    pub from: OperatorId,
    pub output: Output,
    pub to: OperatorId,
    /// Which input of `to`: 0, or 1 for the right side of a join. Several edges may feed one input (UNION ALL).
    pub input: usize,
    pub exchange: Exchange,
    /// Rows carry `_op` as their last column.
    pub changelog: bool,
}

/// The outputs of an operator. Side outputs carry what would otherwise be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Output {
    Main,
    /// Late rows of a window operator, with the schema of its input.
    Late,
    /// Undecodable rows of a source, with [`error_schema`].
    Errors,
}

/// How rows find a subtask of the consumer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Exchange {
    /// Subtask i to subtask i; same parallelism; fused into one task when nothing else is in the way.
    Forward,
    /// By key group of the hash of these columns.
    Hash(Vec<usize>),
    /// Round robin by batch.
    Rebalance,
    /// All to subtask 0.
    Gather,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum OperatorKind {
    Source(Source),
    Calc(Calc),
    WindowAssign(WindowAssign),
    WindowAggregate(WindowAggregate),
    GroupAggregate(GroupAggregate),
    WindowJoin(WindowJoin),
    Predict(Predict),
    LookupJoin(LookupJoin),
    Sink(Sink),
}

/// Reads, decodes, computes columns and stamps watermarks, per split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    pub table: String,
    pub connector: SourceConnector,
    /// None for connectors that make rows themselves (datagen, nexmark).
    pub format: Option<Format>,
    /// The columns that the connector and format deliver, pruned to what is used; METADATA columns behind those of the
    /// format, and `_op` last of all where the table is a changelog ([`Source::is_changelog`]).
    pub physical: Schema,
    /// METADATA columns: (position in `physical`, key), e.g. `file.path`.
    pub metadata: Vec<(usize, String)>,
    /// Over `physical`: the output columns of the operator (computed columns included), `_op` last as there.
    pub project: Vec<Expr>,
    pub watermark: Option<Watermark>,
}

impl Source {
    /// Rows say what they do to those before them.
    pub fn is_changelog(&self) -> bool {
        self.format.as_ref().is_some_and(Format::reads_changelog)
    }
}

/// Over the source's `physical` columns: an expression of type Timestamp or TimestampLtz. The watermark of a split
/// is the maximum of its value over the rows read; NULLs are passed over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Watermark {
    pub expr: Expr,
    /// A split that delivers nothing for this long stops holding back the others. None: never.
    pub idle_timeout_ms: Option<u64>,
}

/// Filter, then project. Stateless.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calc {
    /// A row passes when this is TRUE (neither FALSE nor NULL).
    pub filter: Option<Expr>,
    /// Over the input (`_op` included, when it is a changelog: the planner passes it through last).
    pub project: Vec<Expr>,
}

/// How rows get their windows. Durations and bounds in milliseconds; windows are [start, end) and aligned to the
/// epoch plus `offset_ms`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Window {
    Tumble {
        size_ms: i64,
        offset_ms: i64,
    },
    Hop {
        size_ms: i64,
        slide_ms: i64,
        offset_ms: i64,
    },
    Cumulate {
        max_ms: i64,
        step_ms: i64,
        offset_ms: i64,
    },
    /// Per key (`PARTITION BY`): ends `gap_ms` after the last row.
    Session {
        gap_ms: i64,
    },
    /// The rows carry their window already: columns of type Timestamp(ms) or TimestampLtz(ms).
    Attached {
        start: usize,
        end: usize,
    },
}

/// The clock of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Time {
    /// Event time: this column (Timestamp or TimestampLtz of any unit). Rows with NULL there are counted as
    /// dropped (`null_time_rows`) and go to no window.
    Event { column: usize },
    /// The subtask's clock at the row's arrival.
    Processing,
}

/// A window TVF whose rows are used as they are: each row is repeated for every window it belongs to, with
/// `window_start`, `window_end`, `window_time` appended (Timestamp(ms) or TimestampLtz(ms) as the time column).
/// Not for SESSION, which the planner only takes under an aggregate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowAssign {
    pub window: Window,
    pub time: Time,
}

/// Grouped aggregation per window; fires once, when the watermark passes the window's last millisecond.
///
/// Output: keys, aggregates, then window_start, window_end, window_time (= end - 1 ms) as Timestamp(ms) or
/// TimestampLtz(ms) (`ltz`). Local phase output: see `Phase`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowAggregate {
    pub window: Window,
    pub time: Time,
    pub ltz: bool,
    /// Columns of the input.
    pub keys: Vec<usize>,
    pub aggregates: Vec<Aggregate>,
    pub phase: Phase,
    /// The window operator has a side output for late rows.
    pub late_output: bool,
}

/// Two-phase aggregation: Local combines what it can before the exchange, Global merges.
///
/// Local output (and Global input): keys, then for each aggregate its state columns
/// ([`Aggregate::state_types`]), then `slice_end` (Int64, ms) and `rows` (Int64, input rows combined).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    Single,
    Local,
    Global,
}

/// One aggregate function call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Aggregate {
    pub function: AggregateFunction,
    /// Column of the input; None for COUNT(*).
    pub arg: Option<usize>,
    /// Type of the argument (Null for COUNT(*)): Global needs it and no longer sees the column.
    pub arg_ty: crate::schema::DataType,
    /// A Boolean column: only rows where it is TRUE are counted.
    pub filter: Option<usize>,
    pub distinct: bool,
    /// Type of the result.
    pub ty: crate::schema::DataType,
}

impl Aggregate {
    /// Columns of a partial result, as Local sends it and Global merges it. Empty for what does not merge
    /// ([`Aggregate::mergeable`]).
    pub fn state_types(&self) -> Vec<crate::schema::DataType> {
        use crate::schema::DataType;
        match self.function {
            AggregateFunction::Count => vec![DataType::Int64],
            // NULL: no value yet.
            AggregateFunction::Sum => vec![self.ty.clone()],
            AggregateFunction::Avg => {
                let sum = match &self.arg_ty {
                    DataType::Float32 | DataType::Float64 => DataType::Float64,
                    DataType::Decimal { scale, .. } => DataType::Decimal { precision: 38, scale: *scale },
                    _ => DataType::Int64,
                };
                vec![sum, DataType::Int64]
            }
            AggregateFunction::Min | AggregateFunction::Max => vec![self.arg_ty.clone()],
            // Count, mean, sum of squared differences from the mean (Welford).
            AggregateFunction::StddevPop
            | AggregateFunction::StddevSamp
            | AggregateFunction::VarPop
            | AggregateFunction::VarSamp => vec![DataType::Int64, DataType::Float64, DataType::Float64],
            AggregateFunction::FirstValue | AggregateFunction::LastValue => vec![],
        }
    }

    /// Partial results of disjoint sets of rows merge into the result of their union, whatever the order.
    pub const fn mergeable(&self) -> bool {
        !self.distinct && !matches!(self.function, AggregateFunction::FirstValue | AggregateFunction::LastValue)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AggregateFunction {
    Count,
    Sum,
    Avg,
    Min,
    Max,
    StddevPop,
    StddevSamp,
    VarPop,
    VarSamp,
    /// By arrival order, NULLs skipped.
    FirstValue,
    LastValue,
}

/// GROUP BY without a window, and SELECT DISTINCT: a changelog. Output: keys, aggregates, `_op`.
///
/// Within one input batch the updates of a key are folded: at most one -U/+U pair (or +I, or -D) leaves a batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupAggregate {
    pub keys: Vec<usize>,
    pub aggregates: Vec<Aggregate>,
    /// The input is a changelog: rows with -U and -D are retracted.
    pub retracting: bool,
    /// `SET 'table.exec.state.ttl'`, ms since the last update of a key by the processing clock. None: for ever.
    pub ttl_ms: Option<u64>,
}

/// Join of two inputs that carry windows, on equal windows and equal keys. Output of Inner, Left, Right, Full: left
/// columns then right columns; of Semi and Anti: left columns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowJoin {
    pub kind: JoinKind,
    /// Equal pairs beyond the window, (left column, right column); types are equal. Rows with a NULL key match nothing.
    pub keys: Vec<(usize, usize)>,
    /// (start column, end column) of each input.
    pub left_window: (usize, usize),
    pub right_window: (usize, usize),
    /// Over left columns then right columns: what else a pair must fulfil.
    pub filter: Option<Expr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum JoinKind {
    Inner,
    Left,
    Right,
    Full,
    Semi,
    Anti,
}

/// Each row with the rows that a table outside has for its key as the row passes. Output: the input's columns, then
/// `right`'s. Stateless: what it keeps is a cache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LookupJoin {
    pub table: String,
    pub connector: LookupConnector,
    /// None: the values are plain text.
    pub format: Option<Format>,
    pub options: LookupOptions,
    /// Inner, or Left: a row without a match comes once, with NULLs.
    pub kind: JoinKind,
    /// What the table is asked by, in the connector's order. A row with a NULL key matches nothing.
    pub keys: Vec<LookupKey>,
    /// The columns of the table that are used, key columns among them.
    pub right: Schema,
    /// Over the input's columns then `right`'s: what else a pair must fulfil.
    pub filter: Option<Expr>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LookupKey {
    /// Of the table. Its type is the value's.
    pub field: Field,
    pub value: LookupValue,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum LookupValue {
    /// Of the input.
    Column(usize),
    Constant(Scalar),
}

impl LookupJoin {
    /// The columns that an answer must hold: those that the key does not give.
    pub fn values(&self) -> Schema {
        let given = |name: &str| self.keys.iter().any(|key| key.field.name == name);
        Schema::new(self.right.fields.iter().filter(|field| !given(&field.name)).cloned().collect())
    }
}

/// `ML_PREDICT`: input columns, then the model's outputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Predict {
    pub model: Model,
    /// Columns of the input that feed the model's declared inputs, in their order.
    pub args: Vec<usize>,
}

/// A model as `CREATE MODEL` declared it and the planner checked it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    pub name: String,
    /// `onnx`.
    pub provider: String,
    pub path: String,
    /// crc32 and length of the file that was checked at plan time; a worker refuses another.
    pub digest: String,
    pub inputs: Schema,
    pub outputs: Schema,
    /// Name of the graph's output for each declared output, in order (`'onnx.outputs'`, or by name, or by position).
    pub bindings: Vec<String>,
    /// Rows per inference call.
    pub batch_rows: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sink {
    pub table: String,
    pub connector: SinkConnector,
    /// None for print, stdout and blackhole.
    pub format: Option<Format>,
    /// The input carries `_op`.
    pub changelog: bool,
    /// The columns of the PRIMARY KEY, for a sink that upserts by it; else empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<usize>,
}

impl Plan {
    pub fn operator(&self, id: OperatorId) -> Option<&Operator> {
        self.operators.iter().find(|op| op.id == id)
    }

    pub fn inputs_of(&self, id: OperatorId) -> impl Iterator<Item = &Edge> {
        self.edges.iter().filter(move |edge| edge.to == id)
    }

    pub fn outputs_of(&self, id: OperatorId) -> impl Iterator<Item = &Edge> {
        self.edges.iter().filter(move |edge| edge.from == id)
    }
}

/// The schema of an operator's side output of undecodable rows.
pub fn error_schema() -> Schema {
    use crate::schema::{DataType, Field};
    Schema::new(vec![
        Field::new("table_name", DataType::String, false),
        Field::new("file", DataType::String, true),
        Field::new("line", DataType::Int64, true),
        Field::new("raw", DataType::String, true),
        Field::new("error", DataType::String, false),
    ])
}
