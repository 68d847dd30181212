//! Rows as text, compared without order, duplicates counting, numbers within a relative tolerance.

use serde_json::Value;
use std::path::Path;

/// One row, in the order of the expected columns. NULL is the empty text.
pub type Row = Vec<String>;

/// Parses CSV without embedded newlines, first line names.
pub fn csv(text: &str) -> (Vec<String>, Vec<Row>) {
    let mut lines = text.lines().map(split_csv);
    let header = lines.next().expect("a header line");
    (header, lines.collect())
}

fn split_csv(line: &str) -> Row {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let field = fields.last_mut().expect("never empty");
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                field.push('"');
                chars.next();
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => field.push(c),
        }
    }
    fields
}

/// The lines of NDJSON text, each with the values of `columns`.
pub fn ndjson(text: &str, columns: &[String]) -> Vec<Row> {
    text.lines()
        .filter(|line| !line.is_empty())
        .map(|line| {
            let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in line {line}"));
            let object = value.as_object().unwrap_or_else(|| panic!("not an object: {line}"));
            assert_eq!(object.len(), columns.len(), "{columns:?} expected, found {line}");
            columns
                .iter()
                .map(|column| match object.get(column) {
                    None => panic!("no `{column}` in {line}"),
                    Some(Value::Null) => String::new(),
                    Some(Value::String(text)) => text.clone(),
                    Some(other) => other.to_string(),
                })
                .collect()
        })
        .collect()
}

/// All visible files of a sink's directory, one after the other.
pub fn directory(path: &Path) -> String {
    let mut text = String::new();
    let mut entries: Vec<_> = match std::fs::read_dir(path) {
        Ok(entries) => entries.map(|e| e.expect("readable").path()).collect(),
        Err(_) => return text,
    };
    entries.sort();
    for file in entries {
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        if !name.starts_with(['.', '_']) && file.is_file() {
            text.push_str(&std::fs::read_to_string(&file).expect("a readable file"));
        }
    }
    text
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok()
}

/// Equal as text, or as numbers within `tolerance`, relative above 1 and absolute below.
fn same(a: &str, b: &str, tolerance: f64) -> bool {
    a == b
        || matches!((number(a), number(b)), (Some(x), Some(y)) if (x - y).abs() <= tolerance * x.abs().max(y.abs()).max(1.0))
}

/// Panics with the first difference. Rows are paired by their `exact` leading columns in sorted order, then compared
/// column by column.
#[track_caller]
pub fn assert_same(what: &str, mut found: Vec<Row>, mut expected: Vec<Row>, tolerance: f64) {
    if let Err(difference) = compare(&mut found, &mut expected, tolerance) {
        panic!("{what}: {difference}");
    }
}

/// Ok, or the first difference in words.
pub fn compare(found: &mut [Row], expected: &mut [Row], tolerance: f64) -> Result<(), String> {
    // Text that differs only in the last digits of a double must not change a row's place in the order.
    let key = |row: &Row| -> Row {
        row.iter().map(|v| if v.contains('.') && number(v).is_some() { String::new() } else { v.clone() }).collect()
    };
    let order = |a: &Row, b: &Row| {
        key(a).cmp(&key(b)).then_with(|| {
            let numbers = |r: &Row| r.iter().filter_map(|v| number(v)).collect::<Vec<_>>();
            numbers(a).partial_cmp(&numbers(b)).unwrap_or(std::cmp::Ordering::Equal)
        })
    };
    found.sort_by(order);
    expected.sort_by(order);
    for (i, (f, e)) in found.iter().zip(expected.iter()).enumerate() {
        if !f.iter().zip(e).all(|(a, b)| same(a, b, tolerance)) {
            return Err(format!("row {i} of {} in order: found {f:?}, expected {e:?}", expected.len()));
        }
    }
    if found.len() != expected.len() {
        return Err(format!("{} rows found, {} expected", found.len(), expected.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &[&str]) -> Vec<Row> {
        text.iter().map(|line| split_csv(line)).collect()
    }

    #[test]
    fn comparison_sees_a_missing_a_double_and_a_wrong_row() {
        let good = || rows(&["a,1,0.5", "b,2,0.25", "b,2,0.25"]);
        let check = |found: &[&str]| compare(&mut rows(found), &mut good(), 1e-9);
        assert_eq!(check(&["b,2,0.25", "a,1,0.5000000000001", "b,2,0.25"]), Ok(()));
        assert!(check(&["a,1,0.5", "b,2,0.25"]).is_err());
        assert!(check(&["a,1,0.5", "a,1,0.5", "b,2,0.25"]).is_err());
        assert!(check(&["a,1,0.5", "b,2,0.25", "b,2,0.26"]).is_err());
        assert!(check(&["a,1,0.5", "b,2,0.25", "b,3,0.25"]).is_err());
    }
}
