//! Bytes inside JSON: two digits each.

use serde::{Deserialize, Deserializer, Serializer, de::Error};
use std::fmt::Write;

pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a string grows as needed");
    }
    serializer.serialize_str(&text)
}

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let digit = |byte: u8| (byte as char).to_digit(16).ok_or_else(|| D::Error::custom("not a hexadecimal digit"));
    if text.len() % 2 != 0 {
        return Err(D::Error::custom("an odd number of hexadecimal digits"));
    }
    text.as_bytes().chunks_exact(2).map(|pair| Ok((digit(pair[0])? * 16 + digit(pair[1])?) as u8)).collect()
}
