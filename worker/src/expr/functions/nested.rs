//! Functions that take any type: GREATEST and LEAST, and the constructors and accessors of ARRAY, MAP and ROW.

use crate::expr::compare;
use crate::expr::value::{Kernel, Longs, Value, build, nulls, row_of};
use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{Array, ArrayRef, BooleanArray, ListArray, UInt32Array};
use arrow_buffer::{BooleanBuffer, OffsetBuffer};
use ef_proto::expr::BinaryOp;
use ef_proto::function::Builtin;
use ef_proto::schema::DataType;
use std::sync::Arc;

pub(super) fn kernel(function: Builtin, types: &[DataType], ty: &DataType) -> Result<Kernel, String> {
    let ty = ty.clone();
    Ok(match function {
        Builtin::Greatest => extreme(ty, BinaryOp::Gt)?,
        Builtin::Least => extreme(ty, BinaryOp::Lt)?,
        Builtin::MakeArray => {
            let arrow_schema::DataType::List(field) = ty.to_arrow() else { return Err("an ARRAY is expected".into()) };
            Box::new(move |args, rows| {
                let parts: Vec<ArrayRef> = args.iter().map(|v| v.to_array(rows)).collect();
                let parts: Vec<&dyn Array> = parts.iter().map(|p| p.as_ref()).collect();
                let places: Vec<(usize, usize)> =
                    (0..rows).flat_map(|row| (0..parts.len()).map(move |part| (part, row))).collect();
                let values = if rows == 0 {
                    arrow_array::new_empty_array(field.data_type())
                } else {
                    arrow_select::interleave::interleave(&parts, &places).map_err(|e| e.to_string())?
                };
                let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(parts.len(), rows));
                let list = ListArray::try_new(field.clone(), offsets, values, None);
                list.map(|a| Arc::new(a) as ArrayRef).map_err(|e| e.to_string())
            })
        }
        Builtin::MakeRow => {
            Box::new(move |args, rows| row_of(&ty, args.iter().map(|v| v.to_array(rows)).collect(), None, rows))
        }
        Builtin::Cardinality => {
            let list = matches!(types[0], DataType::Array(_));
            Box::new(move |args, rows| {
                let array = args[0].array();
                let offsets = if list { array.as_list::<i32>().offsets() } else { array.as_map().offsets() };
                build::<Int32Type>(rows, &DataType::Int32, |row| {
                    Ok(array.is_valid(row).then(|| offsets[row + 1] - offsets[row]))
                })
            })
        }
        Builtin::ArrayContains => {
            let DataType::Array(item) = &types[0] else { return Err(format!("{} is no array", types[0])) };
            let same = compare::binary(BinaryOp::IsNotDistinctFrom, item, item)
                .ok_or_else(|| format!("values of type {item} cannot be compared"))?;
            Box::new(move |args, rows| {
                let array = args[0].to_array(rows);
                let list = array.as_list::<i32>();
                let offsets = list.value_offsets();
                let (first, last) = (offsets[0] as usize, offsets[rows] as usize);
                let row_of_item: UInt32Array =
                    (0..rows).flat_map(|row| (offsets[row]..offsets[row + 1]).map(move |_| row as u32)).collect();
                let wanted = arrow_select::take::take(&args[1].to_array(rows), &row_of_item, None);
                let wanted = wanted.map_err(|e| e.to_string())?;
                let items = list.values().slice(first, last - first);
                let same = same(&[Value::Array(items), Value::Array(wanted)], last - first)?;
                let same = same.as_boolean();
                let found = |row: usize| {
                    let mut items = offsets[row] as usize..offsets[row + 1] as usize;
                    list.is_valid(row).then(|| items.any(|at| same.value(at - first)))
                };
                Ok(Arc::new((0..rows).map(found).collect::<BooleanArray>()))
            })
        }
        Builtin::ElementAt => match &types[0] {
            DataType::Array(_) => {
                let index_ty = types[1].clone();
                Box::new(move |args, rows| {
                    let array = args[0].to_array(rows);
                    let list = array.as_list::<i32>();
                    let index = Longs::of(&args[1], &index_ty).ok_or("a position is expected")?;
                    let places: UInt32Array = (0..rows)
                        .map(|row| {
                            let index = index.get(row).filter(|_| list.is_valid(row))?;
                            let length = list.value_length(row) as i64;
                            (1..=length).contains(&index).then(|| (list.value_offsets()[row] as i64 + index - 1) as u32)
                        })
                        .collect();
                    arrow_select::take::take(list.values(), &places, None).map_err(|e| e.to_string())
                })
            }
            DataType::Map(key, _) => {
                let equal = compare::binary(BinaryOp::Eq, key, key).ok_or_else(|| format!("keys of type {key}"))?;
                Box::new(move |args, rows| {
                    let array = args[0].to_array(rows);
                    let map = array.as_map();
                    let wanted = args[1].to_array(rows);
                    let offsets = map.offsets();
                    let (first, last) = (offsets[0] as usize, offsets[rows] as usize);
                    let row_of_entry: UInt32Array =
                        (0..rows).flat_map(|row| (offsets[row]..offsets[row + 1]).map(move |_| row as u32)).collect();
                    let wanted = arrow_select::take::take(&wanted, &row_of_entry, None).map_err(|e| e.to_string())?;
                    let keys = map.keys().slice(first, last - first);
                    let same = equal(&[Value::Array(keys), Value::Array(wanted)], last - first)?;
                    let same = same.as_boolean();
                    let places: UInt32Array = (0..rows)
                        .map(|row| {
                            let mut entries = offsets[row] as usize..offsets[row + 1] as usize;
                            let found = entries.find(|e| same.is_valid(e - first) && same.value(e - first))?;
                            map.is_valid(row).then_some(found as u32)
                        })
                        .collect();
                    arrow_select::take::take(map.values(), &places, None).map_err(|e| e.to_string())
                })
            }
            other => return Err(format!("{other} has no elements")),
        },
        other => return Err(format!("{} is not a function of any type", other.name())),
    })
}

/// NULL if any argument is.
fn extreme(ty: DataType, better: BinaryOp) -> Result<Kernel, String> {
    if ty == DataType::Null {
        return Ok(Box::new(move |_, rows| Ok(nulls(&ty, rows))));
    }
    let better = compare::binary(better, &ty, &ty).ok_or_else(|| format!("values of type {ty} cannot be compared"))?;
    Ok(Box::new(move |args, rows| {
        let mut best = args[0].to_array(rows);
        let mut missing = BooleanBuffer::new_unset(rows);
        let mut miss = |array: &ArrayRef| {
            if let Some(nulls) = array.nulls() {
                missing = &missing | &!nulls.inner();
            }
        };
        miss(&best);
        for arg in &args[1..] {
            let arg = arg.to_array(rows);
            miss(&arg);
            let wins = better(&[Value::Array(arg.clone()), Value::Array(best.clone())], rows)?;
            best = arrow_select::zip::zip(wins.as_boolean(), &arg, &best).map_err(|e| e.to_string())?;
        }
        if missing.count_set_bits() == 0 {
            return Ok(best);
        }
        arrow_select::nullif::nullif(&best, &BooleanArray::new(missing, None)).map_err(|e| e.to_string())
    }))
}
