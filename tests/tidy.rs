//! The architecture as a test: who may use whom, what every file opens with, what may not be left lying about.

use std::path::{Path, PathBuf};

/// For each module of a crate: the modules of the same crate it may use. Siblings do not see each other.
const PROTO: &[(&str, &[&str])] = &[
    ("ids", &[]),
    ("place", &[]),
    ("secret", &[]),
    ("schema", &["ids"]),
    ("keys", &["ids"]),
    ("function", &["ids", "schema"]),
    ("expr", &["ids", "schema", "keys", "function"]),
    ("connector", &["ids", "place", "secret", "schema", "keys", "function", "expr"]),
    ("plan", &["ids", "place", "schema", "keys", "function", "expr", "connector"]),
    ("error", &[]),
    ("checkpoint", &["ids", "schema", "keys", "expr", "connector", "plan", "error", "wire"]),
    ("rpc", &["ids", "place", "schema", "keys", "expr", "connector", "plan", "checkpoint", "error"]),
    ("machine", &["ids", "keys", "checkpoint", "error"]),
    ("job_config", &["place", "connector", "machine"]),
    (
        "wire",
        &[
            "secret",
            "ids",
            "place",
            "schema",
            "keys",
            "function",
            "expr",
            "connector",
            "plan",
            "checkpoint",
            "error",
            "rpc",
        ],
    ),
];

const STORE: &[(&str, &[&str])] = &[
    ("describe", &[]),
    ("copy", &["describe"]),
    ("location", &[]),
    ("lock", &[]),
    ("options", &[]),
    ("remote", &["describe", "location", "options"]),
];

const COORDINATOR: &[(&str, &[&str])] = &[
    ("meta", &[]),
    ("planner", &[]),
    ("scheduler", &[]),
    ("raft", &[]),
    ("manifests", &[]),
    ("solo", &["planner", "manifests"]),
    ("leader", &["meta", "planner", "scheduler", "raft", "manifests"]),
    ("workers", &["leader"]),
    ("api", &["leader", "workers"]),
];

const WORKER: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("secrets", &["error"]),
    ("config", &["error", "secrets"]),
    ("clock", &[]),
    ("resources", &[]),
    ("metrics", &["error"]),
    ("frame", &["error"]),
    ("keys", &["error", "frame"]),
    ("time", &["error", "frame"]),
    ("expr", &["error", "frame", "keys", "time"]),
    ("barrier", &["error", "frame"]),
    ("format", &["error", "frame", "keys", "time"]),
    ("model", &["error", "frame"]),
    ("lookup", &["error"]),
    ("state", &["error", "config", "frame"]),
    (
        "operator",
        &[
            "error", "config", "metrics", "frame", "keys", "expr", "time", "barrier", "format", "model", "lookup",
            "state",
        ],
    ),
    (
        "connector",
        &[
            "error", "secrets", "config", "metrics", "frame", "keys", "expr", "time", "barrier", "format", "model",
            "lookup", "state",
        ],
    ),
    (
        "exchange",
        &["error", "config", "metrics", "frame", "keys", "expr", "time", "barrier", "format", "model", "state"],
    ),
    (
        "task",
        &[
            "error",
            "config",
            "metrics",
            "frame",
            "keys",
            "expr",
            "time",
            "barrier",
            "format",
            "model",
            "state",
            "operator",
            "connector",
            "exchange",
        ],
    ),
    (
        "agent",
        &[
            "error",
            "secrets",
            "config",
            "metrics",
            "frame",
            "keys",
            "expr",
            "time",
            "barrier",
            "format",
            "model",
            "state",
            "operator",
            "connector",
            "exchange",
            "task",
            "clock",
            "resources",
        ],
    ),
    ("testing", &[]),
];

/// Crates that may not appear in a package's sources at all.
const FORBIDDEN: &[(&str, &[&str])] = &[
    (
        "proto",
        &["std::fs", "std::net", "std::time::Instant", "SystemTime", "datafusion", "rocksdb::", "rdkafka", "tokio"],
    ),
    ("proto/store", &["ef_coordinator", "ef_worker", "rocksdb::"]),
    ("coordinator", &["ef_worker"]),
    ("worker", &["ef_coordinator", "datafusion_sql", "sqlparser"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(below: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![below.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Every rule that `text`, the module `module` of a crate with this table, breaks.
fn layering(table: &[(&str, &[&str])], module: &str, text: &str) -> Vec<String> {
    let Some((_, allowed)) = table.iter().find(|(name, _)| *name == module) else {
        return vec![format!("module `{module}` is not in the layering table")];
    };
    let code: String = text.split("#[cfg(test)]").next().unwrap_or(text).to_string();
    let mut broken = Vec::new();
    for part in code.split("crate::").skip(1) {
        let used: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if used != module && table.iter().any(|(name, _)| *name == used) && !allowed.contains(&used.as_str()) {
            broken.push(format!("`{module}` uses `{used}`"));
        }
    }
    broken
}

#[test]
fn modules_use_only_what_stands_below_them() {
    let mut broken = Vec::new();
    for (package, table) in [("proto", PROTO), ("proto/store", STORE), ("coordinator", COORDINATOR), ("worker", WORKER)]
    {
        let src = root().join(package).join("src");
        for file in sources(&src) {
            let relative = file.strip_prefix(&src).expect("below src");
            let first = relative.components().next().expect("a name").as_os_str().to_string_lossy();
            let module = first.trim_end_matches(".rs");
            let is_test = relative.components().any(|c| c.as_os_str().to_string_lossy().starts_with("tests"));
            if matches!(module, "lib" | "main") || is_test {
                continue;
            }
            let text = std::fs::read_to_string(&file).expect("readable");
            broken.extend(layering(table, module, &text).into_iter().map(|b| format!("{}: {b}", file.display())));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn layering_check_sees_a_broken_rule() {
    assert_eq!(layering(WORKER, "operator", "use crate::task::Node;"), vec!["`operator` uses `task`"]);
    assert_eq!(layering(WORKER, "exchange", "use crate::operator::Emit;"), vec!["`exchange` uses `operator`"]);
    assert!(layering(WORKER, "task", "use crate::operator::Emit;").is_empty());
}

#[test]
fn packages_keep_away_from_what_they_must_not_know() {
    for (package, words) in FORBIDDEN {
        for file in sources(&root().join(package).join("src")) {
            let text = std::fs::read_to_string(&file).expect("readable");
            let code: String =
                text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
            for word in *words {
                assert!(!code.contains(word), "{} names `{word}`", file.display());
            }
        }
    }
}

#[test]
fn every_file_says_what_it_is_and_leaves_nothing_lying_about() {
    let mut broken = Vec::new();
    for package in ["proto/src", "proto/store/src", "coordinator/src", "worker/src", "client/src", "tests", "benches"] {
        for file in sources(&root().join(package)) {
            let text = std::fs::read_to_string(&file).expect("readable");
            let name = file.display();
            if !text.starts_with("//!") {
                broken.push(format!("{name}: does not open with //!"));
            }
            // Put together here, so that this file does not find itself.
            for word in ["dbg", "todo", "unimplemented"] {
                if text.contains(&format!("{word}!(")) {
                    broken.push(format!("{name}: {word}! is left"));
                }
            }
            if text.contains(&format!("#[{}]", "ignore")) {
                broken.push(format!("{name}: an ignored test"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
