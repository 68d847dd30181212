//! What a machine lacks for a test. In CI nothing may be lacking; on a user's machine the test says what it could not do
//! and how to get it, and passes.

use crate::shared::say;

/// `what` could not run because of `lack`.
#[track_caller]
pub fn missing(what: &str, lack: &str) {
    assert!(std::env::var_os("CI").is_none(), "{what} did not run: {lack}");
    say(&format!("{what}: did not run: {lack}"));
}

/// A user's own account can neither mount nor make network namespaces.
pub fn is_root() -> bool {
    // SAFETY: it has no arguments and cannot fail.
    unsafe { libc::geteuid() == 0 }
}
