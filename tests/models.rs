//! `ML_PREDICT` gives what onnxruntime recorded for the same model and rows, within 1e-5.

use ef_tests::rows::{csv, ndjson};
use ef_tests::{Run, shared};
use std::collections::BTreeMap;
use std::path::Path;

const AI4I: &str = "air_temperature_k FLOAT, process_temperature_k FLOAT, rotational_speed_rpm FLOAT, torque_nm FLOAT,
 tool_wear_min FLOAT, type_code FLOAT";
const AI4I_COLUMNS: &str =
    "air_temperature_k, process_temperature_k, rotational_speed_rpm, torque_nm, tool_wear_min, type_code";

/// Runs `select` over `<input>` and compares each row with `<expected>`, by its first column.
fn check(models: &Path, ddl: &str, select: &str, expected: &str) -> usize {
    let work = tempfile::tempdir().expect("a temporary directory");
    let done = Run::sql(work.path(), &format!("{ddl}\n{select};")).args(&["-p", "2"]).done().success();
    let (columns, expected) = csv(&shared::text(&models.join(expected)));
    let found: BTreeMap<String, Vec<String>> =
        ndjson(&done.stdout, &columns).into_iter().map(|row| (row[0].clone(), row)).collect();
    assert_eq!(found.len(), expected.len());
    for row in &expected {
        let got = &found[&row[0]];
        for ((column, a), b) in columns.iter().zip(got).zip(row) {
            let (x, y): (f64, f64) = (a.parse().expect("a number"), b.parse().expect("a number"));
            assert!((x - y).abs() <= 1e-5, "row {}, {column}: {x}, onnxruntime says {y}", row[0]);
        }
    }
    expected.len()
}

#[test]
fn recorded_outputs_of_tree_mlp_and_convolution_are_met() {
    let Some(shared) = shared::folder() else { return };
    let models = shared.join("models").canonicalize().expect("it is there");
    let file = |name: &str| models.join(name).display().to_string();
    let ai4i = format!(
        "CREATE TABLE machines (udi BIGINT, {AI4I}, machine_failure INT)
         WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'csv', 'csv.header' = 'true');",
        file("ai4i_inputs.csv")
    );
    let tree = format!(
        "{ai4i} CREATE MODEL m INPUT ({AI4I}) OUTPUT (label BIGINT, p0 FLOAT, p1 FLOAT)
         WITH ('provider' = 'onnx', 'path' = '{}');",
        file("ai4i_xgboost.onnx")
    );
    let predict = |columns: &str| format!("TABLE(ML_PREDICT(TABLE machines, MODEL m, DESCRIPTOR({columns})))");
    let rows = check(
        &models,
        &tree,
        &format!("SELECT udi, label, p0, p1 FROM {}", predict(AI4I_COLUMNS)),
        "ai4i_xgboost_expected.csv",
    );
    let mlp = format!(
        "{ai4i} CREATE MODEL m INPUT ({AI4I}) OUTPUT (probability FLOAT) WITH ('provider' = 'onnx', 'path' = '{}');",
        file("ai4i_mlp_fp32.onnx")
    );
    let select = format!("SELECT udi, probability FROM {}", predict(AI4I_COLUMNS));
    let rows = rows + check(&models, &mlp, &select, "ai4i_mlp_fp32_expected.csv");
    let pixels: Vec<String> = (0..64).map(|i| format!("px{i}")).collect();
    let scaled: Vec<String> = pixels.iter().map(|p| format!("CAST({p} AS FLOAT) / CAST(16 AS FLOAT)")).collect();
    let declared: Vec<String> = pixels.iter().map(|p| format!("{p} INT")).collect();
    let outputs: Vec<String> = (0..10).map(|i| format!("p{i}")).collect();
    let digits = format!(
        "CREATE TABLE digits (`row` BIGINT, {})
         WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'csv', 'csv.header' = 'true');
         CREATE VIEW images AS SELECT `row`, ARRAY[{}] AS image FROM digits;
         CREATE MODEL m INPUT (image ARRAY<FLOAT>) OUTPUT (label BIGINT, {}) WITH ('provider' = 'onnx', 'path' = '{}');",
        declared.join(", "),
        file("digits_inputs.csv"),
        scaled.join(", "),
        outputs.iter().map(|p| format!("{p} FLOAT")).collect::<Vec<_>>().join(", "),
        file("digits_conv.onnx")
    );
    let select = format!(
        "SELECT `row`, label, {} FROM TABLE(ML_PREDICT(TABLE images, MODEL m, DESCRIPTOR(image)))",
        outputs.join(", ")
    );
    let rows = rows + check(&models, &digits, &select, "digits_conv_expected.csv");
    shared::say(&format!("recorded cases: 3 ran (models, {rows} rows)"));
}
