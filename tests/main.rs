//! EdgeFlow's promises, one file each.

#![expect(clippy::disallowed_methods, reason = "tests wait for processes and draw their seeds")]

mod exactly_once;
mod nexmark;
mod sensor;
mod tidy;
