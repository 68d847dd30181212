//! Three-valued logic: NOT, the IS tests, AND and OR of two columns, and IN. Which rows AND, OR and CASE evaluate at
//! all is `node`'s business.

use super::compare;
use super::value::{Cells, Kernel, Longs, Value};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray, StringArray};
use arrow_buffer::{BooleanBuffer, NullBuffer};
use ef_proto::expr::{BinaryOp, UnaryOp};
use ef_proto::schema::DataType;
use hashbrown::HashSet;
use std::sync::Arc;

pub(crate) fn unary(op: UnaryOp, input: &DataType) -> Option<Kernel> {
    let boolean = *input == DataType::Boolean;
    match op {
        UnaryOp::IsNull => Some(Box::new(|args, rows| Ok(bools(!&validity(&args[0], rows))))),
        UnaryOp::IsNotNull => Some(Box::new(|args, rows| Ok(bools(validity(&args[0], rows))))),
        UnaryOp::Not if boolean => Some(Box::new(|args, _| {
            let input = args[0].array().as_boolean();
            Ok(Arc::new(BooleanArray::new(!input.values(), input.nulls().cloned())))
        })),
        UnaryOp::IsTrue if boolean => Some(Box::new(|args, _| Ok(bools(is(&args[0], true))))),
        UnaryOp::IsNotTrue if boolean => Some(Box::new(|args, _| Ok(bools(!&is(&args[0], true))))),
        UnaryOp::IsFalse if boolean => Some(Box::new(|args, _| Ok(bools(is(&args[0], false))))),
        UnaryOp::IsNotFalse if boolean => Some(Box::new(|args, _| Ok(bools(!&is(&args[0], false))))),
        UnaryOp::Negate => super::arithmetic::negate(input),
        _ => None,
    }
}

fn bools(bits: BooleanBuffer) -> ArrayRef {
    Arc::new(BooleanArray::new(bits, None))
}

fn validity(value: &Value, rows: usize) -> BooleanBuffer {
    match value.array().logical_nulls() {
        None => BooleanBuffer::new_set(rows),
        Some(nulls) => nulls.into_inner(),
    }
}

/// Rows that are known to be `wanted`.
fn is(value: &Value, wanted: bool) -> BooleanBuffer {
    let input = value.array().as_boolean();
    let bits = if wanted { input.values().clone() } else { !input.values() };
    match input.nulls() {
        None => bits,
        Some(nulls) => &bits & nulls.inner(),
    }
}

/// AND or OR of two columns of equal length.
pub(crate) fn combine(and: bool, left: &BooleanArray, right: &BooleanArray) -> BooleanArray {
    if left.nulls().is_none() && right.nulls().is_none() {
        let (l, r) = (left.values(), right.values());
        return BooleanArray::new(if and { l & r } else { l | r }, None);
    }
    let known = |array: &BooleanArray, wanted: bool| {
        let bits = if wanted { array.values().clone() } else { !array.values() };
        array.nulls().map_or(bits.clone(), |nulls| &bits & nulls.inner())
    };
    // One side that decides is enough; both must be known otherwise.
    let decides = &known(left, !and) | &known(right, !and);
    let agrees = &known(left, and) & &known(right, and);
    let values = if and { agrees.clone() } else { decides.clone() };
    BooleanArray::new(values, Some(NullBuffer::new(&decides | &agrees)))
}

enum Set {
    Few(Vec<i64>),
    Longs(HashSet<i64, foldhash::fast::RandomState>),
    Texts(HashSet<Box<str>, foldhash::fast::RandomState>),
}

/// The kernel of `input [NOT] IN (list…)`: arguments are the input and then the items. `constants` holds the items
/// where all are literals; those become a set.
pub(crate) fn in_list(
    ty: &DataType,
    constants: Option<&[Value]>,
    items: usize,
    negated: bool,
) -> Result<Kernel, String> {
    if let Some(constants) = constants
        && let Some((set, has_null)) = set_of(ty, constants)
    {
        let ty = ty.clone();
        return Ok(Box::new(move |args, rows| {
            let answer = |found: bool| (found || !has_null).then_some(found != negated);
            let array: BooleanArray = match &set {
                Set::Few(list) => {
                    let input = longs(&args[0], &ty)?;
                    (0..rows).map(|row| input.get(row).and_then(|v| answer(list.contains(&v)))).collect()
                }
                Set::Longs(set) => {
                    let input = longs(&args[0], &ty)?;
                    (0..rows).map(|row| input.get(row).and_then(|v| answer(set.contains(&v)))).collect()
                }
                Set::Texts(set) => {
                    let input: Cells<&StringArray> = args[0].texts();
                    (0..rows).map(|row| input.get(row).and_then(|v| answer(set.contains(v)))).collect()
                }
            };
            Ok(Arc::new(array))
        }));
    }
    let equal =
        compare::binary(BinaryOp::Eq, ty, ty).ok_or_else(|| format!("values of type {ty} cannot be compared"))?;
    Ok(Box::new(move |args, rows| {
        let mut found = BooleanArray::new(BooleanBuffer::new_unset(rows), None);
        for item in 1..=items {
            let same = if args[0].is_constant() && args[item].is_constant() {
                let one = equal(&[args[0].clone(), args[item].clone()], 1)?;
                Value::Constant(one).to_array(rows)
            } else {
                equal(&[args[0].clone(), args[item].clone()], rows)?
            };
            found = combine(false, &found, same.as_boolean());
        }
        if negated {
            found = BooleanArray::new(!found.values(), found.nulls().cloned());
        }
        Ok(Arc::new(found))
    }))
}

fn longs<'a>(value: &'a Value, ty: &DataType) -> Result<Longs<'a>, String> {
    Longs::of(value, ty).ok_or_else(|| format!("{ty} is not carried by an integer"))
}

/// The non-NULL items as a set, and whether there was a NULL; None for types without one.
fn set_of(ty: &DataType, all: &[Value]) -> Option<(Set, bool)> {
    let has_null = all.iter().any(Value::is_null_constant);
    let items = all.iter().filter(|item| !item.is_null_constant());
    if *ty == DataType::String {
        return Some((Set::Texts(items.filter_map(|v| v.texts().get(0).map(Box::from)).collect()), has_null));
    }
    Longs::of(all.first()?, ty)?;
    let values: Vec<i64> = items.map(|v| Longs::of(v, ty)?.get(0)).collect::<Option<_>>()?;
    let set = if values.len() <= 8 { Set::Few(values) } else { Set::Longs(values.into_iter().collect()) };
    Some((set, has_null))
}
