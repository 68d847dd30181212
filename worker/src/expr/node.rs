//! A compiled expression tree and which of its parts are evaluated for which rows.
//!
//! Kernels see whole columns. AND and OR leave out their right side when the left decides every row; should the right
//! side fail, it is tried again on the undecided rows only, so that `x <> 0 AND 10 / x > 1` never fails. CASE
//! evaluates a branch for the rows that take it.

use super::logic;
use super::value::{Kernel, Value};
use crate::error::{Code, Error, Result};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray, TimestampMillisecondArray};
use arrow_buffer::BooleanBuffer;
use ef_proto::schema::DataType;
use std::sync::Arc;

/// The input of one evaluation.
pub(crate) struct Rows<'a> {
    pub columns: &'a [ArrayRef],
    pub len: usize,
    pub now_ms: i64,
}

pub(crate) enum Node {
    Column(usize),
    Constant(ArrayRef),
    Now,
    Apply { kernel: Kernel, args: Vec<Node>, text: String },
    Logic { and: bool, left: Box<Node>, right: Box<Node>, columns: Vec<usize> },
    Case { branches: Vec<Branch>, otherwise: Box<Branch>, ty: DataType },
}

/// A condition (constant TRUE for ELSE) and its result, with the columns that each reads.
pub(crate) struct Branch {
    pub when: Node,
    pub then: Node,
    pub when_columns: Vec<usize>,
    pub then_columns: Vec<usize>,
    /// Cannot fail on any row: cheaper evaluated over all rows than over the ones that take the branch.
    pub when_total: bool,
    pub then_total: bool,
}

impl Node {
    pub fn constant(&self) -> Option<&ArrayRef> {
        match self {
            Node::Constant(array) => Some(array),
            _ => None,
        }
    }

    pub fn column(&self) -> Option<usize> {
        match self {
            Node::Column(index) => Some(*index),
            _ => None,
        }
    }

    pub fn evaluate(&self, rows: &Rows) -> Result<Value> {
        match self {
            Node::Column(index) => Ok(Value::Array(rows.columns[*index].clone())),
            Node::Constant(array) => Ok(Value::Constant(array.clone())),
            Node::Now => {
                let now = TimestampMillisecondArray::from(vec![rows.now_ms]).with_timezone("UTC");
                Ok(Value::Constant(Arc::new(now)))
            }
            Node::Apply { kernel, args, text } => {
                let args = args.iter().map(|arg| arg.evaluate(rows)).collect::<Result<Vec<_>>>()?;
                let constant = !args.is_empty() && args.iter().all(Value::is_constant);
                let len = if constant { 1 } else { rows.len };
                let array = kernel(&args, len).map_err(|e| Error::new(Code::Invalid, format!("{text}: {e}")))?;
                debug_assert_eq!(array.len(), len, "kernel of {text}");
                Ok(if constant { Value::Constant(array) } else { Value::Array(array) })
            }
            Node::Logic { and, left, right, columns } => logical(*and, left, right, columns, rows),
            Node::Case { branches, otherwise, ty } => case(branches, otherwise, ty, rows),
        }
    }
}

fn logical(and: bool, left: &Node, right: &Node, columns: &[usize], rows: &Rows) -> Result<Value> {
    let left = left.evaluate(rows)?.to_array(rows.len);
    let left = left.as_boolean();
    let decided = match (left.nulls(), and) {
        (None, true) => !left.values(),
        (None, false) => left.values().clone(),
        (Some(nulls), true) => &!left.values() & nulls.inner(),
        (Some(nulls), false) => left.values() & nulls.inner(),
    };
    let open = rows.len - decided.count_set_bits();
    if open == 0 {
        return Ok(Value::Array(Arc::new(left.clone())));
    }
    let right = match right.evaluate(rows) {
        Ok(value) => value.to_array(rows.len),
        Err(error) if open == rows.len => return Err(error),
        Err(_) => {
            let value = subset(right, columns, &!&decided, rows)?;
            scatter(value.as_boolean(), &!&decided)
        }
    };
    Ok(Value::Array(Arc::new(logic::combine(and, left, right.as_boolean()))))
}

/// The value of the node for the chosen rows only.
fn subset(node: &Node, columns: &[usize], chosen: &BooleanBuffer, rows: &Rows) -> Result<ArrayRef> {
    let len = chosen.count_set_bits();
    if len == rows.len {
        return Ok(node.evaluate(rows)?.to_array(len));
    }
    let filter = BooleanArray::new(chosen.clone(), None);
    let mut narrowed = rows.columns.to_vec();
    for index in columns {
        narrowed[*index] = arrow_select::filter::filter(&narrowed[*index], &filter)
            .map_err(|e| Error::new(Code::Internal, format!("rows of a branch: {e}")))?;
    }
    let rows = Rows { columns: &narrowed, len, now_ms: rows.now_ms };
    Ok(node.evaluate(&rows)?.to_array(len))
}

/// Puts the values of the chosen rows back to their places; the others are false.
fn scatter(values: &BooleanArray, chosen: &BooleanBuffer) -> ArrayRef {
    let mut next = 0;
    let spread: BooleanArray = (0..chosen.len())
        .map(|row| {
            if !chosen.value(row) {
                return Some(false);
            }
            next += 1;
            values.is_valid(next - 1).then(|| values.value(next - 1))
        })
        .collect();
    Arc::new(spread)
}

fn case(branches: &[Branch], otherwise: &Branch, ty: &DataType, rows: &Rows) -> Result<Value> {
    let mut open = BooleanBuffer::new_set(rows.len);
    // Which part's which row makes each row of the answer.
    let mut places = vec![(0usize, 0usize); rows.len];
    let mut parts: Vec<ArrayRef> = Vec::new();
    for branch in branches.iter().chain([otherwise]) {
        if open.count_set_bits() == 0 {
            break;
        }
        let when = if branch.when_total {
            branch.when.evaluate(rows)?.to_array(rows.len)
        } else {
            subset(&branch.when, &branch.when_columns, &open, rows)?
        };
        let when = when.as_boolean();
        let taken = if when.len() == rows.len {
            match when.nulls() {
                None => &open & when.values(),
                Some(nulls) => &open & &(when.values() & nulls.inner()),
            }
        } else {
            let mut next = 0;
            BooleanBuffer::collect_bool(rows.len, |row| {
                if !open.value(row) {
                    return false;
                }
                next += 1;
                when.is_valid(next - 1) && when.value(next - 1)
            })
        };
        let count = taken.count_set_bits();
        if count == 0 {
            continue;
        }
        let then = if branch.then_total {
            branch.then.evaluate(rows)?.to_array(rows.len)
        } else {
            subset(&branch.then, &branch.then_columns, &taken, rows)?
        };
        if count == rows.len {
            return Ok(Value::Array(then));
        }
        for (next, row) in taken.set_indices().enumerate() {
            places[row] = (parts.len(), if branch.then_total { row } else { next });
        }
        parts.push(then);
        open = &open & &!&taken;
    }
    if rows.len == 0 {
        return Ok(Value::Array(super::value::nulls(ty, 0)));
    }
    let parts: Vec<&dyn Array> = parts.iter().map(|part| part.as_ref()).collect();
    arrow_select::interleave::interleave(&parts, &places)
        .map(Value::Array)
        .map_err(|e| Error::new(Code::Internal, format!("branches of a CASE of type {ty}: {e}")))
}
