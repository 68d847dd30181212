//! Redis's protocol as far as it is written: a command is an array of byte strings. And read back as far as an error
//! message needs it.

/// Appends the head of a command of so many words.
pub fn begin(out: &mut Vec<u8>, words: usize) {
    number(out, b'*', words);
}

pub fn word(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn number(out: &mut Vec<u8>, sign: u8, value: usize) {
    out.push(sign);
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The name and the key (its second word) of the command at a position, of those that were written here.
pub fn nth(mut commands: &[u8], position: usize) -> Option<(String, String)> {
    for at in 0..=position {
        let words = take_number(&mut commands, b'*')?;
        let mut first = Vec::with_capacity(2);
        for _ in 0..words {
            let length = take_number(&mut commands, b'$')?;
            let (bytes, rest) = commands.split_at_checked(length)?;
            if at == position && first.len() < 2 {
                first.push(String::from_utf8_lossy(bytes).into_owned());
            }
            commands = rest.strip_prefix(b"\r\n")?;
        }
        if at == position {
            let mut first = first.into_iter();
            return Some((first.next()?, first.next()?));
        }
    }
    None
}

fn take_number(commands: &mut &[u8], sign: u8) -> Option<usize> {
    let rest = commands.strip_prefix(&[sign])?;
    let end = memchr::memchr(b'\r', rest)?;
    let number = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    *commands = rest[end..].strip_prefix(b"\r\n")?;
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_an_array_of_byte_strings_and_is_found_again() {
        let mut out = Vec::new();
        for words in [&["SET", "k", "a\r\nb"][..], &["DEL", ""], &["HSET", "h", "f", "v"]] {
            begin(&mut out, words.len());
            words.iter().for_each(|text| word(&mut out, text.as_bytes()));
        }
        let text = String::from_utf8(out.clone()).expect("text");
        assert!(
            text.starts_with("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\na\r\nb\r\n*2\r\n$3\r\nDEL\r\n$0\r\n\r\n"),
            "{text:?}"
        );
        let named = |at| nth(&out, at);
        assert_eq!(named(0), Some(("SET".into(), "k".into())));
        assert_eq!(named(1), Some(("DEL".into(), String::new())));
        assert_eq!(named(2), Some(("HSET".into(), "h".into())));
        assert_eq!(named(3), None);
    }
}
