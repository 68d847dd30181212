//! For the tests of keyed operators: a store over a BTreeMap, a sink that collects rows, random rows, and aggregates
//! recomputed the naive way.

use super::{Emit, Operator, Scope};
use crate::error::Result;
use crate::state::{Kind, Staged, Store, Visit};
use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::*;
use ef_proto::plan::{Aggregate, AggregateFunction as F, Output};
use ef_proto::schema::{DataType, Field, Schema, Unit};
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A store in a map. As Memory it forgets at every snapshot, as the trait says.
pub struct MapStore {
    pub kind: Kind,
    pub map: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Calls so far.
    pub scans: usize,
    pub range_deletes: usize,
}

impl MapStore {
    pub fn new(kind: Kind) -> MapStore {
        MapStore { kind, map: BTreeMap::new(), scans: 0, range_deletes: 0 }
    }
}

impl Store for MapStore {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.map.insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<()> {
        self.map.remove(key);
        Ok(())
    }

    fn delete_range(&mut self, from: &[u8], to: &[u8]) -> Result<()> {
        self.range_deletes += 1;
        self.map.retain(|key, _| !(from <= key.as_slice() && key.as_slice() < to));
        Ok(())
    }

    fn get_many(&mut self, keys: &[&[u8]], each: &mut dyn FnMut(usize, Option<&[u8]>) -> Result<()>) -> Result<()> {
        keys.iter().enumerate().try_for_each(|(i, key)| each(i, self.map.get(*key).map(Vec::as_slice)))
    }

    fn scan(&mut self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()> {
        self.scans += 1;
        for (key, value) in self.map.range(from.to_vec()..to.to_vec()) {
            if !visit(key, value)? {
                break;
            }
        }
        Ok(())
    }

    fn forget_restored(&mut self) {
        if self.kind == Kind::Memory {
            self.map.clear();
        }
    }

    fn snapshot(&mut self) -> Result<Staged> {
        unreachable!("operators do not stage")
    }

    fn confirm(&mut self, _sequence: u64) {}

    fn memory_bytes(&self) -> usize {
        0
    }
}

/// What an operator emits.
#[derive(Default)]
pub struct Sink {
    pub main: Vec<RecordBatch>,
    pub late: Vec<RecordBatch>,
}

impl Emit for Sink {
    fn emit_to(&mut self, output: Output, batch: RecordBatch) -> Result<()> {
        match output {
            Output::Late => self.late.push(batch),
            _ => self.main.push(batch),
        }
        Ok(())
    }
}

/// Everything around an operator: its outputs, its store, its clock.
pub struct World {
    pub sink: Sink,
    pub store: MapStore,
    pub now_ms: i64,
}

impl World {
    pub fn new(kind: Kind) -> World {
        World { sink: Sink::default(), store: MapStore::new(kind), now_ms: 0 }
    }

    pub fn scope(&mut self) -> Scope<'_> {
        Scope { out: &mut self.sink, store: &mut self.store, now_ms: self.now_ms }
    }

    pub fn at(&mut self, now_ms: i64) -> Scope<'_> {
        self.now_ms = now_ms;
        self.scope()
    }
}

/// Takes a checkpoint of the operator and restores it into `fresh`, as a crash right after it would.
pub fn restart(old: &mut dyn Operator, fresh: &mut dyn Operator, world: &mut World) {
    let blob = old.snapshot(&mut world.store).unwrap();
    fresh.restore(&mut world.store, &[blob]).unwrap();
}

#[derive(Clone, Debug, PartialEq, PartialOrd)]
pub enum Value {
    Null,
    Int(i64),
    Float(f64),
    Text(String),
}

impl Value {
    /// Equal but for the last digits of a double.
    pub fn near(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Float(a), Value::Float(b)) => {
                a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
            }
            _ => self == other,
        }
    }
}

pub fn value(column: &ArrayRef, row: usize) -> Value {
    use arrow_schema::DataType as A;
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        A::Int64 => Value::Int(column.as_primitive::<Int64Type>().value(row)),
        A::Int8 => Value::Int(i64::from(column.as_primitive::<Int8Type>().value(row))),
        A::Int16 => Value::Int(i64::from(column.as_primitive::<Int16Type>().value(row))),
        A::Int32 => Value::Int(i64::from(column.as_primitive::<Int32Type>().value(row))),
        A::Float32 => Value::Float(f64::from(column.as_primitive::<Float32Type>().value(row))),
        A::Timestamp(..) => Value::Int(column.as_primitive::<TimestampMillisecondType>().value(row)),
        A::Float64 => Value::Float(column.as_primitive::<Float64Type>().value(row)),
        A::Boolean => Value::Int(i64::from(column.as_boolean().value(row))),
        A::Decimal128(..) => Value::Float(column.as_primitive::<Decimal128Type>().value(row) as f64 / 100.0),
        A::Utf8 => Value::Text(column.as_string::<i32>().value(row).to_string()),
        other => panic!("{other}"),
    }
}

pub fn rows_of(batches: &[RecordBatch]) -> Vec<Vec<Value>> {
    batches
        .iter()
        .flat_map(|batch| (0..batch.num_rows()).map(|row| batch.columns().iter().map(|c| value(c, row)).collect()))
        .collect()
}

pub fn same_rows(a: &[Vec<Value>], b: &[Vec<Value>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.near(b)))
}

pub fn sorted(mut rows: Vec<Vec<Value>>) -> Vec<Vec<Value>> {
    rows.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    rows
}

pub const TIME: usize = 2;

/// k BIGINT, name STRING, t TIMESTAMP(3), v DOUBLE, i BIGINT, f BOOLEAN, s STRING, d DECIMAL(10, 2); all but t nullable.
pub fn input() -> Schema {
    Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("name", DataType::String, true),
        Field::new("t", DataType::Timestamp(Unit::Milli), true),
        Field::new("v", DataType::Float64, true),
        Field::new("i", DataType::Int64, true),
        Field::new("f", DataType::Boolean, true),
        Field::new("s", DataType::String, true),
        Field::new("d", DataType::Decimal { precision: 10, scale: 2 }, true),
    ])
}

pub fn random_row(rng: &mut SmallRng, time: i64) -> Vec<Value> {
    let some = |rng: &mut SmallRng, v: Value| if rng.random_bool(0.1) { Value::Null } else { v };
    let k = Value::Int(rng.random_range(0..4));
    let name = Value::Text(format!("dev-{}", rng.random_range(0..3)));
    let v = Value::Float(f64::from(rng.random_range(-1000..1000)) / 8.0);
    let i = Value::Int(rng.random_range(-5..5));
    let f = Value::Int(rng.random_range(0..2));
    let s = Value::Text(["", "a", "bb", "zebra"][rng.random_range(0..4)].into());
    let d = Value::Float(f64::from(rng.random_range(-1000..1000)) / 100.0);
    vec![
        some(rng, k),
        some(rng, name),
        Value::Int(time),
        some(rng, v),
        some(rng, i),
        some(rng, f),
        some(rng, s),
        some(rng, d),
    ]
}

pub fn batch_of(rows: &[Vec<Value>]) -> RecordBatch {
    let int = |at: usize| rows.iter().map(move |r| if let Value::Int(v) = r[at] { Some(v) } else { None });
    let text = |at: usize| rows.iter().map(move |r| if let Value::Text(v) = &r[at] { Some(v.clone()) } else { None });
    let float = |at: usize| rows.iter().map(move |r| if let Value::Float(v) = r[at] { Some(v) } else { None });
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(int(0).collect::<Int64Array>()),
        Arc::new(text(1).collect::<StringArray>()),
        Arc::new(int(2).collect::<TimestampMillisecondArray>()),
        Arc::new(float(3).collect::<Float64Array>()),
        Arc::new(int(4).collect::<Int64Array>()),
        Arc::new(int(5).map(|v| v.map(|v| v != 0)).collect::<BooleanArray>()),
        Arc::new(text(6).collect::<StringArray>()),
        Arc::new(
            float(7)
                .map(|v| v.map(|v| (v * 100.0).round() as i128))
                .collect::<Decimal128Array>()
                .with_precision_and_scale(10, 2)
                .unwrap(),
        ),
    ];
    let mut schema = input();
    if rows.first().is_some_and(|row| row.len() == 9) {
        columns.push(Arc::new(int(8).map(|v| v.map(|v| v as i8)).collect::<Int8Array>()));
        schema = schema.with_op();
    }
    RecordBatch::try_new(schema.to_arrow(), columns).unwrap()
}

/// Every function, over most types.
pub fn aggregates(mergeable: bool) -> Vec<Aggregate> {
    let schema = input();
    let call = |function, arg: Option<usize>, filter, distinct| {
        let arg_ty = arg.map_or(DataType::Null, |arg| schema.fields[arg].ty.clone());
        let ty = match (function, &arg_ty) {
            (F::Count, _) => DataType::Int64,
            (F::Avg | F::StddevPop | F::StddevSamp | F::VarPop | F::VarSamp, DataType::Decimal { .. }) => {
                DataType::Float64
            }
            (F::Avg | F::StddevPop | F::StddevSamp | F::VarPop | F::VarSamp, _) => DataType::Float64,
            (F::Sum, DataType::Decimal { .. }) => DataType::Decimal { precision: 38, scale: 2 },
            (_, ty) => ty.clone(),
        };
        Aggregate { function, arg, arg_ty, filter, distinct, ty }
    };
    // The type of an AVG is its argument's: whole numbers lose the fraction.
    let as_ty = |function, arg: usize, ty| Aggregate { ty, ..call(function, Some(arg), None, false) };
    let mut list = vec![
        call(F::Count, None, None, false),
        call(F::Count, None, Some(5), false),
        call(F::Count, Some(3), None, false),
        call(F::Sum, Some(4), None, false),
        call(F::Sum, Some(3), Some(5), false),
        call(F::Sum, Some(7), None, false),
        call(F::Avg, Some(3), None, false),
        call(F::Avg, Some(4), None, false),
        call(F::Avg, Some(7), None, false),
        as_ty(F::Avg, 4, DataType::Int64),
        as_ty(F::Avg, 4, DataType::Int32),
        as_ty(F::Avg, 4, DataType::Int16),
        as_ty(F::Avg, 4, DataType::Int8),
        as_ty(F::Avg, 3, DataType::Float32),
        call(F::Min, Some(3), None, false),
        call(F::Max, Some(4), Some(5), false),
        call(F::Min, Some(6), None, false),
        call(F::Max, Some(6), None, false),
        call(F::Max, Some(7), None, false),
        call(F::Max, Some(5), None, false),
        call(F::StddevPop, Some(3), None, false),
        call(F::StddevSamp, Some(3), None, false),
        call(F::VarPop, Some(4), None, false),
        call(F::VarSamp, Some(3), None, false),
    ];
    if !mergeable {
        list.extend([
            call(F::Count, Some(4), None, true),
            call(F::Count, Some(6), Some(5), true),
            call(F::Sum, Some(4), None, true),
            call(F::Avg, Some(3), None, true),
            call(F::FirstValue, Some(3), None, false),
            call(F::LastValue, Some(6), None, false),
            call(F::LastValue, Some(4), Some(5), false),
        ]);
    }
    list
}

/// The aggregate over rows in order of arrival, by its definition.
pub fn naive(of: &Aggregate, rows: &[&Vec<Value>]) -> Value {
    let mut values: Vec<&Value> = rows
        .iter()
        .filter(|row| of.filter.is_none_or(|f| row[f] == Value::Int(1)))
        .map(|row| of.arg.map_or(&Value::Int(1), |arg| &row[arg]))
        .filter(|v| **v != Value::Null)
        .collect();
    if of.distinct {
        values.sort_by(|a, b| a.partial_cmp(b).unwrap());
        values.dedup();
    }
    let number = |v: &Value| match v {
        Value::Int(v) => *v as f64,
        Value::Float(v) => *v,
        _ => panic!("no number"),
    };
    let n = values.len() as f64;
    if of.function == F::Count {
        return Value::Int(values.len() as i64);
    }
    if values.is_empty() {
        return Value::Null;
    }
    let sum = |values: &[&Value]| values.iter().map(|v| number(v)).sum::<f64>();
    match of.function {
        F::Sum if of.arg_ty == DataType::Int64 => Value::Int(sum(&values) as i64),
        F::Sum => Value::Float(sum(&values)),
        F::Avg if of.ty == DataType::Float32 => Value::Float(f64::from((sum(&values) / n) as f32)),
        F::Avg if of.ty.is_numeric() && of.ty != DataType::Float64 => Value::Int((sum(&values) / n) as i64),
        F::Avg => Value::Float(sum(&values) / n),
        F::Min => values.iter().min_by(|a, b| a.partial_cmp(b).unwrap()).map(|v| (*v).clone()).unwrap(),
        F::Max => values.iter().max_by(|a, b| a.partial_cmp(b).unwrap()).map(|v| (*v).clone()).unwrap(),
        F::FirstValue => values[0].clone(),
        F::LastValue => values[values.len() - 1].clone(),
        F::StddevPop | F::StddevSamp | F::VarPop | F::VarSamp => {
            let mean = sum(&values) / n;
            let m2: f64 = values.iter().map(|v| (number(v) - mean).powi(2)).sum();
            let sample = matches!(of.function, F::StddevSamp | F::VarSamp);
            if sample && values.len() == 1 {
                return Value::Null;
            }
            let variance = m2 / if sample { n - 1.0 } else { n };
            Value::Float(if matches!(of.function, F::StddevPop | F::StddevSamp) { variance.sqrt() } else { variance })
        }
        F::Count => unreachable!(),
    }
}

/// Keys of these columns, then the aggregates, for each distinct key.
pub fn naive_groups(keys: &[usize], aggregates: &[Aggregate], rows: &[&Vec<Value>]) -> Vec<Vec<Value>> {
    let names: BTreeSet<String> = rows.iter().map(|row| key_name(keys, row)).collect();
    names
        .into_iter()
        .map(|name| {
            let mine: Vec<&Vec<Value>> = rows.iter().copied().filter(|row| key_name(keys, row) == name).collect();
            let mut out: Vec<Value> = keys.iter().map(|key| mine[0][*key].clone()).collect();
            out.extend(aggregates.iter().map(|of| naive(of, &mine)));
            out
        })
        .collect()
}

pub fn key_name(keys: &[usize], row: &[Value]) -> String {
    keys.iter().map(|key| format!("{:?};", row[*key])).collect()
}

/// The schema of keys and results, with the columns of `more`.
pub fn output(keys: &[usize], aggregates: &[Aggregate], more: &[(&str, DataType)]) -> Schema {
    let mut fields: Vec<Field> = keys.iter().map(|key| input().fields[*key].clone()).collect();
    fields.extend(aggregates.iter().enumerate().map(|(i, of)| Field::new(format!("a{i}"), of.ty.clone(), true)));
    fields.extend(more.iter().map(|(name, ty)| Field::new(*name, ty.clone(), true)));
    Schema::new(fields)
}
