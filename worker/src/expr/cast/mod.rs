//! CAST and TRY_CAST within the closed set. A value that does not fit fails a CAST with the value and the type named
//! and becomes NULL under TRY_CAST. Texts are trimmed before they are parsed; nested types are cast item by item.

mod number;
mod text;
mod time;

use super::value::{Kernel, Value, nulls, row_of, try_map};
use arrow_array::cast::AsArray;
use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, BooleanArray, ListArray, MapArray, PrimitiveArray, StructArray, UInt32Array,
};
use arrow_buffer::NullBuffer;
use ef_proto::schema::DataType;
use std::sync::Arc;

/// `$body` with the Arrow type of an integer type named `$T`; None for other types.
macro_rules! each_integer {
    ($ty:expr, $T:ident => $body:expr) => {
        match $ty {
            DataType::Int8 => {
                type $T = arrow_array::types::Int8Type;
                $body
            }
            DataType::Int16 => {
                type $T = arrow_array::types::Int16Type;
                $body
            }
            DataType::Int32 => {
                type $T = arrow_array::types::Int32Type;
                $body
            }
            DataType::Int64 => {
                type $T = arrow_array::types::Int64Type;
                $body
            }
            _ => return None,
        }
    };
}
use each_integer;

/// Wraps a value that does not fit: an error for CAST, NULL for TRY_CAST.
fn misfit<T>(value: Option<T>, safe: bool, show: impl FnOnce() -> String, to: &DataType) -> Result<Option<T>, String> {
    match value {
        None if !safe => Err(format!("{} cannot be cast to {to}", show())),
        value => Ok(value),
    }
}

/// The same for a column: `f` says None of a value that does not fit, `show` is its text.
fn convert<A: ArrowPrimitiveType, B: ArrowPrimitiveType>(
    array: &PrimitiveArray<A>,
    to: &DataType,
    safe: bool,
    f: impl Fn(A::Native) -> Option<B::Native>,
    show: impl Fn(A::Native) -> String,
) -> Result<PrimitiveArray<B>, String> {
    let (output, refused) = try_map::<A, B>(array, f);
    let Some(refused) = refused else { return Ok(output) };
    if !safe && let Some(row) = refused.set_indices().next() {
        return Err(format!("{} cannot be cast to {to}", show(array.value(row))));
    }
    let (_, values, nulls) = output.into_parts();
    Ok(PrimitiveArray::new(values, NullBuffer::union(nulls.as_ref(), Some(&NullBuffer::new(!&refused)))))
}

/// The kernel of a cast; Err says that there is no such cast.
pub(crate) fn kernel(from: &DataType, to: &DataType, safe: bool) -> Result<Kernel, String> {
    use DataType as T;
    let none = || format!("there is no cast from {from} to {to}");
    if from == to {
        return Ok(Box::new(|args, rows| Ok(args[0].to_array(rows))));
    }
    Ok(match (from, to) {
        (T::Null, _) => {
            let to = to.clone();
            Box::new(move |_, rows| Ok(nulls(&to, rows)))
        }
        (_, T::String) => text::to_text(from).ok_or_else(none)?,
        (T::String, _) => text::parse(to, safe).ok_or_else(none)?,
        (T::Boolean, to) if to.is_numeric() => number::of_boolean(to, safe).ok_or_else(none)?,
        (from, T::Boolean) if from.is_numeric() => number::to_boolean(from).ok_or_else(none)?,
        (from, to) if from.is_numeric() && to.is_numeric() => number::kernel(from, to, safe).ok_or_else(none)?,
        (T::Row(a), T::Row(b)) if a.len() == b.len() => {
            let fields =
                a.iter().zip(b).map(|(a, b)| kernel(&a.ty, &b.ty, safe)).collect::<Result<Vec<_>, String>>()?;
            let to = to.clone();
            Box::new(move |args, rows| {
                let Some(row) = args[0].array().as_any().downcast_ref::<StructArray>() else {
                    return Err("a ROW is expected".into());
                };
                let columns = fields.iter().zip(row.columns());
                let columns = columns.map(|(f, c)| f(&[Value::Array(masked(c, row.nulls())?)], rows));
                let columns = columns.collect::<Result<_, _>>()?;
                row_of(&to, columns, row.nulls().cloned(), rows)
            })
        }
        (T::Array(a), T::Array(b)) => {
            let item = kernel(a, b, safe)?;
            let arrow_schema::DataType::List(field) = to.to_arrow() else { return Err(none()) };
            Box::new(move |args, _| {
                let list = args[0].array().as_list::<i32>();
                let list = shown(args[0].array(), list.value_offsets(), list.values().len())?;
                let list = list.as_list::<i32>();
                let values = item(&[Value::Array(list.values().clone())], list.values().len())?;
                ListArray::try_new(field.clone(), list.offsets().clone(), values, list.nulls().cloned())
                    .map(|a| Arc::new(a) as _)
                    .map_err(|e| e.to_string())
            })
        }
        (T::Map(ak, av), T::Map(bk, bv)) => {
            let (key, value) = (kernel(ak, bk, safe)?, kernel(av, bv, safe)?);
            let arrow_schema::DataType::Map(field, _) = to.to_arrow() else { return Err(none()) };
            let arrow_schema::DataType::Struct(entries) = field.data_type().clone() else { return Err(none()) };
            Box::new(move |args, _| {
                let cast = |kernel: &Kernel, items: &ArrayRef| kernel(&[Value::Array(items.clone())], items.len());
                let mut map = shown_map(args[0].array().as_map())?;
                let mut keys = cast(&key, map.keys())?;
                if keys.null_count() > 0 {
                    // A map that lost a key to TRY_CAST would be another map: it is NULL.
                    let range = |row: usize| map.value_offsets()[row] as usize..map.value_offsets()[row + 1] as usize;
                    let whole = (0..map.len()).map(|row| range(row).all(|entry| keys.is_valid(entry)));
                    let nulls = NullBuffer::union(map.nulls(), Some(&whole.collect()));
                    let (field, offsets, entries, _, ordered) = map.into_parts();
                    map = shown_map(&MapArray::new(field, offsets, entries, nulls, ordered))?;
                    keys = cast(&key, map.keys())?;
                }
                let values = cast(&value, map.values())?;
                let entries =
                    StructArray::try_new(entries.clone(), vec![keys, values], None).map_err(|e| e.to_string())?;
                MapArray::try_new(field.clone(), map.offsets().clone(), entries, map.nulls().cloned(), false)
                    .map(|a| Arc::new(a) as _)
                    .map_err(|e| e.to_string())
            })
        }
        _ => time::kernel(from, to, safe).ok_or_else(none)?,
    })
}

/// The fields of a ROW as the rows show them: what lies under a NULL row must not fail a cast.
fn masked(column: &ArrayRef, rows: Option<&NullBuffer>) -> Result<ArrayRef, String> {
    let Some(rows) = rows else { return Ok(column.clone()) };
    arrow_select::nullif::nullif(column, &BooleanArray::new(!rows.inner(), None)).map_err(|e| e.to_string())
}

fn shown_map(map: &MapArray) -> Result<MapArray, String> {
    let shown = shown(&(Arc::new(map.clone()) as ArrayRef), map.value_offsets(), map.entries().len())?;
    Ok(shown.as_map().clone())
}

/// A list or map without the items that no row shows: those that a slice cut off, and those under a NULL.
fn shown(array: &ArrayRef, offsets: &[i32], items: usize) -> Result<ArrayRef, String> {
    if array.nulls().is_none() && offsets[0] == 0 && offsets[array.len()] as usize == items {
        return Ok(array.clone());
    }
    let every = UInt32Array::from_iter_values(0..array.len() as u32);
    arrow_select::take::take(array, &every, None).map_err(|e| e.to_string())
}
