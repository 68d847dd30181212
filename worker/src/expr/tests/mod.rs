//! What the evaluator promises: tables for casts and functions, a naive recomputation for the rest.

mod casts;
mod depth;
mod functions;
mod nested;
mod operators;
#[cfg(feature = "functions")]
mod oracle;
mod zones;

use super::value::{concat, constant};
use super::{CalcProgram, EvalContext, Program};
use crate::error::Result;
use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use ef_proto::expr::{BinaryOp, Expr, ExprKind, Scalar, UnaryOp};
use ef_proto::function::Builtin;
use ef_proto::schema::{DataType, Field, Schema, Unit};

const NOW: EvalContext = EvalContext { now_ms: 1_773_471_540_123 };
const TS: DataType = DataType::Timestamp(Unit::Milli);

fn int(value: i64) -> Expr {
    Expr::literal(Scalar::Int(value), DataType::Int64)
}

fn float(value: f64) -> Expr {
    Expr::literal(Scalar::Float(value), DataType::Float64)
}

fn text(value: &str) -> Expr {
    Expr::literal(Scalar::String(value.into()), DataType::String)
}

fn null(ty: DataType) -> Expr {
    Expr::literal(Scalar::Null, ty)
}

fn decimal(unscaled: i128, precision: u8, scale: i8) -> Expr {
    Expr::literal(Scalar::Decimal(unscaled), DataType::Decimal { precision, scale })
}

fn timestamp(text: &str) -> Expr {
    let ticks = crate::time::civil::parse_timestamp(text.as_bytes(), Unit::Milli).expect("a timestamp");
    Expr::literal(Scalar::Int(ticks), TS)
}

fn binary(op: BinaryOp, left: Expr, right: Expr) -> Expr {
    let boolean = op.is_comparison()
        || matches!(op, BinaryOp::And | BinaryOp::Or | BinaryOp::IsDistinctFrom | BinaryOp::IsNotDistinctFrom);
    let ty = if boolean { DataType::Boolean } else { left.ty.clone() };
    Expr::binary(op, left, right, ty)
}

fn unary(op: UnaryOp, input: Expr) -> Expr {
    let ty = if op == UnaryOp::Negate { input.ty.clone() } else { DataType::Boolean };
    Expr { kind: ExprKind::Unary { op, input: Box::new(input) }, ty }
}

fn call(function: Builtin, args: Vec<Expr>) -> Expr {
    let types: Vec<DataType> = args.iter().map(|a| a.ty.clone()).collect();
    let ty = function.result(&types).expect("argument types");
    Expr { kind: ExprKind::Call { function: function.name().into(), args }, ty }
}

/// A column of literals of one type.
fn column(ty: &DataType, values: &[Scalar]) -> ArrayRef {
    let parts: Vec<ArrayRef> = values.iter().map(|v| constant(v, ty).expect("a literal of the type")).collect();
    concat(&parts, ty).expect("parts of one type")
}

fn batch(columns: Vec<(&DataType, ArrayRef)>) -> (Schema, RecordBatch) {
    let fields = columns.iter().enumerate().map(|(i, (ty, _))| Field::new(format!("c{i}"), (*ty).clone(), true));
    let schema = Schema::new(fields.collect());
    let rows = columns.first().map_or(1, |(_, c)| c.len());
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let arrays = columns.into_iter().map(|(_, c)| c).collect();
    let batch = RecordBatch::try_new_with_options(schema.to_arrow(), arrays, &options).expect("a batch");
    (schema, batch)
}

fn evaluate(expr: &Expr, schema: &Schema, batch: &RecordBatch) -> Result<ArrayRef> {
    let result = Program::compile(expr, schema)?.evaluate(batch, &NOW)?;
    assert_eq!(result.len(), batch.num_rows(), "{expr}");
    assert_eq!(*result.data_type(), expr.ty.to_arrow(), "{expr}");
    Ok(result)
}

/// The text of each row, `NULL` for NULLs.
fn shown(array: &ArrayRef, ty: &DataType) -> Vec<String> {
    let text = Expr::column(0, ty.clone()).cast(DataType::String);
    let (schema, batch) = batch(vec![(ty, array.clone())]);
    let texts = evaluate(&text, &schema, &batch).expect("every type prints");
    let texts = super::value::Value::Array(texts);
    let texts = texts.texts();
    (0..array.len()).map(|row| texts.get(row).map_or("NULL".into(), str::to_string)).collect()
}

/// The literals of a tree, moved into columns: the same expression without anything to fold.
fn unfold(expr: &Expr, columns: &mut Vec<(DataType, ArrayRef)>) -> Expr {
    let mut expr = expr.clone();
    let fixed =
        |kind: &ExprKind| matches!(kind, ExprKind::Literal(Scalar::Null)) || !matches!(kind, ExprKind::Literal(_));
    match &mut expr.kind {
        ExprKind::Literal(value) => {
            columns.push((expr.ty.clone(), column(&expr.ty, &[value.clone(), value.clone(), value.clone()])));
            return Expr::column(columns.len() - 1, expr.ty);
        }
        ExprKind::Cast { input, .. } | ExprKind::Unary { input, .. } | ExprKind::Field { input, .. } => {
            **input = unfold(input, columns);
        }
        ExprKind::Binary { left, right, .. } => {
            **left = unfold(left, columns);
            **right = unfold(right, columns);
        }
        ExprKind::Like { input, pattern, .. } => {
            **input = unfold(input, columns);
            **pattern = unfold(pattern, columns);
        }
        ExprKind::Call { function, args } => {
            let units = ["ef_extract", "ef_floor_time", "ef_ceil_time", "ef_timestamp_diff"];
            for (i, arg) in args.iter_mut().enumerate() {
                let stays = i == 0 && units.contains(&function.as_str()) || i == 1 && function == "ef_to_timestamp_ltz";
                if !stays || fixed(&arg.kind) {
                    *arg = unfold(arg, columns);
                }
            }
        }
        _ => {}
    }
    expr
}

/// The value of an expression of literals: as a folded constant and as columns of three rows, which must agree.
fn value(expr: &Expr) -> Result<String> {
    let (schema, one) = batch(vec![]);
    let folded = evaluate(expr, &schema, &one).map(|array| shown(&array, &expr.ty));
    let mut columns = Vec::new();
    let open = unfold(expr, &mut columns);
    if !columns.is_empty() {
        let (schema, three) = batch(columns.iter().map(|(ty, array)| (ty, array.clone())).collect());
        let rows = evaluate(&open, &schema, &three).map(|array| shown(&array, &expr.ty));
        match (&folded, &rows) {
            (Ok(folded), Ok(rows)) => assert!(rows.iter().all(|row| *row == folded[0]), "{expr}: {folded:?} {rows:?}"),
            (Err(_), Err(_)) => {}
            _ => panic!("{expr}: folded {folded:?}, by rows {rows:?}"),
        }
    }
    folded.map(|texts| texts[0].clone())
}

#[track_caller]
fn check(expr: Expr, expected: &str) {
    match value(&expr) {
        Ok(found) => assert_eq!(found, expected, "{expr}"),
        Err(error) => panic!("{expr}: {error}"),
    }
}

#[track_caller]
fn check_fails(expr: Expr, part: &str) {
    match value(&expr) {
        Ok(found) => panic!("{expr} is {found}, expected an error with `{part}`"),
        Err(error) => assert!(error.message.contains(part), "{expr}: {error}"),
    }
}

#[test]
fn calc_filters_then_projects_and_copies_nothing_when_all_pass() {
    let ty = DataType::Int64;
    let values = column(&ty, &[Scalar::Int(1), Scalar::Null, Scalar::Int(3)]);
    let (input, batch) = batch(vec![(&ty, values.clone()), (&ty, values)]);
    let output = Schema::new(vec![Field::new("x", ty.clone(), true)]);
    let run = |filter: Expr| {
        let calc = ef_proto::plan::Calc { filter: Some(filter), project: vec![Expr::column(1, DataType::Int64)] };
        CalcProgram::compile(&calc, &input, &output).unwrap().run(&batch, &NOW).unwrap()
    };
    let col = || Expr::column(0, DataType::Int64);
    let some = run(binary(BinaryOp::GtEq, col(), int(2))).expect("a row passes");
    assert_eq!(shown(some.column(0), &ty), ["3"]);
    assert_eq!(some.schema().field(0).name(), "x");
    assert!(run(binary(BinaryOp::Gt, col(), int(5))).is_none());
    let all = run(binary(BinaryOp::Or, unary(UnaryOp::IsNull, col()), binary(BinaryOp::Gt, col(), int(0)))).unwrap();
    assert_eq!(all.column(0).to_data().buffers()[0].as_ptr(), batch.column(1).to_data().buffers()[0].as_ptr());
}
