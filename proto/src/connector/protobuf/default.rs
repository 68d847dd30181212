//! `[default = …]` of proto2, as protoc writes it into a descriptor.

use super::{Kind, Unset};

pub fn parse(kind: &Kind, text: &str) -> Option<Unset> {
    Some(match kind {
        Kind::Double | Kind::Float => Unset::Float(match text {
            "inf" => f64::INFINITY,
            "-inf" => f64::NEG_INFINITY,
            "nan" => f64::NAN,
            number => number.parse().ok()?,
        }),
        Kind::Uint32 | Kind::Uint64 | Kind::Fixed32 | Kind::Fixed64 => Unset::Uint(text.parse().ok()?),
        Kind::Int32 | Kind::Int64 | Kind::Sint32 | Kind::Sint64 | Kind::Sfixed32 | Kind::Sfixed64 => {
            Unset::Int(text.parse().ok()?)
        }
        Kind::Bool => Unset::Int(text.parse::<bool>().ok()?.into()),
        Kind::String => Unset::Bytes(text.as_bytes().to_vec()),
        Kind::Bytes => Unset::Bytes(unescape(text.as_bytes())?),
        Kind::Enum(values) => Unset::Int(values.iter().find(|(_, name)| name == text)?.0.into()),
        Kind::Message(_) | Kind::Timestamp => return None,
    })
}

/// C escapes.
fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        let (letter, after) = rest.split_first()?;
        rest = after;
        match letter {
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'a' => out.push(7),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'v' => out.push(11),
            b'x' => {
                let digits = rest.iter().take(2).take_while(|digit| digit.is_ascii_hexdigit()).count();
                let value = std::str::from_utf8(&rest[..digits]).ok()?;
                out.push(u8::from_str_radix(value, 16).ok()?);
                rest = &rest[digits..];
            }
            b'0'..=b'7' => {
                let digits = rest.iter().take(2).take_while(|digit| (b'0'..=b'7').contains(digit)).count();
                let value = rest[..digits].iter().fold(u32::from(letter - b'0'), |v, d| v * 8 + u32::from(d - b'0'));
                out.push(value as u8);
                rest = &rest[digits..];
            }
            other => out.push(*other),
        }
    }
    Some(out)
}
