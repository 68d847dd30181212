//! SQL types and schemas, and the one Arrow type that carries each of them.
//!
//! The set is closed: the worker's kernels are written for exactly these. Arrow types that DataFusion's functions
//! return beyond it (views, unsigned, dictionaries) are mapped onto the set by [`DataType::from_arrow`] and cast at
//! the call.

use arrow_schema::{DataType as Arrow, Field as ArrowField, Fields, IntervalUnit, Schema as ArrowSchema, TimeUnit};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// Resolution of a timestamp: `TIMESTAMP(0..=3)` is milliseconds, `(4..=6)` microseconds, `(7..=9)` nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Unit {
    Milli,
    Micro,
    Nano,
}

impl Unit {
    /// Ticks of this unit in one millisecond.
    pub const fn per_milli(self) -> i64 {
        match self {
            Unit::Milli => 1,
            Unit::Micro => 1_000,
            Unit::Nano => 1_000_000,
        }
    }

    pub const fn of_precision(precision: u8) -> Unit {
        match precision {
            0..=3 => Unit::Milli,
            4..=6 => Unit::Micro,
            _ => Unit::Nano,
        }
    }

    const fn to_arrow(self) -> TimeUnit {
        match self {
            Unit::Milli => TimeUnit::Millisecond,
            Unit::Micro => TimeUnit::Microsecond,
            Unit::Nano => TimeUnit::Nanosecond,
        }
    }
}

/// How deep types may nest: ROWs in ARRAYs in MAPs in ROWs… Less than protobuf allows of messages in messages.
pub const DEPTH_MAX: usize = 24;

/// A SQL type. In brackets the Arrow type that carries it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DataType {
    /// The type of a bare NULL (Null).
    Null,
    Boolean,
    /// TINYINT, SMALLINT, INT, BIGINT.
    Int8,
    Int16,
    Int32,
    Int64,
    /// FLOAT, DOUBLE.
    Float32,
    Float64,
    /// DECIMAL(p, s), 1 <= p <= 38 (Decimal128).
    Decimal {
        precision: u8,
        scale: i8,
    },
    /// CHAR, VARCHAR, STRING (Utf8).
    String,
    /// BINARY, VARBINARY, BYTES (Binary).
    Bytes,
    /// DATE (Date32, days).
    Date,
    /// TIME(0..=3) (Time32 milliseconds).
    Time,
    /// TIMESTAMP(p): wall-clock time without zone (Timestamp, no zone).
    Timestamp(Unit),
    /// TIMESTAMP_LTZ(p): an instant (Timestamp, zone "UTC").
    TimestampLtz(Unit),
    /// INTERVAL literals in expressions (Interval MonthDayNano).
    Interval,
    /// ROW<...> (Struct).
    Row(Vec<Field>),
    /// ARRAY<...> (List).
    Array(Box<DataType>),
    /// MAP<...> (Map).
    Map(Box<DataType>, Box<DataType>),
}

/// A named, typed column.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Field {
    pub name: String,
    pub ty: DataType,
    pub nullable: bool,
}

impl Field {
    pub fn new(name: impl Into<String>, ty: DataType, nullable: bool) -> Field {
        Field { name: name.into(), ty, nullable }
    }

    pub fn to_arrow(&self) -> ArrowField {
        ArrowField::new(&self.name, self.ty.to_arrow(), self.nullable)
    }
}

/// The columns of an edge, in order. Names may repeat inside a plan (a join of two tables); positions decide.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Schema {
    pub fields: Vec<Field>,
}

/// The column that a changelog edge carries last: Int8, values of [`RowKind`].
pub const OP_COLUMN: &str = "_op";

/// What a row of a changelog does. Stable ordinals: they are written to state and to the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(i8)]
pub enum RowKind {
    Insert = 0,
    UpdateBefore = 1,
    UpdateAfter = 2,
    Delete = 3,
}

impl RowKind {
    pub const ALL: [RowKind; 4] = [RowKind::Insert, RowKind::UpdateBefore, RowKind::UpdateAfter, RowKind::Delete];

    pub fn from_i8(value: i8) -> Option<RowKind> {
        RowKind::ALL.into_iter().find(|kind| *kind as i8 == value)
    }

    /// Flink's short name: `+I`, `-U`, `+U`, `-D`.
    pub const fn short(self) -> &'static str {
        match self {
            RowKind::Insert => "+I",
            RowKind::UpdateBefore => "-U",
            RowKind::UpdateAfter => "+U",
            RowKind::Delete => "-D",
        }
    }

    /// True for the kinds that take a row away (`-U`, `-D`).
    pub const fn retracts(self) -> bool {
        matches!(self, RowKind::UpdateBefore | RowKind::Delete)
    }
}

impl Schema {
    pub fn new(fields: Vec<Field>) -> Schema {
        Schema { fields }
    }

    pub fn len(&self) -> usize {
        self.fields.len()
    }

    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|f| f.name == name)
    }

    /// This schema with `_op` appended: what a changelog edge carries.
    pub fn with_op(&self) -> Schema {
        let mut fields = self.fields.clone();
        fields.push(Field::new(OP_COLUMN, DataType::Int8, false));
        Schema { fields }
    }

    pub fn to_arrow(&self) -> Arc<ArrowSchema> {
        Arc::new(ArrowSchema::new(self.fields.iter().map(Field::to_arrow).collect::<Vec<_>>()))
    }
}

impl DataType {
    /// The Arrow type that carries this type.
    pub fn to_arrow(&self) -> Arrow {
        match self {
            DataType::Null => Arrow::Null,
            DataType::Boolean => Arrow::Boolean,
            DataType::Int8 => Arrow::Int8,
            DataType::Int16 => Arrow::Int16,
            DataType::Int32 => Arrow::Int32,
            DataType::Int64 => Arrow::Int64,
            DataType::Float32 => Arrow::Float32,
            DataType::Float64 => Arrow::Float64,
            DataType::Decimal { precision, scale } => Arrow::Decimal128(*precision, *scale),
            DataType::String => Arrow::Utf8,
            DataType::Bytes => Arrow::Binary,
            DataType::Date => Arrow::Date32,
            DataType::Time => Arrow::Time32(TimeUnit::Millisecond),
            DataType::Timestamp(unit) => Arrow::Timestamp(unit.to_arrow(), None),
            DataType::TimestampLtz(unit) => Arrow::Timestamp(unit.to_arrow(), Some("UTC".into())),
            DataType::Interval => Arrow::Interval(IntervalUnit::MonthDayNano),
            DataType::Row(fields) => Arrow::Struct(fields.iter().map(Field::to_arrow).collect::<Fields>()),
            DataType::Array(item) => Arrow::List(Arc::new(ArrowField::new_list_field(item.to_arrow(), true))),
            DataType::Map(key, value) => {
                let entries = Fields::from(vec![
                    ArrowField::new("key", key.to_arrow(), false),
                    ArrowField::new("value", value.to_arrow(), true),
                ]);
                Arrow::Map(Arc::new(ArrowField::new("entries", Arrow::Struct(entries), false)), false)
            }
        }
    }

    /// The type of the closed set that holds every value of `arrow`; None where there is none. For types outside
    /// the set (views, unsigned, dictionaries) the worker casts to `to_arrow()` of the answer.
    pub fn from_arrow(arrow: &Arrow) -> Option<DataType> {
        Some(match arrow {
            Arrow::Null => DataType::Null,
            Arrow::Boolean => DataType::Boolean,
            Arrow::Int8 => DataType::Int8,
            Arrow::Int16 | Arrow::UInt8 => DataType::Int16,
            Arrow::Int32 | Arrow::UInt16 => DataType::Int32,
            Arrow::Int64 | Arrow::UInt32 | Arrow::UInt64 => DataType::Int64,
            Arrow::Float16 | Arrow::Float32 => DataType::Float32,
            Arrow::Float64 => DataType::Float64,
            Arrow::Decimal32(p, s) | Arrow::Decimal64(p, s) | Arrow::Decimal128(p, s) => {
                DataType::Decimal { precision: *p, scale: *s }
            }
            Arrow::Utf8 | Arrow::LargeUtf8 | Arrow::Utf8View => DataType::String,
            Arrow::Binary | Arrow::LargeBinary | Arrow::BinaryView | Arrow::FixedSizeBinary(_) => DataType::Bytes,
            Arrow::Date32 | Arrow::Date64 => DataType::Date,
            Arrow::Time32(_) | Arrow::Time64(_) => DataType::Time,
            Arrow::Timestamp(unit, zone) => {
                let unit = match unit {
                    TimeUnit::Second | TimeUnit::Millisecond => Unit::Milli,
                    TimeUnit::Microsecond => Unit::Micro,
                    TimeUnit::Nanosecond => Unit::Nano,
                };
                if zone.is_some() { DataType::TimestampLtz(unit) } else { DataType::Timestamp(unit) }
            }
            Arrow::Interval(_) | Arrow::Duration(_) => DataType::Interval,
            Arrow::Struct(fields) => DataType::Row(
                fields
                    .iter()
                    .map(|f| Some(Field::new(f.name(), DataType::from_arrow(f.data_type())?, f.is_nullable())))
                    .collect::<Option<_>>()?,
            ),
            Arrow::List(item) | Arrow::LargeList(item) | Arrow::FixedSizeList(item, _) => {
                DataType::Array(Box::new(DataType::from_arrow(item.data_type())?))
            }
            Arrow::Map(entries, _) => match entries.data_type() {
                Arrow::Struct(kv) if kv.len() == 2 => DataType::Map(
                    Box::new(DataType::from_arrow(kv[0].data_type())?),
                    Box::new(DataType::from_arrow(kv[1].data_type())?),
                ),
                _ => return None,
            },
            Arrow::Dictionary(_, value) => DataType::from_arrow(value)?,
            _ => return None,
        })
    }

    /// 1 for a type without types in it.
    pub fn depth(&self) -> usize {
        1 + match self {
            DataType::Row(fields) => fields.iter().map(|field| field.ty.depth()).max().unwrap_or(0),
            DataType::Array(item) => item.depth(),
            DataType::Map(key, value) => key.depth().max(value.depth()),
            _ => 0,
        }
    }

    /// Whether there is a cast. The planner refuses the others; a worker has a kernel for each of these.
    pub fn casts_to(&self, to: &DataType) -> bool {
        use DataType as T;
        let clock = |ty: &T| ty.is_timestamp() || matches!(ty, T::Date | T::Time);
        match (self, to) {
            (T::Null, _) => true,
            (from, to) if from == to => true,
            (from, T::String) => from.prints(),
            (T::String, to) => to.is_numeric() || clock(to) || matches!(to, T::Boolean | T::Bytes),
            (T::Boolean, number) | (number, T::Boolean) => number.is_numeric(),
            (T::Date, to) => to.is_timestamp(),
            (from, to) if from.is_timestamp() => clock(to),
            (T::Row(from), T::Row(to)) => {
                from.len() == to.len() && from.iter().zip(to).all(|(from, to)| from.ty.casts_to(&to.ty))
            }
            (T::Array(from), T::Array(to)) => from.casts_to(to),
            (T::Map(key, value), T::Map(to_key, to_value)) => key.casts_to(to_key) && value.casts_to(to_value),
            (from, to) => from.is_numeric() && to.is_numeric(),
        }
    }

    /// Whether values have a text.
    fn prints(&self) -> bool {
        match self {
            DataType::Null | DataType::Interval => false,
            DataType::Row(fields) => fields.iter().all(|field| field.ty.prints()),
            DataType::Array(item) => item.prints(),
            DataType::Map(key, value) => key.prints() && value.prints(),
            _ => true,
        }
    }

    /// ROW, ARRAY, MAP.
    pub const fn is_nested(&self) -> bool {
        matches!(self, DataType::Row(_) | DataType::Array(_) | DataType::Map(..))
    }

    /// Its values have a text of their own, for keys, fields and addresses.
    pub const fn has_text(&self) -> bool {
        !matches!(self, DataType::Null | DataType::Interval) && !self.is_nested()
    }

    pub const fn is_timestamp(&self) -> bool {
        matches!(self, DataType::Timestamp(_) | DataType::TimestampLtz(_))
    }

    pub const fn is_numeric(&self) -> bool {
        matches!(
            self,
            DataType::Int8
                | DataType::Int16
                | DataType::Int32
                | DataType::Int64
                | DataType::Float32
                | DataType::Float64
                | DataType::Decimal { .. }
        )
    }
}

/// Flink's name of the type, as in `CREATE TABLE`.
impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let precision = |unit: &Unit| match unit {
            Unit::Milli => 3,
            Unit::Micro => 6,
            Unit::Nano => 9,
        };
        match self {
            DataType::Null => f.write_str("NULL"),
            DataType::Boolean => f.write_str("BOOLEAN"),
            DataType::Int8 => f.write_str("TINYINT"),
            DataType::Int16 => f.write_str("SMALLINT"),
            DataType::Int32 => f.write_str("INT"),
            DataType::Int64 => f.write_str("BIGINT"),
            DataType::Float32 => f.write_str("FLOAT"),
            DataType::Float64 => f.write_str("DOUBLE"),
            DataType::Decimal { precision, scale } => write!(f, "DECIMAL({precision}, {scale})"),
            DataType::String => f.write_str("STRING"),
            DataType::Bytes => f.write_str("BYTES"),
            DataType::Date => f.write_str("DATE"),
            DataType::Time => f.write_str("TIME"),
            DataType::Timestamp(unit) => write!(f, "TIMESTAMP({})", precision(unit)),
            DataType::TimestampLtz(unit) => write!(f, "TIMESTAMP_LTZ({})", precision(unit)),
            DataType::Interval => f.write_str("INTERVAL"),
            DataType::Row(fields) => {
                f.write_str("ROW<")?;
                for (i, field) in fields.iter().enumerate() {
                    let comma = if i == 0 { "" } else { ", " };
                    write!(f, "{comma}{} {}", field.name, field.ty)?;
                }
                f.write_str(">")
            }
            DataType::Array(item) => write!(f, "ARRAY<{item}>"),
            DataType::Map(key, value) => write!(f, "MAP<{key}, {value}>"),
        }
    }
}
