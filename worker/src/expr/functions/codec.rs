//! Texts and bytes in other forms: base 64, hexadecimal digits, SHA-1, Java's charsets.

use crate::expr::value::{Kernel, Longs, Value, build_texts};
use arrow_array::BinaryArray;
use arrow_array::builder::BinaryBuilder;
use ef_proto::function::Builtin;
use ef_proto::schema::DataType;
use std::sync::Arc;

pub(super) fn kernel(function: Builtin, types: &[DataType]) -> Result<Kernel, String> {
    let ty = types[0].clone();
    Ok(match function {
        Builtin::ToBase64 => texts(|text, out| {
            to_base64(text.as_bytes(), out);
            Ok(())
        }),
        Builtin::FromBase64 => texts(|text, out| {
            let bytes = from_base64(text).ok_or_else(|| format!("'{text}' is not base 64"))?;
            out.extend_from_slice(String::from_utf8_lossy(&bytes).as_bytes());
            Ok(())
        }),
        Builtin::Sha1 => texts(|text, out| {
            for byte in sha1(text.as_bytes()) {
                out.extend_from_slice(format!("{byte:02x}").as_bytes());
            }
            Ok(())
        }),
        Builtin::Hex if ty == DataType::String => texts(|text, out| {
            for byte in text.bytes() {
                out.extend_from_slice(format!("{byte:02X}").as_bytes());
            }
            Ok(())
        }),
        Builtin::Hex => Box::new(move |args, rows| {
            let values = Longs::of(&args[0], &ty).ok_or("an integer is expected")?;
            build_texts(rows, |row, out| {
                let Some(value) = values.get(row) else { return Ok(false) };
                out.extend_from_slice(format!("{value:X}").as_bytes());
                Ok(true)
            })
        }),
        Builtin::Encode => Box::new(|args, rows| {
            let (texts, charsets) = (args[0].texts(), args[1].texts());
            let mut builder = BinaryBuilder::new();
            for row in 0..rows {
                match texts.get(row).zip(charsets.get(row)) {
                    Some((text, charset)) => builder.append_value(encode(text, Charset::of(charset)?)),
                    None => builder.append_null(),
                }
            }
            Ok(Arc::new(builder.finish()))
        }),
        Builtin::Decode => Box::new(|args: &[Value], rows| {
            let (values, charsets) = (args[0].cells::<BinaryArray>(), args[1].texts());
            build_texts(rows, |row, out| {
                let Some((bytes, charset)) = values.get(row).zip(charsets.get(row)) else { return Ok(false) };
                out.extend_from_slice(decode(bytes, Charset::of(charset)?).as_bytes());
                Ok(true)
            })
        }),
        other => return Err(format!("{} is no code", other.name())),
    })
}

/// A function of one text.
fn texts(f: impl Fn(&str, &mut Vec<u8>) -> Result<(), String> + Send + Sync + 'static) -> Kernel {
    Box::new(move |args, rows| {
        let texts = args[0].texts();
        build_texts(rows, |row, out| match texts.get(row) {
            Some(text) => f(text, out).map(|()| true),
            None => Ok(false),
        })
    })
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn to_base64(bytes: &[u8], out: &mut Vec<u8>) {
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().enumerate().fold(0u32, |word, (i, byte)| word | (*byte as u32) << (16 - 8 * i));
        for i in 0..4 {
            out.push(if i <= chunk.len() { BASE64[(word >> (18 - 6 * i)) as usize & 63] } else { b'=' });
        }
    }
}

/// Padding may be left out, as Java's decoder allows.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    if digits.len() % 4 == 1 || padding > 0 && !text.len().is_multiple_of(4) {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for chunk in digits.as_bytes().chunks(4) {
        let mut word = 0u32;
        for (i, digit) in chunk.iter().enumerate() {
            let value = BASE64.iter().position(|known| known == digit)?;
            word |= (value as u32) << (18 - 6 * i);
        }
        bytes.extend_from_slice(&word.to_be_bytes()[1..chunk.len()]);
    }
    Some(bytes)
}

/// FIPS 180-4. Not for secrets: MD5 and this one are here because queries use them as fingerprints.
fn sha1(bytes: &[u8]) -> [u8; 20] {
    let mut state = [0x6745_2301u32, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    let mut message = bytes.to_vec();
    message.push(0x80);
    message.resize((message.len() + 8).next_multiple_of(64), 0);
    let end = message.len() - 8;
    message[end..].copy_from_slice(&(bytes.len() as u64 * 8).to_be_bytes());
    for block in message.chunks_exact(64) {
        let mut words = [0u32; 80];
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        for i in 16..80 {
            words[i] = (words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (i, word) in words.iter().enumerate() {
            let (mixed, constant) = match i / 20 {
                0 => ((b & c) | (!b & d), 0x5a82_7999),
                1 => (b ^ c ^ d, 0x6ed9_eba1),
                2 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6u32),
            };
            let next = a.rotate_left(5).wrapping_add(mixed).wrapping_add(e).wrapping_add(constant).wrapping_add(*word);
            (a, b, c, d, e) = (next, a, b.rotate_left(30), c, d);
        }
        for (kept, new) in state.iter_mut().zip([a, b, c, d, e]) {
            *kept = kept.wrapping_add(new);
        }
    }
    let mut digest = [0; 20];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

/// The charsets that every Java has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Charset {
    Ascii,
    Latin1,
    Utf8,
    Utf16,
    Utf16Be,
    Utf16Le,
}

impl Charset {
    fn of(name: &str) -> Result<Charset, String> {
        Ok(match name.to_ascii_uppercase().as_str() {
            "US-ASCII" | "ASCII" => Charset::Ascii,
            "ISO-8859-1" | "LATIN1" => Charset::Latin1,
            "UTF-8" | "UTF8" => Charset::Utf8,
            "UTF-16" => Charset::Utf16,
            "UTF-16BE" => Charset::Utf16Be,
            "UTF-16LE" => Charset::Utf16Le,
            _ => {
                return Err(format!(
                    "charset '{name}' is not known; known are US-ASCII, ISO-8859-1, UTF-8, UTF-16, UTF-16BE, UTF-16LE"
                ));
            }
        })
    }
}

/// A character that the charset lacks becomes `?`.
fn encode(text: &str, charset: Charset) -> Vec<u8> {
    let narrow = |below: u32| text.chars().map(|c| if (c as u32) < below { c as u8 } else { b'?' }).collect();
    match charset {
        Charset::Ascii => narrow(0x80),
        Charset::Latin1 => narrow(0x100),
        Charset::Utf8 => text.as_bytes().to_vec(),
        Charset::Utf16 => [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_be_bytes).collect(),
        Charset::Utf16Be => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        Charset::Utf16Le => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
    }
}

/// Bytes that mean nothing in the charset become U+FFFD.
fn decode(bytes: &[u8], charset: Charset) -> String {
    let wide = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes.chunks(2).map(|b| if b.len() == 2 { unit([b[0], b[1]]) } else { 0xfffd }).collect();
        String::from_utf16_lossy(&units)
    };
    match charset {
        Charset::Ascii => bytes.iter().map(|b| if b.is_ascii() { *b as char } else { '\u{fffd}' }).collect(),
        Charset::Latin1 => bytes.iter().map(|b| *b as char).collect(),
        Charset::Utf8 => String::from_utf8_lossy(bytes).into_owned(),
        Charset::Utf16Le => wide(bytes, u16::from_le_bytes),
        Charset::Utf16Be => wide(bytes, u16::from_be_bytes),
        Charset::Utf16 => match bytes {
            [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes),
            [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes),
            rest => wide(rest, u16::from_be_bytes),
        },
    }
}
