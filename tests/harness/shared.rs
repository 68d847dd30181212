//! The recorded cases in `../shared`, which a user's clone does not have. Tests run them whenever the folder is there
//! and say how many they ran.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// The folder beside the checkout; None in a user's clone. In CI (`CI=true`) it must be there.
pub fn folder() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(std::env::var_os("CI").is_none(), "the recorded cases are missing: {}", folder.display());
    say("recorded cases: 0 ran (no ../shared beside this checkout)");
    None
}

/// Told to whoever runs the tests, also when they pass: the test runner keeps back what is printed by macro.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The text of a file, unpacked if its name ends in `.gz`.
pub fn text(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    if path.extension().is_some_and(|e| e == "gz") {
        let mut text = String::new();
        flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_string(&mut text).expect("a good gzip of text");
        return text;
    }
    String::from_utf8(bytes).expect("text")
}

/// `<name>` or `<name>.gz`, whichever is there.
pub fn either(folder: &Path, name: &str) -> PathBuf {
    let plain = folder.join(name);
    if plain.exists() { plain } else { folder.join(format!("{name}.gz")) }
}
