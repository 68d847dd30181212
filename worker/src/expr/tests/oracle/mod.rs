//! The evaluator against DataFusion's: random typed trees over random batches must agree value by value and error by
//! error. Where EdgeFlow follows Flink instead, `translate` and `rules` say so, one rule a difference. A failure is
//! reported as the smallest part of the tree that disagrees, with the seed.

mod data;
mod grow;
mod rules;
mod texts;
mod translate;

use super::*;
use crate::expr::EvalContext;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type};
use arrow_array::{BooleanArray, new_empty_array};
use arrow_buffer::BooleanBuffer;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;

type Subject<'a> = &'a dyn Fn(&Expr, &RecordBatch) -> Result<ArrayRef>;

fn edgeflow(expr: &Expr, batch: &RecordBatch) -> Result<ArrayRef> {
    Program::compile(expr, &data::schema())?.evaluate(batch, &EvalContext::default())
}

/// What DataFusion makes of the rows: a column, or by rows where at least one of them fails.
enum Expected {
    Column(ArrayRef),
    Rows(Vec<std::result::Result<ArrayRef, String>>),
}

fn expected(expr: &Expr, batch: &RecordBatch) -> Expected {
    let physical = translate::Translator { schema: batch.schema() }.expr(expr);
    let evaluate = |batch: &RecordBatch| -> std::result::Result<ArrayRef, String> {
        let value = physical.evaluate(batch).map_err(|e| e.strip_backtrace())?;
        let array = value.into_array(batch.num_rows()).map_err(|e| e.strip_backtrace())?;
        assert_eq!(*array.data_type(), expr.ty.to_arrow(), "the translation of {expr}");
        Ok(array)
    };
    if batch.num_rows() == 0 {
        return Expected::Column(new_empty_array(&expr.ty.to_arrow()));
    }
    match evaluate(batch) {
        Ok(array) => Expected::Column(array),
        // A row alone neither fails for its neighbours nor is it spared because of them.
        Err(_) => Expected::Rows((0..batch.num_rows()).map(|row| evaluate(&batch.slice(row, 1))).collect()),
    }
}

/// NaNs are one value here, whatever their bits.
fn one_nan(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        arrow_schema::DataType::Float32 => {
            let floats = array.as_primitive::<Float32Type>();
            Arc::new(floats.unary::<_, Float32Type>(|v| if v.is_nan() { f32::NAN } else { v }))
        }
        arrow_schema::DataType::Float64 => {
            let floats = array.as_primitive::<Float64Type>();
            Arc::new(floats.unary::<_, Float64Type>(|v| if v.is_nan() { f64::NAN } else { v }))
        }
        _ => array.clone(),
    }
}

fn same(ours: &ArrayRef, theirs: &ArrayRef) -> std::result::Result<(), String> {
    if ours.data_type() != theirs.data_type() || ours.len() != theirs.len() {
        let shape = |a: &ArrayRef| format!("{} of {} rows", a.data_type(), a.len());
        return Err(format!("{} is not {}", shape(ours), shape(theirs)));
    }
    let (ours, theirs) = (one_nan(ours), one_nan(theirs));
    if ours.to_data() == theirs.to_data() {
        return Ok(());
    }
    let row = (0..ours.len()).find(|row| ours.slice(*row, 1).to_data() != theirs.slice(*row, 1).to_data());
    let row = row.expect("columns differ where a row does");
    Err(format!("row {row}: {:?}, expected {:?}", ours.slice(row, 1), theirs.slice(row, 1)))
}

/// Says how the subject disagrees with DataFusion over the batch; the number of rows that failed in both otherwise.
fn compare(subject: Subject, expr: &Expr, batch: &RecordBatch) -> std::result::Result<Agreement, String> {
    let ours = subject(expr, batch);
    match expected(expr, batch) {
        Expected::Column(theirs) => {
            let ours = ours.map_err(|e| format!("fails with {e}, expected {theirs:?}"))?;
            same(&ours, &theirs)?;
            Ok(Agreement { values: ours.len() - ours.logical_null_count(), failures: 0 })
        }
        Expected::Rows(rows) => {
            let failures = rows.iter().filter(|row| row.is_err()).count();
            if failures > 0
                && let Ok(ours) = &ours
            {
                let row = rows.iter().position(|row| row.is_err()).expect("one fails");
                return Err(format!("row {row}: {:?}, expected the error {:?}", ours.slice(row, 1), rows[row]));
            }
            let mut values = 0;
            for (row, theirs) in rows.iter().enumerate() {
                let alone = match (failures, &ours) {
                    (0, Ok(ours)) => Ok(ours.slice(row, 1)),
                    (0, Err(error)) => return Err(format!("fails with {error}, though every row alone has a value")),
                    _ => subject(expr, &batch.slice(row, 1)),
                };
                match (alone, theirs) {
                    (Ok(ours), Ok(theirs)) => {
                        same(&ours, theirs).map_err(|e| format!("row {row} alone: {e}"))?;
                        values += ours.len() - ours.logical_null_count();
                    }
                    (Err(_), Err(_)) => {}
                    (ours, theirs) => return Err(format!("row {row} alone: {ours:?}, expected {theirs:?}")),
                }
            }
            Ok(Agreement { values, failures })
        }
    }
}

#[derive(Default)]
struct Agreement {
    values: usize,
    failures: usize,
}

/// The smallest part of the tree that disagrees, and how.
fn blame(subject: Subject, expr: &Expr, batch: &RecordBatch, found: String) -> String {
    for child in expr.children() {
        if let Err(found) = compare(subject, child, batch) {
            return blame(subject, child, batch, found);
        }
    }
    let mut columns = BTreeSet::new();
    expr.visit_columns(&mut |index| {
        columns.insert(index);
    });
    let row = found.strip_prefix("row ").and_then(|text| text.split([':', ' ']).next()?.parse::<usize>().ok());
    let inputs: Vec<String> = match row {
        Some(row) => columns.iter().map(|i| format!("${i} = {:?}", batch.column(*i).slice(row, 1))).collect(),
        None => vec![],
    };
    format!("{expr} : {}\n  {found}\n  {}", expr.ty, inputs.join("\n  "))
}

#[derive(Default)]
struct Tally {
    values: usize,
    failures: usize,
    /// Operators and functions at the root of a tree that had at least one value.
    seen: BTreeSet<String>,
}

/// `trees` trees over a batch of `rows` rows, all of it from the seed.
fn campaign(
    subject: Subject,
    seed: u64,
    rows: usize,
    trees: usize,
    tally: &mut Tally,
) -> std::result::Result<(), String> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let schema = data::schema();
    let batch = data::batch(&mut rng, rows);
    let types = data::all_types();
    for tree in 0..trees {
        // Every fourth tree is a condition: most operators make one.
        let ty = if tree % 4 == 0 { &DataType::Boolean } else { &types[(seed as usize + tree) % types.len()] };
        let depth = rng.random_range(1..=4);
        let expr = grow::Grower { rng: &mut rng, schema: &schema }.expr(ty, depth);
        let agreement = compare(subject, &expr, &batch)
            .map_err(|found| format!("seed {seed}, {rows} rows: {}", blame(subject, &expr, &batch, found)))?;
        tally.values += agreement.values;
        tally.failures += agreement.failures;
        if agreement.values > 0 {
            tally.seen.insert(root(&expr));
        }
    }
    Ok(())
}

fn root(expr: &Expr) -> String {
    match &expr.kind {
        ExprKind::Binary { op, .. } => op.symbol().into(),
        ExprKind::Unary { op, .. } => format!("{op:?}"),
        ExprKind::Call { function, .. } => function.clone(),
        ExprKind::Cast { input, .. } => format!("{} to {}", input.ty, expr.ty),
        ExprKind::Case { .. } => "CASE".into(),
        ExprKind::InList { .. } => "IN".into(),
        ExprKind::Like { .. } => "LIKE".into(),
        ExprKind::Field { .. } => "field".into(),
        ExprKind::Column(_) | ExprKind::Literal(_) => "leaf".into(),
    }
}

#[test]
fn random_trees_agree_with_datafusion() {
    let mut tally = Tally::default();
    for seed in 0..160 {
        let rows = [64, 17, 1, 65, 0, 3, 40, 64][seed as usize % 8];
        campaign(&edgeflow, seed, rows, 60, &mut tally).unwrap_or_else(|found| panic!("{found}"));
    }
    // The trees are worth something only if they meet everything, values and errors.
    for name in [
        "+", "-", "*", "/", "%", "=", "<=", "AND", "OR", "||", "&", "<<", "Negate", "IsNull", "CASE", "IN", "LIKE",
        "field",
    ] {
        assert!(tally.seen.contains(name), "no value of {name} was compared");
    }
    for builtin in Builtin::ALL.iter().map(|b| b.name()) {
        let elsewhere = [
            "ef_regexp",
            "ef_regexp_extract",
            "ef_hash_code",
            "ef_from_unixtime",
            "ef_json_value",
            "ef_make_row",
            "ef_current_timestamp",
        ];
        // Those behind JSON_VALUE have no like in DataFusion; `functions` has their values.
        let later = Builtin::ALL.iter().skip_while(|b| **b != Builtin::JsonValue).any(|b| b.name() == builtin);
        assert!(tally.seen.contains(builtin) != (later || elsewhere.contains(&builtin)), "{builtin}");
    }
    let casts = tally.seen.iter().filter(|name| name.contains(" to ")).count();
    assert!(
        tally.values > 100_000 && tally.failures > 1000 && casts > 100,
        "{} {} {casts}",
        tally.values,
        tally.failures
    );
}

#[test]
fn random_trees_agree_with_datafusion_over_a_whole_batch_and_one_row_more() {
    for seed in 1000..1004 {
        campaign(&edgeflow, seed, 8193, 24, &mut Tally::default()).unwrap_or_else(|found| panic!("{found}"));
    }
}

#[test]
fn an_evaluator_that_is_wrong_in_every_thousandth_value_is_found_out() {
    let count = Cell::new(0usize);
    let wrong = |expr: &Expr, batch: &RecordBatch| {
        let array = edgeflow(expr, batch)?;
        let spoiled = (0..array.len()).map(|row| {
            count.set(count.get() + array.is_valid(row) as usize);
            array.is_valid(row) && count.get().is_multiple_of(1000)
        });
        let spoiled = BooleanArray::new(BooleanBuffer::from_iter(spoiled), None);
        Ok(arrow_select::nullif::nullif(&array, &spoiled).expect("a mask of the same length"))
    };
    let found = (0..20).find_map(|seed| campaign(&wrong, seed, 64, 60, &mut Tally::default()).err());
    assert!(found.is_some_and(|text| text.starts_with("seed ")), "nobody noticed");
}
