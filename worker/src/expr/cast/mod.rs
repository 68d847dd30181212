//! CAST and TRY_CAST within the closed set. A value that does not fit fails a CAST with the value and the type named
//! and becomes NULL under TRY_CAST. Texts are trimmed before they are parsed; nested types are cast item by item.

mod number;
mod text;
mod time;

use super::value::{Kernel, Value, nulls, row_of};
use arrow_array::cast::AsArray;
use arrow_array::types::Int8Type;
use arrow_array::{Array, ListArray, MapArray, StructArray};
use ef_proto::schema::DataType;
use std::sync::Arc;

/// Wraps a value that does not fit: an error for CAST, NULL for TRY_CAST.
fn misfit<T>(value: Option<T>, safe: bool, show: impl FnOnce() -> String, to: &DataType) -> Result<Option<T>, String> {
    match value {
        None if !safe => Err(format!("{} cannot be cast to {to}", show())),
        value => Ok(value),
    }
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
        (T::Boolean, to) if to.is_numeric() => {
            let number = number::kernel(&T::Int8, to, safe).or_else(|| same_int8(to)).ok_or_else(none)?;
            Box::new(move |args, rows| {
                let bits = args[0].array().as_boolean();
                let ones = bits.iter().map(|b| b.map(|b| b as i8)).collect::<arrow_array::PrimitiveArray<Int8Type>>();
                number(&[Value::Array(Arc::new(ones))], rows)
            })
        }
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
                let columns = columns.map(|(f, c)| f(&[Value::Array(c.clone())], rows)).collect::<Result<_, _>>()?;
                row_of(&to, columns, row.nulls().cloned(), rows)
            })
        }
        (T::Array(a), T::Array(b)) => {
            let item = kernel(a, b, safe)?;
            let arrow_schema::DataType::List(field) = to.to_arrow() else { return Err(none()) };
            Box::new(move |args, _| {
                let list = args[0].array().as_list::<i32>();
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
                let map = args[0].array().as_map();
                let len = map.entries().len();
                let keys = key(&[Value::Array(map.keys().clone())], len)?;
                let values = value(&[Value::Array(map.values().clone())], len)?;
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

fn same_int8(to: &DataType) -> Option<Kernel> {
    (*to == DataType::Int8).then(|| Box::new(|args: &[Value], rows: usize| Ok(args[0].to_array(rows))) as Kernel)
}
