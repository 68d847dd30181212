//! Filter, then project: the expressions do the work. Stateless.

use super::{Emit, Operator};
use crate::error::Result;
use crate::expr::{CalcProgram, EvalContext};
use arrow_array::RecordBatch;
use ef_proto::plan;
use ef_proto::schema::Schema;

pub struct Calc {
    program: CalcProgram,
    context: EvalContext,
}

impl Calc {
    pub fn new(plan: &plan::Calc, input: &Schema, output: &Schema) -> Result<Calc> {
        Ok(Calc { program: CalcProgram::compile(plan, input, output)?, context: EvalContext { now_ms: 0 } })
    }
}

impl Operator for Calc {
    fn on_batch(&mut self, _input: usize, batch: RecordBatch, out: &mut dyn Emit) -> Result<()> {
        match self.program.run(&batch, &self.context)? {
            Some(batch) => out.emit(batch),
            None => Ok(()),
        }
    }

    fn on_clock(&mut self, now_ms: i64, _out: &mut dyn Emit) -> Result<()> {
        self.context.now_ms = now_ms;
        Ok(())
    }

    /// PROCTIME() and CURRENT_TIMESTAMP read the clock of the last tick.
    fn clocked(&self) -> bool {
        true
    }
}
