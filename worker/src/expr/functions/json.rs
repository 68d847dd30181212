//! JSON_QUERY: the object or array at a path, written without spaces and with its keys in the order in which they
//! stand. A single value is no answer, nor is what is no JSON: NULL.

use super::Literals;
use super::text::{Step, json_path};
use crate::expr::value::{Kernel, build_texts};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// serde_json's own tree sorts the keys.
enum Json {
    Single(serde_json::Value),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

pub(super) fn query(literals: &Literals) -> Result<Kernel, String> {
    let fixed = literals.text(1).map(json_path).transpose()?;
    Ok(Box::new(move |args, rows| {
        let (texts, paths) = (args[0].texts(), args[1].texts());
        build_texts(rows, |row, out| {
            let Some((text, path)) = texts.get(row).zip(paths.get(row)) else { return Ok(false) };
            let parsed = if fixed.is_none() { Some(json_path(path)?) } else { None };
            let steps = fixed.as_ref().or(parsed.as_ref()).expect("the one or the other");
            let Ok(document) = serde_json::from_str::<Json>(text) else { return Ok(false) };
            match follow(&document, steps) {
                None | Some(Json::Single(_)) => Ok(false),
                Some(found) => {
                    write(found, out);
                    Ok(true)
                }
            }
        })
    }))
}

fn follow<'a>(document: &'a Json, steps: &[Step]) -> Option<&'a Json> {
    steps.iter().try_fold(document, |at, step| match (step, at) {
        // Of two equal keys the last one counts.
        (Step::Key(key), Json::Object(fields)) => fields.iter().rfind(|(name, _)| name == key).map(|(_, value)| value),
        (Step::Index(index), Json::List(items)) => items.get(*index),
        _ => None,
    })
}

fn write(json: &Json, out: &mut Vec<u8>) {
    match json {
        Json::Single(value) => out.extend_from_slice(value.to_string().as_bytes()),
        Json::List(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write(item, out);
            }
            out.push(b']');
        }
        Json::Object(fields) => {
            out.push(b'{');
            for (i, (name, value)) in fields.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(serde_json::Value::from(name.as_str()).to_string().as_bytes());
                out.push(b':');
                write(value, out);
            }
            out.push(b'}');
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Single(serde_json::Value::Null))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Single(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Single(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Single(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Single(value.into()))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Single(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Json::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Json::Object(fields))
    }
}
