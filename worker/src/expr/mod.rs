//! Expressions: `ef_proto::expr` trees compiled at task start to kernels over the closed set of physical types; one
//! evaluator for every build. Constant sub-trees are folded, literals are never repeated per row. What a tree means
//! is written in `ef_proto::expr`; DataFusion's function library joins under the cargo feature `functions`.
//!
//! An error names the expression and the first offending value. The session's time zone is UTC.

mod arithmetic;
mod calc;
mod cast;
mod compare;
mod compile;
mod decimal;
mod functions;
mod interval;
mod like;
mod logic;
mod node;
pub mod pattern;
#[cfg(test)]
mod tests;
mod value;

pub use calc::CalcProgram;

use crate::error::Result;
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow_buffer::BooleanBuffer;
use ef_proto::expr::Expr;
use ef_proto::schema::{DataType, Schema};
use node::{Node, Rows};

/// What an evaluation takes from outside: the clock, read once a batch by the task.
#[derive(Clone, Copy, Debug, Default)]
pub struct EvalContext {
    pub now_ms: i64,
}

/// One compiled expression.
pub struct Program {
    node: Node,
    ty: DataType,
}

impl Program {
    /// Checks the tree against the columns of `input` and picks the kernels; everything that is wrong with the
    /// expression itself (an unknown function, a bad pattern) is said here, not at the first row.
    pub fn compile(expr: &Expr, input: &Schema) -> Result<Program> {
        Ok(Program { node: compile::program(expr, input)?, ty: expr.ty.clone() })
    }

    pub fn ty(&self) -> &DataType {
        &self.ty
    }

    /// The value of every row, in the Arrow type of the expression.
    pub fn evaluate(&mut self, batch: &RecordBatch, ctx: &EvalContext) -> Result<ArrayRef> {
        self.evaluate_columns(batch.columns(), batch.num_rows(), ctx)
    }

    /// The same over loose columns of `rows` rows each.
    pub fn evaluate_columns(&mut self, columns: &[ArrayRef], rows: usize, ctx: &EvalContext) -> Result<ArrayRef> {
        if rows == 0 {
            // A constant that fails is evaluated for one row; none needs it here.
            return Ok(value::nulls(&self.ty, 0));
        }
        Ok(self.node.evaluate(&Rows { columns, len: rows, now_ms: ctx.now_ms })?.to_array(rows))
    }

    /// Of a boolean expression: the rows for which it is TRUE (neither FALSE nor NULL).
    pub fn passes(&mut self, batch: &RecordBatch, ctx: &EvalContext) -> Result<BooleanArray> {
        let array = self.evaluate(batch, ctx)?;
        let array = array.as_boolean_opt().ok_or_else(|| {
            crate::error::Error::invalid(format!("a filter must be BOOLEAN, this one is {}", self.ty))
        })?;
        Ok(match array.nulls() {
            None => array.clone(),
            Some(nulls) => BooleanArray::new(array.values() & nulls.inner(), None),
        })
    }

    /// The value if it is the same for every row.
    pub fn constant(&self) -> Option<ArrayRef> {
        self.node.constant().cloned()
    }

    /// The index if the expression is a bare column.
    pub fn column(&self) -> Option<usize> {
        self.node.column()
    }
}

pub(crate) fn all_set(bits: &BooleanBuffer) -> bool {
    bits.count_set_bits() == bits.len()
}
