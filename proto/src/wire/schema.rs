//! Types and schemas.

use super::enumeration::{Enumeration, enumeration, known};
use super::fault::{Fault, chosen, list, narrow, required};
use super::generated::plan as wire;
use super::generated::plan::data_type::Kind;
use crate::schema::{DataType, Field, Schema, Unit};

enumeration!(Unit: Milli, Micro, Nano);

impl From<&Schema> for wire::Schema {
    fn from(schema: &Schema) -> wire::Schema {
        wire::Schema { fields: schema.fields.iter().map(Into::into).collect() }
    }
}

impl TryFrom<wire::Schema> for Schema {
    type Error = Fault;

    fn try_from(schema: wire::Schema) -> Result<Schema, Fault> {
        Ok(Schema { fields: list(schema.fields, "fields")? })
    }
}

impl From<&Field> for wire::Field {
    fn from(field: &Field) -> wire::Field {
        wire::Field { name: field.name.clone(), r#type: Some((&field.ty).into()), nullable: field.nullable }
    }
}

impl TryFrom<wire::Field> for Field {
    type Error = Fault;

    fn try_from(field: wire::Field) -> Result<Field, Fault> {
        Ok(Field { ty: required(field.r#type, "type")?, name: field.name, nullable: field.nullable })
    }
}

impl From<&DataType> for wire::DataType {
    fn from(ty: &DataType) -> wire::DataType {
        let primitive = |primitive: wire::Primitive| Kind::Primitive(primitive.into());
        let kind = match ty {
            DataType::Null => primitive(wire::Primitive::Null),
            DataType::Boolean => primitive(wire::Primitive::Boolean),
            DataType::Int8 => primitive(wire::Primitive::Int8),
            DataType::Int16 => primitive(wire::Primitive::Int16),
            DataType::Int32 => primitive(wire::Primitive::Int32),
            DataType::Int64 => primitive(wire::Primitive::Int64),
            DataType::Float32 => primitive(wire::Primitive::Float32),
            DataType::Float64 => primitive(wire::Primitive::Float64),
            DataType::String => primitive(wire::Primitive::String),
            DataType::Bytes => primitive(wire::Primitive::Bytes),
            DataType::Date => primitive(wire::Primitive::Date),
            DataType::Time => primitive(wire::Primitive::Time),
            DataType::Interval => primitive(wire::Primitive::Interval),
            DataType::Decimal { precision, scale } => {
                Kind::Decimal(wire::Decimal { precision: (*precision).into(), scale: (*scale).into() })
            }
            DataType::Timestamp(unit) => Kind::Timestamp(unit.number()),
            DataType::TimestampLtz(unit) => Kind::TimestampLtz(unit.number()),
            DataType::Row(fields) => Kind::Row(wire::Row { fields: fields.iter().map(Into::into).collect() }),
            DataType::Array(item) => Kind::Array(Box::new(item.as_ref().into())),
            DataType::Map(key, value) => Kind::Map(Box::new(wire::Map {
                key: Some(Box::new(key.as_ref().into())),
                value: Some(Box::new(value.as_ref().into())),
            })),
        };
        wire::DataType { kind: Some(kind) }
    }
}

/// Recursive: prost has refused what nests deeper than the stack allows.
impl TryFrom<wire::DataType> for DataType {
    type Error = Fault;

    fn try_from(ty: wire::DataType) -> Result<DataType, Fault> {
        let kinds = "primitive, decimal, timestamp, timestamp_ltz, row, array, map";
        Ok(match chosen(ty.kind, "kind", kinds)? {
            Kind::Primitive(number) => primitive(number)?,
            Kind::Decimal(decimal) => decimal_type(decimal).map_err(|fault| fault.within("decimal"))?,
            Kind::Timestamp(unit) => DataType::Timestamp(known(unit, "timestamp")?),
            Kind::TimestampLtz(unit) => DataType::TimestampLtz(known(unit, "timestamp_ltz")?),
            Kind::Row(row) => DataType::Row(list(row.fields, "row.fields")?),
            Kind::Array(item) => DataType::Array(Box::new(required(Some(*item), "array")?)),
            Kind::Map(map) => DataType::Map(
                Box::new(required(map.key.map(|key| *key), "map.key")?),
                Box::new(required(map.value.map(|value| *value), "map.value")?),
            ),
        })
    }
}

fn primitive(number: i32) -> Result<DataType, Fault> {
    Ok(match wire::Primitive::try_from(number) {
        Ok(wire::Primitive::Null) => DataType::Null,
        Ok(wire::Primitive::Boolean) => DataType::Boolean,
        Ok(wire::Primitive::Int8) => DataType::Int8,
        Ok(wire::Primitive::Int16) => DataType::Int16,
        Ok(wire::Primitive::Int32) => DataType::Int32,
        Ok(wire::Primitive::Int64) => DataType::Int64,
        Ok(wire::Primitive::Float32) => DataType::Float32,
        Ok(wire::Primitive::Float64) => DataType::Float64,
        Ok(wire::Primitive::String) => DataType::String,
        Ok(wire::Primitive::Bytes) => DataType::Bytes,
        Ok(wire::Primitive::Date) => DataType::Date,
        Ok(wire::Primitive::Time) => DataType::Time,
        Ok(wire::Primitive::Interval) => DataType::Interval,
        Ok(wire::Primitive::Unknown) | Err(_) => {
            return Err(Fault::new("primitive", format!("{number} is not known; this version knows 1 to 13")));
        }
    })
}

fn decimal_type(decimal: wire::Decimal) -> Result<DataType, Fault> {
    let (precision, scale) = (narrow(decimal.precision, "precision")?, narrow(decimal.scale, "scale")?);
    if !(1..=38).contains(&precision) {
        return Err(Fault::new("precision", format!("{precision} is not in 1..=38")));
    }
    if !(-38..=38).contains(&scale) {
        return Err(Fault::new("scale", format!("{scale} is not in -38..=38")));
    }
    Ok(DataType::Decimal { precision, scale })
}
