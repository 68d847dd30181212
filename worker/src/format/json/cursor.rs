//! Scanning JSON text: white space, digits, strings, values to be passed over. Strict, and in files bounded to one
//! line: a line end is no white space there, so a broken row ends where its line does. In a message it is.

use std::fmt::Write;

pub(crate) type Parse<T> = Result<T, Box<Fault>>;

/// How deep arrays and objects may be nested.
pub(super) const DEPTH_MAX: u32 = 64;

/// What is wrong with a row. The path of the column is added on the way up.
#[derive(Debug)]
pub(crate) struct Fault {
    reason: String,
    path: String,
}

impl Fault {
    pub fn within(mut self: Box<Self>, name: &str) -> Box<Self> {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{name}{dot}{}", self.path);
        self
    }

    pub fn at_index(mut self: Box<Self>, index: usize) -> Box<Self> {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("[{index}]{dot}{}", self.path);
        self
    }

    pub fn into_parts(self) -> (Option<String>, String) {
        ((!self.path.is_empty()).then_some(self.path), self.reason)
    }
}

#[cold]
pub(super) fn fault(reason: impl Into<String>) -> Box<Fault> {
    Box::new(Fault { reason: reason.into(), path: String::new() })
}

/// A number read without a detour: `mantissa` / 10^`decimals`.
pub(crate) struct Short {
    pub negative: bool,
    pub mantissa: u64,
    pub decimals: usize,
}

pub(super) const POW10: [u64; 20] = {
    let mut table = [1; 20];
    let mut i = 1;
    while i < 20 {
        table[i] = table[i - 1] * 10;
        i += 1;
    }
    table
};

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

pub(crate) struct Cursor<'a> {
    pub input: &'a [u8],
    pub at: usize,
    /// A value that its column cannot hold is NULL.
    pub lenient: bool,
    /// Line ends are white space.
    pub multiline: bool,
    /// How many of them there were, and the first.
    pub nulled: u64,
    pub first_nulled: Option<Box<Fault>>,
}

#[inline(always)]
fn word(input: &[u8], at: usize) -> Option<u64> {
    let bytes = input.get(at..at + 8)?;
    Some(u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
}

/// The number that eight digits make; each byte of `digits` is 0 to 9, the first digit lowest.
#[inline(always)]
fn eight(digits: u64) -> u64 {
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let low = (pairs & 0x0000_00ff_0000_00ff).wrapping_mul(0x000f_4240_0000_0064);
    let high = ((pairs >> 16) & 0x0000_00ff_0000_00ff).wrapping_mul(0x0000_2710_0000_0001);
    low.wrapping_add(high) >> 32
}

/// The run of digits at `at`: its value (of the last 19 or so, when there are more) and its length.
#[inline(always)]
fn digits(input: &[u8], mut at: usize) -> (u64, usize) {
    let start = at;
    let mut value = 0u64;
    while let Some(word) = word(input, at) {
        let digits = word ^ (ONES * b'0' as u64);
        let other = (digits.wrapping_add(ONES * 0x76) | digits) & HIGH;
        if other != 0 {
            let count = other.trailing_zeros() as usize / 8;
            if count > 0 {
                // Zeros shifted in below stand for leading zeros.
                value = value.wrapping_mul(POW10[count]).wrapping_add(eight(digits << (64 - 8 * count)));
            }
            return (value, at + count - start);
        }
        value = value.wrapping_mul(POW10[8]).wrapping_add(eight(digits));
        at += 8;
    }
    while let Some(byte @ b'0'..=b'9') = input.get(at) {
        value = value.wrapping_mul(10).wrapping_add((byte - b'0') as u64);
        at += 1;
    }
    (value, at - start)
}

impl<'a> Cursor<'a> {
    pub fn new(input: &'a [u8]) -> Cursor<'a> {
        Cursor { input, at: 0, lenient: false, multiline: false, nulled: 0, first_nulled: None }
    }

    /// The byte at the cursor; a line end at the end of the input.
    #[inline(always)]
    pub fn peek(&self) -> u8 {
        match self.input.get(self.at) {
            Some(&byte) => byte,
            None => b'\n',
        }
    }

    #[inline(always)]
    pub fn space(&mut self) {
        loop {
            match self.peek() {
                b' ' | b'\t' | b'\r' => self.at += 1,
                b'\n' if self.multiline && self.at < self.input.len() => self.at += 1,
                _ => return,
            }
        }
    }

    /// The values behind the first `count` that became NULL in this row are taken back.
    pub fn keep_nulled(&mut self, count: u64) {
        self.nulled = count;
        if count == 0 {
            self.first_nulled = None;
        }
    }

    /// A fault that shows what stands at the cursor.
    #[cold]
    #[inline(never)]
    pub fn unexpected(&self, expected: &str) -> Box<Fault> {
        let mut reason = format!("expected {expected}, found ");
        let rest = self.input.get(self.at..).unwrap_or_default();
        match rest.first() {
            None if self.multiline => reason.push_str("the end of the message"),
            None | Some(b'\n') => reason.push_str("the end of the line"),
            Some(b'{') => reason.push_str("an object"),
            Some(b'[') => reason.push_str("an array"),
            Some(&first) => {
                let ends = |byte: &u8| match first {
                    b'"' => matches!(byte, b'"' | b'\n'),
                    _ => matches!(byte, b',' | b'}' | b']' | b' ' | b'\r' | b'\n'),
                };
                let length = rest.iter().skip(1).position(ends).map_or(rest.len(), |at| at + 1);
                let length = (length + (first == b'"') as usize).min(rest.len());
                let text = String::from_utf8_lossy(&rest[..length.min(200)]);
                let cut = if text.chars().count() > 40 { "..." } else { "" };
                let text: String = text.chars().take(40).collect();
                let plain = !text.chars().any(char::is_control);
                let _ = if plain { write!(reason, "{text}{cut}") } else { write!(reason, "{text:?}{cut}") };
            }
        }
        fault(reason)
    }

    /// A number of at most 18 digits without exponent; the cursor moves behind it. None, and the cursor stays, for
    /// anything else.
    #[inline(always)]
    pub fn short(&mut self) -> Option<Short> {
        let negative = self.peek() == b'-';
        let start = self.at + negative as usize;
        let (mut mantissa, count) = digits(self.input, start);
        if count == 0 || count > 18 || (count > 1 && self.input[start] == b'0') {
            return None;
        }
        let mut end = start + count;
        let mut decimals = 0;
        let mut next = self.input.get(end).copied();
        if next == Some(b'.') {
            let fraction;
            (fraction, decimals) = digits(self.input, end + 1);
            if decimals == 0 || decimals + count > 18 {
                return None;
            }
            mantissa = mantissa * POW10[decimals] + fraction;
            end += 1 + decimals;
            next = self.input.get(end).copied();
        }
        if matches!(next, Some(b'e' | b'E')) {
            return None;
        }
        self.at = end;
        Some(Short { negative, mantissa, decimals })
    }

    /// The text of a number, by JSON's grammar.
    pub fn number(&mut self) -> Parse<&'a [u8]> {
        let start = self.at;
        let run = |at: &mut usize| {
            let from = *at;
            while self.input.get(*at).is_some_and(u8::is_ascii_digit) {
                *at += 1;
            }
            *at - from
        };
        let mut at = start + (self.peek() == b'-') as usize;
        let whole = at;
        let count = run(&mut at);
        if count == 0 {
            return Err(self.unexpected("a number"));
        }
        if count > 1 && self.input[whole] == b'0' {
            return Err(fault(format!(
                "a number may not begin with 0: {}",
                String::from_utf8_lossy(&self.input[start..at.min(start + 40)])
            )));
        }
        if self.input.get(at) == Some(&b'.') {
            at += 1;
            if run(&mut at) == 0 {
                return Err(fault("a number needs a digit after its point"));
            }
        }
        if matches!(self.input.get(at), Some(b'e' | b'E')) {
            at += 1;
            if matches!(self.input.get(at), Some(b'+' | b'-')) {
                at += 1;
            }
            if run(&mut at) == 0 {
                return Err(fault("a number needs a digit in its exponent"));
            }
        }
        self.at = at;
        Ok(&self.input[start..at])
    }

    /// Where the run of plain bytes from `at` ends (at a quote, a backslash or a control character), and whether all
    /// of them are ASCII.
    #[inline(always)]
    fn plain_run(&self, mut at: usize) -> (usize, bool) {
        let mut high = 0;
        while let Some(word) = word(self.input, at) {
            let quote = word ^ (ONES * b'"' as u64);
            let back = word ^ (ONES * b'\\' as u64);
            let stop = (quote.wrapping_sub(ONES) & !quote
                | back.wrapping_sub(ONES) & !back
                | word.wrapping_sub(ONES * 0x20) & !word)
                & HIGH;
            if stop != 0 {
                // Below its first hit the test is exact.
                let bits = stop.trailing_zeros() - 7;
                high |= word & HIGH & !(u64::MAX << bits);
                return (at + bits as usize / 8, high == 0);
            }
            high |= word & HIGH;
            at += 8;
        }
        while let Some(&byte) = self.input.get(at) {
            if byte == b'"' || byte == b'\\' || byte < 0x20 {
                break;
            }
            high |= (byte & 0x80) as u64;
            at += 1;
        }
        (at, high == 0)
    }

    /// The content of the string whose opening quote is at the cursor, checked to be UTF-8; the cursor moves behind
    /// it. None, and the cursor stays, when it has escapes.
    #[inline(always)]
    pub fn plain_string(&mut self) -> Parse<Option<&'a [u8]>> {
        let start = self.at + 1;
        let (end, ascii) = self.plain_run(start);
        match self.input.get(end) {
            Some(b'"') => {
                let content = &self.input[start..end];
                if !ascii {
                    utf8(content)?;
                }
                self.at = end + 1;
                Ok(Some(content))
            }
            Some(b'\\') => Ok(None),
            other => Err(broken_string(other)),
        }
    }

    /// Appends the content of the string whose opening quote is at the cursor, escapes resolved.
    #[cold]
    #[inline(never)]
    pub fn escaped_string(&mut self, out: &mut Vec<u8>) -> Parse<()> {
        let mut at = self.at + 1;
        loop {
            let (end, ascii) = self.plain_run(at);
            let run = &self.input[at..end];
            if !ascii {
                utf8(run)?;
            }
            out.extend_from_slice(run);
            match self.input.get(end) {
                Some(b'"') => {
                    self.at = end + 1;
                    return Ok(());
                }
                Some(b'\\') => at = self.escape(end + 1, out)?,
                other => return Err(broken_string(other)),
            }
        }
    }

    /// The escape whose letter is at `at`; where it ends.
    fn escape(&self, at: usize, out: &mut Vec<u8>) -> Parse<usize> {
        let letter = match self.input.get(at) {
            Some(b'u') => {
                let first = self.hex(at + 1)?;
                let (code, end) = match first {
                    0xd800..=0xdbff => {
                        let second = match self.input.get(at + 5..at + 7) {
                            Some(b"\\u") => self.hex(at + 7)?,
                            _ => 0,
                        };
                        if !(0xdc00..=0xdfff).contains(&second) {
                            return Err(fault(format!("half of a surrogate pair: \\u{first:04x}")));
                        }
                        (0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00), at + 11)
                    }
                    _ => (first, at + 5),
                };
                let Some(char) = char::from_u32(code) else {
                    return Err(fault(format!("half of a surrogate pair: \\u{first:04x}")));
                };
                out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(end);
            }
            Some(&byte @ (b'"' | b'\\' | b'/')) => byte,
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(&byte) if byte >= 0x20 => {
                return Err(fault(format!("unknown escape \\{} in a string", byte.escape_ascii())));
            }
            other => return Err(broken_string(other)),
        };
        out.push(letter);
        Ok(at + 1)
    }

    fn hex(&self, at: usize) -> Parse<u32> {
        let digits = self.input.get(at..at + 4).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let text = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        text.and_then(|text| u32::from_str_radix(text, 16).ok())
            .ok_or_else(|| fault("\\u in a string needs four hexadecimal digits"))
    }

    /// `null`, `true` or `false`, whichever is given; false when something else is there.
    #[inline]
    pub fn literal(&mut self, text: &[u8]) -> bool {
        let here = self.input[self.at..].starts_with(text);
        self.at += if here { text.len() } else { 0 };
        here
    }

    /// Passes over a value of any kind, checking it as strictly as one that is kept.
    pub fn skip(&mut self, depth: u32) -> Parse<()> {
        match self.peek() {
            b'"' => self.skip_string(),
            b'-' | b'0'..=b'9' => match self.short() {
                Some(_) => Ok(()),
                None => self.number().map(drop),
            },
            b'{' => {
                self.open(depth)?;
                let mut first = true;
                while self.more(b'}', &mut first)? {
                    if self.peek() != b'"' {
                        return Err(self.unexpected("a key in double quotes"));
                    }
                    self.skip_string()?;
                    self.space();
                    if self.peek() != b':' {
                        return Err(self.unexpected("a colon after the key"));
                    }
                    self.at += 1;
                    self.space();
                    self.skip(depth + 1)?;
                }
                Ok(())
            }
            b'[' => {
                self.open(depth)?;
                let mut first = true;
                while self.more(b']', &mut first)? {
                    self.skip(depth + 1)?;
                }
                Ok(())
            }
            _ if self.literal(b"null") || self.literal(b"true") || self.literal(b"false") => Ok(()),
            _ => Err(self.unexpected("a value")),
        }
    }

    fn skip_string(&mut self) -> Parse<()> {
        if self.plain_string()?.is_none() {
            self.escaped_string(&mut Vec::new())?;
        }
        Ok(())
    }

    /// Steps into the array or object that begins at the cursor.
    #[inline(always)]
    pub fn open(&mut self, depth: u32) -> Parse<()> {
        if depth > DEPTH_MAX {
            return Err(fault(format!("nested deeper than {DEPTH_MAX} levels")));
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    /// Whether another element follows, the cursor then at it; else the cursor is behind the `close`.
    #[inline(always)]
    pub fn more(&mut self, close: u8, first: &mut bool) -> Parse<bool> {
        let mut byte = self.peek();
        if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
            self.space();
            byte = self.peek();
        }
        if byte == close {
            self.at += 1;
            return Ok(false);
        }
        if std::mem::take(first) {
            return Ok(true);
        }
        if byte != b',' {
            return Err(self.unexpected(if close == b'}' { "a comma or }" } else { "a comma or ]" }));
        }
        self.at += 1;
        self.space();
        if self.peek() == close {
            return Err(self.unexpected("a value after the comma"));
        }
        Ok(true)
    }
}

#[cold]
#[inline(never)]
fn broken_string(byte: Option<&u8>) -> Box<Fault> {
    match byte {
        None | Some(b'\n') => fault("a string is not closed before the end of the line"),
        Some(byte) => fault(format!("a control character in a string must be escaped: \\u{byte:04x}")),
    }
}

#[cold]
#[inline(never)]
fn utf8(bytes: &[u8]) -> Parse<()> {
    match std::str::from_utf8(bytes) {
        Ok(_) => Ok(()),
        Err(_) => Err(fault("a string is not UTF-8")),
    }
}
