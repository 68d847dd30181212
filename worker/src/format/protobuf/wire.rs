//! Protobuf's wire: varints, fixed numbers and spans, each checked against the bytes that are there.

use crate::format::records::{Parse, Problem, problem};

pub const VARINT: u8 = 0;
pub const FIXED64: u8 = 1;
pub const SPAN: u8 = 2;
pub const FIXED32: u8 = 5;

/// Part of a message; places are those in the whole of it.
pub struct Wire<'a> {
    pub input: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Wire<'a> {
    pub fn new(input: &'a [u8]) -> Wire<'a> {
        Wire { input, at: 0, end: input.len() }
    }

    pub fn within(input: &'a [u8], start: usize, end: usize) -> Wire<'a> {
        Wire { input, at: start, end }
    }

    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.at >= self.end
    }

    #[inline(always)]
    fn varint(&mut self) -> Parse<u64> {
        match self.input[..self.end].get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    #[inline]
    fn long_varint(&mut self) -> Parse<u64> {
        let mut value = 0;
        for (place, byte) in self.input[self.at..self.end].iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * place);
            if *byte < 0x80 {
                if place == 9 && *byte > 1 {
                    return Err(problem("a varint has more than 64 bits"));
                }
                self.at += place + 1;
                return Ok(value);
            }
        }
        Err(problem(if self.end - self.at >= 10 { "a varint has more than 10 bytes" } else { "cut off in a varint" }))
    }

    /// Number and wire type of the next field.
    #[inline(always)]
    pub fn tag(&mut self) -> Parse<(u32, u8)> {
        let tag = self.varint()?;
        let number = tag >> 3;
        if number == 0 || tag > u64::from(u32::MAX) {
            return Err(problem(format!("{number} is no number of a field")));
        }
        Ok((number as u32, (tag & 7) as u8))
    }

    #[inline(always)]
    pub fn number(&mut self, wire_type: u8) -> Parse<u64> {
        match wire_type {
            VARINT => self.varint(),
            FIXED64 => {
                let bytes = cut::<8>(&self.input[..self.end], self.at)?;
                self.at += 8;
                Ok(u64::from_le_bytes(bytes))
            }
            _ => {
                let bytes = cut::<4>(&self.input[..self.end], self.at)?;
                self.at += 4;
                Ok(u64::from(u32::from_le_bytes(bytes)))
            }
        }
    }

    /// From where to where.
    #[inline(always)]
    pub fn span(&mut self) -> Parse<(usize, usize)> {
        let length = self.varint()?;
        let left = self.end - self.at;
        match usize::try_from(length) {
            Ok(length) if length <= left => {
                let start = self.at;
                self.at += length;
                Ok((start, self.at))
            }
            _ => Err(problem(format!("cut off: {length} bytes are announced and {left} are left"))),
        }
    }

    /// Ends where a field does.
    pub fn whole(mut self) -> Parse<()> {
        while !self.is_empty() {
            let (number, wire_type) = self.tag()?;
            self.skip(number, wire_type)?;
        }
        Ok(())
    }

    pub fn skip(&mut self, number: u32, wire_type: u8) -> Parse<()> {
        let skipped = match wire_type {
            VARINT | FIXED32 | FIXED64 => self.number(wire_type).map(drop),
            SPAN => self.span().map(drop),
            3 | 4 => Err(problem("a group, which is not supported")),
            other => Err(problem(format!("unknown wire type {other}"))),
        };
        skipped.map_err(|problem| problem.within(&format!("#{number}")))
    }
}

#[inline(always)]
fn cut<const N: usize>(input: &[u8], at: usize) -> Parse<[u8; N]> {
    let bytes = input.get(at..at + N).and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| problem(format!("cut off: a number of {N} bytes, and {} are left", input.len() - at)))
}

#[cold]
pub fn other_type(found: u8, expected: u8) -> Box<Problem> {
    let name = |wire_type| match wire_type {
        VARINT => "a varint",
        FIXED64 => "a fixed64",
        SPAN => "a span of bytes",
        3 | 4 => "a group",
        FIXED32 => "a fixed32",
        _ => "an unknown wire type",
    };
    problem(format!("expected {}, found {}; it was written with another schema", name(expected), name(found)))
}

#[inline(always)]
pub const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

pub const fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

pub fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
