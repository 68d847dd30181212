//! EdgeFlow's promises, one file each.

#![expect(clippy::disallowed_methods, reason = "tests wait for processes and draw their seeds")]

mod bad_input;
mod checkpoints;
mod exactly_once;
mod models;
mod nexmark;
mod sensor;
mod tidy;
