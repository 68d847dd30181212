//! DataFusion's scalar functions by name. Arguments are cast once per batch to what the function's signature wants,
//! constants are handed over as constants, and the result is cast into the closed set.

use super::Compiled;
use crate::error::{Error, Result};
use crate::expr::node::Node;
use crate::expr::value::{Kernel, Value};
use datafusion_common::ScalarValue;
use datafusion_common::arrow::compute::cast;
use datafusion_common::config::ConfigOptions;
use datafusion_expr::type_coercion::functions::fields_with_udf;
use datafusion_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF};
use ef_proto::expr::Expr;
use ef_proto::schema::DataType;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

static FUNCTIONS: LazyLock<HashMap<String, Arc<ScalarUDF>>> = LazyLock::new(|| {
    let mut by_name = HashMap::new();
    let all = datafusion_functions::all_default_functions();
    for function in all.into_iter().chain(datafusion_functions_nested::all_default_nested_functions()) {
        for alias in function.aliases() {
            by_name.entry(alias.clone()).or_insert_with(|| function.clone());
        }
        by_name.insert(function.name().to_string(), function);
    }
    by_name
});

/// The call of a library function whose result the tree says is `ty`.
pub(super) fn compile(
    name: &str,
    args: &[Expr],
    ty: &DataType,
    node: &mut dyn FnMut(&Expr) -> Result<Node>,
) -> Result<Compiled> {
    let wrong = |e: String| Error::invalid(format!("{name}: {e}"));
    let lower = name.to_ascii_lowercase();
    let function = FUNCTIONS
        .get(&lower)
        .ok_or_else(|| wrong("no function of this name, neither EdgeFlow's nor DataFusion's".into()))?
        .clone();
    let nodes = args.iter().map(node).collect::<Result<Vec<_>>>()?;
    let given: Vec<_> = args.iter().map(|a| Arc::new(arrow_schema::Field::new("arg", a.ty.to_arrow(), true))).collect();
    let fields = if given.is_empty() {
        vec![]
    } else {
        fields_with_udf(&given, function.as_ref()).map_err(|e| wrong(e.strip_backtrace()))?
    };
    let constants = nodes
        .iter()
        .zip(&fields)
        .map(|(node, field)| {
            let Some(array) = node.constant() else { return Ok(None) };
            let array = cast(array, field.data_type()).map_err(|e| wrong(e.to_string()))?;
            ScalarValue::try_from_array(&array, 0).map(Some).map_err(|e| wrong(e.strip_backtrace()))
        })
        .collect::<Result<Vec<_>>>()?;
    let scalars: Vec<Option<&ScalarValue>> = constants.iter().map(Option::as_ref).collect();
    let return_field = function
        .return_field_from_args(ReturnFieldArgs { arg_fields: &fields, scalar_arguments: &scalars })
        .map_err(|e| wrong(e.strip_backtrace()))?;
    let pure = function.signature().volatility == datafusion_expr::Volatility::Immutable;
    let config = Arc::new(ConfigOptions::default());
    let to = ty.to_arrow();
    let kernel: Kernel = Box::new(move |args: &[Value], rows: usize| {
        let mut values = Vec::with_capacity(args.len());
        for ((arg, field), constant) in args.iter().zip(&fields).zip(&constants) {
            values.push(match (constant, arg) {
                (Some(scalar), _) => ColumnarValue::Scalar(scalar.clone()),
                (None, arg) => {
                    let array = cast(arg.array(), field.data_type()).map_err(|e| e.to_string())?;
                    if arg.is_constant() {
                        let scalar = ScalarValue::try_from_array(&array, 0).map_err(|e| e.strip_backtrace())?;
                        ColumnarValue::Scalar(scalar)
                    } else {
                        ColumnarValue::Array(array)
                    }
                }
            });
        }
        let result = function
            .invoke_with_args(ScalarFunctionArgs {
                args: values,
                arg_fields: fields.clone(),
                number_rows: rows,
                return_field: return_field.clone(),
                config_options: config.clone(),
            })
            .and_then(|value| value.into_array(rows))
            .map_err(|e| e.strip_backtrace())?;
        if *result.data_type() == to {
            return Ok(result);
        }
        cast(&result, &to).map_err(|e| e.to_string())
    });
    Ok(Compiled::Kernel { kernel, args: nodes, pure })
}
