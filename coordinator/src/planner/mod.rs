//! SQL text → the operator graph. Flink's dialect in front, DataFusion's planner and optimizer behind it, [`lower`] at
//! the end: no worker ever sees SQL.
//!
//! [`bind`] stops at optimised logical plans; [`plan`] goes on to [`ef_proto::plan::Plan`]. Both are pure but for the
//! [`ModelInspector`], which reads model files.

mod align;
mod bind;
pub mod catalog;
mod context;
mod declare;
mod diagnose;
mod dialect;
pub mod error;
pub mod functions;
mod interval;
mod limits;
mod lookup;
pub mod lower;
pub mod nodes;
mod opaque;
mod optimize;
mod relation;
mod rewrite;
mod statement;
mod time;
mod types;
mod vars;

use bind::bind;
pub use catalog::{Catalog, Column, ColumnKind, PlannerTable, Table, View, Watermark};
pub use error::{PlannerError, Span};
pub use nodes::{PredictNode, TimeAttribute, WindowTvf};

use datafusion_expr::LogicalPlan;
use ef_proto::ids::OperatorId;
use ef_proto::plan::{Model, Plan};
use ef_proto::schema::Schema;
use std::collections::BTreeMap;

/// A file after binding: what it declared and what it runs.
#[derive(Debug, Default)]
pub struct Bound {
    pub catalog: Catalog,
    /// In the order of the file.
    pub inserts: Vec<Insert>,
    /// The `SET` options in force at the end.
    pub config: BTreeMap<String, Setting>,
}

/// The value of a `SET 'key' = 'value'`, and where the statement stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub value: String,
    pub span: Span,
}

/// One `INSERT INTO`, or the bare final SELECT.
#[derive(Debug)]
pub struct Insert {
    pub target: Target,
    /// Analysed and optimised. For a table: columns in the order of its [`Table::sink_schema`], cast to its types.
    pub plan: LogicalPlan,
    /// Where the statement stands.
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A table of the catalog.
    Table(String),
    Stdout,
}

/// What `CREATE MODEL` asks of the inference runtime, and formats of the file system, so that a bad file fails at plan
/// time.
pub trait ModelInspector: Sync {
    /// Opens the model at `path`, checks it against the declared columns, and returns it with digest and bindings.
    fn inspect(
        &self,
        path: &str,
        inputs: &Schema,
        outputs: &Schema,
        options: &BTreeMap<String, String>,
    ) -> Result<Model, String>;

    /// What the protobuf message is made of, by the descriptor file at `path`, as `protobuf::prune` writes it.
    fn descriptor(&self, path: &str, _message: &str) -> Result<String, String> {
        Err(format!("nothing is known of `{path}`; submit with `efctl submit`, which reads it"))
    }
}

/// By which name a submission has the descriptor of a message beside its models.
pub fn descriptor_key(path: &str, message: &str) -> String {
    format!("descriptor of {message} in {path}")
}

#[derive(Clone, Debug, Default)]
pub struct PlanOptions {
    /// The job's name.
    pub name: String,
    /// Parallelism of the job's operators; None: `SET 'parallelism.default'`, or 1.
    pub parallelism: Option<u32>,
    /// Parallelism of single operators, which what only follows them follows too.
    pub overrides: BTreeMap<OperatorId, u32>,
}

/// Parses and binds a file and lowers it to the operator graph.
pub fn plan(
    sql: &str,
    vars: &BTreeMap<String, String>,
    options: PlanOptions,
    models: &dyn ModelInspector,
) -> Result<Plan, PlannerError> {
    // Some editors write a byte order mark; it is no part of the text.
    let sql = sql.strip_prefix('\u{feff}').unwrap_or(sql);
    limits::on_deep_stack(|| {
        let bound = bind(sql, vars, models)?;
        lower::lower(bound, &options).map_err(|error| error.locate(sql))
    })
}

#[cfg(test)]
mod tests;
