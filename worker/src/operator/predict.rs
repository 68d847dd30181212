//! `ML_PREDICT`: the input's columns, then the model's outputs.

use super::{Operator, Scope};
use crate::error::{Context, Error, Result};
use crate::model::Runner;
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::SchemaRef;
use ef_proto::plan;
use ef_proto::schema::Schema;

pub struct Predict {
    runner: Runner,
    args: Vec<usize>,
    schema: SchemaRef,
}

impl Predict {
    /// Loads the model; `output` is the operator's schema: the input's columns, then the model's outputs.
    pub fn new(spec: &plan::Predict, input: &Schema, output: &Schema) -> Result<Predict> {
        if let Some(column) = spec.args.iter().find(|column| **column >= input.len()) {
            return Err(Error::invalid(format!(
                "model `{}` reads column {column} of an input with {} columns",
                spec.model.name,
                input.len()
            )));
        }
        Ok(Predict { runner: Runner::load(&spec.model)?, args: spec.args.clone(), schema: output.to_arrow() })
    }
}

impl Operator for Predict {
    fn on_batch(&mut self, _input: usize, batch: RecordBatch, scope: &mut Scope<'_>) -> Result<()> {
        let args: Vec<ArrayRef> = self.args.iter().map(|column| batch.column(*column).clone()).collect();
        let mut columns = batch.columns().to_vec();
        columns.extend(self.runner.predict(&args, batch.num_rows())?);
        scope
            .out
            .emit(RecordBatch::try_new(self.schema.clone(), columns).internal(|| "appending a model's outputs".into())?)
    }
}
