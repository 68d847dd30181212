//! The functions that a query may call: the worker's core functions under Flink's names, Flink's aggregates with
//! Flink's result types, and the rest of DataFusion's library by its own names.
//!
//! Nothing here computes: planning never evaluates a function of ours. The constant folder tries, gets an error, and
//! leaves the call as it is.

use super::types::closed;
use arrow_schema::DataType as Arrow;
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::function::AccumulatorArgs;
use datafusion_expr::type_coercion::binary::type_union_resolution;
use datafusion_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use ef_proto::function::Builtin;
use ef_proto::plan::AggregateFunction;
use ef_proto::schema::DataType;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, LazyLock};

/// All functions, by lower-case name.
pub struct Library {
    pub scalars: HashMap<String, Arc<ScalarUDF>>,
    pub aggregates: HashMap<String, Arc<AggregateUDF>>,
}

pub static LIBRARY: LazyLock<Library> = LazyLock::new(|| {
    let mut scalars = HashMap::new();
    let theirs = datafusion_functions::all_default_functions()
        .into_iter()
        .chain(datafusion_functions_nested::all_default_nested_functions());
    for function in theirs {
        if CLOCKS.contains(&function.name()) {
            continue;
        }
        for alias in function.aliases() {
            scalars.insert(alias.to_lowercase(), function.clone());
        }
        scalars.insert(function.name().to_lowercase(), function);
    }
    for builtin in Builtin::ALL {
        scalars.insert(builtin.name().into(), Arc::new(ScalarUDF::from(Core::new(*builtin))));
    }
    let aggregates = AGGREGATES
        .iter()
        .map(|(name, function)| (name.to_string(), Arc::new(AggregateUDF::from(FlinkAggregate::new(*function)))))
        .collect();
    Library { scalars, aggregates }
});

/// DataFusion's clocks stand still for a whole query; Flink's names map to [`Builtin::CurrentTimestamp`] instead.
const CLOCKS: [&str; 4] = ["now", "current_date", "current_time", "today"];

/// Flink's names, lower case, of what is planned as an aggregate.
const AGGREGATES: &[(&str, AggregateFunction)] = &[
    ("count", AggregateFunction::Count),
    ("sum", AggregateFunction::Sum),
    ("avg", AggregateFunction::Avg),
    ("min", AggregateFunction::Min),
    ("max", AggregateFunction::Max),
    ("stddev_pop", AggregateFunction::StddevPop),
    ("stddev_samp", AggregateFunction::StddevSamp),
    ("stddev", AggregateFunction::StddevSamp),
    ("var_pop", AggregateFunction::VarPop),
    ("var_samp", AggregateFunction::VarSamp),
    ("variance", AggregateFunction::VarSamp),
    ("first_value", AggregateFunction::FirstValue),
    ("last_value", AggregateFunction::LastValue),
];

/// The aggregate that a call in a logical plan means; None for one that is not of this library.
pub fn aggregate_of(function: &AggregateUDF) -> Option<AggregateFunction> {
    AGGREGATES.iter().find(|(name, _)| *name == function.name()).map(|(_, function)| *function)
}

/// Flink's names (upper case) of core functions that are called with the same arguments.
pub fn core_by_flink_name(name: &str) -> Option<Builtin> {
    Some(match name {
        "TO_TIMESTAMP_LTZ" => Builtin::ToTimestampLtz,
        "TO_TIMESTAMP" => Builtin::ToTimestamp,
        "DATE_FORMAT" => Builtin::DateFormat,
        "SPLIT_INDEX" => Builtin::SplitIndex,
        "REGEXP_EXTRACT" => Builtin::RegexpExtract,
        "REGEXP" => Builtin::Regexp,
        "CHAR_LENGTH" | "CHARACTER_LENGTH" => Builtin::CharLength,
        "HASH_CODE" => Builtin::HashCode,
        "UNIX_TIMESTAMP" => Builtin::UnixTimestamp,
        "FROM_UNIXTIME" => Builtin::FromUnixtime,
        "SUBSTRING" | "SUBSTR" => Builtin::Substring,
        "CONCAT" => Builtin::Concat,
        "CONCAT_WS" => Builtin::ConcatWs,
        "ABS" => Builtin::Abs,
        "FLOOR" => Builtin::Floor,
        "CEIL" | "CEILING" => Builtin::Ceil,
        "ROUND" => Builtin::Round,
        "SQRT" => Builtin::Sqrt,
        "POWER" => Builtin::Power,
        "EXP" => Builtin::Exp,
        "LN" => Builtin::Ln,
        "GREATEST" => Builtin::Greatest,
        "LEAST" => Builtin::Least,
        "CARDINALITY" => Builtin::Cardinality,
        "ROW" => Builtin::MakeRow,
        "CURRENT_TIMESTAMP" | "NOW" | "PROCTIME" | "CURRENT_ROW_TIMESTAMP" => Builtin::CurrentTimestamp,
        "JSON_VALUE" => Builtin::JsonValue,
        _ => return None,
    })
}

/// Flink's names (upper case) of functions that DataFusion has under another name and the same arguments.
pub fn theirs_by_flink_name(name: &str) -> Option<&'static str> {
    Some(match name {
        "UCASE" => "upper",
        "LCASE" => "lower",
        "SIGN" => "signum",
        "TRUNCATE" => "trunc",
        "INSTR" => "strpos",
        "NVL" | "IFNULL" => "coalesce",
        "ARRAY_CONTAINS" => "array_has",
        "TRIM" => "btrim",
        "RAND" => "random",
        _ => return None,
    })
}

/// The name that users know a function by.
pub fn flink_name(name: &str) -> String {
    match Builtin::by_name(name) {
        Some(Builtin::ElementAt) => "array[i]".into(),
        Some(Builtin::MakeArray) => "ARRAY".into(),
        Some(Builtin::MakeRow) => "ROW".into(),
        Some(Builtin::FloorTime) => "FLOOR".into(),
        Some(Builtin::CeilTime) => "CEIL".into(),
        Some(Builtin::TimestampDiff) => "TIMESTAMPDIFF".into(),
        _ => name.strip_prefix(Builtin::PREFIX).unwrap_or(name).to_uppercase(),
    }
}

/// Every name that a call may use, once, for "did you mean".
pub fn known_names() -> BTreeSet<String> {
    let library = &*LIBRARY;
    let names = library.scalars.keys().chain(library.aggregates.keys()).map(|name| flink_name(name));
    names.filter(|name| !name.contains('[')).collect()
}

/// A core function as DataFusion's planner sees it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Core {
    builtin: Builtin,
    signature: Signature,
}

impl Core {
    fn new(builtin: Builtin) -> Core {
        let signature = match builtin {
            // Volatile: never folded, never moved below a filter.
            Builtin::CurrentTimestamp => Signature::nullary(Volatility::Volatile),
            _ => Signature::user_defined(Volatility::Immutable),
        };
        Core { builtin, signature }
    }

    fn refuse(&self, accepted: &str, args: &[DataType]) -> DataFusionError {
        let found: Vec<String> = args.iter().map(DataType::to_string).collect();
        let name = flink_name(self.builtin.name());
        DataFusionError::Plan(format!("{name} takes {accepted}, found ({})", found.join(", ")))
    }

    /// The types to which the arguments are cast.
    fn accepted(&self, args: Vec<DataType>) -> Vec<DataType> {
        match self.builtin {
            Builtin::Concat | Builtin::ConcatWs => args
                .into_iter()
                .map(|ty| match ty {
                    DataType::Null | DataType::Row(_) | DataType::Array(_) | DataType::Map(..) => ty,
                    _ => DataType::String,
                })
                .collect(),
            Builtin::Greatest | Builtin::Least | Builtin::MakeArray => {
                let arrow: Vec<Arrow> = args.iter().map(DataType::to_arrow).collect();
                match type_union_resolution(&arrow).and_then(|ty| DataType::from_arrow(&ty)) {
                    Some(common) => vec![common; args.len()],
                    None => args,
                }
            }
            Builtin::ElementAt => match args.as_slice() {
                [DataType::Map(key, _), found] if super::types::implicit(found, key) => {
                    vec![args[0].clone(), (**key).clone()]
                }
                _ => args,
            },
            _ => args,
        }
    }
}

impl ScalarUDFImpl for Core {
    fn name(&self) -> &str {
        self.builtin.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, args: &[Arrow]) -> Result<Vec<Arrow>> {
        let args = args.iter().map(closed).collect::<Result<Vec<_>>>()?;
        let accepted = self.accepted(args.clone());
        self.builtin.result(&accepted).map_err(|what| self.refuse(&what, &args))?;
        Ok(accepted.iter().map(DataType::to_arrow).collect())
    }

    fn return_type(&self, args: &[Arrow]) -> Result<Arrow> {
        let args = self.accepted(args.iter().map(closed).collect::<Result<Vec<_>>>()?);
        Ok(self.builtin.result(&args).map_err(|what| self.refuse(&what, &args))?.to_arrow())
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(DataFusionError::NotImplemented(format!("{} is evaluated by the worker", self.name())))
    }
}

/// An aggregate with Flink's result type. Arguments keep their types: no cast to DOUBLE before an AVG.
#[derive(Debug, PartialEq, Eq, Hash)]
struct FlinkAggregate {
    function: AggregateFunction,
    signature: Signature,
}

impl FlinkAggregate {
    fn new(function: AggregateFunction) -> FlinkAggregate {
        FlinkAggregate { function, signature: Signature::user_defined(Volatility::Immutable) }
    }

    fn result(&self, args: &[DataType]) -> Result<DataType> {
        use DataType::*;
        let name = self.name().to_uppercase();
        let [arg] = args else {
            return Err(DataFusionError::Plan(format!("{name} takes one argument, found {}", args.len())));
        };
        let refuse = |accepted: &str| Err(DataFusionError::Plan(format!("{name} takes {accepted}, found ({arg})")));
        match self.function {
            AggregateFunction::Count => Ok(Int64),
            AggregateFunction::FirstValue | AggregateFunction::LastValue => Ok(arg.clone()),
            AggregateFunction::Min | AggregateFunction::Max => match arg {
                Row(_) | Array(_) | Map(..) | Interval => refuse("(a number, string, boolean, date or time)"),
                _ => Ok(arg.clone()),
            },
            AggregateFunction::Sum => match arg {
                Decimal { scale, .. } => Ok(Decimal { precision: 38, scale: *scale }),
                arg if arg.is_numeric() => Ok(arg.clone()),
                _ => refuse("(number)"),
            },
            AggregateFunction::Avg => match arg {
                Decimal { scale, .. } => Ok(Decimal { precision: 38, scale: (*scale).max(6) }),
                arg if arg.is_numeric() => Ok(arg.clone()),
                _ => refuse("(number)"),
            },
            // Flink gives these the argument's type too; a whole-numbered deviation helps nobody, so: DOUBLE.
            AggregateFunction::StddevPop
            | AggregateFunction::StddevSamp
            | AggregateFunction::VarPop
            | AggregateFunction::VarSamp => {
                if arg.is_numeric() {
                    Ok(Float64)
                } else {
                    refuse("(number)")
                }
            }
        }
    }
}

impl AggregateUDFImpl for FlinkAggregate {
    fn name(&self) -> &str {
        AGGREGATES.iter().find(|(_, function)| *function == self.function).map_or("", |(name, _)| name)
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, args: &[Arrow]) -> Result<Vec<Arrow>> {
        let args = args.iter().map(closed).collect::<Result<Vec<_>>>()?;
        self.result(&args)?;
        Ok(args.iter().map(DataType::to_arrow).collect())
    }

    fn return_type(&self, args: &[Arrow]) -> Result<Arrow> {
        let args = args.iter().map(closed).collect::<Result<Vec<_>>>()?;
        Ok(self.result(&args)?.to_arrow())
    }

    fn is_nullable(&self) -> bool {
        self.function != AggregateFunction::Count
    }

    fn accumulator(&self, _args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Err(DataFusionError::NotImplemented(format!("{} is evaluated by the worker", self.name())))
    }
}
