//! The watermark of a batch: the greatest value of the table's watermark expression over its rows.

use crate::error::{Error, Result};
use crate::expr::{EvalContext, Program};
use arrow_array::cast::AsArray;
use arrow_array::types::{TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType};
use arrow_array::{Array, ArrowPrimitiveType, PrimitiveArray, RecordBatch};
use ef_proto::expr::{BinaryOp, Expr, ExprKind, Scalar};
use ef_proto::schema::{DataType, Schema, Unit};

/// Evaluates `WATERMARK FOR … AS …`.
pub struct RowTime {
    program: Program,
    unit: Unit,
    /// Subtracted from the maximum: `ts - INTERVAL` needs no subtraction per row.
    delay_ticks: i64,
}

impl RowTime {
    pub fn compile(expr: &Expr, input: &Schema) -> Result<RowTime> {
        let (DataType::Timestamp(unit) | DataType::TimestampLtz(unit)) = expr.ty else {
            return Err(Error::invalid(format!(
                "a watermark of type {}; TIMESTAMP or TIMESTAMP_LTZ is accepted",
                expr.ty
            )));
        };
        let (expr, delay_ticks) = match &expr.kind {
            ExprKind::Binary { op: BinaryOp::Sub, left, right } if left.ty == expr.ty => match right.kind {
                ExprKind::Literal(Scalar::Interval { months: 0, days, nanos }) => {
                    let millis = i64::from(days) * 86_400_000 + nanos / 1_000_000;
                    (left.as_ref(), millis * unit.per_milli())
                }
                _ => (expr, 0),
            },
            _ => (expr, 0),
        };
        Ok(RowTime { program: Program::compile(expr, input)?, unit, delay_ticks })
    }

    /// In milliseconds, rounded down; None when every row has NULL there.
    pub fn max_ms(&mut self, batch: &RecordBatch, context: &EvalContext) -> Result<Option<i64>> {
        if batch.num_rows() == 0 {
            return Ok(None);
        }
        let values = self.program.evaluate(batch, context)?;
        let most = match self.unit {
            Unit::Milli => max(values.as_primitive::<TimestampMillisecondType>()),
            Unit::Micro => max(values.as_primitive::<TimestampMicrosecondType>()),
            Unit::Nano => max(values.as_primitive::<TimestampNanosecondType>()),
        };
        Ok(most.map(|ticks| ticks.saturating_sub(self.delay_ticks).div_euclid(self.unit.per_milli())))
    }
}

fn max<T: ArrowPrimitiveType<Native = i64>>(values: &PrimitiveArray<T>) -> Option<i64> {
    match values.nulls() {
        None => values.values().iter().copied().max(),
        Some(_) => values.iter().flatten().max(),
    }
}
