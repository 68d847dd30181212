//! DataFusion's constants → constants of the closed set of types.

use datafusion_common::ScalarValue;
use datafusion_common::arrow::array::Array;
use ef_proto::expr::{Expr, Scalar};
use ef_proto::schema::DataType;

const MS_A_DAY: i64 = 86_400_000;

/// A literal with its type. Err names what has no counterpart.
pub fn literal(value: &ScalarValue) -> Result<Expr, String> {
    let ty = DataType::from_arrow(&value.data_type())
        .ok_or_else(|| format!("a constant of type {} is not supported", value.data_type()))?;
    Ok(Expr::literal(scalar(value)?, ty))
}

fn scalar(value: &ScalarValue) -> Result<Scalar, String> {
    if value.is_null() {
        return Ok(Scalar::Null);
    }
    let missing = || format!("a constant of type {} is not supported", value.data_type());
    Ok(match value {
        ScalarValue::Boolean(Some(v)) => Scalar::Boolean(*v),
        ScalarValue::Float16(Some(v)) => Scalar::Float(f64::from(*v)),
        ScalarValue::Float32(Some(v)) => Scalar::Float(f64::from(*v)),
        ScalarValue::Float64(Some(v)) => Scalar::Float(*v),
        ScalarValue::Decimal32(Some(v), ..) => Scalar::Decimal(i128::from(*v)),
        ScalarValue::Decimal64(Some(v), ..) => Scalar::Decimal(i128::from(*v)),
        ScalarValue::Decimal128(Some(v), ..) => Scalar::Decimal(*v),
        ScalarValue::Int8(Some(v)) => Scalar::Int(i64::from(*v)),
        ScalarValue::Int16(Some(v)) => Scalar::Int(i64::from(*v)),
        ScalarValue::Int32(Some(v)) => Scalar::Int(i64::from(*v)),
        ScalarValue::Int64(Some(v)) => Scalar::Int(*v),
        ScalarValue::UInt8(Some(v)) => Scalar::Int(i64::from(*v)),
        ScalarValue::UInt16(Some(v)) => Scalar::Int(i64::from(*v)),
        ScalarValue::UInt32(Some(v)) => Scalar::Int(i64::from(*v)),
        ScalarValue::UInt64(Some(v)) => {
            Scalar::Int(i64::try_from(*v).map_err(|_| format!("{v} does not fit into BIGINT"))?)
        }
        ScalarValue::Utf8(Some(v)) | ScalarValue::Utf8View(Some(v)) | ScalarValue::LargeUtf8(Some(v)) => {
            Scalar::String(v.clone())
        }
        ScalarValue::Binary(Some(v))
        | ScalarValue::BinaryView(Some(v))
        | ScalarValue::LargeBinary(Some(v))
        | ScalarValue::FixedSizeBinary(_, Some(v)) => Scalar::Bytes(v.clone()),
        ScalarValue::Date32(Some(v)) => Scalar::Int(i64::from(*v)),
        ScalarValue::Date64(Some(v)) => Scalar::Int(v.div_euclid(MS_A_DAY)),
        ScalarValue::Time32Second(Some(v)) => Scalar::Int(i64::from(*v) * 1_000),
        ScalarValue::Time32Millisecond(Some(v)) => Scalar::Int(i64::from(*v)),
        ScalarValue::Time64Microsecond(Some(v)) => Scalar::Int(v / 1_000),
        ScalarValue::Time64Nanosecond(Some(v)) => Scalar::Int(v / 1_000_000),
        ScalarValue::TimestampSecond(Some(v), _) => {
            Scalar::Int(v.checked_mul(1_000).ok_or("a timestamp beyond the range of milliseconds")?)
        }
        ScalarValue::TimestampMillisecond(Some(v), _)
        | ScalarValue::TimestampMicrosecond(Some(v), _)
        | ScalarValue::TimestampNanosecond(Some(v), _) => Scalar::Int(*v),
        ScalarValue::IntervalYearMonth(Some(v)) => Scalar::Interval { months: *v, days: 0, nanos: 0 },
        ScalarValue::IntervalDayTime(Some(v)) => {
            Scalar::Interval { months: 0, days: v.days, nanos: i64::from(v.milliseconds) * 1_000_000 }
        }
        ScalarValue::IntervalMonthDayNano(Some(v)) => {
            Scalar::Interval { months: v.months, days: v.days, nanos: v.nanoseconds }
        }
        ScalarValue::DurationSecond(Some(v)) => duration(*v, 1_000_000_000)?,
        ScalarValue::DurationMillisecond(Some(v)) => duration(*v, 1_000_000)?,
        ScalarValue::DurationMicrosecond(Some(v)) => duration(*v, 1_000)?,
        ScalarValue::DurationNanosecond(Some(v)) => duration(*v, 1)?,
        ScalarValue::Dictionary(_, inner) => scalar(inner)?,
        ScalarValue::List(list) => items(&list.value(0))?,
        ScalarValue::LargeList(list) => items(&list.value(0))?,
        ScalarValue::FixedSizeList(list) => items(&list.value(0))?,
        ScalarValue::Struct(row) => {
            let fields = row.columns().iter().map(|column| element(column, 0)).collect::<Result<_, _>>()?;
            Scalar::List(fields)
        }
        _ => return Err(missing()),
    })
}

fn duration(ticks: i64, nanos: i64) -> Result<Scalar, String> {
    let nanos = ticks.checked_mul(nanos).ok_or("an interval beyond 292 years")?;
    Ok(Scalar::Interval { months: 0, days: 0, nanos })
}

fn items(array: &dyn Array) -> Result<Scalar, String> {
    (0..array.len()).map(|i| element(array, i)).collect::<Result<_, _>>().map(Scalar::List)
}

fn element(array: &dyn Array, index: usize) -> Result<Scalar, String> {
    scalar(&ScalarValue::try_from_array(array, index).map_err(|error| error.strip_backtrace())?)
}
