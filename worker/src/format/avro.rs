//! `avro` and `avro-confluent`: binary datums straight into columns.
//!
//! A bare datum has the schema that follows from the table's columns; behind the five bytes of the registry's wire
//! format it has the writer's, which is fetched by its id once and resolved against the columns. The decoder is our own
//! because a bad record must be named and leave the batch as it was, and because it fits the columns that all formats
//! share.

use super::column::{Column, Values};
use super::records::{NulledFields, Parse, Problem, Record, Records, problem};
use crate::error::{Error, Result};
use ef_proto::connector::{Avro as Options, AvroConfluent};
use ef_proto::schema::{Field, Schema as Columns};
use resolve::{Node, Step};
use schema::Schema;
use std::collections::HashMap;
use std::sync::Arc;
use wire::Wire;

mod resolve;
pub(super) mod schema;
#[cfg(test)]
mod tests;
pub(super) mod wire;

/// Byte that begins a message of a registry's schema.
pub(super) const MAGIC: u8 = 0;

/// Schemas of writers that are kept. A topic has a few; random bytes have as many as they like.
const SCHEMAS_MAX: usize = 1024;

/// Entries of a MAP that are compared one with another; more are hashed.
const SMALL_MAP: usize = 8;

/// Where the schemas of messages are. It does its own waiting, and remembers for a while what it does not have.
pub trait SchemaRegistry: Send {
    /// The schema with this id, as JSON.
    fn schema(&mut self, id: u32) -> std::result::Result<String, RegistryError>;

    /// Registers a schema and returns its id; the one it has if it is there already.
    fn register(&mut self, subject: &str, schema: &str) -> std::result::Result<u32, RegistryError>;
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// It answered that there is none, or that it may not be: the message is to blame.
    #[error("{0}")]
    Refused(String),
    /// It did not answer: no message is to blame.
    #[error("{0}")]
    Unavailable(String),
}

/// Decodes datums of the writer's schema.
struct Reader {
    schema: Schema,
    rows: resolve::Record,
}

impl Reader {
    fn new(text: &str, columns: &[Field]) -> std::result::Result<Reader, String> {
        let schema = Schema::parse(text)?;
        let rows = resolve::rows(&schema, columns)?;
        Ok(Reader { schema, rows })
    }

    fn row(&self, datum: &[u8], columns: &mut [Column]) -> Parse<()> {
        let mut wire = Wire::new(datum);
        self.record(&self.rows, &mut wire, columns)?;
        match wire.left() {
            0 => Ok(()),
            left => {
                Err(problem(format!("{left} bytes are left behind the record; it was written with another schema")))
            }
        }
    }

    fn record(&self, record: &resolve::Record, wire: &mut Wire, columns: &mut [Column]) -> Parse<()> {
        for (name, step) in &record.steps {
            match step {
                Step::Column(index, node) => self.value(node, wire, &mut columns[*index]),
                Step::Skip(ty) => wire.skip(&self.schema, ty, 0),
            }
            .map_err(|problem| problem.within(name))?;
        }
        record.missing.iter().for_each(|index| columns[*index].nulls(1));
        Ok(())
    }

    #[inline]
    fn value(&self, node: &Node, wire: &mut Wire, column: &mut Column) -> Parse<()> {
        match node {
            Node::Union(branches) => {
                let branch = wire.branch(branches.len())?;
                return match &branches[branch] {
                    Ok(node) => self.value(node, wire, column),
                    Err(what) => Err(problem(what.clone())),
                };
            }
            Node::Null => {
                column.nulls(1);
                return Ok(());
            }
            _ => {}
        }
        match (node, &mut column.values) {
            (Node::Whole, Values::Int64(values)) => values.push(wire.long()?),
            (Node::Whole, Values::Int32(values)) => values.push(wire.int()?),
            (Node::Text, Values::String(text)) => {
                let bytes = wire.bytes()?;
                std::str::from_utf8(bytes).map_err(|e| problem(format!("expected UTF-8: {e}")))?;
                text.bytes.extend_from_slice(bytes);
                text.end();
            }
            (Node::Double, Values::Float64(values)) => values.push(f64::from_le_bytes(wire.array()?)),
            (Node::Ticks(by, of), Values::Timestamp { values, .. }) => {
                let ticks = wire.long()?;
                let scaled = ticks.checked_mul(*by).map(|ticks| ticks.div_euclid(*of));
                values.push(scaled.ok_or_else(|| problem(format!("{ticks} is no timestamp")))?);
            }
            (Node::Boolean, Values::Boolean(bits)) => bits.push(wire.boolean()?),
            (Node::Float, Values::Float32(values)) => values.push(f32::from_le_bytes(wire.array()?)),
            (Node::Float, Values::Float64(values)) => values.push(f32::from_le_bytes(wire.array()?).into()),
            (Node::Whole, Values::Int16(values)) => values.push(narrow(wire.int()?, "SMALLINT")?),
            (Node::Whole, Values::Int8(values)) => values.push(narrow(wire.int()?, "TINYINT")?),
            (Node::WholeToFloat, Values::Float32(values)) => values.push(wire.long()? as f32),
            (Node::WholeToFloat, Values::Float64(values)) => values.push(wire.long()? as f64),
            (Node::Bytes, Values::Bytes(var)) => {
                var.bytes.extend_from_slice(wire.bytes()?);
                var.end();
            }
            (Node::Fixed(size), Values::Bytes(var)) => {
                var.bytes.extend_from_slice(wire.take(*size)?);
                var.end();
            }
            (Node::Enum(symbols), Values::String(text)) => {
                let symbol = wire.branch(symbols.len())?;
                text.bytes.extend_from_slice(symbols[symbol].as_bytes());
                text.end();
            }
            (Node::Date, Values::Date(values)) => values.push(wire.int()?),
            (Node::Time(of), Values::Time(values)) => {
                let millis = wire.long()?.div_euclid(*of);
                let day = i32::try_from(millis).ok().filter(|millis| (0..86_400_000).contains(millis));
                values.push(day.ok_or_else(|| problem(format!("{millis} ms are no time of a day")))?);
            }
            (Node::Decimal(size, factor), Values::Decimal { values, precision, .. }) => {
                let bytes = match size {
                    Some(size) => wire.take(*size)?,
                    None => wire.bytes()?,
                };
                let value = unscaled(bytes).and_then(|value| value.checked_mul(*factor));
                let fits = value.filter(|value| value.unsigned_abs() < 10u128.pow(u32::from(*precision)));
                values.push(fits.ok_or_else(|| problem(format!("a decimal does not fit {}", column.ty)))?);
            }
            (Node::Array(node), Values::Array { offsets, items }) => {
                let before = items.len;
                loop {
                    let count = wire.block()?;
                    if count == 0 {
                        break;
                    }
                    for _ in 0..count {
                        let index = items.len - before;
                        self.value(node, wire, items).map_err(|problem| problem.at_index(index))?;
                    }
                }
                offsets.push(items.len as i32);
            }
            (Node::Map(node), Values::Map { offsets, keys, values }) => {
                self.map(node, wire, keys, values)?;
                offsets.push(keys.len as i32);
            }
            (Node::Record(record), Values::Row { fields, owed, .. }) => {
                let nulls = std::mem::take(owed);
                if nulls > 0 {
                    fields.iter_mut().for_each(|field| field.nulls(nulls));
                }
                self.record(record, wire, fields)?;
            }
            _ => return Err(problem(format!("cannot be in a column of {}", column.ty))),
        }
        column.valid();
        Ok(())
    }

    /// Of equal keys the last one wins: where there are any, the entries are read once more, without those before it.
    fn map(&self, node: &Node, wire: &mut Wire, keys: &mut Column, values: &mut Column) -> Parse<()> {
        let before = keys.len;
        let items_left = wire.items_left;
        let mut entries: Vec<(&[u8], usize)> = Vec::new();
        loop {
            let count = wire.block()?;
            if count == 0 {
                break;
            }
            for _ in 0..count {
                let key = wire.bytes()?;
                std::str::from_utf8(key).map_err(|e| problem(format!("a key is not UTF-8: {e}")))?;
                entries.push((key, wire.at));
                self.entry(key, node, wire, keys, values)?;
            }
        }
        let last = last_ones(&entries);
        if last.len() == entries.len() {
            return Ok(());
        }
        let end = wire.at;
        wire.items_left = items_left;
        keys.truncate(before);
        values.truncate(before);
        for (key, at) in last {
            wire.at = at;
            self.entry(key, node, wire, keys, values)?;
        }
        wire.at = end;
        Ok(())
    }

    fn entry(&self, key: &[u8], node: &Node, wire: &mut Wire, keys: &mut Column, values: &mut Column) -> Parse<()> {
        let Values::String(text) = &mut keys.values else { return Err(problem("a key that is no STRING")) };
        text.bytes.extend_from_slice(key);
        text.end();
        keys.valid();
        let name = || String::from_utf8_lossy(&key[..key.len().min(40)]).into_owned();
        self.value(node, wire, values).map_err(|problem| problem.within(&name()))
    }
}

/// Those entries whose key does not come again.
fn last_ones<'a>(entries: &[(&'a [u8], usize)]) -> Vec<(&'a [u8], usize)> {
    if entries.len() <= SMALL_MAP {
        let last = |at: &usize| entries[at + 1..].iter().all(|(key, _)| *key != entries[*at].0);
        return (0..entries.len()).filter(last).map(|at| entries[at]).collect();
    }
    let mut places: HashMap<&[u8], usize, foldhash::fast::FixedState> = HashMap::default();
    places.extend(entries.iter().copied());
    entries.iter().filter(|(key, at)| places.get(key) == Some(at)).copied().collect()
}

fn narrow<T: TryFrom<i32>>(value: i32, ty: &str) -> Parse<T> {
    T::try_from(value).map_err(|_| problem(format!("{value} does not fit {ty}")))
}

/// Two's complement, the highest byte first.
fn unscaled(bytes: &[u8]) -> Option<i128> {
    let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let fill = if negative { 0xff } else { 0 };
    let spare = bytes.len().saturating_sub(16);
    if bytes[..spare].iter().any(|byte| *byte != fill) {
        return None;
    }
    let mut wide = [fill; 16];
    wide[16 - (bytes.len() - spare)..].copy_from_slice(&bytes[spare..]);
    let value = i128::from_be_bytes(wide);
    ((value < 0) == negative).then_some(value)
}

/// Bare datums.
pub(crate) struct Bare(Reader);

pub(crate) fn decoder(columns: &Columns, options: &Options) -> Result<Records<Bare>> {
    let reader = Reader::new(&schema::derive(columns, options.legacy_timestamps), &columns.fields);
    let reader = reader.map_err(|what| Error::invalid(format!("format 'avro': {what}")))?;
    Records::new(Bare(reader), columns, options.on_error)
}

impl Record for Bare {
    const LINES: std::result::Result<(), &'static str> = Err("format 'avro' is for messages, not for lines of files");

    fn append(&mut self, payload: &[u8], columns: &mut [Column], _: usize, _: &mut NulledFields) -> Parse<usize> {
        self.0.row(payload, columns)?;
        Ok(1)
    }
}

/// Datums behind the ids of their schemas.
pub(crate) struct Registered {
    registry: Box<dyn SchemaRegistry>,
    url: String,
    columns: Vec<Field>,
    /// Err: of a schema that does not fit the columns, what is wrong with it.
    readers: HashMap<u32, std::result::Result<Arc<Reader>, String>>,
}

pub(crate) fn registered(
    columns: &Columns,
    options: &AvroConfluent,
    registry: Box<dyn SchemaRegistry>,
) -> Result<Records<Registered>> {
    let registered =
        Registered { registry, url: options.url.clone(), columns: columns.fields.clone(), readers: HashMap::new() };
    Records::new(registered, columns, options.avro.on_error)
}

impl Registered {
    fn reader(&mut self, id: u32) -> Parse<Arc<Reader>> {
        let blame = |what: &str| problem(format!("schema {id} of registry {}: {what}", self.url));
        if let Some(found) = self.readers.get(&id) {
            return found.clone().map_err(|what| blame(&what));
        }
        let text = match self.registry.schema(id) {
            Ok(text) => text,
            Err(RegistryError::Refused(what)) => return Err(blame(&what)),
            Err(RegistryError::Unavailable(what)) => {
                return Err(Box::new(Problem { fatal: true, ..*blame(&what) }));
            }
        };
        let made = Reader::new(&text, &self.columns).map(Arc::new);
        if self.readers.len() >= SCHEMAS_MAX {
            self.readers.clear();
        }
        self.readers.insert(id, made.clone());
        made.map_err(|what| blame(&what))
    }
}

impl Record for Registered {
    const LINES: std::result::Result<(), &'static str> =
        Err("format 'avro-confluent' is for messages, not for lines of files");

    fn append(&mut self, payload: &[u8], columns: &mut [Column], _: usize, _: &mut NulledFields) -> Parse<usize> {
        let (id, datum) = match payload {
            [MAGIC, a, b, c, d, datum @ ..] => (u32::from_be_bytes([*a, *b, *c, *d]), datum),
            [] => return Err(problem("empty, expected a byte 0 and the id of a schema")),
            [MAGIC, ..] => return Err(problem("cut off in the id of its schema")),
            [first, ..] => {
                let what = format!(
                    "it begins with a byte {first}, expected 0 and the id of a schema; was it written with a registry?"
                );
                return Err(problem(what));
            }
        };
        self.reader(id)?.row(datum, columns)?;
        Ok(1)
    }
}
