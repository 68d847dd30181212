//! The ai.onnx.ml operators that tract lacks, on one small primitive: an operator that works row by row.

use super::trees::Trees;
use std::fmt::Debug;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::{AttributeProto, NodeProto};
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::*;

/// A function of one tensor whose first axis is the row.
pub trait RowOp: Debug + Send + Sync + 'static {
    fn name(&self) -> &'static str;
    /// Type (None: the input's) and shape of each output.
    fn outputs(&self) -> Vec<(Option<DatumType>, Columns)>;
    fn eval(&self, input: &Tensor) -> TractResult<TVec<TValue>>;
}

/// What an output has behind its row axis.
#[derive(Debug, Clone, Copy)]
pub enum Columns {
    None,
    Fixed(usize),
    AsInput,
}

/// Labels.
#[derive(Debug, Clone)]
pub enum Values {
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Texts(Vec<String>),
}

impl Values {
    pub fn len(&self) -> usize {
        match self {
            Values::Ints(v) => v.len(),
            Values::Floats(v) => v.len(),
            Values::Texts(v) => v.len(),
        }
    }

    pub fn datum_type(&self) -> DatumType {
        match self {
            Values::Ints(_) => i64::datum_type(),
            Values::Floats(_) => f32::datum_type(),
            Values::Texts(_) => String::datum_type(),
        }
    }

    /// The values at these positions.
    pub fn pick(&self, at: &[usize]) -> Tensor {
        match self {
            Values::Ints(v) => tensor1(&at.iter().map(|i| v[*i]).collect::<Vec<_>>()),
            Values::Floats(v) => tensor1(&at.iter().map(|i| v[*i]).collect::<Vec<_>>()),
            Values::Texts(v) => tensor1(&at.iter().map(|i| v[*i].clone()).collect::<Vec<_>>()),
        }
    }
}

type Built = TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

/// Adds our operators to tract's, in front of those of the same name.
pub fn register(onnx: &mut tract_onnx::Onnx) {
    let reg = &mut onnx.op_register;
    reg.insert("TreeEnsembleClassifier", |_, node| build(Trees::parse(node)?));
    reg.insert("TreeEnsembleRegressor", |_, node| build(Trees::parse(node)?));
    reg.insert("Scaler", scaler);
    reg.insert("Imputer", imputer);
    reg.insert("LabelEncoder", label_encoder);
    // A list of maps from label to probability: the probabilities as they are, in the order of the labels.
    reg.insert("ZipMap", |_, _| build(Same));
}

fn build(op: impl RowOp) -> Built {
    Ok((expand(Row(Arc::new(op))), vec![]))
}

#[derive(Debug, Clone)]
struct Row(Arc<dyn RowOp>);

impl PartialEq for Row {
    fn eq(&self, other: &Row) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Row {}

impl Expansion for Row {
    fn name(&self) -> StaticName {
        self.0.name().into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(self.0.outputs().len())
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        for (i, (datum_type, columns)) in self.0.outputs().into_iter().enumerate() {
            match datum_type {
                Some(datum_type) => s.equals(&outputs[i].datum_type, datum_type)?,
                None => s.equals(&outputs[i].datum_type, &inputs[0].datum_type)?,
            }
            match columns {
                Columns::AsInput => s.equals(&outputs[i].shape, &inputs[0].shape)?,
                Columns::None => {
                    s.equals(&outputs[i].rank, 1)?;
                    s.equals(&outputs[i].shape[0], &inputs[0].shape[0])?;
                }
                Columns::Fixed(columns) => {
                    s.equals(&outputs[i].rank, 2)?;
                    s.equals(&outputs[i].shape[0], &inputs[0].shape[0])?;
                    s.equals(&outputs[i].shape[1], columns.to_dim())?;
                }
            }
        }
        Ok(())
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, self.clone(), inputs)
    }
}

impl Op for Row {
    fn name(&self) -> StaticName {
        self.0.name().into()
    }

    op_as_typed_op!();
}

impl EvalOp for Row {
    op_out_of_plan!();

    fn eval(&self, _ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        self.0.eval(&input)
    }
}

impl TypedOp for Row {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let rows = inputs[0].shape[0].clone();
        let fact = |(datum_type, columns): (Option<DatumType>, Columns)| {
            let datum_type = datum_type.unwrap_or(inputs[0].datum_type);
            match columns {
                Columns::None => datum_type.fact([rows.clone()]),
                Columns::Fixed(columns) => datum_type.fact([rows.clone(), columns.to_dim()]),
                Columns::AsInput => datum_type.fact(inputs[0].shape.iter()),
            }
        };
        Ok(self.0.outputs().into_iter().map(fact).collect())
    }

    as_op!();
}

#[derive(Debug)]
struct Same;

impl RowOp for Same {
    fn name(&self) -> &'static str {
        "ZipMap"
    }

    fn outputs(&self) -> Vec<(Option<DatumType>, Columns)> {
        vec![(None, Columns::AsInput)]
    }

    fn eval(&self, input: &Tensor) -> TractResult<TVec<TValue>> {
        Ok(tvec!(input.clone().into_tvalue()))
    }
}

/// Each value by its column: one parameter for all columns, or one each.
#[derive(Debug)]
enum ByColumn {
    Scale { offset: Vec<f32>, scale: Vec<f32> },
    Impute { replaced: f32, with: Vec<f32> },
}

impl RowOp for ByColumn {
    fn name(&self) -> &'static str {
        match self {
            ByColumn::Scale { .. } => "Scaler",
            ByColumn::Impute { .. } => "Imputer",
        }
    }

    fn outputs(&self) -> Vec<(Option<DatumType>, Columns)> {
        vec![(Some(f32::datum_type()), Columns::AsInput)]
    }

    fn eval(&self, input: &Tensor) -> TractResult<TVec<TValue>> {
        let columns = input.shape().last().copied().unwrap_or(1);
        let parameters: Vec<&[f32]> = match self {
            ByColumn::Scale { offset, scale } => vec![offset, scale],
            ByColumn::Impute { with, .. } => vec![with],
        };
        if let Some(wrong) = parameters.iter().find(|p| p.len() != 1 && p.len() != columns) {
            bail!("{} has {} parameters for {columns} columns", self.name(), wrong.len());
        }
        let of = |parameter: &[f32], i: usize| parameter[if parameter.len() == 1 { 0 } else { i % columns }];
        let mut output = input.cast_to::<f32>()?.into_owned();
        for (i, value) in output.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?.iter_mut().enumerate() {
            match self {
                ByColumn::Scale { offset, scale } => *value = (*value - of(offset, i)) * of(scale, i),
                ByColumn::Impute { replaced, with } => {
                    if *value == *replaced || (replaced.is_nan() && value.is_nan()) {
                        *value = of(with, i);
                    }
                }
            }
        }
        Ok(tvec!(output.into_tvalue()))
    }
}

fn scaler(_: &ParsingContext, node: &NodeProto) -> Built {
    let or = |values: &[f32], default| if values.is_empty() { vec![default] } else { values.to_vec() };
    build(ByColumn::Scale { offset: or(floats(node, "offset"), 0.0), scale: or(floats(node, "scale"), 1.0) })
}

fn imputer(_: &ParsingContext, node: &NodeProto) -> Built {
    let with = floats(node, "imputed_value_floats").to_vec();
    if with.is_empty() {
        bail!("an Imputer without imputed_value_floats is not supported");
    }
    build(ByColumn::Impute { replaced: attribute(node, "replaced_value_float").map_or(f32::NAN, |a| a.f), with })
}

/// A lookup; keys by their text, which is exact for integers and floats too.
#[derive(Debug)]
struct LabelEncoder {
    positions: HashMap<String, usize>,
    /// The values, the default last.
    values: Values,
}

impl RowOp for LabelEncoder {
    fn name(&self) -> &'static str {
        "LabelEncoder"
    }

    fn outputs(&self) -> Vec<(Option<DatumType>, Columns)> {
        vec![(Some(self.values.datum_type()), Columns::AsInput)]
    }

    fn eval(&self, input: &Tensor) -> TractResult<TVec<TValue>> {
        let keys: Vec<String> = if input.datum_type() == f32::datum_type() {
            input.try_as_plain_ram()?.as_slice::<f32>()?.iter().map(f32::to_string).collect()
        } else if input.datum_type() == String::datum_type() {
            input.try_as_plain_ram()?.as_slice::<String>()?.to_vec()
        } else {
            let input = input.cast_to::<i64>()?;
            input.try_as_plain_ram()?.as_slice::<i64>()?.iter().map(i64::to_string).collect()
        };
        let last = self.values.len() - 1;
        let at: Vec<usize> = keys.iter().map(|key| self.positions.get(key).copied().unwrap_or(last)).collect();
        Ok(tvec!(self.values.pick(&at).into_shape(input.shape())?.into_tvalue()))
    }
}

fn label_encoder(_: &ParsingContext, node: &NodeProto) -> Built {
    let mut keys: Vec<String> = ints(node, "keys_int64s").iter().map(i64::to_string).collect();
    keys.extend(floats(node, "keys_floats").iter().map(f32::to_string));
    keys.extend(texts(node, "keys_strings")?);
    let (numbers, reals, names) =
        (ints(node, "values_int64s"), floats(node, "values_floats"), texts(node, "values_strings")?);
    let values = if !numbers.is_empty() {
        let default = int(node, "default_int64").unwrap_or(-1);
        Values::Ints(numbers.iter().copied().chain([default]).collect())
    } else if !reals.is_empty() {
        let default = attribute(node, "default_float").map_or(-0.0, |a| a.f);
        Values::Floats(reals.iter().copied().chain([default]).collect())
    } else {
        let default = text(node, "default_string").unwrap_or_else(|| "_Unused".into());
        Values::Texts(names.into_iter().chain([default]).collect())
    };
    if keys.is_empty() || keys.len() + 1 != values.len() {
        bail!("a LabelEncoder with {} keys and {} values is not supported", keys.len(), values.len() - 1);
    }
    build(LabelEncoder { positions: keys.into_iter().zip(0..).collect(), values })
}

fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name == name)
}

pub fn ints<'a>(node: &'a NodeProto, name: &str) -> &'a [i64] {
    attribute(node, name).map_or(&[], |attribute| &attribute.ints)
}

pub fn floats<'a>(node: &'a NodeProto, name: &str) -> &'a [f32] {
    attribute(node, name).map_or(&[], |attribute| &attribute.floats)
}

pub fn int(node: &NodeProto, name: &str) -> Option<i64> {
    attribute(node, name).map(|attribute| attribute.i)
}

pub fn text(node: &NodeProto, name: &str) -> Option<String> {
    attribute(node, name).map(|attribute| String::from_utf8_lossy(&attribute.s).into_owned())
}

pub fn texts(node: &NodeProto, name: &str) -> TractResult<Vec<String>> {
    let texts = attribute(node, name).map_or(&[][..], |attribute| &attribute.strings);
    texts.iter().map(|text| Ok(std::str::from_utf8(text)?.to_string())).collect()
}
