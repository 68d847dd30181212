//! What is told to a person. A terminal or pipe that has gone is no reason to fail, and none to panic.

use std::fmt::Display;
use std::io::{ErrorKind, Write, stderr, stdout};

/// A line on stderr, if anybody is there to read it.
pub fn tell(line: impl Display) {
    let _ = writeln!(stderr(), "{line}");
}

/// Text on stdout. A reader that has left (`| head`) has read enough; any other failure is one.
pub fn print(text: &str) -> Result<(), String> {
    write(&mut stdout(), text).map(|_| ())
}

/// Text on what stands for stdout. False: the reader has left, and what prints without end may end.
pub fn write(out: &mut dyn Write, text: &str) -> Result<bool, String> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(format!("cannot write to stdout: {error}")),
    }
}
