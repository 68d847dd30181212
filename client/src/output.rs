//! What is told to a person. A terminal or pipe that has gone is no reason to fail, and none to panic.

use std::fmt::Display;
use std::io::{ErrorKind, Write, stderr, stdout};

/// A line on stderr, if anybody is there to read it.
pub fn tell(line: impl Display) {
    let _ = writeln!(stderr(), "{line}");
}

/// Text on stdout. A reader that has left (`| head`) has read enough; any other failure is one.
pub fn print(text: &str) -> Result<(), String> {
    let written = stdout().write_all(text.as_bytes()).and_then(|()| stdout().flush());
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(format!("cannot write to stdout: {error}")),
        _ => Ok(()),
    }
}
