//! The two relational nodes that SQL has and DataFusion has not: a window table-valued function and `ML_PREDICT`.
//!
//! Both only add columns to the right of their input, so DataFusion's rules may prune columns below them. Columns are held
//! as expressions, never as positions, because the optimizer reorders inputs; [`WindowTvf::time_index`] and
//! [`PredictNode::arg_indices`] give the positions of the plan as it is now.

use super::error::Span;
use arrow_schema::Field as ArrowField;
use datafusion_common::{Column, DFSchema, DFSchemaRef, DataFusionError, Result};
use datafusion_expr::{Expr, InvariantLevel, LogicalPlan, UserDefinedLogicalNodeCore};
use ef_proto::plan::{Model, Window};
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The clock of a window TVF.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TimeAttribute {
    /// A column of the input that carries a watermark.
    Event(Column),
    /// The descriptor named a `PROCTIME()` column.
    Processing(Column),
}

impl TimeAttribute {
    pub fn column(&self) -> &Column {
        match self {
            TimeAttribute::Event(column) | TimeAttribute::Processing(column) => column,
        }
    }
}

/// `TABLE(TUMBLE|HOP|CUMULATE|SESSION(…))`: the input's columns, then `window_start`, `window_end`, `window_time`.
/// A name that the input already has gets the suffix 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowTvf {
    pub input: Arc<LogicalPlan>,
    pub window: Window,
    pub time: TimeAttribute,
    /// `PARTITION BY` of a SESSION; empty for the others.
    pub partition_by: Vec<Column>,
    pub schema: DFSchemaRef,
    /// Where the call stands.
    pub span: Span,
}

/// Positions of the window columns behind the columns of the input.
pub const WINDOW_COLUMNS: [&str; 3] = ["window_start", "window_end", "window_time"];

impl WindowTvf {
    pub fn try_new(
        input: LogicalPlan,
        window: Window,
        time: TimeAttribute,
        partition_by: Vec<Column>,
        span: Span,
    ) -> Result<WindowTvf> {
        let at = input.schema().index_of_column(time.column())?;
        let ty = ef_proto::schema::DataType::from_arrow(input.schema().field(at).data_type());
        // Windows are counted in milliseconds, whatever the resolution of the time column.
        let ty = match ty {
            Some(ef_proto::schema::DataType::Timestamp(_)) => {
                ef_proto::schema::DataType::Timestamp(ef_proto::schema::Unit::Milli)
            }
            Some(ef_proto::schema::DataType::TimestampLtz(_)) => {
                ef_proto::schema::DataType::TimestampLtz(ef_proto::schema::Unit::Milli)
            }
            _ => return Err(DataFusionError::Plan(format!("`{}` is not a timestamp", time.column().name))),
        };
        let added: Vec<_> = WINDOW_COLUMNS.iter().map(|name| ArrowField::new(*name, ty.to_arrow(), false)).collect();
        let schema = append(input.schema(), added)?;
        Ok(WindowTvf { input: Arc::new(input), window, time, partition_by, schema, span })
    }

    /// Position of the time column in the input.
    pub fn time_index(&self) -> Result<usize> {
        self.input.schema().index_of_column(self.time.column())
    }

    /// Positions of the `PARTITION BY` columns in the input.
    pub fn partition_indices(&self) -> Result<Vec<usize>> {
        self.partition_by.iter().map(|column| self.input.schema().index_of_column(column)).collect()
    }

    /// Position of `window_start` in the output; `window_end` and `window_time` follow.
    pub fn window_start_index(&self) -> usize {
        self.input.schema().fields().len()
    }
}

impl UserDefinedLogicalNodeCore for WindowTvf {
    fn name(&self) -> &str {
        "WindowTvf"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn check_invariants(&self, _check: InvariantLevel) -> Result<()> {
        self.time_index().map(|_| ())
    }

    fn expressions(&self) -> Vec<Expr> {
        std::iter::once(self.time.column()).chain(&self.partition_by).cloned().map(Expr::Column).collect()
    }

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        // A session's windows depend on every row of their key: only whole keys may be filtered out below it.
        let partition: HashSet<&str> = self.partition_by.iter().map(|c| c.name.as_str()).collect();
        let session = matches!(self.window, Window::Session { .. });
        let first_added = self.window_start_index();
        self.schema
            .fields()
            .iter()
            .enumerate()
            .filter(|(i, field)| *i >= first_added || session && !partition.contains(field.name().as_str()))
            .map(|(_, field)| field.name().clone())
            .collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "WindowTvf: {:?} on {}", self.window, self.time.column())?;
        if let TimeAttribute::Processing(_) = self.time {
            f.write_str(" (processing time)")?;
        }
        self.partition_by.iter().try_for_each(|column| write!(f, " by {column}"))
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<WindowTvf> {
        let mut columns = columns(exprs)?.into_iter();
        let (Some(time), Some(input)) = (columns.next(), inputs.into_iter().next()) else {
            return Err(DataFusionError::Internal("a window function needs its input and time column".into()));
        };
        let time = match self.time {
            TimeAttribute::Event(_) => TimeAttribute::Event(time),
            TimeAttribute::Processing(_) => TimeAttribute::Processing(time),
        };
        WindowTvf::try_new(input, self.window.clone(), time, columns.collect(), self.span)
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let mut needed = self.partition_indices().ok()?;
        needed.push(self.time_index().ok()?);
        Some(vec![below(output_columns, needed, self.window_start_index())])
    }
}

impl Hash for WindowTvf {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.input.hash(state);
        format!("{:?}", self.window).hash(state);
        self.time.hash(state);
        self.partition_by.hash(state);
    }
}

impl PartialOrd for WindowTvf {
    fn partial_cmp(&self, other: &WindowTvf) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

/// `TABLE(ML_PREDICT(TABLE t, MODEL m, DESCRIPTOR(…)))`: the input's columns, then the model's outputs. A name that the
/// input already has gets the suffix 0.
#[derive(Clone, Debug, PartialEq)]
pub struct PredictNode {
    pub input: Arc<LogicalPlan>,
    pub model: Arc<Model>,
    /// The descriptor's columns: one for each declared input of the model.
    pub args: Vec<Column>,
    pub schema: DFSchemaRef,
    /// Where the call stands.
    pub span: Span,
}

impl PredictNode {
    pub fn try_new(input: LogicalPlan, model: Arc<Model>, args: Vec<Column>, span: Span) -> Result<PredictNode> {
        let schema = append(input.schema(), model.outputs.fields.iter().map(|field| field.to_arrow()).collect())?;
        Ok(PredictNode { input: Arc::new(input), model, args, schema, span })
    }

    /// Positions of the arguments in the input.
    pub fn arg_indices(&self) -> Result<Vec<usize>> {
        self.args.iter().map(|column| self.input.schema().index_of_column(column)).collect()
    }
}

impl UserDefinedLogicalNodeCore for PredictNode {
    fn name(&self) -> &str {
        "Predict"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn check_invariants(&self, _check: InvariantLevel) -> Result<()> {
        self.arg_indices().map(|_| ())
    }

    fn expressions(&self) -> Vec<Expr> {
        self.args.iter().cloned().map(Expr::Column).collect()
    }

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        self.schema.fields().iter().skip(self.input.schema().fields().len()).map(|f| f.name().clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Predict: {} (", self.model.name)?;
        for (i, column) in self.args.iter().enumerate() {
            write!(f, "{}{column}", if i == 0 { "" } else { ", " })?;
        }
        f.write_str(")")
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<PredictNode> {
        let Some(input) = inputs.into_iter().next() else {
            return Err(DataFusionError::Internal("ML_PREDICT needs its input".into()));
        };
        PredictNode::try_new(input, self.model.clone(), columns(exprs)?, self.span)
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![below(output_columns, self.arg_indices().ok()?, self.input.schema().fields().len())])
    }
}

impl Eq for PredictNode {}

impl Hash for PredictNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.input.hash(state);
        self.model.name.hash(state);
        self.args.hash(state);
    }
}

impl PartialOrd for PredictNode {
    fn partial_cmp(&self, other: &PredictNode) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

/// The input's columns and these, unqualified; a name that is taken gets the suffix 0 (Flink's rule).
fn append(input: &DFSchema, added: Vec<ArrowField>) -> Result<DFSchemaRef> {
    let mut taken: HashSet<String> = input.fields().iter().map(|field| field.name().clone()).collect();
    let mut fields: Vec<_> = input.iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone())).collect();
    for field in added {
        let mut name = field.name().clone();
        while !taken.insert(name.clone()) {
            name.push('0');
        }
        fields.push((None, Arc::new(field.with_name(name))));
    }
    Ok(Arc::new(DFSchema::new_with_metadata(fields, HashMap::new())?))
}

/// The columns that a node needs of its input: those that are passed on, and its own.
fn below(output_columns: &[usize], mut needed: Vec<usize>, input_width: usize) -> Vec<usize> {
    needed.extend(output_columns.iter().filter(|i| **i < input_width));
    needed.sort_unstable();
    needed.dedup();
    needed
}

fn columns(exprs: Vec<Expr>) -> Result<Vec<Column>> {
    exprs
        .into_iter()
        .map(|expr| match expr {
            Expr::Column(column) => Ok(column),
            // Rewrites may wrap a column in its own name again.
            Expr::Alias(alias) => match *alias.expr {
                Expr::Column(column) => Ok(column),
                other => Err(DataFusionError::Internal(format!("`{other}` where a column was expected"))),
            },
            other => Err(DataFusionError::Internal(format!("`{other}` where a column was expected"))),
        })
        .collect()
}
