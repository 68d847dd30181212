//! Which key comes next: the order seen last is expected again, and a lookup learns a new one.

use super::cursor::{Cursor, Parse};
use std::collections::HashMap;

/// Keys that are no columns are learned too, to be passed over as quickly; not more of them than this.
const LEARNED_MAX: usize = 1024;
const LEARNED_KEY_BYTES: usize = 256;

/// `"name":` as it stands in the input, the first 16 bytes as words under masks.
#[derive(Debug)]
struct Key {
    text: Box<[u8]>,
    words: [u64; 2],
    masks: [u64; 2],
}

impl Key {
    fn new(name: &[u8]) -> Key {
        let text = [b"\"", name, b"\":"].concat();
        let (mut bytes, mut mask) = ([0; 16], [0; 16]);
        for (at, byte) in text.iter().take(16).enumerate() {
            (bytes[at], mask[at]) = (*byte, 0xff);
        }
        let words = |b: [u8; 16]| {
            let wide = u128::from_le_bytes(b);
            [wide as u64, (wide >> 64) as u64]
        };
        Key { text: text.into(), words: words(bytes), masks: words(mask) }
    }

    #[inline(always)]
    fn at(&self, cursor: &Cursor) -> bool {
        let Some(window) = cursor.input.get(cursor.at..cursor.at + 16) else {
            return cursor.input[cursor.at..].starts_with(&self.text);
        };
        let low = u64::from_le_bytes(window[..8].try_into().expect("eight bytes"));
        let high = u64::from_le_bytes(window[8..].try_into().expect("eight bytes"));
        let same = (low & self.masks[0]) ^ self.words[0] | (high & self.masks[1]) ^ self.words[1];
        same == 0 && (self.text.len() <= 16 || cursor.input[cursor.at + 16..].starts_with(&self.text[16..]))
    }
}

/// The keys of an object: those of columns first, learned ones behind them.
#[derive(Debug)]
pub(crate) struct Keys {
    columns: usize,
    keys: Vec<Key>,
    lookup: HashMap<Box<[u8]>, usize, foldhash::fast::FixedState>,
    /// The index in `keys` of the first, second, … key of the object before.
    order: Vec<usize>,
    scratch: Vec<u8>,
}

impl Keys {
    pub fn new<'a>(names: impl Iterator<Item = &'a str>) -> Keys {
        let mut this =
            Keys { columns: 0, keys: Vec::new(), lookup: HashMap::default(), order: Vec::new(), scratch: Vec::new() };
        for name in names {
            // A name that needs escapes in JSON never stands there as it is; its `Key` just never fits.
            this.lookup.entry(name.as_bytes().into()).or_insert(this.columns);
            this.order.push(this.columns);
            this.keys.push(Key::new(name.as_bytes()));
            this.columns += 1;
        }
        this
    }

    /// Reads the key at the cursor, its colon and the space behind it. The column's index; None for a key that is none.
    #[inline(always)]
    pub fn next(&mut self, cursor: &mut Cursor, position: usize) -> Parse<Option<usize>> {
        if let Some(&index) = self.order.get(position)
            && self.keys[index].at(cursor)
        {
            cursor.at += self.keys[index].text.len();
            cursor.space();
            return Ok((index < self.columns).then_some(index));
        }
        self.look_up(cursor, position)
    }

    #[cold]
    #[inline(never)]
    fn look_up(&mut self, cursor: &mut Cursor, position: usize) -> Parse<Option<usize>> {
        if cursor.peek() != b'"' {
            return Err(cursor.unexpected("a key in double quotes"));
        }
        let plain = cursor.plain_string()?;
        let name = match plain {
            Some(name) => name,
            None => {
                self.scratch.clear();
                cursor.escaped_string(&mut self.scratch)?;
                &self.scratch
            }
        };
        cursor.space();
        if cursor.peek() != b':' {
            return Err(cursor.unexpected("a colon after the key"));
        }
        cursor.at += 1;
        cursor.space();
        let index = match self.lookup.get(name) {
            Some(&index) => index,
            None if self.keys.len() < self.columns + LEARNED_MAX && name.len() <= LEARNED_KEY_BYTES => {
                let index = self.keys.len();
                self.lookup.insert(name.into(), index);
                self.keys.push(Key::new(name));
                index
            }
            None => return Ok(None),
        };
        if position < self.order.len() {
            self.order[position] = index;
        } else if position == self.order.len() && position < self.columns + LEARNED_MAX {
            self.order.push(index);
        }
        Ok((index < self.columns).then_some(index))
    }
}
