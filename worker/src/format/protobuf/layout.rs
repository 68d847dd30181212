//! A message's fields as the decoder looks them up: by number, the one that came behind the last one first.

use super::wire::{FIXED32, FIXED64, SPAN, VARINT};
use ef_proto::connector::protobuf::{self, Message, Unset};

/// Numbers up to here are looked up in a table.
const TABLE_MAX: u32 = 1024;

pub struct Layout {
    pub fields: Vec<Field>,
    pub read_defaults: bool,
    table: Vec<Target>,
    /// Of larger numbers, in order.
    sparse: Vec<(u32, Target)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Field(usize),
    /// No column, but it clears those of this oneof.
    Rival(u32),
    Unknown,
}

pub struct Field {
    pub name: String,
    number: u32,
    pub shape: Shape,
    pub oneof: Option<u32>,
}

pub enum Shape {
    Single { kind: Kind, presence: bool, default: Unset },
    Repeated { kind: Kind },
    Map { key: Kind, value: Kind },
}

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
    /// By number.
    Enum(Vec<(i32, String)>),
    Message(Layout),
    Timestamp,
}

impl Layout {
    pub fn new(message: &Message, read_defaults: bool) -> Layout {
        let fields: Vec<Field> = message.fields.iter().map(|field| Field::new(field, read_defaults)).collect();
        let targets = fields.iter().enumerate().map(|(index, field)| (field.number, Target::Field(index)));
        let rivals = message.rivals.iter().map(|(number, oneof)| (*number, Target::Rival(*oneof)));
        let mut sparse: Vec<(u32, Target)> = targets.chain(rivals).collect();
        sparse.sort_by_key(|(number, _)| *number);
        let most = sparse.iter().map(|(number, _)| *number).filter(|number| *number <= TABLE_MAX).max().unwrap_or(0);
        let mut table = vec![Target::Unknown; most as usize + 1];
        sparse.retain(|(number, target)| match table.get_mut(*number as usize) {
            Some(place) => {
                *place = *target;
                false
            }
            None => true,
        });
        Layout { fields, read_defaults, table, sparse }
    }

    /// `expected`: the field that is likely, kept by the caller.
    #[inline(always)]
    pub fn find(&self, number: u32, expected: &mut usize) -> Target {
        if let Some(field) = self.fields.get(*expected)
            && field.number == number
        {
            let found = *expected;
            *expected += 1;
            return Target::Field(found);
        }
        let target = match self.table.get(number as usize) {
            Some(target) => *target,
            None => {
                let at = self.sparse.binary_search_by_key(&number, |(number, _)| *number);
                at.map_or(Target::Unknown, |at| self.sparse[at].1)
            }
        };
        if let Target::Field(index) = target {
            *expected = index + 1;
        }
        target
    }
}

impl Field {
    fn new(field: &protobuf::MessageField, read_defaults: bool) -> Field {
        let kind = |kind: &protobuf::Kind| Kind::new(kind, read_defaults);
        let shape = match &field.shape {
            protobuf::Shape::Single { kind: of, presence, default } => {
                Shape::Single { kind: kind(of), presence: *presence, default: default.clone() }
            }
            protobuf::Shape::Repeated { kind: of, .. } => Shape::Repeated { kind: kind(of) },
            protobuf::Shape::Map { key, value } => Shape::Map { key: kind(key), value: kind(value) },
        };
        Field { name: field.name.clone(), number: field.number, shape, oneof: field.oneof }
    }
}

impl Kind {
    fn new(kind: &protobuf::Kind, read_defaults: bool) -> Kind {
        use protobuf::Kind as From;
        match kind {
            From::Double => Kind::Double,
            From::Float => Kind::Float,
            From::Int32 => Kind::Int32,
            From::Int64 => Kind::Int64,
            From::Uint32 => Kind::Uint32,
            From::Uint64 => Kind::Uint64,
            From::Sint32 => Kind::Sint32,
            From::Sint64 => Kind::Sint64,
            From::Fixed32 => Kind::Fixed32,
            From::Fixed64 => Kind::Fixed64,
            From::Sfixed32 => Kind::Sfixed32,
            From::Sfixed64 => Kind::Sfixed64,
            From::Bool => Kind::Bool,
            From::String => Kind::String,
            From::Bytes => Kind::Bytes,
            From::Enum(values) => {
                // Of names for one number the first declared is meant; the sort keeps their order.
                let mut names = values.clone();
                names.sort_by_key(|(number, _)| *number);
                names.dedup_by_key(|(number, _)| *number);
                Kind::Enum(names)
            }
            From::Message(message) => Kind::Message(Layout::new(message, read_defaults)),
            From::Timestamp => Kind::Timestamp,
        }
    }

    #[inline(always)]
    pub const fn wire_type(&self) -> u8 {
        match self {
            Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => FIXED64,
            Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => FIXED32,
            Kind::String | Kind::Bytes | Kind::Message(_) | Kind::Timestamp => SPAN,
            _ => VARINT,
        }
    }

    /// The wire type of the items of a packed field; None for what is never packed.
    pub const fn packed_type(&self) -> Option<u8> {
        match self.wire_type() {
            SPAN => None,
            other => Some(other),
        }
    }

    /// Equal for equal values.
    pub const fn normal(&self, number: u64) -> u64 {
        match self {
            Kind::Bool => (number != 0) as u64,
            Kind::Int32 | Kind::Uint32 | Kind::Sint32 => number as u32 as u64,
            _ => number,
        }
    }

    /// What a value of a MAP that is not there stands for: the first one of an enum.
    pub fn zero(&self) -> Unset {
        match self {
            Kind::Enum(names) if !names.iter().any(|(number, _)| *number == 0) => {
                Unset::Int(names.first().map_or(0, |(number, _)| i64::from(*number)))
            }
            _ => Unset::Zero,
        }
    }

    /// A default as it would be on the wire.
    pub fn bits(&self, default: &Unset) -> u64 {
        match (self, default) {
            (Kind::Float, Unset::Float(value)) => u64::from((*value as f32).to_bits()),
            (_, Unset::Float(value)) => value.to_bits(),
            (Kind::Sint32 | Kind::Sint64, Unset::Int(value)) => super::wire::zigzag(*value),
            (_, Unset::Int(value)) => *value as u64,
            (_, Unset::Uint(value)) => *value,
            (_, Unset::Zero | Unset::Bytes(_)) => 0,
        }
    }
}
