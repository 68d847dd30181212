//! Avro schemas: read from a writer's JSON, and derived from a table's columns as Flink derives them.

use ef_proto::schema::{DataType, Field, Schema as Columns, Unit};
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// How deep the JSON of a schema may nest, and how many names it may have.
const DEPTH_MAX: usize = 64;
const NAMED_MAX: usize = 4096;

/// A schema with its named types, which may hold themselves.
#[derive(Debug)]
pub struct Schema {
    pub root: Type,
    pub named: Vec<Named>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    Null,
    Boolean,
    Int(Logical),
    Long(Logical),
    Float,
    Double,
    Bytes(Logical),
    String,
    Array(Box<Type>),
    Map(Box<Type>),
    Union(Vec<Type>),
    /// In `Schema::named`.
    Named(usize),
}

#[derive(Debug)]
pub enum Named {
    Record(Vec<(String, Type)>),
    Enum(Vec<String>),
    Fixed(usize, Logical),
}

/// What a number or bytes mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logical {
    None,
    Date,
    TimeMillis,
    TimeMicros,
    /// Local or not.
    Timestamp(Unit),
    Decimal {
        precision: u32,
        scale: u32,
    },
}

impl Schema {
    pub fn parse(text: &str) -> Result<Schema, String> {
        let json: Value = serde_json::from_str(text).map_err(|e| format!("the schema is no JSON: {e}"))?;
        let mut parser = Parser { named: Vec::new(), names: HashMap::new() };
        let root = parser.parse(&json, "", 0)?;
        Ok(Schema { root, named: parser.named })
    }

    /// For messages.
    pub fn name_of(&self, ty: &Type) -> &'static str {
        match ty {
            Type::Null => "null",
            Type::Boolean => "boolean",
            Type::Int(Logical::Date) => "date",
            Type::Int(Logical::None) => "int",
            Type::Long(Logical::None) => "long",
            Type::Int(_) | Type::Long(Logical::TimeMicros) => "time",
            Type::Long(_) => "timestamp",
            Type::Float => "float",
            Type::Double => "double",
            Type::Bytes(Logical::None) => "bytes",
            Type::Bytes(_) => "decimal",
            Type::String => "string",
            Type::Array(_) => "array",
            Type::Map(_) => "map",
            Type::Union(_) => "union",
            Type::Named(at) => match self.named[*at] {
                Named::Record(_) => "record",
                Named::Enum(_) => "enum",
                Named::Fixed(_, Logical::None) => "fixed",
                Named::Fixed(..) => "decimal",
            },
        }
    }
}

struct Parser {
    named: Vec<Named>,
    names: HashMap<String, usize>,
}

impl Parser {
    fn parse(&mut self, json: &Value, namespace: &str, depth: usize) -> Result<Type, String> {
        if depth > DEPTH_MAX {
            return Err(format!("the schema nests deeper than {DEPTH_MAX}"));
        }
        match json {
            Value::String(name) => self.by_name(name, namespace),
            Value::Array(branches) => {
                let branches: Vec<Type> =
                    branches.iter().map(|branch| self.parse(branch, namespace, depth + 1)).collect::<Result<_, _>>()?;
                match branches.iter().any(|branch| matches!(branch, Type::Union(_))) || branches.is_empty() {
                    true => Err("a union in a union, or an empty one".into()),
                    false => Ok(Type::Union(branches)),
                }
            }
            Value::Object(object) => self.object(object, namespace, depth),
            other => Err(format!("{other} is no schema")),
        }
    }

    fn by_name(&self, name: &str, namespace: &str) -> Result<Type, String> {
        Ok(match name {
            "null" => Type::Null,
            "boolean" => Type::Boolean,
            "int" => Type::Int(Logical::None),
            "long" => Type::Long(Logical::None),
            "float" => Type::Float,
            "double" => Type::Double,
            "bytes" => Type::Bytes(Logical::None),
            "string" => Type::String,
            name => {
                let full = full_name(name, namespace);
                let found = self.names.get(&full).or_else(|| self.names.get(name));
                return found.map(|at| Type::Named(*at)).ok_or_else(|| format!("the schema has no type '{full}'"));
            }
        })
    }

    fn object(&mut self, object: &Map<String, Value>, namespace: &str, depth: usize) -> Result<Type, String> {
        let text = |key: &str| object.get(key).and_then(Value::as_str);
        let Some(kind) = text("type") else {
            let inner = object.get("type").ok_or("a schema without a 'type'")?;
            return self.parse(inner, namespace, depth + 1);
        };
        let logical = logical(object);
        match kind {
            "record" | "error" | "enum" | "fixed" => {}
            "array" => {
                let items = object.get("items").ok_or("an array without 'items'")?;
                return Ok(Type::Array(self.parse(items, namespace, depth + 1)?.into()));
            }
            "map" => {
                let values = object.get("values").ok_or("a map without 'values'")?;
                return Ok(Type::Map(self.parse(values, namespace, depth + 1)?.into()));
            }
            "int" => return Ok(Type::Int(logical.only(&[Logical::Date, Logical::TimeMillis]))),
            "long" => {
                let micros = logical == Logical::TimeMicros || matches!(logical, Logical::Timestamp(_));
                return Ok(Type::Long(if micros { logical } else { Logical::None }));
            }
            "bytes" => return Ok(Type::Bytes(logical.decimal())),
            other => return self.by_name(other, namespace),
        }
        let name = text("name").ok_or_else(|| format!("a {kind} without a 'name'"))?;
        let full = full_name(name, text("namespace").unwrap_or(namespace));
        let namespace = full.rsplit_once('.').map_or("", |(namespace, _)| namespace).to_owned();
        if self.named.len() == NAMED_MAX {
            return Err(format!("the schema has more than {NAMED_MAX} types"));
        }
        let at = self.named.len();
        // Known to its own fields.
        self.named.push(Named::Record(Vec::new()));
        if self.names.insert(full.clone(), at).is_some() {
            return Err(format!("the schema defines '{full}' twice"));
        }
        self.named[at] = match kind {
            "enum" => {
                let symbols = object.get("symbols").and_then(Value::as_array).ok_or("an enum without 'symbols'")?;
                Named::Enum(symbols.iter().filter_map(Value::as_str).map(str::to_owned).collect())
            }
            "fixed" => {
                let size = object.get("size").and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok());
                Named::Fixed(size.ok_or("a fixed without a 'size'")?, logical.decimal())
            }
            _ => {
                let fields = object.get("fields").and_then(Value::as_array).ok_or("a record without 'fields'")?;
                let mut parsed = Vec::with_capacity(fields.len());
                for field in fields {
                    let name = field.get("name").and_then(Value::as_str).ok_or("a field without a 'name'")?;
                    let ty = field.get("type").ok_or_else(|| format!("field '{name}' without a 'type'"))?;
                    let ty = self.parse(ty, &namespace, depth + 1).map_err(|e| format!("field '{name}': {e}"))?;
                    if parsed.iter().any(|(other, _)| other == name) {
                        return Err(format!("'{full}' has two fields '{name}'"));
                    }
                    parsed.push((name.to_owned(), ty));
                }
                Named::Record(parsed)
            }
        };
        Ok(Type::Named(at))
    }
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

/// One that is not known, or that its type cannot have, means nothing.
fn logical(object: &Map<String, Value>) -> Logical {
    let number = |key: &str| object.get(key).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok());
    match object.get("logicalType").and_then(Value::as_str) {
        Some("date") => Logical::Date,
        Some("time-millis") => Logical::TimeMillis,
        Some("time-micros") => Logical::TimeMicros,
        Some("timestamp-millis" | "local-timestamp-millis") => Logical::Timestamp(Unit::Milli),
        Some("timestamp-micros" | "local-timestamp-micros") => Logical::Timestamp(Unit::Micro),
        Some("timestamp-nanos" | "local-timestamp-nanos") => Logical::Timestamp(Unit::Nano),
        Some("decimal") => match (number("precision"), number("scale").unwrap_or(0)) {
            (Some(precision), scale) if precision > 0 && scale <= precision => Logical::Decimal { precision, scale },
            _ => Logical::None,
        },
        _ => Logical::None,
    }
}

impl Logical {
    fn only(self, accepted: &[Logical]) -> Logical {
        if accepted.contains(&self) { self } else { Logical::None }
    }

    fn decimal(self) -> Logical {
        if matches!(self, Logical::Decimal { .. }) { self } else { Logical::None }
    }
}

/// The schema of a table's rows, with Flink's names. `legacy`: TIMESTAMP is `timestamp-*`.
pub fn derive(columns: &Columns, legacy: bool) -> String {
    record(&columns.fields, "org.apache.flink.avro.generated.record", legacy).to_string()
}

fn record(fields: &[Field], name: &str, legacy: bool) -> Value {
    let fields: Vec<Value> = fields
        .iter()
        .map(|field| {
            let ty = ty(&field.ty, &format!("{name}_{}", field.name), legacy);
            match field.nullable {
                true => json!({"name": field.name, "type": ["null", ty], "default": null}),
                false => json!({"name": field.name, "type": ty}),
            }
        })
        .collect();
    let (namespace, name) = name.rsplit_once('.').unwrap_or(("", name));
    json!({"type": "record", "name": name, "namespace": namespace, "fields": fields})
}

fn ty(ty: &DataType, name: &str, legacy: bool) -> Value {
    let nested = |item: &DataType| json!(["null", self::ty(item, name, legacy)]);
    match ty {
        DataType::Boolean => json!("boolean"),
        DataType::Int8 | DataType::Int16 | DataType::Int32 => json!("int"),
        DataType::Int64 => json!("long"),
        DataType::Float32 => json!("float"),
        DataType::Float64 => json!("double"),
        DataType::Decimal { precision, scale } => {
            json!({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale})
        }
        DataType::String => json!("string"),
        DataType::Bytes => json!("bytes"),
        DataType::Date => json!({"type": "int", "logicalType": "date"}),
        DataType::Time => json!({"type": "int", "logicalType": "time-millis"}),
        DataType::Timestamp(unit) | DataType::TimestampLtz(unit) => {
            let local = if matches!(ty, DataType::Timestamp(_)) && !legacy { "local-" } else { "" };
            let unit = if *unit == Unit::Milli { "millis" } else { "micros" };
            json!({"type": "long", "logicalType": format!("{local}timestamp-{unit}")})
        }
        DataType::Row(fields) => record(fields, name, legacy),
        DataType::Array(item) => json!({"type": "array", "items": nested(item)}),
        DataType::Map(_, value) => json!({"type": "map", "values": nested(value)}),
        // Refused when the table was planned.
        DataType::Null | DataType::Interval => json!("null"),
    }
}
