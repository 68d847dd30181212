//! Filter and projection as one program: what the Calc operator and the source's projection run.
//!
//! When all rows pass nothing is copied, when none passes there is no batch, and else only the columns that the
//! projection reads are filtered.

use super::{EvalContext, Program, all_set};
use crate::error::{Code, Context, Error, Result};
use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;
use ef_proto::plan::Calc;
use ef_proto::schema::{DataType, Schema};

pub struct CalcProgram {
    filter: Option<Program>,
    project: Vec<Program>,
    schema: SchemaRef,
    /// Columns of the input that `project` reads.
    used: Vec<usize>,
}

impl CalcProgram {
    /// `output` gives the names and nullability; its types must be those of the projection.
    pub fn compile(calc: &Calc, input: &Schema, output: &Schema) -> Result<CalcProgram> {
        if calc.project.len() != output.len() {
            return Err(Error::new(
                Code::Internal,
                format!("a projection of {} columns for a schema of {}", calc.project.len(), output.len()),
            ));
        }
        let mut used = Vec::new();
        for (expr, field) in calc.project.iter().zip(&output.fields) {
            if expr.ty != field.ty {
                return Err(Error::new(
                    Code::Internal,
                    format!("column `{}` is {}, its expression {expr} is {}", field.name, field.ty, expr.ty),
                ));
            }
            expr.visit_columns(&mut |index| used.push(index));
        }
        used.sort_unstable();
        used.dedup();
        let filter = calc.filter.as_ref().map(|filter| Program::compile(filter, input)).transpose()?;
        if let Some(filter) = &filter
            && *filter.ty() != DataType::Boolean
        {
            return Err(Error::invalid(format!("a filter must be BOOLEAN, this one is {}", filter.ty())));
        }
        let project = calc.project.iter().map(|expr| Program::compile(expr, input)).collect::<Result<_>>()?;
        Ok(CalcProgram { filter, project, schema: output.to_arrow(), used })
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The rows that pass, projected; None when none does.
    pub fn run(&mut self, batch: &RecordBatch, ctx: &EvalContext) -> Result<Option<RecordBatch>> {
        if batch.num_rows() == 0 {
            return Ok(None);
        }
        let Some(filter) = &mut self.filter else {
            return self.project(batch.columns(), batch.num_rows(), ctx).map(Some);
        };
        let passes = filter.passes(batch, ctx)?;
        if all_set(passes.values()) {
            return self.project(batch.columns(), batch.num_rows(), ctx).map(Some);
        }
        let rows = passes.values().count_set_bits();
        if rows == 0 {
            return Ok(None);
        }
        let mut filter = arrow_select::filter::FilterBuilder::new(&passes);
        if self.used.len() > 1 {
            filter = filter.optimize();
        }
        let filter = filter.build();
        let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
        for index in &self.used {
            columns[*index] = filter.filter(&columns[*index]).internal(|| format!("filter of column {index}"))?;
        }
        self.project(&columns, rows, ctx).map(Some)
    }

    fn project(&mut self, columns: &[ArrayRef], rows: usize, ctx: &EvalContext) -> Result<RecordBatch> {
        let columns = self
            .project
            .iter_mut()
            .map(|program| program.evaluate_columns(columns, rows, ctx))
            .collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).invalid(|| {
            let names: Vec<&str> = self.schema.fields().iter().map(|f| f.name().as_str()).collect();
            format!("projection to {}", names.join(", "))
        })
    }
}
