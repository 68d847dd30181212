//! Columns to tensors and back: which declared column feeds which input, which output fills which declared column.

use super::graph::{Graph, Port, shown};
use crate::error::{Context, Error, Result};
use arrow_array::builder::{ListBuilder, PrimitiveBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, BooleanArray, PrimitiveArray, StringArray};
use arrow_buffer::NullBuffer;
use arrow_schema::DataType as Arrow;
use ef_proto::schema::{DataType, Schema};
use std::sync::Arc;
use tract_onnx::prelude::*;

/// How the declared inputs feed the graph.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Feed {
    /// n numeric columns, side by side, are the one input [N, n].
    Matrix,
    /// One ARRAY column, row by row, is the one input [N, …].
    Array,
    /// Each column is an input of its own, [N] or [N, 1].
    Each,
}

/// The feed, and the shapes of the graph's inputs behind the row axis.
pub fn feed(graph: &Graph, inputs: &Schema) -> std::result::Result<(Feed, Vec<Vec<usize>>), String> {
    let ports = &graph.inputs;
    let accepted = || {
        let ports: Vec<String> = ports.iter().map(Port::shown).collect();
        let columns: Vec<String> = inputs.fields.iter().map(|f| format!("{} {}", f.name, f.ty)).collect();
        let hint = match &graph.inputs[..] {
            [port] => match port.shape.as_deref() {
                Some([_, Some(n)]) => format!("{n} numeric columns or one ARRAY<FLOAT> of {n} values"),
                Some([_, rest @ ..]) if rest.len() > 1 => {
                    let n: Option<usize> = rest.iter().copied().product();
                    format!("one ARRAY<FLOAT>{}", n.map_or(String::new(), |n| format!(" of {n} values")))
                }
                _ => "numeric columns".into(),
            },
            ports => format!("{} columns, one an input", ports.len()),
        };
        format!(
            "INPUT ({}) does not fit the graph's inputs {}; {hint} would be accepted",
            columns.join(", "),
            ports.join(", ")
        )
    };
    let number = |ty: &DataType| ty.is_numeric() && !matches!(ty, DataType::Decimal { .. });
    let tensor =
        |ty: &DatumType| [f32::datum_type(), f64::datum_type(), i64::datum_type(), i32::datum_type()].contains(ty);
    if let ([port], [field]) = (&ports[..], &inputs.fields[..])
        && let DataType::Array(item) = &field.ty
    {
        let rest: Option<Vec<usize>> = port.shape.as_ref().and_then(|s| s.get(1..)?.iter().copied().collect());
        return match rest {
            Some(rest) if !rest.is_empty() && number(item) && tensor(&port.ty) => Ok((Feed::Array, vec![rest])),
            _ => Err(accepted()),
        };
    }
    let scalars = inputs.fields.iter().all(|f| number(&f.ty) || f.ty == DataType::String || f.ty == DataType::Boolean);
    if let [port] = &ports[..]
        && inputs.fields.iter().all(|f| number(&f.ty))
        && tensor(&port.ty)
    {
        let n = inputs.len();
        match port.shape.as_deref() {
            None | Some([_, None]) => return Ok((Feed::Matrix, vec![vec![n]])),
            Some([_, Some(columns)]) if *columns == n => return Ok((Feed::Matrix, vec![vec![n]])),
            _ => {}
        }
    }
    if scalars && ports.len() == inputs.len() {
        let shapes: Option<Vec<Vec<usize>>> = ports
            .iter()
            .zip(&inputs.fields)
            .map(|(port, field)| {
                let kinds = (number(&field.ty) || field.ty == DataType::Boolean) && tensor(&port.ty)
                    || field.ty == DataType::String && port.ty == String::datum_type();
                match port.shape.as_deref() {
                    Some([_]) if kinds => Some(vec![]),
                    Some([_, Some(1) | None]) if kinds => Some(vec![1]),
                    _ => None,
                }
            })
            .collect();
        if let Some(shapes) = shapes {
            return Ok((Feed::Each, shapes));
        }
    }
    Err(accepted())
}

/// Rows whose inputs are all there.
pub fn complete(args: &[ArrayRef]) -> Option<NullBuffer> {
    args.iter().fold(None, |nulls, arg| {
        let nulls = NullBuffer::union(nulls.as_ref(), arg.logical_nulls().as_ref());
        match arg.as_list_opt::<i32>() {
            // A NULL in the array is a NULL input too.
            Some(list) if list.values().null_count() > 0 => {
                let whole = |i: usize| list.is_valid(i) && list.value(i).null_count() == 0;
                NullBuffer::union(nulls.as_ref(), Some(&(0..list.len()).map(whole).collect::<Vec<_>>().into()))
            }
            _ => nulls,
        }
    })
}

/// The numbers of a column as f64 (exact but for huge BIGINTs, which no float model tells apart either).
fn numbers(column: &dyn Array) -> Result<Vec<f64>> {
    fn of<T: ArrowPrimitiveType>(column: &dyn Array, to: impl Fn(T::Native) -> f64) -> Vec<f64> {
        column.as_primitive::<T>().values().iter().map(|v| to(*v)).collect()
    }
    Ok(match column.data_type() {
        Arrow::Float32 => of::<Float32Type>(column, f64::from),
        Arrow::Float64 => of::<Float64Type>(column, |v| v),
        Arrow::Int8 => of::<Int8Type>(column, f64::from),
        Arrow::Int16 => of::<Int16Type>(column, f64::from),
        Arrow::Int32 => of::<Int32Type>(column, f64::from),
        Arrow::Int64 => of::<Int64Type>(column, |v| v as f64),
        Arrow::Boolean => column.as_boolean().values().iter().map(|v| if v { 1.0 } else { 0.0 }).collect(),
        other => return Err(Error::invalid(format!("a model's input cannot be {other}"))),
    })
}

/// Fills the inputs for `rows` of the columns (`size` of them, the rest padded with zeros).
pub fn tensors(
    feed: Feed,
    ports: &[Port],
    shapes: &[Vec<usize>],
    args: &[ArrayRef],
    valid: Option<&NullBuffer>,
    rows: std::ops::Range<usize>,
    size: usize,
) -> Result<TVec<TValue>> {
    let args: Vec<ArrayRef> = args.iter().map(|arg| arg.slice(rows.start, rows.len())).collect();
    let is_valid = |row: usize| valid.is_none_or(|valid| valid.is_valid(rows.start + row));
    match feed {
        Feed::Matrix => {
            let width = args.len();
            let mut values = vec![0f64; size * width];
            for (column, arg) in args.iter().enumerate() {
                for (row, value) in numbers(arg)?.into_iter().enumerate() {
                    values[row * width + column] = if is_valid(row) { value } else { 0.0 };
                }
            }
            Ok(tvec!(tensor(ports[0].ty, &[size, width], &values)?))
        }
        Feed::Array => {
            let width: usize = shapes[0].iter().product();
            let mut values = vec![0f64; size * width];
            let list = args[0].as_list::<i32>();
            let items = numbers(list.values())?;
            for (row, range) in list.value_offsets().windows(2).enumerate().filter(|(row, _)| is_valid(*row)) {
                let items = &items[range[0] as usize..range[1] as usize];
                if items.len() != width {
                    return Err(Error::invalid(format!(
                        "an array of {} values reached the input {}, which takes {width}",
                        items.len(),
                        ports[0].shown()
                    )));
                }
                values[row * width..][..width].copy_from_slice(items);
            }
            let shape: Vec<usize> = [size].into_iter().chain(shapes[0].iter().copied()).collect();
            Ok(tvec!(tensor(ports[0].ty, &shape, &values)?))
        }
        Feed::Each => args
            .iter()
            .zip(ports)
            .zip(shapes)
            .map(|((arg, port), rest)| {
                let shape: Vec<usize> = [size].into_iter().chain(rest.iter().copied()).collect();
                if let Some(texts) = arg.as_string_opt::<i32>() {
                    let mut values: Vec<String> = texts.iter().map(|text| text.unwrap_or("").to_string()).collect();
                    values.resize(size, String::new());
                    return Ok(tensor1(&values)
                        .into_shape(&shape)
                        .internal(|| "shaping an input".into())?
                        .into_tvalue());
                }
                let mut values = numbers(arg)?;
                values.resize(size, 0.0);
                tensor(port.ty, &shape, &values)
            })
            .collect(),
    }
}

fn tensor(ty: DatumType, shape: &[usize], values: &[f64]) -> Result<TValue> {
    let made = if ty == f32::datum_type() {
        Tensor::from_shape(shape, &values.iter().map(|v| *v as f32).collect::<Vec<_>>())
    } else if ty == f64::datum_type() {
        Tensor::from_shape(shape, values)
    } else if ty == i64::datum_type() {
        Tensor::from_shape(shape, &values.iter().map(|v| *v as i64).collect::<Vec<_>>())
    } else {
        Tensor::from_shape(shape, &values.iter().map(|v| *v as i32).collect::<Vec<_>>())
    };
    Ok(made.internal(|| "making an input tensor".into())?.into_tvalue())
}

/// Where a declared output comes from: an output of the graph, all of it or one column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    pub output: usize,
    pub column: Option<usize>,
}

/// Binds the declared outputs: by `'onnx.outputs'`, else by name, else by position (a matrix fills as many scalar
/// columns as it has). `found` are the graph's outputs as a run for one row gave them.
pub fn bind(
    outputs: &Schema,
    names: &[String],
    found: &[(DatumType, Vec<usize>)],
    option: Option<&str>,
) -> std::result::Result<Vec<Bound>, String> {
    let width = |output: usize| found[output].1.iter().skip(1).product::<usize>();
    let listed = || {
        let all = names.iter().zip(found).map(|(name, (ty, shape))| {
            let dims: Vec<_> = shape.iter().enumerate().map(|(i, dim)| (i > 0).then_some(*dim)).collect();
            format!("`{name}` {}", shown(*ty, Some(&dims)))
        });
        all.collect::<Vec<_>>().join(", ")
    };
    let by_name = |name: &str| -> Option<Bound> {
        let (name, column) = match name.strip_suffix(']').and_then(|name| name.rsplit_once('[')) {
            Some((name, column)) => (name, Some(column.parse().ok()?)),
            None => (name, None),
        };
        let output =
            names.iter().position(|n| n == name).or_else(|| names.iter().position(|n| n.eq_ignore_ascii_case(name)))?;
        Some(Bound { output, column })
    };
    let bounds: Vec<Bound> = if let Some(option) = option {
        let wanted: Vec<&str> = option.split(',').map(str::trim).collect();
        if wanted.len() != outputs.len() {
            return Err(format!("'onnx.outputs' names {} outputs for {} declared ones", wanted.len(), outputs.len()));
        }
        let bound = wanted.iter().map(|name| {
            by_name(name).ok_or_else(|| format!("'onnx.outputs' names `{name}`, the graph has {}", listed()))
        });
        bound.collect::<std::result::Result<_, _>>()?
    } else if let Some(bounds) = outputs.fields.iter().map(|field| by_name(&field.name)).collect() {
        bounds
    } else {
        let (mut output, mut column) = (0, 0);
        let mut bounds = Vec::new();
        for field in &outputs.fields {
            if output >= found.len() {
                return Err(format!("OUTPUT declares {} columns, the graph has {}", outputs.len(), listed()));
            }
            let whole = matches!(field.ty, DataType::Array(_)) || (column == 0 && width(output) == 1);
            bounds.push(Bound { output, column: (!whole).then_some(column) });
            column = if whole { width(output) } else { column + 1 };
            if column == width(output) {
                (output, column) = (output + 1, 0);
            }
        }
        bounds
    };
    for (field, bound) in outputs.fields.iter().zip(&bounds) {
        let (ty, shape) = &found[bound.output];
        if shape.first() != Some(&1) && !shape.is_empty() {
            return Err(format!("output `{}` does not have one row for each row of the input", names[bound.output]));
        }
        let item = if let DataType::Array(item) = &field.ty { item } else { &field.ty };
        let accepted: &[DataType] = if ty.is_float() {
            &[DataType::Float32, DataType::Float64]
        } else if *ty == bool::datum_type() {
            &[DataType::Boolean]
        } else if *ty == String::datum_type() {
            &[DataType::String]
        } else {
            &[DataType::Int64, DataType::Int32]
        };
        let array = matches!(field.ty, DataType::Array(_));
        let columns = width(bound.output);
        let fits = if array {
            bound.column.is_none() && (ty.is_float() || ty.is_integer())
        } else {
            bound.column.map_or(columns == 1, |column| column < columns)
        };
        if !fits || !accepted.contains(item) {
            let names: Vec<String> = accepted.iter().map(DataType::to_string).collect();
            let names = names.join(" or ");
            let wanted =
                if columns == 1 { names } else { format!("ARRAY<{}>, or {columns} columns of {names},", accepted[0]) };
            return Err(format!(
                "OUTPUT column `{}` is declared {}; {wanted} would be accepted, the graph has {}",
                field.name,
                field.ty,
                listed()
            ));
        }
    }
    Ok(bounds)
}

impl Bound {
    /// `probabilities` or `probabilities[1]`: how the plan writes it down.
    pub fn shown(self, names: &[String]) -> String {
        match self.column {
            None => names[self.output].clone(),
            Some(column) => format!("{}[{column}]", names[self.output]),
        }
    }
}

/// Collects the rows of one declared output over the batches of a call.
pub enum Column {
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Boolean(Vec<bool>),
    Text(Vec<String>),
}

impl Column {
    pub fn new(ty: &DataType) -> Result<Column> {
        let item = if let DataType::Array(item) = ty { item } else { ty };
        Ok(match item {
            DataType::Float32 => Column::Float32(vec![]),
            DataType::Float64 => Column::Float64(vec![]),
            DataType::Int32 => Column::Int32(vec![]),
            DataType::Int64 => Column::Int64(vec![]),
            DataType::Boolean => Column::Boolean(vec![]),
            DataType::String => Column::Text(vec![]),
            other => return Err(Error::invalid(format!("a model's output cannot be {other}"))),
        })
    }

    /// Appends the first `rows` rows of the tensor; returns the values per row.
    pub fn extend(&mut self, tensor: &Tensor, bound: Bound, rows: usize) -> TractResult<usize> {
        fn take<T: Datum>(tensor: &Tensor, bound: Bound, rows: usize, out: &mut Vec<T>) -> TractResult<usize> {
            let width = tensor.shape().iter().skip(1).product::<usize>();
            let cast;
            let tensor = if tensor.datum_type() == T::datum_type() {
                tensor
            } else {
                cast = tensor.cast_to::<T>()?;
                &*cast
            };
            let values = tensor.try_as_plain_ram()?.as_slice::<T>()?;
            match bound.column {
                Some(column) => out.extend(values.chunks_exact(width).take(rows).map(|row| row[column].clone())),
                None => out.extend_from_slice(&values[..rows * width]),
            }
            Ok(if bound.column.is_some() { 1 } else { width })
        }
        match self {
            Column::Float32(out) => take(tensor, bound, rows, out),
            Column::Float64(out) => take(tensor, bound, rows, out),
            Column::Int32(out) => take(tensor, bound, rows, out),
            Column::Int64(out) => take(tensor, bound, rows, out),
            Column::Boolean(out) => take(tensor, bound, rows, out),
            Column::Text(out) => take(tensor, bound, rows, out),
        }
    }

    /// The column, `width` values a row (1 unless it is an ARRAY), NULL where `valid` is not.
    pub fn finish(self, array: bool, width: usize, valid: Option<NullBuffer>) -> ArrayRef {
        fn list<T: ArrowPrimitiveType>(values: Vec<T::Native>, width: usize, valid: Option<NullBuffer>) -> ArrayRef {
            let mut builder = ListBuilder::new(PrimitiveBuilder::<T>::with_capacity(values.len()));
            for (row, items) in values.chunks_exact(width.max(1)).enumerate() {
                let valid = valid.as_ref().is_none_or(|valid| valid.is_valid(row));
                if valid {
                    builder.values().append_slice(items);
                }
                builder.append(valid);
            }
            Arc::new(builder.finish())
        }
        fn of<T: ArrowPrimitiveType>(
            values: Vec<T::Native>,
            array: bool,
            width: usize,
            valid: Option<NullBuffer>,
        ) -> ArrayRef {
            if array {
                list::<T>(values, width, valid)
            } else {
                Arc::new(PrimitiveArray::<T>::new(values.into(), valid))
            }
        }
        match self {
            Column::Float32(values) => of::<Float32Type>(values, array, width, valid),
            Column::Float64(values) => of::<Float64Type>(values, array, width, valid),
            Column::Int32(values) => of::<Int32Type>(values, array, width, valid),
            Column::Int64(values) => of::<Int64Type>(values, array, width, valid),
            Column::Boolean(values) => Arc::new(BooleanArray::new(values.into(), valid)),
            Column::Text(values) => {
                let is_valid = |row: usize| valid.as_ref().is_none_or(|valid| valid.is_valid(row));
                let texts = values.iter().enumerate().map(|(row, text)| is_valid(row).then_some(text.as_str()));
                Arc::new(StringArray::from_iter(texts))
            }
        }
    }
}
