//! A model at plan time ([`inspect`]) and at run time ([`Runner`]).
//!
//! A runner holds plans for a few batch sizes and pads the last rows of a call to the smallest that holds them, so
//! that a window of ten rows does not pay for a thousand.

use super::BATCH_ROWS_DEFAULT;
use super::binding::{self, Bound, Column, Feed};
use super::graph::{Graph, Plan};
use crate::error::{Code, Context, Error, Result};
use arrow_array::ArrayRef;
use ef_proto::plan::Model;
use ef_proto::schema::{DataType, Schema};
use std::collections::BTreeMap;
use std::path::Path;
use tract_onnx::prelude::*;

/// Checks the file against the declared columns by building it and running one row of zeros.
pub fn inspect(path: &Path, inputs: &Schema, outputs: &Schema, options: &BTreeMap<String, String>) -> Result<Model> {
    let graph = Graph::read(path)?;
    let batch_rows = match options.get("onnx.batch-rows") {
        None => BATCH_ROWS_DEFAULT,
        Some(text) => text.parse().ok().filter(|rows| (1..=65_536).contains(rows)).ok_or_else(|| {
            Error::invalid(format!("'onnx.batch-rows' is `{text}`; a number from 1 to 65536 would be accepted"))
        })?,
    };
    let checked = Checked::new(graph, inputs, outputs, options.get("onnx.outputs").map(String::as_str))
        .map_err(|what| Error::invalid(format!("model file `{}`: {what}", path.display())))?;
    Ok(Model {
        name: String::new(),
        provider: "onnx".into(),
        path: path.display().to_string(),
        digest: checked.graph.digest.clone(),
        inputs: inputs.clone(),
        outputs: outputs.clone(),
        bindings: checked.bounds.iter().map(|bound| bound.shown(&checked.graph.outputs)).collect(),
        batch_rows,
    })
}

/// A graph that fits the declared columns.
struct Checked {
    graph: Graph,
    feed: Feed,
    /// Of the inputs, behind the row axis.
    shapes: Vec<Vec<usize>>,
    bounds: Vec<Bound>,
}

impl Checked {
    fn new(
        graph: Graph,
        inputs: &Schema,
        outputs: &Schema,
        names: Option<&str>,
    ) -> std::result::Result<Checked, String> {
        let (feed, shapes) = binding::feed(&graph, inputs)?;
        let fixed =
            graph.inputs.iter().filter_map(|port| port.shape.as_ref()?.first().copied()?).find(|rows| *rows > 1);
        if let Some(rows) = fixed {
            return Err(format!("the graph takes exactly {rows} rows a call; export it with a dynamic batch axis"));
        }
        let mut checked = Checked { graph, feed, shapes, bounds: vec![] };
        let plan = checked.plan(1)?;
        let found = checked.warm_up(&plan, 1)?;
        checked.bounds = binding::bind(outputs, &checked.graph.outputs, &found, names)?;
        Ok(checked)
    }

    fn plan(&self, rows: usize) -> std::result::Result<Plan, String> {
        let shapes = self.shapes.iter().map(|rest| [rows].into_iter().chain(rest.iter().copied()).collect());
        self.graph.plan(&shapes.collect::<Vec<_>>())
    }

    /// Runs rows of zeros; returns type and shape of each output.
    fn warm_up(&self, plan: &Plan, rows: usize) -> std::result::Result<Vec<(DatumType, Vec<usize>)>, String> {
        let zeros = self.graph.inputs.iter().zip(&self.shapes).map(|(port, rest)| {
            let shape: Vec<usize> = [rows].into_iter().chain(rest.iter().copied()).collect();
            Ok(Tensor::zero_dt(port.ty, &shape)?.into_tvalue())
        });
        let found = zeros.collect::<TractResult<TVec<TValue>>>().and_then(|zeros| plan.run(zeros));
        let found = found.map_err(|e| format!("a row of zeros cannot be run: {}", e.root_cause()))?;
        Ok(found.iter().map(|tensor| (tensor.datum_type(), tensor.shape().to_vec())).collect())
    }

    /// The graph has its rows fixed to one.
    fn single(&self) -> bool {
        self.graph.inputs.iter().any(|port| port.shape.as_ref().is_some_and(|shape| shape.first() == Some(&Some(1))))
    }
}

pub struct Runner {
    name: String,
    checked: Checked,
    outputs: Vec<DataType>,
    /// Plans by batch size, the smallest first.
    plans: Vec<(usize, Plan)>,
}

impl Runner {
    /// Loads the file that was checked at plan time, and no other, and warms it up.
    pub fn load(model: &Model) -> Result<Runner> {
        let graph = Graph::read(Path::new(&model.path))?;
        if graph.digest != model.digest {
            return Err(Error::invalid(format!(
                "model `{}`: file `{}` has changed since the job was planned ({} then, {} now); submit the job again",
                model.name, model.path, model.digest, graph.digest
            )));
        }
        let what = |what| Error::invalid(format!("model `{}`: {what}", model.name));
        let names = model.bindings.join(",");
        let checked = Checked::new(graph, &model.inputs, &model.outputs, Some(&names)).map_err(what)?;
        let mut sizes = vec![1, 32, model.batch_rows.max(1) as usize];
        sizes.sort_unstable();
        sizes.dedup();
        sizes.retain(|size| *size <= model.batch_rows.max(1) as usize && (*size == 1 || !checked.single()));
        let mut plans = Vec::new();
        for size in sizes {
            let plan = checked.plan(size).map_err(what)?;
            checked.warm_up(&plan, size).map_err(what)?;
            plans.push((size, plan));
        }
        let outputs = model.outputs.fields.iter().map(|field| field.ty.clone()).collect();
        Ok(Runner { name: model.name.clone(), checked, outputs, plans })
    }

    /// The declared outputs for `rows` rows of the declared inputs.
    pub fn predict(&mut self, args: &[ArrayRef], rows: usize) -> Result<Vec<ArrayRef>> {
        let valid = binding::complete(args);
        let mut columns = self.outputs.iter().map(Column::new).collect::<Result<Vec<_>>>()?;
        let mut widths = vec![1; columns.len()];
        let mut from = 0;
        while from < rows {
            let left = rows - from;
            let (size, plan) =
                self.plans.iter().find(|(size, _)| *size >= left).unwrap_or(&self.plans[self.plans.len() - 1]);
            let to = from + left.min(*size);
            let Checked { graph, feed, shapes, bounds } = &self.checked;
            let name = &self.name;
            let inputs = binding::tensors(*feed, &graph.inputs, shapes, args, valid.as_ref(), from..to, *size)
                .map_err(|e| Error::new(e.code, format!("model `{name}`: {e}")))?;
            let found = plan.run(inputs).invalid(|| format!("model `{name}`"))?;
            for ((column, bound), width) in columns.iter_mut().zip(bounds).zip(&mut widths) {
                let tensor = &found[bound.output];
                if tensor.shape().first() != Some(size) {
                    return Err(Error::new(
                        Code::Invalid,
                        format!(
                            "model `{name}`: output `{}` has shape {:?} for {size} rows",
                            graph.outputs[bound.output],
                            tensor.shape()
                        ),
                    ));
                }
                *width = column.extend(tensor, *bound, to - from).internal(|| format!("model `{name}`"))?;
            }
            from = to;
        }
        let arrays = columns.into_iter().zip(&self.outputs).zip(widths);
        Ok(arrays
            .map(|((column, ty), width)| column.finish(matches!(ty, DataType::Array(_)), width, valid.clone()))
            .collect())
    }
}
