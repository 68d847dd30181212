//! Filter, then project: the expressions do the work. Stateless.

use super::{Operator, Scope};
use crate::error::Result;
use crate::expr::{CalcProgram, EvalContext};
use arrow_array::RecordBatch;
use ef_proto::plan;
use ef_proto::schema::Schema;

pub struct Calc {
    program: CalcProgram,
}

impl Calc {
    pub fn new(plan: &plan::Calc, input: &Schema, output: &Schema) -> Result<Calc> {
        Ok(Calc { program: CalcProgram::compile(plan, input, output)? })
    }
}

impl Operator for Calc {
    fn on_batch(&mut self, _input: usize, batch: RecordBatch, scope: &mut Scope<'_>) -> Result<()> {
        match self.program.run(&batch, &EvalContext { now_ms: scope.now_ms })? {
            Some(batch) => scope.out.emit(batch),
            None => Ok(()),
        }
    }
}
