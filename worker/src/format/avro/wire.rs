//! Avro's binary encoding, each length checked against the bytes that are there.

use super::schema::{Named, Schema, Type};
use crate::format::records::{Parse, problem};

/// Items that take no bytes (NULLs, empty records) a datum may have beyond as many as it has bytes.
const EMPTY_ITEMS_MAX: usize = 1 << 16;

/// How deep a type that holds itself may be nested.
const DEPTH_MAX: usize = 64;

pub struct Wire<'a> {
    input: &'a [u8],
    pub(super) at: usize,
    pub(super) items_left: usize,
    /// Records that may be passed over: of nested ones that take no byte there may be as many as one likes.
    skips_left: usize,
}

/// Records of one datum that are passed over.
const SKIPS_MAX: usize = 1 << 20;

impl<'a> Wire<'a> {
    pub fn new(input: &'a [u8]) -> Wire<'a> {
        Wire { input, at: 0, items_left: input.len() + EMPTY_ITEMS_MAX, skips_left: SKIPS_MAX }
    }

    pub fn left(&self) -> usize {
        self.input.len() - self.at
    }

    #[inline(always)]
    pub fn long(&mut self) -> Parse<i64> {
        match self.input.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(i64::from(byte >> 1) ^ -i64::from(byte & 1))
            }
            _ => self.wide(),
        }
    }

    #[inline]
    fn wide(&mut self) -> Parse<i64> {
        let mut value = 0u64;
        for (place, byte) in self.input[self.at..].iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * place);
            if *byte < 0x80 {
                if place == 9 && *byte > 1 {
                    break;
                }
                self.at += place + 1;
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(problem(if self.left() >= 10 { "a number has more than 64 bits" } else { "cut off in a number" }))
    }

    #[inline(always)]
    pub fn int(&mut self) -> Parse<i32> {
        let value = self.long()?;
        i32::try_from(value).map_err(|_| problem(format!("{value} is no int")))
    }

    #[inline(always)]
    pub fn take(&mut self, length: usize) -> Parse<&'a [u8]> {
        if length > self.left() {
            return Err(problem(format!("cut off: {length} bytes are announced and {} are left", self.left())));
        }
        let start = self.at;
        self.at += length;
        Ok(&self.input[start..self.at])
    }

    pub fn array<const N: usize>(&mut self) -> Parse<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("as many bytes as asked for"))
    }

    /// Bytes and strings.
    #[inline(always)]
    pub fn bytes(&mut self) -> Parse<&'a [u8]> {
        let length = self.long()?;
        let Ok(length) = usize::try_from(length) else { return Err(problem(format!("a length of {length}"))) };
        self.take(length)
    }

    pub fn boolean(&mut self) -> Parse<bool> {
        match self.take(1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            other => Err(problem(format!("expected true or false, found a byte {}", other[0]))),
        }
    }

    /// How many items the next block of an array or map has; 0 behind the last one.
    pub fn block(&mut self) -> Parse<usize> {
        let count = self.long()?;
        if count < 0 {
            // The block's size, for those who pass over it.
            self.long()?;
        }
        match usize::try_from(count.unsigned_abs()) {
            Ok(count) if count <= self.items_left => {
                self.items_left -= count;
                Ok(count)
            }
            _ => Err(problem(format!("{count} items are announced, more than there are bytes for"))),
        }
    }

    pub fn branch(&mut self, branches: usize) -> Parse<usize> {
        let index = self.long()?;
        let found = usize::try_from(index).ok().filter(|index| *index < branches);
        found.ok_or_else(|| problem(format!("branch {index} of a union of {branches}")))
    }

    pub fn skip(&mut self, schema: &Schema, ty: &Type, depth: usize) -> Parse<()> {
        if depth > DEPTH_MAX {
            return Err(problem(format!("nested deeper than {DEPTH_MAX}")));
        }
        match ty {
            Type::Null => Ok(()),
            Type::Boolean => self.boolean().map(drop),
            Type::Int(_) => self.int().map(drop),
            Type::Long(_) => self.long().map(drop),
            Type::Float => self.take(4).map(drop),
            Type::Double => self.take(8).map(drop),
            Type::Bytes(_) | Type::String => self.bytes().map(drop),
            Type::Array(item) => self.skip_blocks(|this| this.skip(schema, item, depth + 1)),
            Type::Map(value) => self.skip_blocks(|this| {
                this.bytes()?;
                this.skip(schema, value, depth + 1)
            }),
            Type::Union(branches) => {
                let branch = self.branch(branches.len())?;
                self.skip(schema, &branches[branch], depth + 1)
            }
            Type::Named(at) => match &schema.named[*at] {
                Named::Record(fields) => {
                    let left = self.skips_left.checked_sub(1);
                    self.skips_left =
                        left.ok_or_else(|| problem(format!("more than {SKIPS_MAX} records to pass over")))?;
                    fields.iter().try_for_each(|(_, ty)| self.skip(schema, ty, depth + 1))
                }
                Named::Enum(symbols) => self.branch(symbols.len()).map(drop),
                Named::Fixed(size, _) => self.take(*size).map(drop),
            },
        }
    }

    fn skip_blocks(&mut self, mut item: impl FnMut(&mut Self) -> Parse<()>) -> Parse<()> {
        loop {
            let count = self.block()?;
            if count == 0 {
                return Ok(());
            }
            (0..count).try_for_each(|_| item(self))?;
        }
    }
}

pub fn write_long(out: &mut Vec<u8>, value: i64) {
    let mut value = (value << 1 ^ value >> 63) as u64;
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_long(out, bytes.len() as i64);
    out.extend_from_slice(bytes);
}
