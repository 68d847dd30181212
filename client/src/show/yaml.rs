//! JSON values as YAML 1.2 in block style. A string is written plain only where every reader takes it for that very
//! string, those of YAML 1.1 included, for which `no`, `1:30` and `0o7` are something else; otherwise in double quotes.

use serde_json::Value;

/// A document, with a line break at its end.
pub fn write(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => mapping(value, 0, &mut out),
        Value::Array(list) if !list.is_empty() => sequence(list, 0, &mut out),
        _ => {
            out.push_str(&scalar(value));
            out.push('\n');
        }
    }
    out
}

/// The entries of a map that is not empty. The first line is not indented: the caller has written what stands before
/// it, which for an item of a list is its dash.
fn mapping(value: &Value, indent: usize, out: &mut String) {
    let Value::Object(map) = value else { unreachable!("called for maps") };
    for (i, (key, value)) in map.iter().enumerate() {
        if i > 0 {
            blanks(indent, out);
        }
        out.push_str(&string(key));
        out.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                blanks(indent + 2, out);
                mapping(value, indent + 2, out);
            }
            Value::Array(list) if !list.is_empty() => {
                out.push('\n');
                // A list's dashes stand below its key, as kubectl writes them.
                blanks(indent, out);
                sequence(list, indent, out);
            }
            _ => {
                out.push(' ');
                out.push_str(&scalar(value));
                out.push('\n');
            }
        }
    }
}

fn sequence(list: &[Value], indent: usize, out: &mut String) {
    for (i, item) in list.iter().enumerate() {
        if i > 0 {
            blanks(indent, out);
        }
        out.push_str("- ");
        match item {
            Value::Object(map) if !map.is_empty() => mapping(item, indent + 2, out),
            Value::Array(inner) if !inner.is_empty() => sequence(inner, indent + 2, out),
            _ => {
                out.push_str(&scalar(item));
                out.push('\n');
            }
        }
    }
}

fn blanks(count: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', count));
}

fn scalar(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => string(text),
        Value::Array(_) => "[]".into(),
        Value::Object(_) => "{}".into(),
    }
}

fn string(text: &str) -> String {
    if is_plain(text) { text.to_string() } else { quoted(text) }
}

/// Words that some version of YAML reads as a boolean, as null, or as no number; in lower case.
const WORDS: [&str; 13] =
    ["null", "true", "false", "yes", "no", "on", "off", "y", "n", ".nan", ".inf", "-.inf", "+.inf"];

/// Stricter than the grammar: letters and the few signs of names and paths, beginning with a letter, a slash or an
/// underscore. So no number, no date, no indicator and no comment can be meant.
fn is_plain(text: &str) -> bool {
    let Some(first) = text.chars().next() else { return false };
    let inside = |c: char| c.is_ascii_alphanumeric() || "_-./ +()@%".contains(c);
    (first.is_ascii_alphabetic() || first == '/' || first == '_')
        && text.chars().all(inside)
        && !text.ends_with(' ')
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Line separators, the byte order mark and what is no character are not printable in YAML.
            '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                out.push_str(&format!("\\u{:04x}", c as u32))
            }
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn maps_and_lists_nest_in_block_style() {
        let value = json!({
            "job": {"id": "j-1", "rows": 12, "reason": "", "labels": {}, "last": null},
            "operators": [
                {"name": "Sink(out)", "workers": ["w1", "w2"]},
                {"inner": {"deep": [[1, 2], [], [{"a": true}]]}},
            ],
            "none": [],
            "ratio": 0.5,
        });
        let expected = "\
job:
  id: j-1
  labels: {}
  last: null
  reason: \"\"
  rows: 12
none: []
operators:
- name: Sink(out)
  workers:
  - w1
  - w2
- inner:
    deep:
    - - 1
      - 2
    - []
    - - a: true
ratio: 0.5
";
        assert_eq!(write(&value), expected);
    }

    #[test]
    fn documents_that_are_one_value() {
        for (value, text) in [
            (json!([]), "[]\n"),
            (json!({}), "{}\n"),
            (json!(null), "null\n"),
            (json!("a: b"), "\"a: b\"\n"),
            (json!([1, "x"]), "- 1\n- x\n"),
            (json!(u64::MAX), "18446744073709551615\n"),
        ] {
            assert_eq!(write(&value), text);
        }
    }

    #[test]
    fn strings_that_would_be_read_as_something_else_are_quoted() {
        let quoted = [
            "",
            " ",
            "a ",
            " a",
            "true",
            "True",
            "no",
            "NO",
            "on",
            "y",
            "n",
            "null",
            "NULL",
            "~",
            "1",
            "1.5",
            "-1",
            "+1",
            "1e3",
            "0x1f",
            "0o17",
            "1_000",
            "12:30:45",
            "2026-11-21",
            ".5",
            ".inf",
            "-.INF",
            ".NaN",
            "a: b",
            "a:",
            "a #b",
            "#a",
            "- a",
            "-",
            "? a",
            "[a]",
            "{a}",
            "*a",
            "&a",
            "!a",
            "|",
            ">",
            "'a'",
            "\"a\"",
            "%a",
            "@a",
            "`a`",
            "a\nb",
            "a\\b",
            "a\tb",
            "\u{7f}",
            "\u{85}",
            "\u{2028}",
            "\u{feff}x",
            "---",
            "...",
            "é",
            "=",
            "<<",
            "a,b",
            "http://h:1",
        ];
        for text in quoted {
            let written = write(&json!(text));
            assert!(written.starts_with('"') && written.ends_with("\"\n"), "{text:?} is written {written:?}");
            // The escapes are a part of JSON's, so that a reader of JSON gets the string back.
            let back: String = serde_json::from_str(&written).unwrap_or_else(|e| panic!("{written:?}: {e}"));
            assert_eq!(back, text);
            assert_eq!(written.lines().count(), 1, "{written:?}");
            assert!(!written.trim_end_matches('\n').chars().any(char::is_control), "{written:?}");
        }
    }

    #[test]
    fn names_and_paths_stay_readable() {
        for text in ["RUNNING", "/tmp/state/chk-1", "pump-job_7", "WindowAggregate (5 s)", "v0.1.0", "nothing", "e1"] {
            assert_eq!(write(&json!(text)), format!("{text}\n"));
        }
    }

    #[test]
    fn keys_are_quoted_as_values_are() {
        assert_eq!(write(&json!({"a: b": 1, "no": 2, "k.v-1": 3})), "\"a: b\": 1\nk.v-1: 3\n\"no\": 2\n");
    }

    /// Reads what `write` writes: keys and scalars as JSON if quoted or literal, else as a string.
    fn read(text: &str) -> Value {
        let lines: Vec<&str> = text.lines().collect();
        let mut at = 0;
        let value = read_block(&lines.iter().map(|l| l.to_string()).collect::<Vec<_>>(), &mut at);
        assert_eq!(at, lines.len(), "all of it is read: {text}");
        value
    }

    fn read_scalar(text: &str) -> Value {
        serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_string()))
    }

    /// A map's line as key and rest; None if it is none.
    fn entry(line: &str) -> Option<(String, &str)> {
        let end = if line.starts_with('"') {
            let mut escaped = false;
            let close = line.char_indices().skip(1).find(|(_, c)| {
                let end = *c == '"' && !escaped;
                escaped = *c == '\\' && !escaped;
                end
            });
            close?.0 + 1
        } else {
            line.find(':')?
        };
        let rest = line[end..].strip_prefix(':')?;
        (rest.is_empty() || rest.starts_with(' ')).then_some(())?;
        let key = match read_scalar(&line[..end]) {
            Value::String(key) => key,
            other => panic!("a key that reads as {other}"),
        };
        Some((key, rest.trim_start()))
    }

    fn read_block(lines: &[String], at: &mut usize) -> Value {
        let indent_of = |line: &str| line.len() - line.trim_start_matches(' ').len();
        let indent = indent_of(&lines[*at]);
        let mut lines = lines.to_vec();
        let is_item = |line: &str| line.trim_start().starts_with("- ");
        if is_item(&lines[*at]) {
            let mut list = vec![];
            while *at < lines.len() && indent_of(&lines[*at]) == indent && is_item(&lines[*at]) {
                // The item as if its dash were two blanks.
                lines[*at].replace_range(indent..indent + 2, "  ");
                list.push(read_block(&lines, at));
            }
            return Value::Array(list);
        }
        if entry(lines[*at].trim_start()).is_none() {
            *at += 1;
            return read_scalar(lines[*at - 1].trim_start());
        }
        let mut map = serde_json::Map::new();
        while *at < lines.len() && indent_of(&lines[*at]) == indent && !is_item(&lines[*at]) {
            let line = lines[*at].clone();
            let (key, rest) = entry(line.trim_start()).unwrap_or_else(|| panic!("no entry: {line}"));
            *at += 1;
            let value = if rest.is_empty() { read_block(&lines, at) } else { read_scalar(rest) };
            map.insert(key, value);
        }
        Value::Object(map)
    }

    #[test]
    fn what_is_written_reads_back() {
        let nasty = json!({
            "sql": "CREATE TABLE t (\n  a INT -- first: column\n) WITH ('x' = \"y\");\n\n",
            "": "empty key",
            "true": [true, "true", "", [], {}, null, "null", -1.5, "-1.5"],
            "nested": [[["deep"], {"a": [{"b": "c: d", "e": [1]}, "f"]}], []],
            "unicode \u{2028} ü": "ä\u{7f}\u{1}",
            "map": {"x": {"y": {}}, "z": [{"only": 1}]},
        });
        assert_eq!(read(&write(&nasty)), nasty);
    }
}
