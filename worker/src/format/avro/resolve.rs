//! A writer's schema against the columns: what is to be done with each value as it comes, decided once.
//!
//! Fields are found by name; those without a column are passed over, columns without a field are NULL. Numbers widen
//! as Avro allows. What cannot be resolved is an error before any row; only in a union it is one when the branch comes.

use super::schema::{Logical, Named, Schema, Type};
use ef_proto::schema::{DataType, Field, Unit};

/// How a value is read, and into what.
pub enum Node {
    Null,
    Boolean,
    /// int or long into a column of whole numbers.
    Whole,
    /// int or long into FLOAT or DOUBLE.
    WholeToFloat,
    Float,
    Double,
    /// string or bytes into STRING.
    Text,
    Bytes,
    Fixed(usize),
    /// Into STRING.
    Enum(Vec<String>),
    Date,
    /// Of milliseconds, divided by this.
    Time(i64),
    /// Multiplied or divided.
    Ticks(i64, i64),
    /// Bytes, or as many of a fixed one; the unscaled value is multiplied by this.
    Decimal(Option<usize>, i128),
    Array(Box<Node>),
    Map(Box<Node>),
    Union(Vec<Result<Node, String>>),
    Record(Record),
}

pub struct Record {
    /// In the writer's order: the field's name, and what becomes of its values.
    pub steps: Vec<(String, Step)>,
    /// Columns without a field.
    pub missing: Vec<usize>,
}

pub enum Step {
    Column(usize, Node),
    Skip(Type),
}

/// The rows of a schema's records.
pub fn rows(schema: &Schema, columns: &[Field]) -> Result<Record, String> {
    match &schema.root {
        Type::Named(at) => match &schema.named[*at] {
            Named::Record(fields) => record(schema, fields, columns),
            _ => Err(format!("the schema is of a {}, expected a record", schema.name_of(&schema.root))),
        },
        other => Err(format!("the schema is of a {}, expected a record", schema.name_of(other))),
    }
}

fn record(schema: &Schema, fields: &[(String, Type)], columns: &[Field]) -> Result<Record, String> {
    let mut steps = Vec::with_capacity(fields.len());
    for (name, ty) in fields {
        let step = match columns.iter().position(|column| column.name == *name) {
            Some(index) => {
                let column = &columns[index];
                let node = node(schema, ty, &column.ty, column.nullable);
                Step::Column(index, node.map_err(|what| format!("field '{name}': {what}"))?)
            }
            None => Step::Skip(ty.clone()),
        };
        steps.push((name.clone(), step));
    }
    let has_field = |column: &Field| fields.iter().any(|(name, _)| *name == column.name);
    let missing: Vec<usize> = (0..columns.len()).filter(|index| !has_field(&columns[*index])).collect();
    if let Some(index) = missing.iter().find(|index| !columns[**index].nullable) {
        return Err(format!(
            "column `{}` is NOT NULL, and the writer's schema has no such field",
            columns[*index].name
        ));
    }
    Ok(Record { steps, missing })
}

fn node(schema: &Schema, ty: &Type, column: &DataType, nullable: bool) -> Result<Node, String> {
    use DataType as T;
    let refused = || Err(format!("a {} cannot be in a column of {column}", schema.name_of(ty)));
    let whole = matches!(column, T::Int8 | T::Int16 | T::Int32 | T::Int64);
    let float = matches!(column, T::Float32 | T::Float64);
    Ok(match (ty, column) {
        (Type::Union(branches), _) => {
            let nodes: Vec<_> = branches.iter().map(|branch| node(schema, branch, column, nullable)).collect();
            if nodes.iter().all(Result::is_err) {
                return Err(nodes.into_iter().find_map(Result::err).unwrap_or_default());
            }
            let values = branches.iter().zip(&nodes).filter(|(branch, _)| **branch != Type::Null);
            if let Some((_, Err(what))) =
                values.clone().next().filter(|_| values.clone().all(|(_, node)| node.is_err()))
            {
                return Err(what.clone());
            }
            Node::Union(nodes)
        }
        (Type::Null, _) if nullable => Node::Null,
        (Type::Null, _) => return Err("null, and the column is NOT NULL".into()),
        (Type::Boolean, T::Boolean) => Node::Boolean,
        (Type::Int(Logical::None), _) if whole => Node::Whole,
        (Type::Long(Logical::None), T::Int64) => Node::Whole,
        (Type::Int(Logical::None) | Type::Long(Logical::None), _) if float => Node::WholeToFloat,
        (Type::Float, _) if float => Node::Float,
        (Type::Double, T::Float64) => Node::Double,
        (Type::String | Type::Bytes(Logical::None), T::String) => Node::Text,
        (Type::String | Type::Bytes(_), T::Bytes) => Node::Bytes,
        (Type::Int(Logical::None | Logical::Date), T::Date) => Node::Date,
        (Type::Int(Logical::None | Logical::TimeMillis), T::Time) => Node::Time(1),
        (Type::Long(Logical::TimeMicros), T::Time) => Node::Time(1_000),
        // A bare number is of the column's own unit, as in Flink.
        (Type::Long(Logical::None), T::Timestamp(_) | T::TimestampLtz(_)) => Node::Ticks(1, 1),
        (Type::Long(Logical::Timestamp(from)), T::Timestamp(to) | T::TimestampLtz(to)) => ticks(*from, *to),
        // Whoever wants the number itself.
        (Type::Int(_), T::Int32 | T::Int64) | (Type::Long(_), T::Int64) => Node::Whole,
        (Type::Bytes(Logical::Decimal { scale: from, .. }), T::Decimal { scale, .. }) => {
            Node::Decimal(None, rescale(*from, *scale)?)
        }
        (Type::Array(item), T::Array(to)) => Node::Array(node(schema, item, to, true)?.into()),
        (Type::Map(value), T::Map(key, to)) if **key == T::String => Node::Map(node(schema, value, to, true)?.into()),
        (Type::Named(at), _) => match (&schema.named[*at], column) {
            (Named::Record(fields), T::Row(columns)) => Node::Record(record(schema, fields, columns)?),
            (Named::Enum(symbols), T::String) => Node::Enum(symbols.clone()),
            (Named::Fixed(size, Logical::Decimal { scale: from, .. }), T::Decimal { scale, .. }) => {
                Node::Decimal(Some(*size), rescale(*from, *scale)?)
            }
            (Named::Fixed(size, _), T::Bytes) => Node::Fixed(*size),
            _ => return refused(),
        },
        _ => return refused(),
    })
}

fn ticks(from: Unit, to: Unit) -> Node {
    let (from, to) = (from.per_milli(), to.per_milli());
    if to >= from { Node::Ticks(to / from, 1) } else { Node::Ticks(1, from / to) }
}

fn rescale(from: u32, to: i8) -> Result<i128, String> {
    let up = u32::try_from(to).ok().and_then(|to| to.checked_sub(from));
    let factor = up.and_then(|up| 10i128.checked_pow(up));
    factor.ok_or_else(|| format!("a decimal with {from} digits behind its point does not fit one with {to}"))
}
