//! Small models made here, against their arithmetic done by hand.

use super::*;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int64Type};
use arrow_array::{Array, ArrayRef, Float64Array, Int64Array, ListArray};
use ef_proto::schema::{DataType, Field};
use prost::Message;
use std::sync::Arc;
use tract_onnx::pb::*;

fn tensor_type(elem: i32, dims: &[Option<i64>]) -> TypeProto {
    use tensor_shape_proto::{Dimension, dimension::Value};
    let dim = |dim: &Option<i64>| Dimension {
        value: Some(dim.map_or(Value::DimParam("N".into()), Value::DimValue)),
        ..Default::default()
    };
    let shape = Some(TensorShapeProto { dim: dims.iter().map(dim).collect() });
    TypeProto {
        value: Some(type_proto::Value::TensorType(type_proto::Tensor { elem_type: elem, shape })),
        ..Default::default()
    }
}

fn info(name: &str, elem: i32, dims: &[Option<i64>]) -> ValueInfoProto {
    ValueInfoProto { name: name.into(), r#type: Some(tensor_type(elem, dims)), ..Default::default() }
}

enum Value<'a> {
    Ints(&'a [i64]),
    Floats(&'a [f32]),
    Texts(&'a [&'a str]),
    Int(i64),
    Text(&'a str),
}

fn node(op: &str, inputs: &[&str], outputs: &[&str], attributes: &[(&str, Value)]) -> NodeProto {
    let attribute = |(name, value): &(&str, Value)| {
        let mut attribute = AttributeProto { name: (*name).into(), ..Default::default() };
        match value {
            Value::Ints(v) => (attribute.ints, attribute.r#type) = (v.to_vec(), 7),
            Value::Floats(v) => (attribute.floats, attribute.r#type) = (v.to_vec(), 6),
            Value::Texts(v) => {
                (attribute.strings, attribute.r#type) = (v.iter().map(|t| t.as_bytes().to_vec()).collect(), 8)
            }
            Value::Int(v) => (attribute.i, attribute.r#type) = (*v, 2),
            Value::Text(v) => (attribute.s, attribute.r#type) = (v.as_bytes().to_vec(), 3),
        }
        attribute
    };
    NodeProto {
        op_type: op.into(),
        name: op.to_lowercase(),
        input: inputs.iter().map(|s| s.to_string()).collect(),
        output: outputs.iter().map(|s| s.to_string()).collect(),
        attribute: attributes.iter().map(attribute).collect(),
        ..Default::default()
    }
}

/// One split `x[0] <= 5` and two leaves of class 0 with these weights; as skl2onnx and xgboost write binary models.
fn stump(op: &str, weights: [f32; 2], transform: &str, more: &[(&str, Value)]) -> NodeProto {
    let leaf = if op == "TreeEnsembleClassifier" { "class" } else { "target" };
    let mut stump = node(
        op,
        &["x"],
        &[],
        &[
            ("nodes_treeids", Value::Ints(&[0, 0, 0])),
            ("nodes_nodeids", Value::Ints(&[0, 1, 2])),
            ("nodes_featureids", Value::Ints(&[0, 0, 0])),
            ("nodes_truenodeids", Value::Ints(&[1, 0, 0])),
            ("nodes_falsenodeids", Value::Ints(&[2, 0, 0])),
            ("nodes_values", Value::Floats(&[5.0, 0.0, 0.0])),
            ("nodes_modes", Value::Texts(&["BRANCH_LEQ", "LEAF", "LEAF"])),
            (&format!("{leaf}_treeids"), Value::Ints(&[0, 0])),
            (&format!("{leaf}_nodeids"), Value::Ints(&[1, 2])),
            (&format!("{leaf}_ids"), Value::Ints(&[0, 0])),
            (&format!("{leaf}_weights"), Value::Floats(&weights)),
            ("post_transform", Value::Text(transform)),
        ],
    );
    stump.attribute.extend(node("", &[], &[], more).attribute);
    let outputs: &[&str] = if leaf == "class" { &["label", "probabilities"] } else { &["y"] };
    stump.output = outputs.iter().map(|s| s.to_string()).collect();
    stump
}

fn write(nodes: Vec<NodeProto>, inputs: Vec<ValueInfoProto>, outputs: &[&str]) -> tempfile::NamedTempFile {
    let graph = GraphProto {
        node: nodes,
        name: "g".into(),
        input: inputs,
        output: outputs.iter().map(|name| info(name, 1, &[None])).collect(),
        ..Default::default()
    };
    let opset = |domain: &str, version| OperatorSetIdProto { domain: domain.into(), version };
    let model = ModelProto {
        ir_version: 8,
        opset_import: vec![opset("", 13), opset("ai.onnx.ml", 1)],
        graph: Some(graph),
        ..Default::default()
    };
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), model.encode_to_vec()).expect("written");
    file
}

fn matrix(columns: i64) -> Vec<ValueInfoProto> {
    vec![info("x", 1, &[None, Some(columns)])]
}

fn schema(fields: &[(&str, DataType)]) -> Schema {
    Schema::new(fields.iter().map(|(name, ty)| Field::new(*name, ty.clone(), true)).collect())
}

fn array(item: DataType) -> DataType {
    DataType::Array(Box::new(item))
}

fn run(file: &tempfile::NamedTempFile, inputs: &Schema, outputs: &Schema, args: &[ArrayRef]) -> Vec<ArrayRef> {
    let options = BTreeMap::from([("onnx.batch-rows".to_string(), "40".to_string())]);
    let model = inspect(file.path(), inputs, outputs, &options).expect("accepted");
    Runner::load(&model).expect("loaded").predict(args, args[0].len()).expect("predicted")
}

fn floats(array: &ArrayRef) -> Vec<Option<f32>> {
    array.as_primitive::<Float32Type>().iter().collect()
}

#[test]
fn a_binary_classifier_with_weights_of_one_class_gives_both_probabilities_and_the_label() {
    let labels = ("classlabels_int64s", Value::Ints(&[10, 20]));
    let file = write(
        vec![stump(
            "TreeEnsembleClassifier",
            [-1.0, 2.0],
            "LOGISTIC",
            &[labels, ("base_values", Value::Floats(&[0.5]))],
        )],
        matrix(2),
        &["label", "probabilities"],
    );
    let inputs = schema(&[("a", DataType::Float64), ("b", DataType::Int64)]);
    let outputs = schema(&[("label", DataType::Int64), ("p0", DataType::Float32), ("p1", DataType::Float32)]);
    let a: ArrayRef = Arc::new(Float64Array::from_iter((0..100).map(|i| (i != 3).then_some(f64::from(i % 10)))));
    let b: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100));
    let found = run(&file, &inputs, &outputs, &[a, b]);
    let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
    for row in 0..100 {
        let score = if row % 10 <= 5 { -0.5f32 } else { 2.5 };
        let label = found[0].as_primitive::<Int64Type>();
        if row == 3 {
            assert!(found.iter().all(|column| column.is_null(row)), "a NULL input makes every output NULL");
            continue;
        }
        assert_eq!(label.value(row), if score > 0.0 { 20 } else { 10 }, "row {row}");
        for (column, expected) in [(1, sigmoid(-score)), (2, sigmoid(score))] {
            let value = floats(&found[column])[row].expect("not NULL");
            assert!((value - expected).abs() < 1e-6, "row {row}: {value} for {expected}");
        }
    }
}

#[test]
fn positive_weights_of_one_class_are_the_probability_and_labels_may_be_text() {
    let labels = ("classlabels_strings", Value::Texts(&["ok", "bad"]));
    let zip = node("ZipMap", &["probabilities"], &["zipped"], &[]);
    let file = write(
        vec![stump("TreeEnsembleClassifier", [0.25, 0.75], "NONE", &[labels]), zip],
        matrix(1),
        &["label", "zipped"],
    );
    let inputs = schema(&[("a", DataType::Float64)]);
    let outputs = schema(&[("label", DataType::String), ("p", array(DataType::Float32))]);
    let a: ArrayRef = Arc::new(Float64Array::from(vec![5.0, 5.1]));
    let found = run(&file, &inputs, &outputs, &[a]);
    assert_eq!(found[0].as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["ok", "bad"]);
    let p = found[1].as_list::<i32>();
    assert_eq!(floats(&p.value(0)), [Some(0.75), Some(0.25)]);
    assert_eq!(floats(&p.value(1)), [Some(0.25), Some(0.75)]);
}

#[test]
fn a_scaled_regressor_adds_its_base_value() {
    let scaler =
        node("Scaler", &["raw"], &["x"], &[("offset", Value::Floats(&[10.0])), ("scale", Value::Floats(&[0.5]))]);
    let more = [("n_targets", Value::Int(1)), ("base_values", Value::Floats(&[100.0]))];
    let tree = stump("TreeEnsembleRegressor", [1.0, 2.0], "NONE", &more);
    let file = write(vec![scaler, tree], vec![info("raw", 1, &[None, Some(1)])], &["y"]);
    let a: ArrayRef = Arc::new(Float64Array::from(vec![20.0, 20.5]));
    let found = run(&file, &schema(&[("a", DataType::Float64)]), &schema(&[("y", DataType::Float32)]), &[a]);
    assert_eq!(floats(&found[0]), [Some(101.0), Some(102.0)]);
}

#[test]
fn an_array_column_is_checked_row_by_row() {
    let labels = ("classlabels_int64s", Value::Ints(&[0, 1]));
    let file = write(
        vec![stump("TreeEnsembleClassifier", [0.0, 1.0], "NONE", &[labels])],
        matrix(3),
        &["label", "probabilities"],
    );
    let (inputs, outputs) = (schema(&[("x", array(DataType::Float32))]), schema(&[("label", DataType::Int64)]));
    let model = inspect(file.path(), &inputs, &outputs, &BTreeMap::new()).expect("accepted");
    assert_eq!(model.bindings, ["label"]);
    let mut runner = Runner::load(&model).expect("loaded");
    let rows = |rows: Vec<Vec<Option<f32>>>| -> ArrayRef {
        Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(rows.into_iter().map(Some)))
    };
    let good = rows(vec![vec![Some(1.0); 3], vec![Some(9.0); 3], vec![Some(9.0), None, Some(1.0)]]);
    let found = runner.predict(&[good], 3).expect("predicted");
    assert_eq!(found[0].as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(0), Some(1), None]);
    let error = runner.predict(&[rows(vec![vec![Some(1.0); 2]])], 1).expect_err("two values");
    assert!(error.message.contains("2 values") && error.message.contains('3'), "{error}");
}

#[test]
fn what_does_not_fit_is_refused_with_what_would_be_accepted() {
    let labels = || ("classlabels_int64s", Value::Ints(&[0, 1]));
    let stump = || stump("TreeEnsembleClassifier", [0.0, 1.0], "NONE", &[labels()]);
    let file = write(vec![stump()], matrix(2), &["label", "probabilities"]);
    let two = schema(&[("a", DataType::Float64), ("b", DataType::Float64)]);
    let label = schema(&[("label", DataType::Int64)]);
    let refused = |file: &tempfile::NamedTempFile, inputs: &Schema, outputs: &Schema| {
        inspect(file.path(), inputs, outputs, &BTreeMap::new()).expect_err("refused").message
    };
    let message = refused(&file, &schema(&[("a", DataType::Float64)]), &label);
    assert!(message.contains("[N, 2]") && message.contains("2 numeric columns"), "{message}");
    let message = refused(&file, &schema(&[("a", DataType::String), ("b", DataType::Float64)]), &label);
    assert!(message.contains("a STRING"), "{message}");
    let message = refused(&file, &two, &schema(&[("label", DataType::String)]));
    assert!(message.contains("BIGINT"), "{message}");
    let message = refused(&file, &two, &schema(&[("probabilities", DataType::Float32)]));
    assert!(message.contains("ARRAY<FLOAT>"), "{message}");
    for op in ["SVMClassifier", "QLinearAdd", "QLinearSoftmax", "NoSuchOperator"] {
        let file = write(vec![node(op, &["x"], &["label"], &[])], matrix(2), &["label"]);
        let message = refused(&file, &two, &label);
        assert!(message.contains(op), "{message}");
    }
    let broken = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(broken.path(), b"no model at all").expect("written");
    assert!(refused(&broken, &two, &label).contains("not an ONNX model"));
    assert!(inspect(Path::new("no/such.onnx"), &two, &label, &BTreeMap::new()).is_err());
}

#[test]
fn a_tree_with_a_cycle_is_refused() {
    let mut cyclic =
        stump("TreeEnsembleClassifier", [0.0, 1.0], "NONE", &[("classlabels_int64s", Value::Ints(&[0, 1]))]);
    for attribute in &mut cyclic.attribute {
        if attribute.name == "nodes_truenodeids" {
            attribute.ints = vec![0, 0, 0];
        }
    }
    let file = write(vec![cyclic], matrix(1), &["label", "probabilities"]);
    let outputs = schema(&[("label", DataType::Int64)]);
    let error =
        inspect(file.path(), &schema(&[("a", DataType::Float64)]), &outputs, &BTreeMap::new()).expect_err("refused");
    assert!(error.message.contains("cycle"), "{error}");
}

#[test]
fn a_file_that_changed_since_plan_time_is_not_loaded() {
    let labels = ("classlabels_int64s", Value::Ints(&[0, 1]));
    let file = write(
        vec![stump("TreeEnsembleClassifier", [0.0, 1.0], "NONE", &[labels])],
        matrix(1),
        &["label", "probabilities"],
    );
    let outputs = schema(&[("label", DataType::Int64)]);
    let mut model =
        inspect(file.path(), &schema(&[("a", DataType::Float64)]), &outputs, &BTreeMap::new()).expect("accepted");
    model.digest.push('0');
    assert!(Runner::load(&model).err().expect("refused").message.contains("changed"));
}
