//! EdgeFlow's promises, one file each.

#![expect(clippy::disallowed_methods, reason = "tests wait for processes and draw their seeds")]

mod bad_input;
mod changelog;
mod checkpoints;
mod exactly_once;
mod late;
mod models;
mod nexmark;
mod sensor;
mod tidy;
mod windows;
