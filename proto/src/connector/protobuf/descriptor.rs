//! `FileDescriptorSet`, the parts of it that say what a message is made of. Decoding it by these types and encoding it
//! again leaves out comments, options and services.

use super::{DESCRIPTOR_BYTES_MAX, FILE_BYTES_MAX, base64};
use prost::Message as _;
use std::collections::{BTreeSet, HashMap};

#[derive(Clone, PartialEq, prost::Message)]
pub struct FileSet {
    #[prost(message, repeated, tag = "1")]
    pub file: Vec<File>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct File {
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub package: Option<String>,
    #[prost(message, repeated, tag = "4")]
    pub message_type: Vec<MessageDescriptor>,
    #[prost(message, repeated, tag = "5")]
    pub enum_type: Vec<EnumDescriptor>,
    #[prost(string, optional, tag = "12")]
    pub syntax: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct MessageDescriptor {
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    #[prost(message, repeated, tag = "2")]
    pub field: Vec<FieldDescriptor>,
    #[prost(message, repeated, tag = "3")]
    pub nested_type: Vec<MessageDescriptor>,
    #[prost(message, repeated, tag = "4")]
    pub enum_type: Vec<EnumDescriptor>,
    #[prost(message, optional, tag = "7")]
    pub options: Option<MessageOptions>,
    #[prost(message, repeated, tag = "8")]
    pub oneof_decl: Vec<Oneof>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct MessageOptions {
    #[prost(bool, optional, tag = "7")]
    pub map_entry: Option<bool>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Oneof {
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FieldDescriptor {
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    #[prost(int32, optional, tag = "3")]
    pub number: Option<i32>,
    #[prost(enumeration = "Label", optional, tag = "4")]
    pub label: Option<i32>,
    #[prost(int32, optional, tag = "5")]
    pub r#type: Option<i32>,
    #[prost(string, optional, tag = "6")]
    pub type_name: Option<String>,
    #[prost(string, optional, tag = "7")]
    pub default_value: Option<String>,
    #[prost(message, optional, tag = "8")]
    pub options: Option<FieldOptions>,
    #[prost(int32, optional, tag = "9")]
    pub oneof_index: Option<i32>,
    #[prost(bool, optional, tag = "17")]
    pub proto3_optional: Option<bool>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FieldOptions {
    #[prost(bool, optional, tag = "2")]
    pub packed: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Label {
    Optional = 1,
    Required = 2,
    Repeated = 3,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct EnumDescriptor {
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    #[prost(message, repeated, tag = "2")]
    pub value: Vec<EnumValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct EnumValue {
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    #[prost(int32, optional, tag = "2")]
    pub number: Option<i32>,
}

/// `FieldDescriptorProto.Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Double,
    Float,
    Int64,
    Uint64,
    Int32,
    Fixed64,
    Fixed32,
    Bool,
    String,
    Group,
    Message,
    Bytes,
    Uint32,
    Enum,
    Sfixed32,
    Sfixed64,
    Sint32,
    Sint64,
}

impl FieldDescriptor {
    pub fn ty(&self) -> Result<Type, String> {
        use Type::*;
        const ALL: [Type; 18] = [
            Double, Float, Int64, Uint64, Int32, Fixed64, Fixed32, Bool, String, Group, Message, Bytes, Uint32, Enum,
            Sfixed32, Sfixed64, Sint32, Sint64,
        ];
        let number = self.r#type.unwrap_or(0);
        let at = usize::try_from(number - 1).ok();
        at.and_then(|at| ALL.get(at)).copied().ok_or_else(|| format!("the field is of an unknown type {number}"))
    }

    pub fn packed(&self) -> Option<bool> {
        self.options.as_ref()?.packed
    }
}

/// How far a file's language says that presence is told and numbers are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    Proto2,
    Proto3,
    Editions,
}

impl Syntax {
    /// A plain field that was set to its default can be told from one that was not set.
    pub fn tells_presence(self) -> bool {
        self != Syntax::Proto3
    }

    pub fn packs(self) -> bool {
        self != Syntax::Proto2
    }
}

/// The messages and enums of a set by their full names.
pub struct Pool {
    messages: HashMap<String, (MessageDescriptor, Syntax)>,
    enums: HashMap<String, EnumDescriptor>,
}

impl Pool {
    pub fn parse(bytes: &[u8]) -> Result<Pool, String> {
        Ok(Pool::new(&file_set(bytes)?))
    }

    fn new(set: &FileSet) -> Pool {
        let mut pool = Pool { messages: HashMap::new(), enums: HashMap::new() };
        for file in &set.file {
            let syntax = match file.syntax() {
                "proto3" => Syntax::Proto3,
                "editions" => Syntax::Editions,
                _ => Syntax::Proto2,
            };
            let package = file.package();
            file.message_type.iter().for_each(|message| pool.add(message, package, syntax));
            file.enum_type.iter().for_each(|enumeration| pool.add_enum(enumeration, package));
        }
        pool
    }

    fn add(&mut self, message: &MessageDescriptor, scope: &str, syntax: Syntax) {
        let name = join(scope, message.name());
        message.nested_type.iter().for_each(|nested| self.add(nested, &name, syntax));
        message.enum_type.iter().for_each(|enumeration| self.add_enum(enumeration, &name));
        self.messages.insert(name, (message.clone(), syntax));
    }

    fn add_enum(&mut self, enumeration: &EnumDescriptor, scope: &str) {
        self.enums.insert(join(scope, enumeration.name()), enumeration.clone());
    }

    pub fn message(&self, name: &str) -> Result<(&MessageDescriptor, Syntax), String> {
        match self.messages.get(name) {
            Some((message, syntax)) => Ok((message, *syntax)),
            None => {
                let entry = |message: &MessageDescriptor| message.options.as_ref().is_some_and(|o| o.map_entry());
                let mut names: Vec<&str> =
                    self.messages.iter().filter(|(_, (m, _))| !entry(m)).map(|(name, _)| name.as_str()).collect();
                names.sort_unstable();
                let more = if names.len() > 8 { ", …" } else { "" };
                names.truncate(8);
                Err(format!("the descriptor has no message '{name}', expected {}{more}", names.join(", ")))
            }
        }
    }

    /// Numbers and names of an enum's values, in declared order.
    pub fn enumeration(&self, name: &str) -> Result<Vec<(i32, String)>, String> {
        let found = self.enums.get(name).ok_or_else(|| format!("the descriptor has no enum '{name}'"))?;
        Ok(found.value.iter().map(|value| (value.number(), value.name().to_owned())).collect())
    }

    /// Key and value of a field that is a map.
    pub fn map_entry(&self, field: &FieldDescriptor) -> Option<(&FieldDescriptor, &FieldDescriptor)> {
        let (entry, _) = self.messages.get(field.type_name().trim_start_matches('.'))?;
        entry.options.as_ref().filter(|options| options.map_entry())?;
        let numbered = |number| entry.field.iter().find(|field| field.number() == number);
        Some((numbered(1)?, numbered(2)?))
    }
}

fn join(scope: &str, name: &str) -> String {
    if scope.is_empty() { name.to_owned() } else { format!("{scope}.{name}") }
}

fn file_set(bytes: &[u8]) -> Result<FileSet, String> {
    if bytes.len() > FILE_BYTES_MAX {
        return Err(format!("the descriptor has {} bytes, expected at most {FILE_BYTES_MAX}", bytes.len()));
    }
    let set = FileSet::decode(bytes).map_err(|e| {
        format!("no descriptor set, expected what protoc --include_imports --descriptor_set_out=FILE writes: {e}")
    })?;
    if set.file.is_empty() {
        return Err("the descriptor set is empty".into());
    }
    Ok(set)
}

/// What `message` is made of, in base64, out of the descriptor set that protoc wrote.
pub fn prune(bytes: &[u8], message: &str) -> Result<String, String> {
    let mut set = file_set(bytes)?;
    let pool = Pool::new(&set);
    let mut needed = BTreeSet::new();
    let mut open = vec![message.to_owned()];
    while let Some(name) = open.pop() {
        if needed.contains(&name) {
            continue;
        }
        for field in &pool.message(&name)?.0.field {
            let of = field.type_name().trim_start_matches('.');
            match field.ty()? {
                Type::Message | Type::Group => open.push(of.to_owned()),
                Type::Enum => drop(needed.insert(of.to_owned())),
                _ => {}
            }
        }
        needed.insert(name);
    }
    set.file.retain_mut(|file| {
        let package = file.package().to_owned();
        file.message_type.retain_mut(|message| keep(message, &package, &needed));
        file.enum_type.retain(|enumeration| needed.contains(&join(&package, enumeration.name())));
        !file.message_type.is_empty() || !file.enum_type.is_empty()
    });
    let pruned = set.encode_to_vec();
    if pruned.len() > DESCRIPTOR_BYTES_MAX {
        let length = pruned.len();
        return Err(format!("what '{message}' is made of has {length} bytes, expected at most {DESCRIPTOR_BYTES_MAX}"));
    }
    Ok(base64::encode(&pruned))
}

/// Those that only hold needed ones keep their names.
fn keep(message: &mut MessageDescriptor, scope: &str, needed: &BTreeSet<String>) -> bool {
    let name = join(scope, message.name());
    message.nested_type.retain_mut(|nested| keep(nested, &name, needed));
    message.enum_type.retain(|enumeration| needed.contains(&join(&name, enumeration.name())));
    if !needed.contains(&name) {
        message.field.clear();
        message.oneof_decl.clear();
        return !message.nested_type.is_empty() || !message.enum_type.is_empty();
    }
    true
}

/// The same of a descriptor set in base64.
pub fn prune_text(text: &str, message: &str) -> Result<String, String> {
    let bytes = base64::decode(text).ok_or("the descriptor is no base64")?;
    prune(&bytes, message)
}
