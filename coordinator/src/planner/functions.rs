//! The functions that a query may call: the worker's core functions under Flink's names, Flink's aggregates with
//! Flink's result types, and those of DataFusion's library that mean what Flink means.
//!
//! Nothing here computes: planning never evaluates a function of ours. The constant folder tries, gets an error, and
//! leaves the call as it is.

use super::types::closed;
use arrow_schema::{DataType as Arrow, Field, FieldRef};
use datafusion_common::{DataFusionError, Result, ScalarValue};
use datafusion_expr::function::AccumulatorArgs;
use datafusion_expr::type_coercion::binary::type_union_resolution;
use datafusion_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use ef_proto::function::{Builtin, decimal};
use ef_proto::plan::AggregateFunction;
use ef_proto::schema::DataType;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, LazyLock};

/// All functions that a rewritten query may name, by lower-case name. Users reach them only through Flink's names.
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

/// Flink's names of core functions that are called with the same arguments.
const CORE: &[(&str, Builtin)] = &[
    ("TO_TIMESTAMP_LTZ", Builtin::ToTimestampLtz),
    ("TO_TIMESTAMP", Builtin::ToTimestamp),
    ("TO_DATE", Builtin::ToDate),
    ("DATE_FORMAT", Builtin::DateFormat),
    ("UNIX_TIMESTAMP", Builtin::UnixTimestamp),
    ("FROM_UNIXTIME", Builtin::FromUnixtime),
    ("CONVERT_TZ", Builtin::ConvertTz),
    ("CURRENT_TIMESTAMP", Builtin::CurrentTimestamp),
    ("CURRENT_ROW_TIMESTAMP", Builtin::CurrentTimestamp),
    ("NOW", Builtin::CurrentTimestamp),
    ("PROCTIME", Builtin::CurrentTimestamp),
    ("SPLIT_INDEX", Builtin::SplitIndex),
    ("REGEXP", Builtin::Regexp),
    ("REGEXP_EXTRACT", Builtin::RegexpExtract),
    ("REGEXP_REPLACE", Builtin::RegexpReplace),
    ("CHAR_LENGTH", Builtin::CharLength),
    ("CHARACTER_LENGTH", Builtin::CharLength),
    ("HASH_CODE", Builtin::HashCode),
    ("SUBSTRING", Builtin::Substring),
    ("SUBSTR", Builtin::Substring),
    ("CONCAT", Builtin::Concat),
    ("CONCAT_WS", Builtin::ConcatWs),
    ("LEFT", Builtin::Left),
    ("RIGHT", Builtin::Right),
    ("LPAD", Builtin::Lpad),
    ("RPAD", Builtin::Rpad),
    ("REPEAT", Builtin::Repeat),
    ("CHR", Builtin::Chr),
    ("OVERLAY", Builtin::Overlay),
    ("LOCATE", Builtin::Locate),
    ("ELT", Builtin::Elt),
    ("IS_ALPHA", Builtin::IsAlpha),
    ("IS_DIGIT", Builtin::IsDigit),
    ("IS_DECIMAL", Builtin::IsDecimal),
    ("TO_BASE64", Builtin::ToBase64),
    ("FROM_BASE64", Builtin::FromBase64),
    ("SHA1", Builtin::Sha1),
    ("ENCODE", Builtin::Encode),
    ("DECODE", Builtin::Decode),
    ("PARSE_URL", Builtin::ParseUrl),
    ("JSON_VALUE", Builtin::JsonValue),
    ("JSON_EXISTS", Builtin::JsonExists),
    ("JSON_QUERY", Builtin::JsonQuery),
    ("ABS", Builtin::Abs),
    ("SIGN", Builtin::Sign),
    ("FLOOR", Builtin::Floor),
    ("CEIL", Builtin::Ceil),
    ("CEILING", Builtin::Ceil),
    ("ROUND", Builtin::Round),
    ("TRUNCATE", Builtin::Truncate),
    ("SQRT", Builtin::Sqrt),
    ("POWER", Builtin::Power),
    ("EXP", Builtin::Exp),
    ("LN", Builtin::Ln),
    ("BIN", Builtin::Bin),
    ("HEX", Builtin::Hex),
    ("GREATEST", Builtin::Greatest),
    ("LEAST", Builtin::Least),
    ("CARDINALITY", Builtin::Cardinality),
    ("ARRAY_CONTAINS", Builtin::ArrayContains),
    ("ROW", Builtin::MakeRow),
];

/// Flink's names of functions that mean the same in DataFusion's library, and their names there. What is not here is
/// not reachable: DataFusion's own functions would tie queries to its types and texts.
const THEIRS: &[(&str, &str)] = &[
    ("UPPER", "upper"),
    ("UCASE", "upper"),
    ("LOWER", "lower"),
    ("LCASE", "lower"),
    ("TRIM", "btrim"),
    ("BTRIM", "btrim"),
    ("LTRIM", "ltrim"),
    ("RTRIM", "rtrim"),
    ("INITCAP", "initcap"),
    ("REPLACE", "replace"),
    ("REVERSE", "reverse"),
    ("TRANSLATE", "translate"),
    ("ASCII", "ascii"),
    ("INSTR", "strpos"),
    ("STARTSWITH", "starts_with"),
    ("ENDSWITH", "ends_with"),
    ("MD5", "md5"),
    ("UUID", "uuid"),
    ("RAND", "random"),
    ("PI", "pi"),
    ("LOG10", "log10"),
    ("LOG2", "log2"),
    ("SIN", "sin"),
    ("SINH", "sinh"),
    ("COS", "cos"),
    ("COSH", "cosh"),
    ("TAN", "tan"),
    ("TANH", "tanh"),
    ("COT", "cot"),
    ("ASIN", "asin"),
    ("ACOS", "acos"),
    ("ATAN", "atan"),
    ("ATAN2", "atan2"),
    ("DEGREES", "degrees"),
    ("RADIANS", "radians"),
    ("COALESCE", "coalesce"),
    ("NULLIF", "nullif"),
    ("NVL", "coalesce"),
    ("IFNULL", "coalesce"),
    ("ARRAY_APPEND", "array_append"),
    ("ARRAY_PREPEND", "array_prepend"),
    ("ARRAY_CONCAT", "array_concat"),
    ("ARRAY_DISTINCT", "array_distinct"),
    ("ARRAY_EXCEPT", "array_except"),
    ("ARRAY_INTERSECT", "array_intersect"),
    ("ARRAY_JOIN", "array_to_string"),
    ("ARRAY_MAX", "array_max"),
    ("ARRAY_MIN", "array_min"),
    ("ARRAY_REMOVE", "array_remove_all"),
    ("ARRAY_REVERSE", "array_reverse"),
    ("ARRAY_SLICE", "array_slice"),
    ("ARRAY_SORT", "array_sort"),
    ("ARRAY_UNION", "array_union"),
    ("MAP_KEYS", "map_keys"),
    ("MAP_VALUES", "map_values"),
    ("MAP_ENTRIES", "map_entries"),
];

/// Flink's names of what is rewritten into something else.
const REWRITTEN: &[&str] = &[
    "MOD",
    "IF",
    "LOCALTIMESTAMP",
    "LOCALTIME",
    "CURRENT_DATE",
    "CURRENT_TIME",
    "TIMESTAMPADD",
    "TIMESTAMPDIFF",
    "RAND_INTEGER",
    "LOG",
    "E",
    "SHA2",
    "SHA224",
    "SHA256",
    "SHA384",
    "SHA512",
    "YEAR",
    "QUARTER",
    "MONTH",
    "WEEK",
    "HOUR",
    "MINUTE",
    "SECOND",
    "DAYOFMONTH",
    "DAYOFYEAR",
    "DAYOFWEEK",
];

pub fn core_by_flink_name(name: &str) -> Option<Builtin> {
    CORE.iter().find(|(flink, _)| *flink == name).map(|(_, builtin)| *builtin)
}

pub fn theirs_by_flink_name(name: &str) -> Option<&'static str> {
    THEIRS.iter().find(|(flink, _)| *flink == name).map(|(_, theirs)| *theirs)
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
    let core = CORE.iter().map(|(name, _)| *name);
    let theirs = THEIRS.iter().map(|(name, _)| *name);
    let aggregates = AGGREGATES.iter().map(|(name, _)| name.to_uppercase());
    core.chain(theirs).chain(REWRITTEN.iter().copied()).map(str::to_string).chain(aggregates).collect()
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
            // Whole numbers beside decimals get the digits of their types.
            Builtin::Plus | Builtin::Minus | Builtin::Times | Builtin::Divide | Builtin::Modulo
                if args.iter().any(|ty| matches!(ty, DataType::Decimal { .. })) =>
            {
                let exact = |ty: DataType| match decimal::digits(&ty) {
                    Some((precision, scale)) => DataType::Decimal { precision, scale },
                    None => ty,
                };
                args.into_iter().map(exact).collect()
            }
            // Texts of numbers are padded, cut and repeated without a CAST.
            Builtin::Left | Builtin::Right | Builtin::Lpad | Builtin::Rpad | Builtin::Repeat => args
                .into_iter()
                .enumerate()
                .map(|(i, ty)| if i != 1 && ty.is_numeric() { DataType::String } else { ty })
                .collect(),
            Builtin::ArrayContains => match args.as_slice() {
                [DataType::Array(item), found] if super::types::implicit(found, item) => {
                    vec![args[0].clone(), (**item).clone()]
                }
                _ => args,
            },
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

    /// A decimal that is rounded to a literal number of digits has so many digits.
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<Arrow> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let digits = match args.scalar_arguments {
            [_] => Some(0),
            [_, Some(ScalarValue::Int64(digits))] => *digits,
            _ => None,
        };
        let ty = match (self.builtin, types.first(), digits) {
            (Builtin::Round | Builtin::Truncate, Some(Arrow::Decimal128(precision, scale)), Some(digits)) => {
                decimal::rounded(*precision, *scale, digits).to_arrow()
            }
            _ => self.return_type(&types)?,
        };
        Ok(Arc::new(Field::new(self.name(), ty, true)))
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
