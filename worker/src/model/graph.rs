//! An ONNX file: read, checked for what we cannot run or know to be computed wrongly, and made into tract plans.

use super::{FILE_BYTES_MAX, ops};
use crate::error::{Context, Error, Result};
use prost::Message;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, ValueInfoProto, tensor_shape_proto, type_proto};
use tract_onnx::prelude::*;

pub type Plan = Arc<TypedRunnableModel>;

/// Runs of these give wrong results in tract, or do not load: refused by name, with what to do instead.
const REFUSED: [(&str, &str); 4] = [
    ("QLinearAdd", "export without quantising additions"),
    ("QLinearSoftmax", "export with Softmax in floats"),
    ("SVMClassifier", "use a tree ensemble, a linear model or an MLP"),
    ("SVMRegressor", "use a tree ensemble, a linear model or an MLP"),
];

pub struct Graph {
    proto: ModelProto,
    onnx: tract_onnx::Onnx,
    pub inputs: Vec<Port>,
    /// Names of the outputs, in the file's order.
    pub outputs: Vec<String>,
    /// crc32 and length of the file.
    pub digest: String,
}

/// A graph's input. Unknown dimensions are None.
#[derive(Clone, Debug)]
pub struct Port {
    pub name: String,
    pub ty: DatumType,
    pub shape: Option<Vec<Option<usize>>>,
}

impl Port {
    /// `float [N, 6]`: for messages.
    pub fn shown(&self) -> String {
        format!("`{}` {}", self.name, shown(self.ty, self.shape.as_deref()))
    }
}

pub fn shown(ty: DatumType, shape: Option<&[Option<usize>]>) -> String {
    let dims = match shape {
        None => "…".to_string(),
        Some(dims) => {
            let dim = |(i, dim): (usize, &Option<usize>)| match dim {
                Some(dim) => dim.to_string(),
                None if i == 0 => "N".into(),
                None => "?".into(),
            };
            dims.iter().enumerate().map(dim).collect::<Vec<_>>().join(", ")
        }
    };
    format!("{} [{dims}]", format!("{ty:?}").to_lowercase())
}

impl Graph {
    pub fn read(path: &Path) -> Result<Graph> {
        let shown = path.display();
        let bytes = std::fs::metadata(path).invalid(|| format!("model file `{shown}`"))?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(Error::invalid(format!(
                "model file `{shown}` has {bytes} bytes; up to {FILE_BYTES_MAX} are accepted"
            )));
        }
        let bytes = std::fs::read(path).invalid(|| format!("model file `{shown}`"))?;
        Graph::decode(&bytes).invalid(|| format!("model file `{shown}`"))
    }

    pub fn decode(bytes: &[u8]) -> std::result::Result<Graph, String> {
        let digest = format!("crc32:{:08x},bytes:{}", crc32fast::hash(bytes), bytes.len());
        let proto = ModelProto::decode(bytes).map_err(|e| format!("is not an ONNX model: {e}"))?;
        let graph = proto.graph.as_ref().ok_or("is not an ONNX model: it has no graph")?;
        let mut onnx = tract_onnx::onnx().with_ignore_value_info(true);
        ops::register(&mut onnx);
        refuse(graph, &onnx)?;
        let constants: HashSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
        let inputs = graph.input.iter().filter(|input| !constants.contains(input.name.as_str()));
        let inputs = inputs.map(port).collect::<std::result::Result<_, String>>()?;
        let outputs = graph.output.iter().map(|output| output.name.clone()).collect();
        Ok(Graph { inputs, outputs, digest, onnx, proto })
    }

    /// A plan for inputs of exactly these shapes.
    pub fn plan(&self, shapes: &[Vec<usize>]) -> std::result::Result<Plan, String> {
        let build = || -> TractResult<Plan> {
            let mut model = self.onnx.parse(&self.proto, None)?.model;
            for (i, (shape, port)) in shapes.iter().zip(&self.inputs).enumerate() {
                model.set_input_fact(i, InferenceFact::dt_shape(port.ty, shape))?;
            }
            model.into_optimized()?.into_runnable()
        };
        // A malformed graph may trip an assertion inside the library; at plan time that is the file's fault.
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(build))
            .map_err(|_| "the graph is inconsistent".to_string())?
            .map_err(|e| {
                let causes: Vec<String> = e.chain().map(|cause| cause.to_string()).collect();
                // The outer contexts name the node, the innermost cause says what is wrong with it.
                match &causes[..] {
                    [outer, .., inner] => format!("{outer}: {inner}"),
                    causes => causes.join(": "),
                }
            })
    }
}

/// Names the first thing in the graph that we will not run.
fn refuse(graph: &GraphProto, onnx: &tract_onnx::Onnx) -> std::result::Result<(), String> {
    if let Some(tensor) = graph.initializer.iter().find(|tensor| tensor.data_location == Some(1)) {
        return Err(format!("keeps `{}` in another file; save the model as one file", tensor.name));
    }
    for node in &graph.node {
        let op = node.op_type.as_str();
        if let Some((_, instead)) = REFUSED.iter().find(|(name, _)| *name == op) {
            return Err(format!("node {}: operator {op} is not supported; {instead}", named(node)));
        }
        if !onnx.op_register.0.contains_key(op) {
            return Err(format!("node {}: operator {op} is not supported", named(node)));
        }
        if op == "Softmax" {
            let quantised = |neighbour: &NodeProto| match neighbour.op_type.as_str() {
                "DequantizeLinear" => neighbour.output.iter().any(|name| node.input.contains(name)),
                "QuantizeLinear" => neighbour.input.iter().any(|name| node.output.contains(name)),
                _ => false,
            };
            if graph.node.iter().any(quantised) {
                return Err(format!(
                    "node {}: quantised Softmax is not supported; export with Softmax in floats",
                    named(node)
                ));
            }
        }
        for attribute in &node.attribute {
            attribute.g.iter().chain(&attribute.graphs).try_for_each(|inner| refuse(inner, onnx))?;
        }
    }
    Ok(())
}

fn named(node: &NodeProto) -> String {
    let name = if node.name.is_empty() { node.output.first().map_or("", String::as_str) } else { &node.name };
    format!("`{name}`")
}

fn port(input: &ValueInfoProto) -> std::result::Result<Port, String> {
    let Some(type_proto::Value::TensorType(tensor)) = input.r#type.as_ref().and_then(|ty| ty.value.as_ref()) else {
        return Err(format!("input `{}` is not a tensor", input.name));
    };
    let ty = tract_onnx::pb::tensor_proto::DataType::try_from(tensor.elem_type)
        .ok()
        .and_then(|ty| DatumType::try_from(ty).ok())
        .ok_or_else(|| format!("input `{}` has the unknown element type {}", input.name, tensor.elem_type))?;
    let dim = |dim: &tensor_shape_proto::Dimension| match dim.value {
        Some(tensor_shape_proto::dimension::Value::DimValue(value)) if value > 0 => Some(value as usize),
        _ => None,
    };
    let shape = tensor.shape.as_ref().map(|shape| shape.dim.iter().map(dim).collect());
    Ok(Port { name: input.name.clone(), ty, shape })
}
