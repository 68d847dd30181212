//! What a table's columns are in a protobuf message: a descriptor set compiled against the schema.
//!
//! The planner compiles to find out whether the columns fit, a worker compiles again to read or write. The descriptor
//! travels in the plan, cut down to the message and what it is made of ([`prune`]).

use crate::schema::{DataType, Schema};
use descriptor::{FieldDescriptor, Label, Pool, Syntax, Type};
use std::collections::HashMap;

mod base64;
mod default;
mod descriptor;

pub use descriptor::{prune, prune_text};

/// Of a message's pruned descriptor. Plans are kept by the coordinator, and have a limit of their own.
pub const DESCRIPTOR_BYTES_MAX: usize = 128 << 10;

/// Of a file that protoc wrote.
pub const FILE_BYTES_MAX: usize = 16 << 20;

/// A message, read or written as a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Of each column, in the order of the schema.
    pub fields: Vec<MessageField>,
    /// Fields without a column that clear one with a column: (their number, the oneof).
    pub rivals: Vec<(u32, u32)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct MessageField {
    pub name: String,
    pub number: u32,
    pub shape: Shape,
    /// Of the fields of one oneof, the last one that was written is there.
    pub oneof: Option<u32>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// `presence`: one that was set to its default can be told from one that was not set.
    Single {
        kind: Kind,
        presence: bool,
        default: Unset,
    },
    Repeated {
        kind: Kind,
        packed: bool,
    },
    Map {
        key: Kind,
        value: Kind,
    },
}

/// How a value is on the wire.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    String,
    Bytes,
    /// Numbers and their names; the first name of a number is what it reads as.
    Enum(Vec<(i32, String)>),
    Message(Message),
    /// `google.protobuf.Timestamp` in a TIMESTAMP or TIMESTAMP_LTZ column.
    Timestamp,
}

/// What a field without value stands for.
#[derive(Clone, Debug, PartialEq)]
pub enum Unset {
    /// Zero, false, empty, the first value of an enum.
    Zero,
    Int(i64),
    Uint(u64),
    Float(f64),
    Bytes(Vec<u8>),
}

impl Kind {
    /// Repeated ones may be packed.
    pub const fn is_numeric(&self) -> bool {
        !matches!(self, Kind::String | Kind::Bytes | Kind::Message(_) | Kind::Timestamp)
    }
}

/// `descriptor` as [`prune_text`] wrote it. The error says which column does not fit.
pub fn compile(descriptor: &str, message: &str, schema: &Schema) -> Result<Message, String> {
    let bytes = base64::decode(descriptor).ok_or("the descriptor is no base64")?;
    let pool = Pool::parse(&bytes)?;
    compile_message(&pool, message, schema)
}

fn compile_message(pool: &Pool, name: &str, schema: &Schema) -> Result<Message, String> {
    let (message, syntax) = pool.message(name)?;
    let by_name: HashMap<&str, &FieldDescriptor> = message.field.iter().map(|field| (field.name(), field)).collect();
    let mut fields = Vec::with_capacity(schema.len());
    let mut oneofs = Vec::new();
    for column in &schema.fields {
        let field = *by_name.get(column.name.as_str()).ok_or_else(|| {
            let names: Vec<&str> = message.field.iter().map(FieldDescriptor::name).collect();
            format!("column `{}`: there is no such field, expected {}", column.name, names.join(", "))
        })?;
        let within = |what: String| match what.strip_prefix("column `") {
            Some(rest) => format!("column `{}.{rest}", column.name),
            None => format!("column `{}`: {what}", column.name),
        };
        let oneof = field.oneof_index.filter(|_| !field.proto3_optional()).map(|index| index as u32);
        oneofs.extend(oneof);
        let shape = shape(pool, field, syntax, &column.ty).map_err(within)?;
        fields.push(MessageField { name: column.name.clone(), number: field.number() as u32, shape, oneof });
    }
    let rivals = message.field.iter().filter_map(|field| {
        let oneof = field.oneof_index.filter(|_| !field.proto3_optional())? as u32;
        let has_column = fields.iter().any(|found| found.number == field.number() as u32);
        (oneofs.contains(&oneof) && !has_column).then_some((field.number() as u32, oneof))
    });
    let rivals = rivals.collect();
    Ok(Message { fields, rivals })
}

fn shape(pool: &Pool, field: &FieldDescriptor, syntax: Syntax, ty: &DataType) -> Result<Shape, String> {
    let number = field.number();
    if !(1..=(1 << 29) - 1).contains(&number) {
        return Err(format!("{number} is no number of a field"));
    }
    if field.label() == Label::Repeated {
        if let Some((key, value)) = pool.map_entry(field) {
            let DataType::Map(key_ty, value_ty) = ty else { return Err(mismatch("a map", ty, "MAP")) };
            return Ok(Shape::Map { key: kind(pool, key, key_ty)?, value: kind(pool, value, value_ty)? });
        }
        let DataType::Array(item) = ty else { return Err(mismatch("repeated", ty, "ARRAY")) };
        let kind = kind(pool, field, item)?;
        let packed = kind.is_numeric() && field.packed().unwrap_or(syntax.packs());
        return Ok(Shape::Repeated { kind, packed });
    }
    let kind = kind(pool, field, ty)?;
    let message = matches!(kind, Kind::Message(_) | Kind::Timestamp);
    let presence = syntax.tells_presence() || message || field.oneof_index.is_some() || field.proto3_optional();
    let default = match field.default_value.as_deref() {
        Some(text) => default::parse(&kind, text).ok_or_else(|| format!("its default '{text}' cannot be read"))?,
        None => match &kind {
            Kind::Enum(values) => Unset::Int(values.first().map_or(0, |(number, _)| i64::from(*number))),
            _ => Unset::Zero,
        },
    };
    Ok(Shape::Single { kind, presence, default })
}

fn mismatch(what: &str, found: &DataType, expected: &str) -> String {
    format!("the field is {what} and the column is {found}, expected {expected}")
}

fn kind(pool: &Pool, field: &FieldDescriptor, ty: &DataType) -> Result<Kind, String> {
    use DataType as T;
    const INTEGER: &str = "TINYINT, SMALLINT, INT or BIGINT";
    let integer = matches!(ty, T::Int8 | T::Int16 | T::Int32 | T::Int64);
    let float = matches!(ty, T::Float32 | T::Float64);
    let name = field.type_name().trim_start_matches('.');
    let (kind, fits, what, expected) = match field.ty()? {
        Type::Double => (Kind::Double, *ty == T::Float64, "a double", "DOUBLE"),
        Type::Float => (Kind::Float, float, "a float", "FLOAT or DOUBLE"),
        Type::Int32 => (Kind::Int32, integer, "an int32", INTEGER),
        Type::Int64 => (Kind::Int64, integer, "an int64", INTEGER),
        Type::Uint32 => (Kind::Uint32, integer, "a uint32", INTEGER),
        Type::Uint64 => (Kind::Uint64, integer, "a uint64", INTEGER),
        Type::Sint32 => (Kind::Sint32, integer, "a sint32", INTEGER),
        Type::Sint64 => (Kind::Sint64, integer, "a sint64", INTEGER),
        Type::Fixed32 => (Kind::Fixed32, integer, "a fixed32", INTEGER),
        Type::Fixed64 => (Kind::Fixed64, integer, "a fixed64", INTEGER),
        Type::Sfixed32 => (Kind::Sfixed32, integer, "an sfixed32", INTEGER),
        Type::Sfixed64 => (Kind::Sfixed64, integer, "an sfixed64", INTEGER),
        Type::Bool => (Kind::Bool, *ty == T::Boolean, "a bool", "BOOLEAN"),
        Type::String => (Kind::String, *ty == T::String, "a string", "STRING"),
        Type::Bytes => (Kind::Bytes, *ty == T::Bytes, "bytes", "BYTES"),
        Type::Enum => {
            let values = pool.enumeration(name)?;
            (Kind::Enum(values), *ty == T::String || integer, "an enum", "STRING or INT")
        }
        Type::Group => return Err("the field is a group, which is not supported".into()),
        Type::Message if name == "google.protobuf.Timestamp" && ty.is_timestamp() => (Kind::Timestamp, true, "", ""),
        Type::Message => match ty {
            T::Row(fields) => {
                return compile_message(pool, name, &Schema::new(fields.clone())).map(Kind::Message);
            }
            _ if name == "google.protobuf.Timestamp" => {
                return Err(mismatch("a google.protobuf.Timestamp", ty, "TIMESTAMP_LTZ, TIMESTAMP or ROW"));
            }
            _ => return Err(mismatch(&format!("a message {name}"), ty, "ROW")),
        },
    };
    if fits { Ok(kind) } else { Err(mismatch(what, ty, expected)) }
}

#[cfg(test)]
mod tests;
