//! What a run wrote, as JSON objects; a changelog added up to the table that it describes; the run's own figures.

use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

pub type Object = Map<String, Value>;

/// The lines of NDJSON text.
#[track_caller]
pub fn objects(text: &str) -> Vec<Object> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: `{line}` is not one JSON object")))
        .collect()
}

/// What `--summary-json` wrote.
#[track_caller]
pub fn json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The changes of standard output, as (kind, row).
pub fn changes(text: &str) -> Vec<(String, Object)> {
    let split = |mut object: Object| {
        let kind = object.remove("_op").and_then(|op| Some(op.as_str()?.to_string())).expect("every change has `_op`");
        (kind, object)
    };
    objects(text).into_iter().map(split).collect()
}

/// Adds up changes, in order; Err names the first that does not fit what came before it.
pub fn add_up(changes: Vec<(String, Object)>) -> Result<Vec<Object>, String> {
    let mut table: BTreeMap<String, (u64, Object)> = BTreeMap::new();
    for (kind, row) in changes {
        let text = serde_json::to_string(&row).expect("it was JSON before");
        let (count, _) = table.entry(text.clone()).or_insert((0, row));
        match kind.as_str() {
            "+I" | "+U" => *count += 1,
            "-U" | "-D" if *count > 0 => *count -= 1,
            "-U" | "-D" => return Err(format!("{kind} of a row that is not there: {text}")),
            other => return Err(format!("unknown kind of change `{other}`")),
        }
    }
    Ok(table.into_values().flat_map(|(count, row)| (0..count).map(move |_| row.clone())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_add_up_and_what_does_not_fit_is_seen() {
        let line = |op: &str, n: i64| format!("{{\"_op\":\"{op}\",\"n\":{n}}}\n");
        let text = line("+I", 1) + &line("-U", 1) + &line("+U", 2) + &line("+I", 3) + &line("-D", 3);
        let table = add_up(changes(&text)).expect("it fits");
        assert_eq!(table, objects("{\"n\":2}"));
        assert!(add_up(changes(&(line("+I", 1) + &line("-U", 2)))).is_err());
    }
}
